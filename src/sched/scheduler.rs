//! Earliest-deadline batches.
//!
//! The accelerator is given work whenever it is free, unless waiting for a frame that is due is the better plan
//! ([`super::gather`]): the model of the earliest deadline, and of that model
//! as many jobs, earliest first, as end before that deadline as planned. A stream's queue is as deep as its
//! bound is long; where it is full the newest frame wins. Jobs that can't be met any more are dropped before
//! they cost accelerator time.
//!
//! Where streams were admitted by their hardware triggers, the order is that of the stamps, a batch holds frames
//! of one instant, and an instant is held until its frames are there ([`super::trigger`]).
//!
//! Work a call: O(log n) a job in and out; a superseded job's heap entry is found dead when it comes to the
//! top, or cleared when the heap is full.

use crate::job::{Batch, BatchJob, Job};
use crate::sched::Schedule;
use crate::sched::gather::{Gather, Step, WAITING};
use crate::sched::trigger::Gate;
use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A waiting job's place in the order: deadline (or stamp, where instants are served one by one), then the stream's position, then its frame number. Where a
/// camera's stamps jump back, that deadline is not the job's but that of the older frame before it: frames of a
/// stream never change places.
type Key = Reverse<(Instant, StreamId, u64)>;

/// Waiting jobs, and the rule that makes batches of them. Nothing is allocated after [`Scheduler::new`].
#[derive(Debug)]
pub struct Scheduler<P> {
    schedule: Schedule,
    /// Per stream, oldest first.
    queues: Vec<VecDeque<BatchJob<P>>>,
    /// Per stream, the deadline in the newest job's key.
    newest: Vec<Instant>,
    /// Per model, every waiting job, and some that no longer wait.
    order: Vec<BinaryHeap<Key>>,
    /// When a batch that is held back on purpose is to be looked at again.
    held_until: Option<Instant>,
    gather: Gather,
    /// Where streams were admitted by their triggers.
    gate: Option<Gate>,
}

