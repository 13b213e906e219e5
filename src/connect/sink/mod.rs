//! Sinks: the changes of a query, written to a table of another server.
//!
//! ```text
//!   sink's query ──► engine: SUBSCRIBE … AS OF position ──► changes, commit ──► transaction { rows, position } ──► PostgreSQL
//!                                        ▲                                                   │
//!                                        └────────── after a restart, of either: ────────────┘
//! ```
//!
//! A task for each sink follows its query and writes what changed. The position is kept where the rows are ([`postgres`]), so
//! after whatever failure it goes on behind what is there: nothing is lost by that, and nothing doubled. The engine does not wait
//! for a sink; one that falls too far behind is cut off and goes on from its position, too.

mod postgres;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SessionState;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::postgres::Target;
use super::CONNECTOR;
use super::connection::Connections;
use crate::catalog::schema::{identifiers, quoted};
use crate::catalog::{Kind, ON_ERROR, Relation, RelationId};
use crate::delta::Delta;
use crate::engine::{Compiler, EngineHandle, Source, Span};
use crate::error::{Error, Result, SqlState};
use crate::log::{CommitId, LogHandle};
use crate::sql::lower::ViewCompiler;
use crate::sql::system::SinkStatus;

/// The connector of sinks.
const POSTGRES: &str = "postgres";

/// Options of a sink: which of the server's connections, and which table there.
const CONNECTION: &str = "connection";
const TABLE: &str = "table";

/// Tells a sink from all others that write to the same database. Chosen when it is made.
const ID: &str = "id";

/// How often the catalog is looked at for sinks that have come or gone.
const LOOK: Duration = Duration::from_millis(100);

/// How long a sink rests after a failure: at first, and at most.
const REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Rows after which what is there is written.
const ROWS: usize = 20_000;

/// How often a position is moved on though nothing has changed.
const IDLE: Duration = Duration::from_secs(10);

/// How each sink is doing.
pub type Statuses = Arc<Mutex<BTreeMap<RelationId, SinkStatus>>>;

