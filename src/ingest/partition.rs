//! Which partition a row belongs to.
//!
//! Partition = hash of the key's values modulo the number of partitions. The hash is part of the storage format: what is
//! written here may never change, or the rows of a key would be spread over two partitions. It is XXH64 over a canonical form
//! of each value, the hash so far being the seed of the next value's, beginning with 0:
//!
//! | value | bytes |
//! |---|---|
//! | NULL | none, with the complement of the seed |
//! | integers, booleans (0, 1), dates (days), times and timestamps (µs) | 8, little endian, two's complement |
//! | decimals | without zeros at their end: as an integer if it is one and fits, otherwise the unscaled value (32, little endian) and the scale (1) |
//! | floats | the bits of the `f64` (8, little endian); -0 as 0, one NaN for all |
//! | text, binary | its bytes |
//! | intervals | months (4), days (4), nanoseconds (8) |
//! | lists, maps | the length as an integer, then each element (key, value) in turn |
//! | records | each field in turn |
//!
//! So a key keeps its partition when its column's type is widened (int to bigint, numeric(8,2) to numeric(12,4)).

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;

use super::xxh64::xxh64;
use crate::error::{Error, Result};

/// The partition of each row.
pub fn partitions_of(key: &[ArrayRef], rows: usize, partitions: u32) -> Result<Vec<u32>> {
    let partitions = u64::from(partitions.max(1));
    Ok(hash_rows(key, rows)?.into_iter().map(|hash| (hash % partitions) as u32).collect())
}

/// The hash of each row's key.
pub fn hash_rows(key: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    for column in key {
        update(column, &mut hashes)?;
    }
    Ok(hashes)
}

fn update(array: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    assert_eq!(array.len(), hashes.len(), "a hash per row");
    match array.data_type() {
        DataType::Null => hashes.iter_mut().for_each(|hash| *hash = null(*hash)),
        DataType::Boolean => {
            let array = array.as_boolean();
            each(array, hashes, |row, hash| integer(i64::from(array.value(row)), hash));
        }
        DataType::Int64 => integers::<Int64Type>(array, hashes, |v| v),
        DataType::Int32 => integers::<Int32Type>(array, hashes, i64::from),
        DataType::Int16 => integers::<Int16Type>(array, hashes, i64::from),
        DataType::Int8 => integers::<Int8Type>(array, hashes, i64::from),
        DataType::UInt8 => integers::<UInt8Type>(array, hashes, i64::from),
        DataType::UInt16 => integers::<UInt16Type>(array, hashes, i64::from),
        DataType::UInt32 => integers::<UInt32Type>(array, hashes, i64::from),
        DataType::Date32 => integers::<Date32Type>(array, hashes, i64::from),
        DataType::Time64(TimeUnit::Microsecond) => integers::<Time64MicrosecondType>(array, hashes, |v| v),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(array, hashes, |v| v),
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            each(array, hashes, |row, hash| xxh64(&float_bits(array.value(row)).to_le_bytes(), hash));
        }
        DataType::Decimal256(_, scale) => {
            let (array, scale) = (array.as_primitive::<Decimal256Type>(), *scale);
            each(array, hashes, |row, hash| decimal(array.value(row), scale, hash));
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            each(array, hashes, |row, hash| xxh64(array.value(row).as_bytes(), hash));
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            each(array, hashes, |row, hash| xxh64(array.value(row), hash));
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let array = array.as_primitive::<IntervalMonthDayNanoType>();
            each(array, hashes, |row, hash| interval(array.value(row), hash));
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            nested(list, list.value_offsets(), &[list.values()], hashes)?;
        }
        DataType::Map(..) => {
            let map = array.as_map();
            nested(map, map.value_offsets(), &[map.keys(), map.values()], hashes)?;
        }
        DataType::Struct(_) => record(array.as_struct(), hashes)?,
        other => update(&cast(array, &canonical(other)?)?, hashes)?,
    }
    Ok(())
}

/// The type whose form stands for those that are written in several ways.
fn canonical(data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::UInt64 => DataType::Decimal256(20, 0),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => DataType::Decimal256(*precision, *scale),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date64 => DataType::Date32,
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => DataType::List(field.clone()),
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => return Err(Error::unsupported(format!("a column of type {other} can't choose the partition"))),
    })
}

#[inline]
fn null(hash: u64) -> u64 {
    xxh64(&[], !hash)
}

#[inline]
fn integer(value: i64, hash: u64) -> u64 {
    xxh64(&value.to_le_bytes(), hash)
}

#[inline]
fn each(array: &dyn Array, hashes: &mut [u64], hash_of: impl Fn(usize, u64) -> u64) {
    match array.nulls() {
        None => hashes.iter_mut().enumerate().for_each(|(row, hash)| *hash = hash_of(row, *hash)),
        Some(nulls) => hashes.iter_mut().enumerate().for_each(|(row, hash)| {
            *hash = if nulls.is_valid(row) { hash_of(row, *hash) } else { null(*hash) };
        }),
    }
}

#[inline]
fn integers<T: ArrowPrimitiveType>(array: &ArrayRef, hashes: &mut [u64], widen: impl Fn(T::Native) -> i64) {
    let array = array.as_primitive::<T>();
    each(array, hashes, |row, hash| integer(widen(array.value(row)), hash));
}

fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

