//! Rows that a query itself holds: `VALUES`, `SELECT 42`.
//!
//! They are there from the query's first step on, before any row that it reads can need them, and never change.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Context, Operator};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::state::StateTable;

/// Gives its rows once.
pub struct Constants {
    rows: RecordBatch,
    given: Given,
}

impl Constants {
    pub fn new(rows: RecordBatch) -> Constants {
        Constants { rows, given: Given::default() }
    }
}

impl Operator for Constants {
    fn update(&mut self, _port: usize, _delta: Delta, _cx: &mut Context) -> Result<()> {
        Err(Error::internal("constants have no input"))
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        if !std::mem::replace(&mut self.given.now, true) {
            cx.emit(Delta::append(self.rows.clone()));
        }
        Ok(())
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.given]
    }
}

/// Whether the rows have been given, over restarts.
#[derive(Default)]
struct Given {
    now: bool,
    saved: bool,
}

impl StateTable for Given {
    fn name(&self) -> &'static str {
        "given"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("given", DataType::Boolean, false)]))
    }

    fn key_columns(&self) -> usize {
        0
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        if std::mem::replace(&mut self.saved, self.now) == self.now {
            return Ok(Vec::new());
        }
        let given: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        Ok(vec![Delta::append(RecordBatch::try_new(self.schema(), vec![given])?)])
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        if !delta.is_empty() {
            (self.now, self.saved) = (true, true);
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        usize::from(self.now)
    }

    fn bytes(&self) -> usize {
        size_of::<Given>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn rows_are_given_once_over_restarts() {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let given = |constants: &mut Constants| {
            let mut cx = Context::new(0);
            constants.finish(&mut cx).unwrap();
            cx.into_output().iter().map(|(_, delta)| delta.len()).sum::<usize>()
        };
        let mut constants = Constants::new(rows.clone());
        assert_eq!([given(&mut constants), given(&mut constants)], [2, 0]);
        let saved = constants.given.changes().unwrap();
        assert!(constants.given.changes().unwrap().is_empty());

        let mut again = Constants::new(rows.clone());
        saved.into_iter().for_each(|delta| again.given.load(delta).unwrap());
        assert_eq!(given(&mut again), 0);
        assert!(again.given.changes().unwrap().is_empty());

        let mut before = Constants::new(rows);
        assert!(before.given.changes().unwrap().is_empty());
        assert_eq!(given(&mut before), 2);
    }
}
