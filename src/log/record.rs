//! The bytes of a stored batch.
//!
//! A batch is a header of fixed size and a payload. The header lies in the value of its commit ([`super::stored`]); the payload
//! lies there too if it is small, or in a value of its own. All numbers are little endian.
//!
//! ```text
//!  header                                         payload: an encapsulated Arrow IPC message without its schema
//!    0  format version    1                         0  ff ff ff ff
//!    1  kind              1  append, upsert, delete   4  length of the metadata, padded   4
//!    2  columns           2                         8  metadata: a flatbuffer `Message` of a `RecordBatch`
//!    4  rows              4                            zeros up to a multiple of 8
//!    8  relation          4                            body: the buffers, each LZ4 (frame) if that is shorter
//!   12  partition         4
//!   16  base offset       8
//!   24  commit            8
//!   32  commit time       8
//!   40  watermark before  8
//!   48  least event time  8
//!   56  greatest          8
//!   64  producer          8
//!   72  its sequence      8
//!   80  what is there     4  bit 0: event times; bit 1: producer
//!   84  zero              8
//!   92  payload length    4
//!   96  payload CRC-32    4
//!  100  header CRC-32     4  of the bytes before
//! ```
//!
//! Invariants: a checksum is compared before anything it covers is used. No length that is read is trusted: what would make a
//! decoder allocate or index out of bounds is refused here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, GenericByteViewArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType, FieldRef, Schema, SchemaRef};
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, MetadataVersion, root_as_message};
use bytes::Bytes;

use super::{CommitId, Position};
use crate::catalog::RelationId;
use crate::error::{Error, Result};
use crate::limits;
use crate::time::Micros;

/// What the rows of a batch do to their relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows of a stream.
    Append,
    /// Rows of a table that replace those of the same key.
    Upsert,
    /// Rows of a table that are gone; only the key's columns count.
    Delete,
}

/// What is known of a batch without decoding it. Together with the rows it holds all that can influence a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub relation: RelationId,
    pub partition: u32,
    /// Offset of the first row; the others follow without a gap.
    pub base_offset: u64,
    pub rows: u32,
    /// Columns stored: a relation that has gained columns since has more.
    pub columns: u16,
    pub kind: Kind,
    pub commit: CommitId,
    /// Ingestion time of all rows.
    pub commit_time: Micros,
    /// The relation's watermark *before* this commit ([`crate::time::NO_TIME`] if it had none): what lateness is judged by.
    pub watermark: Micros,
    pub event_times: Option<(Micros, Micros)>,
    /// Where all rows are of one producer: it and its sequence number.
    pub producer: Option<(u64, u64)>,
}

impl Header {
    pub fn position(&self) -> Position {
        Position { relation: self.relation, partition: self.partition, base_offset: self.base_offset }
    }

    /// The offset after the last row.
    pub fn next_offset(&self) -> u64 {
        self.base_offset + u64::from(self.rows)
    }
}

/// As messages name a batch.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.next_offset().saturating_sub(1);
        write!(f, "relation {}, partition {}, offsets {} to {last}", self.relation, self.partition, self.base_offset)
    }
}

/// The rows of a batch, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub bytes: Bytes,
    pub crc: u32,
}

const FORMAT: u8 = 1;
pub(super) const HEADER_BYTES: usize = 104;
const HAS_EVENT_TIMES: u32 = 1;
const HAS_PRODUCER: u32 = 2;

const CONTINUATION: [u8; 4] = [0xff; 4];
const PREFIX_BYTES: usize = 8;
const ALIGNMENT: usize = 8;

/// Below this, compression costs more than it saves: a compressor is set up per buffer.
const COMPRESS_FROM_BYTES: usize = 4096;

/// What LZ4 makes of one byte at most. A payload that claims more is damaged.
const EXPANSION: usize = 255;

