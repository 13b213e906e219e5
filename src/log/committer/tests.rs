//! The group commit over a store in memory, and over one that fails, forgets and counts.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::mpsc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rstest::rstest;

use super::*;
use crate::catalog::schema::PUBLIC;
use crate::catalog::{Change, Column, Durability, FIRST_RELATION, Relation};
use crate::log::memory::Disk;
use crate::log::{Expect, Kind, Rows, Write};
use crate::time::{ManualClock, NO_TIME, SystemClock};

const A: RelationId = FIRST_RELATION;
const B: RelationId = FIRST_RELATION + 1;

fn stream(id: RelationId, name: &str) -> Relation {
    let column = |name: &str, nullable| Column {
        name: name.into(),
        data_type: DataType::Int64,
        sql_type: "bigint".into(),
        nullable,
        default: None,
        generated: None,
        identity: None,
        comment: None,
    };
    let columns = vec![column("n", false), column("m", true)];
    Relation { partitions: 4, ..Relation::new(id, name, crate::catalog::Kind::Stream, columns) }
}

fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    let m: ArrayRef = Arc::new(Int64Array::new_null(n.len()));
    RecordBatch::try_from_iter_with_nullable([("n", n, true), ("m", m, true)]).unwrap()
}

fn write(relation: RelationId, partition: u32, values: impl IntoIterator<Item = i64>) -> Write {
    Write {
        relation,
        partition,
        kind: Kind::Append,
        rows: Rows::Batch(rows(values)),
        event_times: None,
        watermark: None,
        number: None,
        checked: 0,
    }
}

fn writes(writes: Vec<Write>) -> Transaction {
    Transaction { writes, ..Transaction::default() }
}

fn create(relation: Relation) -> Transaction {
    Transaction { changes: vec![Change::Create(relation)], ..Transaction::default() }
}

fn start(log: Box<dyn Log>) -> LogHandle {
    // No flush that a test does not ask for.
    let options = Options { interval: Duration::from_secs(3600), ..Options::default() };
    LogHandle::start(log, Arc::new(SystemClock), options).unwrap()
}

/// A log with streams `a` and `b`.
fn with_streams(log: Box<dyn Log>) -> LogHandle {
    let log = start(log);
    log.submit(create(stream(A, "a"))).wait().unwrap();
    log.submit(create(stream(B, "b"))).wait().unwrap();
    log
}

fn in_memory() -> LogHandle {
    with_streams(Box::new(crate::log::memory::log().unwrap()))
}

fn values(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// All values of a partition, as the store has them, with continuous offsets.
fn partition(log: &LogHandle, relation: RelationId, partition: u32) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in log.scan(&log.catalog(), relation, partition, 0, CommitId::MAX, usize::MAX).unwrap() {
        assert_eq!(batch.header.base_offset, all.len() as u64, "offsets have no gaps");
        all.extend(values(&batch.rows));
    }
    all
}

