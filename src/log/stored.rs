//! The bytes of a commit.
//!
//! ```text
//!   0  format version     1
//!   1  zero               7
//!   8  commit             8
//!  16  commit time        8
//!  24  batches            4
//!  28  watermarks         4
//!  32  producers          4
//!  36  length of changes  4
//!  40  per batch        120: its header (see `record`), 4 bytes kind of place, 4 zero, 8 place
//!      per watermark     16: relation 4, zero 4, time 8
//!      per producer      16: producer 8, sequence 8
//!      changes              : JSON, empty if there are none
//!      CRC-32             4: of all before
//!      zeros up to a multiple of 8
//!      small payloads, each padded to a multiple of 8; their place is their offset from here
//! ```
//!
//! A payload has a checksum of its own, in its batch's header: damage in it leaves the rest of the commit readable.

use bytes::Bytes;

use super::record::{HEADER_BYTES, i64_at, read_header, u32_at, u64_at, write_header};
use super::{CommitId, CommitRecord, Place, StoredBatch};
use crate::error::{Error, Result};

const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 40;
pub(super) const BATCH_BYTES: usize = HEADER_BYTES + 16;
const PAIR_BYTES: usize = 16;

const INLINE: u32 = 0;
const APART: u32 = 1;
const STAGED: u32 = 2;
const GONE: u32 = 3;

