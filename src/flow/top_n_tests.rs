use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType, UInt64Type};
use rand::prelude::*;
use rand::rngs::SmallRng;

use super::*;
use crate::time::TIMESTAMP;

/// Group, its time, value, tag.
type Row = (Option<u8>, i64, i64, u8);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("g", DataType::Utf8, true),
        Field::new("at", TIMESTAMP, false),
        Field::new("v", DataType::Int64, false),
        Field::new("tag", DataType::Int64, false),
    ]))
}

fn spec(by: Rank, skip: u64, last: u64, numbers: Vec<Rank>, append_only: bool, delay: Option<Micros>) -> Spec {
    let descending = SortOptions { descending: true, nulls_first: false };
    let time = delay.map(|_| 1);
    let layout = Layout { schema: schema(), key: vec![0, 1], time, order: vec![(2, descending)] };
    let names = (0..numbers.len()).map(|i| Arc::new(Field::new(format!("n{i}"), DataType::UInt64, false)));
    let fields: Vec<_> = schema().fields().iter().cloned().chain(names).collect();
    Spec { layout, by, skip, last, numbers, schema: Arc::new(Schema::new(fields)), append_only, delay }
}

fn delta(rows: &[(Row, i64)], append_only: bool) -> Delta {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(|(r, _)| r.0.map(|g| format!("group {g}"))))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(r, _)| r.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| r.2))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| i64::from(r.3)))),
    ];
    let batch = RecordBatch::try_new(schema(), columns).unwrap();
    if append_only {
        return Delta::append(batch);
    }
    Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w)))
}

type Shown = BTreeMap<(Row, Vec<u64>), i64>;

fn collect(cx: Context, shown: &mut Shown) {
    for (_, delta) in cx.into_output() {
        let columns = delta.rows.columns();
        for row in 0..delta.len() {
            let g = columns[0].as_string::<i32>();
            let g = (!columns[0].is_null(row)).then(|| g.value(row).trim_start_matches("group ").parse().unwrap());
            let at = columns[1].as_primitive::<TimestampMicrosecondType>().value(row);
            let int = |c: usize| columns[c].as_primitive::<Int64Type>().value(row);
            let numbers = columns[4..].iter().map(|c| c.as_primitive::<UInt64Type>().value(row)).collect();
            *shown.entry(((g, at, int(2), int(3) as u8), numbers)).or_default() += delta.weight(row);
        }
    }
    shown.retain(|_, weight| *weight != 0);
}

/// What should be shown, by counting.
fn expected(rows: &BTreeMap<Row, i64>, spec: &Spec) -> Shown {
    let mut groups: BTreeMap<(Option<u8>, i64), Vec<Row>> = BTreeMap::new();
    for (row, weight) in rows {
        (0..*weight).for_each(|_| groups.entry((row.0, row.1)).or_default().push(*row));
    }
    let mut shown = Shown::new();
    for mut rows in groups.into_values() {
        rows.sort_by_key(|r| (-r.2, r.3));
        for (i, row) in rows.iter().enumerate() {
            let rank = rows.iter().position(|r| r.2 == row.2).unwrap() as u64 + 1;
            let mut values: Vec<i64> = rows[..=i].iter().map(|r| r.2).collect();
            values.dedup();
            let number = |by: &Rank| match by {
                Rank::RowNumber => i as u64 + 1,
                Rank::Rank => rank,
                Rank::DenseRank => values.len() as u64,
            };
            if number(&spec.by) > spec.skip && number(&spec.by) <= spec.last {
                *shown.entry((*row, spec.numbers.iter().map(number).collect())).or_default() += 1;
            }
        }
    }
    shown
}

/// The same state in a new operator, by way of what checkpoints were given.
fn reload(spec: &Spec, saved: &[Delta]) -> TopN {
    let mut top = TopN::new(spec.clone(), Shard::WHOLE).unwrap();
    saved.iter().for_each(|delta| top.rows.load(delta.clone()).unwrap());
    top
}

