//! OVER: window functions of rows among their partition, kept up to date.
//!
//! What a function makes of a row is DataFusion's own answer, computed over the sorted rows of the partition. A step computes it
//! as the partition was and as it is, and gives the difference:
//!
//! ```text
//!   partition in order:   r1  r2  r3  r4  r5  r6  r7       lag(x, 1): a row's answer depends on one row behind it
//!                                 ▲changed                  so r3's change can touch the answers of r3 and r4,
//!                             └───────┘ looked at           and three rows are looked at, not the partition
//! ```
//!
//! Rows that the order does not tell apart are in the order of all their other columns ([`Arrangement`]).
//!
//! Invariant. What a row's answer was is computed again, not remembered. So an answer must be a function of the rows looked at,
//! bit by bit: functions whose answer depends on where the looking began (sums of floats) are always looked at from the
//! partition's beginning ([`Reach`]).

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::window::WindowExpr;

use super::arrangement::{Arrangement, Layout, successor};
use super::{Context, Operator, Shard};
use crate::delta::{Delta, consolidate, take};
use crate::error::Result;
use crate::state::StateTable;
use crate::time::Micros;

/// How many rows before and after a row its answer depends on, besides those that the order does not tell apart from it.
/// `None`: all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub behind: Option<u64>,
    pub ahead: Option<u64>,
}

impl Reach {
    pub const ALL: Reach = Reach { behind: None, ahead: None };

    /// The reach of both.
    #[must_use]
    pub fn and(self, other: Reach) -> Reach {
        let most = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
        Reach { behind: most(self.behind, other.behind), ahead: most(self.ahead, other.ahead) }
    }

    /// Rows that are looked at on either side of a change, so that those whose answer it can touch see all that they depend on.
    fn both(self) -> Option<u64> {
        self.behind?.checked_add(self.ahead?)
    }
}

/// What to compute.
#[derive(Clone)]
pub struct Spec {
    /// The partitions are its keys; the rows of a partition are in its order. Its first columns are the input's.
    pub layout: Layout,
    /// How many those are; columns behind them were put there to sort by.
    pub width: usize,
    pub functions: Vec<Arc<dyn WindowExpr>>,
    pub reach: Reach,
    /// The input's columns, then one per function.
    pub schema: SchemaRef,
    /// A partition whose time is more than this before the frontier gets no more rows.
    pub delay: Option<Micros>,
}

pub struct Over {
    spec: Spec,
    rows: Arrangement,
    pending: Vec<Delta>,
}

/// Codes between which rows of a partition changed: from the first, and before the second (`None`: to the end).
type Changed = (Box<[u8]>, Option<Box<[u8]>>);

impl Over {
    pub fn new(spec: Spec, shard: Shard) -> Result<Over> {
        let rows = Arrangement::new("rows", spec.layout.clone(), shard)?;
        Ok(Over { spec, rows, pending: Vec::new() })
    }

    fn step(&mut self, cx: &mut Context) -> Result<()> {
        let delta = consolidate(&self.spec.layout.schema, &std::mem::take(&mut self.pending))?;
        let places = self.rows.locate(&delta.rows)?;
        let changed = self.changed(&delta, &places.numbers)?;
        let before = self.answers(&changed)?;
        self.rows.add(&delta, &places)?;
        let after = self.answers(&changed)?;
        cx.emit(consolidate(&self.spec.schema, &[Delta::weighted(before, -1), Delta::append(after)])?);
        Ok(())
    }

    /// Per partition, where it changed: with all rows that the order does not tell apart from those that did.
    fn changed(&self, delta: &Delta, numbers: &[u32]) -> Result<BTreeMap<u32, Changed>> {
        let codes = self.rows.order_codes(&delta.rows)?;
        let mut ends: BTreeMap<u32, (&[u8], &[u8])> = BTreeMap::new();
        for (row, number) in numbers.iter().enumerate() {
            let code = codes.get(row);
            let (first, last) = ends.entry(*number).or_insert((code, code));
            *first = code.min(first);
            *last = code.max(last);
        }
        Ok(ends.into_iter().map(|(number, (first, last))| (number, (first.into(), successor(last).map(Into::into)))).collect())
    }

