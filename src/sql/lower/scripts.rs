//! Operators as scripts, `src/flow/testdata/*.txt`: changes in, changes out. `UPDATE_GOLDENFILES=1 cargo test` writes the answers anew.
//!
//! ```text
//! query "SELECT …" [final [timeout=5]] [every=5]  a query over streams s, r (k TEXT, n BIGINT, at TIMESTAMP) and table t (id BIGINT, k TEXT, n BIGINT)
//! commit s="a, 1, 10:00:05" … [w="10:00:00"] [hold]   rows of one commit, and the watermark of s (r: wr=…) after it;
//!                                      t="-7, , " deletes; hold: the step comes with the next commit; at="10:00:05": its time
//! state                                rows of each state table; of `values`, what came and went since the last restart
//! restart                              fresh operators, with what the old ones' state tables gave
//! ```
//!
//! Answers are the changes of the view's rows, and of its late rows, sorted. They must not depend on the number of workers.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::lower;
use crate::catalog::{Catalog, Change, Emit, FIRST_RELATION, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::flow::graph::Graph;
use crate::flow::sink::{Sink, Target};
use crate::log::{self, Commit, Header, LogBatch};
use crate::sql::plan::Planner;
use crate::sql::testing;
use crate::time::{Micros, NO_TIME, TIMESTAMP};
use crate::view::Store;

const S: RelationId = FIRST_RELATION;
const R: RelationId = FIRST_RELATION + 1;
const T: RelationId = FIRST_RELATION + 2;
const VIEW: RelationId = FIRST_RELATION + 8;
const LATE: RelationId = FIRST_RELATION + 9;

/// 2025-01-01.
const DAY: Micros = 1_735_689_600_000_000;
const SECOND: Micros = 1_000_000;

#[rstest::rstest]
fn operators(
    #[values(
        "linear",
        "union",
        "tumble",
        "hop",
        "late",
        "aggregate",
        "retractions",
        "final",
        "unnest",
        "refresh",
        "silence",
        "pattern",
        "asof",
        "gap_fill",
        "time_bounds"
    )]
    script: &str,
    #[values(1, 4)] workers: usize,
) {
    let path = format!("{}/src/flow/testdata/{script}.txt", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Script::new(workers), path).unwrap();
}

/// Where a state table is: its owner, node and place.
type Place = (Target, u32, u16);

struct Script {
    workers: usize,
    planner: Planner,
    query: Option<(String, Emit)>,
    graph: Graph,
    held: Vec<Arc<Commit>>,
    commits: u64,
    /// What the state tables gave so far.
    saved: BTreeMap<Place, Vec<Delta>>,
}

type Outcome<T> = Result<T, Box<dyn StdError>>;

fn catalog() -> Catalog {
    let stream = [("k", DataType::Utf8), ("n", DataType::Int64), ("at", TIMESTAMP)];
    let table = [("id", DataType::Int64), ("k", DataType::Utf8), ("n", DataType::Int64)];
    let relations =
        [testing::stream(0, "s", &stream, 2), testing::stream(1, "r", &stream, 2), testing::table(2, "t", &table, &[0])];
    let mut catalog = Catalog::default();
    relations.into_iter().for_each(|relation| catalog.apply(&Change::Create(relation)));
    catalog
}

impl Script {
    fn new(workers: usize) -> Script {
        let planner = Planner::new(Arc::new(catalog()), Arc::new(crate::sql::functions::state()));
        let graph = Graph::new(workers).unwrap();
        Script { workers, planner, query: None, graph, held: Vec::new(), commits: 0, saved: BTreeMap::new() }
    }

    fn relation(&self, id: RelationId) -> &Relation {
        self.planner.catalog().get(id).expect("the scripts' own relations")
    }

    /// A graph of fresh operators, and what they are called.
    fn build(&mut self) -> Outcome<String> {
        let (sql, emit) = self.query.clone().ok_or("there is no query")?;
        let query = crate::sql::parse::parse_query(&sql)?;
        let fragment = lower(&self.planner, &self.planner.continuous(&query, emit)?, emit)?;
        let mut labels = String::new();
        for node in &fragment.nodes {
            let keeps = if node.keeps.is_empty() { String::new() } else { format!(" (keeps {})", node.keeps) };
            labels.push_str(&format!("{}{keeps}\n", node.label));
        }
        let store = |schema: &SchemaRef| Store::new("rows", Arc::clone(schema), Vec::new());
        let mut sinks = vec![(fragment.output.clone(), Sink::view(VIEW, store(&fragment.edge.schema)))];
        if let Some(schema) = &fragment.late_schema {
            sinks.push((fragment.late.clone(), Sink::view(LATE, store(schema))));
        }
        self.graph = Graph::new(self.workers)?;
        let table = self.relation(T);
        let store = Store::new("rows", table.stored_schema(), table.stored_key());
        self.graph.add_table(T, Sink::table(T, store));
        self.graph.add(Target::Relation(VIEW), fragment, sinks)?;
        Ok(labels)
    }

