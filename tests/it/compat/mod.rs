//! Plain SQL means here what it means in PostgreSQL 15, but for what [DIFFERENCES.md](../../../DIFFERENCES.md) says.
//!
//! The files of `tests/compat` are statements with PostgreSQL's answers: values, types of columns, numbers of changed rows,
//! SQLSTATEs. Two tests ask, each its own server:
//!
//! * `answers_are_those_of_postgres` asks Tidegate. What it answers otherwise stands below `skipif difference`, where
//!   `difference` is a line of the page. It fails, too, when the two agree there, and when a line of the page has no statement.
//! * `recorded_answers_are_those_of_postgres` asks a PostgreSQL 15, where one is installed, whether the files are true.
//!
//! ```text
//! cargo test --test it compat                              # both
//! TIDEGATE_COMPAT=windows cargo test --test it compat      # only files whose name contains this
//! TIDEGATE_COMPAT_RECORD=1 cargo test --test it compat     # PostgreSQL's answers are written into the files
//! TIDEGATE_COMPAT_SETTLE=1 cargo test --test it compat     # conditions of what agrees are taken off, and no answer is touched
//! ```
//!
//! [`parameters`] does the same for what the two say of the parameters and columns of prepared statements.
//!
//! A type is one letter, an array's its capital:
//!
//! | | | | | | |
//! | --- | --- | --- | --- | --- | --- |
//! | b boolean | s smallint | i integer | l bigint | f real | d double precision |
//! | n numeric | t text | v varchar | c char(n) | y bytea | u uuid |
//! | e date | h time | m timestamp | z timestamptz | w interval | j json |
//! | k jsonb | o oid | r regtype | x record | q unknown | ? others |
//!
//! Values of a row have ` | ` between them. Quotes stand around those that are empty, end in spaces, or could be read as NULL.

mod parameters;
mod random;
mod wire;

#[path = "../../../benches/figures/src/postgres.rs"]
#[allow(dead_code, reason = "the figures use the rest of it")]
pub mod postgres;
#[path = "../../../benches/figures/src/usage.rs"]
#[allow(dead_code, reason = "the figures use the rest of it")]
mod usage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqllogictest::{ColumnType, Condition, ExpectedError, QueryExpect, Record, SortMode, StatementExpect};
use wire::{Answer, Session};

use crate::say;
use crate::server::{Server, Settings};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/DIFFERENCES.md");

/// How many servers share the files.
const SERVERS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_postgres() {
    let settle = std::env::var_os("TIDEGATE_COMPAT_SETTLE").is_some();
    let page = std::fs::read_to_string(PAGE).unwrap();
    let listed: BTreeSet<&str> = differences(&page).collect();
    let files = files();
    let (next, outcome) = (AtomicUsize::new(0), Mutex::new(Outcome::default()));
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        let directory = tempfile::tempdir().unwrap();
        servers.push((Server::start(directory.path(), Settings::default()).await, directory));
    }
    std::thread::scope(|scope| {
        for (server, _) in &servers {
            let (files, next, outcome) = (&files, &next, &outcome);
            scope.spawn(move || {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut session = Session::connect(server.port(), "tidegate", "tidegate");
                    let found = compare(path, &mut session, settle);
                    outcome.lock().unwrap().add(found);
                }
            });
        }
    });
    let mut outcome = outcome.into_inner().unwrap();
    for name in outcome.named.iter().filter(|name| !listed.contains(name.as_str())) {
        outcome.failures.push(format!("DIFFERENCES.md has no line for `{name}`"));
    }
    if std::env::var_os("TIDEGATE_COMPAT").is_none() {
        for name in listed.iter().filter(|name| !outcome.named.contains(**name)) {
            outcome.failures.push(format!("DIFFERENCES.md lists `{name}`, which no statement shows"));
        }
    }
    let (agree, differ) = (outcome.agree, outcome.differ);
    say(&format!("compat: {} statements, {agree} agree with PostgreSQL, {differ} are listed as different", agree + differ));
    assert!(outcome.failures.is_empty(), "{} failures:\n\n{}", outcome.failures.len(), outcome.failures.join("\n\n"));
}

