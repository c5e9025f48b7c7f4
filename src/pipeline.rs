//! The heart: scheduling, alignment and the ledger, composed.
//!
//! Architecture invariant: no clock, no I/O, no thread, no allocation after [`Pipeline::new`]. Events go in
//! with `now`, effects come out of [`Pipeline::poll`] until it has none, and [`Pipeline::poll_at`] says when
//! to ask again if nothing happens before. The payload `P` is a frame in production and `()` in simulation.
//!
//! Records leave per stream in sequence order: a dropped frame's record is withheld while an older frame of
//! its stream is still on its way.

use crate::align::Aligner;
use crate::board::Board;
use crate::job::{Batch, DropReason, Job, Lost, Outcome};
use crate::record::{Event, SetRecord};
use crate::sched::{Schedule, Scheduler};
use crate::stats::{Histogram, Ledger};
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Dropped runs of a stream that may be withheld at once. When there are more, neighbours with the same reason
/// become one run, whose captures are then a period apart; only a batch that stays away for very long while
/// reasons alternate leaves none. Then the oldest record is lost, and counted ([`StreamTotals::records_lost`]).
const WITHHELD: usize = 64;

/// Something that the driver has to do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Moved once into a ring; a box would be an allocation a set.
pub enum Effect<P> {
    /// Hand this to the backend; what comes back goes into [`Pipeline::batch_done`].
    Submit(Box<Batch<P>>),
    /// Decode and publish, in the batch's order; then report each job to [`Pipeline::settled`] and give
    /// the box back to [`Pipeline::batch_returned`].
    Conclude(Box<Batch<P>>),
    /// Publish that these frames have no result.
    Dropped(StreamId, Lost),
    /// Publish that a stream changed.
    Changed(Event),
    /// Publish a set.
    Set(SetRecord),
}

/// What has become of a stream's frames so far.
#[derive(Clone, Debug)]
pub struct StreamTotals {
    /// Where each frame ended.
    pub ledger: Ledger,
    /// Capture to published result.
    pub latency: Histogram,
    /// The service it gets now.
    pub state: StreamState,
    /// Why it is in that state.
    pub cause: heapless::String<160>,
    /// Times its source failed.
    pub failures: u64,
    /// Records that could not be withheld in order.
    pub records_lost: u64,
}

#[derive(Debug)]
struct Track {
    totals: StreamTotals,
    /// Frames (number, capture) that wait or are at the accelerator, oldest first.
    open: VecDeque<(u64, Instant)>,
    /// Runs whose records wait for `open` frames before them, by sequence.
    withheld: VecDeque<Lost>,
    /// Whether the stream stands in [`Pipeline::ready`].
    listed: bool,
}

/// Batch sizes and service times seen.
#[derive(Clone, Debug, Default)]
pub struct BatchTotals {
    /// Batches that came back without fault.
    pub batches: u64,
    /// Jobs in them.
    pub jobs: u64,
    /// Batches that failed or were refused.
    pub faults: u64,
    /// Service times.
    pub service: Histogram,
}

/// The composed state machine.
#[derive(Debug)]
pub struct Pipeline<P> {
    scheduler: Scheduler<P>,
    aligner: Aligner,
    tracks: Vec<Track>,
    /// Streams that may have records to let go.
    ready: VecDeque<StreamId>,
    changes: VecDeque<Event>,
    done: VecDeque<Box<Batch<P>>>,
    #[allow(clippy::vec_box)] // The boxes themselves go round.
    idle: Vec<Box<Batch<P>>>,
    in_flight: usize,
    max_in_flight: usize,
    batches: BatchTotals,
    last_fault: Option<crate::job::BatchFault>,
}

