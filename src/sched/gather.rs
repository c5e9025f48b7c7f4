//! Gathering: whether a free accelerator starts what waits, or waits for a frame that is due.
//!
//! # The plan
//! Waiting and due jobs of the next moments, in the order of their deadlines, are 1..n; job j is there from r_j
//! on and due at d_j. With equal bounds who is released earlier is due earlier, so that nothing is gained by
//! batches that are not consecutive in this order (two jobs can always change places), nor by finishing the
//! first j jobs later than possible. Hence
//!
//! ```text
//! f(0) = now,   f(j) = min over i in j-B..j-1 of  max(f(i), r_j) + l(j - i)   that is at most d_(i+1)
//! ```
//!
//! is the earliest end of the first j jobs with every deadline met (less the time to decode the batch's results), and its
//! first step is what to do now: start
//! a batch of so many, or wait for its last member. But where everything foreseen can be met even if what waits
//! starts at once, it does: nothing is waited for without need. Where no such plan exists, its longest part
//! that covers what waits is followed; without even that (overload) all that waits starts, as it does where
//! phases are not known or several models share the accelerator. Where m batches are at work at once, the next one may
//! start l/m after the one before: as on average it does. With mixed bounds the order is a heuristic (r is then
//! the latest release in the batch), each planned deadline still a true one.
//!
//! With a guarantee (known phases or not), all that waits starts whenever something starts, and nothing is held
//! for longer than [`Schedule::patience`] after its arrival: see "Holding" in [`super::guarantee`].
//!
//! # Why this one
//! Largest service times in steady state, in % of the clairvoyant optimum (`tests/optimum.rs`; a/c from 0.5 to
//! 8, caps 3 and 8, D from 0.3 P to 2 P, random phases, 60 draws a column):
//!
//! | candidate | D = 0.3 P mean, least | 0.5 P | 0.9 P | P | aligned, 8 streams, D <= P, no jitter |
//! |---|---|---|---|---|---|
//! | start all that waits | 94.8, 73.5 | 94.1, 83.0 | 96.7, 87.2 | 98.8, 84.8 | 66.5 to 95.0 |
//! | start when the first deadline forces it | 88.8, 74.8 | 94.8, 79.2 | 97.7, 90.2 | 99.8, 99.0 | 99.8 to 100 |
//! | this plan | 99.9, 99.8 | 99.9, 99.8 | 99.9, 99.2 | 99.7, 97.5 | 97.5 to 99.8 |
//!
//! Due frames are planned at their latest arrival: planned earlier within their jitter (5 % of P), a frame that
//! comes later costs a batch of its own, and means fell from 97-99 % to 87-97 % where D < P.
//!
//! Work: at most [`AHEAD`] due and [`WAITING`] waiting jobs are looked at, whatever the number of streams; the
//! order of who is due next is kept by binary search. No memory after the start.

use crate::job::Job;
use crate::sched::Schedule;
use crate::sched::phase::{Due, Phase};
use crate::sched::profile::TAIL;
use crate::stream::{ModelId, StreamId};
use crate::time::{Instant, nanos};
use std::collections::VecDeque;
use std::time::Duration;

/// Most jobs that wait for which there is a plan; with more, the accelerator has enough to do.
pub(super) const WAITING: usize = 64;
/// Most due jobs that a plan looks at, and how many of each stream.
const AHEAD: usize = 64;
const CYCLES: usize = 8;
/// Frames of a stream that do not come in a row, after which none is waited for.
const ABSENT: u32 = 3;

/// What to do with a free accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start so many jobs, the earliest deadlines first.
    Start(usize),
    /// Leave it free until then, or until a frame comes.
    Hold(Instant),
}

/// A job of the plan. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Slot {
    release: u64,
    deadline: u64,
    /// Whose frame is due; `None`: it waits already.
    due: Option<(StreamId, u32)>,
}

/// The earliest end of the jobs before a position (where several batches are at work, when a place is free for the next
/// ones), and where the batch before it begins.
#[derive(Clone, Copy, Debug)]
struct End {
    at: u64,
    from: usize,
}

/// A plan's first batch.
#[derive(Clone, Copy, Debug)]
struct First {
    jobs: usize,
    /// How many of them are yet to come, and when the last should be there.
    due: usize,
    release: u64,
}

