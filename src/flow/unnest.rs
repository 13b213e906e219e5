//! UNNEST: a row becomes one row per element of its lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Context, Operator};
use crate::delta::Delta;
use crate::error::{Error, Result};

/// Where an output column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The input column, repeated.
    Repeat(usize),
    /// The elements of a list column.
    Elements(usize),
    /// A field of a struct column, repeated.
    Field { column: usize, field: usize },
}

pub struct Unnest {
    pub sources: Vec<Source>,
    pub schema: SchemaRef,
    /// A NULL instead of a list is one element, which is NULL; otherwise none.
    pub keep_null: bool,
    /// The same of an empty list.
    pub keep_empty: bool,
}

impl Operator for Unnest {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let lists = self.lists(&delta.rows)?;
        // The row each output row comes from, and its place in the lists of that row.
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for row in 0..delta.len() {
            let count = lists.iter().map(|(_, list)| self.elements(list, row)).max().unwrap_or(1);
            rows.extend(std::iter::repeat_n(row as u32, count));
            places.extend(0..count);
        }
        let rows = UInt32Array::from(rows);
        let columns = self.sources.iter().zip(self.schema.fields());
        let columns = columns.map(|(source, field)| {
            let array = self.column(*source, &delta.rows, &lists, &rows, &places)?;
            if array.data_type() == field.data_type() { Ok(array) } else { Ok(compute::cast(&array, field.data_type())?) }
        });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<Vec<_>>>()?)?;
        let diff =
            delta.diff.as_ref().map(|d| Int64Array::from_iter_values(rows.values().iter().map(|row| d.value(*row as usize))));
        cx.emit(Delta { rows: batch, diff });
        Ok(())
    }
}

impl Unnest {
    /// How many rows a list makes of its row, if no other is longer.
    fn elements(&self, list: &List, row: usize) -> usize {
        match list.ranges[row] {
            None => usize::from(self.keep_null),
            Some((from, to)) if from == to => usize::from(self.keep_empty),
            Some((from, to)) => to - from,
        }
    }

    fn lists(&self, rows: &RecordBatch) -> Result<Vec<(usize, List)>> {
        let mut lists: Vec<(usize, List)> = Vec::new();
        for source in &self.sources {
            if let Source::Elements(column) = source {
                lists.push((*column, List::new(rows.column(*column))?));
            }
        }
        Ok(lists)
    }

    fn column(
        &self,
        source: Source,
        input: &RecordBatch,
        lists: &[(usize, List)],
        rows: &UInt32Array,
        places: &[usize],
    ) -> Result<ArrayRef> {
        match source {
            Source::Repeat(column) => Ok(compute::take(input.column(column), rows, None)?),
            Source::Field { column, field } => {
                let array = input.column(column);
                let parent = array.as_struct_opt().ok_or_else(|| Error::internal("a struct to unnest is none"))?;
                let child = parent.column(field);
                let nulls = compute::take(array, rows, None)?;
                let taken = compute::take(child, rows, None)?;
                Ok(compute::nullif(&taken, &compute::is_null(&nulls)?)?)
            }
            Source::Elements(column) => {
                let list = &lists.iter().find(|(at, _)| *at == column).ok_or_else(|| Error::internal("a list is missing"))?.1;
                let element = |(row, place): (&u32, &usize)| list.element(*row as usize, *place);
                let indices: UInt64Array = rows.values().iter().zip(places).map(element).collect();
                Ok(compute::take(&list.values, &indices, None)?)
            }
        }
    }
}

/// Any of Arrow's list types as elements and ranges, `None` for a NULL.
struct List {
    values: ArrayRef,
    ranges: Vec<Option<(usize, usize)>>,
}

impl List {
    fn new(array: &ArrayRef) -> Result<List> {
        let range = |row: usize, from: usize, to: usize| array.is_valid(row).then_some((from, to));
        match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let o = list.value_offsets();
                let ranges = (0..list.len()).map(|row| range(row, o[row] as usize, o[row + 1] as usize)).collect();
                Ok(List { values: Arc::clone(list.values()), ranges })
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let o = list.value_offsets();
                let ranges = (0..list.len()).map(|row| range(row, o[row] as usize, o[row + 1] as usize)).collect();
                Ok(List { values: Arc::clone(list.values()), ranges })
            }
            DataType::FixedSizeList(_, size) => {
                let list = array.as_fixed_size_list();
                let size = *size as usize;
                let ranges = (0..list.len()).map(|row| range(row, row * size, (row + 1) * size)).collect();
                Ok(List { values: Arc::clone(list.values()), ranges })
            }
            DataType::Null => Ok(List { values: new_null_array(&DataType::Null, 0), ranges: vec![None; array.len()] }),
            other => Err(Error::datatype_mismatch(format!("unnest takes an array, not {other}"))),
        }
    }

    fn element(&self, row: usize, place: usize) -> Option<u64> {
        let (from, to) = self.ranges[row]?;
        (from + place < to).then_some((from + place) as u64)
    }
}
