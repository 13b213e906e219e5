//! Everything that SQL can reach has been looked at: `reviewed.txt` beside this file says of each statement and each function
//! what it touches. A new one that is not in it fails these tests, until somebody has asked what it could do in wrong hands.
//!
//! Kinds of statements have another guard: `session/authorize.rs` has a line for each, or does not compile.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::keywords::ALL_KEYWORDS;

use super::{functions, parse, system};
use crate::error::{Result, SqlState};
use crate::sql::ast::Parsed;

/// What something may touch: nothing but its arguments; the statement's time, or chance; the session; what the catalog shows
/// to the session's role; facts about the server; rows, by the rights of the session's role; nothing at all.
const MARKS: [&str; 7] = ["pure", "clock", "session", "catalog", "server", "checked", "nothing"];

/// Section and name, and the mark.
fn reviewed() -> BTreeMap<(String, String), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sql/reviewed.txt");
    let text = std::fs::read_to_string(path).expect("the list is there");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (head, names) = line.split_once(": ").expect("a line is section mark: names");
        let (section, mark) = head.split_once(' ').expect("a line starts with a section and a mark");
        assert!(MARKS.contains(&mark), "{line}");
        for name in names.split_whitespace() {
            let old = all.insert((section.to_string(), name.to_string()), mark.to_string());
            assert_eq!(old, None, "{section} {name} stands there twice");
        }
    }
    all
}

fn compare(section: &str, there: &BTreeSet<String>) {
    let known: BTreeSet<String> = reviewed().into_keys().filter(|(of, _)| of == section).map(|(_, name)| name).collect();
    let new: Vec<_> = there.difference(&known).map(String::as_str).collect();
    let gone: Vec<_> = known.difference(there).map(String::as_str).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{section}: look at what is new, and add it to src/sql/reviewed.txt: {}; what is gone is to go from there: {}",
        new.join(" "),
        gone.join(" ")
    );
}

#[test]
fn functions_are_reviewed() {
    let state = functions::state();
    let mut names: BTreeSet<String> = system::functions_of(&state).iter().map(|f| f.name.clone()).collect();
    names.extend(state.higher_order_functions().keys().cloned());
    compare("function", &names);
}

/// What a FROM can call.
#[test]
fn functions_in_from_are_reviewed() {
    compare("from", &functions::state().table_functions().keys().cloned().collect());
}

/// Is there a statement that begins so?
fn begins_a_statement(word: &str) -> bool {
    let unknown = |parsed: Result<Vec<Parsed>>| match parsed {
        Ok(_) => false,
        Err(error) => {
            error.detail() == Some("expected a statement")
                || (error.state() == SqlState::FeatureNotSupported && error.message() == format!("{word} is not supported"))
        }
    };
    ["", " a", " a b"].iter().any(|rest| !unknown(parse::parse(&format!("{word}{rest}"))))
}

#[test]
fn statements_are_reviewed() {
    // Words that are none of sqlparser's, and begin a statement nevertheless, stand in the list.
    let known = reviewed().into_keys().filter(|(section, _)| section == "statement").map(|(_, name)| name);
    let words: BTreeSet<String> = ALL_KEYWORDS.iter().map(|word| word.to_string()).chain(known).collect();
    // END-EXEC is no word.
    let words = words.into_iter().filter(|word| !word.contains('-'));
    compare("statement", &words.filter(|word| begins_a_statement(word)).collect());
}

/// By no statement does SQL reach the server's files, its network or its programs.
#[rstest::rstest]
#[case("CREATE EXTERNAL TABLE t (x INT) STORED AS CSV LOCATION '/etc/passwd'")]
#[case("CREATE FOREIGN TABLE t (x INT) SERVER s")]
#[case("CREATE SERVER s FOREIGN DATA WRAPPER w")]
#[case("CREATE EXTENSION dblink")]
#[case("CREATE FUNCTION f() RETURNS int AS 'lib', 'f' LANGUAGE C")]
#[case("COPY t FROM '/etc/passwd'")]
#[case("COPY t TO '/tmp/t'")]
#[case("COPY (SELECT 1) TO '/tmp/t'")]
#[case("COPY t FROM PROGRAM 'id'")]
#[case("COPY t TO PROGRAM 'id'")]
#[case("LOAD 'lib'")]
#[case("DO $$ BEGIN END $$")]
#[case("CALL f()")]
#[case("ATTACH DATABASE 'x' AS y")]
#[case("IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y")]
#[case("EXPORT DATABASE 'x'")]
#[case("INSTALL httpfs")]
#[case("PRAGMA x")]
#[case("UNLOAD ('SELECT 1') TO 's3://x'")]
fn no_statement_reaches_outside(#[case] sql: &str) {
    assert!(parse::parse(sql).is_err(), "{sql}");
}

/// Neither does a name in FROM.
#[rstest::rstest]
#[case("SELECT * FROM '/etc/passwd'")]
#[case("SELECT * FROM \"/etc/passwd\"")]
#[case("SELECT * FROM 'data.parquet'")]
#[case("SELECT * FROM \"s3://bucket/data.parquet\"")]
#[case("SELECT * FROM read_csv('/etc/passwd')")]
#[case("SELECT * FROM read_parquet('/etc/passwd')")]
#[case("SELECT * FROM parquet_metadata('x')")]
#[case("SELECT * FROM pg_read_file('/etc/passwd')")]
#[case("SELECT pg_read_file('/etc/passwd')")]
#[case("SELECT pg_ls_dir('/')")]
#[case("SELECT lo_import('/etc/passwd')")]
#[case("SELECT * FROM dblink('host=x', 'SELECT 1')")]
fn no_name_reaches_outside(#[case] sql: &str) {
    let planned = parse::parse_query(sql).and_then(|query| super::testing::planner().query(&query));
    assert!(planned.is_err(), "{sql}");
}
