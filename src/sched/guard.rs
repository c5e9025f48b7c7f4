//! Critical streams first, by veto: which batches may hold others' jobs while a premise of the guarantee is in
//! doubt.
//!
//! While the certificate stands, earliest deadline first is what theorem 1 of [`super::guarantee`] covers, and
//! nothing is changed. Under guard theorem 2's conditions are asked of each batch with service times at the
//! present pace. Under guard means: the profile is provisional, a batch overran or failed, a frame came early, or
//! not all that waited could be met, within [`HOLD`]; or whoever watches over the heart says so. What was started
//! before goes on: the guard bounds what begins after its cause.
//!
//! Where the critical streams are not certain to be in time even alone (a provisional profile admits them by
//! utilisation), the same rule runs on what can be hoped for, one batch of theirs: no guarantee.

use crate::job::Job;
use crate::sched::early::{Early, Places};
use crate::sched::{Reserve, Schedule};
use crate::stream::ModelId;
use crate::time::{Instant, nanos};
use std::time::Duration;

/// How long after the last cause the guard stays on.
pub(super) const HOLD: Duration = Duration::from_secs(2);

/// While the guard lets no batch begin: how soon it is asked again, if nothing happens before.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// Critical frames are let be as late as their bound allows only where they would be in time even if batches took so much
/// longer: lateness that the next batches do not make up for is what the machine's next pause comes on top of.
const CAREFUL: f64 = 1.25;

/// Positions of the lists of deadlines.
pub(super) const CRITICAL: usize = 0;
pub(super) const OTHERS: usize = 1;
pub(super) const ALL: usize = 2;

/// A batch to be made, earliest deadline first: so many jobs, of which at most so many of critical streams, and
/// so many of others. The first few of each class are given up before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) model: ModelId,
    pub(super) jobs: u16,
    pub(super) critical: u16,
    pub(super) others: u16,
    /// With those that were left out and may ride along.
    pub(super) most: u16,
    pub(super) given_up: [u16; 2],
}

/// What waits of one model.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// Jobs of critical streams.
    critical: u16,
    /// Their latest end, whatever comes meanwhile.
    end: Option<Instant>,
    /// The same where it is known what comes.
    last: Option<Instant>,
    /// The latest end of a batch without them.
    free: Option<Instant>,
    /// All deadlines of critical jobs, of others, and of all, ascending.
    pub(super) deadlines: [Vec<Instant>; 3],
}

impl Waiting {
    /// Nothing, with room for so many jobs.
    pub(super) fn with_capacity(jobs: usize) -> Self {
        let deadlines = [(); 3].map(|()| Vec::with_capacity(jobs));
        Self { deadlines, ..Self::default() }
    }

    /// Begins anew, with these deadlines of critical jobs and of others.
    pub(super) fn list(
        &mut self,
        critical: impl Iterator<Item = Instant>,
        others: impl Iterator<Item = Instant>,
    ) {
        (self.critical, self.end, self.last, self.free) = (0, None, None, None);
        let [ours, theirs, all] = &mut self.deadlines;
        [&mut *ours, &mut *theirs, &mut *all].into_iter().for_each(Vec::clear);
        ours.extend(critical);
        theirs.extend(others);
        all.extend(ours.iter().chain(theirs.iter()));
        [ours, theirs, all].into_iter().for_each(|deadlines| deadlines.sort_unstable());
    }

    fn first(&self, class: usize) -> Option<Instant> {
        self.deadlines[class].first().copied()
    }
}

/// All that waits, by model, for one decision.
#[derive(Debug)]
pub(super) struct Look<'s> {
    schedule: &'s Schedule,
    now: Instant,
    pace: f64,
    /// Longest batch with others' jobs: what is critical can wait for as long, from its arrival on, and is let
    /// in by [`super::police`] at a known instant at the earliest.
    blocking: Duration,
    models: &'s mut [Waiting],
    /// What may come meanwhile, where that is known.
    coming: Option<Coming<'s>>,
    /// When the accelerator's other places are free.
    beside: &'s Places,
}

