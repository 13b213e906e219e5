//! Regular expressions where DataFusion has no function: all matches, the parts between them, one match of several; and the
//! patterns of SIMILAR TO as regular expressions.
//!
//! The syntax is that of Rust's `regex`, whose time is linear in the text; flags are PostgreSQL's.

use std::cell::RefCell;

use regex::{Captures, Regex, RegexBuilder};

use super::super::value::Value;
use super::{Spec, immutable, int, text};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("regexp_split_to_array", SEARCH, "text[]", |_, values| split(values)),
    // What `regexp_matches` takes apart: a list of groups for each match.
    immutable("regexp_match_list", SEARCH, "text[][]", |_, values| matches(values)),
    immutable("similar_to_escape", &[&["text"], &["text", "text"]], "text", |_, values| similar(values)),
    // A group of each match: REGEXP_EXTRACT_ALL.
    immutable("regexp_groups", &[&["text", "text", "int4"]], "text[]", |_, values| of_each(values)),
    immutable("regexp_substr", SUBSTR, "text", |_, values| substr(values)),
];

const SEARCH: &[&[&str]] = &[&["text", "text"], &["text", "text", "text"]];
const SUBSTR: &[&[&str]] = &[
    &["text", "text"],
    &["text", "text", "int4"],
    &["text", "text", "int4", "int4"],
    &["text", "text", "int4", "int4", "text"],
    &["text", "text", "int4", "int4", "text", "int4"],
];

thread_local! {
    /// The last one: the rows of a column mostly share their pattern.
    static LAST: RefCell<Option<(String, String, Regex)>> = const { RefCell::new(None) };
}

/// Compiled with flags; `g` is the caller's.
fn compiled(pattern: &str, flags: &str) -> Result<Regex> {
    LAST.with_borrow_mut(|last| {
        if let Some((known, with, regex)) = last
            && known == pattern
            && with == flags
        {
            return Ok(regex.clone());
        }
        let regex = compile(pattern, flags)?;
        *last = Some((pattern.to_string(), flags.to_string(), regex.clone()));
        Ok(regex)
    })
}

fn compile(pattern: &str, flags: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    builder.dot_matches_new_line(true);
    for flag in flags.chars() {
        match flag {
            'g' | 't' | 'e' => {}
            'i' => drop(builder.case_insensitive(true)),
            'c' => drop(builder.case_insensitive(false)),
            's' => drop(builder.dot_matches_new_line(true).multi_line(false)),
            'n' | 'm' => drop(builder.dot_matches_new_line(false).multi_line(true)),
            'p' => drop(builder.dot_matches_new_line(false)),
            'w' => drop(builder.multi_line(true)),
            'x' => drop(builder.ignore_whitespace(true)),
            other => {
                let error = Error::invalid_parameter(format!("invalid regular expression option: \"{other}\""));
                return Err(error.with_hint("options are g, i, c, n, m, p, s, w and x"));
            }
        }
    }
    builder.build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        Error::invalid_regular_expression(format!("invalid regular expression: {reason}"))
    })
}

/// No group: the whole match.
fn groups(found: &Captures<'_>) -> Value {
    let all = found.iter().skip(usize::from(found.len() > 1));
    Value::List(all.map(|group| group.map(|group| group.as_str()).into()).collect())
}

fn matches(values: &[Value]) -> Result<Value> {
    let flags = text(values, 2);
    let regex = compiled(text(values, 1), flags)?;
    let most = if flags.contains('g') { usize::MAX } else { 1 };
    Ok(Value::List(regex.captures_iter(text(values, 0)).take(most).map(|found| groups(&found)).collect()))
}

fn of_each(values: &[Value]) -> Result<Value> {
    let regex = compiled(text(values, 1), "")?;
    let Ok(group) = usize::try_from(int(values, 2)) else { return Ok(Value::Null) };
    if group >= regex.captures_len() {
        return Ok(Value::Null);
    }
    let found = regex.captures_iter(text(values, 0));
    Ok(Value::List(found.map(|found| found.get(group).map(|group| group.as_str()).into()).collect()))
}