/// Write a header, with the length and checksum of its payload.
pub(super) fn write_header(out: &mut Vec<u8>, header: &Header, payload_len: u32, payload_crc: u32) {
    let start = out.len();
    let kind = match header.kind {
        Kind::Append => 0,
        Kind::Upsert => 1,
        Kind::Delete => 2,
    };
    let (least, greatest) = header.event_times.unwrap_or_default();
    let (producer, sequence) = header.producer.unwrap_or_default();
    let mut present = 0;
    if header.event_times.is_some() {
        present |= HAS_EVENT_TIMES;
    }
    if header.producer.is_some() {
        present |= HAS_PRODUCER;
    }
    out.extend_from_slice(&[FORMAT, kind]);
    out.extend_from_slice(&header.columns.to_le_bytes());
    out.extend_from_slice(&header.rows.to_le_bytes());
    out.extend_from_slice(&header.relation.to_le_bytes());
    out.extend_from_slice(&header.partition.to_le_bytes());
    out.extend_from_slice(&header.base_offset.to_le_bytes());
    out.extend_from_slice(&header.commit.to_le_bytes());
    for time in [header.commit_time, header.watermark, least, greatest] {
        out.extend_from_slice(&time.to_le_bytes());
    }
    out.extend_from_slice(&producer.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&present.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&payload_len.to_le_bytes());
    out.extend_from_slice(&payload_crc.to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    debug_assert_eq!(out.len() - start, HEADER_BYTES);
}

/// Read a header: it, the length and the checksum of its payload. The error says what is wrong, not where.
pub(super) fn read_header(bytes: &[u8; HEADER_BYTES]) -> Result<(Header, u32, u32), String> {
    let (checked, crc) = bytes.split_at(HEADER_BYTES - 4);
    if crc32fast::hash(checked) != u32_at(crc, 0) {
        return Err("the checksum of a batch header does not match".to_string());
    }
    if bytes[0] != FORMAT {
        return Err(format!("a batch has format {}, this version reads format {FORMAT}", bytes[0]));
    }
    let kind = match bytes[1] {
        0 => Kind::Append,
        1 => Kind::Upsert,
        2 => Kind::Delete,
        other => return Err(format!("a batch is of unknown kind {other}")),
    };
    let present = u32_at(bytes, 80);
    let header = Header {
        relation: u32_at(bytes, 8),
        partition: u32_at(bytes, 12),
        base_offset: u64_at(bytes, 16),
        rows: u32_at(bytes, 4),
        columns: u16::from_le_bytes([bytes[2], bytes[3]]),
        kind,
        commit: u64_at(bytes, 24),
        commit_time: i64_at(bytes, 32),
        watermark: i64_at(bytes, 40),
        event_times: (present & HAS_EVENT_TIMES != 0).then(|| (i64_at(bytes, 48), i64_at(bytes, 56))),
        producer: (present & HAS_PRODUCER != 0).then(|| (u64_at(bytes, 64), u64_at(bytes, 72))),
    };
    if header.base_offset.checked_add(u64::from(header.rows)).is_none() {
        return Err("a batch ends after the last possible offset".to_string());
    }
    Ok((header, u32_at(bytes, 92), u32_at(bytes, 96)))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Bytes of the rows as Arrow holds them, without what their buffers share with others.
pub(super) fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

/// Encode rows. The result may exceed [`limits::STORED_VALUE_BYTES`]; see [`encode_parts`].
pub fn encode(rows: &RecordBatch) -> Result<Payload> {
    thread_local! {
        /// Keeps the flatbuffer builder's memory from batch to batch.
        static CONTEXT: RefCell<IpcWriteContext> = RefCell::default();
    }
    let rows = &compact(rows)?;
    let compression = (bytes_of(rows) >= COMPRESS_FROM_BYTES).then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?.try_with_compression(compression)?;
    let mut dictionaries = DictionaryTracker::new(false);
    let (of_dictionaries, encoded) =
        CONTEXT.with_borrow_mut(|context| IpcDataGenerator::default().encode(rows, &mut dictionaries, &options, context))?;
    if !of_dictionaries.is_empty() {
        return Err(Error::internal("dictionary-encoded columns are not stored: cast them to their values first"));
    }
    let metadata = encoded.ipc_message.len().next_multiple_of(ALIGNMENT);
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + metadata + encoded.arrow_data.len());
    bytes.extend_from_slice(&CONTINUATION);
    bytes.extend_from_slice(&(metadata as u32).to_le_bytes());
    bytes.extend_from_slice(&encoded.ipc_message);
    bytes.resize(PREFIX_BYTES + metadata, 0);
    bytes.extend_from_slice(&encoded.arrow_data);
    Ok(Payload { crc: crc32fast::hash(&bytes), bytes: bytes.into() })
}

/// View columns share buffers with what they were cut from, and would store all of them.
fn compact(rows: &RecordBatch) -> Result<RecordBatch> {
    fn wasteful<T: ByteViewType>(column: &GenericByteViewArray<T>) -> bool {
        column.data_buffers().iter().map(Buffer::len).sum::<usize>() > 2 * column.total_buffer_bytes_used()
    }
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View if wasteful(column.as_string_view()) => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView if wasteful(column.as_binary_view()) => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), rows.columns().iter().map(compact).collect(), &options)?)
}