/// What is critical and may come while a batch runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coming<'s> {
    /// The model of all of it.
    pub(super) model: ModelId,
    /// The streams' next frames, of all of them.
    pub(super) next: &'s [Next],
    /// Whether it may be as late as the bound allows: see [`Schedule::is_roomy`].
    pub(super) roomy: bool,
}

/// A critical stream's next frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// When it may enter at the earliest.
    pub(super) from: Instant,
    /// The least time between it and the one after it.
    pub(super) spacing: Duration,
    /// Longest response.
    pub(super) reserve: Reserve,
}

impl Next {
    fn latest(&self, arrival: Instant, lenient: bool) -> Instant {
        arrival + if lenient { self.reserve.limit } else { self.reserve.target }
    }
}

/// `d` times `pace`.
pub(super) fn at_pace(d: Duration, pace: f64) -> Duration {
    if pace <= 1.0 { d } else { Duration::from_nanos((nanos(d) as f64 * pace).ceil() as u64) }
}

impl<'s> Look<'s> {
    pub(super) fn new(
        schedule: &'s Schedule,
        now: Instant,
        pace: f64,
        blocking: Duration,
        models: &'s mut [Waiting],
        coming: Option<Coming<'s>>,
        beside: &'s Places,
    ) -> Self {
        Self { schedule, now, pace, blocking, models, coming, beside }
    }

    /// A critical stream has so many jobs waiting, and this is the first to be met.
    pub(super) fn critical(&mut self, stream: usize, jobs: usize, oldest: &Job) {
        let admitted = &self.schedule.streams()[stream];
        let Some(Reserve { target, clear, limit }) = admitted.reserve else { return };
        let roomy = self.coming.is_some_and(|coming| coming.roomy);
        let waiting = &mut self.models[admitted.model.index()];
        waiting.critical += jobs as u16;
        let tail = self.schedule.tail(admitted.model, jobs as u16);
        let late = |response: Duration| (oldest.arrived + response).min(oldest.deadline.saturating_sub(tail));
        let end = late(target);
        let last = if roomy { late(limit) } else { end };
        waiting.last = Some(waiting.last.map_or(last, |least| least.min(last)));
        let free = end.saturating_sub(at_pace(clear, self.pace));
        waiting.end = Some(waiting.end.map_or(end, |least| least.min(end)));
        waiting.free = Some(waiting.free.map_or(free, |least| least.min(free)));
    }

