//! A database in a process: the log, the engine over it, and sessions.
//!
//! ```no_run
//! # async fn example() -> tidegate::error::Result<()> {
//! use tidegate::database::{Config, Database};
//! let (database, _) = Database::open(Config::in_memory())?;
//! let mut session = database.session("me");
//! session.run("CREATE STREAM s (x BIGINT)").await?;
//! # Ok(()) }
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use parking_lot::Mutex;

use crate::auth::scram::Login;
use crate::auth::{self, KEY_BYTES, Verifier};
use crate::catalog::acl::{Object, Privilege};
use crate::catalog::rights::Rights;
use crate::catalog::role::{Role, RoleId, SUPERUSER};
use crate::catalog::{Catalog, Change, Identity, Kind, Relation, RelationId, sequence_of};
use crate::connect::Connectors;
use crate::connect::connection::Connections;
use crate::connect::sink::{self, Sinks};
use crate::copy::value::Formats;
use crate::engine::{self, EngineHandle, Recovery};
use crate::error::{Error, Result, SqlState};
use crate::ingest::idle::IdleMarks;
use crate::ingest::{CompiledRelation, Numbers, QueryIntake, RelationWriter};
use crate::limits;
use crate::locks::Locks;
use crate::log::datadir::DataDir;
use crate::log::{self, CommitId, Log, LogHandle};
use crate::session::{Backend, Client, ClientSession, Sessions};
use crate::sql::batch;
use crate::sql::lower::ViewCompiler;
use crate::sql::plan::Planner;
use crate::sql::system::{self, FunctionInfo};
use crate::state::StateStore;
use crate::state::sled::SledStore;
use crate::time::{Clock, Micros, SystemClock};

/// The name of the one database.
const DATABASE: &str = "tidegate";

/// How a database is opened.
pub struct Config {
    /// `None`: everything in memory, gone when it is closed.
    pub data_dir: Option<PathBuf>,
    pub engine: engine::Options,
    pub log: log::Options,
    pub clock: Arc<dyn Clock>,
    /// What sinks may write to.
    pub connections: Arc<Connections>,
}

impl Config {
    pub fn in_memory() -> Config {
        Config {
            data_dir: None,
            engine: engine::Options::default(),
            log: log::Options::default(),
            clock: Arc::new(SystemClock),
            connections: Arc::default(),
        }
    }

    pub fn at(data_dir: impl Into<PathBuf>) -> Config {
        Config { data_dir: Some(data_dir.into()), ..Config::in_memory() }
    }
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    pub commit: CommitId,
    pub streams: usize,
    pub tables: usize,
    pub views: usize,
    pub recovery: Recovery,
}

pub struct Database {
    pub(crate) log: LogHandle,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<dyn Clock>,
    /// Functions and settings shared by all sessions.
    pub(crate) state: Arc<SessionState>,
    /// What pg_proc lists.
    pub(crate) functions: Arc<[FunctionInfo]>,
    pub(crate) started: Micros,
    /// The memory that all queries share, and the threads that each may use.
    queries: Arc<RuntimeEnv>,
    query_threads: usize,
    writers: Mutex<HashMap<RelationId, Arc<RelationWriter>>>,
    /// By relation those of the hidden keys, by sequence those of a column.
    numbers: Mutex<HashMap<RelationId, Arc<Numbers>>>,
    /// Greater than the id of any relation that there was, or will be when the statements under way are done.
    next_relation: Mutex<RelationId>,
    pub(crate) next_session: AtomicU64,
    pub(crate) sessions: Sessions,
    /// What sessions hold and wait for, by the numbers that they agree on.
    pub(crate) locks: Arc<Locks>,
    /// Sessions of clients, by role.
    clients: Mutex<HashMap<RoleId, u32>>,
    /// For users who are not there, while no password is known that could serve.
    mock_secret: [u8; KEY_BYTES],
    pub(crate) connections: Arc<Connections>,
    /// How each sink is doing.
    pub(crate) sinks: sink::Statuses,
    connectors: Mutex<Option<Connectors>>,
    sink_tasks: Mutex<Option<Sinks>>,
    idle_marks: Mutex<Option<IdleMarks>>,
    /// Held for its lock.
    _data_dir: Option<DataDir>,
}

