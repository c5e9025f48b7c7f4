//! The guarantee for free-running cameras: no phase is known, and none is assumed.
//!
//! # What is promised
//! Every frame of every stream in the set is answered in time, for **any** phases, any batch that takes up
//! to its planned l(b), any frame that is missing, and any jitter up to what the board states. Nothing is
//! simulated: a schedule that works for one course of events says nothing about the next (a batch that ends
//! early, a frame that is lost, and the order is another).
//!
//! # Premises
//! - Cameras are no faster than the board says: frames arrive at least `spacing` (period less jitter) apart.
//! - A free place at the accelerator is given at once (but see "Holding"), to the model of the earliest deadline, with all that
//!   waits for it up to the cap, earliest deadline first ([`crate::sched::Scheduler`]).
//! - Where several places are free at once, what waits may be shared among them: every job then starts no later,
//!   and its batch is smaller.
//! - Each of the accelerator's places needs at most l(b) for b jobs, whatever runs beside it: with several
//!   sessions, l is measured while all of them work.
//! - The thread that decodes and publishes has its CPU, and needs on average no longer for a frame than planned
//!   ([`crate::sched::Decoding`]), [`TAIL`] for what is not, and copies no pictures.
//!
//! # The lead
//! One thread decodes, batch after batch in the order in which they end. For any whole number m let a frame be due
//! min(D, m * spacing) after its arrival, where D is its time to its deadline; then at most k = min(ceil(D / spacing), m)
//! frames of a stream have arrived and are not due at any instant. The *lead* is [`TAIL`] and, for each stream, k times the
//! time that the fullest frame of its model takes. A job whose batch ends that long before it is due is out when it is.
//! *Proof.* Take the first job to be out later than due, whose batch ended at e, a lead before. What is decoded
//! from e on, up to and with this job, had arrived by e and was not out: it is not due yet at e, or would have been the
//! first. That are at most k frames of each stream. ∎ Any m will do for all streams together; that is taken with which
//! the responses fit.
//!
//! Theorem 2 is about times in which something else is wrong already, and its lead is that of usual frames: to keep a
//! crowd's time free then costs a board of 64 cameras a twentieth of what it serves. Others' frames are taken to be no
//! more than k as well: what is late is given up before it reaches the accelerator, but for streams with `stale_results`.
//!
//! # Theorem
//! Let R be the responses (arrival to end of batch) that [`Accelerator::responses`] computes. If no R exceeds its
//! stream's [`Demand::limit`], no frame misses, none is superseded, and no batch is cut short.
//!
//! *Copies.* With R < m * spacing, at most m = floor(R / spacing) + 1 jobs of a stream are outstanding
//! (waiting or running) at once. Below, n counts outstanding jobs: the sum of m over a model's streams.
//!
//! *Proof.* Consider the first instant at which a job j (model k, arrived at r) exceeds its R, is dropped, or
//! heads a batch that is cut. Before it everybody keeps to R, so the counts n hold. If a place is free at r,
//! j starts with all that waits for k: l_k(min(B, n_k)). Otherwise some batch of n0 jobs is in service on the
//! place that becomes free first, for at most l(n0) from r on. Follow that place until j runs on it (other
//! places only take work away from it). Ahead of j go jobs outstanding at r, and those of the *passers*, who
//! arrive later and have an earlier deadline: streams of shorter bound, at most floor(R_j / spacing) + 1 jobs
//! each while j waits.
//! - A batch of k without j is full, and full of jobs ahead of j: at most floor((n_k - 1 - n0 + passers) / B).
//! - A batch of another model i takes B jobs ahead of j, or all of them: at most ceil((n_i - n0) / B), and one
//!   for each passer; none is longer than l_i(min(B, n_i)).
//! - j's own batch has at most n_k jobs. Where it follows a batch of k at once, the jobs of that batch were
//!   outstanding until this instant, so their places in n_k are not yet taken again: n_k less that batch.
//!   For the same reason all that waits starts when n_k less the batch before is no more than B.
//!
//! The sum is what [`Accelerator::worst`] maximises over n0, so j ends within R. As R is at most
//! the limit, its batch fits as a whole before the deadline, which therefore cuts and drops nothing, and as
//! R < depth * spacing its queue never overflows: a contradiction. Every step is monotone in the service
//! times and in the jobs that exist: shorter services and missing frames change nothing. ∎
//!
//! # Holding
//! A free place may also be left free on purpose, for a frame that is due, as long as no waiting job is longer
//! than the *patience* x after its arrival: once a place is left free at t, every job that waits arrived at
//! t - x or later. [`Accelerator::patience`] is the largest x for which the responses, computed with
//! R = max(worst, x + clear), are within all limits; clear is the longest time from a free place to the end of
//! a waiting job's batch. *Proof.* As above, for a job j that is the first to exceed its R. If no place was
//! left free while j waited, nothing differs. Otherwise let w be the last instant at which one was: w is
//! at most x after j's arrival. From w on that place works until j runs, on jobs that are outstanding at w and
//! on passers only: the steps above without a batch in service, so j ends within clear after w. The
//! counts n use the same R. Whether a frame that is waited for comes does not matter. ∎
//!
//! For equal streams, one model and l(b) = a + c * b this is, with D less the lead: N <= B and D <= P:
//! `2a + cN <= min(D, P - J)`; D > P with two frames outstanding: `a + cN <= P` and `2(a + cN) <= D`; several
//! models, at least as many streams: `max l(n) + sum l(n) <= min(D, P - J)`. With B < N, the last batch is
//! taken as full where frames of those answered meanwhile may have joined it.
//!
//! # Theorem 2: critical streams, whatever the others do
//! Let C be the critical streams alone, each with a *target* T <= limit for its response, and let n and the
//! passers be counted over C with T in place of R. Let clear be the longest time from an instant at which a
//! place is free to the end of the batch of a critical job that waits, when that place runs critical jobs only
//! ([`Accelerator::clear`]: the sum above with n0 = 0). A batch is *foreign* if it holds a job of any other
//! stream. Let the scheduler start a foreign batch only if
//! - it takes at most beta, where beta + clear <= T for every critical stream;
//! - for every critical job that waits and is not in it: end + clear <= arrival + T;
//! - for every critical job in it: end <= arrival + T;
//!
//! and otherwise, earliest deadline first among the critical jobs, batches of these alone. If also the longest
//! response of theorem 1 within C is at most T, then no critical frame misses, however many other streams
//! there are, whatever their cameras deliver, as long as services keep to l and the critical cameras to their
//! spacing.
//!
//! *Proof.* Take the first instant at which a critical job j exceeds its target; before it the counts hold. If j
//! was in a foreign batch, the third condition is broken. Else j was in a critical one. If foreign batches
//! began after j's arrival on the place that is followed, take the last: it ended by arrival + T - clear, and
//! from there on that place ran critical batches only, until j ended, at most clear later. If none
//! began: where a foreign batch was in service at j's arrival, j ended at most beta + clear after it; otherwise
//! only critical batches were ahead of j, which is theorem 1 for C. Each way j ended by its target. ∎
//!
//! *What may come meanwhile.* beta reckons with all of C at once. Where C has one model k, a foreign batch that ends
//! at e is as harmless if, with M the number of critical jobs that wait and are not in it and of those that may
//! arrive until e (a stream's next one not before [`super::police`] lets it in, later ones a spacing apart), M <= B
//! and `e + l_k(M) <= arrival + T` for each of them. *Proof.* As above, where the last foreign batch after (or at)
//! j's arrival is such a one: at e, or when it ends before, j is outstanding with at most M - 1 others; nothing cuts
//! their batch, so that all of them run at once and j ends by e + l_k(M). Who arrives later meets critical batches
//! only, or another foreign one that was asked about it. ∎
//!
//! *As late as the bound allows.* T is shorter than the limit L where frames that pile up would take more time than the
//! longer wait gives. Where all n streams of C have one model, n <= B, l(n) is less than every spacing and 2 * l(n) is
//! at most every L, the batches of the last paragraph may reckon with L in place of T, if M <= n. *Proof.* At the end
//! of such a batch all that waits, at most n frames, starts at once, and so again and again: between two starts there
//! is less than a spacing, so that a stream has one frame more at the next, n in all, and who arrives meanwhile ends
//! twice l(n) later at the most. A place that is left free, and a foreign batch by the conditions with T, leave every job
//! that waits the time `clear` before arrival + T, whatever was before: of a stream no more frames can then wait than T
//! counts. (A foreign batch that starts after it is asked about what waits and comes by itself, M <= n once more.) ∎
//! Lateness that is never made up for leaves nothing for disturbances: [`super::guard`] keeps some time free.
//!
//! *With a gate* ([`super::trigger`]) instants are kept apart for the sake of the others only: what is critical goes with
//! the first batch, whatever its instant, as C's theorem 1 has it.
//!
//! *A place left free on purpose* ([`super::defer`], [`super::gather`], a gate) is left so for no longer than beta
//! after the decision, and not beyond arrival + T - clear of any critical job that waits. *Proof.* As above, with the
//! last instant at which the place was left free for an end of a foreign batch: who waited at the decision meets its
//! target by the second condition, who came after it by the first. ∎
//!
//! Other streams appear nowhere in it but in beta. Service times that are p times as long as planned are covered
//! while p * clear is taken for clear (and theorem 1 holds with p * l): the scheduler measures p
//! ([`super::pace`]).
//!
//! `tests/guarantee.rs` tries both on the heart itself, on random boards with as many streams as are admitted;
//! `tests/trigger.rs` tries the second with more of them, on triggers.

