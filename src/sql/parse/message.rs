//! Syntax errors, in PostgreSQL's words and with the position of the token.
//!
//! sqlparser's errors are text that ends with `at Line: l, Column: c`; our columns are absolute, so that is all there is to find.

use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{position, slice};
use crate::error::Error;

/// Longer tokens are cut in messages.
const SHOWN_CHARACTERS: usize = 60;

/// Words that start a statement, or a clause of one: what a mistyped word may have been.
const KNOWN_WORDS: [&str; 64] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "TRUNCATE",
    "COPY",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SHOW",
    "DESCRIBE",
    "EXPLAIN",
    "SUBSCRIBE",
    "VERIFY",
    "PRINT",
    "DECLARE",
    "FETCH",
    "CLOSE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "DISCARD",
    "RESET",
    "COMMENT",
    "FLUSH",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "VALUES",
    "TABLE",
    "STREAM",
    "MATERIALIZED",
    "VIEW",
    "WATERMARK",
    "PARTITION",
    "PARTITIONS",
    "TUMBLING",
    "HOPPING",
    "SESSION",
    "WINDOW",
    "CHANGES",
    "FINAL",
    "PRIMARY",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "BETWEEN",
    "INTO",
    "DISTINCT",
    "RETURNING",
];

/// An error of sqlparser as ours.
pub(super) fn from_parser(error: &ParserError, sql: &str, parser: &Parser) -> Error {
    let (ParserError::ParserError(text) | ParserError::TokenizerError(text)) = error else {
        return Error::statement_too_complex("statement is too complex");
    };
    let (text, column) = split_location(text);
    let expected = text.strip_prefix("Expected: ").map(|rest| rest.split(", found: ").next().unwrap_or(rest));
    match (expected, column) {
        (_, Some(column)) => match find(parser, column) {
            Some(token) => unexpected(sql, parser, token, expected),
            None => Error::syntax(lower_first(text)).at(column),
        },
        (Some(_), None) => unexpected(sql, parser, &TokenWithSpan::wrap(Token::EOF), expected),
        (None, None) => Error::syntax(lower_first(text)),
    }
}

/// `syntax error at or near "token"`.
pub(super) fn unexpected(sql: &str, parser: &Parser, token: &TokenWithSpan, expected: Option<&str>) -> Error {
    let error = if token.token == Token::EOF {
        Error::syntax("syntax error at end of input").at(end_position(sql))
    } else {
        let text = slice(sql, token.span.start, token.span.end);
        let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
        Error::syntax(format!("syntax error at or near \"{shown}\"")).at(position(token))
    };
    let error = expected.into_iter().fold(error, |error, what| error.with_detail(format!("expected {}", lower_articles(what))));
    match hint(sql, parser, token, expected) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The position after the last character.
pub(super) fn end_position(sql: &str) -> u32 {
    sql.trim_end().trim_end_matches(';').chars().count() as u32 + 1
}

fn split_location(text: &str) -> (&str, Option<u32>) {
    let Some((message, location)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    match location.split_once(", Column: ").and_then(|(_, column)| column.parse().ok()) {
        Some(column) => (message, Some(column)),
        None => (text, None),
    }
}

fn find<'p>(parser: &'p Parser, column: u32) -> Option<&'p TokenWithSpan> {
    let tokens = (0..).map(|index| parser.token_at(index)).take_while(|token| token.token != Token::EOF);
    tokens.into_iter().find(|token| position(token) == column)
}

/// What the user may have meant.
fn hint(sql: &str, parser: &Parser, token: &TokenWithSpan, expected: Option<&str>) -> Option<String> {
    // As written: a rewrite may have put another token in its place.
    let text = slice(sql, token.span.start, token.span.end);
    if text.eq_ignore_ascii_case("WINDOW") {
        return Some(
            "WINDOW TUMBLING (…) follows the one relation in FROM; around a join or subquery write TUMBLE((SELECT …), ts, size)"
                .into(),
        );
    }
    if let Some(word) = mistyped(&token.token) {
        return Some(format!("did you mean {word}?"));
    }
    // SELECT a FROMM t: "FROMM" is read as an alias, and the error is at "t".
    let index = (0..).find(|&index| {
        let at = parser.token_at(index);
        at.token == Token::EOF || at.span == token.span
    })?;
    if let Some((before, word)) = index.checked_sub(1).map(|at| parser.token_at(at)).and_then(|t| Some((t, mistyped(&t.token)?)))
    {
        let text = slice(sql, before.span.start, before.span.end);
        return Some(format!("did you mean {word} instead of {text}?"));
    }
    match &token.token {
        Token::SingleQuotedString(_) if expected.is_some_and(|e| e.contains("identifier") || e.contains("name")) => {
            Some("names are quoted with \"double quotes\", strings with 'single quotes'".into())
        }
        _ => None,
    }
}

/// A known word that is one or two letters away from this one, which is none.
pub(super) fn mistyped(token: &Token) -> Option<&'static str> {
    let Token::Word(word) = token else { return None };
    let upper = word.value.to_ascii_uppercase();
    if word.quote_style.is_some() || upper.len() < 4 || upper.len() > 20 || !upper.is_ascii() {
        return None;
    }
    if KNOWN_WORDS.contains(&upper.as_str()) || word.keyword != sqlparser::keywords::Keyword::NoKeyword {
        return None;
    }
    let allowed = if upper.len() < 6 { 1 } else { 2 };
    let near = KNOWN_WORDS.iter().map(|known| (edits(&upper, known), *known)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// How many letters to insert, delete, replace or swap with their neighbour make `a` of `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(table[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    table[a.len()][b.len()]
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// sqlparser's lists of what is expected start with a capital here and there.
fn lower_articles(expected: &str) -> String {
    match expected.split_once(' ') {
        Some((first @ ("An" | "A" | "The" | "Expected" | "One"), rest)) => format!("{} {rest}", first.to_lowercase()),
        _ => expected.to_string(),
    }
}
