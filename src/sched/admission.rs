//! Admission: which streams are served.
//!
//! With a stored profile, by the guarantee ([`super::guarantee`]): streams are taken by criticality, then in
//! the board's order, as long as every frame of every stream taken is certain to be in time.
//!
//! With a provisional profile, by utilisation: a stream needs the share `min l(b)/b / P` of the accelerator,
//! over the batch sizes b whose service time fits its latency bound, and streams are taken while the shares
//! add up to at most one. This is necessary, not sufficient (no batch need ever be full): so it comes with
//! no guarantee, and says so.

use crate::board::{Board, Stream};
use crate::sched::Profile;
use crate::sched::guarantee::{Accelerator, Demand};
use crate::stream::{Criticality, ModelId, StreamId};
use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

/// Time kept free before a deadline for decoding and publishing. Both are bounded (capped candidates, a push
/// into rings) and measured at tens of microseconds a frame; the rest is the hand-over between threads.
pub(super) const TAIL: Duration = Duration::from_micros(500);

/// What the scheduler knows of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Shortest time between frames.
    pub period: Duration,
    /// Results must be out this long after capture.
    pub latency_bound: Duration,
    /// The network for its frames.
    pub model: ModelId,
    /// Whether results after the deadline are wanted.
    pub stale_results: bool,
    /// Whether its frames are served at all; false: shed.
    pub served: bool,
    /// Frames that may wait at once: with a bound longer than the period, older ones can still be met.
    pub depth: usize,
}

/// An admitted board. The only way to a scheduler.
#[derive(Clone, Debug)]
pub struct Schedule {
    streams: Vec<Admitted>,
    profile: Profile,
    utilisation: f64,
    max_batch: u16,
}

/// A board that is not admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The critical streams that do not fit, by name, and what each lacks.
    pub streams: Vec<(String, Lack)>,
    /// Critical streams on the board.
    pub critical: usize,
    /// How many of them fit.
    pub fits: usize,
}

/// What a stream lacks to be admitted beside those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lack {
    /// Not even a batch of one is done within its bound: it would have to be this long, where that is known.
    Bound(Option<Duration>),
    /// Time between its frames, or between their arrival and their deadline: with the jitter and the delay
    /// that the board states for it there may be none.
    Spacing,
    /// This share of the accelerator.
    Share(f64),
    /// With it, some stream's frames (this one's or another's) could take longer to be answered than they may.
    Time {
        /// How long, from arrival to the end of their batch.
        response: Duration,
        /// How long they may.
        limit: Duration,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(None) => f.write_str("cannot be served within its latency bound even alone"),
            Self::Bound(Some(least)) => {
                write!(f, "cannot be served within its latency bound even alone; {} ms would do", ms(*least))
            }
            Self::Spacing => f.write_str(
                "may deliver frames all at once or after their deadline, by the jitter and latency of its source",
            ),
            Self::Share(share) => write!(f, "would need {:.0} % of it", share * 100.0),
            Self::Time { response, limit } => {
                let (response, limit) = (ms(*response), ms(*limit));
                write!(f, "would let responses of {response} ms happen where {limit} ms are allowed")
            }
        }
    }
}

/// Milliseconds, two decimals, rounded up: what is said to be enough must be.
fn ms(d: Duration) -> String {
    format!("{:.2}", d.as_nanos().div_ceil(10_000) as f64 / 100.0)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} critical streams fit on this accelerator", self.fits, self.critical)?;
        for (id, lack) in &self.streams {
            write!(f, "; {id} {lack}")?;
        }
        f.write_str(": raise period_ms or latency_bound_ms, choose a cheaper model, or give up streams")
    }
}

impl std::error::Error for Refusal {}

impl Schedule {
    /// Admits a board's streams on an accelerator with this profile. Streams that are not critical and do
    /// not fit are in the schedule as not served.
    ///
    /// # Errors
    /// When critical streams do not fit, with the number that does.
    pub fn admit(board: &Board, profile: Profile) -> Result<Self, Refusal> {
        let lacks = if profile.provisional { by_share(board, &profile) } else { guaranteed(board, &profile) };
        let critical = |index: usize| board.streams[index].criticality == Criticality::Critical;
        let refused: Vec<_> = (0..lacks.len())
            .filter(|&index| critical(index))
            .filter_map(|index| Some((board.streams[index].id.clone(), lacks[index]?)))
            .collect();
        if !refused.is_empty() {
            let critical = (0..lacks.len()).filter(|&index| critical(index)).count();
            return Err(Refusal { fits: critical - refused.len(), critical, streams: refused });
        }
        let utilisation = board.streams.iter().zip(&lacks).filter(|(_, lack)| lack.is_none());
        let utilisation =
            utilisation.filter_map(|(stream, _)| share(stream, &profile, board.accelerator.max_batch)).sum();
        let streams = board.streams.iter().zip(lacks).map(|(stream, lack)| Admitted {
            period: stream.period,
            latency_bound: stream.latency_bound,
            model: stream.model,
            stale_results: stream.stale_results,
            served: lack.is_none(),
            depth: queue_depth(stream),
        });
        let streams = streams.collect();
        Ok(Self { streams, profile, utilisation, max_batch: board.accelerator.max_batch })
    }

