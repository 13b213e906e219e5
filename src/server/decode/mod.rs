//! Parameters of a statement: bytes of Bind to values of exactly the types that the statement was prepared with.
//!
//! A client sends a value in the form of the type it declared, which need not be the type the statement wants; such a value is
//! read as what it was declared and then cast.

mod binary;
mod list;
mod text;

#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::frontend::{Format, utf8};
use super::types::{declared, is_list, postgres_type};
use crate::copy::modifier::{canonical, innermost};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::session::Parameter;

/// Reads a parameter. `oid` is the type that the client declared, 0 if it left that to us; `formats`
/// are the session's.
pub fn parameter(bytes: Option<&[u8]>, format: Format, oid: u32, parameter: &Parameter, formats: Formats) -> Result<ScalarValue> {
    canonical(value(bytes, format, oid, &parameter.data_type, formats)?, &parameter.sql_type)
}

fn value(bytes: Option<&[u8]>, format: Format, oid: u32, target: &DataType, formats: Formats) -> Result<ScalarValue> {
    let Some(bytes) = bytes else { return Ok(ScalarValue::try_from(target)?) };
    let wire = Type::from_oid(oid).unwrap_or_else(|| postgres_type(target));
    let own = match oid == 0 || oid == postgres_type(target).oid() {
        true => None,
        // An OID does not tell how many dimensions an array has.
        false => declared(oid)?
            .map(|field| field.data_type().clone())
            .filter(|own| !(is_list(own) && innermost(own) == innermost(target))),
    };
    let read_as = own.as_ref().unwrap_or(target);
    if oid == Type::NUMERIC.oid() && target.is_decimal() {
        // In its own scale: rounded to that of a column it might equal what it doesn't.
        return match format {
            Format::Text => text::exact(utf8(bytes)?.trim_ascii(), target),
            Format::Binary => text::exact(&binary::numeric(bytes)?, target),
        };
    }
    let value = match format {
        Format::Text if wire == Type::UUID => text_value(&crate::copy::canonical_uuid(utf8(bytes)?.trim_ascii())?, read_as),
        Format::Text => text::value(utf8(bytes)?, read_as, formats)?,
        Format::Binary if wire == Type::NUMERIC && !read_as.is_decimal() => {
            text::value(&binary::numeric(bytes)?, target, formats)?
        }
        Format::Binary => binary::value(bytes, &wire, read_as)?,
    };
    if value.data_type() == *target {
        return Ok(value);
    }
    value.cast_to(target).map_err(|_| {
        let (from, to) = (wire.name(), postgres_type(target));
        Error::datatype_mismatch(format!("a parameter of type {from} cannot be used as {}", to.name()))
    })
}

/// An integer in the type asked for, if it fits.
fn integer(value: i64, target: &DataType) -> Result<ScalarValue> {
    let range = |_| {
        let name = postgres_type(target);
        Error::numeric_out_of_range(format!("value \"{value}\" is out of range for type {}", name.name()))
    };
    Ok(match target {
        DataType::Int8 => ScalarValue::Int8(Some(i8::try_from(value).map_err(range)?)),
        DataType::Int16 => ScalarValue::Int16(Some(i16::try_from(value).map_err(range)?)),
        DataType::Int32 => ScalarValue::Int32(Some(i32::try_from(value).map_err(range)?)),
        DataType::UInt8 => ScalarValue::UInt8(Some(u8::try_from(value).map_err(range)?)),
        DataType::UInt16 => ScalarValue::UInt16(Some(u16::try_from(value).map_err(range)?)),
        DataType::UInt32 => ScalarValue::UInt32(Some(u32::try_from(value).map_err(range)?)),
        _ => ScalarValue::Int64(Some(value)),
    })
}

/// A time in microseconds since 1970 as a timestamp of the type asked for.
fn timestamp(micros: i64, target: &DataType) -> Result<ScalarValue> {
    let DataType::Timestamp(unit, zone) = target else { return Ok(ScalarValue::TimestampMicrosecond(Some(micros), None)) };
    let zone = zone.clone();
    Ok(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(Some(micros.div_euclid(1_000_000)), zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(micros.div_euclid(1000)), zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(micros), zone),
        TimeUnit::Nanosecond => {
            let nanos = micros.checked_mul(1000).ok_or_else(|| Error::datetime_overflow("timestamp out of range"))?;
            ScalarValue::TimestampNanosecond(Some(nanos), zone)
        }
    })
}

/// A time of the day in microseconds as the type asked for.
fn time(micros: i64, target: &DataType) -> Result<ScalarValue> {
    if !(0..=86_400_000_000).contains(&micros) {
        return Err(Error::datetime_overflow("time out of range"));
    }
    Ok(match target {
        DataType::Time32(TimeUnit::Second) => ScalarValue::Time32Second(Some((micros / 1_000_000) as i32)),
        DataType::Time32(_) => ScalarValue::Time32Millisecond(Some((micros / 1000) as i32)),
        DataType::Time64(TimeUnit::Nanosecond) => ScalarValue::Time64Nanosecond(Some(micros * 1000)),
        _ => ScalarValue::Time64Microsecond(Some(micros)),
    })
}

fn interval(months: i32, days: i32, micros: i64) -> Result<ScalarValue> {
    let nanos = micros.checked_mul(1000).ok_or_else(|| Error::datetime_overflow("interval out of range"))?;
    Ok(ScalarValue::new_interval_mdn(months, days, nanos))
}

fn text_value(text: &str, target: &DataType) -> ScalarValue {
    match target {
        DataType::LargeUtf8 => ScalarValue::LargeUtf8(Some(text.into())),
        DataType::Utf8View => ScalarValue::Utf8View(Some(text.into())),
        _ => ScalarValue::Utf8(Some(text.into())),
    }
}

fn bytes_value(bytes: Vec<u8>, target: &DataType) -> ScalarValue {
    match target {
        DataType::LargeBinary => ScalarValue::LargeBinary(Some(bytes)),
        DataType::BinaryView => ScalarValue::BinaryView(Some(bytes)),
        _ => ScalarValue::Binary(Some(bytes)),
    }
}

fn no_input(target: &DataType) -> Error {
    let name = postgres_type(target);
    Error::unsupported(format!("parameters of type {} are not supported", name.name()))
        .with_hint("pass its fields as parameters of their own")
}
