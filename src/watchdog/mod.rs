//! Shedding early, by criticality, in steps.
//!
//! Architecture invariant: no clock, no I/O, no allocation after [`Watchdog::new`]; it sees facts, no pixels, and
//! decides only which frames of which streams are worth accelerator time.
//!
//! # Load
//! A stream that was admitted needs the share `min l(b)/b / P` of the accelerator. What is offered now is the
//! sum over streams of share * (its rate / the board's) / (1, 2 or 4 by its rung) * pace, where pace is the
//! service time over the planned one: the median of the last three batches (of the last 2n + 1 where n are at work at
//! once), so that one moment's outliers move nothing and a sustained overrun is believed with a place's second batch. A
//! camera that is faster than the board says counts as one that keeps to it: the scheduler lets in no more of its
//! frames.
//! Pressure takes its share off what the accelerator can do.
//!
//! # Down
//! When the load has exceeded the capacity for so long that the work left over would take a quarter of the
//! shortest bound (a cumulative sum, CUSUM: service times scatter, and what scatters around the capacity leaves
//! nothing over), as many steps as bring the load of that time down to [`GOAL`]; under pressure, which does
//! not scatter, at once. Also when a stream missed more of its last frames than the board allows, or its last
//! good result is too old, for a reason that is load (a frame that arrived with enough time left): then the
//! estimate is too good, and [`CUT`] of the load goes; soon after another step down, the share of frames that
//! was missed since then. No lower than [`FLOOR`]: below that, misses have other reasons than load. Frames
//! captured before the last step down are no evidence for the next one.
//!
//! What a rung leaves out is served all the same where the accelerator would be idle ([`crate::pipeline`]): after a few
//! hiccups the rungs are those of the worst of them, and most of the time there is room for more.
//!
//! Steps: best-effort streams before normal ones, critical ones never. Within a class every stream gives up a
//! rung before any gives up the next, from the end of the board; so rates fall everywhere before an eye goes
//! blind. What a step frees beyond need is given back at the same instant.
//!
//! # Up
//! [`HOLD`] after the last change, every stream of which that fits rises by one rung, all at the same
//! instant (one after the other, forty cameras would need minutes), the more critical and the deepest first. It
//! fits when the load with it, at the mean pace, is at most [`ROOM`]; what a lower class has counts as free then,
//! and is given up for it at the same instant. A step down within twice [`HOLD`] of one up was a failed probe: it
//! doubles the hold, and the next ones go half of the way to [`ROOM`]. When the load at full service is a tenth less
//! than at the last step down, the load has ended, and neither holds any more.

mod cause;
mod certificate;
mod pace;
mod rung;
mod window;

pub use cause::Cause;
pub use rung::Rung;
pub use window::MAX_WINDOW;

use crate::stream::{Criticality, StreamId};
use crate::time::{Instant, nanos};
use certificate::Certificate;
use pace::Pace;
use std::collections::VecDeque;
use std::time::Duration;
use window::Window;

/// Time between two steps up, at least.
pub const HOLD: Duration = Duration::from_secs(2);
/// The longest hold that failed probes lead to.
const LONGEST_HOLD: Duration = Duration::from_secs(64);
/// What a step down brings the load to, as a share of the capacity.
pub const GOAL: f64 = 0.98;
/// What the load may be after a step up.
pub const ROOM: f64 = 0.975;
/// Share of the load that goes when the estimate of it was too good.
pub const CUT: f64 = 0.025;
/// The most at once: when all are late, the share that was missed says little of the share that is too much.
const MOST_CUT: f64 = 4.0 * CUT;
/// Load below which misses are not taken for a consequence of load.
const FLOOR: f64 = 0.5;
/// Time between two looks without evidence.
const LOOK: Duration = Duration::from_millis(2);
/// Time between two looks that counts at most: nothing is known of what was in between.
const SILENCE: Duration = Duration::from_millis(100);
/// A camera this much faster than the board says breaks the guarantee's premise.
const EARLY: f64 = 1.1;

