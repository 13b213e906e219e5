//! What is inside of a document, as a slice of its text: nothing is built, and a part of a document is spelled as it stands there.
//!
//! Every question reads the whole text once, so a text that is no document is an error whatever is asked of it.

use super::document::{content, text};
use super::parse::{Parser, whole};
use crate::error::Result;

/// The value of a key, the last one if there are several; `None` where there is none, or no object.
pub(crate) fn member<'a>(document: &'a str, key: &str) -> Result<Option<&'a str>> {
    let mut found = None;
    each_member(document, |name, escaped, value| {
        let same = if escaped { content(name, true)?.as_bytes() == key.as_bytes() } else { name == key.as_bytes() };
        if same {
            found = Some(value);
        }
        Ok(())
    })?;
    Ok(found)
}

/// An element by its place, from the end if that is negative; `None` where there is none, or no array.
pub(crate) fn element(document: &str, place: i64) -> Result<Option<&str>> {
    let Some(elements) = elements(document)? else { return Ok(None) };
    let from_end = || elements.len().checked_sub(usize::try_from(place.unsigned_abs()).ok()?);
    let place = if place < 0 { from_end() } else { usize::try_from(place).ok() };
    Ok(place.and_then(|place| elements.get(place).copied()))
}

/// The elements of an array.
pub(crate) fn elements(document: &str) -> Result<Option<Vec<&str>>> {
    whole(document.as_bytes(), |parser| {
        if parser.peek() != Some(b'[') {
            return parser.skip_value(0).map(|()| None);
        }
        let mut found = Vec::new();
        parser.elements(b']', |parser| {
            found.push(slice(document, parser)?);
            Ok(())
        })?;
        Ok(Some(found))
    })
}

/// Keys and values of an object, as often as they stand there.
pub(crate) fn members(document: &str) -> Result<Option<Vec<(String, &str)>>> {
    let mut found = Vec::new();
    let is_object = each_member(document, |name, escaped, value| {
        found.push((content(name, escaped)?, value));
        Ok(())
    })?;
    Ok(is_object.then_some(found))
}

/// The content of a string, and `None` of what is none.
pub(crate) fn string(document: &str) -> Result<Option<String>> {
    whole(document.as_bytes(), |parser| match parser.peek() {
        Some(b'"') => text(parser).map(Some),
        _ => parser.skip_value(0).map(|()| None),
    })
}

/// False: it is no object.
fn each_member<'a>(document: &'a str, mut each: impl FnMut(&'a [u8], bool, &'a str) -> Result<()>) -> Result<bool> {
    whole(document.as_bytes(), |parser| {
        if parser.peek() != Some(b'{') {
            return parser.skip_value(0).map(|()| false);
        }
        parser.elements(b'}', |parser| {
            let key = parser.string()?;
            parser.space();
            parser.expect(b':')?;
            parser.space();
            let name = &parser.data[key.start..key.end];
            each(name, key.escaped, slice(document, parser)?)
        })?;
        Ok(true)
    })
}

/// The text of the value that stands here.
fn slice<'a>(document: &'a str, parser: &mut Parser<'a>) -> Result<&'a str> {
    let start = parser.at;
    parser.skip_value(1)?;
    // Values begin and end at characters of ASCII.
    document.get(start..parser.at).ok_or_else(|| parser.error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_slices() {
        let document = r#" {"a": null, "é\n":[1, {"c" :"x"} ], "a":2} "#;
        assert_eq!(member(document, "a").unwrap(), Some("2"));
        assert_eq!(member(document, "é\n").unwrap(), Some(r#"[1, {"c" :"x"} ]"#));
        assert_eq!(member(document, "b").unwrap(), None);
        assert_eq!(member("[1]", "b").unwrap(), None);
        assert_eq!(element("[10, 20, 30]", -1).unwrap(), Some("30"));
        assert_eq!(element("[10, 20, 30]", 3).unwrap(), None);
        assert_eq!(element("[10, 20, 30]", i64::MIN).unwrap(), None);
        assert_eq!(elements("{}").unwrap(), None);
        assert_eq!(members(r#"{"k":[],"k":1}"#).unwrap().unwrap(), [("k".to_string(), "[]"), ("k".to_string(), "1")]);
        assert_eq!(string(r#""a\"b""#).unwrap().as_deref(), Some("a\"b"));
        assert!(member("{\"a\":1", "a").is_err() && element("[1] x", 0).is_err());
    }
}
