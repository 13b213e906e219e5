//! Changes of a store with a key.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute;

use super::index::Index;
use super::segment;
use super::segments::{Owner, Place};
use super::store::{Applied, Store, replacement};
use crate::delta::{self, Delta};
use crate::error::{Error, Result};

/// The number of a key, and its row in the delta at hand.
#[derive(Clone, Copy)]
struct Row {
    id: u32,
    row: u32,
}

/// What a delta does: at most one row of a key goes and at most one comes.
#[derive(Default)]
struct Change {
    gone: Vec<Row>,
    come: Vec<Row>,
}

impl Store {
    pub(super) fn apply_keyed(&mut self, all: Delta) -> Result<Applied> {
        let ids = self.intern(&self.key_of(&all.rows), all.len())?;
        let applied = self.apply_numbered(all, &ids);
        self.forget(&ids);
        applied
    }

    fn apply_numbered(&mut self, all: Delta, ids: &[u32]) -> Result<Applied> {
        let Some(change) = self.change(&all, ids)? else {
            // Some key comes or goes more than once: add up equal rows, and it must not any more.
            let all = delta::consolidate(&self.schema, &[all])?;
            let ids = self.intern(&self.key_of(&all.rows), all.len())?;
            let Some(change) = self.change(&all, &ids)? else { return Err(self.ambiguous(&all, &ids)) };
            return self.execute(&all, change);
        };
        self.execute(&all, change)
    }

    /// The delta key by key; `None` if rows of a key must be added up first. Rows that go and come again are left out.
    fn change(&mut self, all: &Delta, ids: &[u32]) -> Result<Option<Change>> {
        self.clear(ids);
        let mut change = Change::default();
        for (row, id) in ids.iter().enumerate() {
            let this = Row { id: *id, row: row as u32 };
            let (marks, rows) = match all.weight(row) {
                0 => continue,
                1 => (&mut self.come, &mut change.come),
                -1 => (&mut self.gone, &mut change.gone),
                _ => return Ok(None),
            };
            if marks.set(this.id, this.row).is_some() {
                return Ok(None);
            }
            rows.push(this);
        }
        self.drop_unchanged(all, &mut change)?;
        Ok(Some(change))
    }

    fn drop_unchanged(&mut self, all: &Delta, change: &mut Change) -> Result<()> {
        let paired = change.come.iter().filter_map(|c| self.gone.get(c.id).map(|gone| (c.id, gone, c.row)));
        let pairs: Vec<(u32, u32, u32)> = paired.collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let old = segment::take(&all.rows, &pairs.iter().map(|p| p.1).collect::<Vec<_>>())?;
        let new = segment::take(&all.rows, &pairs.iter().map(|p| p.2).collect::<Vec<_>>())?;
        let same = segment::same_rows(old.columns(), new.columns(), pairs.len())?;
        let unchanged: Vec<u32> = same.values().set_indices().map(|at| pairs[at].0).collect();
        if !unchanged.is_empty() {
            self.gone.clear(&unchanged);
            self.come.clear(&unchanged);
            change.gone.retain(|r| self.gone.get(r.id).is_some());
            change.come.retain(|r| self.come.get(r.id).is_some());
        }
        Ok(())
    }

    /// Check everything, then do everything.
    fn execute(&mut self, all: &Delta, change: Change) -> Result<Applied> {
        self.check(&all.rows, &change)?;
        let come: Vec<u32> = change.come.iter().map(|r| r.row).collect();
        let rows = segment::take(&all.rows, &come)?;
        let gone: Vec<u32> = change.gone.iter().map(|r| r.row).collect();
        let delta = replacement(&self.schema, segment::take(&all.rows, &gone)?, rows.clone())?;
        self.remove(change.gone.iter().map(|r| r.id));
        self.add(&rows, &owners(&change.come));
        Ok(Applied { delta, ids: change.gone.iter().chain(&change.come).map(|r| r.id).collect() })
    }

    fn check(&self, rows: &RecordBatch, change: &Change) -> Result<()> {
        let index = self.keyed_index()?;
        let mut places = Vec::with_capacity(change.gone.len());
        for gone in &change.gone {
            places.push(index.find(gone.id).ok_or_else(|| self.absent(rows, gone.row))?);
        }
        let stored = self.segments.read(&places)?;
        let wanted = segment::take(rows, &change.gone.iter().map(|r| r.row).collect::<Vec<_>>())?;
        let same = segment::same_rows(stored.columns(), wanted.columns(), places.len())?;
        if let Some(at) = (0..same.len()).find(|at| !same.value(*at)) {
            return Err(self.absent(rows, change.gone[at].row));
        }
        match change.come.iter().find(|r| index.find(r.id).is_some() && self.gone.get(r.id).is_none()) {
            Some(second) => Err(self.duplicate(rows, second.row)),
            None => Ok(()),
        }
    }

    /// Of a delta in which a key comes or goes twice: which.
    fn ambiguous(&mut self, all: &Delta, ids: &[u32]) -> Error {
        self.clear(ids);
        for (row, id) in ids.iter().enumerate() {
            let weight = all.weight(row);
            let marks = if weight < 0 { &mut self.gone } else { &mut self.come };
            if marks.set(*id, row as u32).is_some() || weight.abs() > 1 {
                let row = row as u32;
                return if weight < 0 { self.absent(&all.rows, row) } else { self.duplicate(&all.rows, row) };
            }
        }
        Error::internal("a delta was found ambiguous and is not")
    }

