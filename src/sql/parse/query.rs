//! Queries: sqlparser's, then EMIT, then one form for all time windows.

use sqlparser::ast as sp;
use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::{interval, window};
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::limits::LEAST_PERIOD;
use crate::time::Micros;

/// A query as it was read.
pub(super) struct Query {
    pub query: Box<sp::Query>,
    /// As written, without EMIT.
    pub sql: String,
    pub emit: Option<Emit>,
}

impl Grammar<'_> {
    /// Does a query start here?
    pub fn is_query(&self) -> bool {
        ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| self.is(word)) || *self.peek() == Token::LParen
    }

    /// `SELECT … [EMIT …] [LIMIT n]`, VALUES, WITH …, `TABLE s`, in parentheses.
    pub fn query(&mut self) -> Result<Query> {
        let position = self.position();
        let query = self.query_or_change()?;
        refuse(&query.query).map_err(|error| error.at(position))?;
        Ok(query)
    }

    /// The same, and WITH before an INSERT, UPDATE or DELETE.
    pub(super) fn query_or_change(&mut self) -> Result<Query> {
        if !self.is_query() {
            return Err(self.unexpected("a query"));
        }
        if self.is("WITH") && self.is_nth(2, "AS") && self.is_nth(3, "CHANGELOG") && self.is_nth(4, "FROM") {
            self.skip(3);
            let error = self.unsupported("CHANGELOG FROM in a query is not supported");
            return Err(error.with_hint(
                "CREATE STREAM c AS CHANGELOG OF name writes each change as a row, to be read from there; SUBSCRIBE TO name shows them",
            ));
        }
        let (from, position) = (self.here(), self.position());
        let mut query = self.read(|parser| parser.parse_query())?;
        let mut sql = self.text_since(from).to_string();
        let partitioned = self.trailing_partition()?;
        let (emit, lateness) = self.emit()?;
        if lateness.is_some() && partitioned {
            let error = Error::unsupported("PARTITION BY behind a query with EMIT FINAL WITH DELAY is not supported");
            return Err(error.with_hint("write it before AS").at(position));
        }
        if lateness.is_some() {
            // It says something of the windows, so the text is not the query without it.
            sql = self.text_since(from).to_string();
        }
        if emit.is_some() && self.is("LIMIT") && query.limit_clause.is_none() {
            let from = self.here();
            self.expect("LIMIT")?;
            let limit = self.read(|parser| parser.parse_expr())?;
            query.limit_clause = Some(sp::LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by: Vec::new() });
            sql = format!("{sql} {}", self.text_since(from));
        }
        let located = |error: Error| if error.position().is_none() { error.at(position) } else { error };
        window::normalize(query.as_mut()).map_err(located)?;
        if let Some(lateness) = lateness {
            window::delay(query.as_mut(), lateness).map_err(located)?;
        }
        Ok(Query { query, sql, emit })
    }

    /// `CREATE STREAM … AS SELECT … PARTITION BY column`, which is no part of the query.
    fn trailing_partition(&mut self) -> Result<bool> {
        if !self.takes_partition || !self.eat("PARTITION BY") {
            return Ok(false);
        }
        let plain = |grammar: &mut Self| {
            let column = grammar.identifier()?;
            match grammar.peek() {
                Token::Comma | Token::RParen | Token::EOF => Ok(column),
                _ if grammar.is("EMIT") => Ok(column),
                _ => {
                    Err(grammar.unexpected("a column of the query").with_hint("compute it in SELECT, and give it a name with AS"))
                }
            }
        };
        let columns = match self.peek() {
            Token::LParen => self.parenthesized(plain)?,
            _ => self.comma_separated(plain)?,
        };
        self.partition_by = Some(columns);
        Ok(true)
    }

    /// `EMIT CHANGES | ON UPDATE | FINAL | ON WINDOW CLOSE | AFTER WINDOW CLOSE [WITH DELAY i] [AND TIMEOUT i]`, if it is next. The delay of what is
    /// final is a lateness of the query's windows, and comes beside it.
    pub fn emit(&mut self) -> Result<(Option<Emit>, Option<sp::Expr>)> {
        if !self.eat("EMIT") {
            return Ok((None, None));
        }
        let emit = match self.eat_one(&["CHANGES", "ON UPDATE", "FINAL", "ON WINDOW CLOSE", "AFTER WINDOW CLOSE"]) {
            Some("CHANGES" | "ON UPDATE") => Emit::Changes,
            Some(_) => Emit::Final,
            None => return Err(self.unexpected("CHANGES, ON UPDATE, FINAL, ON WINDOW CLOSE or AFTER WINDOW CLOSE")),
        };
        let delay = if self.eat("WITH DELAY") { Some((self.position(), self.delay()?)) } else { None };
        let position = self.position();
        let timeout = if self.eat("AND TIMEOUT") || self.eat("WITH TIMEOUT") { Some(self.delay()?) } else { None };
        match (emit, delay, timeout) {
            (Emit::Changes, _, Some(_)) => {
                let error =
                    Error::unsupported("AND TIMEOUT goes with EMIT FINAL: EMIT CHANGES shows windows before they are closed");
                Err(error.with_hint("leave it out, or make the stream WITH (idle_timeout = '30 seconds')").at(position))
            }
            (Emit::Changes, Some((position, delay)), _) => {
                let every = length(&delay, "the delay of EMIT CHANGES", "EMIT CHANGES WITH DELAY INTERVAL '5 seconds'");
                Ok((Some(Emit::Every(every.map_err(|error| error.at(position))?)), None))
            }
            (_, delay, Some(timeout)) => {
                let after = length(&timeout, "a timeout", "EMIT FINAL AND TIMEOUT INTERVAL '30 seconds'");
                let after = after.map_err(|error| error.at(position))?;
                Ok((Some(Emit::FinalOrSilent(after)), delay.map(|(_, delay)| delay)))
            }
            (emit, delay, None) => Ok((Some(emit), delay.map(|(_, delay)| delay))),
        }
    }

    /// `INTERVAL '5 seconds'`, `'5 seconds'`.
    fn delay(&mut self) -> Result<sp::Expr> {
        if let Token::SingleQuotedString(_) = self.peek() {
            let value = self.read(|parser| parser.parse_value())?;
            let interval = sp::Interval {
                value: Box::new(sp::Expr::Value(value)),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            };
            return Ok(sp::Expr::Interval(interval));
        }
        if !self.is("INTERVAL") {
            return Err(self.unexpected("a length of time, for example INTERVAL '5 seconds'"));
        }
        let mut delay = self.read(|parser| parser.parse_prefix())?;
        window::normalize(&mut delay)?;
        Ok(delay)
    }
}

