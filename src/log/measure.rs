//! Figures of the log on this machine: `cargo test --release --lib log::measure -- --ignored --nocapture --test-threads 1`.
#![expect(clippy::disallowed_methods, reason = "figures measure time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::datadir::DataDir;
use super::*;
use crate::catalog::{Change, FIRST_RELATION, Relation};
use crate::time::SystemClock;

const PARTITIONS: u32 = 4;

/// Rows like those of an auction's bids.
fn bids(rows: usize, seed: u64) -> RecordBatch {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut numbers =
        |bound: i64| Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.random_range(0..bound)))) as ArrayRef;
    let (auction, bidder, price) = (numbers(10_000), numbers(100_000), numbers(10_000_000));
    let channel = StringArray::from_iter_values((0..rows).map(|i| ["Google", "Facebook", "Baidu", "Apple"][i % 4]));
    let time = TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|i| 1_700_000_000_000_000 + i * 100));
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("auction", auction, true),
        ("bidder", bidder, true),
        ("price", price, true),
        ("channel", Arc::new(channel), true),
        ("at", Arc::new(time), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn start(dir: &std::path::Path) -> LogHandle {
    let log = sled::open(&DataDir::open(dir).unwrap()).unwrap();
    let log = LogHandle::start(Box::new(log), Arc::new(SystemClock), Options::default()).unwrap();
    if log.end() == 0 {
        let columns = bids(0, 0).schema();
        let columns = columns.fields().iter().map(|field| {
            serde_json::json!({"name": field.name(), "data_type": field.data_type(), "sql_type": "", "nullable": true, "default": null, "generated": null})
        });
        let relation: Relation = serde_json::from_value(serde_json::json!({
            "id": FIRST_RELATION, "name": "bids", "kind": "stream", "columns": columns.collect::<Vec<_>>(), "primary_key": [],
            "watermark": null, "partition_by": [], "partitions": PARTITIONS, "durability": "commit", "options": {}, "create_sql": "",
            "query": null, "emit": "changes", "depends_on": [], "parent": null,
        }))
        .unwrap();
        log.submit(Transaction { changes: vec![Change::Create(relation)], ..Transaction::default() }).wait().unwrap();
    }
    log
}

fn insert(log: &LogHandle, partition: u32, rows: RecordBatch) -> Ack {
    let rows = Rows::Batch(rows);
    let write = Write {
        relation: FIRST_RELATION,
        partition,
        kind: Kind::Append,
        rows,
        event_times: None,
        watermark: Some(1),
        number: None,
        checked: 0,
    };
    log.submit(Transaction { writes: vec![write], ..Transaction::default() })
}

/// Seconds of CPU that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |p: usize| times[(times.len() - 1) * p / 100].as_secs_f64() * 1e3;
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}

#[test]
#[ignore = "figures"]
fn durable_rows_per_second() {
    const BATCHES: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let log = start(dir.path());
    let batches: Vec<RecordBatch> = (0..50).map(|i| bids(8192, i)).collect();
    let (begin, begin_cpu) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for partition in 0..PARTITIONS {
            let (log, batches) = (&log, &batches);
            scope.spawn(move || {
                let acks = (0..BATCHES / PARTITIONS as usize).map(|i| insert(log, partition, batches[i % batches.len()].clone()));
                acks.collect::<Vec<_>>().into_iter().for_each(|ack| assert!(ack.wait().is_ok()));
            });
        }
    });
    let (took, used) = (begin.elapsed().as_secs_f64(), cpu() - begin_cpu);
    let rows = (BATCHES * 8192) as f64;
    let commits = log.end() - 1;
    let arrow = batches[0].get_array_memory_size() as f64 / 8192.0;
    println!(
        "{:.2} M durable rows/s ({rows} rows, {commits} commits, {took:.2} s, {:.2} M rows per CPU second)",
        rows / took / 1e6,
        rows / used / 1e6
    );
    println!("{:.1} bytes per row on disk, {arrow:.1} in memory", log.reader().size().unwrap() as f64 / rows);
    log.close().unwrap();
    drop(log);
    let begin = Instant::now();
    let log = start(dir.path());
    println!("opened in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    let (begin, catalog, mut after, mut read) = (Instant::now(), log.catalog(), 0, 0);
    while after < log.end() {
        for commit in log.read(&catalog, after, log.end(), 500_000).unwrap() {
            (after, read) = (commit.id, read + commit.rows());
        }
    }
    println!("read back at {:.2} M rows/s", read as f64 / begin.elapsed().as_secs_f64() / 1e6);
    assert_eq!(read as f64, rows);
}

#[test]
#[ignore = "figures"]
fn latency_of_a_single_row() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("plain")).unwrap();
    let write =
        |i: u64| std::os::unix::fs::FileExt::write_all_at(&file, &i.to_le_bytes(), 0).and_then(|()| file.sync_data()).unwrap();
    let timed = |work: &mut dyn FnMut(u64)| {
        (0..200)
            .map(|i| {
                let begin = Instant::now();
                work(i);
                begin.elapsed()
            })
            .collect::<Vec<_>>()
    };
    write(0);
    percentiles("one fdatasync of a plain file", timed(&mut |i| write(i)));
    let (mut position, _) = position::PositionFile::open(&dir.path().join("position")).unwrap();
    percentiles("noting the position", timed(&mut |i| position.record(i).unwrap()));
    drop(position);
    let data = dir.path().join("data");
    let log = start(&data);
    percentiles("a row, one writer", timed(&mut |i| drop(insert(&log, 0, bids(1, i)).wait().unwrap())));
    for writers in [8, 64] {
        let (begin, first) = (Instant::now(), log.end());
        let times = std::thread::scope(|scope| {
            let log = &log;
            let each = |w: u64| {
                move || {
                    (0..50)
                        .map(|i| {
                            let begin = Instant::now();
                            insert(log, (w % 4) as u32, bids(1, i)).wait().unwrap();
                            begin.elapsed()
                        })
                        .collect::<Vec<_>>()
                }
            };
            let threads: Vec<_> = (0..writers).map(|w| scope.spawn(each(w))).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
        percentiles(&format!("a row, {writers} writers, {rate:.0} rows/s, {} commits", log.end() - first), times);
    }
    let begin = Instant::now();
    for _ in 0..10_000 {
        log.reader().has_room_for(1).unwrap();
    }
    println!("asking for room: {:.2} us", begin.elapsed().as_secs_f64() * 1e2);
    println!("{:.0} bytes per row on disk", log.reader().size().unwrap() as f64 / 3800.0);
}
