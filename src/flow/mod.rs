//! Dataflow: how views are computed from changes.
//!
//! A [`Graph`] of operators stands between the log and the views. A step takes a run of commits and pushes their changes
//! through the nodes once, in the order in which the nodes were added, which is topological:
//!
//! ```text
//!   commits ─► sources ─► node 0 ─► node 1 ─► … ─► sinks          one pass; per node first `update` for every change that
//!                                                                 has come, in commit order, then `finish` once
//! ```
//!
//! * Linear operators ([`linear`], [`window`], [`on_time`], [`unnest`]) answer at once and keep nothing.
//! * A condition on `now()` ([`temporal`]) lets rows in and out as commit time passes.
//! * Keyed operators ([`aggregate`], [`session`], [`top_n`], [`over`], [`pattern`]) take changes in `update` and say in `finish` what became of their groups.
//! * Joins ([`mod@join`]) keep both sides, and let what comes on one meet what is there of the other.
//! * ASOF joins ([`as_of`]) keep both sides by time, and find the nearest row: of a stream, or of a table's versions ([`history`]).
//! * EMIT FINAL over rows that no group is made of holds them back until no change of them can come ([`hold`]).
//! * EMIT CHANGES WITH DELAY gathers changes and gives them now and then ([`refresh`]).
//! * A query's windows may close because nothing comes ([`silence`]).
//! * [`sink`] keeps the rows that readers see, and passes on what changed in them: views on views hang there.
//!
//! Invariants. Nothing here reads a clock, a file or a socket, or knows how many commits a step has: lateness is judged by the
//! frontier that a change carries, which is the watermark *before its own commit*. A change in front of an operator's frontier
//! may still come only where its edge is not hard ([`TimeColumn::hard`]). Operators do not save or load; they only name their state.

pub mod aggregate;
pub mod arrangement;
pub mod as_of;
pub mod constants;
pub mod graph;
pub mod history;
pub mod hold;
pub mod join;
pub mod linear;
pub mod on_time;
pub mod over;
pub mod pattern;
pub mod refresh;
pub mod session;
pub mod shard;
pub mod silence;
pub mod sink;
pub mod temporal;
pub mod top_n;
pub mod unnest;
pub mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::catalog::RelationId;
use crate::delta::Delta;
use crate::error::Result;
use crate::state::StateTable;
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME};
use crate::view::Nulled;

pub use graph::{Graph, StepResult};
pub use shard::Shard;

/// The main output of an operator.
pub const MAIN: usize = 0;
/// The output of a window node, or of one before a join with a bound on time, for rows that came too late.
pub const LATE: usize = 1;

/// A node's computation. Synchronous, deterministic, without I/O.
pub trait Operator: Send {
    /// Take a change that arrives at `port`. Output may be given at once or kept until `finish`.
    fn update(&mut self, port: usize, delta: Delta, cx: &mut Context) -> Result<()>;

    /// The step's changes are all in, and the frontier is now `cx.frontier`.
    fn finish(&mut self, _cx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Its output changes as commit time passes, whether or not changes come: it is finished in every step.
    fn follows_time(&self) -> bool {
        false
    }

    /// It tells spans of commit time of this length apart, and no step may hold commits of two of them.
    fn period(&self) -> Option<Micros> {
        None
    }

    /// What must survive a restart. The engine saves and loads it.
    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        Vec::new()
    }
}

/// What an operator may know, and where its output goes.
pub struct Context {
    /// In `update`: the watermark before the change's commit, as it reaches this node. In `finish`: after the step's last commit.
    pub frontier: Micros,
    /// In `finish`: the time of the step's last commit, which is what `now()` is.
    pub now: Micros,
    /// The frontier when the step began.
    pub since: Micros,
    output: Vec<(usize, Delta)>,
}

impl Context {
    pub fn new(frontier: Micros) -> Context {
        Context::between(frontier, frontier)
    }

    pub fn between(since: Micros, frontier: Micros) -> Context {
        Context { frontier, since, now: NO_TIME, output: Vec::new() }
    }

    pub fn emit(&mut self, delta: Delta) {
        self.emit_to(MAIN, delta);
    }

    pub fn emit_to(&mut self, output: usize, delta: Delta) {
        if !delta.is_empty() {
            self.output.push((output, delta));
        }
    }

