//! Finding the few bytes that matter, eight at a time.
//!
//! Fields of a CSV are short, so a `memchr` per field spends its time starting up. This keeps the matches of a whole word and
//! hands them out one by one; between two matches of a word there is no more work than a shift.

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Positions, in order, of any of `N` bytes.
pub(super) struct Scanner<'a, const N: usize> {
    data: &'a [u8],
    /// The bytes searched, each repeated over a word.
    needles: [u64; N],
    /// Where the word of `matches` begins.
    word: usize,
    /// The top bit of each byte of the word that is a match and was not handed out.
    matches: u64,
}

impl<'a, const N: usize> Scanner<'a, N> {
    pub fn new(data: &'a [u8], needles: [u8; N]) -> Scanner<'a, N> {
        let needles = needles.map(|needle| u64::from(needle) * ONES);
        let mut scanner = Scanner { data, needles, word: 0, matches: 0 };
        scanner.matches = scanner.matches_at(0);
        scanner
    }

    #[inline]
    fn matches_at(&self, at: usize) -> u64 {
        let rest = self.data.get(at..).unwrap_or_default();
        if let Some(word) = rest.first_chunk::<8>() {
            return self.matches_of(u64::from_le_bytes(*word));
        }
        let mut padded = [0; 8];
        padded[..rest.len()].copy_from_slice(rest);
        let valid = (1u64 << (8 * rest.len())) - 1;
        self.matches_of(u64::from_le_bytes(padded)) & valid
    }

    #[inline]
    fn matches_of(&self, word: u64) -> u64 {
        let mut found = 0;
        for needle in self.needles {
            // A byte of `other` is zero where the needle is; exact, without carries between bytes.
            let other = word ^ needle;
            found |= !(((other & LOW) + LOW) | other | LOW);
        }
        found
    }

    /// The next match from here on.
    #[inline]
    pub fn next(&mut self) -> Option<usize> {
        while self.matches == 0 {
            self.word += 8;
            if self.word >= self.data.len() {
                return None;
            }
            self.matches = self.matches_at(self.word);
        }
        let at = self.word + self.matches.trailing_zeros() as usize / 8;
        self.matches &= self.matches - 1;
        Some(at)
    }

    /// Go on at a position behind all that were handed out.
    #[inline]
    pub fn seek(&mut self, at: usize) {
        if at >= self.word + 8 {
            self.word = at;
            self.matches = self.matches_at(at);
        } else {
            let passed = at.saturating_sub(self.word);
            self.matches &= u64::MAX << (8 * passed);
        }
    }
}

impl<'a, const N: usize> Scanner<'a, N> {
    /// Go on anywhere.
    pub fn reset(&mut self, at: usize) {
        self.word = at;
        self.matches = self.matches_at(at);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn finds_what_a_loop_finds() {
        let mut random = SmallRng::seed_from_u64(1);
        for length in 0..200 {
            let data: Vec<u8> = (0..length).map(|_| b",\n\"ab\x80\xac\x8a"[random.random_range(0..8)]).collect();
            let expected: Vec<usize> = (0..length).filter(|at| b",\n\"".contains(&data[*at])).collect();
            let mut scanner = Scanner::new(&data, *b",\n\"");
            let found: Vec<usize> = std::iter::from_fn(|| scanner.next()).collect();
            assert_eq!(found, expected);

            let from = random.random_range(0..=length);
            let mut scanner = Scanner::new(&data, *b",\n\"");
            scanner.next();
            scanner.seek(from);
            assert_eq!(scanner.next(), expected.iter().copied().find(|at| *at >= from && Some(at) != expected.first()));
        }
    }
}
