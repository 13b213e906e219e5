//! GROUP BY: one row per group, kept up to date.
//!
//! State is kept per open window, never with the window in the key: a window that closes is dropped whole. Within a window,
//! keys are interned to numbers and accumulators are columns ([`groups`]).
//!
//! ```text
//!   update:  batch ─► split by window ─► keys to numbers ─► (former rows of groups touched first) ─► accumulators
//!   finish:  touched groups ─► −former row, +new row      (EMIT CHANGES)
//!            closed windows ─► +rows, once                (EMIT FINAL)       closed windows are dropped
//! ```
//!
//! A group exists while rows of it exist. Without GROUP BY there is one group, and it always exists.

pub mod accumulate;
mod distinct;
mod extreme;
mod fold;
pub(in crate::flow) mod groups;
mod multiset;
mod numeric;
pub mod sliced;
#[cfg(test)]
mod sliced_tests;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;

use self::accumulate::Call;
use self::groups::{Groups, Plan};
use self::table::{GroupTable, Journal};
use super::{Context, Operator, Shard, WINDOW_TIME};
use crate::catalog::Emit;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME};

/// A column of the operator's output, left of the aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupColumn {
    /// The i-th key.
    Key(usize),
    WindowStart,
    WindowEnd,
    WindowTime,
}

/// What to compute.
#[derive(Clone)]
pub struct Spec {
    /// Keys other than the window.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    pub key_types: Vec<DataType>,
    /// The group-by columns of the output, in order.
    pub group_columns: Vec<GroupColumn>,
    pub window: Option<WindowKey>,
    pub calls: Vec<Call>,
    pub append_only: bool,
    pub emit: Emit,
    /// No GROUP BY at all.
    pub global: bool,
    /// Group columns, then one column per call.
    pub schema: SchemaRef,
}

/// The window that groups are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowKey {
    /// Input column with any bound of the window that says which it is, and which bound.
    pub column: usize,
    pub bound: Bound,
    pub windows: Windows,
    /// `None`: windows never close.
    pub delay: Option<Micros>,
}

/// Which of a window's instants a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Start,
    End,
    Time,
}

impl WindowKey {
    /// The end of the window whose bound this is.
    fn end(&self, bound: Micros) -> Micros {
        match self.bound {
            Bound::End => bound,
            Bound::Time => bound.saturating_add(WINDOW_TIME),
            Bound::Start => self.windows.end_of(bound).unwrap_or(bound),
        }
    }
}

pub struct Aggregate {
    core: Core,
    journals: Vec<Journal>,
}

/// Everything but the journals, which stand beside it so that both can be lent out as state tables.
pub(crate) struct Core {
    spec: Spec,
    plan: Plan,
    shard: Shard,
    /// By window end; without windows, one table under [`NO_TIME`].
    windows: BTreeMap<Micros, Groups>,
    /// Former rows of groups touched in this step, to be taken away.
    former: Vec<RecordBatch>,
    /// The one row of a global aggregate over nothing has been given.
    started: bool,
    /// State of groups that are gone with their window, for the next checkpoint.
    dropped: Vec<Delta>,
}

impl Aggregate {
    pub fn new(spec: Spec, shard: Shard) -> Result<Aggregate> {
        let core = Core::new(spec, shard);
        let probe = Groups::new(&core.plan)?;
        let group = table::group_fields(&core.spec);
        let mut journals = Vec::new();
        for (call, accumulator) in probe.accumulators.iter().enumerate() {
            if let Some(values) = accumulator.values() {
                journals.push(Journal::new(call, &group, values.types()));
            }
        }
        Ok(Aggregate { core, journals })
    }

    /// Apply what was loaded into the journals: the groups are there by now.
    fn absorb(&mut self) -> Result<()> {
        for journal in &mut self.journals {
            for delta in std::mem::take(&mut journal.loaded) {
                self.core.absorb(journal.call, &delta)?;
            }
        }
        Ok(())
    }
}

