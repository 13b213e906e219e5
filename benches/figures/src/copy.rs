//! Durable COPY of the bids as CSV over the wire, with the core job's view kept up to date, next to PostgreSQL's COPY of the
//! same bytes by the same client into a logged table.
//!
//! The time ends when COPY is acknowledged: then the rows are on disk in both. Ours is given with the time until the view has
//! all of them, too.

use std::time::Instant;

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, NoTls};

use super::postgres::Postgres;
use super::server::{Server, Settings, numbers, run as execute};
use super::table::{Table, median, millions};
use super::{bids, usage};

const EVENTS: u64 = 1_000_000;
const ROUNDS: usize = 5;
/// Bytes that the client sends at a time.
const PIECE: usize = 64 << 10;

pub async fn run(scale: u64) {
    let mut text = String::new();
    let mut rows = 0;
    for batch in bids::batches(EVENTS / scale) {
        text.push_str(&bids::csv(&batch));
        rows += batch.num_rows();
    }
    let text = Bytes::from(text);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(directory.path(), Settings::default()).await;
    let ours = server.connect().await;
    let postgres = Postgres::start();
    let theirs = match &postgres {
        Ok(postgres) => Some(connect(&postgres.address()).await),
        Err(why) => {
            println!("\nPostgreSQL is left out: {why}");
            None
        }
    };

    let [mut acknowledged, mut visible, mut rival] = [const { Vec::new() }; 3];
    let [mut cpu, mut rival_cpu] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        if let (Some(theirs), Ok(postgres)) = (&theirs, &postgres) {
            execute(theirs, "DROP TABLE IF EXISTS bid").await;
            execute(theirs, &format!("CREATE TABLE bid ({})", bids::COLUMNS)).await;
            execute(theirs, "CHECKPOINT").await;
            let before = postgres.cpu();
            let start = Instant::now();
            copy(theirs, &text).await;
            rival.push(start.elapsed().as_secs_f64());
            rival_cpu.push(postgres.cpu() - before);
        }
        execute(&ours, "DROP STREAM IF EXISTS bid CASCADE").await;
        execute(&ours, bids::STREAM).await;
        execute(&ours, &format!("CREATE MATERIALIZED VIEW core AS {}", bids::CORE)).await;
        let before = usage::process_cpu(server.pid());
        let start = Instant::now();
        copy(&ours, &text).await;
        acknowledged.push(start.elapsed().as_secs_f64());
        // A session's reads wait until its own writes are in the views.
        let [[counted]] = numbers::<1>(&ours, "SELECT sum(bids)::bigint FROM core").await[..] else { panic!("one row") };
        visible.push(start.elapsed().as_secs_f64());
        cpu.push(usage::process_cpu(server.pid()) - before);
        assert_eq!(counted, rows as i64, "the view has another number of bids than were sent");
    }

    let mut table = Table::new(["COPY of CSV", "M rows/s", "M rows/s of the server's CPU time", "next to PostgreSQL"]);
    let base = (!rival.is_empty()).then(|| median(rival));
    if let Some(base) = base {
        let cpu = millions(rows, median(rival_cpu));
        table.row(["PostgreSQL, into a logged table".into(), millions(rows, base), cpu, "1".into()]);
    }
    let cpu = millions(rows, median(cpu));
    for (what, seconds, cpu) in
        [("Tidegate, acknowledged", acknowledged, "–".into()), ("Tidegate, all in the view", visible, cpu)]
    {
        let seconds = median(seconds);
        let ratio = base.map_or("–".into(), |base| format!("{:.2}×", base / seconds));
        table.row([what.into(), millions(rows, seconds), cpu, ratio]);
    }
    table.print(&format!("Durable COPY: {rows} bids, {} MB of CSV, median of {ROUNDS} rounds", text.len() / 1_000_000));
}

pub async fn connect(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.expect("the server answers");
    // Its error is the client's error.
    tokio::spawn(async { drop(connection.await) });
    client
}

/// Send the rows; returns when they are acknowledged.
pub async fn copy(client: &Client, text: &Bytes) {
    let sink = client.copy_in("COPY bid FROM STDIN (FORMAT csv)").await.expect("COPY begins");
    futures::pin_mut!(sink);
    let mut from = 0;
    while from < text.len() {
        let to = (from + PIECE).min(text.len());
        sink.send(text.slice(from..to)).await.expect("the server takes rows");
        from = to;
    }
    sink.finish().await.expect("the rows are accepted");
}
