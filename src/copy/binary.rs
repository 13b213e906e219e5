//! The binary format: PostgreSQL's send and receive functions, with a length before each value.
//!
//! Lengths come from outside: none is used before the bytes it speaks of are there, and none sizes an allocation.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;

use super::column::{self, list_array, representative, row_of_item, struct_array};
use super::fields::{Bad, Fields as Rows, Values};
use super::value::write::{Writer, canonical, text_writer};
use super::value::{DAY, parse_numeric256};
use super::{Layout, value};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::time::{POSTGRES_EPOCH, POSTGRES_EPOCH_DAYS};

pub(super) const SIGNATURE: [u8; 11] = *b"PGCOPY\n\xff\r\n\0";

/// Signature, flags and extension before the rows; `None` if more bytes are needed.
pub(super) fn header_length(data: &[u8]) -> Result<Option<usize>> {
    let compared = data.len().min(SIGNATURE.len());
    if data[..compared] != SIGNATURE[..compared] {
        return Err(Error::bad_copy("COPY file signature not recognized"));
    }
    let mut rest = Reader(data.get(SIGNATURE.len()..).unwrap_or_default());
    let (Some(flags), Some(extension)) = (rest.u32(), rest.i32()) else { return Ok(None) };
    if flags & (1 << 16) != 0 {
        return Err(Error::bad_copy("invalid COPY file header (WITH OIDS)"));
    }
    if flags >> 16 != 0 {
        return Err(Error::bad_copy("unrecognized critical flags in COPY file header"));
    }
    let extension = usize::try_from(extension).map_err(|_| Error::bad_copy("invalid COPY file header (wrong length)"))?;
    Ok(rest.bytes(extension).map(|_| SIGNATURE.len() + 8 + extension))
}

pub(super) enum Tuple {
    /// So many bytes long.
    Row(usize),
    Trailer,
}

/// What stands at the head of the data; `None` if more bytes are needed.
pub(super) fn next_tuple(data: &[u8], columns: usize) -> Result<Option<Tuple>> {
    let mut rest = Reader(data);
    let Some(count) = rest.i16() else { return Ok(None) };
    if count == -1 {
        return Ok(Some(Tuple::Trailer));
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(Error::bad_copy(format!("row field count is {count}, expected {columns}")));
    }
    for _ in 0..columns {
        match rest.value() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(None),
        }
    }
    Ok(Some(Tuple::Row(data.len() - rest.0.len())))
}

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A length and as many bytes; -1 is NULL. `None` if they are not all there.
    fn value(&mut self) -> Option<Result<Option<&'a [u8]>>> {
        match self.i32()? {
            -1 => Some(Ok(None)),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length).map(|bytes| Ok(Some(bytes))),
                Err(_) => Some(Err(Error::bad_copy("invalid field size"))),
            },
        }
    }
}

pub(super) fn split<'a>(data: &'a [u8], layout: &Layout) -> Rows<'a> {
    let mut fields = Rows::new(data, layout.columns.len());
    let mut at = 0;
    while at < data.len() {
        fields.begin_row(at);
        match next_tuple(&data[at..], layout.columns.len()) {
            Ok(Some(Tuple::Row(length))) => {
                let mut rest = Reader(&data[at + 2..at + length]);
                while let Some(Ok(value)) = rest.value() {
                    let end = at + length - rest.0.len();
                    match value {
                        Some(value) => fields.push(end - value.len(), end),
                        None => fields.push_null(),
                    }
                }
                at += length;
            }
            Ok(_) => {
                fields.stop(0, Error::bad_copy("unexpected EOF in COPY data"));
                break;
            }
            Err(error) => {
                fields.stop(0, error);
                break;
            }
        }
    }
    fields
}

#[cold]
fn invalid(what: &str) -> Error {
    Error::invalid_binary(format!("incorrect binary data format for type {what}"))
}

