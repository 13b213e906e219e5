//! MATCH_RECOGNIZE, whose grammar the parser knows a part of, brought to that part.
//!
//! | written | becomes |
//! | --- | --- |
//! | `(SELECT …) MATCH_RECOGNIZE` | `"$rows"((SELECT …)) MATCH_RECOGNIZE` |
//! | `(VALUES …) MATCH_RECOGNIZE` | `"$rows"((SELECT * FROM (VALUES …))) MATCH_RECOGNIZE` |
//! | `PATTERN ( … )` | its text as one quoted name, which [`crate::sql::pattern`] reads |
//! | `FINAL f(…)`, `RUNNING f(…)` | `final(f(…))`, `running(f(…))` |
//! | `SKIP TO v` | `SKIP TO LAST v`, which is what it means |
//! | `WITHIN i`, `SUBSET u = (a, b)` before DEFINE | `"$within" AS i`, `"$subset" AS u = (a, b)` behind it |

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::rewrite::Rewriter;
use super::tokens::is_word;
use crate::error::Result;
use crate::sql::ast::{PATTERN_INPUT, PATTERN_SUBSET, PATTERN_WITHIN};

impl Rewriter {
    /// `MATCH_RECOGNIZE ( … )`, ahead.
    pub(super) fn match_recognize(&mut self) -> Result<()> {
        self.wrap_query();
        let close = self.matching(self.at + 1).unwrap_or(self.tokens.len());
        self.pass();
        self.pass();
        // What the parser is given as definitions.
        let mut defined: Vec<Vec<TokenWithSpan>> = Vec::new();
        let mut depth = 0_usize;
        while self.at < close {
            if depth == 0 && self.clause(&mut defined)? {
                continue;
            }
            if ["FINAL", "RUNNING"].iter().any(|word| self.is(0, word)) && self.is_token(2, &Token::LParen) {
                self.semantics();
                continue;
            }
            match self.tokens[self.at].token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.pass();
        }
        if self.at == close {
            self.pass();
        }
        Ok(())
    }

    /// The next token, as it is.
    fn pass(&mut self) {
        let token = self.next();
        self.out.extend(token);
    }

    /// What is written otherwise for the parser, if it is next.
    fn clause(&mut self, defined: &mut Vec<Vec<TokenWithSpan>>) -> Result<bool> {
        let span = self.tokens[self.at].span;
        if self.is(0, "PATTERN") && self.is_token(1, &Token::LParen) {
            self.pattern();
        } else if self.is(0, "SKIP") && self.is(1, "TO") && !["NEXT", "FIRST", "LAST"].iter().any(|word| self.is(2, word)) {
            self.pass();
            self.pass();
            self.push_made(span, [Token::make_keyword("LAST")]);
        } else if self.eat(&["WITHIN"]) {
            let mut tokens = definition(PATTERN_WITHIN, span);
            tokens.extend(self.duration()?);
            defined.push(tokens);
        } else if self.eat(&["SUBSET"]) {
            defined.push(self.subset(span));
            while self.is_token(0, &Token::Comma) {
                self.at += 1;
                defined.push(self.subset(span));
            }
        } else if self.is(0, "DEFINE") {
            self.pass();
            for tokens in defined.drain(..) {
                self.out.extend(tokens);
                self.push_made(span, [Token::Comma]);
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// `u = (a, b)`, as it is.
    fn subset(&mut self, span: Span) -> Vec<TokenWithSpan> {
        let mut tokens = definition(PATTERN_SUBSET, span);
        let end = if self.is_token(2, &Token::LParen) { self.matching(self.at + 2) } else { None };
        let end = end.unwrap_or(self.at).min(self.tokens.len() - 1);
        while self.at <= end {
            tokens.extend(self.next());
        }
        tokens
    }

    /// `PATTERN ( … )`: the text between, each token where it stood.
    fn pattern(&mut self) {
        let Some(close) = self.matching(self.at + 1) else {
            self.pass();
            return;
        };
        self.pass();
        self.pass();
        let start = self.tokens[self.at].span.start;
        let mut text = String::new();
        let mut length = 0;
        while self.at < close {
            let Some(token) = self.next() else { break };
            let gap = token.span.start.column.saturating_sub(start.column).saturating_sub(length);
            text.extend(std::iter::repeat_n(' ', gap as usize));
            let written = token.token.to_string();
            length += gap + written.chars().count() as u64;
            text.push_str(&written);
        }
        let end = self.tokens.get(close).map_or(start, |token| token.span.start);
        self.push_made(Span::new(start, end), [Token::make_word(&text, Some('"'))]);
        self.pass();
    }

    /// `FINAL f( … )`.
    fn semantics(&mut self) {
        let Some(close) = self.matching(self.at + 2) else {
            self.at += 1;
            return;
        };
        let span = self.tokens[self.at].span;
        let word = if self.is(0, "FINAL") { "final" } else { "running" };
        self.at += 1;
        self.push_made(span, [Token::make_word(word, None), Token::LParen]);
        while self.at <= close {
            self.pass();
        }
        self.push_made(span, [Token::RParen]);
    }

    /// The query in parentheses that ends here, perhaps with an alias, as the argument of a function: the parser takes no clause
    /// behind a query.
    fn wrap_query(&mut self) {
        let before_query = |at: usize| ["FROM", "JOIN", "LATERAL"].iter().any(|word| is_word(&self.out[at].token, word));
        let is_name = |at: usize| matches!(self.out[at].token, Token::Word(_)) && !before_query(at);
        // `( … ) AS alias (columns)`, from the end.
        let Some(last) = self.out.len().checked_sub(1) else { return };
        let columns = opening(&self.out, last).filter(|open| *open > 1 && is_name(open - 1));
        let alias = columns.map_or(last, |open| open - 1);
        let alias = if alias > 1 && is_name(alias) { alias - 1 } else { alias };
        let behind = if alias > 1 && is_word(&self.out[alias].token, "AS") { alias - 1 } else { alias };
        let close = if self.out[behind].token == Token::RParen { behind } else { last };
        let Some(open) = opening(&self.out, close) else { return };
        let function = open.checked_sub(1).is_some_and(is_name);
        let Some(query) = self.out[open..].iter().find(|token| token.token != Token::LParen) else { return };
        let values = is_word(&query.token, "VALUES");
        if function || !values && !["SELECT", "WITH"].iter().any(|word| is_word(&query.token, word)) {
            return;
        }
        let (first, last) = (self.out[open].span, self.out[close].span);
        let mut before = vec![Token::make_word(PATTERN_INPUT, Some('"')), Token::LParen];
        let mut after = vec![Token::RParen];
        if values {
            // VALUES alone is no expression.
            let select = [Token::LParen, Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
            before.extend(select);
            after.push(Token::RParen);
        }
        let made = |tokens: Vec<Token>, span| tokens.into_iter().map(move |token| TokenWithSpan::new(token, span));
        self.out.splice(close + 1..close + 1, made(after, last));
        self.out.splice(open..open, made(before, first));
    }
}

/// `name AS`.
fn definition(name: &str, span: Span) -> Vec<TokenWithSpan> {
    [Token::make_word(name, Some('"')), Token::make_keyword("AS")].map(|token| TokenWithSpan::new(token, span)).into()
}

/// The parenthesis that the one at `close` closes, if there is one.
fn opening(tokens: &[TokenWithSpan], close: usize) -> Option<usize> {
    if tokens.get(close)?.token != Token::RParen {
        return None;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens[..=close].iter().enumerate().rev() {
        match token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 1 => return Some(at),
            Token::LParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}
