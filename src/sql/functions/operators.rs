//! Operators whose meaning DataFusion leaves to others, or that PostgreSQL gives more of.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF, cast};
use sqlparser::ast::BinaryOperator;

/// `->` and `->>` of JSON; intervals times numbers; a literal beside a boolean is one. The work is done by the functions that
/// PostgreSQL has for these operators.
#[derive(Debug)]
pub struct Operators {
    get: Arc<ScalarUDF>,
    get_text: Arc<ScalarUDF>,
    interval_times: Arc<ScalarUDF>,
    interval_divided: Arc<ScalarUDF>,
}

impl Operators {
    /// `function` finds a function by its name.
    pub fn new(function: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Option<Operators> {
        Some(Operators {
            get: function("json_get")?,
            get_text: function("json_get_text")?,
            interval_times: function("interval_mul")?,
            interval_divided: function("interval_div")?,
        })
    }

    /// `interval * number`, `number * interval` and `interval / number`, of which DataFusion knows no more than the type.
    fn scaled_interval(&self, expr: &RawBinaryExpr, schema: &DFSchema) -> DfResult<Option<Expr>> {
        let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        let is_interval = |side: &DataType| matches!(side, DataType::Interval(_));
        let (function, interval, number) = match expr.op {
            BinaryOperator::Multiply if is_interval(&left) && right.is_numeric() => {
                (&self.interval_times, &expr.left, &expr.right)
            }
            BinaryOperator::Multiply if left.is_numeric() && is_interval(&right) => {
                (&self.interval_times, &expr.right, &expr.left)
            }
            BinaryOperator::Divide if is_interval(&left) && right.is_numeric() => {
                (&self.interval_divided, &expr.left, &expr.right)
            }
            _ => return Ok(None),
        };
        Ok(Some(function.call(vec![interval.clone(), cast(number.clone(), DataType::Float64)])))
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow => &self.get,
            BinaryOperator::LongArrow => &self.get_text,
            BinaryOperator::Multiply | BinaryOperator::Divide => {
                let scaled = self.scaled_interval(&expr, schema)?;
                return Ok(scaled.map_or(PlannerResult::Original(expr), PlannerResult::Planned));
            }
            _ => return Ok(PlannerResult::Original(beside_booleans(expr, schema))),
        };
        Ok(PlannerResult::Planned(function.call(vec![expr.left, expr.right])))
    }
}

/// `indisprimary = 't'`.
fn beside_booleans(mut expr: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let is_boolean = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type == DataType::Boolean);
    let (left, right) = (expr.left.clone(), expr.right.clone());
    for (literal, other) in [(&mut expr.left, &right), (&mut expr.right, &left)] {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &*literal else { continue };
        if let Some(value) = boolean(text).filter(|_| is_boolean(other)) {
            *literal = Expr::Literal(ScalarValue::Boolean(Some(value)), None);
        }
    }
    expr
}

fn boolean(text: &str) -> Option<bool> {
    crate::copy::value::parse_bool(text.trim_ascii().as_bytes()).ok()
}
