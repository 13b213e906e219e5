//! What clients get, next to PostgreSQL in the same run: rows of a view by its key (pgbench, prepared), new connections, the
//! memory of idle ones, and a million rows as text and as binary values.
//!
//! Both have the same table and the same materialized view over it, with an index on its key in PostgreSQL. pgbench takes turns
//! with them, so that what else the machine does meets both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use futures::TryStreamExt;
use tokio_postgres::Client;

use super::copy::connect;
use super::postgres::{Postgres, directory_of};
use super::server::{Server, Settings, run as execute};
use super::table::{Table, median, percentile};
use super::usage;

const ACCOUNTS: u64 = 100_000;
const ROWS: u64 = 1_000_000;
const ROUNDS: usize = 3;
const SECONDS: u64 = 5;
const IDLE: usize = 200;

/// A server to be measured.
struct Rival {
    name: &'static str,
    port: u16,
    user: &'static str,
    database: &'static str,
    client: Client,
}

pub async fn run(scale: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(directory.path(), Settings::default()).await;
    let (Some(pgbench), Some(psql)) = (directory_of("pgbench"), directory_of("psql")) else {
        println!("\nNothing is measured: pgbench and psql are not installed");
        return;
    };
    let postgres = Postgres::start();
    let mut rivals = Vec::new();
    match &postgres {
        Ok(postgres) => {
            let client = connect(&postgres.address()).await;
            rivals.push(Rival { name: "PostgreSQL", port: postgres.port(), user: "bench", database: "postgres", client });
        }
        Err(why) => println!("\nPostgreSQL is left out: {why}"),
    }
    let client = server.connect().await;
    rivals.push(Rival { name: "Tidegate", port: server.port(), user: "tidegate", database: "tidegate", client });
    for rival in &rivals {
        rival.fill(scale).await;
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let pgbench = Pgbench { program: pgbench.join("pgbench"), work: work.path(), seconds: (SECONDS / scale).max(1) };
    pgbench.look_ups(&rivals, if scale == 1 { ROUNDS } else { 1 });
    pgbench.connections(&rivals);
    let pids: Vec<Box<dyn Fn() -> Vec<u32>>> = match &postgres {
        Ok(postgres) => vec![Box::new(|| postgres.processes()), Box::new(|| vec![server.pid()])],
        Err(_) => vec![Box::new(|| vec![server.pid()])],
    };
    idle(&rivals, &pids).await;
    million(&rivals, &psql.join("psql"), (ROWS / scale) as usize).await;
}

impl Rival {
    fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user={} dbname={}", self.port, self.user, self.database)
    }

    async fn fill(&self, scale: u64) {
        let (accounts, rows) = (ACCOUNTS / scale, ROWS / scale);
        execute(&self.client, "CREATE TABLE account (aid INT PRIMARY KEY, bid INT, balance INT, filler TEXT)").await;
        let numbers = format!("SELECT n, n % 100, 0, '' FROM generate_series(1, {accounts}) AS g(n)");
        execute(&self.client, &format!("INSERT INTO account {numbers}")).await;
        let view = "SELECT aid, COUNT(*) AS entries, SUM(balance) AS total FROM account GROUP BY aid";
        execute(&self.client, &format!("CREATE MATERIALIZED VIEW balances AS {view}")).await;
        execute(&self.client, "CREATE TABLE big (id INT PRIMARY KEY, v BIGINT, name TEXT)").await;
        let numbers = format!("SELECT n, n * 7::bigint, 'name of ' || n FROM generate_series(1, {rows}) AS g(n)");
        execute(&self.client, &format!("INSERT INTO big {numbers}")).await;
        if self.name == "PostgreSQL" {
            execute(&self.client, "CREATE UNIQUE INDEX ON balances (aid)").await;
            execute(&self.client, "VACUUM ANALYZE").await;
        }
    }
}

/// The load generator of PostgreSQL.
struct Pgbench<'a> {
    program: PathBuf,
    work: &'a Path,
    seconds: u64,
}

