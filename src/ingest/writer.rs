//! Rows of user columns to writes of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{self, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};

use super::compile::{CompiledRelation, batch, nullable};
use super::dead::bury;
use super::numbers::{Numbers, greatest};
use super::partition::{Split, partitions_of, split};
use crate::catalog::{ROW_ID, Relation};
use crate::copy::value::write::push_timestamp;
use crate::copy::{check_violation, null_violation};
use crate::error::{Error, Result};
use crate::limits::{BATCH_BYTES, BATCH_ROWS, STORED_VALUE_BYTES};
use crate::log::{Kind, Rows, Write};
use crate::time::Micros;

/// Turns rows into writes of one relation.
pub struct RelationWriter {
    compiled: Arc<CompiledRelation>,
    stored_schema: arrow::datatypes::SchemaRef,
    /// Where rows go that cannot be taken; without it they are refused.
    pub(super) dead: Option<Arc<Relation>>,
    row_ids: Option<Arc<Numbers>>,
    /// Streams without a key: the next batch's turn.
    next_partition: AtomicU32,
}

impl RelationWriter {
    /// `dead`: the relation's dead letters, if it has them. `row_ids`: needed for a table without a primary key.
    pub fn new(compiled: Arc<CompiledRelation>, dead: Option<Arc<Relation>>, row_ids: Option<Arc<Numbers>>) -> RelationWriter {
        let stored_schema = compiled.relation.stored_schema();
        RelationWriter { compiled, stored_schema, dead, row_ids, next_partition: AtomicU32::new(0) }
    }

    /// The partition that the first batch of a stream without a key goes to.
    #[must_use]
    pub fn starting_at(self, partition: u32) -> RelationWriter {
        self.next_partition.store(partition, Ordering::Relaxed);
        self
    }

    pub fn relation(&self) -> &Arc<Relation> {
        &self.compiled.relation
    }

    pub fn compiled(&self) -> &Arc<CompiledRelation> {
        &self.compiled
    }

    /// Writes for rows of all user columns, in the relation's order and of its types. Rows of a table without a primary key may
    /// bring their row id as first column (updates, deletes); otherwise they get one. For deletes only the key counts.
    pub fn write(&self, rows: RecordBatch, kind: Kind, now: Micros) -> Result<Vec<Write>> {
        let (row_ids, rows) = self.take_row_ids(rows);
        self.check_types(&rows)?;
        let mut writes = Vec::new();
        let rows = match kind {
            Kind::Delete => rows,
            Kind::Append | Kind::Upsert => self.validate(rows, now, &mut writes)?,
        };
        if rows.num_rows() > 0 {
            let stored = self.with_row_ids(rows, row_ids)?;
            self.push_writes(stored, kind, now, &mut writes)?;
        }
        Ok(writes)
    }

    /// Rows of all user columns as they would be stored: generated columns computed, values cut to what their types hold.
    pub fn checked(&self, rows: RecordBatch, now: Micros) -> Result<RecordBatch> {
        self.check_types(&rows)?;
        self.validate(rows, now, &mut Vec::new())
    }

    fn take_row_ids(&self, mut rows: RecordBatch) -> (Option<ArrayRef>, RecordBatch) {
        let given = self.relation().has_row_id() && rows.schema_ref().fields().first().is_some_and(|f| f.name() == ROW_ID);
        let more = rows.num_columns() > self.relation().columns.len();
        let ids = (given && more).then(|| rows.remove_column(0));
        (ids, rows)
    }

    fn check_types(&self, rows: &RecordBatch) -> Result<()> {
        let relation = self.relation();
        if rows.num_columns() != relation.columns.len() {
            let message = format!("{} columns for the {} of \"{}\"", rows.num_columns(), relation.columns.len(), relation.name);
            return Err(Error::internal(message));
        }
        for (array, column) in rows.columns().iter().zip(&relation.columns) {
            if *array.data_type() != column.data_type {
                let message = format!(
                    "column \"{}\" is of type {} but rows are of type {}",
                    column.name,
                    column.sql_type,
                    array.data_type()
                );
                return Err(Error::datatype_mismatch(message));
            }
        }
        Ok(())
    }

