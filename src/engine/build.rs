//! Builds: bringing queries up to date with the log, beside the running ones.
//!
//! The nodes live in a graph of their own (a nursery). A thread replays the commits of the streams they read up to where the
//! engine was; the engine then runs the few commits since, feeds the current rows of the tables and views that they read,
//! and takes the nodes over. While the thread has far to go, the engine goes on without it.
//!
//! A build is of one query, or of a view with those that read it: they are replaced together ([`super::swap`]).
//!
//! A query that writes to the log must say at every commit just what it said before a restart, and a view that is shown with a
//! delay what was there some time ago. So such a query is fed nothing: its nursery has the tables and views that it reads, too, and
//! replays them from the log; what the engine has of them is left behind when it takes the query over. What is to be written is
//! written on the way, each step a transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::checkpoint::fingerprint;
use super::output::Output;
use super::progress::Progress;
use super::subscribe::Tap;
use super::swap::Awaited;
use super::{Engine, inputs_of, owner_of};
use crate::catalog::{Catalog, Change, Emit, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result, SqlState};
use crate::flow::sink::{Sink, Target};
use crate::flow::{Fragment, Graph, Input, StepResult};
use crate::log::{CommitId, LogHandle};
use crate::time::Micros;
use crate::view::Store;

/// Commits that the engine may run for a build on its own thread before it sends it back to its own.
const LAST_COMMITS: u64 = 256;

/// Queries under construction.
pub(super) struct Build {
    /// Those that read others come after them.
    pub parts: Vec<Part>,
    graph: Graph,
    /// Of the log, those that it replays.
    streams: Vec<RelationId>,
    /// Tables and views whose rows it is fed at the end, or whose place the engine's take.
    fed: Vec<RelationId>,
    /// Tables and views that it has computed itself, and that the engine must have, too, before it takes over.
    doubled: Vec<RelationId>,
    /// It has replayed all that it reads, and is fed nothing.
    whole: bool,
    /// What it writes to the log.
    output: Option<Output>,
    /// Commits replayed.
    commit: CommitId,
    /// Who gets the changes of the replay, for queries that keep none.
    tap: Option<Tap>,
    /// The commit that it is for; `None`: it is taken over as soon as it is up to date.
    pub awaited: Option<Awaited>,
    pub abandoned: Arc<AtomicBool>,
    progress: Option<Arc<Progress>>,
    /// Once its nodes run in the engine's graph, but for a commit to come: what they are called, and what they will be.
    staged: HashMap<Target, Target>,
}

/// One of the queries of a build.
pub(super) struct Part {
    pub target: Target,
    /// What its state is made by, if it is to be kept.
    pub fingerprint: Option<String>,
}

/// A query to be built: its operators, and where its rows go.
pub(super) struct Plan {
    pub part: Part,
    pub fragment: Fragment,
    pub sinks: Vec<(Vec<Input>, Sink)>,
    /// It is fed nothing.
    pub whole: bool,
}

impl Plan {
    pub fn of_view(view: &Relation, fragment: Fragment, catalog: &Catalog) -> Plan {
        let sinks = sinks_of(view, &fragment, catalog);
        let fingerprint = Some(fingerprint(Some(&fragment), view));
        let whole = matches!(view.emit, Emit::Every(_));
        Plan { part: Part { target: owner_of(view), fingerprint }, fragment, sinks, whole }
    }
}

/// A build on its thread: whose it is, how to end it, and what it gives back.
struct Running {
    targets: Vec<Target>,
    abandoned: Arc<AtomicBool>,
    thread: JoinHandle<(Build, Result<()>)>,
}

#[derive(Default)]
pub(super) struct Builds {
    running: Vec<Running>,
    /// Those that wait for a view that is itself under construction.
    waiting: Vec<Build>,
    /// Those that wait for their commit.
    pub prepared: Vec<Build>,
}

impl Builds {
    /// How long the engine may sleep without looking at the builds.
    pub fn patience(&self) -> Duration {
        if self.running.is_empty() && self.waiting.is_empty() { Duration::from_secs(1) } else { Duration::from_millis(1) }
    }

    /// Give up what would take over this target as soon as it is up to date.
    pub fn abandon(&mut self, target: Target) {
        self.waiting.retain(|build| build.awaited.is_some() || build.parts.iter().all(|part| part.target != target));
        for running in self.running.iter().filter(|running| running.targets.contains(&target)) {
            running.abandoned.store(true, Ordering::SeqCst);
        }
    }

    /// The same, and return when nothing of it runs any more.
    pub fn end(&mut self, target: Target) {
        self.abandon(target);
        for running in self.running.extract_if(.., |running| running.targets.contains(&target)) {
            // It was asked to end before its next step; what it has built is dropped.
            let _ = running.thread.join();
        }
    }

