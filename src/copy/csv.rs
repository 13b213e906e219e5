//! The CSV format: rows into fields, and values into rows. Quoting is PostgreSQL's, byte for byte.

use memchr::memchr;

use super::fields::Fields;
use super::scan::Scanner;
use super::{Eol, Layout, Options};
use crate::error::Error;

/// What ended a field.
pub(super) enum End {
    Field,
    Row,
}

pub(super) fn split<'a>(data: &'a [u8], eol: Eol, layout: &Layout) -> Fields<'a> {
    let mut fields = Fields::new(data, layout.columns.len());
    let from = match memchr(layout.options.quote, data) {
        None => plain_rows(&mut fields, data, eol, layout),
        Some(_) => 0,
    };
    Reader { data, at: from, scanner: Scanner::new(data, needles(layout.options)), eol, layout, fields: &mut fields }.rows();
    fields
}

fn needles(options: &Options) -> [u8; 4] {
    [options.delimiter, options.quote, b'\n', b'\r']
}

/// Rows in which nothing is quoted or escaped, as long as they have the right count of fields. Returns where it stopped.
pub(super) fn plain_rows(fields: &mut Fields<'_>, data: &[u8], eol: Eol, layout: &Layout) -> usize {
    let delimiter = layout.options.delimiter;
    let (returns, has_returns) = match (eol, memchr(b'\r', data)) {
        (Eol::CrLf, Some(_)) => (1, true),
        (Eol::Lf, None) => (0, false),
        _ => return 0,
    };
    let (columns, null) = (layout.columns.len(), layout.options.null.as_bytes());
    let mut scanner = Scanner::new(data, [delimiter, b'\n']);
    let (mut column, mut row_start, mut start) = (0, 0, 0);
    while let Some(at) = scanner.next() {
        let ends_row = data[at] == b'\n';
        let end = if ends_row { at - returns.min(at - start) } else { at };
        let last = column + 1 == columns;
        if ends_row != last || (ends_row && has_returns && data.get(end) != Some(&b'\r')) {
            break;
        }
        if column == 0 {
            fields.begin_row(start);
        }
        if end - start == null.len() && &data[start..end] == null && !layout.force_not_null[column] {
            fields.push_null();
        } else {
            fields.push(start, end);
        }
        start = at + 1;
        (column, row_start) = if last { (0, start) } else { (column + 1, row_start) };
    }
    if column > 0 {
        fields.abandon_row();
    }
    // Carriage returns elsewhere than at the ends of rows are for the exact way to find.
    if has_returns && memchr::memchr_iter(b'\r', &data[..row_start]).count() != fields.rows() {
        fields.clear();
        return 0;
    }
    row_start
}