/// The array of a type from the binary form of its values.
pub(crate) fn build(data_type: &DataType, sql_type: &str, values: &impl Values) -> Result<ArrayRef, Bad> {
    Ok(match data_type {
        DataType::Boolean => booleans(values)?,
        DataType::Int16 => Arc::new(primitives::<Int16Type>(values, "smallint", i16::from_be_bytes)?),
        DataType::Int32 => Arc::new(primitives::<Int32Type>(values, "integer", i32::from_be_bytes)?),
        DataType::Int64 => Arc::new(primitives::<Int64Type>(values, "bigint", i64::from_be_bytes)?),
        DataType::Int8 | DataType::UInt8 => narrowed(data_type, &DataType::Int16, values)?,
        DataType::UInt16 => narrowed(data_type, &DataType::Int32, values)?,
        DataType::UInt32 => narrowed(data_type, &DataType::Int64, values)?,
        DataType::UInt64 => narrowed(data_type, &DataType::Decimal128(20, 0), values)?,
        DataType::Float32 => Arc::new(primitives::<Float32Type>(values, "real", f32::from_be_bytes)?),
        DataType::Float64 => Arc::new(primitives::<Float64Type>(values, "double precision", f64::from_be_bytes)?),
        DataType::Decimal128(precision, scale) => {
            let narrow = |v: i256| v.to_i128().ok_or_else(|| value::numeric_overflow(*precision, *scale));
            let array = decoded::<Decimal128Type>(values, |bytes| narrow(numeric(bytes, *precision, *scale)?))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Decimal256(precision, scale) => {
            let array = decoded::<Decimal256Type>(values, |bytes| numeric(bytes, *precision, *scale))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Utf8 => texts(sql_type, values)?,
        DataType::Binary => Arc::new((0..values.len()).map(|row| values.get(row)).collect::<BinaryArray>()),
        DataType::Date32 => {
            let days = |bytes: &[u8]| Some(i32::from_be_bytes(bytes.try_into().ok()?).checked_add(POSTGRES_EPOCH_DAYS));
            Arc::new(decoded::<Date32Type>(values, |bytes| in_range(days(bytes), "date"))?)
        }
        DataType::Time64(TimeUnit::Microsecond) => Arc::new(decoded::<Time64MicrosecondType>(values, time)?),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?).checked_add(POSTGRES_EPOCH));
            let array = decoded::<TimestampMicrosecondType>(values, |bytes| in_range(micros(bytes), "timestamp"))?;
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => Arc::new(decoded::<IntervalMonthDayNanoType>(values, interval)?),
        DataType::List(field) => {
            let arrays = (0..values.len()).map(|row| values.get(row).map(Dimensions::parse).transpose().map_err(Bad::at(row)));
            lists(field, arrays.collect::<Result<Vec<_>, _>>()?)?
        }
        DataType::Struct(fields) => records(fields, values)?,
        DataType::Map(..) => column::build(data_type, values, Formats::default())?,
        other => {
            let stands_for = representative(other).map_err(Bad::at(0))?;
            cast(&build(&stands_for, sql_type, values)?, other).map_err(|e| Bad { row: 0, error: e.into() })?
        }
    })
}

fn decoded<T: ArrowPrimitiveType>(
    values: &impl Values,
    decode: impl Fn(&[u8]) -> Result<T::Native>,
) -> Result<PrimitiveArray<T>, Bad> {
    let mut out = Vec::with_capacity(values.len());
    let mut nulls = NullBufferBuilder::new(values.len());
    for row in 0..values.len() {
        let bytes = values.get(row);
        nulls.append(bytes.is_some());
        out.push(bytes.map_or(Ok(T::Native::default()), &decode).map_err(Bad::at(row))?);
    }
    Ok(PrimitiveArray::new(ScalarBuffer::from(out), nulls.finish()))
}

