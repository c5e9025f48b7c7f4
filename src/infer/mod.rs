//! Accelerators: everything that turns a batch of frames into tensors.
//!
//! Asynchronous in shape, whatever the hardware: [`Backend::submit`] returns at once, the batch comes back
//! later through [`Backend::poll`] with outputs or a fault. Nothing is lost: a batch goes in and comes out.

pub mod preprocess;

use crate::job::Batch;
use crate::stream::ModelId;
use crate::time::Instant;

/// What a backend can do, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name and version for people: "onnxruntime 1.32.0".
    pub name: String,
    /// Batches that may be submitted and not yet completed.
    pub in_flight: usize,
    /// Per model: the batch sizes it can run, ascending.
    pub batch_sizes: Vec<Vec<u16>>,
    /// Per model: elements of one job's row in each output, in the manifest's order.
    pub output_rows: Vec<Vec<usize>>,
}

impl Capabilities {
    /// Rows that a batch must have room for.
    #[must_use]
    pub fn max_batch(&self, model: ModelId) -> u16 {
        self.batch_sizes[model.index()].last().copied().unwrap_or(0)
    }
}

/// An accelerator. All calls come from the exec thread.
pub trait Backend<P>: Send {
    /// What it can do; the same for its whole life.
    fn capabilities(&self) -> &Capabilities;

    /// Takes a batch to work on, and returns at once (under 100 us, also while another batch runs).
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
}
