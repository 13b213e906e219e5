//! Correlated subqueries as joins, of any shape.
//!
//! DataFusion's optimizer turns a subquery into a join only where the outer columns stand in plain equalities below an
//! aggregate. Catalog queries, and people, write more than that. This rule does it the general way (Neumann and Kemper,
//! "Unnesting Arbitrary Queries"): the distinct values of the outer columns, the *domain*, are joined into the subquery where
//! they are used and carried up through it, so that it computes its answers for all outer rows at once; these are joined back.
//!
//! ```text
//!   Filter/Projection [.. (subquery of a.x) ..]          Projection [.. answer ..]
//!     A                                          ──►       LeftJoin  a.x ≡ domain.x
//!                                                            A
//!                                                            subquery × domain (distinct a.x)
//! ```
//!
//! It takes correlated scalar subqueries everywhere, EXISTS outside of WHERE, and LATERAL; EXISTS in WHERE is left to
//! DataFusion's semi joins, and so is IN but for what [`membership`] says. A scalar subquery that gives a second row for a row that asks is an error, as in PostgreSQL.

mod conditions;
mod membership;
mod one_row;
mod outer;
mod push;
mod recursive;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result as DfResult, TableReference};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::array_agg::array_agg;
use datafusion::functions_aggregate::count::count;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use crate::error::Error;
use one_row::ONE_ROW;
use outer::{subquery_of, visit_outer, with_plan};
use push::aliased;
use recursive::WorkTable;

/// The rule. It runs after types are coerced.
#[derive(Debug, Default)]
pub struct Decorrelate;

impl AnalyzerRule for Decorrelate {
    fn name(&self) -> &str {
        "decorrelate"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        if !has_subqueries(&plan)? {
            return Ok(plan);
        }
        Unnesting::default().plan(plan)
    }
}

fn has_subqueries(plan: &LogicalPlan) -> DfResult<bool> {
    plan.exists(|node| {
        let mut found = matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(subquery_of(e).is_some()))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(found)
    })
}

/// The outer columns that a subquery uses, and the plan of their distinct values under names of our own.
#[derive(Clone)]
struct Domain {
    /// As the subquery refers to them.
    outer: Vec<Column>,
    /// Their names in `plan`.
    names: Vec<String>,
    plan: LogicalPlan,
    /// Those of the recursions around, which carry the domain, too.
    work_tables: Vec<WorkTable>,
}

/// A plan that carries a domain, and where in its output the domain's columns are.
struct Pushed {
    plan: LogicalPlan,
    keys: Vec<Column>,
}

/// VALUES below a SELECT of its columns: the optimizer looks for the expression that a subquery gives.
fn named_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if !matches!(plan, LogicalPlan::Values(_)) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

#[derive(Default)]
struct Unnesting {
    names: usize,
}

