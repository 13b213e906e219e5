//! A client in Rust: any Postgres driver will do, here tokio-postgres.
//!
//! ```text
//! cargo run --release                          # the server, in another terminal
//! cargo run --example rust_client
//! ```
//!
//! It makes a stream and a view, inserts with parameters, reads, and follows the view's changes in two ways: through a cursor,
//! and through COPY. Another address: `cargo run --example rust_client -- "host=… port=… user=… dbname=…"`.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

const SETUP: &str = "
    DROP MATERIALIZED VIEW IF EXISTS sales;
    DROP STREAM IF EXISTS receipts;
    CREATE STREAM receipts (shop TEXT, amount DOUBLE PRECISION, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' SECOND)
        PARTITION BY (shop) INTO 2 PARTITIONS;
    CREATE MATERIALIZED VIEW sales AS
        SELECT window_start, shop, COUNT(*) AS receipts, SUM(amount) AS total
        FROM TABLE(TUMBLE(TABLE receipts, DESCRIPTOR(at), INTERVAL '1' MINUTE))
        GROUP BY window_start, window_end, shop;
";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1);
    run(address.as_deref().unwrap_or("host=127.0.0.1 port=6433 user=tidegate dbname=tidegate")).await
}

pub async fn run(address: &str) -> Result<(), Error> {
    let client = connect(address).await?;
    client.batch_execute(SETUP).await?;

    // Parameters are typed by the columns they go to. The answer comes when the rows are on disk.
    let insert = client.prepare("INSERT INTO receipts VALUES ($1, $2, now())").await?;
    for (shop, amount) in [("north", 12.5), ("south", 3.0), ("north", 7.25)] {
        client.execute(&insert, &[&shop, &amount]).await?;
    }

    // A session sees its own writes: the view has them.
    let rows = client.query("SELECT shop, SUM(receipts)::BIGINT, SUM(total) FROM sales GROUP BY shop ORDER BY shop", &[]).await?;
    for row in rows {
        let (shop, receipts, total): (&str, i64, f64) = (row.get(0), row.get(1), row.get(2));
        println!("{shop}: {receipts} receipts, {total}");
    }

    // Somebody goes on selling while we watch.
    let seller = connect(address).await?;
    let selling = tokio::spawn(async move {
        let insert = seller.prepare("INSERT INTO receipts VALUES ('west', $1, now())").await?;
        for amount in 1..=20 {
            seller.execute(&insert, &[&f64::from(amount)]).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Error>(())
    });
    follow_with_a_cursor(&client).await?;
    follow_with_copy(&client).await?;
    selling.await.expect("the seller does not panic")
}

/// A session. Its connection works in the background until the client is dropped.
async fn connect(address: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("connection: {error}");
        }
    });
    Ok(client)
}

/// FETCH returns what has changed, or waits for it up to the time-out. An update is a row with diff -1 and one with +1, of one
/// commit. The number of the commit is where another SUBSCRIBE can go on: `AS OF`.
async fn follow_with_a_cursor(client: &Client) -> Result<(), Error> {
    client.batch_execute("BEGIN; DECLARE changes CURSOR FOR SUBSCRIBE sales").await?;
    for _ in 0..5 {
        for message in client.simple_query("FETCH 100 FROM changes WITH (timeout = '500ms')").await? {
            if let SimpleQueryMessage::Row(row) = message {
                let column = |name| row.get(name).unwrap_or("NULL");
                println!("commit {} {:>2}: {} {}", column("commit"), column("diff"), column("shop"), column("total"));
            }
        }
    }
    client.batch_execute("CLOSE changes; COMMIT").await
}

/// COPY of a SUBSCRIBE never ends by itself: take what is wanted and drop it.
async fn follow_with_copy(client: &Client) -> Result<(), Error> {
    let stream = client.copy_out("COPY (SUBSCRIBE sales) TO STDOUT").await?;
    let mut lines = pin!(stream.take(3));
    while let Some(line) = lines.next().await {
        print!("copy: {}", String::from_utf8_lossy(&line?));
    }
    client.cancel_token().cancel_query(NoTls).await
}
