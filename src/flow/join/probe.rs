//! Probing: which rows of one side do the rows of a batch meet?
//!
//! Keys are looked up for the whole batch at once. Candidates are gathered, each stored row decoded once however many rows of
//! the batch ask for it, put side by side with the rows that ask, and the residual condition is evaluated over all of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::row::Rows;

use super::{LEFT, Spec};
use crate::error::{Error, Result};
use crate::flow::arrangement::Arrangement;
use crate::time::Micros;

/// Candidates that are put side by side at once.
pub(super) const CANDIDATES: usize = 1 << 14;

/// A stored row: its bytes and its weight.
type Stored<'a> = (&'a [u8], i64);

/// Rows of one side that ask, and the other side's rows that answer.
pub(super) struct Probe<'a> {
    spec: &'a Spec,
    /// Whose rows ask.
    side: usize,
    asking: &'a RecordBatch,
    other: &'a Arrangement,
    /// By asking row: the number of its key on the other side.
    numbers: Vec<Option<u32>>,
    times: Option<Times>,
}

/// The range of times in which each asking row may find rows.
struct Times {
    from: Rows,
    to: Rows,
}

/// Pairs that meet the condition.
pub(super) struct Found<'a> {
    /// Left columns, then right.
    pub pairs: RecordBatch,
    /// Of each pair: the asking row and the stored one.
    pub probing: Vec<u32>,
    pub met: Vec<Stored<'a>>,
}

impl<'a> Probe<'a> {
    pub fn new(spec: &'a Spec, side: usize, asking: &'a RecordBatch, other: &'a Arrangement) -> Result<Probe<'a>> {
        let keys: Vec<ArrayRef> = spec.sides[side].key.iter().map(|column| Arc::clone(asking.column(*column))).collect();
        let mut numbers = other.find(&keys, asking.num_rows())?;
        let times = times(spec, side, asking, other, &mut numbers)?;
        Ok(Probe { spec, side, asking, other, numbers, times })
    }

    /// Rows that may answer to one that asks.
    fn candidates(&self, row: usize) -> Box<dyn Iterator<Item = Stored<'a>> + '_> {
        match (self.numbers[row], &self.times) {
            (None, _) => Box::new(std::iter::empty()),
            (Some(number), None) => Box::new(self.other.rows(number)),
            (Some(number), Some(Times { from, to })) => {
                Box::new(self.other.rows_between(number, from.row(row).data(), to.row(row).data()))
            }
        }
    }

    /// All candidates.
    pub fn all(&self, found: &mut Vec<Stored<'a>>) {
        (0..self.asking.num_rows()).for_each(|row| found.extend(self.candidates(row)));
    }

    /// Visit all pairs that meet the condition, some at a time.
    pub fn each(&self, mut visit: impl FnMut(Found<'a>) -> Result<()>) -> Result<()> {
        let mut gathered = Gathered::default();
        for row in 0..self.asking.num_rows() {
            let Some(number) = self.numbers[row] else { continue };
            // Rows with the same key find the same, unless their times differ.
            let known = gathered.of_key.get(&number).filter(|_| self.times.is_none()).cloned();
            if let Some(known) = known {
                known.for_each(|place| gathered.push(row, place));
            } else {
                let mut first = Some(gathered.stored.len());
                for stored in self.candidates(row) {
                    gathered.stored.push(stored);
                    gathered.push(row, gathered.stored.len() - 1);
                    if gathered.is_full() {
                        self.meet(std::mem::take(&mut gathered), &mut visit)?;
                        first = None;
                    }
                }
                if let Some(first) = first {
                    gathered.of_key.insert(number, first..gathered.stored.len());
                }
            }
            if gathered.is_full() {
                self.meet(std::mem::take(&mut gathered), &mut visit)?;
            }
        }
        self.meet(gathered, &mut visit)
    }

    fn meet(&self, gathered: Gathered<'a>, visit: &mut impl FnMut(Found<'a>) -> Result<()>) -> Result<()> {
        if gathered.probing.is_empty() {
            return Ok(());
        }
        let (pairs, holds) = self.evaluate(&gathered)?;
        let Gathered { probing, places, stored, .. } = gathered;
        let met = |place: &u32| stored[*place as usize];
        match holds {
            None => visit(Found { pairs, met: places.iter().map(met).collect(), probing }),
            Some(holds) if holds.true_count() == 0 => Ok(()),
            Some(holds) => {
                let kept = || holds.values().set_indices();
                visit(Found {
                    pairs: compute::filter_record_batch(&pairs, &holds)?,
                    probing: kept().map(|i| probing[i]).collect(),
                    met: kept().map(|i| met(&places[i])).collect(),
                })
            }
        }
    }

    /// The candidates side by side, and for which of them the residual holds.
    fn evaluate(&self, gathered: &Gathered) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let found = self.other.decode(gathered.stored.iter().map(|(row, _)| *row))?;
        let found = &found.columns()[..self.spec.sides[1 - self.side].width];
        let found = match gathered.once {
            true => found.to_vec(),
            false => compute::take_arrays(found, &UInt32Array::from(gathered.places.clone()), None)?,
        };
        self.spec.side_by_side(self.side, self.asking, &gathered.probing, found)
    }

