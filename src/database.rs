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

use crate::catalog::{Catalog, Kind, Relation, RelationId};
use crate::connect::Connectors;
use crate::engine::{self, EngineHandle, Recovery};
use crate::error::{Result, SqlState};
use crate::ingest::{CompiledRelation, RelationWriter, RowIds};
use crate::limits;
use crate::log::datadir::DataDir;
use crate::log::{self, CommitId, Log, LogHandle};
use crate::session::{Backend, Client, ClientSession};
use crate::sql::batch;
use crate::sql::lower::ViewCompiler;
use crate::sql::system::{self, FunctionInfo};
use crate::state::StateStore;
use crate::state::sled::SledStore;
use crate::time::{Clock, Micros, SystemClock};

/// How a database is opened.
pub struct Config {
    /// `None`: everything in memory, gone when it is closed.
    pub data_dir: Option<PathBuf>,
    pub engine: engine::Options,
    pub log: log::Options,
    pub clock: Arc<dyn Clock>,
}

impl Config {
    pub fn in_memory() -> Config {
        Config { data_dir: None, engine: engine::Options::default(), log: log::Options::default(), clock: Arc::new(SystemClock) }
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
    row_ids: Mutex<HashMap<RelationId, Arc<RowIds>>>,
    pub(crate) next_session: AtomicU64,
    connectors: Mutex<Option<Connectors>>,
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
        let log = LogHandle::start(log, Arc::clone(&config.clock), config.log)?;
        let state = Arc::new(crate::sql::functions::state());
        let compiler = Arc::new(ViewCompiler { state: Arc::clone(&state) });
        let (engine, recovery) = EngineHandle::start(log.clone(), store, compiler, config.engine)?;
        let database = Arc::new(Database {
            log: log.clone(),
            engine,
            clock: Arc::clone(&config.clock),
            state: Arc::clone(&state),
            functions: system::functions_of(&state),
            started: config.clock.now(),
            queries: batch::runtime(limits::QUERY_BYTES)?,
            query_threads: std::thread::available_parallelism().map_or(1, usize::from),
            writers: Mutex::default(),
            row_ids: Mutex::default(),
            next_session: AtomicU64::new(1),
            connectors: Mutex::default(),
            _data_dir: data_dir,
        });
        *database.connectors.lock() = Some(Connectors::start(log.clone(), config.clock, state)?);
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

    /// A session that is driven from this process.
    pub fn session(self: &Arc<Self>, user: &str) -> Client {
        Client::new(Arc::clone(self), user, "tidegate")
    }

    /// The writer of a relation, shared by all sessions: it deals rows out to partitions and hands out row ids.
    pub(crate) fn writer(&self, relation: &Arc<Relation>) -> Result<Arc<RelationWriter>> {
        let mut writers = self.writers.lock();
        if let Some(writer) =
            writers.get(&relation.id).filter(|w| Arc::ptr_eq(w.relation(), relation) || **w.relation() == **relation)
        {
            return Ok(Arc::clone(writer));
        }
        let catalog = self.log.catalog();
        let dead = catalog.relations().find(|r| r.kind == Kind::Stream && r.parent == Some(relation.id)).cloned();
        let row_ids = if relation.has_row_id() { Some(self.row_ids(relation)?) } else { None };
        let compiled = Arc::new(CompiledRelation::compile(Arc::clone(relation), &self.state)?);
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
    fn row_ids(&self, relation: &Relation) -> Result<Arc<RowIds>> {
        let mut all = self.row_ids.lock();
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
        let ids = Arc::new(RowIds::starting_at(next));
        all.insert(relation.id, Arc::clone(&ids));
        Ok(ids)
    }

    /// How a query of a session runs.
    pub(crate) fn query_options(&self) -> batch::Options {
        batch::Options { target_partitions: self.query_threads, now: self.clock.now(), runtime: Arc::clone(&self.queries) }
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

    /// Stop the sources, let the engine work off the log, write a checkpoint, close the log.
    pub fn close(&self) -> Result<()> {
        if let Some(connectors) = self.connectors.lock().take() {
            connectors.stop();
        }
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

/// A database that the server can serve.
pub struct Served(pub Arc<Database>);

impl Backend for Served {
    fn connect(&self, user: &str, database: &str, settings: &[(String, String)]) -> Result<Box<dyn ClientSession>> {
        let mut client = Client::new(Arc::clone(&self.0), user, database);
        for (name, value) in settings {
            client.start_up_setting(name, value)?;
        }
        Ok(Box::new(client))
    }
}
