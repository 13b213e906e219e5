//! Parts of URLs, as ksqlDB's `URL_EXTRACT_…` and Flink's `PARSE_URL` give them; escapes of parameters.
//!
//! `scheme://user@host:port/path?query#fragment`: of what has no scheme, and of a part that is not there, NULL. ksqlDB's parts have their
//! escapes resolved, Flink's are as they were written.

use super::super::value::Value;
use super::{Spec, immutable, text};

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("url_extract_fragment", URL, "text", |_, values| Ok(read(values, |url| url.fragment))),
    immutable("url_extract_host", URL, "text", |_, values| Ok(read(values, |url| url.host))),
    immutable("url_extract_path", URL, "text", |_, values| Ok(read(values, |url| Some(url.path)))),
    immutable("url_extract_protocol", URL, "text", |_, values| Ok(read(values, |url| Some(url.scheme)))),
    immutable("url_extract_query", URL, "text", |_, values| Ok(read(values, |url| url.query))),
    immutable("url_extract_port", URL, "int4", |_, values| {
        Ok(Url::read(text(values, 0)).and_then(|url| url.port?.parse::<u16>().ok()).into())
    }),
    immutable("url_extract_parameter", &[&["text", "text"]], "text", |_, values| {
        let url = Url::read(text(values, 0));
        let found = url.and_then(|url| parameter(url.query?, |name| unescaped(name, true).as_deref() == Some(text(values, 1))));
        Ok(found.and_then(|value| unescaped(value, true)).into())
    }),
    immutable("url_encode_param", URL, "text", |_, values| Ok(escaped(text(values, 0)).into())),
    immutable("url_decode_param", URL, "text", |_, values| Ok(unescaped(text(values, 0), true).into())),
    immutable("parse_url", &[&["text", "text"], &["text", "text", "text"]], "text", |_, values| Ok(part(values))),
];

const URL: &[&[&str]] = &[&["text"]];

#[derive(Debug, PartialEq)]
struct Url<'a> {
    scheme: &'a str,
    /// What stands between `//` and the path: user, host and port.
    authority: Option<&'a str>,
    user: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl Url<'_> {
    fn read(whole: &str) -> Option<Url<'_>> {
        let (scheme, rest) = whole.split_once(':')?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(is_scheme) || rest.contains(' ') {
            return None;
        }
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        let (user, address) = match authority.map(|authority| authority.rsplit_once('@').ok_or(authority)) {
            Some(Ok((user, address))) => (Some(user), Some(address)),
            Some(Err(address)) => (None, Some(address)),
            None => (None, None),
        };
        // The colons of an address between brackets part no port from it.
        let bracket = address.and_then(|address| address.rfind(']')).map_or(0, |at| at + 1);
        let (host, port) = match address.map(|address| (address, address[bracket..].rfind(':'))) {
            Some((address, Some(colon))) => (Some(&address[..bracket + colon]), Some(&address[bracket + colon + 1..])),
            Some((address, None)) => (Some(address), None),
            None => (None, None),
        };
        let host = host.filter(|host| !host.is_empty());
        Some(Url { scheme, authority, user, host, port, path, query, fragment })
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// A part with its escapes resolved. A plus is a plus: it stands for a space in parameters alone.
fn read(values: &[Value], part: impl Fn(Url<'_>) -> Option<&str>) -> Value {
    Url::read(text(values, 0)).and_then(part).and_then(|part| unescaped(part, false)).into()
}

/// `PARSE_URL(url, part [, key])`.
fn part(values: &[Value]) -> Value {
    let Some(url) = Url::read(text(values, 0)) else { return Value::Null };
    let part = match text(values, 1) {
        "PROTOCOL" => Some(url.scheme),
        "AUTHORITY" => url.authority,
        "USERINFO" => url.user,
        "HOST" => url.host,
        "PATH" => Some(url.path),
        "REF" => url.fragment,
        "QUERY" => match values.get(2).and_then(Value::text) {
            Some(key) => url.query.and_then(|query| parameter(query, |name| name == key)),
            None => url.query,
        },
        "FILE" => return url.query.map_or_else(|| url.path.to_string(), |query| format!("{}?{query}", url.path)).into(),
        _ => None,
    };
    part.map(str::to_string).into()
}

/// The value of the first parameter whose name is sought.
fn parameter(query: &str, is_sought: impl Fn(&str) -> bool) -> Option<&str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_sought(name).then_some(value)
    })
}

/// As forms send it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `None` of what is no text so.
fn unescaped(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://u:p@a.example:8080/x%20y/?k=1#f", "http u:p a.example 8080 /x%20y/ k=1 f")]
    #[case("https://[::1]:80", "https - [::1] 80  - -")]
    #[case("https://[::1]/", "https - [::1] - / - -")]
    #[case("mailto:a@b.example", "mailto - - - a@b.example - -")]
    #[case("file:///etc/x", "file - - - /etc/x - -")]
    fn urls_are_taken_apart(#[case] text: &str, #[case] expected: &str) {
        let url = Url::read(text).unwrap();
        let part = |part: Option<&str>| part.unwrap_or("-").to_string();
        let parts = [Some(url.scheme), url.user, url.host, url.port, Some(url.path), url.query, url.fragment].map(part);
        assert_eq!(parts.join(" "), expected);
    }

    #[rstest]
    #[case("/x?y")]
    #[case("1x:y")]
    #[case("http://a b")]
    fn other_texts_are_none(#[case] text: &str) {
        assert_eq!(Url::read(text), None);
    }

    #[test]
    fn escapes_go_there_and_back() {
        let text = "a b&c=ü/é*";
        assert_eq!(escaped(text), "a+b%26c%3D%C3%BC%2F%C3%A9*");
        assert_eq!(unescaped(&escaped(text), true).as_deref(), Some(text));
        assert_eq!(
            [unescaped("%4", true), unescaped("%zz", true), unescaped("%ff", true), unescaped("%00", true)],
            [const { None }; 4]
        );
    }
}
