//! Which Postgres type stands for an Arrow type on the wire, and the other way for declared parameters.

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use postgres_types::Type;

use crate::error::{Error, Result};
use crate::session::Parameter;
use crate::sql::plan::columns::ORIGIN;
use crate::sql::types::{NUMERIC, PG_TYPE, field, field_type, oid, sql_type, typmod};

/// A type as RowDescription tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireType {
    pub oid: u32,
    /// Bytes of a value, -1 if they vary.
    pub size: i16,
    /// Precision and the like, -1 for none.
    pub modifier: i32,
}

/// The type that values of a column are sent as.
pub fn wire_type(field: &Field) -> WireType {
    let sql = field_type(field);
    let oid = oid(field.data_type(), &sql);
    // What is computed has none, however wide Arrow makes it.
    let modifier = field.metadata().get(PG_TYPE).map_or(-1, |declared| typmod(declared));
    WireType { oid, size: size(oid), modifier }
}

/// OID of the relation that a column comes from, and its number there; zeros for what is computed.
pub fn origin(field: &Field) -> (u32, i16) {
    fn number<T: std::str::FromStr + Default>(field: &Field, key: &str) -> T {
        field.metadata().get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
    let [relation, column] = ORIGIN;
    (number(field, relation), number(field, column))
}

/// The type that a client is told a parameter has.
pub fn parameter_oid(parameter: &Parameter) -> u32 {
    oid(&parameter.data_type, &parameter.sql_type)
}

fn size(oid: u32) -> i16 {
    match oid {
        oid if [Type::BOOL.oid(), Type::CHAR.oid()].contains(&oid) => 1,
        oid if oid == Type::INT2.oid() => 2,
        oid if [Type::INT4.oid(), Type::OID.oid(), Type::FLOAT4.oid(), Type::DATE.oid()].contains(&oid) => 4,
        oid if [Type::INT8.oid(), Type::FLOAT8.oid(), Type::TIME.oid()].contains(&oid) => 8,
        oid if [Type::TIMESTAMP.oid(), Type::TIMESTAMPTZ.oid()].contains(&oid) => 8,
        oid if [Type::INTERVAL.oid(), Type::UUID.oid()].contains(&oid) => 16,
        oid if oid == Type::NAME.oid() => 64,
        _ => -1,
    }
}

/// As [`wire_type`], with its name.
pub fn postgres_type(data_type: &DataType) -> Type {
    Type::from_oid(oid(data_type, &sql_type(data_type))).unwrap_or(Type::TEXT)
}

pub fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// The type of a parameter that a client declared; `None` leaves it to be inferred.
pub fn declared(oid: u32) -> Result<Option<FieldRef>> {
    if [0, Type::UNKNOWN.oid()].contains(&oid) {
        return Ok(None);
    }
    let Some(declared) = Type::from_oid(oid) else {
        return Err(Error::undefined_object(format!("type with OID {oid} does not exist")));
    };
    if let postgres_types::Kind::Array(item) = declared.kind() {
        let data_type = scalar(item);
        let name = format!("{}[]", name(item, &data_type));
        return Ok(Some(field(&DataType::new_list(data_type, true), &name)));
    }
    let data_type = scalar(&declared);
    Ok(Some(field(&data_type, &name(&declared, &data_type))))
}

/// What a type is called that Arrow has no name for.
fn name(declared: &Type, data_type: &DataType) -> String {
    match *declared {
        Type::UUID => "uuid",
        Type::JSON => "json",
        Type::JSONB => "jsonb",
        Type::VARCHAR => "character varying",
        Type::BPCHAR => "character",
        Type::NUMERIC => "numeric",
        _ => return sql_type(data_type),
    }
    .to_string()
}

/// Types that a statement can't do more with than with their text are text.
fn scalar(declared: &Type) -> DataType {
    match *declared {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        // Each value comes with a scale of its own.
        Type::NUMERIC => NUMERIC,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => DataType::Utf8,
    }
}
