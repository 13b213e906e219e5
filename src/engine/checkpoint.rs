//! When state is written to disk, and how an engine comes back from it.
//!
//! A checkpoint takes from every state table what changed since the last one; that is between two steps and quick. A thread of
//! its own writes it. At a start, a view whose state is there, and was made by the same plan, goes on from it; any other is built
//! from the log. State that cannot be read is forgotten: the log has everything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use super::build::sinks_of;
use super::output::{Output, Outputs};
use super::pause::{Pauses, rests};
use super::{Builds, Engine, Makers, Options, Recovery, Shared, Subscribers, owner_of, runs};
use crate::catalog::{COMMIT_TIME, Catalog, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::sink::{Sink, Target};
use crate::flow::{Fragment, Graph};
use crate::log::CommitId;
use crate::state::StateStore;
use crate::state::checkpoint::{Checkpoint, Checkpoints, Manifest, TableChanges, TableId, ViewMark};
use crate::state::writer::Writer;
use crate::time::Micros;
use crate::view::{Snapshot, Store};

/// Changes with the meaning of any operator's state: checkpoints of other versions are not read.
const STATE_VERSION: u32 = 1;

/// Decides when, and speaks with the thread that writes.
pub(super) struct Checkpointer {
    writer: Option<Writer>,
    interval: Duration,
    last: Instant,
    /// The commit of the newest checkpoint, written or in the writer's hands.
    commit: CommitId,
    asked: Vec<oneshot::Sender<Result<CommitId>>>,
    /// Not to wait for the interval.
    hurries: bool,
    /// Those of the checkpoint that is being written.
    answers: Vec<oneshot::Sender<Result<CommitId>>>,
    /// Relations that came since the last checkpoint: what the store may have of them is of others before them.
    fresh: HashSet<RelationId>,
    /// What the state of each relation was made by.
    fingerprints: HashMap<RelationId, String>,
}

/// What a checkpoint notes beside the state.
#[derive(serde::Serialize, serde::Deserialize)]
struct Meta {
    version: u32,
    time: Micros,
    watermarks: Vec<(RelationId, Micros)>,
    #[serde(default)]
    newest: Vec<(RelationId, Micros)>,
}

#[expect(clippy::disallowed_methods, reason = "when a checkpoint is written changes no result")]
fn now() -> Instant {
    Instant::now()
}

impl Checkpointer {
    /// The writer comes when the old state was read.
    fn new(interval: Duration) -> Checkpointer {
        Checkpointer {
            writer: None,
            interval,
            last: now(),
            commit: 0,
            asked: Vec::new(),
            hurries: false,
            answers: Vec::new(),
            fresh: HashSet::new(),
            fingerprints: HashMap::new(),
        }
    }

    pub fn ask(&mut self, tell: oneshot::Sender<Result<CommitId>>) {
        self.asked.push(tell);
    }

    /// A relation's nodes are in the graph from now on.
    pub fn entered(&mut self, id: RelationId, fingerprint: String) {
        self.fresh.insert(id);
        self.fingerprints.insert(id, fingerprint);
    }

    /// It cannot be written now: state would be ahead of what the log has taken.
    pub fn put_off(&mut self) {
        for tell in self.asked.drain(..) {
            let _ = tell.send(Err(Error::not_ready("no checkpoint: the log does not take what running queries write")));
        }
    }

    /// Relations have other definitions than in the newest checkpoint: a start from it would have to build them again.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    /// How long the engine may sleep before it asks again.
    pub fn time_left(&self) -> Duration {
        if self.answers.is_empty() {
            self.interval.saturating_sub(self.last.elapsed()).max(Duration::from_millis(1))
        } else {
            Duration::from_millis(1)
        }
    }

    pub fn is_due(&mut self, closing: bool, commit: CommitId) -> bool {
        if let Some(end) = self.writer.as_mut().and_then(Writer::finished) {
            self.report(end.map(|stats| stats.commit));
        }
        if self.writer.as_ref().is_none_or(Writer::is_busy) && !closing {
            return false;
        }
        if self.last.elapsed() >= self.interval || closing {
            self.last = now();
            return commit != self.commit || !self.fresh.is_empty() || !self.asked.is_empty();
        }
        self.hurries || !self.asked.is_empty()
    }

    fn report(&mut self, result: Result<CommitId>) {
        match &result {
            Ok(commit) => tracing::debug!(commit, "checkpoint written"),
            Err(error) => tracing::error!(%error, "a checkpoint could not be written; the one before stands"),
        }
        for tell in self.answers.drain(..) {
            // Who no longer waits is not told.
            let _ = tell.send(result.clone());
        }
    }

    /// Collect what changed, and hand it over.
    pub fn write(&mut self, graph: &mut Graph, snapshot: &Snapshot, wait: bool) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if let (true, Some(end)) = (wait, writer.wait()) {
            self.report(end.map(|stats| stats.commit));
        }
        let (tables, present) = collect(graph)?;
        let mark = |id: &RelationId| {
            let fingerprint = self.fingerprints.get(id)?.clone();
            Some(ViewMark { relation: *id, fingerprint, extra: serde_json::Value::Null, fresh: self.fresh.contains(id) })
        };
        let views: Vec<ViewMark> = present.iter().filter_map(mark).collect();
        let newest = snapshot.newest.iter().map(|(id, time)| (*id, *time)).collect();
        let meta = Meta { version: STATE_VERSION, time: snapshot.time, watermarks: graph.watermarks().collect(), newest };
        let meta = serde_json::to_value(meta).map_err(|e| Error::internal(format!("the notes of a checkpoint: {e}")))?;
        let checkpoint = Checkpoint { commit: snapshot.commit, views, meta, tables };
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if writer.try_submit(checkpoint).is_err() {
            return Err(Error::internal("a checkpoint was collected while another was being written"));
        }
        self.commit = snapshot.commit;
        self.fresh.clear();
        self.hurries = false;
        self.answers.append(&mut self.asked);
        Ok(())
    }

    /// Wait for the last one.
    pub fn finish(&mut self) -> Result<()> {
        match self.writer.take().map(Writer::close) {
            Some(Err(error)) => {
                self.report(Err(error.clone()));
                Err(error)
            }
            _ => {
                self.report(Ok(self.commit));
                Ok(())
            }
        }
    }
}

