//! Which rows an order means when it does not tell them apart.
//!
//! SQL leaves open which of two equal rows comes first: a query may answer so today and otherwise tomorrow. What is kept up to
//! date cannot. So in the query of a view, and in its batch answer, equals are told apart by all other columns that are there:
//!
//! ```text
//!   ORDER BY a LIMIT n            ORDER BY a, then every other column, ascending, NULLs first
//!   LIMIT n                       ORDER BY every column
//!   DISTINCT ON (k) … ORDER BY a  row_number() OVER (PARTITION BY k ORDER BY a, then what is selected) = 1
//!   array_agg(x ORDER BY a)       array_agg(x ORDER BY a, x), and so do string_agg, first_value, last_value, nth_value
//!   any_value(x)                  min(x)
//!   OVER (… ORDER BY a)           the rows of a partition stand in the order of a, then of every other column
//!   MATCH_RECOGNIZE (ORDER BY a)  the same
//!   ASOF JOIN … a.ts >= b.ts      of the rows of b of one time, the first in the order of every other column
//! ```
//!
//! The last lines are no rewrite, because peers must stay peers. Operators keep rows in that order, and [`sort_windows`] brings
//! them into it before a batch query computes the functions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SubqueryAlias, Window, lit,
};

use super::nearest::NearestNode;
use crate::sql::pattern::MatchNode;

/// Aggregates whose answer depends on the order of the rows.
const OF_ORDER: [&str; 5] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// The name that a row's number has, where one is put in.
const NUMBER: &str = "$number";

/// Whether the rows of the plan may depend on an order.
pub fn matters(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let seen = plan.apply_with_subqueries(|node| {
        found |= match node {
            LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::On(_)) => true,
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().any(is_of_order),
            other => MatchNode::of(other).is_some() || NearestNode::of(other).is_some(),
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    seen.is_err() || found
}

/// The plan of a view with every order made total, but for those of OVER.
pub fn total(plan: LogicalPlan, functions: &dyn FunctionRegistry) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(limit) => {
            let input = Arc::new(sorted(Arc::unwrap_or_clone(limit.input))?);
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { input, ..limit })))
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct_on(distinct).map(Transformed::yes),
        LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(is_of_order) => {
            let calls = aggregate.aggr_expr.into_iter().map(|call| ordered_call(call, functions)).collect::<Result<Vec<_>>>()?;
            let aggregate = Aggregate::try_new_with_schema(aggregate.input, aggregate.group_expr, calls, aggregate.schema)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// The plan with the rows of every OVER in order before they reach it. A plain Sort would not do: the optimizer makes it as weak
/// as what stands above it asks for. So the rows are numbered in that order, and the numbers are looked at.
///
/// Keys that are no columns become columns first. Where a filter makes such an expression constant (`n % 2` behind
/// `WHERE n % 2 = 0`), DataFusion sorts without it, forgets behind a projection that it is constant, and would sort once more for
/// the window, where peers may change places. What it knows of a column, it keeps.
pub fn sort_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) if window.window_expr.iter().any(|expr| window_function(expr).is_some()) => {
            sort_window(window).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn sort_window(window: Window) -> Result<LogicalPlan> {
    let shown = window.schema.columns();
    let mut keys = Vec::new();
    let calls = window.window_expr.into_iter().map(|call| with_key_columns(call, &mut keys)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<Expr> = window.input.schema().columns().into_iter().map(Expr::Column).collect();
    let keyed = keys.into_iter().enumerate().map(|(at, key)| key.alias(key_name(at)));
    let keyed =
        LogicalPlanBuilder::from(Arc::unwrap_or_clone(window.input)).project(columns.into_iter().chain(keyed))?.build()?;

    let sorted_by = calls.first().and_then(window_function).map(|function| {
        let keys = function.params.partition_by.iter().map(|key| SortExpr::new(key.clone(), true, true));
        keys.chain(function.params.order_by.iter().cloned()).collect()
    });
    let order = then_all_columns(sorted_by.unwrap_or_default(), &keyed);
    let columns: Vec<Expr> = keyed.schema().columns().into_iter().map(Expr::Column).collect();
    let number = Expr::Column(Column::new_unqualified(NUMBER));
    let input = LogicalPlanBuilder::from(keyed)
        .window([row_number(Vec::new(), order)])?
        .filter(number.gt(lit(0_u64)))?
        .project(columns)?
        .build()?;

    let called: Vec<String> = calls.iter().map(|call| call.schema_name().to_string()).collect();
    let inputs = shown.len() - called.len();
    let computed = LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?);
    let shown = shown.into_iter().enumerate().map(|(at, column)| match at.checked_sub(inputs) {
        Some(call) => Expr::Column(Column::new_unqualified(&called[call])).alias_qualified(column.relation, column.name),
        None => Expr::Column(column),
    });
    LogicalPlanBuilder::from(computed).project(shown)?.build()
}

/// The call of a window function with columns for its keys; those that were none join `keys`, whose places name them.
fn with_key_columns(call: Expr, keys: &mut Vec<Expr>) -> Result<Expr> {
    let call = call.transform_down(|expr| {
        let Expr::WindowFunction(mut function) = expr else { return Ok(Transformed::no(expr)) };
        let params = &mut function.params;
        for key in params.partition_by.iter_mut().chain(params.order_by.iter_mut().map(|by| &mut by.expr)) {
            if !matches!(key, Expr::Column(_) | Expr::Literal(..)) {
                let at = keys.iter().position(|known| known == key).unwrap_or(keys.len());
                let column = Expr::Column(Column::new_unqualified(key_name(at)));
                let key = std::mem::replace(key, column);
                if at == keys.len() {
                    keys.push(key);
                }
            }
        }
        Ok(Transformed::new(Expr::WindowFunction(function), true, TreeNodeRecursion::Jump))
    })?;
    Ok(call.data)
}

fn key_name(at: usize) -> String {
    format!("$key{at}")
}

/// The number of a row, as a column.
fn row_number(partition_by: Vec<Expr>, order_by: Vec<SortExpr>) -> Expr {
    let mut number = WindowFunction::new(row_number_udwf(), Vec::new());
    number.params.partition_by = partition_by;
    number.params.order_by = order_by;
    Expr::WindowFunction(Box::new(number)).alias(NUMBER)
}

/// The call behind an expression of a Window node.
pub(super) fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        _ => None,
    }
}

