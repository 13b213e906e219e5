//! `extract`, `date_part` and `date_trunc`: the fields of moments and of intervals.
//!
//! `extract` gives `numeric`, with the decimals that a field can have; `date_part` the same as `double precision`. The field is
//! a literal, so the type of the answer is known when a statement is planned.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::*;
use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::copy::value::{DAY, HOUR, MINUTE, SECOND};
use crate::error::{Error, Result};
use crate::sql::types;
use crate::time::zone::Zone;
use crate::time::{Micros, TIMESTAMP};

/// All three.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let function = |what, name| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Fields { what, name, signature }))
    };
    vec![function(What::Extract, "extract"), function(What::DatePart, "date_part"), function(What::Truncate, "date_trunc")]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Extract,
    DatePart,
    Truncate,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Fields {
    what: What,
    name: &'static str,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Epoch,
    Julian,
    Zone,
    ZoneHour,
    ZoneMinute,
}

/// The field of a name, in all the forms that PostgreSQL takes.
fn named(name: &str) -> Option<Part> {
    use Part::*;
    // `extract('year' FROM …)` comes with the quotes.
    Some(match name.trim_matches('\'').to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "useconds" | "microsecond" | "microseconds" | "microsecon" => Microseconds,
        "ms" | "msec" | "msecs" | "mseconds" | "millisecond" | "milliseconds" | "millisecon" => Milliseconds,
        "s" | "sec" | "secs" | "second" | "seconds" => Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Hour,
        "d" | "day" | "days" => Day,
        "w" | "week" | "weeks" => Week,
        "mon" | "mons" | "month" | "months" => Month,
        "qtr" | "quarter" => Quarter,
        "y" | "yr" | "yrs" | "year" | "years" => Year,
        "dec" | "decs" | "decade" | "decades" => Decade,
        "c" | "cent" | "century" | "centuries" => Century,
        "mil" | "mils" | "millennia" | "millennium" => Millennium,
        "dow" => DayOfWeek,
        "isodow" => IsoDayOfWeek,
        "doy" => DayOfYear,
        "isoyear" => IsoYear,
        "epoch" => Epoch,
        "j" | "jd" | "julian" => Julian,
        "timezone" => Zone,
        "timezone_h" | "timezone_hour" => ZoneHour,
        "timezone_m" | "timezone_minute" => ZoneMinute,
        _ => return None,
    })
}

fn find(name: &str, of: &DataType) -> Result<Part> {
    named(name)
        .ok_or_else(|| Error::invalid_parameter(format!("unit \"{name}\" not recognized for type {}", types::plain_name(of))))
}

fn unsupported(name: &str, of: &DataType) -> Error {
    let name = name.to_lowercase();
    Error::unsupported(format!("unit \"{name}\" not supported for type {}", types::plain_name(of)))
}

impl Part {
    /// Decimals of the field's values.
    fn scale(self, of: &DataType) -> i8 {
        match self {
            Part::Milliseconds => 3,
            Part::Second => 6,
            Part::Epoch if of != &DataType::Date32 => 6,
            _ => 0,
        }
    }

