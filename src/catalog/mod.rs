//! What relations exist, and what they look like.
//!
//! The catalog changes only by commits of the log ([`Change`]); so it has a state at every commit, and a snapshot holds the
//! one that belongs to its data. A relation's id is never reused; its name may be.
//!
//! * [`schema`]: where relations are, and how their names are found;
//! * [`check`]: what must not be false of a row;
//! * [`index`]: by which columns rows are found quickly;
//! * [`function`]: functions that users define;
//! * [`role`]: who there is;
//! * [`acl`]: what was granted to whom;
//! * [`rights`]: what one role may do, all in all.

pub mod acl;
pub mod check;
pub mod function;
pub mod index;
pub mod rights;
pub mod role;
pub mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use acl::{Access, Acl, Object};
use check::Check;
use function::{Function, FunctionId, FunctionRef};
use index::Index;
use role::{Role, RoleId, Roles};
use schema::{PUBLIC, RelationName, SchemaId, Schemas};

use crate::time::Micros;

/// As of the log.
type CommitId = u64;

/// Identifies a relation for ever. Also its Postgres OID, so it starts where user objects do there.
pub type RelationId = u32;

/// The first id of a user's relation.
pub const FIRST_RELATION: RelationId = 16384;

/// No relation: what commit time is called among the sources of a frontier. Its watermark is the time of the last commit.
pub const COMMIT_TIME: RelationId = 0;

/// The hidden key of a table without a primary key.
pub const ROW_ID: &str = "_row_id";

/// Where the ids of sequences start; relation ids stay far below.
const SEQUENCES: RelationId = 0x7000_0000;

/// What the numbering of a table's rows is called among the watermarks of the log, and in pg_class.
pub fn sequence_of(table: RelationId) -> RelationId {
    SEQUENCES + table
}

/// The table whose rows it numbers, if it is the id of a sequence.
pub fn numbered_by(sequence: RelationId) -> Option<RelationId> {
    sequence.checked_sub(SEQUENCES)
}

/// What stands before the query's columns in a changelog.
pub const CHANGELOG_COLUMNS: [&str; 2] = ["commit", "diff"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Append-only, in the log, partitioned.
    Stream,
    /// Upserts and deletes by key, in the log; read as its current rows. Without a primary key its key is a hidden row id.
    Table,
    /// The stored result of a continuous query. Nothing of it is in the log.
    MaterializedView,
    /// A name for a query; nothing is stored.
    View,
    /// `view$late`: the late rows of a view. Append-only; a cache like the view.
    Late,
    /// Its query's changes go to another system ([`crate::connect::sink`]). It has no rows of its own.
    Sink,
    /// A running `INSERT INTO … SELECT … EMIT CHANGES`. It has no rows of its own: they go to another relation.
    Query,
}

impl Kind {
    /// Its rows are stored in the log.
    pub fn in_log(self) -> bool {
        matches!(self, Kind::Stream | Kind::Table)
    }

    /// As messages call it: "stream", "table", …
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Stream => "stream",
            Kind::Table => "table",
            Kind::MaterializedView => "materialized view",
            Kind::View => "view",
            Kind::Late => "late-row relation",
            Kind::Query => "query",
            Kind::Sink => "sink",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
    /// The type in SQL, as PostgreSQL would print it: `numeric(10,2)`, `timestamp(3) without time zone`.
    pub sql_type: String,
    pub nullable: bool,
    /// SQL of the value of a column that an INSERT leaves out.
    pub default: Option<String>,
    /// SQL of a computed column over the other columns; never written by users.
    pub generated: Option<String>,
    /// The column numbers its table's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// `SERIAL`, or `GENERATED … AS IDENTITY`: what an INSERT puts into the column that it leaves out is the next number.
///
/// The next number is one step above the greatest that the column has ever had, given or generated: like a watermark a function
/// of the log, which keeps it as the watermark of the column's [`sequence_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// INSERT and UPDATE may not give a value themselves.
    pub always: bool,
    pub start: i64,
    pub step: i64,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity { always: false, start: 1, step: 1 }
    }
}

