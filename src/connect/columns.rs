//! Arrow columns as generators make them, and how they become the columns of a stream.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

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

/// Which of a connector's columns a stream takes, and as what type: by name, so that a stream may leave some out.
#[derive(Debug)]
pub struct Projection {
    /// Columns of the stream that the connector gives; the others are computed, or have a default.
    pub targets: Vec<usize>,
    /// Those columns among the connector's.
    sources: Vec<usize>,
    schema: SchemaRef,
}

impl Projection {
    /// Fails if the stream asks for what the connector does not have.
    pub fn new(connector: &str, relation: &Relation, from: &Schema) -> Result<Projection> {
        let (mut targets, mut sources) = (Vec::new(), Vec::new());
        for (target, column) in relation.columns.iter().enumerate() {
            // A computed column hides the connector's column of the same name.
            if column.generated.is_some() {
                continue;
            }
            match from.index_of(&column.name) {
                Ok(source) if convertible(from.field(source).data_type(), &column.data_type) => {
                    targets.push(target);
                    sources.push(source);
                }
                Ok(source) => {
                    let given = from.field(source).data_type();
                    return Err(Error::datatype_mismatch(format!(
                        "column \"{}\" is of type {} but connector '{connector}' gives {given}",
                        column.name, column.sql_type
                    )));
                }
                Err(_) if column.default.is_some() => {}
                Err(_) => {
                    let names: Vec<&str> = from.fields().iter().map(|f| f.name().as_str()).collect();
                    return Err(Error::undefined_column(format!(
                        "connector '{connector}' has no column \"{}\" for stream \"{}\"",
                        column.name, relation.name
                    ))
                    .with_hint(format!("its columns are {}", names.join(", "))));
                }
            }
        }
        let schema = Arc::new(relation.schema().project(&targets)?);
        Ok(Projection { targets, sources, schema })
    }

    /// The columns that the connector gives, in the stream's order and types.
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let cast_options = CastOptions { safe: false, ..CastOptions::default() };
        let cast =
            |(source, field): (&usize, &Arc<Field>)| cast_with_options(rows.column(*source), field.data_type(), &cast_options);
        let columns = self.sources.iter().zip(self.schema.fields()).map(cast).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// The same kind of value, if perhaps of another width.
fn convertible(from: &DataType, to: &DataType) -> bool {
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let instant = |t: &DataType| matches!(t, DataType::Timestamp(_, _));
    from == to || (from.is_numeric() && to.is_numeric()) || (text(from) && text(to)) || (instant(from) && instant(to))
}
