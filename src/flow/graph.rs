//! The graph: nodes in topological order, and the step that runs changes through them once.
//!
//! A change travels with the number of its commit within the step, so that every node sees the changes of one commit together,
//! in commit order, and judges lateness by the watermark before that commit, however many commits the step has.
//!
//! A node that fails stops its query, and the queries behind it; all others go on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::history::versions;
use super::shard;
use super::silence::Silence;
use super::sink::{Sink, Target};
use super::{Context, Edge, Fragment, Input, MAIN, Node, Operator, Shard, least};
use crate::catalog::{COMMIT_TIME, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::log::{Commit, Header, Kind};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME, period_start};
use crate::view::Version;

/// Operators and sinks of all running queries.
pub struct Graph {
    slots: Vec<Option<Slot>>,
    /// Where the log's batches of a relation go.
    readers: HashMap<RelationId, Vec<Reader>, ahash::RandomState>,
    /// The sink that holds the rows of a relation.
    sinks: BTreeMap<Target, usize>,
    watermarks: HashMap<RelationId, Micros, ahash::RandomState>,
    /// What brings the frontiers of a query on besides watermarks.
    silences: BTreeMap<Target, Silence>,
    /// Time of the last commit that was run.
    now: Micros,
    workers: Option<Arc<rayon::ThreadPool>>,
}

#[derive(Clone, Copy)]
struct Reader {
    node: usize,
    port: usize,
    form: Form,
}

/// What a reader makes of the log's batches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The rows of a stream. What the records of a table do to its rows comes from its sink.
    Rows,
    /// The rows with the hidden columns too.
    WithHidden,
    /// The records of a table, for its sink.
    Records,
    /// The same as versions of its rows, by this time column.
    Versions(Option<usize>),
}

struct Slot {
    /// The query it belongs to: nodes of one query live, fail and go together.
    owner: Target,
    body: Body,
    exchange: Option<Vec<Vec<usize>>>,
    /// Sources of its frontier.
    sources: Vec<RelationId>,
    /// Per output: the nodes and ports it leads to.
    consumers: Vec<Vec<(usize, usize)>>,
    pending: Vec<Entry>,
    /// Its frontier at the end of the last step; `None`: it has not run yet.
    frontier: Option<Micros>,
    feed: Feed,
    /// By port: how many columns of its relation it takes.
    widths: Vec<(usize, usize)>,
}

/// Whether a node has all that came before the step, see [`Graph::await_feed`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    Complete,
    /// The rows that a relation has so far come in the coming step.
    Coming,
    /// They come later.
    Awaited,
}

enum Body {
    /// One operator per shard.
    Operators(Vec<Box<dyn Operator>>),
    Sink(Box<Sink>),
}

/// A change on its way to a node.
struct Entry {
    /// Which commit of the step it comes from; after the last one for what `finish` gave.
    commit: usize,
    port: usize,
    delta: Delta,
}

/// What a step did.
#[derive(Default)]
pub struct StepResult {
    /// Changes of the rows of every sink that changed.
    pub changes: Vec<(Target, Delta)>,
    /// Queries that stopped, and why.
    pub failures: Vec<(Target, Error)>,
}

/// Watermarks within a step: of each source before each commit, and after the last.
struct StepTimes {
    before: Vec<HashMap<RelationId, Micros, ahash::RandomState>>,
    moved: HashSet<RelationId, ahash::RandomState>,
    /// The same of what silences have brought, by query.
    silences: BTreeMap<Target, Vec<Micros>>,
}

impl StepTimes {
    fn frontier(&self, of: Target, sources: &[RelationId], commit: usize) -> Micros {
        let watermark = least(sources, |id| self.before[commit].get(&id).copied());
        // Nodes without sources have no frontier.
        let silence = self.silences.get(&of).filter(|_| !sources.is_empty());
        silence.map_or(watermark, |reached| reached[commit].max(watermark))
    }

