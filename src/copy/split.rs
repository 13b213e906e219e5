//! A stream of bytes into blocks of whole rows.
//!
//! Only the ends of rows are looked for: newlines outside of quotes, or not behind a backslash, or the lengths of the binary
//! format. Most blocks hold neither quotes nor backslashes; then it is one search from the back. What is not known yet (a quote
//! still open, the byte behind a backslash) is kept as state at `scanned`, so that no byte is looked at twice.

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memchr2, memchr3, memrchr};

use super::{Eol, Layout, Options, binary, csv, text};
use crate::catalog::Column;
use crate::error::{Error, Result};
use crate::limits::COPY_BLOCK_BYTES;
use crate::sql::ast::CopyFormat;

/// Whole rows, to be decoded on any thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub bytes: Bytes,
    /// Line on which it begins, from 1; in the binary format, the row.
    pub first_line: u64,
    pub eol: Eol,
}

/// Cuts what arrives at row boundaries. Takes off the header, and ends at the end marker.
pub struct BlockSplitter {
    relation: String,
    options: Options,
    columns: Vec<Column>,
    block_bytes: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were looked at.
    scanned: usize,
    /// End of the last row that is whole, in the buffer.
    boundary: usize,
    /// Line (or row) at which the buffer begins.
    line: u64,
    /// Rows of the binary format up to the boundary.
    binary_rows: u64,
    in_quotes: bool,
    /// The byte before `scanned` was an escape that counts. (CSV with an escape that is not the quote.)
    escaped: bool,
    eol: Option<Eol>,
    header: bool,
    ended: bool,
}

