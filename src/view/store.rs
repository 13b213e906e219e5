//! The engine's side of a view: takes changes, knows where each row is.
//!
//! Rows lie in [`Segments`], found through an [`Index`] (for a store without a key only since its first retraction: what only
//! grows is only appended). A change is checked as a whole before anything is done, so a refused one leaves no trace.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::changes::Changes;
use super::index::Index;
use super::segment;
use super::segments::{Owner, Segments};
pub use super::version::Version;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::state::StateTable;

/// The rows of one view, and all that is needed to change them.
pub struct Store {
    name: &'static str,
    pub(super) schema: SchemaRef,
    pub(super) key: Arc<[usize]>,
    pub(super) segments: Segments,
    /// Always there if there is a key.
    pub(super) index: Option<Index>,
    rows: usize,
    /// Of the rows as they are, if it was asked for.
    version: Option<Arc<Version>>,
    changes: Changes,
    pub(super) gone: Marks,
    pub(super) come: Marks,
}

impl Store {
    /// `key`: columns whose values no two rows share; empty: a multiset of whole rows.
    pub fn new(name: &'static str, schema: SchemaRef, key: Vec<usize>) -> Store {
        let types: Vec<_> = key.iter().map(|k| schema.field(*k).data_type()).collect();
        let index = (!key.is_empty()).then(|| Index::new(&types).expect("a key's type has an order"));
        Store {
            name,
            segments: Segments::new(schema.clone()),
            index,
            rows: 0,
            version: None,
            changes: Changes::new(schema.clone()),
            gone: Marks::default(),
            come: Marks::default(),
            key: key.into(),
            schema,
        }
    }

    /// Apply weights. Taking away what is not there is an error, and so is a second row of the same key; then nothing is done.
    /// Returns the consolidated delta that was applied.
    pub fn apply(&mut self, deltas: &[Delta]) -> Result<Delta> {
        let applied = self.apply_weights(deltas)?;
        self.settle(applied)
    }

    fn apply_weights(&mut self, deltas: &[Delta]) -> Result<Applied> {
        let deltas: Vec<Delta> = deltas.iter().filter(|d| !d.is_empty()).map(|d| self.conform(d)).collect::<Result<_>>()?;
        if deltas.is_empty() {
            return Ok(Applied { delta: Delta::append(RecordBatch::new_empty(self.schema.clone())), ids: Vec::new() });
        }
        let all = Delta::concat(&self.schema, &deltas)?;
        if self.key.is_empty() { self.apply_multiset(all) } else { self.apply_keyed(all) }
    }

    /// Rows that replace those of the same key (the last of equal keys wins): the delta this makes. A row that is there as it
    /// is makes none.
    pub fn upsert(&mut self, rows: &RecordBatch) -> Result<Delta> {
        let rows = self.conform(&Delta::append(rows.clone()))?.rows;
        let applied = self.upsert_keyed(rows)?;
        self.settle(applied)
    }

    /// Remove the rows of these keys, where they are there (only the key's columns of `rows` count): the delta this makes.
    pub fn delete(&mut self, rows: &RecordBatch) -> Result<Delta> {
        let applied = self.delete_keyed(rows)?;
        self.settle(applied)
    }

    /// The rows as they are now. Cheap: shares all but what changed since the last version.
    pub fn version(&mut self) -> Arc<Version> {
        let (schema, key, segments) = (&self.schema, &self.key, &self.segments);
        self.version.get_or_insert_with(|| Arc::new(Version::new(schema.clone(), key.clone(), segments.parts()))).clone()
    }

    /// After a change: note it for the checkpoint, and put the rest in order.
    fn settle(&mut self, applied: Applied) -> Result<Delta> {
        let delta = applied.delta.clone();
        self.tidy(&delta)?;
        self.changes.push(applied)?;
        Ok(delta)
    }

