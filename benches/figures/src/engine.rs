//! The engine on rows in memory, without a log and a server: one view, one worker, one thread to be timed.
//!
//! It does all that it does in a server: it takes rows step by step, keeps the view's rows as readers see them after each, gives
//! the changes, closes windows, and hands checkpoints to a thread of its own, which writes them to a disk in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use tidegate::catalog::schema::PUBLIC;
use tidegate::catalog::{Catalog, Kind as RelationKind, Relation};
use tidegate::database::{Config, Database};
use tidegate::engine::Compiler;
use tidegate::flow::Graph;
use tidegate::flow::sink::{Sink, Target};
use tidegate::log::{Commit, Header, Kind, LogBatch};
use tidegate::sql::functions;
use tidegate::sql::lower::ViewCompiler;
use tidegate::state::checkpoint::{Checkpoint, Checkpoints, TableChanges, TableId, ViewMark};
use tidegate::state::memory::Disk;
use tidegate::state::writer::Writer;
use tidegate::time::{Micros, NO_TIME};
use tidegate::view::Store;

use super::usage::Stopwatch;

/// A checkpoint per so many rows: several times a second at the speeds that are measured, where the default is every ten seconds.
const CHECKPOINT_ROWS: usize = 1_000_000;
/// How far the watermark of Nexmark's streams is behind.
const DELAY: Micros = 4_000_000;

/// What there is after these statements, made as a user makes them.
pub async fn catalog(statements: &[String]) -> Arc<Catalog> {
    let (database, _) = Database::open(Config::in_memory()).expect("a database in memory opens");
    let mut session = database.session("bench");
    for sql in statements {
        session.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let catalog = database.catalog();
    database.close().expect("a database in memory closes");
    catalog
}

pub fn relation(catalog: &Catalog, name: &str) -> Arc<Relation> {
    Arc::clone(catalog.find(PUBLIC, name).unwrap_or_else(|| panic!("there is no {name}")))
}

/// A graph of one worker with one view, and the tables it reads.
pub struct Running {
    graph: Graph,
    view: Target,
}

impl Running {
    pub fn new(catalog: &Arc<Catalog>, view: &Relation) -> Running {
        let compiler = ViewCompiler { state: Arc::new(functions::state()) };
        let fragment = compiler.compile(catalog, view).expect("the view runs");
        let mut graph = Graph::new(1).expect("a graph of one worker");
        let rows = |relation: &Relation| Store::new("rows", relation.stored_schema(), relation.stored_key());
        for table in catalog.relations().filter(|relation| relation.kind == RelationKind::Table) {
            graph.add_table(table.id, Sink::table(table.id, rows(table)));
        }
        let target = Target::Relation(view.id);
        let sinks = vec![(fragment.output.clone(), Sink::view(view.id, rows(view)))];
        graph.add(target, fragment, sinks).expect("the fragment fits");
        Running { graph, view: target }
    }

    /// Take commits in one step; the rows of the view after it.
    pub fn step(&mut self, commits: &[Arc<Commit>]) -> usize {
        let result = self.graph.step(commits, &[]);
        assert!(result.failures.is_empty(), "{:?}", result.failures);
        self.graph.version(self.view).expect("the view has rows").rows()
    }
}

/// Rows of the view at the end, and seconds of processor time, in steps of so many commits.
pub fn run(catalog: &Arc<Catalog>, view: &Relation, commits: &[Arc<Commit>], per_step: usize) -> (usize, f64) {
    let mut running = Running::new(catalog, view);
    let checkpoints = Checkpoints::open(Box::new(Disk::default().open())).expect("an empty store opens");
    let mut writer = Writer::start(checkpoints).expect("a thread starts");

    let watch = Stopwatch::start();
    let mut since = 0;
    for step in commits.chunks(per_step) {
        running.step(step);
        since += step.iter().map(|commit| commit.rows()).sum::<usize>();
        let commit = step.last().expect("no step is empty");
        let last = commit.id == commits.len() as u64;
        if since >= CHECKPOINT_ROWS || last {
            if let Some(end) = writer.wait() {
                end.expect("the checkpoint before was written");
            }
            let checkpoint = checkpoint(&mut running.graph, commit.id);
            assert!(writer.try_submit(checkpoint).is_ok(), "the writer is free");
            since = 0;
        }
    }
    let (_, cpu) = watch.stop();
    writer.close().expect("the last checkpoint was written");
    // EMIT FINAL keeps back the windows that are open; a last watermark closes them.
    let watermarks = catalog.relations().map(|relation| (relation.id, i64::MAX / 2)).collect();
    let end = Commit { batches: Vec::new(), watermarks, ..empty(commits.len() as u64 + 1) };
    (running.step(&[Arc::new(end)]), cpu)
}

fn empty(id: u64) -> Commit {
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
    let mark = |relation| ViewMark { relation, fingerprint: "figures".into(), ..ViewMark::default() };
    Checkpoint { commit, tables, views: views.into_iter().map(mark).collect(), ..Checkpoint::default() }
}

/// The batches as the log would give them: each element is a commit.
pub fn commits(of: impl IntoIterator<Item = Vec<(Arc<Relation>, RecordBatch)>>) -> Vec<Arc<Commit>> {
    let mut watermarks = HashMap::new();
    let mut offsets = HashMap::new();
    let mut commits = Vec::new();
    for (id, parts) in (1..).zip(of) {
        let mut commit = Commit { time: id as Micros, ..empty(id) };
        for (relation, rows) in parts {
            let time = greatest_time(&rows);
            let offset: &mut u64 = offsets.entry(relation.id).or_default();
            let before = watermarks.entry(relation.id).or_insert(NO_TIME);
            let header = Header {
                relation: relation.id,
                partition: 0,
                base_offset: *offset,
                rows: rows.num_rows() as u32,
                columns: rows.num_columns() as u16,
                kind: if relation.primary_key.is_empty() { Kind::Append } else { Kind::Upsert },
                commit: id,
                commit_time: commit.time,
                watermark: *before,
                event_times: None,
                producer: None,
            };
            *offset += rows.num_rows() as u64;
            if let Some(time) = time {
                *before = time - DELAY;
                commit.watermarks.push((relation.id, *before));
            }
            let rows = RecordBatch::try_new(relation.schema(), rows.columns().to_vec()).expect("they are rows of the relation");
            commit.batches.push(LogBatch { header, rows });
        }
        commits.push(Arc::new(commit));
    }
    commits
}

/// Rows of the suite are in order of time.
fn greatest_time(rows: &RecordBatch) -> Option<Micros> {
    let times = rows.column_by_name("date_time")?.as_primitive::<TimestampMicrosecondType>();
    times.values().last().copied()
}
