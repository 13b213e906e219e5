//! Types: what is a SQL type in Arrow, and what is an Arrow type to a Postgres client?
//!
//! A column keeps both, its Arrow type and the text of its SQL type ([`crate::catalog::Column::sql_type`]), because several SQL types
//! share one Arrow type: `json`, `uuid` and `character varying(10)` are all strings.
//!
//! | SQL | Arrow |
//! | --- | --- |
//! | `timestamp`, `timestamptz` | microseconds, without zone and in UTC |
//! | `numeric` without a precision | `Decimal128(38, 9)` |
//! | `json`, `jsonb`, `uuid`, all strings | `Utf8` |
//! | `T[]`, `struct<…>`, `map<…>` | `List`, `Struct`, `Map` |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, TimeUnit};
use sqlparser::ast as sp;

use crate::catalog::Column;
use crate::error::{Error, Result};
use crate::limits::STATEMENT_NESTING;
use crate::time::TIMESTAMP;

/// Key of a field's metadata that names its PostgreSQL type, where the Arrow type alone does not tell.
pub const PG_TYPE: &str = "pg_type";

/// What stands there for a cast that is none of SQL's.
pub const INTERNAL: &str = "internal";

/// Digits of a decimal, at most.
pub const MAX_PRECISION: u8 = 38;

/// `numeric` without a precision.
pub const NUMERIC: DataType = DataType::Decimal128(MAX_PRECISION, 9);

/// The longest `varchar` of PostgreSQL; longer ones (Flink's STRING is one) are `text`.
const MAX_LENGTH: u64 = 10_485_760;

/// A type as it was written: its Arrow type, and its name as PostgreSQL prints it.
pub fn from_ast(data_type: &sp::DataType) -> Result<(DataType, String)> {
    convert(data_type, 0)
}

fn convert(data_type: &sp::DataType, depth: usize) -> Result<(DataType, String)> {
    use sp::DataType as S;
    if depth > STATEMENT_NESTING {
        return Err(Error::statement_too_complex("a type is nested too deeply"));
    }
    let plain = |arrow: DataType, name: &str| Ok((arrow, name.to_string()));
    match data_type {
        S::Boolean | S::Bool => plain(DataType::Boolean, "boolean"),
        S::TinyInt(_) | S::SmallInt(_) | S::Int2(_) | S::Int16 => plain(DataType::Int16, "smallint"),
        S::Int(_) | S::Integer(_) | S::Int4(_) | S::MediumInt(_) | S::Int32 => plain(DataType::Int32, "integer"),
        S::BigInt(_) | S::Int8(_) | S::Int64 => plain(DataType::Int64, "bigint"),
        S::Real | S::Float4 | S::Float32 => plain(DataType::Float32, "real"),
        S::Float(sp::ExactNumberInfo::Precision(bits)) if *bits <= 24 => plain(DataType::Float32, "real"),
        S::Float(_) | S::Double(_) | S::DoublePrecision | S::Float8 | S::Float64 => plain(DataType::Float64, "double precision"),
        S::Numeric(info) | S::Decimal(info) | S::Dec(info) => decimal(info),
        S::Text | S::String(_) | S::TinyText | S::MediumText | S::LongText => plain(DataType::Utf8, "text"),
        S::Clob(_) | S::CharacterLargeObject(_) | S::CharLargeObject(_) => plain(DataType::Utf8, "text"),
        S::Varchar(length) | S::Nvarchar(length) | S::CharacterVarying(length) | S::CharVarying(length) => {
            characters("character varying", length.as_ref(), None)
        }
        S::Char(length) | S::Character(length) => characters("character", length.as_ref(), Some(1)),
        S::Bytea | S::Bytes(_) | S::Binary(_) | S::Varbinary(_) | S::Blob(_) => plain(DataType::Binary, "bytea"),
        S::Date | S::Date32 => plain(DataType::Date32, "date"),
        S::Time(precision, sp::TimezoneInfo::None | sp::TimezoneInfo::WithoutTimeZone) => {
            Ok((DataType::Time64(TimeUnit::Microsecond), instant("time", *precision, "without")?))
        }
        S::Time(..) => {
            Err(Error::unsupported("time with time zone is not supported").with_hint("use time, or timestamp with time zone"))
        }
        S::Timestamp(precision, sp::TimezoneInfo::None | sp::TimezoneInfo::WithoutTimeZone)
        | S::TimestampNtz(precision)
        | S::Datetime(precision) => Ok((TIMESTAMP, instant("timestamp", *precision, "without")?)),
        S::Timestamp(precision, _) => Ok((timestamp_utc(), instant("timestamp", *precision, "with")?)),
        S::Interval { .. } => plain(DataType::Interval(IntervalUnit::MonthDayNano), "interval"),
        S::JSON => plain(DataType::Utf8, "json"),
        S::JSONB => plain(DataType::Utf8, "jsonb"),
        S::Uuid => plain(DataType::Utf8, "uuid"),
        S::Array(
            sp::ArrayElemTypeDef::AngleBracket(item)
            | sp::ArrayElemTypeDef::SquareBracket(item, _)
            | sp::ArrayElemTypeDef::Parenthesis(item),
        ) => {
            let (arrow, name) = convert(item, depth + 1)?;
            Ok((DataType::List(Arc::new(Field::new_list_field(arrow, true))), format!("{}[]", name.trim_end_matches("[]"))))
        }
        S::Struct(fields, _) | S::Tuple(fields) => structure(fields, depth),
        S::Map(key, value) => {
            let (key, key_name) = convert(key, depth + 1)?;
            let (value, value_name) = convert(value, depth + 1)?;
            Ok((map(key, value), format!("map<{key_name}, {value_name}>")))
        }
        S::Custom(name, modifiers) => custom(name, modifiers),
        other => Err(undefined(&other.to_string())),
    }
}