/// What is known of a stream before it starts.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Who goes first.
    pub criticality: Criticality,
    /// Shortest time between its frames.
    pub period: Duration,
    /// Results must be out this long after capture.
    pub latency_bound: Duration,
    /// Whether admission serves it at all.
    pub served: bool,
    /// Share of the accelerator that it needs at full service.
    pub share: f64,
    /// The same with the cheaper model, where the board names one.
    pub cheaper: Option<f64>,
    /// Misses allowed, in that many frames.
    pub misses: (u8, u8),
    /// Most age of its last good result.
    pub freshness: Option<Duration>,
}

/// What weighs on the accelerator from outside: shares of its capacity, 0 to 1, that are gone or will be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// By heat.
    pub thermal: f64,
    /// By a limit on power.
    pub power: f64,
    /// By other work on the same cores.
    pub cpu_steal: f64,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Notice {
    /// A stream is on another rung.
    Rung(StreamId, Rung, Cause),
    /// The guarantee stands, or does not.
    Certificate(bool, Cause),
}

#[derive(Debug)]
struct Stream {
    terms: Terms,
    rung: Rung,
    /// The rung that was last told.
    told: Rung,
    window: Window,
    /// Capture of its newest frame.
    newest: Option<Instant>,
    /// Time between frames, smoothed, in nanoseconds; `None` while it delivers nothing.
    gap: Option<f64>,
    /// The last of these times as it was.
    last_gap: f64,
    /// Capture of its last good result.
    last_good: Instant,
    /// Whether it has missed a frame for load since.
    missed: bool,
    /// Added to its frame numbers: not all streams on a rung leave out the same instants.
    turn: u64,
    /// The newest frame number, and the group of frames of which one has been served.
    sequence: Option<u64>,
    group: Option<u64>,
}

impl Stream {
    /// Its rate as a multiple of the board's.
    fn rate(&self) -> f64 {
        self.gap.map_or(0.0, |gap| nanos(self.terms.period) as f64 / gap.max(1.0))
    }

    /// Its part of the load on a rung, where batches take as long as planned.
    fn load(&self, rung: Rung) -> f64 {
        let Some(every) = rung.every().filter(|_| self.terms.served) else { return 0.0 };
        let share = if rung == Rung::Cheaper { self.terms.cheaper } else { None };
        share.unwrap_or(self.terms.share) * self.rate().min(1.0) / every as f64
    }

    fn above(&self) -> Rung {
        match self.rung {
            Rung::Full | Rung::Half => Rung::Full,
            Rung::Quarter => Rung::Half,
            Rung::Cheaper => Rung::Quarter,
            Rung::Shed if self.terms.cheaper.is_some() => Rung::Cheaper,
            Rung::Shed => Rung::Quarter,
        }
    }
}

/// The policy. Facts go in, notices come out of [`Watchdog::poll`].
#[derive(Debug)]
pub struct Watchdog {
    streams: Vec<Stream>,
    /// Every step down that there is, in order.
    steps: Vec<(StreamId, Rung)>,
    /// Batches at work at once.
    places: f64,
    pressure: Pressure,
    pace: Pace,
    certificate: Certificate,
    /// Misses or staleness that call for a step down.
    evidence: Option<Cause>,
    /// When it last led to a step, and frames met and missed of those captured after it.
    cut_at: Option<Instant>,
    since_cut: [u32; 2],
    /// Work offered beyond the capacity, in seconds of it, and since when there is any.
    excess: f64,
    exceeding: Instant,
    /// A quarter of the shortest bound, in seconds: the most excess.
    slack: f64,
    /// What the load may be after the next step up.
    room: f64,
    /// Facts since the last look that are not to wait for the next one.
    urgent: bool,
    looked: Instant,
    hold: Duration,
    changed: Instant,
    down: Instant,
    up: Option<Instant>,
    /// The load at full service below which the load has ended.
    relief: f64,
    notices: VecDeque<Notice>,
}