#[test]
fn recorded_answers_are_those_of_postgres() {
    let record = std::env::var_os("TIDEGATE_COMPAT_RECORD").is_some();
    let postgres = match postgres::Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return say(&format!("compat: SKIPPED the comparison of the files with PostgreSQL: {why}")),
    };
    let Answer::Rows { rows, .. } = connect_postgres(&postgres).ask("SHOW server_version_num") else {
        panic!("a PostgreSQL knows its version")
    };
    let version = rows[0][0].clone().unwrap_or_default();
    if !version.starts_with("15") {
        return say(&format!("compat: SKIPPED the comparison of the files with PostgreSQL: version {version} is not 15"));
    }
    let mut failures = Vec::new();
    for path in files() {
        let mut session = connect_postgres(&postgres);
        let records = parse(&path);
        let mut recorded = Vec::new();
        for record in &records {
            let Some((sql, expected)) = question(record) else {
                recorded.push(record.clone());
                continue;
            };
            let answer = in_order(session.ask(sql), record);
            if written(&answer) != expected {
                failures.push(format!("{}\n{sql}\nPostgreSQL says\n{}", place(record), written(&answer)));
            }
            recorded.push(with_answer(record, &answer));
        }
        if record {
            write(&path, &recorded);
        }
    }
    assert!(record || failures.is_empty(), "{} recorded answers are not true:\n\n{}", failures.len(), failures.join("\n\n"));
}

fn connect_postgres(postgres: &postgres::Postgres) -> Session {
    let address = postgres.address();
    let value = |key: &str| address.split(' ').find_map(|word| word.strip_prefix(key)).unwrap();
    Session::connect(value("port=").parse().unwrap(), value("user="), value("dbname="))
}

#[derive(Default)]
struct Outcome {
    agree: usize,
    differ: usize,
    /// Differences that conditions name.
    named: BTreeSet<String>,
    failures: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.agree += other.agree;
        self.differ += other.differ;
        self.named.extend(other.named);
        self.failures.extend(other.failures);
    }
}

fn compare(path: &Path, session: &mut Session, settle: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut settled = Vec::new();
    for record in parse(path) {
        let Some((sql, expected)) = question(&record) else {
            settled.push(record);
            continue;
        };
        let answer = written(&in_order(session.ask(sql), &record));
        let difference = difference(&record);
        match (difference, answer == expected) {
            (None, true) => outcome.agree += 1,
            (Some(name), false) => {
                outcome.differ += 1;
                outcome.named.insert(name.to_string());
            }
            (None, false) => {
                outcome.failures.push(format!("{}\n{sql}\nexpected\n{expected}\nfound\n{answer}", place(&record)));
            }
            (Some(_), true) if settle => {
                settled.pop_if(|before| matches!(before, Record::Condition(_)));
            }
            (Some(name), true) => {
                outcome.failures.push(format!("{}\n{sql}\nis listed as `{name}`, but agrees", place(&record)));
            }
        }
        settled.push(record);
    }
    if settle {
        write(path, &settled);
    }
    outcome
}

/// The names in the first column of the page's tables.
fn differences(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
}

fn files() -> Vec<PathBuf> {
    let wanted = std::env::var("TIDEGATE_COMPAT").unwrap_or_default();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt") && path.to_string_lossy().contains(&wanted));
    files.sort();
    files
}

/// A type's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Letter(char);

