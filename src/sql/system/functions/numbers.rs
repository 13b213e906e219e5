//! Numbers into buckets, times out of their parts, and intervals in order.

use chrono::NaiveDate;

use super::super::value::Value;
use super::{Spec, immutable, int, stable, text};
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::time::zone::Zone;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("width_bucket", &[&["float8", "float8", "float8", "int4"]], "int4", |_, values| bucket(values)),
    immutable("to_timestamp", &[&["float8"]], "timestamptz", |_, values| Ok(seconds(float(values, 0))?.into())),
    immutable("make_timestamp", &[CIVIL], "timestamp", |_, values| Ok(civil(values)?.into())),
    immutable("make_timestamptz", &[CIVIL, CIVIL_IN_ZONE], "timestamptz", |_, values| {
        let local = civil(values)?;
        Ok(if values.len() == CIVIL.len() { local } else { Zone::named(text(values, 6))?.instant(local)? }.into())
    }),
    immutable("make_interval", &[&[], INTERVAL], "interval", |_, values| made_interval(values)),
    immutable("justify_hours", &[&["interval"]], "interval", |_, values| Ok(justified(values, false, true))),
    immutable("justify_days", &[&["interval"]], "interval", |_, values| Ok(justified(values, true, false))),
    immutable("justify_interval", &[&["interval"]], "interval", |_, values| Ok(justified(values, true, true))),
    immutable("isfinite", &[&["any"]], "bool", |_, values| Ok((!matches!(values, [Value::Float(x)] if !x.is_finite())).into())),
    immutable("num_nulls", ANY, "int4", |_, values| Ok(nulls(values).into())).lenient(),
    immutable("num_nonnulls", ANY, "int4", |_, values| Ok((count(values.len()) - nulls(values)).into())).lenient(),
    immutable("sind", DEGREES, "float8", |_, values| Ok(sine(float(values, 0)).into())),
    immutable("cosd", DEGREES, "float8", |_, values| Ok(sine(90.0 - float(values, 0).abs()).into())),
    immutable("tand", DEGREES, "float8", |_, values| Ok(tangent(float(values, 0)).into())),
    immutable("number_by_template", &[&["text", "text"]], "text", |_, values| by_template(text(values, 0), text(values, 1))),
    stable("clock_timestamp", &[&[]], "timestamptz", |call, _| Ok(call.context.server.now().into())).volatile(),
];

const ANY: &[&[&str]] = &[&["any", "..."]];
const DEGREES: &[&[&str]] = &[&["float8"]];
const CIVIL: &[&str] = &["int4", "int4", "int4", "int4", "int4", "float8"];
const CIVIL_IN_ZONE: &[&str] = &["int4", "int4", "int4", "int4", "int4", "float8", "text"];
const INTERVAL: &[&str] = &["int4", "int4", "int4", "int4", "int4", "int4", "float8"];

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn nulls(values: &[Value]) -> i32 {
    count(values.iter().filter(|value| **value == Value::Null).count())
}

/// Of degrees: exact where the result is a half or a whole.
fn sine(degrees: f64) -> f64 {
    let degrees = degrees % 360.0;
    let (sign, degrees) = if degrees < 0.0 { (-1.0, -degrees) } else { (1.0, degrees) };
    let (sign, degrees) = if degrees > 180.0 { (-sign, degrees - 180.0) } else { (sign, degrees) };
    let degrees = if degrees > 90.0 { 180.0 - degrees } else { degrees };
    sign * match degrees {
        0.0 => 0.0,
        30.0 => 0.5,
        90.0 => 1.0,
        other => other.to_radians().sin(),
    }
}

fn tangent(degrees: f64) -> f64 {
    match degrees % 180.0 {
        45.0 | -135.0 => 1.0,
        -45.0 | 135.0 => -1.0,
        _ => sine(degrees) / sine(90.0 - degrees.abs()),
    }
}

