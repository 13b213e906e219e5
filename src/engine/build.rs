//! Builds: bringing a new query up to date with the log, beside the running ones.
//!
//! The query's nodes live in a graph of their own (a nursery). A thread replays the commits of the streams it reads up to where
//! the engine was; the engine then runs the few commits since, feeds the current rows of the tables and views that it reads,
//! and takes the nodes over. While the thread has far to go, the engine goes on without it.
//!
//! A query that writes to the log must say at every commit just what it said before a restart. So it is fed nothing: its nursery
//! has the tables and views that it reads, too, and replays them from the log; what the engine has of them is left behind when
//! it takes the query over. What the replay gives is written on the way, each step a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::checkpoint::fingerprint;
use super::output::Output;
use super::subscribe::Tap;
use super::{Engine, inputs_of, owner_of};
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result, SqlState};
use crate::flow::sink::{Sink, Target};
use crate::flow::{Fragment, Graph, Input, StepResult};
use crate::log::{CommitId, LogHandle};
use crate::time::Micros;
use crate::view::Store;

/// Commits that the engine may run for a build on its own thread before it sends it back to its own.
const LAST_COMMITS: u64 = 256;

/// A query under construction.
pub(super) struct Build {
    target: Target,
    graph: Graph,
    /// Of the log, those that it replays.
    streams: Catalog,
    /// Tables and views whose rows it is fed at the end, or whose place the engine's take.
    fed: Vec<RelationId>,
    /// Tables and views that it has computed itself, and that the engine must have, too, before it takes over.
    doubled: Vec<RelationId>,
    /// What it writes to the log.
    output: Option<Output>,
    /// Commits replayed.
    commit: CommitId,
    /// What its state is made by, if it is to be kept.
    fingerprint: Option<String>,
    /// Who gets the changes of the replay, for queries that keep none.
    tap: Option<Tap>,
    abandoned: Arc<AtomicBool>,
}

/// A build on its thread: whose it is, how to end it, and what it gives back.
type Running = (Target, Arc<AtomicBool>, JoinHandle<(Build, Result<()>)>);

#[derive(Default)]
pub(super) struct Builds {
    running: Vec<Running>,
    /// Those that wait for a view that is itself under construction.
    waiting: Vec<Build>,
}

impl Builds {
    /// How long the engine may sleep without looking at the builds.
    pub fn patience(&self) -> Duration {
        if self.running.is_empty() && self.waiting.is_empty() { Duration::from_secs(1) } else { Duration::from_millis(1) }
    }

    pub fn abandon(&mut self, relation: RelationId) {
        self.waiting.retain(|build| build.target.relation() != Some(relation));
        for (_, abandoned, _) in self.running.iter().filter(|(target, _, _)| target.relation() == Some(relation)) {
            abandoned.store(true, Ordering::SeqCst);
        }
    }

    fn start(&mut self, build: Build, upto: CommitId, log: LogHandle, step_rows: usize) -> Result<()> {
        let (target, abandoned) = (build.target, Arc::clone(&build.abandoned));
        let run = move || {
            let mut build = build;
            let result = build.replay(&log, upto, step_rows, true);
            log.wake();
            (build, result)
        };
        let thread = std::thread::Builder::new().name("build".into()).spawn(run)?;
        self.running.push((target, abandoned, thread));
        Ok(())
    }
}

