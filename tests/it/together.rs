//! Statements that a client sends together are a transaction: those of one Query message, and those between two Syncs.

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::server::{Server, Settings, rows};

async fn server() -> (tempfile::TempDir, Server, Client) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)").await.unwrap();
    (directory, server, client)
}

async fn values(client: &Client, sql: &str) -> Vec<String> {
    rows(client, sql).await.into_iter().flatten().flatten().collect()
}

/// Whoever wrote last: a session waits for its own writes alone.
async fn all_written(client: &Client) {
    client.batch_execute("FLUSH").await.unwrap();
}

async fn ids(client: &Client) -> Vec<String> {
    values(client, "SELECT id FROM t ORDER BY id").await
}

/// A message: its tag, and what a function writes.
fn message(into: &mut BytesMut, tag: Option<u8>, body: impl FnOnce(&mut BytesMut)) {
    into.extend(tag);
    let start = into.len();
    into.put_i32(0);
    body(into);
    let length = (into.len() - start) as u32;
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn run(into: &mut BytesMut, sql: &str) {
    message(into, Some(b'P'), |body| {
        body.put_u8(0);
        body.put_slice(sql.as_bytes());
        body.put_slice(&[0, 0, 0]);
    });
    message(into, Some(b'B'), |body| body.put_slice(&[0; 8]));
    message(into, Some(b'E'), |body| body.put_slice(&[0; 5]));
}

/// The tags of all messages up to ReadyForQuery, and what that says of the transaction.
async fn answers(socket: &mut TcpStream) -> (String, char) {
    let mut tags = String::new();
    loop {
        let (tag, length) = (socket.read_u8().await.unwrap(), socket.read_u32().await.unwrap());
        let mut body = vec![0; length as usize - 4];
        socket.read_exact(&mut body).await.unwrap();
        match tag {
            b'Z' => return (tags, body[0] as char),
            tag => tags.push(tag as char),
        }
    }
}

/// A session of which each string is a pipeline of statements, parted by semicolons, with one Sync at its end.
async fn pipelines(server: &Server, pipelines: &[&str]) -> Vec<(String, char)> {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let mut bytes = BytesMut::new();
    message(&mut bytes, None, |body| {
        body.put_i32(0x0003_0000);
        body.put_slice(b"user\0tidegate\0\0");
    });
    socket.write_all(&bytes).await.unwrap();
    answers(&mut socket).await;
    let mut all = Vec::new();
    for pipeline in pipelines {
        let mut bytes = BytesMut::new();
        pipeline.split(';').for_each(|sql| run(&mut bytes, sql));
        message(&mut bytes, Some(b'S'), |_| {});
        socket.write_all(&bytes).await.unwrap();
        all.push(answers(&mut socket).await);
    }
    all
}

#[tokio::test]
async fn a_string_of_statements_is_written_whole_or_not_at_all() {
    let (_directory, _server, client) = server().await;
    let error = client.batch_execute("INSERT INTO t VALUES (1, 1); INSERT INTO t VALUES (2, 1); SELECT 1 / 0").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    assert!(ids(&client).await.is_empty());

    client
        .batch_execute("INSERT INTO t VALUES (1, 1); UPDATE t SET v = v + 1; INSERT INTO t SELECT id + 1, v FROM t")
        .await
        .unwrap();
    assert_eq!(values(&client, "SELECT id, v FROM t ORDER BY id").await, ["1", "2", "2", "2"]);
    assert_eq!(values(&client, "SELECT count(*) FROM tidegate.commits WHERE rows = 3").await, ["1"]);

    // What says BEGIN takes what came before with it, and stays open; what says ROLLBACK throws it away.
    client.batch_execute("INSERT INTO t VALUES (3, 1); BEGIN; INSERT INTO t VALUES (4, 1)").await.unwrap();
    assert_eq!(ids(&client).await, ["1", "2", "3", "4"]);
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ids(&client).await, ["1", "2"]);
    client.batch_execute("INSERT INTO t VALUES (3, 1); ROLLBACK; INSERT INTO t VALUES (4, 1)").await.unwrap();
    assert_eq!(ids(&client).await, ["1", "2", "4"]);
    client.batch_execute("INSERT INTO t VALUES (5, 1); COMMIT; INSERT INTO t VALUES (6, 1); SELECT 1 / 0").await.unwrap_err();
    assert_eq!(ids(&client).await, ["1", "2", "4", "5"]);
}

