//! What a sick camera costs the others, on real threads: paired runs of `boards/simulated.toml`, with all well and with one
//! camera sick: from its 30th frame on, or from its first where it is too fast or its frames are noise. The others' lost and late frames and their latencies are compared, and what healthy
//! runs differ by among themselves stands beside it.
//! `cargo bench --bench isolation -- SECONDS ROUNDS` sets a run's length (4) and how many pairs (5).
//!
//! The sick camera is critical, and a member of the board's set of three: where it is silent, the others' results are those of a
//! set with a missing member.
#![allow(clippy::print_stdout)] // What a bench prints is its result.

#[path = "../tests/common/mod.rs"]
mod common;

use common::running;
use ocelli::board::{Board, Faults, Stream};
use ocelli::capture::{self, Captured, Next, Opened, Resources, Source, SourceError};
use ocelli::job::Lost;
use ocelli::platform::clock;
use ocelli::sched::Profile;
use ocelli::sim;
use ocelli::stats::Histogram;
use ocelli::time::Instant;
use std::path::Path;
use std::time::Duration;

/// Which camera falls ill.
const CULPRIT: usize = 1;
/// Its frames before that.
const HEALTHY: u64 = 30;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What ails the camera.
#[derive(Clone, Copy, Debug)]
enum Illness {
    /// No more frames.
    Silent,
    /// Frames arrive so long after their capture.
    Late(Duration),
    /// So many times its rate.
    Burst(u32),
    /// Every second of frames its clock jumps to and fro by this.
    Jump(Duration),
    /// Its frames are noise.
    Corrupt,
    /// It fails whenever it has been opened.
    Broken,
}

const ILLNESSES: [Illness; 6] = [
    Illness::Silent,
    Illness::Late(Duration::from_secs(3)),
    Illness::Burst(10),
    Illness::Jump(Duration::from_secs(1)),
    Illness::Corrupt,
    Illness::Broken,
];

/// How the others fared: late and lost frames, and latencies in ms at [`QUANTILES`].
struct Fared {
    frames: u64,
    missed: u64,
    latency: [f64; QUANTILES.len()],
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let time = Duration::from_secs_f64(numbers.next().unwrap_or(4.0));
    let rounds = numbers.next().map_or(5, |rounds| rounds as usize).max(1);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/simulated.toml");
    let board = Board::load(&file).expect("a board of this project");
    let service = sim::service_of(&board).expect("a simulated accelerator");
    let profile = sim::profile(&board, &service);

    let mut healthy = Vec::new();
    let mut sick: Vec<Vec<Fared>> = ILLNESSES.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (illness, runs) in ILLNESSES.iter().zip(&mut sick) {
            healthy.push(run(&board, profile.clone(), None, time));
            runs.push(run(&board, profile.clone(), Some(*illness), time));
        }
    }
    println!("the {} others: latency in ms, median of runs of {time:.1?}", board.streams.len() - 1);
    print!("{:<16} {:>5} {:>8} {:>7}", "camera 1 is", "runs", "frames", "missed");
    QUANTILES.iter().for_each(|(name, _)| print!(" {name:>24}"));
    println!();
    show("well", &healthy, |at| {
        let [least, most] = span(&healthy, at);
        format!("[{least:.2}, {most:.2}]")
    });
    for (number, (illness, runs)) in ILLNESSES.iter().zip(&sick).enumerate() {
        let name = match illness {
            Illness::Late(by) => format!("late by {by:.0?}"),
            Illness::Burst(times) => format!("bursting {times}x"),
            Illness::Jump(by) => format!("jumping {by:.0?}"),
            other => format!("{other:?}").to_lowercase(),
        };
        show(&name, runs, |at| {
            let pairs = healthy.iter().skip(number).step_by(ILLNESSES.len()).zip(runs);
            let more = median(pairs.map(|(well, ill)| ill.latency[at] - well.latency[at]));
            let [least, most] = span(&healthy, at);
            let within = if more <= most - least { "within" } else { "MORE" };
            format!("({more:+.2} {within})")
        });
    }
    println!(
        "(in brackets: least and most of the healthy runs; the median difference of the pairs, and whether it is"
    );
    println!(" within what the healthy runs differ by)");
}