fn primitives<T: ArrowPrimitiveType>(
    values: &impl Values,
    name: &str,
    decode: impl Fn(<T::Native as FixedBytes>::Bytes) -> T::Native,
) -> Result<PrimitiveArray<T>, Bad>
where
    T::Native: FixedBytes,
{
    decoded::<T>(values, |bytes| bytes.try_into().map(&decode).map_err(|_| invalid(name)))
}

/// The bytes of a number.
trait FixedBytes {
    type Bytes: for<'a> TryFrom<&'a [u8]>;
}

macro_rules! fixed_bytes {
    ($($type:ty: $n:literal),*) => { $(impl FixedBytes for $type { type Bytes = [u8; $n]; })* };
}

fixed_bytes!(i16: 2, i32: 4, i64: 8, f32: 4, f64: 8);

/// A type that PostgreSQL does not have goes over the wire as the next wider one.
fn narrowed(to: &DataType, wire: &DataType, values: &impl Values) -> Result<ArrayRef, Bad> {
    let wide = build(wire, "", values)?;
    let narrow = cast(&wide, to).map_err(|e| Bad { row: 0, error: e.into() })?;
    match (0..wide.len()).find(|row| wide.is_valid(*row) && narrow.is_null(*row)) {
        Some(row) => Err(Bad { row, error: Error::numeric_out_of_range(format!("value out of range for type {to}")) }),
        None => Ok(narrow),
    }
}

fn booleans(values: &impl Values) -> Result<ArrayRef, Bad> {
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut out = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        nulls.append(values.get(row).is_some());
        out.push(match values.get(row) {
            None => false,
            Some([byte]) => *byte != 0,
            Some(_) => return Err(Bad { row, error: invalid("boolean") }),
        });
    }
    Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(out), nulls.finish())))
}

fn in_range<T>(value: Option<Option<T>>, name: &str) -> Result<T> {
    value.ok_or_else(|| invalid(name))?.ok_or_else(|| Error::datetime_overflow(format!("{name} out of range")))
}

fn time(bytes: &[u8]) -> Result<i64> {
    let micros = bytes.try_into().map(i64::from_be_bytes).map_err(|_| invalid("time"))?;
    if (0..=DAY).contains(&micros) { Ok(micros) } else { Err(Error::datetime_overflow("time out of range")) }
}

fn interval(bytes: &[u8]) -> Result<IntervalMonthDayNano> {
    let mut rest = Reader(bytes);
    let parts = rest.i64().zip(rest.i32()).zip(rest.i32()).filter(|_| rest.0.is_empty());
    let ((micros, days), months) = parts.ok_or_else(|| invalid("interval"))?;
    let nanos = micros.checked_mul(1000).ok_or_else(|| Error::datetime_overflow("interval out of range"))?;
    Ok(IntervalMonthDayNano::new(months, days, nanos))
}

/// Digits to the base of 10,000; the first counts 10,000^weight.
fn numeric(bytes: &[u8], precision: u8, scale: i8) -> Result<i256> {
    let mut rest = Reader(bytes);
    let header = rest.i16().zip(rest.i16()).zip(rest.array::<2>().map(u16::from_be_bytes)).zip(rest.i16());
    let (((count, weight), sign), _) = header.ok_or_else(|| invalid("numeric"))?;
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xc000 | 0xd000 | 0xf000 => return parse_numeric256(b"NaN", precision, scale),
        _ => return Err(invalid("numeric")),
    };
    if usize::try_from(count).map(|count| count * 2) != Ok(rest.0.len()) {
        return Err(invalid("numeric"));
    }
    let mut text = format!("{sign}0.");
    while let Some(digit) = rest.i16() {
        if !(0..10_000).contains(&digit) {
            return Err(invalid("numeric"));
        }
        text.push_str(&format!("{digit:04}"));
    }
    text.push_str(&format!("e{}", (i32::from(weight) + 1) * 4));
    parse_numeric256(text.as_bytes(), precision, scale)
}