impl Database {
    /// Open or create, recover, and run.
    pub fn open(config: Config) -> Result<(Arc<Database>, Opened)> {
        let (log, store, data_dir): (Box<dyn Log>, Box<dyn StateStore>, _) = match &config.data_dir {
            None => (Box::new(log::memory::log()?), Box::new(crate::state::memory::Disk::default().open()), None),
            Some(path) => {
                let data_dir = DataDir::open(path)?;
                let log = log::sled::open(&data_dir)?;
                let store = open_state(&data_dir.state())?;
                (Box::new(log), Box::new(store), Some(data_dir))
            }
        };
        Database::start(log, store, data_dir, config)
    }

    /// The same over stores of the caller's: tests and simulators.
    pub fn open_with(log: Box<dyn Log>, store: Box<dyn StateStore>, config: Config) -> Result<(Arc<Database>, Opened)> {
        Database::start(log, store, None, config)
    }

    fn start(
        log: Box<dyn Log>,
        store: Box<dyn StateStore>,
        data_dir: Option<DataDir>,
        config: Config,
    ) -> Result<(Arc<Database>, Opened)> {
        let mut mock_secret = [0; KEY_BYTES];
        auth::random(&mut mock_secret)?;
        let log = LogHandle::start(log, Arc::clone(&config.clock), config.log)?;
        let state = Arc::new(crate::sql::functions::state());
        let compiler = Arc::new(ViewCompiler { state: Arc::clone(&state) });
        let intake = QueryIntake { log: log.clone(), clock: Arc::clone(&config.clock), state: Arc::clone(&state) };
        let (engine, recovery) = EngineHandle::start(log.clone(), store, compiler, Arc::new(intake), config.engine)?;
        let database = Arc::new(Database {
            log: log.clone(),
            engine,
            clock: Arc::clone(&config.clock),
            state: Arc::clone(&state),
            functions: system::functions_of(&state),
            started: config.clock.now(),
            queries: batch::memory::runtime(limits::QUERY_BYTES)?,
            query_threads: std::thread::available_parallelism().map_or(1, usize::from),
            writers: Mutex::default(),
            numbers: Mutex::default(),
            next_relation: Mutex::default(),
            next_session: AtomicU64::new(1),
            sessions: Sessions::default(),
            locks: Arc::default(),
            clients: Mutex::default(),
            mock_secret,
            connections: config.connections,
            sinks: sink::Statuses::default(),
            connectors: Mutex::default(),
            sink_tasks: Mutex::default(),
            idle_marks: Mutex::default(),
            _data_dir: data_dir,
        });
        *database.idle_marks.lock() = Some(IdleMarks::start(log.clone(), Arc::clone(&config.clock))?);
        *database.connectors.lock() = Some(Connectors::start(log.clone(), config.clock, Arc::clone(&state))?);
        *database.sink_tasks.lock() = Some(Sinks::start(sink::Context {
            log: log.clone(),
            engine: database.engine.clone(),
            state,
            connections: Arc::clone(&database.connections),
            statuses: Arc::clone(&database.sinks),
        })?);
        let catalog = log.catalog();
        let count = |kind: Kind| catalog.relations().filter(|r| r.kind == kind && r.parent.is_none()).count();
        let opened = Opened {
            commit: log.end(),
            streams: count(Kind::Stream),
            tables: count(Kind::Table),
            views: count(Kind::MaterializedView),
            recovery,
        };
        Ok((database, opened))
    }

    /// A session that is driven from this process: the user's, if there is one of this name, otherwise the superuser's.
    pub fn session(self: &Arc<Self>, user: &str) -> Client {
        let role = self.log.catalog().roles().find(user).map_or(SUPERUSER, |role| role.id);
        Client::new(Arc::clone(self), role, DATABASE)
    }

    /// Gives the superuser a password, unless it has one already. Says whether it did.
    pub fn set_first_password(&self, password: &str) -> Result<bool> {
        let catalog = self.log.catalog();
        let Some(superuser) = catalog.roles().get(SUPERUSER).filter(|role| role.verifier.is_none()) else { return Ok(false) };
        let Some(verifier) = Verifier::of_text(password)? else {
            return Err(Error::invalid_parameter("the password is empty"));
        };
        let role = Role { verifier: Some(verifier), ..Role::clone(superuser) };
        let changes = vec![Change::SetRole(role)];
        self.log.submit(log::Transaction { changes, ..log::Transaction::default() }).wait()?;
        Ok(true)
    }

