//! How long batches take, against what was planned.

use crate::time::Instant;
use std::time::Duration;

/// Time over which the mean is taken.
const MEMORY: Duration = Duration::from_millis(500);

/// Service time over planned time, of recent batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    last: [f64; 3],
    mean: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: [1.0; 3], mean: 1.0, at: now }
    }

    /// Enters a batch; its service time over the planned one.
    pub(super) fn record(&mut self, completed: Instant, planned: Duration, service: Duration) -> f64 {
        let ratio = service.as_secs_f64() / planned.as_secs_f64().max(1e-9);
        self.last = [self.last[1], self.last[2], ratio];
        let passed = completed.since(self.at).min(MEMORY);
        let weight = 1.0 - (-passed.div_duration_f64(MEMORY)).exp();
        self.at = self.at.max(completed);
        self.mean += weight * (self.current() - self.mean);
        ratio
    }

    /// The median of the last three: one outlier is no evidence, two of three are.
    pub(super) fn current(&self) -> f64 {
        let [a, b, c] = self.last;
        a.min(b).max(a.max(b).min(c))
    }

    /// These medians' mean over a while, the latest weighing most.
    pub(super) fn mean(&self) -> f64 {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_outlier_is_no_evidence_and_two_of_three_are() {
        let mut pace = Pace::new(Instant::default());
        let seen = [9, 1, 9, 9, 1, 1].map(|service| {
            pace.record(Instant::default(), ms(1), ms(service));
            pace.current()
        });
        assert_eq!(seen, [1.0, 1.0, 9.0, 9.0, 9.0, 1.0]);
    }

    #[test]
    fn the_mean_follows_within_seconds_and_scatter_leaves_it() {
        let (mut pace, mut now) = (Pace::new(Instant::default()), Instant::default());
        let mut run = |pace: &mut Pace, services: &[u64]| {
            for &service in services {
                now = now + ms(service);
                pace.record(now, ms(10), ms(service));
            }
        };
        run(&mut pace, &[20; 75]);
        assert!((1.9..=2.0).contains(&pace.mean()), "{}", pace.mean());
        run(&mut pace, &[7, 13, 9, 11].repeat(50));
        assert!((0.9..=1.1).contains(&pace.mean()), "{}", pace.mean());
    }
}
