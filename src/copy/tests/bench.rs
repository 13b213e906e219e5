//! How fast blocks are cut and decoded. Run with
//! `BENCH_DIR=… cargo test --release --lib copy::tests::bench -- --ignored --nocapture`; the files are Nexmark bids.

#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::time::Instant;

use super::*;

fn bids(time_in_millis: bool) -> Vec<Column> {
    let millis = if time_in_millis { DataType::Int64 } else { DataType::Timestamp(TimeUnit::Microsecond, None) };
    vec![
        column("auction", DataType::Int64, "bigint"),
        column("bidder", DataType::Int64, "bigint"),
        column("price", DataType::Int64, "bigint"),
        column("channel", DataType::Utf8, "text"),
        column("url", DataType::Utf8, "text"),
        column("date_time", millis, "bigint"),
        column("extra", DataType::Utf8, "text"),
    ]
}

fn measure(name: &str, columns: &[Column], options: &Options, data: &[u8]) {
    let start = Instant::now();
    let mut splitter = BlockSplitter::new("bid", columns, options);
    let mut blocks = Vec::new();
    for piece in data.chunks(64 << 10) {
        blocks.extend(splitter.push(piece).unwrap());
    }
    blocks.extend(splitter.finish().unwrap());
    let split = start.elapsed();
    let decoder = Decoder::new("bid", columns, options).unwrap();
    let mut best = f64::MAX;
    let mut rows = 0;
    for _ in 0..5 {
        let start = Instant::now();
        rows = blocks.iter().map(|block| decoder.decode(block).unwrap().num_rows()).sum();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let rate = |seconds: f64| (rows as f64 / seconds / 1e6, data.len() as f64 / seconds / 1e6);
    let ((split_rows, split_bytes), (decode_rows, decode_bytes)) = (rate(split.as_secs_f64()), rate(best));
    println!(
        "{name}: {rows} rows; split {split_rows:.1} M rows/s ({split_bytes:.0} MB/s), decode {decode_rows:.2} M rows/s ({decode_bytes:.0} MB/s)"
    );
}

#[test]
#[ignore = "measures; needs data files"]
fn decode_bids() {
    let Ok(dir) = std::env::var("BENCH_DIR") else {
        println!("set BENCH_DIR to where gen_data.sh has put its files");
        return;
    };
    let read = |path: &str| std::fs::read(format!("{dir}/data/1m/{path}")).unwrap();
    let csv = read("csv1/bid/part-0.csv");
    measure("csv", &bids(true), &Options::of(CopyFormat::Csv), &csv);
    let quoted: Vec<u8> = csv
        .split_inclusive(|b| *b == b'\n')
        .flat_map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let quoted: Vec<Vec<u8>> = line.split(|b| *b == b',').map(|field| [b"\"", field, b"\""].concat()).collect();
            [quoted.join(&b','), b"\n".to_vec()].concat()
        })
        .collect();
    measure("csv, all quoted", &bids(true), &Options::of(CopyFormat::Csv), &quoted);
    let tabs: Vec<u8> = csv.iter().map(|b| if *b == b',' { b'\t' } else { *b }).collect();
    measure("text", &bids(true), &Options::of(CopyFormat::Text), &tabs);
    measure("json", &bids(true), &Options::of(CopyFormat::Json), &read("json1/bid/part-0.json"));

    let mut times = bids(false);
    let iso: Vec<u8> = csv
        .split_inclusive(|b| *b == b'\n')
        .flat_map(|line| {
            let mut fields: Vec<Vec<u8>> = line.split(|b| *b == b',').map(<[u8]>::to_vec).collect();
            let millis: i64 = value::parse_int(&fields[5]).unwrap();
            fields[5].clear();
            value::write::push_timestamp(&mut fields[5], millis * 1000);
            fields.join(&b',')
        })
        .collect();
    measure("csv with timestamps", &times, &Options::of(CopyFormat::Csv), &iso);
    times[2] = column("price", DataType::Decimal128(12, 2), "numeric(12,2)");
    measure("csv with timestamps and decimals", &times, &Options::of(CopyFormat::Csv), &iso);
}
