//! Windows put together from slices against windows that every row is put into, over random rows, commits, steps and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use rand::prelude::*;

use super::sliced::Sliced;
use super::*;
use crate::flow::window::AssignWindows;
use crate::flow::{LATE, MAIN};
use crate::time::TIMESTAMP;
use crate::time::window::Windows;

/// Key, time, value.
type Row = (i64, Micros, i64);

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn input() -> SchemaRef {
    let fields =
        vec![field("k", DataType::Int64), field("ts", TIMESTAMP), field("x", DataType::Int64), field("y", DataType::Float64)];
    Arc::new(Schema::new(fields))
}

fn wide() -> SchemaRef {
    let bounds = ["window_start", "window_end", "window_time"].map(|name| Arc::new(Field::new(name, TIMESTAMP, false)));
    Arc::new(Schema::new(input().fields().iter().cloned().chain(bounds).collect::<Vec<_>>()))
}

fn column(index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(wide().field(index).name(), index))
}

fn call(function: Arc<AggregateUDF>, argument: usize) -> Call {
    let wide = wide();
    let built = AggregateExprBuilder::new(function, vec![column(argument)]).schema(Arc::clone(&wide)).alias("a").build().unwrap();
    let output = built.field();
    let argument_types = vec![wide.field(argument).data_type().clone()];
    Call { function: Arc::new(built), filter: None, arguments: vec![column(argument)], argument_types, output }
}

fn spec(windows: Windows, delay: Option<Micros>, append_only: bool, emit: Emit) -> Spec {
    let mut calls = vec![call(count_udaf(), 2), call(sum_udaf(), 2), call(avg_udaf(), 3), call(sum_udaf(), 3)];
    if append_only {
        calls.extend([call(min_udaf(), 2), call(max_udaf(), 2), call(max_udaf(), 3)]);
    }
    let bounds = ["window_start", "window_end"].map(|name| Arc::new(Field::new(name, TIMESTAMP, false)));
    let keys = [Arc::new(field("k", DataType::Int64))];
    let outputs = calls.iter().map(|call| Arc::clone(&call.output));
    let schema = Arc::new(Schema::new(bounds.into_iter().chain(keys).chain(outputs).collect::<Vec<_>>()));
    Spec {
        keys: vec![column(0)],
        key_types: vec![DataType::Int64],
        group_columns: vec![GroupColumn::WindowStart, GroupColumn::WindowEnd, GroupColumn::Key(0)],
        window: Some(WindowKey { column: 5, bound: Bound::End, windows, delay }),
        calls,
        append_only,
        emit,
        global: false,
        schema,
    }
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.0.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0.2))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.0.2 as f64 / 8.0))),
    ];
    let batch = RecordBatch::try_new(input(), columns).unwrap();
    match rows.iter().all(|r| r.1 == 1) {
        true => Delta::append(batch),
        false => Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
    }
}

/// The window and the GROUP BY above it.
struct Pipeline {
    spec: Spec,
    by_slices: bool,
    assign: AssignWindows,
    aggregate: Box<dyn Operator>,
    saved: Vec<Delta>,
    /// What it has given: rows by output, with weights.
    given: BTreeMap<(usize, Vec<u8>), i64>,
}

impl Pipeline {
    fn new(spec: Spec, by_slices: bool) -> Pipeline {
        let window = spec.window.unwrap();
        let assign = AssignWindows {
            windows: window.windows,
            by_slices,
            time: column(1),
            delay: window.delay,
            schema: wide(),
            shared: None,
        };
        let aggregate = Pipeline::aggregate(&spec, by_slices);
        Pipeline { spec, by_slices, assign, aggregate, saved: Vec::new(), given: BTreeMap::new() }
    }

    fn aggregate(spec: &Spec, by_slices: bool) -> Box<dyn Operator> {
        match by_slices {
            true => Box::new(Sliced::new(spec.clone(), Shard::WHOLE).unwrap()),
            false => Box::new(Aggregate::new(spec.clone(), Shard::WHOLE).unwrap()),
        }
    }