    fn start(&mut self, build: Build, upto: CommitId, log: LogHandle, step_rows: usize) -> Result<()> {
        // A build that waits for its commit is given up by who asked for it.
        let own = build.awaited.is_none();
        let targets = build.parts.iter().filter(|_| own).map(|part| part.target).collect();
        let abandoned = Arc::clone(&build.abandoned);
        let run = move || {
            let mut build = build;
            let result = build.replay(&log, upto, step_rows, true);
            log.wake();
            (build, result)
        };
        let thread = std::thread::Builder::new().name("build".into()).spawn(run)?;
        self.running.push(Running { targets, abandoned, thread });
        Ok(())
    }
}

impl Build {
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    pub fn reads(&self, relation: RelationId) -> bool {
        self.fed.contains(&relation)
    }

    /// Whether these are its nodes.
    pub fn has_staged(&self, target: Target) -> bool {
        self.staged.contains_key(&target)
    }

    /// Run the commits after the last one, up to `upto`, of the streams that it reads. If `patient`, wait for a slow client.
    fn replay(&mut self, log: &LogHandle, upto: CommitId, step_rows: usize, patient: bool) -> Result<()> {
        if self.streams.is_empty() && !self.tap.as_ref().is_some_and(Tap::looks_back) {
            self.commit = upto;
        }
        while self.commit < upto && !self.is_abandoned() {
            let stop = self.tap.as_ref().map_or(upto, |tap| tap.stop_after(self.commit).min(upto));
            let stop = self.output.as_ref().map_or(stop, |output| output.cut(self.commit, stop));
            let commits = log.read(&only(&log.catalog(), &self.streams), self.commit, stop, step_rows)?;
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
            self.advanced(commits.iter().map(|commit| commit.rows()).sum());
            self.pass_on(result, id, time, patient)?;
        }
        Ok(())
    }

    fn advanced(&self, rows: usize) {
        self.progress.iter().for_each(|progress| progress.advance(rows, self.commit));
    }

