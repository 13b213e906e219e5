//! SESSION: rows of one partition, each less than the gap after the one before, grouped as one.
//!
//! A session is `[first, last + gap)`, so rows that are exactly the gap apart are in two. It is closed when
//! `last + gap + delay <= frontier`. A row is late if, by the watermark before its own commit, either the session that it would
//! be alone is closed, or one that it reaches: that is, one whose end it is before. All other rows count, whatever their order.
//!
//! That is one rule for rows and sessions, and the answer a function of the rows and of the watermarks before their commits:
//!
//! * A closed session never changes. A row in time is after the last row of every closed one, for it is younger than
//!   `frontier - gap - delay`; so it could only come before its end, and then it is late.
//! * Rows of one commit, or under one watermark, do not decide about each other: none can be added to a closed session, and one
//!   that they make is not closed.
//!
//! Only the youngest closed session of a partition can be reached, and only for another gap; so long its rows are kept.
//!
//! ```text
//!   update:  rows ─► late? ─► kept by partition, in order of time ([`Arrangement`])
//!                     └────► times ─► which sessions grow, merge, shrink, split ([`timeline`])
//!                     └────► rows ─► groups of their session (accumulators as in [`super::aggregate`])
//!            rows of a session that was merged or split are read again; a row that prolongs one costs the same however long it is
//!   finish:  touched groups ─► −former row, +new row     (EMIT CHANGES)
//!            closed sessions ─► +rows, once              (EMIT FINAL)
//! ```
//!
//! The rows are what survives a restart; sessions and groups are made of them again.

mod operator;
mod rows;
pub mod timeline;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;

use super::aggregate::GroupColumn;
use super::aggregate::accumulate::Call;
use crate::catalog::Emit;
use crate::time::Micros;

pub use operator::Sessions;

/// What to compute.
#[derive(Clone)]
pub struct Spec {
    /// Of the input: the time column, and the columns that divide sessions.
    pub time: usize,
    pub partition: Vec<usize>,
    pub gap: Micros,
    /// Closed when `end + delay <= frontier`; `None`: never.
    pub delay: Option<Micros>,
    /// Rows may come too late. Otherwise none comes that could.
    pub judges: bool,
    /// Input columns, then window_start, window_end, window_time.
    pub wide: SchemaRef,
    /// What stands between the window and the GROUP BY.
    pub steps: Vec<Step>,
    /// Keys of the groups, over the output of the steps, other than the session's bounds. The partition is among them.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub key_types: Vec<DataType>,
    /// The group-by columns of the output, in order.
    pub group_columns: Vec<GroupColumn>,
    pub calls: Vec<Call>,
    pub append_only: bool,
    pub emit: Emit,
    /// Group columns, then one column per call.
    pub schema: SchemaRef,
}

/// A row by row computation over the rows of a session. It knows nothing of the session's bounds.
#[derive(Clone)]
pub enum Step {
    /// The rows that do not pass make sessions all the same.
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}
