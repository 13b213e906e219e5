//! Type modifiers: what `varchar(10)`, `timestamp(3)` or `uuid` demand of values beyond their Arrow type.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StringArray, StringBuilder};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, Time64MicrosecondType, TimeUnit};
use arrow::datatypes::{TimestampMicrosecondType, i256};

use datafusion::common::ScalarValue;

use super::column::check_utf8;
use super::fields::Bad;
use super::value::{self, invalid_syntax};
use crate::error::Error;
use crate::time::POSTGRES_EPOCH;

/// Read from a column's SQL type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    None,
    /// At most so many characters.
    Length {
        limit: usize,
        name: &'static str,
    },
    /// Fractions of a second kept: microseconds are rounded to a multiple of this.
    Precision {
        unit: i64,
    },
    /// A number of so many digits.
    Digits {
        precision: u8,
        scale: i8,
    },
    Json,
    Jsonb,
    Uuid,
}

impl Modifier {
    pub fn new(sql_type: &str, data_type: &DataType) -> Modifier {
        let argument = || sql_type.split_once('(')?.1.split_once(')')?.0.trim().parse::<usize>().ok();
        let base = sql_type.split(['(', ' ', '[']).next().unwrap_or_default();
        let data_type = innermost(data_type);
        match (base, data_type) {
            ("character" | "varchar" | "char" | "bpchar", _) => {
                let varying = base == "varchar" || sql_type.starts_with("character varying");
                let name = if varying { "character varying" } else { "character" };
                // A plain `character` is one character long.
                let plain = (!varying && base != "bpchar").then_some(1);
                argument().or(plain).map_or(Modifier::None, |limit| Modifier::Length { limit, name })
            }
            ("timestamp" | "timestamptz" | "time", _) => argument().map_or(Modifier::None, Modifier::of_digits),
            (_, DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)) => {
                Modifier::Digits { precision: *precision, scale: *scale }
            }
            ("json", DataType::Utf8) => Modifier::Json,
            ("jsonb", DataType::Utf8) => Modifier::Jsonb,
            ("uuid", DataType::Utf8) => Modifier::Uuid,
            _ => Modifier::None,
        }
    }

    /// Of a time with so many digits of a second.
    pub fn of_digits(digits: usize) -> Modifier {
        match digits {
            0..6 => Modifier::Precision { unit: 10i64.pow(6 - digits as u32) },
            _ => Modifier::None,
        }
    }

    /// The values as they may be stored, or the first that may not; `None` when all can stay as they are.
    pub(crate) fn apply(self, array: &ArrayRef) -> Result<Option<ArrayRef>, Bad> {
        match (self, array.data_type()) {
            (Modifier::Length { limit, name }, DataType::Utf8) => length(array.as_string(), limit, name),
            // PostgreSQL's are numbers since its own epoch.
            (Modifier::Precision { unit }, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                Ok(round::<TimestampMicrosecondType>(array, unit, POSTGRES_EPOCH))
            }
            (Modifier::Precision { unit }, DataType::Time64(TimeUnit::Microsecond)) => {
                Ok(round::<Time64MicrosecondType>(array, unit, 0))
            }
            (Modifier::Digits { precision, scale }, DataType::Decimal128(..)) => {
                let limit = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
                digits::<Decimal128Type>(array, precision, scale, |v| -limit < v && v < limit)
            }
            (Modifier::Digits { precision, scale }, DataType::Decimal256(..)) => {
                let limit = i256::from_i128(10).checked_pow(u32::from(precision)).unwrap_or(i256::MAX);
                digits::<Decimal256Type>(array, precision, scale, |v| limit.wrapping_neg() < v && v < limit)
            }
            (Modifier::Json, DataType::Utf8) => json(array.as_string()),
            (Modifier::Jsonb, DataType::Utf8) => jsonb(array.as_string()),
            (Modifier::Uuid, DataType::Utf8) => uuid(array.as_string()),
            (Modifier::None, _) => Ok(None),
            (_, DataType::List(_)) => self.apply_to_elements(array.as_list()),
            _ => Ok(None),
        }
    }

    fn apply_to_elements(self, lists: &ListArray) -> Result<Option<ArrayRef>, Bad> {
        let row_of = |element: usize| lists.offsets().partition_point(|end| *end as usize <= element).saturating_sub(1);
        let applied = self.apply(lists.values()).map_err(|bad| Bad { row: row_of(bad.row), ..bad })?;
        let DataType::List(field) = lists.data_type() else { return Ok(None) };
        let rebuilt = |values| ListArray::new(Arc::clone(field), lists.offsets().clone(), values, lists.nulls().cloned());
        Ok(applied.map(|values| Arc::new(rebuilt(values)) as ArrayRef))
    }
}