impl Watchdog {
    /// A watchdog over streams at full service, on an accelerator with that many `places`. All memory is
    /// allocated here.
    #[must_use]
    pub fn new(now: Instant, terms: &[Terms], places: usize, guaranteed: bool) -> Self {
        let stream = |terms: &Terms| Stream {
            terms: *terms,
            rung: if terms.served { Rung::Full } else { Rung::Shed },
            told: if terms.served { Rung::Full } else { Rung::Shed },
            window: Window::new(terms.misses),
            newest: None,
            gap: Some(nanos(terms.period) as f64),
            last_gap: nanos(terms.period) as f64,
            last_good: now,
            missed: false,
            turn: 0,
            sequence: None,
            group: None,
        };
        let mut streams: Vec<Stream> = terms.iter().map(stream).collect();
        let mut steps = Vec::new();
        for class in [Criticality::BestEffort, Criticality::Normal] {
            for rung in &Rung::ALL[1..] {
                let ours = terms.iter().enumerate().rev().filter(|(_, terms)| {
                    terms.served
                        && terms.criticality == class
                        && (*rung != Rung::Cheaper || terms.cheaper.is_some())
                });
                steps.extend(ours.map(|(index, _)| (StreamId(index as u16), *rung)));
            }
            let ours = streams.iter_mut().rev().filter(|stream| stream.terms.criticality == class);
            ours.zip(0..).for_each(|(stream, turn)| stream.turn = turn);
        }
        let bounds = terms.iter().filter(|terms| terms.served).map(|terms| terms.latency_bound);
        Self {
            streams,
            steps,
            places: places as f64,
            pressure: Pressure::default(),
            pace: Pace::new(now, places),
            certificate: Certificate::new(now, guaranteed && terms.iter().any(|terms| terms.served)),
            evidence: None,
            cut_at: None,
            since_cut: [0; 2],
            excess: 0.0,
            exceeding: now,
            slack: 0.25 * bounds.min().unwrap_or_default().as_secs_f64(),
            room: ROOM,
            urgent: true,
            looked: now,
            hold: HOLD,
            changed: now,
            down: now,
            up: None,
            relief: 0.0,
            notices: VecDeque::with_capacity(terms.len() + 1),
        }
    }

    /// A frame reached the heart and may become a job.
    pub fn arrived(&mut self, stream: StreamId, captured: Instant) {
        let stream = &mut self.streams[stream.index()];
        let period = nanos(stream.terms.period) as f64;
        let before = stream.newest.replace(captured);
        let gap =
            before.filter(|&before| before < captured).map(|before| nanos(captured.since(before)) as f64);
        stream.gap = match (stream.gap, gap) {
            (Some(smooth), Some(gap)) => {
                let gap = gap.clamp(period / 4.0, period * 4.0);
                let before = std::mem::replace(&mut stream.last_gap, gap);
                // Jitter shortens one gap and not the next: two in a row, that much, are another rate.
                let sudden = gap.max(before) < 0.75 * smooth;
                Some(smooth + (gap - smooth) * if sudden { 0.75 } else { 0.25 })
            }
            // The first one, or a stamp that went back, says nothing of the rate.
            (known, _) => known.or(Some(period)),
        };
        let rate = stream.rate();
        if rate > EARLY {
            self.certificate.fail(Cause::Early(rate));
        }
    }

    /// Whether the rung that the stream is on leaves this frame to the accelerator: the first of every two or
    /// four sequence numbers that there is, of each stream others, so that cameras released at once don't all come
    /// at every second instant; nor do they when their rung changes. Ask once a frame.
    pub fn passes(&mut self, stream: StreamId, sequence: u64) -> bool {
        let stream = &mut self.streams[stream.index()];
        stream.sequence = Some(sequence);
        let Some(every) = stream.rung.every() else { return false };
        let group = (sequence + stream.turn) / every;
        every == 1 || stream.group.replace(group) != Some(group)
    }

    /// A stream delivers nothing until its next frame: it is down, or has ended.
    pub fn absent(&mut self, stream: StreamId) {
        let stream = &mut self.streams[stream.index()];
        (stream.gap, stream.newest) = (None, None);
    }

    /// A frame that the accelerator could have answered in time was, or was not.
    pub fn settled(&mut self, stream: StreamId, captured: Instant, met: bool) {
        let babbles = self.streams[stream.index()].rate() > 1.5;
        let alone = !self.streams.iter().all(|stream| stream.rate() > EARLY || !stream.terms.served);
        let stream = &mut self.streams[stream.index()];
        if met {
            stream.last_good = stream.last_good.max(captured);
            stream.missed = false;
        } else if captured < self.down + stream.terms.latency_bound || (babbles && alone) {
            return;
        }
        stream.missed |= !met;
        if captured >= self.down + stream.terms.latency_bound {
            self.since_cut[usize::from(!met)] += 1;
        }
        if stream.window.record(!met) {
            let (misses, frames) = (stream.window.misses(), stream.terms.misses.1);
            self.evidence = Some(Cause::Misses { misses, frames });
            self.urgent = true;
        }
    }

