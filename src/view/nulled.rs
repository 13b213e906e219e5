//! What became NULL because an expression failed, of a query `WITH (on_error = 'null')`.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Error;

/// How often expressions of a running query failed for a row since it was started, and why they did last. A row that is taken
/// back is computed again, and so counts again.
#[derive(Debug)]
pub struct Nulled {
    /// Of the query.
    name: String,
    count: AtomicU64,
    last: Mutex<Option<String>>,
}

impl Nulled {
    /// Nothing has failed yet.
    pub fn new(name: impl Into<String>) -> Nulled {
        Nulled { name: name.into(), count: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// An expression failed for a row. The log hears of the first, the second, the fourth, …
    pub fn record(&self, error: &Error) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        *self.last.lock() = Some(error.message().to_string());
        if count.is_power_of_two() {
            tracing::warn!(query = self.name, count, %error, "an expression failed for a row, and is NULL there");
        }
    }

    /// How often.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Why, the last time.
    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}
