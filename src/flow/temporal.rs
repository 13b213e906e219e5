//! Conditions on `now()`: rows come into a view, and leave it, as commit time passes.
//!
//! ```text
//!   ts > now() - INTERVAL '1 hour'    a row is seen while now() < ts + 1 hour
//!
//!   row comes ──► enters > now: waiting ──► seen ──► leaves <= now: gone, and forgotten
//! ```
//!
//! `now()` is the time of the step's last commit: what is between two commits of a step is seen by nobody. Time that passes
//! without a commit changes nothing until the next one.
//!
//! Invariant. When a row is seen is a function of the row alone. So what takes a row away finds it where it must be by now, and a
//! row that has left need not be remembered.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_expr::PhysicalExpr;

use super::arrangement::{Arrangement, Layout};
use super::{Context, Operator, Shard};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::{Micros, TIMESTAMP};

type Instants = PrimitiveArray<TimestampMicrosecondType>;

/// An instant of a row: that of an expression, and so many microseconds later.
#[derive(Clone)]
pub struct Instant {
    pub of: Arc<dyn PhysicalExpr>,
    pub later: Micros,
}

/// A row is seen from the greatest of `enters` on, before the least of `leaves`; never, if one of them is NULL.
#[derive(Clone)]
pub struct Spec {
    pub enters: Vec<Instant>,
    pub leaves: Vec<Instant>,
    /// Of input and output.
    pub schema: SchemaRef,
}

pub struct Temporal {
    spec: Spec,
    /// Rows that are not seen yet, by when they enter.
    waiting: Arrangement,
    /// Rows that are seen, by when they leave. Those that stay are not kept.
    seen: Arrangement,
    pending: Vec<Delta>,
}

impl Temporal {
    pub fn new(spec: Spec, shard: Shard) -> Result<Temporal> {
        let width = spec.schema.fields().len();
        let instant = |name| Arc::new(Field::new(name, TIMESTAMP, false));
        let fields: Vec<_> = spec.schema.fields().iter().cloned().chain([instant("enters"), instant("leaves")]).collect();
        let schema = Arc::new(Schema::new(fields));
        let by = |column| Layout { schema: Arc::clone(&schema), key: Vec::new(), time: Some(column), order: Vec::new() };
        let waiting = Arrangement::new("waiting", by(width), shard)?;
        let seen = Arrangement::new("seen", by(width + 1), shard)?;
        Ok(Temporal { spec, waiting, seen, pending: Vec::new() })
    }

    /// What has left by now is taken back, and what has entered is given.
    fn advance(&mut self, cx: &mut Context) -> Result<()> {
        if let Some(left) = take_until(&mut self.seen, cx.now)? {
            cx.emit(self.bare(&negated(&left)?)?);
        }
        if let Some(entered) = take_until(&mut self.waiting, cx.now)? {
            self.show(&entered, cx)?;
        }
        // All rows before have been taken; this only forgets where they were.
        self.seen.evict(cx.now)?;
        self.waiting.evict(cx.now)
    }

    /// Rows that have entered, but for those that have left already.
    fn show(&mut self, entered: &Delta, cx: &mut Context) -> Result<()> {
        let stays = self.after(entered, 1, cx.now)?;
        let seen = entered.filter(&stays)?;
        if !self.spec.leaves.is_empty() {
            self.seen.update(&seen)?;
        }
        cx.emit(self.bare(&seen)?);
        Ok(())
    }

    fn take_in(&mut self, delta: &Delta, cx: &mut Context) -> Result<()> {
        let timed = self.with_times(delta)?;
        let waits = self.after(&timed, 0, cx.now)?;
        self.waiting.update(&timed.filter(&waits)?)?;
        self.show(&timed.filter(&arrow::compute::not(&waits)?)?, cx)
    }

