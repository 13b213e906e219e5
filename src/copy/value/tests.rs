use arrow::datatypes::IntervalMonthDayNano;
use rstest::rstest;

use super::write::*;
use super::*;
use crate::error::Result;
use crate::time::zone::Zone;

fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    push(&mut out);
    String::from_utf8(out).unwrap()
}

fn or_error<T>(value: Result<T>, show: impl FnOnce(&mut Vec<u8>, T)) -> String {
    match value {
        Ok(value) => text(|out| show(out, value)),
        Err(error) => format!("{} {}", error.state().code(), error.message()),
    }
}

#[rstest]
#[case("0", "0")]
#[case("-1", "-1")]
#[case(" +42\n", "42")]
#[case("1234567890123456789", "1234567890123456789")]
#[case("9223372036854775807", "9223372036854775807")]
#[case("-9223372036854775808", "-9223372036854775808")]
#[case("9223372036854775808", "22003 value \"9223372036854775808\" is out of range for type bigint")]
#[case("000000000000000000000001", "1")]
#[case("12345678x", "22P02 invalid input syntax for type bigint: \"12345678x\"")]
#[case("1234567:", "22P02 invalid input syntax for type bigint: \"1234567:\"")]
#[case("1.5", "22P02 invalid input syntax for type bigint: \"1.5\"")]
#[case("", "22P02 invalid input syntax for type bigint: \"\"")]
#[case("-", "22P02 invalid input syntax for type bigint: \"-\"")]
fn integers(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_int::<i64>(input.as_bytes()), push_int), expected);
}

#[rstest]
#[case("1.5", "1.50")]
#[case("-1.5", "-1.50")]
#[case(".5", "0.50")]
#[case("5.", "5.00")]
#[case("-0.005", "-0.01")]
#[case("0.004999", "0.00")]
#[case("1e3", "1000.00")]
#[case("12345e-3", "12.35")]
#[case("99999999.994", "99999999.99")]
#[case("99999999.995", "22003 numeric field overflow")]
#[case("100000000", "22003 numeric field overflow")]
#[case("1e999999999999", "22003 numeric field overflow")]
#[case("1e-999999999999", "0.00")]
#[case("0e999999999999", "0.00")]
#[case("NaN", "22003 cannot store \"NaN\" in a column of type numeric")]
#[case("1e", "22P02 invalid input syntax for type numeric: \"1e\"")]
#[case(".", "22P02 invalid input syntax for type numeric: \".\"")]
#[case("1.2.3", "22P02 invalid input syntax for type numeric: \"1.2.3\"")]
fn numerics(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_numeric(input.as_bytes(), 10, 2), |out, v| push_numeric(out, v, 2)), expected);
}

#[rstest]
#[case("1e15", "1e+15")]
#[case("123456789012345", "123456789012345")]
#[case("0.0001", "0.0001")]
#[case("0.00001", "1e-05")]
#[case("-1.5", "-1.5")]
#[case("1.2345678901234568e+17", "1.2345678901234568e+17")]
#[case("infinity", "Infinity")]
#[case("-inf", "-Infinity")]
#[case("nan", "NaN")]
#[case("-0", "-0")]
#[case("1e400", "22003 \"1e400\" is out of range for type double precision")]
#[case("1e-400", "22003 \"1e-400\" is out of range for type double precision")]
#[case("abc", "22P02 invalid input syntax for type double precision: \"abc\"")]
fn floats(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_float64(input.as_bytes()), push_float64), expected);
}

#[rstest]
#[case("2025-01-01 10:00:00.123", "2025-01-01 10:00:00.123")]
#[case("2025-01-01T10:00", "2025-01-01 10:00:00")]
#[case("2025-01-01", "2025-01-01 00:00:00")]
#[case("2025-01-01 10:00:00.1234565", "2025-01-01 10:00:00.123457")]
#[case("2025-01-01 10:00:00+05:30", "2025-01-01 10:00:00")]
#[case("2025-01-01 24:00:00", "2025-01-02 00:00:00")]
#[case("2025-12-31 23:59:60", "2026-01-01 00:00:00")]
#[case("2024-02-29 00:00:00Z", "2024-02-29 00:00:00")]
#[case("2025-1-8 4:05", "2025-01-08 04:05:00")]
#[case("20250108T040506", "2025-01-08 04:05:06")]
#[case("Jan 8, 1999 4:05 PM", "1999-01-08 16:05:00")]
#[case("8-Jan-1999", "1999-01-08 00:00:00")]
#[case("1/8/1999", "1999-01-08 00:00:00")]
#[case("0044-03-15 12:00:00 BC", "0044-03-15 12:00:00 BC")]
#[case("12345-01-01 00:00:00", "12345-01-01 00:00:00")]
#[case("epoch", "1970-01-01 00:00:00")]
#[case("2025-02-29", "22008 date/time field value out of range: \"2025-02-29\"")]
#[case("2025-13-01 00:00:00", "22008 date/time field value out of range: \"2025-13-01 00:00:00\"")]
#[case("2025-01-01 25:00:00", "22008 date/time field value out of range: \"2025-01-01 25:00:00\"")]
#[case("1735689600000", "22007 invalid input syntax for type timestamp: \"1735689600000\"")]
#[case("now", "22007 invalid input syntax for type timestamp: \"now\"")]
#[case("", "22007 invalid input syntax for type timestamp: \"\"")]
#[case("999999-01-01", "22008 timestamp out of range: \"999999-01-01\"")]
fn timestamps(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_timestamp(input.as_bytes(), Formats::default()), push_timestamp), expected);
}

