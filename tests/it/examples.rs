//! The programs of `examples/` run against the server, as their readers will run them.

use std::process::Command;

use crate::say;
use crate::server::{Server, Settings};

// The example itself, not a copy: as a module it needs no link of its own.
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../../examples/rust_client.rs"]
mod rust_client;

#[tokio::test(flavor = "multi_thread")]
async fn rust() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    rust_client::run(&server.address()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let python = std::env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_psycopg = Command::new(&python).args(["-c", "import psycopg"]).output().is_ok_and(|output| output.status.success());
    if !has_psycopg {
        return say(&format!("examples/python: SKIPPED, {python} has no psycopg (TIDEGATE_PYTHON names another)"));
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/client.py");
    let output = Command::new(&python).arg(script).arg(server.address()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("east: 1000 receipts"), "{}\n{text}", output.status);
}
