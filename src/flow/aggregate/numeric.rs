//! Count, sum and average: numbers that take a value back as easily as they take it in.
//!
//! Sums of floating-point numbers are kept in two parts (the error-free sum of Knuth's TwoSum), so that the order of rows and
//! retractions leave no trace down to about 106 bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray};
use arrow::compute;
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Float64Type, Int64Type, UInt64Type,
};

use super::accumulate::Accumulator;
use crate::decimal::divided;
use crate::error::{Error, Result};

fn weight(diff: Option<&Int64Array>, row: usize) -> i64 {
    diff.map_or(1, |diff| diff.value(row))
}

fn pick<T: Copy>(values: &[T], groups: &[u32]) -> Vec<T> {
    groups.iter().map(|g| values[*g as usize]).collect()
}

fn restore_i64(into: &mut [i64], groups: &[u32], column: &ArrayRef) {
    for (group, value) in groups.iter().zip(column.as_primitive::<Int64Type>().values()) {
        into[*group as usize] = *value;
    }
}

/// `count(*)`, `count(x)`.
pub struct Count {
    counts: Vec<i64>,
}

impl Count {
    pub fn new() -> Count {
        Count { counts: Vec::new() }
    }
}

/// Add the weights of rows whose argument is not NULL.
fn count_rows(counts: &mut [i64], groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) {
    let nulls = arguments.first().and_then(|a| a.logical_nulls()).filter(|n| n.null_count() > 0);
    match (nulls, diff) {
        (None, None) => groups.iter().for_each(|g| counts[*g as usize] += 1),
        (None, Some(diff)) => groups.iter().zip(diff.values()).for_each(|(g, w)| counts[*g as usize] += w),
        (Some(nulls), diff) => {
            for (row, group) in groups.iter().enumerate().filter(|(row, _)| nulls.is_valid(*row)) {
                counts[*group as usize] += weight(diff, row);
            }
        }
    }
}

impl Accumulator for Count {
    fn resize(&mut self, count: usize) {
        self.counts.resize(count, 0);
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        count_rows(&mut self.counts, groups, arguments, diff);
        Ok(())
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(pick(&self.counts, groups))))
    }

    fn clear(&mut self, group: u32) {
        self.counts[group as usize] = 0;
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(groups)?])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        restore_i64(&mut self.counts, groups, &state[0]);
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        each::<Int64Type>(groups, &state[0], None, |g, v, _| self.counts[g] += v * sign);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
}

/// A floating-point sum in two parts: the value is `high + low`.
#[derive(Clone, Copy, Default)]
struct TwoPart {
    high: f64,
    low: f64,
}

impl TwoPart {
    fn add(&mut self, value: f64) {
        let sum = self.high + value;
        if !sum.is_finite() {
            // Infinities and NaN have no error part.
            (self.high, self.low) = (sum, 0.0);
            return;
        }
        let of_value = sum - self.high;
        self.low += (self.high - (sum - of_value)) + (value - of_value);
        self.high = sum;
    }

    fn value(self) -> f64 {
        self.high + self.low
    }
}

/// The sums themselves, by the type of the result.
enum Sums {
    Int(Vec<i64>),
    UInt(Vec<u64>),
    Float(Vec<TwoPart>, Vec<NonFinite>),
    Decimal(Vec<i128>, u8, i8),
}

/// Infinities and NaNs cannot be taken out of a sum again, so they are counted beside it.
#[derive(Clone, Copy, Default)]
struct NonFinite {
    plus: i64,
    minus: i64,
    nan: i64,
}

impl NonFinite {
    fn add(&mut self, value: f64, weight: i64) {
        match value {
            v if v.is_nan() => self.nan += weight,
            v if v > 0.0 => self.plus += weight,
            _ => self.minus += weight,
        }
    }

