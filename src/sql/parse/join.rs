//! What a join says of time between its relation and ON, moved behind ON, where the parser reads a condition.
//!
//! | written | becomes |
//! | --- | --- |
//! | `a JOIN b WITHIN 5 MINUTES ON c` | `a JOIN b ON $within(INTERVAL '5' MINUTES, INTERVAL '5' MINUTES, INTERVAL '0' SECONDS) AND (c)` |
//! | `a JOIN b WITHIN (1 HOUR, 2 HOURS) GRACE PERIOD 1 DAY ON c` | the same with three lengths |
//! | `a ASOF JOIN b MATCH_CONDITION (m) ON c` | `a JOIN b ON $nearest(m) AND (c)` |
//! | `a ASOF JOIN b ON c` | `a JOIN b ON $nearest() AND (c)` |
//! | `a JOIN t FOR SYSTEM_TIME AS OF a.ts ON c` | `a JOIN t ON $as_of(a.ts) AND (c)` |
//! | `a JOIN t FOR SYSTEM_TIME AS OF PROCTIME() ON c` | `a JOIN t ON $as_of() AND (c)` |
//!
//! No user can write a name that begins with a dollar sign, so nothing else is taken for such a mark. The tokens of the mark are
//! put in here; that the condition behind it is taken whole is the dialect's work ([`super::dialect`]). What marks mean is settled
//! when names are resolved ([`crate::sql::plan::marks`]).

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::rewrite::Rewriter;
use super::tokens::{is_word, position};
use crate::error::{Error, Result};
use crate::sql::ast::{AS_OF_MARK, NEAREST_MARK, WITHIN_MARK};

/// How the time of a row's own commit is written.
const PROCESSING: [&str; 4] = ["PROCTIME", "NOW", "CURRENT_TIMESTAMP", "LOCALTIMESTAMP"];

/// A JOIN whose ON has not come yet.
pub(super) struct OpenJoin {
    /// How many parentheses are open around it.
    depth: usize,
    /// Where its ASOF stands.
    asof: Option<Span>,
    /// What goes behind ON.
    marks: Vec<TokenWithSpan>,
}

/// The joins that are open at a token.
#[derive(Default)]
pub(super) struct OpenJoins {
    depth: usize,
    open: Vec<OpenJoin>,
    /// The ASOF of the JOIN to come.
    asof: Option<Span>,
}

impl OpenJoins {
    /// All joins deeper than this have ended.
    fn close(&mut self, depth: usize) -> Result<()> {
        self.depth = depth;
        while let Some(join) = self.open.pop_if(|join| join.depth > depth) {
            let mark = join.marks.first().map(|token| token.span);
            if let Some(span) = join.asof.or(mark) {
                let what = match join.marks.first().map(|token| &token.token) {
                    _ if join.asof.is_some() => "ASOF JOIN",
                    Some(token) if is_word(token, AS_OF_MARK) => "JOIN … FOR SYSTEM_TIME AS OF",
                    _ => "JOIN … WITHIN",
                };
                let error = Error::syntax(format!("{what} needs ON")).at(span.start.column as u32);
                return Err(error.with_hint("write ON a.key = b.key"));
            }
        }
        Ok(())
    }

    /// At the end of the statement.
    pub fn end(mut self) -> Result<()> {
        self.depth = 0;
        self.open.iter_mut().for_each(|join| join.depth = 1);
        self.close(0)
    }

    /// The join whose ON may stand here.
    fn here(&self) -> Option<&OpenJoin> {
        self.open.last().filter(|join| join.depth == self.depth)
    }
}

impl Rewriter {
    /// Take the next tokens if they say something of a join's time. Otherwise only note which joins are open.
    pub(super) fn join_clause(&mut self) -> Result<bool> {
        let depth = self.joins.depth;
        match self.tokens.get(self.at).map(|token| &token.token) {
            Some(Token::LParen) => self.joins.depth += 1,
            Some(Token::RParen) => self.joins.close(depth.saturating_sub(1))?,
            Some(Token::Word(_)) if self.is(0, "ASOF") && self.is_asof() => {
                self.joins.asof = self.next().map(|token| token.span);
                return Ok(true);
            }
            Some(Token::Word(_)) if self.is(0, "JOIN") && !self.is_without_on() => {
                let asof = self.joins.asof.take();
                self.joins.open.push(OpenJoin { depth, asof, marks: Vec::new() });
            }
            Some(Token::Word(_)) if self.joins.here().is_some() => return self.in_join(),
            _ => {}
        }
        Ok(false)
    }

    fn is_asof(&self) -> bool {
        let kind = ["LEFT", "INNER", "RIGHT", "FULL"].iter().any(|kind| self.is(1, kind));
        let join = self.is(1, "JOIN") || kind && (self.is(2, "JOIN") || self.is(2, "OUTER") && self.is(3, "JOIN"));
        join && !self.out.last().is_some_and(|token| is_word(&token.token, "AS"))
    }

    /// CROSS JOIN, `NATURAL [LEFT [OUTER]] JOIN`.
    fn is_without_on(&self) -> bool {
        let is = |back: usize, word: &str| {
            self.out.len().checked_sub(back).and_then(|at| self.out.get(at)).is_some_and(|token| is_word(&token.token, word))
        };
        is(1, "CROSS") || (1..=3).any(|back| is(back, "NATURAL"))
    }

    /// Is this a time of each row, not one of the whole query?
    fn is_of_row(&self, ahead: usize) -> bool {
        let token = |ahead: usize| self.tokens.get(self.at + ahead).map(|token| &token.token);
        let literal = matches!(token(ahead + 1), Some(Token::SingleQuotedString(_)));
        let call = self.is_token(ahead + 1, &Token::LParen) && !PROCESSING.iter().any(|word| self.is(ahead, word));
        matches!(token(ahead), Some(Token::LParen)) || matches!(token(ahead), Some(Token::Word(_))) && !literal && !call
    }

