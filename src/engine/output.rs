//! Outputs: what running queries write back into the log.
//!
//! ```text
//!   step ─► changes of a query ─► pending ─► transaction { rows, watermark, consumed up to commit n } ─► committer
//!                                              ▲ the next one when this is on disk            │
//!                                              └──────────────────────────────────────────────┘
//! ```
//!
//! Rows and the number of the commit that they follow from are one transaction (the number is the sequence of a producer that is
//! the query), so the log never has one without the other. After a restart a query is computed again, from its state or from the
//! log; what the log has of its output is computed too, and dropped. For that, steps end at that commit ([`Outputs::cut`]): what
//! a query has said up to a commit is a function of the log, how it was cut into transactions is not.
//!
//! Invariants: one transaction of a query is under way, never more: if one failed and its successor did not, rows would be lost.
//! A checkpoint is written only when all that follows from its commit is on disk ([`Outputs::settle`]): state that is ahead of
//! the output would never give it again. The committer never waits for the engine, so the engine may wait for it.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use arrow::datatypes::SchemaRef;
use futures::FutureExt;

use crate::catalog::{Catalog, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result, SqlState};
use crate::flow::sink::Target;
use crate::flow::{Fragment, StepResult, least};
use crate::limits;
use crate::log::{Ack, CommitId, Committed, LogHandle, Transaction, Write, producer_of};
use crate::time::{Micros, NO_TIME};

/// Turns the changes of running queries into writes. What writes into the log knows how; the engine knows neither defaults nor
/// partitions.
pub trait Intake: Send + Sync + 'static {
    /// For one query, whose changes are of this schema.
    fn open(&self, catalog: &Catalog, query: &Relation, schema: &SchemaRef) -> Result<Box<dyn Inlet>>;
}

/// The way of one query's changes into the log.
pub trait Inlet: Send {
    /// What becomes of the changes after each of these commits, together.
    fn writes(&self, changes: &[(CommitId, Delta)]) -> Result<Vec<Write>>;
}

/// The watermark that a query gives its derived stream.
struct Carried {
    sources: Vec<RelationId>,
    delay: Micros,
}

/// One query's way out.
pub(super) struct Output {
    query: RelationId,
    target: RelationId,
    inlet: Box<dyn Inlet>,
    carried: Option<Carried>,
    /// What follows from the commits up to here is in the log.
    position: CommitId,
    /// The commit that brought it there.
    landed: CommitId,
    /// The last position whose commit the engine has run.
    visible: CommitId,
    pending: Vec<(CommitId, Delta)>,
    /// The last commit that was run.
    taken: CommitId,
    /// The watermark as the log has it, and as it should be.
    watermark: [Micros; 2],
    under_way: Option<UnderWay>,
    /// Why the log does not take it at the moment.
    refused: Option<Error>,
}

struct UnderWay {
    upto: CommitId,
    watermark: Micros,
    changes: Vec<(CommitId, Delta)>,
    ack: Ack,
}

impl Output {
    /// It goes on from what the log has of it.
    pub fn open(
        log: &LogHandle,
        catalog: &Catalog,
        query: &Relation,
        fragment: &Fragment,
        intake: &dyn Intake,
    ) -> Result<Output> {
        let target = query.output.as_ref().map(|output| output.target);
        let target = target.ok_or_else(|| Error::internal(format!("\"{}\" writes nothing", query.name)))?;
        let edge = &fragment.edge;
        let carried = query.watermark.as_ref().filter(|w| w.carried).and_then(|w| {
            let time = edge.times.iter().find(|time| time.column == w.column)?;
            Some(Carried { sources: edge.sources.clone(), delay: time.delay })
        });
        let watermark = log.head(target).and_then(|head| head.watermark).unwrap_or(NO_TIME);
        Ok(Output {
            query: query.id,
            target,
            inlet: intake.open(catalog, query, &edge.schema)?,
            carried,
            position: log.position_of(query.id)?,
            landed: log.end(),
            visible: 0,
            pending: Vec::new(),
            taken: 0,
            watermark: [watermark; 2],
            under_way: None,
            refused: None,
        })
    }

    /// A step must end here, if it begins before.
    pub fn cut(&self, after: CommitId, upto: CommitId) -> CommitId {
        if after < self.position { upto.min(self.position) } else { upto }
    }

