//! MATCH_RECOGNIZE in a batch query: all rows of a partition, in order, through the same [`Scan`] as in an operator.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::TryStreamExt;

use super::{MatchNode, column_name};
use crate::error::{Error, Result};
use crate::flow::pattern::Spec;
use crate::flow::pattern::scan::{Scan, Verdict, rows};
use crate::limits::BATCH_ROWS;
use crate::time::Micros;

/// Plans queries with our own nodes.
#[derive(Debug)]
pub struct Queries;

#[async_trait]
impl QueryPlanner for Queries {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Matches)]).create_physical_plan(plan, session).await
    }
}

struct Matches;

#[async_trait]
impl ExtensionPlanner for Matches {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<MatchNode>(), inputs) else { return Ok(None) };
        let column = |(number, expr): (usize, &datafusion::logical_expr::Expr)| -> DfResult<_> {
            Ok((session.create_physical_expr(expr.clone(), node.input.schema())?, column_name(number)))
        };
        let columns: Vec<(Arc<dyn PhysicalExpr>, String)> =
            node.columns.iter().enumerate().map(column).collect::<DfResult<_>>()?;
        let input = Arc::new(ProjectionExec::try_new(columns, Arc::clone(input))?);
        let spec = Arc::new(super::spec(node, session)?);
        Ok(Some(Arc::new(MatchExec::new(input, spec, node.final_by, node.describe()))))
    }
}

/// Gathers its input, and gives the matches partition by partition.
struct MatchExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<Spec>,
    /// Only matches that are final by this frontier.
    final_by: Option<Micros>,
    description: String,
    properties: Arc<PlanProperties>,
}

impl MatchExec {
    fn new(input: Arc<dyn ExecutionPlan>, spec: Arc<Spec>, final_by: Option<Micros>, description: String) -> MatchExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&spec.output)),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(input.properties().partitioning.partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        MatchExec { input, spec, final_by, description, properties: Arc::new(properties) }
    }
}

impl ExecutionPlan for MatchExec {
    fn name(&self) -> &str {
        "MatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let column = |column: &usize| Arc::new(Column::new(&column_name(*column), *column)) as Arc<dyn PhysicalExpr>;
        match self.spec.partition.as_slice() {
            [] => vec![Distribution::SinglePartition],
            partition => vec![Distribution::KeyPartitioned(partition.iter().map(column).collect())],
        }
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| Error::internal("a match without input"))?;
        Ok(Arc::new(MatchExec::new(input, Arc::clone(&self.spec), self.final_by, self.description.clone())))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let reservation = MemoryConsumer::new("MatchExec").register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        let (spec, final_by) = (Arc::clone(&self.spec), self.final_by);
        let output = Arc::clone(&spec.output);
        let gathered = async move {
            let mut batches = Vec::new();
            let mut input = input;
            while let Some(batch) = input.try_next().await? {
                // Once as it comes, and once in order.
                reservation.try_grow(2 * batch.get_array_memory_size())?;
                batches.push(batch);
            }
            let (rows, partitions) = in_order(&spec, &batches)?;
            let found = Matching { spec, final_by, rows, partitions: partitions.into_iter() };
            // The rows are held for as long as the stream is.
            let held = found.map(move |batch| {
                let _ = &reservation;
                batch.map_err(Into::into)
            });
            Ok::<_, datafusion::error::DataFusionError>(futures::stream::iter(held))
        };
        let stream = futures::stream::once(gathered).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(output, stream)))
    }
}

/// The rows, partition by partition, in the order in which an arrangement has them.
fn in_order(spec: &Spec, batches: &[RecordBatch]) -> Result<(RecordBatch, Vec<Range<usize>>)> {
    let all = compute::concat_batches(&spec.columns, batches)?;
    let field = |column: usize, options| SortField::new_with_options(spec.columns.field(column).data_type().clone(), options);
    let mut by = spec.order.clone();
    by.extend((0..all.num_columns()).filter(|c| spec.order.iter().all(|(other, _)| other != c)).map(|c| (c, Default::default())));
    let encode = |by: Vec<(usize, arrow::compute::SortOptions)>| -> Result<Option<arrow::row::Rows>> {
        let columns: Vec<ArrayRef> = by.iter().map(|(column, _)| Arc::clone(all.column(*column))).collect();
        let fields = by.into_iter().map(|(column, options)| field(column, options)).collect::<Vec<_>>();
        Ok(if fields.is_empty() { None } else { Some(RowConverter::new(fields)?.convert_columns(&columns)?) })
    };
    let keys = encode(spec.partition.iter().map(|column| (*column, Default::default())).collect())?;
    let codes = encode(by)?;
    let key = |row: u32| keys.as_ref().map(|keys| keys.row(row as usize));
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| {
        let code = |row: u32| codes.as_ref().map(|codes| codes.row(row as usize));
        key(*a).cmp(&key(*b)).then_with(|| code(*a).cmp(&code(*b)))
    });
    let mut partitions = Vec::new();
    let mut start = 0;
    for (place, row) in order.iter().enumerate() {
        if order.get(place + 1).is_none_or(|next| key(*next) != key(*row)) {
            partitions.push(start..place + 1);
            start = place + 1;
        }
    }
    Ok((compute::take_record_batch(&all, &UInt32Array::from(order))?, partitions))
}

/// The matches of one partition after the other.
struct Matching {
    spec: Arc<Spec>,
    final_by: Option<Micros>,
    rows: RecordBatch,
    partitions: std::vec::IntoIter<Range<usize>>,
}

impl Matching {
    fn matches_of(&self, range: Range<usize>) -> Result<RecordBatch> {
        let rows = rows(&self.spec, self.rows.slice(range.start, range.len()))?;
        let mut scan = Scan::new(&self.spec, rows, 0, 0);
        while !scan.is_done() {
            let attempt = scan.attempt(&self.spec)?.ok_or_else(|| Error::internal("a batch has no more rows"))?;
            let open = |frontier: Micros| scan.verdict(&self.spec, &attempt, frontier) != Verdict::Final;
            if self.final_by.is_some_and(open) {
                break;
            }
            scan.advance(&self.spec, attempt, true)?;
        }
        scan.take(&self.spec)
    }
}

impl Iterator for Matching {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        let mut found: Vec<RecordBatch> = Vec::new();
        let mut count = 0;
        while count < BATCH_ROWS {
            let Some(range) = self.partitions.next() else { break };
            match self.matches_of(range) {
                Ok(batch) => {
                    count += batch.num_rows();
                    found.push(batch);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        if count == 0 {
            return None;
        }
        Some(compute::concat_batches(&self.spec.output, &found).map_err(Into::into))
    }
}

impl DisplayAs for MatchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchExec: {}", self.description)
    }
}

impl fmt::Debug for MatchExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as(DisplayFormatType::Default, f)
    }
}
