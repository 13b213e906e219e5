//! `jsonb` against `jsonb`: what is contained, joined, taken away, and set.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::FieldRef;

use super::super::super::value::Value;
use super::{DOCUMENT, Spec, immutable, path, text};
use crate::copy::json::Json;
use crate::error::{Error, Result};
use crate::limits::FUNCTION_BYTES;
use crate::sql::system::functions::{Body, flag};

pub(super) const FUNCTIONS: &[Spec] = &[
    // `@>`, `?`, `?|` and `?&`.
    immutable("jsonb_contains", TWO, "bool", |_, values| Ok(contains(&document(values, 0)?, &document(values, 1)?).into())),
    immutable("jsonb_exists", TWO, "bool", |_, values| Ok(exists(&document(values, 0)?, text(values, 1)).into())),
    immutable("jsonb_exists_any", KEYS, "bool", |_, values| {
        let document = document(values, 0)?;
        Ok(keys(values)?.iter().any(|key| exists(&document, key)).into())
    }),
    immutable("jsonb_exists_all", KEYS, "bool", |_, values| {
        let document = document(values, 0)?;
        Ok(keys(values)?.iter().all(|key| exists(&document, key)).into())
    }),
    // `||`, `-` and `#-`.
    immutable("jsonb_concat", TWO, "jsonb", |_, values| shown(joined(document(values, 0)?, document(values, 1)?)?)),
    // JSON_CONCAT: of what cannot be joined, nothing.
    immutable("json_concat", &[&["text", "text", "..."]], "text", |_, values| Ok(concatenated(values).into())),
    immutable("jsonb_delete", KEYS, "jsonb", |_, values| deleted(values)),
    immutable("jsonb_delete_path", KEYS, "jsonb", |_, values| edited(values, Edit::Delete)),
    immutable("jsonb_set", SET, "jsonb", |_, values| {
        let create = values.len() < 4 || flag(values, 3);
        edited(values, Edit::Set { new: document(values, 2)?, create })
    }),
    immutable("jsonb_insert", SET, "jsonb", |_, values| {
        edited(values, Edit::Insert { new: document(values, 2)?, after: flag(values, 3) })
    }),
    immutable("jsonb_strip_nulls", DOCUMENT, "jsonb", |_, values| shown(without_nulls(document(values, 0)?))),
    immutable("jsonb_pretty", DOCUMENT, "text", |_, values| pretty(&document(values, 0)?)),
    // Bytes in the order of documents: see `plan/documents.rs`.
    Spec { body: Body::Columns(sort_keys), ..immutable("jsonb_sort_key", DOCUMENT, "bytea", |_, _| Ok(Value::Null)) },
];

const TWO: &[&[&str]] = &[&["text", "text"]];
const KEYS: &[&[&str]] = &[&["text", "any"]];
const SET: &[&[&str]] = &[&["text", "any", "text"], &["text", "any", "text", "bool"]];

fn document(values: &[Value], at: usize) -> Result<Json> {
    Json::parse(text(values, at))
}

fn concatenated(values: &[Value]) -> Option<String> {
    let first = document(values, 0).ok()?;
    let all = (1..values.len()).try_fold(first, |all, at| joined(all, document(values, at).ok()?).ok())?;
    Some(all.to_text())
}

fn shown(document: Json) -> Result<Value> {
    Ok(document.to_text().into())
}

/// An array holds elements in any order, an object members; an array holds a scalar, too.
fn contains(whole: &Json, part: &Json) -> bool {
    match (whole, part) {
        (Json::Array(elements), scalar) if scalar.is_scalar() => elements.iter().any(|element| equal(element, scalar)),
        _ => within(whole, part),
    }
}