    pub(super) fn upsert_keyed(&mut self, rows: RecordBatch) -> Result<Applied> {
        let ids = self.intern(&self.key_of(&rows), rows.num_rows())?;
        let applied = self.upsert_numbered(&rows, &ids);
        if applied.is_err() {
            self.forget(&ids);
        }
        self.clear(&ids);
        applied
    }

    fn upsert_numbered(&mut self, rows: &RecordBatch, ids: &[u32]) -> Result<Applied> {
        for (row, id) in ids.iter().enumerate() {
            self.come.set(*id, row as u32);
        }
        let last = |(row, id): (usize, &u32)| Row { id: *id, row: row as u32 };
        let mut come: Vec<Row> = ids.iter().enumerate().map(last).filter(|r| self.come.get(r.id) == Some(r.row)).collect();
        let index = self.keyed_index()?;
        let (mut replaced, places): (Vec<Row>, Vec<Place>) =
            come.iter().filter_map(|r| index.find(r.id).map(|place| (*r, place))).unzip();
        let mut old = self.segments.read(&places)?;
        let new = segment::take(rows, &replaced.iter().map(|r| r.row).collect::<Vec<_>>())?;
        let same = segment::same_rows(old.columns(), new.columns(), places.len())?;
        if same.true_count() > 0 {
            let unchanged: Vec<u32> = same.values().set_indices().map(|at| replaced[at].id).collect();
            self.come.clear(&unchanged);
            come.retain(|r| self.come.get(r.id).is_some());
            replaced.retain(|r| self.come.get(r.id).is_some());
            old = compute::filter_record_batch(&old, &compute::not(&same)?)?;
        }
        let new = segment::take(rows, &come.iter().map(|r| r.row).collect::<Vec<_>>())?;
        let delta = replacement(&self.schema, old, new.clone())?;
        self.remove(replaced.iter().map(|r| r.id));
        self.add(&new, &owners(&come));
        Ok(Applied { delta, ids: replaced.iter().chain(&come).map(|r| r.id).collect() })
    }

    pub(super) fn delete_keyed(&mut self, rows: &RecordBatch) -> Result<Applied> {
        let key: Vec<ArrayRef> = self.key.iter().filter_map(|k| rows.columns().get(*k).cloned()).collect();
        let fits = |(k, column): (&usize, &ArrayRef)| self.schema.field(*k).data_type() == column.data_type();
        if key.len() != self.key.len() || !self.key.iter().zip(&key).all(fits) {
            return Err(Error::internal("rows to delete have other key columns than their store"));
        }
        let ids = self.intern(&key, rows.num_rows())?;
        let mut there: Vec<(u32, Place)> = Vec::new();
        let index = self.keyed_index()?;
        let places: Vec<Option<Place>> = ids.iter().map(|id| index.find(*id)).collect();
        for (id, place) in ids.iter().zip(places) {
            if let (None, Some(place)) = (self.gone.set(*id, 0), place) {
                there.push((*id, place));
            }
        }
        let old = self.segments.read(&there.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        if old.is_ok() {
            self.remove(there.iter().map(|(id, _)| *id));
        }
        self.forget(&ids);
        Ok(Applied { delta: Delta::weighted(old?, -1), ids: there.into_iter().map(|(id, _)| id).collect() })
    }

    /// Changes as a checkpoint has them: rows with -1 take away whatever their key has, the others replace it.
    pub(super) fn load_keyed(&mut self, delta: &Delta) -> Result<Applied> {
        let Some(diff) = &delta.diff else { return self.upsert_keyed(delta.rows.clone()) };
        let gone: BooleanArray = diff.values().iter().map(|weight| Some(*weight < 0)).collect();
        let deleted = self.delete_keyed(&compute::filter_record_batch(&delta.rows, &gone)?)?.delta;
        let come: BooleanArray = diff.values().iter().map(|weight| Some(*weight > 0)).collect();
        let come = self.upsert_keyed(compute::filter_record_batch(&delta.rows, &come)?)?.delta;
        Ok(Applied { delta: Delta::concat(&self.schema, &[deleted, come])?, ids: Vec::new() })
    }

    fn keyed_index(&self) -> Result<&Index> {
        self.index.as_ref().ok_or_else(|| Error::internal("a store without a key knows no upserts and deletes by key"))
    }

    /// Numbers of keys, with room for them among the marks. To be followed by [`Store::forget`] if rows may have gone.
    pub(super) fn intern(&mut self, key: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        self.keyed_index()?;
        let index = self.index.as_mut().expect("just seen");
        let ids = index.intern(key, rows)?;
        self.gone.reserve(index.end());
        self.come.reserve(index.end());
        Ok(ids)
    }

    /// Clear the marks of these keys, and forget those that have no row.
    pub(super) fn forget(&mut self, ids: &[u32]) {
        self.clear(ids);
        self.index.iter_mut().for_each(|index| index.sweep(ids));
    }

    fn clear(&mut self, ids: &[u32]) {
        self.gone.clear(ids);
        self.come.clear(ids);
    }

    pub(super) fn remove(&mut self, ids: impl Iterator<Item = u32>) {
        let index = self.index.as_mut().expect("rows are removed through an index");
        ids.for_each(|id| self.segments.kill(index.remove(id)));
    }
}

fn owners(rows: &[Row]) -> Vec<Owner> {
    rows.iter().map(|r| Owner { id: r.id, copy: 0 }).collect()
}
