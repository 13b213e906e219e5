//! Expressions in GROUPING SETS, ROLLUP and CUBE are columns of the input.
//!
//! The planner names the column of such a group after its expression; when its types are coerced later, it is the name of the
//! whole list that is kept. A column stays what it is.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder};

/// The plan with columns in its grouping sets.
pub(super) fn by_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => match &aggregate.group_expr[..] {
            [Expr::GroupingSet(sets)] if sets.distinct_expr().iter().any(|expr| !is_column(expr)) => {
                let sets = sets.clone();
                Ok(Transformed::yes(LogicalPlan::Aggregate(computed_below(aggregate, sets)?)))
            }
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn computed_below(aggregate: Aggregate, sets: GroupingSet) -> DfResult<Aggregate> {
    let mut computed: Vec<Expr> = Vec::new();
    let mut column = |expr: Expr| {
        if is_column(&expr) {
            return expr;
        }
        let name = expr.schema_name().to_string();
        if !computed.iter().any(|known| known.schema_name().to_string() == name) {
            computed.push(expr.alias(&name));
        }
        Expr::Column(Column::new_unqualified(name))
    };
    let mut columns = |exprs: Vec<Expr>| exprs.into_iter().map(&mut column).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(columns(exprs)),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(columns(exprs)),
        GroupingSet::GroupingSets(sets) => GroupingSet::GroupingSets(sets.into_iter().map(columns).collect()),
    };
    let aggr_expr = aggregate.aggr_expr.into_iter().map(|expr| of_columns(expr, &computed)).collect::<DfResult<_>>()?;
    let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let input = LogicalPlanBuilder::new_from_arc(Arc::clone(&aggregate.input)).project(own.chain(computed))?.build()?;
    Aggregate::try_new(Arc::new(input), vec![Expr::GroupingSet(sets)], aggr_expr)
}

/// GROUPING asks for a group by its expression.
fn of_columns(expr: Expr, computed: &[Expr]) -> DfResult<Expr> {
    let name = NamePreserver::new_for_projection().save(&expr);
    let column = |argument: Expr| {
        let name = argument.schema_name().to_string();
        let is_group = computed.iter().any(|group| group.schema_name().to_string() == name);
        if is_group { Expr::Column(Column::new_unqualified(name)) } else { argument }
    };
    let replaced = expr.transform_down(|expr| match expr {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            call.params.args = call.params.args.into_iter().map(column).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(name.restore(replaced.data))
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}
