//! Values in their binary form, as Postgres's send functions write them.

use arrow::array::ArrayRef;
use arrow::datatypes::*;
use chrono_tz::Tz;

use super::text::{date, decimal, interval, time_of_day, timestamp};
use super::time::{self, Interval};
use super::{Cell, boolean, bytes, dictionary, displayed, json, nested, primitive};
use crate::error::Result;

pub fn cell(array: &ArrayRef, zone: Tz) -> Result<Cell> {
    use DataType as D;
    Ok(match array.data_type() {
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
        D::List(_) | D::LargeList(_) | D::FixedSizeList(..) => nested::array_binary(array, zone)?,
        D::Struct(_) => nested::record_binary(array, zone)?,
        D::Map(..) => json::cell(array, zone)?,
        D::Dictionary(..) => dictionary(array, |values| cell(values, zone))?,
        D::ListView(item) => cell(&arrow::compute::cast(array, &D::List(item.clone()))?, zone)?,
        D::LargeListView(item) => cell(&arrow::compute::cast(array, &D::LargeList(item.clone()))?, zone)?,
        D::RunEndEncoded(_, value) => cell(&arrow::compute::cast(array, value.data_type())?, zone)?,
        // Text and bytes are themselves.
        _ => match bytes(array, |value, out| out.extend_from_slice(value)) {
            Some(cell) => cell,
            None => displayed(array)?,
        },
    })
}
