//! The order in which the partitions of an answer reach the client: one after the other.
//!
//! SQL leaves the order of a query without ORDER BY open, but who writes `a UNION ALL b` has read in every database that the
//! rows of `a` come first, and a statement that is asked twice should answer the same twice. A plan's partitions are read as they
//! come where the rows meet again in a join or an aggregate; from there on up to the client they are read in their order.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    replace_children_if_necessary,
};
use futures::StreamExt;

use crate::error::Error;

/// Batches that a partition is ahead of its turn at most.
const AHEAD: usize = 16;

/// The plan with one partition, whose rows are those of its partitions in their order.
pub fn in_order(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if plan.output_partitioning().partition_count() > 1 {
        return one_after_the_other(plan);
    }
    if let Some(gathered) = plan.downcast_ref::<CoalescePartitionsExec>() {
        let rows = one_after_the_other(Arc::clone(gathered.input()))?;
        return Ok(match gathered.fetch() {
            Some(limit) => Arc::new(GlobalLimitExec::new(rows, 0, Some(limit))),
            None => rows,
        });
    }
    match input_in_order(&plan) {
        // What has more than one is merged by an order of the rows' own.
        Some(input) if input.output_partitioning().partition_count() == 1 => {
            let input = in_order(Arc::clone(input))?;
            replace_children_if_necessary(plan, vec![input])
        }
        _ => Ok(plan),
    }
}

/// The only input of a node that gives its rows in their order.
fn input_in_order(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    match (plan.children().as_slice(), plan.maintains_input_order().as_slice()) {
        ([input], [true]) => Some(*input),
        _ => None,
    }
}

fn one_after_the_other(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let plan = undealt(plan)?;
    Ok(match plan.output_partitioning().partition_count() {
        1 => plan,
        _ => Arc::new(InOrderExec::new(plan)),
    })
}

/// The plan, where rows that stand in one order are not dealt out to several partitions.
fn undealt(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(dealt) = plan.downcast_ref::<RepartitionExec>() {
        let deals = matches!(dealt.partitioning(), Partitioning::RoundRobinBatch(_));
        return match dealt.input().output_partitioning().partition_count() {
            1 if deals => undealt(Arc::clone(dealt.input())),
            _ => Ok(plan),
        };
    }
    let inputs: Vec<_> = match input_in_order(&plan) {
        Some(input) => vec![input],
        None if plan.is::<UnionExec>() => plan.children(),
        None => return Ok(plan),
    };
    let inputs = inputs.into_iter().map(|input| undealt(Arc::clone(input))).collect::<DfResult<_>>()?;
    replace_children_if_necessary(plan, inputs)
}

/// Runs the partitions of its input at once, and gives their rows one partition after the other.
struct InOrderExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InOrderExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> InOrderExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        InOrderExec { input, properties: Arc::new(properties) }
    }
}

impl ExecutionPlan for InOrderExec {
    fn name(&self) -> &str {
        "InOrderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| Error::internal("an order of partitions without input"))?;
        Ok(Arc::new(InOrderExec::new(input)))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        // Each has a task of its own: a partition may wait for what another one finds out.
        let run = |partition| {
            let mut rows = self.input.execute(partition, Arc::clone(&context))?;
            let mut task = RecordBatchReceiverStream::builder(self.schema(), AHEAD);
            let turn = task.tx();
            task.spawn(async move {
                while let Some(batch) = rows.next().await {
                    let last = batch.is_err();
                    if turn.send(batch).await.is_err() || last {
                        break;
                    }
                }
                Ok(())
            });
            Ok(task.build())
        };
        let count = self.input.output_partitioning().partition_count();
        let partitions: Vec<_> = (0..count).map(run).collect::<DfResult<_>>()?;
        let rows = futures::stream::iter(partitions).flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

impl DisplayAs for InOrderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InOrderExec")
    }
}

impl fmt::Debug for InOrderExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InOrderExec")
    }
}
