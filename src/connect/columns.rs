//! Arrow columns as generators make them, and how they become the columns of a stream.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::catalog::Relation;
use crate::error::{Error, Result};

/// A column of ASCII strings, written piece by piece without an allocation per row.
pub struct Strings {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Strings {
    pub fn with_capacity(rows: usize, bytes: usize) -> Strings {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Strings { offsets, bytes: Vec::with_capacity(rows * bytes) }
    }

    /// Append a row: what `write` appends to the bytes.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        write(&mut self.bytes);
        // A batch is cut by rows long before 2 GiB; the cast cannot wrap.
        self.offsets.push(self.bytes.len() as i32);
        self.bytes.len() - start
    }

    pub fn push(&mut self, value: &str) -> usize {
        self.push_with(|bytes| bytes.extend_from_slice(value.as_bytes()))
    }

    pub fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Arc::new(StringArray::new(offsets, Buffer::from_vec(self.bytes), None))
    }
}

/// Which of a generator's columns a stream takes, and as what type: by name, so that a stream may leave some out.
#[derive(Debug)]
pub struct Projection {
    /// Per stored column of the stream: the generator's column, or `None` where the stream computes it or has a default.
    pub sources: Vec<Option<usize>>,
    schema: SchemaRef,
}

impl Projection {
    /// Fails if the stream asks for what the generator does not have.
    pub fn new(connector: &str, relation: &Relation, from: &Schema) -> Result<Projection> {
        let mut sources = Vec::new();
        for column in &relation.columns {
            let found = from.fields().iter().position(|field| *field.name() == column.name);
            match found {
                Some(index) if !convertible(from.field(index).data_type(), &column.data_type) => {
                    let given = from.field(index).data_type();
                    return Err(Error::datatype_mismatch(format!(
                        "column \"{}\" is of type {} but connector '{connector}' gives {given}",
                        column.name, column.sql_type
                    )));
                }
                None if column.generated.is_none() && column.default.is_none() => {
                    let names: Vec<&str> = from.fields().iter().map(|f| f.name().as_str()).collect();
                    return Err(Error::undefined_column(format!(
                        "connector '{connector}' has no column \"{}\" for stream \"{}\"",
                        column.name, relation.name
                    ))
                    .with_hint(format!("its columns are {}", names.join(", "))));
                }
                // A computed column hides the generator's column of the same name.
                found => sources.push(found.filter(|_| column.generated.is_none())),
            }
        }
        Ok(Projection { sources, schema: relation.schema() })
    }

    /// The columns that the generator gives, in the stream's order and types.
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (target, source) in self.schema.fields().iter().zip(&self.sources) {
            let Some(source) = source else { continue };
            columns.push(cast_with_options(rows.column(*source), target.data_type(), &options)?);
            fields.push(Arc::clone(target));
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

/// The same kind of value, if perhaps of another width.
fn convertible(from: &DataType, to: &DataType) -> bool {
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let instant = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
    from == to || (from.is_numeric() && to.is_numeric()) || (text(from) && text(to)) || (instant(from) && instant(to))
}
