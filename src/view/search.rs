//! Finding the rows of a version that have some values, a bounded number at a time.
//!
//! Each segment knows its rows by the hash of the values ([`Segment::candidates`](super::segment::Segment::candidates)); the
//! few that only share the hash are told apart here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute;

use super::segment;
use super::version::Version;
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS;

/// A row of a version: which part, and which row of it.
pub(super) type Place = (usize, usize);

/// What is looked up, and how far that has come.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// Of the version.
    columns: Arc<[usize]>,
    /// One array per column; a row for each combination that is asked for.
    values: Vec<ArrayRef>,
    hashes: Vec<u64>,
    /// The combination, and the part of the version to look in next.
    next: (usize, usize),
}

impl Search {
    pub fn new(version: &Version, columns: Arc<[usize]>, values: Vec<ArrayRef>) -> Result<Search> {
        let asked = values.first().map_or(0, |column| column.len());
        let schema = version.schema();
        let fits =
            |(column, array): (&usize, &ArrayRef)| schema.field(*column).data_type() == array.data_type() && array.len() == asked;
        if columns.is_empty() || values.len() != columns.len() || !columns.iter().zip(&values).all(fits) {
            return Err(Error::internal("a look-up needs one array of the same type and length for each of its columns"));
        }
        let hashes = segment::hashes(&values, asked)?;
        Ok(Search { columns, values, hashes, next: (0, 0) })
    }

    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// How many combinations of values are asked for.
    pub fn asked(&self) -> usize {
        self.hashes.len()
    }

    /// Nothing is left to be found.
    pub fn is_done(&self) -> bool {
        self.next.0 == self.hashes.len()
    }

    /// Where the next rows are: about as many as are wanted, at most a segment more. In the order of the combinations, NULL
    /// finds NULL.
    pub fn next(&mut self, version: &Version, wanted: usize) -> Result<Vec<Place>> {
        let mut found = Vec::new();
        while found.len() < wanted && !self.is_done() {
            let least = (wanted - found.len()).min(BATCH_ROWS);
            self.extend(version, &mut found, least)?;
        }
        Ok(found)
    }

    /// Look at so many rows at least.
    fn extend(&mut self, version: &Version, found: &mut Vec<Place>, least: usize) -> Result<()> {
        let parts = version.parts();
        // Rows that have the hash of a combination, and which it is.
        let (mut places, mut combinations) = (Vec::new(), Vec::new());
        while places.len() < least && !self.is_done() {
            let (combination, number) = self.next;
            if let Some(part) = parts.get(number) {
                let candidates = part.segment.candidates(&self.columns, self.hashes[combination])?;
                places.extend(candidates.filter(|row| part.has(*row)).map(|row| (number, row as usize)));
                combinations.resize(places.len(), combination as u32);
            }
            self.next = if number + 1 < parts.len() { (combination, number + 1) } else { (combination + 1, 0) };
        }
        if places.is_empty() {
            return Ok(());
        }
        let combinations = UInt32Array::from(combinations);
        let mut same = vec![true; places.len()];
        for (column, values) in self.columns.iter().zip(&self.values) {
            let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.segment.batch.column(*column).as_ref()).collect();
            let (have, want) = (compute::interleave(&arrays, &places)?, compute::take(values, &combinations, None)?);
            let equal = segment::same_rows(&[have], &[want], places.len())?;
            same.iter_mut().zip(equal.values()).for_each(|(same, equal)| *same &= equal);
        }
        found.extend(places.into_iter().zip(same).filter_map(|(place, same)| same.then_some(place)));
        Ok(())
    }
}
