//! Joins against a join by brute force over what is there: all kinds, with and without a residual condition, random weighted
//! changes, any cut into steps, any number of shards, restarts.

use std::collections::BTreeMap;

use arrow::array::{AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use rand::prelude::*;

use super::*;
use crate::flow::shard;

const TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

/// Key, time, value.
type Row = (Option<i64>, i64, i64);
/// Left, right, mark.
type Output = (Option<Row>, Option<Row>, Option<bool>);

/// What is joined, and how.
#[derive(Clone, Copy, Debug)]
struct Case {
    join_type: JoinType,
    /// `left.v <= right.v`, and the bound.
    residual: bool,
    keyed: bool,
    null_equals_null: bool,
    bound: Option<Bound>,
    append_only: bool,
}

fn side_fields() -> Vec<Field> {
    vec![
        Field::new("k", DataType::Int64, true),
        Field::new("at", crate::time::TIMESTAMP, true),
        Field::new("v", DataType::Int64, true),
    ]
}

impl Case {
    fn meets(&self, l: &Row, r: &Row) -> bool {
        let keys = !self.keyed || if self.null_equals_null { l.0 == r.0 } else { l.0.is_some() && l.0 == r.0 };
        let bound = self.bound.is_none_or(|b| {
            b.least.is_none_or(|least| least <= r.1 - l.1) && b.greatest.is_none_or(|greatest| r.1 - l.1 <= greatest)
        });
        keys && bound && (!self.residual || l.2 <= r.2)
    }

    /// The join of all that is there, by definition.
    fn expected(&self, left: &[Row], right: &[Row]) -> BTreeMap<Output, i64> {
        let mut all: Vec<Output> = Vec::new();
        let has = |l: &&Row| right.iter().any(|r| self.meets(l, r));
        let met = |r: &&Row| left.iter().any(|l| self.meets(l, r));
        let pairs = || left.iter().flat_map(|l| right.iter().filter(|r| self.meets(l, r)).map(|r| (Some(*l), Some(*r), None)));
        let lonely_left = || left.iter().filter(|l| !has(l)).map(|l| (Some(*l), None, None));
        let lonely_right = || right.iter().filter(|r| !met(r)).map(|r| (None, Some(*r), None));
        match self.join_type {
            JoinType::Inner => all.extend(pairs()),
            JoinType::Left => all.extend(pairs().chain(lonely_left())),
            JoinType::Right => all.extend(pairs().chain(lonely_right())),
            JoinType::Full => all.extend(pairs().chain(lonely_left()).chain(lonely_right())),
            JoinType::LeftSemi => all.extend(left.iter().filter(has).map(|l| (Some(*l), None, None))),
            JoinType::RightSemi => all.extend(right.iter().filter(met).map(|r| (None, Some(*r), None))),
            JoinType::LeftAnti => all.extend(lonely_left()),
            JoinType::RightAnti => all.extend(lonely_right()),
            JoinType::LeftMark => all.extend(left.iter().map(|l| (Some(*l), None, Some(has(&l))))),
            JoinType::RightMark => all.extend(right.iter().map(|r| (None, Some(*r), Some(met(&r))))),
        }
        let mut counted = BTreeMap::new();
        all.into_iter().for_each(|row| *counted.entry(row).or_default() += 1);
        counted
    }

    fn has_left(&self) -> bool {
        !matches!(self.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark)
    }

    fn has_right(&self) -> bool {
        !matches!(self.join_type, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark)
    }

    fn spec(&self) -> Spec {
        let schema = Arc::new(Schema::new(side_fields()));
        let kept = self.bound.map_or([None; 2], |bound| bound.keep([0, 0], self.join_type));
        let side = |dead_after| SideSpec {
            schema: Arc::clone(&schema),
            width: 3,
            key: if self.keyed { vec![0] } else { Vec::new() },
            time: self.bound.map(|_| 1),
            dead_after,
            append_only: self.append_only,
        };
        let mut fields = Vec::new();
        if self.has_left() {
            fields.extend(side_fields());
        }
        if self.has_right() {
            fields.extend(side_fields());
        }
        if matches!(self.join_type, JoinType::LeftMark | JoinType::RightMark) {
            fields.push(Field::new("mark", DataType::Boolean, false));
        }
        Spec {
            join_type: self.join_type,
            sides: kept.map(side),
            residual: self.condition(),
            null_equals_null: self.null_equals_null,
            bound: self.bound,
            pairs: Arc::new(Schema::new([side_fields(), side_fields()].concat())),
            append_only: self.append_only,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    /// The bound itself is left to the range of the probe, so that it is seen to be exact.
    fn condition(&self) -> Option<Arc<dyn PhysicalExpr>> {
        let column = |index| Arc::new(Column::new("c", index)) as Arc<dyn PhysicalExpr>;
        self.residual.then(|| Arc::new(BinaryExpr::new(column(2), Op::LtEq, column(5))) as Arc<dyn PhysicalExpr>)
    }
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|((k, _, _), _)| *k))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|((_, at, _), _)| *at))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|((_, _, v), _)| *v))),
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(side_fields())), columns).unwrap();
    match rows.iter().all(|(_, weight)| *weight == 1) {
        true => Delta::append(batch),
        false => Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight))),
    }
}

