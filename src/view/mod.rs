//! Views: the rows that readers see.
//!
//! A [`Store`] is the engine's side: it takes deltas and knows where each row is. A [`Version`] is the readers' side: the same
//! rows, immutable, shared by reference. A [`Snapshot`] holds a version of every view at one commit, and is swapped in whole.
//!
//! ```text
//!   Delta ──► Store ──version()──► Version ─┐
//!   Delta ──► Store ──version()──► Version ─┼──► Snapshot @commit ──► readers
//! ```

mod changes;
#[cfg(test)]
mod figures;
mod index;
mod keyed;
mod multiset;
mod nulled;
pub mod provider;
mod prune;
mod scan;
mod search;
mod segment;
mod segments;
pub mod store;
#[cfg(test)]
mod store_tests;
mod version;

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Catalog, RelationId};
use crate::log::CommitId;
use crate::time::Micros;

pub use nulled::Nulled;
pub use provider::ViewProvider;
pub use store::{Store, Version};

/// Everything at one commit. Cheap to hold, impossible to change.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub commit: CommitId,
    /// Commit time of `commit`.
    pub time: Micros,
    /// What running queries have written because of the commits up to here is in this snapshot, too.
    pub complete: CommitId,
    pub catalog: Arc<Catalog>,
    /// Rows of tables, materialized views and late-row relations.
    pub versions: HashMap<RelationId, Arc<Version>, ahash::RandomState>,
    /// Watermarks of streams that have one.
    pub watermarks: HashMap<RelationId, Micros, ahash::RandomState>,
    /// The greatest event time so far, of streams that have one. Not of rows before a checkpoint that did not note it.
    pub newest: HashMap<RelationId, Micros, ahash::RandomState>,
    /// Views and running queries that stopped, and why. Their last version stays in `versions`.
    pub failures: HashMap<RelationId, crate::error::Error, ahash::RandomState>,
    /// Of running queries `WITH (on_error = 'null')`: what has failed since they were started.
    pub nulled: HashMap<RelationId, Arc<Nulled>, ahash::RandomState>,
    /// Running queries that write to the log: up to which commit this snapshot shows what they write.
    pub consumed: HashMap<RelationId, CommitId, ahash::RandomState>,
}
