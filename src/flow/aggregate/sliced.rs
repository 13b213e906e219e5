//! GROUP BY over windows that overlap: rows go into slices, and windows are put together from slices.
//!
//! A slice ([`crate::time::window::Windows::slices`]) is a piece of time that no window cuts. So a row costs the same whether it
//! lies in two windows or in a thousand:
//!
//! ```text
//!   EMIT CHANGES   rows of a step ─► partial groups per slice ─► put together for windows that take the same slices ─► added to each
//!                                                                once per step, group and window: as much as comes out
//!   EMIT FINAL     rows ─► groups per slice, kept     window closes ─► rolling groups: + slices that enter, − slices that leave
//!                                                                      once per slice and group, not per window
//! ```
//!
//! A row may be late in some of its windows only. With EMIT FINAL a window that the watermark before a row's commit has closed is
//! therefore given before the row enters its slice; with EMIT CHANGES partial groups remember which windows they are too late for.
//!
//! What survives a restart: windows (EMIT CHANGES) or slices (EMIT FINAL) as any window's groups do, by their ends.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use arrow::array::RecordBatch;

use super::groups::{Groups, Part, Plan};
use super::{Core, Evaluated, Spec, WindowKey, output, split_by_window, table};
use crate::catalog::Emit;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::{Context, Operator, Shard};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

pub struct Sliced {
    core: Core,
    /// The windows, and the key by which rows are split into slices.
    window: WindowKey,
    slice: WindowKey,
    /// EMIT CHANGES: what this step adds, by end of the slice, and the last end that it is too late for.
    partial: BTreeMap<(Micros, Micros), Groups>,
    /// EMIT FINAL.
    rolling: Rolling,
    /// Rows of closed windows, to be given at the end of the step.
    closed: Vec<RecordBatch>,
}

/// The groups of one window, as it rolls over the slices.
struct Rolling {
    plan: Plan,
    groups: Groups,
    /// Slices that it holds end after `from` and not after `upto`.
    from: Micros,
    upto: Micros,
    /// The end of the last window that was closed, once that is known.
    closed: Option<Micros>,
}

impl Sliced {
    /// Can the query be computed from slices?
    pub fn supports(spec: &Spec) -> bool {
        spec.window.is_some_and(|w| !w.windows.is_tumbling()) && spec.calls.iter().all(|c| c.adds_up(spec.append_only))
    }

    pub fn new(spec: Spec, shard: Shard) -> Result<Sliced> {
        let window = spec.window.ok_or_else(|| Error::internal("slices without windows"))?;
        let slice = WindowKey { windows: window.windows.slices(), ..window };
        // Rolling takes values away again.
        let plan = Plan { key_types: spec.key_types.clone(), calls: spec.calls.clone(), append_only: false };
        let rolling = Rolling { groups: Groups::new(&plan)?, plan, from: NO_TIME, upto: NO_TIME, closed: None };
        Ok(Sliced { core: Core::new(spec, shard), window, slice, partial: BTreeMap::new(), rolling, closed: Vec::new() })
    }

    fn closed_by(&self, frontier: Micros) -> Micros {
        match self.window.delay {
            Some(delay) if frontier != NO_TIME => frontier.saturating_sub(delay),
            _ => NO_TIME,
        }
    }