use crate::board::{Board, SourceSpec, Stream};
use crate::sched::admission::{Lack, MAX_DEPTH, queue_depth};
use crate::sched::profile::TAIL;
use crate::sched::{Decoding, Profile};
use crate::stream::ModelId;
use crate::time::nanos;
use std::time::Duration;

/// What a stream asks of the accelerator, counted from a frame's arrival. All in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    model: usize,
    /// Least time between two arrivals.
    spacing: u64,
    /// Longest response with which nothing is late or superseded.
    pub(super) limit: u64,
    /// Time from arrival to deadline, at least and at most (the lead included).
    earliest: u64,
    latest: u64,
}

impl Demand {
    /// `None` when no response is short enough: the bound is used up before the frame arrives, or frames may arrive at
    /// once.
    pub(super) fn of(stream: &Stream, lead: Lead) -> Option<Self> {
        let late = delivery_jitter(stream);
        let spacing = Self::spacing(stream).filter(|&spacing| spacing > 0)?;
        let earliest = nanos(stream.latency_bound).checked_sub(nanos(Self::travel(stream)))?;
        let in_queue = spacing.saturating_mul(queue_depth(stream) as u64) - 1;
        let due = earliest.min(spacing.saturating_mul(lead.frames));
        let limit = due.checked_sub(lead.time).filter(|&limit| limit > 0)?.min(in_queue);
        Some(Self { model: stream.model.index(), spacing, limit, earliest, latest: earliest + nanos(late) })
    }

