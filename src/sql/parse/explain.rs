//! EXPLAIN, and the statements that follow or check a relation: SUBSCRIBE, VERIFY, PRINT.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::options::boolean;
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::sql::ast::{ExplainOf, Statement, Subscribe, SubscribeTarget};

/// Words that start a statement, so that `EXPLAIN x` with another one explains the relation x.
const EXPLAINABLE: [&str; 9] = ["SUBSCRIBE", "INSERT", "UPDATE", "DELETE", "CREATE", "DECLARE", "EXECUTE", "COPY", "VALUES"];

/// Options of PostgreSQL's that say how much to show; there is nothing more to show here.
const IGNORED: [&str; 9] = ["costs", "settings", "generic_plan", "buffers", "serialize", "wal", "timing", "summary", "memory"];

impl Grammar<'_> {
    pub(super) fn explain(&mut self) -> Result<Statement> {
        self.skip(1);
        let (mut analyze, mut verbose, mut format) = (false, false, None);
        // ( may also open a query.
        if *self.peek() == Token::LParen
            && !["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| self.is_nth(1, word))
            && *self.peek_nth(1) != Token::LParen
        {
            self.parenthesized(|grammar| {
                let position = grammar.position();
                let key = grammar.option_key()?;
                match key.as_str() {
                    "analyze" | "analyse" => analyze = grammar.explain_switch()?,
                    "verbose" => verbose = grammar.explain_switch()?,
                    "format" => format = Some(grammar.explain_format()?),
                    key if IGNORED.contains(&key) => {
                        if matches!(grammar.peek(), Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_)) {
                            grammar.skip(1);
                        }
                    }
                    _ => return Err(Error::syntax(format!("unrecognized EXPLAIN option \"{key}\"")).at(position)),
                }
                Ok(())
            })?;
        } else {
            analyze = self.eat("ANALYZE") || self.eat("ANALYSE");
            verbose = self.eat("VERBOSE");
            if self.is("FORMAT") && matches!(self.peek_nth(1), Token::Word(_)) && !matches!(self.peek_nth(2), Token::EOF) {
                self.skip(1);
                format = Some(self.explain_format()?);
            }
        }
        let of = if self.is_query() || EXPLAINABLE.iter().any(|word| self.is(word) && !matches!(self.peek_nth(1), Token::EOF)) {
            ExplainOf::Statement(Box::new(self.statement()?))
        } else {
            let _ = self.eat_one(&["MATERIALIZED VIEW", "VIEW"]);
            ExplainOf::Name(self.object_name()?)
        };
        Ok(Statement::Explain { analyze, verbose, format, of })
    }

    /// `analyze`, `analyze true`, `analyze off`.
    fn explain_switch(&mut self) -> Result<bool> {
        if matches!(self.peek(), Token::Comma | Token::RParen) {
            return Ok(true);
        }
        let position = self.position();
        let value = self.option_value()?;
        boolean(&value).ok_or_else(|| Error::syntax(format!("\"{value}\" is neither true nor false")).at(position))
    }

    fn explain_format(&mut self) -> Result<String> {
        let position = self.position();
        let format = self.option_value()?.to_ascii_lowercase();
        if ["text", "json", "xml", "yaml", "tree", "graphviz", "dot"].contains(&format.as_str()) {
            return Ok(format);
        }
        Err(Error::invalid_parameter(format!("unrecognized value for EXPLAIN option \"format\": \"{format}\"")).at(position))
    }

    /// `SUBSCRIBE [TO] {name | (query)} [WITH (SNAPSHOT [= bool], PROGRESS [= bool])] [AS OF n] [UP TO n]`.
    pub(super) fn subscribe(&mut self) -> Result<Statement> {
        self.skip(1);
        let _ = self.is("TO") && !matches!(self.peek_nth(1), Token::EOF) && self.eat("TO");
        let target = if self.eat_token(&Token::LParen) {
            let position = self.position();
            let query = self.query()?;
            if query.emit.is_some_and(|emit| emit != Emit::Changes) {
                let error = Error::unsupported("SUBSCRIBE to a query with EMIT FINAL or a delay is not supported").at(position);
                return Err(error.with_hint("CREATE MATERIALIZED VIEW … EMIT … and SUBSCRIBE to it"));
            }
            self.expect_token(&Token::RParen)?;
            SubscribeTarget::Query(query.query)
        } else {
            SubscribeTarget::Name(self.object_name()?)
        };
        let mut subscribe = Subscribe { target, snapshot: true, progress: false, as_of: None, up_to: None };
        loop {
            if self.is("WITH") && *self.peek_nth(1) == Token::LParen {
                self.skip(1);
                self.parenthesized(|grammar| grammar.subscribe_option(&mut subscribe))?;
            } else if subscribe.as_of.is_none() && self.eat_one(&["AS OF", "VERSION AS OF"]).is_some() {
                subscribe.as_of = Some(self.number()?);
            } else if subscribe.up_to.is_none() && self.eat("UP TO") {
                let _ = self.eat("COMMIT");
                subscribe.up_to = Some(self.number()?);
            } else {
                return Ok(Statement::Subscribe(subscribe));
            }
        }
    }

    fn subscribe_option(&mut self, subscribe: &mut Subscribe) -> Result<()> {
        let position = self.position();
        match self.option_key()?.as_str() {
            "snapshot" => subscribe.snapshot = self.switch()?,
            "progress" => subscribe.progress = self.switch()?,
            key => {
                let error = Error::syntax(format!("SUBSCRIBE has no option \"{key}\"")).at(position);
                return Err(error.with_hint("there are SNAPSHOT and PROGRESS"));
            }
        }
        Ok(())
    }

    pub(super) fn verify(&mut self) -> Result<Statement> {
        self.skip(1);
        let _ = self.eat_one(&["MATERIALIZED VIEW", "VIEW"]);
        Ok(Statement::Verify(self.object_name()?))
    }

    /// `PRINT stream [FROM BEGINNING] [LIMIT n]`.
    pub(super) fn print(&mut self) -> Result<Statement> {
        self.skip(1);
        let name = self.object_name()?;
        let from_beginning = self.eat("FROM BEGINNING");
        let limit = if self.eat("LIMIT") { Some(self.number()?) } else { None };
        Ok(Statement::Print { name, from_beginning, limit })
    }
}
