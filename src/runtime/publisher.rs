//! The pub thread: decodes what the accelerator wrote, hands finished records to the outputs' rings, and
//! reports back. The instant at which a record is handed out is its `finish`.

use crate::board::Realtime;
use crate::decode::Decoder;
use crate::detection::Detections;
use crate::job::{Batch, DropReason, Job, Lost, Outcome};
use crate::platform::{Waker, clock, realtime};
use crate::pool::FrameRef;
use crate::publish::Outlet;
use crate::publish::pictures::Pictures;
use crate::record::{Message, Record, Served};
use crate::ring::{Receiver, Sender};
use crate::runtime::Flags;
use crate::runtime::exec::{Fact, Order};
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Orders on their way to the publisher (one less than this).
pub(super) const RING: usize = 256;
/// Most outputs of one model.
const MAX_OUTPUTS: usize = 4;

/// The pub thread's possessions.
pub(super) struct Publisher {
    streams: Vec<View>,
    decoders: Vec<Decoder>,
    outlets: Vec<Outlet>,
    pictures: Option<Pictures>,
    orders: Receiver<Order>,
    facts: Sender<Fact>,
    exec: Waker,
    detections: Detections,
}

/// What records say of their stream.
struct View {
    period: Duration,
    latency_bound: Duration,
    state: StreamState,
    /// Capture of the last frame that met its deadline.
    last_good: Option<Instant>,
}

impl Publisher {
    /// `streams`: period and latency bound of each, in the board's order.
    pub(super) fn new(
        streams: Vec<(Duration, Duration)>,
        decoders: Vec<Decoder>,
        outlets: Vec<Outlet>,
        pictures: Option<Pictures>,
        orders: Receiver<Order>,
        facts: Sender<Fact>,
        exec: Waker,
    ) -> Self {
        let view = |(period, latency_bound)| View {
            period,
            latency_bound,
            state: StreamState::Starting,
            last_good: None,
        };
        let streams = streams.into_iter().map(view).collect();
        Self { streams, decoders, outlets, pictures, orders, facts, exec, detections: Detections::new() }
    }

    /// Runs until the last order is carried out.
    pub(super) fn run(mut self, waker: &Waker, flags: &Flags, asked: &Realtime) {
        waker.attach();
        let _place = realtime::enter(realtime::Role::Publish, asked);
        loop {
            let last = flags.last.load(Ordering::Acquire);
            let mut any = false;
            while let Some(order) = self.orders.dequeue() {
                any = true;
                match order {
                    Order::Conclude(batch) => self.conclude(batch),
                    Order::Dropped(stream, lost) => self.dropped(stream, lost),
                    Order::Changed(event) => {
                        self.streams[event.stream.index()].state = event.state;
                        self.push(&Message::Event(event));
                    }
                    Order::Set(set) => self.push(&Message::Set(set)),
                }
                self.exec.wake();
            }
            if any {
                self.outlets.iter().for_each(|outlet| outlet.flush());
            } else if last {
                return;
            } else {
                waker.wait_until(None);
            }
        }
    }

    fn conclude(&mut self, mut batch: Box<Batch<FrameRef>>) {
        let mut between = std::mem::take(&mut batch.between);
        for (index, member) in batch.jobs.iter().enumerate() {
            let older = |(stream, lost): &(StreamId, Lost)| {
                *stream == member.job.stream && lost.sequence < member.job.sequence
            };
            while let Some(first) = between.iter().position(older) {
                let (stream, lost) = between.remove(first);
                self.dropped(stream, lost);
            }
            let decoded = self.decode(&batch, index);
            let finish = clock::now();
            let job = member.job;
            let outcome =
                if decoded { job.outcome_at(finish) } else { Outcome::Dropped(DropReason::DecodeFailed) };
            let served = decoded.then(|| Served {
                model: batch.model,
                batch: batch.jobs.len() as u16,
                arrived: job.arrived,
                submitted: batch.submitted,
                completed: batch.completed,
                detections: self.detections.clone(),
            });
            let record = self.record(job, finish, outcome, served);
            if let Some(pictures) = &mut self.pictures
                && decoded
                && pictures.wants(job.stream, finish)
            {
                pictures.offer(member.payload.bytes(), member.payload.layout(), &record, finish);
            }
            if outcome == Outcome::Met {
                self.streams[job.stream.index()].last_good = Some(job.captured);
            }
            self.push(&Message::Frame(record));
            self.report(Fact::Settled { job, finish, decoded });
        }
        batch.between = between;
        self.report(Fact::Returned(batch));
    }

    /// Decodes one job's outputs into `self.detections`.
    fn decode(&mut self, batch: &Batch<FrameRef>, index: usize) -> bool {
        let rows: heapless::Vec<&[f32], MAX_OUTPUTS> =
            batch.outputs.iter().take(MAX_OUTPUTS).map(|tensor| tensor.row(index)).collect();
        let layout = batch.jobs[index].payload.layout();
        self.detections.clear();
        let Some(decoder) = self.decoders.get_mut(batch.model.index()) else { return false };
        decoder.decode(&rows, (layout.width, layout.height), &mut self.detections).is_ok()
    }

    fn dropped(&mut self, stream: StreamId, lost: Lost) {
        let View { period, latency_bound, .. } = self.streams[stream.index()];
        for index in 0..lost.count {
            let captured = lost.captured + period.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
            let job = Job {
                stream,
                sequence: lost.sequence + index,
                model: crate::stream::ModelId(0),
                captured,
                arrived: captured,
                deadline: captured + latency_bound,
            };
            let record = self.record(job, clock::now(), Outcome::Dropped(lost.reason), None);
            self.push(&Message::Frame(record));
        }
    }

    fn record(&self, job: Job, finished: Instant, outcome: Outcome, served: Option<Served>) -> Record {
        let view = &self.streams[job.stream.index()];
        Record {
            stream: job.stream,
            sequence: job.sequence,
            captured: job.captured,
            deadline: job.deadline,
            finished,
            outcome,
            state: view.state,
            last_good_age: view.last_good.map(|captured| finished.since(captured)),
            served,
        }
    }

    fn push(&mut self, message: &Message) {
        for outlet in &mut self.outlets {
            outlet.push(message);
        }
    }

    /// The ring of facts holds more than can ever be on its way, so this never waits.
    fn report(&mut self, fact: Fact) {
        if self.facts.enqueue(fact).is_err() {
            log::error!("internal: more facts than jobs; please report this");
        }
    }
}
