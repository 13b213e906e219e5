//! Which rows are final, for EMIT FINAL: those whose time is so far behind the watermark that no row to come can change them.
//!
//! Groups of windows say themselves when they are final. So do groups by event time, or by a unit of it, because they are made
//! groups of windows here ([`prepared`]):
//!
//! ```text
//!   GROUP BY ts                        TUMBLE(…, ts, one microsecond), GROUP BY window_start
//!   GROUP BY date_trunc('hour', ts)    TUMBLE(…, ts, INTERVAL '1 hour'), GROUP BY window_start
//! ```
//!
//! All other rows become final one by one, and are held back ([`crate::flow::hold`]) at one node of the plan, with nothing but
//! conditions and computations above it and no groups below:
//!
//! ```text
//!   a join                             by a time that its condition bounds
//!   OVER, first rows of groups         by a time of PARTITION BY: a window's rows are final when the window is closed; or by that
//!                                      of ORDER BY, where no row depends on one behind it
//!   windows                            by window_end
//!   rows of a stream                   by event time; late ones are cut first, as before a join
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Window};

use super::continuous::mentions_now;
use super::event_time::{EventTime, event_time, group_keys, input_column};
use super::nearest::NearestNode;
use super::on_time::{OnTimeNode, on_time};
use super::order::window_function;
use super::reach::order_column;
use super::time_bound::time_bounds;
use crate::sql::window::{Assignment, WindowNode, constant_micros};
use crate::time::window::{DAY, Windows};
use crate::time::{Micros, TIMESTAMP};

/// Rows that become final one by one.
pub struct FinalRows<'a> {
    /// The node whose rows they are.
    pub node: &'a LogicalPlan,
    /// Its column that says when.
    pub column: usize,
    /// A row is final when `column < watermark - delay`.
    pub time: EventTime,
    /// The column is a window's bound: no row to come has `watermark - delay` itself, which is in the delay already.
    pub of_window: bool,
}

/// The rows of a plan that become final one by one, if it is such a plan.
pub fn final_rows(plan: &LogicalPlan) -> Option<FinalRows<'_>> {
    if let Some(input) = row_by_row(plan) {
        return final_rows(input);
    }
    let groups = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)));
    if plan.exists(groups).unwrap_or(true) {
        return None;
    }
    let hard = |column: &usize| event_time(plan, *column).filter(|time| time.hard);
    let column = match plan {
        // Of the bounds of a window that which is passed first.
        LogicalPlan::Window(window) => {
            let timed = partition(window).into_iter().filter_map(|column| Some((hard(&column)?.delay, column)));
            let by_partition = timed.min_by_key(|(delay, _)| *delay).map(|(_, column)| column);
            by_partition.or_else(|| order_column(window).filter(|column| hard(column).is_some()))?
        }
        other => times(other).into_iter().find(|column| hard(column).is_some())?,
    };
    let (time, of_window) = (hard(&column)?, bounds_window(plan, column));
    let time = EventTime { delay: time.delay - Micros::from(of_window), ..time };
    Some(FinalRows { node: plan, column, time, of_window })
}

