//! `timezone(zone, t)`, which `t AT TIME ZONE zone` stands for: the local time of an instant, or the instant of a local time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::copy::value::{HOUR, MINUTE, SECOND};
use crate::error::{Error, Result};
use crate::sql::types;
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

/// A zone by its name, or so far from UTC.
pub enum Zone {
    Named(Tz),
    /// East of UTC.
    Fixed(Micros),
}

impl Zone {
    /// A name of the tz database, or hours and minutes, which count to the west as POSIX has it.
    pub fn named(name: &str) -> Result<Zone> {
        let unknown = || Error::invalid_parameter(format!("time zone \"{name}\" not recognized"));
        if let Ok(zone) = name.parse::<Tz>() {
            return Ok(Zone::Named(zone));
        }
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name)) {
            return Ok(Zone::Named(*zone));
        }
        let (west, rest) = match name.as_bytes() {
            [b'-', ..] => (-1, &name[1..]),
            [b'+', ..] => (1, &name[1..]),
            _ => (1, name),
        };
        let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
        let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        match (number(hours), number(minutes)) {
            (Some(hours @ 0..=15), Some(minutes @ 0..=59)) => Ok(Zone::Fixed(-west * (hours * HOUR + minutes * MINUTE))),
            _ => Err(unknown()),
        }
    }

    /// What clocks show there.
    pub fn local(&self, instant: Micros) -> Result<Micros> {
        let offset = match self {
            Zone::Fixed(east) => *east,
            Zone::Named(zone) => offset(zone, civil(instant)?),
        };
        instant.checked_add(offset).ok_or_else(out_of_range)
    }

    /// When clocks there show this. In the hour that a change of clocks skips or repeats, standard time counts.
    pub fn instant(&self, local: Micros) -> Result<Micros> {
        let offset = match self {
            Zone::Fixed(east) => *east,
            Zone::Named(zone) => crate::copy::value::zone_offset(*zone, local).ok_or_else(out_of_range)?,
        };
        local.checked_sub(offset).ok_or_else(out_of_range)
    }
}

fn offset(zone: &Tz, instant: NaiveDateTime) -> Micros {
    i64::from(zone.offset_from_utc_datetime(&instant).fix().local_minus_utc()) * SECOND
}

fn civil(micros: Micros) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|moment| moment.naive_utc()).ok_or_else(out_of_range)
}

fn out_of_range() -> Error {
    Error::datetime_overflow("timestamp out of range")
}

fn instants() -> DataType {
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
            let shifted = |zone: &Zone| if is_instant { zone.local(values.value(row)) } else { zone.instant(values.value(row)) };
            if let Some(lengths) = zones.as_primitive_opt::<IntervalMonthDayNanoType>() {
                return shifted(&Zone::Fixed(lengths.value(row).nanoseconds / 1000)).map(Some);
            }
            let name = zones.as_string::<i32>().value(row);
            if known.as_ref().is_none_or(|(of, _)| of != name) {
                known = Some((name.to_string(), Zone::named(name)?));
            }
            known.as_ref().map(|(_, zone)| shifted(zone)).transpose()
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
