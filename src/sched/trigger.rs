//! The guarantee for hardware-triggered cameras, and the gate that keeps it.
//!
//! # Premises
//! - Every stream is on a trigger; all have one period P. Trigger g fires at o_g + k * P. The stamps of an
//!   instant T lie in T ..= T + J_g, and its frames arrive no later than T + W_g: W_g is J_g and the longest
//!   way of a member's frame. Any frame may be missing.
//! - What has arrived at an instant is told to the heart before it is asked what to do; the hand-over between
//!   threads is part of J_g.
//! - Windows do not touch: o_g + W_g < the next trigger's instant. And 2 * J_g < P.
//! - Service and the lead are those of [`super::guarantee`], with stamps in place of arrivals.
//!
//! # The gate
//! Instants are served in the order of their stamps, one after the other, never two in one batch. Each is let go
//! when every member has a frame there or is known to have none, or W_g after the first stamp s that is there: more
//! will not come, as s >= T. Then each model of n frames runs in ceil(n / B) batches. A frame that comes after its
//! instant was let go (a premise is broken) is not held at all. Under guard what is critical does not wait for its
//! instant's turn: theorem 2 of [`super::guarantee`]. And what the ladder left out may ride in any batch, as far as
//! the next instant's frames are not there before its end ([`super::spare`]).
//!
//! # Theorem
//! Let w_g be the service of all batches of a complete instant, v_g the most that it can be with a frame
//! missing, and F the least solution, in the cyclic order of the offsets, of
//!
//! `F_g = max(max(o_g + W_g, F_before) + w_g, max(o_g + J_g + W_g, F_before) + v_g)`
//!
//! (F_before of the first trigger is that of the last, less P). It exists where the sum of w_g is at most P. No
//! frame misses or is superseded if for every trigger, with D its streams' shortest bound less the lead,
//!
//! `R_g = max(W_g, F_before - o_g) + w_g <= D`, and `J_g + R_g <= depth * P`.
//!
//! *Proof.* Windows do not touch, so frames of an instant have all arrived, or never will, before the first
//! frame of the next one does: the order of stamps is the order of instants. Let s be the least stamp of an
//! instant T. A complete instant is let go by T + W_g, any other by s + W_g; its batches follow those of the
//! instant before without a gap that is not the gate's. By induction over the instants each ends by its F:
//! a complete one needs w_g, any other at most v_g and s <= T + J_g; one without frames changes nothing. Either
//! ends no later than max(s + W_g, F_before) + w_g, which is at most R_g after s as s >= T. All deadlines of the
//! instant are at least s + D + the lead, so none is missed and no batch is cut. A frame waits no longer than
//! until T + J_g + R_g, before its stream's frame `depth` later arrives: none is superseded. Every step is a
//! maximum or a sum of times that grow with service times and numbers of frames: shorter services and missing
//! frames only make it earlier. With more than one place at the accelerator, batches start in the same order and
//! each no later than with one. ∎
//!
//! For one trigger, one model, l(b) = a + c * b and W = J this is, for D <= P, exactly
//! `ceil(N / B) * a + c * N <= D - J`: no schedule can do more (the last frame of N may arrive at T + J, with
//! a stamp T beside it).
//!
//! Streams that are not all triggered, periods that differ, or windows that touch: triggers are then what they
//! always are too, one of the courses of events that the theorem for free-running cameras allows.
//!
//! `tests/trigger.rs` tries it on the heart itself.

use crate::board::Stream;
use crate::sched::admission::queue_depth;
use crate::sched::guarantee::{Accelerator, Demand, Lead};
use crate::sched::phase::Due;
use crate::stream::StreamId;
use crate::time::{Instant, nanos};
use std::fmt;
use std::time::Duration;

/// What is known of the instants at which frames are captured, and was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Releases {
    /// Nothing: any phases.
    #[default]
    Free,
    /// All on one trigger.
    Aligned,
    /// On several triggers of one clock, with known offsets.
    Groups,
}

impl Releases {
    /// Its name in a plan.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Aligned => "aligned",
            Self::Groups => "groups",
        }
    }
}

/// Why streams can't be planned by their triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimed {
    /// This one (its position) has none.
    NoTrigger(usize),
    /// This one's period is not the first one's.
    Period(usize),
    /// This one's trigger fires before the frames of the trigger before it have all arrived, or has an offset
    /// or jitter that its period has no room for.
    Window(usize),
}

