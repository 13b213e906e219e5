//! Each type in both forms, with its extreme values. Expectations are PostgreSQL's own output for the same values.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::*;
use chrono_tz::Tz;
use datafusion::common::ScalarValue;
use rstest::rstest;

use super::*;

/// The value of the first row, without its length; `None` for NULL.
fn encoded(array: &ArrayRef, format: Format, zone: Zone) -> Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    Column::new(array, Form { oid: 0, format }, zone)?.write(0, &mut out)?;
    let length = i32::from_be_bytes(out[..4].try_into().unwrap());
    assert_eq!(out.len() - 4, length.max(0) as usize);
    Ok((length >= 0).then(|| out.split_off(4)))
}

fn text_in(array: &ArrayRef, zone: Zone) -> String {
    match encoded(array, Format::Text, zone).unwrap() {
        Some(bytes) => String::from_utf8(bytes).unwrap(),
        None => "NULL".into(),
    }
}

fn text(array: impl Array + 'static) -> String {
    text_in(&(Arc::new(array) as ArrayRef), Zone::default())
}

fn binary(array: impl Array + 'static) -> Vec<u8> {
    encoded(&(Arc::new(array) as ArrayRef), Format::Binary, Zone::default()).unwrap().expect("it is not null")
}

#[rstest]
#[case(0.0, "0")]
#[case(-0.0, "-0")]
#[case(1.0, "1")]
#[case(-12.5, "-12.5")]
#[case(0.1, "0.1")]
#[case(1e14, "100000000000000")]
#[case(123456789012345.6, "123456789012345.6")]
#[case(1e15, "1e+15")]
#[case(1.5e15, "1.5e+15")]
#[case(-1.25e300, "-1.25e+300")]
#[case(0.0001, "0.0001")]
#[case(0.00001, "1e-05")]
#[case(-0.000012345, "-1.2345e-05")]
#[case(f64::MAX, "1.7976931348623157e+308")]
#[case(f64::MIN_POSITIVE, "2.2250738585072014e-308")]
#[case(5e-324, "5e-324")]
#[case(f64::NAN, "NaN")]
#[case(f64::INFINITY, "Infinity")]
#[case(f64::NEG_INFINITY, "-Infinity")]
fn float8(#[case] value: f64, #[case] expected: &str) {
    assert_eq!(text(Float64Array::from(vec![value])), expected);
    assert_eq!(binary(Float64Array::from(vec![value])), value.to_be_bytes());
    if value.is_finite() {
        assert_eq!(expected.parse::<f64>().unwrap(), value);
    }
}

#[rstest]
#[case(100000.0, "100000")]
#[case(1e6, "1e+06")]
#[case(1234567.0, "1.234567e+06")]
#[case(16777216.0, "1.6777216e+07")]
#[case(0.1, "0.1")]
#[case(0.00012, "0.00012")]
#[case(f32::MAX, "3.4028235e+38")]
#[case(1e-45, "1e-45")]
fn float4(#[case] value: f32, #[case] expected: &str) {
    assert_eq!(text(Float32Array::from(vec![value])), expected);
}

#[test]
fn integers() {
    assert_eq!(text(Int8Array::from(vec![i8::MIN])), "-128");
    assert_eq!(text(Int64Array::from(vec![i64::MIN])), "-9223372036854775808");
    assert_eq!(text(UInt64Array::from(vec![u64::MAX])), "18446744073709551615");
    assert_eq!(binary(Int8Array::from(vec![-1])), [255, 255]);
    assert_eq!(binary(UInt8Array::from(vec![255])), [0, 255]);
    assert_eq!(binary(UInt16Array::from(vec![65535])), [0, 0, 255, 255]);
    assert_eq!(binary(UInt32Array::from(vec![u32::MAX])), [255, 255, 255, 255]);
    assert_eq!(binary(Int32Array::from(vec![1])), [0, 0, 0, 1]);
    // 1844 6744 0737 0955 1615
    assert_eq!(binary(UInt64Array::from(vec![u64::MAX])), words(&[5, 4, 0, 0, 1844, 6744, 737, 955, 1615]));
}

