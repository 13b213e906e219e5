//! Text to tokens: where does each one stand, and is the whole of a size that a parser can take?
//!
//! Tokens come out without white space, and their spans are *absolute*: `line` is the offset in bytes and `column` the offset
//! in characters in the client's whole string, both from 1. So the text between two tokens is a slice, and the position
//! of an error is the column of its token, whatever lines and characters there are. Tokens that a rewrite makes up
//! carry the span of what they stand for.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::dialect::StreamDialect;
use crate::error::{Error, Result};
use crate::limits::{NAME_BYTES, STATEMENT_BYTES, STATEMENT_NESTING, STATEMENT_OPERATORS};

/// The tokens of the statements in `sql`, those without any left out.
pub(super) fn statements(sql: &str) -> Result<Vec<Vec<TokenWithSpan>>> {
    if sql.len() > STATEMENT_BYTES {
        let limit = STATEMENT_BYTES >> 20;
        return Err(Error::limit_exceeded(format!("a query string of {} bytes is longer than {limit} MiB", sql.len()))
            .with_hint("load data with COPY … FROM STDIN"));
    }
    let mut statements = Vec::new();
    let mut statement = Vec::new();
    // Between strings, white space with a line break in it joins them.
    let mut broken = false;
    for mut token in tokenize(sql)? {
        if let Token::UnicodeStringLiteral(text) = token.token {
            token.token = Token::SingleQuotedString(text);
        }
        if let Token::Word(word) = &mut token.token {
            // A name between backticks is a quoted name.
            if word.quote_style == Some('`') {
                word.quote_style = Some('"');
            }
            if let Some(cut) = cut(&word.value) {
                word.value = cut;
            }
        }
        match token.token {
            Token::Whitespace(space) => {
                let ends_line = matches!(space, Whitespace::Newline | Whitespace::SingleLineComment { .. });
                broken = ends_line || broken && space == Whitespace::Space || broken && space == Whitespace::Tab;
                continue;
            }
            Token::SingleQuotedString(ref more) if broken && continues(&mut statement, more, token.span) => {}
            Token::SemiColon => statements.push(std::mem::take(&mut statement)),
            // The end of ARRAY<ARRAY<ARRAY<…>>>; there is no such operator.
            Token::CustomBinaryOperator(ref text) if text.bytes().all(|b| b == b'>') => {
                statement.extend(text.bytes().map(|_| TokenWithSpan::new(Token::Gt, token.span)));
            }
            _ => statement.push(token),
        }
        broken = false;
    }
    statements.push(statement);
    statements.retain(|tokens| !tokens.is_empty());
    statements.iter().try_for_each(|tokens| check_size(tokens))?;
    Ok(statements)
}

/// What is to be said of names that were cut, in PostgreSQL's words. Only their text still tells what they were.
pub(super) fn cut_names(sql: &str, tokens: &[TokenWithSpan]) -> Vec<Error> {
    let notices = tokens.iter().filter_map(|token| {
        let Token::Word(word) = &token.token else { return None };
        let written = slice(sql, token.span.start, token.span.end);
        if written.len() <= NAME_BYTES {
            return None;
        }
        let quoted = |quote: char| {
            let inside = written.strip_prefix(quote)?.strip_suffix(quote)?;
            Some(inside.replace(&format!("{quote}{quote}"), &quote.to_string()))
        };
        let whole = match word.quote_style {
            None => written.to_lowercase(),
            Some(_) => quoted('"').or_else(|| quoted('`'))?,
        };
        let name = cut(&whole)?;
        Some(Error::name_too_long(format!("identifier \"{whole}\" will be truncated to \"{name}\"")))
    });
    notices.collect()
}

/// The beginning of a name that is too long. What the server has added to one stays behind it: `name$late`.
fn cut(name: &str) -> Option<String> {
    let own = OWN_ENDINGS.into_iter().find(|own| name.to_ascii_lowercase().ends_with(own)).map_or(0, str::len);
    let (stem, own) = name.split_at(name.len() - own);
    (stem.len() > NAME_BYTES).then(|| format!("{}{own}", &stem[..stem.floor_char_boundary(NAME_BYTES)]))
}

/// Of the names of late rows and dead letters.
const OWN_ENDINGS: [&str; 2] = ["$late", "$dead"];

/// Does the string before go on with this one? Then it is longer now.
fn continues(statement: &mut [TokenWithSpan], more: &str, span: Span) -> bool {
    let Some(last) = statement.last_mut() else { return false };
    let (Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) = &mut last.token else { return false };
    text.push_str(more);
    last.span.end = span.end;
    true
}

fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let dialect = StreamDialect::for_tokens();
    let mut tokens = Vec::new();
    let outcome = Tokenizer::new(&dialect, sql).tokenize_with_location_into_buf(&mut tokens);
    let mut cursor = Cursor::new(sql);
    for token in &mut tokens {
        // The tokenizer leaves nothing out: a token ends where the next one starts.
        let start = cursor.absolute();
        cursor.advance_to(token.span.end);
        token.span = Span::new(start, cursor.absolute());
    }
    match outcome {
        Ok(()) => Ok(tokens),
        Err(error) => Err(lexical_error(sql, &error.message, cursor)),
    }
}

