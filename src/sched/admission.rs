//! Admission: which streams are served.
//!
//! With a stored profile, by the guarantee ([`super::guarantee`]): streams are taken by criticality, then in
//! the board's order, as long as every frame of every stream taken is certain to be in time.
//!
//! Streams on hardware triggers also by their timetable ([`super::trigger`]): by whichever of the two carries more.
//!
//! With a provisional profile, by utilisation: a stream needs the share `min l(b)/b / P` of the accelerator,
//! over the batch sizes b whose service time fits its latency bound, and streams are taken while the shares
//! add up to at most one. This is necessary, not sufficient (no batch need ever be full): so it comes with
//! no guarantee, and says so. Others than critical streams are then admitted only if a batch of one of theirs
//! is short enough for the critical ones (theorem 2 of the guarantee). With a stored profile such a stream is
//! served while the certificate stands, when all that is admitted is certain to be in time together, and
//! waits while it does not.

use crate::board::{Board, SourceSpec, Stream};
use crate::sched::Profile;
use crate::sched::guarantee::{Accelerator, Demand};
use crate::sched::guard::at_pace;
use crate::sched::profile::TAIL;
use crate::sched::trigger::{Gate, Releases, Timetable};
use crate::stream::{Criticality, ModelId, StreamId};
use crate::time::{Instant, nanos};
use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

/// What the scheduler knows of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Shortest time between frames.
    pub period: Duration,
    /// Results must be out this long after capture.
    pub latency_bound: Duration,
    /// The network for its frames.
    pub model: ModelId,
    /// How much depends on it.
    pub criticality: Criticality,
    /// Whether results after the deadline are wanted.
    pub stale_results: bool,
    /// Whether its frames are served at all; false: shed.
    pub served: bool,
    /// Frames that may wait at once: with a bound longer than the period, older ones can still be met.
    pub depth: usize,
    /// Longest time from capture to arrival that the board states.
    pub travel: Duration,
    /// How much earlier than a period after the one before it a frame may arrive.
    pub tolerance: Duration,
    /// Of a critical stream.
    pub reserve: Option<Reserve>,
}

/// What a critical stream keeps from others: see theorem 2 of [`super::guarantee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Longest response (arrival to the end of its batch) that is let happen where anything may come meanwhile.
    pub target: Duration,
    /// Time that it needs from a free accelerator on, as planned.
    pub clear: Duration,
    /// Longest response with which it is in time; no shorter.
    pub limit: Duration,
}

/// The critical streams, where all of them have one model: see "What may come meanwhile" in [`super::guarantee`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Together {
    pub(super) model: ModelId,
    /// How many they are.
    pub(super) jobs: u16,
    /// Their least spacing, and their shortest limit.
    spacing: Duration,
    limit: Duration,
}

impl Together {
    fn of(streams: &[Admitted]) -> Option<Self> {
        let critical = || streams.iter().filter_map(|stream| Some((stream, stream.reserve?)));
        let model = critical().next()?.0.model;
        Some(Self {
            model,
            jobs: critical().count() as u16,
            spacing: critical().map(|(stream, _)| stream.period.saturating_sub(stream.tolerance)).min()?,
            limit: critical().map(|(_, reserve)| reserve.limit).min()?,
        })
        .filter(|_| critical().all(|(stream, _)| stream.model == model))
    }
}

/// An admitted board. The only way to a scheduler.
#[derive(Clone, Debug)]
pub struct Schedule {
    streams: Vec<Admitted>,
    profile: Profile,
    utilisation: f64,
    max_batch: u16,
    patience: Option<Duration>,
    releases: Releases,
    gate: Option<Gate>,
    critical_certain: bool,
    together: Option<Together>,
    /// More than admission allows.
    overcommitted: bool,
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
    /// Critical streams can wait for a batch of at most `room`; one frame takes longer.
    Blocking {
        /// Service time of one frame.
        service: Duration,
        /// Longest batch that they can wait for.
        room: Duration,
    },
    /// This share of the thread that decodes.
    DecodingShare(f64),
    /// With it, decoding and publishing could take this long, which is all that some stream's frames have.
    Decoding(Duration),
    /// With it, some stream's frames (this one's or another's) could take longer to be answered than they may.
    Time {
        /// How long, from arrival (of streams planned by their triggers: from capture) to the end of their batch.
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
            Self::Blocking { service, room } => {
                let (service, room) = (ms(*service), ms(*room));
                write!(f, "takes {service} ms a frame, and critical streams can wait for {room} ms")
            }
            Self::DecodingShare(share) => {
                write!(f, "would need {:.0} % of the thread that decodes results", share * 100.0)
            }
            Self::Decoding(longest) => {
                write!(f, "would let decoding take {} ms, and no time would be left before it", ms(*longest))
            }
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
        let (mut lacks, releases) =
            if profile.provisional { by_share(board, &profile) } else { guaranteed(board, &profile) };
        let critical = |index: usize| board.streams[index].criticality == Criticality::Critical;
        let refused: Vec<_> = (0..lacks.len())
            .filter(|&index| critical(index))
            .filter_map(|index| Some((board.streams[index].id.clone(), lacks[index]?)))
            .collect();
        if !refused.is_empty() {
            let critical = (0..lacks.len()).filter(|&index| critical(index)).count();
            return Err(Refusal { fits: critical - refused.len(), critical, streams: refused });
        }
        let critical = Critical::new(board, &profile, &served(board, &lacks));
        if profile.provisional && critical.certain {
            let too_long = critical.too_long(board, &profile);
            lacks.iter_mut().zip(too_long).for_each(|(lack, longer)| *lack = lack.or(longer));
        }
        Ok(Self::of(board, profile, lacks, releases, critical))
    }

