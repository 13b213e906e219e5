//! The text format: tabs, `\N`, backslash escapes.

use memchr::memchr;

use super::csv::{End, extra_data, missing_data, plain_rows, row_end};
use super::fields::Fields;
use super::scan::Scanner;
use super::{Eol, Layout};
use crate::error::Error;

pub(super) fn split<'a>(data: &'a [u8], eol: Eol, layout: &Layout) -> Fields<'a> {
    let mut fields = Fields::new(data, layout.columns.len());
    let from = match memchr(b'\\', data) {
        None => plain_rows(&mut fields, data, eol, layout),
        Some(_) => 0,
    };
    let scanner = Scanner::new(data, [layout.options.delimiter, b'\\', b'\n', b'\r']);
    Reader { data, at: from, scanner, eol, layout, fields: &mut fields }.rows();
    fields
}

struct Reader<'a, 'f> {
    data: &'a [u8],
    at: usize,
    scanner: Scanner<'a, 4>,
    eol: Eol,
    layout: &'f Layout<'f>,
    fields: &'f mut Fields<'a>,
}

impl Reader<'_, '_> {
    fn rows(mut self) {
        self.scanner.seek(self.at);
        while self.at < self.data.len() {
            self.fields.begin_row(self.at);
            if let Err((column, error)) = self.row() {
                return self.fields.stop(column, error);
            }
        }
    }

    fn row(&mut self) -> Result<(), (usize, Error)> {
        let mut column = 0;
        loop {
            if column == self.layout.columns.len() {
                return Err((0, extra_data()));
            }
            let end = self.field().map_err(|error| (0, error))?;
            column += 1;
            if let End::Row = end {
                break;
            }
        }
        match self.layout.columns.get(column) {
            None => Ok(()),
            Some(missing) => Err((column, missing_data(&missing.name))),
        }
    }

    fn field(&mut self) -> Result<End, Error> {
        let start = self.at;
        let mut escaped = false;
        let at = loop {
            match self.scanner.next() {
                // The byte behind a backslash is part of the value, whatever it is.
                Some(at) if self.data[at] == b'\\' => {
                    escaped = true;
                    self.scanner.seek(at + 2);
                }
                Some(at) => break at,
                None => break self.data.len(),
            }
        };
        let raw = &self.data[start..at];
        if raw == self.layout.options.null.as_bytes() {
            self.fields.push_null();
        } else if escaped {
            let scratch_start = self.fields.scratch().len();
            unescape(raw, self.fields.scratch());
            self.fields.push_scratch(scratch_start);
        } else {
            self.fields.push(start, at);
        }
        let end = row_end(self.data, at, self.eol, false)?;
        self.at = end.unwrap_or(at + 1);
        if self.eol == Eol::CrLf && end.is_some() {
            self.scanner.seek(self.at);
        }
        Ok(if end.is_some() { End::Row } else { End::Field })
    }
}

/// `\b \f \n \r \t \v`, `\` and one to three octal digits, `\x` and one or two hexadecimal digits; any other byte behind a
/// backslash stands for itself.
pub(super) fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    let octal = |b: Option<&u8>| b.filter(|b| matches!(b, b'0'..=b'7')).map(|b| b - b'0');
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).map(|digit| digit as u8);
    while let Some(at) = memchr(b'\\', text) {
        let (plain, rest) = text.split_at(at);
        out.extend_from_slice(plain);
        let Some(&escape) = rest.get(1) else {
            out.push(b'\\');
            return;
        };
        let (byte, used) = match escape {
            b'b' => (8, 2),
            b'f' => (12, 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'v' => (11, 2),
            b'0'..=b'7' => {
                let first = escape - b'0';
                match (octal(rest.get(2)), octal(rest.get(3))) {
                    (Some(second), Some(third)) => ((first << 6) | (second << 3) | third, 4),
                    (Some(second), None) => ((first << 3) | second, 3),
                    (None, _) => (first, 2),
                }
            }
            b'x' => match (hex(rest.get(2)), hex(rest.get(3))) {
                (Some(high), Some(low)) => ((high << 4) | low, 4),
                (Some(low), None) => (low, 3),
                (None, _) => (b'x', 2),
            },
            other => (other, 2),
        };
        out.push(byte);
        text = rest.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

/// Escape what was written since `start`.
pub(super) fn escape(out: &mut Vec<u8>, start: usize, delimiter: u8) {
    let special = |b: &u8| *b < 0x20 || *b == b'\\' || *b == delimiter;
    let Some(first) = out[start..].iter().position(special) else { return };
    let text = out.split_off(start + first);
    for byte in text {
        let escape = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b if b == b'\\' || b == delimiter => b,
            b => {
                out.push(b);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escape]);
    }
}
