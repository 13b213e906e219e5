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
    Ok(one_after_the_other(ordered(plan)?))
}

fn one_after_the_other(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.output_partitioning().partition_count() {
        1 => plan,
        _ => Arc::new(InOrderExec::new(plan)),
    }
}

/// The plan, whose partitions have their rows in the order of its inputs as far down as there is one.
fn ordered(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(gathered) = plan.downcast_ref::<CoalescePartitionsExec>() {
        let rows = in_order(Arc::clone(gathered.input()))?;
        return Ok(match gathered.fetch() {
            Some(limit) => Arc::new(GlobalLimitExec::new(rows, 0, Some(limit))),
            None => rows,
        });
    }
    if let Some(dealt) = plan.downcast_ref::<RepartitionExec>() {
        // Rows of one partition are dealt out so that a filter has several: but for that they stay together.
        let one = dealt.input().output_partitioning().partition_count() == 1;
        return match dealt.partitioning() {
            Partitioning::RoundRobinBatch(_) if one => ordered(Arc::clone(dealt.input())),
            _ => Ok(plan),
        };
    }
    let count = plan.output_partitioning().partition_count();
    let inputs = match (plan.children().as_slice(), plan.maintains_input_order().as_slice()) {
        _ if plan.is::<UnionExec>() => plan.children(),
        // What has more of them than it gives merges them by an order of the rows' own.
        ([input], [true]) if input.output_partitioning().partition_count() == count => vec![*input],
        _ => return Ok(plan),
    };
    let inputs = inputs.into_iter().map(|input| ordered(Arc::clone(input))).collect::<DfResult<_>>()?;
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

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use rstest::rstest;

    use super::*;

    const DEALT: &str = "SELECT value AS v FROM generate_series(1, 100000) WHERE value % 3 = 0";

    #[rstest]
    // Dealt out for the filter: not any more.
    #[case("DEALT", "Projection Filter LazyMemory")]
    #[case("SELECT v, row_number() OVER () AS n FROM (DEALT)", "Projection BoundedWindowAgg Projection Filter LazyMemory")]
    #[case("DEALT UNION ALL SELECT 1", "InOrder Union Projection Filter LazyMemory Projection PlaceholderRow")]
    #[case(
        "DEALT UNION ALL SELECT 1 LIMIT 5",
        "GlobalLimit InOrder Union Projection GlobalLimit Filter LazyMemory Projection PlaceholderRow"
    )]
    // Rows that meet again in no order of their own are as they were.
    #[case("SELECT count(*) FROM (DEALT)", "Projection Aggregate CoalescePartitions Aggregate Filter Repartition LazyMemory")]
    #[case("DEALT ORDER BY -v", "SortPreservingMerge Sort Projection Filter Repartition LazyMemory")]
    #[tokio::test]
    async fn plans(#[case] sql: &str, #[case] expected: &str) {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let query = context.sql(&sql.replace("DEALT", DEALT)).await.unwrap();
        let plan = in_order(query.create_physical_plan().await.unwrap()).unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        let nodes: Vec<&str> = shown.lines().filter_map(|line| line.trim().split("Exec").next()).collect();
        assert_eq!(nodes.join(" "), expected, "{shown}");
    }
}
