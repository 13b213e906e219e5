//! The command line: `tidegate [serve]`, `tidegate dump`, `tidegate check`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tidegate::connect::connection::Connections;
use tidegate::database::{Config, Database, Opened, Served};
use tidegate::error::{Error, Result};
use tidegate::server::{self, Authentication, Server, TlsFiles};
use tidegate::{engine, inspect, limits};
use tokio::runtime::Runtime;

/// A SQL server for streams: a durable log, continuous SQL over it, every result a Postgres table.
#[derive(Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (the default)
    Serve(Box<Serve>),
    /// Print the log, the catalog and the state of a data directory as text
    Dump { dir: PathBuf },
    /// Read every record of a data directory and report damage
    Check { dir: PathBuf },
}

#[derive(Args, Clone)]
struct Serve {
    /// Where the data is; made if it is not there
    #[arg(long, env = "TIDEGATE_DATA_DIR", default_value = "tidegate-data")]
    data_dir: PathBuf,
    /// Address to listen on; one that other machines can reach needs a certificate and passwords
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "127.0.0.1:6433")]
    listen: String,
    /// The server's certificate, and after it those that vouch for it, as PEM; read again at SIGHUP
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, env = "TIDEGATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Whether clients prove who they are: trust (this machine only) or scram-sha-256; by default, from when the superuser has a password
    #[arg(long, env = "TIDEGATE_AUTH")]
    auth: Option<Authentication>,
    /// The superuser's first password is the first line of this file, or TIDEGATE_PASSWORD
    #[arg(long, env = "TIDEGATE_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Sessions at a time; the last three are for superusers
    #[arg(long, env = "TIDEGATE_MAX_CONNECTIONS", default_value_t = limits::CONNECTIONS as u16, value_parser = clap::value_parser!(u16).range(4..))]
    max_connections: u16,
    /// Threads that compute views
    #[arg(long, env = "TIDEGATE_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// What sinks may write to: a PostgreSQL server, as NAME='host=… user=… dbname=…' or as NAME=URL; once for each
    #[arg(long, env = "TIDEGATE_CONNECTIONS", value_name = "NAME=…", value_delimiter = ';', hide_env_values = true)]
    connection: Vec<String>,
    /// Certificates that vouch for the servers of connections to other machines, as PEM
    #[arg(long, env = "TIDEGATE_CONNECTION_CA", value_name = "FILE")]
    connection_ca: Option<PathBuf>,
    /// SQL to run at the start, before clients are let in
    #[arg(long, env = "TIDEGATE_INIT", value_name = "FILE.sql")]
    init: Option<PathBuf>,
    /// Start with a stream of made-up orders and two views over it
    #[arg(long, env = "TIDEGATE_DEMO", value_parser = clap::builder::FalseyValueParser::new())]
    demo: bool,
    /// Settings as TOML: the names of these flags, without the dashes in front
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How often the state of views is written to disk
    #[arg(long, env = "TIDEGATE_CHECKPOINT_INTERVAL", default_value = "10s", value_parser = duration)]
    checkpoint_interval: Duration,
    /// Rows after which a step of the engine is cut
    #[arg(long, env = "TIDEGATE_STEP_ROWS", default_value_t = limits::STEP_ROWS, hide = true)]
    step_rows: usize,
    /// Commits after which a step of the engine is cut
    #[arg(long, env = "TIDEGATE_STEP_COMMITS", default_value_t = limits::STEP_COMMITS, hide = true)]
    step_commits: usize,
}

/// The demo's statements.
const DEMO: &str = include_str!("../sql/demo.sql");

/// How long running statements may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIDEGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).with_target(false).init();
    let result = match parse() {
        Ok(cli) => match cli.command {
            None => serve(&cli.serve),
            Some(Command::Serve(serve_)) => serve(&serve_),
            Some(Command::Dump { dir }) => inspect::dump(&dir, &mut std::io::stdout().lock()).map(|()| ExitCode::SUCCESS),
            Some(Command::Check { dir }) => check(&dir),
        },
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| {
        // A reader that has gone (`tidegate dump | head`) is no failure.
        let _ = writeln!(std::io::stderr(), "tidegate: {error}");
        ExitCode::FAILURE
    })
}

