//! How long after its acknowledgement a row is seen in a view by others, while 10,000 rows a second come.
//!
//! Four sessions insert 100 rows each every 40 milliseconds. A fifth inserts single rows; a sixth asks the view for each of
//! them by its key, over and over, from the moment the insert is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::server::{Server, Settings, run as execute};
use super::table::{Table, percentile};

const ROWS_AT_A_TIME: usize = 100;
const LOADERS: usize = 4;
const EVERY: Duration = Duration::from_millis(40);
const PROBES: usize = 2000;

pub async fn run(scale: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(directory.path(), Settings::default()).await;
    let [writer, reader] = [server.connect().await, server.connect().await];
    execute(&writer, "CREATE STREAM s (k BIGINT, v BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' SECOND)").await;
    let view = "CREATE MATERIALIZED VIEW w AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k";
    execute(&writer, view).await;

    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut loaders = Vec::new();
    for _ in 0..LOADERS {
        loaders.push(tokio::spawn(load(server.connect().await, Arc::clone(&stop))));
    }
    let insert = writer.prepare("INSERT INTO s VALUES ($1, 1, TIMESTAMP '2025-01-01 00:00:00')").await.expect("it prepares");
    let look = reader.prepare("SELECT n FROM w WHERE k = $1").await.expect("it prepares");
    let [mut acknowledged, mut seen] = [const { Vec::new() }; 2];
    for probe in 0..PROBES / scale as usize {
        let key = 1_000_000 + probe as i64;
        let start = Instant::now();
        writer.execute(&insert, &[&key]).await.expect("the row is accepted");
        let done = Instant::now();
        while reader.query(&look, &[&key]).await.expect("the view answers").is_empty() {}
        acknowledged.push((done - start).as_secs_f64() * 1e3);
        seen.push(done.elapsed().as_secs_f64() * 1e3);
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for loader in loaders {
        sent += loader.await.expect("the load goes on to the end");
    }
    let rate = sent as f64 / start.elapsed().as_secs_f64();

    let mut table = Table::new(["milliseconds", "p50", "p99"]);
    for (what, values) in [
        ("INSERT of one row, until it is acknowledged", acknowledged),
        ("from then until another session sees it in the view", seen),
    ] {
        let at = |share| format!("{:.2}", percentile(values.iter().copied(), share));
        table.row([what.into(), at(0.5), at(0.99)]);
    }
    table.print(&format!("Latency, beside {rate:.0} rows/s of other inserts"));
}

/// Insert until told to stop; rows sent.
async fn load(session: Client, stop: Arc<AtomicBool>) -> usize {
    // Ticks that were missed are made up for, so that the rate holds where it can.
    let mut ticks = tokio::time::interval(EVERY);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let row = |i: usize| format!("({}, {i}, TIMESTAMP '2025-01-01 00:00:00')", (sent + i) % 10_000);
        let rows: Vec<String> = (0..ROWS_AT_A_TIME).map(row).collect();
        execute(&session, &format!("INSERT INTO s VALUES {}", rows.join(", "))).await;
        sent += ROWS_AT_A_TIME;
    }
    sent
}
