//! `numeric / numeric`: rounded, halves away from zero.
//!
//! PostgreSQL chooses the decimals of each quotient by its size, at least 16 significant digits. A column of ours has one scale
//! for all its values: 16 decimals, or as many as the operands have if those are more. Of two literals the quotient is known,
//! and has PostgreSQL's own scale.

use arrow::array::{Array, AsArray, Decimal128Array, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::decimal::divided;
use crate::error::{Error, Result};
use crate::sql::types::MAX_PRECISION;

/// Decimals of a quotient, at least.
pub const QUOTIENT_SCALE: i8 = 16;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quotient {
    signature: Signature,
}

/// `None` where the digits are more than we divide.
pub(super) fn quotient(left: &Expr, right: &Expr, a: &DataType, b: &DataType) -> Result<Option<Expr>> {
    if matches!(a, DataType::Decimal256(..)) || matches!(b, DataType::Decimal256(..)) {
        return Ok(None);
    }
    if let (Some(left), Some(right)) = (literal(left), literal(right)) {
        let scale = left.quotient_scale(right);
        let value = divided(left.value, i32::from(left.scale), right.value, i32::from(right.scale), i32::from(scale))?;
        return Ok(Some(Expr::Literal(ScalarValue::Decimal128(Some(value), MAX_PRECISION, scale), None)));
    }
    let signature = Signature::user_defined(Volatility::Immutable);
    Ok(Some(ScalarUDF::new_from_impl(Quotient { signature }).call(vec![left.clone(), right.clone()])))
}

#[derive(Clone, Copy)]
struct Number {
    value: i128,
    scale: i8,
}

fn literal(expr: &Expr) -> Option<Number> {
    let Expr::Literal(value, _) = expr else { return None };
    Some(match value {
        ScalarValue::Int32(Some(value)) => Number { value: i128::from(*value), scale: 0 },
        ScalarValue::Int64(Some(value)) => Number { value: i128::from(*value), scale: 0 },
        ScalarValue::Decimal128(Some(value), _, scale) => Number { value: *value, scale: *scale },
        _ => return None,
    })
}

impl Number {
    /// The first of its digits to the base 10,000, and that digit's place: 0 is that of the ones.
    fn first_digit(self) -> (i32, i32) {
        let digits = self.value.unsigned_abs().to_string();
        let places = i32::try_from(digits.len()).unwrap_or(0) - i32::from(self.scale);
        if self.value == 0 {
            return (0, 0);
        }
        let place = (places - 1).div_euclid(4);
        let count = usize::try_from(places - 4 * place).unwrap_or(0);
        let first = (0..count).fold(0, |sum, at| sum * 10 + digits.as_bytes().get(at).map_or(0, |digit| i32::from(digit - b'0')));
        (first, place)
    }

    /// As PostgreSQL chooses it: 16 significant digits, and no fewer decimals than either operand.
    fn quotient_scale(self, by: Number) -> i8 {
        let ((first, place), (by_first, by_place)) = (self.first_digit(), by.first_digit());
        let place = place - by_place - i32::from(first <= by_first);
        let wanted = (i32::from(QUOTIENT_SCALE) - 4 * place).max(i32::from(self.scale)).max(i32::from(by.scale)).max(0);
        let room = i32::from(MAX_PRECISION) - (4 * place + 4).max(0);
        i8::try_from(wanted.min(room)).unwrap_or(QUOTIENT_SCALE)
    }
}

fn operand(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Decimal128(..) => data_type.clone(),
        _ => DataType::Decimal128(20, 0),
    }
}

fn scale(data_type: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 }
}

impl ScalarUDFImpl for Quotient {
    fn name(&self) -> &str {
        "numeric_div"
    }

    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        Ok(super::infix(arguments, '/'))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.iter().map(operand).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let scale = types.iter().map(scale).max().unwrap_or(0).max(QUOTIENT_SCALE);
        Ok(DataType::Decimal128(MAX_PRECISION, scale))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b] = arrays.as_slice() else { return Err(Error::internal("a quotient is of two numbers").into()) };
        let to = i32::from(scale(args.return_field.data_type()));
        let (from, by) = (i32::from(scale(a.data_type())), i32::from(scale(b.data_type())));
        let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
        let value = |row: usize| match a.is_null(row) || b.is_null(row) {
            true => Ok(None),
            false => divided(a.value(row), from, b.value(row), by, to).map(Some),
        };
        let values = (0..a.len()).map(value).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
        let values: Decimal128Array = values.with_data_type(args.return_field.data_type().clone());
        values
            .validate_decimal_precision(MAX_PRECISION)
            .map_err(|_| Error::numeric_out_of_range("a quotient exceeds 38 digits"))?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)),
            false => Ok(ColumnarValue::Array(std::sync::Arc::new(values))),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case((10, 1), (3, 0), "0.33333333333333333333")]
    #[case((100, 1), (3, 0), "3.3333333333333333")]
    #[case((1_000_000, 1), (3, 0), "33333.333333333333")]
    #[case((1, 3), (3, 0), "0.00033333333333333333")]
    #[case((20, 1), (3, 0), "0.66666666666666666667")]
    #[case((-20, 1), (3, 0), "-0.66666666666666666667")]
    #[case((60, 1), (2, 0), "3.0000000000000000")]
    fn quotients_of_literals(#[case] a: (i128, i8), #[case] b: (i128, i8), #[case] expected: &str) {
        let (a, b) = (Number { value: a.0, scale: a.1 }, Number { value: b.0, scale: b.1 });
        let scale = a.quotient_scale(b);
        let value = divided(a.value, i32::from(a.scale), b.value, i32::from(b.scale), i32::from(scale)).unwrap();
        let mut text = Vec::new();
        crate::copy::value::write::push_numeric(&mut text, value, scale);
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
