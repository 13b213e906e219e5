//! State stores by one suite, and checkpoints against a model, with crashes and damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;

use super::checkpoint::{Checkpoint, Checkpoints, TableChanges, TableId, ViewMark};
use super::writer::Writer;
use super::{StateStore, memory, sled};
use crate::delta::Delta;
use crate::error::{Error, Result, SqlState};

/// A store that can be closed and opened again, with or without the power failing.
enum Home {
    Memory(memory::Disk),
    Sled(tempfile::TempDir),
}

impl Home {
    fn memory() -> Home {
        Home::Memory(memory::Disk::default())
    }

    fn sled() -> Home {
        Home::Sled(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Box<dyn StateStore> {
        match self {
            Home::Memory(disk) => Box::new(disk.open()),
            Home::Sled(directory) => Box::new(sled::open(directory.path()).unwrap()),
        }
    }
}

#[rstest]
#[case(Home::memory())]
#[case(Home::sled())]
fn a_store_keeps_what_it_is_given(#[case] home: Home) {
    let mut store = home.open();
    store.put(b"b/1", b"one").unwrap();
    store.put(b"b/2", b"two").unwrap();
    store.put(b"c", &[7; 300_000]).unwrap();
    store.flush().unwrap();
    store.put(b"b/1", b"uno").unwrap();
    store.delete(b"b/2").unwrap();
    store.delete(b"never there").unwrap();
    store.put(b"a", b"").unwrap();
    store.flush().unwrap();
    drop(store);
    let mut store = home.open();
    assert_eq!(store.get(b"b/1").unwrap().unwrap(), b"uno");
    assert_eq!(store.get(b"b/2").unwrap(), None);
    assert_eq!(store.scan(b"b").unwrap(), [(b"b/1".to_vec(), b"uno".to_vec())]);
    let keys: Vec<_> = store.scan(b"").unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"a".to_vec(), b"b/1".to_vec(), b"c".to_vec()]);
    assert!(store.size().unwrap() > 0);
    store.clear().unwrap();
    store.flush().unwrap();
    drop(store);
    assert!(home.open().scan(b"").unwrap().is_empty());
}

fn schema() -> SchemaRef {
    let fields = vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, false)];
    Arc::new(Schema::new(fields))
}

type Row = (Option<i64>, String);

fn delta(rows: &[(Row, i64)]) -> Delta {
    let keys: Int64Array = rows.iter().map(|((k, _), _)| *k).collect();
    let values: StringArray = rows.iter().map(|((_, v), _)| Some(v.as_str())).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).unwrap();
    if rows.iter().all(|(_, weight)| *weight == 1) {
        return Delta::append(batch);
    }
    Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight)))
}

fn rows(delta: &Delta) -> Vec<(Row, i64)> {
    let (keys, values) = (delta.rows.column(0).as_primitive::<Int64Type>(), delta.rows.column(1).as_string::<i32>());
    let key = |row: usize| keys.is_valid(row).then(|| keys.value(row));
    (0..delta.len()).map(|row| ((key(row), values.value(row).to_string()), delta.weight(row))).collect()
}

/// The content of a table, by the rules of `StateTable`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(BTreeMap<Row, i64>);

impl Model {
    fn apply(&mut self, keyed: bool, delta: &Delta) {
        for (row, weight) in rows(delta) {
            if keyed {
                self.0.retain(|(key, _), _| *key != row.0);
            }
            if !keyed || weight > 0 {
                *self.0.entry(row).or_default() += weight;
            }
        }
        self.0.retain(|_, weight| *weight != 0);
    }

    fn random_delta(&mut self, random: &mut SmallRng, keyed: bool, size: usize) -> Delta {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(0..=size) {
            let gone = random.random_range(0..3) == 0 && !self.0.is_empty();
            let change = if gone {
                let (row, _) = self.0.iter().nth(random.random_range(0..self.0.len())).unwrap();
                (row.clone(), -1)
            } else {
                let key = Some(random.random_range(0..200)).filter(|key| *key != 7);
                ((key, format!("value {}", random.random_range(0..5))), 1)
            };
            self.apply(keyed, &delta(std::slice::from_ref(&change)));
            changes.push(change);
        }
        delta(&changes)
    }
}

