//! The formats as a client sees them: bytes in, rows or an error out; rows in, bytes out.

mod bench;
mod fuzz;

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use rstest::rstest;

use super::*;
use crate::copy::value::Formats;
use crate::error::Error;
use crate::sql::types::with_type;

pub(super) fn column(name: &str, data_type: DataType, sql_type: &str) -> Column {
    let (default, generated, comment) = (None, None, None);
    Column {
        name: name.to_string(),
        data_type,
        sql_type: sql_type.to_string(),
        nullable: true,
        default,
        generated,
        identity: None,
        comment,
    }
}

/// A column of each type.
pub(super) fn all_types() -> Vec<Column> {
    let micros = TimeUnit::Microsecond;
    let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
    let record = DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)].into());
    let entry =
        DataType::Struct(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)].into());
    vec![
        column("b", DataType::Boolean, "boolean"),
        column("i2", DataType::Int16, "smallint"),
        column("i4", DataType::Int32, "integer"),
        column("i8", DataType::Int64, "bigint"),
        column("u8", DataType::UInt64, "bigint unsigned"),
        column("f4", DataType::Float32, "real"),
        column("f8", DataType::Float64, "double precision"),
        column("n", DataType::Decimal128(12, 3), "numeric(12,3)"),
        column("n50", DataType::Decimal256(50, 5), "numeric(50,5)"),
        column("t", DataType::Utf8, "text"),
        column("tv", DataType::Utf8View, "text"),
        column("bytes", DataType::Binary, "bytea"),
        column("d", DataType::Date32, "date"),
        column("time", DataType::Time64(micros), "time without time zone"),
        column("ts", DataType::Timestamp(micros, None), "timestamp without time zone"),
        column("tz", DataType::Timestamp(micros, Some("UTC".into())), "timestamp with time zone"),
        column("iv", DataType::Interval(IntervalUnit::MonthDayNano), "interval"),
        column("uuid", DataType::Utf8, "uuid"),
        column("json", DataType::Utf8, "jsonb"),
        column("ints", list(DataType::Int32), "integer[]"),
        column("texts", list(DataType::Utf8), "text[]"),
        column("rec", record.clone(), "record"),
        column("recs", list(record), "record[]"),
        column("map", DataType::Map(Arc::new(Field::new("entries", entry, false)), false), "map(text,bigint)"),
    ]
}

/// Rows of data that is cut into pieces of this size, in blocks of that size.
pub(super) fn decode_in(columns: &[Column], options: &Options, data: &[u8], piece: usize, block: usize) -> Result<RecordBatch> {
    let mut splitter = BlockSplitter::new("t", columns, options).with_block_bytes(block);
    let decoder = Decoder::new("t", columns, options)?;
    let mut blocks = Vec::new();
    for piece in data.chunks(piece.max(1)) {
        blocks.extend(splitter.push(piece)?);
    }
    blocks.extend(splitter.finish()?);
    let batches = blocks.iter().map(|block| decoder.decode(block)).collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(decoder.schema(), &batches)?)
}

fn decode(columns: &[Column], options: &Options, data: &[u8]) -> Result<RecordBatch> {
    decode_in(columns, options, data, usize::MAX, crate::limits::COPY_BLOCK_BYTES)
}

/// Rows as text: fields between bars, NULL as a tilde.
fn show(rows: &RecordBatch) -> String {
    let writers: Vec<_> = rows.columns().iter().map(|array| value::write::text_writer(array).unwrap()).collect();
    let mut out = Vec::new();
    for row in 0..rows.num_rows() {
        for (i, (writer, array)) in writers.iter().zip(rows.columns()).enumerate() {
            out.extend_from_slice(if i > 0 { b"|" } else { b"" });
            if array.is_null(row) { out.push(b'~') } else { writer(row, &mut out) }
        }
        out.push(b';');
    }
    String::from_utf8(out).unwrap()
}