/// Who is due when, and the plan's memory.
#[derive(Debug)]
pub(super) struct Gather {
    streams: Vec<Expected>,
    /// By deadline: the next frame of every stream whose phase is known.
    order: VecDeque<(u64, StreamId)>,
    /// l(b) from b = 1 to the cap; empty with several models.
    services: Vec<u64>,
    /// Batches at work at once.
    places: u64,
    /// Decoding of a job's results.
    decoding: u64,
    /// Longest that a place is left free on purpose after a waiting job's arrival; `None`: as the plan says.
    patience: Option<Duration>,
    /// What is waited for, while nothing else happens.
    hold: Option<Hold>,
    /// Holds so far.
    holds: u64,
    due: VecDeque<Slot>,
    slots: Vec<Slot>,
    ends: Vec<End>,
}

/// A batch that waits for members.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// When the last of them should be there.
    until: u64,
    missing: usize,
}

#[derive(Debug)]
struct Expected {
    phase: Phase,
    bound: Duration,
    /// The last hold that waited for its next frame, and that frame's latest arrival.
    held_for: Option<(u64, u64)>,
    /// Every which frame comes to wait; the others are left out. None does: 0.
    every: u32,
    /// Frames left out since the last one that came.
    left_out: u32,
    /// Which frame after the newest is expected, after how many that did not come, and its deadline in the order.
    ahead: u32,
    absent: u32,
    listed: Option<u64>,
}

impl Gather {
    /// Nothing is known yet.
    pub(super) fn new(schedule: &Schedule) -> Self {
        let streams = schedule.streams();
        let one = streams.first().map_or(ModelId(0), |stream| stream.model);
        let plans =
            streams.iter().all(|stream| stream.model == one) && schedule.patience() != Some(Duration::ZERO);
        let cap = if plans { schedule.max_batch(one) } else { 0 };
        Self {
            order: VecDeque::with_capacity(streams.len() + 1),
            streams: streams
                .iter()
                .map(|stream| Expected {
                    phase: Phase::new(stream.period),
                    bound: stream.latency_bound,
                    held_for: None,
                    every: 1,
                    left_out: 0,
                    ahead: 1,
                    absent: 0,
                    listed: None,
                })
                .collect(),
            services: (1..=cap).map(|jobs| nanos(schedule.planned(one, jobs))).collect(),
            places: schedule.places().max(1) as u64,
            decoding: nanos(schedule.decoding(one)),
            patience: schedule.patience(),
            hold: None,
            holds: 0,
            due: VecDeque::with_capacity(AHEAD + 1),
            slots: Vec::with_capacity(WAITING + AHEAD),
            ends: Vec::with_capacity(WAITING + AHEAD + 1),
        }
    }

    /// A frame came.
    pub(super) fn arrived(&mut self, job: &Job) {
        if self.services.is_empty() {
            return;
        }
        self.unlist(job.stream);
        let expected = &mut self.streams[job.stream.index()];
        expected.phase.observe(job.captured, job.arrived);
        (expected.ahead, expected.absent, expected.left_out) = (expected.every, 0, 0);
        // Its coming changes the plan only if it was not foreseen, or is all that was waited for.
        let foreseen = expected.held_for.take().filter(|&(number, _)| number == self.holds);
        let stands = |hold: &Hold| hold.missing > 1 && foreseen.is_some_and(|(_, by)| by != hold.until);
        self.hold = self.hold.filter(stands).map(|hold| Hold { missing: hold.missing - 1, ..hold });
        self.list(job.stream);
    }

    /// A frame came that was left out: the phase goes on, and who waits for it need not.
    pub(super) fn left_out(&mut self, now: Instant, stream: StreamId, captured: Instant) {
        if self.services.is_empty() {
            return;
        }
        self.unlist(stream);
        let expected = &mut self.streams[stream.index()];
        expected.phase.observe(captured, now);
        expected.left_out += 1;
        (expected.ahead, expected.absent) = (expected.every.saturating_sub(expected.left_out).max(1), 0);
        if expected.held_for.take().is_some_and(|(number, _)| number == self.holds) {
            self.hold = None;
        }
        self.list(stream);
    }

