//! A document as a value, which is what `jsonb` is to PostgreSQL: the order of keys, spaces and the spelling of strings don't count.
//!
//! Its one text is [`canonical`]: of equal keys the last, keys by length and then by bytes, a space after each comma and colon,
//! numbers as `numeric` writes them. So documents are kept, compared for equality and grouped as text. [`Json::sort_key`] is bytes in
//! the order of `jsonb`, to which `1` and `1.0` are equal, too.

use super::parse::{Parser, check_depth, unescape, whole};
use super::write::push_string;
use crate::error::{Error, Result};
use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As `numeric` writes it.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// Sorted, and each key once: made by [`Json::object`].
    Object(Vec<(String, Json)>),
}

/// The text of a document that all documents of its value have.
pub(crate) fn canonical(text: &str) -> Result<String> {
    Json::parse(text).map(|document| document.to_text())
}

impl Json {
    pub fn parse(text: &str) -> Result<Json> {
        whole(text.as_bytes(), |parser| value(parser, 0))
    }

    /// Of equal keys the last one stays.
    pub fn object(mut members: Vec<(String, Json)>) -> Json {
        members.reverse();
        members.sort_by(|(a, _), (b, _)| order(a, b));
        members.dedup_by(|(a, _), (b, _)| a == b);
        Json::Object(members)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.binary_search_by(|(known, _)| order(known, key)).ok().map(|at| &members[at].1)
    }

