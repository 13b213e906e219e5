//! A log in sled, version 1.0 alpha.
//!
//! How sled is used, and why: one thread owns all writes and flushes (deletes that race with batches can deadlock; a flush
//! makes all trees durable together, a batch only one). Readers take a clone of the handles out of a pool, because a handle is
//! not for two threads. Pages hold few entries, as ours are large. Its own flusher never runs: with no interval at all every
//! dropped handle would flush. It may panic on damaged files, or never come back from opening them: both become errors here.
//! When a write fails it aborts the process: so nothing is accepted without room on the disk ([`Pairs::has_room_for`]).
//!
//! A page that sled itself finds damaged makes it refuse everything until it is opened again. That is done at once when nothing
//! is left to write, and the page is not asked for again: all else goes on. Found in the middle of a write, the log takes no
//! more writes until the server is started again.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::CommitId;
use super::datadir::DataDir;
use super::position::{self, PositionFile};
use super::sled_recovery;
use super::store::{Pairs, Space, Store, StoredLog};
use crate::error::{Error, Result};
use crate::limits;

const LEAF_FANOUT: usize = 4;
const CACHE_BYTES: usize = 256 << 20;
/// Fast: our values are compressed already.
const ZSTD_LEVEL: i32 = -50;

/// Gigabytes open in a second; a damaged database may spin for ever.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// Bytes on disk that a byte may take until it is flushed: pages are rewritten and slots rounded up.
const AMPLIFICATION: u64 = 2;

type Tree = ::sled::Tree<LEAF_FANOUT>;

/// Open the log of a data directory.
pub fn open(data: &DataDir) -> Result<StoredLog<SledStore>> {
    open_within(data, OPEN_TIMEOUT)
}

fn open_within(data: &DataDir, timeout: Duration) -> Result<StoredLog<SledStore>> {
    let (position, recorded) = PositionFile::open(&data.position())?;
    create(&data.log(), timeout)?;
    let store = SledStore::open(&data.log(), position, timeout)?;
    let log = StoredLog::open(store)?;
    position::check(recorded, super::Log::reader(&log).last_commit()?)?;
    Ok(log)
}

