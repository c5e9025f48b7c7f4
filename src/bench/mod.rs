//! How many streams: runs on real threads and the real clock, in search of the largest number whose frames
//! are in time.
//!
//! A stream count passes when the share of **all captured frames** (lost ones are late for ever) that met
//! their deadline is at least the percentile, and so is each stream's own share. Streams are like the
//! template's: those of its board in their order, and again from the start. Limits come from service times
//! measured in the same session: what no scheduler can exceed, what admission guarantees, and what a bare loop
//! over the same backend computes.
//!
//! A run that is not in time and whose sources alone were late ([`Punctuality`]) says something about the machine and
//! nothing about the board: it is repeated, and where that does not help, there is no result. One that is in time all
//! the same counts: what comes late or not at all is counted against it.

mod bare;
pub mod chart;
mod limits;
mod probe;
pub mod report;
mod search;
mod source;
mod streams;

pub use bare::Bare;
pub use limits::Limits;
pub use probe::{Missed, Opened, Probe, Quantiles};
pub use search::{Outcome, search};
pub use source::Punctuality;
pub use streams::{Offer, Releases, Sources, like};

use crate::board::{Board, MAX_STREAMS};
use crate::platform::{Waker, clock};
use crate::runtime::{Choice, Measured, Timing, measure_for};
use crate::sched::Profile;
use probe::Runs;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Batches of each size for the service times: an accelerator of many sizes is measured in bearable time.
const PROFILE_RUNS: RangeInclusive<usize> = 10..=2000;

/// The share of frames that must be in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    /// 99 of 100.
    P99,
    /// 999 of 1000.
    P99_9,
    /// All.
    Max,
}

impl Percentile {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P99 => "p99",
            Self::P99_9 => "p99.9",
            Self::Max => "max",
        }
    }

    /// Frames of `frames` that may miss.
    #[must_use]
    pub const fn allowed(self, frames: u64) -> u64 {
        match self {
            Self::P99 => frames / 100,
            Self::P99_9 => frames / 1000,
            Self::Max => 0,
        }
    }

    /// Frames without which it says nothing: fewer, and one miss would be too many.
    #[must_use]
    pub const fn frames(self) -> u32 {
        match self {
            Self::P99 => 100,
            Self::P99_9 | Self::Max => 1000,
        }
    }

    /// Measured service time that batches are planned with.
    const fn of(self, timing: &Timing) -> u64 {
        match self {
            Self::P99 => timing.p99_ns,
            Self::P99_9 => timing.p99_9_ns,
            Self::Max => timing.max_ns,
        }
    }
}

/// What is to be found out, and how thoroughly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The share of frames that must be in time.
    pub percentile: Percentile,
    /// When the streams' frames are released.
    pub releases: Releases,
    /// Where the frames come from.
    pub sources: Sources,
    /// Seed of random releases.
    pub seed: u64,
    /// Length of a probe; longer where the percentile needs more frames.
    pub probe: Duration,
    /// Confirmation runs at the number found, all of which must pass.
    pub confirmations: usize,
    /// Length of such a run; `None`: until the percentile means something for each stream by itself.
    pub confirmation: Option<Duration>,
    /// Time for the service times, and again for the bare loop.
    pub profile: Duration,
    /// Runs that may be repeated because they were not in time and the sources were late, each up to this many times.
    pub retries: usize,
    /// No more streams than this.
    pub most: usize,
    /// Whether to raise the rate of all at the number found, for a measure finer than one stream.
    pub finer: bool,
    /// Whether to run at 1.5 and 2 times the number found.
    pub overload: bool,
    /// Whether to run at fractions of the number found too, for a chart.
    pub sweep: bool,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The limits, from the same session.
    pub limits: Limits,
    /// Largest number of streams that was confirmed; `None` where the sources' lateness prevents a result.
    pub streams: Option<usize>,
    /// The same at the declared rate as a fraction, where asked for.
    pub finer: Option<f64>,
    /// Every run, in order.
    pub probes: Vec<Probe>,
    /// Runs beyond capacity: times the streams found, and the run.
    pub overload: Vec<(f64, Probe)>,
    /// Why there is no result.
    pub invalid: Option<String>,
}

