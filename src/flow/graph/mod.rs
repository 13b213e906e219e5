//! The graph: the nodes of all running queries in topological order, and who reads whom. What runs through it: [`step`].

mod hidden;
mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::silence::Silence;
use super::sink::{Sink, Target};
use super::{Edge, Fragment, Input, MAIN, Node, Operator, Shard};
use crate::catalog::RelationId;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};
use crate::view::{Nulled, Version};

pub use hidden::{HIDDEN_COLUMNS, with_hidden};
pub use step::StepResult;

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
    /// Queries of which what fails is NULL.
    nulled: BTreeMap<Target, Arc<Nulled>>,
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
            nulled: BTreeMap::new(),
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
        self.nulled.extend(fragment.nulled.map(|nulled| (owner, nulled)));
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
        self.nulled.append(&mut nursery.nulled);
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
        self.nulled = std::mem::take(&mut self.nulled).into_iter().map(|(query, n)| (named(query), n)).collect();
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
        self.nulled.remove(&owner);
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

    /// Who counts what fails for a row, of queries of which that is NULL.
    pub fn nulled(&self) -> impl Iterator<Item = (RelationId, Arc<Nulled>)> {
        self.nulled.iter().filter_map(|(query, nulled)| Some((query.relation()?, Arc::clone(nulled))))
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
