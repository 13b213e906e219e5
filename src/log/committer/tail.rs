//! The newest commits, decoded: what the engine reads of a live log.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::limits;
use crate::log::record::bytes_of;
use crate::log::{Commit, CommitId};

/// Consecutive commits up to the log's end, as many as fit in [`limits::TAIL_BYTES`].
#[derive(Default)]
pub(super) struct Tail(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    /// `None`: not all of its rows were in memory when it was committed.
    commits: VecDeque<(Option<Arc<Commit>>, usize)>,
    /// Of the last in `commits`.
    last: CommitId,
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&self, id: CommitId, commit: Option<Arc<Commit>>) {
        // A commit costs something even without rows.
        let bytes = 512 + commit.iter().flat_map(|c| &c.batches).map(|b| 512 + bytes_of(&b.rows)).sum::<usize>();
        let mut inner = self.0.write();
        inner.commits.push_back((commit, bytes));
        inner.last = id;
        inner.bytes += bytes;
        while inner.bytes > limits::TAIL_BYTES
            && let Some((_, bytes)) = inner.commits.pop_front()
        {
            inner.bytes -= bytes;
        }
    }

    pub(super) fn get(&self, id: CommitId) -> Option<Arc<Commit>> {
        let inner = self.0.read();
        let back = usize::try_from(inner.last.checked_sub(id)?).ok()?;
        let at = inner.commits.len().checked_sub(back + 1)?;
        inner.commits.get(at)?.0.clone()
    }
}
