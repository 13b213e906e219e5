//! Values to text, in PostgreSQL's output form (DateStyle ISO, IntervalStyle postgres, shortest floats). An instant is shown in
//! the zone that its type names.

use std::io::Write;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::*;

use super::{DAY, HOUR, MINUTE, SECOND, civil_from_days};
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::time::zone::Zone;

/// Appends the text of the value in a row. The caller sees to NULLs.
pub type Writer = Box<dyn Fn(usize, &mut Vec<u8>) + Send>;

/// How the values of an array are written as text.
pub fn text_writer(array: &ArrayRef) -> Result<Writer> {
    let array = canonical(array)?;
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, _| {}),
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| out.push(if array.value(row) { b't' } else { b'f' }))
        }
        DataType::Int8 => primitive::<Int8Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::Int16 => primitive::<Int16Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::Int32 => primitive::<Int32Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::Int64 => primitive::<Int64Type>(&array, |v, out| push_int(out, v)),
        DataType::UInt8 => primitive::<UInt8Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::UInt16 => primitive::<UInt16Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::UInt32 => primitive::<UInt32Type>(&array, |v, out| push_int(out, i64::from(v))),
        DataType::UInt64 => primitive::<UInt64Type>(&array, |v, out| push_unsigned(out, v)),
        DataType::Float32 => primitive::<Float32Type>(&array, |v, out| push_float32(out, v)),
        DataType::Float64 => primitive::<Float64Type>(&array, |v, out| push_float64(out, v)),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            primitive::<Decimal128Type>(&array, move |v, out| push_numeric(out, v, scale))
        }
        DataType::Decimal256(_, scale) => {
            let scale = *scale;
            primitive::<Decimal256Type>(&array, move |v, out| push_digits(out, &v.to_string(), scale))
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>().clone();
            Box::new(move |row, out| out.extend_from_slice(array.value(row).as_bytes()))
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>().clone();
            Box::new(move |row, out| push_bytea(out, array.value(row)))
        }
        DataType::Date32 => primitive::<Date32Type>(&array, |v, out| push_date(out, v)),
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(&array, |v, out| push_time(out, v)),
        DataType::Timestamp(_, None) => primitive::<TimestampMicrosecondType>(&array, |v, out| push_timestamp(out, v)),
        DataType::Timestamp(_, Some(zone)) => {
            let zone = Zone::of_type(zone);
            primitive::<TimestampMicrosecondType>(&array, move |v, out| push_timestamptz(out, v, zone))
        }
        DataType::Interval(_) => primitive::<IntervalMonthDayNanoType>(&array, |v, out| push_interval(out, v)),
        DataType::List(_) => list_writer(&array)?,
        DataType::Struct(_) => record_writer(&array)?,
        DataType::Map(..) => crate::copy::json::json_writer(&array)?,
        other => return Err(Error::unsupported(format!("values of type {other} have no text form"))),
    })
}

/// The array as the one type that stands for its family: a timestamp of microseconds for all timestamps, and so on.
pub(crate) fn canonical(array: &ArrayRef) -> Result<ArrayRef> {
    let to = match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime) | DataType::Duration(_) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => DataType::List(field.clone()),
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        _ => return Ok(array.clone()),
    };
    canonical(&cast(array, &to)?)
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef, push: impl Fn(T::Native, &mut Vec<u8>) + Send + 'static) -> Writer {
    let array: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |row, out| push(array.value(row), out))
}

fn list_writer(array: &ArrayRef) -> Result<Writer> {
    let list = array.as_list::<i32>().clone();
    let items = list.values().clone();
    let item = text_writer(&items)?;
    let nested = matches!(items.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
    Ok(Box::new(move |row, out| {
        let offsets = list.value_offsets();
        out.push(b'{');
        for at in offsets[row] as usize..offsets[row + 1] as usize {
            if at > offsets[row] as usize {
                out.push(b',');
            }
            if items.is_null(at) {
                out.extend_from_slice(b"NULL");
            } else if nested {
                item(at, out);
            } else {
                let start = out.len();
                item(at, out);
                let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',') || b.is_ascii_whitespace() || *b == 0x0b;
                quote_if(out, start, special, true, b'\\');
            }
        }
        out.push(b'}');
    }))
}

