//! The newest checkpoint of a data directory. Damage here loses nothing: a server computes the state again from the log.

use std::io::Write;

use super::called;
use super::dump::dump_rows;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::log::datadir::DataDir;
use crate::state::checkpoint::Checkpoints;
use crate::state::checkpoint::TableId;
use crate::state::sled;

/// Print the newest checkpoint: what each state table has taken in, in order, with weights.
pub(super) fn dump(data: &DataDir, catalog: &Catalog, out: &mut dyn Write) -> Result<()> {
    let Some(checkpoints) = open(data)? else { return Ok(()) };
    let manifest = match checkpoints.load_manifest() {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(writeln!(out, "state: no checkpoint")?),
        Err(error) => return Ok(writeln!(out, "state: {error}")?),
    };
    writeln!(out, "state: checkpoint of commit {}, {} bytes", manifest.commit, checkpoints.size()?)?;
    for (id, bytes) in manifest.tables() {
        writeln!(out, "  {}, {bytes} bytes", named(id, catalog))?;
        match checkpoints.read_table(id) {
            Err(error) => writeln!(out, "    {error}")?,
            Ok(deltas) => {
                for delta in deltas {
                    let weights: Vec<i64> = (0..delta.len()).map(|row| delta.weight(row)).collect();
                    for (row, weight) in weights.into_iter().enumerate() {
                        write!(out, "    {weight:+}")?;
                        dump_rows(&delta.rows.slice(row, 1), out)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Read every chunk. How many tables there are, and what is wrong.
pub(super) fn check(data: &DataDir, catalog: &Catalog) -> Result<(u64, Vec<String>)> {
    let again = "a server computes it again from the log";
    let checkpoints = match open(data) {
        Ok(Some(checkpoints)) => checkpoints,
        Ok(None) => return Ok((0, Vec::new())),
        Err(error) => return Ok((0, vec![format!("state: {error}; {again}")])),
    };
    let manifest = match checkpoints.load_manifest() {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok((0, Vec::new())),
        Err(error) => return Ok((0, vec![format!("state: {error}; {again}")])),
    };
    let tables: Vec<TableId> = manifest.tables().map(|(id, _)| id).collect();
    let damaged = |id: &TableId| {
        let error = checkpoints.read_table(*id).err()?;
        Some(format!("state of {}: {error}; {again}", named(*id, catalog)))
    };
    Ok((tables.len() as u64, tables.iter().filter_map(damaged).collect()))
}

/// `None` if there is no state store: looking must not make one.
fn open(data: &DataDir) -> Result<Option<Checkpoints>> {
    if !data.state().is_dir() {
        return Ok(None);
    }
    Checkpoints::open(Box::new(sled::open(&data.state())?)).map(Some)
}

fn named(id: TableId, catalog: &Catalog) -> String {
    let relation = called(catalog.get(id.relation).map(AsRef::as_ref), id.relation);
    format!("{relation}, operator {}, table {}", id.node, id.table)
}
