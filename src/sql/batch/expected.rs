//! The batch answer of a view, computed from streams and tables alone.
//!
//! Views that the view reads are put into its plan in place of their stored rows, down to what the log holds. What a view that
//! emits only final rows would show is the answer over the windows that the watermark has closed by now. Where rows depend on an
//! order, equals come in the order that views have ([`order`]); to know all columns that tell them apart, the plan is the
//! optimised one, as it is for the operators.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, SubqueryAlias, Union};

use super::{Options, Source, execute};
use crate::catalog::{Emit, Kind, Relation};
use crate::error::{Error, Result};
use crate::sql::functions::instants::Keep;
use crate::sql::plan::source::{RelationSource, scan_columns};
use crate::sql::plan::{Planner, SourceColumn, event_time, order, rename_columns};
use crate::sql::window::WindowNode;
use crate::time::NO_TIME;

/// The rows that a materialized view should have at the snapshot, or `name$late` of one.
pub async fn expected(
    planner: &Planner,
    relation: &Relation,
    source: &Source,
    options: &Options,
) -> Result<SendableRecordBatchStream> {
    let plan = plan(planner, relation, source)?;
    // Partitions would have to be brought together again in order.
    let target_partitions = if order::matters(&plan) { 1 } else { options.target_partitions };
    let options = Options { target_partitions, now: source.snapshot.time, ..options.clone() };
    execute(plan, source, planner.state(), &options).await
}

/// The plan of those rows, over streams and tables.
pub fn plan(planner: &Planner, relation: &Relation, source: &Source) -> Result<LogicalPlan> {
    match relation.kind {
        Kind::MaterializedView => {
            let plan = planner.view(relation)?;
            let plan = if order::matters(&plan) { order::sort_windows(planner.continuous_view(relation)?)? } else { plan };
            let plan = inline(plan, planner, source)?;
            if relation.emit == Emit::Final { only_final(plan, source) } else { Ok(plan) }
        }
        Kind::Late => {
            let parent = relation.parent.and_then(|id| planner.catalog().get(id));
            let view = parent.ok_or_else(|| Error::internal(format!("\"{}\" belongs to no view", relation.name)))?;
            late(planner, view, relation, source)
        }
        kind => {
            let error =
                Error::wrong_object_type(format!("\"{}\" is a {}, whose rows are the log's own", relation.name, kind.noun()));
            Err(error.with_hint("VERIFY compares materialized views with their batch answer"))
        }
    }
}

/// Put the plans of views in place of their stored rows.
fn inline(plan: LogicalPlan, planner: &Planner, source: &Source) -> Result<LogicalPlan> {
    let inlined = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(of) = RelationSource::of(scan) else { return Ok(Transformed::no(node)) };
        let relation = of.relation();
        if !matches!(relation.kind, Kind::MaterializedView | Kind::Late) {
            return Ok(Transformed::no(node));
        }
        let rows = self::plan(planner, relation, source)?;
        let columns = rows.schema().columns();
        let picked = scan_columns(scan, of).into_iter().map(|column| match column {
            SourceColumn::User(index) => Ok(columns[index].clone()),
            SourceColumn::Hidden(hidden) => Err(Error::internal(format!("a view has no {}", hidden.name()))),
        });
        let picked = picked.map(|c| c.map(datafusion::logical_expr::Expr::Column)).collect::<Result<Vec<_>>>()?;
        let rows = LogicalPlanBuilder::from(rows).project(picked)?.build()?;
        let alias = SubqueryAlias::try_new(Arc::new(rows), scan.table_name.clone())?;
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(inlined.data)
}

/// Only the windows that are closed by now.
fn only_final(plan: LogicalPlan, source: &Source) -> Result<LogicalPlan> {
    each_window(plan, |node| {
        let streams = event_time(&node.input, node.time_index()).map(|time| time.streams).unwrap_or_default();
        let watermarks = streams.iter().map(|stream| source.snapshot.watermarks.get(&stream.id).copied().unwrap_or(NO_TIME));
        let now = watermarks.min().unwrap_or(NO_TIME);
        // Views that are read may be final themselves: what they let through is decided already.
        if node.keep == Keep::InTime { Some(Keep::Final(now)) } else { None }
    })
}

/// The rows of a view's windows that came too late, whole, as they reached its windows.
fn late(planner: &Planner, view: &Relation, late: &Relation, source: &Source) -> Result<LogicalPlan> {
    let mut windows = Vec::new();
    collect_windows(&planner.continuous_view(view)?, &mut windows);
    let mut parts = Vec::new();
    for node in windows {
        let plan = inline(node.keeping(Keep::Late).into_plan(), planner, source)?;
        if WindowNode::of(&plan).is_some_and(judges_rows) {
            parts.push(Arc::new(rename_columns(plan, late.columns.iter().map(|column| column.name.as_str()))?));
        }
    }
    match parts.len() {
        0 => Err(Error::internal(format!("\"{}\" has no windows in which rows can be late", view.name))),
        1 => Ok(parts.into_iter().next().map(Arc::unwrap_or_clone).expect("there is one")),
        _ => Ok(LogicalPlan::Union(Union::try_new_with_loose_types(parts)?)),
    }
}

fn collect_windows(plan: &LogicalPlan, found: &mut Vec<WindowNode>) {
    found.extend(WindowNode::of(plan).cloned());
    plan.inputs().into_iter().for_each(|input| collect_windows(input, found));
}

/// Rows can be late in its windows.
fn judges_rows(node: &WindowNode) -> bool {
    event_time(&node.input, node.time_index()).is_some_and(|time| !time.hard)
}

fn each_window(plan: LogicalPlan, keep: impl Fn(&WindowNode) -> Option<Keep>) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|plan| -> DfResult<_> {
        let Some(node) = WindowNode::of(&plan) else { return Ok(Transformed::no(plan)) };
        Ok(match keep(node) {
            Some(keep) => Transformed::yes(node.clone().keeping(keep).into_plan()),
            None => Transformed::no(plan),
        })
    })?;
    Ok(changed.data)
}
