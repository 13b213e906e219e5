//! The batch answer of a view, computed from streams and tables alone.
//!
//! Views that the view reads are put into its plan in place of their stored rows, down to what the log holds. What a view that
//! emits only final rows would show is the answer over the windows that the watermark has closed by now. Where rows depend on an
//! order, equals come in the order that views have ([`order`]); to know all columns that tell them apart, the plan is the
//! optimised one, as it is for the operators.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, Union, cast, lit};

use super::rewrite::with_silences;
use super::{Options, Source, execute, history};
use crate::catalog::{Emit, Kind, Relation};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::log::CommitId;
use crate::sql::functions::instants::Keep;
use crate::sql::pattern::MatchNode;
use crate::sql::plan::as_of::AsOfNode;
use crate::sql::plan::final_rows::{FinalRows, final_rows};
use crate::sql::plan::late_rows::late_rows;
use crate::sql::plan::nearest::NearestNode;
use crate::sql::plan::on_time::OnTimeNode;
use crate::sql::plan::silence::timed;
use crate::sql::plan::source::{RelationSource, scan_columns};
use crate::sql::plan::{EventTime, Planner, SourceColumn, event_time, order, window_event_time};
use crate::sql::window::WindowNode;
use crate::time::{Micros, NO_TIME, period_start};

/// The rows that a materialized view or a derived stream should have at the snapshot, or at a commit before it, or `name$late` of
/// one. Of a changelog: the rows that its changes add up to.
pub async fn expected(
    planner: &Planner,
    relation: &Relation,
    source: &Source,
    at: Option<CommitId>,
    options: &Options,
) -> Result<SendableRecordBatchStream> {
    let plan = match at {
        None => plan(planner, relation, source)?,
        Some(commit) => plan_at(planner, relation, source, commit, plan)?,
    };
    run(plan, planner, source, options).await
}

/// Run such a plan; `now()` is the time of the source's commit.
pub async fn run(plan: LogicalPlan, planner: &Planner, source: &Source, options: &Options) -> Result<SendableRecordBatchStream> {
    // Partitions would have to be brought together again in order.
    let target_partitions = if order::matters(&plan) { 1 } else { options.target_partitions };
    let options = Options { target_partitions, now: source.snapshot.time, formats: Formats::default(), ..options.clone() };
    execute(plan, source, planner.state(), &options).await
}

/// The plan of those rows, over streams and tables.
pub fn plan(planner: &Planner, relation: &Relation, source: &Source) -> Result<LogicalPlan> {
    match relation.kind {
        _ if relation.kind == Kind::MaterializedView || relation.is_derived() => match relation.emit {
            Emit::Every(every) => refreshed(planner, relation, source, every),
            _ => answer(planner, relation, source),
        },
        Kind::Late => {
            let parent = relation.parent.and_then(|id| planner.catalog().get(id));
            let view = parent.ok_or_else(|| Error::internal(format!("\"{}\" belongs to no view", relation.name)))?;
            late(planner, view, relation, source)
        }
        kind => {
            let error =
                Error::wrong_object_type(format!("\"{}\" is a {}, whose rows are the log's own", relation.name, kind.noun()));
            Err(error.with_hint("VERIFY compares materialized views and derived streams with their batch answer"))
        }
    }
}

/// What its query says.
fn answer(planner: &Planner, relation: &Relation, source: &Source) -> Result<LogicalPlan> {
    let plan = planner.view(relation)?;
    let is_final = relation.emit.is_final();
    // Of EXISTS and IN, joins are made there, whose rows are final one by one.
    let as_it_runs = order::matters(&plan) || is_final && asks_subqueries(&plan)?;
    let plan = if as_it_runs { order::sort_windows(planner.continuous_view(relation)?)? } else { plan };
    let plan = if let Emit::FinalOrSilent(after) = relation.emit { timed(plan, after)? } else { plan };
    if relation.emit == Emit::Final
        && let Some(rows) = final_rows(&plan)
    {
        let past = past(&rows, source);
        return inline(only(plan.clone(), rows.node, past)?, planner, source);
    }
    let plan = inline(plan, planner, source)?;
    if is_final { only_final(plan, source) } else { Ok(plan) }
}

/// Whether a condition is on the rows of a subquery.
fn asks_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let asks = |expr: &Expr| Ok(matches!(expr, Expr::Exists(_) | Expr::InSubquery(_)));
    Ok(plan.exists(|node| Ok(node.expressions().iter().any(|expr| expr.exists(asks).unwrap_or(true))))?)
}

