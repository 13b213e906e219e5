//! Streams that fall silent: `WITH (idle_timeout = '30 seconds')`.
//!
//! A watermark stands still when no rows come, and holds the last windows open for ever. So when a stream has been silent for its
//! timeout, a commit is written that has no rows and only says how far the watermark has come: as far as time has passed since. Event
//! time is taken to go on with the clock; whoever writes again, with times as far behind the clock as before, is not late.
//!
//! ```text
//!   watermark  ───────────────/  rows ─ ─ ─ ─ ─/ mark ─ ─/ mark ─ ─ ─     mark = watermark + time since the last commit
//! ```
//!
//! The mark is in the log, so all that follows from it is found again by a replay, and no clock is asked. Silence counts while the
//! server runs: what writers could not send while it was down is not made late. After the first mark of a silence the next ones come
//! after a tenth of it, so that long silences cost few commits. A stream without event time gets a commit, no more: that lets
//! commit time pass, and with it close windows on `_ingested_at`.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::compile::idle_timeout;
use super::refresh::Refreshes;
use crate::catalog::{Kind, Relation, RelationId};
use crate::error::SqlState;
use crate::log::{CommitId, Expect, LogHandle, Transaction};
use crate::time::{Clock, Micros};

/// How often the streams are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The part of a silence after which its next mark is written.
const PART: Micros = 10;

/// The watch over silent streams. Dropping it ends it.
pub struct IdleMarks {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl IdleMarks {
    pub fn start(log: LogHandle, clock: Arc<dyn Clock>) -> crate::error::Result<IdleMarks> {
        let stop: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&stop);
        let run = move || {
            let mut refreshes = Refreshes::new(log.clone(), Arc::clone(&clock));
            let mut watch = Watch { started: clock.now(), log, clock, silences: HashMap::new() };
            let (stopped, changed) = &*theirs;
            let mut stopped = stopped.lock();
            while !*stopped {
                parking_lot::MutexGuard::unlocked(&mut stopped, || {
                    watch.look();
                    refreshes.look();
                });
                if !*stopped {
                    changed.wait_for(&mut stopped, LOOK);
                }
            }
        };
        let thread = std::thread::Builder::new().name("idle".into()).spawn(run)?;
        Ok(IdleMarks { stop, thread: Mutex::new(Some(thread)) })
    }

    pub fn stop(&self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the watch over idle streams panicked");
        }
    }
}

impl Drop for IdleMarks {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Watch {
    log: LogHandle,
    clock: Arc<dyn Clock>,
    started: Micros,
    silences: HashMap<RelationId, Silence>,
}

/// What is known of a stream since it was last written to.
struct Silence {
    /// The last commit that touched it, and when that was.
    commit: CommitId,
    at: Micros,
    /// When the silence began: marks go on from the one before, but the silence is one.
    since: Micros,
}

impl Watch {
    fn look(&mut self) {
        let catalog = self.log.catalog();
        self.silences.retain(|id, _| catalog.get(*id).is_some());
        for stream in catalog.relations().filter(|r| r.kind == Kind::Stream) {
            if let Ok(Some(timeout)) = idle_timeout(stream) {
                self.look_at(stream, timeout);
            }
        }
    }

    fn look_at(&mut self, stream: &Relation, timeout: Micros) {
        let Some(head) = self.log.head(stream.id) else { return };
        let heard = self.silences.get(&stream.id).is_some_and(|known| known.commit == head.commit);
        if !heard {
            let Ok(Some(last)) = self.log.reader().commits(head.commit, 1).map(|mut commits| commits.pop()) else { return };
            let at = last.time.max(self.started);
            self.silences.insert(stream.id, Silence { commit: head.commit, at, since: at });
        }
        let now = self.clock.now();
        let silence = &self.silences[&stream.id];
        let passed = now.saturating_sub(silence.at);
        if passed < timeout.max(silence.at.saturating_sub(silence.since) / PART) {
            return;
        }
        let mark = match (&stream.watermark, head.watermark) {
            (Some(_), Some(watermark)) => watermark.saturating_add(passed),
            // There is no event time before the first row.
            (Some(_), None) => return,
            (None, _) => now,
        };
        self.write(stream, head.commit, mark);
    }

