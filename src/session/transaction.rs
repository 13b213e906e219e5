//! The transaction block of a session.
//!
//! Writes are checked when they are made and go to the log together at COMMIT: they are one commit, seen whole or not at all.
//! The first read pins a snapshot, and all later reads of the block are of it, with the block's own writes to tables on top.
//! Streams and views show a block's rows from its COMMIT on: only then have the rows a place, and the views a version.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::identity::Identity;
use super::settings::Mark;
use super::{Client, ClientSession};
use crate::catalog::{Durability, RelationId};
use crate::error::{Error, Result};
use crate::log::{self, CommitId, Committed, Expect, Kind, Rows, Write};
use crate::sql::ast::SetValue;
use crate::view::Snapshot;

const READ_ONLY: &str = "transaction_read_only";
const DEFAULT_READ_ONLY: &str = "default_transaction_read_only";

#[derive(Default)]
pub(super) struct Transaction {
    pub snapshot: Option<Arc<Snapshot>>,
    /// Nobody said BEGIN: see [`super::implicit`].
    pub implicit: bool,
    pub failed: bool,
    pub identity: Identity,
    work: Work,
    savepoints: Vec<Savepoint>,
    /// What all parts of the statement that runs read, whatever they write themselves.
    pub held: Option<Arc<Snapshot>>,
    /// The snapshot with the first so many of the block's writes in it.
    seen: Option<(usize, Arc<Snapshot>)>,
}

/// Where ROLLBACK TO goes back to.
struct Savepoint {
    name: String,
    /// How many of the block's writes were made before.
    writes: usize,
    /// How many advisory locks it had taken.
    locks: usize,
    settings: Mark,
}

/// What a statement or a block wants to write.
#[derive(Default)]
pub(super) struct Work {
    pub writes: Vec<Write>,
    /// Tables whose rows decided what is written: they must not have changed since.
    pub decided_by: BTreeSet<RelationId>,
    /// The commit that the deciding rows were read at.
    pub read_at: CommitId,
    pub durability: Durability,
    pub producer: Option<(u64, u64)>,
}

impl Work {
    pub fn into_transaction(self) -> log::Transaction {
        let relations: Vec<RelationId> = self.decided_by.into_iter().collect();
        let expect = (!relations.is_empty()).then_some(Expect { unchanged_since: self.read_at, relations, catalog: false });
        log::Transaction {
            writes: self.writes,
            expect,
            producer: self.producer,
            durability: self.durability,
            ..Default::default()
        }
    }
}

impl Client {
    /// Whether nothing may be written now, and in the transactions to come.
    pub(super) fn is_read_only(&self) -> bool {
        self.settings.is_on(if self.transaction.is_some() { READ_ONLY } else { DEFAULT_READ_ONLY })
    }

    /// Whether the block is read-only is a setting of its own, which ends with it.
    fn set_read_only(&mut self, read_only: Option<bool>) -> Result<()> {
        let read_only = read_only.unwrap_or_else(|| self.settings.is_on(DEFAULT_READ_ONLY));
        if read_only == self.settings.is_on(READ_ONLY) {
            return Ok(());
        }
        self.settings.set(READ_ONLY, if read_only { "on" } else { "off" }, true, &mut self.notices)
    }

