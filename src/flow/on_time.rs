//! Before a join that bounds the distance between times: a row behind the watermark, as it was before the row's commit, goes to
//! the late output. So the join may rely on it that no such row comes.

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::{Context, LATE, Operator};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::time::{Micros, NO_TIME};

pub struct OnTime {
    /// The time column.
    pub column: usize,
    /// Late when `time < frontier - delay`.
    pub delay: Micros,
}

impl Operator for OnTime {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        if cx.frontier == NO_TIME {
            cx.emit(delta);
            return Ok(());
        }
        let column = delta.rows.column(self.column);
        let times = column
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal(format!("the time of late rows has type {}", column.data_type())))?;
        let least = cx.frontier.saturating_sub(self.delay);
        let in_time = BooleanArray::from_unary(times, |at| at >= least);
        if in_time.true_count() == delta.len() {
            cx.emit(delta);
            return Ok(());
        }
        cx.emit(delta.filter(&in_time)?);
        cx.emit_to(LATE, delta.filter(&arrow::compute::not(&in_time)?)?);
        Ok(())
    }
}