impl Untimed {
    /// The stream, as a position.
    #[must_use]
    pub const fn stream(self) -> usize {
        match self {
            Self::NoTrigger(stream) | Self::Period(stream) | Self::Window(stream) => stream,
        }
    }
}

impl fmt::Display for Untimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTrigger(_) => "has no trigger",
            Self::Period(_) => "has another period than the first one",
            Self::Window(_) => {
                "is on a trigger that fires before all frames of the trigger before it can have arrived"
            }
        })
    }
}

/// One trigger and its streams. Times in nanoseconds.
#[derive(Clone, Debug)]
struct Group<'b> {
    id: &'b str,
    offset: u64,
    jitter: u64,
    /// From the instant to the arrival of its last frame.
    window: u64,
    /// Shortest latency bound of its streams.
    bound: u64,
    /// A member, as a position.
    first: usize,
    /// Streams of each model.
    counts: Vec<u64>,
}

/// When the frames of triggered streams come.
#[derive(Clone, Debug)]
pub(super) struct Timetable<'b> {
    period: u64,
    /// By offset.
    groups: Vec<Group<'b>>,
    streams: Vec<&'b Stream>,
    /// Each stream's group, as a position.
    member: Vec<usize>,
}

impl<'b> Timetable<'b> {
    /// The timetable of these streams, whose models are among `models`.
    pub(super) fn of(streams: &[&'b Stream], models: usize) -> Result<Self, Untimed> {
        let period = streams.first().map_or(0, |stream| nanos(stream.period));
        let mut groups: Vec<Group<'b>> = Vec::new();
        let mut ids = Vec::with_capacity(streams.len());
        for (index, stream) in streams.iter().enumerate() {
            let trigger = stream.trigger.as_ref().ok_or(Untimed::NoTrigger(index))?;
            if nanos(stream.period) != period {
                return Err(Untimed::Period(index));
            }
            let (offset, jitter) = (nanos(trigger.offset), nanos(trigger.jitter));
            if offset >= period || jitter.saturating_mul(2) >= period {
                return Err(Untimed::Window(index));
            }
            let bound = nanos(stream.latency_bound);
            let id = trigger.id.as_str();
            let at = groups.iter().position(|group| group.id == id).unwrap_or_else(|| {
                let counts = vec![0; models];
                groups.push(Group { id, offset, jitter, window: 0, bound, first: index, counts });
                groups.len() - 1
            });
            let group = &mut groups[at];
            group.window = group.window.max(jitter.saturating_add(nanos(Demand::travel(stream))));
            group.bound = group.bound.min(bound);
            group.counts[stream.model.index()] += 1;
            ids.push(id);
        }
        groups.sort_by_key(|group| group.offset);
        for (index, group) in groups.iter().enumerate() {
            let next = groups.get(index + 1).map_or(period + groups[0].offset, |next| next.offset);
            if group.offset.saturating_add(group.window) >= next {
                let after = groups[(index + 1) % groups.len()].first;
                return Err(Untimed::Window(after));
            }
        }
        let place = |id: &&str| groups.iter().position(|group| group.id == *id);
        let member = ids.iter().filter_map(place).collect();
        Ok(Self { period, groups, streams: streams.to_vec(), member })
    }

    pub(super) fn releases(&self) -> Releases {
        if self.groups.len() == 1 { Releases::Aligned } else { Releases::Groups }
    }

    /// The longest response of each stream's frames from their stamp to the end of their batch, and the lead with which
    /// none exceeds its limit; or a stream (its position) whose response does.
    pub(super) fn responses(&self, accelerator: &Accelerator) -> Result<(Vec<u64>, Lead), Exceeded> {
        let responses = self.ends(accelerator)?;
        let mut first = None;
        for lead in accelerator.leads(&self.streams, |decoding| decoding.most) {
            let limits = self.streams.iter().map(|stream| limit(stream, lead));
            let mut each = responses.iter().zip(limits).enumerate();
            let Some((stream, (&response, limit))) = each.find(|(_, (response, limit))| **response > *limit)
            else {
                return Ok((responses, lead));
            };
            first.get_or_insert(Exceeded { stream, response, limit });
        }
        // There is at least one lead.
        Err(first.unwrap_or(Exceeded { stream: 0, response: 0, limit: 0 }))
    }

    /// The longest response of each stream's frames.
    fn ends(&self, accelerator: &Accelerator) -> Result<Vec<u64>, Exceeded> {
        let groups = &self.groups;
        if let Some(group) = groups.iter().find(|group| !runs(accelerator, group)) {
            return Err(Exceeded { stream: group.first, response: u64::MAX, limit: self.period });
        }
        let work = |group: &Group<'_>| work(accelerator, &group.counts);
        let busy: u64 = groups.iter().map(work).fold(0, u64::saturating_add);
        if busy > self.period {
            let stream = groups.last().map_or(0, |group| group.first);
            return Err(Exceeded { stream, response: busy, limit: self.period });
        }
        let mut responses = vec![0; groups.len()];
        // What is left of the period before has gone round once after the first; with no more work than the
        // period has room for, going round does not make it longer.
        let mut before = 0;
        for round in 0..2 {
            for (index, group) in groups.iter().enumerate() {
                let Group { offset, jitter, window, .. } = *group;
                let complete = work(group);
                responses[index] = window.max(before.max(offset) - offset).saturating_add(complete);
                let all = before.max(offset + window).saturating_add(complete);
                let some = before.max(offset + jitter + window).saturating_add(lacking(accelerator, group));
                before = all.max(some);
            }
            if round == 0 {
                before = before.saturating_sub(self.period);
            }
        }
        Ok(self.member.iter().map(|&group| responses[group]).collect())
    }

    /// The gate for these streams, whose identities are `ids`, on a board of `streams`.
    pub(super) fn gate(&self, ids: &[StreamId], streams: usize) -> Gate {
        let mut trigger = vec![None; streams];
        for (id, &group) in ids.iter().zip(&self.member) {
            trigger[id.index()] = Some(group);
        }
        let instants = self.groups.iter().enumerate().map(|(index, group)| {
            let members = ids.iter().zip(&self.member).filter(|&(_, &member)| member == index);
            InstantOf {
                members: members.map(|(&id, _)| id).collect(),
                jitter: Duration::from_nanos(group.jitter),
                window: Duration::from_nanos(group.window),
                bound: Duration::from_nanos(group.bound),
                let_go: None,
            }
        });
        Gate { trigger, instants: instants.collect(), absent: vec![None; streams] }
    }
}

/// Longest response, from a frame's stamp to the end of its batch, with which nothing is late or superseded.
fn limit(stream: &Stream, lead: Lead) -> u64 {
    let jitter = stream.trigger.as_ref().map_or(0, |trigger| nanos(trigger.jitter));
    let in_queue = nanos(stream.period).saturating_mul(queue_depth(stream) as u64).saturating_sub(jitter);
    let spacing = Demand::spacing(stream).unwrap_or(0);
    let due = nanos(stream.latency_bound).min(spacing.saturating_mul(lead.frames));
    due.saturating_sub(lead.time).min(in_queue)
}

/// Longest time from a frame's stamp to its result when its batch ends `response` after it, and by how much longer
/// it may be.
pub(super) fn answer(stream: &Stream, response: u64, lead: Lead) -> (Duration, Duration) {
    let slack = limit(stream, lead).saturating_sub(response);
    (Duration::from_nanos(response.saturating_add(lead.time)), Duration::from_nanos(slack))
}

/// A response that is too long. In nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    /// Whose, as a position.
    pub(super) stream: usize,
    pub(super) response: u64,
    pub(super) limit: u64,
}

