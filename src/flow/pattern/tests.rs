//! The matcher against one that tries all ways by the words of the standard, and the operator against the matcher.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use rand::prelude::*;

use super::operator::{Closing, Matching};
use super::program::{ANY, Pattern, Program, Variables, bit};
use super::scan::{Scan, Verdict, rows};
use super::{Anchor, Call, Define, Measure, Shown, Skip, Slot, Spec, Test};
use crate::catalog::Emit;
use crate::delta::Delta;
use crate::error::SqlState;
use crate::flow::{Context, Operator, Shard};
use crate::limits;
use crate::time::{Micros, NO_TIME};

/// Key, time, value.
type Row = (i64, i64, i64);

const VALUE: usize = 2;

/// What a row must be to be a variable's.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Any,
    Below(i64),
    /// `v > PREV(v)`
    Rises,
    /// `v > LAST(u.v)`
    AboveLast(u8),
    /// `v > FIRST(v)` of all rows
    AboveFirst,
    /// `SUM(v) < n` over all rows
    SumBelow(i64),
    /// `v < NEXT(v)`
    WillRise,
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn value(anchor: Anchor, shift: i64) -> Slot {
    Slot::Column { column: VALUE, anchor, shift }
}

fn test(slots: Vec<Slot>, op: Op, right: Option<i64>) -> Test {
    let fields: Vec<Field> = (0..slots.len()).map(|n| Field::new(format!("${n}"), DataType::Int64, true)).collect();
    let schema = Schema::new(fields);
    let left = col("$0", &schema).unwrap();
    let right = right.map_or_else(|| col("$1", &schema).unwrap(), lit);
    let condition = binary(left, op, right, &schema).unwrap();
    Test { slots, schema: Arc::new(schema), condition }
}

fn define(condition: Condition) -> Define {
    let current = value(Anchor::Current, 0);
    let of_row = |test| Define { of_row: Some(test), ..Define::default() };
    let of_match = |test| Define { of_match: Some(test), ..Define::default() };
    match condition {
        Condition::Any => Define::default(),
        Condition::Below(n) => of_row(test(vec![current], Op::Lt, Some(n))),
        Condition::Rises => of_row(test(vec![current, value(Anchor::Current, -1)], Op::Gt, None)),
        Condition::AboveLast(u) => of_match(test(vec![current, value(Anchor::Last { of: bit(u), but: 0 }, 0)], Op::Gt, None)),
        Condition::AboveFirst => of_match(test(vec![current, value(Anchor::First { of: ANY, but: 0 }, 0)], Op::Gt, None)),
        Condition::SumBelow(n) => of_match(test(vec![Slot::Aggregate { call: 0, of: ANY }], Op::Lt, Some(n))),
        Condition::WillRise => Define { ahead: 1, ..of_row(test(vec![current, value(Anchor::Current, 1)], Op::Lt, None)) },
    }
}

#[derive(Clone, Debug)]
struct Query {
    pattern: Pattern,
    conditions: Vec<Condition>,
    within: Option<Micros>,
    skip: Skip,
    all_rows: bool,
    /// Without measures that look at other matches, or before their own.
    alone: bool,
}

impl Query {
    fn spec(&self) -> Spec {
        let columns = columns();
        let argument: Arc<dyn PhysicalExpr> = col("v", &columns).unwrap();
        let sum = AggregateExprBuilder::new(sum_udaf(), vec![Arc::clone(&argument)]).schema(Arc::clone(&columns)).alias("sum");
        let mut measures = vec![
            value(Anchor::First { of: ANY, but: 0 }, 0),
            value(Anchor::Last { of: bit(1), but: 0 }, 0),
            Slot::Aggregate { call: 0, of: ANY },
            value(Anchor::First { of: ANY, but: 0 }, -1),
            Slot::Number,
        ];
        measures.truncate(if self.alone { 3 } else { 5 });
        let mut fields = vec![columns.field(0).clone(), columns.field(1).clone()];
        fields.extend((0..measures.len()).map(|n| Field::new(format!("${n}"), DataType::Int64, true)));
        Spec {
            partition: vec![0],
            order: vec![(1, SortOptions { descending: false, nulls_first: false })],
            time: Some(1),
            names: vec!["a".into(), "b".into(), "c".into()],
            program: Program::new(&self.pattern).unwrap(),
            pattern: self.pattern.clone(),
            within: self.within,
            skip: self.skip,
            shown: if self.all_rows { Shown::AllRows { empty_matches: true } } else { Shown::OneRow },
            defines: self.conditions.iter().map(|condition| define(*condition)).collect(),
            calls: vec![Call { function: Arc::new(sum.build().unwrap()), arguments: vec![argument] }],
            measures: measures.into_iter().map(|slot| Measure { slot, whole: false }).collect(),
            passed: vec![0, 1],
            columns,
            output: Arc::new(Schema::new(fields)),
        }
    }

