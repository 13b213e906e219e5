//! What PostgreSQL means by literals and casts, once a plan has its types.
//!
//! | planned | becomes |
//! | --- | --- |
//! | a whole number | `integer` where it can be, else `bigint`, else `numeric` |
//! | a cast that Arrow makes otherwise | [`convert`](crate::sql::functions::convert) |
//! | a cast that PostgreSQL has not | error 42846 |
//! | a cast to `numeric` | as many decimals as the operand has |
//! | arguments of functions that take text, bytes or times | see [`arguments`] |
//! | rows of a UNION, of VALUES, results of CASE and COALESCE | of their common type, see [`unknown`](super::unknown) |
//!
//! Operators are [`functions::operators`](crate::sql::functions::operators)'s. The planner reads every whole number as a
//! `bigint`; an argument of a function of windows alone, and what is behind the first one of an aggregate, stays one.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{AggregateFunction, Case, Cast, InList, ScalarFunction, Sort, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{disjunction, merge_schema};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Union, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast, lit, when,
};

use super::arguments;
use super::unknown::{compared, is_string, of_branches, of_one_type, string_column};
use crate::copy::value::Formats;
use crate::error::Error;
use crate::sql::functions::convert::{converted, differs, in_session, is_open, numeric_literal};
use crate::sql::functions::declared::may_be_null;
use crate::sql::functions::operators::{common_bits, compared_as, moments, of_moments, truth, whole};
use crate::sql::types;

/// The plan with PostgreSQL's types.
pub(super) fn in_postgres_types(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let typed = plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Filter(filter) if has_window(&filter.predicate) => {
                let error = Error::windowing("window functions are not allowed in WHERE");
                return Err(error.with_hint("put it into a subquery and filter that one, or write QUALIFY").into());
            }
            // What they hold is no expression over their input alone.
            LogicalPlan::Extension(_) | LogicalPlan::Limit(_) => node,
            node => {
                let schema = merge_schema(&node.inputs());
                map_expressions(node, |expr| expression(expr, &schema).map(Transformed::yes))?.data
            }
        };
        let node = match node {
            LogicalPlan::Values(values) => LogicalPlanBuilder::values(with_moments_alike(values.values)?)?.build()?,
            LogicalPlan::Union(union) => common(union)?,
            LogicalPlan::RecursiveQuery(mut query) => {
                let wanted =
                    work_table(&query.recursive_term, &query.name).unwrap_or_else(|| Arc::clone(query.static_term.schema()));
                let types: Vec<_> = wanted.fields().iter().map(|field| field.data_type().clone()).collect();
                query.static_term = Arc::new(with_types(&query.static_term, &types)?);
                query.recursive_term = Arc::new(with_types(&query.recursive_term, &types)?);
                LogicalPlan::RecursiveQuery(query)
            }
            node => node.recompute_schema()?,
        };
        Ok(Transformed::yes(node))
    })?;
    Ok(typed.data)
}

/// Rows of VALUES, of which the planner finds the types, but for those of dates beside timestamps.
fn with_moments_alike(mut rows: Vec<Vec<Expr>>) -> DfResult<Vec<Vec<Expr>>> {
    let nothing = DFSchema::empty();
    for cell in rows.iter_mut().flatten() {
        if let Expr::Cast(of) = cell
            && let DataType::Timestamp(TimeUnit::Nanosecond, _) = of.field.data_type()
        {
            *cell = std::mem::take(of.expr.as_mut());
        }
    }
    for column in 0..rows.first().map_or(0, Vec::len) {
        let types = rows.iter().filter_map(|row| row.get(column)?.get_type(&nothing).ok()).collect::<Vec<_>>();
        let Some(common) = of_moments(&types.iter().collect::<Vec<_>>()) else { continue };
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *cell = cast(std::mem::take(cell), common.clone());
        }
    }
    Ok(rows)
}

/// The plan with the strings that stand for moments read as a session reads them.
pub(super) fn with_moments_read(plan: LogicalPlan, formats: Formats) -> DfResult<LogicalPlan> {
    let read = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Extension(_) | LogicalPlan::Limit(_) => Ok(Transformed::no(node)),
        node => map_expressions(node, |expr| moments_read(expr, formats)),
    })?;
    Ok(read.data)
}

