//! Spare frames: what the ladder leaves out waits for a moment in which the accelerator would be idle.
//!
//! The ladder takes whole fractions of streams out, and stays down for a while after what took it there; so it often
//! leaves out more than has to be, and what has to be varies from one moment to the next. A frame that is left out is
//! therefore kept, one a stream, until the stream's next frame or its own end, and is served when nothing waits and
//! nobody can be late for it ([`super::Scheduler::fill_spare`]). Nothing else sees it: it is in no order, no plan and
//! no batch with frames that are not left out.

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