/// A store whose flushes wait for a permit, and which can be made to fail.
struct Gate {
    inner: Box<dyn Log>,
    control: Arc<Control>,
    permits: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Control {
    appends: AtomicU64,
    flushes: AtomicU64,
    /// 1: appends fail; 2: flushes fail.
    fails: AtomicU32,
}

impl Gate {
    fn new(inner: Box<dyn Log>) -> (Box<Gate>, Arc<Control>, mpsc::Sender<()>) {
        let (permit, permits) = mpsc::channel();
        let control = Arc::new(Control::default());
        (Box::new(Gate { inner, control: control.clone(), permits }), control, permit)
    }
}

impl Log for Gate {
    fn append(&mut self, commit: CommitRecord) -> Result<()> {
        self.control.appends.fetch_add(1, Ordering::SeqCst);
        if self.control.fails.load(Ordering::SeqCst) == 1 { Err(Error::io("append failed")) } else { self.inner.append(commit) }
    }
    fn next_stage_id(&self) -> u64 {
        self.inner.next_stage_id()
    }
    fn stage(&mut self, id: u64, payload: &bytes::Bytes) -> Result<()> {
        self.inner.stage(id, payload)
    }
    fn discard(&mut self, id: u64) -> Result<()> {
        self.inner.discard(id)
    }
    fn purge(&mut self, relation: RelationId, limit: usize) -> Result<bool> {
        self.inner.purge(relation, limit)
    }
    fn flush(&mut self) -> Result<()> {
        // Without a sender, flushes are free; and a test that fails must end.
        let _ = self.permits.recv_timeout(Duration::from_secs(3));
        if self.control.fails.load(Ordering::SeqCst) == 2 {
            return Err(Error::io("flush failed"));
        }
        self.inner.flush()?;
        self.control.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn unflushed(&self) -> usize {
        self.inner.unflushed()
    }
    fn reader(&self) -> Arc<dyn LogReader> {
        self.inner.reader()
    }
}

fn pending(ack: &mut Ack) -> bool {
    std::thread::sleep(Duration::from_millis(30));
    ack.0.try_recv().unwrap().is_none()
}

#[test]
fn offsets_commits_and_times_continue_after_a_restart() {
    let disk = Disk::default();
    let clock = Arc::new(ManualClock::new(1000));
    let log = LogHandle::start(Box::new(disk.open().unwrap()), clock.clone(), Options::default()).unwrap();
    log.submit(create(stream(A, "a"))).wait().unwrap();
    let first = log.submit(writes(vec![write(A, 0, 0..3), write(A, 1, 0..5), write(A, 0, 3..4)])).wait().unwrap();
    assert_eq!((first.commit, first.time, first.offsets.as_slice()), (2, 1000, &[0, 0, 3][..]));
    log.close().unwrap();
    drop(log);
    clock.set(500);
    let log = LogHandle::start(Box::new(disk.open().unwrap()), clock, Options::default()).unwrap();
    assert_eq!((log.end(), log.end_time()), (2, 1000));
    assert_eq!(log.catalog().find(PUBLIC, "a").unwrap().id, A);
    let next = log.submit(writes(vec![write(A, 0, 4..6), write(A, 3, 0..1)])).wait().unwrap();
    assert_eq!((next.commit, next.time, next.offsets.as_slice()), (3, 1000, &[4, 0][..]), "time never goes back");
    assert_eq!(log.head(A).unwrap().next_offsets, [6, 5, 0, 1]);
    assert_eq!(partition(&log, A, 0), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn nothing_is_acknowledged_or_seen_before_its_flush() {
    let (gate, control, permit) = Gate::new(Box::new(crate::log::memory::log().unwrap()));
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let log = with_streams(gate);
    let mut ack = log.submit(writes(vec![write(A, 0, 0..3)]));
    assert!(pending(&mut ack));
    assert_eq!((control.appends.load(Ordering::SeqCst), log.end()), (3, 2), "appended, and not seen");
    assert!(log.read(&log.catalog(), 2, 3, 10).unwrap().is_empty());
    // These wait meanwhile, and share the next flush.
    let waiting: Vec<Ack> = (0..50).map(|i| log.submit(writes(vec![write(A, 0, [100 + i])]))).collect();
    permit.send(()).unwrap();
    assert_eq!(ack.wait().unwrap().commit, 3);
    permit.send(()).unwrap();
    let answers: Vec<Committed> = waiting.into_iter().map(|ack| ack.wait().unwrap()).collect();
    assert_eq!(control.flushes.load(Ordering::SeqCst), 4);
    assert!(answers.iter().all(|a| a.commit == 4));
    assert_eq!(answers.iter().flat_map(|a| a.offsets.clone()).collect::<Vec<_>>(), (3..53).collect::<Vec<u64>>());
    let commit = log.read(&log.catalog(), 3, 4, 10).unwrap().remove(0);
    assert_eq!(commit.batches.len(), 1, "small writes are merged");
    assert_eq!(values(&commit.batches[0].rows), (100..150).collect::<Vec<_>>());
    drop(permit);
}

#[rstest]
#[case::interval(Durability::Interval)]
#[case::none(Durability::None)]
fn weaker_durability_is_answered_before_the_flush(#[case] durability: Durability) {
    let (gate, control, permit) = Gate::new(Box::new(crate::log::memory::log().unwrap()));
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let log = with_streams(gate);
    let answer = log.submit(Transaction { durability, ..writes(vec![write(A, 0, 0..3)]) }).wait().unwrap();
    assert_eq!((answer.commit, log.end()), (3, 3));
    assert_eq!(control.flushes.load(Ordering::SeqCst), 2);
    // A stronger one in the same log makes the earlier durable too.
    permit.send(()).unwrap();
    log.submit(writes(vec![write(A, 0, 3..4)])).wait().unwrap();
    assert_eq!(control.flushes.load(Ordering::SeqCst), 3);
    drop(permit);
}

#[test]
fn weaker_durability_is_flushed_within_the_interval() {
    let disk = Disk::default();
    let options = Options { interval: Duration::from_millis(50), ..Options::default() };
    let log = LogHandle::start(Box::new(disk.open().unwrap()), Arc::new(SystemClock), options).unwrap();
    for stream in [stream(A, "a"), stream(B, "b")] {
        log.submit(create(stream)).wait().unwrap();
    }
    log.submit(Transaction { durability: Durability::Interval, ..writes(vec![write(A, 0, 0..3)]) }).wait().unwrap();
    for _ in 0..100 {
        if disk.open().unwrap().reader().last_commit().unwrap() == 3 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not flushed after two seconds");
}

#[test]
fn what_is_acknowledged_survives_a_power_cut() {
    let disk = Disk::default();
    let log = with_streams(Box::new(disk.open().unwrap()));
    for i in 0..20 {
        let answer = log.submit(writes(vec![write(A, 0, [i]), write(B, 1, [i])])).wait().unwrap();
        // What a process would find that starts now.
        let found = disk.open().unwrap();
        assert_eq!(found.reader().last_commit().unwrap(), answer.commit);
        assert_eq!(
            found.reader().heads().unwrap().iter().map(|(_, head)| head.next_offsets.iter().sum::<u64>()).sum::<u64>(),
            2 * (i as u64 + 1)
        );
    }
}

#[rstest]
#[case::append(1)]
#[case::flush(2)]
fn an_error_of_the_store_stops_writing_and_not_reading(#[case] fails: u32) {
    let (gate, control, permit) = Gate::new(Box::new(crate::log::memory::log().unwrap()));
    drop(permit);
    let log = with_streams(gate);
    log.submit(writes(vec![write(A, 0, 0..3)])).wait().unwrap();
    control.fails.store(fails, Ordering::SeqCst);
    let acks: Vec<Ack> = (0..5).map(|_| log.submit(writes(vec![write(A, 0, 0..3)]))).collect();
    for ack in acks {
        assert_eq!(ack.wait().unwrap_err().state().code(), "58030");
    }
    control.fails.store(0, Ordering::SeqCst);
    let error = log.submit(writes(vec![write(A, 0, 0..3)])).wait().unwrap_err();
    assert!(error.message().contains("takes no more writes"), "{error}");
    assert!(log.stage(rows(0..3)).is_err());
    assert_eq!(log.end(), 3);
    assert_eq!(log.read(&log.catalog(), 0, 9, 100).unwrap().len(), 3);
    log.wait_past(3, Duration::from_secs(60));
    assert!(log.close().is_err());
}

#[test]
fn a_bad_transaction_fails_alone() {
    let (gate, _, permit) = Gate::new(Box::new(crate::log::memory::log().unwrap()));
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let log = with_streams(gate);
    let first = log.submit(writes(vec![write(A, 0, 0..1)]));
    std::thread::sleep(Duration::from_millis(20));
    // All of these wait for the flush of the first, and form one group.
    let good = log.submit(writes(vec![write(A, 0, 1..2)]));
    let dropped = log.submit(writes(vec![write(A, 1, 0..9), write(99_999, 0, 0..3)]));
    let wrong_type = {
        let column: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["x"]));
        let rows = RecordBatch::try_from_iter([("n", column.clone()), ("m", column)]).unwrap();
        log.submit(writes(vec![write(A, 1, 0..9), Write { rows: Rows::Batch(rows), ..write(A, 0, []) }]))
    };
    let null = {
        let column: ArrayRef = Arc::new(Int64Array::new_null(1));
        let rows = RecordBatch::try_from_iter([("n", column.clone()), ("m", column)]).unwrap();
        log.submit(writes(vec![Write { rows: Rows::Batch(rows), ..write(A, 0, []) }]))
    };
    let no_partition = log.submit(writes(vec![write(A, 4, 0..3)]));
    let conflict = log.submit(Transaction {
        expect: Some(Expect { unchanged_since: 3, relations: vec![A], catalog: false }),
        ..writes(vec![write(B, 0, 0..3)])
    });
    let fine = log.submit(Transaction {
        expect: Some(Expect { unchanged_since: 2, relations: vec![B], catalog: true }),
        ..writes(vec![write(A, 0, 2..3)])
    });
    drop(permit);
    first.wait().unwrap();
    assert_eq!(good.wait().unwrap().offsets, [1]);
    let code = |ack: Ack| ack.wait().unwrap_err().state().code();
    assert_eq!(code(dropped), "42P01");
    assert_eq!(code(wrong_type), "XX000");
    assert_eq!(code(null), "23502");
    assert_eq!(code(no_partition), "XX000");
    assert_eq!(code(conflict), "40001");
    assert_eq!(fine.wait().unwrap().offsets, [2]);
    assert_eq!(partition(&log, A, 0), [0, 1, 2]);
    assert_eq!(log.head(A).unwrap().next_offsets, [3, 0, 0, 0], "a failed transaction leaves no trace");
}

#[test]
fn conflicts_with_what_is_committed() {
    let log = in_memory();
    let seen = log.submit(writes(vec![write(A, 0, 0..1)])).wait().unwrap().commit;
    let expecting = |unchanged_since, catalog| Transaction {
        expect: Some(Expect { unchanged_since, relations: vec![A], catalog }),
        ..writes(vec![write(A, 0, 0..1)])
    };
    assert_eq!(log.submit(expecting(seen - 1, false)).wait().unwrap_err().state().code(), "40001");
    let next = log.submit(expecting(seen, true)).wait().unwrap().commit;
    log.submit(create(stream(B + 1, "c"))).wait().unwrap();
    assert_eq!(log.submit(expecting(next, true)).wait().unwrap_err().state().code(), "40001");
    log.submit(expecting(next, false)).wait().unwrap();
}

#[test]
fn names_are_unique_and_changes_visible_at_once() {
    let log = in_memory();
    let code = |transaction| log.submit(transaction).wait().unwrap_err().state().code();
    assert_eq!(code(create(stream(B + 1, "a"))), "42P07");
    assert_eq!(code(create(stream(A, "z"))), "40001", "two sessions took the same id");
    let drop_a = || Transaction { changes: vec![Change::Drop(A)], ..Transaction::default() };
    log.submit(drop_a()).wait().unwrap();
    assert_eq!(code(drop_a()), "42P01");
    assert_eq!(code(writes(vec![write(A, 0, 0..1)])), "42P01");
    assert!(log.catalog().find(PUBLIC, "a").is_none() && log.head(A).is_none());
    // A stream and its first rows in one commit.
    let with_rows = Transaction { writes: vec![write(B + 1, 0, 0..3)], ..create(stream(B + 1, "a")) };
    let commit = log.submit(with_rows).wait().unwrap().commit;
    let read = log.read(&log.catalog(), commit - 1, commit, 10).unwrap();
    assert_eq!((read[0].changes.len(), read[0].rows()), (1, 3));
}

#[test]
fn a_producer_that_repeats_itself_writes_once() {
    let disk = Disk::default();
    let mut log = with_streams(Box::new(disk.open().unwrap()));
    let send = |log: &LogHandle, sequence| {
        let transaction = Transaction { producer: Some((5, sequence)), ..writes(vec![write(A, 0, [sequence as i64])]) };
        log.submit(transaction).wait().unwrap()
    };
    for sequence in [1, 2, 2, 1, 3] {
        let answer = send(&log, sequence);
        assert_eq!(answer.duplicate, answer.offsets.is_empty());
    }
    log.close().unwrap();
    drop(log);
    log = start(Box::new(disk.open().unwrap()));
    assert!(send(&log, 3).duplicate);
    assert!(!send(&log, 4).duplicate);
    assert_eq!(partition(&log, A, 0), [1, 2, 3, 4]);
}

#[test]
fn watermarks_only_rise_and_headers_carry_the_one_before() {
    let log = in_memory();
    let send = |time| {
        log.submit(writes(vec![Write { watermark: Some(time), event_times: Some((time, time)), ..write(A, 0, [time]) }]))
            .wait()
            .unwrap()
    };
    for time in [10, 30, 20, 40] {
        send(time);
    }
    log.submit(Transaction { marks: vec![(A, 35)], ..Transaction::default() }).wait().unwrap();
    let mark = log.submit(Transaction { marks: vec![(A, 50)], ..Transaction::default() }).wait().unwrap();
    assert_eq!(log.head(A).unwrap().watermark, Some(50));
    let commits = log.read(&log.catalog(), 2, mark.commit, usize::MAX).unwrap();
    let before: Vec<Micros> = commits.iter().flat_map(|c| &c.batches).map(|b| b.header.watermark).collect();
    assert_eq!(before, [NO_TIME, 10, 30, 30]);
    let after: Vec<_> = commits.iter().map(|c| c.watermarks.clone()).collect();
    assert_eq!(
        after,
        [vec![(A, 10)], vec![(A, 30)], vec![], vec![(A, 40)], vec![(A, 50)]],
        "a mark that moves nothing is no commit"
    );
}

#[test]
fn an_empty_transaction_is_answered_at_the_end() {
    let log = in_memory();
    let end = log.end();
    assert_eq!(log.submit(Transaction::default()).wait().unwrap().commit, end);
    let answer = log.submit(writes(vec![write(A, 0, []), write(A, 1, [])])).wait().unwrap();
    assert_eq!((answer.commit, answer.offsets.as_slice()), (end, &[0, 0][..]));
    assert_eq!(log.end(), end);
}

/// Upserts and deletes of one partition keep their order; what is merged is of one kind.
#[test]
fn merging_keeps_the_order_of_a_partition() {
    let (gate, _, permit) = Gate::new(Box::new(crate::log::memory::log().unwrap()));
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let log = with_streams(gate);
    let first = log.submit(writes(vec![write(A, 3, [0])]));
    std::thread::sleep(Duration::from_millis(20));
    let mut random = SmallRng::seed_from_u64(3);
    let (mut acks, mut expected) = (Vec::new(), vec![Vec::new(); 3]);
    for n in 0..200 {
        let (partition, kind) = (random.random_range(0..3u32), if random.random_bool(0.3) { Kind::Delete } else { Kind::Upsert });
        // Now and then one that is encoded by the submitter.
        let count = if random.random_bool(0.05) { 3000 } else { 2 };
        acks.push(log.submit(writes(vec![Write { kind, ..write(A, partition, vec![n; count]) }])));
        expected[partition as usize].extend(vec![(n, kind); count]);
    }
    drop(permit);
    first.wait().unwrap();
    let offsets: Vec<u64> = acks.into_iter().map(|ack| ack.wait().unwrap().offsets[0]).collect();
    assert_eq!(offsets.len(), 200);
    let commits = log.read(&log.catalog(), 3, log.end(), usize::MAX).unwrap();
    assert!(commits.iter().map(|c| c.batches.len()).sum::<usize>() < 150);
    for (partition, expected) in expected.iter().enumerate() {
        let of = commits.iter().flat_map(|c| &c.batches).filter(|b| b.header.partition as usize == partition);
        let found: Vec<(i64, Kind)> = of.flat_map(|b| values(&b.rows).into_iter().map(|n| (n, b.header.kind))).collect();
        assert_eq!(&found, expected);
    }
}

/// A commit whose rows were too many to be kept is missing in the tail, between others that are there.
#[test]
fn a_tail_with_holes_is_filled_from_the_store() {
    let log = in_memory();
    // Nothing staged from now on finds room in memory.
    log.0.shared.kept.fetch_add(limits::TAIL_BYTES, Ordering::Relaxed);
    for round in 0..4 {
        log.submit(writes(vec![write(A, 0, [round])])).wait().unwrap();
        let staged = log.stage(rows([round, round])).unwrap();
        log.submit(writes(vec![Write { rows: Rows::Staged(staged), ..write(B, 0, []) }])).wait().unwrap();
    }
    let commits = log.read(&log.catalog(), 0, CommitId::MAX, usize::MAX).unwrap();
    assert_eq!(commits.iter().map(|c| c.id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(commits.iter().map(|c| c.rows()).sum::<usize>(), 12);
}

/// The tail and the store give the same commits, batch for batch.
#[test]
fn the_tail_and_the_store_agree() {
    let disk = Disk::default();
    let log = with_streams(Box::new(disk.open().unwrap()));
    let mut random = SmallRng::seed_from_u64(4);
    for i in 0..60 {
        let mut list = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let count = if random.random_bool(0.2) { 20_000 } else { random.random_range(1..50) };
            list.push(Write {
                watermark: Some(i),
                ..write(if random.random() { A } else { B }, random.random_range(0..4), 0..count)
            });
        }
        log.submit(writes(list)).wait().unwrap();
    }
    let catalog = log.catalog();
    let tail = log.read(&catalog, 0, CommitId::MAX, usize::MAX).unwrap();
    log.close().unwrap();
    let cold = start(Box::new(disk.open().unwrap()));
    let store = cold.read(&catalog, 0, CommitId::MAX, usize::MAX).unwrap();
    assert_eq!(tail.len(), 62);
    for (a, b) in tail.iter().zip(&store) {
        assert_eq!((a.id, a.time, &a.watermarks, &a.changes), (b.id, b.time, &b.watermarks, &b.changes));
        assert_eq!(a.batches.len(), b.batches.len());
        for (a, b) in a.batches.iter().zip(&b.batches) {
            assert_eq!((a.header, &a.rows), (b.header, &b.rows));
        }
    }
    assert_eq!(tail.len(), store.len());
    // A bound on rows ends a read between commits.
    let some = cold.read(&catalog, 2, CommitId::MAX, 1).unwrap();
    assert_eq!(some.len(), 1);
    // A catalog without `b` leaves its batches out, and keeps the commits.
    let mut without = Catalog::clone(&catalog);
    without.apply(&Change::Drop(B));
    for log in [&cold, &log] {
        let read = log.read(&without, 0, CommitId::MAX, usize::MAX).unwrap();
        assert_eq!(read.len(), 62);
        assert!(read.iter().flat_map(|c| &c.batches).all(|b| b.header.relation == A));
    }
}

#[test]
fn staged_rows_are_committed_once_or_discarded() {
    use crate::log::store::Space;
    let disk = Disk::default();
    let log = with_streams(Box::new(disk.open().unwrap()));
    let stage = |values: std::ops::Range<i64>| log.stage(rows(values)).unwrap();
    let staged = |staged| Write { rows: Rows::Staged(staged), ..write(A, 0, []) };
    let (one, two, unused) = (stage(0..20_000), stage(20_000..30_000), stage(0..100));
    assert_eq!(one.rows(), 20_000);
    let again = staged(one.clone());
    let answer = log.submit(writes(vec![staged(one), write(A, 0, [7]), staged(two)])).wait().unwrap();
    assert_eq!(answer.offsets, [0, 20_000, 20_001]);
    assert_eq!(log.submit(writes(vec![again])).wait().unwrap_err().state().code(), "XX000");
    let expected: Vec<i64> = (0..20_000).chain([7]).chain(20_000..30_000).collect();
    assert_eq!(partition(&log, A, 0), expected);
    // Of a transaction that fails, and of one that never came.
    let lost = stage(0..5000);
    assert!(log.submit(writes(vec![staged(lost), write(99_999, 0, [1])])).wait().is_err());
    log.discard(vec![unused]);
    log.submit(writes(vec![write(A, 0, [1])])).wait().unwrap();
    log.close().unwrap();
    let parts = disk.keys(Space::Staged).len();
    let commits = disk.open().unwrap().reader().commits(3, 1).unwrap();
    let named = commits[0].batches.iter().filter(|b| matches!(b.place, Place::Staged(_))).count();
    assert_eq!(parts, named, "only what a commit names is kept");
}

#[test]
fn a_transaction_larger_than_a_group_is_one_commit() {
    let log = in_memory();
    let mut random = SmallRng::seed_from_u64(5);
    let list: Vec<Write> =
        (0..4).map(|p| write(A, p, (0..800_000).map(|_| random.random::<i64>()).collect::<Vec<_>>())).collect();
    let answer = log.submit(writes(list)).wait().unwrap();
    assert_eq!(answer.commit, 3);
    assert_eq!(log.head(A).unwrap().next_offsets, [800_000; 4]);
    let read = log.read(&log.catalog(), 2, 3, 1).unwrap();
    assert_eq!(read[0].rows(), 3_200_000);
}

#[test]
fn damage_is_reported_per_relation() {
    use crate::log::store::Space;
    let disk = Disk::default();
    let log = with_streams(Box::new(disk.open().unwrap()));
    let commit = log.submit(writes(vec![write(A, 0, 0..3), write(B, 2, 0..3)])).wait().unwrap().commit;
    log.close().unwrap();
    // The payload of `b` is at the end.
    assert!(disk.damage(Space::Commits, &commit.to_be_bytes(), |value| {
        let at = value.len() - 60;
        value[at] ^= 4;
    }));
    let log = start(Box::new(disk.open().unwrap()));
    let read = log.read(&log.catalog(), commit - 1, commit, 10).unwrap();
    assert_eq!(read[0].batches.len(), 1);
    let (relation, error) = &read[0].damaged[0];
    assert_eq!((*relation, error.state().code(), error.context()), (B, "XX001", Some("stream \"b\"")));
    assert!(error.message().contains("partition 2, offsets 0 to 2"), "{error}");
    assert!(log.scan(&log.catalog(), B, 2, 0, commit, 9).is_err());
    assert_eq!(partition(&log, A, 0), [0, 1, 2]);
}

#[test]
fn a_dropped_stream_is_purged_even_after_a_restart() {
    use crate::log::store::Space;
    let disk = Disk::default();
    let log = with_streams(Box::new(disk.open().unwrap()));
    for _ in 0..100 {
        log.submit(writes(vec![write(A, 0, 0..20_000), write(B, 0, 0..1)])).wait().unwrap();
    }
    let before = disk.keys(Space::Payloads).len();
    log.submit(Transaction { changes: vec![Change::Drop(A)], ..Transaction::default() }).wait().unwrap();
    log.close().unwrap();
    drop(log);
    let log = start(Box::new(disk.open().unwrap()));
    for _ in 0..200 {
        let relations: Vec<RelationId> = log.reader().heads().unwrap().iter().map(|(relation, _)| *relation).collect();
        if relations == [B] {
            log.submit(writes(vec![write(B, 0, [1])])).wait().unwrap();
            log.close().unwrap();
            assert!(before >= 100 && disk.keys(Space::Payloads).is_empty());
            assert_eq!(log.read(&log.catalog(), 0, CommitId::MAX, usize::MAX).unwrap().len(), 104);
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not purged after two seconds");
}

#[test]
fn waiting_ends_by_a_commit_by_waking_and_by_closing() {
    let log = in_memory();
    let end = log.end();
    log.wait_past(end - 1, Duration::from_secs(60));
    log.wait_past(end, Duration::from_millis(5));
    log.wake();
    log.wait_past(end, Duration::from_secs(60));
    std::thread::scope(|scope| {
        scope.spawn(|| log.wait_past(end, Duration::from_secs(60)));
        log.submit(writes(vec![write(A, 0, [1])])).wait().unwrap();
    });
    std::thread::scope(|scope| {
        scope.spawn(|| log.wait_past(end + 1, Duration::from_secs(60)));
        log.close().unwrap();
    });
    assert_eq!(log.submit(writes(vec![write(A, 0, [1])])).wait().unwrap_err().state().code(), "57P01");
}

/// Who follows a log that takes no more writes must not go round and round.
#[test]
fn a_log_that_has_stopped_wakes_once() {
    let log = in_memory();
    let end = log.end();
    assert!(!log.has_stopped());
    log.close().unwrap();
    assert!(log.has_stopped());
    log.wait_past(end, Duration::from_secs(60));
    #[expect(clippy::disallowed_methods, reason = "that it waits is what is tested")]
    let start = std::time::Instant::now();
    log.wait_past(end, Duration::from_millis(50));
    assert!(start.elapsed() >= Duration::from_millis(50));
}

/// Writers on several threads: each finds its rows where the answer said, whole commits are seen, nothing is lost or doubled.
#[test]
fn many_writers() {
    let log = in_memory();
    const WRITERS: i64 = 8;
    const EACH: i64 = 150;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let log = log.clone();
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(writer as u64);
                for i in 0..EACH {
                    let value = writer * EACH + i;
                    let partition = random.random_range(0..4);
                    let answer =
                        log.submit(writes(vec![write(A, partition, [value]), write(B, partition, [value])])).wait().unwrap();
                    assert!(log.end() >= answer.commit);
                    if i % 10 == 0 {
                        for (relation, offset) in [(A, answer.offsets[0]), (B, answer.offsets[1])] {
                            let found = log.scan(&log.catalog(), relation, partition, offset, answer.commit, 1).unwrap();
                            let at = (offset - found[0].header.base_offset) as usize;
                            assert_eq!(values(&found[0].rows)[at], value);
                        }
                    }
                }
            });
        }
        let log = log.clone();
        scope.spawn(move || {
            let (mut after, mut seen) = (2, 0);
            while seen < WRITERS * EACH {
                log.wait_past(after, Duration::from_secs(10));
                for commit in log.read(&log.catalog(), after, log.end(), 1000).unwrap() {
                    assert_eq!(commit.id, after + 1);
                    let of = |relation| {
                        let batches = commit.batches.iter().filter(|b| b.header.relation == relation);
                        let mut all: Vec<i64> = batches.flat_map(|b| values(&b.rows)).collect();
                        all.sort_unstable();
                        all
                    };
                    assert_eq!(of(A), of(B), "a transaction over two streams is in one commit");
                    (after, seen) = (commit.id, seen + of(A).len() as i64);
                }
            }
        });
    });
    for relation in [A, B] {
        let mut all: Vec<i64> = (0..4).flat_map(|p| partition(&log, relation, p)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..WRITERS * EACH).collect::<Vec<_>>());
    }
}
