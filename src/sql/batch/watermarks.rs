//! The watermark before each commit, of several streams together.
//!
//! A batch's header holds the watermark of its own stream; where streams are unioned, the least of theirs counts, and the log's
//! commits tell it.

use crate::catalog::RelationId;
use crate::error::Result;
use crate::log::{CommitId, CommitRecord, LogReader};
use crate::time::{Micros, NO_TIME};

/// Commits read at once.
const PORTION: usize = 1024;

/// The least of some streams' watermarks, as it moved.
#[derive(Debug)]
pub struct Watermarks {
    /// The value after a commit, for the commits that changed it; ascending.
    steps: Vec<(CommitId, Micros)>,
}

impl Watermarks {
    pub fn read(log: &dyn LogReader, streams: &[RelationId], upto: CommitId) -> Result<Watermarks> {
        let mut each = vec![NO_TIME; streams.len()];
        Watermarks::after_each(log, upto, |commit| {
            for (relation, watermark) in &commit.watermarks {
                if let Some(index) = streams.iter().position(|stream| stream == relation) {
                    each[index] = *watermark;
                }
            }
            each.iter().copied().min().unwrap_or(NO_TIME)
        })
    }

    /// Of one stream, where its silences count too: after one so long, the greatest event time until then is brought to `reached`.
    /// What ends a silence before another commit has shown it is in time.
    pub fn with_silences(
        log: &dyn LogReader,
        stream: RelationId,
        after: Micros,
        upto: CommitId,
        reached: impl Fn(Micros) -> Micros,
    ) -> Result<Watermarks> {
        let (mut now, mut heard, mut newest) = (NO_TIME, None, None);
        Watermarks::after_each(log, upto, |commit| {
            let marks = commit.watermarks.iter().filter(|(relation, _)| *relation == stream);
            now = marks.map(|(_, watermark)| *watermark).fold(now, Micros::max);
            let rows = || commit.batches.iter().map(|batch| &batch.header).filter(|header| header.relation == stream);
            if rows().next().is_some() {
                heard = Some(commit.time);
                newest = newest.max(rows().filter_map(|header| header.event_times).map(|(_, last)| last).max());
            } else if heard.is_some_and(|heard| commit.time - heard >= after) {
                now = newest.map_or(now, |newest| now.max(reached(newest)));
            }
            now
        })
    }

    /// Read the commits; `watermark` says what it is after each.
    fn after_each(log: &dyn LogReader, upto: CommitId, mut watermark: impl FnMut(&CommitRecord) -> Micros) -> Result<Watermarks> {
        let mut steps: Vec<(CommitId, Micros)> = Vec::new();
        let mut from = 1;
        while from <= upto {
            let commits = log.commits(from, PORTION)?;
            let Some(last) = commits.last() else { break };
            from = last.id + 1;
            for commit in commits.iter().take_while(|commit| commit.id <= upto) {
                let value = watermark(commit);
                if value != steps.last().map_or(NO_TIME, |(_, last)| *last) {
                    steps.push((commit.id, value));
                }
            }
        }
        Ok(Watermarks { steps })
    }

    pub fn before(&self, commit: CommitId) -> Micros {
        let earlier = self.steps.partition_point(|(id, _)| *id < commit);
        earlier.checked_sub(1).map_or(NO_TIME, |last| self.steps[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_judged_by_those_before_it() {
        let watermarks = Watermarks { steps: vec![(3, 10), (5, 20)] };
        assert_eq!([1, 3, 4, 5, 6].map(|commit| watermarks.before(commit)), [NO_TIME, NO_TIME, 10, 10, 20]);
    }
}
