//! One wake-up for a thread that waits for several things.

use crate::platform::clock;
use crate::time::Instant;
use std::sync::{Arc, OnceLock};
use std::thread::{Thread, current, park_timeout};
use std::time::Duration;

/// Wakes one thread, whoever it waits for. Cheap to clone; waking costs a system call only when the thread
/// sleeps, and a wake-up that comes before the sleep ends that sleep at once.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<OnceLock<Thread>>);

impl Waker {
    /// A waker that wakes nobody until [`Waker::attach`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the calling thread the one that is woken. The first call counts.
    pub fn attach(&self) {
        let _ = self.0.set(current());
    }

    /// Ends the thread's present or next [`Waker::wait_until`].
    pub fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
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