fn decimal(mut value: i256, mut scale: i8, hash: u64) -> u64 {
    let ten = i256::from_i128(10);
    while scale > 0 && value.wrapping_rem(ten) == i256::ZERO {
        value = value.wrapping_div(ten);
        scale -= 1;
    }
    while scale < 0
        && let Some(wider) = value.checked_mul(ten)
    {
        value = wider;
        scale += 1;
    }
    match value.to_i128().and_then(|v| i64::try_from(v).ok()) {
        Some(small) if scale == 0 => integer(small, hash),
        _ => {
            let mut bytes = [0; 33];
            bytes[..32].copy_from_slice(&value.to_le_bytes());
            bytes[32] = scale.to_le_bytes()[0];
            xxh64(&bytes, hash)
        }
    }
}

fn interval(value: IntervalMonthDayNano, hash: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&value.months.to_le_bytes());
    bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
    bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
    xxh64(&bytes, hash)
}

/// Lists and maps: a row at a time, keys of these types are rare.
fn nested(array: &dyn Array, offsets: &[i32], items: &[&ArrayRef], hashes: &mut [u64]) -> Result<()> {
    for (row, hash) in hashes.iter_mut().enumerate() {
        if array.is_null(row) {
            *hash = null(*hash);
            continue;
        }
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let mut one = [integer((end - start) as i64, *hash)];
        for at in start..end {
            for column in items {
                update(&column.slice(at, 1), &mut one)?;
            }
        }
        [*hash] = one;
    }
    Ok(())
}

fn record(array: &StructArray, hashes: &mut [u64]) -> Result<()> {
    let before = hashes.to_vec();
    for column in array.columns() {
        update(column, hashes)?;
    }
    for row in (0..array.len()).filter(|row| array.is_null(*row)) {
        hashes[row] = null(before[row]);
    }
    Ok(())
}

/// Rows of each partition in their order: partition and row numbers, partitions ascending. `None`: all rows are in one.
pub(super) enum Split {
    One(u32),
    Many(Vec<(u32, UInt32Array)>),
}

pub(super) fn split(partitions_of_rows: &[u32], partitions: u32) -> Split {
    let first = partitions_of_rows.first().copied().unwrap_or(0);
    if partitions_of_rows.iter().all(|partition| *partition == first) {
        return Split::One(first);
    }
    let mut counts = vec![0usize; partitions as usize];
    for partition in partitions_of_rows {
        counts[*partition as usize] += 1;
    }
    let mut rows: Vec<Vec<u32>> = counts.iter().map(|count| Vec::with_capacity(*count)).collect();
    for (row, partition) in partitions_of_rows.iter().enumerate() {
        rows[*partition as usize].push(row as u32);
    }
    let filled = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    Split::Many(filled.map(|(partition, rows)| (partition as u32, UInt32Array::from(rows))).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn hash(array: impl Array + 'static) -> Vec<u64> {
        let array: ArrayRef = Arc::new(array);
        hash_rows(std::slice::from_ref(&array), array.len()).unwrap()
    }

    /// These figures are part of the storage format. If this test fails, the change is wrong, not the test.
    #[test]
    fn never_changes() {
        assert_eq!(hash(StringArray::from(vec!["u7", ""])), [xxh64(b"u7", 0), 0xEF46_DB37_51D8_E999]);
        assert_eq!(hash(Int64Array::from(vec![Some(1), None])), [xxh64(&1i64.to_le_bytes(), 0), xxh64(b"", u64::MAX)]);
        let key: [ArrayRef; 2] = [Arc::new(Int32Array::from(vec![42])), Arc::new(StringArray::from(vec!["abc"]))];
        assert_eq!(hash_rows(&key, 1).unwrap(), [xxh64(b"abc", xxh64(&42i64.to_le_bytes(), 0))]);
        assert_eq!(partitions_of(&[Arc::new(StringArray::from(vec!["u7", "u8"]))], 2, 1024).unwrap(), PARTITIONS_OF_U7_U8);
    }

    const PARTITIONS_OF_U7_U8: [u32; 2] = [161, 707];

    #[test]
    fn is_the_same_for_equal_values_of_wider_types() {
        let seven = hash(Int64Array::from(vec![7]));
        assert_eq!(hash(Int16Array::from(vec![7])), seven);
        assert_eq!(hash(UInt64Array::from(vec![7])), seven);
        assert_eq!(hash(Decimal128Array::from(vec![700]).with_precision_and_scale(8, 2).unwrap()), seven);
        assert_eq!(hash(Decimal128Array::from(vec![7]).with_precision_and_scale(8, 0).unwrap()), seven);
        let half = hash(Decimal128Array::from(vec![50]).with_precision_and_scale(8, 2).unwrap());
        assert_eq!(hash(Decimal256Array::from(vec![i256::from_i128(5000)]).with_precision_and_scale(50, 4).unwrap()), half);
        assert_eq!(hash(Float32Array::from(vec![0.5, -0.0])), hash(Float64Array::from(vec![0.5, 0.0])));
        assert_eq!(hash(StringViewArray::from(vec!["x"])), hash(LargeStringArray::from(vec!["x"])));
    }

    #[test]
    fn splits_in_order() {
        let Split::Many(parts) = split(&[2, 0, 2, 1, 0], 3) else { panic!("three partitions") };
        let parts: Vec<(u32, Vec<u32>)> = parts.into_iter().map(|(p, rows)| (p, rows.values().to_vec())).collect();
        assert_eq!(parts, [(0, vec![1, 4]), (1, vec![3]), (2, vec![0, 2])]);
        assert!(matches!(split(&[1, 1, 1], 3), Split::One(1)));
    }
}