impl<P> Pipeline<P> {
    /// A heart for an admitted board. `batches` are the boxes that go round, made by the backend's
    /// capabilities: at least two more than `max_in_flight`, so that one can be decoded while others run.
    #[must_use]
    pub fn new(
        now: Instant,
        board: &Board,
        schedule: Schedule,
        batches: Vec<Box<Batch<P>>>,
        max_in_flight: usize,
    ) -> Self {
        let tracks = schedule.streams().iter().map(|stream| {
            let totals = StreamTotals {
                ledger: Ledger::default(),
                latency: Histogram::default(),
                state: StreamState::Starting,
                cause: heapless::String::new(),
                failures: 0,
                records_lost: 0,
            };
            // A batch may hold all that waited, and an early frame is held back.
            let most = stream.depth * (1 + batches.len()) + 1;
            Track {
                totals,
                open: VecDeque::with_capacity(most),
                withheld: VecDeque::with_capacity(WITHHELD),
                listed: false,
            }
        });
        let mut heart = Self {
            tracks: tracks.collect(),
            aligner: Aligner::new(board),
            ready: VecDeque::with_capacity(board.streams.len()),
            changes: VecDeque::with_capacity(4 * board.streams.len()),
            done: VecDeque::with_capacity(batches.len()),
            in_flight: 0,
            max_in_flight,
            batches: BatchTotals::default(),
            last_fault: None,
            idle: batches,
            scheduler: Scheduler::new(schedule),
        };
        for index in 0..heart.tracks.len() {
            let stream = StreamId(index as u16);
            if !heart.scheduler.schedule().stream(stream).served {
                heart.change(now, stream, StreamState::Shed, "no room on the accelerator");
            }
        }
        heart
    }

    /// A camera delivered a frame. A stamp that lies in the future counts as now: it must not buy time.
    pub fn frame_arrived(
        &mut self,
        now: Instant,
        stream: StreamId,
        sequence: u64,
        captured: Instant,
        payload: P,
    ) {
        let captured = captured.min(now);
        let admitted = *self.scheduler.schedule().stream(stream);
        self.tracks[stream.index()].totals.ledger.capture(1);
        self.aligner.captured(stream, sequence, captured);
        if !admitted.served {
            self.drop_run(stream, Lost { sequence, count: 1, captured, reason: DropReason::Shed });
            return;
        }
        if self.tracks[stream.index()].totals.state != StreamState::Full {
            self.change(now, stream, StreamState::Full, "");
        }
        let deadline = captured + admitted.latency_bound;
        let job = Job { stream, sequence, model: admitted.model, captured, arrived: now, deadline };
        self.tracks[stream.index()].open.push_back((sequence, captured));
        self.scheduler.push(now, job, payload);
        self.settle_ended();
    }