    /// From now on only every so many frames come to wait; 0: none.
    pub(super) fn set_every(&mut self, stream: StreamId, every: u32) {
        self.unlist(stream);
        self.streams[stream.index()].every = every;
        self.streams[stream.index()].ahead = every.max(1);
        self.list(stream);
    }

    fn unlist(&mut self, stream: StreamId) {
        if let Some(deadline) = self.streams[stream.index()].listed.take()
            && let Ok(at) = self.order.binary_search(&(deadline, stream))
        {
            self.order.remove(at);
        }
    }

    fn list(&mut self, stream: StreamId) {
        let expected = &mut self.streams[stream.index()];
        if expected.absent >= ABSENT || expected.every == 0 {
            return;
        }
        if let Some(slot) = expected.slot(stream, expected.ahead) {
            expected.listed = Some(slot.deadline);
            let key = (slot.deadline, stream);
            let at = self.order.partition_point(|&other| other < key);
            self.order.insert(at, key);
        }
    }

    /// Whether there is any frame to wait for.
    pub(super) fn expects(&self) -> bool {
        !self.order.is_empty()
    }

    /// The plan's first step. `waiting` are (deadline, arrival) of all jobs that wait, in any order, at least one
    /// and at most [`WAITING`].
    pub(super) fn step(&mut self, now: Instant, waiting: impl Iterator<Item = (Instant, Instant)>) -> Step {
        let now_nanos = now.as_nanos();
        if let Some(hold) = self.hold.filter(|hold| hold.until > now_nanos) {
            return Step::Hold(Instant::from_nanos(hold.until));
        }
        self.slots.clear();
        let mut first_arrival = now;
        for (deadline, arrived) in waiting.take(WAITING) {
            first_arrival = first_arrival.min(arrived);
            let deadline = deadline.saturating_sub(TAIL).as_nanos();
            self.slots.push(Slot { release: now_nanos, deadline, due: None });
        }
        self.slots.sort_unstable_by_key(|slot| slot.deadline);
        let waiting = self.slots.len();
        let cap = self.services.len();
        if waiting >= cap
            && now_nanos + self.services[cap - 1] + self.decoding_of(cap) <= self.slots[0].deadline
        {
            // No plan ends the first B jobs earlier than one full batch now.
            return Step::Start(cap);
        }
        self.look_ahead(now_nanos);
        if self.nothing_is_lost(now_nanos, waiting) {
            return Step::Start(waiting.min(cap));
        }
        self.slots.sort_by_key(|slot| slot.deadline);
        match (self.plan(now_nanos, waiting), self.patience) {
            // What starts in a guaranteed schedule is all that waits.
            (First { due: 0, .. }, Some(_)) => Step::Start(waiting),
            (First { jobs, due: 0, .. }, None) => Step::Start(jobs),
            (First { release, .. }, Some(patience)) if release > (first_arrival + patience).as_nanos() => {
                Step::Start(waiting)
            }
            (first, _) => {
                self.wait_for(first);
                Step::Hold(Instant::from_nanos(first.release))
            }
        }
    }

    /// Marks the frames for which a batch waits.
    fn wait_for(&mut self, first: First) {
        self.holds += 1;
        for slot in &self.slots[..first.jobs] {
            if let Some((stream, _)) = slot.due {
                self.streams[stream.index()].held_for = Some((self.holds, slot.release));
            }
        }
        self.hold = Some(Hold { until: first.release, missing: first.due });
    }

    /// What waited has started: whatever was planned, the next plan is another.
    pub(super) fn started(&mut self) {
        self.hold = None;
    }

    /// Every stream's next frame that is still to come, where its phase is known: earliest stamp and latest arrival.
    pub(super) fn next(&mut self, now: Instant) -> impl Iterator<Item = (StreamId, Due)> + Clone {
        self.pass_over_absent(now.as_nanos());
        let next = self.order.iter().filter_map(|&(_, stream)| {
            let expected = &self.streams[stream.index()];
            Some((stream, expected.phase.due(expected.ahead)?))
        });
        // Only those at the front have been passed over.
        next.filter(move |(_, due)| due.arrival > now)
    }