fn words(words: &[i16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[rstest]
#[case(0, 2, "0.00", &[0, 0, 0, 2])]
#[case(1, 2, "0.01", &[1, -1, 0, 2, 100])]
#[case(-1, 9, "-0.000000001", &[1, -3, 0x4000, 9, 1000])]
#[case(123456, 2, "1234.56", &[2, 0, 0, 2, 1234, 5600])]
#[case(10_000, 0, "10000", &[1, 1, 0, 0, 1])]
#[case(12_345_678, 4, "1234.5678", &[2, 0, 0, 4, 1234, 5678])]
#[case(-100, 2, "-1.00", &[1, 0, 0x4000, 2, 1])]
#[case(5, -3, "5000", &[1, 0, 0, 0, 5000])]
#[case(i128::MAX, 38, "1.70141183460469231731687303715884105727", &[11, 0, 0, 38, 1, 7014, 1183, 4604, 6923, 1731, 6873, 371, 5884, 1057, 2700])]
#[case(i128::MIN, 0, "-170141183460469231731687303715884105728", &[10, 9, 0x4000, 0, 170, 1411, 8346, 469, 2317, 3168, 7303, 7158, 8410, 5728])]
fn numeric(#[case] value: i128, #[case] scale: i8, #[case] expected: &str, #[case] digits: &[i16]) {
    // Values beyond the precision are as good as others.
    let array = || Decimal128Array::from(vec![value]).with_data_type(DataType::Decimal128(38, scale));
    assert_eq!(text(array()), expected);
    assert_eq!(binary(array()), words(digits));
}

#[test]
fn the_widest_numeric() {
    let array = || Decimal256Array::from(vec![i256::MAX]).with_data_type(DataType::Decimal256(76, 76));
    assert_eq!(text(array()), "5.7896044618658097711785492504343953926634992332820282019728792003956564819967");
    assert_eq!(binary(array())[..8], words(&[20, 0, 0, 76]));
}

#[rstest]
#[case(0, "1970-01-01")]
#[case(-1, "1969-12-31")]
#[case(10_957, "2000-01-01")]
#[case(11_016, "2000-02-29")]
#[case(2_932_896, "9999-12-31")]
#[case(2_932_897, "10000-01-01")]
#[case(-719_162, "0001-01-01")]
#[case(-719_163, "0001-12-31 BC")]
#[case(-735_160, "0044-03-15 BC")]
#[case(i32::MAX, "5881580-07-11")]
#[case(i32::MIN, "5877642-06-23 BC")]
fn dates(#[case] days: i32, #[case] expected: &str) {
    assert_eq!(text(Date32Array::from(vec![days])), expected);
    assert_eq!(binary(Date32Array::from(vec![days])), days.saturating_sub(10_957).to_be_bytes());
    assert_eq!(text(Date64Array::from(vec![days as i64 * 86_400_000 + 1])), expected);
}

#[rstest]
#[case(0, "1970-01-01 00:00:00")]
#[case(-1, "1969-12-31 23:59:59.999999")]
#[case(1_700_000_000_120_000, "2023-11-14 22:13:20.12")]
#[case(-62_135_596_800_000_001, "0001-12-31 23:59:59.999999 BC")]
#[case(253_402_300_800_000_000, "10000-01-01 00:00:00")]
#[case(i64::MAX, "294247-01-10 04:00:54.775807")]
#[case(i64::MIN, "290309-12-21 19:59:05.224192 BC")]
fn timestamps(#[case] micros: i64, #[case] expected: &str) {
    assert_eq!(text(TimestampMicrosecondArray::from(vec![micros])), expected);
    assert_eq!(binary(TimestampMicrosecondArray::from(vec![micros])), micros.saturating_sub(946_684_800_000_000).to_be_bytes());
    let zoned = expected.strip_suffix(" BC").map_or(format!("{expected}+00"), |date| format!("{date}+00 BC"));
    assert_eq!(text(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC")), zoned);
}

#[test]
fn timestamps_of_all_units() {
    assert_eq!(text(TimestampSecondArray::from(vec![60])), "1970-01-01 00:01:00");
    assert_eq!(text(TimestampMillisecondArray::from(vec![60_500])), "1970-01-01 00:01:00.5");
    assert_eq!(text(TimestampNanosecondArray::from(vec![-1])), "1969-12-31 23:59:59.999999");
    text(TimestampSecondArray::from(vec![i64::MAX]));
    assert_eq!(binary(TimestampSecondArray::from(vec![i64::MIN])), i64::MIN.to_be_bytes(), "-infinity");
}

#[rstest]
#[case(Zone::default(), "2023-11-14 22:13:20+00")]
#[case(Zone::Named(Tz::Asia__Kolkata), "2023-11-15 03:43:20+05:30")]
#[case(Zone::Named(Tz::America__New_York), "2023-11-14 17:13:20-05")]
fn times_are_shown_in_the_zone_of_the_session(#[case] zone: Zone, #[case] expected: &str) {
    let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1_700_000_000]).with_timezone("Europe/Berlin"));
    assert_eq!(text_in(&array, zone), expected);
}

#[test]
fn old_zones_have_seconds() {
    let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![-3_000_000_000]).with_timezone("UTC"));
    assert_eq!(text_in(&array, Zone::Named(Tz::Europe__Paris)), "1874-12-07 18:49:21+00:09:21");
}

