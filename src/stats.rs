//! Counting: the ledger that must balance, latencies, and copied bytes.

use crate::job::{DropReason, Outcome};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where every captured frame of a stream ended.
///
/// The law, at every moment: `captured == met + late + dropped + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Releases that the source knows of.
    pub captured: u64,
    /// Results out by their deadline.
    pub met: u64,
    /// Results out after their deadline.
    pub late: u64,
    /// Frames without a result, by reason (index: [`DropReason::index`]).
    pub dropped: [u64; DropReason::ALL.len()],
    /// Frames still on their way.
    pub in_flight: u64,
}

impl Ledger {
    /// Enters `count` captured frames; they are in flight until settled.
    pub fn capture(&mut self, count: u64) {
        self.captured += count;
        self.in_flight += count;
    }

    /// Closes the entries of `count` frames.
    pub fn settle(&mut self, outcome: Outcome, count: u64) {
        debug_assert!(self.in_flight >= count, "a frame was settled twice");
        self.in_flight -= count;
        match outcome {
            Outcome::Met => self.met += count,
            Outcome::Late => self.late += count,
            Outcome::Dropped(reason) => self.dropped[reason.index()] += count,
        }
    }

    /// Frames without a result, all reasons together.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every captured frame is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.captured == self.met + self.late + self.dropped_total() + self.in_flight
    }

    /// Adds another ledger's entries.
    pub fn add(&mut self, other: &Self) {
        self.captured += other.captured;
        self.met += other.met;
        self.late += other.late;
        self.in_flight += other.in_flight;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

/// Longest latency told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(60);

/// Latencies in microseconds with three significant digits, up to a minute. Recording never allocates.
#[derive(Clone, Debug)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        let longest = LONGEST.as_micros() as u64;
        Self(hdrhistogram::Histogram::new_with_bounds(1, longest, 3).expect("constant bounds are valid"))
    }
}

impl Histogram {
    /// Counts one latency, rounded up to whole microseconds.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the share `quantile` (0 to 1) of results did not exceed; `None` without results.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.value_at_quantile(quantile)))
    }

    /// The latency that the share `quantile` of *all* frames did not exceed, where `lost` frames without
    /// a result count as infinitely late; `None` when the quantile falls among those.
    #[must_use]
    pub fn quantile_with_lost(&self, quantile: f64, lost: u64) -> Option<Duration> {
        let all = self.count() + lost;
        let rank = ((all as f64) * quantile).ceil().max(1.0);
        if rank > self.count() as f64 {
            return None;
        }
        self.quantile(rank / self.count() as f64)
    }

    /// The largest; `None` without results.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.max()))
    }

    /// Adds another histogram's counts.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Takes over another histogram's counts without allocating.
    pub fn copy_from(&mut self, other: &Self) {
        self.0.reset();
        self.add(other);
    }
}

/// Where bytes of a frame are copied (anything else reads them where the source wrote them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStage {
    /// A source's buffer was not in the stream's share and had to be copied into it.
    Capture,
    /// A decoder's own copy into our buffer: not seen, estimated as one frame each.
    DecoderEstimated,
    /// A synthetic source filling the slot from its pre-rendered frames.
    SyntheticFill,
    /// A frame kept for an annotated picture.
    Pictures,
    /// A frame that the accelerator could not read where it lay.
    Accelerator,
}

impl CopyStage {
    /// All stages.
    pub const ALL: [Self; 5] =
        [Self::Capture, Self::DecoderEstimated, Self::SyntheticFill, Self::Pictures, Self::Accelerator];

    /// The word used in summaries and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::DecoderEstimated => "decoder_estimated",
            Self::SyntheticFill => "synthetic_fill",
            Self::Pictures => "pictures",
            Self::Accelerator => "accelerator",
        }
    }
}

/// Bytes copied, by stage; shared by the threads that copy.
#[derive(Debug, Default)]
pub struct Copies([AtomicU64; CopyStage::ALL.len()]);

impl Copies {
    /// Counts `bytes`.
    pub fn count(&self, stage: CopyStage, bytes: usize) {
        self.0[stage as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self, stage: CopyStage) -> u64 {
        self.0[stage as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_balances_at_every_step() {
        let mut ledger = Ledger::default();
        ledger.capture(3);
        assert!(ledger.balances());
        ledger.settle(Outcome::Met, 1);
        ledger.settle(Outcome::Dropped(DropReason::Hopeless), 1);
        assert!(ledger.balances());
        assert_eq!((ledger.met, ledger.dropped_total(), ledger.in_flight), (1, 1, 1));
    }

    #[test]
    fn lost_frames_count_as_infinitely_late() {
        let mut histogram = Histogram::default();
        for _ in 0..99 {
            histogram.record(Duration::from_millis(5));
        }
        assert!(histogram.quantile_with_lost(0.99, 1).is_some());
        assert_eq!(histogram.quantile_with_lost(0.999, 1), None);
        assert_eq!(Histogram::default().quantile_with_lost(0.5, 0), None);
    }

    #[test]
    fn latencies_round_up_and_saturate() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_nanos(1));
        assert_eq!(histogram.max(), Some(Duration::from_micros(1)));
        histogram.record(Duration::MAX);
        assert!(histogram.max() >= Some(LONGEST));
    }
}