/// The same of an expression.
pub(super) fn moments_read(expr: Expr, formats: Formats) -> DfResult<Transformed<Expr>> {
    let is_string = |call: &ScalarFunction| matches!(call.args.as_slice(), [Expr::Literal(ScalarValue::Utf8(Some(_)), _)]);
    expr.transform_up(|expr| match expr {
        Expr::ScalarFunction(ref call) if is_string(call) => Ok(Transformed::yes(in_session(expr, formats)?)),
        other => Ok(Transformed::no(other)),
    })
}

/// A node with other expressions, whose results have the names that they had.
pub fn map_expressions(
    node: LogicalPlan,
    mut map: impl FnMut(Expr) -> DfResult<Transformed<Expr>>,
) -> DfResult<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let mut named = |expr: Expr| {
        let name = names.save(&expr);
        Ok(map(expr)?.update_data(|expr| name.restore(expr)))
    };
    node.map_expressions(|expr| match expr {
        // The columns are those of its parts.
        Expr::GroupingSet(_) => expr.map_children(&mut named),
        expr => named(expr),
    })
}

fn has_window(predicate: &Expr) -> bool {
    predicate.exists(|expr| Ok(matches!(expr, Expr::WindowFunction(_)))).unwrap_or(false)
}

/// The columns that the recursive term was planned with.
fn work_table(term: &LogicalPlan, name: &str) -> Option<datafusion::common::DFSchemaRef> {
    match term {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == name => Some(Arc::clone(&scan.projected_schema)),
        other => other.inputs().into_iter().find_map(|input| work_table(input, name)),
    }
}

/// Branches of one type each, which PostgreSQL finds from all of them.
fn common(mut union: Union) -> DfResult<LogicalPlan> {
    let columns = union.schema.fields().len();
    if union.inputs.iter().any(|input| input.schema().fields().len() != columns) {
        return Ok(LogicalPlan::Union(union));
    }
    let branches: Vec<&LogicalPlan> = union.inputs.iter().map(AsRef::as_ref).collect();
    let types = (0..columns).map(|column| of_branches(&branches, column)).collect::<DfResult<Vec<_>>>()?;
    for input in &mut union.inputs {
        *input = Arc::new(with_types(&with_strings_read(input, &types)?, &types)?);
    }
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(union.inputs)?))
}

/// The same rows, with literals in columns of these types read as such.
fn with_strings_read(query: &LogicalPlan, types: &[DataType]) -> DfResult<LogicalPlan> {
    let is_read = |column: usize| !types::is_text(&types[column]) && string_column(query, column).is_some();
    let LogicalPlan::Projection(projection) = query else { return Ok(query.clone()) };
    if !(0..types.len()).any(is_read) {
        return Ok(query.clone());
    }
    let read = |(column, expr): (usize, &Expr)| match string_column(query, column).filter(|_| is_read(column)) {
        Some(string) => Ok(converted(string.clone(), types[column].clone())?.alias(query.schema().field(column).name())),
        None => Ok(expr.clone()),
    };
    let exprs = projection.expr.iter().enumerate().map(read).collect::<DfResult<Vec<_>>>()?;
    LogicalPlanBuilder::from(projection.input.as_ref().clone()).project(exprs)?.build()
}

/// Views that earlier versions of this server made keep the types of their columns: sums of `bigint` were that, averages of
/// integers floats, and whole numbers `bigint`.
pub(super) fn as_declared(plan: LogicalPlan, columns: &[crate::catalog::Column]) -> DfResult<LogicalPlan> {
    use DataType as D;
    let wanted = plan.schema().fields().iter().zip(columns).map(|(field, column)| match (&column.data_type, field.data_type()) {
        (D::Int64, D::Decimal128(38, 0) | D::Int32) | (D::Float64, D::Decimal128(38, 16)) => column.data_type.clone(),
        (_, planned) => planned.clone(),
    });
    let wanted: Vec<_> = wanted.collect();
    with_types(&plan, &wanted)
}