/// `WATERMARK FOR column AS expression`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    /// Index of the event-time column.
    pub column: usize,
    /// SQL over the stream's columns whose greatest value so far is the watermark.
    pub expression: String,
    /// Of a derived stream: the watermark is what its query's sources have reached, and not computed from the rows; the
    /// expression only says which column it speaks of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub carried: bool,
}

/// Where the rows of a running query go: those of a derived stream to itself, those of a running INSERT to its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub target: RelationId,
    /// The target's columns that the query fills, in the query's order.
    pub columns: Vec<usize>,
    /// It writes its changes as rows: `commit`, `diff`, and the query's columns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changelog: bool,
    /// Of a derived stream that was given another query: from where on it is this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// Where one query of a derived stream ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// What follows from the commits up to here is the former one's.
    pub consumed: CommitId,
    /// The stream's rows up to this commit are the former one's. [`NOW`] in a change that is not committed yet.
    pub commit: CommitId,
}

/// When the rows of a view appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// Always equal to the batch answer.
    #[default]
    Changes,
    /// Once, when the watermark closes their window.
    Final,
    /// Equal to the batch answer over what was committed before the last whole multiple of so many microseconds.
    Every(Micros),
    /// As Final; but windows are closed, too, when no row of the stream has come for so many microseconds.
    FinalOrSilent(Micros),
}

impl Emit {
    /// Rows appear once, and never change.
    pub fn is_final(self) -> bool {
        matches!(self, Emit::Final | Emit::FinalOrSilent(_))
    }
}

/// When a write is acknowledged (the acks=all, 1, 0 of the field).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the log has taken it. It is flushed like `Interval`, but nobody may count on it.
    None,
    /// When the log has taken it; it is flushed within the interval. What was written since the last flush may be lost with the
    /// process or the machine.
    Interval,
    /// When it is on disk.
    #[default]
    Commit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    pub id: RelationId,
    pub name: String,
    /// The name of the schema that it is in.
    #[serde(default = "public", skip_serializing_if = "is_public")]
    pub schema: String,
    pub kind: Kind,
    pub columns: Vec<Column>,
    /// Indices of the key's columns, in the key's order. Of a view: the key its query is known to have, or empty.
    pub primary_key: Vec<usize>,
    /// Those that users made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Index>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    pub watermark: Option<Watermark>,
    /// Indices of the columns that choose the partition; empty: round robin (stream) or the primary key (table).
    pub partition_by: Vec<usize>,
    pub partitions: u32,
    pub durability: Durability,
    /// What WITH ( … ) said, keys in lower case.
    pub options: BTreeMap<String, String>,
    /// The statement that made it, as the user wrote it.
    pub create_sql: String,
    /// SQL of a view's query, as the user wrote it, without EMIT.
    pub query: Option<String>,
    pub emit: Emit,
    /// Relations that its query reads.
    pub depends_on: Vec<RelationId>,
    /// Functions that its query or its columns call, and which version of them it was made with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionRef>,
    /// Of `name$late`: the view it belongs to. It lives and dies with it.
    pub parent: Option<RelationId>,
    /// Of a derived stream or a running INSERT: where the rows of its query go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Of a query that is paused: the commit that paused it; of a view, also the one that its rows are of. [`NOW`] in a change that is not
    /// committed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<CommitId>,
    /// Of a view: how many columns each relation that its query names had then. Those that come later are not its `*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<RelationId, usize>,
    /// By column that was added later: what the rows of before have in it, see [`crate::log::layout`]; NULL if it is not here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fills: BTreeMap<usize, String>,
}

fn public() -> String {
    PUBLIC.to_string()
}

fn is_public(schema: &str) -> bool {
    schema == PUBLIC
}

/// The option of a query that says what becomes of a row that one of its expressions fails for: `stop` the query, or `null`.
pub const ON_ERROR: &str = "on_error";

/// Whether a query with these options gives NULL where an expression fails for a row.
pub fn gives_null(options: &BTreeMap<String, String>) -> bool {
    options.get(ON_ERROR).is_some_and(|value| value.eq_ignore_ascii_case("null"))
}

/// Stands for the number of the commit that a change will be in.
pub const NOW: CommitId = 0;

