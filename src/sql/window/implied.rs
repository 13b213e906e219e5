//! The time of a window that names none: the one column that a watermark speaks of.
//!
//! A query below the window that only selects, filters and renames need not show it; it is passed on as a column more, which nobody sees:
//! above a window there are groups. Of rows that are groups of windows themselves it is the time that Flink gives them, `window_time`.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::error::Error;
use crate::sql::plan::event_time::event_time;

/// What a time is called that a query does not show.
const TIME: &str = "$time";
const WINDOW_TIME: &str = "window_time";

/// The input, with the time among its columns, and that column.
pub(super) fn timed(input: LogicalPlan) -> Result<(LogicalPlan, Column), Error> {
    let found = times(&input);
    if let [time] = found.as_slice() {
        let time = time.clone();
        return Ok((input, time));
    }
    if found.is_empty()
        && let Some((input, time)) = passed_on(&input)?
    {
        return Ok((input, time));
    }
    let (message, hint) = match found.is_empty() {
        true => {
            let hint =
                "name the time column, or declare WATERMARK FOR column in CREATE STREAM; of what is grouped or joined, select it";
            ("the relation of this window has no event-time column", hint)
        }
        false => {
            ("the relation of this window has several event-time columns", "name the one that is meant: TUMBLE(s, ts, size)")
        }
    };
    Err(Error::undefined_column(message).with_hint(hint))
}

fn times(plan: &LogicalPlan) -> Vec<Column> {
    let schema = plan.schema();
    let found = (0..schema.fields().len()).filter(|index| event_time(plan, *index).is_some());
    found.map(|index| Column::from(schema.qualified_field(index))).collect()
}

/// The plan with the time of what it reads.
fn passed_on(plan: &LogicalPlan) -> DfResult<Option<(LogicalPlan, Column)>> {
    let below = |input: &LogicalPlan| -> DfResult<Option<(LogicalPlan, Column)>> {
        match times(input).as_slice() {
            [] => passed_on(input),
            [time] => Ok(Some((input.clone(), time.clone()))),
            _ => groups(input),
        }
    };
    match plan {
        LogicalPlan::Projection(projection) => {
            let Some((input, time)) = below(&projection.input)? else { return Ok(None) };
            let exprs = projection.expr.iter().cloned().chain([Expr::Column(time).alias(TIME)]);
            let plan = LogicalPlanBuilder::from(input).project(exprs.collect::<Vec<_>>())?.build()?;
            Ok(Some((plan, Column::new_unqualified(TIME))))
        }
        LogicalPlan::Filter(filter) => {
            let Some((input, time)) = below(&filter.input)? else { return Ok(None) };
            Ok(Some((LogicalPlanBuilder::from(input).filter(filter.predicate.clone())?.build()?, time)))
        }
        LogicalPlan::Unnest(unnest) => {
            let Some((input, time)) = below(&unnest.input)? else { return Ok(None) };
            let (columns, options) = (unnest.exec_columns.clone(), unnest.options.clone());
            let plan = LogicalPlanBuilder::from(input).unnest_columns_with_options(columns, options)?.build()?;
            Ok(Some((plan, time)))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some((input, time)) = below(&alias.input)? else { return Ok(None) };
            let time = Column::new(Some(alias.alias.clone()), time.name);
            Ok(Some((LogicalPlanBuilder::from(input).alias(alias.alias.clone())?.build()?, time)))
        }
        _ => Ok(None),
    }
}

/// Groups of windows, with the time that a row of a window has: the bounds are not it, they are two.
fn groups(plan: &LogicalPlan) -> DfResult<Option<(LogicalPlan, Column)>> {
    match plan {
        LogicalPlan::Filter(filter) => {
            let Some((input, time)) = groups(&filter.input)? else { return Ok(None) };
            Ok(Some((LogicalPlanBuilder::from(input).filter(filter.predicate.clone())?.build()?, time)))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let mut found = times(&aggregate.input).into_iter().filter(|time| time.name == WINDOW_TIME);
            let (Some(time), None) = (found.next(), found.next()) else { return Ok(None) };
            let mut keys = aggregate.group_expr.clone();
            if !keys.contains(&Expr::Column(time.clone())) {
                keys.push(Expr::Column(time.clone()));
            }
            let input = LogicalPlanBuilder::from(Arc::unwrap_or_clone(Arc::clone(&aggregate.input)));
            Ok(Some((input.aggregate(keys, aggregate.aggr_expr.clone())?.build()?, time)))
        }
        _ => Ok(None),
    }
}