/// Encode rows as as many batches as the bounds on rows and bytes ask for. A single row that is too large is refused.
pub(super) fn encode_parts(rows: &RecordBatch) -> Result<Vec<(RecordBatch, Payload)>> {
    let total = rows.num_rows();
    let pieces = bytes_of(rows).div_ceil(limits::BATCH_BYTES).max(total.div_ceil(limits::BATCH_ROWS)).clamp(1, total.max(1));
    let step = total.div_ceil(pieces).max(1);
    let mut parts = Vec::with_capacity(pieces);
    for start in (0..total).step_by(step) {
        encode_piece(rows.slice(start, step.min(total - start)), &mut parts)?;
    }
    Ok(parts)
}

/// Halves until the encoding fits: the rows may differ in size.
fn encode_piece(rows: RecordBatch, parts: &mut Vec<(RecordBatch, Payload)>) -> Result<()> {
    let payload = encode(&rows)?;
    let count = rows.num_rows();
    if payload.bytes.len() <= limits::STORED_VALUE_BYTES {
        parts.push((rows, payload));
        return Ok(());
    }
    if count <= 1 {
        let (size, bound) = (payload.bytes.len(), limits::STORED_VALUE_BYTES);
        return Err(Error::limit_exceeded(format!("a row of {size} bytes is too large: a stored row may have {bound} bytes"))
            .with_hint("split the value over several rows, or store it elsewhere and keep a reference"));
    }
    encode_piece(rows.slice(0, count / 2), parts)?;
    encode_piece(rows.slice(count / 2, count - count / 2), parts)
}

/// Decode a payload whose checksum was compared: the columns of `schema` that its relation had then.
pub fn decode(header: &Header, payload: &Bytes, schema: &SchemaRef) -> Result<RecordBatch> {
    let damaged = |what: String| Error::corrupted(format!("the stored batch of {header} is damaged: {what}"));
    let columns = usize::from(header.columns);
    let Some(fields) = schema.fields().get(..columns) else {
        let has = schema.fields().len();
        return Err(damaged(format!("it has {columns} columns and its relation {has}")));
    };
    let stored = if columns == schema.fields().len() { schema.clone() } else { Arc::new(Schema::new(fields.to_vec())) };
    // Arrow asserts some things (alignment, numbers of buffers) that only a payload written wrongly can break.
    let read = catch_unwind(AssertUnwindSafe(|| read_message(payload, &stored)));
    let rows = read.unwrap_or_else(|_| Err("its encoding is inconsistent".to_string())).map_err(damaged)?;
    if rows.num_rows() != header.rows as usize {
        return Err(damaged(format!("it has {} rows instead of {}", rows.num_rows(), header.rows)));
    }
    Ok(rows)
}

/// The rows of a payload that has no header.
pub(super) fn decode_rows(payload: &Bytes, schema: &SchemaRef) -> Result<RecordBatch> {
    let read = catch_unwind(AssertUnwindSafe(|| read_message(payload, schema)));
    read.unwrap_or_else(|_| Err("its encoding is inconsistent".to_string())).map_err(Error::corrupted)
}

