//! A state store in sled, version 1.0 alpha: one database of its own, used by one thread.
//!
//! Its own flusher never runs (with no interval at all every dropped handle would flush); a flush makes everything since the
//! last one durable together. On damaged files it may panic or never come back from opening: both become errors, and
//! [`recreate`] starts anew, as nothing in here is the truth. When a write to the disk fails it aborts the process, so nothing
//! is accepted without room on the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::StateStore;
use crate::error::{Error, Result};
use crate::limits;
use crate::log::sled_recovery;

const LEAF_FANOUT: usize = 4;
const CACHE_BYTES: usize = 256 << 20;
/// Fast: our values are compressed already.
const ZSTD_LEVEL: i32 = -50;

/// Gigabytes open in a second; a damaged database may spin for ever.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes on disk that a byte may take until the next flush.
const AMPLIFICATION: u64 = 2;

type Tree = ::sled::Tree<LEAF_FANOUT>;

pub struct SledStore {
    /// There until dropped.
    tree: Option<Tree>,
    path: PathBuf,
    /// Bytes put since the last flush.
    unflushed: u64,
}

/// Open the database in this directory, or make it. It must not be open already.
pub fn open(path: &Path) -> Result<SledStore> {
    sled_recovery::prepare(path)?;
    let config = ::sled::Config::new()
        .path(path)
        .cache_capacity_bytes(CACHE_BYTES)
        .zstd_compression_level(ZSTD_LEVEL)
        .flush_every_ms(Some(u32::MAX as usize));
    let (done, opened) = mpsc::channel();
    let open = move || sled_recovery::open::<LEAF_FANOUT>(&config)?.open_tree("state");
    let run = move || {
        // Nobody may be waiting any more.
        let _ = done.send(contained("opening the state store", open));
    };
    std::thread::Builder::new().name("state-open".into()).spawn(run)?;
    let tree = opened.recv_timeout(OPEN_TIMEOUT).map_err(|_| {
        Error::corrupted(format!("opening the state store has not ended after {} seconds", OPEN_TIMEOUT.as_secs()))
    })??;
    Ok(SledStore { tree: Some(tree), path: path.to_path_buf(), unflushed: 0 })
}

/// Delete the database in this directory, whatever its condition, and make an empty one.
pub fn recreate(path: &Path) -> Result<SledStore> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => open(path),
    }
}

/// Errors and panics of sled as ours. `what` it was doing.
fn contained<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Err(Error::corrupted(format!("{what}: its files are damaged: {error}")))
            }
            _ => Err(Error::from(error).with_context(what)),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::corrupted(format!("{what}: {}", text.unwrap_or("it failed"))))
        }
    }
}

impl SledStore {
    fn tree(&self) -> &Tree {
        self.tree.as_ref().expect("the tree is there until the store is dropped")
    }

    fn check_room(&self, bytes: usize) -> Result<()> {
        let coming = (self.unflushed + bytes as u64) * AMPLIFICATION;
        if fs4::available_space(&self.path)? >= limits::FREE_DISK_BYTES + coming {
            return Ok(());
        }
        Err(Error::disk_full("no room on the disk of the data directory for a checkpoint")
            .with_hint("make room on the disk; until then a restart replays more of the log"))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // A database that has failed aborts the process when it cannot flush as it is dropped. Rather leak it.
        if self.tree().check_error().is_err() {
            std::mem::forget(self.tree.take());
        }
    }
}

impl StateStore for SledStore {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_room(key.len() + value.len())?;
        self.unflushed += (key.len() + value.len()) as u64;
        contained("writing state", || self.tree().insert(key, value).map(drop))
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        contained("writing state", || self.tree().remove(key).map(drop))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        contained("reading state", || Ok(self.tree().get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let pair = |pair: io::Result<(::sled::InlineArray, ::sled::InlineArray)>| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        contained("reading state", || self.tree().scan_prefix(prefix).map(pair).collect())
    }

    fn flush(&mut self) -> Result<()> {
        contained("flushing state", || self.tree().flush().map(drop))?;
        self.unflushed = 0;
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(size_of_files(&self.path)?)
    }

    fn clear(&mut self) -> Result<()> {
        contained("clearing state", || self.tree().clear())
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
