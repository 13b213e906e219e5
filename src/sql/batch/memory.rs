//! The memory of queries: a bound for each, within one for all.
//!
//! Operators that keep rows (sorts, hash tables) reserve what they take. Nothing is spilled to disk: a query that needs more
//! fails, and says so; others are not touched.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::error::Result;

/// A bound on the memory of all queries together.
pub fn runtime(memory_bytes: usize) -> Result<Arc<RuntimeEnv>> {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let pool = Arc::new(FairSpillPool::new(memory_bytes));
    Ok(RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(no_disk).build_arc()?)
}

/// A bound on the memory of one query, which is also within that of all.
pub fn runtime_of_query(all: &RuntimeEnv, memory_bytes: usize) -> Arc<RuntimeEnv> {
    let pool = QueryPool { all: Arc::clone(&all.memory_pool), limit: memory_bytes, used: AtomicUsize::new(0) };
    Arc::new(RuntimeEnv { memory_pool: Arc::new(pool), ..all.clone() })
}

/// The memory of one query.
#[derive(Debug)]
struct QueryPool {
    all: Arc<dyn MemoryPool>,
    limit: usize,
    used: AtomicUsize,
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &'static str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        let within = |used: usize| used.checked_add(additional).filter(|used| *used <= self.limit);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            let message = format!("it may take {}", human_size(self.limit));
            return Err(DataFusionError::ResourcesExhausted(message));
        }
        self.all.try_grow(reservation, additional).map_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            let message = match self.all.memory_limit() {
                MemoryLimit::Finite(limit) => format!("all statements together may take {}", human_size(limit)),
                _ => "no statement may take more now".to_string(),
            };
            DataFusionError::ResourcesExhausted(message)
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} for one query", human_size(self.reserved()), human_size(self.limit))
    }
}

/// In the largest unit that divides it, as PostgreSQL shows sizes.
pub fn human_size(bytes: usize) -> String {
    const UNITS: [(usize, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match UNITS.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None if bytes == 0 => "0".to_string(),
        None => format!("{bytes}B"),
    }
}
