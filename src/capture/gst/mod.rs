//! Cameras, addresses and files by GStreamer, which stays in this folder.
//!
//! Decoders write straight into our slots where they can (module `memory`); every frame is checked by its address,
//! and copies are counted. A pipeline's failure is an error of its own stream.

mod arrivals;
mod errors;
mod frame;
mod live;
mod memory;
mod pipeline;
mod replay;

pub use live::Live;
pub use replay::Replay;

/// Slots that a decoder may hold (its reference frames, 16 for H.264, and what it fills).
const DECODER: usize = 18;

/// Slots that a GStreamer source may hold itself: the decoder's, those of frames that wait in the sink, and the
/// reserve for frames that have to be copied.
pub const SLOTS: usize = DECODER + arrivals::QUEUE + memory::RESERVE;

/// Decoders ask for this many pixels more than the frame, to the right and below, at most.
pub const PADDING: u32 = 32;

/// The version of the library that is loaded, such as "1.22.0".
#[must_use]
pub fn version() -> String {
    let (major, minor, micro, _) = gstreamer::version();
    format!("{major}.{minor}.{micro}")
}
