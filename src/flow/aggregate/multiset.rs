//! Aggregates over all values of a group: what no summary can give when a value is taken back, or at all.
//!
//! A group keeps its distinct values (whole argument tuples) with their weights, in order. So the answer depends on what the
//! group holds and not on the order in which it came: `array_agg(x)` without ORDER BY is in the order of `x`.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::compute::{self, SortColumn};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use std::sync::Arc;

use super::accumulate::{Accumulator, Call, Values};
use crate::error::{Error, Result};

/// How the answer is got from the values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Evaluate {
    /// The least one.
    First,
    /// The greatest one.
    Last,
    /// By DataFusion's own accumulator, over all of them.
    Again,
}

#[derive(Default)]
struct Group {
    values: BTreeMap<Box<[u8]>, i64>,
    /// Values whose weight is below zero.
    negative: usize,
}

pub struct Multiset {
    function: Arc<AggregateFunctionExpr>,
    evaluate: Evaluate,
    output: DataType,
    types: Vec<DataType>,
    converter: RowConverter,
    groups: Vec<Group>,
    entries: usize,
}

impl Multiset {
    pub fn new(call: &Call, evaluate: Evaluate) -> Result<Multiset> {
        let types = call.argument_types.clone();
        let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?;
        let output = call.output.data_type().clone();
        Ok(Multiset { function: Arc::clone(&call.function), evaluate, output, types, converter, groups: Vec::new(), entries: 0 })
    }

    /// NULL is no value of these.
    fn skips_null(&self) -> bool {
        self.evaluate != Evaluate::Again
    }

    fn answer(&self, group: u32) -> Result<ScalarValue> {
        let values = &self.groups[group as usize].values;
        let one = |data: Option<&Box<[u8]>>| match data {
            None => Ok(ScalarValue::try_from(&self.output)?),
            Some(data) => {
                let array = self.converter.convert_rows([self.converter.parser().parse(data)])?;
                Ok(ScalarValue::try_from_array(&array[0], 0)?)
            }
        };
        match self.evaluate {
            Evaluate::First => one(values.keys().next()),
            Evaluate::Last => one(values.keys().next_back()),
            Evaluate::Again => self.again(group),
        }
    }

    fn again(&self, group: u32) -> Result<ScalarValue> {
        let (mut columns, weights) = self.content(group)?;
        if !self.function.is_distinct() && weights.iter().any(|w| *w != 1) {
            let repeated =
                weights.iter().enumerate().flat_map(|(row, weight)| std::iter::repeat_n(row as u32, (*weight).max(0) as usize));
            let indices = arrow::array::UInt32Array::from_iter_values(repeated);
            columns = compute::take_arrays(&columns, &indices, None)?;
        }
        let order_bys = self.function.order_bys();
        if !order_bys.is_empty() {
            let sort = order_bys.iter().zip(&columns[columns.len() - order_bys.len()..]);
            let sort: Vec<SortColumn> =
                sort.map(|(by, c)| SortColumn { values: Arc::clone(c), options: Some(by.options) }).collect();
            columns = compute::take_arrays(&columns, &compute::lexsort_to_indices(&sort, None)?, None)?;
        }
        let mut accumulator = self.function.create_accumulator()?;
        accumulator.update_batch(&columns)?;
        Ok(accumulator.evaluate()?)
    }
}

impl Accumulator for Multiset {
    fn resize(&mut self, count: usize) {
        self.groups.resize_with(count, Group::default);
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        let rows = self.converter.convert_columns(arguments)?;
        let nulls = if self.skips_null() { arguments[0].logical_nulls() } else { None };
        for (row, group) in groups.iter().enumerate() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let weight = diff.map_or(1, |diff| diff.value(row));
            let Group { values, negative } = &mut self.groups[*group as usize];
            let data = rows.row(row);
            match values.get_mut(data.data()) {
                Some(held) => {
                    *negative -= usize::from(*held < 0);
                    *held += weight;
                    *negative += usize::from(*held < 0);
                    if *held == 0 {
                        values.remove(data.data());
                        self.entries -= 1;
                    }
                }
                None => {
                    *negative += usize::from(weight < 0);
                    values.insert(data.data().into(), weight);
                    self.entries += 1;
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        // Between the rows of a step a weight may be below zero for a while; at the end of it never.
        if groups.iter().any(|g| self.groups[*g as usize].negative > 0) {
            return Err(Error::internal(format!("a value of {} was taken away that was not there", self.function.name())));
        }
        if groups.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.output));
        }
        let array = ScalarValue::iter_to_array(groups.iter().map(|g| self.answer(*g)).collect::<Result<Vec<_>>>()?)?;
        if *array.data_type() == self.output { Ok(array) } else { Ok(compute::cast(&array, &self.output)?) }
    }

    fn clear(&mut self, group: u32) {
        let gone = std::mem::take(&mut self.groups[group as usize]);
        self.entries -= gone.values.len();
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

    /// The other is the one extreme value of some rows.
    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        self.update(groups, state, Some(&Int64Array::from_value(sign, groups.len())))
    }

    fn values(&self) -> Option<&dyn Values> {
        Some(self)
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Group>() + self.entries * 48
    }
}

impl Values for Multiset {
    fn types(&self) -> &[DataType] {
        &self.types
    }

    fn content(&self, group: u32) -> Result<(Vec<ArrayRef>, Vec<i64>)> {
        let values = &self.groups[group as usize].values;
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(values.keys().map(|data| parser.parse(data)))?;
        let fit = |(array, data_type): (ArrayRef, &DataType)| {
            if array.data_type() == data_type { Ok(array) } else { Ok(compute::cast(&array, data_type)?) }
        };
        let columns = columns.into_iter().zip(&self.types).map(fit).collect::<Result<_>>()?;
        Ok((columns, values.values().copied().collect()))
    }
}
