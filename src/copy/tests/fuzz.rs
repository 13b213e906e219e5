//! What must hold for all input: what was encoded is decoded, cuts don't matter, nothing panics.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::time::zone::Zone;

const FORMATS: [CopyFormat; 4] = [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Json, CopyFormat::Binary];

/// A random value of a type, as text that the type reads; `None` is NULL.
fn random_text(random: &mut SmallRng, column: &Column) -> Option<String> {
    if random.random_ratio(1, 6) {
        return None;
    }
    let word = |random: &mut SmallRng| -> String {
        let letters = [
            "a", "B", "\\", "\"", ",", "\t", "\n", "\r", "'", "{", "}", "(", ")", " ", "NULL", "\\N", "\\.", "ä", "😀", ";",
            "\u{1}",
        ];
        (0..random.random_range(0..6)).map(|_| letters[random.random_range(0..letters.len())]).collect()
    };
    let mut written = Vec::new();
    use value::write::*;
    match column.name.as_str() {
        "b" => written.push(if random.random() { b't' } else { b'f' }),
        "i2" => push_int(&mut written, i64::from(random.random::<i16>())),
        "i4" => push_int(&mut written, i64::from(random.random::<i32>())),
        "i8" => push_int(&mut written, random.random::<i64>() >> random.random_range(0..64)),
        "u8" => push_unsigned(&mut written, random.random::<u64>() >> random.random_range(0..64)),
        "f4" => push_float32(&mut written, f32::from_bits(random.random())),
        "f8" => push_float64(&mut written, f64::from_bits(random.random())),
        "n" => {
            push_numeric(&mut written, random.random_range(-999_999_999_999..=999_999_999_999) >> random.random_range(0..40), 3)
        }
        "n50" => push_numeric(&mut written, random.random::<i128>() >> random.random_range(0..128), 5),
        "bytes" => push_bytea(&mut written, &random.random::<[u8; 5]>()[..random.random_range(0..5)]),
        "d" => push_date(&mut written, random.random_range(-2_000_000..90_000_000)),
        "time" => push_time(&mut written, random.random_range(0..=value::DAY)),
        "ts" => {
            push_timestamp(&mut written, random.random_range(-200_000_000_000_000_000..9_000_000_000_000_000_000) / 1000 * 1000)
        }
        "tz" => push_timestamptz(
            &mut written,
            random.random_range(-200_000_000_000_000_000..9_000_000_000_000_000_000),
            Zone::default(),
        ),
        "iv" => {
            let micros = random.random::<i64>() >> random.random_range(10..64);
            let interval =
                IntervalMonthDayNano::new(random.random_range(-99..99), random.random_range(-99..99), micros / 1000 * 1000);
            push_interval(&mut written, interval);
        }
        "uuid" => return Some(format!("{:08x}-0000-4000-8000-{:012x}", random.random::<u32>(), random.random::<u32>())),
        "json" => {
            json::push_string(&mut written, &word(random));
            if random.random() {
                written = [b"{\"k\": [1, ".as_slice(), &written, b"]}"].concat();
            }
        }
        _ => return Some(word(random)),
    }
    Some(String::from_utf8(written).unwrap())
}

