//! Errors of the planner, with the place in the statement they speak of.

use datafusion::common::{Diagnostic, Span};
use datafusion::error::DataFusionError;
use sqlparser::tokenizer;

use crate::error::{Error, SqlState};

/// An error of ours on its way through the planner, with the place it speaks of.
pub fn at(error: Error, span: tokenizer::Span) -> DataFusionError {
    let diagnostic = Diagnostic::new_error(error.message(), Span::try_from_sqlparser_span(span));
    DataFusionError::from(error).with_diagnostic(diagnostic)
}

/// What the planner said, as the user is to read it. `sql` is the text whose lines and columns the tree's spans count.
pub fn locate(error: DataFusionError, sql: &str) -> Error {
    let diagnostic = error.diagnostic();
    let start = diagnostic.and_then(|d| d.span).map(|span| span.start);
    let error = in_our_words(Error::from(error));
    match start.and_then(|start| position(sql, start.line, start.column)) {
        Some(at) if error.position().is_none() => error.at(at),
        _ => error,
    }
}

/// Characters from 1, of a line and column from 1.
pub fn position(sql: &str, line: u64, column: u64) -> Option<u32> {
    let before: usize =
        sql.split_inclusive('\n').take(usize::try_from(line.checked_sub(1)?).ok()?).map(|l| l.chars().count()).sum();
    u32::try_from(before as u64 + column).ok()
}

/// Messages of the planner's that are known to read badly.
fn in_our_words(error: Error) -> Error {
    let message = error.message();
    if error.state() == SqlState::UndefinedFunction
        && let Some(rest) = message.strip_prefix("Invalid function '")
        && let Some((name, rest)) = rest.split_once('\'')
    {
        let better = Error::undefined_function(format!("function {name} does not exist"));
        return match rest.split_once("Did you mean '").and_then(|(_, like)| like.split_once('\'')) {
            Some((like, _)) => better.with_hint(format!("did you mean {like}?")),
            None => better,
        };
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("SELECT x", 1, 8, 8)]
    #[case("SELECT\n  x", 2, 3, 10)]
    #[case("SELECT 'ä',\n x", 2, 2, 14)]
    fn positions_count_characters(#[case] sql: &str, #[case] line: u64, #[case] column: u64, #[case] expected: u32) {
        assert_eq!(position(sql, line, column), Some(expected));
    }

    #[test]
    fn an_unknown_function_is_named_with_its_like() {
        let error = locate(DataFusionError::Plan("Invalid function 'cuont'.\nDid you mean 'count'?".into()), "");
        assert_eq!(error.message(), "function cuont does not exist");
        assert_eq!(error.hint(), Some("did you mean count?"));
    }
}