    /// A camera lost frames that had been captured.
    pub fn frames_lost(&mut self, stream: StreamId, lost: Lost) {
        self.tracks[stream.index()].totals.ledger.capture(lost.count);
        let period = self.scheduler.schedule().stream(stream).period;
        // Sets look back over a few instants only; older ones are closed.
        for back in (0..lost.count.min(4)).rev() {
            let index = lost.count - 1 - back;
            let captured = lost.captured + period.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX));
            self.aligner.captured(stream, lost.sequence + index, captured);
        }
        self.drop_run(stream, lost);
    }

    /// A camera came up, failed, or reached its end. A shed stream stays shed.
    pub fn stream_changed(&mut self, now: Instant, stream: StreamId, state: StreamState, cause: &str) {
        if state == StreamState::Down {
            self.tracks[stream.index()].totals.failures += 1;
        }
        if self.tracks[stream.index()].totals.state != StreamState::Shed {
            self.change(now, stream, state, cause);
        }
    }

    /// A batch came back from the backend, or was refused by it (with `fault` set).
    pub fn batch_done(&mut self, batch: Box<Batch<P>>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.scheduler.batch_done(&batch);
        if let Some(fault) = batch.fault.clone() {
            self.batches.faults += 1;
            self.last_fault = Some(fault);
            let mut batch = batch;
            while let Some(failed) = batch.jobs.pop() {
                self.drop_job(&failed.job, DropReason::BackendFailed);
            }
            self.batch_returned(batch);
            return;
        }
        self.batches.batches += 1;
        self.batches.jobs += batch.jobs.len() as u64;
        self.batches.service.record(batch.service);
        self.done.push_back(batch);
    }

    /// A job's record was handed to the outputs at `finish`, or its outputs could not be decoded.
    pub fn settled(&mut self, job: &Job, finish: Instant, decoded: bool) {
        let outcome =
            if decoded { job.outcome_at(finish) } else { Outcome::Dropped(DropReason::DecodeFailed) };
        let totals = &mut self.tracks[job.stream.index()].totals;
        totals.ledger.settle(outcome, 1);
        if decoded {
            totals.latency.record(finish.since(job.captured));
        }
        self.aligner.settled(job.stream, job.sequence, outcome);
    }

    /// A concluded batch's box is free again.
    pub fn batch_returned(&mut self, mut batch: Box<Batch<P>>) {
        batch.clear();
        self.idle.push(batch);
    }

    /// Ends all that waits (dropped: shutdown). What is at the accelerator may still come back.
    pub fn shutdown(&mut self) {
        while let Some(waiting) = self.scheduler.pop_any() {
            self.drop_job(&waiting.job, DropReason::Shutdown);
        }
    }

    /// Lets go of the sets that are open, with who is there: no more frames come.
    pub fn close_sets(&mut self) {
        self.aligner.close();
    }

    /// Ends also what is at the accelerator and will not be waited for any longer. Nothing may be reported
    /// for those jobs afterwards.
    pub fn abandon(&mut self) {
        self.shutdown();
        self.done.clear();
        for index in 0..self.tracks.len() {
            let stream = StreamId(index as u16);
            while let Some((sequence, captured)) = self.tracks[index].open.pop_front() {
                self.drop_run(stream, Lost { sequence, count: 1, captured, reason: DropReason::Shutdown });
            }
            let ledger = &mut self.tracks[index].totals.ledger;
            let unreported = ledger.in_flight;
            ledger.settle(Outcome::Dropped(DropReason::Shutdown), unreported);
        }
    }

    /// The next thing to do, until there is nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Effect<P>> {
        if let Some(dropped) = self.next_dropped() {
            return Some(dropped);
        }
        if let Some(event) = self.changes.pop_front() {
            return Some(Effect::Changed(event));
        }
        if let Some(batch) = self.done.pop_front() {
            return Some(Effect::Conclude(self.hand_over(batch)));
        }
        if let Some(set) = self.aligner.poll(now) {
            return Some(Effect::Set(set));
        }
        if self.in_flight < self.max_in_flight {
            self.scheduler.advance(now);
            self.settle_ended();
            let mut batch = self.idle.pop()?;
            let filled = self.scheduler.fill(now, &mut batch);
            self.settle_ended();
            if filled {
                batch.submitted = now;
                self.in_flight += 1;
                return Some(Effect::Submit(batch));
            }
            self.idle.push(batch);
        }
        // Jobs found hopeless just now have records to let go.
        self.next_dropped()
    }

    /// When [`Pipeline::poll`] has something even if nothing happens before.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        // With every place taken, a batch that is held back waits for a completion.
        let held = self.scheduler.poll_at().filter(|_| self.in_flight < self.max_in_flight);
        [self.aligner.poll_at(), held].into_iter().flatten().min()
    }

    /// Whether no frame is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tracks.iter().all(|track| track.totals.ledger.in_flight == 0)
    }

    /// What has become of each stream's frames, in the board's order.
    pub fn totals(&self) -> impl ExactSizeIterator<Item = &StreamTotals> {
        self.tracks.iter().map(|track| &track.totals)
    }

    /// What the accelerator did.
    #[must_use]
    pub fn batches(&self) -> &BatchTotals {
        &self.batches
    }

    /// The most recent fault of the backend.
    #[must_use]
    pub fn last_fault(&self) -> Option<&crate::job::BatchFault> {
        self.last_fault.as_ref()
    }

    /// What waits, and what is known of the accelerator's pace.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler<P> {
        &self.scheduler
    }

    /// Puts critical streams first until told otherwise: see [`Scheduler::set_guard`].
    pub fn set_guard(&mut self, on: bool) {
        self.scheduler.set_guard(on);
    }

    /// What was admitted.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        self.scheduler.schedule()
    }

    fn change(&mut self, now: Instant, stream: StreamId, state: StreamState, cause: &str) {
        let totals = &mut self.tracks[stream.index()].totals;
        totals.state = state;
        totals.cause = crate::job::bounded(cause);
        self.aligner.stream_changed(stream, state);
        if self.changes.len() == self.changes.capacity() {
            // A stream that changes faster than its changes leave: the newest state is what counts.
            self.changes.pop_front();
        }
        self.changes.push_back(Event { at: now, stream, state, cause: crate::job::bounded(cause) });
    }

    /// Ends the jobs that the scheduler has given up.
    fn settle_ended(&mut self) {
        while let Some((ended, reason)) = self.scheduler.pop_ended() {
            self.drop_job(&ended.job, reason);
        }
    }

    fn drop_job(&mut self, job: &Job, reason: DropReason) {
        let Job { stream, sequence, captured, .. } = *job;
        self.tracks[stream.index()].open.retain(|&(open, _)| open != sequence);
        self.drop_run(stream, Lost { sequence, count: 1, captured, reason });
    }

    /// Settles a run of frames without a result and keeps its record until its turn.
    fn drop_run(&mut self, stream: StreamId, lost: Lost) {
        let track = &mut self.tracks[stream.index()];
        let outcome = Outcome::Dropped(lost.reason);
        track.totals.ledger.settle(outcome, lost.count);
        for back in 0..lost.count.min(4) {
            self.aligner.settled(stream, lost.sequence + lost.count - 1 - back, outcome);
        }
        if track.withheld.len() == WITHHELD && !join_neighbours(&mut track.withheld) {
            let oldest = track.withheld.pop_front();
            track.totals.records_lost += oldest.map_or(0, |oldest| oldest.count);
        }
        let at = track.withheld.partition_point(|earlier| earlier.sequence < lost.sequence);
        track.withheld.insert(at, lost);
        mark_ready(&mut self.ready, track, stream);
    }

    /// Takes a batch's jobs off the streams' books: it goes to a queue that keeps its order, so from here on
    /// younger records may follow. Those that belong between two of its jobs go with it.
    fn hand_over(&mut self, mut batch: Box<Batch<P>>) -> Box<Batch<P>> {
        for index in 0..batch.jobs.len() {
            let Job { stream, sequence, .. } = batch.jobs[index].job;
            let track = &mut self.tracks[stream.index()];
            while let Some(lost) = track.withheld.pop_front_if(|lost| lost.sequence < sequence) {
                if batch.between.len() < batch.between.capacity() {
                    batch.between.push((stream, lost));
                } else {
                    track.totals.records_lost += lost.count;
                }
            }
            track.open.retain(|&(open, _)| open != sequence);
            mark_ready(&mut self.ready, track, stream);
        }
        batch
    }

    /// The next record without a result, of any stream.
    fn next_dropped(&mut self) -> Option<Effect<P>> {
        while let Some(&stream) = self.ready.front() {
            if let Some(lost) = self.release(stream) {
                return Some(Effect::Dropped(stream, lost));
            }
            self.ready.pop_front();
            self.tracks[stream.index()].listed = false;
        }
        None
    }

    /// The stream's next record without a result, if no older frame is on its way.
    fn release(&mut self, stream: StreamId) -> Option<Lost> {
        let track = &mut self.tracks[stream.index()];
        let first = track.withheld.front()?;
        if track.open.front().is_some_and(|&(open, _)| open < first.sequence) {
            return None;
        }
        track.withheld.pop_front()
    }
}

/// Makes one run of the first two that follow each other for the same reason; false where none do. (No frame
/// on its way can be between them: their numbers leave no room.)
fn join_neighbours(runs: &mut VecDeque<Lost>) -> bool {
    let follows = |a: &Lost, b: &Lost| a.reason == b.reason && a.sequence + a.count == b.sequence;
    let Some(first) = (1..runs.len()).find(|&next| follows(&runs[next - 1], &runs[next])) else {
        return false;
    };
    if let Some(joined) = runs.remove(first) {
        runs[first - 1].count += joined.count;
    }
    true
}

fn mark_ready(ready: &mut VecDeque<StreamId>, track: &mut Track, stream: StreamId) {
    if !track.listed {
        track.listed = true;
        ready.push_back(stream);
    }
}

/// Longest that any stream's newest frame may take: how long a stop waits for what is on its way.
#[must_use]
pub fn drain_time(schedule: &Schedule) -> Duration {
    schedule.streams().iter().map(|s| s.latency_bound).max().unwrap_or_default().min(Duration::from_secs(2))
}