fn abc() -> Vec<Column> {
    ["a", "b", "c"].map(|name| column(name, DataType::Utf8, "text")).to_vec()
}

fn orders() -> Vec<Column> {
    vec![
        column("id", DataType::Int32, "integer"),
        column("amount", DataType::Decimal128(10, 2), "numeric(10,2)"),
        column("note", DataType::Utf8, "character varying(5)"),
    ]
}

fn show_error(error: &Error) -> String {
    format!("{} {}; {}", error.state().code(), error.message(), error.context().unwrap_or("no context"))
}

#[rstest]
#[case::plain("1,2,3\n4,5,6\n", "1|2|3;4|5|6;")]
#[case::no_newline_at_end("1,2,3\n4,5,6", "1|2|3;4|5|6;")]
#[case::empty_is_null(",\"\",x\n", "~||x;")]
#[case::crlf("1,2,3\r\n4,,6\r\n", "1|2|3;4|~|6;")]
#[case::crlf_and_no_newline_at_end("1,2,3\r\n4,5,6", "1|2|3;4|5|6;")]
#[case::cr("1,2,3\r4,5,6\r", "1|2|3;4|5|6;")]
#[case::delimiter_in_quotes("\"a,b\",c,\"d\"\n", "a,b|c|d;")]
#[case::newline_in_quotes("\"a\nb\",c,d\n1,2,3\n", "a\nb|c|d;1|2|3;")]
#[case::crlf_in_quotes("\"a\r\nb\",c,d\r\n1,2,3\r\n", "a\r\nb|c|d;1|2|3;")]
#[case::doubled_quote("\"a\"\"b\",\"\"\"\",c\n", "a\"b|\"|c;")]
#[case::quotes_within_a_field("a\"b,c\"d,e,f\n", "ab,cd|e|f;")]
#[case::quoted_parts("\"a\"\"b\"c\"d\",e,f\n", "a\"bcd|e|f;")]
#[case::space_is_kept(" a , b ,c\n", " a | b |c;")]
#[case::backslash_is_plain("a\\,\\N,\\.x\n", "a\\|\\N|\\.x;")]
#[case::end_marker("1,2,3\n\\.\n4,5,6\n", "1|2|3;")]
#[case::end_marker_at_end("1,2,3\n\\.", "1|2|3;")]
#[case::quoted_marker("\"\\.\",2,3\n4,5,6\n", "\\.|2|3;4|5|6;")]
#[case::utf8("ä,ö,日本\n", "ä|ö|日本;")]
#[case::nothing("", "")]
fn csv_rows(#[case] data: &str, #[case] expected: &str) {
    for piece in [1, 2, 3, usize::MAX] {
        let rows = decode_in(&abc(), &Options::of(CopyFormat::Csv), data.as_bytes(), piece, 64).unwrap();
        assert_eq!(show(&rows), expected, "in pieces of {piece}");
    }
}

