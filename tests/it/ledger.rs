//! What the crash tests write, and what must hold however the server ends.
//!
//! Four writers commit small transactions, each writer its own numbers in order: one, two, three, … Every third transaction
//! writes the stream, a second stream and a table at once. What a row holds is a function of writer and number, and what was
//! acknowledged is remembered here, outside of the server. After each end [`Ledger::check`] reads everything back:
//!
//! * every acknowledged row is there, once; of a transaction whose answer never came, all or nothing is there;
//! * offsets of a partition have no gaps, and no row that was seen has moved;
//! * stream, second stream and table agree on every transaction that wrote all three;
//! * derived streams and tables that a query keeps hold what follows from the rows, once;
//! * views hold what is computed here from the rows, and `VERIFY` says so too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::server::{PATIENCE, Server, describe, numbers, run, verify};

const WRITERS: usize = 4;

/// One in so many transactions writes all three relations.
const WIDE: u64 = 3;

const SETUP: &[&str] = &[
    "CREATE STREAM ledger (writer INT, number BIGINT, amount BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '2' SECOND)
       PARTITION BY (writer) INTO 4 PARTITIONS",
    "CREATE STREAM audit (writer INT, number BIGINT)",
    "CREATE TABLE newest (writer INT PRIMARY KEY, number BIGINT)",
    "CREATE MATERIALIZED VIEW totals AS
       SELECT writer, COUNT(*) AS entries, SUM(amount) AS total, MAX(number) AS last FROM ledger GROUP BY writer",
    "CREATE MATERIALIZED VIEW per_window AS
       SELECT window_start, window_end, writer, COUNT(*) AS entries, SUM(amount) AS total
       FROM TUMBLE(ledger, at, INTERVAL '10 seconds') GROUP BY window_start, window_end, writer",
    "CREATE STREAM thirds PARTITION BY (writer) INTO 2 PARTITIONS AS SELECT writer, number, at FROM ledger WHERE number % 3 = 0",
    "CREATE STREAM closed AS SELECT window_start, writer, COUNT(*) AS entries
       FROM TUMBLE(thirds, at, INTERVAL '5 seconds') GROUP BY window_start, window_end, writer EMIT FINAL",
    "CREATE TABLE kept (writer INT PRIMARY KEY, entries BIGINT, total NUMERIC)",
    "INSERT INTO kept SELECT writer, entries, total FROM totals EMIT CHANGES",
    "CREATE MATERIALIZED VIEW newest_sum AS SELECT COUNT(*) AS writers, SUM(number) AS numbers FROM newest",
];

const VIEWS: [&str; 5] = ["totals", "per_window", "newest_sum", "thirds", "closed"];

/// What is known of one writer.
#[derive(Default)]
struct Writer {
    /// Numbers of each acknowledged transaction; true: it wrote all three relations.
    acknowledged: Vec<(Range<i64>, bool)>,
    /// Asked for, not answered (yet).
    pending: Option<(Range<i64>, bool)>,
}

/// All that was written, and all that was seen.
pub struct Ledger {
    writers: [Arc<Mutex<Writer>>; WRITERS],
    /// (partition, offset) of the rows of earlier checks.
    seen: BTreeMap<(i64, i64), (i64, i64)>,
    round: u64,
    seed: u64,
}

impl Ledger {
    pub fn new(seed: u64) -> Ledger {
        Ledger { writers: Default::default(), seen: BTreeMap::new(), round: 0, seed }
    }

    pub async fn set_up(&self, server: &Server) {
        let client = server.connect().await;
        for statement in SETUP {
            run(&client, statement).await;
        }
    }

