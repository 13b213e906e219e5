//! Nexmark's q0 to q22, as `sql/nexmark` has them: each view on its own over a million events in memory, next to DataFusion,
//! which computes the view's rows once over the same batches, on one thread each.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use tidegate::connect::nexmark::{Events, Kind};
use tidegate::limits::BATCH_ROWS;
use tidegate::sql::functions;

use super::engine;
use super::table::{Table, median, millions};
use super::usage::Stopwatch;

const EVENTS: u64 = 1_000_000;
const ROUNDS: usize = 3;
/// Events of a commit: some 9,200 bids, 600 auctions, 200 people.
const PER_COMMIT: u64 = 10_000;
/// Commits that the engine takes at once; it takes as many as there are while a step runs.
const PER_STEP: usize = 8;
const STREAMS: [(&str, Kind); 3] = [("person", Kind::Person), ("auction", Kind::Auction), ("bid", Kind::Bid)];

/// What DataFusion is asked where it lacks a form of the view's query: windows as functions. It has no sessions, and no time of
/// ingestion.
const IN_ITS_WORDS: [(&str, &str); 5] = [
    (
        "q5",
        "WITH counts AS (SELECT auction, COUNT(*) AS bids, w FROM (SELECT auction, unnest(generate_series( \
         date_bin(INTERVAL '2' SECOND, date_time) - INTERVAL '8' SECOND, date_bin(INTERVAL '2' SECOND, date_time), \
         INTERVAL '2' SECOND)) AS w FROM bid) GROUP BY auction, w), most AS (SELECT MAX(bids) AS bids, w FROM counts GROUP BY w) \
         SELECT counts.auction, counts.bids, counts.w FROM counts JOIN most USING (w, bids)",
    ),
    (
        "q7",
        "WITH placed AS (SELECT *, date_bin(INTERVAL '10' SECOND, date_time) AS w FROM bid), \
         highest AS (SELECT MAX(price) AS price, w FROM placed GROUP BY w) \
         SELECT placed.auction, placed.price, placed.bidder, placed.date_time, placed.extra FROM placed JOIN highest USING (w, price)",
    ),
    (
        "q8",
        "WITH registered AS (SELECT DISTINCT id, name, date_bin(INTERVAL '10' SECOND, date_time) AS w FROM person), \
         opened AS (SELECT DISTINCT seller, date_bin(INTERVAL '10' SECOND, date_time) AS w FROM auction) \
         SELECT id, name, registered.w FROM registered JOIN opened ON opened.seller = id AND opened.w = registered.w",
    ),
    ("q11", ""),
    ("q12", ""),
];

/// Those of the suite.
pub const NUMBERS: std::ops::RangeInclusive<u32> = 0..=22;

/// `chosen`: names of queries; empty: all.
pub fn run(scale: u64, chosen: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let queries: Vec<Query> = NUMBERS.map(Query::read).collect();
    let streams = statements(&script("streams"))
        .filter(|sql| sql.starts_with("CREATE"))
        .map(|sql| sql[..sql.rfind(" WITH").unwrap()].to_string());
    let made = streams.chain(queries.iter().flat_map(|query| query.statements.clone())).collect::<Vec<_>>();
    let catalog = runtime.block_on(engine::catalog(&made));

    let input = input(EVENTS / scale);
    let side = engine::relation(&catalog, "side_input");
    let first = vec![(side, side_input())];
    let commit = |parts: &[RecordBatch; 3]| {
        let part = |((name, _), rows): (&(&str, Kind), &RecordBatch)| (engine::relation(&catalog, name), rows.clone());
        STREAMS.iter().zip(parts).map(part).collect()
    };
    let commits = engine::commits(std::iter::once(first).chain(input.iter().map(commit)));
    let context = context(&input);

    let mut table = Table::new(["query", "rows read", "rows of the view", "M rows/s", "DataFusion, batch", "next to it"]);
    for query in queries.iter().filter(|query| chosen.is_empty() || chosen.contains(&query.name)) {
        let view = engine::relation(&catalog, &query.name);
        let reads = |(name, _): &&(&str, Kind)| query.reads(name);
        let index = |wanted: &str| STREAMS.iter().position(|(name, _)| *name == wanted).expect("one of the three");
        let rows: usize =
            STREAMS.iter().filter(reads).flat_map(|(name, _)| input.iter().map(|p| p[index(name)].num_rows())).sum();
        let (mut ours, mut theirs, mut kept) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (rows, cpu) = engine::run(&catalog, &view, &commits, PER_STEP);
            (kept, ours) = (rows, [ours, vec![cpu]].concat());
            if let Some(sql) = query.batch() {
                let (rows, cpu) = runtime.block_on(datafusion(&context, sql));
                assert_eq!(kept, rows, "{}: the view has another number of rows than the batch answer", query.name);
                theirs.push(cpu);
            }
        }
        let ours = median(ours);
        // Some are over before the clock of the processor has moved.
        let rival = (!theirs.is_empty()).then(|| median(theirs)).filter(|seconds| *seconds > 0.0);
        let shown = |f: &dyn Fn(f64) -> String| rival.map_or("–".to_string(), f);
        table.row([
            query.name.clone(),
            rows.to_string(),
            kept.to_string(),
            millions(rows, ours),
            shown(&|rival| millions(rows, rival)),
            shown(&|rival| format!("{:.2}×", rival / ours)),
        ]);
    }
    table.print(&format!(
        "Nexmark: {} events, one worker, rows per second of processor time, median of {ROUNDS} rounds",
        EVENTS / scale
    ));
}

