//! What goes to the client: gathered in a buffer, sent when it is full or must be seen.

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::Error;
use crate::limits;

/// How an answer can fail.
#[derive(Debug)]
pub enum Fault {
    /// The statement failed: the client is told, and goes on.
    Statement(Error),
    /// The client is told, and the connection closed.
    Fatal(Error),
    /// There is nobody to be told.
    Gone,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Statement(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Fault {
        Fault::Gone
    }
}

pub struct Output<W> {
    writer: W,
    buffer: Vec<u8>,
    /// What of the buffer has been sent.
    sent: usize,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub fn new(writer: W) -> Output<W> {
        Output { writer, buffer: Vec::new(), sent: 0 }
    }

    /// Where whole messages are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.sent >= limits::SEND_BYTES
    }

    /// Sends everything. May be dropped while it waits: what was not sent is sent next time, so that the client never sees half
    /// a message followed by another.
    pub async fn flush(&mut self) -> std::io::Result<()> {
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest).await? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                written => self.sent += written,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        self.writer.flush().await
    }

    /// An idle client costs little: the room of large answers is given back.
    pub fn rest(&mut self) {
        if self.buffer.capacity() > limits::SEND_BYTES / 8 {
            self.buffer.shrink_to(self.buffer.len());
        }
    }

    pub async fn close(&mut self) {
        // The client may have closed its side already.
        let _ = self.writer.shutdown().await;
    }
}
