//! Documents made of values: of any type, as `to_json` writes it; what is a document already stays one, where the planner says so
//! in a field's metadata.
//!
//! PostgreSQL spells the results of its functions in four ways, and so they are here: `json_build_object` has ` : ` between key and
//! value, `row_to_json` no spaces at all, `jsonb` functions the canonical text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};

use super::super::super::value::Value;
use super::{DOCUMENT, Spec, immutable};
use crate::copy::json::{Json, canonical, inside, json_writer, push_string};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::limits::FUNCTION_BYTES;
use crate::sql::functions::convert::convert;
use crate::sql::system::functions::{Body, Columns, text};
use crate::sql::types;

pub(super) const FUNCTIONS: &[Spec] = &[
    made("json_build_object", PAIRS, "json", |fields, columns| objects(fields, columns, SPACED)),
    made("jsonb_build_object", PAIRS, "jsonb", |fields, columns| as_values(objects(fields, columns, DENSE)?)),
    made("json_build_array", PAIRS, "json", |fields, columns| arrays(fields, columns, true)),
    made("jsonb_build_array", PAIRS, "jsonb", |fields, columns| as_values(arrays(fields, columns, true)?)),
    made("to_json", ANY, "json", documents),
    made("to_jsonb", ANY, "jsonb", |fields, columns| as_values(documents(fields, columns)?)),
    made("array_to_json", ANY, "json", documents),
    made("row_to_json", ANY, "json", documents),
    // A row by the names of its columns and their values.
    made("json_of_row", PAIRS, "json", |fields, columns| objects(fields, columns, DENSE)),
    // `json_agg` and `json_object_agg`, of the list of a group's values and pairs.
    made("json_from_list", ANY, "json", |fields, columns| lists(fields, columns, true)),
    made("jsonb_from_list", ANY, "jsonb", |fields, columns| as_values(lists(fields, columns, true)?)),
    made("json_pair", TWO, "text", |fields, columns| pairs(fields, columns, true)),
    // What JSON_OBJECT and its kin make where NULLs are absent.
    made("json_object_of_present", PAIRS, "json", |fields, columns| {
        objects(fields, columns, Spelling { nulls: false, ..SPACED })
    }),
    made("json_array_of_present", PAIRS, "json", |fields, columns| arrays(fields, columns, false)),
    made("json_from_present", ANY, "json", |fields, columns| lists(fields, columns, false)),
    made("jsonb_from_present", ANY, "jsonb", |fields, columns| as_values(lists(fields, columns, false)?)),
    made("json_pair_if_present", TWO, "text", |fields, columns| pairs(fields, columns, false)),
    immutable("json_from_pairs", LIST, "json", |_, values| Ok(from_pairs(values).into())),
    immutable("jsonb_from_pairs", LIST, "jsonb", |_, values| Ok(canonical(&from_pairs(values))?.into())),
    immutable("json_object", TEXTS, "json", |_, values| object_of_texts(values, " : ", ", ")),
    immutable("jsonb_object", TEXTS, "jsonb", |_, values| match object_of_texts(values, ":", ",")? {
        Value::Text(text) => Ok(canonical(&text)?.into()),
        other => Ok(other),
    }),
    immutable("json_strip_nulls", DOCUMENT, "json", |_, values| {
        let mut out = Vec::new();
        push_without_nulls(text(values, 0), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned().into())
    }),
];

/// How an object is written: what stands between key and value, and between members; and whether those that are NULL are there.
#[derive(Clone, Copy)]
struct Spelling {
    colon: &'static str,
    comma: &'static str,
    nulls: bool,
}

const SPACED: Spelling = Spelling { colon: " : ", comma: ", ", nulls: true };
const DENSE: Spelling = Spelling { colon: ":", comma: ",", nulls: true };

const ANY: &[&[&str]] = &[&["any"], &["any", "bool"]];
const PAIRS: &[&[&str]] = &[&[], &["any", "..."]];
const TWO: &[&[&str]] = &[&["any", "any"]];
const LIST: &[&[&str]] = &[&["text[]"]];
const TEXTS: &[&[&str]] = &[&["any"], &["any", "any"]];

const fn made(name: &'static str, forms: &'static [&'static [&'static str]], result: &'static str, call: Columns) -> Spec {
    Spec { body: Body::Columns(call), ..immutable(name, forms, result, |_, _| Ok(Value::Null)) }
}

type Writer = Box<dyn Fn(usize, &mut Vec<u8>)>;

/// How the values of an argument are written, NULL as null.
fn writer(field: Option<&FieldRef>, column: &ArrayRef) -> Result<Writer> {
    let is_document = field.is_some_and(|field| {
        let sql_type = types::field_type(field);
        matches!(sql_type.trim_end_matches("[]"), "json" | "jsonb")
    });
    let writer = if is_document { as_they_are(column)? } else { json_writer(column)? };
    let nulls = column.logical_nulls();
    Ok(Box::new(move |row, out| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
        true => out.extend_from_slice(b"null"),
        false => writer(row, out),
    }))
}