    /// Least time between two arrivals.
    pub(super) fn spacing(stream: &Stream) -> Option<u64> {
        // What a trigger allows is allowed here too.
        nanos(stream.period).checked_sub(nanos(Self::jitter(stream)))
    }

    /// Most frames that have arrived and whose deadline has not passed.
    fn outstanding(stream: &Stream) -> u64 {
        let spacing = Self::spacing(stream).unwrap_or(0);
        if spacing == 0 { 1 } else { nanos(stream.latency_bound).div_ceil(spacing).max(1) }
    }

    /// By how much less than a period apart two frames may arrive.
    pub(super) fn jitter(stream: &Stream) -> Duration {
        let spread = match &stream.source {
            SourceSpec::Synthetic { jitter, .. } => *jitter,
            SourceSpec::File { .. }
            | SourceSpec::Uri { .. }
            | SourceSpec::Pipeline { .. }
            | SourceSpec::V4l2(_) => Duration::ZERO,
        };
        let spread = stream.trigger.as_ref().map_or(spread, |trigger| spread.max(trigger.jitter));
        spread + delivery_jitter(stream)
    }

    /// Longest time from a frame's capture to its arrival.
    pub(super) fn travel(stream: &Stream) -> Duration {
        let buffered = match &stream.source {
            // The stamp lies before the jitter buffer, the arrival behind it.
            SourceSpec::Uri { latency, .. } => *latency,
            // Drivers may stamp the start of a frame, which is there when all of it has come.
            SourceSpec::V4l2(_) => stream.period,
            SourceSpec::Synthetic { .. } | SourceSpec::File { .. } | SourceSpec::Pipeline { .. } => {
                Duration::ZERO
            }
        };
        buffered + delivery_jitter(stream)
    }
}