#[rstest]
#[case::missing("1,2,x\n3,4\n", "22P04 missing data for column \"note\"; COPY t, line 2: \"3,4\"")]
#[case::extra("1,2,x\n3,4,y,z\n", "22P04 extra data after last expected column; COPY t, line 2: \"3,4,y,z\"")]
#[case::empty_line("1,2,x\n\n", "22P04 missing data for column \"amount\"; COPY t, line 2: \"\"")]
#[case::not_a_number(
    "1,2,x\n2,2,\"a\nb\"\n3,abc,x\n",
    "22P02 invalid input syntax for type numeric: \"abc\"; COPY t, line 4, column amount: \"abc\""
)]
#[case::first_bad_row_wins(
    "1,2,toolong\nx,2,y\n",
    "22001 value too long for type character varying(5); COPY t, line 1, column note: \"toolong\""
)]
#[case::first_column_wins("x,y,z\n", "22P02 invalid input syntax for type integer: \"x\"; COPY t, line 1, column id: \"x\"")]
#[case::values_before_what_is_missing(
    "x,2\n",
    "22P02 invalid input syntax for type integer: \"x\"; COPY t, line 1, column id: \"x\""
)]
#[case::overflow(
    "99999999999,2,x\n",
    "22003 value \"99999999999\" is out of range for type integer; COPY t, line 1, column id: \"99999999999\""
)]
#[case::numeric_overflow("1,123456789.1,x\n", "22003 numeric field overflow; COPY t, line 1, column amount: \"123456789.1\"")]
#[case::open_quote("1,2,\"x\n", "22P04 unterminated CSV quoted field; COPY t, line 1: \"1,2,\"x\n\"")]
#[case::carriage_return("1,2,x\n3,4\r,y\n", "22P04 unquoted carriage return found in data; COPY t, line 2: \"3,4\r,y\"")]
#[case::newline("1,2,x\r\n3,4,y\n", "22P04 unquoted newline found in data; COPY t, line 2: \"3,4,y\"")]
fn csv_errors(#[case] data: &str, #[case] expected: &str) {
    for (piece, block) in [(1, 1 << 20), (usize::MAX, 1 << 20), (3, 24)] {
        let error = decode_in(&orders(), &Options::of(CopyFormat::Csv), data.as_bytes(), piece, block).unwrap_err();
        assert_eq!(show_error(&error), expected);
    }
}

#[test]
fn csv_options() {
    let options = |change: fn(&mut Options)| {
        let mut options = Options::of(CopyFormat::Csv);
        change(&mut options);
        options
    };
    let csv = |options: &Options, data: &str| decode(&abc(), options, data.as_bytes()).map(|rows| show(&rows));
    let other = options(|o| (o.delimiter, o.quote, o.escape) = (b';', b'\'', b'\\'));
    assert_eq!(csv(&other, "'a;b';'c\\'d';'e\\\\'\n'x\\\n';\\;z\n").unwrap(), "a;b|c'd|e\\;x\\\n|\\|z;");
    let null = options(|o| o.null = "NULL".into());
    assert_eq!(csv(&null, "NULL,\"NULL\",\n").unwrap(), "~|NULL|;");
    let forced = options(|o| (o.force_null, o.force_not_null) = (vec!["a".into()], vec!["b".into()]));
    assert_eq!(csv(&forced, "\"\",,\n").unwrap(), "~||~;");
    let unknown = options(|o| o.force_null = vec!["x".into()]);
    assert_eq!(csv(&unknown, "").unwrap_err().message(), "column \"x\" not referenced by COPY");
    let header = options(|o| o.header = true);
    assert_eq!(csv(&header, "\"any\nthing\"\n1,2,3\n").unwrap(), "1|2|3;");
    assert_eq!(csv(&header, "a,b,c").unwrap(), "");
    let matched = options(|o| (o.header, o.header_match) = (true, true));
    assert_eq!(csv(&matched, "a,\"b\",c\r\n1,2,3\r\n").unwrap(), "1|2|3;");
    let error = csv(&matched, "a,x,c\n1,2,3\n").unwrap_err();
    assert_eq!(
        show_error(&error),
        "22P04 column name mismatch in header line field 2: got \"x\", expected \"b\"; COPY t, line 1"
    );
    assert!(csv(&matched, "a,b\n").unwrap_err().message().starts_with("wrong number of fields in header line"));
}

