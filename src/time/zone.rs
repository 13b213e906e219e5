//! Time zones: what clocks show somewhere at an instant, and at which instant they show it.
//!
//! | written | meant |
//! | --- | --- |
//! | `Europe/Berlin`, `europe/berlin`, `UTC` | a zone of the tz database |
//! | `GMT-02:00`, `UTC+3`, `<+02>-02`, `+02:00` | a clock that never changes, as POSIX writes it: the hours count to the *west* |
//! | `2`, `-3.5`, where a setting stands for a zone | hours to the *east* |

use std::fmt;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::{OffsetName, Tz};

use super::Micros;
use crate::error::{Error, Result};

const SECOND: Micros = 1_000_000;

/// POSIX knows no clock that is further from Greenwich than a week, less an hour.
const MAX_HOURS: u32 = 167;

/// A zone of the tz database, or so many seconds east of Greenwich.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    Named(Tz),
    Fixed(i32),
}

impl Default for Zone {
    fn default() -> Zone {
        Zone::Named(Tz::UTC)
    }
}

impl Zone {
    /// By its name in any case, or as POSIX writes a clock.
    pub fn named(name: &str) -> Result<Zone> {
        let found = by_name(name).map(Zone::Named).or_else(|| posix(name));
        found.ok_or_else(|| Error::invalid_parameter(format!("time zone \"{name}\" not recognized")))
    }

    /// As a setting: also a number of hours to the east.
    pub fn of_setting(value: &str) -> Option<Zone> {
        match value.trim().parse::<f64>() {
            Ok(hours) if hours.abs() <= f64::from(MAX_HOURS) => Some(Zone::Fixed((hours * 3600.0).round_ties_even() as i32)),
            Ok(_) => None,
            Err(_) => Zone::named(value).ok(),
        }
    }

    /// Of the type of a column: a name, or hours and minutes to the east.
    pub fn of_type(name: &str) -> Zone {
        match (by_name(name), posix(name)) {
            (Some(zone), _) => Zone::Named(zone),
            (None, Some(Zone::Fixed(0))) => Zone::default(),
            (None, Some(Zone::Fixed(west))) => Zone::Fixed(-west),
            _ => Zone::default(),
        }
    }

    /// The same, to name the type by.
    pub fn type_name(self) -> String {
        match self {
            Zone::Named(zone) => zone.name().to_string(),
            Zone::Fixed(east) => shown(east),
        }
    }

    /// Do its clocks always show UTC?
    pub fn is_utc(self) -> bool {
        matches!(self, Zone::Named(Tz::UTC | Tz::Etc__UTC | Tz::GMT | Tz::Etc__GMT | Tz::Zulu) | Zone::Fixed(0))
    }

    /// Seconds east of Greenwich at an instant; none where the calendar does not reach.
    pub fn offset(self, instant: Micros) -> i32 {
        match self {
            Zone::Fixed(east) => east,
            Zone::Named(Tz::UTC) => 0,
            Zone::Named(zone) => DateTime::from_timestamp_micros(instant)
                .map_or(0, |at| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()),
        }
    }

    /// What its time is called at an instant: `CET`, `+02`.
    pub fn abbreviation(self, instant: Micros) -> String {
        let named = match self {
            Zone::Named(zone) => DateTime::from_timestamp_micros(instant)
                .and_then(|at| zone.offset_from_utc_datetime(&at.naive_utc()).abbreviation().map(str::to_string)),
            Zone::Fixed(_) => None,
        };
        named.unwrap_or_else(|| shown(self.offset(instant)))
    }

    /// What clocks show there.
    pub fn local(self, instant: Micros) -> Result<Micros> {
        instant.checked_add(Micros::from(self.offset(instant)) * SECOND).ok_or_else(out_of_range)
    }

    /// When clocks there show this. In the hour that a change of clocks skips or repeats, standard time counts.
    pub fn instant(self, local: Micros) -> Result<Micros> {
        let offset = match self {
            Zone::Fixed(east) => east,
            Zone::Named(Tz::UTC) => 0,
            Zone::Named(zone) => offset_of_local(zone, local).ok_or_else(out_of_range)?,
        };
        local.checked_sub(Micros::from(offset) * SECOND).ok_or_else(out_of_range)
    }
}

