//! Quoting, formatting, and the text form of arrays.

use arrow::datatypes::{DataType, Field, FieldRef};

use super::super::definitions::PG_TYPE;
use super::super::types;
use super::super::value::Value;
use super::{Call, Spec, definitions, immutable, int, stable, text};
use crate::error::{Error, Result};
use crate::limits::FUNCTION_BYTES;

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("quote_ident", &[&["text"]], "text", |_, values| Ok(definitions::quote_ident(text(values, 0)).into())),
    immutable("quote_literal", &[&["text"]], "text", |_, values| Ok(quote_literal(text(values, 0)).into())),
    immutable("quote_nullable", &[&["text"]], "text", quote_nullable).lenient(),
    immutable("format", &[&["text"], &["text", "text", "..."]], "text", format_text).lenient(),
    immutable("repeat", &[&["text", "int4"]], "text", repeat),
    immutable("like_escape", &[&["text", "text"]], "text", like_escape),
    immutable("uuid_from_text", &[&["text"]], "uuid", |_, values| {
        Ok(crate::copy::canonical_uuid(text(values, 0).trim_ascii())?.into())
    }),
    immutable("uuids_from_texts", &[&["text[]"]], "uuid[]", |_, values| uuids(&values[0])),
    immutable("json_from_text", &[&["text"]], "json", json_in),
    immutable("jsonb_from_text", &[&["text"]], "jsonb", |_, values| Ok(crate::copy::json::canonical(text(values, 0))?.into())),
    immutable("array_out", &[&["any"]], "text", |_, values| Ok(array_out(&values[0]).into())),
    immutable("array_upper", &[&["any", "int4"]], "int4", array_upper),
    immutable("array_lower", &[&["any", "int4"]], "int4", array_lower),
    stable("pg_typeof", &[&["any"]], "regtype", type_of).lenient(),
];

fn uuids(value: &Value) -> Result<Value> {
    Ok(match value {
        Value::Text(text) => crate::copy::canonical_uuid(text.trim_ascii())?.into(),
        Value::List(items) => Value::List(items.iter().map(uuids).collect::<Result<_>>()?),
        _ => Value::Null,
    })
}

/// JSON is kept as it was written.
fn json_in(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let json = text(values, 0);
    crate::copy::json::check(json.as_bytes())?;
    Ok(json.to_string().into())
}

fn repeat(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let (text, times) = (text(values, 0), usize::try_from(int(values, 1)).unwrap_or(0));
    match text.len().checked_mul(times) {
        Some(bytes) if bytes as u64 <= FUNCTION_BYTES => Ok(text.repeat(times).into()),
        _ => Err(Error::limit_exceeded("requested length too large")),
    }
}

fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        return format!("E'{}'", doubled.replace('\\', "\\\\"));
    }
    format!("'{doubled}'")
}

fn quote_nullable(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    Ok(values[0].text().map_or_else(|| "NULL".to_string(), quote_literal).into())
}

/// `%[position$][-][width]type` with the types `s`, `I` and `L`.
fn format_text(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let Some(template) = values[0].text() else { return Ok(Value::Null) };
    let mut output = String::new();
    let mut rest = template;
    let mut next = 1;
    while let Some(at) = rest.find('%') {
        output.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            output.push('%');
            rest = after;
            continue;
        }
        let specifier = Specifier::read(&mut rest, values, &mut next)?;
        output.push_str(&specifier.apply(values)?);
    }
    output.push_str(rest);
    Ok(output.into())
}

struct Specifier {
    argument: usize,
    left: bool,
    width: usize,
    kind: char,
}

/// The widest field that a format may ask for.
const WIDTH: i64 = 1 << 20;

impl Specifier {
    fn read(rest: &mut &str, values: &[Value], next: &mut usize) -> Result<Specifier> {
        let mut position = None;
        if let Some((n, after)) = number(rest)
            && let Some(after) = after.strip_prefix('$')
        {
            if n == 0 {
                return Err(Error::invalid_parameter("format specifies argument 0, but arguments are numbered from 1"));
            }
            position = Some(n);
            *rest = after;
        }
        let (mut left, mut width) = (false, 0);
        while let Some(after) = rest.strip_prefix('-') {
            left = true;
            *rest = after;
        }
        if let Some((n, after)) = number(rest) {
            width = i64::try_from(n).unwrap_or(i64::MAX);
            *rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            width = argument(values, take(next))?.text().and_then(|t| t.parse().ok()).unwrap_or(0);
        }
        if width.saturating_abs() > WIDTH {
            return Err(Error::limit_exceeded(format!(
                "format asks for a field of {width} characters, at most {WIDTH} are possible"
            )));
        }
        left |= width < 0;
        let kind = rest.chars().next().ok_or_else(|| Error::invalid_parameter("unterminated format() type specifier"))?;
        if !matches!(kind, 's' | 'I' | 'L') {
            let error = Error::invalid_parameter(format!("unrecognized format() type specifier \"{kind}\""));
            return Err(error.with_hint("for a single \"%\" use \"%%\""));
        }
        *rest = &rest[kind.len_utf8()..];
        let argument = position.unwrap_or_else(|| take(next));
        *next = argument + 1;
        Ok(Specifier { argument, left, width: usize::try_from(width.unsigned_abs()).unwrap_or(0), kind })
    }