#[rstest]
#[case::plain("1\t2\t3\n4\t5\t6\n", "1|2|3;4|5|6;")]
#[case::null("\\N\t\t\\\\N\n", "~||\\N;")]
#[case::escapes("a\\tb\t\\n\\r\\b\\f\\v\t\\q\\\\\n", "a\tb|\n\r\x08\x0c\x0b|q\\;")]
#[case::octal_and_hex("\\101\\7x\t\\x41\\x4a\\xz\t\\1012\n", "A\x07x|AJxz|A2;")]
#[case::escaped_newline("a\\\nb\tc\td\n", "a\nb|c|d;")]
#[case::escaped_delimiter("a\\\tb\tc\td\n", "a\tb|c|d;")]
#[case::crlf("1\t2\t\\N\r\n4\t5\t6\r\n", "1|2|~;4|5|6;")]
#[case::end_marker("1\t2\t3\n\\.\nrest", "1|2|3;")]
#[case::end_marker_behind_a_row("1\t2\t3\\.\nrest", "1|2|3;")]
#[case::utf8_by_bytes("\\xc3\\xa4\tb\tc\n", "ä|b|c;")]
fn text_rows(#[case] data: &str, #[case] expected: &str) {
    for piece in [1, 2, 3, usize::MAX] {
        let rows = decode_in(&abc(), &Options::of(CopyFormat::Text), data.as_bytes(), piece, 64).unwrap();
        assert_eq!(show(&rows), expected, "in pieces of {piece}");
    }
}

#[rstest]
#[case::missing("1\t2\n", "22P04 missing data for column \"c\"; COPY t, line 1: \"1\t2\"")]
#[case::marker("1\t2\t3\na\\.b\t\t\n", "22P04 end-of-copy marker corrupt; COPY t, line 2")]
#[case::bad_utf8(
    "1\t2\t3\n\\xff\t\t\n",
    "22021 invalid byte sequence for encoding \"UTF8\": 0xff; COPY t, line 2, column a: \"\u{fffd}\""
)]
#[case::zero_byte("\\0\t\t\n", "22021 invalid byte sequence for encoding \"UTF8\": 0x00; COPY t, line 1, column a: \"\0\"")]
#[case::carriage_return("1\t2\t3\na\rb\t\t\n", "22P04 literal carriage return found in data; COPY t, line 2: \"a\rb\t\t\"")]
fn text_errors(#[case] data: &str, #[case] expected: &str) {
    let error = decode(&abc(), &Options::of(CopyFormat::Text), data.as_bytes()).unwrap_err();
    assert_eq!(show_error(&error), expected);
}

#[rstest]
#[case::objects("{\"a\":\"x\",\"b\":1,\"c\":true}\n{ \"c\" : null , \"A\":1.50 }\n", "x|1|true;1.50|~|~;")]
#[case::ignores_unknown_keys("{\"z\":{\"a\":[1,\"}\"]},\"a\":\"1\"}", "1|~|~;")]
#[case::text_takes_any_json("{\"a\":[1, 2],\"b\":{\"x\":null}}\r\n\n", "[1, 2]|{\"x\":null}|~;")]
#[case::escapes("{\"a\":\"\\\"\\\\\\/\\n\\u00e4\\ud83d\\ude00\",\"\\u0062\":\"y\"}\n", "\"\\/\nä😀|y|~;")]
#[case::last_of_equal_keys("{\"a\":1,\"a\":2}\n{}\n", "2|~|~;~|~|~;")]
fn json_rows_of_text(#[case] data: &str, #[case] expected: &str) {
    for piece in [1, 7, usize::MAX] {
        let rows = decode_in(&abc(), &Options::of(CopyFormat::Json), data.as_bytes(), piece, 128).unwrap();
        assert_eq!(show(&rows), expected);
    }
}

#[rstest]
#[case("{\"a\":}", "Token \"}\" is invalid.")]
#[case("{\"a\":01}", "Token \"1\" is invalid.")]
#[case("{\"a\":tru}", "Token \"tru\" is invalid.")]
#[case("{\"a\":1} x", "Token \"x\" is invalid.")]
#[case("[1]", "Token \"[1\" is invalid.")]
#[case("{\"a\":\"x", "The input string ended unexpectedly.")]
#[case("{\"a\":\"\\ud800\"}", "Escape sequence \"\\u\" is invalid.")]
fn json_errors(#[case] line: &str, #[case] detail: &str) {
    let error = decode(&abc(), &Options::of(CopyFormat::Json), format!("{{}}\n{line}\n").as_bytes()).unwrap_err();
    assert_eq!(error.detail(), Some(detail));
    assert_eq!(
        show_error(&error),
        format!("22P02 invalid input syntax for type json; COPY t, line 2: \"{}\"", line.replace("\\\"", "\""))
    );
}

