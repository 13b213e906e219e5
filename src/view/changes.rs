//! What happened to a store since the last checkpoint.
//!
//! The deltas themselves are kept, as their rows are shared with the store. Rows that come and go again are left out when they
//! have become many, so that a store whose rows change often does not remember every change. With a key that is quick: what
//! happens to the number of a key is in turn a row that goes and one that comes, so only the first and the last matter.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::segment;
use super::store::{Applied, replacement};
use crate::delta::{Delta, consolidate};
use crate::error::Result;

/// Rows of changes that are never worth it.
const ROWS: usize = 128 << 10;

pub(super) struct Changes {
    schema: SchemaRef,
    pending: Vec<Applied>,
    rows: usize,
    /// Consolidate when there are more.
    bound: usize,
}

/// A row of the pending deltas.
type At = (usize, usize);

/// The first row of a key that went, if none came before it, and the last one that came, if it is still there.
#[derive(Clone, Copy, Default)]
struct Ends {
    first: Option<At>,
    last: Option<At>,
}

impl Changes {
    pub fn new(schema: SchemaRef) -> Changes {
        Changes { schema, pending: Vec::new(), rows: 0, bound: ROWS }
    }

    pub fn push(&mut self, applied: Applied) -> Result<()> {
        if applied.delta.is_empty() {
            return Ok(());
        }
        self.rows += applied.delta.len();
        self.pending.push(applied);
        if self.rows > self.bound {
            self.compact()?;
            self.rows = self.pending.iter().map(|applied| applied.delta.len()).sum();
            self.bound = 2 * self.rows + ROWS;
        }
        Ok(())
    }

    pub fn take(&mut self) -> Vec<Delta> {
        (self.rows, self.bound) = (0, ROWS);
        self.pending.drain(..).map(|applied| applied.delta).collect()
    }

    fn compact(&mut self) -> Result<()> {
        if self.pending.iter().all(|applied| applied.delta.diff.is_none()) {
            return Ok(());
        }
        let keyed = self.pending.iter().all(|applied| applied.ids.len() == applied.delta.len());
        let compacted = if keyed { self.by_key()? } else { self.by_row()? };
        self.pending = vec![compacted];
        Ok(())
    }

    fn by_row(&self) -> Result<Applied> {
        let deltas: Vec<Delta> = self.pending.iter().map(|applied| applied.delta.clone()).collect();
        Ok(Applied { delta: consolidate(&self.schema, &deltas)?, ids: Vec::new() })
    }

    fn by_key(&self) -> Result<Applied> {
        let end = self.pending.iter().flat_map(|applied| &applied.ids).max().map_or(0, |id| *id as usize + 1);
        let mut ends = vec![Ends::default(); end];
        for (number, applied) in self.pending.iter().enumerate() {
            for (row, id) in applied.ids.iter().enumerate() {
                let ends = &mut ends[*id as usize];
                match applied.delta.weight(row) > 0 {
                    true => ends.last = Some((number, row)),
                    false if ends.last.take().is_none() => ends.first = Some((number, row)),
                    false => {}
                }
            }
        }
        let ids = |side: fn(&Ends) -> Option<At>| {
            ends.iter().enumerate().filter_map(move |(id, ends)| side(ends).map(|at| (id as u32, at))).unzip()
        };
        let (gone, first): (Vec<u32>, Vec<At>) = ids(|ends| ends.first);
        let (come, last): (Vec<u32>, Vec<At>) = ids(|ends| ends.last);
        let batches: Vec<&RecordBatch> = self.pending.iter().map(|applied| &applied.delta.rows).collect();
        let gather = |at: &[At]| segment::gather(&self.schema, &batches, at, None);
        Ok(Applied { delta: replacement(&self.schema, gather(&first)?, gather(&last)?)?, ids: [gone, come].concat() })
    }
}
