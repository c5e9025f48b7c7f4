//! How long batches take, against what was planned.

use crate::time::Instant;
use std::time::Duration;

/// Time over which the mean is taken.
const MEMORY: Duration = Duration::from_millis(500);

/// Service time over planned time, of recent batches. All memory is allocated at the start.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// The last batches', two for each place and one more, oldest first; and ascending.
    last: Vec<f64>,
    sorted: Vec<f64>,
    mean: f64,
    at: Instant,
}

impl Pace {
    /// Of an accelerator that is at so many batches at once.
    pub(super) fn new(now: Instant, places: usize) -> Self {
        let last = vec![1.0; 2 * places.max(1) + 1];
        Self { sorted: last.clone(), last, mean: 1.0, at: now }
    }

    /// Enters a batch; its service time over the planned one.
    pub(super) fn record(&mut self, completed: Instant, planned: Duration, service: Duration) -> f64 {
        let ratio = service.as_secs_f64() / planned.as_secs_f64().max(1e-9);
        self.last.rotate_left(1);
        if let Some(newest) = self.last.last_mut() {
            *newest = ratio;
        }
        self.sorted.copy_from_slice(&self.last);
        self.sorted.sort_unstable_by(f64::total_cmp);
        let passed = completed.since(self.at).min(MEMORY);
        let weight = 1.0 - (-passed.div_duration_f64(MEMORY)).exp();
        self.at = self.at.max(completed);
        self.mean += weight * (self.current() - self.mean);
        ratio
    }

    /// Their median. Whatever stops the machine for a moment makes all batches longer that are at work then, and
    /// says nothing of the next ones: one outlier for each place is no evidence, one more is.
    pub(super) fn current(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
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
        let mut pace = Pace::new(Instant::default(), 1);
        let seen = [9, 1, 9, 9, 1, 1].map(|service| {
            pace.record(Instant::default(), ms(1), ms(service));
            pace.current()
        });
        assert_eq!(seen, [1.0, 1.0, 9.0, 9.0, 9.0, 1.0]);
    }

    #[test]
    fn what_hits_all_batches_at_once_is_one_outlier() {
        let mut pace = Pace::new(Instant::default(), 2);
        let seen = [9, 9, 1, 1, 1, 9, 9, 9].map(|service| {
            pace.record(Instant::default(), ms(1), ms(service));
            pace.current()
        });
        assert_eq!(seen, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0]);
    }

    #[test]
    fn the_mean_follows_within_seconds_and_scatter_leaves_it() {
        let (mut pace, mut now) = (Pace::new(Instant::default(), 1), Instant::default());
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
