//! Quotients of decimals: rounded, halves away from zero, as PostgreSQL rounds `numeric`.

use arrow::datatypes::i256;

use crate::error::{Error, Result};

/// `a / b` with so many decimals.
pub fn divided(a: i128, a_scale: i32, b: i128, b_scale: i32, scale: i32) -> Result<i128> {
    if b == 0 {
        return Err(Error::division_by_zero("division by zero"));
    }
    let shift = u32::try_from(scale - a_scale + b_scale).unwrap_or(0);
    match 10i128.checked_pow(shift).and_then(|factor| a.checked_mul(factor)) {
        Some(scaled) => Ok(rounded_quotient(scaled, b)),
        None => {
            let overflow = || Error::numeric_out_of_range("a quotient exceeds 38 digits");
            let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
            let scaled = i256::from_i128(a).checked_mul(factor).ok_or_else(overflow)?;
            let by = i256::from_i128(b);
            let (whole, rest) = (scaled.wrapping_div(by), scaled.wrapping_rem(by));
            let whole = whole.to_i128().ok_or_else(overflow)?;
            let rest = rest.to_i128().ok_or_else(overflow)?;
            Ok(whole + away(rest, b, (a < 0) != (b < 0)))
        }
    }
}

/// Rounded, halves away from zero.
pub fn rounded_quotient(a: i128, b: i128) -> i128 {
    a.wrapping_div(b) + away(a.wrapping_rem(b), b, (a < 0) != (b < 0))
}

fn away(rest: i128, by: i128, negative: bool) -> i128 {
    match rest.unsigned_abs() >= by.unsigned_abs().div_ceil(2) && rest != 0 {
        true if negative => -1,
        true => 1,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(5, 2, 3)]
    #[case(-5, 2, -3)]
    #[case(5, -2, -3)]
    #[case(7, 3, 2)]
    #[case(8, 3, 3)]
    #[case(1, 3, 0)]
    fn halves_go_away_from_zero(#[case] a: i128, #[case] b: i128, #[case] expected: i128) {
        assert_eq!(rounded_quotient(a, b), expected);
    }

    #[test]
    fn long_numbers_are_divided_too() {
        let nine = 99_999_999_999_999_999_999_999_999_999_999_999_999;
        assert_eq!(divided(nine, 16, nine, 16, 16).unwrap(), 10i128.pow(16));
    }
}
