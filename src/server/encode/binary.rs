//! Values in their binary form, as Postgres's send functions write them.

use arrow::array::ArrayRef;
use arrow::datatypes::*;
use postgres_types::Type;

use super::text::{date, decimal, interval, time_of_day, timestamp};
use super::time::{self, Interval};
use super::{Cell, boolean, bytes, dictionary, displayed, json, nested, primitive};
use crate::error::{Error, Result};
use crate::time::zone::Zone;

pub fn cell(array: &ArrayRef, oid: u32, zone: Zone) -> Result<Cell> {
    use DataType as D;
    Ok(match array.data_type() {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => string(array, oid)?,
        D::Null => Box::new(|_, _| Ok(())),
        D::Boolean => boolean(array, |value, out| out.push(value as u8)),
        D::Int8 => primitive::<Int8Type>(array, |value, out| out.extend_from_slice(&(value as i16).to_be_bytes())),
        D::UInt8 => primitive::<UInt8Type>(array, |value, out| out.extend_from_slice(&(value as i16).to_be_bytes())),
        D::Int16 => primitive::<Int16Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::UInt16 => primitive::<UInt16Type>(array, |value, out| out.extend_from_slice(&(value as i32).to_be_bytes())),
        D::Int32 => primitive::<Int32Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::UInt32 => primitive::<UInt32Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::Int64 => primitive::<Int64Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::Float16 => primitive::<Float16Type>(array, |value, out| out.extend_from_slice(&value.to_f32().to_be_bytes())),
        D::Float32 => primitive::<Float32Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::Float64 => primitive::<Float64Type>(array, |value, out| out.extend_from_slice(&value.to_be_bytes())),
        D::UInt64 | D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => {
            decimal(array, |value, out| value.binary(out))
        }
        D::Date32 | D::Date64 => date(array, time::date_binary),
        D::Time32(_) | D::Time64(_) => time_of_day(array, |micros, out| out.extend_from_slice(&micros.to_be_bytes())),
        D::Timestamp(..) => timestamp(array, time::timestamp_binary),
        D::Interval(_) | D::Duration(_) => interval(array, Interval::binary),
        D::List(_) | D::LargeList(_) | D::FixedSizeList(..) => nested::array_binary(array, oid, zone)?,
        D::Struct(_) => nested::record_binary(array, zone)?,
        D::Map(..) => json::cell(array, zone)?,
        D::Dictionary(..) => dictionary(array, |values| cell(values, oid, zone))?,
        D::ListView(item) => cell(&arrow::compute::cast(array, &D::List(item.clone()))?, oid, zone)?,
        D::LargeListView(item) => cell(&arrow::compute::cast(array, &D::LargeList(item.clone()))?, oid, zone)?,
        D::RunEndEncoded(_, value) => cell(&arrow::compute::cast(array, value.data_type())?, oid, zone)?,
        _ => plain(array)?,
    })
}

/// Text and bytes are themselves.
fn plain(array: &ArrayRef) -> Result<Cell> {
    bytes(array, |value, out| out.extend_from_slice(value)).map_or_else(|| displayed(array), Ok)
}

/// Some types that are text to us have a form of their own.
fn string(array: &ArrayRef, oid: u32) -> Result<Cell> {
    let cell = match Type::from_oid(oid) {
        Some(Type::UUID) => return uuid(array),
        // The version of the form.
        Some(Type::JSONB) => bytes(array, |value, out| {
            out.push(1);
            out.extend_from_slice(value);
        }),
        Some(Type::CHAR) => bytes(array, |value, out| out.push(value.first().copied().unwrap_or(0))),
        _ => return plain(array),
    };
    cell.map_or_else(|| displayed(array), Ok)
}

/// Its sixteen bytes.
fn uuid(array: &ArrayRef) -> Result<Cell> {
    let text = plain(array)?;
    Ok(Box::new(move |row, out| {
        let start = out.len();
        text(row, out)?;
        let shown = out.split_off(start);
        let digits: Option<Vec<u8>> = shown.iter().filter(|byte| **byte != b'-').map(|byte| hex_digit(*byte)).collect();
        match digits {
            Some(digits) if digits.len() == 32 => {
                out.extend(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]));
                Ok(())
            }
            _ => Err(Error::invalid_text(format!("invalid input syntax for type uuid: \"{}\"", String::from_utf8_lossy(&shown)))),
        }
    }))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