    fn add_partial(&mut self, end: Micros, input: &Evaluated, closed: Micros) -> Result<()> {
        let too_late = if closed < end { NO_TIME } else { closed };
        let groups = match self.partial.entry((end, too_late)) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Groups::new(&self.core.plan)?),
        };
        groups.enter(&input.keys, input.rows)?;
        input.add_to(groups, |_, _, _| Ok(()))
    }

    /// Add what the step brought to the windows. Most windows take the same slices of it as the one before; what these come to is
    /// put together once for all of them.
    fn spread(&mut self) -> Result<()> {
        let (mut parts, mut wanted) = (Vec::new(), BTreeMap::<Micros, Vec<usize>>::new());
        for ((end, too_late), groups) in std::mem::take(&mut self.partial) {
            let start = self.slice.windows.start_of(end);
            for (_, end) in self.window.windows.bounds(start).filter(|(_, end)| *end > too_late) {
                wanted.entry(end).or_default().push(parts.len());
            }
            parts.push(groups.part(&groups.entered())?);
        }
        let windows: Vec<(Micros, Vec<usize>)> = wanted.into_iter().collect();
        for run in windows.chunk_by(|(_, a), (_, b)| a == b) {
            let slices = run[0].1.iter().map(|slice| &parts[*slice]);
            if run.len() == 1 || slices.len() == 1 {
                for (end, slices) in run {
                    slices.iter().try_for_each(|slice| self.add_to_window(*end, &parts[*slice]))?;
                }
                continue;
            }
            let mut together = Groups::new(&self.core.plan)?;
            for part in slices {
                together.enter(&part.keys, part.weights.len())?;
                together.merge(part, 1)?;
            }
            let together = together.part(&together.entered())?;
            run.iter().try_for_each(|(end, _)| self.add_to_window(*end, &together))?;
        }
        Ok(())
    }

    fn add_to_window(&mut self, end: Micros, part: &Part) -> Result<()> {
        let window = match self.core.windows.entry(end) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Groups::new(&self.core.plan)?),
        };
        let before = window.enter(&part.keys, part.weights.len())?;
        if !before.is_empty() {
            self.core.former.push(output(&self.core.spec, end, window, &before)?);
        }
        window.merge(part, 1)
    }

    fn add_to_slice(&mut self, end: Micros, input: &Evaluated) -> Result<()> {
        let slice = match self.core.windows.entry(end) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Groups::new(&self.core.plan)?),
        };
        let rolled = self.rolling.holds(end);
        if rolled {
            let mut known: Vec<u32> = slice.keys.find(&input.keys, input.rows)?.into_iter().flatten().collect();
            known.sort_unstable();
            known.dedup();
            self.rolling.add(slice, &known, -1)?;
        }
        slice.enter(&input.keys, input.rows)?;
        let mut entered = slice.numbers().to_vec();
        input.add_to(slice, |_, _, _| Ok(()))?;
        if rolled {
            entered.sort_unstable();
            entered.dedup();
            self.rolling.add(slice, &entered, 1)?;
        }
        Ok(())
    }

    /// Give the windows that are closed, in the order of their ends.
    fn close(&mut self, closed: Micros, since: Micros) -> Result<()> {
        let last = *self.rolling.closed.get_or_insert(since);
        if closed <= last {
            return Ok(());
        }
        while let Some((window, next)) = self.next_window().filter(|(_, end)| *end <= closed) {
            self.rolling.roll(&self.core.windows, window, next)?;
            let live = self.rolling.groups.live();
            if !live.is_empty() {
                self.closed.push(output(&self.core.spec, next, &self.rolling.groups, &live)?);
            }
            self.rolling.closed = Some(next);
            self.drop_slices(next)?;
        }
        self.rolling.closed = Some(closed);
        Ok(())
    }

    /// The first window still open that has rows: of those that the first slice lies in, the first.
    fn next_window(&self) -> Option<(Micros, Micros)> {
        let closed = self.rolling.closed.unwrap_or(NO_TIME);
        let (end, _) = self.core.windows.first_key_value()?;
        let start = self.slice.windows.start_of(*end);
        self.window.windows.bounds(start).filter(|(_, end)| *end > closed).min_by_key(|(_, end)| *end)
    }

    /// Slices are dropped with the last of their windows.
    fn drop_slices(&mut self, closed: Micros) -> Result<()> {
        while let Some(entry) = self.core.windows.first_entry() {
            let end = *entry.key();
            if self.window.windows.last(self.slice.windows.start_of(end)).1 > closed {
                break;
            }
            let mut groups = entry.remove();
            if self.rolling.holds(end) {
                self.rolling.add(&groups, &groups.live(), -1)?;
                self.rolling.from = end;
            }
            if groups.saved {
                self.core.dropped.push(table::gone(&self.core.spec, end, &mut groups)?);
            }
        }
        self.rolling.tidy()
    }
}

impl Rolling {
    fn holds(&self, end: Micros) -> bool {
        self.from < end && end <= self.upto
    }

    fn add(&mut self, slice: &Groups, numbers: &[u32], sign: i64) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let part = slice.part(numbers)?;
        self.groups.enter(&part.keys, part.weights.len())?;
        self.groups.merge(&part, sign)
    }

    /// Be the groups of the window from `start` to `end`, which is not before the last one.
    fn roll(&mut self, slices: &BTreeMap<Micros, Groups>, start: Micros, end: Micros) -> Result<()> {
        if start >= self.upto {
            self.groups = Groups::new(&self.plan)?;
            (self.from, self.upto) = (start, start);
        } else if start > self.from {
            for (_, slice) in slices.range((Excluded(self.from), Included(start))) {
                self.add(slice, &slice.live(), -1)?;
            }
            self.from = start;
        }
        for (_, slice) in slices.range((Excluded(self.upto), Included(end))) {
            self.add(slice, &slice.live(), 1)?;
        }
        self.upto = end;
        self.tidy()
    }

    /// Forget groups without rows.
    fn tidy(&mut self) -> Result<()> {
        self.groups.settle()?;
        let (_, gone) = self.groups.take_unsaved();
        self.groups.release(&gone);
        Ok(())
    }
}

impl Operator for Sliced {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let closed = self.closed_by(cx.frontier);
        if self.core.spec.emit == Emit::Final {
            self.close(closed, self.closed_by(cx.since))?;
        }
        let input = self.core.evaluate(&delta)?;
        for (end, rows) in split_by_window(Some(self.slice), &delta.rows)? {
            let part = rows.map(|rows| input.take(&rows)).transpose()?;
            let part = part.as_ref().unwrap_or(&input);
            match self.core.spec.emit {
                Emit::Changes | Emit::Every(_) => self.add_partial(end, part, closed)?,
                Emit::Final | Emit::FinalOrSilent(_) => self.add_to_slice(end, part)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        match self.core.spec.emit {
            Emit::Changes | Emit::Every(_) => {
                self.spread()?;
                self.core.emit_changes(cx)?;
                self.core.close_windows(cx, &mut [])
            }
            Emit::Final | Emit::FinalOrSilent(_) => {
                self.core.settle_all()?;
                self.close(self.closed_by(cx.frontier), self.closed_by(cx.since))?;
                for rows in std::mem::take(&mut self.closed) {
                    cx.emit(Delta::append(rows));
                }
                Ok(())
            }
        }
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![self.core.as_table()]
    }
}
