//! The parenthesised list of CREATE: columns, computed columns, the key, the watermark.

use sqlparser::ast as sp;
use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::window;
use crate::catalog::Identity;
use crate::error::{Error, Result};
use crate::limits::COLUMNS;
use crate::sql::ast::{CheckDef, ColumnDef, Options, SqlExpr, WatermarkDef};

/// What to do without UNIQUE, and without REFERENCES.
const KEYS_ALONE: &str = "only the PRIMARY KEY is unique: a row replaces the one of its key, or ON CONFLICT says what else";
const NO_REFERENCES: &str =
    "leave it out: rows are not held against other tables; a view shows those without: WHERE NOT EXISTS (SELECT …)";

#[derive(Default)]
pub(super) struct Columns {
    pub columns: Vec<ColumnDef>,
    pub primary_key: Vec<sp::Ident>,
    /// The key is said behind its columns.
    pub inline_key: bool,
    /// ksqlDB's `column type KEY`: of a table the primary key, of a stream what it is partitioned by.
    pub key: Vec<sp::Ident>,
    pub checks: Vec<CheckDef>,
    pub watermark: Option<WatermarkDef>,
}

impl Grammar<'_> {
    /// `( item, … )`.
    pub fn column_list(&mut self) -> Result<Columns> {
        self.expect_token(&Token::LParen)?;
        let mut columns = Columns::default();
        loop {
            self.item(&mut columns)?;
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(columns)
    }

    fn item(&mut self, columns: &mut Columns) -> Result<()> {
        if self.is_all("WATERMARK FOR") {
            return self.watermark(columns);
        }
        let named = self.is("CONSTRAINT") && matches!(self.peek_nth(1), Token::Word(_));
        let ahead = if named { 2 } else { 0 };
        if self.is_nth(ahead, "PRIMARY") && self.is_nth(ahead + 1, "KEY") {
            self.skip(ahead + 2);
            let position = self.position();
            let key = self.parenthesized(Grammar::identifier)?;
            let _ = self.eat("NOT ENFORCED");
            return set_primary_key(columns, key, position);
        }
        if let Some(check) = self.check()? {
            columns.checks.push(check);
            return Ok(());
        }
        if let Some(refused) = self.refused_constraint(ahead) {
            return Err(refused);
        }
        if named {
            self.skip(2);
            return Err(self.unexpected("PRIMARY KEY or CHECK"));
        }
        self.column(columns)
    }

    /// `[CONSTRAINT name] CHECK (e) [NO INHERIT]`, if it is next.
    pub(super) fn check(&mut self) -> Result<Option<CheckDef>> {
        let ahead = if self.is("CONSTRAINT") && matches!(self.peek_nth(1), Token::Word(_)) { 2 } else { 0 };
        if !self.is_nth(ahead, "CHECK") || *self.peek_nth(ahead + 1) != Token::LParen {
            return Ok(None);
        }
        let name = if self.eat("CONSTRAINT") { Some(self.identifier()?) } else { None };
        self.skip(2);
        let expression = self.expression()?;
        self.expect_token(&Token::RParen)?;
        let _ = self.eat("NO INHERIT");
        Ok(Some(CheckDef { name, expression }))
    }

    /// A constraint of PostgreSQL's that begins so many tokens ahead, and is not built.
    pub(super) fn refused_constraint(&self, ahead: usize) -> Option<Error> {
        const REFUSED: [(&str, &str, &str); 4] = [
            ("UNIQUE", "UNIQUE constraints are not supported", KEYS_ALONE),
            ("FOREIGN", "foreign keys are not supported", NO_REFERENCES),
            ("EXCLUDE", "EXCLUDE constraints are not supported", KEYS_ALONE),
            ("LIKE", "LIKE in CREATE TABLE is not supported", "write the columns; SHOW CREATE shows those of the other table"),
        ];
        let begins = |word: &str| {
            let follows = matches!(self.peek_nth(ahead + 1), Token::LParen) || self.is_nth(ahead + 1, "KEY") || word == "LIKE";
            let follows = follows || (word == "EXCLUDE" && self.is_nth(ahead + 1, "USING"));
            self.is_nth(ahead, word) && follows
        };
        let (_, message, hint) = REFUSED.into_iter().find(|(word, ..)| begins(word))?;
        Some(self.unsupported(message).with_hint(hint))
    }

    /// `WATERMARK FOR column [AS expression]`.
    pub fn watermark(&mut self, columns: &mut Columns) -> Result<()> {
        let position = self.position();
        self.skip(2);
        let column = self.identifier()?;
        let expression = if self.eat("AS") { Some(self.expression()?) } else { None };
        if columns.watermark.is_some() {
            return Err(Error::invalid_table_definition("a stream has one watermark").at(position));
        }
        columns.watermark = Some(WatermarkDef { column, expression });
        Ok(())
    }

    /// The column of ALTER … ADD COLUMN.
    pub(super) fn added_column(&mut self) -> Result<ColumnDef> {
        let position = self.position();
        let mut columns = Columns::default();
        self.column(&mut columns)?;
        if !columns.primary_key.is_empty() || !columns.key.is_empty() {
            return Err(Error::unsupported("a key cannot be added to a relation that has rows").at(position));
        }
        if !columns.checks.is_empty() {
            return Err(Error::unsupported("a column is added without CHECK")
                .at(position)
                .with_hint("ALTER TABLE … ADD CHECK (…) adds it"));
        }
        columns.columns.pop().ok_or_else(|| self.unexpected("a column"))
    }

    fn column(&mut self, columns: &mut Columns) -> Result<()> {
        let position = self.position();
        let name = self.identifier()?;
        let mut column =
            ColumnDef { name, data_type: None, not_null: false, default: None, generated: None, identity: None, comment: None };
        // Flink's computed column: `c AS e`.
        if self.eat("AS") {
            column.generated = Some(self.expression()?);
        } else if !self.is_all("GENERATED ALWAYS AS") {
            if matches!(self.peek(), Token::Comma | Token::RParen) {
                return Err(self.unexpected("the type of the column"));
            }
            match self.serial() {
                Some(data_type) => {
                    column.data_type = Some(data_type);
                    (column.identity, column.not_null) = (Some(Identity::default()), true);
                }
                None => column.data_type = Some(self.data_type()?),
            }
        }
        if columns.columns.len() >= COLUMNS {
            return Err(Error::limit_exceeded(format!("a relation has at most {COLUMNS} columns")).at(position));
        }
        if columns.columns.iter().any(|other| same(&other.name, &column.name)) {
            let message = format!("column \"{}\" specified more than once", folded(&column.name));
            return Err(Error::duplicate_column(message).at(position));
        }
        while self.column_option(&mut column, columns)? {}
        columns.columns.push(column);
        Ok(())
    }

    /// NOT NULL, DEFAULT e, GENERATED …: one of them, if it is next.
    fn column_option(&mut self, column: &mut ColumnDef, columns: &mut Columns) -> Result<bool> {
        let position = self.position();
        if self.eat("PRIMARY KEY") {
            let _ = self.eat("NOT ENFORCED");
            // ksqlDB's key of several columns: each says so.
            let is_new = !columns.primary_key.iter().any(|other| same(other, &column.name));
            if columns.inline_key && is_new {
                columns.primary_key.push(column.name.clone());
            } else {
                set_primary_key(columns, vec![column.name.clone()], position)?;
                columns.inline_key = true;
            }
            return Ok(true);
        }
        if self.eat("KEY") {
            columns.key.push(column.name.clone());
            return Ok(true);
        }
        if let Some(check) = self.check()? {
            columns.checks.push(check);
            return Ok(true);
        }
        if self.is("CONSTRAINT") {
            self.skip(1);
            self.identifier()?;
            return Ok(true);
        }
        if self.is("METADATA") || self.is("HEADERS") {
            return Err(self.unsupported("metadata columns are not supported yet"));
        }
        if self.is_all("GENERATED ALWAYS AS") && *self.peek_nth(3) == Token::LParen {
            self.skip(4);
            column.generated = Some(self.expression()?);
            self.expect_token(&Token::RParen)?;
            // Every computed column is stored, said or not.
            let _ = self.eat("STORED");
            return Ok(true);
        }
        if let Some(identity) = self.identity()? {
            (column.identity, column.not_null) = (Some(identity), true);
            return Ok(true);
        }
        let start = self.index();
        let Some(option) = self.read(|parser| parser.parse_optional_column_option())? else { return Ok(false) };
        match option {
            sp::ColumnOption::Null => {}
            sp::ColumnOption::NotNull => column.not_null = true,
            sp::ColumnOption::Comment(comment) => column.comment = Some(comment),
            sp::ColumnOption::Default(expr) => {
                let from = self.token_at(start + 1).span.start;
                column.default = Some(sql_expr(expr, self.text_since(from))?);
            }
            sp::ColumnOption::Collation(name) if is_c_collation(&name) => {}
            sp::ColumnOption::Collation(_) => {
                return Err(Error::unsupported("text is ordered by its bytes: no COLLATE").at(position));
            }
            sp::ColumnOption::Unique(_) => {
                return Err(Error::unsupported("UNIQUE constraints are not supported").with_hint(KEYS_ALONE).at(position));
            }
            sp::ColumnOption::ForeignKey(_) => {
                return Err(Error::unsupported("foreign keys are not supported").with_hint(NO_REFERENCES).at(position));
            }
            _ => return Err(Error::unsupported("this column option is not supported").at(position)),
        }
        Ok(true)
    }

    /// The type that `SERIAL` and its sisters stand for.
    fn serial(&mut self) -> Option<sp::DataType> {
        match self.eat_one(&["SERIAL", "SERIAL4", "BIGSERIAL", "SERIAL8", "SMALLSERIAL", "SERIAL2"])? {
            "SERIAL" | "SERIAL4" => Some(sp::DataType::Integer(None)),
            "BIGSERIAL" | "SERIAL8" => Some(sp::DataType::BigInt(None)),
            _ => Some(sp::DataType::SmallInt(None)),
        }
    }

    /// `GENERATED {ALWAYS | BY DEFAULT} AS IDENTITY [(START WITH n INCREMENT BY n)]`.
    fn identity(&mut self) -> Result<Option<Identity>> {
        const FORMS: [&str; 2] = ["GENERATED ALWAYS AS IDENTITY", "GENERATED BY DEFAULT AS IDENTITY"];
        let Some(form) = self.eat_one(&FORMS) else { return Ok(None) };
        let mut identity = Identity { always: form == FORMS[0], ..Identity::default() };
        if !self.eat_token(&Token::LParen) {
            return Ok(Some(identity));
        }
        while !self.eat_token(&Token::RParen) {
            match self.eat_one(&["START WITH", "START", "INCREMENT BY", "INCREMENT", "CACHE"]) {
                Some("CACHE") => drop(self.number()?),
                Some("START WITH" | "START") => identity.start = self.integer()?,
                Some(_) => identity.step = self.step()?,
                None if self.eat_one(&["NO MINVALUE", "NO MAXVALUE", "NO CYCLE"]).is_some() => {}
                None => {
                    return Err(self
                        .unsupported("numbers of rows have no bounds but those of the column's type, and never come again")
                        .with_hint("the options are START WITH and INCREMENT BY"));
                }
            }
        }
        Ok(Some(identity))
    }

    fn step(&mut self) -> Result<i64> {
        let position = self.position();
        match self.integer()? {
            step @ 1.. => Ok(step),
            _ => Err(Error::unsupported("numbers of rows only rise: INCREMENT BY takes 1 and more").at(position)),
        }
    }

    fn integer(&mut self) -> Result<i64> {
        let is_negative = self.eat_token(&Token::Minus);
        let position = self.position();
        let number = i64::try_from(self.number()?);
        let number = number.map_err(|_| Error::numeric_out_of_range("the number does not fit into bigint").at(position))?;
        Ok(if is_negative { -number } else { number })
    }
}

