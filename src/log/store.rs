//! The log over ordered key-value pairs: [`Log`] and [`LogReader`] for any [`Store`].
//!
//! ```text
//!  space     key                            value
//!  Commits   commit                         the commit (see `stored`), small payloads with it
//!  Payloads  commit, number of the batch    a payload too large for that
//!  Staged    id                             a payload that was handed over before its commit
//!  Index     relation, partition, offset    commit, number of the batch
//!  Meta      'm'                            the last commit that Index, heads and producers cover
//!            'h' relation                   its head
//!            'p' producer                   its last sequence number
//!            'c' commit                     its catalog changes
//!            's' id                         nothing: no commit names this staged payload yet
//! ```
//!
//! A disk syncs each file a flush has touched, one after the other; so a small commit touches one space. Index, heads and
//! producers follow from the commits: they are written after [`INDEX_LAG`] batches, and what is missing is read again from the
//! commits when the log is opened. Until then it is in memory, in [`Recent`].
//!
//! Invariants: keys are big endian, so their order is that of the numbers. Index and `Recent` together hold every batch, and
//! `Recent` only those that come after all of Index in their partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::record::{u32_at, u64_at};
use super::stored::{self, seal, unseal};
use super::{CommitId, CommitRecord, Head, Log, LogReader, Place, Position, StoredBatch};
use crate::catalog::{Change, RelationId};
use crate::error::{Error, Result};
use crate::limits;

/// Batches (and commits) that may be missing from the index on disk: read again when the log is opened.
const INDEX_LAG: usize = 256;

/// Bytes of payloads that are kept with their commit.
const INLINE_BYTES: usize = 64 << 10;

/// Key spaces that do not share pages on disk, so that small values are not rewritten with large neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    Commits,
    Payloads,
    Staged,
    Index,
    Meta,
}

impl Space {
    pub const ALL: [Space; 5] = [Space::Commits, Space::Payloads, Space::Staged, Space::Index, Space::Meta];

    pub fn name(self) -> &'static str {
        match self {
            Space::Commits => "commits",
            Space::Payloads => "payloads",
            Space::Staged => "staged",
            Space::Index => "index",
            Space::Meta => "meta",
        }
    }
}

/// Ordered pairs that one thread writes. What was put since the last flush is on disk together or not at all.
pub trait Store: Send {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()>;
    fn delete(&mut self, space: Space, key: &[u8]) -> Result<()>;
    /// `commit`: the last one that this makes durable.
    fn flush(&mut self, commit: CommitId) -> Result<()>;
    fn pairs(&self) -> Arc<dyn Pairs>;
}

/// The pairs as written so far, flushed or not, for any thread.
pub trait Pairs: Send + Sync {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>>;
    /// Pairs with `from <= key`, and `key < to` if given, in order, at most `limit`.
    fn range(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
    /// The last pair with `key < before`, or of all.
    fn last(&self, space: Space, before: Option<&[u8]>) -> Result<Option<(Bytes, Bytes)>>;
    fn size(&self) -> Result<u64>;
    fn has_room_for(&self, bytes: usize) -> Result<()>;
}

/// Where a batch is: its commit, and its number in it.
type Spot = (CommitId, u32);

/// What follows from the commits and is not on disk yet.
#[derive(Default)]
struct Recent {
    last: CommitId,
    /// Index, heads and producers on disk cover the commits up to this one.
    indexed: CommitId,
    index: BTreeMap<Position, Spot>,
    heads: BTreeMap<RelationId, Head>,
    producers: BTreeMap<u64, u64>,
}

/// A log over a store.
pub struct StoredLog<S> {
    store: S,
    pairs: Arc<dyn Pairs>,
    recent: Arc<RwLock<Recent>>,
    next_stage_id: u64,
    unflushed: usize,
}

impl<S: Store> StoredLog<S> {
    /// Take up a log: read what its index misses, discard payloads that no commit came to name.
    pub fn open(store: S) -> Result<StoredLog<S>> {
        let pairs = store.pairs();
        let recent = Recent { indexed: read_marker(&*pairs)?, ..Recent::default() };
        let mut log = StoredLog { store, pairs, recent: Arc::new(RwLock::new(recent)), next_stage_id: 0, unflushed: 0 };
        log.read_recent()?;
        log.discard_leftovers()?;
        Ok(log)
    }

