//! Casts that PostgreSQL makes otherwise than Arrow: `convert`.
//!
//! | from | to | |
//! | --- | --- | --- |
//! | text | anything | read as COPY reads it, so with PostgreSQL's forms, messages and SQLSTATEs |
//! | anything | text | written as the wire writes it; a boolean as `true` |
//! | timestamptz | timestamp, date, time | what the clocks of the session show |
//! | timestamp, date | timestamptz | when they show it |
//! | floats | integers | rounded, halves to the even one |
//! | numeric | integers, fewer decimals | rounded, halves away from zero |
//! | floats | numeric | through the 15 digits (6 of a `real`) that are certain |
//!
//! What does not fit is an error, 22003, never NULL. It is no function of SQL: the planner puts it where a cast stood.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast};

use crate::copy::value::{Formats, numeric_overflow, write};
use crate::error::{Error, Result};
use crate::sql::types;
use crate::time::{Micros, TIMESTAMP};

#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    to: DataType,
    formats: Formats,
    signature: Signature,
}

/// A parameter whose type is open.
pub fn is_open(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

/// Give a parameter whose type is open this one; whatever else stays as it is.
pub fn tell(expr: &mut Expr, to: &DataType) {
    if let Expr::Placeholder(Placeholder { field: field @ None, .. }) = expr {
        *field = Some(to.clone().into_nullable_field_ref());
    }
}

/// The value as one of another type. A string that stands there as such is read at once, but for those that mean something
/// else to each session: [`in_session`] reads them. A parameter whose type is open has that type from then on.
pub fn converted(mut value: Expr, to: DataType) -> Result<Expr> {
    if is_open(&value) {
        tell(&mut value, &to);
        return Ok(value);
    }
    match depends_on_session(&to) {
        true => Ok(call(value, to, Formats::default())),
        false => converted_in(value, to, Formats::default()),
    }
}

/// The same, as a session reads and shows values.
pub fn converted_in(value: Expr, to: DataType, formats: Formats) -> Result<Expr> {
    if let Expr::Literal(literal @ ScalarValue::Utf8(Some(_)), metadata) = &value {
        let read = convert(&literal.to_array()?, &to, formats)?;
        return Ok(Expr::Literal(ScalarValue::try_from_array(&read, 0)?, metadata.clone()));
    }
    Ok(call(value, to, formats))
}

fn call(value: Expr, to: DataType, formats: Formats) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::new_from_impl(Convert { to, formats, signature }).call(vec![value])
}

fn depends_on_session(to: &DataType) -> bool {
    match to {
        DataType::Date32 | DataType::Timestamp(..) => true,
        DataType::List(item) => depends_on_session(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| depends_on_session(field.data_type())),
        _ => false,
    }
}

/// What a call of `convert` is to a session.
pub fn in_session(expr: Expr, formats: Formats) -> Result<Expr> {
    match &expr {
        Expr::ScalarFunction(call) => match (call.func.inner().downcast_ref::<Convert>(), call.args.as_slice()) {
            (Some(convert), [value]) => converted_in(value.clone(), convert.to.clone(), formats),
            _ => Ok(expr),
        },
        _ => Ok(expr),
    }
}

/// The cast that a call of `convert` stands for.
pub fn as_cast(call: &ScalarFunction) -> Option<Expr> {
    let to = &call.func.inner().downcast_ref::<Convert>()?.to;
    call.args.first().map(|value| cast(value.clone(), to.clone()))
}

/// Do the settings of a session say what a cast between the two types gives?
pub fn depends_on_formats(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let is_local = |t: &D| matches!(t, D::Timestamp(_, None) | D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_));
    match (element(from), element(to)) {
        (D::Timestamp(_, Some(_)), to) => is_local(to) || types::is_text(to),
        (from, D::Timestamp(_, Some(_))) => is_local(from) || types::is_text(from),
        (from, D::Timestamp(..) | D::Date32) => types::is_text(from),
        _ => false,
    }
}

/// A string as `numeric`, with the decimals that it has.
pub fn numeric_literal(value: Expr) -> Result<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) = value else { return converted(value, types::NUMERIC) };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let decimals = mantissa.trim().split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let decimals = i64::try_from(decimals).unwrap_or(0).saturating_sub(exponent.trim().parse().unwrap_or(0));
    let scale = decimals.clamp(0, i64::from(types::MAX_PRECISION)) as i8;
    let number = crate::copy::value::parse_numeric(text.as_bytes(), types::MAX_PRECISION, scale)?;
    Ok(Expr::Literal(ScalarValue::Decimal128(Some(number), types::MAX_PRECISION, scale), metadata))
}

