//! Batches into COPY data.

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;

use super::value::write::{Writer, text_writer};
use super::{Options, binary, csv, json, text};
use crate::catalog::Column;
use crate::error::Result;
use crate::limits::DEAD_LETTER_BYTES;
use crate::sql::ast::CopyFormat;
use crate::sql::types::field_type;

/// Encodes rows for COPY TO STDOUT.
pub struct Encoder {
    options: Options,
    columns: Vec<Column>,
    force_quote: Vec<bool>,
    /// `"name":` of each column.
    keys: Vec<Vec<u8>>,
}

impl Encoder {
    pub fn new(columns: &[Column], options: &Options) -> Result<Encoder> {
        Ok(Encoder {
            force_quote: options.flags(&options.force_quote, columns)?,
            keys: columns.iter().map(|c| json::key(&c.name)).collect(),
            columns: columns.to_vec(),
            options: options.clone(),
        })
    }

    /// For the rows of a query.
    pub fn for_schema(schema: &Schema, options: &Options) -> Result<Encoder> {
        let column = |field: &arrow::datatypes::FieldRef| Column {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            sql_type: field_type(field),
            nullable: field.is_nullable(),
            default: None,
            generated: None,
            identity: None,
            comment: None,
        };
        Encoder::new(&schema.fields().iter().map(column).collect::<Vec<_>>(), options)
    }

    /// What comes before the rows, if anything.
    pub fn header(&self) -> Option<Bytes> {
        match self.options.format {
            CopyFormat::Binary => Some([&binary::SIGNATURE[..], &[0; 8]].concat().into()),
            CopyFormat::Csv | CopyFormat::Text if self.options.header => {
                let mut out = Vec::new();
                for (i, column) in self.columns.iter().enumerate() {
                    self.delimit(&mut out, i);
                    let start = out.len();
                    out.extend_from_slice(column.name.as_bytes());
                    self.protect(&mut out, start, false);
                }
                out.push(b'\n');
                Some(out.into())
            }
            _ => None,
        }
    }

    /// What comes after the rows, if anything.
    pub fn trailer(&self) -> Option<Bytes> {
        (self.options.format == CopyFormat::Binary).then(|| Bytes::from_static(&[0xff, 0xff]))
    }

    /// The rows, each by itself: clients expect one row in a message. They share one buffer.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Vec<Bytes>> {
        // An untyped NULL does not say of its rows that they are NULL.
        let typed = |array: &ArrayRef| match array.data_type() {
            DataType::Null => new_null_array(&DataType::Utf8, array.len()),
            _ => ArrayRef::clone(array),
        };
        let columns: Vec<ArrayRef> = batch.columns().iter().map(typed).collect();
        let writers = columns.iter().zip(&self.columns).map(|(array, column)| self.writer(array, column));
        let writers = writers.collect::<Result<Vec<_>>>()?;
        let mut out = Vec::with_capacity(batch.num_rows() * 16 * batch.num_columns());
        let mut ends = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            match self.options.format {
                CopyFormat::Binary => {
                    out.extend_from_slice(&(writers.len() as i16).to_be_bytes());
                    columns.iter().zip(&writers).for_each(|(array, writer)| binary::push_value(&mut out, array, writer, row));
                }
                CopyFormat::Json => self.push_object(&mut out, &columns, &writers, row),
                CopyFormat::Text | CopyFormat::Csv => self.push_line(&mut out, &columns, &writers, row),
            }
            ends.push(out.len());
        }
        let out = Bytes::from(out);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Ok(starts.zip(&ends).map(|(start, end)| out.slice(start..*end)).collect())
    }

    fn writer(&self, array: &ArrayRef, column: &Column) -> Result<Writer> {
        match self.options.format {
            CopyFormat::Binary => binary::binary_writer(array, &column.sql_type),
            CopyFormat::Json if !column.is_json() => json::json_writer(&self.options.formats.zone.seen(array)?),
            CopyFormat::Json | CopyFormat::Text | CopyFormat::Csv => text_writer(&self.options.formats.zone.seen(array)?),
        }
    }

    fn push_object(&self, out: &mut Vec<u8>, columns: &[ArrayRef], writers: &[Writer], row: usize) {
        out.push(b'{');
        for (i, ((array, writer), key)) in columns.iter().zip(writers).zip(&self.keys).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key);
            if array.is_null(row) { out.extend_from_slice(b"null") } else { writer(row, out) }
        }
        out.extend_from_slice(b"}\n");
    }

    fn push_line(&self, out: &mut Vec<u8>, columns: &[ArrayRef], writers: &[Writer], row: usize) {
        for (i, (array, writer)) in columns.iter().zip(writers).enumerate() {
            self.delimit(out, i);
            if array.is_null(row) {
                out.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            let start = out.len();
            writer(row, out);
            self.protect(out, start, self.force_quote[i]);
        }
        out.push(b'\n');
    }

    fn delimit(&self, out: &mut Vec<u8>, column: usize) {
        if column > 0 {
            out.push(self.options.delimiter);
        }
    }

    /// Quote or escape what was written since `start`.
    fn protect(&self, out: &mut Vec<u8>, start: usize, force_quote: bool) {
        match self.options.format {
            CopyFormat::Csv => csv::quote(out, start, &self.options, force_quote, self.columns.len() == 1),
            _ => text::escape(out, start, self.options.delimiter),
        }
    }
}

/// What stands for each row among the dead letters: a JSON object, or how it begins if it is too large to be stored.
pub(crate) fn dead_letters(columns: &[Column], batch: &RecordBatch) -> Result<Vec<String>> {
    let encoder = Encoder::new(columns, &Options::of(CopyFormat::Json))?;
    let letter = |line: &Bytes| {
        let text = String::from_utf8_lossy(&line[..line.len() - 1]);
        text[..text.floor_char_boundary(DEAD_LETTER_BYTES)].to_string()
    };
    Ok(encoder.encode(batch)?.iter().map(letter).collect())
}
