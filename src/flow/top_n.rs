//! The first rows of each group in an order, kept up to date: `ORDER BY … LIMIT n OFFSET m`, `ROW_NUMBER() OVER (…) <= n` and
//! its kin, DISTINCT ON.
//!
//! ```text
//!   group's rows in order:   r1  r2  r3 │ r4  r5  r6 …          n = 3; the edge is the code of r3
//!                            ◄─ shown ─►  change behind the edge: a lookup, nothing else
//!                                         change before it: the first n rows again, and what differs is given
//! ```
//!
//! Rows that the order does not tell apart are told apart by all their other columns ([`Arrangement`]), so that the answer is one.
//!
//! Invariants. A group's edge is known only while its first rows are what they were when it was found: whatever may change them
//! finds it anew. If rows are only added, none behind the edge is kept, because nothing can bring it back.

use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;

use super::arrangement::{Arrangement, Layout, Places, successor};
use super::{Context, Operator, Shard};
use crate::delta::Delta;
use crate::error::Result;
use crate::state::StateTable;
use crate::time::Micros;

/// How rows of a group are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// One by one.
    RowNumber,
    /// Rows that the order does not tell apart have the number of the first of them.
    Rank,
    /// They have one number, and the next number is one more.
    DenseRank,
}

/// What to keep.
#[derive(Clone)]
pub struct Spec {
    /// The groups are its keys; the rows of a group are in its order.
    pub layout: Layout,
    /// What is bounded.
    pub by: Rank,
    /// Rows that are passed over first. Only for rows counted one by one.
    pub skip: u64,
    /// The greatest number that is shown.
    pub last: u64,
    /// Numbers that stand behind the input's columns.
    pub numbers: Vec<Rank>,
    /// The input's columns, then those.
    pub schema: SchemaRef,
    pub append_only: bool,
    /// A group whose time is more than this before the frontier gets no more rows.
    pub delay: Option<Micros>,
}

pub struct TopN {
    spec: Spec,
    rows: Arrangement,
    /// By number of the group. `None`: not known, or there is room for more.
    edges: Vec<Option<Edge>>,
    pending: Vec<Delta>,
}

/// First rows of groups, one after the other.
#[derive(Default)]
struct Firsts {
    codes: Vec<u8>,
    numbers: Vec<u64>,
    /// Where the row's code and its numbers end, and how often it is there.
    rows: Vec<(usize, usize, i64)>,
}

/// One of the first rows of a group.
#[derive(Clone, Copy)]
struct First<'a> {
    code: &'a [u8],
    numbers: &'a [u64],
    weight: i64,
}

impl Firsts {
    fn push(&mut self, code: &[u8], numbers: impl IntoIterator<Item = u64>, weight: i64) {
        self.codes.extend_from_slice(code);
        self.numbers.extend(numbers);
        self.rows.push((self.codes.len(), self.numbers.len(), weight));
    }

    fn get(&self, row: usize) -> First<'_> {
        let (code, number) = row.checked_sub(1).map_or((0, 0), |before| (self.rows[before].0, self.rows[before].1));
        let (code_end, number_end, weight) = self.rows[row];
        First { code: &self.codes[code..code_end], numbers: &self.numbers[number..number_end], weight }
    }

    fn clear(&mut self) {
        self.codes.clear();
        self.numbers.clear();
        self.rows.clear();
    }
}

/// What the last of a group's first rows begins with.
type Edge = Box<[u8]>;

impl TopN {
    pub fn new(spec: Spec, shard: Shard) -> Result<TopN> {
        let rows = Arrangement::new("rows", spec.layout.clone(), shard)?;
        Ok(TopN { spec, rows, edges: Vec::new(), pending: Vec::new() })
    }

    fn step(&mut self, cx: &mut Context) -> Result<()> {
        let mut delta = Delta::concat(&self.spec.layout.schema, &std::mem::take(&mut self.pending))?;
        let mut places = self.rows.locate(&delta.rows)?;
        if self.spec.append_only {
            let inside: BooleanArray = (0..delta.len()).map(|row| Some(!self.is_outside(&places, row))).collect();
            if inside.true_count() < delta.len() {
                delta = delta.filter(&inside)?;
                places = places.keep(&inside);
            }
        }
        let touched = places.numbers.iter().enumerate().filter(|(row, _)| !self.is_outside(&places, *row));
        // Groups in the order of their numbers: the numbers come from the input, so the output is the same every time.
        let mut touched: Vec<u32> = touched.map(|(_, number)| *number).collect();
        touched.sort_unstable();
        touched.dedup();
        let (mut before, mut spans) = (Firsts::default(), Vec::with_capacity(touched.len()));
        for number in &touched {
            let from = before.rows.len();
            self.first(*number, &mut before)?;
            spans.push(from..before.rows.len());
        }
        self.rows.add(&delta, &places)?;
        if self.edges.len() < self.rows.end() {
            self.edges.resize(self.rows.end(), None);
        }
        let (mut after, mut changes) = (Firsts::default(), Firsts::default());
        for (number, span) in touched.into_iter().zip(spans) {
            after.clear();
            self.edges[number as usize] = self.first(number, &mut after)?;
            difference((&before, span), &after, &mut changes);
            if self.spec.append_only {
                self.forget_behind(number);
            }
        }
        cx.emit(self.output(&changes)?);
        Ok(())
    }

