//! An arrangement: rows by key, in an order, each with its weight.
//!
//! What every operator remembers that must look at former rows again: joins, top-N, OVER, sessions. (The word is Differential
//! Dataflow's: McSherry et al., "Shared Arrangements", VLDB 2020.)
//!
//! A row is kept as bytes of Arrow's row format, its time first, then the columns it is ordered by, then the others. So the
//! rows of one key are sorted, a range of time is a range of bytes, equal rows are equal bytes, and what a frontier has passed
//! is a front part that goes at once.
//!
//! Invariants. A number stands for one key from [`Arrangement::update`] until [`Arrangement::tidy`]. Rows whose weights add up
//! to nothing are invisible at once, and are forgotten once no checkpoint has them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};

use super::Shard;
use crate::delta::Delta;
use crate::delta::keys::Keys;
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

/// Rows of one key up to which a sorted vector is quicker than a tree.
const FEW: usize = 32;

/// Rows per delta that a checkpoint is given.
const CHUNK_ROWS: usize = 8192;

/// Rows are dropped by spans of time of this length: about a second.
const SLICE: u32 = 20;

/// How rows are kept.
#[derive(Clone)]
pub struct Layout {
    pub schema: SchemaRef,
    /// Columns by which rows are found. NULL is a value like others.
    pub key: Vec<usize>,
    /// A timestamp column: rows are sorted by it before all else, and can be dropped by it. Rows where it is NULL come last
    /// and stay.
    pub time: Option<usize>,
    /// The columns that sort the rows of one key. Ties are broken by all other columns, in some fixed order.
    pub order: Vec<(usize, SortOptions)>,
}

/// The rows of one operator's shard.
pub struct Arrangement {
    name: &'static str,
    layout: Layout,
    shard: Shard,
    keys: Keys,
    /// By number of the key.
    buckets: Vec<Bucket>,
    coder: RowConverter,
    /// The schema's columns in the order of the coder.
    coded: Vec<usize>,
    /// The time and the columns that sort, which are the first of those: their code is the first part of a row's.
    order_coder: RowConverter,
    sorted: usize,
    /// The time alone: its code is the first part of a row's.
    time_coder: Option<RowConverter>,
    /// Keys by spans of time in which rows of them lie.
    slices: BTreeMap<i64, Vec<u32>>,
    /// Keys whose rows a checkpoint does not have as they are.
    dirty: Vec<u32>,
    /// Keys that may have no row.
    empty: Vec<u32>,
    rows: usize,
    /// Rows whose weight is below zero.
    negative: usize,
    row_bytes: usize,
}

/// The rows of one key.
#[derive(Default)]
struct Bucket {
    rows: Rows,
    dirty: bool,
    used: bool,
}

enum Rows {
    /// In order.
    Few(Vec<(Box<[u8]>, Weights)>),
    Many(BTreeMap<Box<[u8]>, Weights>),
}

#[derive(Clone, Copy, Default)]
struct Weights {
    now: i64,
    /// In the newest checkpoint.
    saved: i64,
}

/// Where rows belong: the number of each one's key, and its code.
pub struct Places {
    pub numbers: Vec<u32>,
    /// Which of the codes are theirs; `None`: all.
    kept: Option<Vec<usize>>,
    codes: Codes,
}

impl Places {
    pub fn code(&self, row: usize) -> &[u8] {
        self.codes.get(self.kept.as_ref().map_or(row, |kept| kept[row]))
    }

    /// Of some of the rows.
    pub fn keep(self, rows: &BooleanArray) -> Places {
        let code = |row: usize| self.kept.as_ref().map_or(row, |kept| kept[row]);
        let kept = rows.values().set_indices().map(code).collect();
        let numbers = rows.values().set_indices().map(|row| self.numbers[row]).collect();
        Places { numbers, kept: Some(kept), codes: self.codes }
    }
}

/// Keys that have rows in front of a code, and the code.
pub type Passed = (Vec<u32>, Box<[u8]>);

/// Rows as bytes. Of no columns at all (`None`), all are equal.
pub struct Codes(Option<arrow::row::Rows>);

