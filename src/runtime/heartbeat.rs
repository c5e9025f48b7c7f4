//! Signs of life that threads leave for the supervisor: plain atomics, a few nanoseconds each.
//!
//! A capture thread has a [`Seat`]. Its one word says what the thread does and since when, and whose the camera
//! is: whenever the thread waits for something that may never come it lays the camera down, and takes it up
//! again before it touches anything that others see. Meanwhile the supervisor may take the camera away. Either
//! of them wins, never both, so a thread that comes back after it was replaced can't deliver any more.

use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::time::{Instant, nanos};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// Longest wait of a thread that beats, however little there is to do.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// When a thread was last seen to be at work.
#[derive(Debug, Default)]
pub(super) struct Beat(AtomicU64);

impl Beat {
    pub(super) fn beat(&self, now: Instant) {
        self.0.store(now.as_nanos(), Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        Instant::from_nanos(self.0.load(Relaxed))
    }
}

/// When a thread that beats is to look again at the latest, if it has nothing to do before `at`.
pub(super) fn wake_by(at: Option<Instant>) -> Instant {
    let latest = clock::now() + LONGEST_WAIT;
    at.map_or(latest, |at| at.min(latest))
}

/// What a capture thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Phase {
    /// Its source opens: may take many seconds.
    Opening = 1,
    /// Its source has something to say, or comes back after a moment.
    Watching,
    /// Its source lets go of its device.
    Closing,
    /// The next try.
    Pausing,
}

impl Phase {
    /// For messages: what the thread is stuck in.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening its source",
            Self::Watching => "waiting for its source",
            Self::Closing => "closing its source",
            Self::Pausing => "a pause",
        }
    }
}

/// The thread holds the camera, and waits for nothing; or has ended.
const HELD: u64 = 0;
/// Another thread has the camera.
const TAKEN: u64 = 7;
/// The word's bits that say which; the others are the instant since when, in nanoseconds.
const STATE: u64 = 7;

/// A capture thread's word to the supervisor, and what whoever replaces it needs to know.
#[derive(Debug, Default)]
pub(super) struct Seat {
    word: AtomicU64,
    /// Number after that of the last frame that was told of.
    next: AtomicU64,
    /// Frames that found the ring full and have not been told of: number of the first, capture, how many.
    overflow: [AtomicU64; 3],
    /// Whether the source's first opening has succeeded or failed.
    tried: AtomicBool,
    /// Whether releases count.
    begun: AtomicBool,
    /// Whether the thread goes on where another left off.
    pub(super) resumes: bool,
}

/// A capture thread that waits, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    word: u64,
    /// For what.
    pub(super) phase: Phase,
    /// Since when.
    pub(super) since: Instant,
}

/// Where a camera's former thread left off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Number of the first frame that is still to be told of, after those of `overflow`.
    pub(super) next: u64,
    /// Frames that are to be told of first.
    pub(super) overflow: Option<Lost>,
    tried: bool,
    begun: bool,
}

/// The camera has another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced;

impl Seat {
    /// The seat of a thread that goes on where another left off.
    pub(super) fn after(past: &Past) -> Self {
        Self {
            next: AtomicU64::new(past.next),
            tried: AtomicBool::new(past.tried),
            begun: AtomicBool::new(past.begun),
            resumes: true,
            ..Self::default()
        }
    }

    /// Waits by `wait`, with the camera laid down. What it gives is dropped when the camera was taken meanwhile:
    /// then the thread has nothing left to do but to close its source and end.
    pub(super) fn during<T>(&self, phase: Phase, wait: impl FnOnce() -> T) -> Result<T, Replaced> {
        let mine = (clock::now().as_nanos() & !STATE) | phase as u64;
        // Release: who takes over sees all that was told of.
        self.word.store(mine, Release);
        let value = wait();
        match self.word.compare_exchange(mine, HELD, Acquire, Acquire) {
            Ok(_) => Ok(value),
            Err(_) => Err(Replaced),
        }
    }

    /// What the thread waits for; `None` while it does not, or has ended.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let word = self.word.load(Relaxed);
        let phase = match word & STATE {
            1 => Phase::Opening,
            2 => Phase::Watching,
            3 => Phase::Closing,
            4 => Phase::Pausing,
            _ => return None,
        };
        Some(Waiting { word, phase, since: Instant::from_nanos(word & !STATE) })
    }

    /// Takes the camera from a thread that still waits as it was seen; `None` when it does not.
    pub(super) fn take(&self, seen: &Waiting) -> Option<Past> {
        self.word.compare_exchange(seen.word, TAKEN, AcqRel, Relaxed).ok()?;
        Some(self.past())
    }

    /// The same of a thread that has died.
    pub(super) fn take_from_dead(&self) -> Past {
        self.word.store(TAKEN, Relaxed);
        self.past()
    }

    fn past(&self) -> Past {
        let [sequence, captured, count] = [0, 1, 2].map(|index| self.overflow[index].load(Relaxed));
        let captured = Instant::from_nanos(captured);
        let overflow =
            (count > 0).then_some(Lost { sequence, count, captured, reason: DropReason::QueueFull });
        Past {
            next: self.next.load(Relaxed),
            overflow,
            tried: self.tried.load(Relaxed),
            begun: self.begun.load(Relaxed),
        }
    }

    /// All frames before this number have been told of, or stand in the overflow.
    pub(super) fn told(&self, next: u64) {
        self.next.store(next, Relaxed);
    }

    /// Frames that found the ring full, for want of a way to tell of them yet.
    pub(super) fn keep(&self, overflow: Option<Lost>) {
        let parts = overflow.map_or([0; 3], |run| [run.sequence, run.captured.as_nanos(), run.count]);
        for (cell, part) in self.overflow.iter().zip(parts) {
            cell.store(part, Relaxed);
        }
    }

    /// Notes that the first opening is over; whether it was not known.
    pub(super) fn try_first(&self) -> bool {
        !self.tried.swap(true, Relaxed)
    }

    /// Whether releases count already.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Releases count from now on.
    pub(super) fn begin(&self) {
        self.begun.store(true, Relaxed);
    }
}