/// What changed in all state tables, and whose they are. Those of running queries are asked too, but not kept: asking is what
/// lets them forget.
fn collect(graph: &mut Graph) -> Result<(Vec<TableChanges>, Vec<RelationId>)> {
    let mut tables: BTreeMap<TableId, TableChanges> = BTreeMap::new();
    graph.each_state(|owner, node, table, state| {
        // What is staged is written when its commit has come.
        if matches!(owner, Target::Staged(_)) {
            return Ok(());
        }
        let Some(relation) = owner.relation() else { return state.changes().map(drop) };
        let id = TableId { relation, node, table };
        let mut changes = TableChanges::collect(id, state)?;
        match tables.get_mut(&id) {
            Some(shards) => shards.deltas.append(&mut changes.deltas),
            None => drop(tables.insert(id, changes)),
        }
        Ok(())
    })?;
    // Also those that remember nothing.
    let present = graph.owners().into_iter().filter_map(Target::relation).collect();
    Ok((tables.into_values().collect(), present))
}

/// What the state of a view is made by: the same text means the same state.
pub(super) fn fingerprint(fragment: Option<&Fragment>, relation: &Relation) -> String {
    let mut text = format!("{STATE_VERSION} {:?} {:?} {:?}", relation.stored_schema(), relation.stored_key(), relation.emit);
    if let (None, Some(commit)) = (fragment, relation.paused) {
        text.push_str(&format!("\npaused at {commit}"));
    }
    if fragment.is_some_and(|fragment| fragment.nulled.is_some()) {
        text.push_str("\nnull on error");
    }
    text.extend(fragment.map(|fragment| format!("\n{}", fragment.text)));
    for node in fragment.iter().flat_map(|f| &f.nodes) {
        text.push_str(&format!("\n{} {:?} {:?}", node.label, node.inputs, node.edge));
    }
    format!("{:08x}-{}", crc32fast::hash(text.as_bytes()), text.len())
}

