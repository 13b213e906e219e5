//! `round`, `trunc`, `ceil`, `floor`, `sign` and `div`: of `numeric` they are `numeric`, with the decimals that are asked for.
//!
//! As in PostgreSQL, an integer is taken for a `double precision` where no decimals are asked for. Halves of `numeric` are
//! rounded away from zero, those of floats to the even number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, Int32Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::decimal::rounded_quotient;
use crate::error::{Error, Result};
use crate::sql::types::{self, MAX_PRECISION};

/// All of them.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let function = |to, name| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::new_from_impl(Rounding { to, name, signature })
    };
    let functions = [
        function(To::Nearest, "round"),
        function(To::Zero, "trunc"),
        function(To::Above, "ceil").with_aliases(["ceiling"]),
        function(To::Below, "floor"),
        function(To::Sign, "sign"),
        function(To::Quotient, "div"),
    ];
    functions.into_iter().map(Arc::new).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum To {
    Nearest,
    Zero,
    Above,
    Below,
    Sign,
    /// Of two numbers, without what is behind its point.
    Quotient,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    to: To,
    name: &'static str,
    signature: Signature,
}

impl Rounding {
    fn undefined(&self, types: &[DataType]) -> Error {
        let types: Vec<_> = types.iter().map(types::plain_name).collect();
        let error = Error::undefined_function(format!("function {}({}) does not exist", self.name, types.join(", ")));
        error.with_hint("add explicit type casts")
    }

    /// A number of units, each of which is `unit` smallest ones, rounded to whole units.
    fn whole(&self, value: i128, unit: i128) -> i128 {
        match self.to {
            To::Nearest => rounded_quotient(value, unit),
            To::Zero | To::Quotient => value / unit,
            To::Below => value.div_euclid(unit),
            To::Above => -(-value).div_euclid(unit),
            To::Sign => value.signum(),
        }
    }

    fn decimal(&self, value: i128, from: i8, decimals: i32, scale: i8) -> Result<i128> {
        let too_many = || Error::numeric_out_of_range("a number exceeds 38 digits");
        let power = |exponent: i32| u32::try_from(exponent).ok().and_then(|exponent| 10i128.checked_pow(exponent));
        let (from, scale) = (i32::from(from), i32::from(scale));
        if self.to == To::Sign {
            return Ok(value.signum());
        }
        if decimals >= from {
            return power(scale - from).and_then(|factor| value.checked_mul(factor)).ok_or_else(too_many);
        }
        // No number has more digits than that before its point.
        let decimals = decimals.max(-i32::from(MAX_PRECISION));
        let whole = match power(from - decimals) {
            Some(unit) => self.whole(value, unit),
            None => self.whole(value.signum(), 10),
        };
        power(scale - decimals).and_then(|factor| whole.checked_mul(factor)).ok_or_else(too_many)
    }

    fn float(&self, value: f64) -> f64 {
        match self.to {
            To::Nearest => value.round_ties_even(),
            To::Zero | To::Quotient => value.trunc(),
            To::Above => value.ceil(),
            To::Below => value.floor(),
            To::Sign if value == 0.0 || value.is_nan() => value,
            To::Sign => value.signum(),
        }
    }

    fn returned(&self, types: &[DataType], decimals: Option<i32>) -> DataType {
        match (types, self.to) {
            (_, To::Quotient) => DataType::Decimal128(MAX_PRECISION, 0),
            ([DataType::Decimal128(precision, scale), _], _) => {
                // What is before the point must have room, too.
                let room =
                    i32::from(MAX_PRECISION) - (i32::from(*precision) - i32::from(*scale)).min(i32::from(MAX_PRECISION) - 9);
                let scale = decimals.map_or(*scale, |decimals| decimals.clamp(0, room) as i8);
                DataType::Decimal128(MAX_PRECISION, scale)
            }
            ([DataType::Decimal128(precision, scale)], _) => {
                let digits = i16::from(*precision) - i16::from(*scale) + 1;
                DataType::Decimal128(digits.clamp(1, i16::from(MAX_PRECISION)) as u8, 0)
            }
            _ => DataType::Float64,
        }
    }

    fn quotient(&self, a: &ArrayRef, b: &ArrayRef) -> Result<ArrayRef> {
        let scale = |array: &ArrayRef| if let DataType::Decimal128(_, scale) = array.data_type() { i32::from(*scale) } else { 0 };
        let common = scale(a).max(scale(b));
        let (up_a, up_b) = (common - scale(a), common - scale(b));
        let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
        let value = |(a, b): (Option<i128>, Option<i128>)| {
            let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
            if b == 0 {
                return Err(Error::division_by_zero("division by zero"));
            }
            let up = |value: i128, by: i32| value.checked_mul(10i128.pow(by.unsigned_abs()));
            let found = up(a, up_a).zip(up(b, up_b)).map(|(a, b)| a / b);
            found.map(Some).ok_or_else(|| Error::numeric_out_of_range("a number exceeds 38 digits"))
        };
        let values = a.iter().zip(b.iter()).map(value).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
        Ok(Arc::new(values.with_data_type(DataType::Decimal128(MAX_PRECISION, 0))))
    }

