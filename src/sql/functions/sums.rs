//! `sum` and `avg` with PostgreSQL's results.
//!
//! | of | `sum` | `avg` |
//! | --- | --- | --- |
//! | `smallint`, `integer` | `bigint` | `numeric`, 16 decimals |
//! | `bigint` | `numeric` | `numeric`, 16 decimals |
//! | `numeric` | `numeric`, of the same scale | `numeric`, 16 decimals or its own if they are more |
//! | `real`, `double precision` | `double precision` | `double precision` |
//!
//! Averages are rounded, halves away from zero. What floats come to is DataFusion's; intervals are [`intervals`]'s.

use std::collections::HashMap;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use arrow::compute;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use super::intervals;
use super::operators::decimals::QUOTIENT_SCALE;
use crate::decimal::divided;
use crate::error::Error;
use crate::sql::types::{self, MAX_PRECISION};

/// Both.
pub fn all() -> [AggregateUDF; 2] {
    let signature = || Signature::user_defined(Volatility::Immutable);
    [
        AggregateUDF::new_from_impl(Sum { inner: datafusion::functions_aggregate::sum::sum_udaf(), signature: signature() }),
        AggregateUDF::new_from_impl(Average {
            inner: datafusion::functions_aggregate::average::avg_udaf(),
            signature: signature(),
        })
        .with_aliases(["mean"]),
    ]
}