    /// The matches by the definition: all ways in the order of preference, the first that fits.
    fn naive(&self, values: &[(i64, i64)]) -> Vec<(usize, Vec<u8>)> {
        let (mut found, mut start) = (Vec::new(), 0);
        while start < values.len() {
            let mut path = Vec::new();
            let mut best = None;
            self.ways(&self.pattern, values, start, &mut path, &mut |path| {
                best = Some(path.clone());
                true
            });
            let Some(variables) = best else {
                start += 1;
                continue;
            };
            let place = |of: Variables, last: bool| {
                let mut rows = variables.iter().enumerate().filter(|(_, v)| of & bit(**v) != 0).map(|(n, _)| n);
                if last { rows.next_back() } else { rows.next() }
            };
            let next = match self.skip {
                _ if variables.is_empty() => start + 1,
                Skip::PastLastRow => start + variables.len(),
                Skip::ToNextRow => start + 1,
                Skip::ToFirst(of) => start + place(of, false).unwrap(),
                Skip::ToLast(of) => start + place(of, true).unwrap(),
            };
            found.push((start, variables));
            start = next;
        }
        found
    }

    /// Calls `then` with every way in which the pattern can go on from `path`, until that says that it is enough.
    fn ways(
        &self,
        pattern: &Pattern,
        values: &[(i64, i64)],
        start: usize,
        path: &mut Vec<u8>,
        then: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> bool {
        let row = start + path.len();
        match pattern {
            Pattern::Variable(variable) => {
                if !self.fits(*variable, values, start, path, row) {
                    return false;
                }
                path.push(*variable);
                let enough = then(path);
                path.pop();
                enough
            }
            Pattern::Start => row == 0 && then(path),
            Pattern::End => row == values.len() && then(path),
            Pattern::Exclude(of) => self.ways(of, values, start, path, then),
            Pattern::Either(parts) => parts.iter().any(|part| self.ways(part, values, start, path, then)),
            Pattern::Sequence(parts) => match parts.split_first() {
                None => then(path),
                Some((first, rest)) => {
                    let rest = Pattern::Sequence(rest.to_vec());
                    self.ways(first, values, start, path, &mut |path| self.ways(&rest, values, start, path, then))
                }
            },
            Pattern::Repeat { of, least, most, greedy } => {
                if *most == Some(0) {
                    return then(path);
                }
                let before = path.len();
                let fewer = Pattern::Repeat {
                    of: of.clone(),
                    least: least.saturating_sub(1),
                    most: most.map(|most| most - 1),
                    greedy: *greedy,
                };
                let more = |path: &mut Vec<u8>, then: &mut dyn FnMut(&mut Vec<u8>) -> bool| {
                    self.ways(of, values, start, path, &mut |path| {
                        if path.len() == before && *least == 0 {
                            then(path)
                        } else {
                            self.ways(&fewer, values, start, path, then)
                        }
                    })
                };
                match (*least > 0, *greedy) {
                    (true, _) => more(path, then),
                    (false, true) => more(path, then) || then(path),
                    (false, false) => then(path) || more(path, then),
                }
            }
        }
    }

    fn fits(&self, variable: u8, values: &[(i64, i64)], start: usize, path: &[u8], row: usize) -> bool {
        let Some((time, value)) = values.get(row) else { return false };
        if self.within.is_some_and(|within| time - values[start].0 > within) {
            return false;
        }
        match self.conditions[usize::from(variable)] {
            Condition::Any => true,
            Condition::Below(n) => *value < n,
            Condition::Rises => row > 0 && values[row - 1].1 < *value,
            Condition::WillRise => values.get(row + 1).is_some_and(|(_, next)| value < next),
            Condition::AboveLast(u) if u == variable => false,
            Condition::AboveLast(u) => path.iter().rposition(|v| *v == u).is_some_and(|place| values[start + place].1 < *value),
            Condition::AboveFirst => values[start].1 < *value,
            Condition::SumBelow(n) => values[start..=row].iter().map(|(_, v)| v).sum::<i64>() < n,
        }
    }
}

fn random_pattern(rng: &mut SmallRng, depth: usize) -> Pattern {
    let inner = |rng: &mut SmallRng| random_pattern(rng, depth - 1);
    match rng.random_range(0..if depth == 0 { 3 } else { 12 }) {
        0..=2 => Pattern::Variable(rng.random_range(0..3)),
        3..=5 => Pattern::Sequence((0..rng.random_range(0..4)).map(|_| inner(rng)).collect()),
        6 | 7 => Pattern::Either((0..rng.random_range(2..4)).map(|_| inner(rng)).collect()),
        8..=10 => {
            let least = rng.random_range(0..3);
            let most = [None, Some(least + rng.random_range(0..3_u32).max(u32::from(least == 0)))][rng.random_range(0..2)];
            Pattern::Repeat { of: Box::new(inner(rng)), least, most, greedy: rng.random_bool(0.6) }
        }
        _ => Pattern::Exclude(Box::new(inner(rng))),
    }
}

fn random_query(rng: &mut SmallRng, ahead: bool) -> Query {
    let condition = |rng: &mut SmallRng| match rng.random_range(0..if ahead { 8 } else { 7 }) {
        0 => Condition::Any,
        1 | 2 => Condition::Below(rng.random_range(1..6)),
        3 => Condition::Rises,
        4 => Condition::AboveLast(rng.random_range(0..3)),
        5 => Condition::AboveFirst,
        6 => Condition::SumBelow(rng.random_range(5..15)),
        _ => Condition::WillRise,
    };
    let pattern = random_pattern(rng, 3);
    let conditions: Vec<Condition> = (0..3).map(|_| condition(rng)).collect();
    // LAST of the variable itself is the row itself, and never less.
    let skip = match rng.random_range(0..4) {
        0 if pattern.always_has(bit(1)) && pattern.before(bit(1)).is_some_and(|before| before > 0) => Skip::ToFirst(bit(1)),
        1 if pattern.always_has(bit(2)) && pattern.before(bit(2)).is_some_and(|before| before > 0) => Skip::ToLast(bit(2)),
        2 => Skip::ToNextRow,
        _ => Skip::PastLastRow,
    };
    let within = rng.random_bool(0.4).then(|| rng.random_range(1..12));
    Query { pattern, conditions, within, skip, all_rows: rng.random_bool(0.4), alone: rng.random_bool(0.5) }
}

fn batch(of: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(of.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(self::columns(), columns).unwrap()
}

#[test]
fn matches_are_those_that_the_standard_prefers() {
    for seed in 0..4000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let query = random_query(&mut rng, true);
        let spec = query.spec();
        let mut at = 0;
        let values: Vec<(i64, i64)> = (0..rng.random_range(0..10))
            .map(|_| {
                at += rng.random_range(0..4);
                (at, rng.random_range(0..6))
            })
            .collect();
        let input: Vec<Row> = values.iter().map(|(time, value)| (0, *time, *value)).collect();
        let mut scan = Scan::new(&spec, rows(&spec, batch(&input)).unwrap(), 0, 0);
        let mut found = Vec::new();
        while !scan.is_done() {
            let attempt = scan.attempt(&spec).unwrap().unwrap();
            found.extend(attempt.found.as_ref().map(|found| (scan.at, found.variables.clone())));
            scan.advance(&spec, attempt, true).unwrap();
        }
        assert_eq!(found, query.naive(&values), "seed {seed}: {query:?}\n{values:?}");
    }
}

/// Output rows with their weights.
type Answer = BTreeMap<Vec<Option<i64>>, i64>;

fn collect(into: &mut Answer, delta: &Delta) {
    for row in 0..delta.len() {
        let value = |column: &ArrayRef| {
            let column = arrow::compute::cast(column, &DataType::Int64).unwrap();
            column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row))
        };
        let values: Vec<_> = delta.rows.columns().iter().map(value).collect();
        let weight = into.entry(values.clone()).or_default();
        *weight += delta.weight(row);
        if *weight == 0 {
            into.remove(&values);
        }
    }
}

