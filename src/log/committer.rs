//! The group commit, and the handle of a running log.
//!
//! ```text
//!   submit: encode large batches ─┐                ┌─ check, place, merge small batches ─► append ─► flush ─► publish ─► answer
//!   submit ───────────────────────┼─► queue ─► group                                      (thread)
//!   stage: encode ────────────────┘                └─ staged payloads go to the store at once
//! ```
//!
//! * [`prepare`]: on the submitting thread. [`group`]: from transactions to a commit. [`thread`]: the storage thread.
//! * [`tail`]: the newest commits, decoded.
//!
//! Invariants: one thread writes. A transaction of `Durability::Commit` is answered after the flush that covers it; others are
//! answered when the store has taken them, and flushed within the interval. Nobody sees a commit before it could be answered.
//! After an error of the store nothing more is written or acknowledged; readers go on.

mod group;
mod prepare;
mod tail;
mod thread;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures_channel::oneshot;
use parking_lot::{Condvar, Mutex};

use self::group::{Schemas, State};
use self::prepare::{Encoded, Shape, StageGuard};
use self::tail::Tail;
use self::thread::{Job, Request, Storage};
use super::{Commit, CommitId, CommitRecord, Committed, Head, Log, LogBatch, LogReader, Place, StoredBatch, Transaction, record};
use crate::catalog::{Catalog, RelationId};
use crate::error::{Error, Result, SqlState};
use crate::limits;
use crate::time::{Clock, Micros};

pub use self::prepare::Staged;

/// Commits read from the store at once.
const READ_COMMITS: u64 = 64;

/// How a log is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for more transactions after the first of a group. Zero: take what waits already.
    pub linger: Duration,
    /// The flush interval of `Durability::Interval`.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { linger: Duration::ZERO, interval: Duration::from_millis(200) }
    }
}

/// Handle of a running log; clones are the same log. When the last is dropped, the log is closed.
#[derive(Clone)]
pub struct LogHandle(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    reader: Arc<dyn LogReader>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What submitters, readers and the storage thread share.
struct Shared {
    queue: Mutex<Queue>,
    /// There is something in the queue, or it is closing.
    arrived: Condvar,
    /// There is room in the queue.
    room: Condvar,
    published: Mutex<Published>,
    /// `published` has changed.
    changed: Condvar,
    tail: Tail,
    next_stage_id: AtomicU64,
    /// Bytes of staged rows that are kept in memory.
    kept: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    bytes: usize,
    closing: bool,
    /// The storage thread has ended; why, if not because it was asked to.
    stopped: Option<Option<Error>>,
}

/// The log as of its last commit.
#[derive(Default)]
struct Published {
    end: CommitId,
    time: Micros,
    catalog: Arc<Catalog>,
    heads: HashMap<RelationId, Head, ahash::RandomState>,
    /// One who waits for commits is to look up.
    woken: bool,
}

/// A transaction on its way. Await it, or `wait` on a thread.
pub struct Ack(oneshot::Receiver<Result<Committed>>);

impl Ack {
    pub fn wait(self) -> Result<Committed> {
        futures::executor::block_on(self)
    }

    fn failed(error: Error) -> Ack {
        let (answer, ack) = oneshot::channel();
        let _ = answer.send(Err(error));
        Ack(ack)
    }
}

impl Future for Ack {
    type Output = Result<Committed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answer| {
            answer.unwrap_or_else(|_| Err(Error::internal("the log has stopped; whether the write is on disk is unknown")))
        })
    }
}

impl Shared {
    /// Queue a request; waits while the queue is full.
    fn push(&self, request: Request) -> Result<(), Error> {
        let bytes = request.bytes();
        let mut queue = self.queue.lock();
        let is_full =
            |q: &Queue| q.requests.len() >= limits::COMMIT_QUEUE || (q.bytes > 0 && q.bytes + bytes > limits::UNFLUSHED_BYTES);
        while is_full(&queue) && !queue.closing && queue.stopped.is_none() {
            self.room.wait(&mut queue);
        }
        queue.check_open()?;
        queue.bytes += bytes;
        queue.requests.push_back(request);
        self.arrived.notify_one();
        Ok(())
    }

    /// Never waits; a log that is closing discards by itself when it is opened again.
    fn discard(&self, ids: Vec<u64>) {
        let mut queue = self.queue.lock();
        if queue.check_open().is_ok() {
            queue.requests.push_back(Request::Discard(ids));
            self.arrived.notify_one();
        }
    }

