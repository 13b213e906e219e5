//! The rows of a stream, or the versions of a table's rows, read from the log as a query asks for them.
//!
//! Each partition of the stream is one of the plan's. A few stored batches are decoded at a time; nothing is kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableSource;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use super::Source;
use super::watermarks::Watermarks;
use crate::catalog::Relation;
use crate::error::{Error, Result};
use crate::flow::history::versions;
use crate::log::{Header, LogBatch};
use crate::sql::plan::{Hidden, RelationSource};
use crate::time::Micros;

/// Stored batches decoded at once; a stored batch is bounded by [`crate::limits::BATCH_BYTES`].
const PORTION: usize = 8;

/// Name of the column that holds the watermark before a row's commit. No query can name it.
pub const WATERMARK: &str = "$watermark";

/// Where the watermark of a row comes from.
#[derive(Clone, Debug)]
pub enum RowWatermark {
    /// The stream's own.
    Own,
    Of(Arc<Watermarks>),
}

/// The stream as a table: the columns of `of`, then, if asked for, [`WATERMARK`].
pub fn provider(source: &Source, of: &RelationSource, watermark: Option<RowWatermark>) -> Result<Arc<dyn TableProvider>> {
    let relation = of.relation();
    let mut fields = of.schema().fields().to_vec();
    fields.extend(watermark.iter().map(|_| Arc::new(Field::new(WATERMARK, DataType::Int64, false))));
    let schema = Arc::new(Schema::new(fields));
    let partition = |partition| -> Arc<dyn PartitionStream> {
        Arc::new(Partition {
            source: source.clone(),
            relation: Arc::clone(relation),
            partition,
            hidden: (!of.is_history()).then(|| of.hidden().to_vec()),
            watermark: watermark.clone(),
            schema: Arc::clone(&schema),
        })
    };
    let partitions = (0..relation.partitions).map(partition).collect();
    Ok(Arc::new(StreamingTable::try_new(Arc::clone(&schema), partitions)?))
}

#[derive(Clone)]
struct Partition {
    source: Source,
    relation: Arc<Relation>,
    partition: u32,
    /// `None`: versions of a table's rows are read.
    hidden: Option<Vec<Hidden>>,
    watermark: Option<RowWatermark>,
    schema: SchemaRef,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] up to commit {}", self.relation.name, self.partition, self.source.snapshot.commit)
    }
}

impl Partition {
    fn read(&self, offset: u64) -> Result<Vec<LogBatch>> {
        let Source { snapshot, log } = &self.source;
        log.scan(&snapshot.catalog, self.relation.id, self.partition, offset, snapshot.commit, PORTION)
    }

    /// The stored columns and those that the header tells.
    fn widen(&self, batch: &LogBatch) -> Result<RecordBatch> {
        let LogBatch { header, rows } = batch;
        // A view's query may know of fewer columns than the stream has by now.
        let Some(known) = rows.columns().get(..self.relation.columns.len()) else {
            return Err(Error::internal(format!("a batch of \"{}\" has {} columns", self.relation.name, rows.num_columns())));
        };
        let mut columns = match &self.hidden {
            Some(hidden) => {
                let hidden = hidden.iter().map(|hidden| hidden_column(*hidden, header, rows.num_rows()));
                known.iter().cloned().chain(hidden).collect()
            }
            None => {
                let time = self.relation.watermark.as_ref().map(|watermark| watermark.column);
                let known: Vec<usize> = (0..known.len()).collect();
                versions(header, &rows.project(&known)?, time).columns().to_vec()
            }
        };
        if let Some(watermark) = &self.watermark {
            let watermark: Micros = match watermark {
                RowWatermark::Own => header.watermark,
                RowWatermark::Of(watermarks) => watermarks.before(header.commit),
            };
            columns.push(Arc::new(Int64Array::from_value(watermark, rows.num_rows())));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn hidden_column(hidden: Hidden, header: &Header, rows: usize) -> ArrayRef {
    match hidden {
        Hidden::Partition => Arc::new(Int32Array::from_value(header.partition as i32, rows)),
        Hidden::Offset => {
            let first = header.base_offset as i64;
            Arc::new(Int64Array::from_iter_values(first..first + rows as i64))
        }
        Hidden::Commit => Arc::new(Int64Array::from_value(header.commit as i64, rows)),
        Hidden::IngestedAt => Arc::new(TimestampMicrosecondArray::from_value(header.commit_time, rows)),
        Hidden::RowId | Hidden::Version | Hidden::Deleted => unreachable!("a stream offers no {}", hidden.name()),
    }
}

/// How far a partition has been read.
struct Reading {
    partition: Partition,
    /// Where the next portion starts; `None` after the last.
    next: Option<u64>,
    decoded: VecDeque<LogBatch>,
}

impl Reading {
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.decoded.is_empty() {
            let Some(offset) = self.next.take() else { return Ok(None) };
            self.decoded = self.partition.read(offset)?.into();
            self.next = self.decoded.back().map(|last| last.header.base_offset + u64::from(last.header.rows));
        }
        self.decoded.pop_front().map(|batch| self.partition.widen(&batch)).transpose()
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reading = Reading { partition: self.clone(), next: Some(0), decoded: VecDeque::new() };
        let batches = futures::stream::try_unfold(reading, |mut reading| async move {
            let batch = reading.batch().map_err(DataFusionError::from)?;
            Ok(batch.map(|batch| (batch, reading)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}
