//! Repeatable randomness: everything that varies here is a pure function of a seed and a number.
//!
//! A generator with a state would make a record depend on the ones drawn before it, and a fault on which connection was quicker.

/// Scrambles one number (the finaliser of SplitMix64): neighbours in, strangers out.
pub(super) fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One number for a list of texts; `["ab", "c"]` and `["a", "bc"]` differ.
pub(super) fn of_texts(texts: &[&str]) -> u64 {
    texts.iter().fold(0xcbf2_9ce4_8422_2325, |seed, text| {
        let bytes = text.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mix(bytes ^ text.len() as u64)
    })
}

/// A number in `0.0..1.0`.
pub(super) fn fraction(number: u64) -> f64 {
    // The 53 bits that an f64 can hold exactly.
    (mix(number) >> 11) as f64 / (1u64 << 53) as f64
}

/// A short supply of numbers grown from one seed.
#[derive(Clone, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..bound`; `bound` is at least 1.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of a list that is not empty.
    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_by_where_they_end() {
        assert_ne!(of_texts(&["ab", "c"]), of_texts(&["a", "bc"]));
        assert_eq!(of_texts(&["ab", "c"]), of_texts(&["ab", "c"]));
    }

    #[test]
    fn fractions_spread_over_the_whole_range() {
        let low = (0..10_000).filter(|&number| fraction(number) < 0.2).count();
        assert!((1_800..2_200).contains(&low), "{low}");
    }
}
