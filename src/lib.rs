//! Tidegate is a SQL server for streams: a durable, partitioned log, continuous SQL over it, and every result served as a
//! table over the Postgres wire.
//!
//! This file is the guided tour. The modules stand in reading order, from the words everything is said in, at the bottom of
//! the house, to the wire at the top. Imports point up this page, to what has been read already, and never down it.
//!
//! ```text
//!  client / connector                                                  readers, subscribers
//!       │ rows                                                                  ▲
//!       ▼                                                                       │ snapshot @commit
//!  server ──► ingest ──────────► log: group commit ──► engine: step ──► view: publish
//!  (wire)     type, partition    sled, fsync, ack      flow operators   Arc swap
//!                                    │                     │
//!                                    └─ tail kept as Arrow ┘  checkpoint ──► state store
//! ```

// The words: errors, bounds, time, changes, passwords, what relations and roles there are, and locks that clients agree on.
pub mod error;
pub mod limits;
pub mod time;
pub mod decimal;
pub mod delta;
pub mod auth;
pub mod catalog;
pub mod locks;

// For tests that must fail.
pub mod planted;

// Truth and its caches on disk.
pub mod log;
pub mod state;

// The engine: what readers see (view), how it is computed (flow), and the loop that drives both.
pub mod view;
pub mod flow;
pub mod engine;

// SQL: from text to plans, in batch and continuous form.
pub mod sql;

// Rows on their way in and out: from and to a client's bytes, into the log, and from sources that write by themselves.
pub mod copy;
pub mod ingest;
pub mod connect;

// One client at a time, all of them together, and the face to the world.
pub mod session;
pub mod database;
pub mod server;

// A data directory seen from outside.
pub mod inspect;
