//! Operators whose meaning DataFusion leaves to others, or that PostgreSQL gives more of.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use sqlparser::ast::BinaryOperator;

/// `->` and `->>` of JSON; a literal beside a boolean is one.
#[derive(Debug)]
pub struct Operators {
    get: Arc<ScalarUDF>,
    get_text: Arc<ScalarUDF>,
}

impl Operators {
    /// `function` finds a function by its name.
    pub fn new(function: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Option<Operators> {
        Some(Operators { get: function("json_get")?, get_text: function("json_get_text")? })
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let function = match op {
            BinaryOperator::Arrow => &self.get,
            BinaryOperator::LongArrow => &self.get_text,
            _ => return Ok(PlannerResult::Original(beside_booleans(RawBinaryExpr { op, left, right }, schema))),
        };
        let call = ScalarFunction::new_udf(Arc::clone(function), vec![left, right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
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
