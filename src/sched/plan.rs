//! What a board's accelerator can carry, in numbers for people: responses, slack, limits, and what to change.

use crate::board::{Board, MAX_STREAMS, Stream};
use crate::sched::Profile;
use crate::sched::admission::{Lack, TAIL, guaranteed, share};
use crate::sched::guarantee::{Accelerator, Demand};
use crate::time::nanos;
use std::time::Duration;

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
    /// Each stream, in the board's order.
    pub streams: Vec<Planned>,
    /// What would make the board fit, when it does not.
    pub remedy: Option<Remedy>,
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
    /// Plans `board` on an accelerator that works on `places` batches at once, each in the time that
    /// `profile` states, provisional or not.
    #[must_use]
    pub fn new(board: &Board, profile: &Profile, places: usize) -> Self {
        let lacks = guaranteed(board, profile);
        let admitted = lacks.iter().all(Option::is_none);
        let served = board.streams.iter().zip(&lacks).filter(|(_, lack)| lack.is_none());
        let demands: Vec<Demand> = served.filter_map(|(stream, _)| Demand::of(stream)).collect();
        let responses = Accelerator::new(board, profile).responses(&demands).unwrap_or_default();
        let mut answers = demands.iter().zip(responses).map(|(demand, response)| {
            let slack = Duration::from_nanos(demand.limit.saturating_sub(response));
            (Duration::from_nanos(response) + TAIL, slack)
        });
        let streams = board.streams.iter().zip(&lacks).map(|(stream, lack)| {
            let response = lack.map_or_else(
                || {
                    let (response, slack) = answers.next().unwrap_or_default();
                    Ok((Demand::travel(stream) + response, slack))
                },
                Err,
            );
            Planned { id: stream.id.clone(), response }
        });
        Self {
            admitted,
            max_streams: max_streams(board, profile),
            upper_bound: upper_bound(board, profile, places),
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
            let demands: Option<Vec<Demand>> = board.streams.iter().map(Demand::of).collect();
            demands.is_some_and(|demands| accelerator.responses(&demands).is_ok())
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

fn max_streams(board: &Board, profile: &Profile) -> usize {
    let accelerator = Accelerator::new(board, profile);
    let mut demands = Vec::with_capacity(MAX_STREAMS);
    alike(board)
        .take_while(|stream| {
            demands.extend(Demand::of(stream));
            Demand::of(stream).is_some() && accelerator.responses(&demands).is_ok()
        })
        .count()
}

fn upper_bound(board: &Board, profile: &Profile, places: usize) -> usize {
    // Shares are quotients of whole nanoseconds: far fewer digits than these are lost.
    let capacity = places as f64 + 1e-9;
    let mut used = 0.0;
    alike(board)
        .take_while(|stream| {
            used += share(stream, profile, board.accelerator.max_batch).unwrap_or(f64::INFINITY);
            used <= capacity
        })
        .count()
}
