//! What a running statement sends and takes: rows, COPY data, and its end.

use std::pin::Pin;

use arrow::datatypes::{DataType, Schema};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::AsyncWrite;

use super::cancel::SHUTTING_DOWN;
use super::conversation::{Conversation, Progress};
use super::frontend::{Format, Frame, Message};
use super::output::Fault;
use super::types::{postgres_type, wire_type};
use super::{backend, encode};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::{CopyIn, CopyOut, Outcome, Parameters, Prepared, Rows};
use crate::time::zone::Zone;

/// Rows on their way to the client.
pub(super) struct Cursor {
    rows: Rows,
    formats: Vec<Format>,
    zone: Zone,
    /// The batch at hand, and its next row.
    batch: Option<(encode::Rows, usize)>,
    /// Rows sent since the client asked last.
    sent: usize,
}

impl Cursor {
    /// The command tag; some have no count.
    pub fn tag(&self) -> String {
        match self.rows.tag {
            "SHOW" | "EXPLAIN" => self.rows.tag.to_string(),
            word => format!("{word} {}", self.sent),
        }
    }

    pub fn word(&self) -> &'static str {
        self.rows.tag
    }
}

impl<W: AsyncWrite + Unpin + Send> Conversation<W> {
    /// Executes a statement: all of it, unless it gives rows. They are described if `describe` says so, and left to the caller.
    pub(super) async fn start(
        &mut self,
        prepared: &Prepared,
        parameters: Parameters,
        formats: Vec<Format>,
        describe: bool,
    ) -> Result<Progress, Fault> {
        if self.deallocate(&prepared.parsed.statement) {
            backend::command_complete(self.output.buffer(), "DEALLOCATE");
            return Ok(Progress::Finished(None));
        }
        if let Some(tag) = self.of_portal(&prepared.parsed.statement).await? {
            backend::command_complete(self.output.buffer(), &tag);
            return Ok(Progress::Finished(None));
        }
        let outcome = self.interrupt.unless(self.session.execute(prepared, parameters)).await??;
        self.notices();
        let tag = match outcome {
            Outcome::Rows(rows) => {
                match describe {
                    true => self.describe_rows(&rows.schema, &formats),
                    false => check_schema(prepared, &rows.schema)?,
                }
                let zone = self.session.formats().zone;
                return Ok(Progress::Suspended(Cursor { rows, formats, zone, batch: None, sent: 0 }));
            }
            Outcome::Done(tag) => tag,
            Outcome::CopyIn(copy) => self.copy_in(copy).await?,
            Outcome::CopyOut(copy) => self.copy_out(copy).await?,
        };
        self.notices();
        backend::command_complete(self.output.buffer(), &tag);
        Ok(Progress::Finished(None))
    }

    /// Sends rows, at most `max`; true if there are no more.
    pub(super) async fn rows(&mut self, cursor: &mut Cursor, max: usize) -> Result<bool, Fault> {
        cursor.sent = 0;
        loop {
            while let Some((batch, next)) = &mut cursor.batch
                && *next < batch.len()
            {
                if cursor.sent == max {
                    return Ok(false);
                }
                batch.write(*next, self.output.buffer())?;
                *next += 1;
                cursor.sent += 1;
                if self.output.is_full() {
                    self.send().await?;
                }
            }
            cursor.batch = None;
            // Whether there is another row is not asked before the client does: it might not be known for long.
            if cursor.sent == max {
                return Ok(false);
            }
            if !self.read(cursor).await? {
                return Ok(true);
            }
        }
    }

    /// Passes over rows, at most `count`; says how many there were.
    pub(super) async fn skip(&mut self, cursor: &mut Cursor, count: u64) -> Result<u64, Fault> {
        let mut left = count;
        loop {
            if let Some((batch, next)) = &mut cursor.batch {
                let skipped = left.min((batch.len() - *next) as u64);
                *next += skipped as usize;
                left -= skipped;
            }
            if left == 0 || !self.read(cursor).await? {
                return Ok(count - left);
            }
        }
    }

    /// The next batch; false if there is none.
    async fn read(&mut self, cursor: &mut Cursor) -> Result<bool, Fault> {
        let Some(batch) = self.next_of(&mut cursor.rows.batches, cursor.rows.live).await? else { return Ok(false) };
        let batch = batch?;
        check_batch(&cursor.rows.schema, &batch.schema())?;
        let form = |index: usize| encode::Form {
            oid: wire_type(cursor.rows.schema.field(index)).oid,
            format: cursor.formats.get(index).copied().unwrap_or(Format::Text),
        };
        cursor.batch = Some((encode::Rows::new(&batch, form, cursor.zone)?, 0));
        Ok(true)
    }