impl ColumnType for Letter {
    fn from_char(letter: char) -> Option<Letter> {
        Some(Letter(letter))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

/// A type, its array, and its letter.
const LETTERS: [(u32, u32, char); 23] = [
    (16, 1000, 'b'),
    (21, 1005, 's'),
    (23, 1007, 'i'),
    (20, 1016, 'l'),
    (700, 1021, 'f'),
    (701, 1022, 'd'),
    (1700, 1231, 'n'),
    (25, 1009, 't'),
    (1043, 1015, 'v'),
    (1042, 1014, 'c'),
    (17, 1001, 'y'),
    (2950, 2951, 'u'),
    (1082, 1182, 'e'),
    (1083, 1183, 'h'),
    (1114, 1115, 'm'),
    (1184, 1185, 'z'),
    (1186, 1187, 'w'),
    (114, 199, 'j'),
    (3802, 3807, 'k'),
    (26, 1028, 'o'),
    (2206, 2211, 'r'),
    (2249, 2287, 'x'),
    (705, 0, 'q'),
];

fn letter(oid: u32) -> char {
    let found = LETTERS.iter().find(|(of, array, _)| oid == *of || oid == *array);
    found.map_or('?', |(of, _, letter)| if oid == *of { *letter } else { letter.to_ascii_uppercase() })
}

fn parse(path: &Path) -> Vec<Record<Letter>> {
    sqllogictest::parse_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, records: &[Record<Letter>]) {
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(path, format!("{}\n", text.trim_end())).unwrap();
}

fn place(record: &Record<Letter>) -> String {
    match record {
        Record::Statement { loc, .. } | Record::Query { loc, .. } => loc.to_string(),
        _ => String::new(),
    }
}

/// What a record asks, and the answer that it expects as [`written`] writes it.
fn question(record: &Record<Letter>) -> Option<(&str, String)> {
    match record {
        Record::Statement { sql, expected, .. } => {
            let expected = match expected {
                StatementExpect::Ok => "done".to_string(),
                StatementExpect::Count(rows) => format!("done: {rows}"),
                StatementExpect::Error(error) => error_of(error),
            };
            Some((sql, expected))
        }
        Record::Query { sql, expected, .. } => {
            let expected = match expected {
                QueryExpect::Results { types, results, .. } => rows(types.iter().map(|t| t.0), results),
                QueryExpect::Error(error) => error_of(error),
            };
            Some((sql, expected))
        }
        _ => None,
    }
}

fn error_of(error: &ExpectedError) -> String {
    match error {
        ExpectedError::SqlState(state) => format!("error {state}"),
        other => format!("error, but which? {other}"),
    }
}

fn rows(types: impl Iterator<Item = char>, rows: &[String]) -> String {
    let head = format!("rows {}", types.collect::<String>());
    std::iter::once(head.as_str()).chain(rows.iter().map(String::as_str)).collect::<Vec<_>>().join("\n")
}

fn difference(record: &Record<Letter>) -> Option<&str> {
    let (Record::Statement { conditions, .. } | Record::Query { conditions, .. }) = record else { return None };
    conditions.iter().find_map(|condition| match condition {
        Condition::SkipIf { label } => Some(label.as_str()),
        Condition::OnlyIf { .. } => None,
    })
}

fn written(answer: &Answer) -> String {
    match answer {
        Answer::Rows { types, rows: found } => {
            rows(types.iter().map(|oid| letter(*oid)), &found.iter().map(|row| line(row)).collect::<Vec<_>>())
        }
        Answer::Done(None) => "done".into(),
        Answer::Done(Some(rows)) => format!("done: {rows}"),
        Answer::Failed(state, _) => format!("error {state}"),
    }
}

fn line(row: &[Option<String>]) -> String {
    let value = |value: &Option<String>| match value.as_deref() {
        None => "NULL".to_string(),
        Some(text) if text.is_empty() || text == "NULL" || text.trim() != text || text.starts_with('#') => {
            format!("\"{}\"", text.replace('\n', "\\n"))
        }
        Some(text) => text.replace('\n', "\\n"),
    };
    row.iter().map(value).collect::<Vec<_>>().join(" | ")
}

/// Where the record leaves the order of rows open, they are sorted.
fn in_order(mut answer: Answer, record: &Record<Letter>) -> Answer {
    let sorted =
        matches!(record, Record::Query { expected: QueryExpect::Results { sort_mode: Some(SortMode::RowSort), .. }, .. });
    if let (true, Answer::Rows { rows, .. }) = (sorted, &mut answer) {
        rows.sort();
    }
    answer
}

fn with_answer(record: &Record<Letter>, answer: &Answer) -> Record<Letter> {
    let mut record = record.clone();
    match (&mut record, answer) {
        (Record::Statement { expected, .. }, answer) => {
            *expected = match answer {
                Answer::Failed(state, _) => StatementExpect::Error(ExpectedError::SqlState(state.clone())),
                Answer::Done(Some(rows)) => StatementExpect::Count(*rows),
                _ => StatementExpect::Ok,
            };
        }
        (Record::Query { expected, .. }, Answer::Failed(state, _)) => {
            *expected = QueryExpect::Error(ExpectedError::SqlState(state.clone()));
        }
        (Record::Query { expected, .. }, Answer::Rows { types, rows }) => {
            let sort_mode = match expected {
                QueryExpect::Results { sort_mode, .. } => *sort_mode,
                QueryExpect::Error(_) => None,
            };
            let types = types.iter().map(|oid| Letter(letter(*oid))).collect();
            let results = rows.iter().map(|row| line(row)).collect();
            *expected = QueryExpect::Results { types, sort_mode, result_mode: None, label: None, results };
        }
        _ => {}
    }
    record
}
