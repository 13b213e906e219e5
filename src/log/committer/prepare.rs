//! What is done to a transaction on the thread that submits it: encoding, so that the storage thread need not.
//!
//! Small batches are left as they are: the storage thread merges those of several transactions and encodes them as one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::Shared;
use crate::catalog::check::CheckId;
use crate::catalog::{Change, Durability, RelationId};
use crate::error::{Error, Result};
use crate::log::record::{bytes_of, encode_parts};
use crate::log::{Expect, Kind, Place, Rows, Transaction, Write};
use crate::time::Micros;

/// A batch with fewer rows and bytes than these waits to be merged.
const SMALL_ROWS: usize = 1024;
const SMALL_BYTES: usize = 32 << 10;

/// Batches of a commit at most: what is known of them has to fit into one stored value.
pub(super) const COMMIT_BATCHES: usize = 24 << 10;

/// Bytes of catalog changes of a commit at most.
const CHANGES_BYTES: usize = 512 << 10;

const _: () =
    assert!(COMMIT_BATCHES * crate::log::stored::BATCH_BYTES + CHANGES_BYTES < crate::limits::STORED_VALUE_BYTES - (512 << 10));

/// Rows that the store has or soon will have, invisible until a commit names them. Dropped without a commit, they are discarded.
#[derive(Clone, Debug)]
pub struct Staged {
    pub(super) guard: Arc<StageGuard>,
    pub(super) shape: Shape,
    pub(super) parts: Vec<Encoded>,
}

impl Staged {
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.count as usize).sum()
    }

    /// The rows themselves, unless there was so much that they are on the disk only.
    pub fn batches(&self) -> Option<Vec<RecordBatch>> {
        self.parts.iter().map(|part| part.rows.clone()).collect()
    }
}

/// Knows whether staged rows were used, and gives them up if not.
pub(super) struct StageGuard {
    pub(super) ids: Vec<u64>,
    pub(super) used: AtomicBool,
    /// Bytes of rows that are kept in memory for the tail.
    pub(super) kept: usize,
    pub(super) shared: Weak<Shared>,
}

impl std::fmt::Debug for StageGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StageGuard").field(&self.ids).finish()
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.kept.fetch_sub(self.kept, Ordering::Relaxed);
        if !self.used.load(Ordering::Acquire) {
            shared.discard(std::mem::take(&mut self.ids));
        }
    }
}

/// What has to agree with the relation's stored schema.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// Per column.
    pub(super) has_nulls: Vec<bool>,
}

impl Shape {
    pub(super) fn of(rows: &RecordBatch) -> Shape {
        Shape { schema: rows.schema(), has_nulls: rows.columns().iter().map(|c| c.null_count() > 0).collect() }
    }
}

/// A batch that is encoded.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) count: u32,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) place: Place,
    /// For the tail, unless too much is staged.
    pub(super) rows: Option<RecordBatch>,
}

impl Encoded {
    /// Bytes that the store is still to be given.
    fn pending(&self) -> usize {
        if matches!(self.place, Place::Inline(_)) { self.len as usize } else { 0 }
    }
}

#[derive(Debug)]
pub(super) enum Part {
    Small(RecordBatch, usize),
    Encoded(Encoded),
}

impl Part {
    pub(super) fn rows(&self) -> usize {
        match self {
            Part::Small(rows, _) => rows.num_rows(),
            Part::Encoded(encoded) => encoded.count as usize,
        }
    }

    fn pending(&self) -> usize {
        match self {
            Part::Small(_, bytes) => *bytes,
            Part::Encoded(encoded) => encoded.pending(),
        }
    }
}

#[derive(Debug)]
pub(super) struct PreparedWrite {
    pub(super) relation: RelationId,
    pub(super) partition: u32,
    pub(super) kind: Kind,
    pub(super) event_times: Option<(Micros, Micros)>,
    pub(super) watermark: Option<Micros>,
    pub(super) number: Option<i64>,
    pub(super) checked: CheckId,
    pub(super) shape: Shape,
    pub(super) parts: Vec<Part>,
}

