//! A side whose rows are only ever added: they stay in the batches that they came in.
//!
//! Rows that nobody takes away need no order and no bytes to be found again by. So a side of a join that only grows keeps its rows
//! as columns, and for each key the way from its newest row to the one before, and so on:
//!
//! ```text
//!   key number ──► newest row ──► row before ──► …          numbers of rows: in the order in which they came
//!   segments:   [ rows 0 … 8191 ][ 8192 … ][ … ]            a segment goes as a whole when the frontier has passed all its rows
//! ```
//!
//! A row costs a number for its key and the way to the row before; what is found is put together from the segments, which are
//! batches of the log where nothing was computed in between. Small segments are merged, each row a few times at most.
//!
//! Invariants. A key has a number while a row of it is in a segment. The ways of the rows of a segment that is gone stay until
//! all older ones are, because they may lead on to rows that are there.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};

use crate::delta::Delta;
use crate::delta::keys::Keys;
use crate::error::{Error, Result};
use crate::flow::Shard;
use crate::flow::arrangement::{Arrangement, Layout};
use crate::limits::BATCH_ROWS;
use crate::state::StateTable;
use crate::time::Micros;

/// No row.
const NONE: u64 = u64::MAX;

/// Rows of one side, by key.
pub(super) struct Added {
    name: &'static str,
    layout: Layout,
    shard: Shard,
    keys: Keys,
    /// By number of the key: its newest row, and how many rows of it there are.
    newest: Vec<(u64, u32)>,
    segments: VecDeque<Segment>,
    /// The number of the next row.
    next: u64,
    rows: usize,
    /// Rows before this one are in the newest checkpoint.
    saved: u64,
    /// Rows that are in it, and in no segment any more.
    gone: Vec<RecordBatch>,
    /// What a checkpoint gives, until all of it has come: it may take back what it gave before.
    loading: Option<Arrangement>,
}

/// Rows that follow one another.
struct Segment {
    first: u64,
    /// `None`: they are gone.
    rows: Option<RecordBatch>,
    numbers: Vec<u32>,
    /// Of each row, the one of its key that came before.
    before: Vec<u64>,
    /// The latest time of a row; `None`: some have none, and stay.
    latest: Option<Micros>,
}

/// Where a row is: its segment, and its place there.
pub(super) type Place = (u32, u32);

impl Added {
    pub fn new(name: &'static str, layout: Layout, shard: Shard) -> Result<Added> {
        let types: Vec<_> = layout.key.iter().map(|column| layout.schema.field(*column).data_type()).collect();
        // A checkpoint must be able to come back.
        Arrangement::new(name, Layout { time: None, ..layout.clone() }, shard)?;
        Ok(Added {
            name,
            keys: Keys::new(&types)?,
            layout,
            shard,
            newest: Vec::new(),
            segments: VecDeque::new(),
            next: 0,
            rows: 0,
            saved: 0,
            gone: Vec::new(),
            loading: None,
        })
    }

    fn key(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.layout.key.iter().map(|column| Arc::clone(rows.column(*column))).collect()
    }

    pub fn update(&mut self, delta: &Delta) -> Result<()> {
        self.finish_loading()?;
        let rows = delta.repeated().map_err(|error| error.with_context(self.name))?;
        self.push(rows)
    }

    fn push(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let numbers = self.keys.intern(&self.key(&rows), rows.num_rows())?;
        self.newest.resize(self.keys.end(), (NONE, 0));
        let first = self.next;
        let link = |(number, id): (&u32, u64)| {
            let (newest, count) = &mut self.newest[*number as usize];
            *count += 1;
            std::mem::replace(newest, id)
        };
        let before = numbers.iter().zip(first..).map(link).collect();
        let latest = self.layout.time.map(|time| latest(&rows, time)).transpose()?.flatten();
        self.next += rows.num_rows() as u64;
        self.rows += rows.num_rows();
        self.segments.push_back(Segment { first, rows: Some(rows), numbers, before, latest });
        self.merge()
    }

