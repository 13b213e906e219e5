//! Which rows of a join are final, for EMIT FINAL: those whose time is so far behind the watermark that no row to come can change
//! them.
//!
//! Groups of windows say themselves when they are final. A query that shows the rows of a join one by one, with nothing but
//! conditions and computations above it and no groups below, is held back at the join ([`crate::flow::hold`]).

use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::LogicalPlan;

use super::continuous::mentions_now;
use super::event_time::{EventTime, event_time};
use super::nearest::NearestNode;
use super::time_bound::time_bounds;

/// The join of a plan whose rows become final one by one, its time column, and what is known of that.
pub fn final_join(plan: &LogicalPlan) -> Option<(&LogicalPlan, usize, EventTime)> {
    match plan {
        LogicalPlan::Projection(projection) => final_join(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => final_join(&alias.input),
        LogicalPlan::Filter(filter) if !mentions_now(&filter.predicate) => final_join(&filter.input),
        join => {
            let groups = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)));
            if join.exists(groups).unwrap_or(true) {
                return None;
            }
            let hard = |column: usize| Some((join, column, event_time(join, column).filter(|time| time.hard)?));
            times(join).into_iter().find_map(hard)
        }
    }
}

/// Columns of a join that its condition compares in time.
fn times(plan: &LogicalPlan) -> Vec<usize> {
    match plan {
        LogicalPlan::Join(join) => {
            let right = |column: usize| match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => column,
                _ => join.left.schema().fields().len() + column,
            };
            time_bounds(join).into_iter().flat_map(|(l, r, _)| [l, right(r)]).collect()
        }
        other => NearestNode::of(other).map(|node| vec![node.time_indices()[0]]).unwrap_or_default(),
    }
}
