//! The log: the only truth.
//!
//! A **commit** is an atomic, numbered set of record batches over any relations and partitions, with its commit time, the
//! watermarks it reaches and the catalog changes it makes. All writers meet in one committer, which merges the transactions
//! that wait into one commit and acknowledges them after one flush. The number of a commit is the version of everything.
//!
//! ```text
//!   Transaction ─┐
//!   Transaction ─┼─► committer (one thread): number, offsets, watermarks ─► Log: append, flush ─► acknowledge, tail
//!   Transaction ─┘
//! ```
//!
//! * [`record`]: the bytes of a stored batch; [`layout`]: its columns, and those it came too early for; [`stored`]: the bytes of a
//!   commit.
//! * [`Log`], [`LogReader`]: what a store must do. [`store`] does it over ordered key-value pairs, which [`memory`] and [`sled`]
//!   keep; [`sled_recovery`] mends what sled leaves behind; [`datadir`] and [`position`] are the files beside them.
//! * [`committer`]: the group commit, and [`LogHandle`], which the rest of the house uses.
//!
//! Invariants: offsets of a partition start at 0, have no gaps and never change. Commit numbers start at 1 and have no gaps;
//! commit times never go back. A relation's watermark never goes back. What was acknowledged under `Durability::Commit` is on
//! disk. Nothing read back is used before its checksum was compared.

pub mod committer;
pub mod datadir;
pub mod layout;
pub mod memory;
pub mod position;
pub mod record;
pub mod sled;
pub mod sled_recovery;
pub mod store;
pub mod stored;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::catalog::check::CheckId;
use crate::catalog::{Change, Durability, RelationId};
use crate::error::{Error, Result};
use crate::time::Micros;

pub use committer::{Ack, LogHandle, Options, Staged};
pub use record::{Header, Kind};

/// Number of a commit. The first is 1; 0 is the empty log.
pub type CommitId = u64;

/// The producer under which a relation's source or query commits. Those below are the users' own.
pub fn producer_of(relation: RelationId) -> u64 {
    (1 << 63) | u64::from(relation)
}

/// The producer under which a query that waits for time to pass says which moment has come.
pub fn waiting_producer_of(relation: RelationId) -> u64 {
    (3 << 62) | u64::from(relation)
}

/// What a writer wants to happen, wholly or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub writes: Vec<Write>,
    pub changes: Vec<Change>,
    /// Watermarks that time has brought, without rows (idle marks).
    pub marks: Vec<(RelationId, Micros)>,
    /// Fail with 40001 if one of these relations (or, with `changes`, the catalog) was changed after the commit given.
    pub expect: Option<Expect>,
    /// Producer and its sequence number: a second transaction with a sequence not above the last is acknowledged as a
    /// duplicate and writes nothing.
    pub producer: Option<(u64, u64)>,
    pub durability: Durability,
}

#[derive(Clone, Debug)]
pub struct Expect {
    pub unchanged_since: CommitId,
    pub relations: Vec<RelationId>,
    pub catalog: bool,
}

/// Rows for one partition of one relation.
#[derive(Clone, Debug)]
pub struct Write {
    pub relation: RelationId,
    pub partition: u32,
    pub kind: Kind,
    pub rows: Rows,
    /// Smallest and greatest event time of the rows, where the relation has event time.
    pub event_times: Option<(Micros, Micros)>,
    /// Greatest value of the watermark expression over the rows.
    pub watermark: Option<Micros>,
    /// Greatest value of the column that numbers the relation's rows, where there is one ([`crate::catalog::Identity`]).
    pub number: Option<i64>,
    /// The newest CHECK of the relation that its writer knew ([`crate::catalog::check`]); 0: of none.
    pub checked: CheckId,
}

#[derive(Clone, Debug)]
pub enum Rows {
    /// Of the relation's stored schema; the committer encodes them.
    Batch(RecordBatch),
    /// Handed to the store before by [`LogHandle::stage`]: bulk loads are on their way to the disk before they commit.
    Staged(Staged),
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub commit: CommitId,
    pub time: Micros,
    /// First offset of each write, in the transaction's order.
    pub offsets: Vec<u64>,
    /// It was written before; nothing was written now.
    pub duplicate: bool,
}

/// A commit as readers get it.
#[derive(Clone, Debug)]
pub struct Commit {
    pub id: CommitId,
    pub time: Micros,
    /// In the order in which they were written.
    pub batches: Vec<LogBatch>,
    /// Watermarks after this commit, of the relations whose watermark it moved.
    pub watermarks: Vec<(RelationId, Micros)>,
    pub changes: Vec<Change>,
    /// Relations whose rows in this commit could not be read back, and why. All others are complete.
    pub damaged: Vec<(RelationId, Error)>,
}

impl Commit {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|b| b.rows.num_rows()).sum()
    }
}

