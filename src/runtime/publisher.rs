//! The pub thread: decodes what the accelerator wrote, hands finished records to the outputs' rings, and
//! reports back. The instant at which a record is handed out is its `finish`.

use crate::board::Realtime;
use crate::cause::Way;
use crate::decode::Decoder;
use crate::detection::Detections;
use crate::job::{Batch, Lost};
use crate::platform::{Waker, clock, realtime};
use crate::pool::FrameRef;
use crate::publish::Outlet;
use crate::publish::pictures::Pictures;
use crate::record::{Message, Served};
use crate::ring::{Receiver, Sender};
use crate::runtime::Flags;
use crate::runtime::exec::{Fact, Order};
use crate::runtime::heartbeat::{Signs, wake_by};
use crate::runtime::records::{Records, take_older};
use crate::stream::StreamId;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Orders on their way to the publisher (one less than this).
pub(super) const RING: usize = 256;
/// Most outputs of one model.
const MAX_OUTPUTS: usize = 4;

/// The pub thread's possessions.
pub(super) struct Publisher {
    pub(super) records: Records,
    pub(super) decoders: Vec<Decoder>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) pictures: Option<Pictures>,
    pub(super) orders: Receiver<Order>,
    pub(super) facts: Sender<Fact>,
    pub(super) exec: Waker,
    /// Whether what is reported completes sets: then exec hears of it at once. Otherwise it may hear of results in time
    /// when it wakes anyway, where all it could do until then is wait for the accelerator.
    pub(super) sets: bool,
    pub(super) signs: Arc<Signs>,
    pub(super) detections: Detections,
}

impl Publisher {
    /// Runs until the last order is carried out.
    pub(super) fn run(mut self, waker: &Waker, flags: &Flags, asked: &Realtime) {
        waker.attach();
        let _place = realtime::enter(realtime::Role::Publish, asked);
        loop {
            self.signs.publisher.beat(clock::now());
            let last = flags.last.load(Ordering::Acquire);
            let (mut any, mut told, mut unheard) = (false, false, false);
            while let Some(order) = self.orders.dequeue() {
                any = true;
                self.signs.publisher.beat(clock::now());
                let (mut urgent, mut concluded) = (self.sets, false);
                match order {
                    Order::Conclude(batch) => {
                        urgent |= !self.conclude(batch);
                        concluded = true;
                    }
                    Order::Dropped(stream, lost) => self.dropped(stream, lost),
                    Order::Changed(event) => {
                        self.records.changed(&event);
                        self.push(&Message::Event(event));
                    }
                    Order::Set(set) => self.push(&Message::Set(set)),
                    Order::Certified(certificate) => self.push(&Message::Certificate(certificate)),
                    Order::Intervened(intervention) => self.push(&Message::Intervention(intervention)),
                }
                if urgent {
                    self.exec.wake();
                } else if concluded || !told {
                    self.exec.arrived();
                }
                unheard = told && !urgent && !concluded;
                told = true;
            }
            // Nothing is reported of what has no result but that there is room in the ring again: at first, and at last.
            if unheard {
                self.exec.arrived();
            }
            if any {
                self.outlets.iter().for_each(|outlet| outlet.flush());
            } else if last {
                return;
            } else {
                waker.wait_until(Some(wake_by(None)));
            }
        }
    }

    /// Publishes a batch's results; whether all were in time.
    fn conclude(&mut self, mut batch: Box<Batch<FrameRef>>) -> bool {
        let mut in_time = true;
        let way = Way::of(&batch, clock::now());
        let mut between = std::mem::take(&mut batch.between);
        for (index, member) in batch.jobs.iter().enumerate() {
            while let Some(lost) = take_older(&mut between, &member.job) {
                self.dropped(member.job.stream, lost);
            }
            let decoded = self.decode(&batch, index);
            let finish = clock::now();
            let job = member.job;
            let served = decoded.then(|| Served {
                model: batch.model,
                batch: batch.jobs.len() as u16,
                arrived: job.arrived,
                submitted: batch.submitted,
                completed: batch.completed,
                detections: self.detections.clone(),
            });
            let record = self.records.settled(job, finish, served, &way);
            let cause = record.cause;
            in_time &= decoded && cause.is_none();
            let message = Message::Frame(record);
            self.push(&message);
            self.report(Fact::Settled { job, finish, decoded, cause });
            // Last: the copy is in nobody's latency but the next frame's, every few seconds.
            if let (Some(pictures), Message::Frame(record)) = (&mut self.pictures, &message)
                && decoded
                && pictures.wants(job.stream, finish)
            {
                pictures.offer(member.payload.bytes(), member.payload.layout(), record, finish);
            }
        }
        batch.between = between;
        self.report(Fact::Returned(batch));
        in_time
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
        let record = Message::Frame(self.records.dropped(stream, &lost, 0, clock::now()));
        let period = self.records.period(stream);
        for outlet in &mut self.outlets {
            outlet.push_run(&record, lost.count, period);
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
