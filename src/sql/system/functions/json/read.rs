//! What is inside of a document.

use super::super::super::value::Value;
use super::{DOCUMENT, Spec, immutable, path, text};
use crate::copy::json::inside::{element, elements, member, members, string};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    // `->` and `->>`: a key's or an element's value.
    immutable("json_get", STEP, "json", |_, values| get(values)),
    immutable("jsonb_get", STEP, "jsonb", |_, values| get(values)),
    immutable("json_get_text", STEP, "text", |_, values| plain(get(values)?)),
    // `#>` and `#>>`.
    immutable("json_get_path", STEP, "json", |_, values| at_path(values)),
    immutable("jsonb_get_path", STEP, "jsonb", |_, values| at_path(values)),
    immutable("json_get_path_text", STEP, "text", |_, values| plain(at_path(values)?)),
    immutable("json_extract_path", PATH, "json", |_, values| extract(values)),
    immutable("jsonb_extract_path", PATH, "jsonb", |_, values| extract(values)),
    immutable("json_extract_path_text", PATH, "text", |_, values| plain(extract(values)?)),
    immutable("jsonb_extract_path_text", PATH, "text", |_, values| plain(extract(values)?)),
    immutable("json_typeof", DOCUMENT, "text", |_, values| kind(values)),
    immutable("jsonb_typeof", DOCUMENT, "text", |_, values| kind(values)),
    immutable("json_array_length", DOCUMENT, "int4", |_, values| length(values)),
    immutable("jsonb_array_length", DOCUMENT, "int4", |_, values| length(values)),
    // What `json_array_elements`, `json_each` and `json_object_keys` take apart.
    immutable("json_array_items", DOCUMENT, "json[]", |_, values| items(values)),
    immutable("jsonb_array_items", DOCUMENT, "jsonb[]", |_, values| items(values)),
    immutable("json_array_texts", DOCUMENT, "text[]", |_, values| texts(items(values)?)),
    immutable("json_keys", DOCUMENT, "text[]", |_, values| fields(values, |key, _| Value::from(key))),
    immutable("jsonb_keys", DOCUMENT, "text[]", |_, values| fields(values, |key, _| Value::from(key))),
    immutable("json_values", DOCUMENT, "json[]", |_, values| fields(values, |_, value| value.into())),
    immutable("jsonb_values", DOCUMENT, "jsonb[]", |_, values| fields(values, |_, value| value.into())),
    immutable("json_value_texts", DOCUMENT, "text[]", |_, values| texts(fields(values, |_, value| value.into())?)),
    immutable("jsonb_value_texts", DOCUMENT, "text[]", |_, values| texts(fields(values, |_, value| value.into())?)),
    // What the columns of `json_to_recordset` and `json_to_record` are taken from.
    immutable("json_column_texts", COLUMN, "text[]", |_, values| texts(column(values)?)),
    immutable("json_column_documents", COLUMN, "json[]", |_, values| column(values)),
    immutable("jsonb_column_documents", COLUMN, "jsonb[]", |_, values| column(values)),
    immutable("json_field_texts", COLUMN, "text[]", |_, values| texts(field(values)?)),
    immutable("json_field_documents", COLUMN, "json[]", |_, values| field(values)),
    immutable("jsonb_field_documents", COLUMN, "jsonb[]", |_, values| field(values)),
];

const COLUMN: &[&[&str]] = &[&["text", "text"]];
const STEP: &[&[&str]] = &[&["text", "any"]];
const PATH: &[&[&str]] = &[&["text", "text", "..."]];

/// A text is the key of an object, a number counts elements of an array, from the end if it is negative.
fn get(values: &[Value]) -> Result<Value> {
    let document = text(values, 0);
    Ok(match values.get(1) {
        Some(Value::Text(key)) => member(document, key)?.into(),
        Some(Value::Int(place)) => element(document, *place)?.into(),
        _ => Value::Null,
    })
}

pub(super) fn at_path(values: &[Value]) -> Result<Value> {
    match path(values.get(1).unwrap_or(&Value::Null))? {
        Some(steps) => descend(text(values, 0), steps.iter().map(String::as_str)),
        None => Ok(Value::Null),
    }
}

fn extract(values: &[Value]) -> Result<Value> {
    descend(text(values, 0), (1..values.len()).map(|at| text(values, at)))
}

fn descend<'a>(document: &str, steps: impl Iterator<Item = &'a str>) -> Result<Value> {
    let mut part = document.trim_matches(SPACE);
    // Of a path without steps the document is the answer, if it is one.
    crate::copy::json::check(part.as_bytes())?;
    for step in steps {
        let next = match part.as_bytes().first() {
            Some(b'[') => step.parse().map_or(Ok(None), |place| element(part, place)),
            _ => member(part, step),
        };
        match next? {
            Some(next) => part = next,
            None => return Ok(Value::Null),
        }
    }
    Ok(part.into())
}

/// What may stand around a document.
pub(super) const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The content of a string, NULL for null, and the text of everything else.
pub(super) fn plain(document: Value) -> Result<Value> {
    let Value::Text(text) = &document else { return Ok(document) };
    if text == "null" {
        return Ok(Value::Null);
    }
    Ok(string(text)?.map_or(document, Value::from))
}

fn texts(documents: Value) -> Result<Value> {
    let Value::List(items) = documents else { return Ok(documents) };
    Ok(Value::List(items.into_iter().map(plain).collect::<Result<_>>()?))
}

