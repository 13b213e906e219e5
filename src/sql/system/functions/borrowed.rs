//! What functions of ksqlDB and Flink do that no function of PostgreSQL does.
//!
//! One bad record must not stop a view, so what does not fit gives NULL, as it does there.

use arrow::datatypes::{DataType, FieldRef};
use chrono::format::{Parsed, StrftimeItems, parse};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::value::Value;
use super::{Spec, flag, immutable, int, text};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    // A text by a pattern of `strftime`'s: PARSE_TIMESTAMP and its kin.
    immutable("time_by_pattern", &[&["text", "text"]], "timestamp", |_, values| {
        Ok(moment(text(values, 0), text(values, 1)).into())
    }),
    // Where a text stands in another: from a character on, counted from the end if that is negative, the nth time.
    immutable("text_place", &[&["text", "text", "int4", "int4"]], "int4", |_, values| {
        Ok(place(text(values, 0), text(values, 1), int(values, 2), int(values, 3)).into())
    }),
    // `a=1,b=2` as pairs; the last argument says whether a part without the second delimiter is a key.
    immutable("text_pairs", &[&["text", "text", "text", "bool"]], "text[][]", |_, values| pairs(values)),
    immutable("unix_timestamp", &[&["any"]], "int8", unix_timestamp),
    immutable("to_bin", &[&["int8"]], "text", |_, values| Ok(format!("{:b}", int(values, 0)).into())),
    immutable("hex_of", &[&["any"]], "text", |_, values| Ok(hex(&values[0]).into())),
    immutable("sha1_of", &[&["any"]], "text", |_, values| {
        let bytes = values[0].text().map(str::as_bytes).or(values[0].bytes()).unwrap_or_default();
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
        Ok(hex(&Value::Bytes(digest.as_ref().to_vec())).map(|hex| hex.to_lowercase()).into())
    }),
    immutable("int_from_bytes", ORDERED, "int4", |_, values| Ok(i32::from_be_bytes(bytes(values)?).into())),
    immutable("bigint_from_bytes", ORDERED, "int8", |_, values| Ok(i64::from_be_bytes(bytes(values)?).into())),
    immutable("double_from_bytes", ORDERED, "float8", |_, values| Ok(f64::from_be_bytes(bytes(values)?).into())),
];

const ORDERED: &[&[&str]] = &[&["bytea"], &["bytea", "text"]];

/// Microseconds since 1970. What a pattern leaves out is the beginning: the first month, the first day, midnight. With an offset, it is
/// the time in UTC.
fn moment(text: &str, pattern: &str) -> Option<i64> {
    let mut read = Parsed::new();
    parse(&mut read, text, StrftimeItems::new(pattern)).ok()?;
    civil(&mut read)?.and_utc().timestamp_micros().checked_sub(i64::from(read.offset().unwrap_or(0)) * 1_000_000)
}

fn civil(read: &mut Parsed) -> Option<NaiveDateTime> {
    let date = match read.to_naive_date() {
        Ok(date) => date,
        Err(_) => {
            let (year, month, day) = (read.year().unwrap_or(1970), read.month().unwrap_or(1), read.day().unwrap_or(1));
            NaiveDate::from_ymd_opt(year, month, day).filter(|_| read.ordinal().is_none() && read.weekday().is_none())?
        }
    };
    let is_clock = read.hour_mod_12().is_some() || read.minute().is_some() || read.second().is_some();
    if read.minute().is_none() && read.hour_mod_12().is_some() {
        read.set_minute(0).ok()?;
    }
    let time = if is_clock { read.to_naive_time().ok()? } else { NaiveTime::MIN };
    Some(date.and_time(time))
}

/// From 1; 0: nowhere.
fn place(whole: &str, part: &str, from: i64, nth: i64) -> i64 {
    let whole: Vec<char> = whole.chars().collect();
    let part: Vec<char> = part.chars().collect();
    if from == 0 || nth < 1 || part.is_empty() || part.len() > whole.len() {
        return 0;
    }
    let is_there = |at: &usize| whole[*at..].starts_with(&part);
    let last = whole.len() - part.len();
    let distance = usize::try_from(from.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let nth = usize::try_from(nth - 1).unwrap_or(usize::MAX);
    let found = match from > 0 {
        true => (distance.min(last + 1)..=last).filter(is_there).nth(nth),
        false => {
            let Some(start) = (whole.len() - 1).checked_sub(distance) else { return 0 };
            (0..=start.min(last)).rev().filter(is_there).nth(nth)
        }
    };
    found.map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX - 1) + 1)
}

