//! Dates, times and intervals, in the style `ISO, MDY` and in binary.
//!
//! Days are turned into dates by arithmetic on `i64`, so that every value Arrow can hold has a text, in years before Christ and
//! far beyond 9999, too.

use arrow::datatypes::TimeUnit;

use super::number::integer;
use crate::time::zone::Zone;
use crate::time::{POSTGRES_EPOCH, POSTGRES_EPOCH_DAYS};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A count of `unit`s in microseconds. What does not fit is the greatest or least value, Postgres's infinity.
pub fn micros(value: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => value.saturating_mul(MICROS_PER_SECOND),
        TimeUnit::Millisecond => value.saturating_mul(1000),
        TimeUnit::Microsecond => value,
        TimeUnit::Nanosecond => value.div_euclid(1000),
    }
}

/// The days of a count of milliseconds.
pub fn days(millis: i64) -> i64 {
    millis.div_euclid(86_400_000)
}

pub fn date_binary(days: i64, out: &mut Vec<u8>) {
    let days = (days - i64::from(POSTGRES_EPOCH_DAYS)).clamp(i32::MIN as i64, i32::MAX as i64) as i32;
    out.extend_from_slice(&days.to_be_bytes());
}

pub fn timestamp_binary(micros: i64, out: &mut Vec<u8>) {
    let since = micros.saturating_sub(POSTGRES_EPOCH);
    out.extend_from_slice(&since.to_be_bytes());
}

pub fn date(days: i64, out: &mut Vec<u8>) {
    if ymd(days, out) {
        out.extend_from_slice(b" BC");
    }
}

pub fn timestamp(micros: i64, out: &mut Vec<u8>) {
    let before_christ = ymd(micros.div_euclid(MICROS_PER_DAY), out);
    out.push(b' ');
    time(micros.rem_euclid(MICROS_PER_DAY), out);
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

pub fn timestamp_with_zone(micros: i64, zone: Zone, out: &mut Vec<u8>) {
    let offset = zone.offset(micros);
    let local = micros.saturating_add(offset as i64 * MICROS_PER_SECOND);
    let before_christ = ymd(local.div_euclid(MICROS_PER_DAY), out);
    out.push(b' ');
    time(local.rem_euclid(MICROS_PER_DAY), out);
    out.push(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.unsigned_abs();
    two(offset / 3600, out);
    let (minutes, seconds) = (offset / 60 % 60, offset % 60);
    if (minutes, seconds) != (0, 0) {
        out.push(b':');
        two(minutes, out);
    }
    if seconds != 0 {
        out.push(b':');
        two(seconds, out);
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Year, month and day; true if the year is one before Christ.
fn ymd(days: i64, out: &mut Vec<u8>) -> bool {
    // Counted in eras of 400 years from 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as i64;
    let shown = if year > 0 { year } else { 1 - year };
    if shown < 10_000 {
        two((shown / 100) as u32, out);
        two((shown % 100) as u32, out);
    } else {
        integer(shown, out);
    }
    out.push(b'-');
    two(month as u32, out);
    out.push(b'-');
    two(day as u32, out);
    year <= 0
}

/// Hours, minutes, seconds and what there is of a fraction; more than 24 hours are just that.
pub fn time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / MICROS_PER_SECOND;
    let hours = seconds / 3600;
    if hours < 100 {
        two(hours as u32, out)
    } else {
        integer(hours, out)
    }
    out.push(b':');
    two((seconds / 60 % 60) as u32, out);
    out.push(b':');
    two((seconds % 60) as u32, out);
    let mut fraction = micros % MICROS_PER_SECOND;
    if fraction != 0 {
        out.push(b'.');
        let mut unit = MICROS_PER_SECOND / 10;
        while fraction != 0 {
            out.push(b'0' + (fraction / unit) as u8);
            fraction %= unit;
            unit /= 10;
        }
    }
}

#[inline]
fn two(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

/// An interval as Postgres has it.
#[derive(Clone, Copy)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Interval {
    pub fn binary(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.micros.to_be_bytes());
        out.extend_from_slice(&self.days.to_be_bytes());
        out.extend_from_slice(&self.months.to_be_bytes());
    }

    /// `1 year 2 mons -3 days +04:05:06`: a part after a negative one says its sign.
    pub fn text(self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut after_negative = false;
        for (value, unit) in [(self.months / 12, " year"), (self.months % 12, " mon"), (self.days, " day")] {
            if value == 0 {
                continue;
            }
            if out.len() > start {
                out.push(b' ');
            }
            if after_negative && value > 0 {
                out.push(b'+');
            }
            integer(value, out);
            out.extend_from_slice(unit.as_bytes());
            if value != 1 {
                out.push(b's');
            }
            after_negative = value < 0;
        }
        if self.micros != 0 || out.len() == start {
            if out.len() > start {
                out.push(b' ');
            }
            match self.micros < 0 {
                true => out.push(b'-'),
                false if after_negative => out.push(b'+'),
                false => {}
            }
            // The least value has no positive counterpart; it loses a microsecond.
            time(self.micros.checked_abs().unwrap_or(i64::MAX), out);
        }
    }
}
