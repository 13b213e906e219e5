//! `kill -9` at random moments, while four writers write.
//!
//! The page cache survives a killed process, so this cannot show a missing fsync; `power_cut` does. It shows everything else:
//! acknowledging what was not handed over, replaying a commit twice or not at all, half a transaction.
//!
//! ```text
//! TIDEGATE_KILL_ROUNDS=200 TIDEGATE_KILL_SEED=7 cargo test --test it kill
//! ```

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Ledger;
use crate::server::{Server, Settings};
use crate::{number_from_env, say};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_doubled() {
    let rounds = number_from_env("TIDEGATE_KILL_ROUNDS", 50);
    let seed = number_from_env("TIDEGATE_KILL_SEED", 1);
    say(&format!("kill: {rounds} rounds of seed {seed}"));
    let mut random = SmallRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    // Many checkpoints, so that kills fall into them too.
    let environment = vec![("TIDEGATE_CHECKPOINT_INTERVAL", "100ms".to_string())];
    let mut server = Server::start(directory.path(), Settings { environment, ..Settings::default() }).await;
    let mut ledger = Ledger::new(seed);
    ledger.set_up(&server).await;
    for round in 1..=rounds {
        let writers = ledger.write(&server).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(20..700))).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error}"));
        }
        server.restart();
        // One time in four it does not even get to finish its recovery, and perhaps not the next time either.
        while random.random_range(0..4) == 0 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
            server.kill();
            server.restart();
        }
        server.ready().await;
        ledger.check(&server, ledger.promised()).await;
    }
    say(&format!("kill: {rounds} rounds of seed {seed}, {} transactions acknowledged, none lost", ledger.acknowledged()));
}