    pub fn into_output(self) -> Vec<(usize, Delta)> {
        self.output
    }
}

/// Where a node's input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The log's batches of a stream, or the changes of a table's or view's rows.
    Relation(RelationId),
    /// A stream with the columns that the log gives its rows behind its own, see [`graph::HIDDEN_COLUMNS`].
    WithHidden(RelationId),
    /// The versions of a table's rows, see [`history`]. `time`: its watermark column.
    Versions { table: RelationId, time: Option<usize> },
    /// A node of the same fragment, by index, and one of its outputs.
    Node { index: usize, output: usize },
}

/// Makes the operator of one shard.
pub type Make = Box<dyn Fn(Shard) -> Result<Box<dyn Operator>> + Send>;

/// A node as the planner describes it.
pub struct Node {
    /// For EXPLAIN: `Aggregate: group by category …`.
    pub label: String,
    /// For EXPLAIN: what the node remembers and until when; empty if nothing.
    pub keeps: String,
    /// Inputs and the port at which each arrives. Several inputs may share a port: that is UNION ALL.
    pub inputs: Vec<(Input, usize)>,
    pub make: Make,
    /// Columns of each port by whose hash the operator may be sharded. `None`: one instance.
    pub exchange: Option<Vec<Vec<usize>>>,
    pub edge: Edge,
}

/// What is known of the changes that leave a node.
#[derive(Clone, Debug)]
pub struct Edge {
    pub schema: SchemaRef,
    /// All weights are +1.
    pub append_only: bool,
    /// Columns by which rows are told apart, if known.
    pub key: Option<Vec<usize>>,
    /// Streams whose watermarks bound the time of the rows; the frontier is their minimum. Empty: no frontier.
    pub sources: Vec<RelationId>,
    /// Columns that the frontier bounds.
    pub times: Vec<TimeColumn>,
    /// The columns of the window that every row lies in.
    pub window: Option<WindowColumns>,
}

/// `column >= frontier - delay` for rows still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeColumn {
    pub column: usize,
    pub delay: Micros,
    /// It always holds. Otherwise rows that break it may come, and are late.
    pub hard: bool,
}

/// Windows of one family as columns. A window is closed, and no row of it comes any more, when `end + delay <= frontier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowColumns {
    pub start: Option<usize>,
    pub end: Option<usize>,
    pub time: Option<usize>,
    pub windows: Windows,
    /// `None`: nothing closes the windows.
    pub delay: Option<Micros>,
}

/// `window_time` is this much before `window_end` (Flink: the greatest instant of the window, in milliseconds).
pub const WINDOW_TIME: Micros = 1000;

/// The nodes of one query, to be added to a graph.
pub struct Fragment {
    pub nodes: Vec<Node>,
    /// What leaves the query; several inputs are their UNION ALL.
    pub output: Vec<Input>,
    pub edge: Edge,
    /// The late rows of the nodes that cut such.
    pub late: Vec<Input>,
    /// Schema of the late rows, if there can be some.
    pub late_schema: Option<SchemaRef>,
    /// How many columns of streams and tables the nodes know of; those that come later are not for them.
    pub widths: BTreeMap<RelationId, usize>,
    /// Its windows close without the watermark, too.
    pub timeout: Option<silence::Timeout>,
    /// What its nodes compute: labels leave out what is behind an alias.
    pub text: String,
    /// What its expressions fail for is NULL, and counted here.
    pub nulled: Option<Arc<Nulled>>,
}

impl Fragment {
    /// Relations whose changes it needs.
    pub fn reads(&self) -> Vec<RelationId> {
        let relation = |input: Input| match input {
            Input::Relation(id) | Input::WithHidden(id) | Input::Versions { table: id, .. } => Some(id),
            Input::Node { .. } => None,
        };
        let mut ids: Vec<RelationId> = self.inputs().filter_map(relation).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// All inputs of its nodes and what leaves it.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.nodes.iter().flat_map(|n| n.inputs.iter().map(|(input, _)| *input)).chain(self.output.iter().copied())
    }
}

/// The frontier of a node over these sources: the least of their watermarks.
pub fn least(sources: &[RelationId], watermark: impl Fn(RelationId) -> Option<Micros>) -> Micros {
    sources.iter().map(|id| watermark(*id).unwrap_or(NO_TIME)).min().unwrap_or(NO_TIME)
}
