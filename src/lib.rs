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
//!  (pgwire)   type, partition    sled, fsync, ack      flow operators   Arc swap
//!                                    │                     │
//!                                    └─ tail kept as Arrow ┘  checkpoint ──► state store
//! ```

// The words: errors, bounds, time, changes, and what relations there are.
pub mod error;
pub mod limits;
pub mod time;
pub mod delta;
pub mod catalog;

// For tests that must fail.
pub mod planted;

// Truth and its caches on disk.
pub mod log;
pub mod state;

// What readers see.
pub mod view;

// How views are computed from changes.
pub mod flow;

// SQL: from text to plans, in batch and continuous form.
pub mod sql;

// Rows on their way in and out: from and to a client's bytes, and into the log.
pub mod copy;
pub mod ingest;

// Rows that no client sends.
pub mod connect;

// One client at a time.
pub mod session;

// The wire: many clients.
pub mod server;

// A data directory without a server.
pub mod inspect;
