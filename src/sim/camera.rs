//! A camera on the virtual clock: the releases that a board asks for, and what a scenario makes of them.
//!
//! Release `k + 1` follows release `k` after the stream's period, divided by the rate and the drift at release
//! `k`; jitter moves it, and its stamp, by less than that. Nothing else moves a stamp but a jump. Frames of one
//! camera keep their order: what is behind a late frame arrives no sooner than it.

use super::scenario::{Disturbance, Event, Scenario, What};
use crate::board::{SourceSpec, Stream};
use crate::job::{DropReason, Lost};
use crate::pipeline::Pipeline;
use crate::random::Random;
use crate::stream::{StreamId, StreamState};
use crate::time::{Instant, nanos};
use std::collections::VecDeque;
use std::time::Duration;

/// Each kind of chance has numbers of its own.
const PHASE: u64 = 0x7068_6173;
const DROP: u64 = 0x6472_6f70;

/// One simulated camera.
#[derive(Debug)]
pub(super) struct Camera {
    id: StreamId,
    start: Instant,
    period: Duration,
    jitter: Duration,
    seed: u64,
    /// What the scenario does to this stream, or to all.
    events: Vec<Event>,
    /// When the source fails, the next first.
    failures: VecDeque<Instant>,
    next: Release,
    /// Lost frames that are told with the next one.
    gap: Option<Lost>,
    /// Released and not arrived, in order.
    on_the_way: VecDeque<Delivery>,
    last_arrival: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Release {
    sequence: u64,
    /// Where it would be without jitter.
    regular: Instant,
    at: Instant,
}

#[derive(Debug)]
struct Delivery {
    arrives: Instant,
    sequence: u64,
    stamp: Instant,
    /// Frames missing before it.
    gap: Option<Lost>,
}

/// What besets a stream at an instant, all events together.
struct Conditions {
    jitter: Duration,
    /// Times the board's rate.
    rate: f64,
    late: Duration,
    /// Chance that a frame arrives.
    kept: f64,
    jump: i64,
    down: bool,
}

impl Camera {
    pub(super) fn new(id: StreamId, stream: &Stream, scenario: &Scenario, seed: u64, start: Instant) -> Self {
        // A stream's own numbers, whatever other streams there are.
        let mut own = Random::at(seed, u64::from(id.0));
        let drawn = own.bits();
        let (phase, jitter, seed) = match stream.source {
            SourceSpec::Synthetic { phase, jitter, seed } => (phase, jitter, seed ^ drawn),
            SourceSpec::File { phase, .. } => (phase, Duration::ZERO, drawn),
            SourceSpec::Uri { .. } | SourceSpec::Pipeline { .. } | SourceSpec::V4l2(_) => {
                match &stream.trigger {
                    Some(trigger) => (trigger.offset, trigger.jitter, drawn),
                    None => (Random::new(drawn ^ PHASE).below(stream.period), Duration::ZERO, drawn),
                }
            }
        };
        let ours = |event: &&Event| match event.what {
            What::Stream(stream, _) => stream == id,
            What::Overload(_) => true,
            What::Slow { .. } | What::Fail | What::Hang(_) | What::Pressure(_) => false,
        };
        let events: Vec<Event> = scenario.events.iter().filter(ours).copied().collect();
        let down = |event: &&Event| event.what == What::Stream(id, Disturbance::Down);
        let mut failures: Vec<Instant> = events.iter().filter(down).map(|event| start + event.at).collect();
        failures.sort_unstable();
        let mut camera = Self {
            id,
            start,
            period: stream.period,
            jitter,
            seed,
            events,
            failures: failures.into(),
            next: Release { sequence: 0, regular: start + phase, at: start },
            gap: None,
            on_the_way: VecDeque::new(),
            last_arrival: start,
        };
        camera.next = camera.release(0, start + phase);
        camera
    }

    /// When something happens to it next.
    pub(super) fn poll_at(&self) -> Instant {
        let arrives = self.on_the_way.front().map(|delivery| delivery.arrives);
        let fails = self.failures.front().copied();
        [arrives, fails].into_iter().flatten().fold(self.next.at, Instant::min)
    }

    /// Tells `heart` everything that has happened up to `now`, in order.
    pub(super) fn act(&mut self, now: Instant, heart: &mut Pipeline<()>) {
        while self.poll_at() <= now {
            let at = self.poll_at();
            if self.failures.front() == Some(&at) {
                self.failures.pop_front();
                self.lose_all(DropReason::SourceDown, heart);
                heart.stream_changed(now, self.id, StreamState::Down, "the scenario says so");
            } else if self.next.at == at {
                self.pass_release(heart);
            } else {
                self.arrive(now, heart);
            }
        }
    }