    /// Whether a silence has closed windows of this query.
    fn timed_out(&self, query: Target) -> bool {
        self.silences.get(&query).is_some_and(|reached| reached.first() != reached.last())
    }
}

impl Graph {
    /// `workers`: threads that share the work of a step; 1 runs it on the caller's.
    pub fn new(workers: usize) -> Result<Graph> {
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("worker-{i}")).build();
        let workers = if workers > 1 {
            Some(Arc::new(pool(workers).map_err(|e| Error::internal(format!("starting {workers} workers: {e}")))?))
        } else {
            None
        };
        Ok(Graph::with_pool(workers))
    }

    fn with_pool(workers: Option<Arc<rayon::ThreadPool>>) -> Graph {
        Graph {
            slots: Vec::new(),
            readers: HashMap::default(),
            sinks: BTreeMap::new(),
            watermarks: HashMap::default(),
            silences: BTreeMap::new(),
            now: NO_TIME,
            workers,
        }
    }

    /// An empty graph that shares this one's workers: a query is brought up to date in it before it is adopted.
    pub fn nursery(&self) -> Graph {
        Graph::with_pool(self.workers.clone())
    }

    fn shards(&self) -> usize {
        self.workers.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Add a relation's rows, fed by the log (tables).
    pub fn add_table(&mut self, relation: RelationId, sink: Sink) {
        self.add_rows(Target::Relation(relation), vec![sink]);
        let node = self.sinks[&Target::Relation(relation)];
        self.readers.entry(relation).or_default().push(Reader { node, port: 0, form: Form::Records });
    }

    /// Add rows that nothing in this graph changes.
    pub fn add_rows(&mut self, owner: Target, sinks: Vec<Sink>) {
        for sink in sinks {
            let target = sink.target;
            let slot = self.push(Slot {
                owner,
                body: Body::Sink(Box::new(sink)),
                exchange: None,
                sources: Vec::new(),
                consumers: vec![Vec::new()],
                pending: Vec::new(),
                frontier: None,
                feed: Feed::Complete,
                widths: Vec::new(),
            });
            self.sinks.insert(target, slot);
        }
    }

    /// Add the nodes of a query and its sinks. Inputs from relations that this graph has no rows of are read from the log, or are
    /// fed by the caller.
    pub fn add(&mut self, owner: Target, fragment: Fragment, sinks: Vec<(Vec<Input>, Sink)>) -> Result<()> {
        let first = self.slots.len();
        for node in fragment.nodes {
            let body = Body::Operators(self.make(&node)?);
            let inputs = node.inputs;
            let inputs_widths = port_widths(&inputs, &fragment.widths);
            let slot = self.push(Slot {
                owner,
                body,
                exchange: node.exchange.filter(|_| self.shards() > 1),
                sources: node.edge.sources,
                consumers: vec![Vec::new(), Vec::new()],
                pending: Vec::new(),
                frontier: None,
                feed: Feed::Complete,
                widths: inputs_widths,
            });
            for (input, port) in inputs {
                self.connect(first, input, slot, port);
            }
        }
        let Edge { sources, .. } = fragment.edge;
        self.silences.extend(fragment.timeout.map(|timeout| (owner, Silence::new(timeout))));
        for (inputs, sink) in sinks {
            let target = sink.target;
            let all: Vec<(Input, usize)> = inputs.iter().map(|input| (*input, 0)).collect();
            let inputs_widths = port_widths(&all, &fragment.widths);
            let slot = self.push(Slot {
                owner,
                body: Body::Sink(Box::new(sink)),
                exchange: None,
                sources: sources.clone(),
                consumers: vec![Vec::new()],
                pending: Vec::new(),
                frontier: None,
                feed: Feed::Complete,
                widths: inputs_widths,
            });
            self.sinks.insert(target, slot);
            inputs.into_iter().for_each(|input| self.connect(first, input, slot, 0));
        }
        Ok(())
    }

    fn make(&self, node: &Node) -> Result<Vec<Box<dyn Operator>>> {
        let of = if node.exchange.is_some() { self.shards() } else { 1 };
        (0..of).map(|index| (node.make)(Shard { index, of })).collect()
    }

    fn push(&mut self, slot: Slot) -> usize {
        self.slots.push(Some(slot));
        self.slots.len() - 1
    }

    fn connect(&mut self, first: usize, input: Input, slot: usize, port: usize) {
        match input {
            Input::Node { index, output } => {
                let from = self.slots[first + index].as_mut().expect("inputs come before their users");
                from.consumers[output].push((slot, port));
            }
            Input::Relation(id) => self.connect_relation(id, Reader { node: slot, port, form: Form::Rows }),
            Input::WithHidden(id) => self.connect_relation(id, Reader { node: slot, port, form: Form::WithHidden }),
            Input::Versions { table, time } => {
                self.connect_relation(table, Reader { node: slot, port, form: Form::Versions(time) });
            }
        }
    }

    fn connect_relation(&mut self, id: RelationId, reader: Reader) {
        match self.sinks.get(&Target::Relation(id)).copied() {
            Some(sink) if reader.form == Form::Rows => {
                let from = self.slots[sink].as_mut().expect("a sink that is listed is there");
                from.consumers[MAIN].push((reader.node, reader.port));
            }
            _ => self.readers.entry(id).or_default().push(reader),
        }
    }

    /// The rows that these relations have so far come last, see [`Graph::feed`]. Until then the nodes behind them know of no
    /// frontier: it would speak of rows that are yet to come.
    pub fn await_feed(&mut self, relations: &[RelationId]) {
        let readers = relations.iter().flat_map(|id| self.readers.get(id).into_iter().flatten());
        let mut behind: Vec<usize> = readers.filter(|reader| reader.form == Form::Rows).map(|reader| reader.node).collect();
        while let Some(node) = behind.pop() {
            let Some(slot) = self.slots[node].as_mut().filter(|slot| slot.feed == Feed::Complete) else { continue };
            slot.feed = Feed::Awaited;
            behind.extend(slot.consumers.iter().flatten().map(|(node, _)| *node));
        }
    }

    /// Run the rows that were awaited through all nodes.
    pub fn feed(&mut self, fed: &[(RelationId, Delta)]) -> StepResult {
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.feed == Feed::Awaited) {
            slot.feed = Feed::Coming;
        }
        self.step(&[], fed)
    }

    /// Take over all nodes of a nursery, whose state is up to date with this graph's. Of relations that both have, this graph's
    /// stay: whoever read them in the nursery reads them here.
    pub fn adopt(&mut self, mut nursery: Graph) {
        let doubled: Vec<(Target, usize)> =
            nursery.sinks.iter().filter(|(target, _)| self.has(**target)).map(|(target, slot)| (*target, *slot)).collect();
        let owner = |slot: usize| nursery.slots[slot].as_ref().map(|slot| slot.owner);
        let gone: HashSet<Target> = doubled.iter().filter_map(|(_, slot)| owner(*slot)).collect();
        let mut moved = Vec::new();
        for (target, slot) in doubled {
            let readers = nursery.slots[slot].iter().flat_map(|slot| &slot.consumers[MAIN]);
            moved.extend(readers.filter(|(node, _)| owner(*node).is_some_and(|o| !gone.contains(&o))).map(|r| (target, *r)));
        }
        gone.into_iter().for_each(|owner| nursery.remove(owner));
        let first = self.slots.len();
        for (target, (node, port)) in moved {
            let slot = self.sinks.get(&target).and_then(|slot| self.slots[*slot].as_mut());
            slot.expect("both have it").consumers[MAIN].push((first + node, port));
        }
        for slot in nursery.slots {
            self.slots.push(slot.map(|mut slot| {
                slot.consumers.iter_mut().flatten().for_each(|(node, _)| *node += first);
                slot
            }));
        }
        for (target, slot) in nursery.sinks {
            self.sinks.insert(target, first + slot);
        }
        self.silences.append(&mut nursery.silences);
        for (relation, readers) in nursery.readers {
            for reader in readers {
                self.connect_relation(relation, Reader { node: first + reader.node, ..reader });
            }
        }
    }

    /// Let go of all that does not belong to these owners: their inputs come from the graph that adopts them.
    pub fn detach(&mut self, owners: &[Target]) {
        let others: BTreeMap<Target, usize> = self
            .sinks
            .iter()
            .filter(|(_, slot)| self.slots[**slot].as_ref().is_some_and(|s| !owners.contains(&s.owner)))
            .map(|(t, s)| (*t, *s))
            .collect();
        for (target, slot) in others {
            let (Some(relation), Some(sink)) = (target.relation(), self.slots[slot].as_ref()) else { continue };
            let own = |(node, _): &&(usize, usize)| self.slots[*node].as_ref().is_some_and(|s| owners.contains(&s.owner));
            let readers =
                sink.consumers[MAIN].iter().filter(own).map(|(node, port)| Reader { node: *node, port: *port, form: Form::Rows });
            let readers: Vec<Reader> = readers.collect();
            self.readers.entry(relation).or_default().extend(readers);
        }
        let others: HashSet<Target> =
            self.slots.iter().flatten().map(|slot| slot.owner).filter(|other| !owners.contains(other)).collect();
        others.into_iter().for_each(|other| self.remove(other));
    }

    /// Keep the rows of a relation in another sink, for the same readers.
    pub fn replace_sink(&mut self, sink: Sink) {
        if let Some(slot) = self.sinks.get(&sink.target).and_then(|slot| self.slots[*slot].as_mut()) {
            slot.body = Body::Sink(Box::new(sink));
        }
    }

    /// Call the nodes and sinks of these targets by other names.
    pub fn rename(&mut self, names: &HashMap<Target, Target>) {
        let named = |target: Target| names.get(&target).copied().unwrap_or(target);
        for slot in self.slots.iter_mut().flatten() {
            slot.owner = named(slot.owner);
            if let Body::Sink(sink) = &mut slot.body {
                sink.target = named(sink.target);
            }
        }
        self.sinks = std::mem::take(&mut self.sinks).into_iter().map(|(target, slot)| (named(target), slot)).collect();
        self.silences = std::mem::take(&mut self.silences).into_iter().map(|(query, s)| (named(query), s)).collect();
    }

    /// All whose rows are kept or passed on here.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.sinks.keys().copied()
    }

    /// Remove a query and its sinks.
    pub fn remove(&mut self, owner: Target) {
        let gone: HashSet<usize> =
            self.slots.iter().enumerate().filter(|(_, s)| s.as_ref().is_some_and(|s| s.owner == owner)).map(|(i, _)| i).collect();
        gone.iter().for_each(|slot| self.slots[*slot] = None);
        self.silences.remove(&owner);
        for slot in self.slots.iter_mut().flatten() {
            slot.consumers.iter_mut().for_each(|c| c.retain(|(node, _)| !gone.contains(node)));
        }
        self.readers.values_mut().for_each(|r| r.retain(|reader| !gone.contains(&reader.node)));
        self.readers.retain(|_, readers| !readers.is_empty());
        self.sinks.retain(|_, slot| !gone.contains(slot));
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
    }

    /// Queries that read this relation, directly.
    pub fn readers_of(&self, relation: RelationId) -> Vec<Target> {
        let of_log = self.readers.get(&relation).into_iter().flatten().map(|reader| reader.node);
        let sink = self.sinks.get(&Target::Relation(relation)).and_then(|slot| self.slots[*slot].as_ref());
        let of_rows = sink.into_iter().flat_map(|slot| slot.consumers.iter().flatten().map(|(node, _)| *node));
        let owners = of_log.chain(of_rows).filter_map(|node| Some(self.slots[node].as_ref()?.owner));
        let mut owners: Vec<Target> = owners.filter(|owner| *owner != Target::Relation(relation)).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Whether the graph holds this relation's rows.
    pub fn has(&self, target: Target) -> bool {
        self.sinks.contains_key(&target)
    }

    /// Whose nodes there are.
    pub fn owners(&self) -> BTreeSet<Target> {
        self.slots.iter().flatten().map(|slot| slot.owner).collect()
    }

    pub fn watermark(&self, relation: RelationId) -> Option<Micros> {
        self.watermarks.get(&relation).copied()
    }

    pub fn watermarks(&self) -> impl Iterator<Item = (RelationId, Micros)> {
        self.watermarks.iter().map(|(id, at)| (*id, *at))
    }

    /// Say what time it is, when changes are fed without a commit.
    pub fn set_now(&mut self, now: Micros) {
        self.now = now;
    }

    pub fn set_watermarks(&mut self, watermarks: impl IntoIterator<Item = (RelationId, Micros)>) {
        self.watermarks.extend(watermarks);
    }

    /// The rows of a sink as they are now.
    pub fn version(&mut self, target: Target) -> Option<Arc<Version>> {
        let slot = *self.sinks.get(&target)?;
        match &mut self.slots[slot].as_mut()?.body {
            Body::Sink(sink) => sink.version(),
            Body::Operators(_) => None,
        }
    }

    /// Lend every state table: owner, place of its node among the owner's, place of the table in the node. Shards of one operator
    /// follow one another with equal places.
    pub fn each_state(&mut self, mut visit: impl FnMut(Target, u32, u16, &mut dyn StateTable) -> Result<()>) -> Result<()> {
        let mut places: HashMap<Target, u32> = HashMap::new();
        for slot in self.slots.iter_mut().flatten() {
            let place = places.entry(slot.owner).or_default();
            match &mut slot.body {
                Body::Operators(shards) => {
                    for shard in shards {
                        for (table, state) in shard.state().into_iter().enumerate() {
                            visit(slot.owner, *place, table as u16, state)?;
                        }
                    }
                }
                Body::Sink(sink) => {
                    if let Some(state) = sink.state() {
                        visit(slot.owner, *place, 0, state)?;
                    }
                }
            }
            *place += 1;
        }
        for (owner, silence) in &mut self.silences {
            visit(*owner, places.get(owner).copied().unwrap_or_default(), 0, silence)?;
        }
        Ok(())
    }

    /// Run commits, and changes of relations whose rows are not in this graph, through all nodes.
    pub fn step(&mut self, commits: &[Arc<Commit>], fed: &[(RelationId, Delta)]) -> StepResult {
        let operators = self.slots.iter().flatten().filter_map(|slot| match &slot.body {
            Body::Operators(shards) => shards[0].period(),
            Body::Sink(_) => None,
        });
        let periods: BTreeSet<Micros> = operators.collect();
        let together = |a: &Arc<Commit>, b: &Arc<Commit>| {
            periods.iter().all(|every| period_start(*every, a.time) == period_start(*every, b.time))
        };
        let mut runs: Vec<&[Arc<Commit>]> = commits.chunk_by(together).collect();
        let last = runs.pop().unwrap_or_default();
        let mut result = StepResult::default();
        for run in runs {
            self.run(run, &[], &mut result);
        }
        self.run(last, fed, &mut result);
        result
    }

    /// Run such a step that no operator wants to end in between.
    fn run(&mut self, commits: &[Arc<Commit>], fed: &[(RelationId, Delta)], result: &mut StepResult) {
        self.now = commits.last().map_or(self.now, |commit| commit.time);
        let (times, now) = (self.enter(commits, fed), self.now);
        let last = commits.len();
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots[index].as_mut() else { continue };
            let moved = slot.sources.iter().any(|id| times.moved.contains(id)) || times.timed_out(slot.owner);
            let stirs = moved || slot.follows_time() || slot.feed == Feed::Coming;
            if slot.pending.is_empty() && slot.frontier.is_some() && !stirs {
                continue;
            }
            let workers = self.workers.clone();
            match catch_unwind(AssertUnwindSafe(|| slot.run(&times, last, now, workers.as_deref()))) {
                Ok(Ok(output)) => self.route(index, output, result),
                Ok(Err(error)) => self.fail(index, error, result),
                Err(panic) => self.fail(index, Error::of_panic("an operator", panic.as_ref()), result),
            }
        }
        self.watermarks = times.before.into_iter().last().unwrap_or_default();
    }

    /// Give the step's changes to their readers, and note the watermarks before each commit.
    fn enter(&mut self, commits: &[Arc<Commit>], fed: &[(RelationId, Delta)]) -> StepTimes {
        let silences = self.silences.iter_mut().map(|(query, silence)| (*query, silence.advance(commits))).collect();
        let mut times = StepTimes { before: Vec::with_capacity(commits.len() + 1), moved: HashSet::default(), silences };
        let mut now = self.watermarks.clone();
        for (number, commit) in commits.iter().enumerate() {
            times.before.push(now.clone());
            for batch in &commit.batches {
                let delta = match batch.header.kind {
                    Kind::Append | Kind::Upsert => Delta::append(batch.rows.clone()),
                    Kind::Delete => Delta::weighted(batch.rows.clone(), -1),
                };
                self.send(batch.header.relation, number, delta, Some(&batch.header));
            }
            for (relation, watermark) in &commit.watermarks {
                now.insert(*relation, *watermark);
                times.moved.insert(*relation);
            }
            now.insert(COMMIT_TIME, commit.time);
            times.moved.insert(COMMIT_TIME);
        }
        for (relation, delta) in fed {
            self.send(*relation, commits.len(), delta.clone(), None);
        }
        times.before.push(now);
        times
    }

    fn send(&mut self, relation: RelationId, commit: usize, delta: Delta, header: Option<&Header>) {
        let mut widened = None;
        for reader in self.readers.get(&relation).into_iter().flatten() {
            let Some(slot) = self.slots[reader.node].as_mut() else { continue };
            let narrow = slot.narrowed(reader.port, &delta);
            let delta = match (reader.form, header) {
                (Form::Rows, Some(header)) if header.kind != Kind::Append => continue,
                (Form::Versions(_), None) => continue,
                (Form::Versions(time), Some(header)) => Delta::append(versions(header, &narrow.rows, time)),
                (Form::WithHidden, Some(header)) if narrow.rows.num_columns() == delta.rows.num_columns() => {
                    widened.get_or_insert_with(|| delta.with_rows(with_hidden(header, &delta.rows))).clone()
                }
                (Form::WithHidden, Some(header)) => narrow.with_rows(with_hidden(header, &narrow.rows)),
                _ => narrow,
            };
            slot.pending.push(Entry { commit, port: reader.port, delta });
        }
    }

    fn route(&mut self, index: usize, output: Vec<(usize, usize, Delta)>, result: &mut StepResult) {
        let slot = self.slots[index].as_mut().expect("a node that ran is there");
        let consumers = std::mem::take(&mut slot.consumers);
        if let Body::Sink(sink) = &slot.body {
            result.changes.extend(output.iter().map(|(_, _, delta)| (sink.target, delta.clone())));
        }
        for (commit, port, delta) in output {
            for (node, at) in &consumers[port] {
                if let Some(consumer) = self.slots[*node].as_mut() {
                    let delta = consumer.narrowed(*at, &delta);
                    consumer.pending.push(Entry { commit, port: *at, delta });
                }
            }
        }
        self.slots[index].as_mut().expect("a node that ran is there").consumers = consumers;
    }

    /// Stop the query of this node and all queries that read it.
    fn fail(&mut self, index: usize, error: Error, result: &mut StepResult) {
        let owner = self.slots[index].as_ref().expect("a node that ran is there").owner;
        let mut stopped = vec![owner];
        result.failures.push((owner, error));
        let mut next = 0;
        while next < stopped.len() {
            let owner = stopped[next];
            next += 1;
            let behind: Vec<usize> = self
                .slots
                .iter()
                .flatten()
                .filter(|s| s.owner == owner)
                .flat_map(|s| s.consumers.iter().flatten().map(|c| c.0))
                .collect();
            for node in behind {
                let reader = self.slots[node].as_ref().expect("a consumer is there").owner;
                if !stopped.contains(&reader) {
                    stopped.push(reader);
                    result.failures.push((reader, Error::not_ready("a view that this one reads has stopped")));
                }
            }
        }
        stopped.into_iter().for_each(|owner| self.remove_keeping_places(owner));
    }

    /// As `remove`, but without moving the end of the list, over which a step is going.
    fn remove_keeping_places(&mut self, owner: Target) {
        let places = self.slots.len();
        self.remove(owner);
        self.slots.resize_with(places, || None);
    }
}

