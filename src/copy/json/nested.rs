//! Arrays, records and maps from JSON. The recursion is over the type; a value's depth is bounded where it was cut.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{ArrayRef, AsArray, MapArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields};

use super::parse::{Parser, unescape};
use super::{is_nested, mismatch};
use crate::copy::column::{self, list_array, representative, row_of_item, struct_array};
use crate::copy::fields::Bad;
use crate::copy::value::Formats;
use crate::error::{Error, Result};

/// The JSON of each value; `None` is NULL.
type Raw<'a> = Vec<Option<&'a [u8]>>;

/// The array of a type from JSON values.
pub(crate) fn build(data_type: &DataType, values: &Raw<'_>, formats: Formats) -> Result<ArrayRef, Bad> {
    match data_type {
        DataType::List(field) => lists(field, values, formats),
        DataType::Struct(fields) => records(fields, values, formats),
        DataType::Map(entries, sorted) => maps(entries, *sorted, values, formats),
        other if is_nested(other) => {
            let stands_for = representative(other).map_err(Bad::at(0))?;
            cast(&build(&stands_for, values, formats)?, other).map_err(|e| Bad { row: 0, error: e.into() })
        }
        scalar => {
            let texts = values.iter().enumerate();
            let texts = texts.map(|(row, value)| value.map(scalar_text).transpose().map_err(Bad::at(row)));
            column::build(scalar, &texts.collect::<Result<Vec<_>, _>>()?, formats)
        }
    }
}

/// A string's content, or the JSON of anything else.
fn scalar_text(json: &[u8]) -> Result<Cow<'_, [u8]>> {
    let Some(content) = json.strip_prefix(b"\"").and_then(|j| j.strip_suffix(b"\"")) else { return Ok(Cow::Borrowed(json)) };
    if memchr::memchr(b'\\', content).is_none() {
        return Ok(Cow::Borrowed(content));
    }
    let mut text = Vec::with_capacity(content.len());
    unescape(content, &mut text)?;
    Ok(Cow::Owned(text))
}

fn not_null(json: &[u8]) -> Option<&[u8]> {
    (json != b"null").then_some(json)
}

/// A value of a kind that begins with `open`.
fn parser<'a>(json: &'a [u8], open: u8, expected: &str) -> Result<Parser<'a>> {
    let json = json.trim_ascii();
    if json.first() == Some(&open) { Ok(Parser { data: json, at: 0 }) } else { Err(mismatch(expected, json)) }
}

fn lists(field: &FieldRef, values: &Raw<'_>, formats: Formats) -> Result<ArrayRef, Bad> {
    let mut ends = vec![0];
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut items: Raw = Vec::new();
    for (row, value) in values.iter().enumerate() {
        nulls.append(value.is_some());
        if let Some(json) = value {
            elements(json, &mut items).map_err(Bad::at(row))?;
        }
        ends.push(items.len() as i32);
    }
    let items = build(field.data_type(), &items, formats).map_err(|bad| row_of_item(&ends, bad))?;
    list_array(field, OffsetBuffer::new(ScalarBuffer::from(ends)), items, nulls)
}

fn elements<'a>(json: &'a [u8], items: &mut Raw<'a>) -> Result<()> {
    let mut parser = parser(json, b'[', "array")?;
    let data = parser.data;
    parser.elements(b']', |parser| {
        let start = parser.at;
        parser.skip_value(0)?;
        items.push(not_null(&data[start..parser.at]));
        Ok(())
    })
}

/// Calls `take` with each key and the JSON of its value.
fn members<'a>(json: &'a [u8], mut take: impl FnMut(Cow<'a, [u8]>, Option<&'a [u8]>)) -> Result<()> {
    let mut parser = parser(json, b'{', "object")?;
    let data = parser.data;
    parser.elements(b'}', |parser| {
        let start = parser.at;
        parser.string()?;
        let key = scalar_text(&data[start..parser.at])?;
        parser.space();
        parser.expect(b':')?;
        parser.space();
        let start = parser.at;
        parser.skip_value(0)?;
        take(key, not_null(&data[start..parser.at]));
        Ok(())
    })
}

fn records(fields: &Fields, values: &Raw<'_>, formats: Formats) -> Result<ArrayRef, Bad> {
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut columns: Vec<Raw> = fields.iter().map(|_| vec![None; values.len()]).collect();
    for (row, value) in values.iter().enumerate() {
        nulls.append(value.is_some());
        let Some(json) = value else { continue };
        let found = members(json, |key, value| {
            let exact = fields.iter().position(|f| f.name().as_bytes() == &*key);
            let column = exact.or_else(|| fields.iter().position(|f| f.name().as_bytes().eq_ignore_ascii_case(&key)));
            if let Some(column) = column {
                columns[column][row] = value;
            }
        });
        found.map_err(Bad::at(row))?;
    }
    let arrays = fields
        .iter()
        .zip(&columns)
        .map(|(field, column)| build(field.data_type(), column, formats))
        .collect::<Result<Vec<_>, _>>()?;
    struct_array(fields, arrays, nulls)
}

fn maps(entries: &FieldRef, sorted: bool, values: &Raw<'_>, formats: Formats) -> Result<ArrayRef, Bad> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Bad { row: 0, error: Error::internal("a map's entries are records") });
    };
    let [key_field, value_field] = fields.as_ref() else {
        return Err(Bad { row: 0, error: Error::internal("a map's entries are pairs") });
    };
    let mut ends = vec![0];
    let mut nulls = NullBufferBuilder::new(values.len());
    let (mut keys, mut items): (Vec<Option<Cow<[u8]>>>, Raw) = (Vec::new(), Vec::new());
    for (row, value) in values.iter().enumerate() {
        nulls.append(value.is_some());
        if let Some(json) = value {
            let found = members(json, |key, value| {
                keys.push(Some(key));
                items.push(value);
            });
            found.map_err(Bad::at(row))?;
        }
        ends.push(keys.len() as i32);
    }
    let keys = column::build(key_field.data_type(), &keys, formats).map_err(|bad| row_of_item(&ends, bad))?;
    let items = build(value_field.data_type(), &items, formats).map_err(|bad| row_of_item(&ends, bad))?;
    let pairs = struct_array(fields, vec![keys, items], NullBufferBuilder::new(0)).map_err(|bad| row_of_item(&ends, bad))?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(MapArray::new(entries.clone(), offsets, pairs.as_struct().clone(), nulls.finish(), sorted)))
}
