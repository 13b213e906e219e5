//! The storage thread: the only one that writes the log.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_channel::oneshot;
use parking_lot::MutexGuard;

use super::group::{Finished, Group, Placed, State};
use super::prepare::{COMMIT_BATCHES, Prepared};
use super::{Options, Queue, Shared};
use crate::catalog::{Change, Durability, RelationId, sequence_of};
use crate::error::{Error, Result};
use crate::limits;
use crate::log::{Committed, Log};
use crate::time::{Clock, Micros};
use bytes::Bytes;

/// Batches of a dropped relation that are removed between two groups.
const PURGE_BATCHES: usize = 64;

pub(super) enum Request {
    Commit(Job),
    Stage(u64, Bytes),
    Discard(Vec<u64>),
}

impl Request {
    /// What it counts for in the bound on waiting bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Request::Commit(job) => job.transaction.bytes,
            Request::Stage(_, payload) => payload.len(),
            Request::Discard(_) => 0,
        }
    }
}

pub(super) struct Job {
    pub(super) transaction: Prepared,
    pub(super) answer: Answer,
}

pub(super) type Answer = oneshot::Sender<Result<Committed>>;

/// What to do next.
enum Work {
    Requests(Vec<Request>),
    /// Nothing waits: time to flush what was acknowledged before it was flushed.
    Flush,
    Purge,
    Close,
}

pub(super) struct Storage {
    pub(super) log: Box<dyn Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    pub(super) state: State,
    /// Dropped relations whose rows are still there.
    pub(super) dropped: VecDeque<RelationId>,
    pub(super) flushed_at: Micros,
}

