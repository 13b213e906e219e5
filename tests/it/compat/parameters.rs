//! Prepared statements have here the parameters and columns that they have in PostgreSQL 15: types as found by the server, or as the
//! client declares them, and modifiers of columns.
//!
//! `tests/compat/parameters.txt` is records with empty lines between:
//!
//! ```text
//! do CREATE TABLE p (id int)         something to be done first
//!
//! skipif accepted                    Tidegate answers otherwise: a line of DIFFERENCES.md
//! declare uuid, -                    what the client says of $1 and $2
//! SELECT $1, $2::varchar(5)
//! uuid varchar -> uuid varchar:9     parameters, columns and their modifiers, or `error 42P18`
//! ```

use std::path::Path;

use postgres_types::Type;

use super::wire::{Described, Session};
use super::{PAGE, connect_postgres, differences, postgres};
use crate::say;
use crate::server::{Server, Settings};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat/parameters.txt");

#[derive(Default)]
struct Record {
    difference: Option<String>,
    declared: Vec<u32>,
    /// As written, in front of the answer.
    head: Vec<String>,
    sql: String,
    answer: String,
}

fn records() -> Vec<Record> {
    let text = std::fs::read_to_string(Path::new(FILE)).unwrap();
    text.split("\n\n").map(|record| record.trim()).filter(|record| !record.is_empty()).map(record_of).collect()
}

fn record_of(text: &str) -> Record {
    let mut record = Record::default();
    let mut lines: Vec<&str> = text.lines().collect();
    if !text.starts_with("do ") {
        record.answer = lines.pop().unwrap_or_default().to_string();
    }
    for line in lines {
        record.head.push(line.to_string());
        match line.split_once(' ') {
            Some(("skipif", name)) => record.difference = Some(name.to_string()),
            Some(("declare", names)) => record.declared = names.split(", ").map(oid).collect(),
            _ => record.sql = line.to_string(),
        }
    }
    record
}

fn oid(name: &str) -> u32 {
    let known =
        [Type::INT2, Type::INT4, Type::INT8, Type::TEXT, Type::VARCHAR, Type::UUID, Type::JSON, Type::JSONB, Type::NUMERIC];
    let known = known.iter().chain(&[Type::UUID_ARRAY, Type::TIMESTAMP, Type::DATE, Type::BOOL, Type::FLOAT8]);
    known.into_iter().find(|known| known.name() == name).map_or(0, Type::oid)
}

fn name(oid: u32) -> String {
    Type::from_oid(oid).map_or_else(|| oid.to_string(), |of| of.name().to_string())
}

fn written(answer: Result<Described, String>) -> String {
    let described = match answer {
        Ok(described) => described,
        Err(state) => return format!("error {state}"),
    };
    let parameters = described.parameters.into_iter().map(name);
    let column = |(oid, modifier): (u32, i32)| match modifier {
        -1 => name(oid),
        modifier => format!("{}:{modifier}", name(oid)),
    };
    let columns = described.columns.into_iter().map(column);
    parameters.chain(["->".to_string()]).chain(columns).collect::<Vec<_>>().join(" ")
}

fn ask(session: &mut Session, record: &Record) -> Option<String> {
    if let Some(statement) = record.sql.strip_prefix("do ") {
        session.ask(statement);
        return None;
    }
    Some(written(session.describe(&record.sql, &record.declared)))
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_those_of_postgres() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let page = std::fs::read_to_string(PAGE).unwrap();
    let port = server.port();
    let failures = tokio::task::spawn_blocking(move || {
        let mut session = Session::connect(port, "tidegate", "tidegate");
        let mut failures = Vec::new();
        for record in records() {
            let Some(answer) = ask(&mut session, &record) else { continue };
            let sql = &record.sql;
            match &record.difference {
                Some(name) if !differences(&page).any(|listed| listed == name) => {
                    failures.push(format!("{sql}\nDIFFERENCES.md has no line for `{name}`"));
                }
                Some(name) if answer == record.answer => failures.push(format!("{sql}\nis listed as `{name}`, but agrees")),
                None if answer != record.answer => {
                    failures.push(format!("{sql}\nexpected {}\nfound    {answer}", record.answer));
                }
                _ => {}
            }
        }
        failures
    });
    let failures = failures.await.unwrap();
    assert!(failures.is_empty(), "{} failures:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn recorded_parameters_are_those_of_postgres() {
    let postgres = match postgres::Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return say(&format!("compat: SKIPPED the comparison of parameters with PostgreSQL: {why}")),
    };
    let mut session = connect_postgres(&postgres);
    let (mut failures, mut recorded) = (Vec::new(), Vec::new());
    for record in records() {
        let answer = ask(&mut session, &record);
        if let Some(answer) = answer.as_ref().filter(|answer| **answer != record.answer) {
            failures.push(format!("{}\nPostgreSQL says {answer}", record.sql));
        }
        recorded.push(record.head.into_iter().chain(answer).collect::<Vec<_>>().join("\n"));
    }
    if std::env::var_os("TIDEGATE_COMPAT_RECORD").is_some() {
        return std::fs::write(FILE, format!("{}\n", recorded.join("\n\n"))).unwrap();
    }
    assert!(failures.is_empty(), "{} recorded answers are not true:\n\n{}", failures.len(), failures.join("\n\n"));
}
