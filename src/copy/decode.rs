//! A block of COPY data into a batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::fields::{Bad, Fields, Values};
use super::modifier::Modifier;
use super::split::{Block, lines};
use super::{Eol, Layout, Options, binary, column, csv, is_json, json, text};
use crate::catalog::Column;
use crate::error::{Error, Result};
use crate::sql::ast::CopyFormat;

/// Values for rows that leave a column out: so many of them.
pub type DefaultValues = Arc<dyn Fn(usize) -> Result<ArrayRef> + Send + Sync>;

/// Decodes blocks, each on its own: share it between threads.
pub struct Decoder {
    relation: String,
    columns: Vec<Column>,
    options: Options,
    schema: SchemaRef,
    modifiers: Vec<Modifier>,
    force_null: Vec<bool>,
    force_not_null: Vec<bool>,
    defaults: Vec<Option<DefaultValues>>,
}

/// The first error of a block: in which row, and how far within it.
struct Failure {
    row: usize,
    /// Column that was being read; the number of columns for errors of the whole row.
    column: usize,
    error: Error,
    /// Name the column and its value, not the row.
    of_value: bool,
}

impl Decoder {
    /// For a COPY into these columns of a relation, in this order.
    pub fn new(relation: &str, columns: &[Column], options: &Options) -> Result<Decoder> {
        let fields = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        Ok(Decoder {
            relation: relation.to_string(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            modifiers: columns.iter().map(|c| Modifier::new(&c.sql_type, &c.data_type)).collect(),
            force_null: options.flags(&options.force_null, columns)?,
            force_not_null: options.flags(&options.force_not_null, columns)?,
            defaults: vec![None; columns.len()],
            columns: columns.to_vec(),
            options: options.clone(),
        })
    }

    /// What columns hold whose key is missing from a JSON object; NULL without.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Vec<Option<DefaultValues>>) -> Decoder {
        assert_eq!(defaults.len(), self.columns.len(), "a default, or none, per column");
        self.defaults = defaults;
        self
    }

    /// Of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a block. An error is that of its first bad row, with its line and column as context.
    pub fn decode(&self, block: &Block) -> Result<RecordBatch> {
        let mut fields = self.split(block);
        let mut failure = fields.stop.take().map(|stop| {
            let super::fields::Stop { row, column, error } = stop;
            Failure { row, column, error, of_value: false }
        });
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in 0..self.columns.len() {
            match self.column(&fields, column) {
                Ok(array) => arrays.push(array),
                Err(bad) => keep_first(&mut failure, Failure { row: bad.row, column, error: bad.error, of_value: true }),
            }
        }
        for (column, array) in arrays.iter().enumerate().filter(|_| arrays.len() == self.columns.len()) {
            if let Some(row) = self.null_violation(column, array) {
                let error = null_violation(&self.relation, &self.columns[column].name, &arrays, row);
                keep_first(&mut failure, Failure { row, column: self.columns.len() + column, error, of_value: false });
            }
        }
        match failure {
            Some(failure) => Err(self.with_context(failure, &fields, block)),
            None => {
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(fields.rows()));
                Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
            }
        }
    }

    fn split<'a>(&self, block: &'a Block) -> Fields<'a> {
        let layout = Layout {
            options: &self.options,
            columns: &self.columns,
            force_null: &self.force_null,
            force_not_null: &self.force_not_null,
        };
        match self.options.format {
            CopyFormat::Csv => csv::split(&block.bytes, block.eol, &layout),
            CopyFormat::Text => text::split(&block.bytes, block.eol, &layout),
            CopyFormat::Json => json::split(&block.bytes, &layout),
            CopyFormat::Binary => binary::split(&block.bytes, &layout),
        }
    }

    fn column(&self, fields: &Fields<'_>, at: usize) -> Result<ArrayRef, Bad> {
        let (values, column) = (fields.column(at), &self.columns[at]);
        let array = match self.options.format {
            CopyFormat::Binary => binary::build(&column.data_type, &column.sql_type, &values)?,
            CopyFormat::Json if json::is_nested(&column.data_type) => {
                json::build(&column.data_type, &(0..values.len()).map(|row| values.get(row)).collect(), self.options.formats)?
            }
            CopyFormat::Json | CopyFormat::Text | CopyFormat::Csv => {
                column::build(&column.data_type, &values, self.options.formats)?
            }
        };
        let array = self.modifiers[at].apply(&array)?.unwrap_or(array);
        match &self.defaults[at] {
            Some(default) if self.options.format == CopyFormat::Json => fill_missing(array, fields, at, default),
            _ => Ok(array),
        }
    }

    fn null_violation(&self, column: usize, array: &ArrayRef) -> Option<usize> {
        let forbidden = !self.columns[column].nullable && array.null_count() > 0;
        forbidden.then(|| (0..array.len()).find(|row| array.is_null(*row)))?
    }

    /// The first row of some text, without its line end.
    fn first_row<'a>(&self, text: &'a [u8], eol: Eol) -> &'a [u8] {
        let Options { format, quote, escape, .. } = self.options;
        let newline = if eol == Eol::Cr { b'\r' } else { b'\n' };
        let (mut in_quotes, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            let this_escaped = std::mem::take(&mut escaped);
            match format {
                CopyFormat::Csv if *byte == quote && !this_escaped => in_quotes = !in_quotes,
                CopyFormat::Csv => escaped = in_quotes && *byte == escape && !this_escaped,
                CopyFormat::Text => escaped = *byte == b'\\' && !this_escaped,
                CopyFormat::Json | CopyFormat::Binary => {}
            }
            *byte == newline && !in_quotes && !(this_escaped && format == CopyFormat::Text)
        });
        let row = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
        if eol == Eol::CrLf { row.strip_suffix(b"\r").unwrap_or(row) } else { row }
    }

    /// `COPY orders, line 3, column amount: "abc"`.
    fn with_context(&self, failure: Failure, fields: &Fields<'_>, block: &Block) -> Error {
        let Failure { row, column, error, of_value } = failure;
        let binary = self.options.format == CopyFormat::Binary;
        let line = match binary {
            true => block.first_line + row as u64,
            false => block.first_line + lines(fields.before(row), block.eol),
        };
        let mut context = format!("COPY {}, line {line}", self.relation);
        if of_value {
            context.push_str(&format!(", column {}", self.columns[column].name));
        }
        let shown = match (of_value, binary) {
            (true, true) | (false, true) => String::new(),
            (true, false) => match fields.column(column).get(row) {
                Some(value) => format!(": \"{}\"", shortened(value)),
                None => ": null input".to_string(),
            },
            (false, false) => format!(": \"{}\"", shortened(self.first_row(fields.from(row), block.eol))),
        };
        error.with_context(context + &shown)
    }
}

