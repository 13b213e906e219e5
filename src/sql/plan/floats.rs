//! Values that are equal or ordered otherwise than Arrow has it: floats, and intervals.
//!
//! -0 and 0 are equal to SQL, and every NaN to every other. Arrow tells them apart by their bits, where DataFusion does not see to it, and so do the operators of continuous plans. So what
//! rows are grouped, joined, ordered and told apart by is brought to one of the equal values first, where it is a float:
//!
//! | planned | becomes |
//! | --- | --- |
//! | GROUP BY x, `count(DISTINCT x)`, PARTITION BY x, ORDER BY x, DISTINCT | of `canonical(x)` |
//! | `a.x = b.x`, `a.x IN (SELECT b.x …)`, USING (x) | `canonical(a.x) = canonical(b.x)` |
//! | `-x > 1`, `-x IN (0, 1)` | `canonical(-x) > 1`, …; a column beside constants is DataFusion's affair |
//! | `nullif(x, y)`, `CASE x WHEN y` | by comparing `canonical(x)` with `canonical(y)`; results stay what they are |
//!
//! Intervals are as long as they are, a month as 30 days; Arrow compares their months first. So ORDER BY, PARTITION BY, the keys of joins
//! and `count(DISTINCT i)` go by [`length`]. What shows one of the equal intervals stays with that: GROUP BY, DISTINCT, `min`.
//!
//! A plan without either is not touched. Arrays of floats are compared by their bits.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Case, InSubquery, Sort, WindowFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, WindowFrameBound, WindowFrameUnits,
};

use super::dialect::map_expressions;
use crate::error::Error;
use crate::sql::functions::operators::moments::length;

/// The plan, with floats that are equal as equal keys.
pub(super) fn as_keys(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let keyed = plan.transform_up_with_subqueries(|node| {
        if !has_keys(&node) {
            return Ok(Transformed::no(node));
        }
        let node = match node {
            LogicalPlan::Distinct(Distinct::All(input)) => LogicalPlan::Distinct(Distinct::All(canonical_columns(&input)?)),
            LogicalPlan::Aggregate(aggregate) if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
                let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
                LogicalPlan::Aggregate(Aggregate::try_new(canonical_columns(&input)?, group_expr, aggr_expr)?)
            }
            node => node,
        };
        if matches!(node, LogicalPlan::Extension(_) | LogicalPlan::Limit(_)) {
            return Ok(Transformed::yes(node));
        }
        let schema = merge_schema(&node.inputs());
        let is_key = matches!(node, LogicalPlan::Aggregate(_));
        let mut node = map_expressions(node, |expr| {
            let expr = expression(expr, &schema)?;
            let is_group = is_key && !matches!(expr.clone().unalias(), Expr::AggregateFunction(_) | Expr::GroupingSet(_));
            Ok(Transformed::yes(if is_group { float_key(expr, &schema)? } else { expr }))
        })?
        .data;
        match &mut node {
            LogicalPlan::Sort(sort) => order(&mut sort.expr, &schema)?,
            LogicalPlan::Distinct(Distinct::On(on)) => {
                for expr in &mut on.on_expr {
                    *expr = key(std::mem::take(expr), &schema)?;
                }
                on.sort_expr.iter_mut().try_for_each(|sorted| order(sorted, &schema))?;
            }
            LogicalPlan::Join(join) => {
                for (left, right) in &mut join.on {
                    *left = key(std::mem::take(left), &schema)?;
                    *right = key(std::mem::take(right), &schema)?;
                }
            }
            _ => {}
        }
        Ok(Transformed::yes(node))
    })?;
    Ok(keyed.data)
}

/// Does a float or an interval come in, or is one made?
fn has_keys(node: &LogicalPlan) -> bool {
    let is_key = |of: &DataType| of.is_floating() || matches!(of, DataType::Interval(_));
    let any = |schema: &DFSchema| schema.fields().iter().any(|field| is_key(field.data_type()));
    let computes = || {
        let mut found = false;
        let visited = node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= match expr {
                    Expr::Cast(cast) => is_key(cast.field.data_type()),
                    Expr::Literal(value, _) => is_key(&value.data_type()),
                    Expr::ScalarFunction(_) | Expr::ScalarSubquery(_) | Expr::InSubquery(_) => true,
                    _ => false,
                };
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            })
        });
        found || visited.is_err()
    };
    node.inputs().iter().any(|input| any(input.schema())) || computes()
}

