//! Functions of ksqlDB and Flink by their names, in PostgreSQL's words.
//!
//! | written | planned |
//! | --- | --- |
//! | `LEN(s)`, `IF(c, a, b)`, `YEAR(t)` | `length(s)`, `CASE WHEN c THEN a ELSE b END`, `extract(year FROM t)::integer` ([`calls`]) |
//! | `COLLECT_SET(x)`, `HISTOGRAM(x)` | `array_agg(DISTINCT x)`, `map_counts(array_agg(x))` |
//! | `TIMESTAMPADD(DAY, n, t)`, `FLOOR(t TO HOUR)` | `t + n * INTERVAL '1 day'`, `date_trunc('hour', t)` |
//! | `DATE_FORMAT(t, 'yyyy-MM-dd')` | `to_char(t, 'YYYY-MM-DD')`: Java's letters in PostgreSQL's ([`patterns`]) |
//! | `JSON_VALUE(j, '$.a[0]')` | what is at `{a,0}`, or NULL where `j` is no JSON ([`paths`]) |
//! | `REGEXP_EXTRACT('b+', s)`, `REGEXP_EXTRACT(s, 'b+')` | `regexp_substr(s, 'b+', …)`: the pattern is the argument that is a constant |
//!
//! What the two understand in different ways is refused with a word on what to write ([`AMBIGUOUS`]): that tells more than an answer
//! that is right for one of them. A name that PostgreSQL has means what it does there.

mod calls;
mod patterns;
mod paths;

use std::ops::ControlFlow;

use sqlparser::ast as sp;

use super::{call, literal, nested, normal, string};
use crate::error::{Error, Result};
use crate::sql::parse::parse_expression;
use calls::{AGGREGATES, CALLS, OF_AGGREGATES};
use paths::elements;
pub(super) use patterns::is_java;
use patterns::{read, template};

/// What is no name for one thing, and what to write.
const AMBIGUOUS: [(&str, &str); 3] = [
    ("regexp_extract", BOTH_ORDERS),
    ("regexp_extract_all", BOTH_ORDERS),
    ("unix_timestamp", "ksqlDB counts milliseconds and Flink seconds; write extract(epoch FROM now())::bigint"),
];

const BOTH_ORDERS: &str =
    "ksqlDB's pattern comes first and Flink's second: the one that is a constant is it; write regexp_substr(text, pattern)";

/// Units of TIMESTAMPADD and its kin: the name, in how many of which unit, and its microseconds if they are always as many.
const UNITS: [(&str, &str, Option<u64>); 10] = [
    ("microsecond", "1 microsecond", Some(1)),
    ("millisecond", "1 millisecond", Some(1_000)),
    ("second", "1 second", Some(1_000_000)),
    ("minute", "1 minute", Some(60_000_000)),
    ("hour", "1 hour", Some(3_600_000_000)),
    ("day", "1 day", Some(86_400_000_000)),
    ("week", "7 days", Some(604_800_000_000)),
    ("month", "1 month", None),
    ("quarter", "3 months", None),
    ("year", "1 year", None),
];

/// Others that [`function`] knows.
const OTHERS: [&str; 38] = [
    "array_sort",
    "attr",
    "date_format",
    "dateadd",
    "datesub",
    "datetostring",
    "decode",
    "elt",
    "encode",
    "extract_json_string",
    "extractjsonfield",
    "field",
    "format_date",
    "format_time",
    "format_timestamp",
    "from_bytes",
    "from_unixtime",
    "geo_distance",
    "json_exists",
    "json_query",
    "json_value",
    "parse_date",
    "parse_time",
    "parse_timestamp",
    "regexp_extract",
    "regexp_extract_all",
    "stringtodate",
    "stringtotimestamp",
    "timeadd",
    "timestampadd",
    "timestampdiff",
    "timestampsub",
    "timestamptostring",
    "timesub",
    "to_bytes",
    "to_timestamp",
    "to_timestamp_ltz",
    "unix_timestamp",
];

/// Does a call of this name stand for something else?
pub fn is_borrowed(name: &str) -> bool {
    CALLS.iter().any(|(known, ..)| *known == name)
        || AGGREGATES.iter().any(|(known, ..)| *known == name)
        || OF_AGGREGATES.iter().any(|(known, ..)| *known == name)
        || OTHERS.contains(&name)
}

