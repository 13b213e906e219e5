//! Which watermark speaks of a column, and what does it say?
//!
//! A stream's watermark speaks of its event-time column while that stands for the same rows: renamed, filtered, projected,
//! unioned, unnested. It also speaks of a window's bounds, and more firmly: no row comes behind it, because such rows were late
//! in that window and are gone; so those go on to be known through a GROUP BY. A join makes a column of another kind.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, LogicalPlan};

use super::source::{RelationSource, SourceColumn, scan_columns};
use crate::catalog::{Kind, Relation};
use crate::sql::window::{WINDOW_TIME_BEFORE_END, WindowNode};
use crate::time::Micros;

/// What is known of the times in a column: rows that come are at or after `watermark - delay`, where the watermark is the least
/// of the streams'.
#[derive(Clone, Debug)]
pub struct EventTime {
    pub streams: Vec<Arc<Relation>>,
    pub delay: Micros,
    /// No row breaks it. Otherwise a row may, and is late in the windows that it is too late for.
    pub hard: bool,
}

/// What a watermark says of a column of the plan's output; `None` if none speaks of it, or not of all its rows.
pub fn event_time(plan: &LogicalPlan, column: usize) -> Option<EventTime> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = RelationSource::of(scan)?;
            let relation = source.relation();
            let SourceColumn::User(index) = *scan_columns(scan, source).get(column)? else { return None };
            let watermark = relation.watermark.as_ref()?;
            let speaks = relation.kind == Kind::Stream && watermark.column == index;
            speaks.then(|| EventTime { streams: vec![Arc::clone(relation)], delay: 0, hard: false })
        }
        LogicalPlan::SubqueryAlias(alias) => event_time(&alias.input, column),
        LogicalPlan::Filter(filter) => event_time(&filter.input, column),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => event_time(&sort.input, column),
        LogicalPlan::Projection(projection) => {
            event_time(&projection.input, input_column(projection.expr.get(column)?, &projection.input)?)
        }
        LogicalPlan::Unnest(unnest) => event_time(&unnest.input, *unnest.dependency_indices.get(column)?),
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.iter().map(|input| event_time(input, column)).collect::<Option<Vec<_>>>()?;
            inputs.into_iter().reduce(EventTime::of_both)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let group = input_column(aggregate.group_expr.get(column)?, &aggregate.input)?;
            event_time(&aggregate.input, group).filter(|time| time.hard)
        }
        // The input's columns come first. A later row may change former ones, except where their time says that none comes.
        LogicalPlan::Window(window) => event_time(&window.input, column).filter(|time| time.hard),
        other => window_time(WindowNode::of(other)?, column),
    }
}

fn window_time(node: &WindowNode, column: usize) -> Option<EventTime> {
    let Some(bound) = column.checked_sub(node.input_columns()) else { return event_time(&node.input, column) };
    let time = event_time(&node.input, node.time_index())?;
    // An open window ends after `watermark - delay`.
    let before_end = [node.windows.size, 0, WINDOW_TIME_BEFORE_END];
    let delay = time.delay.checked_add(node.lateness)?.checked_add(*before_end.get(bound)?)?;
    Some(EventTime { delay, hard: true, ..time })
}

impl EventTime {
    fn of_both(mut self, other: EventTime) -> EventTime {
        for stream in other.streams {
            if !self.streams.iter().any(|known| known.id == stream.id) {
                self.streams.push(stream);
            }
        }
        EventTime { streams: self.streams, delay: self.delay.max(other.delay), hard: self.hard && other.hard }
    }
}

/// The input's column that an expression passes on unchanged.
pub fn input_column(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.schema().maybe_index_of_column(column),
        Expr::Alias(alias) => input_column(&alias.expr, input),
        Expr::Cast(cast) => {
            let index = input_column(&cast.expr, input)?;
            (input.schema().field(index).data_type() == cast.field.data_type()).then_some(index)
        }
        _ => None,
    }
}
