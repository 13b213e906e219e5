//! Dates, times of day and instants.
//!
//! ISO 8601 is read by position, in a few nanoseconds. What else PostgreSQL reads (`Jan 8, 1999`, `1/8/1999 4:05 PM`, zone names)
//! goes the slow way over tokens. Words that ask a clock (`now`, `today`) are refused: the
//! value of a row never depends on when it is read.

use super::{DAY, DateOrder, Formats, HOUR, MINUTE, SECOND, trim};
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::time::zone::Zone;

/// Instants of PostgreSQL: 4713 BC to 294276 AD.
const MIN_DAYS: i64 = days_from_civil(-4713, 11, 24);
const MAX_DAYS: i64 = days_from_civil(294_276, 12, 31);

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar; year 0 is 1 BC. (Howard Hinnant's algorithm.)
pub const fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted as i64 + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub const fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month, day)
}

/// `timestamp`: a zone, if written, is read and ignored, as PostgreSQL does.
#[inline]
pub fn parse_timestamp(text: &[u8], formats: Formats) -> Result<Micros> {
    if let Some((micros, _)) = iso(text) {
        return Ok(micros);
    }
    let parts = parse_parts(text, "timestamp")?;
    local(&parts, text, "timestamp", formats.order)
}

/// `timestamp with time zone`: what is written without a zone is of the session's.
#[inline]
pub fn parse_timestamptz(text: &[u8], formats: Formats) -> Result<Micros> {
    const NAME: &str = "timestamp with time zone";
    if let Some((micros, offset)) = iso(text) {
        return offset.map_or_else(|| formats.zone.instant(micros), |offset| Ok(micros - offset));
    }
    let parts = parse_parts(text, NAME)?;
    let local = local(&parts, text, NAME, formats.order)?;
    match (parts.zone, parts.offset) {
        (Some(zone), _) => Zone::Named(zone).instant(local).map_err(|_| out_of_range(text)),
        (None, Some(offset)) => Ok(local - offset),
        (None, None) => formats.zone.instant(local),
    }
}

/// Days since 1970-01-01.
#[inline]
pub fn parse_date(text: &[u8], formats: Formats) -> Result<i32> {
    if let Some((days, [])) = iso_date(text) {
        return Ok(days as i32);
    }
    let parts = parse_parts(text, "date")?;
    let local = local(&parts, text, "date", formats.order)?;
    Ok(local.div_euclid(DAY) as i32)
}

/// Microseconds since midnight; 24:00:00 is allowed.
pub fn parse_time(text: &[u8]) -> Result<Micros> {
    if let Some((micros, [])) = clock(text) {
        return Ok(micros);
    }
    let parts = parse_parts(text, "time")?;
    parts.time.ok_or_else(|| invalid(text, "time"))
}

#[cold]
fn invalid(text: &[u8], name: &str) -> Error {
    Error::invalid_datetime(format!("invalid input syntax for type {name}: \"{}\"", String::from_utf8_lossy(text)))
}

#[cold]
fn out_of_range(text: &[u8]) -> Error {
    Error::datetime_overflow(format!("date/time field value out of range: \"{}\"", String::from_utf8_lossy(text)))
}

/// `2025-01-01`, then `T` or a space and a time, then a zone as a number. The instant as written, and the zone's offset.
#[inline]
fn iso(text: &[u8]) -> Option<(Micros, Option<Micros>)> {
    let (days, rest) = iso_date(text)?;
    let midnight = days * DAY;
    match rest {
        [] => Some((midnight, None)),
        [b' ' | b'T' | b't', rest @ ..] => {
            let (time, rest) = clock(rest)?;
            match rest {
                [] => Some((midnight + time, None)),
                zone => Some((midnight + time, Some(offset(zone)?))),
            }
        }
        _ => None,
    }
}

#[inline]
fn two(text: [u8; 2]) -> Option<u32> {
    let (tens, ones) = (text[0].wrapping_sub(b'0'), text[1].wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then_some(u32::from(tens) * 10 + u32::from(ones))
}

#[inline]
fn iso_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2], rest) = text.split_first_chunk::<10>()? else { return None };
    let year = i64::from(two([y1, y2])?) * 100 + i64::from(two([y3, y4])?);
    Some((days(year, two([m1, m2])?, two([d1, d2])?)?, rest))
}

