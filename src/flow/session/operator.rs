//! The operator: rows in, groups by session out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::DataType;

use super::Spec;
use super::rows::{Columns, Timestamps, alone, timestamps};
use super::timeline::{Id, Stretch, Timeline};
use crate::catalog::Emit;
use crate::delta::{Delta, consolidate};
use crate::error::{Error, Result};
use crate::flow::aggregate::GroupColumn;
use crate::flow::aggregate::groups::{Groups, Plan};
use crate::flow::arrangement::Arrangement;
use crate::flow::{Context, LATE, Operator, Shard, WINDOW_TIME};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

/// Rows decoded at once when groups are made again.
const PORTION: usize = 8192;

/// No session.
const NONE: Id = Id::MAX;

pub struct Sessions {
    spec: Spec,
    columns: Columns,
    rows: Arrangement,
    timeline: Timeline,
    /// By number of the session and keys.
    groups: Groups,
    /// By number of the session.
    sessions: Vec<OfSession>,
    /// By number of the group.
    session_of: Vec<Id>,
    /// Former rows of groups touched in this step, to be taken away.
    former: Vec<RecordBatch>,
    /// Sessions by when they may be closed or forgotten; they may have grown since.
    deadlines: BTreeMap<Micros, Vec<Id>>,
    /// Sessions and groups are there of all rows.
    awake: bool,
}

/// What is known of a session beside its times.
#[derive(Default)]
struct OfSession {
    groups: Vec<u32>,
    /// The bounds under which its groups were last given.
    shown: Option<Stretch>,
    closed: bool,
    deadline: Option<Micros>,
}

impl Sessions {
    pub fn new(spec: Spec, shard: Shard) -> Result<Sessions> {
        let columns = Columns::new(&spec)?;
        let key_types = std::iter::once(DataType::Int64).chain(spec.key_types.iter().cloned()).collect();
        let plan = Plan { key_types, calls: spec.calls.clone(), append_only: spec.append_only };
        Ok(Sessions {
            rows: columns.arrangement(shard)?,
            timeline: Timeline::new(spec.gap),
            groups: Groups::new(&plan)?,
            sessions: Vec::new(),
            session_of: Vec::new(),
            former: Vec::new(),
            deadlines: BTreeMap::new(),
            awake: false,
            columns,
            spec,
        })
    }

    /// The end of the last session that this frontier has closed, were it at the very last moment.
    fn closed_by(&self, frontier: Micros) -> Option<Micros> {
        self.spec.delay.filter(|_| frontier != NO_TIME).map(|delay| frontier.saturating_sub(delay))
    }

    /// The rows that are in time; the others go to the late output, each as the session that it would be alone.
    fn judge(&self, delta: Delta, cx: &mut Context) -> Result<Delta> {
        let times = timestamps(delta.rows.column(self.spec.time))?;
        let Some(closed) = self.closed_by(cx.frontier).filter(|_| self.spec.judges) else { return Ok(delta) };
        // Rows after the end of every closed session are the common case.
        if times.values().iter().all(|time| *time >= closed) {
            return Ok(delta);
        }
        let partition: Vec<ArrayRef> = self.spec.partition.iter().map(|c| Arc::clone(delta.rows.column(*c))).collect();
        let keys = self.rows.find(&partition, delta.len())?;
        let gap = self.spec.gap;
        let late = |(time, key): (&Micros, &Option<u32>)| {
            let ends_closed = |last: Micros| last.saturating_add(gap) <= closed;
            let reached = key.and_then(|key| self.timeline.before(key, *time)).map(|id| self.timeline.get(id).last);
            ends_closed(*time) || reached.is_some_and(|last| ends_closed(last) && *time < last.saturating_add(gap))
        };
        let late: BooleanArray = times.values().iter().zip(&keys).map(late).map(Some).collect();
        if late.true_count() == 0 {
            return Ok(delta);
        }
        let dropped = delta.filter(&late)?;
        let wide = alone(&self.spec, &dropped.rows)?;
        cx.emit_to(LATE, dropped.with_rows(wide));
        delta.filter(&compute::not(&late)?)
    }

    /// Tell the timeline of rows that have come or gone. Returns the partition of each.
    fn note(&mut self, kept: &Delta) -> Result<Vec<u32>> {
        let keys = self.rows.update(kept)?;
        let times = self.columns.times(&kept.rows)?;
        let mut last = None;
        for (key, at) in keys.iter().zip(times.values()) {
            if last.replace((*key, *at)) == Some((*key, *at)) {
                continue;
            }
            if self.spec.append_only {
                self.timeline.insert(*key, *at);
                continue;
            }
            let session = self.timeline.find(*key, *at);
            let within = session.map_or((*at, *at), |id| (self.timeline.get(id).start, self.timeline.get(id).last));
            match self.columns.around(&self.rows, *key, *at, within)? {
                (true, _, _) => self.timeline.insert(*key, *at),
                (false, former, next) => self.timeline.remove(*key, *at, former, next),
            }
        }
        Ok(keys)
    }