fn id(relation: u32, table: u16) -> TableId {
    TableId { relation, node: 3, table }
}

fn view(relation: u32, fingerprint: &str) -> ViewMark {
    ViewMark { relation, fingerprint: fingerprint.to_string(), ..ViewMark::default() }
}

fn changes(table: TableId, key_columns: usize, deltas: Vec<Delta>) -> TableChanges {
    TableChanges { table, schema: schema(), key_columns, deltas }
}

fn load(checkpoints: &Checkpoints, table: TableId, keyed: bool) -> Model {
    let mut model = Model::default();
    checkpoints.read_table(table).unwrap().iter().for_each(|delta| model.apply(keyed, delta));
    model
}

/// A keyed table and a multiset of one view, changed at random and saved.
struct Scenario {
    random: SmallRng,
    models: [Model; 2],
    commit: u64,
}

const TABLES: [(u16, bool); 2] = [(0, true), (1, false)];

impl Scenario {
    fn new(seed: u64) -> Scenario {
        Scenario { random: SmallRng::seed_from_u64(seed), models: Default::default(), commit: 0 }
    }

    fn next(&mut self, size: usize) -> Checkpoint {
        self.commit += 1;
        let tables = TABLES.map(|(table, keyed)| {
            let model = &mut self.models[usize::from(table)];
            let deltas = (0..self.random.random_range(0..3)).map(|_| model.random_delta(&mut self.random, keyed, size)).collect();
            changes(id(1, table), usize::from(keyed), deltas)
        });
        Checkpoint { commit: self.commit, views: vec![view(1, "plan")], tables: tables.into(), ..Checkpoint::default() }
    }

    fn check(&self, checkpoints: &Checkpoints) {
        assert_eq!(checkpoints.load_manifest().unwrap().unwrap().commit, self.commit);
        for (table, keyed) in TABLES {
            assert_eq!(load(checkpoints, id(1, table), keyed), self.models[usize::from(table)], "table {table}");
        }
    }
}

#[rstest]
#[case(Home::memory(), 1, 60, 40)]
#[case(Home::memory(), 2, 60, 400)]
#[case(Home::memory(), 3, 300, 5)]
#[case(Home::sled(), 4, 20, 100)]
fn what_was_written_is_read_back(#[case] home: Home, #[case] seed: u64, #[case] rounds: usize, #[case] size: usize) {
    let mut scenario = Scenario::new(seed);
    let mut checkpoints = Checkpoints::open(home.open()).unwrap();
    assert!(checkpoints.load_manifest().unwrap().is_none());
    let mut merged = 0;
    for round in 0..rounds {
        merged += checkpoints.write(scenario.next(size)).unwrap().merged;
        if round % 7 == 0 {
            drop(checkpoints);
            checkpoints = Checkpoints::open(home.open()).unwrap();
        }
        scenario.check(&checkpoints);
    }
    assert!(merged > 0);
    drop(checkpoints);
    let stored = home.open().scan(b"").unwrap().len();
    assert!(stored < 40, "{stored} values: superseded chunks are deleted");
}

/// Fails or loses power at a chosen call.
struct Failing {
    inner: memory::MemoryStore,
    calls_left: Arc<std::sync::atomic::AtomicI64>,
}

impl Failing {
    fn count(&self) -> Result<()> {
        match self.calls_left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) {
            ..=0 => Err(Error::disk_full("no room")),
            _ => Ok(()),
        }
    }
}