/// All rows at once.
fn whole(spec: &Spec, rows_now: &[Row], final_by: Option<Micros>) -> Answer {
    let mut answer = Answer::new();
    let mut partitions: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    rows_now.iter().for_each(|row| partitions.entry(row.0).or_default().push(*row));
    for mut of in partitions.into_values() {
        of.sort_unstable();
        let mut scan = Scan::new(spec, rows(spec, batch(&of)).unwrap(), 0, 0);
        while !scan.is_done() {
            let attempt = scan.attempt(spec).unwrap().unwrap();
            if final_by.is_some_and(|frontier| scan.verdict(spec, &attempt, frontier) != Verdict::Final) {
                break;
            }
            scan.advance(spec, attempt, true).unwrap();
        }
        collect(&mut answer, &Delta::append(scan.take(spec).unwrap()));
    }
    answer
}

/// The same operator after a restart.
fn restart(operator: &mut Matching, make: impl Fn() -> Matching, saved: &mut Vec<Delta>) -> Matching {
    let mut state = operator.state();
    saved.extend(state[0].changes().unwrap());
    let mut next = make();
    for delta in saved.iter() {
        next.state()[0].load(delta.clone()).unwrap();
    }
    next
}

/// After every step, what was given adds up to the answer over the rows as they are.
#[test]
fn changes_add_up_to_the_answer() {
    for seed in 0..1500 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let query = random_query(&mut rng, true);
        let spec = Arc::new(query.spec());
        let (closes, emit) = [(false, Emit::Changes), (true, Emit::Changes), (true, Emit::Final)][rng.random_range(0..3)];
        let closing = closes.then_some(Closing { delay: 0 });
        let make = || Matching::new(Arc::clone(&spec), emit, closing, Shard::WHOLE).unwrap();
        let (mut operator, mut saved) = (make(), Vec::new());
        let (mut now, mut given, mut frontier) = (Vec::<Row>::new(), Answer::new(), NO_TIME);
        for step in 0..12 {
            let mut changes: Vec<(Row, i64)> = Vec::new();
            for _ in 0..rng.random_range(0..5) {
                if !closes && !now.is_empty() && rng.random_bool(0.4) {
                    changes.push((now.swap_remove(rng.random_range(0..now.len())), -1));
                    continue;
                }
                let from = if closes { frontier.max(0) } else { 0 };
                let at = from + rng.random_range(0..if closes { 8 } else { 40 });
                let row = (rng.random_range(0..2), at, rng.random_range(0..6));
                now.push(row);
                changes.push((row, 1));
            }
            let rows_of: Vec<Row> = changes.iter().map(|change| change.0).collect();
            let diff = Int64Array::from_iter_values(changes.iter().map(|change| change.1));
            let since = frontier;
            if closes && rng.random_bool(0.7) {
                frontier = frontier.max(0) + rng.random_range(0..6);
            }
            if !changes.is_empty() {
                operator.update(0, Delta::new(batch(&rows_of), diff), &mut Context::between(since, since)).unwrap();
            }
            let mut cx = Context::between(since, frontier);
            operator.finish(&mut cx).unwrap();
            cx.into_output().iter().for_each(|(_, delta)| collect(&mut given, delta));
            let expected = whole(&spec, &now, (emit == Emit::Final).then_some(frontier));
            assert_eq!(given, expected, "seed {seed}, step {step}, frontier {frontier}, {emit:?}: {query:?}\n{now:?}");
            if rng.random_bool(0.2) {
                operator = restart(&mut operator, make, &mut saved);
            }
        }
    }
}

