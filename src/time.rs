//! Time as plain data: instants of one clock domain and signed differences.
//!
//! Architecture invariant: nothing here reads a clock. An [`Instant`] is handed in by whoever drives the
//! code: the real clock in production ([`crate::platform::clock`]), a virtual one in simulation.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A moment, in nanoseconds of `CLOCK_MONOTONIC`, the only clock domain of the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanos` nanoseconds after the clock's own zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's own zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How late this moment is against `deadline`: positive after it, negative (slack) before it.
    #[must_use]
    pub const fn lateness(self, deadline: Self) -> Lateness {
        Lateness(self.0.wrapping_sub(deadline.0).cast_signed())
    }

    /// The moment `d` before this one, or the clock's zero.
    #[must_use]
    pub fn saturating_sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(d)))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock (584 years).
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(nanos(d)))
    }
}

/// A duration in nanoseconds, saturating at 584 years.
#[must_use]
pub fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// A signed difference to a deadline in nanoseconds: negative is slack, positive is tardiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lateness(i64);

impl Lateness {
    /// Nanoseconds, negative when early.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whether the deadline was missed.
    #[must_use]
    pub const fn is_late(self) -> bool {
        self.0 > 0
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.3} ms", self.0 as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_signed() {
        let deadline = Instant::from_nanos(1_000);
        assert_eq!(Instant::from_nanos(400).lateness(deadline).as_nanos(), -600);
        assert!(!deadline.lateness(deadline).is_late());
        assert!(Instant::from_nanos(1_001).lateness(deadline).is_late());
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Instant::default().saturating_sub(Duration::from_secs(1)), Instant::default());
        assert_eq!(Instant::default().since(end), Duration::ZERO);
    }
}