#[test]
fn times_of_day() {
    assert_eq!(text(Time64MicrosecondArray::from(vec![1])), "00:00:00.000001");
    assert_eq!(text(Time64NanosecondArray::from(vec![86_399_999_999_999])), "23:59:59.999999");
    assert_eq!(text(Time32SecondArray::from(vec![3600])), "01:00:00");
    assert_eq!(text(Time32MillisecondArray::from(vec![-5])), "00:00:00", "no time is before midnight");
    assert_eq!(binary(Time32MillisecondArray::from(vec![1])), 1000i64.to_be_bytes());
}

#[rstest]
#[case(0, 0, 0, "00:00:00")]
#[case(14, 3, 14_706_789_000_000, "1 year 2 mons 3 days 04:05:06.789")]
#[case(-14, 3, 14_706_000_000_000, "-1 years -2 mons +3 days 04:05:06")]
#[case(1, -1, 1_000_000_000, "1 mon -1 days +00:00:01")]
#[case(0, 0, -3_600_000_000_000, "-01:00:00")]
#[case(0, 1, 0, "1 day")]
#[case(0, 0, i64::MIN, "-2562047:47:16.854775")]
#[case(i32::MIN, i32::MIN, 0, "-178956970 years -8 mons -2147483648 days")]
fn intervals(#[case] months: i32, #[case] days: i32, #[case] nanos: i64, #[case] expected: &str) {
    let array = || IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(months, days, nanos)]);
    assert_eq!(text(array()), expected);
    let bytes = [(nanos / 1000).to_be_bytes().as_slice(), &days.to_be_bytes(), &months.to_be_bytes()].concat();
    assert_eq!(binary(array()), bytes);
}

#[test]
fn durations_and_other_intervals() {
    assert_eq!(text(DurationSecondArray::from(vec![93_784])), "26:03:04");
    assert_eq!(text(DurationNanosecondArray::from(vec![-1500])), "-00:00:00.000001");
    assert_eq!(text(DurationMicrosecondArray::from(vec![i64::MIN])), "-2562047788:00:54.775807");
    assert_eq!(text(IntervalYearMonthArray::from(vec![25])), "2 years 1 mon");
    assert_eq!(text(IntervalDayTimeArray::from(vec![IntervalDayTime::new(1, 500)])), "1 day 00:00:00.5");
}

#[test]
fn text_and_bytes() {
    assert_eq!(text(StringArray::from(vec!["grüß"])), "grüß");
    assert_eq!(
        text(StringViewArray::from(vec!["a string that is longer than twelve bytes"])),
        "a string that is longer than twelve bytes"
    );
    assert_eq!(text(LargeStringArray::from(vec![""])), "");
    assert_eq!(text(BinaryArray::from(vec![&[0u8, 0xab][..]])), "\\x00ab");
    assert_eq!(binary(BinaryViewArray::from(vec![&[0u8, 0xab][..]])), [0, 0xab]);
    assert_eq!(text(BooleanArray::from(vec![true])), "t");
    assert_eq!(binary(BooleanArray::from(vec![false])), [0]);
    assert_eq!(text(NullArray::new(1)), "NULL");
    assert_eq!(text(Int32Array::from(vec![None])), "NULL");
}

