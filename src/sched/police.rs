//! Early frames: a camera gets the rate that was admitted, whatever it delivers.
//!
//! A frame may enter when it keeps to its stream's spacing: the generic cell rate algorithm (ITU-T I.371) with
//! the period, and as tolerance the jitter that the board states and a hundredth of the period. Clocks differ,
//! so a period counts a thousandth less. A frame that is early is held back until it would not be; a newer
//! one takes its place meanwhile, and the older is dropped as early. So a camera that is too fast, or that
//! delivers all at once what a network kept, has exactly the share of the accelerator that admission counted,
//! always with its newest frame, and is never starved. A frame that could not be met any more when it may enter
//! is not held: it is dropped at once.
//!
//! A frame that arrives later than the board states, by its stamp, counts as on time for up to a quarter of a
//! period: the frame behind it, which is on time, is not held back for its sake. Live sources, whose jitter no
//! board states, have that quarter always.

use crate::job::BatchJob;
use crate::sched::Schedule;
use crate::stream::StreamId;
use crate::time::Instant;
use std::time::Duration;

/// One stream's meter.
#[derive(Debug)]
struct Meter<P> {
    interval: Duration,
    tolerance: Duration,
    travel: Duration,
    /// Most lateness that counts as none.
    grace: Duration,
    /// A batch with one frame, where results that are late are not wanted.
    fastest: Option<Duration>,
    /// When the next frame is due.
    due: Instant,
    held: Option<BatchJob<P>>,
}

/// All streams' meters.
#[derive(Debug)]
pub(super) struct Police<P> {
    meters: Vec<Meter<P>>,
    /// When the first of those held back may enter.
    next: Option<Instant>,
}

/// What becomes of a frame that arrives.
#[derive(Debug)]
pub(super) struct Verdict<P> {
    /// It may enter now; else it is held back.
    pub(super) enters: Option<BatchJob<P>>,
    /// Early, and replaced or never held.
    pub(super) dropped: Option<BatchJob<P>>,
}

impl<P> Police<P> {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let meters = schedule.streams().iter().map(|stream| Meter {
            interval: stream.period - stream.period / 1000,
            tolerance: stream.tolerance,
            travel: stream.travel,
            grace: stream.period / 4,
            fastest: (!stream.stale_results).then(|| schedule.fastest(stream.model)),
            due: Instant::default(),
            held: None,
        });
        Self { meters: meters.collect(), next: None }
    }

    /// A frame has arrived at `now`.
    pub(super) fn judge(&mut self, now: Instant, job: BatchJob<P>) -> Verdict<P> {
        let meter = &mut self.meters[job.job.stream.index()];
        let opens = meter.opens();
        if opens <= now {
            let dropped = meter.held.take();
            meter.pass(now, job.job.captured);
            return Verdict { enters: Some(job), dropped };
        }
        if meter.fastest.is_some_and(|fastest| opens + fastest > job.job.deadline) {
            return Verdict { enters: None, dropped: Some(job) };
        }
        self.next = Some(self.next.map_or(opens, |next| next.min(opens)));
        Verdict { enters: None, dropped: meter.held.replace(job) }
    }

    /// A frame has arrived at `now` that is left out for load: it counts all the same, so that the next one's time is
    /// known.
    pub(super) fn left_out(&mut self, now: Instant, stream: StreamId, captured: Instant) {
        let meter = &mut self.meters[stream.index()];
        if meter.opens() <= now {
            meter.pass(now, captured);
        }
    }

    /// The earliest instant at which another frame of a stream may enter; the past where it may at any time.
    pub(super) fn opens(&self, stream: usize) -> Instant {
        self.meters[stream].opens()
    }

    /// When the next one that is held back may enter.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.next
    }

    /// One that was held back and may enter now.
    pub(super) fn release(&mut self, now: Instant) -> Option<BatchJob<P>> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        let open = |meter: &&mut Meter<P>| meter.held.is_some() && meter.opens() <= now;
        if let Some(meter) = self.meters.iter_mut().find(open) {
            let job = meter.held.take()?;
            meter.pass(now, job.job.captured);
            return Some(job);
        }
        let held = self.meters.iter().filter(|meter| meter.held.is_some());
        self.next = held.map(Meter::opens).min();
        None
    }

    /// Whether a frame of this stream is held back.
    pub(super) fn is_holding(&self, stream: StreamId) -> bool {
        self.meters[stream.index()].held.is_some()
    }

    /// Whether this frame is held back.
    pub(super) fn holds(&self, stream: StreamId, sequence: u64) -> bool {
        self.meters[stream.index()].held.as_ref().is_some_and(|held| held.job.sequence == sequence)
    }

    /// Any that is held back, to end it.
    pub(super) fn pop_any(&mut self) -> Option<BatchJob<P>> {
        self.meters.iter_mut().find_map(|meter| meter.held.take())
    }
}

impl<P> Meter<P> {
    fn opens(&self) -> Instant {
        self.due.saturating_sub(self.tolerance)
    }

    fn pass(&mut self, now: Instant, captured: Instant) {
        let late = now.since(captured + self.travel).min(self.grace);
        self.due = self.due.max(now.saturating_sub(late)) + self.interval;
    }
}
