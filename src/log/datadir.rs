//! The data directory: whose it is, and what lies where.
//!
//! ```text
//!   FORMAT         the version of everything in it, in text
//!   LOCK           held by the one server that uses it
//!   log/           the truth, in sled
//!   log.position   how far it was written
//!   state/         checkpoints, in sled; may be deleted
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The version of what this server writes. It reads no other.
pub const FORMAT: u32 = 1;

const TITLE: &str = "Tidegate data directory";

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    lock: File,
}

impl DataDir {
    /// Take a directory, and make it a data directory if it is new or empty.
    pub fn open(root: &Path) -> Result<DataDir> {
        let unusable = |e: std::io::Error| Error::io(format!("data directory {}: {e}", root.display()));
        fs::create_dir_all(root).map_err(unusable)?;
        let is_new = !root.join("FORMAT").try_exists().map_err(unusable)?;
        if is_new && !is_empty(root).map_err(unusable)? {
            return Err(Error::io(format!(
                "{} is not empty and is no data directory of Tidegate: it has no file FORMAT",
                root.display()
            ))
            .with_hint("name an empty or new directory with --data-dir"));
        }
        let lock = lock(root)?;
        if is_new {
            write_format(root).map_err(unusable)?;
        } else {
            check_format(root, &fs::read_to_string(root.join("FORMAT")).map_err(unusable)?)?;
        }
        Ok(DataDir { root: root.to_path_buf(), lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn position(&self) -> PathBuf {
        self.root.join("log.position")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}

/// The lock goes with it, also where a process that is just being started has a copy of the file.
impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Nothing in it but what an earlier start that failed, or a file system, may have left.
fn is_empty(root: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        if !["LOCK", "FORMAT.new", "lost+found"].iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(root: &Path) -> Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(root.join("LOCK"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let process = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            return Err(Error::new(
                crate::error::SqlState::LockNotAvailable,
                format!("another server{process} is using data directory {}", root.display()),
            )
            .with_hint("stop it first, or name another directory with --data-dir"));
        }
        Err(TryLockError::Error(e)) => return Err(Error::io(format!("data directory {} cannot be locked: {e}", root.display()))),
    }
    // Only for the message above; the lock is what counts.
    let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    Ok(file)
}

fn write_format(root: &Path) -> std::io::Result<()> {
    let (new, path) = (root.join("FORMAT.new"), root.join("FORMAT"));
    let mut file = File::create(&new)?;
    file.write_all(format!("{TITLE}\nformat {FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(root)?.sync_all()
}

fn check_format(root: &Path, text: &str) -> Result<()> {
    let mut lines = text.lines();
    let version = lines.next().filter(|title| *title == TITLE).and(lines.next()).and_then(|line| line.strip_prefix("format "));
    let directory = root.display();
    match version.and_then(|v| v.trim().parse::<u32>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(Error::unsupported(format!(
            "data directory {directory} has format {newer}, and this version of Tidegate reads format {FORMAT}: it was written by a newer version"
        ))
        .with_hint("start the version that wrote it")),
        Some(older) => Err(Error::unsupported(format!(
            "data directory {directory} has format {older}, and this version of Tidegate reads format {FORMAT}: it was written by an older version"
        ))
        .with_hint("dump it with the version that wrote it and load the dump into a new directory")),
        None => Err(Error::corrupted(format!("the file FORMAT in data directory {directory} is damaged"))
            .with_hint(format!("it should say \"{TITLE}\" and, on the next line, \"format {FORMAT}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new").join("deep");
        let first = DataDir::open(&root).unwrap();
        let error = DataDir::open(&root).unwrap_err();
        assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
        // A process has it for a moment that is forked and has not become another program yet.
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        DataDir::open(&root).unwrap();
    }

    #[rstest::rstest]
    #[case::newer("Tidegate data directory\nformat 2\n", "0A000", "newer version")]
    #[case::older("Tidegate data directory\nformat 0\n", "0A000", "older version")]
    #[case::damaged("Tidegate data dir", "XX001", "damaged")]
    #[case::empty("", "XX001", "damaged")]
    fn another_format_is_refused(#[case] text: &str, #[case] code: &str, #[case] says: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("FORMAT"), text).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert_eq!(error.state().code(), code);
        assert!(error.message().contains(says), "{error}");
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(DataDir::open(dir.path()).unwrap_err().message().contains("is not empty"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