fn record_writer(array: &ArrayRef) -> Result<Writer> {
    let columns = array.as_struct().columns().to_vec();
    let writers = columns.iter().map(text_writer).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row, out| {
        out.push(b'(');
        for (i, (column, writer)) in columns.iter().zip(&writers).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if !column.is_null(row) {
                let start = out.len();
                writer(row, out);
                let special = |b: &u8| matches!(b, b'"' | b'\\' | b'(' | b')' | b',') || b.is_ascii_whitespace() || *b == 0x0b;
                quote_if(out, start, special, false, b'"');
            }
        }
        out.push(b')');
    }))
}

/// Put quotes around what was written since `start` if it is empty, has a special byte, or could be taken for NULL.
fn quote_if(out: &mut Vec<u8>, start: usize, special: impl Fn(&u8) -> bool, null_word: bool, escape_quote_by: u8) {
    let text = &out[start..];
    let is_null_word = null_word && text.eq_ignore_ascii_case(b"null");
    if !(text.is_empty() || is_null_word || text.iter().any(special)) {
        return;
    }
    let text = out.split_off(start);
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.push(escape_quote_by),
            b'\\' => out.push(b'\\'),
            _ => {}
        }
        out.push(byte);
    }
    out.push(b'"');
}

pub fn push_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_unsigned(out, value.unsigned_abs());
}

pub fn push_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[at..]);
}

/// A number of a fixed count of digits.
fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    push_unsigned(out, value);
    let digits = out.len() - start;
    for _ in digits..width {
        out.insert(start, b'0');
    }
}

#[inline]
fn push_two(out: &mut Vec<u8>, value: u64) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// The value × 10^scale as a decimal with all its decimals.
pub fn push_numeric(out: &mut Vec<u8>, value: i128, scale: i8) {
    match (u64::try_from(value.unsigned_abs()), usize::try_from(scale)) {
        (Ok(magnitude), Ok(scale)) if scale < 19 => {
            if value < 0 {
                out.push(b'-');
            }
            let unit = 10u64.pow(scale as u32);
            push_unsigned(out, magnitude / unit);
            if scale > 0 {
                out.push(b'.');
                push_padded(out, magnitude % unit, scale);
            }
        }
        _ => push_digits(out, &value.to_string(), scale),
    }
}

