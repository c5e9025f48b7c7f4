//! Cameras on hardware triggers: what fits, by hand, and random boards on the real heart with a virtual clock. No
//! frame of a stream that was admitted may be late, superseded or dropped.

mod common;

use common::{TAIL, board, ms, stream};
use ocelli::board::{Board, Faults, Trigger};
use ocelli::job::Batch;
use ocelli::pipeline::{Effect, Pipeline};
use ocelli::random::Random;
use ocelli::sched::{Plan, Profile, Releases, Schedule, Service, Untimed};
use ocelli::stats::Ledger;
use ocelli::stream::{Criticality, ModelId, StreamId};
use ocelli::time::Instant;
use ocelli::watchdog::{HOLD, Pressure};
use std::time::Duration;

const SETS: u64 = 60_000;

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn pick(random: &mut Random, below: u64) -> u64 {
    random.bits() % below
}

fn trigger(group: u64, offset: Duration, jitter: Duration) -> Option<Trigger> {
    Some(Trigger { id: format!("t{group}"), offset, jitter })
}

fn linear(board: &Board, intercept: Duration, slope: Duration) -> Profile {
    let table: Vec<_> = (1..=board.accelerator.max_batch)
        .map(|size| {
            let l = intercept + slope * u32::from(size);
            (size, Service { fastest: l, planned: l })
        })
        .collect();
    Profile::new(vec![table; board.models.len()], false)
}

/// More streams than fit, most of the time.
fn random_board(random: &mut Random) -> (Board, Profile) {
    let models = 1 + pick(random, 3) * pick(random, 2);
    let period = 10_000 + pick(random, 50_000);
    let groups = 1 + pick(random, 4);
    let evenly = pick(random, 2) == 0;
    let triggers: Vec<_> = (0..groups)
        .map(|group| {
            let within = if evenly { 0 } else { pick(random, period / groups / 2) };
            let jitter = pick(random, 3).min(1) * pick(random, period / groups / 3);
            trigger(group, us(period * group / groups + within), us(jitter))
        })
        .collect();
    let one_bound = pick(random, 2) == 0;
    let first_bound = period / 4 + pick(random, 2 * period);
    let streams = (0..2 + pick(random, 11)).map(|index| {
        let bound = if one_bound { first_bound } else { period / 4 + pick(random, 2 * period) };
        let mut stream = stream(&format!("s{index}"), us(period), us(bound));
        stream.model = ModelId(if index == 0 { models - 1 } else { pick(random, models) } as u8);
        stream.criticality = [Criticality::Normal, Criticality::BestEffort][pick(random, 2) as usize];
        stream.trigger = triggers[pick(random, groups) as usize].clone();
        if pick(random, 6) == 0 {
            stream.faults = Some(Faults { jitter: us(pick(random, period / 8)), ..Faults::default() });
        }
        stream
    });
    let board = board(streams.collect(), ms(1), ms(1), 1 + pick(random, 8) as u16);
    let tables = (0..models).map(|_| {
        let (a, c) = (pick(random, 6_000), 200 + pick(random, 4_000));
        let every = pick(random, 2) == 0;
        let sizes = (1..=board.accelerator.max_batch).filter(|size| every || size.is_power_of_two());
        let table = sizes.map(|size| {
            let planned = us(a + c * u64::from(size));
            (size, Service { fastest: planned / 2, planned })
        });
        table.collect()
    });
    let profile = Profile::new(tables.collect(), false);
    let profile = profile.with_decodings(common::decodings(random, models));
    (board, profile)
}

/// A camera that does what its board allows.
struct Camera {
    sequence: u64,
    /// The instant of its next frame, and that frame's capture and arrival.
    instant: Instant,
    captured: Instant,
    arrival: Instant,
    /// One of this many frames is missing.
    missing: u64,
    /// Whether its stamps are always as early, or as late, as they may be.
    steady: Option<bool>,
}

