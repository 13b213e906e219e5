//! Columns of text into Arrow arrays: one tight loop per type.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;

use super::fields::{Bad, Values};
use super::value::{self, Formats, Integer};
use crate::error::{Error, Result};

/// The array of a type from the text of its values.
pub(crate) fn build(data_type: &DataType, values: &impl Values, formats: Formats) -> Result<ArrayRef, Bad> {
    Ok(match data_type {
        DataType::Boolean => booleans(values)?,
        DataType::Int8 => integers::<Int8Type, _>(values)?,
        DataType::Int16 => integers::<Int16Type, _>(values)?,
        DataType::Int32 => integers::<Int32Type, _>(values)?,
        DataType::Int64 => integers::<Int64Type, _>(values)?,
        DataType::UInt8 => integers::<UInt8Type, _>(values)?,
        DataType::UInt16 => integers::<UInt16Type, _>(values)?,
        DataType::UInt32 => integers::<UInt32Type, _>(values)?,
        DataType::UInt64 => integers::<UInt64Type, _>(values)?,
        DataType::Float32 => Arc::new(primitives::<Float32Type, _>(values, value::parse_float32)?),
        DataType::Float64 => Arc::new(primitives::<Float64Type, _>(values, value::parse_float64)?),
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let array = primitives::<Decimal128Type, _>(values, |text| value::parse_numeric(text, precision, scale))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Decimal256(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let array = primitives::<Decimal256Type, _>(values, |text| value::parse_numeric256(text, precision, scale))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Utf8 => Arc::new(strings(values)?),
        DataType::Binary => Arc::new(bytes(values)?),
        DataType::Date32 => Arc::new(primitives::<Date32Type, _>(values, |text| value::parse_date(text, formats))?),
        DataType::Time64(TimeUnit::Microsecond) => Arc::new(primitives::<Time64MicrosecondType, _>(values, value::parse_time)?),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Arc::new(primitives::<TimestampMicrosecondType, _>(values, |text| value::parse_timestamp(text, formats))?)
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            let array = primitives::<TimestampMicrosecondType, _>(values, |text| value::parse_timestamptz(text, formats))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Arc::new(primitives::<IntervalMonthDayNanoType, _>(values, value::parse_interval)?)
        }
        DataType::List(field) => lists(field, values, formats)?,
        DataType::Struct(fields) => records(fields, values, formats)?,
        DataType::Map(..) => super::json::build(data_type, &(0..values.len()).map(|row| values.get(row)).collect(), formats)?,
        other => {
            let stands_for = representative(other).map_err(Bad::at(0))?;
            cast(&build(&stands_for, values, formats)?, other).map_err(|e| Bad { row: 0, error: e.into() })?
        }
    })
}

/// The type that values of a rarer type are read as, and cast from.
pub(super) fn representative(data_type: &DataType) -> Result<DataType> {
    let empty = new_empty_array(data_type);
    let to = value::write::canonical(&empty)?.data_type().clone();
    if to == *data_type {
        return Err(Error::unsupported(format!("values of type {data_type} can't be read from text")));
    }
    Ok(to)
}

fn integers<T, V>(values: &V) -> Result<ArrayRef, Bad>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
    V: Values,
{
    Ok(Arc::new(primitives::<T, V>(values, value::parse_int::<T::Native>)?))
}

#[inline]
fn primitives<T: ArrowPrimitiveType, V: Values>(
    values: &V,
    parse: impl Fn(&[u8]) -> Result<T::Native>,
) -> Result<PrimitiveArray<T>, Bad> {
    let mut out: Vec<T::Native> = Vec::with_capacity(values.len());
    let mut nulls = NullBufferBuilder::new(values.len());
    for row in 0..values.len() {
        match values.get(row) {
            Some(text) => {
                match parse(text) {
                    Ok(value) => out.push(value),
                    Err(error) => return Err(Bad { row, error }),
                }
                nulls.append_non_null();
            }
            None => {
                out.push(T::Native::default());
                nulls.append_null();
            }
        }
    }
    Ok(PrimitiveArray::new(ScalarBuffer::from(out), nulls.finish()))
}

fn booleans(values: &impl Values) -> Result<ArrayRef, Bad> {
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut out = BooleanBufferBuilder::new(values.len());
    for row in 0..values.len() {
        let text = values.get(row);
        nulls.append(text.is_some());
        out.append(text.map_or(Ok(false), value::parse_bool).map_err(Bad::at(row))?);
    }
    let buffer: BooleanBuffer = out.finish();
    Ok(Arc::new(BooleanArray::new(buffer, nulls.finish())))
}

/// Offsets of variable-length values. Blocks are far below 2^31 bytes; nested values can repeat no text either.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