/// What cannot be undone, and what runs on, sees what was written before it.
#[tokio::test]
async fn definitions_part_a_string() {
    let (_directory, _server, client) = server().await;
    let sql =
        "INSERT INTO t VALUES (1, 1); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t; INSERT INTO t VALUES (2, 1);
               CREATE STREAM s (a INT); INSERT INTO s VALUES (1), (2); SELECT * FROM s EMIT CHANGES LIMIT 2; SELECT 1 / 0";
    client.batch_execute(sql).await.unwrap_err();
    assert_eq!(values(&client, "SELECT n FROM v").await, ["2"]);
    assert_eq!(values(&client, "SELECT count(*) FROM s").await, ["2"]);
}

#[tokio::test]
async fn a_pipeline_is_written_whole_or_not_at_all() {
    let (_directory, server, client) = server().await;
    let done = pipelines(
        &server,
        &[
            "INSERT INTO t VALUES (1, 1);INSERT INTO t VALUES (2, 1);SELECT 1 / 0;INSERT INTO t VALUES (3, 1)",
            "INSERT INTO t VALUES (4, 1);SELECT id FROM t",
            "INSERT INTO t VALUES (5, 1);BEGIN;INSERT INTO t VALUES (6, 1)",
            "ROLLBACK",
            "INSERT INTO t VALUES (7, 1)",
        ],
    )
    .await;
    let found: Vec<(&str, char)> = done.iter().map(|(tags, status)| (tags.as_str(), *status)).collect();
    assert_eq!(found, [("12C12C12E", 'I'), ("12C12DC", 'I'), ("12C12C12C", 'T'), ("12C", 'I'), ("12C", 'I')]);
    all_written(&client).await;
    assert_eq!(ids(&client).await, ["4", "7"]);
    // The one commit of a pipeline.
    pipelines(&server, &["INSERT INTO t VALUES (8, 1);INSERT INTO t VALUES (9, 1);INSERT INTO t VALUES (10, 1)"]).await;
    all_written(&client).await;
    assert_eq!(values(&client, "SELECT count(*) FROM tidegate.commits WHERE rows = 3").await, ["1"]);
}

#[tokio::test]
async fn read_only_by_whatever_it_is_said() {
    let (_directory, _server, client) = server().await;
    let refused = async |sql: &str| {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006", "{sql}");
    };
    for set in ["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET default_transaction_read_only = tr"] {
        client.batch_execute(set).await.unwrap();
        refused("INSERT INTO t VALUES (1, 1)").await;
        refused("DELETE FROM t").await;
        refused("CREATE TABLE u (a INT)").await;
        client.batch_execute("BEGIN").await.unwrap();
        refused("INSERT INTO t VALUES (1, 1)").await;
        client.batch_execute("ROLLBACK; BEGIN READ WRITE; INSERT INTO t VALUES (1, 1); ROLLBACK").await.unwrap();
        client.batch_execute("RESET default_transaction_read_only").await.unwrap();
    }
    for begin in ["BEGIN READ ONLY", "BEGIN; SET TRANSACTION READ ONLY", "BEGIN; SET transaction_read_only = on"] {
        client.batch_execute(begin).await.unwrap();
        refused("INSERT INTO t VALUES (1, 1)").await;
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    client.batch_execute("SELECT * FROM t").await.unwrap();
    assert_eq!(client.batch_execute("SET TRANSACTION READ WRITE").await.unwrap_err().code().unwrap().code(), "25001");
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (1, 1)").await.unwrap();
    assert_eq!(ids(&client).await, ["1"]);
}

/// With `synchronous_commit = remote_apply` a write is answered when everybody sees it, as of a pool's connections one writes
/// and another one reads.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_seen_is_seen() {
    let (_directory, server, writer) = server().await;
    let reader = server.connect().await;
    writer.batch_execute("CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n, sum(v) AS v FROM t").await.unwrap();
    let all = || async { values(&reader, "SELECT t.n, sums.n FROM (SELECT count(*) AS n FROM t) AS t, sums").await };
    writer.batch_execute("SET synchronous_commit = remote_apply").await.unwrap();
    for round in 0..100 {
        let (begin, end) = if round % 2 == 0 { ("BEGIN", "COMMIT") } else { ("", "") };
        writer.batch_execute(begin).await.unwrap();
        writer.batch_execute(&format!("INSERT INTO t VALUES ({round}, 1)")).await.unwrap();
        writer.batch_execute(end).await.unwrap();
        let expected = (round + 1).to_string();
        assert_eq!(all().await, [expected.as_str(), &expected]);
    }
    for round in 0..50 {
        let copy = writer.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
        let mut copy = std::pin::pin!(copy);
        futures::SinkExt::send(&mut copy, format!("{}\t1\n", 1000 + round).into()).await.unwrap();
        copy.finish().await.unwrap();
        let expected = (101 + round).to_string();
        assert_eq!(all().await, [expected.as_str(), &expected]);
    }
    let refused = writer.batch_execute("SET synchronous_commit = 'soon'").await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("22023"));
}