    /// A step has run up to `commit`. `watermarks`: after it.
    pub fn take(&mut self, result: &StepResult, commit: CommitId, watermarks: impl Fn(RelationId) -> Option<Micros>) {
        self.taken = commit;
        if commit <= self.position {
            return;
        }
        let own = result.changes.iter().filter(|(target, _)| *target == Target::Output(self.query));
        self.pending.extend(own.map(|(_, delta)| (commit, delta.clone())));
        if let Some(carried) = &self.carried {
            let reached = least(&carried.sources, watermarks);
            if reached != NO_TIME {
                self.watermark[1] = self.watermark[1].max(reached.saturating_sub(carried.delay));
            }
        }
    }

    /// Nothing of it is still to come into the log.
    fn is_idle(&self) -> bool {
        self.under_way.is_none() && !self.has_more()
    }

    fn has_more(&self) -> bool {
        !self.pending.is_empty() || self.watermark[1] > self.watermark[0]
    }

    fn is_too_much(&self) -> bool {
        self.pending.iter().map(|(_, delta)| delta.bytes()).sum::<usize>() > limits::OUTPUT_BYTES
    }

    /// Hand over what is pending, if nothing is under way.
    fn submit(&mut self, log: &LogHandle) -> Result<()> {
        if self.under_way.is_some() || !self.has_more() {
            return Ok(());
        }
        let writes = self.inlet.writes(&self.pending)?;
        let [before, watermark] = self.watermark;
        if writes.is_empty() && watermark == before {
            self.pending.clear();
            return Ok(());
        }
        let marks = (watermark > before).then_some((self.target, watermark)).into_iter().collect();
        let producer = Some((producer_of(self.query), self.taken));
        let ack = log.submit(Transaction { writes, marks, producer, ..Transaction::default() });
        let changes = std::mem::take(&mut self.pending);
        self.under_way = Some(UnderWay { upto: self.taken, watermark, changes, ack });
        Ok(())
    }

    /// Whether the transaction under way has ended; `waker` is told when it does later.
    fn poll(&mut self, waker: &Waker) -> Result<()> {
        let Some(under_way) = &mut self.under_way else { return Ok(()) };
        match under_way.ack.poll_unpin(&mut Context::from_waker(waker)) {
            Poll::Pending => Ok(()),
            Poll::Ready(answer) => self.answered(answer),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let Some(under_way) = &mut self.under_way else { return Ok(()) };
        let answer = futures::executor::block_on(&mut under_way.ack);
        self.answered(answer)
    }

    fn answered(&mut self, answer: Result<Committed>) -> Result<()> {
        let Some(UnderWay { upto, watermark, changes, .. }) = self.under_way.take() else { return Ok(()) };
        match answer {
            Ok(committed) => {
                (self.position, self.landed) = (upto, committed.commit);
                self.watermark[0] = watermark;
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                self.pending.splice(0..0, changes);
                if !is_passing(&error) {
                    return Err(error);
                }
                if self.refused.is_none() {
                    tracing::warn!(query = self.query, %error, "the log does not take a query's rows; it tries again");
                }
                self.refused = Some(error);
                Ok(())
            }
        }
    }

    /// Bring everything into the log before going on: on the thread of a build.
    pub fn flush(&mut self, log: &LogHandle) -> Result<()> {
        while !self.is_idle() {
            self.submit(log)?;
            self.wait()?;
            if let Some(error) = &self.refused {
                return Err(error.clone());
            }
        }
        Ok(())
    }

    /// How far the snapshot at `commit` shows what this query writes.
    fn shown(&mut self, commit: CommitId) -> CommitId {
        if self.landed <= commit {
            self.visible = if self.is_idle() { commit } else { self.visible.max(self.position) };
        }
        self.visible
    }
}

/// A failure that is not the query's: it goes on when the cause is removed.
fn is_passing(error: &Error) -> bool {
    matches!(
        error.state(),
        SqlState::DiskFull
            | SqlState::IoError
            | SqlState::AdminShutdown
            | SqlState::UndefinedTable
            // The target was altered while its rows were on their way.
            | SqlState::SerializationFailure
    )
}

/// All outputs of the engine's graph.
pub(super) struct Outputs {
    log: LogHandle,
    waker: Waker,
    by_query: BTreeMap<RelationId, Output>,
    /// How many queries stand behind one another.
    depth: usize,
    chase: Option<Chase>,
    complete: CommitId,
}

/// Follows one commit through all queries: in each round, all that was there at the round's beginning has been consumed.
struct Chase {
    of: CommitId,
    reached: CommitId,
    rounds: usize,
}

impl Outputs {
    pub fn new(log: LogHandle) -> Outputs {
        let waker = log.waker();
        Outputs { log, waker, by_query: BTreeMap::new(), depth: 0, chase: None, complete: 0 }
    }