impl Build {
    /// Run the commits after the last one, up to `upto`, of the streams that it reads. If `patient`, wait for a slow client.
    fn replay(&mut self, log: &LogHandle, upto: CommitId, step_rows: usize, patient: bool) -> Result<()> {
        if self.streams.relations().next().is_none() && !self.tap.as_ref().is_some_and(Tap::looks_back) {
            self.commit = upto;
        }
        while self.commit < upto && !self.abandoned.load(Ordering::SeqCst) {
            let stop = self.tap.as_ref().map_or(upto, |tap| tap.stop_after(self.commit).min(upto));
            let stop = self.output.as_ref().map_or(stop, |output| output.cut(self.commit, stop));
            let commits = log.read(&self.streams, self.commit, stop, step_rows)?;
            let Some(last) = commits.last() else { break };
            let (id, time) = (last.id, last.time);
            let result = self.graph.step(&commits, &[]);
            self.commit = id;
            if let Some(output) = &mut self.output {
                output.take(&result, id, |stream| self.graph.watermark(stream));
                while patient && let Err(error) = output.flush(log) {
                    if error.state() != SqlState::DiskFull || self.abandoned.load(Ordering::SeqCst) {
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            self.pass_on(result, id, time, patient)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, mut result: StepResult, commit: CommitId, time: Micros, patient: bool) -> Result<()> {
        if let Some((_, error)) = result.failures.pop() {
            return Err(error);
        }
        let Some(tap) = &mut self.tap else { return Ok(()) };
        let rows = if tap.begins_at(commit) { self.graph.version(tap.target) } else { None };
        if tap.pass(commit, time, result.changes, rows, patient)? {
            self.abandoned.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A graph for a subscriber to a former commit, see [`super::resume`].
pub(super) struct Replay {
    pub graph: Graph,
    /// Streams and tables whose records it reads.
    pub log: Catalog,
    pub doubled: Vec<RelationId>,
    /// The commit that it is at.
    pub commit: CommitId,
}

impl Engine {
    /// Begin to build a view that a commit has created.
    pub(super) fn build_view(&mut self, view: &Relation) {
        match self.try_build_view(view) {
            Ok(()) => {}
            Err(error) => self.stop_query(owner_of(view), error),
        }
    }

    fn try_build_view(&mut self, view: &Relation) -> Result<()> {
        let catalog = Arc::clone(&self.next.catalog);
        let fragment = self.makers.compiler.compile(&catalog, view)?;
        let fingerprint = fingerprint(Some(&fragment), view);
        if view.output.is_some() {
            return self.begin_output(view, fragment, fingerprint, &catalog);
        }
        let sinks = sinks_of(view, &fragment, &catalog);
        self.begin(Target::Relation(view.id), fragment, sinks, Some(fingerprint), None)
    }

    /// Begin to build a query that writes to the log.
    fn begin_output(&mut self, query: &Relation, fragment: Fragment, fingerprint: String, catalog: &Arc<Catalog>) -> Result<()> {
        let output = Output::open(&self.shared.log, catalog, query, &fragment, self.makers.intake.as_ref())?;
        let (_, fed) = inputs_of(&fragment, catalog);
        let (mut graph, mut replayed) = (self.graph.nursery(), Catalog::default());
        self.add_inputs(&mut graph, &mut replayed, &fragment, catalog)?;
        let sinks = sinks_of(query, &fragment, catalog);
        let target = owner_of(query);
        graph.add(target, fragment, sinks)?;
        let build = Build {
            target,
            graph,
            streams: replayed,
            fed,
            doubled: Vec::new(),
            output: Some(output),
            commit: 0,
            fingerprint: Some(fingerprint),
            tap: None,
            abandoned: Arc::default(),
        };
        self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)
    }

    /// All that a query reads, down to the log.
    fn add_inputs(&self, graph: &mut Graph, replayed: &mut Catalog, fragment: &Fragment, catalog: &Arc<Catalog>) -> Result<()> {
        for id in fragment.reads() {
            let found = |id| catalog.get(id).ok_or_else(|| Error::undefined_table("a relation that the query reads is gone"));
            let mut relation = found(id)?;
            if let (Kind::Late, Some(of)) = (relation.kind, relation.parent) {
                relation = found(of)?;
            }
            if relation.kind.in_log() && relation.id == id {
                if replayed.get(id).is_none() && relation.kind == Kind::Table {
                    let store = Store::new("rows", relation.stored_schema(), relation.stored_key());
                    graph.add_table(id, Sink::table(id, store));
                }
                replayed.apply(&Change::Create(Relation::clone(relation)));
            } else if !graph.owners().contains(&owner_of(relation)) {
                let fragment = self.makers.compiler.compile(catalog, relation)?;
                self.add_inputs(graph, replayed, &fragment, catalog)?;
                let sinks = sinks_of(relation, &fragment, catalog);
                graph.add(owner_of(relation), fragment, sinks)?;
            }
        }
        Ok(())
    }

    /// Begin to build a query. `tap` gets the changes of the replay.
    pub(super) fn begin(
        &mut self,
        target: Target,
        fragment: Fragment,
        sinks: Vec<(Vec<Input>, Sink)>,
        fingerprint: Option<String>,
        tap: Option<Tap>,
    ) -> Result<()> {
        let (streams, fed) = inputs_of(&fragment, &self.catalog);
        let mut replayed = Catalog::default();
        for id in &streams {
            let relation =
                self.catalog.get(*id).ok_or_else(|| Error::undefined_table("a stream that the query reads is gone"))?;
            replayed.apply(&Change::Create(Relation::clone(relation)));
        }
        let mut graph = self.graph.nursery();
        graph.add(target, fragment, sinks)?;
        graph.await_feed(&fed);
        let doubled = Vec::new();
        let build = Build {
            target,
            graph,
            streams: replayed,
            fed,
            doubled,
            output: None,
            commit: 0,
            fingerprint,
            tap,
            abandoned: Arc::default(),
        };
        self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)
    }

    /// Begin to replay for a subscriber, from `commit` on, in a graph that has all that it reads.
    pub(super) fn begin_replay(&mut self, query: u64, replay: Replay, tap: Tap) -> Result<()> {
        let Replay { graph, log, doubled, commit } = replay;
        let (target, fed) = (Target::Query(query), Vec::new());
        let tap = Some(tap);
        let build = Build {
            target,
            graph,
            streams: log,
            fed,
            doubled,
            output: None,
            commit,
            fingerprint: None,
            tap,
            abandoned: Arc::default(),
        };
        self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)
    }

    /// Take over the builds that have come far enough.
    pub(super) fn adopt_finished_builds(&mut self) -> Result<()> {
        let (finished, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.builds.running).into_iter().partition(|(_, _, t)| t.is_finished());
        self.builds.running = running;
        for (target, abandoned, thread) in finished {
            match thread.join() {
                Ok(_) if abandoned.load(Ordering::SeqCst) => {}
                Ok((build, Ok(()))) => self.builds.waiting.push(build),
                Ok((_, Err(error))) => self.stop_build(target, error),
                Err(_) => self.stop_build(target, Error::internal("the build of the view panicked")),
            }
        }
        // In the order of their targets, so that a view comes after those that it reads.
        let mut waiting = std::mem::take(&mut self.builds.waiting);
        waiting.sort_by_key(|build| build.target);
        for build in waiting {
            if build.abandoned.load(Ordering::SeqCst) {
                continue;
            }
            if let Some(failed) = build.fed.iter().find(|id| self.next.failures.contains_key(id)) {
                let name = self.catalog.get(*failed).map_or_else(|| failed.to_string(), |r| r.name.clone());
                self.stop_build(build.target, Error::not_ready(format!("\"{name}\", which it reads, has stopped")));
            } else if build.doubled.iter().any(|id| self.catalog.get(*id).is_none()) {
                self.stop_build(build.target, Error::undefined_table("a relation that it reads was dropped"));
            } else if build.fed.iter().chain(&build.doubled).any(|id| !self.graph.has(Target::Relation(*id))) {
                self.builds.waiting.push(build);
            } else if self.commit - build.commit > LAST_COMMITS {
                self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)?;
            } else {
                let target = build.target;
                if let Err(error) = self.adopt(build) {
                    self.stop_build(target, error);
                }
            }
        }
        Ok(())
    }

    /// Give a build what the tables and views that it reads hold now.
    fn feed(&mut self, build: &mut Build) -> Result<()> {
        let mut fed = Vec::new();
        for id in &build.fed {
            if let Some(version) = self.graph.version(Target::Relation(*id)) {
                fed.extend(version.scan(None)?.into_iter().map(|rows| (*id, Delta::append(rows))));
            }
        }
        // After it, the frontier is the engine's own.
        build.graph.set_watermarks(self.graph.watermarks());
        build.graph.set_now(self.next.time);
        let result = build.graph.feed(&fed);
        build.pass_on(result, self.commit, self.next.time, false)
    }

    fn stop_build(&mut self, target: Target, error: Error) {
        self.stop_query(target, error);
        self.publish();
    }

    fn adopt(&mut self, mut build: Build) -> Result<()> {
        build.replay(&self.shared.log, self.commit, self.options.step_rows, false)?;
        if build.abandoned.load(Ordering::SeqCst) {
            return Ok(());
        }
        match build.output.take() {
            Some(output) => {
                build.graph.detach(build.target);
                self.outputs.add(output, &self.catalog);
            }
            None => self.feed(&mut build)?,
        }
        let target = build.target;
        if let Some(tap) = &build.tap {
            self.subscribers.follow(target, tap.target);
        }
        self.graph.adopt(build.graph);
        self.subscribers.adopted(target, self.commit, self.next.time, self.graph.version(target))?;
        if let Some(id) = target.relation() {
            let late = late_relation(&self.catalog, id).map(|late| Target::Relation(late.id));
            self.refresh([Some(target), late].into_iter().flatten());
            self.next.failures.remove(&id);
            self.checkpointer.entered(id, build.fingerprint.unwrap_or_default());
        }
        self.publish();
        Ok(())
    }
}

/// The relation of a query's late rows.
pub(super) fn late_relation(catalog: &Catalog, view: RelationId) -> Option<&Arc<Relation>> {
    catalog.relations().find(|r| r.kind == Kind::Late && r.parent == Some(view))
}

/// Where the rows of a query go, and where its late rows are kept.
pub(super) fn sinks_of(view: &Relation, fragment: &Fragment, catalog: &Catalog) -> Vec<(Vec<Input>, Sink)> {
    let sink = match view.output {
        Some(_) => Sink::changes(owner_of(view), Arc::clone(&fragment.edge.schema)),
        None => Sink::view(view.id, Store::new("rows", view.schema(), view.primary_key.clone())),
    };
    let mut sinks = vec![(fragment.output.clone(), sink)];
    if let Some(late) = late_relation(catalog, view.id) {
        sinks.push((fragment.late.clone(), Sink::view(late.id, Store::new("rows", late.schema(), Vec::new()))));
    }
    sinks
}
