//! One run: a board of so many streams, for a while, and what its ledgers say.

use crate::bench::search::{Trials, Verdict};
use crate::bench::source::{Memory, SETTLING, Watch, Watched};
use crate::bench::{Offer, Punctuality, Settings, Sources, Trouble, like};
use crate::board::Board;
use crate::capture::{self, Source};
use crate::cause::MissCause;
use crate::decode::Decoder;
use crate::infer::Backend;
use crate::job::DropReason;
use crate::platform::{Waker, clock};
use crate::pool::{FrameRef, Pool};
use crate::publish;
use crate::runtime::{Finished, Parts, Running};
use crate::sched::{Profile, Schedule};
use crate::stats::{Copies, Histogram, Ledger};
use crate::stream::Criticality;
use std::sync::Arc;
use std::time::Duration;

/// Longest run: what a percentile of few and slow streams would need longer for, it does without.
const LONGEST: Duration = Duration::from_secs(120);

/// What a run needs of the machine.
pub struct Opened {
    /// The accelerator.
    pub backend: Box<dyn Backend<FrameRef>>,
    /// Memory for the board's frames.
    pub pool: Pool,
}

/// Latencies over all captured frames; `None`: so many were lost that it is without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of the frames.
    pub p50: Option<Duration>,
    /// 99 %.
    pub p99: Option<Duration>,
    /// 99.9 %.
    pub p99_9: Option<Duration>,
    /// All of them.
    pub max: Option<Duration>,
}

impl Quantiles {
    fn new(latency: &Histogram, lost: u64) -> Self {
        let at = |quantile| latency.quantile_with_lost(quantile, lost);
        Self { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: at(1.0) }
    }
}

/// Frames of critical streams that were not in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Results out after their deadline, by cause (index: [`MissCause::index`]).
    pub late: [u64; MissCause::ALL.len()],
    /// No result, by reason (index: [`DropReason::index`]).
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Missed {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.late.iter().chain(&self.dropped).sum()
    }
}

/// A run and its outcome.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What was offered.
    pub offer: Offer,
    /// How long.
    pub time: Duration,
    /// Whether it was to confirm what was found.
    pub confirmation: bool,
    /// How punctual its sources were.
    pub punctuality: Punctuality,
    /// Whether its frames were in time; where not, that says nothing when the sources were late.
    pub passed: bool,
    /// All streams' ledgers.
    pub ledger: Ledger,
    /// Share of its frames that the worst stream met.
    pub worst_stream: f64,
    /// Latencies over all captured frames.
    pub latency: Quantiles,
    /// Frames a second that were released, by the board.
    pub offered: f64,
    /// What critical streams missed.
    pub critical: Missed,
}

impl Probe {
    /// Whether it says something about the board. What sources release late counts against a run, from its stamp on,
    /// and what they leave out is lost: one that is in time all the same does.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.passed || self.punctuality.is_valid()
    }

    /// Share of all captured frames that were in time.
    #[must_use]
    pub fn met(&self) -> f64 {
        share(&self.ledger)
    }

    /// Frames in time a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.met() * self.offered
    }
}

fn share(ledger: &Ledger) -> f64 {
    if ledger.captured == 0 { 0.0 } else { ledger.met as f64 / ledger.captured as f64 }
}

/// Makes runs, and keeps what they said.
pub(super) struct Runs<'a, E> {
    pub(super) template: &'a Board,
    pub(super) settings: &'a Settings,
    pub(super) plan: Profile,
    pub(super) open: &'a mut dyn FnMut(&Board, &Waker) -> Result<Opened, E>,
    pub(super) tell: &'a mut dyn FnMut(&Probe),
    pub(super) made: Vec<Probe>,
}