    /// The next item of a running statement. What the client has not seen yet of a live one is sent before waiting.
    async fn next_of<T>(&mut self, stream: &mut Pin<Box<dyn Stream<Item = T> + Send>>, live: bool) -> Result<Option<T>, Fault> {
        if live {
            if let Some(item) = stream.next().now_or_never() {
                // Without this, a stream that always has something could not be cancelled.
                self.interrupt.unless(tokio::task::yield_now()).await?;
                return Ok(item);
            }
            self.send().await?;
            // It would not end by itself: the server's end does not wait for it.
            let next = tokio::select! {
                next = self.interrupt.unless(stream.next()) => next,
                () = self.stopping.cancelled() => return Err(Fault::Fatal(Error::shutting_down(SHUTTING_DOWN))),
            };
            return Ok(next?);
        }
        Ok(self.interrupt.unless(stream.next()).await?)
    }

    async fn copy_out(&mut self, mut copy: CopyOut) -> Result<String, Fault> {
        backend::copy_out(self.output.buffer(), copy.columns, copy.binary);
        let mut rows = 0;
        while let Some(chunk) = self.next_of(&mut copy.chunks, copy.live).await? {
            let chunk = chunk?;
            let mut start = 0;
            for end in chunk.ends {
                let message = chunk.data.get(start..end);
                let message =
                    message.ok_or_else(|| Error::internal("the messages of a chunk of COPY are not within its data"))?;
                backend::copy_data(self.output.buffer(), message);
                start = end;
                if self.output.is_full() {
                    self.send().await?;
                }
            }
            rows += chunk.rows;
        }
        backend::copy_done(self.output.buffer());
        Ok(format!("COPY {rows}"))
    }

    /// Takes the client's data until it says that there is no more. Whatever ends this early drops the copy, which keeps
    /// nothing; data that comes after that is dropped by the conversation.
    async fn copy_in(&mut self, mut copy: CopyIn) -> Result<String, Fault> {
        backend::copy_in(self.output.buffer(), copy.columns, copy.binary);
        self.send().await?;
        // Some clients send a message a row; the sink gets them gathered.
        let mut gathered = BytesMut::new();
        loop {
            let frame = match self.input.buffered().map_err(Fault::Fatal)? {
                Some(frame) if gathered.len() < limits::READ_BYTES => frame,
                Some(frame) => {
                    self.push(&mut copy, gathered.split().freeze()).await?;
                    frame
                }
                None => {
                    self.push(&mut copy, gathered.split().freeze()).await?;
                    self.copy_frame().await?
                }
            };
            match frame.read()? {
                Message::CopyData(data) if gathered.is_empty() && data.len() >= limits::READ_BYTES / 4 => {
                    self.push(&mut copy, data).await?;
                }
                Message::CopyData(data) => gathered.extend_from_slice(&data),
                Message::CopyDone => {
                    self.push(&mut copy, gathered.freeze()).await?;
                    return Ok(self.interrupt.unless(copy.sink.finish()).await??);
                }
                Message::CopyFail(reason) => return Err(Error::canceled(format!("COPY from stdin failed: {reason}")).into()),
                // Clients that send Execute and Sync at once do so before they know that it is a COPY.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Fault::Gone),
                _ => return Err(Error::protocol_violation("unexpected message type during COPY from stdin").into()),
            }
        }
    }

    async fn push(&mut self, copy: &mut CopyIn, data: Bytes) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        Ok(self.interrupt.unless(copy.sink.push(data)).await??)
    }

    async fn copy_frame(&mut self) -> Result<Frame, Fault> {
        let frame = self.interrupt.unless(self.input.frame()).await?;
        frame.map_err(Fault::Fatal)?.ok_or(Fault::Gone)
    }
}

/// The client was told of columns when the statement was prepared, and reads by that.
fn check_schema(prepared: &Prepared, schema: &Schema) -> Result<()> {
    let Some(told) = &prepared.schema else { return Err(Error::internal("a statement gives rows that it did not describe")) };
    match same_types(told, schema) {
        true => Ok(()),
        false => Err(Error::unsupported("cached plan must not change result type").with_hint("prepare the statement again")),
    }
}

fn check_batch(told: &Schema, batch: &Schema) -> Result<()> {
    match same_types(told, batch) {
        true => Ok(()),
        false => Err(Error::internal("the rows are of other types than was said")),
    }
}

fn same_types(a: &Schema, b: &Schema) -> bool {
    let (a, b) = (a.fields(), b.fields());
    std::ptr::eq(a, b) || (a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_wire(a.data_type(), b.data_type())))
}

/// Types that a client cannot tell apart are the same.
fn same_wire(a: &DataType, b: &DataType) -> bool {
    a == b || postgres_type(a) == postgres_type(b)
}