fn strings(values: &impl Values) -> Result<StringArray, Bad> {
    let mut ends = Vec::with_capacity(values.len() + 1);
    ends.push(0);
    let mut text = Vec::with_capacity(values.len() * 8);
    let mut nulls = NullBufferBuilder::new(values.len());
    for row in 0..values.len() {
        let value = values.get(row);
        nulls.append(value.is_some());
        text.extend_from_slice(value.unwrap_or_default());
        ends.push(text.len() as i32);
    }
    let has_zero = memchr::memchr(0, &text).is_some();
    if !has_zero && let Ok(array) = StringArray::try_new(offsets(ends), text.into(), nulls.finish()) {
        return Ok(array);
    }
    // Which one was it?
    for row in 0..values.len() {
        check_utf8(values.get(row).unwrap_or_default()).map_err(Bad::at(row))?;
    }
    Err(Bad { row: 0, error: Error::invalid_encoding("invalid byte sequence for encoding \"UTF8\"") })
}

/// 22021 as PostgreSQL says it, also for a zero byte, which no text may hold.
pub(super) fn check_utf8(text: &[u8]) -> Result<&str> {
    let (bad, length) = match (std::str::from_utf8(text), memchr::memchr(0, text)) {
        (Ok(text), None) => return Ok(text),
        (Ok(_), Some(zero)) => (zero, 1),
        (Err(error), _) => (error.valid_up_to(), error.error_len().unwrap_or(text.len() - error.valid_up_to())),
    };
    let shown: Vec<String> = text.iter().skip(bad).take(length.max(1)).map(|b| format!("0x{b:02x}")).collect();
    Err(Error::invalid_encoding(format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" "))))
}

fn bytes(values: &impl Values) -> Result<BinaryArray, Bad> {
    let mut builder = BinaryBuilder::new();
    for row in 0..values.len() {
        builder.append_option(values.get(row).map(value::parse_bytea).transpose().map_err(Bad::at(row))?);
    }
    Ok(builder.finish())
}

fn lists(field: &FieldRef, values: &impl Values, formats: Formats) -> Result<ArrayRef, Bad> {
    let mut ends = vec![0];
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut items = Vec::new();
    for row in 0..values.len() {
        let text = values.get(row);
        nulls.append(text.is_some());
        if let Some(text) = text {
            items.extend(value::parse_array(text).map_err(Bad::at(row))?);
        }
        ends.push(items.len() as i32);
    }
    let items = build(field.data_type(), &items, formats).map_err(|bad| row_of_item(&ends, bad))?;
    list_array(field, offsets(ends), items, nulls)
}

/// The same error at the row whose list holds the item.
pub(super) fn row_of_item(ends: &[i32], bad: Bad) -> Bad {
    let row = ends.partition_point(|end| *end as usize <= bad.row).saturating_sub(1);
    Bad { row, error: bad.error }
}

pub(super) fn list_array(
    field: &FieldRef,
    offsets: OffsetBuffer<i32>,
    items: ArrayRef,
    mut nulls: NullBufferBuilder,
) -> Result<ArrayRef, Bad> {
    if !field.is_nullable()
        && let Some(at) = (0..items.len()).find(|at| items.is_null(*at))
    {
        let error = Error::not_null_violation("array elements must not be null");
        return Err(row_of_item(&offsets, Bad { row: at, error }));
    }
    Ok(Arc::new(ListArray::new(field.clone(), offsets, items, nulls.finish())))
}

fn records(fields: &Fields, values: &impl Values, formats: Formats) -> Result<ArrayRef, Bad> {
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut columns: Vec<value::Elements<'_>> = fields.iter().map(|_| Vec::with_capacity(values.len())).collect();
    for row in 0..values.len() {
        let text = values.get(row);
        nulls.append(text.is_some());
        let Some(text) = text else {
            columns.iter_mut().for_each(|column| column.push(None));
            continue;
        };
        let parts = value::parse_record(text).map_err(Bad::at(row))?;
        if parts.len() != fields.len() {
            let message = format!("malformed record literal: \"{}\"", String::from_utf8_lossy(text));
            let few = if parts.len() < fields.len() { "few" } else { "many" };
            return Err(Bad { row, error: Error::invalid_text(message).with_detail(format!("Too {few} columns.")) });
        }
        for (column, part) in columns.iter_mut().zip(parts) {
            column.push(part);
        }
    }
    let arrays = fields
        .iter()
        .zip(&columns)
        .map(|(field, column)| build(field.data_type(), column, formats))
        .collect::<Result<Vec<_>, _>>()?;
    struct_array(fields, arrays, nulls)
}

pub(super) fn struct_array(fields: &Fields, arrays: Vec<ArrayRef>, mut nulls: NullBufferBuilder) -> Result<ArrayRef, Bad> {
    let nulls = nulls.finish();
    let rows = arrays.first().map_or(0, |array| array.len());
    for (field, array) in fields.iter().zip(&arrays) {
        let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        if !field.is_nullable()
            && let Some(row) = (0..rows).find(|row| array.is_null(*row) && valid(*row))
        {
            let error =
                Error::not_null_violation(format!("null value in field \"{}\" violates not-null constraint", field.name()));
            return Err(Bad { row, error });
        }
    }
    Ok(Arc::new(StructArray::new(fields.clone(), arrays, nulls)))
}
