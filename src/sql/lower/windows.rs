//! TUMBLE, HOP, CUMULATE: which windows a row is in, and when these are closed.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;

use super::slices::BySlices;
use super::{Lowered, Lowering, unsupported};
use crate::catalog::COMMIT_TIME;
use crate::error::{Error, Result};
use crate::flow::window::AssignWindows;
use crate::flow::{Edge, Make, Operator, TimeColumn, WINDOW_TIME, WindowColumns};
use crate::sql::plan::event_time::{event_time, is_ingestion_time};
use crate::sql::window::{Assignment, WindowNode, show_duration};

impl Lowering<'_> {
    pub(super) fn windows(&mut self, input: Lowered, window: &WindowNode, by_slices: BySlices) -> Result<Lowered> {
        let input = by_commit_time(input, window);
        let (time, delay) = self.closing(&input.edge, window)?;
        let schema = window_schema(&input.edge.schema, window);
        let width = input.edge.schema.fields().len();
        let Assignment::Clock(windows) = window.assignment else {
            return Err(Error::internal("the rows of sessions come from groups of them"));
        };
        let by_slices = !windows.is_tumbling() && by_slices.of(input.edge.append_only);
        self.sliced = by_slices;
        let longest = window.assignment.longest().unwrap_or_default();
        let bounds = delay.map(|delay| {
            let column = |column, delay| TimeColumn { column, delay, hard: true };
            [column(width, delay + longest), column(width + 1, delay), column(width + 2, delay + WINDOW_TIME)]
        });
        let times = input.edge.times.iter().copied().chain(bounds.into_iter().flatten()).collect();
        let columns = WindowColumns { start: Some(width), end: Some(width + 1), time: Some(width + 2), windows, delay };
        let edge = Edge { schema: Arc::clone(&schema), times, window: Some(columns), key: None, ..input.edge.clone() };
        let on = self.physical(&Expr::Column(window.time.clone()), window.input.schema())?;
        let made = Arc::clone(&schema);
        let make: Make = Box::new(move |_| {
            Ok(Box::new(AssignWindows {
                windows,
                by_slices,
                time: Arc::clone(&on),
                delay,
                schema: Arc::clone(&made),
                shared: None,
            }) as Box<dyn Operator>)
        });
        let closes = match delay {
            Some(0) => "closed by the watermark".to_string(),
            Some(delay) => format!("closed {} after the watermark", show_duration(delay)),
            None => "never closed".to_string(),
        };
        let each = match (windows.is_tumbling(), by_slices) {
            (true, _) => String::new(),
            (false, true) => format!(", in slices of {}", show_duration(windows.slices().size)),
            (false, false) => ", each row once per window".to_string(),
        };
        let label = format!("Window: {} on {}, {closes}{each}", window.describe(), window.time.name);
        let lowered = self.add(label, String::new(), input.inputs, make, None, edge);
        if time.is_some_and(|time| !time.hard) {
            self.late_from(&lowered);
        }
        Ok(lowered)
    }

    /// What is known of the time of a window's rows, and how long after its end, by the watermark, a window is closed.
    pub(super) fn closing(&self, edge: &Edge, window: &WindowNode) -> Result<(Option<TimeColumn>, Option<i64>)> {
        let index = window.time_index();
        let time = edge.times.iter().find(|t| t.column == index).copied();
        // Rows that may be taken away again cannot be late one by one: only what is proven never to change any more closes.
        let time = time.filter(|t| t.hard || edge.append_only);
        if time.is_none() && event_time(&window.input, index).is_some_and(|time| !time.hard) {
            return Err(unsupported(
                "a time window over rows that come and go with now() is not supported in a continuous query",
                "compare window_end with now() instead of the time column: whole windows come and go then",
            ));
        }
        Ok((time, time.map(|t| t.delay + window.lateness)))
    }
}

/// The input of a window on `_ingested_at`: its time passes with the commits.
pub(super) fn by_commit_time(input: Lowered, window: &WindowNode) -> Lowered {
    let column = window.time_index();
    if !is_ingestion_time(&window.input, column) {
        return input;
    }
    let times = vec![TimeColumn { column, delay: 0, hard: true }];
    Lowered { edge: Edge { sources: vec![COMMIT_TIME], times, ..input.edge }, ..input }
}

pub(super) fn window_schema(input: &SchemaRef, window: &WindowNode) -> SchemaRef {
    let bound = |name| Arc::new(arrow::datatypes::Field::new(name, window.time_type().clone(), false));
    let bounds = crate::sql::window::WINDOW_COLUMNS.map(bound);
    Arc::new(Schema::new(input.fields().iter().cloned().chain(bounds).collect::<Vec<_>>()))
}
