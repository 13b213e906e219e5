//! Joins: rows of two inputs, side by side where a condition holds.
//!
//! Each side is kept in an [`Arrangement`] by the columns that the condition equates. The join is bilinear: what comes on one
//! side meets all that is there of the other, and then is there itself.
//!
//! ```text
//!   update(left, dL):   out += dL ⋈ R     L += dL            probe the other side with a whole batch, decode what is found once,
//!   update(right, dR):  out += L ⋈ dR     R += dR            evaluate the residual condition once
//! ```
//!
//! Outer, semi, anti and mark joins also give rows by whether they have a match. A row that comes is told at once by its probe.
//! A row that is there changes its lot when the first match comes or the last one goes. Where only keys count, that happens to
//! all rows of a key together, when the other side's rows of that key begin or cease to be; otherwise the rows that gained or
//! lost a match by this change are asked whether they have any other.
//!
//! A side whose rows are only ever added is kept as the batches that came ([`added`]); only rows that may be taken away, asked for by
//! their time, or asked whether they are there need an arrangement.
//!
//! A bound between times of the two sides makes the probe a range, and lets a frontier drop what can meet no more
//! ([`Bound`], [`SideSpec::dead_after`]).
//!
//! Invariants. After every change, what was given so far adds up to the join of what came so far: no order of changes matters,
//! as long as neither side's rows were taken away before they came. Dropping rows changes no output.

mod added;
mod bound;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use datafusion::physical_expr::PhysicalExpr;

use self::added::{Added, Place};
use self::probe::{CANDIDATES, Probe};
use super::arrangement::{Arrangement, Layout};
use super::{Context, Operator, Shard};
use crate::delta::{Delta, take};
use crate::error::{Error, Result};
use crate::state::StateTable;
use crate::time::{Micros, NO_TIME};

pub use self::bound::Bound;

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// What to join.
#[derive(Clone)]
pub struct Spec {
    pub join_type: JoinType,
    pub sides: [SideSpec; 2],
    /// What must hold of a pair beside equal keys, over [`Spec::pairs`].
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// NULL in a key equals NULL, as in INTERSECT; otherwise it equals nothing.
    pub null_equals_null: bool,
    /// What must hold of the sides' times.
    pub bound: Option<Bound>,
    /// Left columns, then right ones.
    pub pairs: SchemaRef,
    /// Rows are only ever added to the output.
    pub append_only: bool,
    pub schema: SchemaRef,
}

impl Spec {
    /// Whether a side is kept as it comes: nothing is taken from it, times of both sides leave no range to look in, and the other
    /// side's rows do not ask whether they have a match.
    fn is_added(&self, side: usize, single: [Single; 2]) -> bool {
        let has_range = self.bound.is_some_and(|bound| bound.least.is_some() && bound.greatest.is_some());
        let is_plain = self.join_type == JoinType::Inner || self.is_by_key() && single[1 - side] == Single::Nothing;
        is_plain && self.sides[side].append_only && !has_range
    }

    /// Rows of equal keys meet all the same rows.
    fn is_by_key(&self) -> bool {
        self.residual.is_none() && self.bound.is_none()
    }
}

/// One input of a join.
#[derive(Clone)]
pub struct SideSpec {
    pub schema: SchemaRef,
    /// How many of the first columns are for the condition and the output; the others are computed keys.
    pub width: usize,
    pub key: Vec<usize>,
    /// The time column of the bound.
    pub time: Option<usize>,
    /// A row whose time is more than this behind the frontier is asked for no more: no row to come meets it, no change of it
    /// comes, and what it met is as dead if that has to know its matches.
    pub dead_after: Option<Micros>,
    /// Rows are only ever added.
    pub append_only: bool,
}

/// What a row of one side gives by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Single {
    Nothing,
    /// Itself beside NULLs, while it has no match.
    Padded,
    /// Itself, while it has no match (`false`) or one (`true`).
    If(bool),
    /// Itself and whether it has a match.
    Marked,
}

pub struct Join {
    spec: Spec,
    sides: [Kept; 2],
    /// By side.
    single: [Single; 2],
    /// Pairs are given.
    pairs: bool,
}

/// The rows of a side.
#[expect(clippy::large_enum_variant, reason = "there are two of them")]
enum Kept {
    Sorted(Arrangement),
    Added(Added),
}

