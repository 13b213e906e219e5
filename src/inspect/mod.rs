//! Looking into a data directory that no server uses: what is in it, and is it intact?
//!
//! [`dump()`] prints everything as text: catalog, commits with their rows, the newest checkpoint. [`check()`] reads every record,
//! compares checksums, decodes, and follows offsets, commit numbers, times and watermarks; what is wrong is reported by stream,
//! partition and offset, and the rest goes on being checked.

mod check;
mod dump;
mod state;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;

pub use self::check::check;
pub use self::dump::dump;
use crate::catalog::{Relation, RelationId};
use crate::error::{Error, Result};
use crate::log::datadir::DataDir;
use crate::log::{Kind, LogReader, StoredBatch, record};
use crate::time::{Micros, NO_TIME};

/// A directory that is there already; looking must not make one.
fn open(dir: &Path) -> Result<DataDir> {
    if !dir.join("FORMAT").is_file() {
        return Err(Error::io(format!("{} is no data directory of Tidegate: it has no file FORMAT", dir.display()))
            .with_hint("name the directory of a server with --data-dir"));
    }
    DataDir::open(dir)
}

/// A stored batch with the columns it was written with. In a delete all but the key may be null.
fn decode(reader: &dyn LogReader, relation: &Relation, stored: &StoredBatch) -> Result<RecordBatch> {
    let mut schema = relation.stored_schema();
    if stored.header.kind == Kind::Delete {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    }
    record::decode(&stored.header, &reader.payload(stored)?, &schema)
}

fn called(relation: Option<&Relation>, id: RelationId) -> String {
    relation.map_or_else(|| format!("relation {id}"), |r| format!("{} {}", r.kind.noun(), r.full_name()))
}

fn instant(at: Micros) -> String {
    match chrono::DateTime::from_timestamp_micros(at) {
        _ if at == NO_TIME => "none".to_string(),
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        None => at.to_string(),
    }
}