/// A join in some shards, what it has given so far, and what was saved of it.
struct Running {
    case: Case,
    shards: Vec<Join>,
    given: BTreeMap<Output, i64>,
    saved: [Vec<Delta>; 2],
}

impl Running {
    fn new(case: Case, shards: usize) -> Running {
        let of = if case.keyed { shards } else { 1 };
        let shards = (0..of).map(|index| Join::new(case.spec(), Shard { index, of }).unwrap()).collect();
        Running { case, shards, given: BTreeMap::new(), saved: Default::default() }
    }

    fn update(&mut self, port: usize, rows: &[(Row, i64)]) {
        let change = delta(rows);
        let of = self.shards.len();
        let owner = shard::shards(&[Arc::clone(change.rows.column(0))], change.len(), of).unwrap();
        for (index, rows) in shard::split(&owner, of).into_iter().enumerate() {
            let mut cx = Context::new(NO_TIME);
            self.shards[index].update(port, change.take(&rows).unwrap(), &mut cx).unwrap();
            self.note(cx);
        }
    }

    fn finish(&mut self, frontier: Micros) {
        for index in 0..self.shards.len() {
            let mut cx = Context::new(frontier);
            self.shards[index].finish(&mut cx).unwrap();
            self.note(cx);
        }
    }

    fn save(&mut self) {
        for shard in &mut self.shards {
            for (table, saved) in shard.state().into_iter().zip(&mut self.saved) {
                saved.extend(table.changes().unwrap());
            }
        }
    }

    /// Begin again from what was saved, with another number of shards.
    fn restart(&mut self, shards: usize) {
        self.save();
        let mut next = Running::new(self.case, shards);
        for shard in &mut next.shards {
            for (table, saved) in shard.state().into_iter().zip(&self.saved) {
                saved.iter().for_each(|delta| table.load(delta.clone()).unwrap());
            }
        }
        self.shards = next.shards;
    }

    fn check(&self, present: &[Vec<Row>; 2], round: usize) {
        let mut differs = self.case.expected(&present[0], &present[1]);
        self.given.iter().for_each(|(row, weight)| *differs.entry(*row).or_default() -= weight);
        differs.retain(|_, weight| *weight != 0);
        assert!(differs.is_empty(), "{:?}, round {round}: missing or too much: {differs:?}", self.case);
    }

    fn rows(&mut self) -> usize {
        self.shards.iter_mut().flat_map(|shard| shard.state()).map(|table| table.rows()).sum()
    }

    fn note(&mut self, cx: Context) {
        for (_, delta) in cx.into_output() {
            assert!(!self.case.append_only || delta.diff.is_none());
            let columns = delta.rows.columns();
            let int = |column: usize, row| columns[column].as_primitive::<Int64Type>().value(row);
            let side = |first: usize, row: usize| {
                let at = columns[first + 1].as_primitive::<TimestampMicrosecondType>();
                let k = columns[first].is_valid(row).then(|| int(first, row));
                at.is_valid(row).then(|| (k, at.value(row), int(first + 2, row)))
            };
            let right = if self.case.has_left() { 3 } else { 0 };
            for row in 0..delta.len() {
                let left = if self.case.has_left() { side(0, row) } else { None };
                let right = if self.case.has_right() { side(right, row) } else { None };
                let mark = columns.len() % 3 == 1;
                let mark = mark.then(|| columns[columns.len() - 1].as_boolean().value(row));
                let weight = self.given.entry((left, right, mark)).or_default();
                *weight += delta.weight(row);
            }
        }
        self.given.retain(|_, weight| *weight != 0);
    }
}

fn every_case() -> impl Iterator<Item = Case> {
    let flags = || [false, true].into_iter();
    TYPES.into_iter().flat_map(move |join_type| {
        flags().flat_map(move |residual| {
            flags().flat_map(move |keyed| {
                flags().map(move |null_equals_null| Case {
                    join_type,
                    residual,
                    keyed,
                    null_equals_null,
                    bound: None,
                    append_only: false,
                })
            })
        })
    })
}

/// Some changes of a side: new rows, also equal ones, and rows taken away.
fn change(rng: &mut SmallRng, present: &mut Vec<Row>, row: impl Fn(&mut SmallRng) -> Row, takes: bool) -> Vec<(Row, i64)> {
    let mut rows = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        if takes && !present.is_empty() && rng.random_bool(0.45) {
            let row = present.swap_remove(rng.random_range(0..present.len()));
            rows.push((row, -1));
        } else {
            let (row, weight) = (row(rng), if takes { rng.random_range(1..3) } else { 1 });
            present.extend(std::iter::repeat_n(row, weight));
            rows.push((row, weight as i64));
        }
    }
    rows
}