/// SQL's pattern: `%` and `_` are what `.*` and `.` are, `|`, `*`, `+`, `?`, `{m,n}`, `()` and `[]` what they are there, all else is
/// itself, and the whole text must match.
fn similar(values: &[Value]) -> Result<Value> {
    let mut escape = values.get(1).and_then(Value::text).unwrap_or("\\").chars();
    let (escape, more) = (escape.next(), escape.next());
    if more.is_some() {
        let error = Error::invalid_escape("invalid escape string");
        return Err(error.with_hint("the escape string is one character, or empty for none"));
    }
    let mut regex = "^(?:".to_string();
    let mut characters = text(values, 0).chars().peekable();
    let mut in_brackets = false;
    while let Some(character) = characters.next() {
        match character {
            c if Some(c) == escape => regex.extend(characters.next().map(|next| regex::escape(next.encode_utf8(&mut [0; 4])))),
            ']' if in_brackets => {
                regex.push(']');
                in_brackets = false;
            }
            // A class of characters, `[:alpha:]`.
            '[' if in_brackets && characters.peek() == Some(&':') => {
                regex.push('[');
                for within in characters.by_ref() {
                    regex.push(within);
                    if within == ']' {
                        break;
                    }
                }
            }
            c @ ('[' | '\\' | '&' | '~') if in_brackets => regex.extend(['\\', c]),
            c if in_brackets => regex.push(c),
            '[' => {
                regex.push('[');
                in_brackets = true;
                regex.extend(characters.next_if_eq(&'^'));
                // Behind the bracket it is a character as others.
                if characters.next_if_eq(&']').is_some() {
                    regex.push_str("\\]");
                }
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            // Groups that nobody asks for.
            '(' => regex.push_str("(?:"),
            c @ ('\\' | '.' | '^' | '$') => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    // A line break is a character as others.
    Ok(format!("(?s){regex})$").into())
}

/// A match of nothing at an end, or right behind another, parts nothing.
fn split(values: &[Value]) -> Result<Value> {
    let (whole, flags) = (text(values, 0), text(values, 2));
    if flags.contains('g') {
        return Err(Error::invalid_parameter("regexp_split_to_array() does not support the \"global\" option"));
    }
    let regex = compiled(text(values, 1), flags)?;
    let mut parts = Vec::new();
    let mut start = 0;
    for found in regex.find_iter(whole) {
        if found.is_empty() && (found.start() == start || found.start() == whole.len()) {
            continue;
        }
        parts.push(Value::from(&whole[start..found.start()]));
        start = found.end();
    }
    parts.push(whole[start..].into());
    Ok(Value::List(parts))
}

/// The `n`th match from a character on, or a group of it.
fn substr(values: &[Value]) -> Result<Value> {
    let or = |at: usize, default: i64| if values.len() > at { int(values, at) } else { default };
    let (start, number, group) = (or(2, 1), or(3, 1), or(5, 0));
    for (name, value, least) in [("start", start, 1), ("n", number, 1), ("subexpr", group, 0)] {
        if value < least {
            return Err(Error::invalid_parameter(format!("invalid value for parameter \"{name}\": {value}")));
        }
    }
    let flags = text(values, 4);
    if flags.contains('g') {
        return Err(Error::invalid_parameter("regexp_substr() does not support the \"global\" option"));
    }
    let whole = text(values, 0);
    let place = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let Some((from, _)) = whole.char_indices().nth(place(start) - 1) else { return Ok(Value::Null) };
    let regex = compiled(text(values, 1), flags)?;
    let found = regex.captures_iter(&whole[from..]).nth(place(number) - 1);
    Ok(found.and_then(|found| found.get(place(group)).map(|group| group.as_str().to_string())).into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Answers of PostgreSQL 15.
    #[rstest]
    #[case("hello world  foo", "\\s+", &["hello", "world", "foo"])]
    #[case("abc", "", &["a", "b", "c"])]
    #[case("abc", "b*", &["a", "c"])]
    #[case(",a,", ",", &["", "a", ""])]
    #[case("", ",", &[""])]
    fn texts_are_split(#[case] whole: &str, #[case] pattern: &str, #[case] parts: &[&str]) {
        assert_eq!(split(&[whole.into(), pattern.into()]).unwrap(), parts.to_vec().into());
    }

    #[rstest]
    #[case(&["b.."], Some("bar"))]
    #[case(&["b..", "1", "2"], Some("baz"))]
    #[case(&["(b)(.)", "5", "1", "", "2"], Some("a"))]
    #[case(&["B..", "1", "1", "i"], Some("bar"))]
    #[case(&["b..", "99"], None)]
    fn one_match_is_found(#[case] arguments: &[&str], #[case] expected: Option<&str>) {
        let mut values = vec![Value::from("foobarbaz")];
        values.extend(arguments.iter().map(|text| text.parse::<i64>().map_or((*text).into(), Value::Int)));
        assert_eq!(substr(&values).unwrap(), expected.into());
    }

    #[rstest]
    #[case("a%", None, "(?s)^(?:a.*)$")]
    #[case("(a|b)_.", None, "(?s)^(?:(?:a|b).\\.)$")]
    #[case("\\%[^]%a[:digit:]]", None, "(?s)^(?:%[^\\]%a[:digit:]])$")]
    #[case("a#_\\", Some("#"), "(?s)^(?:a_\\\\)$")]
    #[case("\\_", Some(""), "(?s)^(?:\\\\.)$")]
    fn patterns_become_expressions(#[case] pattern: &str, #[case] escape: Option<&str>, #[case] expected: &str) {
        let values: Vec<Value> = std::iter::once(pattern).chain(escape).map(Value::from).collect();
        assert_eq!(similar(&values).unwrap(), expected.into());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let state = |flags: &str, pattern: &str| compile(pattern, flags).unwrap_err().state().code();
        assert_eq!((state("q", "a"), state("", "(")), ("22023", "2201B"));
        let all = matches(&["foobar".into(), "o".into(), "g".into()]).unwrap();
        assert_eq!(all, Value::List(vec![vec!["o"].into(), vec!["o"].into()]));
    }
}