    /// The rows whose answers a change may touch, with their answers.
    fn answers(&self, changed: &BTreeMap<u32, Changed>) -> Result<RecordBatch> {
        let mut seen = Seen::default();
        for (number, (first, end)) in changed {
            self.look(*number, first, end.as_deref(), &mut seen);
        }
        let rows = self.rows.decode(seen.codes.into_iter())?;
        let once = seen.repeated.len() == rows.num_rows();
        let rows = if once { rows } else { take(&rows, &UInt32Array::from(seen.repeated))? };
        let shown = UInt32Array::from(seen.shown);
        let mut columns: Vec<ArrayRef> = rows.columns()[..self.spec.width].to_vec();
        for (function, field) in self.spec.functions.iter().zip(&self.spec.schema.fields()[self.spec.width..]) {
            let answers = seen.partitions.iter().map(|part| function.evaluate(&rows.slice(part.start, part.len())));
            let answers = answers.collect::<std::result::Result<Vec<_>, _>>()?;
            let parts: Vec<&dyn arrow::array::Array> = answers.iter().map(AsRef::as_ref).collect();
            let all = if parts.is_empty() { arrow::array::new_empty_array(field.data_type()) } else { compute::concat(&parts)? };
            columns.push(if all.data_type() == field.data_type() { all } else { compute::cast(&all, field.data_type())? });
        }
        let columns = compute::take_arrays(&columns, &shown, None)?;
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    /// The rows of a partition that must be looked at, and which of them are to be shown.
    fn look<'a>(&'a self, number: u32, first: &[u8], end: Option<&[u8]>, seen: &mut Seen<'a>) {
        let Reach { behind, ahead } = self.spec.reach;
        let both = self.spec.reach.both();
        let (start, codes) = (seen.repeated.len(), seen.codes.len());
        // Behind the change: as many rows as its answers look at, or all if one of them may look at all.
        let before = self.rows.range(number, Bound::Unbounded, Bound::Excluded(first)).rev();
        let mut before = upto(before, both);
        before.reverse();
        let before_rows: usize = before.iter().map(|(_, count)| count).sum();
        before.into_iter().for_each(|(code, count)| seen.push(code, count));
        let to = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range(number, Bound::Included(first), to).for_each(|(code, weight)| seen.push(code, count(weight)));
        let changed_to = seen.repeated.len() - start;
        if let Some(end) = end {
            let after = self.rows.range(number, Bound::Included(end), Bound::Unbounded);
            upto(after, both).into_iter().for_each(|(code, count)| seen.push(code, count));
        }
        // A row that looks `ahead` sees the change from so many rows before it, and so on.
        let shown_from = ahead.map_or(0, |ahead| before_rows.saturating_sub(ahead as usize));
        let shown_to = behind.map_or(usize::MAX, |behind| changed_to.saturating_add(behind as usize));
        let all = seen.repeated.len() - start;
        let shown = shown_from..all.min(shown_to);
        if shown.is_empty() {
            seen.repeated.truncate(start);
            seen.codes.truncate(codes);
            return;
        }
        seen.shown.extend(shown.map(|row| (start + row) as u32));
        seen.partitions.push(start..start + all);
    }
}

/// Rows that are looked at, partition by partition.
#[derive(Default)]
struct Seen<'a> {
    /// Each row once.
    codes: Vec<&'a [u8]>,
    /// Each row as often as it is there, by its place in `codes`.
    repeated: Vec<u32>,
    partitions: Vec<Range<usize>>,
    shown: Vec<u32>,
}

impl<'a> Seen<'a> {
    fn push(&mut self, code: &'a [u8], count: usize) {
        if count > 0 {
            self.repeated.extend(std::iter::repeat_n(self.codes.len() as u32, count));
            self.codes.push(code);
        }
    }
}

fn count(weight: i64) -> usize {
    usize::try_from(weight).unwrap_or(0)
}

/// The first so many rows, and a few more if the last of them is there several times.
fn upto<'a>(rows: impl Iterator<Item = (&'a [u8], i64)>, limit: Option<u64>) -> Vec<(&'a [u8], usize)> {
    let mut taken = Vec::new();
    let mut room = limit.unwrap_or(u64::MAX);
    for (code, weight) in rows {
        if room == 0 {
            break;
        }
        taken.push((code, count(weight)));
        room = room.saturating_sub(count(weight) as u64);
    }
    taken
}

impl Operator for Over {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.pending.push(delta);
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        if !self.pending.is_empty() {
            self.step(cx)?;
        }
        if let Some(delay) = self.spec.delay {
            self.rows.evict(cx.frontier.saturating_sub(delay))?;
        }
        self.rows.tidy()
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.rows]
    }
}

#[cfg(test)]
#[path = "over_tests.rs"]
mod tests;