fn texts(sql_type: &str, values: &impl Values) -> Result<ArrayRef, Bad> {
    let mut texts: Vec<Option<std::borrow::Cow<[u8]>>> = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        let bytes = values.get(row);
        texts.push(match (sql_type, bytes) {
            ("jsonb", Some([1, json @ ..])) => Some(json.into()),
            ("jsonb", Some(_)) => return Err(Bad { row, error: invalid("jsonb") }),
            ("uuid", Some(bytes)) if bytes.len() == 16 => {
                let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                Some(digits.into_bytes().into())
            }
            ("uuid", Some(_)) => return Err(Bad { row, error: invalid("uuid") }),
            (_, bytes) => bytes.map(Into::into),
        });
    }
    column::build(&DataType::Utf8, &texts, Formats::default())
}

/// An array as sent: sizes of its dimensions, and its elements in their order.
#[derive(Clone)]
struct Dimensions<'a> {
    sizes: Vec<usize>,
    elements: Vec<Option<&'a [u8]>>,
}

impl<'a> Dimensions<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Dimensions<'a>> {
        Dimensions::read(bytes).unwrap_or_else(|| Err(invalid("array")))
    }

    fn read(bytes: &'a [u8]) -> Option<Result<Dimensions<'a>>> {
        let mut rest = Reader(bytes);
        let (dimensions, _flags, _element) = (rest.i32()?, rest.i32()?, rest.u32()?);
        // PostgreSQL allows six.
        if !(0..=6).contains(&dimensions) {
            return None;
        }
        let mut sizes = Vec::new();
        for _ in 0..dimensions {
            sizes.push(usize::try_from(rest.i32()?).ok()?);
            let _lower_bound = rest.i32()?;
        }
        let mut elements = Vec::new();
        while !rest.0.is_empty() {
            match rest.value()? {
                Ok(value) => elements.push(value),
                Err(_) => return None,
            }
        }
        let count = sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size))?;
        let count = if sizes.is_empty() { 0 } else { count };
        (count == elements.len()).then_some(Ok(Dimensions { sizes, elements }))
    }

    /// The arrays within.
    fn parts(self) -> Vec<Option<Dimensions<'a>>> {
        let (Some((_, inner)), false) = (self.sizes.split_first(), self.elements.is_empty()) else { return Vec::new() };
        let each = inner.iter().product();
        self.elements.chunks(each).map(|chunk| Some(Dimensions { sizes: inner.to_vec(), elements: chunk.to_vec() })).collect()
    }
}

fn lists(field: &FieldRef, values: Vec<Option<Dimensions<'_>>>) -> Result<ArrayRef, Bad> {
    let mut ends = vec![0];
    let mut nulls = NullBufferBuilder::new(values.len());
    let (mut items, mut inner) = (Vec::new(), Vec::new());
    let deep = matches!(field.data_type(), DataType::List(_));
    for (row, value) in values.into_iter().enumerate() {
        nulls.append(value.is_some());
        if let Some(array) = value {
            if !array.sizes.is_empty() && (array.sizes.len() > 1) != deep {
                return Err(Bad { row, error: invalid("array") });
            }
            if deep { inner.extend(array.parts()) } else { items.extend(array.elements) }
        }
        ends.push((items.len() + inner.len()) as i32);
    }
    let built = match field.data_type() {
        DataType::List(inner_field) => lists(inner_field, inner),
        scalar => build(scalar, "", &items),
    };
    let items = built.map_err(|bad| row_of_item(&ends, bad))?;
    list_array(field, OffsetBuffer::new(ScalarBuffer::from(ends)), items, nulls)
}

