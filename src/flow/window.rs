//! Window assignment: a row becomes one row per window it lies in, with the window's bounds as columns.
//!
//! This is also where lateness is judged: a (row, window) pair whose window was closed before the row's commit goes to the
//! late output instead. So everything downstream may rely on it that no row of a closed window comes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;

use super::{Context, LATE, MAIN, Operator, WINDOW_TIME};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME};

type Timestamps = PrimitiveArray<TimestampMicrosecondType>;

/// Start and end of a window.
type Bounds = (Micros, Micros);

pub struct AssignWindows {
    pub windows: Windows,
    /// Rows are not repeated: the bounds are those of the slice that a row lies in, for whoever puts windows together.
    pub by_slices: bool,
    /// The instant of a row, in microseconds.
    pub time: Arc<dyn PhysicalExpr>,
    /// Closed when `end + delay <= frontier`; `None`: rows are never late.
    pub delay: Option<Micros>,
    /// Input columns, then window_start, window_end, window_time.
    pub schema: SchemaRef,
    /// The columns of the last batch that lay in one window: the next one often lies there too, and shares them.
    pub shared: Option<OneWindow>,
}

/// The three columns of so many rows in one window.
pub struct OneWindow {
    bounds: Bounds,
    rows: usize,
    columns: [ArrayRef; 3],
}

impl Operator for AssignWindows {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let array = self.time.evaluate(&delta.rows)?.into_array(delta.len())?;
        let time = array
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| Error::internal(format!("a window's time column has type {}", array.data_type())))?;
        if let Some(bounds) = self.one_window(time)
            && bounds.1 > self.closed_by(cx.frontier)
        {
            cx.emit(delta.with_rows(self.widen_by_one(&delta.rows, bounds)?));
            return Ok(());
        }
        if self.by_slices {
            return self.slice(&delta, time, cx);
        }
        let (delta, bounds) = self.assign(delta, time)?;
        let wide = delta.with_rows(widen(&delta.rows, &self.schema, &bounds)?);
        self.emit(wide, &bounds, cx)
    }
}

impl AssignWindows {
    /// The one window (or slice) that all rows lie in, where windows do not overlap.
    fn one_window(&self, time: &Timestamps) -> Option<Bounds> {
        if time.null_count() > 0 || !(self.by_slices || self.windows.is_tumbling()) {
            return None;
        }
        let (least, greatest) = time.values().iter().fold((Micros::MAX, Micros::MIN), |(l, g), at| (l.min(*at), g.max(*at)));
        let windows = if self.by_slices { self.windows.slices() } else { self.windows };
        let bounds = (least <= greatest).then(|| windows.last(least))?;
        (greatest < bounds.1).then_some(bounds)
    }

    fn widen_by_one(&mut self, rows: &RecordBatch, bounds: Bounds) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let columns = match &self.shared {
            Some(shared) if (shared.bounds, shared.rows) == (bounds, count) => shared.columns.clone(),
            _ => {
                let fields = &self.schema.fields()[rows.num_columns()..];
                let constant = |at: Micros, field: usize| -> ArrayRef {
                    Arc::new(Timestamps::from_value(at, count).with_data_type(fields[field].data_type().clone()))
                };
                let (start, end) = bounds;
                let columns = [constant(start, 0), constant(end, 1), constant(end.saturating_sub(WINDOW_TIME), 2)];
                self.shared = Some(OneWindow { bounds, rows: count, columns: columns.clone() });
                columns
            }
        };
        let columns = rows.columns().iter().cloned().chain(columns).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

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

    /// A row goes on once if any of its windows is open, and to the late output once for each that is not.
    fn slice(&self, delta: &Delta, time: &Timestamps, cx: &mut Context) -> Result<()> {
        let slices = self.windows.slices();
        let has_time = (time.null_count() > 0).then(|| arrow::compute::is_not_null(time)).transpose()?;
        let delta = has_time.as_ref().map_or_else(|| Ok(delta.clone()), |mask| delta.filter(mask))?;
        let times: Vec<Micros> = time.iter().flatten().collect();
        let bounds = tumbling(&slices, &times);
        let closed = self.closed_by(cx.frontier);
        if closed == NO_TIME || bounds.iter().all(|(_, end)| *end > closed) {
            let wide = widen(&delta.rows, &self.schema, &bounds)?;
            cx.emit(delta.with_rows(wide));
            return Ok(());
        }
        let (mut open, mut late, mut late_bounds) = (Vec::new(), Vec::new(), Vec::new());
        for (row, at) in times.iter().enumerate() {
            let mut is_open = bounds[row].1 > closed;
            if !is_open {
                for window in self.windows.bounds(*at) {
                    if window.1 > closed {
                        is_open = true;
                    } else {
                        late.push(row as u32);
                        late_bounds.push(window);
                    }
                }
            }
            if is_open {
                open.push(row as u32);
            }
        }
        let open_bounds: Vec<Bounds> = open.iter().map(|row| bounds[*row as usize]).collect();
        for (output, rows, bounds) in [(MAIN, open, open_bounds), (LATE, late, late_bounds)] {
            let part = delta.take(&UInt32Array::from(rows))?;
            let wide = widen(&part.rows, &self.schema, &bounds)?;
            cx.emit_to(output, part.with_rows(wide));
        }
        Ok(())
    }

    /// The last end that is closed.
    fn closed_by(&self, frontier: Micros) -> Micros {
        match self.delay {
            Some(delay) if frontier != NO_TIME && !crate::planted::bug("late-row") => frontier.saturating_sub(delay),
            _ => NO_TIME,
        }
    }

    fn emit(&self, wide: Delta, bounds: &[Bounds], cx: &mut Context) -> Result<()> {
        let closed = self.closed_by(cx.frontier);
        if closed == NO_TIME || bounds.iter().all(|(_, end)| *end > closed) {
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