    /// Start the writers. They go on until the server is gone.
    pub async fn write(&mut self, server: &Server) -> Vec<JoinHandle<()>> {
        self.round += 1;
        let mut tasks = Vec::new();
        for (writer, state) in self.writers.iter().enumerate() {
            let client = server.connect().await;
            let random = SmallRng::seed_from_u64(self.seed ^ (self.round << 8) ^ writer as u64);
            tasks.push(tokio::spawn(write_until_the_end(client, writer as i64, Arc::clone(state), random)));
        }
        tasks
    }

    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(|writer| writer.lock().acknowledged.len()).sum()
    }

    /// What was acknowledged up to now must be there; what is acknowledged later may be.
    pub fn promised(&self) -> [usize; WRITERS] {
        std::array::from_fn(|writer| self.writers[writer].lock().acknowledged.len())
    }

    /// Everything must hold. Afterwards what is there counts as acknowledged, and what is not is forgotten. `promised`: how many
    /// transactions of each writer must be there; the later ones may be there or not, in order.
    pub async fn check(&mut self, server: &Server, promised: [usize; WRITERS]) {
        if tokio::time::timeout(PATIENCE, self.check_all(server, promised)).await.is_err() {
            panic!("round {}: the server does not answer; it printed:\n{}", self.round, server.printed());
        }
    }

    async fn check_all(&mut self, server: &Server, promised: [usize; WRITERS]) {
        let client = server.connect().await;
        let entries = numbers::<5>(&client, "SELECT _partition, _offset, writer, number, amount FROM ledger ORDER BY 1, 2").await;
        self.check_offsets(&entries);
        let mut by_writer: [BTreeSet<i64>; WRITERS] = Default::default();
        for [_, _, writer, number, amount] in &entries {
            assert_eq!(*amount, amount_of(*writer, *number), "writer {writer}, number {number}: the row is not what was written");
            let is_new = by_writer[*writer as usize].insert(*number);
            assert!(is_new, "writer {writer}, number {number}: doubled");
        }
        let audit: BTreeSet<[i64; 2]> = numbers::<2>(&client, "SELECT writer, number FROM audit").await.into_iter().collect();
        let newest: BTreeSet<[i64; 2]> = numbers::<2>(&client, "SELECT writer, number FROM newest").await.into_iter().collect();
        let (mut expected_audit, mut expected_newest) = (BTreeSet::new(), BTreeSet::new());
        for (writer, there) in by_writer.iter().enumerate() {
            self.settle(writer, there, promised[writer]);
            let state = self.writers[writer].lock();
            let mut wide = state.acknowledged.iter().filter(|(_, wide)| *wide).map(|(range, _)| range);
            expected_audit.extend(wide.clone().flat_map(|range| range.clone().map(|number| [writer as i64, number])));
            expected_newest.extend(wide.next_back().map(|range| [writer as i64, range.end - 1]));
        }
        assert_eq!(audit, expected_audit, "the second stream has other transactions than the first");
        assert_eq!(newest, expected_newest, "the table has other transactions than the stream");
        self.check_views(&client, &by_writer).await;
    }

    fn check_offsets(&mut self, entries: &[[i64; 5]]) {
        let (mut next, mut home) = (BTreeMap::<i64, i64>::new(), BTreeMap::<i64, i64>::new());
        let mut last = BTreeMap::<i64, i64>::new();
        let mut now_seen = BTreeMap::new();
        for [partition, offset, writer, number, _] in entries {
            let expected = next.entry(*partition).or_default();
            assert_eq!(offset, expected, "partition {partition} has a gap or a double");
            *expected += 1;
            assert_eq!(home.entry(*writer).or_insert(*partition), partition, "writer {writer} is in two partitions");
            let before = last.insert(*writer, *number).unwrap_or(-1);
            assert!(before < *number, "writer {writer}: {number} stands after {before}");
            now_seen.insert((*partition, *offset), (*writer, *number));
        }
        for (place, row) in &self.seen {
            assert_eq!(now_seen.get(place), Some(row), "the row at (partition, offset) {place:?} has moved or is lost");
        }
        self.seen = now_seen;
    }

    /// Compare one writer's numbers with what it was told, transaction by transaction.
    fn settle(&self, writer: usize, there: &BTreeSet<i64>, promised: usize) {
        let mut state = self.writers[writer].lock();
        let pending = state.pending.take();
        let mut known: Vec<(Range<i64>, bool)> = std::mem::take(&mut state.acknowledged);
        known.extend(pending);
        let mut gone = false;
        let mut expected = 0;
        for (index, (range, wide)) in known.into_iter().enumerate() {
            let present = range.clone().filter(|number| there.contains(number)).count();
            assert!(
                present == 0 || present as i64 == range.end - range.start,
                "writer {writer}: of the transaction {range:?} only {present} rows are there"
            );
            assert!(present > 0 || index >= promised, "writer {writer}: the acknowledged transaction {range:?} is lost");
            assert!(present == 0 || !gone, "writer {writer}: {range:?} is there, an earlier transaction is not");
            gone |= present == 0;
            expected += present;
            if present > 0 {
                state.acknowledged.push((range, wide));
            }
        }
        assert_eq!(there.len(), expected, "writer {writer} has rows that it never wrote");
    }

    async fn check_views(&self, client: &Client, by_writer: &[BTreeSet<i64>; WRITERS]) {
        // What running queries write follows the rest.
        run(client, "FLUSH").await;
        let totals = numbers::<4>(client, "SELECT writer, entries, total, last FROM totals ORDER BY writer").await;
        let expected: Vec<[i64; 4]> = (0..)
            .zip(by_writer)
            .filter_map(|(writer, there)| {
                let total = there.iter().map(|number| amount_of(writer, *number)).sum();
                there.last().map(|last| [writer, there.len() as i64, total, *last])
            })
            .collect();
        assert_eq!(totals, expected, "the view differs from its stream");
        let in_windows = numbers::<1>(
            client,
            "SELECT (SELECT COALESCE(SUM(entries), 0) FROM per_window) + (SELECT COUNT(*) FROM per_window$late) AS entries",
        )
        .await;
        let all: usize = by_writer.iter().map(BTreeSet::len).sum();
        assert_eq!(in_windows, [[all as i64]], "a row is either in its window or late");
        let thirds = numbers::<2>(client, "SELECT writer, number FROM thirds ORDER BY writer, number").await;
        let each = (0..).zip(by_writer).flat_map(|(writer, there)| there.iter().map(move |number| [writer, *number]));
        let expected: Vec<[i64; 2]> = each.filter(|[_, number]| number % 3 == 0).collect();
        assert_eq!(thirds, expected, "rows of the derived stream are lost or doubled");
        let kept = "SELECT COUNT(*) AS different FROM kept FULL JOIN totals USING (writer)
            WHERE (kept.entries IS DISTINCT FROM totals.entries) OR (kept.total IS DISTINCT FROM totals.total)";
        assert_eq!(numbers::<1>(client, kept).await, [[0]], "the table that a query keeps differs from the view");
        for view in VIEWS {
            verify(client, view).await;
        }
    }
}