    fn read_recent(&mut self) -> Result<()> {
        let indexed = self.recent.read().indexed;
        let last = self.pairs.last(Space::Commits, None)?.map_or(Ok(0), |(key, _)| commit_of(&key))?;
        if last < indexed {
            return Err(Error::corrupted(format!("commits {} to {indexed} are missing from the log", last + 1))
                .with_hint("restore the data directory from a copy"));
        }
        let mut next = indexed + 1;
        while next <= last {
            let found = self.pairs.range(Space::Commits, &next.to_be_bytes(), None, INDEX_LAG)?;
            for (key, value) in found {
                let id = commit_of(&key)?;
                if id != next {
                    return Err(missing(next));
                }
                let commit = stored::read(id, &value)?;
                self.note(&commit)?;
                next += 1;
            }
        }
        self.recent.write().last = last;
        Ok(())
    }

    fn discard_leftovers(&mut self) -> Result<()> {
        let last = self.pairs.last(Space::Staged, None)?;
        self.next_stage_id = last.map_or(Ok(0), |(key, _)| commit_of(&key))? + 1;
        for (key, _) in scan(&*self.pairs, Space::Meta, b"s")? {
            self.store.delete(Space::Staged, &key[1..])?;
            self.store.delete(Space::Meta, &key)?;
        }
        Ok(())
    }

    /// What a commit does to index, heads and producers.
    fn note(&mut self, commit: &CommitRecord) -> Result<()> {
        let mut recent = self.recent.write();
        for (number, batch) in commit.batches.iter().enumerate() {
            let Position { relation, partition, .. } = batch.header.position();
            recent.index.insert(batch.header.position(), (commit.id, number as u32));
            let head = head_mut(&mut recent.heads, &*self.pairs, relation)?;
            let partition = partition as usize;
            if head.next_offsets.len() <= partition {
                head.next_offsets.resize(partition + 1, 0);
            }
            head.next_offsets[partition] = batch.header.next_offset();
            head.commit = commit.id;
        }
        for (relation, time) in &commit.watermarks {
            let head = head_mut(&mut recent.heads, &*self.pairs, *relation)?;
            head.watermark = Some(*time);
            head.commit = commit.id;
        }
        recent.producers.extend(commit.producers.iter().copied());
        recent.last = commit.id;
        Ok(())
    }

    /// Write what is only in memory of index, heads and producers.
    fn write_index(&mut self) -> Result<()> {
        let recent = self.recent.clone();
        let last = {
            let recent = recent.read();
            for (position, (commit, number)) in &recent.index {
                let mut value = commit.to_le_bytes().to_vec();
                value.extend_from_slice(&number.to_le_bytes());
                self.put(Space::Index, &index_key(position), &seal(value))?;
            }
            for (relation, head) in &recent.heads {
                let value = serde_json::to_vec(head).map_err(|e| Error::internal(e.to_string()))?;
                self.put(Space::Meta, &meta_key(b'h', &relation.to_be_bytes()), &seal(value))?;
            }
            for (producer, sequence) in &recent.producers {
                self.put(Space::Meta, &meta_key(b'p', &producer.to_be_bytes()), &seal(sequence.to_le_bytes().to_vec()))?;
            }
            self.put(Space::Meta, b"m", &seal(recent.last.to_le_bytes().to_vec()))?;
            recent.last
        };
        *self.recent.write() = Recent { last, indexed: last, ..Recent::default() };
        Ok(())
    }

    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        self.unflushed += key.len() + value.len();
        self.store.put(space, key, value)
    }

    /// Remove one payload of a dropped relation. Damage on the way does not matter any more.
    fn remove_payload(&mut self, (id, number): Spot) -> Result<()> {
        let Some(value) = self.pairs.get(Space::Commits, &id.to_be_bytes())? else { return Ok(()) };
        let Ok(mut commit) = stored::read(id, &value) else { return Ok(()) };
        let Some(batch) = commit.batches.get_mut(number as usize) else { return Ok(()) };
        match batch.place {
            Place::Apart(apart) => self.store.delete(Space::Payloads, &apart.to_be_bytes()),
            Place::Staged(staged) => self.store.delete(Space::Staged, &staged.to_be_bytes()),
            Place::Gone => Ok(()),
            Place::Inline(_) => {
                batch.place = Place::Gone;
                let value = stored::write(&commit)?;
                self.put(Space::Commits, &id.to_be_bytes(), &value)
            }
        }
    }
}