impl Unnesting {
    fn fresh(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    fn plan(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let plan = plan.map_children(|child| Ok(Transformed::yes(self.plan(child)?)))?.data;
        self.node(plan)
    }

    /// A node whose inputs are done.
    fn node(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        if let LogicalPlan::Join(join) = &plan
            && let Some(joined) = self.lateral(join)?
        {
            return Ok(joined);
        }
        if let LogicalPlan::Join(join) = &plan
            && let Some(joined) = self.condition(join)?
        {
            return Ok(joined);
        }
        let plan = memberships(plan)?;
        let mut inside = |expr: Expr| match subquery_of(&expr) {
            Some(subquery) => {
                let inner = self.plan(subquery.subquery.as_ref().clone())?;
                Ok(Transformed::yes(with_plan(expr, named_columns(inner)?)))
            }
            None => Ok(Transformed::no(expr)),
        };
        let plan = plan.map_expressions(|expr| expr.transform_down(&mut inside))?.data;
        let [input] = plan.inputs()[..] else { return Ok(plan) };
        let is_filter = matches!(plan, LogicalPlan::Filter(_));
        let mut joined = input.clone();
        let mut exprs = Vec::new();
        let mut changed = false;
        for expr in plan.expressions() {
            let (expr, done) = self.expression(expr, is_filter, &plan, &mut joined)?;
            changed |= done;
            exprs.push(expr);
        }
        if !changed {
            return Ok(plan);
        }
        let schema = plan.schema().clone();
        let rebuilt = plan.with_new_exprs(exprs, vec![joined])?;
        project_to(rebuilt, &schema)
    }

    /// Replaces the subqueries of an expression by columns of `joined`, which grows by the joins that compute them.
    fn expression(
        &mut self,
        expr: Expr,
        is_filter: bool,
        plan: &LogicalPlan,
        joined: &mut LogicalPlan,
    ) -> DfResult<(Expr, bool)> {
        let name = NamePreserver::new(plan).save(&expr);
        let replaced = expr.transform_down(|expr| {
            let (expr, counted) = match expr {
                Expr::Exists(Exists { subquery, negated }) if !(is_filter && becomes_semi_join(&subquery)) => {
                    (as_count(subquery, negated)?, true)
                }
                other => (other, false),
            };
            let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
            match self.answer(subquery, plan, joined)? {
                Some(answer) => Ok(Transformed::new(answer, true, TreeNodeRecursion::Jump)),
                None => Ok(Transformed::new(expr, counted, TreeNodeRecursion::Continue)),
            }
        })?;
        Ok((name.restore(replaced.data), replaced.transformed))
    }

    /// Joins the answers of a scalar subquery of `plan` to `joined`; `None` if it does not depend on it.
    fn answer(&mut self, subquery: &Subquery, plan: &LogicalPlan, joined: &mut LogicalPlan) -> DfResult<Option<Expr>> {
        // The input itself, not what has been joined to it: the answers of others do not change the domain.
        let Some(domain) = self.domain(&subquery.subquery, plan.inputs()[0])? else { return Ok(None) };
        let inner = subquery.subquery.as_ref();
        let value = Column::from(inner.schema().qualified_field(0));
        let pushed = self.push(inner, &domain)?;
        let mut value_expr = Expr::Column(value);
        let (mut plan, one_row_each) = (pushed.plan, is_single_row(inner));
        if !one_row_each {
            let keys: Vec<Expr> = pushed.keys.iter().cloned().map(Expr::Column).collect();
            let rows = array_agg(value_expr);
            let name = rows.schema_name().to_string();
            plan = LogicalPlanBuilder::from(plan).aggregate(keys, [rows])?.build()?;
            value_expr = Expr::Column(Column::new_unqualified(name));
        }
        let answer = format!("__answer_{}", self.fresh());
        let keys = pushed.keys.iter().cloned().map(Expr::Column);
        let names: Vec<String> = domain.names.iter().map(|name| format!("{name}_of{answer}")).collect();
        let keys = keys.zip(&names).map(|(key, name)| key.alias(name));
        let answers = LogicalPlanBuilder::from(plan).project(keys.chain([value_expr.alias(&answer)]))?.build()?;
        let right: Vec<Column> = names.iter().map(Column::new_unqualified).collect();
        let left = std::mem::replace(joined, LogicalPlanBuilder::empty(false).build()?);
        *joined = LogicalPlanBuilder::from(left)
            .join_detailed(answers, JoinType::Left, (domain.outer, right), None, NullEquality::NullEqualsNull)?
            .build()?;
        let answer = Expr::Column(Column::new_unqualified(answer));
        Ok(Some(if one_row_each { answer } else { ONE_ROW.call(vec![answer]) }))
    }

    /// The domain of a subquery over this input; `None` if the subquery uses no column of it.
    fn domain(&mut self, subquery: &LogicalPlan, input: &LogicalPlan) -> DfResult<Option<Domain>> {
        let mut outer = Vec::new();
        visit_outer(subquery, &mut |column| {
            if input.schema().is_column_from_schema(column) && !outer.contains(column) {
                outer.push(column.clone());
            }
        })?;
        if outer.is_empty() {
            return Ok(None);
        }
        let number = self.fresh();
        let names: Vec<String> = (0..outer.len()).map(|i| format!("__outer_{number}_{i}")).collect();
        let columns = outer.iter().cloned().map(Expr::Column).zip(&names).map(|(column, name)| column.alias(name));
        let plan = LogicalPlanBuilder::from(input.clone()).project(columns)?.distinct()?.build()?;
        Ok(Some(Domain { outer, names, plan, work_tables: Vec::new() }))
    }

    /// `FROM a, LATERAL (subquery of a)`.
    fn lateral(&mut self, join: &Join) -> DfResult<Option<LogicalPlan>> {
        let Some((subquery, alias)) = lateral_subquery(&join.right) else { return Ok(None) };
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Ok(None);
        }
        let Some(domain) = self.domain(subquery, &join.left)? else { return Ok(None) };
        let mut pushed = self.push(subquery, &domain)?;
        if let Some(alias) = alias {
            pushed = aliased(pushed, alias)?;
        }
        let keys = domain.outer.iter().cloned().zip(pushed.keys.iter().cloned());
        let on = join.on.iter().map(|(l, r)| binary_expr(l.clone(), Operator::Eq, r.clone()));
        let filter = on.chain(join.filter.clone()).reduce(Expr::and);
        let (left, right): (Vec<Column>, Vec<Column>) = keys.unzip();
        let joined = LogicalPlanBuilder::from(join.left.as_ref().clone())
            .join_detailed(pushed.plan, join.join_type, (left, right), filter, NullEquality::NullEqualsNull)?
            .build()?;
        project_to(joined, &join.schema).map(Some)
    }
}

