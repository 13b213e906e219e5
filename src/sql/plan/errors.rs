//! Errors of the planner, with the place in the statement they speak of.

use datafusion::common::{Diagnostic, Span};
use datafusion::error::DataFusionError;
use sqlparser::tokenizer;

use crate::error::{Error, SqlState};
use crate::sql::ast::WINDOW_FUNCTIONS;
use crate::sql::parse::window_in_from;

/// An error of ours on its way through the planner, with the place it speaks of.
pub fn at(error: Error, span: tokenizer::Span) -> DataFusionError {
    let diagnostic = Diagnostic::new_error(error.message(), Span::try_from_sqlparser_span(span));
    DataFusionError::from(error).with_diagnostic(diagnostic)
}

/// What the planner said, as the user is to read it. Spans of our parser count characters in the whole string that the client
/// sent, and so does the position.
pub fn locate(error: DataFusionError) -> Error {
    let start = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| span.start.column);
    let error = in_our_words(Error::from(error));
    match start.and_then(|start| u32::try_from(start).ok()) {
        Some(at) if error.position().is_none() => error.at(at),
        _ => error,
    }
}

/// Functions that there are behind OVER alone.
const OF_WINDOWS: [&str; 9] =
    ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "nth_value"];

/// Messages of the planner's that are known to read badly.
fn in_our_words(error: Error) -> Error {
    let message = error.message();
    if error.state() == SqlState::UndefinedFunction
        && let Some(rest) = message.strip_prefix("Invalid function '")
        && let Some((name, rest)) = rest.split_once('\'')
    {
        if OF_WINDOWS.contains(&name) {
            return Error::wrong_object_type(format!("window function {name} requires an OVER clause"));
        }
        let better = Error::undefined_function(format!("function {name} does not exist"));
        if WINDOW_FUNCTIONS.contains(&name) {
            return better
                .with_hint(format!("a time window stands in FROM, or is what a query groups by: {}", window_in_from(name)));
        }
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

    #[test]
    fn an_unknown_function_is_named_with_its_like() {
        let error = locate(DataFusionError::Plan("Invalid function 'cuont'.\nDid you mean 'count'?".into()));
        assert_eq!(error.message(), "function cuont does not exist");
        assert_eq!(error.hint(), Some("did you mean count?"));
    }
}
