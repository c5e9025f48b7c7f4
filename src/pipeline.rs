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
use crate::cause::MissCause;
use crate::job::{Batch, BatchFault, BatchJob, DropReason, Job, Lost, Outcome};
use crate::record::{Certificate, Event, SetRecord};
use crate::sched::{Excess, Schedule, Scheduler};
use crate::stats::{Histogram, Ledger};
use crate::stream::{ModelId, StreamId, StreamState};
use crate::time::Instant;
use crate::watchdog::{Cause, Notice, Pressure, Rung, Terms, Watchdog};
use std::collections::VecDeque;
use std::fmt::{Display, Write as _};
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
    /// Publish that the guarantee was given or withdrawn.
    Certified(Certificate),
}

/// What has become of a stream's frames so far.
#[derive(Clone, Debug)]
pub struct StreamTotals {
    /// Where each frame ended.
    pub ledger: Ledger,
    /// Late ones by cause (index: [`MissCause::index`]); they add up to `ledger.late`.
    pub causes: [u64; MissCause::ALL.len()],
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
    /// Times its rung on the ladder was changed.
    pub rung_changes: u64,
    /// Frames that reached the heart while it was on each rung, in the order of [`Rung::ALL`].
    pub on_rung: [u64; Rung::ALL.len()],
}