    /// Give every session the rows that are its own now.
    fn follow(&mut self, kept: &Delta, keys: &[u32]) -> Result<()> {
        let changes = self.timeline.changes();
        for id in changes.gone {
            self.end(id)?;
        }
        let mut parts: Vec<(RecordBatch, Vec<Id>, Vec<i64>)> = Vec::new();
        for id in changes.changed {
            self.meet(id);
            let session = self.timeline.get(id);
            let shown = self.sessions[id as usize].shown;
            if shown.is_some_and(|shown| shown != (session.start, session.last)) {
                let groups = std::mem::take(&mut self.sessions[id as usize].groups);
                self.touch(&groups)?;
                self.sessions[id as usize].groups = groups;
            }
            let session = self.timeline.get(id);
            for stretch in &session.absorbed {
                let (batch, weights) = self.columns.within(&self.rows, session.key, *stretch)?;
                parts.push((batch, vec![id; weights.len()], weights));
            }
        }
        parts.push(self.direct(kept, keys)?);
        self.timeline.settle();
        parts.into_iter().try_for_each(|(batch, ids, weights)| self.feed(&batch, &ids, &weights))
    }

    /// Rows of a batch that their session does not get by reading a stretch again.
    fn direct(&self, kept: &Delta, keys: &[u32]) -> Result<(RecordBatch, Vec<Id>, Vec<i64>)> {
        let times = self.columns.times(&kept.rows)?;
        let (mut rows, mut ids, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (key, at)) in keys.iter().zip(times.values()).enumerate() {
            let weight = kept.weight(row);
            let id = match weight > 0 {
                true => self.timeline.find(*key, *at),
                false => self.timeline.find_held(*key, *at),
            };
            let Some(id) = id else { continue };
            if self.timeline.get(id).absorbed.iter().any(|(from, to)| from <= at && at <= to) {
                continue;
            }
            rows.push(row as u32);
            ids.push(id);
            weights.push(weight);
        }
        let batch = match rows.len() == keys.len() {
            true => kept.rows.clone(),
            false => compute::take_record_batch(&kept.rows, &UInt32Array::from(rows))?,
        };
        Ok((batch, ids, weights))
    }