impl StateStore for Failing {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.count()?;
        self.inner.put(key, value)
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.count()?;
        self.inner.delete(key)
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(key)
    }
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.scan(prefix)
    }
    fn flush(&mut self) -> Result<()> {
        self.count()?;
        self.inner.flush()
    }
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }
    fn clear(&mut self) -> Result<()> {
        self.inner.clear()
    }
}

#[rstest]
fn a_crash_anywhere_leaves_the_checkpoint_before_or_the_new_one(#[values(1, 2)] seed: u64) {
    for crash_at in 0..60 {
        let disk = memory::Disk::default();
        let calls_left = Arc::new(std::sync::atomic::AtomicI64::new(i64::MAX));
        let open = || Box::new(Failing { inner: disk.open(), calls_left: calls_left.clone() });
        let mut scenario = Scenario::new(seed);
        let mut checkpoints = Checkpoints::open(open()).unwrap();
        for _ in 0..5 {
            checkpoints.write(scenario.next(50)).unwrap();
        }
        let before = (scenario.commit, scenario.models.clone());
        calls_left.store(crash_at, std::sync::atomic::Ordering::SeqCst);
        let written = checkpoints.write(scenario.next(50));
        drop(checkpoints);
        calls_left.store(i64::MAX, std::sync::atomic::Ordering::SeqCst);
        if written.is_err() {
            (scenario.commit, scenario.models) = before;
        }
        let mut checkpoints = Checkpoints::open(open()).unwrap();
        scenario.check(&checkpoints);
        for _ in 0..5 {
            checkpoints.write(scenario.next(50)).unwrap();
            scenario.check(&checkpoints);
        }
        assert!(disk.len() < 30, "{} values", disk.len());
    }
}

#[rstest]
fn what_could_not_be_written_is_written_with_the_next(#[values(0, 1, 2, 3, 5, 8)] fails_at: i64, #[values(1, 2, 3)] seed: u64) {
    let disk = memory::Disk::default();
    let calls_left = Arc::new(std::sync::atomic::AtomicI64::new(i64::MAX));
    let mut scenario = Scenario::new(seed);
    let mut checkpoints = Checkpoints::open(Box::new(Failing { inner: disk.open(), calls_left: calls_left.clone() })).unwrap();
    for _ in 0..4 {
        checkpoints.write(scenario.next(30)).unwrap();
        for _ in 0..3 {
            calls_left.store(fails_at, std::sync::atomic::Ordering::SeqCst);
            let _ = checkpoints.write(scenario.next(30));
        }
        calls_left.store(i64::MAX, std::sync::atomic::Ordering::SeqCst);
        checkpoints.write(scenario.next(30)).unwrap();
        scenario.check(&checkpoints);
    }
    drop(checkpoints);
    scenario.check(&Checkpoints::open(Box::new(disk.open())).unwrap());
}

#[test]
fn state_of_other_views_plans_and_lives_is_dropped() {
    let mut checkpoints = Checkpoints::open(Home::memory().open()).unwrap();
    let row = |k: i64| delta(&[((Some(k), "v".to_string()), 1)]);
    let write = |checkpoints: &mut Checkpoints, views: Vec<ViewMark>, tables: Vec<TableChanges>| {
        checkpoints.write(Checkpoint { commit: 1, views, tables, ..Checkpoint::default() }).unwrap();
    };
    let keys = |checkpoints: &Checkpoints, relation| -> Vec<Option<i64>> {
        load(checkpoints, id(relation, 0), true).0.into_keys().map(|(key, _)| key).collect()
    };
    let all = |k: i64| [1, 2, 3, 4].map(|relation| changes(id(relation, 0), 1, vec![row(k)])).to_vec();
    write(&mut checkpoints, [1, 2, 3, 4].map(|relation| view(relation, "a")).to_vec(), all(10));
    let fresh = ViewMark { fresh: true, ..view(3, "a") };
    write(&mut checkpoints, vec![view(1, "a"), view(2, "b"), fresh], all(20)[..3].to_vec());
    assert_eq!(keys(&checkpoints, 1), [Some(10), Some(20)], "the same view goes on");
    assert_eq!(keys(&checkpoints, 2), [Some(20)], "another plan");
    assert_eq!(keys(&checkpoints, 3), [Some(20)], "built anew");
    assert_eq!(keys(&checkpoints, 4), [], "gone");
    let manifest = checkpoints.load_manifest().unwrap().unwrap();
    assert_eq!(manifest.tables().map(|(table, _)| table.relation).collect::<Vec<_>>(), [1, 2, 3]);
    let unnamed = Checkpoint { tables: vec![changes(id(9, 0), 1, vec![row(1)])], ..Checkpoint::default() };
    assert_eq!(checkpoints.write(unnamed).unwrap_err().state(), SqlState::InternalError);
}