/// What has become of the guarantee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateTotals {
    /// Whether it stands.
    pub holds: bool,
    /// How many streams it is about.
    pub streams: u16,
    /// Times it was withdrawn.
    pub revoked: u64,
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
    excess: Excess,
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
    watchdog: Watchdog,
    certificate: CertificateTotals,
    /// Per stream: the network before it is shed for load.
    cheaper: Vec<Option<ModelId>>,
    tracks: Vec<Track>,
    /// Streams that may have records to let go.
    ready: VecDeque<StreamId>,
    changes: VecDeque<Event>,
    done: VecDeque<Box<Batch<P>>>,
    #[allow(clippy::vec_box)] // The boxes themselves go round.
    idle: Vec<Box<Batch<P>>>,
    in_flight: usize,
    /// When the last batch came back that left no place free.
    free: Instant,
    max_in_flight: usize,
    batches: BatchTotals,
    last_fault: Option<BatchFault>,
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
                causes: [0; MissCause::ALL.len()],
                latency: Histogram::default(),
                state: StreamState::Starting,
                cause: heapless::String::new(),
                failures: 0,
                records_lost: 0,
                rung_changes: 0,
                on_rung: [0; Rung::ALL.len()],
            };
            // A batch may hold all that waited, and an early frame is held back.
            let most = stream.depth * (1 + batches.len()) + 1;
            Track {
                totals,
                open: VecDeque::with_capacity(most),
                withheld: VecDeque::with_capacity(WITHHELD),
                listed: false,
                excess: Excess::default(),
            }
        });
        let terms = terms(board, &schedule);
        let served = terms.iter().filter(|terms| terms.served).count() as u16;
        let guaranteed = !schedule.is_provisional();
        let streams = if guaranteed { served } else { 0 };
        let mut heart = Self {
            watchdog: Watchdog::new(now, &terms, max_in_flight, guaranteed),
            certificate: CertificateTotals { streams, ..CertificateTotals::default() },
            cheaper: board.streams.iter().map(|stream| stream.watch.cheaper_model).collect(),
            tracks: tracks.collect(),
            aligner: Aligner::new(board),
            ready: VecDeque::with_capacity(board.streams.len()),
            changes: VecDeque::with_capacity(4 * board.streams.len()),
            done: VecDeque::with_capacity(batches.len()),
            in_flight: 0,
            free: now,
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

    /// A camera delivered a frame at `now`, which may have passed a moment ago. A stamp that lies after it counts as that:
    /// it must not buy time.
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
        self.watchdog.arrived(stream, captured);
        let rung = self.watchdog.rung(stream);
        let totals = &mut self.tracks[stream.index()].totals;
        totals.on_rung[rung as usize] += 1;
        if totals.state != rung.state() {
            self.change(now, stream, rung.state(), "");
        }
        if let Some(delivery) = self.tracks[stream.index()].excess.arrived(now, admitted.period) {
            self.change(now, stream, rung.state(), &words(delivery));
        }
        let deadline = captured + admitted.latency_bound;
        let cheaper = self.cheaper[stream.index()].filter(|_| rung == Rung::Cheaper);
        let model = cheaper.unwrap_or(admitted.model);
        let job = Job { stream, sequence, model, captured, arrived: now, deadline };
        if self.watchdog.passes(stream, sequence) {
            self.tracks[stream.index()].open.push_back((sequence, captured));
            self.scheduler.push(now, job, payload);
        } else {
            self.scheduler.left_out(now, stream, captured);
            if self.may_keep(stream, rung) {
                self.tracks[stream.index()].open.push_back((sequence, captured));
                self.scheduler.keep(job, payload);
            } else {
                let reason = if rung == Rung::Shed { DropReason::Shed } else { DropReason::Skipped };
                self.drop_run(stream, Lost { sequence, count: 1, captured, reason });
            }
        }
        self.settle_ended();
    }

    /// Whether a frame that its stream's rung leaves out may wait for a moment in which there is time for it.
    /// Not where the platform asks for less, nor where a set would wait with it.
    fn may_keep(&self, stream: StreamId, rung: Rung) -> bool {
        let wanted = rung != Rung::Shed && !self.watchdog.pressed() && !self.aligner.has(stream);
        wanted && self.scheduler.can_keep(stream)
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
            self.scheduler.lost(stream, captured);
        }
        self.drop_run(stream, lost);
    }

    /// A camera came up, failed, or reached its end. A shed stream stays shed.
    pub fn stream_changed(&mut self, now: Instant, stream: StreamId, state: StreamState, cause: &str) {
        if state == StreamState::Down {
            self.tracks[stream.index()].totals.failures += 1;
        }
        self.watchdog.absent(stream);
        self.tracks[stream.index()].excess.forget();
        if self.scheduler.schedule().stream(stream).served {
            self.change(now, stream, state, cause);
        }
    }

    /// What weighs on the accelerator from outside has changed.
    pub fn pressure(&mut self, pressure: Pressure) {
        self.watchdog.pressure(pressure);
        if self.watchdog.pressed() {
            self.scheduler.end_spares();
            self.settle_ended();
        }
    }

    /// A batch came back from the backend, or was refused by it (with `fault` set).
    pub fn batch_done(&mut self, batch: Box<Batch<P>>) {
        if self.in_flight == self.max_in_flight {
            self.free = self.free.max(batch.completed);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.scheduler.batch_done(&batch);
        if let Some(fault) = batch.fault.clone() {
            self.batches.faults += 1;
            self.watchdog.faulted();
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
        let planned = self.scheduler.schedule().planned(batch.model, batch.jobs.len() as u16);
        self.watchdog.batch_done(batch.completed, planned, batch.service);
        self.done.push_back(batch);
    }

    /// The accelerator is gone, with every batch that was at it: `why`. Their jobs end here, and nothing may be
    /// reported for them afterwards; out of `boxes` come as many as are lost.
    pub fn accelerator_lost(&mut self, now: Instant, why: BatchFault, boxes: &mut Vec<Box<Batch<P>>>) {
        for index in 0..self.tracks.len() {
            let stream = StreamId(index as u16);
            // Frames that are open wait, are at the accelerator, or have come back from it.
            let mut look = 0;
            while let Some(&(sequence, captured)) = self.tracks[index].open.get(look) {
                let is_here =
                    |member: &BatchJob<P>| (member.job.stream, member.job.sequence) == (stream, sequence);
                let back = self.done.iter().any(|batch| batch.jobs.iter().any(is_here));
                if back || self.scheduler.holds(stream, sequence) {
                    look += 1;
                    continue;
                }
                self.tracks[index].open.remove(look);
                let reason = DropReason::BackendFailed;
                self.drop_run(stream, Lost { sequence, count: 1, captured, reason });
            }
        }
        self.batches.faults += self.in_flight as u64;
        for _ in 0..std::mem::take(&mut self.in_flight) {
            self.idle.extend(boxes.pop());
        }
        self.free = now;
        self.last_fault = Some(why);
        self.scheduler.accelerator_lost(now);
        self.watchdog.faulted();
    }

    /// A thread that everything goes through does not come back: nothing is guaranteed.
    pub fn stuck(&mut self, thread: &'static str) {
        self.watchdog.stuck(thread);
    }

    /// A job's record was handed to the outputs at `finish`, or its outputs could not be decoded. `cause` is
    /// the record's, of a late one.
    pub fn settled(&mut self, job: &Job, finish: Instant, decoded: bool, cause: Option<MissCause>) {
        let outcome =
            if decoded { job.outcome_at(finish) } else { Outcome::Dropped(DropReason::DecodeFailed) };
        let totals = &mut self.tracks[job.stream.index()].totals;
        totals.ledger.settle(outcome, 1);
        if let Some(cause) = cause {
            totals.causes[cause.index()] += 1;
        }
        if decoded {
            totals.latency.record(finish.since(job.captured));
            if outcome == Outcome::Met || self.had_time(job) {
                self.watchdog.settled(job.stream, job.captured, outcome == Outcome::Met);
            }
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
        // Before accelerator time is spent.
        while let Some(notice) = self.watchdog.poll(now) {
            match notice {
                Notice::Rung(stream, rung, cause) => self.change_rung(now, stream, rung, cause),
                Notice::Certificate(holds, cause) => return Some(self.certify(now, holds, cause)),
            }
        }
        self.scheduler.set_guard(self.watchdog.strained());
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
            let places = self.max_in_flight - self.in_flight;
            let filled = self.scheduler.fill(now, places, &mut batch)
                || (!self.watchdog.pressed() && self.scheduler.fill_spare(now, places, &mut batch));
            self.settle_ended();
            if filled {
                batch.submitted = now;
                batch.free = self.free;
                batch.planned = self.schedule().planned(batch.model, batch.jobs.len() as u16);
                batch.alone = self.schedule().planned(batch.model, 1);
                batch.decoding = self.schedule().decoding(batch.model) * batch.jobs.len() as u32;
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

    /// How many frames have to come before a batch starts, if nothing else happens before [`Pipeline::poll_at`]; 0 or
    /// 1: any frame may start one; `None`: no number of them does, as every place at the accelerator is taken. Whoever
    /// tells of frames later than they came says when they did, and hears as much later what became of them.
    #[must_use]
    pub fn awaited(&self) -> Option<usize> {
        (self.in_flight < self.max_in_flight).then(|| self.scheduler.awaited())
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
    pub fn last_fault(&self) -> Option<&BatchFault> {
        self.last_fault.as_ref()
    }

    /// What has become of the guarantee.
    #[must_use]
    pub fn certificate(&self) -> CertificateTotals {
        self.certificate
    }

    /// What waits, and what is known of the accelerator's pace.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler<P> {
        &self.scheduler
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

    /// A stream that delivers changes with its rung; another one when it delivers again.
    fn change_rung(&mut self, now: Instant, stream: StreamId, rung: Rung, cause: Cause) {
        let totals = &mut self.tracks[stream.index()].totals;
        totals.rung_changes += 1;
        self.scheduler.set_every(stream, rung.every());
        if totals.state.is_served() || totals.state == StreamState::Shed {
            self.change(now, stream, rung.state(), &words(cause));
        }
    }

    fn certify(&mut self, at: Instant, holds: bool, cause: Cause) -> Effect<P> {
        self.certificate.holds = holds;
        self.certificate.revoked += u64::from(!holds);
        Effect::Certified(Certificate { at, holds, streams: self.certificate.streams, cause: words(cause) })
    }

    /// Whether a job arrived early enough to be answered in time: a miss is then not its camera's.
    fn had_time(&self, job: &Job) -> bool {
        job.arrived + self.scheduler.schedule().planned(job.model, 1) < job.deadline
    }

    /// Ends the jobs that the scheduler has given up.
    fn settle_ended(&mut self) {
        while let Some((ended, reason)) = self.scheduler.pop_ended() {
            self.drop_job(&ended.job, reason);
        }
    }

    fn drop_job(&mut self, job: &Job, reason: DropReason) {
        let Job { stream, sequence, captured, .. } = *job;
        if matches!(reason, DropReason::Superseded | DropReason::Hopeless) && self.had_time(job) {
            self.watchdog.settled(stream, captured, false);
        }
        let track = &mut self.tracks[stream.index()];
        track.open.retain(|&(open, _)| open != sequence);
        if reason == DropReason::Early {
            track.excess.dropped();
        }
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

/// What the watchdog knows of the streams.
fn terms(board: &Board, schedule: &Schedule) -> Vec<Terms> {
    let terms = board.streams.iter().zip(schedule.streams()).map(|(stream, admitted)| Terms {
        criticality: stream.criticality,
        period: stream.period,
        latency_bound: stream.latency_bound,
        served: admitted.served,
        share: schedule.share(stream),
        // A frame for which critical streams cannot wait would never be started: no rung for it.
        cheaper: stream
            .watch
            .cheaper_model
            .filter(|&model| schedule.planned(model, 1) <= schedule.blocking(1.0))
            .map(|model| schedule.share(&crate::board::Stream { model, ..stream.clone() })),
        misses: stream.watch.misses,
        freshness: stream.watch.freshness,
    });
    terms.collect()
}

/// A cause in words, without allocation.
fn words(cause: impl Display) -> heapless::String<160> {
    let mut words = heapless::String::new();
    // What does not fit is cut.
    let _ = write!(words, "{cause}");
    words
}

/// Longest that any stream's newest frame may take: how long a stop waits for what is on its way.
#[must_use]
pub fn drain_time(schedule: &Schedule) -> Duration {
    schedule.streams().iter().map(|s| s.latency_bound).max().unwrap_or_default().min(Duration::from_secs(2))
}
