//! COPY over the wire: whole or not at all, in a transaction block or alone.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::Client;

use super::server::{Server, Settings, numbers, run};

async fn copy(client: &Client, sql: &str, data: &str) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    let mut sink = std::pin::pin!(sink);
    // Cut anywhere: in the middle of rows and values.
    for piece in data.as_bytes().chunks(7) {
        sink.send(Bytes::copy_from_slice(piece)).await?;
    }
    sink.finish().await
}

async fn count(client: &Client) -> i64 {
    numbers::<1>(client, "SELECT COUNT(*) FROM q").await[0][0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_named_and_nothing_of_its_copy_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM q (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)").await;

    let bad = "id,ts\n1,2025-01-01 10:00:00\n2,oops\n3,2025-01-01 10:00:02\n";
    let error = copy(&client, "COPY q FROM STDIN CSV HEADER", bad).await.unwrap_err();
    let error = error.as_db_error().expect("the server's own error");
    assert_eq!(error.code().code(), "22007");
    assert_eq!(error.where_(), Some("COPY q, line 3, column ts: \"oops\""));
    assert_eq!(count(&client).await, 0);

    let short = "1,2025-01-01 10:00:00\n2\n";
    let error = copy(&client, "COPY q FROM STDIN CSV", short).await.unwrap_err();
    assert_eq!(error.as_db_error().expect("the server's own error").code().code(), "22P04");
    assert_eq!(count(&client).await, 0);

    // The session goes on, and the same rows without the mistake are taken.
    let good = "1,2025-01-01 10:00:00\n3,2025-01-01 10:00:02\n";
    assert_eq!(copy(&client, "COPY q FROM STDIN CSV", good).await.unwrap(), 2);
    assert_eq!(count(&client).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_belongs_to_its_transaction_block() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM q (id BIGINT) PARTITION BY (id) INTO 3 PARTITIONS").await;

    run(&client, "BEGIN").await;
    assert_eq!(copy(&client, "COPY q FROM STDIN", "1\n2\n").await.unwrap(), 2);
    run(&client, "ROLLBACK").await;
    assert_eq!(count(&client).await, 0);

    run(&client, "BEGIN").await;
    assert_eq!(copy(&client, "COPY q FROM STDIN", "3\n4\n").await.unwrap(), 2);
    run(&client, "INSERT INTO q VALUES (5)").await;
    run(&client, "COMMIT").await;
    let rows = numbers::<2>(&client, "SELECT id, _commit FROM q ORDER BY id").await;
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(rows.iter().all(|row| row[1] == rows[0][1]), "one commit: {rows:?}");

    let out = client.copy_out("COPY (SELECT id FROM q ORDER BY id) TO STDOUT CSV HEADER").await.unwrap();
    let out: Vec<Bytes> = out.boxed().try_collect().await.unwrap();
    assert_eq!(out.concat(), b"id\n3\n4\n5\n");

    // Rows copied into a table are read in the block, staged ones too, and go with it.
    run(&client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await;
    run(&client, "BEGIN").await;
    assert_eq!(numbers::<1>(&client, "SELECT count(*) FROM t").await, [[0]]);
    let many: String = (0..20_000).map(|id| format!("{id}\n")).collect();
    assert_eq!(copy(&client, "COPY t FROM STDIN", &many).await.unwrap(), 20_000);
    run(&client, "DELETE FROM t WHERE id >= 10").await;
    assert_eq!(numbers::<1>(&client, "SELECT count(*) FROM t").await, [[10]]);
    run(&client, "ROLLBACK").await;
    assert_eq!(numbers::<1>(&client, "SELECT count(*) FROM t").await, [[0]]);
}
