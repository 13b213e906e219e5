//! Functions of ksqlDB and Flink by their names, in PostgreSQL's words.
//!
//! | written | planned |
//! | --- | --- |
//! | `LEN(s)`, `IF(c, a, b)`, `YEAR(t)` | `length(s)`, `CASE WHEN c THEN a ELSE b END`, `extract(year FROM t)::integer` ([`CALLS`]) |
//! | `COLLECT_SET(x)` | `array_agg(DISTINCT x)` ([`AGGREGATES`]) |
//! | `TIMESTAMPADD(DAY, n, t)`, `FLOOR(t TO HOUR)` | `t + n * INTERVAL '1 day'`, `date_trunc('hour', t)` |
//! | `DATE_FORMAT(t, 'yyyy-MM-dd')` | `to_char(t, 'YYYY-MM-DD')`: Java's letters in PostgreSQL's |
//! | `JSON_VALUE(j, '$.a[0]')` | `j #>> '{a,0}'`, or NULL where `j` is no JSON |
//!
//! What the two understand in different ways is refused with a word on what to write ([`AMBIGUOUS`]): that tells more than an answer
//! that is right for one of them.

use std::ops::ControlFlow;

use sqlparser::ast as sp;

use super::{call, literal, nested, normal, string, templates};
use crate::error::{Error, Result};
use crate::sql::parse::parse_expression;

/// A function, the number of its arguments, and what a call of it stands for. Each argument is there once, or costs nothing twice.
const CALLS: [(&str, usize, &str); 33] = [
    ("array_length", 1, "cardinality($1)"),
    ("as_value", 1, "$1"),
    ("convert_tz", 3, "timezone($3, timezone($2, $1))"),
    ("current_row_timestamp", 0, "now()"),
    ("dayofmonth", 1, "extract(day FROM $1)::integer"),
    ("dayofweek", 1, "extract(dow FROM $1)::integer + 1"),
    ("dayofyear", 1, "extract(doy FROM $1)::integer"),
    ("endswith", 2, "ends_with($1, $2)"),
    ("explode", 1, "unnest($1)"),
    ("from_base64", 1, "arrow_cast(decode($1, 'base64'), 'Utf8')"),
    ("from_days", 1, "DATE '1970-01-01' + $1"),
    (
        "geo_distance",
        4,
        "2 * 6371 * asin(sqrt(power(sin(radians($3 - $1) / 2), 2) + cos(radians($1)) * cos(radians($3)) * power(sin(radians($4 - $2) / 2), 2)))",
    ),
    ("hour", 1, "extract(hour FROM $1)::integer"),
    ("if", 3, "CASE WHEN $1 THEN $2 ELSE $3 END"),
    ("lcase", 1, "lower($1)"),
    ("len", 1, "length($1)"),
    ("locate", 2, "strpos($2, $1)"),
    ("minute", 1, "extract(minute FROM $1)::integer"),
    ("month", 1, "extract(month FROM $1)::integer"),
    ("quarter", 1, "extract(quarter FROM $1)::integer"),
    ("second", 1, "floor(extract(second FROM $1))::integer"),
    ("slice", 3, "array_slice($1, $2, $3)"),
    ("split_index", 3, "(string_to_array($1, $2))[$3 + 1]"),
    ("startswith", 2, "starts_with($1, $2)"),
    ("to_base64", 1, "encode($1::bytea, 'base64')"),
    ("to_timestamp_ltz", 1, "to_timestamp($1::double precision / 1000)"),
    ("to_timestamp_ltz", 2, "to_timestamp($1::double precision / power(10, $2))"),
    ("truncate", 1, "trunc($1)"),
    ("truncate", 2, "trunc($1, $2)"),
    ("ucase", 1, "upper($1)"),
    ("unix_date", 0, "current_date - DATE '1970-01-01'"),
    ("week", 1, "extract(week FROM $1)::integer"),
    ("year", 1, "extract(year FROM $1)::integer"),
];