impl Engine {
    /// The engine as of the newest checkpoint that can be used, or of the empty log.
    pub(super) fn recover(
        shared: Arc<Shared>,
        store: Box<dyn StateStore>,
        makers: Makers,
        options: Options,
    ) -> Result<(Engine, Recovery)> {
        let mut checkpoints = Checkpoints::open(store)?;
        let catalog = shared.log.catalog();
        let manifest = usable(&checkpoints, &shared, &catalog);
        let mut recovery = Recovery::default();
        if let Some(manifest) = manifest {
            match Engine::load(&shared, &checkpoints, &manifest, &makers, &options, &catalog) {
                Ok((mut engine, rebuilt)) => {
                    recovery.checkpoint = Some(manifest.commit);
                    engine.checkpointer.writer = Some(Writer::start(checkpoints)?);
                    for (view, why) in rebuilt {
                        recovery.rebuilt.push((view.full_name().to_string(), why));
                        engine.build_view(&view);
                    }
                    return Ok((engine, recovery));
                }
                Err(error) => tracing::warn!(%error, "the state on disk cannot be used; views are computed again from the log"),
            }
        }
        checkpoints.reset()?;
        let mut engine = Engine::empty(shared, makers, options, &catalog)?;
        for relation in catalog.in_order() {
            engine.enter(relation, &catalog)?;
            engine.pause_later(relation, &catalog);
        }
        engine.refresh_all();
        engine.checkpointer.writer = Some(Writer::start(checkpoints)?);
        Ok((engine, recovery))
    }

    /// Without any relation's nodes, before the first commit.
    fn empty(shared: Arc<Shared>, makers: Makers, options: Options, catalog: &Arc<Catalog>) -> Result<Engine> {
        let graph = Graph::new(options.workers)?;
        let known = shared.log.end();
        let interval = options.checkpoint_interval;
        let checkpointer = Checkpointer::new(interval);
        Ok(Engine {
            outputs: Outputs::new(shared.log.clone()),
            drains: Vec::new(),
            shared,
            makers,
            graph,
            commit: 0,
            catalog: Catalog::clone(catalog),
            known_changes: known,
            pauses: Pauses::new(),
            builds: Builds::default(),
            subscribers: Subscribers::default(),
            checkpointer,
            next: Snapshot { catalog: Arc::clone(catalog), ..Snapshot::default() },
            options,
        })
    }

