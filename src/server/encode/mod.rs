//! Rows as DataRow messages.
//!
//! A batch is turned into one writer per column, chosen once by type and format; then rows are written straight into the
//! buffer that goes to the socket, cell by cell, with no allocation per value. Lengths are patched in after the bytes.

mod binary;
mod json;
mod nested;
mod number;
mod text;
mod time;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType};

use super::frontend::Format;
use crate::error::{Error, Result};
use crate::sql::types::{INT2_VECTOR, OID_VECTOR};
use crate::time::zone::Zone;

/// Writes the value of a row, which is not NULL.
type Cell = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<()> + Send>;

/// A batch, ready to be written row by row.
pub struct Rows {
    columns: Vec<Column>,
    rows: usize,
}

/// How a column's values are written: as this type of Postgres's, in this format.
#[derive(Clone, Copy)]
pub struct Form {
    pub oid: u32,
    pub format: Format,
}

struct Column {
    nulls: Option<NullBuffer>,
    cell: Cell,
}

impl Rows {
    /// `form` tells the form of a column by its index; times with time zone are written in `zone`.
    pub fn new(batch: &RecordBatch, form: impl Fn(usize) -> Form, zone: Zone) -> Result<Rows> {
        let columns = batch.columns().iter().enumerate();
        let columns = columns.map(|(index, array)| Column::new(array, form(index), zone)).collect::<Result<_>>()?;
        Ok(Rows { columns, rows: batch.num_rows() })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    /// Writes a row as a DataRow message; after an error, nothing of it is in `out`.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let [high, low] = (self.columns.len() as u16).to_be_bytes();
        out.extend_from_slice(&[b'D', 0, 0, 0, 0, high, low]);
        for column in &self.columns {
            if let Err(error) = column.write(row, out) {
                out.truncate(start);
                return Err(error);
            }
        }
        let length = out.len() - start - 1;
        patch_length(out, start + 1, length);
        Ok(())
    }
}

impl Column {
    fn new(array: &ArrayRef, form: Form, zone: Zone) -> Result<Column> {
        let cell = match form.format {
            Format::Text if matches!(form.oid, INT2_VECTOR | OID_VECTOR) => nested::vector_text(array, zone)?,
            Format::Text => text::cell(array, zone)?,
            Format::Binary => binary::cell(array, form.oid, zone)?,
        };
        Ok(Column { nulls: array.logical_nulls(), cell })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The value with its length before it, -1 for NULL.
    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            return Ok(());
        }
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        (self.cell)(row, out)?;
        let length = out.len() - at - 4;
        if length > i32::MAX as usize / 2 {
            return Err(Error::limit_exceeded(format!("a value of {length} bytes is too long to be sent")));
        }
        patch_length(out, at, length);
        Ok(())
    }
}

#[inline]
fn patch_length(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 4].copy_from_slice(&(length as i32).to_be_bytes());
}

/// A cell of a column of numbers, times, …
fn primitive<T: ArrowPrimitiveType>(array: &dyn Array, write: impl Fn(T::Native, &mut Vec<u8>) + Send + 'static) -> Cell {
    let array = array.as_primitive::<T>().clone();
    Box::new(move |row, out| {
        write(array.value(row), out);
        Ok(())
    })
}

fn boolean(array: &dyn Array, write: impl Fn(bool, &mut Vec<u8>) + Send + 'static) -> Cell {
    let array = array.as_boolean().clone();
    Box::new(move |row, out| {
        write(array.value(row), out);
        Ok(())
    })
}

/// A cell of a column of text or bytes, whichever way they are stored.
fn bytes(array: &dyn Array, write: impl Fn(&[u8], &mut Vec<u8>) + Send + 'static) -> Option<Cell> {
    macro_rules! each {
        ($array:expr) => {{
            let array = $array.clone();
            Box::new(move |row, out: &mut Vec<u8>| {
                write(array.value(row).as_ref(), out);
                Ok(())
            })
        }};
    }
    Some(match array.data_type() {
        DataType::Utf8 => each!(array.as_string::<i32>()),
        DataType::LargeUtf8 => each!(array.as_string::<i64>()),
        DataType::Utf8View => each!(array.as_string_view()),
        DataType::Binary => each!(array.as_binary::<i32>()),
        DataType::LargeBinary => each!(array.as_binary::<i64>()),
        DataType::BinaryView => each!(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => each!(array.as_fixed_size_binary()),
        _ => return None,
    })
}

/// A cell of an array of indices into `values`, whose own cell is given.
fn dictionary(array: &dyn Array, cell: impl Fn(&ArrayRef) -> Result<Cell>) -> Result<Cell> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        return Ok(Box::new(|_, _| Ok(())));
    }
    let keys = dictionary.normalized_keys();
    let cell = cell(dictionary.values())?;
    // The index of a row that is NULL means nothing, and is never asked for.
    Ok(Box::new(move |row, out| cell(keys[row], out)))
}

/// What no writer knows: the text that Arrow prints.
fn displayed(array: &ArrayRef) -> Result<Cell> {
    let text = arrow::compute::cast(array, &DataType::Utf8);
    let text = text.or_else(|_| {
        let options = arrow::util::display::FormatOptions::default();
        let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options)?;
        let rows = (0..array.len()).map(|row| formatter.value(row).try_to_string()).collect::<Result<Vec<_>, _>>()?;
        Ok::<ArrayRef, arrow::error::ArrowError>(Arc::new(StringArray::from(rows)))
    })?;
    let array = text.as_string::<i32>().clone();
    Ok(Box::new(move |row, out| {
        out.extend_from_slice(array.value(row).as_bytes());
        Ok(())
    }))
}
