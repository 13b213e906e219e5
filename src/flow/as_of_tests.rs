//! ASOF joins against a search by brute force over what is there: all comparisons, random weighted changes out of order, any
//! number of shards, restarts, and a frontier behind which nothing comes.

use std::collections::BTreeMap;

use arrow::array::{AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use rand::prelude::*;

use super::*;
use crate::flow::shard;

const SECOND: Micros = 1_000_000;

/// Key, second, value.
type Row = (Option<i64>, i64, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("at", crate::time::TIMESTAMP, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|(row, _)| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(row, _)| row.1 * SECOND))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(row, _)| row.2))),
    ];
    let weights = Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight));
    Delta::new(RecordBatch::try_new(schema(), columns).unwrap(), weights)
}

/// What a row of the left finds, by definition.
fn found(nearest: Nearest, left: &Row, right: &[Row]) -> Option<Row> {
    let candidates = right.iter().filter(|r| left.0.is_some() && r.0 == left.0).filter(|r| match nearest {
        Nearest { backward: true, equal } => r.1 < left.1 || equal && r.1 == left.1,
        Nearest { backward: false, equal } => r.1 > left.1 || equal && r.1 == left.1,
    });
    candidates.min_by_key(|r| ((r.1 - left.1).abs(), r.2)).copied()
}

struct Running {
    spec: Spec,
    shards: Vec<AsOf>,
    saved: [Vec<Delta>; 2],
    given: BTreeMap<(Row, Option<Row>), i64>,
}

impl Running {
    fn new(nearest: Nearest, outer: bool, dead_after: Option<Micros>, shards: usize) -> Running {
        let side = SideSpec { schema: schema(), key: vec![0], time: 1 };
        let fields: Vec<_> = schema().fields().iter().chain(schema().fields()).cloned().collect();
        let sides = [side.clone(), side];
        let spec =
            Spec { sides, nearest, outer, then: None, by_commit: false, dead_after, schema: Arc::new(Schema::new(fields)) };
        let mut running = Running { spec, shards: Vec::new(), saved: Default::default(), given: BTreeMap::new() };
        running.start(shards);
        running
    }

    fn start(&mut self, of: usize) {
        self.shards = (0..of).map(|index| AsOf::new(self.spec.clone(), Shard { index, of }).unwrap()).collect();
        for shard in &mut self.shards {
            for (table, saved) in shard.state().into_iter().zip(&self.saved) {
                saved.iter().for_each(|delta| table.load(delta.clone()).unwrap());
            }
        }
    }

    fn save(&mut self) {
        for shard in &mut self.shards {
            for (table, saved) in shard.state().into_iter().zip(&mut self.saved) {
                saved.extend(table.changes().unwrap());
            }
        }
    }

    fn take(&mut self, cx: Context) {
        for (_, delta) in cx.into_output() {
            for row in 0..delta.len() {
                let side = |from: usize| {
                    let number = |column: usize| {
                        let column = delta.rows.column(from + column).as_primitive::<Int64Type>();
                        column.is_valid(row).then(|| column.value(row))
                    };
                    let at = delta.rows.column(from + 1).as_primitive::<TimestampMicrosecondType>();
                    at.is_valid(row).then(|| (number(0), at.value(row) / SECOND, number(2).unwrap()))
                };
                let entry = self.given.entry((side(0).unwrap(), side(3))).or_default();
                *entry += delta.weight(row);
            }
        }
        self.given.retain(|_, weight| *weight != 0);
    }

    fn update(&mut self, port: usize, rows: &[(Row, i64)]) {
        let delta = delta(rows);
        let owner = shard::shards(&[Arc::clone(delta.rows.column(0))], delta.len(), self.shards.len()).unwrap();
        for (index, part) in shard::split(&owner, self.shards.len()).into_iter().enumerate() {
            let mut cx = Context::new(NO_TIME);
            if !part.is_empty() {
                self.shards[index].update(port, delta.take(&part).unwrap(), &mut cx).unwrap();
            }
            self.take(cx);
        }
    }

    fn finish(&mut self, frontier: Micros) {
        for index in 0..self.shards.len() {
            let mut cx = Context::new(frontier);
            self.shards[index].finish(&mut cx).unwrap();
            self.take(cx);
        }
    }

    fn rows(&mut self) -> usize {
        self.shards.iter_mut().flat_map(|shard| shard.state()).map(|table| table.rows()).sum()
    }
}

const ALL: [Nearest; 4] = [
    Nearest { backward: true, equal: true },
    Nearest { backward: true, equal: false },
    Nearest { backward: false, equal: true },
    Nearest { backward: false, equal: false },
];

