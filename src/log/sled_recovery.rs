//! What must be so before sled opens a database, and sled itself does not see to.
//!
//! sled keeps where its pages are in `metadata/`: a snapshot, and logs of what changed after it. Opening merges them into a
//! new snapshot, deletes the logs, and only then begins the next log. When the process ends in between, the snapshot stands
//! alone; and the next opening, which finds no log to merge, writes the snapshot over itself and then deletes it as the old one.
//! What was in it is gone at the opening after that. Two ends within an opening thus destroy a database, without a word (seen in
//! 1.0.0-alpha.124, `read_snapshot_and_apply_logs`).
//!
//! An empty log after the snapshot is all that it takes to prevent this: then there is a log to merge, and the snapshot that is
//! written has another name than the old one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;

/// How often the lock of a database is tried, and how long between.
const LOCK_TRIES: usize = 500;
const LOCK_REST: Duration = Duration::from_millis(10);

/// Open a database that this process may just have let go of: sled's lock on the directory can outlive the last handle by a
/// moment. Nobody else has it, as a data directory has a lock of its own.
pub fn open<const LEAF_FANOUT: usize>(config: &::sled::Config) -> io::Result<::sled::Db<LEAF_FANOUT>> {
    for _ in 1..LOCK_TRIES {
        match config.open::<LEAF_FANOUT>() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LOCK_REST),
            opened => return opened,
        }
    }
    config.open::<LEAF_FANOUT>()
}

/// See to it that a log follows the newest snapshot. `database`: its directory, not open; it need not exist.
pub fn prepare(database: &Path) -> Result<()> {
    let metadata = database.join("metadata");
    if !metadata.try_exists()? {
        return Ok(());
    }
    let (mut snapshot, mut log) = (None, None);
    for entry in fs::read_dir(&metadata)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        snapshot = snapshot.max(number(&name, "snapshot_"));
        log = log.max(number(&name, "log_"));
    }
    if let Some(snapshot) = snapshot
        && log.is_none_or(|log| log <= snapshot)
    {
        tracing::warn!(database = %database.display(), "the last start ended while the store was being opened; it goes on from there");
        let next = metadata.join(format!("log_{:016x}", snapshot + 1));
        OpenOptions::new().write(true).create_new(true).open(next)?.sync_all()?;
        File::open(metadata)?.sync_all()?;
    }
    Ok(())
}

/// The number in a file's name; unfinished files have none.
fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Db = ::sled::Db<4>;

    fn open(path: &Path) -> Db {
        super::open(&::sled::Config::new().path(path).flush_every_ms(Some(u32::MAX as usize))).unwrap()
    }

    /// As if the process had ended between the two steps of opening: the snapshot is whole, the next log not begun.
    fn end_within_opening(path: &Path) {
        drop(open(path));
        for entry in fs::read_dir(path.join("metadata")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("log_") {
                assert_eq!(entry.metadata().unwrap().len(), 0, "opening alone writes nothing");
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn written(path: &Path) {
        let db = open(path);
        for key in 0..100_u32 {
            db.insert(key.to_be_bytes(), [7; 100]).unwrap();
        }
        db.flush().unwrap();
    }

    #[test]
    fn a_database_survives_ends_within_its_opening() {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("new")).unwrap();
        written(dir.path());
        for _ in 0..3 {
            end_within_opening(dir.path());
            for _ in 0..2 {
                prepare(dir.path()).unwrap();
                assert_eq!(open(dir.path()).iter().count(), 100);
            }
        }
    }

    /// Why this module is there. When this fails, a newer sled has mended it, and the module can go.
    #[test]
    fn sled_alone_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        end_within_opening(dir.path());
        assert_eq!(open(dir.path()).iter().count(), 100);
        assert_eq!(open(dir.path()).iter().count(), 0);
    }
}