/// The same for an expression over columns.
pub(super) fn expression(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let keyed = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
                let both = left.as_literal().is_none() && right.as_literal().is_none();
                let side = |side: Box<Expr>| match both || is_computed(&side) {
                    true => float_key(*side, schema).map(Box::new),
                    false => Ok(side),
                };
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: side(left)?, op, right: side(right)? }))
            }
            Expr::InList(mut list) if is_computed(&list.expr) => {
                *list.expr = float_key(std::mem::take(&mut *list.expr), schema)?;
                Transformed::yes(Expr::InList(list))
            }
            Expr::Between(mut between) if is_computed(&between.expr) => {
                *between.expr = float_key(std::mem::take(&mut *between.expr), schema)?;
                Transformed::yes(Expr::Between(between))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) if is_float(&expr, schema)? => {
                let subquery = Subquery { subquery: canonical_columns(&subquery.subquery)?, ..subquery };
                let expr = Box::new(key(*expr, schema)?);
                Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated }))
            }
            Expr::Case(Case { expr: Some(of), mut when_then_expr, else_expr }) if is_float(&of, schema)? => {
                for (when, _) in &mut when_then_expr {
                    **when = key(std::mem::take(&mut **when), schema)?;
                }
                Transformed::yes(Expr::Case(Case { expr: Some(Box::new(key(*of, schema)?)), when_then_expr, else_expr }))
            }
            Expr::ScalarFunction(ref call) if call.name() == "nullif" => match call.args.as_slice() {
                [value, other] if is_float(value, schema)? || is_float(other, schema)? => {
                    let null = Expr::Literal(ScalarValue::try_from(&value.get_type(schema)?)?, None);
                    let equal = key(value.clone(), schema)?.eq(key(other.clone(), schema)?);
                    let when_then_expr = vec![(Box::new(equal), Box::new(null))];
                    let else_expr = Some(Box::new(value.clone()));
                    Transformed::yes(Expr::Case(Case { expr: None, when_then_expr, else_expr }))
                }
                _ => Transformed::no(expr),
            },
            Expr::AggregateFunction(AggregateFunction { func, mut params }) if params.distinct => {
                let is_count = func.name() == "count";
                for argument in &mut params.args {
                    let value = std::mem::take(argument);
                    *argument = if is_count { key(value, schema)? } else { float_key(value, schema)? };
                }
                // As its arguments are: DISTINCT is sorted by them.
                for sort in &mut params.order_by {
                    sort.expr = float_key(std::mem::take(&mut sort.expr), schema)?;
                }
                Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
            }
            Expr::AggregateFunction(AggregateFunction { func, mut params }) if !params.order_by.is_empty() => {
                for sort in params.order_by.iter_mut().filter(|sort| is_interval(&sort.expr, schema)) {
                    sort.expr = key(std::mem::take(&mut sort.expr), schema)?;
                }
                Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params }))
            }
            Expr::WindowFunction(call) => {
                let WindowFunction { fun, mut params } = *call;
                for partition in &mut params.partition_by {
                    *partition = key(std::mem::take(partition), schema)?;
                }
                // A bound so far away is of the type that is sorted by.
                let frame = &params.window_frame;
                let bounds = [&frame.start_bound, &frame.end_bound];
                let has_distance = frame.units == WindowFrameUnits::Range
                    && bounds.iter().any(|bound| match bound {
                        WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => !by.is_null(),
                        WindowFrameBound::CurrentRow => false,
                    });
                for sort in &mut params.order_by {
                    let by = std::mem::take(&mut sort.expr);
                    sort.expr = if has_distance { float_key(by, schema)? } else { key(by, schema)? };
                }
                Transformed::yes(Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(keyed.data)
}

fn order(sorted: &mut [Sort], schema: &DFSchema) -> DfResult<()> {
    for sort in sorted {
        sort.expr = key(std::mem::take(&mut sort.expr), schema)?;
    }
    Ok(())
}

/// The same rows, their floats canonical.
fn canonical_columns(input: &Arc<LogicalPlan>) -> DfResult<Arc<LogicalPlan>> {
    if !input.schema().fields().iter().any(|field| field.data_type().is_floating()) {
        return Ok(Arc::clone(input));
    }
    let column = |column: datafusion::common::Column| {
        let expr = Expr::Column(column.clone());
        Ok(match is_float(&expr, input.schema())? {
            true => float_key(expr, input.schema())?.alias_qualified(column.relation, column.name),
            false => expr,
        })
    };
    let columns = input.schema().columns().into_iter().map(column).collect::<DfResult<Vec<_>>>()?;
    Ok(Arc::new(LogicalPlanBuilder::new_from_arc(Arc::clone(input)).project(columns)?.build()?))
}

fn is_float(expr: &Expr, schema: &DFSchema) -> DfResult<bool> {
    Ok(expr.get_type(schema)?.is_floating())
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

/// Is it something else than what is stored or written?
fn is_computed(expr: &Expr) -> bool {
    !matches!(expr, Expr::Column(_) | Expr::Literal(..) | Expr::Placeholder(_) | Expr::OuterReferenceColumn(..))
}

/// What a value is equal or ordered by.
fn key(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match expr.get_type(schema)? {
        DataType::Interval(_) if !matches!(expr, Expr::Placeholder(_)) => Ok(length(expr)),
        _ => float_key(expr, schema),
    }
}

/// A float as the one that stands for all that are equal to it. What is known to be one is left alone.
fn float_key(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let is_one = match &expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => value.to_bits() == one_of_equals(*value).to_bits(),
        Expr::Placeholder(_) => true,
        Expr::Cast(cast) => cast.expr.get_type(schema).is_ok_and(|from| from.is_integer()),
        Expr::ScalarFunction(call) => call.func.inner().is::<Canonical>(),
        _ => false,
    };
    if is_one || !is_float(&expr, schema)? {
        return Ok(expr);
    }
    Ok(ScalarUDF::new_from_impl(Canonical { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr]))
}

fn one_of_equals(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// It is no function of SQL: the planner puts it where floats are keys.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("a key has a value").into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let canonical = |values: &ArrayRef| -> ArrayRef {
            match values.data_type() {
                DataType::Float32 => {
                    let values = values.as_primitive::<Float32Type>();
                    let keys: PrimitiveArray<Float32Type> = values.unary(|v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 });
                    Arc::new(keys)
                }
                DataType::Float64 => {
                    let keys: PrimitiveArray<Float64Type> = values.as_primitive::<Float64Type>().unary(one_of_equals);
                    Arc::new(keys)
                }
                _ => Arc::clone(values),
            }
        };
        match args.args.as_slice() {
            [ColumnarValue::Scalar(value)] => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&canonical(&value.to_array()?), 0)?))
            }
            [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(canonical(values))),
            _ => Err(Error::internal("a key is of one value").into()),
        }
    }
}
