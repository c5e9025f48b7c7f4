//! Frames and losses of one camera in the order of their numbers, while some frames are still being decoded.

use crate::capture::Captured;
use crate::job::{DropReason, Lost};
use crate::pool::FrameRef;
use crate::time::Instant;

/// Most entries. Three frames at most are being decoded or wait for it, so what fills this are losses between frames
/// that nobody asked for.
const ENTRIES: usize = 16;

#[derive(Debug)]
enum Entry {
    Decoding { ticket: u64, sequence: u64, captured: Instant },
    Frame(Captured),
    Lost(Lost),
}

/// What there is to tell, oldest first.
#[derive(Debug, Default)]
pub(super) struct Order(heapless::Vec<Entry, ENTRIES>);

/// What can be told.
#[derive(Debug)]
pub(super) enum Told {
    Frame(Captured),
    Lost(Lost),
}

impl Order {
    /// Whether a frame and then a loss have room.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() + 2 <= ENTRIES
    }

    /// Takes note of a frame that is to be decoded. There is room.
    pub(super) fn expect(&mut self, ticket: u64, sequence: u64, captured: Instant) {
        let full = self.0.push(Entry::Decoding { ticket, sequence, captured });
        debug_assert!(full.is_ok(), "has_room was not asked");
    }

    /// Takes note of lost frames: with those before them where they follow on, or where there is no room. (Then they
    /// are told with the first ones' reason, so that all are counted.)
    pub(super) fn lose(&mut self, lost: Lost) {
        let full = self.0.is_full();
        match self.0.last_mut() {
            Some(Entry::Lost(run)) if full || follows(run, &lost) => run.count += lost.count,
            _ => {
                let full = self.0.push(Entry::Lost(lost));
                debug_assert!(full.is_ok(), "a frame was put where a loss has its place");
            }
        }
    }

    /// The frame of `ticket` was decoded, or lost. Nothing happens where it is not expected any more.
    pub(super) fn settle(&mut self, ticket: u64, outcome: Result<FrameRef, DropReason>) {
        let is_it = |entry: &Entry| matches!(entry, Entry::Decoding { ticket: its, .. } if *its == ticket);
        let Some(index) = self.0.iter().position(is_it) else { return };
        let Entry::Decoding { sequence, captured, .. } = self.0[index] else { return };
        match outcome {
            Ok(frame) => self.0[index] = Entry::Frame(Captured { sequence, captured, frame }),
            Err(reason) => {
                let lost = Lost { sequence, count: 1, captured, reason };
                match index.checked_sub(1).map(|before| &mut self.0[before]) {
                    Some(Entry::Lost(run)) if follows(run, &lost) => {
                        run.count += 1;
                        self.0.remove(index);
                    }
                    _ => self.0[index] = Entry::Lost(lost),
                }
            }
        }
    }

    /// Gives up what is being decoded.
    pub(super) fn abandon(&mut self, reason: DropReason) {
        while let Some(ticket) = self.0.iter().find_map(|entry| match entry {
            Entry::Decoding { ticket, .. } => Some(*ticket),
            _ => None,
        }) {
            self.settle(ticket, Err(reason));
        }
    }

    /// The oldest, once it is settled.
    pub(super) fn next(&mut self) -> Option<Told> {
        if matches!(self.0.first()?, Entry::Decoding { .. }) {
            return None;
        }
        match self.0.remove(0) {
            Entry::Frame(captured) => Some(Told::Frame(captured)),
            Entry::Lost(lost) => Some(Told::Lost(lost)),
            Entry::Decoding { .. } => None,
        }
    }
}

fn follows(run: &Lost, lost: &Lost) -> bool {
    run.reason == lost.reason && run.sequence + run.count == lost.sequence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageLayout, PixelFormat};
    use crate::pool::{Pool, ShareSpec};
    use crate::stream::StreamId;

    const AT: Instant = Instant::from_nanos(7);

    fn lost(sequence: u64, count: u64, reason: DropReason) -> Lost {
        Lost { sequence, count, captured: AT, reason }
    }

    fn frame() -> FrameRef {
        let pool = Pool::new(&[ShareSpec { slots: 1, slot_bytes: 1 }], false).expect("one byte");
        let slot = pool.share(StreamId(0)).take().expect("a free slot");
        slot.freeze(ImageLayout::packed(PixelFormat::Gray8, 1, 1)).expect("one pixel fits")
    }

    fn all(order: &mut Order) -> Vec<(u64, u64, Option<DropReason>)> {
        std::iter::from_fn(|| order.next())
            .map(|told| match told {
                Told::Frame(frame) => (frame.sequence, 1, None),
                Told::Lost(lost) => (lost.sequence, lost.count, Some(lost.reason)),
            })
            .collect()
    }

    #[test]
    fn nothing_passes_a_frame_that_is_being_decoded() {
        let mut order = Order::default();
        order.expect(1, 10, AT);
        order.lose(lost(11, 3, DropReason::DriverLost));
        order.expect(2, 14, AT);
        order.settle(2, Ok(frame()));
        assert_eq!(all(&mut order), []);
        order.settle(1, Err(DropReason::Corrupt));
        let corrupt = (10, 1, Some(DropReason::Corrupt));
        assert_eq!(all(&mut order), [corrupt, (11, 3, Some(DropReason::DriverLost)), (14, 1, None)]);
        assert_eq!(all(&mut order), []);
    }

    #[test]
    fn superseded_frames_are_one_run_however_many() {
        let mut order = Order::default();
        order.expect(0, 0, AT);
        for ticket in 1..100 {
            assert!(order.has_room());
            order.expect(ticket, ticket, AT);
            order.settle(ticket, Err(DropReason::Superseded));
        }
        order.abandon(DropReason::SourceDown);
        assert_eq!(
            all(&mut order),
            [(0, 1, Some(DropReason::SourceDown)), (1, 99, Some(DropReason::Superseded))]
        );
        // Too late.
        order.settle(0, Ok(frame()));
        assert_eq!(all(&mut order), []);
    }

    #[test]
    fn without_room_losses_are_still_counted() {
        let mut order = Order::default();
        order.expect(0, 0, AT);
        let mut sequence = 1;
        while order.has_room() {
            order.expect(sequence, sequence, AT);
            order.settle(sequence, Err(DropReason::Superseded));
            order.lose(lost(sequence + 1, 1, DropReason::DriverLost));
            sequence += 2;
        }
        for _ in 0..50 {
            order.lose(lost(sequence, 1, DropReason::QueueFull));
            sequence += 1;
        }
        order.abandon(DropReason::Shutdown);
        let counted: u64 = all(&mut order).into_iter().map(|(_, count, _)| count).sum();
        assert_eq!(counted, sequence);
    }
}
