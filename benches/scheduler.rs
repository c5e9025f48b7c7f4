//! What the scheduler costs a frame: letting it wait, learning its phase, and its share of the decisions about
//! batches, on a virtual clock, with the accelerator loaded to four fifths of what it can do in full batches.
//! Prints nanoseconds a frame at 16, 64 and 256 streams, free-running and triggered together, and how they grow
//! against log N.
#![allow(clippy::print_stdout)] // What a bench prints is its result.

#[path = "../tests/common/mod.rs"]
mod common;

use ocelli::board::SourceSpec;
use ocelli::job::{Batch, Job};
use ocelli::random::Random;
use ocelli::sched::{Schedule, Scheduler};
use ocelli::stream::StreamId;
use ocelli::time::Instant;
use std::hint::black_box;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(40);
const JITTER: Duration = Duration::from_micros(800);
const CAP: u16 = 16;
const LOAD: f64 = 0.8;
const LEARNING: u32 = 20;
const PERIODS: u32 = 50;
const ROUNDS: usize = 11;

fn main() {
    for (what, free) in [("free-running", true), ("triggered together", false)] {
        let costs = [16, 64, 256].map(|streams| (streams, cost(streams, free)));
        for (streams, nanos) in costs {
            println!("scheduler/{what}, {streams:3} streams: {nanos:6.0} ns a frame");
        }
        println!("scheduler/{what}, 256 against 16: {:.2} (log N: 2.00)", costs[2].1 / costs[0].1);
    }
    println!("aims: 2000 ns at 16 and 5000 ns at 256 streams");
}

/// Median over rounds of nanoseconds a frame.
fn cost(streams: u16, free: bool) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS as u64).map(|seed| round(streams, free, seed)).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn round(streams: u16, free: bool, seed: u64) -> f64 {
    // A period has room for every stream's frame in full batches, a fifth of which is overhead.
    let each = PERIOD.mul_f64(LOAD / f64::from(streams));
    let (intercept, slope) = (each.mul_f64(0.2 * f64::from(CAP.min(streams))), each.mul_f64(0.8));
    let cameras = (0..streams).map(|index| {
        let mut camera = common::stream(&index.to_string(), PERIOD, PERIOD);
        camera.source = SourceSpec::Synthetic { phase: Duration::ZERO, jitter: JITTER, seed: 0 };
        camera
    });
    let board = common::board(cameras.collect(), intercept, slope, CAP);
    let schedule = Schedule::admit(&board, common::profile(&board)).expect("nothing is critical");
    assert!(schedule.streams().iter().all(|stream| stream.served), "the load is below one");
    let mut random = Random::new(seed);
    let mut releases: Vec<(Instant, StreamId, u64)> = (0..streams)
        .flat_map(|index| {
            let phase = if free { random.below(PERIOD) } else { Duration::ZERO };
            let seed = random.bits();
            (0..LEARNING + PERIODS).map(move |frame| {
                let late = Random::at(seed, frame.into()).below(JITTER);
                let at = Duration::from_secs(1) + phase + PERIOD * frame + late;
                (Instant::default() + at, StreamId(index), frame.into())
            })
        })
        .collect();
    releases.sort_unstable();
    let mut heart = Driver {
        scheduler: Scheduler::new(schedule),
        batch: Batch::with_capacity(CAP.into()),
        intercept,
        slope,
        free_at: Instant::default(),
        started: 0,
    };
    let learning = releases.partition_point(|release| release.2 < u64::from(LEARNING));
    heart.run(&releases[..learning]);
    let (counted, before) = (&releases[learning..], cpu());
    heart.run(counted);
    let nanos = (cpu() - before).as_nanos() as f64 / counted.len() as f64;
    assert!(heart.started * 100 >= releases.len() * 95, "{} of {}", heart.started, releases.len());
    nanos
}

/// What this thread has computed so far: others on the machine do not count.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

struct Driver {
    scheduler: Scheduler<()>,
    batch: Batch<()>,
    intercept: Duration,
    slope: Duration,
    free_at: Instant,
    started: usize,
}

impl Driver {
    /// Everything that the scheduler is asked until the last of these frames has come.
    fn run(&mut self, releases: &[(Instant, StreamId, u64)]) {
        for &(captured, stream, sequence) in releases {
            while let Some(at) = self.next().filter(|&at| at < captured) {
                self.decide(at);
            }
            let model = self.scheduler.schedule().stream(stream).model;
            let job =
                Job { stream, sequence, model, captured, arrived: captured, deadline: captured + PERIOD };
            self.scheduler.push(captured, job, ());
            if self.free_at <= captured {
                self.decide(captured);
            }
        }
    }

    /// When the accelerator becomes free, or what was held back is looked at again.
    fn next(&self) -> Option<Instant> {
        if self.free_at > Instant::default() { Some(self.free_at) } else { self.scheduler.poll_at() }
    }

    fn decide(&mut self, now: Instant) {
        self.free_at = Instant::default();
        self.scheduler.advance(now);
        let filled = self.scheduler.fill(now, 1, &mut self.batch);
        while let Some(ended) = self.scheduler.pop_ended() {
            black_box(ended);
        }
        if filled {
            let jobs = self.batch.jobs.len();
            self.started += jobs;
            self.free_at = now + self.intercept + self.slope * jobs as u32;
            self.batch.clear();
        }
    }
}