    /// Which rows enter (0) or leave (1) after an instant.
    fn after(&self, timed: &Delta, which: usize, now: Micros) -> Result<BooleanArray> {
        let column = timed.rows.column(self.spec.schema.fields().len() + which);
        Ok(instants(column)?.values().iter().map(|at| Some(*at > now)).collect())
    }

    fn with_times(&self, delta: &Delta) -> Result<Delta> {
        let enters = fold(&self.spec.enters, &delta.rows, Micros::MIN, Micros::max)?;
        let mut leaves = fold(&self.spec.leaves, &delta.rows, Micros::MAX, Micros::min)?;
        // A row that is never seen has left before time began.
        for (leaves, enters) in leaves.iter_mut().zip(&enters) {
            *leaves = enters.and(*leaves).or(Some(Micros::MIN));
        }
        let times = |values: Vec<Option<Micros>>| -> ArrayRef {
            Arc::new(Instants::from_iter_values(values.into_iter().map(|at| at.unwrap_or(Micros::MIN))))
        };
        let columns = delta.rows.columns().iter().cloned().chain([times(enters), times(leaves)]).collect();
        Ok(delta.with_rows(RecordBatch::try_new(Arc::clone(&self.waiting.layout().schema), columns)?))
    }

    /// Rows without the times beside them.
    fn bare(&self, timed: &Delta) -> Result<Delta> {
        let columns = timed.rows.columns()[..self.spec.schema.fields().len()].to_vec();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(timed.len()));
        Ok(timed.with_rows(RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?))
    }
}

/// Per row, the greatest or least of some instants; NULL if one of them is.
fn fold(
    instants_of: &[Instant],
    rows: &RecordBatch,
    start: Micros,
    pick: fn(Micros, Micros) -> Micros,
) -> Result<Vec<Option<Micros>>> {
    let mut picked = vec![Some(start); rows.num_rows()];
    for Instant { of, later } in instants_of {
        let array = of.evaluate(rows)?.into_array(rows.num_rows())?;
        for (picked, at) in picked.iter_mut().zip(instants(&array)?) {
            *picked = picked.zip(at).map(|(picked, at)| pick(picked, at.saturating_add(*later)));
        }
    }
    Ok(picked)
}

/// Take away the rows whose time has come.
fn take_until(rows: &mut Arrangement, now: Micros) -> Result<Option<Delta>> {
    let Some(key) = rows.find(&[], 1)?.into_iter().flatten().next() else { return Ok(None) };
    let after: ArrayRef = Arc::new(Instants::from_value(now.saturating_add(1), 1));
    let codes = rows.time_codes(&after)?;
    let due = rows.range(key, Bound::Unbounded, Bound::Excluded(codes.row(0).data()));
    let (codes, weights): (Vec<&[u8]>, Vec<i64>) = due.unzip();
    if codes.is_empty() {
        return Ok(None);
    }
    let due = Delta::new(rows.decode(codes.into_iter())?, Int64Array::from(weights));
    rows.update(&negated(&due)?)?;
    Ok(Some(due))
}

fn negated(delta: &Delta) -> Result<Delta> {
    let weights = Int64Array::from_iter_values((0..delta.len()).map(|row| -delta.weight(row)));
    Ok(Delta::new(delta.rows.clone(), weights))
}

fn instants(array: &ArrayRef) -> Result<&Instants> {
    array
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("now() is compared with a value of type {}", array.data_type())))
}