#[test]
fn what_was_given_is_the_join_of_what_came() {
    let mut rng = SmallRng::seed_from_u64(11);
    for case in every_case() {
        let shards = *[1, 1, 3].choose(&mut rng).unwrap();
        let mut running = Running::new(case, shards);
        let mut present: [Vec<Row>; 2] = Default::default();
        let row = |rng: &mut SmallRng| (rng.random_bool(0.9).then(|| rng.random_range(0..3)), 0, rng.random_range(0..4));
        for round in 0..40 {
            let port = rng.random_range(0..2);
            let rows = change(&mut rng, &mut present[port], row, true);
            running.update(port, &rows);
            if rng.random_bool(0.3) {
                running.finish(NO_TIME);
            }
            if rng.random_bool(0.1) {
                running.finish(NO_TIME);
                running.restart(rng.random_range(1..4));
            }
            if round % 2 == 1 {
                running.check(&present, round);
            }
        }
    }
}

#[test]
fn rows_that_are_only_added_give_rows_that_are_only_added() {
    let mut rng = SmallRng::seed_from_u64(3);
    for case in every_case() {
        if !matches!(case.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi) {
            continue;
        }
        let case = Case { append_only: true, ..case };
        let mut running = Running::new(case, rng.random_range(1..4));
        let mut present: [Vec<Row>; 2] = Default::default();
        for round in 0..60 {
            let port = rng.random_range(0..2);
            let row = |rng: &mut SmallRng| (rng.random_bool(0.9).then(|| rng.random_range(0..2)), 0, rng.random_range(0..2));
            let rows = change(&mut rng, &mut present[port], row, false);
            running.update(port, &rows);
            running.check(&present, round);
            if rng.random_bool(0.1) {
                running.save();
            }
            if rng.random_bool(0.1) {
                running.finish(NO_TIME);
                running.restart(rng.random_range(1..4));
            }
        }
    }
}

/// Rows come at or after the frontier, and go only while they are not behind it: what is dropped is never missed.
#[test]
fn a_bound_lets_the_frontier_drop_rows_and_no_answer_changes() {
    const SECOND: Micros = 1_000_000;
    let mut rng = SmallRng::seed_from_u64(5);
    let bounds =
        [(Some(-3), Some(8)), (Some(0), Some(0)), (Some(4), Some(9)), (Some(-9), Some(-2)), (None, Some(5)), (Some(-5), None)];
    for case in every_case().filter(|case| !case.null_equals_null && (case.keyed || case.residual)) {
        for (least, greatest) in bounds {
            let bound = Bound { least: least.map(|s| s * SECOND), greatest: greatest.map(|s| s * SECOND) };
            let case = Case { bound: Some(bound), ..case };
            let mut running = Running::new(case, if case.residual { 1 } else { 2 });
            let mut present: [Vec<Row>; 2] = Default::default();
            let mut frontier = 100;
            for round in 0..60 {
                let port = rng.random_range(0..2);
                // Rows behind the frontier are there for ever.
                let (mut open, closed): (Vec<Row>, Vec<Row>) = present[port].iter().partition(|row| row.1 >= frontier * SECOND);
                let row = |rng: &mut SmallRng| {
                    (Some(rng.random_range(0..2)), (frontier + rng.random_range(0..6)) * SECOND, rng.random_range(0..3))
                };
                let rows = change(&mut rng, &mut open, row, true);
                present[port] = [open, closed].concat();
                running.update(port, &rows);
                if rng.random_bool(0.6) {
                    frontier += rng.random_range(0..3);
                    running.finish(frontier * SECOND);
                }
                if rng.random_bool(0.05) {
                    running.finish(frontier * SECOND);
                    running.restart(2);
                }
                if round % 6 == 5 {
                    running.check(&present, round);
                }
            }
        }
    }
}

#[test]
fn state_stays_flat_under_a_moving_frontier() {
    const SECOND: Micros = 1_000_000;
    for join_type in [JoinType::Inner, JoinType::Left, JoinType::Full, JoinType::RightAnti] {
        let bound = Bound { least: Some(-10 * SECOND), greatest: Some(20 * SECOND) };
        let case =
            Case { join_type, residual: true, keyed: true, null_equals_null: false, bound: Some(bound), append_only: false };
        let mut running = Running::new(case, 1);
        let mut most = [0, 0];
        for second in 0..400 {
            for port in [0, 1] {
                let rows: Vec<(Row, i64)> = (0..4).map(|i| ((Some(second % 7), second * SECOND + i, second + i), 1)).collect();
                running.update(port, &rows);
            }
            running.finish(second * SECOND);
            if second % 20 == 0 {
                running.save();
            }
            let late = usize::from(second > 200);
            most[late] = most[late].max(running.rows());
        }
        assert_eq!(most[0], most[1], "{join_type:?}");
        assert!(most[1] <= 2 * 4 * 50, "{join_type:?} keeps {} rows", most[1]);
    }
}
