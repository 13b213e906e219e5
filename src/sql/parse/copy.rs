//! COPY … FROM STDIN, COPY … TO STDOUT, with options in today's list and in the words of PostgreSQL before 9.0.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::error::{Error, Result};
use crate::sql::ast::{Copy, CopyFormat, CopyTarget, Statement};

/// Options as they were written; what depends on the format is checked when all are read.
#[derive(Default)]
struct CopyOptions {
    format: Option<CopyFormat>,
    header: bool,
    header_match: bool,
    delimiter: Option<u8>,
    null: Option<String>,
    quote: Option<u8>,
    escape: Option<u8>,
    force_quote: Vec<String>,
    force_null: Vec<String>,
    force_not_null: Vec<String>,
}

impl Grammar<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        self.skip(1);
        let position = self.position();
        let mut options = CopyOptions::default();
        if self.is("BINARY") && matches!(self.peek_nth(1), Token::Word(_)) && !self.is_nth(1, "FROM") && !self.is_nth(1, "TO") {
            self.skip(1);
            options.format = Some(CopyFormat::Binary);
        }
        let target = if *self.peek() == Token::LParen { self.copy_query()? } else { self.copy_relation()? };
        let from = match self.eat_one(&["FROM", "TO"]) {
            Some(word) => word == "FROM",
            None => return Err(self.unexpected("FROM or TO")),
        };
        if from && matches!(target, CopyTarget::Query(_)) {
            return Err(Error::syntax("COPY FROM takes a relation, not a query").at(position));
        }
        self.copy_endpoint(from)?;
        let _ = self.eat_one(&["USING", "WITH"]);
        let options_at = self.position();
        if *self.peek() == Token::LParen {
            self.copy_option_list(&mut options)?;
        } else {
            while self.copy_word(&mut options)? || self.eat("WITH") {}
        }
        if self.is("WHERE") {
            return Err(self.unsupported("COPY … WHERE is not supported").with_hint("delete the rows, or filter in a view"));
        }
        Ok(Statement::Copy(options.finish(target, from).map_err(|error| error.at(options_at))?))
    }

    fn copy_query(&mut self) -> Result<CopyTarget> {
        self.expect_token(&Token::LParen)?;
        let statement = if self.is("SUBSCRIBE") || self.is_query() {
            self.statement()?
        } else {
            return Err(self.unexpected("a query or SUBSCRIBE"));
        };
        self.expect_token(&Token::RParen)?;
        Ok(CopyTarget::Query(Box::new(statement)))
    }

    fn copy_relation(&mut self) -> Result<CopyTarget> {
        let name = self.object_name()?;
        let columns = if *self.peek() == Token::LParen { self.parenthesized(Grammar::identifier)? } else { Vec::new() };
        Ok(CopyTarget::Relation { name, columns })
    }

    /// STDIN and STDOUT, and nothing of the server's.
    fn copy_endpoint(&mut self, from: bool) -> Result<()> {
        // PostgreSQL takes either word for both.
        if self.eat("STDIN") || self.eat("STDOUT") {
            return Ok(());
        }
        let what = if self.is("PROGRAM") {
            "programs"
        } else if matches!(self.peek(), Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_)) {
            "files"
        } else {
            return Err(self.unexpected(if from { "STDIN" } else { "STDOUT" }));
        };
        let hint = if from {
            "send the data: COPY … FROM STDIN, in psql \\copy"
        } else {
            "take the data: COPY … TO STDOUT, in psql \\copy"
        };
        let message = format!("COPY does not reach the server's {what}");
        Err(Error::insufficient_privilege(message).with_hint(hint).at(self.position()))
    }

    /// `(FORMAT csv, HEADER, DELIMITER ',')`.
    fn copy_option_list(&mut self, options: &mut CopyOptions) -> Result<()> {
        self.parenthesized(|grammar| {
            let position = grammar.position();
            let key = grammar.option_key()?;
            match key.as_str() {
                "format" => options.format = Some(grammar.copy_format()?),
                "header" if grammar.eat("MATCH") => (options.header, options.header_match) = (true, true),
                "header" => options.header = grammar.switch()?,
                "delimiter" => options.delimiter = Some(grammar.copy_byte("delimiter")?),
                "null" => options.null = Some(grammar.string()?),
                "quote" => options.quote = Some(grammar.copy_byte("quote")?),
                "escape" => options.escape = Some(grammar.copy_byte("escape")?),
                "force_quote" => options.force_quote = grammar.copy_columns()?,
                "force_null" => options.force_null = grammar.copy_columns()?,
                "force_not_null" => options.force_not_null = grammar.copy_columns()?,
                "encoding" => grammar.copy_encoding()?,
                // Nothing to freeze: rows are stored once.
                "freeze" => drop(grammar.switch()?),
                _ => return Err(Error::syntax(format!("option \"{key}\" not recognized")).at(position)),
            }
            Ok(())
        })?;
        Ok(())
    }

    /// An option in the older spelling: `CSV HEADER DELIMITER AS ','`.
    fn copy_word(&mut self, options: &mut CopyOptions) -> Result<bool> {
        if self.eat("CSV") {
            options.format = Some(CopyFormat::Csv);
        } else if self.eat("BINARY") {
            options.format = Some(CopyFormat::Binary);
        } else if self.eat("JSON") {
            options.format = Some(CopyFormat::Json);
        } else if self.eat("HEADER") {
            options.header = true;
            options.header_match = self.eat("MATCH");
        } else if self.eat("FREEZE") {
            // Nothing to freeze: rows are stored once.
        } else if let Some(word) = self.eat_one(&["DELIMITERS", "DELIMITER", "NULL", "QUOTE", "ESCAPE", "ENCODING"]) {
            let _ = self.eat("AS");
            match word {
                "NULL" => options.null = Some(self.string()?),
                "QUOTE" => options.quote = Some(self.copy_byte("quote")?),
                "ESCAPE" => options.escape = Some(self.copy_byte("escape")?),
                "ENCODING" => self.copy_encoding()?,
                _ => options.delimiter = Some(self.copy_byte("delimiter")?),
            }
        } else if self.eat("FORCE QUOTE") {
            options.force_quote = self.copy_columns()?;
        } else if self.eat("FORCE NOT NULL") {
            options.force_not_null = self.copy_columns()?;
        } else if self.eat("FORCE NULL") {
            options.force_null = self.copy_columns()?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn copy_format(&mut self) -> Result<CopyFormat> {
        let position = self.position();
        let format = self.option_value()?;
        match format.to_ascii_lowercase().as_str() {
            "text" => Ok(CopyFormat::Text),
            "csv" => Ok(CopyFormat::Csv),
            "binary" => Ok(CopyFormat::Binary),
            "json" | "jsonl" | "ndjson" => Ok(CopyFormat::Json),
            _ => {
                let error = Error::invalid_parameter(format!("COPY format \"{format}\" not recognized")).at(position);
                Err(error.with_hint("formats are text, csv, binary and json (one object a line)"))
            }
        }
    }

    fn copy_byte(&mut self, what: &str) -> Result<u8> {
        let position = self.position();
        match self.string()?.as_bytes() {
            [byte] => Ok(*byte),
            _ => Err(Error::unsupported(format!("COPY {what} must be a single one-byte character")).at(position)),
        }
    }

    fn copy_encoding(&mut self) -> Result<()> {
        let position = self.position();
        let encoding = self.option_value()?;
        match encoding.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "utf8" | "unicode" | "sqlascii" => Ok(()),
            _ => Err(Error::unsupported(format!("encoding \"{encoding}\" is not supported: only UTF8 is")).at(position)),
        }
    }

    /// `*`, `(a, b)`, `a, b`; `*` comes as one column "*".
    fn copy_columns(&mut self) -> Result<Vec<String>> {
        if self.eat_token(&Token::Mul) {
            return Ok(vec!["*".into()]);
        }
        let columns = if *self.peek() == Token::LParen {
            self.parenthesized(Grammar::identifier)?
        } else {
            self.comma_separated(Grammar::identifier)?
        };
        let folded =
            |name: sqlparser::ast::Ident| if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() };
        Ok(columns.into_iter().map(folded).collect())
    }
}

