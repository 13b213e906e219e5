//! Money moves between ten accounts and none is made or lost: every view shows that in every snapshot and after every commit
//! that a subscriber is told of, while four writers move it. (Jamie Brandon, "Internal consistency in streaming systems", 2021.)
//!
//! ```text
//! cargo build --release
//! TIDEGATE_OBSERVATIONS=1000000 TIDEGATE_BIN=$PWD/target/release/tidegate cargo test --test it transfers
//! ```
//!
//! An observation is one fact, of [`FACTS`], looked at in one snapshot, or one commit of a subscription. Writers go on as readers
//! do, so that views that keep every transfer are not what a long run measures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::server::{Server, Settings, numbers, run, verify};
use crate::{number_from_env, say};

const SETUP: &[&str] = &[
    "CREATE STREAM transfers (id BIGINT, from_account INT, to_account INT, amount BIGINT, at TIMESTAMP(3),
       WATERMARK FOR at AS at - INTERVAL '5' SECOND) PARTITION BY (from_account) INTO 3 PARTITIONS",
    "CREATE MATERIALIZED VIEW credits AS SELECT to_account AS account, SUM(amount) AS amount FROM transfers GROUP BY to_account",
    "CREATE MATERIALIZED VIEW debits AS SELECT from_account AS account, SUM(amount) AS amount FROM transfers GROUP BY from_account",
    "CREATE MATERIALIZED VIEW balance AS SELECT account, SUM(amount) AS balance
       FROM (SELECT account, amount FROM credits UNION ALL SELECT account, -amount FROM debits) AS moves GROUP BY account",
    "CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS total FROM balance",
    "CREATE MATERIALIZED VIEW joined AS SELECT account, COALESCE(c.amount, 0) - COALESCE(d.amount, 0) AS balance
       FROM credits AS c FULL JOIN debits AS d USING (account)",
    "CREATE MATERIALIZED VIEW per_window AS SELECT window_start, SUM(CASE WHEN incoming THEN amount ELSE -amount END) AS total
       FROM TUMBLE((SELECT at, amount, true AS incoming FROM transfers UNION ALL SELECT at, amount, false FROM transfers), at,
         INTERVAL '1 minute') GROUP BY window_start, window_end",
    "CREATE MATERIALIZED VIEW myself AS SELECT a.id, b.id AS same FROM transfers AS a LEFT JOIN transfers AS b ON a.id = b.id",
];

/// Each is zero.
const FACTS: [&str; 7] = [
    "(SELECT total FROM total)",
    "(SELECT SUM(balance) FROM balance)",
    "(SELECT SUM(balance) FROM joined)",
    "(SELECT COALESCE(SUM(amount), 0) FROM credits) - (SELECT COALESCE(SUM(amount), 0) FROM debits)",
    "(SELECT COUNT(*) FROM joined FULL JOIN balance USING (account) WHERE joined.balance IS DISTINCT FROM balance.balance)",
    "(SELECT COUNT(*) FROM per_window WHERE total <> 0)",
    "(SELECT COUNT(*) FROM myself WHERE same IS NULL)",
];

const READERS: u64 = 2;
/// Transfers of a writer before the first snapshot is looked at, and the snapshots for each one more.
const AHEAD: u64 = 25;
const SNAPSHOTS_PER_TRANSFER: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn the_total_is_zero_at_every_moment() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings { workers: Some(4), ..Settings::default() }).await;
    let client = server.connect().await;
    for statement in SETUP {
        run(&client, statement).await;
    }
    transfer(&client, &mut SmallRng::seed_from_u64(0), 0).await;
    // A session waits for its own writes; after it, everyone sees them.
    assert_eq!(numbers::<1>(&client, "SELECT total FROM total").await, [[0]]);

    let (stop, snapshots) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for writer in 1..=4 {
        let (client, stop, snapshots) = (server.connect().await, Arc::clone(&stop), Arc::clone(&snapshots));
        writers.push(tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(writer);
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                if count > AHEAD + snapshots.load(Ordering::Relaxed) / SNAPSHOTS_PER_TRANSFER {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                count += 1;
                transfer(&client, &mut random, count as i64).await;
            }
        }));
    }
    let follower = tokio::spawn(follow(server.connect().await, Arc::clone(&stop)));
    let wanted = number_from_env("TIDEGATE_OBSERVATIONS", 2000) / READERS;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(tokio::spawn(observe(server.connect().await, wanted, Arc::clone(&snapshots))));
    }
    let mut observations = 0;
    for reader in readers {
        observations += reader.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let commits = follower.await.unwrap();
    assert!(commits > 10, "the subscriber was told of {commits} commits only");
    for view in ["credits", "debits", "balance", "total", "joined", "per_window", "myself"] {
        verify(&client, view).await;
    }
    say(&format!("transfers: {observations} facts and {commits} commits observed, all consistent"));
}

/// One commit: a few transfers, with event times out of order.
async fn transfer(client: &Client, random: &mut SmallRng, count: i64) {
    let mut moves = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let (from, to, amount) = (random.random_range(0..10), random.random_range(0..10), random.random_range(1..1000));
        let second = (count / 50 + random.random_range(0..10)) % 3600;
        let id = random.random_range(0..i64::MAX);
        moves.push(format!("({id}, {from}, {to}, {amount}, '2025-01-01 10:{:02}:{:02}')", second / 60, second % 60));
    }
    run(client, &format!("INSERT INTO transfers VALUES {}", moves.join(", "))).await;
}

/// Look at every fact, over and over; returns how many were looked at.
async fn observe(client: Client, wanted: u64, snapshots: Arc<AtomicU64>) -> u64 {
    let query = format!("SELECT {}", FACTS.join(", "));
    let mut observations = 0;
    while observations < wanted {
        let moment = numbers::<{ FACTS.len() }>(&client, &query).await;
        assert_eq!(moment, [[0; FACTS.len()]], "the views of one snapshot show different moments: {FACTS:?}");
        observations += FACTS.len() as u64;
        snapshots.fetch_add(1, Ordering::Relaxed);
    }
    observations
}

/// Follow the balances; returns the number of commits seen.
async fn follow(client: Client, stop: Arc<AtomicBool>) -> usize {
    run(&client, "BEGIN").await;
    run(&client, "DECLARE changes CURSOR FOR SUBSCRIBE balance").await;
    let mut balances: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut commits, mut last) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        for message in client.simple_query("FETCH 50 FROM changes WITH (timeout = '100ms')").await.unwrap() {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let value = |column: &str| row.get(column).unwrap().parse::<i64>().unwrap();
            if last != Some(value("commit")) {
                // All changes of the commit before have come.
                assert_eq!(balances.values().sum::<i64>(), 0, "after commit {last:?}: {balances:?}");
                last = Some(value("commit"));
                commits += 1;
            }
            *balances.entry(value("account")).or_default() += value("diff") * value("balance");
        }
    }
    commits
}