/// Whether the accelerator runs all of a group's models.
fn runs(accelerator: &Accelerator, group: &Group<'_>) -> bool {
    group.counts.iter().enumerate().all(|(model, &jobs)| jobs == 0 || accelerator.cap(model) > 0)
}

/// Service of the batches of this many jobs of each model.
fn work(accelerator: &Accelerator, counts: &[u64]) -> u64 {
    let each = counts.iter().enumerate().map(|(model, &jobs)| {
        let cap = accelerator.cap(model).max(1);
        let full = (jobs / cap).saturating_mul(accelerator.service(model, cap));
        full.saturating_add(accelerator.service(model, jobs % cap))
    });
    each.fold(0, u64::saturating_add)
}

/// The most work that an instant can have with a frame missing.
fn lacking(accelerator: &Accelerator, group: &Group<'_>) -> u64 {
    let mut counts = group.counts.clone();
    let mut most = 0;
    for model in 0..counts.len() {
        if counts[model] > 0 {
            counts[model] -= 1;
            most = most.max(work(accelerator, &counts));
            counts[model] += 1;
        }
    }
    most
}

/// Lets the frames of an instant go together.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Each stream's trigger, as a position in `instants`; `None`: it is not served.
    trigger: Vec<Option<usize>>,
    instants: Vec<InstantOf>,
    /// Each stream's newest frame that is not going to wait here.
    absent: Vec<Option<Instant>>,
}