    /// Put kept rows into the groups of their sessions.
    fn feed(&mut self, batch: &RecordBatch, ids: &[Id], weights: &[i64]) -> Result<()> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| i64::from(*id))));
        let weights: ArrayRef = Arc::new(Int64Array::from(weights.to_vec()));
        let counts = self.columns.counts(batch);
        let (batch, ids, weights) = match counts.true_count() == counts.len() {
            true => (batch.clone(), ids, weights),
            false => {
                (compute::filter_record_batch(batch, counts)?, compute::filter(&ids, counts)?, compute::filter(&weights, counts)?)
            }
        };
        let weights: Int64Array = weights.to_data().into();
        let diff = (!weights.values().iter().all(|weight| *weight == 1)).then_some(&weights);
        let keys: Vec<ArrayRef> = std::iter::once(Arc::clone(&ids)).chain(self.columns.group_keys(&batch).to_vec()).collect();
        let before = self.groups.enter(&keys, batch.num_rows())?;
        self.keep_former(&before)?;
        self.session_of.resize(self.groups.keys.end(), NONE);
        let ids: Int64Array = ids.to_data().into();
        for (group, id) in self.groups.numbers().iter().zip(ids.values()) {
            let of = &mut self.session_of[*group as usize];
            if *of == NONE {
                *of = *id as Id;
                self.sessions[*id as usize].groups.push(*group);
            }
        }
        self.groups.weigh(diff);
        for (call, (arguments, filter)) in self.columns.arguments(&batch).into_iter().enumerate() {
            let Some(filter) = filter else {
                self.groups.accumulate(call, None, arguments, diff)?;
                continue;
            };
            let passes = if filter.null_count() > 0 { compute::prep_null_mask_filter(filter) } else { filter.clone() };
            let rows = UInt32Array::from_iter_values(passes.values().set_indices().map(|row| row as u32));
            let numbers: Vec<u32> = rows.values().iter().map(|row| self.groups.numbers()[*row as usize]).collect();
            let arguments = compute::take_arrays(arguments, &rows, None)?;
            let diff = diff.map(|diff| Int64Array::from_iter_values(rows.values().iter().map(|row| diff.value(*row as usize))));
            self.groups.accumulate(call, Some(&numbers), &arguments, diff.as_ref())?;
        }
        Ok(())
    }

    /// A session that may be new.
    fn meet(&mut self, id: Id) {
        if self.sessions.len() <= id as usize {
            self.sessions.resize_with(id as usize + 1, OfSession::default);
        }
        if self.spec.delay.is_some() && self.sessions[id as usize].deadline.is_none() {
            self.defer(id, self.timeline.get(id).last.saturating_add(self.spec.gap));
        }
    }

    /// Look at the session again then.
    fn defer(&mut self, id: Id, deadline: Micros) {
        self.sessions[id as usize].deadline = Some(deadline);
        self.deadlines.entry(deadline).or_default().push(id);
    }

    /// A session is gone, with its groups: other sessions have its rows now, or nobody.
    fn end(&mut self, id: Id) -> Result<()> {
        if self.sessions.len() <= id as usize {
            return Ok(());
        }
        let groups = std::mem::take(&mut self.sessions[id as usize].groups);
        self.touch(&groups)?;
        self.groups.empty(&groups);
        groups.iter().for_each(|group| self.session_of[*group as usize] = NONE);
        self.sessions[id as usize] = OfSession::default();
        Ok(())
    }

    /// Groups whose row is about to change, though perhaps not by rows of theirs.
    fn touch(&mut self, groups: &[u32]) -> Result<()> {
        let before = self.groups.touch(groups);
        self.keep_former(&before)
    }

    fn keep_former(&mut self, groups: &[u32]) -> Result<()> {
        if self.spec.emit == Emit::Changes && !groups.is_empty() {
            let rows = self.output(groups, |session, _| session.shown.unwrap_or((NO_TIME, NO_TIME)))?;
            self.former.push(rows);
        }
        Ok(())
    }

    /// The output rows of some groups.
    fn output(&self, groups: &[u32], bounds: impl Fn(&OfSession, Stretch) -> Stretch) -> Result<RecordBatch> {
        let stretch = |group: &u32| {
            let id = self.session_of[*group as usize];
            let session = self.timeline.get(id);
            bounds(&self.sessions[id as usize], (session.start, session.last))
        };
        let stretches: Vec<Stretch> = groups.iter().map(stretch).collect();
        let keys = self.groups.keys.columns(groups)?;
        let end = |stretch: &Stretch| stretch.1.saturating_add(self.spec.gap);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.spec.schema.fields().len());
        for (column, field) in self.spec.group_columns.iter().zip(self.spec.schema.fields()) {
            let instants = match column {
                GroupColumn::Key(key) => {
                    columns.push(Arc::clone(&keys[key + 1]));
                    continue;
                }
                GroupColumn::WindowStart => Timestamps::from_iter_values(stretches.iter().map(|s| s.0)),
                GroupColumn::WindowEnd => Timestamps::from_iter_values(stretches.iter().map(end)),
                GroupColumn::WindowTime => {
                    Timestamps::from_iter_values(stretches.iter().map(|s| end(s).saturating_sub(WINDOW_TIME)))
                }
            };
            columns.push(Arc::new(instants.with_data_type(field.data_type().clone())));
        }
        columns.extend(self.groups.values(groups)?);
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.schema), columns)?)
    }

    /// Give what changed in this step.
    fn emit(&mut self, cx: &mut Context) -> Result<()> {
        for rows in std::mem::take(&mut self.former) {
            cx.emit(Delta::weighted(rows, -1));
        }
        let live = self.groups.settle()?;
        if self.spec.emit == Emit::Changes && !live.is_empty() {
            cx.emit(Delta::append(self.output(&live, |_, now| now)?));
            for group in &live {
                let id = self.session_of[*group as usize];
                let session = self.timeline.get(id);
                self.sessions[id as usize].shown = Some((session.start, session.last));
            }
        }
        let (_, gone) = self.groups.take_unsaved();
        for group in &gone {
            let id = std::mem::replace(&mut self.session_of[*group as usize], NONE);
            if id != NONE {
                self.sessions[id as usize].groups.retain(|other| other != group);
            }
        }
        self.groups.release(&gone);
        Ok(())
    }

    /// Close the sessions that the frontier has passed, and forget those that no row in time can reach any more.
    fn close(&mut self, cx: &mut Context) -> Result<()> {
        let Some(closed) = self.closed_by(cx.frontier) else { return Ok(()) };
        let (mut closing, mut forgotten) = (Vec::new(), Vec::new());
        while let Some(entry) = self.deadlines.first_entry().filter(|entry| *entry.key() <= closed) {
            let (deadline, ids) = entry.remove_entry();
            for id in ids {
                // Another session has the number now, or this one was looked at before.
                if self.sessions[id as usize].deadline != Some(deadline) {
                    continue;
                }
                self.sessions[id as usize].deadline = None;
                let end = self.timeline.get(id).last.saturating_add(self.spec.gap);
                if end > closed {
                    self.defer(id, end);
                    continue;
                }
                if !self.sessions[id as usize].closed {
                    self.sessions[id as usize].closed = true;
                    closing.push(id);
                }
                let unreachable = if self.spec.judges { end.saturating_add(self.spec.gap) } else { end };
                if unreachable > closed { self.defer(id, unreachable) } else { forgotten.push(id) }
            }
        }
        let groups: Vec<u32> = closing.iter().flat_map(|id| std::mem::take(&mut self.sessions[*id as usize].groups)).collect();
        if self.spec.emit == Emit::Final && !groups.is_empty() {
            cx.emit(Delta::append(self.output(&groups, |_, now| now)?));
        }
        self.groups.discard(&groups);
        groups.iter().for_each(|group| self.session_of[*group as usize] = NONE);
        for id in forgotten {
            let session = self.timeline.get(id);
            self.columns.forget(&mut self.rows, session.key, (session.start, session.last))?;
            self.timeline.forget(id);
            self.sessions[id as usize] = OfSession::default();
        }
        Ok(())
    }

    /// After a restart there are rows only: make sessions and groups of them, as they were when the step began.
    fn wake(&mut self, cx: &Context) -> Result<()> {
        if std::mem::replace(&mut self.awake, true) {
            return Ok(());
        }
        let closed = self.closed_by(cx.since);
        let keys: Vec<u32> = self.rows.numbers().collect();
        let mut rows: Vec<(&[u8], i64, u32)> = Vec::new();
        let mut parts: Vec<(RecordBatch, Vec<i64>, Vec<u32>)> = Vec::new();
        let decode = |rows: &mut Vec<(&[u8], i64, u32)>| -> Result<(RecordBatch, Vec<i64>, Vec<u32>)> {
            let batch = self.rows.decode(rows.iter().map(|row| row.0))?;
            let rows = std::mem::take(rows);
            Ok((batch, rows.iter().map(|row| row.1).collect(), rows.iter().map(|row| row.2).collect()))
        };
        for key in keys {
            rows.extend(self.rows.rows(key).map(|(row, weight)| (row, weight, key)));
            if rows.len() >= PORTION {
                parts.push(decode(&mut rows)?);
            }
        }
        if !rows.is_empty() {
            parts.push(decode(&mut rows)?);
        }
        for (batch, _, keys) in &parts {
            let times = self.columns.times(batch)?;
            keys.iter().zip(times.values()).for_each(|(key, at)| self.timeline.insert(*key, *at));
        }
        for id in self.timeline.changes().changed {
            self.meet(id);
            let session = self.timeline.get(id);
            let of = &mut self.sessions[id as usize];
            of.shown = Some((session.start, session.last));
            of.closed = closed.is_some_and(|closed| session.last.saturating_add(self.spec.gap) <= closed);
        }
        self.timeline.settle();
        for (batch, weights, keys) in parts {
            let times = self.columns.times(&batch)?;
            let find = |(key, at): (&u32, &Micros)| self.timeline.find(*key, *at);
            let ids: Vec<Option<Id>> = keys.iter().zip(times.values()).map(find).collect();
            let open = |id: &Option<Id>| id.filter(|id| !self.sessions[*id as usize].closed);
            let rows: Vec<u32> = (0..ids.len()).filter(|row| open(&ids[*row]).is_some()).map(|row| row as u32).collect();
            let weights: Vec<i64> = rows.iter().map(|row| weights[*row as usize]).collect();
            let ids: Vec<Id> = ids.iter().filter_map(open).collect();
            let batch = compute::take_record_batch(&batch, &UInt32Array::from(rows))?;
            self.feed(&batch, &ids, &weights)?;
        }
        // What there was has been given before.
        self.groups.settle()?;
        drop(self.groups.take_unsaved());
        Ok(())
    }
}

impl Operator for Sessions {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        self.wake(cx)?;
        // Rows without a time are in no session.
        let time = delta.rows.column(self.spec.time);
        let delta = if time.null_count() > 0 { delta.filter(&compute::is_not_null(time)?)? } else { delta };
        let delta = self.judge(delta, cx)?;
        if delta.is_empty() {
            return Ok(());
        }
        let mut kept = self.columns.keep(&self.spec, &delta)?;
        if !self.spec.append_only {
            kept = consolidate(&self.columns.schema, &[kept])?;
        } else if kept.diff.is_some() {
            return Err(Error::internal("rows of an append-only input were taken away"));
        }
        let keys = self.note(&kept)?;
        self.follow(&kept, &keys)
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        self.wake(cx)?;
        self.emit(cx)?;
        self.close(cx)?;
        self.rows.tidy()
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.rows]
    }
}
