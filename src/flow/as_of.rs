//! ASOF joins: beside each row of the left, the nearest row of the right, if there is one.
//!
//! Both sides are kept in [`Arrangement`]s by the columns that the join equates, sorted by time. Say that the newest row of the
//! right is wanted which is not after the left's:
//!
//! ```text
//!   right of a key:     r1              r2                      r3             a new row r' between r2 and r3 takes over the
//!   left:            l1     l2  l3          l4  │r'  l5  l6         l7         left rows from itself up to r3: l5 and l6
//!   answers:         -      r1  r1          r2       r2  r2         r3
//! ```
//!
//! So a change of the right asks the left rows between it and its neighbour again, as the right was and as it is, and gives what
//! differs. Of rows of one time the first counts, by [`Spec::then`] and then by all other columns ([`Arrangement`]).
//!
//! If the frontier bounds both times, rows that no change can reach any more go ([`Spec::dead_after`]): left rows that it has
//! passed, and right rows that it has passed but for the newest of each key, which rows to come may still find. Looking ahead
//! (the oldest row not before the left's), a left row waits for a right row behind the frontier, and the right rows go.
//!
//! Where rows are compared by commit ([`Spec::by_commit`]), a step's left rows have all that they will ever find when it ends.
//! They are answered then, once, and not kept.
//!
//! Invariants. After every change, what was given adds up to the join of what came. A left row has one answer at a time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, Rows, SortField};

use super::arrangement::{Arrangement, Layout, successor};
use super::{Context, Operator, Shard};
use crate::delta::Delta;
use crate::error::Result;
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// Rows of output that are put together at once.
const CHUNK_ROWS: usize = 8192;

const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: false };

/// Which rows of the right a row of the left may find. It finds the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Nearest {
    /// Those before it; otherwise those after it.
    pub backward: bool,
    /// Those at the same time too.
    pub equal: bool,
}

/// What to join.
#[derive(Clone)]
pub struct Spec {
    pub sides: [SideSpec; 2],
    pub nearest: Nearest,
    /// Left rows that find nothing are given beside NULLs.
    pub outer: bool,
    /// Among right rows of one time, that with the greatest value in this column comes first.
    pub then: Option<usize>,
    /// Times are commits.
    pub by_commit: bool,
    /// A row whose time is more than this behind the frontier comes and goes no more, on either side.
    pub dead_after: Option<Micros>,
    /// The left's columns, then the right's.
    pub schema: SchemaRef,
}

/// One input.
#[derive(Clone)]
pub struct SideSpec {
    pub schema: SchemaRef,
    pub key: Vec<usize>,
    /// Of one type on both sides, all values of which are of one length.
    pub time: usize,
}

pub struct AsOf {
    spec: Spec,
    sides: [Arrangement; 2],
    look: Look,
    coder: RowConverter,
    /// By commit: left rows of the step, and the numbers of keys of which right rows came.
    pending: Vec<Delta>,
    touched: Vec<u32>,
}

/// How rows are found. Codes of rows begin with their time's.
#[derive(Clone, Copy)]
struct Look {
    nearest: Nearest,
    /// The length of a time's code.
    width: usize,
}

/// Codes from the first up to before the second; `None`: to the end.
type Span = (Box<[u8]>, Option<Box<[u8]>>);