/// The text of the number that a template finds: a digit for each 9 and 0, what is between them skipped.
fn by_template(text: &str, template: &str) -> Result<Value> {
    let mut number = String::new();
    let mut is_negative = false;
    let mut rest = text.trim_start().chars().peekable();
    let mut template = template.chars().peekable();
    while let Some(pattern) = template.next() {
        let wanted = pattern.to_ascii_uppercase();
        if !matches!(wanted, '9' | '0' | 'S' | 'M' | 'P') && rest.peek().is_none() {
            break;
        }
        // A sign may stand before the digits, and where the template has one.
        while let Some(sign) = rest.next_if(|c| matches!(c, '-' | '+' | '<' | '>' | ' ')) {
            is_negative |= matches!(sign, '-' | '<');
        }
        match wanted {
            '9' | '0' => number.extend(rest.next_if(char::is_ascii_digit)),
            '.' | 'D' => {
                if rest.next_if_eq(&'.').is_some() {
                    number.push('.');
                }
            }
            ',' | 'G' => drop(rest.next_if_eq(&',')),
            'L' => drop(rest.next_if(|c| !c.is_ascii_digit() && *c != '.')),
            'F' => drop(template.next_if_eq(&'M')),
            'S' => drop(template.next_if(|next| matches!(next, 'G' | 'g'))),
            'M' => drop(template.next_if(|next| matches!(next, 'I' | 'i'))),
            'P' => drop(template.next_if(|next| matches!(next, 'L' | 'l' | 'R' | 'r'))),
            _ => drop(rest.next()),
        }
    }
    if !number.contains(|c: char| c.is_ascii_digit()) {
        return Err(Error::invalid_text(format!("invalid input syntax for type numeric: \"{text}\"")));
    }
    Ok(if is_negative { format!("-{number}") } else { number }.into())
}

fn float(values: &[Value], at: usize) -> f64 {
    match values.get(at) {
        Some(Value::Float(value)) => *value,
        _ => 0.0,
    }
}

/// The number of the bucket, of `count` between two bounds, that a value lies in; those outside are before and behind all.
fn bucket(values: &[Value]) -> Result<Value> {
    let (value, low, high, count) = (float(values, 0), float(values, 1), float(values, 2), int(values, 3));
    if count <= 0 {
        return Err(Error::invalid_width_bucket("count must be greater than zero"));
    }
    if !(low.is_finite() && high.is_finite()) || value.is_nan() {
        return Err(Error::invalid_width_bucket("operand, lower bound, and upper bound cannot be NaN, bounds must be finite"));
    }
    if low == high {
        return Err(Error::invalid_width_bucket("lower bound cannot equal upper bound"));
    }
    let (value, low, high) = if low < high { (value, low, high) } else { (-value, -low, -high) };
    Ok(match value {
        value if value < low => 0,
        value if value >= high => count + 1,
        value => ((value - low) / (high - low) * count as f64).floor() as i64 + 1,
    }
    .into())
}

fn micros(seconds: f64) -> Result<Micros> {
    let micros = (seconds * 1e6).round_ties_even();
    match micros.abs() < i64::MAX as f64 {
        true => Ok(micros as Micros),
        false => Err(Error::datetime_overflow("timestamp out of range")),
    }
}

/// Seconds since 1970.
fn seconds(seconds: f64) -> Result<Micros> {
    let instant = micros(seconds)?;
    super::time::instant(instant).map(|_| instant)
}

fn civil(values: &[Value]) -> Result<Micros> {
    let part = |at: usize| int(values, at);
    let number = |at: usize| u32::try_from(part(at)).unwrap_or(u32::MAX);
    let wrong = || {
        let date = format!("{}-{:02}-{:02}", part(0), part(1), part(2));
        Error::datetime_overflow(format!("date field value out of range: {date}"))
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(part(0)).map_err(|_| wrong())?, number(1), number(2)).ok_or_else(wrong)?;
    let (hour, minute, second) = (part(3), part(4), float(values, 5));
    let fits = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    let time = hour * HOUR + minute * 60_000_000 + micros(second)?;
    if !fits || time > DAY {
        let time = format!("{hour}:{minute:02}:{second:02}");
        return Err(Error::datetime_overflow(format!("time field value out of range: {time}")));
    }
    let day = i64::from(date.to_epoch_days());
    day.checked_mul(DAY).and_then(|day| day.checked_add(time)).ok_or_else(wrong)
}