/// As PostgreSQL shows a setting: `Europe/Berlin`, `<+02>-02`.
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Named(zone) => f.write_str(zone.name()),
            Zone::Fixed(east) => write!(f, "<{}>{}", shown(*east), shown(-east)),
        }
    }
}

/// Hours, and what there is of minutes and seconds, with a sign.
fn shown(seconds: i32) -> String {
    let size = seconds.unsigned_abs();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes, rest) = (size / 3600, size / 60 % 60, size % 60);
    match (minutes, rest) {
        (0, 0) => format!("{sign}{hours:02}"),
        (minutes, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        (minutes, rest) => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    }
}

fn by_name(name: &str) -> Option<Tz> {
    let any_case = || chrono_tz::TZ_VARIANTS.into_iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
    name.parse().ok().or_else(any_case)
}

/// `name[+-]hh[:mm[:ss]]`, to the west. The name is letters, or anything between `<` and `>`, and may be missing.
fn posix(text: &str) -> Option<Zone> {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    };
    let (west, rest) = match rest.as_bytes().first()? {
        b'-' => (-1, &rest[1..]),
        b'+' => (1, &rest[1..]),
        _ => (1, rest),
    };
    let mut parts = rest.split(':');
    let mut part = |most: u32| match parts.next() {
        None => Some(0),
        Some(digits) => digits.parse().ok().filter(|n| *n <= most && digits.bytes().all(|b| b.is_ascii_digit())),
    };
    let seconds = part(MAX_HOURS)? * 3600 + part(59)? * 60 + part(59)?;
    parts.next().is_none().then(|| Zone::Fixed(-west * i32::try_from(seconds).unwrap_or(0)))
}

/// How far a zone is east of Greenwich, in seconds, when its clocks show this.
fn offset_of_local(zone: Tz, local: Micros) -> Option<i32> {
    let naive = DateTime::from_timestamp_micros(local)?.naive_utc();
    let found = zone.offset_from_local_datetime(&naive);
    // In the hour that a change of clocks skips or repeats, standard time counts: the later of two instants.
    let offset = found.latest().or_else(|| {
        let before = naive.date().pred_opt()?.and_hms_opt(0, 0, 0)?;
        zone.offset_from_local_datetime(&before).latest()
    })?;
    Some(offset.fix().local_minus_utc())
}

fn out_of_range() -> Error {
    Error::datetime_overflow("timestamp out of range")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Figures from PostgreSQL 15.
    #[rstest]
    #[case("europe/berlin", Some("Europe/Berlin"))]
    #[case("utc", Some("UTC"))]
    #[case("GMT-02:00", Some("<+02>-02"))]
    #[case("+02:00", Some("<-02>+02"))]
    #[case("+02", Some("<+02>-02"))]
    #[case("-3.5", Some("<-03:30>+03:30"))]
    #[case("UTC+3", Some("<-03>+03"))]
    #[case("<+02>-02", Some("<+02>-02"))]
    #[case("U3", Some("<-03>+03"))]
    #[case("UTC+168", None)]
    #[case("200", None)]
    #[case("nowhere", None)]
    #[case("+", None)]
    #[case("", None)]
    #[case("UTC+1:60", None)]
    #[case("UTC+1:0:0:0", None)]
    #[case("NaN", None)]
    fn settings(#[case] value: &str, #[case] expected: Option<&str>) {
        assert_eq!(Zone::of_setting(value).map(|zone| zone.to_string()).as_deref(), expected);
    }

    #[rstest]
    #[case("Europe/Berlin")]
    #[case("<+02>-02")]
    #[case("<-03:30>+03:30")]
    fn types_are_named_by_zones(#[case] name: &str) {
        let zone = Zone::named(name).unwrap();
        assert_eq!((zone.to_string().as_str(), Zone::of_type(&zone.type_name())), (name, zone));
    }
}