#[rstest]
#[case("2025-01-01 10:00:00", "2025-01-01 10:00:00+00")]
#[case("2025-01-01 10:00:00+05:30", "2025-01-01 04:30:00+00")]
#[case("2025-01-01T10:00:00.5-08", "2025-01-01 18:00:00.5+00")]
#[case("2025-01-01T10:00:00Z", "2025-01-01 10:00:00+00")]
#[case("2025-07-01 10:00:00 Europe/Berlin", "2025-07-01 08:00:00+00")]
#[case("2025-01-01 10:00 utc", "2025-01-01 10:00:00+00")]
#[case("2025-01-01 10:00:00 Mars/Base", "22023 time zone \"Mars/Base\" not recognized")]
fn timestamps_with_zone(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(
        or_error(parse_timestamptz(input.as_bytes(), Formats::default()), |out, at| push_timestamptz(out, at, Zone::default())),
        expected
    );
}

#[rstest]
#[case("1 year 2 mons 3 days 04:05:06.7", "1 year 2 mons 3 days 04:05:06.7")]
#[case("5 minutes", "00:05:00")]
#[case("90m", "01:30:00")]
#[case("1.5 days", "1 day 12:00:00")]
#[case("1.5 months", "1 mon 15 days")]
#[case("2 weeks", "14 days")]
#[case("-1 day 02:03", "-1 days +02:03:00")]
#[case("1 day ago", "-1 days")]
#[case("@ 1 hour 30 min", "01:30:00")]
#[case("1-2", "1 year 2 mons")]
#[case("3 4:05:06", "3 days 04:05:06")]
#[case("P1Y2M3DT4H5M6.5S", "1 year 2 mons 3 days 04:05:06.5")]
#[case("PT36H", "36:00:00")]
#[case("5", "00:00:05")]
#[case("-00:00:01", "-00:00:01")]
#[case("0", "00:00:00")]
#[case("1 lightyear", "22007 invalid input syntax for type interval: \"1 lightyear\"")]
#[case("", "22007 invalid input syntax for type interval: \"\"")]
#[case("99999999999 years", "22008 interval field value out of range: \"99999999999 years\"")]
fn intervals(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_interval(input.as_bytes()), push_interval), expected);
}

#[test]
fn intervals_keep_their_units() {
    assert_eq!(parse_interval(b"1 day").unwrap(), IntervalMonthDayNano::new(0, 1, 0));
    assert_eq!(parse_interval(b"24 hours").unwrap(), IntervalMonthDayNano::new(0, 0, 86_400_000_000_000));
}

#[rstest]
#[case("{}", "")]
#[case("{1,2}", "1|2")]
#[case("{ 1 , null , \"NULL\" , \"a,b\" }", "1|~|NULL|a,b")]
#[case("{\"a\\\"b\\\\\",c\\,d,\\null}", "a\"b\\|c,d|null")]
#[case("{{1,2},{\"}\",3}}", "{1,2}|{\"}\",3}")]
#[case("[2:3]={4,5}", "4|5")]
#[case("{1,}", "22P02 malformed array literal: \"{1,}\"")]
#[case("{1", "22P02 malformed array literal: \"{1\"")]
#[case("1,2", "22P02 malformed array literal: \"1,2\"")]
#[case("{\"a}", "22P02 malformed array literal: \"{\"a}\"")]
fn arrays(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_array(input.as_bytes()), show_elements), expected);
}

#[rstest]
#[case("(1,,\"\")", "1|~|")]
#[case("(\"a,b\",\"c\"\"d\",\"e\\\\\")", "a,b|c\"d|e\\")]
#[case("()", "~")]
#[case("(1", "22P02 malformed record literal: \"(1\"")]
fn records(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(or_error(parse_record(input.as_bytes()), show_elements), expected);
}

fn show_elements(out: &mut Vec<u8>, elements: Elements<'_>) {
    let shown: Vec<&[u8]> = elements.iter().map(|e| e.as_deref().unwrap_or(b"~")).collect();
    out.extend(shown.join(&b'|'));
}

#[test]
fn booleans_and_bytes() {
    for (input, expected) in [("t", true), ("YES", true), (" on ", true), ("tr", true), ("of", false), ("N", false), ("0", false)]
    {
        assert_eq!(parse_bool(input.as_bytes()).unwrap(), expected);
    }
    for input in ["o", "", "truee", "2"] {
        assert!(parse_bool(input.as_bytes()).is_err());
    }
    assert_eq!(parse_bytea(b"\\xDEad 00").unwrap(), [0xde, 0xad, 0]);
    assert_eq!(parse_bytea(b"a\\\\b\\001").unwrap(), b"a\\b\x01");
    assert!(parse_bytea(b"\\xabc").is_err() && parse_bytea(b"\\9").is_err());
}

#[test]
fn every_day_is_itself() {
    for days in (-2_500_000..100_000_000).step_by(997) {
        let (year, month, day) = civil_from_days(days);
        assert_eq!(days_from_civil(year, month, day), days);
    }
}
