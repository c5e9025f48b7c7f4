//! A scenario file as text: its keys with their ranges, defaults and meanings.
//!
//! The comments here are what the JSON Schema says of each key, so they are written for whoever writes
//! scenarios.

use crate::config::{Id, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::LazyLock;

pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema_of::<RawScenario>);

/// The JSON Schema of scenario files.
#[must_use]
pub fn schema() -> serde_json::Value {
    SCHEMA.clone()
}

/// What happens to a board in simulation. Events of one kind that overlap add up: rates, shares of slowness
/// and chances multiply, drifts and jumps add, of jitters and delays the longest counts.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "Ocelli scenario file")]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    /// Version of this format: 1.
    #[schemars(extend("const" = 1, "examples" = [1]))]
    #[serde(rename = "config_version")]
    _config_version: u32,
    /// What happens, in any order.
    #[schemars(length(min = 1, max = 1000))]
    pub events: Vec<RawEvent>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "what", rename_all = "kebab-case")]
pub(super) enum RawEvent {
    /// Each release of a stream, stamp included, is delayed by 0 to this, evenly spread.
    Jitter {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// The longest delay; never more than the time to the next frame.
        #[schemars(range(min = 0.0, max = 3_600_000.0))]
        jitter_ms: f64,
    },
    /// A stream's clock runs fast, or slow where negative.
    Drift {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// By how many millionths.
        #[schemars(range(min = -100_000.0, max = 100_000.0))]
        ppm: f64,
    },
    /// A stream delivers nothing, and nobody is told; its frames are missed when the next one comes.
    Silent {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
    },
    /// A stream's frames arrive late; their stamps stay. What is behind a late frame waits for it.
    Late {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// From stamp to arrival.
        #[schemars(range(min = 0.0, max = 3_600_000.0))]
        late_ms: f64,
    },
    /// A stream delivers at another rate than the board says.
    Burst {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// Times the board's rate.
        #[schemars(range(min = 0.01, max = 100.0))]
        rate: f64,
    },
    /// A stream loses frames, here and there.
    Drop {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// Share of its frames.
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
    },
    /// A stream's stamps are wrong; its frames arrive as ever.
    Jump {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
        /// By how much; negative is the past.
        #[schemars(range(min = -3_600_000.0, max = 3_600_000.0))]
        by_ms: f64,
    },
    /// A stream's source fails, and comes back. What was on its way is lost with it.
    Down {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Name of the stream.
        stream: Id,
    },
    /// All streams deliver at another rate than the board says.
    Overload {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Times the board's rates.
        #[schemars(range(min = 0.01, max = 100.0))]
        rate: f64,
    },
    /// The accelerator is slow, as when it is hot.
    Slow {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts, its coming included and its going not. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Service times grow to this many times what they were.
        #[schemars(range(min = 0.01, max = 100.0))]
        factor: f64,
        /// How long its coming takes, and its going; evenly.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        ramp_s: f64,
    },
    /// Every batch that is begun fails, after its time.
    Fail {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
    },
    /// The platform warns of heat; the accelerator is no slower for it.
    Pressure {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// How long it lasts. Without it: to the end.
        #[schemars(range(min = 0.001, max = 31_536_000.0))]
        for_s: Option<f64>,
        /// Share of the accelerator that it says is lost.
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
    },
    /// The next batch that is begun takes longer.
    Hang {
        /// Seconds after the start.
        #[schemars(range(min = 0.0, max = 31_536_000.0))]
        at_s: f64,
        /// By how much.
        #[schemars(range(min = 0.001, max = 3_600_000.0))]
        hang_ms: f64,
    },
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_says_what_the_check_does() {
        crate::config::says_what_the_check_does(&super::schema());
    }
}