impl Codes {
    fn new(coder: &RowConverter, columns: &[ArrayRef]) -> Result<Codes> {
        Ok(Codes(if columns.is_empty() { None } else { Some(coder.convert_columns(columns)?) }))
    }

    pub fn get(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |codes| codes.row(row).data())
    }
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::Few(Vec::new())
    }
}

impl Rows {
    fn is_empty(&self) -> bool {
        match self {
            Rows::Few(rows) => rows.is_empty(),
            Rows::Many(rows) => rows.is_empty(),
        }
    }

    /// Change the weights of a row, which is made if need be and forgotten if nothing is left of it. Says whether it is new
    /// (+1), gone (-1) or neither.
    fn change(&mut self, row: &[u8], change: impl FnOnce(&mut Weights)) -> i8 {
        match self {
            Rows::Few(rows) => match rows.binary_search_by(|(other, _)| (**other).cmp(row)) {
                Ok(at) => {
                    change(&mut rows[at].1);
                    if rows[at].1.is_nothing() {
                        rows.remove(at);
                        return -1;
                    }
                    0
                }
                Err(at) => {
                    let mut weights = Weights::default();
                    change(&mut weights);
                    if weights.is_nothing() {
                        return 0;
                    }
                    if rows.len() == FEW {
                        let mut many: BTreeMap<_, _> = std::mem::take(rows).into_iter().collect();
                        many.insert(row.into(), weights);
                        *self = Rows::Many(many);
                    } else {
                        rows.insert(at, (row.into(), weights));
                    }
                    1
                }
            },
            Rows::Many(rows) => match rows.get_mut(row) {
                Some(weights) => {
                    change(weights);
                    if weights.is_nothing() {
                        rows.remove(row);
                        return -1;
                    }
                    0
                }
                None => {
                    let mut weights = Weights::default();
                    change(&mut weights);
                    if weights.is_nothing() {
                        return 0;
                    }
                    rows.insert(row.into(), weights);
                    1
                }
            },
        }
    }

