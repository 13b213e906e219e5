//! Plans that hear that they are to stop.
//!
//! A query is stopped by dropping its stream, which cannot happen while the stream is being polled. Operators come to rest when
//! their inputs do; but a join may make any number of batches of two, and of billions of pairs none at all. So
//!
//! * a join rests now and then between the batches that it gives, as inputs do;
//! * where a join has a condition on pairs, that asks whether the query is to stop, some thousands of pairs at a time.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::unnest::UnnestExec;

use crate::error::Error;

/// Says when a query is to stop. It is asked often, from the thread that runs the query.
pub trait Stop: Send + Sync {
    /// Why the query is to stop, once it is.
    fn reason(&self) -> Option<Error>;
}

/// The plan, whose joins rest and ask.
pub fn stoppable(plan: Arc<dyn ExecutionPlan>, stop: Option<&Arc<dyn Stop>>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        let asking = match stop {
            Some(stop) => asking(&node, stop)?,
            None => None,
        };
        let node = asking.unwrap_or(node);
        Ok(if multiplies(&node) { Transformed::yes(Arc::new(CooperativeExec::new(node)) as _) } else { Transformed::no(node) })
    })?;
    Ok(plan.data)
}

/// Whether the node may give many batches for one that it takes.
fn multiplies(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<CrossJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<HashJoinExec>() || node.is::<UnnestExec>()
}

/// The join with a condition that asks, if it has a condition and may try all pairs for nothing.
fn asking(node: &Arc<dyn ExecutionPlan>, stop: &Arc<dyn Stop>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let asks = |filter: &JoinFilter| {
        let (condition, stop) = (Arc::clone(filter.expression()), Arc::clone(stop));
        JoinFilter::new(Arc::new(Asking { condition, stop }), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    };
    if let Some((join, filter)) = node.downcast_ref::<NestedLoopJoinExec>().and_then(|join| Some((join, join.filter()?))) {
        return Ok(Some(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(Some(asks(filter))).build()?)));
    }
    if let Some((join, filter)) = node.downcast_ref::<HashJoinExec>().and_then(|join| Some((join, join.filter()?))) {
        return Ok(Some(Arc::new(join.builder().with_filter(Some(asks(filter))).build()?)));
    }
    Ok(None)
}

/// A condition that fails when the query is to stop.
struct Asking {
    condition: Arc<dyn PhysicalExpr>,
    stop: Arc<dyn Stop>,
}

impl PhysicalExpr for Asking {
    fn return_field(&self, input: &Schema) -> DfResult<FieldRef> {
        self.condition.return_field(input)
    }

    fn evaluate(&self, rows: &RecordBatch) -> DfResult<ColumnarValue> {
        match self.stop.reason() {
            Some(reason) => Err(reason.into()),
            None => self.condition.evaluate(rows),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().ok_or_else(|| Error::internal("a condition was rewritten without itself"))?;
        Ok(Arc::new(Asking { condition, stop: Arc::clone(&self.stop) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.condition, f)
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Asking) -> bool {
        self.condition.as_ref() == other.condition.as_ref()
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}
