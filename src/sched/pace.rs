//! How fast the accelerator is now, against what was planned.
//!
//! One overrun alone says that something disturbed one batch, and planning as if all batches were as long would
//! make batches tiny for seconds after. Two in succession say that the accelerator has become slower: the
//! smaller of the two is then its pace at once. It comes down slowly, over batches that keep to it.

use crate::time::Instant;
use std::time::Duration;

/// While batches keep to the plan, what the pace exceeds 1 by is halved in this time.
const HALVED: Duration = Duration::from_secs(1);
/// Time without batches says nothing: this much of it counts at most.
const SILENCE: Duration = Duration::from_millis(100);

/// A running estimate of service times over planned ones, from completed batches.
#[derive(Debug)]
pub(super) struct Pace {
    pace: f64,
    /// The last batch's, and when it ended.
    ratio: f64,
    at: Instant,
    last: Option<(Duration, Duration)>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { pace: 1.0, ratio: 0.0, at: Instant::default(), last: None }
    }

    /// A batch ended `at`. Returns whether it took longer than planned.
    pub(super) fn observe(&mut self, at: Instant, planned: Duration, actual: Duration) -> bool {
        let ratio = actual.as_secs_f64() / planned.as_secs_f64().max(1e-9);
        let sustained = ratio.min(self.ratio);
        let passed = at.since(self.at).min(SILENCE).as_secs_f64();
        let halved = HALVED.as_secs_f64();
        let decayed = 1.0 + (self.pace - 1.0) * (halved / (halved + passed));
        self.pace = decayed.max(sustained);
        (self.ratio, self.at, self.last) = (ratio, at, Some((planned, actual)));
        actual > planned
    }

    /// At least 1.
    pub(super) fn get(&self) -> f64 {
        self.pace
    }

    /// Planned and actual service time of the last batch.
    pub(super) fn last(&self) -> Option<(Duration, Duration)> {
        self.last
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
        let mut pace = Pace::new();
        assert!(pace.observe(Instant::default() + ms(10), ms(10), ms(100)));
        assert_eq!(pace.get(), 1.0);
        assert!(pace.observe(Instant::default() + ms(20), ms(10), ms(15)));
        assert_eq!((pace.get(), pace.last()), (1.5, Some((ms(10), ms(15)))));
    }

    #[test]
    fn the_pace_comes_down_over_seconds_of_batches_within_the_plan() {
        let mut pace = Pace::new();
        let mut at = Instant::default();
        (0..2).for_each(|_| {
            pace.observe(at, ms(10), ms(20));
        });
        for after in [1.45, 1.2, 1.1] {
            for _ in 0..100 {
                at = at + ms(10);
                assert!(!pace.observe(at, ms(10), ms(10)));
            }
            assert!(pace.get() < after && pace.get() > 1.0, "{}", pace.get());
        }
        let before = pace.get();
        pace.observe(at + ms(3_600_000), ms(10), ms(10));
        assert!(pace.get() > 1.0 + (before - 1.0) * 0.9, "an idle hour is no evidence");
    }
}
