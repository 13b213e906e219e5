//! Rows of a query as rows of a relation: values become the columns' types as PostgreSQL assigns them, columns that the query
//! does not give get their default.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema};

use super::compile::{CompiledRelation, batch};
use crate::catalog::Column;
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::time::Micros;

impl CompiledRelation {
    /// Rows of all columns from those of a query, whose columns are for `targets`. Text is read as `formats` say.
    pub fn assign(&self, targets: &[usize], rows: &RecordBatch, now: Micros, formats: Formats) -> Result<RecordBatch> {
        let columns = &self.relation.columns;
        let cast = |(array, target): (&ArrayRef, &usize)| assign(array, &columns[*target], formats);
        let arrays = rows.columns().iter().zip(targets).map(cast).collect::<Result<Vec<_>>>()?;
        let field = |target: &usize| Field::new(&columns[*target].name, columns[*target].data_type.clone(), true);
        let schema = Arc::new(Schema::new(targets.iter().map(field).collect::<Vec<_>>()));
        self.complete(targets, &batch(schema, arrays, rows.num_rows())?, now)
    }

    /// Values of a query as a column that may not be NULL stores them: of its type, and cut to what that holds.
    pub(super) fn stored_value(&self, column: usize, given: &ArrayRef) -> Result<ArrayRef> {
        let definition = &self.relation.columns[column];
        let value = assign(given, definition, Formats::default())?;
        if value.null_count() > 0 {
            return Err(Error::not_null_violation(format!("null value in column \"{}\"", definition.name)));
        }
        let stored = self.modifiers[column].apply(&value).map_err(|bad| bad.error)?;
        Ok(stored.unwrap_or(value))
    }
}

/// A value for a column of another type, as PostgreSQL assigns it.
pub fn assign(array: &ArrayRef, column: &Column, formats: Formats) -> Result<ArrayRef> {
    if *array.data_type() == column.data_type {
        return Ok(Arc::clone(array));
    }
    let mismatch = || {
        let from = crate::sql::types::sql_type(array.data_type());
        Error::datatype_mismatch(format!(
            "column \"{}\" is of type {} but expression is of type {from}",
            column.name, column.sql_type
        ))
        .with_hint("you will need to rewrite or cast the expression")
    };
    let is_text = matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    // Whatever has a text form goes into a text, but not into what is stored as one.
    let into_text = !is_text && !array.data_type().is_null() && crate::sql::types::is_text(&column.data_type);
    let is_document = ["uuid", "json"].iter().any(|document| column.sql_type.starts_with(document));
    let clock = matches!(
        (array.data_type(), &column.data_type),
        (DataType::Time64(_), DataType::Interval(_)) | (DataType::Interval(_), DataType::Time64(_))
    );
    let possible = is_text || into_text || clock || compute::can_cast_types(array.data_type(), &column.data_type);
    if !possible || (into_text && is_document) || !(into_text || assignable(array.data_type(), &column.data_type)) {
        return Err(mismatch());
    }
    if is_text {
        let text = compute::cast(array, &DataType::Utf8)?;
        let context = || format!("column \"{}\" of type {}", column.name, column.sql_type);
        return crate::copy::from_text(text.as_string(), &column.data_type, formats)
            .map_err(|error| error.with_context(context()));
    }
    let context = |error: Error| error.with_context(format!("column \"{}\" of type {}", column.name, column.sql_type));
    crate::sql::functions::convert::convert(array, &column.data_type, formats).map_err(context)
}

/// Text may be written for anything, because an unknown literal is text; numbers and times among themselves.
fn assignable(from: &DataType, to: &DataType) -> bool {
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_time = |t: &DataType| matches!(t, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _));
    match (from, to) {
        (DataType::Null, _) => true,
        (from, _) if is_text(from) => true,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (from, to) if is_time(from) && is_time(to) => true,
        (DataType::Timestamp(..) | DataType::Interval(_), DataType::Time64(_)) => true,
        (DataType::Time64(_), DataType::Interval(_)) => true,
        (from, to) => std::mem::discriminant(from) == std::mem::discriminant(to),
    }
}