fn pairs(values: &[Value]) -> Result<Value> {
    let (whole, between, within) = (text(values, 0), text(values, 1), text(values, 2));
    if between.is_empty() || within.is_empty() {
        return Err(Error::invalid_parameter("a delimiter of pairs is empty"));
    }
    let pair = |part: &str| match part.split_once(within) {
        Some((key, value)) => Some(Value::List(vec![key.into(), value.into()])),
        None => flag(values, 3).then(|| Value::List(vec![part.into(), Value::Null])),
    };
    Ok(Value::List(whole.split(between).filter_map(pair).collect()))
}

/// Of a time, ksqlDB's milliseconds; of a text, Flink's seconds.
fn unix_timestamp(fields: &[FieldRef], values: &[Value]) -> Result<Value> {
    match (fields.first().map(|field| field.data_type()), &values[0]) {
        (Some(DataType::Timestamp(..) | DataType::Date32), Value::Int(micros)) => Ok(micros.div_euclid(1000).into()),
        (_, Value::Text(text)) => Ok(moment(text, "%Y-%m-%d %H:%M:%S").map(|micros| micros.div_euclid(1_000_000)).into()),
        _ => Err(Error::undefined_function("function unix_timestamp takes a time, or the text of one")),
    }
}

fn hex(value: &Value) -> Option<String> {
    let of_bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    match value {
        Value::Int(number) => Some(format!("{number:X}")),
        Value::Text(text) => Some(of_bytes(text.as_bytes())),
        Value::Bytes(bytes) => Some(of_bytes(bytes)),
        _ => None,
    }
}

/// So many bytes, the greatest first.
fn bytes<const N: usize>(values: &[Value]) -> Result<[u8; N]> {
    let given = values[0].bytes().unwrap_or_default();
    let mut bytes: [u8; N] = given
        .try_into()
        .map_err(|_| Error::invalid_parameter(format!("a number of {N} bytes is made of {} bytes", given.len())))?;
    match values.get(1).and_then(Value::text) {
        Some("LITTLE_ENDIAN") => bytes.reverse(),
        None | Some("BIG_ENDIAN") => {}
        Some(other) => {
            let error = Error::invalid_parameter(format!("{other} is no order of bytes"));
            return Err(error.with_hint("write BIG_ENDIAN or LITTLE_ENDIAN"));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2025-01-05 10:20:30.25", "%Y-%m-%d %H:%M:%S%.f", Some(1_736_072_430_250_000))]
    #[case("2025-01", "%Y-%m", Some(1_735_689_600_000_000))]
    #[case("2025-01-01 10", "%Y-%m-%d %H", Some(1_735_725_600_000_000))]
    #[case("10:20", "%H:%M", Some(37_200_000_000))]
    #[case("2025-01-01 00:00 +01:00", "%Y-%m-%d %H:%M %:z", Some(1_735_686_000_000_000))]
    #[case("2025-02-30", "%Y-%m-%d", None)]
    #[case("2025-01-01 25:00", "%Y-%m-%d %H:%M", None)]
    #[case("yesterday", "%Y-%m-%d", None)]
    #[case("2025-01-01x", "%Y-%m-%d", None)]
    fn texts_are_moments(#[case] text: &str, #[case] pattern: &str, #[case] expected: Option<i64>) {
        assert_eq!(moment(text, pattern), expected);
    }

    #[rstest]
    #[case("abcabc", "b", 1, 1, 2)]
    #[case("abcabc", "b", 1, 2, 5)]
    #[case("abcabc", "b", 3, 1, 5)]
    #[case("abcabc", "b", -1, 1, 5)]
    #[case("abcabc", "b", -3, 1, 2)]
    #[case("abcabc", "bc", -1, 2, 2)]
    #[case("abcabc", "b", 1, 3, 0)]
    #[case("abc", "b", 9, 1, 0)]
    #[case("abc", "b", -9, 1, 0)]
    #[case("abc", "", 1, 1, 0)]
    #[case("", "a", -1, 1, 0)]
    #[case("é1é", "1", 1, 1, 2)]
    fn places(#[case] whole: &str, #[case] part: &str, #[case] from: i64, #[case] nth: i64, #[case] expected: i64) {
        assert_eq!(place(whole, part, from, nth), expected);
    }

    #[test]
    fn bytes_are_numbers() {
        let given = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        assert_eq!(bytes::<2>(&[given(&[1, 2])]).unwrap(), [1, 2]);
        assert_eq!(bytes::<2>(&[given(&[1, 2]), "LITTLE_ENDIAN".into()]).unwrap(), [2, 1]);
        assert!(bytes::<2>(&[given(&[1])]).is_err() && bytes::<2>(&[given(&[1, 2]), "x".into()]).is_err());
    }
}
