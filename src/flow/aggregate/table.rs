//! The state tables of an aggregate: its groups, and the values behind those aggregates that keep them all.
//!
//! A row of the group table is `[window end,] keys…, weight, accumulator state…`; its key is all before the weight. A row of a
//! journal is `[window end,] keys…, values…` with the weight that the value was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take_arrays;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::accumulate::{Values, state_field};
use super::groups::Groups;
use super::{Core, Evaluated, Spec};
use crate::delta::{Delta, consolidate};
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

pub(super) type GroupTable = Core;

/// Rows that a journal may hold before it adds them up.
const JOURNAL_ROWS: usize = 1 << 20;

/// `[window end,] keys…`
pub(super) fn group_fields(spec: &Spec) -> Vec<Field> {
    let window = spec.window.map(|_| Field::new("window_end", DataType::Int64, false));
    let keys = spec.key_types.iter().enumerate().map(|(i, t)| state_field(format!("key{i}"), t));
    window.into_iter().chain(keys).collect()
}

fn group_columns(spec: &Spec, end: Micros, keys: Vec<ArrayRef>, rows: usize) -> Vec<ArrayRef> {
    let window = spec.window.map(|_| Arc::new(Int64Array::from_value(end, rows)) as ArrayRef);
    window.into_iter().chain(keys).collect()
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn group_schema(spec: &Spec, groups: &Groups) -> SchemaRef {
    let mut fields = group_fields(spec);
    fields.push(state_field("weight".into(), &DataType::Int64));
    for (call, accumulator) in groups.accumulators.iter().enumerate() {
        let types = accumulator.state_types();
        fields.extend(types.iter().enumerate().map(|(part, t)| state_field(format!("state{call}_{part}"), t)));
    }
    Arc::new(Schema::new(fields))
}

/// The end of groups: their keys with weight -1.
fn deletions(spec: &Spec, end: Micros, groups: &Groups, numbers: &[u32]) -> Result<Delta> {
    let schema = group_schema(spec, groups);
    let mut columns = group_columns(spec, end, groups.keys.columns(numbers)?, numbers.len());
    let rest = &schema.fields()[columns.len()..];
    columns.extend(rest.iter().map(|f| new_null_array(f.data_type(), numbers.len())));
    Ok(Delta::weighted(batch(&schema, columns, numbers.len())?, -1))
}

/// All groups of a window that was dropped, those too whose rows were taken away since a checkpoint that has them.
pub(super) fn gone(spec: &Spec, end: Micros, groups: &mut Groups) -> Result<Delta> {
    let (_, mut numbers) = groups.take_unsaved();
    numbers.extend(groups.live());
    deletions(spec, end, groups, &numbers)
}

/// Rows of a state table by their window's end.
pub(super) fn split_by_end(spec: &Spec, rows: &RecordBatch) -> Vec<(Micros, UInt32Array)> {
    if spec.window.is_none() {
        return vec![(NO_TIME, UInt32Array::from_iter_values(0..rows.num_rows() as u32))];
    }
    let mut by_end: BTreeMap<Micros, Vec<u32>> = BTreeMap::new();
    for (row, end) in rows.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
        by_end.entry(*end).or_default().push(row as u32);
    }
    by_end.into_iter().map(|(end, rows)| (end, UInt32Array::from(rows))).collect()
}

impl StateTable for Core {
    fn name(&self) -> &'static str {
        "groups"
    }

    fn schema(&self) -> SchemaRef {
        let probe = Groups::new(&self.plan).expect("the plan made groups before");
        group_schema(&self.spec, &probe)
    }

    fn key_columns(&self) -> usize {
        group_fields(&self.spec).len()
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        let mut changes = std::mem::take(&mut self.dropped);
        let mut empty = Vec::new();
        for (end, groups) in &mut self.windows {
            let (live, gone) = groups.take_unsaved();
            if !gone.is_empty() {
                changes.push(deletions(&self.spec, *end, groups, &gone)?);
                groups.release(&gone);
            }
            if !live.is_empty() {
                let schema = group_schema(&self.spec, groups);
                let mut columns = group_columns(&self.spec, *end, groups.keys.columns(&live)?, live.len());
                columns.push(Arc::new(Int64Array::from(groups.weights(&live))));
                for accumulator in &groups.accumulators {
                    columns.extend(accumulator.state(&live)?);
                }
                changes.push(Delta::append(batch(&schema, columns, live.len())?));
            }
            groups.saved = true;
            if groups.is_empty() {
                empty.push(*end);
            }
        }
        // A window whose rows were all taken away again.
        empty.iter().for_each(|end| drop(self.windows.remove(end)));
        Ok(changes)
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        let first_key = usize::from(self.spec.window.is_some());
        let key_end = first_key + self.spec.key_types.len();
        self.started = true;
        // Without a key, nothing tells the states of the one group apart when a checkpoint puts runs together: the last one counts.
        let delta = match self.key_columns() {
            0 if !delta.is_empty() => delta.take(&UInt32Array::from(vec![delta.len() as u32 - 1]))?,
            _ => delta,
        };
        for (end, rows) in split_by_end(&self.spec, &delta.rows) {
            let part = delta.take(&rows)?;
            let part = part.take(&self.shard.owned(&part.rows.columns()[first_key..key_end], part.len())?)?;
            if part.is_empty() {
                continue;
            }
            let groups = match self.windows.entry(end) {
                std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(Groups::new(&self.plan)?),
            };
            // Runs of puts and of deletions, in order.
            let mut from = 0;
            while from < part.len() {
                let put = part.weight(from) > 0;
                let to = (from..part.len()).find(|row| (part.weight(*row) > 0) != put).unwrap_or(part.len());
                let run = part.rows.slice(from, to - from);
                let keys = &run.columns()[first_key..key_end];
                if put {
                    let mut state = run.columns()[key_end + 1..].iter();
                    let per_call: Vec<Vec<ArrayRef>> = groups
                        .accumulators
                        .iter()
                        .map(|a| state.by_ref().take(a.state_types().len()).cloned().collect())
                        .collect();
                    groups.restore(keys, run.column(key_end).as_primitive::<Int64Type>(), &per_call)?;
                } else {
                    groups.restore_gone(keys, run.num_rows())?;
                }
                from = to;
            }
        }
        self.windows.retain(|_, groups| !groups.is_empty());
        Ok(())
    }

    fn rows(&self) -> usize {
        self.windows.values().map(Groups::len).sum()
    }

    fn bytes(&self) -> usize {
        self.windows.values().map(Groups::bytes).sum()
    }
}

