//! Arrays and records, in text and binary. Lists of lists are arrays of several dimensions, as Postgres has them.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::{Cell, Column, Form};
use crate::error::{Error, Result};
use crate::server::frontend::Format;
use crate::server::types::{is_list, postgres_type};
use crate::sql::types::element;
use crate::time::zone::Zone;

/// Values inside of others, in text: no type has a text form of its own.
const TEXT: Form = Form { oid: 0, format: Format::Text };

/// The items of each row of a list, as a range of the child array.
type Items = Box<dyn Fn(usize) -> Range<usize> + Send>;

fn items(array: &dyn Array) -> (Items, ArrayRef) {
    match array.data_type() {
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.offsets().clone();
            (Box::new(move |row| offsets[row] as usize..offsets[row + 1] as usize), list.values().clone())
        }
        DataType::FixedSizeList(_, size) => {
            let size = *size as usize;
            (Box::new(move |row| row * size..(row + 1) * size), array.as_fixed_size_list().values().clone())
        }
        _ => {
            let list = array.as_list::<i32>();
            let offsets = list.offsets().clone();
            (Box::new(move |row| offsets[row] as usize..offsets[row + 1] as usize), list.values().clone())
        }
    }
}

/// `{1,NULL,"a b"}`, `{{1,2},{3,4}}`.
pub fn array_text(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    let (items, values) = items(array);
    let column = Column::new(&values, TEXT, zone)?;
    let never_quoted = is_list(values.data_type()) || values.data_type().is_numeric() || *values.data_type() == DataType::Boolean;
    Ok(Box::new(move |row, out| {
        out.push(b'{');
        for (index, item) in items(row).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if column.is_null(item) {
                out.extend_from_slice(b"NULL");
                continue;
            }
            let start = out.len();
            (column.cell)(item, out)?;
            if !never_quoted && needs_quotes(&out[start..], b"{},") {
                quote(out, start, |byte| matches!(byte, b'"' | b'\\').then_some(b'\\'));
            }
        }
        out.push(b'}');
        Ok(())
    }))
}

/// `(1,,"a b")`: a field that is NULL is empty.
pub fn record_text(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    let fields = array.as_struct().columns().iter().map(|field| Column::new(field, TEXT, zone)).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row, out| {
        out.push(b'(');
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if field.is_null(row) {
                continue;
            }
            let start = out.len();
            (field.cell)(row, out)?;
            if needs_quotes(&out[start..], b"(),") {
                quote(out, start, |byte| matches!(byte, b'"' | b'\\').then_some(byte));
            }
        }
        out.push(b')');
        Ok(())
    }))
}

