//! The outer columns of a subquery: finding them, and putting others in their place.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use super::{Domain, Pushed};

pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

pub(super) fn with_plan(expr: Expr, plan: LogicalPlan) -> Expr {
    let renew = |old: &Subquery| {
        let outer_ref_columns = plan.all_out_ref_exprs();
        Subquery { subquery: Arc::new(plan.clone()), outer_ref_columns, spans: old.spans.clone() }
    };
    match expr {
        Expr::ScalarSubquery(old) => Expr::ScalarSubquery(renew(&old)),
        Expr::Exists(e) => Expr::Exists(Exists { subquery: renew(&e.subquery), ..e }),
        Expr::InSubquery(e) => Expr::InSubquery(InSubquery { subquery: renew(&e.subquery), ..e }),
        Expr::SetComparison(e) => Expr::SetComparison(SetComparison { subquery: renew(&e.subquery), ..e }),
        other => other,
    }
}

/// Calls `found` with the outer columns of a plan, those of subqueries within it included.
pub(super) fn visit_outer(plan: &LogicalPlan, found: &mut dyn FnMut(&Column)) -> DfResult<()> {
    plan.apply(|node| {
        if let LogicalPlan::Subquery(subquery) = node {
            visit_outer(&subquery.subquery, found)?;
        }
        let mine = input_schema(node);
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e {
                    found(column);
                } else if let Some(subquery) = subquery_of(e) {
                    // What a subquery takes from this very node is no outer column of the plan.
                    visit_outer(&subquery.subquery, &mut |column| {
                        if !mine.is_column_from_schema(column) {
                            found(column);
                        }
                    })?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// The columns that a node's expressions can name.
fn input_schema(node: &LogicalPlan) -> Arc<DFSchema> {
    match (node, &node.inputs()[..]) {
        (LogicalPlan::Join(join), _) => {
            let mut both = join.left.schema().as_ref().clone();
            both.merge(join.right.schema());
            Arc::new(both)
        }
        (_, [input]) => input.schema().clone(),
        // Set operations and leaves have no expressions over more than themselves.
        _ => Arc::new(DFSchema::empty()),
    }
}

/// Whether a plan depends on the domain: by an outer column, or by a recursion that carries it.
pub(super) fn uses(plan: &LogicalPlan, domain: &Domain) -> DfResult<bool> {
    let mut found = domain.is_recursive_in(plan)?;
    visit_outer(plan, &mut |column| found |= domain.outer.contains(column))?;
    Ok(found)
}

/// The expression over a plan that carries the domain: outer columns become the domain's.
pub(super) fn replace(expr: Expr, domain: &Domain, input: &Pushed) -> DfResult<Expr> {
    let key = |column: &Column| domain.outer.iter().position(|o| o == column).map(|at| input.keys[at].clone());
    let replaced = expr.transform_down(|e| {
        if let Expr::OuterReferenceColumn(_, column) = &e {
            return Ok(key(column).map_or(Transformed::no(e.clone()), |key| Transformed::yes(Expr::Column(key))));
        }
        // A subquery within: for it the domain's column is an outer column.
        let Some(subquery) = subquery_of(&e) else { return Ok(Transformed::no(e)) };
        let plan = rename_outer(subquery.subquery.as_ref().clone(), &|column| {
            (!input.plan.schema().is_column_from_schema(column)).then(|| key(column)).flatten()
        })?;
        Ok(Transformed::yes(with_plan(e, plan)))
    })?;
    Ok(replaced.data)
}

fn rename_outer(plan: LogicalPlan, rename: &dyn Fn(&Column) -> Option<Column>) -> DfResult<LogicalPlan> {
    let renamed = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|e| match e {
                Expr::OuterReferenceColumn(field, column) => match rename(&column) {
                    Some(new) => Ok(Transformed::yes(Expr::OuterReferenceColumn(field, new))),
                    None => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
                },
                other => Ok(Transformed::no(other)),
            })
        })
    })?;
    Ok(renamed.data)
}
