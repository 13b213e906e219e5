//! What conditions and measures read: the rows of a partition as columns, the rows of a match, aggregates over them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use arrow::compute;
use arrow::compute::kernels::window::shift;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;

use super::program::{Variables, bit};
use super::{Anchor, Call, Slot, Spec, Test};
use crate::error::{Error, Result};
use crate::time::Micros;

/// Rows of a partition, in order and without gaps.
pub struct Rows {
    pub batch: RecordBatch,
    /// No row of the partition is before, or after them.
    pub from_start: bool,
    pub to_end: bool,
    times: Option<Int64Array>,
    /// By variable: which rows fit as far as the rows alone say.
    fits: Vec<Option<BooleanArray>>,
    /// By call.
    arguments: Vec<Vec<ArrayRef>>,
}

impl Rows {
    pub fn new(spec: &Spec, batch: RecordBatch, from_start: bool, to_end: bool) -> Result<Rows> {
        let times = spec.time.map(|time| instants(batch.column(time))).transpose()?;
        let fits = spec.defines.iter().map(|define| define.of_row.as_ref().map(|test| fits(test, &batch)).transpose());
        let fits = fits.collect::<Result<_>>()?;
        let of_call = |call: &Call| {
            let values = call.arguments.iter().map(|argument| Ok(argument.evaluate(&batch)?.into_array(batch.num_rows())?));
            values.collect::<Result<Vec<_>>>()
        };
        let arguments = spec.calls.iter().map(of_call).collect::<Result<_>>()?;
        Ok(Rows { batch, from_start, to_end, times, fits, arguments })
    }

    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The instant of a row; none comes after one without.
    pub fn time(&self, row: usize) -> Micros {
        let time = |times: &Int64Array| if times.is_valid(row) { times.value(row) } else { Micros::MAX };
        self.times.as_ref().map_or(Micros::MAX, time)
    }

    /// Whether the row may be one of the variable's, as far as the rows alone say.
    pub fn fits(&self, variable: u8, row: usize) -> bool {
        self.fits[usize::from(variable)].as_ref().is_none_or(|fits| fits.is_valid(row) && fits.value(row))
    }
}

/// A timestamp column as microseconds.
pub fn instants(column: &ArrayRef) -> Result<Int64Array> {
    let DataType::Timestamp(_, zone) = column.data_type() else {
        return Err(Error::internal(format!("rows are matched within a time of type {}", column.data_type())));
    };
    let micros = compute::cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
    Ok(compute::cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// A test of all rows at once.
fn fits(test: &Test, batch: &RecordBatch) -> Result<BooleanArray> {
    let values = test.slots.iter().map(|slot| match slot {
        Slot::Column { column, anchor: Anchor::Current, shift: 0 } => Ok(Arc::clone(batch.column(*column))),
        Slot::Column { column, anchor: Anchor::Current, shift: by } => Ok(shift(batch.column(*column), -by)?),
        _ => Err(Error::internal("a test of rows asks for more than the rows")),
    });
    let values = batch_of(&test.schema, values.collect::<Result<_>>()?, batch.num_rows())?;
    answer(test, &values)
}

fn answer(test: &Test, values: &RecordBatch) -> Result<BooleanArray> {
    let answer = test.condition.evaluate(values)?.into_array(values.num_rows())?;
    let answer = answer.as_boolean_opt().ok_or_else(|| Error::internal("a condition of DEFINE is not boolean"))?;
    Ok(answer.clone())
}

fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// The rows of a match: one after the other from the first, each with its variable.
#[derive(Clone, Copy)]
pub struct Mapped<'a> {
    pub start: usize,
    pub variables: &'a [u8],
}

impl Mapped<'_> {
    /// The last row of the whole, if there is one.
    pub fn last(&self) -> Option<usize> {
        self.variables.len().checked_sub(1).map(|last| self.start + last)
    }

    /// Rows of these variables, in order.
    pub fn rows(&self, of: Variables) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let start = self.start;
        self.variables.iter().enumerate().filter(move |(_, v)| of & bit(**v) != 0).map(move |(n, _)| start + n)
    }

    fn anchor(&self, anchor: Anchor) -> Option<usize> {
        match anchor {
            Anchor::Current => self.last(),
            Anchor::First { of, but } => self.rows(of).nth(but),
            Anchor::Last { of, but } => self.rows(of).nth_back(but),
        }
    }

    /// The row that a navigation comes to, before or behind the rows that are there as it may be.
    pub fn navigate(&self, anchor: Anchor, shift: i64) -> Option<usize> {
        self.anchor(anchor)?.checked_add_signed(isize::try_from(shift).ok()?)
    }
}

/// The running values of aggregates. What was added is remembered: as long as rows only come, each is added once.
pub struct Totals {
    running: Vec<(Slot, Running)>,
}

struct Running {
    total: Box<dyn Accumulator>,
    added: Vec<usize>,
}

impl Totals {
    pub fn new() -> Totals {
        Totals { running: Vec::new() }
    }

    /// The aggregate of a slot over the rows of a match.
    pub fn value(&mut self, spec: &Spec, rows: &Rows, slot: Slot, mapped: Mapped) -> Result<ScalarValue> {
        let Slot::Aggregate { call, of } = slot else { return Err(Error::internal("no aggregate")) };
        let place = match self.running.iter().position(|(other, _)| *other == slot) {
            Some(place) => place,
            None => {
                let total = spec.calls[call].function.create_accumulator()?;
                self.running.push((slot, Running { total, added: Vec::new() }));
                self.running.len() - 1
            }
        };
        let running = &mut self.running[place].1;
        let mut wanted = mapped.rows(of);
        let same = running.added.iter().all(|added| wanted.next() == Some(*added));
        let new: Vec<usize> = match same {
            true => wanted.collect(),
            false => {
                running.total = spec.calls[call].function.create_accumulator()?;
                running.added.clear();
                mapped.rows(of).collect()
            }
        };
        if !new.is_empty() {
            let indices = UInt32Array::from_iter_values(new.iter().map(|row| *row as u32));
            running.total.update_batch(&compute::take_arrays(&rows.arguments[call], &indices, None)?)?;
            running.added.extend(new);
        }
        Ok(running.total.evaluate()?)
    }
}

/// Whether the last of the rows fits, by a test that asks for the match so far. Rows behind those that are there are NULL.
pub fn fits_match(spec: &Spec, rows: &Rows, test: &Test, mapped: Mapped, totals: &mut Totals) -> Result<bool> {
    let mut values: Vec<ArrayRef> = Vec::with_capacity(test.slots.len());
    for slot in &test.slots {
        values.push(match *slot {
            Slot::Column { column, anchor, shift } => {
                let column = rows.batch.column(column);
                match mapped.navigate(anchor, shift).filter(|row| *row < rows.len()) {
                    Some(row) => column.slice(row, 1),
                    None => arrow::array::new_null_array(column.data_type(), 1),
                }
            }
            Slot::Aggregate { .. } => totals.value(spec, rows, *slot, mapped)?.to_array()?,
            Slot::Classifier => Arc::new(StringArray::from(vec![classifier(spec, mapped)])),
            Slot::Number => return Err(Error::internal("a condition asks for the number of its match")),
        });
    }
    let answer = answer(test, &batch_of(&test.schema, values, 1)?)?;
    Ok(answer.is_valid(0) && answer.value(0))
}

/// The name of the last row's variable.
pub fn classifier<'a>(spec: &'a Spec, mapped: Mapped) -> Option<&'a str> {
    mapped.variables.last().map(|variable| spec.names[usize::from(*variable)].as_str())
}