fn made_interval(values: &[Value]) -> Result<Value> {
    let overflow = || Error::datetime_overflow("interval out of range");
    let part = |at: usize| int(values, at);
    let whole = |number: i64| i32::try_from(number).map_err(|_| overflow());
    let time = part(4) * HOUR + part(5) * 60_000_000;
    Ok(Value::Interval {
        months: whole(part(0) * 12 + part(1))?,
        days: whole(part(2) * 7 + part(3))?,
        micros: time.checked_add(micros(float(values, 6))?).ok_or_else(overflow)?,
    })
}

/// Hours as days and days as months, all of one sign.
fn justified(values: &[Value], by_days: bool, by_hours: bool) -> Value {
    let Some(Value::Interval { months, days, micros }) = values.first() else { return Value::Null };
    let (mut months, mut days, mut micros) = (i64::from(*months), i64::from(*days), *micros);
    if by_hours {
        (days, micros) = (days + micros / DAY, micros % DAY);
    }
    if by_days {
        (months, days) = (months + days / 30, days % 30);
    }
    if by_days {
        let behind = if by_hours { days < 0 || days == 0 && micros < 0 } else { days < 0 };
        let ahead = if by_hours { days > 0 || days == 0 && micros > 0 } else { days > 0 };
        if months > 0 && behind {
            (months, days) = (months - 1, days + 30);
        } else if months < 0 && ahead {
            (months, days) = (months + 1, days - 30);
        }
    }
    if by_hours {
        if days > 0 && micros < 0 {
            (days, micros) = (days - 1, micros + DAY);
        } else if days < 0 && micros > 0 {
            (days, micros) = (days + 1, micros - DAY);
        }
    }
    match (i32::try_from(months), i32::try_from(days)) {
        (Ok(months), Ok(days)) => Value::Interval { months, days, micros },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod template_tests {
    use rstest::rstest;

    // Answers of PostgreSQL 15.
    #[rstest]
    #[case("12,454.8-", "99G999D9S", Some("-12454.8"))]
    #[case("1,234.56", "9,999.99", Some("1234.56"))]
    #[case("-12", "S99", Some("-12"))]
    #[case("$1,234", "L9,999", Some("1234"))]
    #[case("1234", "99", Some("12"))]
    #[case("abc", "999", None)]
    #[case("", "9", None)]
    fn templates_read_numbers(#[case] text: &str, #[case] template: &str, #[case] number: Option<&str>) {
        assert_eq!(super::by_template(text, template).ok(), number.map(Into::into));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case(5.0, 0.0, 10.0, 3)]
    #[case(10.0, 0.0, 10.0, 6)]
    #[case(-1.0, 0.0, 10.0, 0)]
    #[case(5.0, 10.0, 0.0, 3)]
    fn buckets(#[case] value: f64, #[case] low: f64, #[case] high: f64, #[case] expected: i64) {
        let found = bucket(&[Value::Float(value), Value::Float(low), Value::Float(high), Value::Int(5)]);
        assert_eq!(found.unwrap(), Value::Int(expected));
    }

    #[rstest]
    #[case((1, 0, -HOUR), (0, 29, 23 * HOUR))]
    #[case((0, 65, 50 * HOUR), (2, 7, 2 * HOUR))]
    #[case((0, -1, HOUR), (0, 0, -23 * HOUR))]
    fn intervals_of_one_sign(#[case] given: (i32, i32, i64), #[case] expected: (i32, i32, i64)) {
        let interval = |(months, days, micros)| Value::Interval { months, days, micros };
        assert_eq!(justified(&[interval(given)], true, true), interval(expected));
    }
}