    /// Put a relation's nodes into the graph, without rows.
    fn enter(&mut self, relation: &Arc<Relation>, catalog: &Arc<Catalog>) -> Result<()> {
        match relation.kind {
            Kind::Table => {
                let store = Store::new("rows", relation.stored_schema(), relation.stored_key());
                self.graph.add_table(relation.id, Sink::table(relation.id, store));
                self.checkpointer.entered(relation.id, fingerprint(None, relation));
            }
            _ if runs(relation) && !rests(relation, catalog) => {
                if let Err(error) = self.enter_query(relation, catalog) {
                    self.stop_query(owner_of(relation), error);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn enter_query(&mut self, relation: &Arc<Relation>, catalog: &Arc<Catalog>) -> Result<()> {
        let fragment = self.makers.compiler.compile(catalog, relation)?;
        let mark = fingerprint(Some(&fragment), relation);
        let sinks = sinks_of(relation, &fragment, catalog);
        // One that is paused runs up to there for its late rows alone.
        if relation.output.is_some() && relation.paused.is_none() {
            let output = Output::open(&self.shared.log, catalog, relation, &fragment, self.makers.intake.as_ref())?;
            self.outputs.add(output, catalog);
        }
        self.graph.add(owner_of(relation), fragment, sinks)?;
        self.checkpointer.entered(relation.id, mark);
        Ok(())
    }

    /// A paused query whose rows are made again: it runs until the commit that paused it.
    fn pause_later(&mut self, relation: &Relation, catalog: &Catalog) {
        if let Some(commit) = relation.paused.filter(|_| !rests(relation, catalog)) {
            self.pauses.entry(commit).or_default().push(relation.id);
        }
    }

    fn refresh_all(&mut self) {
        let kept = |r: &&Arc<Relation>| matches!(r.kind, Kind::Table | Kind::MaterializedView | Kind::Late);
        let catalog = Arc::clone(&self.next.catalog);
        self.refresh(catalog.relations().filter(kept).map(|r| Target::Relation(r.id)));
    }

    /// The engine as a checkpoint has it, and the views that it does not have.
    #[expect(clippy::type_complexity, reason = "a view and why it is built again")]
    fn load(
        shared: &Arc<Shared>,
        checkpoints: &Checkpoints,
        manifest: &Manifest,
        makers: &Makers,
        options: &Options,
        catalog: &Arc<Catalog>,
    ) -> Result<(Engine, Vec<(Arc<Relation>, String)>)> {
        let mut engine = Engine::empty(Arc::clone(shared), makers.clone(), options.clone(), catalog)?;
        let mut rebuilt: Vec<(Arc<Relation>, String)> = Vec::new();
        let is_in_graph = |r: &&Arc<Relation>| r.kind == Kind::Table || (runs(r) && !rests(r, catalog));
        for relation in catalog.in_order().into_iter().filter(is_in_graph) {
            let kept = relation.paused.filter(|commit| *commit <= manifest.commit);
            let reads_rebuilt = kept.is_none() && relation.depends_on.iter().any(|id| rebuilt.iter().any(|(r, _)| r.id == *id));
            let why = match manifest.view(relation.id) {
                None => Some("the checkpoint is older than it".to_string()),
                Some(_) if reads_rebuilt => Some("a view that it reads is rebuilt".to_string()),
                Some(mark) => {
                    match kept {
                        Some(_) => engine.enter_paused(relation, catalog)?,
                        None => engine.enter(relation, catalog)?,
                    }
                    let same = engine.checkpointer.fingerprints.get(&relation.id) == Some(&mark.fingerprint);
                    (!same && !engine.next.failures.contains_key(&relation.id)).then(|| "its plan has changed".to_string())
                }
            };
            match why {
                // Tables have no other way back than the whole log, and then all views may take it together.
                Some(why) if relation.kind == Kind::Table && manifest.view(relation.id).is_some() => {
                    return Err(Error::not_ready(format!("table \"{}\": {why}", relation.name)));
                }
                // It was made after the checkpoint: the commit that made it is still to come, and so are its rows.
                Some(_) if relation.kind == Kind::Table => engine.enter(relation, catalog)?,
                // Neither has a paused view, whose commit is past.
                Some(why) if relation.paused.is_some() => {
                    return Err(Error::not_ready(format!("paused {} \"{}\": {why}", relation.kind.noun(), relation.name)));
                }
                Some(why) => {
                    engine.graph.remove(owner_of(relation));
                    engine.outputs.remove(relation.id);
                    rebuilt.push((Arc::clone(relation), why));
                }
                None if kept.is_none() => engine.pause_later(relation, catalog),
                None => {}
            }
        }
        engine.load_state(checkpoints)?;
        let meta: Meta = serde_json::from_value(manifest.meta.clone())
            .map_err(|e| Error::corrupted(format!("the notes of a checkpoint: {e}")))?;
        engine.graph.set_watermarks(meta.watermarks.into_iter().chain([(COMMIT_TIME, meta.time)]));
        engine.next.newest = meta.newest.into_iter().collect();
        engine.commit = manifest.commit;
        (engine.next.commit, engine.next.time) = (manifest.commit, meta.time);
        engine.checkpointer.commit = manifest.commit;
        engine.checkpointer.fresh.retain(|id| manifest.view(*id).is_none());
        engine.refresh_all();
        Ok((engine, rebuilt))
    }

    fn load_state(&mut self, checkpoints: &Checkpoints) -> Result<()> {
        let mut read: Option<(TableId, Vec<Delta>)> = None;
        self.graph.each_state(|owner, node, table, state| {
            let Some(relation) = owner.relation() else { return Ok(()) };
            let id = TableId { relation, node, table };
            // Shards follow one another and each takes its part.
            if read.as_ref().is_none_or(|(of, _)| *of != id) {
                read = Some((id, checkpoints.read_table(id)?));
            }
            for delta in read.iter().flat_map(|(_, deltas)| deltas) {
                state.load(delta.clone())?;
            }
            Ok(())
        })
    }
}

/// The newest checkpoint, if it can be read and is of this log.
fn usable(checkpoints: &Checkpoints, shared: &Shared, catalog: &Catalog) -> Option<Manifest> {
    let manifest = match checkpoints.load_manifest() {
        Ok(manifest) => manifest?,
        Err(error) => {
            tracing::warn!(%error, "the state on disk is damaged; views are computed again from the log");
            return None;
        }
    };
    let version = manifest.meta.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(STATE_VERSION)) || manifest.commit > shared.log.end() {
        tracing::warn!(
            commit = manifest.commit,
            "the state on disk is of another version or another log; views are computed again"
        );
        return None;
    }
    // Nothing to load: as well from the beginning.
    catalog.relations().any(|r| manifest.view(r.id).is_some()).then_some(manifest)
}
