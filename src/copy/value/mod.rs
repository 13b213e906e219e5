//! Values as PostgreSQL writes them: text to value and back.
//!
//! One place for the text forms of all types, shared by COPY, statement parameters and options. Parsers take bytes, accept what
//! PostgreSQL's input functions accept, and answer with its messages and SQLSTATEs. Writers append to a buffer.
//!
//! Invariant: whatever [`write`](mod@write) writes, the parser of the same type reads back as the same value.

mod formats;
mod interval;
mod nested;
mod number;
mod time;
pub mod write;

pub use formats::{DateOrder, Formats};
pub use interval::parse_interval;
pub use nested::{Elements, parse_array, parse_record};
pub(crate) use number::numeric_overflow;
pub use number::{Integer, parse_bool, parse_bytea, parse_float32, parse_float64, parse_int, parse_numeric, parse_numeric256};
pub use time::{civil_from_days, days_from_civil, parse_date, parse_time, parse_timestamp, parse_timestamptz};

use crate::error::Error;

/// Microseconds of a second, a minute, an hour and a day.
pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// "invalid input syntax for type …", as every input function of PostgreSQL says it.
#[cold]
pub(crate) fn invalid_syntax(type_name: &str, text: &[u8]) -> Error {
    Error::invalid_text(format!("invalid input syntax for type {type_name}: \"{}\"", String::from_utf8_lossy(text)))
}

/// PostgreSQL's isspace in the C locale.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    while let [first, rest @ ..] = text
        && space(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && space(last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests;