impl Relation {
    /// One of which nothing else is said yet, in the schema `public`; `id` 0: it is still to be chosen.
    pub fn new(id: RelationId, name: impl Into<String>, kind: Kind, columns: Vec<Column>) -> Relation {
        Relation {
            id,
            name: name.into(),
            schema: public(),
            kind,
            columns,
            primary_key: Vec::new(),
            indexes: Vec::new(),
            checks: Vec::new(),
            watermark: None,
            partition_by: Vec::new(),
            partitions: 1,
            durability: Durability::Commit,
            options: BTreeMap::new(),
            create_sql: String::new(),
            query: None,
            emit: Emit::Changes,
            depends_on: Vec::new(),
            functions: Vec::new(),
            parent: None,
            output: None,
            comment: None,
            paused: None,
            widths: BTreeMap::new(),
            fills: BTreeMap::new(),
        }
    }

    /// Its name with its schema.
    pub fn full_name(&self) -> RelationName {
        RelationName::new(&self.schema, &self.name)
    }

    /// The user's columns as an Arrow schema: what the log stores and `SELECT *` shows.
    pub fn schema(&self) -> SchemaRef {
        let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), c.nullable);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// What the log stores: the user's columns, and before them [`ROW_ID`] where rows have no key of their own.
    pub fn stored_schema(&self) -> SchemaRef {
        let schema = self.schema();
        if !self.has_row_id() {
            return schema;
        }
        let row_id = Arc::new(Field::new(ROW_ID, DataType::Int64, false));
        Arc::new(Schema::new(std::iter::once(row_id).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
    }

    /// Indices of the key in [`Relation::stored_schema`].
    pub fn stored_key(&self) -> Vec<usize> {
        if self.has_row_id() { vec![0] } else { self.primary_key.clone() }
    }

    /// The columns that its query gives.
    pub fn query_columns(&self) -> &[Column] {
        let lead = if self.output.as_ref().is_some_and(|output| output.changelog) { CHANGELOG_COLUMNS.len() } else { 0 };
        &self.columns[lead..]
    }

    /// As it was when it had so many columns.
    pub fn narrowed(&self, width: usize) -> Relation {
        let mut narrow = self.clone();
        narrow.columns.truncate(width);
        narrow.fills.retain(|column, _| *column < width);
        narrow.indexes.retain(|index| index.columns.iter().all(|column| *column < width));
        narrow
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// A stream whose rows come from its query alone.
    pub fn is_derived(&self) -> bool {
        self.kind == Kind::Stream && self.output.is_some()
    }

    /// The column that numbers the rows.
    pub fn identity(&self) -> Option<(usize, Identity)> {
        self.columns.iter().enumerate().find_map(|(at, column)| Some((at, column.identity?)))
    }

    /// A table without a primary key: rows are told apart by a hidden id.
    pub fn has_row_id(&self) -> bool {
        self.kind == Kind::Table && self.primary_key.is_empty()
    }
}

/// A change of the catalog, as a commit of the log holds it. Applied in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Create(Relation),
    /// The same id with another definition (rename, options, comment, a new column at the end).
    Alter(Relation),
    /// The same id with another query, or over a view that has another one: its rows are made anew.
    Replace(Relation),
    Drop(RelationId),
    /// A new role, or the same with other attributes.
    SetRole(Role),
    DropRole(RoleId),
    /// Who owns an object, and what was granted on it.
    SetAccess(Object, Access),
    /// A new function, a new version of one, or the same version with another name or comment.
    SetFunction(Function),
    DropFunction(FunctionId),
    /// A new schema, or the same with another name or comment; its relations are told of a new name by changes of their own.
    SetSchema(schema::Schema),
    DropSchema(SchemaId),
}

/// All relations at one commit, the roles, and who may do what.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    roles: Roles,
    access: BTreeMap<Object, Access>,
    schemas: Schemas,
    by_id: BTreeMap<RelationId, Arc<Relation>>,
    /// By schema, then by name.
    by_name: BTreeMap<String, BTreeMap<String, RelationId>>,
    /// The versions that are needed, the newest last.
    functions: BTreeMap<FunctionId, Vec<Arc<Function>>>,
    next_id: RelationId,
}

