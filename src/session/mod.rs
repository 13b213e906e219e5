//! A session: one client's settings, transaction, prepared statements and cursors, and the execution of its statements.
//!
//! It knows nothing of the wire: the server asks it to prepare and execute, and turns what comes back into messages.

mod activity;
mod alter;
mod assign;
mod authorize;
mod change;
mod check;
mod client;
mod conflict;
mod copy;
mod cursor;
mod define;
mod definition;
mod derive;
mod explain;
mod follow;
mod function;
mod grant;
mod identity;
mod implicit;
mod index;
mod named;
mod names;
mod point;
mod read;
mod redefine;
mod rename;
mod replace;
mod returning;
mod role;
mod schema;
mod settings;
mod show;
mod sink;
mod styles;
mod system;
mod transaction;
mod views;
mod with;
mod write;

pub(crate) use activity::Sessions;
pub use client::Client;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use futures::Stream;

use crate::auth::scram::Login;
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::sql::ast::Parsed;
use crate::sql::batch::stop::Stop;
use crate::sql::types;

pub use point::Known;

/// Batches of one schema, as they come. Ends, unless `live`.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
    /// Word of the command tag: SELECT, FETCH, SHOW, INSERT 0 (with RETURNING), …; the server appends the count.
    pub tag: &'static str,
    /// Runs until it is cancelled: whatever is there must be sent to the client whenever the stream has nothing ready.
    pub live: bool,
}

/// What a statement answers.
pub enum Outcome {
    Rows(Rows),
    /// A complete command tag: `INSERT 0 3`, `CREATE TABLE`.
    Done(String),
    CopyIn(CopyIn),
    CopyOut(CopyOut),
}

/// A COPY TO STDOUT.
pub struct CopyOut {
    pub columns: usize,
    pub binary: bool,
    pub chunks: Pin<Box<dyn Stream<Item = Result<CopyChunk>> + Send>>,
    /// As of [`Rows::live`].
    pub live: bool,
}

/// Rows of a COPY TO STDOUT in the format asked for.
pub struct CopyChunk {
    pub data: bytes::Bytes,
    /// Where each message ends in `data`, ascending, the last at its end. Clients take a message for a row, so each row is one;
    /// a header line is one, too.
    pub ends: Vec<usize>,
    /// What the chunk adds to the count of the command tag: headers don't count.
    pub rows: u64,
}

/// A COPY FROM STDIN that waits for its data. Dropping it aborts it and keeps nothing.
pub struct CopyIn {
    pub columns: usize,
    pub binary: bool,
    pub sink: Box<dyn CopySink>,
}

/// Takes the bytes of a COPY as they arrive, cut anywhere.
#[async_trait::async_trait]
pub trait CopySink: Send {
    /// Waits when decoding or the log can't keep up: this is the back-pressure on the client.
    async fn push(&mut self, data: bytes::Bytes) -> Result<()>;
    /// All data has come: commit. Returns the command tag, `COPY 3`.
    async fn finish(self: Box<Self>) -> Result<String>;
}

/// A statement whose parameters and columns are known.
#[derive(Clone)]
pub struct Prepared {
    pub parsed: Arc<Parsed>,
    /// $1, $2, …
    pub parameters: Vec<Parameter>,
    /// Columns of its rows; `None` if it returns none. Their metadata says what clients are told of them:
    /// [`crate::sql::plan::columns`].
    pub schema: Option<SchemaRef>,
    /// What its plan was found to be.
    pub known: Known,
}

/// What a statement needs of its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub data_type: DataType,
    /// As a client is told: `uuid` and `text` are one to Arrow.
    pub sql_type: String,
}

impl Parameter {
    /// Without a name of its own, the type is called what Arrow's is.
    pub fn new(data_type: DataType, sql_type: Option<String>) -> Parameter {
        let sql_type = sql_type.unwrap_or_else(|| types::sql_type(&data_type));
        Parameter { data_type, sql_type }
    }

    /// What the planner knows; values come without modifiers.
    pub fn of(field: &Field) -> Parameter {
        Parameter { data_type: field.data_type().clone(), sql_type: types::without_modifier(&types::field_type(field)) }
    }

    /// As the planner knows it.
    pub fn field(&self) -> FieldRef {
        types::field(&self.data_type, &self.sql_type)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    Active,
    Failed,
}

/// Values of a statement's parameters.
pub type Parameters = Vec<ScalarValue>;

/// The same, with what each was prepared as.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    pub values: Parameters,
    /// For the planner: all are known.
    pub types: Vec<Option<FieldRef>>,
}