impl Camera {
    fn next(&mut self, board: &Board, index: usize, random: &mut Random) {
        let stream = &board.streams[index];
        let late = stream.faults.as_ref().map_or(Duration::ZERO, |faults| faults.jitter);
        let jitter = stream.trigger.as_ref().expect("all are triggered").jitter;
        // The extremes are where it hurts.
        let steady = self.steady;
        let mut extreme = |end: Duration| match (steady, random.bits() % 4) {
            (Some(false), _) | (None, 0) => Duration::ZERO,
            (Some(true), _) | (None, 1) => end,
            _ => random.below(end),
        };
        self.captured = self.instant + extreme(jitter);
        self.arrival = (self.captured + extreme(late)).max(self.arrival);
        self.sequence += 1;
        self.instant = self.instant + stream.period;
        while self.missing > 0 && pick(random, self.missing) == 0 {
            self.instant = self.instant + stream.period;
        }
    }
}

/// What became of each stream's frames. Where there is more `load` than fits, that is known before the first of them.
fn run(
    (board, schedule, profile): (&Board, Schedule, &Profile),
    random: &mut Random,
    (places, frames): (usize, u64),
    load: bool,
) -> Vec<Ledger> {
    let served: Vec<bool> = schedule.streams().iter().map(|stream| stream.served).collect();
    let batches = (0..places + 2).map(|_| Box::new(Batch::with_capacity(8))).collect();
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut heart = Pipeline::new(now, board, schedule, batches, places);
    let missing = [0, 0, 3, 20][pick(random, 4) as usize];
    let extremes = pick(random, 2) == 0;
    let cameras = board.streams.iter().map(|stream| Camera {
        sequence: 0,
        instant: now + stream.trigger.as_ref().expect("all are triggered").offset,
        captured: now,
        arrival: now,
        missing,
        steady: (extremes && pick(random, 3) > 0).then(|| pick(random, 2) == 0),
    });
    let mut cameras: Vec<Camera> = cameras.collect();
    (0..cameras.len()).for_each(|index| cameras[index].next(board, index, random));
    // How the accelerator behaves: as planned, or quicker, sometimes or always.
    let quicker = pick(random, 3);
    let mut running: Vec<(Instant, Box<Batch<()>>)> = Vec::new();
    let mut publisher = common::Publisher::default();
    // Fewer frames have come than the heart awaits, and nothing else has happened: no batch may start.
    let mut quiet = false;
    // The ladder is down for that long at least.
    let until = now + if load { HOLD } else { Duration::MAX };
    if load {
        heart.pressure(Pressure { thermal: 0.01, ..Pressure::default() });
        while heart.poll(now).is_some() {}
        heart.pressure(Pressure::default());
    }
    loop {
        while let Some(effect) = heart.poll(now) {
            assert!(!quiet || !matches!(effect, Effect::Submit(_)), "{effect:?} before what it awaits");
            match effect {
                Effect::Submit(batch) => {
                    let planned = profile
                        .service(batch.model, batch.jobs.len() as u16)
                        .expect("a size that there is")
                        .planned;
                    let short = quicker == 2 || (quicker == 1 && pick(random, 3) == 0);
                    let service = if short { planned / 2 + random.below(planned / 2) } else { planned };
                    running.push((now + service, batch));
                }
                Effect::Conclude(mut batch) => {
                    let decoding = profile.decoding(batch.model);
                    // Theorem 2 is about usual frames.
                    let most = if load { decoding.usual } else { decoding.most };
                    for member in batch.jobs.drain(..) {
                        heart.settled(&member.job, publisher.publish(now, most, random), true, None);
                    }
                    heart.batch_returned(batch);
                }
                Effect::Dropped(..) | Effect::Changed(_) | Effect::Certified(_) | Effect::Set(_) => {}
            }
        }
        let due = |cameras: &[Camera]| {
            (0..cameras.len())
                .filter(|&index| {
                    served[index] && cameras[index].sequence <= frames && cameras[index].arrival < until
                })
                .min_by_key(|&index| cameras[index].arrival)
        };
        let arrival = due(&cameras).map(|camera| cameras[camera].arrival);
        let end = running.iter().map(|&(end, _)| end).min();
        let Some(next) = [arrival, end, heart.poll_at()].into_iter().flatten().min() else { break };
        now = next;
        let mut missing = heart.awaited().unwrap_or(usize::MAX);
        quiet = heart.poll_at().is_none_or(|at| now < at) && end.is_none_or(|end| now < end);
        // All that happens at one instant is told before the heart is asked.
        while let Some(camera) = due(&cameras).filter(|&camera| cameras[camera].arrival == now) {
            missing = missing.saturating_sub(1);
            let Camera { sequence, captured, .. } = cameras[camera];
            heart.frame_arrived(now, StreamId(camera as u16), sequence, captured, ());
            cameras[camera].next(board, camera, random);
        }
        while let Some(done) = running.iter().position(|&(end, _)| end == now) {
            heart.batch_done(running.swap_remove(done).1);
        }
        // Under load what is waited for is an estimate.
        quiet &= missing > 0 && !load;
    }
    heart.totals().map(|totals| totals.ledger).collect()
}

