//! Statements and their answers, in every way in which a server can live through them.
//!
//! A file of `tests/slt` runs on a server of its own. The scenarios must not change a single answer: views are functions of the
//! log, whatever the number of workers, the size of steps, and however often the server ends in between.
//!
//! ```text
//! TIDEGATE_SLT=windows cargo test --test it slt      # only the files whose path contains this
//! TIDEGATE_SLT_REWRITE=1 cargo test --test it slt::plain   # write the answers that come into the files
//! TIDEGATE_SLT_SEED=7 …                              # other moments for the ends
//! ```
//!
//! `\i file` runs a file of the repository, as in psql.
//!
//! A file whose first lines say `# one session` uses what lives in a session (settings, prepared statements, cursors) and is
//! left out where the server ends in between. Inside BEGIN … COMMIT it never does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer, default_validator,
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::server::{Server, Settings, describe};
use crate::{number_from_env, say};

/// How the server ends between two statements.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Never,
    Terminate,
    Kill,
}

#[tokio::test(flavor = "multi_thread")]
async fn plain() {
    run_all("plain", Settings::default(), End::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker() {
    run_all("one worker", Settings { workers: Some(1), ..Settings::default() }, End::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers() {
    run_all("four workers", Settings { workers: Some(4), ..Settings::default() }, End::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tiny_steps() {
    let environment = vec![("TIDEGATE_STEP_ROWS", "1".to_string()), ("TIDEGATE_STEP_COMMITS", "1".to_string())];
    run_all("tiny steps", Settings { environment, ..Settings::default() }, End::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_between_statements() {
    run_all("restart", Settings::default(), End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_between_statements() {
    run_all("kill", Settings::default(), End::Kill).await;
}

async fn run_all(scenario: &str, settings: Settings, end: End) {
    let rewrite = std::env::var_os("TIDEGATE_SLT_REWRITE").is_some() && scenario == "plain";
    let seed = number_from_env("TIDEGATE_SLT_SEED", 1);
    let wanted = std::env::var("TIDEGATE_SLT").unwrap_or_default();
    let mut failures = Vec::new();
    for path in files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slt"))) {
        let text = std::fs::read_to_string(&path).unwrap();
        let one_session = text.lines().take_while(|line| line.starts_with('#')).any(|line| line.contains("one session"));
        if !path.to_string_lossy().contains(&wanted) || (one_session && end != End::Never) {
            continue;
        }
        if let Err(failure) = run_file(&path, settings.clone(), end, seed, rewrite).await {
            say(&format!("FAILED ({scenario}): {}", path.display()));
            failures.push(failure);
        }
    }
    assert!(failures.is_empty(), "{} files, scenario {scenario}, seed {seed}:\n\n{}", failures.len(), failures.join("\n\n"));
}

/// All slt files below a folder, in a stable order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    found.sort();
    found
}

async fn run_file(path: &Path, settings: Settings, end: End, seed: u64, rewrite: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings).await;
    let shared = Arc::new(Mutex::new(Shared { server, starts: 0, busy: 0, random: SmallRng::seed_from_u64(seed) }));
    let mut runner = Runner::new(|| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Failure>(Database { shared, client: None, starts: 0, in_block: false, end }) }
    });
    let result = match rewrite {
        true => {
            let rewritten = runner.update_test_file(path, " ", default_validator, default_normalizer, default_column_validator);
            rewritten.await.map_err(|error| format!("{}: {error}", path.display()))
        }
        false => runner.run_file_async(path).await.map_err(|error| error.display(false).to_string()),
    };
    let Err(error) = result else { return Ok(()) };
    let printed = shared.lock().await.server.printed();
    let lines: Vec<&str> = printed.lines().collect();
    Err(format!("{error}\nthe server's last lines:\n{}", lines[lines.len().saturating_sub(10)..].join("\n")))
}

/// The server, shared by the connections of a file.
struct Shared {
    server: Server,
    /// How often it was started again.
    starts: u64,
    /// Connections in a transaction block: it must not end now.
    busy: u32,
    random: SmallRng,
}

/// A connection of a file.
struct Database {
    shared: Arc<Mutex<Shared>>,
    client: Option<Client>,
    /// The start of the server that `client` belongs to.
    starts: u64,
    in_block: bool,
    end: End,
}

impl Database {
    /// Perhaps end the server and start it again. One time in three: often enough to fall into every gap of a file over a few
    /// seeds, seldom enough to be bearable.
    async fn perhaps_end(&self) {
        let mut shared = self.shared.lock().await;
        if self.end == End::Never || shared.busy > 0 || shared.random.random_range(0..3) > 0 {
            return;
        }
        match self.end {
            End::Kill => shared.server.kill(),
            _ => shared.server.terminate().await,
        }
        shared.server.restart();
        shared.server.ready().await;
        if self.end == End::Kill {
            // Views that are younger than the last checkpoint are built again beside the server's work, and say so until then.
            shared.server.connect().await.simple_query("FLUSH").await.unwrap();
        }
        shared.starts += 1;
    }

    async fn client(&mut self) -> &Client {
        let shared = self.shared.lock().await;
        if self.client.is_none() || self.starts != shared.starts {
            self.client = Some(shared.server.connect().await);
            self.starts = shared.starts;
        }
        self.client.as_ref().unwrap()
    }

    /// Note whether a statement begins or ends a transaction block.
    async fn follow_block(&mut self, sql: &str) {
        let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
        let in_block = match word.as_str() {
            "begin" | "start" => true,
            "commit" | "end" | "abort" => false,
            "rollback" => self.in_block && sql.to_ascii_lowercase().contains(" to "),
            _ => self.in_block,
        };
        let mut shared = self.shared.lock().await;
        match (self.in_block, in_block) {
            (false, true) => shared.busy += 1,
            (true, false) => shared.busy -= 1,
            _ => {}
        }
        self.in_block = in_block;
    }
}

#[async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        self.perhaps_end().await;
        let script = sql.strip_prefix("\\i ").map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join(file.trim()));
        let script =
            script.map(|path| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        let sql = script.as_deref().unwrap_or(sql);
        self.follow_block(sql).await;
        let messages = self.client().await.simple_query(sql).await?;
        let (mut columns, mut rows, mut count) = (None, Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(description) => columns = Some(description.len()),
                SimpleQueryMessage::Row(row) => rows.push((0..row.len()).map(|column| show(row.get(column))).collect()),
                SimpleQueryMessage::CommandComplete(rows) => count = rows,
                _ => {}
            }
        }
        Ok(match columns {
            Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {
        self.client = None;
    }

    fn engine_name(&self) -> &str {
        "tidegate"
    }

    async fn sleep(duration: std::time::Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        error.0.code().map(|code| code.code().to_string())
    }
}

fn show(value: Option<&str>) -> String {
    match value {
        None => "NULL".into(),
        Some("") => "(empty)".into(),
        Some(text) => text.into(),
    }
}

/// An error with the server's SQLSTATE and message in its text, so that a file can expect them.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
struct Failure(#[from] tokio_postgres::Error);
