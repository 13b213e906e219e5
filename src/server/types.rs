//! Which Postgres type stands for an Arrow type on the wire, and the other way for declared parameters.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use postgres_types::Type;

use crate::error::{Error, Result};

/// A type as RowDescription tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireType {
    pub oid: u32,
    /// Bytes of a value, -1 if they vary.
    pub size: i16,
    /// Precision and the like, -1 for none.
    pub modifier: i32,
}

/// The type that values of an Arrow type are sent as. What has no counterpart is sent as text.
pub fn wire_type(data_type: &DataType) -> WireType {
    let modifier = match data_type {
        // As Postgres packs them, with the size of a length word on top.
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s)
            if *s >= 0 =>
        {
            (((*p as i32) << 16) | *s as i32) + 4
        }
        DataType::Timestamp(TimeUnit::Second, _) => 0,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
        _ => -1,
    };
    let oid = postgres_type(data_type).oid();
    WireType { oid, size: size(oid), modifier }
}

fn size(oid: u32) -> i16 {
    match oid {
        oid if oid == Type::BOOL.oid() => 1,
        oid if oid == Type::INT2.oid() => 2,
        oid if [Type::INT4.oid(), Type::OID.oid(), Type::FLOAT4.oid(), Type::DATE.oid()].contains(&oid) => 4,
        oid if [Type::INT8.oid(), Type::FLOAT8.oid(), Type::TIME.oid()].contains(&oid) => 8,
        oid if [Type::TIMESTAMP.oid(), Type::TIMESTAMPTZ.oid()].contains(&oid) => 8,
        oid if oid == Type::INTERVAL.oid() => 16,
        _ => -1,
    }
}

/// Unsigned integers take the next wider signed type, so that every value fits; those of 32 bits are OIDs, which only the system
/// catalog has.
pub fn postgres_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 => Type::INT8,
        DataType::UInt32 => Type::OID,
        DataType::UInt64 => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => array_of(item.data_type()),
        DataType::Struct(_) => Type::RECORD,
        DataType::Map(..) => Type::JSON,
        DataType::Dictionary(_, value) => postgres_type(value),
        DataType::RunEndEncoded(_, value) => postgres_type(value.data_type()),
        _ => Type::TEXT,
    }
}

/// Postgres has one array type per element type, for any number of dimensions.
fn array_of(item: &DataType) -> Type {
    if is_list(item) {
        return postgres_type(item);
    }
    match postgres_type(item) {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

pub fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// The Arrow type of a parameter that a client declared; `None` leaves it to be inferred.
pub fn declared(oid: u32) -> Result<Option<DataType>> {
    let Some(declared) = (match oid {
        0 => return Ok(None),
        oid => Type::from_oid(oid),
    }) else {
        return Err(Error::undefined_object(format!("type with OID {oid} does not exist")));
    };
    if declared == Type::UNKNOWN {
        return Ok(None);
    }
    if let postgres_types::Kind::Array(item) = declared.kind() {
        return Ok(scalar(item).map(|item| DataType::new_list(item, true)));
    }
    Ok(scalar(&declared))
}

/// Types that a statement can't do more with than with their text are text.
fn scalar(declared: &Type) -> Option<DataType> {
    Some(match *declared {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        // Its scale comes with each value; the statement's own type for the parameter decides.
        Type::NUMERIC => return None,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => DataType::Utf8,
    })
}
