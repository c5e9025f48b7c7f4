//! The first admission: utilisation.
//!
//! A stream needs the share `min l(b)/b / P` of the accelerator, over the batch sizes b whose service time
//! fits its latency bound. Streams are taken by criticality, then in the board's order, while the shares add
//! up to at most one. This is necessary, not sufficient (no batch need ever be full): so it comes with no
//! guarantee, and says so.

use crate::board::{Board, Stream};
use crate::sched::Profile;
use crate::stream::{Criticality, ModelId, StreamId};
use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

/// Time kept free before a deadline for decoding and publishing. Both are bounded (capped candidates, a push
/// into rings) and measured at tens of microseconds a frame; the rest is the hand-over between threads.
const TAIL: Duration = Duration::from_micros(500);

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
    /// The critical streams that do not fit, by name, and the share of the accelerator each would need;
    /// `None` when not even a batch of one is done within its bound.
    pub streams: Vec<(String, Option<f64>)>,
    /// Critical streams on the board.
    pub critical: usize,
    /// How many of them fit.
    pub fits: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} critical streams fit on this accelerator", self.fits, self.critical)?;
        for (id, share) in &self.streams {
            match share {
                Some(share) => write!(f, "; {id} would need {:.0} % of it", share * 100.0)?,
                None => write!(f, "; {id} cannot be served within its latency bound even alone")?,
            }
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
        let max_batch = board.accelerator.max_batch;
        let mut order: Vec<usize> = (0..board.streams.len()).collect();
        order.sort_by_key(|&index| Reverse(board.streams[index].criticality));
        let mut served = vec![false; board.streams.len()];
        let mut utilisation = 0.0;
        let mut refusal = Refusal { streams: Vec::new(), critical: 0, fits: 0 };
        for index in order {
            let stream = &board.streams[index];
            let share = share(stream, &profile, max_batch);
            served[index] = share.is_some_and(|share| utilisation + share <= 1.0);
            if served[index] {
                utilisation += share.unwrap_or(0.0);
            }
            if stream.criticality == Criticality::Critical {
                refusal.critical += 1;
                if served[index] {
                    refusal.fits += 1;
                } else {
                    refusal.streams.push((stream.id.clone(), share));
                }
            }
        }
        if !refusal.streams.is_empty() {
            return Err(refusal);
        }
        let streams = board
            .streams
            .iter()
            .zip(served)
            .map(|(stream, served)| Admitted {
                period: stream.period,
                latency_bound: stream.latency_bound,
                model: stream.model,
                stale_results: stream.stale_results,
                served,
                depth: queue_depth(stream),
            })
            .collect();
        Ok(Self { streams, profile, utilisation, max_batch })
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

/// Share of the accelerator that a stream needs at best; `None` when its bound is too short for any batch.
fn share(stream: &Stream, profile: &Profile, max_batch: u16) -> Option<f64> {
    (1..=max_batch)
        .filter_map(|jobs| {
            let planned = profile.service(stream.model, jobs)?.planned;
            (planned + TAIL <= stream.latency_bound).then(|| planned.as_secs_f64() / f64::from(jobs))
        })
        .min_by(f64::total_cmp)
        .map(|per_job| per_job / stream.period.as_secs_f64())
}