/// An aggregate, its name here, and whether it takes each value once.
const AGGREGATES: [(&str, &str, bool); 6] = [
    ("approx_count_distinct", "approx_distinct", false),
    ("collect_list", "array_agg", false),
    ("collect_set", "array_agg", true),
    ("correlation", "corr", false),
    ("count_distinct", "count", true),
    ("listagg", "string_agg", false),
];

/// What is no name for one thing, and what to write.
const AMBIGUOUS: [(&str, &str); 2] = [
    ("regexp_extract", "ksqlDB's pattern comes first and Flink's second; write (regexp_match(text, pattern))[1]"),
    ("unix_timestamp", "ksqlDB counts milliseconds and Flink seconds; write extract(epoch FROM now())::bigint"),
];

/// Units of TIMESTAMPADD and its kin: the name, in how many of which unit, and its microseconds if they are always as many.
const UNITS: [(&str, &str, Option<u64>); 8] = [
    ("millisecond", "1 millisecond", Some(1_000)),
    ("second", "1 second", Some(1_000_000)),
    ("minute", "1 minute", Some(60_000_000)),
    ("hour", "1 hour", Some(3_600_000_000)),
    ("day", "1 day", Some(86_400_000_000)),
    ("week", "7 days", Some(604_800_000_000)),
    ("month", "1 month", None),
    ("year", "1 year", None),
];

/// Others that [`function`] knows.
const OTHERS: [&str; 18] = [
    "date_format",
    "dateadd",
    "datesub",
    "datetostring",
    "extractjsonfield",
    "format_date",
    "format_timestamp",
    "json_value",
    "parse_date",
    "parse_timestamp",
    "stringtodate",
    "stringtotimestamp",
    "timeadd",
    "timestampadd",
    "timestampdiff",
    "timestampsub",
    "timestamptostring",
    "timesub",
];

/// Does a call of this name stand for something else?
pub fn is_borrowed(name: &str) -> bool {
    CALLS.iter().any(|(known, ..)| *known == name)
        || AGGREGATES.iter().any(|(known, ..)| *known == name)
        || AMBIGUOUS.iter().any(|(known, _)| *known == name)
        || OTHERS.contains(&name)
}

