//! CREATE INDEX, as PostgreSQL has it. What only says how an index is to be kept (its method, its order) means nothing here and
//! is passed over; what would make it another index is refused.

use sqlparser::ast as sp;
use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::error::{Error, Result};
use crate::sql::ast::{CreateIndex, Options, Statement};

impl Grammar<'_> {
    /// After CREATE; `None` if it is something else.
    pub(super) fn create_index(&mut self) -> Result<Option<Statement>> {
        let unique = self.eat("UNIQUE INDEX");
        if !unique && !self.eat("INDEX") {
            return Ok(None);
        }
        let _ = self.eat("CONCURRENTLY");
        let if_not_exists = self.eat("IF NOT EXISTS");
        let name = if self.is("ON") && !if_not_exists { None } else { Some(self.identifier()?) };
        self.expect("ON")?;
        let _ = self.is("ONLY") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("ONLY");
        let on = self.object_name()?;
        if self.eat("USING") {
            let method = self.identifier()?;
            if !["btree", "hash"].contains(&method.value.to_ascii_lowercase().as_str()) {
                let message = format!("access method \"{}\" does not exist", method.value);
                return Err(Error::undefined_object(message).with_hint("indexes are btree or hash, which are the same here"));
            }
        }
        let columns = self.parenthesized(Grammar::indexed_column)?;
        // An index finds rows, and these have all columns.
        let included = if self.eat("INCLUDE") { self.parenthesized(Grammar::identifier)? } else { Vec::new() };
        // RisingWave's, of which server keeps what: there is one.
        let distributed = if self.eat("DISTRIBUTED BY") { self.parenthesized(Grammar::identifier)? } else { Vec::new() };
        let mentioned = included.into_iter().chain(distributed).collect();
        if self.eat("NULLS NOT DISTINCT") {
            return Err(self.unsupported("NULLS NOT DISTINCT is not supported"));
        }
        let _ = self.eat("NULLS DISTINCT");
        if self.eat("WITH") {
            self.options(&mut Options::new())?;
        }
        if self.eat("TABLESPACE") {
            self.identifier()?;
        }
        if self.is("WHERE") {
            let error = self.unsupported("partial indexes are not supported");
            return Err(error.with_hint("leave WHERE out, or index a view over the rows that it would keep"));
        }
        Ok(Some(Statement::CreateIndex(CreateIndex { name, if_not_exists, unique, on, columns, mentioned })))
    }

    fn indexed_column(&mut self) -> Result<sp::Ident> {
        let is_column = matches!(self.peek(), Token::Word(_)) && *self.peek_nth(1) != Token::LParen;
        if !is_column {
            let error = self.unsupported("indexes on expressions are not supported");
            return Err(error.with_hint("index a column of a view that computes it"));
        }
        let column = self.identifier()?;
        if self.eat("COLLATE") {
            self.object_name()?;
        }
        // An operator class.
        let ends = ["ASC", "DESC", "NULLS"].iter().any(|word| self.is(word));
        if !ends && matches!(self.peek(), Token::Word(_)) {
            self.object_name()?;
        }
        let _ = self.eat_one(&["ASC", "DESC"]);
        let _ = self.eat_one(&["NULLS FIRST", "NULLS LAST"]);
        Ok(column)
    }
}
