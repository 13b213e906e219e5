//! The engine: one thread that turns commits into snapshots.
//!
//! ```text
//!   loop:  commands (subscribe, …) ─► commits after the last step ─► graph.step ─► publish a snapshot ─► tell subscribers
//!                                        ▲                              │           └► now and then: checkpoint
//!                                        └── committer ◄── outputs ◄────┘
//! ```
//!
//! The catalog is in the log too, so views come and go at commits. A new view is brought up to date in a graph of its own, on a
//! thread of its own ([`build`]), and adopted between two steps: the views beside it never wait for its history. Its commit is
//! written when it is ready, and a new definition takes the old one's place in the same way ([`swap`]).
//!
//! Invariants: a snapshot holds every relation at the same commit, and snapshots only move forward. What a step publishes depends
//! on the commits alone, not on how they were cut into steps, on the number of workers, or on restarts.

mod build;
mod checkpoint;
mod handle;
mod output;
mod pause;
#[cfg(feature = "planted-bugs")]
mod planted;
mod progress;
mod resume;
mod subscribe;
mod swap;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_channel::oneshot;

use self::build::Builds;
use self::checkpoint::Checkpointer;
use self::handle::{Command, Shared};
use self::output::Outputs;
use self::pause::Pauses;
use self::subscribe::Subscribers;
use self::swap::Swap;
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId};
use crate::error::{Error, Result};
use crate::flow::sink::{Sink, Target};
use crate::flow::{Fragment, Graph, Input};
use crate::limits;
use crate::log::layout::Layout;
use crate::log::{Commit, CommitId};
use crate::view::{Snapshot, Store};

pub use handle::EngineHandle;
pub use output::{Inlet, Intake};
pub use progress::Backfill;
pub use subscribe::{Source, Span, Subscribe, Subscription, Update};
pub use swap::{Prepared, Rebuild};

/// Turns a view's definition into operators. The planner does it; the engine must not know SQL.
pub trait Compiler: Send + Sync + 'static {
    fn compile(&self, catalog: &Arc<Catalog>, view: &Relation) -> Result<Fragment>;
}

/// How the engine is run.
#[derive(Clone, Debug)]
pub struct Options {
    pub workers: usize,
    pub checkpoint_interval: Duration,
    /// Rows after which a step is cut; small in tests, so that steps are many.
    pub step_rows: usize,
    /// Commits after which a step is cut.
    pub step_commits: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            workers: 1,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            step_rows: limits::STEP_ROWS,
            step_commits: limits::STEP_COMMITS,
        }
    }
}

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The commit of the checkpoint that was loaded.
    pub checkpoint: Option<CommitId>,
    /// Commits replayed after it.
    pub replayed: u64,
    /// Views that are rebuilt from the log, and why.
    pub rebuilt: Vec<(String, String)>,
}

/// Makes of a query's definition what runs it.
#[derive(Clone)]
struct Makers {
    compiler: Arc<dyn Compiler>,
    intake: Arc<dyn Intake>,
}

/// The engine's own side: everything that only its thread touches.
struct Engine {
    shared: Arc<Shared>,
    makers: Makers,
    options: Options,
    graph: Graph,
    /// The commit that the graph has reached.
    commit: CommitId,
    catalog: Catalog,
    /// Catalog changes up to here are in the catalog and in the graph: a replay passes over them.
    known_changes: CommitId,
    /// Among those are the ones that paused views which run until then.
    pauses: Pauses,
    builds: Builds,
    outputs: Outputs,
    drains: Vec<(CommitId, oneshot::Sender<()>)>,
    subscribers: Subscribers,
    checkpointer: Checkpointer,
    /// The snapshot to come; relations that changed are replaced in it before it is published.
    next: Snapshot,
}

impl Engine {
    /// The whole of what the engine does.
    fn run(mut self) -> Result<()> {
        loop {
            let closing = self.shared.closing.load(Ordering::SeqCst);
            self.obey_commands();
            let worked = self.advance(self.shared.log.end())?;
            self.adopt_finished_builds()?;
            self.pump_outputs();
            self.checkpoint_if_due(closing && !worked)?;
            if closing && !worked {
                return self.checkpointer.finish();
            }
            if !worked {
                self.shared.log.wait_past(self.commit, self.checkpointer.time_left().min(self.builds.patience()));
            }
        }
    }

    fn catch_up(&mut self, end: CommitId) -> Result<()> {
        while self.commit < end {
            self.advance(end)?;
        }
        self.publish();
        Ok(())
    }

