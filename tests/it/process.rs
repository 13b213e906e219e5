//! The program as its operator meets it: how it starts, ends, refuses and inspects.

use std::process::{Command, Output};

use crate::server::{Server, Settings, numbers, run};

fn tidegate(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output, text)
}

#[test]
fn it_says_its_version_and_its_flags() {
    let (output, text) = tidegate(&["--version"]);
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    let (output, text) = tidegate(&["--help"]);
    assert!(output.status.success(), "{text}");
    for flag in ["--data-dir", "--listen", "--workers", "--init", "--demo", "--config"] {
        let (output, serve) = tidegate(&["serve", "--help"]);
        assert!(
            output.status.success() && (text.contains(flag) || serve.contains(flag)),
            "{flag} is in no help:\n{text}\n{serve}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_the_line_to_copy() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let line = format!("psql -h 127.0.0.1 -p {}", server.port());
    assert!(server.printed().contains(&line), "{}", server.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _server = Server::start(directory.path(), Settings::default()).await;
    let data = directory.path().join("data");
    let (output, text) = tidegate(&["serve", "--data-dir", &data.to_string_lossy(), "--listen", "127.0.0.1:0"]);
    assert!(!output.status.success() && text.contains("data"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM s (id INT); INSERT INTO s VALUES (7)").await;
    drop(client);
    server.terminate().await;
    let data = directory.path().join("data");
    let format = std::fs::read_to_string(data.join("FORMAT")).unwrap();
    for (version, what_to_do) in
        [("format 99", "start the version that wrote it"), ("format 0", "dump it with the version that wrote it")]
    {
        std::fs::write(data.join("FORMAT"), format.replace("format 1", version)).unwrap();
        for command in ["serve", "dump", "check"] {
            let directory = data.to_string_lossy();
            let arguments: &[&str] = match command {
                "serve" => &[command, "--data-dir", &directory, "--listen", "127.0.0.1:0"],
                _ => &[command, &directory],
            };
            let (output, text) = tidegate(arguments);
            assert!(!output.status.success(), "{command} takes {version}:\n{text}");
            assert!(text.contains(version) && text.contains("reads format 1") && text.contains(what_to_do), "{command}: {text}");
            assert!(!text.contains("panicked"), "{text}");
        }
    }
    // Refused is not touched.
    std::fs::write(data.join("FORMAT"), format).unwrap();
    server.restart();
    server.ready().await;
    assert_eq!(numbers::<1>(&server.connect().await, "SELECT id FROM s").await, [[7]]);
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (output, text) = tidegate(&["serve", "--data-dir", &directory.path().to_string_lossy(), "--listen", "0.0.0.0:0"]);
    let names = ["refusing to listen", "--tls-cert", "--tls-key", "--auth", "--password-file"];
    assert!(!output.status.success() && names.iter().all(|name| text.contains(name)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_outlives_its_server_and_can_be_inspected() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM s (id INT, name TEXT)").await;
    run(&client, "CREATE MATERIALIZED VIEW counted AS SELECT name, COUNT(*) AS n FROM s GROUP BY name").await;
    run(&client, "INSERT INTO s VALUES (1, 'remember me'), (2, 'remember me')").await;
    drop(client);
    server.terminate().await;

    let data = directory.path().join("data").to_string_lossy().into_owned();
    let (output, text) = tidegate(&["dump", &data]);
    assert!(output.status.success(), "{text}");
    for word in ["counted", "remember me"] {
        assert!(text.contains(word), "the dump has no '{word}':\n{text}");
    }
    let (output, text) = tidegate(&["check", &data]);
    assert!(output.status.success(), "{text}");

    server.restart();
    server.ready().await;
    let client = server.connect().await;
    assert_eq!(numbers::<2>(&client, "SELECT n, (SELECT COUNT(*) FROM s) FROM counted").await, [[2, 2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_statements_runs_at_the_start_and_the_demo_shows_numbers_that_move() {
    let directory = tempfile::tempdir().unwrap();
    let init = directory.path().join("init.sql");
    std::fs::write(&init, "CREATE STREAM IF NOT EXISTS from_file (id INT); INSERT INTO from_file VALUES (7);").unwrap();
    let environment = vec![("TIDEGATE_INIT", init.to_string_lossy().into_owned()), ("TIDEGATE_DEMO", "true".to_string())];
    let server = Server::start(directory.path(), Settings { environment, ..Settings::default() }).await;
    let client = server.connect().await;
    assert_eq!(numbers::<1>(&client, "SELECT id FROM from_file").await, [[7]]);
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.extend(numbers::<1>(&client, "SELECT COALESCE(SUM(order_count), 0) AS orders FROM revenue").await);
        seen.dedup();
        if seen.len() >= 3 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the demo's view only ever showed {seen:?}");
}