fn within(whole: &Json, part: &Json) -> bool {
    match (whole, part) {
        (Json::Object(_), Json::Object(members)) => {
            members.iter().all(|(key, value)| whole.get(key).is_some_and(|found| within(found, value)))
        }
        (Json::Array(elements), Json::Array(parts)) => {
            parts.iter().all(|part| elements.iter().any(|element| within(element, part)))
        }
        (whole, part) => equal(whole, part),
    }
}

/// `1` and `1.0` are one number.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || significant(a) == significant(b),
        _ => a == b,
    }
}

fn significant(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// Is the text a key of an object, an element of an array, or the document itself?
fn exists(document: &Json, key: &str) -> bool {
    let is_key = |element: &Json| matches!(element, Json::Text(text) if text == key);
    match document {
        Json::Array(elements) => elements.iter().any(is_key),
        Json::Object(_) => document.get(key).is_some(),
        scalar => is_key(scalar),
    }
}

/// The texts of an array; a NULL is no key.
fn keys(values: &[Value]) -> Result<Vec<String>> {
    Ok(match values.get(1) {
        Some(Value::List(keys)) => keys.iter().filter_map(Value::text).map(str::to_string).collect(),
        other => path(other.unwrap_or(&Value::Null))?.unwrap_or_default(),
    })
}

/// Members of both objects, the right one's first choice; otherwise elements of both as arrays.
fn joined(left: Json, right: Json) -> Result<Json> {
    let elements = |document: Json| match document {
        Json::Array(elements) => elements,
        other => vec![other],
    };
    match (left, right) {
        (Json::Object(mut left), Json::Object(right)) => {
            left.extend(right);
            Ok(Json::object(left))
        }
        (Json::Object(_), right) if right.is_scalar() => Err(not_joined()),
        (left, Json::Object(_)) if left.is_scalar() => Err(not_joined()),
        (left, right) => Ok(Json::Array(elements(left).into_iter().chain(elements(right)).collect())),
    }
}

fn not_joined() -> Error {
    Error::invalid_parameter("invalid concatenation of jsonb objects").with_hint("an object is joined with an object or an array")
}

/// `-`: without a key, keys, or the element of a number.
fn deleted(values: &[Value]) -> Result<Value> {
    let document = document(values, 0)?;
    if document.is_scalar() {
        return Err(Error::invalid_parameter("cannot delete from scalar"));
    }
    let keys: Vec<&str> = match values.get(1) {
        Some(Value::Text(key)) => vec![key],
        Some(Value::List(keys)) => keys.iter().filter_map(Value::text).collect(),
        Some(Value::Int(place)) => return without_element(document, *place),
        _ => return Ok(Value::Null),
    };
    shown(match document {
        Json::Array(mut elements) => {
            elements.retain(|element| !matches!(element, Json::Text(text) if keys.contains(&text.as_str())));
            Json::Array(elements)
        }
        Json::Object(mut members) => {
            members.retain(|(key, _)| !keys.contains(&key.as_str()));
            Json::Object(members)
        }
        scalar => scalar,
    })
}

fn without_element(document: Json, place: i64) -> Result<Value> {
    let Json::Array(mut elements) = document else {
        return Err(Error::invalid_parameter("cannot delete from object using integer index"));
    };
    if let Some(at) = index(place, elements.len()) {
        elements.remove(at);
    }
    shown(Json::Array(elements))
}

/// The place of an element that is there; negative ones count from the end.
fn index(place: i64, length: usize) -> Option<usize> {
    let at =
        if place < 0 { length.checked_sub(usize::try_from(place.unsigned_abs()).ok()?)? } else { usize::try_from(place).ok()? };
    (at < length).then_some(at)
}

/// What is done at the end of a path.
enum Edit {
    Delete,
    Set { new: Json, create: bool },
    Insert { new: Json, after: bool },
}

fn edited(values: &[Value], edit: Edit) -> Result<Value> {
    let mut document = document(values, 0)?;
    let Some(steps) = path(values.get(1).unwrap_or(&Value::Null))? else { return Ok(Value::Null) };
    if document.is_scalar() {
        let what = if matches!(edit, Edit::Delete) { "cannot delete path in scalar" } else { "cannot set path in scalar" };
        return Err(Error::invalid_parameter(what));
    }
    if let Some((last, way)) = steps.split_last() {
        let mut place = Some(&mut document);
        for (number, step) in way.iter().enumerate() {
            place = match place {
                Some(part) => enter(part, step, number)?,
                None => None,
            };
        }
        if let Some(part) = place {
            edit.at(part, last, steps.len() - 1)?;
        }
    }
    shown(document)
}

fn enter<'j>(document: &'j mut Json, step: &str, number: usize) -> Result<Option<&'j mut Json>> {
    Ok(match document {
        Json::Object(members) => members.iter_mut().find(|(key, _)| key == step).map(|(_, value)| value),
        Json::Array(elements) => {
            let at = index(place(step, number)?, elements.len());
            at.and_then(|at| elements.get_mut(at))
        }
        _ => None,
    })
}

