//! Dumps and checks of directories that are whole, and of some that are not.

use arrow::array::{ArrayRef, Int64Array, StringArray};

use super::*;
use crate::catalog::Change;
use crate::log::store::Space;
use crate::log::{self, LogHandle, Options, Rows, Transaction, Write as LogWrite};
use crate::time::ManualClock;

fn stream(id: RelationId, name: &str) -> Relation {
    serde_json::from_value(serde_json::json!({
        "id": id, "name": name, "kind": "stream", "columns": [
            {"name": "n", "data_type": "Int64", "sql_type": "bigint", "nullable": false, "default": null, "generated": null},
            {"name": "s", "data_type": "Utf8", "sql_type": "text", "nullable": true, "default": null, "generated": null},
        ],
        "primary_key": [], "watermark": null, "partition_by": [], "partitions": 2, "durability": "commit", "options": {},
        "create_sql": "", "query": null, "emit": "changes", "depends_on": [], "parent": null,
    }))
    .unwrap()
}

/// Noise, so that sled's compression leaves a page for it.
fn noise(rows: usize, seed: u64) -> RecordBatch {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.random::<i64>())));
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..rows).map(|i| (i % 2 == 0).then_some("even"))));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, false), ("s", texts, true)]).unwrap()
}

fn write(dir: &Path, transactions: Vec<Vec<(RelationId, u32, RecordBatch)>>) {
    let log = log::sled::open(&DataDir::open(dir).unwrap()).unwrap();
    let log = LogHandle::start(Box::new(log), Arc::new(ManualClock::new(1_700_000_000_000_000)), Options::default()).unwrap();
    let changes = vec![Change::Create(stream(16384, "orders")), Change::Create(stream(16385, "clicks"))];
    log.submit(Transaction { changes, ..Transaction::default() }).wait().unwrap();
    for writes in transactions {
        let writes = writes.into_iter().map(|(relation, partition, rows)| {
            let (kind, rows, event_times) = (Kind::Append, Rows::Batch(rows), Some((0, 1_000_000)));
            LogWrite {
                relation,
                partition,
                kind,
                rows,
                event_times,
                watermark: (relation == 16384).then_some(5),
                number: None,
                checked: 0,
            }
        });
        log.submit(Transaction { writes: writes.collect(), ..Transaction::default() }).wait().unwrap();
    }
    log.close().unwrap();
}

fn checked(dir: &Path) -> (bool, String) {
    let mut out = Vec::new();
    let intact = check(dir, &mut out).unwrap();
    (intact, String::from_utf8(out).unwrap())
}

fn damage(dir: &Path, space: Space, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let db: ::sled::Db<4> = ::sled::Config::new().path(dir.join("log")).open().unwrap();
    let tree = db.open_tree(space.name()).unwrap();
    let mut value = tree.get(key).unwrap().unwrap().to_vec();
    change(&mut value);
    tree.insert(key, value).unwrap();
}

#[test]
fn a_dump_shows_everything_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let rows = noise(3, 0);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let rows = RecordBatch::try_new(rows.schema(), vec![numbers, rows.column(1).clone()]).unwrap();
    write(dir.path(), vec![vec![(16384, 1, rows.clone())], vec![(16385, 0, rows.slice(2, 1)), (16384, 1, rows.slice(0, 1))]]);
    let mut out = Vec::new();
    dump(dir.path(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let expected = "\
commit 1 at 2023-11-14 22:13:20.000000
  create stream orders
  create stream clicks
commit 2 at 2023-11-14 22:13:20.000000
  append stream orders partition 1 offsets 0 to 2, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    1 | even
    2 | NULL
    3 | even
  watermark stream orders 1970-01-01 00:00:00.000005
commit 3 at 2023-11-14 22:13:20.000000
  append stream clicks partition 0 offsets 0 to 0, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    3 | even
  append stream orders partition 1 offsets 3 to 3, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    1 | even
catalog:
  stream orders (16384)
    n bigint not null
    s text
    next offsets [0, 4], watermark 1970-01-01 00:00:00.000005, last commit 3
  stream clicks (16385)
    n bigint not null
    s text
    next offsets [1, 0], watermark none, last commit 3
";
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.starts_with("log: 3 commits, "), "{first}");
    assert_eq!(rest, expected);
}