#[rstest::rstest]
fn every_row_has_its_nearest(
    #[values(0, 1, 2, 3)] comparison: usize,
    #[values(true, false)] outer: bool,
    #[values(1, 3)] of: usize,
) {
    let nearest = ALL[comparison];
    for seed in 0..8 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // With a frontier, all that changes is not more than twenty seconds behind it.
        let timed = seed % 2 == 0;
        let mut running = Running::new(nearest, outer, timed.then_some(20 * SECOND), of);
        let mut there: [Vec<Row>; 2] = Default::default();
        for round in 0..150 {
            for port in [0, 1] {
                let mut changes = Vec::new();
                for _ in 0..rng.random_range(0..6) {
                    let young: Vec<usize> =
                        (0..there[port].len()).filter(|at| !timed || there[port][*at].1 >= round - 18).collect();
                    match young.choose(&mut rng).filter(|_| rng.random_bool(0.4)) {
                        Some(at) => changes.push((there[port].swap_remove(*at), -1)),
                        None => {
                            let key = rng.random_bool(0.95).then(|| rng.random_range(0..3));
                            let row = (key, round + rng.random_range(-18..6), rng.random_range(0..4));
                            there[port].push(row);
                            changes.push((row, 1));
                        }
                    }
                }
                running.update(port, &changes);
            }
            running.finish(if timed { round * SECOND } else { NO_TIME });
            if rng.random_bool(0.2) {
                running.save();
                if rng.random_bool(0.5) {
                    running.start(of);
                }
            }
            let mut expected: BTreeMap<(Row, Option<Row>), i64> = BTreeMap::new();
            for left in &there[0] {
                let right = found(nearest, left, &there[1]);
                if outer || right.is_some() {
                    *expected.entry((*left, right)).or_default() += 1;
                }
            }
            assert_eq!(running.given, expected, "{nearest:?}, seed {seed}, round {round}");
        }
    }
}

#[test]
fn state_stays_flat_under_a_moving_frontier() {
    for nearest in ALL {
        let mut running = Running::new(nearest, true, Some(5 * SECOND), 1);
        let mut most = [0, 0];
        for second in 0..400 {
            for port in [0, 1] {
                let rows: Vec<(Row, i64)> = (0..4).map(|i| ((Some((second + i) % 7), second, i), 1)).collect();
                running.update(port, &rows);
            }
            running.finish(second * SECOND);
            if second % 20 == 0 {
                running.save();
            }
            let late = usize::from(second > 200);
            most[late] = most[late].max(running.rows());
        }
        assert_eq!(most[0], most[1], "{nearest:?}");
        assert!(most[1] <= 2 * 4 * 12 + 7, "{nearest:?} keeps {} rows", most[1]);
    }
}

/// By commit: a row finds what was there when its step ended, once, and only the newest row of each key is kept.
#[test]
fn answers_by_commit_are_given_once() {
    let numbers = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("commit", DataType::Int64, true),
        Field::new("offset", DataType::Int64, true),
    ]));
    let side = SideSpec { schema: Arc::clone(&numbers), key: vec![0], time: 1 };
    let fields: Vec<_> = numbers.fields().iter().chain(numbers.fields()).cloned().collect();
    let spec = Spec {
        sides: [side.clone(), side],
        nearest: ALL[0],
        outer: true,
        then: Some(2),
        by_commit: true,
        dead_after: None,
        schema: Arc::new(Schema::new(fields)),
    };
    let mut operator = AsOf::new(spec, Shard::WHOLE).unwrap();
    let rows = |rows: &[[i64; 3]]| {
        let column = |at: usize| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[at]))) as ArrayRef;
        Delta::append(RecordBatch::try_new(Arc::clone(&numbers), vec![column(0), column(1), column(2)]).unwrap())
    };
    let mut step = |left: &[[i64; 3]], right: &[[i64; 3]]| -> Vec<(i64, Option<i64>)> {
        let mut cx = Context::new(NO_TIME);
        // The left first: the right of the same commit counts all the same.
        operator.update(LEFT, rows(left), &mut cx).unwrap();
        operator.update(RIGHT, rows(right), &mut cx).unwrap();
        operator.finish(&mut cx).unwrap();
        let given = cx.into_output();
        assert!(given.iter().all(|(_, delta)| delta.diff.is_none()), "rows are only added");
        assert!(operator.state().iter().map(|table| table.rows()).sum::<usize>() <= 2);
        let of_row = |delta: &Delta, row: usize| {
            let [left, right] = [2, 5].map(|column| delta.rows.column(column).as_primitive::<Int64Type>().clone());
            (left.value(row), right.is_valid(row).then(|| right.value(row)))
        };
        given.iter().flat_map(|(_, delta)| (0..delta.len()).map(|row| of_row(delta, row)).collect::<Vec<_>>()).collect()
    };
    // Two commits in a step: each row sees its own, and of one commit the last.
    assert_eq!(step(&[[1, 1, 10], [1, 2, 11]], &[[1, 1, 0], [1, 2, 1], [1, 2, 2]]), [(10, Some(0)), (11, Some(2))]);
    assert_eq!(step(&[[1, 3, 12], [2, 3, 13]], &[]), [(12, Some(2)), (13, None)]);
    assert_eq!(step(&[[1, 4, 14]], &[[1, 5, 3], [2, 5, 4]]), [(14, Some(2))]);
}
