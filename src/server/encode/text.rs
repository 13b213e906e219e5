//! Values in their text form, as Postgres's output functions write them.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::*;

use super::number::{Decimal, float32, float64, integer};
use super::time::{self, Interval};
use super::{Cell, boolean, bytes, dictionary, displayed, json, nested, primitive};
use crate::error::Result;
use crate::time::zone::Zone;

pub fn cell(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    use DataType as D;
    Ok(match array.data_type() {
        // Never asked for a value.
        D::Null => Box::new(|_, _| Ok(())),
        D::Boolean => boolean(array, |value, out| out.push(if value { b't' } else { b'f' })),
        D::Int8 => primitive::<Int8Type>(array, integer),
        D::Int16 => primitive::<Int16Type>(array, integer),
        D::Int32 => primitive::<Int32Type>(array, integer),
        D::Int64 => primitive::<Int64Type>(array, integer),
        D::UInt8 => primitive::<UInt8Type>(array, integer),
        D::UInt16 => primitive::<UInt16Type>(array, integer),
        D::UInt32 => primitive::<UInt32Type>(array, integer),
        D::UInt64 => primitive::<UInt64Type>(array, integer),
        D::Float16 => primitive::<Float16Type>(array, |value, out| float32(value.to_f32(), out)),
        D::Float32 => primitive::<Float32Type>(array, float32),
        D::Float64 => primitive::<Float64Type>(array, float64),
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => {
            decimal(array, |value, out| value.text(out))
        }
        D::Utf8 | D::LargeUtf8 | D::Utf8View => match bytes(array, |text, out| out.extend_from_slice(text)) {
            Some(cell) => cell,
            None => displayed(array)?,
        },
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => match bytes(array, hex) {
            Some(cell) => cell,
            None => displayed(array)?,
        },
        D::Date32 | D::Date64 => date(array, time::date),
        D::Time32(_) | D::Time64(_) => time_of_day(array, time::time),
        D::Timestamp(_, Some(_)) if zone.is_utc() => {
            timestamp(array, |micros, out| time::timestamp_with_zone(micros, Zone::default(), out))
        }
        D::Timestamp(_, Some(_)) => timestamp(array, move |micros, out| time::timestamp_with_zone(micros, zone, out)),
        D::Timestamp(_, None) => timestamp(array, time::timestamp),
        D::Interval(_) | D::Duration(_) => interval(array, Interval::text),
        D::List(_) | D::LargeList(_) | D::FixedSizeList(..) => nested::array_text(array, zone)?,
        D::Struct(_) => nested::record_text(array, zone)?,
        D::Map(..) => json::cell(array, zone)?,
        D::Dictionary(..) => dictionary(array, |values| cell(values, zone))?,
        D::ListView(item) => cell(&arrow::compute::cast(array, &D::List(item.clone()))?, zone)?,
        D::LargeListView(item) => cell(&arrow::compute::cast(array, &D::LargeList(item.clone()))?, zone)?,
        D::RunEndEncoded(_, value) => cell(&arrow::compute::cast(array, value.data_type())?, zone)?,
        _ => displayed(array)?,
    })
}

/// `\x` and two digits a byte.
fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]));
}