impl<P> Scheduler<P> {
    /// A scheduler without jobs.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        let queues: Vec<_> = schedule.streams().iter().map(|s| VecDeque::with_capacity(s.depth)).collect();
        let waiting: usize = schedule.streams().iter().map(|s| s.depth).sum();
        let models = schedule.models();
        // Twice as many entries as jobs can wait: a sweep then always frees at least half of them.
        let order = (0..models).map(|_| BinaryHeap::with_capacity(2 * waiting)).collect();
        let gate = schedule.gate().cloned();
        Self {
            newest: vec![Instant::default(); queues.len()],
            gather: Gather::new(&schedule),
            schedule,
            queues,
            order,
            held_until: None,
            gate,
        }
    }

    /// What was admitted.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Lets a job wait. Returns the job whose place it took, when the stream's queue was full: its oldest.
    pub fn push(&mut self, job: Job, payload: P) -> Option<BatchJob<P>> {
        self.gather.arrived(&job);
        let queue = &mut self.queues[job.stream.index()];
        let superseded =
            if queue.len() == self.schedule.stream(job.stream).depth { queue.pop_front() } else { None };
        let newest = &mut self.newest[job.stream.index()];
        let place = if self.gate.is_some() { job.captured } else { job.deadline };
        *newest = if queue.is_empty() { place } else { place.max(*newest) };
        let key = Reverse((*newest, job.stream, job.sequence));
        queue.push_back(BatchJob { job, payload });
        let order = &mut self.order[job.model.index()];
        if order.len() == order.capacity() {
            order.retain(|&Reverse(key)| waits(&self.queues, key));
        }
        order.push(key);
        superseded
    }

    /// Takes out one waiting job that cannot meet its deadline even if its batch started now.
    pub fn pop_hopeless(&mut self, now: Instant) -> Option<BatchJob<P>> {
        for model in 0..self.order.len() {
            let fastest = self.schedule.fastest(ModelId(model as u8));
            while let Some(&Reverse(key @ (_, stream, _))) = self.order[model].peek() {
                if let Some(waiting) = find(&self.queues, key) {
                    let hopeless =
                        now + fastest > waiting.deadline && !self.schedule.stream(stream).stale_results;
                    if !hopeless {
                        break;
                    }
                    self.order[model].pop();
                    return take(&mut self.queues, key);
                }
                self.order[model].pop();
            }
        }
        None
    }

    /// Takes out any waiting job, to end it.
    pub fn pop_any(&mut self) -> Option<BatchJob<P>> {
        self.queues.iter_mut().find_map(VecDeque::pop_front)
    }

    /// When [`Scheduler::fill`] may have a batch even if nothing happens before; `None` where only an event
    /// changes that.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        self.held_until
    }

    /// Fills `batch` with the jobs to run next; false when no job waits, or none is to start yet. Call
    /// [`Scheduler::pop_hopeless`] until it is empty before.
    pub fn fill(&mut self, now: Instant, batch: &mut Batch<P>) -> bool {
        self.held_until = None;
        let queues = &self.queues;
        for order in &mut self.order {
            while order.peek().is_some_and(|&Reverse(key)| !waits(queues, key)) {
                order.pop();
            }
        }
        // The model of the earliest deadline: `Reverse` makes the earliest the greatest.
        let Some((model, &Reverse((first, stream, _)))) = self
            .order
            .iter()
            .enumerate()
            .filter_map(|(model, order)| order.peek().map(|key| (model, key)))
            .max_by_key(|&(_, key)| key)
        else {
            return false;
        };
        batch.model = ModelId(model as u8);
        let deadline = match &mut self.gate {
            None => first,
            Some(gate) => {
                let oldest = |stream: StreamId| Some(queues[stream.index()].front()?.job.captured);
                match gate.ask(now, (stream, first), oldest) {
                    Ok(deadline) => deadline,
                    Err(until) => {
                        self.held_until = Some(until);
                        return false;
                    }
                }
            }
        };
        let budget = deadline.since(now);
        let late_already = deadline <= now;
        // Stale results are wanted as soon as possible, all of them.
        let jobs = self
            .schedule
            .batch_within(batch.model, if late_already { std::time::Duration::MAX } else { budget });
        let mut jobs = usize::from(jobs);
        if self.gate.is_none() && !late_already && self.gather.expects() && self.order[model].len() <= WAITING
        {
            let waiting = self.order[model]
                .iter()
                .filter_map(|&Reverse(key)| find(&self.queues, key).map(|job| (key.0, job.arrived)));
            match self.gather.step(now, waiting) {
                Step::Start(planned) => jobs = jobs.min(planned),
                Step::Hold(until) => {
                    self.held_until = Some(until);
                    return false;
                }
            }
        }
        self.gather.started();
        while batch.jobs.len() < jobs {
            let Some(&Reverse(key)) = self.order[model].peek() else { break };
            // A job that no longer waits only leaves the order.
            let of_another = |gate: &Gate| waits(&self.queues, key) && !gate.is_of(stream, key.1, key.0);
            if self.gate.as_ref().is_some_and(of_another) {
                break;
            }
            self.order[model].pop();
            if let Some(job) = take(&mut self.queues, key) {
                batch.jobs.push(job);
            }
        }
        !batch.jobs.is_empty()
    }
}

/// The job of a heap entry, if it still waits. Queues are a few jobs deep.
fn find<P>(
    queues: &[VecDeque<BatchJob<P>>],
    (_, stream, sequence): (Instant, StreamId, u64),
) -> Option<&Job> {
    queues[stream.index()].iter().map(|waiting| &waiting.job).find(|job| job.sequence == sequence)
}

/// Whether the job of a heap entry still waits.
fn waits<P>(queues: &[VecDeque<BatchJob<P>>], key: (Instant, StreamId, u64)) -> bool {
    find(queues, key).is_some()
}

fn take<P>(
    queues: &mut [VecDeque<BatchJob<P>>],
    (_, stream, sequence): (Instant, StreamId, u64),
) -> Option<BatchJob<P>> {
    let queue = &mut queues[stream.index()];
    let position = queue.iter().position(|waiting| waiting.job.sequence == sequence)?;
    queue.remove(position)
}
