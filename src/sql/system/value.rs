//! A value of a system relation or function: small, dynamic, and turned into Arrow arrays a column at a time.
//!
//! System relations have thousands of rows at most, so clarity goes before speed here, and only here.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder, ListArray, StringBuilder, TimestampMicrosecondBuilder,
    UInt32Builder, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit};

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Default)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    /// Any integer, an OID, or an instant in microseconds.
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Interval {
        months: i32,
        days: i32,
        micros: i64,
    },
    List(Vec<Value>),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub fn bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn oid(&self) -> Option<u32> {
        self.int().and_then(|n| u32::try_from(n).ok())
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<f64> for Value {
    fn from(f: f64) -> Value {
        Value::Float(f)
    }
}

macro_rules! from_int {
    ($($t:ty)*) => { $(impl From<$t> for Value {
        fn from(n: $t) -> Value {
            Value::Int(i64::from(n))
        }
    })* };
}
from_int!(i16 i32 i64 u16 u32);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// Calls `$append` with every value that `$get` takes out, and appends a null for the others.
macro_rules! build {
    ($builder:expr, $values:expr, $get:expr) => {{
        let mut builder = $builder;
        for value in $values {
            builder.append_option($get(value));
        }
        Arc::new(builder.finish())
    }};
}

/// The values as an array of this type. A value of another kind than the type's is a fault of the caller and becomes null.
pub(super) fn array(values: &[Value], data_type: &DataType) -> Result<ArrayRef> {
    let ints = |v: &Value| v.int();
    Ok(match data_type {
        DataType::Boolean => build!(BooleanBuilder::new(), values, Value::bool),
        DataType::Int16 => build!(Int16Builder::new(), values, |v| ints(v).and_then(|n| i16::try_from(n).ok())),
        DataType::Int32 => build!(Int32Builder::new(), values, |v| ints(v).and_then(|n| i32::try_from(n).ok())),
        DataType::Int64 => build!(Int64Builder::new(), values, ints),
        DataType::UInt32 => build!(UInt32Builder::new(), values, Value::oid),
        DataType::Float32 => build!(Float32Builder::new(), values, |v| float(v).map(|f| f as f32)),
        DataType::Float64 => build!(Float64Builder::new(), values, float),
        DataType::Utf8 => build!(StringBuilder::new(), values, Value::text),
        DataType::Binary => build!(BinaryBuilder::new(), values, Value::bytes),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            build!(TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone()), values, ints)
        }
        DataType::Decimal128(precision, scale) => {
            let unit = 10i128.pow(u32::try_from(*scale).unwrap_or(0));
            let builder = Decimal128Builder::new().with_precision_and_scale(*precision, *scale)?;
            build!(builder, values, |v| ints(v).map(|n| i128::from(n) * unit))
        }
        DataType::Interval(_) => {
            build!(IntervalMonthDayNanoBuilder::new(), values, interval)
        }
        DataType::List(element) => list(values, element)?,
        DataType::Null => new_null_array(&DataType::Null, values.len()),
        other => return Err(Error::internal(format!("system relations have no values of type {other}"))),
    })
}

fn interval(value: &Value) -> Option<IntervalMonthDayNano> {
    match value {
        Value::Interval { months, days, micros } => Some(IntervalMonthDayNano::new(*months, *days, micros.saturating_mul(1000))),
        Value::Int(micros) => Some(IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000))),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(f) => Some(*f),
        Value::Int(n) => Some(*n as f64),
        _ => None,
    }
}

fn list(values: &[Value], element: &Arc<Field>) -> Result<ArrayRef> {
    let items = |v: &Value| if let Value::List(items) = v { items.clone() } else { Vec::new() };
    let flat: Vec<Value> = values.iter().flat_map(items).collect();
    let lengths = values.iter().map(|v| items(v).len());
    let nulls: NullBuffer = values.iter().map(|v| matches!(v, Value::List(_))).collect();
    let inner = array(&flat, element.data_type())?;
    Ok(Arc::new(ListArray::new(element.clone(), OffsetBuffer::from_lengths(lengths), inner, Some(nulls))))
}

/// The value at `row` of an argument of a function.
pub(super) fn value_at(column: &dyn Array, row: usize) -> Value {
    use arrow::array::AsArray;
    use arrow::datatypes::*;
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::UInt64 => Value::Int(i64::try_from(column.as_primitive::<UInt64Type>().value(row)).unwrap_or(i64::MAX)),
        DataType::Int8 => Value::Int(column.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
            TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1000),
            TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
            TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000),
        }
        .into(),
        DataType::Date32 => Value::Int(i64::from(column.as_primitive::<Date32Type>().value(row)) * 86_400_000_000),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let IntervalMonthDayNano { months, days, nanoseconds } = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            Value::Interval { months, days, micros: nanoseconds.div_euclid(1000) }
        }
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Value::List((0..items.len()).map(|i| value_at(&items, i)).collect())
        }
        _ => Value::Null,
    }
}
