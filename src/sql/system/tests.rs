//! The queries that clients send, over a small catalog. A file of `testdata` holds queries; the file of the same name and the
//! ending `.out` what they answer. `TIDEGATE_REWRITE_TESTDATA=1` writes the answers anew, to be read before they are kept.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::BoxFuture;
use rstest::rstest;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::context::{Activity, CommitInfo, Server, Setting, Settings, SinkStatus, SystemContext};
use super::*;
use crate::catalog::schema::{PUBLIC, RelationName, SYSTEM_SCHEMAS};
use crate::catalog::{Catalog, Change, Column, Kind, Relation, RelationId, Watermark};
use crate::engine::Backfill;
use crate::error::{Error, Result};
use crate::locks::{Key, Locks, Mode, Request, Until};
use crate::log::CommitId;
use crate::time::Micros;
use crate::view::Snapshot;

pub(super) fn column(name: &str, sql_type: &str) -> Column {
    let declared = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql_type).unwrap().parse_data_type().unwrap();
    let (data_type, sql_type) = crate::sql::types::from_ast(&declared).unwrap();
    Column {
        name: name.to_string(),
        data_type,
        sql_type,
        nullable: true,
        default: None,
        generated: None,
        identity: None,
        comment: None,
    }
}

fn relation_of(id: RelationId, name: &str, kind: Kind, columns: Vec<Column>, create_sql: &str) -> Relation {
    Relation { create_sql: create_sql.to_string(), ..Relation::new(id, name, kind, columns) }
}

/// A stream, a table with a key, a view with its late rows, and a named query.
pub(super) fn snapshot() -> Snapshot {
    let orders = Relation {
        partition_by: vec![1],
        partitions: 4,
        watermark: Some(Watermark { column: 3, expression: "event_time - INTERVAL '5' SECOND".to_string(), carried: false }),
        options: [("retention".to_string(), "7 days".to_string())].into(),
        ..relation_of(
            16384,
            "orders",
            Kind::Stream,
            vec![
                column("order_id", "text"),
                column("customer_id", "text"),
                Column { nullable: false, default: Some("0".to_string()), ..column("amount", "numeric(10,2)") },
                column("event_time", "timestamp(3) without time zone"),
                Column { generated: Some("amount * 0.1".to_string()), ..column("fee", "numeric") },
            ],
            "CREATE STREAM orders (…)",
        )
    };
    let accounts = Relation {
        primary_key: vec![0],
        comment: Some("who owns what".to_string()),
        ..relation_of(
            16385,
            "accounts",
            Kind::Table,
            vec![
                column("id", "bigint"),
                Column { nullable: false, comment: Some("a person".to_string()), ..column("owner", "text") },
                Column { default: Some("0".to_string()), ..column("balance", "numeric(12,2)") },
            ],
            "CREATE TABLE accounts (…)",
        )
    };
    let query = "SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id";
    let revenue = Relation {
        primary_key: vec![0],
        query: Some(query.to_string()),
        depends_on: vec![16384],
        functions: Vec::new(),
        ..relation_of(
            16386,
            "revenue",
            Kind::MaterializedView,
            vec![column("customer_id", "text"), column("n", "bigint")],
            "CREATE MATERIALIZED VIEW revenue AS SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id",
        )
    };
    let late = Relation {
        parent: Some(16386),
        output: None,
        ..relation_of(16387, "revenue$late", Kind::Late, vec![column("customer_id", "text")], "")
    };
    let big = Relation {
        query: Some("SELECT * FROM orders WHERE amount > 100".to_string()),
        depends_on: vec![16384],
        functions: Vec::new(),
        ..relation_of(
            16388,
            "big",
            Kind::View,
            orders.columns.clone(),
            "CREATE VIEW big AS SELECT * FROM orders WHERE amount > 100",
        )
    };
    let mut catalog = Catalog::default();
    for relation in [orders, accounts, revenue, late, big] {
        catalog.apply(&Change::Create(relation));
    }
    let watermarks = [(16384, 1_700_000_000_000_000)].into_iter().collect();
    Snapshot { commit: 42, time: 1_700_000_005_000_000, catalog: Arc::new(catalog), watermarks, ..Snapshot::default() }
}

struct TestSettings;

impl Settings for TestSettings {
    fn get(&self, name: &str) -> Option<String> {
        self.all().into_iter().find(|s| s.name == name).map(|s| s.value)
    }

    fn set(&self, name: &str, value: &str, _: bool) -> Result<String> {
        self.get(name).map(|_| value.to_string()).ok_or_else(|| Error::undefined_object(format!("no parameter \"{name}\"")))
    }

    fn all(&self) -> Vec<Setting> {
        let setting = |name: &str, value: &str| Setting {
            name: name.to_string(),
            value: value.to_string(),
            default: value.to_string(),
            description: format!("what {name} says"),
            context: "user",
        };
        vec![
            setting("search_path", "\"$user\", public"),
            setting("work_mem", "4096"),
            setting("standard_conforming_strings", "on"),
        ]
    }
}

struct TestServer;

impl Server for TestServer {
    fn sink(&self, _: RelationId) -> Option<SinkStatus> {
        None
    }

    fn started(&self) -> Micros {
        1_700_000_000_000_000
    }

    fn now(&self) -> Micros {
        1_700_000_000_000_001
    }

    fn sessions(&self) -> Vec<Activity> {
        vec![Activity {
            pid: 7,
            user: "tidegate".to_string(),
            state: "active",
            query: "SELECT 1".to_string(),
            ..Activity::default()
        }]
    }

