//! The operator: rows of partitions in, changes of matches out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Spec;
use super::scan::Verdict;
use super::values::instants;
use super::walk::{LIVE, Loader, Resume, Walk};
use crate::catalog::Emit;
use crate::delta::{Delta, consolidate};
use crate::error::Result;
use crate::flow::arrangement::{Arrangement, Layout};
use crate::flow::{Context, Operator, Shard};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

/// When rows of the matcher's input come no more.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// Times before `frontier - delay` do not come, nor do such rows go.
    pub delay: Micros,
}

pub struct Matching {
    spec: Arc<Spec>,
    emit: Emit,
    /// `None`: rows are never final, and all are kept.
    closing: Option<Closing>,
    rows: Arrangement,
    /// Rows behind the first attempt that is not final that are kept, because later ones look back at them. They have a mark:
    /// how many matches there were before.
    kept: usize,
    pending: Vec<Delta>,
    /// By number of the key.
    partitions: Vec<Partition>,
    /// Partitions by when something in them may become final; they may have been looked at since.
    deadlines: BTreeMap<Micros, Vec<u32>>,
    /// All partitions have a deadline.
    awake: bool,
}

#[derive(Default)]
struct Partition {
    /// Places from which the way through the rows may be walked again, in order.
    resume: Vec<Resume>,
    deadline: Option<Micros>,
}

impl Matching {
    pub fn new(spec: Arc<Spec>, emit: Emit, closing: Option<Closing>, shard: Shard) -> Result<Matching> {
        let kept = if closing.is_some() { spec.back().max(usize::from(spec.counts())) } else { 0 };
        let mut fields: Vec<_> = spec.columns.fields().iter().cloned().collect();
        if kept > 0 {
            fields.push(Arc::new(Field::new("$passed", DataType::Int64, false)));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let layout = Layout { schema, key: spec.partition.clone(), time: None, order: spec.order.clone() };
        let rows = Arrangement::new("rows", layout, shard)?;
        Ok(Matching {
            spec,
            emit,
            closing,
            rows,
            kept,
            pending: Vec::new(),
            partitions: Vec::new(),
            deadlines: BTreeMap::new(),
            awake: false,
        })
    }

    fn loader(&self) -> Loader<'_> {
        Loader { spec: &self.spec, rows: &self.rows, marked: self.kept > 0 }
    }

