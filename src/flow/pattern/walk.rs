//! A walk: a [`Scan`] over rows of an arrangement, which are decoded as it comes to them.
//!
//! What a change does is the difference of two walks, one over the rows as they were and one as they are ([`Loader::meet`]). Both
//! begin at a place that the change cannot have moved ([`Resume`]), and end where they stand at the same row behind it.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::Int64Type;

use super::Spec;
use super::scan::Scan;
use super::search::Attempt;
use super::values::Rows;
use crate::error::Result;
use crate::flow::arrangement::Arrangement;

/// The mark of a row that has not been passed.
pub const LIVE: i64 = i64::MAX;

/// Rows decoded at once, at least.
const PORTION: usize = 64;

/// Attempts after which a walk remembers its place.
const EVERY: usize = 32;

/// A place on the way through a partition's rows: after a row, and before the next one.
#[derive(Clone, Debug)]
pub struct Resume {
    after: Box<[u8]>,
    /// The last row that attempts before this place looked at.
    looked: Box<[u8]>,
    /// How many matches there were before it.
    number: i64,
}

impl Resume {
    /// A change that begins at this row does not move it.
    pub fn stands(&self, first: &[u8]) -> bool {
        *self.looked < *first
    }

    /// It is at this row or after it.
    pub fn is_from(&self, last: &[u8]) -> bool {
        *self.after >= *last
    }
}

/// How far attempts have looked.
enum Looked {
    Upto(Box<[u8]>),
    /// To the end of the partition: any row that comes there may change them.
    AtEnd,
}

pub struct Walk {
    pub scan: Scan,
    codes: Vec<Box<[u8]>>,
    /// Of each row: which of the codes it has.
    code_of: Vec<u32>,
    looked: Looked,
    places: Vec<Resume>,
    /// Attempts since the last of the places.
    since: usize,
}

impl Walk {
    fn code(&self, row: usize) -> &[u8] {
        &self.codes[self.code_of[row] as usize]
    }

    /// The code of the last row that was passed.
    pub fn last_code(&self) -> &[u8] {
        self.code(self.scan.at - 1)
    }

    /// The row where it stands, told apart from equal ones by how many of them are before it. `None`: behind all rows.
    fn place(&self) -> Option<(&[u8], usize)> {
        let at = self.scan.at;
        let code = *self.code_of.get(at)?;
        let before = self.code_of[..at].iter().rev().take_while(|other| **other == code).count();
        Some((&self.codes[code as usize], before))
    }

    /// All rows that the next attempts look back at are after this one.
    fn is_past(&self, last: &[u8], back: usize) -> bool {
        let at = self.scan.at;
        let first = at.saturating_sub(back);
        self.code_of.get(first).is_none_or(|code| *self.codes[*code as usize] > *last)
    }

    /// The rows that were passed: the first and the last code of which all are, and how many there are of the next.
    pub fn passed(&self) -> (&[u8], Option<&[u8]>, usize) {
        let at = self.scan.at;
        let rest = match self.place() {
            Some((_, before)) => before,
            None => 0,
        };
        (&self.codes[0], (at > rest).then(|| self.code(at - rest - 1)), rest)
    }

    /// An attempt was made: remember how far it looked, go on, and perhaps remember the place.
    fn advance(&mut self, spec: &Spec, attempt: Attempt) -> Result<()> {
        if attempt.at_end {
            self.looked = Looked::AtEnd;
        } else if let Some(code) = attempt.examined.checked_sub(1).map(|row| self.code(row))
            && let Looked::Upto(known) = &self.looked
            && **known < *code
        {
            self.looked = Looked::Upto(code.into());
        }
        self.scan.advance(spec, attempt, true)?;
        self.since += 1;
        let between = self.place().is_some_and(|(_, before)| before == 0);
        if let Looked::Upto(looked) = &self.looked
            && self.since >= EVERY
            && between
        {
            let place = Resume { after: self.last_code().into(), looked: looked.clone(), number: self.scan.number };
            self.places.push(place);
            self.since = 0;
        }
        Ok(())
    }

    /// The places of a partition after this walk, which began at one of them and ended where the former one was too (`met`), or
    /// at the end.
    pub fn renew(self, places: &mut Vec<Resume>, from: Option<usize>, met: bool) {
        let behind = places.split_off(from.map_or(0, |from| from + 1));
        let last = self.scan.at.checked_sub(1).map(|_| Box::<[u8]>::from(self.last_code()));
        places.extend(self.places);
        let (Looked::Upto(looked), Some(last), true) = (self.looked, last, met) else { return };
        places.extend(behind.into_iter().filter(|place| place.is_from(&last)).map(|place| {
            let looked = if *place.looked < *looked { looked.clone() } else { place.looked };
            Resume { looked, ..place }
        }));
    }
}

/// Reads rows for walks.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    pub spec: &'a Spec,
    pub rows: &'a Arrangement,
    /// Behind the matcher's columns, rows have a mark: live, or passed by so many matches.
    pub marked: bool,
}

