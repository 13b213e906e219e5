//! `age`: the time between two instants in years, months and days as people count them.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};

use super::super::value::Value;
use super::{Call, Spec, int, stable};
use crate::error::{Error, Result};
use crate::time::Micros;

const DAY: i64 = 86_400_000_000;

pub(super) const FUNCTIONS: &[Spec] = &[stable("age", &[&["timestamp"], &["timestamp", "timestamp"]], "interval", age)];

/// With one argument, the age at midnight of today.
fn age(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let today = call.context.now.div_euclid(DAY) * DAY;
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

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