fn records(fields: &Fields, values: &impl Values) -> Result<ArrayRef, Bad> {
    let mut nulls = NullBufferBuilder::new(values.len());
    let mut columns: Vec<Vec<Option<&[u8]>>> = fields.iter().map(|_| Vec::with_capacity(values.len())).collect();
    for row in 0..values.len() {
        let bytes = values.get(row);
        nulls.append(bytes.is_some());
        let mut rest = Reader(bytes.unwrap_or_default());
        if bytes.is_some() && rest.i32().and_then(|n| usize::try_from(n).ok()) != Some(fields.len()) {
            return Err(Bad { row, error: invalid("record") });
        }
        for column in &mut columns {
            column.push(match bytes {
                None => None,
                Some(_) => match rest.u32().and_then(|_type| rest.value()) {
                    Some(Ok(value)) => value,
                    _ => return Err(Bad { row, error: invalid("record") }),
                },
            });
        }
        if !rest.0.is_empty() {
            return Err(Bad { row, error: invalid("record") });
        }
    }
    let arrays =
        fields.iter().zip(&columns).map(|(f, column)| build(f.data_type(), "", column)).collect::<Result<Vec<_>, _>>()?;
    struct_array(fields, arrays, nulls)
}

/// How the values of an array are written in binary. The caller sees to the length and to NULLs.
pub(crate) fn binary_writer(array: &ArrayRef, sql_type: &str) -> Result<Writer> {
    let array = canonical(array)?;
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| out.push(u8::from(array.value(row))))
        }
        DataType::Int16 => primitive::<Int16Type, 2>(&array, i16::to_be_bytes),
        DataType::Int32 => primitive::<Int32Type, 4>(&array, i32::to_be_bytes),
        DataType::Int64 => primitive::<Int64Type, 8>(&array, i64::to_be_bytes),
        DataType::Int8 | DataType::UInt8 => binary_writer(&cast(&array, &DataType::Int16)?, "")?,
        DataType::UInt16 => binary_writer(&cast(&array, &DataType::Int32)?, "")?,
        DataType::UInt32 => binary_writer(&cast(&array, &DataType::Int64)?, "")?,
        DataType::UInt64 => binary_writer(&cast(&array, &DataType::Decimal128(20, 0))?, "")?,
        DataType::Float32 => primitive::<Float32Type, 4>(&array, f32::to_be_bytes),
        DataType::Float64 => primitive::<Float64Type, 8>(&array, f64::to_be_bytes),
        DataType::Date32 => primitive::<Date32Type, 4>(&array, |days| days.saturating_sub(POSTGRES_EPOCH_DAYS).to_be_bytes()),
        DataType::Time64(_) => primitive::<Time64MicrosecondType, 8>(&array, i64::to_be_bytes),
        DataType::Timestamp(..) => {
            primitive::<TimestampMicrosecondType, 8>(&array, |micros| micros.saturating_sub(POSTGRES_EPOCH).to_be_bytes())
        }
        DataType::Interval(_) => {
            let array = array.as_primitive::<IntervalMonthDayNanoType>().clone();
            Box::new(move |row, out| {
                let value = array.value(row);
                out.extend_from_slice(&(value.nanoseconds / 1000).to_be_bytes());
                out.extend_from_slice(&value.days.to_be_bytes());
                out.extend_from_slice(&value.months.to_be_bytes());
            })
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let text = text_writer(&array)?;
            Box::new(move |row, out| {
                let mut digits = Vec::new();
                text(row, &mut digits);
                push_numeric(out, &digits);
            })
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>().clone();
            Box::new(move |row, out| out.extend_from_slice(array.value(row)))
        }
        DataType::List(_) => list_writer(&array)?,
        DataType::Struct(_) => record_writer(&array)?,
        _ => text_like_writer(&array, sql_type)?,
    })
}

fn text_like_writer(array: &ArrayRef, sql_type: &str) -> Result<Writer> {
    let text = text_writer(array)?;
    Ok(match sql_type {
        "jsonb" => Box::new(move |row, out| {
            out.push(1);
            text(row, out);
        }),
        "uuid" => Box::new(move |row, out| {
            let mut digits = Vec::new();
            text(row, &mut digits);
            let nibbles: Vec<u8> = digits.iter().filter_map(|b| char::from(*b).to_digit(16)).map(|d| d as u8).collect();
            out.extend(nibbles.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]));
        }),
        _ => text,
    })
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(
    array: &ArrayRef,
    bytes: impl Fn(T::Native) -> [u8; N] + Send + 'static,
) -> Writer {
    let array: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |row, out| out.extend_from_slice(&bytes(array.value(row))))
}

