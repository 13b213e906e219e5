//! Patterns of times in Java's letters (`java.time.format.DateTimeFormatter`), as ksqlDB and Flink take them, in PostgreSQL's.

use sqlparser::ast as sp;

use super::super::{literal, string, templates};
use super::stand_in;
use crate::error::{Error, Result};

/// A text read by a pattern: a time without zone, NULL of a text that does not fit.
pub(super) fn read(function: &str, text: &sp::Expr, pattern: &sp::Expr) -> Result<sp::Expr> {
    let template = template_of(function, pattern, true)?;
    match string(&template).and_then(templates::translated) {
        Some(format) => {
            let format = format.replace(OFFSET, "%#z");
            stand_in("time_by_pattern($1, $2)", &[text.clone(), literal(&format)])
        }
        None => Err(Error::unsupported(format!("{function} does not read the pattern {pattern}"))),
    }
}

/// Is it Java's? PostgreSQL has no minutes in small letters: `HH:mm` would be hours and months.
pub(in super::super) fn is_java(pattern: &sp::Expr) -> bool {
    string(pattern).is_some_and(|pattern| pattern.contains("HH") && !pattern.contains("HH24") && pattern.contains("mm"))
}

/// A pattern of Java's (`java.time.format.DateTimeFormatter`) as a template of PostgreSQL's.
pub(super) fn template(function: &str, pattern: &sp::Expr) -> Result<sp::Expr> {
    template_of(function, pattern, false)
}

fn template_of(function: &str, pattern: &sp::Expr, reads: bool) -> Result<sp::Expr> {
    let refused = |what: String| {
        let hint = "write to_char(value, 'YYYY-MM-DD HH24:MI:SS') or to_timestamp(text, …), with PostgreSQL's letters";
        Error::unsupported(format!("{function} {what}")).with_hint(hint)
    };
    let Some(pattern) = string(pattern) else { return Err(refused("takes a constant as its pattern".into())) };
    translated(pattern, reads)
        .map(|text| literal(&text))
        .map_err(|letters| refused(format!("does not know {letters} in a pattern")))
}

/// Stands for an offset from UTC, which texts have, and times that are to be written have not.
const OFFSET: char = '\u{1f}';

/// `Err`: the letters that have no word here.
fn translated(pattern: &str, reads: bool) -> std::result::Result<String, String> {
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let (inner, after) = quoted.split_once('\'').ok_or_else(|| rest.to_string())?;
            match inner {
                "" => text.push('\''),
                inner => text.push_str(&format!("\"{inner}\"")),
            }
            rest = after;
            continue;
        }
        let length = rest.find(|c| c != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        rest = after;
        if reads && matches!((first, length), ('X' | 'x' | 'Z', 1..=3)) {
            text.push(OFFSET);
            continue;
        }
        text.push_str(match (first, length) {
            ('y' | 'u', 2) => "YY",
            ('y' | 'u', 1 | 4) => "YYYY",
            ('M' | 'L', 1) => "FMMM",
            ('M' | 'L', 2) => "MM",
            ('M' | 'L', 3) => "Mon",
            ('M' | 'L', 4) => "FMMonth",
            ('d', 1) => "FMDD",
            ('d', 2) => "DD",
            ('D', 3) => "DDD",
            ('H', 1) => "FMHH24",
            ('H', 2) => "HH24",
            ('h', 1) => "FMHH12",
            ('h', 2) => "HH12",
            ('m', 1) => "FMMI",
            ('m', 2) => "MI",
            ('s', 1) => "FMSS",
            ('s', 2) => "SS",
            ('S', 3) => "MS",
            ('S', 6) => "US",
            ('E', 1..=3) => "Dy",
            ('E', 4) => "FMDay",
            ('a', 1) => "AM",
            (letter, _) if letter.is_ascii_alphabetic() || letter == '"' => return Err(run.to_string()),
            _ => run,
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("yyyy-MM-dd HH:mm:ss", Ok("YYYY-MM-DD HH24:MI:SS"))]
    #[case("yyyy-MM-dd'T'HH:mm:ss.SSS", Ok("YYYY-MM-DD\"T\"HH24:MI:SS.MS"))]
    #[case("d MMM yy, h 'o''clock' a", Ok("FMDD Mon YY, FMHH12 \"o\"\"clock\" AM"))]
    #[case("EEEE", Ok("FMDay"))]
    #[case("yyyyMMdd", Ok("YYYYMMDD"))]
    #[case("yyyy-MM-dd XXX", Err("XXX"))]
    #[case("'open", Err("'open"))]
    fn java_patterns_become_templates(#[case] pattern: &str, #[case] expected: std::result::Result<&str, &str>) {
        assert_eq!(translated(pattern, false), expected.map(str::to_string).map_err(str::to_string));
    }
}
