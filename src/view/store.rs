//! The rows of one view, and their immutable versions. (Signatures first.)

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::delta::Delta;
use crate::error::Result;

/// The engine's side of a view: takes changes, knows where each row is.
pub struct Store {}

/// The readers' side: rows at one moment, immutable.
pub struct Version {}

#[expect(unused_variables, reason = "signatures first")]
impl Store {
    /// `key`: columns whose values no two rows share; empty: a multiset of whole rows.
    pub fn new(name: &'static str, schema: SchemaRef, key: Vec<usize>) -> Store {
        unimplemented!()
    }

    /// Apply weights. Taking away what is not there is an error, and so is a second row of the same key.
    /// Returns the consolidated delta that was applied.
    pub fn apply(&mut self, deltas: &[Delta]) -> Result<Delta> {
        unimplemented!()
    }

    /// Rows that replace those of the same key (the last of equal keys wins): the delta this makes.
    pub fn upsert(&mut self, rows: &RecordBatch) -> Result<Delta> {
        unimplemented!()
    }

    /// Remove the rows of these keys, where they are there (only the key's columns of `rows` count): the delta this makes.
    pub fn delete(&mut self, rows: &RecordBatch) -> Result<Delta> {
        unimplemented!()
    }

    /// The rows as they are now. Cheap: shares all but what changed since the last version.
    pub fn version(&mut self) -> Arc<Version> {
        unimplemented!()
    }
}

#[expect(unused_variables, reason = "signatures first")]
impl Version {
    pub fn schema(&self) -> SchemaRef {
        unimplemented!()
    }

    pub fn key(&self) -> &[usize] {
        unimplemented!()
    }

    pub fn rows(&self) -> usize {
        unimplemented!()
    }

    /// All rows, in batches of at most `limits::BATCH_ROWS` or as stored.
    pub fn scan(&self, projection: Option<&[usize]>) -> Result<Vec<RecordBatch>> {
        unimplemented!()
    }

    /// The rows with these key values: one array per key column, a row per key asked for.
    pub fn lookup(&self, keys: &[ArrayRef]) -> Result<RecordBatch> {
        unimplemented!()
    }
}

impl crate::state::StateTable for Store {
    fn name(&self) -> &'static str {
        unimplemented!()
    }
    fn schema(&self) -> SchemaRef {
        unimplemented!()
    }
    fn key_columns(&self) -> usize {
        unimplemented!()
    }
    fn changes(&mut self) -> Result<Vec<Delta>> {
        unimplemented!()
    }
    fn load(&mut self, _delta: Delta) -> Result<()> {
        unimplemented!()
    }
    fn rows(&self) -> usize {
        unimplemented!()
    }
    fn bytes(&self) -> usize {
        unimplemented!()
    }
}