/// Length and value, or -1.
pub(super) fn push_value(out: &mut Vec<u8>, array: &ArrayRef, writer: &Writer, row: usize) {
    let at = out.len();
    out.extend_from_slice(&(-1i32).to_be_bytes());
    if array.is_valid(row) {
        writer(row, out);
        let length = (out.len() - at - 4) as i32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// From the text that [`text_writer`] gives.
fn push_numeric(out: &mut Vec<u8>, text: &[u8]) {
    let (sign, magnitude) = match text {
        [b'-', rest @ ..] => (0x4000u16, rest),
        _ => (0, text),
    };
    let point = magnitude.iter().position(|b| *b == b'.').unwrap_or(magnitude.len());
    let (whole, decimals) = (&magnitude[..point], magnitude.get(point + 1..).unwrap_or_default());
    // Whole groups of four digits on both sides of the point.
    let mut digits = vec![b'0'; (4 - whole.len() % 4) % 4];
    digits.extend_from_slice(whole);
    let mut weight = (digits.len() / 4) as i16 - 1;
    digits.extend_from_slice(decimals);
    digits.resize(digits.len().next_multiple_of(4), b'0');
    let mut groups: Vec<i16> =
        digits.chunks_exact(4).map(|four| four.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0'))).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= leading as i16;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&(if groups.is_empty() { 0 } else { sign }).to_be_bytes());
    out.extend_from_slice(&(decimals.len() as i16).to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

fn list_writer(array: &ArrayRef) -> Result<Writer> {
    let list = array.as_list::<i32>().clone();
    // Inner lists become further dimensions of one array.
    let mut levels = vec![list.clone()];
    let mut items = canonical(list.values())?;
    while let DataType::List(_) = items.data_type() {
        let inner = items.as_list::<i32>().clone();
        items = canonical(inner.values())?;
        levels.push(inner);
    }
    let writer = binary_writer(&items, "")?;
    let element = type_oid(items.data_type());
    Ok(Box::new(move |row, out| {
        let mut range = row..row + 1;
        let mut sizes = Vec::with_capacity(levels.len());
        for level in &levels {
            let offsets = level.value_offsets();
            let inner = offsets[range.start] as usize..offsets[range.end] as usize;
            sizes.push(inner.len() / range.len().max(1));
            range = inner;
        }
        let dimensions = if range.is_empty() { 0 } else { sizes.len() };
        let has_null = range.clone().any(|at| items.is_null(at));
        out.extend_from_slice(&(dimensions as i32).to_be_bytes());
        out.extend_from_slice(&i32::from(has_null).to_be_bytes());
        out.extend_from_slice(&element.to_be_bytes());
        for size in &sizes[..dimensions] {
            out.extend_from_slice(&(*size as i32).to_be_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
        }
        range.for_each(|at| push_value(out, &items, &writer, at));
    }))
}

fn record_writer(array: &ArrayRef) -> Result<Writer> {
    let columns = array.as_struct().columns().to_vec();
    let writers = columns.iter().map(|column| binary_writer(column, "")).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row, out| {
        out.extend_from_slice(&(columns.len() as i32).to_be_bytes());
        for (column, writer) in columns.iter().zip(&writers) {
            out.extend_from_slice(&type_oid(column.data_type()).to_be_bytes());
            push_value(out, column, writer, row);
        }
    }))
}

/// PostgreSQL's number of the type that a value goes over the wire as.
fn type_oid(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => 16,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => 17,
        DataType::Int64 | DataType::UInt32 => 20,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 21,
        DataType::Int32 | DataType::UInt16 => 23,
        DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Interval(_) => 1186,
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => 1700,
        DataType::Struct(_) => 2249,
        _ => 25,
    }
}
