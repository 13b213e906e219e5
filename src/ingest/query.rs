//! The way of running queries into the log: what becomes of a query's changes in a stream, in a table, as a changelog.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::execution::SessionState;
use parking_lot::Mutex;

use super::misfits::in_parts;
use super::{CompiledRelation, RelationWriter, compile};
use crate::catalog::{Catalog, Column, Kind, Output, Relation};
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
        let way = Way { output: &self.output, writer: self.writer()?, now: self.clock.now() };
        if self.output.changelog {
            let rows = changes.iter().map(|(commit, delta)| changelog_rows(way.target(), *commit, delta));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            return way.write(&concat_batches(&way.target().schema(), &rows)?, log::Kind::Append).map(|(writes, _)| writes);
        }
        let deltas: Vec<Delta> = changes.iter().map(|(_, delta)| delta.clone()).collect();
        let delta = consolidate(&self.schema, &deltas)?;
        match (&delta.diff, way.target().kind) {
            (None, Kind::Table) => way.write(&delta.rows, log::Kind::Upsert).map(|(writes, _)| writes),
            (Some(diff), Kind::Table) => way.upserts(&delta.rows, diff),
            (Some(diff), _) if diff.values().iter().any(|weight| *weight != 1) => {
                Err(Error::internal(format!("rows of stream \"{}\" would be taken back", way.target().name)))
            }
            _ => way.write(&delta.rows, log::Kind::Append).map(|(writes, _)| writes),
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
        let dead = catalog.dead_letters_of(target.id).cloned();
        let made = Arc::new(RelationWriter::new(compiled, dead, None));
        *writer = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// The way of some changes.
struct Way<'a> {
    output: &'a Output,
    writer: Arc<RelationWriter>,
    now: Micros,
}

impl Way<'_> {
    fn target(&self) -> &Relation {
        self.writer.relation()
    }

    /// Also returns the rows that the target has taken: the others are dead letters.
    fn write(&self, rows: &RecordBatch, kind: log::Kind) -> Result<(Vec<Write>, RecordBatch)> {
        if rows.num_rows() == 0 {
            return Ok((Vec::new(), rows.clone()));
        }
        self.writer.write_fitting(&self.output.columns, rows, kind, self.now)
    }

    /// A row that comes replaces the one of its key; one that goes is removed, unless its key has a new one. One that comes and
    /// does not fit leaves its key without a row: what the table holds does not depend on how changes are cut.
    fn upserts(&self, rows: &RecordBatch, diff: &Int64Array) -> Result<Vec<Write>> {
        let comes: BooleanArray = diff.values().iter().map(|weight| Some(*weight > 0)).collect();
        let goes: BooleanArray = diff.values().iter().map(|weight| Some(*weight <= 0)).collect();
        let (mut writes, taken) = self.write(&filter_record_batch(rows, &comes)?, log::Kind::Upsert)?;
        let converter = RowConverter::new(self.key_types())?;
        let kept = self.stored_keys(&taken)?.into_iter().map(|keys| converter.convert_columns(&keys));
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        let kept: HashSet<_> = kept.iter().flat_map(|keys| keys.iter()).collect();
        let mut removed = Vec::new();
        for keys in self.stored_keys(&filter_record_batch(rows, &goes)?)? {
            let is_gone = converter.convert_columns(&keys)?.iter().map(|key| Some(!kept.contains(&key))).collect();
            removed.extend(self.writer.write(
                filter_record_batch(&self.with_key(&keys)?, &is_gone)?,
                log::Kind::Delete,
                self.now,
            )?);
        }
        removed.append(&mut writes);
        Ok(removed)
    }

    fn key_types(&self) -> Vec<SortField> {
        let table = self.target();
        table.primary_key.iter().map(|at| SortField::new(table.columns[*at].data_type.clone())).collect()
    }

    /// The keys that the table has, or had, rows of the query under. Those that it cannot have are left out.
    fn stored_keys(&self, rows: &RecordBatch) -> Result<Vec<Vec<ArrayRef>>> {
        let stored = |rows: &RecordBatch| {
            let key = |at: &usize| {
                let place = self.output.columns.iter().position(|target| target == at);
                let place =
                    place.ok_or_else(|| Error::internal(format!("a query gives no key of \"{}\"", self.target().name)))?;
                self.writer.compiled().stored_value(*at, rows.column(place))
            };
            self.target().primary_key.iter().map(key).collect::<Result<Vec<_>>>()
        };
        Ok(in_parts(rows, &stored)?.into_iter().filter_map(|part| part.outcome.ok()).collect())
    }

    /// Rows that are known by their key alone.
    fn with_key(&self, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let (table, count) = (self.target(), keys.first().map_or(0, |key| key.len()));
        let column = |(at, column): (usize, &Column)| match table.primary_key.iter().position(|key| *key == at) {
            Some(place) => Arc::clone(&keys[place]),
            None => new_null_array(&column.data_type, count),
        };
        let columns = table.columns.iter().enumerate().map(column).collect();
        compile::batch(compile::nullable(&table.schema()), columns, count)
    }
}

/// `commit`, `diff`, then the columns.
fn changelog_rows(stream: &Relation, commit: CommitId, delta: &Delta) -> Result<RecordBatch> {
    let count = delta.len();
    let diff = delta.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, count));
    let lead: [ArrayRef; 2] = [Arc::new(Int64Array::from_value(commit as i64, count)), Arc::new(diff)];
    compile::batch(stream.schema(), lead.into_iter().chain(delta.rows.columns().iter().cloned()).collect(), count)
}