    fn range<'a>(&'a self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Box<dyn DoubleEndedIterator<Item = (&'a [u8], i64)> + 'a> {
        let live = |row: &'a [u8], weights: &Weights| (weights.now != 0).then_some((row, weights.now));
        match self {
            Rows::Few(rows) => {
                let start = match from {
                    Bound::Included(from) => rows.partition_point(|(row, _)| &**row < from),
                    Bound::Excluded(from) => rows.partition_point(|(row, _)| &**row <= from),
                    Bound::Unbounded => 0,
                };
                let end = match to {
                    Bound::Included(to) => rows.partition_point(|(row, _)| &**row <= to),
                    Bound::Excluded(to) => rows.partition_point(|(row, _)| &**row < to),
                    Bound::Unbounded => rows.len(),
                };
                Box::new(rows[start..end.max(start)].iter().filter_map(move |(row, weights)| live(row, weights)))
            }
            Rows::Many(rows) => Box::new(rows.range::<[u8], _>((from, to)).filter_map(move |(row, weights)| live(row, weights))),
        }
    }

    /// Take away the rows in front of a code. Rows that a checkpoint has leave their weights behind, to be taken back there.
    fn drop_before(&mut self, code: &[u8], mut gone: impl FnMut(&[u8], &Weights, bool)) {
        let mut keep = |row: &[u8], weights: &mut Weights| {
            let stays = weights.saved != 0;
            gone(row, weights, stays);
            weights.now = 0;
            stays
        };
        match self {
            Rows::Few(rows) => {
                let end = rows.partition_point(|(row, _)| &**row < code);
                let mut at = 0;
                rows.retain_mut(|(row, weights)| {
                    at += 1;
                    at > end || keep(row, weights)
                });
            }
            Rows::Many(rows) => {
                let rest = rows.split_off(code);
                rows.retain(|row, weights| keep(row, weights));
                rows.extend(rest);
            }
        }
    }

    /// Let `visit` see all weights; rows of which nothing is left are forgotten.
    fn save(&mut self, mut visit: impl FnMut(&[u8], &mut Weights)) {
        match self {
            Rows::Few(rows) => rows.retain_mut(|(row, weights)| {
                visit(row, weights);
                !weights.is_nothing()
            }),
            Rows::Many(rows) => rows.retain(|row, weights| {
                visit(row, weights);
                !weights.is_nothing()
            }),
        }
    }
}

impl Weights {
    fn is_nothing(&self) -> bool {
        self.now == 0 && self.saved == 0
    }
}

impl Arrangement {
    /// `name`: of the state table. A column's type that has no order is an error.
    pub fn new(name: &'static str, layout: Layout, shard: Shard) -> Result<Arrangement> {
        let field =
            |column: usize, options| SortField::new_with_options(layout.schema.field(column).data_type().clone(), options);
        let nulls_last = SortOptions { descending: false, nulls_first: false };
        let mut order: Vec<(usize, SortOptions)> = layout.time.iter().map(|time| (*time, nulls_last)).collect();
        for (column, options) in &layout.order {
            if order.iter().all(|(other, _)| other != column) {
                order.push((*column, *options));
            }
        }
        let sorted = order.len();
        let order_coder = RowConverter::new(order.iter().map(|(column, options)| field(*column, *options)).collect())?;
        for column in 0..layout.schema.fields().len() {
            if order.iter().all(|(other, _)| *other != column) {
                order.push((column, SortOptions::default()));
            }
        }
        let coder = RowConverter::new(order.iter().map(|(column, options)| field(*column, *options)).collect())?;
        let time_coder = layout.time.map(|time| RowConverter::new(vec![field(time, nulls_last)])).transpose()?;
        let types: Vec<_> = layout.key.iter().map(|column| layout.schema.field(*column).data_type()).collect();
        Ok(Arrangement {
            name,
            shard,
            keys: Keys::new(&types)?,
            buckets: Vec::new(),
            coder,
            coded: order.into_iter().map(|(column, _)| column).collect(),
            order_coder,
            sorted,
            time_coder,
            slices: BTreeMap::new(),
            dirty: Vec::new(),
            empty: Vec::new(),
            rows: 0,
            negative: 0,
            row_bytes: 0,
            layout,
        })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Add the weights of rows. Returns the number of each row's key.
    pub fn update(&mut self, delta: &Delta) -> Result<Vec<u32>> {
        let places = self.locate(&delta.rows)?;
        self.add(delta, &places)?;
        Ok(places.numbers)
    }

    /// Where rows belong. Their keys have numbers from now on, so [`Arrangement::add`] is to follow.
    pub fn locate(&mut self, rows: &RecordBatch) -> Result<Places> {
        let codes = self.codes(rows)?;
        Ok(Places { numbers: self.intern(rows)?, kept: None, codes })
    }

    /// Add the weights of rows that were located.
    pub fn add(&mut self, delta: &Delta, places: &Places) -> Result<()> {
        self.apply(delta, places, |weights, weight| weights.now += weight, true)
    }

    fn apply(&mut self, delta: &Delta, places: &Places, change: impl Fn(&mut Weights, i64), unsaved: bool) -> Result<()> {
        self.note_times(&delta.rows, &places.numbers)?;
        for (row, number) in places.numbers.iter().enumerate() {
            let bucket = &mut self.buckets[*number as usize];
            let code = places.code(row);
            let (mut before, mut after) = (0, 0);
            let made = bucket.rows.change(code, |weights| {
                before = weights.now;
                change(weights, delta.weight(row));
                after = weights.now;
            });
            self.rows = self.rows + usize::from(after != 0) - usize::from(before != 0);
            self.negative = self.negative + usize::from(after < 0) - usize::from(before < 0);
            match made {
                1 => self.row_bytes += code.len(),
                -1 => self.row_bytes -= code.len(),
                _ => {}
            }
            if bucket.rows.is_empty() {
                self.empty.push(*number);
            }
            if unsaved && !bucket.dirty {
                bucket.dirty = true;
                self.dirty.push(*number);
            }
        }
        Ok(())
    }

    fn intern(&mut self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let key: Vec<ArrayRef> = self.layout.key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        let numbers = self.keys.intern(&key, rows.num_rows())?;
        if self.buckets.len() < self.keys.end() {
            self.buckets.resize_with(self.keys.end(), Bucket::default);
        }
        for number in &numbers {
            self.buckets[*number as usize].used = true;
        }
        Ok(numbers)
    }

    /// Remember which keys have rows in which span of time.
    fn note_times(&mut self, rows: &RecordBatch, numbers: &[u32]) -> Result<()> {
        let Some(time) = self.layout.time else { return Ok(()) };
        let times = timestamps(rows.column(time))?;
        let mut last = None;
        for (row, number) in numbers.iter().enumerate() {
            let entry = (times.is_valid(row)).then(|| (times.value(row) >> SLICE, *number));
            if entry.is_some() && entry != last {
                last = entry;
                self.slices.entry(times.value(row) >> SLICE).or_default().push(*number);
            }
        }
        Ok(())
    }

    /// The numbers of the keys in `columns` (as many as the layout's, of their types), where there are rows of them.
    pub fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<u32>>> {
        self.keys.find(columns, rows)
    }

    /// The rows of a key in their order, with their weights.
    pub fn rows(&self, number: u32) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        self.buckets[number as usize].rows.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// The codes of rows.
    pub fn codes(&self, rows: &RecordBatch) -> Result<Codes> {
        let columns: Vec<ArrayRef> = self.coded.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        Codes::new(&self.coder, &columns)
    }

    /// The weight of a row, of whatever key.
    pub fn weight(&self, code: &[u8]) -> i64 {
        let of_key = |number: u32| self.range(number, Bound::Included(code), Bound::Included(code)).map(|(_, weight)| weight);
        self.numbers().flat_map(of_key).sum()
    }

    /// The rows of a key whose codes are in a range.
    pub fn range(&self, number: u32, from: Bound<&[u8]>, to: Bound<&[u8]>) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        self.buckets[number as usize].rows.range(from, to)
    }