impl<S: Store> Log for StoredLog<S> {
    fn append(&mut self, mut commit: CommitRecord) -> Result<()> {
        let id = commit.id;
        assert_eq!(id, self.recent.read().last + 1, "commits are numbered without gaps");
        let mut inline = 0;
        for (number, batch) in commit.batches.iter_mut().enumerate() {
            match &batch.place {
                Place::Inline(payload) if inline + payload.len() > INLINE_BYTES => {
                    let apart = apart_id(id, number)?;
                    self.unflushed += payload.len();
                    self.store.put(Space::Payloads, &apart.to_be_bytes(), payload)?;
                    batch.place = Place::Apart(apart);
                }
                Place::Inline(payload) => inline += payload.len(),
                Place::Staged(staged) => self.store.delete(Space::Meta, &meta_key(b's', &staged.to_be_bytes()))?,
                Place::Apart(_) | Place::Gone => {}
            }
        }
        let value = stored::write(&commit)?;
        if value.len() > limits::STORED_VALUE_BYTES {
            return Err(Error::internal(format!("commit {id} has {} batches, too many for one value", commit.batches.len())));
        }
        self.put(Space::Commits, &id.to_be_bytes(), &value)?;
        if !commit.changes.is_empty() {
            let changes = serde_json::to_vec(&commit.changes).map_err(|e| Error::internal(e.to_string()))?;
            self.put(Space::Meta, &meta_key(b'c', &id.to_be_bytes()), &seal(changes))?;
        }
        self.note(&commit)?;
        let lags = {
            let recent = self.recent.read();
            recent.index.len() >= INDEX_LAG || recent.last - recent.indexed >= INDEX_LAG as u64
        };
        if lags { self.write_index() } else { Ok(()) }
    }

    fn next_stage_id(&self) -> u64 {
        self.next_stage_id
    }

    fn stage(&mut self, id: u64, payload: &Bytes) -> Result<()> {
        self.next_stage_id = self.next_stage_id.max(id + 1);
        self.put(Space::Staged, &id.to_be_bytes(), payload)?;
        self.put(Space::Meta, &meta_key(b's', &id.to_be_bytes()), &[])
    }

    fn discard(&mut self, id: u64) -> Result<()> {
        self.store.delete(Space::Staged, &id.to_be_bytes())?;
        self.store.delete(Space::Meta, &meta_key(b's', &id.to_be_bytes()))
    }

    fn purge(&mut self, relation: RelationId, limit: usize) -> Result<bool> {
        self.write_index()?;
        let (from, to) = (relation.to_be_bytes(), (u64::from(relation) + 1).to_be_bytes());
        let found = self.pairs.range(Space::Index, &from, Some(&to[4..]), limit)?;
        for (key, value) in &found {
            if let Ok(spot) = spot_of(value) {
                self.remove_payload(spot)?;
            }
            self.store.delete(Space::Index, key)?;
        }
        let done = found.len() < limit;
        if done {
            self.store.delete(Space::Meta, &meta_key(b'h', &from))?;
        }
        Ok(done)
    }

    fn flush(&mut self) -> Result<()> {
        let last = self.recent.read().last;
        self.store.flush(last)?;
        self.unflushed = 0;
        Ok(())
    }

    fn unflushed(&self) -> usize {
        self.unflushed
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(StoredReader { pairs: self.pairs.clone(), recent: self.recent.clone() })
    }
}

struct StoredReader {
    pairs: Arc<dyn Pairs>,
    recent: Arc<RwLock<Recent>>,
}

impl LogReader for StoredReader {
    fn last_commit(&self) -> Result<CommitId> {
        Ok(self.recent.read().last)
    }

    fn commits(&self, from: CommitId, limit: usize) -> Result<Vec<CommitRecord>> {
        let mut commits = Vec::new();
        for (key, value) in self.pairs.range(Space::Commits, &from.to_be_bytes(), None, limit)? {
            let (id, expected) = (commit_of(&key)?, from + commits.len() as u64);
            if id != expected {
                return Err(missing(expected));
            }
            commits.push(stored::read(id, &value)?);
        }
        Ok(commits)
    }

