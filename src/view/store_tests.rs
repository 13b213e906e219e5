//! A store is compared with the simplest thing that could be right: a map of row texts to counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;

use super::{Store, Version};
use crate::delta::Delta;
use crate::state::StateTable;

type Row = (Option<i64>, Option<String>, Option<i8>);
/// Rows and how many copies there are.
type Model = BTreeMap<Row, i64>;

fn schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![field("k", DataType::Int64), field("s", DataType::Utf8), field("f", DataType::Float64)]))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let float = |f: i8| if f == 0 { f64::NAN } else { f64::from(f) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.1.clone()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.2.map(float)).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn delta(changes: &[(Row, i64)]) -> Delta {
    let batch = rows(&changes.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    if changes.iter().all(|(_, weight)| *weight == 1) {
        return Delta::append(batch);
    }
    Delta::new(batch, Int64Array::from_iter_values(changes.iter().map(|(_, weight)| *weight)))
}

fn read(batch: &RecordBatch) -> Vec<Row> {
    let float = |f: f64| if f.is_nan() { 0 } else { f as i8 };
    let row = |r: usize| {
        let k = batch.column(0).as_primitive::<Int64Type>();
        let s = batch.column(1).as_string::<i32>();
        let f = batch.column(2).as_primitive::<arrow::datatypes::Float64Type>();
        (k.iter().nth(r).unwrap(), s.iter().nth(r).unwrap().map(str::to_string), f.iter().nth(r).unwrap().map(float))
    };
    (0..batch.num_rows()).map(row).collect()
}

fn content(version: &Version) -> Model {
    let mut model = Model::new();
    for batch in version.scan(None).unwrap() {
        read(&batch).into_iter().for_each(|row| *model.entry(row).or_default() += 1);
    }
    assert_eq!(model.values().sum::<i64>() as usize, version.rows());
    model
}

fn add(model: &mut Model, delta: &Delta) {
    for (at, row) in read(&delta.rows).into_iter().enumerate() {
        *model.entry(row).or_default() += delta.weight(at);
    }
    model.retain(|_, count| *count != 0);
}

fn random_row(random: &mut SmallRng, keys: i64) -> Row {
    let k = Some(random.random_range(0..keys)).filter(|k| *k != 3);
    let s = (random.random_range(0..8) != 0).then(|| format!("s{}", random.random_range(0..3)));
    (k, s, Some(random.random_range(0..3)).filter(|f| *f != 1))
}

/// Random weights that never take away what is not there, in random order and cut into deltas.
fn random_deltas(random: &mut SmallRng, model: &Model, keyed: Option<&[usize]>) -> Vec<Delta> {
    let mut changes: Vec<(Row, i64)> = Vec::new();
    let mut after = model.clone();
    for _ in 0..random.random_range(1..60) {
        let take = random.random_range(0..5) < 2 && !after.is_empty();
        let (row, weight) = if take {
            let (row, count) = after.iter().nth(random.random_range(0..after.len())).unwrap();
            (row.clone(), -random.random_range(1..=*count))
        } else {
            (random_row(random, 40), if keyed.is_some() { 1 } else { random.random_range(1..4) })
        };
        if let Some(key) = keyed
            && weight > 0
            && let Some(old) = after.keys().find(|old| key_of(old, key) == key_of(&row, key)).cloned()
        {
            after.remove(&old);
            changes.push((old, -1));
        }
        *after.entry(row.clone()).or_default() += weight;
        after.retain(|_, count| *count != 0);
        changes.push((row, weight));
    }
    for at in (1..changes.len()).rev() {
        changes.swap(at, random.random_range(0..=at));
    }
    changes.chunks(random.random_range(1..=changes.len())).map(delta).collect()
}

fn key_of(row: &Row, key: &[usize]) -> (Option<Option<i64>>, Option<Option<String>>) {
    (key.contains(&0).then_some(row.0), key.contains(&1).then(|| row.1.clone()))
}

#[rstest]
#[case::multiset(vec![])]
#[case::word(vec![0])]
#[case::string(vec![1])]
#[case::two_columns(vec![1, 0])]
fn a_store_equals_the_model_and_versions_stay(#[case] key: Vec<usize>, #[values(1, 2, 3)] seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let keyed = (!key.is_empty()).then_some(key.as_slice());
    let mut store = Store::new("test", schema(), key.clone());
    let (mut model, mut saved, mut held) = (Model::new(), Model::new(), Vec::new());
    for step in 0..150 {
        let deltas = random_deltas(&mut random, &model, keyed);
        let before = model.clone();
        deltas.iter().for_each(|delta| add(&mut model, delta));
        let applied = store.apply(&deltas).unwrap();
        let mut replayed = before;
        add(&mut replayed, &applied);
        assert_eq!(replayed, model, "the delta returned says what happened");
        assert_eq!(content(&store.version()), model, "step {step}");
        assert_eq!(store.rows(), model.values().sum::<i64>() as usize);
        if step % 20 == 0 {
            held.push((store.version(), model.clone()));
            store.changes().unwrap().iter().for_each(|delta| add(&mut saved, delta));
            assert_eq!(saved, model, "the changes add up, and are right by key as well");
        }
    }
    for (version, then) in held {
        assert_eq!(content(&version), then, "a version does not change");
    }
}

#[rstest]
fn upserts_and_deletes_equal_the_model(#[values(1, 2, 3, 4)] seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut store = Store::new("test", schema(), vec![0]);
    let (mut model, mut replayed) = (BTreeMap::<Option<i64>, Row>::new(), Model::new());
    for _ in 0..150 {
        let batch: Vec<Row> = (0..random.random_range(0..80)).map(|_| random_row(&mut random, 60)).collect();
        let applied = if random.random_range(0..3) == 0 {
            batch.iter().for_each(|row| drop(model.remove(&row.0)));
            store.delete(&rows(&batch)).unwrap()
        } else {
            batch.iter().for_each(|row| drop(model.insert(row.0, row.clone())));
            store.upsert(&rows(&batch)).unwrap()
        };
        add(&mut replayed, &applied);
        let expected: Model = model.values().map(|row| (row.clone(), 1)).collect();
        assert_eq!(content(&store.version()), expected);
        assert_eq!(replayed, expected);
        let asked: Vec<Option<i64>> = (0..70).map(Some).chain([None]).collect();
        let found = store.version().lookup(&[Arc::new(Int64Array::from(asked.clone()))]).unwrap();
        let there: Vec<Row> = asked.iter().filter_map(|k| model.get(k).cloned()).collect();
        assert_eq!(read(&found), there, "found, in the order asked for");
    }
}

fn one(k: i64, s: &str) -> Row {
    (Some(k), Some(s.to_string()), None)
}

#[rstest]
#[case::absent_key(vec![0], vec![(one(9, "a"), -1)], "retraction of a row that is not there: (9, a, NULL)")]
#[case::other_row_of_the_key(vec![0], vec![(one(1, "b"), -1)], "retraction of a row that is not there: (1, b, NULL)")]
#[case::twice(vec![0], vec![(one(1, "a"), -2)], "retraction of a row that is not there: (1, a, NULL)")]
#[case::duplicate(vec![0], vec![(one(1, "b"), 1)], "a second row with the key of (1, b, NULL)")]
#[case::duplicate_in_the_delta(vec![0], vec![(one(5, "b"), 1), (one(5, "c"), 1)], "a second row with the key of (5, c, NULL)")]
#[case::two_copies(vec![0], vec![(one(5, "b"), 2)], "a second row with the key of (5, b, NULL)")]
#[case::absent_row(vec![], vec![(one(1, "b"), -1)], "retraction of a row that is not there: (1, b, NULL)")]
#[case::more_than_there_are(vec![], vec![(one(1, "a"), -2)], "retraction of a row that is not there: (1, a, NULL)")]
fn what_cannot_be_is_refused_and_leaves_no_trace(#[case] key: Vec<usize>, #[case] wrong: Vec<(Row, i64)>, #[case] message: &str) {
    let mut store = Store::new("test", schema(), key);
    store.apply(&[delta(&[(one(1, "a"), 1), (one(2, "b"), 1)])]).unwrap();
    store.changes().unwrap();
    let before = content(&store.version());
    let bad = [vec![(one(7, "new"), 1), (one(2, "b"), -1)], wrong].concat();
    assert_eq!(store.apply(&[delta(&bad)]).unwrap_err().message(), message);
    assert_eq!(content(&store.version()), before);
    assert!(store.changes().unwrap().is_empty());
    store.apply(&[delta(&[(one(2, "b"), -1), (one(7, "new"), 1)])]).unwrap();
    assert_eq!(store.rows(), 2);
}

#[test]
fn an_unchanged_upsert_makes_no_delta() {
    let mut store = Store::new("test", schema(), vec![0]);
    store.upsert(&rows(&[one(1, "a"), one(2, "b")])).unwrap();
    let applied = store.upsert(&rows(&[one(1, "a"), one(2, "c"), one(3, "d")])).unwrap();
    assert_eq!(read(&applied.rows), [one(2, "b"), one(2, "c"), one(3, "d")]);
    assert_eq!(applied.diff.unwrap().values().to_vec(), [-1, 1, 1]);
    assert!(store.upsert(&rows(&[one(1, "a")])).unwrap().is_empty());
}

#[test]
fn changes_of_a_busy_key_do_not_pile_up() {
    let mut store = Store::new("test", schema(), vec![0]);
    for round in 0..400 {
        store.upsert(&rows(&(0..1000).map(|k| one(k, &format!("{round}"))).collect::<Vec<_>>())).unwrap();
    }
    let changes = store.changes().unwrap();
    assert!(changes.iter().map(Delta::len).sum::<usize>() < 300_000);
    let mut model = Model::new();
    changes.iter().for_each(|delta| add(&mut model, delta));
    assert_eq!(model, content(&store.version()));
}

#[test]
fn loading_the_changes_gives_the_same_rows() {
    for key in [vec![], vec![0], vec![1], vec![0, 1]] {
        let mut random = SmallRng::seed_from_u64(9);
        let (mut store, mut model, mut chunks) = (Store::new("test", schema(), key.clone()), Model::new(), Vec::new());
        for _ in 0..50 {
            let deltas = random_deltas(&mut random, &model, (!key.is_empty()).then_some(key.as_slice()));
            deltas.iter().for_each(|delta| add(&mut model, delta));
            store.apply(&deltas).unwrap();
            chunks.extend(store.changes().unwrap());
        }
        let mut loaded = Store::new("test", schema(), key);
        chunks.into_iter().for_each(|delta| loaded.load(delta).unwrap());
        assert_eq!(content(&loaded.version()), content(&store.version()));
        assert!(loaded.changes().unwrap().is_empty(), "what was loaded is saved already");
    }
}
