//! From text to statements: what does the client want, in whatever spelling?
//!
//! ```text
//! text ──tokens──► tokens of each statement ──rewrite──► tokens that sqlparser reads ──statement──► ast::Statement
//!                  (absolute positions)      (WINDOW TUMBLING, JOIN … WITHIN)    │
//!                                                                   query ──window──► one form of all time windows
//! ```
//!
//! Our statements are read by hand over [`sqlparser::parser::Parser`]'s tokens ([`Grammar`]); expressions, queries, INSERT, UPDATE and
//! DELETE are sqlparser's, with [`dialect`]'s hooks. Text is never searched and never printed from a tree: texts are slices of the
//! source. Whatever comes in, parsing ends soon, in bounded stack, with a statement or an error with its position.

mod as_of;
mod columns;
mod copy;
mod create;
mod cursor;
mod dialect;
mod explain;
mod function;
mod grammar;
mod grant;
mod index;
mod interval;
mod join;
mod json;
mod message;
mod options;
mod pattern;
mod query;
mod rewrite;
mod role;
mod schema;
mod session;
mod show;
mod statement;
mod tokens;
mod types;
mod values;
mod window;
mod window_call;
mod window_value;
mod with;

#[cfg(test)]
mod tests;

use sqlparser::ast as sp;
use sqlparser::tokenizer::TokenWithSpan;

pub use cursor::backward;
pub(in crate::sql) use window_value::in_from as window_in_from;
pub use with::returned;

use crate::error::{Error, Result};
use crate::sql::ast::{Parsed, Statement};
use dialect::StreamDialect;
use grammar::Grammar;

/// All statements of `sql`, separated by semicolons; empty ones are left out.
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    tokens::statements(sql)?.into_iter().map(|tokens| parse_one(sql, tokens)).collect()
}

/// The text of a query, as the catalog keeps it.
pub fn parse_query(sql: &str) -> Result<Box<sp::Query>> {
    match parse(sql)?.pop().map(|parsed| parsed.statement) {
        Some(Statement::Query { query, .. }) => Ok(query),
        _ => Err(Error::syntax(format!("not a query: {sql}"))),
    }
}

/// The text of an expression, as the catalog keeps it: a default, a computed column, a watermark.
pub fn parse_expression(sql: &str) -> Result<sp::Expr> {
    let tokens = tokens::statements(sql)?.into_iter().next().unwrap_or_default();
    with_grammar(sql, tokens, |grammar| {
        let expression = grammar.expression()?;
        grammar.expect_end()?;
        Ok(expression.expr)
    })
}

/// The body of a function, as the catalog keeps it.
pub fn parse_body(sql: &str) -> Result<sp::Expr> {
    let mut statements = tokens::statements(sql)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(tokens), None) => with_grammar(sql, tokens, |grammar| grammar.function_body()),
        _ => Err(Error::invalid_function_definition("the body of a function is one expression, or SELECT and one expression")),
    }
}

/// The name of a type, as the catalog keeps it.
pub fn parse_type(sql: &str) -> Result<sp::DataType> {
    let tokens = tokens::statements(sql)?.into_iter().next().unwrap_or_default();
    with_grammar(sql, tokens, |grammar| {
        let data_type = grammar.data_type()?;
        grammar.expect_end()?;
        Ok(data_type)
    })
}

fn parse_one(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Parsed> {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return Err(Error::syntax("a statement is empty"));
    };
    let (from, to) = (first.span.start, last.span.end);
    let notices = tokens::cut_names(sql, &tokens);
    let (statement, text) = with_grammar(sql, tokens, |grammar| {
        let statement = grammar.statement()?;
        grammar.expect_end()?;
        Ok((statement, grammar.shown(from, to)))
    })?;
    Ok(Parsed { statement, sql: text, offset: from.column.saturating_sub(1) as u32, notices })
}

fn with_grammar<T>(sql: &str, tokens: Vec<TokenWithSpan>, read: impl FnOnce(&mut Grammar) -> Result<T>) -> Result<T> {
    let (tokens, window_options) = rewrite::rewrite(tokens)?;
    let dialect = StreamDialect::new(&tokens);
    read(&mut Grammar::new(sql, &dialect, tokens, window_options))
}
