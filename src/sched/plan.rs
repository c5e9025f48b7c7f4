//! What a board's accelerator can carry, in numbers for people: responses, slack, limits, and what to change.

use crate::board::{Board, MAX_STREAMS, Stream, Trigger};
use crate::sched::Profile;
use crate::sched::admission::{Critical, Lack, Schedule, decoding_share, guaranteed, served, share};
use crate::sched::guarantee::{Accelerator, Demand, Fit};
use crate::sched::trigger::{self, Releases, Timetable, Untimed};
use crate::stream::Criticality;
use crate::time::nanos;
use std::cmp::Reverse;
use std::time::Duration;

/// Most groups that are tried.
const MOST_GROUPS: usize = 16;

/// Longest latency bound that is tried to make a board fit.
const LONGEST_BOUND: u64 = 10_000;

/// The sustainable plan of a board.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether every stream of the board is certain to be in time.
    pub admitted: bool,
    /// Largest number of streams like the board's that is certain to be in time: the board's streams in
    /// their order, and again from the start. At most [`MAX_STREAMS`].
    pub max_streams: usize,
    /// The same by capacity alone: with more, no scheduler could keep up, whatever the phases.
    pub upper_bound: usize,
    /// By what is known of the instants of capture it was planned.
    pub releases: Releases,
    /// Why triggers that the board has were not used, where they can't be.
    pub untimed: Option<Untimed>,
    /// Equal groups of streams like the board's, their triggers evenly spread over the period, of which more
    /// would fit than `max_streams`: how many groups, and how many streams in all.
    pub groups: Option<(usize, usize)>,
    /// What others may do beside critical streams, where there are both.
    pub protection: Option<Protection>,
    /// Each stream, in the board's order.
    pub streams: Vec<Planned>,
    /// What would make the board fit, when it does not.
    pub remedy: Option<Remedy>,
}

/// How many streams of a board and like its fit on an accelerator. The more of its own are served, the better; then the more
/// like them are certain; then by capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fits {
    /// Streams of the board that a run would serve: none where it refuses the board.
    pub served: usize,
    /// See [`Plan::max_streams`].
    pub max_streams: usize,
    /// See [`Plan::upper_bound`].
    pub upper_bound: usize,
}

impl Fits {
    /// How many streams like those of `board` fit on an accelerator with this profile, provisional or not.
    #[must_use]
    pub fn new(board: &Board, profile: &Profile) -> Self {
        let accelerator = Accelerator::new(board, profile);
        let served = Schedule::admit(board, profile.clone())
            .map_or(0, |schedule| schedule.streams().iter().filter(|stream| stream.served).count());
        let upper_bound = upper_bound(board, profile);
        Self { served, max_streams: max_streams(board, &accelerator), upper_bound }
    }

    /// The position of the best; of equals the first's.
    #[must_use]
    pub fn best(of: &[Self]) -> usize {
        // Of equals, max_by_key takes the last.
        (0..of.len()).rev().max_by_key(|&index| of[index]).unwrap_or_default()
    }
}

/// What protects critical streams while a premise of the guarantee is in doubt.
#[derive(Clone, Debug, PartialEq)]
pub enum Protection {
    /// They are in time whatever the others do.
    Certain {
        /// Longest batch with others' frames that is begun.
        blocking: Duration,
        /// Streams of which a single frame takes longer: they wait meanwhile.
        waiting: Vec<String>,
    },
    /// They come first, and are not certain to be in time.
    Uncertain,
}

impl Protection {
    fn of(board: &Board, profile: &Profile, served: &[&Stream]) -> Option<Self> {
        let critical = Critical::new(board, profile, served);
        let others = board.streams.iter().any(|stream| stream.criticality != Criticality::Critical);
        let blocking = critical.room().filter(|_| others)?;
        if !critical.certain {
            return Some(Self::Uncertain);
        }
        let waiting = board.streams.iter().zip(critical.too_long(board, profile));
        let waiting = waiting.filter(|(_, lack)| lack.is_some()).map(|(stream, _)| stream.id.clone());
        Some(Self::Certain { blocking, waiting: waiting.collect() })
    }
}

/// One stream's part in a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its name.
    pub id: String,
    /// Longest time from capture to result and slack: how much longer it could become before a frame is late
    /// or gives way to the next. Or what it lacks to be served.
    pub response: Result<(Duration, Duration), Lack>,
}

