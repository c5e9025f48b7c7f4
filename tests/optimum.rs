//! How near the scheduler comes to the best that is possible: the real heart on a virtual clock, in cyclic
//! steady state after its phases are learned. At a fixed number of streams the service times are scaled by s;
//! what is compared is the largest s at which every frame is met, against the largest at which a clairvoyant,
//! who knows every release from the beginning, meets them.
//!
//! The clairvoyant of [`feasible`]: with one model and equal bounds, who is released earlier is due earlier, so
//! that any schedule can be changed into one whose batches are consecutive in that order without any job being
//! later (two jobs of different batches in the wrong order change places: the earlier released fits into the
//! earlier batch, the later due into the later one). For such batches the earliest end of the first j jobs is
//! the only thing that counts, and a recursion over j finds it exactly. It starts with an idle accelerator and
//! goes over many periods: no endless schedule can do better, so the quotients are never too high.
//!
//! Tables in `snapshots/`; `OCELLI_BLESS=1` writes them anew.

mod common;

use common::{TAIL, board, ms, profile, stream};
use ocelli::board::{Board, SourceSpec};
use ocelli::job::Batch;
use ocelli::pipeline::{Effect, Pipeline};
use ocelli::random::Random;
use ocelli::sched::{Profile, Schedule};
use ocelli::stream::StreamId;
use ocelli::time::Instant;
use std::fmt::Write as _;
use std::time::Duration;

const PERIOD: Duration = ms_const(100);
/// Periods that pass before anything counts, and that count.
const LEARNING: u64 = 160;
const COUNTED: u64 = 60;
/// The scale is searched in these steps, as shares of the optimum's.
const STEP: f64 = 0.0025;
const RATIOS: [f64; 3] = [0.5, 2.0, 8.0];
const BOUNDS: [f64; 7] = [0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0];