impl Operator for Aggregate {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.absorb()?;
        let input = self.core.evaluate(&delta)?;
        for (end, rows) in split_by_window(self.core.spec.window, &delta.rows)? {
            match rows {
                None => self.core.update_window(end, &input, &mut self.journals)?,
                Some(rows) => self.core.update_window(end, &input.take(&rows)?, &mut self.journals)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        self.absorb()?;
        self.core.start()?;
        match self.core.spec.emit {
            Emit::Changes | Emit::Every(_) => self.core.emit_changes(cx)?,
            Emit::Final | Emit::FinalOrSilent(_) => self.core.settle_all()?,
        }
        self.core.close_windows(cx, &mut self.journals)
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> = vec![self.core.as_table()];
        tables.extend(self.journals.iter_mut().map(|j| j as &mut dyn StateTable));
        tables
    }
}

/// A batch with everything evaluated that the groups need of it.
struct Evaluated {
    rows: usize,
    keys: Vec<ArrayRef>,
    /// Per call.
    arguments: Vec<Vec<ArrayRef>>,
    /// Per call: which rows pass its FILTER.
    filters: Vec<Option<BooleanArray>>,
    diff: Option<Int64Array>,
}

impl Evaluated {
    /// Feed the groups that the batch's keys were just entered into. `fed` is told after each call which rows it got: all (`None`), or
    /// those that pass its FILTER.
    fn add_to(&self, groups: &mut Groups, mut fed: impl FnMut(&Groups, usize, Option<&UInt32Array>) -> Result<()>) -> Result<()> {
        groups.weigh(self.diff.as_ref());
        for (call, arguments) in self.arguments.iter().enumerate() {
            let Some(mask) = &self.filters[call] else {
                groups.accumulate(call, None, arguments, self.diff.as_ref())?;
                fed(groups, call, None)?;
                continue;
            };
            let rows = UInt32Array::from_iter_values(mask.values().set_indices().map(|row| row as u32));
            let numbers: Vec<u32> = rows.values().iter().map(|row| groups.numbers()[*row as usize]).collect();
            let arguments = compute::take_arrays(arguments, &rows, None)?;
            groups.accumulate(call, Some(&numbers), &arguments, self.weights(&rows).as_ref())?;
            fed(groups, call, Some(&rows))?;
        }
        Ok(())
    }

    fn weights(&self, rows: &UInt32Array) -> Option<Int64Array> {
        let diff = self.diff.as_ref()?;
        Some(Int64Array::from_iter_values(rows.values().iter().map(|row| diff.value(*row as usize))))
    }

    fn take(&self, rows: &UInt32Array) -> Result<Evaluated> {
        let arrays = |columns: &Vec<ArrayRef>| -> Result<Vec<ArrayRef>> { Ok(compute::take_arrays(columns, rows, None)?) };
        let filter = |f: &Option<BooleanArray>| -> Result<Option<BooleanArray>> {
            Ok(match f {
                None => None,
                Some(f) => Some(compute::take(f, rows, None)?.as_boolean().clone()),
            })
        };
        Ok(Evaluated {
            rows: rows.len(),
            keys: arrays(&self.keys)?,
            arguments: self.arguments.iter().map(arrays).collect::<Result<_>>()?,
            filters: self.filters.iter().map(filter).collect::<Result<_>>()?,
            diff: self.weights(rows),
        })
    }
}

impl Core {
    fn new(spec: Spec, shard: Shard) -> Core {
        let plan = Plan { key_types: spec.key_types.clone(), calls: spec.calls.clone(), append_only: spec.append_only };
        Core { spec, plan, shard, windows: BTreeMap::new(), former: Vec::new(), started: false, dropped: Vec::new() }
    }

    fn as_table(&mut self) -> &mut dyn StateTable {
        self as &mut GroupTable
    }

    fn evaluate(&self, delta: &Delta) -> Result<Evaluated> {
        let rows = delta.len();
        let array = |e: &Arc<dyn PhysicalExpr>| -> Result<ArrayRef> { Ok(e.evaluate(&delta.rows)?.into_array(rows)?) };
        let arrays = |es: &[Arc<dyn PhysicalExpr>]| es.iter().map(array).collect::<Result<Vec<_>>>();
        let filter = |call: &Call| -> Result<Option<BooleanArray>> {
            let Some(filter) = &call.filter else { return Ok(None) };
            let mask = array(filter)?;
            let mask =
                mask.as_boolean_opt().ok_or_else(|| Error::datatype_mismatch("FILTER (WHERE …) must be of type boolean"))?;
            Ok(Some(if mask.null_count() > 0 { compute::prep_null_mask_filter(mask) } else { mask.clone() }))
        };
        Ok(Evaluated {
            rows,
            keys: arrays(&self.spec.keys)?,
            arguments: self.spec.calls.iter().map(|call| arrays(&call.arguments)).collect::<Result<_>>()?,
            filters: self.spec.calls.iter().map(filter).collect::<Result<_>>()?,
            diff: delta.diff.clone(),
        })
    }