    /// The field of a moment, times its scale; `None` where a moment has none such.
    fn of_moment(self, micros: Micros, of: &DataType) -> Result<Option<i128>> {
        use Part::*;
        if let DataType::Date32 = of
            && matches!(self, Microseconds | Milliseconds | Second | Minute | Hour | Zone | ZoneHour | ZoneMinute)
        {
            return Ok(None);
        }
        let time = micros.rem_euclid(DAY);
        let moment = civil(micros)?;
        let date = moment.date();
        let year = i64::from(moment.year());
        // There is no year 0: the years before Christ count down to 1.
        let era = |length: i64| if year > 0 { (year + length - 1) / length } else { -((length - 1 - (year - 1)) / length) };
        Ok(Some(i128::from(match self {
            Microseconds | Milliseconds | Second => time % MINUTE,
            Minute => time / MINUTE % 60,
            Hour => time / HOUR,
            Day => date.day().into(),
            Week => date.iso_week().week().into(),
            Month => date.month().into(),
            Quarter => (date.month0() / 3 + 1).into(),
            Year => {
                if year > 0 {
                    year
                } else {
                    year - 1
                }
            }
            Decade => year.div_euclid(10),
            Century => era(100),
            Millennium => era(1000),
            DayOfWeek => date.weekday().num_days_from_sunday().into(),
            IsoDayOfWeek => date.weekday().number_from_monday().into(),
            DayOfYear => date.ordinal().into(),
            IsoYear => date.iso_week().year().into(),
            Epoch if of == &DataType::Date32 => micros / SECOND,
            Epoch => micros,
            Julian => micros.div_euclid(DAY) + JULIAN_EPOCH,
            Zone | ZoneHour | ZoneMinute => return Ok(None),
        })))
    }

    /// The field of an instant, as clocks there show it, times its scale.
    fn seen_in(self, zone: crate::time::zone::Zone, instant: Micros, of: &DataType) -> Result<Option<i128>> {
        let east = i128::from(zone.offset(instant));
        match self {
            Part::Zone => Ok(Some(east)),
            Part::ZoneHour => Ok(Some(east / 3600)),
            Part::ZoneMinute => Ok(Some(east / 60 % 60)),
            Part::Epoch => self.of_moment(instant, of),
            _ => self.of_moment(zone.local(instant)?, of),
        }
    }

    fn of_time(self, micros: Micros) -> Option<i128> {
        use Part::*;
        Some(i128::from(match self {
            Microseconds | Milliseconds | Second => micros % MINUTE,
            Minute => micros / MINUTE % 60,
            Hour => micros / HOUR,
            Epoch => micros,
            _ => return None,
        }))
    }

    fn of_interval(self, interval: IntervalMonthDayNano) -> Option<i128> {
        use Part::*;
        let (micros, months) = (interval.nanoseconds / 1000, i64::from(interval.months));
        Some(i128::from(match self {
            Microseconds | Milliseconds | Second => micros % MINUTE,
            Minute => micros / MINUTE % 60,
            Hour => micros / HOUR,
            Day => interval.days.into(),
            Month => months % 12,
            Quarter => months % 12 / 3 + 1,
            Year => months / 12,
            Decade => months / 120,
            Century => months / 1200,
            Millennium => months / 12_000,
            // A year has 365.25 days, a month that is not whole years 30.
            Epoch => {
                let days = i128::from(months % 12) * 30 + i128::from(interval.days);
                let years = i128::from(months / 12) * i128::from(DAY) * 1461 / 4;
                return Some(years + days * i128::from(DAY) + i128::from(micros));
            }
            _ => return None,
        }))
    }

    /// The beginning of the field that a moment lies in.
    fn truncate(self, micros: Micros) -> Result<Option<Micros>> {
        use Part::*;
        let to = |unit: i64| Ok(Some(micros.div_euclid(unit) * unit));
        let moment = civil(micros)?;
        let year = moment.year();
        let (year, month) = match self {
            Microseconds => return Ok(Some(micros)),
            Milliseconds => return to(1000),
            Second => return to(SECOND),
            Minute => return to(MINUTE),
            Hour => return to(HOUR),
            Day => return to(DAY),
            // 1970-01-01 was a Thursday.
            Week => return Ok(Some((micros.div_euclid(DAY) + 3).div_euclid(7) * 7 * DAY - 3 * DAY)),
            Month => (year, moment.month()),
            Quarter => (year, moment.month0() / 3 * 3 + 1),
            Year => (year, 1),
            Decade => (year.div_euclid(10) * 10, 1),
            Century => ((year - 1).div_euclid(100) * 100 + 1, 1),
            Millennium => ((year - 1).div_euclid(1000) * 1000 + 1, 1),
            _ => return Ok(None),
        };
        let start = NaiveDate::from_ymd_opt(year, month, 1).and_then(|date| date.and_hms_opt(0, 0, 0));
        Ok(Some(start.ok_or_else(out_of_range)?.and_utc().timestamp_micros()))
    }

