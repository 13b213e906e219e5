//! The server under a driver that people use.

use futures::{SinkExt, TryStreamExt, pin_mut};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::*;

async fn connect(server: &Running) -> Client {
    let config = format!("host=127.0.0.1 port={} user=tester application_name=driver", server.address.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("the server accepts");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn rows_in_both_protocols() {
    let server = start().await;
    let client = connect(&server).await;
    let rows = client.query("rows 2500", &[]).await.unwrap();
    assert_eq!(rows.len(), 2500);
    assert_eq!((rows[2499].get::<_, i64>(0), rows[2499].get::<_, String>("name")), (2499, "row 2499".to_string()));
    let messages = client.simple_query("rows 2; insert").await.unwrap();
    let text: Vec<_> =
        messages.iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(1) } else { None }).collect();
    assert_eq!(text, ["row 0", "row 1"]);
}

#[tokio::test]
async fn parameters_come_back_as_they_went() {
    let server = start().await;
    let client = connect(&server).await;
    let types = [Type::INT4, Type::TEXT, Type::FLOAT8, Type::BOOL, Type::BYTEA, Type::INT8_ARRAY, Type::INT2];
    let statement = client.prepare_typed("echo 7", &types).await.unwrap();
    assert_eq!(statement.params(), types);
    let row = client
        .query_one(
            &statement,
            &[&-7i32, &"grüß", &f64::MAX, &true, &[0u8, 255].as_slice(), &vec![Some(1i64), None], &None::<i16>],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), -7);
    assert_eq!(row.get::<_, &str>(1), "grüß");
    assert_eq!(row.get::<_, f64>(2), f64::MAX);
    assert!(row.get::<_, bool>(3));
    assert_eq!(row.get::<_, &[u8]>(4), [0, 255]);
    assert_eq!(row.get::<_, Vec<Option<i64>>>(5), [Some(1), None]);
    assert_eq!(row.get::<_, Option<i16>>(6), None);
}

#[tokio::test]
async fn errors_have_their_fields() {
    let server = start().await;
    let client = connect(&server).await;
    let error = client.query("fail", &[]).await.unwrap_err();
    let error = error.as_db_error().expect("the server sent it");
    assert_eq!(
        (error.code().code(), error.message(), error.hint()),
        ("42703", "column \"x\" does not exist", Some("there is \"y\""))
    );
    assert!(client.query("rows 1", &[]).await.is_ok(), "the connection goes on");
}

#[tokio::test]
async fn transactions_with_portals() {
    let server = start().await;
    let client = connect(&server).await;
    client.batch_execute("begin").await.unwrap();
    let statement = client.prepare("rows 10").await.unwrap();
    assert_eq!(statement.columns()[0].type_(), &Type::INT8);
    let rows = client.query(&statement, &[]).await.unwrap();
    assert_eq!(rows.len(), 10);
    client.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn cancel_by_the_driver() {
    let server = start().await;
    let client = connect(&server).await;
    let token = client.cancel_token();
    let (result, _) = tokio::join!(client.query("slow", &[]), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        token.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(result.unwrap_err().code().unwrap().code(), "57014");
}

#[tokio::test]
async fn copies() {
    let server = start().await;
    let client = connect(&server).await;
    let sink = client.copy_in("copy in").await.unwrap();
    pin_mut!(sink);
    for _ in 0..20_000 {
        sink.send(Bytes::from_static(b"one,two\n")).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 20_000);
    assert_eq!(server.copied.lock().len(), 160_000);
    let out = client.copy_out("copy out 50000").await.unwrap();
    let chunks: Vec<Bytes> = out.try_collect().await.unwrap();
    assert_eq!((chunks.len(), &chunks[1][..]), (100_000, b"bc\n".as_slice()));
}

#[tokio::test]
async fn many_requests_at_once() {
    let server = start().await;
    let client = Arc::new(connect(&server).await);
    let requests = (0..200).map(|index| {
        let client = client.clone();
        async move {
            match index % 3 {
                0 => assert_eq!(client.query("rows 3", &[]).await.unwrap().len(), 3),
                1 => assert!(client.query("fail", &[]).await.is_err()),
                _ => assert_eq!(client.query_one("echo 1", &[&"x"]).await.unwrap().get::<_, &str>(0), "x"),
            }
        }
    });
    within(futures::future::join_all(requests)).await;
}
