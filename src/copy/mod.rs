//! COPY: bytes of a client into batches of rows, and batches into bytes.
//!
//! ```text
//!  bytes, cut anywhere ─► BlockSplitter ─► Block ─┐ independent of each other,   ┌─► RecordBatch ─► ingest
//!                         (one thread, at row     ├► Decoder::decode on any      ├─► RecordBatch
//!                          boundaries)     Block ─┘ thread, joined in order      └─► …
//! ```
//!
//! * [`split`]: the stream into blocks of whole rows. It finds rows, not fields.
//! * [`csv`], [`text`], [`json`], [`binary`]: one format each, a block into the positions of its fields, and rows back to bytes.
//! * [`column`](mod@column): a column of fields into an Arrow array. [`value`]: the text forms of all types, for everyone.
//! * [`decode`], [`encode`]: the two directions put together. [`modifier`]: what `varchar(10)` and its like add to a type.
//!
//! Formats are PostgreSQL's, to the messages of errors; one format is ours: a JSON object a line. Nothing here trusts a length or
//! allocates by one that was sent. An error names the line and column; a line is counted as a text editor counts.

pub(crate) mod binary;
mod column;
mod csv;
mod decode;
mod encode;
mod fields;
pub(crate) mod json;
pub mod modifier;
mod scan;
mod split;
mod text;
pub mod value;

#[cfg(test)]
mod tests;

pub use decode::{Decoder, DefaultValues};
pub(crate) use decode::{check_violation, null_violation};
pub use encode::Encoder;
pub(crate) use encode::dead_letters;
pub use modifier::canonical_uuid;

pub use split::{Block, BlockSplitter};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;

use self::value::Formats;
use crate::catalog::Column;
use crate::error::{Error, Result};
use crate::sql::ast::{self, CopyFormat};

/// Values of any type from their text, as COPY reads them.
pub fn from_text(text: &StringArray, data_type: &DataType, formats: Formats) -> Result<ArrayRef> {
    column::build(data_type, text, formats).map_err(|bad| bad.error)
}

/// The bytes that a text of `bytea` means: `\\x…`, or characters and escapes.
pub fn bytes_of_text(text: &str) -> Result<Vec<u8>> {
    value::parse_bytea(text.as_bytes())
}

/// How rows are written, checked: no two options contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub format: CopyFormat,
    pub header: bool,
    /// The header's names must be the columns'.
    pub header_match: bool,
    pub delimiter: u8,
    pub null: String,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: Vec<String>,
    pub force_null: Vec<String>,
    pub force_not_null: Vec<String>,
    /// The session's.
    pub formats: Formats,
}