    /// Who did not come is expected a period later.
    fn pass_over_absent(&mut self, now: u64) {
        while let Some(&(_, stream)) = self.order.front() {
            let expected = &mut self.streams[stream.index()];
            if expected.slot(stream, expected.ahead).is_some_and(|slot| slot.release > now) {
                break;
            }
            self.unlist(stream);
            self.streams[stream.index()].ahead += 1;
            self.streams[stream.index()].absent += 1;
            self.list(stream);
        }
    }

    /// Adds the jobs that are due next behind those that wait, by deadline.
    fn look_ahead(&mut self, now: u64) {
        self.pass_over_absent(now);
        self.due.clear();
        for &(_, stream) in self.order.iter().take(AHEAD) {
            let expected = &self.streams[stream.index()];
            self.due.extend(expected.slot(stream, expected.ahead));
        }
        let most = AHEAD.min(CYCLES * self.due.len());
        let waiting = self.slots.len();
        while self.slots.len() < waiting + most {
            let Some(slot) = self.due.pop_front() else { break };
            if slot.release > now {
                self.slots.push(slot);
            }
            let next = slot.due.and_then(|(stream, ahead)| self.streams[stream.index()].next(stream, ahead));
            if let Some(next) = next {
                // Equal periods: at the end.
                let at =
                    self.due.iter().rposition(|other| other.deadline <= next.deadline).map_or(0, |at| at + 1);
                self.due.insert(at, next);
            }
        }
    }

    /// Whether all that is foreseen can be met even if what waits, the first of the slots, starts at once.
    fn nothing_is_lost(&mut self, now: u64, waiting: usize) -> bool {
        let first = waiting.min(self.services.len());
        let service = self.services[first - 1];
        now.saturating_add(service) + self.decoding_of(first) <= self.slots[0].deadline && {
            self.ends_from(now.saturating_add(service / self.places), first);
            self.ends.last().is_some_and(|end| end.at != u64::MAX)
        }
    }

    /// f of the slots from `first` on, on an accelerator that is free at `free`.
    fn ends_from(&mut self, free: u64, first: usize) {
        let (decoding, places) = (self.decoding, self.places);
        let (slots, ends, services) = (&self.slots[first..], &mut self.ends, &self.services);
        ends.clear();
        ends.push(End { at: free, from: 0 });
        for job in 1..=slots.len() {
            let mut best = End { at: u64::MAX, from: 0 };
            let mut release = 0;
            for (first, service) in (0..job).rev().zip(services) {
                release = release.max(slots[first].release);
                let due = slots[first].deadline.saturating_sub(decoding * (job - first) as u64);
                // Larger batches start no earlier than this, and are due no later.
                let (least, share) = (release.saturating_add(*service), service / places);
                if release.saturating_add(share) >= best.at || least > due {
                    break;
                }
                let start = ends[first].at.max(release);
                let free = start.saturating_add(share);
                if free < best.at && start.saturating_add(*service) <= due {
                    best = End { at: free, from: first };
                }
            }
            ends.push(best);
        }
    }

    /// How long the results of so many jobs take to decode.
    const fn decoding_of(&self, jobs: usize) -> u64 {
        self.decoding * jobs as u64
    }

    /// f's first step; all that waits where there is no plan. Slots are by deadline.
    fn plan(&mut self, now: u64, waiting: usize) -> First {
        self.ends_from(now, 0);
        let (slots, ends) = (&self.slots, &self.ends);
        let Some(mut job) = ends.iter().rposition(|end| end.at != u64::MAX).filter(|&job| job > 0) else {
            return First { jobs: waiting, due: 0, release: now };
        };
        while ends[job].from > 0 {
            job = ends[job].from;
        }
        let batch = &slots[..job];
        First {
            jobs: job,
            due: batch.iter().filter(|slot| slot.due.is_some()).count(),
            release: batch.iter().map(|slot| slot.release).max().unwrap_or(now),
        }
    }
}

impl Expected {
    /// The frame to come after that one.
    fn next(&self, stream: StreamId, ahead: u32) -> Option<Slot> {
        self.slot(stream, ahead + self.every)
    }

    fn slot(&self, stream: StreamId, ahead: u32) -> Option<Slot> {
        let due = self.phase.due(ahead)?;
        let deadline = (due.stamp + self.bound).saturating_sub(TAIL).as_nanos();
        Some(Slot { release: due.arrival.as_nanos(), deadline, due: Some((stream, ahead)) })
    }
}
