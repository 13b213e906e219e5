//! Values in their binary form, as Postgres's receive functions read them.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::{bytes_value, integer, interval, list, no_input, text, text_value, time, timestamp};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::server::frontend::utf8;
use crate::time::{POSTGRES_EPOCH, POSTGRES_EPOCH_DAYS};

/// Reads a value that came as Postgres's type `wire`.
pub fn value(bytes: &[u8], wire: &Type, target: &DataType) -> Result<ScalarValue> {
    use DataType as D;
    match target {
        D::Boolean => Ok(ScalarValue::Boolean(Some(fixed::<1>(bytes)? != [0]))),
        D::Int8 | D::Int16 | D::UInt8 => integer(i16::from_be_bytes(fixed(bytes)?) as i64, target),
        D::Int32 | D::UInt16 => integer(i32::from_be_bytes(fixed(bytes)?) as i64, target),
        D::Int64 | D::UInt32 if *wire == Type::OID => integer(u32::from_be_bytes(fixed(bytes)?) as i64, target),
        D::Int64 | D::UInt32 => integer(i64::from_be_bytes(fixed(bytes)?), target),
        D::Float32 => Ok(ScalarValue::Float32(Some(f32::from_be_bytes(fixed(bytes)?)))),
        D::Float64 => Ok(ScalarValue::Float64(Some(f64::from_be_bytes(fixed(bytes)?)))),
        D::UInt64 | D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => {
            text::value(&numeric(bytes)?, target, Formats::default())
        }
        D::Binary | D::LargeBinary | D::BinaryView => Ok(bytes_value(bytes.to_vec(), target)),
        D::Date32 => {
            let days = i32::from_be_bytes(fixed(bytes)?).checked_add(POSTGRES_EPOCH_DAYS);
            days.map(|days| ScalarValue::Date32(Some(days))).ok_or_else(|| Error::datetime_overflow("date out of range"))
        }
        D::Time32(_) | D::Time64(_) => time(i64::from_be_bytes(fixed(bytes)?), target),
        D::Timestamp(..) => {
            let micros = i64::from_be_bytes(fixed(bytes)?).checked_add(POSTGRES_EPOCH);
            timestamp(micros.ok_or_else(|| Error::datetime_overflow("timestamp out of range"))?, target)
        }
        D::Interval(_) => {
            let [a, b, c, d, e, f, g, h, days @ .., i, j, k, l] = fixed::<16>(bytes)?;
            interval(i32::from_be_bytes([i, j, k, l]), i32::from_be_bytes(days), i64::from_be_bytes([a, b, c, d, e, f, g, h]))
        }
        D::List(item) => list::from_binary(bytes, item.data_type()),
        D::Struct(_) | D::Map(..) => Err(no_input(target)),
        _ => Ok(text_value(&as_text(bytes, wire)?, target)),
    }
}

/// What is text to us may have a binary form of its own.
fn as_text(bytes: &[u8], wire: &Type) -> Result<String> {
    match *wire {
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::UNKNOWN | Type::JSON | Type::XML => {
            Ok(utf8(bytes)?.to_string())
        }
        Type::JSONB => match bytes {
            [1, json @ ..] => Ok(utf8(json)?.to_string()),
            _ => Err(Error::invalid_binary("unsupported jsonb version number")),
        },
        Type::UUID => {
            let hex = fixed::<16>(bytes)?.map(|byte| format!("{byte:02x}"));
            let group = |range: std::ops::Range<usize>| hex[range].concat();
            Ok([group(0..4), group(4..6), group(6..8), group(8..10), group(10..16)].join("-"))
        }
        ref other => {
            let error = Error::unsupported(format!("the binary form of type {} is not supported", other.name()));
            Err(error.with_hint("send the parameter in text format"))
        }
    }
}

pub fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| Error::invalid_binary(format!("incorrect binary data format: {} bytes instead of {N}", bytes.len())))
}

/// Text of a numeric: its digits are in base 10,000.
pub fn numeric(bytes: &[u8]) -> Result<String> {
    let malformed = || Error::invalid_binary("invalid digits in a value of type numeric");
    if bytes.len() < 8 || !bytes.len().is_multiple_of(2) {
        return Err(malformed());
    }
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else { return Err(malformed()) };
    if *count as usize != digits.len() || digits.iter().any(|digit| *digit > 9999) {
        return Err(malformed());
    }
    let negative = match sign {
        0 => "",
        0x4000 => "-",
        _ => return Err(Error::numeric_out_of_range("numeric NaN and infinity are not supported")),
    };
    let point = 4 * (*weight as i16 as i32 + 1);
    if point.unsigned_abs() > 400 || digits.len() > 200 || *scale > 0x3fff {
        return Err(Error::numeric_out_of_range("value out of range for type numeric"));
    }
    let mut shown: String = digits.iter().map(|digit| format!("{digit:04}")).collect();
    if point < 0 {
        shown.insert_str(0, &"0".repeat(point.unsigned_abs() as usize));
    }
    let point = point.max(0) as usize;
    if shown.len() < point {
        shown.push_str(&"0".repeat(point - shown.len()));
    }
    let (whole, fraction) = shown.split_at(point);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if fraction.is_empty() { format!("{negative}{whole}") } else { format!("{negative}{whole}.{fraction}") })
}
