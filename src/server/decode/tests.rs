use arrow::array::Array;
use arrow::datatypes::*;
use rstest::rstest;

use super::*;
use crate::server::encode;
use crate::time::zone::Zone;

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const MDN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

fn berlin() -> Formats {
    Formats { zone: Zone::named("Europe/Berlin").unwrap(), ..Formats::default() }
}

fn zoned() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// A parameter of a type that Arrow knows.
fn parameter(bytes: Option<&[u8]>, format: Format, oid: u32, target: &DataType, formats: Formats) -> Result<ScalarValue> {
    super::parameter(bytes, format, oid, &Parameter::new(target.clone(), None), formats)
}

fn list(item: DataType) -> DataType {
    DataType::new_list(item, true)
}

fn read(text: &str, target: &DataType) -> Result<ScalarValue> {
    let value = parameter(Some(text.as_bytes()), Format::Text, 0, target, berlin())?;
    assert_eq!(value.data_type(), *target);
    Ok(value)
}

/// A value's wire form, as the encoder writes it.
fn written(value: &ScalarValue, format: Format) -> Vec<u8> {
    let batch = arrow::array::RecordBatch::try_from_iter([("v", value.to_array().unwrap())]).unwrap();
    let mut out = Vec::new();
    encode::Rows::new(&batch, |_| encode::Form { oid: 0, format }, Zone::default()).unwrap().write(0, &mut out).unwrap();
    out.split_off(11)
}

/// Text in, text out; and through the binary form and back.
#[rstest]
#[case(DataType::Boolean, "yes", "t")]
#[case(DataType::Boolean, " OF ", "f")]
#[case(DataType::Int8, "-128", "-128")]
#[case(DataType::Int16, " 42 ", "42")]
#[case(DataType::Int32, "-2147483648", "-2147483648")]
#[case(DataType::Int64, "+9223372036854775807", "9223372036854775807")]
#[case(DataType::UInt8, "255", "255")]
#[case(DataType::UInt16, "65535", "65535")]
#[case(DataType::UInt32, "4294967295", "4294967295")]
#[case(DataType::UInt64, "18446744073709551615", "18446744073709551615")]
#[case(DataType::Float32, "1e-45", "1e-45")]
#[case(DataType::Float64, "Infinity", "Infinity")]
#[case(DataType::Float64, "-1.5e300", "-1.5e+300")]
#[case(DataType::Decimal128(10, 2), "1234.56", "1234.56")]
#[case(DataType::Decimal128(10, 2), "-0.005", "-0.01")]
#[case(DataType::Decimal128(38, 9), "12345678901234567890123456789", "12345678901234567890123456789.000000000")]
#[case(DataType::Decimal128(38, 9), "0.000000001", "0.000000001")]
#[case(DataType::Utf8, " grüß ", " grüß ")]
#[case(DataType::Utf8View, "", "")]
#[case(DataType::Binary, "\\x00Ff", "\\x00ff")]
#[case(DataType::Binary, "a\\\\\\001", "\\x615c01")]
#[case(DataType::Date32, "1969-12-31", "1969-12-31")]
#[case(DataType::Date32, "9999-12-31", "9999-12-31")]
#[case(DataType::Time64(TimeUnit::Microsecond), "23:59:59.5", "23:59:59.5")]
#[case(MICROS, "2024-02-29 12:00:00.000001", "2024-02-29 12:00:00.000001")]
#[case(MICROS, "2024-02-29 12:00:00+05:30", "2024-02-29 12:00:00")]
#[case(MICROS, "2024-02-29T12:00:00Z", "2024-02-29 12:00:00")]
#[case(zoned(), "2024-07-01 12:00:00", "2024-07-01 10:00:00+00")]
#[case(zoned(), "2024-07-01 12:00:00+01", "2024-07-01 11:00:00+00")]
#[case(MDN, "1 year 2 mons -3 days 04:05:06.5", "1 year 2 mons -3 days +04:05:06.5")]
#[case(MDN, "-26:00:00", "-26:00:00")]
#[case(MDN, "5 minutes", "00:05:00")]
#[case(list(DataType::Int32), "{1,NULL, 3}", "{1,NULL,3}")]
#[case(list(DataType::Utf8), r#"{"a b",c\,d,"","NULL"}"#, r#"{"a b","c,d","","NULL"}"#)]
#[case(list(list(DataType::Int64)), "{{1,2},{3,4}}", "{{1,2},{3,4}}")]
#[case(list(DataType::Utf8), "{}", "{}")]
fn values(#[case] target: DataType, #[case] text: &str, #[case] expected: &str) {
    let value = read(text, &target).unwrap();
    assert_eq!(String::from_utf8(written(&value, Format::Text)).unwrap(), expected);
    let binary = written(&value, Format::Binary);
    let back = parameter(Some(&binary), Format::Binary, 0, &target, Formats::default()).unwrap();
    assert_eq!(written(&back, Format::Text), expected.as_bytes(), "through its binary form");
}

