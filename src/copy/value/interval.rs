//! Intervals: `1 year 2 mons 3 days 04:05:06.7`, `1-2 3 4:05:06`, `P1Y2M3DT4H5M6S`, `90 minutes ago`.

use arrow::datatypes::IntervalMonthDayNano;

use super::{DAY, HOUR, MINUTE, SECOND, time::fraction, trim};
use crate::error::{Error, Result};

/// Months, days and microseconds, as PostgreSQL keeps them apart.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

/// Nanoseconds are always whole microseconds.
pub fn parse_interval(text: &[u8]) -> Result<IntervalMonthDayNano> {
    let trimmed = trim(text);
    let sum = match trimmed {
        [b'P' | b'p', rest @ ..] => iso8601(rest),
        _ => words(trimmed),
    };
    let sum = sum.ok_or_else(|| {
        Error::invalid_datetime(format!("invalid input syntax for type interval: \"{}\"", String::from_utf8_lossy(text)))
    })?;
    let months = i32::try_from(sum.months).ok();
    let days = i32::try_from(sum.days).ok();
    match (months, days, sum.micros.checked_mul(1000)) {
        (Some(months), Some(days), Some(nanos)) => Ok(IntervalMonthDayNano::new(months, days, nanos)),
        _ => Err(Error::datetime_overflow(format!("interval field value out of range: \"{}\"", String::from_utf8_lossy(text)))),
    }
}

/// A number as PostgreSQL reads it in an interval: whole part, and the fraction in millionths, both with the sign.
struct Number {
    whole: i64,
    millionths: i64,
    negative: bool,
}

fn number(text: &[u8]) -> Option<(Number, &[u8])> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut whole = 0i64;
    let digits = rest.len();
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        whole = whole.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        rest = after;
    }
    let mut any = rest.len() < digits;
    let mut millionths = 0;
    if let [b'.', after @ ..] = rest {
        any |= after.first().is_some_and(u8::is_ascii_digit);
        (millionths, rest) = fraction(after);
    }
    let sign = if negative { -1 } else { 1 };
    any.then_some((Number { whole: sign * whole, millionths: sign * millionths, negative }, rest))
}

impl Sum {
    /// A part of a unit spills into the smaller ones: 1.5 months are a month and 15 days.
    fn add(&mut self, n: &Number, unit: &[u8]) -> Option<()> {
        const YEAR: i64 = 12;
        let years = match unit {
            b"y" | b"yr" | b"yrs" | b"year" | b"years" => 1,
            b"decade" | b"decades" | b"decs" | b"dec" => 10,
            b"c" | b"cent" | b"century" | b"centuries" => 100,
            b"mil" | b"mils" | b"millennium" | b"millennia" => 1000,
            b"mon" | b"mons" | b"month" | b"months" => {
                self.months = self.months.checked_add(n.whole)?;
                return self.add_days_part(n.millionths * 30);
            }
            b"w" | b"week" | b"weeks" => {
                self.days = self.days.checked_add(n.whole.checked_mul(7)?)?;
                return self.add_days_part(n.millionths * 7);
            }
            b"d" | b"day" | b"days" => {
                self.days = self.days.checked_add(n.whole)?;
                return self.add_days_part(n.millionths);
            }
            b"h" | b"hr" | b"hrs" | b"hour" | b"hours" => return self.add_micros(n, HOUR),
            b"m" | b"min" | b"mins" | b"minute" | b"minutes" => return self.add_micros(n, MINUTE),
            b"" | b"s" | b"sec" | b"secs" | b"second" | b"seconds" => return self.add_micros(n, SECOND),
            b"ms" | b"msec" | b"msecs" | b"msecond" | b"mseconds" | b"millisecond" | b"milliseconds" => {
                return self.add_micros(n, 1000);
            }
            b"us" | b"usec" | b"usecs" | b"usecond" | b"useconds" | b"microsecond" | b"microseconds" => {
                return self.add_micros(n, 1);
            }
            _ => return None,
        };
        let months = n.whole.checked_mul(YEAR)?.checked_add(n.millionths * YEAR / 1_000_000)?;
        self.months = self.months.checked_add(months.checked_mul(years)?)?;
        Some(())
    }

