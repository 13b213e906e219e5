//! `ANALYZE WATERMARK stream`: how late are the rows of a stream really, and what would another watermark have cost?
//!
//! A row's lateness is how far its event time lies behind the greatest event time of the commits before its own: what a
//! watermark's delay must at least be for the row to count. The log has both, so the answer is exact to the millisecond, over
//! everything that the log still holds. A row that is late by the watermark is lost to a window only if its window was closed
//! by then; so `late_rows` is what the smallest windows would have lost, and larger ones lose less.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef, TimestampMicrosecondType};

use crate::catalog::{Catalog, Change, Relation};
use crate::error::{Error, Result};
use crate::log::{Commit, CommitId, LogHandle};
use crate::time::{Micros, NO_TIME};

/// Rows that are read at a time.
const PORTION: usize = 1 << 16;

/// Latenesses are told apart to this precision.
const MILLISECOND: Micros = 1000;

/// The candidates: shares of the rows that are to be in time.
const SHARES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// One row per candidate delay: its name, the delay, the rows that would have been late and their share, and for how long after
/// an instant of event time the stream would have had to run (in time of the clock, on average) until the watermark passed it.
pub fn schema() -> SchemaRef {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    Arc::new(Schema::new(vec![
        Field::new("candidate", DataType::Utf8, false),
        Field::new("delay", interval.clone(), false),
        Field::new("late_rows", DataType::Int64, false),
        Field::new("late_share", DataType::Float64, false),
        Field::new("mean_wait", interval, true),
    ]))
}

/// Read the stream up to a commit and report on it.
pub fn analyze(log: &LogHandle, stream: &Relation, upto: CommitId) -> Result<RecordBatch> {
    let watermark = stream.watermark.as_ref().ok_or_else(|| {
        Error::wrong_object_type(format!("\"{}\" has no WATERMARK, so no row of it is late", stream.name))
            .with_hint("CREATE STREAM … (…, WATERMARK FOR column AS column - INTERVAL '5' SECOND)")
    })?;
    let mut catalog = Catalog::default();
    catalog.apply(&Change::Create(stream.clone()));
    let mut lateness = Lateness::default();
    let mut read = 0;
    while read < upto {
        let commits = log.read(&catalog, read, upto, PORTION)?;
        let Some(last) = commits.last() else { break };
        read = last.id;
        for commit in &commits {
            if let Some((_, error)) = commit.damaged.iter().find(|(relation, _)| *relation == stream.id) {
                return Err(error.clone());
            }
            lateness.add(commit, stream, watermark.column)?;
        }
    }
    lateness.report()
}

#[derive(Default)]
struct Lateness {
    rows: u64,
    /// Rows by their lateness, in milliseconds and rounded up. Rows that are not late are not here.
    late: BTreeMap<i64, u64>,
    /// Greatest event time so far and the time of the commit that brought it, for the commits that brought one.
    progress: Vec<(Micros, Micros)>,
    /// The delay of the stream's own watermark, as seen in its last move.
    declared: Option<Micros>,
}

impl Lateness {
    fn add(&mut self, commit: &Commit, stream: &Relation, column: usize) -> Result<()> {
        let before = self.progress.last().map_or(NO_TIME, |(greatest, _)| *greatest);
        let mut greatest = before;
        for batch in commit.batches.iter().filter(|batch| batch.header.relation == stream.id) {
            let times = batch.rows.column(column);
            let times = times
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(|| Error::internal(format!("an event time has type {}", times.data_type())))?;
            self.rows += (times.len() - times.null_count()) as u64;
            for time in times.iter().flatten() {
                if time < before {
                    *self.late.entry(before.saturating_sub(time).saturating_add(MILLISECOND - 1) / MILLISECOND).or_default() += 1;
                }
                greatest = greatest.max(time);
            }
        }
        if greatest > before {
            self.progress.push((greatest, commit.time));
        }
        if let Some((_, watermark)) = commit.watermarks.iter().find(|(relation, _)| *relation == stream.id) {
            self.declared = Some(greatest.saturating_sub(*watermark));
        }
        Ok(())
    }