    fn value(self, finite: f64) -> f64 {
        match (self.nan, self.plus, self.minus) {
            (0, 0, 0) => finite,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

/// `sum(x)`: NULL where no value is. Integers wrap on overflow as DataFusion's do; decimals fail.
pub struct Sum {
    sums: Sums,
    /// Values that are not NULL.
    counts: Vec<i64>,
}

impl Sum {
    pub fn supports(output: &DataType) -> bool {
        matches!(output, DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(_, _))
    }

    pub fn new(output: &DataType) -> Result<Sum> {
        let sums = match output {
            DataType::Int64 => Sums::Int(Vec::new()),
            DataType::UInt64 => Sums::UInt(Vec::new()),
            DataType::Float64 => Sums::Float(Vec::new(), Vec::new()),
            DataType::Decimal128(precision, scale) => Sums::Decimal(Vec::new(), *precision, *scale),
            other => return Err(Error::internal(format!("no sum of type {other}"))),
        };
        Ok(Sum { sums, counts: Vec::new() })
    }

    fn data_type(&self) -> DataType {
        match self.sums {
            Sums::Int(_) => DataType::Int64,
            Sums::UInt(_) => DataType::UInt64,
            Sums::Float(_, _) => DataType::Float64,
            Sums::Decimal(_, precision, scale) => DataType::Decimal128(precision, scale),
        }
    }

    /// Whole numbers into sums of decimals.
    fn update_whole(&mut self, groups: &[u32], array: &ArrayRef, diff: Option<&Int64Array>) -> Result<()> {
        let Sums::Decimal(sums, ..) = &mut self.sums else {
            return Err(Error::internal("a sum of whole numbers that is none of decimals"));
        };
        let counts = &mut self.counts;
        each::<Int64Type>(groups, array, diff, |g, v, w| {
            counts[g] += w;
            // 2^126 for one row; a sum that leaves 38 digits is found when it is asked for.
            sums[g] = sums[g].wrapping_add(i128::from(v) * i128::from(w));
        });
        Ok(())
    }

    /// The values of the groups as if NULL did not exist.
    fn raw(&self, groups: &[u32]) -> Result<ArrayRef> {
        Ok(match &self.sums {
            Sums::Int(sums) => Arc::new(Int64Array::from(pick(sums, groups))),
            Sums::UInt(sums) => Arc::new(PrimitiveArray::<UInt64Type>::from(pick(sums, groups))),
            Sums::Float(sums, odd) => {
                let value = |g: &u32| odd[*g as usize].value(sums[*g as usize].value());
                Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(groups.iter().map(value)))
            }
            Sums::Decimal(sums, precision, scale) => {
                let array = PrimitiveArray::<Decimal128Type>::from(pick(sums, groups));
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
        })
    }
}

/// For every row whose value is not NULL: group, value, weight.
fn each<T: ArrowPrimitiveType>(
    groups: &[u32],
    array: &ArrayRef,
    diff: Option<&Int64Array>,
    mut add: impl FnMut(usize, T::Native, i64),
) {
    let array = array.as_primitive::<T>();
    match (array.null_count(), diff) {
        (0, None) => groups.iter().zip(array.values()).for_each(|(g, v)| add(*g as usize, *v, 1)),
        (0, Some(diff)) => groups.iter().zip(array.values()).zip(diff.values()).for_each(|((g, v), w)| add(*g as usize, *v, *w)),
        _ => {
            for (row, value) in array.iter().enumerate() {
                if let Some(value) = value {
                    add(groups[row] as usize, value, weight(diff, row));
                }
            }
        }
    }
}

impl Accumulator for Sum {
    fn resize(&mut self, count: usize) {
        self.counts.resize(count, 0);
        match &mut self.sums {
            Sums::Int(sums) => sums.resize(count, 0),
            Sums::UInt(sums) => sums.resize(count, 0),
            Sums::Decimal(sums, ..) => sums.resize(count, 0),
            Sums::Float(sums, odd) => {
                sums.resize(count, TwoPart::default());
                odd.resize(count, NonFinite::default());
            }
        }
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        let wanted = self.data_type();
        let array = match (arguments[0].data_type(), &wanted) {
            // Decimals keep their scale under sum, only the precision grows: the values are the same numbers.
            (DataType::Decimal128(_, _), DataType::Decimal128(_, _)) => Arc::clone(&arguments[0]),
            // Of whole numbers there is room for all sums, so they need not be made decimals first.
            (DataType::Int64, DataType::Decimal128(_, 0)) => return self.update_whole(groups, &arguments[0], diff),
            (from, to) if from == to => Arc::clone(&arguments[0]),
            (_, to) => compute::cast(&arguments[0], to)?,
        };
        let counts = &mut self.counts;
        let mut overflow = false;
        match &mut self.sums {
            Sums::Int(sums) => each::<Int64Type>(groups, &array, diff, |g, v, w| {
                counts[g] += w;
                sums[g] = sums[g].wrapping_add(v.wrapping_mul(w));
            }),
            Sums::UInt(sums) => each::<UInt64Type>(groups, &array, diff, |g, v, w| {
                counts[g] += w;
                sums[g] = sums[g].wrapping_add(v.wrapping_mul(w as u64));
            }),
            Sums::Float(sums, odd) => each::<Float64Type>(groups, &array, diff, |g, v, w| {
                counts[g] += w;
                if v.is_finite() {
                    (0..w.unsigned_abs()).for_each(|_| sums[g].add(if w > 0 { v } else { -v }));
                } else {
                    odd[g].add(v, w);
                }
            }),
            Sums::Decimal(sums, ..) => each::<Decimal128Type>(groups, &array, diff, |g, v, w| {
                counts[g] += w;
                match v.checked_mul(i128::from(w)).and_then(|product| sums[g].checked_add(product)) {
                    Some(sum) => sums[g] = sum,
                    None => overflow = true,
                }
            }),
        }
        if overflow { Err(Error::numeric_out_of_range("a sum exceeds 38 digits")) } else { Ok(()) }
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let values = self.raw(groups)?;
        if let Sums::Decimal(_, precision, _) = self.sums
            && precision == DECIMAL128_MAX_PRECISION
        {
            values.as_primitive::<Decimal128Type>().validate_decimal_precision(precision)?;
        }
        let empty = arrow::array::BooleanArray::from_iter(groups.iter().map(|g| Some(self.counts[*g as usize] == 0)));
        if empty.true_count() == 0 { Ok(values) } else { Ok(compute::nullif(&values, &empty)?) }
    }

    fn clear(&mut self, group: u32) {
        let g = group as usize;
        self.counts[g] = 0;
        match &mut self.sums {
            Sums::Int(sums) => sums[g] = 0,
            Sums::UInt(sums) => sums[g] = 0,
            Sums::Decimal(sums, ..) => sums[g] = 0,
            Sums::Float(sums, odd) => (sums[g], odd[g]) = (TwoPart::default(), NonFinite::default()),
        }
    }

    fn state_types(&self) -> Vec<DataType> {
        let mut types = vec![DataType::Int64, self.data_type()];
        if matches!(self.sums, Sums::Float(..)) {
            types.extend([DataType::Float64, DataType::Int64, DataType::Int64, DataType::Int64]);
        }
        types
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let counts: ArrayRef = Arc::new(Int64Array::from(pick(&self.counts, groups)));
        let Sums::Float(sums, odd) = &self.sums else { return Ok(vec![counts, self.raw(groups)?]) };
        let float = |part: fn(&TwoPart) -> f64| -> ArrayRef {
            Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(groups.iter().map(|g| part(&sums[*g as usize]))))
        };
        let count = |part: fn(&NonFinite) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| part(&odd[*g as usize]))))
        };
        Ok(vec![counts, float(|s| s.high), float(|s| s.low), count(|o| o.plus), count(|o| o.minus), count(|o| o.nan)])
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        restore_i64(&mut self.counts, groups, &state[0]);
        match &mut self.sums {
            Sums::Int(sums) => each::<Int64Type>(groups, &state[1], None, |g, v, _| sums[g] = v),
            Sums::UInt(sums) => each::<UInt64Type>(groups, &state[1], None, |g, v, _| sums[g] = v),
            Sums::Decimal(sums, ..) => each::<Decimal128Type>(groups, &state[1], None, |g, v, _| sums[g] = v),
            Sums::Float(sums, odd) => {
                each::<Float64Type>(groups, &state[1], None, |g, v, _| sums[g].high = v);
                each::<Float64Type>(groups, &state[2], None, |g, v, _| sums[g].low = v);
                each::<Int64Type>(groups, &state[3], None, |g, v, _| odd[g].plus = v);
                each::<Int64Type>(groups, &state[4], None, |g, v, _| odd[g].minus = v);
                each::<Int64Type>(groups, &state[5], None, |g, v, _| odd[g].nan = v);
            }
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        each::<Int64Type>(groups, &state[0], None, |g, v, _| self.counts[g] += v * sign);
        let mut overflow = false;
        match &mut self.sums {
            Sums::Int(sums) => {
                each::<Int64Type>(groups, &state[1], None, |g, v, _| sums[g] = sums[g].wrapping_add(v.wrapping_mul(sign)));
            }
            Sums::UInt(sums) => {
                each::<UInt64Type>(groups, &state[1], None, |g, v, _| {
                    sums[g] = sums[g].wrapping_add(v.wrapping_mul(sign as u64))
                });
            }
            Sums::Decimal(sums, ..) => each::<Decimal128Type>(groups, &state[1], None, |g, v, _| {
                match v.checked_mul(i128::from(sign)).and_then(|v| sums[g].checked_add(v)) {
                    Some(sum) => sums[g] = sum,
                    None => overflow = true,
                }
            }),
            Sums::Float(sums, odd) => {
                for part in &state[1..3] {
                    each::<Float64Type>(groups, part, None, |g, v, _| sums[g].add(v * sign as f64));
                }
                each::<Int64Type>(groups, &state[3], None, |g, v, _| odd[g].plus += v * sign);
                each::<Int64Type>(groups, &state[4], None, |g, v, _| odd[g].minus += v * sign);
                each::<Int64Type>(groups, &state[5], None, |g, v, _| odd[g].nan += v * sign);
            }
        }
        if overflow { Err(Error::numeric_out_of_range("a sum exceeds 38 digits")) } else { Ok(()) }
    }

    fn bytes(&self) -> usize {
        let each = match &self.sums {
            Sums::Int(_) | Sums::UInt(_) => 8,
            Sums::Decimal(..) => 16,
            Sums::Float(..) => 40,
        };
        self.counts.capacity() * (8 + each)
    }
}