fn custom(name: &sp::ObjectName, modifiers: &[String]) -> Result<(DataType, String)> {
    let last = name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_lowercase()).unwrap_or_default();
    let number = || modifiers.first().and_then(|text| text.parse::<u64>().ok());
    match last.as_str() {
        "timestamp_ltz" => Ok((timestamp_utc(), instant("timestamp", number(), "with")?)),
        "timestamp_ntz" => Ok((TIMESTAMP, instant("timestamp", number(), "without")?)),
        "text" | "name" | "string" => Ok((DataType::Utf8, "text".into())),
        "bpchar" => characters(
            "character",
            number().map(|length| sp::CharacterLength::IntegerLength { length, unit: None }).as_ref(),
            Some(1),
        ),
        "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" => {
            let error = Error::undefined_object(format!("type \"{last}\" does not exist"));
            Err(error.with_hint("it is a form of column in CREATE TABLE; elsewhere write integer or bigint"))
        }
        _ => Err(undefined(&last)),
    }
}

fn undefined(name: &str) -> Error {
    Error::undefined_object(format!("type \"{}\" does not exist", name.to_lowercase())).with_hint(
        "types are boolean, smallint, integer, bigint, real, double precision, numeric(p,s), text, varchar(n), bytea, date, \
         time, timestamp, timestamptz, interval, json, jsonb, uuid, T[], struct<…>, map<…>",
    )
}

