//! The domain on its way up through a subquery, node by node.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, Result as DfResult, TableReference};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Alias, WindowFunction, WindowFunctionDefinition};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType,
    SortExpr, Union, Values, Window, WindowFrame, binary_expr, cast, lit,
};

use super::outer::{replace, uses};
use super::{Domain, Pushed, Unnesting, unsupported};

impl Unnesting {
    /// The subquery's plan with the domain in it: each row comes once for every outer value that it belongs to.
    pub(super) fn push(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
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
            LogicalPlan::Values(values) => self.push(&selects(values)?, domain),
            LogicalPlan::Unnest(unnest) => {
                let input = self.push(&unnest.input, domain)?;
                let columns = unnest.exec_columns.clone();
                let plan =
                    LogicalPlanBuilder::from(input.plan).unnest_columns_with_options(columns, unnest.options.clone())?.build()?;
                Ok(Pushed { plan, keys: input.keys })
            }
            LogicalPlan::Window(window) => self.push_window(window, domain),
            LogicalPlan::RecursiveQuery(query) => self.push_recursive(query, domain),
            LogicalPlan::TableScan(scan) if let Some(table) = domain.work_table(scan) => table.scan(scan),
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
        if aggregate.group_expr.is_empty() {
            domain.check_aggregate(&aggregate.input)?;
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
        domain.check_join(join)?;
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
        self.push(plan, &Domain { names, plan: values, ..domain.clone() })
    }

    /// LIMIT per outer value: rows are numbered.
    fn push_limit(&mut self, limit: &Limit, domain: &Domain) -> DfResult<Pushed> {
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
        number.params.window_frame = WindowFrame::new(if order.is_empty() { None } else { Some(false) });
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

/// VALUES as a SELECT for each row, all together.
fn selects(values: &Values) -> DfResult<LogicalPlan> {
    let select = |row: &Vec<Expr>| {
        let fields = values.schema.fields();
        let columns =
            row.iter().zip(fields).map(|(expr, field)| cast(expr.clone(), field.data_type().clone()).alias(field.name()));
        Ok(Arc::new(LogicalPlanBuilder::empty(true).project(columns)?.build()?))
    };
    let mut selects = values.values.iter().map(select).collect::<DfResult<Vec<_>>>()?;
    match selects.len() {
        1 => Ok(Arc::unwrap_or_clone(selects.remove(0))),
        _ => Ok(LogicalPlan::Union(Union::try_new(selects)?)),
    }
}

fn cross(plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
    let keys = domain.names.iter().map(Column::new_unqualified).collect();
    if matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row) {
        return Ok(Pushed { plan: domain.plan.clone(), keys });
    }
    let plan = LogicalPlanBuilder::from(domain.plan.clone()).cross_join(plan.clone())?.build()?;
    Ok(Pushed { plan, keys })
}

pub(super) fn aliased(pushed: Pushed, alias: &TableReference) -> DfResult<Pushed> {
    let plan = LogicalPlanBuilder::from(pushed.plan).alias(alias.clone())?.build()?;
    let keys = pushed.keys.into_iter().map(|key| Column::new(Some(alias.clone()), key.name)).collect();
    Ok(Pushed { plan, keys })
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
