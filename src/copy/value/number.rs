//! Numbers, truth values and byte strings.

use arrow::datatypes::i256;

use super::{invalid_syntax, trim};
use crate::error::{Error, Result};

/// An integer type of SQL.
pub trait Integer: Copy + TryFrom<i128> {
    const NAME: &'static str;
}

macro_rules! integers {
    ($($type:ty: $name:literal),*) => { $(impl Integer for $type { const NAME: &'static str = $name; })* };
}

integers!(i8: "tinyint", i16: "smallint", i32: "integer", i64: "bigint");
integers!(u8: "tinyint unsigned", u16: "smallint unsigned", u32: "integer unsigned", u64: "bigint unsigned");

/// An integer of type `T`: digits with an optional sign, white space around them.
#[inline]
pub fn parse_int<T: Integer>(text: &[u8]) -> Result<T> {
    if let Some(value) = plain_int(text)
        && let Ok(value) = T::try_from(i128::from(value))
    {
        return Ok(value);
    }
    slow_int(text)
}

/// Up to 18 digits and a minus sign: what nearly all integers look like. They can't overflow.
#[inline]
fn plain_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let value = plain_digits(digits)?;
    Some(if negative { -value } else { value })
}

/// The value of 1 to 18 digits.
#[inline]
fn plain_digits(mut digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0;
    while let Some((eight, rest)) = digits.split_first_chunk::<8>() {
        value = value * 100_000_000 + eight_digits(*eight)?;
        digits = rest;
    }
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

/// The value of eight digits at once: pairs, then pairs of pairs, within one word.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<i64> {
    let word = u64::from_le_bytes(text);
    let digits = word ^ 0x3030_3030_3030_3030;
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some(((fours & 0xffff_ffff) * 10_000 + (fours >> 32)) as i64)
}

#[cold]
fn slow_int<T: Integer>(text: &[u8]) -> Result<T> {
    let trimmed = trim(text);
    let (negative, digits) = match trimmed {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, trimmed),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid_syntax(T::NAME, text));
    }
    let magnitude = digits.iter().try_fold(0i128, |value, digit| value.checked_mul(10)?.checked_add(i128::from(digit - b'0')));
    let value = magnitude.map(|m| if negative { -m } else { m }).and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| {
        Error::numeric_out_of_range(format!(
            "value \"{}\" is out of range for type {}",
            String::from_utf8_lossy(trimmed),
            T::NAME
        ))
    })
}

/// `numeric(precision, scale)` as the integer value × 10^scale, rounded half away from zero.
#[inline]
pub fn parse_numeric(text: &[u8], precision: u8, scale: i8) -> Result<i128> {
    if let Some(value) = plain_numeric(text, precision, scale) {
        return Ok(value);
    }
    let value = parse_numeric256(text, precision, scale)?;
    value.to_i128().ok_or_else(|| numeric_overflow(precision, scale))
}

/// Up to 18 digits in all, no exponent, no more decimals than the type keeps.
#[inline]
fn plain_numeric(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let scale = usize::try_from(scale).ok()?;
    let value = match memchr::memchr(b'.', digits) {
        None => scaled(plain_digits(digits)?, digits.len(), scale)?,
        Some(point) => {
            let (whole, decimals) = (digits.get(..point)?, digits.get(point + 1..)?);
            if decimals.len() > scale {
                return None;
            }
            let whole = scaled(plain_digits(whole)?, whole.len(), scale)?;
            whole + scaled(plain_digits(decimals)?, decimals.len(), scale - decimals.len())?
        }
    };
    let fits = i128::from(value) < 10i128.checked_pow(u32::from(precision))?;
    fits.then_some(i128::from(if negative { -value } else { value }))
}

#[inline]
fn scaled(value: i64, digits: usize, scale: usize) -> Option<i64> {
    const POWERS: [i64; 19] = {
        let mut powers = [1; 19];
        let mut i = 1;
        while i < powers.len() {
            powers[i] = powers[i - 1] * 10;
            i += 1;
        }
        powers
    };
    if digits + scale > 18 { None } else { Some(value * POWERS.get(scale)?) }
}

