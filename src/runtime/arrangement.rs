//! Which of the accelerator's units work: their service times, and what is best with them.
//!
//! A batch is planned with the time of the slowest unit that works, as any may get it. So a DLA that is slower than the
//! GPU beside it can cost more than it brings, and both are measured: all units at work at once, and the first one alone,
//! whose times are shorter then. What is used is what serves more of the board's streams, or carries more like them. Batches
//! come back in the order in which they were given, so a GPU that is done waits for the DLA that was given one before.

use crate::board::Board;
use crate::sched::{Decoding, Fits, Profile, Service};
use crate::time::nanos;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Measured service times of one batch size, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Jobs in the batch.
    pub jobs: u16,
    /// Batches that were timed, after some that were not.
    pub runs: usize,
    /// The fastest.
    pub fastest_ns: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p99_9_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl Timing {
    /// Of batches of so many jobs, from their service times: at least one, ascending.
    #[must_use]
    pub fn new(jobs: u16, services: &[Duration]) -> Self {
        // The value that so many per mille do not exceed.
        let quantile =
            |per_mille: usize| nanos(services[(services.len() * per_mille).div_ceil(1000).max(1) - 1]);
        Self {
            jobs,
            runs: services.len(),
            fastest_ns: nanos(services[0]),
            p50_ns: quantile(500),
            p90_ns: quantile(900),
            p99_ns: quantile(990),
            p99_9_ns: quantile(999),
            max_ns: quantile(1000),
        }
    }

    /// Nanoseconds to plan with at a first start: the ninth decile. A single hiccup of a shared machine is not the
    /// accelerator's.
    #[must_use]
    pub const fn provisional(&self) -> u64 {
        self.p90_ns
    }

    /// Nanoseconds that a guarantee can stand on: the 99.9 % quantile and a twentieth more, for the months to come.
    #[must_use]
    pub const fn careful(&self) -> u64 {
        self.p99_9_ns.saturating_add(self.p99_9_ns / 20)
    }
}

/// Service times of a unit: a GPU, a DLA, the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitTimes {
    /// Its name.
    pub unit: String,
    /// Batches that it works on at once.
    pub lanes: usize,
    /// A table a model, in the board's order.
    pub services: Vec<Vec<Timing>>,
}

/// Making a frame's record and pushing it into the outputs' rings: measured at 0.6 us without outputs.
const PUBLISHING: Duration = Duration::from_micros(2);

/// Times to decode one frame's outputs, one frame after the other, from memory that is in no cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decodings {
    /// With nothing to be seen.
    pub empty: Timing,
    /// With as many candidates as are looked at.
    pub crowd: Timing,
}

impl Decodings {
    /// What is planned with, publishing included: nine of ten take no longer. What disturbs a thread now and then disturbs
    /// few of the frames that are added up, and is in what is kept free beside.
    #[must_use]
    pub fn planned(&self) -> Decoding {
        let [usual, crowd] = [&self.empty, &self.crowd].map(|timing| Duration::from_nanos(timing.p90_ns));
        Decoding { usual: usual + PUBLISHING, most: usual.max(crowd) + PUBLISHING }
    }

    fn is_sound(&self) -> bool {
        [&self.empty, &self.crowd].iter().all(|timing| timing.jobs == 1)
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The first unit alone, and, where there are more, all of them; at least one.
    pub arrangements: Vec<Arrangement>,
    /// Each model's, in the board's order.
    pub decodings: Vec<Decodings>,
}

impl Measured {
    /// Whether everything goes together, for so many models.
    pub(super) fn is_sound(&self, models: usize) -> bool {
        !self.arrangements.is_empty()
            && self.arrangements.iter().all(|arrangement| arrangement.is_sound(models))
            && self.decodings.len() == models
            && self.decodings.iter().all(Decodings::is_sound)
    }