    fn take(&mut self, output: usize, delta: &Delta) {
        let columns = delta.rows.columns();
        let coder = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect()).unwrap();
        for (row, data) in coder.convert_columns(columns).unwrap().iter().enumerate() {
            let key = (output, data.data().to_vec());
            let weight = self.given.entry(key.clone()).or_default();
            *weight += delta.weight(row);
            if *weight == 0 {
                self.given.remove(&key);
            }
        }
    }

    fn update(&mut self, delta: Delta, since: Micros, frontier: Micros) {
        let mut cx = Context::between(since, frontier);
        self.assign.update(0, delta, &mut cx).unwrap();
        for (output, delta) in cx.into_output() {
            if output == LATE {
                self.take(LATE, &delta);
                continue;
            }
            let mut cx = Context::between(since, frontier);
            self.aggregate.update(0, delta, &mut cx).unwrap();
            cx.into_output().iter().for_each(|(_, delta)| self.take(MAIN, delta));
        }
    }

    fn finish(&mut self, since: Micros, frontier: Micros) {
        let mut cx = Context::between(since, frontier);
        self.aggregate.finish(&mut cx).unwrap();
        cx.into_output().iter().for_each(|(_, delta)| self.take(MAIN, delta));
    }

    fn restart(&mut self) {
        self.saved.extend(self.aggregate.state()[0].changes().unwrap());
        self.aggregate = Pipeline::aggregate(&self.spec, self.by_slices);
        for delta in &self.saved {
            self.aggregate.state()[0].load(delta.clone()).unwrap();
        }
    }
}

fn families(rng: &mut SmallRng) -> Windows {
    let offset = rng.random_range(-3..4);
    match rng.random_range(0..4) {
        0 => Windows::hop(10, 5, offset),
        1 => Windows::hop(10, 4, offset),
        2 => Windows::hop(30, 1, offset),
        _ => Windows::cumulate(12, 3, offset),
    }
}

/// The reference keeps no multiset for rows that are only added, so that it can be restarted by its groups alone.
#[test]
fn slices_give_what_windows_give() {
    for seed in 0..80 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (windows, lateness) = (families(&mut rng), rng.random_range(0..4));
        let emit = if seed % 2 == 0 { Emit::Changes } else { Emit::Final };
        let spec = spec(windows, Some(lateness), true, emit);
        let (mut reference, mut sliced) = (Pipeline::new(spec.clone(), false), Pipeline::new(spec, true));
        let (mut watermark, mut now) = (NO_TIME, 0);
        for _ in 0..40 {
            let since = watermark;
            for _ in 0..rng.random_range(1..4) {
                now += if rng.random_bool(0.05) { 100 } else { rng.random_range(0..6) };
                let row = |rng: &mut SmallRng| (rng.random_range(0..3), now - rng.random_range(0..20), rng.random_range(-9..9));
                let rows: Vec<(Row, i64)> = (0..rng.random_range(1..8)).map(|_| (row(&mut rng), 1)).collect();
                reference.update(delta(&rows), since, watermark);
                for part in rows.chunks(rng.random_range(1..8)) {
                    sliced.update(delta(part), since, watermark);
                }
                watermark = watermark.max(rows.iter().map(|r| r.0.1).max().unwrap() - 6);
            }
            reference.finish(since, watermark);
            sliced.finish(since, watermark);
            assert!(reference.given == sliced.given, "seed {seed} {windows:?} {emit:?}");
            if rng.random_bool(0.2) {
                sliced.restart();
            }
        }
    }
}

