//! A table's versions: its keyed records as they came, each with the time from which it holds.
//!
//! ```text
//!   log:       put (1, 'a')        put (1, 'b')        remove 1
//!   versions:  1 'a' from t1       1 'b' from t2       1 - from t3, deleted        the newest that is not after t holds at t
//! ```
//!
//! A version holds from the value of the table's watermark column if it has one, and else from the time of its commit. A row
//! that is removed from a table with a watermark is gone from where that watermark stood before, though not from before the
//! removed row itself. Of versions of one time, the one with the greatest offset counts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};

use crate::log::{Header, Kind};
use crate::time::TIMESTAMP;

/// From when a version holds; NULL where its row has no time.
pub const VERSION: &str = "$version";
/// The version says that there is no such row.
pub const DELETED: &str = "$deleted";

/// The columns behind the table's own, in their order.
pub const HISTORY_COLUMNS: [(&str, DataType); 4] =
    [(VERSION, TIMESTAMP), ("_offset", DataType::Int64), ("_commit", DataType::Int64), (DELETED, DataType::Boolean)];

/// The schema of a table's versions. `table`: of its rows.
pub fn history_schema(table: &Schema) -> SchemaRef {
    // Of a row that was removed, only the key is known.
    let own = table.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let more = HISTORY_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, name == VERSION)));
    Arc::new(Schema::new(own.chain(more).collect::<Vec<_>>()))
}

/// The versions that a stored batch of a table makes. `time`: the table's watermark column.
pub fn versions(header: &Header, rows: &RecordBatch, time: Option<usize>) -> RecordBatch {
    let count = rows.num_rows();
    let first = header.base_offset as i64;
    let more: [ArrayRef; 4] = [
        Arc::new(version_times(header, rows, time)),
        Arc::new(Int64Array::from_iter_values(first..first + count as i64)),
        Arc::new(Int64Array::from_value(header.commit as i64, count)),
        Arc::new(BooleanArray::from(vec![header.kind == Kind::Delete; count])),
    ];
    let columns = rows.columns().iter().cloned().chain(more).collect();
    RecordBatch::try_new(history_schema(rows.schema_ref()), columns).expect("columns of one length under a schema made of them")
}

fn version_times(header: &Header, rows: &RecordBatch, time: Option<usize>) -> TimestampMicrosecondArray {
    let Some(time) = time else { return TimestampMicrosecondArray::from_value(header.commit_time, rows.num_rows()) };
    let times = rows.column(time).as_primitive::<TimestampMicrosecondType>();
    match header.kind {
        Kind::Delete => (0..times.len())
            .map(|row| Some(if times.is_valid(row) { times.value(row).max(header.watermark) } else { header.watermark }))
            .collect(),
        Kind::Append | Kind::Upsert => times.clone(),
    }
}