    /// A batch took `service` where `planned` was planned.
    pub fn batch_done(&mut self, completed: Instant, planned: Duration, service: Duration) {
        let ratio = self.pace.record(completed, planned, service);
        if service > planned {
            self.certificate.fail(Cause::Overrun(ratio));
        }
    }

    /// The backend failed or refused a batch.
    pub fn faulted(&mut self) {
        self.certificate.fail(Cause::Fault);
    }

    /// A thread that everything goes through does not come back.
    pub fn stuck(&mut self, thread: &'static str) {
        self.certificate.fail(Cause::Stuck(thread));
        self.urgent = true;
    }

    /// What weighs on the accelerator has changed.
    pub fn pressure(&mut self, pressure: Pressure) {
        self.pressure = pressure;
        self.urgent = true;
    }

    /// Whether the platform takes anything away.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.lost() > 0.0
    }

    /// The rung that a stream is on.
    #[must_use]
    pub fn rung(&self, stream: StreamId) -> Rung {
        self.streams[stream.index()].rung
    }

    /// Whether the guarantee stands.
    #[must_use]
    pub fn guaranteed(&self) -> bool {
        self.certificate.stands()
    }

    /// Whether anything is less than admitted, or more than planned: then critical jobs need protection.
    #[must_use]
    pub fn strained(&self) -> bool {
        self.pace.current() > 1.0 || self.demand() > 1.0 || self.streams.iter().any(Stream::degraded)
    }

    /// What has changed, until there is nothing. To be asked before accelerator time is spent.
    pub fn poll(&mut self, now: Instant) -> Option<Notice> {
        if self.notices.is_empty() && (self.urgent || now.since(self.looked) >= LOOK) {
            self.urgent = false;
            self.look(now);
        }
        self.notices.pop_front()
    }

    /// Offered load on the rungs as they are, as a share of the capacity that is left.
    #[must_use]
    pub fn demand(&self) -> f64 {
        self.load() * self.pace.current() / self.capacity()
    }

    /// The same where batches take as long as planned and nothing weighs on one place.
    fn load(&self) -> f64 {
        self.streams.iter().map(|stream| stream.load(stream.rung)).sum()
    }

    fn capacity(&self) -> f64 {
        (self.places * (1.0 - self.lost())).max(1e-3)
    }

    /// The share that pressure takes.
    fn lost(&self) -> f64 {
        let Pressure { thermal, power, cpu_steal } = self.pressure;
        1.0 - [thermal, power, cpu_steal].iter().map(|lost| 1.0 - lost.clamp(0.0, 1.0)).product::<f64>()
    }

    /// The load, when it has exceeded the capacity for too long.
    fn overload(&mut self, now: Instant) -> Option<f64> {
        let demand = self.demand();
        let passed = now.since(self.looked).min(SILENCE).as_secs_f64();
        self.excess = (self.excess + (demand - 1.0) * passed).max(0.0);
        if self.excess == 0.0 {
            self.exceeding = now;
        }
        if demand > 1.0 && self.lost() > 0.0 {
            return Some(demand);
        }
        let time = now.since(self.exceeding).as_secs_f64();
        (self.excess > self.slack).then(|| 1.0 + self.excess / time.max(1e-9))
    }

    fn look(&mut self, now: Instant) {
        let overload = self.overload(now);
        self.looked = now;
        let lost = self.lost();
        if lost > 0.0 {
            self.certificate.fail(Cause::Pressure(lost));
        }
        let stale = |stream: &Stream| {
            stream.missed && stream.terms.freshness.is_some_and(|most| now.since(stream.last_good) > most)
        };
        if self.evidence.is_none() && self.streams.iter().any(stale) {
            self.evidence = Some(Cause::Stale);
        }
        let evidence = self.evidence.take();
        let mean = self.load() * self.pace.mean() / self.capacity();
        if let Some(demand) = overload {
            let cause = if lost > 0.0 { Cause::Pressure(lost) } else { Cause::Load(demand) };
            self.lower(now, demand, GOAL, cause);
        } else if let Some(cause) = evidence {
            let again = self.cut_at.replace(now).is_some_and(|last| now.since(last) <= HOLD);
            let [met, missed] = self.since_cut.map(f64::from);
            let missed = missed / (met + missed).max(1.0);
            let cut = if again { missed.clamp(CUT, MOST_CUT) } else { CUT };
            self.lower(now, mean, ((1.0 - cut) * mean).max(FLOOR), cause);
        } else if self.streams.iter().any(Stream::degraded) {
            self.raise(now);
        }
        if let Some(cause) = evidence {
            self.certificate.fail(cause);
        } else if self.streams.iter().any(Stream::degraded) {
            self.certificate.fail(Cause::Load(mean));
        }
        if let Some((stands, cause)) = self.certificate.look(now) {
            self.notices.push_back(Notice::Certificate(stands, cause));
        }
    }

    fn lower(&mut self, now: Instant, demand: f64, goal: f64, cause: Cause) {
        // What was missed until now has been acted on, even where nothing can be given up.
        self.down = now;
        for stream in &mut self.streams {
            stream.window.forget();
            stream.missed = false;
        }
        (self.since_cut, self.excess, self.exceeding) = ([0; 2], 0.0, now);
        let scale = demand / self.load().max(1e-9);
        let mut left = self.give_up(scale, demand, goal);
        // What the last step freed too much of: as many eyes as possible stay open.
        for &(id, rung) in self.steps.iter().rev() {
            let stream = &mut self.streams[id.index()];
            let more = scale * (stream.load(stream.above()) - stream.load(rung));
            if stream.rung == rung && stream.above() >= stream.told && left + more <= goal {
                left += more;
                stream.rung = stream.above();
            }
        }
        if self.tell(cause) {
            if self.up.take().is_some_and(|up| now.since(up) <= 2 * HOLD) {
                self.hold = (2 * self.hold).min(LONGEST_HOLD);
                self.room = left;
            }
            self.changed = now;
            self.relief = ROOM.min(0.9 * self.full_load(scale));
        }
    }

    /// Takes steps down until the load is the goal; what it is then.
    fn give_up(&mut self, scale: f64, load: f64, goal: f64) -> f64 {
        let mut left = load;
        for &(id, rung) in &self.steps {
            if left <= goal {
                break;
            }
            let stream = &mut self.streams[id.index()];
            if stream.rung < rung {
                left -= scale * (stream.load(stream.rung) - stream.load(rung));
                stream.rung = rung;
            }
        }
        left
    }

    fn raise(&mut self, now: Instant) {
        let scale = self.pace.mean() / self.capacity();
        if self.full_load(scale) <= self.relief {
            (self.hold, self.room) = (HOLD, ROOM);
        }
        if now.since(self.changed) < self.hold {
            return;
        }
        let half_way = f64::midpoint(self.room, ROOM);
        self.room = if ROOM - half_way < CUT / 2.0 { ROOM } else { half_way };
        let room = self.room;
        let mut load = scale * self.load();
        for class in [Criticality::Normal, Criticality::BestEffort] {
            let lower = self.streams.iter().filter(|stream| stream.terms.criticality < class);
            let lower = scale * lower.map(|stream| stream.load(stream.rung)).sum::<f64>();
            let before = load;
            for &(id, rung) in self.steps.iter().rev() {
                let stream = &mut self.streams[id.index()];
                let ready = stream.terms.criticality == class && stream.rung == rung;
                if !ready || stream.told != stream.rung {
                    continue;
                }
                let more = scale * (stream.load(stream.above()) - stream.load(rung));
                if load - lower + more > room {
                    break;
                }
                load += more;
                stream.rung = stream.above();
            }
            if load > before {
                load = self.give_up(scale, load, room);
            }
        }
        self.changed = now;
        if self.tell(Cause::Room(load)) {
            self.up = Some(now);
        }
    }

    /// Load at full service for everybody.
    fn full_load(&self, scale: f64) -> f64 {
        scale * self.streams.iter().map(|stream| stream.load(Rung::Full)).sum::<f64>()
    }

    /// Notes whose rung is another; whether any is.
    fn tell(&mut self, cause: Cause) -> bool {
        let before = self.notices.len();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if stream.told != stream.rung {
                stream.told = stream.rung;
                let every = stream.rung.every();
                stream.group =
                    every.zip(stream.sequence).map(|(every, newest)| (newest + stream.turn) / every);
                self.notices.push_back(Notice::Rung(StreamId(index as u16), stream.rung, cause));
            }
        }
        self.notices.len() > before
    }
}

