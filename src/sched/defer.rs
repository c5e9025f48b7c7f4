//! Deferred start: under guard, whether a batch that may start now is worth what it takes from the critical frames
//! that are due.
//!
//! Critical frames that come while a batch runs wait for its end, and have so much less time left: the batch that they
//! are in then has room for fewer others. Where cameras are released together that is all of them, and a few frames of
//! others that start a moment before the release cost the places of many more after it. So two courses are compared by
//! the frames in time that a second of the accelerator yields: the batch now, and the one behind it; or nothing until
//! the last of the critical frames is there that would have come meanwhile, and then one batch. Of cameras released
//! anywhere that one comes when the batch is nearly over, and nothing is deferred. Where a gate lets an instant's frames
//! go together ([`super::trigger`]) others of the instant before stand in the way of critical frames that have come: if
//! the comparison is against them, they are given up.
//!
//! In simulation (`boards/bench.toml` released together, a third critical, in % of the 64 streams that fit):
//!
//! | bound, streams | started at once | deferred |
//! |---|---|---|
//! | 1.2 P, 96 and 128 | 87, 86 | 96, 95 |
//! | 1.5 P, 128 | 86 | 95 |

use crate::sched::Schedule;
use crate::sched::early::largest;
use crate::sched::guard::at_pace;
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
    /// Those that can be in the batch.
    waiting: Vec<Frame>,
    /// Those of later instants, where a gate keeps them out of it.
    later: Vec<Frame>,
    due: Vec<Frame>,
}

impl Prospect {
    /// Nothing, with room for so many frames that wait, and that are due.
    pub(super) fn with_capacity(waiting: usize, due: usize) -> Self {
        let [first, later] = [(); 2].map(|()| Vec::with_capacity(waiting));
        Self { waiting: first, later, due: Vec::with_capacity(due) }
    }

    pub(super) fn clear(&mut self) {
        [&mut self.waiting, &mut self.later, &mut self.due].into_iter().for_each(Vec::clear);
    }

    pub(super) fn waits(&mut self, frame: Frame) {
        self.waiting.push(frame);
    }

    pub(super) fn waits_for_later(&mut self, frame: Frame) {
        self.later.push(frame);
    }

    pub(super) fn is_due(&mut self, frame: Frame) {
        self.due.push(frame);
    }

    /// When the other batch starts, if that is better than so many jobs now: all that is critical of those that wait,
    /// and of the others those that are due first, behind `given_up` of them. Where it is better without those that
    /// wait, `apart` from them, they are lost to it.
    pub(super) fn better(
        &mut self,
        at: Accelerator<'_>,
        jobs: usize,
        given_up: usize,
        apart: bool,
    ) -> Option<Instant> {
        let Self { waiting, later, due } = self;
        waiting.sort_unstable_by_key(|frame| (!frame.critical, frame.end));
        let jobs = jobs.min(waiting.len());
        let (first, left) = (&**waiting, &waiting[(jobs + given_up).min(waiting.len())..]);
        let (first, later): (&[Frame], &[Frame]) = if apart { (&[], later) } else { (first, &[]) };
        let end = at.end(at.now, jobs);
        let meanwhile = later.iter().chain(&*due).filter(|frame| frame.critical && frame.from <= end);
        let last = meanwhile.map(|frame| frame.from.max(at.now)).max()?;
        let (behind, _) = batch(at, end, || left.iter().chain(later).chain(&*due));
        let (together, in_time) = batch(at, last, || first.iter().chain(later).chain(&*due));
        let now = at.rate(jobs + behind, at.end(end, behind));
        (in_time && at.rate(together, at.end(last, together)) > now).then_some(last)
    }

    /// How many critical frames are due by then.
    pub(super) fn critical_by(&self, until: Instant) -> usize {
        self.due.iter().filter(|frame| frame.critical && frame.from <= until).count()
    }
}

/// Jobs of the batch that starts at an instant, with all that is critical by then, and as many others as are in time
/// with them; and whether what is critical is in time at all.
fn batch<'f, I: Iterator<Item = &'f Frame>>(
    at: Accelerator<'_>,
    start: Instant,
    frames: impl Fn() -> I,
) -> (usize, bool) {
    let there = || frames().filter(|frame| frame.from <= start);
    let ends = || there().filter(|frame| frame.critical).map(|frame| frame.end);
    let (critical, latest) = (ends().count(), ends().min());
    let fits = |jobs: usize| {
        let end = at.end(start, jobs);
        let others = there().filter(|frame| !frame.critical && frame.end >= end).count();
        latest.is_none_or(|latest| end <= latest) && critical + others >= jobs
    };
    let most = usize::from(at.schedule.max_batch(at.model));
    let in_time = critical <= most && fits(critical);
    (largest(critical.min(most), most, fits), in_time)
}
