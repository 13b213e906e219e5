//! The disk is full: writes are refused with a name for it, what was acknowledged stays, reads go on, and with room again so do
//! writes. Needs root, to mount a small RAM disk.

use bytes::Bytes;
use futures::SinkExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use crate::power_cut::command;
use crate::say;
use crate::server::{Server, Settings, numbers, run, verify};

/// The server keeps 64 MiB of it in reserve.
const DISK_SIZE: &str = "160m";
const BALLAST: usize = 48 << 20;
const ROWS: usize = 1000;

/// A RAM disk; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Result<SmallDisk, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        command("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_SIZE}"), "tmpfs", &folder.path().to_string_lossy()])?;
        Ok(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server that was just killed may hold it for a moment longer.
        if let Err(error) = command("umount", &["-l", &self.0.path().to_string_lossy()]) {
            say(&format!("full disk: {error}"));
        }
    }
}

/// One COPY of rows that do not compress.
async fn load(client: &Client, random: &mut SmallRng, first: usize) -> Result<u64, tokio_postgres::Error> {
    let mut text = String::new();
    for number in first..first + ROWS {
        let noise: String = (0..500).map(|_| char::from(random.random_range(b'0'..=b'z')).to_ascii_lowercase()).collect();
        text.push_str(&format!("{number}\t{}\n", noise.replace('\\', "x")));
    }
    let sink = client.copy_in::<_, Bytes>("COPY big FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(text)).await?;
    sink.finish().await
}

async fn check(client: &Client, rows: usize) {
    let found = numbers::<2>(client, "SELECT COUNT(*), COUNT(DISTINCT number) FROM big").await;
    assert_eq!(found, [[rows as i64, rows as i64]], "acknowledged rows");
    assert_eq!(numbers::<1>(client, "SELECT COALESCE(SUM(n), 0) FROM counted").await, [[rows as i64]]);
    verify(client, "counted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_and_nothing_acknowledged_is_lost() {
    let disk = match SmallDisk::new() {
        Ok(disk) => disk,
        Err(reason) => return say(&format!("full disk: SKIPPED, {reason}")),
    };
    let mut random = SmallRng::seed_from_u64(1);
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let mut server = Server::start(disk.0.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE STREAM big (number BIGINT, noise TEXT)").await;
    run(&client, "CREATE MATERIALIZED VIEW counted AS SELECT number % 10 AS k, COUNT(*) AS n FROM big GROUP BY number % 10")
        .await;

    let mut rows = 0;
    let refused = loop {
        match load(&client, &mut random, rows).await {
            Ok(_) => rows += ROWS,
            Err(error) => break error,
        }
        assert!(rows < 1_000_000, "the disk is never full");
    };
    let refused = refused.as_db_error().expect("an answer, not a broken connection");
    assert_eq!(refused.code().code(), "53100", "{refused:?}");
    assert!(refused.message().contains("full") && refused.hint().is_some(), "{refused:?}");
    assert!(rows > 0, "refused before anything was written");
    // It says so again, to INSERT as well; and what is there can be read.
    let again = client.simple_query("INSERT INTO big VALUES (-1, 'no')").await.expect_err("there is no room");
    assert_eq!(again.code().map(|code| code.code()), Some("53100"), "{again:?}");
    check(&client, rows).await;

    std::fs::remove_file(&ballast).unwrap();
    load(&client, &mut random, rows).await.expect("there is room again");
    rows += ROWS;
    check(&client, rows).await;
    server.kill();
    server.restart();
    server.ready().await;
    check(&server.connect().await, rows).await;
    say(&format!("full disk: refused with 53100 after {} rows, which are all there", rows - ROWS));
}