/// Documents, and arrays of documents.
fn as_they_are(column: &ArrayRef) -> Result<Writer> {
    if let Some(lists) = column.as_list_opt::<i32>() {
        let (lists, item) = (lists.clone(), as_they_are(lists.values())?);
        return Ok(Box::new(move |row, out| {
            let offsets = lists.value_offsets();
            let items = offsets[row] as usize..offsets[row + 1] as usize;
            out.push(b'[');
            for at in items.clone() {
                out.extend_from_slice(if at > items.start { b"," } else { b"" });
                match lists.values().is_null(at) {
                    true => out.extend_from_slice(b"null"),
                    false => item(at, out),
                }
            }
            out.push(b']');
        }));
    }
    let texts = convert(column, &DataType::Utf8, Formats::default())?.as_string::<i32>().clone();
    Ok(Box::new(move |row, out| out.extend_from_slice(texts.value(row).trim_ascii().as_bytes())))
}

/// Rows of a function: as many as its columns have, one if it has none.
fn by_row(columns: &[ArrayRef], mut row: impl FnMut(usize, &mut Vec<u8>) -> Result<bool>) -> Result<ArrayRef> {
    let rows = columns.first().map_or(1, |column| column.len());
    let mut texts = StringBuilder::new();
    let mut out = Vec::new();
    for at in 0..rows {
        out.clear();
        let is_there = row(at, &mut out)?;
        if out.len() as u64 > FUNCTION_BYTES {
            return Err(Error::limit_exceeded("requested length too large"));
        }
        texts.append_option(is_there.then(|| String::from_utf8_lossy(&out)));
    }
    Ok(Arc::new(texts.finish()))
}

/// A `json` as a `jsonb`.
fn as_values(texts: ArrayRef) -> Result<ArrayRef> {
    let texts = texts.as_string::<i32>();
    let mut values = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in texts {
        values.append_option(text.map(canonical).transpose()?);
    }
    Ok(Arc::new(values.finish()))
}

fn documents(fields: &[FieldRef], columns: &[ArrayRef]) -> Result<ArrayRef> {
    let column = columns.first().ok_or_else(|| Error::internal("to_json takes a value"))?;
    let writer = writer(fields.first(), column)?;
    let nulls = column.logical_nulls();
    by_row(columns, |row, out| {
        writer(row, out);
        Ok(!nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)))
    })
}

/// Keys of objects: texts of scalars.
struct Keys {
    texts: ArrayRef,
}

impl Keys {
    fn new(column: &ArrayRef) -> Result<Keys> {
        if matches!(column.data_type(), DataType::List(_) | DataType::Struct(_) | DataType::Map(..)) {
            return Err(Error::invalid_parameter("key value must be scalar, not array, composite, or json"));
        }
        Ok(Keys { texts: convert(column, &DataType::Utf8, Formats::default())? })
    }

    fn push(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.texts.is_null(row) {
            let error = Error::invalid_parameter("null value not allowed for object key");
            return Err(error.with_hint("filter it out, or give it a name with COALESCE"));
        }
        push_string(out, self.texts.as_string::<i32>().value(row));
        Ok(())
    }
}

/// Keys and values in turn.
fn objects(fields: &[FieldRef], columns: &[ArrayRef], spelling: Spelling) -> Result<ArrayRef> {
    if !columns.len().is_multiple_of(2) {
        let error = Error::invalid_parameter("argument list must have even number of elements");
        return Err(error.with_hint("the arguments are keys and values in turn"));
    }
    let members = columns.chunks_exact(2).zip(0..);
    let members = members.map(|(pair, at): (_, usize)| {
        let nulls = if spelling.nulls { None } else { pair[1].logical_nulls() };
        Ok((Keys::new(&pair[0])?, writer(fields.get(2 * at + 1), &pair[1])?, nulls))
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    by_row(columns, |row, out| {
        out.push(b'{');
        for (key, value, nulls) in &members {
            let before = out.len();
            out.extend_from_slice(if before > 1 { spelling.comma } else { "" }.as_bytes());
            key.push(row, out)?;
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                out.truncate(before);
                continue;
            }
            out.extend_from_slice(spelling.colon.as_bytes());
            value(row, out);
        }
        out.push(b'}');
        Ok(true)
    })
}

fn arrays(fields: &[FieldRef], columns: &[ArrayRef], with_nulls: bool) -> Result<ArrayRef> {
    let elements = columns.iter().enumerate().map(|(at, column)| {
        let nulls = if with_nulls { None } else { column.logical_nulls() };
        Ok((writer(fields.get(at), column)?, nulls))
    });
    let elements = elements.collect::<Result<Vec<_>>>()?;
    by_row(columns, |row, out| {
        out.push(b'[');
        for (element, nulls) in &elements {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            out.extend_from_slice(if out.len() > 1 { b", " } else { b"" });
            element(row, out);
        }
        out.push(b']');
        Ok(true)
    })
}

/// The values of a group, those of an array type on lines of their own.
fn lists(fields: &[FieldRef], columns: &[ArrayRef], with_nulls: bool) -> Result<ArrayRef> {
    let column = columns.first().ok_or_else(|| Error::internal("json_agg takes a value"))?;
    let lists = column.as_list_opt::<i32>().ok_or_else(|| Error::internal("json_agg is of a list"))?;
    let item = writer(fields.first(), lists.values())?;
    let is_nested = matches!(lists.values().data_type(), DataType::List(_) | DataType::Struct(_));
    let nulls = lists.values().logical_nulls();
    let comma: &[u8] = if is_nested { b", \n " } else { b", " };
    by_row(columns, |row, out| {
        let offsets = lists.value_offsets();
        let items = offsets[row] as usize..offsets[row + 1] as usize;
        out.push(b'[');
        for at in items.filter(|at| with_nulls || nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*at))) {
            out.extend_from_slice(if out.len() > 1 { comma } else { b"" });
            item(at, out);
        }
        out.push(b']');
        Ok(lists.is_valid(row))
    })
}

