//! A view that is refreshed at most so often: EMIT CHANGES WITH DELAY.
//!
//! ```text
//!   commit time   ──┬── a ──── b ───────┬──── c ─────────┬─►      every 10 s
//!                 :00                 :10              :20
//!   shown                               a, b together    c
//! ```
//!
//! Changes wait until a commit says that the period in which they came is over, and come together then: what came and went again
//! within it is never seen. Periods begin at whole multiples of their length, so when a change is shown does not depend on when its view
//! was made. It is what Materialize's REFRESH EVERY does by rounding up times.
//!
//! Invariants. A step ends where a period does ([`Operator::period`]): what operators before this one give is of one period. A row
//! of one period waits to be given or to be taken back, never both.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::arrangement::{Arrangement, Layout};
use super::{Context, Operator, Shard};
use crate::delta::{Delta, consolidate};
use crate::error::Result;
use crate::state::StateTable;
use crate::time::{Micros, TIMESTAMP, period_start};

pub struct Refresh {
    every: Micros,
    schema: SchemaRef,
    /// Rows that wait to be given, and those that wait to be taken back, by the beginning of their period, which is the column
    /// behind the others.
    given: Arrangement,
    taken: Arrangement,
    /// What came in this step.
    incoming: Vec<Delta>,
}

impl Refresh {
    pub fn new(schema: SchemaRef, every: Micros, shard: Shard) -> Result<Refresh> {
        let since = Arc::new(Field::new("since", TIMESTAMP, false));
        let with_since = Arc::new(Schema::new(schema.fields().iter().cloned().chain([since]).collect::<Vec<_>>()));
        let layout = Layout { schema: with_since, key: Vec::new(), time: Some(schema.fields().len()), order: Vec::new() };
        let given = Arrangement::new("given", layout.clone(), shard)?;
        Ok(Refresh { every, schema, given, taken: Arrangement::new("taken", layout, shard)?, incoming: Vec::new() })
    }

    /// Show what came before this period.
    fn show(&mut self, since: Micros, cx: &mut Context) -> Result<()> {
        let edge: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(since, 1));
        for (waiting, sign) in [(&mut self.taken, -1), (&mut self.given, 1)] {
            let codes = waiting.time_codes(&edge)?;
            let code = codes.row(0).data();
            for number in waiting.numbers().collect::<Vec<_>>() {
                let passed = waiting.range(number, Bound::Unbounded, Bound::Excluded(code));
                let (rows, weights): (Vec<&[u8]>, Vec<i64>) = passed.map(|(row, weight)| (row, sign * weight)).unzip();
                let rows = bare(&self.schema, &waiting.decode(rows.into_iter())?)?;
                cx.emit(Delta::new(rows, Int64Array::from(weights)));
                waiting.drop_before(number, code);
            }
            waiting.evict(since)?;
        }
        Ok(())
    }

    /// Keep what the step's changes come to, on top of what waits.
    fn keep(&mut self, since: Micros) -> Result<()> {
        let weighted = |delta: Delta| {
            let weights = (0..delta.len()).map(|row| delta.weight(row));
            Delta::new(delta.rows.clone(), Int64Array::from_iter_values(weights))
        };
        let changes: Vec<Delta> = std::mem::take(&mut self.incoming).into_iter().map(weighted).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let changes = consolidate(&self.schema, &changes)?;
        let rows = self.with_since(&changes.rows, since)?;
        let codes = self.given.codes(&rows)?;
        let (mut given, mut taken) = (Vec::with_capacity(rows.num_rows()), Vec::with_capacity(rows.num_rows()));
        for row in 0..rows.num_rows() {
            let [to_give, to_take] = [&self.given, &self.taken].map(|waiting| waiting.weight(codes.get(row)));
            let net = to_give - to_take + changes.weight(row);
            given.push(net.max(0) - to_give);
            taken.push((-net).max(0) - to_take);
        }
        for (waiting, weights) in [(&mut self.given, given), (&mut self.taken, taken)] {
            let change = Delta::new(rows.clone(), Int64Array::from(weights));
            let some = change.diff.iter().flatten().map(|weight| weight != Some(0)).map(Some).collect();
            waiting.update(&change.filter(&some)?)?;
        }
        Ok(())
    }

    fn with_since(&self, rows: &RecordBatch, since: Micros) -> Result<RecordBatch> {
        let since: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(since, rows.num_rows()));
        let columns = rows.columns().iter().cloned().chain([since]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.given.layout().schema), columns)?)
    }
}

/// Rows without their period.
fn bare(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns()[..schema.fields().len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Operator for Refresh {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.incoming.push(delta);
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        let since = period_start(self.every, cx.now);
        self.show(since, cx)?;
        self.keep(since)?;
        self.given.tidy()?;
        self.taken.tidy()
    }

    fn follows_time(&self) -> bool {
        true
    }

    fn period(&self) -> Option<Micros> {
        Some(self.every)
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.given, &mut self.taken]
    }
}
