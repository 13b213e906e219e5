//! The core job: the engine keeps counts, sums and greatest prices per auction in windows of ten seconds, next to DataFusion,
//! which computes the same answer once over the same batches, on one thread each. The engine does more: see [`engine`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidegate::limits::{BATCH_ROWS, STEP_ROWS};

use super::bids;
use super::engine;
use super::table::{Table, median, millions};
use super::usage::Stopwatch;

const EVENTS: u64 = 4_000_000;
const ROUNDS: usize = 5;

pub fn run(scale: u64) {
    let batches = bids::batches(EVENTS / scale);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let create = |name: &str, emit: &str| format!("CREATE MATERIALIZED VIEW {name} AS {} EMIT {emit}", bids::CORE);
    let statements = [bids::STREAM.to_string(), create("core", "CHANGES"), create("core_final", "FINAL")];
    let catalog = runtime.block_on(engine::catalog(&statements));
    let [stream, core, core_final] = ["bid", "core", "core_final"].map(|name| engine::relation(&catalog, name));
    let views = [
        ("EMIT CHANGES, in steps as the engine takes them", &core, STEP_ROWS / BATCH_ROWS),
        ("EMIT CHANGES, a step per batch", &core, 1),
        ("EMIT FINAL, a step per batch", &core_final, 1),
    ];
    let mut rival = Vec::new();
    let mut ours = vec![Vec::new(); views.len()];
    let commits = engine::commits(batches.iter().map(|rows| vec![(Arc::clone(&stream), rows.clone())]));
    // One after the other in every round, so that what disturbs one disturbs all.
    for _ in 0..ROUNDS {
        let (groups, cpu) = datafusion(&runtime, &batches);
        rival.push(cpu);
        for ((_, view, per_step), seconds) in views.iter().zip(&mut ours) {
            let (kept, cpu) = engine::run(&catalog, view, &commits, *per_step);
            assert_eq!(kept, groups, "the engine's view has another number of rows than the batch answer");
            seconds.push(cpu);
        }
    }
    let mut table = Table::new(["core job, one worker", "M rows/s of CPU time", "next to DataFusion"]);
    let base = median(rival);
    table.row(["DataFusion, batch GROUP BY, one thread".into(), millions(rows, base), "1".into()]);
    for ((name, ..), seconds) in views.iter().zip(ours) {
        let seconds = median(seconds);
        table.row([(*name).into(), millions(rows, seconds), format!("{:.2}×", base / seconds)]);
    }
    table.print(&format!("The engine: {rows} bids in batches of {BATCH_ROWS}, median of {ROUNDS} rounds"));
}

/// Groups of the batch answer, and seconds.
fn datafusion(runtime: &tokio::runtime::Runtime, batches: &[RecordBatch]) -> (usize, f64) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS));
    let schema: Arc<Schema> = batches[0].schema();
    let table = MemTable::try_new(schema, vec![batches.to_vec()]).expect("batches of one schema");
    context.register_table("bid", Arc::new(table)).expect("the name is free");
    let sql = "SELECT auction, date_bin(INTERVAL '10' SECOND, date_time) AS start, COUNT(*), SUM(price), MAX(price) \
         FROM bid GROUP BY 1, 2";
    runtime.block_on(async {
        let query = context.sql(sql).await.expect("the query is right");
        let plan = query.create_physical_plan().await.expect("the query is right");
        let watch = Stopwatch::start();
        let answer = collect(plan, context.task_ctx()).await.expect("the query runs");
        let (_, cpu) = watch.stop();
        (answer.iter().map(RecordBatch::num_rows).sum(), cpu)
    })
}