impl CopyOptions {
    fn finish(self, target: CopyTarget, from: bool) -> Result<Copy> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let csv = format == CopyFormat::Csv;
        let only_csv = [
            ("QUOTE", self.quote.is_some()),
            ("ESCAPE", self.escape.is_some()),
            ("FORCE_QUOTE", !self.force_quote.is_empty()),
            ("FORCE_NULL", !self.force_null.is_empty()),
            ("FORCE_NOT_NULL", !self.force_not_null.is_empty()),
        ];
        if let Some((option, _)) = only_csv.iter().find(|(_, given)| *given && !csv) {
            return Err(Error::unsupported(format!("COPY {option} requires CSV mode")).with_hint("write (FORMAT csv, …)"));
        }
        let lines = matches!(format, CopyFormat::Text | CopyFormat::Csv);
        let only_lines = [("HEADER", self.header), ("DELIMITER", self.delimiter.is_some()), ("NULL", self.null.is_some())];
        if let Some((option, _)) = only_lines.iter().find(|(_, given)| *given && !lines) {
            return Err(Error::unsupported(format!("cannot specify {option} with this COPY format")));
        }
        if self.header_match && !from {
            return Err(Error::unsupported("cannot use HEADER MATCH with COPY TO"));
        }
        if matches!(self.delimiter, Some(b'\n' | b'\r')) {
            return Err(Error::invalid_parameter("COPY delimiter cannot be newline or carriage return"));
        }
        if csv && self.delimiter.unwrap_or(b',') == self.quote.unwrap_or(b'"') {
            return Err(Error::invalid_parameter("COPY delimiter and quote must be different"));
        }
        Ok(Copy {
            target,
            from,
            format,
            header: self.header,
            header_match: self.header_match,
            delimiter: self.delimiter,
            null: self.null,
            quote: self.quote,
            escape: self.escape,
            force_quote: self.force_quote,
            force_null: self.force_null,
            force_not_null: self.force_not_null,
        })
    }
}
