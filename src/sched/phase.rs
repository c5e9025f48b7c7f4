//! The phase of a camera: when its next frames are due, learned from the stamps of those that came.
//!
//! A line is fitted to the stamps by a second-order filter with the gains of a least-squares fit over a
//! growing memory, which ends at [`MEMORY`] frames: from there on it follows drift. Around that line two
//! extremes over the last one to two windows of [`WINDOW`] frames are kept: the earliest stamp (which makes
//! the earliest deadline) and the latest arrival (until which waiting for a frame makes sense). Missing
//! frames are steps of several periods. A stamp a quarter of a period away from the line is not used; after
//! [`STRANGE`] of them in a row all is forgotten and learned anew. Constant work a frame, no memory but itself.

use crate::time::{Instant, nanos};
use std::time::Duration;

/// Frames that the fitted line remembers.
const MEMORY: f64 = 128.0;
/// The period is known from the board: the fit starts as if so many frames had confirmed it.
const HEAD_START: f64 = 8.0;
/// Frames in a window of extremes.
const WINDOW: u32 = 64;
/// Frames until a phase counts as known.
const KNOWN: u32 = 8;
/// Stamps off the line in a row, after which there is a new line; and frames with the same step of several
/// periods in a row, after which that step is the period.
const STRANGE: u8 = 3;
const STEPS: u8 = 8;
/// A frame that is on time to the last nanosecond is still handed over by threads.
const HANDED_OVER: i64 = 50_000;

/// What is known of one stream's releases.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// Nanoseconds between frames, as fitted.
    period: f64,
    /// Where the line has the newest frame's stamp.
    centre: Instant,
    /// Frames on the line; 0: nothing is known.
    frames: u32,
    strange: u8,
    /// The step to the newest frame in periods, and how often in a row, where it was not one.
    step: i64,
    steps: u8,
    earliest_stamp: Extreme,
    latest_arrival: Extreme,
}

/// A frame that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Its earliest stamp.
    pub stamp: Instant,
    /// Its latest arrival.
    pub arrival: Instant,
}

impl Phase {
    /// Nothing is known but the period that the board states.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period: nanos(period).max(1) as f64,
            centre: Instant::default(),
            frames: 0,
            strange: 0,
            step: 1,
            steps: 0,
            earliest_stamp: Extreme::default(),
            latest_arrival: Extreme::default(),
        }
    }

    /// A frame came.
    pub(super) fn observe(&mut self, captured: Instant, arrived: Instant) {
        let ahead = captured.lateness(self.centre).as_nanos() as f64;
        let step = (ahead / self.period).round();
        let error = ahead - step * self.period;
        if self.frames == 0 {
            self.restart(self.period, captured, arrived);
        } else if step < 1.0 || error.abs() > self.period / 4.0 {
            self.strange += 1;
            if self.strange >= STRANGE {
                self.restart(self.period, captured, arrived);
            }
        } else {
            self.follow(step as i64, error, captured, arrived);
        }
    }

    fn restart(&mut self, period: f64, captured: Instant, arrived: Instant) {
        *self = Self { period, centre: captured, frames: 1, ..Self::new(Duration::ZERO) };
        self.latest_arrival.take(arrived.lateness(captured).as_nanos());
        self.earliest_stamp.take(0);
    }

    fn follow(&mut self, step: i64, error: f64, captured: Instant, arrived: Instant) {
        self.steps = if step == self.step { self.steps.saturating_add(1) } else { 0 };
        self.step = step;
        if step > 1 && self.steps >= STEPS {
            self.restart(self.period * step as f64, captured, arrived);
            return;
        }
        let centre = shifted(self.centre, step as f64 * self.period);
        self.earliest_stamp.take(captured.lateness(centre).as_nanos().saturating_neg());
        self.latest_arrival.take(arrived.lateness(centre).as_nanos());
        let memory = (f64::from(self.frames) + HEAD_START).min(MEMORY);
        let gain = 2.0 * (2.0 * memory - 1.0) / (memory * (memory + 1.0));
        self.centre = shifted(centre, gain * error);
        self.period += 6.0 / (memory * (memory + 1.0)) * error / step as f64;
        self.frames = self.frames.saturating_add(1);
        self.strange = 0;
    }

    /// The frame `ahead` periods after the newest (1: the next one); `None` while the phase is not known.
    pub(super) fn due(&self, ahead: u32) -> Option<Due> {
        let late = self.latest_arrival.value();
        let early = self.earliest_stamp.value();
        // What was seen so far is not quite the extreme.
        let margin = late.saturating_add(early).max(0) / 16;
        let on_line = shifted(self.centre, f64::from(ahead) * self.period);
        (self.frames >= KNOWN).then(|| Due {
            stamp: shifted(on_line, early.saturating_add(margin).saturating_neg() as f64),
            arrival: shifted(on_line, (late + margin + HANDED_OVER) as f64),
        })
    }
}