/// What a call stands for; an aggregate is put in PostgreSQL's words where it is.
pub(super) fn function(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    if let Some((_, ours, distinct)) = AGGREGATES.iter().find(|(known, ..)| *known == name) {
        aggregate(function, ours, *distinct);
        return Ok(None);
    }
    if let Some((_, inner, outer)) = OF_AGGREGATES.iter().find(|(known, ..)| *known == name) {
        let mut aggregate = function.clone();
        aggregate.name = sp::ObjectName::from(vec![sp::Ident::new(*inner)]);
        // By value: equal ones are kept as one, which they could not be in the order in which they came.
        if let sp::FunctionArguments::List(list) = &mut aggregate.args
            && let [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value))] = list.args.as_slice()
        {
            let options = sp::OrderByOptions { asc: None, nulls_first: None };
            let by = sp::OrderByExpr { expr: value.clone(), options, with_fill: None };
            list.clauses.push(sp::FunctionArgumentClause::OrderBy(vec![by]));
        }
        return Ok(Some(call(outer, vec![sp::Expr::Function(aggregate)])));
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
    if let Some(form) = of_times(name, &arguments)? {
        return Ok(Some(form));
    }
    let returned = list.clauses.iter().find_map(|clause| match clause {
        sp::FunctionArgumentClause::JsonReturningClause(returning) => Some(returning.data_type.clone()),
        _ => None,
    });
    of_texts(name, &arguments, returned)
}

/// Calls that make times, or texts of times.
fn of_times(name: &str, arguments: &[sp::Expr]) -> Result<Option<sp::Expr>> {
    match (name, arguments) {
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
        ("format_timestamp", [value, pattern, zone]) => {
            let text = "to_char(timezone($3, timezone('UTC', $1)), $2)";
            stand_in(text, &[value.clone(), template(name, pattern)?, zone.clone()]).map(Some)
        }
        ("format_time", [time, pattern]) => {
            stand_in("to_char(DATE '1970-01-01' + $1, $2)", &[time.clone(), template(name, pattern)?]).map(Some)
        }
        ("datetostring", [days, pattern]) => {
            stand_in("to_char(DATE '1970-01-01' + $1, $2)", &[days.clone(), template(name, pattern)?]).map(Some)
        }
        ("timestamptostring", [millis, pattern, zone @ ..]) if zone.len() < 2 => {
            let zone = zone.first().cloned().unwrap_or_else(|| literal("UTC"));
            let text = "to_char(timezone($3, to_timestamp($1::double precision / 1000)), $2)";
            stand_in(text, &[millis.clone(), template(name, pattern)?, zone]).map(Some)
        }
        ("from_unixtime", [seconds, pattern]) => {
            let text = "to_char(timezone('UTC', to_timestamp($1::double precision)), $2)";
            stand_in(text, &[seconds.clone(), template(name, pattern)?]).map(Some)
        }
        ("to_timestamp", [text]) if string(text).is_some() => stand_in("$1::timestamp", arguments).map(Some),
        ("to_timestamp", [text, pattern]) if is_java(pattern) => read(name, text, pattern).map(Some),
        ("to_timestamp_ltz", [text]) if string(text).is_some() => stand_in("timezone('UTC', $1::timestamp)", arguments).map(Some),
        ("to_timestamp_ltz", [millis]) => {
            stand_in("to_timestamp($1::double precision / 1000)", std::slice::from_ref(millis)).map(Some)
        }
        ("to_timestamp_ltz", [text, pattern]) if string(pattern).is_some() => {
            stand_in("timezone('UTC', $1)", &[read(name, text, pattern)?]).map(Some)
        }
        ("to_timestamp_ltz", [_, _]) => stand_in("to_timestamp($1::double precision / power(10, $2))", arguments).map(Some),
        ("to_timestamp_ltz", [text, pattern, zone]) => {
            stand_in("timezone($2, $1)", &[read(name, text, pattern)?, zone.clone()]).map(Some)
        }
        ("parse_timestamp", [text, pattern]) => read(name, text, pattern).map(Some),
        ("parse_timestamp", [text, pattern, zone]) => {
            stand_in("timezone('UTC', timezone($2, $1))", &[read(name, text, pattern)?, zone.clone()]).map(Some)
        }
        ("parse_date", [text, pattern]) => stand_in("$1::date", &[read(name, text, pattern)?]).map(Some),
        ("parse_time", [text, pattern]) => stand_in("$1::time", &[read(name, text, pattern)?]).map(Some),
        ("stringtotimestamp", [text, pattern]) => {
            stand_in("(extract(epoch FROM $1) * 1000)::bigint", &[read(name, text, pattern)?]).map(Some)
        }
        ("stringtotimestamp", [text, pattern, zone]) => {
            let text = &[read(name, text, pattern)?, zone.clone()];
            stand_in("(extract(epoch FROM timezone($2, $1)) * 1000)::bigint", text).map(Some)
        }
        ("stringtodate", [text, pattern]) => stand_in("$1::date - DATE '1970-01-01'", &[read(name, text, pattern)?]).map(Some),
        ("unix_timestamp", []) => Err(ambiguous(name)),
        ("unix_timestamp", [text, pattern]) => {
            stand_in("extract(epoch FROM $1)::bigint", &[read(name, text, pattern)?]).map(Some)
        }
        _ => Ok(None),
    }
}

