//! What the oracle writes: a commit of rows that come in and out of order, change and go.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::World;

impl World {
    pub(super) fn value(&mut self, what: &str) -> String {
        if self.rng.random_bool(0.06) {
            return "NULL".into();
        }
        match what {
            "k" => format!("'k{}'", self.rng.random_range(0..4)),
            "n" => self.rng.random_range(-30..30).to_string(),
            "d" => format!("{:.2}", f64::from(self.rng.random_range(-9999..9999)) / 100.0),
            _ => format!("{}", f64::from(self.rng.random_range(-1000..1000)) / 8.0),
        }
    }

    /// One commit.
    pub(super) fn write(&mut self, commit: usize) -> String {
        self.clock.set(1_735_689_600_000_000 + commit as i64 * 1_000_000);
        let rows = self.rng.random_range(1..9);
        match self.rng.random_range(0..14) {
            11 => format!("DELETE FROM r WHERE k = 'k{}'", self.rng.random_range(0..4)),
            12 => format!("UPDATE r SET n = n + 1 WHERE k <> 'k{}'", self.rng.random_range(0..4)),
            13 => {
                let row = |w: &mut World| {
                    let (key, time) = (w.rng.random_range(0..4), w.time().replace("NULL", "'2025-01-01 10:00:00'"));
                    format!("('k{key}', {}, {}, {time})", w.value("n"), w.value("x"))
                };
                format!("INSERT INTO r VALUES {}", self.rows(rows, row))
            }
            0 => format!("DELETE FROM t WHERE id % 3 = {}", self.rng.random_range(0..3)),
            1 => format!("UPDATE t SET n = n + 1, k = {} WHERE id < {}", self.value("k"), self.rng.random_range(0..8)),
            2 => format!(
                "UPDATE p SET n = n - 1 WHERE n > {}; DELETE FROM p WHERE k = {}",
                self.rng.random_range(-10..10),
                self.value("k")
            ),
            3 => format!(
                "INSERT INTO p VALUES {}",
                self.rows(rows, |w| format!("({}, {}, {})", w.value("k"), w.value("n"), w.value("x")))
            ),
            4 | 5 => {
                let row = |w: &mut World| {
                    format!("({}, {}, {}, {})", w.rng.random_range(0..10), w.value("k"), w.value("n"), w.value("x"))
                };
                format!("INSERT INTO t VALUES {}", self.rows(rows, row))
            }
            6 => {
                let (s, p) =
                    (self.stream_rows(rows), self.rows(2, |w| format!("({}, {}, {})", w.value("k"), w.value("n"), w.value("x"))));
                format!("BEGIN; INSERT INTO s VALUES {s}; INSERT INTO p VALUES {p}; COMMIT")
            }
            7 => format!("INSERT INTO q VALUES {}", self.other_rows(rows)),
            _ => format!("INSERT INTO s VALUES {}", self.stream_rows(rows)),
        }
    }

    /// Some of them twice.
    pub(super) fn rows(&mut self, count: usize, row: impl Fn(&mut World) -> String) -> String {
        let rows = (0..count).flat_map(|_| {
            let row = row(self);
            std::iter::repeat_n(row, if self.rng.random_bool(0.1) { 2 } else { 1 })
        });
        rows.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn stream_rows(&mut self, count: usize) -> String {
        self.now += self.rng.random_range(0..9);
        self.rows(count, |w| {
            let time = w.time();
            format!("({}, {}, {}, {}, {time})", w.value("k"), w.value("n"), w.value("d"), w.value("x"))
        })
    }

    pub(super) fn other_rows(&mut self, count: usize) -> String {
        self.rows(count, |w| {
            let time = w.time();
            format!("({}, {}, {}, {time})", w.value("k"), w.value("n"), w.value("x"))
        })
    }

    /// Some early, some a little late, some far too late.
    pub(super) fn time(&mut self) -> String {
        let behind = *[0, 0, 1, 3, 6, 12, 40].choose(&mut self.rng).expect("there are some");
        let at = 36_000 + (self.now - behind).max(0);
        let millis = self.rng.random_range(0..1000);
        match self.rng.random_bool(0.02) {
            true => "NULL".to_string(),
            false => format!("'2025-01-01 {:02}:{:02}:{:02}.{millis:03}'", at / 3600, at / 60 % 60, at % 60),
        }
    }
}