    fn report(&self) -> Result<RecordBatch> {
        let mut candidates: Vec<(&str, Micros)> =
            SHARES.iter().map(|(name, share)| (*name, self.percentile(*share) * MILLISECOND)).collect();
        candidates.extend(self.declared.map(|delay| ("declared", delay)));
        candidates.sort_by_key(|(_, delay)| *delay);
        let delays: Vec<Micros> = candidates.iter().map(|(_, delay)| *delay).collect();
        let late: Vec<u64> = delays.iter().map(|delay| self.later_than(*delay)).collect();
        let share = |late: &u64| *late as f64 / self.rows.max(1) as f64;
        Ok(RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(StringArray::from_iter_values(candidates.iter().map(|(name, _)| *name))),
                Arc::new(IntervalMonthDayNanoArray::from_iter_values(delays.iter().map(|delay| interval(*delay)))),
                Arc::new(Int64Array::from_iter_values(late.iter().map(|late| *late as i64))),
                Arc::new(Float64Array::from_iter_values(late.iter().map(share))),
                Arc::new(IntervalMonthDayNanoArray::from_iter(delays.iter().map(|delay| self.wait(*delay).map(interval)))),
            ],
        )?)
    }

    /// The least lateness, in milliseconds, that this share of the rows does not exceed.
    fn percentile(&self, share: f64) -> i64 {
        let wanted = (self.rows as f64 * share).ceil() as u64;
        let mut reached = self.rows - self.late.values().sum::<u64>();
        if reached >= wanted {
            return 0;
        }
        for (lateness, rows) in &self.late {
            reached += rows;
            if reached >= wanted {
                return *lateness;
            }
        }
        self.late.last_key_value().map_or(0, |(lateness, _)| *lateness)
    }

    fn later_than(&self, delay: Micros) -> u64 {
        self.late.iter().filter(|(lateness, _)| **lateness * MILLISECOND > delay).map(|(_, rows)| rows).sum()
    }

    /// From the moment when an instant of event time was reached until the watermark reached it, on average over the instants
    /// at which commits stood; `None` if it never did.
    fn wait(&self, delay: Micros) -> Option<Micros> {
        let (mut total, mut count) = (0i128, 0i128);
        let mut reached = 0;
        for (instant, seen) in &self.progress {
            while self.progress.get(reached).is_some_and(|(greatest, _)| *greatest < instant.saturating_add(delay)) {
                reached += 1;
            }
            let Some((_, passed)) = self.progress.get(reached) else { break };
            total += i128::from(passed - seen);
            count += 1;
        }
        (count > 0).then(|| (total / count) as Micros)
    }
}

fn interval(duration: Micros) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new(0, 0, duration.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;
    use crate::log::{Header, Kind, LogBatch};
    use crate::sql::testing;
    use crate::time::TIMESTAMP;

    const SECOND: Micros = 1_000_000;

    /// Rows of one commit do not make each other late.
    #[test]
    fn rows_are_compared_with_the_commits_before_their_own() {
        let stream = testing::stream(0, "s", &[("at", TIMESTAMP)], 0);
        let mut lateness = Lateness::default();
        for (id, seconds) in [(1, vec![60]), (2, vec![58, 120, 110]), (3, vec![60, 121, 122, 123])] {
            let times = TimestampMicrosecondArray::from_iter_values(seconds.iter().map(|s| s * SECOND));
            let rows = RecordBatch::try_new(stream.schema(), vec![Arc::new(times)]).unwrap();
            let header = Header {
                relation: stream.id,
                partition: 0,
                base_offset: 0,
                rows: rows.num_rows() as u32,
                columns: 1,
                kind: Kind::Append,
                commit: id,
                commit_time: 0,
                watermark: NO_TIME,
                event_times: None,
                producer: None,
            };
            let watermark = (seconds.iter().max().unwrap() - 5) * SECOND;
            let commit = Commit {
                id,
                time: 0,
                batches: vec![LogBatch { header, rows }],
                watermarks: vec![(stream.id, watermark)],
                changes: Vec::new(),
                damaged: Vec::new(),
            };
            lateness.add(&commit, &stream, 0).unwrap();
        }
        assert_eq!((lateness.rows, lateness.late.clone()), (8, BTreeMap::from([(2000, 1), (60_000, 1)])));
        assert_eq!(lateness.declared, Some(5 * SECOND));
        let report = lateness.report().unwrap();
        let names: Vec<_> = report.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(names, ["p50", "declared", "p90", "p99", "p99.9", "max"]);
        assert_eq!(report.column(2).as_ref(), &Int64Array::from(vec![2, 1, 0, 0, 0, 0]) as &dyn Array);
    }

    #[test]
    fn candidates_say_what_they_would_have_lost() {
        let late = BTreeMap::from([(1000, 5), (2500, 4), (60_000, 1)]);
        let lateness = Lateness { rows: 100, late, ..Lateness::default() };
        assert_eq!(SHARES.map(|(_, share)| lateness.percentile(share)), [0, 0, 2500, 60_000, 60_000]);
        assert_eq!([0, 1, 2, 3, 60].map(|s| lateness.later_than(s * SECOND)), [10, 5, 5, 1, 0]);
    }

    #[test]
    fn waiting_is_time_of_the_clock() {
        // Event time runs at twice the speed of the clock.
        let progress = (0..10).map(|i| (i * 2 * SECOND, i * SECOND)).collect();
        let lateness = Lateness { progress, ..Lateness::default() };
        assert_eq!(lateness.wait(0), Some(0));
        assert_eq!(lateness.wait(6 * SECOND), Some(3 * SECOND));
        assert_eq!(lateness.wait(100 * SECOND), None);
    }
}
