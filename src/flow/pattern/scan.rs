//! From one attempt to the next through the rows of a partition, and what is shown of the matches.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute;
use datafusion::common::ScalarValue;

use super::search::{Attempt, Match, Search};
use super::values::{Mapped, Rows, Totals, classifier};
use super::{Shown, Skip, Slot, Spec};
use crate::error::{Error, Result};
use crate::time::{Micros, NO_TIME};

/// A place among the rows of a partition, the way there, and the matches on it.
pub struct Scan {
    pub rows: Rows,
    search: Search,
    /// Where the next attempt starts.
    pub at: usize,
    /// Matches before it.
    pub number: i64,
    answers: Answers,
}

/// What a frontier says of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Final,
    /// It will be final when the frontier is past this.
    After(Micros),
    /// Rows decide that are not there yet.
    Open,
}

/// Output rows as they are found.
struct Answers {
    /// The row whose columns are passed on.
    rows: Vec<u32>,
    /// By measure.
    measures: Vec<Values>,
}

enum Values {
    Rows(Vec<Option<u32>>),
    Scalars(Vec<ScalarValue>),
    Names(Vec<Option<String>>),
    Numbers(Vec<i64>),
}

/// All rows of a partition, in order.
pub fn rows(spec: &Spec, batch: RecordBatch) -> Result<Rows> {
    Rows::new(spec, batch, true, true)
}

impl Scan {
    pub fn new(spec: &Spec, rows: Rows, at: usize, number: i64) -> Scan {
        Scan { rows, search: Search::new(spec), at, number, answers: Answers::new(spec) }
    }

    /// All rows have been looked at.
    pub fn is_done(&self) -> bool {
        self.at >= self.rows.len()
    }

    /// The same place among more rows: those that there were, and others behind them.
    pub fn extend(&mut self, rows: Rows) {
        self.rows = rows;
        self.search.forget();
    }

    /// The next attempt. `None`: more rows are needed for it.
    pub fn attempt(&mut self, spec: &Spec) -> Result<Option<Attempt>> {
        let mut attempt = self.search.attempt(spec, &self.rows, self.at)?;
        if let Some(found) = &attempt.found {
            // Measures may look at rows behind the match.
            let end = self.at + found.variables.len() + spec.ahead();
            attempt.examined = attempt.examined.max(end.min(self.rows.len()));
            attempt.at_end |= spec.ahead() > 0 && end > self.rows.len();
        }
        Ok(if attempt.at_end && !self.rows.to_end { None } else { Some(attempt) })
    }

    /// Whether rows at the frontier or after it can change the attempt. Rows before it do not come any more.
    pub fn verdict(&self, spec: &Spec, attempt: &Attempt, frontier: Micros) -> Verdict {
        if spec.time.is_none() || frontier == NO_TIME {
            return Verdict::Open;
        }
        let examined = (!attempt.at_end).then(|| self.rows.time(attempt.examined.max(self.at + 1) - 1));
        let bound = spec.within.filter(|_| !spec.looks_ahead() && !spec.is_anchored());
        let bound = bound.map(|within| self.rows.time(self.at).saturating_add(within));
        let Some(last) = examined.into_iter().chain(bound).min().filter(|last| *last < Micros::MAX) else { return Verdict::Open };
        if last < frontier { Verdict::Final } else { Verdict::After(last) }
    }

    /// Go on behind an attempt; `show` says whether its match is wanted.
    pub fn advance(&mut self, spec: &Spec, attempt: Attempt, show: bool) -> Result<()> {
        let Some(found) = attempt.found else {
            self.at += 1;
            return Ok(());
        };
        self.number += 1;
        if show {
            self.answers.add(spec, &self.rows, self.at, self.number, &found)?;
        }
        self.at = next(spec, self.at, &found)?;
        Ok(())
    }

    /// The output rows that were found, which are then forgotten.
    pub fn take(&mut self, spec: &Spec) -> Result<RecordBatch> {
        std::mem::replace(&mut self.answers, Answers::new(spec)).into_batch(spec, &self.rows)
    }
}

