//! The readers' side of a view: rows at one moment, immutable.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use super::search::{Place, Search};
use super::segment::{self, Live, Segment};
use crate::delta::keys::Keys;
use crate::error::Result;
use crate::limits::BATCH_ROWS;

/// The readers' side: rows at one moment, immutable.
pub struct Version {
    schema: SchemaRef,
    key: Arc<[usize]>,
    parts: Vec<Part>,
    rows: usize,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version of {} rows", self.rows)
    }
}

/// The live rows of a segment.
#[derive(Clone)]
pub(super) struct Part {
    pub segment: Arc<Segment>,
    pub live: Option<Live>,
    /// How many rows are live.
    pub rows: usize,
}

impl Part {
    /// The live ones among `length` rows from `start` on.
    pub fn read(&self, start: usize, length: usize, projection: Option<&[usize]>) -> Result<RecordBatch> {
        let rows = match projection {
            Some(columns) => self.segment.batch.project(columns)?.slice(start, length),
            None => self.segment.batch.slice(start, length),
        };
        match &self.live {
            Some(live) => Ok(compute::filter_record_batch(&rows, &live.slice(start, length))?),
            None => Ok(rows),
        }
    }

    pub fn has(&self, row: u32) -> bool {
        self.live.as_ref().is_none_or(|live| live.is(row))
    }
}

impl Version {
    pub(super) fn new(schema: SchemaRef, key: Arc<[usize]>, parts: Vec<Part>) -> Version {
        let rows = parts.iter().map(|part| part.rows).sum();
        Version { schema, key, parts, rows }
    }

    /// A relation without rows.
    pub fn empty(schema: SchemaRef, key: Vec<usize>) -> Version {
        Version::new(schema, key.into(), Vec::new())
    }

    /// Rows that a query gave; the key holds of them.
    pub fn of_rows(schema: SchemaRef, key: Vec<usize>, rows: Vec<RecordBatch>) -> Version {
        let part = |rows: RecordBatch| Part { rows: rows.num_rows(), segment: Arc::new(Segment::new(rows)), live: None };
        Version::new(schema, key.into(), rows.into_iter().map(part).collect())
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The columns whose values no two rows share; empty: equal rows may be there several times.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the rows. Versions of a view share most of them.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.segment.bytes).sum()
    }

    /// All rows, in batches of at most `limits::BATCH_ROWS`.
    pub fn scan(&self, projection: Option<&[usize]>) -> Result<Vec<RecordBatch>> {
        let batches = self.chunks().map(|(part, start, length)| part.read(start, length, projection));
        batches.filter(|batch| !matches!(batch, Ok(batch) if batch.num_rows() == 0)).collect()
    }

    /// All rows cut into pieces of at most a batch, to be read one by one: part, first row, number of rows.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Part, usize, usize)> {
        let pieces = |part: &Part| {
            let rows = part.segment.rows();
            (0..rows).step_by(BATCH_ROWS).map(move |start| (start, BATCH_ROWS.min(rows - start)))
        };
        self.parts.iter().flat_map(move |part| pieces(part).map(move |(start, length)| (part, start, length)))
    }

    /// The rows with these key values, in the order they are asked for: one array per key column, a row per key. Keys that are
    /// not there bring nothing; NULL finds NULL.
    pub fn lookup(&self, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let places = self.find(keys)?;
        self.gather(&places, None)
    }

    /// The rows at some places of this version.
    pub(super) fn gather(&self, places: &[Place], projection: Option<&[usize]>) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.parts.iter().map(|part| &part.segment.batch).collect();
        segment::gather(&self.schema, &batches, places, projection)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// This version of a table after a write: the rows stand in place of those of their keys (of equal keys the last one), or,
    /// if `delete`, those keys are gone.
    pub fn written(&self, rows: &RecordBatch, delete: bool) -> Result<Version> {
        let rows = segment::batch(self.schema.clone(), rows.columns().to_vec(), rows.num_rows())?;
        let keys: Vec<ArrayRef> = self.key.iter().map(|k| rows.column(*k).clone()).collect();
        let mut places = self.find(&keys)?;
        places.sort_unstable();
        places.dedup();
        let mut parts = self.parts.clone();
        for (part, row) in places {
            let Part { segment, live, rows } = &mut parts[part];
            live.get_or_insert_with(|| Live::all(segment.rows())).kill(row as u32);
            *rows -= 1;
        }
        if !delete {
            let numbers = Keys::new(&keys.iter().map(|k| k.data_type()).collect::<Vec<_>>())?.intern(&keys, rows.num_rows())?;
            let last: HashMap<u32, u32> = numbers.into_iter().zip(0..).collect();
            let mut last: Vec<u32> = last.into_values().collect();
            last.sort_unstable();
            let batch = compute::take_record_batch(&rows, &UInt32Array::from(last))?;
            parts.push(Part { rows: batch.num_rows(), segment: Arc::new(Segment::new(batch)), live: None });
        }
        Ok(Version::new(self.schema.clone(), self.key.clone(), parts))
    }

    /// Where the rows of these keys are.
    fn find(&self, keys: &[ArrayRef]) -> Result<Vec<Place>> {
        Search::new(self, self.key.clone(), keys.to_vec())?.next(self, usize::MAX)
    }
}
