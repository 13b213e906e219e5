//! Numbers as Postgres writes them: integers, floats in their shortest form, numeric in text and in its binary base 10,000.

use arrow::datatypes::i256;

/// Text of an integer of any width.
#[inline]
pub fn integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Shortest text that reads back as the same value; scientific from 1e15 up and below 1e-4.
pub fn float64(value: f64, out: &mut Vec<u8>) {
    if !special(value, out) {
        let plain = (1e-4..1e15).contains(&value.abs()) || value == 0.0;
        shortest(ryu::Buffer::new().format_finite(value), plain, out);
    }
}

/// As [`float64`], but scientific from 1e6 up.
pub fn float32(value: f32, out: &mut Vec<u8>) {
    if !special(value as f64, out) {
        let plain = (1e-4..1e6).contains(&value.abs()) || value == 0.0;
        shortest(ryu::Buffer::new().format_finite(value), plain, out);
    }
}

fn special(value: f64, out: &mut Vec<u8>) -> bool {
    let text: &[u8] = match value {
        value if value.is_nan() => b"NaN",
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => return false,
    };
    out.extend_from_slice(text);
    true
}

/// `text` is plain (`12.0`, `0.001`) or has an exponent (`1.2e-7`), as its author saw fit; we go by Postgres's bounds.
fn shortest(text: &str, plain: bool, out: &mut Vec<u8>) {
    if plain {
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        return;
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let zeros = digits().take_while(|digit| *digit == b'0').count();
    let exponent = exponent.parse::<i32>().unwrap_or(0) + whole.len() as i32 - 1 - zeros as i32;
    if mantissa.len() != unsigned.len() {
        out.push(b'-');
    }
    out.extend(digits().skip(zeros).take(1));
    let start = out.len();
    out.push(b'.');
    out.extend(digits().skip(zeros + 1));
    while out.len() > start && matches!(out.last(), Some(b'0' | b'.')) {
        let dot = out.pop() == Some(b'.');
        if dot {
            break;
        }
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.abs() < 10 {
        out.push(b'0');
    }
    integer(exponent.unsigned_abs(), out);
}

/// A decimal number taken apart: `digits × 10^-scale`.
pub struct Decimal<'a> {
    pub negative: bool,
    /// Without leading zeros, but for zero itself.
    pub digits: &'a [u8],
    pub scale: i8,
}

impl Decimal<'_> {
    /// Calls `write` with the parts of `value`.
    #[inline]
    pub fn of(value: i128, scale: i8, write: impl FnOnce(Decimal<'_>)) {
        let magnitude = value.unsigned_abs();
        let mut buffer = itoa::Buffer::new();
        // Dividing 64 bits is several times as fast.
        let digits = match u64::try_from(magnitude) {
            Ok(small) => buffer.format(small),
            Err(_) => buffer.format(magnitude),
        };
        write(Decimal { negative: value < 0, digits: digits.as_bytes(), scale });
    }

    /// As [`Decimal::of`], for the widest numbers.
    pub fn of_wide(value: i256, scale: i8, write: impl FnOnce(Decimal<'_>)) {
        match value.to_i128() {
            Some(value) => Decimal::of(value, scale, write),
            None => {
                let text = value.to_string();
                let digits = text.strip_prefix('-').unwrap_or(&text).as_bytes();
                write(Decimal { negative: value < i256::ZERO, digits, scale });
            }
        }
    }

    fn is_zero(&self) -> bool {
        self.digits == b"0"
    }

    pub fn text(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let Ok(scale) = usize::try_from(self.scale) else {
            out.extend_from_slice(self.digits);
            let zeros = if self.is_zero() { 0 } else { self.scale.unsigned_abs() as usize };
            out.resize(out.len() + zeros, b'0');
            return;
        };
        let whole = self.digits.len().saturating_sub(scale);
        let (whole, fraction) = self.digits.split_at(whole);
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
        if scale > 0 {
            out.push(b'.');
            out.resize(out.len() + scale - fraction.len(), b'0');
            out.extend_from_slice(fraction);
        }
    }

    /// Digits in base 10,000, the weight of the first of them, the sign, and the digits shown after the point.
    pub fn binary(&self, out: &mut Vec<u8>) {
        const NEGATIVE: u16 = 0x4000;
        let shown = self.scale.max(0) as u16;
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let mut weight = 0;
        if !self.is_zero() {
            // The power of ten of the first digit; a digit in base 10,000 ends where the power is a multiple of four.
            let mut power = self.digits.len() as i32 - self.scale as i32 - 1;
            weight = power.div_euclid(4);
            let mut group = 0u16;
            for digit in self.digits {
                group = group * 10 + (digit - b'0') as u16;
                if power.rem_euclid(4) == 0 {
                    out.extend_from_slice(&group.to_be_bytes());
                    group = 0;
                }
                power -= 1;
            }
            let missing = (power + 1).rem_euclid(4);
            if missing != 0 {
                group *= 10u16.pow(missing as u32);
                out.extend_from_slice(&group.to_be_bytes());
            }
            while out.len() > start + 8 && out.ends_with(&[0, 0]) {
                out.truncate(out.len() - 2);
            }
        }
        let count = ((out.len() - start - 8) / 2) as u16;
        let sign = if self.negative { NEGATIVE } else { 0 };
        for (index, word) in [count, weight as i16 as u16, sign, shown].into_iter().enumerate() {
            out[start + 2 * index..start + 2 * index + 2].copy_from_slice(&word.to_be_bytes());
        }
    }
}