impl Bound {
    fn new(parameters: &[Parameter], values: Parameters) -> Bound {
        Bound { values, types: parameters.iter().map(|parameter| Some(parameter.field())).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// What the server needs of the house: someone to speak with.
pub trait Backend: Send + Sync + 'static {
    /// Opens a session for a client. `settings` are the other parameters of its start-up message, names as it wrote them
    /// (`application_name`, `TimeZone`, …), and those of its `options` (`-c name=value`).
    fn connect(&self, user: &str, database: &str, settings: &[(String, String)]) -> Result<Box<dyn ClientSession>>;

    /// What a client that says it is `user` has to prove. There is an answer for users who are not there, too.
    fn login(&self, user: &str) -> Login;

    /// May the user log in when only a few more sessions fit?
    fn is_superuser(&self, user: &str) -> bool;

    /// Is there anybody who can log in with a password?
    fn has_passwords(&self) -> bool;
}

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// `None`: inside of this process.
    pub address: Option<std::net::IpAddr>,
    pub port: Option<u16>,
    pub is_encrypted: bool,
}

/// What other sessions may do to one, and what its running statement asks: whether it is to stop.
pub trait Handle: Stop {
    /// Ends the statement that runs.
    fn cancel(&self);
    /// Ends the session.
    fn terminate(&self);
}

/// One client's session, as the server drives it: one call at a time. It is dropped when the client has gone, which rolls back
/// an open transaction.
///
/// All calls come from the runtime for queries, never from the one for the network, so they may compute for long. The server
/// drops a future of `prepare` or `execute` and the streams they gave when the client cancels the statement or disconnects: a
/// statement must be whole or without effect wherever it is dropped at an await.
///
/// Positions in errors count characters of the whole string that the client sent.
/// The server itself refuses statements other than COMMIT, ROLLBACK and ROLLBACK TO while the status is `Failed`.
#[async_trait::async_trait]
pub trait ClientSession: Send {
    /// Splits and parses a string of statements; positions in its errors count from the start of `sql`.
    fn parse(&self, sql: &str) -> Result<Vec<Parsed>>;

    /// Plans far enough to know parameters and columns. `types` are those that the client declared for $1, $2, …; `None` and
    /// those beyond its end are inferred.
    async fn prepare(&mut self, parsed: Arc<Parsed>, types: &[Option<FieldRef>]) -> Result<Prepared>;

    /// Runs a statement; `parameters` have exactly the types of [`Prepared::parameters`]. Rows and copies may be read while
    /// other statements of the session run (portals).
    async fn execute(&mut self, prepared: &Prepared, parameters: Parameters) -> Result<Outcome>;

    /// A statement is about to be executed outside of a block; `more`: others may follow it in its Query message, or before the
    /// next Sync, and what they write is to be written together.
    async fn enter_implicit_block(&mut self, _parsed: &Parsed, _more: bool) -> Result<()> {
        Ok(())
    }

    /// All that belongs together has run, or failed: what was written is committed or thrown away.
    async fn leave_implicit_block(&mut self) -> Result<()> {
        Ok(())
    }

    /// Of the block that the client has begun.
    fn transaction_status(&self) -> TransactionStatus;

    /// A statement failed: the transaction block, if there is one, takes nothing but its end from now on.
    fn fail_transaction(&mut self);

    /// Settings that a client is told of (`client_encoding`, `DateStyle`, `TimeZone`, `application_name`, …) and that changed
    /// since the last call; the first call returns those that differ from the server's defaults.
    fn parameter_status(&mut self) -> Vec<(String, String)>;

    /// Notices and warnings since the last call.
    fn notices(&mut self) -> Vec<Error>;

    /// The columns of a cursor: to clients it is a portal.
    fn cursor_schema(&self, _name: &str) -> Option<SchemaRef> {
        None
    }

    /// A statement was prepared by a message, under this name; `None`: it is closed.
    fn name_statement(&mut self, _name: &str, _prepared: Option<&Prepared>) {}

    /// A portal was bound by a message, under this name, and gives rows in binary or not; `None`: it is closed.
    fn name_portal(&mut self, _name: &str, _portal: Option<(&Prepared, bool)>) {}

    /// Its number, by which others cancel its statements and find it in `pg_stat_activity`.
    fn number(&self) -> i32;

    /// Who the client is to others, and how they reach it; told once, before the first statement.
    fn attach(&mut self, _peer: Peer, _handle: Arc<dyn Handle>) {}

    /// All that was asked of it is answered: the session waits for its client.
    fn rest(&mut self) {}

    /// How long a statement may take, if that is bounded.
    fn statement_timeout(&self) -> Option<Duration> {
        None
    }

    /// How long the client may leave the session as it is now, and what it is told when it did.
    fn idle_timeout(&self) -> Option<(Duration, Error)> {
        None
    }

    /// How values are read from text, and by which clocks they are shown.
    fn formats(&self) -> Formats {
        Formats::default()
    }
}
