//! Window assignment: a row becomes one row per window it lies in, with the window's bounds as columns.
//!
//! This is also where lateness is judged: a (row, window) pair whose window was closed before the row's commit goes to the
//! late output instead. So everything downstream may rely on it that no row of a closed window comes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;

use super::{Context, LATE, Operator, WINDOW_TIME};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME};

type Timestamps = PrimitiveArray<TimestampMicrosecondType>;

pub struct AssignWindows {
    pub windows: Windows,
    /// The instant of a row, in microseconds.
    pub time: Arc<dyn PhysicalExpr>,
    /// Closed when `end + delay <= frontier`; `None`: rows are never late.
    pub delay: Option<Micros>,
    /// Input columns, then window_start, window_end, window_time.
    pub schema: SchemaRef,
}

impl Operator for AssignWindows {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let array = self.time.evaluate(&delta.rows)?.into_array(delta.len())?;
        let time = array
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal(format!("a window's time column has type {}", array.data_type())))?;
        let (delta, starts) = self.assign(delta, time)?;
        let wide = delta.with_rows(self.widen(&delta.rows, starts.clone())?);
        self.emit(wide, &starts, cx)
    }
}

impl AssignWindows {
    /// The rows repeated once per window (rows without a time are in none), and the start of each one's window.
    fn assign(&self, delta: Delta, time: &Timestamps) -> Result<(Delta, Vec<Micros>)> {
        if self.windows.is_tumbling() && time.null_count() == 0 {
            let starts = tumbling_starts(&self.windows, time.values());
            return Ok((delta, starts));
        }
        let (mut indices, mut starts) = (Vec::with_capacity(time.len()), Vec::with_capacity(time.len()));
        for row in 0..time.len() {
            if time.is_null(row) {
                continue;
            }
            for start in self.windows.starts(time.value(row)) {
                indices.push(row as u32);
                starts.push(start);
            }
        }
        Ok((delta.take(&UInt32Array::from(indices))?, starts))
    }

    fn widen(&self, rows: &RecordBatch, starts: Vec<Micros>) -> Result<RecordBatch> {
        let size = self.windows.size;
        let instants = |values: Vec<Micros>, data_type: &DataType| -> ArrayRef {
            Arc::new(Timestamps::from_iter_values(values).with_data_type(data_type.clone()))
        };
        let fields = &self.schema.fields()[rows.num_columns()..];
        let ends: Vec<Micros> = starts.iter().map(|start| start.saturating_add(size)).collect();
        let times: Vec<Micros> = ends.iter().map(|end| end.saturating_sub(WINDOW_TIME)).collect();
        let mut columns = rows.columns().to_vec();
        for (values, field) in [starts, ends, times].into_iter().zip(fields) {
            columns.push(instants(values, field.data_type()));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn emit(&self, wide: Delta, starts: &[Micros], cx: &mut Context) -> Result<()> {
        let closed_start = match self.delay {
            // end + delay <= frontier  ⇔  start <= frontier - delay - size
            Some(delay) if cx.frontier != NO_TIME => cx.frontier.saturating_sub(delay).saturating_sub(self.windows.size),
            _ => NO_TIME,
        };
        if closed_start == NO_TIME || crate::planted::bug("late-row") || starts.iter().all(|start| *start > closed_start) {
            cx.emit(wide);
            return Ok(());
        }
        let open = BooleanArray::from_iter(starts.iter().map(|start| Some(*start > closed_start)));
        cx.emit(wide.filter(&open)?);
        cx.emit_to(LATE, wide.filter(&arrow::compute::not(&open)?)?);
        Ok(())
    }
}

/// Start of the one window per row. Rows come nearly in order, so most lie in the window of the row before: no division.
fn tumbling_starts(windows: &Windows, times: &[Micros]) -> Vec<Micros> {
    let (Some(least), Some(greatest)) = (times.iter().min(), times.iter().max()) else { return Vec::new() };
    let first = windows.last_start(*least);
    if greatest.checked_sub(first).is_some_and(|distance| distance < windows.size) {
        return vec![first; times.len()];
    }
    let mut start = first;
    let start_of = |at: &Micros| {
        if !at.checked_sub(start).is_some_and(|distance| (0..windows.size).contains(&distance)) {
            start = windows.last_start(*at);
        }
        start
    };
    times.iter().map(start_of).collect()
}
