//! Scripts of statements and what they mean, in `testdata/`: `> statement`, `---`, the answer. `UPDATE_GOLDENFILES=1 cargo test` writes
//! the answers anew. After them, what no script can hold: sizes, garbage.

use std::error::Error as StdError;
use std::fmt::{Display, Write};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::sql::ast::*;

const SCRIPTS: &str = "src/sql/parse/testdata";

#[rstest::rstest]
#[case("define")]
#[case("windows")]
#[case("of_ksqldb")]
#[case("emission")]
#[case("read")]
#[case("write")]
#[case("copy")]
#[case("functions")]
#[case("session")]
#[case("errors")]
fn script(#[case] name: &str) {
    let path = format!("{}/{SCRIPTS}/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Script, path).unwrap();
}

struct Script;

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn StdError>> {
        let mut out = String::new();
        match parse(&command.name) {
            Ok(statements) => {
                for Parsed { statement, sql, offset, notices } in statements {
                    writeln!(out, "{}", show(&statement))?;
                    if offset > 0 {
                        writeln!(out, "  text at {offset}: {sql}")?;
                    }
                    for notice in notices {
                        writeln!(out, "  {notice:?}")?;
                    }
                }
            }
            Err(error) => {
                let position = error.position().map(|p| format!(" at {p}")).unwrap_or_default();
                writeln!(out, "{}{position}: {}", error.state().code(), error.message())?;
                for (name, more) in [("detail", error.detail()), ("hint", error.hint())] {
                    if let Some(more) = more {
                        writeln!(out, "  {name}: {more}")?;
                    }
                }
            }
        }
        Ok(out)
    }
}

