//! Sinks: where the changes of a query end up, as rows that readers see or as a list of changes for a subscriber.

use std::sync::Arc;

use crate::catalog::RelationId;
use crate::delta::{Delta, consolidate};
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::view::{Store, Version};

/// Who gets the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The rows of a table, a view or a late-row relation.
    Relation(RelationId),
    /// What a running query writes to the log, by the relation that holds the query.
    Output(RelationId),
    /// A running query, by its number.
    Query(u64),
    /// The rows that a view will have from some commit on, by a number.
    Staged(u64),
}

impl Target {
    /// The relation of the catalog that it is of, if there is one.
    pub fn relation(self) -> Option<RelationId> {
        match self {
            Target::Relation(id) | Target::Output(id) => Some(id),
            Target::Query(_) | Target::Staged(_) => None,
        }
    }
}

pub struct Sink {
    pub target: Target,
    kind: Kind,
    pending: Vec<Delta>,
}

enum Kind {
    /// Input is keyed records from the log: +1 puts a row in place of the one with its key, -1 removes the row of that key.
    Table(Store),
    /// Input is a delta of the rows.
    View(Store),
    /// Nothing is kept.
    Changes(arrow::datatypes::SchemaRef),
}

impl Sink {
    pub fn table(relation: RelationId, store: Store) -> Sink {
        Sink { target: Target::Relation(relation), kind: Kind::Table(store), pending: Vec::new() }
    }

    pub fn view(relation: RelationId, store: Store) -> Sink {
        Sink { target: Target::Relation(relation), kind: Kind::View(store), pending: Vec::new() }
    }

    /// The rows of a running query.
    pub fn query(query: u64, store: Store) -> Sink {
        Sink { target: Target::Query(query), kind: Kind::View(store), pending: Vec::new() }
    }

    /// Changes that are passed on and not kept.
    pub fn changes(target: Target, schema: arrow::datatypes::SchemaRef) -> Sink {
        Sink { target, kind: Kind::Changes(schema), pending: Vec::new() }
    }

    /// Take a change. What it does to the rows comes back at once from a table, and from `finish` otherwise.
    pub fn update(&mut self, delta: Delta) -> Result<Option<Delta>> {
        let Kind::Table(store) = &mut self.kind else {
            self.pending.push(delta);
            return Ok(None);
        };
        let changed = match &delta.diff {
            None => store.upsert(&delta.rows)?,
            Some(diff) if diff.values().iter().all(|w| *w == -1) => store.delete(&delta.rows)?,
            Some(_) => return Err(Error::internal("keyed records are put or removed, not weighted")),
        };
        Ok(Some(changed))
    }

    pub fn finish(&mut self) -> Result<Option<Delta>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let pending = std::mem::take(&mut self.pending);
        match &mut self.kind {
            Kind::Table(_) => Ok(None),
            Kind::View(store) => store.apply(&pending).map(Some),
            Kind::Changes(schema) => consolidate(schema, &pending).map(Some),
        }
    }

    /// The rows as they are now; `None` if none are kept.
    pub fn version(&mut self) -> Option<Arc<Version>> {
        match &mut self.kind {
            Kind::Table(store) | Kind::View(store) => Some(store.version()),
            Kind::Changes(_) => None,
        }
    }

    pub fn state(&mut self) -> Option<&mut dyn StateTable> {
        match &mut self.kind {
            Kind::Table(store) | Kind::View(store) => Some(store),
            Kind::Changes(_) => None,
        }
    }
}
