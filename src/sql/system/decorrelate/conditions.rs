//! Subqueries in the condition of a join.
//!
//! What is about one side is computed there, as a column of it, and the join asks for the column. What is about both is asked of
//! the rows of an inner join afterwards; in an outer join it has no such place.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result as DfResult};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};

use super::outer::{subquery_of, visit_outer};
use super::{Unnesting, project_to, unsupported};

impl Unnesting {
    /// A join whose sides are done; `None` if its condition has no subqueries.
    pub(super) fn condition(&mut self, join: &Join) -> DfResult<Option<LogicalPlan>> {
        let has_subquery = |expr: &Expr| expr.exists(|e| Ok(subquery_of(e).is_some()));
        let Some(condition) = &join.filter else { return Ok(None) };
        if !has_subquery(condition)? {
            return Ok(None);
        }
        let (mut left, mut right) = (Side::of(&join.left), Side::of(&join.right));
        let (mut kept, mut afterwards) = (Vec::new(), Vec::new());
        for conjunct in split_conjunction_owned(condition.clone()) {
            if !has_subquery(&conjunct)? {
                kept.push(conjunct);
                continue;
            }
            let columns = columns(&conjunct)?;
            let of = |side: &Side| columns.iter().all(|column| !is_of(column, join) || side.has(column));
            match join.join_type {
                _ if of(&left) => kept.push(left.computes(conjunct, self.fresh())),
                _ if of(&right) => kept.push(right.computes(conjunct, self.fresh())),
                JoinType::Inner => afterwards.push(conjunct),
                _ => return Err(unsupported("columns of both sides in the condition of an outer join")),
            }
        }
        let (left, right) = (self.side(left)?, self.side(right)?);
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on.clone(),
            conjunction(kept),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        let mut plan = project_to(LogicalPlan::Join(joined), &join.schema)?;
        if let Some(condition) = conjunction(afterwards) {
            plan = self.node(LogicalPlanBuilder::from(plan).filter(condition)?.build()?)?;
        }
        Ok(Some(plan))
    }

    fn side(&mut self, side: Side) -> DfResult<LogicalPlan> {
        if side.computed.is_empty() {
            return Ok(side.plan.clone());
        }
        let columns = side.plan.schema().columns().into_iter().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(side.plan.clone()).project(columns.chain(side.computed))?.build()?;
        self.node(plan)
    }
}

/// A side of a join, and the columns that it is to have beside its own.
struct Side<'a> {
    plan: &'a LogicalPlan,
    computed: Vec<Expr>,
}

impl Side<'_> {
    fn of(plan: &LogicalPlan) -> Side<'_> {
        Side { plan, computed: Vec::new() }
    }

    fn has(&self, column: &Column) -> bool {
        self.plan.schema().is_column_from_schema(column)
    }

    fn computes(&mut self, condition: Expr, number: usize) -> Expr {
        let name = format!("__condition_{number}");
        self.computed.push(condition.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    }
}

/// The columns that an expression uses, itself or in its subqueries.
fn columns(expr: &Expr) -> DfResult<Vec<Column>> {
    let mut found: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
    expr.apply(|e| {
        if let Some(subquery) = subquery_of(e) {
            visit_outer(&subquery.subquery, &mut |column| found.push(column.clone()))?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Others are of a query around.
fn is_of(column: &Column, join: &Join) -> bool {
    join.left.schema().is_column_from_schema(column) || join.right.schema().is_column_from_schema(column)
}