/// The input of a node that only chooses rows, or computes of each.
fn row_by_row(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Projection(projection) => Some(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => Some(&alias.input),
        LogicalPlan::Filter(filter) if !mentions_now(&filter.predicate) => Some(&filter.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Some(&sort.input),
        _ => None,
    }
}

/// Columns by which rows of a node may become final.
fn times(plan: &LogicalPlan) -> Vec<usize> {
    if let LogicalPlan::Join(join) = plan {
        let right = |column: usize| match join.join_type {
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => column,
            _ => join.left.schema().fields().len() + column,
        };
        return time_bounds(join).into_iter().flat_map(|(l, r, _)| [l, right(r)]).collect();
    }
    match (NearestNode::of(plan), OnTimeNode::of(plan), WindowNode::of(plan)) {
        (Some(node), _, _) => vec![node.time_indices()[0]],
        (_, Some(node), _) => vec![node.time_index()],
        (_, _, Some(node)) => vec![node.input_columns() + 1],
        _ => Vec::new(),
    }
}

/// Columns in every PARTITION BY of a node.
fn partition(window: &Window) -> Vec<usize> {
    let of = |call: &Expr| -> Vec<usize> {
        let keys = window_function(call).map_or(&[][..], |function| &function.params.partition_by);
        keys.iter().filter_map(|key| input_column(key, &window.input)).collect()
    };
    let mut all = window.window_expr.iter().map(of);
    let first = all.next().unwrap_or_default();
    all.fold(first, |common, other| common.into_iter().filter(|column| other.contains(column)).collect())
}

/// Whether a column is a bound of the window that each row lies in.
fn bounds_window(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => bounds_window(&alias.input, column),
        LogicalPlan::Filter(filter) => bounds_window(&filter.input, column),
        LogicalPlan::Sort(sort) => bounds_window(&sort.input, column),
        LogicalPlan::Projection(projection) => {
            let below = projection.expr.get(column).and_then(|expr| input_column(expr, &projection.input));
            below.is_some_and(|column| bounds_window(&projection.input, column))
        }
        LogicalPlan::Window(window) => column < window.input.schema().fields().len() && bounds_window(&window.input, column),
        other => match (OnTimeNode::of(other), WindowNode::of(other)) {
            (Some(node), _) => bounds_window(&node.input, column),
            (_, Some(node)) => column >= node.input_columns() || bounds_window(&node.input, column),
            _ => false,
        },
    }
}

/// The plan of a query with EMIT FINAL, as it comes from SQL: groups by time are groups of windows, and late rows of a stream are
/// cut before the others are shown one by one.
pub fn prepared(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let grouped = plan.transform_up(|node| {
        let groups = match &node {
            LogicalPlan::Aggregate(aggregate) => Some(aggregate.clone()),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                Some(Aggregate::try_new(Arc::clone(input), columns, Vec::new())?)
            }
            _ => None,
        };
        let windows = groups.and_then(|aggregate| of_windows(&aggregate));
        Ok(windows.map_or_else(|| Transformed::no(node), Transformed::yes))
    })?;
    let plan = match grouped.transformed {
        // Bounds of windows are never NULL.
        true => grouped.data.transform_up(|node| node.recompute_schema().map(Transformed::yes))?.data,
        false => grouped.data,
    };
    without_late_rows(plan)
}

/// Groups by event time, or by a unit of it, as groups of windows; `None`: they are of windows, or are no such groups.
fn of_windows(aggregate: &Aggregate) -> Option<LogicalPlan> {
    let is_final = |key: &Expr| {
        let column = input_column(key, &aggregate.input);
        column.and_then(|column| event_time(&aggregate.input, column)).is_some_and(|time| time.hard)
    };
    if aggregate.group_expr.iter().any(is_final) {
        return None;
    }
    let keys = group_keys(aggregate);
    let (key, (time, windows)) =
        keys.iter().enumerate().filter_map(|(key, expr)| Some((key, unit(expr, &aggregate.input)?))).next()?;
    let (DataType::Timestamp(_, zone), DataType::Timestamp(_, of_time)) =
        (aggregate.schema.field(key).data_type(), aggregate.input.schema().field(time).data_type())
    else {
        return None;
    };
    if zone != of_time {
        return None;
    }
    let of_windows = || -> DfResult<LogicalPlan> {
        let time = Column::from(aggregate.input.schema().qualified_field(time));
        let node = WindowNode::new(Assignment::Clock(windows), 0, time, aggregate.input.as_ref().clone())?;
        let start = node.input_columns();
        let input = node.into_plan();
        let mut keys: Vec<Expr> = keys.into_iter().cloned().collect();
        keys[key] = Expr::Column(Column::from(input.schema().qualified_field(start)));
        let groups = Aggregate::try_new(Arc::new(input), keys, aggregate.aggr_expr.clone())?;
        let named = groups.schema.columns().into_iter().zip(aggregate.schema.iter());
        // `date_bin` may count in nanoseconds.
        let named = named.map(|(is, (qualifier, was))| {
            let is = Expr::Column(is).cast_to(was.data_type(), &groups.schema)?;
            Ok(is.alias_qualified(qualifier.cloned(), was.name()))
        });
        let named = named.collect::<DfResult<Vec<_>>>()?;
        LogicalPlanBuilder::from(LogicalPlan::Aggregate(groups)).project(named)?.build()
    };
    // Where the names of a window's bounds are taken, the query is refused as it stands.
    of_windows().ok()
}