/// ksqlDB's option `timestamp = 'ts'`: the watermark is on that column, and rises with it.
pub(super) fn take_timestamp(options: &mut Options, watermark: &mut Option<WatermarkDef>, position: u32) -> Result<()> {
    if options.contains_key("timestamp_format") {
        let error = Error::unsupported("the option timestamp_format is not supported").at(position);
        return Err(error.with_hint(
            "compute the time in a column: ts TIMESTAMP AS to_timestamp(text, 'yyyy-MM-dd HH:mm:ss'), WATERMARK FOR ts",
        ));
    }
    let Some(column) = options.remove("timestamp") else { return Ok(()) };
    if watermark.is_some() {
        let error = Error::invalid_table_definition("a stream has one watermark").at(position);
        return Err(error.with_hint("the option timestamp is another word for WATERMARK FOR"));
    }
    let column = match column.strip_prefix('`').and_then(|name| name.strip_suffix('`')) {
        Some(quoted) => sp::Ident::with_quote('"', quoted),
        None => sp::Ident::new(column),
    };
    *watermark = Some(WatermarkDef { column, expression: None });
    Ok(())
}

fn sql_expr(mut expr: sp::Expr, text: &str) -> Result<SqlExpr> {
    window::normalize(&mut expr)?;
    Ok(SqlExpr { expr, sql: text.to_string() })
}

fn set_primary_key(columns: &mut Columns, key: Vec<sp::Ident>, position: u32) -> Result<()> {
    if !columns.primary_key.is_empty() {
        return Err(Error::invalid_table_definition("multiple primary keys for one table are not allowed").at(position));
    }
    columns.primary_key = key;
    Ok(())
}

fn is_c_collation(name: &sp::ObjectName) -> bool {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|name| ["c", "posix", "default", "ucs_basic"].contains(&name.value.to_ascii_lowercase().as_str()))
}

/// As PostgreSQL folds names.
pub(super) fn folded(name: &sp::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

pub(super) fn same(a: &sp::Ident, b: &sp::Ident) -> bool {
    folded(a) == folded(b)
}
