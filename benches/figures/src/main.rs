//! The figures of the README, each from one command, next to a rival in the same run.
//!
//! ```text
//! cargo build --release && cargo run --release -p figures            all of them; or, by name:
//!   … -p figures core                       the engine next to DataFusion's batch answer
//!   … -p figures copy                       COPY into a stream with a view, next to PostgreSQL's into a table
//!   … -p figures latency                    from an acknowledged INSERT to the view, at 10,000 rows a second
//!   … -p figures restart                    first answer after a start, memory, bytes on disk
//! ```
//!
//! `--short`: a hundredth of the rows, to see that everything runs; its figures mean nothing. The last three start the server
//! that lies beside this program as a process of its own, on a temporary directory (`TMPDIR` says where).

#![allow(clippy::disallowed_methods, reason = "figures are about time")]
#![allow(clippy::unwrap_used, reason = "a figure that can't be had is none")]

mod bids;
mod copy;
mod core;
mod latency;
mod postgres;
mod restart;
mod table;
mod usage;

#[path = "../../../tests/it/server.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod server;

fn main() {
    let mut chosen: Vec<String> = Vec::new();
    let mut short = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--short" => short = true,
            name if ["core", "copy", "latency", "restart"].contains(&name) => chosen.push(argument),
            other => {
                eprintln!("unknown argument {other}: say core, copy, latency or restart, and --short");
                std::process::exit(2);
            }
        }
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let scale = if short { 100 } else { 1 };
    println!("{}", usage::machine());
    if wanted("core") {
        core::run(scale);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
    if wanted("copy") {
        runtime.block_on(copy::run(scale));
    }
    if wanted("latency") {
        runtime.block_on(latency::run(scale));
    }
    if wanted("restart") {
        runtime.block_on(restart::run(scale));
    }
}