/// 60,000 boards: one to four triggers, bounds, models, criticalities and tables, one or two places; services
/// shorter than planned, frames missing, stamps and arrivals as far apart as they may be.
#[test]
fn no_guaranteed_frame_misses() {
    let (mut frames, mut aligned, mut groups, mut crowded) = (0, 0, 0, 0);
    for seed in 0..SETS {
        let mut random = Random::new(seed);
        let (board, profile) = random_board(&mut random);
        let places = 1 + pick(&mut random, 4) as usize / 3;
        let schedule = Schedule::admit(&board, profile.clone()).expect("nothing is critical");
        let served = schedule.streams().iter().filter(|stream| stream.served).count();
        aligned += usize::from(schedule.releases() == Releases::Aligned && served > 0);
        groups += usize::from(schedule.releases() == Releases::Groups);
        crowded += usize::from(schedule.releases() != Releases::Free && served >= 3);
        let ledgers = run((&board, schedule, &profile), &mut random, (places, 24), false);
        for (index, ledger) in ledgers.iter().enumerate() {
            assert_eq!(ledger.met, ledger.captured, "board {seed}, stream {index}: {ledger:?}\n{board:#?}");
            frames += ledger.captured;
        }
    }
    assert!(
        aligned > 10_000 && groups > 10_000 && crowded > 20_000 && frames > 3_000_000,
        "{aligned} {groups} {crowded} {frames}"
    );
}

/// Boards of which a third is critical, with more beside it than fits, on one trigger or several: no critical frame is
/// missed while that is known.
#[test]
fn critical_frames_are_safe_whatever_is_offered_beside_them() {
    let (mut sets, mut aligned, mut critical_frames, mut lost) = (0, 0, 0, 0);
    for seed in 0..SETS {
        let mut random = Random::new(seed);
        let (mut board, profile) = random_board(&mut random);
        for stream in &mut board.streams {
            if pick(&mut random, 3) == 0 {
                stream.criticality = Criticality::Critical;
            }
        }
        let is_critical = |index: usize| board.streams[index].criticality == Criticality::Critical;
        let critical = (0..board.streams.len()).filter(|&index| is_critical(index)).count();
        let places = 1 + pick(&mut random, 4) as usize / 3;
        let schedule = Schedule::overcommitted_for_measuring(&board, profile.clone().with_places(places));
        let mixed = critical > 0 && critical < board.streams.len();
        let loaded = schedule.utilisation() > places as f64 && schedule.releases() != Releases::Free;
        if !mixed || !loaded || !schedule.critical_certain() {
            continue;
        }
        sets += 1;
        aligned += usize::from(schedule.releases() == Releases::Aligned);
        let ledgers = run((&board, schedule, &profile), &mut random, (places, 200), true);
        for (index, ledger) in ledgers.iter().enumerate() {
            let missed = ledger.captured - ledger.met;
            if is_critical(index) {
                assert_eq!(missed, 0, "board {seed}, stream {index}: {ledger:?}\n{board:#?}\n{profile:?}");
                critical_frames += ledger.captured;
            } else {
                lost += missed;
            }
        }
    }
    assert!(
        sets > 4_000 && aligned > 1_000 && critical_frames > 100_000 && lost > 1_000_000,
        "{sets} {aligned} {critical_frames} {lost}"
    );
}