/// What it said when the period before this one ended.
fn refreshed(planner: &Planner, relation: &Relation, source: &Source, every: Micros) -> Result<LogicalPlan> {
    let since = period_start(every, source.snapshot.time);
    plan_at(planner, relation, source, history::before(since, source)?, answer)
}

/// The plan of the rows that there should have been after a commit; 0: before all of them.
fn plan_at(
    planner: &Planner,
    relation: &Relation,
    source: &Source,
    commit: CommitId,
    plan: impl Fn(&Planner, &Relation, &Source) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    if commit == 0 {
        return Ok(LogicalPlanBuilder::from(plan(planner, relation, source)?).filter(lit(false))?.build()?);
    }
    let then = history::at(commit, planner.catalog(), source)?;
    let plan = at_time(plan(planner, relation, &then)?, then.snapshot.time)?;
    Ok(AsOfNode::refreshed(commit, plan))
}

/// With a time in place of `now()`.
fn at_time(plan: LogicalPlan, now: Micros) -> Result<LogicalPlan> {
    let fixed = |expr: Expr| match &expr {
        Expr::ScalarFunction(call) if call.func.name() == "now" => {
            let data_type = expr.get_type(&DFSchema::empty())?;
            let now = ScalarValue::TimestampMicrosecond(Some(now), Some("UTC".into())).cast_to(&data_type)?;
            Ok(Transformed::yes(lit(now)))
        }
        _ => Ok(Transformed::no(expr)),
    };
    Ok(plan.transform_up_with_subqueries(|node| node.map_expressions(|expr| expr.transform(fixed)))?.data)
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
        let whole = planner.catalog().get(relation.id).unwrap_or(relation);
        let rows = self::plan(planner, whole, source)?;
        let columns = rows.schema().columns();
        let picked = scan_columns(scan, of).into_iter().map(|column| match column {
            SourceColumn::User(index) => Ok(columns[index].clone()),
            SourceColumn::Hidden(hidden) => Err(Error::internal(format!("a view has no {}", hidden.name()))),
        });
        let picked = picked.map(|c| c.map(Expr::Column)).collect::<Result<Vec<_>>>()?;
        let rows = LogicalPlanBuilder::from(rows).project(picked)?.build()?;
        let alias = SubqueryAlias::try_new(Arc::new(rows), scan.table_name.clone())?;
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(inlined.data)
}

/// Only what is final by now. Groups over a join are final when what bounds their window is past on both sides: they are
/// looked at themselves. All others are over windows that are closed by now.
fn only_final(plan: LogicalPlan, source: &Source) -> Result<LogicalPlan> {
    let now = |time: &EventTime| {
        let watermarks = time.streams.iter().map(|stream| source.snapshot.watermarks.get(&stream.id).copied().unwrap_or(NO_TIME));
        watermarks.min().unwrap_or(NO_TIME)
    };
    let changed = plan.transform_down_with_subqueries(|plan| -> DfResult<_> {
        if let LogicalPlan::Aggregate(aggregate) = &plan
            && joins(&aggregate.input)
        {
            let groups = 0..aggregate.group_expr.len();
            let times = groups.filter_map(|column| Some((column, event_time(&plan, column).filter(|time| time.hard)?)));
            let past = times.map(|(column, time)| {
                let column = Expr::Column(Column::from(plan.schema().qualified_field(column)));
                cast(column, DataType::Int64).lt_eq(lit(now(&time).saturating_sub(time.delay)))
            });
            let Some(past) = conjunction(past.collect::<Vec<_>>()) else { return Ok(Transformed::no(plan)) };
            let only = LogicalPlan::Filter(Filter::try_new(past, Arc::new(plan))?);
            return Ok(Transformed::new(only, true, TreeNodeRecursion::Jump));
        }
        if let Some(node) = MatchNode::of(&plan) {
            let time = node.time_index().and_then(|time| event_time(&node.input, time)).filter(|time| time.hard);
            let final_by = time.map_or(NO_TIME, |time| match now(&time) {
                NO_TIME => NO_TIME,
                now => now.saturating_sub(time.delay),
            });
            // The same holds of views that are read.
            return Ok(match node.final_by {
                None => Transformed::yes(node.clone().final_by(final_by).into_plan()),
                Some(_) => Transformed::no(plan),
            });
        }
        let Some(node) = WindowNode::of(&plan) else { return Ok(Transformed::no(plan)) };
        let time = window_event_time(node);
        let stream = time.as_ref().and_then(|time| time.streams.first()).map_or(0, |stream| stream.id);
        let now = match with_silences(node, stream, source)? {
            Some(watermarks) => watermarks.before(source.snapshot.commit + 1),
            None => time.map_or(NO_TIME, |time| now(&time)),
        };
        // Views that are read may be final themselves: what they let through is decided already.
        Ok(match node.keep {
            Keep::InTime => Transformed::yes(node.clone().keeping(Keep::Final(now)).into_plan()),
            _ => Transformed::no(plan),
        })
    })?;
    Ok(changed.data)
}

