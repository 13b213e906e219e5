//! How fast a store is, in CPU time: `cargo test --release --lib view::figures -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Store;
use crate::delta::Delta;
use crate::state::StateTable;

const KEYS: i64 = 1_000_000;
const BATCH: usize = 8192;

fn schema(key: DataType) -> SchemaRef {
    let value = |name, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![Field::new("key", key, false), value("count", DataType::Int64), value("sum", DataType::Float64)]))
}

fn batch(schema: &SchemaRef, keys: &[i64], value: i64) -> RecordBatch {
    let key: ArrayRef = match schema.field(0).data_type() {
        DataType::Int64 => Arc::new(Int64Array::from(keys.to_vec())),
        _ => Arc::new(StringArray::from_iter_values(keys.iter().map(|k| format!("customer-{k:08}")))),
    };
    let count = Int64Array::from_iter_values(keys.iter().map(|k| k + value));
    let sum = Float64Array::from_iter_values(keys.iter().map(|k| (k * value) as f64));
    RecordBatch::try_new(schema.clone(), vec![key, Arc::new(count), Arc::new(sum)]).unwrap()
}

fn random_batches(schema: &SchemaRef, batches: usize) -> Vec<RecordBatch> {
    let mut random = SmallRng::seed_from_u64(1);
    let keys = |random: &mut SmallRng| (0..BATCH).map(|_| random.random_range(0..KEYS)).collect::<Vec<_>>();
    (0..batches).map(|at| batch(schema, &keys(&mut random), at as i64 + 1)).collect()
}

fn filled(schema: &SchemaRef, key: Vec<usize>) -> Store {
    let mut store = Store::new("figures", schema.clone(), key);
    let keys: Vec<i64> = (0..KEYS).collect();
    keys.chunks(BATCH).for_each(|keys| drop(store.upsert(&batch(schema, keys, 0)).unwrap()));
    store.changes().unwrap();
    store
}

/// CPU time of this thread so far; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

fn report(what: &str, count: usize, started: f64) {
    let seconds = cpu_seconds() - started;
    println!("{what:<58} {:>9.3} M/s  {:>9.1} ns each", count as f64 / seconds / 1e6, seconds * 1e9 / count as f64);
}

#[test]
#[ignore = "figures"]
fn upserts() {
    for (name, key) in [("integer", DataType::Int64), ("string", DataType::Utf8)] {
        let schema = schema(key);
        let keys: Vec<i64> = (0..KEYS).collect();
        let new: Vec<RecordBatch> = keys.chunks(BATCH).map(|keys| batch(&schema, keys, 0)).collect();
        let mut store = Store::new("figures", schema.clone(), vec![0]);
        let started = cpu_seconds();
        new.iter().for_each(|rows| drop(store.upsert(rows).unwrap()));
        report(&format!("insert, {name} key"), KEYS as usize, started);
        store.changes().unwrap();
        let batches = random_batches(&schema, 200);
        let started = cpu_seconds();
        for rows in &batches {
            store.upsert(rows).unwrap();
            store.version();
        }
        report(&format!("upsert over 1 M rows, {name} key, a version per batch"), batches.len() * BATCH, started);
        println!("    bytes per row: {}", store.bytes() / KEYS as usize);
    }
}

#[test]
#[ignore = "figures"]
fn retractions() {
    for (name, key) in [("keyed", vec![0]), ("multiset", vec![])] {
        let schema = schema(DataType::Int64);
        let mut store = Store::new("figures", schema.clone(), key);
        let keys: Vec<i64> = (0..KEYS).collect();
        let started = cpu_seconds();
        keys.chunks(BATCH).for_each(|keys| drop(store.apply(&[Delta::append(batch(&schema, keys, 0))]).unwrap()));
        report(&format!("append, {name}"), KEYS as usize, started);
        let pair = |keys: &[i64], round: i64| {
            [Delta::weighted(batch(&schema, keys, round), -1), Delta::append(batch(&schema, keys, round + 1))]
        };
        let mut random = SmallRng::seed_from_u64(1);
        let mut rounds = vec![0_i64; KEYS as usize / 64];
        let mut deltas = Vec::new();
        for _ in 0..200 {
            let at = random.random_range(0..rounds.len());
            let keys: Vec<i64> = (0..64).map(|i| i * rounds.len() as i64 + at as i64).collect();
            deltas.push(pair(&keys, rounds[at]));
            rounds[at] += 1;
        }
        store.changes().unwrap();
        let started = cpu_seconds();
        for chunk in deltas.chunks(100) {
            for pair in chunk {
                store.apply(pair).unwrap();
                store.version();
            }
        }
        report(&format!("replace 64 rows by a delta, {name} (first builds the index)"), 200 * 64, started);
    }
}

#[test]
#[ignore = "figures"]
fn versions_and_lookups() {
    let schema = schema(DataType::Int64);
    let mut store = filled(&schema, vec![0]);
    let batches = random_batches(&schema, 20);
    let started = cpu_seconds();
    (0..1000).for_each(|_| drop(store.version()));
    report("version, nothing changed", 1000, started);
    let one = |k: i64| batch(&schema, &[k], k + 7);
    let started = cpu_seconds();
    for k in 0..2000 {
        store.upsert(&one(k * 499)).unwrap();
        store.version();
    }
    report("upsert of one row and version", 2000, started);
    batches.iter().for_each(|rows| drop(store.upsert(rows).unwrap()));
    let version = store.version();
    let started = cpu_seconds();
    version.lookup(&[Arc::new(Int64Array::from(vec![77]))]).unwrap();
    report("first look-up in 1 M rows (builds the indexes)", 1, started);
    let started = cpu_seconds();
    for k in 0..10_000 {
        assert_eq!(version.lookup(&[Arc::new(Int64Array::from(vec![k * 99]))]).unwrap().num_rows(), 1);
    }
    report("look-up of one key", 10_000, started);
    let started = cpu_seconds();
    let rows: usize = version.scan(Some(&[1])).unwrap().iter().map(RecordBatch::num_rows).sum();
    report("scan of one column", rows, started);
}
