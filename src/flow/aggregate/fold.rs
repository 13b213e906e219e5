//! Aggregates that need no value twice while rows are only added: DataFusion's own accumulator per group.
//!
//! Only for functions whose accumulator is, after a checkpoint, what it was before to the last bit ([`super::accumulate::FOLDED`]):
//! a group's former row is evaluated again to be taken away.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array, new_empty_array};
use arrow::compute;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator as Inner;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::accumulate::{Accumulator, Call};
use crate::error::{Error, Result};

pub struct Fold {
    function: Arc<AggregateFunctionExpr>,
    output: DataType,
    state: Vec<DataType>,
    /// `None`: no value has come yet. Evaluating is a change to DataFusion, and none to us.
    groups: RefCell<Vec<Option<Box<dyn Inner>>>>,
}

impl Fold {
    pub fn new(call: &Call) -> Result<Fold> {
        let state = call.function.state_fields()?.iter().map(|field| field.data_type().clone()).collect();
        let (function, output) = (Arc::clone(&call.function), call.output.data_type().clone());
        Ok(Fold { function, output, state, groups: RefCell::default() })
    }

    fn with<T>(&self, group: u32, act: impl FnOnce(&mut dyn Inner) -> datafusion::common::Result<T>) -> Result<T> {
        let mut groups = self.groups.borrow_mut();
        let place = &mut groups[group as usize];
        let inner = match place {
            Some(inner) => inner,
            None => place.insert(self.function.create_accumulator()?),
        };
        Ok(act(inner.as_mut())?)
    }
}

impl Accumulator for Fold {
    fn resize(&mut self, count: usize) {
        self.groups.get_mut().resize_with(count, || None);
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        if let Some(diff) = diff.filter(|diff| diff.values().iter().any(|weight| *weight != 1)) {
            let times = diff.values().iter().map(|weight| usize::try_from(*weight)).collect::<Result<Vec<_>, _>>();
            let message = || format!("a value of {} was taken away that was only to be added", self.function.name());
            let times = times.map_err(|_| Error::internal(message()))?;
            // Equal rows may come as one.
            let rows: Vec<usize> = times.iter().enumerate().flat_map(|(row, times)| repeat_n(row, *times)).collect();
            let groups: Vec<u32> = rows.iter().map(|row| groups[*row]).collect();
            let rows = UInt32Array::from_iter_values(rows.into_iter().map(|row| row as u32));
            return self.update(&groups, &compute::take_arrays(arguments, &rows, None)?, None);
        }
        if let Some((first, rest)) = groups.split_first()
            && rest.iter().all(|group| group == first)
        {
            return self.with(*first, |inner| inner.update_batch(arguments));
        }
        let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, group) in groups.iter().enumerate() {
            rows.entry(*group).or_default().push(row as u32);
        }
        for (group, rows) in rows {
            let values = compute::take_arrays(arguments, &UInt32Array::from(rows), None)?;
            self.with(group, |inner| inner.update_batch(&values))?;
        }
        Ok(())
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        if groups.is_empty() {
            return Ok(new_empty_array(&self.output));
        }
        let values = groups.iter().map(|group| self.with(*group, |inner| inner.evaluate())).collect::<Result<Vec<_>>>()?;
        let array = ScalarValue::iter_to_array(values)?;
        if *array.data_type() == self.output { Ok(array) } else { Ok(compute::cast(&array, &self.output)?) }
    }

    fn clear(&mut self, group: u32) {
        self.groups.get_mut()[group as usize] = None;
    }

    fn state_types(&self) -> Vec<DataType> {
        self.state.clone()
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(groups.len()); self.state.len()];
        for group in groups {
            let state = self.with(*group, |inner| inner.state())?;
            columns.iter_mut().zip(state).for_each(|(column, value)| column.push(value));
        }
        let array = |(column, data_type): (Vec<ScalarValue>, &DataType)| {
            if column.is_empty() { Ok(new_empty_array(data_type)) } else { Ok(ScalarValue::iter_to_array(column)?) }
        };
        columns.into_iter().zip(&self.state).map(array).collect()
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let state: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            self.with(*group, |inner| inner.merge_batch(&state))?;
        }
        Ok(())
    }

    fn merge(&mut self, _groups: &[u32], _state: &[ArrayRef], _sign: i64) -> Result<()> {
        Err(Error::internal(format!("{} does not add up", self.function.name())))
    }

    fn bytes(&self) -> usize {
        let groups = self.groups.borrow();
        groups.capacity() * 16 + groups.iter().flatten().map(|inner| inner.size()).sum::<usize>()
    }
}
