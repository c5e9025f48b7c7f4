//! The grid: the instants at which synthetic and replayed frames are released, fixed before the run.
//!
//! Release `k` is at `start + phase + k * period + jitter(k)` with a jitter from zero up to the board's, less
//! than a period. A frame's stamp is its release, never the moment somebody woke up; so a stalled run can't
//! measure well by releasing less.

use crate::job::{DropReason, Lost};
use crate::random::Random;
use crate::time::{Instant, nanos};
use std::time::Duration;

/// Releases, and which of them have been dealt with.
#[derive(Clone, Debug)]
pub struct Grid {
    first: Instant,
    period: Duration,
    jitter: Duration,
    seed: u64,
    next: u64,
}

/// One release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number on the grid, from 0: the frame's sequence number.
    pub sequence: u64,
    /// Its instant: the frame's stamp.
    pub at: Instant,
}

/// What the grid asks for at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing before this instant.
    Wait(Instant),
    /// These releases have been overtaken by a newer one. They are dealt with by having been told.
    Late(Lost),
    /// The newest release; due until [`Grid::settle`] or until the next one overtakes it.
    Due(Release),
}

impl Grid {
    /// A grid of which nothing has been dealt with. A period of zero counts as a nanosecond, a jitter longer
    /// than the period as the period: releases never swap places.
    #[must_use]
    pub fn new(first: Instant, period: Duration, jitter: Duration, seed: u64) -> Self {
        let period = period.max(Duration::from_nanos(1));
        Self { first, period, jitter: jitter.min(period), seed, next: 0 }
    }

    /// The same grid, where the releases before number `next` have been dealt with.
    #[must_use]
    pub fn from(self, next: u64) -> Self {
        Self { next, ..self }
    }

    /// The instant of release number `sequence`.
    #[must_use]
    pub fn release(&self, sequence: u64) -> Instant {
        let regular = nanos(self.period).saturating_mul(sequence);
        self.first + Duration::from_nanos(regular) + Random::at(self.seed, sequence).below(self.jitter)
    }

    /// What is to be done at `now`.
    #[must_use]
    pub fn turn(&mut self, now: Instant) -> Turn {
        match self.newest(now) {
            Some(newest) if newest > self.next => Turn::Late(self.skip_to(newest, DropReason::SourceLate)),
            Some(newest) if newest == self.next => {
                Turn::Due(Release { sequence: newest, at: self.release(newest) })
            }
            _ => Turn::Wait(self.release(self.next)),
        }
    }

    /// The release that was due has been dealt with.
    pub fn settle(&mut self) {
        self.next += 1;
    }

    /// All releases up to `now` that have not been dealt with; afterwards they are.
    pub fn missed(&mut self, now: Instant, reason: DropReason) -> Option<Lost> {
        let newest = self.newest(now).filter(|&newest| newest >= self.next)?;
        Some(self.skip_to(newest + 1, reason))
    }

    /// Number of the newest release at or before `now`.
    fn newest(&self, now: Instant) -> Option<u64> {
        if now < self.first {
            return None;
        }
        let regular = nanos(now.since(self.first)) / nanos(self.period);
        // Its jitter may still hold it back, but not the one before it, whose jitter is below a period.
        if self.release(regular) <= now { Some(regular) } else { regular.checked_sub(1) }
    }

    fn skip_to(&mut self, next: u64, reason: DropReason) -> Lost {
        let sequence = self.next;
        self.next = next;
        Lost { sequence, count: next - sequence, captured: self.release(sequence), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn grid() -> Grid {
        Grid::new(at(100), PERIOD, Duration::ZERO, 0)
    }

    #[test]
    fn a_release_is_due_from_its_instant_until_the_next() {
        let mut grid = grid();
        assert_eq!(grid.turn(at(99)), Turn::Wait(at(100)));
        for now in [100, 105, 109] {
            assert_eq!(grid.turn(at(now)), Turn::Due(Release { sequence: 0, at: at(100) }));
        }
        grid.settle();
        assert_eq!(grid.turn(at(109)), Turn::Wait(at(110)));
        assert_eq!(grid.turn(at(110)), Turn::Due(Release { sequence: 1, at: at(110) }));
    }

    #[test]
    fn who_comes_late_gets_the_newest_and_is_told_of_the_rest() {
        let mut grid = grid();
        let lost = Lost { sequence: 0, count: 7, captured: at(100), reason: DropReason::SourceLate };
        assert_eq!(grid.turn(at(175)), Turn::Late(lost));
        assert_eq!(grid.turn(at(175)), Turn::Due(Release { sequence: 7, at: at(170) }));
        // Overtaken while it was being dealt with, it is late too.
        let lost = Lost { sequence: 7, count: 1, captured: at(170), reason: DropReason::SourceLate };
        assert_eq!(grid.turn(at(180)), Turn::Late(lost));
    }

    #[test]
    fn missed_releases_are_told_once() {
        let mut grid = grid();
        assert_eq!(grid.missed(at(99), DropReason::SourceDown), None);
        let lost = Lost { sequence: 0, count: 3, captured: at(100), reason: DropReason::SourceDown };
        assert_eq!(grid.missed(at(120), DropReason::SourceDown), Some(lost));
        assert_eq!(grid.missed(at(120), DropReason::SourceDown), None);
        assert_eq!(grid.turn(at(120)), Turn::Wait(at(130)));
    }

    #[test]
    fn a_grid_goes_on_where_another_stopped() {
        let mut grid = grid().from(3);
        assert_eq!(grid.turn(at(110)), Turn::Wait(at(130)));
        let lost = Lost { sequence: 3, count: 2, captured: at(130), reason: DropReason::SourceDown };
        assert_eq!(grid.missed(at(145), DropReason::SourceDown), Some(lost));
    }

    proptest! {
        #[test]
        fn releases_keep_their_order_and_their_bounds(seed: u64, jitter_ms in 0u64..30, k in 0u64..100_000) {
            let grid = Grid::new(at(5), PERIOD, Duration::from_millis(jitter_ms), seed);
            let regular = at(5 + 10 * k);
            prop_assert!(grid.release(k) >= regular);
            prop_assert!(grid.release(k) < grid.release(k + 1));
            prop_assert!(grid.release(k).since(regular) <= Duration::from_millis(jitter_ms));
        }

        /// Every release is told exactly once, whenever it is asked for.
        #[test]
        fn every_release_has_one_fate(seed: u64, jitter_ms in 0u64..10, naps in prop::collection::vec(0u64..40_000_000, 1..60)) {
            let mut grid = Grid::new(at(0), PERIOD, Duration::from_millis(jitter_ms), seed);
            let (mut now, mut told) = (at(0), 0);
            for nap in naps {
                now = now + Duration::from_nanos(nap);
                loop {
                    match grid.turn(now) {
                        Turn::Wait(until) => { prop_assert!(until > now); break }
                        Turn::Late(lost) => { prop_assert_eq!(lost.sequence, told); told += lost.count; }
                        Turn::Due(release) => {
                            prop_assert_eq!(release.sequence, told);
                            prop_assert!(release.at <= now && grid.release(told + 1) > now);
                            told += 1;
                            grid.settle();
                        }
                    }
                }
                prop_assert!(grid.release(told) > now);
            }
        }
    }
}
