//! A run of rows that never changes, and how rows are found in it by some of their values, or passed over.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::prune::Bounds;
use crate::error::Result;

/// Rows of a view as they were written together. Which of them are still there is said beside it, by a [`Live`].
pub(super) struct Segment {
    pub batch: RecordBatch,
    /// Bytes of the rows themselves: the buffers may be shared with others.
    pub bytes: usize,
    /// Built when a reader first asks for rows by some columns.
    indexes: OnceLock<Box<Lookup>>,
    /// By column; found out when a reader first asks for a range of it.
    bounds: OnceLock<Box<[OnceLock<Option<Bounds>>]>>,
}

/// The rows by the values of some columns, and behind it the same by others that readers have asked for.
struct Lookup {
    columns: Box<[usize]>,
    index: HashIndex,
    next: OnceLock<Box<Lookup>>,
}

impl Segment {
    pub fn new(batch: RecordBatch) -> Segment {
        let bytes = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_default()).sum();
        Segment { batch, bytes, indexes: OnceLock::new(), bounds: OnceLock::new() }
    }

    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows whose values in these columns may have this hash; whether they do is for the caller to see.
    pub fn candidates(&self, columns: &[usize], hash: u64) -> Result<impl Iterator<Item = u32>> {
        Ok(self.index(columns)?.candidates(hash))
    }

    /// The bounds of a column's values; `None` if they have no order.
    pub fn bounds(&self, column: usize) -> Option<&Bounds> {
        let columns = || (0..self.batch.num_columns()).map(|_| OnceLock::new()).collect();
        let bounds = &self.bounds.get_or_init(columns)[column];
        bounds.get_or_init(|| Bounds::of(self.batch.column(column)).ok()).as_ref()
    }

    fn index(&self, columns: &[usize]) -> Result<&HashIndex> {
        let mut at = &self.indexes;
        loop {
            match at.get() {
                Some(lookup) if *lookup.columns == *columns => return Ok(&lookup.index),
                Some(lookup) => at = &lookup.next,
                // Another reader may put its own here meanwhile: look again.
                None => {
                    let values: Vec<ArrayRef> = columns.iter().map(|c| self.batch.column(*c).clone()).collect();
                    let index = HashIndex::new(&values, self.rows())?;
                    let _ = at.set(Box::new(Lookup { columns: columns.into(), index, next: OnceLock::new() }));
                }
            }
        }
    }
}

/// Which rows of a segment are there: a bit per row. `None` in its place says that all are.
#[derive(Clone)]
pub(super) struct Live {
    words: Arc<Vec<u64>>,
}

impl Live {
    pub fn all(rows: usize) -> Live {
        let mut words = vec![u64::MAX; rows.div_ceil(64)];
        if let Some(last) = words.last_mut().filter(|_| !rows.is_multiple_of(64)) {
            *last = (1 << (rows % 64)) - 1;
        }
        Live { words: Arc::new(words) }
    }

    /// Copies the bits first if a version holds them.
    pub fn kill(&mut self, row: u32) {
        Arc::make_mut(&mut self.words)[row as usize / 64] &= !(1 << (row % 64));
    }

    pub fn is(&self, row: u32) -> bool {
        self.words[row as usize / 64] & (1 << (row % 64)) != 0
    }

    /// The bits of some rows as Arrow has them.
    pub fn slice(&self, start: usize, length: usize) -> BooleanArray {
        let (first, last) = (start / 64, (start + length).div_ceil(64));
        let buffer = Buffer::from_slice_ref(&self.words[first..last]);
        BooleanArray::new(BooleanBuffer::new(buffer, start % 64, length), None)
    }
}

/// Rows of a segment by the hash of some of their values. Holds no values: the rows of one hash are compared by who asks.
struct HashIndex {
    /// Half of the hash, and the first row that has it.
    first: HashTable<(u32, u32)>,
    /// By row: the next one of the same half, or [`LAST`]. Empty where no two rows have one: a table of many equal hashes would
    /// be slow to fill.
    next: Vec<u32>,
}

const LAST: u32 = u32::MAX;

impl HashIndex {
    fn new(values: &[ArrayRef], rows: usize) -> Result<HashIndex> {
        let (mut first, mut next) = (HashTable::with_capacity(rows), Vec::new());
        // From the last one on, so that the first of a hash comes first.
        for (row, hash) in hashes(values, rows)?.into_iter().enumerate().rev() {
            let half = half(hash);
            match first.entry(spread(half), |(other, _)| *other == half, |(half, _)| spread(*half)) {
                Entry::Vacant(vacant) => {
                    vacant.insert((half, row as u32));
                }
                Entry::Occupied(mut occupied) => {
                    next.resize(rows, LAST);
                    next[row] = std::mem::replace(&mut occupied.get_mut().1, row as u32);
                }
            }
        }
        first.shrink_to_fit(|(half, _)| spread(*half));
        Ok(HashIndex { first, next })
    }

    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let half = half(hash);
        let first = self.first.find(spread(half), |(other, _)| *other == half).map(|(_, row)| *row);
        std::iter::successors(first, |row| self.next.get(*row as usize).copied().filter(|row| *row != LAST))
    }
}

