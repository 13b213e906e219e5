//! Queries that wait for time to pass: EMIT CHANGES WITH DELAY, and EMIT FINAL … AND TIMEOUT.
//!
//! A view that is shown with a delay shows what came in a period when a commit says that the period is over ([`crate::flow::refresh`]), and
//! windows with a timeout close when one says that their stream has been silent ([`crate::flow::silence`]). If none comes by itself, one is
//! written here, without rows: only that a producer, the query, has come to that moment. It is in the log, so a replay shows the same
//! without a clock. One is enough until rows come again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Catalog, Emit, Relation, RelationId};
use crate::error::{Result, SqlState};
use crate::log::{CommitId, LogHandle, Transaction, waiting_producer_of};
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
            let waits = matches!(view.emit, Emit::Every(_) | Emit::FinalOrSilent(_));
            if waits
                && let Err(error) = self.look_at(&catalog, view, &mut known)
                && !matches!(error.state(), SqlState::AdminShutdown)
            {
                tracing::warn!(query = view.name, %error, "the moment that a query waits for could not be written");
            }
        }
    }

    fn look_at(&mut self, catalog: &Catalog, view: &Relation, known: &mut HashMap<CommitId, Micros>) -> Result<()> {
        let reads: Vec<RelationId> = match view.emit {
            Emit::Every(_) => catalog.upstream([view.id]).into_iter().collect(),
            _ => view.depends_on.iter().copied().filter(|id| view.output.as_ref().is_none_or(|o| o.target != *id)).collect(),
        };
        let heads = reads.into_iter().filter_map(|id| self.log.head(id));
        let Some(touched) = heads.map(|head| head.commit).max() else { return Ok(()) };
        let Some(touched) = self.time(touched, known)? else { return Ok(()) };
        let end = match view.emit {
            Emit::Every(every) => period_start(every, touched).saturating_add(every),
            Emit::FinalOrSilent(after) => touched.saturating_add(after),
            Emit::Changes | Emit::Final => return Ok(()),
        };
        let is_over = self.time(self.log.end(), known)?.is_none_or(|last| last >= end);
        if is_over || self.clock.now() < end {
            return Ok(());
        }
        let producer = u64::try_from(end).ok().map(|end| (waiting_producer_of(view.id), end));
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
