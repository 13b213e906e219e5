//! Checkpoints: the state of all operators as of one commit, written as changes, read as a whole.
//!
//! A table is a list of runs, each what one checkpoint wrote of it: a base and the changes since. When the runs behind one have
//! outgrown it, they are merged into one with it, so that a table has few runs, a row is rewritten a few times, and the whole
//! is never much larger than what is alive. One flush makes a checkpoint visible; until then the one before it stands whole.
//!
//! Nothing in here is the truth. Damage is an error that says so, on which the caller forgets the state ([`Checkpoints::reset`])
//! and reads the log instead.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::chunk;
use super::manifest::{Chunk, Run, Table, chunk_key};
pub use super::manifest::{Manifest, TableId, ViewMark};
use super::merge::merge;
use super::{StateStore, StateTable};
use crate::catalog::RelationId;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::limits::{STORED_VALUE_BYTES, UNFLUSHED_BYTES};
use crate::log::CommitId;

/// What happened to a state table since the checkpoint before.
#[derive(Clone, Debug)]
pub struct TableChanges {
    pub table: TableId,
    pub schema: SchemaRef,
    pub key_columns: usize,
    pub deltas: Vec<Delta>,
}

impl TableChanges {
    /// Ask a table.
    pub fn collect(id: TableId, table: &mut dyn StateTable) -> Result<TableChanges> {
        let (schema, key_columns) = (table.schema(), table.key_columns());
        Ok(TableChanges { table: id, schema, key_columns, deltas: table.changes()? })
    }
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub commit: CommitId,
    /// All views that have state. What is stored of others is dropped.
    pub views: Vec<ViewMark>,
    pub meta: serde_json::Value,
    /// Only tables that changed need to be here.
    pub tables: Vec<TableChanges>,
}

/// What it took to write a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub commit: CommitId,
    pub chunks: u64,
    pub bytes: u64,
    /// Tables some of whose runs were merged.
    pub merged: u64,
}

/// The checkpoints in a store: the newest one, and the next.
pub struct Checkpoints {
    store: Box<dyn StateStore>,
    manifest: Result<Option<Manifest>>,
    /// The number of the next chunk.
    next: u64,
    /// Bytes put since the last flush.
    unflushed: usize,
    /// A checkpoint that could not be written; its changes go into the next one.
    unsaved: Option<Checkpoint>,
}

impl Checkpoints {
    /// Fails if the store does. Damage of what is in it is told by [`Checkpoints::load_manifest`].
    pub fn open(store: Box<dyn StateStore>) -> Result<Checkpoints> {
        let manifest = Manifest::read(store.as_ref());
        let next = manifest.as_ref().map_or(0, |m| m.as_ref().map_or(0, |m| m.next_chunk));
        let mut checkpoints = Checkpoints { store, manifest, next, unflushed: 0, unsaved: None };
        if let Ok(manifest) = &checkpoints.manifest {
            let replaced = manifest.as_ref().map_or(Vec::new(), |m| m.replaced.clone());
            checkpoints.delete(&replaced)?;
            checkpoints.delete_unfinished()?;
        }
        Ok(checkpoints)
    }

    /// The newest checkpoint; `None` if there is none.
    pub fn load_manifest(&self) -> Result<Option<Manifest>> {
        self.manifest.clone()
    }

    /// All changes of a table, to be loaded in this order.
    pub fn read_table(&self, id: TableId) -> Result<Vec<Delta>> {
        match &self.manifest {
            Ok(Some(manifest)) => manifest.table(id).map_or(Ok(Vec::new()), |table| self.read_runs(id, &table.runs)),
            Ok(None) => Ok(Vec::new()),
            Err(damage) => Err(damage.clone()),
        }
    }

    /// Forget everything: the store is empty, and healthy if its files are.
    pub fn reset(&mut self) -> Result<()> {
        self.store.clear()?;
        self.store.flush()?;
        (self.manifest, self.next, self.unflushed, self.unsaved) = (Ok(None), 0, 0, None);
        Ok(())
    }

    /// Bytes on disk.
    pub fn size(&self) -> Result<u64> {
        self.store.size()
    }

    /// Write a checkpoint; it is on disk when this returns. If it fails the one before stands, and what could not be written
    /// is written with the next one.
    pub fn write(&mut self, checkpoint: Checkpoint) -> Result<Stats> {
        let before = self.manifest.clone()?.unwrap_or_default();
        let checkpoint = match self.unsaved.take() {
            Some(unsaved) => unsaved.followed_by(checkpoint)?,
            None => checkpoint,
        };
        match self.try_write(before, &checkpoint) {
            Ok(stats) => Ok(stats),
            Err(error) => {
                self.unsaved = Some(checkpoint);
                self.take_back();
                Err(error)
            }
        }
    }

