//! A change to a relation: rows with signed weights.
//!
//! The weight says how many times the row is added (or, below zero, taken away). It stands beside the rows, never among their
//! columns, and is absent in the common case that all rows are added once. An update is the old row with -1 and the new one
//! with +1; nothing inside the engine pairs them. (Budiu et al., "DBSP", VLDB 2023, calls this a Z-set.)

mod consolidate;
pub mod keys;

pub use consolidate::consolidate;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub struct Delta {
    pub rows: RecordBatch,
    /// A weight per row, not null; `None` says that every weight is +1.
    pub diff: Option<Int64Array>,
}

impl Delta {
    /// Rows that are all added once.
    pub fn append(rows: RecordBatch) -> Delta {
        Delta { rows, diff: None }
    }

    pub fn new(rows: RecordBatch, diff: Int64Array) -> Delta {
        assert_eq!(rows.num_rows(), diff.len(), "a weight per row");
        Delta { rows, diff: Some(diff) }
    }

    /// The same rows, all with this weight.
    pub fn weighted(rows: RecordBatch, weight: i64) -> Delta {
        let diff = (weight != 1).then(|| Int64Array::from_value(weight, rows.num_rows()));
        Delta { rows, diff }
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn weight(&self, row: usize) -> i64 {
        self.diff.as_ref().map_or(1, |diff| diff.value(row))
    }

    /// Other columns for the same rows.
    pub fn with_rows(&self, rows: RecordBatch) -> Delta {
        debug_assert_eq!(rows.num_rows(), self.len());
        Delta { rows, diff: self.diff.clone() }
    }

    pub fn filter(&self, keep: &BooleanArray) -> Result<Delta> {
        let rows = compute::filter_record_batch(&self.rows, keep)?;
        let diff = self.diff.as_ref().map(|diff| compute::filter(diff, keep)).transpose()?;
        Ok(Delta { rows, diff: diff.map(into_int64) })
    }

    pub fn take(&self, indices: &UInt32Array) -> Result<Delta> {
        let rows = take(&self.rows, indices)?;
        let diff = self.diff.as_ref().map(|diff| compute::take(diff, indices, None)).transpose()?;
        Ok(Delta { rows, diff: diff.map(into_int64) })
    }

    /// All rows of several deltas of one schema, in order.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta> {
        if let [only] = deltas {
            return Ok(only.clone());
        }
        let rows = compute::concat_batches(schema, deltas.iter().map(|d| &d.rows))?;
        if deltas.iter().all(|d| d.diff.is_none()) {
            return Ok(Delta::append(rows));
        }
        let weights = deltas.iter().flat_map(|d| (0..d.len()).map(|row| d.weight(row)));
        Ok(Delta { diff: Some(Int64Array::from_iter_values(weights)), rows })
    }

    /// The rows where rows are only added, each as often as its weight says. One that is taken away is an error.
    pub fn repeated(&self) -> Result<RecordBatch> {
        let Some(diff) = self.diff.as_ref().filter(|diff| diff.values().iter().any(|weight| *weight != 1)) else {
            return Ok(self.rows.clone());
        };
        let mut rows = Vec::with_capacity(self.len());
        for (row, weight) in (0..).zip(diff.values()) {
            let times = usize::try_from(*weight).map_err(|_| Error::internal("rows that are only added were taken away"))?;
            rows.extend(std::iter::repeat_n(row, times));
        }
        take(&self.rows, &UInt32Array::from(rows))
    }

    /// Bytes of Arrow memory, shared buffers counted in full.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.diff.as_ref().map_or(0, |d| d.len() * 8)
    }
}

/// Rows by their numbers. Of rows without columns Arrow's own does not know how many they are.
pub fn take(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    let columns = compute::take_arrays(rows.columns(), indices, None)?;
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

fn into_int64(array: ArrayRef) -> Int64Array {
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&array).clone()
}
