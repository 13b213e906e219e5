//! Money moves between ten accounts and none is made or lost: the total is zero in every snapshot and after every commit that a
//! subscriber is told of, while four writers move it. (Jamie Brandon, "Internal consistency in streaming systems", 2021.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::server::{Server, Settings, numbers, run, verify};

const SETUP: &[&str] = &[
    "CREATE STREAM transfers (from_account INT, to_account INT, amount BIGINT, at TIMESTAMP(3),
       WATERMARK FOR at AS at - INTERVAL '5' SECOND) PARTITION BY (from_account) INTO 3 PARTITIONS",
    "CREATE MATERIALIZED VIEW credits AS SELECT to_account AS account, SUM(amount) AS amount FROM transfers GROUP BY to_account",
    "CREATE MATERIALIZED VIEW debits AS SELECT from_account AS account, SUM(amount) AS amount FROM transfers GROUP BY from_account",
    "CREATE MATERIALIZED VIEW balance AS SELECT account, SUM(amount) AS balance
       FROM (SELECT account, amount FROM credits UNION ALL SELECT account, -amount FROM debits) AS moves GROUP BY account",
    "CREATE MATERIALIZED VIEW total AS SELECT SUM(balance) AS total FROM balance",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_total_is_zero_at_every_moment() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings { workers: Some(4), ..Settings::default() }).await;
    let client = server.connect().await;
    for statement in SETUP {
        run(&client, statement).await;
    }
    transfer(&client, &mut SmallRng::seed_from_u64(0), 0).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 1..=4 {
        let (client, stop) = (server.connect().await, Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(writer);
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                transfer(&client, &mut random, count).await;
            }
        }));
    }
    let follower = tokio::spawn(follow(server.connect().await, Arc::clone(&stop)));
    for _ in 0..200 {
        let moment = numbers::<3>(
            &client,
            "SELECT total, (SELECT SUM(balance) FROM balance),
               COALESCE((SELECT SUM(amount) FROM credits), 0) - COALESCE((SELECT SUM(amount) FROM debits), 0) FROM total",
        )
        .await;
        assert_eq!(moment, [[0, 0, 0]], "the views of one snapshot show different moments");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let commits = follower.await.unwrap();
    assert!(commits > 10, "the subscriber was told of {commits} commits only");
    for view in ["credits", "debits", "balance", "total"] {
        verify(&client, view).await;
    }
}

/// One commit: a few transfers, with event times out of order.
async fn transfer(client: &Client, random: &mut SmallRng, count: i64) {
    let mut moves = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let (from, to, amount) = (random.random_range(0..10), random.random_range(0..10), random.random_range(1..1000));
        let second = (count / 50 + random.random_range(0..10)) % 3600;
        moves.push(format!("({from}, {to}, {amount}, '2025-01-01 10:{:02}:{:02}')", second / 60, second % 60));
    }
    run(client, &format!("INSERT INTO transfers VALUES {}", moves.join(", "))).await;
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
