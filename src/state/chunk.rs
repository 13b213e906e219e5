//! The bytes of a piece of a state table: an Arrow IPC stream of one batch, its buffers compressed with LZ4.
//!
//! If the rows have weights, they are the last column. Whether they have is said by the first byte, so that a table may have any
//! columns. The checksum of a chunk is kept where the chunk is named, in the manifest.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::limits::CHECKPOINT_CHUNK_BYTES;

const PLAIN: u8 = 0;
const WEIGHTED: u8 = 1;

/// Arrow bytes of a chunk: state compresses to less than half.
const RAW_BYTES: usize = 2 * CHECKPOINT_CHUNK_BYTES;

/// The pieces of a delta that are chunks of their own.
pub(super) fn cut(delta: &Delta) -> impl Iterator<Item = Delta> + '_ {
    let bytes: usize = delta.rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_default()).sum();
    let pieces = bytes.div_ceil(RAW_BYTES).max(1);
    let step = delta.len().div_ceil(pieces).max(1);
    (0..delta.len()).step_by(step).map(move |start| {
        let length = step.min(delta.len() - start);
        Delta { rows: delta.rows.slice(start, length), diff: delta.diff.as_ref().map(|diff| diff.slice(start, length)) }
    })
}

pub(super) fn encode(delta: &Delta) -> Result<Vec<u8>> {
    let rows = match &delta.diff {
        None => delta.rows.clone(),
        Some(diff) => {
            let weight = Arc::new(Field::new("weight", DataType::Int64, false));
            let fields: Vec<_> = delta.rows.schema_ref().fields().iter().cloned().chain([weight]).collect();
            let mut columns = delta.rows.columns().to_vec();
            columns.push(Arc::new(diff.clone()) as ArrayRef);
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?
        }
    };
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let kind = if delta.diff.is_some() { WEIGHTED } else { PLAIN };
    let mut writer = StreamWriter::try_new_with_options(vec![kind], rows.schema_ref(), options)?;
    writer.write(&rows)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// Read what `encode` wrote; the checksum was compared.
pub(super) fn decode(bytes: &[u8]) -> Result<Delta> {
    let damaged = |what: &str| Error::corrupted(format!("a chunk of a checkpoint is damaged: {what}"));
    let (weighted, stream) = match bytes.split_first() {
        Some((&PLAIN, stream)) => (false, stream),
        Some((&WEIGHTED, stream)) => (true, stream),
        _ => return Err(damaged("it is of an unknown kind")),
    };
    let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|e| damaged(&e.to_string()))?;
    let rows = reader.next().ok_or_else(|| damaged("it has no rows"))?.map_err(|e| damaged(&e.to_string()))?;
    if !weighted {
        return Ok(Delta::append(rows));
    }
    let (weights, columns) = rows.columns().split_last().ok_or_else(|| damaged("it has no weights"))?;
    let weights = weights.as_primitive_opt::<Int64Type>().ok_or_else(|| damaged("its weights are no integers"))?.clone();
    let fields = rows.schema().fields()[..columns.len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns.to_vec(), &options)?;
    Ok(Delta::new(rows, weights))
}
