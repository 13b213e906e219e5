//! What is kept of the rows of sessions: where and when each is, and what its group needs of it.
//!
//! A kept row is `partition…, time, counts, keys…, arguments and FILTER of each call…`. Rows of a partition are in order of time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::physical_expr::PhysicalExpr;

use super::timeline::Stretch;
use super::{Spec, Step};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::arrangement::{Arrangement, Layout};
use crate::flow::linear::project;
use crate::flow::{Shard, WINDOW_TIME};
use crate::time::Micros;

pub(super) type Timestamps = PrimitiveArray<TimestampMicrosecondType>;

const ORDER: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The columns of kept rows.
pub(super) struct Columns {
    pub schema: SchemaRef,
    pub partition: usize,
    pub keys: usize,
    /// Per call: how many arguments, and whether there is a FILTER behind them.
    pub calls: Vec<(usize, bool)>,
    time_code: RowConverter,
}

impl Columns {
    pub fn new(spec: &Spec) -> Result<Columns> {
        let field = |name: String, data_type: &DataType| Field::new(name, data_type.clone(), true);
        let input = spec.wide.fields();
        let mut fields: Vec<Field> =
            spec.partition.iter().enumerate().map(|(i, c)| field(format!("partition{i}"), input[*c].data_type())).collect();
        let time_type = input[spec.time].data_type();
        fields.push(field("time".into(), time_type));
        fields.push(field("counts".into(), &DataType::Boolean));
        fields.extend(spec.key_types.iter().enumerate().map(|(i, t)| field(format!("key{i}"), t)));
        let mut calls = Vec::new();
        for (number, call) in spec.calls.iter().enumerate() {
            let types = call.argument_types.iter().enumerate();
            fields.extend(types.map(|(i, t)| field(format!("value{number}_{i}"), t)));
            fields.extend(call.filter.iter().map(|_| field(format!("filter{number}"), &DataType::Boolean)));
            calls.push((call.argument_types.len(), call.filter.is_some()));
        }
        let time_code = RowConverter::new(vec![SortField::new_with_options(time_type.clone(), ORDER)])?;
        let schema = Arc::new(Schema::new(fields));
        Ok(Columns { schema, partition: spec.partition.len(), keys: spec.key_types.len(), calls, time_code })
    }

    /// By partition, in order of time. Rows go with their session, not by the clock.
    pub fn arrangement(&self, shard: Shard) -> Result<Arrangement> {
        let order = vec![(self.partition, ORDER)];
        let layout = Layout { schema: Arc::clone(&self.schema), key: (0..self.partition).collect(), time: None, order };
        Arrangement::new("rows", layout, shard)
    }