    fn try_write(&mut self, before: Manifest, checkpoint: &Checkpoint) -> Result<Stats> {
        let mut stats = Stats { commit: checkpoint.commit, ..Stats::default() };
        let mut tables: BTreeMap<TableId, Table> = before.tables.iter().map(|t| (t.id, t.clone())).collect();
        tables.retain(|id, _| keeps_state(before.view(id.relation), checkpoint.view(id.relation)));
        for changes in &checkpoint.tables {
            let relation = changes.table.relation;
            if checkpoint.view(relation).is_none() {
                return Err(Error::internal(format!("a checkpoint has state of relation {relation}, which it does not name")));
            }
            self.append(&mut tables, changes, &mut stats)?;
        }
        let tables: Vec<Table> = tables.into_values().collect();
        let replaced = replaced(&before.tables, &tables);
        let (views, meta) = (checkpoint.views.clone(), checkpoint.meta.clone());
        let manifest = Manifest { commit: checkpoint.commit, views, meta, tables, next_chunk: self.next, replaced };
        manifest.write(self.store.as_mut())?;
        self.flush()?;
        let replaced = manifest.replaced.clone();
        self.manifest = Ok(Some(manifest));
        // Garbage that stays is found again by the next start: no reason to call a checkpoint failed that is on disk.
        if let Err(error) = self.delete(&replaced) {
            tracing::warn!(%error, "replaced chunks of a checkpoint were not deleted");
        }
        Ok(stats)
    }

    /// Add a run to a table, merging it with those that it outgrows.
    fn append(&mut self, tables: &mut BTreeMap<TableId, Table>, changes: &TableChanges, stats: &mut Stats) -> Result<()> {
        let TableChanges { table: id, key_columns, deltas, .. } = changes;
        let deltas: Vec<Delta> = deltas.iter().filter(|delta| !delta.is_empty()).cloned().collect();
        if deltas.is_empty() {
            return Ok(());
        }
        let new = Table { id: *id, key_columns: *key_columns, runs: Vec::new() };
        let table = tables.entry(*id).or_insert(new);
        let raw: usize = deltas.iter().map(Delta::bytes).sum();
        let kept = outlasting(&table.runs, raw as u64 / 2);
        let mut all = self.read_runs(*id, &table.runs[kept..])?;
        stats.merged += u64::from(kept < table.runs.len());
        all.extend(deltas);
        table.runs.truncate(kept);
        let run = self.write_run(&merge(&all, *key_columns, kept == 0)?, stats)?;
        if !run.chunks.is_empty() {
            table.runs.push(run);
        }
        if table.runs.is_empty() {
            tables.remove(id);
        }
        Ok(())
    }

    fn write_run(&mut self, deltas: &[Delta], stats: &mut Stats) -> Result<Run> {
        let mut run = Run::default();
        for delta in deltas.iter().flat_map(chunk::cut) {
            let bytes = chunk::encode(&delta)?;
            let (first, size) = (self.next, bytes.len() as u64);
            for piece in bytes.chunks(STORED_VALUE_BYTES) {
                self.put(piece)?;
            }
            run.chunks.push(Chunk { first, pieces: self.next - first, bytes: size, crc: crc32fast::hash(&bytes) });
            run.bytes += size;
            stats.chunks += 1;
            stats.bytes += size;
        }
        Ok(run)
    }

    /// Chunks may be flushed before their checkpoint is complete: nobody sees them until its manifest names them.
    fn put(&mut self, piece: &[u8]) -> Result<()> {
        if self.unflushed + piece.len() > UNFLUSHED_BYTES {
            self.flush()?;
        }
        self.store.put(&chunk_key(self.next), piece)?;
        self.next += 1;
        self.unflushed += piece.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.store.flush()?;
        self.unflushed = 0;
        Ok(())
    }

    fn read_runs(&self, id: TableId, runs: &[Run]) -> Result<Vec<Delta>> {
        let chunks = runs.iter().flat_map(|run| &run.chunks);
        let context = || format!("state table {}.{} of relation {}", id.node, id.table, id.relation);
        chunks.map(|chunk| self.read_chunk(chunk).map_err(|e| e.with_context(context()))).collect()
    }

