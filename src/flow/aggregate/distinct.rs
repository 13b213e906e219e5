//! `count(DISTINCT x)`: how many values are there, each with its weight.
//!
//! The values of all groups are keys of one table, because most groups of a query have few of them; a group holds a list of its own
//! values, by which they go with it.
//!
//! ```text
//!   (group, value) ──► number ──► weight, next and former value of the group
//! ```
//!
//! Where rows are only ever added, a value is there or is not: its weight stays 1, and only its first row is news to a checkpoint.
//!
//! Invariant. A value has a number while its weight is not zero.

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute;
use arrow::datatypes::DataType;
use std::sync::Arc;

use super::accumulate::{Accumulator, Values};
use crate::delta::keys::Keys;
use crate::error::{Error, Result};

/// No value.
const NONE: u32 = u32::MAX;

pub struct Distinct {
    append_only: bool,
    /// Of the one argument.
    types: Vec<DataType>,
    keys: Keys,
    values: Vec<Value>,
    groups: Vec<Group>,
    /// Rows of the last batch that brought a new value, if all that matters is which values there are.
    news: Vec<u32>,
}

/// A value of a group, by its number.
#[derive(Clone)]
struct Value {
    weight: i64,
    former: u32,
    next: u32,
}

#[derive(Clone)]
struct Group {
    first: u32,
    count: i64,
    /// Values whose weight is below zero.
    negative: u32,
}

impl Value {
    const ABSENT: Value = Value { weight: 0, former: NONE, next: NONE };
}

impl Group {
    const EMPTY: Group = Group { first: NONE, count: 0, negative: 0 };
}

impl Distinct {
    /// `types`: of the arguments, which is one.
    pub fn new(types: Vec<DataType>, append_only: bool) -> Result<Distinct> {
        let key: Vec<&DataType> = std::iter::once(&DataType::UInt32).chain(&types).collect();
        let keys = Keys::new(&key)?;
        Ok(Distinct { append_only, types, keys, values: Vec::new(), groups: Vec::new(), news: Vec::new() })
    }

    /// Change the weight of a value. A value that is gone keeps its number.
    fn add(&mut self, group: u32, number: u32, weight: i64) {
        let was = self.values[number as usize].weight;
        let is = if self.append_only { 1 } else { was + weight };
        self.values[number as usize].weight = is;
        let held = &mut self.groups[group as usize];
        held.negative = held.negative + u32::from(is < 0) - u32::from(was < 0);
        match (was, is) {
            (0, 0) => {}
            (0, _) => self.link(group, number),
            (_, 0) => self.unlink(group, number),
            _ => {}
        }
    }

    fn link(&mut self, group: u32, number: u32) {
        let held = &mut self.groups[group as usize];
        let next = std::mem::replace(&mut held.first, number);
        held.count += 1;
        self.values[number as usize].former = NONE;
        self.values[number as usize].next = next;
        if next != NONE {
            self.values[next as usize].former = number;
        }
    }

    fn unlink(&mut self, group: u32, number: u32) {
        let Value { former, next, .. } = self.values[number as usize];
        let held = &mut self.groups[group as usize];
        held.count -= 1;
        match former {
            NONE => held.first = next,
            former => self.values[former as usize].next = next,
        }
        if next != NONE {
            self.values[next as usize].former = former;
        }
    }

    /// The numbers of a group's values.
    fn numbers(&self, group: u32) -> Vec<u32> {
        let there = |number: u32| (number != NONE).then_some(number);
        let first = there(self.groups[group as usize].first);
        std::iter::successors(first, |number| there(self.values[*number as usize].next)).collect()
    }

    /// Give back the numbers of values that are gone.
    fn release(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let mut gone: Vec<u32> = numbers.into_iter().filter(|number| self.values[*number as usize].weight == 0).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().for_each(|number| self.keys.release(number));
    }
}

impl Accumulator for Distinct {
    fn resize(&mut self, count: usize) {
        self.groups.resize(count, Group::EMPTY);
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        self.news.clear();
        if self.append_only && diff.is_some_and(|diff| diff.values().iter().any(|weight| *weight < 0)) {
            return Err(Error::internal("a value of count(DISTINCT) was taken away that was only to be added"));
        }
        // NULL is no value.
        let nulls = arguments[0].logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let rows: Vec<u32> =
            (0..groups.len() as u32).filter(|r| nulls.as_ref().is_none_or(|n| n.is_valid(*r as usize))).collect();
        let of = UInt32Array::from_iter_values(rows.iter().map(|row| groups[*row as usize]));
        let values = match nulls {
            None => Arc::clone(&arguments[0]),
            Some(_) => compute::take(&arguments[0], &UInt32Array::from(rows.clone()), None)?,
        };
        let numbers = self.keys.intern(&[Arc::new(of.clone()), values], rows.len())?;
        self.values.resize(self.keys.end(), Value::ABSENT);
        for ((row, group), number) in rows.iter().zip(of.values()).zip(&numbers) {
            let weight = diff.map_or(1, |diff| diff.value(*row as usize));
            if weight == 0 {
                continue;
            }
            if self.append_only && self.values[*number as usize].weight == 0 {
                self.news.push(*row);
            }
            self.add(*group, *number, weight);
        }
        if diff.is_some() {
            self.release(numbers);
        }
        Ok(())
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        // Between the rows of a step a weight may be below zero for a while; at the end of it never.
        if groups.iter().any(|group| self.groups[*group as usize].negative > 0) {
            return Err(Error::internal("a value of count(DISTINCT) was taken away that was not there"));
        }
        Ok(Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| self.groups[*group as usize].count))))
    }

    fn clear(&mut self, group: u32) {
        let numbers = self.numbers(group);
        numbers.iter().for_each(|number| self.values[*number as usize] = Value::ABSENT);
        self.release(numbers);
        self.groups[group as usize] = Group::EMPTY;
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _groups: &[u32], _state: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    fn merge(&mut self, _groups: &[u32], _state: &[ArrayRef], _sign: i64) -> Result<()> {
        Err(Error::internal("counts of distinct values do not add up"))
    }

    fn values(&self) -> Option<&dyn Values> {
        Some(self)
    }

    fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.capacity() * size_of::<Value>() + self.groups.capacity() * size_of::<Group>()
    }
}