    /// `SET TRANSACTION …`, and the settings by which it can be said, too.
    pub(super) fn set_in_block(&mut self, name: &str, value: &SetValue) -> Result<()> {
        let Some(transaction) = &self.transaction else {
            self.notices.push(Error::no_active_transaction("SET TRANSACTION can only be used in transaction blocks"));
            return Ok(());
        };
        let was_read_only = self.settings.is_on(READ_ONLY);
        let has_read = transaction.snapshot.is_some();
        self.settings.assign(name, value, true, &mut self.notices)?;
        if was_read_only && has_read && !self.settings.is_on(READ_ONLY) {
            self.settings.set(READ_ONLY, "on", true, &mut self.notices)?;
            return Err(Error::active_transaction("transaction read-write mode must be set before any query"));
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, read_only: Option<bool>) -> Result<()> {
        if let Some(transaction) = &mut self.transaction {
            if transaction.implicit {
                // What came before belongs to it.
                transaction.implicit = false;
                return self.set_read_only(read_only);
            }
            self.notices.push(Error::active_transaction("there is already a transaction in progress"));
            return Ok(());
        }
        self.settings.begin_block();
        self.transaction = Some(Transaction::default());
        self.set_read_only(read_only)
    }

    /// The block that ends is followed by one like it: whether that is read-only.
    pub(super) fn chained(&self, statement: &str) -> Result<bool> {
        match &self.transaction {
            Some(transaction) if !transaction.implicit => Ok(self.settings.is_on(READ_ONLY)),
            _ => {
                let message = format!("{statement} AND CHAIN can only be used in transaction blocks");
                Err(Error::no_active_transaction(message))
            }
        }
    }

    /// The tag says what became of the block.
    pub(super) async fn commit(&mut self) -> Result<&'static str> {
        let ended = self.commit_block().await;
        self.let_go(0);
        ended
    }

    /// What the transaction has locked since it had taken so many goes with it.
    fn let_go(&self, keep: usize) {
        self.database.locks.end_transaction(self.number(), keep);
    }

    /// What ran outside of a block has ended: its locks go with it.
    pub(super) fn end_statements(&self) {
        if self.transaction.is_none() {
            self.let_go(0);
        }
    }

    /// A statement of the block failed: the block takes nothing but its end from now on.
    pub(super) fn fail_block(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.failed = true;
        transaction.held = None;
        let keep = transaction.savepoints.last().map_or(0, |savepoint| savepoint.locks);
        self.let_go(keep);
    }

    async fn commit_block(&mut self) -> Result<&'static str> {
        self.take_copied();
        let Some(transaction) = self.transaction.take() else {
            self.notices.push(Error::no_active_transaction("there is no transaction in progress"));
            return Ok("COMMIT");
        };
        self.close_cursors_of_block(!transaction.failed);
        let Identity { before, after } = transaction.identity;
        if transaction.failed {
            self.settings.end_block(false);
            self.return_to(before);
            self.discard(transaction.work);
            return Ok("ROLLBACK");
        }
        let written = self.submit(transaction.work).await;
        self.settings.end_block(written.is_ok());
        self.return_to(if written.is_ok() { after.or(before) } else { before });
        written.map(|_| "COMMIT")
    }

    pub(super) fn rollback(&mut self) {
        self.close_cursors_of_block(false);
        self.take_copied();
        match self.transaction.take() {
            Some(transaction) => {
                self.let_go(0);
                self.settings.end_block(false);
                self.return_to(transaction.identity.before);
                self.discard(transaction.work);
            }
            None => self.notices.push(Error::no_active_transaction("there is no transaction in progress")),
        }
    }

    /// The snapshot that the block reads, if one is pinned: with its own writes to tables.
    pub(super) fn block_snapshot(&mut self) -> Result<Option<Arc<Snapshot>>> {
        self.take_copied();
        self.transaction.as_mut().map_or(Ok(None), Transaction::snapshot)
    }

    /// Writes of the block's COPYs, in their place among its other writes.
    fn take_copied(&mut self) {
        let copied = std::mem::take(&mut *self.copied.lock());
        if let Some(transaction) = &mut self.transaction {
            transaction.work.writes.extend(copied);
        }
    }

    fn discard(&self, work: Work) {
        let staged = |write: Write| if let Rows::Staged(staged) = write.rows { Some(staged) } else { None };
        let staged: Vec<_> = work.writes.into_iter().filter_map(staged).collect();
        if !staged.is_empty() {
            self.database.log.discard(staged);
        }
    }

    /// Write now, or with the block's COMMIT. The answer is there only if it was written.
    pub(super) async fn write(&mut self, work: Work) -> Result<Option<Committed>> {
        self.take_copied();
        let Some(transaction) = &mut self.transaction else { return self.submit(work).await.map(Some) };
        let block = &mut transaction.work;
        if !work.decided_by.is_empty() {
            // All reads of a block are of one snapshot, unless a change of the catalog came between: the first then counts.
            block.read_at = if block.decided_by.is_empty() { work.read_at } else { block.read_at.min(work.read_at) };
        }
        block.decided_by.extend(work.decided_by);
        block.writes.extend(work.writes);
        // The strictest of the relations that it writes to.
        block.durability = if block.writes.is_empty() { work.durability } else { block.durability.max(work.durability) };
        block.producer = work.producer.or(block.producer);
        Ok(None)
    }

    async fn submit(&mut self, work: Work) -> Result<Committed> {
        let committed = self.database.log.submit(work.into_transaction()).await?;
        self.committed(committed.commit);
        if self.settings.waits_to_be_seen()
            && let Err(error) = self.await_own_writes().await
        {
            // It is written all the same.
            self.notices.push(Error::warning(error.message().to_string()).with_hint("the transaction is committed"));
        }
        Ok(committed)
    }

    fn block(&mut self, statement: &str) -> Result<&mut Transaction> {
        self.take_copied();
        let begun = self.transaction.as_mut().filter(|transaction| !transaction.implicit);
        begun.ok_or_else(|| Error::no_active_transaction(format!("{statement} can only be used in transaction blocks")))
    }

    pub(super) fn savepoint(&mut self, name: String) -> Result<()> {
        let settings = self.settings.mark();
        let locks = self.database.locks.taken(self.number());
        let block = self.block("SAVEPOINT")?;
        let writes = block.work.writes.len();
        block.savepoints.push(Savepoint { name, writes, locks, settings });
        Ok(())
    }

    pub(super) fn rollback_to(&mut self, name: &str) -> Result<()> {
        let settings = self.settings.clone();
        let block = self.block("ROLLBACK TO SAVEPOINT")?;
        let at = block.find(name)?;
        block.savepoints.truncate(at + 1);
        let undone = block.work.writes.split_off(block.savepoints[at].writes);
        settings.return_to(&block.savepoints[at].settings);
        let locks = block.savepoints[at].locks;
        block.seen = None;
        block.failed = false;
        self.let_go(locks);
        self.discard(Work { writes: undone, ..Work::default() });
        Ok(())
    }

    pub(super) fn release(&mut self, name: &str) -> Result<()> {
        let block = self.block("RELEASE SAVEPOINT")?;
        let at = block.find(name)?;
        block.savepoints.truncate(at);
        Ok(())
    }
}