    /// Between JOIN and its ON.
    fn in_join(&mut self) -> Result<bool> {
        let asof = self.joins.here().and_then(|join| join.asof);
        if self.is(0, "WITHIN") && (self.is_duration(1) || self.is_token(1, &Token::LParen) && self.is_duration(2)) {
            return self.within().map(|()| true);
        }
        if ["FOR", "SYSTEM_TIME", "AS", "OF"].iter().enumerate().all(|(at, word)| self.is(at, word)) && self.is_of_row(4) {
            return self.versions().map(|()| true);
        }
        if asof.is_some() && self.is(0, "MATCH_CONDITION") && self.is_token(1, &Token::LParen) {
            return self.match_condition().map(|()| true);
        }
        if self.is(0, "ON") {
            return self.on().map(|()| true);
        }
        if self.is(0, "USING") {
            let marked = self.joins.open.pop().and_then(|join| join.asof.or(join.marks.first().map(|token| token.span)));
            if marked.is_some() {
                let error = Error::unsupported("USING is not supported in a join that is ASOF or WITHIN a time");
                return Err(error.with_hint("write ON a.key = b.key").at(self.tokens.get(self.at).map_or(1, position)));
            }
        }
        Ok(false)
    }

    /// `WITHIN d`, `WITHIN (before, after)`, `… GRACE PERIOD d`, ahead.
    fn within(&mut self) -> Result<()> {
        let span = self.next().map_or(Span::empty(), |token| token.span);
        let (before, after) = if self.is_token(0, &Token::LParen) {
            self.next();
            let before = self.duration()?;
            self.expect(&Token::Comma, "expected a comma: WITHIN (before, after)")?;
            let after = self.duration()?;
            self.expect(&Token::RParen, "expected ) after WITHIN (before, after")?;
            (before, after)
        } else {
            let both = self.duration()?;
            (both.clone(), both)
        };
        let word = |token| TokenWithSpan::new(token, span);
        let none = || [Token::make_keyword("INTERVAL"), Token::SingleQuotedString("0".into()), Token::make_keyword("SECONDS")];
        let grace = if self.eat(&["GRACE", "PERIOD"]) { self.duration()? } else { none().map(word).into() };
        let mut marks = vec![word(Token::make_word(WITHIN_MARK, None)), word(Token::LParen)];
        marks.extend(before);
        marks.push(word(Token::Comma));
        marks.extend(after);
        marks.push(word(Token::Comma));
        marks.extend(grace);
        marks.push(word(Token::RParen));
        if let Some(join) = self.joins.open.last_mut() {
            join.marks.extend(marks);
        }
        Ok(())
    }

    /// `MATCH_CONDITION ( … )`, ahead.
    fn match_condition(&mut self) -> Result<()> {
        let close = self.matching(self.at + 1);
        let Some(close) = close else {
            return Err(self.unexpected(self.tokens.get(self.at), "expected ) after MATCH_CONDITION ("));
        };
        let span = self.next().map_or(Span::empty(), |token| token.span);
        let mut marks = vec![TokenWithSpan::new(Token::make_word(NEAREST_MARK, None), span)];
        while self.at <= close {
            marks.extend(self.next());
        }
        if let Some(join) = self.joins.open.last_mut() {
            join.marks.extend(marks);
        }
        Ok(())
    }

    /// `FOR SYSTEM_TIME AS OF time`, ahead: a column, an expression in parentheses, or the time of processing.
    fn versions(&mut self) -> Result<()> {
        let span = self.next().map_or(Span::empty(), |token| token.span);
        self.at += 3;
        let made = |token| TokenWithSpan::new(token, span);
        let mut marks = vec![made(Token::make_word(AS_OF_MARK, None)), made(Token::LParen)];
        let processing = PROCESSING.iter().any(|word| self.is(0, word));
        let calls = self.is_token(1, &Token::LParen) && self.is_token(2, &Token::RParen);
        if processing && !self.is_token(1, &Token::Period) {
            self.at += if calls { 3 } else { 1 };
        } else if let Some(close) = self.matching(self.at).filter(|_| self.is_token(0, &Token::LParen)) {
            while self.at <= close {
                marks.extend(self.next());
            }
        } else {
            loop {
                match self.next() {
                    Some(name) if matches!(name.token, Token::Word(_)) => marks.push(name),
                    other => {
                        return Err(self.unexpected(other.as_ref(), "expected a time column of the left side, or PROCTIME()"));
                    }
                }
                if !self.is_token(0, &Token::Period) {
                    break;
                }
                marks.extend(self.next());
            }
        }
        marks.push(made(Token::RParen));
        if let Some(join) = self.joins.open.last_mut() {
            join.marks.extend(marks);
        }
        Ok(())
    }

    fn on(&mut self) -> Result<()> {
        let (Some(on), Some(join)) = (self.next(), self.joins.open.pop()) else { return Ok(()) };
        self.out.push(on);
        let matched = join.marks.iter().any(|token| is_word(&token.token, NEAREST_MARK));
        if let Some(span) = join.asof.filter(|_| !matched) {
            self.push_made(span, [Token::make_word(NEAREST_MARK, None), Token::LParen, Token::RParen]);
        }
        self.out.extend(join.marks);
        Ok(())
    }

    fn expect(&mut self, token: &Token, expected: &str) -> Result<()> {
        match self.next() {
            Some(next) if next.token == *token => Ok(()),
            other => Err(self.unexpected(other.as_ref(), expected)),
        }
    }
}
