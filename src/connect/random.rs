//! Random numbers that are a function of a seed and an event's number, so that any event can be made without those before it.

/// The numbers of one event. (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014: SplitMix64.)
pub struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub fn of(seed: u64, event: u64) -> Random {
        Random(mix(seed.wrapping_add(mix(event.wrapping_mul(GAMMA)))))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Below `n`, all equally likely but for one part in 2^64 / n.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn choose<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len() as u64) as usize]
    }

    /// Append `length` lower-case letters.
    pub fn letters(&mut self, length: usize, to: &mut Vec<u8>) {
        let end = to.len() + length;
        while to.len() < end {
            // A byte a letter: the bias of 26 into 256 is of no interest here, the speed is.
            let eight = self.next().to_le_bytes().map(|byte| b'a' + ((u16::from(byte) * 26) >> 8) as u8);
            to.extend_from_slice(&eight);
        }
        to.truncate(end);
    }

    /// A price in cents from 1.00 to 1,000,000.00 whose logarithm is uniform. Only sums, products and divisions, which are the
    /// same to the last bit on every machine; a power function is not.
    pub fn price(&mut self) -> i64 {
        let decade = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7][self.below(6) as usize];
        let fraction = self.below(1 << 20);
        let (step, within) = ((fraction >> 10) as usize, (fraction & 1023) as f64 / 1024.0);
        let (low, high) = (POWERS[step], POWERS[step + 1]);
        (decade * (low + (high - low) * within) + 0.5) as i64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `POWERS[i]` is 10^(i/1024).
static POWERS: [f64; 1025] = {
    /// 10^(1/1024)
    const ROOT: f64 = 1.002_251_148_292_912_9;
    let mut powers = [1.0; 1025];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * ROOT;
        i += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_does_not_depend_on_those_before_it() {
        let first: Vec<u64> = (0..4).map(|n| Random::of(7, n).next()).collect();
        let again: Vec<u64> = (0..4).rev().map(|n| Random::of(7, n).next()).collect();
        assert_eq!(first, again.into_iter().rev().collect::<Vec<_>>());
        assert_ne!(Random::of(7, 1).next(), Random::of(8, 1).next());
    }

    #[test]
    fn prices_spread_evenly_over_the_decades() {
        let mut random = Random::of(1, 1);
        let mut decades = [0; 6];
        for _ in 0..6000 {
            let price = random.price();
            assert!((100..=100_000_000).contains(&price), "{price}");
            decades[(price as f64).log10().floor().min(7.0) as usize - 2] += 1;
        }
        assert!(decades.iter().all(|n| (900..1100).contains(n)), "{decades:?}");
    }

    #[test]
    fn the_table_of_powers_ends_at_ten() {
        assert!((POWERS[1024] - 10.0).abs() < 1e-9, "{}", POWERS[1024]);
    }

    #[test]
    fn letters_are_letters() {
        let mut text = Vec::new();
        Random::of(1, 2).letters(1000, &mut text);
        assert!(text.len() == 1000 && text.iter().all(u8::is_ascii_lowercase));
        assert!((b'a'..=b'z').all(|letter| text.contains(&letter)));
    }
}
