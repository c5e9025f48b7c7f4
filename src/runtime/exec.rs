//! The exec thread: drives the heart. It waits on one wake-up for arrivals, completions, facts and the
//! heart's own deadlines, and never does anything long.

use crate::board::Realtime;
use crate::capture::Captured;
use crate::cause::MissCause;
use crate::infer::Backend;
use crate::job::{Batch, BatchFault, Job, Lost};
use crate::pipeline::{Effect, Pipeline, drain_time};
use crate::platform::{Waker, clock, realtime};
use crate::pool::FrameRef;
use crate::record::{Certificate, Event, Intervention, SetRecord};
use crate::ring::{Receiver, Sender};
use crate::runtime::capture::{News, RING};
use crate::runtime::heartbeat::{Signs, Work, wake_by};
use crate::runtime::supervisor::batch_budget;
use crate::runtime::{Flags, Snapshot, fill};
use crate::stats::Histogram;
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use crate::watchdog::Pressure;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Facts on their way back from the publisher: more than all batches' jobs together, so that it never waits.
pub(super) const FACTS: usize = 4096;
/// Commands of the supervisor on their way, and answers (one less than this).
pub(super) const COMMANDS: usize = 64;
/// Interventions that may wait to be published; of more, the oldest are in the log alone.
const SAID: usize = 64;
/// Frames and published batches that may come before they are heard, while every place at the accelerator is taken: a
/// wake-up for each would cost more than what it tells. All may be one camera's.
const UNHEARD: u32 = RING as u32 / 2;
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
    /// Publish that the supervisor saw or did something.
    Intervened(Intervention),
}

/// What the publisher reports.
#[derive(Debug)]
pub(super) enum Fact {
    /// A job's record was handed out, or could not be decoded.
    Settled { job: Job, finish: Instant, decoded: bool, cause: Option<MissCause> },
    /// A batch is free again.
    Returned(Box<Batch<FrameRef>>),
}

/// Batches without jobs, for those that are lost.
#[allow(clippy::vec_box)] // The boxes themselves go round.
pub(super) type Boxes = Vec<Box<Batch<FrameRef>>>;
/// An accelerator.
pub(super) type Accelerator = Box<dyn Backend<FrameRef>>;

/// What the supervisor asks the exec thread to do.
pub(super) enum Command {
    /// A camera's thread has been given up: after what it has delivered, its stream is down. Its ring comes back.
    Down(StreamId, Option<Lost>, heapless::String<160>),
    /// A camera has another thread, which delivers here.
    Listen(StreamId, Receiver<News>),
    /// Let go of an accelerator whose oldest batch is this one still (`None`: that does nothing but fail), and take
    /// this in its place, which has no batches; take `boxes` for those that are lost.
    GiveUp { oldest: Option<Instant>, stand_in: Accelerator, boxes: Boxes, why: BatchFault },
    /// Take this accelerator.
    Install(Accelerator),
    /// A thread that everything goes through does not come back.
    Stuck(&'static str),
    /// This is to be published.
    Publish(Intervention),
}

/// What comes back for a command.
pub(super) enum Reply {
    /// The ring of a camera that was given up, empty.
    Ring(StreamId, Receiver<News>),
    /// The accelerator that was let go of, with its batches, and the boxes that were not needed.
    GaveUp(Accelerator, Boxes),
    /// Its batch came back in the meantime: it stays.
    Kept(Boxes),
}

/// The exec thread's possessions.
pub(super) struct Exec {
    pub(super) heart: Pipeline<FrameRef>,
    pub(super) backend: Accelerator,
    /// Per stream; `None` while no thread has the camera.
    pub(super) arrivals: Vec<Option<Receiver<News>>>,
    pub(super) to_publisher: Sender<Order>,
    pub(super) from_publisher: Receiver<Fact>,
    pub(super) publisher: Waker,
    /// An order that found the publisher's ring full; nothing follows before it.
    pub(super) held: Option<Order>,
    /// Whether the publisher has not been woken for the last orders.
    pub(super) unsaid: bool,
    pub(super) questions: Receiver<Box<Snapshot>>,
    pub(super) answers: Sender<Box<Snapshot>>,
    pub(super) signs: Arc<Signs>,
    pub(super) commands: Receiver<Command>,
    /// What weighs on the accelerator, whenever that changes.
    pub(super) pressures: Receiver<Pressure>,
    pub(super) replies: Sender<Reply>,
    pub(super) work: Working,
}

/// What the accelerator is at, as it is told to the supervisor.
pub(super) struct Working {
    /// Batches at the accelerator in order of submission: when, and their budgets. Capacity fixed at start.
    batches: VecDeque<Work>,
    /// When the last one came back.
    back: Instant,
    /// Interventions that wait to be published. Capacity fixed at start.
    said: VecDeque<Intervention>,
}

impl Working {
    pub(super) fn new(in_flight: usize) -> Self {
        Self {
            batches: VecDeque::with_capacity(in_flight),
            back: Instant::default(),
            said: VecDeque::with_capacity(SAID),
        }
    }