/// What a call stands for; an aggregate is put in PostgreSQL's words where it is.
pub(super) fn function(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    if let Some((_, what)) = AMBIGUOUS.iter().find(|(known, _)| *known == name) {
        return Err(Error::undefined_function(format!("function {name} is not one here")).with_hint(*what));
    }
    if let Some((_, ours, distinct)) = AGGREGATES.iter().find(|(known, ..)| *known == name) {
        aggregate(function, ours, *distinct);
        return Ok(None);
    }
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    let plain = |argument: &mut sp::FunctionArg| match argument {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    let Some(arguments) = list.args.iter_mut().map(plain).collect::<Option<Vec<_>>>() else { return Ok(None) };
    if let Some((_, _, stands_for)) = CALLS.iter().find(|(known, count, _)| *known == name && *count == arguments.len()) {
        return stand_in(stands_for, &arguments).map(Some);
    }
    match (name, arguments.as_slice()) {
        ("timestampadd" | "timeadd", [unit, count, from]) => moved(unit, count, from, "$1 + $2 * INTERVAL").map(Some),
        ("timestampsub" | "timesub", [unit, count, from]) => moved(unit, count, from, "$1 - $2 * INTERVAL").map(Some),
        ("dateadd", [unit, count, from]) => moved(unit, count, from, "$1 + $2 * INTERVAL").map(as_date).map(Some),
        ("datesub", [unit, count, from]) => moved(unit, count, from, "$1 - $2 * INTERVAL").map(as_date).map(Some),
        ("timestampdiff", [unit, from, to]) => between(unit, &[from.clone(), to.clone()]).map(Some),
        // With a percent sign it is a format of the planner's.
        ("date_format", [_, pattern]) if string(pattern).is_some_and(|pattern| pattern.contains('%')) => Ok(None),
        ("date_format" | "format_timestamp" | "format_date", [value, pattern]) => {
            Ok(Some(call("to_char", vec![value.clone(), template(name, pattern)?])))
        }
        ("datetostring", [days, pattern]) => {
            stand_in("to_char(DATE '1970-01-01' + $1, $2)", &[days.clone(), template(name, pattern)?]).map(Some)
        }
        ("timestamptostring", [millis, pattern, zone @ ..]) if zone.len() < 2 => {
            let zone = zone.first().cloned().unwrap_or_else(|| literal("UTC"));
            let text = "to_char(timezone($3, to_timestamp($1::double precision / 1000)), $2)";
            stand_in(text, &[millis.clone(), template(name, pattern)?, zone]).map(Some)
        }
        ("parse_timestamp", [text, pattern]) => read(name, "to_timestamp", text, pattern).map(Some),
        ("parse_date", [text, pattern]) => read(name, "to_date", text, pattern).map(Some),
        ("stringtotimestamp", [text, pattern]) => {
            stand_in("(extract(epoch FROM $1) * 1000)::bigint", &[read(name, "to_timestamp", text, pattern)?]).map(Some)
        }
        ("stringtodate", [text, pattern]) => {
            stand_in("$1 - DATE '1970-01-01'", &[read(name, "to_date", text, pattern)?]).map(Some)
        }
        ("json_value" | "extractjsonfield", [json, path]) => {
            stand_in("json_get_path_text_or_null($1, $2)", &[json.clone(), literal(&elements(name, path)?)]).map(Some)
        }
        _ => Ok(None),
    }
}

/// `FLOOR(t TO unit)` and `CEIL(t TO unit)`.
pub(super) fn rounded(expr: &sp::Expr) -> Result<Option<sp::Expr>> {
    let (value, field, text) = match expr {
        sp::Expr::Floor { expr, field } => (expr, field, "date_trunc($2, $1)"),
        sp::Expr::Ceil { expr, field } => {
            (expr, field, "CASE WHEN date_trunc($2, $1) = $1 THEN $1 ELSE date_trunc($2, $1) + ('1 ' || $2)::interval END")
        }
        _ => return Ok(None),
    };
    match field {
        sp::CeilFloorKind::DateTimeField(sp::DateTimeField::NoDateTime) | sp::CeilFloorKind::Scale(_) => Ok(None),
        sp::CeilFloorKind::DateTimeField(field) => {
            stand_in(text, &[(**value).clone(), literal(&field.to_string().to_lowercase())]).map(Some)
        }
    }
}

fn aggregate(function: &mut sp::Function, ours: &str, distinct: bool) {
    let sp::FunctionArguments::List(list) = &mut function.args else { return };
    function.name = sp::ObjectName::from(vec![sp::Ident::new(ours)]);
    if distinct {
        list.duplicate_treatment = Some(sp::DuplicateTreatment::Distinct);
    }
    if ours == "string_agg" && list.args.len() == 1 {
        list.args.push(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(literal(","))));
    }
}