    /// Which of the asking rows have a match. Looks at few candidates first: most rows that have a match have it there.
    pub fn any(&self) -> Result<Vec<bool>> {
        let count = self.asking.num_rows();
        let mut found = vec![false; count];
        if self.spec.residual.is_none() {
            for (row, found) in found.iter_mut().enumerate() {
                *found = self.candidates(row).any(|(_, weight)| weight > 0);
            }
            return Ok(found);
        }
        let mut open: Vec<_> = (0..count).map(|row| (row, self.candidates(row))).collect();
        let mut each = 1;
        while !open.is_empty() {
            each = (each * 8).min(CANDIDATES / open.len().min(CANDIDATES)).max(1);
            let mut rest = Vec::new();
            for part in chunks(open, CANDIDATES) {
                rest.extend(self.look(part, each, &mut found)?);
            }
            open = rest;
        }
        Ok(found)
    }

    /// Look at the next candidates of some rows; returns the rows that have found nothing and have more to look at.
    fn look<I: Iterator<Item = Stored<'a>>>(
        &self,
        mut open: Vec<(usize, I)>,
        each: usize,
        found: &mut [bool],
    ) -> Result<Vec<(usize, I)>> {
        let mut gathered = Gathered::default();
        open.retain_mut(|(row, candidates)| {
            let before = gathered.stored.len();
            gathered.stored.extend(candidates.by_ref().filter(|(_, weight)| *weight > 0).take(each));
            (before..gathered.stored.len()).for_each(|place| gathered.push(*row, place));
            gathered.stored.len() - before == each
        });
        self.meet(gathered, &mut |met: Found| {
            met.probing.iter().for_each(|row| found[*row as usize] = true);
            Ok(())
        })?;
        open.retain(|(row, _)| !found[*row]);
        Ok(open)
    }
}

impl Spec {
    /// Rows of a side that ask beside what they found, and for which of them the residual holds.
    pub(super) fn side_by_side(
        &self,
        side: usize,
        asking: &RecordBatch,
        probing: &[u32],
        found: Vec<ArrayRef>,
    ) -> Result<(RecordBatch, Option<BooleanArray>)> {
        let rows = UInt32Array::from_iter_values(probing.iter().copied());
        let asking = compute::take_arrays(&asking.columns()[..self.sides[side].width], &rows, None)?;
        let columns = if side == LEFT { [asking, found].concat() } else { [found, asking].concat() };
        let options = RecordBatchOptions::new().with_row_count(Some(probing.len()));
        let pairs = RecordBatch::try_new_with_options(Arc::clone(&self.pairs), columns, &options)?;
        let Some(residual) = &self.residual else { return Ok((pairs, None)) };
        let holds = residual.evaluate(&pairs)?.into_array(pairs.num_rows())?;
        let holds =
            holds.as_boolean_opt().ok_or_else(|| Error::datatype_mismatch("a join's condition must be of type boolean"))?;
        let holds = if holds.null_count() > 0 { compute::prep_null_mask_filter(holds) } else { holds.clone() };
        Ok((pairs, Some(holds)))
    }
}

/// Candidates that wait to be evaluated.
struct Gathered<'a> {
    probing: Vec<u32>,
    /// Of each pair: where in `stored` its stored row is.
    places: Vec<u32>,
    stored: Vec<Stored<'a>>,
    /// Every stored row is in one pair, in order.
    once: bool,
    of_key: HashMap<u32, std::ops::Range<usize>, ahash::RandomState>,
}

impl Default for Gathered<'_> {
    fn default() -> Self {
        Gathered { probing: Vec::new(), places: Vec::new(), stored: Vec::new(), once: true, of_key: HashMap::default() }
    }
}

impl Gathered<'_> {
    fn push(&mut self, row: usize, place: usize) {
        self.once &= place == self.places.len();
        self.probing.push(row as u32);
        self.places.push(place as u32);
    }

    fn is_full(&self) -> bool {
        self.probing.len() >= CANDIDATES
    }
}

/// The range of the other side's times that the bound leaves each asking row; rows without a time find nothing.
fn times(
    spec: &Spec,
    side: usize,
    asking: &RecordBatch,
    other: &Arrangement,
    numbers: &mut [Option<u32>],
) -> Result<Option<Times>> {
    let (Some(bound), Some(own), Some(others)) = (spec.bound, spec.sides[side].time, spec.sides[1 - side].time) else {
        return Ok(None);
    };
    let column = asking.column(own);
    let instants = column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("a join's time has type {}", column.data_type())))?;
    for (row, number) in numbers.iter_mut().enumerate() {
        if instants.is_null(row) {
            *number = None;
        }
    }
    let (before, after) = match side {
        LEFT => (bound.least, bound.greatest),
        _ => (bound.greatest.map(|by| -by), bound.least.map(|by| -by)),
    };
    let data_type = other.layout().schema.field(others).data_type().clone();
    let codes = |by: Option<Micros>, open: Micros| -> Result<Rows> {
        let shifted: PrimitiveArray<TimestampMicrosecondType> =
            PrimitiveArray::from_iter_values(instants.values().iter().map(|at| by.map_or(open, |by| at.saturating_add(by))));
        other.time_codes(&(Arc::new(shifted.with_data_type(data_type.clone())) as ArrayRef))
    };
    Ok(Some(Times { from: codes(before, Micros::MIN)?, to: codes(after, Micros::MAX)? }))
}

fn chunks<T>(mut all: Vec<T>, length: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    while all.len() > length {
        let rest = all.split_off(length);
        parts.push(std::mem::replace(&mut all, rest));
    }
    parts.push(all);
    parts
}