#[test]
fn damage_is_reported_by_stream_partition_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), (0..4).map(|i| vec![(16384, 1, noise(10, i)), (16385, 0, noise(1, i))]).collect());
    assert_eq!(
        checked(dir.path()),
        (true, "checked 5 commits, 8 batches, 44 rows, 0 state tables: no damage found\n".to_string())
    );
    // The last payload of commit 3 is that of `clicks`.
    damage(dir.path(), Space::Commits, &3u64.to_be_bytes(), |value| {
        let at = value.len() - 100;
        value[at] ^= 1;
    });
    let (intact, text) = checked(dir.path());
    assert!(!intact && text.contains("damaged: stream clicks, partition 0, offsets 1 to 1: "), "{text}");
    assert!(text.contains("8 batches, 43 rows, 0 state tables: 1 problem found"), "{text}");
}

#[test]
fn pages_that_the_store_cannot_read_do_not_end_the_check() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), (0..12).map(|i| vec![(16384, (i % 2) as u32, noise(20_000, i)), (16385, 0, noise(5, i))]).collect());
    assert!(checked(dir.path()).0);
    let slabs = std::fs::read_dir(dir.path().join("log").join("slabs")).unwrap().map(|entry| entry.unwrap().path());
    let largest = slabs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let (intact, text) = checked(dir.path());
    assert!(!intact && text.contains("damaged: stream orders, partition"), "{text}");
    assert!(text.contains("checked 13 commits"), "{text}");
    assert!(!text.contains("clicks"), "{text}");
}

#[test]
fn a_missing_commit_is_seen_in_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), (0..300).map(|i| vec![(16384, 1, noise(10, i))]).collect());
    damage(dir.path(), Space::Commits, &50u64.to_be_bytes(), |value| value[20] ^= 1);
    let (intact, text) = checked(dir.path());
    assert!(!intact && text.contains("damaged: commit 50: stored commit 50 is damaged"), "{text}");
    assert!(text.contains("damaged: stream orders, partition 1: offsets 480 to 489 are missing"), "{text}");
}

#[test]
fn looking_makes_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    for missing in [dir.path().to_path_buf(), dir.path().join("none")] {
        assert!(dump(&missing, &mut Vec::new()).unwrap_err().message().contains("is no data directory"));
        assert!(check(&missing, &mut Vec::new()).is_err());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The state of a view with a checkpoint: shown, checked, and its damage told by view and operator.
#[tokio::test]
async fn the_newest_checkpoint_is_shown_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (database, _) = crate::database::Database::open(crate::database::Config::at(dir.path())).unwrap();
    let mut session = database.session("me");
    for sql in [
        "CREATE STREAM s (k TEXT, v BIGINT)",
        "CREATE MATERIALIZED VIEW totals AS SELECT k, SUM(v) AS total FROM s GROUP BY k",
        "INSERT INTO s VALUES ('a', 1), ('b', 2), ('a', 40)",
    ] {
        session.run(sql).await.unwrap();
    }
    drop(session);
    database.close().unwrap();
    drop(database);
    let mut out = Vec::new();
    dump(dir.path(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let state = &text[text.find("state: checkpoint of commit 3").unwrap()..];
    assert!(state.contains("materialized view totals, operator ") && state.contains("    +1    a | 41"), "{state}");
    let (intact, text) = checked(dir.path());
    assert!(intact && text.contains(" state tables: no damage found"), "{text}");

    let db: ::sled::Db<4> = ::sled::Config::new().path(dir.path().join("state")).open().unwrap();
    let tree = db.open_tree("state").unwrap();
    let (key, value) = tree.scan_prefix(b"chunk").next().unwrap().unwrap();
    let mut value = value.to_vec();
    let at = value.len() / 2;
    value[at] ^= 1;
    tree.insert(key, value).unwrap();
    drop((tree, db));
    let (intact, text) = checked(dir.path());
    assert!(!intact && text.contains("damaged: state of materialized view totals, operator "), "{text}");
}
