//! From a driver's time stamp to an instant of ours.
//!
//! A driver stamps with the clock that is ours, CLOCK_MONOTONIC, the start or the end of a frame. What it says is
//! believed if it can be true: after the stream was started, not before the frame that came last, not after the
//! frame arrived. Some drivers stamp the future (vivid: 20 ms), and counters wrap around. Then the frame's arrival
//! takes its place, so that a stamp is never later than the truth by more than the hand-over, and what was wrong
//! is counted.

use crate::time::Instant;
use std::time::Duration;
use v4l::v4l_sys as sys;

const NANOS: i64 = 1_000_000_000;

/// A time as the kernel's `timeval` has it: signed, of a clock that is yet to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverTime {
    /// Whole seconds.
    pub seconds: i64,
    /// Microseconds, 0 to 999,999 where the driver is sane.
    pub micros: i64,
}

impl DriverTime {
    /// Nanoseconds since the clock's zero; `None` before it, beyond what 64 bits hold (292 years), or when the
    /// microseconds are none.
    #[must_use]
    pub fn nanos(self) -> Option<i64> {
        let micros = (0..1_000_000).contains(&self.micros).then_some(self.micros)?;
        let nanos = self.seconds.checked_mul(NANOS)?.checked_add(micros * 1000)?;
        (nanos >= 0).then_some(nanos)
    }
}

/// What a buffer's flags say of its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// CLOCK_MONOTONIC, when the last of the frame came.
    EndOfFrame,
    /// CLOCK_MONOTONIC, when the exposure or the frame began.
    StartOfFrame,
    /// Another clock, or none that the driver tells.
    Unknown,
}

impl Clock {
    /// From a buffer's flags.
    #[must_use]
    pub fn by_flags(flags: u32) -> Self {
        match (flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK, flags & sys::V4L2_BUF_FLAG_TSTAMP_SRC_MASK) {
            (sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC, sys::V4L2_BUF_FLAG_TSTAMP_SRC_SOE) => Self::StartOfFrame,
            (sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC, _) => Self::EndOfFrame,
            _ => Self::Unknown,
        }
    }

    /// For the log.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::EndOfFrame => "stamps are the driver's, at the end of the frame",
            Self::StartOfFrame => "stamps are the driver's, at the start of the frame",
            Self::Unknown => "no stamps on our clock from the driver: frames are stamped on arrival",
        }
    }
}

/// What was wrong with a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Later than the frame's arrival.
    Future,
    /// Before the stream was started, or no time at all: a clock that wrapped around, or another one.
    Impossible,
    /// Earlier than the frame before.
    Backward,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 3] = [Self::Future, Self::Impossible, Self::Backward];

    /// What it is, and what was done about it.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Future => "in the future; the frames' arrival was taken",
            Self::Impossible => {
                "before the stream was started, or no times at all; the frames' arrival was taken"
            }
            Self::Backward => "earlier than the frame before; that one's stamp was taken",
        }
    }
}

/// The stamps of one stream, from its start on.
#[derive(Clone, Debug)]
pub struct Stamps {
    earliest: Instant,
    last: Instant,
    counts: [u64; Fault::ALL.len()],
}

impl Stamps {
    /// Stamps of a stream that was started at `started`; a frame may have begun up to `slack` before.
    #[must_use]
    pub fn new(started: Instant, slack: Duration) -> Self {
        Self { earliest: started.saturating_sub(slack), last: Instant::default(), counts: [0; 3] }
    }

    /// When the frame was captured that was stamped `time` and arrived at `arrived`, and what was wrong with the
    /// stamp. Never later than `arrived`; never before the one before, unless arrivals are.
    pub fn convert(&mut self, time: DriverTime, clock: Clock, arrived: Instant) -> (Instant, Option<Fault>) {
        let (at, fault) = self.judge(time, clock, arrived);
        self.last = at;
        if let Some(fault) = fault {
            self.counts[fault as usize] += 1;
        }
        (at, fault)
    }

    fn judge(&self, time: DriverTime, clock: Clock, arrived: Instant) -> (Instant, Option<Fault>) {
        if clock == Clock::Unknown {
            return (arrived, None);
        }
        let stamp = time.nanos().and_then(|nanos| u64::try_from(nanos).ok()).map(Instant::from_nanos);
        match stamp {
            None => (arrived, Some(Fault::Impossible)),
            Some(stamp) if stamp > arrived => (arrived, Some(Fault::Future)),
            Some(stamp) if stamp < self.earliest => (arrived, Some(Fault::Impossible)),
            Some(stamp) if stamp < self.last => (self.last.min(arrived), Some(Fault::Backward)),
            Some(stamp) => (stamp, None),
        }
    }

