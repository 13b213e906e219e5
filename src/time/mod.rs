//! Time: instants as numbers, and who may read a clock.
//!
//! An instant is an `i64` of microseconds since 1970-01-01 00:00 UTC, the unit of PostgreSQL's and our own columns. Nothing
//! that decides a result reads a clock: commits carry their time, and all else is computed from the log. The only reader of
//! the machine's clock is [`SystemClock`], handed in at the edge.

pub mod window;
pub mod zone;

use arrow::datatypes::{DataType, TimeUnit};

/// Microseconds since the Unix epoch, UTC.
pub type Micros = i64;

/// "No time yet": the watermark of a stream without rows. Smaller than every event time.
pub const NO_TIME: Micros = i64::MIN;

/// 2000-01-01, from where PostgreSQL counts: days since the Unix epoch.
pub const POSTGRES_EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
pub const POSTGRES_EPOCH: Micros = POSTGRES_EPOCH_DAYS as Micros * window::DAY;

/// The type of all instants without a time zone in streams and tables.
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Is it the type of an instant, with the time zone of the session or without one? The values are the same: microseconds of UTC.
pub fn is_instant(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => zone.as_deref().is_none_or(|zone| ["UTC", "+00:00"].contains(&zone)),
        _ => false,
    }
}

/// Is it the type of an instant that is shown in a time zone?
pub fn is_zoned(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, Some(_)))
}

/// When the period began that `now` lies in, of those that are so long and begin at whole multiples of it.
pub fn period_start(every: Micros, now: Micros) -> Micros {
    now.div_euclid(every).saturating_mul(every)
}

/// Where commit times come from. The committer makes them monotone; the clock need not be.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Micros;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    fn now(&self) -> Micros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is set: tests and the simulator.
#[derive(Default)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    pub fn new(now: Micros) -> ManualClock {
        ManualClock(std::sync::atomic::AtomicI64::new(now))
    }

    pub fn set(&self, now: Micros) {
        self.0.store(now, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}