/// One file of `sql/nexmark`.
struct Query {
    name: String,
    statements: Vec<String>,
}

impl Query {
    fn read(number: u32) -> Query {
        let name = format!("q{number}");
        Query { statements: statements(&script(&name)).collect(), name }
    }

    /// The query of the view.
    fn text(&self) -> &str {
        let view = self.statements.last().expect("a file makes a view");
        &view[view.find(" AS\n").expect("CREATE MATERIALIZED VIEW … AS, and the query on the next line")..][4..]
    }

    /// The stream is named where a relation is, not only a column.
    fn reads(&self, stream: &str) -> bool {
        let text = self.text();
        let named = |before: &str| {
            text.match_indices(&format!("{before}{stream}"))
                .any(|(at, found)| !text[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        ["FROM ", "JOIN ", "TUMBLE(", "HOP(", "SESSION("].into_iter().any(named)
    }

    /// What DataFusion is asked, if it can be.
    fn batch(&self) -> Option<&str> {
        let own = IN_ITS_WORDS.iter().find(|(name, _)| *name == self.name).map(|(_, sql)| *sql);
        Some(own.unwrap_or(self.text())).filter(|sql| !sql.is_empty())
    }
}

fn script(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/nexmark")).join(format!("{name}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The statements of a script, without its comments.
fn statements(script: &str) -> impl Iterator<Item = String> + use<> {
    let lines: Vec<&str> = script.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect();
    let all: Vec<String> = lines.join("\n").split(';').map(|sql| sql.trim().to_string()).collect();
    all.into_iter().filter(|sql| !sql.is_empty())
}

/// The rows of each stream, commit by commit.
fn input(events: u64) -> Vec<[RecordBatch; 3]> {
    let source = Events::default();
    let commit = |from: u64| {
        STREAMS.map(|(_, kind)| {
            let numbers: Vec<u64> = (from..(from + PER_COMMIT).min(events)).filter(|event| Kind::of(*event) == kind).collect();
            source.rows(kind, numbers.into_iter())
        })
    };
    (0..events).step_by(PER_COMMIT as usize).map(commit).collect()
}

fn side_input() -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..10_000).map(|key| format!("value {key}"))));
    RecordBatch::try_from_iter([("key", keys), ("value", values)]).expect("columns of one length")
}

fn context(input: &[[RecordBatch; 3]]) -> SessionContext {
    let state = functions::state();
    let mut config = state.config().clone().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build());
    let add = |name: &str, batches: Vec<RecordBatch>| {
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).expect("batches of one schema");
        context.register_table(name, Arc::new(table)).expect("the name is free");
    };
    for (index, (name, _)) in STREAMS.iter().enumerate() {
        add(name, input.iter().map(|parts| parts[index].clone()).collect());
    }
    add("side_input", vec![side_input()]);
    context
}

/// Rows of the batch answer, and seconds of processor time.
async fn datafusion(context: &SessionContext, sql: &str) -> (usize, f64) {
    let query = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = query.create_physical_plan().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let watch = Stopwatch::start();
    let answer = collect(plan, context.task_ctx()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let (_, cpu) = watch.stop();
    (answer.iter().map(RecordBatch::num_rows).sum(), cpu)
}