const fn ms_const(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Releases of one period: where each stream's lie, and how far a frame's may be delayed.
#[derive(Clone)]
struct Case {
    phases: Vec<Duration>,
    jitter: Duration,
    bound: Duration,
    cap: u16,
    /// a / c.
    ratio: f64,
}

impl Case {
    /// l(b) = a + c * b at scale s: s = 1 takes a period for one job of every stream in one batch.
    fn service(&self, scale: f64, jobs: usize) -> Duration {
        let unit = PERIOD.as_secs_f64() / (self.ratio + self.phases.len() as f64) * scale;
        Duration::from_secs_f64(unit * self.ratio) + Duration::from_secs_f64(unit) * jobs as u32
    }

    fn board(&self, scale: f64) -> Board {
        let streams = (0..self.phases.len()).map(|index| {
            let mut stream = stream(&index.to_string(), PERIOD, self.bound + TAIL);
            let (phase, jitter) = (self.phases[index], self.jitter);
            stream.source = SourceSpec::Synthetic { phase, jitter, seed: 0 };
            stream
        });
        let slope = self.service(scale, 1) - self.service(scale, 0);
        board(streams.collect(), self.service(scale, 0), slope, self.cap)
    }

    /// All releases, in order.
    fn releases(&self, periods: u64) -> Vec<(Instant, StreamId, u64)> {
        let mut releases: Vec<_> = (0..self.phases.len())
            .flat_map(|index| {
                (0..periods).map(move |frame| {
                    let late = Random::at(index as u64 + 1, frame).below(self.jitter);
                    let grid = ms(1_000) + self.phases[index] + PERIOD * frame as u32;
                    (Instant::default() + grid + late, StreamId(index as u16), frame)
                })
            })
            .collect();
        releases.sort_unstable();
        releases
    }

    /// Whether the clairvoyant meets every frame.
    fn feasible(&self, scale: f64, releases: &[(Instant, StreamId, u64)]) -> bool {
        let l: Vec<u64> =
            (0..=self.cap.into()).map(|jobs| self.service(scale, jobs).as_nanos() as u64).collect();
        let bound = self.bound.as_nanos() as u64;
        let released = |job: usize| releases[job].0.as_nanos();
        let mut ends = vec![0_u64];
        for job in 1..=releases.len() {
            let first = job.saturating_sub(self.cap.into());
            let ends_by = |from: usize| {
                let end = ends[from].max(released(job - 1)).saturating_add(l[job - from]);
                (end <= released(from) + bound).then_some(end)
            };
            ends.push((first..job).filter_map(ends_by).min().unwrap_or(u64::MAX));
        }
        ends[releases.len()] != u64::MAX
    }

    /// The clairvoyant's largest scale, to a ten-thousandth.
    fn optimum(&self) -> f64 {
        let releases = self.releases(LEARNING + COUNTED);
        let (mut possible, mut too_much) = (0.0, 1.0 + self.ratio);
        while too_much - possible > 1e-4 * too_much {
            let middle = f64::midpoint(possible, too_much);
            if self.feasible(middle, &releases) { possible = middle } else { too_much = middle }
        }
        possible
    }

    /// Whether the heart meets every frame that counts.
    fn met(&self, scale: f64) -> bool {
        let board = self.board(scale);
        let profile = profile(&board);
        let schedule = Schedule::admit(&board, profile.clone()).expect("nothing is critical");
        schedule.streams().iter().all(|stream| stream.served)
            && missed(&board, &profile, schedule, &self.releases(LEARNING + COUNTED)) == 0
    }

    /// The heart's largest scale as a share of this one.
    fn reached(&self, optimum: f64) -> f64 {
        let steps = (0..200).map(|step| 1.0 - STEP * f64::from(step));
        steps.into_iter().find(|share| self.met(optimum * share)).unwrap_or(0.0)
    }
}

/// Frames that were not met after the learning.
fn missed(
    board: &Board,
    profile: &Profile,
    schedule: Schedule,
    releases: &[(Instant, StreamId, u64)],
) -> u64 {
    let mut now = releases[0].0;
    let batches = (0..3).map(|_| Box::new(Batch::with_capacity(64))).collect();
    let mut heart = Pipeline::new(now, board, schedule, batches, 1);
    let mut running: Option<(Instant, Box<Batch<()>>)> = None;
    let mut releases = releases.iter().peekable();
    let mut learned = None;
    let bad = |heart: &Pipeline<()>| -> u64 {
        heart.totals().map(|totals| totals.ledger.late + totals.ledger.dropped.iter().sum::<u64>()).sum()
    };
    loop {
        while let Some(effect) = heart.poll(now) {
            match effect {
                Effect::Submit(batch) => {
                    let service = profile.service(batch.model, batch.jobs.len() as u16).expect("a size");
                    running = Some((now + service.planned, batch));
                }
                Effect::Conclude(mut batch) => {
                    for member in batch.jobs.drain(..) {
                        // The reserve lies behind the bound of the case.
                        heart.settled(&member.job, now + TAIL, true, None);
                    }
                    heart.batch_returned(batch);
                }
                Effect::Dropped(..) | Effect::Changed(_) | Effect::Certified(_) | Effect::Set(_) => {}
            }
        }
        let next = releases.peek().map(|release| release.0);
        let done = running.as_ref().map(|running| running.0);
        let Some(at) = [next, done, heart.poll_at()].into_iter().flatten().min() else { break };
        now = at;
        if done == Some(at) {
            heart.batch_done(running.take().expect("it runs").1);
        } else if next == Some(at) {
            let &(_, stream, frame) = releases.next().expect("it is due");
            if frame >= LEARNING {
                learned.get_or_insert_with(|| bad(&heart));
            }
            heart.frame_arrived(at, stream, frame, at, ());
        }
    }
    bad(&heart) - learned.expect("frames that count")
}

/// Compares with the stored table, or stores it.
fn snapshot(name: &str, table: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("OCELLI_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(&path, table).expect("it can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == table, "{name} has changed (OCELLI_BLESS=1 stores it); it is now\n{table}");
}

fn heading(title: &str) -> String {
    let mut table = format!(
        "{title}\nLargest service times at which every frame is met, in % of the reference's, searched from 100 % down.\n\n"
    );
    let _ = write!(table, "{:>5} {:>4} {:>7}", "a/c", "cap", "jitter");
    for bound in BOUNDS {
        let _ = write!(table, " {:>10}", format!("D={bound}P"));
    }
    table.push('\n');
    table
}

/// One table: for every a/c, cap and jitter a line, for every bound a cell of shares.
fn tabulate(
    name: &str,
    title: &str,
    caps: &[u16],
    jitters: &[f64],
    cell: impl Fn(f64, Duration, u16, Duration) -> Vec<f64>,
) -> Vec<(f64, f64, Vec<f64>)> {
    let mut table = heading(title);
    let mut cells = Vec::new();
    for &jitter in jitters {
        for ratio in RATIOS {
            for &cap in caps {
                let _ = write!(table, "{ratio:>5} {cap:>4} {:>7}", format!("{}%P", jitter * 100.0));
                for bound in BOUNDS {
                    let shares = cell(ratio, PERIOD.mul_f64(bound), cap, PERIOD.mul_f64(jitter));
                    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
                    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
                    let text = format!("{:.1}/{:.1}", mean * 100.0, least * 100.0);
                    let _ = write!(table, " {text:>10}");
                    cells.push((jitter, bound, shares));
                }
                table.push('\n');
            }
        }
    }
    let _ = writeln!(table, "\nA cell: mean / least of {} draws.", cells[0].2.len());
    eprintln!("{table}");
    snapshot(name, &table);
    cells
}

/// All cameras triggered at once: ceil(N/B) * a + c * N <= min(D, P) - J.
#[test]
fn aligned_releases() {
    let streams = 8;
    tabulate(
        "optimum-aligned.txt",
        "Aligned releases, 8 streams, against ceil(N/B) * a + c * N <= min(D, P) - J",
        &[8, 4, 3],
        &[0.0, 0.05],
        |ratio, bound, cap, jitter| {
            let case = Case { phases: vec![Duration::ZERO; streams], jitter, bound, cap, ratio };
            let batches = streams.div_ceil(cap.into());
            let unit = PERIOD.as_secs_f64() / (ratio + streams as f64);
            let all = unit * (ratio * batches as f64 + streams as f64);
            vec![case.reached((bound.min(PERIOD) - jitter).as_secs_f64() / all)]
        },
    )
    .iter()
    .for_each(|(jitter, bound, shares)| {
        assert!(shares[0] >= 0.97, "{jitter} {bound}: {shares:?}");
    });
}

/// Groups of cameras triggered in turn, at g * P / G: a + c * N / G <= min(D, P / G) - J.
#[test]
fn groups() {
    for (name, groups) in [("optimum-groups-2.txt", 2_u32), ("optimum-groups-4.txt", 4)] {
        let streams = 8;
        let title = format!(
            "{groups} groups of {} streams, against a + c * N/G <= min(D, P/G) - J",
            streams / groups
        );
        tabulate(name, &title, &[8], &[0.0, 0.02], |ratio, bound, cap, jitter| {
            let phases = (0..streams).map(|index| PERIOD * (index % groups) / groups);
            let case = Case { phases: phases.collect(), jitter, bound, cap, ratio };
            let unit = PERIOD.as_secs_f64() / (ratio + f64::from(streams));
            let all = unit * (ratio + f64::from(streams / groups));
            vec![case.reached((bound.min(PERIOD / groups) - jitter).as_secs_f64() / all)]
        })
        .iter()
        .for_each(|(jitter, bound, shares)| {
            assert!(shares[0] >= 0.97, "{groups} groups, {jitter} {bound}: {shares:?}");
        });
    }
}

fn random_phases(jitter: f64, name: &str, title: &str) -> Vec<(f64, f64, Vec<f64>)> {
    tabulate(name, title, &[8, 3], &[jitter], |ratio, bound, cap, jitter| {
        let share = |draw: u64| {
            let mut random = Random::new(draw);
            let streams = 4 + draw % 5;
            let phases = (0..streams).map(|_| random.below(PERIOD)).collect();
            let case = Case { phases, jitter, bound, cap, ratio };
            case.reached(case.optimum())
        };
        (0..10).map(share).collect()
    })
}

/// Every cell's mean and least share.
fn assert_near(cells: &[(f64, f64, Vec<f64>)], least: f64) {
    for (_, bound, shares) in cells {
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!(mean >= if *bound < 1.0 { 0.95 } else { 0.97 }, "D = {bound} P: {shares:?}");
        assert!(shares.iter().all(|&share| share >= least), "D = {bound} P: {shares:?}");
    }
}

/// Free-running cameras.
#[test]
fn random_phases_without_jitter() {
    let title = "Random phases, 4 to 8 streams, against the clairvoyant";
    assert_near(&random_phases(0.0, "optimum-random.txt", title), 0.9);
}

/// Free-running cameras whose every frame is late by something that only the clairvoyant knows: at D = 0.3 P a
/// jitter of 5 % of P is a sixth of the bound, and one draw stays half a percent below nine tenths.
#[test]
fn random_phases_with_jitter() {
    let title =
        "Random phases with jitter, 4 to 8 streams, against a clairvoyant who knows every frame's delay";
    assert_near(&random_phases(0.05, "optimum-random-jitter.txt", title), 0.90);
}