    fn apply(&self, values: &[Value]) -> Result<String> {
        let value = argument(values, self.argument)?.text();
        let text = match (self.kind, value) {
            ('I', None) => return Err(Error::invalid_parameter("null values cannot be formatted as an SQL identifier")),
            ('I', Some(text)) => definitions::quote_ident(text),
            ('L', None) => "NULL".to_string(),
            ('L', Some(text)) => quote_literal(text),
            (_, text) => text.unwrap_or_default().to_string(),
        };
        let padding = " ".repeat(self.width.saturating_sub(text.chars().count()));
        Ok(if self.left { text + &padding } else { padding + &text })
    }
}

fn take(next: &mut usize) -> usize {
    *next += 1;
    *next - 1
}

fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn argument(values: &[Value], at: usize) -> Result<&Value> {
    values.get(at).ok_or_else(|| Error::invalid_parameter("too few arguments for format()"))
}

/// A LIKE pattern with another escape character, as a pattern with the backslash.
pub(in crate::sql::system) fn escape_pattern(pattern: &str, escape: &str) -> Result<String> {
    let mut characters = escape.chars();
    let escape = characters.next();
    if characters.next().is_some() {
        let error = Error::invalid_escape("invalid escape string");
        return Err(error.with_hint("the escape string is one character, or empty for none"));
    }
    if escape == Some('\\') {
        return Ok(pattern.to_string());
    }
    let mut output = String::with_capacity(pattern.len());
    let mut after_escape = false;
    for character in pattern.chars() {
        match character {
            c if Some(c) == escape && !after_escape => {
                output.push('\\');
                after_escape = true;
                continue;
            }
            '\\' if !after_escape => output.push_str("\\\\"),
            c => output.push(c),
        }
        after_escape = false;
    }
    Ok(output)
}

fn like_escape(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    Ok(escape_pattern(text(values, 0), text(values, 1))?.into())
}

/// The text form of an array; of anything else, its text.
fn array_out(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Text(text) => text.clone(),
        Value::Bool(b) => (if *b { "t" } else { "f" }).to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Bytes(bytes) => format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Interval { .. } => return None,
        Value::List(items) => {
            let items = items.iter().map(|item| match item {
                Value::List(_) => array_out(item).unwrap_or_default(),
                item => array_out(item).map_or_else(|| "NULL".to_string(), |text| quote_element(&text)),
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
    })
}

fn quote_element(text: &str) -> String {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return text.to_string();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The length of a dimension of an array, NULL where it is empty or has no such dimension.
fn dimension(value: &Value, dimension: i64) -> Option<usize> {
    let Value::List(items) = value else { return None };
    match dimension {
        1 => Some(items.len()).filter(|n| *n > 0),
        n if n > 1 => self::dimension(items.first()?, n - 1),
        _ => None,
    }
}

fn array_upper(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    Ok(dimension(&values[0], int(values, 1)).and_then(|n| i64::try_from(n).ok()).into())
}

fn array_lower(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    Ok(dimension(&values[0], int(values, 1)).map(|_| 1i64).into())
}

fn type_of(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(call.fields.first().map_or(0, |field| of_arrow(field)).into())
}

/// OID of the type that clients see for a field.
fn of_arrow(field: &Field) -> u32 {
    if let Some(named) = field.metadata().get(PG_TYPE).and_then(|name| types::by_name(name)) {
        return named.oid;
    }
    let name = match field.data_type() {
        DataType::Boolean => "bool",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "int2",
        DataType::Int32 | DataType::UInt16 => "int4",
        DataType::UInt32 => "oid",
        DataType::Int64 | DataType::UInt64 => "int8",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Float16 | DataType::Float32 => "float4",
        DataType::Float64 => "float8",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Null => "unknown",
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            let element = types::by_oid(of_arrow(element));
            return element.map_or(1009, |t| if t.array == 0 { t.oid } else { t.array });
        }
        DataType::Struct(_) => "record",
        _ => "text",
    };
    types::by_name(name).map_or(25, |t| t.oid)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a%", "!", "a%")]
    #[case("a!%b", "!", "a\\%b")]
    #[case("a!!b", "!", "a\\!b")]
    #[case("a\\b", "!", "a\\\\b")]
    #[case("a\\%", "", "a\\\\%")]
    #[case("a\\%", "\\", "a\\%")]
    fn patterns_take_the_backslash(#[case] pattern: &str, #[case] escape: &str, #[case] result: &str) {
        assert_eq!(escape_pattern(pattern, escape).unwrap(), result);
    }

    #[test]
    fn arrays_have_the_text_that_postgres_gives_them() {
        let list = Value::List(vec!["a".into(), "b c".into(), Value::Null, "".into(), "q\"".into(), Value::Int(3)]);
        assert_eq!(array_out(&list).unwrap(), r#"{a,"b c",NULL,"","q\"",3}"#);
        assert_eq!(array_out(&Value::List(vec![])).unwrap(), "{}");
    }
}