    fn add_days_part(&mut self, millionths: i64) -> Option<()> {
        self.days = self.days.checked_add(millionths / 1_000_000)?;
        self.micros = self.micros.checked_add(millionths % 1_000_000 * (DAY / 1_000_000))?;
        Some(())
    }

    fn add_micros(&mut self, n: &Number, unit: i64) -> Option<()> {
        let part = (i128::from(n.millionths) * i128::from(unit) / 1_000_000) as i64;
        self.micros = self.micros.checked_add(n.whole.checked_mul(unit)?)?.checked_add(part)?;
        Some(())
    }

    /// `[hh]:mm[:ss[.fraction]]` whose first number is given.
    fn add_clock<'a>(&mut self, hours: &Number, mut rest: &'a [u8]) -> Option<&'a [u8]> {
        let mut micros = hours.whole.checked_abs()?.checked_mul(HOUR)?;
        for unit in [MINUTE, SECOND] {
            let [b':', after @ ..] = rest else { break };
            let (part, after) = number(after)?;
            if part.negative || part.whole > 60 || (unit == MINUTE && part.millionths != 0) {
                return None;
            }
            micros = micros.checked_add(part.whole * unit + part.millionths)?;
            rest = after;
        }
        self.micros = self.micros.checked_add(if hours.negative { -micros } else { micros })?;
        Some(rest)
    }

    fn negate(self) -> Option<Sum> {
        Some(Sum { months: self.months.checked_neg()?, days: self.days.checked_neg()?, micros: self.micros.checked_neg()? })
    }
}

fn words(text: &[u8]) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut rest = text.strip_prefix(b"@").unwrap_or(text).trim_ascii_start();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if rest.eq_ignore_ascii_case(b"ago") {
            return sum.negate();
        }
        let (n, after) = number(rest)?;
        rest = match after {
            [b':', ..] if n.millionths == 0 => sum.add_clock(&n, after)?,
            // SQL's year-month form.
            [b'-', after @ ..] if n.millionths == 0 => {
                let (months, after) = number(after)?;
                let total = n.whole.checked_abs()?.checked_mul(12)?.checked_add(months.whole)?;
                sum.months = sum.months.checked_add(if n.negative { -total } else { total })?;
                after
            }
            _ => {
                let unit_at = after.trim_ascii_start();
                let letters = unit_at.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(unit_at.len());
                let (unit, behind) = unit_at.split_at(letters);
                match unit.to_ascii_lowercase().as_slice() {
                    // A number without a unit is seconds at the end, days before a time (`3 4:05:06`).
                    b"" if !behind.is_empty() => sum.add(&n, b"day")?,
                    b"ago" => {
                        sum.add(&n, b"")?;
                        return behind.trim_ascii().is_empty().then(|| sum.negate())?;
                    }
                    unit => sum.add(&n, unit)?,
                }
                behind
            }
        };
        rest = rest.trim_ascii_start();
    }
    Some(sum)
}

/// Behind the `P`.
fn iso8601(text: &[u8]) -> Option<Sum> {
    let mut sum = Sum::default();
    let (mut rest, mut in_time) = (text, false);
    if rest.is_empty() {
        return None;
    }
    while let [first, after @ ..] = rest {
        if matches!(first, b'T' | b't') && !in_time && !after.is_empty() {
            (in_time, rest) = (true, after);
            continue;
        }
        let (n, after) = number(rest)?;
        let (unit, after) = after.split_first()?;
        match (unit.to_ascii_uppercase(), in_time) {
            (b'Y', false) => sum.add(&n, b"year")?,
            (b'M', false) => sum.add(&n, b"month")?,
            (b'W', false) => sum.add(&n, b"week")?,
            (b'D', false) => sum.add(&n, b"day")?,
            (b'H', true) => sum.add(&n, b"hour")?,
            (b'M', true) => sum.add(&n, b"minute")?,
            (b'S', true) => sum.add(&n, b"second")?,
            _ => return None,
        }
        rest = after;
    }
    Some(sum)
}
