//! `INTERVAL '5' MINUTES`, `INTERVAL '1:30' MINUTE TO SECOND`: all as `INTERVAL '5 minutes'`.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use sqlparser::ast::{DateTimeField, Expr, Interval, Value, ValueWithSpan};

use super::window_call::text;
use crate::copy::value::parse_interval;
use crate::error::{Error, Result};
use crate::time::Micros;

const DAY: Micros = 86_400_000_000;

/// The unit is put into the text, where PostgreSQL, Flink and DataFusion all read it.
pub(super) fn normalize(interval: &mut Interval) -> Result<()> {
    let Some(field) = interval.leading_field.take() else { return in_known_units(interval) };
    let number = match interval.value.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => Some(number.clone()),
        value => text(value),
    };
    let Some(number) = number else {
        return Err(
            Error::unsupported("an interval of an expression is not supported").with_hint("multiply: n * INTERVAL '1 minute'")
        );
    };
    let unit = unit(&field).ok_or_else(|| Error::syntax(format!("{field} is no unit of an interval")))?;
    let value = match interval.last_field.take() {
        None => format!("{} {unit}", number.trim()),
        Some(last) => fields(&number, &field, &last)?,
    };
    interval.leading_precision = None;
    interval.fractional_seconds_precision = None;
    *interval.value = literal(value);
    Ok(())
}

/// What only PostgreSQL reads (`1 day 02:03:04`, `P1Y`, `1 day ago`), as the planner does.
fn in_known_units(interval: &mut Interval) -> Result<()> {
    let Some(written) = text(&interval.value) else { return Ok(()) };
    let length = parse_interval(written.as_bytes())?;
    if parse_interval_month_day_nano(&written).ok() != Some(length) {
        let micros = length.nanoseconds / 1000;
        *interval.value = literal(format!("{} months {} days {micros} microseconds", length.months, length.days));
    }
    Ok(())
}

/// A string literal.
pub(super) fn literal(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).with_empty_span())
}

/// An interval of this text.
pub(super) fn interval(text: String) -> Expr {
    let value = Box::new(literal(text));
    let fields = (None, None, None, None);
    let (leading_field, leading_precision, last_field, fractional_seconds_precision) = fields;
    Expr::Interval(Interval { value, leading_field, leading_precision, last_field, fractional_seconds_precision })
}

/// How long an interval is that was normalized; `None`: it is none, or not always as long.
pub(super) fn micros(expr: &Expr) -> Option<Micros> {
    let Expr::Interval(Interval { value, leading_field: None, .. }) = expr else { return None };
    let length = parse_interval_month_day_nano(&text(value)?).ok().filter(|length| length.months == 0)?;
    (i64::from(length.days) * DAY).checked_add(length.nanoseconds / 1000)
}

fn unit(field: &DateTimeField) -> Option<&'static str> {
    use DateTimeField::*;
    Some(match field {
        Year | Years => "years",
        Month | Months => "months",
        Week(None) | Weeks => "weeks",
        Day | Days => "days",
        Hour | Hours => "hours",
        Minute | Minutes => "minutes",
        Second | Seconds => "seconds",
        Millisecond | Milliseconds => "milliseconds",
        Microsecond | Microseconds => "microseconds",
        Nanosecond | Nanoseconds => "nanoseconds",
        Century => "centuries",
        Decade => "decades",
        _ => return None,
    })
}

/// The SQL standard's fields: `'1-2' YEAR TO MONTH`, `'1 02:03:04.5' DAY TO SECOND`, `'1:30' MINUTE TO SECOND`.
fn fields(text: &str, from: &DateTimeField, to: &DateTimeField) -> Result<String> {
    const UNITS: [&str; 6] = ["years", "months", "days", "hours", "minutes", "seconds"];
    let wrong = || Error::syntax(format!("an interval of {from} to {to} can't be read from '{text}'"));
    let place = |field: &DateTimeField| unit(field).and_then(|unit| UNITS.iter().position(|u| *u == unit)).ok_or_else(wrong);
    let units = UNITS.get(place(from)?..=place(to)?).ok_or_else(wrong)?;
    let (sign, digits) = match text.trim().strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.trim().trim_start_matches('+')),
    };
    let parts: Vec<&str> = digits.split(['-', ' ', ':']).filter(|part| !part.is_empty()).collect();
    let numbers = parts.iter().all(|part| part.parse::<f64>().is_ok());
    if parts.len() != units.len() || !numbers {
        return Err(wrong());
    }
    let parts = parts.iter().zip(units).map(|(number, unit)| format!("{sign}{number} {unit}"));
    Ok(parts.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;

    use super::*;
    use crate::sql::parse::parse_expression;

    #[rstest::rstest]
    #[case("INTERVAL '2' YEAR", (24, 0, 0))]
    #[case("INTERVAL '3' MONTHS", (3, 0, 0))]
    #[case("INTERVAL '1' WEEK", (0, 7, 0))]
    #[case("INTERVAL '1' DAYS", (0, 1, 0))]
    #[case("INTERVAL '1' MINUTE", (0, 0, 60_000_000_000))]
    #[case("INTERVAL '1.5' SECONDS", (0, 0, 1_500_000_000))]
    #[case("INTERVAL 5 MILLISECONDS", (0, 0, 5_000_000))]
    #[case("INTERVAL '-1:30' MINUTE TO SECOND", (0, 0, -90_000_000_000))]
    #[case("INTERVAL '1-2' YEAR TO MONTH", (14, 0, 0))]
    #[case("INTERVAL '1 02:03:04.5' DAY TO SECOND", (0, 1, 7_384_500_000_000))]
    fn arrow_reads_what_we_write(#[case] sql: &str, #[case] expected: (i32, i32, i64)) {
        let Expr::Interval(interval) = parse_expression(sql).unwrap() else { panic!("not an interval") };
        let found = parse_interval_month_day_nano(&text(&interval.value).unwrap()).unwrap();
        assert_eq!((found.months, found.days, found.nanoseconds), expected);
    }
}
