//! A step: changes run once through all nodes.
//!
//! A change travels with the number of its commit within the step, so that every node sees the changes of one commit together,
//! in commit order, and judges lateness by the watermark before that commit, however many commits the step has.
//!
//! A node that fails stops its query, and the queries behind it; all others go on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::hidden::with_hidden;
use super::{Body, Entry, Feed, Form, Graph, Slot};
use crate::catalog::{COMMIT_TIME, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::history::versions;
use crate::flow::sink::Target;
use crate::flow::{Context, MAIN, Operator, least, shard};
use crate::log::{Commit, Header, Kind};
use crate::time::{Micros, NO_TIME, period_start};

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
        result.failures.push((owner, self.with_way_out(owner, error)));
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

    /// The error that a query stops with, and how it would not have.
    fn with_way_out(&self, owner: Target, error: Error) -> Error {
        let is_defined = !matches!(owner, Target::Query(_));
        if !is_defined || self.nulled.contains_key(&owner) || !error.is_data_exception() || error.hint().is_some() {
            return error;
        }
        error.with_hint("a query WITH (on_error = 'null') gives NULL where an expression fails for a row, and goes on")
    }

    /// As `remove`, but without moving the end of the list, over which a step is going.
    fn remove_keeping_places(&mut self, owner: Target) {
        let places = self.slots.len();
        self.remove(owner);
        self.slots.resize_with(places, || None);
    }
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
