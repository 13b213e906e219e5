//! Cursors: DECLARE, FETCH, MOVE, CLOSE. Forward only; a cursor over a running query waits for its rows.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};

use super::client::done;
use super::{Bound, Client, Outcome, Rows};
use crate::error::{Error, Result};
use crate::sql::ast::{FetchCount, Parsed, Statement};
use crate::sql::parse::backward;

pub(super) struct Cursor {
    rows: Rows,
    /// Read and not fetched yet.
    ready: VecDeque<RecordBatch>,
    /// How many were fetched, or passed over.
    position: u64,
    hold: bool,
    /// Its transaction block has not ended.
    in_block: bool,
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
            self.position += rows as u64;
            taken.push(batch.slice(0, rows));
        }
        Ok(taken)
    }

    /// Go to before the rows that are asked for; says how many these are.
    async fn go(&mut self, count: FetchCount, timeout: Option<Duration>) -> Result<u64> {
        let passed = match count {
            FetchCount::Rows(count) => return Ok(count),
            FetchCount::All => return Ok(u64::MAX),
            FetchCount::Absolute(0) | FetchCount::Relative(0) if self.position == 0 => return Ok(0),
            FetchCount::Absolute(row) => row.checked_sub(self.position + 1),
            FetchCount::Relative(rows) => rows.checked_sub(1),
        };
        self.take(passed.ok_or_else(backward)?, timeout).await?;
        Ok(1)
    }

    /// All rows that are left of a query that ends.
    fn rest(&mut self) -> Rows {
        self.position = u64::MAX - 1;
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
        parameters: Bound,
    ) -> Result<Outcome> {
        if self.transaction.is_none() && !hold {
            return Err(Error::no_active_transaction("DECLARE CURSOR can only be used in transaction blocks")
                .with_hint("BEGIN first, or declare the cursor WITH HOLD"));
        }
        if self.cursors.contains_key(name) {
            return Err(Error::duplicate_cursor(format!("cursor \"{name}\" already exists")));
        }
        if let Statement::With { .. } = query {
            return Err(Error::unsupported("DECLARE CURSOR must not contain data-modifying statements in WITH")
                .with_hint("run the statement by itself: its rows are there when it has ended"));
        }
        let inner = Parsed { statement: query.clone(), sql: sql.to_string(), offset: 0, notices: Vec::new() };
        let prepared = super::ClientSession::prepare(self, std::sync::Arc::new(inner), &parameters.types).await?;
        match Box::pin(super::ClientSession::execute(self, &prepared, parameters.values)).await? {
            Outcome::Rows(rows) => {
                let in_block = self.transaction.is_some();
                self.cursors.insert(name.to_string(), Cursor { rows, ready: VecDeque::new(), position: 0, hold, in_block });
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
            FetchCount::All if cursor.rows.live && timeout_ms.is_none() => {
                return Err(Error::unsupported("FETCH ALL from a running query would never end")
                    .with_hint("FETCH a number of rows, or give a timeout"));
            }
            // They go to the client as they come, however many they are.
            FetchCount::All if !cursor.rows.live => return Ok(Outcome::Rows(cursor.rest())),
            count => {
                let timeout = timeout_ms.map(Duration::from_millis);
                let count = cursor.go(count, timeout).await?;
                cursor.take(count, timeout).await?
            }
        };
        let batches = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
        Ok(Outcome::Rows(Rows { schema, batches, tag: "FETCH", live: false }))
    }

    pub(super) async fn move_cursor(&mut self, name: &str, count: FetchCount) -> Result<Outcome> {
        let cursor = self.cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        if matches!(count, FetchCount::All) && cursor.rows.live {
            return Err(Error::unsupported("MOVE ALL over a running query would never end"));
        }
        let count = cursor.go(count, None).await?;
        let moved: usize = cursor.take(count, None).await?.iter().map(RecordBatch::num_rows).sum();
        done(&format!("MOVE {moved}"))
    }

    pub(super) fn close_cursor(&mut self, name: Option<String>) -> Result<Outcome> {
        let Some(name) = name else {
            self.cursors.clear();
            self.unlist_closed_cursors();
            return done("CLOSE CURSOR ALL");
        };
        self.cursors.remove(&name).ok_or_else(|| no_cursor(&name))?;
        self.unlist_cursor(&name);
        done("CLOSE CURSOR")
    }

    /// The block has ended. Those that are to outlive it do so if it was committed.
    pub(super) fn close_cursors_of_block(&mut self, committed: bool) {
        self.cursors.retain(|_, cursor| !cursor.in_block || (cursor.hold && committed));
        self.cursors.values_mut().for_each(|cursor| cursor.in_block = false);
        self.unlist_closed_cursors();
    }
}

fn no_cursor(name: &str) -> Error {
    Error::invalid_cursor_name(format!("cursor \"{name}\" does not exist"))
}
