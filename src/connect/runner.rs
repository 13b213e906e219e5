//! Runs the sources: a thread for each stream that has a connector.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex};

use super::{Connector, Next, Projection, Source};
use crate::catalog::{Kind, Relation, RelationId};
use crate::error::{Error, Result, SqlState};
use crate::limits::{GROUP_COMMIT_BYTES, STEP_ROWS};
use crate::log::{Ack, LogHandle, Transaction, Write};
use crate::time::{Clock, Micros};

/// How often the catalog is looked at for streams that have come or gone.
const LOOK: Duration = Duration::from_millis(100);

/// How long a source rests after a failure.
const REST: Duration = Duration::from_secs(1);

/// A transaction of a source is cut at either: half of a group commit, and so many rows as a step takes in.
const TRANSACTION_BYTES: usize = GROUP_COMMIT_BYTES / 2;
const TRANSACTION_ROWS: usize = STEP_ROWS;

/// Turns rows, of the columns that a connector gives, into writes: computed columns, partitions, event times.
pub type Ingest = dyn Fn(&Arc<Relation>, RecordBatch) -> Result<Vec<Write>> + Send + Sync;

/// Producers below this are the users' own.
const PRODUCERS: u64 = 1 << 63;

/// The producer under which a stream's connector commits.
pub fn producer(stream: RelationId) -> u64 {
    PRODUCERS | u64::from(stream)
}

/// The sources that run. Dropping it stops them.
pub struct Connectors {
    stop: Arc<Stop>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Connectors {
    /// Run the sources of all streams that are in the log's catalog, now and later.
    pub fn start(log: LogHandle, clock: Arc<dyn Clock>, ingest: Arc<Ingest>) -> Result<Connectors> {
        let stop = Arc::new(Stop::default());
        let mut keeper = Keeper { context: Context { log, clock, ingest }, running: HashMap::new() };
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("connectors".into()).spawn(move || keeper.run(&theirs))?;
        Ok(Connectors { stop, keeper: Mutex::new(Some(thread)) })
    }

    /// Let every source finish its commit, and return when none runs any more.
    pub fn stop(&self) {
        self.stop.set();
        if let Some(thread) = self.keeper.lock().take() {
            join(thread);
        }
    }
}

impl Drop for Connectors {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A request to end, that a thread can wait for.
#[derive(Default)]
struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.set.lock() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.set.lock()
    }

    /// Wait so long, or until it is set; says whether it is.
    fn wait(&self, time: Duration) -> bool {
        let mut set = self.set.lock();
        if !*set {
            self.changed.wait_for(&mut set, time);
        }
        *set
    }
}

/// What every source needs.
#[derive(Clone)]
struct Context {
    log: LogHandle,
    clock: Arc<dyn Clock>,
    ingest: Arc<Ingest>,
}

/// Keeps one thread for each stream with a connector.
struct Keeper {
    context: Context,
    running: HashMap<RelationId, (Arc<Stop>, JoinHandle<()>)>,
}

impl Keeper {
    fn run(&mut self, stop: &Stop) {
        loop {
            self.look();
            if stop.wait(LOOK) {
                break;
            }
        }
        for (stop, _) in self.running.values() {
            stop.set();
        }
        for (_, (_, thread)) in self.running.drain() {
            join(thread);
        }
    }

    /// Start what is new, stop what is gone. A source that has finished stays in the list, so that it is not started again.
    fn look(&mut self) {
        let catalog = self.context.log.catalog();
        let gone: Vec<RelationId> = self.running.keys().filter(|id| catalog.get(**id).is_none()).copied().collect();
        for (stop, thread) in gone.iter().filter_map(|id| self.running.remove(id)) {
            stop.set();
            join(thread);
        }
        for relation in catalog.relations() {
            if relation.kind != Kind::Stream || self.running.contains_key(&relation.id) {
                continue;
            }
            let connector = match Connector::of(relation) {
                Ok(Some(connector)) => connector,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(stream = relation.name, %error, "the stream's source can't run");
                    continue;
                }
            };
            let stop = Arc::new(Stop::default());
            let feed = Feed { context: self.context.clone(), stop: Arc::clone(&stop), stream: relation.id, connector };
            let name = format!("source {}", relation.name);
            match std::thread::Builder::new().name(name).spawn(move || feed.run()) {
                Ok(thread) => drop(self.running.insert(relation.id, (stop, thread))),
                Err(error) => tracing::error!(stream = relation.name, %error, "no thread for the stream's source"),
            }
        }
    }
}

