//! JSON: what is inside of a document ([`read`]), documents changed ([`change`]), and documents made of values ([`make`]),
//! and what others ask of them ([`lenient`]).
//!
//! A document is text to us. A `json` is the text that was written; a `jsonb` is the one text of its value
//! ([`crate::copy::json::canonical`]). Functions called `jsonb_…` rely on that: the planner makes it so of what is no `jsonb` yet
//! (`plan/documents.rs`). Parts of a document are slices of its text, so a part of a `jsonb` is one, too.

mod change;
mod lenient;
mod make;
mod read;

use super::super::value::Value;
use super::{Spec, immutable, text};
use crate::error::Result;

/// All tables as one.
pub(super) fn all() -> impl Iterator<Item = &'static Spec> {
    read::FUNCTIONS.iter().chain(change::FUNCTIONS).chain(make::FUNCTIONS).chain(lenient::FUNCTIONS)
}

const DOCUMENT: &[&[&str]] = &[&["text"]];

/// The steps of a path: an array of texts, or the text of one. `None` where one of them is NULL.
fn path(value: &Value) -> Result<Option<Vec<String>>> {
    let steps = match value {
        Value::List(steps) => steps.iter().map(|step| step.text().map(str::to_string)).collect(),
        Value::Text(text) => super::super::rewrite::array_items(text)?.into_iter().collect(),
        _ => None,
    };
    Ok(steps)
}