/// The values that came and went since the last checkpoint, of one call.
pub(super) struct Journal {
    pub call: usize,
    schema: SchemaRef,
    deltas: Vec<Delta>,
    rows: usize,
    pub loaded: Vec<Delta>,
}

impl Journal {
    /// `group`: what a group is told by; `types`: of its values.
    pub fn new(call: usize, group: &[Field], types: &[DataType]) -> Journal {
        let values = types.iter().enumerate().map(|(i, t)| state_field(format!("value{i}"), t));
        let schema = Arc::new(Schema::new(group.iter().cloned().chain(values).collect::<Vec<_>>()));
        Journal { call, schema, deltas: Vec::new(), rows: 0, loaded: Vec::new() }
    }

    /// Its call was given a batch, or some rows of it.
    pub fn note(&mut self, end: Option<Micros>, input: &Evaluated, groups: &Groups, rows: Option<&UInt32Array>) -> Result<()> {
        let arguments = &input.arguments[self.call];
        let Some(news) = kept(groups, self.call)?.news() else {
            return match rows {
                None => self.record(end, &input.keys, arguments, input.diff.clone(), input.rows),
                Some(rows) => self.record_rows(end, &input.keys, arguments, rows, input.weights(rows)),
            };
        };
        let row = |at: &u32| rows.map_or(*at, |rows| rows.value(*at as usize));
        self.record_rows(end, &input.keys, arguments, &UInt32Array::from_iter_values(news.iter().map(row)), None)
    }

    fn record_rows(
        &mut self,
        end: Option<Micros>,
        keys: &[ArrayRef],
        values: &[ArrayRef],
        rows: &UInt32Array,
        diff: Option<Int64Array>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (keys, values) = (take_arrays(keys, rows, None)?, take_arrays(values, rows, None)?);
        self.record(end, &keys, &values, diff, rows.len())
    }

    fn record(
        &mut self,
        end: Option<Micros>,
        keys: &[ArrayRef],
        values: &[ArrayRef],
        diff: Option<Int64Array>,
        rows: usize,
    ) -> Result<()> {
        let window = end.map(|end| Arc::new(Int64Array::from_value(end, rows)) as ArrayRef);
        let columns = window.into_iter().chain(keys.iter().cloned()).chain(values.iter().cloned()).collect();
        self.push(Delta { rows: batch(&self.schema, columns, rows)?, diff })
    }

    fn push(&mut self, delta: Delta) -> Result<()> {
        self.rows += delta.len();
        self.deltas.push(delta);
        if self.rows > JOURNAL_ROWS {
            let weighted: Vec<Delta> = std::mem::take(&mut self.deltas).into_iter().map(explicit).collect();
            let sum = consolidate(&self.schema, &weighted)?;
            // Grows with what is really there, so that adding up stays rare.
            self.rows = sum.len() / 2;
            self.deltas.push(sum);
        }
        Ok(())
    }

    /// The window is gone, and all its values with it.
    pub fn retire(&mut self, end: Micros, groups: &mut Groups, live: &[u32]) -> Result<()> {
        for number in live {
            let keys = groups.keys.columns(&[*number])?;
            let (values, weights) = kept(groups, self.call)?.content(*number)?;
            if weights.is_empty() {
                continue;
            }
            let keys = take_arrays(&keys, &UInt32Array::from_value(0, weights.len()), None)?;
            let diff = Int64Array::from_iter_values(weights.iter().map(|w| -w));
            self.record(Some(end), &keys, &values, Some(diff), weights.len())?;
        }
        Ok(())
    }
}

/// What keeps the values of a call.
fn kept(groups: &Groups, call: usize) -> Result<&dyn Values> {
    groups.accumulators[call].values().ok_or_else(|| Error::internal("a journal without values"))
}

/// Weights written out, so that equal rows are added up even if all weights are +1.
fn explicit(delta: Delta) -> Delta {
    let diff = delta.diff.unwrap_or_else(|| Int64Array::from_value(1, delta.rows.num_rows()));
    Delta::new(delta.rows, diff)
}

impl StateTable for Journal {
    fn name(&self) -> &'static str {
        "values"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn key_columns(&self) -> usize {
        0
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        self.rows = 0;
        Ok(std::mem::take(&mut self.deltas))
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        self.loaded.push(delta);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.deltas.iter().map(Delta::bytes).sum()
    }
}