fn show(statement: &Statement) -> String {
    use Statement as S;
    match statement {
        S::CreateStream(relation) => format!("stream {}", show_relation(relation)),
        S::CreateTable(relation) => format!("table {}", show_relation(relation)),
        S::CreateMaterializedView(view) => format!("materialized view {}", show_view(view)),
        S::CreateSink(view) => format!("sink {}", show_view(view)),
        S::CreateDerivedStream(view) => format!("derived stream {}", show_view(view)),
        S::CreateView(view) => format!("view {}", show_view(view)),
        S::Drop(drop) => {
            let flags = format!("{}{}", flag(drop.if_exists, " if exists"), flag(drop.cascade, " cascade"));
            format!("drop {:?} {}{flags}", drop.object, list(&drop.names))
        }
        S::AlterRelation(alter) => show_alter(alter),
        S::CreateIndex(index) => {
            let name = index.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
            let flags = format!("{}{}", flag(index.unique, " unique"), flag(index.if_not_exists, " if not exists"));
            format!("index{name} on {} by {}{flags}", index.on, list(&index.columns))
        }
        S::CreateFunction(function) => show_function(function),
        S::DropFunctions(drop) => {
            let flags = format!("{}{}", flag(drop.if_exists, " if exists"), flag(drop.cascade, " cascade"));
            format!("drop functions {}{flags}", drop.names.iter().map(show_signature).collect::<Vec<_>>().join(" "))
        }
        S::AlterFunction(alter) => match &alter.change {
            FunctionChange::Rename(to) => format!("rename function {} to {to}", show_signature(&alter.function)),
            FunctionChange::Comment(comment) => format!("comment on function {}: {comment:?}", show_signature(&alter.function)),
        },
        S::ShowCreateFunction(function) => format!("show create function {}", show_signature(function)),
        S::Grant(GrantStatement::Privileges { change, on: GrantTarget::Functions(functions) }) => {
            let functions = functions.iter().map(show_signature).collect::<Vec<_>>().join(" ");
            format!("grant={} {:?} on functions {functions}", change.grant, change.privileges)
        }
        S::Grant(GrantStatement::Privileges { change, on: GrantTarget::AllFunctionsIn(schemas) }) => {
            format!("grant={} {:?} on all functions in {}", change.grant, change.privileges, list(schemas))
        }
        S::Grant(GrantStatement::Owner { of: GrantTarget::Functions(functions), .. }) => {
            format!("owner of functions {}", functions.iter().map(show_signature).collect::<Vec<_>>().join(" "))
        }
        S::Schema(schema) => show_schema(schema),
        S::Rename(rename) => match &rename.to {
            NewName::Name(to) => format!("rename {} to {to}", rename.name),
            NewName::Schema(to) => format!("rename {} into schema {to}", rename.name),
        },
        S::Comment { on, column, comment } => format!("comment on {on} column {} is {comment:?}", option(column)),
        S::Truncate(names) => format!("truncate {}", list(names)),
        S::Query { query, emit } => format!("query{} {query}", emit.map(|e| format!(" emit {e:?}:")).unwrap_or_default()),
        S::Subscribe(subscribe) => {
            let target = match &subscribe.target {
                SubscribeTarget::Name(name) => name.to_string(),
                SubscribeTarget::Query(query) => format!("({query})"),
            };
            let Subscribe { snapshot, progress, as_of, up_to, .. } = subscribe;
            format!("subscribe {target} snapshot={snapshot} progress={progress} as_of={as_of:?} up_to={up_to:?}")
        }
        S::Explain { analyze, verbose, format, of } => {
            let of = match of {
                ExplainOf::Name(name) => format!("name {name}"),
                ExplainOf::Statement(statement) => show(statement),
            };
            format!("explain analyze={analyze} verbose={verbose} format={format:?}: {of}")
        }
        S::Verify(name) => format!("verify {name}"),
        S::AnalyzeWatermark(name) => format!("analyze watermark {name}"),
        S::Print { name, from_beginning, limit } => format!("print {name} from_beginning={from_beginning} limit={limit:?}"),
        S::ShowObjects(objects) => format!("show {objects:?}"),
        S::ShowCreate(name) => format!("show create {name}"),
        S::Describe { extended, name } => format!("describe {name}{}", flag(*extended, " extended")),
        S::Insert { insert, options } => format!("{insert}{}", show_options(options)),
        S::RunningInsert(running) => {
            format!(
                "running {}{} emit {:?}\n  text {}",
                running.insert,
                show_options(&running.options),
                running.emit,
                running.query_sql
            )
        }
        S::Update { with, update } => format!("{}{update}", below(with)),
        S::Delete { with, delete } => format!("{}{delete}", below(with)),
        S::With { changes, last } => {
            let changes = changes.iter().enumerate().map(|(number, change)| format!("{}: {}\n", returned(number), show(change)));
            format!("{}{}", changes.collect::<String>(), show(last))
        }
        S::Copy(copy) => show_copy(copy),
        S::Declare { name, query, hold } => format!("declare {name}{}: {}", flag(*hold, " with hold"), show(query)),
        S::Fetch { cursor, count, timeout_ms } => format!("fetch {count:?} from {cursor} timeout={timeout_ms:?}"),
        S::Move { cursor, count } => format!("move {count:?} in {cursor}"),
        S::Close(cursor) => format!("close {}", option(cursor)),
        S::Prepare { name, types, statement } => format!("prepare {name} ({}): {}", list(types), show(statement)),
        S::Execute { name, arguments } => format!("execute {name} ({})", list(arguments)),
        S::Deallocate(name) => format!("deallocate {}", option(name)),
        S::Savepoint(name) => format!("savepoint {name}"),
        S::RollbackTo(name) => format!("rollback to {name}"),
        S::Release(name) => format!("release {name}"),
        other => format!("{other:?}"),
    }
}

fn show_schema(statement: &SchemaStatement) -> String {
    match statement {
        SchemaStatement::Create { name, if_not_exists, owner } => {
            format!("create schema {} if not exists={if_not_exists} owner {}", option(name), owner.is_some())
        }
        SchemaStatement::Rename { name, to } => format!("rename schema {name} to {to}"),
        SchemaStatement::Comment { on, comment } => format!("comment on schema {on} is {comment:?}"),
        SchemaStatement::Drop { names, if_exists, cascade } => {
            format!("drop schema {} if exists={if_exists} cascade={cascade}", list(names))
        }
    }
}

fn show_signature(function: &FunctionName) -> String {
    let types = function.types.as_ref().map(|types| format!("({})", list(types)));
    format!("{}{}", function.name, types.unwrap_or_default())
}

fn show_function(f: &CreateFunction) -> String {
    let flags = format!("{}{}", flag(f.or_replace, " or replace"), flag(f.if_not_exists, " if not exists"));
    let mut out = format!("function {}{flags} returns {}", f.name, f.returns);
    for parameter in &f.parameters {
        let default = parameter.default.as_ref().map(|e| format!(" default <{}>", e.sql)).unwrap_or_default();
        let _ = write!(out, "\n  {} {}{default}", option(&parameter.name), parameter.data_type);
    }
    let _ = write!(out, "\n  {:?}{}\n  body at {}: <{}>", f.volatility, flag(f.strict, " strict"), f.body_at, f.body);
    out
}

