//! One wake-up for a thread that waits for several things.

use crate::platform::clock;
use crate::time::Instant;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Thread, current, park_timeout};
use std::time::Duration;

/// Wakes one thread, whoever it waits for. Cheap to clone; waking costs a system call only when the thread
/// sleeps, and a wake-up that comes before the sleep ends that sleep at once.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    thread: OnceLock<Thread>,
    /// Arrivals that need not wake it.
    spare: AtomicU32,
}

impl Waker {
    /// A waker that wakes nobody until [`Waker::attach`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the calling thread the one that is woken. The first call counts.
    pub fn attach(&self) {
        let _ = self.0.thread.set(current());
    }

    /// Ends the thread's present or next [`Waker::wait_until`].
    pub fn wake(&self) {
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// As [`Waker::wake`], but for something of which the thread waits for several ([`Waker::wait_for`]): all
    /// but the last of them leave it asleep.
    pub fn arrived(&self) {
        if !self.is_spare() {
            self.wake();
        }
    }

    /// Counts an arrival; whether others are still to come.
    fn is_spare(&self) -> bool {
        let less = |spare: u32| spare.checked_sub(1);
        self.0.spare.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// As [`Waker::wait_until`], where fewer than `arrivals` more [`Waker::arrived`] change nothing. Those that
    /// came since the thread last looked have woken it already, so none is counted that it has seen.
    pub fn wait_for(&self, arrivals: u32, at: Option<Instant>) {
        self.0.spare.store(arrivals.saturating_sub(1), Ordering::Release);
        self.wait_until(at);
        // Whoever was counted before this has left what arrived where the thread looks next.
        self.0.spare.swap(0, Ordering::AcqRel);
    }

    /// Waits on the attached thread until woken or until `at` (without `at`: a second at most, so that
    /// nothing that was missed is missed for long). May return early.
    pub fn wait_until(&self, at: Option<Instant>) {
        let left = at.map_or(Duration::from_secs(1), |at| at.since(clock::now()));
        if left > Duration::ZERO {
            park_timeout(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_of_those_that_are_waited_for_wakes() {
        let waker = Waker::new();
        waker.attach();
        let far = Some(clock::now() + Duration::from_secs(3600));
        // What came before the wait ends it at once, and nothing stays counted.
        waker.arrived();
        waker.wait_for(3, far);
        assert!(!waker.is_spare());
        waker.0.spare.store(2, Ordering::Release);
        assert_eq!([(); 4].map(|()| waker.is_spare()), [true, true, false, false]);
        // One that is waited for alone wakes like anything else.
        waker.arrived();
        waker.wait_for(1, far);
    }
}
