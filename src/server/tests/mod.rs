//! The server against a session that does what its statements' names say: no SQL, only protocol.

mod driver;
mod fuzz;
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Options, Server};
use crate::auth::Verifier;
use crate::auth::scram::Login;
use crate::error::{Error, Result};
use crate::session::*;
use crate::sql::ast::{Parsed, Statement};

/// Statements run here, as they do in the real server: away from the test's own runtime.
static QUERIES: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be made")
});

/// Counts what was alive and is no longer, so that tests see a cancelled statement end.
#[derive(Default)]
pub struct Fake {
    pub dropped: Arc<AtomicUsize>,
    pub copied: Arc<parking_lot::Mutex<Vec<u8>>>,
}

struct FakeSession {
    status: TransactionStatus,
    changed: Vec<(String, String)>,
    notices: Vec<Error>,
    dropped: Arc<AtomicUsize>,
    copied: Arc<parking_lot::Mutex<Vec<u8>>>,
}

impl Backend for Fake {
    fn connect(&self, user: &str, database: &str, settings: &[(String, String)]) -> Result<Box<dyn ClientSession>> {
        if user == "nobody" {
            return Err(Error::insufficient_privilege(format!("nobody may not use {database}")));
        }
        let (dropped, copied) = (self.dropped.clone(), self.copied.clone());
        let session =
            FakeSession { status: TransactionStatus::Idle, changed: settings.to_vec(), notices: Vec::new(), dropped, copied };
        Ok(Box::new(session))
    }

    /// The password is the name.
    fn login(&self, user: &str) -> Login {
        let verifier = Verifier::of_password(user).expect("the system gives random bytes");
        Login { verifier, is_genuine: user != "nobody" }
    }

    fn is_superuser(&self, user: &str) -> bool {
        user != "plain"
    }

    fn has_passwords(&self) -> bool {
        true
    }
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn numbers(from: i64, count: usize) -> RecordBatch {
    let values: Vec<i64> = (from..from + count as i64).collect();
    let names: Vec<String> = values.iter().map(|value| format!("row {value}")).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(values)), Arc::new(StringArray::from(names))];
    RecordBatch::try_new(numbers_schema(), columns).expect("the columns fit the schema")
}

fn numbers_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("name", DataType::Utf8, false)]))
}

#[async_trait::async_trait]
impl ClientSession for FakeSession {
    fn parse(&self, sql: &str) -> Result<Vec<Parsed>> {
        let mut offset = 0;
        let mut parsed = Vec::new();
        for part in sql.split(';') {
            let trimmed = part.trim();
            let statement = match trimmed {
                "nonsense" => return Err(Error::syntax("syntax error at or near \"nonsense\"").at(offset + 1)),
                "begin" => Statement::Begin { start: false, read_only: None },
                "commit" => Statement::Commit { chain: false },
                "rollback" => Statement::Rollback { chain: false },
                "deallocate all" => Statement::Deallocate(None),
                _ => Statement::NoOperation("FAKE"),
            };
            let start = offset + (part.len() - part.trim_start().len()) as u32;
            offset += part.len() as u32 + 1;
            if !trimmed.is_empty() {
                parsed.push(Parsed { statement, sql: trimmed.to_string(), offset: start, notices: Vec::new() });
            }
        }
        Ok(parsed)
    }

