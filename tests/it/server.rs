//! The real server as a child process.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long a start, an end or an answer may take. Far more than it should: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How to run a server: the part that stays the same over its restarts.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub workers: Option<usize>,
    pub environment: Vec<(&'static str, String)>,
    /// Of the superuser, where the server asks for one.
    pub password: Option<&'static str>,
}

/// A running server. Killed when dropped.
pub struct Server {
    directory: PathBuf,
    settings: Settings,
    /// Known from when it is ready.
    port: Option<u16>,
    child: Child,
}

impl Server {
    /// Start on a data directory and wait until it answers.
    pub async fn start(directory: &Path, settings: Settings) -> Server {
        let child = spawn(directory, &settings);
        let mut server = Server { directory: directory.to_path_buf(), settings, port: None, child };
        server.ready().await;
        server
    }

    /// Wait until it answers; panics with what it printed if it ends instead.
    pub async fn ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended at its start with {status}; it printed:\n{}", self.printed());
            }
            self.port = port_in(&self.printed());
            if self.port.is_some()
                && let Ok(client) = self.try_connect().await
                && client.simple_query("SELECT 1").await.is_ok()
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not answer; it printed:\n{}", self.printed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A new session.
    pub async fn connect(&self) -> Client {
        match self.try_connect().await {
            Ok(client) => client,
            Err(error) => panic!("can't connect: {error}; the server printed:\n{}", self.printed()),
        }
    }

    async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.address(), NoTls).await?;
        // Its error is the client's error.
        tokio::spawn(async { drop(connection.await) });
        Ok(client)
    }

    /// kill -9: it gets no chance to do anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: it finishes its commit, writes a checkpoint and ends with success.
    pub async fn terminate(&mut self) {
        self.signal("TERM");
        let status = self.ended().await;
        assert!(status.success(), "the server ended with {status}; it printed:\n{}", self.printed());
    }

    /// Send a signal by name.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(kill.success(), "kill -{name} failed");
    }

    async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end; it printed:\n{}", self.printed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Start again on the same directory, after [`Server::kill`] or [`Server::terminate`]; does not wait.
    pub fn restart(&mut self) {
        self.port = None;
        self.child = spawn(&self.directory, &self.settings);
    }

    /// For drivers.
    pub fn address(&self) -> String {
        let password = self.settings.password.map(|password| format!("password='{password}'")).unwrap_or_default();
        format!("host=127.0.0.1 port={} user=tidegate dbname=tidegate connect_timeout=10 {password}", self.port())
    }

    pub fn port(&self) -> u16 {
        self.port.expect("a server that is ready")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to the terminal since its last start.
    pub fn printed(&self) -> String {
        let mut text = Vec::new();
        let _ = File::open(output(&self.directory)).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It chooses its port itself: one that is chosen for it may be another's when it comes to take it.
fn spawn(directory: &Path, settings: &Settings) -> Child {
    std::fs::create_dir_all(directory).unwrap();
    let file = File::create(output(directory)).unwrap();
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data-dir").arg(directory.join("data")).args(["--listen", "127.0.0.1:0"]);
    if let Some(workers) = settings.workers {
        command.args(["--workers", &workers.to_string()]);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    command.spawn().unwrap()
}

/// The one that `TIDEGATE_BIN` names, the one that these tests were built with, or the one beside the program.
fn binary() -> PathBuf {
    match (std::env::var_os("TIDEGATE_BIN"), option_env!("CARGO_BIN_EXE_tidegate")) {
        (Some(path), _) => path.into(),
        (None, Some(path)) => path.into(),
        (None, None) => std::env::current_exe().unwrap().with_file_name("tidegate"),
    }
}

fn output(directory: &Path) -> PathBuf {
    directory.join("server.log")
}

/// The port that a server says it has.
fn port_in(printed: &str) -> Option<u16> {
    let line = printed.lines().find(|line| line.trim_start().starts_with("psql -h "))?;
    line.split_whitespace().skip_while(|word| *word != "-p").nth(1)?.parse().ok()
}

/// The rows of a statement as text; NULL is `None`.
pub async fn try_rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|column| row.get(column).map(String::from)).collect());
        }
    }
    Ok(rows)
}

/// The rows of a statement that must succeed.
pub async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    try_rows(client, sql).await.unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)))
}

/// Rows whose columns are all whole numbers.
pub async fn numbers<const COLUMNS: usize>(client: &Client, sql: &str) -> Vec<[i64; COLUMNS]> {
    let number = |value: &Option<String>| value.as_deref().and_then(|text| text.parse().ok());
    let row = |row: Vec<Option<String>>| {
        let values: Option<Vec<i64>> = row.iter().map(number).collect();
        let values = values.and_then(|values| values.try_into().ok());
        values.unwrap_or_else(|| panic!("{sql}: {row:?} are not {COLUMNS} whole numbers"))
    };
    rows(client, sql).await.into_iter().map(row).collect()
}

/// The statement must succeed.
pub async fn run(client: &Client, sql: &str) {
    rows(client, sql).await;
}

/// A view is what a batch query over the same prefix of the log says.
pub async fn verify(client: &Client, view: &str) {
    let answer = rows(client, &format!("VERIFY {view}")).await;
    let equal = |row: &Vec<Option<String>>| row.get(1).and_then(|status| status.as_deref()) == Some("equal");
    assert!(!answer.is_empty() && answer.iter().all(equal), "VERIFY {view}: {answer:?}");
}

/// With the server's message, which the error's own text leaves out.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}
