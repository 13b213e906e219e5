//! How a relation's rows lie in stored batches, and what older batches are to readers.
//!
//! A relation gains columns at its end. A batch that was stored before has fewer; its rows have in the new columns what the
//! column was said to have for them (its default, computed once), or NULL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::record;
use crate::catalog::Relation;
use crate::error::{Error, Result};

/// The schema of a relation's stored batches, and the values that rows without its last columns have there.
#[derive(Clone, Debug)]
pub struct Layout {
    pub schema: SchemaRef,
    /// By column: an array of one value.
    pub fills: BTreeMap<usize, ArrayRef>,
}

impl Layout {
    pub fn of(relation: &Relation) -> Result<Layout> {
        let hidden = usize::from(relation.has_row_id());
        let fill = |(column, text): (&usize, &String)| {
            let column = relation.columns.get(*column).map(|c| (column + hidden, c)).ok_or_else(|| damaged(&relation.name))?;
            Ok((column.0, value_from_text(text, &column.1.data_type).map_err(|e| e.with_context(relation.name.clone()))?))
        };
        Ok(Layout { schema: relation.stored_schema(), fills: relation.fills.iter().map(fill).collect::<Result<_>>()? })
    }

    /// The same rows with all columns.
    pub fn widen(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if Arc::ptr_eq(rows.schema_ref(), &self.schema) {
            return Ok(rows);
        }
        let count = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        for (at, field) in self.schema.fields().iter().enumerate().skip(columns.len()) {
            columns.push(match self.fills.get(&at) {
                Some(value) => arrow::compute::take(value, &UInt32Array::from_value(0, count), None)?,
                None => new_null_array(field.data_type(), count),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| Error::internal(format!("a stored batch does not fit its relation: {e}")))
    }

    /// Whether rows that lack this column have a value there.
    pub fn can_lack(&self, column: usize) -> bool {
        self.schema.field(column).is_nullable() || self.fills.contains_key(&column)
    }
}

/// An array of one value, as the catalog keeps it: a stored batch in hexadecimal digits.
pub fn value_to_text(value: &ArrayRef) -> Result<String> {
    let rows = RecordBatch::try_new(one_column(value.data_type()), vec![Arc::clone(value)])?;
    Ok(record::encode(&rows)?.bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn value_from_text(text: &str, data_type: &DataType) -> Result<ArrayRef> {
    let digits =
        text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()));
    let bytes: Vec<u8> = digits.collect::<Option<_>>().ok_or_else(|| damaged("the catalog"))?;
    let rows = record::decode_rows(&bytes.into(), &one_column(data_type)).map_err(|_| damaged("the catalog"))?;
    match rows.num_rows() {
        1 => Ok(Arc::clone(rows.column(0))),
        _ => Err(damaged("the catalog")),
    }
}

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", data_type.clone(), true)]))
}

fn damaged(place: &str) -> Error {
    Error::corrupted(format!("the value of an added column in {place} is damaged"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn values_are_kept_as_text() {
        let values: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![-7])),
            Arc::new(StringArray::from(vec![Some("a 'quoted' word")])),
            Arc::new(StringArray::from(vec![None::<&str>])),
        ];
        for value in values {
            let text = value_to_text(&value).unwrap();
            assert_eq!(&value_from_text(&text, value.data_type()).unwrap(), &value);
        }
        assert!(value_from_text("zz", &DataType::Int64).is_err());
        assert!(value_from_text("00", &DataType::Int64).is_err());
    }

    #[test]
    fn older_rows_have_what_was_said_of_them() {
        let old = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let field = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
        let schema = Arc::new(Schema::new(vec![field("a", true), field("b", false), field("c", true)]));
        let layout = Layout { schema, fills: [(1, Arc::new(Int64Array::from(vec![9])) as ArrayRef)].into() };
        let rows = layout.widen(old).unwrap();
        assert_eq!(rows.column(1).as_ref(), &Int64Array::from(vec![9, 9]) as &dyn Array);
        assert_eq!(rows.column(2).null_count(), 2);
        assert!(layout.can_lack(1) && layout.can_lack(2));
    }
}
