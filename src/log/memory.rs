//! A log in memory, for tests and the simulator. It keeps the bytes that a disk would keep, and knows which were flushed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::CommitId;
use super::store::{Pairs, Space, Store, StoredLog};
use crate::error::Result;

type Map = BTreeMap<(Space, Bytes), Bytes>;

/// What outlives the log: open it again, with or without what was not flushed.
#[derive(Clone, Default)]
pub struct Disk {
    flushed: Arc<Mutex<Map>>,
}

impl Disk {
    /// The log as a process finds it that starts after a power cut: what was flushed, and nothing else.
    pub fn open(&self) -> Result<StoredLog<MemoryStore>> {
        let now = Arc::new(RwLock::new(self.flushed.lock().clone()));
        StoredLog::open(MemoryStore { now, since_flush: Vec::new(), disk: self.clone() })
    }

    /// Change a stored value, as a failing disk would.
    pub fn damage(&self, space: Space, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut flushed = self.flushed.lock();
        let Some(value) = flushed.get_mut(&(space, Bytes::copy_from_slice(key))) else { return false };
        let mut bytes = value.to_vec();
        change(&mut bytes);
        *value = bytes.into();
        true
    }

    /// Keys of a space, in order.
    pub fn keys(&self, space: Space) -> Vec<Bytes> {
        self.flushed.lock().keys().filter(|(s, _)| *s == space).map(|(_, key)| key.clone()).collect()
    }
}

/// A log that is gone with the process.
pub fn log() -> Result<StoredLog<MemoryStore>> {
    Disk::default().open()
}

pub struct MemoryStore {
    now: Arc<RwLock<Map>>,
    /// Keys and what became of them; `None` is deleted.
    since_flush: Vec<((Space, Bytes), Option<Bytes>)>,
    disk: Disk,
}

impl Store for MemoryStore {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = ((space, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
        self.now.write().insert(key.clone(), value.clone());
        self.since_flush.push((key, Some(value)));
        Ok(())
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<()> {
        let key = (space, Bytes::copy_from_slice(key));
        self.now.write().remove(&key);
        self.since_flush.push((key, None));
        Ok(())
    }

    fn flush(&mut self, _: CommitId) -> Result<()> {
        let mut flushed = self.disk.flushed.lock();
        for (key, value) in self.since_flush.drain(..) {
            match value {
                Some(value) => flushed.insert(key, value),
                None => flushed.remove(&key),
            };
        }
        Ok(())
    }

    fn pairs(&self) -> Arc<dyn Pairs> {
        Arc::new(MemoryPairs(self.now.clone()))
    }
}

struct MemoryPairs(Arc<RwLock<Map>>);

impl Pairs for MemoryPairs {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.read().get(&(space, Bytes::copy_from_slice(key))).cloned())
    }

    fn range(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let from = Bound::Included((space, Bytes::copy_from_slice(from)));
        let map = self.0.read();
        let within =
            map.range((from, Bound::Unbounded)).take_while(|((s, key), _)| *s == space && to.is_none_or(|to| &key[..] < to));
        Ok(within.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, space: Space, before: Option<&[u8]>) -> Result<Option<(Bytes, Bytes)>> {
        let first = Bound::Included((space, Bytes::new()));
        let map = self.0.read();
        let last = match before {
            Some(before) => map.range((first, Bound::Excluded((space, Bytes::copy_from_slice(before))))).next_back(),
            None => map.range((first, Bound::Unbounded)).take_while(|((s, _), _)| *s == space).last(),
        };
        Ok(last.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn size(&self) -> Result<u64> {
        Ok(self.0.read().iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum())
    }

    fn has_room_for(&self, _: usize) -> Result<()> {
        Ok(())
    }
}
