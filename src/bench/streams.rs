//! Boards of as many streams as are asked for, made like a template's.

use crate::bench::Settings;
use crate::board::{Board, SourceSpec, Stream, Trigger};
use crate::random::Random;
use std::time::Duration;

/// What a run offers to the accelerator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Streams.
    pub streams: usize,
    /// Times the declared rate of each.
    pub rate: f64,
}

/// When the streams' frames are released, for sources that release on a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Releases {
    /// Evenly over the period.
    Staggered,
    /// All at once, on one hardware trigger that the board knows of.
    Aligned,
    /// On two hardware triggers half a period apart, in turns.
    Groups,
    /// Anywhere in the period, drawn from the seed.
    Random,
}

impl Releases {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staggered => "staggered",
            Self::Aligned => "aligned",
            Self::Groups => "groups",
            Self::Random => "random",
        }
    }
}

/// How long frames of one instant are waited for: threads that wake at the same instant deliver one after the
/// other.
const HAND_OVER: Duration = Duration::from_millis(1);

/// Where frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Frames that lie in memory, of the board's sizes and formats: no processor time to fill a slot.
    Memory,
    /// The board's own sources.
    Board,
}

impl Sources {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Board => "board",
        }
    }
}

/// A board that offers `offer`: the template's streams in their order and again from the start, without its
/// outputs and sets.
#[must_use]
pub fn like(template: &Board, offer: Offer, settings: &Settings) -> Board {
    let mut board = template.clone();
    board.outputs.clear();
    board.sets.clear();
    let streams = template.streams.iter().cycle().take(offer.streams).enumerate();
    board.streams = streams.map(|(index, stream)| copy(stream, index, offer, settings)).collect();
    board
}

fn copy(stream: &Stream, index: usize, offer: Offer, settings: &Settings) -> Stream {
    let mut stream = stream.clone();
    stream.id = format!("{}-{}", index + 1, stream.id);
    stream.period = stream.period.div_f64(offer.rate);
    let share = match settings.releases {
        Releases::Aligned => 0.0,
        Releases::Groups => (index % 2) as f64 / 2.0,
        Releases::Staggered => index as f64 / offer.streams as f64,
        Releases::Random => Random::at(settings.seed, index as u64).unit(),
    };
    let drawn = stream.period.mul_f64(share);
    let own_seed = settings.seed.wrapping_add(index as u64);
    match (settings.sources, &mut stream.source) {
        (_, SourceSpec::Synthetic { phase, jitter, seed }) => {
            (*phase, *seed) = (drawn, seed.wrapping_add(own_seed));
            // Less than a period, as on every board.
            *jitter = (*jitter).min(stream.period.mul_f64(0.99));
        }
        (Sources::Board, SourceSpec::File { phase, .. }) => *phase = drawn,
        (Sources::Board, SourceSpec::Uri { .. } | SourceSpec::Pipeline { .. } | SourceSpec::V4l2(_)) => {}
        (Sources::Memory, source) => {
            *source = SourceSpec::Synthetic { phase: drawn, jitter: Duration::ZERO, seed: own_seed };
        }
    }
    if settings.sources == Sources::Memory {
        stream.faults = None;
    }
    stream.trigger = trigger(&stream, drawn, settings.releases);
    stream
}

/// What releases a stream's frames, where that is known.
fn trigger(stream: &Stream, offset: Duration, releases: Releases) -> Option<Trigger> {
    let SourceSpec::Synthetic { jitter, .. } = stream.source else { return None };
    let id = match releases {
        Releases::Staggered | Releases::Random => return None,
        Releases::Aligned | Releases::Groups => format!("{} us", offset.as_micros()),
    };
    Some(Trigger { id, offset, jitter: (jitter + HAND_OVER).min(stream.period / 5) })
}
