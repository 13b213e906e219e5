//! The groups of one window (or of all time): keys as numbers, accumulators as columns.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};

use super::accumulate::{Accumulator, Call, make};
use crate::delta::keys::Keys;
use crate::error::{Error, Result};

/// What the operator does to every group of a table, worked out once.
pub struct Plan {
    pub key_types: Vec<arrow::datatypes::DataType>,
    pub calls: Vec<Call>,
    pub append_only: bool,
}

pub struct Groups {
    pub keys: Keys,
    /// Rows in each group; a group exists while it has rows.
    weights: Vec<i64>,
    pub accumulators: Vec<Box<dyn Accumulator>>,
    /// Touched since the step began, in order of the first touch.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
    /// Changed since the last checkpoint.
    unsaved: Vec<u32>,
    is_unsaved: Vec<bool>,
    /// Some of it has been saved.
    pub saved: bool,
    numbers: Vec<u32>,
}

/// What some groups hold, to be added to others.
pub struct Part {
    pub keys: Vec<ArrayRef>,
    pub weights: Vec<i64>,
    /// Per call: the state of its accumulator.
    states: Vec<Vec<ArrayRef>>,
}

impl Groups {
    pub fn new(plan: &Plan) -> Result<Groups> {
        let accumulators = plan.calls.iter().map(|call| make(call, plan.append_only)).collect::<Result<_>>()?;
        Ok(Groups {
            keys: Keys::new(&plan.key_types.iter().collect::<Vec<_>>())?,
            weights: Vec::new(),
            accumulators,
            touched: Vec::new(),
            is_touched: Vec::new(),
            unsaved: Vec::new(),
            is_unsaved: Vec::new(),
            saved: false,
            numbers: Vec::new(),
        })
    }

    /// Intern the keys of a batch. Returns those groups that this step touches for the first time and that had rows before:
    /// their former values are about to be lost.
    pub fn enter(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        self.numbers = self.keys.intern(keys, rows)?;
        let count = self.keys.end();
        if count > self.weights.len() {
            self.weights.resize(count, 0);
            self.is_touched.resize(count, false);
            self.is_unsaved.resize(count, false);
            self.accumulators.iter_mut().for_each(|a| a.resize(count));
        }
        let mut before = Vec::new();
        for number in &self.numbers {
            let n = *number as usize;
            if !self.is_touched[n] {
                self.is_touched[n] = true;
                self.touched.push(*number);
                if self.weights[n] != 0 {
                    before.push(*number);
                }
                if !self.is_unsaved[n] {
                    self.is_unsaved[n] = true;
                    self.unsaved.push(*number);
                }
            }
        }
        Ok(before)
    }

    /// Groups that this step changes otherwise than by rows of theirs. Returns as [`Groups::enter`] does.
    pub fn touch(&mut self, numbers: &[u32]) -> Vec<u32> {
        let mut before = Vec::new();
        for number in numbers {
            let n = *number as usize;
            if !std::mem::replace(&mut self.is_touched[n], true) {
                self.touched.push(*number);
                if self.weights[n] != 0 {
                    before.push(*number);
                }
            }
            if !std::mem::replace(&mut self.is_unsaved[n], true) {
                self.unsaved.push(*number);
            }
        }
        before
    }

