//! The core job: the engine keeps counts, sums and greatest prices per auction in windows of ten seconds, next to DataFusion,
//! which computes the same answer once over the same batches, on one thread each.
//!
//! The engine does more for its rows: it takes them step by step, keeps the view's rows as readers see them after each, gives
//! the changes, closes windows, and writes checkpoints (by a thread of its own, on a disk in memory).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidegate::catalog::{Catalog, Relation};
use tidegate::database::{Config, Database};
use tidegate::engine::Compiler;
use tidegate::flow::Graph;
use tidegate::flow::sink::{Sink, Target};
use tidegate::limits::{BATCH_ROWS, STEP_ROWS};
use tidegate::log::{Commit, Header, Kind, LogBatch};
use tidegate::sql::functions;
use tidegate::sql::lower::ViewCompiler;
use tidegate::state::checkpoint::{Checkpoint, Checkpoints, TableChanges, TableId, ViewMark};
use tidegate::state::memory::Disk;
use tidegate::state::writer::Writer;
use tidegate::time::NO_TIME;
use tidegate::view::Store;

use super::bids;
use super::table::{Table, median, millions};
use super::usage::Stopwatch;

const EVENTS: u64 = 4_000_000;
const ROUNDS: usize = 5;
/// A checkpoint per so many rows: several times a second at the speeds that are measured, where the default is every ten seconds.
const CHECKPOINT_ROWS: usize = 1_000_000;

pub fn run(scale: u64) {
    let batches = bids::batches(EVENTS / scale);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (catalog, stream) = runtime.block_on(catalog());
    let views: Vec<(&str, Arc<Relation>, usize)> = vec![
        ("EMIT CHANGES, in steps as the engine takes them", view(&catalog, "core"), STEP_ROWS / BATCH_ROWS),
        ("EMIT CHANGES, a step per batch", view(&catalog, "core"), 1),
        ("EMIT FINAL, a step per batch", view(&catalog, "core_final"), 1),
    ];
    let mut rival = Vec::new();
    let mut ours = vec![Vec::new(); views.len()];
    let commits = commits(&stream, &batches);
    // One after the other in every round, so that what disturbs one disturbs all.
    for _ in 0..ROUNDS {
        let (groups, cpu) = datafusion(&runtime, &batches);
        rival.push(cpu);
        for ((_, view, per_step), seconds) in views.iter().zip(&mut ours) {
            let (kept, cpu) = engine(&catalog, &stream, view, &commits, *per_step);
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

/// The stream and the views, made as a user makes them.
async fn catalog() -> (Arc<Catalog>, Arc<Relation>) {
    let (database, _) = Database::open(Config::in_memory()).expect("a database in memory opens");
    let mut session = database.session("bench");
    let create = |name: &str, emit: &str| format!("CREATE MATERIALIZED VIEW {name} AS {} EMIT {emit}", bids::CORE);
    for sql in [bids::STREAM.to_string(), create("core", "CHANGES"), create("core_final", "FINAL")] {
        session.run(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let catalog = database.catalog();
    let stream = view(&catalog, "bid");
    database.close().expect("a database in memory closes");
    (catalog, stream)
}

fn view(catalog: &Catalog, name: &str) -> Arc<Relation> {
    Arc::clone(catalog.find(name).expect("it was made"))
}

/// Rows of the view at the end, and seconds.
fn engine(catalog: &Arc<Catalog>, stream: &Relation, view: &Relation, commits: &[Arc<Commit>], per_step: usize) -> (usize, f64) {
    let compiler = ViewCompiler { state: Arc::new(functions::state()) };
    let fragment = compiler.compile(catalog, view).expect("the view runs");
    let target = Target::Relation(view.id);
    let store = Store::new("rows", view.stored_schema(), view.stored_key());
    let sinks = vec![(fragment.output.clone(), Sink::view(view.id, store))];
    let mut graph = Graph::new(1).expect("a graph of one worker");
    graph.add(target, fragment, sinks).expect("the fragment fits");
    let checkpoints = Checkpoints::open(Box::new(Disk::default().open())).expect("an empty store opens");
    let mut writer = Writer::start(checkpoints).expect("a thread starts");

    let watch = Stopwatch::start();
    let mut since = 0;
    for step in commits.chunks(per_step) {
        let result = graph.step(step, &[]);
        assert!(result.failures.is_empty(), "{:?}", result.failures);
        graph.version(target).expect("the view has rows");
        since += step.iter().map(|commit| commit.rows()).sum::<usize>();
        let commit = step.last().expect("no step is empty");
        let last = commit.id == commits.len() as u64;
        if since >= CHECKPOINT_ROWS || last {
            if let Some(end) = writer.wait() {
                end.expect("the checkpoint before was written");
            }
            let checkpoint = checkpoint(&mut graph, commit.id);
            assert!(writer.try_submit(checkpoint).is_ok(), "the writer is free");
            since = 0;
        }
    }
    let (_, cpu) = watch.stop();
    writer.close().expect("the last checkpoint was written");
    // EMIT FINAL keeps back the windows that are open; a last watermark closes them.
    let end = Commit { batches: Vec::new(), watermarks: vec![(stream.id, i64::MAX / 2)], ..closing(commits.len() as u64 + 1) };
    graph.step(&[Arc::new(end)], &[]);
    (graph.version(target).expect("the view has rows").rows(), cpu)
}

fn closing(id: u64) -> Commit {
    Commit { id, time: 0, batches: Vec::new(), watermarks: Vec::new(), changes: Vec::new(), damaged: Vec::new() }
}

fn checkpoint(graph: &mut Graph, commit: u64) -> Checkpoint {
    let (mut tables, mut views) = (Vec::new(), Vec::new());
    let collect = |owner: Target, node, table, state: &mut dyn tidegate::state::StateTable| {
        if let Target::Relation(relation) = owner {
            views.push(relation);
            tables.push(TableChanges::collect(TableId { relation, node, table }, state)?);
        }
        Ok(())
    };
    graph.each_state(collect).expect("state is collected");
    views.dedup();
    let mark = |relation| ViewMark { relation, fingerprint: "core".into(), ..ViewMark::default() };
    Checkpoint { commit, tables, views: views.into_iter().map(mark).collect(), ..Checkpoint::default() }
}

/// The batches as the log would give them, a commit each.
fn commits(stream: &Relation, batches: &[RecordBatch]) -> Vec<Arc<Commit>> {
    let mut watermark = NO_TIME;
    let mut offset = 0;
    let commit = |(id, rows): (u64, &RecordBatch)| {
        let header = Header {
            relation: stream.id,
            partition: 0,
            base_offset: offset,
            rows: rows.num_rows() as u32,
            columns: rows.num_columns() as u16,
            kind: Kind::Append,
            commit: id,
            commit_time: 0,
            watermark,
            event_times: None,
            producer: None,
        };
        offset += rows.num_rows() as u64;
        watermark = greatest_time(rows) - 4_000_000;
        let rows = rows.clone().with_schema(stream.schema()).expect("a bid is a row of the stream");
        let watermarks = vec![(stream.id, watermark)];
        Arc::new(Commit { batches: vec![LogBatch { header, rows }], watermarks, ..closing(id) })
    };
    (1..).zip(batches).map(commit).collect()
}

fn greatest_time(rows: &RecordBatch) -> i64 {
    use arrow::array::AsArray;
    let times = rows.column(5).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    *times.values().last().expect("no batch is empty")
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
