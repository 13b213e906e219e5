//! Examples of the literature that need a clock or a restart of their own; the others are in `tests/slt`
//! (`windows/lateness.slt`, `views/examples_of_the_field.slt`) and in [`super::transfers`].

use std::sync::Arc;

use tidegate::database::{Config, Database};
use tidegate::session::Client;
use tidegate::time::ManualClock;
use tidegate::{log, state};

use super::local::{differences, execute, numbers};

/// 2025-01-01 23:00, in microseconds.
const ELEVEN: i64 = 1_735_772_400_000_000;
const MINUTE: i64 = 60_000_000;

struct World {
    log: log::memory::Disk,
    state: state::memory::Disk,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> World {
        World {
            log: log::memory::Disk::default(),
            state: state::memory::Disk::default(),
            clock: Arc::new(ManualClock::new(ELEVEN)),
        }
    }

    fn open(&self) -> (Arc<Database>, Client) {
        let config = Config { clock: self.clock.clone(), ..Config::in_memory() };
        let log = Box::new(self.log.open().unwrap());
        let (database, _) = Database::open_with(log, Box::new(self.state.open()), config).unwrap();
        let session = database.session("literature");
        (database, session)
    }
}

/// Keys u7, u8, u7 in three partitions: the rows of u7 are neighbours in one partition, in order, and a restart changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_key_are_neighbours_also_after_a_restart() {
    let world = World::new();
    let places = "SELECT _partition, _offset, n FROM visits ORDER BY n";
    let (database, mut session) = world.open();
    let create = "CREATE STREAM visits (visitor TEXT, n INT) PARTITION BY (visitor) INTO 3 PARTITIONS";
    execute(&mut session, "case 2", create).await;
    execute(&mut session, "case 2", "INSERT INTO visits VALUES ('u7', 1), ('u8', 2), ('u7', 3)").await;
    let before = numbers::<3>(&mut session, "case 2", places).await;
    let [u7, u8] = [before[0][0], before[1][0]];
    assert_ne!(u7, u8, "the hash of a key is fixed, and these two differ in it");
    assert_eq!(before, [[u7, 0, 1], [u8, 0, 2], [u7, 1, 3]]);
    drop(session);
    database.close().unwrap();

    let (_database, mut session) = world.open();
    assert_eq!(numbers::<3>(&mut session, "case 2", places).await, before);
    execute(&mut session, "case 2", "INSERT INTO visits VALUES ('u7', 4)").await;
    let after = numbers::<3>(&mut session, "case 2", places).await;
    assert_eq!(after, [[u7, 0, 1], [u8, 0, 2], [u7, 1, 3], [u7, 2, 4]]);
}

/// An event of 23:58 that is committed at 00:03: by its own time it is of the last hour of the day, by its arrival of the next
/// day. The watermark is five minutes behind, so that it is in time.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_belongs_to_its_own_hour_or_to_that_of_its_arrival() {
    let world = World::new();
    let (_database, mut session) = world.open();
    let views = "
        CREATE STREAM events (id INT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' MINUTE);
        CREATE MATERIALIZED VIEW by_event AS SELECT window_start, COUNT(*) AS n
          FROM TUMBLE(events, at, INTERVAL '1 hour') GROUP BY window_start, window_end;
        CREATE MATERIALIZED VIEW by_arrival AS SELECT window_start, COUNT(*) AS n
          FROM TUMBLE(events, _ingested_at, INTERVAL '1 hour') GROUP BY window_start, window_end;";
    execute(&mut session, "case 3", views).await;
    // Others were on time, and the last of them brings the watermark to 23:57.
    world.clock.set(ELEVEN + 62 * MINUTE);
    execute(&mut session, "case 3", "INSERT INTO events VALUES (1, '2025-01-02 00:02:00')").await;
    world.clock.set(ELEVEN + 63 * MINUTE);
    execute(&mut session, "case 3", "INSERT INTO events VALUES (2, '2025-01-01 23:58:00')").await;

    let hours = |view: &str| format!("SELECT CAST(extract(hour FROM window_start) AS INT), n FROM {view} ORDER BY window_start");
    assert_eq!(numbers::<2>(&mut session, "case 3", &hours("by_event")).await, [[23, 1], [0, 1]]);
    assert_eq!(numbers::<2>(&mut session, "case 3", &hours("by_arrival")).await, [[0, 2]]);
    let late = "SELECT COUNT(*) FROM by_event$late";
    assert_eq!(numbers::<1>(&mut session, "case 3", late).await, [[0]], "five minutes are enough");
    for view in ["by_event", "by_arrival"] {
        assert_eq!(differences(&mut session, "case 3", view).await, None);
    }
}
