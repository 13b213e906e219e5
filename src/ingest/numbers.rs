//! Numbers for rows: the hidden keys of tables without a primary key, and the columns that number a table's rows
//! ([`crate::catalog::Identity`]).
//!
//! All writers of a table share one [`Numbers`]. A number is given once while the server runs, whatever becomes of its transaction;
//! after a restart it goes on above the greatest that the log has seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};

use crate::error::{Error, Result};

#[derive(Debug)]
pub struct Numbers {
    next: AtomicI64,
    step: i64,
}

impl Numbers {
    /// `next` must be greater than all that the log holds.
    pub fn new(next: i64, step: i64) -> Numbers {
        Numbers { next: AtomicI64::new(next), step: step.max(1) }
    }

    /// So many in a row, as a column of a type.
    pub fn take(&self, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
        let greatest = match data_type {
            DataType::Int16 => i16::MAX.into(),
            DataType::Int32 => i32::MAX.into(),
            _ => i64::MAX,
        };
        let span = i64::try_from(rows).ok().and_then(|rows| rows.checked_mul(self.step));
        // The next one after these may lie above the type, but not above bigint.
        let after = |first: i64| first.checked_add(span?).filter(|after| after - self.step <= greatest);
        let first = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).map_err(|_| {
            Error::sequence_limit(format!("reached the greatest number of the column, {greatest}"))
                .with_hint("numbers go on above the greatest that the column ever had")
        })?;
        let numbers = Int64Array::from_iter_values((0..rows as i64).map(|row| first + row * self.step));
        Ok(compute::cast(&numbers, data_type)?)
    }

    /// Numbers that come are greater than this one, which a user has given.
    pub fn raise(&self, given: i64) {
        self.next.fetch_max(given.saturating_add(self.step), Ordering::Relaxed);
    }
}

/// The greatest value of a column that numbers rows.
pub(super) fn greatest(column: &ArrayRef) -> Result<Option<i64>> {
    let wide = match column.data_type() {
        DataType::Int64 => Arc::clone(column),
        _ => compute::cast(column, &DataType::Int64)?,
    };
    Ok(compute::max(wide.as_primitive::<Int64Type>()))
}
