//! Accelerators: everything that turns a batch of frames into tensors.
//!
//! Asynchronous in shape, whatever the hardware: [`Backend::submit`] returns at once, the batch comes back
//! later through [`Backend::poll`] with outputs or a fault. Nothing is lost: a batch goes in and comes out.
//! `tests/backend_conformance.rs` holds every backend to that.

pub mod blocking;
mod error;
pub mod onnxruntime;
pub mod preprocess;
pub mod simulated;
pub mod tensorrt;

pub use error::InferError;

use crate::job::{Batch, BatchFault, Tensor};
use crate::pool::Reader;
use crate::stream::ModelId;
use crate::time::Instant;
use std::fmt::{self, Write};
use std::sync::Arc;

/// What a backend can do, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name and version for people: "onnxruntime 1.32.0".
    pub name: String,
    /// Its lanes, each of which works on one batch at a time: the name of the unit that does the work ("gpu", "dla 0").
    /// A unit's lanes are neighbours; units that are fast come first.
    pub lanes: Vec<String>,
    /// Per model: the batch sizes it can run, ascending.
    pub batch_sizes: Vec<Vec<u16>>,
    /// Per model: elements of one job's row in each output, in the manifest's order.
    pub output_rows: Vec<Vec<usize>>,
}

impl Capabilities {
    /// Batches that may be submitted and not yet completed: one a lane.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lanes.len()
    }

    /// The units in the order of their lanes, and how many lanes each has.
    pub fn units(&self) -> impl Iterator<Item = (&str, usize)> {
        self.lanes.chunk_by(|a, b| a == b).map(|lanes| (lanes[0].as_str(), lanes.len()))
    }

    /// Rows that a batch must have room for.
    #[must_use]
    pub fn max_batch(&self, model: ModelId) -> u16 {
        self.batch_sizes[model.index()].last().copied().unwrap_or(0)
    }

    /// An empty batch with room for the largest batch and the largest outputs of any model, so that it can
    /// go round without allocating. A model with fewer outputs leaves the last tensors alone.
    #[must_use]
    pub fn new_batch<P>(&self) -> Box<Batch<P>> {
        let max_batch = self.batch_sizes.iter().flatten().max().copied().unwrap_or(0);
        let mut batch = Batch::with_capacity(usize::from(max_batch));
        for (sizes, rows) in self.batch_sizes.iter().zip(&self.output_rows) {
            let largest = usize::from(sizes.last().copied().unwrap_or(0));
            for (index, row) in rows.iter().enumerate() {
                if batch.outputs.len() == index {
                    batch.outputs.push(Tensor::default());
                }
                let tensor = &mut batch.outputs[index];
                tensor.data.resize(tensor.data.len().max(largest * row), 0.0);
            }
        }
        Box::new(batch)
    }

    /// Why a batch can't be taken while `in_flight` others are in flight, if it can't. Every backend asks
    /// this first, so that all refuse alike. Does not allocate.
    fn refusal<P>(&self, in_flight: usize, batch: &Batch<P>) -> Option<BatchFault> {
        let (model, jobs) = (batch.model.index(), batch.jobs.len());
        let (Some(sizes), Some(rows)) = (self.batch_sizes.get(model), self.output_rows.get(model)) else {
            return Some(fault(format_args!("{} has no model number {model}", self.name)));
        };
        if jobs == 0 {
            return Some(fault(format_args!("the batch is empty")));
        }
        if !sizes.iter().any(|&size| usize::from(size) == jobs) {
            return Some(fault(format_args!("model number {model} can't run {jobs} jobs at once")));
        }
        if in_flight >= self.in_flight() {
            return Some(fault(format_args!("{in_flight} batches are in flight already")));
        }
        let room = |(index, row): (usize, &usize)| {
            batch.outputs.get(index).is_some_and(|tensor| tensor.data.len() >= jobs * row)
        };
        if !rows.iter().enumerate().all(room) {
            return Some(fault(format_args!("the batch has no room for its outputs")));
        }
        None
    }
}

/// A fault from formatted text, without allocating; what does not fit is cut off.
fn fault(text: fmt::Arguments<'_>) -> BatchFault {
    struct Cut(heapless::String<160>);
    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            text.chars().try_for_each(|char| self.0.push(char).map_err(|_| fmt::Error))
        }
    }
    let mut cut = Cut(heapless::String::new());
    // The one error is that it is full: then what fits is kept.
    let _ = cut.write_fmt(text);
    BatchFault::new(&cut.0)
}

/// An accelerator. All calls come from the exec thread.
pub trait Backend<P>: Send {
    /// What it can do; the same for its whole life.
    fn capabilities(&self) -> &Capabilities;

    /// Takes a batch to work on, and returns at once (under 100 us, also while another batch runs).
    /// Sets its `submitted` and `lane`: the first lane that is idle. So whoever has at most n batches in flight
    /// uses the first n lanes alone. Batches come from [`Capabilities::new_batch`].
    ///
    /// # Errors
    /// The batch itself, with `fault` set to the reason, when it can't be taken: too many in flight, a batch
    /// size or model that it does not have, an empty batch, or the backend is gone.
    fn submit(&mut self, now: Instant, batch: Box<Batch<P>>) -> Result<(), Box<Batch<P>>>;

    /// A batch that is done by `now`, in the order of submission, with `completed`, `service` and either
    /// `outputs` or `fault` set.
    fn poll(&mut self, now: Instant) -> Option<Box<Batch<P>>>;

    /// When the next completion is due, where the backend knows it (a simulated one does); others wake the
    /// exec thread when they are done.
    fn poll_at(&self) -> Option<Instant>;

    /// What reads frames in place, where the backend does: the pool is to be made for it ([`Pool::read_by`]). Else it
    /// copies them.
    ///
    /// [`Pool::read_by`]: crate::pool::Pool::read_by
    fn reader(&self) -> Option<Arc<dyn Reader>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_batch_has_room_for_any_model() {
        let capabilities = Capabilities {
            name: "two models".into(),
            lanes: vec!["gpu".into(), "gpu".into(), "dla 0".into()],
            batch_sizes: vec![vec![1, 2, 4], vec![1]],
            output_rows: vec![vec![10], vec![50, 7]],
        };
        let batch = capabilities.new_batch::<()>();
        let sizes: Vec<usize> = batch.outputs.iter().map(|tensor| tensor.data.len()).collect();
        assert_eq!((sizes, batch.jobs.capacity()), (vec![50, 7], 4));
        assert_eq!(capabilities.units().collect::<Vec<_>>(), [("gpu", 2), ("dla 0", 1)]);
    }

    #[test]
    fn long_faults_are_cut() {
        let text = "é".repeat(100);
        assert_eq!(fault(format_args!("{text}")).as_str(), "é".repeat(80));
    }
}