impl Pgbench<'_> {
    /// Transactions a second, and their latencies in milliseconds.
    fn run(&self, rival: &Rival, script: &str, clients: usize, more: &[&str]) -> (f64, Vec<f64>) {
        let (file, log) = (self.work.join("script.sql"), self.work.join("log"));
        std::fs::write(&file, script).expect("a script is written");
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", "prepared", "-h", "127.0.0.1", "-U", rival.user, "-j", "1", "-f"]).arg(&file);
        command.args(["-p", &rival.port.to_string(), "-c", &clients.to_string(), "-T", &self.seconds.to_string()]);
        command.arg("-l").arg(format!("--log-prefix={}", log.display())).args(more).arg(rival.database);
        let output = command.output().expect("pgbench runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        (tps.expect("pgbench says how many"), self.latencies())
    }

    /// From pgbench's log, which is removed: its third field is microseconds.
    fn latencies(&self) -> Vec<f64> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.work).expect("the directory is there").flatten() {
            if entry.file_name().to_string_lossy().starts_with("log.") {
                let text = std::fs::read_to_string(entry.path()).expect("the log is text");
                let time = |line: &str| line.split_whitespace().nth(2)?.parse::<f64>().ok();
                found.extend(text.lines().filter_map(time).map(|time| time / 1e3));
                std::fs::remove_file(entry.path()).expect("the log can go");
            }
        }
        found
    }

    fn look_ups(&self, rivals: &[Rival], rounds: usize) {
        let script = "\\set aid random(1, 1000)\nSELECT entries, total FROM balances WHERE aid = :aid;\n";
        let mut table = Table::new(["clients", "server", "look-ups/s", "p50 ms", "p99 ms", "next to PostgreSQL"]);
        for clients in [1, 8, 64] {
            let mut measured: Vec<(Vec<f64>, Vec<f64>)> = rivals.iter().map(|_| Default::default()).collect();
            for _ in 0..rounds {
                for (rival, (rates, times)) in rivals.iter().zip(&mut measured) {
                    let (rate, mut latencies) = self.run(rival, script, clients, &[]);
                    rates.push(rate);
                    times.append(&mut latencies);
                }
            }
            let base = measured.first().filter(|_| rivals.len() > 1).map(|(rates, _)| median(rates.iter().copied()));
            for (rival, (rates, times)) in rivals.iter().zip(measured) {
                let rate = median(rates);
                let ratio = base.map_or("–".into(), |base| format!("{:.2}×", rate / base));
                let at = |share| format!("{:.2}", percentile(times.iter().copied(), share));
                table.row([clients.to_string(), rival.name.into(), format!("{rate:.0}"), at(0.5), at(0.99), ratio]);
            }
        }
        table.print(&format!("pgbench -M prepared: one row of a view by its key, median of {rounds} rounds"));
    }

    fn connections(&self, rivals: &[Rival]) {
        let mut table = Table::new(["", "new connections/s, each with one statement"]);
        for rival in rivals {
            let (rate, _) = self.run(rival, "SELECT entries FROM balances WHERE aid = 1;\n", 4, &["-C"]);
            table.row([rival.name.into(), format!("{rate:.0}")]);
        }
        table.print("pgbench -C, 4 clients");
    }
}

/// What the processes of a server hold by themselves, in KiB.
fn own_memory(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| usage::own_memory(*pid)).sum()
}

async fn idle(rivals: &[Rival], pids: &[Box<dyn Fn() -> Vec<u32> + '_>]) {
    let mut table = Table::new(["", "KiB of an idle connection"]);
    // PostgreSQL takes a hundred connections.
    for (rival, pids) in rivals.iter().zip(pids) {
        let count = if rival.name == "PostgreSQL" { IDLE / 4 } else { IDLE };
        let before = own_memory(&pids());
        let mut held = Vec::new();
        for _ in 0..count {
            let client = connect(&rival.address()).await;
            let statement = client.prepare("SELECT entries FROM balances WHERE aid = $1").await.expect("it prepares");
            client.query(&statement, &[&1_i32]).await.expect("it answers");
            held.push((client, statement));
        }
        let each = (own_memory(&pids()) - before) / count as f64;
        table.row([rival.name.into(), format!("{each:.0}")]);
    }
    table.print("Memory of connections that have run a prepared statement");
}

async fn million(rivals: &[Rival], psql: &Path, rows: usize) {
    let mut table = Table::new(["", "psql, rows/s", "binary, rows/s"]);
    for rival in rivals {
        let start = Instant::now();
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-h", "127.0.0.1", "-U", rival.user, "-p", &rival.port.to_string()]);
        let status = command.args(["-A", "-t", "-o", "/dev/null", "-c", "SELECT * FROM big", rival.database]).status();
        assert!(status.is_ok_and(|status| status.success()), "psql ends well");
        let text = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let none: [i32; 0] = [];
        let stream = rival.client.query_raw("SELECT * FROM big", none).await.expect("it answers");
        futures::pin_mut!(stream);
        let mut count = 0;
        while let Some(row) = stream.try_next().await.expect("rows come") {
            count += usize::from(row.get::<_, i64>(1) > 0);
        }
        assert_eq!(count, rows, "all rows have come");
        let binary = start.elapsed().as_secs_f64();
        let rate = |seconds: f64| format!("{:.0}", rows as f64 / seconds);
        table.row([rival.name.into(), rate(text), rate(binary)]);
    }
    table.print(&format!("SELECT of {rows} rows"));
}
