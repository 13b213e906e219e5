//! `to_timestamp(text, template)` and `to_date(text, template)`: PostgreSQL's templates in the planner's words, which are those of
//! `strftime`.
//!
//! | written | planned |
//! | --- | --- |
//! | `to_timestamp(x, 'YYYY-MM-DD HH24:MI')` | `to_timestamp_micros(x, '%Y-%m-%d %H:%M')`, as a timestamp with time zone |
//! | `to_date(x, 'DD Mon YYYY')` | `to_date(x, '%d %b %Y')` |
//!
//! Other templates are left as they are: those that are no literals, and those that are in the planner's words already.

use sqlparser::ast as sp;

use super::{call, literal, string, take};

/// A pattern of PostgreSQL's, in any case, and what `strftime` calls it. A longer one comes before those that it starts with.
const PATTERNS: [(&str, &str); 25] = [
    ("SSSSS", ""),
    ("MONTH", "%B"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("YYYY", "%Y"),
    ("IYYY", "%G"),
    ("A.M.", ""),
    ("P.M.", ""),
    ("FF3", "%3f"),
    ("FF6", "%6f"),
    ("DDD", "%j"),
    ("MON", "%b"),
    ("DAY", "%A"),
    ("TZ", ""),
    ("OF", ""),
    ("HH", "%I"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("MS", "%3f"),
    ("US", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("MM", "%m"),
    ("DD", "%d"),
    ("YY", "%y"),
];

/// What the call is in the planner's words, if it is one with such a template.
pub(super) fn parse_call(name: &str, text: &mut sp::Expr, template: &sp::Expr) -> Option<sp::Expr> {
    let format = translated(string(template)?)?;
    let arguments = vec![take(text), literal(&format)];
    if name == "to_date" {
        return Some(call("to_date", arguments));
    }
    let instant = Box::new(call("to_timestamp_micros", arguments));
    let data_type = sp::DataType::Timestamp(None, sp::TimezoneInfo::WithTimeZone);
    Some(sp::Expr::Cast { kind: sp::CastKind::Cast, expr: instant, data_type, array: false, format: None })
}

/// A template in the words of `strftime`; `None` for what these have no word for.
pub(super) fn translated(template: &str) -> Option<String> {
    let mut format = String::new();
    let mut rest = template;
    if rest.contains('%') {
        return None;
    }
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"')?;
            format.push_str(text);
            rest = after;
            continue;
        }
        // Numbers are read with and without leading zeroes.
        rest = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")).unwrap_or(rest);
        let found =
            PATTERNS.iter().find(|(pattern, _)| rest.get(..pattern.len()).is_some_and(|s| s.eq_ignore_ascii_case(pattern)));
        match found {
            Some((_, "")) => return None,
            Some((pattern, word)) => {
                format.push_str(word);
                rest = &rest[pattern.len()..];
            }
            None => {
                format.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    // A fraction after its point is read as what it is, however many digits it has.
    Some(format.replace("%S.%3f", "%S%.f").replace("%S.%6f", "%S%.f"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("YYYY-MM-DD HH24:MI:SS.US", Some("%Y-%m-%d %H:%M:%S%.f"))]
    #[case("YYYY-MM-DD\"T\"HH24:MI:SS", Some("%Y-%m-%dT%H:%M:%S"))]
    #[case("dd mon yyyy", Some("%d %b %Y"))]
    #[case("HH12:MI AM", Some("%I:%M %p"))]
    #[case("%Y-%m-%d", None)]
    #[case("HH24:MI:SS TZ", None)]
    fn templates_become_formats(#[case] template: &str, #[case] format: Option<&str>) {
        assert_eq!(super::translated(template).as_deref(), format);
    }
}