    fn payload(&self, batch: &StoredBatch) -> Result<Bytes> {
        let damaged = |what: &str| {
            Error::corrupted(format!("the stored batch of {} (commit {}) is damaged: {what}", batch.header, batch.header.commit))
        };
        let payload = match &batch.place {
            Place::Inline(payload) => Some(payload.clone()),
            Place::Apart(id) => self.pairs.get(Space::Payloads, &id.to_be_bytes()).map_err(|e| damaged(e.message()))?,
            Place::Staged(id) => self.pairs.get(Space::Staged, &id.to_be_bytes()).map_err(|e| damaged(e.message()))?,
            Place::Gone => None,
        };
        let payload = payload.ok_or_else(|| damaged("its rows are missing"))?;
        if payload.len() != batch.len as usize {
            return Err(damaged("its length does not match"));
        }
        if crc32fast::hash(&payload) != batch.crc {
            return Err(damaged("its checksum does not match"));
        }
        Ok(payload)
    }

    fn batches(&self, relation: RelationId, partition: u32, offset: u64, limit: usize) -> Result<Vec<Result<StoredBatch>>> {
        let mut commit: Option<(CommitId, Result<CommitRecord>)> = None;
        let mut batches = Vec::new();
        // One more: whether the first still contains the offset shows only when it was read.
        for (position, spot) in self.spots(relation, partition, offset, limit.saturating_add(1))? {
            let batch = spot.and_then(|(id, number)| {
                if commit.as_ref().is_none_or(|(known, _)| *known != id) {
                    commit = Some((id, self.commit(id)));
                }
                match &commit {
                    Some((_, Ok(commit))) => Ok(commit.batches.get(number as usize).cloned()),
                    Some((_, Err(error))) => Err(error.clone()),
                    None => Ok(None),
                }
            });
            let Position { base_offset, .. } = position;
            batches.push(match batch {
                Ok(Some(batch)) if batch.header.next_offset() <= offset => continue,
                Ok(Some(batch)) if batch.header.position() == position => Ok(batch),
                Ok(_) => Err(Error::corrupted(format!(
                    "relation {relation}, partition {partition}, offset {base_offset}: the index leads to another batch"
                ))),
                Err(error) => {
                    let message = error.message();
                    Err(Error::corrupted(format!(
                        "relation {relation}, partition {partition}, from offset {base_offset}: {message}"
                    )))
                }
            });
        }
        batches.truncate(limit);
        Ok(batches)
    }

    fn heads(&self) -> Result<Vec<(RelationId, Head)>> {
        let recent = self.recent.read();
        let mut heads = BTreeMap::new();
        for (key, value) in scan(&*self.pairs, Space::Meta, b"h")? {
            heads.insert(relation_of(&key)?, parse_head(&value)?);
        }
        heads.extend(recent.heads.iter().map(|(relation, head)| (*relation, head.clone())));
        Ok(heads.into_iter().collect())
    }

    fn producers(&self) -> Result<Vec<(u64, u64)>> {
        let recent = self.recent.read();
        let mut producers = BTreeMap::new();
        for (key, value) in scan(&*self.pairs, Space::Meta, b"p")? {
            let sequence = unseal(&value, "producer")?.try_into().map(u64::from_le_bytes);
            producers.insert(commit_of(&key[1..])?, sequence.map_err(|_| malformed("producer"))?);
        }
        producers.extend(&recent.producers);
        Ok(producers.into_iter().collect())
    }

    fn changes(&self) -> Result<Vec<(CommitId, Change)>> {
        let mut all = Vec::new();
        for (key, value) in scan(&*self.pairs, Space::Meta, b"c")? {
            let id = commit_of(&key[1..])?;
            let content = unseal(&value, &format!("catalog change of commit {id}"))?;
            let changes: Vec<Change> = serde_json::from_slice(content)
                .map_err(|e| Error::corrupted(format!("the stored catalog change of commit {id} cannot be read: {e}")))?;
            all.extend(changes.into_iter().map(|change| (id, change)));
        }
        Ok(all)
    }

    fn size(&self) -> Result<u64> {
        self.pairs.size()
    }

    fn has_room_for(&self, bytes: usize) -> Result<()> {
        self.pairs.has_room_for(bytes)
    }
}

impl StoredReader {
    fn commit(&self, id: CommitId) -> Result<CommitRecord> {
        let value = self.pairs.get(Space::Commits, &id.to_be_bytes())?;
        stored::read(id, &value.ok_or_else(|| missing(id))?)
    }

