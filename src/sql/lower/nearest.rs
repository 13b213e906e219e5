//! ASOF joins: by which columns their sides are kept, how long, and what is known of their rows.

use std::sync::Arc;

use super::join::nullable;
use super::join_time::{LEFT, RIGHT, Timing};
use super::{Lowered, Lowering, arrow_schema};
use crate::error::Result;
use crate::flow::as_of::{AsOf, SideSpec, Spec};
use crate::flow::{Edge, Input, MAIN, Make, Node, Operator};
use crate::sql::plan::nearest::NearestNode;
use crate::sql::window::show_duration;
use crate::time::Micros;

impl Lowering<'_> {
    pub(super) fn nearest(&mut self, node: &NearestNode) -> Result<Lowered> {
        let left = self.lower(&node.left)?;
        let right = self.lower(&node.right)?;
        let edges = [&left.edge, &right.edge];
        let (keys, times) = (node.key_indices(), node.time_indices());
        let delays = [LEFT, RIGHT]
            .map(|side| edges[side].times.iter().find(|time| time.column == times[side] && time.hard).map(|time| time.delay));
        let dead_after = delays[LEFT].zip(delays[RIGHT]).filter(|_| !node.by_commit).map(|(left, right)| left.max(right));
        let edge = output_edge(node, edges);
        let spec = Spec {
            sides: [LEFT, RIGHT].map(|side| SideSpec {
                schema: nullable(edges[side].schema.fields().iter().map(AsRef::as_ref)),
                key: keys[side].clone(),
                time: times[side],
            }),
            nearest: node.nearest,
            outer: node.outer,
            then: node.then_index(),
            by_commit: node.by_commit,
            dead_after,
            schema: Arc::clone(&edge.schema),
        };
        let keeps = keeps(node, dead_after);
        let exchange = (!keys[LEFT].is_empty()).then(|| keys.to_vec());
        let make: Make = Box::new(move |shard| Ok(Box::new(AsOf::new(spec.clone(), shard)?) as Box<dyn Operator>));
        let at = |port: usize| move |input: Input| (input, port);
        let inputs = left.inputs.into_iter().map(at(LEFT)).chain(right.inputs.into_iter().map(at(RIGHT))).collect();
        let label = format!("As of: {}", node.describe());
        self.nodes.push(Node { label, keeps, inputs, make, exchange, edge: edge.clone() });
        Ok(Lowered { inputs: vec![Input::Node { index: self.nodes.len() - 1, output: MAIN }], edge })
    }
}

fn output_edge(node: &NearestNode, [left, right]: [&Edge; 2]) -> Edge {
    let schema = arrow_schema(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(node));
    if node.by_commit {
        // Rows come when those of the left do, but at the end of a step: each by itself is not known to be in time any more.
        let times = left.times.iter().copied().filter(|time| time.hard).collect();
        return Edge { schema, times, ..left.clone() };
    }
    let [l, r] = node.time_indices();
    let timing = Timing::new([left, right], &[(l, r, node.bound())], node.join_type());
    let (times, window) = timing.output([left, right], left.schema.fields().len(), node.join_type());
    let is_timed = timing.kept.iter().any(Option::is_some);
    let mut sources = if is_timed { [left.sources.clone(), right.sources.clone()].concat() } else { Vec::new() };
    sources.sort_unstable();
    sources.dedup();
    // A left row finds at most one row.
    Edge { schema, append_only: false, key: left.key.clone(), sources, times, window }
}

/// For EXPLAIN.
fn keeps(node: &NearestNode, dead_after: Option<Micros>) -> String {
    if node.by_commit {
        return "of right rows, the newest of each key".into();
    }
    let Some(dead_after) = dead_after else { return "all rows of both sides, for ever: it grows with the input".into() };
    let passes = |name: &str| match dead_after {
        0 => format!("until the watermark passes {name}"),
        by => format!("until the watermark passes {name} by {}", show_duration(by)),
    };
    let (left, right) = (passes(&node.times.0.name), passes(&node.times.1.name));
    match node.nearest.backward {
        true => format!("left rows {left}, right rows {right}, and longer the newest of each key"),
        false => format!("left rows until the watermark passes the right row that they find, right rows {right}"),
    }
}
