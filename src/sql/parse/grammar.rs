//! The tokens of a statement, and the small words of its grammar: is this next? take it, or say what is wrong here.
//!
//! Keywords are compared as words, so ours need not be sqlparser's. Names are taken as they are written; who looks them up folds them.

use sqlparser::ast as sp;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::dialect::StreamDialect;
use super::message;
use super::tokens::{is_word, position, slice};
use crate::error::{Error, Result};
use crate::limits::PARSER_RECURSION;
use crate::sql::ast::{Options, Password, SqlExpr};

/// Reads one statement.
pub(super) struct Grammar<'a> {
    parser: Parser<'a>,
    dialect: &'a StreamDialect,
    sql: &'a str,
    /// What ksqlDB's WINDOW clause says of the view as a whole.
    pub window_options: Options,
    /// May PARTITION BY follow the query, as in ksqlDB?
    pub takes_partition: bool,
    /// The columns that it named.
    pub partition_by: Option<Vec<sp::Ident>>,
    /// Statements in statements: EXPLAIN EXPLAIN …
    pub depth: usize,
    /// Where passwords stand: whoever keeps or shows the text leaves these out.
    secrets: Vec<(Location, Location)>,
}

impl<'a> Grammar<'a> {
    pub fn new(sql: &'a str, dialect: &'a StreamDialect, tokens: Vec<TokenWithSpan>, window_options: Options) -> Grammar<'a> {
        let parser = Parser::new(dialect).with_recursion_limit(PARSER_RECURSION).with_tokens_with_locations(tokens);
        Grammar {
            parser,
            dialect,
            sql,
            window_options,
            takes_partition: false,
            partition_by: None,
            depth: 0,
            secrets: Vec::new(),
        }
    }

    /// Lets sqlparser read on from here.
    pub fn read<T>(&mut self, f: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>) -> Result<T> {
        f(&mut self.parser).map_err(|error| self.explain_failure(&error))
    }

    /// Reads what is in so many of the next tokens, all of them.
    pub fn within<T>(&mut self, count: usize, read: impl FnOnce(&mut Grammar<'a>) -> Result<T>) -> Result<T> {
        let next = self.parser.index();
        let tokens = (next..next + count).map(|at| self.parser.token_at(at).clone()).collect();
        let mut inner = Grammar::new(self.sql, self.dialect, tokens, std::mem::take(&mut self.window_options));
        inner.depth = self.depth;
        let found = read(&mut inner)?;
        inner.expect_end()?;
        self.window_options = inner.window_options;
        (0..count).for_each(|_| self.parser.advance_token());
        Ok(found)
    }

    fn explain_failure(&self, error: &ParserError) -> Error {
        if *error == ParserError::RecursionLimitExceeded || self.dialect.is_exhausted() {
            let at = position(self.parser.get_current_token());
            let error = Error::statement_too_complex("statement is too complex: it is nested too deeply, or too long a chain");
            return if at > 0 { error.at(at) } else { error };
        }
        let error = message::from_parser(error, self.sql, &self.parser);
        let furthest = self.parser.token_at(self.dialect.furthest());
        if furthest.token != Token::EOF && error.position().is_some_and(|at| at < position(furthest)) {
            return message::unexpected(self.sql, &self.parser, furthest, None);
        }
        error
    }

    pub fn peek(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    pub fn peek_nth(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    /// Takes a token.
    pub fn next(&mut self) -> Token {
        self.parser.next_token().token
    }

    pub fn skip(&mut self, count: usize) {
        (0..count).for_each(|_| self.parser.advance_token());
    }

    pub fn at_end(&self) -> bool {
        *self.peek() == Token::EOF
    }

    pub fn is(&self, word: &str) -> bool {
        self.is_nth(0, word)
    }

    pub fn is_nth(&self, n: usize, word: &str) -> bool {
        is_word(self.peek_nth(n), word)
    }

    /// Are these words (in one string, separated by spaces) next?
    pub fn is_all(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| self.is_nth(n, word))
    }

    /// Takes these words if they are next, all of them or none.
    pub fn eat(&mut self, words: &str) -> bool {
        let found = self.is_all(words);
        if found {
            self.skip(words.split(' ').count());
        }
        found
    }

    /// Takes one of these words.
    pub fn eat_one<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        words.iter().copied().find(|word| self.eat(word))
    }

    pub fn expect(&mut self, words: &str) -> Result<()> {
        for word in words.split(' ') {
            if !self.eat(word) {
                return Err(self.unexpected(word));
            }
        }
        Ok(())
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.unexpected(&token.to_string())) }
    }

    pub fn expect_end(&mut self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected("end of statement")) }
    }

    /// `item, item, …`
    pub fn comma_separated<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `(item, item, …)`
    pub fn parenthesized<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let items = self.comma_separated(item)?;
        self.expect_token(&Token::RParen)?;
        Ok(items)
    }

    /// A syntax error at the next token.
    pub fn unexpected(&self, expected: &str) -> Error {
        message::unexpected(self.sql, &self.parser, self.parser.peek_token_ref(), Some(expected))
    }

    /// Position of the next token; past the end, of the end.
    pub fn position(&self) -> u32 {
        match self.parser.peek_token_ref() {
            token if token.token == Token::EOF => message::end_position(self.sql),
            token => position(token),
        }
    }

    pub fn unsupported(&self, message: impl Into<String>) -> Error {
        Error::unsupported(message).at(self.position())
    }

    pub fn object_name(&mut self) -> Result<sp::ObjectName> {
        if !matches!(self.peek(), Token::Word(_)) {
            return Err(self.unexpected("a name"));
        }
        self.read(|parser| parser.parse_object_name(false))
    }

    pub fn identifier(&mut self) -> Result<sp::Ident> {
        if !matches!(self.peek(), Token::Word(_)) {
            return Err(self.unexpected("a name"));
        }
        self.read(|parser| parser.parse_identifier())
    }

    /// A string literal of any kind.
    pub fn string(&mut self) -> Result<String> {
        match self.peek().clone() {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) | Token::UnicodeStringLiteral(text) => {
                self.skip(1);
                Ok(text)
            }
            Token::DollarQuotedString(text) => {
                self.skip(1);
                Ok(text.value)
            }
            _ => Err(self.unexpected("a string")),
        }
    }

    /// A string that nobody is to see again. What stands in its place is not repeated in an error either.
    pub fn secret(&mut self) -> Result<Password> {
        let (from, position) = (self.here(), self.position());
        let text = self.string().map_err(|_| Error::syntax("PASSWORD needs a string in single quotes").at(position))?;
        self.secrets.push((from, self.last_end()));
        Ok(Password(text))
    }

    /// The text between two places, without secrets.
    pub fn shown(&self, from: Location, to: Location) -> String {
        let mut text = String::new();
        let mut at = from;
        for (secret, after) in &self.secrets {
            text += slice(self.sql, at, *secret);
            text += "'********'";
            at = *after;
        }
        text + slice(self.sql, at, to)
    }

    pub fn number(&mut self) -> Result<u64> {
        let number = match self.peek() {
            Token::Number(text, _) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected("a whole number"))?;
        self.skip(1);
        Ok(number)
    }

    pub fn data_type(&mut self) -> Result<sp::DataType> {
        self.read(|parser| parser.parse_data_type())
    }

    /// An expression and its text.
    pub fn expression(&mut self) -> Result<SqlExpr> {
        let from = self.here();
        let mut expr = self.read(|parser| parser.parse_expr())?;
        super::window::normalize(&mut expr)?;
        Ok(SqlExpr { expr, sql: self.text_since(from).to_string() })
    }

    /// Where the next token starts.
    pub fn here(&self) -> Location {
        self.parser.peek_token_ref().span.start
    }

    /// Where the last token that was taken ends.
    pub fn last_end(&self) -> Location {
        self.parser.get_current_token().span.end
    }

    /// The source from a place to the end of the last token that was taken.
    pub fn text_since(&self, from: Location) -> &'a str {
        slice(self.sql, from, self.last_end())
    }

    /// The index of the next token, to come back to.
    pub fn index(&self) -> usize {
        self.parser.index()
    }
    /// The token at an index, and where it stands.
    pub fn token_at(&self, index: usize) -> &TokenWithSpan {
        self.parser.token_at(index)
    }
}
