//! The text forms of arrays, `{1,2,NULL,"a b"}`, and records, `(1,,"a b")`: one level at a time.
//!
//! What is returned for an element is the text of its own type, quotes and escapes removed; an element that is itself an array
//! keeps its braces. So the caller's recursion over the type is the only recursion there is.

use std::borrow::Cow;

use super::trim;
use crate::error::{Error, Result};

/// Elements of an array or record; `None` is NULL.
pub type Elements<'a> = Vec<Option<Cow<'a, [u8]>>>;

/// One element, and the text behind it.
type Taken<'a> = (Option<Cow<'a, [u8]>>, &'a [u8]);

/// The elements of an array literal. Bounds (`[1:3]=`) are read and ignored: arrays here begin at 1.
pub fn parse_array(text: &[u8]) -> Result<Elements<'_>> {
    let malformed = || malformed("array", text);
    let mut body = trim(text);
    if body.first() == Some(&b'[') {
        let equals = memchr::memchr(b'=', body).ok_or_else(malformed)?;
        body = trim(body.get(equals + 1..).unwrap_or_default());
    }
    let body = body.strip_prefix(b"{").and_then(|b| b.strip_suffix(b"}")).ok_or_else(malformed)?;
    let mut elements = Vec::new();
    if trim(body).is_empty() {
        return Ok(elements);
    }
    let mut rest = body;
    loop {
        let (element, after) = array_element(rest).ok_or_else(malformed)?;
        elements.push(element);
        match after {
            [] => return Ok(elements),
            [b',', after @ ..] => rest = after,
            _ => return Err(malformed()),
        }
    }
}

#[cold]
fn malformed(what: &str, text: &[u8]) -> Error {
    Error::invalid_text(format!("malformed {what} literal: \"{}\"", String::from_utf8_lossy(text)))
}

/// One element and what follows it, white space removed.
fn array_element(text: &[u8]) -> Option<Taken<'_>> {
    let text = text.trim_ascii_start();
    match text.first()? {
        b'"' => {
            let (element, rest) = quoted(text.get(1..)?, false)?;
            Some((Some(element), rest.trim_ascii_start()))
        }
        b'{' => {
            let end = closing_brace(text)?;
            let (element, rest) = text.split_at(end + 1);
            Some((Some(Cow::Borrowed(element)), rest.trim_ascii_start()))
        }
        _ => {
            let (element, rest) = unquoted(text, |b| matches!(b, b',' | b'{' | b'}' | b'"'))?;
            let element = match element {
                Cow::Borrowed(plain) => match trim(plain) {
                    [] => return None,
                    word if word.eq_ignore_ascii_case(b"null") => None,
                    word => Some(Cow::Borrowed(word)),
                },
                escaped => Some(escaped),
            };
            Some((element, rest))
        }
    }
}

/// Position of the brace that closes the one at the head.
fn closing_brace(text: &[u8]) -> Option<usize> {
    let (mut depth, mut in_quotes, mut escaped) = (0usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The fields of a record literal. An empty field is NULL, `""` the empty text.
pub fn parse_record(text: &[u8]) -> Result<Elements<'_>> {
    let malformed = || malformed("record", text);
    let body = trim(text).strip_prefix(b"(").and_then(|b| b.strip_suffix(b")")).ok_or_else(malformed)?;
    let mut fields = Vec::new();
    let mut rest = body;
    loop {
        let (field, after) = record_field(rest).ok_or_else(malformed)?;
        fields.push(field);
        match after {
            [] => return Ok(fields),
            [b',', after @ ..] => rest = after,
            _ => return Err(malformed()),
        }
    }
}

fn record_field(text: &[u8]) -> Option<Taken<'_>> {
    match text {
        [] | [b',', ..] => Some((None, text)),
        [b'"', rest @ ..] => {
            let (field, rest) = quoted(rest, true)?;
            Some((Some(field), rest))
        }
        _ => {
            let (field, rest) = unquoted(text, |b| matches!(b, b',' | b'(' | b')' | b'"'))?;
            Some((Some(field), rest))
        }
    }
}

/// From behind an opening quote to behind the closing one.
fn quoted(text: &[u8], doubled: bool) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        let escape = match (text.get(at)?, text.get(at + 1)) {
            (b'\\', Some(_)) => true,
            (b'\\', None) => return None,
            (_, Some(b'"')) => doubled,
            _ => false,
        };
        let plain = text.get(copied..at)?;
        if !escape {
            let rest = text.get(at + 1..)?;
            return Some(match out {
                None => (Cow::Borrowed(plain), rest),
                Some(mut out) => {
                    out.extend_from_slice(plain);
                    (Cow::Owned(out), rest)
                }
            });
        }
        out.get_or_insert_default().extend_from_slice(plain);
        // The escaped byte itself is copied with what follows it.
        copied = at + 1;
        at += 2;
    }
}

/// Up to a byte that ends it. `Cow::Owned` says that something was escaped, so that `\null` is a word and not NULL.
fn unquoted(text: &[u8], ends: impl Fn(u8) -> bool) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|b| ends(*b) || *b == b'\\').unwrap_or(text.len());
    if text.get(end) != Some(&b'\\') {
        return Some((Cow::Borrowed(text.get(..end)?), text.get(end..)?));
    }
    let mut out = text.get(..end)?.to_vec();
    let mut rest = text.get(end..)?;
    loop {
        match rest {
            [b'\\', byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
            [b'\\'] => return None,
            [byte, ..] if ends(*byte) => return Some((Cow::Owned(out), rest)),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
            [] => return Some((Cow::Owned(out), rest)),
        }
    }
}
