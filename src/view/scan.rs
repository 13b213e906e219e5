//! Reading a version as a step of a DataFusion plan: batch by batch, so that a query holds no copy of what it reads.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

use super::Version;
use super::search::Search;
use super::version::Part;
use crate::error::Error;
use crate::limits::BATCH_ROWS;

/// Which rows of a version are read.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    All,
    /// Those of chunks that may have what is asked for: of each in turn, whether it may.
    Chunks(Arc<[bool]>),
    /// Those that a look-up finds.
    Found(Search),
}

/// Some rows of a part.
struct Piece {
    part: Part,
    start: usize,
    length: usize,
}

/// Reads columns of a version, all rows or those of some keys.
pub(super) struct ViewScan {
    version: Arc<Version>,
    rows: Rows,
    columns: Arc<[usize]>,
    /// Each partition may stop after so many rows.
    limit: Option<usize>,
    /// Of all rows, or of chunks of them.
    partitions: Vec<Arc<[Piece]>>,
    properties: Arc<PlanProperties>,
}

impl ViewScan {
    pub fn new(
        version: Arc<Version>,
        rows: Rows,
        columns: Vec<usize>,
        limit: Option<usize>,
        partitions: usize,
    ) -> Result<ViewScan> {
        let schema: SchemaRef = Arc::new(version.schema().project(&columns)?);
        let partitions = match (&rows, limit) {
            (Rows::Found(_), _) => vec![Vec::new().into()],
            // A few rows are found soonest in one go.
            (Rows::All, Some(limit)) if limit <= BATCH_ROWS => split(&version, &rows, 1),
            (Rows::All | Rows::Chunks(_), _) => split(&version, &rows, partitions),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative));
        Ok(ViewScan { version, rows, columns: columns.into(), limit, partitions, properties })
    }

    fn batches(&self, partition: usize) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        let columns = self.columns.clone();
        match &self.rows {
            Rows::All | Rows::Chunks(_) => {
                let pieces = self.partitions[partition].clone();
                Box::new((0..pieces.len()).map(move |at| {
                    let Piece { part, start, length } = &pieces[at];
                    Ok(part.read(*start, *length, Some(&columns))?)
                }))
            }
            Rows::Found(search) => {
                let (version, mut search) = (self.version.clone(), search.clone());
                let next =
                    move || (!search.is_done()).then(|| Ok(version.gather(&search.next(&version, BATCH_ROWS)?, Some(&columns))?));
                Box::new(std::iter::from_fn(next).flat_map(|found| match found {
                    Ok(found) => cut(found).map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                }))
            }
        }
    }
}

/// Pieces in order, shared out so that each partition has about as many rows.
fn split(version: &Version, rows: &Rows, partitions: usize) -> Vec<Arc<[Piece]>> {
    let is_read = |at: usize| if let Rows::Chunks(chunks) = rows { chunks[at] } else { true };
    let chunks = version.chunks().enumerate().filter(|(at, _)| is_read(*at));
    let pieces: Vec<Piece> = chunks.map(|(_, (part, start, length))| Piece { part: part.clone(), start, length }).collect();
    let rows: usize = pieces.iter().map(|piece| piece.length).sum();
    let partitions = partitions.clamp(1, rows.div_ceil(BATCH_ROWS).max(1));
    let share = rows.div_ceil(partitions).max(1);
    let mut shares: Vec<Vec<Piece>> = (0..partitions).map(|_| Vec::new()).collect();
    let mut before = 0;
    for piece in pieces {
        let rows = piece.length;
        shares[before / share].push(piece);
        before += rows;
    }
    shares.into_iter().map(Arc::from).collect()
}

fn cut(batch: RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows).step_by(BATCH_ROWS).map(move |start| batch.slice(start, BATCH_ROWS.min(rows - start)))
}

/// Non-empty batches until there are `limit` rows.
fn limited(
    batches: impl Iterator<Item = Result<RecordBatch>> + Send,
    limit: Option<usize>,
) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut batches = batches.filter(|batch| !matches!(batch, Ok(batch) if batch.num_rows() == 0));
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let batch = batches.next()?;
        Some(batch.map(|batch| {
            let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
            left -= batch.num_rows();
            batch
        }))
    })
}

impl ExecutionPlan for ViewScan {
    fn name(&self) -> &str {
        match self.rows {
            Rows::All | Rows::Chunks(_) => "ViewScan",
            Rows::Found(_) => "ViewLookup",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions.len() {
            return Err(Error::internal(format!("partition {partition} of a scan that has {}", self.partitions.len())).into());
        }
        let batches = limited(self.batches(partition), self.limit);
        let stream = RecordBatchStreamAdapter::new(self.schema(), futures::stream::iter(batches));
        Ok(Box::pin(cooperative(stream)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let rows = match (&self.rows, args.partition()) {
            (Rows::All, None) if self.limit.is_none() => Precision::Exact(self.version.rows()),
            (Rows::All, None) => Precision::Inexact(self.version.rows().min(limit)),
            (Rows::All, Some(_)) => Precision::Inexact((self.version.rows() / self.partitions.len()).min(limit)),
            (Rows::Chunks(_), partition) => {
                let read = |pieces: &Arc<[Piece]>| pieces.iter().map(|piece| piece.length).sum::<usize>();
                let of_one = partition.map(|partition| self.partitions.get(partition).map_or(0, read));
                Precision::Inexact(of_one.unwrap_or_else(|| self.partitions.iter().map(read).sum()))
            }
            (Rows::Found(search), _) if search.columns() == self.version.key() => Precision::Inexact(search.asked().min(limit)),
            // At most a whole version; how many rows share a value nobody counts.
            (Rows::Found(_), _) => Precision::Absent,
        };
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = rows;
        Ok(Arc::new(statistics))
    }
}

impl DisplayAs for ViewScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "{}: columns=[{}]", self.name(), columns.join(", "))?;
        match &self.rows {
            Rows::All => write!(f, ", rows={}, partitions={}", self.version.rows(), self.partitions.len())?,
            Rows::Chunks(chunks) => {
                let read = chunks.iter().filter(|is_read| **is_read).count();
                write!(f, ", rows={}, chunks={read} of {}", self.version.rows(), chunks.len())?;
                write!(f, ", partitions={}", self.partitions.len())?;
            }
            Rows::Found(search) if search.columns() == self.version.key() => write!(f, ", keys={}", search.asked())?,
            Rows::Found(search) => {
                let stored = self.version.schema();
                let by: Vec<&str> = search.columns().iter().map(|column| stored.field(*column).name().as_str()).collect();
                write!(f, ", by=[{}], values={}", by.join(", "), search.asked())?;
            }
        }
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl fmt::Debug for ViewScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as(DisplayFormatType::Default, f)
    }
}
