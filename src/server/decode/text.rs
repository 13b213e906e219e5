//! Values in their text form, as Postgres's input functions read them.

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::{bytes_value, integer, interval, no_input, text_value, time, timestamp};
use crate::copy::value::{Formats, parse_date, parse_time, parse_timestamp, parse_timestamptz};
use crate::error::{Error, Result};
use crate::server::types::postgres_type;
use crate::sql::types::MAX_PRECISION;

pub fn value(text: &str, target: &DataType, formats: Formats) -> Result<ScalarValue> {
    use DataType as D;
    let trimmed = text.trim_ascii();
    let invalid = || {
        let name = postgres_type(target);
        Error::invalid_text(format!("invalid input syntax for type {}: \"{text}\"", name.name()))
    };
    let invalid_time = || {
        let name = postgres_type(target);
        Error::invalid_datetime(format!("invalid input syntax for type {}: \"{text}\"", name.name()))
    };
    match target {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => Ok(text_value(text, target)),
        D::Boolean => boolean(trimmed).map(|value| ScalarValue::Boolean(Some(value))).ok_or_else(invalid),
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => match trimmed.parse::<i64>() {
            Ok(value) => integer(value, target),
            Err(error) if is_overflow(&error) => {
                let name = postgres_type(target);
                Err(Error::numeric_out_of_range(format!("value \"{trimmed}\" is out of range for type {}", name.name())))
            }
            Err(_) => Err(invalid()),
        },
        D::UInt64 => trimmed.parse().map(|value| ScalarValue::UInt64(Some(value))).map_err(|_| invalid()),
        D::Float32 => float(trimmed, f32::is_infinite).ok_or_else(invalid)?.map(|value| ScalarValue::Float32(Some(value))),
        D::Float64 => float(trimmed, f64::is_infinite).ok_or_else(invalid)?.map(|value| ScalarValue::Float64(Some(value))),
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => decimal(trimmed, target, invalid),
        D::Binary | D::LargeBinary | D::BinaryView => Ok(bytes_value(bytes(text).ok_or_else(invalid)?, target)),
        D::Date32 => Ok(ScalarValue::Date32(Some(parse_date(trimmed.as_bytes(), formats)?))),
        D::Time32(_) | D::Time64(_) => time(parse_time(trimmed.as_bytes())?, target),
        D::Timestamp(_, None) => timestamp(parse_timestamp(trimmed.as_bytes(), formats)?, target),
        D::Timestamp(..) => timestamp(parse_timestamptz(trimmed.as_bytes(), formats)?, target),
        D::Interval(_) => match clock_interval(trimmed) {
            Some((months, days, micros)) => interval(months, days, micros),
            None => text_value(trimmed, &D::Utf8).cast_to(target).map_err(|_| invalid_time()),
        },
        D::List(_) => {
            let read = crate::copy::from_text(&StringArray::from(vec![text]), target, formats)?;
            Ok(ScalarValue::try_from_array(&read, 0)?)
        }
        D::Null => Ok(text_value(text, &D::Utf8)),
        D::Struct(_) | D::Map(..) => Err(no_input(target)),
        _ => text_value(trimmed, &D::Utf8).cast_to(target).map_err(|_| invalid()),
    }
}

fn is_overflow(error: &std::num::ParseIntError) -> bool {
    matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow)
}

/// Any unambiguous beginning of the words will do.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    match text.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        _ => None,
    }
}

/// An infinity must be written as one, not come from a number that is too large.
fn float<F: std::str::FromStr + Copy>(text: &str, is_infinite: impl Fn(F) -> bool) -> Option<Result<F>> {
    let value = text.parse::<F>().ok()?;
    let written = text.contains(['i', 'I']);
    if is_infinite(value) && !written {
        return Some(Err(Error::numeric_out_of_range(format!("\"{text}\" is out of range for a floating point type"))));
    }
    Some(Ok(value))
}

/// A number with as many digits after the point as are written; as `target` if it has more than fit.
pub fn exact(text: &str, target: &DataType) -> Result<ScalarValue> {
    let (mantissa, _) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let scale = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let plain = mantissa.len() == text.len() && text.bytes().filter(u8::is_ascii_digit).count() <= usize::from(MAX_PRECISION);
    let own = i8::try_from(scale).ok().filter(|_| plain).map(|scale| DataType::Decimal128(MAX_PRECISION, scale));
    value(text, own.as_ref().unwrap_or(target), Formats::default())
}

fn decimal(text: &str, target: &DataType, invalid: impl Fn() -> Error) -> Result<ScalarValue> {
    let well_formed = text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<f64>().is_ok();
    if !well_formed {
        return Err(invalid());
    }
    text_value(text, &DataType::Utf8)
        .cast_to(target)
        .map_err(|_| Error::numeric_out_of_range(format!("value \"{text}\" does not fit into {target}")))
}

/// `\x…`, or bytes with `\\` and `\ooo`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| (byte as char).to_digit(16));
        let digits = digits.collect::<Option<Vec<_>>>()?;
        let pairs = digits.chunks_exact(2);
        return pairs.remainder().is_empty().then(|| pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect());
    }
    let (mut rest, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = after;
        } else {
            let (octal, after) = rest.split_at_checked(3)?;
            out.push(u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok()?);
            rest = after;
        }
    }
    Some(out)
}

/// `[n unit …] [-]hh:mm[:ss[.ffffff]]`, as Postgres writes intervals. Others have no clock part, and are not for here.
fn clock_interval(text: &str) -> Option<(i32, i32, i64)> {
    let mut words = text.split_ascii_whitespace();
    let clock = words.next_back()?;
    let (negative, digits) = match clock.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, clock.strip_prefix('+').unwrap_or(clock)),
    };
    let mut parts = digits.split(':');
    let hours = parts.next()?.parse::<u32>().ok()?;
    let minutes = parts.next()?.parse::<u32>().ok().filter(|minutes| *minutes < 60)?;
    let seconds = parts.next().map_or(Some(0.0), |seconds| seconds.parse::<f64>().ok()).filter(|s| (0.0..60.0).contains(s))?;
    if parts.next().is_some() {
        return None;
    }
    let micros = (hours as i64 * 3600 + minutes as i64 * 60) * 1_000_000 + (seconds * 1e6).round() as i64;
    let (mut months, mut days) = (0i32, 0i32);
    while let Some(count) = words.next() {
        let count = count.parse::<i32>().ok()?;
        match words.next()?.trim_end_matches('s') {
            "year" => months = months.checked_add(count.checked_mul(12)?)?,
            "mon" | "month" => months = months.checked_add(count)?,
            "week" => days = days.checked_add(count.checked_mul(7)?)?,
            "day" => days = days.checked_add(count)?,
            _ => return None,
        }
    }
    Some((months, days, if negative { -micros } else { micros }))
}
