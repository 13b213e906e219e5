//! The way of running queries into the log: what becomes of a query's changes in a stream, in a table, as a changelog.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::execution::SessionState;
use parking_lot::Mutex;

use super::{CompiledRelation, RelationWriter, compile};
use crate::catalog::{Catalog, Kind, Output, Relation};
use crate::delta::{Delta, consolidate};
use crate::engine::{Inlet, Intake};
use crate::error::{Error, Result};
use crate::log::{self, CommitId, LogHandle, Write};
use crate::sql::plan::Planner;
use crate::time::{Clock, Micros};

/// Opens the ways of queries into one log.
pub struct QueryIntake {
    pub log: LogHandle,
    pub clock: Arc<dyn Clock>,
    pub state: Arc<SessionState>,
}

impl Intake for QueryIntake {
    fn open(&self, _: &Catalog, query: &Relation, schema: &SchemaRef) -> Result<Box<dyn Inlet>> {
        let output = query.output.clone().ok_or_else(|| Error::internal(format!("\"{}\" writes nothing", query.name)))?;
        let (log, clock, state) = (self.log.clone(), Arc::clone(&self.clock), Arc::clone(&self.state));
        Ok(Box::new(QueryInlet { output, schema: Arc::clone(schema), log, clock, state, writer: Mutex::default() }))
    }
}

struct QueryInlet {
    output: Output,
    schema: SchemaRef,
    log: LogHandle,
    clock: Arc<dyn Clock>,
    state: Arc<SessionState>,
    /// For the target as it was defined when rows were last written.
    writer: Mutex<Option<Arc<RelationWriter>>>,
}

impl Inlet for QueryInlet {
    fn writes(&self, changes: &[(CommitId, Delta)]) -> Result<Vec<Write>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let (writer, now) = (self.writer()?, self.clock.now());
        if self.output.changelog {
            let rows = changes.iter().map(|(commit, delta)| changelog_rows(writer.relation(), *commit, delta));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            return self.write(
                &writer,
                &arrow::compute::concat_batches(&writer.relation().schema(), &rows)?,
                log::Kind::Append,
                now,
            );
        }
        let deltas: Vec<Delta> = changes.iter().map(|(_, delta)| delta.clone()).collect();
        let delta = consolidate(&self.schema, &deltas)?;
        match (&delta.diff, writer.relation().kind) {
            (None, Kind::Table) => self.write(&writer, &delta.rows, log::Kind::Upsert, now),
            (Some(diff), Kind::Table) => self.upserts(&writer, &delta, diff, now),
            (Some(diff), _) if diff.values().iter().any(|weight| *weight != 1) => {
                Err(Error::internal(format!("rows of stream \"{}\" would be taken back", writer.relation().name)))
            }
            _ => self.write(&writer, &delta.rows, log::Kind::Append, now),
        }
    }
}

impl QueryInlet {
    fn writer(&self) -> Result<Arc<RelationWriter>> {
        let catalog = self.log.catalog();
        let gone = || Error::undefined_table("the relation that the query writes to was dropped");
        let target = catalog.get(self.output.target).ok_or_else(gone)?;
        let mut writer = self.writer.lock();
        if let Some(known) = writer.as_ref().filter(|known| Arc::ptr_eq(known.relation(), target)) {
            return Ok(Arc::clone(known));
        }
        let planner = Planner::new(Arc::clone(&catalog), Arc::clone(&self.state));
        let compiled = Arc::new(CompiledRelation::compile(Arc::clone(target), &planner)?);
        let dead = catalog.relations().find(|r| r.kind == Kind::Stream && r.parent == Some(target.id)).cloned();
        let made = Arc::new(RelationWriter::new(compiled, dead, None));
        *writer = Some(Arc::clone(&made));
        Ok(made)
    }

    fn write(&self, writer: &RelationWriter, rows: &RecordBatch, kind: log::Kind, now: Micros) -> Result<Vec<Write>> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        writer.write(writer.compiled().assign(&self.output.columns, rows, now)?, kind, now)
    }

    /// A row that comes replaces the one of its key; one that goes is removed, unless its key has a new one.
    fn upserts(&self, writer: &RelationWriter, delta: &Delta, diff: &Int64Array, now: Micros) -> Result<Vec<Write>> {
        let comes: BooleanArray = diff.values().iter().map(|weight| Some(*weight > 0)).collect();
        let keys = self.keys(writer.relation(), &delta.rows)?;
        let kept: HashSet<_> = (0..delta.len()).filter(|row| comes.value(*row)).map(|row| keys.row(row)).collect();
        let goes: BooleanArray = (0..delta.len()).map(|row| Some(!comes.value(row) && !kept.contains(&keys.row(row)))).collect();
        let mut writes = self.write(writer, &filter_record_batch(&delta.rows, &goes)?, log::Kind::Delete, now)?;
        writes.extend(self.write(writer, &filter_record_batch(&delta.rows, &comes)?, log::Kind::Upsert, now)?);
        Ok(writes)
    }

    /// The target's key of rows of the query.
    fn keys(&self, table: &Relation, rows: &RecordBatch) -> Result<arrow::row::Rows> {
        let place = |at: &usize| self.output.columns.iter().position(|target| target == at);
        let columns: Option<Vec<ArrayRef>> =
            table.primary_key.iter().map(|at| place(at).map(|column| Arc::clone(rows.column(column)))).collect();
        let columns = columns.ok_or_else(|| Error::internal(format!("a query gives no key of \"{}\"", table.name)))?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        Ok(RowConverter::new(fields)?.convert_columns(&columns)?)
    }
}

/// `commit`, `diff`, then the columns.
fn changelog_rows(stream: &Relation, commit: CommitId, delta: &Delta) -> Result<RecordBatch> {
    let count = delta.len();
    let diff = delta.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, count));
    let lead: [ArrayRef; 2] = [Arc::new(Int64Array::from_value(commit as i64, count)), Arc::new(diff)];
    compile::batch(stream.schema(), lead.into_iter().chain(delta.rows.columns().iter().cloned()).collect(), count)
}