    fn number(&self) -> i32 {
        static LAST: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
        LAST.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn prepare(&mut self, parsed: Arc<Parsed>, types: &[Option<FieldRef>]) -> Result<Prepared> {
        let words: Vec<&str> = parsed.sql.split(' ').collect();
        let (parameters, schema) = match words.as_slice() {
            ["echo", count] => {
                let count = count.parse::<usize>().map_err(|_| Error::syntax("echo takes a number"))?;
                let declared = |index: usize| types.get(index)?.as_deref().map(Parameter::of);
                let parameters = (0..count).map(|index| declared(index).unwrap_or_else(|| Parameter::new(DataType::Utf8, None)));
                let parameters: Vec<Parameter> = parameters.collect();
                let field = |(index, of): (usize, &Parameter)| of.field().as_ref().clone().with_name(format!("p{index}"));
                let fields = parameters.iter().enumerate().map(field);
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                (parameters, Some(schema))
            }
            ["rows" | "live" | "endless" | "broken" | "slow", ..] => (Vec::new(), Some(numbers_schema())),
            ["unprepared"] => return Err(Error::undefined_table("relation \"unprepared\" does not exist").at(parsed.offset + 3)),
            _ => (Vec::new(), None),
        };
        Ok(Prepared { parsed, parameters, schema, known: Known::default() })
    }

    async fn execute(&mut self, prepared: &Prepared, parameters: Parameters) -> Result<Outcome> {
        let guard = Guard(self.dropped.clone());
        let rows = |batches, live| {
            let schema = prepared.schema.clone().expect("only statements with rows come here");
            Ok(Outcome::Rows(Rows { schema, batches, tag: "SELECT", live }))
        };
        let words: Vec<&str> = prepared.parsed.sql.split(' ').collect();
        match words.as_slice() {
            ["begin"] => self.status = TransactionStatus::Active,
            ["commit" | "rollback"] => self.status = TransactionStatus::Idle,
            ["echo", _] => {
                let columns = parameters.iter().map(|value| Ok(value.to_array()?)).collect::<Result<Vec<_>>>()?;
                let batch = RecordBatch::try_new(prepared.schema.clone().expect("echo has columns"), columns)?;
                return rows(stream::iter([Ok(batch)]).boxed(), false);
            }
            ["rows", count] => {
                let count = count.parse::<usize>().map_err(|_| Error::syntax("rows takes a number"))?;
                let starts = (0..count).step_by(1000);
                let batches = starts.map(move |from| Ok(numbers(from as i64, (count - from).min(1000))));
                return rows(stream::iter(batches.collect::<Vec<_>>()).boxed(), false);
            }
            ["live"] => {
                let first = stream::iter([Ok(numbers(0, 1))]);
                let rest = stream::pending().inspect(move |_: &Result<RecordBatch>| {
                    let _held = &guard;
                });
                return rows(first.chain(rest).boxed(), true);
            }
            ["endless", ..] => {
                let batches =
                    stream::unfold(
                        (0, guard),
                        |(from, guard)| async move { Some((Ok(numbers(from, 100)), (from + 100, guard))) },
                    );
                return rows(batches.boxed(), words.len() > 1);
            }
            ["broken"] => {
                let batches = [Ok(numbers(0, 2)), Err(Error::division_by_zero("division by zero"))];
                return rows(stream::iter(batches).boxed(), false);
            }
            ["slow"] => std::future::pending().await,
            ["fail"] => {
                return Err(Error::undefined_column("column \"x\" does not exist")
                    .at(prepared.parsed.offset + 2)
                    .with_hint("there is \"y\""));
            }
            ["fault"] => panic!("as the test wants it"),
            ["notice"] => self.notices.push(Error::duplicate_table("relation \"t\" already exists, skipping")),
            ["set", name, value] => self.changed.push((name.to_string(), value.to_string())),
            ["copy", "in"] => {
                let sink = Box::new(FakeSink { kept: Vec::new(), into: self.copied.clone() });
                return Ok(Outcome::CopyIn(CopyIn { columns: 2, binary: false, sink }));
            }
            ["copy", "out", count] => {
                let count = count.parse::<u64>().map_err(|_| Error::syntax("copy out takes a number"))?;
                let chunks = stream::iter(
                    (0..count).map(|_| Ok(CopyChunk { data: Bytes::from_static(b"a\nbc\n"), ends: vec![2, 5], rows: 2 })),
                );
                return Ok(Outcome::CopyOut(CopyOut { columns: 1, binary: false, chunks: chunks.boxed(), live: false }));
            }
            _ => {}
        }
        Ok(Outcome::Done(prepared.parsed.sql.to_uppercase()))
    }

    fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::Active {
            self.status = TransactionStatus::Failed;
        }
    }

    fn parameter_status(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.changed)
    }

    fn notices(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.notices)
    }
}