fn needs_quotes(text: &[u8], special: &[u8]) -> bool {
    let marks = |byte: &u8| special.contains(byte) || matches!(byte, b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    text.is_empty() || text.iter().any(marks) || (special.contains(&b'{') && text.eq_ignore_ascii_case(b"null"))
}

/// Puts quotes around what was written from `start` on, in place, and before each byte what `escape` wants.
fn quote(out: &mut Vec<u8>, start: usize, escape: impl Fn(u8) -> Option<u8>) {
    let escapes = out[start..].iter().filter(|byte| escape(**byte).is_some()).count();
    let mut from = out.len();
    out.resize(from + escapes + 2, b'"');
    // From the back, so that no byte is overwritten before it has moved.
    let mut to = out.len() - 1;
    while from > start {
        from -= 1;
        to -= 1;
        let byte = out[from];
        out[to] = byte;
        if let Some(prefix) = escape(byte) {
            to -= 1;
            out[to] = prefix;
        }
    }
    out[start] = b'"';
}

/// The elements of a vector of the catalog: `1 2`.
pub fn vector_text(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    let (items, values) = items(array);
    let element = super::text::cell(&values, zone)?;
    Ok(Box::new(move |row, out| {
        for (place, item) in items(row).enumerate() {
            if place > 0 {
                out.push(b' ');
            }
            element(item, out)?;
        }
        Ok(())
    }))
}

/// Number of dimensions, whether there are NULLs, type of the elements, then the length and first index of each dimension, and
/// all elements.
pub fn array_binary(array: &ArrayRef, oid: u32, zone: Zone) -> Result<Cell> {
    let dimensions = Dimensions::new(array, oid, zone)?;
    Ok(Box::new(move |row, out| {
        let mut lengths = Vec::new();
        dimensions.measure(row, 0, &mut lengths)?;
        // An array without elements has no dimensions.
        if lengths.contains(&0) {
            lengths.clear();
        }
        out.extend_from_slice(&(lengths.len() as i32).to_be_bytes());
        out.extend_from_slice(&(dimensions.has_nulls() as i32).to_be_bytes());
        out.extend_from_slice(&dimensions.element.to_be_bytes());
        for length in &lengths {
            out.extend_from_slice(&(*length as i32).to_be_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
        }
        if lengths.is_empty() { Ok(()) } else { dimensions.write(row, out) }
    }))
}

/// A list and the lists in it, down to the elements.
struct Dimensions {
    items: Items,
    inner: Inner,
    /// OID of the elements' type.
    element: u32,
}

enum Inner {
    Lists { nulls: Option<arrow::buffer::NullBuffer>, lists: Box<Dimensions> },
    Elements(Column),
}

impl Dimensions {
    /// `oid` is the array's type.
    fn new(array: &ArrayRef, oid: u32, zone: Zone) -> Result<Dimensions> {
        let (items, values) = items(array);
        if is_list(values.data_type()) {
            let lists = Box::new(Dimensions::new(&values, oid, zone)?);
            let element = lists.element;
            return Ok(Dimensions { items, inner: Inner::Lists { nulls: values.logical_nulls(), lists }, element });
        }
        let element = element(oid).unwrap_or_else(|| postgres_type(values.data_type()).oid());
        let column = Column::new(&values, Form { oid: element, format: Format::Binary }, zone)?;
        Ok(Dimensions { items, inner: Inner::Elements(column), element })
    }

    /// Finds the length of each dimension from `depth` on, and that it is the same everywhere.
    fn measure(&self, row: usize, depth: usize, lengths: &mut Vec<usize>) -> Result<()> {
        let items = (self.items)(row);
        match lengths.get(depth) {
            None => lengths.push(items.len()),
            Some(length) if *length == items.len() => {}
            Some(_) => return Err(ragged()),
        }
        let Inner::Lists { nulls, lists } = &self.inner else { return Ok(()) };
        for item in items {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(item)) {
                return Err(ragged());
            }
            lists.measure(item, depth + 1, lengths)?;
        }
        Ok(())
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        (self.items)(row).try_for_each(|item| match &self.inner {
            Inner::Lists { lists, .. } => lists.write(item, out),
            Inner::Elements(column) => column.write(item, out),
        })
    }

    fn has_nulls(&self) -> bool {
        match &self.inner {
            Inner::Lists { lists, .. } => lists.has_nulls(),
            Inner::Elements(column) => column.nulls.is_some(),
        }
    }
}

fn ragged() -> Error {
    Error::unsupported("an array of arrays of different lengths has no binary form")
        .with_hint("ask for the result in text format")
}

/// Number of fields, then the type and the value of each.
pub fn record_binary(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    let columns = array.as_struct().columns().iter();
    let fields = columns.map(|field| {
        let oid = postgres_type(field.data_type()).oid();
        Ok((oid, Column::new(field, Form { oid, format: Format::Binary }, zone)?))
    });
    let fields = fields.collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row, out| {
        out.extend_from_slice(&(fields.len() as i32).to_be_bytes());
        fields.iter().try_for_each(|(oid, field)| {
            out.extend_from_slice(&oid.to_be_bytes());
            field.write(row, out)
        })
    }))
}