    /// Show a commit to the world.
    fn publish(&self, state: &State, touched: &[RelationId], catalog_changed: bool) {
        let mut published = self.published.lock();
        (published.end, published.time) = (state.end, state.time);
        if catalog_changed {
            published.catalog = state.catalog.clone();
            published.heads = state.heads.clone();
        } else {
            let heads = touched.iter().filter_map(|relation| Some((*relation, state.heads.get(relation)?.clone())));
            published.heads.extend(heads);
        }
        self.changed.notify_all();
    }

    fn wake_one(&self) {
        self.published.lock().woken = true;
        self.changed.notify_all();
    }

    /// The storage thread ends: answer all that wait.
    fn stop(&self, failure: Option<Error>) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.stopped = Some(failure.clone());
            queue.bytes = 0;
            std::mem::take(&mut queue.requests)
        };
        self.room.notify_all();
        let error = failure.map_or_else(closed, stopped);
        for request in waiting {
            if let Request::Commit(job) = request {
                let _ = job.answer.send(Err(error.clone()));
            }
        }
        self.wake_one();
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_one();
    }
}

impl Queue {
    fn check_open(&self) -> Result<()> {
        match &self.stopped {
            Some(Some(failure)) => Err(stopped(failure.clone())),
            Some(None) => Err(closed()),
            None if self.closing => Err(closed()),
            None => Ok(()),
        }
    }
}

fn closed() -> Error {
    Error::shutting_down("the server is shutting down and takes no more writes")
}

fn stopped(failure: Error) -> Error {
    let hint = failure.hint().unwrap_or("restart the server when the cause is removed; reading goes on").to_string();
    Error::new(failure.state(), format!("the log takes no more writes since an error: {}", failure.message())).with_hint(hint)
}

