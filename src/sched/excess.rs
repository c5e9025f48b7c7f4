//! Cameras that persistently deliver more than may enter: said once, and once when it is over.

use crate::time::Instant;
use std::fmt;
use std::time::Duration;

/// Frames after which a stream is judged.
const FRAMES: u32 = 100;
/// More early ones than this among them begin an excess, and no more than that end it.
const BEGINS: u32 = FRAMES / 10;
const ENDS: u32 = FRAMES / 50;

/// One stream's count of frames, and of those that ended as early.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excess {
    arrived: u32,
    early: u32,
    since: Option<Instant>,
    told: bool,
}

/// What is to be said of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delivery {
    /// It delivers this multiple of its board's rate, and that many of the last hundred frames were dropped.
    Exceeds {
        /// Frames delivered, over what the period allows.
        rate: f64,
        /// Frames that ended as early.
        early: u32,
    },
    /// It keeps to its period again.
    Keeps,
}

impl Excess {
    /// A frame arrived, of a stream with this period. What is to be said, if that has changed.
    pub fn arrived(&mut self, now: Instant, period: Duration) -> Option<Delivery> {
        let since = *self.since.get_or_insert(now);
        self.arrived += 1;
        if self.arrived <= FRAMES {
            return None;
        }
        let (early, told) = (self.early, self.told);
        let allowed = now.since(since).as_secs_f64() / period.as_secs_f64();
        // This frame ends the hundred gaps, and begins the next.
        *self = Self { arrived: 1, early: 0, since: Some(now), told };
        match told {
            false if early > BEGINS => {
                self.told = true;
                Some(Delivery::Exceeds { rate: f64::from(FRAMES) / allowed.max(1e-3), early })
            }
            true if early <= ENDS => {
                self.told = false;
                Some(Delivery::Keeps)
            }
            _ => None,
        }
    }

    /// One of the frames that arrived was dropped as early.
    pub fn dropped(&mut self) {
        self.early += 1;
    }

    /// Its source begins anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exceeds { rate, early } => write!(
                f,
                "camera early: delivers {rate:.1} times the frames that its period on the board allows; \
                 {early} of the last {FRAMES} were dropped as early"
            ),
            Self::Keeps => f.write_str("the camera keeps to its period on the board again"),
        }
    }
}