impl Operator for Temporal {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.pending.push(delta);
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        self.advance(cx)?;
        for delta in std::mem::take(&mut self.pending) {
            self.take_in(&delta, cx)?;
        }
        self.waiting.tidy()?;
        self.seen.tidy()
    }

    fn follows_time(&self) -> bool {
        true
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.waiting, &mut self.seen]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{DataType, Int64Type};
    use datafusion::physical_expr::expressions::Column;
    use rand::prelude::*;
    use rand::rngs::SmallRng;

    use super::*;

    /// When it enters and leaves, and a value.
    type Row = (Option<i64>, Option<i64>, i64);

    fn schema() -> SchemaRef {
        let fields =
            vec![Field::new("from", TIMESTAMP, true), Field::new("to", TIMESTAMP, true), Field::new("v", DataType::Int64, false)];
        Arc::new(Schema::new(fields))
    }

    fn delta(rows: &[(Row, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Instants::from_iter(rows.iter().map(|(r, _)| r.0))),
            Arc::new(Instants::from_iter(rows.iter().map(|(r, _)| r.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| r.2))),
        ];
        let rows_of = RecordBatch::try_new(schema(), columns).unwrap();
        Delta::new(rows_of, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight)))
    }

    /// Rows are seen exactly from when they enter until they leave, whatever comes and goes meanwhile, and over restarts.
    #[rstest::rstest]
    #[case(true, true)]
    #[case(true, false)]
    #[case(false, true)]
    fn rows_are_seen_in_their_time(#[case] enters: bool, #[case] leaves: bool) {
        let column = |name: &str, index| Instant { of: Arc::new(Column::new(name, index)), later: 0 };
        let spec = Spec {
            enters: enters.then(|| column("from", 0)).into_iter().collect(),
            leaves: leaves.then(|| column("to", 1)).into_iter().collect(),
            schema: schema(),
        };
        for seed in 0..10 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut temporal = Temporal::new(spec.clone(), Shard::WHOLE).unwrap();
            let (mut rows, mut shown): (BTreeMap<Row, i64>, BTreeMap<Row, i64>) = (BTreeMap::new(), BTreeMap::new());
            let (mut now, mut saved) = (0, [Vec::new(), Vec::new()]);
            for step in 0..80 {
                now += rng.random_range(0..3_000_000);
                let mut cx = Context::new(0);
                cx.now = now;
                for _ in 0..rng.random_range(0..3) {
                    let mut changes = Vec::new();
                    for _ in 0..rng.random_range(0..6) {
                        let present = rows.keys().nth(rng.random_range(0..rows.len().max(1))).copied();
                        let near = |rng: &mut SmallRng| rng.random_bool(0.95).then(|| now + rng.random_range(-5..20) * 1_000_000);
                        let (row, weight) = match present {
                            Some(row) if rng.random_bool(0.4) => (row, -1),
                            _ => ((near(&mut rng), near(&mut rng), rng.random_range(0..3)), 1),
                        };
                        *rows.entry(row).or_default() += weight;
                        rows.retain(|_, weight| *weight != 0);
                        changes.push((row, weight));
                    }
                    temporal.update(0, delta(&changes), &mut cx).unwrap();
                }
                temporal.finish(&mut cx).unwrap();
                for (_, delta) in cx.into_output() {
                    let at = |c: usize, row| instants(delta.rows.column(c)).unwrap().iter().nth(row).unwrap();
                    for row in 0..delta.len() {
                        let v = delta.rows.column(2).as_primitive::<Int64Type>().value(row);
                        *shown.entry((at(0, row), at(1, row), v)).or_default() += delta.weight(row);
                    }
                }
                shown.retain(|_, weight| *weight != 0);
                let entered = |row: &Row| !enters || row.0.is_some_and(|from| from <= now);
                let stays = |row: &Row| !leaves || row.1.is_some_and(|to| to > now);
                let expected: BTreeMap<Row, i64> =
                    rows.iter().filter(|(row, _)| entered(row) && stays(row)).map(|(row, weight)| (*row, *weight)).collect();
                assert_eq!(shown, expected, "seed {seed}, step {step}");
                if rng.random_bool(0.2) {
                    for (saved, table) in saved.iter_mut().zip(temporal.state()) {
                        saved.extend(table.changes().unwrap());
                    }
                    temporal = Temporal::new(spec.clone(), Shard::WHOLE).unwrap();
                    for (saved, table) in saved.iter().zip(temporal.state()) {
                        saved.iter().for_each(|delta| table.load(delta.clone()).unwrap());
                    }
                }
            }
        }
    }
}