impl Loader<'_> {
    /// A walk from a place, or from the first row that was not passed. All rows up to `through` are there from the beginning.
    pub fn walk(&self, number: u32, from: Option<&Resume>, through: Option<&[u8]>) -> Result<Walk> {
        let mut taken = from.map_or(Vec::new(), |from| self.before(number, &from.after));
        let passed: usize = taken.iter().map(|(_, count)| count).sum();
        let start = from.map_or(Bound::Unbounded, |from| Bound::Excluded(&*from.after));
        let to_end = self.take(number, start, PORTION, through, &mut taken);
        let (batch, marks) = self.decode(&taken)?;
        let first = taken.first().map(|(code, _)| code.clone());
        let (codes, code_of) = spread(taken, 0);
        let marked = marks.iter().flat_map(|marks| marks.values().iter().copied().take_while(|mark| *mark != LIVE));
        let (at, matches) = match from {
            Some(from) => (passed, from.number),
            None => (marked.clone().count(), marked.last().unwrap_or(0)),
        };
        // Patterns that ask for the beginning have all rows kept.
        let from_start = from.is_none() || first.is_none();
        let rows = Rows::new(self.spec, batch, from_start, to_end)?;
        let looked = Looked::Upto(from.map_or(Box::default(), |from| from.looked.clone()));
        let scan = Scan::new(self.spec, rows, at, matches);
        Ok(Walk { scan, codes, code_of, looked, places: Vec::new(), since: 0 })
    }

    /// The rows that attempts behind this one look back at.
    fn before(&self, number: u32, code: &[u8]) -> Vec<(Box<[u8]>, usize)> {
        let (mut taken, mut missing) = (Vec::new(), self.spec.back());
        let mut rows = self.rows.range(number, Bound::Unbounded, Bound::Included(code)).rev();
        while let Some((code, weight)) = rows.next().filter(|_| missing > 0) {
            let count = times(weight);
            taken.push((code.into(), count));
            missing = missing.saturating_sub(count);
        }
        taken.reverse();
        taken
    }

    /// Add rows from there on: so many at least, and all up to `through`. Says whether these were all.
    fn take(
        &self,
        number: u32,
        from: Bound<&[u8]>,
        least: usize,
        through: Option<&[u8]>,
        taken: &mut Vec<(Box<[u8]>, usize)>,
    ) -> bool {
        let mut count = 0;
        for (code, weight) in self.rows.range(number, from, Bound::Unbounded) {
            if count >= least && through.is_none_or(|through| code > through) {
                return false;
            }
            count += times(weight);
            taken.push((code.into(), times(weight)));
        }
        true
    }

    /// The rows as columns, and their marks.
    fn decode(&self, taken: &[(Box<[u8]>, usize)]) -> Result<(RecordBatch, Option<Int64Array>)> {
        let mut rows = self.rows.decode(taken.iter().map(|(code, _)| &**code))?;
        if taken.iter().any(|(_, count)| *count != 1) {
            let repeated = taken.iter().enumerate().flat_map(|(n, (_, count))| std::iter::repeat_n(n as u32, *count));
            rows = compute::take_record_batch(&rows, &UInt32Array::from_iter_values(repeated))?;
        }
        if !self.marked {
            return Ok((rows, None));
        }
        let count = rows.num_rows();
        let (_, mut columns, _) = rows.into_parts();
        let marks = columns.pop().map(|marks| marks.as_primitive::<Int64Type>().clone());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok((RecordBatch::try_new_with_options(Arc::clone(&self.spec.columns), columns, &options)?, marks))
    }

    /// Read as many rows again as there are.
    fn extend(&self, number: u32, walk: &mut Walk) -> Result<()> {
        let last = walk.codes.last().cloned();
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut taken = Vec::new();
        let to_end = self.take(number, from, walk.code_of.len().max(PORTION), None, &mut taken);
        let (more, _) = self.decode(&taken)?;
        let (codes, code_of) = spread(taken, walk.codes.len());
        walk.codes.extend(codes);
        walk.code_of.extend(code_of);
        let rows = &walk.scan.rows;
        let batch = compute::concat_batches(&self.spec.columns, [&rows.batch, &more])?;
        let rows = Rows::new(self.spec, batch, rows.from_start, to_end)?;
        walk.scan.extend(rows);
        Ok(())
    }

    /// Whether no row is left where an attempt might start.
    pub fn is_done(&self, number: u32, walk: &mut Walk) -> Result<bool> {
        while walk.scan.is_done() && !walk.scan.rows.to_end {
            self.extend(number, walk)?;
        }
        Ok(walk.scan.is_done())
    }

    /// The next attempt, with as many rows as it takes.
    pub fn attempt(&self, number: u32, walk: &mut Walk) -> Result<Attempt> {
        loop {
            if let Some(attempt) = walk.scan.attempt(self.spec)? {
                return Ok(attempt);
            }
            self.extend(number, walk)?;
        }
    }

    /// Let two walks go on until they stand at the same row, behind the last that differs and all that looks back at it; from
    /// there on they would go the same way. Says whether there is such a row.
    pub fn meet(&self, number: u32, before: &mut Walk, after: &mut Walk, last: &[u8]) -> Result<bool> {
        let back = self.spec.back();
        loop {
            if self.is_done(number, before)? & self.is_done(number, after)? {
                return Ok(false);
            }
            let (former, now) = (before.place(), after.place());
            let same_number = !self.spec.counts() || before.scan.number == after.scan.number;
            if former == now && same_number && before.is_past(last, back) && after.is_past(last, back) {
                return Ok(true);
            }
            let walk = match (former, now) {
                (Some(former), Some(now)) if former > now => &mut *after,
                (None, _) => &mut *after,
                _ => &mut *before,
            };
            let attempt = self.attempt(number, walk)?;
            walk.advance(self.spec, attempt)?;
        }
    }
}

fn times(weight: i64) -> usize {
    usize::try_from(weight).unwrap_or(0)
}

/// The codes, and of each row which of them it has; the first code is the n-th.
fn spread(taken: Vec<(Box<[u8]>, usize)>, first: usize) -> (Vec<Box<[u8]>>, Vec<u32>) {
    let code_of = taken.iter().enumerate().flat_map(|(n, (_, count))| std::iter::repeat_n((first + n) as u32, *count)).collect();
    (taken.into_iter().map(|(code, _)| code).collect(), code_of)
}