    /// Run the next commits, as many as a step takes, through the graph. Says whether there were any.
    fn advance(&mut self, end: CommitId) -> Result<bool> {
        if self.commit >= end {
            return Ok(false);
        }
        let upto = end.min(self.commit + self.options.step_commits as u64).min(self.subscribers.stop_after(self.commit));
        let upto = self.outputs.cut(self.commit, upto);
        let commits = self.shared.log.read(&self.shared.log.catalog(), self.commit, upto, self.options.step_rows)?;
        #[cfg(feature = "planted-bugs")]
        let commits = planted::replayed(commits, self.known_changes);
        let mut run = Vec::new();
        for commit in commits {
            if let Some(views) = self.pauses.remove(&commit.id) {
                run.push(commit);
                self.step(std::mem::take(&mut run));
                self.pause(&views);
                continue;
            }
            if commit.changes.is_empty() || commit.id <= self.known_changes {
                run.push(commit);
                continue;
            }
            // Relations change between commits: those before this one first, then its tables, its rows, its views.
            self.step(std::mem::take(&mut run));
            let build = self.take_prepared(&commit);
            let (paused, resumed) = pause::paused_or_resumed(&commit, &self.catalog);
            // Nothing is written from the commit on that says so.
            for id in &paused {
                self.outputs.finish(*id);
                self.next.failures.remove(id);
            }
            self.enter_changes(&commit);
            let swap = self.swap(&commit, build);
            self.tell_swapped(&commit, &swap);
            self.step(vec![Arc::clone(&commit)]);
            self.obey_changes(&commit, swap);
            resumed.into_iter().for_each(|id| self.resume_output(id));
            if !paused.is_empty() {
                self.pause(&paused);
            }
        }
        self.step(run);
        Ok(true)
    }

    fn step(&mut self, commits: Vec<Arc<Commit>>) {
        let Some(last) = commits.last() else { return };
        let result = self.graph.step(&commits, &[]);
        self.commit = last.id;
        for header in commits.iter().flat_map(|commit| &commit.batches).map(|batch| &batch.header) {
            if let Some((_, latest)) = header.event_times {
                let newest = self.next.newest.entry(header.relation).or_insert(latest);
                *newest = latest.max(*newest);
            }
        }
        self.next.commit = last.id;
        self.next.time = last.time;
        self.outputs.take(&result, last.id, |id| self.graph.watermark(id));
        for (target, error) in result.failures {
            self.stop_query(target, error);
        }
        let failed = self.outputs.pump();
        self.stop_outputs(failed);
        let changed: HashSet<Target> = result.changes.iter().map(|(target, _)| *target).collect();
        #[cfg(feature = "planted-bugs")]
        let before = self.next.clone();
        self.refresh(changed.iter().copied());
        let snapshot = self.snapshot();
        #[cfg(feature = "planted-bugs")]
        let snapshot = planted::published(snapshot, &before, &changed);
        self.shared.publish(snapshot);
        self.subscribers.tell(last.id, last.time, &result.changes);
        self.remove_queries_without_readers();
    }

    /// Put the new rows of these relations into the snapshot to come.
    fn refresh(&mut self, changed: impl IntoIterator<Item = Target>) {
        for target in changed {
            if let (Target::Relation(id), Some(version)) = (target, self.graph.version(target)) {
                self.next.versions.insert(id, version);
            }
        }
    }

    fn publish(&mut self) {
        let snapshot = self.snapshot();
        self.shared.publish(snapshot);
    }

    fn snapshot(&mut self) -> Snapshot {
        self.next.watermarks = self.graph.watermarks().collect();
        self.next.complete = self.outputs.complete(self.commit);
        self.next.consumed = self.outputs.consumed().collect();
        self.next.nulled = self.graph.nulled().collect();
        self.next.clone()
    }

    fn stop_query(&mut self, target: Target, error: Error) {
        match target {
            Target::Relation(id) | Target::Output(id) => {
                let name = self.catalog.get(id).map_or_else(|| id.to_string(), |r| r.full_name().to_string());
                tracing::error!(view = name, %error, "a query has stopped; its rows stay as they were");
                self.outputs.remove(id);
                self.next.failures.insert(id, error);
            }
            Target::Query(query) => self.subscribers.fail(query, error),
            // Who waits for it builds it again, and meets the error there.
            Target::Staged(_) => {
                let build = self.builds.prepared.iter().find(|build| build.has_staged(target));
                build.iter().for_each(|build| build.abandoned.store(true, Ordering::SeqCst));
            }
        }
    }

    /// Queries whose rows cannot be written.
    fn stop_outputs(&mut self, failed: Vec<(RelationId, Error)>) {
        for (query, error) in failed {
            self.graph.remove(Target::Output(query));
            self.stop_query(Target::Output(query), error);
        }
    }

    /// Hear what the log has taken; readers may wait for it.
    fn pump_outputs(&mut self) {
        let failed = self.outputs.pump();
        let any_failed = !failed.is_empty();
        self.stop_outputs(failed);
        if self.outputs.complete(self.commit) > self.next.complete || any_failed {
            self.publish();
        }
        let (complete, refused) = (self.next.complete, self.outputs.is_refused() || self.shared.log.has_stopped());
        let drains = std::mem::take(&mut self.drains);
        let (done, waiting): (Vec<_>, _) = drains.into_iter().partition(|(upto, _)| refused || complete >= *upto);
        self.drains = waiting;
        for (_, tell) in done {
            let _ = tell.send(());
        }
    }

    fn remove_queries_without_readers(&mut self) {
        for query in self.subscribers.take_abandoned() {
            self.graph.remove(Target::Query(query));
        }
    }