fn half(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// The hash table looks at the upper and the lower bits.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Hashes of values, for [`Segment::candidates`].
pub(super) fn hashes(values: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(values, &RandomState::with_seed(0), &mut hashes)?;
    Ok(hashes)
}

/// Row by row, whether both sides are the same: NULL = NULL, NaN = NaN, and -0.0 is not 0.0.
pub(super) fn same_rows(left: &[ArrayRef], right: &[ArrayRef], rows: usize) -> Result<BooleanArray> {
    let mut same = BooleanArray::new(BooleanBuffer::new_set(rows), None);
    for (left, right) in left.iter().zip(right) {
        same = compute::and(&same, &same_values(left, right)?)?;
    }
    Ok(same)
}

fn same_values(left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
    if !left.data_type().is_nested() {
        return Ok(not_distinct(left, right)?);
    }
    let compare = arrow::array::make_comparator(left, right, arrow::compute::SortOptions::default())?;
    Ok((0..left.len()).map(|row| Some(compare(row, row).is_eq())).collect())
}

/// A batch that may have no columns.
pub(super) fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// Rows from several batches of one schema, (batch, row) each; of these columns, or all.
pub(super) fn gather(
    schema: &SchemaRef,
    batches: &[&RecordBatch],
    at: &[(usize, usize)],
    projection: Option<&[usize]>,
) -> Result<RecordBatch> {
    let Some(projection) = projection else {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        return gather(schema, batches, at, Some(&all));
    };
    let schema = Arc::new(schema.project(projection)?);
    if at.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let column = |c: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(c).as_ref()).collect();
        compute::interleave(&arrays, at)
    };
    let columns = projection.iter().map(|c| column(*c)).collect::<Result<_, _>>()?;
    batch(schema, columns, at.len())
}

/// Batches of one schema, `rows` in all, as one.
pub(super) fn concat(schema: &SchemaRef, batches: &[RecordBatch], rows: usize) -> Result<RecordBatch> {
    let column = |c: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(c).as_ref()).collect();
        compute::concat(&arrays)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
    batch(schema.clone(), columns, rows)
}

/// Some rows of a batch; all of them, in order, cost nothing.
pub(super) fn take(rows: &RecordBatch, at: &[u32]) -> Result<RecordBatch> {
    if at.len() == rows.num_rows() && at.iter().enumerate().all(|(i, row)| i == *row as usize) {
        return Ok(rows.clone());
    }
    let at = UInt32Array::from(at.to_vec());
    let columns = rows.columns().iter().map(|c| compute::take(c, &at, None)).collect::<Result<_, _>>()?;
    batch(rows.schema(), columns, at.len())
}

/// Copies of the columns that hold on to no more memory than they need. String views share whatever they were cut from.
pub(super) fn compact(rows: RecordBatch) -> Result<RecordBatch> {
    use arrow::array::AsArray;
    let column = |c: &ArrayRef| -> ArrayRef {
        match c.data_type() {
            DataType::Utf8View => Arc::new(c.as_string_view().gc()),
            DataType::BinaryView => Arc::new(c.as_binary_view().gc()),
            _ => c.clone(),
        }
    };
    let columns = rows.columns().iter().map(column).collect();
    batch(rows.schema(), columns, rows.num_rows())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn live_bits_are_copied_before_a_change_if_shared() {
        let mut live = Live::all(70);
        let before = live.clone();
        live.kill(69);
        live.kill(0);
        assert!(before.is(69) && !live.is(69) && !live.is(0) && live.is(1));
        assert_eq!(live.slice(0, 70).true_count(), 68);
        assert_eq!(live.slice(65, 5).true_count(), 4);
        assert_eq!(Live::all(64).slice(0, 64).true_count(), 64);
    }

    #[test]
    fn same_rows_take_null_and_nan_as_values() {
        let left: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(0.0), None]));
        let right: ArrayRef = Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0), Some(1.0)]));
        assert_eq!(same_rows(&[left], &[right], 4).unwrap(), BooleanArray::from(vec![true, true, false, false]));
        let list = |last: i64| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([None, Some(vec![Some(1), None]), Some(vec![Some(last)])]))
        };
        assert_eq!(same_rows(&[list(1)], &[list(2)], 3).unwrap(), BooleanArray::from(vec![true, true, false]));
    }

    #[test]
    fn an_index_finds_every_row() {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let hashes = hashes(std::slice::from_ref(&key), 1000).unwrap();
        let index = HashIndex::new(&[key], 1000).unwrap();
        assert!(hashes.iter().enumerate().all(|(row, hash)| index.candidates(*hash).any(|r| r as usize == row)));
    }
}
