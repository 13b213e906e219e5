//! Random rows, commits, steps and restarts against the definition, worked out from the beginning each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use rand::prelude::*;

use super::*;
use crate::delta::Delta;
use crate::flow::{Context, LATE, MAIN, Operator, Shard};
use crate::time::{NO_TIME, TIMESTAMP};

/// Key, time, value.
type Row = (i64, Micros, i64);
/// Start, end, key, count, sum.
type Group = (Micros, Micros, i64, i64, i64);

fn input() -> SchemaRef {
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    Arc::new(Schema::new(vec![field("k", DataType::Int64), field("ts", TIMESTAMP), field("x", DataType::Int64)]))
}

fn spec(gap: Micros, delay: Option<Micros>, append_only: bool, emit: Emit) -> Spec {
    let bounds = ["window_start", "window_end", "window_time"].map(|name| Arc::new(Field::new(name, TIMESTAMP, false)));
    let wide = Arc::new(Schema::new(input().fields().iter().cloned().chain(bounds).collect::<Vec<_>>()));
    let column = |index: usize| Arc::new(Column::new(wide.field(index).name(), index)) as Arc<dyn PhysicalExpr>;
    let call = |function: Arc<AggregateUDF>| {
        let built = AggregateExprBuilder::new(function, vec![column(2)]).schema(Arc::clone(&wide)).alias("a").build().unwrap();
        let output = built.field();
        let function = Arc::new(built);
        Call { function, filter: None, arguments: vec![column(2)], argument_types: vec![DataType::Int64], output }
    };
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    let schema = Arc::new(Schema::new(vec![
        field("window_start", TIMESTAMP),
        field("window_end", TIMESTAMP),
        field("k", DataType::Int64),
        field("n", DataType::Int64),
        field("total", DataType::Int64),
    ]));
    Spec {
        time: 1,
        partition: vec![0],
        gap,
        delay,
        judges: append_only && delay.is_some(),
        wide: Arc::clone(&wide),
        steps: Vec::new(),
        keys: vec![column(0)],
        key_types: vec![DataType::Int64],
        group_columns: vec![GroupColumn::WindowStart, GroupColumn::WindowEnd, GroupColumn::Key(0)],
        calls: vec![call(count_udaf()), call(sum_udaf())],
        append_only,
        emit,
        schema,
    }
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.0.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.2))),
    ];
    let batch = RecordBatch::try_new(input(), columns).unwrap();
    match rows.iter().all(|r| r.1 == 1) {
        true => Delta::append(batch),
        false => Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
    }
}

/// The sessions of rows, by the definition.
fn sessions(rows: &[Row], gap: Micros) -> Vec<Group> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    for (key, at, value) in sorted {
        match groups.last_mut() {
            Some(group) if group.2 == key && at < group.1 => {
                group.1 = at + gap;
                group.3 += 1;
                group.4 += value;
            }
            _ => groups.push((at, at + gap, key, 1, value)),
        }
    }
    groups
}

/// What an operator has given so far.
#[derive(Default)]
struct Given {
    groups: BTreeMap<Group, i64>,
    late: Vec<Row>,
}

impl Given {
    fn take(&mut self, cx: Context) {
        for (output, delta) in cx.into_output() {
            let number = |column: usize, row: usize| delta.rows.column(column).as_primitive::<Int64Type>().value(row);
            let instant =
                |column: usize, row: usize| delta.rows.column(column).as_primitive::<TimestampMicrosecondType>().value(row);
            for row in 0..delta.len() {
                if output == LATE {
                    self.late.push((number(0, row), instant(1, row), number(2, row)));
                    continue;
                }
                assert_eq!(output, MAIN);
                let group = (instant(0, row), instant(1, row), number(2, row), number(3, row), number(4, row));
                let weight = self.groups.entry(group).or_default();
                *weight += delta.weight(row);
                if *weight == 0 {
                    self.groups.remove(&group);
                }
            }
        }
    }

    fn groups(&self) -> Vec<Group> {
        assert!(self.groups.values().all(|weight| *weight == 1), "{:?}", self.groups);
        self.groups.keys().copied().collect()
    }
}

/// A new operator with what another has saved.
fn restarted(operator: &mut Sessions, saved: &mut Vec<Delta>, spec: &Spec) -> Sessions {
    for table in operator.state() {
        saved.extend(table.changes().unwrap());
    }
    let mut next = Sessions::new(spec.clone(), Shard::WHOLE).unwrap();
    for delta in saved.iter() {
        next.state()[0].load(delta.clone()).unwrap();
    }
    next
}

