//! Earliest-deadline batches.
//!
//! The accelerator is given work whenever it is free: the model of the earliest deadline, and of that model as many
//! jobs, earliest first, as end before that deadline as planned. A stream's queue is as deep as its bound is long;
//! where it is full the newest frame wins. Jobs that can't be met any more are dropped before they cost accelerator
//! time; free places share what waits; and where not all can be met a few are given up for larger batches
//! ([`super::early`]). Early frames are held back ([`super::police`]), and while a premise of the guarantee is in
//! doubt critical jobs come first ([`super::guard`]). A batch may be held back for frames that are due: where
//! streams were admitted by their hardware triggers, until an instant's frames are there, in the order of the
//! stamps and, but for critical frames under guard, never two instants in one batch ([`super::trigger`]); else as
//! learned phases tell ([`super::gather`]). Under guard only as long as no critical job that waits is in danger,
//! and where not all can be met also a batch that would cost the one behind it too many places ([`super::defer`]).
//!
//! A frame that was longer on its way than the board states is put in order as if it had not been: its own
//! deadline may pass, but it does not overtake or cut short what admission did not expect it to.
//!
//! What the ladder leaves out is served where there is time for it ([`super::spare`]).
//!
//! Work a call: O(log n) a job in and out; a superseded job's heap entry is found dead when it comes to the
//! top, or cleared when the heap is full. Under guard, where not all can be met, and where something was left out,
//! all n streams are looked at for a batch: O(n log n).

use crate::job::{Batch, BatchJob, DropReason, Job};
use crate::sched::Schedule;
use crate::sched::defer::{Accelerator, Frame, Prospect};
use crate::sched::early::{Early, Places, largest};
use crate::sched::gather::{Gather, Step, WAITING};
use crate::sched::guard::{ALL, Choice, Coming, HOLD, Look, Next, RETRY, Waiting, at_pace};
use crate::sched::pace::Pace;
use crate::sched::police::Police;
use crate::sched::spare::Spares;
use crate::sched::trigger::Gate;
use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// How much more accelerator time batches side by side may take than one batch with all of it.
const DEARER: f64 = 1.25;

/// What was left out is taken along where all would be in time even if batches took so much longer: who was let in is
/// not to pay for it with what makes up for disturbances.
const DISTURBED: f64 = 1.1;

/// A waiting job's place in the order: deadline (stamp, where there is a gate), then the stream's position, then
/// its frame number. That deadline is not the job's where its frame was late, or where the camera's stamps jump
/// back: frames of a stream never change places.
type Key = Reverse<(Instant, StreamId, u64)>;

/// What to do where the guard lets a batch start.
#[derive(Clone, Copy, Debug)]
enum Course {
    Start,
    /// Leave the accelerator free until then, or until about so many frames have come.
    Wait(Instant, usize),
    /// Give up the others' frames of the instant of this one, and choose again.
    GiveUp((StreamId, Instant)),
}

/// Waiting jobs, and the rule that makes batches of them. Nothing is allocated after [`Scheduler::new`].
#[derive(Debug)]
pub struct Scheduler<P> {
    schedule: Schedule,
    /// Per stream, oldest first.
    queues: Vec<VecDeque<BatchJob<P>>>,
    /// Per stream, the deadline in the newest job's key.
    newest: Vec<Instant>,
    /// Per model, first of critical streams, then of others: every waiting job, and some that no longer wait.
    order: Vec<[BinaryHeap<Key>; 2]>,
    /// When a batch that is held back on purpose is to be looked at again.
    held_until: Option<Instant>,
    /// For how many frames it is held back, where fewer change nothing.
    awaited: usize,
    police: Police<P>,
    gather: Gather,
    /// What waits and is due, for one decision.
    prospect: Prospect,
    /// Where streams were admitted by their triggers.
    gate: Option<Gate>,
    /// Frames that are left out for load.
    spares: Spares<P>,
    /// Jobs that are over, and why.
    ended: VecDeque<(BatchJob<P>, DropReason)>,
    /// The critical streams, by position.
    critical: Vec<usize>,
    /// Whether there are others beside them: only then does the guard change anything.
    mixed: bool,
    pace: Pace,
    /// When the batches at the accelerator were started, and their planned ends, oldest first.
    running: VecDeque<(Instant, Instant)>,
    /// When the places beside the one that is to be given work are free, for one decision.
    beside: Places,
    guard_asked: bool,
    guard_until: Instant,
    /// What waits of each model, for one decision.
    waiting: Vec<Waiting>,
    /// The critical streams' next frames, for one decision.
    next: Vec<Next>,
}