impl BlockSplitter {
    /// For a COPY into these columns of a relation, in this order.
    pub fn new(relation: &str, columns: &[Column], options: &Options) -> BlockSplitter {
        BlockSplitter {
            relation: relation.to_string(),
            header: options.header || options.format == CopyFormat::Binary,
            eol: matches!(options.format, CopyFormat::Binary | CopyFormat::Json).then_some(Eol::Lf),
            options: options.clone(),
            columns: columns.to_vec(),
            block_bytes: COPY_BLOCK_BYTES,
            buffer: Vec::new(),
            scanned: 0,
            boundary: 0,
            line: 1,
            binary_rows: 0,
            in_quotes: false,
            escaped: false,
            ended: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_block_bytes(mut self, bytes: usize) -> BlockSplitter {
        self.block_bytes = bytes;
        self
    }

    /// Take bytes, cut anywhere; blocks come out when they are full.
    pub fn push(&mut self, mut data: &[u8]) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        while !data.is_empty() && !self.ended {
            self.buffer.reserve(self.block_bytes - self.buffer.len());
            let room = self.block_bytes - self.buffer.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == self.block_bytes {
                self.scan(false)?;
                if self.boundary == 0 && !self.ended {
                    return Err(self.row_too_long());
                }
                blocks.extend(self.cut(self.boundary));
            }
        }
        if self.ended && self.options.format == CopyFormat::Binary && !data.is_empty() {
            return Err(self.error(Error::bad_copy("received copy data after EOF marker")));
        }
        Ok(blocks)
    }

    /// The rest; the last row needs no line end.
    pub fn finish(mut self) -> Result<Vec<Block>> {
        let mut blocks = Vec::new();
        if !self.ended {
            self.scan(true)?;
            if self.options.format == CopyFormat::Binary && !self.ended && self.boundary < self.buffer.len() {
                self.line += self.binary_rows;
                return Err(self.error(Error::bad_copy("unexpected EOF in COPY data")));
            }
            let end = if self.ended { self.boundary } else { self.buffer.len() };
            blocks.extend(self.cut(end));
        }
        Ok(blocks)
    }

    /// The block up to `end`, which leaves the buffer.
    fn cut(&mut self, end: usize) -> Option<Block> {
        let rest = self.buffer.get(end..).unwrap_or_default().to_vec();
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.truncate(end);
        self.scanned -= end.min(self.scanned);
        self.boundary = 0;
        let first_line = self.line;
        let eol = self.eol.unwrap_or(Eol::Lf);
        self.line += match self.options.format {
            CopyFormat::Binary => std::mem::take(&mut self.binary_rows),
            _ => lines(&bytes, eol),
        };
        (!bytes.is_empty()).then(|| Block { bytes: bytes.into(), first_line, eol })
    }

    fn error(&self, error: Error) -> Error {
        error.with_context(format!("COPY {}, line {}", self.relation, self.line))
    }

    fn row_too_long(&mut self) -> Error {
        self.line += self.binary_rows;
        let message = format!("a row of COPY data is longer than {} bytes", self.block_bytes);
        let error = self.error(Error::limit_exceeded(message));
        match self.in_quotes {
            true => error.with_hint("look for a quote that is not closed"),
            false => error,
        }
    }

    /// Move `scanned` and `boundary` as far as the buffer allows. `end`: no more will come.
    fn scan(&mut self, end: bool) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            return self.scan_binary();
        }
        if self.eol.is_none() {
            self.find_eol(end);
        }
        if self.header && self.eol.is_some() {
            self.scan_rows(end, true)?;
            if self.boundary == 0 && !end {
                return Ok(());
            }
            let header = self.cut(if self.boundary == 0 { self.buffer.len() } else { self.boundary });
            self.header = false;
            self.check_header(header)?;
        }
        if self.eol.is_some() { self.scan_rows(end, false) } else { Ok(()) }
    }

    fn scan_binary(&mut self) -> Result<()> {
        if self.header {
            match binary::header_length(&self.buffer).map_err(|error| self.error(error))? {
                None => return Ok(()),
                Some(length) => drop(self.buffer.drain(..length)),
            }
            self.header = false;
        }
        while let Some(tuple) = binary::next_tuple(&self.buffer[self.boundary..], self.columns.len()).map_err(|error| {
            let line = self.line + self.binary_rows;
            error.with_context(format!("COPY {}, line {line}", self.relation))
        })? {
            match tuple {
                binary::Tuple::Row(length) => {
                    self.boundary += length;
                    self.binary_rows += 1;
                }
                binary::Tuple::Trailer => {
                    self.ended = true;
                    if self.buffer.len() > self.boundary + 2 {
                        return Err(self.error(Error::bad_copy("received copy data after EOF marker")));
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// How does the first row end? A single row may end in nothing.
    fn find_eol(&mut self, end: bool) {
        let csv = self.options.format == CopyFormat::Csv;
        let (mut in_quotes, mut escaped) = (false, false);
        let mut at = 0;
        while let Some(&byte) = self.buffer.get(at) {
            if csv {
                let is_escape = in_quotes && byte == self.options.escape && self.options.escape != self.options.quote;
                if byte == self.options.quote && !escaped {
                    in_quotes = !in_quotes;
                }
                escaped = is_escape && !escaped;
            } else if byte == b'\\' {
                at += 2;
                continue;
            }
            if !in_quotes && byte == b'\n' {
                self.eol = Some(Eol::Lf);
                return;
            }
            if !in_quotes && byte == b'\r' {
                self.eol = match self.buffer.get(at + 1) {
                    Some(b'\n') => Some(Eol::CrLf),
                    Some(_) => Some(Eol::Cr),
                    None => end.then_some(Eol::Cr),
                };
                return;
            }
            at += 1;
        }
        if end {
            self.eol = Some(Eol::Lf);
        }
    }

    fn scan_rows(&mut self, end: bool, first_only: bool) -> Result<()> {
        match self.options.format {
            CopyFormat::Csv if self.options.escape != self.options.quote => self.scan_escaped_csv(end, first_only),
            CopyFormat::Csv => self.scan_csv(end, first_only),
            CopyFormat::Text => return self.scan_text(end, first_only),
            CopyFormat::Json | CopyFormat::Binary => self.scan_lines(end),
        }
        Ok(())
    }

    /// The byte that ends rows.
    fn newline(&self) -> u8 {
        if self.eol == Some(Eol::Cr) { b'\r' } else { b'\n' }
    }

    fn scan_csv(&mut self, end: bool, first_only: bool) {
        let (newline, quote) = (self.newline(), self.options.quote);
        let fresh = &self.buffer[self.scanned..];
        if !first_only && !self.in_quotes && memchr2(quote, b'\\', fresh).is_none() {
            if let Some(at) = memrchr(newline, fresh) {
                self.boundary = self.scanned + at + 1;
            }
            self.scanned = self.buffer.len();
            return;
        }
        while let Some(found) = memchr3(quote, newline, b'\\', &self.buffer[self.scanned..]) {
            let at = self.scanned + found;
            self.scanned = at + 1;
            let byte = self.buffer[at];
            match byte {
                _ if byte == quote => self.in_quotes = !self.in_quotes,
                _ if byte == newline && !self.in_quotes => {
                    self.boundary = at + 1;
                    if first_only {
                        return;
                    }
                }
                b'\\' if !self.in_quotes && at == self.boundary && self.marker_line(at, end) => return,
                _ => {}
            }
        }
        self.scanned = self.buffer.len();
    }

    fn scan_escaped_csv(&mut self, end: bool, first_only: bool) {
        let (newline, quote, escape) = (self.newline(), self.options.quote, self.options.escape);
        while let Some(&byte) = self.buffer.get(self.scanned) {
            let at = self.scanned;
            self.scanned += 1;
            if byte == quote && !self.escaped {
                self.in_quotes = !self.in_quotes;
            }
            self.escaped = self.in_quotes && byte == escape && !self.escaped;
            if byte == newline && !self.in_quotes {
                self.boundary = at + 1;
                if first_only {
                    return;
                }
            }
            if byte == b'\\' && !self.in_quotes && at == self.boundary && self.marker_line(at, end) {
                return;
            }
        }
    }

    /// JSON: every newline ends a row.
    fn scan_lines(&mut self, end: bool) {
        let mut from = self.scanned;
        while let Some(found) = memchr(b'\\', &self.buffer[from..]) {
            let at = from + found;
            from = at + 1;
            // A marker can only stand where a value can't begin, so looking at each backslash is enough.
            if at == 0 || self.buffer[at - 1] == b'\n' {
                self.boundary = at;
                if self.marker_line(at, end) {
                    return;
                }
            }
        }
        if let Some(at) = memrchr(b'\n', &self.buffer[self.scanned..]) {
            self.boundary = self.scanned + at + 1;
        }
        self.scanned = self.buffer.len();
    }

    /// Whether the backslash at `at` begins a line `\.`, the end of the data, or may do so once more bytes have come.
    fn marker_line(&mut self, at: usize, end: bool) -> bool {
        match self.buffer.get(at + 1..) {
            Some([b'.', b'\n' | b'\r', ..]) => self.ended = true,
            Some([b'.']) if end => self.ended = true,
            Some([] | [b'.']) if !end => {}
            _ => return false,
        }
        // Look again from here.
        self.scanned = at;
        true
    }

    fn scan_text(&mut self, end: bool, first_only: bool) -> Result<()> {
        let newline = self.newline();
        let fresh = &self.buffer[self.scanned..];
        if !first_only && memchr(b'\\', fresh).is_none() {
            if let Some(at) = memrchr(newline, fresh) {
                self.boundary = self.scanned + at + 1;
            }
            self.scanned = self.buffer.len();
            return Ok(());
        }
        while let Some(found) = memchr2(newline, b'\\', &self.buffer[self.scanned..]) {
            let at = self.scanned + found;
            if self.buffer[at] == newline {
                self.scanned = at + 1;
                self.boundary = at + 1;
                if first_only {
                    return Ok(());
                }
                continue;
            }
            match self.buffer.get(at + 1..).unwrap_or_default() {
                [b'.', rest @ ..] => match rest {
                    [] if !end => {
                        self.scanned = at;
                        return Ok(());
                    }
                    [] | [b'\n' | b'\r', ..] => {
                        // What stands before the marker on its line is still a row.
                        self.boundary = at;
                        self.ended = true;
                        return Ok(());
                    }
                    _ => {
                        self.line += lines(&self.buffer[..at], self.eol.unwrap_or(Eol::Lf));
                        return Err(self.error(Error::bad_copy("end-of-copy marker corrupt")));
                    }
                },
                [] => {
                    self.scanned = at;
                    return Ok(());
                }
                _ => self.scanned = at + 2,
            }
        }
        self.scanned = self.buffer.len();
        Ok(())
    }

    fn check_header(&self, header: Option<Block>) -> Result<()> {
        let (Some(header), true) = (header, self.options.header_match) else { return Ok(()) };
        let unknown = |error: Error| error.with_context(format!("COPY {}, line 1", self.relation));
        let all: Vec<bool> = self.columns.iter().map(|_| true).collect();
        let none: Vec<bool> = self.columns.iter().map(|_| false).collect();
        let layout = Layout { options: &self.options, columns: &self.columns, force_null: &none, force_not_null: &all };
        let fields = match self.options.format {
            CopyFormat::Csv => csv::split(&header.bytes, header.eol, &layout),
            _ => text::split(&header.bytes, header.eol, &layout),
        };
        if fields.stop.is_some() {
            let expected = self.columns.len();
            return Err(unknown(Error::bad_copy(format!("wrong number of fields in header line, expected {expected}"))));
        }
        for (at, column) in self.columns.iter().enumerate() {
            use super::fields::Values;
            let got = fields.column(at).get(0).map(|name| String::from_utf8_lossy(name).into_owned());
            if got.as_deref() != Some(&column.name) {
                let got = got.map_or_else(|| "null value".to_string(), |got| format!("got \"{got}\""));
                let message =
                    format!("column name mismatch in header line field {}: {got}, expected \"{}\"", at + 1, column.name);
                return Err(unknown(Error::bad_copy(message)));
            }
        }
        Ok(())
    }
}

/// Line ends in a text.
pub(super) fn lines(text: &[u8], eol: Eol) -> u64 {
    memchr_iter(if eol == Eol::Cr { b'\r' } else { b'\n' }, text).count() as u64
}
