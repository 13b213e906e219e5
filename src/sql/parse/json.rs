//! The constructors of the SQL standard for JSON, on tokens.
//!
//! | written | becomes |
//! | --- | --- |
//! | `JSON_OBJECT(KEY 'a' VALUE x, 'b' : y)` | `JSON_OBJECT('a', x, 'b', y NULL ON NULL)` |
//! | `JSON_OBJECTAGG(KEY k VALUE v ABSENT ON NULL)` | `JSON_OBJECTAGG(k, v ABSENT ON NULL)` |
//! | `JSON_OBJECT()` | `JSON_OBJECT(NULL ON NULL)` |
//! | `JSON_OBJECT('{a,1}')`, PostgreSQL's function | as it is |
//!
//! `key` and `value` are names, too: VALUE is the word between the two where it follows a key that has begun, and KEY where a key follows.

use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::rewrite::Rewriter;
use super::tokens::is_word;

impl Rewriter {
    /// `JSON_OBJECT (` or `JSON_OBJECTAGG (`, ahead. What is not of the standard's form is left for others to judge.
    pub(super) fn json_members(&mut self) {
        let open = self.at + 1;
        let Some(close) = self.matching(open) else { return };
        let Some(found) = self.members(open, close) else { return };
        let insert = found.nulls.map_or(found.clauses, |_| usize::MAX);
        for at in found.keys {
            self.tokens[at].token = Token::Whitespace(Whitespace::Space);
        }
        for at in found.separators {
            self.tokens[at].token = Token::Comma;
        }
        if insert <= close {
            let span = self.tokens[insert].span;
            let words = ["NULL", "ON", "NULL"].map(|word| TokenWithSpan::new(Token::make_keyword(word), span));
            self.tokens.splice(insert..insert, words);
        }
    }

    fn members(&self, open: usize, close: usize) -> Option<Members> {
        let mut found = Members { clauses: close, ..Members::default() };
        let (mut depth, mut start, mut in_key) = (0usize, open + 1, true);
        let word = |at: usize, word: &str| self.tokens.get(at).is_some_and(|token| is_word(&token.token, word));
        for at in open + 1..close {
            match &self.tokens[at].token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace => depth = depth.checked_sub(1)?,
                _ if depth > 0 => {}
                Token::Comma if in_key => return None,
                Token::Comma => (start, in_key) = (at + 1, true),
                _ if (word(at, "NULL") || word(at, "ABSENT")) && word(at + 1, "ON") && word(at + 2, "NULL") => {
                    found.nulls = Some(at);
                    found.clauses = found.clauses.min(at);
                }
                _ if word(at, "RETURNING") => found.clauses = found.clauses.min(at),
                Token::Word(_) if in_key && at == start && word(at, "KEY") && self.begins_a_key(at + 1) => {
                    found.keys.push(at);
                    start = at + 1;
                }
                Token::Colon if in_key && at > start => {
                    found.separators.push(at);
                    in_key = false;
                }
                Token::Word(_) if in_key && at > start && word(at, "VALUE") && !self.is_period(at - 1) => {
                    found.separators.push(at);
                    in_key = false;
                }
                _ => {}
            }
        }
        let is_empty = start == found.clauses;
        (!in_key || is_empty && found.separators.is_empty()).then_some(found)
    }

    fn begins_a_key(&self, at: usize) -> bool {
        match self.tokens.get(at).map(|token| &token.token) {
            Some(Token::Word(_)) => !is_word(&self.tokens[at].token, "VALUE") || self.is_value_column(at),
            Some(Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_)) => true,
            Some(Token::Number(..) | Token::Placeholder(_) | Token::LParen) => true,
            _ => false,
        }
    }

    /// `KEY value VALUE x`
    fn is_value_column(&self, at: usize) -> bool {
        let separates =
            self.tokens.get(at + 1).is_some_and(|token| is_word(&token.token, "VALUE") || token.token == Token::Colon);
        separates && !self.is_token(at + 2 - self.at, &Token::Comma) && !self.is_token(at + 2 - self.at, &Token::RParen)
    }

    fn is_period(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.token == Token::Period)
    }
}

/// What stands between the parentheses, by its indexes.
#[derive(Default)]
struct Members {
    keys: Vec<usize>,
    separators: Vec<usize>,
    /// NULL ON NULL, or ABSENT ON NULL.
    nulls: Option<usize>,
    /// Where the clauses begin: the closing parenthesis, if there are none.
    clauses: usize,
}