impl Look {
    /// The right row that a left row of this time finds.
    fn find<'a>(self, right: &'a Arrangement, number: Option<u32>, time: &[u8]) -> Option<&'a [u8]> {
        let number = number?;
        let next = successor(time);
        let live = |(code, weight): (&'a [u8], i64)| (weight > 0).then_some(code);
        if !self.nearest.backward {
            let from = if self.nearest.equal { Some(time) } else { next.as_deref() };
            return right.range(number, Bound::Included(from?), Bound::Unbounded).find_map(live);
        }
        let to =
            if self.nearest.equal { next.as_deref().map_or(Bound::Unbounded, Bound::Excluded) } else { Bound::Excluded(time) };
        let newest = right.range(number, Bound::Unbounded, to).rev().find_map(live)?;
        right.range(number, Bound::Included(&newest[..self.width]), to).find_map(live)
    }

    /// The left rows whose answer a right row of this time can touch: those between it and its neighbour.
    fn touched(self, right: &Arrangement, number: Option<u32>, time: &[u8]) -> Option<Span> {
        let Nearest { backward, equal } = self.nearest;
        let next = successor(time);
        let live = |(code, weight): (&[u8], i64)| (weight > 0).then(|| code[..self.width].into());
        let neighbour: Option<Box<[u8]>> = number.and_then(|number| match backward {
            true => right.range(number, Bound::Included(next.as_deref()?), Bound::Unbounded).find_map(live),
            false => right.range(number, Bound::Unbounded, Bound::Excluded(time)).rev().find_map(live),
        });
        // Bounds that take in rows of the bound's own time or not.
        let from = |time: &[u8], own: bool| if own { Some(time.into()) } else { successor(time).map(Into::into) };
        let to = |time: &[u8], own: bool| if own { successor(time).map(Into::into) } else { Some(time.into()) };
        match backward {
            true => Some((from(time, equal)?, neighbour.and_then(|neighbour| to(&neighbour, !equal)))),
            false => {
                let first = neighbour.map_or(Some(Box::default()), |neighbour| from(&neighbour, !equal));
                Some((first?, to(time, equal)))
            }
        }
    }
}

/// A left row to be asked again, its weight, and a row of the change that has its key.
type Asked = (Box<[u8]>, i64, usize);

/// The right row that a left row found.
type Found = Option<Box<[u8]>>;

/// A left row, what it found, and how often the two are given.
type Pair<'a> = (&'a [u8], Option<&'a [u8]>, i64);