    pub fn times<'a>(&self, rows: &'a RecordBatch) -> Result<&'a Timestamps> {
        timestamps(rows.column(self.partition))
    }

    /// Which rows are in a group at all.
    pub fn counts<'a>(&self, rows: &'a RecordBatch) -> &'a BooleanArray {
        rows.column(self.partition + 1).as_boolean()
    }

    pub fn group_keys<'a>(&self, rows: &'a RecordBatch) -> &'a [ArrayRef] {
        &rows.columns()[self.partition + 2..][..self.keys]
    }

    /// Per call: its arguments, and which rows pass its FILTER.
    pub fn arguments<'a>(&self, rows: &'a RecordBatch) -> Vec<(&'a [ArrayRef], Option<&'a BooleanArray>)> {
        let mut rest = &rows.columns()[self.partition + 2 + self.keys..];
        let mut arguments = Vec::with_capacity(self.calls.len());
        for (count, filtered) in &self.calls {
            let (of_call, behind) = rest.split_at(*count);
            let (filter, behind) = behind.split_at(usize::from(*filtered));
            arguments.push((of_call, filter.first().map(|f| f.as_boolean())));
            rest = behind;
        }
        arguments
    }

    /// What is kept of rows of the input.
    pub fn keep(&self, spec: &Spec, delta: &Delta) -> Result<Delta> {
        let rows = &delta.rows;
        let time = rows.column(spec.time);
        let mut columns: Vec<ArrayRef> = spec.partition.iter().map(|c| Arc::clone(rows.column(*c))).collect();
        columns.push(Arc::clone(time));
        let wide = alone(spec, rows)?;
        let (result, kept) = through(&spec.steps, wide)?;
        let filters = spec.calls.iter().flat_map(|call| call.arguments.iter().chain(&call.filter));
        let mut computed: Vec<ArrayRef> = Vec::new();
        for expression in spec.keys.iter().chain(filters) {
            computed.push(expression.evaluate(&result)?.into_array(result.num_rows())?);
        }
        match kept {
            None => columns.push(Arc::new(BooleanArray::from(vec![true; rows.num_rows()]))),
            Some(kept) => {
                // Of the others only the time counts.
                let mut place: Vec<Option<u32>> = vec![None; rows.num_rows()];
                kept.values().iter().enumerate().for_each(|(at, row)| place[*row as usize] = Some(at as u32));
                columns.push(Arc::new(place.iter().map(|place| Some(place.is_some())).collect::<BooleanArray>()));
                computed = compute::take_arrays(&computed, &UInt32Array::from(place), None)?;
            }
        }
        let typed = computed.into_iter().zip(&self.schema.fields()[columns.len()..]).map(|(array, field)| {
            if array.data_type() == field.data_type() { Ok(array) } else { Ok(compute::cast(&array, field.data_type())?) }
        });
        let columns = columns.into_iter().map(Ok).chain(typed).collect::<Result<Vec<_>>>()?;
        Ok(delta.with_rows(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// The kept rows of a partition within a stretch, and their weights.
    pub fn within(&self, rows: &Arrangement, key: u32, stretch: Stretch) -> Result<(RecordBatch, Vec<i64>)> {
        let codes = self.codes(&[stretch.0, stretch.1])?;
        let found: Vec<(&[u8], i64)> = rows.rows_between(key, codes.row(0).data(), codes.row(1).data()).collect();
        let batch = rows.decode(found.iter().map(|(row, _)| *row))?;
        Ok((batch, found.into_iter().map(|(_, weight)| weight).collect()))
    }

    /// Is there a row at this time; and the times of those beside it, within a stretch.
    pub fn around(
        &self,
        rows: &Arrangement,
        key: u32,
        at: Micros,
        within: Stretch,
    ) -> Result<(bool, Option<Micros>, Option<Micros>)> {
        let codes = self.codes(&[within.0, at.saturating_sub(1), at, at.saturating_add(1), within.1])?;
        let code = |index: usize| codes.row(index).data();
        if rows.rows_between(key, code(2), code(2)).next().is_some() {
            return Ok((true, None, None));
        }
        let former = if within.0 < at { rows.rows_between(key, code(0), code(1)).next_back() } else { None };
        let next = if at < within.1 { rows.rows_between(key, code(3), code(4)).next() } else { None };
        let time = |row: Option<(&[u8], i64)>| -> Result<Option<Micros>> {
            let Some((row, _)) = row else { return Ok(None) };
            Ok(Some(self.times(&rows.decode(std::iter::once(row))?)?.value(0)))
        };
        Ok((false, time(former)?, time(next)?))
    }

    /// The rows of a stretch are gone.
    pub fn forget(&self, rows: &mut Arrangement, key: u32, stretch: Stretch) -> Result<()> {
        let codes = self.codes(&[stretch.0, stretch.1])?;
        rows.remove_between(key, codes.row(0).data(), codes.row(1).data());
        Ok(())
    }

    fn codes(&self, times: &[Micros]) -> Result<arrow::row::Rows> {
        let times = Timestamps::from_iter_values(times.iter().copied());
        let times = times.with_data_type(self.schema.field(self.partition).data_type().clone());
        Ok(self.time_code.convert_columns(&[Arc::new(times) as ArrayRef])?)
    }
}

pub(super) fn timestamps(column: &ArrayRef) -> Result<&Timestamps> {
    column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("a session's time column has type {}", column.data_type())))
}

/// Rows with the bounds of the sessions that they would be alone.
pub(super) fn alone(spec: &Spec, rows: &RecordBatch) -> Result<RecordBatch> {
    let times = timestamps(rows.column(spec.time))?;
    let before_end = spec.gap.saturating_sub(WINDOW_TIME);
    let mut columns = rows.columns().to_vec();
    for (by, field) in [0, spec.gap, before_end].into_iter().zip(&spec.wide.fields()[rows.num_columns()..]) {
        let bound: Timestamps = times.unary(|time| time.saturating_add(by));
        columns.push(Arc::new(bound.with_data_type(field.data_type().clone())));
    }
    Ok(RecordBatch::try_new(Arc::clone(&spec.wide), columns)?)
}

/// The rows after all steps, and which of the first they are; `None`: all.
fn through(steps: &[Step], mut rows: RecordBatch) -> Result<(RecordBatch, Option<UInt32Array>)> {
    let mut kept: Option<UInt32Array> = None;
    for step in steps {
        match step {
            Step::Project(expressions, schema) => rows = project(expressions, schema, &rows)?,
            Step::Filter(predicate) => {
                let passes = mask(predicate, &rows)?;
                let before = kept.unwrap_or_else(|| UInt32Array::from_iter_values(0..rows.num_rows() as u32));
                kept = Some(compute::filter(&before, &passes)?.as_primitive().clone());
                let columns = rows.columns().iter().map(|c| compute::filter(c, &passes)).collect::<Result<_, _>>()?;
                let options = RecordBatchOptions::new().with_row_count(kept.as_ref().map(|kept| kept.len()));
                rows = RecordBatch::try_new_with_options(rows.schema(), columns, &options)?;
            }
        }
    }
    Ok((rows, kept))
}

fn mask(predicate: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let mask = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
    let mask = mask.as_boolean_opt().ok_or_else(|| Error::datatype_mismatch("a filter must be of type boolean"))?;
    Ok(if mask.null_count() > 0 { compute::prep_null_mask_filter(mask) } else { mask.clone() })
}
