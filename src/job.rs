//! A job is a frame with a deadline; a batch is jobs that the accelerator works on at once.

use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Largest batch that any board may ask for.
pub const MAX_BATCH: usize = 64;

/// A frame that wants inference before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which camera.
    pub stream: StreamId,
    /// The source's frame number; gaps are frames that never arrived.
    pub sequence: u64,
    /// Which network.
    pub model: ModelId,
    /// When the frame was captured (the driver's stamp, or the grid's instant).
    pub captured: Instant,
    /// When it reached the heart.
    pub arrived: Instant,
    /// When its result must be out: `captured` plus the stream's latency bound.
    pub deadline: Instant,
}

impl Job {
    /// How the job ends when its record is handed to the outputs at `finish`.
    #[must_use]
    pub fn outcome_at(&self, finish: Instant) -> Outcome {
        if finish.lateness(self.deadline).is_late() { Outcome::Late } else { Outcome::Met }
    }
}

/// Why a captured frame never became a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A synthetic or replayed release whose instant had passed before the source got to it.
    SourceLate,
    /// A release that passed while the source was down.
    SourceDown,
    /// The driver or the network lost it: a gap in the sequence numbers.
    DriverLost,
    /// The source marked it damaged, or its layout is not what was negotiated.
    Corrupt,
    /// A fault that the board file asked for.
    Injected,
    /// No free slot in the stream's share of the pool.
    NoSlot,
    /// The stream's queue to the heart was full.
    QueueFull,
    /// The stream was shed.
    Shed,
    /// Left out for load: the stream is served every second or fourth frame.
    Skipped,
    /// A newer frame of the same stream took its place.
    Superseded,
    /// It came sooner than its stream's declared period allows, and a newer one took its place while it was
    /// held back.
    Early,
    /// It could not meet its deadline any more when the accelerator became free.
    Hopeless,
    /// The backend refused or failed its batch.
    BackendFailed,
    /// The model's outputs could not be decoded (not finite, wrong size).
    DecodeFailed,
    /// The runtime stopped before its turn came.
    Shutdown,
}

impl DropReason {
    /// All reasons; the position is the index in [`crate::stats::Ledger::dropped`].
    pub const ALL: [Self; 15] = [
        Self::SourceLate,
        Self::SourceDown,
        Self::DriverLost,
        Self::Corrupt,
        Self::Injected,
        Self::NoSlot,
        Self::QueueFull,
        Self::Shed,
        Self::Skipped,
        Self::Superseded,
        Self::Early,
        Self::Hopeless,
        Self::BackendFailed,
        Self::DecodeFailed,
        Self::Shutdown,
    ];

    /// The word used in records, summaries and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceLate => "source_late",
            Self::SourceDown => "source_down",
            Self::DriverLost => "driver_lost",
            Self::Corrupt => "corrupt",
            Self::Injected => "injected",
            Self::NoSlot => "no_slot",
            Self::QueueFull => "queue_full",
            Self::Shed => "shed",
            Self::Skipped => "skipped",
            Self::Superseded => "superseded",
            Self::Early => "early",
            Self::Hopeless => "hopeless",
            Self::BackendFailed => "backend_failed",
            Self::DecodeFailed => "decode_failed",
            Self::Shutdown => "shutdown",
        }
    }

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a captured frame ended. Every captured frame has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its result was out by the deadline.
    Met,
    /// Its result came out after the deadline.
    Late,
    /// There is no result.
    Dropped(DropReason),
}

/// A run of consecutive frames of one stream that were captured but never became jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Sequence number of the first.
    pub sequence: u64,
    /// How many; at least one.
    pub count: u64,
    /// Capture instant of the first (each further one is a period later).
    pub captured: Instant,
    /// Why.
    pub reason: DropReason,
}

/// A job together with its pixels (`P` is a frame in production, `()` in simulation).
#[derive(Debug)]
pub struct BatchJob<P> {
    /// What is due, and when.
    pub job: Job,
    /// The pixels.
    pub payload: P,
}

/// What a model wrote for a batch: one buffer a tensor, rows of f32, a row a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Elements in one job's row.
    pub row: usize,
    /// Room for the largest batch; the first `jobs * row` elements are valid.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A zeroed tensor with room for `rows` rows of `row` elements.
    #[must_use]
    pub fn new(row: usize, rows: usize) -> Self {
        Self { row, data: vec![0.0; row * rows] }
    }

    /// The outputs of job number `index` in the batch.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.row..(index + 1) * self.row]
    }
}

/// Why a batch has no outputs.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchFault(heapless::String<160>);

impl BatchFault {
    /// Keeps the first 160 bytes of `why`; never allocates.
    #[must_use]
    pub fn new(why: &str) -> Self {
        Self(bounded(why))
    }

    /// The reason in words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BatchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As much of `text` as fits, cut at a character.
#[must_use]
pub fn bounded<const N: usize>(text: &str) -> heapless::String<N> {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    heapless::String::try_from(&text[..end]).unwrap_or_default()
}

/// Jobs of one model that the accelerator works on at once. Batches are made at start and go round:
/// scheduler, backend, decoder, and back. The box is what moves, so the way costs no allocation.
#[derive(Debug)]
pub struct Batch<P> {
    /// The network that all jobs want.
    pub model: ModelId,
    /// The members, earliest deadline first. Its capacity is fixed at start.
    pub jobs: Vec<BatchJob<P>>,
    /// Frames without a result that stand between two jobs of one stream in this batch: their records leave
    /// between theirs.
    pub between: Vec<(StreamId, Lost)>,
    /// The model's outputs in the manifest's order, valid after completion without fault.
    pub outputs: Vec<Tensor>,
    /// When it was handed to the backend.
    pub submitted: Instant,
    /// Which of the backend's lanes took it, by number.
    pub lane: usize,
    /// When the backend was done with it.
    pub completed: Instant,
    /// When a place at the accelerator became free for it.
    pub free: Instant,
    /// Service time planned for it.
    pub planned: Duration,
    /// Service time planned for a batch of one of its jobs.
    pub alone: Duration,
    /// Time planned to decode its results.
    pub decoding: Duration,
    /// Accelerator time it took, as the backend measured it.
    pub service: Duration,
    /// Why there are no outputs, if there are none.
    pub fault: Option<BatchFault>,
}

impl<P> Batch<P> {
    /// An empty batch with room for `max_batch` jobs; the backend's capabilities add the room for outputs.
    #[must_use]
    pub fn with_capacity(max_batch: usize) -> Self {
        Self {
            model: ModelId(0),
            jobs: Vec::with_capacity(max_batch),
            between: Vec::with_capacity(max_batch),
            outputs: Vec::new(),
            submitted: Instant::default(),
            lane: 0,
            completed: Instant::default(),
            free: Instant::default(),
            planned: Duration::ZERO,
            alone: Duration::ZERO,
            decoding: Duration::ZERO,
            service: Duration::ZERO,
            fault: None,
        }
    }

    /// Forgets its jobs (dropping their payloads) so that it can be filled again.
    pub fn clear(&mut self) {
        self.jobs.clear();
        self.between.clear();
        self.fault = None;
        self.service = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_indexed_by_position() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn bounded_text_is_cut_at_a_character() {
        assert_eq!(bounded::<4>("abcé").as_str(), "abc");
        assert_eq!(bounded::<5>("abcé").as_str(), "abcé");
    }
}
