//! Dead letters: `name$dead`, a stream beside every stream with a watermark.
//!
//! A row without event time belongs to no window, and one from the far future would move the watermark past all others. Neither
//! may enter the stream, and neither is lost: they stand here as JSON, with the reason and the time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;

use crate::catalog::{Column, Kind, Relation};
use crate::copy::json_rows;
use crate::error::Result;
use crate::time::{Micros, TIMESTAMP};

/// What is appended to a stream's name.
pub const DEAD_SUFFIX: &str = "$dead";

/// The dead letters of a stream; its id is still to be chosen. It lives and dies with it.
pub fn dead_letter_relation(stream: &Relation) -> Relation {
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
        column("reason", DataType::Utf8, "text", "why it is not in the stream"),
        column("at", TIMESTAMP, "timestamp without time zone", "when it came"),
    ];
    Relation {
        durability: stream.durability,
        parent: Some(stream.id),
        comment: Some(format!("rows that could not enter the stream \"{}\"", stream.name)),
        schema: stream.schema.clone(),
        ..Relation::new(0, format!("{}{DEAD_SUFFIX}", stream.name), Kind::Stream, columns)
    }
}

/// Rows of a dead-letter relation.
pub(super) fn dead_letters(
    dead: &Relation,
    columns: &[Column],
    rows: &RecordBatch,
    reasons: Vec<String>,
    at: Micros,
) -> Result<RecordBatch> {
    let raw = json_rows(columns, rows)?;
    let raw: StringArray = raw.iter().map(|json| Some(String::from_utf8_lossy(json))).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(raw),
        Arc::new(StringArray::from(reasons)),
        Arc::new(TimestampMicrosecondArray::from_value(at, rows.num_rows())),
    ];
    Ok(RecordBatch::try_new(dead.schema(), columns)?)
}
