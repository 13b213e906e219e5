//! What a checkpoint consists of: one value that names all others.
//!
//! ```text
//!   manifest/0, manifest/1, …   pieces of:  format 4 · CRC-32 of what follows 4 · length 8 · JSON of `Manifest`
//!   chunk/<number>              pieces of the chunks, numbered without end (big endian)
//! ```
//!
//! A checkpoint is there as soon as its manifest is, and both come in one flush. Chunks that the manifest does not name are
//! garbage: those it has just replaced are listed in it, and those of a checkpoint that was never finished have the numbers
//! that come next. So garbage is found without reading anything.

use serde::{Deserialize, Serialize};

use super::StateStore;
use crate::catalog::RelationId;
use crate::error::{Error, Result};
use crate::limits::STORED_VALUE_BYTES;
use crate::log::CommitId;

/// The version of manifest and chunks. Another one is not read: the log brings everything back.
const FORMAT: u32 = 1;

const HEADER_BYTES: usize = 16;

/// A state table: the relation it works for, the operator in its graph, the table in the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId {
    pub relation: RelationId,
    pub node: u32,
    pub table: u16,
}

/// What a checkpoint knows of a view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewMark {
    pub relation: RelationId,
    /// Of its plan. State under another fingerprint is another view's, and is dropped.
    pub fingerprint: String,
    /// Small things beside the tables.
    #[serde(default)]
    pub extra: serde_json::Value,
    /// The view was built anew since the last checkpoint: what is stored of it is dropped, and the changes given are all.
    #[serde(skip)]
    pub fresh: bool,
}

/// The newest checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The commit whose state this is.
    pub commit: CommitId,
    pub views: Vec<ViewMark>,
    pub meta: serde_json::Value,
    pub(super) tables: Vec<Table>,
    /// Chunk numbers from here on have never been used.
    pub(super) next_chunk: u64,
    /// Numbers that this checkpoint has replaced, first and last.
    pub(super) replaced: Vec<(u64, u64)>,
}

/// Where the changes of a table are, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Table {
    pub id: TableId,
    pub key_columns: usize,
    pub runs: Vec<Run>,
}

/// What was written together: the first is the base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub bytes: u64,
    pub chunks: Vec<Chunk>,
}

/// Pieces under consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub first: u64,
    pub pieces: u64,
    pub bytes: u64,
    pub crc: u32,
}

impl Manifest {
    pub fn view(&self, relation: RelationId) -> Option<&ViewMark> {
        self.views.iter().find(|view| view.relation == relation)
    }

    /// The tables that have content, and their bytes as stored.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, u64)> {
        self.tables.iter().map(|table| (table.id, table.runs.iter().map(|run| run.bytes).sum()))
    }

    pub(super) fn table(&self, id: TableId) -> Option<&Table> {
        self.tables.iter().find(|table| table.id == id)
    }

    pub(super) fn write(&self, store: &mut dyn StateStore) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| Error::internal(format!("a manifest has no JSON: {e}")))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + json.len());
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&json);
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        for (piece, bytes) in bytes.chunks(STORED_VALUE_BYTES).enumerate() {
            store.put(&piece_key(piece), bytes)?;
        }
        // The manifest before may have been longer.
        delete_pieces(store, bytes.len().div_ceil(STORED_VALUE_BYTES))
    }

    pub(super) fn delete(store: &mut dyn StateStore) -> Result<()> {
        delete_pieces(store, 0)
    }

    pub(super) fn read(store: &dyn StateStore) -> Result<Option<Manifest>> {
        let damaged = |what: &str| Error::corrupted(format!("the manifest of the checkpoint is damaged: {what}"));
        let Some(mut bytes) = store.get(&piece_key(0))? else { return Ok(None) };
        let header: [u8; HEADER_BYTES] =
            bytes.get(..HEADER_BYTES).and_then(|b| b.try_into().ok()).ok_or_else(|| damaged("it is too short"))?;
        let format = u32::from_le_bytes(std::array::from_fn(|i| header[i]));
        let crc = u32::from_le_bytes(std::array::from_fn(|i| header[4 + i]));
        let length = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        if format != FORMAT {
            return Err(Error::corrupted(format!("the checkpoint has format {format}, this version reads format {FORMAT}")));
        }
        let mut pieces = 1;
        while ((bytes.len() - HEADER_BYTES) as u64) < length {
            bytes.extend(store.get(&piece_key(pieces))?.ok_or_else(|| damaged("it is cut off"))?);
            pieces += 1;
        }
        if (bytes.len() - HEADER_BYTES) as u64 != length || crc32fast::hash(&bytes[8..]) != crc {
            return Err(damaged("its checksum does not match"));
        }
        serde_json::from_slice(&bytes[HEADER_BYTES..]).map(Some).map_err(|e| damaged(&e.to_string()))
    }
}

fn delete_pieces(store: &mut dyn StateStore, from: usize) -> Result<()> {
    for piece in from.. {
        if store.get(&piece_key(piece))?.is_none() {
            break;
        }
        store.delete(&piece_key(piece))?;
    }
    Ok(())
}

fn piece_key(piece: usize) -> Vec<u8> {
    format!("manifest/{piece}").into_bytes()
}

pub(super) fn chunk_key(number: u64) -> Vec<u8> {
    [b"chunk/".as_slice(), &number.to_be_bytes()].concat()
}
