//! Types as Flink and RisingWave write them, on tokens.
//!
//! | written | becomes |
//! | --- | --- |
//! | `ROW<a INT, b STRING NOT NULL>`, `ROW(a INT, b STRING)` | `STRUCT<a INT, b STRING>` |
//! | `MAP(VARCHAR, INT)` | `MAP<VARCHAR, INT>` |
//!
//! Behind `ROW (` a name and a type stand in no expression. A call of `map` looks like the type: it is one where a value is cast, and
//! behind the name of a column.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Whitespace};

use super::rewrite::Rewriter;
use super::tokens::is_word;

/// Types whose fields are written between one kind of brackets or the other.
const TYPES: [&str; 36] = [
    "ARRAY",
    "BIGINT",
    "BINARY",
    "BOOL",
    "BOOLEAN",
    "BYTEA",
    "BYTES",
    "CHAR",
    "CHARACTER",
    "DATE",
    "DEC",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INT",
    "INTEGER",
    "INTERVAL",
    "JSON",
    "JSONB",
    "MAP",
    "NUMERIC",
    "REAL",
    "ROW",
    "SMALLINT",
    "STRING",
    "STRUCT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TIMESTAMP_LTZ",
    "TIMESTAMP_NTZ",
    "TINYINT",
    "UUID",
    "VARBINARY",
    "VARCHAR",
];

impl Rewriter {
    /// A type ahead, if there is one, is brought to angle brackets.
    pub(super) fn type_ahead(&mut self, create: bool) {
        if self.is(0, "ROW") && (self.is_token(1, &Token::Lt) || self.is_token(1, &Token::LParen)) {
            let named = matches!(self.tokens.get(self.at + 2).map(|token| &token.token), Some(Token::Word(_))) && self.is_type(3);
            if named || create && self.is_token(1, &Token::Lt) {
                self.angle_brackets(Token::make_keyword("STRUCT"));
            }
        } else if self.is(0, "MAP") && self.is_token(1, &Token::LParen) && self.is_type(2) && self.is_type_place(create) {
            self.angle_brackets(Token::make_keyword("MAP"));
        }
    }

    fn is_type(&self, ahead: usize) -> bool {
        TYPES.iter().any(|name| self.is(ahead, name))
    }

    /// Behind `::`, `AS`, an angle bracket, or, in CREATE, a name.
    fn is_type_place(&self, create: bool) -> bool {
        self.out.last().is_some_and(|last| match &last.token {
            Token::DoubleColon | Token::Lt => true,
            Token::Word(word) if create && word.keyword == Keyword::NoKeyword => true,
            other => is_word(other, "AS"),
        })
    }

    /// The fields ahead between angle brackets. Inside of a type NOT NULL says nothing here: fields may be NULL.
    fn angle_brackets(&mut self, name: Token) {
        let open = self.at + 1;
        let Some(close) = self.end_of_fields(open) else { return };
        self.tokens[self.at].token = name;
        if self.tokens[open].token == Token::LParen {
            self.tokens[open].token = Token::Lt;
            self.tokens[close].token = Token::Gt;
        }
        for at in open..close {
            if is_word(&self.tokens[at].token, "NOT") && is_word(&self.tokens[at + 1].token, "NULL") {
                self.tokens[at].token = Token::Whitespace(Whitespace::Space);
                self.tokens[at + 1].token = Token::Whitespace(Whitespace::Space);
            }
        }
    }

    /// The index of the bracket that closes the one at `open`.
    fn end_of_fields(&self, open: usize) -> Option<usize> {
        if self.tokens[open].token == Token::LParen {
            return self.matching(open);
        }
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.token {
                Token::Lt => depth += 1,
                Token::Gt => depth = depth.saturating_sub(1),
                Token::ShiftRight => depth = depth.saturating_sub(2),
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }
}
