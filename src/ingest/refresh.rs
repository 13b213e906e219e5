//! Views that owe what they have gathered: EMIT CHANGES WITH DELAY.
//!
//! Such a view shows what came in a period when a commit says that the period is over ([`crate::flow::refresh`]). If none comes by
//! itself, one is written here, without rows: only that a producer, the view, has come to the end of the period. It is in the log, so a
//! replay shows the same without a clock. One is enough until rows come again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Catalog, Emit, Relation};
use crate::error::{Result, SqlState};
use crate::log::{CommitId, LogHandle, Transaction, producer_of};
use crate::time::{Clock, Micros, period_start};

pub(super) struct Refreshes {
    log: LogHandle,
    clock: Arc<dyn Clock>,
    /// Times of the commits that were asked for last.
    times: HashMap<CommitId, Micros>,
}

impl Refreshes {
    pub fn new(log: LogHandle, clock: Arc<dyn Clock>) -> Refreshes {
        Refreshes { log, clock, times: HashMap::new() }
    }

    pub fn look(&mut self) {
        let catalog = self.log.catalog();
        let mut known = std::mem::take(&mut self.times);
        for view in catalog.relations() {
            if let Emit::Every(every) = view.emit
                && let Err(error) = self.look_at(&catalog, view, every, &mut known)
                && !matches!(error.state(), SqlState::AdminShutdown)
            {
                tracing::warn!(view = view.name, %error, "the end of a view's period could not be written");
            }
        }
    }

    fn look_at(
        &mut self,
        catalog: &Catalog,
        view: &Relation,
        every: Micros,
        known: &mut HashMap<CommitId, Micros>,
    ) -> Result<()> {
        let heads = catalog.upstream([view.id]).into_iter().filter_map(|id| self.log.head(id));
        let Some(touched) = heads.map(|head| head.commit).max() else { return Ok(()) };
        let ends = |time: Micros| period_start(every, time).saturating_add(every);
        let Some(end) = self.time(touched, known)?.map(ends) else { return Ok(()) };
        let is_over = self.time(self.log.end(), known)?.is_none_or(|last| last >= end);
        if is_over || self.clock.now() < end {
            return Ok(());
        }
        let producer = u64::try_from(end).ok().map(|end| (producer_of(view.id), end));
        self.log.submit(Transaction { producer, ..Transaction::default() }).wait().map(drop)
    }

    fn time(&mut self, commit: CommitId, known: &mut HashMap<CommitId, Micros>) -> Result<Option<Micros>> {
        let time = match known.get(&commit).or_else(|| self.times.get(&commit)) {
            Some(time) => Some(*time),
            None => self.log.reader().commits(commit, 1)?.pop().map(|record| record.time),
        };
        self.times.extend(time.map(|time| (commit, time)));
        Ok(time)
    }
}
