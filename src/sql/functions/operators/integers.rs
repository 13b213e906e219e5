//! `+`, `-`, `*`, `&`, `|` and `#` of integers: of the wider type, and an error where the result has no room in it.
//!
//! Arrow would wrap; and of bits, DataFusion's simplifier takes `-x` for the bits that are not in `x`, and NULL for 0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Int64Array};
use arrow::compute::cast;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use sqlparser::ast::BinaryOperator as B;

use crate::error::Error;
use crate::sql::functions::convert::out_of_range;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Plus,
    Minus,
    Times,
    And,
    Or,
    Xor,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

/// `None` for other operators: a quotient of integers is one already.
pub(super) fn plan(expr: &RawBinaryExpr) -> Option<Expr> {
    let operation = match expr.op {
        B::Plus => Operation::Plus,
        B::Minus => Operation::Minus,
        B::Multiply => Operation::Times,
        B::BitwiseAnd => Operation::And,
        B::BitwiseOr => Operation::Or,
        B::BitwiseXor | B::PGBitwiseXor => Operation::Xor,
        _ => return None,
    };
    Some(checked(operation, expr.left.clone(), expr.right.clone()))
}

/// The bits that both have.
pub fn common_bits(left: Expr, right: Expr) -> Expr {
    checked(Operation::And, left, right)
}

fn checked(operation: Operation, left: Expr, right: Expr) -> Expr {
    let checked = Checked { operation, signature: Signature::user_defined(Volatility::Immutable) };
    ScalarUDF::new_from_impl(checked).call(vec![left, right])
}

fn wider(types: &[DataType]) -> DataType {
    let width = |of: &DataType| match of {
        DataType::Int16 => 2,
        DataType::Int32 => 4,
        _ => 8,
    };
    match types.iter().map(width).max() {
        Some(2) => DataType::Int16,
        Some(4) => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// Both are of one type.
fn bits(a: &dyn Datum, b: &dyn Datum, op: fn(i64, i64) -> i64) -> Result<ArrayRef, ArrowError> {
    let ((left, left_is_one), (right, right_is_one)) = (a.get(), b.get());
    let rows = if left_is_one { right.len() } else { left.len() };
    let (lefts, rights) = (cast(left, &DataType::Int64)?, cast(right, &DataType::Int64)?);
    let (lefts, rights) = (lefts.as_primitive::<Int64Type>(), rights.as_primitive::<Int64Type>());
    let value = |of: &Int64Array, is_one: bool, row: usize| {
        let row = if is_one { 0 } else { row };
        of.is_valid(row).then(|| of.value(row))
    };
    let result = (0..rows).map(|row| Some(op(value(lefts, left_is_one, row)?, value(rights, right_is_one, row)?)));
    cast(&result.collect::<Int64Array>(), left.data_type())
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Plus => "integer_plus",
            Operation::Minus => "integer_minus",
            Operation::Times => "integer_times",
            Operation::And => "integer_and",
            Operation::Or => "integer_or",
            Operation::Xor => "integer_xor",
        }
    }

    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        let sign = match self.operation {
            Operation::Plus => '+',
            Operation::Minus => '-',
            Operation::Times => '*',
            Operation::And => '&',
            Operation::Or => '|',
            Operation::Xor => '#',
        };
        Ok(super::infix(arguments, sign))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(vec![wider(types); types.len()])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(wider(types))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let compute = |a: &dyn Datum, b: &dyn Datum| -> DfResult<ArrayRef> {
            let result = match self.operation {
                Operation::Plus => numeric::add(a, b),
                Operation::Minus => numeric::sub(a, b),
                Operation::Times => numeric::mul(a, b),
                Operation::And => bits(a, b, |a, b| a & b),
                Operation::Or => bits(a, b, |a, b| a | b),
                Operation::Xor => bits(a, b, |a, b| a ^ b),
            };
            result.map_err(|error| match error {
                ArrowError::ArithmeticOverflow(_) => out_of_range(args.return_field.data_type()).into(),
                other => other.into(),
            })
        };
        match args.args.as_slice() {
            [ColumnarValue::Array(a), ColumnarValue::Array(b)] => Ok(ColumnarValue::Array(compute(a, b)?)),
            [ColumnarValue::Array(a), ColumnarValue::Scalar(b)] => Ok(ColumnarValue::Array(compute(a, &b.to_scalar()?)?)),
            [ColumnarValue::Scalar(a), ColumnarValue::Array(b)] => Ok(ColumnarValue::Array(compute(&a.to_scalar()?, b)?)),
            [ColumnarValue::Scalar(a), ColumnarValue::Scalar(b)] => {
                let result: ArrayRef = compute(&Arc::clone(&a.to_array()?), &Arc::clone(&b.to_array()?))?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
            _ => Err(Error::internal("an operation has two operands").into()),
        }
    }
}