    /// A schedule of the streams that lack nothing.
    fn of(
        board: &Board,
        profile: Profile,
        lacks: Vec<Option<Lack>>,
        releases: Releases,
        critical: Critical,
    ) -> Self {
        let patience = (!profile.provisional).then(|| {
            let accelerator = Accelerator::new(board, &profile);
            let fit = accelerator.fit(&served(board, &lacks));
            fit.map_or(Duration::ZERO, |fit| accelerator.patience(&fit.demands))
        });
        let utilisation = board.streams.iter().zip(&lacks).filter(|(_, lack)| lack.is_none());
        let utilisation =
            utilisation.filter_map(|(stream, _)| share(stream, &profile, board.accelerator.max_batch)).sum();
        let gate = (releases != Releases::Free).then(|| gate(board, &lacks)).flatten();
        let streams = board.streams.iter().zip(lacks).zip(&critical.reserves);
        let streams = streams.map(|((stream, lack), &reserve)| Admitted {
            period: stream.period,
            latency_bound: stream.latency_bound,
            model: stream.model,
            criticality: stream.criticality,
            stale_results: stream.stale_results,
            served: lack.is_none(),
            depth: queue_depth(stream),
            travel: Demand::travel(stream),
            tolerance: tolerance(stream),
            reserve,
        });
        let streams: Vec<Admitted> = streams.collect();
        let critical_certain = critical.certain;
        let together = if critical_certain { Together::of(&streams) } else { None };
        let max_batch = board.accelerator.max_batch;
        Self {
            streams,
            profile,
            utilisation,
            max_batch,
            patience,
            critical_certain,
            together,
            releases,
            gate,
            overcommitted: false,
        }
    }

    /// The critical streams, where they have one model and are certain to be in time.
    pub(super) fn together(&self) -> Option<Together> {
        self.together
    }

    /// Whether critical frames may be as late as their bound allows, when batches take `pace` times as long as planned: see
    /// "As late as the bound allows" in [`super::guarantee`].
    pub(super) fn is_roomy(&self, pace: f64) -> bool {
        self.together.is_some_and(|Together { model, jobs, spacing, limit }| {
            let service = at_pace(self.planned(model, jobs), pace);
            jobs <= self.max_batch(model) && service < spacing && 2 * service <= limit
        })
    }

    /// What is known of the captures' instants, where streams were admitted by it.
    #[must_use]
    pub fn releases(&self) -> Releases {
        self.releases
    }

    /// What holds an instant's frames until they are there.
    pub(super) fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Every stream of the board served, however many: **for measuring only**. Nothing is promised, critical
    /// streams included; it exists so that a bench can find out where a board stops keeping up, and what
    /// happens beyond. Batches are made as on a board that is admitted: critical streams come first when a
    /// premise fails, not before. No run for real cameras may use it.
    #[must_use]
    pub fn overcommitted_for_measuring(board: &Board, mut profile: Profile) -> Self {
        profile.provisional = true;
        let all: Vec<&Stream> = board.streams.iter().collect();
        // Of what is offered only so many can be served, as on a board that is admitted.
        let (lacks, _) = by_share(board, &profile);
        let critical = Critical::new(board, &profile, &served(board, &lacks));
        let timetable = Timetable::of(&all, board.models.len());
        let releases = timetable.map(|timetable| timetable.releases()).unwrap_or_default();
        let none = vec![None; board.streams.len()];
        Self { overcommitted: true, ..Self::of(board, profile, none, releases, critical) }
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

    /// Share of the accelerator that `stream` needs when every batch is of its best size; all of it where no
    /// batch is in time.
    #[must_use]
    pub fn share(&self, stream: &Stream) -> f64 {
        share(stream, &self.profile, self.max_batch).unwrap_or(1.0)
    }

    /// How many models there are.
    #[must_use]
    pub fn models(&self) -> usize {
        self.profile.models()
    }

    /// Batches that the accelerator may be given at once.
    #[must_use]
    pub fn places(&self) -> usize {
        self.profile.places
    }

    /// Whether this is a guarantee, or a first plan from a few seconds' measurement.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.profile.provisional
    }