/// The same rows, their columns of these types.
fn with_types(plan: &LogicalPlan, types: &[DataType]) -> DfResult<LogicalPlan> {
    let columns = plan.schema().columns();
    if plan.schema().fields().iter().zip(types).all(|(field, wanted)| field.data_type() == wanted) {
        return Ok(plan.clone());
    }
    let exprs = columns.into_iter().zip(plan.schema().fields()).zip(types).map(|((column, field), wanted)| {
        let name = column.name.clone();
        match field.data_type() == wanted {
            true => Expr::Column(column),
            false => cast(Expr::Column(column), wanted.clone()).alias(name),
        }
    });
    LogicalPlanBuilder::from(plan.clone()).project(exprs.collect::<Vec<_>>())?.build()
}

/// Intervals, and the texts beside them, are compared by how long they are, as the operators do it.
fn by_length(parts: Vec<&mut Expr>, schema: &DFSchema) -> DfResult<()> {
    let types = parts.iter().map(|part| part.get_type(schema)).collect::<DfResult<Vec<_>>>()?;
    let Some(interval) = types.iter().find(|of| matches!(of, DataType::Interval(_))) else { return Ok(()) };
    let fits = |(part, of): (&&mut Expr, &DataType)| of == interval || of.is_null() || is_string(part);
    if parts.iter().zip(&types).all(fits) {
        for part in parts {
            let value = std::mem::take(part);
            let value = if is_string(&value) { converted(value, interval.clone())? } else { value };
            *part = moments::length(value);
        }
    }
    Ok(())
}