    /// Where the batches are from the last that starts at or before `offset`, on disk and in memory.
    fn spots(&self, relation: RelationId, partition: u32, offset: u64, limit: usize) -> Result<Vec<(Position, Result<Spot>)>> {
        let at = |base_offset| Position { relation, partition, base_offset };
        // Held all the time, so that nothing moves from memory to disk between the two looks.
        let recent = self.recent.read();
        let in_memory = recent.index.range(at(0)..=at(offset)).next_back().map(|(position, _)| *position);
        let mut spots = Vec::new();
        if in_memory.is_none() {
            let mut from = index_key(&at(offset));
            let before = self.pairs.last(Space::Index, Some(&after(&from)))?;
            if let Some((key, _)) = before.filter(|(key, _)| key.len() == from.len() && key[..8] == from[..8]) {
                from.copy_from_slice(&key);
            }
            let mut to = index_key(&at(u64::MAX)).to_vec();
            to.push(0);
            for (key, value) in self.pairs.range(Space::Index, &from, Some(&to), limit)? {
                spots.push((position_of(&key)?, spot_of(&value)));
            }
        }
        let from = in_memory.unwrap_or(at(offset));
        let rest = limit.saturating_sub(spots.len());
        spots.extend(recent.index.range(from..=at(u64::MAX)).take(rest).map(|(position, spot)| (*position, Ok(*spot))));
        Ok(spots)
    }
}

fn head_mut<'a>(heads: &'a mut BTreeMap<RelationId, Head>, pairs: &dyn Pairs, relation: RelationId) -> Result<&'a mut Head> {
    use std::collections::btree_map::Entry;
    match heads.entry(relation) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let stored = pairs.get(Space::Meta, &meta_key(b'h', &relation.to_be_bytes()))?;
            Ok(entry.insert(stored.map_or(Ok(Head::default()), |value| parse_head(&value))?))
        }
    }
}

fn parse_head(value: &[u8]) -> Result<Head> {
    serde_json::from_slice(unseal(value, "head of a relation")?).map_err(|_| malformed("head of a relation"))
}

fn read_marker(pairs: &dyn Pairs) -> Result<CommitId> {
    let Some(value) = pairs.get(Space::Meta, b"m")? else { return Ok(0) };
    unseal(&value, "index marker")?.try_into().map(u64::from_le_bytes).map_err(|_| malformed("index marker"))
}

/// All pairs whose keys start with `prefix`.
fn scan(pairs: &dyn Pairs, space: Space, prefix: &[u8; 1]) -> Result<Vec<(Bytes, Bytes)>> {
    pairs.range(space, prefix, Some(&[prefix[0] + 1]), usize::MAX)
}

fn meta_key(kind: u8, id: &[u8]) -> Vec<u8> {
    [&[kind], id].concat()
}

fn index_key(position: &Position) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&position.relation.to_be_bytes());
    key[4..8].copy_from_slice(&position.partition.to_be_bytes());
    key[8..].copy_from_slice(&position.base_offset.to_be_bytes());
    key
}

/// The least key after `key`.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn position_of(key: &[u8]) -> Result<Position> {
    let key: &[u8; 16] = key.try_into().map_err(|_| malformed("index key"))?;
    let (relation, partition) = (u32_at(key, 0).swap_bytes(), u32_at(key, 4).swap_bytes());
    Ok(Position { relation, partition, base_offset: u64_at(key, 8).swap_bytes() })
}

fn spot_of(value: &[u8]) -> Result<Spot> {
    let value: &[u8; 12] = unseal(value, "index entry")?.try_into().map_err(|_| malformed("index entry"))?;
    Ok((u64_at(value, 0), u32_at(value, 8)))
}

/// The number a key of 8 bytes stands for.
fn commit_of(key: &[u8]) -> Result<u64> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| malformed("key"))
}

fn relation_of(key: &[u8]) -> Result<RelationId> {
    key[1..].try_into().map(u32::from_be_bytes).map_err(|_| malformed("key"))
}

fn malformed(what: &str) -> Error {
    Error::corrupted(format!("a stored {what} is malformed"))
}

fn missing(id: CommitId) -> Error {
    Error::corrupted(format!("commit {id} is missing from the log"))
}

/// A payload's key: unique, and rising with the commits.
fn apart_id(commit: CommitId, number: usize) -> Result<u64> {
    const BITS: u32 = 20;
    let fits = number < 1 << BITS && commit < 1 << (u64::BITS - BITS);
    fits.then_some(commit << BITS | number as u64).ok_or_else(|| Error::internal("a commit has too many batches"))
}
