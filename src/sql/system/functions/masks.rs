//! ksqlDB's masks: letters and digits of a text, or of a part of it, become others.
//!
//! `MASK(text [, upper, lower, digit, other])`, and with the number of characters that are masked, or kept, at an end:
//! `MASK_LEFT(text, n [, …])`, `MASK_RIGHT`, `MASK_KEEP_LEFT`, `MASK_KEEP_RIGHT`. A mask that is NULL leaves its kind of characters alone.

use super::super::value::Value;
use super::{Spec, immutable, int};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("mask", WHOLE, "text", |_, values| masked(values, 1, |length, _| 0..length)).lenient(),
    immutable("mask_left", END, "text", |_, values| masked(values, 2, |length, n| 0..n.min(length))).lenient(),
    immutable("mask_right", END, "text", |_, values| masked(values, 2, |length, n| length.saturating_sub(n)..length)).lenient(),
    immutable("mask_keep_left", END, "text", |_, values| masked(values, 2, |length, n| n.min(length)..length)).lenient(),
    immutable("mask_keep_right", END, "text", |_, values| masked(values, 2, |length, n| 0..length.saturating_sub(n))).lenient(),
];

const WHOLE: &[&[&str]] = &[
    &["text"],
    &["text", "text"],
    &["text", "text", "text"],
    &["text", "text", "text", "text"],
    &["text", "text", "text", "text", "text"],
];
const END: &[&[&str]] = &[
    &["text", "int4"],
    &["text", "int4", "text"],
    &["text", "int4", "text", "text"],
    &["text", "int4", "text", "text", "text"],
    &["text", "int4", "text", "text", "text", "text"],
];

/// Masks of upper case, lower case, digits and the rest.
const MASKS: [char; 4] = ['X', 'x', 'n', '-'];

/// `part`: of a text of so many characters, and the number at its end, those that are masked.
fn masked(values: &[Value], first: usize, part: impl Fn(usize, usize) -> std::ops::Range<usize>) -> Result<Value> {
    let Some(text) = values.first().and_then(Value::text) else { return Ok(Value::Null) };
    if first == 2 && values[1] == Value::Null {
        return Ok(Value::Null);
    }
    let number = usize::try_from(if first == 2 { int(values, 1) } else { 0 })
        .map_err(|_| Error::invalid_parameter("the number of characters of a mask is negative"))?;
    let mut masks = MASKS.map(Some);
    for (mask, given) in masks.iter_mut().zip(values.iter().skip(first)) {
        *mask = given.text().and_then(|text| text.chars().next());
    }
    let [upper, lower, digit, other] = masks;
    let part = part(text.chars().count(), number);
    let one = |(at, character): (usize, char)| {
        let mask = match character {
            _ if !part.contains(&at) => None,
            c if c.is_uppercase() => upper,
            c if c.is_lowercase() => lower,
            c if c.is_numeric() => digit,
            _ => other,
        };
        mask.unwrap_or(character)
    };
    Ok(text.chars().enumerate().map(one).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_ksqldb() {
        let call = |name: &str, values: &[Value]| {
            let spec = FUNCTIONS.iter().find(|spec| spec.name == name).unwrap();
            let super::super::Body::Pure(body) = spec.body else { panic!("pure") };
            body(&[], values).unwrap()
        };
        let text = || Value::from("My Test $123");
        assert_eq!(call("mask", &[text()]), "Xx-Xxxx--nnn".into());
        let given = [text(), "*".into(), Value::Null, "1".into(), Value::Null];
        assert_eq!(call("mask", &given), "*y *est $111".into());
        assert_eq!(call("mask_left", &[text(), Value::Int(4)]), "Xx-Xest $123".into());
        assert_eq!(call("mask_right", &[text(), Value::Int(4)]), "My Test -nnn".into());
        assert_eq!(call("mask_keep_left", &[text(), Value::Int(4)]), "My Txxx--nnn".into());
        assert_eq!(call("mask_keep_right", &[text(), Value::Int(40)]), text());
        assert_eq!(call("mask", &[Value::Null]), Value::Null);
    }
}
