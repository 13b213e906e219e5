//! `AS OF`, on tokens.
//!
//! | written | becomes |
//! | --- | --- |
//! | `AS OF COMMIT n`, `AS OF TIMESTAMP t` | `VERSION AS OF n`, `TIMESTAMP AS OF t` |
//! | `FOR SYSTEM_TIME AS OF TIMESTAMP 't'`, `FOR SYSTEM_TIME AS OF 't'` | `AS OF TIMESTAMP 't'` |
//! | `TUMBLE(TABLE s AS OF COMMIT n, …)` | `TUMBLE(TABLE (SELECT * FROM s VERSION AS OF n), …)` |

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::rewrite::Rewriter;
use super::tokens::is_word;
use crate::sql::ast::WINDOW_FUNCTIONS;

impl Rewriter {
    /// Flink's and RisingWave's `FOR SYSTEM_TIME` before AS OF a constant, ahead. Of a column it belongs to a join.
    pub(super) fn system_time(&mut self) {
        if !["FOR", "SYSTEM_TIME", "AS", "OF"].iter().enumerate().all(|(at, word)| self.is(at, word)) {
            return;
        }
        let is_text = |ahead: usize| {
            matches!(self.tokens.get(self.at + ahead).map(|token| &token.token), Some(Token::SingleQuotedString(_)))
        };
        if self.is(4, "TIMESTAMP") && is_text(5) {
            self.at += 2;
        } else if is_text(4) {
            let span = self.tokens[self.at + 3].span;
            self.at += 2;
            self.tokens.insert(self.at + 2, TokenWithSpan::new(Token::make_keyword("TIMESTAMP"), span));
        }
    }

    /// `AS OF COMMIT`, `AS OF TIMESTAMP`, ahead: the unit comes first.
    pub(super) fn as_of(&mut self) {
        let input = self.window_input();
        if let Some(start) = input {
            let span = self.out[start].span;
            let query = [Token::LParen, Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
            let is_marked = start > 0 && is_word(&self.out[start - 1].token, "TABLE");
            let mark = (!is_marked).then(|| Token::make_keyword("TABLE"));
            let made = mark.into_iter().chain(query).map(|token| TokenWithSpan::new(token, span));
            self.out.splice(start..start, made);
        }
        let words: Vec<TokenWithSpan> = std::iter::from_fn(|| self.next()).take(3).collect();
        let [_, of, unit] = words.as_slice() else { return };
        let unit_word = if is_word(&unit.token, "COMMIT") { Token::make_keyword("VERSION") } else { unit.token.clone() };
        // The texts before and after are slices up to the first and from the last of them.
        let spans = [words[0].span, of.span, unit.span];
        let made = [unit_word, Token::make_keyword("AS"), Token::make_keyword("OF")];
        self.out.extend(made.into_iter().zip(spans).map(|(token, span)| TokenWithSpan::new(token, span)));
        if input.is_some() {
            self.moment();
            let span = self.out.last().map_or(unit.span, |last| last.span);
            self.push_made(span, [Token::RParen]);
        }
    }

    /// Where the name begins that was just read, if it is the input of a window function.
    fn window_input(&self) -> Option<usize> {
        let is = |at: Option<usize>, token: &Token| at.and_then(|at| self.out.get(at)).is_some_and(|t| t.token == *token);
        let mut start = self.out.len().checked_sub(1)?;
        while is(start.checked_sub(1), &Token::Period) {
            start = start.checked_sub(2)?;
        }
        let Token::Word(_) = self.out.get(start)?.token else { return None };
        let mut before = start.checked_sub(1)?;
        if is_word(&self.out.get(before)?.token, "TABLE") {
            before = before.checked_sub(1)?;
        }
        // `DATA => TABLE s`
        if is(Some(before), &Token::RArrow) {
            before = before.checked_sub(2)?;
        }
        let function = &self.out.get(before.checked_sub(1)?)?.token;
        let is_window = WINDOW_FUNCTIONS.iter().any(|name| is_word(function, name)) || is_word(function, "GAP_FILL");
        (is(Some(before), &Token::LParen) && is_window).then_some(start)
    }

    /// The moment ahead: up to the end of the argument, or what the input is divided by.
    fn moment(&mut self) {
        let mut depth = 0usize;
        while let Some(token) = self.tokens.get(self.at).map(|token| &token.token) {
            match token {
                Token::LParen => depth += 1,
                Token::Comma | Token::RParen if depth == 0 => return,
                Token::RParen => depth -= 1,
                word if depth == 0 && is_word(word, "PARTITION") => return,
                _ => {}
            }
            let token = self.next();
            self.out.extend(token);
        }
    }
}
