//! Nexmark's bids, the input of every figure.

use std::fmt::Write;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tidegate::connect::nexmark::{EVENT_RATE, Events, Kind, SEED};
use tidegate::limits::BATCH_ROWS;

/// The columns of a bid, as DDL.
pub const COLUMNS: &str =
    "auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP(3), extra TEXT";

/// The stream of bids, four seconds of disorder allowed as in the suite for Flink.
pub const STREAM: &str = "CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, \
     date_time TIMESTAMP(3), extra TEXT, WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND)";

/// The core job: count, sum and greatest price per auction in windows of ten seconds.
pub const CORE: &str = "SELECT auction, window_start, COUNT(*) AS bids, SUM(price) AS total, MAX(price) AS highest \
     FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10' SECONDS)) GROUP BY auction, window_start, window_end";

/// The bids among the first `events` events, in batches of 8,192.
pub fn batches(events: u64) -> Vec<RecordBatch> {
    range(0, events)
}

/// The bids among the events `from..to`.
pub fn range(from: u64, to: u64) -> Vec<RecordBatch> {
    let source = Events { seed: SEED, rate: EVENT_RATE };
    let numbers: Vec<u64> = (from..to).filter(|event| Kind::of(*event) == Kind::Bid).collect();
    numbers.chunks(BATCH_ROWS).map(|chunk| source.rows(Kind::Bid, chunk.iter().copied())).collect()
}

/// A batch as lines of CSV. Nothing in a bid needs quotes.
pub fn csv(batch: &RecordBatch) -> String {
    let integers = |column: usize| batch.column(column).as_primitive::<Int64Type>();
    let strings = |column: usize| batch.column(column).as_string::<i32>();
    let times = batch.column(5).as_primitive::<TimestampMicrosecondType>();
    let mut text = String::with_capacity(batch.num_rows() * 200);
    for row in 0..batch.num_rows() {
        let time = times.value_as_datetime(row).expect("a time of the suite is a date");
        let [auction, bidder, price] = [0, 1, 2].map(|column| integers(column).value(row));
        let [channel, url, extra] = [3, 4, 6].map(|column| strings(column).value(row));
        let time = time.format("%Y-%m-%d %H:%M:%S%.3f");
        writeln!(text, "{auction},{bidder},{price},{channel},{url},{time},{extra}").expect("text grows");
    }
    text
}
