//! Critical streams first, by veto: which batches may hold others' jobs while a premise of the guarantee is in
//! doubt.
//!
//! While the certificate stands, earliest deadline first is what theorem 1 of [`super::guarantee`] covers, and
//! nothing is changed. Under guard theorem 2's conditions are asked of each batch with service times at the
//! present pace. Under guard means: the profile is provisional, a batch overran or failed, or a frame came
//! early, within [`HOLD`]; or whoever watches over the heart says so. What was started before goes on: the
//! guard bounds what begins after its cause.
//!
//! Where the critical streams are not certain to be in time even alone (a provisional profile admits them by
//! utilisation), the same rule runs on what can be hoped for, one batch of theirs: no guarantee.

use crate::board::MAX_MODELS;
use crate::job::Job;
use crate::sched::Schedule;
use crate::sched::admission::TAIL;
use crate::stream::ModelId;
use crate::time::{Instant, nanos};
use std::time::Duration;

/// How long after the last cause the guard stays on.
pub(super) const HOLD: Duration = Duration::from_secs(2);

/// While the guard lets no batch begin: how soon it is asked again, if nothing happens before.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// A batch to be made, earliest deadline first: so many jobs, of which at most so many of critical streams, and
/// so many of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) model: ModelId,
    pub(super) jobs: u16,
    pub(super) critical: u16,
    pub(super) others: u16,
}

/// What waits of one model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Jobs of critical streams.
    critical: u16,
    /// Their latest end, and the latest end of a batch without them.
    end: Option<Instant>,
    free: Option<Instant>,
    /// The earliest deadlines in their order.
    pub(super) first_critical: Option<Instant>,
    pub(super) first_other: Option<Instant>,
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
    pub(super) models: [Waiting; MAX_MODELS],
}

/// `d` times `pace`.
pub(super) fn at_pace(d: Duration, pace: f64) -> Duration {
    if pace <= 1.0 { d } else { Duration::from_nanos((nanos(d) as f64 * pace).ceil() as u64) }
}

impl<'s> Look<'s> {
    pub(super) fn new(schedule: &'s Schedule, now: Instant, pace: f64, blocking: Duration) -> Self {
        Self { schedule, now, pace, blocking, models: [Waiting::default(); MAX_MODELS] }
    }

    /// A critical stream has so many jobs waiting, and this is the first to be met.
    pub(super) fn critical(&mut self, stream: usize, jobs: usize, oldest: &Job) {
        let admitted = &self.schedule.streams()[stream];
        let Some((target, clear)) = admitted.reserve else { return };
        let waiting = &mut self.models[admitted.model.index()];
        waiting.critical += jobs as u16;
        let end = (oldest.arrived + target).min(oldest.deadline.saturating_sub(TAIL));
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
        let any = |waiting: &Waiting| waiting.first_critical.into_iter().chain(waiting.first_other).min();
        let earliest = |of: &dyn Fn(&Waiting) -> Option<Instant>| {
            let deadlines = self.models.iter().enumerate().filter_map(|(m, w)| of(w).map(|at| (at, m)));
            deadlines.min().map(|(_, model)| model)
        };
        let critical = earliest(&|waiting| waiting.first_critical);
        if let Some(mixed) = earliest(&any).and_then(|model| self.with_others(model)) {
            return Some(mixed);
        }
        let Some(model) = critical else {
            // Nothing critical waits, and the first one's batch would be too long for what may arrive.
            let mut least: Option<(Instant, Choice)> = None;
            for model in 0..MAX_MODELS {
                let first = self.models[model].first_other;
                if let Some((at, choice)) = first.zip(self.with_others(model))
                    && least.is_none_or(|(least, _)| at < least)
                {
                    least = Some((at, choice));
                }
            }
            return least.map(|(_, choice)| choice);
        };
        self.with_others(model).or_else(|| {
            let jobs = self.within(ModelId(model as u8), self.models[model].first_critical?);
            Some(Choice { model: ModelId(model as u8), jobs, critical: jobs, others: 0 })
        })
    }

    /// A batch of `model` with all that is critical and as many others as may be in it; `None` where none may.
    fn with_others(&self, index: usize) -> Option<Choice> {
        let (model, waiting) = (ModelId(index as u8), &self.models[index]);
        let first = waiting.first_critical.into_iter().chain(waiting.first_other).min()?;
        waiting.first_other?;
        let elsewhere = self.models.iter().enumerate().filter(|&(other, _)| other != index);
        let free = elsewhere.filter_map(|(_, other)| other.free).min();
        let latest = free.into_iter().chain(waiting.end).min();
        let most = self.within(model, first);
        let allowed = (waiting.critical + 1..=most).rev().find(|&jobs| {
            let service = at_pace(self.schedule.planned(model, jobs), self.pace);
            service <= self.blocking && latest.is_none_or(|latest| self.now + service <= latest)
        })?;
        let others = allowed - waiting.critical;
        Some(Choice { model, jobs: allowed, critical: waiting.critical, others })
    }

    fn within(&self, model: ModelId, deadline: Instant) -> u16 {
        self.schedule.batch_before(model, self.now, deadline, self.pace)
    }
}