impl Stream {
    fn degraded(&self) -> bool {
        self.terms.served && self.rung != Rung::Full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(40);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_millis(ms)
    }

    fn terms(criticality: Criticality, share: f64) -> Terms {
        let (served, cheaper, freshness) = (true, None, None);
        Terms {
            criticality,
            period: PERIOD,
            latency_bound: PERIOD,
            served,
            share,
            cheaper,
            misses: (1, 10),
            freshness,
        }
    }

    /// One critical, two normal, two best-effort streams, a share of 0.18 each.
    fn five() -> Vec<Terms> {
        use Criticality::{BestEffort, Critical, Normal};
        [Critical, Normal, Normal, BestEffort, BestEffort].map(|class| terms(class, 0.18)).to_vec()
    }

    fn batches(watchdog: &mut Watchdog, now: Instant, times: usize, percent: u32) {
        let planned = Duration::from_millis(10);
        (0..times).for_each(|_| watchdog.batch_done(now, planned, planned * percent / 100));
    }

    fn rungs(watchdog: &mut Watchdog, now: Instant) -> Vec<Rung> {
        while watchdog.poll(now).is_some() {}
        (0..watchdog.streams.len()).map(|index| watchdog.rung(StreamId(index as u16))).collect()
    }

    #[test]
    fn one_slow_batch_moves_nothing_and_the_second_moves_as_far_as_needed() {
        use Rung::{Full, Half, Quarter, Shed};
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        batches(&mut watchdog, at(10), 1, 400);
        assert_eq!(rungs(&mut watchdog, at(10)), [Full; 5]);
        assert_eq!(rungs(&mut watchdog, at(60)), [Full; 5]);
        batches(&mut watchdog, at(60), 1, 150);
        // 1.35: after 28 ms work for 10 ms, a quarter of the bound, is left over.
        assert_eq!(rungs(&mut watchdog, at(85)), [Full; 5]);
        // Both best-effort streams at a quarter leave 0.945.
        assert_eq!(rungs(&mut watchdog, at(90)), [Full, Full, Full, Quarter, Quarter]);
        batches(&mut watchdog, at(90), 3, 250);
        // 2.25: 0.9, and no room for a quarter of one of the others.
        assert_eq!(rungs(&mut watchdog, at(120)), [Full, Half, Half, Shed, Shed]);
    }