fn show(name: &str, runs: &[Fared], beside: impl Fn(usize) -> String) {
    let (frames, missed) = runs.iter().fold((0, 0), |(f, m), run| (f + run.frames, m + run.missed));
    print!("{name:<16} {:>5} {frames:>8} {missed:>7}", runs.len());
    for at in 0..QUANTILES.len() {
        let latency = median(runs.iter().map(|run| run.latency[at]));
        print!(" {:>24}", format!("{latency:.2} {}", beside(at)));
    }
    println!();
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The least and the most of runs.
fn span(runs: &[Fared], at: usize) -> [f64; 2] {
    let values = runs.iter().map(|run| run.latency[at]);
    values.fold([f64::MAX, f64::MIN], |[least, most], value| [least.min(value), most.max(value)])
}

fn run(board: &Board, profile: Profile, illness: Option<Illness>, time: Duration) -> Fared {
    let mut board = board.clone();
    board.streams[CULPRIT].faults = match illness {
        Some(Illness::Silent) => {
            Some(Faults { stall_at: Some(HEALTHY), stall: 2 * time, ..Faults::default() })
        }
        Some(Illness::Corrupt) => Some(Faults { corrupt: 1.0, ..Faults::default() }),
        _ => None,
    };
    let sources = board.streams.iter().enumerate().map(|(index, stream)| match illness {
        Some(illness) if index == CULPRIT => Sick::source(stream, illness),
        _ => capture::open(stream),
    });
    let run = running::start_planned(&board, sources.collect(), profile);
    clock::sleep_until(clock::now() + time);
    let finished = run.stop();
    assert!(finished.total().balances(), "{:?}", finished.total());
    let mut fared = Fared { frames: 0, missed: 0, latency: [0.0; QUANTILES.len()] };
    let mut latency = Histogram::default();
    for (index, totals) in finished.streams().iter().enumerate() {
        if index != CULPRIT {
            fared.frames += totals.ledger.captured;
            fared.missed += totals.ledger.captured - totals.ledger.met;
            latency.add(&totals.latency);
        }
    }
    let lost = fared.frames - latency.count();
    for (value, (_, quantile)) in fared.latency.iter_mut().zip(QUANTILES) {
        let at = latency.quantile_with_lost(quantile, lost);
        *value = at.map_or(f64::INFINITY, |latency| latency.as_secs_f64() * 1e3);
    }
    fared
}

/// A camera that falls ill.
struct Sick {
    inner: Box<dyn Source>,
    illness: Illness,
}

impl Sick {
    fn source(stream: &Stream, illness: Illness) -> Box<dyn Source> {
        let inner = match illness {
            // A camera's own clock: it is too fast from its first frame on.
            Illness::Burst(times) => {
                capture::open(&Stream { period: stream.period / times, ..stream.clone() })
            }
            _ => capture::open(stream),
        };
        Box::new(Self { inner, illness })
    }
}

impl Source for Sick {
    fn resume(&mut self, next: u64) {
        self.inner.resume(next);
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.inner.open(resources)
    }

    fn next(&mut self, until: Instant) -> Next {
        let mut next = self.inner.next(until);
        let Next::Frame(Captured { sequence, captured, .. }) = &mut next else { return next };
        if *sequence < HEALTHY {
            return next;
        }
        match self.illness {
            Illness::Broken => return Next::Failed(SourceError::new("it is broken", "mend it")),
            Illness::Late(by) => *captured = captured.saturating_sub(by),
            Illness::Jump(by) if *sequence / HEALTHY % 2 == 1 => *captured = captured.saturating_sub(by),
            Illness::Jump(_) | Illness::Burst(_) => {}
            Illness::Silent | Illness::Corrupt => {} // Faults that the board can ask for.
        }
        next
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        self.inner.missed(now)
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
