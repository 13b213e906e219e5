//! Ten million rows: memory, bytes on disk, and how long after a start the first correct answer comes.

use std::time::Instant;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::copy::copy;
use super::server::{Server, Settings, numbers, run as execute};
use super::table::Table;
use super::{bids, usage};

const EVENTS: u64 = 10_900_000;
const EVENTS_AT_A_TIME: u64 = 500_000;
const GROUPS: u64 = 100_000;

const ANSWER: &str = "SELECT count(*), sum(bids)::bigint, sum(total)::bigint FROM totals";

pub async fn run(scale: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    execute(&client, bids::STREAM).await;
    let groups = GROUPS / scale;
    // Bidders and prices together, for enough groups.
    let view = format!(
        "CREATE MATERIALIZED VIEW totals AS SELECT (auction * 1009 + price) % {groups} AS bucket, COUNT(*) AS bids, \
         SUM(price) AS total FROM bid GROUP BY 1"
    );
    execute(&client, &view).await;

    let (mut rows, mut arrow_bytes, mut csv_bytes) = (0, 0, 0);
    let (all, start) = (EVENTS / scale, Instant::now());
    let mut sending = 0.0;
    for first in (0..all).step_by(EVENTS_AT_A_TIME as usize) {
        let mut text = String::new();
        for batch in bids::range(first, (first + EVENTS_AT_A_TIME).min(all)) {
            rows += batch.num_rows();
            arrow_bytes += size(&batch);
            text.push_str(&bids::csv(&batch));
        }
        csv_bytes += text.len();
        let from = Instant::now();
        copy(&client, &Bytes::from(text)).await;
        sending += from.elapsed().as_secs_f64();
    }
    let before = numbers::<3>(&client, ANSWER).await;
    assert_eq!(before[0][1], rows as i64, "the view has another number of bids than were sent");
    println!("\n{rows} rows sent in {sending:.1} s of {:.1} s", start.elapsed().as_secs_f64());
    let (now, peak) = usage::memory(server.pid());
    server.terminate().await;
    let log_bytes = usage::disk(&data.join("log"));
    let state_bytes = usage::disk(&data.join("state"));

    let mut table = Table::new(["ten million rows", ""]);
    let per_row = |bytes: u64| format!("{:.1} bytes", bytes as f64 / rows as f64);
    table.row(["groups of the view".into(), before[0][0].to_string()]);
    table.row(["memory after loading (at its greatest)".into(), format!("{now:.0} MB ({peak:.0} MB)")]);
    table.row(["a row as CSV".into(), per_row(csv_bytes as u64)]);
    table.row(["a row in Arrow".into(), per_row(arrow_bytes)]);
    let share = 100.0 * log_bytes as f64 / arrow_bytes as f64;
    table.row(["a row in the log, on disk".into(), format!("{} ({share:.0} % of Arrow)", per_row(log_bytes))]);
    table.row(["checkpoint, on disk".into(), format!("{:.1} MB", state_bytes as f64 / 1e6)]);
    for (what, forget) in [("with its checkpoint", false), ("without: all from the log", true)] {
        if forget {
            std::fs::remove_dir_all(data.join("state")).expect("the state can be deleted");
        }
        let start = Instant::now();
        server.restart();
        server.ready().await;
        let client = server.connect().await;
        while numbers::<3>(&client, ANSWER).await != before {}
        let seconds = start.elapsed().as_secs_f64();
        table.row([format!("from start to the first correct SELECT, {what}"), format!("{seconds:.2} s")]);
        let (now, _) = usage::memory(server.pid());
        table.row(["memory then".into(), format!("{now:.0} MB")]);
        server.terminate().await;
    }
    table.print(&format!("{rows} bids in the log, a view of {groups} groups"));
}

/// Bytes of the values, without spare room in buffers.
fn size(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
}
