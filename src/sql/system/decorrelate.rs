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
//! It takes correlated scalar subqueries everywhere, EXISTS outside of WHERE, and LATERAL; EXISTS and IN in WHERE are left to
//! DataFusion's semi joins. A scalar subquery that gives a second row for a row that asks is an error, as in PostgreSQL.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, Result as DfResult};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::array_agg::array_agg;
use datafusion::functions_aggregate::count::count;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Alias, Exists, InSubquery, SetComparison, WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Distinct, Expr, FetchType, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SkipType, SortExpr, Subquery, Union, Volatility, binary_expr, lit,
};
use datafusion::logical_expr::{Operator, Window};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;

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

fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

fn with_plan(expr: Expr, plan: LogicalPlan) -> Expr {
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

/// The outer columns that a subquery uses, and the plan of their distinct values under names of our own.
struct Domain {
    /// As the subquery refers to them.
    outer: Vec<Column>,
    /// Their names in `plan`.
    names: Vec<String>,
    plan: LogicalPlan,
}

/// A plan that carries a domain, and where in its output the domain's columns are.
struct Pushed {
    plan: LogicalPlan,
    keys: Vec<Column>,
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
        let mut inside = |expr: Expr| match subquery_of(&expr) {
            Some(subquery) => {
                let inner = self.plan(subquery.subquery.as_ref().clone())?;
                Ok(Transformed::yes(with_plan(expr, inner)))
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
                Expr::Exists(Exists { subquery, negated }) if !is_filter => (as_count(subquery, negated)?, true),
                other => (other, false),
            };
            let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
            match self.answer(subquery, joined)? {
                Some(answer) => Ok(Transformed::new(answer, true, TreeNodeRecursion::Jump)),
                None => Ok(Transformed::new(expr, counted, TreeNodeRecursion::Continue)),
            }
        })?;
        Ok((name.restore(replaced.data), replaced.transformed))
    }

    /// Joins the answers of a scalar subquery to `joined`; `None` if it does not depend on it.
    fn answer(&mut self, subquery: &Subquery, joined: &mut LogicalPlan) -> DfResult<Option<Expr>> {
        let Some(domain) = self.domain(&subquery.subquery, joined)? else { return Ok(None) };
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
        Ok(Some(Domain { outer, names, plan }))
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

    /// The subquery's plan with the domain in it: each row comes once for every outer value that it belongs to.
    fn push(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
        if !uses(plan, domain)? {
            return cross(plan, domain);
        }
        match plan {
            LogicalPlan::Filter(filter) => {
                let input = self.push(&filter.input, domain)?;
                let predicate = replace(filter.predicate.clone(), domain, &input)?;
                let plan = self.node(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input.plan))?))?;
                Ok(Pushed { plan, keys: input.keys })
            }
            LogicalPlan::Projection(projection) => self.push_projection(projection, domain),
            LogicalPlan::SubqueryAlias(alias) => aliased(self.push(&alias.input, domain)?, &alias.alias),
            LogicalPlan::Subquery(subquery) => self.push(&subquery.subquery, domain),
            LogicalPlan::Aggregate(aggregate) => self.push_aggregate(aggregate, domain),
            LogicalPlan::Join(join) => self.push_join(join, domain),
            LogicalPlan::Sort(sort) => {
                let input = self.push(&sort.input, domain)?;
                let order = order_of(&sort.expr, domain, &input)?;
                let plan = LogicalPlanBuilder::from(input.plan).sort(order)?.build()?;
                Ok(Pushed { plan, keys: input.keys })
            }
            LogicalPlan::Limit(limit) => self.push_limit(limit, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.push(input, domain)?;
                Ok(Pushed { plan: LogicalPlanBuilder::from(input.plan).distinct()?.build()?, keys: input.keys })
            }
            LogicalPlan::Union(union) => self.push_union(union, domain),
            LogicalPlan::Unnest(unnest) => {
                let input = self.push(&unnest.input, domain)?;
                let columns = unnest.exec_columns.clone();
                let plan =
                    LogicalPlanBuilder::from(input.plan).unnest_columns_with_options(columns, unnest.options.clone())?.build()?;
                Ok(Pushed { plan, keys: input.keys })
            }
            LogicalPlan::Window(window) => self.push_window(window, domain),
            other => Err(unsupported(&other.display().to_string())),
        }
    }

    fn push_projection(&mut self, projection: &Projection, domain: &Domain) -> DfResult<Pushed> {
        let input = self.push(&projection.input, domain)?;
        let names = NamePreserver::new_for_projection();
        let mut exprs = Vec::with_capacity(projection.expr.len() + input.keys.len());
        for expr in &projection.expr {
            exprs.push(names.save(expr).restore(replace(expr.clone(), domain, &input)?));
        }
        exprs.extend(input.keys.iter().cloned().map(Expr::Column));
        let plan = self.node(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.plan))?))?;
        Ok(Pushed { plan, keys: input.keys })
    }

    /// Groups per outer value. Without GROUP BY there is a row for every outer value, also for one without input.
    fn push_aggregate(&mut self, aggregate: &Aggregate, domain: &Domain) -> DfResult<Pushed> {
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(unsupported("GROUPING SETS"));
        }
        let input = self.push(&aggregate.input, domain)?;
        let names = NamePreserver::new_for_projection();
        let renew = |expr: &Expr| Ok(names.save(expr).restore(replace(expr.clone(), domain, &input)?));
        let keys: Vec<Expr> = input.keys.iter().cloned().map(Expr::Column).collect();
        let groups = keys.iter().cloned().map(Ok).chain(aggregate.group_expr.iter().map(renew)).collect::<DfResult<Vec<_>>>()?;
        let values = aggregate.aggr_expr.iter().map(renew).collect::<DfResult<Vec<_>>>()?;
        let grouped = LogicalPlanBuilder::from(input.plan).aggregate(groups, values)?.build()?;
        if !aggregate.group_expr.is_empty() {
            return Ok(Pushed { plan: grouped, keys: input.keys });
        }
        self.with_empty_groups(aggregate, grouped, &input.keys, domain)
    }

    fn with_empty_groups(
        &mut self,
        aggregate: &Aggregate,
        grouped: LogicalPlan,
        keys: &[Column],
        domain: &Domain,
    ) -> DfResult<Pushed> {
        let number = self.fresh();
        let inner: Vec<String> = (0..keys.len()).map(|i| format!("__group_{number}_{i}")).collect();
        let outer: Vec<Column> = domain.names.iter().map(Column::new_unqualified).collect();
        let values: Vec<Column> = aggregate.schema.columns();
        let renamed = keys.iter().cloned().map(Expr::Column).zip(&inner).map(|(key, name)| key.alias(name));
        let grouped =
            LogicalPlanBuilder::from(grouped).project(renamed.chain(values.iter().cloned().map(Expr::Column)))?.build()?;
        let right: Vec<Column> = inner.iter().map(Column::new_unqualified).collect();
        let joined = LogicalPlanBuilder::from(domain.plan.clone())
            .join_detailed(grouped, JoinType::Left, (outer.clone(), right), None, NullEquality::NullEqualsNull)?
            .build()?;
        let mut exprs: Vec<Expr> = outer.iter().cloned().map(Expr::Column).collect();
        for (column, expr) in values.into_iter().zip(&aggregate.aggr_expr) {
            exprs.push(or_default(column, expr, &aggregate.schema)?);
        }
        let plan = LogicalPlanBuilder::from(joined).project(exprs)?.build()?;
        Ok(Pushed { plan, keys: outer })
    }

    /// The side whose rows a join keeps carries the domain; the other side carries it too if it uses it.
    fn push_join(&mut self, join: &Join, domain: &Domain) -> DfResult<Pushed> {
        let (mut on_left, mut on_right) = (uses(&join.left, domain)?, uses(&join.right, domain)?);
        match join.join_type {
            JoinType::Inner if on_left || on_right => {}
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => on_left = true,
            JoinType::Right => on_right = true,
            other => return Err(unsupported(&format!("{other} JOIN"))),
        }
        let plain = |plan: &Arc<LogicalPlan>| Pushed { plan: plan.as_ref().clone(), keys: Vec::new() };
        let left = if on_left { self.push(&join.left, domain)? } else { plain(&join.left) };
        let right = match (on_right, on_left) {
            (false, _) => plain(&join.right),
            (true, false) => self.push(&join.right, domain)?,
            (true, true) => self.renamed(&join.right, domain)?,
        };
        let same = left.keys.iter().zip(&right.keys);
        let same = same.map(|(l, r)| binary_expr(Expr::Column(l.clone()), Operator::IsNotDistinctFrom, Expr::Column(r.clone())));
        let keys = if on_right && join.join_type == JoinType::Right || !on_left { right.keys.clone() } else { left.keys.clone() };
        let at = Pushed { plan: LogicalPlanBuilder::empty(false).build()?, keys: keys.clone() };
        let filter = join.filter.clone().map(|f| replace(f, domain, &at)).transpose()?;
        let on = join.on.iter().map(|(l, r)| Ok((replace(l.clone(), domain, &at)?, replace(r.clone(), domain, &at)?)));
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on.collect::<DfResult<Vec<_>>>()?,
            same.chain(filter).reduce(Expr::and),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        Ok(Pushed { plan, keys })
    }

    /// Pushes the domain under other names, for the second side of a join.
    fn renamed(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
        let number = self.fresh();
        let names: Vec<String> = (0..domain.names.len()).map(|i| format!("__outer_{number}_{i}")).collect();
        let columns = domain.names.iter().map(Column::new_unqualified).map(Expr::Column);
        let columns = columns.zip(&names).map(|(column, name)| column.alias(name));
        let values = LogicalPlanBuilder::from(domain.plan.clone()).project(columns)?.build()?;
        self.push(plan, &Domain { outer: domain.outer.clone(), names, plan: values })
    }

    /// LIMIT per outer value: rows are numbered.
    fn push_limit(&mut self, limit: &datafusion::logical_expr::Limit, domain: &Domain) -> DfResult<Pushed> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
            return Err(unsupported("LIMIT of an expression"));
        };
        let input = self.push(&limit.input, domain)?;
        let order = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => order_of(&sort.expr, domain, &input)?,
            _ => Vec::new(),
        };
        let mut number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
        number.params.partition_by = input.keys.iter().cloned().map(Expr::Column).collect();
        number.params.window_frame =
            datafusion::logical_expr::WindowFrame::new(if order.is_empty() { None } else { Some(false) });
        number.params.order_by = order;
        let name = format!("__number_{}", self.fresh());
        let columns: Vec<Expr> = input.plan.schema().columns().into_iter().map(Expr::Column).collect();
        let position = || Expr::Column(Column::new_unqualified(&name));
        let rows = |n: usize| lit(u64::try_from(n).unwrap_or(u64::MAX));
        let mut within = position().gt(rows(skip));
        if let Some(fetch) = fetch {
            within = within.and(position().lt_eq(rows(skip.saturating_add(fetch))));
        }
        let plan = LogicalPlanBuilder::from(input.plan)
            .window([Expr::from(number).alias(&name)])?
            .filter(within)?
            .project(columns)?
            .build()?;
        Ok(Pushed { plan, keys: input.keys })
    }

    fn push_union(&mut self, union: &Union, domain: &Domain) -> DfResult<Pushed> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let pushed = self.push(input, domain)?;
            let keys = pushed.keys.into_iter().map(Expr::Column).zip(&domain.names).map(|(key, name)| key.alias(name));
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            inputs.push(Arc::new(LogicalPlanBuilder::from(pushed.plan).project(columns.chain(keys))?.build()?));
        }
        let plan = LogicalPlan::Union(Union::try_new(inputs)?);
        Ok(Pushed { plan, keys: domain.names.iter().map(Column::new_unqualified).collect() })
    }

    fn push_window(&mut self, window: &Window, domain: &Domain) -> DfResult<Pushed> {
        let input = self.push(&window.input, domain)?;
        let names = NamePreserver::new_for_projection();
        let mut exprs = Vec::with_capacity(window.window_expr.len());
        for expr in &window.window_expr {
            let renewed = replace(expr.clone(), domain, &input)?.transform_down(|e| match e {
                Expr::WindowFunction(mut function) => {
                    function.params.partition_by.extend(input.keys.iter().cloned().map(Expr::Column));
                    Ok(Transformed::new(Expr::WindowFunction(function), true, TreeNodeRecursion::Jump))
                }
                other => Ok(Transformed::no(other)),
            })?;
            exprs.push(names.save(expr).restore(renewed.data));
        }
        let plan = LogicalPlanBuilder::from(input.plan).window(exprs)?.build()?;
        Ok(Pushed { plan, keys: input.keys })
    }
}