/// A transaction whose large batches are encoded.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) writes: Vec<PreparedWrite>,
    pub(super) changes: Vec<Change>,
    pub(super) marks: Vec<(RelationId, Micros)>,
    pub(super) expect: Option<Expect>,
    pub(super) producer: Option<(u64, u64)>,
    pub(super) durability: Durability,
    /// Bytes that the store will be given.
    pub(super) bytes: usize,
    pub(super) batches: usize,
}

impl Prepared {
    /// Payloads that have to be discarded if this transaction fails.
    pub(super) fn staged_ids(&self) -> Vec<u64> {
        let parts = self.writes.iter().flat_map(|write| &write.parts);
        let id = |part: &Part| match part {
            Part::Encoded(Encoded { place: Place::Staged(id), .. }) => Some(*id),
            _ => None,
        };
        parts.filter_map(id).collect()
    }

    /// Payloads to be handed over before the commit, of a transaction that is too large for one group.
    pub(super) fn encoded_mut(&mut self) -> impl Iterator<Item = &mut Encoded> {
        let parts = self.writes.iter_mut().flat_map(|write| &mut write.parts);
        parts.filter_map(|part| match part {
            Part::Encoded(encoded) if encoded.pending() > 0 => Some(encoded),
            _ => None,
        })
    }
}

pub(super) fn prepare(transaction: Transaction) -> Result<Prepared> {
    let Transaction { writes, changes, marks, expect, producer, durability } = transaction;
    check_changes(&changes)?;
    let writes = writes.into_iter().map(prepare_write).collect::<Result<Vec<_>>>()?;
    let parts = || writes.iter().flat_map(|write| &write.parts);
    let (bytes, batches) = (parts().map(Part::pending).sum(), parts().count());
    if batches > COMMIT_BATCHES {
        return Err(Error::limit_exceeded(format!(
            "a transaction of {batches} batches is too large: a commit may have {COMMIT_BATCHES}"
        ))
        .with_hint("write it in several transactions"));
    }
    Ok(Prepared { writes, changes, marks, expect, producer, durability, bytes, batches })
}

fn check_changes(changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_vec(changes).map_err(|e| Error::internal(format!("a catalog change cannot be stored: {e}")))?;
    if json.len() > CHANGES_BYTES {
        let (size, bound) = (json.len() >> 10, CHANGES_BYTES >> 10);
        return Err(Error::limit_exceeded(format!(
            "a definition of {size} KiB is too large: the catalog takes {bound} KiB at once"
        )));
    }
    Ok(())
}

fn prepare_write(write: Write) -> Result<PreparedWrite> {
    let Write { relation, partition, kind, rows, event_times, watermark, number, checked } = write;
    let (shape, parts) = match rows {
        Rows::Batch(rows) => (Shape::of(&rows), prepare_rows(rows)?),
        Rows::Staged(staged) => {
            if staged.guard.used.swap(true, Ordering::AcqRel) {
                return Err(Error::internal("staged rows are committed once"));
            }
            (staged.shape, staged.parts.into_iter().map(Part::Encoded).collect())
        }
    };
    Ok(PreparedWrite { relation, partition, kind, event_times, watermark, number, checked, shape, parts })
}

fn prepare_rows(rows: RecordBatch) -> Result<Vec<Part>> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    if rows.num_rows() < SMALL_ROWS {
        let bytes = bytes_of(&rows);
        if bytes < SMALL_BYTES {
            return Ok(vec![Part::Small(rows, bytes)]);
        }
    }
    Ok(encode_rows(&rows)?.into_iter().map(Part::Encoded).collect())
}

pub(super) fn encode_rows(rows: &RecordBatch) -> Result<Vec<Encoded>> {
    let encoded = encode_parts(rows)?.into_iter().map(|(rows, payload)| Encoded {
        count: rows.num_rows() as u32,
        len: payload.bytes.len() as u32,
        crc: payload.crc,
        place: Place::Inline(payload.bytes),
        rows: Some(rows),
    });
    Ok(encoded.collect())
}
