//! The process ends between any two operations of its store: what was acknowledged is there, and nothing else.
//!
//! ```text
//! TIDEGATE_CRASH_ROUNDS=1000 TIDEGATE_CRASH_SEED=7 cargo test --test it crash
//! ```
//!
//! The database runs in this process over a log in memory that dies at an operation drawn from the seed: it refuses that one
//! and all later ones, and forgets what was not flushed. The database is opened again on what is left, with the checkpoint that
//! there was. One writer, so that a seed says everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidegate::catalog::RelationId;
use tidegate::database::{Config, Database};
use tidegate::error::{Error, Result};
use tidegate::log::{self, CommitRecord, Log, LogReader};
use tidegate::session::Client;
use tidegate::time::ManualClock;
use tidegate::{engine, state};

use super::local::{differences, execute, numbers};
use super::{number_from_env, say};

const SETUP: &str = "
    CREATE STREAM ledger (number BIGINT, amount BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
        PARTITION BY (number) INTO 3 PARTITIONS;
    CREATE STREAM audit (number BIGINT);
    CREATE TABLE newest (id INT PRIMARY KEY, number BIGINT);
    CREATE MATERIALIZED VIEW totals AS SELECT number % 5 AS k, COUNT(*) AS entries, SUM(amount) AS total FROM ledger GROUP BY number % 5;
    CREATE MATERIALIZED VIEW per_window AS SELECT window_start, COUNT(*) AS entries, SUM(amount) AS total
        FROM TUMBLE(ledger, at, INTERVAL '10 seconds') GROUP BY window_start, window_end;
    CREATE STREAM thirds PARTITION BY (number) INTO 2 PARTITIONS AS SELECT number, amount, at FROM ledger WHERE number % 3 = 0;
    CREATE STREAM closed AS SELECT window_start, COUNT(*) AS entries, MIN(number) AS first
        FROM TUMBLE(thirds, at, INTERVAL '2 seconds') GROUP BY window_start, window_end EMIT FINAL;
    CREATE MATERIALIZED VIEW third_totals AS SELECT COUNT(*) AS entries, SUM(amount) AS total FROM thirds;
    CREATE STREAM changes AS CHANGELOG OF totals;
    CREATE TABLE kept (k BIGINT PRIMARY KEY, entries BIGINT, total BIGINT);
    INSERT INTO kept SELECT k, entries, total FROM totals EMIT CHANGES;
";
const VIEWS: [&str; 6] = ["totals", "per_window", "thirds", "closed", "third_totals", "changes"];

#[tokio::test(flavor = "multi_thread")]
async fn at_any_operation_of_the_store() {
    let (rounds, seed) = (number_from_env("TIDEGATE_CRASH_ROUNDS", 60), number_from_env("TIDEGATE_CRASH_SEED", 1));
    let mut world = World {
        log: log::memory::Disk::default(),
        state: state::memory::Disk::default(),
        clock: Arc::new(ManualClock::new(1_735_689_600_000_000)),
        random: SmallRng::seed_from_u64(seed),
        acknowledged: 0,
        places: Vec::new(),
    };
    let (database, mut session) = world.open(i64::MAX);
    execute(&mut session, "set-up", SETUP).await;
    drop(session);
    database.close().expect("nothing has died yet");
    for round in 1..=rounds {
        world.round(&format!("round {round} of seed {seed}")).await;
    }
    say(&format!("crash: {rounds} rounds of seed {seed}, {} rows acknowledged, none lost", world.acknowledged));
}

/// What outlives the process, and what the writer was told.
struct World {
    log: log::memory::Disk,
    state: state::memory::Disk,
    clock: Arc<ManualClock>,
    random: SmallRng,
    /// Numbers below this one were acknowledged.
    acknowledged: i64,
    /// Partition, offset and number of each row, as last seen.
    places: Vec<[i64; 3]>,
}

impl World {
    fn open(&mut self, operations: i64) -> (Arc<Database>, Client) {
        let engine = engine::Options {
            checkpoint_interval: Duration::from_secs(3600),
            step_commits: self.random.random_range(1..4),
            ..engine::Options::default()
        };
        let config = Config { engine, clock: self.clock.clone(), ..Config::in_memory() };
        let inner = Box::new(self.log.open().expect("the log opens"));
        let log = Box::new(Dying { inner, left: AtomicI64::new(operations), flushes_last: self.random.random_bool(0.5) });
        let (database, _) = Database::open_with(log, Box::new(self.state.open()), config).expect("the database opens");
        let session = database.session("crash");
        (database, session)
    }

    /// Write until the store dies, and look at what the next start finds.
    async fn round(&mut self, who: &str) {
        let operations = self.random.random_range(0..25);
        let (database, _) = self.open(operations);
        let pending = loop {
            let next = self.acknowledged + self.random.random_range(1..5);
            // A session of its own: it does not wait until the one before can be read.
            match database.session("crash").run(&self.transaction(next)).await {
                Ok(_) => self.acknowledged = next,
                Err(error) => {
                    assert!(error.message().contains("the power has failed"), "{who}: {error:?}");
                    break next;
                }
            }
            if self.random.random_bool(0.15) {
                // None is written when the log has died meanwhile under what a query writes.
                let written = database.engine().checkpoint().await.err();
                assert!(written.as_ref().is_none_or(|error| error.message().contains("no checkpoint")), "{who}: {written:?}");
            }
        };
        // Closing writes a checkpoint, which a process that has ended would not have written.
        let state = self.state.copy();
        database.close().expect_err("the log has died");
        drop(database);
        self.state = state;
        self.check(who, pending).await;
    }

    /// Three relations in one transaction: the numbers from the acknowledged ones up to this one.
    fn transaction(&mut self, end: i64) -> String {
        self.clock.set(1_735_689_600_000_000 + end * 100_000);
        let numbers: Vec<i64> = (self.acknowledged..end).collect();
        let mut entry = |number: &i64| {
            let millis = 1_735_689_600_000 + number * 100 + self.random.random_range(-3000..3000);
            format!("({number}, {}, TIMESTAMP '1970-01-01' + INTERVAL '{millis} milliseconds')", amount_of(*number))
        };
        let entries: Vec<String> = numbers.iter().map(&mut entry).collect();
        let audit: Vec<String> = numbers.iter().map(|number| format!("({number})")).collect();
        let (entries, audit, last) = (entries.join(", "), audit.join(", "), end - 1);
        format!(
            "BEGIN; INSERT INTO ledger VALUES {entries}; INSERT INTO audit VALUES {audit}; INSERT INTO newest VALUES (1, {last}); COMMIT"
        )
    }

    /// `pending`: the end of the transaction whose answer was an error: it may be there, whole.
    async fn check(&mut self, who: &str, pending: i64) {
        let (database, mut session) = self.open(i64::MAX);
        let places =
            numbers::<4>(&mut session, who, "SELECT _partition, _offset, number, amount FROM ledger ORDER BY 1, 2").await;
        let there: BTreeSet<i64> = places.iter().map(|row| row[2]).collect();
        let end = there.last().map_or(0, |last| last + 1);
        assert!(end >= self.acknowledged, "{who}: the acknowledged rows {end} to {} are lost", self.acknowledged - 1);
        assert!(end == self.acknowledged || end == pending, "{who}: half of a transaction is there: {end} of {pending}");
        assert_eq!(there.len(), places.len(), "{who}: a row is doubled");
        assert_eq!(there.len() as i64, end, "{who}: a row is lost");
        assert!(places.iter().all(|row| row[3] == amount_of(row[2])), "{who}: a row is not what was written");
        self.check_places(who, places.iter().map(|row| [row[0], row[1], row[2]]).collect());

        let expected = if end == 0 { [0, 0, 0] } else { [end, end - 1, end - 1] };
        let others = "SELECT (SELECT COUNT(*) FROM audit), COALESCE((SELECT MAX(number) FROM audit), 0), COALESCE((SELECT number FROM newest), 0)";
        assert_eq!(
            numbers::<3>(&mut session, who, others).await,
            [expected],
            "{who}: the relations are of different transactions"
        );
        let entries = numbers::<1>(&mut session, who, "SELECT COALESCE(SUM(entries), 0) FROM totals").await;
        assert_eq!(entries, [[end]], "{who}: the view differs from its stream");
        self.check_derived(&mut session, who, &there).await;
        for view in VIEWS {
            if let Some(differs) = differences(&mut session, who, view).await {
                panic!("{who}: {view} differs from its batch answer\n{differs}");
            }
        }
        self.acknowledged = end;
        let state = self.state.copy();
        drop(session);
        database.close().unwrap_or_else(|error| panic!("{who}: {error:?}"));
        self.state = state;
    }

    /// Each row that a query writes is there once, in the stream and in the table.
    async fn check_derived(&self, session: &mut Client, who: &str, there: &BTreeSet<i64>) {
        execute(session, who, "FLUSH").await;
        let thirds = numbers::<1>(session, who, "SELECT number FROM thirds ORDER BY number").await;
        let expected: Vec<[i64; 1]> = there.iter().filter(|number| *number % 3 == 0).map(|number| [*number]).collect();
        assert_eq!(thirds, expected, "{who}: rows of the derived stream are lost or doubled");
        let [kept, totals] = ["kept", "totals"].map(|name| format!("SELECT k, entries, total FROM {name} ORDER BY k"));
        let (kept, totals) = (numbers::<3>(session, who, &kept).await, numbers::<3>(session, who, &totals).await);
        assert_eq!(kept, totals, "{who}: the table that a query keeps differs from the view");
    }

    /// No gaps, and nothing that was seen has moved.
    fn check_places(&mut self, who: &str, places: Vec<[i64; 3]>) {
        let mut next = [0; 3];
        for [partition, offset, _] in &places {
            assert_eq!(*offset, next[*partition as usize], "{who}: partition {partition} has a gap or a double");
            next[*partition as usize] += 1;
        }
        let now: BTreeSet<&[i64; 3]> = places.iter().collect();
        let moved = self.places.iter().find(|place| !now.contains(place));
        assert_eq!(moved, None, "{who}: a row has moved or is lost");
        self.places = places;
    }
}

/// What a row says is known from its number.
fn amount_of(number: i64) -> i64 {
    (number * 7919) % 1000 - 300
}

/// A log that dies.
struct Dying {
    inner: Box<dyn Log>,
    /// Operations until then.
    left: AtomicI64,
    /// If it is a flush that it dies at, the flush reaches the disk, and only its answer is lost.
    flushes_last: bool,
}

impl Dying {
    fn live(&self) -> Result<()> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => Ok(()),
            _ => Err(Error::io("the power has failed")),
        }
    }
}

impl Log for Dying {
    fn append(&mut self, commit: CommitRecord) -> Result<()> {
        self.live()?;
        self.inner.append(commit)
    }

    fn next_stage_id(&self) -> u64 {
        self.inner.next_stage_id()
    }

    fn stage(&mut self, id: u64, payload: &Bytes) -> Result<()> {
        self.live()?;
        self.inner.stage(id, payload)
    }

    fn discard(&mut self, id: u64) -> Result<()> {
        self.live()?;
        self.inner.discard(id)
    }

    fn purge(&mut self, relation: RelationId, limit: usize) -> Result<bool> {
        self.live()?;
        self.inner.purge(relation, limit)
    }

    fn flush(&mut self) -> Result<()> {
        let last = self.left.load(Ordering::SeqCst) == 0;
        let live = self.live();
        if live.is_ok() || (last && self.flushes_last) {
            self.inner.flush()?;
        }
        live
    }

    fn unflushed(&self) -> usize {
        self.inner.unflushed()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.inner.reader()
    }
}