    #[test]
    fn critical_streams_stay_whatever_happens() {
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        batches(&mut watchdog, at(0), 3, 10_000);
        watchdog.pressure(Pressure { thermal: 1.0, power: 1.0, cpu_steal: 1.0 });
        assert_eq!(rungs(&mut watchdog, at(10))[0], Rung::Full);
        assert_eq!(rungs(&mut watchdog, at(10))[1..], [Rung::Shed; 4]);
    }

    #[test]
    fn service_comes_back_a_rung_at_a_time() {
        use Rung::{Full, Half, Quarter, Shed};
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        batches(&mut watchdog, at(0), 3, 1000);
        let mut seen = Vec::new();
        for time in (0..10_000).step_by(100) {
            let now = rungs(&mut watchdog, at(time));
            if seen.last().is_none_or(|(_, last)| *last != now) {
                seen.push((time, now));
            }
            batches(&mut watchdog, at(time), 1, if time == 0 { 1000 } else { 100 });
        }
        let all = |rung| vec![Full, rung, rung, rung, rung];
        let expected =
            [(0, all(Full)), (100, all(Shed)), (2100, all(Quarter)), (4100, all(Half)), (6100, all(Full))];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_failed_probe_doubles_the_hold_and_the_loads_end_resets_it() {
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        let pressed = |thermal| Pressure { thermal, ..Pressure::default() };
        watchdog.pressure(pressed(0.5));
        rungs(&mut watchdog, at(0));
        let mut ups = Vec::new();
        for now in (0..20_000).step_by(100) {
            // Room as long as nobody uses it.
            watchdog.pressure(pressed(0.25));
            let before = rungs(&mut watchdog, at(now));
            let after = rungs(&mut watchdog, at(now + 10));
            if watchdog.up == Some(at(now)) {
                assert!(before.iter().zip(&after).all(|(before, after)| before == after));
                ups.push(now);
                watchdog.pressure(pressed(0.6));
                rungs(&mut watchdog, at(now + 50));
            }
        }
        let waits: Vec<_> = ups.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[0] >= 4000 && waits[1] >= 8000, "{ups:?}");
        watchdog.pressure(pressed(0.0));
        rungs(&mut watchdog, at(30_000));
        assert_eq!(watchdog.hold, HOLD);
    }

