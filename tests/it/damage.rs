//! State that is damaged, and work that is given up half-way: the log brings back the one, and nothing is left of the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidegate::catalog::schema::PUBLIC;
use tidegate::database::{Config, Database};
use tidegate::engine::{Source, Span};
use tidegate::{limits, log, state};

use super::local::{differences, execute, numbers as local_numbers};
use super::server::{Server, Settings, numbers, run, verify};

/// Whatever bytes of a checkpoint flip: the start finds it, and computes the views from the log again.
#[tokio::test(flavor = "multi_thread")]
async fn views_come_back_from_the_log_when_their_state_is_damaged() {
    let (log, mut state) = (log::memory::Disk::default(), state::memory::Disk::default());
    let open = |log: &log::memory::Disk, state: &state::memory::Disk| {
        Database::open_with(Box::new(log.open().unwrap()), Box::new(state.open()), Config::in_memory()).unwrap()
    };
    let (database, _) = open(&log, &state);
    let mut session = database.session("damage");
    let setup = "
        CREATE STREAM s (k INT, n BIGINT);
        CREATE TABLE t (id INT PRIMARY KEY, n BIGINT);
        CREATE MATERIALIZED VIEW sums AS SELECT k, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY k;
        CREATE MATERIALIZED VIEW rows_of_t AS SELECT COUNT(*) AS c, SUM(n) AS total FROM t;";
    execute(&mut session, "setup", setup).await;
    for commit in 0..20 {
        let insert = format!("INSERT INTO s VALUES ({}, {commit}); INSERT INTO t VALUES ({}, {commit})", commit % 3, commit % 7);
        execute(&mut session, "setup", &insert).await;
    }
    drop(session);
    database.close().unwrap();
    drop(database);

    let sound = state.copy();
    for seed in 0..30 {
        let who = format!("seed {seed}");
        state = sound.copy();
        let mut random = SmallRng::seed_from_u64(seed);
        let (target, mut at) = (random.random_range(0..state.len()), 0);
        state.damage(|_, value| {
            if at == target && !value.is_empty() {
                let byte = random.random_range(0..value.len());
                value[byte] ^= 1 << random.random_range(0..8);
            }
            at += 1;
        });
        let (database, opened) = open(&log, &state);
        assert!(opened.recovery.checkpoint.is_none(), "{who}: a damaged checkpoint was taken for sound");
        let mut session = database.session("damage");
        assert_eq!(local_numbers::<2>(&mut session, &who, "SELECT COUNT(*), SUM(n) FROM t").await, [[7, 112]], "{who}");
        for view in ["sums", "rows_of_t"] {
            assert_eq!(differences(&mut session, &who, view).await, None, "{who}: {view}");
        }
        drop(session);
        database.close().unwrap();
    }
    let (_, opened) = open(&log, &sound);
    assert!(opened.recovery.checkpoint.is_some(), "what was not damaged is used");
}

/// A COPY that is cancelled, and one whose client is gone, leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_copy_that_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM q (id BIGINT)").await;
    run(&client, "CREATE MATERIALIZED VIEW counted AS SELECT COUNT(*) AS n FROM q").await;
    // Enough to be staged in the log before the end: several blocks.
    let block = Bytes::from((0..200_000).map(|number| format!("{number}\n")).collect::<String>());
    for gone in [false, true] {
        let other = server.connect().await;
        {
            let sink = other.copy_in::<_, Bytes>("COPY q FROM STDIN").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            for _ in 0..3 {
                sink.send(block.clone()).await.unwrap();
            }
            // Dropping the sink sends CopyFail.
        }
        if gone {
            drop(other);
        } else {
            run(&other, "SELECT 1").await;
        }
    }
    run(&client, "INSERT INTO q VALUES (7)").await;
    assert_eq!(numbers::<2>(&client, "SELECT COUNT(*), SUM(id) FROM q").await, [[1, 7]]);
    assert_eq!(numbers::<1>(&client, "SELECT n FROM counted").await, [[1]]);
    verify(&client, "counted").await;
}

