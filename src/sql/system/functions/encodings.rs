//! Bytes and the texts that they stand for, escapes of characters, and names taken apart.

use arrow::datatypes::{DataType, FieldRef};

use super::super::value::Value;
use super::{Spec, flag, immutable, int, text};
use crate::error::{Error, Result};

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("convert_from", &[&["bytea", "text"]], "text", |_, values| decoded(bytes(values), text(values, 1))),
    immutable("convert_to", &[&["text", "text"]], "bytea", |_, values| encoded(text(values, 0), text(values, 1))),
    immutable("get_byte", &[&["bytea", "int4"]], "int4", |_, values| byte(bytes(values), int(values, 1))),
    immutable("pg_column_size", &[&["any"]], "int4", |fields, values| Ok(size(fields, &values[0]).into())),
    immutable("parse_ident", &[&["text"], &["text", "bool"]], "text[]", |_, values| {
        names(text(values, 0), values.len() < 2 || flag(values, 1))
    }),
    immutable("scale", &[&["any"]], "int4", |_, values| decimals(&values[0], "scale").map(|digits| digits.len().into_value())),
    immutable("min_scale", &[&["any"]], "int4", |_, values| {
        decimals(&values[0], "min_scale").map(|digits| digits.trim_end_matches('0').len().into_value())
    }),
    immutable("unistr", &[&["text"]], "text", |_, values| unescaped(text(values, 0))),
];

trait Count {
    fn into_value(self) -> Value;
}

impl Count for usize {
    fn into_value(self) -> Value {
        Value::Int(i64::try_from(self).unwrap_or(i64::MAX))
    }
}

fn bytes(values: &[Value]) -> &[u8] {
    values.first().and_then(Value::bytes).unwrap_or_default()
}

enum Encoding {
    Utf8,
    Latin1,
    /// No conversion.
    Ascii,
}

fn encoding(name: &str, which: &str) -> Result<Encoding> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    Ok(match plain.as_str() {
        "utf8" | "unicode" => Encoding::Utf8,
        "latin1" | "iso88591" => Encoding::Latin1,
        "sqlascii" => Encoding::Ascii,
        _ => {
            let error = Error::invalid_parameter(format!("invalid {which} encoding name \"{name}\""));
            return Err(error.with_hint("there are UTF8, LATIN1 and SQL_ASCII"));
        }
    })
}

fn decoded(bytes: &[u8], name: &str) -> Result<Value> {
    if let Encoding::Latin1 = encoding(name, "source")? {
        return Ok(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into());
    }
    let invalid = |at: usize| {
        let shown: Vec<String> = bytes[at..].iter().take(1).map(|byte| format!("0x{byte:02x}")).collect();
        Error::invalid_encoding(format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")))
    };
    if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
        return Err(invalid(zero));
    }
    std::str::from_utf8(bytes).map(Value::from).map_err(|error| invalid(error.valid_up_to()))
}

fn encoded(text: &str, name: &str) -> Result<Value> {
    if let Encoding::Utf8 | Encoding::Ascii = encoding(name, "destination")? {
        return Ok(Value::Bytes(text.as_bytes().to_vec()));
    }
    let byte = |character: char| {
        u8::try_from(u32::from(character)).map_err(|_| {
            Error::untranslatable(format!(
                "character \"{character}\" of encoding \"UTF8\" has no equivalent in encoding \"LATIN1\""
            ))
        })
    };
    text.chars().map(byte).collect::<Result<Vec<u8>>>().map(Value::Bytes)
}

fn byte(bytes: &[u8], at: i64) -> Result<Value> {
    let byte = usize::try_from(at).ok().and_then(|at| bytes.get(at));
    byte.map(|byte| i32::from(*byte).into()).ok_or_else(|| {
        let last = i64::try_from(bytes.len()).unwrap_or(i64::MAX) - 1;
        Error::array_subscript(format!("index {at} out of valid range, 0..{last}"))
    })
}

/// About what a value takes in PostgreSQL, of which the wire and the disk know nothing here.
fn size(fields: &[FieldRef], value: &Value) -> i64 {
    fn width(of: &DataType) -> i64 {
        match of {
            DataType::Boolean => 1,
            DataType::Int16 => 2,
            DataType::Int32 | DataType::UInt32 | DataType::Float32 | DataType::Date32 => 4,
            DataType::Interval(_) => 16,
            _ => 8,
        }
    }
    fn of(data_type: &DataType, value: &Value) -> i64 {
        let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX - 64);
        match (value, data_type) {
            (Value::Text(digits), DataType::Decimal128(..)) => {
                let (whole, fraction) = digits.trim_start_matches('-').split_once('.').unwrap_or((digits, ""));
                let groups = |digits: usize| length(digits.div_ceil(4)) * 2;
                6 + groups(whole.trim_start_matches(['-', '0']).len()) + groups(fraction.trim_end_matches('0').len())
            }
            (Value::Text(text), _) => 4 + length(text.len()),
            (Value::Bytes(bytes), _) => 4 + length(bytes.len()),
            (Value::List(items), DataType::List(item)) => {
                if items.is_empty() {
                    16
                } else {
                    24 + items.iter().map(|value| of(item.data_type(), value)).sum::<i64>()
                }
            }
            _ => width(data_type),
        }
    }
    fields.first().map_or(0, |field| of(field.data_type(), value))
}

