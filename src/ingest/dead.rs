//! Dead letters: `name$dead`, a stream beside every relation that takes rows from someone who cannot be told of an error.
//!
//! A row without event time belongs to no window, and one from the far future would move the watermark past all others: neither
//! may enter a stream. What a running query or a source gives may not fit at all ([`super::misfits`]). None of them is lost: they
//! stand here as JSON, with the reason and the time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;

use super::writer::cut;
use crate::catalog::{Column, Kind, Relation};
use crate::copy::dead_letters;
use crate::error::Result;
use crate::log::{self, Rows, Write};
use crate::time::{Micros, TIMESTAMP};

/// What is appended to a relation's name.
pub const DEAD_SUFFIX: &str = "$dead";

/// The dead letters of a stream or table; its id is still to be chosen. It lives and dies with it.
pub fn dead_letter_relation(of: &Relation) -> Relation {
    let column = |name: &str, data_type: DataType, sql_type: &str, comment: &str| Column {
        name: name.to_string(),
        data_type,
        sql_type: sql_type.to_string(),
        nullable: false,
        default: None,
        generated: None,
        identity: None,
        comment: Some(comment.to_string()),
    };
    let columns = vec![
        column("raw", DataType::Utf8, "text", "the row as a JSON object"),
        column("reason", DataType::Utf8, "text", "why it could not enter"),
        column("at", TIMESTAMP, "timestamp without time zone", "when it came"),
    ];
    Relation {
        durability: of.durability,
        parent: Some(of.id),
        comment: Some(format!("rows that could not enter the {} \"{}\"", of.kind.noun(), of.name)),
        schema: of.schema.clone(),
        ..Relation::new(0, format!("{}{DEAD_SUFFIX}", of.name), Kind::Stream, columns)
    }
}

/// Writes of rows to the dead letters, with the reason of each; `columns`: names and types of their values.
pub(super) fn bury(
    dead: &Relation,
    columns: &[Column],
    rows: &RecordBatch,
    reasons: Vec<String>,
    at: Micros,
) -> Result<Vec<Write>> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(dead_letters(columns, rows)?)),
        Arc::new(StringArray::from(reasons)),
        Arc::new(TimestampMicrosecondArray::from_value(at, rows.num_rows())),
    ];
    let (relation, kind, partition) = (dead.id, log::Kind::Append, 0);
    let (event_times, watermark, number) = (None, None, None);
    let write = |rows| Write { relation, partition, kind, rows: Rows::Batch(rows), event_times, watermark, number, checked: 0 };
    Ok(cut(RecordBatch::try_new(dead.schema(), columns)?)?.into_iter().map(write).collect())
}