/// The same from digits with a sign.
fn push_digits(out: &mut Vec<u8>, digits: &str, scale: i8) {
    let magnitude = digits.strip_prefix('-').unwrap_or(digits);
    if magnitude.len() < digits.len() {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(magnitude.as_bytes());
        if magnitude != "0" {
            out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let scale = scale as usize;
    let padded = format!("{magnitude:0>width$}", width = scale + 1);
    let (whole, decimals) = padded.split_at(padded.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    out.push(b'.');
    out.extend_from_slice(decimals.as_bytes());
}

pub fn push_float64(out: &mut Vec<u8>, value: f64) {
    push_float(out, value, value.is_nan(), value.is_infinite(), value.is_sign_negative(), 15);
}

pub fn push_float32(out: &mut Vec<u8>, value: f32) {
    push_float(out, value, value.is_nan(), value.is_infinite(), value.is_sign_negative(), 6);
}

/// The shortest digits that read back as the same value; with an exponent below 1e-4 and from 10^`digits` on.
fn push_float(out: &mut Vec<u8>, value: impl std::fmt::LowerExp, nan: bool, infinite: bool, negative: bool, digits: i32) {
    if nan {
        return out.extend_from_slice(b"NaN");
    }
    if infinite {
        return out.extend_from_slice(if negative { b"-Infinity" } else { b"Infinity" });
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a Vec can't fail.
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
        return;
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    out.extend_from_slice(sign.as_bytes());
    let digits: Vec<u8> = mantissa.bytes().filter(|b| *b != b'.').collect();
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        return out.extend_from_slice(&digits);
    }
    let whole = exponent as usize + 1;
    for at in 0..whole.max(digits.len()) {
        if at == whole {
            out.push(b'.');
        }
        out.push(digits.get(at).copied().unwrap_or(b'0'));
    }
}

pub fn push_bytea(out: &mut Vec<u8>, value: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in value {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

pub fn push_date(out: &mut Vec<u8>, days: i32) {
    let bc = push_day(out, i64::from(days));
    out.extend_from_slice(bc);
}

/// Year, month and day; returns what stands behind the time of a date before Christ.
fn push_day(out: &mut Vec<u8>, days: i64) -> &'static [u8] {
    let (year, month, day) = civil_from_days(days);
    let (year, bc): (_, &[u8]) = if year > 0 { (year, b"") } else { (1 - year, b" BC") };
    match year {
        0..10_000 => {
            push_two(out, year as u64 / 100);
            push_two(out, year as u64 % 100);
        }
        _ => push_unsigned(out, year as u64),
    }
    out.push(b'-');
    push_two(out, u64::from(month));
    out.push(b'-');
    push_two(out, u64::from(day));
    bc
}

pub fn push_time(out: &mut Vec<u8>, micros: Micros) {
    push_hours(out, micros.unsigned_abs());
}

/// `hh:mm:ss.fraction`, without the zeros at its end.
fn push_hours(out: &mut Vec<u8>, micros: u64) {
    push_hours_of(out, micros / HOUR as u64);
    out.push(b':');
    push_two(out, micros / MINUTE as u64 % 60);
    out.push(b':');
    push_two(out, micros / SECOND as u64 % 60);
    let fraction = micros % SECOND as u64;
    if fraction > 0 {
        out.push(b'.');
        push_padded(out, fraction, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

pub fn push_timestamp(out: &mut Vec<u8>, micros: Micros) {
    let bc = push_day(out, micros.div_euclid(DAY));
    out.push(b' ');
    push_time(out, micros.rem_euclid(DAY));
    out.extend_from_slice(bc);
}

/// As the clocks of a zone show it, and how far that is east of Greenwich.
pub fn push_timestamptz(out: &mut Vec<u8>, micros: Micros, zone: Zone) {
    let east = zone.offset(micros);
    let local = micros.saturating_add(i64::from(east) * SECOND);
    let bc = push_day(out, local.div_euclid(DAY));
    out.push(b' ');
    push_time(out, local.rem_euclid(DAY));
    push_offset(out, east, false);
    out.extend_from_slice(bc);
}

/// Seconds east of Greenwich: `+02`, `-03:30`; with minutes always, if they are asked for.
pub fn push_offset(out: &mut Vec<u8>, east: i32, minutes: bool) {
    out.push(if east < 0 { b'-' } else { b'+' });
    let size = u64::from(east.unsigned_abs());
    push_hours_of(out, size / 3600);
    if minutes || size % 3600 != 0 {
        out.push(b':');
        push_two(out, size / 60 % 60);
    }
    if size % 60 != 0 {
        out.push(b':');
        push_two(out, size % 60);
    }
}

fn push_hours_of(out: &mut Vec<u8>, hours: u64) {
    if hours < 100 { push_two(out, hours) } else { push_unsigned(out, hours) }
}

pub fn push_interval(out: &mut Vec<u8>, value: IntervalMonthDayNano) {
    let start = out.len();
    let mut after_negative = false;
    for (count, unit) in [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")] {
        if count != 0 {
            let space = if out.len() > start { " " } else { "" };
            let plus = if after_negative && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            // Writing to a Vec can't fail.
            let _ = write!(out, "{space}{plus}{count} {unit}{plural}");
            after_negative = count < 0;
        }
    }
    let micros = value.nanoseconds / 1000;
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if after_negative {
            out.push(b'+');
        }
        push_hours(out, micros.unsigned_abs());
    }
}
