//! Cameras: everything that delivers frames into a share of the pool.
//!
//! Every kind of camera is a [`Source`]; faults are wrappers that are Sources themselves. A source is driven
//! by its own capture thread and touches no other stream.

use crate::image::ImageLayout;
use crate::job::Lost;
use crate::pool::{FrameRef, Share};
use crate::stats::Copies;
use crate::time::Instant;
use std::sync::Arc;

/// What a source may use.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The stream's slots.
    pub share: Share,
    /// Where copied bytes are counted.
    pub copies: Arc<Copies>,
    /// Zero of the grid on which synthetic and replayed frames are released.
    pub start: Instant,
}

/// What a source found when it was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Layout of its frames. A frame may differ in offsets and strides, never in format and size.
    pub layout: ImageLayout,
    /// Facts worth a line in the log: chosen mode, decoder, colorimetry and why.
    pub notes: Vec<String>,
}

/// A frame as the camera delivered it.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The source's frame number, counting lost ones.
    pub sequence: u64,
    /// The driver's stamp, or the grid's instant.
    pub captured: Instant,
    /// The pixels.
    pub frame: FrameRef,
}

/// What a source says next.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Captured),
    /// Frames that were captured and are lost.
    Lost(Lost),
    /// Nothing until the instant asked for.
    Nothing,
    /// The source has come to its end, as the board allows.
    Ended,
    /// The source failed; close it, and open it again later.
    Failed(SourceError),
}

/// Why a source can't deliver.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}; {remedy}")]
pub struct SourceError {
    /// What went wrong, with names.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// A camera. All calls come from one thread.
pub trait Source: Send {
    /// Opens the device, file or connection and agrees on a format. May block for seconds, allocates.
    ///
    /// # Errors
    /// Names what could not be opened and what to do. The source may be opened again.
    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError>;

    /// Waits until there is something to say, `until` at most (then [`Next::Nothing`]).
    fn next(&mut self, until: Instant) -> Next;

    /// Releases before `now` that have not been reported, because the source was down or is stopping.
    fn missed(&mut self, now: Instant) -> Option<Lost>;

    /// Lets go of the device. Frames already delivered stay valid.
    fn close(&mut self);
}