/// A view that is dropped while it is built is gone, and its name is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_can_be_dropped_while_it_is_built() {
    let (database, _) = Database::open(Config::in_memory()).unwrap();
    let mut session = database.session("damage");
    execute(&mut session, "drop", "CREATE STREAM s (n BIGINT)").await;
    for _ in 0..20 {
        execute(&mut session, "drop", "INSERT INTO s SELECT n FROM generate_series(1, 5000) AS g(n)").await;
    }
    let create = "CREATE MATERIALIZED VIEW v AS SELECT n % 100 AS k, COUNT(DISTINCT n) AS c FROM s GROUP BY n % 100";
    for round in 0..10 {
        let database = Arc::clone(&database);
        let mut other = database.session("builder");
        let building = tokio::spawn(async move { other.run(create).await.map(drop) });
        while database.catalog().find(PUBLIC, "v").is_none() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        execute(&mut session, &format!("round {round}"), "DROP MATERIALIZED VIEW v").await;
        // Built just before, or told that it is gone.
        let _ = building.await.expect("the statement ends");
        assert!(database.catalog().find(PUBLIC, "v").is_none());
    }
    execute(&mut session, "again", create).await;
    assert_eq!(local_numbers::<1>(&mut session, "again", "SELECT SUM(c) FROM v").await, [[5000]]);
    assert_eq!(differences(&mut session, "again", "v").await, None);
}

/// A subscriber that does not read is cut off: what waits for it is bounded, it learns where to resume, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_stops_reading_is_cut_off() {
    let (database, _) = Database::open(Config::in_memory()).unwrap();
    let mut session = database.session("damage");
    execute(&mut session, "slow", "CREATE STREAM s (n BIGINT, noise TEXT)").await;
    execute(&mut session, "slow", "CREATE MATERIALIZED VIEW wide AS SELECT n, noise FROM s").await;
    let wide = database.catalog().find(PUBLIC, "wide").expect("it was made").id;
    let mut subscription = database.engine().subscribe(Source::Relation(wide), Span { snapshot: true, ..Span::default() });
    // Eight megabytes a commit.
    let insert = "INSERT INTO s SELECT n, repeat('x', 2000) FROM generate_series(1, 4000) AS g(n)";
    let commits = limits::SUBSCRIBER_BYTES / (8 << 20) + 6;
    for _ in 0..commits {
        execute(&mut session, "slow", insert).await;
    }
    let all = rows_of(commits);
    assert_eq!(local_numbers::<1>(&mut session, "slow", "SELECT COUNT(*) FROM wide").await, [[all]]);

    let (mut rows, mut end) = (0, None);
    while let Some(update) = subscription.next().await {
        match update {
            Ok(update) => rows += update.delta.map_or(0, |delta| delta.len() as i64),
            Err(error) => end = Some(error),
        }
    }
    let error = end.expect("it is told why it ends");
    let resume = error.hint().and_then(|hint| hint.rsplit_once("AS OF ")?.1.parse().ok());
    assert!(resume.is_some(), "{error:?}");
    // One commit may go beyond the bound.
    let bound = rows_of(limits::SUBSCRIBER_BYTES / (8 << 20) + 2);
    assert!(rows > 0 && rows <= bound, "{rows} rows waited for it");
    // From there on it gets all the others.
    let span = Span { as_of: resume, up_to: Some(database.log().end() + 1), ..Span::default() };
    let mut rest = database.engine().subscribe(Source::Relation(wide), span);
    while let Some(update) = rest.next().await {
        rows += update.expect("it reads as they come").delta.map_or(0, |delta| delta.len() as i64);
    }
    assert_eq!(rows, all, "rows before and after the cut");
}

fn rows_of(commits: usize) -> i64 {
    commits as i64 * 4000
}