impl LogHandle {
    /// Start the committer's thread over a store.
    pub fn start(log: Box<dyn Log>, clock: Arc<dyn Clock>, options: Options) -> Result<LogHandle> {
        let reader = log.reader();
        let (state, dropped) = State::load(&*reader)?;
        let published = Published {
            end: state.end,
            time: state.time,
            catalog: state.catalog.clone(),
            heads: state.heads.clone(),
            ..Published::default()
        };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            room: Condvar::new(),
            published: Mutex::new(published),
            changed: Condvar::new(),
            tail: Tail::default(),
            next_stage_id: AtomicU64::new(log.next_stage_id()),
            kept: AtomicUsize::new(0),
        });
        let flushed_at = clock.now();
        let storage = Storage { log, shared: shared.clone(), clock, options, state, dropped: dropped.into(), flushed_at };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || storage.run())?;
        Ok(LogHandle(Arc::new(Running { shared, reader, thread: Mutex::new(Some(thread)) })))
    }

    /// Queue a transaction. Blocks only while the queue is full.
    pub fn submit(&self, transaction: Transaction) -> Ack {
        let (answer, ack) = oneshot::channel();
        match self.prepare(transaction).and_then(|transaction| self.0.shared.push(Request::Commit(Job { transaction, answer }))) {
            Ok(()) => Ack(ack),
            Err(error) => Ack::failed(error),
        }
    }

    fn prepare(&self, transaction: Transaction) -> Result<prepare::Prepared> {
        self.0.shared.queue.lock().check_open()?;
        let mut prepared = prepare::prepare(transaction)?;
        if prepared.bytes > 0 {
            self.0.reader.has_room_for(prepared.bytes)?;
        }
        if prepared.bytes > limits::GROUP_COMMIT_BYTES {
            for encoded in prepared.encoded_mut() {
                self.stage_payload(encoded)?;
            }
            prepared.bytes = 0;
        }
        Ok(prepared)
    }

    /// Encode a batch on this thread and give it to the store ahead of its commit; blocks while too much is unflushed.
    pub fn stage(&self, rows: RecordBatch) -> Result<Staged> {
        let shared = &self.0.shared;
        shared.queue.lock().check_open()?;
        let shape = Shape::of(&rows);
        let mut parts = if rows.num_rows() == 0 { Vec::new() } else { prepare::encode_rows(&rows)? };
        self.0.reader.has_room_for(parts.iter().map(|part| part.len as usize).sum())?;
        let bytes = record::bytes_of(&rows);
        let keep = shared.kept.fetch_add(bytes, Ordering::Relaxed) + bytes <= limits::TAIL_BYTES;
        if !keep {
            shared.kept.fetch_sub(bytes, Ordering::Relaxed);
        }
        let weak = Arc::downgrade(shared);
        let mut guard =
            StageGuard { ids: Vec::new(), used: AtomicBool::new(false), kept: if keep { bytes } else { 0 }, shared: weak };
        for part in &mut parts {
            guard.ids.push(self.stage_payload(part)?);
            part.rows.take_if(|_| !keep);
        }
        Ok(Staged { guard: Arc::new(guard), shape, parts })
    }

    fn stage_payload(&self, encoded: &mut Encoded) -> Result<u64> {
        let id = self.0.shared.next_stage_id.fetch_add(1, Ordering::Relaxed);
        if let Place::Inline(payload) = std::mem::replace(&mut encoded.place, Place::Staged(id)) {
            self.0.shared.push(Request::Stage(id, payload))?;
        }
        Ok(id)
    }

    /// Give up what was staged. Dropping it does the same.
    pub fn discard(&self, staged: Vec<Staged>) {
        drop(staged);
    }

    /// The last acknowledged commit.
    pub fn end(&self) -> CommitId {
        self.0.shared.published.lock().end
    }

    /// Commit time of `end()`, `Micros::MIN` of an empty log.
    pub fn end_time(&self) -> Micros {
        self.0.shared.published.lock().time
    }

    /// The catalog as of `end()`.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.shared.published.lock().catalog.clone()
    }

    /// As of `end()`.
    pub fn head(&self, relation: RelationId) -> Option<Head> {
        self.0.shared.published.lock().heads.get(&relation).cloned()
    }

    /// How far the query, or the source, of a relation has come: what follows from there on is not in the log.
    pub fn position_of(&self, relation: RelationId) -> Result<u64> {
        let producer = super::producer_of(relation);
        let producers = self.reader().producers()?;
        Ok(producers.into_iter().find(|(id, _)| *id == producer).map_or(0, |(_, position)| position))
    }

    /// Wait until there is a commit after `after`, `wake` is called, the log stops (which wakes once, too), or time is up.
    pub fn wait_past(&self, after: CommitId, timeout: Duration) {
        let shared = &self.0.shared;
        let mut published = shared.published.lock();
        let waits = |p: &mut Published| p.end <= after && !std::mem::take(&mut p.woken);
        shared.changed.wait_while_for(&mut published, waits, timeout);
    }

    /// No write is taken any more: the log was closed, or its store has failed.
    pub fn has_stopped(&self) -> bool {
        self.0.shared.queue.lock().stopped.is_some()
    }

    /// Make one `wait_past` return.
    pub fn wake(&self) {
        self.0.shared.wake_one();
    }

    /// Does the same when what it is given to is ready. It does not keep the log open.
    pub fn waker(&self) -> Waker {
        Waker::from(self.0.shared.clone())
    }

    /// The commits after `after` up to and including `upto`, decoded with the schemas of `catalog` (batches of relations that it
    /// does not have are left out), from memory where the tail has them. Stops early after about `max_rows` rows, never within
    /// a commit. Damaged batches are reported per relation ([`Commit::damaged`]) instead of failing all.
    pub fn read(&self, catalog: &Catalog, after: CommitId, upto: CommitId, max_rows: usize) -> Result<Vec<Arc<Commit>>> {
        let upto = upto.min(self.end());
        let mut schemas = Schemas::default();
        let mut commits: Vec<Arc<Commit>> = Vec::new();
        let mut rows = 0;
        let mut from_store = VecDeque::new();
        let mut next = after.saturating_add(1);
        while next <= upto && (commits.is_empty() || rows < max_rows) {
            let commit = match self.0.shared.tail.get(next) {
                Some(commit) => adapt(commit, catalog, &mut schemas)?,
                None => {
                    // The tail has holes: what it had after the last one is here too.
                    while from_store.front().is_some_and(|record: &CommitRecord| record.id < next) {
                        from_store.pop_front();
                    }
                    if from_store.is_empty() {
                        from_store = self.0.reader.commits(next, (upto - next + 1).min(READ_COMMITS) as usize)?.into();
                    }
                    let record = from_store.pop_front().filter(|record| record.id == next);
                    let record = record.ok_or_else(|| Error::corrupted(format!("commit {next} is missing from the log")))?;
                    Arc::new(self.decode(record, catalog, &mut schemas))
                }
            };
            rows += commit.rows();
            commits.push(commit);
            next += 1;
        }
        Ok(commits)
    }

    /// Batches of one partition from the one that holds `offset` on, whose commit is at most `upto`; at most `limit`.
    pub fn scan(
        &self,
        catalog: &Catalog,
        relation: RelationId,
        partition: u32,
        offset: u64,
        upto: CommitId,
        limit: usize,
    ) -> Result<Vec<LogBatch>> {
        let mut schemas = Schemas::default();
        let mut batches = Vec::new();
        for stored in self.0.reader.batches(relation, partition, offset, limit)? {
            let stored = stored.map_err(|error| in_relation(error, catalog, relation))?;
            if stored.header.commit > upto {
                break;
            }
            batches.extend(self.decode_batch(&stored, catalog, &mut schemas)?);
        }
        Ok(batches)
    }

    pub fn reader(&self) -> Arc<dyn LogReader> {
        self.0.reader.clone()
    }

    /// Refuse new transactions, finish those that wait, flush, stop the thread.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }

    fn decode(&self, record: CommitRecord, catalog: &Catalog, schemas: &mut Schemas) -> Commit {
        let CommitRecord { id, time, batches: stored, watermarks, changes, .. } = record;
        let (mut batches, mut damaged) = (Vec::with_capacity(stored.len()), Vec::<(RelationId, Error)>::new());
        for stored in stored {
            let relation = stored.header.relation;
            match self.decode_batch(&stored, catalog, schemas) {
                Ok(batch) => batches.extend(batch),
                // Dropped meanwhile, and its rows are being removed.
                Err(_) if self.catalog().get(relation).is_none() => {}
                Err(error) if damaged.iter().all(|(known, _)| *known != relation) => damaged.push((relation, error)),
                Err(_) => {}
            }
        }
        Commit { id, time, batches, watermarks, changes, damaged }
    }

    /// `None`: the catalog does not have its relation.
    fn decode_batch(&self, stored: &StoredBatch, catalog: &Catalog, schemas: &mut Schemas) -> Result<Option<LogBatch>> {
        let header = stored.header;
        let Some(relation) = catalog.get(header.relation).filter(|r| r.kind.in_log()) else { return Ok(None) };
        let payload = self.0.reader.payload(stored);
        let layout = schemas.of(relation, header.kind)?;
        let rows = payload.and_then(|payload| record::decode(&header, &payload, &layout.schema));
        let rows = rows.and_then(|rows| layout.widen(rows));
        Ok(Some(LogBatch { header, rows: rows.map_err(|error| in_relation(error, catalog, header.relation))? }))
    }
}

