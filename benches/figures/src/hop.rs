//! Windows that overlap ten, a hundred and a thousand times: what a row costs must not grow with the overlap.
//!
//! Counts, sums and averages of the bids' prices per group, every second of event time. Few groups show what rows cost; many
//! groups show what the rows of the view cost as well, of which a thousand change with each row where all changes are shown: once
//! in a step, so that long steps, which the engine takes when it has rows to catch up with, change fewer.

use tidegate::limits::{BATCH_ROWS, STEP_ROWS};

use super::bids;
use super::engine;
use super::table::{Table, median, millions};

const EVENTS: u64 = 2_000_000;
const ROUNDS: usize = 3;
const OVERLAPS: [u64; 3] = [10, 100, 1000];
/// Commits of a batch that a step takes.
const SHORT: usize = 8;
const LONG: usize = STEP_ROWS / BATCH_ROWS;

pub fn run(scale: u64) {
    let batches = bids::batches(EVENTS / scale);
    let rows: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let kinds = [("few", 10, "FINAL"), ("few", 10, "CHANGES"), ("many", 1000, "FINAL"), ("many", 1000, "CHANGES")];
    let measured = kinds.iter().flat_map(|kind| {
        let steps: &[usize] = if kind.2 == "FINAL" { &[SHORT] } else { &[SHORT, LONG] };
        steps.iter().map(|per_step| (*kind, *per_step))
    });
    let name = |overlap, groups: &str, emit: &str| format!("hop_{overlap}_{groups}_{}", emit.to_lowercase());
    let mut statements = vec![bids::STREAM.to_string()];
    for (overlap, (groups, modulus, emit)) in OVERLAPS.iter().flat_map(|overlap| kinds.map(|kind| (*overlap, kind))) {
        statements.push(format!(
            "CREATE MATERIALIZED VIEW {} AS SELECT bidder % {modulus} AS bucket, window_start, COUNT(*) AS bids, \
             SUM(price) AS total, AVG(price) AS average \
             FROM HOP(bid, date_time, INTERVAL '1 second', INTERVAL '{overlap} seconds') \
             GROUP BY 1, window_start, window_end EMIT {emit}",
            name(overlap, groups, emit)
        ));
    }
    let catalog = runtime.block_on(engine::catalog(&statements));
    let stream = engine::relation(&catalog, "bid");
    let commits = engine::commits(batches.iter().map(|rows| vec![(stream.clone(), rows.clone())]));

    let mut table = Table::new(["M rows/s of CPU time", "size/slide 10", "100", "1000", "1000 next to 10"]);
    for ((groups, modulus, emit), per_step) in measured {
        let mut seconds = OVERLAPS.map(|_| Vec::new());
        // One after the other in every round, so that what disturbs one disturbs all.
        for _ in 0..ROUNDS {
            for (overlap, seconds) in OVERLAPS.iter().zip(&mut seconds) {
                let view = engine::relation(&catalog, &name(*overlap, groups, emit));
                seconds.push(engine::run(&catalog, &view, &commits, per_step).1);
            }
        }
        let [ten, hundred, thousand] = seconds.map(median);
        let [a, b, c] = [ten, hundred, thousand].map(|seconds| millions(rows, seconds));
        table.row([
            format!("EMIT {emit}, {modulus} groups, steps of {} rows", per_step * BATCH_ROWS),
            a,
            b,
            c,
            format!("{:.2}×", ten / thousand),
        ]);
    }
    table.print(&format!("HOP: {rows} bids, a window every second, median of {ROUNDS} rounds"));
}
