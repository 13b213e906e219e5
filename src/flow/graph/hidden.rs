//! What the log knows of a row besides its values.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::log::Header;

/// The columns that the log gives every row, in the order in which they follow the row's own.
pub const HIDDEN_COLUMNS: [(&str, DataType); 4] = [
    ("_partition", DataType::Int32),
    ("_offset", DataType::Int64),
    ("_commit", DataType::Int64),
    ("_ingested_at", DataType::Timestamp(TimeUnit::Microsecond, None)),
];

/// A stored batch with its hidden columns.
pub fn with_hidden(header: &Header, rows: &RecordBatch) -> RecordBatch {
    let count = rows.num_rows();
    let offset = header.base_offset as i64;
    let hidden: [ArrayRef; 4] = [
        Arc::new(Int32Array::from_value(header.partition as i32, count)),
        Arc::new(Int64Array::from_iter_values(offset..offset + count as i64)),
        Arc::new(Int64Array::from_value(header.commit as i64, count)),
        Arc::new(TimestampMicrosecondArray::from_value(header.commit_time, count)),
    ];
    let fields = HIDDEN_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let schema = Schema::new(rows.schema().fields().iter().cloned().chain(fields).collect::<Vec<_>>());
    let columns = rows.columns().iter().cloned().chain(hidden).collect();
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length under a schema made of them")
}
