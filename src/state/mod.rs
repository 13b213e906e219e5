//! State: what operators remember, and how it survives a restart without being truth.
//!
//! A [`StateTable`] is memory that knows what changed in it since it was last asked. The engine asks at a checkpoint, which is
//! cheap, and a thread of its own writes the changes as chunks of Arrow ([`checkpoint`]): per table a base and the deltas since,
//! merged when the deltas outgrow the base. All of one checkpoint becomes visible in one flush, with its commit number. Delete
//! the whole store and the log brings it back, row for row.

pub mod checkpoint;
mod chunk;
mod manifest;
pub mod memory;
mod merge;
pub mod sled;
#[cfg(test)]
mod tests;
pub mod writer;

use arrow::datatypes::SchemaRef;

use crate::delta::Delta;
use crate::error::Result;

/// State of one operator, owned by the engine in all but the using of it.
///
/// Its content is a set of rows. `changes` and `load` speak of it in deltas: a row with weight +1 is there (if the table has a
/// key, instead of the former row of that key), with weight -1 it is gone (if the table has a key, only the key's columns
/// count). Weights of a table without a key add up.
pub trait StateTable: Send {
    /// Name within the operator, for messages and the dump.
    fn name(&self) -> &'static str;

    fn schema(&self) -> SchemaRef;

    /// How many of the first columns are the key; 0: none, the rows are a multiset.
    fn key_columns(&self) -> usize;

    /// What changed since the last call (or since `load`), in order. Must be cheap: it runs between two steps.
    fn changes(&mut self) -> Result<Vec<Delta>>;

    /// Take in content that `changes` once gave, chunk after chunk, in order. Rows that this instance does not own (another
    /// shard does) are passed over.
    fn load(&mut self, delta: Delta) -> Result<()>;

    /// Rows held, for figures and for tests that watch eviction.
    fn rows(&self) -> usize;

    /// Bytes held, roughly.
    fn bytes(&self) -> usize;
}

/// A small ordered key-value store with atomic flush: what a checkpoint needs of a disk.
pub trait StateStore: Send {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    fn delete(&mut self, key: &[u8]) -> Result<()>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// All pairs whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// All puts and deletes since the last flush are on disk, together.
    fn flush(&mut self) -> Result<()>;
    /// Bytes on disk.
    fn size(&self) -> Result<u64>;
    /// Delete everything.
    fn clear(&mut self) -> Result<()>;
}
