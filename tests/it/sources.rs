//! Connectors go on exactly where they were, however the server ends.

use std::time::{Duration, Instant};

use rstest::rstest;

use crate::server::{Server, Settings, numbers, run, verify};

const EVENTS: i64 = 200_000;
const BIDS: i64 = EVENTS / 50 * 46;

/// Bids by Nexmark while the server is killed again and again: the same bids, each once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_generator_goes_on_where_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(
        &client,
        &format!(
            "CREATE STREAM bid (auction BIGINT, price BIGINT, date_time TIMESTAMP(3), extra TEXT,
               WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND)
             WITH (connector = 'nexmark', type = 'bid', events = {EVENTS}, rate = 100000)"
        ),
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW core AS SELECT auction, COUNT(*) AS bids, SUM(price) AS total, MAX(price) AS highest, window_start
         FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '1' SECOND)) GROUP BY auction, window_start, window_end",
    )
    .await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        server.kill();
        server.restart();
        server.ready().await;
    }
    let client = server.connect().await;
    let start = Instant::now();
    while numbers::<1>(&client, "SELECT COUNT(*) FROM bid").await != [[BIDS]] {
        assert!(start.elapsed() < Duration::from_secs(60), "the source does not come to its end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The same with nobody interfering.
    run(
        &client,
        &format!(
            "CREATE STREAM undisturbed (auction BIGINT, price BIGINT, date_time TIMESTAMP(3), extra TEXT)
             WITH (connector = 'nexmark', type = 'bid', events = {EVENTS})"
        ),
    )
    .await;
    while numbers::<1>(&client, "SELECT COUNT(*) FROM undisturbed").await != [[BIDS]] {
        assert!(start.elapsed() < Duration::from_secs(120), "the source does not come to its end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Not by event time: it depends on the rate.
    let sums = "COUNT(*), SUM(auction), SUM(price), SUM((_offset + 1) * (auction % 1000)), SUM((_offset + 1) * LENGTH(extra))";
    let disturbed = numbers::<5>(&client, &format!("SELECT {sums} FROM bid")).await;
    let undisturbed = numbers::<5>(&client, &format!("SELECT {sums} FROM undisturbed")).await;
    assert_eq!(disturbed, undisturbed);
    verify(&client, "core").await;
}

#[rstest]
#[case::unknown_connector("WITH (connector = 'kafkaesque')", "22023")]
#[case::unknown_table("WITH (connector = 'nexmark', type = 'bids')", "22023")]
#[case::no_number("WITH (connector = 'nexmark', type = 'bid', events = 'many')", "22023")]
#[case::unknown_column("WITH (connector = 'orders-demo')", "42703")]
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_come_up_when_the_stream_is_made(#[case] options: &str, #[case] state: &str) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    let error = client.simple_query(&format!("CREATE STREAM s (price BIGINT) {options}")).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some(state), "{error}");
}