/// The widths of a node's inputs by port.
fn port_widths(inputs: &[(Input, usize)], widths: &BTreeMap<RelationId, usize>) -> Vec<(usize, usize)> {
    let width = |(input, port): &(Input, usize)| match input {
        Input::Relation(id) | Input::WithHidden(id) | Input::Versions { table: id, .. } => {
            widths.get(id).map(|width| (*port, *width))
        }
        Input::Node { .. } => None,
    };
    inputs.iter().filter_map(width).collect()
}

impl Slot {
    /// Without the columns that its relation has gained since the node was made.
    fn narrowed(&self, port: usize, delta: &Delta) -> Delta {
        match self.widths.iter().find(|(at, _)| *at == port) {
            Some((_, width)) if *width < delta.rows.num_columns() => {
                let columns: Vec<usize> = (0..*width).collect();
                delta.with_rows(delta.rows.project(&columns).expect("the columns are there"))
            }
            _ => delta.clone(),
        }
    }

    fn follows_time(&self) -> bool {
        matches!(&self.body, Body::Operators(shards) if shards.iter().any(|shard| shard.follows_time()))
    }

    /// Take in what is pending and finish the step. Output: commit, port, change.
    fn run(
        &mut self,
        times: &StepTimes,
        last: usize,
        now: Micros,
        workers: Option<&rayon::ThreadPool>,
    ) -> Result<Vec<(usize, usize, Delta)>> {
        let mut pending = std::mem::take(&mut self.pending);
        // Several inputs: commits of one before later ones of the other.
        if !pending.is_sorted_by_key(|entry| entry.commit) {
            pending.sort_by_key(|entry| entry.commit);
        }
        let mut frontiers: Vec<Micros> = (0..=last).map(|commit| times.frontier(self.owner, &self.sources, commit)).collect();
        let end = if self.feed == Feed::Awaited { NO_TIME } else { frontiers[last] };
        if self.feed != Feed::Complete {
            frontiers.fill(NO_TIME);
        }
        if self.feed == Feed::Coming {
            self.feed = Feed::Complete;
        }
        let at_start = frontiers[0];
        // Changes from a `finish` before this node are no row's arrival: they may lie anywhere between the step's two ends.
        let frontier = |commit: usize| if commit == last { at_start } else { frontiers[commit] };
        self.frontier = Some(end);
        match &mut self.body {
            Body::Sink(sink) => {
                let mut output = Vec::new();
                for entry in pending {
                    output.extend(sink.update(entry.delta)?.map(|delta| (entry.commit, MAIN, delta)));
                }
                output.extend(sink.finish()?.map(|delta| (last, MAIN, delta)));
                output.retain(|(_, _, delta)| !delta.is_empty());
                Ok(output)
            }
            Body::Operators(shards) => match (&self.exchange, workers) {
                (Some(exchange), Some(workers)) => {
                    let parts = partition(pending, exchange, shards.len())?;
                    let mut outputs: Vec<Result<Vec<(usize, usize, Delta)>>> = Vec::new();
                    workers.install(|| {
                        use rayon::prelude::*;
                        let run = |(shard, part): (&mut Box<dyn Operator>, Vec<Entry>)| {
                            drive(shard.as_mut(), part, &frontier, (end, now), last)
                        };
                        shards.par_iter_mut().zip(parts).map(run).collect_into_vec(&mut outputs);
                    });
                    let mut output = outputs.into_iter().collect::<Result<Vec<_>>>()?.concat();
                    output.sort_by_key(|(commit, _, _)| *commit);
                    Ok(output)
                }
                _ => drive(shards[0].as_mut(), pending, &frontier, (end, now), last),
            },
        }
    }
}