    /// Groups, which have been touched, lose all their rows.
    pub fn empty(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.weights[*number as usize] = 0;
            self.forget(*number);
        }
    }

    /// Forget groups that nobody may ask for any more, between two steps.
    pub fn discard(&mut self, numbers: &[u32]) {
        self.empty(numbers);
        self.release(numbers);
    }

    /// Numbers of the batch last entered, one per row.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Count the rows of the batch last entered.
    pub fn weigh(&mut self, diff: Option<&Int64Array>) {
        match diff {
            None => self.numbers.iter().for_each(|n| self.weights[*n as usize] += 1),
            Some(diff) => self.numbers.iter().zip(diff.values()).for_each(|(n, w)| self.weights[*n as usize] += w),
        }
    }

    /// Feed one accumulator with the batch last entered, or with those of its rows that `rows` picks.
    pub fn accumulate(
        &mut self,
        call: usize,
        numbers: Option<&[u32]>,
        arguments: &[ArrayRef],
        diff: Option<&Int64Array>,
    ) -> Result<()> {
        let numbers = numbers.unwrap_or(&self.numbers);
        self.accumulators[call].update(numbers, arguments, diff)
    }

    /// What these groups hold.
    pub fn part(&self, numbers: &[u32]) -> Result<Part> {
        let states = self.accumulators.iter().map(|a| a.state(numbers)).collect::<Result<_>>()?;
        Ok(Part { keys: self.keys.columns(numbers)?, weights: self.weights(numbers), states })
    }

    /// Add what others hold to the groups of their keys, which were last entered; or, with a sign of -1, take it away.
    pub fn merge(&mut self, part: &Part, sign: i64) -> Result<()> {
        for (number, weight) in self.numbers.iter().zip(&part.weights) {
            self.weights[*number as usize] += weight * sign;
        }
        for (accumulator, state) in self.accumulators.iter_mut().zip(&part.states) {
            accumulator.merge(&self.numbers, state, sign)?;
        }
        Ok(())
    }

    /// Groups that were entered since the step began, with rows or without.
    pub fn entered(&self) -> Vec<u32> {
        self.touched.clone()
    }

    /// End the step: the touched groups that have rows now. Those that have none are forgotten.
    pub fn settle(&mut self) -> Result<Vec<u32>> {
        let touched = std::mem::take(&mut self.touched);
        let mut live = Vec::with_capacity(touched.len());
        for number in touched {
            let n = number as usize;
            self.is_touched[n] = false;
            match self.weights[n] {
                0 => self.forget(number),
                weight if weight > 0 => live.push(number),
                _ => return Err(Error::internal("rows of a group were taken away that were not there")),
            }
        }
        Ok(live)
    }

    /// A group without rows keeps its number until its end is saved.
    fn forget(&mut self, number: u32) {
        self.accumulators.iter_mut().for_each(|a| a.clear(number));
    }

    /// All groups that have rows.
    pub fn live(&self) -> Vec<u32> {
        (0..self.weights.len() as u32).filter(|n| self.weights[*n as usize] > 0).collect()
    }

    pub fn len(&self) -> usize {
        self.weights.iter().filter(|w| **w > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.iter().all(|w| *w == 0)
    }

    pub fn weights(&self, numbers: &[u32]) -> Vec<i64> {
        numbers.iter().map(|n| self.weights[*n as usize]).collect()
    }

    /// The aggregates of these groups.
    pub fn values(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        self.accumulators.iter().map(|a| a.evaluate(numbers)).collect()
    }

    /// Groups that changed since the last call: those with rows, and those that are gone. The latter's numbers are free now.
    pub fn take_unsaved(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        for number in std::mem::take(&mut self.unsaved) {
            let n = number as usize;
            self.is_unsaved[n] = false;
            if self.weights[n] > 0 { live.push(number) } else { gone.push(number) }
        }
        (live, gone)
    }

    /// Give back the numbers of groups that are gone, after their keys were read for the last time.
    pub fn release(&mut self, gone: &[u32]) {
        gone.iter().for_each(|number| self.keys.release(*number));
    }

    /// Take in groups from a checkpoint.
    pub fn restore(&mut self, keys: &[ArrayRef], weights: &Int64Array, state: &[Vec<ArrayRef>]) -> Result<()> {
        self.enter(keys, weights.len())?;
        self.discard_marks();
        for (number, weight) in self.numbers.iter().zip(weights.values()) {
            self.weights[*number as usize] = *weight;
        }
        // The one group of a query without GROUP BY has no key by which checkpoints would know that it is the same.
        let last: BTreeMap<u32, u32> = self.numbers.iter().copied().zip(0..).collect();
        let (numbers, rows): (Vec<u32>, Vec<u32>) = last.into_iter().unzip();
        let rows = UInt32Array::from(rows);
        for (accumulator, state) in self.accumulators.iter_mut().zip(state) {
            numbers.iter().for_each(|n| accumulator.clear(*n));
            accumulator.restore(&numbers, &arrow::compute::take_arrays(state, &rows, None)?)?;
        }
        self.saved = true;
        Ok(())
    }

    /// Feed one accumulator with values of a checkpoint, whose groups have been restored.
    pub fn accumulate_keys(
        &mut self,
        call: usize,
        keys: &[ArrayRef],
        values: &[ArrayRef],
        diff: Option<&Int64Array>,
        rows: usize,
    ) -> Result<()> {
        self.enter(keys, rows)?;
        self.discard_marks();
        self.accumulators[call].update(&self.numbers, values, diff)
    }

    /// A checkpoint says that these groups are gone.
    pub fn restore_gone(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
        self.enter(keys, rows)?;
        self.discard_marks();
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            self.weights[number as usize] = 0;
            self.accumulators.iter_mut().for_each(|a| a.clear(number));
            self.keys.release(number);
        }
        Ok(())
    }

    fn discard_marks(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            self.is_touched[number as usize] = false;
        }
        for number in std::mem::take(&mut self.unsaved) {
            self.is_unsaved[number as usize] = false;
        }
    }

    pub fn bytes(&self) -> usize {
        let columns = self.weights.capacity() * 11 + (self.touched.capacity() + self.unsaved.capacity()) * 4;
        self.keys.bytes() + columns + self.accumulators.iter().map(|a| a.bytes()).sum::<usize>()
    }
}