impl Join {
    pub fn new(spec: Spec, shard: Shard) -> Result<Join> {
        use Single::*;
        let (pairs, single) = match spec.join_type {
            JoinType::Inner => (true, [Nothing, Nothing]),
            JoinType::Left => (true, [Padded, Nothing]),
            JoinType::Right => (true, [Nothing, Padded]),
            JoinType::Full => (true, [Padded, Padded]),
            JoinType::LeftSemi => (false, [If(true), Nothing]),
            JoinType::LeftAnti => (false, [If(false), Nothing]),
            JoinType::LeftMark => (false, [Marked, Nothing]),
            JoinType::RightSemi => (false, [Nothing, If(true)]),
            JoinType::RightAnti => (false, [Nothing, If(false)]),
            JoinType::RightMark => (false, [Nothing, Marked]),
        };
        let kept = |name, side: usize| {
            let SideSpec { schema, key, time, .. } = spec.sides[side].clone();
            let layout = Layout { schema, key, time, order: Vec::new() };
            Ok::<_, Error>(match spec.is_added(side, single) {
                true => Kept::Added(Added::new(name, layout, shard)?),
                false => Kept::Sorted(Arrangement::new(name, layout, shard)?),
            })
        };
        let sides = [kept("left", LEFT)?, kept("right", RIGHT)?];
        Ok(Join { spec, sides, single, pairs })
    }

    /// The rows of a side that can have matches. Those that cannot, for NULL in their key, are unmatched for ever.
    fn matchable(&self, side: usize, delta: Delta, cx: &mut Context) -> Result<Delta> {
        let keys = self.spec.sides[side].key.iter().map(|column| delta.rows.column(*column));
        let with_nulls: Vec<&ArrayRef> = keys.filter(|key| key.null_count() > 0).collect();
        if self.spec.null_equals_null || with_nulls.is_empty() {
            return Ok(delta);
        }
        let complete: BooleanArray = (0..delta.len()).map(|row| Some(with_nulls.iter().all(|key| key.is_valid(row)))).collect();
        if self.single[side] != Single::Nothing {
            self.give(side, &delta.filter(&compute::not(&complete)?)?, false, cx)?;
        }
        delta.filter(&complete)
    }

    /// What rows give by themselves, now that they have a match or have none.
    fn give(&self, side: usize, rows: &Delta, matched: bool, cx: &mut Context) -> Result<()> {
        let (width, count) = (self.spec.sides[side].width, rows.len());
        if count == 0 {
            return Ok(());
        }
        let mut columns = rows.rows.columns()[..width].to_vec();
        match self.single[side] {
            Single::Nothing => return Ok(()),
            Single::Padded if matched => return Ok(()),
            Single::If(wanted) if matched != wanted => return Ok(()),
            Single::If(_) => {}
            Single::Padded => {
                let others = match side {
                    LEFT => &self.spec.schema.fields()[width..],
                    _ => &self.spec.schema.fields()[..self.spec.schema.fields().len() - width],
                };
                let nulls = others.iter().map(|field| new_null_array(field.data_type(), count));
                let at = if side == LEFT { columns.len() } else { 0 };
                columns.splice(at..at, nulls);
            }
            Single::Marked => columns.push(Arc::new(BooleanArray::from(vec![matched; count]))),
        }
        let batch = self.batch(columns, count)?;
        self.emit(rows.with_rows(batch), cx)
    }

    /// Rows of a side that were there got their first match, or lost their last one.
    fn turn(&self, side: usize, rows: &Delta, matched: bool, cx: &mut Context) -> Result<()> {
        let taken = rows.diff.as_ref().map(|diff| Int64Array::from_iter_values(diff.values().iter().map(|weight| -weight)));
        let taken = taken.unwrap_or_else(|| Int64Array::from_value(-1, rows.len()));
        self.give(side, &Delta::new(rows.rows.clone(), taken), !matched, cx)?;
        self.give(side, rows, matched, cx)
    }