/// `each` streams on each of the triggers at these offsets, jitter included.
fn grouped(each: usize, offsets: &[u64], period: Duration, bound: Duration, jitter: Duration) -> Board {
    let streams = (0..each * offsets.len()).map(|index| {
        let group = index % offsets.len();
        let mut stream = stream(&format!("s{index}"), period, bound);
        stream.trigger = trigger(group as u64, ms(offsets[group]), jitter);
        stream
    });
    board(streams.collect(), ms(2), ms(1), 64)
}

/// l(b) = 2 ms + b * 1 ms.
fn plan(board: &Board) -> Plan {
    Plan::new(board, &linear(board, ms(2), ms(1)))
}

fn bound(millis: u64) -> Duration {
    ms(millis) + TAIL
}

#[test]
fn aligned_streams_fit_exactly() {
    // a + cN <= D - J: 2 + N <= 20 - 3. With one more, free-running does: 2a + cN <= 20.
    let planned = plan(&grouped(15, &[0], ms(100), bound(20), ms(3)));
    assert_eq!((planned.admitted, planned.max_streams, planned.releases), (true, 16, Releases::Aligned));
    assert_eq!(planned.streams[0].response, Ok((bound(20), ms(0))));
    let planned = plan(&grouped(18, &[0], ms(100), bound(20), ms(0)));
    assert_eq!((planned.admitted, planned.max_streams, planned.releases), (true, 18, Releases::Aligned));
    assert!(planned.streams.iter().all(|stream| stream.response == Ok((bound(20), ms(0)))));
    // With one more than fits the least critical gives way.
    assert!(!plan(&grouped(19, &[0], ms(100), bound(20), ms(0))).admitted);
}

#[test]
fn a_bound_as_long_as_the_period_leaves_room_for_the_jitter() {
    // 2 + N <= 20.5 - 0.5 - 1, with the bound as long as the period.
    let planned = plan(&grouped(17, &[0], us(20_500), us(20_500), ms(1)));
    assert_eq!((planned.admitted, planned.max_streams, planned.releases), (true, 17, Releases::Aligned));
}

#[test]
fn small_batches_pay_their_intercept_each() {
    // ceil(N/4) * 2 + N <= 20: N = 12 takes 18, 13 takes 21.
    let mut board = grouped(12, &[0], ms(100), bound(20), ms(0));
    board.accelerator.max_batch = 4;
    let planned = plan(&board);
    assert_eq!((planned.admitted, planned.max_streams, planned.releases), (true, 12, Releases::Aligned));
}

#[test]
fn groups_share_the_period() {
    // Two groups 20 ms apart, bound 20 ms: each 2 + n <= 20.
    let planned = plan(&grouped(18, &[0, 20], ms(40), bound(20), ms(0)));
    assert_eq!((planned.admitted, planned.max_streams, planned.releases), (true, 36, Releases::Groups));
    // 10 ms apart the second waits for what is left of the first: 2 + n1 + 2 + n2 <= 30 ms and each of them <= 20;
    // with equal groups 4 + 2n <= 30.
    let planned = plan(&grouped(13, &[0, 10], ms(40), bound(20), ms(0)));
    assert_eq!((planned.admitted, planned.max_streams), (true, 26));
    assert_eq!(planned.streams[0].response, Ok((bound(15), ms(5))));
    assert_eq!(planned.streams[1].response, Ok((bound(20), ms(0))));
    // Evenly spread, 2 * (20 - 2) fit; that is said.
    assert_eq!(planned.groups, Some((2, 36)));
}

#[test]
fn work_that_outlasts_the_period_never_fits() {
    // Bounds of 100 ms would allow more; 2 + N <= 40 is what a period has room for.
    let planned = plan(&grouped(38, &[0], ms(40), ms(100), ms(0)));
    assert_eq!((planned.admitted, planned.max_streams), (true, 38));
}

#[test]
fn models_of_an_instant_run_one_after_the_other() {
    // 2 + n1 + 2 + n2 <= 20: eight of each.
    let mut board = grouped(16, &[0], ms(100), bound(20), ms(0));
    board.models.push(common::model("m1"));
    board.streams.iter_mut().skip(8).for_each(|stream| stream.model = ModelId(1));
    let planned = plan(&board);
    assert_eq!((planned.admitted, planned.releases), (true, Releases::Aligned));
    assert!(planned.streams.iter().all(|stream| stream.response == Ok((bound(20), ms(0)))));
}

