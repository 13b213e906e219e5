//! What a session's settings change in a query: between `timestamptz` and all that has no zone stands the session's clock.
//!
//! | planned | becomes |
//! | --- | --- |
//! | a cast between `timestamptz` and timestamps, dates, times, text | [`convert`] by that clock |
//! | `extract`, `to_char`, `to_json`, … of a `timestamptz` | the same of a value whose type names the zone that it is seen in |
//! | `date_trunc(field, instant)`, `make_timestamptz(…)` | with the zone as one more argument |
//! | `instant + interval` | whole months and days by that clock ([`shifted`]) |
//!
//! It is done where a session's query runs, once types are known, so a prepared statement and a plain view follow the setting. What
//! is stored or runs on (views, subscriptions, defaults, watermarks) never comes here, and goes by UTC.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::dialect::map_expressions;
use crate::copy::value::Formats;
use crate::error::Result;
use crate::sql::functions::convert::{self, converted_in, depends_on_formats};
use crate::sql::functions::zones::{instants, shifted};
use crate::sql::system;

/// The plan as it means what the session's settings say.
pub fn in_session(formats: Formats, plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    if formats.are_usual() {
        return Ok(plan);
    }
    // Casts that nobody wrote stand there, too.
    let plan = TypeCoercion::new().analyze(plan, state.config_options())?;
    let meant = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Extension(_) | LogicalPlan::Limit(_) => Ok(Transformed::no(node)),
        node => {
            let schema = merge_schema(&node.inputs());
            map_expressions(node, |expr| expression(expr, &schema, formats))
        }
    })?;
    Ok(meant.data)
}

/// The same of an expression.
pub fn expression_in_session(formats: Formats, expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if formats.are_usual() {
        return Ok(expr);
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    Ok(expression(simplifier.coerce(expr, schema)?, schema, formats)?.data)
}

/// The same of an expression whose types are settled.
fn expression(expr: Expr, schema: &DFSchema, formats: Formats) -> DfResult<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Cast(cast) => by_clock(cast, schema, formats),
        Expr::BinaryExpr(sum) => moved(sum, schema, formats),
        Expr::ScalarFunction(call) => called(call, schema, formats),
        other => Ok(Transformed::no(other)),
    })
}

/// A cast, unless it is one that keeps the number of microseconds.
fn by_clock(cast: Cast, schema: &DFSchema, formats: Formats) -> DfResult<Transformed<Expr>> {
    let from = cast.expr.get_type(schema)?;
    let to = cast.field.data_type();
    if !cast.field.metadata().is_empty() || !depends_on_formats(&from, to) {
        return Ok(Transformed::no(Expr::Cast(cast)));
    }
    let to = to.clone();
    Ok(Transformed::yes(converted_in(*cast.expr, to, formats)?))
}

fn moved(sum: BinaryExpr, schema: &DFSchema, formats: Formats) -> DfResult<Transformed<Expr>> {
    use DataType as D;
    let types = (sum.left.get_type(schema)?, sum.right.get_type(schema)?);
    let (instant, interval, back) = match (&sum.op, &types) {
        (Operator::Plus, (D::Timestamp(_, Some(_)), D::Interval(_))) => (sum.left, sum.right, false),
        (Operator::Plus, (D::Interval(_), D::Timestamp(_, Some(_)))) => (sum.right, sum.left, false),
        (Operator::Minus, (D::Timestamp(_, Some(_)), D::Interval(_))) => (sum.left, sum.right, true),
        _ => return Ok(Transformed::no(Expr::BinaryExpr(sum))),
    };
    let instant = converted_in(*instant, instants(), formats)?;
    Ok(Transformed::yes(shifted(instant, *interval, back, formats.zone)))
}

fn called(mut call: ScalarFunction, schema: &DFSchema, formats: Formats) -> DfResult<Transformed<Expr>> {
    let zone = formats.zone;
    match (call.name(), call.args.len()) {
        ("convert", 1) => return Ok(Transformed::yes(convert::in_session(Expr::ScalarFunction(call), formats)?)),
        ("make_timestamptz", 6) => {
            call.args.push(lit(zone.to_string()));
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
        ("date_trunc", 2) if matches!(call.args[1].get_type(schema)?, DataType::Timestamp(_, Some(_)) | DataType::Date32) => {
            call.args[1] = converted_in(std::mem::take(&mut call.args[1]), instants(), formats)?;
            call.args.push(lit(zone.to_string()));
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
        (name, _) if !["extract", "date_part"].contains(&name) && !system::is_function(name) => {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        _ => {}
    }
    let mut is_seen = false;
    for argument in &mut call.args {
        let from = argument.get_type(schema)?;
        let to = zone.typed(&from);
        if from != to {
            *argument = converted_in(std::mem::take(argument), to, formats)?;
            is_seen = true;
        }
    }
    Ok(Transformed::new_transformed(Expr::ScalarFunction(call), is_seen))
}
