//! JSON lines: one object a line.
//!
//! The fields of an object become columns by name (exact, or else without regard to case); keys that are no column are ignored,
//! columns without a key are missing. A scalar is read like its text: `"12"` and `12` are the same integer. Arrays, records and
//! maps are read from JSON arrays and objects; a text column takes the JSON of whatever else it is given.

mod document;
pub(crate) mod inside;
mod nested;
mod parse;
mod write;

pub(crate) use document::{Json, canonical};
pub(crate) use nested::build;
pub(crate) use parse::check;
pub(crate) use write::{json_writer, key, push_string};

use std::collections::HashMap;

use arrow::datatypes::DataType;
use memchr::memchr;

use super::fields::Fields;
use super::{Layout, is_json};
use crate::catalog::Column;
use crate::error::{Error, Result};
use parse::Parser;

/// Columns by name.
pub(super) struct Names<'a> {
    columns: &'a [Column],
    exact: HashMap<&'a [u8], usize>,
    /// Whether a column takes its value's JSON, and not a string's content.
    raw: Vec<bool>,
}

impl<'a> Names<'a> {
    fn new(columns: &'a [Column]) -> Names<'a> {
        let exact = columns.iter().enumerate().map(|(i, c)| (c.name.as_bytes(), i)).collect();
        let raw = columns.iter().map(|c| is_nested(&c.data_type) || is_json(&c.sql_type)).collect();
        Names { columns, exact, raw }
    }

    /// Keys mostly come in the columns' order: `next` is tried first.
    #[inline]
    fn find(&self, key: &[u8], next: usize) -> Option<usize> {
        if self.columns.get(next).is_some_and(|c| c.name.as_bytes() == key) {
            return Some(next);
        }
        let folded = || self.columns.iter().position(|c| c.name.as_bytes().eq_ignore_ascii_case(key));
        self.exact.get(key).copied().or_else(folded)
    }
}

pub(super) fn is_nested(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, List(_) | LargeList(_) | FixedSizeList(..) | Struct(_) | Map(..))
}

pub(super) fn split<'a>(data: &'a [u8], layout: &Layout) -> Fields<'a> {
    let names = Names::new(layout.columns);
    let mut fields = Fields::new(data, layout.columns.len());
    let mut start = 0;
    while start < data.len() {
        let end = memchr(b'\n', &data[start..]).map_or(data.len(), |at| start + at);
        if !data[start..end].trim_ascii().is_empty() {
            fields.begin_row(start);
            fields.push_missing();
            if let Err(error) = object(&mut fields, &data[..end], start, &names) {
                fields.stop(0, error);
                break;
            }
        }
        start = end + 1;
    }
    fields
}

/// One object, from `start` to the end of `data`.
fn object(fields: &mut Fields<'_>, data: &[u8], start: usize, names: &Names) -> Result<()> {
    let mut parser = Parser { data, at: start };
    parser.space();
    if parser.peek() != Some(b'{') {
        return Err(parser.error().with_hint("write one JSON object a line"));
    }
    parser.at += 1;
    parser.space();
    let mut next = 0;
    if !parser.take(b'}') {
        loop {
            parser.space();
            let key = parser.string()?;
            parser.space();
            parser.expect(b':')?;
            parser.space();
            let column = match key.escaped {
                false => names.find(&data[key.start..key.end], next),
                true => {
                    let mut name = Vec::new();
                    parse::unescape(&data[key.start..key.end], &mut name)?;
                    names.find(&name, next)
                }
            };
            match column {
                Some(column) => {
                    value(fields, &mut parser, column, names)?;
                    next = column + 1;
                }
                None => parser.skip_value(0)?,
            }
            parser.space();
            if !parser.take(b',') {
                parser.expect(b'}')?;
                break;
            }
        }
    }
    parser.space();
    if parser.at < data.len() { Err(parser.error()) } else { Ok(()) }
}

#[inline]
fn value(fields: &mut Fields<'_>, parser: &mut Parser<'_>, column: usize, names: &Names) -> Result<()> {
    let start = parser.at;
    if parser.peek() == Some(b'"') {
        let text = parser.string()?;
        if names.raw[column] {
            fields.set(column, start, parser.at);
        } else if text.escaped {
            let scratch_start = fields.scratch().len();
            parse::unescape(&parser.data[text.start..text.end], fields.scratch())?;
            fields.set_scratch(column, scratch_start);
        } else {
            fields.set(column, text.start, text.end);
        }
        return Ok(());
    }
    parser.skip_value(0)?;
    match &parser.data[start..parser.at] {
        b"null" => fields.set_null(column),
        _ => fields.set(column, start, parser.at),
    }
    Ok(())
}

/// For the shape of a value that a type can't take.
fn mismatch(expected: &str, text: &[u8]) -> Error {
    Error::invalid_text(format!("expected a JSON {expected}, got {}", String::from_utf8_lossy(text)))
}