fn flag(set: bool, text: &str) -> &str {
    if set { text } else { "" }
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn option<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map_or("none".into(), T::to_string)
}

/// What stands before a statement.
fn below(with: &Option<sp::With>) -> String {
    with.as_ref().map(|with| format!("{with} ")).unwrap_or_default()
}

fn show_options(options: &Options) -> String {
    if options.is_empty() { String::new() } else { format!(" with {options:?}") }
}

fn show_relation(r: &CreateRelation) -> String {
    let mut out = format!("{}{}{}", r.name, flag(r.or_replace, " or replace"), flag(r.if_not_exists, " if not exists"));
    for c in &r.columns {
        write!(out, "\n  {}", show_column(c)).unwrap();
    }
    for check in &r.checks {
        write!(out, "\n  {}", show_check(check)).unwrap();
    }
    if let Some(w) = &r.watermark {
        let expression = w.expression.as_ref().map(|e| format!("<{}> {}", e.sql, e.expr));
        write!(out, "\n  watermark for {} as {}", w.column, option(&expression)).unwrap();
    }
    for (name, columns) in [("primary key", &r.primary_key), ("partition by", &r.partition_by)] {
        if !columns.is_empty() {
            write!(out, "\n  {name} {}", list(columns)).unwrap();
        }
    }
    if let Some(n) = r.partitions {
        write!(out, "\n  partitions {n}").unwrap();
    }
    out + flag(r.append_only, "\n  append only") + &show_options(&r.options).replace(" with", "\n  with")
}

fn show_column(c: &ColumnDef) -> String {
    let mut out = format!("{} {}{}", c.name, option(&c.data_type), flag(c.not_null, " not null"));
    for (name, e) in [("default", &c.default), ("generated", &c.generated)] {
        if let Some(e) = e {
            write!(out, " {name} <{}> {}", e.sql, e.expr).unwrap();
        }
    }
    if let Some(comment) = &c.comment {
        write!(out, " comment {comment:?}").unwrap();
    }
    out
}

fn show_check(check: &CheckDef) -> String {
    format!("check {} <{}> {}", option(&check.name), check.expression.sql, check.expression.expr)
}

fn show_alter(alter: &AlterRelation) -> String {
    let action = match &alter.action {
        AlterAction::AddColumn { column, if_not_exists } => {
            format!("add{} {}", flag(*if_not_exists, " if not exists"), show_column(column))
        }
        AlterAction::RenameColumn { from, to } => format!("rename {from} to {to}"),
        AlterAction::SetOptions(options) => format!("set{}", show_options(options)),
        AlterAction::AddCheck { check, not_valid } => format!("add {}{}", show_check(check), flag(*not_valid, " not valid")),
        AlterAction::ValidateConstraint(name) => format!("validate {name}"),
        AlterAction::DropConstraint { name, if_exists } => format!("drop{} {name}", flag(*if_exists, " if exists")),
        AlterAction::SetDefault { column, default } => {
            format!("default of {column} is {}", option(&default.as_ref().map(|e| e.expr.to_string())))
        }
    };
    format!("alter {}{}: {action}", alter.name, flag(alter.if_exists, " if exists"))
}

fn show_view(v: &CreateView) -> String {
    let mut out = format!("{}{}{}", v.name, flag(v.or_replace, " or replace"), flag(v.if_not_exists, " if not exists"));
    if !v.columns.is_empty() {
        write!(out, " ({})", list(&v.columns)).unwrap();
    }
    if !v.partition_by.is_empty() || v.partitions.is_some() {
        write!(out, " partition by {} into {:?}", list(&v.partition_by), v.partitions).unwrap();
    }
    if let Some(watermark) = &v.watermark {
        write!(out, " watermark for {} as {:?}", watermark.column, watermark.expression.as_ref().map(|e| &e.sql)).unwrap();
    }
    out.push_str(flag(v.changelog, " changelog"));
    write!(out, "{} emit {:?}\n  text {}\n  tree {}", show_options(&v.options), v.emit, v.query_sql, v.query).unwrap();
    out
}