#[test]
fn dictionaries() {
    let some: DictionaryArray<Int8Type> = ["b", "a"].into_iter().collect();
    assert_eq!(text(some), "b");
    let none: DictionaryArray<Int8Type> = [None::<&str>].into_iter().collect();
    assert_eq!(text(none), "NULL");
}

fn strings(values: &[Option<&str>]) -> ListArray {
    let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
    let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
    ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None)
}

#[rstest]
#[case(&[], "{}")]
#[case(&[Some("a"), None, Some("b c")], r#"{a,NULL,"b c"}"#)]
#[case(&[Some(""), Some("null"), Some("NULLs")], r#"{"","null",NULLs}"#)]
#[case(&[Some("{"), Some("a,b"), Some(r#"a"b\c"#)], r#"{"{","a,b","a\"b\\c"}"#)]
#[case(&[Some("grüß\n")], "{\"grüß\n\"}")]
fn arrays_are_quoted(#[case] values: &[Option<&str>], #[case] expected: &str) {
    assert_eq!(text(strings(values)), expected);
}

fn nested(rows: Vec<Option<Vec<Option<i32>>>>) -> ListArray {
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows));
    let field = Arc::new(Field::new_list_field(lists.data_type().clone(), true));
    ListArray::new(field, OffsetBuffer::from_lengths([lists.len()]), lists, None)
}

#[test]
fn arrays_of_arrays() {
    let square = || nested(vec![Some(vec![Some(1), None]), Some(vec![Some(3), Some(4)])]);
    assert_eq!(text(square()), "{{1,NULL},{3,4}}");
    let head: Vec<u8> = [2i32, 1, 23, 2, 1, 2, 1, 4, 1, -1, 4, 3, 4, 4].iter().flat_map(|word| word.to_be_bytes()).collect();
    assert_eq!(binary(square()), head);
    let ragged: ArrayRef = Arc::new(nested(vec![Some(vec![Some(1)]), Some(vec![])]));
    assert_eq!(text_in(&ragged, Zone::default()), "{{1},{}}");
    let error = encoded(&ragged, Format::Binary, Zone::default()).unwrap_err();
    assert_eq!(error.state().code(), "0A000");
    let missing: ArrayRef = Arc::new(nested(vec![Some(vec![Some(1)]), None]));
    assert!(encoded(&missing, Format::Binary, Zone::default()).is_err());
}

#[test]
fn arrays_in_binary() {
    let empty: Vec<u8> = [0i32, 1, 25].iter().flat_map(|word| word.to_be_bytes()).collect();
    assert_eq!(binary(strings(&[])).len(), empty.len());
    let fixed = FixedSizeListArray::from_iter_primitive::<Int16Type, _, _>([Some([Some(1), Some(2)])], 2);
    assert_eq!(
        binary(fixed),
        [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0, 2, 0, 0, 0, 1][..], &[0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 0, 2]].concat()
    );
}

#[test]
fn records() {
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a \"b\" \\"]));
    let none: ArrayRef = Arc::new(Int32Array::from(vec![None]));
    let empty: ArrayRef = Arc::new(StringArray::from(vec![""]));
    let record = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Utf8, true)), names),
        (Arc::new(Field::new("b", DataType::Int32, true)), none),
        (Arc::new(Field::new("c", DataType::Utf8, true)), empty),
    ]);
    assert_eq!(text(record.clone()), r#"("a ""b"" \\",,"")"#);
    let bytes = binary(record);
    assert_eq!(bytes[..12], [0, 0, 0, 3, 0, 0, 0, 25, 0, 0, 0, 7]);
    assert_eq!(bytes[bytes.len() - 16..], [0, 0, 0, 23, 255, 255, 255, 255, 0, 0, 0, 25, 0, 0, 0, 0]);
}