/// What the accelerator is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// When it began its oldest batch.
    pub(super) since: Instant,
    /// How long that may take.
    pub(super) budget: Duration,
}

/// What exec and pub leave.
#[derive(Debug, Default)]
pub(super) struct Signs {
    pub(super) exec: Beat,
    pub(super) publisher: Beat,
    /// The oldest batch at the accelerator: since when (0: none is there), and its budget.
    work: [AtomicU64; 2],
    /// Since when every batch has failed; 0 while they don't.
    failing: AtomicU64,
}

impl Signs {
    pub(super) fn set_work(&self, work: Option<Work>) {
        if let Some(Work { budget, .. }) = work {
            self.work[1].store(nanos(budget), Relaxed);
        }
        self.work[0].store(work.map_or(0, |work| work.since.as_nanos()), Release);
    }

    /// The two parts may be of two batches that follow each other; exec looks again before anything is done.
    pub(super) fn work(&self) -> Option<Work> {
        let since = self.work[0].load(Acquire);
        let budget = Duration::from_nanos(self.work[1].load(Relaxed));
        (since > 0).then(|| Work { since: Instant::from_nanos(since), budget })
    }

    /// A batch failed, or did not.
    pub(super) fn set_failing(&self, now: Option<Instant>) {
        let known = self.failing.load(Relaxed);
        match now {
            Some(now) if known == 0 => self.failing.store(now.as_nanos(), Relaxed),
            None if known != 0 => self.failing.store(0, Relaxed),
            _ => {}
        }
    }

    /// Since when every batch has failed.
    pub(super) fn failing(&self) -> Option<Instant> {
        let since = self.failing.load(Relaxed);
        (since > 0).then(|| Instant::from_nanos(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_thread_that_waits_is_seen_and_one_that_works_is_not() {
        let seat = Seat::default();
        assert_eq!(seat.waiting(), None);
        let before = clock::now();
        let seen = seat.during(Phase::Opening, || seat.waiting()).unwrap().unwrap();
        assert_eq!(seen.phase, Phase::Opening);
        assert!(seen.since + Duration::from_nanos(STATE) >= before && seen.since <= clock::now());
        assert_eq!(seat.waiting(), None);
        assert_eq!(seat.take(&seen), None, "it has come back");
    }

    #[test]
    fn who_was_replaced_hears_of_it_and_leaves_its_books() {
        let seat = Seat::default();
        assert!(seat.try_first() && !seat.try_first());
        let run =
            Lost { sequence: 5, count: 2, captured: Instant::from_nanos(9), reason: DropReason::QueueFull };
        seat.told(7);
        seat.keep(Some(run));
        let mut past = None;
        let result = seat.during(Phase::Watching, || past = seat.take(&seat.waiting().unwrap()));
        assert_eq!(result, Err(Replaced));
        let past = past.unwrap();
        assert_eq!(past, Past { next: 7, overflow: Some(run), tried: true, begun: false });
        let next = Seat::after(&past);
        assert!(!next.try_first() && !next.has_begun());
        assert_eq!(next.past().next, 7);
        assert_eq!(seat.waiting(), None, "nobody is watched there any more");
    }

    /// One of the two has the camera, whatever happens at the same time: the thread's count and what the other
    /// found when it took over agree.
    #[test]
    fn a_camera_has_one_owner() {
        for round in 0..50 {
            let seat = Arc::new(Seat::default());
            let theirs = seat.clone();
            let thread = std::thread::spawn(move || {
                let mut told = 0;
                while told < 100_000 && theirs.during(Phase::Watching, || ()).is_ok() {
                    told += 1;
                    theirs.told(told);
                }
                told
            });
            let past = loop {
                match seat.waiting().and_then(|seen| seat.take(&seen)) {
                    Some(past) => break past,
                    None if thread.is_finished() => break seat.take_from_dead(),
                    None => std::hint::spin_loop(),
                }
            };
            assert_eq!(thread.join().unwrap(), past.next, "round {round}");
        }
    }

    #[test]
    fn work_is_there_or_not() {
        let signs = Signs::default();
        assert_eq!((signs.work(), signs.failing()), (None, None));
        let work = Work { since: Instant::from_nanos(5), budget: Duration::from_secs(1) };
        signs.set_work(Some(work));
        assert_eq!(signs.work(), Some(work));
        signs.set_work(None);
        assert_eq!(signs.work(), None);
        signs.set_failing(Some(Instant::from_nanos(3)));
        signs.set_failing(Some(Instant::from_nanos(4)));
        assert_eq!(signs.failing(), Some(Instant::from_nanos(3)), "the first counts");
        signs.set_failing(None);
        assert_eq!(signs.failing(), None);
    }
}