impl Options {
    /// What a format does when nothing else is said.
    pub fn of(format: CopyFormat) -> Options {
        let csv = format == CopyFormat::Csv;
        Options {
            format,
            header: false,
            header_match: false,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_string() },
            quote: b'"',
            escape: b'"',
            force_quote: Vec::new(),
            force_null: Vec::new(),
            force_not_null: Vec::new(),
            formats: Formats::default(),
        }
    }

    /// The options of a statement.
    pub fn new(copy: &ast::Copy, formats: Formats) -> Result<Options> {
        let default = Options::of(copy.format);
        let quote = copy.quote.unwrap_or(default.quote);
        let options = Options {
            format: copy.format,
            header: copy.header || copy.header_match,
            header_match: copy.header_match,
            delimiter: copy.delimiter.unwrap_or(default.delimiter),
            null: copy.null.clone().unwrap_or(default.null),
            quote,
            escape: copy.escape.unwrap_or(quote),
            force_quote: copy.force_quote.clone(),
            force_null: copy.force_null.clone(),
            force_not_null: copy.force_not_null.clone(),
            formats,
        };
        options.check_availability(copy)?;
        if matches!(copy.format, CopyFormat::Text | CopyFormat::Csv) {
            options.check_bytes()?;
        }
        Ok(options)
    }

    fn check_availability(&self, copy: &ast::Copy) -> Result<()> {
        let mode = match self.format {
            CopyFormat::Binary => Some("BINARY"),
            CopyFormat::Json => Some("JSON"),
            CopyFormat::Text | CopyFormat::Csv => None,
        };
        if let Some(mode) = mode {
            let given = [("DELIMITER", copy.delimiter.is_some()), ("NULL", copy.null.is_some()), ("HEADER", self.header)];
            if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
                return Err(Error::syntax(format!("cannot specify {name} in {mode} mode")));
            }
        }
        let csv_only = [
            ("quote", copy.quote.is_some()),
            ("escape", copy.escape.is_some()),
            ("force quote", !copy.force_quote.is_empty()),
            ("force not null", !copy.force_not_null.is_empty()),
            ("force null", !copy.force_null.is_empty()),
        ];
        if self.format != CopyFormat::Csv
            && let Some((name, _)) = csv_only.iter().find(|(_, given)| *given)
        {
            return Err(Error::unsupported(format!("COPY {name} available only in CSV mode")));
        }
        let wrong_way = match copy.from {
            true => [("force quote", "TO", !copy.force_quote.is_empty()), ("", "", false), ("", "", false)],
            false => [
                ("force not null", "FROM", !copy.force_not_null.is_empty()),
                ("force null", "FROM", !copy.force_null.is_empty()),
                ("header match", "FROM", copy.header_match),
            ],
        };
        match wrong_way.iter().find(|(_, _, given)| *given) {
            Some((name, way, _)) => Err(Error::unsupported(format!("COPY {name} only available using COPY {way}"))),
            None => Ok(()),
        }
    }

    fn check_bytes(&self) -> Result<()> {
        let csv = self.format == CopyFormat::Csv;
        let invalid = |message: String| Err(Error::invalid_parameter(message));
        let bytes = [("delimiter", self.delimiter), ("quote", self.quote), ("escape", self.escape)];
        if let Some((name, _)) = bytes.iter().find(|(_, byte)| !byte.is_ascii() || *byte == 0) {
            return Err(Error::unsupported(format!("COPY {name} must be a single one-byte character")));
        }
        if matches!(self.delimiter, b'\n' | b'\r') {
            return invalid("COPY delimiter cannot be newline or carriage return".to_string());
        }
        if self.null.contains(['\n', '\r']) {
            return invalid("COPY null representation cannot use newline or carriage return".to_string());
        }
        let delimiter = char::from(self.delimiter);
        if !csv && (matches!(delimiter, '\\' | '.' | '0'..='9' | 'a'..='z')) {
            return invalid(format!("COPY delimiter cannot be \"{delimiter}\""));
        }
        if csv && self.delimiter == self.quote {
            return invalid("COPY delimiter and quote must be different".to_string());
        }
        if csv && matches!(self.quote, b'\n' | b'\r') {
            return invalid("COPY quote cannot be newline or carriage return".to_string());
        }
        if self.null.contains(delimiter) {
            return Err(Error::unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if csv && self.null.contains(char::from(self.quote)) {
            return Err(Error::unsupported("CSV quote character must not appear in the NULL specification"));
        }
        Ok(())
    }

    /// Which of the columns a list names; `*` names all.
    fn flags(&self, list: &[String], columns: &[Column]) -> Result<Vec<bool>> {
        if let Some(unknown) = list.iter().find(|name| *name != "*" && !columns.iter().any(|c| c.name == **name)) {
            return Err(Error::undefined_column(format!("column \"{unknown}\" not referenced by COPY")));
        }
        let all = list.iter().any(|name| name == "*");
        Ok(columns.iter().map(|c| all || list.contains(&c.name)).collect())
    }
}

/// How lines end. The first line of the data decides for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eol {
    Lf,
    CrLf,
    Cr,
}

/// What cutting rows into fields needs to know.
struct Layout<'a> {
    options: &'a Options,
    columns: &'a [Column],
    force_null: &'a [bool],
    force_not_null: &'a [bool],
}

/// Whether text of this SQL type is JSON itself, to be taken and written as it is.
fn is_json(sql_type: &str) -> bool {
    matches!(sql_type, "json" | "jsonb")
}