/// `avg(x)`: the sum over the count, in the result's type. Decimals are rounded as [`divided`] does it.
pub struct Average {
    sum: Sum,
    output: DataType,
    /// Decimals of the sum.
    scale: i8,
}

impl Average {
    pub fn supports(input: &DataType, output: &DataType) -> bool {
        match (input, output) {
            (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => to >= from,
            (DataType::Int64, DataType::Decimal128(..)) => true,
            (_, DataType::Float64) => input.is_numeric() && !matches!(input, DataType::Decimal128(..) | DataType::Decimal256(..)),
            _ => false,
        }
    }

    pub fn new(input: &DataType, output: &DataType) -> Result<Average> {
        let scale = if let DataType::Decimal128(_, scale) = input { *scale } else { 0 };
        let sum = match output {
            DataType::Decimal128(..) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
            _ => DataType::Float64,
        };
        Ok(Average { sum: Sum::new(&sum)?, output: output.clone(), scale })
    }
}

impl Accumulator for Average {
    fn resize(&mut self, count: usize) {
        self.sum.resize(count);
    }

    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()> {
        self.sum.update(groups, arguments, diff)
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let counts = &self.sum.counts;
        let DataType::Decimal128(precision, scale) = self.output else {
            let sums = self.sum.raw(groups)?;
            let sums = sums.as_primitive::<Float64Type>().values();
            let average = |(g, sum): (&u32, &f64)| match counts[*g as usize] {
                0 => None,
                count => Some(sum / count as f64),
            };
            return Ok(Arc::new(groups.iter().zip(sums).map(average).collect::<PrimitiveArray<Float64Type>>()));
        };
        let Sums::Decimal(sums, ..) = &self.sum.sums else {
            return Err(Error::internal("an average of decimals has no decimal sum"));
        };
        let average = |g: &u32| match counts[*g as usize] {
            0 => Ok(None),
            count => {
                let average = divided(sums[*g as usize], self.scale.into(), count.into(), 0, scale.into())?;
                match Decimal128Type::validate_decimal_precision(average, precision, scale) {
                    Ok(()) => Ok(Some(average)),
                    Err(_) => Err(Error::numeric_out_of_range(format!("an average exceeds {precision} digits"))),
                }
            }
        };
        let values = groups.iter().map(average).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
        Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
    }

    fn clear(&mut self, group: u32) {
        self.sum.clear(group);
    }

    fn state_types(&self) -> Vec<DataType> {
        self.sum.state_types()
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.sum.state(groups)
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.sum.restore(groups, state)
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        self.sum.merge(groups, state, sign)
    }

    fn bytes(&self) -> usize {
        self.sum.bytes()
    }
}
