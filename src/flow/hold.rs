//! Rows are held back until they are final, and given once: EMIT FINAL over rows that no group is made of.
//!
//! A row whose time is so far behind the frontier that no change of it can come any more is final. What comes and goes before
//! that is nobody's affair.
//!
//! Invariant. Changes in front of the bound that was reached do not come: the time is hard ([`super::TimeColumn`]).

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use super::arrangement::{Arrangement, Layout};
use super::{Context, Operator, Shard};
use crate::delta::Delta;
use crate::error::Result;
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

pub struct Hold {
    rows: Arrangement,
    /// Rows are final when their time is more than this behind the frontier.
    delay: Micros,
}

impl Hold {
    pub fn new(schema: SchemaRef, time: usize, delay: Micros, shard: Shard) -> Result<Hold> {
        let layout = Layout { schema, key: Vec::new(), time: Some(time), order: Vec::new() };
        Ok(Hold { rows: Arrangement::new("rows", layout, shard)?, delay })
    }

    /// Give all rows before `bound`.
    fn release(&mut self, bound: Micros, cx: &mut Context) -> Result<()> {
        let layout = self.rows.layout();
        let time = layout.time.map(|time| layout.schema.field(time).data_type().clone());
        let edge = TimestampMicrosecondArray::from_value(bound, 1).with_data_type(time.unwrap_or(crate::time::TIMESTAMP));
        let codes = self.rows.time_codes(&(Arc::new(edge) as ArrayRef))?;
        let code = codes.row(0).data();
        for number in self.rows.numbers().collect::<Vec<_>>() {
            let passed = self.rows.range(number, Bound::Unbounded, Bound::Excluded(code));
            let (rows, weights): (Vec<&[u8]>, Vec<i64>) = passed.filter(|(_, weight)| *weight > 0).unzip();
            let times = weights.iter().enumerate().flat_map(|(row, weight)| std::iter::repeat_n(row as u32, *weight as usize));
            let times = UInt32Array::from_iter_values(times);
            let rows = self.rows.decode(rows.into_iter())?;
            // A row that is there twice is two rows.
            let rows = if times.len() == rows.num_rows() { rows } else { compute::take_record_batch(&rows, &times)? };
            cx.emit(Delta::append(rows));
            self.rows.drop_before(number, code);
        }
        self.rows.evict(bound)
    }
}

impl Operator for Hold {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.rows.update(&delta).map(drop)
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        if cx.frontier != NO_TIME {
            self.release(cx.frontier.saturating_sub(self.delay), cx)?;
        }
        self.rows.tidy()
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.rows]
    }
}
