//! The group commit. (Signatures first.)

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;

use super::{Commit, CommitId, Committed, Head, Log, LogBatch, LogReader, Staged, Transaction};
use crate::catalog::{Catalog, RelationId};
use crate::error::Result;
use crate::time::Clock;

/// How a log is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for more transactions after the first of a group. Zero: take what waits already.
    pub linger: Duration,
    /// The flush interval of `Durability::Interval`.
    pub interval: Duration,
}

/// Handle of a running log; clones are the same log.
#[derive(Clone)]
pub struct LogHandle {}

/// A transaction on its way. Await it, or `wait` on a thread.
pub struct Ack {}

impl std::future::Future for Ack {
    type Output = Result<Committed>;
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        unimplemented!()
    }
}

impl Ack {
    pub fn wait(self) -> Result<Committed> {
        unimplemented!()
    }
}

#[expect(unused_variables, reason = "signatures first")]
impl LogHandle {
    /// Start the committer's thread over a store.
    pub fn start(log: Box<dyn Log>, clock: Arc<dyn Clock>, options: Options) -> Result<LogHandle> {
        unimplemented!()
    }

    /// Queue a transaction. Blocks only while the queue is full.
    pub fn submit(&self, transaction: Transaction) -> Ack {
        unimplemented!()
    }

    /// Encode a batch on this thread and give it to the store ahead of its commit; blocks while too much is unflushed.
    pub fn stage(&self, rows: RecordBatch) -> Result<Staged> {
        unimplemented!()
    }

    /// Give up what was staged.
    pub fn discard(&self, staged: Vec<Staged>) {
        unimplemented!()
    }

    /// The last acknowledged commit.
    pub fn end(&self) -> CommitId {
        unimplemented!()
    }

    /// The catalog as of `end()`.
    pub fn catalog(&self) -> Arc<Catalog> {
        unimplemented!()
    }

    /// As of `end()`.
    pub fn head(&self, relation: RelationId) -> Option<Head> {
        unimplemented!()
    }

    /// Wait until there is a commit after `after`, the log is closed, `wake` is called, or time is up.
    pub fn wait_past(&self, after: CommitId, timeout: Duration) {
        unimplemented!()
    }

    /// Make one `wait_past` return.
    pub fn wake(&self) {
        unimplemented!()
    }

    /// The commits after `after` up to and including `upto`, decoded with the schemas of `catalog` (batches of relations that it
    /// does not have are left out), from memory where the tail has them. Stops early after about `max_rows` rows, never within
    /// a commit. Damaged batches are reported per relation instead of failing all.
    pub fn read(&self, catalog: &Catalog, after: CommitId, upto: CommitId, max_rows: usize) -> Result<Vec<Arc<Commit>>> {
        unimplemented!()
    }

    /// Batches of one partition from the one that holds `offset` on, whose commit is at most `upto`; at most `limit`.
    pub fn scan(&self, catalog: &Catalog, relation: RelationId, partition: u32, offset: u64, upto: CommitId, limit: usize) -> Result<Vec<LogBatch>> {
        unimplemented!()
    }

    pub fn reader(&self) -> Arc<dyn LogReader> {
        unimplemented!()
    }

    /// Refuse new transactions, finish those that wait, flush, stop the thread.
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }
}