/// The time column behind a key of groups, and the windows that such groups are.
fn unit(key: &Expr, input: &LogicalPlan) -> Option<(usize, Windows)> {
    if let Some(column) = input_column(key, input) {
        return event_time(input, column).map(|_| (column, Windows::tumble(1, 0)));
    }
    let call = match key {
        Expr::Alias(alias) => return unit(&alias.expr, input),
        Expr::ScalarFunction(call) => call,
        _ => return None,
    };
    let (of, windows) = match (call.func.name(), call.args.as_slice()) {
        ("date_trunc", [Expr::Literal(field, _), of]) => (of, truncated(field.try_as_str()??)?),
        ("date_bin", [stride, of, origin @ ..]) => {
            let size = constant_micros(stride).filter(|size| *size > 0)?;
            let origin = origin.first().map_or(Some(0), instant)?;
            (of, Windows::tumble(size, origin.rem_euclid(size)))
        }
        _ => return None,
    };
    let column = input_column(of, input)?;
    event_time(input, column)?;
    Some((column, windows))
}

/// The windows of a unit of time that has one length.
fn truncated(field: &str) -> Option<Windows> {
    let field = field.to_ascii_lowercase();
    Some(match field.strip_suffix('s').unwrap_or(&field) {
        "microsecond" => Windows::tumble(1, 0),
        "millisecond" => Windows::tumble(1_000, 0),
        "second" => Windows::tumble(1_000_000, 0),
        "minute" => Windows::tumble(60_000_000, 0),
        "hour" => Windows::tumble(3_600_000_000, 0),
        "day" => Windows::tumble(DAY, 0),
        // They begin on Mondays, and 1970 on a Thursday.
        "week" => Windows::tumble(7 * DAY, 4 * DAY),
        _ => return None,
    })
}

/// A constant moment.
fn instant(expr: &Expr) -> Option<Micros> {
    match expr {
        Expr::Cast(cast) => instant(&cast.expr),
        Expr::Literal(value, _) => match value.cast_to(&TIMESTAMP).ok()? {
            ScalarValue::TimestampMicrosecond(at, _) => at,
            _ => None,
        },
        _ => None,
    }
}

/// Rows of a stream that are shown one by one, or by their time behind each other, without late ones.
fn without_late_rows(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if row_by_row(&plan).is_some() {
        return Ok(plan.map_children(|input| without_late_rows(input).map(Transformed::yes))?.data);
    }
    if let LogicalPlan::Window(window) = &plan
        && let Some(column) = order_column(window)
    {
        let input = without_late_rows(window.input.as_ref().clone())?;
        let by_time = event_time(&input, column).is_some_and(|time| time.hard);
        return if by_time { plan.with_new_exprs(plan.expressions(), vec![input]) } else { Ok(plan) };
    }
    let soft = |of: &LogicalPlan, column: usize| event_time(of, column).is_some_and(|time| !time.hard);
    let judged = |column: &usize| match &plan {
        LogicalPlan::TableScan(_) => soft(&plan, *column),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| soft(input, *column)),
        _ => false,
    };
    match (0..plan.schema().fields().len()).find(judged) {
        Some(column) => Ok(Arc::unwrap_or_clone(on_time(Arc::new(plan), column, 0))),
        None => Ok(plan),
    }
}