    /// Put the newest segments together while they are small and of about one size.
    fn merge(&mut self) -> Result<()> {
        while let [.., older, newer] = self.segments.make_contiguous() {
            let (Some(old), Some(new)) = (&older.rows, &newer.rows) else { return Ok(()) };
            let (a, b) = (old.num_rows(), new.num_rows());
            if a + b > BATCH_ROWS || a > 2 * b {
                return Ok(());
            }
            older.rows = Some(compute::concat_batches(&self.layout.schema, [old, new])?);
            older.latest = older.latest.zip(newer.latest).map(|(a, b)| a.max(b));
            older.numbers.append(&mut newer.numbers);
            older.before.append(&mut newer.before);
            self.segments.pop_back();
        }
        Ok(())
    }

    fn segment(&self, id: u64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.first <= id).checked_sub(1)
    }

    /// Tell of all rows with the keys of those that ask: `visit(asking row, place)`; it may stop by an error. A checkpoint's rows are
    /// found after [`Added::finish_loading`].
    pub fn find(&self, asking: &RecordBatch, key: &[usize], mut visit: impl FnMut(u32, Place) -> Result<()>) -> Result<()> {
        let key: Vec<ArrayRef> = key.iter().map(|column| Arc::clone(asking.column(*column))).collect();
        let numbers = self.keys.find(&key, asking.num_rows())?;
        for (row, number) in numbers.into_iter().enumerate() {
            let mut id = number.map_or(NONE, |number| self.newest[number as usize].0);
            while id != NONE
                && let Some(at) = self.segment(id)
            {
                let segment = &self.segments[at];
                let place = (id - segment.first) as usize;
                if segment.rows.is_some() {
                    visit(row as u32, (at as u32, place as u32))?;
                }
                id = segment.before[place];
            }
        }
        Ok(())
    }

    /// All rows with the keys of those that ask, each of which has another one.
    pub fn of_keys(&self, asking: &RecordBatch, key: &[usize]) -> Result<Delta> {
        let mut places = Vec::new();
        self.find(asking, key, |_, place| {
            places.push(place);
            Ok(())
        })?;
        if places.is_empty() {
            return Ok(Delta::append(RecordBatch::new_empty(Arc::clone(&self.layout.schema))));
        }
        let columns = self.columns(&places, self.layout.schema.fields().len())?;
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(Delta::append(RecordBatch::try_new_with_options(Arc::clone(&self.layout.schema), columns, &options)?))
    }

    /// The first columns of rows.
    pub fn columns(&self, places: &[Place], width: usize) -> Result<Vec<ArrayRef>> {
        let mut used: Vec<u32> = places.iter().map(|(segment, _)| *segment).collect();
        used.sort_unstable();
        used.dedup();
        let batches = used.iter().filter_map(|segment| self.segments[*segment as usize].rows.as_ref());
        let batches: Vec<&RecordBatch> = batches.collect();
        if let [only] = batches.as_slice() {
            let rows = UInt32Array::from_iter_values(places.iter().map(|(_, row)| *row));
            return Ok(compute::take_arrays(&only.columns()[..width], &rows, None)?);
        }
        let at = |segment: &u32| used.binary_search(segment).unwrap_or_default();
        let indices: Vec<(usize, usize)> = places.iter().map(|(segment, row)| (at(segment), *row as usize)).collect();
        let column = |column: usize| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            Ok(compute::interleave(&parts, &indices)?)
        };
        (0..width).map(column).collect()
    }

    /// Forget the segments of which all rows have a time before `bound`. Nobody may ask for them any more.
    pub fn evict(&mut self, bound: Micros) -> Result<()> {
        self.finish_loading()?;
        for segment in &mut self.segments {
            if segment.latest.is_none_or(|latest| latest >= bound) {
                continue;
            }
            let Some(rows) = segment.rows.take() else { continue };
            self.rows -= rows.num_rows();
            let saved = self.saved.saturating_sub(segment.first).min(rows.num_rows() as u64) as usize;
            if saved > 0 {
                self.gone.push(rows.slice(0, saved));
            }
            for number in std::mem::take(&mut segment.numbers) {
                let (newest, count) = &mut self.newest[number as usize];
                *count -= 1;
                if *count == 0 {
                    *newest = NONE;
                    self.keys.release(number);
                }
            }
        }
        while self.segments.front().is_some_and(|segment| segment.rows.is_none()) {
            self.segments.pop_front();
        }
        Ok(())
    }

    /// All of the checkpoint has come: its rows are there from now on.
    pub fn finish_loading(&mut self) -> Result<()> {
        let Some(loaded) = self.loading.take() else { return Ok(()) };
        for number in loaded.numbers().collect::<Vec<_>>() {
            let rows: Vec<&[u8]> =
                loaded.rows(number).flat_map(|(row, weight)| std::iter::repeat_n(row, weight.max(0) as usize)).collect();
            for part in rows.chunks(BATCH_ROWS) {
                self.push(loaded.decode(part.iter().copied())?)?;
            }
        }
        self.saved = self.next;
        Ok(())
    }
}