#[test]
fn what_is_not_wholly_timed_is_planned_for_any_phases() {
    let mut mixed = grouped(4, &[0], ms(100), bound(20), ms(0));
    mixed.streams[2].trigger = None;
    let planned = plan(&mixed);
    assert_eq!((planned.releases, planned.untimed), (Releases::Free, Some(Untimed::NoTrigger(2))));
    let mut periods = grouped(4, &[0], ms(100), bound(20), ms(0));
    periods.streams[3].period = ms(50);
    assert_eq!(plan(&periods).untimed, Some(Untimed::Period(3)));
    let touching = plan(&grouped(2, &[0, 3], ms(100), bound(20), ms(3)));
    assert_eq!((touching.releases, touching.max_streams), (Releases::Free, 16));
    assert_eq!(touching.untimed, Some(Untimed::Window(1)));
    let free = board(vec![stream("s", ms(100), bound(20))], ms(2), ms(1), 64);
    assert_eq!((plan(&free).releases, plan(&free).untimed), (Releases::Free, None));
}

/// What the heart does with these frames (instant of arrival in ms, stream, stamp in ms): batch starts and sizes.
fn batches(board: &Board, frames: &[(u64, u16, u64)]) -> Vec<(u64, usize)> {
    let at = |millis: u64| Instant::from_nanos(1_000_000_000) + ms(millis);
    let schedule = Schedule::admit(board, linear(board, ms(2), ms(1))).expect("all fit");
    let spare = (0..3).map(|_| Box::new(Batch::with_capacity(64))).collect();
    let mut heart = Pipeline::new(at(0), board, schedule, spare, 1);
    let (mut frames, mut seen) = (frames.iter().peekable(), Vec::new());
    let (mut now, mut running) = (at(0), None);
    loop {
        while let Some(effect) = heart.poll(now) {
            match effect {
                Effect::Submit(batch) => {
                    seen.push((now.since(at(0)).as_millis() as u64, batch.jobs.len()));
                    running = Some((now + ms(2 + batch.jobs.len() as u64), batch));
                }
                Effect::Conclude(batch) => heart.batch_returned(batch),
                Effect::Dropped(..) | Effect::Changed(_) | Effect::Certified(_) | Effect::Set(_) => {}
            }
        }
        let arrival = frames.peek().map(|frame| at(frame.0));
        let end = running.as_ref().map(|(end, _)| *end);
        let Some(next) = [arrival, end, heart.poll_at()].into_iter().flatten().min() else { return seen };
        now = next;
        while let Some(&(_, stream, stamp)) = frames.next_if(|frame| at(frame.0) == now) {
            heart.frame_arrived(now, StreamId(stream), stamp, at(stamp), ());
        }
        if end == Some(now) {
            running.take().into_iter().for_each(|(_, batch)| heart.batch_done(batch));
        }
    }
}

#[test]
fn an_instant_starts_when_its_frames_are_there_or_its_window_has_passed() {
    let board = grouped(3, &[0], ms(100), ms(60), ms(4));
    assert_eq!(batches(&board, &[(10, 0, 10), (11, 1, 11), (13, 2, 13)]), [(13, 3)]);
    assert_eq!(batches(&board, &[(10, 0, 10), (11, 1, 11)]), [(14, 2)], "one is missing");
    assert_eq!(
        batches(&board, &[(10, 0, 10), (11, 1, 11), (30, 2, 12)]),
        [(14, 2), (30, 1)],
        "late: at once"
    );
}

#[test]
fn instants_do_not_share_a_batch() {
    let board = grouped(2, &[0, 5], ms(100), ms(60), ms(1));
    let frames = [(0, 0, 0), (0, 2, 0), (5, 1, 5), (5, 3, 5), (100, 0, 100), (100, 2, 100)];
    assert_eq!(batches(&board, &frames), [(0, 2), (5, 2), (100, 2)]);
    // The second instant comes while the first is at work, and is held until it is there as a whole.
    let frames = [(4, 0, 4), (4, 2, 4), (5, 1, 5), (6, 3, 6)];
    assert_eq!(batches(&board, &frames), [(4, 2), (8, 2)]);
}