/// A value as its type spells it: a UUID, a document, and arrays of them, which are text to Arrow.
pub fn canonical(value: ScalarValue, sql_type: &str) -> Result<ScalarValue, Error> {
    let modifier = Modifier::new(sql_type, &value.data_type());
    if !matches!(modifier, Modifier::Json | Modifier::Jsonb | Modifier::Uuid) {
        return Ok(value);
    }
    match modifier.apply(&value.to_array()?).map_err(|bad| bad.error)? {
        Some(spelled) => Ok(ScalarValue::try_from_array(&spelled, 0)?),
        None => Ok(value),
    }
}

/// The type of an array's elements, whatever its dimensions; others are their own.
pub fn innermost(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) => innermost(item.data_type()),
        other => other,
    }
}

/// Spaces beyond the limit are cut off, as SQL wants it; anything else is an error.
fn length(array: &StringArray, limit: usize, name: &str) -> Result<Option<ArrayRef>, Bad> {
    let mut cut = false;
    for (row, text) in array.iter().enumerate() {
        let Some(text) = text.filter(|text| text.len() > limit) else { continue };
        let Some((end, _)) = text.char_indices().nth(limit) else { continue };
        if text[end..].bytes().any(|b| b != b' ') {
            let message = format!("value too long for type {name}({limit})");
            return Err(Bad { row, error: Error::string_too_long(message) });
        }
        cut = true;
    }
    let shorten = |text: &'_ str| text.char_indices().nth(limit).map_or(text.len(), |(end, _)| end);
    Ok(cut.then(|| Arc::new(array.iter().map(|text| text.map(|t| &t[..shorten(t)])).collect::<StringArray>()) as ArrayRef))
}

/// To the nearest multiple; a half goes away from `zero`, which is a multiple itself.
fn round<T: ArrowPrimitiveType<Native = i64>>(array: &ArrayRef, unit: i64, zero: i64) -> Option<ArrayRef> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    if array.values().iter().all(|value| value % unit == 0) {
        return None;
    }
    let round = |value: i64| {
        let from_zero = value.saturating_sub(zero);
        let half = if from_zero < 0 { -unit / 2 } else { unit / 2 };
        (from_zero.saturating_add(half) / unit * unit).saturating_add(zero)
    };
    Some(Arc::new(array.unary::<_, T>(round).with_data_type(array.data_type().clone())))
}

fn digits<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    precision: u8,
    scale: i8,
    fits: impl Fn(T::Native) -> bool,
) -> Result<Option<ArrayRef>, Bad> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    match (0..array.len()).find(|row| array.is_valid(*row) && !fits(array.value(*row))) {
        Some(row) => Err(Bad { row, error: value::numeric_overflow(precision, scale) }),
        None => Ok(None),
    }
}

fn json(array: &StringArray) -> Result<Option<ArrayRef>, Bad> {
    for (row, text) in array.iter().enumerate() {
        if let Some(text) = text {
            super::json::check(text.as_bytes()).map_err(Bad::at(row))?;
        }
    }
    Ok(None)
}

/// All spellings of a document to the one that stands for its value.
fn jsonb(array: &StringArray) -> Result<Option<ArrayRef>, Bad> {
    let mut changed = false;
    let mut out = StringBuilder::with_capacity(array.len(), array.value_data().len());
    for (row, text) in array.iter().enumerate() {
        let document = text.map(super::json::canonical).transpose().map_err(Bad::at(row))?;
        changed |= document.as_deref() != text;
        out.append_option(document);
    }
    Ok(changed.then(|| Arc::new(out.finish()) as ArrayRef))
}

/// All spellings of a UUID to the one in lower case with four hyphens.
fn uuid(array: &StringArray) -> Result<Option<ArrayRef>, Bad> {
    if array.iter().flatten().all(is_canonical_uuid) {
        return Ok(None);
    }
    let mut out = StringBuilder::new();
    for (row, text) in array.iter().enumerate() {
        out.append_option(text.map(canonical_uuid).transpose().map_err(Bad::at(row))?);
    }
    Ok(Some(Arc::new(out.finish())))
}

fn is_canonical_uuid(text: &str) -> bool {
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 36 && text.bytes().enumerate().all(|(at, b)| if matches!(at, 8 | 13 | 18 | 23) { b == b'-' } else { digit(b) })
}

/// A UUID in its usual spelling: lower case, four hyphens.
pub fn canonical_uuid(text: &str) -> Result<String, Error> {
    let invalid = || invalid_syntax("uuid", text.as_bytes());
    let body = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(invalid)?,
        None => text,
    };
    let mut digits = Vec::with_capacity(36);
    let mut since_hyphen = 0;
    for byte in body.bytes() {
        match byte {
            b'-' if since_hyphen > 0 && since_hyphen % 4 == 0 => since_hyphen = 0,
            b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                if matches!(digits.len(), 8 | 13 | 18 | 23) {
                    digits.push(b'-');
                }
                digits.push(byte.to_ascii_lowercase());
                since_hyphen += 1;
            }
            _ => return Err(invalid()),
        }
        if digits.len() > 36 {
            return Err(invalid());
        }
    }
    if digits.len() != 36 || since_hyphen == 0 {
        return Err(invalid());
    }
    check_utf8(&digits).map(str::to_string)
}
