//! Times as people count them: `age` is what lies between two instants in years, months and days; an interval times a number
//! has its fractions of months in days (of thirty), and those of days in hours.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};

use super::super::value::Value;
use super::{Call, Spec, immutable, int, stable};
use crate::error::{Error, Result};
use crate::time::Micros;

const DAY: i64 = 86_400_000_000;

pub(super) const FUNCTIONS: &[Spec] = &[
    stable("age", &[&["timestamp"], &["timestamp", "timestamp"]], "interval", age),
    immutable("interval_mul", &[&["interval", "float8"]], "interval", |_, values| scaled(values, |part, by| part * by)),
    immutable("interval_div", &[&["interval", "float8"]], "interval", |_, values| match values {
        [_, Value::Float(0.0)] => Err(Error::division_by_zero("division by zero")),
        _ => scaled(values, |part, by| part / by),
    }),
];

const DAY_SECONDS: f64 = 86_400.0;

/// Days of a month, where it is not said which one.
const MONTH_DAYS: f64 = 30.0;

/// With one argument, the age at midnight of today.
fn age(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let today = call.context.zone().local(call.context.now)?.div_euclid(DAY) * DAY;
    let (later, earlier) = if values.len() == 1 { (today, int(values, 0)) } else { (int(values, 0), int(values, 1)) };
    let (months, days, micros) = between(instant(later)?, instant(earlier)?);
    Ok(Value::Interval { months, days, micros })
}

pub(super) fn instant(micros: Micros) -> Result<NaiveDateTime> {
    let instant = DateTime::from_timestamp_micros(micros);
    instant.map(|i| i.naive_utc()).ok_or_else(|| Error::datetime_overflow("timestamp out of range"))
}

/// Months, days and microseconds from `b` to `a`, all of one sign. Days are borrowed from the month of the earlier instant.
fn between(a: NaiveDateTime, b: NaiveDateTime) -> (i32, i32, i64) {
    if a < b {
        let (months, days, micros) = between(b, a);
        return (-months, -days, -micros);
    }
    let time = |t: NaiveDateTime| i64::from(t.num_seconds_from_midnight()) * 1_000_000 + i64::from(t.nanosecond() / 1000);
    let day = |t: NaiveDateTime| i32::try_from(t.day()).unwrap_or(0);
    let month = |t: NaiveDateTime| t.year() * 12 + i32::try_from(t.month0()).unwrap_or(0);
    let (mut months, mut days, mut micros) = (month(a) - month(b), day(a) - day(b), time(a) - time(b));
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    if days < 0 {
        days += i32::from(b.date().num_days_in_month());
        months -= 1;
    }
    (months, days, micros)
}

/// Months, days and microseconds of so many intervals, of one.
pub fn interval_divided((months, days, micros): (i32, i32, i64), by: f64) -> Result<(i32, i32, i64)> {
    match scaled(&[Value::Interval { months, days, micros }, Value::Float(by)], |part, by| part / by)? {
        Value::Interval { months, days, micros } => Ok((months, days, micros)),
        _ => Err(Error::internal("an interval divided is one")),
    }
}

/// Each part of an interval by a number; what is not whole goes on to the smaller parts, as in PostgreSQL.
fn scaled(values: &[Value], apply: fn(f64, f64) -> f64) -> Result<Value> {
    let [Value::Interval { months, days, micros }, Value::Float(by)] = values else { return Ok(Value::Null) };
    let out_of_range = || Error::datetime_overflow("interval out of range");
    let whole = |part: f64| match part.is_finite() && part.abs() <= f64::from(i32::MAX) {
        true => Ok(part.trunc()),
        false => Err(out_of_range()),
    };
    // Six digits: what lies behind them is the noise of floats.
    let rounded = |part: f64| (part * 1e6).round() / 1e6;
    let (months_by, days_by) = (apply(f64::from(*months), *by), apply(f64::from(*days), *by));
    let (months, days) = (whole(months_by)?, whole(days_by)?);
    let more_days = rounded((months_by - months) * MONTH_DAYS);
    let seconds = rounded((days_by - days + more_days - more_days.trunc()) * DAY_SECONDS);
    let days = whole(days + more_days.trunc() + (seconds / DAY_SECONDS).trunc())?;
    let micros = (apply(*micros as f64, *by) + (seconds % DAY_SECONDS) * 1e6).round_ties_even();
    if !micros.is_finite() || micros.abs() >= i64::MAX as f64 {
        return Err(out_of_range());
    }
    Ok(Value::Interval { months: months as i32, days: days as i32, micros: micros as i64 })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case((0, 0, 1_000_000), 3.0, (0, 0, 3_000_000))]
    #[case((1, 0, 0), 0.5, (0, 15, 0))]
    #[case((0, 1, 0), 1.5, (0, 1, 43_200_000_000))]
    #[case((14, 3, 0), -0.5, (-7, -1, -43_200_000_000))]
    #[case((1, 0, 0), 1.0 / 3.0, (0, 10, 0))]
    #[case((0, 0, 10), 0.25, (0, 0, 2))]
    fn intervals_times_numbers(#[case] parts: (i32, i32, i64), #[case] by: f64, #[case] expected: (i32, i32, i64)) {
        let interval = |(months, days, micros)| Value::Interval { months, days, micros };
        assert_eq!(scaled(&[interval(parts), Value::Float(by)], |part, by| part * by).unwrap(), interval(expected));
    }

    #[test]
    fn what_no_interval_holds_is_refused() {
        let interval = Value::Interval { months: i32::MAX, days: 0, micros: 0 };
        for by in [2.0, f64::NAN, f64::INFINITY] {
            let error = scaled(&[interval.clone(), Value::Float(by)], |part, by| part * by).unwrap_err();
            assert_eq!(error.state().code(), "22008");
        }
    }

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case("2001-04-10 00:00:00", "1957-06-13 00:00:00", (525, 27, 0))]
    #[case("2024-03-01 00:00:00", "2024-01-31 00:00:00", (1, 1, 0))]
    #[case("2024-01-31 00:00:00", "2024-03-01 00:00:00", (-1, -1, 0))]
    #[case("2024-03-01 01:00:00", "2024-02-29 02:00:00", (0, 0, 82_800_000_000))]
    fn age_counts_as_people_do(#[case] a: &str, #[case] b: &str, #[case] expected: (i32, i32, i64)) {
        assert_eq!(super::between(a.replace(' ', "T").parse().unwrap(), b.replace(' ', "T").parse().unwrap()), expected);
    }
}
