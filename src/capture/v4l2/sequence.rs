//! From a driver's frame counter, 32 bits that wrap around, to numbers that go on for ever.
//!
//! Gaps are frames that were lost on the way. Drivers also repeat a number, start again, or jump by nonsense;
//! none of that is a loss. A number that comes twice stands for two frames that came, so the second gets the next
//! number, and pays for the gap that follows where the driver's counter had stood still.

/// A step by more than this is a step of a frame counter only where as much time has passed.
pub const LARGEST_GAP: u32 = 10_000;

/// The numbers of one camera's frames, across all its openings.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Number of the next frame that is not known to be lost.
    next: u64,
    /// What the driver called the last frame since it was opened.
    last: Option<u32>,
    /// Frames that came with a number that was used already.
    ahead: u64,
    odd: [u64; Oddity::ALL.len()],
}

/// What a driver's counter did beside counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The same number again.
    Repeated,
    /// A smaller number.
    Backward,
    /// A step that is too large to be lost frames, for the time that has passed.
    Jumped,
}

impl Oddity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Repeated, Self::Backward, Self::Jumped];

    /// For the log.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Backward => "going back",
            Self::Jumped => "jumping by more than 10000",
        }
    }
}

/// What a frame's number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Frames lost before this one; they have the numbers before its own.
    pub lost: u64,
    /// The frame's number.
    pub number: u64,
    /// What was odd about it.
    pub oddity: Option<Oddity>,
}

impl Sequence {
    /// The driver counts from anew: the camera was opened.
    pub fn reopen(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// Frames before number `next` have been told by somebody else.
    pub fn resume(&mut self, next: u64) {
        self.next = next;
    }

    /// A frame that the driver calls `sequence` has come, so many periods after the last one.
    pub fn take(&mut self, sequence: u32, periods: u64) -> Step {
        let step = self.last.map(|last| sequence.wrapping_sub(last));
        let oddity = match step {
            Some(0) => Some(Oddity::Repeated),
            Some(step) if step >= 1 << 31 => Some(Oddity::Backward),
            // A camera may be somewhat faster than it says.
            Some(step) if u64::from(step) > u64::from(LARGEST_GAP).max(periods.saturating_mul(2)) => {
                Some(Oddity::Jumped)
            }
            _ => None,
        };
        let mut lost = match (step, oddity) {
            (Some(step), None) => u64::from(step) - 1,
            _ => 0,
        };
        match oddity {
            Some(Oddity::Repeated) => self.ahead += 1,
            Some(Oddity::Backward | Oddity::Jumped) => self.ahead = 0,
            None => {
                let paid = lost.min(self.ahead);
                (lost, self.ahead) = (lost - paid, self.ahead - paid);
            }
        }
        if let Some(oddity) = oddity {
            self.odd[oddity as usize] += 1;
        }
        self.last = Some(sequence);
        let number = self.next + lost;
        self.next = number + 1;
        Step { lost, number, oddity }
    }

    /// How often each oddity was found since the camera was opened, where it was.
    pub fn oddities(&self) -> impl Iterator<Item = (Oddity, u64)> {
        Oddity::ALL.into_iter().map(|odd| (odd, self.odd[odd as usize])).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The numbers that frames get, and the losses before them.
    fn numbers(sequence: &mut Sequence, frames: &[u32]) -> Vec<(u64, u64)> {
        let take = |&frame| {
            let Step { lost, number, .. } = sequence.take(frame, 1);
            (lost, number)
        };
        frames.iter().map(take).collect()
    }

    #[test]
    fn gaps_are_lost_frames() {
        let mut sequence = Sequence::default();
        assert_eq!(numbers(&mut sequence, &[0, 1, 4, 5]), [(0, 0), (0, 1), (2, 4), (0, 5)]);
    }

    #[test]
    fn the_first_number_is_where_counting_begins() {
        assert_eq!(numbers(&mut Sequence::default(), &[77, 78]), [(0, 0), (0, 1)]);
    }

    #[test]
    fn a_counter_that_wraps_around_goes_on() {
        let end = u32::MAX;
        let mut sequence = Sequence::default();
        let frames = [end - 1, end, 0, 2];
        assert_eq!(numbers(&mut sequence, &frames), [(0, 0), (0, 1), (0, 2), (1, 4)]);
        assert_eq!(sequence.oddities().count(), 0);
    }

    #[test]
    fn numbers_go_on_when_the_camera_is_opened_again() {
        let mut sequence = Sequence::default();
        numbers(&mut sequence, &[0, 1, 2]);
        sequence.reopen();
        assert_eq!(numbers(&mut sequence, &[0, 2]), [(0, 3), (1, 5)]);
        assert_eq!(sequence.oddities().count(), 0);
    }

    #[test]
    fn a_repeated_number_is_a_frame_and_pays_for_the_gap_after_it() {
        let mut sequence = Sequence::default();
        assert_eq!(numbers(&mut sequence, &[5, 5, 7, 8, 10]), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 5)]);
        assert_eq!(sequence.oddities().collect::<Vec<_>>(), [(Oddity::Repeated, 1)]);
    }

    #[test]
    fn going_back_or_far_ahead_is_no_loss() {
        let mut sequence = Sequence::default();
        let frames = [100, 90, 91, 91 + LARGEST_GAP, 91 + 2 * LARGEST_GAP + 1, 0, 1];
        let lost: Vec<u64> = numbers(&mut sequence, &frames).into_iter().map(|(lost, _)| lost).collect();
        assert_eq!(lost, [0, 0, 0, u64::from(LARGEST_GAP) - 1, 0, 0, 0]);
        assert_eq!(sequence.oddities().collect::<Vec<_>>(), [(Oddity::Backward, 2), (Oddity::Jumped, 1)]);
    }

    #[test]
    fn a_long_pause_explains_a_large_step() {
        let take = |periods| {
            let mut sequence = Sequence::default();
            sequence.take(7, 1);
            sequence.take(7 + 20_000, periods).lost
        };
        assert_eq!([take(1), take(9_999), take(10_000), take(u64::MAX)], [0, 0, 19_999, 19_999]);
    }

    proptest! {
        /// Whatever a driver counts, our numbers follow one another without a hole that was not told.
        #[test]
        fn every_number_is_a_frame_or_a_loss(frames in prop::collection::vec(prop_oneof![any::<u32>(), 0u32..20], 1..200)) {
            let (mut sequence, mut next) = (Sequence::default(), 0);
            for frame in frames {
                let step = sequence.take(frame, 1);
                prop_assert_eq!(step.number, next + step.lost);
                prop_assert!(step.lost < u64::from(LARGEST_GAP));
                next = step.number + 1;
            }
        }
    }
}