/// One stream and its source.
struct Feed {
    context: Context,
    stop: Arc<Stop>,
    stream: RelationId,
    connector: Connector,
}

/// Why a source does not go on at once.
enum Pause {
    Finished,
    Until(Micros),
}

/// Rows that are one transaction, and where the source stands after them.
struct Load {
    batches: Vec<RecordBatch>,
    position: u64,
}

impl Feed {
    /// Until the source is finished, the stream is gone or a stop is asked for. A failure starts the source anew from what the
    /// log has: nothing is lost by that, and nothing doubled.
    fn run(&self) {
        while let Err(error) = self.follow() {
            let gone = self.context.log.catalog().get(self.stream).is_none();
            if gone || error.state() == SqlState::AdminShutdown || self.stop.is_set() {
                return;
            }
            tracing::warn!(stream = self.stream, %error, "the stream's source failed and starts again");
            if self.stop.wait(REST) {
                return;
            }
        }
    }

    /// One transaction is on its way while the rows of the next are made. Never more: if one failed and its successor did not,
    /// rows would be lost.
    fn follow(&self) -> Result<()> {
        let relation = self.relation()?;
        let projection = self.connector.projection(&relation)?;
        let producers = self.context.log.reader().producers()?;
        let position = producers.iter().find(|(id, _)| *id == producer(self.stream)).map_or(0, |(_, position)| *position);
        let mut source = self.connector.open(position);
        let mut in_flight: Option<Ack> = None;
        while !self.stop.is_set() {
            let (load, pause) = self.gather(source.as_mut(), &projection)?;
            if let Some(ack) = in_flight.take() {
                ack.wait()?;
            }
            if let Some(load) = load {
                in_flight = Some(self.submit(load)?);
            }
            match pause {
                None => {}
                Some(Pause::Finished) => break,
                Some(Pause::Until(time)) => drop(self.stop.wait(self.time_until(time))),
            }
        }
        in_flight.map_or(Ok(()), |ack| ack.wait().map(drop))
    }

    /// The rows of a transaction: all that are due, up to a bound.
    fn gather(&self, source: &mut dyn Source, projection: &Projection) -> Result<(Option<Load>, Option<Pause>)> {
        let mut load: Option<Load> = None;
        let (mut rows_taken, mut bytes) = (0, 0);
        let pause = loop {
            if rows_taken >= TRANSACTION_ROWS || bytes >= TRANSACTION_BYTES {
                break None;
            }
            match source.next(self.context.clock.now()) {
                Next::Rows { rows, position } => {
                    rows_taken += rows.num_rows();
                    bytes += rows.get_array_memory_size();
                    let load = load.get_or_insert_with(|| Load { batches: Vec::new(), position });
                    load.batches.push(projection.apply(&rows)?);
                    load.position = position;
                }
                Next::Wait(until) => break Some(Pause::Until(until)),
                Next::Finished => break Some(Pause::Finished),
            }
        };
        Ok((load, pause))
    }

    fn submit(&self, load: Load) -> Result<Ack> {
        let relation = self.relation()?;
        let mut writes = Vec::new();
        for batch in load.batches {
            writes.extend((self.context.ingest)(&relation, batch)?);
        }
        let producer = Some((producer(self.stream), load.position));
        Ok(self.context.log.submit(Transaction { writes, producer, durability: relation.durability, ..Transaction::default() }))
    }

    fn relation(&self) -> Result<Arc<Relation>> {
        let catalog = self.context.log.catalog();
        let gone = || Error::undefined_table("the stream was dropped");
        catalog.get(self.stream).cloned().ok_or_else(gone)
    }

    /// At most a second: the clock may be set.
    fn time_until(&self, time: Micros) -> Duration {
        let micros = time.saturating_sub(self.context.clock.now()).max(0);
        Duration::from_micros(micros as u64).min(Duration::from_secs(1))
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the thread of a source panicked");
    }
}
