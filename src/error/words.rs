//! What libraries say in their words, in PostgreSQL's: names of types. Messages that are known to read badly are in
//! [`super::messages`].

/// Names of Arrow's types, and SQL's for them. What stands in parentheses behind them belongs to them.
const TYPES: [(&str, &str); 27] = [
    ("Null", "unknown"),
    ("Boolean", "boolean"),
    ("Int8", "smallint"),
    ("Int16", "smallint"),
    ("Int32", "integer"),
    ("Int64", "bigint"),
    ("UInt8", "smallint"),
    ("UInt16", "integer"),
    ("UInt32", "oid"),
    ("UInt64", "numeric"),
    ("Float16", "real"),
    ("Float32", "real"),
    ("Float64", "double precision"),
    ("Decimal32", "numeric"),
    ("Decimal64", "numeric"),
    ("Decimal128", "numeric"),
    ("Decimal256", "numeric"),
    ("Utf8", "text"),
    ("LargeUtf8", "text"),
    ("Utf8View", "text"),
    ("Binary", "bytea"),
    ("LargeBinary", "bytea"),
    ("BinaryView", "bytea"),
    ("Date32", "date"),
    ("Time64", "time without time zone"),
    ("Interval", "interval"),
    ("Duration", "interval"),
];

/// What is said before the message itself.
const PREFIXES: [&str; 8] = [
    "Arrow error: ",
    "Compute error: ",
    "Cast error: ",
    "Parser error: ",
    "Execution error: ",
    "Error during planning: ",
    "Invalid argument error: ",
    "External error: ",
];

/// The message with SQL's names for types, and without what stands before it.
pub(super) fn plain(message: &str) -> String {
    let mut message = message;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| message.strip_prefix(prefix)) {
        message = rest;
    }
    let mut plain = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        if matches!(word, "List" | "LargeList" | "Timestamp")
            && let Some((inside, behind)) = parenthesized(rest)
        {
            match word {
                "Timestamp" if inside.contains(',') && !inside.ends_with("None") => plain.push_str("timestamp with time zone"),
                "Timestamp" => plain.push_str("timestamp without time zone"),
                _ => {
                    let item = inside.strip_prefix("non-null ").unwrap_or(inside);
                    plain.push_str(&self::plain(item.split(", field: ").next().unwrap_or(item)));
                    plain.push_str("[]");
                }
            }
            rest = behind;
            continue;
        }
        match TYPES.iter().find(|(arrow, _)| *arrow == word) {
            None => plain.push_str(word),
            Some((_, sql)) => {
                plain.push_str(sql);
                rest = parenthesized(rest).map_or(rest, |(_, behind)| behind);
            }
        }
    }
    plain + rest
}

/// What is in the parentheses that the text starts with, and what comes behind them.
fn parenthesized(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 { None } else { Some((&text[1..at], &text[at + 1..])) };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("Arrow error: Compute error: Int64 and Utf8View", "bigint and text")]
    #[case("List(Int32) || Timestamp(µs)", "integer[] || timestamp without time zone")]
    #[case("Timestamp(µs, \"UTC\") - Decimal128(10, 2)", "timestamp with time zone - numeric")]
    #[case("Interval(MonthDayNano) * List(List(Utf8))", "interval * text[][]")]
    #[case("a Listing of Int32x (is not", "a Listing of Int32x (is not")]
    fn types_are_sqls(#[case] message: &str, #[case] expected: &str) {
        assert_eq!(plain(message), expected);
    }
}
