//! The guarantee, tried on the real heart with a virtual clock: random boards, and for each a course of events
//! that the board allows. No frame of a stream that was admitted may be late, superseded or dropped.

mod common;

use common::{board, ms, stream};
use ocelli::board::{Board, Faults, SourceSpec};
use ocelli::job::Batch;
use ocelli::pipeline::{Effect, Pipeline};
use ocelli::random::Random;
use ocelli::sched::{Lack, Plan, Profile, Schedule, Service};
use ocelli::stats::Ledger;
use ocelli::stream::{Criticality, ModelId, StreamId};
use ocelli::time::Instant;
use std::time::Duration;

const SETS: u64 = 100_000;
/// What admission keeps free for decoding and publishing; all of it is used.
const TAIL: Duration = Duration::from_micros(500);

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
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

fn pick(random: &mut Random, below: u64) -> u64 {
    random.bits() % below
}

/// More streams than fit, most of the time: admission then takes as many as it dares.
fn random_board(random: &mut Random) -> (Board, Profile) {
    let models = 1 + pick(random, 3) * pick(random, 2);
    let (one_period, one_bound) = (pick(random, 2) == 0, pick(random, 2) == 0);
    let (first_period, first_bound) = (10_000 + pick(random, 30_000), 10_000 + pick(random, 60_000));
    let streams = (0..2 + pick(random, 9)).map(|index| {
        let period = if one_period { first_period } else { 10_000 + pick(random, 60_000) };
        let bound = if one_bound { first_bound } else { 5_000 + pick(random, 100_000) };
        let mut stream = stream(&format!("s{index}"), us(period), us(bound));
        stream.model = ModelId(if index == 0 { models - 1 } else { pick(random, models) } as u8);
        stream.criticality = [Criticality::Normal, Criticality::BestEffort][pick(random, 2) as usize];
        if pick(random, 3) == 0 {
            let jitter = us(pick(random, period / 3));
            stream.source = SourceSpec::Synthetic { phase: Duration::ZERO, jitter, seed: 0 };
        }
        if pick(random, 4) == 0 {
            stream.faults = Some(Faults { jitter: us(pick(random, period / 4)), ..Faults::default() });
        }
        stream
    });
    let board = board(streams.collect(), ms(1), ms(1), 1 + pick(random, 8) as u16);
    let tables = (0..models).map(|_| {
        let (a, c) = (pick(random, 8_000), 200 + pick(random, 4_000));
        // Half of the tables have only powers of two.
        let every = pick(random, 2) == 0;
        let sizes = (1..=board.accelerator.max_batch).filter(|size| every || size.is_power_of_two());
        let table = sizes.map(|size| {
            let planned = us(a + c * u64::from(size));
            (size, Service { fastest: planned / 2, planned })
        });
        table.collect()
    });
    let profile = Profile::new(tables.collect(), false);
    (board, profile)
}

/// A camera that does what its board allows: its releases are at least its period less its jitter apart.
struct Camera {
    sequence: u64,
    /// The undelayed release of the next frame, and its capture and arrival.
    grid: Instant,
    captured: Instant,
    arrival: Instant,
}

impl Camera {
    fn next(&mut self, board: &Board, index: usize, random: &mut Random) {
        let stream = &board.streams[index];
        let SourceSpec::Synthetic { jitter, .. } = stream.source else { unreachable!() };
        let late = stream.faults.as_ref().map_or(Duration::ZERO, |faults| faults.jitter);
        // The extremes are where it hurts.
        let mut extreme = |end: Duration| match random.bits() % 4 {
            0 => Duration::ZERO,
            1 => end,
            _ => random.below(end),
        };
        self.captured = self.grid + extreme(jitter);
        self.arrival = self.captured + extreme(late);
        self.sequence += 1;
        self.grid = self.grid + stream.period;
        // A frame is missing now and then, or the camera pauses: everybody's phases change.
        match random.bits() % 16 {
            0 => self.grid = self.grid + stream.period,
            1 => self.grid = self.grid + random.below(stream.period),
            _ => {}
        }
    }
}

/// What became of each stream's frames.
fn run(board: &Board, profile: &Profile, random: &mut Random, places: usize, frames: u64) -> Vec<Ledger> {
    let schedule = Schedule::admit(board, profile.clone()).expect("nothing is critical");
    let served: Vec<bool> = schedule.streams().iter().map(|stream| stream.served).collect();
    let batches = (0..places + 2).map(|_| Box::new(Batch::with_capacity(8))).collect();
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut heart = Pipeline::new(now, board, schedule, batches, places);
    let mut cameras: Vec<Camera> = (0..board.streams.len())
        .map(|_| Camera { sequence: 0, grid: now, captured: now, arrival: now })
        .collect();
    let together = pick(random, 3) == 0;
    for (index, camera) in cameras.iter_mut().enumerate() {
        if !together {
            camera.grid = now + random.below(board.streams[index].period);
        }
        camera.next(board, index, random);
    }
    // How the accelerator behaves: as planned, or quicker, sometimes or always.
    let quicker = pick(random, 3);
    let mut running: Vec<(Instant, Box<Batch<()>>)> = Vec::new();
    loop {
        while let Some(effect) = heart.poll(now) {
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
                    for member in batch.jobs.drain(..) {
                        heart.settled(&member.job, now + TAIL, true);
                    }
                    heart.batch_returned(batch);
                }
                Effect::Dropped(..) | Effect::Changed(_) | Effect::Set(_) => {}
            }
        }
        let due = (0..cameras.len())
            .filter(|&index| served[index] && cameras[index].sequence <= frames)
            .min_by_key(|&index| cameras[index].arrival);
        let done = (0..running.len()).min_by_key(|&index| running[index].0);
        now = match (due, done) {
            (None, None) => break,
            (Some(camera), done) if done.is_none_or(|d| cameras[camera].arrival < running[d].0) => {
                let at = cameras[camera].arrival;
                let Camera { sequence, captured, .. } = cameras[camera];
                heart.frame_arrived(at, StreamId(camera as u16), sequence, captured, ());
                cameras[camera].next(board, camera, random);
                // Never before the frame ahead of it.
                cameras[camera].arrival = cameras[camera].arrival.max(at);
                at
            }
            (_, Some(done)) => {
                let (at, batch) = running.swap_remove(done);
                heart.batch_done(batch);
                at
            }
            (Some(_), None) => unreachable!("an arrival goes first when nothing runs"),
        };
    }
    heart.totals().map(|totals| totals.ledger).collect()
}

/// 100,000 boards: mixed periods, bounds, models, criticalities and tables, one or two places; services
/// shorter than planned, frames missing, jitter.
#[test]
fn no_guaranteed_frame_misses() {
    let (mut served, mut crowded, mut frames) = (0, 0, 0);
    for seed in 0..SETS {
        let mut random = Random::new(seed);
        let (board, profile) = random_board(&mut random);
        let places = 1 + pick(&mut random, 4) as usize / 3;
        let ledgers = run(&board, &profile, &mut random, places, 40);
        for (index, ledger) in ledgers.iter().enumerate() {
            assert_eq!(ledger.met, ledger.captured, "board {seed}, stream {index}: {ledger:?}\n{board:#?}");
            frames += ledger.captured;
        }
        let here = ledgers.iter().filter(|ledger| ledger.captured > 0).count();
        served += here;
        crowded += usize::from(here >= 3);
    }
    assert!(served > 200_000 && crowded > 30_000 && frames > 8_000_000, "{served} {crowded} {frames}");
}
