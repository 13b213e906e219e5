//! Where the rows of a store are: a list of segments that grows at the end and is merged as it grows.
//!
//! Rows are only ever added and killed. Small neighbours are merged when [`FAN`] of a size have come together, so a row is
//! copied a few times in its life however small the steps are; a segment is rewritten when most of its rows are dead. Merging
//! keeps the order in which rows came.
//!
//! A store with an index numbers its keys, and each row remembers its number (and, where equal rows may be there several
//! times, which copy it is), so that a merge can say where every row has gone without looking at a key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute;
use arrow::datatypes::SchemaRef;

use super::segment::{self, Live, Segment};
use super::version::Part;
use crate::error::Result;
use crate::limits::SEGMENT_ROWS;

/// This many neighbours of a size are merged.
const FAN: usize = 4;

/// A place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub slot: u32,
    pub row: u32,
}

/// Who owns a row: the number of its key, and which copy of several equal rows it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub id: u32,
    pub copy: u32,
}

struct Slot {
    segment: Arc<Segment>,
    live: Option<Live>,
    rows: usize,
    /// By row; empty while the store has no index.
    owners: Vec<Owner>,
}

impl Slot {
    fn dead(&self) -> usize {
        self.segment.rows() - self.rows
    }
}

pub(super) struct Segments {
    schema: SchemaRef,
    /// Places name slots, so a slot stays where it is while it has rows.
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slots in use, in the order of their rows.
    order: Vec<u32>,
}

impl Segments {
    pub fn new(schema: SchemaRef) -> Segments {
        Segments { schema, slots: Vec::new(), free: Vec::new(), order: Vec::new() }
    }

    /// Add rows at the end; `owners` is empty or has one for each. Says where they are.
    pub fn append(&mut self, rows: &RecordBatch, owners: &[Owner], mut placed: impl FnMut(Owner, Place)) {
        for start in (0..rows.num_rows()).step_by(SEGMENT_ROWS) {
            let length = SEGMENT_ROWS.min(rows.num_rows() - start);
            let owners = if owners.is_empty() { Vec::new() } else { owners[start..start + length].to_vec() };
            let slot = self.put(rows.slice(start, length), owners, &mut placed);
            self.order.push(slot);
        }
    }

    fn put(&mut self, rows: RecordBatch, owners: Vec<Owner>, placed: &mut impl FnMut(Owner, Place)) -> u32 {
        let filled = Slot { rows: rows.num_rows(), segment: Arc::new(Segment::new(rows)), live: None, owners };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = filled;
                slot
            }
            None => {
                self.slots.push(filled);
                u32::try_from(self.slots.len() - 1).expect("a store has less than 2^32 segments")
            }
        };
        for (row, owner) in self.slots[slot as usize].owners.iter().enumerate() {
            placed(*owner, Place { slot, row: row as u32 });
        }
        slot
    }

    pub fn kill(&mut self, place: Place) {
        let slot = &mut self.slots[place.slot as usize];
        let live = slot.live.get_or_insert_with(|| Live::all(slot.segment.rows()));
        debug_assert!(live.is(place.row), "a row dies once");
        live.kill(place.row);
        slot.rows -= 1;
    }

    /// The rows at these places.
    pub fn read(&self, places: &[Place]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.slots.iter().map(|slot| &slot.segment.batch).collect();
        let at: Vec<(usize, usize)> = places.iter().map(|p| (p.slot as usize, p.row as usize)).collect();
        segment::gather(&self.schema, &batches, &at, None)
    }

    /// Give owners to rows that had none.
    pub fn number(&mut self, mut owners: impl FnMut(&RecordBatch, u32) -> Result<Vec<Owner>>) -> Result<()> {
        for slot in &self.order {
            let filled = &mut self.slots[*slot as usize];
            debug_assert!(filled.live.is_none(), "without an index no row dies");
            filled.owners = owners(&filled.segment.batch, *slot)?;
        }
        Ok(())
    }

    pub fn parts(&self) -> Vec<Part> {
        let part = |slot: &u32| {
            let Slot { segment, live, rows, .. } = &self.slots[*slot as usize];
            Part { segment: segment.clone(), live: live.clone(), rows: *rows }
        };
        self.order.iter().map(part).collect()
    }

    pub fn bytes(&self) -> usize {
        let bytes = |slot: &u32| {
            let Slot { segment, owners, .. } = &self.slots[*slot as usize];
            segment.bytes + segment.rows() / 8 + owners.capacity() * size_of::<Owner>()
        };
        self.order.iter().map(bytes).sum()
    }

    /// Merge and rewrite what has become too small or too dead; says where the rows have gone.
    pub fn tidy(&mut self, mut placed: impl FnMut(Owner, Place)) -> Result<()> {
        self.drop_empty();
        for at in 0..self.order.len() {
            let slot = &self.slots[self.order[at] as usize];
            if slot.dead() > slot.rows {
                self.merge(at, 1, &mut placed)?;
            }
        }
        for size in 0..=size_class(SEGMENT_ROWS) {
            while let Some((first, count)) = self.run(size) {
                self.merge_run(first, count, &mut placed)?;
            }
        }
        Ok(())
    }

    fn drop_empty(&mut self) {
        let (slots, free, schema) = (&mut self.slots, &mut self.free, &self.schema);
        self.order.retain(|slot| {
            let filled = &mut slots[*slot as usize];
            if filled.rows == 0 {
                *filled = empty(schema);
                free.push(*slot);
                return false;
            }
            true
        });
    }

    fn rows(&self, at: usize) -> usize {
        self.slots[self.order[at] as usize].rows
    }

    /// Neighbours of at most this size of which [`FAN`] have it: first and how many. Full segments are left alone.
    fn run(&self, size: u32) -> Option<(usize, usize)> {
        let (mut first, mut count) = (0, 0);
        for at in 0..=self.order.len() {
            let rows = if at < self.order.len() { self.rows(at) } else { usize::MAX };
            if rows < SEGMENT_ROWS / 2 && size_class(rows) <= size {
                count += usize::from(size_class(rows) == size);
                continue;
            }
            if count >= FAN {
                return Some((first, at - first));
            }
            (first, count) = (at + 1, 0);
        }
        None
    }

    /// Merge neighbours to segments of bounded size. Each is less than half of that, so at least half of them go.
    fn merge_run(&mut self, first: usize, count: usize, placed: &mut impl FnMut(Owner, Place)) -> Result<()> {
        let mut groups = vec![(0, 0)];
        for at in first..first + count {
            let rows = self.rows(at);
            match groups.last_mut() {
                Some((members, sum)) if *sum + rows <= SEGMENT_ROWS => (*members, *sum) = (*members + 1, *sum + rows),
                _ => groups.push((1, rows)),
            }
        }
        for (at, (members, _)) in groups.iter().enumerate() {
            if *members > 1 {
                self.merge(first + at, *members, placed)?;
            }
        }
        Ok(())
    }

    /// Replace neighbours by one segment of their live rows.
    fn merge(&mut self, first: usize, count: usize, placed: &mut impl FnMut(Owner, Place)) -> Result<()> {
        let members: Vec<u32> = self.order[first..first + count].to_vec();
        let rows = members.iter().map(|slot| self.slots[*slot as usize].rows).sum();
        let (mut batches, mut owners) = (Vec::with_capacity(count), Vec::with_capacity(rows));
        for slot in &members {
            let Slot { segment, live, owners: all, .. } = &self.slots[*slot as usize];
            match live {
                None => {
                    batches.push(segment.batch.clone());
                    owners.extend_from_slice(all);
                }
                Some(live) => {
                    batches.push(compute::filter_record_batch(&segment.batch, &live.slice(0, segment.rows()))?);
                    let kept = all.iter().enumerate().filter(|(row, _)| live.is(*row as u32));
                    owners.extend(kept.map(|(_, owner)| *owner));
                }
            }
        }
        let merged = match batches.as_slice() {
            [one] => one.clone(),
            several => segment::concat(&self.schema, several, rows)?,
        };
        let slot = self.put(segment::compact(merged)?, owners, placed);
        for slot in &members {
            self.slots[*slot as usize] = empty(&self.schema);
        }
        self.free.extend(&members);
        self.order.splice(first..first + count, [slot]);
        Ok(())
    }
}

