//! Why service changes, or a guarantee does not stand, in words.

use std::fmt;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// The offered load is this share of what the accelerator can do.
    Load(f64),
    /// A stream missed too many of its last frames.
    Misses {
        /// Frames missed.
        misses: u32,
        /// Among this many.
        frames: u8,
    },
    /// A stream's last good result became too old.
    Stale,
    /// A batch took this share of its planned time.
    Overrun(f64),
    /// A camera is faster than the board says, by this share.
    Early(f64),
    /// The backend failed a batch.
    Fault,
    /// A thread that everything goes through does not come back.
    Stuck(&'static str),
    /// Heat, power or other work takes this share of the accelerator away.
    Pressure(f64),
    /// The next rung fits again; the load is now this share.
    Room(f64),
    /// A guarantee stands.
    Kept,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Load(load) => write!(f, "load: {:.0} % of what the accelerator can do", load * 100.0),
            Self::Misses { misses, frames } => {
                write!(f, "misses: {misses} in the last {frames} frames of a stream")
            }
            Self::Stale => f.write_str("freshness: a stream's last good result is too old"),
            Self::Overrun(pace) => {
                write!(f, "overrun: a batch took {:.0} % longer than planned", (pace - 1.0) * 100.0)
            }
            Self::Early(rate) => {
                write!(f, "camera early: one delivers {:.0} % more than the board says", (rate - 1.0) * 100.0)
            }
            Self::Fault => f.write_str("fault: the accelerator failed a batch"),
            Self::Stuck(thread) => write!(f, "stuck: the thread {thread} does not come back"),
            Self::Pressure(lost) => {
                write!(f, "pressure: heat, power or other work takes {:.0} % away", lost * 100.0)
            }
            Self::Room(load) => write!(f, "room: with it the load is {:.0} %", load * 100.0),
            Self::Kept => f.write_str(
                "every frame is in time while cameras, service times and temperature are as stated",
            ),
        }
    }
}