#[rstest::rstest]
#[case::limit(Rank::RowNumber, 0, 3, vec![])]
#[case::offset(Rank::RowNumber, 2, 5, vec![])]
#[case::only_offset(Rank::RowNumber, 2, u64::MAX, vec![])]
#[case::none(Rank::RowNumber, 0, 0, vec![])]
#[case::numbered(Rank::RowNumber, 0, 3, vec![Rank::RowNumber])]
#[case::ranked(Rank::Rank, 0, 3, vec![Rank::Rank])]
#[case::dense(Rank::DenseRank, 0, 2, vec![Rank::DenseRank, Rank::RowNumber])]
#[case::all_numbers(Rank::RowNumber, 0, 4, vec![Rank::DenseRank, Rank::Rank, Rank::RowNumber])]
fn first_rows_are_those_of_a_count(
    #[case] by: Rank,
    #[case] skip: u64,
    #[case] last: u64,
    #[case] numbers: Vec<Rank>,
    #[values(false, true)] append_only: bool,
) {
    for seed in 0..8 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let spec = spec(by, skip, last, numbers.clone(), append_only, None);
        let mut top = TopN::new(spec.clone(), Shard::WHOLE).unwrap();
        let (mut rows, mut shown, mut saved) = (BTreeMap::new(), Shown::new(), Vec::new());
        for step in 0..60 {
            let mut cx = Context::new(0);
            for _ in 0..rng.random_range(0..3) {
                let mut changes: Vec<(Row, i64)> = Vec::new();
                for _ in 0..rng.random_range(0..6) {
                    let present = rows.keys().nth(rng.random_range(0..rows.len().max(1))).copied();
                    let (row, weight) = match present {
                        Some(row) if !append_only && rng.random_bool(0.45) => (row, -1),
                        _ => {
                            let g = rng.random_bool(0.9).then(|| rng.random_range(0..3));
                            let row: Row = (g, 0, rng.random_range(0..6), rng.random_range(0..4));
                            (row, if append_only { 1 } else { rng.random_range(1..3) })
                        }
                    };
                    *rows.entry(row).or_default() += weight;
                    rows.retain(|_, weight: &mut i64| *weight != 0);
                    changes.push((row, weight));
                }
                top.update(0, delta(&changes, append_only), &mut cx).unwrap();
            }
            top.finish(&mut cx).unwrap();
            collect(cx, &mut shown);
            assert_eq!(shown, expected(&rows, &spec), "seed {seed}, step {step}");
            if rng.random_bool(0.3) {
                saved.extend(top.rows.changes().unwrap());
            }
            if rng.random_bool(0.1) {
                saved.extend(top.rows.changes().unwrap());
                top = reload(&spec, &saved);
            }
        }
        if append_only && last < 10 && by == Rank::RowNumber {
            assert!(
                StateTable::rows(&top.rows) <= 4 * last as usize,
                "rows behind the edge are not kept: {}",
                StateTable::rows(&top.rows)
            );
        }
    }
}

#[test]
fn a_change_behind_the_edge_touches_nothing() {
    let mut top = TopN::new(spec(Rank::RowNumber, 0, 2, vec![], false, None), Shard::WHOLE).unwrap();
    let mut step = |rows: &[(Row, i64)]| {
        let mut cx = Context::new(0);
        top.update(0, delta(rows, false), &mut cx).unwrap();
        top.finish(&mut cx).unwrap();
        cx.into_output().iter().map(|(_, d)| d.len()).sum::<usize>()
    };
    let row = |v| (Some(1), 0, v, 0);
    assert_eq!(step(&[(row(9), 1), (row(8), 1), (row(7), 1)]), 2);
    assert_eq!(step(&[(row(5), 1), (row(7), -1)]), 0);
    // The first of all goes: the third comes up.
    assert_eq!(step(&[(row(9), -1)]), 2);
    assert_eq!(step(&[(row(5), -1)]), 1);
}

/// Groups that the frontier passes one after another: what is kept stays flat.
#[test]
fn groups_behind_the_frontier_are_forgotten() {
    let second = 1_000_000;
    let mut top = TopN::new(spec(Rank::Rank, 0, 2, vec![], false, Some(0)), Shard::WHOLE).unwrap();
    let mut most = 0;
    for at in 0..500 {
        let mut cx = Context::new(at * second);
        let rows: Vec<(Row, i64)> = (0..20).map(|v| ((Some(v % 3), at * second, i64::from(v), v), 1)).collect();
        top.update(0, delta(&rows, false), &mut cx).unwrap();
        top.finish(&mut cx).unwrap();
        most = most.max(StateTable::rows(&top.rows));
    }
    assert!(most <= 60, "{most}");
}