    fn write(&mut self, stream: &Relation, after: CommitId, mark: Micros) {
        let expect = Some(Expect { unchanged_since: after, relations: vec![stream.id], catalog: false });
        let mark = Transaction { marks: vec![(stream.id, mark)], expect, ..Transaction::default() };
        match self.log.submit(mark).wait() {
            Ok(written) => {
                if let Some(silence) = self.silences.get_mut(&stream.id) {
                    (silence.commit, silence.at) = (written.commit, written.time);
                }
            }
            // Rows have come meanwhile, or the log takes no more.
            Err(error) if matches!(error.state(), SqlState::SerializationFailure | SqlState::AdminShutdown) => {}
            Err(error) => tracing::warn!(stream = stream.name, %error, "an idle mark could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::schema::PUBLIC;
    use crate::database::{Config, Database};
    use crate::session::Outcome;
    use crate::time::ManualClock;
    use futures::TryStreamExt;

    const SECOND: Micros = 1_000_000;

    async fn count(database: &Arc<Database>, sql: &str) -> usize {
        let mut session = database.session("test");
        let Some(Outcome::Rows(rows)) = session.run(sql).await.unwrap() else { panic!("no rows") };
        rows.batches.try_collect::<Vec<_>>().await.unwrap().iter().map(|rows| rows.num_rows()).sum()
    }

    async fn wait(database: &Arc<Database>, commit: CommitId) {
        tokio::time::timeout(Duration::from_secs(60), database.engine().wait_for(commit)).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn silence_closes_the_last_windows_and_rows_after_it_are_in_time() {
        let start = 1_735_689_600 * SECOND;
        let clock = Arc::new(ManualClock::new(start));
        let (database, _) = Database::open(Config { clock: clock.clone(), ..Config::in_memory() }).unwrap();
        let mut session = database.session("test");
        session
            .run(
                "CREATE STREAM s (n INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (idle_timeout = '30 seconds');
                 CREATE MATERIALIZED VIEW v AS SELECT window_start, COUNT(*) AS c FROM TUMBLE(s, ts, INTERVAL '1' MINUTE)
                 GROUP BY window_start EMIT FINAL;
                 CREATE MATERIALIZED VIEW i AS SELECT window_start, COUNT(*) AS c FROM TUMBLE(s, _ingested_at, INTERVAL '1' MINUTE)
                 GROUP BY window_start EMIT FINAL;
                 INSERT INTO s VALUES (1, '2025-01-01 00:00:10')",
            )
            .await
            .unwrap();
        let written = database.log().end();
        clock.set(start + 29 * SECOND);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(database.log().end(), written, "it is not silent yet");
        clock.set(start + 60 * SECOND);
        wait(&database, written + 1).await;
        let id = database.catalog().find(PUBLIC, "s").unwrap().id;
        assert_eq!(database.log().head(id).unwrap().watermark, Some(start + 65 * SECOND), "5 s behind the row, and 60 s passed");
        assert_eq!(count(&database, "SELECT * FROM v").await, 1);
        assert_eq!(count(&database, "SELECT * FROM i").await, 1, "commit time has passed, too");
        // As far behind the clock as before: in time.
        session.run("INSERT INTO s VALUES (2, '2025-01-01 00:01:10')").await.unwrap();
        assert_eq!(count(&database, "SELECT * FROM \"v$late\"").await, 0);
        clock.set(start + 600 * SECOND);
        wait(&database, written + 3).await;
        assert_eq!(count(&database, "SELECT * FROM v").await, 2);
        for view in ["v", "i"] {
            assert_eq!(count(&database, &format!("VERIFY {view}")).await, if view == "v" { 2 } else { 1 });
        }
        database.close().unwrap();
    }
}
