//! What happens to a board while it is simulated: a timeline.

use super::raw::{RawEvent, RawScenario, SCHEMA};
use crate::board::Board;
use crate::config::{Document, Fingerprint, Id, KeyPath, Kind, Problems, Surroundings, System, nearest};
use crate::stream::StreamId;
use std::path::Path;
use std::time::Duration;

/// A valid timeline, for one board.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// What happens, in the file's order.
    pub events: Vec<Event>,
}

/// Something that happens during a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// After the start.
    pub at: Duration,
    /// After the start; `None`: to the end.
    pub until: Option<Duration>,
    /// What.
    pub what: What,
}

/// Everything that can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// To one stream.
    Stream(StreamId, Disturbance),
    /// All streams deliver at this many times the board's rates.
    Overload(f64),
    /// Service times grow to `factor` times what they were, within `ramp`, and come back as slowly.
    Slow {
        /// Largest factor.
        factor: f64,
        /// Time of its growing, and of its shrinking.
        ramp: Duration,
    },
    /// Batches that are begun fail after their time.
    Fail,
    /// The next batch that is begun takes this much longer.
    Hang(Duration),
    /// The platform says that heat takes this share of the accelerator away, or is about to.
    Pressure(f64),
}

/// What can happen to one stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
    /// Releases are delayed by 0 to this, stamps included.
    Jitter(Duration),
    /// The camera's clock is fast by this many millionths.
    Drift(f64),
    /// Nothing is delivered, and nobody is told before the next frame.
    Silent,
    /// Frames arrive this long after their stamps.
    Late(Duration),
    /// Frames come at this many times the board's rate.
    Burst(f64),
    /// This share of the frames is lost.
    Drop(f64),
    /// Stamps are off by this many nanoseconds.
    Jump(i64),
    /// The source has failed.
    Down,
}

impl Event {
    /// Whether it goes on `elapsed` after the start.
    #[must_use]
    pub fn is_on(&self, elapsed: Duration) -> bool {
        elapsed >= self.at && self.until.is_none_or(|until| elapsed < until)
    }
}

impl Scenario {
    /// Reads the scenario at `path` for `board`.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load(path: &Path, board: &Board) -> Result<Self, Problems> {
        Self::load_from(&System, path, board)
    }

    /// As [`Scenario::load`], with files from elsewhere.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load_from(surroundings: &dyn Surroundings, path: &Path, board: &Board) -> Result<Self, Problems> {
        let mut document = Document::read(surroundings, path, Kind::Board)?;
        let raw: RawScenario = document.check(&SCHEMA)?;
        let mut fingerprint = Fingerprint::default();
        document.texts().for_each(|text| fingerprint.add(text));
        let list = KeyPath::default().key("events");
        let events = raw.events.iter().enumerate();
        let events =
            events.map(|(index, raw)| event(&mut document, raw, board, &list.index(index))).collect();
        document.finish(Some(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            digest: fingerprint.hex(),
            events,
        }))
    }

    /// How many times as long as planned a batch takes that is begun `elapsed` after the start.
    #[must_use]
    pub fn pace(&self, elapsed: Duration) -> f64 {
        let slow = |event: &Event| match event.what {
            What::Slow { factor, ramp } => 1.0 + (factor - 1.0) * level(event, ramp, elapsed),
            _ => 1.0,
        };
        self.events.iter().map(slow).product()
    }

    /// The share of the accelerator that the platform says is lost `elapsed` after the start.
    #[must_use]
    pub fn pressure(&self, elapsed: Duration) -> f64 {
        let left = self.events.iter().filter(|event| event.is_on(elapsed)).map(|event| match event.what {
            What::Pressure(share) => 1.0 - share,
            _ => 1.0,
        });
        1.0 - left.product::<f64>()
    }

    /// Whether a batch that is begun `elapsed` after the start fails.
    #[must_use]
    pub fn fails(&self, elapsed: Duration) -> bool {
        self.events.iter().any(|event| event.what == What::Fail && event.is_on(elapsed))
    }
}

/// How much of something that comes and goes within `ramp` is there: 0 to 1.
fn level(event: &Event, ramp: Duration, elapsed: Duration) -> f64 {
    let share = |since: Duration| match elapsed.checked_sub(since) {
        None => 0.0,
        Some(passed) if passed >= ramp => 1.0,
        Some(passed) => passed.as_secs_f64() / ramp.as_secs_f64(),
    };
    share(event.at) - event.until.map_or(0.0, share)
}

