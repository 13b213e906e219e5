//! Spellings that the parser cannot be taught, brought to ones it reads, on tokens.
//!
//! | written | becomes |
//! | --- | --- |
//! | `TABLE(TUMBLE(…))` | `TUMBLE(…)` |
//! | `FROM s WINDOW TUMBLING (SIZE 5 MINUTES, GRACE PERIOD 1 MINUTE)` | `FROM s WITH (tumble(size => INTERVAL '5' MINUTES, lateness => …))` |
//! | `TUMBLE(…) ALLOWED LATENESS i` | `TUMBLE(…, lateness => i)` |
//! | `TIMESTAMP WITH LOCAL TIME ZONE` | `TIMESTAMP WITH TIME ZONE` |
//! | `TABLE s` as a query | `SELECT * FROM s` |
//! | `ROW<a INT>`, `ROW(a INT)`, `MAP(STRING, INT)` | see [`super::types`] |
//! | `FETCH FIRST (e) ROWS ONLY` | `LIMIT (e)` |
//! | `JOIN … WITHIN …`, `ASOF JOIN` | see [`super::join`] |
//! | `ROLLUP ((a)::int, b)`, `CUBE (…)` | `ROLLUP (((a)::int), b)` |
//! | `x IN ((SELECT …), y)` | `x IN (coalesce((SELECT …)), y)` |
//! | `JSON_OBJECT(KEY k VALUE v)` | see [`super::json`] |
//! | `AS OF COMMIT n`, `AS OF TIMESTAMP t`, `FOR SYSTEM_TIME AS OF TIMESTAMP t` | see [`super::as_of`] |
//!
//! MATCH_RECOGNIZE is brought to what the parser knows of it by [`super::pattern`]. The table hint `WITH (…)` is taken up by
//! [`super::window`].

use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Whitespace};

use super::join::OpenJoins;
use super::tokens::{is_word, position};
use crate::error::{Error, Result};
use crate::sql::ast::{Options, WINDOW_FUNCTIONS};

/// The tokens to parse, and what ksqlDB's WINDOW clause says about the view: `RETENTION`.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<(Vec<TokenWithSpan>, Options)> {
    refuse(&tokens)?;
    let end = tokens.last().map_or(1, |token| token.span.end.column as u32);
    let out = Vec::with_capacity(tokens.len());
    let mut rewriter = Rewriter { out, tokens, at: 0, end, options: Options::new(), joins: OpenJoins::default() };
    let create = rewriter.is(0, "CREATE");
    while rewriter.at < rewriter.tokens.len() {
        rewriter.step(create)?;
    }
    rewriter.joins.end()?;
    Ok((rewriter.out, rewriter.options))
}

/// How many tokens a form may have that is looked at as a whole: nests of them must not cost more than they are long.
const LOOK_AHEAD: usize = 1000;

/// What follows EMIT.
const EMISSIONS: [&str; 4] = ["CHANGES", "FINAL", "ON", "AFTER"];

fn refuse(tokens: &[TokenWithSpan]) -> Result<()> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| is_word(&token.token, word));
    // Parentheses that may hold a whole query.
    let whole = usize::from(is(0, "SUBSCRIBE") || is(0, "COPY"));
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > whole && is(at, "EMIT") && EMISSIONS.iter().any(|word| is(at + 1, word)) && at > 0 {
            let error = Error::syntax("syntax error at or near \"EMIT\"").at(position(token));
            return Err(error.with_hint("EMIT stands at the end of the whole query"));
        }
    }
    Ok(())
}

pub(super) struct Rewriter {
    pub(super) tokens: Vec<TokenWithSpan>,
    pub(super) at: usize,
    /// Position after the statement.
    end: u32,
    pub(super) out: Vec<TokenWithSpan>,
    options: Options,
    pub(super) joins: OpenJoins,
}