/// A decoded batch and where it stands.
#[derive(Clone, Debug)]
pub struct LogBatch {
    pub header: Header,
    pub rows: RecordBatch,
}

/// A commit as stored: all of it but large payloads.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitRecord {
    pub id: CommitId,
    pub time: Micros,
    /// In the order in which they were written.
    pub batches: Vec<StoredBatch>,
    /// Watermarks after this commit, of the relations whose watermark it moved.
    pub watermarks: Vec<(RelationId, Micros)>,
    /// Producers that wrote in it, and their last sequence numbers.
    pub producers: Vec<(u64, u64)>,
    pub changes: Vec<Change>,
}

/// A batch as stored: what is known of it, and where its payload is.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBatch {
    pub header: Header,
    /// Length and CRC-32 of the payload.
    pub len: u32,
    pub crc: u32,
    pub place: Place,
}

/// Where a payload is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// With the commit. Given to [`Log::append`], the store may find a place of its own for it.
    Inline(Bytes),
    /// In a value of its own.
    Apart(u64),
    /// Staged under this id before the commit.
    Staged(u64),
    /// Nowhere: its relation was dropped.
    Gone,
}

/// Where a stored batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub relation: RelationId,
    pub partition: u32,
    pub base_offset: u64,
}

/// The watermarks of these relations after a commit. Looks back from there until each was seen to move.
pub fn watermarks_at(
    log: &dyn LogReader,
    relations: &[RelationId],
    commit: CommitId,
) -> Result<HashMap<RelationId, Micros, ahash::RandomState>> {
    const PORTION: CommitId = 1024;
    let mut found = HashMap::default();
    let mut before = commit + 1;
    while before > 1 && found.len() < relations.len() {
        let from = before.saturating_sub(PORTION).max(1);
        for commit in log.commits(from, (before - from) as usize)?.iter().rev() {
            for (relation, watermark) in commit.watermarks.iter().filter(|(relation, _)| relations.contains(relation)) {
                found.entry(*relation).or_insert(*watermark);
            }
        }
        before = from;
    }
    Ok(found)
}

/// How far a relation has come: what the committer needs to go on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Next offset per partition.
    pub next_offsets: Vec<u64>,
    pub watermark: Option<Micros>,
    /// Last commit that touched it.
    pub commit: CommitId,
}

/// The writing side of a store. One thread owns it.
///
/// `append` and `stage` may buffer; nothing of them survives a power cut before `flush` returns, and a commit is seen after a
/// restart either whole or not at all.
pub trait Log: Send {
    /// All of the next commit. What it says of heads and producers is derived from it.
    fn append(&mut self, commit: CommitRecord) -> Result<()>;

    /// This id and those above it were never given to `stage`.
    fn next_stage_id(&self) -> u64;

    /// Keep a payload under an id of the caller's until a record names it.
    fn stage(&mut self, id: u64, payload: &Bytes) -> Result<()>;

    fn discard(&mut self, id: u64) -> Result<()>;

    /// Remove payloads and index entries of a relation that was dropped, about `limit` batches of it, and its head at the end.
    /// True: nothing of it is left.
    fn purge(&mut self, relation: RelationId, limit: usize) -> Result<bool>;

    /// Everything so far is on disk when this returns.
    fn flush(&mut self) -> Result<()>;

    /// Bytes taken since the last flush.
    fn unflushed(&self) -> usize;

    fn reader(&self) -> Arc<dyn LogReader>;
}

/// The reading side of a store; cheap to share. Every value is compared with its checksum before it is returned, and damage is
/// an error of state XX001 that names relation, partition and offset.
pub trait LogReader: Send + Sync {
    /// The last commit that is stored, 0 for none.
    fn last_commit(&self) -> Result<CommitId>;

    /// Commits `from..`, in order, at most `limit`.
    fn commits(&self, from: CommitId, limit: usize) -> Result<Vec<CommitRecord>>;

    /// The payload of a batch. An error of state XX001 names the batch.
    fn payload(&self, batch: &StoredBatch) -> Result<Bytes>;

    /// Batches of a partition from the one that contains `offset` on, at most `limit`. Damage fails only what it hits.
    fn batches(&self, relation: RelationId, partition: u32, offset: u64, limit: usize) -> Result<Vec<Result<StoredBatch>>>;

    fn heads(&self) -> Result<Vec<(RelationId, Head)>>;

    fn producers(&self) -> Result<Vec<(u64, u64)>>;

    /// All catalog changes, in the order of their commits.
    fn changes(&self) -> Result<Vec<(CommitId, Change)>>;

    /// Bytes on disk (or in memory).
    fn size(&self) -> Result<u64>;

    /// An error of state 53100 if the disk cannot take so many bytes more and keep its reserve.
    fn has_room_for(&self, bytes: usize) -> Result<()>;
}