#[test]
fn a_stream_in_any_order_is_as_its_definition_whatever_the_steps() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (gap, lateness) = (rng.random_range(2..12), rng.random_range(0..6));
        let emit = if seed % 2 == 0 { Emit::Changes } else { Emit::Final };
        let spec = spec(gap, Some(lateness), true, emit);
        let mut operator = Sessions::new(spec.clone(), Shard::WHOLE).unwrap();
        let (mut given, mut saved) = (Given::default(), Vec::new());
        let (mut accepted, mut late): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
        let (mut watermark, mut now) = (NO_TIME, 0);
        for _ in 0..40 {
            let since = watermark;
            for _ in 0..rng.random_range(1..4) {
                now += rng.random_range(0..8);
                let row = |rng: &mut SmallRng| (rng.random_range(0..3), now - rng.random_range(0..25), rng.random_range(0..9));
                let rows: Vec<Row> = (0..rng.random_range(1..6)).map(|_| row(&mut rng)).collect();
                let before = sessions(&accepted, gap);
                let closed = |end: Micros| watermark != NO_TIME && end + lateness <= watermark;
                let is_late = |row: &Row| {
                    let reaches = |g: &Group| g.2 == row.0 && g.0 < row.1 + gap && row.1 < g.1 && closed(g.1);
                    closed(row.1 + gap) || before.iter().any(reaches)
                };
                let (too_late, in_time): (Vec<Row>, Vec<Row>) = rows.iter().partition(|row| is_late(row));
                late.extend(too_late);
                accepted.extend(in_time);
                // In one change or in several.
                for part in rows.chunks(rng.random_range(1..6)) {
                    let mut cx = Context::between(since, watermark);
                    operator.update(0, delta(&part.iter().map(|r| (*r, 1)).collect::<Vec<_>>()), &mut cx).unwrap();
                    given.take(cx);
                }
                watermark = watermark.max(rows.iter().map(|r| r.1).max().unwrap() - 6);
            }
            let mut cx = Context::between(since, watermark);
            operator.finish(&mut cx).unwrap();
            given.take(cx);

            let mut expected = sessions(&accepted, gap);
            if emit == Emit::Final {
                expected.retain(|g| g.1 + lateness <= watermark);
            }
            expected.sort_unstable();
            assert_eq!(given.groups(), expected, "seed {seed}");
            let (mut found, mut wanted) = (given.late.clone(), late.clone());
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "seed {seed}");
            if rng.random_bool(0.2) {
                operator = restarted(&mut operator, &mut saved, &spec);
            }
        }
    }
}

#[test]
fn rows_that_come_and_go_merge_and_split() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let gap = rng.random_range(2..15);
        let spec = spec(gap, None, false, Emit::Changes);
        let mut operator = Sessions::new(spec.clone(), Shard::WHOLE).unwrap();
        let (mut given, mut saved) = (Given::default(), Vec::new());
        let mut present: Vec<Row> = Vec::new();
        for _ in 0..60 {
            for _ in 0..rng.random_range(1..3) {
                let mut changes = Vec::new();
                for _ in 0..rng.random_range(1..8) {
                    if !present.is_empty() && rng.random_bool(0.5) {
                        changes.push((present.swap_remove(rng.random_range(0..present.len())), -1));
                    } else {
                        let row = (rng.random_range(0..2), rng.random_range(0..120), rng.random_range(0..4));
                        present.push(row);
                        changes.push((row, 1));
                    }
                }
                let mut cx = Context::new(NO_TIME);
                operator.update(0, delta(&changes), &mut cx).unwrap();
                given.take(cx);
            }
            let mut cx = Context::new(NO_TIME);
            operator.finish(&mut cx).unwrap();
            given.take(cx);
            let mut expected = sessions(&present, gap);
            expected.sort_unstable();
            assert_eq!(given.groups(), expected, "seed {seed}");
            if rng.random_bool(0.2) {
                operator = restarted(&mut operator, &mut saved, &spec);
            }
        }
    }
}

#[test]
fn state_is_of_open_sessions_only() {
    let spec = spec(10, Some(0), true, Emit::Changes);
    let mut operator = Sessions::new(spec, Shard::WHOLE).unwrap();
    let mut most = 0;
    for step in 0..2000_i64 {
        // One session goes on for ever; the others are of two rows.
        let rows = [((0, step * 5, 1), 1), ((1 + step % 100, step * 5, 1), 1), ((1 + step % 100, step * 5 + 2, 1), 1)];
        let mut cx = Context::between(step * 5 - 10, step * 5 - 5);
        operator.update(0, delta(&rows), &mut cx).unwrap();
        operator.finish(&mut cx).unwrap();
        if step > 100 {
            most = most.max(operator.state()[0].rows() as i64 - step);
        }
        for table in operator.state() {
            table.changes().unwrap();
        }
    }
    assert!(most < 40, "{most} rows of closed sessions");
}

/// `cargo test --release --lib session::tests::cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn cost() {
    for length in [10_i64, 1_000, 100_000] {
        let rows = 400_000_i64;
        let mut operator = Sessions::new(spec(10, Some(0), true, Emit::Changes), Shard::WHOLE).unwrap();
        let all: Vec<(Row, i64)> = (0..rows).map(|n| ((n % 10, n / 10 + n / (10 * length) * 100, 1), 1)).collect();
        let mut watermark = NO_TIME;
        let batches: Vec<(Delta, Micros)> = all.chunks(1000).map(|c| (delta(c), c.last().unwrap().0.1)).collect();
        let start = std::time::Instant::now();
        for (batch, last) in batches {
            let mut cx = Context::between(watermark, watermark);
            operator.update(0, batch, &mut cx).unwrap();
            let mut cx = Context::between(watermark, last);
            operator.finish(&mut cx).unwrap();
            watermark = last;
        }
        let nanos = start.elapsed().as_nanos() as f64 / rows as f64;
        println!("sessions of {length} rows: {nanos:.0} ns a row");
    }
}