fn refused(name: &str, data_type: &DataType) -> Error {
    let error = Error::undefined_function(format!("function {name}({}) does not exist", types::plain_name(data_type)));
    error.with_hint("add explicit type casts")
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// Are values of the type widened before they are added?
fn is_widened(arguments: &[FieldRef]) -> bool {
    arguments.first().is_some_and(|field| field.data_type().is_integer())
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        let to = |data_type: &DataType| {
            Ok(match data_type {
                DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
                DataType::UInt32 | DataType::UInt64 | DataType::Null => DataType::Int64,
                DataType::Float16 | DataType::Float32 => DataType::Float64,
                DataType::Interval(_) | DataType::Duration(_) => data_type.clone(),
                number if number.is_numeric() => number.clone(),
                other => return Err(refused(self.name(), other).into()),
            })
        };
        arguments.iter().map(to).collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [DataType::Int64 | DataType::UInt64 | DataType::UInt32] => Ok(DataType::Decimal128(MAX_PRECISION, 0)),
            [number] if number.is_integer() => Ok(DataType::Int64),
            [interval @ DataType::Interval(_)] => Ok(interval.clone()),
            [_] => self.inner.return_type(arguments),
            _ => Err(Error::undefined_function("sum takes one argument").into()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        if intervals::is_interval(args.expr_fields) {
            return intervals::accumulator(false, args.is_distinct);
        }
        let (widened, to) = (is_widened(args.expr_fields), args.return_field.data_type().clone());
        let inner = self.inner.accumulator(args)?;
        Ok(if widened { Box::new(Widened { inner, to }) } else { inner })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        if intervals::is_interval(args.input_fields) {
            return Ok(intervals::state_fields(&args));
        }
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !intervals::is_interval(args.expr_fields) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        let (widened, to) = (is_widened(args.expr_fields), args.return_field.data_type().clone());
        let inner = self.inner.create_groups_accumulator(args)?;
        Ok(if widened { Box::new(Widened { inner, to }) } else { inner })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        // Distinct values that leave a frame are known of integers only, so all values of the frame are looked at.
        if args.is_distinct || intervals::is_interval(args.expr_fields) {
            return self.accumulator(args);
        }
        let (widened, to) = (is_widened(args.expr_fields), args.return_field.data_type().clone());
        let inner = self.inner.create_sliding_accumulator(args)?;
        Ok(if widened { Box::new(Widened { inner, to }) } else { inner })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Sums of values that are brought to the sum's type first.
#[derive(Debug)]
struct Widened<A: ?Sized> {
    to: DataType,
    inner: Box<A>,
}

impl<A: ?Sized> Widened<A> {
    fn widen(&self, values: &[ArrayRef]) -> DfResult<Vec<ArrayRef>> {
        values.iter().map(|array| Ok(compute::cast(array, &self.to)?)).collect()
    }
}

impl Accumulator for Widened<dyn Accumulator> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.widen(values)?;
        self.inner.retract_batch(&values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

impl GroupsAccumulator for Widened<dyn GroupsAccumulator> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> DfResult<()> {
        let values = self.widen(values)?;
        self.inner.update_batch(&values, groups, filter, total)
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        self.inner.evaluate(emit)
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.widen(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// The decimals of what is averaged, if that is exact.
fn exact_scale(arguments: &[FieldRef]) -> Option<i8> {
    match arguments.first()?.data_type() {
        number if number.is_integer() => Some(0),
        DataType::Decimal128(_, scale) => Some(*scale),
        _ => None,
    }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        let to = |data_type: &DataType| {
            Ok(match data_type {
                number if number.is_integer() => DataType::Int64,
                DataType::Float16 | DataType::Float32 | DataType::Null => DataType::Float64,
                DataType::Duration(_) | DataType::Interval(_) => data_type.clone(),
                number if number.is_numeric() => number.clone(),
                other => return Err(refused(self.name(), other).into()),
            })
        };
        arguments.iter().map(to).collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [interval @ DataType::Interval(_)] => Ok(interval.clone()),
            [number] if number.is_integer() => Ok(DataType::Decimal128(MAX_PRECISION, QUOTIENT_SCALE)),
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(MAX_PRECISION, QUOTIENT_SCALE.max(*scale))),
            [_] => self.inner.return_type(arguments),
            _ => Err(Error::undefined_function("avg takes one argument").into()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        if intervals::is_interval(args.expr_fields) {
            return intervals::accumulator(true, args.is_distinct);
        }
        let Some(from) = exact_scale(args.expr_fields) else { return self.inner.accumulator(args) };
        let distinct = args.is_distinct.then(HashMap::new);
        Ok(Box::new(Mean { shape: Shape::new(from, args.return_field.data_type()), total: Total::default(), distinct }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        if intervals::is_interval(args.input_fields) {
            return Ok(intervals::state_fields(&args));
        }
        let Some(scale) = exact_scale(args.input_fields) else { return self.inner.state_fields(args) };
        let sum = DataType::Decimal128(MAX_PRECISION, scale);
        let field = |part: &str, data_type| Arc::new(Field::new(format!("{}[{part}]", args.name), data_type, true));
        Ok(match args.is_distinct {
            true => vec![field("values", DataType::new_list(sum, true))],
            false => vec![field("count", DataType::Int64), field("sum", sum)],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match exact_scale(args.expr_fields) {
            Some(_) => !args.is_distinct,
            None => !intervals::is_interval(args.expr_fields) && self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        let Some(from) = exact_scale(args.expr_fields) else { return self.inner.create_groups_accumulator(args) };
        Ok(Box::new(Means { shape: Shape::new(from, args.return_field.data_type()), totals: Vec::new() }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match exact_scale(args.expr_fields) {
            None if !intervals::is_interval(args.expr_fields) => self.inner.create_sliding_accumulator(args),
            _ => self.accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Decimals of the values and of their average.
#[derive(Debug)]
struct Shape {
    from: i8,
    to: i8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    count: i64,
    sum: i128,
}

impl Total {
    fn add(&mut self, value: i128, times: i64) -> DfResult<()> {
        let sum = value.checked_mul(i128::from(times)).and_then(|value| self.sum.checked_add(value));
        self.sum = sum.ok_or_else(|| Error::numeric_out_of_range("a sum exceeds 38 digits"))?;
        self.count += times;
        Ok(())
    }

    fn merge(&mut self, count: i64, sum: i128) -> DfResult<()> {
        self.add(sum, 1)?;
        self.count += count - 1;
        Ok(())
    }
}

impl Shape {
    fn new(from: i8, output: &DataType) -> Shape {
        Shape { from, to: if let DataType::Decimal128(_, to) = output { *to } else { from } }
    }

    /// The values as whole numbers of their last decimal.
    fn values(&self, array: &ArrayRef) -> DfResult<PrimitiveArray<Decimal128Type>> {
        if array.data_type().is_integer() {
            let integers = compute::cast(array, &DataType::Int64)?;
            return Ok(integers.as_primitive::<Int64Type>().unary(i128::from));
        }
        let decimals = array.as_primitive_opt::<Decimal128Type>();
        Ok(decimals.ok_or_else(|| Error::internal("an average of other values than was said"))?.clone())
    }

    fn mean(&self, total: Total) -> DfResult<Option<i128>> {
        if total.count == 0 {
            return Ok(None);
        }
        Ok(Some(divided(total.sum, self.from.into(), total.count.into(), 0, self.to.into())?))
    }

    fn output(&self) -> DataType {
        DataType::Decimal128(MAX_PRECISION, self.to)
    }

    fn sums(&self) -> DataType {
        DataType::Decimal128(MAX_PRECISION, self.from)
    }
}

/// One average.
#[derive(Debug)]
struct Mean {
    shape: Shape,
    total: Total,
    /// How often each value was seen, of DISTINCT.
    distinct: Option<HashMap<i128, i64>>,
}

impl Mean {
    fn add_all(&mut self, values: &ArrayRef, times: i64) -> DfResult<()> {
        for value in self.shape.values(values)?.iter().flatten() {
            let Some(seen) = &mut self.distinct else {
                self.total.add(value, times)?;
                continue;
            };
            let count = seen.entry(value).or_default();
            let before = *count;
            *count += times;
            match (before, *count) {
                (0, 1..) => self.total.add(value, 1)?,
                (1.., 0) => {
                    seen.remove(&value);
                    self.total.add(value, -1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Accumulator for Mean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add_all(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.add_all(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Decimal128(self.shape.mean(self.total)?, MAX_PRECISION, self.shape.to))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.distinct.as_ref().map_or(0, |seen| seen.capacity() * 24)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let decimal = |value| ScalarValue::Decimal128(Some(value), MAX_PRECISION, self.shape.from);
        Ok(match &self.distinct {
            Some(seen) => {
                let values: Vec<_> = seen.keys().map(|value| decimal(*value)).collect();
                vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.shape.sums()))]
            }
            None => vec![ScalarValue::Int64(Some(self.total.count)), decimal(self.total.sum)],
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            return lists.iter().flatten().try_for_each(|values| self.add_all(&values, 1));
        }
        let (counts, sums) = (states[0].as_primitive::<Int64Type>(), states[1].as_primitive::<Decimal128Type>());
        counts.iter().flatten().zip(sums.iter().flatten()).try_for_each(|(count, sum)| self.total.merge(count, sum))
    }
}

/// Averages of many groups.
struct Means {
    shape: Shape,
    totals: Vec<Total>,
}

impl GroupsAccumulator for Means {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> DfResult<()> {
        self.totals.resize(total, Total::default());
        let values = self.shape.values(&values[0])?;
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| values.is_valid(*row) && passes(filter, *row)) {
            self.totals[*group].add(values.value(row), 1)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        let totals = emit.take_needed(&mut self.totals);
        let means =
            totals.into_iter().map(|total| self.shape.mean(total)).collect::<DfResult<PrimitiveArray<Decimal128Type>>>()?;
        Ok(Arc::new(means.with_data_type(self.shape.output())))
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let totals = emit.take_needed(&mut self.totals);
        let counts = Int64Array::from_iter_values(totals.iter().map(|total| total.count));
        let sums = PrimitiveArray::<Decimal128Type>::from_iter_values(totals.iter().map(|total| total.sum));
        Ok(vec![Arc::new(counts), Arc::new(sums.with_data_type(self.shape.sums()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.totals.resize(total, Total::default());
        let (counts, sums) = (states[0].as_primitive::<Int64Type>(), states[1].as_primitive::<Decimal128Type>());
        for (row, group) in groups.iter().enumerate() {
            self.totals[*group].merge(counts.value(row), sums.value(row))?;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let values = self.shape.values(&values[0])?;
        let counts = |row| values.is_valid(row) && passes(filter, row);
        let count = Int64Array::from_iter_values((0..values.len()).map(|row| i64::from(counts(row))));
        let sum = (0..values.len()).map(|row| if counts(row) { values.value(row) } else { 0 });
        let sum = PrimitiveArray::<Decimal128Type>::from_iter_values(sum).with_data_type(self.shape.sums());
        Ok(vec![Arc::new(count), Arc::new(sum)])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.totals.capacity() * size_of::<Total>()
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}
