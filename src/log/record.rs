//! The bytes of a stored batch.

use super::CommitId;
use crate::catalog::RelationId;
use crate::time::Micros;

/// What the rows of a batch do to their relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows of a stream.
    Append,
    /// Rows of a table that replace those of the same key.
    Upsert,
    /// Rows of a table that are gone; only the key's columns count.
    Delete,
}

/// What is known of a batch without decoding it. Together with the rows it holds all that can influence a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub relation: RelationId,
    pub partition: u32,
    /// Offset of the first row; the others follow without a gap.
    pub base_offset: u64,
    pub rows: u32,
    /// Columns stored: a relation that has gained columns since has more.
    pub columns: u16,
    pub kind: Kind,
    pub commit: CommitId,
    /// Ingestion time of all rows.
    pub commit_time: Micros,
    /// The relation's watermark *before* this commit ([`crate::time::NO_TIME`] if it had none): what lateness is judged by.
    pub watermark: Micros,
    pub event_times: Option<(Micros, Micros)>,
    pub producer: Option<(u64, u64)>,
}