impl<P> Scheduler<P> {
    /// A scheduler without jobs.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        let streams = schedule.streams();
        let queues: Vec<_> = streams.iter().map(|s| VecDeque::with_capacity(s.depth)).collect();
        let waiting: usize = streams.iter().map(|s| s.depth).sum();
        let models = schedule.models();
        let room = waiting + streams.len();
        // Twice as many entries as jobs can wait: a sweep then always frees at least half of them.
        let order = (0..models).map(|_| [(); 2].map(|()| BinaryHeap::with_capacity(2 * waiting))).collect();
        let critical: Vec<usize> =
            (0..streams.len()).filter(|&index| streams[index].reserve.is_some()).collect();
        Self {
            next: Vec::with_capacity(critical.len()),
            newest: vec![Instant::default(); queues.len()],
            police: Police::new(&schedule),
            gather: Gather::new(&schedule),
            prospect: Prospect::with_capacity(waiting, streams.len()),
            gate: schedule.gate().cloned(),
            mixed: !critical.is_empty() && critical.len() < streams.len(),
            spares: Spares::new(queues.len()),
            ended: VecDeque::with_capacity(2 * waiting + 3 * streams.len()),
            critical,
            pace: Pace::new(schedule.places()),
            running: VecDeque::with_capacity(schedule.places().max(1)),
            beside: Places::new(),
            schedule,
            queues,
            order,
            held_until: None,
            awaited: 0,
            guard_asked: false,
            guard_until: Instant::default(),
            waiting: (0..models).map(|_| Waiting::with_capacity(room)).collect(),
        }
    }

    /// What was admitted.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Lets a job wait. What it displaces comes out of [`Scheduler::pop_ended`].
    pub fn push(&mut self, now: Instant, job: Job, payload: P) {
        self.end_spare(job.stream);
        let verdict = self.police.judge(now, BatchJob { job, payload });
        self.ended.extend(verdict.dropped.map(|job| (job, DropReason::Early)));
        match verdict.enters {
            Some(job) => self.enter(now, job),
            None => self.guard_until = self.guard_until.max(now + HOLD),
        }
    }

    fn enter(&mut self, now: Instant, entering: BatchJob<P>) {
        let job = entering.job;
        self.gather.arrived(&job);
        let stream = self.schedule.stream(job.stream);
        let queue = &mut self.queues[job.stream.index()];
        if queue.len() == stream.depth
            && let Some(oldest) = queue.pop_front()
        {
            self.ended.push_back((oldest, DropReason::Superseded));
        }
        let newest = &mut self.newest[job.stream.index()];
        let on_time = (now + stream.latency_bound).saturating_sub(stream.travel);
        let place = if self.gate.is_some() { job.captured } else { job.deadline.max(on_time) };
        *newest = if queue.is_empty() { place } else { place.max(*newest) };
        let key = Reverse((*newest, job.stream, job.sequence));
        queue.push_back(entering);
        let order = &mut self.order[job.model.index()][usize::from(stream.reserve.is_none())];
        if order.len() == order.capacity() {
            order.retain(|&Reverse(key)| waits(&self.queues, key));
        }
        order.push(key);
    }

    /// A frame will not come here: it was lost.
    pub fn lost(&mut self, stream: StreamId, captured: Instant) {
        if let Some(gate) = &mut self.gate {
            gate.absent(stream, captured);
        }
    }

    /// A frame came that is left out for load: its stream's older one that was kept ends.
    pub fn left_out(&mut self, now: Instant, stream: StreamId, captured: Instant) {
        self.lost(stream, captured);
        self.police.left_out(now, stream, captured);
        self.gather.left_out(now, stream, captured);
        self.end_spare(stream);
    }

    /// Whether what a stream leaves out can be kept: not with several models, nor where the stream's queue is full, of
    /// which it takes a place, nor behind a frame that is held back for being early.
    #[must_use]
    pub fn can_keep(&self, stream: StreamId) -> bool {
        let has_room = self.queues[stream.index()].len() < self.schedule.stream(stream).depth;
        has_room && !self.police.is_holding(stream) && self.order.len() == 1
    }

    /// Keeps the frame that was left out just now, until its stream's next one, for a batch that has room or a moment in
    /// which there is time ([`super::spare`]). When that is over it comes out of [`Scheduler::pop_ended`].
    pub fn keep(&mut self, job: Job, payload: P) {
        self.spares.keep(BatchJob { job, payload });
    }

    /// There is no time any more for anything that was left out.
    pub fn end_spares(&mut self) {
        self.ended
            .extend(std::iter::from_fn(|| self.spares.pop_any()).map(|spare| (spare, DropReason::Skipped)));
    }

    /// There is no time any more for what a stream left out.
    fn end_spare(&mut self, stream: StreamId) {
        self.ended.extend(self.spares.take(stream).map(|spare| (spare, DropReason::Skipped)));
    }

    /// Fills `batch` with jobs that were left out, where [`Scheduler::fill`] found nothing: as many as let whatever may
    /// come meanwhile, as policing lets it in, be in time after them. None with a gate, whose instants go as wholes.
    pub fn fill_spare(&mut self, now: Instant, places: usize, batch: &mut Batch<P>) -> bool {
        if self.gate.is_some() || self.order.iter().flatten().any(|class| !class.is_empty()) {
            return false;
        }
        let Some(&BatchJob { job, .. }) = self.spares.first() else { return false };
        self.look_beside(now, places);
        let most = self.schedule.batch_before(job.model, now, job.deadline, self.pace.get(now));
        let mut jobs = most.min(self.spares.count());
        while jobs > 0 && !self.is_harmless(now, job.model, jobs) {
            jobs /= 2;
        }
        batch.model = job.model;
        batch.jobs.extend((0..jobs).map_while(|_| self.spares.pop_first()));
        if jobs > 0 {
            self.runs(now, batch);
        }
        jobs > 0
    }

    /// Lets frames that were left out ride along in a batch of at most so many, where nothing waits behind it: as many as
    /// leave time to spare for everybody in it and for those who are due before its end.
    fn take_along(&mut self, now: Instant, most: u16, batch: &mut Batch<P>) {
        let (model, jobs) = (batch.model, batch.jobs.len() as u16);
        if jobs == 0 || jobs >= most || self.spares.first_deadline().is_none() || !self.gather.expects() {
            return;
        }
        let room = self.spares.count().min(most - jobs);
        if self.order.iter().flatten().flatten().any(|&Reverse(key)| waits(&self.queues, key)) {
            return;
        }
        let pace = self.pace.get(now);
        let careful = pace * DISTURBED;
        let Self { schedule, gather, gate, spares, waiting, beside, .. } = self;
        let end = |jobs, pace| now + at_pace(schedule.planned(model, jobs), pace);
        // Instants are served one by one: beyond the next one's coming, all behind it would pay for it.
        let due = gather.next(now);
        let next = match gate {
            Some(gate) => gate.next_there(due.clone()),
            None => Some(now + Duration::MAX),
        };
        let Some(next) = next else { return };
        let last = end(jobs + room, careful);
        let coming = due.filter(|(_, due)| due.arrival <= last).map(|(stream, due)| {
            let bound = schedule.stream(stream).latency_bound;
            due.stamp + schedule.longest_response(stream, pace).map_or(bound, |response| response.min(bound))
        });
        let waiting = &mut waiting[model.index()];
        waiting.list(std::iter::empty(), coming);
        let first =
            batch.jobs.iter().map(|member| member.job.deadline).filter(|&deadline| deadline > now).min();
        let out = |jobs| end(jobs, careful) + schedule.tail(model, jobs);
        let fits = |more: u16| {
            let jobs = jobs + more;
            let then = Early { schedule, model, now: end(jobs, careful), pace: careful, beside };
            spares.count_from(out(jobs)) >= more
                && end(jobs, pace) <= next
                && first.is_none_or(|first| out(jobs) <= first)
                && then.all_in_turn(&waiting.deadlines[ALL])
        };
        let fit = largest(0, room.into(), |more| fits(more as u16)) as u16;
        batch.jobs.extend((0..fit).map_while(|_| spares.pop_from(out(jobs + fit))));
    }

    /// Notes when the other places are free, where so many are now.
    fn look_beside(&mut self, now: Instant, places: usize) {
        self.beside.clear();
        let busy = self.schedule.places().saturating_sub(places);
        let ends = self.running.iter().rev().take(busy).map(|&(_, end)| end);
        // More places than there is room for are as if there were none.
        for free in std::iter::repeat_n(now, places.saturating_sub(1)).chain(ends) {
            let _ = self.beside.push(free);
        }
    }

    /// Notes a batch that starts.
    fn runs(&mut self, now: Instant, batch: &Batch<P>) {
        if self.running.len() == self.schedule.places().max(1) {
            self.running.pop_front();
        }
        let service = self.schedule.planned(batch.model, batch.jobs.len() as u16);
        self.running.push_back((now, now + at_pace(service, self.pace.get(now))));
    }

    /// Whether nobody can be late for a batch of so many that starts now, where nothing waits.
    fn is_harmless(&mut self, now: Instant, model: ModelId, jobs: u16) -> bool {
        let pace = self.pace.get(now);
        let Self { schedule, police, waiting, beside, .. } = self;
        let end = now + at_pace(schedule.planned(model, jobs), pace);
        let streams = schedule.streams().iter().enumerate().filter(|(_, stream)| stream.served);
        let coming = streams.filter_map(|(index, stream)| {
            let from = police.opens(index).max(now);
            (from <= end).then(|| (from + stream.latency_bound).saturating_sub(stream.travel))
        });
        let waiting = &mut waiting[model.index()];
        waiting.list(std::iter::empty(), coming);
        Early { schedule, model, now: end, pace, beside }.all_in_turn(&waiting.deadlines[ALL])
    }

    /// When a job's result is there, as planned, if it starts now in a batch of its own.
    fn end_alone(&self, now: Instant, job: &Job) -> Instant {
        let schedule = &self.schedule;
        now + at_pace(schedule.planned(job.model, 1), self.pace.get(now)) + schedule.tail(job.model, 1)
    }

    /// Of a stream's frames only every so many will come here; none: all are left out, and none is kept.
    pub fn set_every(&mut self, stream: StreamId, every: Option<u64>) {
        if every.is_none() {
            self.end_spare(stream);
        }
        self.gather.set_every(stream, every.map_or(0, |every| every as u32));
    }

    /// Takes out one job that is over without a batch, and why.
    pub fn pop_ended(&mut self) -> Option<(BatchJob<P>, DropReason)> {
        self.ended.pop_front()
    }

    /// Lets in the early frames whose time has come, and ends those at the head of the order, and those that were left
    /// out, that cannot meet their deadline even if their batch started now.
    pub fn advance(&mut self, now: Instant) {
        while let Some(job) = self.police.release(now) {
            self.enter(now, job);
        }
        while let Some(&BatchJob { job, .. }) = self.spares.first()
            && self.end_alone(now, &job) > job.deadline
        {
            self.end_spare(job.stream);
        }
        for index in 0..2 * self.order.len() {
            let (model, class) = (index / 2, index % 2);
            while let Some(&Reverse(key)) = self.order[model][class].peek() {
                if find(&self.queues, key).is_some_and(|job| !self.is_hopeless(now, job)) {
                    break;
                }
                self.order[model][class].pop();
                let hopeless = take(&mut self.queues, key);
                self.ended.extend(hopeless.map(|job| (job, DropReason::Hopeless)));
            }
        }
    }

    /// Whether the result would be late, and unwanted, even if the job's batch started now.
    fn is_hopeless(&self, now: Instant, job: &Job) -> bool {
        is_hopeless(&self.schedule, self.pace.get(now), now, job)
    }

    /// Takes out any waiting job, to end it.
    pub fn pop_any(&mut self) -> Option<BatchJob<P>> {
        // Of a stream, what is held back is the newest.
        let waiting = self.queues.iter_mut().find_map(VecDeque::pop_front);
        waiting.or_else(|| self.police.pop_any()).or_else(|| self.spares.pop_any())
    }

    /// When [`Scheduler::fill`] may have a batch even if nothing happens before; `None` where only an event
    /// changes that.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        [self.held_until, self.police.poll_at(), self.spares.first_deadline()].into_iter().flatten().min()
    }

    /// For how many frames the next batch is held back: until [`Scheduler::poll_at`], fewer change nothing. 0: any
    /// frame may change what is to be done.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.awaited
    }

    /// Fills `batch` with the jobs to run next, where so many `places` are free; false when no job waits, or none
    /// is to start yet. Call [`Scheduler::advance`] before, and [`Scheduler::pop_ended`] until it is empty after it.
    pub fn fill(&mut self, now: Instant, places: usize, batch: &mut Batch<P>) -> bool {
        (self.held_until, self.awaited) = (None, 0);
        self.look_beside(now, places);
        loop {
            let Some(choice) = self.choose(now, places) else { return false };
            self.gather.started();
            let ended = self.ended.len();
            let guarded = self.mixed && self.is_guarded(now);
            self.take_out(now, choice, guarded, batch);
            self.take_along(now, choice.most, batch);
            // All that was chosen may turn out to be hopeless; then the next is to be chosen.
            if !batch.jobs.is_empty() {
                self.runs(now, batch);
                return true;
            }
            if self.ended.len() == ended {
                return false;
            }
        }
    }

    /// The batch to start now; `held_until` says when to ask again where there is none yet.
    fn choose(&mut self, now: Instant, places: usize) -> Option<Choice> {
        let first = if self.mixed && self.is_guarded(now) { None } else { Some(self.earliest(now)) };
        let (choice, latest) = match first {
            Some(Some((choice, true))) => (Some(choice), None),
            // Somebody has to be late: not those that are critical.
            Some(Some((choice, false))) => {
                if !self.mixed {
                    return Some(self.give_up(now, choice.model));
                }
                self.guard_until = self.guard_until.max(now + HOLD);
                self.choose_guarded(now)
            }
            Some(None) => (None, None),
            None => self.choose_guarded(now),
        };
        let guarded = latest.is_some();
        let Some(mut choice) = choice else {
            // What the guard keeps back: with time the pace is forgotten and the guard ends.
            self.held_until = self.order.iter().flatten().any(|class| !class.is_empty()).then(|| now + RETRY);
            return None;
        };
        match guarded.then(|| self.defer(now, choice, latest.flatten())) {
            Some(Course::Wait(until, missing)) => {
                (self.held_until, self.awaited) = (Some(until), missing);
                return None;
            }
            // Fewer wait now.
            Some(Course::GiveUp(instant)) if self.give_up_instant(choice.model, instant) => {
                return self.choose(now, places);
            }
            None | Some(Course::Start | Course::GiveUp(_)) => {}
        }
        let most = choice.jobs;
        // Under guard a place is left free for no longer than a batch of others may take: see theorem 2.
        let until = guarded.then(|| now + self.schedule.blocking(self.pace.get(now)));
        let held = self.hold(now, &mut choice, until.into_iter().chain(latest.flatten()).min());
        if guarded {
            // The guard counts on batches with all that is critical.
            choice.jobs = most;
        } else {
            choice.jobs = self.side_by_side(choice, places);
        }
        self.held_until = held;
        held.is_none().then_some(choice)
    }

    /// Whether a batch that the guard lets start is better not started; see [`super::defer`]. Only where whoever watches
    /// over the heart sees more load than planned: else nothing is waited for, and nobody given up, without need.
    fn defer(&mut self, now: Instant, choice: Choice, latest: Option<Instant>) -> Course {
        // Where there are several places, what comes meanwhile need not wait for this one.
        let alone = self.schedule.places() < 2;
        if !self.guard_asked || !alone || !self.gather.expects() {
            return Course::Start;
        }
        let pace = self.pace.get(now);
        let Self { schedule, order, queues, gather, gate, prospect, .. } = self;
        let classes = &order[choice.model.index()];
        let heads = classes.iter().filter_map(BinaryHeap::peek);
        let Some(&Reverse(head @ (stamp, stream, _))) = heads.max() else { return Course::Start };
        if !waits(queues, head) {
            return Course::Start;
        }
        let (first, tail) = ((stream, stamp), schedule.tail(choice.model, choice.jobs));
        let frame = |stream: StreamId, from: Instant, deadline: Instant| {
            let end = deadline.saturating_sub(tail);
            match schedule.longest_response(stream, pace) {
                Some(target) => Frame { critical: true, from, end: end.min(from + target) },
                None => Frame { critical: false, from, end },
            }
        };
        prospect.clear();
        // With a gate the batch is the first instant's.
        let of_first = |key: (StreamId, Instant)| gate.as_ref().is_none_or(|gate| gate.shares(first, key));
        let (mut critical, mut later) = (0, false);
        for &Reverse(key @ (stamp, stream, _)) in classes.iter().flatten() {
            let Some(job) = find(queues, key) else { continue };
            let frame = frame(stream, job.arrived, job.deadline.max(key.0));
            if of_first((stream, stamp)) {
                critical += usize::from(frame.critical);
                prospect.waits(frame);
            } else {
                later |= frame.critical;
                prospect.waits_for_later(frame);
            }
        }
        // Beside critical frames of a later instant others of this one would take the places of those of that one.
        let apart = gate.is_some() && critical == 0;
        for (stream, due) in gather.next(now).filter(|(stream, due)| apart || of_first((*stream, due.stamp)))
        {
            let deadline = due.stamp + schedule.stream(stream).latency_bound;
            prospect.is_due(frame(stream, due.arrival, deadline));
        }
        let at = Accelerator { schedule, model: choice.model, now, pace };
        let (jobs, given_up) = (usize::from(choice.jobs), usize::from(choice.given_up[1]));
        // Nor so long that what is critical and comes meanwhile would be late: see theorem 2.
        let latest = (now + schedule.blocking(pace)).min(latest.unwrap_or(now + Duration::MAX));
        match prospect.better(at, jobs, given_up, apart) {
            Some(_) if apart && later => Course::GiveUp(first),
            Some(until) if until > now && until <= latest => {
                // Of an instant that has begun, all that are missing: those that will be left out come too.
                let oldest = |stream: StreamId| Some(queues[stream.index()].front()?.job.captured);
                let missing = gate.as_ref().filter(|_| !apart).map(|gate| gate.missing(first, oldest));
                Course::Wait(until, missing.unwrap_or_else(|| prospect.critical_by(until)))
            }
            _ => Course::Start,
        }
    }

    /// Gives up others' frames of an instant, where no result is wanted late; whether there were any.
    fn give_up_instant(&mut self, model: ModelId, first: (StreamId, Instant)) -> bool {
        let Self { schedule, order, queues, gate, ended, .. } = self;
        let others = &mut order[model.index()][1];
        let mut any = false;
        while let Some(&Reverse(key @ (stamp, stream, _))) = others.peek()
            && gate.as_ref().is_some_and(|gate| gate.shares(first, (stream, stamp)))
            && !schedule.stream(stream).stale_results
        {
            others.pop();
            let given_up = take(queues, key);
            any |= given_up.is_some();
            ended.extend(given_up.map(|job| (job, DropReason::Hopeless)));
        }
        any
    }

    /// Where several places are free and small batches cost little more, each gets its part of what waits: all
    /// of it is then done sooner.
    fn side_by_side(&self, choice: Choice, places: usize) -> u16 {
        let waiting: usize = self.order[choice.model.index()].iter().map(BinaryHeap::len).sum();
        let jobs = usize::from(choice.jobs).min(waiting);
        if places < 2 || jobs < 2 || self.gate.is_some() {
            return choice.jobs;
        }
        let part = jobs.div_ceil(places) as u16;
        let service = |jobs: u16| self.schedule.planned(choice.model, jobs);
        let parts = jobs.div_ceil(usize::from(part)) as u32;
        if service(part) * parts <= service(jobs as u16).mul_f64(DEARER) { part } else { choice.jobs }
    }

    fn take_out(&mut self, now: Instant, choice: Choice, guarded: bool, batch: &mut Batch<P>) {
        let Choice { model, jobs, mut critical, mut others, given_up, .. } = choice;
        batch.model = model;
        // Results that are wanted late take no critical frame's place.
        let late = if guarded { jobs.saturating_sub(critical) } else { jobs };
        for (class, given_up) in given_up.into_iter().enumerate() {
            self.end(now, (model, class), given_up, late, batch);
        }
        others = others.saturating_sub(batch.jobs.len() as u16);
        let mut first = None;
        while batch.jobs.len() < usize::from(jobs) {
            let order = &mut self.order[model.index()];
            let class = match (order[0].peek(), order[1].peek()) {
                (Some(first), Some(other)) if critical > 0 && others > 0 => usize::from(first < other),
                (Some(_), _) if critical > 0 => 0,
                (_, Some(_)) if others > 0 => 1,
                _ => break,
            };
            let Some(&Reverse(key @ (stamp, stream, _))) = order[class].peek() else { break };
            let Some(&Job { captured, .. }) = find(&self.queues, key) else {
                order[class].pop();
                continue;
            };
            let instant = *first.get_or_insert(stream);
            if self.gate.as_ref().is_some_and(|gate| !gate.is_of(instant, stream, stamp)) {
                // Under guard all that is critical goes together.
                match class {
                    0 if guarded => self.lost(stream, captured),
                    0 => break,
                    _ => {
                        others = 0;
                        continue;
                    }
                }
            }
            let order = &mut self.order[model.index()];
            order[class].pop();
            let Some(job) = take(&mut self.queues, key) else { continue };
            if self.is_hopeless(now, &job.job) {
                self.ended.push_back((job, DropReason::Hopeless));
                continue;
            }
            batch.jobs.push(job);
            *if class == 0 { &mut critical } else { &mut others } -= 1;
        }
    }

    /// Ends the first jobs of a class that are not past anyway; those whose results are wanted late go with the
    /// batch, of at most `most` jobs.
    fn end(
        &mut self,
        now: Instant,
        (model, class): (ModelId, usize),
        mut jobs: u16,
        most: u16,
        batch: &mut Batch<P>,
    ) {
        while jobs > 0 {
            let order = &mut self.order[model.index()][class];
            let Some(&Reverse(key @ (_, stream, _))) = order.peek() else { break };
            let stale_results = self.schedule.stream(stream).stale_results;
            if stale_results && batch.jobs.len() >= usize::from(most) {
                break;
            }
            order.pop();
            let Some(job) = take(&mut self.queues, key) else { continue };
            jobs -= u16::from(job.job.deadline > now);
            if stale_results {
                batch.jobs.push(job);
            } else {
                self.ended.push_back((job, DropReason::Hopeless));
            }
        }
    }

    /// Until when the chosen batch is held back for frames that are due, not beyond `latest`; otherwise how many
    /// of its jobs start.
    fn hold(&mut self, now: Instant, choice: &mut Choice, latest: Option<Instant>) -> Option<Instant> {
        let pace = self.pace.get(now);
        let Self { order, queues, gather, gate, schedule, awaited, .. } = self;
        let classes = &order[choice.model.index()];
        // `Reverse` makes the earliest the greatest.
        let chosen = [choice.critical, choice.others].into_iter().zip(classes).filter(|&(jobs, _)| jobs > 0);
        let &Reverse((first, stream, _)) = chosen.filter_map(|(_, class)| class.peek()).max()?;
        if let Some(gate) = gate {
            let oldest = |stream: StreamId| Some(queues[stream.index()].front()?.job.captured);
            return match gate.ask(now, (stream, first), latest, oldest) {
                Ok(deadline) => {
                    let most = schedule.batch_before(choice.model, now, deadline, pace);
                    choice.jobs = choice.jobs.min(most);
                    None
                }
                Err((until, missing)) => {
                    *awaited = missing;
                    Some(until)
                }
            };
        }
        // Plans are made with planned service times: not while batches take longer.
        let many = classes.iter().map(BinaryHeap::len).sum::<usize>() > WAITING;
        if first <= now || many || pace > 1.0 || !gather.expects() {
            return None;
        }
        let waiting = classes.iter().flatten().filter_map(|&Reverse(key)| {
            let job = find(queues, key)?;
            Some((key.0, job.arrived))
        });
        match gather.step(now, waiting) {
            Step::Start(planned) => {
                choice.jobs = choice.jobs.min(u16::try_from(planned).unwrap_or(u16::MAX));
                None
            }
            Step::Hold(until) => latest.is_none_or(|latest| until <= latest).then_some(until),
        }
    }

    /// The model of the earliest deadline, and as many jobs as end before it; and whether all that waits for it
    /// can be met, this batch and then the next ones.
    fn earliest(&mut self, now: Instant) -> Option<(Choice, bool)> {
        let heads = self.order.iter().enumerate().filter_map(|(model, classes)| {
            classes.iter().filter_map(BinaryHeap::peek).max().map(|key| (key, ModelId(model as u8)))
        });
        let (&Reverse(key), model) = heads.max_by_key(|&(key, _)| key)?;
        let jobs = self.schedule.batch_before(model, now, self.deadline(key), self.pace.get(now));
        let most: usize = self.order[model.index()].iter().map(BinaryHeap::len).sum();
        let whole = usize::from(jobs) >= most.min(usize::from(self.schedule.max_batch(model)));
        // An instant's frames have one deadline: who is first makes no difference.
        let fits = whole || self.gate.is_some() || {
            self.list(now, model);
            self.early(now, model).all_in_turn(&self.waiting[model.index()].deadlines[ALL])
        };
        Some((Choice { model, jobs, critical: jobs, others: jobs, most: jobs, given_up: [0; 2] }, fits))
    }

    /// A batch of one model that not all can be in, where all are alike.
    fn give_up(&self, now: Instant, model: ModelId) -> Choice {
        let (given_up, jobs) = self.early(now, model).some(&self.waiting[model.index()].deadlines[ALL]);
        let (given_up, jobs) = (given_up as u16, jobs as u16);
        let class = usize::from(self.critical.is_empty());
        let mut choice = Choice { model, jobs, critical: jobs, others: jobs, most: jobs, given_up: [0; 2] };
        choice.given_up[class] = given_up;
        choice
    }

    fn early(&self, now: Instant, model: ModelId) -> Early<'_> {
        Early { schedule: &self.schedule, model, now, pace: self.pace.get(now), beside: &self.beside }
    }

    /// Lists the deadlines of what waits for a model.
    fn list(&mut self, now: Instant, model: ModelId) {
        let Self { waiting, order, queues, gate, .. } = self;
        let gated = gate.is_some();
        // A result that is wanted however late presses nobody any more.
        let past = |deadline: Instant| if deadline <= now { now + Duration::MAX } else { deadline };
        let [critical, others] = order[model.index()].each_ref().map(|class| {
            class.iter().filter_map(|&Reverse(key)| {
                let job = find(queues, key)?;
                Some(past(if gated { job.deadline } else { key.0 }))
            })
        });
        waiting[model.index()].list(critical, others);
    }

    /// The deadline of a waiting job.
    fn deadline(&self, key: (Instant, StreamId, u64)) -> Instant {
        match self.gate {
            Some(_) => find(&self.queues, key).map_or(key.0, |job| job.deadline),
            None => key.0,
        }
    }

    /// The batch that the guard lets begin, and when the accelerator has to be free for what is critical and
    /// waits.
    #[allow(clippy::option_option)] // Guarded or not; and something critical waits or not.
    fn choose_guarded(&mut self, now: Instant) -> (Option<Choice>, Option<Option<Instant>>) {
        for model in 0..self.order.len() {
            self.list(now, ModelId(model as u8));
        }
        let pace = self.pace.get(now);
        let Self { schedule, queues, critical, waiting, next, police, beside, .. } = self;
        next.clear();
        next.extend(critical.iter().filter_map(|&stream| {
            let admitted = &schedule.streams()[stream];
            let spacing = admitted.period.saturating_sub(admitted.tolerance);
            Some(Next { from: police.opens(stream), spacing, reserve: admitted.reserve? })
        }));
        let coming = schedule.together().map(|together| Coming {
            model: together.model,
            next,
            roomy: schedule.is_roomy(pace),
        });
        // What is critical may wait for so long, and none comes before the first of these.
        let first = next.iter().map(|next| next.from).min();
        let blocking =
            schedule.blocking(pace).saturating_add(first.map_or(Duration::ZERO, |first| first.since(now)));
        let mut look = Look::new(schedule, now, pace, blocking, waiting, coming, beside);
        for &stream in &*critical {
            let queue = &queues[stream];
            let hopeful = |waiting: &&BatchJob<P>| !is_hopeless(schedule, pace, now, &waiting.job);
            if let Some(oldest) = queue.iter().find(hopeful) {
                look.critical(stream, queue.len(), &oldest.job);
            }
        }
        (look.choose(), Some(look.latest()))
    }

    /// A batch came back: how long it took, as the accelerator measured it.
    pub fn batch_done(&mut self, batch: &Batch<P>) {
        let at = batch.completed.max(batch.submitted);
        if let Some(index) = self.running.iter().position(|&(start, _)| start == batch.submitted) {
            self.running.remove(index);
        }
        let failed = batch.fault.is_some();
        let planned = self.schedule.planned(batch.model, batch.jobs.len() as u16);
        if failed || self.pace.observe(at, planned, batch.service) {
            self.guard_until = self.guard_until.max(at + HOLD);
        }
    }

    /// Whether a frame waits here, or is held back or kept.
    #[must_use]
    pub fn holds(&self, stream: StreamId, sequence: u64) -> bool {
        let waiting = &self.queues[stream.index()];
        waiting.iter().any(|waiting| waiting.job.sequence == sequence)
            || self.police.holds(stream, sequence)
            || self.spares.holds(stream, sequence)
    }

    /// The accelerator is gone, or another: for a while nothing is certain.
    pub fn accelerator_lost(&mut self, now: Instant) {
        self.running.clear();
        self.guard_until = self.guard_until.max(now + HOLD);
    }

    /// Puts critical streams first until told otherwise, whatever else is seen.
    pub fn set_guard(&mut self, on: bool) {
        self.guard_asked = on;
    }

    /// Whether critical streams come first: see [`super::guard`].
    #[must_use]
    pub fn is_guarded(&self, now: Instant) -> bool {
        self.schedule.is_doubtful() || self.guard_asked || now < self.guard_until
    }
}

fn is_hopeless(schedule: &Schedule, pace: f64, now: Instant, job: &Job) -> bool {
    now + at_pace(schedule.fastest(job.model), pace) > job.deadline
        && !schedule.stream(job.stream).stale_results
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