#[rstest]
#[case(DataType::Boolean, "o", "22P02")]
#[case(DataType::Int32, "x", "22P02")]
#[case(DataType::Int32, "", "22P02")]
#[case(DataType::Int32, "2147483648", "22003")]
#[case(DataType::Int64, "9223372036854775808", "22003")]
#[case(DataType::UInt8, "-1", "22003")]
#[case(DataType::Float64, "1e999", "22003")]
#[case(DataType::Decimal128(4, 2), "100", "22003")]
#[case(DataType::Decimal128(4, 2), "ten", "22P02")]
#[case(DataType::Decimal128(4, 2), "NaN", "22P02")]
#[case(DataType::Binary, "\\x0", "22P02")]
#[case(DataType::Binary, "\\9", "22P02")]
#[case(DataType::Date32, "2024-02-30", "22008")]
#[case(MICROS, "yesterday", "22007")]
#[case(DataType::Timestamp(TimeUnit::Nanosecond, None), "9999-01-01", "22008")]
#[case(MDN, "1 fortnight", "22007")]
#[case(list(DataType::Int32), "1,2", "22P02")]
#[case(list(DataType::Int32), "{1,2", "22P02")]
#[case(list(DataType::Int32), "{1,,2}", "22P02")]
#[case(list(DataType::Int32), "{1}x", "22P02")]
#[case(list(DataType::Utf8), "{\"a}", "22P02")]
fn malformed_text(#[case] target: DataType, #[case] text: &str, #[case] state: &str) {
    assert_eq!(read(text, &target).expect_err(text).state().code(), state);
}

#[rstest]
#[case(DataType::Int32, &[0, 0, 1], "22P03")]
#[case(DataType::Boolean, &[], "22P03")]
#[case(DataType::UInt8, &[255, 255], "22003")]
#[case(DataType::Date32, &[0x7f, 255, 255, 255], "22008")]
#[case(MICROS, &[0x7f, 255, 255, 255, 255, 255, 255, 255], "22008")]
#[case(DataType::Time64(TimeUnit::Nanosecond), &[255; 8], "22008")]
#[case(DataType::Decimal128(38, 9), &[0, 1, 0, 0, 0, 0, 0, 0], "22P03")]
#[case(DataType::Decimal128(38, 9), &[0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "22P03")]
#[case(DataType::Decimal128(38, 9), &[0, 0, 0, 0, 0xc0, 0, 0, 0], "22003")]
#[case(DataType::Decimal128(38, 9), &[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1], "22003")]
#[case(DataType::Utf8, &[0xff], "22021")]
#[case(list(DataType::Int32), &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0x7f, 255, 255, 255, 0, 0, 0, 1], "22P03")]
#[case(list(DataType::Int32), &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 23], "22P03")]
#[case(list(DataType::Int32), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25], "42804")]
#[case(list(DataType::Int32), &[0, 0, 0, 0], "22P03")]
fn malformed_binary(#[case] target: DataType, #[case] bytes: &[u8], #[case] state: &str) {
    let error = parameter(Some(bytes), Format::Binary, 0, &target, Formats::default()).expect_err("it is malformed");
    assert_eq!(error.state().code(), state, "{error}");
}

#[rstest]
#[case::narrower(Type::INT2, &[0, 7], DataType::Int64, "7")]
#[case::oid(Type::OID, &[255, 255, 255, 255], DataType::Int64, "4294967295")]
#[case::numeric_for_bigint(Type::NUMERIC, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 7], DataType::Int64, "7")]
#[case::integer_for_numeric(Type::INT4, &[0, 0, 0, 7], DataType::Decimal128(10, 2), "7.00")]
#[case::jsonb(Type::JSONB, b"\x01{}", DataType::Utf8, "{}")]
#[case::uuid(Type::UUID, &[0xab; 16], DataType::Utf8, "abababab-abab-abab-abab-abababababab")]
#[case::varchar(Type::VARCHAR, b"x", DataType::Utf8, "x")]
fn declared_types(#[case] wire: Type, #[case] bytes: &[u8], #[case] target: DataType, #[case] expected: &str) {
    let value = parameter(Some(bytes), Format::Binary, wire.oid(), &target, Formats::default()).unwrap();
    assert_eq!(value.data_type(), target);
    assert_eq!(String::from_utf8(written(&value, Format::Text)).unwrap(), expected);
}

#[test]
fn null_has_the_type_asked_for() {
    let value = parameter(None, Format::Text, 0, &list(DataType::Int32), Formats::default()).unwrap();
    assert!(value.is_null() && value.data_type() == list(DataType::Int32));
    assert!(value.to_array().unwrap().is_null(0));
}

/// A number is not rounded to the scale of the column that it is compared with.
#[rstest]
#[case("12.504", DataType::Decimal128(38, 3))]
#[case(" 7 ", DataType::Decimal128(38, 0))]
fn numbers_keep_their_scale(#[case] text: &str, #[case] expected: DataType) {
    let read =
        |bytes: &[u8], format| parameter(Some(bytes), format, 1700, &DataType::Decimal128(10, 2), Formats::default()).unwrap();
    let value = read(text.as_bytes(), Format::Text);
    assert_eq!(value.data_type(), expected);
    let digits = |value: &ScalarValue| String::from_utf8(written(value, Format::Text)).unwrap();
    let back = read(&written(&value, Format::Binary), Format::Binary);
    assert_eq!(digits(&back).parse::<f64>().unwrap(), text.trim().parse::<f64>().unwrap());
}

/// A client says `varchar[]`, the statement `varchar[][]`: what the value has is read.
#[test]
fn an_oid_does_not_tell_the_dimensions_of_an_array() {
    let target = list(list(DataType::Utf8));
    for oid in [Type::VARCHAR_ARRAY.oid(), Type::TEXT_ARRAY.oid()] {
        let value = parameter(Some(b"{{a,b},{c,NULL}}"), Format::Text, oid, &target, berlin()).unwrap();
        assert_eq!(String::from_utf8(written(&value, Format::Text)).unwrap(), "{{a,b},{c,NULL}}");
    }
}
