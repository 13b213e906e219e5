//! Messages bent at random: whatever comes, the connection answers or ends, and never panics or hangs.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::authenticate::Peer;
use super::super::{Authentication, Shared, connection};
use super::*;

/// What a client may well send, one message each.
fn messages() -> Vec<Vec<u8>> {
    let parameters = message(b'B', b"\0e\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x01\xff\xff\xff\xff\0\x01\0\x01");
    let typed = message(b'P', b"e\0echo 2\0\0\x02\0\0\0\x17\0\0\x03\xef");
    vec![
        query("rows 3; begin; rows 1"),
        query("fail"),
        query("commit"),
        query("copy in"),
        message(b'd', b"a,b\n"),
        message(b'c', b""),
        message(b'f', b"no\0"),
        query("copy out 3"),
        typed,
        parameters,
        parse("s", "rows 7"),
        parse("", "copy in"),
        bind("p", "s"),
        message(b'D', b"Pp\0"),
        message(b'D', b"Se\0"),
        execute("p", 3),
        execute("", 0),
        message(b'C', b"Ss\0"),
        message(b'H', b""),
        sync(),
        sync(),
    ]
}

/// The messages of SCRAM-SHA-256, with a proof that is none.
fn answers_to_the_question() -> Vec<Vec<u8>> {
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let first = [b"SCRAM-SHA-256\0".as_slice(), &(first.len() as u32).to_be_bytes(), first].concat();
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    vec![message(b'p', &first), message(b'p', last)]
}

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

/// One life of a connection: true if it ended by itself or at the end of input, false if it hung.
async fn converse(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let asks = random.random_bool(0.2);
    let authentication = if asks { Authentication::Scram } else { Authentication::Trust };
    let options = Options { authentication, ..Options::loopback("") };
    let shared = Shared::new(&options, Arc::new(Fake::default()), QUERIES.handle().clone());
    let shared = Arc::new(shared.expect("there is no certificate that could be unusable"));
    let arrival = shared.arrive(None).unwrap();
    let (client, server) = tokio::io::duplex(1 << 12);
    let serving = tokio::spawn(connection::serve(shared.clone(), server, Peer::default(), arrival));

    let mut sent = b"\0\0\0\x13\0\x03\0\0user\0tester\0\0".to_vec();
    sent[3] = sent.len() as u8;
    let untouched = random.random_bool(0.9);
    if !untouched {
        mutate(&mut sent, &mut random);
    }
    for word in if asks { answers_to_the_question() } else { Vec::new() } {
        let mut word = word;
        mutate(&mut word, &mut random);
        sent.extend(word);
    }
    let choices = messages();
    for _ in 0..random.random_range(1..20) {
        let mut next = choices[random.random_range(0..choices.len())].clone();
        if random.random_bool(0.3) {
            mutate(&mut next, &mut random);
        }
        sent.extend(next);
    }
    let (mut answers, mut requests) = tokio::io::split(client);
    let listen = tokio::spawn(async move {
        let mut all = Vec::new();
        // Ends when the server closes the connection.
        let _ = answers.read_to_end(&mut all).await;
        all
    });
    let _ = requests.write_all(&sent).await;
    let _ = requests.shutdown().await;
    let answered = async {
        serving.await.expect("the connection does not panic");
        listen.await.expect("the client listens to the end")
    };
    let answers = tokio::time::timeout(Duration::from_secs(10), answered).await;
    let answers = answers.unwrap_or_else(|_| panic!("seed {seed} hangs"));
    check_framing(&answers, seed);
    // The session has ended, and without a fault of ours.
    let all = crate::limits::CONNECTIONS as u32;
    let ended = tokio::time::timeout(Duration::from_secs(10), shared.sessions.acquire_many(all)).await;
    assert!(ended.is_ok(), "seed {seed} leaves a session behind");
}

/// Whatever was asked, the answers are whole messages, but for the last, and none is an internal error.
fn check_framing(mut answers: &[u8], seed: u64) {
    while let Some(length) = answers.get(1..5) {
        let length = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(message) = answers.get(..length) else { return };
        assert!(b"RSKZTDC123tnsIENvGHcd".contains(&message[0]), "seed {seed}: {message:?}");
        if message[0] == b'E' {
            assert_ne!(show(b'E', &message[5..]), "E:XX000", "seed {seed}");
        }
        answers = &answers[length..];
    }
}

#[tokio::test]
async fn bent_messages() {
    let rounds = std::env::var("TIDEGATE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2_000);
    for seed in 0..rounds {
        converse(seed).await;
    }
}