/// Calls that look into texts, documents, bytes and lists. `returned`: the type that RETURNING names.
fn of_texts(name: &str, arguments: &[sp::Expr], returned: Option<sp::DataType>) -> Result<Option<sp::Expr>> {
    let at_path = |function: &str, json: &sp::Expr, path: &sp::Expr| {
        Ok(call(function, vec![json.clone(), literal(&elements(name, path)?)]))
    };
    match (name, arguments) {
        ("extractjsonfield", [json, path]) => at_path("json_get_path_text_or_null", json, path).map(Some),
        ("json_value" | "extract_json_string", [json, path]) => {
            let value = at_path("json_value_or_null", json, path)?;
            Ok(Some(match returned {
                Some(data_type) => tried(value, data_type)?,
                None => value,
            }))
        }
        ("json_query", [json, path]) => at_path("json_query_or_null", json, path).map(Some),
        ("json_exists", [json, path]) => at_path("json_path_is_there", json, path).map(Some),
        ("regexp_extract", [first, second, group @ ..]) if group.len() < 2 => {
            let (text, pattern, _) = by_constant(name, first, second)?;
            let group = group.first().cloned().unwrap_or_else(|| number(0));
            stand_in("regexp_substr($1, $2, 1, 1, 'p', $3)", &[text, pattern, group]).map(Some)
        }
        ("regexp_extract_all", [first, second, group @ ..]) if group.len() < 2 => {
            let (text, pattern, is_flink) = by_constant(name, first, second)?;
            // Flink's first group, where the pattern has one.
            let has_groups = || string(&pattern).is_some_and(|text| regex::Regex::new(text).is_ok_and(|r| r.captures_len() > 1));
            let group = group.first().cloned().unwrap_or_else(|| number(usize::from(is_flink && has_groups())));
            Ok(Some(call("regexp_groups", vec![text, pattern, group])))
        }
        ("encode", [text, charset]) if is_charset(charset) => {
            stand_in("convert_to($1, 'UTF8')", std::slice::from_ref(text)).map(Some)
        }
        ("decode", [bytes, charset]) if is_charset(charset) => {
            stand_in("convert_from($1, 'UTF8')", std::slice::from_ref(bytes)).map(Some)
        }
        // With its padding, as PostgreSQL has it.
        ("encode", [bytes, encoding]) if string(encoding).is_some_and(|name| name.eq_ignore_ascii_case("base64")) => {
            Ok(Some(call("encode", vec![bytes.clone(), literal("base64pad")])))
        }
        ("encode", [text, from, to]) => text_of(name, bytes_of(name, text, from)?, to).map(Some),
        ("to_bytes", [text, encoding]) => bytes_of(name, text, encoding).map(Some),
        ("from_bytes", [bytes, encoding]) => text_of(name, bytes.clone(), encoding).map(Some),
        ("elt", [place, first, others @ ..]) => {
            let list = array(std::iter::once(first).chain(others));
            stand_in("CASE WHEN $1 > 0 THEN ($2)[$1] END", &[place.clone(), list]).map(Some)
        }
        ("field", [text, first, others @ ..]) => {
            let list = array(std::iter::once(first).chain(others));
            stand_in("coalesce(array_position($2, $1), 0)::integer", &[text.clone(), list]).map(Some)
        }
        // Flink's flags.
        ("array_sort", [list, flags @ ..]) if !flags.is_empty() && flags.iter().all(|flag| truth(flag).is_some()) => {
            let flag = |at: usize| flags.get(at).and_then(truth);
            let ascending = flag(0).unwrap_or(true);
            let order = literal(if ascending { "ASC" } else { "DESC" });
            let nulls = literal(if flag(1).unwrap_or(ascending) { "NULLS FIRST" } else { "NULLS LAST" });
            Ok(Some(call("array_sort", vec![list.clone(), order, nulls])))
        }
        ("attr", [value]) => stand_in("CASE WHEN min($1) = max($1) THEN min($1) END", std::slice::from_ref(value)).map(Some),
        ("geo_distance", [a, b, c, d, unit]) => {
            let factor = match string(unit).map(str::to_uppercase).as_deref() {
                Some("KM") => "1.0",
                Some("MILES") => "0.621371192",
                _ => {
                    let error = Error::invalid_parameter(format!("{unit} is no unit of a distance"));
                    return Err(error.with_hint("write 'KM' or 'MILES'"));
                }
            };
            let text = format!("geo_distance($1, $2, $3, $4) * {factor}::double precision");
            stand_in(&text, &[a.clone(), b.clone(), c.clone(), d.clone()]).map(Some)
        }
        _ => Ok(None),
    }
}