    pub fn add(&mut self, output: Output, catalog: &Catalog) {
        // What it still has to write follows from commits that were complete without it.
        if !output.is_idle() {
            (self.chase, self.complete) = (None, self.complete.min(output.position));
        }
        self.by_query.insert(output.query, output);
        self.depth = catalog.depth();
    }

    pub fn remove(&mut self, query: RelationId) {
        self.by_query.remove(&query);
    }

    /// Remove one that may come again; nothing of it is under way after this. What was not written yet is computed again then.
    pub fn finish(&mut self, query: RelationId) {
        let Some(mut output) = self.by_query.remove(&query) else { return };
        if let Err(error) = output.wait() {
            tracing::warn!(query, %error, "the log did not take the last rows of a query that pauses");
        }
    }

    /// See [`Output::cut`].
    pub fn cut(&self, after: CommitId, upto: CommitId) -> CommitId {
        self.by_query.values().fold(upto, |upto, output| output.cut(after, upto))
    }

    pub fn take(&mut self, result: &StepResult, commit: CommitId, watermarks: impl Fn(RelationId) -> Option<Micros>) {
        self.by_query.values_mut().for_each(|output| output.take(result, commit, &watermarks));
    }

    /// Hear the committer's answers, and hand over what is pending. Returns queries that cannot go on, and why.
    pub fn pump(&mut self) -> Vec<(RelationId, Error)> {
        let mut failed = Vec::new();
        for (query, output) in &mut self.by_query {
            if let Err(error) = pump(output, &self.log, &self.waker) {
                failed.push((*query, error));
            }
        }
        failed.iter().for_each(|(query, _)| drop(self.by_query.remove(query)));
        failed
    }

    /// All that follows from the commits that were run is on disk, after waiting for it; false: the log does not take it now.
    pub fn settle(&mut self) -> (bool, Vec<(RelationId, Error)>) {
        let mut failed = self.pump();
        for (query, output) in &mut self.by_query {
            if let Err(error) = output.flush(&self.log)
                && output.refused.is_none()
            {
                failed.push((*query, error));
            }
        }
        failed.iter().for_each(|(query, _)| drop(self.by_query.remove(query)));
        (self.by_query.values().all(Output::is_idle), failed)
    }

    /// Some query's rows are not taken at the moment.
    pub fn is_refused(&self) -> bool {
        self.by_query.values().any(|output| output.refused.is_some())
    }

    /// All that follows from the commits up to here, through however many queries, is in the snapshot at `commit`.
    pub fn complete(&mut self, commit: CommitId) -> CommitId {
        // Who waits for rows that the log refuses would wait in vain.
        let counted = self.by_query.values_mut().filter(|output| output.refused.is_none());
        let shown = counted.map(|output| output.shown(commit)).min().unwrap_or(commit);
        if shown >= commit {
            (self.chase, self.complete) = (None, commit);
            return commit;
        }
        let chase = self.chase.get_or_insert(Chase { of: commit, reached: commit, rounds: 0 });
        if shown >= chase.reached {
            chase.rounds += 1;
            chase.reached = commit;
        }
        if chase.rounds >= self.depth {
            self.complete = self.complete.max(chase.of);
            self.chase = None;
        }
        self.complete
    }

    /// As of the last [`Outputs::complete`].
    pub fn consumed(&self) -> impl Iterator<Item = (RelationId, CommitId)> {
        self.by_query.values().map(|output| (output.query, output.visible))
    }
}

fn pump(output: &mut Output, log: &LogHandle, waker: &Waker) -> Result<()> {
    output.poll(waker)?;
    output.submit(log)?;
    output.poll(waker)?;
    // The committer is slower than the query: wait for it.
    while output.is_too_much() && output.under_way.is_some() && output.refused.is_none() {
        output.wait()?;
        output.submit(log)?;
    }
    match (&output.refused, output.is_too_much()) {
        (Some(error), true) => Err(error.clone().with_hint("the query goes on when the server is started again")),
        _ => output.poll(waker),
    }
}