impl Rewriter {
    fn step(&mut self, create: bool) -> Result<()> {
        if self.join_clause()? {
            return Ok(());
        }
        if self.is(0, "WINDOW") && self.is_token(2, &Token::LParen) {
            for (word, function) in [("TUMBLING", "tumble"), ("HOPPING", "hop"), ("SESSION", "session")] {
                if self.is(1, word) {
                    return self.window_clause(function);
                }
            }
        }
        if self.is(0, "MATCH_RECOGNIZE") && self.is_token(1, &Token::LParen) {
            return self.match_recognize();
        }
        if self.is(0, "ALLOWED") && self.is(1, "LATENESS") && self.is_duration(2) {
            return self.allowed_lateness();
        }
        if (self.is(0, "ROLLUP") || self.is(0, "CUBE")) && self.is_token(1, &Token::LParen) {
            self.parenthesize_groups();
        }
        if (self.is(0, "JSON_OBJECT") || self.is(0, "JSON_OBJECTAGG")) && self.is_token(1, &Token::LParen) {
            self.json_members();
        }
        if self.is(0, "IN") && self.is_token(1, &Token::LParen) && self.is_token(2, &Token::LParen) {
            self.call_first_subquery();
        }
        self.system_time();
        if self.is(0, "AS") && self.is(1, "OF") && (self.is(2, "COMMIT") || self.is(2, "TIMESTAMP")) {
            self.as_of();
            return Ok(());
        }
        if self.is(0, "TABLE") && self.is_token(1, &Token::LParen) && self.is_token(3, &Token::LParen) {
            let function = WINDOW_FUNCTIONS.iter().any(|name| self.is(2, name));
            if function && self.unwrap_table() {
                return Ok(());
            }
        }
        if self.is(0, "FETCH") && (self.is(1, "FIRST") || self.is(1, "NEXT")) && self.is_token(2, &Token::LParen) {
            self.fetch_computed();
        }
        if self.is(0, "TABLE") && self.is_table_query() {
            let span = self.next().map_or(Span::empty(), |token| token.span);
            self.push_made(span, [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")]);
            return Ok(());
        }
        self.type_ahead(create);
        let local = self.is(0, "LOCAL") && self.is(1, "TIME") && self.is(2, "ZONE");
        let local = local && self.out.last().is_some_and(|token| is_word(&token.token, "WITH"));
        let Some(token) = self.next() else { return Ok(()) };
        // White space is what is gone: the outer parenthesis of a TABLE( ), NOT NULL in a type.
        if token.token != Token::Whitespace(Whitespace::Space) && !local {
            self.out.push(token);
        }
        Ok(())
    }

    /// A group ahead that starts with a parenthesis and goes on behind it gets one around all of it: the parser takes the first for
    /// a list of groups.
    fn parenthesize_groups(&mut self) {
        let first = self.at + 2;
        let (mut depth, mut start, mut ends) = (0usize, first, Vec::new());
        for at in first..self.tokens.len().min(first + LOOK_AHEAD) {
            match self.tokens[at].token {
                Token::LParen => depth += 1,
                Token::RParen if depth > 0 => depth -= 1,
                Token::Comma | Token::RParen if depth == 0 => {
                    ends.push((start, at));
                    start = at + 1;
                    if self.tokens[at].token == Token::RParen {
                        break;
                    }
                }
                _ => {}
            }
        }
        for (start, end) in ends.into_iter().rev() {
            let goes_on = self.tokens[start].token == Token::LParen && self.matching(start).is_some_and(|close| close + 1 < end);
            if goes_on {
                let (before, after) = (self.tokens[start].span, self.tokens[end - 1].span);
                self.tokens.insert(end, TokenWithSpan::new(Token::RParen, after));
                self.tokens.insert(start, TokenWithSpan::new(Token::LParen, before));
            }
        }
    }

    /// A list ahead that starts with a subquery: the parser takes it for the whole.
    fn call_first_subquery(&mut self) {
        let open = self.at + 2;
        let word = self.tokens[open..].iter().take(LOOK_AHEAD).find(|token| token.token != Token::LParen);
        if !word.is_some_and(|token| ["SELECT", "WITH", "VALUES"].iter().any(|query| is_word(&token.token, query))) {
            return;
        }
        let mut depth = 0usize;
        for at in open..self.tokens.len().min(open + LOOK_AHEAD) {
            match self.tokens[at].token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                if self.tokens.get(at + 1).is_some_and(|token| token.token == Token::Comma) {
                    let (before, after) = (self.tokens[open].span, self.tokens[at].span);
                    self.tokens.insert(at + 1, TokenWithSpan::new(Token::RParen, after));
                    let call = [Token::make_word("coalesce", None), Token::LParen];
                    self.tokens.splice(open..open, call.map(|token| TokenWithSpan::new(token, before)));
                }
                return;
            }
        }
    }

    /// Is this TABLE a query, not the kind of an object or an argument?
    fn is_table_query(&self) -> bool {
        const BEFORE: [&str; 10] =
            ["AS", "UNION", "EXCEPT", "INTERSECT", "ALL", "DISTINCT", "FOR", "EXPLAIN", "ANALYZE", "VERBOSE"];
        let Some(Token::Word(_)) = self.tokens.get(self.at + 1).map(|token| &token.token) else { return false };
        match self.out.as_slice() {
            [] => true,
            [.., function, open] if open.token == Token::LParen => {
                !WINDOW_FUNCTIONS.iter().any(|name| is_word(&function.token, name)) && !is_word(&function.token, "GAP_FILL")
            }
            [.., last] if BEFORE.iter().any(|word| is_word(&last.token, word)) => true,
            // Behind the columns of an INSERT, or the last query of a WITH.
            [.., last] if last.token == Token::RParen => true,
            [first, .., last] => {
                is_word(&first.token, "INSERT") && matches!(last.token, Token::Word(_)) && !is_word(&last.token, "INTO")
            }
            [_] => false,
        }
    }

    /// Drops `TABLE (` and its `)`. Nothing is consumed if they don't match; then the parser finds the place.
    fn unwrap_table(&mut self) -> bool {
        let Some(close) = self.matching(self.at + 1) else { return false };
        if close < 1 || self.tokens.get(close - 1).map(|token| &token.token) != Some(&Token::RParen) {
            return false;
        }
        // The text of what ends with the inner parenthesis includes the outer one.
        let Some(outer) = self.tokens.get_mut(close) else { return false };
        outer.token = Token::Whitespace(Whitespace::Space);
        let end = outer.span.end;
        if let Some(inner) = self.tokens.get_mut(close - 1) {
            inner.span.end = end;
        }
        self.at += 2;
        true
    }

    /// The index of the parenthesis that closes the one at `open`.
    pub(super) fn matching(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 1 => return Some(at),
                Token::RParen => depth = depth.checked_sub(1)?,
                _ => {}
            }
        }
        None
    }

    /// `WINDOW TUMBLING ( item, … ) [ALLOWED LATENESS i]`, ahead.
    fn window_clause(&mut self, function: &str) -> Result<()> {
        let span = self.tokens.get(self.at).map_or(Span::empty(), |token| token.span);
        self.at += 3;
        self.push_made(span, [Token::make_keyword("WITH"), Token::LParen]);
        self.push_made(span, [Token::make_word(function, None), Token::LParen]);
        let mut first = true;
        loop {
            self.window_item(function, &mut first)?;
            match self.next() {
                Some(token) if token.token == Token::Comma => {}
                Some(token) if token.token == Token::RParen => {
                    let mut end = token.span;
                    if self.is(0, "ALLOWED") && self.is(1, "LATENESS") && self.is_duration(2) {
                        self.at += 2;
                        self.argument("lateness", &mut first)?;
                        end = self.out.last().map_or(end, |last| last.span);
                    }
                    self.push_made(end, [Token::RParen, Token::RParen]);
                    return Ok(());
                }
                other => return Err(self.unexpected(other.as_ref(), "expected , or ) in the WINDOW clause")),
            }
        }
    }

    fn window_item(&mut self, function: &str, first: &mut bool) -> Result<()> {
        if self.eat(&["SIZE"]) {
            self.argument("size", first)
        } else if self.eat(&["ADVANCE", "BY"]) {
            self.argument("slide", first)
        } else if self.eat(&["GRACE", "PERIOD"]) {
            self.argument("lateness", first)
        } else if self.eat(&["RETENTION"]) {
            let text = duration_text(&self.duration()?);
            self.options.insert("retention".into(), text);
            Ok(())
        } else if function == "session" && self.is_duration(0) {
            self.argument("gap", first)
        } else {
            let expected = match function {
                "tumble" => "expected SIZE n unit, GRACE PERIOD n unit or RETENTION n unit",
                "hop" => "expected SIZE n unit, ADVANCE BY n unit, GRACE PERIOD n unit or RETENTION n unit",
                _ => "expected the gap (n unit), GRACE PERIOD n unit or RETENTION n unit",
            };
            Err(self.unexpected(self.tokens.get(self.at), expected))
        }
    }

    /// `name => INTERVAL …`.
    fn argument(&mut self, name: &str, first: &mut bool) -> Result<()> {
        let span = self.tokens.get(self.at).map_or(Span::empty(), |token| token.span);
        let duration = self.duration()?;
        if !std::mem::take(first) {
            self.push_made(span, [Token::Comma]);
        }
        self.push_made(span, [Token::make_word(name, None), Token::RArrow]);
        self.out.extend(duration);
        Ok(())
    }

    /// `) ALLOWED LATENESS i`: one more argument; after an alias: a table hint.
    fn allowed_lateness(&mut self) -> Result<()> {
        let span = self.tokens.get(self.at).map_or(Span::empty(), |token| token.span);
        self.at += 2;
        match self.out.pop() {
            Some(close) if close.token == Token::RParen => {
                self.argument("lateness", &mut false)?;
                let end = self.out.last().map_or(close.span, |last| last.span);
                self.out.push(TokenWithSpan::new(Token::RParen, Span::new(close.span.start, end.end)));
            }
            other => {
                self.out.extend(other);
                self.push_made(span, [Token::make_keyword("WITH"), Token::LParen]);
                self.push_made(span, [Token::make_word("allowed", None), Token::LParen]);
                self.argument("lateness", &mut true)?;
                let end = self.out.last().map_or(span, |last| last.span);
                self.push_made(end, [Token::RParen, Token::RParen]);
            }
        }
        Ok(())
    }

    /// `5 MINUTES`, `INTERVAL '5' MINUTES`, `INTERVAL '5 minutes'`: as the latter two.
    pub(super) fn duration(&mut self) -> Result<Vec<TokenWithSpan>> {
        const EXPECTED: &str = "expected a length of time, for example 5 MINUTES";
        let mut out = Vec::new();
        match self.next() {
            Some(token) if is_word(&token.token, "INTERVAL") => {
                out.push(token);
                match self.next() {
                    Some(value) if matches!(value.token, Token::SingleQuotedString(_)) => out.push(value),
                    other => return Err(self.unexpected(other.as_ref(), EXPECTED)),
                }
                if self.is_unit(0) {
                    out.extend(self.next());
                }
                if self.is(0, "TO") && self.is_unit(1) {
                    out.extend(self.next());
                    out.extend(self.next());
                }
            }
            Some(TokenWithSpan { token: Token::Number(number, _), span }) if self.is_unit(0) => {
                out.push(TokenWithSpan::new(Token::make_keyword("INTERVAL"), span));
                out.push(TokenWithSpan::new(Token::SingleQuotedString(number), span));
                out.extend(self.next());
            }
            other => return Err(self.unexpected(other.as_ref(), EXPECTED)),
        }
        Ok(out)
    }

    /// The words around a number of rows in parentheses; the parser reads others.
    fn fetch_computed(&mut self) {
        let is = |at: usize, words: &[&str]| {
            let token = self.tokens.get(at).map(|token| &token.token);
            token.is_some_and(|token| words.iter().any(|word| is_word(token, word)))
        };
        let close = self.matching(self.at + 2).filter(|close| is(close + 1, &["ROW", "ROWS"]) && is(close + 2, &["ONLY"]));
        if let Some(close) = close {
            self.tokens.drain(close + 1..=close + 2);
            self.tokens[self.at].token = Token::make_keyword("LIMIT");
            self.tokens.remove(self.at + 1);
        }
    }

    pub(super) fn is_duration(&self, ahead: usize) -> bool {
        let number = matches!(self.tokens.get(self.at + ahead).map(|token| &token.token), Some(Token::Number(..)));
        self.is(ahead, "INTERVAL") || number && self.is_unit(ahead + 1)
    }

    fn is_unit(&self, ahead: usize) -> bool {
        const UNITS: [&str; 8] = ["MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"];
        let Some(Token::Word(word)) = self.tokens.get(self.at + ahead).map(|token| &token.token) else { return false };
        let unit = word.value.to_ascii_uppercase();
        word.quote_style.is_none() && UNITS.contains(&unit.strip_suffix('S').unwrap_or(&unit))
    }

    pub(super) fn is(&self, ahead: usize, word: &str) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| is_word(&token.token, word))
    }

    pub(super) fn is_token(&self, ahead: usize, token: &Token) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|t| t.token == *token)
    }

    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(n, word)| self.is(n, word));
        self.at += if all { words.len() } else { 0 };
        all
    }

    pub(super) fn next(&mut self) -> Option<TokenWithSpan> {
        let token = self.tokens.get_mut(self.at).map(|token| std::mem::replace(token, TokenWithSpan::wrap(Token::EOF)));
        self.at += 1;
        token
    }

    pub(super) fn unexpected(&self, token: Option<&TokenWithSpan>, detail: &str) -> Error {
        let error = match token {
            Some(token) => Error::syntax(format!("syntax error at or near \"{}\"", token.token)).at(position(token)),
            None => Error::syntax("syntax error at end of input").at(self.end),
        };
        error.with_detail(detail)
    }

    /// Tokens that stand for the text at `span`.
    pub(super) fn push_made<const N: usize>(&mut self, span: Span, tokens: [Token; N]) {
        self.out.extend(tokens.map(|token| TokenWithSpan::new(token, span)));
    }
}

/// `INTERVAL '5' MINUTES` as the text `5 minutes`.
fn duration_text(tokens: &[TokenWithSpan]) -> String {
    let texts = tokens.iter().skip(1).map(|token| match &token.token {
        Token::SingleQuotedString(text) => text.clone(),
        other => other.to_string().to_ascii_lowercase(),
    });
    texts.collect::<Vec<_>>().join(" ")
}