/// Changes, each of which would make a board fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Remedy {
    /// Streams to give up: the least critical that do not fit beside the others.
    pub give_up: Vec<String>,
    /// Frames per second, a whole number, that these streams could have instead.
    pub slow_down: Option<u64>,
    /// Latency bound in milliseconds, a whole number, that all streams would need.
    pub bound: Option<u64>,
}

impl Plan {
    /// Plans `board` on an accelerator whose batches take the time that `profile` states, provisional or not.
    #[must_use]
    pub fn new(board: &Board, profile: &Profile) -> Self {
        let (lacks, releases) = guaranteed(board, profile);
        let admitted = lacks.iter().all(Option::is_none);
        let accelerator = Accelerator::new(board, profile);
        let served = served(board, &lacks);
        let answers = match releases {
            Releases::Free => at_any_phase(&accelerator, &served),
            Releases::Aligned | Releases::Groups => by_trigger(&accelerator, &served),
        };
        let mut answers = answers.unwrap_or_default().into_iter();
        let streams = board.streams.iter().zip(&lacks).map(|(stream, lack)| {
            let response = lack.map_or_else(|| Ok(answers.next().unwrap_or_default()), Err);
            Planned { id: stream.id.clone(), response }
        });
        let Fits { max_streams, upper_bound, .. } = Fits::new(board, profile);
        let has_triggers = board.streams.iter().any(|stream| stream.trigger.is_some());
        let untimed = Timetable::of(&board.streams.iter().collect::<Vec<_>>(), board.models.len()).err();
        Self {
            admitted,
            max_streams,
            releases,
            untimed: untimed.filter(|_| has_triggers),
            groups: equal_groups(board, &accelerator).filter(|&(_, streams)| streams > max_streams),
            upper_bound,
            protection: Protection::of(board, profile, &served),
            streams: streams.collect(),
            remedy: (!admitted).then(|| Remedy::find(board, profile, &lacks)),
        }
    }
}

impl Remedy {
    fn find(board: &Board, profile: &Profile, lacks: &[Option<Lack>]) -> Self {
        let short = || board.streams.iter().zip(lacks).filter(|(_, lack)| lack.is_some());
        let accelerator = Accelerator::new(board, profile);
        let fits = |change: &dyn Fn(usize, &mut Stream)| {
            let mut board = board.clone();
            board.streams.iter_mut().enumerate().for_each(|(index, stream)| change(index, stream));
            fit(&accelerator, &board.streams.iter().collect::<Vec<_>>())
        };
        let slowest = short().map(|(stream, _)| stream.period).max().unwrap_or_default();
        let fps = 1_000_000_000_u64.div_ceil(nanos(slowest).max(1));
        let slow_down = (1..fps).rev().find(|&fps| {
            fits(&|index, stream| {
                if lacks[index].is_some() {
                    stream.period = Duration::from_secs(1) / u32::try_from(fps).unwrap_or(1);
                }
            })
        });
        let bounded = |bound: u64| fits(&|_, stream| stream.latency_bound = Duration::from_millis(bound));
        // A longer bound never hurts: the least that fits is where "fits" begins.
        let (mut least, mut enough) = (1, LONGEST_BOUND);
        let bound = bounded(enough).then(|| {
            while least < enough {
                let middle = (least + enough) / 2;
                if bounded(middle) {
                    enough = middle;
                } else {
                    least = middle + 1;
                }
            }
            enough
        });
        Self { give_up: short().map(|(stream, _)| stream.id.clone()).collect(), slow_down, bound }
    }
}

/// The board's streams in their order, and again from the start.
fn alike(board: &Board) -> impl Iterator<Item = &Stream> {
    board.streams.iter().cycle().take(MAX_STREAMS)
}

/// Longest response of each stream's frames, from capture to result, and their slack; `None` where they don't
/// fit for free-running cameras.
fn at_any_phase(accelerator: &Accelerator, streams: &[&Stream]) -> Option<Vec<(Duration, Duration)>> {
    let Fit { demands, responses, lead } = accelerator.fit(streams).ok()?;
    let each = streams.iter().zip(&demands).zip(responses).map(|((stream, demand), response)| {
        let slack = Duration::from_nanos(demand.limit.saturating_sub(response));
        (Demand::travel(stream) + Duration::from_nanos(response.saturating_add(lead.time)), slack)
    });
    Some(each.collect())
}