/// The same for an expression over columns.
pub(super) fn expression(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let typed = expr.transform_up(|mut expr| {
        if let Expr::ScalarFunction(call) = &mut expr
            && call.args.iter().any(is_open)
        {
            arguments::tell_scalar(call, schema)?;
        }
        Ok(match expr {
            Expr::Literal(..) => Transformed::yes(whole(expr)),
            // It is NULL where the query has no row.
            Expr::ScalarSubquery(ref query) if !query.subquery.schema().field(0).is_nullable() => {
                Transformed::yes(may_be_null(expr))
            }
            Expr::Cast(cast) => Transformed::yes(meant(cast, schema)?),
            Expr::BinaryExpr(mut pair) if matches!(pair.op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) => {
                compared(vec![pair.left.as_mut(), pair.right.as_mut()], schema)?;
                as_compared(vec![pair.left.as_mut(), pair.right.as_mut()], schema)?;
                by_length(vec![pair.left.as_mut(), pair.right.as_mut()], schema)?;
                Transformed::yes(Expr::BinaryExpr(pair))
            }
            Expr::Between(mut between) => {
                compared([&mut between.expr, &mut between.low, &mut between.high].map(AsMut::as_mut).into(), schema)?;
                let parts = [&mut between.expr, &mut between.low, &mut between.high];
                as_compared(parts.into_iter().map(AsMut::as_mut).collect(), schema)?;
                by_length([&mut between.expr, &mut between.low, &mut between.high].map(AsMut::as_mut).into(), schema)?;
                Transformed::yes(Expr::Between(between))
            }
            Expr::InSubquery(mut membership) => {
                let query = &membership.subquery.subquery;
                let mut types: Vec<DataType> = query.schema().fields().iter().map(|field| field.data_type().clone()).collect();
                if let [of] = types.as_mut_slice()
                    && let Some(common) = of_moments(&[&membership.expr.get_type(schema)?, of])
                {
                    *of = common.clone();
                    membership.subquery = membership.subquery.with_plan(Arc::new(with_types(query, &types)?));
                    *membership.expr = cast(std::mem::take(membership.expr.as_mut()), common);
                }
                Transformed::yes(Expr::InSubquery(membership))
            }
            Expr::InList(mut list) => {
                compared([list.expr.as_mut()].into_iter().chain(&mut list.list).collect(), schema)?;
                as_compared([list.expr.as_mut()].into_iter().chain(&mut list.list).collect(), schema)?;
                by_length([list.expr.as_mut()].into_iter().chain(&mut list.list).collect(), schema)?;
                Transformed::yes(membership(list))
            }
            Expr::WindowFunction(mut call) => {
                arguments::tell_window(&mut call, schema)?;
                of_peers(&mut call, schema)?;
                let is_aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
                let known = usize::from(is_aggregate && call.fun.name() != "count");
                call.params.args.iter_mut().skip(known).for_each(as_planned);
                Transformed::yes(Expr::WindowFunction(call))
            }
            Expr::AggregateFunction(mut call) => {
                let known = usize::from(call.func.name() != "count");
                call.params.args.iter_mut().skip(known).for_each(as_planned);
                in_order_of_distinct(&mut call);
                Transformed::yes(Expr::AggregateFunction(call))
            }
            Expr::Case(of) => Transformed::yes(Expr::Case(case(of, schema)?)),
            Expr::ScalarFunction(mut call) if OF_ONE_TYPE.iter().any(|(name, _)| call.name() == *name) => {
                let what = OF_ONE_TYPE.iter().find(|(name, _)| call.name() == *name).map_or("", |(_, what)| what);
                of_one_type(what, call.args.iter_mut().collect(), schema)?;
                Transformed::yes(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(mut call) if call.name() == "nullif" && call.args.iter().any(is_open) => {
                compared(call.args.iter_mut().collect(), schema)?;
                Transformed::yes(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(call) if arguments::concerns(call.name()) => {
                Transformed::yes(arguments::as_meant(call, schema)?)
            }
            Expr::ScalarFunction(call) if matches!(call.name(), "struct" | "named_struct") => Transformed::yes(row(call)),
            Expr::ScalarFunction(call) if call.name() == "to_hex" => Transformed::yes(hexadecimal(call, schema)?),
            Expr::ScalarFunction(ref call) if COUNTS.contains(&call.name()) => Transformed::yes(cast(expr, DataType::Int32)),
            other => Transformed::no(other),
        })
    })?;
    with_lambdas_told(typed.data, schema)
}

/// What lambdas are given may be of another type by now. DataFusion looks into the lambdas of a call, and not into those of the values
/// that it is given.
fn with_lambdas_told(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let told = expr.transform_down(|expr| match expr {
        Expr::HigherOrderFunction(mut call) => {
            for value in call.args.iter_mut().filter(|argument| !matches!(argument, Expr::Lambda(_))) {
                *value = with_lambdas_told(std::mem::take(value), schema)?;
            }
            let call = Expr::HigherOrderFunction(call).resolve_lambda_variables(schema)?.data;
            Ok(Transformed::new(call, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(told.data)
}

/// The columns of `ROW(a, b)` and `(a, b)` are called f1, f2.
fn row(call: ScalarFunction) -> Expr {
    let name = |at: usize| lit(format!("f{at}"));
    let is_named = call.name() == "named_struct";
    let is_row =
        |at: usize, key: &Expr| matches!(key, Expr::Literal(ScalarValue::Utf8(Some(key)), _) if *key == format!("c{at}"));
    let values: Vec<Expr> = match is_named {
        // The planner's own names.
        true if call.args.chunks_exact(2).enumerate().all(|(at, pair)| is_row(at, &pair[0])) => {
            call.args.into_iter().skip(1).step_by(2).collect()
        }
        true => return Expr::ScalarFunction(call),
        false => call.args,
    };
    let members = (1..).zip(values).flat_map(|(at, value)| [name(at), value]).collect();
    datafusion::functions::core::named_struct().call(members)
}

/// `to_hex` of an `integer` shows 32 bits.
fn hexadecimal(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    for argument in &mut call.args {
        if matches!(argument.get_type(schema)?, DataType::Int16 | DataType::Int32) {
            *argument = common_bits(cast(std::mem::take(argument), DataType::Int64), lit(i64::from(u32::MAX)));
        }
    }
    Ok(Expr::ScalarFunction(call))
}

/// What counts rows is a `bigint` in what a query gives: ranks, GROUPING of many columns, approximate counts.
pub fn counts_as_bigint(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let counts = |field: &Field| *field.data_type() == DataType::UInt64;
    if !plan.schema().fields().iter().any(|field| counts(field)) {
        return Ok(plan);
    }
    let column = |(qualifier, field): (Option<&TableReference>, &FieldRef)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match counts(field) {
            true => cast(column, DataType::Int64).alias_qualified(qualifier.cloned(), field.name()),
            false => column,
        }
    };
    let columns: Vec<Expr> = plan.schema().iter().map(column).collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Constants stay a list, all else is compared by itself: of a list of others DataFusion forgets the NULLs when a constant is before
/// IN, and takes what answers a batch without rows with a constant, as CASE does, for one.
fn membership(mut list: InList) -> Expr {
    let (others, constants) = std::mem::take(&mut list.list).into_iter().partition::<Vec<_>, _>(Expr::any_column_refs);
    if others.is_empty() || list.expr.is_volatile() {
        return Expr::InList(InList { list: constants.into_iter().chain(others).collect(), ..list });
    }
    let InList { expr, negated, .. } = list;
    let equal = others.into_iter().map(|other| expr.as_ref().clone().eq(other)).collect::<Vec<_>>();
    let listed = (!constants.is_empty()).then(|| expr.in_list(constants, false));
    let any = disjunction(listed.into_iter().chain(equal)).unwrap_or_else(|| lit(false));
    if negated { Expr::Not(Box::new(any)) } else { any }
}

/// What is compared with each other, and the strings beside it, as the type that the operators take ([`compared_as`]).
fn as_compared(parts: Vec<&mut Expr>, schema: &DFSchema) -> DfResult<()> {
    let typed = parts.iter().filter(|part| !is_string(part)).map(|part| part.get_type(schema));
    let typed = typed.collect::<DfResult<Vec<_>>>()?;
    let Some(common) = compared_as(&typed.iter().collect::<Vec<_>>()) else { return Ok(()) };
    for part in parts {
        let value = std::mem::take(part);
        *part = match value {
            value if is_string(&value) => converted(value, common.clone())?,
            value if value.get_type(schema)? == common => value,
            value => cast(value, common.clone()),
        };
    }
    Ok(())
}

/// What PostgreSQL finds the distinct values by is a sort, and users see it.
fn in_order_of_distinct(call: &mut AggregateFunction) {
    if call.params.distinct
        && call.params.order_by.is_empty()
        && ["array_agg", "string_agg"].contains(&call.func.name())
        && let Some(value) = call.params.args.first()
    {
        call.params.order_by = vec![Sort::new(value.clone(), true, false)];
    }
}

/// A frame of RANGE without distances is one of GROUPS, and that DataFusion has for values of all types.
fn of_peers(call: &mut WindowFunction, schema: &DFSchema) -> DfResult<()> {
    let frame = &call.params.window_frame;
    let is_plain = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => by.is_null(),
    };
    if frame.units != WindowFrameUnits::Range || !is_plain(&frame.start_bound) || !is_plain(&frame.end_bound) {
        return Ok(());
    }
    let Some(first) = call.params.order_by.first() else { return Ok(()) };
    let of = first.expr.get_type(schema)?;
    let is_known = |of: &DataType| {
        use DataType as D;
        of.is_numeric() || of.is_string() || matches!(of, D::Null | D::Boolean | D::List(_) | D::Timestamp(..) | D::Date32)
    };
    if !is_known(&of) {
        let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
        call.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    }
    Ok(())
}

/// Functions that give an `integer`.
const COUNTS: [&str; 6] = ["array_length", "array_ndims", "array_position", "cardinality", "regexp_count", "regexp_instr"];

/// CASE with results of their common type.
fn case(mut case: Case, schema: &DFSchema) -> DfResult<Case> {
    if case.expr.is_none() {
        for (when, _) in &mut case.when_then_expr {
            truth("CASE/WHEN", when, schema)?;
        }
    }
    if let Some(value) = &mut case.expr {
        let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
        compared([value.as_mut()].into_iter().chain(whens).collect(), schema)?;
        let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
        as_compared([value.as_mut()].into_iter().chain(whens).collect(), schema)?;
    }
    let mut results: Vec<&mut Expr> = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut()).collect();
    results.extend(case.else_expr.iter_mut().map(|other| other.as_mut()));
    of_one_type("CASE", results, schema)?;
    Ok(case)
}

/// Functions whose arguments are one type's, and what PostgreSQL calls them.
const OF_ONE_TYPE: [(&str, &str); 4] =
    [("coalesce", "COALESCE"), ("greatest", "GREATEST"), ("least", "LEAST"), ("make_array", "ARRAY")];

/// DataFusion looks at some arguments as literals of the type that it gave them.
fn as_planned(argument: &mut Expr) {
    if let Expr::Literal(value @ ScalarValue::Int32(Some(_)), _) = argument
        && let Ok(long) = value.cast_to(&DataType::Int64)
    {
        *value = long;
    }
}

/// A cast that is none of SQL's, so that it stays what it is to Arrow.
pub(super) fn plain_cast(expr: Expr, to: DataType) -> Expr {
    let field = types::with_type(Field::new("", to, true), types::INTERNAL);
    Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(field)))
}

fn meant(cast: Cast, schema: &DFSchema) -> DfResult<Expr> {
    let Ok(from) = cast.expr.get_type(schema) else { return Ok(Expr::Cast(cast)) };
    let to = cast.field.data_type().clone();
    let declared = cast.field.metadata().get(types::PG_TYPE);
    if is_open(&cast.expr) || declared.is_some_and(|name| name == types::INTERNAL || name == "oid") {
        return Ok(Expr::Cast(cast));
    }
    if declared.is_some() {
        let plain = Cast::new(cast.expr, to);
        return Ok(Expr::Cast(Cast::new_from_field(Box::new(meant(plain, schema)?), cast.field)));
    }
    if !exists(&from, &to) {
        let (from, to) = (types::plain_name(&from), types::plain_name(&to));
        return Err(Error::undefined_cast(format!("cannot cast type {from} to {to}")).into());
    }
    if let (DataType::Struct(old), DataType::Struct(new)) = (&from, &to)
        && old.len() == new.len()
        && old.iter().zip(new).any(|(old, new)| old.name() != new.name())
    {
        return by_place(*cast.expr, old, new, schema);
    }
    if to == types::NUMERIC {
        return Ok(match from {
            DataType::Decimal128(..) => *cast.expr,
            DataType::Utf8 => numeric_literal(*cast.expr)?,
            DataType::Int16 => Expr::Cast(Cast::new(cast.expr, DataType::Decimal128(5, 0))),
            DataType::Int32 => Expr::Cast(Cast::new(cast.expr, DataType::Decimal128(10, 0))),
            DataType::Int64 => Expr::Cast(Cast::new(cast.expr, DataType::Decimal128(20, 0))),
            _ => converted(*cast.expr, to)?,
        });
    }
    if differs(&from, &to) {
        return Ok(converted(*cast.expr, to)?);
    }
    Ok(Expr::Cast(cast))
}

/// A row whose fields have other names: the first is the first.
fn by_place(row: Expr, old: &Fields, new: &Fields, schema: &DFSchema) -> DfResult<Expr> {
    let mut members = Vec::with_capacity(2 * new.len());
    for (old, new) in old.iter().zip(new) {
        let field = datafusion::functions::core::expr_fn::get_field(row.clone(), old.name().as_str());
        members.extend([lit(new.name().as_str()), meant(Cast::new(Box::new(field), new.data_type().clone()), schema)?]);
    }
    when(row.is_not_null(), datafusion::functions::core::named_struct().call(members)).end()
}

/// Does PostgreSQL have a cast between the types? What it has no such type for is left to DataFusion.
fn exists(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let is_number = |t: &DataType| t.is_numeric();
    let is_moment = |t: &DataType| matches!(t, D::Date32 | D::Timestamp(..) | D::Time64(_) | D::Interval(_));
    match (from, to) {
        (D::Boolean, to) if is_number(to) => to == &D::Int32,
        (from, D::Boolean) if is_number(from) => from == &D::Int32,
        (from, to) if is_number(from) && is_moment(to) || is_moment(from) && is_number(to) => false,
        (D::Boolean, to) if is_moment(to) => false,
        (from, D::Boolean) if is_moment(from) => false,
        _ => true,
    }
}