#[rstest]
#[case::flipped_bit(|value: &mut Vec<u8>| { let middle = value.len() / 2; value[middle] ^= 4 })]
#[case::cut_off(|value: &mut Vec<u8>| value.truncate(value.len() / 2))]
#[case::emptied(|value: &mut Vec<u8>| value.clear())]
#[case::longer(|value: &mut Vec<u8>| value.push(0))]
fn damage_is_reported_and_reset_heals(#[case] damage: fn(&mut Vec<u8>), #[values("chunk", "manifest")] what: &str) {
    let disk = memory::Disk::default();
    let mut scenario = Scenario::new(5);
    let mut checkpoints = Checkpoints::open(Box::new(disk.open())).unwrap();
    for _ in 0..3 {
        checkpoints.write(scenario.next(100)).unwrap();
    }
    drop(checkpoints);
    disk.damage(|key, value| {
        if key.starts_with(what.as_bytes()) {
            damage(value)
        }
    });
    let mut checkpoints = Checkpoints::open(Box::new(disk.open())).unwrap();
    let error = match checkpoints.load_manifest() {
        Err(error) => error,
        Ok(_) => checkpoints.read_table(id(1, 0)).and(checkpoints.read_table(id(1, 1))).unwrap_err(),
    };
    assert_eq!(error.state(), SqlState::DataCorrupted, "{error}");
    assert_eq!(what == "manifest", checkpoints.load_manifest().is_err());
    checkpoints.reset().unwrap();
    assert!(checkpoints.load_manifest().unwrap().is_none());
    let mut scenario = Scenario::new(6);
    checkpoints.write(scenario.next(100)).unwrap();
    scenario.check(&checkpoints);
}

#[test]
fn another_format_is_refused() {
    let disk = memory::Disk::default();
    Checkpoints::open(Box::new(disk.open())).unwrap().write(Scenario::new(1).next(10)).unwrap();
    disk.damage(|key, value| {
        if key.starts_with(b"manifest") {
            value[0] = 9
        }
    });
    let checkpoints = Checkpoints::open(Box::new(disk.open())).unwrap();
    let error = checkpoints.load_manifest().unwrap_err();
    assert_eq!(error.message(), "the checkpoint has format 9, this version reads format 1");
    assert_eq!(checkpoints.read_table(id(1, 0)).unwrap_err(), error);
}

#[test]
fn rows_larger_than_a_stored_value_are_kept_in_pieces() {
    let mut random = SmallRng::seed_from_u64(1);
    let large: Vec<u8> = (0..9_000_000).map(|_| random.random()).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(BinaryArray::from_vec(vec![&large]))];
    let batch = RecordBatch::try_from_iter(["k", "v"].into_iter().zip(columns)).unwrap();
    let tables = vec![changes(id(1, 0), 1, vec![Delta::append(batch.clone())])];
    let disk = memory::Disk::default();
    let mut checkpoints = Checkpoints::open(Box::new(disk.open())).unwrap();
    checkpoints.write(Checkpoint { commit: 1, views: vec![view(1, "a")], tables, ..Checkpoint::default() }).unwrap();
    disk.damage(|_, value| assert!(value.len() <= crate::limits::STORED_VALUE_BYTES));
    let read = Checkpoints::open(Box::new(disk.open())).unwrap().read_table(id(1, 0)).unwrap();
    assert_eq!(read[0].rows, batch);
}