/// Does an Arrow cast between these types do something else than PostgreSQL's?
pub fn differs(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    if matches!(from, D::List(_)) != matches!(to, D::List(_)) {
        // Arrow makes a list of one text, and shows lists in a form of its own.
        return types::is_text(from) || types::is_text(to);
    }
    let (from, to) = (element(from), element(to));
    match (from, to) {
        _ if from == to || from.is_null() => false,
        _ if types::is_text(from) && types::is_text(to) => false,
        _ if types::is_text(from) || types::is_text(to) => true,
        (D::Timestamp(..), D::Time64(_)) => false,
        (D::Time64(_), D::Interval(_)) | (D::Interval(_), D::Time64(_)) => true,
        _ => from.is_numeric() && to.is_numeric() && !(from.is_integer() && widens(from, to)) && !to.is_floating(),
    }
}

fn widens(from: &DataType, to: &DataType) -> bool {
    match to {
        DataType::Decimal128(precision, scale) => i16::from(*precision) - i16::from(*scale) >= 20,
        _ => from.primitive_width() <= to.primitive_width(),
    }
}

fn element(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(field) => element(field.data_type()),
        other => other,
    }
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        "convert"
    }

    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        let [value] = arguments else { return Ok(self.name().to_string()) };
        Ok(format!("CAST({value} AS {})", types::sql_type(&self.to)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Scalar(value)] => {
                let converted = convert(&value.to_array()?, &self.to, self.formats)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?))
            }
            [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(convert(values, &self.to, self.formats)?)),
            _ => Err(Error::internal("a cast has one operand").into()),
        }
    }
}

/// The values as those of another type.
pub fn convert(values: &ArrayRef, to: &DataType, formats: Formats) -> Result<ArrayRef> {
    use DataType as D;
    let zone = formats.zone;
    match (values.data_type(), to) {
        (from, to) if from == to => Ok(Arc::clone(values)),
        (D::Null, to) => Ok(arrow::array::new_null_array(to, values.len())),
        (from, to) if types::is_text(from) && types::is_text(to) => arrow_cast(values, to),
        (from, to) if types::is_text(from) => read(values, to, formats),
        (_, to) if types::is_text(to) => {
            arrow_cast(&shown(&if zone.is_utc() { Arc::clone(values) } else { zone.seen(values)? })?, to)
        }
        (D::Timestamp(_, Some(_)), D::Timestamp(_, None) | D::Date32 | D::Time64(_)) if !zone.is_utc() => {
            arrow_cast(&moved(values, |instant| zone.local(instant), TIMESTAMP)?, to)
        }
        (D::Timestamp(_, None) | D::Date32, D::Timestamp(TimeUnit::Microsecond, Some(_))) if !zone.is_utc() => {
            moved(values, |local| zone.instant(local), to.clone())
        }
        (D::List(_), D::List(field)) => {
            let list = values.as_list::<i32>();
            let items = convert(list.values(), field.data_type(), formats)?;
            Ok(Arc::new(ListArray::new(Arc::clone(field), list.offsets().clone(), items, list.nulls().cloned())))
        }
        (from, to) if from.is_floating() && to.is_integer() => rounded(&arrow_cast(values, &D::Float64)?, to),
        (from, to) if from.is_decimal() && to.is_integer() => {
            let whole = arrow_cast(values, &D::Decimal128(types::MAX_PRECISION, 0)).map_err(|_| out_of_range(to))?;
            arrow_cast(&whole, to).map_err(|_| out_of_range(to))
        }
        (from, to) if from.is_integer() && to.is_integer() => arrow_cast(values, to).map_err(|_| out_of_range(to)),
        (from, D::Decimal128(..)) if from.is_floating() => decimals(values, to),
        (from, D::Decimal128(precision, scale)) if from.is_numeric() => {
            arrow_cast(values, to).map_err(|_| numeric_overflow(*precision, *scale))
        }
        (D::Time64(_), D::Interval(_)) => {
            let times = values.as_primitive::<Time64MicrosecondType>();
            let intervals: PrimitiveArray<IntervalMonthDayNanoType> =
                times.unary(|micros| IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000)));
            Ok(Arc::new(intervals))
        }
        (D::Interval(_), D::Time64(_)) => {
            let intervals = values.as_primitive::<IntervalMonthDayNanoType>();
            let times: PrimitiveArray<Time64MicrosecondType> =
                intervals.unary(|value| (value.nanoseconds / 1000).rem_euclid(crate::copy::value::DAY));
            Ok(Arc::new(times))
        }
        _ => arrow_cast(values, to),
    }
}