#[test]
fn json_fills_in_defaults_only_for_missing_keys() {
    let default: DefaultValues = Arc::new(|rows| Ok(Arc::new(arrow::array::StringArray::from(vec!["d"; rows]))));
    let decoder =
        Decoder::new("t", &abc(), &Options::of(CopyFormat::Json)).unwrap().with_defaults(vec![Some(default), None, None]);
    let block = Block { bytes: "{\"a\":null}\n{\"b\":1}\n".into(), first_line: 1, eol: Eol::Lf };
    assert_eq!(show(&decoder.decode(&block).unwrap()), "~|~|~;d|1|~;");
}

#[test]
fn nested_json() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let error = decode(&abc(), &Options::of(CopyFormat::Json), deep.as_bytes()).unwrap_err();
    assert_eq!(error.state().code(), "54001");

    let columns: Vec<Column> =
        all_types().into_iter().filter(|c| ["ints", "recs", "map", "json"].contains(&c.name.as_str())).collect();
    let data =
        "{\"json\":{\"k\":[1]},\"ints\":[1,null,\"3\"],\"recs\":[{\"y\":\"a b\",\"x\":1},null],\"map\":{\"p\":1,\"q\":null}}\n";
    let rows = decode(&columns, &Options::of(CopyFormat::Json), data.as_bytes()).unwrap();
    assert_eq!(show(&rows), "{\"k\": [1]}|{1,NULL,3}|{\"(1,\\\"a b\\\")\",NULL}|{\"p\":1,\"q\":null};");
    let error = decode(&columns, &Options::of(CopyFormat::Json), b"{\"ints\":[1]}\n{\"ints\":[2,\"x\"]}\n").unwrap_err();
    let context = "COPY t, line 2, column ints: \"[2,\"x\"]\"";
    assert_eq!(show_error(&error), format!("22P02 invalid input syntax for type integer: \"x\"; {context}"));
}

#[test]
fn null_in_a_column_that_forbids_it() {
    let mut columns = orders();
    columns[1].nullable = false;
    let error = decode(&columns, &Options::of(CopyFormat::Csv), b"1,2,x\n3,,y\n4,z,w\n").unwrap_err();
    let message = "null value in column \"amount\" of relation \"t\" violates not-null constraint";
    assert_eq!(error.message(), "invalid input syntax for type numeric: \"z\"", "conversion errors of a block come first");
    let error = decode(&columns, &Options::of(CopyFormat::Csv), b"1,2,x\n3,,y\n").unwrap_err();
    assert_eq!(show_error(&error), format!("23502 {message}; COPY t, line 2: \"3,,y\""));
    assert_eq!(error.detail(), Some("Failing row contains (3, null, y)."));
}

#[test]
fn a_row_longer_than_a_block_is_refused() {
    let data = format!("1,2,x\n2,3,\"{}\"\n", "y".repeat(100));
    let error = decode_in(&orders(), &Options::of(CopyFormat::Csv), data.as_bytes(), 10, 64).unwrap_err();
    assert_eq!(show_error(&error), "54000 a row of COPY data is longer than 64 bytes; COPY t, line 2");
}