fn keep_first(first: &mut Option<Failure>, other: Failure) {
    if first.as_ref().is_none_or(|f| (other.row, other.column) < (f.row, f.column)) {
        *first = Some(other);
    }
}

fn fill_missing(array: ArrayRef, fields: &Fields<'_>, column: usize, default: &DefaultValues) -> Result<ArrayRef, Bad> {
    let missing: BooleanArray = (0..array.len()).map(|row| Some(fields.is_missing(row, column))).collect();
    if missing.true_count() == 0 {
        return Ok(array);
    }
    let values = default(array.len()).map_err(Bad::at(0))?;
    zip(&missing, &values, &array).map_err(|error| Bad { row: 0, error: error.into() })
}

/// As much of a value as a message should hold.
fn shortened(value: &[u8]) -> String {
    const SHOWN: usize = 100;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

/// 23502, with the row it is in.
pub(crate) fn null_violation(relation: &str, column: &str, row_columns: &[ArrayRef], row: usize) -> Error {
    let message = format!("null value in column \"{column}\" of relation \"{relation}\" violates not-null constraint");
    Error::not_null_violation(message).with_detail(format!("Failing row contains ({}).", row_text(row_columns, row)))
}

pub(crate) fn check_violation(relation: &str, constraint: &str, row_columns: &[ArrayRef], row: usize) -> Error {
    let message = format!("new row for relation \"{relation}\" violates check constraint \"{constraint}\"");
    Error::check_violation(message).with_detail(format!("Failing row contains ({}).", row_text(row_columns, row)))
}

/// The values of a row, for a message.
fn row_text(columns: &[ArrayRef], row: usize) -> String {
    let value = |array: &ArrayRef| match super::value::write::text_writer(&array.slice(row, 1)) {
        Ok(_) if array.is_null(row) => "null".to_string(),
        Ok(writer) => {
            let mut text = Vec::new();
            writer(0, &mut text);
            shortened(&text)
        }
        Err(_) => "?".to_string(),
    };
    columns.iter().map(value).collect::<Vec<_>>().join(", ")
}

impl Column {
    /// Whether its text is JSON.
    pub(crate) fn is_json(&self) -> bool {
        is_json(&self.sql_type)
    }
}
