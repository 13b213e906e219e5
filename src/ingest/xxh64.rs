//! XXH64, as its specification has it (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
//!
//! Written out here because partitions of rows on disk depend on it: it must never change with a library.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

#[inline]
fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[inline]
fn merge(hash: u64, lane: u64) -> u64 {
    (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4)
}

#[inline]
pub(super) fn xxh64(mut data: &[u8], seed: u64) -> u64 {
    let length = data.len() as u64;
    let mut hash = if data.len() >= 32 { stripes(&mut data, seed) } else { seed.wrapping_add(P5) };
    hash = hash.wrapping_add(length);
    while let Some((word, rest)) = data.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        data = rest;
    }
    if let Some((word, rest)) = data.split_first_chunk::<4>() {
        hash = (hash ^ u64::from(u32::from_le_bytes(*word)).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        data = rest;
    }
    for byte in data {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// The part for long input: four lanes over 32 bytes at a time.
fn stripes(data: &mut &[u8], seed: u64) -> u64 {
    let mut lanes = [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
    while let Some((stripe, rest)) = data.split_first_chunk::<32>() {
        for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
            let word = word.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            *lane = round(*lane, word);
        }
        *data = rest;
    }
    let [a, b, c, d] = lanes;
    let mixed = a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
    lanes.into_iter().fold(mixed, merge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors published with the specification and its implementations.
    #[test]
    fn agrees_with_the_specification() {
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xFBCE_A83C_8A37_8BF1);
    }
}
