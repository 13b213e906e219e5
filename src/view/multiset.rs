//! Changes of a store without a key: whole rows and how many copies of each there are.

use arrow::array::{Int64Array, RecordBatch};

use super::index::Index;
use super::segment;
use super::segments::{Owner, Place};
use super::store::{Applied, Store};
use crate::delta::Delta;
use crate::error::{Error, Result};

/// Copies of a row that one delta may add.
const COPIES: i64 = u32::MAX as i64;

/// A distinct row of the delta at hand: its number, where it is, and its weight in all.
struct Sum {
    id: u32,
    row: u32,
    weight: i64,
}

impl Store {
    pub(super) fn apply_multiset(&mut self, all: Delta) -> Result<Applied> {
        let retracts = all.diff.as_ref().is_some_and(|diff| diff.values().iter().any(|weight| *weight < 0));
        if self.index.is_none() && !retracts {
            let weights = (0..all.len()).map(|row| (row as u32, all.weight(row)));
            let rows = segment::take(&all.rows, &repeat(weights)?)?;
            self.add(&rows, &[]);
            return Ok(Applied { delta: Delta::append(rows), ids: Vec::new() });
        }
        self.build_index()?;
        let ids = self.intern(all.rows.columns(), all.len())?;
        let applied = self.apply_sums(&all, &ids);
        self.forget(&ids);
        Ok(Applied { delta: applied?, ids: Vec::new() })
    }

    fn apply_sums(&mut self, all: &Delta, ids: &[u32]) -> Result<Delta> {
        let sums = self.sums(all, ids);
        let index = self.index.as_ref().expect("was built");
        if let Some(missing) = sums.iter().find(|s| index.copies(s.id) as i64 + s.weight < 0) {
            return Err(self.absent(&all.rows, missing.row));
        }
        let added = repeat(sums.iter().map(|s| (s.row, s.weight)))?;
        let mut owners = Vec::with_capacity(added.len());
        for sum in &sums {
            let first = index.copies(sum.id) as u32;
            owners.extend((0..sum.weight.max(0) as u32).map(|copy| Owner { id: sum.id, copy: first + copy }));
        }
        let rows = segment::take(&all.rows, &added)?;
        let applied = if all.diff.is_none() { all.clone() } else { weighted(&all.rows, &sums)? };
        let removed = sums.iter().flat_map(|s| std::iter::repeat_n(s.id, (-s.weight).max(0) as usize));
        self.remove(removed);
        self.add(&rows, &owners);
        Ok(applied)
    }

    /// Equal rows added up, without those that add up to nothing.
    fn sums(&mut self, all: &Delta, ids: &[u32]) -> Vec<Sum> {
        let mut sums: Vec<Sum> = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            let weight = all.weight(row);
            match self.come.get(*id) {
                Some(at) => sums[at as usize].weight += weight,
                None => {
                    self.come.set(*id, sums.len() as u32);
                    sums.push(Sum { id: *id, row: row as u32, weight });
                }
            }
        }
        sums.retain(|sum| sum.weight != 0);
        sums
    }

    /// Number the rows that are there, when the first one goes.
    fn build_index(&mut self) -> Result<()> {
        if self.index.is_some() {
            return Ok(());
        }
        let types: Vec<_> = self.schema.fields().iter().map(|f| f.data_type()).collect();
        let mut index = Index::new(&types)?;
        self.segments.number(|rows, slot| {
            let mut owners = Vec::with_capacity(rows.num_rows());
            for (row, id) in index.intern(rows.columns(), rows.num_rows())?.into_iter().enumerate() {
                let owner = Owner { id, copy: index.copies(id) as u32 };
                index.place(owner, Place { slot, row: row as u32 });
                owners.push(owner);
            }
            Ok(owners)
        })?;
        self.index = Some(index);
        Ok(())
    }
}

fn weighted(rows: &RecordBatch, sums: &[Sum]) -> Result<Delta> {
    let rows = segment::take(rows, &sums.iter().map(|s| s.row).collect::<Vec<_>>())?;
    if sums.iter().all(|s| s.weight == 1) {
        return Ok(Delta::append(rows));
    }
    Ok(Delta::new(rows, Int64Array::from_iter_values(sums.iter().map(|s| s.weight))))
}

/// Rows as often as their weight says; those below zero not at all.
fn repeat(weights: impl Iterator<Item = (u32, i64)>) -> Result<Vec<u32>> {
    let mut rows = Vec::new();
    for (row, weight) in weights {
        if weight > COPIES {
            return Err(Error::limit_exceeded(format!("{weight} copies of one row are more than a view can hold")));
        }
        rows.extend(std::iter::repeat_n(row, weight.max(0) as usize));
    }
    Ok(rows)
}