    fn batch(&self, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.spec.schema), columns, &options)?)
    }

    fn emit(&self, delta: Delta, cx: &mut Context) -> Result<()> {
        cx.emit(if self.spec.append_only { Delta::append(delta.repeated()?) } else { delta });
        Ok(())
    }

    /// Probe with all pairs wanted: give them, and tell which rows of the delta have a match and how the weights of matches of
    /// the other side's rows change.
    fn probe(&self, side: usize, delta: &Delta, cx: &mut Context) -> Result<(Vec<bool>, Turns)> {
        let other = self.sorted(1 - side)?;
        let mut matched = vec![false; delta.len()];
        let mut turns = Turns::default();
        let watched = self.single[1 - side] != Single::Nothing && !self.spec.is_by_key();
        Probe::new(&self.spec, side, &delta.rows, other)?.each(|found| {
            for (row, (bytes, weight)) in found.probing.iter().zip(&found.met) {
                matched[*row as usize] |= *weight > 0;
                if watched {
                    turns.note(bytes, *weight, delta.weight(*row as usize));
                }
            }
            if !self.pairs {
                return Ok(());
            }
            let weights = found.probing.iter().zip(&found.met).map(|(row, (_, weight))| delta.weight(*row as usize) * weight);
            let diff = Int64Array::from_iter_values(weights);
            let rows = self.batch(found.pairs.columns().to_vec(), diff.len())?;
            self.emit(Delta::new(rows, diff), cx)
        })?;
        Ok((matched, turns))
    }

    fn sorted(&self, side: usize) -> Result<&Arrangement> {
        match &self.sides[side] {
            Kept::Sorted(rows) => Ok(rows),
            Kept::Added(_) => Err(not_sorted()),
        }
    }

    fn add(&mut self, side: usize, delta: &Delta) -> Result<()> {
        match &mut self.sides[side] {
            Kept::Sorted(rows) => rows.update(delta).map(drop),
            Kept::Added(rows) => rows.update(delta),
        }
    }

    /// Probe the other side where its rows are only added: all pairs.
    fn meet_added(&self, side: usize, delta: &Delta, other: &Added, cx: &mut Context) -> Result<()> {
        let (mut probing, mut places): (Vec<u32>, Vec<Place>) = (Vec::new(), Vec::new());
        other.find(&delta.rows, &self.spec.sides[side].key, |row, place| {
            probing.push(row);
            places.push(place);
            if probing.len() == CANDIDATES {
                self.meet(side, delta, other, &std::mem::take(&mut probing), &std::mem::take(&mut places), cx)?;
            }
            Ok(())
        })?;
        self.meet(side, delta, other, &probing, &places, cx)
    }

    /// Give rows that ask beside rows that were only added, where the condition holds.
    fn meet(&self, side: usize, delta: &Delta, other: &Added, probing: &[u32], places: &[Place], cx: &mut Context) -> Result<()> {
        if probing.is_empty() {
            return Ok(());
        }
        let found = other.columns(places, self.spec.sides[1 - side].width)?;
        let (mut pairs, holds) = self.spec.side_by_side(side, &delta.rows, probing, found)?;
        let weight = |row: &u32| delta.weight(*row as usize);
        let diff = match holds {
            None => Int64Array::from_iter_values(probing.iter().map(weight)),
            Some(holds) => {
                pairs = compute::filter_record_batch(&pairs, &holds)?;
                Int64Array::from_iter_values(holds.values().set_indices().map(|pair| weight(&probing[pair])))
            }
        };
        let rows = self.batch(pairs.columns().to_vec(), diff.len())?;
        self.emit(Delta::new(rows, diff), cx)
    }

    /// What is there of the other side may gain or lose matches by a change of this one: row by row.
    fn update_rows(&mut self, side: usize, delta: &Delta, turns: Turns, cx: &mut Context) -> Result<()> {
        let other = 1 - side;
        let (gained, lost) = turns.into_rows(self.sorted(other)?)?;
        let had = Probe::new(&self.spec, other, &gained.rows, self.sorted(side)?)?.any()?;
        self.add(side, delta)?;
        self.turn(other, &select(&gained, &had, false)?, true, cx)?;
        let has = Probe::new(&self.spec, other, &lost.rows, self.sorted(side)?)?.any()?;
        self.turn(other, &select(&lost, &has, false)?, false, cx)
    }

    /// The same where only keys count: key by key.
    fn update_keys(&mut self, side: usize, delta: &Delta, cx: &mut Context) -> Result<()> {
        let other = 1 - side;
        let keys: Vec<ArrayRef> = self.spec.sides[side].key.iter().map(|c| Arc::clone(delta.rows.column(*c))).collect();
        let Kept::Sorted(rows) = &mut self.sides[side] else { return Err(not_sorted()) };
        let before = rows.find(&keys, delta.len())?;
        let mut first: HashMap<u32, (usize, bool), ahash::RandomState> = HashMap::default();
        let was = |number: Option<u32>| number.is_some_and(|number| rows.rows(number).next().is_some());
        let was: Vec<bool> = before.into_iter().map(was).collect();
        for (row, number) in rows.update(delta)?.into_iter().enumerate() {
            first.entry(number).or_insert((row, was[row]));
        }
        let rows = self.sorted(side)?;
        let is = |number: u32| rows.rows(number).next().is_some();
        let turned = |now: bool| {
            let rows = first.iter().filter(|(number, (_, was))| *was != now && is(**number) == now);
            let mut rows: Vec<u32> = rows.map(|(_, (row, _))| *row as u32).collect();
            rows.sort_unstable();
            UInt32Array::from(rows)
        };
        for now in [true, false] {
            let keys = take(&delta.rows, &turned(now))?;
            let rows = match &self.sides[other] {
                Kept::Added(rows) => rows.of_keys(&keys, &self.spec.sides[side].key)?,
                Kept::Sorted(rows) => {
                    let mut found = Vec::new();
                    Probe::new(&self.spec, side, &keys, rows)?.all(&mut found);
                    weighted(rows, &found)?
                }
            };
            self.turn(other, &rows, now, cx)?;
        }
        Ok(())
    }
}

