//! A log in sled, version 1.0 alpha.
//!
//! How sled is used, and why: one thread owns all writes and flushes (deletes that race with batches can deadlock; a flush
//! makes all trees durable together, a batch only one). Readers take a clone of the handles out of a pool, because a handle is
//! not for two threads. Pages hold few entries, as ours are large. Its own flusher never runs: with no interval at all every
//! dropped handle would flush. It may panic on damaged files, or never come back from opening them: both become errors here.
//! When a write fails it aborts the process: so nothing is accepted without room on the disk ([`Pairs::has_room_for`]).
//!
//! A page that sled itself finds damaged makes it refuse everything until it is opened again; then the log takes no more
//! writes, and what is in memory goes on being served.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::CommitId;
use super::datadir::DataDir;
use super::position::{self, PositionFile};
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
    let store = SledStore::open(&data.log(), position, timeout)?;
    let log = StoredLog::open(store)?;
    position::check(recorded, super::Log::reader(&log).last_commit()?)?;
    Ok(log)
}

/// One handle per space. For one thread at a time. There until dropped.
#[derive(Clone)]
struct Handles(Option<[Tree; Space::ALL.len()]>);

impl Handles {
    fn tree(&self, space: Space) -> &Tree {
        &self.0.as_ref().expect("handles are there until they are dropped")[space as usize]
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        // The last handle to go makes sled flush, and a database that has failed aborts the process when it cannot. Rather
        // leak it: what was acknowledged is on disk.
        if self.tree(Space::Meta).check_error().is_err() {
            std::mem::forget(self.0.take());
        }
    }
}

/// The writing side; moved to the one thread that writes.
pub struct SledStore {
    handles: Handles,
    pairs: Arc<SledPairs>,
    position: PositionFile,
}

impl SledStore {
    fn open(path: &Path, position: PositionFile, timeout: Duration) -> Result<SledStore> {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity_bytes(CACHE_BYTES)
            .zstd_compression_level(ZSTD_LEVEL)
            .flush_every_ms(Some(u32::MAX as usize));
        let open = move || {
            let db = config.open::<LEAF_FANOUT>()?;
            let trees = Space::ALL.map(|space| db.open_tree(space.name()));
            let [a, b, c, d, e] = trees;
            Ok(Handles(Some([a?, b?, c?, d?, e?])))
        };
        let handles = under_watchdog(timeout, open)?;
        let pool = Mutex::new(vec![handles.clone()]);
        let pairs = Arc::new(SledPairs { pool, path: path.to_path_buf(), unflushed: AtomicUsize::new(0) });
        Ok(SledStore { handles, pairs, position })
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
        Ok(Ok(Err(error))) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Err(damaged(error.to_string())),
            _ => Err(Error::from(error).with_context("opening the log")),
        },
        Ok(Err(panic)) => Err(damaged(panic_message(&*panic))),
        Err(_) => Err(damaged(format!("its files are damaged, or reading them takes longer than {} seconds", timeout.as_secs()))),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the store failed").to_string()
}

/// Errors and panics of sled as ours. `what` it was doing.
fn contained<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Err(Error::corrupted(format!("{what}: the store found damage: {error}")))
            }
            _ => Err(Error::from(error).with_context(what)),
        },
        Err(panic) => Err(Error::corrupted(format!("{what}: the store failed: {}", panic_message(&*panic)))),
    }
}

impl Store for SledStore {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        self.pairs.unflushed.fetch_add(key.len() + value.len(), Ordering::Relaxed);
        let tree = self.handles.tree(space);
        contained("writing the log", || tree.insert(key, value).map(drop))
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<()> {
        let tree = self.handles.tree(space);
        contained("writing the log", || tree.remove(key).map(drop))
    }

    fn flush(&mut self, commit: CommitId) -> Result<()> {
        let tree = self.handles.tree(Space::Meta);
        contained("flushing the log", || tree.flush().map(drop))?;
        self.pairs.unflushed.store(0, Ordering::Relaxed);
        self.position.record(commit)
    }

    fn pairs(&self) -> Arc<dyn Pairs> {
        self.pairs.clone()
    }
}

/// The reading side. Handles are taken from the pool and given back.
struct SledPairs {
    /// Never empty: the last one is cloned instead of taken.
    pool: Mutex<Vec<Handles>>,
    path: PathBuf,
    /// Bytes put since the last flush.
    unflushed: AtomicUsize,
}

impl SledPairs {
    fn with<T>(&self, space: Space, read: impl FnOnce(&Tree) -> io::Result<T>) -> Result<T> {
        let handles = {
            let mut pool = self.pool.lock();
            if pool.len() > 1 { pool.pop() } else { pool.last().cloned() }
        };
        let handles = handles.expect("the pool is never empty");
        let result = contained("reading the log", || read(handles.tree(space)));
        self.pool.lock().push(handles);
        result
    }
}

impl Pairs for SledPairs {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(space, |tree| Ok(tree.get(key)?.map(Bytes::from_owner)))
    }

    fn range(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        use std::ops::Bound;
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        self.with(space, |tree| {
            let pairs = tree.range::<&[u8], _>(bounds).take(limit);
            pairs.map(|pair| pair.map(|(key, value)| (Bytes::from_owner(key), Bytes::from_owner(value)))).collect()
        })
    }

    fn last(&self, space: Space, before: Option<&[u8]>) -> Result<Option<(Bytes, Bytes)>> {
        let found = self.with(space, |tree| match before {
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
        let coming = (self.unflushed.load(Ordering::Relaxed) + bytes) as u64 * AMPLIFICATION;
        if free >= limits::FREE_DISK_BYTES + coming {
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