impl Storage {
    pub(super) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let failure = match served {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::internal("the storage thread failed")),
        };
        if let Some(error) = &failure {
            tracing::error!("the log takes no more writes: {error}");
        }
        self.shared.stop(failure);
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            match self.next() {
                Work::Requests(requests) => self.handle(requests)?,
                Work::Flush => self.flush()?,
                Work::Purge => self.purge()?,
                Work::Close => return self.flush(),
            }
            self.flush_if_due()?;
        }
    }

    /// Wait for work. Requests are taken up to the bound of a group, at least one; a change of the catalog is a group of its own.
    fn next(&mut self) -> Work {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        while queue.requests.is_empty() {
            if queue.closing {
                return Work::Close;
            }
            if !self.dropped.is_empty() {
                return Work::Purge;
            }
            if self.log.unflushed() == 0 {
                shared.arrived.wait(&mut queue);
            } else if shared.arrived.wait_for(&mut queue, self.options.interval).timed_out() {
                return Work::Flush;
            }
        }
        self.linger(&shared, &mut queue);
        let (mut requests, mut bytes, mut batches) = (Vec::new(), 0, 0);
        while let Some(next) = queue.requests.front() {
            bytes += next.bytes();
            let mut is_alone = false;
            if let Request::Commit(job) = next {
                batches += job.transaction.batches;
                is_alone = !job.transaction.changes.is_empty();
            }
            let full = bytes > limits::GROUP_COMMIT_BYTES || batches > COMMIT_BATCHES || is_alone;
            if full && !requests.is_empty() {
                break;
            }
            requests.extend(queue.requests.pop_front());
            if is_alone {
                break;
            }
        }
        queue.bytes -= requests.iter().map(Request::bytes).sum::<usize>();
        shared.room.notify_all();
        Work::Requests(requests)
    }

    /// Give others the chance to join the group.
    fn linger(&self, shared: &Shared, queue: &mut MutexGuard<'_, Queue>) {
        if self.options.linger.is_zero() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "how long others may join a group; the log records which did")]
        let until = std::time::Instant::now() + self.options.linger;
        while !queue.closing && queue.bytes < limits::GROUP_COMMIT_BYTES && queue.requests.len() < limits::COMMIT_QUEUE {
            if shared.arrived.wait_until(queue, until).timed_out() {
                break;
            }
        }
    }

    fn handle(&mut self, requests: Vec<Request>) -> Result<()> {
        let mut jobs = Vec::new();
        let mut requests = requests.into_iter();
        let mut outcome = Ok(());
        // Commits come after everything that was asked before them; what they name is staged by then.
        while outcome.is_ok()
            && let Some(request) = requests.next()
        {
            outcome = match request {
                Request::Commit(job) => {
                    jobs.push(job);
                    Ok(())
                }
                Request::Stage(id, payload) => self.stage(id, &payload),
                Request::Discard(ids) => ids.into_iter().try_for_each(|id| self.log.discard(id)),
            };
        }
        if let Err(error) = &outcome {
            let rest = requests.filter_map(|r| if let Request::Commit(job) = r { Some(job) } else { None });
            for job in jobs.drain(..).chain(rest) {
                let _ = job.answer.send(Err(error.clone()));
            }
        }
        outcome?;
        if jobs.is_empty() { Ok(()) } else { self.commit(jobs) }
    }

    fn stage(&mut self, id: u64, payload: &Bytes) -> Result<()> {
        self.log.stage(id, payload)?;
        // Bulk loads are flushed on the way: their commit is then quick, and little is unflushed at any time.
        if self.log.unflushed() >= limits::GROUP_COMMIT_BYTES { self.flush() } else { Ok(()) }
    }

    /// One commit of all that can be committed, and the answers to all.
    fn commit(&mut self, jobs: Vec<Job>) -> Result<()> {
        let mut group = Group::new(&self.state);
        let mut placed = Vec::with_capacity(jobs.len());
        let mut rejected = Vec::new();
        for Job { transaction, answer } in jobs {
            let staged = transaction.staged_ids();
            match group.add(transaction) {
                Ok(place) if place.duplicate => {
                    rejected.extend(staged);
                    placed.push((answer, place));
                }
                Ok(place) => placed.push((answer, place)),
                Err(error) => {
                    rejected.extend(staged);
                    let _ = answer.send(Err(error));
                }
            }
        }
        let durability = group.durability;
        let outcome = group.finish(self.clock.now());
        let written = rejected.into_iter().try_for_each(|id| self.log.discard(id));
        let written = written.and_then(|()| self.write(outcome?, durability, &mut placed));
        for (answer, Placed { offsets, duplicate }) in placed {
            let (commit, time) = (self.state.end, self.state.time);
            // Whoever asked may be gone; the commit stands.
            let _ = answer.send(written.clone().map(|()| Committed { commit, time, offsets, duplicate }));
        }
        written
    }

    fn write(&mut self, finished: Option<Finished>, durability: Durability, placed: &mut Vec<(Answer, Placed)>) -> Result<()> {
        let Some(Finished { record, commit, heads }) = finished else {
            return if durability == Durability::Commit { self.flush() } else { Ok(()) };
        };
        let (id, time, changes, producers) = (record.id, record.time, record.changes.clone(), record.producers.clone());
        self.log.append(record)?;
        if crate::planted::bug("ack-before-flush") {
            for (answer, Placed { offsets, duplicate }) in placed.drain(..) {
                let _ = answer.send(Ok(Committed { commit: id, time, offsets, duplicate }));
            }
        }
        if durability == Durability::Commit {
            self.flush()?;
        }
        let gone = changes.iter().filter_map(|change| if let Change::Drop(id) = change { Some(*id) } else { None });
        let gone = gone.flat_map(|relation| [relation, sequence_of(relation)]);
        self.dropped.extend(gone.filter(|id| self.state.heads.contains_key(id)));
        let touched: Vec<RelationId> = heads.keys().copied().collect();
        self.state.advance(id, time, &changes, &producers, heads);
        self.shared.tail.push(id, commit);
        self.shared.publish(&self.state, &touched, !changes.is_empty());
        Ok(())
    }

    fn purge(&mut self) -> Result<()> {
        if let Some(relation) = self.dropped.front()
            && self.log.purge(*relation, PURGE_BATCHES)?
        {
            self.dropped.pop_front();
        }
        Ok(())
    }

    /// Under load nothing waits long enough for [`Work::Flush`], nor for [`Work::Purge`].
    fn flush_if_due(&mut self) -> Result<()> {
        if self.log.unflushed() == 0 {
            return Ok(());
        }
        let waited = self.clock.now().saturating_sub(self.flushed_at);
        let is_due = waited >= self.options.interval.as_micros() as Micros || self.log.unflushed() >= limits::GROUP_COMMIT_BYTES;
        if is_due {
            if !self.dropped.is_empty() {
                self.purge()?;
            }
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.log.unflushed() > 0 {
            self.log.flush()?;
        }
        self.flushed_at = self.clock.now();
        Ok(())
    }
}