/// Why a bench could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The accelerator can't be measured.
    #[error("the accelerator can't be measured: {0}")]
    Accelerator(String),
    /// A model's outputs can't be decoded.
    #[error(transparent)]
    Model(#[from] crate::decode::DecodeError),
    /// The system gives no thread.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// A thread died.
    #[error("a thread died; the lines above say where; please report this")]
    Died,
}

/// Measures `template`, opening a backend and a pool for each run with `open`, and telling of each run.
///
/// # Errors
/// What `open` says, and [`Trouble`]. Late sources are no error: see [`Found::invalid`].
pub fn measure<E: From<Trouble>>(
    template: &Board,
    settings: &Settings,
    open: &mut dyn FnMut(&Board, &Waker) -> Result<Opened, E>,
    tell: &mut dyn FnMut(&Probe),
) -> Result<Found, E> {
    let (measured, bare) = accelerator(template, settings, open)?;
    // As a run with a kept profile would choose. What batches are planned with is without the margin that such a profile
    // adds for the months to come: these times are minutes old.
    let choice = Choice::new(template, &measured, Timing::careful, false);
    let limits = Limits::new(template, &measured, bare, &choice);
    let plan = measured.profile(choice.used, |timing| settings.percentile.of(timing), false);
    let mut runs = Runs { template, settings, plan, open, tell, made: Vec::new() };
    let outcome = search(limits.start(settings.most), settings.most, &mut runs)?;
    let mut found =
        Found { limits, streams: None, finer: None, probes: Vec::new(), overload: Vec::new(), invalid: None };
    match outcome {
        Outcome::Found(streams) => {
            found.streams = Some(streams);
            beyond(&mut runs, settings, streams, &mut found)?;
        }
        Outcome::Invalid(why) => found.invalid = Some(why),
    }
    found.probes = runs.made;
    Ok(found)
}

/// One run as long as a probe, whose batches are planned with `plan`.
///
/// # Errors
/// As [`measure`].
pub fn once<E: From<Trouble>>(
    template: &Board,
    settings: &Settings,
    plan: Profile,
    offer: Offer,
    open: &mut dyn FnMut(&Board, &Waker) -> Result<Opened, E>,
) -> Result<Probe, E> {
    Runs { template, settings, plan, open, tell: &mut |_| (), made: Vec::new() }.probe(offer)
}

/// What is asked for beside the number.
fn beyond<E: From<Trouble>>(
    runs: &mut Runs<'_, E>,
    settings: &Settings,
    streams: usize,
    found: &mut Found,
) -> Result<(), E> {
    if settings.finer {
        found.finer = Some(search::finer(streams.max(1), streams > 0, runs)?);
    }
    if settings.sweep {
        for quarter in [1, 2, 3, 5] {
            let streams = (streams * quarter).div_ceil(4).clamp(1, MAX_STREAMS);
            runs.probe(Offer { streams, rate: 1.0 })?;
        }
    }
    if settings.overload && streams > 0 {
        for factor in [1.5, 2.0] {
            let wanted = streams as f64 * factor;
            let offered = (wanted.round() as usize).min(MAX_STREAMS);
            let offer = Offer { streams: offered, rate: (wanted / offered as f64).max(1.0) };
            let probe = runs.probe(offer)?;
            found.overload.push((factor, probe));
        }
    }
    Ok(())
}

/// Service times of the accelerator's units, and the bare loop's rates, from one backend.
fn accelerator<E: From<Trouble>>(
    template: &Board,
    settings: &Settings,
    open: &mut dyn FnMut(&Board, &Waker) -> Result<Opened, E>,
) -> Result<(Measured, Bare), E> {
    let board = like(template, Offer { streams: template.streams.len(), rate: 1.0 }, settings);
    let waker = Waker::new();
    waker.attach();
    let Opened { mut backend, pool } = open(&board, &waker)?;
    let measured = measure_for(&board, &pool, backend.as_mut(), settings.profile, PROFILE_RUNS)
        .map_err(Trouble::Accelerator)?;
    let until = clock::now() + settings.profile;
    let bare = Bare::measure(&board, &pool, backend.as_mut(), &waker, until).map_err(Trouble::Accelerator)?;
    Ok((measured, bare))
}