fn kind(values: &[Value]) -> Result<Value> {
    let document = text(values, 0);
    crate::copy::json::check(document.as_bytes())?;
    let name = match document.trim_matches(SPACE).as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "boolean",
        Some(b'"') => "string",
        Some(b'[') => "array",
        Some(b'{') => "object",
        _ => "number",
    };
    Ok(name.into())
}

/// What an array was asked for.
fn no_array(document: &str, what: &str) -> Error {
    let found = if is_object(document) { "an object" } else { "a scalar" };
    Error::invalid_parameter(format!("cannot {what} {found}"))
}

fn is_object(document: &str) -> bool {
    document.trim_matches(SPACE).starts_with('{')
}

fn length(values: &[Value]) -> Result<Value> {
    let document = text(values, 0);
    let found = elements(document)?;
    let wrong = || match is_object(document) {
        true => Error::invalid_parameter("cannot get array length of a non-array"),
        false => Error::invalid_parameter("cannot get array length of a scalar"),
    };
    Ok(i32::try_from(found.ok_or_else(wrong)?.len()).unwrap_or(i32::MAX).into())
}

fn items(values: &[Value]) -> Result<Value> {
    let document = text(values, 0);
    let found = elements(document)?.ok_or_else(|| no_array(document, "extract elements from"))?;
    Ok(found.into())
}

fn fields(values: &[Value], field: fn(String, &str) -> Value) -> Result<Value> {
    let document = text(values, 0);
    let found = members(document)?.ok_or_else(|| {
        let found = if document.trim_matches(SPACE).starts_with('[') { "an array" } else { "a scalar" };
        Error::invalid_parameter(format!("cannot take the keys and values of {found}"))
            .with_hint("jsonb_typeof(x) = 'object' tells which documents have some")
    })?;
    Ok(Value::List(found.into_iter().map(|(key, value)| field(key, value)).collect()))
}

/// What the objects of an array have by a key: a document, or NULL, of each.
fn column(values: &[Value]) -> Result<Value> {
    let (document, key) = (text(values, 0), text(values, 1));
    let objects = elements(document)?.ok_or_else(|| no_array(document, "call jsonb_to_recordset on"))?;
    let of_object = |object: &str| match is_object(object) {
        true => Ok(member(object, key)?.into()),
        false => Err(Error::invalid_parameter("argument of jsonb_to_recordset must be an array of objects")),
    };
    Ok(Value::List(objects.iter().map(|object| of_object(object)).collect::<Result<_>>()?))
}

/// The same of one object.
fn field(values: &[Value]) -> Result<Value> {
    let (document, key) = (text(values, 0), text(values, 1));
    if !is_object(document) {
        let found = if document.trim_matches(SPACE).starts_with('[') { "an array" } else { "a scalar" };
        return Err(Error::invalid_parameter(format!("cannot call jsonb_to_record on {found}")));
    }
    Ok(Value::List(vec![member(document, key)?.into()]))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Value::from("b"), Value::from("[1, {\"c\": \"x\"}]"))]
    #[case(Value::from("missing"), Value::Null)]
    #[case(Value::Int(0), Value::Null)]
    fn members_are_found(#[case] key: Value, #[case] expected: Value) {
        assert_eq!(get(&[r#"{"a":null,"b":[1, {"c": "x"}]}"#.into(), key]).unwrap(), expected);
    }

    #[test]
    fn paths_and_texts() {
        let at = |keys: &[&str]| {
            let values: Vec<Value> = keys.iter().map(|key| (*key).into()).collect();
            plain(extract(&values).unwrap()).unwrap()
        };
        let document = r#" {"a": [{"b": "it's"}, null]} "#;
        assert_eq!(at(&[document, "a", "0", "b"]), "it's".into());
        assert_eq!(at(&[document, "a", "-1"]), Value::Null);
        assert_eq!(at(&[document, "a", "b"]), Value::Null);
        assert_eq!(at_path(&["{\"a\":[1,2]}".into(), "{a,1}".into()]).unwrap(), "2".into());
        assert_eq!(at_path(&[" [1] ".into(), "{}".into()]).unwrap(), "[1]".into());
    }

    #[test]
    fn columns_are_what_objects_have_by_a_key() {
        let list = |items: &[Option<&str>]| Value::List(items.iter().map(|item| (*item).into()).collect());
        let found = column(&[r#"[{"a": 1}, {"b": 2}, {"a": {"b": null}}]"#.into(), "a".into()]).unwrap();
        assert_eq!(found, list(&[Some("1"), None, Some("{\"b\": null}")]));
        assert_eq!(column(&["[]".into(), "a".into()]).unwrap(), list(&[]));
        assert_eq!(field(&[r#"{"a": "x"}"#.into(), "a".into()]).unwrap(), list(&[Some("\"x\"")]));
        assert!(column(&["[1]".into(), "a".into()]).is_err());
        assert!(column(&["{}".into(), "a".into()]).is_err());
        assert!(field(&["[]".into(), "a".into()]).is_err());
    }

    #[rstest]
    #[case("{\"a\":1}", "cannot get array length of a non-array")]
    #[case(" 7", "cannot get array length of a scalar")]
    fn lengths_are_of_arrays(#[case] document: &str, #[case] message: &str) {
        assert_eq!(length(&[document.into()]).unwrap_err().message(), message);
    }
}
