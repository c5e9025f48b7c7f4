//! Frames of a live source are numbered and timed where they arrive, on GStreamer's streaming thread.
//!
//! The streaming thread must never wait for the capture thread: a source that is held up loses frames that
//! nobody counts. So at most [`QUEUE`] frames wait in the sink; what comes on top is dropped here, and the gap
//! in the numbers tells of it.

use crate::platform::clock;
use crate::time::Instant;
use gst::prelude::*;
use gstreamer as gst;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames that may wait for the capture thread.
pub const QUEUE: usize = 4;

/// Numbers and times of the frames that wait. The streaming thread alone writes `arrived`, `accepted` and free
/// entries; the capture thread alone writes `taken`. Entry `n % QUEUE` belongs to the capture thread from
/// `accepted > n` until `taken > n`.
#[derive(Debug, Default)]
pub struct Arrivals {
    arrived: AtomicU64,
    accepted: AtomicU64,
    taken: AtomicU64,
    entries: [Entry; QUEUE],
}

#[derive(Debug, Default)]
struct Entry {
    number: AtomicU64,
    at: AtomicU64,
}

impl Arrivals {
    /// Watches the frames that come to the sink's `pad`.
    pub fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        let this = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            // Not `Drop`: with it, gstreamer-rs 0.25 has the buffer unreferenced twice.
            if this.accept(clock::now()) { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
        });
    }

    /// Frames that have arrived.
    pub fn count(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// Number (from 0) and time of the frame that was just taken out of the sink.
    pub fn taken(&self) -> (u64, Instant) {
        let taken = self.taken.load(Ordering::Relaxed);
        let entry = &self.entries[(taken % QUEUE as u64) as usize];
        // The sink's own lock, taken after `accept` and before this, orders the entry; Acquire says so too.
        debug_assert!(self.accepted.load(Ordering::Acquire) > taken);
        let number = entry.number.load(Ordering::Acquire);
        let at = Instant::from_nanos(entry.at.load(Ordering::Acquire));
        self.taken.store(taken + 1, Ordering::Release);
        (number, at)
    }

    /// A frame has come; whether there is room for it.
    fn accept(&self, now: Instant) -> bool {
        let number = self.arrived.fetch_add(1, Ordering::AcqRel);
        let accepted = self.accepted.load(Ordering::Relaxed);
        if accepted - self.taken.load(Ordering::Acquire) >= QUEUE as u64 {
            return false;
        }
        let entry = &self.entries[(accepted % QUEUE as u64) as usize];
        entry.number.store(number, Ordering::Release);
        entry.at.store(now.as_nanos(), Ordering::Release);
        self.accepted.store(accepted + 1, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_leaves_a_gap_in_the_numbers() {
        let arrivals = Arrivals::default();
        let at = |n: u64| Instant::from_nanos(100 + n);
        let accepted: Vec<bool> = (0..7).map(|n| arrivals.accept(at(n))).collect();
        assert_eq!(accepted, [true, true, true, true, false, false, false]);
        assert_eq!(arrivals.taken(), (0, at(0)));
        assert!(arrivals.accept(at(7)));
        let rest: Vec<_> = (0..4).map(|_| arrivals.taken()).collect();
        assert_eq!(rest, [(1, at(1)), (2, at(2)), (3, at(3)), (7, at(7))]);
        assert_eq!(arrivals.count(), 8);
    }
}