    fn read_chunk(&self, chunk: &Chunk) -> Result<Delta> {
        let mut bytes = Vec::new();
        for number in chunk.first..chunk.first.saturating_add(chunk.pieces) {
            let piece = self.store.get(&chunk_key(number))?;
            bytes.extend(piece.ok_or_else(|| Error::corrupted("a chunk of a checkpoint is missing"))?);
        }
        if bytes.len() as u64 != chunk.bytes || crc32fast::hash(&bytes) != chunk.crc {
            return Err(Error::corrupted("a chunk of a checkpoint is damaged: its checksum does not match"));
        }
        chunk::decode(&bytes)
    }

    /// After a failure: the manifest before is the one that counts, what was put is garbage, and its numbers are free again.
    fn take_back(&mut self) {
        let before = self.manifest.as_ref().ok().and_then(Option::as_ref);
        let start = before.map_or(0, |m| m.next_chunk);
        let restored = match before {
            Some(manifest) => manifest.write(self.store.as_mut()),
            None => Manifest::delete(self.store.as_mut()),
        };
        let garbage = (start < self.next).then(|| (start, self.next - 1));
        if let Err(error) = restored.and_then(|()| self.delete(garbage.as_slice())) {
            tracing::warn!(%error, "a checkpoint that failed was not taken back");
        }
        self.next = start;
    }

    /// Chunks that were flushed ahead of a checkpoint that never came.
    fn delete_unfinished(&mut self) -> Result<()> {
        for number in self.next.. {
            if self.store.get(&chunk_key(number))?.is_none() {
                break;
            }
            self.store.delete(&chunk_key(number))?;
        }
        Ok(())
    }

    /// Delete chunks; it is on disk after the next flush.
    fn delete(&mut self, ranges: &[(u64, u64)]) -> Result<()> {
        for number in ranges.iter().flat_map(|(first, last)| *first..=*last) {
            self.store.delete(&chunk_key(number))?;
        }
        Ok(())
    }
}

impl Checkpoint {
    fn view(&self, relation: RelationId) -> Option<&ViewMark> {
        self.views.iter().find(|view| view.relation == relation)
    }

    /// Two checkpoints as one, the later of them.
    fn followed_by(self, mut later: Checkpoint) -> Result<Checkpoint> {
        let mut tables: BTreeMap<TableId, TableChanges> = BTreeMap::new();
        let kept = |t: &TableChanges| keeps_state(self.view(t.table.relation), later.view(t.table.relation));
        tables.extend(self.tables.iter().filter(|t| kept(t)).map(|t| (t.table, t.clone())));
        for changes in std::mem::take(&mut later.tables) {
            match tables.get_mut(&changes.table) {
                Some(table) => {
                    table.deltas.extend(changes.deltas);
                    table.deltas = merge(&table.deltas, table.key_columns, false)?;
                }
                None => drop(tables.insert(changes.table, changes)),
            }
        }
        for view in &mut later.views {
            view.fresh |= self.views.iter().any(|earlier| earlier.relation == view.relation && earlier.fresh);
        }
        later.tables = tables.into_values().collect();
        Ok(later)
    }
}

/// What was stored of a view is still its state.
fn keeps_state(stored: Option<&ViewMark>, view: Option<&ViewMark>) -> bool {
    match (stored, view) {
        (Some(stored), Some(view)) => !view.fresh && stored.fingerprint == view.fingerprint,
        _ => false,
    }
}

/// How many runs at the beginning are larger than all that comes after them.
fn outlasting(runs: &[Run], new: u64) -> usize {
    let (mut kept, mut after) = (runs.len(), new);
    for (at, run) in runs.iter().enumerate().rev() {
        if after >= run.bytes {
            kept = at;
        }
        after += run.bytes;
    }
    kept
}

/// Numbers of chunks that were in use and are not any more.
fn replaced(before: &[Table], after: &[Table]) -> Vec<(u64, u64)> {
    let chunks = |tables: &[Table]| -> Vec<Chunk> {
        tables.iter().flat_map(|t| &t.runs).flat_map(|run| run.chunks.iter().copied()).collect()
    };
    let kept: std::collections::HashSet<u64> = chunks(after).iter().map(|chunk| chunk.first).collect();
    let gone = chunks(before).into_iter().filter(|chunk| !kept.contains(&chunk.first));
    gone.map(|chunk| (chunk.first, chunk.first + chunk.pieces - 1)).collect()
}
