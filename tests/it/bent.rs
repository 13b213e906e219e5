//! Bytes bent at random, over sockets, to a server with a certificate and a password: whatever comes, it answers or hangs up,
//! goes on, and lets nobody in.
//!
//! ```text
//! TIDEGATE_BENT_ROUNDS=10000 cargo test --test it bent     # more of them
//! TIDEGATE_BENT_SEED=7 …                                   # others
//! ```

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::number_from_env;
use crate::security::guarded;
use crate::server::rows;

/// What clients say before they are let in.
const WORDS: [&[u8]; 9] = [
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\0\0\x08\x04\xd2\x16\x30",
    b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\x01\x02\x03\x04",
    b"\0\0\0\x17\0\x03\0\0user\0tidegate\0\0",
    b"\0\0\0\x2b\0\x03\0\0user\0tidegate\0options\0-c geqo=off\0\0",
    b"p\0\0\0\x37SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=rOprNGfwEbeRWgbNEkqOabcde",
    b"p\0\0\0\x5cc=biws,r=rOprNGfwEbeRWgbNEkqOabcde,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"\x16\x03\x01\0\x2f\x01\0\0\x2b\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0\x04\x13\x01\x13\x02\x01\0",
    b"Q\0\0\0\x0dSELECT 1\0",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    for _ in 0..random.random_range(0..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
}

async fn converse(port: u16, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    for _ in 0..random.random_range(1..6) {
        let mut word = WORDS[random.random_range(0..WORDS.len())].to_vec();
        if random.random_bool(0.7) {
            mutate(&mut word, &mut random);
        }
        if socket.write_all(&word).await.is_err() {
            break;
        }
    }
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), socket.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "seed {seed} hangs");
    let let_in = answer.windows(9).any(|window| *window == *b"R\0\0\0\x08\0\0\0\0");
    assert!(!let_in, "seed {seed} was let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_nobody_is_let_in_and_the_server_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    let (first, rounds) = (number_from_env("TIDEGATE_BENT_SEED", 0), number_from_env("TIDEGATE_BENT_ROUNDS", 500));
    let at_once = Arc::new(Semaphore::new(64));
    let mut running = tokio::task::JoinSet::new();
    for seed in first..first + rounds {
        let permit = Arc::clone(&at_once).acquire_owned().await.unwrap();
        let port = server.port();
        running.spawn(async move {
            converse(port, seed).await;
            drop(permit);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT 1").await.len(), 1);
    assert!(!server.printed().contains("panicked"), "{}", server.printed());
}
