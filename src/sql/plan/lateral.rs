//! `FROM s, UNNEST(s.words) AS w(word)`: a lateral subquery that reads nothing but its outer row is evaluated on that row.
//!
//! The planner gives a join of `s` with a subquery over a relation of one row; no rule of the optimizer takes that apart. Here
//! the one row is replaced by `s` itself, whose columns then pass through the subquery's nodes:
//!
//! ```text
//!   Join                                   Unnest: w.word
//!     s                            ⇒         Projection: s.*, string_to_array(s.text) AS w.word
//!     Unnest: word                             s
//!       Projection: string_to_array(outer(s.text))
//!         one row
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{Expr, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};

/// Rewrite all joins of this kind.
pub fn inline_lateral(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        if join.join_type != JoinType::Inner || !join.on.is_empty() || !reads_only_outer_row(&join.right, false) {
            return Ok(Transformed::no(node));
        }
        let outer = Outer::new(Arc::clone(join.left.schema()));
        let grafted = outer.graft(&join.right, &join.left)?;
        let restored = outer.restore(grafted)?;
        Ok(Transformed::yes(match &join.filter {
            Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate.clone(), Arc::new(restored))?),
            None => restored,
        }))
    })?;
    Ok(rewritten.data)
}

/// The plan is a chain of nodes that know how to pass on more columns, over a relation of one row; a lateral one.
fn reads_only_outer_row(plan: &LogicalPlan, lateral: bool) -> bool {
    match plan {
        LogicalPlan::Subquery(subquery) => reads_only_outer_row(&subquery.subquery, true),
        LogicalPlan::SubqueryAlias(alias) => reads_only_outer_row(&alias.input, lateral),
        LogicalPlan::Projection(projection) => reads_only_outer_row(&projection.input, lateral),
        LogicalPlan::Filter(filter) => reads_only_outer_row(&filter.input, lateral),
        LogicalPlan::Unnest(unnest) => reads_only_outer_row(&unnest.input, lateral),
        LogicalPlan::EmptyRelation(empty) => lateral && empty.produce_one_row,
        _ => false,
    }
}

/// The outer row's columns. On their way through the subquery they have names that nothing else has.
struct Outer {
    schema: DFSchemaRef,
}

impl Outer {
    fn new(schema: DFSchemaRef) -> Outer {
        Outer { schema }
    }

    fn name(index: usize) -> String {
        format!("__outer_{index}")
    }

    fn columns(&self) -> impl Iterator<Item = Expr> + use<> {
        (0..self.schema.fields().len()).map(|index| Expr::Column(Column::new_unqualified(Self::name(index))))
    }

    /// `plan` over `left` instead of one row; the outer columns come first.
    fn graft(&self, plan: &LogicalPlan, left: &Arc<LogicalPlan>) -> DfResult<LogicalPlan> {
        match plan {
            LogicalPlan::Subquery(subquery) => self.graft(&subquery.subquery, left),
            LogicalPlan::EmptyRelation(_) => {
                let columns = self.schema.columns().into_iter().enumerate();
                let renamed = columns.map(|(index, column)| Expr::Column(column).alias(Self::name(index))).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(renamed, Arc::clone(left))?))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let own = alias.input.schema().columns().into_iter().map(|column| {
                    let name = column.name.clone();
                    Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
                });
                let exprs = self.columns().chain(own).collect();
                let input = Arc::new(self.graft(&alias.input, left)?);
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
            }
            LogicalPlan::Projection(projection) => {
                let own = projection.expr.iter().map(|expr| self.resolve(expr.clone()));
                let exprs = self.columns().map(Ok).chain(own).collect::<DfResult<_>>()?;
                let input = Arc::new(self.graft(&projection.input, left)?);
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
            }
            LogicalPlan::Filter(filter) => {
                let input = Arc::new(self.graft(&filter.input, left)?);
                Ok(LogicalPlan::Filter(Filter::try_new(self.resolve(filter.predicate.clone())?, input)?))
            }
            LogicalPlan::Unnest(unnest) => LogicalPlanBuilder::from(self.graft(&unnest.input, left)?)
                .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
                .build(),
            other => datafusion::common::internal_err!("a lateral subquery over one row has a node {}", other.display()),
        }
    }

    /// References to the outer row become references to its columns. The expression keeps its name.
    fn resolve(&self, expr: Expr) -> DfResult<Expr> {
        let name = expr.schema_name().to_string();
        let resolved = expr.transform(|node| match &node {
            Expr::OuterReferenceColumn(_, column) => match self.schema.maybe_index_of_column(column) {
                Some(index) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(Self::name(index))))),
                // A row further out.
                None => Ok(Transformed::no(node)),
            },
            _ => Ok(Transformed::no(node)),
        })?;
        if !resolved.transformed || matches!(resolved.data, Expr::Alias(_)) {
            return Ok(resolved.data);
        }
        Ok(resolved.data.alias(name))
    }

    /// Give the outer columns their own names back.
    fn restore(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let outer = self.columns().zip(self.schema.columns()).map(|(now, was)| now.alias_qualified(was.relation, was.name));
        let own = plan.schema().columns().into_iter().skip(self.schema.fields().len()).map(Expr::Column);
        let exprs = outer.chain(own).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
    }
}