/// The plan with the IN of its expressions put in terms of EXISTS, where it has to be.
fn memberships(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let [input] = plan.inputs()[..] else { return Ok(plan) };
    let schema = Arc::clone(input.schema());
    let is_filter = matches!(plan, LogicalPlan::Filter(_));
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        if !expr.exists(|e| Ok(membership::asks(e)))? {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let new = if is_filter { membership::in_where(expr, &schema)? } else { membership::anywhere(expr, &schema)? };
        Ok(Transformed::yes(name.restore(new)))
    })?;
    Ok(rewritten.data)
}

fn unsupported(what: &str) -> DataFusionError {
    Error::unsupported(format!("a correlated subquery with {what} is not supported"))
        .with_hint("write it as a join, or move the outer column into the subquery's WHERE")
        .into()
}

/// `[NOT] EXISTS (q)` as `(SELECT count(*) > 0 FROM q)`.
fn as_count(subquery: Subquery, negated: bool) -> DfResult<Expr> {
    let rows = count(lit(1i64));
    let name = Column::new_unqualified(rows.schema_name().to_string());
    let found = if negated { Expr::Column(name).eq(lit(0i64)) } else { Expr::Column(name).gt(lit(0i64)) };
    let plan = LogicalPlanBuilder::new_from_arc(subquery.subquery)
        .aggregate(Vec::<Expr>::new(), [rows])?
        .project([found.alias("exists")])?
        .build()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans }))
}

/// Whether DataFusion makes a semi or mark join of an EXISTS in WHERE: it has to find the outer columns in conditions.
fn becomes_semi_join(subquery: &Subquery) -> bool {
    if subquery.subquery.exists(|node| Ok(loses_condition(node))).unwrap_or(true) {
        return false;
    }
    let mut pull_up = PullUpCorrelatedExpr::new().with_exists_sub_query(true);
    let pulled_up = subquery.subquery.as_ref().clone().rewrite(&mut pull_up);
    pulled_up.is_ok() && pull_up.can_pull_up
}

/// A condition on outer columns right above a relation that has one inside: DataFusion forgets which columns of the relation that
/// one needs.
fn loses_condition(plan: &LogicalPlan) -> bool {
    fn is_correlated(relation: &LogicalPlan) -> bool {
        match relation {
            LogicalPlan::Filter(filter) => is_correlated(&filter.input),
            LogicalPlan::SubqueryAlias(alias) => !alias.input.all_out_ref_exprs().is_empty(),
            _ => false,
        }
    }
    matches!(plan, LogicalPlan::Filter(filter) if filter.predicate.contains_outer() && is_correlated(&filter.input))
}

/// It gives exactly one row, whatever the outer values are.
fn is_single_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_single_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_single_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

fn lateral_subquery(plan: &LogicalPlan) -> Option<(&LogicalPlan, Option<&TableReference>)> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, Some(&alias.alias))),
            _ => None,
        },
        _ => None,
    }
}

fn project_to(plan: LogicalPlan, schema: &DFSchema) -> DfResult<LogicalPlan> {
    if plan.schema().fields().len() == schema.fields().len() {
        return Ok(plan);
    }
    let columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}