    /// The catalog of a commit belongs to its snapshot; and its tables must be there for its rows.
    fn enter_changes(&mut self, commit: &Commit) {
        commit.changes.iter().for_each(|change| self.catalog.apply(change));
        self.next.catalog = Arc::new(self.catalog.clone());
        for change in &commit.changes {
            if let Change::Create(relation) = change
                && relation.kind == Kind::Table
            {
                let store = Store::new("rows", relation.stored_schema(), relation.stored_key());
                self.graph.add_table(relation.id, Sink::table(relation.id, store));
                self.checkpointer.entered(relation.id, checkpoint::fingerprint(None, relation));
                self.refresh([Target::Relation(relation.id)]);
            }
            if let Change::Alter(relation) = change
                && relation.kind == Kind::Table
                && let Err(error) = self.alter_table(relation)
            {
                self.stop_query(Target::Relation(relation.id), error);
            }
        }
    }

    /// The rows of a table with the columns that it has now.
    fn alter_table(&mut self, table: &Relation) -> Result<()> {
        let target = Target::Relation(table.id);
        let Some(version) = self.graph.version(target) else { return Ok(()) };
        let layout = Layout::of(table)?;
        if version.schema() == layout.schema {
            return Ok(());
        }
        let mut store = Store::new("rows", Arc::clone(&layout.schema), table.stored_key());
        for rows in version.scan(None)? {
            store.upsert(&layout.widen(rows)?)?;
        }
        self.graph.replace_sink(Sink::table(table.id, store));
        self.checkpointer.entered(table.id, checkpoint::fingerprint(None, table));
        self.checkpointer.hurry();
        self.refresh([target]);
        Ok(())
    }

    /// Begin and end what a commit's changes of the catalog ask for.
    fn obey_changes(&mut self, commit: &Commit, swap: Swap) {
        for change in &commit.changes {
            match change {
                Change::Create(relation) | Change::Replace(relation)
                    if runs(relation) && !swap.done.contains(&owner_of(relation)) =>
                {
                    self.build_view(relation);
                }
                Change::Drop(id) => self.drop_relation(*id),
                // Who may read a view does not change what is in it.
                Change::Create(_) | Change::Alter(_) | Change::Replace(_) => {}
                Change::SetRole(_) | Change::DropRole(_) | Change::SetAccess(..) => {}
                // What runs keeps the functions that it was made with.
                Change::SetFunction(_) | Change::DropFunction(_) => {}
                Change::SetSchema(_) | Change::DropSchema(_) => {}
            }
        }
        self.publish();
    }

    fn drop_relation(&mut self, id: RelationId) {
        self.end_readers(id, &Error::undefined_table("a relation that the query reads was dropped"));
        self.graph.remove(Target::Relation(id));
        self.graph.remove(Target::Output(id));
        self.outputs.remove(id);
        self.builds.abandon(Target::Relation(id));
        self.builds.abandon(Target::Output(id));
        self.next.versions.remove(&id);
        self.next.failures.remove(&id);
        self.next.watermarks.remove(&id);
        self.next.newest.remove(&id);
        self.subscribers.fail_relation(id);
    }

    fn obey_commands(&mut self) {
        let commands = std::mem::take(&mut *self.shared.commands.lock());
        for command in commands {
            match command {
                Command::Subscribe(request) => self.start_subscription(*request),
                Command::Prepare(request) => self.prepare(*request),
                Command::Checkpoint(tell) => self.checkpointer.ask(tell),
                Command::Drain(upto, tell) => self.drains.push((upto, tell)),
            }
        }
    }

    fn checkpoint_if_due(&mut self, now: bool) -> Result<()> {
        if !self.checkpointer.is_due(now, self.commit) {
            return Ok(());
        }
        let (settled, failed) = self.outputs.settle();
        self.stop_outputs(failed);
        if !settled {
            self.checkpointer.put_off();
            return Ok(());
        }
        self.checkpointer.write(&mut self.graph, &self.next, now)
    }
}

/// Its query runs, and its rows are kept or written.
fn runs(relation: &Relation) -> bool {
    relation.kind == Kind::MaterializedView || relation.output.is_some()
}

/// Whose the nodes of a relation are.
fn owner_of(relation: &Relation) -> Target {
    if relation.output.is_some() { Target::Output(relation.id) } else { Target::Relation(relation.id) }
}

/// The streams, tables and views that a build must wait for or read.
fn inputs_of(fragment: &Fragment, catalog: &Catalog) -> (Vec<RelationId>, Vec<RelationId>) {
    let is_stream = |id: RelationId| catalog.get(id).is_some_and(|r| r.kind == Kind::Stream);
    let (mut replayed, mut fed) = (Vec::new(), Vec::new());
    for input in fragment.inputs() {
        match input {
            Input::Relation(id) | Input::WithHidden(id) if is_stream(id) => replayed.push(id),
            Input::Versions { table, .. } => replayed.push(table),
            Input::Relation(id) | Input::WithHidden(id) => fed.push(id),
            Input::Node { .. } => {}
        }
    }
    for ids in [&mut replayed, &mut fed] {
        ids.sort_unstable();
        ids.dedup();
    }
    (replayed, fed)
}
