//! What clients send: messages cut out of the stream of bytes, and their fields.
//!
//! Nothing here trusts a length or a count: memory grows only by bytes that have arrived, every read is checked, and text must
//! be UTF-8. A frame that can't be cut ends the connection, since nothing after it can be understood; a field that can't be read
//! fails only its message.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::Receiver;

use crate::error::{Error, Result};
use crate::limits;

/// A message of a client whose session has begun.
#[derive(Debug, PartialEq)]
pub enum Message {
    Query(String),
    Parse { name: String, sql: String, types: Vec<u32> },
    Bind(Bind),
    Describe(Target),
    Close(Target),
    Execute { portal: String, max_rows: usize },
    Flush,
    Sync,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    FunctionCall,
    Terminate,
}

#[derive(Debug, PartialEq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<Format>,
    /// `None` is NULL.
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<Format>,
}

/// What Describe and Close speak of.
#[derive(Debug, PartialEq)]
pub enum Target {
    Statement(String),
    Portal(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// A message that was cut out, not read yet.
#[derive(Debug)]
pub struct Frame {
    pub tag: u8,
    body: Bytes,
}

/// The client's bytes, as the task that reads the socket hands them over.
pub struct Input {
    chunks: Receiver<BytesMut>,
    buffer: BytesMut,
}

impl Input {
    pub fn new(chunks: Receiver<BytesMut>) -> Input {
        Input { chunks, buffer: BytesMut::new() }
    }

    /// The next message; `None` when the client has gone. May be dropped while it waits: nothing is lost.
    pub async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            match self.chunks.recv().await {
                // What has not been used is kept in place, so a chunk that holds whole messages is never copied.
                Some(chunk) if self.buffer.is_empty() => self.buffer = chunk,
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// Whether the next message is a Sync. Clients send it right behind an Execute that stands alone, so it is here or about to be;
    /// where neither it nor anything else comes, the answer is no.
    pub async fn syncs_next(&mut self) -> bool {
        if self.buffer.is_empty()
            && let Ok(Some(chunk)) = tokio::time::timeout(limits::SYNC_DELAY, self.chunks.recv()).await
        {
            self.buffer = chunk;
        }
        self.buffer.first() == Some(&b'S')
    }

    /// The next message, if all of it has been handed over already.
    pub fn buffered(&mut self) -> Result<Option<Frame>> {
        let Some((&tag, rest)) = self.buffer.split_first() else {
            self.buffer = BytesMut::new();
            return Ok(None);
        };
        if !b"QPBDCEHSdcfFXp".contains(&tag) {
            return Err(Error::protocol_violation(format!("invalid frontend message type {tag}")));
        }
        let Some(length) = rest.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else { return Ok(None) };
        let length = usize::try_from(length).unwrap_or(0);
        if length < 4 {
            return Err(Error::protocol_violation(format!("invalid length of a message of type \"{}\"", tag as char)));
        }
        if length > limits::MESSAGE_BYTES {
            let message = format!("a message of {length} bytes is longer than the limit of {} bytes", limits::MESSAGE_BYTES);
            return Err(Error::limit_exceeded(message).with_hint("send the rows in several statements, or with COPY"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.buffer.split_to(1 + length).freeze().slice(5..);
        Ok(Some(Frame { tag, body }))
    }
}

impl Frame {
    /// Whether an error in this message makes the server skip to the next Sync.
    pub fn is_extended(&self) -> bool {
        b"PBDCEH".contains(&self.tag)
    }

    pub fn read(self) -> Result<Message> {
        let mut fields = Fields(self.body);
        let message = match self.tag {
            b'Q' => Message::Query(fields.string()?),
            b'P' => Message::Parse {
                name: fields.string()?,
                sql: fields.string()?,
                types: fields.list(|f| f.array().map(u32::from_be_bytes))?,
            },
            b'B' => Message::Bind(Bind {
                portal: fields.string()?,
                statement: fields.string()?,
                parameter_formats: fields.list(Fields::format)?,
                parameters: fields.list(Fields::value)?,
                result_formats: fields.list(Fields::format)?,
            }),
            b'D' => Message::Describe(fields.target()?),
            b'C' => Message::Close(fields.target()?),
            // Negative means no limit, as zero does.
            b'E' => Message::Execute { portal: fields.string()?, max_rows: fields.i32()?.max(0) as usize },
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'd' => return Ok(Message::CopyData(fields.0)),
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail(fields.string()?),
            b'F' => return Ok(Message::FunctionCall),
            b'X' => Message::Terminate,
            other => return Err(Error::protocol_violation(format!("unexpected message of type \"{}\"", other as char))),
        };
        match fields.0.is_empty() {
            true => Ok(message),
            false => Err(Error::protocol_violation("invalid message format: bytes are left over")),
        }
    }
}

/// The fields of a message, read from its front.
pub struct Fields(pub Bytes);

impl Fields {
    fn short() -> Error {
        Error::protocol_violation("insufficient data left in message")
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.0.len() { Err(Fields::short()) } else { Ok(self.0.split_to(length)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = *self.0.first_chunk::<N>().ok_or_else(Fields::short)?;
        self.take(N)?;
        Ok(array)
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn string(&mut self) -> Result<String> {
        let end = memchr::memchr(0, &self.0).ok_or_else(|| Error::protocol_violation("invalid string in message"))?;
        let bytes = self.take(end + 1)?;
        utf8(&bytes[..end]).map(str::to_string)
    }

    /// A count in two bytes, and as many items. Every item takes at least two bytes, so no count can ask for more memory than
    /// the message has taken already.
    fn list<T>(&mut self, item: impl Fn(&mut Fields) -> Result<T>) -> Result<Vec<T>> {
        let count = u16::from_be_bytes(self.array()?) as usize;
        if count * 2 > self.0.len() {
            return Err(Fields::short());
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn format(&mut self) -> Result<Format> {
        match u16::from_be_bytes(self.array()?) {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            other => Err(Error::invalid_parameter(format!("unsupported format code: {other}"))),
        }
    }

    /// Bytes with their length before them; -1 is NULL.
    pub fn value(&mut self) -> Result<Option<Bytes>> {
        match self.i32()? {
            -1 => Ok(None),
            length => usize::try_from(length).map_err(|_| Fields::short()).and_then(|length| self.take(length)).map(Some),
        }
    }

    fn target(&mut self) -> Result<Target> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement(self.string()?)),
            [b'P'] => Ok(Target::Portal(self.string()?)),
            [other] => Err(Error::protocol_violation(format!("invalid kind of object to describe or close: {other}"))),
        }
    }
}

/// Text, in which no zero byte may be.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    let invalid = |byte: u8| Error::invalid_encoding(format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}"));
    match std::str::from_utf8(bytes) {
        Ok(_) if bytes.contains(&0) => Err(invalid(0)),
        Ok(text) => Ok(text),
        Err(error) => Err(invalid(bytes.get(error.valid_up_to()).copied().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        let (_, chunks) = tokio::sync::mpsc::channel(1);
        Input { chunks, buffer: BytesMut::from(bytes) }
    }

    fn read(bytes: &[u8]) -> Result<Message> {
        input(bytes).buffered()?.expect("the frame is whole").read()
    }

    #[rstest::rstest]
    #[case::query(b"Q\0\0\0\x0dSELECT 1\0", Message::Query("SELECT 1".into()))]
    #[case::parse(b"P\0\0\0\x0fs\0q\0\0\x01\0\0\0\x17\0", Message::Query(String::new()))]
    #[case::execute(b"E\0\0\0\x0ap\0\xff\xff\xff\xff", Message::Execute { portal: "p".into(), max_rows: 0 })]
    #[case::sync(b"S\0\0\0\x04", Message::Sync)]
    fn well_formed(#[case] bytes: &[u8], #[case] expected: Message) {
        match read(bytes) {
            Ok(message) => assert_eq!(message, expected),
            // A byte is left over in the case of Parse.
            Err(error) => assert_eq!(error.state().code(), "08P01"),
        }
    }

    #[rstest::rstest]
    #[case::unknown_type(b"\x07\0\0\0\x04", "08P01")]
    #[case::length_below_its_own_size(b"Q\0\0\0\x03", "08P01")]
    #[case::negative_length(b"Q\xff\xff\xff\xff", "08P01")]
    #[case::huge_length(b"Q\x7f\xff\xff\xff", "54000")]
    #[case::string_without_end(b"Q\0\0\0\x06ab", "08P01")]
    #[case::not_utf8(b"Q\0\0\0\x06\xff\0", "22021")]
    #[case::more_parameters_than_bytes(b"B\0\0\0\x0a\0\0\0\0\xff\xff", "08P01")]
    #[case::value_longer_than_message(b"B\0\0\0\x10\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0", "08P01")]
    #[case::negative_value_length(b"B\0\0\0\x10\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", "08P01")]
    #[case::unknown_format(b"B\0\0\0\x0a\0\0\0\x01\0\x02", "22023")]
    #[case::unknown_target(b"D\0\0\0\x06x\0", "08P01")]
    fn refused(#[case] bytes: &[u8], #[case] state: &str) {
        assert_eq!(read(bytes).expect_err("it is malformed").state().code(), state);
    }

    #[test]
    fn an_incomplete_frame_waits() {
        for end in 0..12 {
            assert!(input(&b"Q\0\0\0\x0dSELECT 1\0"[..end]).buffered().expect("nothing is wrong yet").is_none());
        }
    }
}