pub fn decimal(array: &dyn Array, write: impl Fn(Decimal<'_>, &mut Vec<u8>) + Send + 'static) -> Cell {
    match *array.data_type() {
        DataType::Decimal32(_, scale) => {
            primitive::<Decimal32Type>(array, move |value, out| Decimal::of(value as i128, scale, |value| write(value, out)))
        }
        DataType::Decimal64(_, scale) => {
            primitive::<Decimal64Type>(array, move |value, out| Decimal::of(value as i128, scale, |value| write(value, out)))
        }
        DataType::Decimal128(_, scale) => {
            primitive::<Decimal128Type>(array, move |value, out| Decimal::of(value, scale, |value| write(value, out)))
        }
        DataType::Decimal256(_, scale) => {
            primitive::<Decimal256Type>(array, move |value, out| Decimal::of_wide(value, scale, |value| write(value, out)))
        }
        // Unsigned integers of 64 bits are numeric on the wire.
        _ => primitive::<UInt64Type>(array, move |value, out| Decimal::of(value as i128, 0, |value| write(value, out))),
    }
}

/// `write` takes days since 1970.
pub fn date(array: &dyn Array, write: impl Fn(i64, &mut Vec<u8>) + Send + 'static) -> Cell {
    match array.data_type() {
        DataType::Date64 => primitive::<Date64Type>(array, move |millis, out| write(time::days(millis), out)),
        _ => primitive::<Date32Type>(array, move |days, out| write(days as i64, out)),
    }
}

/// `write` takes microseconds since midnight.
pub fn time_of_day(array: &dyn Array, write: impl Fn(i64, &mut Vec<u8>) + Send + 'static) -> Cell {
    // A time outside the day is not one; it is brought into it rather than trusted.
    let write = move |micros: i64, out: &mut Vec<u8>| write(micros.clamp(0, 86_400_000_000), out);
    use TimeUnit::*;
    match array.data_type() {
        DataType::Time32(Second) => {
            primitive::<Time32SecondType>(array, move |v, out| write(time::micros(v as i64, Second), out))
        }
        DataType::Time32(_) => {
            primitive::<Time32MillisecondType>(array, move |v, out| write(time::micros(v as i64, Millisecond), out))
        }
        DataType::Time64(Nanosecond) => {
            primitive::<Time64NanosecondType>(array, move |v, out| write(time::micros(v, Nanosecond), out))
        }
        _ => primitive::<Time64MicrosecondType>(array, write),
    }
}

/// `write` takes microseconds since 1970.
pub fn timestamp(array: &dyn Array, write: impl Fn(i64, &mut Vec<u8>) + Send + 'static) -> Cell {
    use TimeUnit::*;
    match array.data_type() {
        DataType::Timestamp(Second, _) => {
            primitive::<TimestampSecondType>(array, move |v, out| write(time::micros(v, Second), out))
        }
        DataType::Timestamp(Millisecond, _) => {
            primitive::<TimestampMillisecondType>(array, move |v, out| write(time::micros(v, Millisecond), out))
        }
        DataType::Timestamp(Nanosecond, _) => {
            primitive::<TimestampNanosecondType>(array, move |v, out| write(time::micros(v, Nanosecond), out))
        }
        _ => primitive::<TimestampMicrosecondType>(array, write),
    }
}

pub fn interval(array: &dyn Array, write: impl Fn(Interval, &mut Vec<u8>) + Send + 'static) -> Cell {
    use DataType as D;
    use TimeUnit::*;
    let only = |micros: i64| Interval { months: 0, days: 0, micros };
    match array.data_type() {
        D::Interval(IntervalUnit::YearMonth) => {
            primitive::<IntervalYearMonthType>(array, move |months, out| write(Interval { months, days: 0, micros: 0 }, out))
        }
        D::Interval(IntervalUnit::DayTime) => primitive::<IntervalDayTimeType>(array, move |value, out| {
            write(Interval { months: 0, days: value.days, micros: value.milliseconds as i64 * 1000 }, out)
        }),
        D::Duration(Second) => primitive::<DurationSecondType>(array, move |v, out| write(only(time::micros(v, Second)), out)),
        D::Duration(Millisecond) => {
            primitive::<DurationMillisecondType>(array, move |v, out| write(only(time::micros(v, Millisecond)), out))
        }
        D::Duration(Microsecond) => primitive::<DurationMicrosecondType>(array, move |v, out| write(only(v), out)),
        D::Duration(Nanosecond) => primitive::<DurationNanosecondType>(array, move |v, out| write(only(v / 1000), out)),
        _ => primitive::<IntervalMonthDayNanoType>(array, move |value, out| {
            write(Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }, out)
        }),
    }
}
