//! Settings that say how values look as text: those that are done here, and which are refused, so that none is obeyed in words only.

use crate::copy::value::{DateOrder, parse_bool};
use crate::error::{Error, Result};

/// The value of such a setting, its name in lower case, in its usual form; `None` for other settings.
pub fn check(name: &str, value: &str) -> Option<Result<String>> {
    let invalid = || Error::invalid_parameter(format!("invalid value for parameter \"{name}\": \"{value}\""));
    Some(match name {
        "datestyle" => date_style(value).map(|order| format!("ISO, {}", order.unwrap_or("MDY"))),
        "intervalstyle" => {
            let only = "intervals are shown as IntervalStyle postgres has it; to_char(interval, …) writes others";
            one_of(name, value, &["postgres", "postgres_verbose", "sql_standard", "iso_8601"], only)
        }
        "bytea_output" => one_of(name, value, &["hex", "escape"], "encode(value, 'escape') writes bytes so"),
        "extra_float_digits" => match value.trim().parse::<i32>() {
            Ok(digits @ 1..=3) => Ok(digits.to_string()),
            Ok(-15..=0) => {
                let error =
                    Error::unsupported(format!("extra_float_digits = {value} is not supported: floats are shown exactly"));
                Err(error.with_hint("leave it at 1, and write round(x::numeric, n) for fewer digits"))
            }
            Ok(_) => {
                Err(Error::invalid_parameter(format!("{value} is outside the valid range for parameter \"{name}\" (-15 .. 3)")))
            }
            Err(_) => Err(invalid()),
        },
        "standard_conforming_strings" => match parse_bool(value.as_bytes()) {
            Ok(true) => Ok("on".to_string()),
            Ok(false) => Err(Error::unsupported("standard_conforming_strings = off is not supported")
                .with_hint(r"a backslash in '…' is a backslash; write E'…\n' for one that escapes")),
            Err(_) => Err(Error::invalid_parameter(format!("parameter \"{name}\" requires a Boolean value"))),
        },
        _ => return None,
    })
}

/// The only value of several that PostgreSQL has which is done here: the first one.
fn one_of(name: &str, value: &str, known: &[&str], instead: &str) -> Result<String> {
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(value));
    match found {
        Some(first) if Some(first) == known.first() => Ok((*first).to_string()),
        Some(other) => Err(Error::unsupported(format!("{name} = {other} is not supported")).with_hint(instead)),
        None => {
            let error = Error::invalid_parameter(format!("invalid value for parameter \"{name}\": \"{value}\""));
            Err(error.with_hint(format!("Available values: {}.", known.join(", "))))
        }
    }
}

/// The order of day, month and year that a DateStyle names; its style is ISO.
pub fn date_style(value: &str) -> Result<Option<&'static str>> {
    let invalid = |detail: String| {
        Error::invalid_parameter(format!("invalid value for parameter \"DateStyle\": \"{value}\"")).with_detail(detail)
    };
    let (mut style, mut order) = (None, None);
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        let (slot, meant) = match lower.as_str() {
            "iso" => (&mut style, "ISO"),
            "dmy" => (&mut order, "DMY"),
            "mdy" | "us" => (&mut order, "MDY"),
            "ymd" => (&mut order, "YMD"),
            word if word.starts_with("euro") => (&mut order, "DMY"),
            word if word.starts_with("noneuro") => (&mut order, "MDY"),
            "default" => {
                style.get_or_insert("ISO");
                order.get_or_insert("MDY");
                continue;
            }
            "sql" | "german" | "postgres" => {
                let error = Error::unsupported(format!("DateStyle {word} is not supported: dates are shown as ISO has it"));
                return Err(error.with_hint("write SET datestyle = 'ISO, DMY' for days before months where dates are read"));
            }
            _ => return Err(invalid(format!("Unrecognized key word: \"{word}\"."))),
        };
        if slot.replace(meant).is_some_and(|former| former != meant) {
            return Err(invalid("Conflicting \"datestyle\" specifications.".into()));
        }
    }
    Ok(order)
}

/// Of a style as it is kept.
pub fn date_order(style: &str) -> DateOrder {
    match style {
        "ISO, DMY" => DateOrder::DayFirst,
        "ISO, YMD" => DateOrder::YearFirst,
        _ => DateOrder::MonthFirst,
    }
}