    pub fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Json::Number(digits) => out.extend_from_slice(digits.as_bytes()),
            Json::Text(text) => push_string(out, text),
            Json::Array(elements) => {
                out.push(b'[');
                for (at, element) in elements.iter().enumerate() {
                    separate(out, at);
                    element.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (at, (key, member)) in members.iter().enumerate() {
                    separate(out, at);
                    push_string(out, key);
                    out.extend_from_slice(b": ");
                    member.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Bytes that are in order as documents are: an empty array, null, texts, numbers, booleans, arrays and objects, both by their
    /// length first.
    pub fn sort_key(&self, out: &mut Vec<u8>) {
        match self {
            Json::Array(elements) if elements.is_empty() => out.push(0),
            other => other.push_key(out),
        }
    }

    fn push_key(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.push(1),
            Json::Text(text) => {
                out.push(2);
                push_text_key(out, text);
            }
            Json::Number(digits) => {
                out.push(3);
                push_number_key(out, digits);
            }
            Json::Bool(value) => out.extend([4, u8::from(*value)]),
            Json::Array(elements) => {
                out.push(5);
                out.extend(count(elements.len()));
                elements.iter().for_each(|element| element.push_key(out));
            }
            Json::Object(members) => {
                out.push(6);
                out.extend(count(members.len()));
                for (key, member) in members {
                    push_text_key(out, key);
                    member.push_key(out);
                }
            }
        }
    }
}

/// Shorter keys come first.
fn order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn separate(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.extend_from_slice(b", ");
    }
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// No text of a document holds a zero byte.
fn push_text_key(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// Sign, place of the first digit, digits; all turned round below zero.
fn push_number_key(out: &mut Vec<u8>, number: &str) {
    let (is_negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let leading = digits().take_while(|digit| *digit == b'0').count();
    if leading == whole.len() + fraction.len() {
        return out.push(1);
    }
    out.push(if is_negative { 0 } else { 2 });
    let start = out.len();
    let place = whole.len() as i64 - leading as i64;
    out.extend(u32::try_from(place + (1 << 31)).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(digits().skip(leading));
    while out.last() == Some(&b'0') {
        out.pop();
    }
    out.push(0);
    if is_negative {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

fn value(parser: &mut Parser<'_>, depth: usize) -> Result<Json> {
    check_depth(depth)?;
    match parser.peek() {
        Some(b'"') => text(parser).map(Json::Text),
        Some(b'[') => {
            let mut elements = Vec::new();
            parser.elements(b']', |parser| {
                elements.push(value(parser, depth + 1)?);
                Ok(())
            })?;
            Ok(Json::Array(elements))
        }
        Some(b'{') => {
            let mut members = Vec::new();
            parser.elements(b'}', |parser| {
                let key = text(parser)?;
                parser.space();
                parser.expect(b':')?;
                parser.space();
                members.push((key, value(parser, depth + 1)?));
                Ok(())
            })?;
            Ok(Json::object(members))
        }
        _ => {
            let start = parser.at;
            parser.skip_value(depth)?;
            Ok(match &parser.data[start..parser.at] {
                b"null" => Json::Null,
                b"true" => Json::Bool(true),
                b"false" => Json::Bool(false),
                digits => Json::Number(number(&String::from_utf8_lossy(digits))?),
            })
        }
    }
}

pub(super) fn text(parser: &mut Parser<'_>) -> Result<String> {
    let text = parser.string()?;
    content(&parser.data[text.start..text.end], text.escaped)
}

/// What a string says.
pub(super) fn content(text: &[u8], escaped: bool) -> Result<String> {
    if !escaped {
        return Ok(String::from_utf8_lossy(text).into_owned());
    }
    let mut plain = Vec::with_capacity(text.len());
    unescape(text, &mut plain)?;
    Ok(String::from_utf8_lossy(&plain).into_owned())
}

/// A number without exponent, with the decimals that it was given.
fn number(text: &str) -> Result<String> {
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= limits::JSON_EXPONENT);
    let exponent = exponent.ok_or_else(|| Error::numeric_out_of_range("value overflows numeric format"))?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let sign = if digits.bytes().all(|digit| digit == b'0') { "" } else { sign };
    // Where the point is among the digits, which are made to reach it.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(exponent);
    digits.insert_str(0, &"0".repeat(usize::try_from(1 - point).unwrap_or(0)));
    let point = usize::try_from(point).unwrap_or(0).max(1);
    digits.push_str(&"0".repeat(point.saturating_sub(digits.len())));
    let (whole, fraction) = digits.split_at(point);
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        significant => significant,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // As PostgreSQL 15 shows them.
    #[rstest]
    #[case(r#" {"zz": 1, "a":2,"bb":3,"a" : 4} "#, r#"{"a": 4, "bb": 3, "zz": 1}"#)]
    #[case(r#"[1.50, 1e2, -0, -0.00, 1.5e1, 1.50e1, 1E-3, 12e-1, 0e5]"#, "[1.50, 100, 0, 0.00, 15, 15.0, 0.001, 1.2, 0]")]
    #[case("\"\\u00e9\\t\\/\\u001f\"", "\"é\\t/\\u001f\"")]
    #[case(" null ", "null")]
    #[case(r#"{"":[],"a":{}}"#, r#"{"": [], "a": {}}"#)]
    fn documents_have_one_text(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(canonical(text).unwrap(), shown);
        assert_eq!(canonical(shown).unwrap(), shown);
    }

    #[rstest]
    #[case("[1,]", "22P02")]
    #[case("", "22P02")]
    #[case("1e401", "22003")]
    #[case("1e99999999999", "22003")]
    fn others_are_refused(#[case] text: &str, #[case] state: &str) {
        assert_eq!(canonical(text).unwrap_err().state().code(), state);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(canonical(&deep).unwrap_err().state().code(), "54001");
    }

    #[test]
    fn keys_are_in_the_order_of_documents() {
        let ordered = [
            "[]",
            "null",
            "\"\"",
            "\"a\"",
            "\"ab\"",
            "-10.5",
            "-10",
            "-9",
            "-0.01",
            "0.00",
            "0.0099",
            "0.01",
            "1.0",
            "1.5",
            "2",
            "10",
            "100",
            "false",
            "true",
            "[1]",
            "[2]",
            "[1,1]",
            "[[],1]",
            "{}",
            "{\"a\":1}",
            "{\"a\":2}",
            "{\"b\":0}",
            "{\"a\":0,\"b\":0}",
        ];
        let key = |text: &str| {
            let mut key = Vec::new();
            Json::parse(text).unwrap().sort_key(&mut key);
            key
        };
        for pair in ordered.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        assert_eq!(key("1.0"), key("1"));
        assert_eq!(key("{\"b\":[1.50],\"a\":-0}"), key("{\"a\":0,\"b\":[15e-1]}"));
    }
}