    /// Every stream of the board served, however many: **for measuring only**. Nothing is promised, critical
    /// streams included; it exists so that a bench can find out where a board stops keeping up, and what
    /// happens beyond. No run for real cameras may use it.
    #[must_use]
    pub fn overcommitted_for_measuring(board: &Board, profile: Profile) -> Self {
        let max_batch = board.accelerator.max_batch;
        let utilisation = board.streams.iter().filter_map(|stream| share(stream, &profile, max_batch)).sum();
        let streams = board.streams.iter().map(|stream| Admitted {
            period: stream.period,
            latency_bound: stream.latency_bound,
            model: stream.model,
            stale_results: stream.stale_results,
            served: true,
            depth: queue_depth(stream),
        });
        Self { streams: streams.collect(), profile, utilisation, max_batch }
    }

    /// The streams, in the board's order.
    #[must_use]
    pub fn streams(&self) -> &[Admitted] {
        &self.streams
    }

    /// One stream.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> &Admitted {
        &self.streams[id.index()]
    }

    /// Share of the accelerator that the served streams need when every batch is of its best size.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        self.utilisation
    }

    /// Whether this is a guarantee, or a first plan from a few seconds' measurement.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.profile.provisional
    }

    /// Largest number of jobs that a batch of `model`, started `budget` before its first deadline, may have
    /// so that it ends in time as planned; at least one.
    #[must_use]
    pub fn batch_within(&self, model: ModelId, budget: Duration) -> u16 {
        let cap = self.profile.max_batch(model).min(self.max_batch).max(1);
        (2..=cap)
            .rev()
            .find(|&jobs| self.profile.service(model, jobs).is_some_and(|l| l.planned + TAIL <= budget))
            .unwrap_or(1)
    }

    /// Shortest time from the start of a job's batch to its published result.
    #[must_use]
    pub fn fastest(&self, model: ModelId) -> Duration {
        self.profile.service(model, 1).map_or(Duration::ZERO, |l| l.fastest)
    }
}

/// Frames of a stream that may wait at once.
#[must_use]
pub fn queue_depth(stream: &Stream) -> usize {
    let frames = stream.latency_bound.as_nanos().div_ceil(stream.period.as_nanos().max(1));
    usize::try_from(frames).unwrap_or(usize::MAX).clamp(1, MAX_DEPTH)
}

/// Most frames of a stream that wait at once, however long its bound.
const MAX_DEPTH: usize = 8;

/// What `judge` says of each stream, asked in the order of criticality, then of the board.
fn in_order(
    board: &Board,
    profile: &Profile,
    mut judge: impl FnMut(&Stream, f64) -> Option<Lack>,
) -> Vec<Option<Lack>> {
    let mut order: Vec<usize> = (0..board.streams.len()).collect();
    order.sort_by_key(|&index| Reverse(board.streams[index].criticality));
    let mut lacks = vec![None; board.streams.len()];
    for index in order {
        let stream = &board.streams[index];
        lacks[index] = match share(stream, profile, board.accelerator.max_batch) {
            None => Some(Lack::Bound(least_bound(stream, profile))),
            Some(share) => judge(stream, share),
        };
    }
    lacks
}

/// For each stream what it lacks beside those taken before it, by utilisation; `None`: it is served.
fn by_share(board: &Board, profile: &Profile) -> Vec<Option<Lack>> {
    let mut used = 0.0;
    in_order(board, profile, |_, share| {
        let fits = used + share <= 1.0;
        used += if fits { share } else { 0.0 };
        (!fits).then_some(Lack::Share(share))
    })
}

/// For each stream what it lacks to be certain beside those taken before it; `None`: it is served.
pub(super) fn guaranteed(board: &Board, profile: &Profile) -> Vec<Option<Lack>> {
    let accelerator = Accelerator::new(board, profile);
    let mut taken = Vec::with_capacity(board.streams.len());
    in_order(board, profile, |stream, _| {
        let Some(demand) = Demand::of(stream) else {
            return Some(Lack::Spacing);
        };
        taken.push(demand);
        let (which, response) = accelerator.responses(&taken).err()?;
        let limit = Duration::from_nanos(taken[which].limit);
        taken.pop();
        Some(Lack::Time { response: Duration::from_nanos(response), limit })
    })
}

/// Shortest bound that a stream could have alone, when its bound is why it is not served.
fn least_bound(stream: &Stream, profile: &Profile) -> Option<Duration> {
    profile.service(stream.model, 1).map(|service| service.planned + TAIL + Demand::travel(stream))
}

/// Share of the accelerator that a stream needs at best; `None` when its bound is too short for any batch.
pub(super) fn share(stream: &Stream, profile: &Profile, max_batch: u16) -> Option<f64> {
    (1..=max_batch)
        .filter_map(|jobs| {
            let planned = profile.service(stream.model, jobs)?.planned;
            (planned + TAIL <= stream.latency_bound).then(|| planned.as_secs_f64() / f64::from(jobs))
        })
        .min_by(f64::total_cmp)
        .map(|per_job| per_job / stream.period.as_secs_f64())
}