fn read_message(payload: &Bytes, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let prefix = payload.get(..PREFIX_BYTES).ok_or("it is too short")?;
    if prefix[..4] != CONTINUATION {
        return Err("it is no Arrow message".to_string());
    }
    let body_start = PREFIX_BYTES + u32_at(prefix, 4) as usize;
    let metadata = payload.get(PREFIX_BYTES..body_start).ok_or("its metadata is cut off")?;
    let message = root_as_message(metadata).map_err(|e| format!("its metadata is invalid: {e}"))?;
    let batch = message.header_as_record_batch().ok_or("it is no record batch")?;
    let body = payload.slice(body_start..);
    check_lengths(&batch, &body, schema)?;
    let dictionaries = HashMap::new();
    let body = Buffer::from(body);
    let decoder = RecordBatchDecoder::try_new(&body, batch, schema.clone(), &dictionaries, &MetadataVersion::V5);
    decoder.and_then(RecordBatchDecoder::read_record_batch).map_err(|e| e.to_string())
}

/// Refuse what would make the decoder allocate or index by a wrong number.
fn check_lengths(batch: &arrow::ipc::RecordBatch<'_>, body: &[u8], schema: &Schema) -> Result<(), String> {
    let nodes = batch.nodes().ok_or("it has no columns")?;
    let buffers = batch.buffers().ok_or("it has no buffers")?;
    let small = |n: i64| (0..=i64::from(i32::MAX)).contains(&n);
    if !small(batch.length()) || nodes.iter().any(|n| !small(n.length()) || !(0..=n.length()).contains(&n.null_count())) {
        return Err("a column's length is impossible".to_string());
    }
    let mut decoded = 0usize;
    for buffer in buffers {
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
        let bytes = bytes.ok_or("a buffer lies outside of it")?;
        if batch.compression().is_some() && !bytes.is_empty() {
            let declared = bytes.get(..8).map(|b| i64_at(b, 0)).ok_or("a compressed buffer is cut off")?;
            // -1 says that the buffer is not compressed after all.
            let size = if declared == -1 {
                bytes.len()
            } else {
                usize::try_from(declared).map_err(|_| "a buffer's length is negative")?
            };
            decoded = decoded.saturating_add(size);
        }
    }
    if decoded > body.len().saturating_mul(EXPANSION) {
        return Err("its buffers claim more bytes than it can hold".to_string());
    }
    let views = batch.variadicBufferCounts().map_or(0, |counts| counts.len());
    if views != schema.fields().iter().map(view_columns).sum::<usize>() {
        return Err("its columns are not those of its relation".to_string());
    }
    if batch.variadicBufferCounts().into_iter().flatten().any(|count| count < 0 || count > buffers.len() as i64) {
        return Err("a column's number of buffers is impossible".to_string());
    }
    Ok(())
}