fn random_array(random: &mut SmallRng, column: &Column, rows: usize) -> ArrayRef {
    let leaf = |random: &mut SmallRng, name: &str, data_type: DataType, rows: usize| {
        let column = super::column(name, data_type, "");
        random_array(random, &column, rows)
    };
    let lengths: Vec<usize> = (0..rows).map(|_| random.random_range(0..4)).collect();
    let total: usize = lengths.iter().sum();
    let offsets = || arrow::buffer::OffsetBuffer::from_lengths(lengths.iter().copied());
    let nulls = arrow::buffer::NullBuffer::from_iter((0..rows).map(|_| random.random_ratio(5, 6)));
    let record = |random: &mut SmallRng, fields: &Fields, rows: usize, nulls| {
        let columns = vec![leaf(random, "i4", DataType::Int32, rows), leaf(random, "t", DataType::Utf8, rows)];
        Arc::new(StructArray::new(fields.clone(), columns, nulls)) as ArrayRef
    };
    match &column.data_type {
        DataType::List(field) => {
            let items = match field.data_type() {
                DataType::Struct(fields) => record(random, fields, total, None),
                DataType::Int32 => leaf(random, "i4", DataType::Int32, total),
                _ => leaf(random, "t", DataType::Utf8, total),
            };
            Arc::new(ListArray::new(field.clone(), offsets(), items, Some(nulls)))
        }
        DataType::Struct(fields) => record(random, fields, rows, Some(nulls)),
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { panic!("entries") };
            let keys: ArrayRef = Arc::new((0..total).map(|at| Some(format!("k\"{at}"))).collect::<StringArray>());
            let pairs = StructArray::new(fields.clone(), vec![keys, leaf(random, "i8", DataType::Int64, total)], None);
            Arc::new(MapArray::new(entries.clone(), offsets(), pairs, Some(nulls), false))
        }
        data_type => {
            let texts: Vec<Option<String>> = (0..rows).map(|_| random_text(random, column)).collect();
            super::super::column::build(data_type, &texts, Formats::default()).unwrap()
        }
    }
}

fn random_rows(random: &mut SmallRng, columns: &[Column]) -> RecordBatch {
    let rows = random.random_range(1..20);
    let arrays = columns.iter().map(|column| random_array(random, column, rows)).collect();
    let fields: Vec<Field> = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn encode(columns: &[Column], options: &Options, rows: &RecordBatch) -> Vec<u8> {
    let encoder = Encoder::new(columns, options).unwrap();
    let rows = encoder.encode(rows).unwrap();
    encoder.header().into_iter().chain(rows).chain(encoder.trailer()).flatten().collect()
}

/// Both in a form in which equal values are equal bytes.
fn assert_same(found: &RecordBatch, expected: &RecordBatch, what: &str) {
    for ((found, expected), field) in found.columns().iter().zip(expected.columns()).zip(expected.schema().fields()) {
        let text = |array: &ArrayRef| -> Vec<Option<String>> {
            let writer = value::write::text_writer(array).unwrap();
            let value = |row| {
                let mut out = Vec::new();
                writer(row, &mut out);
                String::from_utf8(out).unwrap()
            };
            (0..array.len()).map(|row| array.is_valid(row).then(|| value(row))).collect()
        };
        assert_eq!(found.data_type(), expected.data_type());
        assert_eq!(text(found), text(expected), "column {} {what}", field.name());
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    let columns = all_types();
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let rows = random_rows(&mut random, &columns);
        for format in FORMATS {
            let mut options = Options::of(format);
            options.header = random.random() && matches!(format, CopyFormat::Csv | CopyFormat::Text);
            options.header_match = options.header;
            if format == CopyFormat::Csv && random.random() {
                (options.quote, options.escape, options.delimiter) = (b'\'', b'\\', b';');
                options.force_quote = vec!["t".to_string(), "i4".to_string()];
            }
            let data = encode(&columns, &options, &rows);
            let piece = random.random_range(1..200);
            let found = decode_in(&columns, &options, &data, piece, 1 << 14);
            let found = found.unwrap_or_else(|e| panic!("seed {seed} {format:?}: {e:?}\n{}", String::from_utf8_lossy(&data)));
            assert_same(&found, &rows, &format!("seed {seed} {format:?}"));
        }
    }
}

/// Data near the rules: little but special bytes.
fn random_data(random: &mut SmallRng, columns: &[Column], options: &Options) -> Vec<u8> {
    if options.format == CopyFormat::Binary || random.random_ratio(1, 4) {
        return encode(columns, options, &random_rows(random, columns));
    }
    let eol: &[u8] = [&b"\n"[..], b"\r\n", b"\r"][random.random_range(0..3)];
    let parts: [&[u8]; 16] =
        [b"a", b"1", b",", b",", b"\t", b"\t", b"\"", b"\"", b"\\", b"\\N", eol, eol, eol, b"{\"i4\":", b"}", b"\\."];
    (0..random.random_range(0..60)).flat_map(|_| parts[random.random_range(0..parts.len())]).copied().collect()
}

#[test]
fn cuts_do_not_matter() {
    let columns: Vec<Column> = all_types().into_iter().filter(|c| ["i4", "t", "json"].contains(&c.name.as_str())).collect();
    for seed in 0..3000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut options = Options::of(FORMATS[seed as usize % 4]);
        if options.format == CopyFormat::Csv && random.random() {
            options.escape = b'\\';
        }
        let data = random_data(&mut random, &columns, &options);
        let show = |rows: Result<RecordBatch>| rows.map(|rows| super::show(&rows)).map_err(|e| show_error(&e));
        let whole = show(decode(&columns, &options, &data));
        for _ in 0..4 {
            let piece = random.random_range(1..20);
            let block = if random.random() { 1 << 20 } else { random.random_range(data.len() + 1..data.len() * 2 + 3) };
            let cut = show(decode_in(&columns, &options, &data, piece, block));
            assert_eq!(
                cut,
                whole,
                "seed {seed} {:?} pieces of {piece}, blocks of {block}: {:?}",
                options.format,
                String::from_utf8_lossy(&data)
            );
        }
        // Small blocks: the same rows, unless a row is too long for them.
        let small = show(decode_in(&columns, &options, &data, random.random_range(1..20), 48));
        if small.as_ref().err().is_none_or(|e| !e.starts_with("54000")) && whole.is_ok() {
            assert_eq!(small, whole, "seed {seed} {:?}: {:?}", options.format, String::from_utf8_lossy(&data));
        }
    }
}

