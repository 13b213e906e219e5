//! What every store of a log must do: one suite, run over each.

use rstest::rstest;

use super::datadir::DataDir;
use super::store::Space;
use super::*;
use crate::time::NO_TIME;

/// Where logs are kept between two lives.
enum Medium {
    Memory(memory::Disk),
    Sled(tempfile::TempDir),
}

fn in_memory() -> Medium {
    Medium::Memory(memory::Disk::default())
}

fn in_sled() -> Medium {
    Medium::Sled(tempfile::tempdir().unwrap())
}

impl Medium {
    fn open(&self) -> Result<Box<dyn Log>> {
        match self {
            Medium::Memory(disk) => Ok(Box::new(disk.open()?)),
            Medium::Sled(dir) => Ok(Box::new(sled::open(&DataDir::open(dir.path())?)?)),
        }
    }

    /// Change one byte of the value under a key, `at` counted from the end. The log must be closed.
    fn flip(&self, space: Space, key: &[u8], at_end: usize) {
        let flip = |value: &mut Vec<u8>| {
            let at = value.len() - 1 - at_end;
            value[at] ^= 1;
        };
        match self {
            Medium::Memory(disk) => assert!(disk.damage(space, key, flip)),
            Medium::Sled(dir) => {
                let db: ::sled::Db<4> = ::sled::Config::new().path(dir.path().join("log")).open().unwrap();
                let tree = db.open_tree(space.name()).unwrap();
                let mut value = tree.get(key).unwrap().unwrap().to_vec();
                flip(&mut value);
                tree.insert(key, value).unwrap();
                tree.flush().unwrap();
            }
        }
    }
}

fn batch(relation: RelationId, partition: u32, base_offset: u64, rows: u32, payload: &[u8]) -> StoredBatch {
    let header = Header {
        relation,
        partition,
        base_offset,
        rows,
        columns: 1,
        kind: Kind::Append,
        commit: 0,
        commit_time: 0,
        watermark: NO_TIME,
        event_times: None,
        producer: None,
    };
    let place = Place::Inline(Bytes::copy_from_slice(payload));
    StoredBatch { header, len: payload.len() as u32, crc: crc32fast::hash(payload), place }
}

fn commit(id: CommitId, mut batches: Vec<StoredBatch>) -> CommitRecord {
    for batch in &mut batches {
        batch.header.commit = id;
    }
    CommitRecord {
        id,
        time: id as Micros * 10,
        batches,
        watermarks: vec![(7, id as Micros)],
        producers: vec![(1, id)],
        changes: vec![],
    }
}

fn large(fill: u8) -> Vec<u8> {
    (0..100_000u32).map(|i| (i % 251) as u8 ^ fill).collect()
}