/// The decimals of a number.
fn decimals<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    match value {
        Value::Text(digits) => Ok(digits.split_once('.').map_or("", |(_, decimals)| decimals)),
        Value::Int(_) => Ok(""),
        _ => Err(Error::undefined_function(format!("function {name}(double precision) does not exist"))
            .with_hint("cast the number to numeric")),
    }
}

/// `\XXXX`, `\+XXXXXX`, `\uXXXX`, `\UXXXXXXXX` and `\\`.
fn unescaped(text: &str) -> Result<Value> {
    let invalid = |what: &str| Error::syntax(what).with_hint("Unicode escapes are \\XXXX, \\+XXXXXX, \\uXXXX and \\UXXXXXXXX");
    let mut output = String::with_capacity(text.len());
    // The first half of a pair.
    let mut high: Option<u32> = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != '\\' || rest.starts_with('\\') {
            if high.is_some() {
                return Err(invalid("invalid Unicode surrogate pair"));
            }
            output.push(first);
            rest = rest.strip_prefix('\\').filter(|_| first == '\\').unwrap_or(rest);
            continue;
        }
        let (skip, digits) = match rest.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let digits = rest.get(skip..skip + digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| invalid("invalid Unicode escape"))?;
        rest = &rest[skip + digits.len()..];
        let code = u32::from_str_radix(digits, 16).map_err(|_| invalid("invalid Unicode escape"))?;
        let code = match (high.take(), code) {
            (None, 0xD800..0xDC00) => {
                high = Some(code);
                continue;
            }
            (Some(high), 0xDC00..0xE000) => 0x1_0000 + ((high - 0xD800) << 10) + (code - 0xDC00),
            (Some(_), _) => return Err(invalid("invalid Unicode surrogate pair")),
            (None, code) => code,
        };
        let character = char::from_u32(code).filter(|c| *c != '\0');
        output.push(character.ok_or_else(|| invalid("invalid Unicode escape value"))?);
    }
    if high.is_some() {
        return Err(invalid("invalid Unicode surrogate pair"));
    }
    Ok(output.into())
}

/// The parts of a qualified name. `strict`: nothing may follow it.
fn names(whole: &str, strict: bool) -> Result<Value> {
    let invalid = || Error::invalid_parameter(format!("string is not a valid identifier: \"{whole}\""));
    let mut parts = Vec::new();
    let mut rest = whole.trim_start();
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut characters = quoted.char_indices();
            rest = loop {
                match characters.next() {
                    Some((_, '"')) if characters.as_str().starts_with('"') => {
                        characters.next();
                        part.push('"');
                    }
                    Some((_, '"')) => break characters.as_str(),
                    Some((_, character)) => part.push(character),
                    None => return Err(invalid().with_detail("the string has unclosed double quotes")),
                }
            };
            if part.is_empty() {
                return Err(invalid().with_detail("a quoted identifier must not be empty"));
            }
            parts.push(part);
        } else {
            let is_part = |c: char| c == '_' || c.is_alphanumeric() || c == '$' || !c.is_ascii();
            let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
            let part = &rest[..end];
            if part.is_empty() || part.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return Err(invalid());
            }
            parts.push(part.to_lowercase());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(after) => rest = after.trim_start(),
            None if strict && !rest.is_empty() => return Err(invalid()),
            None => return Ok(parts.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Answers of PostgreSQL 15.
    #[rstest]
    #[case("a.\"B c\"", Some(&["a", "B c"][..]))]
    #[case(" Foo . Bar ", Some(&["foo", "bar"][..]))]
    #[case("\"a\"\"b\"", Some(&["a\"b"][..]))]
    #[case("a.", None)]
    #[case("1a", None)]
    #[case("a b", None)]
    #[case("\"a", None)]
    fn names_are_taken_apart(#[case] whole: &str, #[case] parts: Option<&[&str]>) {
        assert_eq!(names(whole, true).ok(), parts.map(|parts| parts.to_vec().into()));
    }

    #[rstest]
    #[case("d\\0061t\\+000061", Some("data"))]
    #[case("\\u00e9\\\\", Some("é\\"))]
    #[case("\\D83D\\DE00", Some("😀"))]
    #[case("\\D83D", None)]
    #[case("\\00", None)]
    fn escapes_are_read(#[case] escaped: &str, #[case] expected: Option<&str>) {
        assert_eq!(unescaped(escaped).ok(), expected.map(Value::from));
    }
}
