//! Where the row of a key is.
//!
//! Keys are numbered by [`Keys`]; per number stands the place of its row. In a store without a key the whole row is the key,
//! and equal rows are copies of one number: copy 0 has its place here like any row, the others stand in a list, whose order
//! their owners remember. As copies are alike, the last one is always the one that goes.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::segments::{Owner, Place};
use crate::delta::keys::Keys;
use crate::error::Result;

/// The number is not in use.
const RELEASED: Place = Place { slot: u32::MAX, row: 0 };
/// The key has a number and no row.
const NOWHERE: Place = Place { slot: u32::MAX, row: 1 };

pub(super) struct Index {
    keys: Keys,
    /// By number: the place of copy 0.
    first: Vec<Place>,
    /// By number: the places of copies 1, 2, …
    more: HashMap<u32, Vec<Place>, ahash::RandomState>,
}

impl Index {
    pub fn new(types: &[&DataType]) -> Result<Index> {
        Ok(Index { keys: Keys::new(types)?, first: Vec::new(), more: HashMap::default() })
    }

    /// The numbers of `rows` keys. Those that have no row when all is done must be given to [`Index::sweep`].
    pub fn intern(&mut self, key: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let ids = self.keys.intern(key, rows)?;
        self.first.resize(self.keys.end(), RELEASED);
        for id in &ids {
            let first = &mut self.first[*id as usize];
            if *first == RELEASED {
                *first = NOWHERE;
            }
        }
        Ok(ids)
    }

    /// Forget the keys among these that have no row.
    pub fn sweep(&mut self, ids: &[u32]) {
        for id in ids {
            if self.first[*id as usize] == NOWHERE {
                self.first[*id as usize] = RELEASED;
                self.keys.release(*id);
            }
        }
    }

    /// All numbers are below this.
    pub fn end(&self) -> usize {
        self.first.len()
    }

    pub fn find(&self, id: u32) -> Option<Place> {
        Some(self.first[id as usize]).filter(|place| place.slot != u32::MAX)
    }

    pub fn copies(&self, id: u32) -> usize {
        self.find(id).map_or(0, |_| 1 + self.more.get(&id).map_or(0, Vec::len))
    }

    /// A row has come or moved. Copies come in their order.
    pub fn place(&mut self, owner: Owner, place: Place) {
        if owner.copy == 0 {
            self.first[owner.id as usize] = place;
            return;
        }
        let more = self.more.entry(owner.id).or_default();
        let at = owner.copy as usize - 1;
        if at < more.len() {
            more[at] = place;
        } else {
            debug_assert_eq!(at, more.len(), "copies come in order");
            more.push(place);
        }
    }

    /// Take away the last copy of a row that is there.
    pub fn remove(&mut self, id: u32) -> Place {
        if let Some(more) = self.more.get_mut(&id) {
            let place = more.pop().expect("an empty list of copies is dropped");
            if more.is_empty() {
                self.more.remove(&id);
            }
            return place;
        }
        let place = std::mem::replace(&mut self.first[id as usize], NOWHERE);
        debug_assert_ne!(place.slot, u32::MAX, "the row is there");
        place
    }

    pub fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.first.capacity() * size_of::<Place>()
            + self.more.values().map(|m| 64 + m.capacity() * 8).sum::<usize>()
    }
}
