//! By which columns the rows of a relation are found quickly.
//!
//! An index is a word of the catalog and no more: it holds nothing of its own, and what readers need to look rows up they make
//! beside the rows when they first ask ([`crate::view`]). So it costs writers nothing, has nothing to recover, and is as good
//! over a view as over a table.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::schema::RelationName;
use super::{Catalog, Kind, Relation, RelationId};
use crate::limits::NAME_BYTES;

/// Identifies an index for ever; drawn from the same numbers as relations, so that it is an OID of its own.
pub type IndexId = RelationId;

/// Where the ids of primary keys' indexes start; relation ids stay far below.
const KEY_INDEXES: IndexId = 0x1000_0000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub id: IndexId,
    /// In the schema of its relation, where no relation has it.
    pub name: String,
    /// Indices of the relation's columns, in the order they were named.
    pub columns: Vec<usize>,
    /// No two rows share these columns' values. It is the relation's key that sees to that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// It is what the relation's PRIMARY KEY made.
    #[serde(skip)]
    pub primary: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Relation {
    /// A table's key is a constraint, with an index. A view's is a fact about its query: nobody made it, so nobody can drop it
    /// (dbt drops the indexes that it finds on a view and that its project does not name).
    pub fn key_index(&self) -> Option<Index> {
        (self.kind == Kind::Table && !self.primary_key.is_empty()).then(|| Index {
            id: KEY_INDEXES + self.id,
            name: self.key_name(),
            columns: self.primary_key.clone(),
            unique: true,
            primary: true,
            comment: None,
        })
    }

    /// As PostgreSQL calls the constraint: so much of the relation's name as there is room for.
    pub fn key_name(&self) -> String {
        const END: &str = "_pkey";
        format!("{}{END}", &self.name[..self.name.floor_char_boundary(NAME_BYTES - END.len())])
    }

    /// What becomes of users' indexes when another takes this one's place: those remain whose columns it has.
    pub fn indexes_of(&self, other: &Relation) -> Vec<Index> {
        let moved = |index: &Index| {
            let columns = index.columns.iter().map(|column| other.column(&self.columns[*column].name));
            let columns: Vec<usize> = columns.collect::<Option<_>>()?;
            let unique = index.unique && !other.primary_key.is_empty() && other.primary_key.iter().all(|k| columns.contains(k));
            Some(Index { columns, unique, ..index.clone() })
        };
        self.indexes.iter().filter_map(moved).collect()
    }

    /// The columns of users' indexes as columns of [`Relation::stored_schema`].
    pub fn stored_indexes(&self) -> impl Iterator<Item = Arc<[usize]>> {
        let first = usize::from(self.has_row_id());
        self.indexes.iter().map(move |index| index.columns.iter().map(|column| first + column).collect())
    }

    /// The index of its key, and those that users made.
    pub fn all_indexes(&self) -> impl Iterator<Item = Index> {
        self.key_index().into_iter().chain(self.indexes.iter().cloned())
    }
}

impl Catalog {
    /// The relation that has an index of this name, and the index.
    pub fn index_named(&self, name: &RelationName) -> Option<(&Relation, Index)> {
        let mut there = self.relations().filter(|relation| relation.schema == name.schema);
        there.find_map(|relation| Some((&**relation, relation.all_indexes().find(|index| index.name == name.name)?)))
    }
}