/// The command line; what it and the environment leave open comes from the configuration file.
fn parse() -> Result<Cli> {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let cli = Cli::parse_from(&arguments);
    let serve = match &cli.command {
        Some(Command::Serve(serve)) => serve,
        _ => &cli.serve,
    };
    let Some(path) = &serve.config else { return Ok(cli) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
    let table: toml::Table = text.parse().map_err(|e| Error::invalid_parameter(format!("{}: {e}", path.display())))?;
    let given = Cli::command().get_matches_from(&arguments);
    let given = given.subcommand_matches("serve").unwrap_or(&given);
    let mut all = arguments.clone();
    for (key, value) in &table {
        let id = key.replace('-', "_");
        let known =
            Serve::augment_args(clap::Command::new("serve")).get_arguments().any(|a| a.get_id() == id.as_str() && id != "config");
        if !known {
            return Err(Error::invalid_parameter(format!("{}: there is no setting \"{key}\"", path.display())));
        }
        if !matches!(given.value_source(&id), None | Some(clap::parser::ValueSource::DefaultValue)) {
            continue;
        }
        let flag = format!("--{}", id.replace('_', "-"));
        match value {
            toml::Value::Boolean(false) => {}
            toml::Value::Boolean(true) => all.push(flag.into()),
            toml::Value::String(text) => all.extend([flag.into(), text.into()]),
            toml::Value::Array(texts) => {
                let texts = texts.iter().map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_string));
                texts.for_each(|text| all.extend([flag.clone().into(), text.into()]));
            }
            other => all.extend([flag.into(), other.to_string().into()]),
        }
    }
    let matches =
        Cli::command().try_get_matches_from(all).map_err(|e| Error::invalid_parameter(format!("{}: {e}", path.display())))?;
    Cli::from_arg_matches(&matches).map_err(|e| Error::invalid_parameter(e.to_string()))
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| "write a number and ms, s, min or h".to_string())?;
    let factor = match &text[split..] {
        "ms" => 1,
        "" | "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and ms, s, min or h".to_string()),
    };
    number
        .checked_mul(factor)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "must be greater than zero".to_string())
}

fn check(dir: &Path) -> Result<ExitCode> {
    let sound = inspect::check(dir, &mut std::io::stdout().lock())?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "how long a start takes is for the log only")]
fn serve(options: &Serve) -> Result<ExitCode> {
    let start = Instant::now();
    let config = Config {
        engine: engine::Options {
            workers: options.workers.into(),
            checkpoint_interval: options.checkpoint_interval,
            step_rows: options.step_rows.max(1),
            step_commits: options.step_commits.max(1),
        },
        connections: Arc::new(Connections::new(&options.connection, options.connection_ca.as_deref())?),
        ..Config::at(&options.data_dir)
    };
    let (database, opened) = Database::open(config)?;
    report(&opened, start.elapsed());

    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let queries = runtime("query", threads)?;
    let network = runtime("network", 1)?;
    if let Some(path) = &options.init {
        let sql = std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
        queries.block_on(run_script(&database, &sql)).map_err(|e| e.with_context(path.display().to_string()))?;
    }
    if options.demo {
        queries.block_on(run_script(&database, DEMO))?;
    }
    let result = network.block_on(async {
        let server = Server::bind(
            &server_options(options, &database)?,
            Arc::new(Served(Arc::clone(&database), options.max_connections.into())),
            queries.handle().clone(),
        )
        .await?;
        let address = server.local_addr()?;
        println!("Tidegate {} is ready. Connect with:", env!("CARGO_PKG_VERSION"));
        println!("  psql -h {} -p {} -U tidegate", address.ip(), address.port());
        std::io::stdout().flush()?;
        tokio::spawn(at_hangup(server.reloader()));
        server.run(stop_signal()).await;
        Ok(())
    });
    // Sessions that are still there hold the database; what they were doing is not acknowledged.
    queries.shutdown_timeout(GRACE);
    network.shutdown_timeout(GRACE);
    let closed = database.close();
    result.and(closed).map(|()| {
        tracing::info!(commit = database.log().end(), "stopped");
        ExitCode::SUCCESS
    })
}

fn server_options(options: &Serve, database: &Database) -> Result<server::Options> {
    if let Some(password) = first_password(options)? {
        match database.set_first_password(&password)? {
            true => tracing::info!("the superuser has its first password"),
            false => tracing::info!("the superuser has a password already; it stays as it is"),
        }
    }
    let asked_for = if database.has_superuser_password() { Authentication::Scram } else { Authentication::Trust };
    let tls = options.tls_cert.clone().zip(options.tls_key.clone());
    Ok(server::Options {
        listen: options.listen.clone(),
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        authentication: options.auth.unwrap_or(asked_for),
        connections: options.max_connections.into(),
    })
}

/// There is no flag for it: others can see the command line.
fn first_password(options: &Serve) -> Result<Option<String>> {
    let Some(path) = &options.password_file else { return Ok(std::env::var("TIDEGATE_PASSWORD").ok()) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?;
    Ok(Some(text.lines().next().unwrap_or_default().to_string()))
}

/// Reads the certificate again whenever SIGHUP comes.
async fn at_hangup(reload: impl Fn()) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        reload();
    }
}

fn report(opened: &Opened, took: Duration) {
    let Opened { commit, streams, tables, views, recovery } = opened;
    let checkpoint = recovery.checkpoint.map_or_else(|| "none".to_string(), |c| c.to_string());
    tracing::info!(
        "recovered commit {commit}: {streams} streams, {tables} tables, {views} views; checkpoint {checkpoint}, {} commits replayed, in {:.1?}",
        recovery.replayed,
        took
    );
    for (view, why) in &recovery.rebuilt {
        tracing::warn!(view, "is rebuilt from the log: {why}");
    }
}

async fn run_script(database: &Arc<Database>, sql: &str) -> Result<()> {
    let mut session = database.session("tidegate");
    session.run(sql).await.map(drop)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()?)
}

/// Completes at SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
    tracing::info!("stopping");
}