fn event(document: &mut Document<'_>, raw: &RawEvent, board: &Board, at: &KeyPath) -> Event {
    let mut on = |at_s: &f64, for_s: &Option<f64>, name: &Id, disturbance| {
        let what = What::Stream(stream(document, name, board, at), disturbance);
        lasting(*at_s, *for_s, what)
    };
    match raw {
        RawEvent::Jitter { at_s, for_s, stream, jitter_ms } => {
            on(at_s, for_s, stream, Disturbance::Jitter(millis(*jitter_ms)))
        }
        RawEvent::Drift { at_s, for_s, stream, ppm } => on(at_s, for_s, stream, Disturbance::Drift(*ppm)),
        RawEvent::Silent { at_s, for_s, stream } => on(at_s, for_s, stream, Disturbance::Silent),
        RawEvent::Late { at_s, for_s, stream, late_ms } => {
            on(at_s, for_s, stream, Disturbance::Late(millis(*late_ms)))
        }
        RawEvent::Burst { at_s, for_s, stream, rate } => on(at_s, for_s, stream, Disturbance::Burst(*rate)),
        RawEvent::Drop { at_s, for_s, stream, share } => on(at_s, for_s, stream, Disturbance::Drop(*share)),
        RawEvent::Jump { at_s, for_s, stream, by_ms } => {
            on(at_s, for_s, stream, Disturbance::Jump((by_ms * 1e6).round() as i64))
        }
        RawEvent::Down { at_s, for_s, stream } => on(at_s, for_s, stream, Disturbance::Down),
        RawEvent::Overload { at_s, for_s, rate } => lasting(*at_s, *for_s, What::Overload(*rate)),
        RawEvent::Slow { at_s, for_s, factor, ramp_s } => {
            if for_s.is_some_and(|for_s| for_s < *ramp_s) {
                let message = "shorter than its coming takes";
                document.report_both(&at.key("for_s"), &at.key("ramp_s"), message);
            }
            lasting(*at_s, *for_s, What::Slow { factor: *factor, ramp: millis(ramp_s * 1e3) })
        }
        RawEvent::Fail { at_s, for_s } => lasting(*at_s, *for_s, What::Fail),
        RawEvent::Pressure { at_s, for_s, share } => lasting(*at_s, *for_s, What::Pressure(*share)),
        RawEvent::Hang { at_s, hang_ms } => lasting(*at_s, None, What::Hang(millis(*hang_ms))),
    }
}

fn lasting(at_s: f64, for_s: Option<f64>, what: What) -> Event {
    let at = millis(at_s * 1e3);
    Event { at, until: for_s.map(|for_s| at + millis(for_s * 1e3)), what }
}

/// The board's stream of that name, or a stand-in after an error.
fn stream(document: &mut Document<'_>, name: &Id, board: &Board, at: &KeyPath) -> StreamId {
    let ids = || board.streams.iter().map(|stream| stream.id.as_str());
    let position = ids().position(|id| id == name.0).unwrap_or_else(|| {
        let meant = match nearest(&name.0, ids()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("its streams: {}", ids().take(10).collect::<Vec<_>>().join(", ")),
        };
        document.report(&at.key("stream"), format!("is not a stream of {}; {meant}", board.name));
        0
    });
    StreamId(position as u16)
}

/// To the nearest nanosecond. The schema has bounded it.
fn millis(ms: f64) -> Duration {
    Duration::from_nanos((ms * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_comes_and_goes_evenly() {
        let event = lasting(10.0, Some(20.0), What::Slow { factor: 1.5, ramp: Duration::from_secs(4) });
        let scenario = Scenario { events: vec![event], ..Scenario::default() };
        let pace = |seconds| scenario.pace(Duration::from_secs(seconds));
        let expected =
            [(0, 1.0), (10, 1.0), (12, 1.25), (14, 1.5), (29, 1.5), (31, 1.375), (34, 1.0), (99, 1.0)];
        for (seconds, factor) in expected {
            assert_eq!(pace(seconds), factor, "after {seconds} s");
        }
    }

    #[test]
    fn a_step_needs_no_time() {
        let step = |factor| lasting(1.0, Some(1.0), What::Slow { factor, ramp: Duration::ZERO });
        let scenario = Scenario { events: vec![step(2.0), step(1.5)], ..Scenario::default() };
        let pace = |ms| scenario.pace(Duration::from_millis(ms));
        assert_eq!([pace(999), pace(1000), pace(1999), pace(2000)], [1.0, 3.0, 3.0, 1.0]);
    }
}
