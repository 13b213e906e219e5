//! Documents as ksqlDB and Flink ask them: what is no document has no parts, and one bad message stops no view.

use super::super::super::value::Value;
use super::read::{SPACE, at_path, plain};
use super::{Spec, immutable, text};
use crate::copy::json::check;
use crate::copy::json::inside::{elements, members, string};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    // EXTRACTJSONFIELD: the text of any part.
    immutable("json_get_path_text_or_null", AT_PATH, "text", |_, values| found(values, |_| true)),
    // JSON_VALUE: of a scalar.
    immutable("json_value_or_null", AT_PATH, "text", |_, values| found(values, |part| !is_compound(part))),
    // JSON_QUERY: of an object or an array.
    immutable("json_query_or_null", AT_PATH, "text", |_, values| found(values, is_compound)),
    immutable("json_path_is_there", AT_PATH, "bool", |_, values| {
        Ok((is_document(text(values, 0)) && at_path(values)? != Value::Null).into())
    }),
    immutable("json_keys_or_null", DOCUMENT, "text[]", |_, values| fields(values, |key, _| Ok(key.into()))),
    // The keys with the texts of their values, of a string what it says.
    immutable("json_pairs_or_null", DOCUMENT, "text[][]", |_, values| {
        fields(values, |key, value| Ok(Value::List(vec![key.into(), unquoted(value)?])))
    }),
    // The texts of the elements, of a string what it says.
    immutable("json_items_or_null", DOCUMENT, "text[]", |_, values| {
        let document = text(values, 0);
        let found = if is_document(document) { elements(document)? } else { None };
        let items = found.map(|found| found.into_iter().map(unquoted).collect::<Result<Vec<_>>>()).transpose()?;
        Ok(items.map_or(Value::Null, Value::List))
    }),
    immutable("json_array_contains", &[&["text", "any"]], "bool", |_, values| contains(values)).lenient(),
    // IS JSON, with what kind of document; NULL is none.
    immutable("is_json", &[&["text"], &["text", "text"]], "bool", |_, values| Ok(is_json(values).into())).lenient(),
    immutable("json_unquote", DOCUMENT, "text", |_, values| unquoted(text(values, 0))),
];

const DOCUMENT: &[&[&str]] = &[&["text"]];
const AT_PATH: &[&[&str]] = &[&["text", "any"]];

fn is_document(text: &str) -> bool {
    check(text.as_bytes()).is_ok()
}

fn is_compound(part: &str) -> bool {
    part.starts_with(['{', '['])
}

/// The text of the part at a path, if it is of a kind.
fn found(values: &[Value], is_wanted: impl Fn(&str) -> bool) -> Result<Value> {
    if !is_document(text(values, 0)) {
        return Ok(Value::Null);
    }
    match at_path(values)? {
        part @ Value::Text(_) if part.text().is_some_and(&is_wanted) => plain(part),
        _ => Ok(Value::Null),
    }
}

fn fields(values: &[Value], field: impl Fn(String, &str) -> Result<Value>) -> Result<Value> {
    let document = text(values, 0);
    let found = if is_document(document) { members(document)? } else { None };
    let fields =
        found.map(|found| found.into_iter().map(|(key, value)| field(key, value)).collect::<Result<Vec<_>>>()).transpose()?;
    Ok(fields.map_or(Value::Null, Value::List))
}

/// Is the value an element, of its type? A number is one by its value.
fn contains(values: &[Value]) -> Result<Value> {
    let Some(document) = values[0].text().filter(|document| is_document(document)) else { return Ok(false.into()) };
    let Some(elements) = elements(document)? else { return Ok(false.into()) };
    for element in elements {
        let same = match &values[1] {
            Value::Null => element == "null",
            Value::Bool(wanted) => element == if *wanted { "true" } else { "false" },
            Value::Text(wanted) => {
                string(element)?.as_deref() == Some(wanted.as_str()) || number(element) == Some(wanted.as_str())
            }
            Value::Int(wanted) => element.parse() == Ok(*wanted),
            Value::Float(wanted) => element.parse() == Ok(*wanted),
            _ => false,
        };
        if same {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

/// The text of a number: decimals come as text.
fn number(element: &str) -> Option<&str> {
    element.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(element)
}

fn is_json(values: &[Value]) -> bool {
    let Some(document) = values[0].text().filter(|document| is_document(document)) else { return false };
    let first = document.trim_start_matches(SPACE).chars().next();
    match values.get(1).and_then(Value::text) {
        Some("OBJECT") => first == Some('{'),
        Some("ARRAY") => first == Some('['),
        Some("SCALAR") => !matches!(first, Some('{' | '[')),
        _ => true,
    }
}

/// What stands between the quotes of a JSON string; all else stays.
fn unquoted(text: &str) -> Result<Value> {
    if !text.starts_with('"') || !text.ends_with('"') || text.len() < 2 {
        return Ok(text.into());
    }
    match is_document(text) {
        true => Ok(string(text)?.into()),
        false => Err(Error::invalid_text(format!("{text} is no JSON string"))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("[1, 2.0, \"3\", true, null]", Value::Int(1), true)]
    #[case("[1, 2.0]", Value::Int(2), false)]
    #[case("[1, 2.0]", Value::Float(2.0), true)]
    #[case("[1, \"3\"]", Value::from("3"), true)]
    #[case("[true]", Value::Bool(false), false)]
    #[case("[null]", Value::Null, true)]
    #[case("{\"a\": 1}", Value::Int(1), false)]
    #[case("nonsense", Value::Int(1), false)]
    fn elements_of_arrays(#[case] document: &str, #[case] value: Value, #[case] expected: bool) {
        assert_eq!(contains(&[document.into(), value]).unwrap(), expected.into());
    }

    #[test]
    fn kinds_of_documents() {
        let is = |document: &str, kind: &str| is_json(&[document.into(), kind.into()]);
        assert!(is(" {}", "OBJECT") && is("[]", "ARRAY") && is("1", "SCALAR") && is("\"x\"", "VALUE"));
        assert!(!is("[]", "OBJECT") && !is("{}", "SCALAR") && !is("{", "VALUE") && !is_json(&[Value::Null]));
    }

    #[test]
    fn parts_by_their_kind() {
        let document = r#"{"a": {"b": 1}, "c": "x", "d": null}"#;
        let value = |path: &str| found(&[document.into(), path.into()], |part| !is_compound(part)).unwrap();
        let query = |path: &str| found(&[document.into(), path.into()], is_compound).unwrap();
        assert_eq!([value("{a}"), value("{c}"), value("{d}"), value("{e}")], [Value::Null, "x".into(), Value::Null, Value::Null]);
        assert_eq!([query("{a}"), query("{c}")], ["{\"b\": 1}".into(), Value::Null]);
        assert_eq!(unquoted("\"a\\\"b\"").unwrap(), "a\"b".into());
        assert_eq!(unquoted("a\"b").unwrap(), "a\"b".into());
    }
}