/// Walks the text once, beside the tokenizer's own count of lines and columns.
struct Cursor<'a> {
    rest: std::str::Chars<'a>,
    at: Location,
    bytes: u64,
    characters: u64,
}

impl<'a> Cursor<'a> {
    fn new(sql: &'a str) -> Cursor<'a> {
        Cursor { rest: sql.chars(), at: Location::new(1, 1), bytes: 0, characters: 0 }
    }

    fn absolute(&self) -> Location {
        Location::new(self.bytes + 1, self.characters + 1)
    }

    fn advance_to(&mut self, target: Location) {
        while self.at < target {
            let Some(c) = self.rest.next() else { return };
            self.at =
                if c == '\n' { Location::new(self.at.line + 1, 1) } else { Location::new(self.at.line, self.at.column + 1) };
            self.bytes += c.len_utf8() as u64;
            self.characters += 1;
        }
    }
}

/// The tokenizer stopped in the token that starts at `at`.
fn lexical_error(sql: &str, message: &str, at: Cursor) -> Error {
    let position = at.absolute();
    let rest = sql.get(at.bytes as usize..).unwrap_or_default();
    let shown: String = rest.chars().take(40).collect();
    let what = match rest.chars().next() {
        Some('"' | '`') => "unterminated quoted identifier".to_string(),
        Some('/') => "unterminated /* comment".to_string(),
        Some('$') => "unterminated dollar-quoted string".to_string(),
        Some('\'' | 'e' | 'E' | 'u' | 'U' | 'n' | 'N' | 'b' | 'B' | 'x' | 'X') if message.starts_with("Unterminated") => {
            "unterminated quoted string".to_string()
        }
        _ => "syntax error".to_string(),
    };
    Error::syntax(format!("{what} at or near \"{shown}\"")).at(position.column as u32)
}

/// `FROM ((SELECT`: the parser tries each parenthesis as a subquery and, if that fails, as a join; so each such level doubles the
/// work that a mistake inside costs.
const AMBIGUOUS_NESTING: usize = 10;

/// Statements that the parser would answer with a stack overflow or with hours of work are refused here. What depends on the
/// grammar (chains of operators, the recursion of the parser) is bound in the dialect.
fn check_size(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut size = Size::default();
    tokens.iter().try_for_each(|token| size.add(token))
}

/// What is open at a token.
#[derive(Default)]
struct Size {
    /// Of each open parenthesis: does it hold `(SELECT` in more parentheses?
    open: Vec<bool>,
    ambiguous: usize,
    /// Parentheses just before the token.
    run: usize,
    /// `ARRAY<ARRAY<…`: the parser's recursion in types has no bound of its own.
    types: usize,
    set_operators: usize,
    previous: Option<Keyword>,
}

impl Size {
    fn add(&mut self, token: &TokenWithSpan) -> Result<()> {
        use Keyword::*;
        let keyword = match &token.token {
            Token::Word(word) => Some(word.keyword),
            _ => None,
        };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => self.open.push(false),
            Token::RParen | Token::RBracket | Token::RBrace => {
                self.ambiguous -= usize::from(self.open.pop().unwrap_or(false));
            }
            Token::Lt if matches!(self.previous, Some(ARRAY | MAP | STRUCT | ROW)) => self.types += 1,
            Token::Gt => self.types = self.types.saturating_sub(1),
            Token::ShiftRight => self.types = self.types.saturating_sub(2),
            _ => {}
        }
        match keyword {
            Some(SELECT | WITH | VALUES | TABLE) if self.run > 1 => {
                let outer = self.open.iter_mut().rev().skip(1).take(self.run - 1);
                self.ambiguous += outer.map(|ambiguous| usize::from(!std::mem::replace(ambiguous, true))).sum::<usize>();
            }
            Some(UNION | EXCEPT | INTERSECT | MINUS) => self.set_operators += 1,
            _ => {}
        }
        self.run = if token.token == Token::LParen { self.run + 1 } else { 0 };
        self.previous = keyword;
        self.check(token)
    }

    fn check(&self, token: &TokenWithSpan) -> Result<()> {
        if self.open.len() > STATEMENT_NESTING || self.types > STATEMENT_NESTING {
            return Err(too_complex(format!("nested more than {STATEMENT_NESTING} levels deep"), token));
        }
        if self.ambiguous > AMBIGUOUS_NESTING {
            return Err(too_complex(
                format!("more than {AMBIGUOUS_NESTING} subqueries in double parentheses in each other"),
                token,
            ));
        }
        if self.set_operators > STATEMENT_OPERATORS {
            return Err(too_complex(format!("more than {STATEMENT_OPERATORS} set operations"), token));
        }
        Ok(())
    }
}

fn too_complex(what: String, token: &TokenWithSpan) -> Error {
    Error::statement_too_complex(format!("statement is too complex: {what}")).at(position(token))
}

/// Of a token's first character in the client's string, from 1.
pub(super) fn position(token: &TokenWithSpan) -> u32 {
    token.span.start.column as u32
}

/// The text between two absolute locations.
pub(super) fn slice(sql: &str, from: Location, to: Location) -> &str {
    let range = from.line.saturating_sub(1) as usize..to.line.saturating_sub(1) as usize;
    sql.get(range).unwrap_or_default()
}

/// Is this the word, not quoted, in any case?
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