struct FakeSink {
    kept: Vec<u8>,
    into: Arc<parking_lot::Mutex<Vec<u8>>>,
}

#[async_trait::async_trait]
impl CopySink for FakeSink {
    async fn push(&mut self, data: Bytes) -> Result<()> {
        if memchr::memmem::find(&data, b"bad").is_some() {
            return Err(Error::bad_copy("a bad row").with_context("COPY t, line 1"));
        }
        self.kept.extend_from_slice(&data);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<String> {
        let rows = memchr::memchr_iter(b'\n', &self.kept).count();
        self.into.lock().extend_from_slice(&self.kept);
        Ok(format!("COPY {rows}"))
    }
}

/// A server on a free port, that ends with the test.
struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
    dropped: Arc<AtomicUsize>,
    copied: Arc<parking_lot::Mutex<Vec<u8>>>,
}

async fn start() -> Running {
    let fake = Fake::default();
    let (dropped, copied) = (fake.dropped.clone(), fake.copied.clone());
    let server =
        Server::bind(&Options::loopback("127.0.0.1:0"), Arc::new(fake), QUERIES.handle().clone()).await.expect("a port is free");
    let address = server.local_addr().expect("it listens");
    let stop = CancellationToken::new();
    let done = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    Running { address, stop, done, dropped, copied }
}

impl Running {
    /// Waits until a statement that never ends by itself has been dropped.
    async fn statement_dropped(&self) {
        within(async {
            while self.dropped.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn raw(&self) -> Raw {
        let mut raw = self.socket().await;
        raw.startup(3 << 16, &[("user", "tester")]).await;
        raw.until_ready().await;
        raw
    }

    async fn socket(&self) -> Raw {
        Raw { socket: TcpStream::connect(self.address).await.expect("the server listens"), greeting: Vec::new() }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it is done in time")
}

/// A client that speaks in bytes.
struct Raw {
    socket: TcpStream,
    greeting: Vec<(u8, Vec<u8>)>,
}

impl Raw {
    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("the server reads");
    }

    async fn startup(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        self.send(&packet).await;
    }

    /// The next message; `None` at the end.
    async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        within(async {
            let tag = self.socket.read_u8().await.ok()?;
            let length = self.socket.read_u32().await.ok()? as usize;
            let mut body = vec![0; length - 4];
            self.socket.read_exact(&mut body).await.ok()?;
            Some((tag, body))
        })
        .await
    }

    /// Messages up to ReadyForQuery, each as its letter; errors and notices with their SQLSTATE, tags and states with their text.
    async fn until_ready(&mut self) -> String {
        let mut shown = Vec::new();
        while let Some((tag, body)) = self.message().await {
            shown.push(show(tag, &body));
            self.greeting.push((tag, body));
            if tag == b'Z' {
                break;
            }
        }
        shown.join(" ")
    }

    async fn ask(&mut self, bytes: &[u8]) -> String {
        self.send(bytes).await;
        self.until_ready().await
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let statuses = self.greeting.iter().filter(|(tag, _)| *tag == b'S').rev();
        let mut pairs = statuses.map(|(_, body)| String::from_utf8_lossy(body).trim_end_matches('\0').to_string());
        pairs.find_map(|pair| pair.strip_prefix(&format!("{name}\0")).map(str::to_string))
    }

    /// Process and secret.
    fn key(&self) -> Vec<u8> {
        self.greeting.iter().find(|(tag, _)| *tag == b'K').expect("a key was sent").1.clone()
    }
}

fn show(tag: u8, body: &[u8]) -> String {
    match tag {
        b'E' | b'N' => {
            let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
            format!("{}:{}", tag as char, String::from_utf8_lossy(code.unwrap_or_default()))
        }
        b'C' => format!("C:{}", String::from_utf8_lossy(&body[..body.len() - 1])),
        b'Z' => format!("Z:{}", body[0] as char),
        other => (other as char).to_string(),
    }
}

/// A message of a type with a body.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Without parameters, results in text.
fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, max: i32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend_from_slice(&max.to_be_bytes());
    message(b'E', &body)
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}
