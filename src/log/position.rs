//! A small file beside the log that knows how far it was written.
//!
//! The store may lose its newest commits without a word when its own bookkeeping is torn. This file makes that loud: it holds
//! the number of the last commit that was flushed, is written after each flush and before anything is acknowledged, and the log
//! refuses to open if it ends before that.
//!
//! ```text
//!   two slots of 512 bytes, written in turn, so that a torn write leaves the other:  commit 8 · CRC-32 of it 4
//! ```
//!
//! The write is in the page cache when the commit is acknowledged, and a thread syncs it at once: another sync in line would
//! make every commit a third slower. So a loss of the newest commits is missed only if the same power cut loses this write,
//! within some milliseconds of it, *and* the store loses what it had synced before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::CommitId;
use crate::error::{Error, Result};

const SLOT: usize = 512;
const RECORD: usize = 12;

pub struct PositionFile {
    file: Arc<File>,
    /// The slot to write next.
    slot: u64,
    sync: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl PositionFile {
    /// The file, and the last commit that was flushed, if the file was there.
    pub fn open(path: &Path) -> Result<(PositionFile, Option<CommitId>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; 2 * SLOT];
        let found = match file.metadata()?.len() {
            0 => {
                // Its full size at once: later writes change no metadata, and their sync is cheap.
                bytes[..RECORD].copy_from_slice(&record(0));
                file.write_all_at(&bytes, 0)?;
                file.sync_all()?;
                if let Some(dir) = path.parent() {
                    File::open(dir)?.sync_all()?;
                }
                None
            }
            _ => {
                let read = file.read_at(&mut bytes, 0)?;
                bytes[read..].fill(0);
                Some([0, SLOT].map(|at| parse(&bytes[at..at + RECORD])))
            }
        };
        let slot = u64::from(found.is_none_or(|[a, b]| a >= b));
        let commit = found.map(|[a, b]| {
            a.max(b).ok_or_else(|| {
                Error::corrupted("the file log.position is damaged, so nobody can tell whether the log is complete")
                    .with_hint("restore the data directory from a copy, or delete log.position to go on with what the log has")
            })
        });
        let commit = commit.transpose()?;
        let file = Arc::new(file);
        let (sync, wanted) = sync_channel(1);
        let syncing = file.clone();
        let run = move || {
            while wanted.recv().is_ok() {
                if let Err(error) = syncing.sync_data() {
                    tracing::warn!("log.position cannot be synced: {error}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("log-position".into()).spawn(run)?;
        Ok((PositionFile { file, slot, sync: Some(sync), thread: Some(thread) }, commit))
    }

    /// Note that all commits up to this one are on disk.
    pub fn record(&mut self, commit: CommitId) -> Result<()> {
        self.file.write_all_at(&record(commit), self.slot * SLOT as u64)?;
        self.slot = 1 - self.slot;
        if let Some(sync) = &self.sync {
            // A full queue: a sync is about to start, and will cover this.
            let _ = sync.try_send(());
        }
        Ok(())
    }
}

impl Drop for PositionFile {
    fn drop(&mut self) {
        self.sync = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Refuse a log that ends before what was flushed.
pub fn check(recorded: Option<CommitId>, last: CommitId) -> Result<()> {
    match recorded {
        Some(flushed) if flushed > last => {
            let what = if flushed == last + 1 {
                format!("commit {flushed} is")
            } else {
                format!("commits {} to {flushed} are", last + 1)
            };
            Err(Error::corrupted(format!(
                "the log ends at commit {last}, but {what} missing: acknowledged writes were lost on this disk"
            ))
            .with_hint("restore the data directory from a copy, or delete the file log.position in it to go on without them"))
        }
        _ => Ok(()),
    }
}

fn record(commit: CommitId) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&commit.to_le_bytes());
    record[8..].copy_from_slice(&crc32fast::hash(&commit.to_le_bytes()).to_le_bytes());
    record
}

fn parse(slot: &[u8]) -> Option<CommitId> {
    let (commit, rest) = slot.split_first_chunk::<8>()?;
    let crc = rest.first_chunk::<4>()?;
    (crc32fast::hash(commit) == u32::from_le_bytes(*crc)).then(|| u64::from_le_bytes(*commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_position_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.position");
        let (mut file, found) = PositionFile::open(&path).unwrap();
        assert_eq!(found, None);
        for commit in 1..=5 {
            file.record(commit).unwrap();
            drop(file);
            let found;
            (file, found) = PositionFile::open(&path).unwrap();
            assert_eq!(found, Some(commit));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_position_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.position");
        let (mut file, _) = PositionFile::open(&path).unwrap();
        file.record(7).unwrap();
        file.record(8).unwrap();
        let newest = (1 - file.slot) * SLOT as u64;
        file.file.write_all_at(&[0xee; 5], newest).unwrap();
        drop(file);
        assert_eq!(PositionFile::open(&path).unwrap().1, Some(7));
        std::fs::write(&path, [0xee; 2 * SLOT]).unwrap();
        assert_eq!(PositionFile::open(&path).err().unwrap().state().code(), "XX001");
    }

    #[test]
    fn a_shorter_log_is_refused() {
        assert!(check(None, 0).is_ok() && check(Some(3), 3).is_ok() && check(Some(3), 4).is_ok());
        let error = check(Some(9), 6).unwrap_err();
        assert!(error.message().contains("commits 7 to 9 are missing"), "{error}");
        assert_eq!(error.state().code(), "XX001");
    }
}
