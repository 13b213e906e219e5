//! Rows that do not fit: what becomes of them where nobody is there to be told.
//!
//! An INSERT fails as a whole, and its client hears of it. A running query or a source would have to stop; instead such rows go
//! to the dead letters ([`super::dead`]) in the transaction of those that do fit, and it goes on.
//!
//! Nearly always all rows fit, and are written at once. Where that fails the halves are tried, down to the rows that fail alone:
//! whatever it is that a row fails at (a cast, a length, NOT NULL, an expression of the relation, its size), it is found without
//! a second set of checks.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::dead::bury;
use super::writer::RelationWriter;
use crate::catalog::Column;
use crate::copy::value::Formats;
use crate::error::{Error, Result, SqlState};
use crate::log::{Kind, Write};
use crate::time::Micros;

/// Rows that stood beside each other, and what became of them.
pub(super) struct Part<T> {
    pub rows: RecordBatch,
    /// An error is of one row.
    pub outcome: Result<T>,
}

/// Do something with rows, or with as many of them at once as it can be done with.
pub(super) fn in_parts<T>(rows: &RecordBatch, work: &impl Fn(&RecordBatch) -> Result<T>) -> Result<Vec<Part<T>>> {
    let mut parts = Vec::new();
    split(rows.clone(), work, &mut parts)?;
    Ok(parts)
}

fn split<T>(rows: RecordBatch, work: &impl Fn(&RecordBatch) -> Result<T>, parts: &mut Vec<Part<T>>) -> Result<()> {
    let outcome = work(&rows);
    match &outcome {
        Err(error) if !is_of_rows(error) => outcome.map(drop),
        Err(_) if rows.num_rows() > 1 => {
            let half = rows.num_rows() / 2;
            split(rows.slice(0, half), work, parts)?;
            split(rows.slice(half, rows.num_rows() - half), work, parts)
        }
        _ => {
            parts.push(Part { rows, outcome });
            Ok(())
        }
    }
}

/// Whether other rows would do: not a full disk, or a relation that is gone.
fn is_of_rows(error: &Error) -> bool {
    // What fails in an expression without saying how is a fault of ours to its words alone.
    matches!(error.state(), SqlState::LimitExceeded | SqlState::InternalError)
        || ["21", "22", "23"].iter().any(|class| error.state().code().starts_with(class))
}

impl RelationWriter {
    /// Writes for rows whose columns are for `targets`; those that do not fit are written to the dead letters, if there are any.
    /// Also returns the rows that were taken, in their order.
    pub fn write_fitting(
        &self,
        targets: &[usize],
        rows: &RecordBatch,
        kind: Kind,
        now: Micros,
    ) -> Result<(Vec<Write>, RecordBatch)> {
        let write = |rows: &RecordBatch| self.write(self.compiled().assign(targets, rows, now, Formats::default())?, kind, now);
        let Some(dead) = &self.dead else { return Ok((write(rows)?, rows.clone())) };
        let (mut writes, mut taken, mut refused, mut reasons) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Part { rows, outcome } in in_parts(rows, &write)? {
            match outcome {
                Ok(of_part) => {
                    writes.extend(of_part);
                    taken.push(rows);
                }
                Err(error) => {
                    reasons.push(reason(&error));
                    refused.push(rows);
                }
            }
        }
        if !refused.is_empty() {
            let refused = concat_batches(&rows.schema(), &refused)?;
            writes.extend(bury(dead, &self.columns_given(targets, &refused), &refused, reasons, now)?);
        }
        Ok((writes, concat_batches(&rows.schema(), &taken)?))
    }

    /// The columns of a row that was refused, as they came: a text that was to become a document is none yet.
    fn columns_given(&self, targets: &[usize], rows: &RecordBatch) -> Vec<Column> {
        let relation = self.relation();
        let column = |(target, array): (&usize, &arrow::array::ArrayRef)| {
            let column = relation.columns[*target].clone();
            match relation.is_derived() {
                true => column,
                false => Column { data_type: array.data_type().clone(), sql_type: String::new(), ..column },
            }
        };
        targets.iter().zip(rows.columns()).map(column).collect()
    }
}

/// Without the detail, which is the row.
fn reason(error: &Error) -> String {
    match error.context() {
        Some(context) => format!("{}; {context}", error.message()),
        None => error.message().to_string(),
    }
}
