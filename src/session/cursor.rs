//! Cursors: DECLARE, FETCH, MOVE, CLOSE. Forward only; a cursor over a running query waits for its rows.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};

use super::client::done;
use super::{Client, Outcome, Parameters, Rows};
use crate::error::{Error, Result};
use crate::sql::ast::{FetchCount, Parsed, Statement};

pub(super) struct Cursor {
    rows: Rows,
    /// Read and not fetched yet.
    ready: VecDeque<RecordBatch>,
    /// It ends with its transaction block.
    of_block: bool,
}

impl Cursor {
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.rows.schema)
    }

    /// The next rows, at most `count`. Of a running query: as soon as there are so many, or time is up.
    async fn take(&mut self, count: u64, timeout: Option<Duration>) -> Result<Vec<RecordBatch>> {
        let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let (mut taken, mut left) = (Vec::new(), count);
        while left > 0 {
            let batch = match self.ready.pop_front() {
                Some(batch) => batch,
                None => match self.next(deadline).await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let rows = left.min(batch.num_rows() as u64) as usize;
            if rows < batch.num_rows() {
                self.ready.push_front(batch.slice(rows, batch.num_rows() - rows));
            }
            left -= rows as u64;
            taken.push(batch.slice(0, rows));
        }
        Ok(taken)
    }

    /// All rows that are left of a query that ends.
    fn rest(&mut self) -> Rows {
        let ended = futures::stream::empty().boxed();
        let later = std::mem::replace(&mut self.rows.batches, ended);
        let ready = futures::stream::iter(std::mem::take(&mut self.ready).into_iter().map(Ok));
        Rows { schema: self.schema(), batches: ready.chain(later).boxed(), tag: "FETCH", live: false }
    }

    async fn next(&mut self, deadline: Option<tokio::time::Instant>) -> Result<Option<RecordBatch>> {
        let next = self.rows.batches.try_next();
        match deadline {
            None => next.await,
            Some(deadline) => tokio::time::timeout_at(deadline, next).await.unwrap_or(Ok(None)),
        }
    }
}

impl Client {
    pub(super) fn cursor(&self, name: &str) -> Result<&Cursor> {
        self.cursors.get(name).ok_or_else(|| no_cursor(name))
    }

    pub(super) async fn declare(
        &mut self,
        name: &str,
        query: &Statement,
        sql: &str,
        hold: bool,
        parameters: Parameters,
    ) -> Result<Outcome> {
        if self.transaction.is_none() && !hold {
            return Err(Error::no_active_transaction("DECLARE CURSOR can only be used in transaction blocks")
                .with_hint("BEGIN first, or declare the cursor WITH HOLD"));
        }
        if self.cursors.contains_key(name) {
            return Err(Error::duplicate_cursor(format!("cursor \"{name}\" already exists")));
        }
        let inner = Parsed { statement: query.clone(), sql: sql.to_string(), offset: 0 };
        let types: Vec<_> = parameters.iter().map(|value| Some(value.data_type())).collect();
        let prepared = super::ClientSession::prepare(self, std::sync::Arc::new(inner), &types).await?;
        match Box::pin(super::ClientSession::execute(self, &prepared, parameters)).await? {
            Outcome::Rows(rows) => {
                self.cursors.insert(name.to_string(), Cursor { rows, ready: VecDeque::new(), of_block: !hold });
                self.list_cursor(name, sql, hold, false);
                done("DECLARE CURSOR")
            }
            _ => Err(Error::syntax("a cursor is declared for a query")),
        }
    }

    pub(super) async fn fetch(&mut self, name: &str, count: FetchCount, timeout_ms: Option<u64>) -> Result<Outcome> {
        let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        let schema = cursor.schema();
        let batches = match count {
            FetchCount::Rows(count) => cursor.take(count, timeout_ms.map(Duration::from_millis)).await?,
            FetchCount::All if cursor.rows.live && timeout_ms.is_none() => {
                return Err(Error::unsupported("FETCH ALL from a running query would never end")
                    .with_hint("FETCH a number of rows, or give a timeout"));
            }
            // They go to the client as they come, however many they are.
            FetchCount::All if !cursor.rows.live => return Ok(Outcome::Rows(cursor.rest())),
            FetchCount::All => cursor.take(u64::MAX, timeout_ms.map(Duration::from_millis)).await?,
        };
        let batches = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
        Ok(Outcome::Rows(Rows { schema, batches, tag: "FETCH", live: false }))
    }

    pub(super) async fn move_cursor(&mut self, name: &str, count: FetchCount) -> Result<Outcome> {
        let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        let count = if let FetchCount::Rows(count) = count { count } else { u64::MAX };
        if count == u64::MAX && cursor.rows.live {
            return Err(Error::unsupported("MOVE ALL over a running query would never end"));
        }
        let moved: usize = cursor.take(count, None).await?.iter().map(RecordBatch::num_rows).sum();
        done(&format!("MOVE {moved}"))
    }

    pub(super) fn close_cursor(&mut self, name: Option<String>) -> Result<Outcome> {
        match name {
            None => self.cursors.clear(),
            Some(name) => {
                self.cursors.remove(&name).ok_or_else(|| no_cursor(&name))?;
                self.unlist_cursor(&name);
                return done("CLOSE CURSOR");
            }
        }
        self.unlist_closed_cursors();
        done("CLOSE CURSOR")
    }

    /// The block has ended.
    pub(super) fn close_cursors_of_block(&mut self) {
        self.cursors.retain(|_, cursor| !cursor.of_block);
        self.unlist_closed_cursors();
    }
}

fn no_cursor(name: &str) -> Error {
    Error::invalid_cursor_name(format!("cursor \"{name}\" does not exist"))
}