#[test]
fn maps_are_json() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
    map.keys().append_value("a\"b");
    map.values().append_value(1.5);
    map.keys().append_value("n");
    map.values().append_null();
    map.keys().append_value("inf");
    map.values().append_value(f64::INFINITY);
    map.append(true).unwrap();
    let json = text(map.finish());
    assert_eq!(json, r#"{"a\"b":1.5,"n":null,"inf":"Infinity"}"#);
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let ragged: ArrayRef = Arc::new(nested(vec![Some(vec![Some(1)]), Some(vec![])]));
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef), ("b", ragged)]).unwrap();
    let mut out = b"before".to_vec();
    assert!(Rows::new(&batch, |_| Form { oid: 0, format: Format::Binary }, Zone::default()).unwrap().write(0, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn a_row_is_a_message() {
    let batch = RecordBatch::try_from_iter([
        ("a", ScalarValue::Int32(Some(7)).to_array().unwrap()),
        ("b", ScalarValue::Utf8(None).to_array().unwrap()),
    ]);
    let mut out = Vec::new();
    Rows::new(&batch.unwrap(), |_| Form { oid: 0, format: Format::Text }, Zone::default()).unwrap().write(0, &mut out).unwrap();
    assert_eq!(out, [b'D', 0, 0, 0, 15, 0, 2, 0, 0, 0, 1, b'7', 255, 255, 255, 255]);
}

/// Run it with `CARGO_PROFILE_TEST_OPT_LEVEL=3 cargo test --lib encode::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn speed() {
    const ROWS: usize = 8192;
    let integers = || (0..ROWS as i64).map(|row| row * 977);
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from_iter_values(integers()))),
        ("name", Arc::new(StringArray::from_iter_values(integers().map(|row| format!("name {row}"))))),
        ("at", Arc::new(TimestampMillisecondArray::from_iter_values(integers().map(|row| 1_700_000_000_000 + row)))),
        (
            "amount",
            Arc::new(Decimal128Array::from_iter_values(integers().map(i128::from)).with_data_type(DataType::Decimal128(10, 2))),
        ),
        ("rate", Arc::new(Float64Array::from_iter_values(integers().map(|row| row as f64 / 8.0)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for format in [Format::Text, Format::Binary] {
        let start = std::time::Instant::now();
        let mut out = Vec::new();
        let batches = 500;
        for _ in 0..batches {
            let rows = Rows::new(&batch, |_| Form { oid: 0, format }, Zone::default()).unwrap();
            out.clear();
            (0..rows.len()).for_each(|row| rows.write(row, &mut out).unwrap());
        }
        let rate = (batches * ROWS) as f64 / start.elapsed().as_secs_f64();
        println!("{format:?}: {:.2} million rows/s of {} bytes", rate / 1e6, out.len() / ROWS);
    }
}

/// Types that are text to us and have a binary form of their own.
#[rstest]
#[case(2950, "6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f", &[0x6f, 0x1f, 0x2a, 0x3e, 0x0c, 0x1f, 0x4d, 0x6a, 0x9d, 0x1c, 0x0a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f])]
#[case(3802, "[]", b"\x01[]")]
#[case(114, "[]", b"[]")]
#[case(18, "r", b"r")]
#[case(18, "", b"\0")]
fn texts_of_other_types_in_binary(#[case] oid: u32, #[case] text: &str, #[case] expected: &[u8]) {
    let write = |array: ArrayRef, oid: u32| {
        let mut out = Vec::new();
        Column::new(&array, Form { oid, format: Format::Binary }, Zone::default())?.write(0, &mut out)?;
        Ok::<Vec<u8>, Error>(out.split_off(4))
    };
    let array = Arc::new(StringArray::from(vec![text]));
    assert_eq!(write(array.clone(), oid).unwrap(), expected);
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1]), array, None);
    if oid == 2950 {
        let list = write(Arc::new(list), 2951).unwrap();
        assert_eq!((&list[8..12], &list[24..]), (&oid.to_be_bytes()[..], expected));
    }
    assert!(write(Arc::new(StringArray::from(vec!["no uuid"])), 2950).is_err());
}
