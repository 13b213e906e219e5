//! An interval times a number: DataFusion's planner knows the types of it, but nothing computes it. The work is done by the
//! functions that PostgreSQL has for these operators.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ExprSchemable, ScalarUDF, cast};
use sqlparser::ast::BinaryOperator;

/// Names of the functions for `*` and `/`.
pub const TIMES: &str = "interval_mul";
pub const DIVIDED: &str = "interval_div";

/// Plans `interval * number`, `number * interval` and `interval / number`.
#[derive(Debug)]
pub struct IntervalArithmetic {
    times: Arc<ScalarUDF>,
    divided: Arc<ScalarUDF>,
}

impl IntervalArithmetic {
    /// Over the functions that are registered.
    pub fn new(registry: &dyn FunctionRegistry) -> DfResult<IntervalArithmetic> {
        Ok(IntervalArithmetic { times: registry.udf(TIMES)?, divided: registry.udf(DIVIDED)? })
    }
}

impl ExprPlanner for IntervalArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Multiply => &self.times,
            BinaryOperator::Divide => &self.divided,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_interval = |side: &DataType| matches!(side, DataType::Interval(_));
        let is_number = |side: &DataType| side.is_numeric();
        let types = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        let (interval, number) = match types {
            (left, right) if is_interval(&left) && is_number(&right) => (expr.left, expr.right),
            (left, right) if is_number(&left) && is_interval(&right) && expr.op == BinaryOperator::Multiply => {
                (expr.right, expr.left)
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(function.call(vec![interval, cast(number, DataType::Float64)])))
    }
}