fn offsets(found: Vec<Result<StoredBatch>>) -> Vec<u64> {
    found.into_iter().map(|b| b.unwrap().header.base_offset).collect()
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn an_empty_log(#[case] medium: Medium) {
    for _ in 0..2 {
        let mut log = medium.open().unwrap();
        let reader = log.reader();
        assert_eq!(reader.last_commit().unwrap(), 0);
        assert!(reader.commits(1, 10).unwrap().is_empty());
        assert!(reader.batches(7, 0, 0, 10).unwrap().is_empty());
        assert!(
            reader.heads().unwrap().is_empty() && reader.producers().unwrap().is_empty() && reader.changes().unwrap().is_empty()
        );
        log.flush().unwrap();
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn commits_are_read_back_before_and_after_a_restart(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    log.append(commit(1, vec![batch(7, 0, 0, 10, b"small"), batch(7, 1, 0, 5, &large(1)), batch(8, 0, 0, 1, b"")])).unwrap();
    log.append(commit(2, vec![batch(7, 0, 10, 3, &large(2))])).unwrap();
    assert!(log.unflushed() > 200_000);
    log.flush().unwrap();
    assert_eq!(log.unflushed(), 0);
    for life in 0..2 {
        let reader = log.reader();
        assert_eq!(reader.last_commit().unwrap(), 2);
        let commits = reader.commits(1, 10).unwrap();
        assert_eq!(commits.iter().map(|c| (c.id, c.time, c.batches.len())).collect::<Vec<_>>(), [(1, 10, 3), (2, 20, 1)]);
        assert_eq!(reader.commits(1, 1).unwrap().len(), 1);
        assert_eq!(reader.payload(&commits[0].batches[0]).unwrap(), &b"small"[..]);
        assert_eq!(reader.payload(&commits[0].batches[1]).unwrap(), large(1));
        assert_eq!(reader.payload(&commits[0].batches[2]).unwrap(), &b""[..]);
        assert_eq!(reader.payload(&commits[1].batches[0]).unwrap(), large(2));
        let head = |next_offsets: &[u64], watermark, commit| Head { next_offsets: next_offsets.to_vec(), watermark, commit };
        assert_eq!(reader.heads().unwrap(), [(7, head(&[13, 5], Some(2), 2)), (8, head(&[1], None, 1))], "life {life}");
        assert_eq!(reader.producers().unwrap(), [(1, 2)]);
        assert!(reader.size().unwrap() > 0);
        drop((reader, log));
        log = medium.open().unwrap();
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn partitions_are_scanned_from_any_offset(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    // More than the index lags, so that part of it is on disk and part in memory.
    for id in 1..=300u64 {
        let base = (id - 1) * 10;
        log.append(commit(id, vec![batch(7, 0, base, 10, b"a"), batch(7, 1, base, 10, b"b"), batch(9, 0, base, 10, b"c")]))
            .unwrap();
    }
    log.flush().unwrap();
    for _ in 0..2 {
        let reader = log.reader();
        assert_eq!(offsets(reader.batches(7, 1, 0, 3).unwrap()), [0, 10, 20]);
        assert_eq!(offsets(reader.batches(7, 1, 29, 2).unwrap()), [20, 30]);
        assert_eq!(offsets(reader.batches(7, 1, 30, 1).unwrap()), [30]);
        assert_eq!(offsets(reader.batches(7, 1, 2995, 9).unwrap()), [2990]);
        assert_eq!(offsets(reader.batches(7, 1, 3000, 9).unwrap()), [0u64; 0]);
        assert_eq!(offsets(reader.batches(7, 2, 0, 9).unwrap()), [0u64; 0]);
        assert_eq!(offsets(reader.batches(8, 0, 5, 9).unwrap()), [0u64; 0]);
        let all = offsets(reader.batches(7, 0, 0, usize::MAX).unwrap());
        assert_eq!(all, (0..300).map(|i| i * 10).collect::<Vec<_>>());
        for from in 0..=3000 {
            let found = offsets(reader.batches(7, 0, from, 1).unwrap());
            assert_eq!(found, if from < 3000 { vec![from / 10 * 10] } else { vec![] });
        }
        drop((reader, log));
        log = medium.open().unwrap();
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn staged_payloads_are_seen_by_their_commit_only(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    let first = log.next_stage_id();
    for id in first..first + 3 {
        log.stage(id, &Bytes::from(large(id as u8))).unwrap();
    }
    log.discard(first + 1).unwrap();
    log.flush().unwrap();
    assert_eq!(log.reader().last_commit().unwrap(), 0);
    let mut staged = batch(7, 0, 0, 4, &large(first as u8));
    staged.place = Place::Staged(first);
    log.append(commit(1, vec![staged])).unwrap();
    log.flush().unwrap();
    drop(log);
    if let Medium::Memory(disk) = &medium {
        assert_eq!(disk.keys(Space::Staged).len(), 2, "the third is left over");
    }
    let mut log = medium.open().unwrap();
    assert!(log.next_stage_id() > first + 2, "ids are not used again");
    let found = log.reader().commits(1, 1).unwrap();
    assert_eq!(log.reader().payload(&found[0].batches[0]).unwrap(), large(first as u8));
    let mut lost = found[0].batches[0].clone();
    lost.place = Place::Staged(first + 2);
    assert_eq!(log.reader().payload(&lost).unwrap_err().state().code(), "XX001");
    log.flush().unwrap();
    drop(log);
    if let Medium::Memory(disk) = &medium {
        assert_eq!(disk.keys(Space::Staged).len(), 1);
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn a_dropped_relation_is_purged_in_portions(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    for id in 1..=20u64 {
        let mut staged = batch(7, 0, (id - 1) * 2 + 1, 1, &large(id as u8));
        staged.place = Place::Staged(log.next_stage_id());
        let Place::Staged(stage_id) = staged.place else { unreachable!() };
        log.stage(stage_id, &Bytes::from(large(id as u8))).unwrap();
        let batches = vec![
            batch(7, 0, (id - 1) * 2, 1, b"inline"),
            staged,
            batch(7, 1, id - 1, 1, &large(3)),
            batch(8, 0, id - 1, 1, b"other"),
        ];
        log.append(commit(id, batches)).unwrap();
    }
    let mut calls = 1;
    while !log.purge(7, 8).unwrap() {
        calls += 1;
    }
    assert!(calls >= 7, "{calls} portions");
    log.flush().unwrap();
    for _ in 0..2 {
        let reader = log.reader();
        assert!(reader.batches(7, 0, 0, 9).unwrap().is_empty() && reader.batches(7, 1, 0, 9).unwrap().is_empty());
        assert_eq!(reader.batches(8, 0, 0, 99).unwrap().len(), 20);
        assert_eq!(reader.heads().unwrap().iter().map(|(relation, _)| *relation).collect::<Vec<_>>(), [8]);
        let commits = reader.commits(1, 99).unwrap();
        assert_eq!(commits.len(), 20);
        for batch in commits.iter().flat_map(|c| &c.batches) {
            assert_eq!(reader.payload(batch).is_ok(), batch.header.relation == 8);
        }
        drop((reader, log));
        log = medium.open().unwrap();
    }
    drop(log);
    if let Medium::Memory(disk) = &medium {
        assert!(disk.keys(Space::Payloads).is_empty() && disk.keys(Space::Staged).is_empty());
        assert_eq!(disk.keys(Space::Index).len(), 20);
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn catalog_changes_are_kept_in_order(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    for id in 1..=3 {
        log.append(CommitRecord { changes: vec![Change::Drop(id as u32), Change::Drop(100 + id as u32)], ..commit(id, vec![]) })
            .unwrap();
    }
    log.flush().unwrap();
    drop(log);
    let log = medium.open().unwrap();
    let changes = log.reader().changes().unwrap();
    let expected = [(1, 1), (1, 101), (2, 2), (2, 102), (3, 3), (3, 103)];
    assert_eq!(changes, expected.map(|(commit, relation)| (commit, Change::Drop(relation))));
    assert_eq!(log.reader().commits(2, 1).unwrap()[0].changes.len(), 2);
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn what_was_not_flushed_is_gone_or_whole(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    log.append(commit(1, vec![batch(7, 0, 0, 10, b"x")])).unwrap();
    log.flush().unwrap();
    log.append(commit(2, vec![batch(7, 0, 10, 10, b"x"), batch(8, 0, 0, 10, &large(1))])).unwrap();
    drop(log);
    let log = medium.open().unwrap();
    let reader = log.reader();
    let is_there = reader.last_commit().unwrap() == 2;
    assert_eq!(reader.batches(8, 0, 0, 9).unwrap().len(), usize::from(is_there));
    assert_eq!(reader.heads().unwrap()[0].1.next_offsets, [if is_there { 20 } else { 10 }]);
}

/// A payload with the commit, one apart, one staged: the batch is named, its neighbours are read.
#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn damage_is_named_and_the_rest_is_read(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    let stage_id = log.next_stage_id();
    let mut staged = batch(7, 2, 0, 4, &large(9));
    staged.place = Place::Staged(stage_id);
    log.stage(stage_id, &Bytes::from(large(9))).unwrap();
    log.append(commit(1, vec![batch(7, 0, 0, 10, &large(1)), staged, batch(8, 0, 0, 1, b"fine")])).unwrap();
    log.append(commit(2, vec![batch(7, 1, 0, 10, b"with the commit")])).unwrap();
    log.append(commit(3, vec![batch(8, 0, 1, 1, b"fine")])).unwrap();
    log.flush().unwrap();
    let apart = log.reader().commits(1, 1).unwrap()[0].batches[0].place.clone();
    let Place::Apart(apart) = apart else { panic!("{apart:?} should be apart") };
    drop(log);
    medium.flip(Space::Payloads, &apart.to_be_bytes(), 50);
    medium.flip(Space::Staged, &stage_id.to_be_bytes(), 50);
    medium.flip(Space::Commits, &2u64.to_be_bytes(), 5);
    let log = medium.open().unwrap();
    let reader = log.reader();
    for (partition, offset) in [(0, 3), (1, 0), (2, 0)] {
        let found = reader.batches(7, partition, offset, 1).unwrap().remove(0).unwrap();
        let error = reader.payload(&found).unwrap_err();
        assert_eq!(error.state().code(), "XX001");
        assert!(error.message().contains(&format!("relation 7, partition {partition}, offsets 0 to")), "{error}");
    }
    for batch in reader.batches(8, 0, 0, 9).unwrap() {
        assert_eq!(reader.payload(&batch.unwrap()).unwrap(), &b"fine"[..]);
    }
}

#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn a_damaged_commit_hits_its_own_batches_only(#[case] medium: Medium) {
    let mut log = medium.open().unwrap();
    for id in 1..=400u64 {
        log.append(commit(id, vec![batch(7, 0, id - 1, 1, b"p")])).unwrap();
    }
    log.flush().unwrap();
    drop(log);
    // Old enough to be indexed: the log opens.
    medium.flip(Space::Commits, &100u64.to_be_bytes(), 30);
    let log = medium.open().unwrap();
    let reader = log.reader();
    assert_eq!(reader.commits(1, 99).unwrap().len(), 99);
    assert!(reader.commits(99, 3).unwrap_err().message().contains("commit 100 is damaged"));
    let found = reader.batches(7, 0, 98, 3).unwrap();
    assert!(found[0].is_ok() && found[2].is_ok());
    let error = found[1].as_ref().unwrap_err();
    assert!(error.message().contains("relation 7, partition 0, from offset 99"), "{error}");
    drop((reader, log));
    // New: the log cannot know how far it came, and says so.
    medium.flip(Space::Commits, &399u64.to_be_bytes(), 30);
    assert!(medium.open().err().unwrap().message().contains("commit 399 is damaged"));
}

#[test]
fn a_lost_tail_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::Sled(dir);
    let mut log = medium.open().unwrap();
    for id in 1..=5 {
        log.append(commit(id, vec![batch(7, 0, id - 1, 1, b"p")])).unwrap();
        log.flush().unwrap();
    }
    drop(log);
    let Medium::Sled(dir) = &medium else { unreachable!() };
    {
        let db: ::sled::Db<4> = ::sled::Config::new().path(dir.path().join("log")).open().unwrap();
        let commits = db.open_tree(Space::Commits.name()).unwrap();
        for id in [4u64, 5] {
            commits.remove(id.to_be_bytes()).unwrap();
        }
    }
    let error = medium.open().err().unwrap();
    assert_eq!(error.state().code(), "XX001");
    assert!(error.message().contains("ends at commit 3, but commits 4 to 5 are missing"), "{error}");
    std::fs::remove_file(dir.path().join("log.position")).unwrap();
    assert_eq!(medium.open().unwrap().reader().last_commit().unwrap(), 3);
}

/// Readers on several threads while the log is written.
#[rstest]
#[case::memory(in_memory())]
#[case::sled(in_sled())]
fn readers_read_while_the_log_is_written(#[case] medium: Medium) {
    const COMMITS: u64 = 150;
    let mut log = medium.open().unwrap();
    let reader = log.reader();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < COMMITS {
                    let last = reader.last_commit().unwrap();
                    for stored in reader.commits(seen + 1, 20).unwrap() {
                        assert_eq!(reader.payload(&stored.batches[0]).unwrap(), large(stored.id as u8));
                        seen = stored.id;
                    }
                    assert!(seen >= last.min(seen + 20) || seen <= last);
                    let found = reader.batches(7, 0, seen / 2, 5).unwrap();
                    assert!(seen == 0 || offsets(found)[0] == seen / 2 || seen == COMMITS);
                }
            });
        }
        for id in 1..=COMMITS {
            log.append(commit(id, vec![batch(7, 0, id - 1, 1, &large(id as u8))])).unwrap();
            if id % 10 == 0 {
                log.flush().unwrap();
            }
        }
    });
}