/// Transactions without a pause, until the connection breaks.
async fn write_until_the_end(client: Client, writer: i64, state: Arc<Mutex<Writer>>, mut random: SmallRng) {
    loop {
        let (first, wide) = {
            let state = state.lock();
            let next = state.acknowledged.last().map_or(0, |(range, _)| range.end);
            (next, (state.acknowledged.len() as u64).is_multiple_of(WIDE))
        };
        let range = first..first + random.random_range(1..6);
        let sql = statements(writer, &range, wide, &mut random);
        state.lock().pending = Some((range.clone(), wide));
        match client.simple_query(&sql).await {
            Ok(_) => {
                let mut state = state.lock();
                state.pending = None;
                state.acknowledged.push((range, wide));
            }
            // The server ended. An error that it still managed to send says so itself.
            Err(error) if error.as_db_error().is_none_or(|error| error.code().code().starts_with("57P")) => return,
            Err(error) => panic!("writer {writer}: {}", describe(&error)),
        }
    }
}

fn statements(writer: i64, range: &Range<i64>, wide: bool, random: &mut SmallRng) -> String {
    let mut entry = |number: i64| {
        // Ten numbers a second, up to three seconds early or late.
        let millis = 1_735_689_600_000 + number * 100 + random.random_range(-3000..3000);
        format!("({writer}, {number}, {}, TIMESTAMP '1970-01-01' + INTERVAL '{millis} milliseconds')", amount_of(writer, number))
    };
    let entries: Vec<String> = range.clone().map(&mut entry).collect();
    let insert = format!("INSERT INTO ledger VALUES {}", entries.join(", "));
    if !wide {
        return insert;
    }
    let audit: Vec<String> = range.clone().map(|number| format!("({writer}, {number})")).collect();
    let last = range.end - 1;
    format!(
        "BEGIN; {insert}; INSERT INTO audit VALUES {}; INSERT INTO newest VALUES ({writer}, {last}); COMMIT",
        audit.join(", ")
    )
}

/// What a row says is known from who wrote it.
fn amount_of(writer: i64, number: i64) -> i64 {
    (number * 7919 + writer * 104_729) % 1000 - 300
}