/// The latest time of the rows, if all have one.
fn latest(rows: &RecordBatch, time: usize) -> Result<Option<Micros>> {
    let column = rows.column(time);
    let times = column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("rows are kept by a time of type {}", column.data_type())))?;
    Ok(if times.null_count() > 0 { None } else { compute::max(times) })
}

impl StateTable for Added {
    fn name(&self) -> &'static str {
        self.name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.layout.schema)
    }

    fn key_columns(&self) -> usize {
        0
    }

    fn changes(&mut self) -> Result<Vec<Delta>> {
        self.finish_loading()?;
        let gone = std::mem::take(&mut self.gone).into_iter().map(|rows| Delta::weighted(rows, -1));
        let from = self.segment(self.saved).unwrap_or(0);
        let new = self.segments.range(from.min(self.segments.len())..).filter_map(|segment| {
            let rows = segment.rows.as_ref()?;
            let saved = self.saved.saturating_sub(segment.first).min(rows.num_rows() as u64) as usize;
            (saved < rows.num_rows()).then(|| Delta::append(rows.slice(saved, rows.num_rows() - saved)))
        });
        let changes = gone.chain(new).collect();
        self.saved = self.next;
        Ok(changes)
    }

    fn load(&mut self, delta: Delta) -> Result<()> {
        if self.loading.is_none() {
            // Bytes tell which of the rows that a checkpoint gave it has taken back.
            let layout = Layout { time: None, ..self.layout.clone() };
            self.loading = Some(Arrangement::new(self.name, layout, self.shard)?);
        }
        self.loading.as_mut().map_or(Ok(()), |loading| loading.load(delta))
    }

    fn rows(&self) -> usize {
        self.rows + self.loading.as_ref().map_or(0, StateTable::rows)
    }

    fn bytes(&self) -> usize {
        let rows = self.segments.iter().filter_map(|segment| segment.rows.as_ref());
        self.keys.bytes()
            + rows.map(RecordBatch::get_array_memory_size).sum::<usize>()
            + self.newest.capacity() * size_of::<(u64, u32)>()
            + self.segments.iter().map(|s| s.before.capacity() * 8 + s.numbers.capacity() * 4).sum::<usize>()
            + self.loading.as_ref().map_or(0, StateTable::bytes)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rand::prelude::*;

    use super::*;

    fn added(shard: Shard) -> Added {
        let fields = vec![Field::new("k", DataType::Int64, true), Field::new("at", crate::time::TIMESTAMP, true)];
        let layout = Layout { schema: Arc::new(Schema::new(fields)), key: vec![0], time: Some(1), order: Vec::new() };
        Added::new("rows", layout, shard).unwrap()
    }

    fn batch(rows: &[(i64, i64)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_new(added(Shard::WHOLE).schema(), vec![keys, times]).unwrap()
    }

    /// The times of the rows of a key, sorted.
    fn found(added: &mut Added, key: i64) -> Vec<i64> {
        let mut places = Vec::new();
        added.finish_loading().unwrap();
        added
            .find(&batch(&[(key, 0)]), &[0], |row, place| {
                assert_eq!(row, 0);
                places.push(place);
                Ok(())
            })
            .unwrap();
        if places.is_empty() {
            return Vec::new();
        }
        let columns = added.columns(&places, 2).unwrap();
        assert!(columns[0].as_primitive::<Int64Type>().values().iter().all(|k| *k == key));
        let mut times = columns[1].as_primitive::<TimestampMicrosecondType>().values().to_vec();
        times.sort_unstable();
        times
    }

    /// Rows come a few or many at a time, about in the order of their times; what the frontier has passed goes, and neither it nor a
    /// restart from checkpoints, with however many shards, takes anything else.
    #[test]
    fn rows_are_found_until_the_frontier_has_passed_them() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut shards = vec![added(Shard::WHOLE)];
        let mut saved: Vec<Delta> = Vec::new();
        let mut present: Vec<(i64, i64)> = Vec::new();
        let mut frontier = 0;
        for round in 0..400 {
            let count = *[1, 1, 3, 700].choose(&mut rng).unwrap();
            let rows: Vec<(i64, i64)> =
                (0..count).map(|_| (rng.random_range(0..5), frontier + rng.random_range(0..50))).collect();
            present.extend(&rows);
            for shard in &mut shards {
                let delta = Delta::append(batch(&rows));
                let owned = shard.shard.owned(&[Arc::clone(delta.rows.column(0))], delta.len()).unwrap();
                shard.update(&delta.take(&owned).unwrap()).unwrap();
            }
            if rng.random_bool(0.3) {
                frontier += rng.random_range(0..40);
                shards.iter_mut().for_each(|shard| shard.evict(frontier).unwrap());
                present.retain(|(_, at)| *at >= frontier);
            }
            if rng.random_bool(0.2) {
                saved.extend(shards.iter_mut().flat_map(|shard| shard.changes().unwrap()));
            }
            if rng.random_bool(0.05) {
                saved.extend(shards.iter_mut().flat_map(|shard| shard.changes().unwrap()));
                let of = rng.random_range(1..4);
                shards = (0..of).map(|index| added(Shard { index, of })).collect();
                for shard in &mut shards {
                    saved.iter().for_each(|delta| shard.load(delta.clone()).unwrap());
                }
            }
            for key in 0..5 {
                let mut expected: Vec<i64> = present.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
                expected.sort_unstable();
                let mut there: Vec<i64> = shards.iter_mut().flat_map(|shard| found(shard, key)).collect();
                there.sort_unstable();
                // Rows stay while others of their segment do.
                there.retain(|at| *at >= frontier);
                assert_eq!(there, expected, "round {round}, key {key}");
            }
        }
        shards.iter_mut().for_each(|shard| shard.evict(Micros::MAX).unwrap());
        assert_eq!(shards.iter().map(StateTable::rows).sum::<usize>(), 0);
        assert!(shards.iter().all(|shard| shard.segments.is_empty()));
        saved.extend(shards.iter_mut().flat_map(|shard| shard.changes().unwrap()));
        assert_eq!(saved.iter().map(|d| (0..d.len()).map(|row| d.weight(row)).sum::<i64>()).sum::<i64>(), 0);
    }

    #[test]
    fn equal_rows_may_come_as_one() {
        let mut added = added(Shard::WHOLE);
        added.update(&Delta::new(batch(&[(1, 10), (2, 20), (1, 30)]), Int64Array::from(vec![2, 0, 1]))).unwrap();
        assert_eq!(found(&mut added, 1), [10, 10, 30]);
        assert_eq!(found(&mut added, 2), [0; 0]);
    }

    #[test]
    fn what_is_only_added_is_not_taken_away() {
        let error = added(Shard::WHOLE).update(&Delta::weighted(batch(&[(1, 1)]), -1)).unwrap_err();
        assert!(error.message().contains("only added"), "{error}");
    }
}