/// A length of time that commits are measured by.
fn length(interval: &sp::Expr, what: &str, example: &str) -> Result<Micros> {
    interval::micros(interval).filter(|length| *length >= LEAST_PERIOD).ok_or_else(|| {
        let message = format!("{what} must be a length of time of a millisecond or more, and not of months");
        Error::invalid_parameter(message).with_hint(format!("write {example}"))
    })
}

/// Shapes that parse as queries and are none here.
pub(super) fn refuse(query: &sp::Query) -> Result<()> {
    refuse_ctes(query)?;
    refuse_body(&query.body, 0)
}

/// Of one level: what is further inside is looked at when it is met.
pub(super) fn refuse_ctes(query: &sp::Query) -> Result<()> {
    let mut ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    match ctes.any(|cte| is_change(&cte.query.body)) {
        false => Ok(()),
        true => Err(Error::unsupported("WITH clause containing a data-modifying statement must be at the top level").with_hint(
            "INSERT, UPDATE and DELETE in WITH are for statements by themselves, not for views, subqueries or cursors",
        )),
    }
}

fn refuse_body(body: &sp::SetExpr, depth: usize) -> Result<()> {
    match body {
        body if is_change(body) => {
            Err(Error::unsupported("INSERT, UPDATE, DELETE and MERGE are not supported inside of a query")
                .with_hint("write them as statements of their own; WITH may stand before INSERT, UPDATE and DELETE"))
        }
        sp::SetExpr::Select(select) if select.into.is_some() => {
            Err(Error::unsupported("SELECT INTO is not supported").with_hint("write CREATE TABLE name AS SELECT …"))
        }
        sp::SetExpr::Query(query) if depth < crate::limits::STATEMENT_NESTING => refuse_body(&query.body, depth + 1),
        _ => Ok(()),
    }
}

pub(super) fn is_change(body: &sp::SetExpr) -> bool {
    matches!(body, sp::SetExpr::Insert(_) | sp::SetExpr::Update(_) | sp::SetExpr::Delete(_) | sp::SetExpr::Merge(_))
}
