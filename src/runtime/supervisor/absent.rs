//! What stands in for an accelerator while there is none: it refuses every batch, so that each frame ends at once
//! with its reason.

use crate::infer::{Backend, Capabilities};
use crate::job::{Batch, BatchFault};
use crate::pool::FrameRef;
use crate::time::Instant;

pub(super) struct Absent(pub(super) Capabilities);

impl Backend<FrameRef> for Absent {
    fn capabilities(&self) -> &Capabilities {
        &self.0
    }

    fn submit(&mut self, _: Instant, mut batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        batch.fault =
            Some(BatchFault::new("there is no accelerator: it was given up, and the next is not built yet"));
        Err(batch)
    }

    fn poll(&mut self, _: Instant) -> Option<Box<Batch<FrameRef>>> {
        None
    }

    fn poll_at(&self) -> Option<Instant> {
        None
    }
}