/// The exact way: quotes, escapes, all line ends, all errors.
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
        self.scanner.reset(self.at);
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
            let end = self.field(column).map_err(|error| (0, error))?;
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

    fn field(&mut self, column: usize) -> Result<End, Error> {
        let start = self.at;
        let Options { quote, escape, .. } = *self.layout.options;
        if self.data.get(start) == Some(&quote) {
            // The usual quoted field: nothing escaped, and nothing behind the closing quote.
            if quote == escape
                && let Some(length) = memchr(quote, &self.data[start + 1..])
            {
                let close = start + 1 + length;
                self.scanner.seek(close + 1);
                let at = self.scanner.next().unwrap_or(self.data.len());
                if at == close + 1 && self.data.get(at) != Some(&quote) {
                    self.quoted(column, start + 1, close);
                    return self.end(at);
                }
            }
            return self.unescape(column);
        }
        let at = self.scanner.next().unwrap_or(self.data.len());
        if self.data.get(at) == Some(&quote) {
            return self.unescape(column);
        }
        if self.data[start..at] == *self.layout.options.null.as_bytes() && !self.layout.force_not_null[column] {
            self.fields.push_null();
        } else {
            self.fields.push(start, at);
        }
        self.end(at)
    }

    fn quoted(&mut self, column: usize, start: usize, end: usize) {
        if self.layout.force_null[column] && &self.data[start..end] == self.layout.options.null.as_bytes() {
            self.fields.push_null();
        } else {
            self.fields.push(start, end);
        }
    }

    /// A field that is partly quoted, or has escapes.
    fn unescape(&mut self, column: usize) -> Result<End, Error> {
        let Options { quote, escape, delimiter, .. } = *self.layout.options;
        let scratch_start = self.fields.scratch().len();
        let mut in_quotes = false;
        let mut at = self.at;
        while let Some(&byte) = self.data.get(at) {
            let next = self.data.get(at + 1).copied();
            if in_quotes && byte == escape && next.is_some_and(|next| next == escape || next == quote) {
                self.fields.scratch().extend(next);
                at += 2;
                continue;
            }
            if byte == quote {
                in_quotes = !in_quotes;
            } else if !in_quotes && (byte == delimiter || byte == b'\n' || byte == b'\r') {
                break;
            } else {
                self.fields.scratch().push(byte);
            }
            at += 1;
        }
        if in_quotes {
            return Err(Error::bad_copy("unterminated CSV quoted field"));
        }
        let null = self.layout.options.null.as_bytes();
        if self.layout.force_null[column] && self.fields.scratch()[scratch_start..] == *null {
            self.fields.push_null();
        } else {
            self.fields.push_scratch(scratch_start);
        }
        let end = self.end(at)?;
        self.scanner.reset(self.at);
        Ok(end)
    }

    /// What stands at the end of a field: the delimiter, the row's end, or the block's.
    fn end(&mut self, at: usize) -> Result<End, Error> {
        let next_row = row_end(self.data, at, self.eol, true)?;
        self.at = next_row.unwrap_or(at + 1);
        if self.eol == Eol::CrLf && next_row.is_some() {
            self.scanner.seek(self.at);
        }
        Ok(if next_row.is_some() { End::Row } else { End::Field })
    }
}

/// Where the next row begins, if a row ends here. A line end of another style than the first line's is an error, as it is
/// likely to be part of a value that was not quoted.
pub(super) fn row_end(data: &[u8], at: usize, eol: Eol, csv: bool) -> Result<Option<usize>, Error> {
    match (data.get(at), eol) {
        (None, _) => Ok(Some(at)),
        (Some(b'\n'), Eol::Lf) => Ok(Some(at + 1)),
        (Some(b'\r'), Eol::Cr) => Ok(Some(at + 1)),
        (Some(b'\r'), Eol::CrLf) if data.get(at + 1) == Some(&b'\n') => Ok(Some(at + 2)),
        (Some(b'\r'), _) => Err(match csv {
            true => Error::bad_copy("unquoted carriage return found in data")
                .with_hint("Use quoted CSV field to represent carriage return."),
            false => {
                Error::bad_copy("literal carriage return found in data").with_hint("Use \"\\r\" to represent carriage return.")
            }
        }),
        (Some(b'\n'), _) => Err(match csv {
            true => Error::bad_copy("unquoted newline found in data").with_hint("Use quoted CSV field to represent newline."),
            false => Error::bad_copy("literal newline found in data").with_hint("Use \"\\n\" to represent newline."),
        }),
        _ => Ok(None),
    }
}

pub(super) fn extra_data() -> Error {
    Error::bad_copy("extra data after last expected column")
}

pub(super) fn missing_data(column: &str) -> Error {
    Error::bad_copy(format!("missing data for column \"{column}\""))
}

/// Put quotes around what was written since `start`, if it needs them or they are forced.
pub(super) fn quote(out: &mut Vec<u8>, start: usize, options: &Options, force: bool, single_column: bool) {
    let text = &out[start..];
    let special = |b: &u8| [options.delimiter, options.quote, b'\n', b'\r'].contains(b);
    // `\.` alone would end the data.
    let needs = text == options.null.as_bytes() || text.iter().any(special) || (single_column && text == b"\\.");
    if !force && !needs {
        return;
    }
    let text = out.split_off(start);
    out.push(options.quote);
    for byte in text {
        if byte == options.quote || byte == options.escape {
            out.push(options.escape);
        }
        out.push(byte);
    }
    out.push(options.quote);
}