impl Operator for Join {
    fn update(&mut self, port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let delta = self.matchable(port, delta, cx)?;
        if delta.is_empty() {
            return Ok(());
        }
        for side in &mut self.sides {
            if let Kept::Added(rows) = side {
                rows.finish_loading()?;
            }
        }
        if let Kept::Added(other) = &self.sides[1 - port] {
            if self.pairs {
                self.meet_added(port, &delta, other, cx)?;
            }
            return match self.single[1 - port] {
                Single::Nothing => self.add(port, &delta),
                _ => self.update_keys(port, &delta, cx),
            };
        }
        let (matched, turns) = if self.pairs || !self.spec.is_by_key() {
            self.probe(port, &delta, cx)?
        } else {
            (Probe::new(&self.spec, port, &delta.rows, self.sorted(1 - port)?)?.any()?, Turns::default())
        };
        if self.single[port] != Single::Nothing {
            self.give(port, &select(&delta, &matched, true)?, true, cx)?;
            self.give(port, &select(&delta, &matched, false)?, false, cx)?;
        }
        match self.single[1 - port] {
            Single::Nothing => self.add(port, &delta),
            _ if self.spec.is_by_key() => self.update_keys(port, &delta, cx),
            _ => self.update_rows(port, &delta, turns, cx),
        }
    }

    fn finish(&mut self, cx: &mut Context) -> Result<()> {
        for (rows, side) in self.sides.iter_mut().zip(&self.spec.sides) {
            let dead = side.dead_after.filter(|_| cx.frontier != NO_TIME).map(|delay| cx.frontier.saturating_sub(delay));
            match (rows, dead) {
                (Kept::Added(rows), Some(bound)) => rows.evict(bound)?,
                (Kept::Added(_), None) => {}
                (Kept::Sorted(rows), dead) => {
                    dead.map_or(Ok(()), |bound| rows.evict(bound))?;
                    rows.tidy()?;
                }
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Vec<&mut dyn StateTable> {
        fn table(side: &mut Kept) -> &mut dyn StateTable {
            match side {
                Kept::Sorted(rows) => rows,
                Kept::Added(rows) => rows,
            }
        }
        self.sides.iter_mut().map(table).collect()
    }
}

fn not_sorted() -> Error {
    Error::internal("a join looks for an order among rows that have none")
}

/// Rows of one side and how the weight of their matches changes, in the order in which they were met.
#[derive(Default)]
struct Turns {
    /// By the row's bytes.
    places: HashMap<Box<[u8]>, usize, ahash::RandomState>,
    rows: Vec<(Box<[u8]>, i64, i64)>,
}

impl Turns {
    fn note(&mut self, row: &[u8], weight: i64, change: i64) {
        match self.places.get(row) {
            Some(place) => self.rows[*place].2 += change,
            None => {
                self.places.insert(row.into(), self.rows.len());
                self.rows.push((row.into(), weight, change));
            }
        }
    }

    /// The rows that gained matches and those that lost some, with their weights.
    fn into_rows(self, side: &Arrangement) -> Result<(Delta, Delta)> {
        let of = |wanted: fn(i64) -> bool| {
            let rows = self.rows.iter().filter(|(_, _, change)| wanted(*change));
            let rows: Vec<(&[u8], i64)> = rows.map(|(row, weight, _)| (&**row, *weight)).collect();
            weighted(side, &rows)
        };
        Ok((of(|change| change > 0)?, of(|change| change < 0)?))
    }
}

/// Rows of an arrangement from their bytes.
fn weighted(side: &Arrangement, rows: &[(&[u8], i64)]) -> Result<Delta> {
    let decoded = side.decode(rows.iter().map(|(row, _)| *row))?;
    Ok(Delta::new(decoded, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight))))
}

/// The rows whose flag is as wanted.
fn select(delta: &Delta, flags: &[bool], wanted: bool) -> Result<Delta> {
    let keep: BooleanArray = flags.iter().map(|flag| Some(*flag == wanted)).collect();
    match keep.true_count() {
        all if all == delta.len() => Ok(delta.clone()),
        _ => delta.filter(&keep),
    }
}
