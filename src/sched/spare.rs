//! Spare frames: what the ladder leaves out waits for a batch that has room, or for a moment in which the accelerator would
//! be idle.
//!
//! The ladder takes whole fractions of streams out, and stays down for a while after what took it there; so it often
//! leaves out more than has to be, and what has to be varies from one moment to the next. A frame that is left out is
//! therefore kept, one a stream, until the stream's next frame or its own end, and is served when nothing waits and
//! nobody can be late for it ([`super::Scheduler::fill_spare`]), or rides along in a batch that has room. There it costs a
//! frame's time and no batch's, but all wait for it that are in that batch or due before its end: it rides where they
//! would be in time even if batches took a tenth longer. With a gate it only rides, and no further than until the next
//! instant's frames are there: instants are served one by one, and one that is longer than the time between them makes all
//! behind it later. Nothing else sees it: it is in no order and no plan.
//!
//! In simulation (`boards/bench.toml`, a third critical, in % of the 64 streams that are possible at best), without riders
//! and with them:
//!
//! | bound, streams, releases | without | with |
//! |---|---|---|
//! | 1.5 P, 72 to 96, together | 99.2 | 100 |
//! | P, 72 to 128, in two groups | 80.9 to 83.8 | 83.6 to 83.9 |
//! | P, 72 to 128, at random | 78.1 to 80.7 | 81.3 to 82.2 |
//! | 1.5 P, 64 to 96, at random | 93.2 to 93.6 | 94.1 to 94.4 |

use crate::job::BatchJob;
use crate::stream::StreamId;
use crate::time::Instant;

/// The frames that are kept.
#[derive(Debug)]
pub(super) struct Spares<P> {
    /// Per stream.
    kept: Vec<Option<BatchJob<P>>>,
    /// No deadline is earlier; `None` where nothing is kept.
    first: Option<Instant>,
}

impl<P> Spares<P> {
    pub(super) fn new(streams: usize) -> Self {
        Self { kept: (0..streams).map(|_| None).collect(), first: None }
    }

    /// Keeps a frame of a stream that has none here.
    pub(super) fn keep(&mut self, spare: BatchJob<P>) {
        let (stream, deadline) = (spare.job.stream, spare.job.deadline);
        self.first = Some(self.first.map_or(deadline, |first| first.min(deadline)));
        self.kept[stream.index()] = Some(spare);
    }

    /// Takes a stream's out.
    pub(super) fn take(&mut self, stream: StreamId) -> Option<BatchJob<P>> {
        self.kept[stream.index()].take()
    }

    /// The one that is due first.
    pub(super) fn first(&mut self) -> Option<&BatchJob<P>> {
        self.first?;
        let first = self.kept.iter().flatten().min_by_key(|spare| spare.job.deadline);
        self.first = first.map(|spare| spare.job.deadline);
        first
    }

    /// Takes it out.
    pub(super) fn pop_first(&mut self) -> Option<BatchJob<P>> {
        let stream = self.first()?.job.stream;
        self.take(stream)
    }

    /// How many are due no earlier than this.
    pub(super) fn count_from(&self, end: Instant) -> u16 {
        self.kept.iter().flatten().filter(|spare| spare.job.deadline >= end).count() as u16
    }

    /// Takes out the one of these that is due first.
    pub(super) fn pop_from(&mut self, end: Instant) -> Option<BatchJob<P>> {
        let due = self.kept.iter().flatten().filter(|spare| spare.job.deadline >= end);
        let stream = due.min_by_key(|spare| spare.job.deadline)?.job.stream;
        self.take(stream)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        self.kept.iter().flatten().count() as u16
    }

    /// No one is due earlier than this; `None` where there is none.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.first
    }

    /// Whether this frame is kept.
    pub(super) fn holds(&self, stream: StreamId, sequence: u64) -> bool {
        self.kept[stream.index()].as_ref().is_some_and(|spare| spare.job.sequence == sequence)
    }

    /// Takes any out, to end it.
    pub(super) fn pop_any(&mut self) -> Option<BatchJob<P>> {
        self.kept.iter_mut().find_map(Option::take)
    }
}
