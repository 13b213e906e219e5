//! What lies between two moments, and how long an interval is.
//!
//! `timestamp - timestamp` is in days and hours, `date - date` a number of days, `date + days` a date. Intervals are compared by their length, in
//! which a month has 30 days and a day 24 hours; Arrow would compare their parts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr, cast,
};
use sqlparser::ast::BinaryOperator as B;

use crate::copy::value::DAY;
use crate::error::Error;

/// `timestamp - timestamp`: the name of the function, for whoever looks into a plan.
pub const TIMESTAMP_MINUS: &str = "timestamp_minus";
/// See [`length`].
pub const INTERVAL_LENGTH: &str = "interval_length";
/// `date + days`.
pub const DATE_PLUS: &str = "date_plus";
/// `date - days`.
pub const DATE_MINUS: &str = "date_minus";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    /// From one moment to another.
    Elapsed,
    /// Of an interval, in nanoseconds.
    Length,
    /// The day so many days after, or before, another.
    After,
    Before,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Measured {
    measure: Measure,
    signature: Signature,
}

fn measured(measure: Measure, arguments: Vec<Expr>) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(Measured { measure, signature }).call(arguments)
}

/// Differences of moments; `None` for what else is added or taken away.
pub(super) fn plan(expr: &RawBinaryExpr, (a, b): (&DataType, &DataType)) -> Option<Expr> {
    use DataType as D;
    let (left, right) = (expr.left.clone(), expr.right.clone());
    match (&expr.op, a, b) {
        (B::Minus, D::Date32, D::Date32) => Some(cast(binary_expr(left, Operator::Minus, right), D::Int32)),
        (B::Minus, D::Timestamp(..), D::Timestamp(..) | D::Date32) | (B::Minus, D::Date32, D::Timestamp(..)) => {
            Some(measured(Measure::Elapsed, vec![left, right]))
        }
        (B::Plus, D::Date32, days) if days.is_integer() => Some(measured(Measure::After, vec![left, right])),
        (B::Plus, days, D::Date32) if days.is_integer() => Some(measured(Measure::After, vec![right, left])),
        (B::Minus, D::Date32, days) if days.is_integer() => Some(measured(Measure::Before, vec![left, right])),
        _ => None,
    }
}

/// An interval as a number that is compared.
pub fn length(interval: Expr) -> Expr {
    measured(Measure::Length, vec![interval])
}

/// Nanoseconds, in which months have 30 days.
const LENGTH: DataType = DataType::Decimal128(38, 0);

impl ScalarUDFImpl for Measured {
    fn name(&self) -> &str {
        match self.measure {
            Measure::Elapsed => TIMESTAMP_MINUS,
            Measure::Length => INTERVAL_LENGTH,
            Measure::After => DATE_PLUS,
            Measure::Before => DATE_MINUS,
        }
    }

    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        match (self.measure, arguments) {
            (Measure::Length, [interval]) => Ok(format!("{INTERVAL_LENGTH}({interval})")),
            (Measure::After, _) => Ok(super::infix(arguments, '+')),
            _ => Ok(super::infix(arguments, '-')),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(match self.measure {
            // A timestamp beside an instant is one, too.
            Measure::Elapsed => {
                let zoned = types.iter().find(|of| matches!(of, DataType::Timestamp(_, Some(_))));
                let zone = zoned.map(|_| Arc::from("UTC"));
                vec![DataType::Timestamp(TimeUnit::Microsecond, zone); types.len()]
            }
            Measure::Length => vec![DataType::Interval(IntervalUnit::MonthDayNano); types.len()],
            Measure::After | Measure::Before => vec![DataType::Date32, DataType::Int64],
        })
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(match self.measure {
            Measure::Elapsed => DataType::Interval(IntervalUnit::MonthDayNano),
            Measure::Length => LENGTH,
            Measure::After | Measure::Before => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result: ArrayRef = match (self.measure, arrays.as_slice()) {
            (Measure::Elapsed, [a, b]) => {
                let (a, b) = (a.as_primitive::<TimestampMicrosecondType>(), b.as_primitive::<TimestampMicrosecondType>());
                let elapsed: PrimitiveArray<IntervalMonthDayNanoType> = arrow::compute::try_binary(a, b, |a, b| {
                    let micros = a.checked_sub(b).ok_or_else(too_long)?;
                    let days = i32::try_from(micros / DAY).map_err(|_| too_long())?;
                    Ok(IntervalMonthDayNano::new(0, days, micros % DAY * 1000))
                })?;
                Arc::new(elapsed)
            }
            (Measure::Length, [intervals]) => {
                let lengths: PrimitiveArray<Decimal128Type> =
                    intervals.as_primitive::<IntervalMonthDayNanoType>().unary(|interval| {
                        let days = i128::from(interval.months) * 30 + i128::from(interval.days);
                        days * i128::from(DAY) * 1000 + i128::from(interval.nanoseconds)
                    });
                Arc::new(lengths.with_data_type(LENGTH))
            }
            (Measure::After | Measure::Before, [dates, days]) => {
                let (dates, days) = (dates.as_primitive::<Date32Type>(), days.as_primitive::<Int64Type>());
                let sign = if self.measure == Measure::After { 1 } else { -1 };
                let shifted: PrimitiveArray<Date32Type> = arrow::compute::try_binary(dates, days, |date, days| {
                    let shifted = days.checked_mul(sign).and_then(|days| i64::from(date).checked_add(days));
                    shifted.and_then(|day| i32::try_from(day).ok()).ok_or_else(|| ArrowError::from_external_error(no_such_day()))
                })?;
                Arc::new(shifted)
            }
            _ => return Err(Error::internal("a measure has one operand or two").into()),
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

fn no_such_day() -> Box<Error> {
    Box::new(Error::datetime_overflow("date out of range"))
}

fn too_long() -> ArrowError {
    ArrowError::ArithmeticOverflow("interval out of range".into())
}
