//! What the system relations and functions are about: one session's view of the server at one snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;

use super::definitions::SCHEMAS;
use super::objects::Objects;
use super::value::Value;
use crate::catalog::acl::Object;
use crate::catalog::rights::Rights;
use crate::catalog::role::{RoleId, Roles, SUPERUSER};
use crate::catalog::schema::SearchPath;
use crate::catalog::{Catalog, Kind, Relation, RelationId};
use crate::engine::Backfill;
use crate::error::Result;
use crate::locks::Locks;
use crate::log::CommitId;
use crate::sql::rename;
use crate::time::Micros;
use crate::time::zone::Zone;
use crate::view::Snapshot;

/// The version of PostgreSQL whose catalog this is.
pub const POSTGRES_VERSION: &str = "15.0";
pub const POSTGRES_VERSION_NUM: u32 = 150_000;

/// A setting as `pg_settings` and SHOW ALL list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub default: String,
    pub description: String,
    /// `user` if a session may change it, `internal` if nobody may.
    pub context: &'static str,
}

/// One row of `pg_stat_activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    pub pid: i32,
    pub user: String,
    pub application_name: String,
    pub client_address: Option<String>,
    pub client_port: Option<u16>,
    pub is_encrypted: bool,
    pub backend_start: Option<Micros>,
    pub transaction_start: Option<Micros>,
    pub query_start: Option<Micros>,
    pub state_change: Option<Micros>,
    /// `active`, `idle`, `idle in transaction` …
    pub state: &'static str,
    pub query: String,
}

/// The session's settings. Names are in lower case.
pub trait Settings: Send + Sync {
    fn get(&self, name: &str) -> Option<String>;
    /// `local`: until the transaction ends. Returns the value in its canonical form.
    fn set(&self, name: &str, value: &str, local: bool) -> Result<String>;
    fn all(&self) -> Vec<Setting>;
    /// A length of time, if it is not 0.
    fn duration(&self, _name: &str) -> Option<Duration> {
        None
    }
}

/// What a commit of the log was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    pub id: CommitId,
    pub time: Micros,
    /// How many rows it wrote, by relation.
    pub rows: BTreeMap<RelationId, u64>,
}

/// What only the running server knows.
pub trait Server: Send + Sync {
    /// When it started.
    fn started(&self) -> Micros;
    /// What its clock shows at this moment.
    fn now(&self) -> Micros;
    fn sessions(&self) -> Vec<Activity>;
    /// First kept and next offset of each partition.
    fn offsets(&self, relation: RelationId) -> Vec<(u64, u64)>;
    /// The newest commit of the log.
    fn end(&self) -> CommitId;
    /// The commits up to this one, in order, as far as the log can be read.
    fn commits(&self, upto: CommitId) -> Vec<CommitInfo>;
    /// Bytes that a relation takes, on disk or in memory; `None` if that is not known.
    fn size(&self, relation: RelationId) -> Option<u64>;
    /// Interrupts the running statement of a session, or ends the session: false if there is none of that number.
    fn signal(&self, pid: i32, terminate: bool) -> bool;
    /// Views that are being built.
    fn backfills(&self) -> Vec<Backfill>;
    /// How a sink is doing, if it runs.
    fn sink(&self, sink: RelationId) -> Option<SinkStatus>;
    /// The locks of all sessions.
    fn locks(&self) -> &Arc<Locks>;
    /// Waits so long.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// How a sink is doing.
#[derive(Clone, Debug, Default)]
pub struct SinkStatus {
    /// The commit whose rows are there.
    pub position: Option<CommitId>,
    /// Rows written since the server was started.
    pub rows: u64,
    /// Why it does not go on. It tries again.
    pub error: Option<String>,
}

/// A function that queries can call, as pg_proc lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionInfo {
    pub name: String,
    /// `f`, `a`, `w` as in pg_proc.prokind.
    pub kind: char,
    /// `i`, `s`, `v` as in pg_proc.provolatile.
    pub volatility: char,
    /// Internal names of the types of the result and the arguments, where the function has only one form.
    pub result: Option<String>,
    pub arguments: Option<Vec<String>>,
}

/// What a session has given names to.
#[derive(Clone, Debug, Default)]
pub struct Named {
    pub statements: BTreeMap<String, NamedStatement>,
    pub cursors: BTreeMap<String, NamedCursor>,
}

/// One row of `pg_prepared_statements`.
#[derive(Clone, Debug)]
pub struct NamedStatement {
    pub sql: String,
    pub since: Micros,
    pub parameter_types: Vec<String>,
    /// By PREPARE, and not by a message of the protocol.
    pub from_sql: bool,
}

/// One row of `pg_cursors`.
#[derive(Clone, Debug)]
pub struct NamedCursor {
    pub sql: String,
    pub since: Micros,
    pub is_holdable: bool,
    pub is_binary: bool,
}

