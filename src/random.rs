//! Randomness that is the same on every run and machine: SplitMix64.
//!
//! G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Its n-th
//! number can be had without the ones before it, so that what happens to frame n does not depend on how many
//! frames were looked at.

use crate::time::nanos;
use std::time::Duration;

/// The step of the sequence: 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of numbers that its seed determines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`, from its start.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence of `seed`, from its number `index` (counted from 0) on.
    #[must_use]
    pub const fn at(seed: u64, index: u64) -> Self {
        Self(seed.wrapping_add(index.wrapping_mul(GAMMA)))
    }

    /// The next number; all 64-bit values are equally likely.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, never reaching, 1.
    pub const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration from zero up to, never reaching, `end`; zero when `end` is zero.
    pub fn below(&mut self, end: Duration) -> Duration {
        let product = u128::from(self.bits()) * u128::from(nanos(end));
        Duration::from_nanos((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.bits(), random.bits(), random.bits()], expected);
    }

    #[test]
    fn any_number_can_be_had_without_the_ones_before() {
        let mut random = Random::new(42);
        for index in 0..100 {
            assert_eq!(Random::at(42, index).bits(), random.bits());
        }
    }

    #[test]
    fn ranges_hold() {
        let mut random = Random::new(7);
        let end = Duration::from_millis(3);
        let mut sum = 0.0;
        for _ in 0..10_000 {
            assert!(random.below(end) < end);
            sum += random.unit();
        }
        assert!((4_800.0..5_200.0).contains(&sum), "mean of 10,000 numbers is {}", sum / 10_000.0);
        assert_eq!(random.below(Duration::ZERO), Duration::ZERO);
    }
}
