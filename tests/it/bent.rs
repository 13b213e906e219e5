//! Bytes bent at random, over sockets. Before log-in, to a server with a certificate and a password: whatever comes, it answers or
//! hangs up, goes on, and lets nobody in. After log-in, many sessions at once beside one that means well: whatever they say, each is
//! answered in whole messages and comes to an end, no statement fails for a reason inside of the server, and the one that
//! means well has its answers.
//!
//! ```text
//! TIDEGATE_BENT_ROUNDS=10000 cargo test --test it bent     # more of them
//! TIDEGATE_BENT_SEED=7 …                                   # others
//! ```

mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::number_from_env;
use crate::security::guarded;
use crate::server::{PATIENCE, Server, Settings, numbers, rows, run};
use words::{BEFORE_LOG_IN, CONVERSATIONS, hello, messages};

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

/// All that the server says until it hangs up.
async fn to_the_end(socket: &mut TcpStream, seed: u64) -> Vec<u8> {
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), socket.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "seed {seed} hangs");
    answer
}

async fn converse(port: u16, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    for _ in 0..random.random_range(1..6) {
        let mut word = BEFORE_LOG_IN[random.random_range(0..BEFORE_LOG_IN.len())].to_vec();
        if random.random_bool(0.7) {
            mutate(&mut word, &mut random);
        }
        if socket.write_all(&word).await.is_err() {
            break;
        }
    }
    let answer = to_the_end(&mut socket, seed).await;
    let let_in = answer.windows(9).any(|window| *window == *b"R\0\0\0\x08\0\0\0\0");
    assert!(!let_in, "seed {seed} was let in");
}

/// Logs in, and says some conversations: valid ones, with a bent message here and there. Someone may cancel what it asks.
async fn converse_inside(port: u16, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(&hello()).await.unwrap();
    let key = logged_in(&mut socket).await;
    let mut heard = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let conversation = CONVERSATIONS[random.random_range(0..CONVERSATIONS.len())];
        let mut said = Vec::new();
        for message in messages(conversation) {
            let mut message = message;
            match random.random_range(0..10) {
                0..3 => mutate(&mut message, &mut random),
                3 => said.extend_from_slice(&message),
                4 => continue,
                _ => {}
            }
            said.extend(message);
        }
        if socket.write_all(&said).await.is_err() {
            break;
        }
        if random.random_bool(0.2) {
            cancel(port, &key, &mut random).await;
        }
        // Whoever hangs up is not answered.
        listen(&mut socket, &mut heard).await;
    }
    heard.extend(to_the_end(&mut socket, seed).await);
    check_messages(&heard, seed);
}

/// Hears the server out: until it has been silent for a moment, or has hung up.
async fn listen(socket: &mut TcpStream, heard: &mut Vec<u8>) {
    const SILENCE: Duration = Duration::from_millis(30);
    while let Ok(Ok(1..)) = tokio::time::timeout(SILENCE, socket.read_buf(heard)).await {}
}

/// Reads up to the first ReadyForQuery; the key by which the session is cancelled.
async fn logged_in(socket: &mut TcpStream) -> Vec<u8> {
    let mut key = Vec::new();
    loop {
        let tag = socket.read_u8().await.unwrap();
        let length = socket.read_u32().await.unwrap() as usize - 4;
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        match tag {
            b'K' => key = body,
            b'Z' => return key,
            b'E' => panic!("a session is not let in: {}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
}

async fn cancel(port: u16, key: &[u8], random: &mut SmallRng) {
    let mut request = u32::try_from(key.len() + 8).unwrap().to_be_bytes().to_vec();
    request.extend(80_877_102u32.to_be_bytes());
    request.extend(key);
    if random.random_bool(0.5) {
        mutate(&mut request, random);
    }
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = socket.write_all(&request).await;
    let _ = socket.shutdown().await;
}

/// What the server said is whole messages of the protocol, and no error is one of its own.
fn check_messages(mut said: &[u8], seed: u64) {
    const TAGS: &[u8] = b"123ACDEGHIKNRSTVWZcdnstv";
    while let [tag, a, b, c, d, rest @ ..] = said {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        assert!(TAGS.contains(tag) && length >= 4, "seed {seed}: no message starts with {tag:?} and {length}");
        let Some((body, behind)) = rest.split_at_checked(length - 4) else {
            panic!("seed {seed}: a message of {length} bytes ends early");
        };
        if *tag == b'E' {
            let text = String::from_utf8_lossy(body).replace('\0', " ");
            assert!(!text.contains(" CXX"), "seed {seed}: {text}");
        }
        said = behind;
    }
    assert!(said.is_empty(), "seed {seed}: {said:?} is left over");
}

/// Writes and reads its own rows, and must find each of them, until all others are done.
async fn witness(server: &Server, done: &AtomicBool) -> i64 {
    let client = server.connect().await;
    run(&client, "CREATE TABLE seen (n bigint PRIMARY KEY)").await;
    let mut n = 0;
    while !done.load(Ordering::Relaxed) {
        n += 1;
        let asked = async {
            run(&client, &format!("INSERT INTO seen VALUES ({n})")).await;
            assert_eq!(numbers(&client, "SELECT count(*), max(n) FROM seen").await, [[n, n]]);
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the witness is answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    n
}

/// So many of them, a few at a time.
async fn all<F>(port: u16, rounds: u64, at_once: usize, one: fn(u16, u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let first = number_from_env("TIDEGATE_BENT_SEED", 0);
    let at_once = Arc::new(Semaphore::new(at_once));
    let mut running = tokio::task::JoinSet::new();
    for seed in first..first + rounds {
        let permit = Arc::clone(&at_once).acquire_owned().await.unwrap();
        running.spawn(async move {
            one(port, seed).await;
            drop(permit);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_nobody_is_let_in_and_the_server_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = guarded(directory.path()).await;
    all(server.port(), number_from_env("TIDEGATE_BENT_ROUNDS", 500), 64, converse).await;
    let client = server.connect().await;
    assert_eq!(rows(&client, "SELECT 1").await.len(), 1);
    assert!(!server.printed().contains("panicked"), "{}", server.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_sessions_say_others_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE bent (id int PRIMARY KEY, name text, price numeric(8,2), at timestamp)").await;
    run(&client, "INSERT INTO bent SELECT g, 'name ' || g, g, '2024-01-01' FROM generate_series(1, 50) AS g").await;
    let done = AtomicBool::new(false);
    let bent = async {
        all(server.port(), number_from_env("TIDEGATE_BENT_ROUNDS", 300), 16, converse_inside).await;
        done.store(true, Ordering::Relaxed);
    };
    let (seen, ()) = tokio::join!(witness(&server, &done), bent);
    assert_eq!(numbers(&client, "SELECT count(*) FROM seen").await, [[seen]]);
    assert_eq!(rows(&client, "SELECT 1").await.len(), 1);
    assert!(!server.printed().contains("panicked"), "{}", server.printed());
}
