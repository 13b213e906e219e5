//! JSON: what is inside of a document, and documents made of values. A document is text to us; results are written as `jsonb` is.

use arrow::datatypes::FieldRef;
use serde_json::Value as Json;

use super::super::value::Value;
use super::{Spec, immutable, text};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    // `->` and `->>`: a key's or an element's value.
    immutable("json_get", &[&["text", "any"]], "jsonb", |_, values| {
        Ok(member(values)?.map_or(Value::Null, |json| shown(&json).into()))
    }),
    immutable("json_get_text", &[&["text", "any"]], "text", |_, values| Ok(member(values)?.map_or(Value::Null, plain))),
    immutable("json_extract_path", PATH, "jsonb", |_, values| {
        Ok(at_path(values)?.map_or(Value::Null, |json| shown(&json).into()))
    }),
    immutable("jsonb_extract_path", PATH, "jsonb", |_, values| {
        Ok(at_path(values)?.map_or(Value::Null, |json| shown(&json).into()))
    }),
    immutable("json_extract_path_text", PATH, "text", |_, values| Ok(at_path(values)?.map_or(Value::Null, plain))),
    immutable("jsonb_extract_path_text", PATH, "text", |_, values| Ok(at_path(values)?.map_or(Value::Null, plain))),
    immutable("json_typeof", DOCUMENT, "text", kind),
    immutable("jsonb_typeof", DOCUMENT, "text", kind),
    immutable("json_array_length", DOCUMENT, "int4", length),
    immutable("jsonb_array_length", DOCUMENT, "int4", length),
    immutable("json_build_object", PAIRS, "json", object).lenient(),
    immutable("jsonb_build_object", PAIRS, "jsonb", object).lenient(),
    immutable("json_build_array", PAIRS, "json", array).lenient(),
    immutable("jsonb_build_array", PAIRS, "jsonb", array).lenient(),
];

const DOCUMENT: &[&[&str]] = &[&["text"]];
const PATH: &[&[&str]] = &[&["text", "text", "..."]];
const PAIRS: &[&[&str]] = &[&[], &["any", "..."]];

fn parse(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|_| Error::invalid_text("invalid input syntax for type json"))
}

/// A text is the key of an object, a number counts elements of an array, from the end if it is negative.
fn member(values: &[Value]) -> Result<Option<Json>> {
    let document = parse(text(values, 0))?;
    Ok(match values.get(1) {
        Some(Value::Text(key)) => document.get(key).cloned(),
        Some(Value::Int(at)) => element(&document, *at).cloned(),
        _ => None,
    })
}

fn element(document: &Json, at: i64) -> Option<&Json> {
    let array = document.as_array()?;
    let index =
        if at < 0 { array.len().checked_sub(usize::try_from(at.unsigned_abs()).ok()?)? } else { usize::try_from(at).ok()? };
    array.get(index)
}

fn at_path(values: &[Value]) -> Result<Option<Json>> {
    let document = parse(text(values, 0))?;
    let step = |json: &Json, key: &str| match json {
        Json::Array(_) => element(json, key.parse().ok()?).cloned(),
        other => other.get(key).cloned(),
    };
    Ok((1..values.len()).try_fold(document, |json, at| step(&json, text(values, at))))
}

fn plain(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::String(text) => text.into(),
        other => shown(&other).into(),
    }
}

fn kind(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let name = match parse(text(values, 0))? {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    Ok(name.into())
}

fn length(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    match parse(text(values, 0))? {
        Json::Array(elements) => Ok(i32::try_from(elements.len()).unwrap_or(i32::MAX).into()),
        Json::Object(_) => Err(Error::invalid_parameter("cannot get array length of a non-array")),
        _ => Err(Error::invalid_parameter("cannot get array length of a scalar")),
    }
}

fn object(fields: &[FieldRef], values: &[Value]) -> Result<Value> {
    if !values.len().is_multiple_of(2) {
        let error = Error::invalid_parameter("argument list must have even number of elements");
        return Err(error.with_hint("the arguments are keys and values in turn"));
    }
    let mut members = serde_json::Map::new();
    for (at, pair) in values.chunks_exact(2).enumerate() {
        let key = match json_of(&pair[0], fields.get(2 * at))? {
            Json::Null => return Err(Error::invalid_parameter("null value not allowed for object key")),
            Json::String(key) => key,
            other => other.to_string(),
        };
        members.insert(key, json_of(&pair[1], fields.get(2 * at + 1))?);
    }
    Ok(shown(&Json::Object(members)).into())
}

fn array(fields: &[FieldRef], values: &[Value]) -> Result<Value> {
    let elements = values.iter().enumerate().map(|(at, value)| json_of(value, fields.get(at))).collect::<Result<_>>()?;
    Ok(shown(&Json::Array(elements)).into())
}

/// Documents stay what they are, by what is known of the argument's type.
fn json_of(value: &Value, field: Option<&FieldRef>) -> Result<Json> {
    let is_json = || field.is_some_and(|field| matches!(crate::sql::types::field_type(field).as_str(), "json" | "jsonb"));
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) if is_json() => parse(text)?,
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(|item| json_of(item, None)).collect::<Result<_>>()?),
        Value::Interval { .. } => return Err(Error::unsupported("an interval is no JSON value").with_hint("cast it to text")),
    })
}

/// As PostgreSQL writes `jsonb`: a space after each comma and colon.
fn shown(json: &Json) -> String {
    match json {
        Json::Array(elements) => format!("[{}]", elements.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Json::Object(members) => {
            let member = |(key, value): (&String, &Json)| format!("{}: {}", Json::from(key.as_str()), shown(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Value::from("b"), Some("[1, {\"c\": \"x\"}]"))]
    #[case(Value::from("missing"), None)]
    #[case(Value::Int(0), None)]
    fn members(#[case] key: Value, #[case] expected: Option<&str>) {
        let found = member(&[r#"{"a":null,"b":[1,{"c":"x"}]}"#.into(), key]).unwrap();
        assert_eq!(found.map(|json| shown(&json)).as_deref(), expected);
    }

    #[rstest]
    #[case(1, Some("20"))]
    #[case(-1, Some("30"))]
    #[case(3, None)]
    #[case(-4, None)]
    fn elements(#[case] at: i64, #[case] expected: Option<&str>) {
        let found = member(&["[10, 20, 30]".into(), Value::Int(at)]).unwrap();
        assert_eq!(found.map(|json| shown(&json)).as_deref(), expected);
    }

    #[test]
    fn paths_and_texts() {
        let path = |keys: &[&str]| {
            let values: Vec<Value> = keys.iter().map(|key| (*key).into()).collect();
            at_path(&values).unwrap().map(plain)
        };
        let document = r#"{"a": [{"b": "it's"}, null]}"#;
        assert_eq!(path(&[document, "a", "0", "b"]), Some("it's".into()));
        assert_eq!(path(&[document, "a", "1"]), Some(Value::Null));
        assert_eq!(path(&[document, "a", "b"]), None);
    }

    #[test]
    fn documents_are_made() {
        let made = object(&[], &["a".into(), Value::Int(1), "b".into(), Value::Null]).unwrap();
        assert_eq!(made, r#"{"a": 1, "b": null}"#.into());
        assert!(object(&[], &["a".into()]).is_err());
    }
}