    /// The profile that an arrangement makes.
    #[must_use]
    pub fn profile(&self, arrangement: usize, take: impl Fn(&Timing) -> u64, provisional: bool) -> Profile {
        let decodings = self.decodings.iter().map(Decodings::planned).collect();
        self.arrangements[arrangement].profile(take, provisional).with_decodings(decodings)
    }
}

/// Units that work at once, in the order of their lanes, each with its times while all of them do. At least one; all
/// with tables of the same models and batch sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arrangement(pub Vec<UnitTimes>);

impl Arrangement {
    /// Whether the units' tables go together, for so many models.
    fn is_sound(&self, models: usize) -> bool {
        let sizes = |unit: &UnitTimes| -> Vec<Vec<u16>> {
            unit.services.iter().map(|table| table.iter().map(|timing| timing.jobs).collect()).collect()
        };
        let Some(first) = self.0.first().map(sizes) else { return false };
        let table = |table: &Vec<Timing>| {
            !table.is_empty()
                && table.iter().all(|timing| timing.jobs > 0 && timing.fastest_ns > 0)
                && table.is_sorted_by(|a, b| a.jobs < b.jobs)
        };
        first.len() == models
            && self
                .0
                .iter()
                .all(|unit| unit.lanes > 0 && unit.services.iter().all(table) && sizes(unit) == first)
    }

    /// For each model and batch size what is planned with: what `take` says of the unit of which it says most, and the
    /// fastest seen of any unit.
    #[must_use]
    pub fn services(&self, take: impl Fn(&Timing) -> u64) -> Vec<Vec<(u16, Service)>> {
        let mut tables: Vec<Vec<(u16, Service)>> = Vec::new();
        for unit in &self.0 {
            tables.resize(unit.services.len(), Vec::new());
            for (table, timings) in tables.iter_mut().zip(&unit.services) {
                for (index, timing) in timings.iter().enumerate() {
                    let fastest = Duration::from_nanos(timing.fastest_ns);
                    let planned = Duration::from_nanos(take(timing));
                    match table.get_mut(index) {
                        Some((_, service)) => {
                            service.fastest = service.fastest.min(fastest);
                            service.planned = service.planned.max(planned);
                        }
                        None => table.push((timing.jobs, Service { fastest, planned })),
                    }
                }
            }
        }
        tables
    }

    /// The profile that they make, with a place for each lane, and results that take no time to decode.
    fn profile(&self, take: impl Fn(&Timing) -> u64, provisional: bool) -> Profile {
        let places = self.0.iter().map(|unit| unit.lanes).sum();
        Profile::new(self.services(take), provisional).with_places(places)
    }
}

/// An arrangement that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its units' names.
    pub units: Vec<String>,
    /// How many streams like the board's fit with it.
    pub fits: Fits,
}

/// The arrangement that is used for a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// All there are: the first unit alone, and, where there are more, all of them.
    pub candidates: Vec<Candidate>,
    /// The position of the best.
    pub used: usize,
    /// What its batches are planned with.
    pub profile: Profile,
}

impl Choice {
    /// The best of what was measured for the board, of which there is at least one; of equals the first. Batches are
    /// planned with what `take` says.
    #[must_use]
    pub fn new(board: &Board, measured: &Measured, take: impl Fn(&Timing) -> u64, provisional: bool) -> Self {
        let arrangements = &measured.arrangements;
        let profiles = (0..arrangements.len()).map(|index| measured.profile(index, &take, provisional));
        let mut profiles: Vec<Profile> = profiles.collect();
        let fits: Vec<Fits> = profiles.iter().map(|profile| Fits::new(board, profile)).collect();
        let candidates = arrangements.iter().zip(&fits).map(|(Arrangement(units), &fits)| Candidate {
            units: units.iter().map(|unit| unit.unit.clone()).collect(),
            fits,
        });
        let used = Fits::best(&fits);
        Self { candidates: candidates.collect(), used, profile: profiles.swap_remove(used) }
    }

