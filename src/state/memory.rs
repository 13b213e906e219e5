//! A state store in memory, for tests and the simulator. It knows what a disk would have kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::StateStore;
use crate::error::Result;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What outlives the store: open it again, and find what was flushed.
#[derive(Clone, Default)]
pub struct Disk {
    flushed: Arc<Mutex<Pairs>>,
}

impl Disk {
    /// The store as a process finds it that starts after a power cut.
    pub fn open(&self) -> MemoryStore {
        MemoryStore { now: self.flushed.lock().clone(), disk: self.clone() }
    }

    /// Another disk with what is on this one now: what a process that ends at this moment leaves behind.
    pub fn copy(&self) -> Disk {
        Disk { flushed: Arc::new(Mutex::new(self.flushed.lock().clone())) }
    }

    /// Change stored values, as a failing disk would.
    pub fn damage(&self, mut change: impl FnMut(&[u8], &mut Vec<u8>)) {
        self.flushed.lock().iter_mut().for_each(|(key, value)| change(key, value));
    }

    /// Pairs stored.
    pub fn len(&self) -> usize {
        self.flushed.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Default)]
pub struct MemoryStore {
    now: Pairs,
    disk: Disk,
}

impl StateStore for MemoryStore {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.now.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.now.remove(key);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.now.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let from = self.now.range(prefix.to_vec()..);
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn flush(&mut self) -> Result<()> {
        self.disk.flushed.lock().clone_from(&self.now);
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        Ok(self.disk.flushed.lock().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn clear(&mut self) -> Result<()> {
        self.now.clear();
        Ok(())
    }
}