/// A commit of the tail with the schemas of a catalog. Almost always it has them already.
fn adapt(commit: Arc<Commit>, catalog: &Catalog, schemas: &mut Schemas) -> Result<Arc<Commit>> {
    let mut fits = true;
    for batch in &commit.batches {
        fits &= match catalog.get(batch.header.relation) {
            Some(relation) => *batch.rows.schema_ref() == schemas.of(relation, batch.header.kind)?.schema,
            None => false,
        };
    }
    if fits {
        return Ok(commit);
    }
    let mut adapted = Commit::clone(&commit);
    adapted.batches.retain(|batch| catalog.get(batch.header.relation).is_some_and(|r| r.kind.in_log()));
    for batch in &mut adapted.batches {
        if let Some(relation) = catalog.get(batch.header.relation) {
            batch.rows = schemas.of(relation, batch.header.kind)?.widen(batch.rows.clone())?;
        }
    }
    Ok(Arc::new(adapted))
}

fn in_relation(error: Error, catalog: &Catalog, relation: RelationId) -> Error {
    match catalog.get(relation) {
        Some(relation) => error.with_context(format!("{} \"{}\"", relation.kind.noun(), relation.name)),
        None => error,
    }
}

impl Running {
    fn close(&self) -> Result<()> {
        {
            let mut queue = self.shared.queue.lock();
            queue.closing = true;
            self.shared.arrived.notify_all();
            self.shared.room.notify_all();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            return Err(Error::internal("the storage thread failed"));
        }
        match &self.shared.queue.lock().stopped {
            Some(Some(failure)) if failure.state() != SqlState::AdminShutdown => Err(failure.clone()),
            _ => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("the log was closed after an error: {error}");
        }
    }
}