/// The rows in an order that tells all of them apart: that of the plan, if it has one.
fn sorted(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) => {
            let expr = then_all_columns(sort.expr, &sort.input);
            Ok(LogicalPlan::Sort(Sort { expr, ..sort }))
        }
        LogicalPlan::Projection(projection) if has_order(&projection.input) => {
            let input = Arc::new(sorted(Arc::unwrap_or_clone(projection.input))?);
            Ok(LogicalPlan::Projection(Projection::try_new_with_schema(projection.expr, input, projection.schema)?))
        }
        LogicalPlan::SubqueryAlias(alias) if has_order(&alias.input) => {
            let input = sorted(Arc::unwrap_or_clone(alias.input))?;
            Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?))
        }
        other => {
            let expr = then_all_columns(Vec::new(), &other);
            Ok(LogicalPlan::Sort(Sort { expr, input: Arc::new(other), fetch: None }))
        }
    }
}

fn has_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => has_order(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_order(&alias.input),
        _ => false,
    }
}

fn then_all_columns(mut by: Vec<SortExpr>, plan: &LogicalPlan) -> Vec<SortExpr> {
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    by.extend(then_each(&by, columns));
    by
}

/// Those of the expressions that are not sorted by already.
fn then_each(by: &[SortExpr], exprs: impl Iterator<Item = Expr>) -> Vec<SortExpr> {
    let new = exprs.filter(|expr| by.iter().all(|known| known.expr != *expr));
    new.map(|expr| SortExpr::new(expr, true, true)).collect()
}

/// The first row of each key by its number, so that all its columns are of one row.
fn distinct_on(distinct: DistinctOn) -> Result<LogicalPlan> {
    let DistinctOn { on_expr, select_expr, sort_expr, input, schema: _ } = distinct;
    let order = sort_expr.unwrap_or_default();
    let selected = select_expr.iter().map(|expr| expr.clone().unalias_nested().data);
    let by: Vec<SortExpr> = order.iter().cloned().chain(then_each(&order, selected)).collect();
    let first = Expr::Column(Column::new_unqualified(NUMBER)).eq(lit(1_u64));
    let plan = LogicalPlanBuilder::from(input).window([row_number(on_expr, by)])?.filter(first)?;
    let plan = if order.is_empty() { plan } else { plan.sort(order)? };
    plan.project(select_expr)?.build()
}

fn is_of_order(call: &Expr) -> bool {
    match call {
        Expr::Alias(alias) => is_of_order(&alias.expr),
        Expr::AggregateFunction(call) => OF_ORDER.contains(&call.func.name()) || call.func.name() == "any_value",
        _ => false,
    }
}

/// An aggregate call whose values come in an order that tells all of them apart, under its former name.
fn ordered_call(call: Expr, functions: &dyn FunctionRegistry) -> Result<Expr> {
    let name = call.schema_name().to_string();
    Ok(match call {
        Expr::Alias(alias) => {
            let inner = ordered_call(*alias.expr, functions)?.unalias();
            inner.alias_qualified(alias.relation, alias.name)
        }
        Expr::AggregateFunction(AggregateFunction { func, mut params }) if OF_ORDER.contains(&func.name()) => {
            let values = params.args.iter().filter(|arg| !matches!(arg, Expr::Literal(..))).cloned();
            params.order_by.extend(then_each(&params.order_by, values));
            Expr::AggregateFunction(AggregateFunction { func, params }).alias(name)
        }
        Expr::AggregateFunction(call) if call.func.name() == "any_value" => {
            let least = AggregateFunction { func: functions.udaf("min")?, params: call.params };
            Expr::AggregateFunction(least).alias(name)
        }
        other => other,
    })
}