    fn update_window(&mut self, end: Micros, input: &Evaluated, journals: &mut [Journal]) -> Result<()> {
        let groups = match self.windows.entry(end) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Groups::new(&self.plan)?),
        };
        let before = groups.enter(&input.keys, input.rows)?;
        if self.spec.emit == Emit::Changes && !before.is_empty() {
            let rows = output(&self.spec, end, groups, &before)?;
            self.former.push(rows);
        }
        let end = self.spec.window.map(|_| end);
        input.add_to(groups, |groups, call, rows| match journals.iter_mut().find(|journal| journal.call == call) {
            Some(journal) => journal.note(end, input, groups, rows),
            None => Ok(()),
        })
    }

    /// The group of a global aggregate is there from the start, held by a row that is never taken away.
    fn start(&mut self) -> Result<()> {
        if !self.spec.global || self.started || self.shard.index != 0 {
            return Ok(());
        }
        self.started = true;
        if self.windows.is_empty() {
            self.windows.insert(NO_TIME, Groups::new(&self.plan)?);
        }
        for groups in self.windows.values_mut() {
            groups.enter(&[], 1)?;
            groups.weigh(None);
        }
        Ok(())
    }

    fn emit_changes(&mut self, cx: &mut Context) -> Result<()> {
        for rows in std::mem::take(&mut self.former) {
            cx.emit(Delta::weighted(rows, -1));
        }
        for (end, groups) in &mut self.windows {
            let live = groups.settle()?;
            if !live.is_empty() {
                cx.emit(Delta::append(output(&self.spec, *end, groups, &live)?));
            }
        }
        Ok(())
    }

    fn settle_all(&mut self) -> Result<()> {
        for groups in self.windows.values_mut() {
            groups.settle()?;
        }
        Ok(())
    }

    /// Drop the windows that the frontier has closed; with EMIT FINAL, after giving their rows.
    fn close_windows(&mut self, cx: &mut Context, journals: &mut [Journal]) -> Result<()> {
        let Some(delay) = self.spec.window.and_then(|w| w.delay) else { return Ok(()) };
        if cx.frontier == NO_TIME {
            return Ok(());
        }
        let closed = cx.frontier.saturating_sub(delay);
        while let Some(entry) = self.windows.first_entry().filter(|entry| *entry.key() <= closed) {
            let (end, mut groups) = entry.remove_entry();
            let live = groups.live();
            if self.spec.emit == Emit::Final && !live.is_empty() {
                cx.emit(Delta::append(output(&self.spec, end, &groups, &live)?));
            }
            if groups.saved {
                self.dropped.push(table::gone(&self.spec, end, &mut groups)?);
            }
            for journal in journals.iter_mut() {
                journal.retire(end, &mut groups, &live)?;
            }
        }
        Ok(())
    }

    fn absorb(&mut self, call: usize, delta: &Delta) -> Result<()> {
        let first_key = usize::from(self.spec.window.is_some());
        let first_value = first_key + self.spec.key_types.len();
        for (end, rows) in table::split_by_end(&self.spec, &delta.rows) {
            // Values of windows that are gone add up to nothing, but in chunks.
            let Some(groups) = self.windows.get_mut(&end) else { continue };
            let part = delta.take(&rows)?;
            let part = part.take(&self.shard.owned(&part.rows.columns()[first_key..first_value], part.len())?)?;
            let (keys, values) = part.rows.columns()[first_key..].split_at(first_value - first_key);
            groups.accumulate_keys(call, keys, values, part.diff.as_ref(), part.len())?;
        }
        Ok(())
    }
}

/// Window ends in a batch and the rows of each; `None`: all rows.
fn split_by_window(window: Option<WindowKey>, rows: &RecordBatch) -> Result<Vec<(Micros, Option<UInt32Array>)>> {
    let Some(window) = window else { return Ok(vec![(NO_TIME, None)]) };
    let column = rows.column(window.column);
    let bounds = column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("a window's bound has type {}", column.data_type())))?;
    let bounds = bounds.values();
    let Some(first) = bounds.first() else { return Ok(Vec::new()) };
    if bounds.iter().all(|bound| bound == first) {
        return Ok(vec![(window.end(*first), None)]);
    }
    let mut rows_of: BTreeMap<Micros, Vec<u32>> = BTreeMap::new();
    let mut run = 0;
    while run < bounds.len() {
        let end = bounds[run..].iter().position(|b| *b != bounds[run]).map_or(bounds.len(), |n| run + n);
        rows_of.entry(window.end(bounds[run])).or_default().extend(run as u32..end as u32);
        run = end;
    }
    Ok(rows_of.into_iter().map(|(end, rows)| (end, Some(UInt32Array::from(rows)))).collect())
}

/// The output rows of some groups.
fn output(spec: &Spec, end: Micros, groups: &Groups, numbers: &[u32]) -> Result<RecordBatch> {
    let keys = groups.keys.columns(numbers)?;
    let instant = |at: Micros, data_type: &DataType| -> ArrayRef {
        let array = arrow::array::PrimitiveArray::<TimestampMicrosecondType>::from_value(at, numbers.len());
        Arc::new(array.with_data_type(data_type.clone()))
    };
    let start = spec.window.map_or(end, |w| w.windows.start_of(end));
    let mut columns = Vec::with_capacity(spec.schema.fields().len());
    for (column, field) in spec.group_columns.iter().zip(spec.schema.fields()) {
        columns.push(match column {
            GroupColumn::Key(key) => Arc::clone(&keys[*key]),
            GroupColumn::WindowStart => instant(start, field.data_type()),
            GroupColumn::WindowEnd => instant(end, field.data_type()),
            GroupColumn::WindowTime => instant(end.saturating_sub(WINDOW_TIME), field.data_type()),
        });
    }
    columns.extend(groups.values(numbers)?);
    let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&spec.schema), columns, &options)?)
}
