//! Advisory locks between clients that wait for each other at the same time; `tests/slt/clients/locks.slt` has the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use crate::server::{Server, Settings, rows, run};

/// A statement under way.
fn begin(client: &Arc<Client>, sql: &str) -> JoinHandle<Result<(), Error>> {
    let (client, sql) = (Arc::clone(client), sql.to_string());
    tokio::spawn(async move { client.simple_query(&sql).await.map(drop) })
}

/// Until so many sessions wait for a lock.
async fn waiting(client: &Client, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while rows(client, "SELECT pid FROM pg_locks WHERE NOT granted").await.len() != count {
        assert!(Instant::now() < deadline, "{count} sessions wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn refused(statement: JoinHandle<Result<(), Error>>, state: &SqlState) -> String {
    let error = statement.await.unwrap().expect_err("it is refused");
    assert_eq!(error.code(), Some(state), "{error:?}");
    error.as_db_error().and_then(|error| error.detail()).unwrap_or_default().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let (first, second, third) = (Arc::new(server.connect().await), Arc::new(server.connect().await), server.connect().await);
    let holder = rows(&first, "SELECT pg_backend_pid()").await[0][0].clone().unwrap();
    let waiter = rows(&second, "SELECT pg_backend_pid()").await[0][0].clone().unwrap();

    // Another lets go of it, at the end of a transaction.
    run(&first, "BEGIN").await;
    run(&first, "SELECT pg_advisory_xact_lock(1)").await;
    let wait = begin(&second, "SELECT pg_advisory_lock(1)");
    waiting(&third, 1).await;
    let blockers = rows(&third, &format!("SELECT pg_blocking_pids({waiter})")).await;
    assert_eq!(blockers, [[Some(format!("{{{holder}}}"))]]);
    run(&first, "COMMIT").await;
    wait.await.unwrap().unwrap();

    // It is cancelled, by a request of its own and by another session.
    run(&first, "SELECT pg_advisory_lock(2)").await;
    let wait = begin(&second, "SELECT pg_advisory_lock(2)");
    waiting(&third, 1).await;
    second.cancel_token().cancel_query(NoTls).await.unwrap();
    refused(wait, &SqlState::QUERY_CANCELED).await;
    let wait = begin(&second, "SELECT pg_advisory_lock_shared(2)");
    waiting(&third, 1).await;
    run(&third, &format!("SELECT pg_cancel_backend({waiter})")).await;
    refused(wait, &SqlState::QUERY_CANCELED).await;
    waiting(&third, 0).await;

    // Who closes a circle is refused, and the other goes on when it lets go.
    let wait = begin(&first, "SELECT pg_advisory_lock(1)");
    waiting(&third, 1).await;
    let detail = refused(begin(&second, "SELECT pg_advisory_lock(2)"), &SqlState::T_R_DEADLOCK_DETECTED).await;
    let expected = format!("Process {waiter} waits for ExclusiveLock on advisory lock [0,2,1]; blocked by process {holder}.");
    assert!(detail.starts_with(&expected), "{detail}");
    run(&second, "SELECT pg_advisory_unlock(1)").await;
    wait.await.unwrap().unwrap();

    // The one that holds it goes, with a transaction under way, and then its session does.
    let wait = begin(&second, "SELECT pg_advisory_lock(2)");
    waiting(&third, 1).await;
    run(&third, &format!("SELECT pg_terminate_backend({holder})")).await;
    wait.await.unwrap().unwrap();
    drop(second);
    let mut left = rows(&third, "SELECT pid FROM pg_locks").await;
    while !left.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        left = rows(&third, "SELECT pid FROM pg_locks").await;
    }
}
