//! A throw-away PostgreSQL with its usual settings (every commit is on disk), to measure beside.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::usage;

pub struct Postgres {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    user: Option<User>,
}

/// PostgreSQL refuses to run as root; then it runs as this user.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// `Err` says why there is none.
    pub fn start() -> Result<Postgres, String> {
        let programs = directory_of("initdb").ok_or("PostgreSQL's server programs are not installed (no initdb found)")?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let root = std::fs::metadata(directory.path()).is_ok_and(|m| m.uid() == 0);
        let user = if root { Some(user("postgres").or_else(|| user("nobody")).ok_or("no user to run it as")?) } else { None };
        if let Some(user) = user {
            chown(directory.path(), Some(user.uid), Some(user.gid)).map_err(|e| e.to_string())?;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
        let postgres = Postgres { programs, directory, port, user };
        postgres.program("initdb", &["-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8"])?;
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c shared_buffers=1GB \
             -c max_wal_size=8GB"
        );
        postgres.program("pg_ctl", &["-o", &options, "-l", "/dev/null", "-w", "start"])?;
        Ok(postgres)
    }

    pub fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=bench dbname=postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Seconds of the processor: of the main process with its ended children, and of the living ones.
    pub fn cpu(&self) -> f64 {
        self.processes().into_iter().map(usage::process_cpu).sum()
    }

    /// The main process and its living children.
    pub fn processes(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.directory.path().join("db/postmaster.pid")).unwrap_or_default();
        let Some(main) = text.lines().next().and_then(|line| line.parse::<u32>().ok()) else { return Vec::new() };
        let parent = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        processes.filter(|pid| parent(*pid) == Some(main)).chain([main]).collect()
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let database = self.directory.path().join("db");
        let mut command = Command::new(self.programs.join(name));
        command.arg("-D").arg(database).args(arguments).current_dir(self.directory.path());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        // What it starts keeps the outputs, so they cannot be read to their end.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{name} ended with {status}")),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The directory goes with it, so nothing need be written.
        let _ = self.program("pg_ctl", &["-m", "immediate", "-w", "stop"]);
    }
}

/// Where a program of PostgreSQL's is: on the path, or where Debian puts them.
pub fn directory_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let mut debian: Vec<PathBuf> = debian.collect();
    debian.sort();
    std::env::split_paths(&path).chain(debian.into_iter().rev()).find(|directory| directory.join(program).exists())
}

fn user(name: &str) -> Option<User> {
    let text = std::fs::read_to_string(Path::new("/etc/passwd")).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}
