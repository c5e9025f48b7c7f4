//! The real clock.

use crate::time::{Instant, nanos};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

/// Now, in the runtime's clock domain.
#[must_use]
pub fn now() -> Instant {
    Instant::from_nanos(as_nanos(clock_gettime(ClockId::Monotonic)))
}

/// Nanoseconds since 1970, for people and logs; never for arithmetic, it may jump.
#[must_use]
pub fn wall() -> u64 {
    as_nanos(clock_gettime(ClockId::Realtime))
}

/// Sleeps until `at`; returns at once when that has passed. A signal may end the sleep early.
pub fn sleep_until(at: Instant) {
    let at = Duration::from_nanos(at.as_nanos());
    let tv_sec = at.as_secs().try_into().unwrap_or(i64::MAX);
    let tv_nsec = at.subsec_nanos().into();
    // The instant itself, not what is left: threads that sleep until the same one share a timer interrupt. What it
    // can fail with is a signal.
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &Timespec { tv_sec, tv_nsec });
}

fn as_nanos(at: Timespec) -> u64 {
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    nanos(Duration::new(seconds, u32::try_from(at.tv_nsec).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_reaches_the_instant() {
        let at = now() + Duration::from_millis(2);
        while now() < at {
            sleep_until(at);
        }
        assert!(now() >= at);
        sleep_until(at);
    }
}
