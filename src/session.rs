//! A session: one client's settings, transaction, prepared statements and cursors, and the execution of its statements.
//!
//! It knows nothing of the wire: the server asks it to prepare and execute, and turns what comes back into messages.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use futures::Stream;

use crate::error::Result;
use crate::sql::ast::Parsed;

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
    /// Already encoded in the format asked for; one message a chunk.
    CopyOut { columns: usize, binary: bool, chunks: Pin<Box<dyn Stream<Item = Result<bytes::Bytes>> + Send>>, live: bool },
    Empty,
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
    pub parsed: Option<Arc<Parsed>>,
    /// Types of $1, $2, …
    pub parameters: Vec<DataType>,
    /// Columns of its rows; `None` if it returns none.
    pub schema: Option<SchemaRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    Active,
    Failed,
}

/// Values of a statement's parameters.
pub type Parameters = Vec<ScalarValue>;
