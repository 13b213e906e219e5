//! Sinks over failures of either side: what a query shows is in the other server's table, each change once. The other server is
//! PostgreSQL, where there is one, and another Tidegate. `tests/slt/chains/sinks.slt` has what is refused.

use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use tokio_postgres::{Client, NoTls};

use crate::compat::postgres::Postgres;
use crate::say;
use crate::server::{PATIENCE, Server, Settings, rows, run, try_rows};

/// Where the rows go.
enum There {
    Postgres(Postgres),
    Tidegate { server: Box<Server>, _directory: tempfile::TempDir },
}

impl There {
    async fn start(kind: &str) -> Result<There, String> {
        if kind == "postgres" {
            return Ok(There::Postgres(Postgres::start().map_err(|why| why.to_string())?));
        }
        let directory = tempfile::tempdir().unwrap();
        let server = Box::new(Server::start(directory.path(), Settings::default()).await);
        Ok(There::Tidegate { server, _directory: directory })
    }

    fn address(&self) -> String {
        match self {
            There::Postgres(postgres) => postgres.address(),
            There::Tidegate { server, .. } => server.address(),
        }
    }

    async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.address(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn settings(there: &There) -> Settings {
    Settings { environment: vec![("TIDEGATE_CONNECTIONS", format!("there={}", there.address()))], ..Settings::default() }
}

/// Until a query has the same answer in both.
async fn until_equal(here: &Client, there: &Client, [ours, theirs]: [&str; 2], seed: u64) {
    let start = Instant::now();
    loop {
        let (ours, theirs) = (rows(here, ours).await, try_rows(there, theirs).await.unwrap_or_default());
        if ours == theirs {
            return;
        }
        if start.elapsed() > PATIENCE {
            let sinks = rows(here, "SELECT name, position, lag, error FROM tidegate.sinks").await;
            panic!("seed {seed}: {} rows here, {} there; {sinks:?}\n{ours:?}\n{theirs:?}", ours.len(), theirs.len());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

const DEFINE: &str = "
    CREATE TABLE orders (id INT PRIMARY KEY, customer TEXT NOT NULL, amount NUMERIC(10, 2));
    CREATE STREAM events (n INT, word TEXT);
    CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS orders, sum(amount) AS total FROM orders GROUP BY customer;
    INSERT INTO orders SELECT i, 'customer ' || i % 7, i FROM generate_series(1, 50) AS g(i);
    INSERT INTO events SELECT i, 'before' FROM generate_series(1, 50) AS g(i);
    CREATE SINK totals_there FROM totals WITH (connector = 'postgres', connection = 'there', table = 'totals');
    CREATE SINK \"all Orders\" WITH (connector = 'postgres', connection = 'there') AS SELECT * FROM orders;
    CREATE SINK events_there AS SELECT n, upper(word) AS word FROM events WHERE n % 3 <> 0
        WITH (connector = postgres, connection = there);
";

const PAIRS: [[&str; 2]; 3] = [
    ["SELECT * FROM totals ORDER BY customer", "SELECT * FROM totals ORDER BY customer"],
    ["SELECT * FROM orders ORDER BY id", "SELECT * FROM \"all Orders\" ORDER BY id"],
    [
        "SELECT n, upper(word), count(*) FROM events WHERE n % 3 <> 0 GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT n, word, count(*) FROM events_there GROUP BY 1, 2 ORDER BY 1, 2",
    ],
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_query_shows_is_there_once(#[values("postgres", "tidegate")] kind: &str) {
    let there = match There::start(kind).await {
        Ok(there) => there,
        Err(why) => return say(&format!("sinks: SKIPPED those to {kind}: {why}")),
    };
    let seed = 1;
    let mut rng = SmallRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), settings(&there)).await;
    let mut here = server.connect().await;
    let reader = there.connect().await;
    here.batch_execute(DEFINE).await.unwrap();
    for round in 0..8 {
        for _ in 0..rng.random_range(1..15) {
            let id = rng.random_range(0..60);
            let sql = match rng.random_range(0..5) {
                0 => format!("DELETE FROM orders WHERE id >= {id} AND id < {id} + 10"),
                1 => format!("UPDATE orders SET customer = 'customer {}' WHERE id % 5 = {}", id % 9, id % 5),
                2 => format!("INSERT INTO events SELECT i, 'round {round}' FROM generate_series({id}, {id} + 20) AS g(i)"),
                _ => format!(
                    "INSERT INTO orders VALUES ({id}, 'customer {}', {}.5) ON CONFLICT (id) DO UPDATE SET amount = orders.amount + 1",
                    id % 6,
                    id
                ),
            };
            run(&here, &sql).await;
        }
        match round % 4 {
            0 => server.kill(),
            1 => server.terminate().await,
            _ => {
                // Whoever is in the middle of something loses the connection.
                let _ = reader
                    .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate'")
                    .await;
            }
        }
        if round % 4 < 2 {
            server.restart();
            server.ready().await;
            here = server.connect().await;
        }
        if round % 2 == 1 {
            for pair in PAIRS {
                until_equal(&here, &reader, pair, seed).await;
            }
        }
    }
    // One that is gone writes no more, and leaves what it wrote.
    run(&here, "DROP SINK \"all Orders\"").await;
    let before = rows(&reader, PAIRS[1][1]).await;
    run(&here, "DELETE FROM orders").await;
    until_equal(&here, &reader, PAIRS[0], seed).await;
    assert_eq!(rows(&reader, PAIRS[1][1]).await, before);
    let left = "SELECT name FROM tidegate_sinks WHERE position IS NOT NULL ORDER BY name";
    until_equal(&here, &reader, ["VALUES ('events_there'), ('totals_there')", left], seed).await;
}

/// Every type, NULLs and odd texts among them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn values_are_what_they_were(#[values("postgres", "tidegate")] kind: &str) {
    let there = match There::start(kind).await {
        Ok(there) => there,
        Err(why) => return say(&format!("sinks: SKIPPED those to {kind}: {why}")),
    };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&there)).await;
    let (here, reader) = (server.connect().await, there.connect().await);
    here.batch_execute(
        r#"CREATE TABLE "Values" (k BIGINT PRIMARY KEY, "a b" TEXT, v VARCHAR(9), b BOOLEAN, s SMALLINT, r REAL, d DOUBLE PRECISION,
              n NUMERIC(30, 10), day DATE, t TIME, ts TIMESTAMP, tz TIMESTAMPTZ, i INTERVAL, u UUID, x BYTEA, j JSONB, a INT[], w TEXT[]);
           INSERT INTO "Values" VALUES
             (1, E'tab\t "quote" \\ ''', 'NULL', true, -32768, 1.5, 'NaN', 12345678901234567890.123456789, '2024-02-29', '23:59:59.5',
              '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00+02', '1 mon -2 days 03:00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
              '\x00ff', '{"a": [1, null, "é"]}', '{1,NULL,3}', ARRAY['a,b', NULL, 'NULL', '']),
             (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
             (3, '', '', false, 0, 'Infinity', -0.0, 0, '0001-01-01', '00:00', '1900-01-01', '1900-01-01', '0', NULL, '', '[]', '{}', '{}');
           CREATE SINK s FROM "Values" WITH (connector = 'postgres', connection = 'there', table = '"Values"')"#,
    )
    .await
    .unwrap();
    let all = "SELECT * FROM \"Values\" ORDER BY k";
    until_equal(&here, &reader, [all, all], 0).await;
}

/// What stands in the way over there is said here, and the sink goes on when it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_end() {
    let there = There::start("tidegate").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&there)).await;
    let (here, reader) = (server.connect().await, there.connect().await);
    reader.batch_execute("CREATE TABLE other (k INT, v INT); CREATE TABLE few (k INT PRIMARY KEY)").await.unwrap();
    run(&here, "CREATE TABLE t (k INT PRIMARY KEY, v INT)").await;
    let refused = |table: &'static str| {
        let sql = format!("CREATE SINK s FROM t WITH (connector = 'postgres', connection = 'there', table = '{table}')");
        let here = &here;
        async move { here.batch_execute(&sql).await.unwrap_err().as_db_error().unwrap().clone() }
    };
    let error = refused("other").await;
    assert_eq!(error.code().code(), "HV000", "{error:?}");
    let error = refused("few").await;
    assert!(error.message().contains("column \"v\""), "{error:?}");
    assert_eq!(rows(&here, "SHOW SINKS").await.len(), 0);

    run(&here, "CREATE SINK s FROM t WITH (connector = 'postgres', connection = 'there', table = 'mine')").await;
    run(&here, "INSERT INTO t VALUES (1, 1)").await;
    until_equal(&here, &reader, ["SELECT k, v FROM t", "SELECT k, v FROM mine"], 0).await;
    run(&reader, "ALTER TABLE mine RENAME TO hidden").await;
    run(&here, "INSERT INTO t VALUES (2, 2)").await;
    let start = Instant::now();
    while rows(&here, "SELECT error FROM tidegate.sinks WHERE error LIKE '%mine%'").await.is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?}", rows(&here, "TABLE tidegate.sinks").await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    run(&reader, "ALTER TABLE hidden RENAME TO mine").await;
    until_equal(&here, &reader, ["SELECT k, v FROM t ORDER BY k", "SELECT k, v FROM mine ORDER BY k"], 0).await;

    // What it reads stays what it is.
    run(&here, "CREATE MATERIALIZED VIEW m AS SELECT k, v + 1 AS v FROM t").await;
    run(&here, "CREATE SINK of_m FROM m WITH (connector = 'postgres', connection = 'there')").await;
    for sql in ["CREATE OR REPLACE MATERIALIZED VIEW m AS SELECT k, v + 2 AS v FROM t", "DROP MATERIALIZED VIEW m"] {
        let error = here.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("2BP01"), "{error:?}");
    }
    run(&here, "CREATE SINK parts AS SELECT k, 6 / (v - 1) AS part FROM t WITH (connector = 'postgres', connection = 'there', on_error = 'null')")
        .await;
    until_equal(&here, &reader, ["VALUES (1, NULL), (2, 6)", "SELECT k, part FROM parts ORDER BY k"], 0).await;
    run(&here, "ALTER TABLE t RENAME TO renamed").await;
    run(&here, "INSERT INTO renamed VALUES (3, 3)").await;
    until_equal(&here, &reader, ["SELECT k, v + 1 FROM renamed ORDER BY k", "SELECT k, v FROM of_m ORDER BY k"], 0).await;
    run(&here, "DROP TABLE renamed CASCADE").await;
    assert_eq!(rows(&here, "SHOW SINKS").await.len(), 0);
}