#[rstest]
#[case::signature(b"PGCOPY\n\xff\r\n\x01........", "COPY file signature not recognized")]
#[case::cut_header(b"PGCOPY\n\xff\r\n\0\0\0", "unexpected EOF in COPY data")]
#[case::flags(b"PGCOPY\n\xff\r\n\0\0\x02\0\0\0\0\0\0", "unrecognized critical flags in COPY file header")]
#[case::huge_extension(b"PGCOPY\n\xff\r\n\0\0\0\0\0\x7f\xff\xff\xff", "unexpected EOF in COPY data")]
#[case::columns(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01", "row field count is 1, expected 3")]
#[case::negative_length(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\xff\xff\xff\xfe", "invalid field size")]
#[case::huge_length(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03\x7f\xff\xff\xff", "unexpected EOF in COPY data")]
#[case::after_the_end(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xffx", "received copy data after EOF marker")]
fn binary_errors(#[case] data: &[u8], #[case] expected: &str) {
    let error = decode(&abc(), &Options::of(CopyFormat::Binary), data).unwrap_err();
    assert_eq!((error.message(), error.state().code()), (expected, "22P04"));
}

#[test]
fn options_are_checked() {
    use sqlparser::ast::ObjectName;
    let copy = |format, from| ast::Copy {
        target: ast::CopyTarget::Relation { name: ObjectName(Vec::new()), columns: Vec::new() },
        from,
        format,
        header: false,
        header_match: false,
        delimiter: None,
        null: None,
        quote: None,
        escape: None,
        force_quote: Vec::new(),
        force_null: Vec::new(),
        force_not_null: Vec::new(),
    };
    let message = |copy: &ast::Copy| Options::new(copy, Formats::default()).unwrap_err().message().to_string();
    let csv = copy(CopyFormat::Csv, true);
    assert_eq!(Options::new(&csv, Formats::default()).unwrap(), Options::of(CopyFormat::Csv));
    let escape = Options::new(&ast::Copy { quote: Some(b'\''), ..csv.clone() }, Formats::default()).unwrap().escape;
    assert_eq!(escape, b'\'', "the escape is the quote unless it is given");
    assert_eq!(message(&ast::Copy { delimiter: Some(b'"'), ..csv.clone() }), "COPY delimiter and quote must be different");
    assert_eq!(
        message(&ast::Copy { force_quote: vec!["*".into()], ..csv.clone() }),
        "COPY force quote only available using COPY TO"
    );
    assert_eq!(
        message(&ast::Copy { quote: Some(b'x'), ..copy(CopyFormat::Text, true) }),
        "COPY quote available only in CSV mode"
    );
    assert_eq!(message(&ast::Copy { delimiter: Some(b'a'), ..copy(CopyFormat::Text, true) }), "COPY delimiter cannot be \"a\"");
    assert_eq!(message(&ast::Copy { header: true, ..copy(CopyFormat::Binary, true) }), "cannot specify HEADER in BINARY mode");
    assert_eq!(
        message(&ast::Copy { null: Some("a,b".into()), ..csv }),
        "COPY delimiter must not appear in the NULL specification"
    );
}

/// What a query tells of its columns' SQL types decides their binary form.
#[test]
fn columns_of_queries_are_written_as_their_sql_types() {
    let text = |name: &str, sql_type: &str| with_type(Field::new(name, DataType::Utf8, true), sql_type);
    let fields = vec![text("u", "uuid"), text("j", "jsonb"), text("t", "text"), Field::new("n", DataType::Null, true)];
    let schema = Arc::new(Schema::new(fields));
    let column = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    let nulls = Arc::new(NullArray::new(1));
    let rows = RecordBatch::try_new(schema.clone(), vec![column(uuid), column("{}"), column("x"), nulls]).unwrap();
    let encoded = |format| Encoder::for_schema(&schema, &Options::of(format)).unwrap().encode(&rows).unwrap().concat();
    let value = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let digits: Vec<u8> = (0..16).collect();
    let binary = [&[0, 4][..], &value(&digits), &value(b"\x01{}"), &value(b"x"), &[0xff; 4]].concat();
    assert_eq!(encoded(CopyFormat::Binary), binary);
    assert_eq!(encoded(CopyFormat::Text), format!("{uuid}\t{{}}\tx\t\\N\n").into_bytes());
}