    /// The rows that may be stored. Those that are for the dead letters go there.
    fn validate(&self, rows: RecordBatch, now: Micros, writes: &mut Vec<Write>) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = self.compiled.generate(rows.columns().to_vec(), count, now)?;
        for ((column, modifier), definition) in columns.iter_mut().zip(&self.compiled.modifiers).zip(&self.relation().columns) {
            match modifier.apply(column) {
                Ok(Some(changed)) => *column = changed,
                Ok(None) => {}
                Err(bad) => {
                    let row = if count == 1 { String::new() } else { format!(", row {}", bad.row + 1) };
                    return Err(bad.error.with_context(format!("column \"{}\"{row}", definition.name)));
                }
            }
        }
        self.check_not_null(&columns)?;
        if let Some((row, check)) = self.compiled.broken(&columns, count, now)? {
            return Err(check_violation(&self.relation().name, check, &columns, row));
        }
        let rows = batch(nullable(&self.compiled.schema), columns, count)?;
        self.take_out_dead(rows, now, writes)
    }

    fn check_not_null(&self, columns: &[ArrayRef]) -> Result<()> {
        let relation = self.relation();
        let required = |at: usize| !relation.columns[at].nullable || relation.primary_key.contains(&at);
        let first_null = |array: &ArrayRef| (0..array.len()).find(|row| array.is_null(*row));
        let violations = columns.iter().enumerate().filter(|(at, array)| required(*at) && array.null_count() > 0);
        let first = violations.filter_map(|(at, array)| Some((first_null(array)?, at))).min();
        match first {
            Some((row, at)) => Err(null_violation(&relation.name, &relation.columns[at].name, columns, row)),
            None => Ok(()),
        }
    }

    fn event_times<'a>(&self, columns: &'a [ArrayRef]) -> Option<&'a TimestampMicrosecondArray> {
        let watermark = self.relation().watermark.as_ref()?;
        columns.get(watermark.column)?.as_primitive_opt::<TimestampMicrosecondType>()
    }

    fn take_out_dead(&self, rows: RecordBatch, now: Micros, writes: &mut Vec<Write>) -> Result<RecordBatch> {
        let Some(times) = self.event_times(rows.columns()).filter(|_| self.compiled.watermark.is_some()) else {
            return Ok(rows);
        };
        let latest = now.saturating_add(self.compiled.max_future);
        let in_future = compute::max(times).is_some_and(|max| max > latest);
        // A table may hold rows without event time, as long as the column may be NULL: they are rows by their key.
        let dead = self.dead.as_ref().filter(|_| self.relation().kind == crate::catalog::Kind::Stream);
        let with_null = times.null_count() > 0 && dead.is_some();
        if !in_future && !with_null {
            return Ok(rows);
        }
        let Some(dead) = dead else { return Err(self.too_far(compute::max(times).unwrap_or(latest))) };
        let is_dead: BooleanArray = times.iter().map(|time| Some(time.is_none_or(|time| time > latest))).collect();
        let column = self.relation().watermark.as_ref().map_or("", |w| self.relation().columns[w.column].name.as_str());
        let reason = |time: Option<Micros>| match time {
            None => Some(format!("event time \"{column}\" is null")),
            Some(time) if time > latest => Some(format!("event time \"{column}\" is too far in the future: {}", shown(time))),
            Some(_) => None,
        };
        let reasons = times.iter().filter_map(reason).collect();
        let dead_rows = filter_record_batch(&rows, &is_dead)?;
        writes.extend(bury(dead, &self.relation().columns, &dead_rows, reasons, now)?);
        Ok(filter_record_batch(&rows, &compute::not(&is_dead)?)?)
    }

    fn too_far(&self, time: Micros) -> Error {
        let message = format!("event time {} is too far in the future", shown(time));
        Error::datetime_overflow(message).with_hint("raise max_future of the relation, or correct the time")
    }

    /// Rows of the stored schema.
    fn with_row_ids(&self, rows: RecordBatch, given: Option<ArrayRef>) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = Vec::with_capacity(rows.num_columns() + 1);
        if self.relation().has_row_id() {
            columns.push(match (given, &self.row_ids) {
                (Some(ids), _) => ids,
                (None, Some(ids)) => ids.take(count, &DataType::Int64)?,
                (None, None) => return Err(Error::internal(format!("no row ids for \"{}\"", self.relation().name))),
            });
        }
        columns.extend(rows.columns().iter().cloned());
        batch(nullable(&self.stored_schema), columns, count)
    }

    /// Indices in the stored schema of the columns that choose the partition; empty: in turn.
    fn partition_key(&self) -> Vec<usize> {
        let relation = self.relation();
        match relation.partition_by.is_empty() {
            true if relation.kind == crate::catalog::Kind::Table => relation.stored_key(),
            _ => relation.partition_by.iter().map(|at| at + usize::from(relation.has_row_id())).collect(),
        }
    }

    fn push_writes(&self, rows: RecordBatch, kind: Kind, now: Micros, writes: &mut Vec<Write>) -> Result<()> {
        let partitions = self.relation().partitions.max(1);
        let key = self.partition_key();
        if key.is_empty() {
            for piece in cut(rows)? {
                let partition = self.next_partition.fetch_add(1, Ordering::Relaxed) % partitions;
                writes.push(self.to_write(piece, partition, kind, now)?);
            }
            return Ok(());
        }
        let parts = match partitions {
            1 => Split::One(0),
            _ => {
                let key: Vec<ArrayRef> = key.iter().map(|at| rows.column(*at).clone()).collect();
                split(&partitions_of(&key, rows.num_rows(), partitions)?, partitions)
            }
        };
        match parts {
            Split::One(partition) => {
                for piece in cut(rows)? {
                    writes.push(self.to_write(piece, partition, kind, now)?);
                }
            }
            Split::Many(parts) => {
                for (partition, indices) in parts {
                    for piece in cut(take_record_batch(&rows, &indices)?)? {
                        writes.push(self.to_write(piece, partition, kind, now)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn to_write(&self, rows: RecordBatch, partition: u32, kind: Kind, now: Micros) -> Result<Write> {
        let mut event_times = None;
        let (mut watermark, mut number) = (None, None);
        if kind != Kind::Delete {
            let user_columns = &rows.columns()[usize::from(self.relation().has_row_id())..];
            if let Some(times) = self.event_times(user_columns) {
                event_times = compute::min(times).zip(compute::max(times));
            }
            if let Some(values) = self.compiled.watermark_of(user_columns, rows.num_rows(), now)? {
                watermark = compute::max(values.as_primitive::<TimestampMicrosecondType>());
            }
            if let Some((at, _)) = self.relation().identity() {
                number = greatest(&user_columns[at])?;
                number.zip(self.compiled.numbers.as_ref()).iter().for_each(|(number, numbers)| numbers.raise(*number));
            }
        }
        let rows = match kind {
            // Columns beside the key may be missing from a row that is deleted.
            Kind::Delete => rows,
            Kind::Append | Kind::Upsert => batch(self.stored_schema.clone(), rows.columns().to_vec(), rows.num_rows())?,
        };
        let checked = self.relation().newest_check();
        Ok(Write {
            relation: self.relation().id,
            partition,
            kind,
            rows: Rows::Batch(rows),
            event_times,
            watermark,
            number,
            checked,
        })
    }
}

fn shown(time: Micros) -> String {
    let mut text = Vec::new();
    push_timestamp(&mut text, time);
    String::from_utf8_lossy(&text).into_owned()
}

/// Bytes of the values of these rows alone, whatever their buffers hold besides.
fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|array| array.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Batches within the bounds, in order.
pub(super) fn cut(rows: RecordBatch) -> Result<Vec<RecordBatch>> {
    let mut pieces = Vec::new();
    cut_into(rows, &mut pieces)?;
    Ok(pieces)
}

fn cut_into(rows: RecordBatch, pieces: &mut Vec<RecordBatch>) -> Result<()> {
    let (count, bytes) = (rows.num_rows(), bytes_of(&rows));
    if count == 1 && bytes > STORED_VALUE_BYTES - BATCH_BYTES {
        let message = format!("a row of {bytes} bytes is too large to be stored, at most {}", STORED_VALUE_BYTES - BATCH_BYTES);
        return Err(Error::limit_exceeded(message));
    }
    let needed = count.div_ceil(BATCH_ROWS).max(bytes.div_ceil(BATCH_BYTES)).min(count);
    if needed <= 1 {
        pieces.push(rows);
        return Ok(());
    }
    let each = count.div_ceil(needed);
    for start in (0..count).step_by(each) {
        cut_into(rows.slice(start, each.min(count - start)), pieces)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