impl AsOf {
    pub fn new(spec: Spec, shard: Shard) -> Result<AsOf> {
        let arrangement = |name, at: usize| {
            let SideSpec { schema, key, time } = spec.sides[at].clone();
            let is_instant = matches!(schema.field(time).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
            // Looking ahead, left rows are not dropped by their time alone.
            let by_time = is_instant && (at == RIGHT || spec.nearest.backward);
            let mut order = vec![(time, ASCENDING)];
            order.extend(spec.then.filter(|_| at == RIGHT).map(|then| (then, SortOptions { descending: true, ..ASCENDING })));
            Arrangement::new(name, Layout { schema, key, time: by_time.then_some(time), order }, shard)
        };
        let sides = [arrangement("left", LEFT)?, arrangement("right", RIGHT)?];
        let SideSpec { schema, time, .. } = &spec.sides[LEFT];
        let data_type = schema.field(*time).data_type();
        let coder = RowConverter::new(vec![SortField::new_with_options(data_type.clone(), ASCENDING)])?;
        let width = coder.convert_columns(&[new_null_array(data_type, 1)])?.row(0).data().len();
        let look = Look { nearest: spec.nearest, width };
        Ok(AsOf { spec, sides, look, coder, pending: Vec::new(), touched: Vec::new() })
    }

    fn keys(&self, side: usize, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.spec.sides[side].key.iter().map(|column| Arc::clone(rows.column(*column))).collect()
    }

    fn times(&self, side: usize, rows: &RecordBatch) -> Result<Rows> {
        Ok(self.coder.convert_columns(std::slice::from_ref(rows.column(self.spec.sides[side].time)))?)
    }

    /// The rows that can find or be found. Those that cannot, for NULL in their key or time, find nothing for ever.
    fn complete(&self, side: usize, delta: Delta, cx: &mut Context) -> Result<Delta> {
        let SideSpec { key, time, .. } = &self.spec.sides[side];
        let columns = key.iter().chain([time]).map(|column| delta.rows.column(*column));
        let with_nulls: Vec<&ArrayRef> = columns.filter(|column| column.null_count() > 0).collect();
        if with_nulls.is_empty() {
            return Ok(delta);
        }
        let complete: BooleanArray = (0..delta.len()).map(|row| Some(with_nulls.iter().all(|c| c.is_valid(row)))).collect();
        if side == LEFT && self.spec.outer {
            let alone = delta.filter(&compute::not(&complete)?)?;
            let weights = (0..alone.len()).map(|row| alone.weight(row)).collect();
            self.give(&alone.rows, &vec![None; alone.len()], weights, cx)?;
        }
        delta.filter(&complete)
    }

    /// What rows of the left find now.
    fn answer(&self, delta: &Delta, cx: &mut Context) -> Result<()> {
        let right = &self.sides[RIGHT];
        let numbers = right.find(&self.keys(LEFT, &delta.rows), delta.len())?;
        let times = self.times(LEFT, &delta.rows)?;
        let found = (0..delta.len()).map(|row| self.look.find(right, numbers[row], times.row(row).data()));
        let found: Vec<Option<&[u8]>> = found.collect();
        self.give(&delta.rows, &found, (0..delta.len()).map(|row| delta.weight(row)).collect(), cx)
    }

    /// Left rows beside the right rows that they found.
    fn give(&self, left: &RecordBatch, found: &[Option<&[u8]>], weights: Vec<i64>, cx: &mut Context) -> Result<()> {
        let given = (0..found.len()).filter(|row| self.spec.outer || found[*row].is_some());
        let given: Vec<u32> = given.map(|row| row as u32).collect();
        let mut codes: Vec<&[u8]> = Vec::new();
        let mut places = Vec::with_capacity(given.len());
        for row in &given {
            places.push(found[*row as usize].map(|code| {
                if codes.last() != Some(&code) {
                    codes.push(code);
                }
                codes.len() as u32 - 1
            }));
        }
        let right = self.sides[RIGHT].decode(codes.into_iter())?;
        let mut columns = match given.len() == left.num_rows() {
            true => left.columns().to_vec(),
            false => compute::take_arrays(left.columns(), &UInt32Array::from(given.clone()), None)?,
        };
        columns.extend(compute::take_arrays(right.columns(), &UInt32Array::from(places), None)?);
        let options = RecordBatchOptions::new().with_row_count(Some(given.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?;
        let weights: Vec<i64> = given.iter().map(|row| weights[*row as usize]).collect();
        cx.emit(match weights.iter().all(|weight| *weight == 1) {
            true => Delta::append(rows),
            false => Delta::new(rows, Int64Array::from(weights)),
        });
        Ok(())
    }

    fn update_right(&mut self, delta: &Delta, cx: &mut Context) -> Result<()> {
        let (asked, was) = self.asked(delta)?;
        let now = self.sides[RIGHT].update(delta)?;
        let [left, right] = &self.sides;
        let mut changes: Vec<Pair> = Vec::new();
        for ((code, weight, row), was) in asked.iter().zip(&was) {
            let (was, is) = (was.as_deref(), self.look.find(right, Some(now[*row]), &code[..self.look.width]));
            if was != is {
                changes.push((code, was, -weight));
                changes.push((code, is, *weight));
            }
        }
        for changes in changes.chunks(CHUNK_ROWS) {
            let rows = left.decode(changes.iter().map(|(code, ..)| *code))?;
            let found: Vec<Option<&[u8]>> = changes.iter().map(|(_, found, _)| *found).collect();
            self.give(&rows, &found, changes.iter().map(|(.., weight)| *weight).collect(), cx)?;
        }
        if self.spec.by_commit {
            self.touched.extend(now);
        }
        Ok(())
    }

    /// The left rows that a change of the right touches, and what each finds before it.
    fn asked(&self, delta: &Delta) -> Result<(Vec<Asked>, Vec<Found>)> {
        let [left, right] = &self.sides;
        let there = right.find(&self.keys(RIGHT, &delta.rows), delta.len())?;
        let mut asked: Vec<Asked> = Vec::new();
        for (number, (row, spans)) in self.spans(delta, &there)? {
            for (from, to) in merged(spans) {
                let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                asked.extend(left.range(number, Bound::Included(&from), to).map(|(code, weight)| (code.into(), weight, row)));
            }
        }
        let found = |(code, _, row): &Asked| self.look.find(right, there[*row], &code[..self.look.width]).map(Into::into);
        let was = asked.iter().map(found).collect();
        Ok((asked, was))
    }

    /// By number of the left's key: a row of the change with that key, and the spans of left rows that it touches.
    fn spans(&self, delta: &Delta, there: &[Option<u32>]) -> Result<BTreeMap<u32, (usize, Vec<Span>)>> {
        let [left, right] = &self.sides;
        let waiting = left.find(&self.keys(RIGHT, &delta.rows), delta.len())?;
        let times = self.times(RIGHT, &delta.rows)?;
        let mut spans: BTreeMap<u32, (usize, Vec<Span>)> = BTreeMap::new();
        for (row, number) in waiting.into_iter().enumerate() {
            let Some(number) = number else { continue };
            if let Some(span) = self.look.touched(right, there[row], times.row(row).data()) {
                spans.entry(number).or_insert_with(|| (row, Vec::new())).1.push(span);
            }
        }
        Ok(spans)
    }

    /// Forget what the frontier has passed.
    fn forget(&mut self, bound: Micros) -> Result<()> {
        let [left, right] = &mut self.sides;
        let Some((numbers, edge)) = right.passed(bound)? else {
            return if self.spec.nearest.backward { left.evict(bound) } else { Ok(()) };
        };
        if self.spec.nearest.backward {
            numbers.into_iter().for_each(|number| keep_newest(right, number, Some(&edge), self.look.width));
            return left.evict(bound);
        }
        let newest =
            |number: &u32| right.range(*number, Bound::Unbounded, Bound::Excluded(&edge)).next_back().map(|(code, _)| code);
        let codes: Vec<&[u8]> = numbers.iter().filter_map(newest).collect();
        let rows = right.decode(codes.iter().copied())?;
        let keys: Vec<ArrayRef> = self.spec.sides[RIGHT].key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        for (number, code) in left.find(&keys, codes.len())?.into_iter().zip(&codes) {
            let time = &code[..self.look.width];
            let end = if self.spec.nearest.equal { successor(time) } else { Some(time.to_vec()) };
            if let Some((number, end)) = number.zip(end) {
                left.drop_before(number, &end);
            }
        }
        numbers.into_iter().for_each(|number| right.drop_before(number, &edge));
        Ok(())
    }
}

/// Forget the rows of a key before its newest one in front of the edge.
fn keep_newest(rows: &mut Arrangement, number: u32, edge: Option<&[u8]>, width: usize) {
    let to = edge.map_or(Bound::Unbounded, Bound::Excluded);
    let newest: Option<Box<[u8]>> = rows.range(number, Bound::Unbounded, to).next_back().map(|(code, _)| code[..width].into());
    if let Some(newest) = newest {
        rows.drop_before(number, &newest);
    }
}

/// The same codes in spans that do not overlap, ascending. Empty spans go.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|(from, to)| to.as_ref().is_none_or(|to| from < to));
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some((_, end)) if end.as_ref().is_none_or(|end| from <= *end) => {
                let later = end.as_ref().is_some_and(|end| to.as_ref().is_none_or(|to| to > end));
                if later {
                    *end = to;
                }
            }
            _ => merged.push((from, to)),
        }
    }
    merged
}

impl Operator for AsOf {
    fn update(&mut self, port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let delta = self.complete(port, delta, cx)?;
        if delta.is_empty() {
            return Ok(());
        }
        match port {
            LEFT if self.spec.by_commit => self.pending.push(delta),
            LEFT => {
                self.answer(&delta, cx)?;
                self.sides[LEFT].update(&delta)?;
            }
            _ => self.update_right(&delta, cx)?,
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        for delta in std::mem::take(&mut self.pending) {
            self.answer(&delta, cx)?;
        }
        for number in std::mem::take(&mut self.touched) {
            keep_newest(&mut self.sides[RIGHT], number, None, self.look.width);
        }
        if let Some(delay) = self.spec.dead_after.filter(|_| cx.frontier != NO_TIME) {
            self.forget(cx.frontier.saturating_sub(delay))?;
        }
        self.sides.iter_mut().try_for_each(Arrangement::tidy)
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        self.sides.iter_mut().map(|side| side as &mut dyn StateTable).collect()
    }
}

#[cfg(test)]
#[path = "as_of_tests.rs"]
mod tests;
