//! Cameras behind V4L2 device nodes, on the `v4l` crate's requests, with our own queue.
//!
//! The driver writes where the accelerator reads, wherever it can: module `queue` says who owns which slot.
//! Everything that blocks or allocates happens while the camera is opened and closed.

mod arrival;
mod bus;
mod control;
mod device;
mod explain;
mod format;
mod heap;
mod ioctl;
pub mod inventory;
pub mod mjpeg;
mod open;
mod queue;
mod sequence;
mod source;
mod stamp;

pub use source::Camera;

/// Slots that the driver holds beside those that wait or are computed: one that it fills, and those that wait in it
/// while the capture thread is held up.
pub const SLOTS: usize = 4;

/// Bytes by which a slot is larger than a frame, so that each of its planes of memory may begin on a page.
pub const PAGES: usize = 3 * 4096;