    /// The oldest batch, and since when the accelerator can have been at it.
    fn oldest(&self) -> Option<Work> {
        self.batches.front().map(|work| Work { since: work.since.max(self.back), ..*work })
    }
}

impl Exec {
    /// Runs until told to drain and everything is settled, or has had its time.
    pub(super) fn run(
        mut self,
        waker: &Waker,
        flags: &Flags,
        asked: &Realtime,
    ) -> (Pipeline<FrameRef>, Accelerator) {
        waker.attach();
        let _place = realtime::enter(realtime::Role::Exec, asked);
        let mut latency = Histogram::default();
        let mut give_up = None;
        loop {
            self.signs.exec.beat(clock::now());
            let draining = flags.drain.load(Ordering::Acquire);
            self.obey();
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
                let (at, arrivals) = match (&self.held, self.heart.awaited()) {
                    (Some(_), _) => (None, 1),
                    (None, Some(frames)) => (self.poll_at(), frames.try_into().unwrap_or(u32::MAX)),
                    (None, None) => (self.poll_at(), UNHEARD),
                };
                waker.wait_for(arrivals, Some(wake_by(at)));
            }
        }
        (self.heart, self.backend)
    }

    /// Everything that has happened.
    fn take_in(&mut self, latency: &mut Histogram) {
        // Before the frames that came since: the ladder judges them by what these tell.
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
        for index in 0..self.arrivals.len() {
            self.hear(index);
        }
        while let Some(pressure) = self.pressures.dequeue() {
            self.heart.pressure(pressure);
        }
        let mut any = false;
        while let Some(batch) = self.backend.poll(clock::now()) {
            any = true;
            self.work.batches.pop_front();
            self.work.back = batch.completed;
            self.signs.set_failing(batch.fault.is_some().then_some(batch.completed));
            self.heart.batch_done(batch);
        }
        if any {
            self.signs.set_work(self.work.oldest());
        }
    }

    /// Everything that one camera's thread has said.
    fn hear(&mut self, index: usize) {
        let stream = StreamId(index as u16);
        let Some(arrivals) = &mut self.arrivals[index] else { return };
        while let Some(news) = arrivals.dequeue() {
            match news {
                News::Frame(Captured { sequence, captured, frame }, delivered) => {
                    self.heart.frame_arrived(delivered, stream, sequence, captured, frame);
                }
                News::Lost(lost) => self.heart.frames_lost(stream, lost),
                News::Changed(state, cause) => {
                    self.heart.stream_changed(clock::now(), stream, state, &cause);
                }
            }
        }
    }

    /// What the supervisor asks for, while there is room to reply.
    fn obey(&mut self) {
        while self.replies.ready()
            && let Some(command) = self.commands.dequeue()
        {
            let now = clock::now();
            let reply = match command {
                Command::Down(stream, overflow, cause) => {
                    // It delivers nothing any more: this is all.
                    self.hear(stream.index());
                    if let Some(lost) = overflow {
                        self.heart.frames_lost(stream, lost);
                    }
                    self.heart.stream_changed(now, stream, StreamState::Down, &cause);
                    self.arrivals[stream.index()].take().map(|ring| Reply::Ring(stream, ring))
                }
                Command::Listen(stream, ring) => {
                    self.arrivals[stream.index()] = Some(ring);
                    None
                }
                Command::GiveUp { oldest, stand_in, mut boxes, why } => {
                    let still = match oldest {
                        Some(since) => self.work.oldest().is_some_and(|work| work.since == since),
                        None => self.signs.failing().is_some(),
                    };
                    if still {
                        let old = std::mem::replace(&mut self.backend, stand_in);
                        self.heart.accelerator_lost(now, why, &mut boxes);
                        self.work.batches.clear();
                        self.signs.set_work(None);
                        Some(Reply::GaveUp(old, boxes))
                    } else {
                        Some(Reply::Kept(boxes))
                    }
                }
                Command::Install(backend) => {
                    // What stood in takes no batch, so none is lost with it.
                    self.backend = backend;
                    self.signs.set_failing(None);
                    None
                }
                Command::Stuck(thread) => {
                    self.heart.stuck(thread);
                    None
                }
                Command::Publish(intervention) => {
                    if self.work.said.len() == SAID {
                        self.work.said.pop_front();
                    }
                    self.work.said.push_back(intervention);
                    None
                }
            };
            if let Some(reply) = reply {
                // There was room.
                let _ = self.replies.enqueue(reply);
            }
        }
    }

    /// Everything that follows from it.
    fn act(&mut self) {
        let mut urgent = false;
        loop {
            if let Some(held) = self.held.take() {
                let without_result = matches!(held, Order::Dropped(..));
                match self.to_publisher.enqueue(held) {
                    Ok(()) if without_result => self.unsaid = true,
                    Ok(()) => (self.unsaid, urgent) = (true, true),
                    Err(back) => {
                        self.held = Some(back);
                        break;
                    }
                }
            }
            let now = clock::now();
            if let Some(intervention) = self.work.said.pop_front() {
                self.held = Some(Order::Intervened(intervention));
                continue;
            }
            self.held = match self.heart.poll(now) {
                Some(Effect::Submit(batch)) => {
                    self.submit(now, batch);
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
        // That frames have no result can wait while several frames are waited for, all of them out of a moment: the
        // cameras' threads need the processors now. (It is told with whatever comes next, within a quarter of a second.)
        let many = self.held.is_none() && self.heart.awaited().is_some_and(|frames| frames > 1);
        if self.unsaid && (urgent || !many) {
            self.unsaid = false;
            self.publisher.wake();
        }
    }

    fn submit(&mut self, now: Instant, batch: Box<Batch<FrameRef>>) {
        let budget = batch_budget(batch.planned);
        match self.backend.submit(now, batch) {
            Ok(()) => {
                self.work.batches.push_back(Work { since: now, budget });
                self.signs.set_work(self.work.oldest());
            }
            Err(refused) => {
                self.signs.set_failing(Some(now));
                self.heart.batch_done(refused);
            }
        }
    }

    fn poll_at(&self) -> Option<Instant> {
        match (self.heart.poll_at(), self.backend.poll_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
