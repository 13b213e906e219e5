//! How fast blocks are cut and decoded, by the processor time of one thread: a busy machine hardly changes it. Run with
//! `BENCH_DIR=… cargo test --release --lib copy::tests::bench -- --ignored --nocapture`; the files are Nexmark bids.

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

/// Seconds that this thread has run.
fn cpu_seconds() -> f64 {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos: f64 = figures.split(' ').next().unwrap().parse().unwrap();
    nanos / 1e9
}

/// The least of five runs.
fn least<T>(mut run: impl FnMut() -> T) -> (f64, T) {
    let timed = |run: &mut dyn FnMut() -> T| {
        let start = cpu_seconds();
        let result = run();
        (cpu_seconds() - start, result)
    };
    let mut best = timed(&mut run);
    for _ in 0..4 {
        let other = timed(&mut run);
        if other.0 < best.0 {
            best = other;
        }
    }
    best
}

fn measure(name: &str, columns: &[Column], options: &Options, data: &[u8]) {
    let (split, blocks) = least(|| {
        let mut splitter = BlockSplitter::new("bid", columns, options);
        let mut blocks = Vec::new();
        for piece in data.chunks(64 << 10) {
            blocks.extend(splitter.push(piece).unwrap());
        }
        blocks.extend(splitter.finish().unwrap());
        blocks
    });
    let decoder = Decoder::new("bid", columns, options).unwrap();
    let (decode, rows) = least(|| blocks.iter().map(|block| decoder.decode(block).unwrap().num_rows()).sum::<usize>());
    let rate =
        |seconds: f64| format!("{:.2} M rows/s ({:.0} MB/s)", rows as f64 / seconds / 1e6, data.len() as f64 / seconds / 1e6);
    println!("{name}: {rows} rows; split {}, decode {}", rate(split), rate(decode));
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
