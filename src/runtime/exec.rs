//! The exec thread: drives the heart. It waits on one wake-up for arrivals, completions, facts and the
//! heart's own deadlines, and never does anything long.

use crate::board::Realtime;
use crate::cause::MissCause;
use crate::infer::Backend;
use crate::job::{Batch, Job, Lost};
use crate::pipeline::{Effect, Pipeline, drain_time};
use crate::platform::{Waker, clock, realtime};
use crate::pool::FrameRef;
use crate::record::{Certificate, Event, SetRecord};
use crate::ring::{Receiver, Sender};
use crate::runtime::capture::News;
use crate::runtime::{Flags, Snapshot, fill};
use crate::stats::Histogram;
use crate::stream::StreamId;
use crate::time::Instant;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Facts on their way back from the publisher: more than all batches' jobs together, so that it never waits.
pub(super) const FACTS: usize = 4096;
/// How long a stop waits for the accelerator beyond the longest latency bound.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What the exec thread asks the publisher to do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // It lives in a ring of fixed cells; a box would be an allocation a set.
pub(super) enum Order {
    /// Decode and publish these jobs.
    Conclude(Box<Batch<FrameRef>>),
    /// Publish that these frames have no result.
    Dropped(StreamId, Lost),
    /// Publish that a stream changed.
    Changed(Event),
    /// Publish a set.
    Set(SetRecord),
    /// Publish that the guarantee was given or withdrawn.
    Certified(Certificate),
}

/// What the publisher reports.
#[derive(Debug)]
pub(super) enum Fact {
    /// A job's record was handed out, or could not be decoded.
    Settled { job: Job, finish: Instant, decoded: bool, cause: Option<MissCause> },
    /// A batch is free again.
    Returned(Box<Batch<FrameRef>>),
}

/// The exec thread's possessions.
pub(super) struct Exec {
    pub(super) heart: Pipeline<FrameRef>,
    pub(super) backend: Box<dyn Backend<FrameRef>>,
    pub(super) arrivals: Vec<Receiver<News>>,
    pub(super) to_publisher: Sender<Order>,
    pub(super) from_publisher: Receiver<Fact>,
    pub(super) publisher: Waker,
    /// An order that found the publisher's ring full; nothing follows before it.
    pub(super) held: Option<Order>,
    pub(super) questions: Receiver<Box<Snapshot>>,
    pub(super) answers: Sender<Box<Snapshot>>,
}

impl Exec {
    /// Runs until told to drain and everything is settled, or has had its time.
    pub(super) fn run(
        mut self,
        waker: &Waker,
        flags: &Flags,
        asked: &Realtime,
    ) -> (Pipeline<FrameRef>, Box<dyn Backend<FrameRef>>) {
        waker.attach();
        let _place = realtime::enter(realtime::Role::Exec, asked);
        let mut latency = Histogram::default();
        let mut give_up = None;
        loop {
            let draining = flags.drain.load(Ordering::Acquire);
            self.take_in(&mut latency);
            self.act();
            while let Some(mut snapshot) = self.questions.dequeue() {
                fill(&mut snapshot, &self.heart, &latency);
                let _ = self.answers.enqueue(snapshot);
            }
            if draining {
                let now = clock::now();
                let limit = *give_up.get_or_insert(now + drain_time(self.heart.schedule()) + GRACE);
                if self.held.is_none() && self.heart.is_idle() {
                    self.heart.close_sets();
                    self.act();
                    if self.held.is_none() {
                        break;
                    }
                }
                if now >= limit {
                    self.heart.abandon();
                    self.act();
                    break;
                }
                // Completions that are due count here too: the last frames are to be as punctual as the others.
                let glance = now + Duration::from_millis(10);
                waker.wait_until(Some(self.poll_at().map_or(glance, |at| at.min(glance))));
            } else {
                // While the publisher's ring is full, only its word or an arrival changes anything.
                let at = if self.held.is_some() { None } else { self.poll_at() };
                let arrivals = u32::try_from(self.heart.awaited()).unwrap_or(u32::MAX);
                waker.wait_for(arrivals, at);
            }
        }
        (self.heart, self.backend)
    }

    /// Everything that has happened.
    fn take_in(&mut self, latency: &mut Histogram) {
        for index in 0..self.arrivals.len() {
            let stream = StreamId(index as u16);
            while let Some(news) = self.arrivals[index].dequeue() {
                let now = clock::now();
                match news {
                    News::Frame(f) => self.heart.frame_arrived(now, stream, f.sequence, f.captured, f.frame),
                    News::Lost(lost) => self.heart.frames_lost(stream, lost),
                    News::Changed(state, cause) => self.heart.stream_changed(now, stream, state, &cause),
                }
            }
        }
        while let Some(fact) = self.from_publisher.dequeue() {
            match fact {
                Fact::Settled { job, finish, decoded, cause } => {
                    self.heart.settled(&job, finish, decoded, cause);
                    if decoded {
                        latency.record(finish.since(job.captured));
                    }
                }
                Fact::Returned(batch) => self.heart.batch_returned(batch),
            }
        }
        while let Some(batch) = self.backend.poll(clock::now()) {
            self.heart.batch_done(batch);
        }
    }

    /// Everything that follows from it.
    fn act(&mut self) {
        let mut ordered = false;
        loop {
            if let Some(held) = self.held.take() {
                match self.to_publisher.enqueue(held) {
                    Ok(()) => ordered = true,
                    Err(back) => {
                        self.held = Some(back);
                        break;
                    }
                }
            }
            let now = clock::now();
            self.held = match self.heart.poll(now) {
                Some(Effect::Submit(batch)) => {
                    if let Err(refused) = self.backend.submit(now, batch) {
                        self.heart.batch_done(refused);
                    }
                    None
                }
                Some(Effect::Conclude(batch)) => Some(Order::Conclude(batch)),
                Some(Effect::Dropped(stream, lost)) => Some(Order::Dropped(stream, lost)),
                Some(Effect::Changed(event)) => Some(Order::Changed(event)),
                Some(Effect::Set(set)) => Some(Order::Set(set)),
                Some(Effect::Certified(certificate)) => Some(Order::Certified(certificate)),
                None => break,
            };
        }
        if ordered {
            self.publisher.wake();
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        match (self.heart.poll_at(), self.backend.poll_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