    fn truncate_interval(self, interval: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
        use Part::*;
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        let part = |unit: i64| Some(IntervalMonthDayNano::new(months, days, nanoseconds / (unit * 1000) * (unit * 1000)));
        let whole = |count: i32| Some(IntervalMonthDayNano::new(months / count * count, 0, 0));
        match self {
            Microseconds => Some(interval),
            Milliseconds => part(1000),
            Second => part(SECOND),
            Minute => part(MINUTE),
            Hour => part(HOUR),
            Day => Some(IntervalMonthDayNano::new(months, days, 0)),
            Month => whole(1),
            Quarter => whole(3),
            Year => whole(12),
            Decade => whole(120),
            Century => whole(1200),
            Millennium => whole(12_000),
            _ => None,
        }
    }
}

/// The Julian day of 1970-01-01.
const JULIAN_EPOCH: i64 = 2_440_588;

fn out_of_range() -> Error {
    Error::datetime_overflow("timestamp out of range")
}

fn civil(micros: Micros) -> Result<NaiveDateTime> {
    let moment = chrono::DateTime::from_timestamp_micros(micros).map(|moment| moment.naive_utc());
    moment.filter(|moment| moment.nanosecond() < 1_000_000_000).ok_or_else(out_of_range)
}

/// The types that fields are taken of.
fn operand(data_type: &DataType, name: &str) -> Result<DataType> {
    Ok(match data_type {
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(zone)) => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Null => TIMESTAMP,
        text if types::is_text(text) => TIMESTAMP,
        other => {
            let message = format!("function {name}(unknown, {}) does not exist", types::plain_name(other));
            return Err(Error::undefined_function(message).with_hint("add explicit type casts"));
        }
    })
}

impl Fields {
    fn returned(&self, field: Option<Part>, of: &DataType) -> DataType {
        match (self.what, of) {
            (What::Extract, of) => DataType::Decimal128(20, field.map_or(0, |field| field.scale(of))),
            (What::DatePart, _) => DataType::Float64,
            // As in PostgreSQL, where a date is taken for midnight somewhere.
            (What::Truncate, DataType::Date32) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            (What::Truncate, DataType::Time64(_)) => DataType::Interval(IntervalUnit::MonthDayNano),
            (What::Truncate, of) => of.clone(),
        }
    }

    fn evaluate(&self, name: &str, values: &ArrayRef, returned: &DataType) -> Result<ArrayRef> {
        let of = values.data_type();
        let field = find(name, of)?;
        let none = || unsupported(name, of);
        match self.what {
            What::Truncate => match of {
                DataType::Interval(_) => {
                    let part = |value| field.truncate_interval(value).ok_or_else(none);
                    let values = values.as_primitive::<IntervalMonthDayNanoType>();
                    Ok(Arc::new(values.try_unary::<_, IntervalMonthDayNanoType, Error>(part)?))
                }
                DataType::Time64(_) => {
                    let part = |micros| {
                        let span = IntervalMonthDayNano::new(0, 0, micros * 1000);
                        field.truncate_interval(span).ok_or_else(none)
                    };
                    let values = values.as_primitive::<Time64MicrosecondType>();
                    Ok(Arc::new(values.try_unary::<_, IntervalMonthDayNanoType, Error>(part)?))
                }
                _ => {
                    let start = |micros| field.truncate(micros)?.ok_or_else(none);
                    let values = micros(values);
                    let starts = values.try_unary::<_, TimestampMicrosecondType, Error>(start)?;
                    Ok(Arc::new(starts.with_data_type(returned.clone())))
                }
            },
            What::Extract | What::DatePart => {
                let numbers: PrimitiveArray<Decimal128Type> = match of {
                    DataType::Interval(_) => {
                        let part = |value| field.of_interval(value).ok_or_else(none);
                        values.as_primitive::<IntervalMonthDayNanoType>().try_unary(part)?
                    }
                    DataType::Time64(_) => {
                        let part = |value| field.of_time(value).ok_or_else(none);
                        values.as_primitive::<Time64MicrosecondType>().try_unary(part)?
                    }
                    DataType::Timestamp(_, Some(zone)) => {
                        let zone = crate::time::zone::Zone::of_type(zone);
                        micros(values).try_unary(|value| field.seen_in(zone, value, of)?.ok_or_else(none))?
                    }
                    of => micros(values).try_unary(|value| field.of_moment(value, of)?.ok_or_else(none))?,
                };
                if let What::Extract = self.what {
                    return Ok(Arc::new(numbers.with_data_type(returned.clone())));
                }
                let unit = 10f64.powi(field.scale(of).into());
                let floats: PrimitiveArray<Float64Type> = numbers.unary(|number| number as f64 / unit);
                Ok(Arc::new(floats))
            }
        }
    }
}

