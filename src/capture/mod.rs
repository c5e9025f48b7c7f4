//! Cameras: everything that delivers frames into a share of the pool.
//!
//! Every kind of camera is a [`Source`]; faults are wrappers that are Sources themselves. A source is driven
//! by its own capture thread and touches no other stream.

pub mod faults;
pub mod grid;
pub mod gst;
pub mod synthetic;
pub mod v4l2;

use crate::board::{SourceSpec, Stream};
use crate::image::{ImageLayout, PixelFormat};
use crate::job::{DropReason, Lost};
use crate::platform::clock;
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

impl SourceError {
    /// What went wrong, and what to do about it.
    #[must_use]
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// A source was asked for frames while it was not open.
    fn closed(stream: &str) -> Self {
        Self::new(format!("stream `{stream}` is not open"), "open it before asking for frames")
    }
}

/// One lost frame.
const fn lost(sequence: u64, captured: Instant, reason: DropReason) -> Lost {
    Lost { sequence, count: 1, captured, reason }
}

/// A camera. All calls come from one thread.
pub trait Source: Send {
    /// The stream's frames before number `next` have been dealt with by a source that this one replaces: it
    /// goes on from there. To be called before the first [`Source::open`], or never.
    fn resume(&mut self, next: u64);

    /// Opens the device, file or connection and agrees on a format. May block for seconds, allocates.
    ///
    /// # Errors
    /// Names what could not be opened and what to do. The source may be opened again.
    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError>;

    /// Waits until there is something to say, `until` at most (then [`Next::Nothing`]).
    fn next(&mut self, until: Instant) -> Next;

    /// Releases before `now` that have not been reported, because the source was down (then `SourceDown`) or
    /// is stopping (`Shutdown`). To be asked until it says `None`, before or after [`Source::close`].
    fn missed(&mut self, now: Instant) -> Option<Lost>;

    /// Lets go of the device. Frames already delivered stay valid.
    fn close(&mut self);

    /// Waits, while it is closed after a failure, until there is a new reason to open it again, `until` at most;
    /// whether there is one, such as a camera that was plugged in.
    fn await_return(&mut self, until: Instant) -> bool {
        clock::sleep_until(until);
        false
    }
}

/// The source that the board describes, with the faults that it asks for. Does nothing before
/// [`Source::open`].
#[must_use]
pub fn open(stream: &Stream) -> Box<dyn Source> {
    let source: Box<dyn Source> = match &stream.source {
        SourceSpec::Synthetic { phase, jitter, seed } => {
            Box::new(synthetic::Synthetic::new(stream, *phase, *jitter, *seed))
        }
        SourceSpec::File { path, repeat, phase } => Box::new(gst::Replay::new(stream, path, *repeat, *phase)),
        SourceSpec::Uri { uri, latency } => Box::new(gst::Live::from_uri(stream, uri.expose(), *latency)),
        SourceSpec::Pipeline { description } => {
            Box::new(gst::Live::from_description(stream, description.expose()))
        }
        SourceSpec::V4l2(camera) => Box::new(v4l2::Camera::new(stream, camera)),
    };
    match &stream.faults {
        Some(faults) => Box::new(faults::Faulty::new(source, faults.clone(), &stream.id)),
        None => source,
    }
}

/// Most slots that a stream's source holds itself: what its decoder or driver owns, what is being filled, and
/// what its faults keep. What waits and what is being computed comes on top.
#[must_use]
pub fn slots_needed(stream: &Stream) -> usize {
    let source = match stream.source {
        SourceSpec::Synthetic { .. } => 1,
        SourceSpec::File { .. } | SourceSpec::Uri { .. } | SourceSpec::Pipeline { .. } => gst::SLOTS,
        SourceSpec::V4l2(_) => v4l2::SLOTS,
    };
    source + if stream.faults.is_some() { faults::SLOTS } else { 0 }
}

/// Bytes that a slot of this stream must have: a packed frame, or for decoders and drivers one with both sides
/// rounded up to 128 and room for their padding.
#[must_use]
pub fn slot_bytes(stream: &Stream) -> usize {
    match stream.source {
        SourceSpec::Synthetic { .. } => frame_bytes(stream.format, stream.width, stream.height),
        SourceSpec::File { .. } | SourceSpec::Uri { .. } | SourceSpec::Pipeline { .. } => {
            let up = |side: u32| side.saturating_add(gst::PADDING).next_multiple_of(128);
            frame_bytes(stream.format, up(stream.width), up(stream.height))
        }
        SourceSpec::V4l2(_) => {
            let up = |side: u32| side.next_multiple_of(128);
            frame_bytes(stream.format, up(stream.width), up(stream.height)) + v4l2::PAGES
        }
    }
}

/// Bytes of a frame without padding; 0 for a size without pixels.
fn frame_bytes(format: PixelFormat, width: u32, height: u32) -> usize {
    ImageLayout::packed(format, width, height).extent().unwrap_or(0)
}

/// GStreamer's version, of the library that is loaded.
#[must_use]
pub fn gstreamer_version() -> String {
    gst::version()
}