    /// Whether critical streams come first from the start: its service times are a first guess.
    pub(super) fn is_doubtful(&self) -> bool {
        self.profile.provisional && !self.overcommitted
    }

    /// Longest time after a waiting job's arrival for which a place may be left free on purpose without any
    /// frame being late; `None`: there is no guarantee to be kept.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Largest batch of a model.
    #[must_use]
    pub fn max_batch(&self, model: ModelId) -> u16 {
        self.profile.max_batch(model).min(self.max_batch)
    }

    /// l(jobs) as planned, of the largest batch where there are more.
    #[must_use]
    pub fn planned(&self, model: ModelId, jobs: u16) -> Duration {
        let service = self.profile.service(model, jobs.min(self.profile.max_batch(model)));
        service.map_or(Duration::ZERO, |service| service.planned)
    }

    /// Whether critical streams are certain to be in time whatever the others do: theorem 2 of the guarantee,
    /// as far as the profile goes.
    #[must_use]
    pub fn critical_certain(&self) -> bool {
        self.critical_certain
    }

    /// Longest batch with others' jobs that critical streams can wait for, when batches take `pace` times as
    /// long as planned; [`Duration::MAX`] where nothing is critical.
    #[must_use]
    pub fn blocking(&self, pace: f64) -> Duration {
        let reserves = self.streams.iter().filter_map(|stream| stream.reserve);
        let rooms = reserves.map(|Reserve { target, clear, .. }| target.saturating_sub(at_pace(clear, pace)));
        rooms.min().unwrap_or(Duration::MAX)
    }

    /// Longest response of a critical stream that is let happen where it is known what may come meanwhile.
    pub(super) fn longest_response(&self, stream: StreamId, pace: f64) -> Option<Duration> {
        let Reserve { target, limit, .. } = self.stream(stream).reserve?;
        Some(if self.is_roomy(pace) { limit } else { target })
    }

    /// Largest number of jobs that a batch of `model`, started `now`, may have so that it ends in time for
    /// `deadline` when it takes `pace` times as long as planned; at least one. All of them where that is past:
    /// stale results are wanted as soon as possible.
    #[must_use]
    pub fn batch_before(&self, model: ModelId, now: Instant, deadline: Instant, pace: f64) -> u16 {
        let cap = self.profile.max_batch(model).min(self.max_batch).max(1);
        if deadline <= now {
            return cap;
        }
        let budget = deadline.since(now);
        let fits = |&jobs: &u16| at_pace(self.planned(model, jobs), pace) + self.tail(model, jobs) <= budget;
        (2..=cap).rev().find(fits).unwrap_or(1)
    }

    /// How long a frame's results usually take to decode.
    #[must_use]
    pub fn decoding(&self, model: ModelId) -> Duration {
        self.profile.decoding(model).usual
    }