    fn pass_on(&mut self, mut result: StepResult, commit: CommitId, time: Micros, patient: bool) -> Result<()> {
        // The first is the cause of those after it.
        if !result.failures.is_empty() {
            return Err(result.failures.swap_remove(0).1);
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

/// The catalog of these relations alone.
fn only(catalog: &Catalog, ids: &[RelationId]) -> Catalog {
    let mut some = Catalog::default();
    let relations = ids.iter().filter_map(|id| catalog.get(*id));
    relations.for_each(|relation| some.apply(&Change::Create(Relation::clone(relation))));
    some
}

impl Engine {
    /// Begin to build a view that is in the catalog and has no rows.
    pub(super) fn build_view(&mut self, view: &Relation) {
        match self.try_build_view(view) {
            Ok(()) => {}
            Err(error) => self.stop_query(owner_of(view), error),
        }
    }

    /// Build the views anew that stopped in a replay, and wait for them. A replay runs through all that tables ever held; what is built
    /// is fed the rows that they hold now, and may well take those.
    pub(super) fn build_stopped(&mut self) -> Result<()> {
        let stopped = |view: &&Arc<Relation>| {
            view.kind == Kind::MaterializedView && view.paused.is_none() && self.next.failures.contains_key(&view.id)
        };
        let views: Vec<Arc<Relation>> = self.catalog.in_order().into_iter().filter(stopped).cloned().collect();
        for view in &views {
            self.next.failures.remove(&view.id);
            self.next.versions.remove(&view.id);
        }
        views.iter().for_each(|view| self.build_view(view));
        let under_way = |engine: &Engine| {
            let settled =
                |view: &Arc<Relation>| engine.graph.has(Target::Relation(view.id)) || engine.next.failures.contains_key(&view.id);
            !views.iter().all(settled) && !engine.builds.running.is_empty()
        };
        while under_way(self) {
            std::thread::sleep(Duration::from_millis(1));
            self.adopt_finished_builds()?;
        }
        self.publish();
        Ok(())
    }

    fn try_build_view(&mut self, view: &Relation) -> Result<()> {
        let catalog = Arc::clone(&self.next.catalog);
        let fragment = self.makers.compiler.compile(&catalog, view)?;
        if view.output.is_some() {
            return self.begin_output(view, fragment, &catalog);
        }
        self.begin(vec![Plan::of_view(view, fragment, &catalog)], None, &mut None, Arc::default(), &catalog)
    }

    /// Begin to build a query that writes to the log.
    fn begin_output(&mut self, query: &Relation, fragment: Fragment, catalog: &Arc<Catalog>) -> Result<()> {
        let output = Output::open(&self.shared.log, catalog, query, &fragment, self.makers.intake.as_ref())?;
        let (_, fed) = inputs_of(&fragment, catalog);
        let (mut graph, mut replayed) = (self.graph.nursery(), Catalog::default());
        self.add_inputs(&mut graph, &mut replayed, &fragment, catalog)?;
        let Plan { part, fragment, sinks, .. } = Plan::of_view(query, fragment, catalog);
        graph.add(part.target, fragment, sinks)?;
        let streams: Vec<RelationId> = replayed.relations().map(|relation| relation.id).collect();
        let progress = Some(Progress::new(vec![query.full_name()], streams.clone(), Vec::new()));
        progress.iter().for_each(|progress| self.shared.progress.add(progress));
        let build = Build {
            parts: vec![part],
            graph,
            streams,
            fed,
            doubled: Vec::new(),
            whole: true,
            output: Some(output),
            commit: 0,
            tap: None,
            awaited: None,
            abandoned: Arc::default(),
            progress,
            staged: HashMap::new(),
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

    /// Begin to build queries. `tap` gets the changes of the replay. `awaited`: their commit, taken if they could begin.
    /// `catalog`: what the queries are of.
    pub(super) fn begin(
        &mut self,
        plans: Vec<Plan>,
        tap: Option<Tap>,
        awaited: &mut Option<Awaited>,
        abandoned: Arc<AtomicBool>,
        catalog: &Arc<Catalog>,
    ) -> Result<()> {
        let mut graph = self.graph.nursery();
        let whole = plans.iter().any(|plan| plan.whole);
        let mut below = Catalog::default();
        let (mut streams, mut fed, mut parts, mut views) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Plan { part, fragment, sinks, .. } in plans {
            let (replayed, others) = inputs_of(&fragment, catalog);
            let is_own = |id: RelationId| parts.iter().any(|part: &Part| part.target == Target::Relation(view_of(catalog, id)));
            streams.extend(replayed);
            fed.extend(others.into_iter().filter(|id| !is_own(*id)));
            if whole {
                self.add_inputs(&mut graph, &mut below, &fragment, catalog)?;
            }
            graph.add(part.target, fragment, sinks)?;
            if let Target::Relation(id) = part.target {
                views.extend(catalog.get(id).map(|view| view.full_name()));
            }
            parts.push(part);
        }
        streams.extend(below.relations().map(|relation| relation.id));
        for ids in [&mut streams, &mut fed] {
            ids.sort_unstable();
            ids.dedup();
        }
        if streams.iter().any(|id| self.catalog.get(*id).is_none()) {
            return Err(Error::undefined_table("a stream that the query reads is gone"));
        }
        let coming = if whole { Vec::new() } else { fed.clone() };
        graph.await_feed(&coming);
        let progress = (!views.is_empty()).then(|| Progress::new(views, streams.clone(), coming));
        progress.iter().for_each(|progress| self.shared.progress.add(progress));
        let awaited = awaited.take();
        let build = Build {
            parts,
            graph,
            streams,
            fed,
            doubled: Vec::new(),
            whole,
            output: None,
            commit: 0,
            tap,
            awaited,
            abandoned,
            progress,
            staged: HashMap::new(),
        };
        self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)
    }

    /// Begin to replay for a subscriber, from `commit` on, in a graph that has all that it reads.
    pub(super) fn begin_replay(&mut self, query: u64, replay: Replay, tap: Tap) -> Result<()> {
        let Replay { graph, log, doubled, commit } = replay;
        let build = Build {
            parts: vec![Part { target: Target::Query(query), fingerprint: None }],
            graph,
            streams: log.relations().map(|relation| relation.id).collect(),
            fed: Vec::new(),
            doubled,
            whole: false,
            output: None,
            commit,
            tap: Some(tap),
            awaited: None,
            abandoned: Arc::default(),
            progress: None,
            staged: HashMap::new(),
        };
        self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)
    }

    /// Take over the builds that have come far enough.
    pub(super) fn adopt_finished_builds(&mut self) -> Result<()> {
        self.remove_abandoned();
        let (finished, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.builds.running).into_iter().partition(|running| running.thread.is_finished());
        self.builds.running = running;
        for Running { targets, thread, .. } in finished {
            match thread.join() {
                Ok((build, _)) if build.is_abandoned() => {}
                Ok((build, Ok(()))) => self.builds.waiting.push(build),
                Ok((build, Err(error))) => self.stop_build(build, error),
                Err(_) => {
                    let error = Error::internal("the build of the view panicked");
                    targets.into_iter().for_each(|target| self.stop_query(target, error.clone()));
                    self.publish();
                }
            }
        }
        let waiting = std::mem::take(&mut self.builds.waiting);
        for build in waiting.into_iter().filter(|build| !build.is_abandoned()) {
            self.go_on_with(build)?;
        }
        Ok(())
    }

    /// A build that is not on its thread.
    fn go_on_with(&mut self, mut build: Build) -> Result<()> {
        let mut views = build.fed.iter().map(|id| view_of(&self.catalog, *id));
        if let Some(failed) = views.find(|id| self.next.failures.contains_key(id)) {
            let name = self.catalog.get(failed).map_or_else(|| failed.to_string(), |r| r.full_name().to_string());
            self.stop_build(build, Error::not_ready(format!("\"{name}\", which it reads, has stopped")));
        } else if build.fed.iter().chain(&build.doubled).any(|id| self.catalog.get(*id).is_none()) {
            self.stop_build(build, Error::undefined_table("a relation that it reads was dropped"));
        } else if build.fed.iter().chain(&build.doubled).any(|id| !self.graph.has(Target::Relation(*id))) {
            self.builds.waiting.push(build);
        } else if self.commit - build.commit > LAST_COMMITS {
            self.builds.start(build, self.commit, self.shared.log.clone(), self.options.step_rows)?;
        } else if let Err(error) = self.bring_up(&mut build) {
            self.stop_build(build, error);
        } else if build.is_abandoned() {
            // The subscription that it was for came to its end on the way.
        } else if build.awaited.is_some() {
            self.stage(build);
        } else {
            for (part, tap) in build.parts.iter().zip(&build.tap) {
                self.subscribers.follow(part.target, tap.target);
            }
            self.graph.adopt(build.graph);
            self.entered(build.parts)?;
            self.publish();
        }
        Ok(())
    }

    fn stop_build(&mut self, mut build: Build, error: Error) {
        match &mut build.awaited {
            Some(awaited) => awaited.tell(Err(error)),
            None => {
                build.parts.iter().for_each(|part| self.stop_query(part.target, error.clone()));
                self.publish();
            }
        }
    }

    /// The last commits, and the rows of what is kept in the engine's own graph.
    fn bring_up(&mut self, build: &mut Build) -> Result<()> {
        build.replay(&self.shared.log, self.commit, self.options.step_rows, false)?;
        if build.abandoned.load(Ordering::SeqCst) {
            return Ok(());
        }
        if build.whole {
            build.graph.detach(&build.parts.iter().map(|part| part.target).collect::<Vec<_>>());
            build.output.take().into_iter().for_each(|output| self.outputs.add(output, &self.catalog));
            return Ok(());
        }
        let mut fed = Vec::new();
        for id in &build.fed {
            if let Some(version) = self.graph.version(Target::Relation(*id)) {
                fed.extend(version.scan(None)?.into_iter().map(|rows| (*id, Delta::append(rows))));
            }
        }
        build.advanced(fed.iter().map(|(_, delta)| delta.len()).sum());
        // After it, the frontier is the engine's own.
        build.graph.set_watermarks(self.graph.watermarks());
        build.graph.set_now(self.next.time);
        let result = build.graph.feed(&fed);
        build.pass_on(result, self.commit, self.next.time, false)
    }

    /// Let its nodes run with the others, under names of their own, until their commit comes.
    fn stage(&mut self, mut build: Build) {
        let names: HashMap<Target, Target> =
            build.graph.targets().map(|target| (target, Target::Staged(self.shared.next_number()))).collect();
        build.graph.rename(&names);
        let nursery = self.graph.nursery();
        self.graph.adopt(std::mem::replace(&mut build.graph, nursery));
        build.staged = names.into_iter().map(|(target, staged)| (staged, target)).collect();
        build.awaited.iter_mut().for_each(|awaited| awaited.tell(Ok(())));
        self.builds.prepared.push(build);
    }

    /// The commit of a staged build has come: its nodes are what they were to be.
    pub(super) fn promote(&mut self, build: Build) -> Result<()> {
        self.graph.rename(&build.staged);
        self.entered(build.parts)
    }

    /// Staged builds that are given up, by those who asked for them or because of what became of their inputs.
    pub(super) fn remove_abandoned(&mut self) {
        let (gone, prepared): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.builds.prepared).into_iter().partition(Build::is_abandoned);
        self.builds.prepared = prepared;
        gone.iter().flat_map(|build| build.staged.keys()).for_each(|staged| self.graph.remove(*staged));
    }

    /// Queries have come into the graph.
    fn entered(&mut self, parts: Vec<Part>) -> Result<()> {
        for Part { target, fingerprint } in parts {
            self.subscribers.adopted(target, self.commit, self.next.time, self.graph.version(target))?;
            if let Some(id) = target.relation() {
                let late = late_relation(&self.catalog, id).map(|late| Target::Relation(late.id));
                self.refresh([Some(target), late].into_iter().flatten());
                self.next.failures.remove(&id);
                self.checkpointer.entered(id, fingerprint.unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// The view that keeps a relation's rows: it keeps its late rows, too.
fn view_of(catalog: &Catalog, id: RelationId) -> RelationId {
    catalog.get(id).filter(|relation| relation.kind == Kind::Late).and_then(|late| late.parent).unwrap_or(id)
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