    /// The row cannot be one of the first, now or after this step's changes behind the edge.
    fn is_outside(&self, places: &Places, row: usize) -> bool {
        let (number, code) = (places.numbers[row], places.code(row));
        let Some(Some(edge)) = self.edges.get(number as usize) else { return false };
        // The number may have been another group's.
        self.is_behind(code, edge) && self.rows.rows(number).next().is_some()
    }

    fn is_behind(&self, code: &[u8], edge: &[u8]) -> bool {
        code > edge && (self.spec.by == Rank::RowNumber || !code.starts_with(edge))
    }

    /// The first rows of a group; returns their edge if there are as many as there may be.
    fn first(&self, group: u32, first: &mut Firsts) -> Result<Option<Edge>> {
        let spec = &self.spec;
        let by_order = spec.by != Rank::RowNumber || spec.numbers.iter().any(|rank| *rank != Rank::RowNumber);
        let mut edge: &[u8] = &[];
        let (mut rows, mut rank, mut dense, mut peers) = (0u64, 0, 0, None::<Box<[u8]>>);
        for (code, weight) in self.rows.rows(group).filter(|(_, weight)| *weight > 0) {
            if by_order && peers.as_deref().is_none_or(|peers| !code.starts_with(peers)) {
                (rank, dense) = (rows + 1, dense + 1);
                peers = Some(self.order_code(code)?);
            }
            let number = match spec.by {
                Rank::RowNumber => rows + 1,
                Rank::Rank => rank,
                Rank::DenseRank => dense,
            };
            if number > spec.last {
                break;
            }
            let upto = rows + weight.unsigned_abs();
            let (from, to) = if spec.by == Rank::RowNumber { (rows.max(spec.skip), upto.min(spec.last)) } else { (rows, upto) };
            let numbers = |row: u64| {
                spec.numbers.iter().map(move |by| match by {
                    Rank::RowNumber => row,
                    Rank::Rank => rank,
                    Rank::DenseRank => dense,
                })
            };
            if spec.numbers.contains(&Rank::RowNumber) {
                (from..to).for_each(|row| first.push(code, numbers(row + 1), 1));
            } else if from < to {
                first.push(code, numbers(from + 1), (to - from) as i64);
            }
            rows = upto;
            edge = match (spec.by, &peers) {
                (Rank::RowNumber, _) | (_, None) => code,
                (_, Some(peers)) => &code[..peers.len()],
            };
        }
        let full = if spec.by == Rank::DenseRank { dense >= spec.last } else { rows >= spec.last };
        Ok(full.then(|| edge.into()))
    }

    /// What the row's code begins with, up to where equals of it may differ.
    fn order_code(&self, code: &[u8]) -> Result<Box<[u8]>> {
        let row = self.rows.decode(std::iter::once(code))?;
        Ok(self.rows.order_codes(&row)?.get(0).into())
    }

    fn forget_behind(&mut self, group: u32) {
        let Some(edge) = &self.edges[group as usize] else { return };
        if self.spec.by == Rank::RowNumber {
            self.rows.remove(group, Bound::Excluded(edge), Bound::Unbounded);
        } else if let Some(behind) = successor(edge) {
            self.rows.remove(group, Bound::Included(&behind), Bound::Unbounded);
        }
    }

    fn output(&self, changes: &Firsts) -> Result<Delta> {
        let changes: Vec<First> = (0..changes.rows.len()).map(|row| changes.get(row)).collect();
        let rows = self.rows.decode(changes.iter().map(|change| change.code))?;
        let mut columns = rows.columns().to_vec();
        for place in 0..self.spec.numbers.len() {
            let numbers = changes.iter().map(|change| change.numbers[place]);
            columns.push(Arc::new(UInt64Array::from_iter_values(numbers)) as ArrayRef);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?;
        Ok(Delta::new(rows, Int64Array::from_iter_values(changes.iter().map(|change| change.weight))))
    }
}

/// What is to be taken away from some rows of `before` and added to them to get `after`. All are in order.
fn difference((before, span): (&Firsts, Range<usize>), after: &Firsts, changes: &mut Firsts) {
    let mut before = span.map(|row| before.get(row)).peekable();
    let mut after = (0..after.rows.len()).map(|row| after.get(row)).peekable();
    let mut change = |row: First, weight| changes.push(row.code, row.numbers.iter().copied(), weight);
    loop {
        let side = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => (a.code, a.numbers).cmp(&(b.code, b.numbers)),
        };
        let gone = if side.is_le() { before.next() } else { None };
        let come = if side.is_ge() { after.next() } else { None };
        match (gone, come) {
            (Some(was), Some(is)) if was.weight != is.weight => change(is, is.weight - was.weight),
            (Some(was), None) => change(was, -was.weight),
            (None, Some(is)) => change(is, is.weight),
            _ => {}
        }
    }
}

impl Operator for TopN {
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
#[path = "top_n_tests.rs"]
mod tests;