    /// Can a superuser log in with a password? Then nobody is shut out by asking for them.
    pub fn has_superuser_password(&self) -> bool {
        self.log.catalog().roles().all().any(|role| role.is_superuser && role.can_login && role.verifier.is_some())
    }

    /// The writer of a relation, shared by all sessions: it deals rows out to partitions and hands out row ids.
    pub(crate) fn writer(&self, relation: &Arc<Relation>) -> Result<Arc<RelationWriter>> {
        // Also those that running queries have given are in use.
        let numbers = relation.identity().map(|(_, identity)| self.numbers_of(relation, identity));
        let mut writers = self.writers.lock();
        if let Some(writer) =
            writers.get(&relation.id).filter(|w| Arc::ptr_eq(w.relation(), relation) || **w.relation() == **relation)
        {
            return Ok(Arc::clone(writer));
        }
        let catalog = self.log.catalog();
        let dead = catalog.dead_letters_of(relation.id).cloned();
        let row_ids = if relation.has_row_id() { Some(self.row_ids(relation)?) } else { None };
        let compiled = CompiledRelation::compile(Arc::clone(relation), &Planner::new(catalog.clone(), self.state.clone()))?;
        let compiled = Arc::new(compiled.numbered(numbers));
        // Where the last writer of this stream stopped is not known; the log's end is as good a place as any, and even.
        let start = (self.log.head(relation.id).map_or(0, |h| h.commit) % u64::from(relation.partitions.max(1))) as u32;
        let writer = Arc::new(RelationWriter::new(compiled, dead, row_ids).starting_at(start));
        writers.insert(relation.id, Arc::clone(&writer));
        let live: Vec<RelationId> =
            writers.keys().copied().filter(|id| catalog.get(*id).is_none() && *id != relation.id).collect();
        live.iter().for_each(|id| drop(writers.remove(id)));
        Ok(writer)
    }

    /// Ids for the rows of a table without a key. The engine has read all of the log when a database opens, so the rows that it
    /// holds show every id that is in use.
    fn row_ids(&self, relation: &Relation) -> Result<Arc<Numbers>> {
        let mut all = self.numbers.lock();
        if let Some(ids) = all.get(&relation.id) {
            return Ok(Arc::clone(ids));
        }
        let mut next = 0;
        if let Some(version) = self.engine.snapshot().versions.get(&relation.id) {
            for rows in version.scan(Some(&[0]))? {
                let ids = rows.column(0).as_primitive::<Int64Type>();
                next = next.max(arrow::compute::max(ids).map_or(0, |id| id + 1));
            }
        }
        let ids = Arc::new(Numbers::new(next, 1));
        all.insert(relation.id, Arc::clone(&ids));
        Ok(ids)
    }

    /// Numbers for the column that numbers a table's rows.
    fn numbers_of(&self, relation: &Relation, identity: Identity) -> Arc<Numbers> {
        let sequence = sequence_of(relation.id);
        let mut all = self.numbers.lock();
        let numbers = all.entry(sequence).or_insert_with(|| Arc::new(Numbers::new(identity.start, identity.step)));
        self.log.head(sequence).and_then(|head| head.watermark).iter().for_each(|greatest| numbers.raise(*greatest));
        Arc::clone(numbers)
    }

    /// An id that no relation has had, and that no other statement is given.
    pub(crate) fn new_relation_id(&self) -> RelationId {
        let mut next = self.next_relation.lock();
        let id = self.log.catalog().next_id().max(*next);
        *next = id + 1;
        id
    }

    /// How a query of a session runs.
    /// How a query runs that may take so many bytes of memory.
    pub(crate) fn query_options(&self, memory_bytes: usize) -> batch::Options {
        let runtime = batch::memory::runtime_of_query(&self.queries, memory_bytes);
        batch::Options {
            target_partitions: self.query_threads,
            now: self.clock.now(),
            formats: Formats::default(),
            runtime,
            stop: None,
        }
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.log.catalog()
    }

    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    pub fn log(&self) -> &LogHandle {
        &self.log
    }