    /// What the codes of these rows begin with, if they sort like these.
    pub fn order_codes(&self, rows: &RecordBatch) -> Result<Codes> {
        let columns: Vec<ArrayRef> = self.coded[..self.sorted].iter().map(|c| Arc::clone(rows.column(*c))).collect();
        Codes::new(&self.order_coder, &columns)
    }

    /// The rows of a key whose time is in `[from, to]`. `from` and `to` are codes of [`Arrangement::time_codes`].
    pub fn rows_between(&self, number: u32, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], i64)> {
        // Codes of one column are of one length here, and a row's begins with its time's: the successor of `to` ends the range.
        let end = successor(to);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.buckets[number as usize].rows.range(Bound::Included(from), to)
    }

    /// All numbers of keys are below this.
    pub fn end(&self) -> usize {
        self.buckets.len()
    }

    /// Numbers of all keys that have rows.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.rows.is_empty()).map(|(number, _)| number as u32)
    }

    /// Forget the rows of a key whose time is in `[from, to]`. Nobody may ask for them any more.
    pub fn remove_between(&mut self, number: u32, from: &[u8], to: &[u8]) {
        let end = successor(to);
        self.remove(number, Bound::Included(from), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    }

    /// Forget the rows of a key whose codes are in a range. Nobody may ask for them any more.
    pub fn remove(&mut self, number: u32, from: Bound<&[u8]>, to: Bound<&[u8]>) {
        let gone: Vec<(Box<[u8]>, i64)> = self.range(number, from, to).map(|(row, weight)| (row.into(), weight)).collect();
        let bucket = &mut self.buckets[number as usize];
        let mut tombs = false;
        for (row, weight) in &gone {
            // Rows that a checkpoint has leave their weights behind, to be taken back there.
            let forgotten = bucket.rows.change(row, |weights| weights.now = 0) < 0;
            self.rows -= 1;
            self.negative -= usize::from(*weight < 0);
            tombs |= !forgotten;
            if forgotten {
                self.row_bytes -= row.len();
            }
        }
        if bucket.rows.is_empty() {
            self.empty.push(number);
        }
        if tombs && !bucket.dirty {
            bucket.dirty = true;
            self.dirty.push(number);
        }
    }

    /// What the rows of each of these instants begin with.
    pub fn time_codes(&self, times: &ArrayRef) -> Result<arrow::row::Rows> {
        let coder = self.time_coder.as_ref().ok_or_else(|| Error::internal("this arrangement has no time"))?;
        Ok(coder.convert_columns(std::slice::from_ref(times))?)
    }

    /// Rows from their bytes.
    pub fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let count = rows.len();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = &self.layout.schema;
        let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
        if !self.coded.is_empty() {
            let parser = self.coder.parser();
            let decoded = self.coder.convert_rows(rows.map(|row| parser.parse(row)))?;
            for (array, column) in decoded.into_iter().zip(&self.coded) {
                let data_type = schema.field(*column).data_type();
                let fits = array.data_type() == data_type;
                columns[*column] = Some(if fits { array } else { arrow::compute::cast(&array, data_type)? });
            }
        }
        let columns = columns.into_iter().map(|c| c.expect("every column is coded")).collect();
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// Forget all rows whose time is before `bound`, except of the second before it. Nobody may ask for them any more.
    pub fn evict(&mut self, bound: Micros) -> Result<()> {
        if let Some((numbers, edge)) = self.passed(bound)? {
            numbers.into_iter().for_each(|number| self.drop_before(number, &edge));
        }
        Ok(())
    }

    /// The keys of rows whose time is before `bound`, that were not told yet, and the code in front of which those rows are: of a
    /// time up to a second before the bound. `None`: there are none.
    pub fn passed(&mut self, bound: Micros) -> Result<Option<Passed>> {
        let Some(time) = self.layout.time.filter(|_| bound != NO_TIME) else { return Ok(None) };
        let open = bound >> SLICE;
        if self.slices.first_key_value().is_none_or(|(first, _)| *first >= open) {
            return Ok(None);
        }
        let later = self.slices.split_off(&open);
        let passed = std::mem::replace(&mut self.slices, later);
        let edge: ArrayRef = Arc::new(
            PrimitiveArray::<TimestampMicrosecondType>::from_value(open << SLICE, 1)
                .with_data_type(self.layout.schema.field(time).data_type().clone()),
        );
        let mut numbers: Vec<u32> = passed.into_values().flatten().collect();
        numbers.sort_unstable();
        numbers.dedup();
        Ok(Some((numbers, self.time_codes(&edge)?.row(0).data().into())))
    }

    /// Forget the rows of a key in front of a code. Nobody may ask for them any more.
    pub fn drop_before(&mut self, number: u32, code: &[u8]) {
        let bucket = &mut self.buckets[number as usize];
        let mut tombs = false;
        bucket.rows.drop_before(code, |row, weights, stays| {
            self.rows -= usize::from(weights.now != 0);
            self.negative -= usize::from(weights.now < 0);
            tombs |= stays;
            if !stays {
                self.row_bytes -= row.len();
            }
        });
        if bucket.rows.is_empty() {
            self.empty.push(number);
        }
        if tombs && !bucket.dirty {
            bucket.dirty = true;
            self.dirty.push(number);
        }
    }

    /// To be called at the end of a step: numbers of keys without rows may be given to others from now on. A row that was
    /// taken away more often than it came is an error.
    pub fn tidy(&mut self) -> Result<()> {
        for number in std::mem::take(&mut self.empty) {
            let bucket = &mut self.buckets[number as usize];
            if bucket.used && bucket.rows.is_empty() && !bucket.dirty {
                *bucket = Bucket::default();
                self.keys.release(number);
            }
        }
        match self.negative {
            0 => Ok(()),
            _ => Err(Error::internal(format!("{}: retraction of a row that is not there", self.name))),
        }
    }
}

