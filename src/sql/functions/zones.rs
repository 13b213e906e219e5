//! `timezone(zone, t)`, which `t AT TIME ZONE zone` stands for: the local time of an instant, or the instant of a local time; and
//! instants an interval later, as the clocks of a zone count months and days.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::copy::value::DAY;
use crate::error::{Error, Result};
use crate::sql::types;
use crate::time::zone::Zone;
use crate::time::{Micros, TIMESTAMP};

/// The function.
pub fn all() -> [Arc<ScalarUDF>; 1] {
    let signature = Signature::user_defined(Volatility::Immutable);
    [Arc::new(ScalarUDF::new_from_impl(TimeZoneOf { signature }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeZoneOf {
    signature: Signature,
}

/// The type of instants.
pub fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl TimeZoneOf {
    fn evaluate(&self, zones: &ArrayRef, times: &ArrayRef, returned: &DataType) -> Result<ArrayRef> {
        let is_instant = matches!(times.data_type(), DataType::Timestamp(_, Some(_)));
        let values = times.as_primitive::<TimestampMicrosecondType>();
        let mut known: Option<(String, Zone)> = None;
        let mut convert = |row: usize| -> Result<Option<Micros>> {
            if zones.is_null(row) || values.is_null(row) {
                return Ok(None);
            }
            let shifted = |zone: Zone| if is_instant { zone.local(values.value(row)) } else { zone.instant(values.value(row)) };
            if let Some(lengths) = zones.as_primitive_opt::<IntervalMonthDayNanoType>() {
                let seconds = i32::try_from(lengths.value(row).nanoseconds / 1_000_000_000);
                let east = seconds.map_err(|_| Error::invalid_parameter("time zone displacement out of range"))?;
                return shifted(Zone::Fixed(east)).map(Some);
            }
            let name = zones.as_string::<i32>().value(row);
            if known.as_ref().is_none_or(|(of, _)| of != name) {
                known = Some((name.to_string(), Zone::named(name)?));
            }
            known.as_ref().map(|(_, zone)| shifted(*zone)).transpose()
        };
        let shifted = (0..values.len()).map(&mut convert).collect::<Result<PrimitiveArray<TimestampMicrosecondType>>>()?;
        Ok(Arc::new(shifted.with_data_type(returned.clone())))
    }
}

impl ScalarUDFImpl for TimeZoneOf {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        let [zone, time] = given else {
            return Err(Error::undefined_function("timezone takes a time zone and a time").into());
        };
        let zone = match zone {
            DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            _ => DataType::Utf8,
        };
        let time = match time {
            DataType::Timestamp(_, None) => TIMESTAMP,
            DataType::Timestamp(_, Some(_)) | DataType::Date32 | DataType::Null => instants(),
            text if types::is_text(text) => instants(),
            other => {
                let message = format!("function timezone(text, {}) does not exist", types::plain_name(other));
                return Err(Error::undefined_function(message).with_hint("add explicit type casts").into());
            }
        };
        Ok(vec![zone, time])
    }

    fn return_type(&self, given: &[DataType]) -> DfResult<DataType> {
        Ok(match given {
            [_, DataType::Timestamp(_, None)] => instants(),
            _ => TIMESTAMP,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [zones, times] = arrays.as_slice() else { return Err(Error::internal("a time zone is of a time").into()) };
        let result = self.evaluate(zones, times, args.return_field.data_type())?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// An instant and an interval added, or taken away (`back`): months and days by the clocks of the zone, and then the time that is left.
/// It is no function of SQL: where a session has a zone, it stands for `+` and `-`.
pub fn shifted(instant: Expr, interval: Expr, back: bool, zone: Zone) -> Expr {
    let signature = Signature::exact(vec![instants(), DataType::Interval(IntervalUnit::MonthDayNano)], Volatility::Immutable);
    ScalarUDF::new_from_impl(Shifted { back, zone, signature }).call(vec![instant, interval])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shifted {
    back: bool,
    zone: Zone,
    signature: Signature,
}

impl Shifted {
    fn shift(&self, instant: Micros, by: IntervalMonthDayNano) -> Result<Micros> {
        let sign = if self.back { -1 } else { 1 };
        let (months, days, micros) = (sign * i64::from(by.months), sign * i64::from(by.days), sign * (by.nanoseconds / 1000));
        let mut instant = instant;
        if months != 0 {
            instant = self.zone.instant(months_later(self.zone.local(instant)?, months)?)?;
        }
        if days != 0 {
            let day = days.checked_mul(DAY).and_then(|days| self.zone.local(instant).ok()?.checked_add(days));
            instant = self.zone.instant(day.ok_or_else(out_of_range)?)?;
        }
        instant.checked_add(micros).ok_or_else(out_of_range)
    }
}

/// The same day of another month, or that month's last.
fn months_later(local: Micros, months: i64) -> Result<Micros> {
    let (day, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let date = chrono::NaiveDate::from_epoch_days(i32::try_from(day).map_err(|_| out_of_range())?);
    let by = chrono::Months::new(u32::try_from(months.unsigned_abs()).map_err(|_| out_of_range())?);
    let date = date.and_then(|date| if months < 0 { date.checked_sub_months(by) } else { date.checked_add_months(by) });
    Ok(i64::from(date.ok_or_else(out_of_range)?.to_epoch_days()) * DAY + time)
}

fn out_of_range() -> Error {
    Error::datetime_overflow("timestamp out of range")
}

impl ScalarUDFImpl for Shifted {
    fn name(&self) -> &str {
        if self.back { "timestamptz_minus" } else { "timestamptz_plus" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(instants())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [times, intervals] = arrays.as_slice() else { return Err(Error::internal("an instant has one distance").into()) };
        let (times, intervals) =
            (times.as_primitive::<TimestampMicrosecondType>(), intervals.as_primitive::<IntervalMonthDayNanoType>());
        let pairs = times.iter().zip(intervals.iter());
        let shift = |(time, by): (Option<Micros>, Option<_>)| time.zip(by).map(|(time, by)| self.shift(time, by)).transpose();
        let shifted = pairs.map(shift).collect::<Result<PrimitiveArray<TimestampMicrosecondType>>>()?;
        let result: ArrayRef = Arc::new(shifted.with_data_type(instants()));
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}