/// What the relations and functions of one statement look at.
pub struct SystemContext {
    pub snapshot: Arc<Snapshot>,
    /// CURRENT_USER
    pub user: String,
    pub session_user: String,
    /// What the current user may do: what it may not see is not in [`SystemContext::catalog`].
    pub rights: Rights,
    pub database: String,
    /// Number of the session, as the client got it for cancelling.
    pub pid: i32,
    pub client_address: Option<String>,
    /// `now()` of the statement.
    pub now: Micros,
    pub settings: Arc<dyn Settings>,
    pub server: Arc<dyn Server>,
    pub named: Arc<Named>,
    /// All functions, ordered; see [`super::functions_of`].
    pub functions: Arc<[FunctionInfo]>,
    objects: OnceLock<Objects>,
    seen: OnceLock<Arc<Catalog>>,
}

impl SystemContext {
    /// By whose clocks the session goes.
    pub fn zone(&self) -> Zone {
        self.settings.get("timezone").as_deref().and_then(Zone::of_setting).unwrap_or_default()
    }

    pub fn new(
        snapshot: Arc<Snapshot>,
        user: &str,
        database: &str,
        settings: Arc<dyn Settings>,
        server: Arc<dyn Server>,
    ) -> SystemContext {
        let role = snapshot.catalog.roles().find(user).map_or(SUPERUSER, |role| role.id);
        SystemContext {
            now: snapshot.time,
            rights: Rights::new(Arc::clone(&snapshot.catalog), role),
            snapshot,
            user: user.to_string(),
            session_user: user.to_string(),
            database: database.to_string(),
            pid: 0,
            client_address: None,
            settings,
            server,
            named: Arc::default(),
            functions: Arc::from([]),
            objects: OnceLock::new(),
            seen: OnceLock::new(),
        }
    }

    /// The relations that the current user may see, which is all there is to whoever asks through this context.
    pub fn catalog(&self) -> &Catalog {
        self.seen.get_or_init(|| match self.rights.is_superuser() {
            true => Arc::clone(&self.snapshot.catalog),
            false => Arc::new(self.snapshot.catalog.retaining(|relation| self.rights.sees(relation))),
        })
    }

    /// The roles and grants there are now.
    pub(super) fn roles(&self) -> &Roles {
        self.rights.catalog().roles()
    }

    /// Who owns an object, and what was granted on it, as aclitems; NULL while nothing was.
    pub(super) fn access(&self, object: Object) -> (RoleId, Value) {
        let catalog = self.rights.catalog();
        let items = catalog.explicit_acl(object).map(|acl| acl.to_text(|role| catalog.roles().name(role)));
        (catalog.owner(object), items.into())
    }

    pub(super) fn owner_name(&self, relation: RelationId) -> String {
        self.roles().name(self.rights.catalog().owner(Object::Relation(relation)))
    }

    /// The relations that PostgreSQL would know: running INSERTs and sinks have no rows.
    pub(super) fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.catalog().relations().filter(|relation| !matches!(relation.kind, Kind::Query | Kind::Sink))
    }

    /// Everything that has an OID; put together when it is first asked for.
    pub(super) fn objects(&self) -> &Objects {
        self.objects.get_or_init(|| Objects::new(self))
    }

    /// The schemas that there are to the current user, in the order of their OIDs: OID, name and comment.
    pub(super) fn schemas(&self) -> impl Iterator<Item = (u32, &str, Option<&str>)> {
        let users = self.catalog().schemas().all().filter(|schema| self.rights.sees_schema(schema));
        let users = users.map(|schema| (schema.id, schema.name.as_str(), schema.comment.as_deref()));
        let mut all: Vec<_> = SCHEMAS.into_iter().map(|(oid, name, purpose)| (oid, name, Some(purpose))).chain(users).collect();
        all.sort_unstable();
        all.into_iter()
    }

    pub(super) fn schema_oid(&self, name: &str) -> Option<u32> {
        self.schemas().find(|(_, known, _)| *known == name).map(|(oid, _, _)| oid)
    }

    pub(super) fn schema_name(&self, oid: u32) -> Option<&str> {
        self.schemas().find(|(known, _, _)| *known == oid).map(|(_, name, _)| name)
    }

    /// The schemas that names without one are looked up in, in order; pg_catalog comes first unless it is named.
    pub(super) fn search_path(&self) -> SearchPath {
        self.rights.search_path(&self.settings.get("search_path").unwrap_or_default())
    }

    /// The text of a definition, in names that mean the same under the session's path.
    pub(super) fn shown(&self, sql: &str) -> String {
        rename::shown(&self.snapshot.catalog, &self.search_path(), sql)
    }
}

impl fmt::Debug for SystemContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemContext(user {}, commit {})", self.user, self.snapshot.commit)
    }
}