    #[test]
    fn misses_for_load_lower_somebody_and_old_ones_do_not_count_twice() {
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        let front = StreamId(0);
        watchdog.settled(front, at(10), false);
        watchdog.settled(front, at(50), false);
        assert_eq!(rungs(&mut watchdog, at(60)), [Rung::Full; 5], "the first had piled up before");
        watchdog.settled(front, at(90), false);
        let lower = rungs(&mut watchdog, at(100));
        assert_eq!((lower[0], lower[4]), (Rung::Full, Rung::Half));
        (60..140).for_each(|ms| watchdog.settled(front, at(ms), false));
        assert_eq!(rungs(&mut watchdog, at(110)), lower);
    }

    #[test]
    fn a_result_that_is_too_old_for_load_lowers_somebody() {
        let mut terms = five();
        terms[1].freshness = Some(Duration::from_millis(200));
        let mut watchdog = Watchdog::new(at(0), &terms, 1, false);
        assert_eq!(rungs(&mut watchdog, at(1000)), [Rung::Full; 5], "a silent camera is no load");
        watchdog.settled(StreamId(1), at(900), false);
        assert_ne!(rungs(&mut watchdog, at(1010)), [Rung::Full; 5]);
    }

    #[test]
    fn a_babbling_camera_takes_no_others_rung_and_a_missing_one_makes_room() {
        let terms = five();
        let mut watchdog = Watchdog::new(at(0), &terms, 1, true);
        (0..1000).for_each(|step| watchdog.arrived(StreamId(0), at(4 * step)));
        assert!((watchdog.demand() - 0.9).abs() < 1e-9);
        (0..100).for_each(|ms| watchdog.settled(StreamId(0), at(ms), false));
        assert_eq!(rungs(&mut watchdog, at(4000)), [Rung::Full; 5]);
        assert!(!watchdog.guaranteed(), "its premise does not hold");
        watchdog.absent(StreamId(0));
        assert!((watchdog.demand() - 0.72).abs() < 1e-9);
    }

    #[test]
    fn one_frame_of_a_group_passes_whatever_is_missing() {
        let mut watchdog = Watchdog::new(at(0), &five(), 1, false);
        let last = StreamId(4);
        watchdog.streams[4].rung = Rung::Quarter;
        let passed = |watchdog: &mut Watchdog, frames: &[u64]| -> Vec<u64> {
            frames.iter().copied().filter(|&frame| watchdog.passes(last, frame)).collect()
        };
        assert_eq!(passed(&mut watchdog, &[0, 1, 2, 3, 4, 5, 6, 7, 8]), [0, 4, 8]);
        assert_eq!(passed(&mut watchdog, &[13, 15, 17, 19, 21]), [13, 17, 21]);
        watchdog.streams[4].rung = Rung::Shed;
        assert!(passed(&mut watchdog, &[24, 28]).is_empty());
    }

    #[test]
    fn the_cheaper_model_comes_before_shedding() {
        let mut terms = five();
        terms[4].cheaper = Some(0.02);
        let mut watchdog = Watchdog::new(at(0), &terms, 1, false);
        batches(&mut watchdog, at(0), 3, 160);
        let now = rungs(&mut watchdog, at(100));
        assert!(watchdog.steps.contains(&(StreamId(4), Rung::Cheaper)));
        assert!(!watchdog.steps.contains(&(StreamId(3), Rung::Cheaper)));
        assert_eq!(now[4], Rung::Cheaper, "{now:?}");
    }
}