fn place(step: &str, number: usize) -> Result<i64> {
    step.trim()
        .parse::<i32>()
        .map(i64::from)
        .map_err(|_| Error::invalid_text(format!("path element at position {} is not an integer: \"{step}\"", number + 1)))
}

impl Edit {
    fn at(self, document: &mut Json, step: &str, number: usize) -> Result<()> {
        match document {
            Json::Object(members) => self.member(members, step),
            Json::Array(elements) => {
                self.element(elements, place(step, number)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn member(self, members: &mut Vec<(String, Json)>, key: &str) -> Result<()> {
        let at = members.iter().position(|(known, _)| known == key);
        match (self, at) {
            (Edit::Delete, Some(at)) => {
                members.remove(at);
            }
            (Edit::Set { new, .. }, Some(at)) => members[at].1 = new,
            (Edit::Insert { .. }, Some(_)) => {
                let error = Error::invalid_parameter("cannot replace existing key");
                return Err(error.with_hint("try using the function jsonb_set to replace key value"));
            }
            (Edit::Set { new, create: true } | Edit::Insert { new, .. }, None) => {
                members.push((key.to_string(), new));
                if let Json::Object(sorted) = Json::object(std::mem::take(members)) {
                    *members = sorted;
                }
            }
            (Edit::Delete | Edit::Set { .. }, None) => {}
        }
        Ok(())
    }

    /// Behind the last element, or before the first, is where new ones go that are counted beyond them.
    fn element(self, elements: &mut Vec<Json>, place: i64) {
        let at = index(place, elements.len());
        match (self, at) {
            (Edit::Delete, Some(at)) => {
                elements.remove(at);
            }
            (Edit::Set { new, .. }, Some(at)) => elements[at] = new,
            (Edit::Insert { new, after }, Some(at)) => elements.insert(at + usize::from(after), new),
            (Edit::Set { new, create: true } | Edit::Insert { new, .. }, None) => {
                elements.insert(if place < 0 { 0 } else { elements.len() }, new);
            }
            (Edit::Delete | Edit::Set { .. }, None) => {}
        }
    }
}

fn without_nulls(document: Json) -> Json {
    match document {
        Json::Array(elements) => Json::Array(elements.into_iter().map(without_nulls).collect()),
        Json::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| *value != Json::Null);
            Json::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        scalar => scalar,
    }
}

/// A line for each element and member, with four spaces for each level.
fn pretty(document: &Json) -> Result<Value> {
    let mut out = Vec::new();
    push_pretty(document, 0, &mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned().into())
}

fn push_pretty(document: &Json, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    let line = |depth: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 4 * depth));
    };
    if out.len() as u64 > FUNCTION_BYTES {
        return Err(Error::limit_exceeded("requested length too large"));
    }
    match document {
        Json::Array(elements) => {
            out.push(b'[');
            for (at, element) in elements.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                line(depth + 1, out);
                push_pretty(element, depth + 1, out)?;
            }
            line(depth, out);
            out.push(b']');
        }
        Json::Object(members) => {
            out.push(b'{');
            for (at, (key, value)) in members.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                line(depth + 1, out);
                crate::copy::json::push_string(out, key);
                out.extend_from_slice(b": ");
                push_pretty(value, depth + 1, out)?;
            }
            line(depth, out);
            out.push(b'}');
        }
        scalar => scalar.write(out),
    }
    Ok(())
}