/// An expression with arguments in place of `$1`, `$2`, ….
fn stand_in(text: &str, arguments: &[sp::Expr]) -> Result<sp::Expr> {
    let mut expr = parse_expression(text)?;
    super::rewrite_expression(&mut expr)?;
    let _ = sp::visit_expressions_mut(&mut expr, |expr| {
        if let sp::Expr::Value(value) = &*expr
            && let sp::Value::Placeholder(name) = &value.value
            && let Some(argument) =
                name.strip_prefix('$').and_then(|at| at.parse::<usize>().ok()).and_then(|at| arguments.get(at - 1))
        {
            *expr = match argument {
                simple @ (sp::Expr::Identifier(_) | sp::Expr::CompoundIdentifier(_) | sp::Expr::Value(_)) => simple.clone(),
                simple @ (sp::Expr::Nested(_) | sp::Expr::Function(_)) => simple.clone(),
                other => nested(other.clone()),
            };
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(nested(expr))
}

/// The unit that an argument names: `DAY`, `'day'`, `DAYS`.
fn unit(name: &sp::Expr) -> Result<(&'static str, &'static str, Option<u64>)> {
    let word = match name {
        sp::Expr::Identifier(ident) => Some(normal(ident)),
        other => string(other).map(str::to_lowercase),
    };
    let found = word.as_deref().and_then(|word| {
        let word = word.strip_prefix("sql_tsi_").unwrap_or(word);
        UNITS.iter().find(|(unit, ..)| word.strip_suffix('s').unwrap_or(word) == *unit)
    });
    found.copied().ok_or_else(|| {
        let units: Vec<String> = UNITS.iter().map(|(unit, ..)| unit.to_uppercase()).collect();
        Error::invalid_parameter(format!("{name} is no unit of time")).with_hint(format!("write one of {}", units.join(", ")))
    })
}

fn moved(name: &sp::Expr, count: &sp::Expr, from: &sp::Expr, how: &str) -> Result<sp::Expr> {
    let (_, one, _) = unit(name)?;
    stand_in(&format!("{how} '{one}'"), &[from.clone(), count.clone()])
}

fn as_date(moved: sp::Expr) -> sp::Expr {
    let (expr, data_type) = (Box::new(moved), sp::DataType::Date);
    sp::Expr::Cast { kind: sp::CastKind::DoubleColon, expr, data_type, array: false, format: None }
}

/// Whole units from one time to another.
fn between(name: &sp::Expr, times: &[sp::Expr]) -> Result<sp::Expr> {
    let (unit, _, micros) = unit(name)?;
    let age = "age($2::timestamp, $1::timestamp)";
    let text = match (micros, unit) {
        (Some(micros), _) => {
            format!("trunc(extract(epoch FROM $2::timestamp - $1::timestamp) * 1000000 / {micros})::bigint")
        }
        (None, "year") => format!("extract(year FROM {age})::bigint"),
        (None, _) => format!("(extract(year FROM {age}) * 12 + extract(month FROM {age}))::bigint"),
    };
    stand_in(&text, times)
}

/// A text read by a pattern: a date, or a local time.
fn read(function: &str, by: &str, text: &sp::Expr, pattern: &sp::Expr) -> Result<sp::Expr> {
    let template = template(function, pattern)?;
    match templates::parse_call(by, &mut text.clone(), &template) {
        // Without a time zone, which `to_timestamp` would give it.
        Some(sp::Expr::Cast { expr, .. }) => Ok(*expr),
        Some(date) => Ok(date),
        None => Err(Error::unsupported(format!("{function} does not read the pattern {pattern}"))),
    }
}

/// A pattern of Java's (`java.time.format.DateTimeFormatter`) as a template of PostgreSQL's.
fn template(function: &str, pattern: &sp::Expr) -> Result<sp::Expr> {
    let refused = |what: String| {
        let hint = "write to_char(value, 'YYYY-MM-DD HH24:MI:SS') or to_timestamp(text, …), with PostgreSQL's letters";
        Error::unsupported(format!("{function} {what}")).with_hint(hint)
    };
    let Some(pattern) = string(pattern) else { return Err(refused("takes a constant as its pattern".into())) };
    translated(pattern).map(|text| literal(&text)).map_err(|letters| refused(format!("does not know {letters} in a pattern")))
}

/// `Err`: the letters that have no word here.
fn translated(pattern: &str) -> std::result::Result<String, String> {
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let (inner, after) = quoted.split_once('\'').ok_or_else(|| rest.to_string())?;
            match inner {
                "" => text.push('\''),
                inner => text.push_str(&format!("\"{inner}\"")),
            }
            rest = after;
            continue;
        }
        let length = rest.find(|c| c != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        rest = after;
        text.push_str(match (first, length) {
            ('y' | 'u', 2) => "YY",
            ('y' | 'u', 1 | 4) => "YYYY",
            ('M' | 'L', 1) => "FMMM",
            ('M' | 'L', 2) => "MM",
            ('M' | 'L', 3) => "Mon",
            ('M' | 'L', 4) => "FMMonth",
            ('d', 1) => "FMDD",
            ('d', 2) => "DD",
            ('D', 3) => "DDD",
            ('H', 1) => "FMHH24",
            ('H', 2) => "HH24",
            ('h', 1) => "FMHH12",
            ('h', 2) => "HH12",
            ('m', 1) => "FMMI",
            ('m', 2) => "MI",
            ('s', 1) => "FMSS",
            ('s', 2) => "SS",
            ('S', 3) => "MS",
            ('S', 6) => "US",
            ('E', 1..=3) => "Dy",
            ('E', 4) => "FMDay",
            ('a', 1) => "AM",
            (letter, _) if letter.is_ascii_alphabetic() || letter == '"' => return Err(run.to_string()),
            _ => run,
        });
    }
    Ok(text)
}

/// A path of names and positions, `$.a['b'][0]`, as PostgreSQL writes it: `{a,b,0}`.
fn elements(function: &str, path: &sp::Expr) -> Result<String> {
    let refused = || {
        let message = format!("{function} takes a constant path of names and positions");
        Error::unsupported(message).with_hint("write '$.name.list[0]', or json -> 'name' ->> 'other'")
    };
    let mut rest = string(path).and_then(|path| path.trim().strip_prefix('$')).ok_or_else(refused)?;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let element = if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            rest = &named[end..];
            &named[..end]
        } else {
            let (inner, after) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')).ok_or_else(refused)?;
            rest = after;
            let quoted = |quote| inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
            match quoted('\'').or_else(|| quoted('"')) {
                Some(name) => name,
                None if !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit()) => inner,
                None => return Err(refused()),
            }
        };
        if element.is_empty() || element.contains('*') {
            return Err(refused());
        }
        elements.push(format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    Ok(format!("{{{}}}", elements.join(",")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("yyyy-MM-dd HH:mm:ss", Ok("YYYY-MM-DD HH24:MI:SS"))]
    #[case("yyyy-MM-dd'T'HH:mm:ss.SSS", Ok("YYYY-MM-DD\"T\"HH24:MI:SS.MS"))]
    #[case("d MMM yy, h 'o''clock' a", Ok("FMDD Mon YY, FMHH12 \"o\"\"clock\" AM"))]
    #[case("EEEE", Ok("FMDay"))]
    #[case("yyyyMMdd", Ok("YYYYMMDD"))]
    #[case("yyyy-MM-dd XXX", Err("XXX"))]
    #[case("'open", Err("'open"))]
    fn java_patterns_become_templates(#[case] pattern: &str, #[case] expected: std::result::Result<&str, &str>) {
        assert_eq!(translated(pattern), expected.map(str::to_string).map_err(str::to_string));
    }

    #[rstest]
    #[case("$.a.b", Some("{\"a\",\"b\"}"))]
    #[case("$", Some("{}"))]
    #[case("$.list[0]['a key'].x", Some("{\"list\",\"0\",\"a key\",\"x\"}"))]
    #[case("$.a\\\"b", Some("{\"a\\\\\\\"b\"}"))]
    #[case("a.b", None)]
    #[case("$..a", None)]
    #[case("$.a[*]", None)]
    #[case("$.a[", None)]
    #[case("$.a[]", None)]
    fn paths_become_elements(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(elements("json_value", &literal(path)).ok().as_deref(), expected);
    }

    /// Every call stands for something that parses, with all of its arguments in it.
    #[test]
    fn calls_stand_for_expressions() {
        for (name, count, text) in CALLS {
            let arguments: Vec<sp::Expr> =
                (0..count).map(|at| sp::Expr::Identifier(sp::Ident::new(format!("argument{at}")))).collect();
            let expr = stand_in(text, &arguments).unwrap().to_string();
            assert!((0..count).all(|at| expr.contains(&format!("argument{at}"))), "{name}: {expr}");
            assert!(!expr.contains('$'), "{name}: {expr}");
        }
    }
}
