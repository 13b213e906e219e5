//! The rows of SESSION without a GROUP BY: the groups of its sessions, each with its rows in an array, taken apart again.
//!
//! ```text
//!   SELECT … FROM SESSION(s PARTITION BY (k), ts, gap)
//!     Project       rows.c0 AS ts, k, rows.c1 AS v, window_start, …
//!     Unnest        rows
//!     Aggregate     k, window_start, window_end, window_time; array_agg({c0: ts, c1: v}) AS rows
//! ```
//!
//! A row that makes a session longer changes the bounds of all its rows, so that all of them are given again whoever keeps them.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::functions_aggregate::array_agg::array_agg;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit};

use crate::sql::window::WindowNode;

/// The array of a session's rows.
const ROWS: &str = "rows";

/// The plan that gives the rows of a SESSION as groups of it; `sessions` is the plan of `window`.
pub(super) fn from_groups(sessions: &LogicalPlan, window: &WindowNode) -> DfResult<LogicalPlan> {
    let (schema, partition) = (sessions.schema(), window.partition());
    let is_key = |at: usize| at >= window.input_columns() || partition.contains(&at);
    let columns = schema.columns();
    let field = |at: usize| format!("c{at}");
    let row = (0..columns.len()).filter(|at| !is_key(*at)).flat_map(|at| [lit(field(at)), Expr::Column(columns[at].clone())]);
    let rows = array_agg(named_struct(row.collect()));
    let keys = (0..columns.len()).filter(|at| is_key(*at)).map(|at| Expr::Column(columns[at].clone())).collect::<Vec<_>>();
    let groups = Aggregate::try_new(Arc::new(sessions.clone()), keys, vec![rows])?;
    let array = groups.schema.columns().pop().map(|array| Expr::Column(array).alias(ROWS));
    let keys = groups.group_expr.clone();
    let unnested = LogicalPlanBuilder::from(LogicalPlan::Aggregate(groups)).project(keys.into_iter().chain(array))?;
    let rows = Expr::Column(Column::from_name(ROWS));
    let column = |(at, column): (usize, &Column)| match is_key(at) {
        true => Expr::Column(column.clone()),
        false => get_field(rows.clone(), field(at)).alias_qualified(column.relation.clone(), &column.name),
    };
    let shown = columns.iter().enumerate().map(column).collect::<Vec<_>>();
    unnested.unnest_column(ROWS)?.project(shown)?.build()
}