/// Dates and timestamps, as microseconds.
fn micros(values: &ArrayRef) -> PrimitiveArray<Int64Type> {
    match values.as_primitive_opt::<Date32Type>() {
        Some(dates) => dates.unary(|day| i64::from(day) * DAY),
        None => values.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(),
    }
}

fn literal(value: Option<&ScalarValue>) -> Option<&str> {
    value.and_then(|value| value.try_as_str()).flatten()
}

impl ScalarUDFImpl for Fields {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [_, of] => Ok(vec![DataType::Utf8, operand(of, self.name)?]),
            [_, of, _] if self.what == What::Truncate => Ok(vec![DataType::Utf8, operand(of, self.name)?, DataType::Utf8]),
            _ => Err(Error::undefined_function(format!("function {} takes a field and a value", self.name)).into()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Err(Error::internal("the type of a field depends on its name").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let Some(of) = args.arg_fields.get(1) else {
            return Err(Error::undefined_function(format!("function {} takes a field and a value", self.name)).into());
        };
        let of = operand(of.data_type(), self.name)?;
        let field = match literal(args.scalar_arguments.first().copied().flatten()) {
            Some(name) => Some(find(name, &of)?),
            None => None,
        };
        Ok(Arc::new(Field::new(self.name, self.returned(field, &of), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let returned = args.return_field.data_type();
        let rows = if constant { 1 } else { args.number_rows };
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            let error = Error::unsupported(format!("the field of {} is not a literal", self.name));
            return Err(error.with_hint("write the field's name between quotes").into());
        };
        let Some(name) = name.try_as_str().flatten() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(returned)?));
        };
        let values = args.args[1].to_array(rows)?;
        let result = match args.args.get(2) {
            Some(ColumnarValue::Scalar(zone)) => {
                let Some(zone) = zone.try_as_str().flatten() else {
                    return Ok(ColumnarValue::Scalar(ScalarValue::try_from(returned)?));
                };
                in_zone(&values, zone, |local| self.evaluate(name, local, &TIMESTAMP), returned)?
            }
            Some(ColumnarValue::Array(_)) => {
                return Err(Error::unsupported("the time zone of date_trunc is not a literal").into());
            }
            None => self.evaluate(name, &values, returned)?,
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// What is computed of the local time of a zone, as the instants that it stands for.
fn in_zone(
    values: &ArrayRef,
    zone: &str,
    compute: impl Fn(&ArrayRef) -> Result<ArrayRef>,
    returned: &DataType,
) -> Result<ArrayRef> {
    let zone = Zone::named(zone)?;
    let local = micros(values).try_unary::<_, TimestampMicrosecondType, Error>(|instant| zone.local(instant))?;
    let computed = compute(&(Arc::new(local) as ArrayRef))?;
    let instants = micros(&computed).try_unary::<_, TimestampMicrosecondType, Error>(|local| zone.instant(local))?;
    Ok(Arc::new(instants.with_data_type(returned.clone())))
}
