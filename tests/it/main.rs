//! The whole server, from outside: the real binary, a real directory, the real wire.
//!
//! * [`server`]: starts, ends, kills and restarts the binary.
//! * [`slt`]: statements and their answers, `tests/slt/**/*.slt`, in several scenarios.
//! * [`compat`]: plain SQL, `tests/compat/*.slt`, next to PostgreSQL 15.
//! * [`scripts`]: the scripts of `sql/`, through psql.
//! * [`examples`]: the clients of `examples/`.
//! * [`sources`]: connectors over restarts; [`sinks`]: what goes to other servers, over failures of either.
//! * [`oracle`]: views and batch answers over random logs, in this process.
//! * [`crash`]: the same database over a store that dies at any of its operations.
//! * `planted` (with the feature `planted-bugs`): each planted bug is caught by these tests.
//! * [`process`]: flags, signals, refusals, dump and check.
//! * [`transfers`]: one moment for all views, in snapshots and subscriptions.
//! * [`literature`]: the field's examples that need a clock or a restart.
//! * [`full_disk`], [`damage`]: a disk without room, state that is damaged, work that is given up half-way.
//! * [`together`]: what a client sends together is written together; [`locks`]: clients that wait for each other.
//! * [`security`]: passwords, certificates, and what roles may do; [`tls`]: a driver over TLS; [`bent`]: bytes that are none of the protocol's.
//! * [`kill`] and [`power_cut`]: nothing that was acknowledged is lost, nothing is doubled, nothing moves. What is written and
//!   what must hold is in [`ledger`].
//!
//! [`server`] and [`local`] are how tests get at a server, and at a database in their own process.
//!
//! One crate, because each costs a link of the whole tree.

#![allow(clippy::disallowed_methods, reason = "tests stand outside: they wait, and give up after a while")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bent;
mod compat;
mod copy;
mod crash;
mod damage;
mod examples;
mod full_disk;
mod kill;
mod ledger;
mod literature;
mod local;
mod locks;
mod oracle;
#[cfg(feature = "planted-bugs")]
mod planted;
mod power_cut;
mod process;
mod scripts;
mod security;
mod server;
mod sinks;
mod slt;
mod sources;
mod tls;
mod together;
mod transfers;

/// A line on the terminal, also when the test passes: a test that did not run must not look like one that did.
fn say(line: &str) {
    use std::io::Write;
    // The macros' output is captured by the test harness; this is not.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number from the environment, to run a test longer or with another seed.
fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}