    fn offsets(&self, relation: RelationId) -> Vec<(u64, u64)> {
        if relation == 16384 { vec![(0, 3), (0, 5), (2, 2), (0, 1)] } else { Vec::new() }
    }

    fn end(&self) -> CommitId {
        0
    }

    fn commits(&self, _: CommitId) -> Vec<CommitInfo> {
        vec![CommitInfo { id: 1, time: 1_700_000_000_000_000, rows: [(16384, 3)].into() }]
    }

    fn size(&self, relation: RelationId) -> Option<u64> {
        (relation == 16384).then_some(20_480)
    }

    fn signal(&self, pid: i32, _: bool) -> bool {
        pid == 7
    }

    fn locks(&self) -> &Arc<Locks> {
        static LOCKS: LazyLock<Arc<Locks>> = LazyLock::new(|| {
            let locks = Arc::<Locks>::default();
            locks.enter(7);
            let request = |session, key| Request { session, key, mode: Mode::Exclusive, until: Until::Unlocked };
            assert!(locks.try_lock(request(7, Key::Two(1, -1))).is_ok_and(|taken| taken));
            locks
        });
        &LOCKS
    }

    fn sleep(&self, _: std::time::Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn backfills(&self) -> Vec<Backfill> {
        let elapsed = std::time::Duration::from_secs(2);
        vec![Backfill { views: vec![RelationName::new(PUBLIC, "revenue")], rows: 10, total: 30, commit: 4, elapsed }]
    }
}

#[derive(Debug)]
struct System {
    schema: &'static str,
    context: Arc<SystemContext>,
}

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        relation_names(self.schema).map(str::to_string).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        // Unqualified names mean pg_catalog too.
        let schema = if self.schema == "public" { "pg_catalog" } else { self.schema };
        Ok(relation(Some(schema), name, &self.context))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|n| n == name)
    }
}

pub(super) fn system_context() -> SystemContext {
    let (settings, server) = (Arc::new(TestSettings), Arc::new(TestServer));
    let mut context = SystemContext::new(Arc::new(snapshot()), "tidegate", "tidegate", settings, server);
    context.pid = 7;
    context
}

fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("tidegate", "public")
        .with_create_default_catalog_and_schema(false)
        .with_target_partitions(1)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let mut state =
        SessionStateBuilder::new().with_config(config).with_default_features().with_analyzer_rule(Arc::new(Decorrelate)).build();
    let mut context = system_context();
    context.functions = functions_of(&state);
    let context = Arc::new(context);
    register(&context, &mut state).unwrap();
    let session = SessionContext::new_with_state(state);
    let catalog = Arc::new(MemoryCatalogProvider::new());
    for schema in SYSTEM_SCHEMAS.into_iter().chain(["public"]) {
        catalog.register_schema(schema, Arc::new(System { schema, context: context.clone() })).unwrap();
    }
    session.register_catalog("tidegate", catalog);
    session
}

async fn run(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).and_then(|mut p| p.parse_query());
    let mut query = parsed.map_err(|e| Error::syntax(e.to_string()))?;
    rewrite(&mut query)?;
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(sqlparser::ast::Statement::Query(query)));
    let plan = session.state().statement_to_plan(statement).await?;
    let frame = session.execute_logical_plan(plan).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.collect().await?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

fn text(batches: &[RecordBatch]) -> String {
    let mut output = String::new();
    let names: Vec<String> = batches[0].schema().fields().iter().map(|f| visible_name(f.name()).to_string()).collect();
    writeln!(output, "{}", names.join("|")).unwrap();
    let options = FormatOptions::default().with_null("∅");
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            writeln!(output, "{}", cells.join("|").trim_end()).unwrap();
        }
    }
    output
}

/// What the files write for the OID of `now()`, which moves with each function that comes before it.
const NOW: &str = "{now}";

fn oid_of_now(session: &SessionContext) -> String {
    let mut context = system_context();
    context.functions = functions_of(&session.state());
    context.objects().functions_named("now").next().expect("now() is a function").oid.to_string()
}

/// `{name}` stands for the relation's OID.
fn with_oids(text: &str) -> String {
    let mut sql = text.to_string();
    for class in system_context().objects().classes() {
        sql = sql.replace(&format!("{{{}}}", class.name), &class.oid.to_string());
    }
    sql
}

async fn check(file: &Path) {
    let session = session();
    let now = oid_of_now(&session);
    let queries = with_oids(&std::fs::read_to_string(file).unwrap()).replace(NOW, &now);
    let mut answers = String::new();
    for sql in queries.split(";\n").filter(|q| q.lines().any(|l| !l.is_empty() && !l.starts_with("--"))) {
        match run(&session, sql).await {
            Ok(batches) => writeln!(answers, "{}", text(&batches)).unwrap(),
            Err(error) => writeln!(answers, "ERROR {error:?}\n").unwrap(),
        }
    }
    let answers = answers.replace(&now, NOW);
    let expected = file.with_extension("out");
    if std::env::var_os("TIDEGATE_REWRITE_TESTDATA").is_some() {
        std::fs::write(&expected, &answers).unwrap();
    }
    let expected = std::fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(answers, expected, "{}", file.display());
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn queries_of_clients_are_answered(#[values("psql15", "drivers", "forms")] folder: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/sql/system/testdata").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "sql"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        check(&file).await;
    }
}

#[tokio::test]
async fn every_system_relation_can_be_read() {
    let session = session();
    for relation in definitions::all() {
        let sql = format!("SELECT * FROM {}.{}", relation.schema, relation.name);
        let batches = run(&session, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert_eq!(batches[0].num_columns(), relation.columns.len(), "{sql}");
    }
}