    /// Stop the sources and sinks, let the engine work off the log, write a checkpoint, close the log.
    pub fn close(&self) -> Result<()> {
        if let Some(connectors) = self.connectors.lock().take() {
            connectors.stop();
        }
        drop(self.sink_tasks.lock().take());
        drop(self.idle_marks.lock().take());
        // What running queries still have to write.
        self.engine.drain();
        // Also after an error of the log: what it acknowledged is worth a checkpoint.
        let closed = self.log.close();
        self.engine.close().and(closed)
    }
}

/// The state store, or an empty one in place of one that cannot be opened: the log brings back what was in it.
fn open_state(path: &Path) -> Result<SledStore> {
    match crate::state::sled::open(path) {
        Ok(store) => Ok(store),
        Err(error) if error.state() == SqlState::DataCorrupted => {
            tracing::warn!(%error, "the state on disk is damaged; views are computed again from the log");
            crate::state::sled::recreate(path)
        }
        Err(error) => Err(error),
    }
}

/// A database that the server can serve, and how many sessions that has at most.
pub struct Served(pub Arc<Database>, pub usize);

impl Backend for Served {
    fn connect(&self, user: &str, database: &str, settings: &[(String, String)]) -> Result<Box<dyn ClientSession>> {
        let catalog = self.0.log.catalog();
        let Some(role) = catalog.roles().find(user) else {
            return Err(Error::invalid_authorization(format!("role \"{user}\" does not exist"))
                .with_hint(format!("log in as \"{}\", and CREATE ROLE \"{user}\" LOGIN", catalog.roles().name(SUPERUSER))));
        };
        if !role.can_login {
            return Err(Error::invalid_authorization(format!("role \"{user}\" is not permitted to log in")));
        }
        if !Rights::new(Arc::clone(&catalog), role.id).holds(Object::Database, Privilege::Connect) {
            return Err(Error::insufficient_privilege(format!("permission denied for database \"{database}\""))
                .with_detail("the user does not have the CONNECT privilege"));
        }
        let seat = Seat::take(&self.0, role)?;
        let mut client = Client::new(Arc::clone(&self.0), role.id, database).seated(seat).among(self.1);
        for (name, value) in &role.settings {
            // One that has become wrong keeps nobody out.
            if let Err(error) = client.start_up_setting(name, value) {
                tracing::warn!(role = role.name, setting = name, %error, "a setting of a role is passed over");
            }
        }
        for (name, value) in settings {
            client.start_up_setting(name, value)?;
        }
        client.started();
        Ok(Box::new(client))
    }

    fn login(&self, user: &str) -> Login {
        let catalog = self.0.log.catalog();
        let now = self.0.clock.now();
        let role = catalog.roles().find(user).filter(|role| role.valid_until.is_none_or(|until| now < until));
        match role.and_then(|role| role.verifier.clone()) {
            Some(verifier) => Login { verifier, is_genuine: true },
            None => {
                let superuser = catalog.roles().get(SUPERUSER).and_then(|role| role.verifier.as_ref());
                let secret = superuser.map_or(self.0.mock_secret, Verifier::secret);
                Login { verifier: Verifier::mock(user, &secret), is_genuine: false }
            }
        }
    }

    fn is_superuser(&self, user: &str) -> bool {
        self.0.log.catalog().roles().find(user).is_some_and(|role| role.is_superuser)
    }

    fn has_passwords(&self) -> bool {
        self.0.log.catalog().roles().all().any(|role| role.can_login && role.verifier.is_some())
    }
}

/// A client's place among those of its role, given back when it goes.
pub(crate) struct Seat {
    database: Arc<Database>,
    role: RoleId,
}

impl Seat {
    fn take(database: &Arc<Database>, role: &Role) -> Result<Seat> {
        let mut clients = database.clients.lock();
        let taken = clients.entry(role.id).or_default();
        if role.connection_limit.is_some_and(|limit| *taken >= limit) && !role.is_superuser {
            return Err(Error::too_many_connections(format!("too many connections for role \"{}\"", role.name)));
        }
        *taken += 1;
        Ok(Seat { database: Arc::clone(database), role: role.id })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self.database.clients.lock();
        if let Some(taken) = clients.get_mut(&self.role) {
            *taken -= 1;
            if *taken == 0 {
                clients.remove(&self.role);
            }
        }
    }
}