#[test]
fn a_writer_has_one_checkpoint_in_hand() {
    let disk = memory::Disk::default();
    let mut scenario = Scenario::new(3);
    let mut writer = Writer::start(Checkpoints::open(Box::new(disk.open())).unwrap()).unwrap();
    assert!(writer.finished().is_none() && writer.wait().is_none());
    writer.try_submit(scenario.next(50)).unwrap();
    let second = scenario.next(50);
    let second = writer.try_submit(second).unwrap_err();
    assert_eq!(writer.wait().unwrap().unwrap().commit, 1);
    writer.try_submit(second).unwrap();
    let stats = std::iter::repeat_with(|| writer.finished()).find_map(|end| end).unwrap().unwrap();
    assert_eq!(stats.commit, 2);
    writer.try_submit(scenario.next(50)).unwrap();
    scenario.check(&writer.close().unwrap());
    scenario.check(&Checkpoints::open(Box::new(disk.open())).unwrap());
}

#[test]
fn a_store_that_cannot_be_opened_is_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    std::fs::write(&path, "no directory").unwrap();
    assert!(sled::open(&path).is_err());
    std::fs::remove_file(&path).unwrap();
    let mut store = sled::open(&path).unwrap();
    store.put(b"key", b"value").unwrap();
    store.flush().unwrap();
    drop(store);
    assert_eq!(sled::recreate(&path).unwrap().get(b"key").unwrap(), None);
}

#[expect(clippy::disallowed_methods, reason = "figures measure time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[rstest]
#[case::memory(Home::memory())]
#[case::sled(Home::sled())]
#[ignore = "figures: cargo test --release --lib state::tests::figures -- --ignored --nocapture --test-threads 1"]
fn figures(#[case] home: Home) {
    let mut random = SmallRng::seed_from_u64(1);
    let mut checkpoints = Checkpoints::open(home.open()).unwrap();
    let batch = |random: &mut SmallRng, keys: std::ops::Range<i64>| {
        let key = Int64Array::from_iter_values(keys.clone());
        let numbers =
            |random: &mut SmallRng| Int64Array::from_iter_values(keys.clone().map(|_| random.random_range(0..1_000_000)));
        let columns: Vec<ArrayRef> = vec![Arc::new(key), Arc::new(numbers(random)), Arc::new(numbers(random))];
        RecordBatch::try_from_iter(["k", "count", "sum"].into_iter().zip(columns)).unwrap()
    };
    for (commit, keys) in [(1, 0_i64..2_000_000), (2, 0..100_000), (3, 500_000..600_000), (4, 0..1_500_000)] {
        let deltas: Vec<Delta> = (keys.start / 8192..keys.end / 8192 + 1)
            .map(|at| Delta::append(batch(&mut random, (at * 8192).max(keys.start)..((at + 1) * 8192).min(keys.end))))
            .collect();
        let raw: usize = deltas.iter().map(Delta::bytes).sum();
        let tables = vec![changes(id(1, 0), 1, deltas)];
        let started = now();
        let stats = checkpoints.write(Checkpoint { commit, views: vec![view(1, "a")], tables, ..Checkpoint::default() }).unwrap();
        let (ms, mb) = (started.elapsed().as_secs_f64() * 1e3, raw as f64 / 1e6);
        println!("{mb:.1} MB of changes in {ms:.0} ms: {:.0} MB/s, {stats:?}", mb / ms * 1e3);
    }
    let started = now();
    let rows: usize = checkpoints.read_table(id(1, 0)).unwrap().iter().map(Delta::len).sum();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    println!("{rows} rows read in {ms:.0} ms, {} bytes on disk", checkpoints.size().unwrap());
}