    /// How often each fault was found, where it was.
    pub fn faults(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL
            .into_iter()
            .map(|fault| (fault, self.counts[fault as usize]))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Instant = Instant::from_nanos(100 * NANOS as u64);

    fn after(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    /// A stamp `millis` after the start.
    fn stamp(millis: i64) -> DriverTime {
        let micros = (100_000 + millis) * 1000;
        DriverTime { seconds: micros.div_euclid(1_000_000), micros: micros.rem_euclid(1_000_000) }
    }

    fn stamps() -> Stamps {
        Stamps::new(START, Duration::from_millis(40))
    }

    #[test]
    fn a_stamp_that_can_be_true_is_believed() {
        let mut stamps = stamps();
        for millis in [0, 1, 33, 33, 66] {
            let read = stamps.convert(stamp(millis), Clock::EndOfFrame, after(70));
            assert_eq!(read, (after(millis as u64), None));
        }
        // A paused process takes frames late: they are as old as they say.
        assert_eq!(stamps.convert(stamp(99), Clock::StartOfFrame, after(60_000)), (after(99), None));
        // The first may have begun before the stream did.
        let first = self::stamps().convert(stamp(-39), Clock::StartOfFrame, after(5));
        assert_eq!(first, (START.saturating_sub(Duration::from_millis(39)), None));
    }

    #[test]
    fn the_future_is_clamped_to_arrival() {
        let mut stamps = stamps();
        assert_eq!(
            stamps.convert(stamp(120), Clock::EndOfFrame, after(100)),
            (after(100), Some(Fault::Future))
        );
        // The next true stamp, a little before the arrival that was taken, must not go back.
        assert_eq!(
            stamps.convert(stamp(99), Clock::EndOfFrame, after(133)),
            (after(100), Some(Fault::Backward))
        );
        assert_eq!(stamps.convert(stamp(132), Clock::EndOfFrame, after(133)), (after(132), None));
        assert_eq!(stamps.faults().collect::<Vec<_>>(), [(Fault::Future, 1), (Fault::Backward, 1)]);
    }

    #[test]
    fn clocks_that_wrap_around_are_told() {
        let mut stamps = stamps();
        let seconds = |seconds| DriverTime { seconds, micros: 5 };
        let far = [2_147_483_632, 9_223_372_020, i64::MAX];
        let past = [0, 5, -1, -2_147_483_648, i64::MIN];
        for (times, fault) in [(&far[..1], Fault::Future), (&past[..], Fault::Impossible)] {
            for &at in times {
                let read = stamps.convert(seconds(at), Clock::EndOfFrame, after(10));
                assert_eq!(read, (after(10), Some(fault)), "{at}");
            }
        }
        // 16 s before 2^63 ns it still is a time, 36 s on it is none.
        assert_eq!(seconds(9_223_372_020).nanos(), Some(9_223_372_020_000_005_000));
        assert_eq!(seconds(9_223_372_037).nanos(), None);
        for micros in [-1, 1_000_000, i64::MAX] {
            assert_eq!(DriverTime { seconds: 100, micros }.nanos(), None);
        }
    }

    #[test]
    fn an_unknown_clock_is_not_read() {
        let mut stamps = stamps();
        assert_eq!(stamps.convert(stamp(5), Clock::Unknown, after(50)), (after(50), None));
        assert_eq!(stamps.faults().count(), 0);
    }

    #[test]
    fn flags_say_which_clock() {
        assert_eq!(Clock::by_flags(0x2000), Clock::EndOfFrame);
        assert_eq!(Clock::by_flags(0x12000 | 0x45), Clock::StartOfFrame);
        for flags in [0, 0x4000, 0x10000, 0x14000] {
            assert_eq!(Clock::by_flags(flags), Clock::Unknown);
        }
    }

    proptest! {
        /// Whatever a driver says, instants neither go back nor lie in the future.
        #[test]
        fn instants_are_in_order(
            frames in prop::collection::vec((any::<i64>(), any::<i64>(), -50i64..5_000, 0u64..100, any::<bool>()), 1..50)
        ) {
            let (mut stamps, mut now, mut last) = (stamps(), START, Instant::default());
            for (seconds, micros, millis, nap, sane) in frames {
                now = now + Duration::from_millis(nap);
                let time = if sane { stamp(millis) } else { DriverTime { seconds, micros } };
                let (at, _) = stamps.convert(time, Clock::EndOfFrame, now);
                prop_assert!(at <= now && at >= last);
                last = at;
            }
        }
    }
}