/// The columns that the log gives every row, in the order in which they follow the row's own.
pub const HIDDEN_COLUMNS: [(&str, DataType); 4] = [
    ("_partition", DataType::Int32),
    ("_offset", DataType::Int64),
    ("_commit", DataType::Int64),
    ("_ingested_at", DataType::Timestamp(TimeUnit::Microsecond, None)),
];

/// A stored batch with its hidden columns.
pub fn with_hidden(header: &Header, rows: &RecordBatch) -> RecordBatch {
    let count = rows.num_rows();
    let offset = header.base_offset as i64;
    let hidden: [ArrayRef; 4] = [
        Arc::new(Int32Array::from_value(header.partition as i32, count)),
        Arc::new(Int64Array::from_iter_values(offset..offset + count as i64)),
        Arc::new(Int64Array::from_value(header.commit as i64, count)),
        Arc::new(TimestampMicrosecondArray::from_value(header.commit_time, count)),
    ];
    let fields = HIDDEN_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let schema = Schema::new(rows.schema().fields().iter().cloned().chain(fields).collect::<Vec<_>>());
    let columns = rows.columns().iter().cloned().chain(hidden).collect();
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length under a schema made of them")
}

/// One operator's part of a step. `end`: the frontier and the time at its end.
fn drive(
    operator: &mut dyn Operator,
    pending: Vec<Entry>,
    frontier: &(dyn Fn(usize) -> Micros + Sync),
    end: (Micros, Micros),
    last: usize,
) -> Result<Vec<(usize, usize, Delta)>> {
    let mut output = Vec::new();
    for entry in pending {
        let mut cx = Context::between(frontier(last), frontier(entry.commit));
        operator.update(entry.port, entry.delta, &mut cx)?;
        output.extend(cx.into_output().into_iter().map(|(port, delta)| (entry.commit, port, delta)));
    }
    let mut cx = Context::between(frontier(last), end.0);
    cx.now = end.1;
    operator.finish(&mut cx)?;
    output.extend(cx.into_output().into_iter().map(|(port, delta)| (last, port, delta)));
    Ok(output)
}

/// Deal the changes out to the shards that own their keys.
fn partition(pending: Vec<Entry>, exchange: &[Vec<usize>], of: usize) -> Result<Vec<Vec<Entry>>> {
    let mut parts: Vec<Vec<Entry>> = (0..of).map(|_| Vec::new()).collect();
    for Entry { commit, port, delta } in pending {
        let keys: Vec<_> = exchange[port].iter().map(|column| Arc::clone(delta.rows.column(*column))).collect();
        let shards = shard::shards(&keys, delta.len(), of)?;
        for (part, rows) in parts.iter_mut().zip(shard::split(&shards, of)) {
            if rows.len() == delta.len() {
                part.push(Entry { commit, port, delta: delta.clone() });
            } else if !rows.is_empty() {
                part.push(Entry { commit, port, delta: delta.take(&rows)? });
            }
        }
    }
    Ok(parts)
}