#[test]
fn damaged_data_is_an_error_at_most() {
    let columns = all_types();
    let mut random = SmallRng::seed_from_u64(7);
    let mut sources = Vec::new();
    for format in FORMATS {
        let mut options = Options::of(format);
        for escape in [b'"', b'\\'] {
            options.escape = escape;
            sources.extend((0..5).map(|_| (options.clone(), encode(&columns, &options, &random_rows(&mut random, &columns)))));
        }
    }
    for _ in 0..20_000 {
        let (options, data) = &sources[random.random_range(0..sources.len())];
        let mut data = data.clone();
        for _ in 0..random.random_range(1..4) {
            if data.is_empty() {
                break;
            }
            let at = random.random_range(0..data.len());
            match random.random_range(0..5) {
                0 => data[at] = random.random(),
                1 => data[at] ^= 1 << random.random_range(0..8),
                2 => drop(data.remove(at)),
                3 => data.insert(at, b"\\\"\n\r,\t{}0-\0\xff"[random.random_range(0..12)]),
                _ => data.truncate(at.max(1)),
            }
        }
        // Errors are expected; a panic would fail the test.
        let _ = decode_in(&columns, options, &data, 4096, 1 << 14);
    }
}

#[test]
fn values_never_panic() {
    let parts = [
        "1",
        "99",
        "2025",
        "-",
        ":",
        ".",
        " ",
        "T",
        "Z",
        "+",
        "e",
        "P",
        "D",
        "Jan",
        "pm",
        "BC",
        "/",
        "UTC",
        "{",
        "}",
        "(",
        "\"",
        "\\",
        ",",
        "[",
        "]=",
        "day",
        "ago",
        "99999999999",
        "nan",
        "Europe/Berlin",
    ];
    let mut random = SmallRng::seed_from_u64(3);
    for _ in 0..20_000 {
        let text: String = (0..random.random_range(0..9)).map(|_| parts[random.random_range(0..parts.len())]).collect();
        for column in all_types() {
            let _ = super::super::column::build(&column.data_type, &vec![Some(text.as_bytes())], Formats::default());
        }
    }
}