/// Columns of a view type, children included: the only ones with a variable number of buffers.
fn view_columns(field: &FieldRef) -> usize {
    match field.data_type() {
        DataType::Utf8View | DataType::BinaryView => 1,
        DataType::Struct(fields) => fields.iter().map(view_columns).sum(),
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) | DataType::Map(child, _) => {
            view_columns(child)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, ListArray, StringArray, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    fn header(rows: &RecordBatch) -> Header {
        Header {
            relation: 16384,
            partition: 3,
            base_offset: 1000,
            rows: rows.num_rows() as u32,
            columns: rows.num_columns() as u16,
            kind: Kind::Append,
            commit: 7,
            commit_time: 1_700_000_000_000_000,
            watermark: crate::time::NO_TIME,
            event_times: Some((-5, 5)),
            producer: None,
        }
    }

    fn batch(rows: usize) -> RecordBatch {
        let ids = Int64Array::from_iter_values(0..rows as i64);
        let names = StringArray::from_iter((0..rows).map(|i| (i % 3 != 0).then(|| format!("name {}", i % 17))));
        let views = StringViewArray::from_iter_values((0..rows).map(|i| format!("a value that is longer than twelve bytes {i}")));
        let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|i| i as i64 * 1_000_000));
        let sums = Decimal128Array::from_iter_values((0..rows).map(|i| i as i128 * 7)).with_precision_and_scale(10, 2).unwrap();
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(
            (0..rows).map(|i| Some(vec![Some(i as i64); i % 4])),
        );
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(ids)),
            ("name", Arc::new(names)),
            ("view", Arc::new(views)),
            ("at", Arc::new(times)),
            ("sum", Arc::new(sums)),
            ("list", Arc::new(lists)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    }

    #[rstest::rstest]
    #[case::none(0)]
    #[case::one(1)]
    #[case::uncompressed(20)]
    #[case::compressed(5000)]
    fn what_is_encoded_is_decoded(#[case] rows: usize) {
        let rows = batch(rows);
        let payload = encode(&rows).unwrap();
        assert_eq!(decode(&header(&rows), &payload.bytes, &rows.schema()).unwrap(), rows);
    }

    #[test]
    fn a_slice_stores_only_its_rows() {
        let rows = batch(8000);
        let slice = rows.slice(4000, 10);
        let payload = encode(&slice).unwrap();
        assert!(payload.bytes.len() < 4000, "{} bytes for ten rows", payload.bytes.len());
        assert_eq!(decode(&header(&slice), &payload.bytes, &rows.schema()).unwrap(), slice);
    }

    #[test]
    fn columns_gained_since_are_null() {
        let rows = batch(10);
        let payload = encode(&rows).unwrap();
        let mut fields = rows.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("later", DataType::Utf8, true)));
        let read = decode(&header(&rows), &payload.bytes, &Arc::new(Schema::new(fields))).unwrap();
        assert_eq!(read, rows, "as it was stored");
    }

    #[test]
    fn a_header_survives_and_shows_damage() {
        let rows = batch(10);
        for event_times in [None, Some((i64::MIN, i64::MAX))] {
            for producer in [None, Some((u64::MAX, 1))] {
                for kind in [Kind::Append, Kind::Upsert, Kind::Delete] {
                    let header = Header { event_times, producer, kind, ..header(&rows) };
                    let mut bytes = Vec::new();
                    write_header(&mut bytes, &header, 17, 99);
                    let mut bytes: [u8; HEADER_BYTES] = bytes.try_into().unwrap();
                    assert_eq!(read_header(&bytes).unwrap(), (header, 17, 99));
                    for at in 0..HEADER_BYTES {
                        bytes[at] ^= 0x10;
                        assert!(read_header(&bytes).is_err(), "byte {at}");
                        bytes[at] ^= 0x10;
                    }
                }
            }
        }
    }

    /// Damage that the checksum did not catch must be an error or other rows, never a panic.
    #[test]
    fn damaged_payloads_do_not_panic() {
        let mut random = SmallRng::seed_from_u64(1);
        for rows in [batch(3), batch(2000)] {
            let payload = encode(&rows).unwrap().bytes;
            let header = header(&rows);
            for cut in [0, 1, 7, 8, 9, 100, payload.len() / 2, payload.len() - 100] {
                assert!(read_message(&payload.slice(..cut), &rows.schema()).is_err());
            }
            for _ in 0..2000 {
                let mut damaged = payload.to_vec();
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..damaged.len().min(600));
                    damaged[at] = random.random();
                }
                let _ = decode(&header, &damaged.into(), &rows.schema());
            }
        }
    }

    #[test]
    fn large_batches_are_cut_and_too_large_rows_refused() {
        let mut random = SmallRng::seed_from_u64(2);
        let mut noise = |bytes: usize| -> String { (0..bytes).map(|_| char::from(random.random_range(33..127u8))).collect() };
        let values: Vec<String> = (0..12).map(|_| noise(900_000)).collect();
        let rows = RecordBatch::try_from_iter([("v", Arc::new(StringArray::from(values)) as ArrayRef)]).unwrap();
        let parts = encode_parts(&rows).unwrap();
        assert!(parts.iter().all(|(_, p)| p.bytes.len() <= limits::STORED_VALUE_BYTES));
        assert_eq!(arrow::compute::concat_batches(&rows.schema(), parts.iter().map(|(rows, _)| rows)).unwrap(), rows);

        let rows = RecordBatch::try_from_iter([("v", Arc::new(StringArray::from(vec![noise(6 << 20)])) as ArrayRef)]).unwrap();
        assert_eq!(encode_parts(&rows).unwrap_err().state().code(), "54000");

        let rows = batch(20_000);
        let parts = encode_parts(&rows).unwrap();
        assert!(parts.iter().all(|(rows, _)| rows.num_rows() <= limits::BATCH_ROWS));
        assert_eq!(parts.iter().map(|(rows, _)| rows.num_rows()).sum::<usize>(), 20_000);
    }
}