fn in_turn(variables: &[u8]) -> Pattern {
    Pattern::Sequence(variables.iter().map(|variable| Pattern::Variable(*variable)).collect())
}

fn some(variable: u8) -> Pattern {
    Pattern::Repeat { of: Box::new(Pattern::Variable(variable)), least: 1, most: None, greedy: true }
}

/// An hour of rows at a constant rate: the rows kept are those that the pattern can still reach.
#[test]
fn the_rows_kept_stay_few() {
    const SECOND: Micros = 1_000_000;
    let bounded = Query {
        pattern: Pattern::Sequence(vec![Pattern::Variable(0), some(1), Pattern::Variable(2)]),
        conditions: vec![Condition::Any, Condition::Any, Condition::Below(0)],
        within: Some(10 * SECOND),
        skip: Skip::PastLastRow,
        all_rows: false,
        alone: true,
    };
    // Without WITHIN, the rows decide: a run that rises ends.
    let rising = Query {
        pattern: Pattern::Sequence(vec![Pattern::Variable(0), some(1)]),
        conditions: vec![Condition::Any, Condition::Rises, Condition::Any],
        within: None,
        ..bounded.clone()
    };
    for (query, emit, most) in
        [(&bounded, Emit::Changes, 70), (&bounded, Emit::Final, 70), (&rising, Emit::Changes, 40), (&rising, Emit::Final, 40)]
    {
        let spec = Arc::new(query.spec());
        let mut operator = Matching::new(Arc::clone(&spec), emit, Some(Closing { delay: 0 }), Shard::WHOLE).unwrap();
        let mut frontier = NO_TIME;
        let mut kept = Vec::new();
        for second in 0..3600 {
            let rows: Vec<Row> = (0..5).map(|key| (key, second * SECOND, second * 7 % 5)).collect();
            operator.update(0, Delta::append(batch(&rows)), &mut Context::new(frontier)).unwrap();
            let since = std::mem::replace(&mut frontier, second * SECOND);
            operator.finish(&mut Context::between(since, frontier)).unwrap();
            kept.push(operator.state()[0].rows());
        }
        let greatest = kept.iter().skip(60).max().unwrap();
        assert!(*greatest <= most, "{emit:?} kept {greatest} rows: {query:?}");
    }
}