    /// What is done with the units beside the first, and why, in one sentence; nothing where it is the only one.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        let [alone, all] = self.candidates.as_slice() else { return None };
        let others = all.units.get(alone.units.len()..)?;
        let (last, before) = others.split_last()?;
        let (names, are, them) = match before {
            [] => (last.clone(), "is", "it"),
            before => (format!("{} and {last}", before.join(", ")), "are", "them"),
        };
        let done = if self.used == 0 { "left idle" } else { "used" };
        let (with, without) = (all.fits, alone.fits);
        if with.served != without.served {
            let (with, without) = (with.served, without.served);
            return Some(format!(
                "{names} {are} {done}: {with} of the board's streams are served with {them}, {without} without"
            ));
        }
        let fit = if with.max_streams == 1 { "stream fits" } else { "streams fit" };
        let mut text = format!(
            "{names} {are} {done}: {} {fit} with {them}, {} without",
            with.max_streams, without.max_streams
        );
        if with.max_streams == without.max_streams {
            text += &format!(
                "; more than {} with {them}, {} without, are impossible",
                with.upper_bound, without.upper_bound
            );
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(jobs: u16, ms: u64) -> Timing {
        Timing::new(jobs, &[Duration::from_millis(ms)])
    }

    fn unit(name: &str, lanes: usize, ms: [u64; 2]) -> UnitTimes {
        let table = vec![timing(1, ms[0]), timing(2, ms[1])];
        UnitTimes { unit: name.to_owned(), lanes, services: vec![table] }
    }

    fn service(fastest: u64, planned: u64) -> Service {
        Service { fastest: Duration::from_millis(fastest), planned: Duration::from_millis(planned) }
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let times: Vec<Duration> = (1..=20).map(Duration::from_nanos).collect();
        let timing = Timing::new(3, &times);
        assert_eq!((timing.jobs, timing.runs, timing.fastest_ns, timing.max_ns), (3, 20, 1, 20));
        assert_eq!((timing.p50_ns, timing.p90_ns, timing.p99_ns, timing.p99_9_ns), (10, 18, 20, 20));
        assert_eq!((timing.provisional(), timing.careful()), (18, 21));
    }

    #[test]
    fn batches_are_planned_with_the_slowest_unit_for_each_size_and_hopeless_by_the_fastest() {
        let all = Arrangement(vec![unit("gpu", 2, [3, 9]), unit("dla 0", 1, [5, 8])]);
        let table = [(1, service(3, 5)), (2, service(8, 9))];
        assert_eq!(all.services(Timing::provisional), [table]);
        let profile = all.profile(Timing::provisional, true);
        assert_eq!((profile.places, profile.provisional), (3, true));
    }

    #[test]
    fn tables_that_do_not_go_together_are_not_sound() {
        let gpu = || unit("gpu", 1, [3, 9]);
        assert!(Arrangement(vec![gpu(), unit("dla 0", 1, [5, 8])]).is_sound(1));
        assert!(!Arrangement(vec![gpu()]).is_sound(2));
        assert!(!Arrangement(Vec::new()).is_sound(0));
        assert!(!Arrangement(vec![unit("gpu", 0, [3, 9])]).is_sound(1));
        let mut short = unit("dla 0", 1, [5, 8]);
        short.services[0].pop();
        assert!(!Arrangement(vec![gpu(), short]).is_sound(1));
        let mut backwards = gpu();
        backwards.services[0].reverse();
        assert!(!Arrangement(vec![backwards]).is_sound(1));
    }

    fn choice(with: (usize, usize), without: (usize, usize), units: &[&str]) -> Choice {
        let candidate = |units: &[&str], (max_streams, upper_bound)| Candidate {
            units: units.iter().map(|&unit| unit.to_owned()).collect(),
            fits: Fits { served: 1, max_streams, upper_bound },
        };
        let candidates = vec![candidate(&units[..1], without), candidate(units, with)];
        let used = Fits::best(&[candidates[0].fits, candidates[1].fits]);
        Choice { candidates, used, profile: Profile::new(Vec::new(), true) }
    }

    #[test]
    fn what_is_left_idle_or_used_is_said_with_the_numbers() {
        let said = |with, without, units: &[&str]| choice(with, without, units).said().unwrap();
        assert_eq!(
            said((14, 60), (17, 20), &["gpu", "dla 0", "dla 1"]),
            "dla 0 and dla 1 are left idle: 14 streams fit with them, 17 without"
        );
        assert_eq!(
            said((1, 60), (0, 20), &["gpu", "dla 1"]),
            "dla 1 is used: 1 stream fits with it, 0 without"
        );
        assert_eq!(
            said((17, 30), (17, 20), &["gpu", "dla 0", "dla 1"]),
            "dla 0 and dla 1 are used: 17 streams fit with them, 17 without; more than 30 with them, 20 without, are \
             impossible"
        );
        assert_eq!(
            said((17, 20), (17, 20), &["gpu", "dla 0"]),
            "dla 0 is left idle: 17 streams fit with it, 17 without; more than 20 with it, 20 without, are impossible"
        );
        let mut board = choice((17, 60), (17, 20), &["gpu", "dla 0"]);
        (board.used, board.candidates[0].fits.served) = (0, 3);
        assert_eq!(
            board.said().unwrap(),
            "dla 0 is left idle: 1 of the board's streams are served with it, 3 without"
        );
        let mut one = choice((1, 1), (1, 1), &["cpu"]);
        one.candidates.pop();
        assert_eq!(one.said(), None);
    }
}
