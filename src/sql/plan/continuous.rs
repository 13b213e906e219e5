//! Plans that run for ever.
//!
//! What a continuous query may not have is refused here, at CREATE: functions whose value is not a function of their arguments,
//! parameters, relations that do not change by commits. The optimizer is told no time, so that nothing is evaluated that would
//! be different tomorrow, and does without the rules that pay for batches only.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, Volatility};
use datafusion::optimizer::{Optimizer, OptimizerContext};
use sqlparser::ast as sp;

use super::as_of::AsOfNode;
use super::event_time::input_column;
use super::nearest::NearestNode;
use super::source::{Hidden, RelationSource, SourceColumn, scan_columns, series};
use super::{Planner, errors, final_rows, on_error};
use crate::catalog::{Emit, Kind, Relation};
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS;
use crate::sql::window::WindowNode;

/// Rules of the optimizer that a plan of operators is better off without.
const BATCH_RULES: [&str; 3] = [
    // Turns COUNT(DISTINCT x) into two aggregates; ours keeps distinct values itself.
    "single_distinct_aggregation_to_group_by",
    // These split projections to read less of nested columns in files.
    "extract_leaf_expressions",
    "push_down_leaf_projections",
];

/// Makes a column of an expression that a plan has twice. `now()` must stay in the conditions that are on it.
const COMMON_SUBEXPRESSIONS: &str = "common_sub_expression_eliminate";

/// Whether the value of an expression passes with time.
pub fn mentions_now(expr: &Expr) -> bool {
    let is_now = |e: &Expr| Ok(matches!(e, Expr::ScalarFunction(call) if call.func.name() == "now"));
    expr.exists(is_now).unwrap_or(true)
}

impl Planner {
    /// The optimised plan of a query that is to be kept up to date; what the lowering takes.
    pub fn continuous(&self, query: &sp::Query, emit: Emit) -> Result<LogicalPlan> {
        let plan = self.query(query)?;
        let plan = if emit.is_final() { final_rows::prepared(plan)? } else { plan };
        let plan = match &self.nulled {
            Some(nulled) => on_error::as_null(plan, self.state(), Some(nulled))?,
            None => plan,
        };
        self.optimize_continuous(plan).map_err(errors::locate)
    }

    /// The same of a view's query; its columns are named as the view's.
    pub fn continuous_view(&self, view: &Relation) -> Result<LogicalPlan> {
        self.optimize_continuous(self.view(view)?).map_err(|error| errors::locate(error).without_position())
    }