fn shifted(at: Instant, by: f64) -> Instant {
    let distance = Duration::from_nanos(by.abs().round() as u64);
    if by < 0.0 { at.saturating_sub(distance) } else { at + distance }
}

/// The largest of the last one to two windows' values.
#[derive(Clone, Debug, Default)]
struct Extreme {
    now: Option<i64>,
    before: Option<i64>,
    taken: u32,
}

impl Extreme {
    fn take(&mut self, value: i64) {
        self.now = Some(self.now.map_or(value, |most| most.max(value)));
        self.taken += 1;
        if self.taken == WINDOW {
            *self = Self { now: None, before: self.now, taken: 0 };
        }
    }

    fn value(&self) -> i64 {
        self.now.max(self.before).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const PERIOD: Duration = Duration::from_millis(33);

    fn at(nanos: i64) -> Instant {
        Instant::from_nanos(nanos as u64)
    }

    /// How far the learned next stamp lies from the true one, after frames at `release(n)`.
    fn error(phase: &Phase, next: i64) -> i64 {
        let due = phase.due(1).expect("the phase is known");
        assert!(due.stamp <= due.arrival);
        at(next).lateness(phase.centre).as_nanos() - phase.period as i64
    }

    #[test]
    fn an_exact_camera_is_known_exactly() {
        let mut phase = Phase::new(PERIOD);
        for n in 0..i64::from(KNOWN) {
            assert_eq!(phase.due(1), None);
            phase.observe(at(1_000_000_000 + n * 33_000_000), at(1_000_000_000 + n * 33_000_000 + 2_000_000));
        }
        let next = 1_000_000_000 + 8 * 33_000_000;
        let due = phase.due(1).expect("known");
        let margin = 2_000_000 / 16;
        assert_eq!(due.stamp, at(next - margin));
        assert_eq!(due.arrival, at(next + 2_000_000 + margin + HANDED_OVER));
    }

    #[test]
    fn drift_jitter_and_missing_frames_are_followed() {
        let mut phase = Phase::new(PERIOD);
        let mut random = Random::new(5);
        // The true period is 0.1 % longer; 2 ms of jitter; every seventh frame is missing.
        let release = |n: i64| 1_000_000_000 + n * 33_033_000;
        for n in (0..2_000).filter(|n| n % 7 != 3) {
            let stamp = release(n) + random.below(Duration::from_millis(2)).as_nanos() as i64;
            if n > 100 {
                let due = phase.due(if n % 7 == 4 { 2 } else { 1 }).expect("known");
                assert!(due.stamp <= at(release(n) + 400_000), "frame {n}");
                assert!(due.arrival >= at(release(n) + 1_600_000), "frame {n}");
                assert!(due.arrival.since(due.stamp) < Duration::from_millis(3), "frame {n}");
            }
            phase.observe(at(stamp), at(stamp));
        }
    }

    #[test]
    fn a_jump_is_learned_anew_and_one_odd_stamp_changes_nothing() {
        let mut phase = Phase::new(PERIOD);
        let stamp = |n: i64| 1_000_000_000 + n * 33_000_000;
        for n in 0..50 {
            phase.observe(at(stamp(n)), at(stamp(n)));
        }
        phase.observe(at(stamp(50) + 15_000_000), at(stamp(50) + 15_000_000));
        phase.observe(at(stamp(51)), at(stamp(51)));
        assert_eq!(error(&phase, stamp(52)), 0);
        for n in 0..20 {
            // The clock jumped back by half a second and a bit.
            let jumped = at(stamp(52 + n) - 510_000_000);
            phase.observe(jumped, at(stamp(52 + n)));
            assert!(!(2..9).contains(&n) || phase.due(1).is_none(), "frame {n}");
        }
        assert_eq!(error(&phase, stamp(72) - 510_000_000), 0);
    }

    #[test]
    fn a_camera_at_half_rate_is_expected_at_half_rate() {
        let mut phase = Phase::new(PERIOD);
        for n in 0..40 {
            phase.observe(at(1_000_000_000 + n * 66_000_000), at(1_000_000_000 + n * 66_000_000));
        }
        assert_eq!(phase.period as u64, 66_000_000);
    }
}