    /// Time from the end of a batch to its last result, where frames are as usual.
    pub(super) fn tail(&self, model: ModelId, jobs: u16) -> Duration {
        self.profile.tail(model, jobs)
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
    // A frame that its trigger's jitter delays has its deadline that much later.
    let jitter = stream.trigger.as_ref().map_or(Duration::ZERO, |trigger| trigger.jitter);
    let frames = (stream.latency_bound + jitter).as_nanos().div_ceil(stream.period.as_nanos().max(1));
    usize::try_from(frames).unwrap_or(usize::MAX).clamp(1, MAX_DEPTH)
}

/// Most frames of a stream that wait at once, however long its bound.
pub(super) const MAX_DEPTH: usize = 8;

/// How much earlier than a period after the one before it a frame may arrive: see [`super::police`].
fn tolerance(stream: &Stream) -> Duration {
    let unstated = match &stream.source {
        SourceSpec::Uri { .. } | SourceSpec::Pipeline { .. } | SourceSpec::V4l2(_) => stream.period / 4,
        SourceSpec::Synthetic { .. } | SourceSpec::File { .. } => Duration::ZERO,
    };
    Demand::jitter(stream) + unstated + stream.period / 100
}

/// What a board's critical streams keep from the others.
pub(super) struct Critical {
    /// Whether theorem 2 holds.
    pub(super) certain: bool,
    /// Per stream of the board.
    reserves: Vec<Option<Reserve>>,
}

impl Critical {
    /// Beside the others that are `served`.
    pub(super) fn new(board: &Board, profile: &Profile, served: &[&Stream]) -> Self {
        let accelerator = Accelerator::new(board, profile);
        let is_critical = |stream: &&Stream| stream.criticality == Criticality::Critical;
        let others = board.streams.iter().filter(|stream| !is_critical(stream));
        let models = others.flat_map(|stream| [stream.watch.cheaper_model, Some(stream.model)]);
        let longest = |jobs: &dyn Fn(ModelId) -> u16| {
            let services = models.clone().flatten().filter_map(|model| profile.service(model, jobs(model)));
            services.map(|service| nanos(service.planned)).max().unwrap_or(0)
        };
        let one = longest(&|_| 1);
        let full = longest(&|model| profile.max_batch(model).min(board.accelerator.max_batch));
        // Others' frames are decoded too.
        let others = served.iter().copied().filter(|stream| !is_critical(stream));
        let decoded: Vec<&Stream> = board.streams.iter().filter(is_critical).chain(others).collect();
        let tries = accelerator.leads(&decoded, |decoding| decoding.usual).map(|lead| {
            let all = board.streams.iter().filter(is_critical).map(|stream| Demand::of(stream, lead));
            let all: Vec<Option<Demand>> = all.collect();
            let demands: Vec<Demand> = all.iter().flatten().copied().collect();
            let complete = demands.len() == all.len();
            match complete.then(|| accelerator.reserves(&demands, one, full)).flatten() {
                Some(reserves) => (true, reserves, all),
                None => (false, accelerator.hopes(&demands), all),
            }
        });
        // The first with which they are certain, else the first: there is one.
        let mut tries = tries.peekable();
        let first = tries.peek().cloned();
        let (certain, reserves, all) = tries.find(|&(certain, ..)| certain).or(first).unwrap_or_default();
        let (mut reserves, mut all) = (reserves.into_iter(), all.into_iter());
        let reserves = board.streams.iter().map(|stream| {
            let demand = if is_critical(&stream) { all.next()? } else { return None };
            let known = demand.and_then(|demand| Some((reserves.next()?, demand.limit)));
            let bound = stream.latency_bound;
            let unknown = Reserve { target: bound, clear: Duration::ZERO, limit: bound };
            Some(known.map_or(unknown, |((target, clear), limit)| {
                let [target, clear, limit] = [target, clear, limit].map(Duration::from_nanos);
                Reserve { target, clear, limit: limit.max(target) }
            }))
        });
        let reserves = reserves.collect();
        Self { certain, reserves }
    }

    /// Longest batch with others' jobs that all of them can wait for.
    pub(super) fn room(&self) -> Option<Duration> {
        let rooms = self.reserves.iter().flatten();
        rooms.map(|Reserve { target, clear, .. }| target.saturating_sub(*clear)).min()
    }

    /// What others lack one of whose frames takes longer than critical streams can wait; by stream.
    pub(super) fn too_long(&self, board: &Board, profile: &Profile) -> Vec<Option<Lack>> {
        let room = self.room().unwrap_or(Duration::MAX);
        let each = board.streams.iter().map(|stream| {
            let service = profile.service(stream.model, 1)?.planned;
            let other = stream.criticality != Criticality::Critical;
            (other && service > room).then_some(Lack::Blocking { service, room })
        });
        each.collect()
    }
}

/// What `judge` says of each stream, asked in the order of criticality, then of the board.
fn in_order<'b>(
    board: &'b Board,
    profile: &Profile,
    mut judge: impl FnMut(&'b Stream, f64) -> Option<Lack>,
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

/// For each stream what it lacks beside those taken before it, by utilisation; `None`: it is served. They are
/// released as their triggers say where those that are served fit by them as planned.
fn by_share(board: &Board, profile: &Profile) -> (Vec<Option<Lack>>, Releases) {
    let (mut used, mut decoding) = (0.0, 0.0);
    let lacks = in_order(board, profile, |stream, share| {
        let decodes = decoding_share(stream, profile);
        if used + share > 1.0 {
            return Some(Lack::Share(share));
        }
        if decoding + decodes > 1.0 {
            return Some(Lack::DecodingShare(decodes));
        }
        used += share;
        decoding += decodes;
        None
    });
    let accelerator = Accelerator::new(board, profile);
    let timetable = Timetable::of(&served(board, &lacks), board.models.len());
    let fits = timetable.ok().filter(|timetable| timetable.responses(&accelerator).is_ok());
    (lacks, fits.map_or(Releases::Free, |timetable| timetable.releases()))
}

/// The streams without a lack.
pub(super) fn served<'b>(board: &'b Board, lacks: &[Option<Lack>]) -> Vec<&'b Stream> {
    board.streams.iter().zip(lacks).filter(|(_, lack)| lack.is_none()).map(|(stream, _)| stream).collect()
}

