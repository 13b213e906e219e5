//! Min and max of rows that are never taken away: one value per group.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};

use super::accumulate::Accumulator;
use crate::error::Result;

pub struct Extreme {
    data_type: DataType,
    greatest: bool,
    values: Values,
}

enum Values {
    /// Types that order as their `i64`.
    Integer(Vec<i64>, Vec<bool>),
    /// All others in the comparable row format; empty: none.
    Rows(RowConverter, Vec<Box<[u8]>>),
}

fn orders_as_i64(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Timestamp(_, _))
}

impl Extreme {
    pub fn new(data_type: &DataType, greatest: bool) -> Result<Extreme> {
        let values = if orders_as_i64(data_type) {
            Values::Integer(Vec::new(), Vec::new())
        } else {
            Values::Rows(RowConverter::new(vec![SortField::new(data_type.clone())])?, Vec::new())
        };
        Ok(Extreme { data_type: data_type.clone(), greatest, values })
    }
}

impl Accumulator for Extreme {
    fn resize(&mut self, count: usize) {
        match &mut self.values {
            Values::Integer(values, present) => {
                values.resize(count, if self.greatest { i64::MIN } else { i64::MAX });
                present.resize(count, false);
            }
            Values::Rows(_, values) => values.resize(count, Box::default()),
        }
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], _diff: Option<&Int64Array>) -> Result<()> {
        let greatest = self.greatest;
        match &mut self.values {
            Values::Integer(values, present) => {
                let array = compute::cast(&arguments[0], &DataType::Int64)?;
                let array = array.as_primitive::<Int64Type>();
                let mut take = |group: u32, value: i64| {
                    let best = &mut values[group as usize];
                    *best = if greatest { (*best).max(value) } else { (*best).min(value) };
                    present[group as usize] = true;
                };
                if array.null_count() == 0 {
                    groups.iter().zip(array.values()).for_each(|(group, value)| take(*group, *value));
                } else {
                    groups
                        .iter()
                        .zip(array.iter())
                        .for_each(|(group, value)| value.into_iter().for_each(|value| take(*group, value)));
                }
            }
            Values::Rows(converter, values) => {
                let rows = converter.convert_columns(&arguments[..1])?;
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| arguments[0].is_valid(*row)) {
                    let (best, value) = (&mut values[*group as usize], rows.row(row));
                    let better = best.is_empty() || if greatest { *value.data() > **best } else { *value.data() < **best };
                    if better {
                        *best = value.data().into();
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        match &self.values {
            Values::Integer(values, present) => {
                let value = |g: &u32| present[*g as usize].then(|| values[*g as usize]);
                let array: Int64Array = groups.iter().map(value).collect();
                Ok(compute::cast(&array, &self.data_type)?)
            }
            Values::Rows(converter, values) => {
                let missing = converter.convert_columns(&[arrow::array::new_null_array(&self.data_type, 1)])?;
                let parser = converter.parser();
                let row = |g: &u32| match &*values[*g as usize] {
                    [] => missing.row(0),
                    data => parser.parse(data),
                };
                let array = converter.convert_rows(groups.iter().map(row))?.remove(0);
                Ok(if *array.data_type() == self.data_type { array } else { compute::cast(&array, &self.data_type)? })
            }
        }
    }

    fn clear(&mut self, group: u32) {
        match &mut self.values {
            Values::Integer(values, present) => {
                values[group as usize] = if self.greatest { i64::MIN } else { i64::MAX };
                present[group as usize] = false;
            }
            Values::Rows(_, values) => values[group as usize] = Box::default(),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.data_type.clone()]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.update(groups, state, None)
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], _sign: i64) -> Result<()> {
        self.update(groups, state, None)
    }

    fn bytes(&self) -> usize {
        match &self.values {
            Values::Integer(values, _) => values.capacity() * 9,
            Values::Rows(_, values) => values.iter().map(|v| v.len() + 16).sum(),
        }
    }
}