#[test]
fn rows_are_taken_back_out_of_slices() {
    for seed in 0..50 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let windows = families(&mut rng);
        // With EMIT FINAL, what is taken back is not older than what is closed.
        let (emit, delay) = if seed % 2 == 0 { (Emit::Changes, None) } else { (Emit::Final, Some(0)) };
        let spec = spec(windows, delay, false, emit);
        let (mut reference, mut sliced) = (Pipeline::new(spec.clone(), false), Pipeline::new(spec, true));
        let mut present: Vec<Row> = Vec::new();
        let mut watermark = 0;
        for _ in 0..50 {
            let mut rows = Vec::new();
            for _ in 0..rng.random_range(1..8) {
                let open: Vec<usize> = (0..present.len()).filter(|at| present[*at].1 >= watermark).collect();
                match open.choose(&mut rng).filter(|_| rng.random_bool(0.4)) {
                    Some(at) => rows.push((present.swap_remove(*at), -1)),
                    None => {
                        let row = (rng.random_range(0..3), watermark + rng.random_range(0..40), rng.random_range(-9..9));
                        present.push(row);
                        rows.push((row, 1));
                    }
                }
            }
            let since = watermark;
            watermark += if emit == Emit::Final { rng.random_range(0..6) } else { 0 };
            for pipeline in [&mut reference, &mut sliced] {
                pipeline.update(delta(&rows), since, since);
                pipeline.finish(since, watermark);
            }
            assert!(reference.given == sliced.given, "seed {seed} {windows:?} {emit:?}");
            if rng.random_bool(0.2) {
                sliced.restart();
            }
        }
    }
}

#[test]
fn slices_go_with_the_last_of_their_windows() {
    for emit in [Emit::Changes, Emit::Final] {
        let spec = spec(Windows::hop(100, 10, 0), Some(0), true, emit);
        let mut sliced = Pipeline::new(spec, true);
        for step in 0..500 {
            let watermark = step * 5;
            sliced.update(delta(&[((step % 7, step * 5, 1), 1)]), watermark, watermark);
            sliced.finish(watermark, watermark + 5);
            let rows = sliced.aggregate.state()[0].rows();
            assert!(rows <= 80, "{rows} groups are kept");
        }
    }
}

/// `cargo test --release --lib sliced_tests::cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn cost() {
    const ROWS: i64 = 2_000_000;
    let second = 1_000_000;
    for emit in [Emit::Final, Emit::Changes] {
        for by_slices in [true, false] {
            for ratio in [10, 100, 1000] {
                // Expansion is shown on fewer rows.
                let rows = if by_slices { ROWS } else { ROWS / ratio };
                // Ten thousand rows and a hundred keys a second; a step of one second, or of all with EMIT CHANGES.
                let per_step = if emit == Emit::Final { 10_000 } else { rows };
                let spec = spec(Windows::hop(ratio * second, second, 0), Some(0), true, emit);
                let mut pipeline = Pipeline::new(spec, by_slices);
                let all: Vec<(Row, i64)> = (0..rows).map(|n| ((n * 7 % 100, n * 100, n % 1000), 1)).collect();
                let batches: Vec<(Delta, Micros)> = all.chunks(10_000).map(|c| (delta(c), c.last().unwrap().0.1)).collect();
                let (mut watermark, mut since, mut given) = (NO_TIME, NO_TIME, 0);
                let start = std::time::Instant::now();
                for (n, (batch, last)) in batches.into_iter().enumerate() {
                    let mut cx = Context::between(since, watermark);
                    pipeline.assign.update(0, batch, &mut cx).unwrap();
                    for (_, delta) in cx.into_output() {
                        pipeline.aggregate.update(0, delta, &mut Context::between(since, watermark)).unwrap();
                    }
                    watermark = last;
                    if (n as i64 + 1) * 10_000 % per_step == 0 {
                        let mut cx = Context::between(since, watermark);
                        pipeline.aggregate.finish(&mut cx).unwrap();
                        given += cx.into_output().iter().map(|(_, delta)| delta.len()).sum::<usize>();
                        since = watermark;
                    }
                }
                let rate = rows as f64 / start.elapsed().as_secs_f64();
                let way = if by_slices { "slices" } else { "each row in every window" };
                println!("{emit:?}, size/slide {ratio}, {way}: {rate:.0} rows/s, {given} rows out");
            }
        }
    }
}