/// The general case: sign, digits, point, exponent. All digits are kept until the rounding.
pub fn parse_numeric256(text: &[u8], precision: u8, scale: i8) -> Result<i256> {
    let invalid = || invalid_syntax("numeric", text);
    let (negative, mut rest) = match trim(text) {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if [&b"nan"[..], b"infinity", b"inf"].iter().any(|special| rest.eq_ignore_ascii_case(special)) {
        let message = format!("cannot store \"{}\" in a column of type numeric", String::from_utf8_lossy(text));
        return Err(Error::numeric_out_of_range(message).with_hint("use double precision for NaN and infinity"));
    }
    let mut digits = Vec::with_capacity(rest.len());
    let (mut seen_digit, mut point) = (false, None);
    while let [byte, after @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                seen_digit = true;
                digits.push(byte - b'0');
            }
            b'.' if point.is_none() => point = Some(digits.len()),
            _ => break,
        }
        rest = after;
    }
    if !seen_digit {
        return Err(invalid());
    }
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', exponent @ ..] => parse_exponent(exponent).ok_or_else(invalid)?,
        _ => return Err(invalid()),
    };
    // The value is 0.d1d2d3… × 10^magnitude.
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let magnitude = point.unwrap_or(digits.len()) as i64 + exponent - leading as i64;
    let digits = digits.get(leading..).unwrap_or_default();
    let keep = magnitude + i64::from(scale);
    if digits.is_empty() || keep < 0 {
        return Ok(i256::ZERO);
    }
    if keep > i64::from(precision) {
        return Err(numeric_overflow(precision, scale));
    }
    let digit = |at: i64| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let ten = i256::from_i128(10);
    let mut value = i256::ZERO;
    for at in 0..keep {
        value = value.wrapping_mul(ten).wrapping_add(i256::from_i128(i128::from(digit(at))));
    }
    if digit(keep) >= 5 {
        value = value.wrapping_add(i256::ONE);
        if value == ten.wrapping_pow(u32::from(precision)) {
            return Err(numeric_overflow(precision, scale));
        }
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// Bounded, so that arithmetic with it can't overflow; far beyond every precision.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1 << 40));
    Some(if negative { -value } else { value })
}

#[cold]
pub(crate) fn numeric_overflow(precision: u8, scale: i8) -> Error {
    let limit = match i32::from(precision) - i32::from(scale) {
        0 => "1".to_string(),
        digits => format!("10^{digits}"),
    };
    Error::numeric_out_of_range("numeric field overflow").with_detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {limit}."
    ))
}

pub fn parse_float64(text: &[u8]) -> Result<f64> {
    parse_float(text, "double precision", f64::is_infinite, |v| *v == 0.0)
}

pub fn parse_float32(text: &[u8]) -> Result<f32> {
    parse_float(text, "real", |v: f32| v.is_infinite(), |v| *v == 0.0)
}

fn parse_float<T: std::str::FromStr + Copy>(
    text: &[u8],
    name: &str,
    infinite: impl Fn(T) -> bool,
    zero: impl Fn(&T) -> bool,
) -> Result<T> {
    let trimmed = trim(text);
    let value = std::str::from_utf8(trimmed).ok().and_then(|t| t.parse::<T>().ok()).ok_or_else(|| invalid_syntax(name, text))?;
    // A number that became infinite, or zero, is out of range; "inf" and "0e5" are not.
    let mantissa = trimmed.split(|b| matches!(b, b'e' | b'E')).next().unwrap_or_default();
    let overflow = infinite(value) && trimmed.iter().any(u8::is_ascii_digit);
    if overflow || (zero(&value) && mantissa.iter().any(|b| matches!(b, b'1'..=b'9'))) {
        return Err(Error::numeric_out_of_range(format!(
            "\"{}\" is out of range for type {name}",
            String::from_utf8_lossy(trimmed)
        )));
    }
    Ok(value)
}

/// `t`, `true`, `yes`, `on`, `1` and their opposites; unique beginnings will do.
pub fn parse_bool(text: &[u8]) -> Result<bool> {
    match text {
        b"t" | b"true" | b"1" => return Ok(true),
        b"f" | b"false" | b"0" => return Ok(false),
        _ => {}
    }
    let word = trim(text).to_ascii_lowercase();
    let begins = |whole: &[u8], least: usize| word.len() >= least && whole.starts_with(&word);
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || word == b"1" {
        Ok(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || word == b"0" {
        Ok(false)
    } else {
        Err(invalid_syntax("boolean", text))
    }
}

/// `\x…` hexadecimal, or the older form with `\\` and `\ooo`.
pub fn parse_bytea(text: &[u8]) -> Result<Vec<u8>> {
    match text {
        [b'\\', b'x', digits @ ..] => parse_hex(digits),
        _ => parse_bytea_escape(text),
    }
}

fn parse_hex(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b' ' | b'\n' | b'\t' | b'\r' if high.is_none() => continue,
            _ => {
                let digit = String::from_utf8_lossy(&[byte]).into_owned();
                return Err(Error::invalid_parameter(format!("invalid hexadecimal digit: \"{digit}\"")));
            }
        };
        high = match high {
            None => Some(digit << 4),
            Some(high) => {
                out.push(high | digit);
                None
            }
        };
    }
    match high {
        None => Ok(out),
        Some(_) => Err(Error::invalid_parameter("invalid hexadecimal data: odd number of digits")),
    }
}

fn parse_bytea_escape(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [] => return Ok(out),
            [b'\\', b'\\', after @ ..] => {
                out.push(b'\\');
                rest = after;
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            [b'\\', ..] => return Err(invalid_syntax("bytea", text)),
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}
