//! A thousand views over one stream, all different, next to one: rows per second, memory of a view that waits for rows, and how
//! long the thousandth takes to be made.

use std::time::Instant;

use bytes::Bytes;

use super::copy::copy;
use super::server::{Server, Settings, numbers, run as execute};
use super::table::{Table, millions};
use super::{bids, usage};

const EVENTS: u64 = 500_000;
const VIEWS: usize = 1000;

pub async fn run(scale: u64) {
    let views = VIEWS / if scale > 1 { 10 } else { 1 };
    let mut text = String::new();
    let mut rows = 0;
    for batch in bids::batches(EVENTS / scale) {
        text.push_str(&bids::csv(&batch));
        rows += batch.num_rows();
    }
    let text = Bytes::from(text);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    execute(&client, bids::STREAM).await;
    execute(&client, &view(0)).await;
    let ingest = async || {
        let start = Instant::now();
        copy(&client, &text).await;
        // A session's reads wait until its own writes are in the views.
        numbers::<1>(&client, "SELECT count(*) FROM v0").await;
        start.elapsed().as_secs_f64()
    };
    let alone = ingest().await;

    let (before, _) = usage::memory(server.pid());
    let mut creating = 0.0;
    for number in 1..views {
        // Like the first, they find rows in the log.
        let start = Instant::now();
        execute(&client, &view(number)).await;
        creating = start.elapsed().as_secs_f64();
    }
    let (after, _) = usage::memory(server.pid());
    let together = ingest().await;

    let mut table = Table::new(["views over one stream", ""]);
    table.row(["COPY with one view, M rows/s".into(), millions(rows, alone)]);
    table.row([format!("COPY with {views}, M rows/s"), millions(rows, together)]);
    table.row(["of the rate with one".into(), format!("{:.1} %", alone / together * 100.0)]);
    table.row(["rows into views, M/s".into(), millions(rows * views, together)]);
    table.row(["making the last of them".into(), format!("{:.0} ms", creating * 1e3)]);
    table.row(["memory of a view".into(), format!("{:.2} MB", (after - before) / (views - 1) as f64)]);
    table.print(&format!("{views} views: {rows} bids, durable COPY until all views have them"));
}

/// Each with another filter; five kinds of grouping, five of aggregates.
fn view(number: usize) -> String {
    let group = ["channel", "bidder % 100", "auction % 100", "date_trunc('second', date_time)", "price % 10"][number % 5];
    let aggregate = ["COUNT(*)", "SUM(price)", "AVG(price)", "MIN(price)", "MAX(bidder)"][number / 5 % 5];
    let filter = match number % 3 {
        0 => format!("price % {VIEWS} = {number}"),
        1 => format!("auction % {VIEWS} = {number}"),
        _ => format!("price > {} AND bidder % 500 = {}", number * 1000, number % 500),
    };
    format!("CREATE MATERIALIZED VIEW v{number} AS SELECT {group} AS k, {aggregate} AS value FROM bid WHERE {filter} GROUP BY 1")
}
