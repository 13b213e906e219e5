//! The figures of the README, each from one command, next to a rival in the same run.
//!
//! ```text
//! cargo build --release && cargo run --release -p figures            all of them; or, by name:
//!   … -p figures core                       the engine next to DataFusion's batch answer
//!   … -p figures nexmark                    q0 to q22, each next to DataFusion's batch answer; or q7 q9 …: these
//!   … -p figures hop                        windows that overlap ten, a hundred and a thousand times
//!   … -p figures changes                    one changed row, where there is much state
//!   … -p figures copy                       COPY into a stream with a view, next to PostgreSQL's into a table
//!   … -p figures latency                    from an acknowledged INSERT to the view, at 10,000 rows a second
//!   … -p figures clients                    rows by key, connections, large answers, next to PostgreSQL
//!   … -p figures views                      a thousand views over one stream
//!   … -p figures restart                    first answer after a start, memory, bytes on disk
//! ```
//!
//! `--short`: a hundredth of the rows, to see that everything runs; its figures mean nothing. The last five start the server
//! that lies beside this program as a process of its own, on a temporary directory (`TMPDIR` says where).

#![allow(clippy::disallowed_methods, reason = "figures are about time")]
#![allow(clippy::unwrap_used, reason = "a figure that can't be had is none")]

mod bids;
mod changes;
mod clients;
mod copy;
mod core;
mod engine;
mod hop;
mod latency;
mod nexmark;
mod postgres;
mod restart;
mod table;
mod usage;
mod views;

#[path = "../../../tests/it/server.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod server;

const NAMES: [&str; 9] = ["core", "nexmark", "hop", "changes", "copy", "latency", "clients", "views", "restart"];

fn main() {
    let mut chosen: Vec<String> = Vec::new();
    let mut queries: Vec<String> = Vec::new();
    let mut short = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--short" => short = true,
            name if NAMES.contains(&name) => chosen.push(argument),
            name if nexmark::NUMBERS.map(|number| format!("q{number}")).any(|query| query == name) => queries.push(argument),
            other => {
                eprintln!("unknown argument {other}: say any of {}, q0 to q22, and --short", NAMES.join(", "));
                std::process::exit(2);
            }
        }
    }
    if !queries.is_empty() {
        chosen.push("nexmark".to_string());
    }
    let scale = if short { 100 } else { 1 };
    println!("{}", usage::machine());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
    for name in NAMES.into_iter().filter(|name| chosen.is_empty() || chosen.iter().any(|c| c == name)) {
        match name {
            "core" => core::run(scale),
            "nexmark" => nexmark::run(scale, &queries),
            "hop" => hop::run(scale),
            "changes" => changes::run(scale),
            "copy" => runtime.block_on(copy::run(scale)),
            "latency" => runtime.block_on(latency::run(scale)),
            "clients" => runtime.block_on(clients::run(scale)),
            "views" => runtime.block_on(views::run(scale)),
            _ => runtime.block_on(restart::run(scale)),
        }
    }
}
