//! A strict JSON reader over bytes that builds nothing: it says where values begin and end.

use memchr::memchr2;

use crate::error::{Error, Result};

/// Arrays and objects within each other, at most.
const DEPTH: usize = 128;

/// May a value stand so deep within others?
pub(super) fn check_depth(depth: usize) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::statement_too_complex(format!("JSON is nested deeper than {DEPTH} levels")));
    }
    Ok(())
}

pub(super) struct Parser<'a> {
    pub data: &'a [u8],
    pub at: usize,
}

/// The content of a string, between its quotes.
pub(super) struct Text {
    pub start: usize,
    pub end: usize,
    pub escaped: bool,
}

impl<'a> Parser<'a> {
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.error()) }
    }

    /// What stands here does not belong here.
    #[cold]
    pub fn error(&self) -> Error {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let end = rest.iter().skip(1).position(|b| !b.is_ascii_alphanumeric()).map_or(rest.len(), |at| at + 1);
        let detail = match String::from_utf8_lossy(&rest[..end.min(40)]) {
            token if token.is_empty() => "The input string ended unexpectedly.".to_string(),
            token => format!("Token \"{token}\" is invalid."),
        };
        Error::invalid_text("invalid input syntax for type json").with_detail(detail)
    }

    #[inline]
    pub fn string(&mut self) -> Result<Text> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let Some(found) = memchr2(b'"', b'\\', &self.data[self.at..]) else {
                self.at = self.data.len();
                return Err(self.error());
            };
            self.at += found;
            if self.data[self.at] == b'"' {
                self.at += 1;
                return Ok(Text { start, end: self.at - 1, escaped });
            }
            escaped = true;
            if self.at + 2 > self.data.len() {
                self.at = self.data.len();
                return Err(self.error());
            }
            self.at += 2;
        }
    }

    /// Over one value of any kind.
    pub fn skip_value(&mut self, depth: usize) -> Result<()> {
        check_depth(depth)?;
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                if text.escaped {
                    unescape(&self.data[text.start..text.end], &mut Vec::new())?;
                }
                Ok(())
            }
            Some(b'{') => self.elements(b'}', |parser| {
                parser.string()?;
                parser.space();
                parser.expect(b':')?;
                parser.space();
                parser.skip_value(depth + 1)
            }),
            Some(b'[') => self.elements(b']', |parser| parser.skip_value(depth + 1)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    /// From an opening bracket to behind the closing one, `element` by element.
    pub fn elements(&mut self, close: u8, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.at += 1;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            self.space();
            element(self)?;
            self.space();
            if !self.take(b',') {
                return self.expect(close);
            }
        }
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.error()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        match self.peek() {
            Some(b) if b.is_ascii_alphanumeric() || b == b'.' => Err(self.error()),
            _ => Ok(()),
        }
    }

    fn word(&mut self) -> Result<()> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if !matches!(&rest[..length], b"true" | b"false" | b"null") {
            return Err(self.error());
        }
        self.at += length;
        Ok(())
    }
}

/// Whether a text is one JSON value.
pub(crate) fn check(text: &[u8]) -> Result<()> {
    whole(text, |parser| parser.skip_value(0))
}

/// A text that is one value, which `read` reads.
pub(super) fn whole<'a, T>(text: &'a [u8], read: impl FnOnce(&mut Parser<'a>) -> Result<T>) -> Result<T> {
    let mut parser = Parser { data: text, at: 0 };
    parser.space();
    let value = read(&mut parser)?;
    parser.space();
    if parser.at < text.len() { Err(parser.error()) } else { Ok(value) }
}

/// The content of a string without its escapes.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let invalid = |what: &[u8]| {
        let detail = format!("Escape sequence \"\\{}\" is invalid.", String::from_utf8_lossy(what));
        Error::invalid_text("invalid input syntax for type json").with_detail(detail)
    };
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (&escape, after) = rest.get(at + 1..).and_then(<[u8]>::split_first).ok_or_else(|| invalid(b""))?;
        rest = after;
        out.push(match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (c, after) = unicode(rest).ok_or_else(|| invalid(b"u"))?;
                if c == '\0' {
                    let detail = "\\u0000 cannot be converted to text.";
                    return Err(Error::invalid_text("unsupported Unicode escape sequence").with_detail(detail));
                }
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
                continue;
            }
            other => return Err(invalid(&[other])),
        });
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Four hexadecimal digits, or a pair of surrogates.
fn unicode(text: &[u8]) -> Option<(char, &[u8])> {
    let (first, rest) = four_digits(text)?;
    match first {
        0xd800..0xdc00 => {
            let (second, rest) = four_digits(rest.strip_prefix(b"\\u")?)?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)?, rest))
        }
        _ => Some((char::from_u32(first)?, rest)),
    }
}

fn four_digits(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |value, b| Some(value * 16 + char::from(*b).to_digit(16)?))?;
    Some((value, rest))
}
