//! The ladder's rungs.

use crate::stream::StreamState;

/// How much of its service a stream gets. Downward is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Every frame.
    Full,
    /// Every second frame.
    Half,
    /// Every fourth frame.
    Quarter,
    /// Every fourth frame, by a cheaper model.
    Cheaper,
    /// None.
    Shed,
}

impl Rung {
    /// From the top down.
    pub const ALL: [Self; 5] = [Self::Full, Self::Half, Self::Quarter, Self::Cheaper, Self::Shed];

    /// One frame of how many is served; `None`: none is.
    #[must_use]
    pub const fn every(self) -> Option<u64> {
        match self {
            Self::Full => Some(1),
            Self::Half => Some(2),
            Self::Quarter | Self::Cheaper => Some(4),
            Self::Shed => None,
        }
    }

    /// The state of a stream that delivers, on this rung.
    #[must_use]
    pub const fn state(self) -> StreamState {
        match self {
            Self::Full => StreamState::Full,
            Self::Half => StreamState::Half,
            Self::Quarter => StreamState::Quarter,
            Self::Cheaper => StreamState::Cheaper,
            Self::Shed => StreamState::Shed,
        }
    }
}