/// How much later than others a frame may be delivered without a later stamp.
fn delivery_jitter(stream: &Stream) -> Duration {
    stream.faults.as_ref().map_or(Duration::ZERO, |faults| faults.jitter)
}

/// How long before a frame is due its batch has to end, in nanoseconds, and how many frames of a stream are not due at
/// once. See "The lead".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) time: u64,
    pub(super) frames: u64,
}

/// Streams that fit, whatever their phases.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub(super) demands: Vec<Demand>,
    /// Each stream's longest response, in nanoseconds from arrival to the end of its batch.
    pub(super) responses: Vec<u64>,
    pub(super) lead: Lead,
}

/// What every model needs, as planned.
#[derive(Clone, Debug)]
pub(super) struct Accelerator {
    /// Service times, by batch size from 1 to the cap.
    services: Vec<Vec<u64>>,
    /// Decoding of a frame.
    decodings: Vec<Decoding>,
}

impl Accelerator {
    pub(super) fn new(board: &Board, profile: &Profile) -> Self {
        let models = 0..board.models.len();
        let services = models.map(|index| {
            let model = ModelId(index as u8);
            let cap = profile.max_batch(model).min(board.accelerator.max_batch);
            let sizes = (1..=cap).filter_map(|jobs| profile.service(model, jobs));
            sizes.map(|service| nanos(service.planned)).collect()
        });
        let decodings = (0..board.models.len()).map(|index| profile.decoding(ModelId(index as u8)));
        Self { services: services.collect(), decodings: decodings.collect() }
    }

    /// The leads that these streams may be planned with where a frame takes as long to decode as `time` says; at least one,
    /// the first with as many frames as there can be, or as may wait.
    pub(super) fn leads(
        &self,
        streams: &[&Stream],
        time: impl Fn(&Decoding) -> Duration,
    ) -> impl Iterator<Item = Lead> {
        let most = streams.iter().map(|stream| Demand::outstanding(stream)).max().unwrap_or(1);
        let takes_time = self.decodings.iter().any(|decoding| !time(decoding).is_zero());
        // Where it takes none, fewer frames would only be due sooner.
        let (least, most) = if takes_time { (1, most.min(MAX_DEPTH as u64)) } else { (most, most) };
        (least..=most).rev().map(move |frames| {
            let each = streams.iter().map(|stream| {
                let models = [Some(stream.model), stream.watch.cheaper_model].into_iter().flatten();
                let longest = models.map(|model| nanos(time(&self.decodings[model.index()]))).max();
                longest.unwrap_or(0).saturating_mul(Demand::outstanding(stream).min(frames))
            });
            Lead { time: each.fold(nanos(TAIL), u64::saturating_add), frames }
        })
    }

    /// Whether these streams fit, and if not, what the last one lacks.
    pub(super) fn fit(&self, streams: &[&Stream]) -> Result<Fit, Lack> {
        let mut lack = None;
        for lead in self.leads(streams, |decoding| decoding.most) {
            let demands: Option<Vec<Demand>> =
                streams.iter().map(|stream| Demand::of(stream, lead)).collect();
            let Some(demands) = demands else {
                let nothing = Lead { time: nanos(TAIL), ..lead };
                let spaced = streams.iter().all(|stream| Demand::of(stream, nothing).is_some());
                let decoding = Lack::Decoding(Duration::from_nanos(lead.time));
                lack.get_or_insert(if spaced { decoding } else { Lack::Spacing });
                continue;
            };
            match self.responses(&demands) {
                Ok(responses) => return Ok(Fit { demands, responses, lead }),
                Err((which, response)) => {
                    let limit = Duration::from_nanos(demands[which].limit);
                    lack.get_or_insert(Lack::Time { response: Duration::from_nanos(response), limit });
                }
            }
        }
        Err(lack.unwrap_or(Lack::Spacing))
    }

    pub(super) fn cap(&self, model: usize) -> u64 {
        self.services[model].len() as u64
    }

    /// Models of the board.
    pub(super) fn models(&self) -> usize {
        self.services.len()
    }

    /// l(jobs), of the largest batch where there are more; 0 for no jobs.
    pub(super) fn service(&self, model: usize, jobs: u64) -> u64 {
        match jobs.min(self.cap(model)) {
            0 => 0,
            jobs => self.services[model][jobs as usize - 1],
        }
    }