fn arrow_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// Moments, each moved by a clock.
fn moved(values: &ArrayRef, clock: impl Fn(Micros) -> Result<Micros>, to: DataType) -> Result<ArrayRef> {
    let zone = match values.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = arrow_cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    let moved = micros.as_primitive::<TimestampMicrosecondType>().try_unary::<_, TimestampMicrosecondType, Error>(clock)?;
    Ok(Arc::new(moved.with_data_type(to)))
}

fn read(values: &ArrayRef, to: &DataType, formats: Formats) -> Result<ArrayRef> {
    let text = arrow_cast(values, &DataType::Utf8)?;
    crate::copy::from_text(text.as_string::<i32>(), to, formats)
}

fn shown(values: &ArrayRef) -> Result<ArrayRef> {
    if let Some(values) = values.as_boolean_opt() {
        let word = |value: Option<bool>| value.map(|value| if value { "true" } else { "false" });
        return Ok(Arc::new(values.iter().map(word).collect::<StringArray>()));
    }
    let writer = write::text_writer(values)?;
    let nulls = values.logical_nulls();
    let mut text = StringBuilder::with_capacity(values.len(), values.len() * 8);
    let mut buffer = Vec::new();
    for row in 0..values.len() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            text.append_null();
            continue;
        }
        buffer.clear();
        writer(row, &mut buffer);
        text.append_value(std::str::from_utf8(&buffer).map_err(|_| Error::internal("a value's text is not UTF-8"))?);
    }
    Ok(Arc::new(text.finish()))
}

fn rounded(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    // The first number beyond; the least itself is a power of two, and fits.
    let limit = match to {
        DataType::Int16 => 2f64.powi(15),
        DataType::Int32 => 2f64.powi(31),
        _ => 2f64.powi(63),
    };
    let whole: PrimitiveArray<Float64Type> = values.as_primitive::<Float64Type>().try_unary(|value: f64| {
        let whole = value.round_ties_even();
        if whole >= -limit && whole < limit { Ok(whole) } else { Err(out_of_range(to)) }
    })?;
    arrow_cast(&(Arc::new(whole) as ArrayRef), to).map_err(|_| out_of_range(to))
}

fn decimals(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let digits = if values.data_type() == &DataType::Float32 { 5 } else { 14 };
    let wide = arrow_cast(values, &DataType::Float64)?;
    let text = wide.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| format!("{value:.digits$e}")));
    crate::copy::from_text(&text.collect::<StringArray>(), to, Formats::default())
}

/// As PostgreSQL says it of its integer types.
pub fn out_of_range(to: &DataType) -> Error {
    Error::numeric_out_of_range(format!("{} out of range", types::sql_type(to)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray};
    use rstest::rstest;

    use super::*;

    fn text(values: ArrayRef, to: &DataType) -> Vec<String> {
        let converted =
            convert(&values, to, Formats::default()).and_then(|values| convert(&values, &DataType::Utf8, Formats::default()));
        match converted {
            Ok(text) => text.as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_string()).collect(),
            Err(error) => vec![error.state().code().to_string()],
        }
    }

    #[rstest]
    #[case(vec![0.5, 1.5, 2.5, -0.5, -1.5], &["0", "2", "2", "0", "-2"])]
    #[case(vec![2147483647.4], &["2147483647"])]
    #[case(vec![2147483647.5], &["22003"])]
    #[case(vec![f64::NAN], &["22003"])]
    fn floats_round_to_even(#[case] values: Vec<f64>, #[case] expected: &[&str]) {
        assert_eq!(text(Arc::new(Float64Array::from(values)), &DataType::Int32), expected);
    }

    #[test]
    fn decimals_round_away_from_zero() {
        let values = Decimal128Array::from(vec![15, 25, -25, 24]).with_precision_and_scale(4, 1).unwrap();
        assert_eq!(text(Arc::new(values), &DataType::Int64), ["2", "3", "-3", "2"]);
    }

    #[test]
    fn text_is_that_of_the_wire() {
        let instants = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("UTC");
        assert_eq!(text(Arc::new(instants), &DataType::Utf8), ["1970-01-01 00:00:01.5+00", "NULL"]);
        let numbers = Int64Array::from(vec![70_000]);
        assert_eq!(text(Arc::new(numbers), &DataType::Int16), ["22003"]);
        let dates: ArrayRef = Arc::new(StringArray::from(vec!["2024-02-30"]));
        assert_eq!(text(dates, &DataType::Date32), ["22008"]);
    }

    #[test]
    fn a_float_is_the_decimal_that_it_shows_as() {
        let values = Float64Array::from(vec![0.1, 1.0 / 3.0]);
        assert_eq!(text(Arc::new(values), &types::NUMERIC), ["0.100000000", "0.333333333"]);
    }
}