/// `None` if there is no such day. Year 0 does not exist in SQL.
#[inline]
fn days(year: i64, month: u32, day: u32) -> Option<i64> {
    const LENGTHS: [u32; 13] = [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTHS.get(month as usize)?;
    if day == 0 || day > length || (month == 2 && day == 29 && !leap) || year == 0 {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

/// `hh:mm[:ss[.fraction]]` at the head of a text, and what follows it.
#[inline]
pub(super) fn clock(text: &[u8]) -> Option<(Micros, &[u8])> {
    let (&[h1, h2, b':', m1, m2], rest) = text.split_first_chunk::<5>()? else { return None };
    let (hour, minute) = (two([h1, h2])?, two([m1, m2])?);
    let (second, fraction, rest) = match rest {
        [b':', s1, s2, b'.', rest @ ..] => {
            let (fraction, rest) = fraction(rest);
            (two([*s1, *s2])?, fraction, rest)
        }
        [b':', s1, s2, rest @ ..] => (two([*s1, *s2])?, 0, rest),
        rest => (0, 0, rest),
    };
    Some((time_of_day(i64::from(hour), i64::from(minute), i64::from(second), fraction)?, rest))
}

fn time_of_day(hour: i64, minute: i64, second: i64, fraction: i64) -> Option<Micros> {
    let time = hour * HOUR + minute * MINUTE + second * SECOND + fraction;
    (hour <= 24 && minute <= 59 && second <= 60 && time <= DAY).then_some(time)
}

/// Digits after a point, as microseconds, rounded; and what follows them.
#[inline]
pub(super) fn fraction(text: &[u8]) -> (i64, &[u8]) {
    let (mut value, mut digits, mut rest) = (0, 0, text);
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        if digits < 6 {
            value = value * 10 + i64::from(digit - b'0');
        } else if digits == 6 && *digit >= b'5' {
            value += 1;
        }
        (digits, rest) = (digits + 1, after);
    }
    for _ in digits..6 {
        value *= 10;
    }
    (value, rest)
}

/// `Z`, `+01`, `-05:30`, `+0530`, `+01:00:30`: microseconds east of Greenwich.
fn offset(text: &[u8]) -> Option<Micros> {
    let (sign, text) = match text {
        [b'Z' | b'z'] => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hour, minute, second) = match *text {
        [h] => (two([b'0', h])?, 0, 0),
        [h1, h2] => (two([h1, h2])?, 0, 0),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (two([h1, h2])?, two([m1, m2])?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (two([h1, h2])?, two([m1, m2])?, two([s1, s2])?),
        _ => return None,
    };
    let magnitude = i64::from(hour) * HOUR + i64::from(minute) * MINUTE + i64::from(second) * SECOND;
    (hour <= 15 && minute <= 59 && second <= 59).then_some(sign * magnitude)
}

/// What the slow way found.
#[derive(Default)]
struct Parts {
    /// Numbers of the date with their count of digits, in order.
    numbers: Vec<(i64, usize)>,
    month: Option<u32>,
    days: Option<i64>,
    time: Option<Micros>,
    pm: Option<bool>,
    bc: bool,
    offset: Option<Micros>,
    zone: Option<chrono_tz::Tz>,
}

/// What clocks show, as written.
fn local(parts: &Parts, text: &[u8], name: &str, order: DateOrder) -> Result<Micros> {
    let days = match parts.days {
        Some(days) => days,
        None => date_of(parts, text, name, order)?,
    };
    if !(MIN_DAYS..=MAX_DAYS).contains(&days) {
        return Err(Error::datetime_overflow(format!("{name} out of range: \"{}\"", String::from_utf8_lossy(text))));
    }
    let overflow = || Error::datetime_overflow(format!("{name} out of range: \"{}\"", String::from_utf8_lossy(text)));
    days.checked_mul(DAY).and_then(|day| day.checked_add(parts.time.unwrap_or(0))).ok_or_else(overflow)
}

fn date_of(parts: &Parts, text: &[u8], name: &str, order: DateOrder) -> Result<i64> {
    let year_first = |first: usize, last: usize| first >= 3 || (order == DateOrder::YearFirst && last < 3);
    let (year, month, day) = match (parts.month, parts.numbers.as_slice()) {
        (None, &[(year, digits), (month, _), (day, last)]) if year_first(digits, last) => ((year, digits), month, day),
        (None, &[(day, _), (month, _), (year, digits)]) if order == DateOrder::DayFirst => ((year, digits), month, day),
        (None, &[(month, _), (day, _), (year, digits)]) => ((year, digits), month, day),
        (Some(month), &[(year, digits), (day, last)]) if year_first(digits, last) => ((year, digits), i64::from(month), day),
        (Some(month), &[(day, _), (year, digits)]) => ((year, digits), i64::from(month), day),
        _ => return Err(invalid(text, name)),
    };
    let year = match year {
        (year, 1..=2) if !parts.bc => year + if year < 70 { 2000 } else { 1900 },
        (year, _) => year,
    };
    if year == 0 || year > 999_999 {
        return Err(out_of_range(text));
    }
    // 1 BC is year 0 of the arithmetic; it is a leap year, so it is shifted by whole eras of 400 years for the check.
    let shifted = if parts.bc { 1 - year + 400 * 2500 } else { year };
    let narrow = |n: i64| u32::try_from(n).ok();
    let days = narrow(month).zip(narrow(day)).and_then(|(month, day)| days(shifted, month, day));
    let days = days.ok_or_else(|| out_of_range(text))?;
    Ok(if parts.bc { days - 146_097 * 2500 } else { days })
}

fn parse_parts(text: &[u8], name: &str) -> Result<Parts> {
    let mut parts = Parts::default();
    let mut rest = trim(text);
    if rest.is_empty() {
        return Err(invalid(text, name));
    }
    while let [first, after @ ..] = rest {
        rest = match first {
            b' ' | b'\t' | b',' | b'\n' | b'\r' => after,
            b'/' | b'.' if !parts.numbers.is_empty() => after,
            b'-' if parts.time.is_none() && (!parts.numbers.is_empty() || parts.month.is_some()) => after,
            b'+' | b'-' => parts.take_offset(rest, text, name)?,
            b'0'..=b'9' => parts.take_number(rest, text, name)?,
            b'a'..=b'z' | b'A'..=b'Z' => parts.take_word(rest, text, name)?,
            _ => return Err(invalid(text, name)),
        };
    }
    parts.apply_pm(text)?;
    Ok(parts)
}

impl Parts {
    fn take_offset<'a>(&mut self, rest: &'a [u8], text: &[u8], name: &str) -> Result<&'a [u8]> {
        let end = rest.iter().skip(1).position(|b| !b.is_ascii_digit() && *b != b':').map_or(rest.len(), |at| at + 1);
        let (zone, after) = rest.split_at(end);
        if self.time.is_none() || self.offset.is_some() || self.zone.is_some() {
            return Err(invalid(text, name));
        }
        self.offset = Some(offset(zone).ok_or_else(|| invalid(text, name))?);
        Ok(after)
    }

    fn take_number<'a>(&mut self, rest: &'a [u8], text: &[u8], name: &str) -> Result<&'a [u8]> {
        let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        if after.first() == Some(&b':') {
            return self.take_time(rest, text, name);
        }
        let number = digits.iter().try_fold(0i64, |n, d| n.checked_mul(10)?.checked_add(i64::from(d - b'0')));
        let number = number.ok_or_else(|| out_of_range(text))?;
        let has_date = self.days.is_some() || self.numbers.len() + usize::from(self.month.is_some()) >= 3;
        match digits.len() {
            8 if self.numbers.is_empty() && !has_date => {
                let day = days(number / 10_000, (number / 100 % 100) as u32, (number % 100) as u32);
                self.days = Some(day.ok_or_else(|| out_of_range(text))?);
            }
            6 | 4 if has_date && self.time.is_none() => {
                let hms = if digits.len() == 4 { number * 100 } else { number };
                let (fraction, after) = match after {
                    [b'.', decimals @ ..] => fraction(decimals),
                    _ => (0, after),
                };
                let time = time_of_day(hms / 10_000, hms / 100 % 100, hms % 100, fraction);
                self.time = Some(time.ok_or_else(|| out_of_range(text))?);
                return Ok(after);
            }
            _ if !has_date => self.numbers.push((number, digits.len())),
            _ => return Err(invalid(text, name)),
        }
        Ok(after)
    }

    /// `h:mm`, `hh:mm:ss.fraction`.
    fn take_time<'a>(&mut self, text: &'a [u8], whole: &[u8], name: &str) -> Result<&'a [u8]> {
        let mut fields = [0i64; 3];
        let (mut count, mut rest) = (0, text);
        loop {
            let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            let field = fields.get_mut(count).ok_or_else(|| invalid(whole, name))?;
            if digits.is_empty() || digits.len() > 2 {
                return Err(invalid(whole, name));
            }
            *field = digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
            (count, rest) = (count + 1, after);
            match rest {
                [b':', after @ ..] => rest = after,
                _ => break,
            }
        }
        let mut micros = 0;
        if let [b'.', decimals @ ..] = rest {
            (micros, rest) = fraction(decimals);
        }
        if self.time.is_some() {
            return Err(invalid(whole, name));
        }
        let [hour, minute, second] = fields;
        self.time = Some(time_of_day(hour, minute, second, micros).ok_or_else(|| out_of_range(whole))?);
        Ok(rest)
    }

    fn take_word<'a>(&mut self, rest: &'a [u8], text: &[u8], name: &str) -> Result<&'a [u8]> {
        let letters = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(letters);
        let word = word.to_ascii_lowercase();
        match word.as_slice() {
            b"t" if after.first().is_some_and(u8::is_ascii_digit) => return Ok(after),
            b"am" => self.pm = Some(false),
            b"pm" => self.pm = Some(true),
            b"bc" => self.bc = true,
            b"ad" => {}
            b"epoch" if rest.len() == letters && self.numbers.is_empty() && name != "time" => self.days = Some(0),
            b"z" | b"utc" | b"gmt" | b"zulu" | b"ut" => self.offset = Some(0),
            b"infinity" => {
                let message = format!("{name} out of range: \"{}\"", String::from_utf8_lossy(text));
                return Err(Error::datetime_overflow(message).with_hint("infinite times are not supported; use NULL"));
            }
            word => {
                if let Some(month) = month(word) {
                    self.month = Some(month);
                } else if !is_weekday(word) {
                    return self.take_zone(rest, text, name);
                }
            }
        }
        Ok(after)
    }

    fn take_zone<'a>(&mut self, rest: &'a [u8], text: &[u8], name: &str) -> Result<&'a [u8]> {
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        let end = rest.iter().position(|b| !part(b)).unwrap_or(rest.len());
        let (zone, after) = rest.split_at(end);
        let zone = String::from_utf8_lossy(zone);
        let found = zone.parse().ok();
        let found = found.or_else(|| chrono_tz::TZ_VARIANTS.into_iter().find(|tz| tz.name().eq_ignore_ascii_case(&zone)));
        match found {
            Some(zone) if self.offset.is_none() && self.zone.is_none() => self.zone = Some(zone),
            None if self.time.is_some() && zone.contains('/') => {
                return Err(Error::invalid_parameter(format!("time zone \"{zone}\" not recognized")));
            }
            _ => return Err(invalid(text, name)),
        }
        Ok(after)
    }

    fn apply_pm(&mut self, text: &[u8]) -> Result<()> {
        let (Some(pm), Some(time)) = (self.pm, self.time) else { return Ok(()) };
        if time >= 13 * HOUR {
            return Err(out_of_range(text));
        }
        self.time = Some(time % (12 * HOUR) + if pm { 12 * HOUR } else { 0 });
        Ok(())
    }
}

fn month(word: &[u8]) -> Option<u32> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let named = |name: &&str| {
        word == name.as_bytes() || name.as_bytes().get(..3) == Some(word) || (word == b"sept" && *name == "september")
    };
    NAMES.iter().position(named).map(|at| at as u32 + 1)
}

fn is_weekday(word: &[u8]) -> bool {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    NAMES.iter().any(|name| word == name.as_bytes() || name.as_bytes().get(..3) == Some(word))
}