fn unsupported(what: &str) -> datafusion::error::DataFusionError {
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

/// It gives exactly one row, whatever the outer values are.
fn is_single_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_single_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_single_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

fn lateral_subquery(plan: &LogicalPlan) -> Option<(&LogicalPlan, Option<&datafusion::common::TableReference>)> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, Some(&alias.alias))),
            _ => None,
        },
        _ => None,
    }
}

/// Calls `found` with the outer columns of a plan, those of subqueries within it included.
fn visit_outer(plan: &LogicalPlan, found: &mut dyn FnMut(&Column)) -> DfResult<()> {
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

fn uses(plan: &LogicalPlan, domain: &Domain) -> DfResult<bool> {
    let mut found = false;
    visit_outer(plan, &mut |column| found |= domain.outer.contains(column))?;
    Ok(found)
}

fn cross(plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
    let keys = domain.names.iter().map(Column::new_unqualified).collect();
    if matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row) {
        return Ok(Pushed { plan: domain.plan.clone(), keys });
    }
    let plan = LogicalPlanBuilder::from(domain.plan.clone()).cross_join(plan.clone())?.build()?;
    Ok(Pushed { plan, keys })
}

fn aliased(pushed: Pushed, alias: &datafusion::common::TableReference) -> DfResult<Pushed> {
    let plan = LogicalPlanBuilder::from(pushed.plan).alias(alias.clone())?.build()?;
    let keys = pushed.keys.into_iter().map(|key| Column::new(Some(alias.clone()), key.name)).collect();
    Ok(Pushed { plan, keys })
}