fn show_copy(c: &Copy) -> String {
    let target = match &c.target {
        CopyTarget::Relation { name, columns } => format!("{name} ({})", list(columns)),
        CopyTarget::Query(statement) => format!("({})", show(statement)),
    };
    let mut out = format!("copy {target} {} {:?}", if c.from { "from" } else { "to" }, c.format);
    write!(out, "{}{}", flag(c.header, " header"), flag(c.header_match, " match")).unwrap();
    for (name, byte) in [("delimiter", c.delimiter), ("quote", c.quote), ("escape", c.escape)] {
        if let Some(byte) = byte {
            write!(out, " {name} {:?}", byte as char).unwrap();
        }
    }
    if let Some(null) = &c.null {
        write!(out, " null {null:?}").unwrap();
    }
    for (name, columns) in [("quote", &c.force_quote), ("null", &c.force_null), ("not null", &c.force_not_null)] {
        if !columns.is_empty() {
            write!(out, " force {name} {columns:?}").unwrap();
        }
    }
    out
}

/// All statements of the scripts.
fn corpus() -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(format!("{}/{SCRIPTS}", env!("CARGO_MANIFEST_DIR"))).unwrap().collect();
    files.sort_by_key(|file| file.as_ref().unwrap().path());
    let texts = files.into_iter().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts.flat_map(|text| text.lines().filter_map(|line| line.strip_prefix("> ").map(String::from)).collect::<Vec<_>>()).collect()
}

/// Tests run on a small stack, so this also shows that there is no deep recursion.
#[rstest::rstest]
#[case::parentheses("SELECT ", "(", "1", ")", "54001")]
#[case::open_parentheses("SELECT ", "(", "", "", "54001")]
#[case::tables("SELECT * FROM ", "(", "a", ")", "54001")]
#[case::functions("SELECT ", "f(", "1", ")", "54001")]
#[case::casts("SELECT ", "CAST(", "1", " AS INT)", "54001")]
#[case::nots("SELECT ", "NOT ", "a", "", "42601")]
#[case::minuses("SELECT ", "- ", "a", "", "54001")]
#[case::pluses("SELECT a", " + a", "", "", "54001")]
#[case::concatenations("SELECT a", " || a", "", "", "54001")]
#[case::comparisons("SELECT a", " IS NULL", "", "", "54001")]
#[case::types("CREATE TABLE t (a ", "ARRAY<", "INT", ">)", "54001")]
#[case::arrays("SELECT ", "ARRAY[", "1", "]", "54001")]
#[case::subscripts("SELECT a", "[a", "", "]", "54001")]
#[case::intervals("SELECT ", "INTERVAL ", "'1'", "", "42601")]
#[case::explains("", "EXPLAIN ", "SELECT 1", "", "42601")]
#[case::subqueries("", "SELECT * FROM (", "SELECT 1", ")", "54001")]
#[case::unions("SELECT 1", " UNION SELECT 1", "", "", "54001")]
#[case::cases("SELECT ", "CASE WHEN ", "1", " THEN 1 END", "42601")]
#[case::betweens("SELECT 1", " BETWEEN 1 AND 1", "", "", "54001")]
#[case::casts_in_postgres("SELECT 1", "::int", "", "", "54001")]
#[case::odbc("SELECT ", "{fn f(", "1", ")}", "54001")]
fn too_much(#[case] start: &str, #[case] open: &str, #[case] middle: &str, #[case] close: &str, #[case] code: &str) {
    let n = 100_000;
    let sql = format!("{start}{}{middle}{}", open.repeat(n), close.repeat(n));
    assert_eq!(parse(&sql).unwrap_err().state().code(), code);
}

#[rstest::rstest]
#[case("AND")]
#[case("OR")]
fn long_chains_are_balanced(#[case] word: &str) {
    let sql = format!("SELECT a WHERE a = 0{}", (1..100_000).map(|n| format!(" {word} a = {n}")).collect::<String>());
    let Statement::Query { query, .. } = parse(&sql).unwrap().remove(0).statement else { panic!("not a query") };
    let sp::SetExpr::Select(select) = *query.body else { panic!("not a select") };
    let mut expr = &select.selection.unwrap();
    let mut depth = 0;
    while let sp::Expr::BinaryOp { left, op: sp::BinaryOperator::And | sp::BinaryOperator::Or, .. } = expr {
        (expr, depth) = (left, depth + 1);
    }
    assert_eq!(depth, 17);
    assert_eq!(expr.to_string(), "a = 0");
}