fn decimal(info: &sp::ExactNumberInfo) -> Result<(DataType, String)> {
    let (precision, scale) = match info {
        sp::ExactNumberInfo::None => return Ok((NUMERIC, "numeric".into())),
        sp::ExactNumberInfo::Precision(precision) => (*precision, 0),
        sp::ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let (Ok(small @ 1..=MAX_PRECISION), Ok(fraction @ 0..)) = (u8::try_from(precision), i8::try_from(scale)) else {
        return Err(Error::invalid_parameter(format!(
            "numeric({precision},{scale}): the precision must be between 1 and {MAX_PRECISION}, the scale between 0 and the precision"
        )));
    };
    if i64::from(small) < scale {
        return Err(Error::invalid_parameter(format!("numeric scale {scale} must be between 0 and precision {precision}")));
    }
    Ok((DataType::Decimal128(small, fraction), format!("numeric({small},{fraction})")))
}

fn characters(name: &str, length: Option<&sp::CharacterLength>, default: Option<u64>) -> Result<(DataType, String)> {
    let length = match length {
        Some(sp::CharacterLength::IntegerLength { length: 0, .. }) => {
            return Err(Error::invalid_parameter(format!("length of type {name} must be at least 1")));
        }
        Some(sp::CharacterLength::IntegerLength { length, .. }) => Some(*length),
        Some(sp::CharacterLength::Max) => None,
        None => default,
    };
    let text = match length {
        Some(length) if length <= MAX_LENGTH => format!("{name}({length})"),
        Some(_) => "text".into(),
        None => name.into(),
    };
    Ok((DataType::Utf8, text))
}

/// `timestamp(3) without time zone`.
fn instant(name: &str, precision: Option<u64>, zone: &str) -> Result<String> {
    match precision {
        None => Ok(format!("{name} {zone} time zone")),
        Some(precision @ 0..=6) => Ok(format!("{name}({precision}) {zone} time zone")),
        // Flink goes to nanoseconds; PostgreSQL, and we, to microseconds.
        Some(7..=9) => Ok(format!("{name} {zone} time zone")),
        Some(precision) => Err(Error::invalid_parameter(format!("{name}({precision}): the precision must be between 0 and 6"))),
    }
}

fn structure(fields: &[sp::StructField], depth: usize) -> Result<(DataType, String)> {
    let mut arrow = Vec::with_capacity(fields.len());
    let mut names = Vec::with_capacity(fields.len());
    for (n, field) in fields.iter().enumerate() {
        let (data_type, type_name) = convert(&field.field_type, depth + 1)?;
        let name = match &field.field_name {
            Some(name) if name.quote_style.is_some() => name.value.clone(),
            Some(name) => name.value.to_lowercase(),
            None => format!("f{}", n + 1),
        };
        names.push(format!("{name} {type_name}"));
        arrow.push(Field::new(name, data_type, true));
    }
    Ok((DataType::Struct(Fields::from(arrow)), format!("struct<{}>", names.join(", "))))
}

/// A map, each of whose keys is there once and not NULL.
pub fn map(key: DataType, value: DataType) -> DataType {
    let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn timestamp_utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The SQL type of a column of a query: what its metadata says of it, else what its Arrow type does.
pub fn field_type(field: &Field) -> String {
    field.metadata().get(PG_TYPE).cloned().unwrap_or_else(|| sql_type(field.data_type()))
}

/// A field for a value of a type, which says what Arrow does not tell of it.
pub fn field(data_type: &DataType, sql: &str) -> FieldRef {
    let field = Field::new("", data_type.clone(), true);
    Arc::new(if sql == sql_type(data_type) { field } else { with_type(field, sql) })
}

/// A field whose SQL type is known better than its Arrow type tells.
pub fn with_type(field: Field, sql_type: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(PG_TYPE.to_string(), sql_type.to_string());
    field.with_metadata(metadata)
}

/// Fields that say what Arrow does not tell of the columns that they are of.
pub fn declare(schema: &Schema, columns: &[Column]) -> Schema {
    let declare = |field: &FieldRef| match columns.iter().find(|column| column.name == *field.name()) {
        Some(column) if column.sql_type != sql_type(&column.data_type) => with_type(field.as_ref().clone(), &column.sql_type),
        _ => field.as_ref().clone(),
    };
    Schema::new(schema.fields().iter().map(declare).collect::<Vec<_>>())
}

/// Is it text, however it is stored?
pub fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The name of a type without its precision.
pub fn plain_name(data_type: &DataType) -> String {
    let name = sql_type(data_type);
    match name.split_once('(') {
        Some((name, rest)) => format!("{name}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
        None => name,
    }
}

/// `character varying(10)` is a `character varying`.
pub fn without_modifier(sql_type: &str) -> String {
    match (sql_type.find('('), sql_type.find(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &sql_type[..open], &sql_type[close + 1..]),
        _ => sql_type.to_string(),
    }
}

/// The SQL type of an Arrow type that a query made.
pub fn sql_type(data_type: &DataType) -> String {
    use DataType as D;
    match data_type {
        D::Boolean => "boolean".into(),
        D::Int8 | D::Int16 | D::UInt8 => "smallint".into(),
        D::Int32 | D::UInt16 => "integer".into(),
        D::Int64 | D::UInt32 => "bigint".into(),
        D::UInt64 => "numeric(20,0)".into(),
        D::Float16 | D::Float32 => "real".into(),
        D::Float64 => "double precision".into(),
        D::Decimal32(precision, scale) | D::Decimal64(precision, scale) => format!("numeric({precision},{scale})"),
        D::Decimal128(precision, scale) | D::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Null => "text".into(),
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => "bytea".into(),
        D::Date32 | D::Date64 => "date".into(),
        D::Time32(unit) | D::Time64(unit) => format!("time{} without time zone", digits(unit)),
        D::Timestamp(unit, None) => format!("timestamp{} without time zone", digits(unit)),
        D::Timestamp(unit, Some(_)) => format!("timestamp{} with time zone", digits(unit)),
        D::Interval(_) | D::Duration(_) => "interval".into(),
        D::List(item) | D::LargeList(item) | D::ListView(item) | D::LargeListView(item) | D::FixedSizeList(item, _) => {
            format!("{}[]", sql_type(item.data_type()).trim_end_matches("[]"))
        }
        D::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        D::Map(entries, _) => match entries.data_type() {
            D::Struct(fields) if fields.len() == 2 => {
                format!("map<{}, {}>", sql_type(fields[0].data_type()), sql_type(fields[1].data_type()))
            }
            _ => "json".into(),
        },
        D::Dictionary(_, value) => sql_type(value),
        D::RunEndEncoded(_, values) => sql_type(values.data_type()),
        D::Union(..) => "json".into(),
    }
}

/// Digits of a second, where they are fewer than PostgreSQL's six.
fn digits(unit: &TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond | TimeUnit::Nanosecond => "",
    }
}

/// Postgres's number of a type. Structs go to clients as records, maps as json.
pub fn oid(data_type: &DataType, sql_type: &str) -> u32 {
    use DataType as D;
    match data_type {
        D::Dictionary(_, value) => oid(value, sql_type),
        D::RunEndEncoded(_, values) => oid(values.data_type(), sql_type),
        D::List(_) if sql_type == "int2vector" => INT2_VECTOR,
        D::List(_) if sql_type == "oidvector" => OID_VECTOR,
        D::List(item) | D::LargeList(item) | D::ListView(item) | D::LargeListView(item) | D::FixedSizeList(item, _) => {
            // PostgreSQL has one array type for all numbers of dimensions.
            match oid(item.data_type(), sql_type.trim_end_matches("[]")) {
                array if ARRAYS.iter().any(|(_, of)| *of == array) => array,
                element => ARRAYS.iter().find(|(of, _)| *of == element).map_or(TEXT_ARRAY, |(_, array)| *array),
            }
        }
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Null => string_oid(sql_type),
        D::Boolean => 16,
        D::Int8 | D::Int16 | D::UInt8 => 21,
        D::Int32 | D::UInt16 => 23,
        D::Int64 => 20,
        // Only the system catalog has them.
        D::UInt32 => 26,
        D::Float16 | D::Float32 => 700,
        D::Float64 => 701,
        D::UInt64 | D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => 1700,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => 17,
        D::Date32 | D::Date64 => 1082,
        D::Time32(_) | D::Time64(_) => 1083,
        D::Timestamp(_, None) => 1114,
        D::Timestamp(_, Some(_)) => 1184,
        D::Interval(_) | D::Duration(_) => 1186,
        D::Struct(_) => 2249,
        D::Map(..) | D::Union(..) => 114,
    }
}

/// Arrays of the system catalog, whose text is their elements with spaces between.
pub const INT2_VECTOR: u32 = 22;
pub const OID_VECTOR: u32 = 30;
/// One byte; only the system catalog has it.
const CHAR: u32 = 18;
/// What functions give that are called for what they do.
const VOID: u32 = 2278;
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;

/// Types and their arrays.
const ARRAYS: [(u32, u32); 23] = [
    (16, 1000),
    (17, 1001),
    (CHAR, 1002),
    (19, 1003),
    (20, 1016),
    (21, 1005),
    (23, 1007),
    (26, 1028),
    (TEXT, TEXT_ARRAY),
    (114, 199),
    (700, 1021),
    (701, 1022),
    (1042, 1014),
    (1043, 1015),
    (1082, 1182),
    (1083, 1183),
    (1114, 1115),
    (1184, 1185),
    (1186, 1187),
    (1700, 1231),
    (2249, 2287),
    (2950, 2951),
    (3802, 3807),
];

/// The type of the elements of an array type.
pub fn element(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(_, known)| *known == array).map(|(element, _)| *element)
}

fn string_oid(sql_type: &str) -> u32 {
    match sql_type.split('(').next().unwrap_or_default() {
        "json" => 114,
        "jsonb" => 3802,
        "uuid" => 2950,
        "name" => 19,
        "void" => VOID,
        "char" => CHAR,
        "character varying" => 1043,
        "character" => 1042,
        _ => TEXT,
    }
}

/// Postgres's type modifier: lengths, precisions; -1 for none.
pub fn typmod(sql_type: &str) -> i32 {
    let element = sql_type.trim_end_matches("[]");
    let Some((name, rest)) = element.split_once('(') else { return -1 };
    let Some((numbers, _)) = rest.split_once(')') else { return -1 };
    let mut numbers = numbers.split(',').map(|number| number.trim().parse::<i32>());
    let (first, second) = (numbers.next(), numbers.next());
    match (name, first, second) {
        ("numeric", Some(Ok(precision)), Some(Ok(scale))) => ((precision << 16) | (scale & 0x7ff)) + 4,
        ("character varying" | "character", Some(Ok(length)), None) => length.saturating_add(4),
        ("timestamp" | "time" | "interval", Some(Ok(precision)), None) => precision,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::ast::Statement;
    use crate::sql::parse::parse;

    fn column(sql: &str) -> Result<(DataType, String)> {
        let parsed = parse(&format!("CREATE TABLE t (c {sql})")).unwrap().pop().unwrap();
        let Statement::CreateTable(table) = parsed.statement else { panic!("not a table") };
        from_ast(table.columns[0].data_type.as_ref().unwrap())
    }

    #[rstest::rstest]
    #[case("TEXT", DataType::Utf8, "text", 25, -1)]
    #[case("STRING", DataType::Utf8, "text", 25, -1)]
    #[case("VARCHAR", DataType::Utf8, "character varying", 1043, -1)]
    #[case("varchar(10)", DataType::Utf8, "character varying(10)", 1043, 14)]
    #[case("VARCHAR(2147483647)", DataType::Utf8, "text", 25, -1)]
    #[case("char", DataType::Utf8, "character(1)", 1042, 5)]
    #[case("int2", DataType::Int16, "smallint", 21, -1)]
    #[case("TINYINT", DataType::Int16, "smallint", 21, -1)]
    #[case("INT", DataType::Int32, "integer", 23, -1)]
    #[case("INT8", DataType::Int64, "bigint", 20, -1)]
    #[case("BIGINT", DataType::Int64, "bigint", 20, -1)]
    #[case("FLOAT", DataType::Float64, "double precision", 701, -1)]
    #[case("FLOAT(10)", DataType::Float32, "real", 700, -1)]
    #[case("DOUBLE", DataType::Float64, "double precision", 701, -1)]
    #[case("DOUBLE PRECISION", DataType::Float64, "double precision", 701, -1)]
    #[case("DECIMAL(10,2)", DataType::Decimal128(10, 2), "numeric(10,2)", 1700, 655_366)]
    #[case("DECIMAL(10)", DataType::Decimal128(10, 0), "numeric(10,0)", 1700, 655_364)]
    #[case("NUMERIC", DataType::Decimal128(38, 9), "numeric", 1700, -1)]
    #[case("TIMESTAMP", TIMESTAMP, "timestamp without time zone", 1114, -1)]
    #[case("TIMESTAMP(3)", TIMESTAMP, "timestamp(3) without time zone", 1114, 3)]
    #[case("TIMESTAMP_LTZ(3)", timestamp_utc(), "timestamp(3) with time zone", 1184, 3)]
    #[case("TIMESTAMP(3) WITH LOCAL TIME ZONE", timestamp_utc(), "timestamp(3) with time zone", 1184, 3)]
    #[case("timestamptz", timestamp_utc(), "timestamp with time zone", 1184, -1)]
    #[case("DATE", DataType::Date32, "date", 1082, -1)]
    #[case("TIME", DataType::Time64(TimeUnit::Microsecond), "time without time zone", 1083, -1)]
    #[case("INTERVAL", DataType::Interval(IntervalUnit::MonthDayNano), "interval", 1186, -1)]
    #[case("BYTES", DataType::Binary, "bytea", 17, -1)]
    #[case("VARBINARY(20)", DataType::Binary, "bytea", 17, -1)]
    #[case("JSONB", DataType::Utf8, "jsonb", 3802, -1)]
    #[case("uuid", DataType::Utf8, "uuid", 2950, -1)]
    #[case("INT[]", list(DataType::Int32), "integer[]", 1007, -1)]
    #[case("ARRAY<VARCHAR(5)>", list(DataType::Utf8), "character varying(5)[]", 1015, 9)]
    #[case("INT[][]", list(list(DataType::Int32)), "integer[]", 1007, -1)]
    #[case("ARRAY<ARRAY<INT>>", list(list(DataType::Int32)), "integer[]", 1007, -1)]
    #[case("MAP<STRING, INT>", map(DataType::Utf8, DataType::Int32), "map<text, integer>", 114, -1)]
    fn sql_types(#[case] sql: &str, #[case] arrow: DataType, #[case] name: &str, #[case] number: u32, #[case] modifier: i32) {
        let found = column(sql).unwrap();
        assert_eq!(found, (arrow, name.to_string()));
        assert_eq!((oid(&found.0, &found.1), typmod(&found.1)), (number, modifier));
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(item, true)))
    }

    #[rstest::rstest]
    #[case("STRUCT<a INT, b ARRAY<TEXT>>")]
    #[case("ROW<a INT, b ARRAY<TEXT>>")]
    fn structs(#[case] sql: &str) {
        let (arrow, name) = column(sql).unwrap();
        assert_eq!(name, "struct<a integer, b text[]>");
        assert_eq!(sql_type(&arrow), name);
    }

    #[rstest::rstest]
    #[case("NUMERIC(39,2)", "22023")]
    #[case("NUMERIC(3,5)", "22023")]
    #[case("TIMESTAMP(12)", "22023")]
    #[case("TIMETZ", "0A000")]
    #[case("money", "42704")]
    #[case("INT UNSIGNED", "42704")]
    fn refused(#[case] sql: &str, #[case] code: &str) {
        assert_eq!(column(sql).unwrap_err().state().code(), code);
    }

    #[rstest::rstest]
    #[case(DataType::UInt64, "numeric(20,0)", 1700)]
    #[case(DataType::UInt32, "bigint", 26)]
    #[case(DataType::Utf8View, "text", 25)]
    #[case(DataType::Decimal256(50, 3), "numeric(50,3)", 1700)]
    #[case(DataType::Timestamp(TimeUnit::Nanosecond, None), "timestamp without time zone", 1114)]
    #[case(DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into())), "timestamp(3) with time zone", 1184)]
    #[case(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), "text", 25)]
    #[case(DataType::LargeList(Arc::new(Field::new_list_field(DataType::UInt64, true))), "numeric(20,0)[]", 1231)]
    fn derived_types(#[case] arrow: DataType, #[case] name: &str, #[case] number: u32) {
        assert_eq!(sql_type(&arrow), name);
        assert_eq!(oid(&arrow, name), number);
    }
}