fn sort_keys(_: &[FieldRef], columns: &[ArrayRef]) -> Result<ArrayRef> {
    let Some(documents) = columns.first().and_then(|column| column.as_string_opt::<i32>()) else {
        return Err(Error::internal("jsonb_sort_key takes a document"));
    };
    let mut keys = BinaryBuilder::with_capacity(documents.len(), documents.value_data().len());
    let mut key = Vec::new();
    for document in documents {
        let Some(document) = document else {
            keys.append_null();
            continue;
        };
        key.clear();
        Json::parse(document)?.sort_key(&mut key);
        keys.append_value(&key);
    }
    Ok(Arc::new(keys.finish()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    // Answers of PostgreSQL 15.
    #[rstest]
    #[case("[1, 2, 3]", "[3, 1]", true)]
    #[case("[1, 2]", "1.0", true)]
    #[case("1", "[1]", false)]
    #[case(r#"{"a":[1,2],"b":2}"#, r#"{"a":[2]}"#, true)]
    #[case(r#"{"a":[1,2]}"#, r#"{"a":2}"#, false)]
    #[case("[[1]]", "1", false)]
    #[case("[]", "[]", true)]
    fn parts_are_contained(#[case] whole: &str, #[case] part: &str, #[case] is: bool) {
        assert_eq!(contains(&json(whole), &json(part)), is);
    }

    #[rstest]
    #[case(r#"{"a":1}"#, r#"{"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#)]
    #[case("[1]", "2", "[1, 2]")]
    #[case("1", "2", "[1, 2]")]
    #[case(r#"{"a":1}"#, "[2]", r#"[{"a": 1}, 2]"#)]
    fn documents_are_joined(#[case] left: &str, #[case] right: &str, #[case] both: &str) {
        assert_eq!(joined(json(left), json(right)).unwrap().to_text(), both);
        assert!(joined(json("{}"), json("1")).is_err());
    }

    fn set(document: &str, path: &str, create: bool) -> String {
        let values = [document.into(), path.into()];
        match edited(&values, Edit::Set { new: json("9"), create }) {
            Ok(Value::Text(text)) => text,
            Ok(_) => "NULL".into(),
            Err(error) => error.message().to_string(),
        }
    }

    #[rstest]
    #[case(r#"{"a":{"b":1}}"#, "{a,b}", true, r#"{"a": {"b": 9}}"#)]
    #[case(r#"{"a":1}"#, "{b}", false, r#"{"a": 1}"#)]
    #[case("[1, 2]", "{-1}", true, "[1, 9]")]
    #[case("[1, 2]", "{-5}", true, "[9, 1, 2]")]
    #[case("[1, 2]", "{7}", true, "[1, 2, 9]")]
    #[case("[1, 2]", "{x}", true, "path element at position 1 is not an integer: \"x\"")]
    #[case("1", "{x}", true, "cannot set path in scalar")]
    #[case("{}", "{}", true, "{}")]
    fn paths_are_set(#[case] document: &str, #[case] path: &str, #[case] create: bool, #[case] expected: &str) {
        assert_eq!(set(document, path, create), expected);
    }

    #[test]
    fn lines_are_indented() {
        let text = pretty(&json(r#"{"a":[1,{}]}"#)).unwrap();
        assert_eq!(text, "{\n    \"a\": [\n        1,\n        {\n        }\n    ]\n}".into());
    }
}
