//! Adding up the weights of equal rows.

use std::collections::HashMap;

use arrow::array::{Int64Array, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use super::{Delta, take};
use crate::error::Result;

/// One delta with each distinct row once, in order of first appearance, its weights added up; rows whose weights add up to
/// nothing are gone. Append-only input is only concatenated: duplicates in it are rows of their own.
pub fn consolidate(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta> {
    let all = Delta::concat(schema, deltas)?;
    if all.diff.is_none() || all.is_empty() {
        return Ok(all);
    }
    if all.rows.num_columns() == 0 {
        let total = (0..all.len()).map(|row| all.weight(row)).sum();
        let first = all.take(&UInt32Array::from(vec![0]))?;
        return Ok(if total == 0 {
            all.take(&UInt32Array::from(Vec::<u32>::new()))?
        } else {
            Delta::weighted(first.rows, total)
        });
    }
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let rows = converter.convert_columns(all.rows.columns())?;
    let mut slots: HashMap<&[u8], usize, ahash::RandomState> = HashMap::default();
    let mut kept: Vec<(u32, i64)> = Vec::new();
    for (row, data) in rows.iter().enumerate() {
        let slot = *slots.entry(data.data()).or_insert_with(|| {
            kept.push((row as u32, 0));
            kept.len() - 1
        });
        kept[slot].1 += all.weight(row);
    }
    kept.retain(|(_, weight)| *weight != 0);
    let indices = UInt32Array::from_iter_values(kept.iter().map(|(row, _)| *row));
    let rows = take(&all.rows, &indices)?;
    Ok(Delta::new(rows, Int64Array::from_iter_values(kept.iter().map(|(_, weight)| *weight))))
}
