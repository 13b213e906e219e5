//! Window assignment: a row becomes one row per window it lies in, with the window's bounds as columns.
//!
//! This is also where lateness is judged: a (row, window) pair whose window was closed before the row's commit goes to the
//! late output instead. So everything downstream may rely on it that no row of a closed window comes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;

use super::{Context, LATE, Operator, WINDOW_TIME};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME};

type Timestamps = PrimitiveArray<TimestampMicrosecondType>;

/// Start and end of a window.
type Bounds = (Micros, Micros);

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
        let (delta, bounds) = self.assign(delta, time)?;
        let wide = delta.with_rows(widen(&delta.rows, &self.schema, &bounds)?);
        self.emit(wide, &bounds, cx)
    }
}

impl AssignWindows {
    /// The rows repeated once per window (rows without a time are in none), and the bounds of each one's window.
    fn assign(&self, delta: Delta, time: &Timestamps) -> Result<(Delta, Vec<Bounds>)> {
        if self.windows.is_tumbling() && time.null_count() == 0 {
            let bounds = tumbling(&self.windows, time.values());
            return Ok((delta, bounds));
        }
        let (mut indices, mut bounds) = (Vec::with_capacity(time.len()), Vec::with_capacity(time.len()));
        for row in 0..time.len() {
            if time.is_null(row) {
                continue;
            }
            for window in self.windows.bounds(time.value(row)) {
                indices.push(row as u32);
                bounds.push(window);
            }
        }
        Ok((delta.take(&UInt32Array::from(indices))?, bounds))
    }

    fn emit(&self, wide: Delta, bounds: &[Bounds], cx: &mut Context) -> Result<()> {
        // The last end that is closed.
        let closed = match self.delay {
            Some(delay) if cx.frontier != NO_TIME => cx.frontier.saturating_sub(delay),
            _ => NO_TIME,
        };
        if closed == NO_TIME || crate::planted::bug("late-row") || bounds.iter().all(|(_, end)| *end > closed) {
            cx.emit(wide);
            return Ok(());
        }
        let open = BooleanArray::from_iter(bounds.iter().map(|(_, end)| Some(*end > closed)));
        cx.emit(wide.filter(&open)?);
        cx.emit_to(LATE, wide.filter(&arrow::compute::not(&open)?)?);
        Ok(())
    }
}

/// The columns of `schema`: those of the rows, then the three of each one's window.
fn widen(rows: &RecordBatch, schema: &SchemaRef, bounds: &[Bounds]) -> Result<RecordBatch> {
    let instants = |of: fn(&Bounds) -> Micros| Timestamps::from_iter_values(bounds.iter().map(of));
    let added = [instants(|(start, _)| *start), instants(|(_, end)| *end), instants(|(_, end)| end.saturating_sub(WINDOW_TIME))];
    let mut columns = rows.columns().to_vec();
    for (values, field) in added.into_iter().zip(&schema.fields()[rows.num_columns()..]) {
        let values: ArrayRef = Arc::new(values.with_data_type(field.data_type().clone()));
        columns.push(values);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The one window per row. Rows come nearly in order, so most lie in the window of the row before: no division.
fn tumbling(windows: &Windows, times: &[Micros]) -> Vec<Bounds> {
    let Some(least) = times.iter().min() else { return Vec::new() };
    let mut window = windows.last(*least);
    let bounds_of = |at: &Micros| {
        if *at < window.0 || *at >= window.1 {
            window = windows.last(*at);
        }
        window
    };
    times.iter().map(bounds_of).collect()
}
