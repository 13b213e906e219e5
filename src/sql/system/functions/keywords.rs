//! The words of PostgreSQL's grammar: what `pg_get_keywords` is made of, a list for each column.

use std::sync::LazyLock;

use super::super::value::Value;
use super::{Spec, immutable};

/// A line each: the word, its category, and whether it may be a column's name without AS.
const KEYWORDS: &str = include_str!("../keywords.txt");

static WORDS: LazyLock<Vec<[&str; 3]>> = LazyLock::new(|| {
    let parts = |line: &'static str| {
        let mut parts = line.split(' ');
        [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default)
    };
    KEYWORDS.lines().map(parts).collect()
});

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("keyword_words", NONE, "text[]", |_, _| Ok(column(|[word, ..]| (*word).into()))),
    immutable("keyword_codes", NONE, "text[]", |_, _| Ok(column(|[_, code, _]| (*code).into()))),
    immutable("keyword_labels", NONE, "bool[]", |_, _| Ok(column(|[.., bare]| Value::Bool(*bare == "t")))),
    immutable("keyword_categories", NONE, "text[]", |_, _| Ok(column(|[_, code, _]| category(code).into()))),
    immutable("keyword_uses", NONE, "text[]", |_, _| {
        Ok(column(|[.., bare]| if *bare == "t" { "can be bare label" } else { "requires AS" }.into()))
    }),
];

const NONE: &[&[&str]] = &[&[]];

fn column(of: impl Fn(&[&str; 3]) -> Value) -> Value {
    Value::List(WORDS.iter().map(of).collect())
}

fn category(code: &str) -> &'static str {
    match code {
        "U" => "unreserved",
        "C" => "unreserved (cannot be function or type name)",
        "T" => "reserved (can be function or type name)",
        _ => "reserved",
    }
}