    /// When the accelerator has to be free for what is critical and waits; `None`: nothing is.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.models.iter().filter_map(|waiting| waiting.free).min()
    }

    /// The batch to begin; `None` when nothing may.
    pub(super) fn choose(&self) -> Option<Choice> {
        let earliest = |class: usize| {
            let firsts = self.models.iter().enumerate();
            firsts.filter_map(|(model, waiting)| Some((waiting.first(class)?, model))).min()
        };
        if let Some(mixed) = earliest(ALL).and_then(|(_, model)| self.with_others(model)) {
            return Some(mixed);
        }
        let Some((_, model)) = earliest(CRITICAL) else {
            // Nothing critical waits, and the first one's batch would be too long for what may arrive.
            let each = (0..self.models.len())
                .filter_map(|model| Some((self.models[model].first(OTHERS)?, self.with_others(model)?)));
            return each.min_by_key(|&(first, _)| first).map(|(_, choice)| choice);
        };
        self.with_others(model).or_else(|| {
            let (skipped, jobs) = self.early(model).some(&self.models[model].deadlines[CRITICAL]);
            let (skipped, jobs) = (skipped as u16, jobs as u16);
            let all = (skipped, jobs) == (0, self.models[model].critical);
            let most = if all { self.allowed(model).unwrap_or(jobs) } else { jobs };
            let model = ModelId(model as u8);
            Some(Choice { model, jobs, critical: jobs, others: 0, most, given_up: [skipped, 0] })
        })
    }

    /// How many may be in a batch of a model with all that is critical and others; `None` where no others may.
    fn allowed(&self, index: usize) -> Option<u16> {
        let (model, waiting) = (ModelId(index as u8), &self.models[index]);
        let elsewhere = self.models.iter().enumerate().filter(|&(other, _)| other != index);
        let free = elsewhere.filter_map(|(_, other)| other.free).min();
        let most = match waiting.first(CRITICAL) {
            Some(first) => self.schedule.batch_before(model, self.now, first, self.pace),
            None => self.schedule.max_batch(model),
        };
        let harmless = |&jobs: &u16| {
            let service = self.service(model, jobs.into(), false);
            let end = self.now + service;
            let by = |latest: Option<Instant>| latest.is_none_or(|latest| end <= latest);
            let whatever_comes = service <= self.blocking && by(free) && by(waiting.end);
            whatever_comes || self.is_known_harmless(index, jobs)
        };
        (waiting.critical + 1..=most).rev().find(harmless)
    }

    /// A batch of a model with all that is critical and as many others as may be in it; `None` where none may.
    fn with_others(&self, index: usize) -> Option<Choice> {
        let (model, waiting) = (ModelId(index as u8), &self.models[index]);
        waiting.first(OTHERS)?;
        let allowed = self.allowed(index)?;
        let (critical, room) = (usize::from(waiting.critical), usize::from(allowed - waiting.critical));
        let early = self.early(index);
        let all = early.all_in_turn(&waiting.deadlines[ALL]);
        let with_all = if all { early.first(&waiting.deadlines[OTHERS], critical).min(room) } else { 0 };
        // All in turn may mean that what is critical is not first: on one place it has to be.
        let (skipped, others) = match with_all {
            0 if all && !self.beside.is_empty() => (0, 0),
            0 => early.drop(&waiting.deadlines[OTHERS], critical, room),
            others => (0, others),
        };
        let (skipped, others) = (skipped as u16, others as u16);
        let jobs = waiting.critical + others;
        (others > 0).then_some(Choice {
            model,
            jobs,
            critical: waiting.critical,
            others,
            most: allowed,
            given_up: [0, skipped],
        })
    }

    /// Whether a batch of so many is harmless for what is known of what may come meanwhile.
    fn is_known_harmless(&self, index: usize, jobs: u16) -> bool {
        let Some(coming) = self.coming else { return false };
        let harmless = |lenient: bool| {
            let end = self.now + self.service(ModelId(index as u8), jobs.into(), lenient);
            let waiting = &self.models[index];
            let latest = if lenient { waiting.last } else { waiting.end };
            latest.is_none_or(|latest| end <= latest) && self.clears(coming, index, end, lenient)
        };
        harmless(false) || coming.roomy && harmless(true)
    }

    /// Whether all critical jobs that wait for another model, or may have come by then, are in time in one batch when the
    /// accelerator is free at `end`.
    fn clears(&self, coming: Coming<'_>, index: usize, end: Instant, lenient: bool) -> bool {
        let Coming { model, next, .. } = coming;
        let (mut jobs, mut latest) = match &self.models[model.index()] {
            waiting if model.index() != index => {
                (u64::from(waiting.critical), if lenient { waiting.last } else { waiting.end })
            }
            _ => (0, None),
        };
        for next in next {
            let from = next.from.max(self.now);
            if from <= end {
                jobs += 1 + nanos(end.since(from)) / nanos(next.spacing).max(1);
                let its = next.latest(from, lenient);
                latest = Some(latest.map_or(its, |least| least.min(its)));
            }
        }
        let Some(latest) = latest else { return true };
        let most = if lenient { next.len() } else { usize::from(self.schedule.max_batch(model)) };
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        jobs <= most && end + self.service(model, jobs, lenient) <= latest
    }

    fn service(&self, model: ModelId, jobs: usize, lenient: bool) -> Duration {
        let pace = self.pace * if lenient { CAREFUL } else { 1.0 };
        at_pace(self.schedule.planned(model, jobs as u16), pace)
    }

    fn early(&self, model: usize) -> Early<'_> {
        let Self { schedule, now, pace, beside, .. } = *self;
        Early { schedule, model: ModelId(model as u8), now, pace, beside }
    }
}