    /// Longest response of a job of `model` when `outstanding` jobs of each model may be outstanding (this
    /// one included), and `passers` of each may overtake it. See the theorem.
    fn worst(&self, model: usize, outstanding: &[u64], passers: &[u64]) -> u64 {
        let (all, cap) = (outstanding[model], self.cap(model));
        let mut worst = self.service(model, all);
        for (first, &there) in outstanding.iter().enumerate() {
            let most = (there - u64::from(first == model)).min(self.cap(first));
            for running in 1..=most {
                let mut others = 0;
                for (other, &there) in outstanding.iter().enumerate().filter(|&(other, _)| other != model) {
                    let waiting = there - if first == other { running } else { 0 };
                    let batches =
                        if there == 0 { 0 } else { waiting.div_ceil(self.cap(other)) + passers[other] };
                    others = batches.saturating_mul(self.service(other, there)).saturating_add(others);
                }
                let follows = first == model && others == 0;
                let ahead = all - 1 - if first == model { running } else { 0 } + passers[model];
                let mut full = ahead / cap;
                if all - if follows { running } else { 0 } <= cap {
                    full = 0;
                } else if follows && all <= 2 * cap {
                    full = full.min(1);
                }
                let before = match (follows, full) {
                    (false, _) => 0,
                    (true, 0) => running,
                    (true, _) => cap,
                };
                let own = full.saturating_mul(self.service(model, cap));
                let last = self.service(model, all - before);
                let [first, rest] = [self.service(first, running) + last, others.saturating_add(own)];
                worst = worst.max(first.saturating_add(rest));
            }
        }
        worst
    }

    /// Longest time from an instant at which a place is free to the end of the batch of a job that waits. See
    /// theorem 2.
    fn clear(&self, model: usize, outstanding: &[u64], passers: &[u64]) -> u64 {
        let (all, cap) = (outstanding[model], self.cap(model));
        let others = (0..outstanding.len()).filter(|&other| other != model && outstanding[other] > 0);
        let others = others.map(|other| {
            let batches = outstanding[other].div_ceil(self.cap(other)) + passers[other];
            batches.saturating_mul(self.service(other, outstanding[other]))
        });
        let others = others.fold(0, u64::saturating_add);
        let (mut full, mut last) = (0, all);
        if all > cap {
            full = (all - 1 + passers[model]) / cap;
            // As in the theorem, where the last batch follows one of the same model.
            if others == 0 {
                last = all - cap;
                full = if all <= 2 * cap { 1 } else { full };
            }
        }
        let own = full.saturating_mul(self.service(model, cap));
        own.saturating_add(self.service(model, last)).saturating_add(others)
    }

