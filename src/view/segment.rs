//! A run of rows that never changes, and how a key is found in it.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;

use crate::error::Result;

/// Rows of a view as they were written together. Which of them are still there is said beside it, by a [`Live`].
pub(super) struct Segment {
    pub batch: RecordBatch,
    /// Bytes of the rows themselves: the buffers may be shared with others.
    pub bytes: usize,
    /// Built when a reader first asks for a key.
    index: OnceLock<KeyIndex>,
}

impl Segment {
    pub fn new(batch: RecordBatch) -> Segment {
        let bytes = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_default()).sum();
        Segment { batch, bytes, index: OnceLock::new() }
    }

    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows that may have a key of this hash; whether they do is for the caller to see.
    pub fn candidates(&self, key: &[usize], hash: u64) -> Result<impl Iterator<Item = u32>> {
        let index = match self.index.get() {
            Some(index) => index,
            None => {
                let columns: Vec<ArrayRef> = key.iter().map(|k| self.batch.column(*k).clone()).collect();
                let index = KeyIndex::new(&columns, self.rows())?;
                self.index.get_or_init(|| index)
            }
        };
        Ok(index.candidates(hash))
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

/// Rows of a segment by the hash of their key. Holds no keys: the few rows of one hash are compared by who asks.
struct KeyIndex {
    /// Half of the key's hash, and the row.
    table: HashTable<(u32, u32)>,
}

impl KeyIndex {
    fn new(key: &[ArrayRef], rows: usize) -> Result<KeyIndex> {
        let mut table = HashTable::with_capacity(rows);
        for (row, hash) in hashes(key, rows)?.into_iter().enumerate() {
            table.insert_unique(spread(half(hash)), (half(hash), row as u32), |(half, _)| spread(*half));
        }
        Ok(KeyIndex { table })
    }

    fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        self.table.iter_hash(spread(half(hash))).filter(move |(other, _)| *other == half(hash)).map(|(_, row)| *row)
    }
}

fn half(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

/// The hash table looks at the upper and the lower bits.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Hashes of keys, for [`Segment::candidates`].
pub(super) fn hashes(key: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(key, &RandomState::with_seed(0), &mut hashes)?;
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

/// Rows from several batches of one schema: (batch, row) each.
pub(super) fn gather(schema: &SchemaRef, batches: &[&RecordBatch], at: &[(usize, usize)]) -> Result<RecordBatch> {
    if at.is_empty() {
        return Ok(RecordBatch::new_empty(schema.clone()));
    }
    let column = |c: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(c).as_ref()).collect();
        compute::interleave(&arrays, at)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
    batch(schema.clone(), columns, at.len())
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
        let index = KeyIndex::new(&[key], 1000).unwrap();
        assert!(hashes.iter().enumerate().all(|(row, hash)| index.candidates(*hash).any(|r| r as usize == row)));
    }
}
