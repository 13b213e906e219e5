//! `to_char` of intervals: months, days and microseconds as they are, without a calendar.

use super::to_char::{Piece, ordinal};
use crate::error::{Error, Result};

/// A length of time in the fields of a template.
pub(super) struct Parts {
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    micros: i64,
}

impl Parts {
    pub fn new(months: i32, days: i32, micros: i64) -> Parts {
        Parts {
            months: months.into(),
            days: days.into(),
            hours: micros / 3_600_000_000,
            minutes: micros / 60_000_000 % 60,
            seconds: micros / 1_000_000 % 60,
            micros: micros % 1_000_000,
        }
    }

    pub fn write(&self, pieces: &[Piece], output: &mut String) -> Result<()> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => output.push_str(text),
                Piece::Field { pattern, fill, th } => {
                    let written = self.field(pattern, *fill)?;
                    output.push_str(&written);
                    match th {
                        Some(true) => output.push_str(&ordinal(&written).to_uppercase()),
                        Some(false) => output.push_str(ordinal(&written)),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&self, pattern: &str, fill: bool) -> Result<String> {
        let number = |n: i64, width: usize| if fill { format!("{n:0width$}") } else { n.to_string() };
        // A minus has a place of its own in some fields, and takes one of the others'.
        let signed = |n: i64, width: usize| number(n, width + usize::from(n < 0));
        let noon = |before: &str, after: &str| (if self.hours.rem_euclid(24) < 12 { before } else { after }).to_string();
        let (years, months) = (self.months / 12, self.months % 12);
        let hour12 = if self.hours % 12 == 0 { 12 } else { self.hours % 12 };
        Ok(match pattern {
            "HH24" => signed(self.hours, 2),
            "HH12" | "HH" => signed(hour12, 2),
            "MI" => signed(self.minutes, 2),
            "SS" => signed(self.seconds, 2),
            "MS" => number(self.micros / 1000, 3),
            "US" => number(self.micros, 6),
            "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = pattern.bytes().last().map_or(6, |digit| u32::from(digit - b'0'));
                format!("{:0width$}", self.micros / 10_i64.pow(6 - digits), width = digits as usize)
            }
            "SSSS" | "SSSSS" => (self.hours * 3600 + self.minutes * 60 + self.seconds).to_string(),
            "AM" | "PM" => noon("AM", "PM"),
            "am" | "pm" => noon("am", "pm"),
            "A.M." | "P.M." => noon("A.M.", "P.M."),
            "a.m." | "p.m." => noon("a.m.", "p.m."),
            "YYYY" => signed(years, 4),
            "YYY" => number(years % 1000, 3),
            "YY" => number(years % 100, 2),
            "Y" => number(years % 10, 1),
            "MM" => signed(months, 2),
            "DD" => number(self.days, 2),
            "DDD" => number(self.months * 30 + self.days, 3),
            _ => {
                let error = Error::invalid_datetime("invalid format specification for an interval value");
                return Err(error.with_hint("intervals are not tied to specific calendar dates"));
            }
        })
    }
}