/// Make an empty database, beside its place until it is whole: sled cannot open one whose making was cut short.
fn create(path: &Path, timeout: Duration) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    let handles = Handles::open(&unfinished, timeout)?;
    handles.with("making the log", Space::Meta, |tree| tree.flush().map(drop))?;
    drop(handles);
    std::fs::rename(&unfinished, path)?;
    if let Some(parent) = path.parent() {
        // The new name must outlive a power cut, too.
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// One handle per space. For one thread at a time.
#[derive(Clone)]
struct Handles {
    /// There until dropped.
    trees: Option<[Tree; Space::ALL.len()]>,
    flags: Arc<Flags>,
}

#[derive(Default)]
struct Flags {
    /// sled has panicked: nobody knows what state it is in.
    panicked: AtomicBool,
    /// Something was written since the last flush.
    dirty: AtomicBool,
}

impl Handles {
    fn open(path: &Path, timeout: Duration) -> Result<Handles> {
        sled_recovery::prepare(path)?;
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity_bytes(CACHE_BYTES)
            .zstd_compression_level(ZSTD_LEVEL)
            .flush_every_ms(Some(u32::MAX as usize));
        under_watchdog(timeout, move || {
            let db = sled_recovery::open::<LEAF_FANOUT>(&config)?;
            let [a, b, c, d, e] = Space::ALL.map(|space| db.open_tree(space.name()));
            Ok(Handles { trees: Some([a?, b?, c?, d?, e?]), flags: Arc::default() })
        })
    }

    fn tree(&self, space: Space) -> &Tree {
        &self.trees.as_ref().expect("handles are there until they are dropped")[space as usize]
    }

    /// sled refuses everything from now on.
    fn has_failed(&self) -> bool {
        self.tree(Space::Meta).check_error().is_err()
    }

    /// Run something over one of the trees; errors and panics of sled become ours. `doing` says what it was.
    fn with<T>(&self, doing: &str, space: Space, work: impl FnOnce(&Tree) -> io::Result<T>) -> Result<T> {
        let found = |what: String| Error::corrupted(format!("{doing}: the store found damage: {what}"));
        match catch_unwind(AssertUnwindSafe(|| work(self.tree(space)))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_damage(&error) => Err(found(error.to_string())),
            Ok(Err(error)) => Err(Error::from(error).with_context(doing)),
            Err(panic) => {
                self.flags.panicked.store(true, Ordering::Release);
                Err(found(panic_message(&*panic)))
            }
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        // The last handle to go makes sled flush, and a database that has failed aborts the process when it cannot. Rather
        // leak it: what was acknowledged is on disk.
        let cannot_flush = self.flags.dirty.load(Ordering::Acquire) && self.has_failed();
        if cannot_flush || self.flags.panicked.load(Ordering::Acquire) {
            std::mem::forget(self.trees.take());
        }
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// An open database: a handle to write, and handles to read.
struct Opened {
    writer: Mutex<Handles>,
    /// Never empty: the last one is cloned instead of taken.
    pool: Mutex<Vec<Handles>>,
    flags: Arc<Flags>,
}

impl Opened {
    fn open(path: &Path, timeout: Duration) -> Result<Opened> {
        let writer = Handles::open(path, timeout)?;
        let flags = writer.flags.clone();
        Ok(Opened { pool: Mutex::new(vec![writer.clone()]), writer: Mutex::new(writer), flags })
    }

    fn read<T>(&self, space: Space, read: impl FnOnce(&Tree) -> io::Result<T>) -> Result<T> {
        let handles = {
            let mut pool = self.pool.lock();
            if pool.len() > 1 { pool.pop() } else { pool.last().cloned() }
        };
        let handles = handles.expect("the pool is never empty");
        let result = handles.with("reading the log", space, read);
        self.pool.lock().push(handles);
        result
    }

    /// Refuses everything, and can be opened again: nothing would be lost.
    fn can_heal(&self) -> bool {
        let (dirty, panicked) = (self.flags.dirty.load(Ordering::Acquire), self.flags.panicked.load(Ordering::Acquire));
        !dirty && !panicked && self.writer.lock().has_failed()
    }
}

/// Open a database on a thread that is left behind if it does not come back.
fn under_watchdog(timeout: Duration, open: impl FnOnce() -> io::Result<Handles> + Send + 'static) -> Result<Handles> {
    let (done, opened) = mpsc::channel();
    let run = move || {
        let _ = done.send(catch_unwind(AssertUnwindSafe(open)));
    };
    std::thread::Builder::new().name("log-open".into()).spawn(run)?;
    let damaged = |what: String| {
        Error::corrupted(format!("the log cannot be opened: {what}"))
            .with_hint("restore the data directory from a copy; keep this one, its data files may still be readable")
    };
    match opened.recv_timeout(timeout) {
        Ok(Ok(Ok(handles))) => Ok(handles),
        Ok(Ok(Err(error))) if is_damage(&error) => Err(damaged(error.to_string())),
        Ok(Ok(Err(error))) => Err(Error::from(error).with_context("opening the log")),
        Ok(Err(panic)) => Err(damaged(panic_message(&*panic))),
        Err(_) => Err(damaged(format!("its files are damaged, or reading them takes longer than {} seconds", timeout.as_secs()))),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the store failed").to_string()
}

/// The writing side; moved to the one thread that writes.
pub struct SledStore {
    pairs: Arc<SledPairs>,
    position: PositionFile,
}

impl SledStore {
    fn open(path: &Path, position: PositionFile, timeout: Duration) -> Result<SledStore> {
        let opened = RwLock::new(Opened::open(path, timeout));
        if let Err(error) = &*opened.read() {
            return Err(error.clone());
        }
        let pairs = SledPairs { opened, path: path.to_path_buf(), unflushed: AtomicUsize::new(0), damaged: Mutex::default() };
        Ok(SledStore { pairs: Arc::new(pairs), position })
    }

    fn write(&self, space: Space, write: impl FnOnce(&Tree) -> io::Result<()>) -> Result<()> {
        let opened = self.pairs.opened.read();
        let opened = opened.as_ref().map_err(Error::clone)?;
        opened.flags.dirty.store(true, Ordering::Release);
        let writer = opened.writer.lock();
        writer.with("writing the log", space, write)
    }
}

impl Store for SledStore {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        self.pairs.unflushed.fetch_add(key.len() + value.len(), Ordering::Relaxed);
        self.write(space, |tree| tree.insert(key, value).map(drop))
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<()> {
        self.write(space, |tree| tree.remove(key).map(drop))
    }

    fn flush(&mut self, commit: CommitId) -> Result<()> {
        let opened = self.pairs.opened.read();
        let opened = opened.as_ref().map_err(Error::clone)?;
        opened.writer.lock().with("flushing the log", Space::Meta, |tree| tree.flush().map(drop))?;
        opened.flags.dirty.store(false, Ordering::Release);
        self.pairs.unflushed.store(0, Ordering::Relaxed);
        self.position.record(commit)
    }

    fn pairs(&self) -> Arc<dyn Pairs> {
        self.pairs.clone()
    }
}

/// The reading side.
struct SledPairs {
    /// Locked for reading by all who use a handle, and for writing by who opens the database again. An error: that failed.
    opened: RwLock<Result<Opened>>,
    path: PathBuf,
    /// Bytes put since the last flush.
    unflushed: AtomicUsize,
    /// Keys on damaged pages: not asked for again.
    damaged: Mutex<BTreeMap<(Space, Vec<u8>), Error>>,
}

impl SledPairs {
    /// Read something. `read` notes where it is, so that it is known which key lies on a damaged page.
    fn with<T>(&self, space: Space, read: impl Fn(&Tree, &mut Vec<u8>) -> io::Result<T>) -> Result<T> {
        let opened = self.opened.read();
        let result = opened.as_ref().map_err(Error::clone)?.read(space, |tree| read(tree, &mut Vec::new()));
        drop(opened);
        if result.is_ok() { result } else { self.heal(result, space, read) }
    }

    /// sled refuses everything once it has met a damaged page. With nothing left to write it is opened again, and the read
    /// is tried once more with nobody else at work: then it is known whether this is what is damaged.
    fn heal<T>(&self, result: Result<T>, space: Space, read: impl Fn(&Tree, &mut Vec<u8>) -> io::Result<T>) -> Result<T> {
        let mut opened = self.opened.write();
        match &*opened {
            Ok(opened) if opened.can_heal() => {}
            // Somebody else has opened it again meanwhile.
            Ok(opened) if !opened.writer.lock().has_failed() => {}
            _ => return result,
        }
        self.reopen_if_failed(&mut opened);
        let mut at = Vec::new();
        let result = opened.as_ref().map_err(Error::clone)?.read(space, |tree| read(tree, &mut at));
        if let Err(error) = &result {
            tracing::warn!("a page of the log's {} is damaged: {error}", space.name());
            if !at.is_empty() {
                self.damaged.lock().insert((space, at), error.clone());
            }
            self.reopen_if_failed(&mut opened);
        }
        result
    }

    /// The first key known to be damaged from `from` on, and before `to`.
    fn damaged(&self, space: Space, from: &[u8], to: Option<&[u8]>) -> Option<(Vec<u8>, Error)> {
        let damaged = self.damaged.lock();
        if damaged.is_empty() {
            return None;
        }
        let ((found, key), error) = damaged.range((space, from.to_vec())..).next()?;
        (*found == space && to.is_none_or(|to| key.as_slice() < to)).then(|| (key.clone(), error.clone()))
    }

    fn reopen_if_failed(&self, opened: &mut Result<Opened>) {
        if opened.as_ref().is_ok_and(Opened::can_heal) {
            // The old one must be gone before: it holds the lock on its directory.
            *opened = Err(Error::not_ready("the log is being opened again"));
            *opened = Opened::open(&self.path, OPEN_TIMEOUT);
        }
    }
}

impl Pairs for SledPairs {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some((at, error)) = self.damaged(space, key, None)
            && at == key
        {
            return Err(error);
        }
        self.with(space, |tree, at| {
            at.extend_from_slice(key);
            Ok(tree.get(key)?.map(Bytes::from_owner))
        })
    }

    fn range(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        use std::ops::Bound;
        let damaged = self.damaged(space, from, to);
        let to = damaged.as_ref().map(|(key, _)| key.as_slice()).or(to);
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let found: Vec<(Bytes, Bytes)> = self.with(space, |tree, at| {
            at.extend_from_slice(from);
            let mut found = Vec::new();
            for pair in tree.range::<&[u8], _>(bounds).take(limit) {
                let (key, value) = pair?;
                // The next key, whatever it is, comes after this one.
                at.clear();
                at.extend_from_slice(&key);
                at.push(0);
                found.push((Bytes::from_owner(key), Bytes::from_owner(value)));
            }
            Ok(found)
        })?;
        match damaged {
            Some((_, error)) if found.len() < limit => Err(error),
            _ => Ok(found),
        }
    }

    fn last(&self, space: Space, before: Option<&[u8]>) -> Result<Option<(Bytes, Bytes)>> {
        let found = self.with(space, |tree, _| match before {
            Some(before) => tree.get_lt(before),
            None => tree.last(),
        });
        Ok(found?.map(|(key, value)| (Bytes::from_owner(key), Bytes::from_owner(value))))
    }

    fn size(&self) -> Result<u64> {
        Ok(size_of_files(&self.path)?)
    }

    fn has_room_for(&self, bytes: usize) -> Result<()> {
        // Asking takes about a microsecond, so it is asked each time.
        let free = fs4::available_space(&self.path)?;
        let coming = (self.unflushed.load(Ordering::Relaxed) as u64).saturating_add(bytes as u64).saturating_mul(AMPLIFICATION);
        if free >= limits::FREE_DISK_BYTES.saturating_add(coming) {
            return Ok(());
        }
        let (free, reserve) = (free >> 20, limits::FREE_DISK_BYTES >> 20);
        Err(Error::disk_full(format!(
            "the disk of the data directory is full: {free} MiB are free, of which {reserve} MiB are kept in reserve"
        ))
        .with_hint("make room on the disk, or drop streams that are no longer needed"))
    }
}

fn size_of_files(path: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { size_of_files(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::{CommitRecord, Log, StoredBatch};
    use super::*;
    use crate::log::{Header, Kind, Place};

    fn commit(id: CommitId, payload: &[u8]) -> CommitRecord {
        let header = Header {
            relation: 7,
            partition: 0,
            base_offset: id - 1,
            rows: 1,
            columns: 1,
            kind: Kind::Append,
            commit: id,
            commit_time: 0,
            watermark: 0,
            event_times: None,
            producer: None,
        };
        let batch = StoredBatch {
            header,
            len: payload.len() as u32,
            crc: crc32fast::hash(payload),
            place: Place::Inline(Bytes::copy_from_slice(payload)),
        };
        CommitRecord { id, time: 0, batches: vec![batch], watermarks: vec![], producers: vec![], changes: vec![] }
    }

    /// A closed log of some commits.
    fn written(dir: &Path, commits: u64) {
        let mut log = open(&DataDir::open(dir).unwrap()).unwrap();
        for id in 1..=commits {
            log.append(commit(id, &noise(id))).unwrap();
            log.flush().unwrap();
        }
    }

    fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => all.extend(files(&path)),
                false => all.push((path.clone(), path.metadata().unwrap().len())),
            }
        }
        all.sort();
        all
    }

    /// What a page holds on disk is compressed: noise keeps its size, so that damage hits payloads.
    fn noise(seed: u64) -> Vec<u8> {
        use rand::{RngCore, SeedableRng};
        let mut bytes = vec![0; 70_000];
        rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn a_damaged_page_is_an_error_and_does_not_end_the_process() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 20);
        let (page_file, len) = files(&dir.path().join("log")).into_iter().max_by_key(|(_, len)| *len).unwrap();
        let mut bytes = std::fs::read(&page_file).unwrap();
        bytes[len as usize / 2] ^= 1;
        std::fs::write(&page_file, bytes).unwrap();
        let mut log = open(&DataDir::open(dir.path()).unwrap()).unwrap();
        let reader = log.reader();
        let (mut intact, mut damaged) = (0, None);
        for stored in reader.commits(1, 99).unwrap() {
            match reader.payload(&stored.batches[0]) {
                Ok(payload) => {
                    assert_eq!(payload, noise(stored.id));
                    intact += 1;
                }
                Err(error) => {
                    damaged.get_or_insert((stored.id, error));
                }
            }
        }
        let (id, error) = damaged.unwrap();
        assert!(intact > 0 && error.state().code() == "XX001", "{error}");
        assert!(error.message().contains(&format!("relation 7, partition 0, offsets {} to", id - 1)), "{error}");
        // Nothing was being written: the log goes on.
        log.append(commit(21, b"x")).unwrap();
        log.flush().unwrap();
        assert_eq!(reader.commits(21, 1).unwrap().len(), 1);
        drop((reader, log));
        // In the middle of a write it cannot, unless the page was known for damaged since the opening: what is not refused is
        // there. Giving up on it must not end the process.
        let mut log = open(&DataDir::open(dir.path()).unwrap()).unwrap();
        let reader = log.reader();
        let stored = reader.commits(id, 1).unwrap().remove(0);
        log.append(commit(22, b"x")).unwrap();
        assert!(reader.payload(&stored.batches[0]).is_err());
        if log.flush().is_ok() {
            assert_eq!(reader.commits(22, 1).unwrap().len(), 1);
        }
        drop((reader, log));
    }

    /// Damage among the commits: those before it are read in one go, and those after it too.
    #[test]
    fn a_range_ends_where_the_damage_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut log = open(&data).unwrap();
        for id in 1..=300 {
            log.append(commit(id, &noise(id)[..9000])).unwrap();
        }
        log.flush().unwrap();
        drop(log);
        // Noise is not compressed, so it is found as it was. Where sled put it, nobody knows.
        let (page_file, _) = files(&dir.path().join("log")).into_iter().max_by_key(|(_, len)| *len).unwrap();
        let (mut bytes, wanted) = (std::fs::read(&page_file).unwrap(), noise(150));
        let at = bytes.windows(64).position(|window| *window == wanted[4000..4064]).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&page_file, bytes).unwrap();
        let log = open(&data).unwrap();
        let reader = log.reader();
        for _ in 0..2 {
            let bad: Vec<_> = (1..=300).filter_map(|id| Some((id, reader.commits(id, 1).err()?))).collect();
            let (first, last) = (bad[0].0, bad[bad.len() - 1].0);
            assert!(bad.len() <= LEAF_FANOUT && last - first < LEAF_FANOUT as u64, "{bad:?}");
            assert_eq!(reader.commits(1, first as usize - 1).unwrap().len() as u64, first - 1);
            assert!(reader.commits(1, first as usize).is_err());
            assert_eq!(reader.commits(last + 1, 999).unwrap().len() as u64, 300 - last);
        }
    }

    #[test]
    fn a_log_whose_making_was_cut_short_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let unfinished = data.log().with_extension("new");
        std::fs::create_dir_all(unfinished.join("metadata")).unwrap();
        std::fs::write(unfinished.join("durability_cookie"), [7; 3]).unwrap();
        std::fs::write(unfinished.join("metadata/log_0000000000000001"), [9; 100]).unwrap();
        let mut log = open(&data).unwrap();
        log.append(commit(1, b"x")).unwrap();
        log.flush().unwrap();
        drop(log);
        assert!(!unfinished.exists());
        assert_eq!(open(&data).unwrap().reader().commits(1, 9).unwrap().len(), 1);
    }

    #[test]
    fn files_that_cannot_be_opened_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 3);
        let (cookie, _) =
            files(&dir.path().join("log")).into_iter().find(|(path, _)| path.ends_with("durability_cookie")).unwrap();
        std::fs::write(cookie, [7; 64]).unwrap();
        let error = open(&DataDir::open(dir.path()).unwrap()).err().unwrap();
        assert_eq!(error.state().code(), "XX001");
        assert!(error.hint().is_some());
    }

    #[test]
    fn an_open_that_hangs_or_panics_is_an_error() {
        let hang = || -> io::Result<Handles> {
            std::thread::sleep(Duration::from_secs(1));
            Err(io::Error::other("late"))
        };
        let error = under_watchdog(Duration::from_millis(20), hang).err().unwrap();
        assert!(error.message().contains("longer than"), "{error}");
        let error = under_watchdog(Duration::from_secs(9), || panic!("a page is torn")).err().unwrap();
        assert!(error.message().contains("a page is torn"), "{error}");
    }

    #[test]
    fn a_full_disk_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&DataDir::open(dir.path()).unwrap()).unwrap();
        log.reader().has_room_for(1).unwrap();
        let error = log.reader().has_room_for(usize::MAX).unwrap_err();
        assert_eq!(error.state().code(), "53100");
    }
}
