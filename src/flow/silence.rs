//! Windows that close because nothing comes: EMIT FINAL … AND TIMEOUT.
//!
//! ```text
//!   commits   rows ── rows ────────────────────── other ──── rows        timeout 10 s
//!                      └─ 10 s and more of silence ─┘ all windows that held a row until then are closed from here on
//! ```
//!
//! The watermark of a stream stands still when no rows come. A query that says AND TIMEOUT has a frontier of its own: the watermark,
//! or, once a commit without rows of the stream shows that it has been silent for so long, the end of the last window that one of
//! its rows lies in. Only commits count, so a replay finds the same silences; rows that end a silence before a commit has shown it are
//! in time, which is what a server that was down needs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};

use crate::catalog::RelationId;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::log::Commit;
use crate::state::StateTable;
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME, TIMESTAMP};

/// The windows that a silence closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    Windows(Windows),
    /// Sessions with this gap.
    Gap(Micros),
}

impl Closing {
    /// The end of the last window that a row of this time lies in.
    pub fn end(self, time: Micros) -> Micros {
        match self {
            Closing::Windows(windows) => windows.last(time).1,
            Closing::Gap(gap) => time.saturating_add(gap),
        }
    }
}

/// When a query's windows are closed though the watermark has not come.
#[derive(Clone, Debug)]
pub struct Timeout {
    pub stream: RelationId,
    pub after: Micros,
    pub closing: Closing,
    /// Windows are closed when their end is so far behind the frontier.
    pub delay: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// The time of the last commit with rows of the stream.
    heard: Micros,
    /// The greatest event time so far.
    newest: Micros,
    /// The frontier that silences have brought.
    reached: Micros,
}

const NOTHING: State = State { heard: NO_TIME, newest: NO_TIME, reached: NO_TIME };

/// A timeout, and what is known of the stream.
pub struct Silence {
    timeout: Timeout,
    now: State,
    /// What checkpoints have.
    saved: State,
}

impl Silence {
    pub fn new(timeout: Timeout) -> Silence {
        Silence { timeout, now: NOTHING, saved: NOTHING }
    }

    /// The frontier that silences have brought before each of these commits, and after the last.
    pub fn advance(&mut self, commits: &[Arc<Commit>]) -> Vec<Micros> {
        let mut reached = vec![self.now.reached];
        for commit in commits {
            self.hear(commit);
            reached.push(self.now.reached);
        }
        reached
    }

    fn hear(&mut self, commit: &Commit) {
        let Timeout { stream, after, closing, delay } = self.timeout;
        let mut headers = commit.batches.iter().map(|batch| &batch.header).filter(|header| header.relation == stream).peekable();
        let State { heard, newest, .. } = self.now;
        if headers.peek().is_some() {
            self.now.heard = commit.time;
            self.now.newest = headers.filter_map(|header| header.event_times).map(|(_, last)| last).fold(newest, Micros::max);
        } else if heard != NO_TIME && newest != NO_TIME && commit.time.saturating_sub(heard) >= after {
            self.now.reached = self.now.reached.max(closing.end(newest).saturating_add(delay));
        }
    }
}

impl StateTable for Silence {
    fn name(&self) -> &'static str {
        "silence"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(["heard", "newest", "reached"].map(|name| Field::new(name, TIMESTAMP, false)).to_vec()))
    }

    fn key_columns(&self) -> usize {
        0
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        if self.now == self.saved {
            return Ok(Vec::new());
        }
        let states = if self.saved == NOTHING { vec![self.now] } else { vec![self.saved, self.now] };
        let column = |of: fn(&State) -> Micros| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(states.iter().map(of)))
        };
        let columns = vec![column(|s| s.heard), column(|s| s.newest), column(|s| s.reached)];
        let weights = if states.len() == 1 { vec![1] } else { vec![-1, 1] };
        self.saved = self.now;
        Ok(vec![Delta::new(RecordBatch::try_new(self.schema(), columns)?, Int64Array::from(weights))])
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        let columns: Option<Vec<_>> =
            delta.rows.columns().iter().map(|column| column.as_primitive_opt::<TimestampMicrosecondType>()).collect();
        let Some([heard, newest, reached]) = columns.as_deref() else {
            return Err(Error::corrupted("what is known of a silence is not instants"));
        };
        for row in (0..delta.len()).filter(|row| delta.weight(*row) > 0) {
            self.now = State { heard: heard.value(row), newest: newest.value(row), reached: reached.value(row) };
            self.saved = self.now;
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        usize::from(self.now != NOTHING)
    }

    fn bytes(&self) -> usize {
        size_of::<Silence>()
    }
}
