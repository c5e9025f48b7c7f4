//! How long batches take, against what was planned.

use crate::time::Instant;
use std::time::Duration;

/// How long a slow batch is remembered, at least; at most twice as long.
const MEMORY: Duration = Duration::from_millis(500);

/// Service time over planned time, of recent batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    last: [f64; 3],
    /// The largest median since `since`, and in the time before.
    peak: [f64; 2],
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: [1.0; 3], peak: [0.0; 2], since: now }
    }

    /// Enters a batch.
    pub(super) fn record(&mut self, ratio: f64) {
        self.last = [self.last[1], self.last[2], ratio];
        self.peak[0] = self.peak[0].max(self.current());
    }

    /// The median of the last three: one outlier is no evidence, two of three are.
    pub(super) fn current(&self) -> f64 {
        let [a, b, c] = self.last;
        a.min(b).max(a.max(b).min(c))
    }

    /// The largest median lately, to be careful with; what was planned, where nothing ran.
    pub(super) fn careful(&mut self, now: Instant) -> f64 {
        if now.since(self.since) >= MEMORY {
            self.peak = [0.0, self.peak[0]];
            self.since = now;
        }
        let peak = self.peak[0].max(self.peak[1]);
        if peak > 0.0 { peak } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_is_no_evidence_and_two_of_three_are() {
        let mut pace = Pace::new(Instant::default());
        let seen = [9.0, 1.0, 9.0, 9.0, 1.0, 1.0].map(|ratio| {
            pace.record(ratio);
            pace.current()
        });
        assert_eq!(seen, [1.0, 1.0, 9.0, 9.0, 9.0, 1.0]);
    }

    #[test]
    fn a_slow_time_is_remembered_for_a_while() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut pace = Pace::new(at(0));
        (0..3).for_each(|_| pace.record(2.0));
        (0..3).for_each(|_| pace.record(1.0));
        assert_eq!([400, 600, 1200].map(|ms| pace.careful(at(ms))), [2.0, 2.0, 1.0]);
    }
}
