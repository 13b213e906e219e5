//! Cursors and prepared statements.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::options::milliseconds;
use crate::error::{Error, Result};
use crate::sql::ast::{FetchCount, Statement};

impl Grammar<'_> {
    /// `DECLARE c [BINARY] [INSENSITIVE | ASENSITIVE] [[NO] SCROLL] CURSOR [{WITH | WITHOUT} HOLD] FOR {query | SUBSCRIBE …}`.
    pub(super) fn declare(&mut self) -> Result<Statement> {
        self.skip(1);
        let name = self.identifier()?;
        loop {
            if self.is("BINARY") || self.is("SCROLL") {
                let hint = "cursors here only move forward, and send text unless the protocol asks for binary";
                return Err(self.unsupported("BINARY and SCROLL cursors are not supported").with_hint(hint));
            }
            if self.eat_one(&["INSENSITIVE", "ASENSITIVE", "NO SCROLL"]).is_none() {
                break;
            }
        }
        self.expect("CURSOR")?;
        let hold = self.eat_one(&["WITH HOLD", "WITHOUT HOLD"]) == Some("WITH HOLD");
        self.expect("FOR")?;
        if !self.is_query() && !self.is("SUBSCRIBE") {
            return Err(self.unexpected("a query or SUBSCRIBE"));
        }
        Ok(Statement::Declare { name, query: Box::new(self.statement()?), hold })
    }

    /// `FETCH [NEXT | FIRST | ABSOLUTE n | RELATIVE n | n | ALL | FORWARD [n | ALL]] [FROM | IN] c [WITH (timeout = '1s')]`.
    pub(super) fn fetch(&mut self) -> Result<Statement> {
        self.skip(1);
        let (count, cursor) = self.movement()?;
        let mut timeout_ms = None;
        if self.is("WITH") && *self.peek_nth(1) == Token::LParen {
            self.skip(2);
            let position = self.position();
            let key = self.option_key()?;
            if key != "timeout" {
                return Err(Error::syntax(format!("FETCH has no option \"{key}\""))
                    .with_hint("write WITH (timeout = '1s')")
                    .at(position));
            }
            self.expect_token(&Token::Eq)?;
            let position = self.position();
            let value = self.option_value()?;
            let wrong =
                || Error::invalid_parameter(format!("\"{value}\" is no length of time")).with_hint("write '1s' or '500ms'");
            timeout_ms = Some(milliseconds(&value).ok_or_else(|| wrong().at(position))?);
            self.expect_token(&Token::RParen)?;
        }
        Ok(Statement::Fetch { cursor, count, timeout_ms })
    }

    pub(super) fn move_cursor(&mut self) -> Result<Statement> {
        self.skip(1);
        let (count, cursor) = self.movement()?;
        Ok(Statement::Move { cursor, count })
    }

    fn movement(&mut self) -> Result<(FetchCount, sqlparser::ast::Ident)> {
        // A cursor may be called like a direction: FETCH next.
        let count = if matches!(self.peek_nth(1), Token::EOF) { FetchCount::Rows(1) } else { self.fetch_count()? };
        let _ = self.eat_one(&["FROM", "IN"]);
        Ok((count, self.identifier()?))
    }

    fn fetch_count(&mut self) -> Result<FetchCount> {
        let position = self.position();
        let names_cursor = self.is_nth(1, "WITH");
        if !names_cursor && ["PRIOR", "LAST", "BACKWARD"].iter().any(|word| self.is(word)) || *self.peek() == Token::Minus {
            return Err(backward().at(position));
        }
        if names_cursor || self.is("FROM") || self.is("IN") {
            return Ok(FetchCount::Rows(1));
        }
        if self.eat("NEXT") {
            return Ok(FetchCount::Rows(1));
        }
        if self.eat("FIRST") {
            return Ok(FetchCount::Absolute(1));
        }
        if let Some(word) = self.eat_one(&["ABSOLUTE", "RELATIVE"]) {
            if *self.peek() == Token::Minus {
                return Err(backward().at(position));
            }
            let number = self.number()?;
            return Ok(if word == "ABSOLUTE" { FetchCount::Absolute(number) } else { FetchCount::Relative(number) });
        }
        let forward = self.eat("FORWARD");
        if self.eat("ALL") {
            return Ok(FetchCount::All);
        }
        match self.peek() {
            Token::Number(..) => Ok(FetchCount::Rows(self.number()?)),
            _ if forward || matches!(self.peek(), Token::Word(_)) => Ok(FetchCount::Rows(1)),
            _ => Err(self.unexpected("a number of rows, NEXT, ALL, or a cursor")),
        }
    }

    pub(super) fn close(&mut self) -> Result<Statement> {
        self.skip(1);
        Ok(Statement::Close(if self.eat("ALL") { None } else { Some(self.identifier()?) }))
    }

    /// `PREPARE name [(type, …)] AS statement`.
    pub(super) fn prepare(&mut self) -> Result<Statement> {
        self.skip(1);
        if self.is("TRANSACTION") && matches!(self.peek_nth(1), Token::SingleQuotedString(_)) {
            return Err(self.unsupported("two-phase commit is not supported"));
        }
        let name = self.identifier()?;
        let types = if *self.peek() == Token::LParen { self.parenthesized(Grammar::data_type)? } else { Vec::new() };
        self.expect("AS")?;
        let preparable = self.is_query() || ["INSERT", "UPDATE", "DELETE", "SUBSCRIBE"].iter().any(|word| self.is(word));
        if !preparable {
            return Err(self.unexpected("a query, INSERT, UPDATE, DELETE or SUBSCRIBE"));
        }
        Ok(Statement::Prepare { name, types, statement: Box::new(self.statement()?) })
    }

    /// `EXECUTE name [(value, …)]`.
    pub(super) fn execute(&mut self) -> Result<Statement> {
        self.skip(1);
        let name = self.identifier()?;
        let arguments = match self.peek() {
            Token::LParen if *self.peek_nth(1) == Token::RParen => {
                self.skip(2);
                Vec::new()
            }
            Token::LParen => self.parenthesized(|grammar| Ok(grammar.expression()?.expr))?,
            _ => Vec::new(),
        };
        Ok(Statement::Execute { name, arguments })
    }

    pub(super) fn deallocate(&mut self) -> Result<Statement> {
        self.skip(1);
        let _ = self.is("PREPARE") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("PREPARE");
        Ok(Statement::Deallocate(if self.eat("ALL") { None } else { Some(self.identifier()?) }))
    }
}

/// What a cursor says that is asked for rows it has passed.
pub fn backward() -> Error {
    Error::not_ready("cursor can only scan forward").with_hint("FETCH n, NEXT, ALL, and FIRST, ABSOLUTE and RELATIVE go forward")
}
