//! Deferred start: under guard, whether a batch that may start now is worth what it takes from the critical frames
//! that are due.
//!
//! Critical frames that come while a batch runs wait for its end, and have so much less time left: the batch that they
//! are in then has room for fewer others. Where cameras are released together that is all of them, and a few frames of
//! others that start a moment before the release cost the places of many more after it. So two courses are compared by
//! the frames in time that a second of the accelerator yields: the batch now, and the one behind it; or nothing until
//! the last of the critical frames is there that would have come meanwhile, and then one batch. Of cameras released
//! anywhere that one comes when the batch is nearly over, and nothing is deferred.
//!
//! In simulation (`boards/bench.toml` released together, a third critical, in % of the 64 streams that fit):
//!
//! | bound, streams | started at once | deferred |
//! |---|---|---|
//! | 1.2 P, 96 and 128 | 87, 86 | 96, 95 |
//! | 1.5 P, 128 | 86 | 95 |

use crate::sched::Schedule;
use crate::sched::guard::{Choice, at_pace};
use crate::stream::ModelId;
use crate::time::Instant;

/// A frame that waits or is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Whether its stream is critical: such frames are in the first batch that starts.
    pub(super) critical: bool,
    /// When it is there at the latest.
    pub(super) from: Instant,
    /// When its batch has to end.
    pub(super) end: Instant,
}

/// An accelerator at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accelerator<'s> {
    pub(super) schedule: &'s Schedule,
    pub(super) model: ModelId,
    pub(super) now: Instant,
    pub(super) pace: f64,
}

impl Accelerator<'_> {
    fn end(&self, start: Instant, jobs: usize) -> Instant {
        start + at_pace(self.schedule.planned(self.model, jobs as u16), self.pace)
    }

    /// Frames a second, until the end of a batch.
    fn rate(&self, jobs: usize, end: Instant) -> f64 {
        jobs as f64 / end.since(self.now).as_secs_f64().max(1e-9)
    }
}

/// What waits and what is due, for one decision. All memory is allocated at the start.
#[derive(Debug)]
pub(super) struct Prospect {
    waiting: Vec<Frame>,
    due: Vec<Frame>,
}

impl Prospect {
    /// Nothing, with room for so many frames that wait, and that are due.
    pub(super) fn with_capacity(waiting: usize, due: usize) -> Self {
        Self { waiting: Vec::with_capacity(waiting), due: Vec::with_capacity(due) }
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.due.clear();
    }

    pub(super) fn waits(&mut self, frame: Frame) {
        self.waiting.push(frame);
    }

    pub(super) fn is_due(&mut self, frame: Frame) {
        self.due.push(frame);
    }

    /// Until when the accelerator had better be left free instead of starting `choice` now.
    pub(super) fn defer(&mut self, at: Accelerator<'_>, choice: Choice) -> Option<Instant> {
        let jobs = usize::from(choice.jobs);
        let end = at.end(at.now, jobs);
        let meanwhile = |frame: &&Frame| frame.critical && frame.from > at.now && frame.from <= end;
        let last = self.due.iter().filter(meanwhile).map(|frame| frame.from).max()?;
        // Behind the batch: neither what is critical now, nor the others that are first.
        self.waiting.sort_unstable_by_key(|frame| (!frame.critical, frame.end));
        let critical = self.waiting.iter().filter(|frame| frame.critical).count();
        let gone = critical + usize::from(choice.given_up[1] + choice.others);
        let left = &self.waiting[gone.min(self.waiting.len())..];
        let behind = self.batch(at, end, left);
        let together = self.batch(at, last, &self.waiting);
        let now = at.rate(jobs + behind, at.end(end, behind));
        (at.rate(together, at.end(last, together)) > now).then_some(last)
    }

    /// Jobs of the batch that starts at an instant, with all that is critical by then, and as many others as are in
    /// time with them.
    fn batch(&self, at: Accelerator<'_>, start: Instant, waiting: &[Frame]) -> usize {
        let there = || waiting.iter().chain(&self.due).filter(|frame| frame.from <= start);
        let ends = || there().filter(|frame| frame.critical).map(|frame| frame.end);
        let (critical, latest) = (ends().count(), ends().min());
        let fits = |jobs: usize| {
            let end = at.end(start, jobs);
            let others = there().filter(|frame| !frame.critical && frame.end >= end).count();
            latest.is_none_or(|latest| end <= latest) && critical + others >= jobs
        };
        let most = usize::from(at.schedule.max_batch(at.model));
        let (mut least, mut over) = (critical.min(most), most + 1);
        while over - least > 1 {
            let middle = least.midpoint(over);
            if fits(middle) {
                least = middle;
            } else {
                over = middle;
            }
        }
        least
    }
}