/// Where to go on after a match.
fn next(spec: &Spec, start: usize, found: &Match) -> Result<usize> {
    let mapped = Mapped { start, variables: &found.variables };
    let to = match spec.skip {
        _ if found.variables.is_empty() => return Ok(start + 1),
        Skip::PastLastRow => return Ok(start + found.variables.len()),
        Skip::ToNextRow => return Ok(start + 1),
        Skip::ToFirst(of) => mapped.rows(of).next(),
        Skip::ToLast(of) => mapped.rows(of).next_back(),
    };
    let hint = "write AFTER MATCH SKIP TO NEXT ROW or PAST LAST ROW";
    match to {
        Some(row) if row > start => Ok(row),
        Some(_) => {
            let error = Error::skip_to_first_row("AFTER MATCH SKIP TO a variable leads back to the first row of the match");
            Err(error.with_hint(hint))
        }
        None => Err(Error::skip_to_no_row("AFTER MATCH SKIP TO a variable that no row of the match has").with_hint(hint)),
    }
}

impl Answers {
    fn new(spec: &Spec) -> Answers {
        let of_measure = |slot: Slot| match slot {
            Slot::Column { .. } => Values::Rows(Vec::new()),
            Slot::Aggregate { .. } => Values::Scalars(Vec::new()),
            Slot::Classifier => Values::Names(Vec::new()),
            Slot::Number => Values::Numbers(Vec::new()),
        };
        Answers { rows: Vec::new(), measures: spec.measures.iter().map(|measure| of_measure(measure.slot)).collect() }
    }

    fn add(&mut self, spec: &Spec, rows: &Rows, start: usize, number: i64, found: &Match) -> Result<()> {
        let length = found.variables.len();
        let whole = Mapped { start, variables: &found.variables };
        let mut totals = (Totals::new(), Totals::new());
        match spec.shown {
            Shown::OneRow => self.add_row(spec, rows, start, number, [whole, whole], &mut totals),
            Shown::AllRows { empty_matches } if length == 0 => match empty_matches {
                true => self.add_row(spec, rows, start, number, [whole, whole], &mut totals),
                false => Ok(()),
            },
            Shown::AllRows { .. } => (0..length).filter(|n| found.shown[*n]).try_for_each(|n| {
                let so_far = Mapped { start, variables: &found.variables[..=n] };
                self.add_row(spec, rows, start + n, number, [so_far, whole], &mut totals)
            }),
        }
    }

    fn add_row(
        &mut self,
        spec: &Spec,
        rows: &Rows,
        row: usize,
        number: i64,
        [so_far, whole]: [Mapped; 2],
        totals: &mut (Totals, Totals),
    ) -> Result<()> {
        self.rows.push(row as u32);
        for (measure, values) in spec.measures.iter().zip(&mut self.measures) {
            let (mapped, totals) = if measure.whole { (whole, &mut totals.1) } else { (so_far, &mut totals.0) };
            match (values, measure.slot) {
                (Values::Rows(values), Slot::Column { anchor, shift, .. }) => {
                    let row = mapped.navigate(anchor, shift).filter(|row| *row < rows.len());
                    values.push(row.map(|row| row as u32));
                }
                (Values::Scalars(values), slot) => values.push(totals.value(spec, rows, slot, mapped)?),
                (Values::Names(values), _) => values.push(classifier(spec, mapped).map(str::to_string)),
                (Values::Numbers(values), _) => values.push(number),
                (Values::Rows(_), _) => return Err(Error::internal("a measure of another kind")),
            }
        }
        Ok(())
    }

    fn into_batch(self, spec: &Spec, rows: &Rows) -> Result<RecordBatch> {
        let count = self.rows.len();
        let passed = UInt32Array::from(self.rows);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(spec.output.fields().len());
        for column in &spec.passed {
            columns.push(compute::take(rows.batch.column(*column), &passed, None)?);
        }
        for (values, (measure, field)) in
            self.measures.into_iter().zip(spec.measures.iter().zip(&spec.output.fields()[spec.passed.len()..]))
        {
            columns.push(match (values, measure.slot) {
                (Values::Rows(at), Slot::Column { column, .. }) => {
                    compute::take(rows.batch.column(column), &UInt32Array::from(at), None)?
                }
                (Values::Scalars(values), _) if values.is_empty() => new_null_array(field.data_type(), 0),
                (Values::Scalars(values), _) => ScalarValue::iter_to_array(values)?,
                (Values::Names(names), _) => Arc::new(StringArray::from(names)),
                (Values::Numbers(numbers), _) => Arc::new(Int64Array::from(numbers)),
                (Values::Rows(_), _) => return Err(Error::internal("a measure of another kind")),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&spec.output), columns, &options)?)
    }
}
