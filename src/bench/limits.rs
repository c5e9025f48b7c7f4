//! What the number of streams is held against.

use crate::bench::Bare;
use crate::board::{Board, MAX_STREAMS, SourceSpec};
use crate::runtime::{Choice, Measured, Timing};
use crate::sched::{Fits, Profile};
use crate::time::nanos;
use std::time::Duration;

/// Numbers of streams like the board's, from service times measured in the same session.
#[derive(Clone, Debug)]
pub struct Limits {
    /// No scheduler can serve more: `U* = floor(P * max { b / l(b) : l(b) <= D })`, with the median l.
    pub upper: usize,
    /// So many are guaranteed for any phases, with the 99.9 % quantile of l and a twentieth more.
    pub admitted: usize,
    /// For equal streams released all at once, one batch at a time and D <= P, the exact limit with the median
    /// l: whole batches and the rest, one after the other, done by D less the jitter.
    pub aligned: Option<usize>,
    /// So many a bare loop could compute at its best batch size, whatever their deadlines.
    pub bare_loop: usize,
    /// The bare loop.
    pub bare: Bare,
    /// Half of the batches took no longer, by batch size, for each model; of the slowest unit that is used.
    pub median: Vec<Vec<(u16, Duration)>>,
    /// What is done with the accelerator's units beside the first, where there are any.
    pub units: Option<String>,
}

impl Limits {
    /// With the units that are used, by the choice that was made by [`Timing::careful`].
    pub(super) fn new(template: &Board, measured: &Measured, bare: Bare, choice: &Choice) -> Self {
        let half = |timing: &Timing| timing.p50_ns;
        let median = measured.profile(choice.used, half, false);
        let tables = measured.arrangements[choice.used].services(half).into_iter();
        let tables =
            tables.map(|table| table.into_iter().map(|(jobs, service)| (jobs, service.planned)).collect());
        Self {
            upper: Fits::new(template, &median).upper_bound,
            admitted: choice.candidates[choice.used].fits.max_streams,
            aligned: if median.places == 1 { aligned(template, &median) } else { None },
            bare_loop: bare.streams(template, MAX_STREAMS),
            bare,
            median: tables.collect(),
            units: choice.said(),
        }
    }

    /// Where a search begins: a little below what capacity allows.
    pub(super) fn start(&self, most: usize) -> usize {
        let capacity = self.upper.min(self.bare_loop);
        (capacity * 9 / 10).max(self.admitted).clamp(1, most.max(1))
    }
}

fn aligned(board: &Board, profile: &Profile) -> Option<usize> {
    let first = board.streams.first()?;
    let jitter = match &first.source {
        SourceSpec::Synthetic { jitter, .. } => *jitter,
        SourceSpec::File { .. }
        | SourceSpec::Uri { .. }
        | SourceSpec::Pipeline { .. }
        | SourceSpec::V4l2(_) => Duration::ZERO,
    };
    let equal = board.streams.iter().all(|stream| {
        (stream.period, stream.latency_bound, stream.model)
            == (first.period, first.latency_bound, first.model)
    });
    let budget = first.latency_bound.checked_sub(jitter)?;
    if !equal || first.latency_bound > first.period {
        return None;
    }
    let cap = usize::from(profile.max_batch(first.model).min(board.accelerator.max_batch));
    let service = |jobs: usize| {
        profile.service(first.model, jobs as u16).map_or(u64::MAX, |service| nanos(service.planned))
    };
    let takes = |streams: usize| {
        let rest = match streams % cap {
            0 => 0,
            jobs => service(jobs),
        };
        service(cap).saturating_mul((streams / cap) as u64).saturating_add(rest)
    };
    if cap == 0 {
        return Some(0);
    }
    Some((1..=MAX_STREAMS).take_while(|&streams| takes(streams) <= nanos(budget)).count())
}
