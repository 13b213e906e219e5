//! Queries that may say AND TIMEOUT: groups over the windows of one stream.
//!
//! What a silence closes must be closed for every node at once, so all of the query has to have one frontier: that of one
//! stream.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use super::{RelationSource, window_event_time};
use crate::catalog::{COMMIT_TIME, Kind};
use crate::error::{Error, Result};
use crate::sql::window::WindowNode;
use crate::time::Micros;

/// The window of such a query, or what is wrong with it.
pub fn timed_window(plan: &LogicalPlan) -> Result<&WindowNode> {
    let refused = || {
        let error =
            Error::unsupported("EMIT … AND TIMEOUT needs one time window over one stream, and nothing but groups above it");
        error.with_hint("a stream made WITH (idle_timeout = '30 seconds') closes the windows of all queries that read it")
    };
    let mut found: Option<&WindowNode> = None;
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Aggregate(aggregate) if found.is_none() => &aggregate.input,
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
            LogicalPlan::TableScan(scan) => {
                let stream = RelationSource::of(scan).is_some_and(|of| of.relation().kind == Kind::Stream);
                return found.filter(|_| stream).ok_or_else(refused);
            }
            other => {
                let window = WindowNode::of(other).filter(|_| found.is_none()).ok_or_else(refused)?;
                let time = window_event_time(window).filter(|time| !time.hard && time.streams.len() == 1);
                time.filter(|time| time.streams[0].id != COMMIT_TIME).ok_or_else(refused)?;
                found = Some(window);
                &window.input
            }
        };
    }
}

/// The plan with windows that so long a silence closes.
pub fn timed(plan: LogicalPlan, after: Micros) -> Result<LogicalPlan> {
    let timed = |node: LogicalPlan| -> Result<_, DataFusionError> {
        Ok(match WindowNode::of(&node).filter(|window| window.timeout.is_none()) {
            Some(window) => Transformed::yes(window.clone().timed(after).into_plan()),
            None => Transformed::no(node),
        })
    };
    Ok(plan.transform_down(timed)?.data)
}
