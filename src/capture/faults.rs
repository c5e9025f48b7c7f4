//! Faults on purpose: a source around a source, for tests and rigs.
//!
//! What happens to a frame depends on the seed and its sequence number alone, so a run can be repeated.

use crate::board::Faults;
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError, lost};
use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::pool::{FrameRef, Share};
use crate::random::Random;
use crate::time::Instant;
use std::time::Duration;

/// How long a thread that hangs for ever sleeps at a time.
const HOUR: Duration = Duration::from_secs(3600);
/// Slots that the wrapper may hold on top of its source's: the picture that is frozen, and garbage being
/// made while the frame it replaces is still there.
pub const SLOTS: usize = 2;

/// Each random fault has numbers of its own.
const DROP: u64 = 0x6472_6f70;
const JITTER: u64 = 0x6a69_7474;
const CORRUPT: u64 = 0x636f_7272;
const GARBAGE: u64 = 0x6761_7262;

/// A source with faults.
///
/// | fault | what is seen |
/// |---|---|
/// | drop | `Lost` with reason `Injected` |
/// | jitter | the frame comes later, its stamp stays; meanwhile the source is not asked |
/// | freeze | from that frame on the same picture, with new numbers and stamps; it keeps its slot |
/// | corrupt | noise, written into a slot of its own (nothing is copied); without a free slot: `NoSlot` |
/// | stall | the source is not asked for that time; on a grid its releases become `SourceLate` |
/// | hang | asked for that frame it never answers, as a driver that is stuck; what replaces the source goes on |
/// | fail | `Failed` once, before that frame; opened again, it goes on |
/// | end | `Ended` before that frame, and ever after |
pub struct Faulty {
    inner: Box<dyn Source>,
    faults: Faults,
    stream: String,
    share: Option<Share>,
    /// Number that the next frame should have.
    next: u64,
    frozen: Option<FrameRef>,
    held: Option<(Instant, Captured)>,
    stall: Stall,
    hung: bool,
    failed: bool,
    down: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stall {
    Ahead,
    Until(Instant),
    Over,
}

impl Faulty {
    /// `inner`, the source of the stream of that name, with `faults`.
    #[must_use]
    pub fn new(inner: Box<dyn Source>, faults: Faults, stream: &str) -> Self {
        Self {
            inner,
            faults,
            stream: stream.to_owned(),
            share: None,
            next: 0,
            frozen: None,
            held: None,
            stall: Stall::Ahead,
            hung: false,
            failed: false,
            down: false,
        }
    }

    /// Whether the frame that should come next is at or past `at`.
    fn reached(&self, at: Option<u64>) -> bool {
        at.is_some_and(|at| self.next >= at)
    }

    fn ended(&self) -> bool {
        self.reached(self.faults.end_at)
    }

    /// Ends of waiting before the source may be asked: a stall.
    fn stalled_until(&mut self, now: Instant) -> Option<Instant> {
        if let Stall::Ahead = self.stall
            && self.reached(self.faults.stall_at)
        {
            self.stall = Stall::Until(now + self.faults.stall);
        }
        match self.stall {
            Stall::Until(end) if now < end => Some(end),
            Stall::Until(_) => {
                self.stall = Stall::Over;
                None
            }
            Stall::Ahead | Stall::Over => None,
        }
    }

    /// What becomes of a frame of the source; `None` when it is held back.
    fn befall(&mut self, mut captured: Captured) -> Option<Next> {
        let Captured { sequence, captured: at, .. } = captured;
        let draw = |salt: u64| Random::at(self.faults.seed ^ salt, sequence);
        if draw(DROP).unit() < self.faults.drop {
            return Some(Next::Lost(lost(sequence, at, DropReason::Injected)));
        }
        if self.faults.freeze_at.is_some_and(|from| sequence >= from) {
            captured.frame = self.frozen.get_or_insert_with(|| captured.frame.clone()).clone();
        }
        if draw(CORRUPT).unit() < self.faults.corrupt {
            match self.garbage(&captured) {
                Some(frame) => captured.frame = frame,
                None => return Some(Next::Lost(lost(sequence, at, DropReason::NoSlot))),
            }
        }
        if self.faults.jitter.is_zero() {
            return Some(Next::Frame(captured));
        }
        self.held = Some((clock::now() + draw(JITTER).below(self.faults.jitter), captured));
        None
    }