fn ambiguous(name: &str) -> Error {
    let hint = AMBIGUOUS.iter().find(|(known, _)| *known == name).map_or("", |(_, hint)| hint);
    Error::undefined_function(format!("function {name} is not one here")).with_hint(hint)
}

/// The text and the pattern, and whether they stand in Flink's order.
fn by_constant(name: &str, first: &sp::Expr, second: &sp::Expr) -> Result<(sp::Expr, sp::Expr, bool)> {
    match (string(first), string(second)) {
        (Some(_), None) => Ok((second.clone(), first.clone(), false)),
        (None, Some(_)) => Ok((first.clone(), second.clone(), true)),
        _ => Err(ambiguous(name)),
    }
}

/// A character set of Java's whose texts are those that we hold.
fn is_charset(name: &sp::Expr) -> bool {
    string(name).is_some_and(|name| ["UTF-8", "UTF8", "US-ASCII", "ASCII"].iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// What a text stands for in one of ksqlDB's encodings.
fn bytes_of(function: &str, text: &sp::Expr, encoding: &sp::Expr) -> Result<sp::Expr> {
    let text = std::slice::from_ref(text);
    match encoding_of(function, encoding)?.as_str() {
        "utf8" | "ascii" => stand_in("convert_to($1, 'UTF8')", text),
        encoding => stand_in(&format!("decode($1, '{encoding}')"), text),
    }
}

fn text_of(function: &str, bytes: sp::Expr, encoding: &sp::Expr) -> Result<sp::Expr> {
    match encoding_of(function, encoding)?.as_str() {
        "utf8" | "ascii" => stand_in("convert_from($1, 'UTF8')", &[bytes]),
        encoding => stand_in(&format!("encode($1, '{encoding}')"), &[bytes]),
    }
}

fn encoding_of(function: &str, encoding: &sp::Expr) -> Result<String> {
    let name = string(encoding).map(str::to_lowercase).filter(|name| ["hex", "utf8", "ascii", "base64"].contains(&name.as_str()));
    name.ok_or_else(|| {
        let error = Error::invalid_parameter(format!("{function} does not know the encoding {encoding}"));
        error.with_hint("write 'hex', 'utf8', 'ascii' or 'base64'")
    })
}

/// A cast that gives NULL where the value does not fit.
fn tried(value: sp::Expr, data_type: sp::DataType) -> Result<sp::Expr> {
    let expr = Box::new(value);
    let mut cast = sp::Expr::Cast { kind: sp::CastKind::TryCast, expr, data_type, array: false, format: None };
    super::rewrite_expression(&mut cast)?;
    Ok(cast)
}

fn array<'a>(elements: impl Iterator<Item = &'a sp::Expr>) -> sp::Expr {
    sp::Expr::Array(sp::Array { elem: elements.cloned().collect(), named: true })
}

fn number(number: usize) -> sp::Expr {
    sp::Expr::Value(sp::Value::Number(number.to_string(), false).with_empty_span())
}

fn truth(expr: &sp::Expr) -> Option<bool> {
    match expr {
        sp::Expr::Value(value) => match value.value {
            sp::Value::Boolean(truth) => Some(truth),
            _ => None,
        },
        _ => None,
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
        (None, "quarter") => format!("trunc((extract(year FROM {age}) * 12 + extract(month FROM {age})) / 3)::bigint"),
        (None, "year") => format!("extract(year FROM {age})::bigint"),
        (None, _) => format!("(extract(year FROM {age}) * 12 + extract(month FROM {age}))::bigint"),
    };
    stand_in(&text, times)
}