/// `(a+)+ c` over many rows that are all a: exponential without memory, linear with it.
#[test]
fn ways_that_failed_are_not_tried_again() {
    let nested = Pattern::Repeat { of: Box::new(some(0)), least: 1, most: None, greedy: true };
    let query = Query {
        pattern: Pattern::Sequence(vec![nested, Pattern::Variable(2)]),
        conditions: vec![Condition::Below(10), Condition::Any, Condition::Below(0)],
        within: None,
        skip: Skip::PastLastRow,
        all_rows: false,
        alone: true,
    };
    let rows: Vec<Row> = (0..5000).map(|n| (0, n, 1)).collect();
    assert!(whole(&query.spec(), &rows, None).is_empty());
}

/// Where memory does not help, work is bounded, and the error says so.
#[test]
fn too_much_work_is_an_error() {
    let nested = Pattern::Repeat { of: Box::new(some(0)), least: 1, most: None, greedy: true };
    let query = Query {
        pattern: Pattern::Sequence(vec![nested, Pattern::Variable(2)]),
        conditions: vec![Condition::SumBelow(1_000_000), Condition::Any, Condition::AboveLast(1)],
        within: None,
        skip: Skip::PastLastRow,
        all_rows: false,
        alone: true,
    };
    let input: Vec<Row> = (0..40).map(|n| (0, n, 1)).collect();
    let spec = query.spec();
    let mut scan = Scan::new(&spec, rows(&spec, batch(&input)).unwrap(), 0, 0);
    let error = scan.attempt(&spec).err().expect("there are 2^40 ways");
    assert_eq!(error.state(), SqlState::LimitExceeded);
    assert!(limits::PATTERN_STEPS > 0 && error.hint().is_some());
}

/// SKIP TO a variable that leads nowhere.
#[test]
fn skipping_back_to_the_first_row_is_an_error() {
    for (skip, state) in [(Skip::ToFirst(bit(0)), SqlState::SkipToFirstRow), (Skip::ToLast(bit(2)), SqlState::SkipToNoRow)] {
        let query = Query {
            pattern: in_turn(&[0, 1]),
            conditions: vec![Condition::Any; 3],
            within: None,
            skip,
            all_rows: false,
            alone: true,
        };
        let spec = query.spec();
        let mut scan = Scan::new(&spec, rows(&spec, batch(&[(0, 1, 1), (0, 2, 2)])).unwrap(), 0, 0);
        let attempt = scan.attempt(&spec).unwrap().unwrap();
        assert_eq!(scan.advance(&spec, attempt, true).unwrap_err().state(), state);
    }
}

/// A row at the end of a long partition is looked at with its neighbours, not with the whole partition.
#[test]
fn a_change_is_looked_at_where_it_is() {
    let query = Query {
        pattern: in_turn(&[0, 1]),
        conditions: vec![Condition::Below(2), Condition::Rises, Condition::Any],
        within: None,
        skip: Skip::PastLastRow,
        all_rows: false,
        alone: true,
    };
    let spec = Arc::new(query.spec());
    let mut operator = Matching::new(Arc::clone(&spec), Emit::Changes, None, Shard::WHOLE).unwrap();
    let many: Vec<Row> = (0..20_000).map(|n| (0, n * 10, n % 4)).collect();
    let mut given = Answer::new();
    let mut step = |rows: &[Row]| {
        operator.update(0, Delta::append(batch(rows)), &mut Context::new(NO_TIME)).unwrap();
        let mut cx = Context::new(NO_TIME);
        operator.finish(&mut cx).unwrap();
        cx.into_output().iter().for_each(|(_, delta)| collect(&mut given, delta));
    };
    step(&many);
    let mut all = many;
    for n in 0..2_000 {
        let row = (0, (n * 7919) % 200_000 + 1, n % 4);
        all.push(row);
        step(&[row]);
    }
    assert_eq!(given, whole(&spec, &all, None));
}