    fn commit(&mut self, command: &goldenscript::Command) -> Outcome<String> {
        self.commits += 1;
        let mut commit = Commit {
            id: self.commits,
            time: DAY,
            batches: Vec::new(),
            watermarks: Vec::new(),
            changes: Vec::new(),
            damaged: Vec::new(),
        };
        let mut hold = false;
        for argument in &command.args {
            match argument.key.as_deref() {
                None if argument.value == "hold" => hold = true,
                Some("at") => commit.time = instant(&argument.value)?,
                Some("s") => commit.batches.push(self.batch(S, &argument.value)?),
                Some("r") => commit.batches.push(self.batch(R, &argument.value)?),
                Some("t") => commit.batches.push(self.batch(T, &argument.value)?),
                Some("w") => commit.watermarks.push((S, instant(&argument.value)?)),
                Some("wr") => commit.watermarks.push((R, instant(&argument.value)?)),
                _ => return Err(format!("what is '{}'?", argument.name()).into()),
            }
        }
        self.held.push(Arc::new(commit));
        if hold {
            return Ok(String::new());
        }
        let result = self.graph.step(&std::mem::take(&mut self.held), &[]);
        let mut lines = Vec::new();
        for (target, delta) in &result.changes {
            let name = match target {
                Target::Relation(VIEW) => "",
                Target::Relation(LATE) => "late ",
                _ => continue,
            };
            lines.extend(show(delta)?.into_iter().map(|row| format!("{name}{row}\n")));
        }
        lines.sort();
        lines.extend(result.failures.iter().map(|(_, error)| format!("stopped: {}\n", error.message())));
        Ok(lines.concat())
    }

    fn batch(&self, id: RelationId, row: &str) -> Outcome<LogBatch> {
        let relation = self.relation(id);
        let (row, kind) = match (relation.kind, row.strip_prefix('-')) {
            (Kind::Table, Some(row)) => (row, log::Kind::Delete),
            (Kind::Table, None) => (row, log::Kind::Upsert),
            _ => (row, log::Kind::Append),
        };
        let schema = relation.stored_schema();
        let values: Vec<&str> = row.split(',').map(str::trim).collect();
        if values.len() != schema.fields().len() {
            return Err(format!("'{row}' has not {} values", schema.fields().len()).into());
        }
        let columns =
            values.iter().zip(schema.fields()).map(|(value, field)| cell(value, field.data_type())).collect::<Outcome<_>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let header = Header {
            relation: id,
            partition: 0,
            base_offset: self.commits,
            rows: 1,
            columns: schema.fields().len() as u16,
            kind,
            commit: self.commits,
            commit_time: DAY,
            watermark: self.graph.watermark(id).unwrap_or(NO_TIME),
            event_times: columns_time(&rows),
            producer: None,
        };
        Ok(LogBatch { header, rows })
    }

    fn state(&mut self) -> Outcome<String> {
        let mut tables: BTreeMap<Place, (&'static str, usize)> = BTreeMap::new();
        self.graph.each_state(|owner, node, table, state| {
            tables.entry((owner, node, table)).or_insert((state.name(), 0)).1 += state.rows();
            Ok(())
        })?;
        let of_the_query = tables.into_iter().filter(|((owner, ..), _)| *owner == Target::Relation(VIEW));
        Ok(of_the_query.map(|((_, node, _), (name, rows))| format!("node {node} {name}: {rows}\n")).collect())
    }

    fn restart(&mut self) -> Outcome<String> {
        let saved = &mut self.saved;
        self.graph.each_state(|owner, node, table, state| {
            saved.entry((owner, node, table)).or_default().extend(state.changes()?);
            Ok(())
        })?;
        let watermarks: Vec<_> = self.graph.watermarks().collect();
        self.build()?;
        self.graph.set_watermarks(watermarks);
        let saved = &self.saved;
        self.graph.each_state(|owner, node, table, state| {
            saved.get(&(owner, node, table)).into_iter().flatten().try_for_each(|delta| state.load(delta.clone()))
        })?;
        Ok(String::new())
    }
}

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &goldenscript::Command) -> Outcome<String> {
        match command.name.as_str() {
            "query" => {
                let sql = command.args.first().ok_or("query needs SQL")?.value.clone();
                let is_final = command.args.iter().any(|argument| argument.value == "final");
                let seconds = |key: &str| {
                    let argument = command.args.iter().find(|argument| argument.key.as_deref() == Some(key));
                    argument.map(|argument| argument.value.parse::<Micros>()).transpose()
                };
                let emit = match (seconds("every")?, seconds("timeout")?) {
                    (Some(every), _) => Emit::Every(every * SECOND),
                    (_, Some(after)) => Emit::FinalOrSilent(after * SECOND),
                    _ if is_final => Emit::Final,
                    _ => Emit::Changes,
                };
                self.query = Some((sql, emit));
                self.saved.clear();
                self.build()
            }
            "commit" => self.commit(command),
            "state" => self.state(),
            "restart" => self.restart(),
            name => Err(format!("there is no command {name}").into()),
        }
    }
}

/// The time of a row of a stream.
fn columns_time(rows: &RecordBatch) -> Option<(Micros, Micros)> {
    let times = rows.column_by_name("at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
}

fn instant(text: &str) -> Outcome<Micros> {
    let parts = text.split(':').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
    let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
    Ok(DAY + seconds * SECOND)
}

/// One value; nothing at all is NULL.
fn cell(text: &str, data_type: &DataType) -> Outcome<ArrayRef> {
    let text = Some(text).filter(|text| !text.is_empty());
    Ok(match data_type {
        DataType::Int64 => Arc::new(Int64Array::from(vec![text.map(str::parse).transpose()?])),
        DataType::Timestamp(..) => Arc::new(TimestampMicrosecondArray::from(vec![text.map(instant).transpose()?])),
        _ => Arc::new(StringArray::from(vec![text])),
    })
}

fn show(delta: &Delta) -> Outcome<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL").with_timestamp_format(Some("%H:%M:%S"));
    let columns =
        delta.rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
    let row = |row: usize| {
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        format!("{:+} {}", delta.weight(row), values.join(", "))
    };
    Ok((0..delta.len()).map(row).collect())
}
