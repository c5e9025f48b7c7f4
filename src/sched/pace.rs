//! How fast the accelerator is now, against what was planned.
//!
//! One overrun alone says that something disturbed one batch, and planning as if all batches were as long would
//! make batches tiny for seconds after. Two in succession say that the accelerator has become slower: the
//! smaller of the two is then its pace at once. Where several batches are at work at once, one moment's disturbance
//! lengthens all of them: there it takes one overrun more than there are places. It comes down slowly, over batches that
//! keep to it.
//!
//! A pace at which no job can be met starts no batch, and so would never be heard of again: while no batch ends,
//! it is forgotten as slowly, until one is tried.

use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// While batches keep to the plan, what the pace exceeds 1 by is halved in this time.
const HALVED: Duration = Duration::from_secs(1);
/// Time between two batches: what is beyond it is silence.
const SILENCE: Duration = Duration::from_millis(100);

/// A running estimate of service times over planned ones, from completed batches. All memory is allocated at the start.
#[derive(Debug)]
pub(super) struct Pace {
    pace: f64,
    /// The last batches', one for each place, oldest first; and when the newest ended.
    ratios: VecDeque<f64>,
    at: Instant,
}

impl Pace {
    /// Of an accelerator that is at so many batches at once.
    pub(super) fn new(places: usize) -> Self {
        Self { pace: 1.0, ratios: std::iter::repeat_n(0.0, places.max(1)).collect(), at: Instant::default() }
    }

    /// A batch ended `at`. Returns whether it took longer than planned.
    pub(super) fn observe(&mut self, at: Instant, planned: Duration, actual: Duration) -> bool {
        let ratio = actual.as_secs_f64() / planned.as_secs_f64().max(1e-9);
        let sustained = self.ratios.iter().copied().fold(ratio, f64::min);
        let passed = at.since(self.at).min(SILENCE).as_secs_f64();
        let halved = HALVED.as_secs_f64();
        let decayed = 1.0 + (self.get(at) - 1.0) * (halved / (halved + passed));
        self.pace = decayed.max(sustained);
        self.ratios.pop_front();
        self.ratios.push_back(ratio);
        self.at = at;
        actual > planned
    }

    /// At least 1; at this time.
    pub(super) fn get(&self, now: Instant) -> f64 {
        let silence = now.since(self.at).saturating_sub(SILENCE);
        if self.pace <= 1.0 || silence.is_zero() {
            return self.pace;
        }
        1.0 + (self.pace - 1.0) * (-silence.div_duration_f64(HALVED)).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_long_batch_is_an_overrun_and_two_are_a_pace() {
        let mut pace = Pace::new(1);
        assert!(pace.observe(Instant::default() + ms(10), ms(10), ms(100)));
        assert_eq!(pace.get(Instant::default() + ms(10)), 1.0);
        assert!(pace.observe(Instant::default() + ms(20), ms(10), ms(15)));
        assert_eq!(pace.get(Instant::default() + ms(20)), 1.5);
    }

    #[test]
    fn what_hits_all_batches_at_once_is_one_overrun() {
        let mut pace = Pace::new(2);
        let seen = [100, 100, 10, 15, 30, 20].map(|service| {
            pace.observe(Instant::default() + ms(10), ms(10), ms(service));
            pace.get(Instant::default() + ms(10))
        });
        assert_eq!(seen, [1.0, 1.0, 1.0, 1.0, 1.0, 1.5]);
    }

    #[test]
    fn the_pace_comes_down_over_seconds_of_batches_within_the_plan() {
        let mut pace = Pace::new(1);
        let mut at = Instant::default();
        (0..2).for_each(|_| {
            pace.observe(at, ms(10), ms(20));
        });
        for after in [1.45, 1.2, 1.1] {
            for _ in 0..100 {
                at = at + ms(10);
                assert!(!pace.observe(at, ms(10), ms(10)));
            }
            assert!((1.0..after).contains(&pace.get(at)), "{}", pace.get(at));
        }
    }

    #[test]
    fn a_pace_of_which_nothing_is_heard_is_forgotten_until_a_batch_is_tried() {
        let (mut pace, start) = (Pace::new(1), Instant::default() + ms(1000));
        (0..2).for_each(|_| {
            pace.observe(start, ms(10), ms(650));
        });
        assert_eq!(pace.get(start + ms(100)), 65.0);
        assert_eq!(pace.get(start + ms(3_100)), 9.0);
        pace.observe(start + ms(3_100), ms(10), ms(10));
        assert!(pace.get(start + ms(3_100)) < 9.0, "what was forgotten stays so");
        pace.observe(start + ms(3_200), ms(10), ms(650));
        pace.observe(start + ms(3_900), ms(10), ms(650));
        assert_eq!(pace.get(start + ms(3_900)), 65.0, "two more and it is back");
    }
}