/// What stands in a slot that is not in use.
fn empty(schema: &SchemaRef) -> Slot {
    Slot { segment: Arc::new(Segment::new(RecordBatch::new_empty(schema.clone()))), live: None, rows: 0, owners: Vec::new() }
}

/// Sizes that differ by less than [`FAN`] times are of a class.
fn size_class(rows: usize) -> u32 {
    rows.max(1).ilog(FAN)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rstest::rstest;

    use super::*;

    fn rows(values: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap()
    }

    fn segments() -> Segments {
        Segments::new(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)])))
    }

    fn values(segments: &Segments) -> Vec<i64> {
        let batches = segments.parts().iter().map(|p| p.read(0, p.segment.rows(), None).unwrap()).collect::<Vec<_>>();
        batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[rstest]
    #[case(1, 5000)]
    #[case(3, 3000)]
    #[case(1000, 400)]
    #[case(20_000, 50)]
    #[case(70_000, 10)]
    fn many_steps_make_few_segments_and_keep_the_order(#[case] step: i64, #[case] steps: i64) {
        let mut segments = segments();
        for at in 0..steps {
            segments.append(&rows(at * step..(at + 1) * step), &[], |_, _| ());
            segments.tidy(|_, _| ()).unwrap();
        }
        let full = (step * steps) as usize / (SEGMENT_ROWS / 2);
        assert!(segments.order.len() <= full + 3 * 9, "{} segments", segments.order.len());
        assert!(segments.slots.len() <= full + 4 * 9);
        assert!(values(&segments).into_iter().eq(0..step * steps));
    }

    #[test]
    fn dead_segments_are_rewritten_and_rows_are_followed() {
        let mut segments = segments();
        let mut places = vec![None; 10_000];
        for at in 0..10 {
            let owners: Vec<Owner> = (at * 1000..(at + 1) * 1000).map(|id| Owner { id, copy: 0 }).collect();
            let (start, end) = (i64::from(at) * 1000, i64::from(at + 1) * 1000);
            segments.append(&rows(start..end), &owners, |owner, place| places[owner.id as usize] = Some(place));
        }
        for id in (0..10_000).filter(|id| id % 3 != 0) {
            segments.kill(places[id].take().unwrap());
        }
        segments.tidy(|owner, place| places[owner.id as usize] = Some(place)).unwrap();
        assert!(segments.parts().iter().all(|part| part.live.is_none()), "no dead row is left");
        assert!(values(&segments).into_iter().eq((0..10_000).step_by(3)));
        let left: Vec<Place> = places.iter().copied().flatten().collect();
        let read = segments.read(&left).unwrap();
        assert!(read.column(0).as_primitive::<Int64Type>().values().iter().copied().eq((0..10_000).step_by(3)));
    }
}