fn pairs(fields: &[FieldRef], columns: &[ArrayRef], with_nulls: bool) -> Result<ArrayRef> {
    let [key, value] = columns else { return Err(Error::internal("a pair has a key and a value")) };
    let nulls = if with_nulls { None } else { value.logical_nulls() };
    let (key, value) = (Keys::new(key)?, writer(fields.get(1), value)?);
    by_row(columns, |row, out| {
        key.push(row, out)?;
        out.extend_from_slice(b" : ");
        value(row, out);
        Ok(nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)))
    })
}

fn from_pairs(values: &[Value]) -> String {
    let Some(Value::List(pairs)) = values.first() else { return "{}".to_string() };
    let pairs: Vec<&str> = pairs.iter().filter_map(Value::text).collect();
    if pairs.is_empty() { "{ }".to_string() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// `json_object`: keys and values in turn, or an array of each; or pairs of a key and a value.
fn object_of_texts(values: &[Value], colon: &str, comma: &str) -> Result<Value> {
    let uneven = || Error::invalid_parameter("array must have even number of elements");
    let texts = |at: usize| match values.get(at) {
        Some(Value::List(items)) => Ok(items.iter().flat_map(flat).map(|item| item.text().map(str::to_string)).collect()),
        Some(Value::Text(text)) => crate::sql::system::rewrite::array_items(text),
        _ => Ok(Vec::new()),
    };
    let (keys, mut members): (Vec<_>, Vec<Option<String>>) = match values.len() {
        2 => (texts(0)?, texts(1)?),
        _ => {
            let all = texts(0)?;
            if !all.len().is_multiple_of(2) {
                return Err(uneven());
            }
            all.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip()
        }
    };
    if keys.len() != members.len() {
        return Err(Error::invalid_parameter("mismatched array dimensions").with_hint("give as many values as keys"));
    }
    let mut out = vec![b'{'];
    for (at, (key, member)) in keys.iter().zip(members.drain(..)).enumerate() {
        out.extend_from_slice(if at > 0 { comma } else { "" }.as_bytes());
        let key = key.as_deref().ok_or_else(|| Error::invalid_parameter("null value not allowed for object key"))?;
        push_string(&mut out, key);
        out.extend_from_slice(colon.as_bytes());
        match member {
            Some(text) => push_string(&mut out, &text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(String::from_utf8_lossy(&out).into_owned().into())
}

/// The elements of an array of any dimensions.
fn flat(value: &Value) -> Vec<&Value> {
    match value {
        Value::List(items) => items.iter().flat_map(flat).collect(),
        scalar => vec![scalar],
    }
}

/// A `json` keeps its keys in their order; it is spelled without spaces.
fn push_without_nulls(document: &str, out: &mut Vec<u8>) -> Result<()> {
    if let Some(elements) = inside::elements(document)? {
        out.push(b'[');
        for (at, element) in elements.into_iter().enumerate() {
            out.extend_from_slice(if at > 0 { b"," } else { b"" });
            push_without_nulls(element, out)?;
        }
        out.push(b']');
    } else if let Some(members) = inside::members(document)? {
        out.push(b'{');
        for (at, (key, value)) in members.into_iter().filter(|(_, value)| *value != "null").enumerate() {
            out.extend_from_slice(if at > 0 { b"," } else { b"" });
            push_string(out, &key);
            out.push(b':');
            push_without_nulls(value, out)?;
        }
        out.push(b'}');
    } else {
        match inside::string(document)? {
            Some(text) => push_string(out, &text),
            None => Json::parse(document).map(|_| out.extend_from_slice(document.trim_ascii().as_bytes()))?,
        }
    }
    Ok(())
}