    /// The count, the version, the segments.
    fn tidy(&mut self, delta: &Delta) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        self.version = None;
        let weight: i64 = delta.diff.as_ref().map_or(delta.len() as i64, |diff| diff.values().iter().sum());
        self.rows = self.rows.checked_add_signed(weight as isize).expect("no more rows are taken away than are there");
        let index = &mut self.index;
        self.segments.tidy(|owner, place| index.iter_mut().for_each(|index| index.place(owner, place)))
    }

    /// The same delta with exactly our schema.
    fn conform(&self, delta: &Delta) -> Result<Delta> {
        if delta.rows.schema_ref() == &self.schema {
            return Ok(delta.clone());
        }
        Ok(delta.with_rows(segment::batch(self.schema.clone(), delta.rows.columns().to_vec(), delta.len())?))
    }

    /// Add rows that belong to keys.
    pub(super) fn add(&mut self, rows: &RecordBatch, owners: &[Owner]) {
        let index = &mut self.index;
        self.segments.append(rows, owners, |owner, place| index.iter_mut().for_each(|index| index.place(owner, place)));
    }

    pub(super) fn key_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key.iter().map(|k| rows.column(*k).clone()).collect()
    }

    pub(super) fn absent(&self, rows: &RecordBatch, row: u32) -> Error {
        Error::internal(format!("retraction of a row that is not there: {}", row_text(rows, row))).with_context(self.name)
    }

    pub(super) fn duplicate(&self, rows: &RecordBatch, row: u32) -> Error {
        Error::internal(format!("a second row with the key of {}", row_text(rows, row))).with_context(self.name)
    }
}

impl StateTable for Store {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// A key that is not at the front does not count: weights of whole rows are right whatever the key.
    fn key_columns(&self) -> usize {
        let at_the_front = self.key.iter().enumerate().all(|(at, column)| at == *column);
        if at_the_front { self.key.len() } else { 0 }
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        Ok(self.changes.take())
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        let applied = match self.key_columns() {
            0 => self.apply_weights(&[delta])?,
            _ => self.load_keyed(&self.conform(&delta)?)?,
        };
        self.tidy(&applied.delta)
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.segments.bytes() + self.index.as_ref().map_or(0, Index::bytes)
    }
}

/// What a change did to the rows.
pub(super) struct Applied {
    pub delta: Delta,
    /// In a store with a key, the number of each row's key.
    pub ids: Vec<u32>,
}

/// A row of the delta at hand for each number of a key: kept between steps, because it is as long as the index.
#[derive(Default)]
pub(super) struct Marks(Vec<u32>);

impl Marks {
    const NONE: u32 = u32::MAX;

    /// Room for all numbers below `end`.
    pub fn reserve(&mut self, end: usize) {
        self.0.resize(end, Marks::NONE);
    }

    pub fn get(&self, id: u32) -> Option<u32> {
        Some(self.0[id as usize]).filter(|row| *row != Marks::NONE)
    }

    /// Says what was there.
    pub fn set(&mut self, id: u32, row: u32) -> Option<u32> {
        Some(std::mem::replace(&mut self.0[id as usize], row)).filter(|row| *row != Marks::NONE)
    }

    pub fn clear(&mut self, ids: &[u32]) {
        ids.iter().for_each(|id| self.0[*id as usize] = Marks::NONE);
    }
}

/// Rows with -1, then rows with +1.
pub(super) fn replacement(schema: &SchemaRef, gone: RecordBatch, come: RecordBatch) -> Result<Delta> {
    if gone.num_rows() == 0 {
        return Ok(Delta::append(come));
    }
    let (minus, plus) = (gone.num_rows(), come.num_rows());
    let rows = segment::concat(schema, &[gone, come], minus + plus)?;
    let diff = std::iter::repeat_n(-1, minus).chain(std::iter::repeat_n(1, plus));
    Ok(Delta::new(rows, Int64Array::from_iter_values(diff)))
}

/// A row as a message shows it.
fn row_text(rows: &RecordBatch, row: u32) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let value = |column: &ArrayRef| match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row as usize).to_string(),
        Err(error) => error.to_string(),
    };
    format!("({})", rows.columns().iter().map(value).collect::<Vec<_>>().join(", "))
}