/// The least bytes that are greater than all that begin with these; `None`: there are none.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

fn timestamps(column: &ArrayRef) -> Result<&PrimitiveArray<TimestampMicrosecondType>> {
    column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("rows are kept by a time of type {}", column.data_type())))
}

impl StateTable for Arrangement {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.layout.schema)
    }

    fn key_columns(&self) -> usize {
        0
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        let mut changed: Vec<(Box<[u8]>, i64)> = Vec::new();
        let mut forgotten = 0;
        for number in std::mem::take(&mut self.dirty) {
            let bucket = &mut self.buckets[number as usize];
            bucket.dirty = false;
            bucket.rows.save(|row, weights| {
                if weights.now != weights.saved {
                    changed.push((row.into(), weights.now - weights.saved));
                    weights.saved = weights.now;
                }
                forgotten += if weights.is_nothing() { row.len() } else { 0 };
            });
            if bucket.rows.is_empty() {
                self.empty.push(number);
            }
        }
        self.row_bytes -= forgotten;
        let delta = |part: &[(Box<[u8]>, i64)]| -> Result<Delta> {
            let rows = self.decode(part.iter().map(|(row, _)| &**row))?;
            Ok(Delta::new(rows, Int64Array::from_iter_values(part.iter().map(|(_, weight)| *weight))))
        };
        let changes = changed.chunks(CHUNK_ROWS).map(delta).collect::<Result<_>>()?;
        self.tidy()?;
        Ok(changes)
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        let key: Vec<ArrayRef> = self.layout.key.iter().map(|column| Arc::clone(delta.rows.column(*column))).collect();
        let owned = delta.take(&self.shard.owned(&key, delta.len())?)?;
        let both = |weights: &mut Weights, weight| {
            weights.now += weight;
            weights.saved += weight;
        };
        let places = self.locate(&owned.rows)?;
        self.apply(&owned, &places, both, false)
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.row_bytes
            + self.rows * size_of::<(Box<[u8]>, Weights)>()
            + self.buckets.capacity() * size_of::<Bucket>()
            + self.slices.values().map(|numbers| numbers.capacity() * 4).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use rand::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn layout() -> Layout {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("v", DataType::Int64, true),
        ]));
        Layout { schema, key: vec![0], time: Some(1), order: vec![(2, SortOptions { descending: true, nulls_first: false })] }
    }

    fn delta(rows: &[(&str, Option<i64>, i64, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.1.map(|s| s * SECOND)))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ];
        let rows_of = RecordBatch::try_new(layout().schema, columns).unwrap();
        Delta::new(rows_of, Int64Array::from_iter_values(rows.iter().map(|r| r.3)))
    }

    fn key(name: &str) -> Vec<ArrayRef> {
        vec![Arc::new(StringArray::from(vec![name]))]
    }

    /// `(second, v, weight)` of the rows of a key, in order.
    fn content(arrangement: &Arrangement, name: &str) -> Vec<(Option<i64>, i64, i64)> {
        let Some(number) = arrangement.find(&key(name), 1).unwrap()[0] else { return Vec::new() };
        let rows: Vec<_> = arrangement.rows(number).collect();
        let batch = arrangement.decode(rows.iter().map(|(row, _)| *row)).unwrap();
        let (at, v) = (timestamps(batch.column(1)).unwrap(), batch.column(2).as_primitive::<arrow::datatypes::Int64Type>());
        rows.iter()
            .enumerate()
            .map(|(i, (_, weight))| (at.is_valid(i).then(|| at.value(i) / SECOND), v.value(i), *weight))
            .collect()
    }

    #[test]
    fn rows_of_a_key_come_by_time_then_in_the_order_asked_for() {
        let mut arrangement = Arrangement::new("rows", layout(), Shard::WHOLE).unwrap();
        arrangement
            .update(&delta(&[("a", None, 7, 1), ("a", Some(5), 1, 1), ("b", Some(1), 0, 1), ("a", Some(2), 3, 2)]))
            .unwrap();
        arrangement.update(&delta(&[("a", Some(5), 9, 1), ("a", Some(2), 3, -1)])).unwrap();
        arrangement.tidy().unwrap();
        assert_eq!(content(&arrangement, "a"), [(Some(2), 3, 1), (Some(5), 9, 1), (Some(5), 1, 1), (None, 7, 1)]);
        assert_eq!(arrangement.rows, 5);
        let number = arrangement.find(&key("a"), 1).unwrap()[0].unwrap();
        let bounds: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![3 * SECOND, 5 * SECOND]));
        let codes = arrangement.time_codes(&bounds).unwrap();
        assert_eq!(arrangement.rows_between(number, codes.row(0).data(), codes.row(1).data()).count(), 2);
        assert_eq!(arrangement.rows_between(number, codes.row(1).data(), codes.row(1).data()).count(), 2);
        assert_eq!(arrangement.rows_between(number, codes.row(0).data(), codes.row(0).data()).count(), 0);
    }

    #[test]
    fn a_frontier_takes_the_rows_before_it_and_nothing_else() {
        let mut arrangement = Arrangement::new("rows", layout(), Shard::WHOLE).unwrap();
        let many: Vec<_> = (0..100).map(|i| ("many", Some(i), i, 1)).collect();
        arrangement.update(&delta(&many)).unwrap();
        arrangement.update(&delta(&[("few", Some(3), 0, 1), ("few", None, 0, 1), ("gone", Some(3), 0, 1)])).unwrap();
        assert_eq!(arrangement.changes().unwrap().iter().map(Delta::len).sum::<usize>(), 103);
        arrangement.evict(50 * SECOND).unwrap();
        arrangement.tidy().unwrap();
        // Up to about a second of time may stay behind the frontier.
        let first = content(&arrangement, "many")[0].0.unwrap();
        assert!((48..=50).contains(&first), "{first}");
        assert_eq!(content(&arrangement, "few"), [(None, 0, 1)]);
        assert_eq!(content(&arrangement, "gone"), []);
        let taken: i64 = arrangement.changes().unwrap().iter().flat_map(|d| (0..d.len()).map(|r| d.weight(r))).sum();
        assert_eq!(taken, -(first + 2), "the checkpoint is told");
        assert_eq!(arrangement.find(&key("gone"), 1).unwrap(), [None]);
        assert!(arrangement.changes().unwrap().is_empty());
    }

    #[test]
    fn taking_away_what_is_not_there_is_an_error() {
        let mut arrangement = Arrangement::new("rows", layout(), Shard::WHOLE).unwrap();
        arrangement.update(&delta(&[("a", Some(1), 1, -1)])).unwrap();
        arrangement.update(&delta(&[("a", Some(1), 1, 1)])).unwrap();
        arrangement.tidy().unwrap();
        arrangement.update(&delta(&[("a", Some(1), 1, -1)])).unwrap();
        assert!(arrangement.tidy().is_err());
    }

    /// What was loaded from a run of checkpoints is what was there, for any number of shards.
    #[test]
    fn checkpoints_give_back_the_rows() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut arrangement = Arrangement::new("rows", layout(), Shard::WHOLE).unwrap();
        let mut shards: Vec<Arrangement> =
            (0..3).map(|index| Arrangement::new("rows", layout(), Shard { index, of: 3 }).unwrap()).collect();
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut present: Vec<(&str, Option<i64>, i64)> = Vec::new();
        for round in 0..200 {
            let mut rows = Vec::new();
            for _ in 0..rng.random_range(0..20) {
                if !present.is_empty() && rng.random_bool(0.4) {
                    let (name, at, v) = present.swap_remove(rng.random_range(0..present.len()));
                    rows.push((name, at, v, -1));
                } else {
                    let at = rng.random_bool(0.9).then(|| round + rng.random_range(0..30));
                    let row = (names[rng.random_range(0..names.len())], at, rng.random_range(0..5));
                    present.push(row);
                    rows.push((row.0, row.1, row.2, 1));
                }
            }
            arrangement.update(&delta(&rows)).unwrap();
            if round % 7 == 0 {
                arrangement.evict(round * SECOND).unwrap();
                present.retain(|(_, at, _)| at.is_none_or(|at| (at * SECOND) >> SLICE >= (round * SECOND) >> SLICE));
            }
            arrangement.tidy().unwrap();
            if rng.random_bool(0.3) {
                for change in arrangement.changes().unwrap() {
                    for shard in &mut shards {
                        shard.load(change.clone()).unwrap();
                    }
                }
                for name in names {
                    let mut together: Vec<_> = shards.iter().flat_map(|shard| content(shard, name)).collect();
                    together.sort_by_key(|(at, v, _)| (at.is_none(), *at, -v));
                    assert_eq!(together, content(&arrangement, name), "round {round}");
                }
                assert_eq!(shards.iter().map(|s| s.rows).sum::<usize>(), arrangement.rows);
            }
            let weight: i64 = names.iter().flat_map(|name| content(&arrangement, name)).map(|(_, _, weight)| weight).sum();
            assert_eq!(weight, present.len() as i64, "round {round}");
        }
        drop(present);
        let left: i64 = arrangement.row_bytes as i64;
        assert!(left > 0);
    }
}