    /// Asks `question` (model, outstanding, passers) for every stream, when responses are at most these; its
    /// answers, or the first stream whose answer exceeds its limit.
    fn each(
        &self,
        demands: &[Demand],
        responses: &[u64],
        question: impl Fn(usize, &[u64], &[u64]) -> u64,
    ) -> Result<Vec<u64>, (usize, u64)> {
        let mut outstanding = vec![0; self.services.len()];
        for (index, (demand, response)) in demands.iter().zip(responses).enumerate() {
            if self.cap(demand.model) == 0 {
                return Err((index, u64::MAX));
            }
            outstanding[demand.model] += response / demand.spacing + 1;
        }
        let mut answers: Vec<u64> = Vec::with_capacity(demands.len());
        for (index, (demand, response)) in demands.iter().zip(responses).enumerate() {
            // Equal streams have equal answers.
            if index > 0 && demands[index - 1] == *demand && responses[index - 1] == *response {
                answers.push(answers[index - 1]);
                continue;
            }
            let mut passers = vec![0; self.services.len()];
            for (position, other) in demands.iter().enumerate() {
                if position != index && other.earliest < demand.latest {
                    passers[other.model] += response / other.spacing + 1;
                }
            }
            let answer = question(demand.model, &outstanding, &passers);
            if answer > demand.limit {
                return Err((index, answer));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The longest response of each stream's frames, in nanoseconds from arrival to the end of their batch;
    /// the first stream (its position) that exceeds its limit, and by what response, if one does.
    fn responses(&self, demands: &[Demand]) -> Result<Vec<u64>, (usize, u64)> {
        self.fixed_point(demands, |model, all, passers| self.worst(model, all, passers))
    }

    /// Longest time after a job's arrival for which a place may be left free on purpose: see "Holding".
    pub(super) fn patience(&self, demands: &[Demand]) -> Duration {
        let (mut safe, mut most) = (0, demands.iter().map(|demand| demand.limit).min().unwrap_or(0));
        // To a thousandth of the shortest limit.
        let enough = most / 1024;
        while most - safe > enough.max(1) {
            let middle = safe.midpoint(most);
            if self.responses_held(demands, middle).is_ok() {
                safe = middle;
            } else {
                most = middle;
            }
        }
        Duration::from_nanos(safe)
    }

    /// [`Accelerator::responses`] when places may be left free on purpose for `held` after a job's arrival.
    fn responses_held(&self, demands: &[Demand], held: u64) -> Result<Vec<u64>, (usize, u64)> {
        self.fixed_point(demands, |model, all, passers| {
            let after = held.saturating_add(self.clear(model, all, passers));
            self.worst(model, all, passers).max(after)
        })
    }

    /// The least responses that the question answers with themselves.
    fn fixed_point(
        &self,
        demands: &[Demand],
        question: impl Fn(usize, &[u64], &[u64]) -> u64,
    ) -> Result<Vec<u64>, (usize, u64)> {
        let mut responses = vec![0; demands.len()];
        loop {
            let next = self.each(demands, &responses, &question)?;
            if next == responses {
                return Ok(responses);
            }
            responses = next;
        }
    }

    /// For critical streams, target and clear of theorem 2, in nanoseconds: of the targets that are tried those that leave room
    /// for a batch of `one`, then for one of `full` where everything takes twice as long as planned (for less than
    /// one of `one` it is none), then otherwise. `None` where the streams are not certain to be in time even alone.
    pub(super) fn reserves(&self, demands: &[Demand], one: u64, full: u64) -> Option<Vec<(u64, u64)>> {
        let worst = |model, all: &[u64], passers: &[u64]| self.worst(model, all, passers);
        // Long targets are lenient to others, and let more frames of a stream pile up: with each of these one
        // less may.
        let lenient = (1..=MAX_DEPTH as u64).rev().filter_map(|frames| {
            let target = |demand: &Demand| demand.limit.min(demand.spacing.saturating_mul(frames) - 1);
            let targets: Vec<u64> = demands.iter().map(target).collect();
            let worsts = self.each(demands, &targets, worst).ok()?;
            worsts.iter().zip(&targets).all(|(worst, target)| worst <= target).then_some(targets)
        });
        let strict = self.fixed_point(demands, |model, all, passers| {
            let behind = self.clear(model, all, passers).saturating_add(one);
            self.worst(model, all, passers).max(behind)
        });
        let tried = lenient.chain(strict).chain(self.responses(demands));
        let reserves = tried.filter_map(|targets| {
            let clears = self.each(demands, &targets, |model, all, passers| self.clear(model, all, passers));
            let pairs = targets.into_iter().zip(clears.ok()?);
            let reserves: Vec<_> = pairs.collect();
            let room = |pace: u64| {
                let rooms = reserves.iter().map(|&(target, clear)| target.checked_sub(pace * clear));
                rooms.min().unwrap_or(Some(u64::MAX)).unwrap_or(0)
            };
            let certain = reserves.iter().all(|(target, clear)| clear <= target);
            // What takes no batch then is no reason to leave less room for them as planned.
            let slow = if room(2) < 2 * one { 0 } else { room(2).min(2 * full) };
            let score = [room(1).min(one), slow, room(1).min(full)];
            certain.then_some((score, reserves))
        });
        // Of equals the first.
        reserves.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, reserves)| reserves)
    }

    /// Reserves for critical streams that are not certain to be in time: as if each had one frame at a time, and
    /// a batch held all.
    pub(super) fn hopes(&self, demands: &[Demand]) -> Vec<(u64, u64)> {
        let mut streams = vec![0; self.services.len()];
        demands.iter().for_each(|demand| streams[demand.model] += 1);
        let hope = |demand: &Demand| (demand.limit, self.service(demand.model, streams[demand.model]));
        demands.iter().map(hope).collect()
    }
}