/// Alternatives that all fail in the end must not double the work at each level.
#[rstest::rstest]
#[case("SELECT ", "CAST(", "]")]
#[case("SELECT ", "f(a => ", "]")]
#[case("SELECT ", "f(", "]")]
#[case("SELECT ", "TRIM(SUBSTRING(", "]")]
#[case("SELECT ", "EXTRACT(DAY FROM ", "]")]
#[case("SELECT ", "CASE (", "]")]
#[case("SELECT ", "NOT (", "]")]
#[case("SELECT ", "x IN (", "]")]
#[case("SELECT ", "POSITION(", "]")]
#[case("SELECT * FROM ", "(", "]")]
#[case("SELECT * FROM ", "(a JOIN ", "]")]
#[case("", "(SELECT * FROM ", "]")]
#[case("SELECT * FROM ", "((SELECT * FROM ", "]")]
#[case("SELECT * FROM ", "TUMBLE((SELECT * FROM ", "]")]
fn failing_nests_fail_soon(#[case] start: &str, #[case] open: &str, #[case] middle: &str) {
    for depth in [10, 20, 40, 49] {
        assert!(parse(&format!("{start}{}{middle}", open.repeat(depth))).is_err());
    }
}

#[test]
fn long_inserts_are_read() {
    let rows: Vec<String> = (0..50_000).map(|n| format!("({n}, 'row {n}', {n}.5)")).collect();
    let sql = format!("INSERT INTO t VALUES {}", rows.join(", "));
    assert_eq!(parse(&sql).unwrap().len(), 1);
    let many = "SELECT 1;".repeat(50_000);
    assert_eq!(parse(&many).unwrap().len(), 50_000);
}

/// Statements cut, joined and changed at random: an answer, always, and a position inside the text.
#[test]
fn garbage_is_answered() {
    let corpus = corpus();
    assert!(corpus.len() > 100, "the scripts hold statements");
    let mut random = SmallRng::seed_from_u64(20_000);
    for _ in 0..20_000 {
        let sql = mutate(&corpus, &mut random);
        match parse(&sql) {
            Ok(statements) => statements.iter().for_each(|s| {
                let text: String = sql.chars().skip(s.offset as usize).take(s.sql.chars().count()).collect();
                assert_eq!(text, s.sql, "in {sql}");
            }),
            Err(error) => {
                let position = error.position().unwrap_or(1) as usize;
                assert!((1..=sql.chars().count() + 1).contains(&position), "position {position} in {sql}");
            }
        }
    }
}

fn mutate(corpus: &[String], random: &mut SmallRng) -> String {
    const PIECES: [&str; 28] = [
        "(",
        ")",
        "'",
        "\"",
        ";",
        ",",
        "*",
        "INTERVAL",
        "TABLE(",
        "WINDOW TUMBLING (",
        "EMIT",
        "SELECT",
        "FROM",
        "AND",
        "é",
        "\n",
        "\r\n",
        "$1",
        "/*",
        "--",
        "$$",
        "1e",
        "ALLOWED LATENESS INTERVAL '1'",
        "WITH (",
        "=>",
        "\0",
        "TUMBLE(",
        "🙂",
    ];
    let mut characters: Vec<char> = corpus[random.random_range(0..corpus.len())].chars().collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=characters.len());
        match random.random_range(0..5) {
            0 => characters.truncate(at),
            1 => drop(characters.drain(at..(at + random.random_range(0..12)).min(characters.len()))),
            2 => drop(characters.splice(at..at, PIECES[random.random_range(0..PIECES.len())].chars())),
            3 => {
                let other: Vec<char> = corpus[random.random_range(0..corpus.len())].chars().collect();
                let from = random.random_range(0..=other.len());
                characters.splice(at..at, other[from..(from + 30).min(other.len())].iter().copied());
            }
            _ => characters.insert(at, char::from(random.random_range(0..128u8))),
        }
    }
    characters.into_iter().collect()
}

#[test]
fn positions_count_characters_of_the_whole_string() {
    let sql = "SELECT 'é🙂';\r\n  SELECT 1;\n\n SELECT * FORM t";
    let error = parse(sql).unwrap_err();
    assert_eq!(sql.chars().skip(error.position().unwrap() as usize - 1).collect::<String>(), "FORM t");
    let parsed = parse("SELECT 'é🙂';\r\n  SELECT 'ü' ; ").unwrap();
    assert_eq!((parsed[1].offset, parsed[1].sql.as_str()), (16, "SELECT 'ü'"));
}

#[test]
fn texts_of_the_catalog_are_read_again() {
    assert_eq!(parse_expression("ts - INTERVAL '5' SECOND").unwrap().to_string(), "ts - INTERVAL '5 seconds'");
    assert!(parse_expression("a b").is_err() && parse_expression("").is_err());
    assert_eq!(parse_query("SELECT 1").unwrap().to_string(), "SELECT 1");
    assert!(parse_query("DROP TABLE t").is_err());
}