impl<E: From<Trouble>> Runs<'_, E> {
    /// A run as long as a probe, of which nothing depends.
    pub(super) fn probe(&mut self, offer: Offer) -> Result<Probe, E> {
        self.valid(offer, false)
    }

    /// A run, repeated while it is not in time and its sources are late.
    fn valid(&mut self, offer: Offer, confirmation: bool) -> Result<Probe, E> {
        let board = like(self.template, offer, self.settings);
        let time = self.time(&board, confirmation);
        let mut left = self.settings.retries;
        loop {
            let probe = self.run(&board, offer, time, confirmation)?;
            (self.tell)(&probe);
            self.made.push(probe.clone());
            if probe.is_valid() || left == 0 {
                return Ok(probe);
            }
            left -= 1;
        }
    }

    /// Long enough that the percentile means something: for all streams together, or to confirm for each.
    fn time(&self, board: &Board, confirmation: bool) -> Duration {
        let needed = self.settings.percentile.frames();
        let rate: f64 = board.streams.iter().map(|stream| 1.0 / stream.period.as_secs_f64()).sum();
        let slowest = board.streams.iter().map(|stream| stream.period).max().unwrap_or_default();
        let all = Duration::from_secs_f64(f64::from(needed) / rate);
        let least = self.settings.probe.max(all);
        let time = match (confirmation, self.settings.confirmation) {
            (false, _) => least,
            (true, Some(time)) => time.max(all),
            // And a few more: those at the edges of the run.
            (true, None) => least.max(slowest * (needed + needed / 50)),
        };
        time.min(LONGEST.max(self.settings.probe))
    }

    fn run(&mut self, board: &Board, offer: Offer, time: Duration, confirmation: bool) -> Result<Probe, E> {
        let waker = Waker::new();
        let Opened { backend, pool } = (self.open)(board, &waker)?;
        let watch = Arc::new(Watch::default());
        let bound = board.streams.iter().map(|stream| stream.latency_bound).min().unwrap_or_default();
        let tolerated = (bound / 20).max(Duration::from_millis(1));
        let sources = board.streams.iter().map(|stream| -> Box<dyn Source> {
            let source: Box<dyn Source> = match self.settings.sources {
                Sources::Memory => Box::new(Memory::new(stream)),
                Sources::Board => capture::open(stream),
            };
            Box::new(Watched { source, tolerated, watch: watch.clone(), begun: false })
        });
        let rows = &backend.capabilities().output_rows;
        let decoders = board.models.iter().zip(rows).map(|(model, rows)| Decoder::new(model, rows));
        let decoders = decoders.collect::<Result<Vec<_>, _>>().map_err(Trouble::Model)?;
        let sources = sources.collect();
        let board = Arc::new(board.clone());
        let outputs =
            publish::start(&[], &board, "").map_err(|error| Trouble::Thread(std::io::Error::other(error)))?;
        let parts = Parts {
            schedule: Schedule::overcommitted_for_measuring(&board, self.plan.clone()),
            board: board.clone(),
            pool,
            sources,
            backend,
            waker,
            decoders,
            outputs,
            pictures: None,
            copies: Arc::new(Copies::default()),
            // What is stuck is to be seen in the figures.
            supervised: None,
            sensors: None,
        };
        let running = Running::start(parts, || false).map_err(Trouble::Thread)?;
        let until = running.began() + SETTLING + time;
        while clock::now() < until && !running.is_broken() {
            clock::sleep_until(until.min(clock::now() + Duration::from_millis(100)));
        }
        let finished = running.stop().ok_or(Trouble::Died)?;
        Ok(self.judge(&board, offer, time, confirmation, &finished, watch.punctuality()))
    }

    fn judge(
        &self,
        board: &Board,
        offer: Offer,
        time: Duration,
        confirmation: bool,
        finished: &Finished,
        punctuality: Punctuality,
    ) -> Probe {
        let percentile = self.settings.percentile;
        let ledger = finished.total();
        // A short run can't tell one miss of a stream from the percentile; a confirmation is to.
        let spare = u64::from(!confirmation);
        let enough = |ledger: &Ledger, spare: u64| {
            let allowed = percentile.allowed(ledger.captured).max(spare);
            ledger.captured > 0 && ledger.captured - ledger.met <= allowed
        };
        let each = finished.streams().iter().all(|stream| enough(&stream.ledger, spare));
        let mut critical = Missed::default();
        for (stream, totals) in board.streams.iter().zip(finished.streams()) {
            if stream.criticality == Criticality::Critical {
                for (mine, theirs) in critical.late.iter_mut().zip(totals.causes) {
                    *mine += theirs;
                }
                for (mine, theirs) in critical.dropped.iter_mut().zip(totals.ledger.dropped) {
                    *mine += theirs;
                }
            }
        }
        let shares = finished.streams().iter().map(|stream| share(&stream.ledger));
        Probe {
            offer,
            time,
            confirmation,
            punctuality,
            passed: enough(&ledger, 0) && each,
            worst_stream: shares.fold(1.0, f64::min),
            latency: Quantiles::new(&finished.latency(), ledger.captured - ledger.met - ledger.late),
            offered: board.streams.iter().map(|stream| 1.0 / stream.period.as_secs_f64()).sum(),
            ledger,
            critical,
        }
    }

    fn verdict(&self, probe: &Probe) -> Verdict {
        if probe.is_valid() {
            return if probe.passed { Verdict::Passed } else { Verdict::Failed };
        }
        let share = probe.punctuality.share() * 100.0;
        let (Offer { streams, rate }, tolerated) = (probe.offer, Punctuality::TOLERATED * 100.0);
        let runs = self.settings.retries + 1;
        Verdict::Invalid(format!(
            "with {streams} streams at {rate:.3} times their rate, the sources alone were late for {share:.3} % \
             of the releases (at most {tolerated} % may be) in each of {runs} runs: the machine is too busy or \
             too slow to release that many frames; stop what else runs, or use fewer streams (--most)"
        ))
    }
}

impl<E: From<Trouble>> Trials for Runs<'_, E> {
    type Error = E;

    fn probe(&mut self, offer: Offer) -> Result<Verdict, E> {
        let probe = self.valid(offer, false)?;
        Ok(self.verdict(&probe))
    }

    fn confirm(&mut self, offer: Offer) -> Result<Verdict, E> {
        for _ in 0..self.settings.confirmations {
            let probe = self.valid(offer, true)?;
            match self.verdict(&probe) {
                Verdict::Passed => {}
                other => return Ok(other),
            }
        }
        Ok(Verdict::Passed)
    }
}