fn gate(board: &Board, lacks: &[Option<Lack>]) -> Option<Gate> {
    let ids: Vec<StreamId> = (0..lacks.len())
        .filter(|&index| lacks[index].is_none())
        .map(|index| StreamId(index as u16))
        .collect();
    let timetable = Timetable::of(&served(board, lacks), board.models.len()).ok()?;
    Some(timetable.gate(&ids, board.streams.len()))
}

/// For each stream what it lacks to be certain beside those taken before it, for free-running cameras or by
/// the streams' triggers: the way in which fewer critical streams lack something, or fewer streams.
pub(super) fn guaranteed(board: &Board, profile: &Profile) -> (Vec<Option<Lack>>, Releases) {
    let free = by_any_phase(board, profile);
    let Some((timed, releases)) = by_trigger(board, profile) else { return (free, Releases::Free) };
    let missing = |lacks: &[Option<Lack>]| {
        let lacking = || board.streams.iter().zip(lacks).filter(|(_, lack)| lack.is_some());
        let critical = lacking().filter(|(stream, _)| stream.criticality == Criticality::Critical).count();
        (critical, lacking().count())
    };
    if missing(&free) < missing(&timed) { (free, Releases::Free) } else { (timed, releases) }
}

/// The same by triggers; `None` where the streams can't be planned by them.
fn by_trigger(board: &Board, profile: &Profile) -> Option<(Vec<Option<Lack>>, Releases)> {
    let accelerator = Accelerator::new(board, profile);
    Timetable::of(&board.streams.iter().collect::<Vec<_>>(), board.models.len()).ok()?;
    let mut taken: Vec<&Stream> = Vec::with_capacity(board.streams.len());
    let lacks = in_order(board, profile, |stream, _| {
        taken.push(stream);
        let Ok(timetable) = Timetable::of(&taken, board.models.len()) else {
            taken.pop();
            return Some(Lack::Spacing);
        };
        let exceeded = timetable.responses(&accelerator).err()?;
        taken.pop();
        Some(Lack::Time {
            response: Duration::from_nanos(exceeded.response),
            limit: Duration::from_nanos(exceeded.limit),
        })
    });
    let releases =
        Timetable::of(&served(board, &lacks), board.models.len()).map(|timetable| timetable.releases());
    Some((lacks, releases.unwrap_or_default()))
}

/// For each stream what it lacks to be certain beside those taken before it, whatever the phases; `None`: it is
/// served.
fn by_any_phase(board: &Board, profile: &Profile) -> Vec<Option<Lack>> {
    let accelerator = Accelerator::new(board, profile);
    let mut taken: Vec<&Stream> = Vec::with_capacity(board.streams.len());
    in_order(board, profile, |stream, _| {
        taken.push(stream);
        let lack = accelerator.fit(&taken).err()?;
        taken.pop();
        Some(lack)
    })
}

/// Shortest bound that a stream could have alone, when its bound is why it is not served.
fn least_bound(stream: &Stream, profile: &Profile) -> Option<Duration> {
    let decoding = profile.decoding(stream.model);
    let longest = if profile.provisional { decoding.usual } else { decoding.most };
    profile.service(stream.model, 1).map(|service| service.planned + TAIL + longest + Demand::travel(stream))
}

/// Share of the one thread that decodes that a stream needs.
pub(super) fn decoding_share(stream: &Stream, profile: &Profile) -> f64 {
    profile.decoding(stream.model).usual.as_secs_f64() / stream.period.as_secs_f64()
}

/// Share of the accelerator that a stream needs at best; `None` when its bound is too short for any batch.
pub(super) fn share(stream: &Stream, profile: &Profile, max_batch: u16) -> Option<f64> {
    (1..=max_batch)
        .filter_map(|jobs| {
            let planned = profile.service(stream.model, jobs)?.planned;
            let tail = profile.tail(stream.model, jobs);
            (planned + tail <= stream.latency_bound).then(|| planned.as_secs_f64() / f64::from(jobs))
        })
        .min_by(f64::total_cmp)
        .map(|per_job| per_job / stream.period.as_secs_f64())
}