impl Transaction {
    fn snapshot(&mut self) -> Result<Option<Arc<Snapshot>>> {
        if let Some(held) = &self.held {
            return Ok(Some(Arc::clone(held)));
        }
        let Some(pinned) = &self.snapshot else { return Ok(None) };
        let writes = &self.work.writes;
        let (applied, seen) = match &self.seen {
            Some((applied, seen)) => (*applied, seen),
            None => (0, pinned),
        };
        if applied == writes.len() {
            return Ok(Some(Arc::clone(seen)));
        }
        let mut snapshot = Snapshot::clone(seen);
        for write in &writes[applied..] {
            let Some(version) = snapshot.versions.get_mut(&write.relation) else { continue };
            let batches = match &write.rows {
                Rows::Batch(rows) => vec![rows.clone()],
                Rows::Staged(staged) => staged.batches().ok_or_else(|| {
                    Error::unsupported("this block has written more rows than can be read before its COMMIT")
                        .with_hint("COMMIT, then read them")
                })?,
            };
            for rows in batches {
                *version = Arc::new(version.written(&rows, write.kind == Kind::Delete)?);
            }
        }
        let snapshot = Arc::new(snapshot);
        self.seen = Some((writes.len(), Arc::clone(&snapshot)));
        Ok(Some(snapshot))
    }

    /// The next read pins a snapshot anew.
    pub fn unpin(&mut self) {
        (self.snapshot, self.seen) = (None, None);
    }

    fn find(&self, name: &str) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        found.ok_or_else(|| Error::invalid_savepoint(format!("savepoint \"{name}\" does not exist")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
        self.database.locks.leave(self.number());
        self.take_copied();
        if let Some(transaction) = self.transaction.take() {
            self.discard(transaction.work);
        }
    }
}