impl Catalog {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(relation) | Change::Alter(relation) | Change::Replace(relation) => {
                let former = self.by_id.insert(relation.id, Arc::new(relation.clone()));
                former.iter().for_each(|former| self.forget_name(former));
                self.by_name.entry(relation.schema.clone()).or_default().insert(relation.name.clone(), relation.id);
                let ids = relation.indexes.iter().map(|index| index.id).chain([relation.id, relation.newest_check()]);
                self.next_id = ids.fold(self.next_id, |next, id| next.max(id + 1));
                self.forget_versions(former.as_deref());
            }
            Change::Drop(id) => {
                if let Some(old) = self.by_id.remove(id) {
                    self.forget_name(&old);
                    self.forget_versions(Some(&old));
                }
                self.access.remove(&Object::Relation(*id));
            }
            Change::SetRole(role) => self.roles.set(role),
            Change::DropRole(id) => {
                self.roles.remove(*id);
                self.access.retain(|object, _| !matches!(object, Object::Default { owner, .. } if owner == id));
            }
            Change::SetAccess(object, access) => {
                self.access.insert(*object, access.clone());
            }
            Change::SetFunction(function) => {
                let versions = self.functions.entry(function.id).or_default();
                versions.retain(|old| old.version != function.version);
                versions.push(Arc::new(function.clone()));
                self.next_id = self.next_id.max(function.id + 1);
                self.forget_versions_of(function.id);
            }
            Change::DropFunction(id) => {
                self.functions.remove(id);
                self.access.remove(&Object::Function(*id));
            }
            Change::SetSchema(schema) => {
                self.schemas.set(schema);
                self.next_id = self.next_id.max(schema.id + 1);
            }
            Change::DropSchema(id) => {
                self.schemas.remove(*id);
                let of_it = |object: &Object| match object {
                    Object::Schema(schema) | Object::Default { schema: Some(schema), .. } => schema == id,
                    _ => false,
                };
                self.access.retain(|object, _| !of_it(object));
            }
        }
    }

    /// Of the functions that a relation called, forget the versions that nothing calls any more.
    fn forget_versions(&mut self, relation: Option<&Relation>) {
        for function in relation.iter().flat_map(|relation| &relation.functions) {
            self.forget_versions_of(function.id);
        }
    }

    fn forget_versions_of(&mut self, id: FunctionId) {
        let Catalog { functions, by_id, .. } = self;
        let Some(versions) = functions.get_mut(&id) else { return };
        let newest = versions.last().map(|newest| newest.version);
        let is_called = |version: &Arc<Function>| by_id.values().any(|r| r.functions.contains(&version.reference()));
        versions.retain(|version| Some(version.version) == newest || is_called(version));
    }

    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// What was ever granted or given away.
    pub fn all_access(&self) -> impl Iterator<Item = (Object, &Access)> {
        self.access.iter().map(|(object, access)| (*object, access))
    }

    /// Of `name$late` and `name$dead`: the owner of what they belong to.
    pub fn owner(&self, object: Object) -> RoleId {
        if let Object::Default { owner, .. } = object {
            return owner;
        }
        let parent = match object {
            Object::Relation(id) => self.get(id).and_then(|r| r.parent).map(Object::Relation),
            _ => None,
        };
        self.access.get(&parent.unwrap_or(object)).map_or(role::SUPERUSER, |access| access.owner)
    }

    /// What was granted, or what stands for nothing having been.
    pub fn acl(&self, object: Object) -> Acl {
        self.explicit_acl(object).cloned().unwrap_or_else(|| object.default_acl(self.owner(object)))
    }

    pub fn explicit_acl(&self, object: Object) -> Option<&Acl> {
        self.access.get(&object)?.acl.as_ref()
    }

    /// Without the relations that are not wanted.
    #[must_use]
    pub fn retaining(&self, wanted: impl Fn(&Relation) -> bool) -> Catalog {
        let mut catalog = self.clone();
        catalog.by_id.retain(|_, relation| wanted(relation));
        let Catalog { by_id, by_name, .. } = &mut catalog;
        by_name.values_mut().for_each(|names| names.retain(|_, id| by_id.contains_key(id)));
        catalog
    }

    pub fn get(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.by_id.get(&id)
    }

    /// In the order of their ids.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_id.values()
    }

    /// A relation comes after all that it depends on. By ids it mostly does; a view that was replaced may read newer ones.
    pub fn in_order(&self) -> Vec<&Arc<Relation>> {
        let mut order = Vec::with_capacity(self.by_id.len());
        let mut seen = HashSet::new();
        self.by_id.keys().for_each(|id| self.visit(*id, &mut seen, &mut order));
        order
    }

    fn visit<'a>(&'a self, id: RelationId, seen: &mut HashSet<RelationId>, order: &mut Vec<&'a Arc<Relation>>) {
        let Some(relation) = self.by_id.get(&id).filter(|_| seen.insert(id)) else { return };
        relation.depends_on.iter().chain(&relation.parent).for_each(|id| self.visit(*id, seen, order));
        order.push(relation);
    }

    /// All that read one of these, directly or through others, with what belongs to them, in order; not these themselves.
    pub fn all_dependents(&self, of: &[RelationId]) -> Vec<Arc<Relation>> {
        let mut reached: HashSet<RelationId> = of.iter().copied().collect();
        let mut found = Vec::new();
        for relation in self.in_order() {
            if relation.depends_on.iter().chain(&relation.parent).any(|id| reached.contains(id)) && reached.insert(relation.id) {
                found.push(Arc::clone(relation));
            }
        }
        found
    }

    /// Those that read `id`, directly.
    pub fn dependents(&self, id: RelationId) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_id.values().filter(move |r| r.depends_on.contains(&id))
    }

    /// `name$dead` of a relation, if it has them.
    pub fn dead_letters_of(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.by_id.values().find(|r| r.kind == Kind::Stream && r.parent == Some(id))
    }

    /// The newest versions of all functions, in the order of their ids.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.values().filter_map(|versions| versions.last())
    }

    /// The newest version.
    pub fn function(&self, id: FunctionId) -> Option<&Arc<Function>> {
        self.functions.get(&id)?.last()
    }

    pub fn function_version(&self, of: FunctionRef) -> Option<&Arc<Function>> {
        self.functions.get(&of.id)?.iter().find(|function| function.version == of.version)
    }

    /// Those that call the function, directly.
    pub fn callers(&self, id: FunctionId) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_id.values().filter(move |r| r.functions.iter().any(|function| function.id == id))
    }

    /// Running queries that write into `id` and are no part of it.
    pub fn writers(&self, id: RelationId) -> impl Iterator<Item = &Arc<Relation>> {
        self.by_id.values().filter(move |r| r.kind == Kind::Query && r.output.as_ref().is_some_and(|o| o.target == id))
    }

    /// All that the rows of these relations are made of, through views, derived streams and running INSERTs; they themselves
    /// among them.
    pub fn upstream(&self, of: impl IntoIterator<Item = RelationId>) -> BTreeSet<RelationId> {
        let mut found = BTreeSet::new();
        let mut next: Vec<RelationId> = of.into_iter().collect();
        while let Some(id) = next.pop() {
            let Some(relation) = self.by_id.get(&id).filter(|_| found.insert(id)) else { continue };
            next.extend(relation.depends_on.iter().chain(&relation.parent));
            next.extend(self.writers(id).flat_map(|query| &query.depends_on));
        }
        found
    }

    /// How many running queries stand behind one another at most: so many commits it may take until a row is everywhere.
    pub fn depth(&self) -> usize {
        let queries: Vec<&Arc<Relation>> = self.by_id.values().filter(|r| r.output.is_some()).collect();
        let mut depths: BTreeMap<RelationId, usize> = BTreeMap::new();
        // Readers come after what they read, but for INSERTs into older relations: as many rounds as there are queries.
        for _ in 0..queries.len() {
            let before = depths.clone();
            for query in &queries {
                let Some(output) = &query.output else { continue };
                let sources = self.upstream(query.depends_on.iter().copied().filter(|id| *id != output.target));
                let behind = sources.iter().filter_map(|id| depths.get(id)).max().copied().unwrap_or(0);
                let depth = depths.entry(output.target).or_default();
                *depth = (*depth).max(behind + 1);
            }
            if before == depths {
                break;
            }
        }
        depths.values().max().copied().unwrap_or(0)
    }

    /// An id that no relation has had. Ids of dropped relations at the very end come back after a restart, unless the log still
    /// knows them: callers take the greater of this and the log's own.
    pub fn next_id(&self) -> RelationId {
        self.next_id.max(FIRST_RELATION)
    }
}
