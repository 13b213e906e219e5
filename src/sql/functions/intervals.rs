//! `sum` and `avg` of intervals: months, days and times are added each for themselves, and the average has what is not whole of one
//! in the next, as in PostgreSQL. Values that are taken away leave no trace.

use std::mem::size_of_val;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::function::StateFieldsArgs;

use crate::error::{Error, Result};
use crate::sql::system::interval_divided;
use crate::sql::types::MAX_PRECISION;

/// Is an aggregate's argument an interval?
pub(super) fn is_interval(arguments: &[FieldRef]) -> bool {
    matches!(arguments, [of] if matches!(of.data_type(), DataType::Interval(_)))
}

/// An accumulator for them. `mean`: of their average.
pub(super) fn accumulator(mean: bool, distinct: bool) -> DfResult<Box<dyn Accumulator>> {
    if distinct {
        let error = Error::unsupported("sums and averages of DISTINCT intervals are not supported");
        return Err(error.with_hint("SELECT DISTINCT in a subquery, then add them up").into());
    }
    Ok(Box::new(Total { mean, ..Total::default() }))
}

pub(super) fn state_fields(args: &StateFieldsArgs) -> Vec<FieldRef> {
    let field = |part: &str, data_type| Field::new(format!("{}[{part}]", args.name), data_type, true).into();
    let nanos = DataType::Decimal128(MAX_PRECISION, 0);
    vec![field("count", DataType::Int64), field("months", DataType::Int64), field("days", DataType::Int64), field("nanos", nanos)]
}

#[derive(Debug, Default)]
struct Total {
    mean: bool,
    count: i64,
    months: i64,
    days: i64,
    nanos: i128,
}

fn out_of_range() -> Error {
    Error::datetime_overflow("interval out of range")
}

impl Total {
    /// Parts are of 32 and 64 bits each, and there are fewer values than 2⁶³: only the sums of months and days could overflow.
    fn add(&mut self, count: i64, months: i64, days: i64, nanos: i128) -> Result<()> {
        self.count += count;
        self.months = self.months.checked_add(months).ok_or_else(out_of_range)?;
        self.days = self.days.checked_add(days).ok_or_else(out_of_range)?;
        self.nanos = self.nanos.checked_add(nanos).ok_or_else(out_of_range)?;
        Ok(())
    }

    fn add_all(&mut self, values: &ArrayRef, sign: i64) -> DfResult<()> {
        let intervals = values.as_primitive_opt::<IntervalMonthDayNanoType>();
        let intervals = intervals.ok_or_else(|| Error::internal("a sum of other values than was said"))?;
        for value in intervals.iter().flatten() {
            let (months, days) = (sign * i64::from(value.months), sign * i64::from(value.days));
            self.add(sign, months, days, i128::from(sign) * i128::from(value.nanoseconds))?;
        }
        Ok(())
    }

    fn value(&self) -> Result<Option<IntervalMonthDayNano>> {
        if self.count == 0 {
            return Ok(None);
        }
        let parts = (i32::try_from(self.months), i32::try_from(self.days), i64::try_from(self.nanos));
        let (Ok(months), Ok(days), Ok(nanos)) = parts else { return Err(out_of_range()) };
        if !self.mean {
            return Ok(Some(IntervalMonthDayNano::new(months, days, nanos)));
        }
        let (months, days, micros) = interval_divided((months, days, nanos / 1000), self.count as f64)?;
        let nanos = micros.checked_mul(1000).ok_or_else(out_of_range)?;
        Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
    }
}

impl Accumulator for Total {
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
        Ok(ScalarValue::IntervalMonthDayNano(self.value()?))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let whole = |part| ScalarValue::Int64(Some(part));
        let nanos = ScalarValue::Decimal128(Some(self.nanos), MAX_PRECISION, 0);
        Ok(vec![whole(self.count), whole(self.months), whole(self.days), nanos])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let whole = |at: usize| states[at].as_primitive::<Int64Type>();
        let nanos = states[3].as_primitive::<Decimal128Type>();
        for row in 0..nanos.len() {
            self.add(whole(0).value(row), whole(1).value(row), whole(2).value(row), nanos.value(row))?;
        }
        Ok(())
    }
}
