//! A stream is one camera's sequence of frames.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A stream's position in the board's list of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u16);

impl StreamId {
    /// As an index into anything kept per stream.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A model's position in the board's list of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u8);

impl ModelId {
    /// As an index into anything kept per model.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How much the vehicle depends on a stream. Load is shed from the bottom up; critical streams are never
/// shed for load.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Criticality {
    /// Gets what is left over.
    BestEffort,
    /// Gets its share; degraded and shed before any critical stream suffers.
    #[default]
    Normal,
    /// Admitted with a guarantee or not at all.
    Critical,
}

/// The service that a stream gets at the moment, carried by every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// Its source has not delivered a frame yet.
    #[default]
    Starting,
    /// Every frame is a job.
    Full,
    /// For load, every second frame is a job.
    Half,
    /// For load, every fourth frame is a job.
    Quarter,
    /// For load, every fourth frame is a job, of a cheaper model.
    Cheaper,
    /// Admission found no room, or for load: its frames are counted and dropped.
    Shed,
    /// Its source failed; it is being reopened.
    Down,
    /// Its source came to an end that the board allows.
    Ended,
}

impl StreamState {
    /// All states, in the order of a stream's life.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Full,
        Self::Half,
        Self::Quarter,
        Self::Cheaper,
        Self::Shed,
        Self::Down,
        Self::Ended,
    ];

    /// Whether frames come from its source, and some of them at least are jobs.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Full | Self::Half | Self::Quarter | Self::Cheaper)
    }

    /// The word used in records, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Full => "full",
            Self::Half => "half",
            Self::Quarter => "quarter",
            Self::Cheaper => "cheaper",
            Self::Shed => "shed",
            Self::Down => "down",
            Self::Ended => "ended",
        }
    }
}