pub(super) fn write(commit: &CommitRecord) -> Result<Vec<u8>> {
    let changes = match commit.changes.as_slice() {
        [] => Vec::new(),
        changes => serde_json::to_vec(changes).map_err(|e| Error::internal(format!("a catalog change cannot be stored: {e}")))?,
    };
    let pairs = commit.watermarks.len() + commit.producers.len();
    let inline: usize =
        commit.batches.iter().map(|b| if matches!(b.place, Place::Inline(_)) { b.len as usize + 8 } else { 0 }).sum();
    let mut out =
        Vec::with_capacity(FIXED_BYTES + commit.batches.len() * BATCH_BYTES + pairs * PAIR_BYTES + changes.len() + 16 + inline);
    out.extend_from_slice(&[FORMAT, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&commit.id.to_le_bytes());
    out.extend_from_slice(&commit.time.to_le_bytes());
    for count in [commit.batches.len(), commit.watermarks.len(), commit.producers.len(), changes.len()] {
        let count = u32::try_from(count).map_err(|_| Error::limit_exceeded("a commit is too large to be stored"))?;
        out.extend_from_slice(&count.to_le_bytes());
    }
    let mut payloads = 0u64;
    for batch in &commit.batches {
        write_header(&mut out, &batch.header, batch.len, batch.crc);
        let (kind, place) = match batch.place {
            Place::Inline(_) => (INLINE, payloads),
            Place::Apart(id) => (APART, id),
            Place::Staged(id) => (STAGED, id),
            Place::Gone => (GONE, 0),
        };
        out.extend_from_slice(&u64::from(kind).to_le_bytes());
        out.extend_from_slice(&place.to_le_bytes());
        if kind == INLINE {
            payloads += u64::from(batch.len).next_multiple_of(8);
        }
    }
    for (relation, time) in &commit.watermarks {
        out.extend_from_slice(&u64::from(*relation).to_le_bytes());
        out.extend_from_slice(&time.to_le_bytes());
    }
    for (producer, sequence) in &commit.producers {
        out.extend_from_slice(&producer.to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
    }
    out.extend_from_slice(&changes);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    pad(&mut out);
    for batch in &commit.batches {
        if let Place::Inline(payload) = &batch.place {
            out.extend_from_slice(payload);
            pad(&mut out);
        }
    }
    Ok(out)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Read the value stored for commit `id`. Payloads in it are not checked yet.
pub(super) fn read(id: CommitId, value: &Bytes) -> Result<CommitRecord> {
    let damaged = |what: String| Error::corrupted(format!("stored commit {id} is damaged: {what}"));
    let parsed = parse(value).map_err(damaged)?;
    if parsed.id != id {
        return Err(damaged(format!("it says that it is commit {}", parsed.id)));
    }
    Ok(parsed)
}

fn parse(value: &Bytes) -> Result<CommitRecord, String> {
    let fixed = value.get(..FIXED_BYTES).ok_or("it is too short")?;
    let count = |at| u32_at(fixed, at) as usize;
    let (batches, watermarks, producers, changes) = (count(24), count(28), count(32), count(36));
    let lists =
        batches.checked_mul(BATCH_BYTES).and_then(|n| n.checked_add(watermarks.checked_add(producers)?.checked_mul(PAIR_BYTES)?));
    let end = lists.and_then(|n| n.checked_add(changes)?.checked_add(FIXED_BYTES)).ok_or("its lengths are impossible")?;
    let (head, rest) = value.split_at_checked(end).ok_or("its lengths are impossible")?;
    let crc = rest.get(..4).ok_or("it is cut off")?;
    if crc32fast::hash(head) != u32_at(crc, 0) {
        return Err("its checksum does not match".to_string());
    }
    if head[0] != FORMAT {
        return Err(format!("it has format {}, this version reads format {FORMAT}", head[0]));
    }
    let payloads = value.slice((end + 4).next_multiple_of(8).min(value.len())..);
    let (list, rest) = head[FIXED_BYTES..].split_at(batches * BATCH_BYTES);
    let (list_of_watermarks, rest) = rest.split_at(watermarks * PAIR_BYTES);
    let (list_of_producers, changes) = rest.split_at(producers * PAIR_BYTES);
    Ok(CommitRecord {
        id: u64_at(head, 8),
        time: i64_at(head, 16),
        batches: list.as_chunks::<BATCH_BYTES>().0.iter().map(|entry| parse_batch(entry, &payloads)).collect::<Result<_, _>>()?,
        watermarks: list_of_watermarks.as_chunks::<PAIR_BYTES>().0.iter().map(|p| (u32_at(p, 0), i64_at(p, 8))).collect(),
        producers: list_of_producers.as_chunks::<PAIR_BYTES>().0.iter().map(|p| (u64_at(p, 0), u64_at(p, 8))).collect(),
        changes: if changes.is_empty() {
            Vec::new()
        } else {
            serde_json::from_slice(changes).map_err(|e| format!("its catalog changes: {e}"))?
        },
    })
}

fn parse_batch(entry: &[u8; BATCH_BYTES], payloads: &Bytes) -> Result<StoredBatch, String> {
    let (header, place) = entry.split_at(HEADER_BYTES);
    let header = header.try_into().map_err(|_| "a batch header is cut off")?;
    let (header, len, crc) = read_header(header)?;
    let at = u64_at(place, 8);
    let place = match u32_at(place, 0) {
        INLINE => {
            // A payload that is cut off shows when its checksum is compared; the rest of the commit stays readable.
            let start = usize::try_from(at).unwrap_or(usize::MAX).min(payloads.len());
            Place::Inline(payloads.slice(start..start.saturating_add(len as usize).min(payloads.len())))
        }
        APART => Place::Apart(at),
        STAGED => Place::Staged(at),
        GONE => Place::Gone,
        other => return Err(format!("a batch is at an unknown kind of place ({other})")),
    };
    Ok(StoredBatch { header, len, crc, place })
}

/// A small value with its checksum behind it.
pub(super) fn seal(mut value: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// What [`seal`] was given; `what` names it in the error.
pub(super) fn unseal<'a>(value: &'a [u8], what: &str) -> Result<&'a [u8]> {
    let split = value.split_last_chunk::<4>();
    let intact = split.filter(|(content, crc)| crc32fast::hash(content) == u32::from_le_bytes(**crc));
    intact
        .map(|(content, _)| content)
        .ok_or_else(|| Error::corrupted(format!("the stored {what} is damaged: its checksum does not match")))
}
