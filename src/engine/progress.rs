//! How far builds have come, for who asks: `tidegate.backfills`.
//!
//! A build counts the rows that it has replayed. How many there are is asked of the log when somebody looks, because the log
//! grows meanwhile. No result depends on anything in here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::EngineHandle;
use crate::catalog::RelationId;
use crate::catalog::schema::RelationName;
use crate::log::CommitId;

/// A build under way.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// The views that are built together.
    pub views: Vec<RelationName>,
    /// Rows read so far, of all that there are now.
    pub rows: u64,
    pub total: u64,
    /// The commit that it has reached.
    pub commit: CommitId,
    /// How long it has been running.
    pub elapsed: Duration,
}

/// What a build tells of itself.
pub(super) struct Progress {
    views: Vec<RelationName>,
    streams: Vec<RelationId>,
    fed: Vec<RelationId>,
    rows: AtomicU64,
    commit: AtomicU64,
    began: Instant,
}

/// The builds under way, as far as they are still there.
#[derive(Default)]
pub(super) struct ProgressList(Mutex<Vec<Weak<Progress>>>);

impl Progress {
    #[expect(clippy::disallowed_methods, reason = "how long a build has been running changes no result")]
    pub fn new(views: Vec<RelationName>, streams: Vec<RelationId>, fed: Vec<RelationId>) -> Arc<Progress> {
        let (rows, commit) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Progress { views, streams, fed, rows, commit, began: Instant::now() })
    }

    pub fn advance(&self, rows: usize, commit: CommitId) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.commit.store(commit, Ordering::Relaxed);
    }
}

impl ProgressList {
    pub fn add(&self, progress: &Arc<Progress>) {
        let mut list = self.0.lock();
        list.retain(|other| other.strong_count() > 0);
        list.push(Arc::downgrade(progress));
    }
}

impl EngineHandle {
    /// The builds of views under way, the oldest first.
    pub fn backfills(&self) -> Vec<Backfill> {
        let builds: Vec<Arc<Progress>> = self.shared.progress.0.lock().iter().filter_map(Weak::upgrade).collect();
        let snapshot = self.snapshot();
        let in_log = |id: &RelationId| self.shared.log.head(*id).map_or(0, |head| head.next_offsets.iter().sum());
        let kept = |id: &RelationId| snapshot.versions.get(id).map_or(0, |version| version.rows() as u64);
        let backfill = |p: &Arc<Progress>| Backfill {
            views: p.views.clone(),
            rows: p.rows.load(Ordering::Relaxed),
            total: p.streams.iter().map(in_log).sum::<u64>() + p.fed.iter().map(kept).sum::<u64>(),
            commit: p.commit.load(Ordering::Relaxed),
            elapsed: p.began.elapsed(),
        };
        builds.iter().map(backfill).collect()
    }
}