impl Values for Distinct {
    fn types(&self) -> &[DataType] {
        &self.types
    }

    fn content(&self, group: u32) -> Result<(Vec<ArrayRef>, Vec<i64>)> {
        let numbers = self.numbers(group);
        let mut columns = self.keys.columns(&numbers)?;
        Ok((columns.split_off(1), numbers.iter().map(|number| self.values[*number as usize].weight).collect()))
    }

    fn news(&self) -> Option<&[u32]> {
        self.append_only.then_some(&self.news)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::Int64Type;
    use rand::prelude::*;
    use rand::rngs::SmallRng;
    use rstest::rstest;

    use super::*;

    /// What came, value by value: the counts are right after every batch, what is news makes another the same, and nothing is left of
    /// groups that are gone.
    #[rstest]
    fn values_are_counted_once(#[values(false, true)] append_only: bool) {
        let mut rng = SmallRng::seed_from_u64(11);
        let make = || Distinct::new(vec![DataType::Utf8], append_only).unwrap();
        let (mut counted, mut restored) = (make(), make());
        let mut present: BTreeMap<(u32, String), i64> = BTreeMap::new();
        counted.resize(4);
        restored.resize(4);
        for _ in 0..300 {
            let mut rows: Vec<(u32, Option<String>, i64)> = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                let taken = present.iter().filter(|(_, weight)| **weight > 0).choose(&mut rng);
                let taken = taken.map(|(value, _)| value.clone()).filter(|_| !append_only && rng.random_bool(0.5));
                let (group, value, weight) = match taken {
                    Some((group, value)) => (group, Some(value), -1),
                    None => (rng.random_range(0..4), rng.random_bool(0.9).then(|| rng.random_range(0..9).to_string()), 1),
                };
                if let Some(value) = &value {
                    *present.entry((group, value.clone())).or_default() += weight;
                }
                rows.push((group, value, weight));
            }
            let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let values: ArrayRef = Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>());
            let diff = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
            counted.update(&groups, std::slice::from_ref(&values), Some(&diff)).unwrap();
            match counted.news() {
                None => restored.update(&groups, &[values], Some(&diff)).unwrap(),
                Some(news) => {
                    let values = compute::take(&values, &UInt32Array::from(news.to_vec()), None).unwrap();
                    let groups: Vec<u32> = news.iter().map(|row| groups[*row as usize]).collect();
                    restored.update(&groups, &[values], None).unwrap();
                }
            }
            if rng.random_bool(0.05) {
                let group = rng.random_range(0..4);
                present.retain(|(of, _), _| *of != group);
                counted.clear(group);
                restored.clear(group);
            }
            let count = |group| present.iter().filter(|((of, _), weight)| *of == group && **weight > 0).count() as i64;
            let expected: Vec<i64> = (0..4).map(count).collect();
            for distinct in [&counted, &restored] {
                let counts = distinct.evaluate(&[0, 1, 2, 3]).unwrap();
                assert_eq!(counts.as_primitive::<Int64Type>().values(), &expected[..]);
                let held: Vec<i64> = (0..4).map(|group| distinct.content(group).unwrap().1.len() as i64).collect();
                assert_eq!(held, expected);
            }
        }
        (0..4).for_each(|group| counted.clear(group));
        let every: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from_iter_values((0..36).map(|i| i / 9))),
            Arc::new(StringArray::from_iter_values((0..36).map(|i| (i % 9).to_string()))),
        ];
        assert!(counted.keys.find(&every, 36).unwrap().iter().all(Option::is_none));
    }

    #[test]
    fn a_value_is_not_taken_away_before_it_came() {
        let values: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7]))];
        let minus = Int64Array::from(vec![-1]);
        let mut distinct = Distinct::new(vec![DataType::Int64], false).unwrap();
        distinct.resize(1);
        distinct.update(&[0], &values, Some(&minus)).unwrap();
        assert!(distinct.evaluate(&[0]).unwrap_err().message().contains("not there"));
        distinct.update(&[0], &values, None).unwrap();
        distinct.evaluate(&[0]).unwrap();
        let mut distinct = Distinct::new(vec![DataType::Int64], true).unwrap();
        distinct.resize(1);
        assert!(distinct.update(&[0], &values, Some(&minus)).unwrap_err().message().contains("only to be added"));
    }
}