/// Rows whose time is past.
fn past(FinalRows { node, column, time, .. }: &FinalRows, source: &Source) -> Expr {
    let now = time.streams.iter().map(|stream| source.snapshot.watermarks.get(&stream.id).copied().unwrap_or(NO_TIME)).min();
    let column = Expr::Column(Column::from(node.schema().qualified_field(*column)));
    cast(column, DataType::Int64).lt(lit(now.unwrap_or(NO_TIME).saturating_sub(time.delay)))
}

/// The plan, with a condition on one of its nodes, which nothing but computations row by row stand above.
fn only(plan: LogicalPlan, node: &LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    let mut found = false;
    let only = plan.transform_down(|plan| -> DfResult<_> {
        if found || plan != *node {
            return Ok(Transformed::no(plan));
        }
        found = true;
        let only = LogicalPlan::Filter(Filter::try_new(condition.clone(), Arc::new(plan))?);
        Ok(Transformed::new(only, true, TreeNodeRecursion::Jump))
    })?;
    Ok(only.data)
}

/// Whether a join is between these rows and the groups or streams that they come from.
fn joins(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(_) => true,
        LogicalPlan::Aggregate(_) => false,
        other if NearestNode::of(other).is_some() => true,
        other => other.inputs().into_iter().any(joins),
    }
}

/// The rows that came too late for a view's windows and joins, whole, as they reached them.
fn late(planner: &Planner, view: &Relation, late: &Relation, source: &Source) -> Result<LogicalPlan> {
    let mut cuts = Vec::new();
    let plan = planner.continuous_view(view)?;
    let plan = if let Emit::FinalOrSilent(after) = view.emit { timed(plan, after)? } else { plan };
    collect_late(&plan, &mut cuts);
    let mut parts = Vec::new();
    for cut in cuts {
        let plan = inline(cut, planner, source)?;
        if judges_rows(&plan) {
            parts.push(plan);
        }
    }
    let schemas: Vec<_> = parts.iter().map(|part| Arc::new(part.schema().as_arrow().clone())).collect();
    let Some(columns) = late_rows(&schemas) else {
        return Err(Error::internal(format!("\"{}\" has nothing that rows can be late for", view.name)));
    };
    let mut padded = Vec::new();
    for (part, places) in parts.into_iter().zip(columns.places) {
        let own = part.schema().columns();
        let mut exprs = Vec::new();
        for (place, column) in places.into_iter().zip(&late.columns) {
            exprs.push(match place {
                Some(index) => Expr::Column(own[index].clone()).alias(column.name.as_str()),
                None => lit(ScalarValue::try_from(&column.data_type)?).alias(column.name.as_str()),
            });
        }
        padded.push(Arc::new(LogicalPlanBuilder::from(part).project(exprs)?.build()?));
    }
    match padded.len() {
        1 => Ok(padded.into_iter().next().map(Arc::unwrap_or_clone).expect("there is one")),
        _ => Ok(LogicalPlan::Union(Union::try_new_with_loose_types(padded)?)),
    }
}

/// What cuts late rows, from the leaves up, each as the plan of those rows.
fn collect_late(plan: &LogicalPlan, found: &mut Vec<LogicalPlan>) {
    plan.inputs().into_iter().for_each(|input| collect_late(input, found));
    if let Some(node) = WindowNode::of(plan) {
        found.push(node.clone().keeping(Keep::Late).into_plan());
    }
    if let Some(node) = OnTimeNode::of(plan) {
        found.push(OnTimeNode { late: true, ..node.clone() }.into_plan());
    }
}

/// Rows can be late at this node.
fn judges_rows(plan: &LogicalPlan) -> bool {
    let time = match (WindowNode::of(plan), OnTimeNode::of(plan)) {
        (Some(node), _) => window_event_time(node),
        (_, Some(node)) => event_time(&node.input, node.time_index()),
        _ => None,
    };
    time.is_some_and(|time| !time.hard)
}