    /// A frame of noise with the same layout.
    fn garbage(&self, captured: &Captured) -> Option<FrameRef> {
        let mut slot = self.share.as_ref()?.take()?;
        let layout = *captured.frame.layout();
        let mut noise = Random::at(self.faults.seed ^ GARBAGE, captured.sequence);
        for word in slot.bytes_mut().get_mut(..layout.extent()?)?.chunks_mut(8) {
            word.copy_from_slice(&noise.bits().to_le_bytes()[..word.len()]);
        }
        slot.freeze(layout).ok()
    }
}

impl Source for Faulty {
    /// Faults that were due by then have been had.
    fn resume(&mut self, next: u64) {
        self.inner.resume(next);
        self.next = next;
        self.failed = self.reached(self.faults.fail_at);
        self.hung = self.reached(self.faults.hang_at);
        if self.reached(self.faults.stall_at) {
            self.stall = Stall::Over;
        }
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        let mut opened = self.inner.open(resources)?;
        self.share = Some(resources.share.clone());
        self.down = false;
        opened.notes.push("faults are injected".to_owned());
        Ok(opened)
    }

    fn next(&mut self, until: Instant) -> Next {
        loop {
            let now = clock::now();
            let held = self.held.as_ref().map(|(at, _)| *at);
            let wait = match held {
                Some(at) if at <= now => {
                    if let Some((_, captured)) = self.held.take() {
                        return Next::Frame(captured);
                    }
                    None
                }
                Some(at) => Some(at),
                None if self.ended() => return Next::Ended,
                None if !self.hung && self.reached(self.faults.hang_at) => hang(),
                None if !self.failed && self.reached(self.faults.fail_at) => {
                    (self.failed, self.down) = (true, true);
                    return Next::Failed(SourceError::new(
                        format!("stream `{}` failed at frame {}, as its faults say", self.stream, self.next),
                        "remove `fail_at` from the stream's faults",
                    ));
                }
                None => self.stalled_until(now),
            };
            if let Some(wait) = wait {
                if now >= until {
                    return Next::Nothing;
                }
                clock::sleep_until(wait.min(until));
                continue;
            }
            match self.inner.next(until) {
                Next::Frame(captured) => {
                    self.next = captured.sequence + 1;
                    if let Some(next) = self.befall(captured) {
                        return next;
                    }
                }
                Next::Lost(lost) => {
                    self.next = lost.sequence + lost.count;
                    return Next::Lost(lost);
                }
                Next::Failed(error) => {
                    self.down = true;
                    return Next::Failed(error);
                }
                other @ (Next::Nothing | Next::Ended) => return other,
            }
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        if let Some((_, held)) = self.held.take() {
            let reason = if self.down { DropReason::SourceDown } else { DropReason::Shutdown };
            return Some(lost(held.sequence, held.captured, reason));
        }
        if self.ended() {
            return None;
        }
        let mut lost = self.inner.missed(now)?;
        self.next = lost.sequence + lost.count;
        if self.down {
            lost.reason = DropReason::SourceDown;
        }
        Some(lost)
    }

    fn close(&mut self) {
        self.inner.close();
        self.share = None;
    }

    fn await_return(&mut self, until: Instant) -> bool {
        self.inner.await_return(until)
    }
}

/// What a thread does that is stuck in the kernel: nothing, whoever waits for it.
fn hang() -> ! {
    loop {
        clock::sleep_until(clock::now() + HOUR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageLayout, PixelFormat};
    use crate::pool::{Pool, ShareSpec};
    use crate::stats::Copies;
    use crate::stream::StreamId;
    use std::sync::Arc;

    /// Delivers a frame whenever asked, full of its number.
    #[derive(Debug)]
    struct Eager(Option<Share>, u64);

    impl Source for Eager {
        fn resume(&mut self, next: u64) {
            self.1 = next;
        }

        fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
            self.0 = Some(resources.share.clone());
            Ok(Opened { layout: ImageLayout::packed(PixelFormat::Gray8, 16, 16), notes: Vec::new() })
        }

        fn next(&mut self, _: Instant) -> Next {
            let layout = ImageLayout::packed(PixelFormat::Gray8, 16, 16);
            let mut slot = self.0.as_ref().unwrap().take().unwrap();
            slot.bytes_mut().fill(self.1 as u8);
            self.1 += 1;
            let frame = slot.freeze(layout).unwrap();
            Next::Frame(Captured { sequence: self.1 - 1, captured: Instant::from_nanos(self.1), frame })
        }

        fn missed(&mut self, _: Instant) -> Option<Lost> {
            None
        }

        fn close(&mut self) {}
    }

    fn opened(faults: Faults) -> Faulty {
        let pool = Pool::new(&[ShareSpec { slots: 4, slot_bytes: 256 }], false).unwrap();
        let share = pool.share(StreamId(0));
        let mut source = Faulty::new(Box::new(Eager(None, 0)), faults, "front");
        let copies = Arc::new(Copies::default());
        source.open(&Resources { share, copies, start: clock::now() }).unwrap();
        source
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(60)
    }

    #[test]
    fn frames_are_dropped_by_their_share_and_the_same_on_every_run() {
        let run = || -> Vec<bool> {
            let mut source = opened(Faults { drop: 0.25, seed: 3, ..Faults::default() });
            (0..2_000)
                .map(|sequence| match source.next(soon()) {
                    Next::Frame(captured) => {
                        assert_eq!(captured.sequence, sequence);
                        false
                    }
                    Next::Lost(lost) => {
                        assert_eq!((lost.sequence, lost.reason), (sequence, DropReason::Injected));
                        true
                    }
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        let dropped = run();
        let share = dropped.iter().filter(|dropped| **dropped).count();
        assert!((400..600).contains(&share), "{share} of 2000");
        assert_eq!(dropped, run());
    }

    #[test]
    fn a_frozen_camera_repeats_one_picture_with_new_numbers() {
        let mut source = opened(Faults { freeze_at: Some(2), ..Faults::default() });
        for sequence in 0..20 {
            let Next::Frame(captured) = source.next(soon()) else { panic!() };
            assert_eq!(captured.sequence, sequence);
            assert_eq!(captured.frame.bytes()[0], sequence.min(2) as u8);
        }
    }

    #[test]
    fn a_corrupt_frame_is_noise_of_the_same_layout() {
        let mut source = opened(Faults { corrupt: 1.0, ..Faults::default() });
        for sequence in 0..20u64 {
            let Next::Frame(captured) = source.next(soon()) else { panic!() };
            assert_eq!(captured.frame.layout().width, 16);
            let same = captured.frame.bytes().iter().filter(|byte| **byte == sequence as u8).count();
            assert!(same < 20, "{same} of 256 bytes are the camera's");
        }
    }

    #[test]
    fn it_fails_once_and_ends_for_good() {
        let mut source = opened(Faults { fail_at: Some(1), end_at: Some(3), ..Faults::default() });
        assert!(matches!(source.next(soon()), Next::Frame(Captured { sequence: 0, .. })));
        assert!(matches!(source.next(soon()), Next::Failed(_)));
        assert!(matches!(source.next(soon()), Next::Frame(Captured { sequence: 1, .. })));
        assert!(matches!(source.next(soon()), Next::Frame(Captured { sequence: 2, .. })));
        assert!(matches!(source.next(soon()), Next::Ended));
        assert!(matches!(source.next(soon()), Next::Ended));
        assert_eq!(source.missed(soon()), None);
    }

    #[test]
    fn what_replaces_a_source_has_had_its_faults() {
        let pool = Pool::new(&[ShareSpec { slots: 4, slot_bytes: 256 }], false).unwrap();
        let faults = Faults {
            hang_at: Some(7),
            fail_at: Some(5),
            stall_at: Some(6),
            stall: HOUR,
            ..Faults::default()
        };
        let mut source = Faulty::new(Box::new(Eager(None, 0)), faults, "front");
        source.resume(7);
        let resources = Resources {
            share: pool.share(StreamId(0)),
            copies: Arc::new(Copies::default()),
            start: clock::now(),
        };
        source.open(&resources).unwrap();
        assert!(matches!(source.next(soon()), Next::Frame(Captured { sequence: 7, .. })));
        assert!(matches!(source.next(soon()), Next::Frame(Captured { sequence: 8, .. })));
    }

    #[test]
    fn a_stall_and_a_held_frame_respect_the_callers_patience() {
        let hour = Duration::from_secs(3600);
        let mut source = opened(Faults { stall_at: Some(0), stall: hour, ..Faults::default() });
        assert!(matches!(source.next(clock::now() + Duration::from_millis(1)), Next::Nothing));

        let mut source = opened(Faults { jitter: hour, seed: 1, ..Faults::default() });
        assert!(matches!(source.next(clock::now() + Duration::from_millis(1)), Next::Nothing));
        let held = source.missed(clock::now()).unwrap();
        assert_eq!((held.sequence, held.count, held.reason), (0, 1, DropReason::Shutdown));
    }
}