    /// Rows as they are kept, with this mark.
    fn mark(&self, rows: &RecordBatch, mark: i64) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if self.kept > 0 {
            columns.push(Arc::new(Int64Array::from_value(mark, rows.num_rows())));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.rows.layout().schema), columns)?)
    }

    /// Take in the rows that came, and give what they change.
    fn step(&mut self, cx: &mut Context) -> Result<()> {
        let delta = consolidate(&self.spec.columns, &std::mem::take(&mut self.pending))?;
        let delta = delta.with_rows(self.mark(&delta.rows, LIVE)?);
        let places = self.rows.locate(&delta.rows)?;
        let most = places.numbers.iter().max().map_or(0, |most| *most as usize + 1);
        if self.partitions.len() < most {
            self.partitions.resize_with(most, Partition::default);
        }
        self.expect(&delta, &places.numbers)?;
        if self.emit == Emit::Final {
            return self.rows.add(&delta, &places);
        }
        let mut changed: BTreeMap<u32, (&[u8], &[u8])> = BTreeMap::new();
        for (row, number) in places.numbers.iter().enumerate() {
            let code = places.code(row);
            let (first, last) = changed.entry(*number).or_insert((code, code));
            *first = code.min(first);
            *last = code.max(last);
        }
        let former: Vec<Walk> =
            changed.iter().map(|(number, (first, last))| self.walk(*number, first, last)).collect::<Result<_>>()?;
        self.rows.add(&delta, &places)?;
        let mut answers = Vec::new();
        for ((number, (first, last)), mut before) in changed.into_iter().zip(former) {
            let mut after = self.walk(number, first, last)?;
            let met = self.loader().meet(number, &mut before, &mut after, last)?;
            answers.push(Delta::weighted(before.scan.take(&self.spec)?, -1));
            answers.push(Delta::append(after.scan.take(&self.spec)?));
            let from = self.resume(number, first);
            after.renew(&mut self.partitions[number as usize].resume, from, met);
            if self.rows.rows(number).next().is_none() {
                self.partitions[number as usize] = Partition::default();
            }
        }
        cx.emit(consolidate(&self.spec.output, &answers)?);
        Ok(())
    }

    /// The last place of the partition that a change from this row on does not move.
    fn resume(&self, number: u32, first: &[u8]) -> Option<usize> {
        self.partitions[number as usize].resume.partition_point(|place| place.stands(first)).checked_sub(1)
    }

    /// A walk that sees the change between these rows.
    fn walk(&self, number: u32, first: &[u8], last: &[u8]) -> Result<Walk> {
        let from = self.resume(number, first).map(|place| &self.partitions[number as usize].resume[place]);
        self.loader().walk(number, from, Some(last))
    }

    /// Look at partitions again once the frontier is past the rows that came.
    fn expect(&mut self, delta: &Delta, numbers: &[u32]) -> Result<()> {
        let (Some(_), Some(time)) = (self.closing, self.spec.time) else { return Ok(()) };
        let times = instants(delta.rows.column(time))?;
        for (number, time) in numbers.iter().zip(times.values()) {
            self.defer(*number, *time);
        }
        Ok(())
    }

    fn defer(&mut self, number: u32, deadline: Micros) {
        let partition = &mut self.partitions[number as usize];
        if partition.deadline.is_none_or(|known| deadline < known) {
            partition.deadline = Some(deadline);
            self.deadlines.entry(deadline).or_default().push(number);
        }
    }

    /// Give what has become final, and drop the rows that nothing depends on any more.
    fn settle(&mut self, cx: &mut Context) -> Result<()> {
        let Some(closing) = self.closing.filter(|_| cx.frontier != NO_TIME) else { return Ok(()) };
        let frontier = cx.frontier.saturating_sub(closing.delay);
        let mut due = Vec::new();
        while let Some(entry) = self.deadlines.first_entry().filter(|entry| *entry.key() < frontier) {
            let (deadline, numbers) = entry.remove_entry();
            for number in numbers {
                let partition = &mut self.partitions[number as usize];
                if partition.deadline == Some(deadline) {
                    partition.deadline = None;
                    due.push(number);
                }
            }
        }
        let mut answers = Vec::new();
        for number in due {
            answers.extend(self.settle_partition(number, frontier)?);
        }
        if !answers.is_empty() {
            cx.emit(Delta::concat(&self.spec.output, &answers)?);
        }
        Ok(())
    }

    fn settle_partition(&mut self, number: u32, frontier: Micros) -> Result<Option<Delta>> {
        let show = self.emit == Emit::Final;
        let spec = Arc::clone(&self.spec);
        let mut walk = self.loader().walk(number, None, None)?;
        let from = walk.scan.at;
        while !self.loader().is_done(number, &mut walk)? {
            let attempt = self.loader().attempt(number, &mut walk)?;
            match walk.scan.verdict(&spec, &attempt, frontier) {
                Verdict::Final => walk.scan.advance(&spec, attempt, show)?,
                Verdict::After(time) => {
                    self.defer(number, time);
                    break;
                }
                Verdict::Open => break,
            }
        }
        if walk.scan.at > from {
            self.drop_before(number, &walk)?;
        }
        let answer = walk.scan.take(&spec)?;
        Ok((answer.num_rows() > 0).then(|| Delta::append(answer)))
    }

    /// Forget the rows that a walk has passed, but for those that are looked back at.
    fn drop_before(&mut self, number: u32, walk: &Walk) -> Result<()> {
        let at = walk.scan.at;
        let (first, last, rest) = walk.passed();
        if let Some(last) = last {
            self.rows.remove_between(number, first, last);
        }
        let mut changes = Vec::new();
        if rest > 0 {
            let row = walk.scan.rows.batch.slice(at - 1, 1);
            changes.push(Delta::weighted(self.mark(&row, LIVE)?, -(rest as i64)));
        }
        if self.kept > 0 {
            let from = at.saturating_sub(self.kept);
            let rows = walk.scan.rows.batch.slice(from, at - from);
            changes.push(Delta::append(self.mark(&rows, walk.scan.number)?));
        }
        for change in changes {
            self.rows.update(&change)?;
        }
        let partition = &mut self.partitions[number as usize];
        partition.resume.retain(|place| place.is_from(walk.last_code()));
        if self.rows.rows(number).next().is_none() {
            *partition = Partition::default();
        }
        Ok(())
    }

    /// After a restart there are rows only: look at all partitions.
    fn wake(&mut self) {
        if std::mem::replace(&mut self.awake, true) || self.closing.is_none() {
            return;
        }
        let numbers: Vec<u32> = self.rows.numbers().collect();
        let most = numbers.iter().max().map_or(0, |most| *most as usize + 1);
        self.partitions.resize_with(most, Partition::default);
        numbers.into_iter().for_each(|number| self.defer(number, NO_TIME));
    }
}

impl Operator for Matching {
    fn update(&mut self, _port: usize, delta: Delta, _cx: &mut Context) -> Result<()> {
        self.pending.push(delta);
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        self.wake();
        if !self.pending.is_empty() {
            self.step(cx)?;
        }
        self.settle(cx)?;
        self.rows.tidy()
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.rows]
    }
}