    fn optimize_continuous(&self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        check(&plan)?;
        let plan = super::order::total(plan, self.state().as_ref())?;
        let mut options = self.state().config_options().as_ref().clone();
        // Otherwise such a subquery stays in an expression, out of the reach of operators.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        let options = Arc::new(options);
        let plan = self.state().analyzer().execute_and_check(plan, &options, |_, _| {})?;
        let mut timed = false;
        plan.apply_with_subqueries(|node| {
            timed |= node.expressions().iter().any(mentions_now);
            Ok(if timed { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        let mut rules = Optimizer::new().rules;
        rules.retain(|rule| !(BATCH_RULES.contains(&rule.name()) || timed && rule.name() == COMMON_SUBEXPRESSIONS));
        let context = OptimizerContext::new_with_config_options(options).without_query_execution_start_time();
        Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
    }
}

fn check(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && RelationSource::of(scan).is_none()
            && series(scan, BATCH_ROWS).is_none()
        {
            let error = Error::unsupported(format!("a continuous query cannot read {}", scan.table_name));
            return Err(error.with_hint("it reads streams, tables and materialized views").into());
        }
        if let Some(AsOfNode { unit, .. }) = AsOfNode::of(node) {
            let error = Error::unsupported(format!("a continuous query cannot read {}", unit.clause()));
            return Err(error.with_hint("it follows its relations from their first commit on").into());
        }
        if let LogicalPlan::RecursiveQuery(_) = node {
            let error = Error::unsupported("WITH RECURSIVE is not supported in continuous queries");
            return Err(error.with_hint("write it in the query that reads the view").into());
        }
        // The lowering knows which conditions on now() it can keep up with.
        let is_condition = matches!(node, LogicalPlan::Filter(_));
        node.apply_expressions(|expr| expr.apply(|expr| check_expr(expr, is_condition)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_expr(expr: &Expr, is_condition: bool) -> Result<TreeNodeRecursion, DataFusionError> {
    match expr {
        Expr::ScalarFunction(call) if is_condition && call.func.name() == "now" => Ok(TreeNodeRecursion::Continue),
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            let name = call.func.name();
            let error =
                Error::unsupported(format!("{name}() has another value at every call, so a continuous query cannot use it"));
            Err(error.with_hint(way_round(name)).into())
        }
        Expr::Placeholder(parameter) => {
            let error = Error::undefined_parameter(format!("there is no parameter {}", parameter.id));
            Err(error.with_hint("a continuous query outlives its statement; write the value itself").into())
        }
        _ => Ok(TreeNodeRecursion::Continue),
    }
}

/// What to write instead of a function that is refused.
fn way_round(function: &str) -> &'static str {
    match function {
        "now" | "current_timestamp" | "current_date" | "current_time" => {
            "compare a time of the row with now() in WHERE (ts > now() - INTERVAL '1 hour'), use the hidden column _ingested_at, the \
             time of the row's commit, or use now() in the query that reads the view"
        }
        "random" | "uuid" | "gen_random_uuid" => "compute the value when the row is written, with DEFAULT",
        _ => "compute the value when the row is written, or in the query that reads the view",
    }
}

/// Columns of the plan's output whose values no two rows share, if some are known: `Some(vec![])` says that there is at most
/// one row.
pub fn output_key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = RelationSource::of(scan).filter(|source| !source.is_history())?;
            let columns = scan_columns(scan, source);
            let relation = source.relation();
            let key: Vec<SourceColumn> = match relation.kind {
                Kind::Stream => vec![SourceColumn::Hidden(Hidden::Partition), SourceColumn::Hidden(Hidden::Offset)],
                _ if relation.primary_key.is_empty() => return None,
                _ => relation.primary_key.iter().map(|&column| SourceColumn::User(column)).collect(),
            };
            key.iter().map(|column| columns.iter().position(|c| c == column)).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => output_key(&alias.input),
        LogicalPlan::Filter(filter) => output_key(&filter.input),
        LogicalPlan::Sort(sort) => output_key(&sort.input),
        LogicalPlan::Limit(limit) => output_key(&limit.input),
        // The input's columns come first.
        LogicalPlan::Window(window) => output_key(&window.input),
        LogicalPlan::Projection(projection) => {
            let passed: Vec<_> = projection.expr.iter().map(|expr| input_column(expr, &projection.input)).collect();
            let key = output_key(&projection.input)?;
            key.iter().map(|column| passed.iter().position(|p| *p == Some(*column))).collect()
        }
        LogicalPlan::Aggregate(aggregate) => Some((0..aggregate.schema.fields().len() - aggregate.aggr_expr.len()).collect()),
        LogicalPlan::Distinct(distinct) => match distinct {
            datafusion::logical_expr::Distinct::All(input) => Some((0..input.schema().fields().len()).collect()),
            datafusion::logical_expr::Distinct::On(_) => None,
        },
        LogicalPlan::Join(join) => join_key(join),
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Some(Vec::new()),
        // A row of the left finds at most one.
        other if let Some(node) = NearestNode::of(other) => output_key(&node.left),
        other => {
            let node = WindowNode::of(other)?;
            let mut key = output_key(&node.input)?;
            if !node.assignment.is_single() {
                // A window is known by its end.
                key.push(node.input_columns() + 1);
            }
            Some(key)
        }
    }
}

fn join_key(join: &datafusion::logical_expr::Join) -> Option<Vec<usize>> {
    match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => return output_key(&join.left),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => return output_key(&join.right),
        _ => {}
    }
    let (left, right) = (output_key(&join.left)?, output_key(&join.right)?);
    let width = join.left.schema().fields().len();
    // A side whose key the join equates has at most one row for each of the other side.
    let equated = |side: &LogicalPlan, of: fn(&(Expr, Expr)) -> &Expr, key: &[usize]| {
        let columns: Vec<_> = join.on.iter().filter_map(|pair| input_column(of(pair), side)).collect();
        key.iter().all(|column| columns.contains(column))
    };
    let right_once = equated(&join.right, |(_, right)| right, &right);
    let left_once = equated(&join.left, |(left, _)| left, &left);
    match join.join_type {
        JoinType::Inner | JoinType::Left if right_once => Some(left),
        JoinType::Inner | JoinType::Right if left_once => Some(right.iter().map(|column| column + width).collect()),
        JoinType::Inner => Some(left.into_iter().chain(right.iter().map(|column| column + width)).collect()),
        // Keys of an outer join's padded side are NULL, and so may repeat beside each other's.
        _ => None,
    }
}