    /// It ends: what has not arrived never will.
    pub(super) fn end(&mut self, heart: &mut Pipeline<()>) {
        self.lose_all(DropReason::Shutdown, heart);
    }

    /// What is on its way is lost, and everybody knows it. What is missing in between is lost with it: nobody
    /// would have missed it before the next frame.
    fn lose_all(&mut self, reason: DropReason, heart: &mut Pipeline<()>) {
        if let (Some(first), Some(last)) = (self.on_the_way.front(), self.on_the_way.back()) {
            let Lost { sequence, captured, .. } = first.gap.unwrap_or(Lost {
                sequence: first.sequence,
                count: 1,
                captured: first.stamp,
                reason,
            });
            let count = last.sequence + 1 - sequence;
            heart.frames_lost(self.id, Lost { sequence, count, captured, reason });
        }
        self.on_the_way.clear();
        self.gap.take().into_iter().for_each(|gap| heart.frames_lost(self.id, gap));
        self.last_arrival = self.start;
    }

    fn arrive(&mut self, now: Instant, heart: &mut Pipeline<()>) {
        if let Some(Delivery { sequence, stamp, gap, .. }) = self.on_the_way.pop_front() {
            gap.into_iter().for_each(|gap| heart.frames_lost(self.id, gap));
            heart.frame_arrived(now, self.id, sequence, stamp, ());
        }
    }

    /// A frame is released: it is on its way, or lost.
    fn pass_release(&mut self, heart: &mut Pipeline<()>) {
        let Release { sequence, regular, at } = self.next;
        self.next = self.release(sequence + 1, regular + self.spacing(&self.conditions(regular)));
        let conditions = self.conditions(at);
        let stamp = match conditions.jump {
            ahead @ 0.. => at + Duration::from_nanos(ahead.unsigned_abs()),
            back => at.saturating_sub(Duration::from_nanos(back.unsigned_abs())),
        };
        if conditions.down {
            let reason = DropReason::SourceDown;
            heart.frames_lost(self.id, Lost { sequence, count: 1, captured: stamp, reason });
        } else if Random::at(self.seed ^ DROP, sequence).unit() < conditions.kept {
            self.last_arrival = self.last_arrival.max(at + conditions.late);
            let gap = self.gap.take();
            self.on_the_way.push_back(Delivery { arrives: self.last_arrival, sequence, stamp, gap });
        } else {
            let reason = DropReason::DriverLost;
            self.gap.get_or_insert(Lost { sequence, count: 0, captured: stamp, reason }).count += 1;
        }
    }

    fn release(&self, sequence: u64, regular: Instant) -> Release {
        let conditions = self.conditions(regular);
        // Less than the time to the next one: releases never swap places.
        let jitter = conditions.jitter.min(self.spacing(&conditions));
        Release { sequence, regular, at: regular + Random::at(self.seed, sequence).below(jitter) }
    }

    /// Time to the next release.
    fn spacing(&self, conditions: &Conditions) -> Duration {
        let spacing = nanos(self.period) as f64 / conditions.rate;
        Duration::from_nanos((spacing.round() as u64).max(1))
    }

    fn conditions(&self, at: Instant) -> Conditions {
        let elapsed = at.since(self.start);
        let (jitter, late) = (self.jitter, Duration::ZERO);
        let mut all = Conditions { jitter, rate: 1.0, late, kept: 1.0, jump: 0, down: false };
        let mut fast = 0.0;
        for event in self.events.iter().filter(|event| event.is_on(elapsed)) {
            match event.what {
                What::Overload(rate) | What::Stream(_, Disturbance::Burst(rate)) => all.rate *= rate,
                What::Stream(_, Disturbance::Jitter(jitter)) => all.jitter = all.jitter.max(jitter),
                What::Stream(_, Disturbance::Drift(ppm)) => fast += ppm * 1e-6,
                What::Stream(_, Disturbance::Silent) => all.kept = 0.0,
                What::Stream(_, Disturbance::Late(late)) => all.late = all.late.max(late),
                What::Stream(_, Disturbance::Drop(share)) => all.kept *= 1.0 - share,
                What::Stream(_, Disturbance::Jump(by)) => all.jump += by,
                What::Stream(_, Disturbance::Down) => all.down = true,
                What::Slow { .. } | What::Fail | What::Hang(_) | What::Pressure(_) => {}
            }
        }
        // Drifts of many events together stay what a clock can do.
        all.rate *= (1.0 + fast).max(0.1);
        all
    }
}