/// Returns when none of the dropped sinks writes any more, soon in any case.
pub async fn settled(log: &LogHandle, statuses: &Statuses) {
    let catalog = log.catalog();
    let deadline = tokio::time::Instant::now() + 10 * LOOK;
    while tokio::time::Instant::now() < deadline && statuses.lock().keys().any(|id| catalog.get(*id).is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A sink's definition, understood.
struct Sink {
    relation: Arc<Relation>,
    id: String,
    connection: String,
    schema: Option<String>,
    table: String,
}

impl Sink {
    fn of(relation: &Arc<Relation>) -> Result<Sink> {
        let options = &relation.options;
        let known = [CONNECTOR, CONNECTION, TABLE, ID, ON_ERROR];
        if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(Error::invalid_parameter(format!("unrecognized option \"{unknown}\""))
                .with_hint("the options of a sink are connector, connection, table and on_error"));
        }
        match options.get(CONNECTOR).map(String::as_str) {
            Some(POSTGRES) => {}
            Some(other) => {
                return Err(Error::invalid_parameter(format!("there is no connector '{other}' for sinks"))
                    .with_hint("connector = 'postgres' writes to a table of a PostgreSQL server"));
            }
            None => {
                return Err(Error::invalid_parameter("a sink needs a connector")
                    .with_hint("write WITH (connector = 'postgres', connection = '…', table = '…')"));
            }
        }
        let Some(connection) = options.get(CONNECTION).cloned() else {
            return Err(Error::invalid_parameter("a sink needs a connection")
                .with_hint("connection = '…' names one that the server was started with: --connection NAME='host=…'"));
        };
        let table = options.get(TABLE).cloned().unwrap_or_else(|| quoted(&relation.name));
        let (schema, table) = match identifiers(&table, '.').as_deref() {
            Some([table]) => (None, table.clone()),
            Some([schema, table]) => (Some(schema.clone()), table.clone()),
            _ => return Err(Error::invalid_parameter(format!("table = '{table}' is not the name of a table"))),
        };
        let id = options.get(ID).cloned().unwrap_or_default();
        Ok(Sink { relation: Arc::clone(relation), id, connection, schema, table })
    }
}

/// A sink to be: its options are right, the other server answers, and its table takes the rows. The table is made if it is not
/// there. Returns the definition to keep.
pub async fn prepare(relation: Relation, connections: &Connections) -> Result<Relation> {
    if relation.options.contains_key(ID) {
        return Err(Error::invalid_parameter(format!("the option \"{ID}\" is not for users")));
    }
    let mut relation = relation;
    let mut id = [0; 16];
    crate::auth::random(&mut id)?;
    relation.options.insert(ID.to_string(), id.iter().map(|byte| format!("{byte:02x}")).collect());
    let sink = Sink::of(&Arc::new(relation.clone()))?;
    Target::open(connections, &sink).await?;
    Ok(relation)
}

/// What every sink needs.
#[derive(Clone)]
pub struct Context {
    pub log: LogHandle,
    pub engine: EngineHandle,
    pub state: Arc<SessionState>,
    pub connections: Arc<Connections>,
    pub statuses: Statuses,
}

/// The sinks that run. Dropping it stops them.
pub struct Sinks {
    stop: tokio::sync::watch::Sender<bool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Sinks {
    /// Run all sinks that are in the log's catalog, now and later, in a thread of their own.
    pub fn start(context: Context) -> Result<Sinks> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keep = move || runtime.block_on(Keeper { context, running: HashMap::new() }.run(stopped));
        let thread = std::thread::Builder::new().name("sinks".into()).spawn(keep)?;
        Ok(Sinks { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Returns when none runs any more. What a sink was about to write it writes when it runs again.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the sinks panicked");
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keeps one task for each sink.
struct Keeper {
    context: Context,
    running: HashMap<RelationId, (Arc<Relation>, JoinHandle<()>)>,
}

impl Keeper {
    async fn run(mut self, mut stopped: tokio::sync::watch::Receiver<bool>) {
        loop {
            self.look();
            if tokio::time::timeout(LOOK, stopped.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
    }

    /// Start what is new, stop what is gone or has become another.
    fn look(&mut self) {
        let catalog = self.context.log.catalog();
        let current = |id: &RelationId, known: &Arc<Relation>| catalog.get(*id).is_some_and(|now| now.query == known.query);
        for (id, (relation, task)) in self.running.extract_if(|id, (relation, _)| !current(id, relation)) {
            // It is not polled any more: all of this is one thread.
            task.abort();
            if catalog.get(id).is_none() {
                self.context.statuses.lock().remove(&id);
                tokio::spawn(forget(Arc::clone(&self.context.connections), relation));
            }
        }
        for relation in catalog.relations().filter(|relation| relation.kind == Kind::Sink) {
            if !self.running.contains_key(&relation.id) {
                self.context.statuses.lock().entry(relation.id).or_default();
                let task = tokio::spawn(keep_up(self.context.clone(), Arc::clone(relation)));
                self.running.insert(relation.id, (Arc::clone(relation), task));
            }
        }
    }
}

async fn forget(connections: Arc<Connections>, relation: Arc<Relation>) {
    let forgotten = match Sink::of(&relation) {
        Ok(sink) => Target::forget(&connections, &sink).await,
        Err(error) => Err(error),
    };
    if let Err(error) = forgotten {
        tracing::warn!(sink = relation.name, %error, "the position of a dropped sink is still in its database");
    }
}

/// Follow a sink's query for ever: after a failure, from where it has come to.
async fn keep_up(context: Context, relation: Arc<Relation>) {
    let mut rest = REST;
    loop {
        let before = position_of(&context, relation.id);
        let error = match follow(&context, &relation).await {
            Err(error) if error.state() == SqlState::AdminShutdown => return,
            Err(error) => error,
            Ok(()) => return,
        };
        if position_of(&context, relation.id) != before {
            rest = REST;
        }
        tracing::warn!(sink = relation.name, %error, "the sink failed and begins again where it was, in {rest:?}");
        context.statuses.lock().entry(relation.id).or_default().error = Some(error.to_string());
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

fn position_of(context: &Context, sink: RelationId) -> Option<CommitId> {
    context.statuses.lock().get(&sink).and_then(|status| status.position)
}

async fn follow(context: &Context, relation: &Arc<Relation>) -> Result<()> {
    let sink = Sink::of(relation)?;
    let mut target = Target::open(&context.connections, &sink).await?;
    let note = |position, rows: usize| {
        let mut statuses = context.statuses.lock();
        let status = statuses.entry(relation.id).or_default();
        *status = SinkStatus { position, rows: status.rows + rows as u64, error: None };
    };
    let as_of = target.position();
    if let Some(commit) = as_of {
        let end = context.log.end();
        if commit > end {
            let message = format!("the sink has written up to commit {commit}, and the log ends with {end}");
            return Err(Error::not_ready(message).with_hint("the log is another one, or an older copy; make the sink anew"));
        }
        context.engine.wait_for(commit).await?;
    }
    note(as_of, 0);
    let compiler = ViewCompiler { state: Arc::clone(&context.state) };
    let fragment = compiler.compile(&context.log.catalog(), relation)?;
    let span = Span { snapshot: as_of.is_none(), as_of, up_to: None, progress: true };
    let mut updates = context.engine.subscribe(Source::Query(Box::new(fragment)), span);
    let mut changes: Vec<Delta> = Vec::new();
    let (mut rows, mut written) = (0, tokio::time::Instant::now());
    let mut next = updates.next().await;
    while let Some(update) = next {
        let update = update?;
        next = match update.delta {
            Some(delta) => {
                rows += delta.len();
                changes.push(delta);
                // The rows of the beginning may be more than there is memory for. What takes some back waits for all of them.
                let only_new =
                    |delta: &Delta| delta.diff.as_ref().is_none_or(|diff| diff.values().iter().all(|weight| *weight > 0));
                if target.position().is_none() && rows >= ROWS && changes.iter().all(only_new) {
                    for delta in std::mem::take(&mut changes) {
                        note(None, target.begin_with(&delta).await?);
                    }
                    rows = 0;
                }
                updates.next().await
            }
            None => {
                // While more is there already, it is written together.
                let more = if rows < ROWS { updates.next().now_or_never() } else { None };
                let is_due = rows > 0 || target.position().is_none() || written.elapsed() >= IDLE;
                if more.is_none() && is_due {
                    let count = target.write(&std::mem::take(&mut changes), update.commit).await?;
                    (rows, written) = (0, tokio::time::Instant::now());
                    note(target.position(), count);
                }
                match more {
                    Some(more) => more,
                    None => updates.next().await,
                }
            }
        };
    }
    Err(Error::not_ready("the sink's query has ended"))
}