/// The same by the streams' triggers.
fn by_trigger(accelerator: &Accelerator, streams: &[&Stream]) -> Option<Vec<(Duration, Duration)>> {
    let timetable = Timetable::of(streams, accelerator.models()).ok()?;
    let (responses, lead) = timetable.responses(accelerator).ok()?;
    let answers = responses.into_iter().zip(streams);
    Some(answers.map(|(response, stream)| trigger::answer(stream, response, lead)).collect())
}

/// Whether all these streams fit, one way or the other.
fn fit(accelerator: &Accelerator, streams: &[&Stream]) -> bool {
    by_trigger(accelerator, streams).or_else(|| at_any_phase(accelerator, streams)).is_some()
}

fn max_streams(board: &Board, accelerator: &Accelerator) -> usize {
    let all: Vec<&Stream> = alike(board).collect();
    let most =
        |fits: &dyn Fn(&[&Stream]) -> bool| (1..=all.len()).take_while(|&count| fits(&all[..count])).count();
    let timed = most(&|streams| by_trigger(accelerator, streams).is_some());
    timed.max(most(&|streams| at_any_phase(accelerator, streams).is_some()))
}

/// The most streams like the board's on equal groups whose triggers are evenly spread, and the number of
/// groups: `G * max n` with the work of n no more than `min(D, P / G)`, less the jitter where that counts.
fn equal_groups(board: &Board, accelerator: &Accelerator) -> Option<(usize, usize)> {
    Timetable::of(&board.streams.iter().collect::<Vec<_>>(), board.models.len()).ok()?;
    let period = board.streams.first()?.period;
    let jitter = board.streams.iter().filter_map(|stream| Some(stream.trigger.as_ref()?.jitter)).max()?;
    let most = |groups: usize| {
        let trigger = |group: usize| Trigger {
            id: group.to_string(),
            offset: period.mul_f64(group as f64 / groups as f64),
            jitter,
        };
        // A stream of each kind goes to each group before the next one does.
        let all = alike(board).enumerate().map(|(index, _)| {
            let kind = &board.streams[index / groups % board.streams.len()];
            Stream { trigger: Some(trigger(index % groups)), ..kind.clone() }
        });
        let all: Vec<Stream> = all.collect();
        let all: Vec<&Stream> = all.iter().collect();
        let fits = |each: &usize| by_trigger(accelerator, &all[..each * groups]).is_some();
        (1..=all.len() / groups).take_while(fits).count() * groups
    };
    (1..=MOST_GROUPS)
        .map(|groups| (groups, most(groups)))
        .max_by_key(|&(groups, streams)| (streams, Reverse(groups)))
}

fn upper_bound(board: &Board, profile: &Profile) -> usize {
    // Shares are quotients of whole nanoseconds: far fewer digits than these are lost.
    let capacity = profile.places as f64 + 1e-9;
    let (mut used, mut decoding) = (0.0, 0.0);
    alike(board)
        .take_while(|stream| {
            used += share(stream, profile, board.accelerator.max_batch).unwrap_or(f64::INFINITY);
            decoding += decoding_share(stream, profile);
            used <= capacity && decoding <= 1.0 + 1e-9
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_that_are_served_are_best_then_more_that_are_certain_then_capacity_and_of_equals_the_first() {
        let best = |of: &[(usize, usize, usize)]| {
            let fits = |&(served, max_streams, upper_bound): &_| Fits { served, max_streams, upper_bound };
            Fits::best(&of.iter().map(fits).collect::<Vec<_>>())
        };
        assert_eq!(best(&[(8, 1, 11), (6, 1, 19)]), 0);
        assert_eq!(best(&[(6, 17, 20), (8, 14, 20)]), 1);
        assert_eq!(best(&[(8, 17, 20), (8, 14, 60)]), 0);
        assert_eq!(best(&[(8, 14, 60), (8, 17, 20)]), 1);
        assert_eq!(best(&[(8, 17, 20), (8, 17, 21)]), 1);
        assert_eq!(best(&[(8, 17, 20), (8, 17, 20)]), 0);
        assert_eq!(best(&[(3, 3, 3)]), 0);
    }
}