    fn evaluate(&self, arrays: &[ArrayRef], returned: &DataType) -> Result<ArrayRef> {
        match arrays {
            [a, b] if self.to == To::Quotient => self.quotient(a, b),
            [values] if values.data_type() == &DataType::Float64 => {
                let values = values.as_primitive::<Float64Type>();
                Ok(Arc::new(values.unary::<_, Float64Type>(|value| self.float(value))))
            }
            [values, decimals] if values.data_type() == &DataType::Float64 => {
                let rounded = |value: f64, decimals: i32| {
                    let unit = 10f64.powi(decimals);
                    let scaled = value * unit;
                    let whole = if self.to == To::Nearest { scaled.round() } else { scaled.trunc() };
                    if whole.is_finite() { whole / unit } else { value }
                };
                let (values, decimals) = (values.as_primitive::<Float64Type>(), decimals.as_primitive::<Int32Type>());
                Ok(Arc::new(arrow::compute::binary::<_, _, _, Float64Type>(values, decimals, rounded)?))
            }
            [values, rest @ ..] => {
                let (DataType::Decimal128(_, from), DataType::Decimal128(_, scale)) = (values.data_type(), returned) else {
                    return Err(Error::internal("a number is rounded as another type than was said"));
                };
                let (from, scale) = (*from, *scale);
                let values = values.as_primitive::<Decimal128Type>();
                let decimals = rest.first().map(|decimals| decimals.as_primitive::<Int32Type>());
                let value = |row: usize| {
                    let is_null = values.is_null(row) || decimals.is_some_and(|decimals| decimals.is_null(row));
                    let decimals = decimals.map_or(0, |decimals| if is_null { 0 } else { decimals.value(row) });
                    if is_null {
                        Ok(None)
                    } else {
                        self.decimal(values.value(row), from, decimals.min(scale.into()), scale).map(Some)
                    }
                };
                let values = (0..values.len()).map(value).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
                Ok(Arc::new(values.with_data_type(returned.clone())))
            }
            [] => Err(Error::internal("nothing is rounded")),
        }
    }
}

impl ScalarUDFImpl for Rounding {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        let exact = |data_type: &DataType| match data_type {
            DataType::Decimal128(..) => Some(data_type.clone()),
            number if number.is_integer() => Some(DataType::Decimal128(20, 0)),
            DataType::Null => Some(DataType::Decimal128(20, 0)),
            _ => None,
        };
        match (given, self.to) {
            ([a, b], To::Quotient) => match (exact(a), exact(b)) {
                (Some(a), Some(b)) => Ok(vec![a, b]),
                _ => Err(self.undefined(given).into()),
            },
            ([DataType::Decimal128(..)], _) => Ok(given.to_vec()),
            ([number], to) if to != To::Quotient && (number.is_numeric() || number.is_null() || types::is_text(number)) => {
                Ok(vec![DataType::Float64])
            }
            ([number, decimals], To::Nearest | To::Zero) if decimals.is_integer() || decimals.is_null() => match exact(number) {
                Some(number) => Ok(vec![number, DataType::Int32]),
                // PostgreSQL has this of numeric alone; it is asked for of averages all the time.
                None if number.is_floating() => Ok(vec![DataType::Float64, DataType::Int32]),
                None => Err(self.undefined(given).into()),
            },
            _ => Err(self.undefined(given).into()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.returned(types, None))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let given: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let decimals = args.scalar_arguments.get(1).copied().flatten();
        let decimals = decimals.and_then(|decimals| decimals.cast_to(&DataType::Int32).ok());
        let decimals = if let Some(ScalarValue::Int32(decimals)) = decimals { decimals } else { None };
        Ok(Arc::new(Field::new(self.name, self.returned(&self.coerce_types(&given)?, decimals), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = self.evaluate(&arrays, args.return_field.data_type())?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case(To::Nearest, 1234567, 3, 1, 1, 12346)]
    #[case(To::Nearest, 1234567, 3, -2, 0, 1200)]
    #[case(To::Nearest, -25, 1, 0, 0, -3)]
    #[case(To::Nearest, 12345, 1, 3, 3, 1_234_500)]
    #[case(To::Zero, -29, 1, 0, 0, -2)]
    #[case(To::Above, 12, 1, 0, 0, 2)]
    #[case(To::Above, -12, 1, 0, 0, -1)]
    #[case(To::Below, -12, 1, 0, 0, -2)]
    fn decimals_are_rounded(
        #[case] to: To,
        #[case] value: i128,
        #[case] from: i8,
        #[case] decimals: i32,
        #[case] scale: i8,
        #[case] expected: i128,
    ) {
        let rounding = Rounding { to, name: "", signature: Signature::user_defined(Volatility::Immutable) };
        assert_eq!(rounding.decimal(value, from, decimals, scale).unwrap(), expected);
    }
}