/// The expression over a plan that carries the domain: outer columns become the domain's.
fn replace(expr: Expr, domain: &Domain, input: &Pushed) -> DfResult<Expr> {
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

fn order_of(order: &[SortExpr], domain: &Domain, input: &Pushed) -> DfResult<Vec<SortExpr>> {
    order.iter().map(|s| Ok(SortExpr { expr: replace(s.expr.clone(), domain, input)?, ..s.clone() })).collect()
}

/// An aggregate's column, or what the aggregate gives for no rows.
fn or_default(column: Column, expr: &Expr, schema: &DFSchema) -> DfResult<Expr> {
    let mut inner = expr;
    while let Expr::Alias(Alias { expr, .. }) = inner {
        inner = expr;
    }
    let value = Expr::Column(column.clone());
    let Expr::AggregateFunction(function) = inner else { return Ok(value) };
    let default = function.func.default_value(schema.data_type(&column)?)?;
    if default.is_null() {
        return Ok(value);
    }
    Ok(coalesce(vec![value, lit(default)]).alias_qualified(column.relation, column.name))
}

fn project_to(plan: LogicalPlan, schema: &DFSchema) -> DfResult<LogicalPlan> {
    if plan.schema().fields().len() == schema.fields().len() {
        return Ok(plan);
    }
    let columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

static ONE_ROW: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::new_from_impl(OneRow { signature: Signature::any(1, Volatility::Immutable) }));

/// The one element of an array of a subquery's rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneRow {
    signature: Signature,
}

impl ScalarUDFImpl for OneRow {
    fn name(&self) -> &str {
        "one_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [DataType::List(element)] => Ok(element.data_type().clone()),
            _ => Err(Error::internal("one_row takes the rows of a subquery").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let mut columns = args.args.into_iter().map(|a| a.into_array(rows));
        let Some(column) = columns.next().transpose()? else {
            return Err(Error::internal("one_row takes the rows of a subquery").into());
        };
        Ok(ColumnarValue::Array(one_row(&column)?))
    }
}

fn one_row(column: &ArrayRef) -> DfResult<ArrayRef> {
    let lists = column.as_list::<i32>();
    let mut indices = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let start = u64::try_from(lists.value_offsets()[row]).unwrap_or(0);
        match if lists.is_null(row) { 0 } else { lists.value_length(row) } {
            0 => indices.push(None),
            1 => indices.push(Some(start)),
            _ => {
                return Err(Error::cardinality_violation("more than one row returned by a subquery used as an expression").into());
            }
        }
    }
    Ok(arrow::compute::take(lists.values(), &UInt64Array::from(indices), None)?)
}
