//! Early drop: who is given up when not all that waits can be in time.
//!
//! Earliest deadline first alone collapses under overload: every batch is cut so short that its first job is
//! just in time, short batches do little, and what waits behind them is as late by the time that it is first.
//! A moment's overload so becomes a lasting one. Therefore, where what waits can't all be met one batch after the
//! other, the first few are given up so that the batch behind them is as large as it can be (early drop, as in
//! Nexus, SOSP 2019): of equally many jobs, time is best spent on those with time left.

use crate::sched::Schedule;
use crate::sched::guard::at_pace;
use crate::stream::ModelId;
use crate::time::Instant;

/// When each of the accelerator's places is free: the first few of them, where there are very many.
pub(super) type Places = heapless::Vec<Instant, 8>;

/// The largest number up to `most` that fits, where whatever is less does too; `least` where none above it does.
pub(super) fn largest(least: usize, most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut fit, mut over) = (least, most + 1);
    while over - fit > 1 {
        let middle = fit.midpoint(over);
        if fits(middle) {
            fit = middle;
        } else {
            over = middle;
        }
    }
    fit
}

/// A decision's time, and how fast batches are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early<'s> {
    pub(super) schedule: &'s Schedule,
    pub(super) model: ModelId,
    pub(super) now: Instant,
    pub(super) pace: f64,
    /// When the places beside the one that is to be given work are free.
    pub(super) beside: &'s Places,
}

impl Early<'_> {
    /// Jobs that a batch of at most `most` may have so that it ends in time for `deadline`; none where one would
    /// be late.
    fn within(&self, start: Instant, deadline: Instant, most: usize) -> usize {
        let most = most.min(usize::from(self.schedule.max_batch(self.model)));
        largest(0, most, |jobs| self.end(start, jobs) <= deadline)
    }

    fn end(&self, start: Instant, jobs: usize) -> Instant {
        let (schedule, jobs) = (self.schedule, jobs as u16);
        start + at_pace(schedule.planned(self.model, jobs), self.pace) + schedule.tail(self.model, jobs)
    }

    /// Whether jobs with these deadlines, ascending, can all be met one batch after the other, each on the place that is
    /// free first.
    pub(super) fn all_in_turn(&self, mut deadlines: &[Instant]) -> bool {
        let mut at = self.now;
        let mut beside = self.beside.clone();
        while let Some(&first) = deadlines.first() {
            let jobs = self.within(at, first, deadlines.len());
            if jobs == 0 {
                return false;
            }
            // Decoding and publishing go on beside the next batch.
            at = at + at_pace(self.schedule.planned(self.model, jobs as u16), self.pace);
            if let Some(next) = beside.iter_mut().min().filter(|next| **next < at) {
                at = std::mem::replace(next, at).max(self.now);
            }
            deadlines = &deadlines[jobs..];
        }
        true
    }

    /// As many of the first as can be in one batch, beside `with` others; one, with little hope, where none can.
    pub(super) fn first(&self, deadlines: &[Instant], with: usize) -> usize {
        let Some(&first) = deadlines.first() else { return 0 };
        let jobs = self.schedule.batch_before(self.model, self.now, first, self.pace);
        usize::from(jobs).saturating_sub(with).min(deadlines.len())
    }

    /// How many of the first to give up, if anybody has to be, and how many to start behind them.
    pub(super) fn some(&self, deadlines: &[Instant]) -> (usize, usize) {
        let first = self.first(deadlines, 0);
        let cap = usize::from(self.schedule.max_batch(self.model));
        if first >= deadlines.len().min(cap) || self.all_in_turn(deadlines) {
            return (0, first);
        }
        let (skipped, jobs) = self.drop(deadlines, 0, usize::MAX);
        if jobs > first { (skipped, jobs) } else { (0, first) }
    }

    /// How many of the first to give up, and how many to start behind them, beside `with` others in the batch
    /// and at most `most` of them.
    pub(super) fn drop(&self, deadlines: &[Instant], with: usize, most: usize) -> (usize, usize) {
        let mut best = (0, 0);
        for (skipped, &first) in deadlines.iter().enumerate() {
            let left = (deadlines.len() - skipped).min(most);
            if left <= best.1 {
                break;
            }
            let jobs = self.within(self.now, first, with + left).saturating_sub(with);
            if jobs > best.1 {
                best = (skipped, jobs);
            }
        }
        best
    }
}
