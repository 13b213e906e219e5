//! Runs the sources: a thread for each stream that has a connector.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::execution::SessionState;
use parking_lot::{Condvar, Mutex};

use super::{Connector, Next, Projection, Source};
use crate::catalog::{Kind, Relation, RelationId};
use crate::error::{Error, Result, SqlState};
use crate::ingest::{CompiledRelation, RelationWriter};
use crate::limits::{GROUP_COMMIT_BYTES, STEP_ROWS};
use crate::log::{self, Ack, LogHandle, Transaction, Write};
use crate::sql::plan::Planner;
use crate::time::{Clock, Micros};

/// How often the catalog is looked at for streams that have come or gone.
const LOOK: Duration = Duration::from_millis(100);

/// How long a source rests after a failure.
const REST: Duration = Duration::from_secs(1);

/// A transaction of a source is cut at either: half of a group commit, and so many rows as a step takes in.
const TRANSACTION_BYTES: usize = GROUP_COMMIT_BYTES / 2;
const TRANSACTION_ROWS: usize = STEP_ROWS;

/// The sources that run. Dropping it stops them.
pub struct Connectors {
    stop: Arc<Stop>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Connectors {
    /// Run the sources of all streams that are in the log's catalog, now and later.
    /// `session` compiles defaults, computed columns and watermarks.
    pub fn start(log: LogHandle, clock: Arc<dyn Clock>, session: Arc<SessionState>) -> Result<Connectors> {
        let stop = Arc::new(Stop::default());
        let mut keeper = Keeper { context: Context { log, clock, session }, running: HashMap::new() };
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
    session: Arc<SessionState>,
}

/// Keeps one thread for each stream with a connector.
struct Keeper {
    context: Context,
    running: HashMap<RelationId, Running>,
}

struct Running {
    /// Of the stream: it is another source with others.
    options: BTreeMap<String, String>,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn run(&mut self, stop: &Stop) {
        loop {
            self.look();
            if stop.wait(LOOK) {
                break;
            }
        }
        for running in self.running.values() {
            running.stop.set();
        }
        for (_, running) in self.running.drain() {
            join(running.thread);
        }
    }

    /// Start what is new, stop what is gone or has become another. A source that has finished stays in the list, so that it is not started again.
    fn look(&mut self) {
        let catalog = self.context.log.catalog();
        let is_gone = |id: &RelationId, running: &Running| catalog.get(*id).is_none_or(|r| r.options != running.options);
        for (_, running) in self.running.extract_if(|id, running| is_gone(id, running)) {
            running.stop.set();
            join(running.thread);
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
                Ok(thread) => {
                    self.running.insert(relation.id, Running { options: relation.options.clone(), stop, thread });
                }
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

/// A stream's way into the log. It holds for the definition it was made with; after an ALTER there is a new one.
struct Intake {
    relation: Arc<Relation>,
    writer: RelationWriter,
    projection: Projection,
}

impl Intake {
    fn writes(&self, rows: &RecordBatch, now: Micros) -> Result<Vec<Write>> {
        let given = self.projection.apply(rows)?;
        Ok(self.writer.write_fitting(&self.projection.targets, &given, log::Kind::Append, now)?.0)
    }
}

/// Why a source does not go on at once.
enum Pause {
    Finished,
    Until(Micros),
}

/// Rows that are one transaction, and where the source stands after them.
#[derive(Default)]
struct Load {
    writes: Vec<Write>,
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

    /// Goes on from what the log has. Returns only when nothing is on its way any more: whoever goes on after that must find all
    /// of it in the log.
    fn follow(&self) -> Result<()> {
        let mut in_flight = None;
        let result = self.feed(&mut in_flight);
        result.and(settle(in_flight))
    }

    /// One transaction is on its way while the rows of the next are made. Never more: if one failed and its successor did not,
    /// rows would be lost.
    fn feed(&self, in_flight: &mut Option<Ack>) -> Result<()> {
        let mut intake = self.intake()?;
        let mut source = self.connector.open(self.context.log.position_of(self.stream)?);
        while !self.stop.is_set() {
            if !Arc::ptr_eq(&intake.relation, &self.relation()?) {
                intake = self.intake()?;
            }
            let (load, pause) = self.gather(source.as_mut(), &intake)?;
            settle(in_flight.take())?;
            if let Some(load) = load {
                *in_flight = Some(self.submit(load, &intake));
            }
            match pause {
                None => {}
                Some(Pause::Finished) => break,
                Some(Pause::Until(time)) => drop(self.stop.wait(self.time_until(time))),
            }
        }
        Ok(())
    }

    fn intake(&self) -> Result<Intake> {
        let relation = self.relation()?;
        let catalog = self.context.log.catalog();
        let dead = catalog.dead_letters_of(relation.id);
        let planner = Planner::new(Arc::clone(&catalog), Arc::clone(&self.context.session));
        let compiled = Arc::new(CompiledRelation::compile(Arc::clone(&relation), &planner)?);
        let writer = RelationWriter::new(compiled, dead.cloned(), None);
        let projection = self.connector.projection(&relation)?;
        Ok(Intake { relation, writer, projection })
    }

    /// The writes of a transaction: of all rows that are due, up to a bound.
    fn gather(&self, source: &mut dyn Source, intake: &Intake) -> Result<(Option<Load>, Option<Pause>)> {
        let mut load: Option<Load> = None;
        let (mut taken, mut bytes) = (0, 0);
        while taken < TRANSACTION_ROWS && bytes < TRANSACTION_BYTES {
            let now = self.context.clock.now();
            match source.next(now) {
                Next::Rows { rows, position } => {
                    taken += rows.num_rows();
                    bytes += rows.get_array_memory_size();
                    let load = load.get_or_insert_with(Load::default);
                    load.writes.extend(intake.writes(&rows, now)?);
                    load.position = position;
                }
                Next::Wait(until) => return Ok((load, Some(Pause::Until(until)))),
                Next::Finished => return Ok((load, Some(Pause::Finished))),
            }
        }
        Ok((load, None))
    }

    fn submit(&self, load: Load, intake: &Intake) -> Ack {
        let producer = Some((log::producer_of(self.stream), load.position));
        let durability = intake.relation.durability;
        self.context.log.submit(Transaction { writes: load.writes, producer, durability, ..Transaction::default() })
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

fn settle(in_flight: Option<Ack>) -> Result<()> {
    in_flight.map_or(Ok(()), |ack| ack.wait().map(drop))
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the thread of a source panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Change, Column};
    use crate::connect::nexmark::{Events, Kind as Table, SEED};
    use crate::connect::tests::{column, stream};
    use crate::log::{Options, memory};
    use crate::time::{ManualClock, TIMESTAMP};
    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Int64Type};

    const EVENTS: u64 = 600_000;

    fn columns() -> Vec<Column> {
        vec![column("auction", DataType::Int64), column("price", DataType::Int64), column("date_time", TIMESTAMP)]
    }

    fn bid(options: &[(&str, &str)]) -> Relation {
        stream("bid", columns(), &[&[("connector", "nexmark")], options].concat())
    }

    fn start(log: &LogHandle) -> Connectors {
        let session = Arc::new(datafusion::prelude::SessionContext::new().state());
        Connectors::start(log.clone(), Arc::new(ManualClock::new(1_000_000)), session).unwrap()
    }

    fn open(disk: &memory::Disk) -> LogHandle {
        LogHandle::start(Box::new(disk.open().unwrap()), Arc::new(ManualClock::new(1)), Options::default()).unwrap()
    }

    fn change(log: &LogHandle, change: Change) {
        log.submit(Transaction { changes: vec![change], ..Transaction::default() }).wait().unwrap();
    }

    fn rows(log: &LogHandle) -> u64 {
        log.head(crate::catalog::FIRST_RELATION).map_or(0, |head| head.next_offsets.iter().sum())
    }

    fn wait_for(log: &LogHandle, enough: u64) {
        for _ in 0..1000 {
            if rows(log) >= enough {
                return;
            }
            log.wait_past(log.end(), Duration::from_millis(50));
        }
        panic!("only {} rows of {enough} have come", rows(log));
    }

    #[test]
    fn a_source_that_is_stopped_and_started_again_gives_every_row_once() {
        let disk = memory::Disk::default();
        let log = open(&disk);
        let relation = bid(&[("events", "600000")]);
        change(&log, Change::Create(relation.clone()));
        let mut before = 0;
        let mut log = log;
        loop {
            let connectors = start(&log);
            wait_for(&log, (before + 1).min(EVENTS / 50 * 46));
            connectors.stop();
            before = rows(&log);
            if before >= EVENTS / 50 * 46 {
                break;
            }
            // As after a power cut: only what was flushed.
            log.close().unwrap();
            log = open(&disk);
            assert_eq!(rows(&log), before, "what was acknowledged is there");
        }
        let mut catalog = Catalog::default();
        catalog.apply(&Change::Create(relation));
        let commits = log.read(&catalog, 0, log.end(), usize::MAX).unwrap();
        let batches: Vec<_> = commits.iter().flat_map(|commit| &commit.batches).map(|batch| &batch.rows).collect();
        let stored = concat_batches(&batches[0].schema(), batches.iter().copied()).unwrap();
        let bids: Vec<u64> = (0..EVENTS).filter(|event| Table::of(*event) == Table::Bid).collect();
        let expected = Events { seed: SEED, ..Events::default() }.rows(Table::Bid, bids.into_iter());
        let prices = |rows: &RecordBatch| rows.column_by_name("price").unwrap().as_primitive::<Int64Type>().clone();
        assert_eq!(prices(&stored), prices(&expected));
        assert!(commits.len() > 2, "several transactions");
    }

    #[test]
    fn a_stream_made_later_gets_its_source_and_a_dropped_one_loses_it() {
        let log = open(&memory::Disk::default());
        let connectors = start(&log);
        let relation = bid(&[]);
        let id = relation.id;
        change(&log, Change::Create(relation));
        wait_for(&log, 1000);
        change(&log, Change::Drop(id));
        let end = (0..100).find(|_| {
            let end = log.end();
            std::thread::sleep(2 * LOOK);
            end == log.end()
        });
        assert!(end.is_some(), "the endless source goes on without its stream");
        connectors.stop();
    }
}
