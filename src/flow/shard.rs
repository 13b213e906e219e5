//! Which worker owns which key.
//!
//! An operator with an exchange has one instance per worker, and each owns the keys of its shard, by their hash. The hash has
//! constant seeds and no result depends on it: state that one number of workers has saved is dealt out anew to another.

use arrow::array::{ArrayRef, UInt32Array};

use crate::delta::keys;
use crate::error::Result;

/// Which part of the keys an instance of a sharded operator owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

impl Shard {
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };

    /// The rows whose keys it owns.
    pub fn owned(self, keys: &[ArrayRef], rows: usize) -> Result<UInt32Array> {
        let shards = shards(keys, rows, self.of)?;
        Ok((0..rows as u32).filter(|row| shards[*row as usize] as usize == self.index).collect::<Vec<_>>().into())
    }
}

/// The shard that owns each row. Without keys there is one owner.
pub fn shards(keys: &[ArrayRef], rows: usize, of: usize) -> Result<Vec<u32>> {
    if keys.is_empty() || of == 1 {
        return Ok(vec![0; rows]);
    }
    // The upper half of the hash: the tables behind use the lower one.
    Ok(keys::hashes(keys, rows)?.into_iter().map(|hash| ((hash >> 32) % of as u64) as u32).collect())
}

/// The rows of each shard, in order.
pub fn split(shards: &[u32], of: usize) -> Vec<UInt32Array> {
    let mut indices = vec![Vec::with_capacity(shards.len() / of + 1); of];
    for (row, shard) in shards.iter().enumerate() {
        indices[*shard as usize].push(row as u32);
    }
    indices.into_iter().map(UInt32Array::from).collect()
}