/// A trigger's newest instant.
#[derive(Clone, Debug)]
struct InstantOf {
    members: Vec<StreamId>,
    jitter: Duration,
    window: Duration,
    /// The shortest latency bound.
    bound: Duration,
    /// Frames stamped up to here are not held.
    let_go: Option<Instant>,
}

impl Gate {
    /// A stream's frame with this stamp was left out or lost: its instant is complete without it.
    pub(super) fn absent(&mut self, stream: StreamId, stamp: Instant) {
        self.absent[stream.index()] = Some(stamp);
    }

    /// Asks whether the instant of the first waiting frame, stream and stamp, may start at `now`; `oldest` tells
    /// the stamp of a stream's oldest waiting frame. Its deadline if it may, else until when it is held, and for
    /// how many frames.
    /// Where the accelerator has to be free by `latest`, frames are not waited for beyond it.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        (stream, stamp): (StreamId, Instant),
        latest: Option<Instant>,
        oldest: impl Fn(StreamId) -> Option<Instant>,
    ) -> Result<Instant, (Instant, usize)> {
        let Some(group) = self.trigger[stream.index()] else { return Ok(now) };
        let instant = &self.instants[group];
        let deadline = stamp + instant.bound;
        if instant.let_go.is_none_or(|end| stamp > end) {
            let (until, end) = (stamp + instant.window, stamp + instant.jitter);
            if now < until && latest.is_none_or(|latest| until <= latest) {
                let missing = self.missing((stream, stamp), oldest);
                if missing > 0 {
                    return Err((until, missing));
                }
            }
            self.instants[group].let_go = Some(end);
        }
        Ok(deadline)
    }

    /// How many frames have not come of the instant of the first waiting frame; `oldest` as for [`Gate::ask`].
    pub(super) fn missing(
        &self,
        (stream, stamp): (StreamId, Instant),
        oldest: impl Fn(StreamId) -> Option<Instant>,
    ) -> usize {
        let Some(group) = self.trigger[stream.index()] else { return 0 };
        let instant = &self.instants[group];
        // Stamps of one instant lie within its jitter, the first one's included.
        let (from, end) = (stamp.saturating_sub(instant.jitter), stamp + instant.jitter);
        let left_out =
            |member: StreamId| self.absent[member.index()].is_some_and(|stamp| (from..=end).contains(&stamp));
        let there = |member: StreamId| oldest(member).is_some_and(|stamp| stamp <= end) || left_out(member);
        instant.members.iter().filter(|&&member| !there(member)).count()
    }

    /// When all frames of the first instant should have come, of those that are due.
    pub(super) fn next_there(&self, due: impl Iterator<Item = (StreamId, Due)> + Clone) -> Option<Instant> {
        let (stream, first) = due.clone().min_by_key(|(_, due)| due.stamp)?;
        let its = due.filter(|(other, due)| self.shares((stream, first.stamp), (*other, due.stamp)));
        its.map(|(_, due)| due.arrival).max()
    }

    /// Whether a frame is of the same instant as `first`, which no waiting frame is before.
    pub(super) fn shares(&self, first: (StreamId, Instant), (stream, stamp): (StreamId, Instant)) -> bool {
        let group = self.trigger[first.0.index()];
        let jitter = group.map_or(Duration::ZERO, |group| self.instants[group].jitter);
        group == self.trigger[stream.index()] && stamp <= first.1 + jitter
    }

    /// Whether a frame belongs to the instant that was let go for `first`.
    pub(super) fn is_of(&self, first: StreamId, stream: StreamId, stamp: Instant) -> bool {
        let group = self.trigger[first.index()];
        let end = group.and_then(|group| self.instants[group].let_go);
        group == self.trigger[stream.index()] && end.is_none_or(|end| stamp <= end)
    }
}
