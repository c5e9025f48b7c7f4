//! Cameras that send JPEG images: decoded on a thread of their own into slots of the stream's share.
//!
//! The capture thread hands an image over with [`Mjpeg::submit`], which copies it and returns; frames and losses come
//! back from [`Mjpeg::next`] in the order of their numbers, when the file descriptor of [`Mjpeg`] is readable.
//! One image is being decoded and one waits. A newer one takes the place of the one that waits, which ends as
//! `superseded`: a decoder that is too slow costs frames, never time.
//!
//! Three buffers go round: one that is filled, one that waits, one that is decoded. They are exchanged by atomic
//! swaps, so neither side ever waits for the other, and nothing is allocated on the capture thread after the start.
//! The decoder's thread is an ordinary one, and libjpeg-turbo allocates there as it likes.

mod order;
mod pixels;

use crate::board::Stream;
use crate::capture::{Next, Resources, SourceError};
use crate::image::{Colorimetry, ImageLayout, Matrix, Range};
use crate::job::{DropReason, Lost};
use crate::platform::Waker;
use crate::pool::{FrameRef, Share};
use crate::stats::{Copies, CopyStage};
use crate::time::Instant;
use crossbeam_utils::atomic::AtomicCell;
use order::{Order, Told};
use pixels::{Fault, Pixels};
use rustix::event::{EventfdFlags, eventfd};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Slots that the decoder holds at most: one that it fills, and frames that nobody has asked for yet.
pub const SLOTS: usize = 3;

/// Buffers that go round.
const BUFFERS: usize = 3;

/// The end of an image. Put behind every image, it does no harm where there is one, and stands in where a camera leaves
/// it away; images that were cut off earlier are still found out.
const END: [u8; 2] = [0xff, 0xd9];

/// The decoder of one camera's JPEG images. Dropped, its thread ends.
pub struct Mjpeg {
    id: String,
    layout: ImageLayout,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    copies: Arc<Copies>,
    /// Buffers to be filled.
    spare: heapless::Vec<Box<Image>, BUFFERS>,
    order: Order,
    /// Number of the next image handed over, and of the one that may still wait.
    next_ticket: u64,
    /// Images that came back.
    returned: usize,
    /// What was handed over has been given up, so nobody waits for the decoder.
    abandoned: bool,
}

/// What both threads touch. `waiting` is filled by the capture thread, and emptied by whoever swaps first; the
/// decoder fills `done` in turn, and there are as many places as buffers, so the one that it fills is empty.
struct Shared {
    waiting: AtomicCell<Option<Box<Image>>>,
    done: [AtomicCell<Option<Box<Image>>>; BUFFERS],
    decoder: Waker,
    /// Readable when something has been put into `done`.
    ready: OwnedFd,
    stop: AtomicBool,
}

/// A buffer with an image, and what became of it.
struct Image {
    bytes: Box<[u8]>,
    length: usize,
    ticket: u64,
    outcome: Option<Result<FrameRef, DropReason>>,
}

const _: () = assert!(AtomicCell::<Option<Box<Image>>>::is_lock_free());

impl Mjpeg {
    /// Starts the thread of a decoder for `stream`'s frames, of images of up to `largest` bytes (the driver's
    /// `sizeimage`). To be called while the camera is opened: the thread inherits the calling one's scheduling.
    ///
    /// # Errors
    /// The stream's format can't be made of JPEG images, its slots are too small, or the system has no thread or file
    /// descriptor left.
    pub fn start(stream: &Stream, resources: &Resources, largest: usize) -> Result<Self, SourceError> {
        let id = stream.id.clone();
        let failed = |what: &dyn fmt::Display, remedy: &str| {
            SourceError::new(format!("stream `{id}`: no decoder for its JPEG images: {what}"), remedy)
        };
        let mut layout = ImageLayout::packed(stream.format, stream.width, stream.height);
        // As JFIF has it, and USB cameras that say nothing else.
        layout.color = stream.color.unwrap_or(Colorimetry { matrix: Matrix::Bt601, range: Range::Full });
        if layout.format.mosaic().is_some() {
            let what = format!("they are no {}", layout.format.as_str());
            return Err(failed(&what, "set format = \"NV12\", or encoding = \"raw\""));
        }
        if layout.extent().is_none_or(|extent| extent > resources.share.slot_bytes()) {
            let what = format!("{}x{} does not fit its slots", layout.width, layout.height);
            return Err(failed(&what, "make the share of the pool for this stream's size"));
        }
        let files = "end programs that are not needed, or raise LimitNOFILE";
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            waiting: AtomicCell::new(None),
            done: [const { AtomicCell::new(None) }; BUFFERS],
            decoder: Waker::new(),
            ready: eventfd(0, flags).map_err(|error| failed(&error, files))?,
            stop: AtomicBool::new(false),
        });
        let mut spare = heapless::Vec::new();
        for _ in 0..BUFFERS {
            let bytes = vec![0; largest.saturating_add(END.len())].into();
            let _ = spare.push(Box::new(Image { bytes, length: 0, ticket: 0, outcome: None }));
        }
        let decoder = Decoder {
            pixels: Pixels::new(layout),
            id: id.clone(),
            layout,
            shared: shared.clone(),
            share: resources.share.clone(),
            copies: resources.copies.clone(),
            told: [false; Fault::KINDS],
        };
        let thread = Builder::new()
            .name(format!("mjpeg-{id}"))
            .spawn(|| decoder.run())
            .map_err(|error| failed(&error, "end programs that are not needed, or raise TasksMax"))?;
        let copies = resources.copies.clone();
        let (order, thread) = (Order::default(), Some(thread));
        Ok(Self {
            id,
            layout,
            shared,
            thread,
            copies,
            spare,
            order,
            next_ticket: 0,
            returned: 0,
            abandoned: false,
        })
    }

    /// Layout of the frames.
    #[must_use]
    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    /// Hands an image over, which is copied. Never waits.
    pub fn submit(&mut self, image: &[u8], sequence: u64, captured: Instant) {
        self.collect();
        self.abandoned = false;
        let lost = |reason| Lost { sequence, count: 1, captured, reason };
        if !self.order.has_room() {
            return self.order.lose(lost(DropReason::QueueFull));
        }
        // A spare buffer is missing only when the decoder is dead, which `next` says.
        let Some(mut buffer) = self.spare.pop() else {
            return self.order.lose(lost(DropReason::SourceDown));
        };
        let length = image.len() + END.len();
        let Some(room) = buffer.bytes.get_mut(..length) else {
            let _ = self.spare.push(buffer);
            return self.order.lose(lost(DropReason::Corrupt));
        };
        room[..image.len()].copy_from_slice(image);
        room[image.len()..].copy_from_slice(&END);
        self.copies.count(CopyStage::Capture, image.len());
        (buffer.length, buffer.ticket) = (length, self.next_ticket);
        if let Some(older) = self.shared.waiting.swap(Some(buffer)) {
            self.order.settle(older.ticket, Err(DropReason::Superseded));
            let _ = self.spare.push(older);
        }
        self.order.expect(self.next_ticket, sequence, captured);
        self.next_ticket += 1;
        self.shared.decoder.wake();
    }

    /// Takes note of frames that were lost before they were images, to be told in their place.
    pub fn lose(&mut self, lost: Lost) {
        self.collect();
        self.order.lose(lost);
    }

    /// The next frame or loss, in the order of numbers; `None` when there is nothing to tell yet. Never waits.
    #[expect(clippy::should_implement_trait, reason = "it goes on after `None`")]
    pub fn next(&mut self) -> Option<Next> {
        self.collect();
        if let Some(told) = self.order.next() {
            return Some(match told {
                Told::Frame(captured) => Next::Frame(captured),
                Told::Lost(lost) => Next::Lost(lost),
            });
        }
        let dead = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        (dead && !self.abandoned).then(|| {
            let what = format!("stream `{}`: the thread that decodes its JPEG images has died", self.id);
            Next::Failed(SourceError::new(what, "tell it to ocelli's developers, with the log"))
        })
    }

    /// Gives up the images that are not decoded yet, because the camera is down or stopping; [`Self::next`] tells them
    /// as lost for `reason`.
    pub fn abandon(&mut self, reason: DropReason) {
        self.collect();
        if let Some(waiting) = self.shared.waiting.take() {
            let _ = self.spare.push(waiting);
        }
        self.order.abandon(reason);
        self.abandoned = true;
    }

    /// Takes back what the decoder is done with.
    fn collect(&mut self) {
        // First this, then the places: what is put there later makes it readable again.
        let _ = rustix::io::read(&self.shared.ready, &mut [0; 8]);
        while let Some(mut image) = self.shared.done[self.returned % BUFFERS].take() {
            self.returned += 1;
            if let Some(outcome) = image.outcome.take() {
                self.order.settle(image.ticket, outcome);
            }
            let _ = self.spare.push(image);
        }
    }
}

/// Readable when there may be something new for [`Mjpeg::next`].
impl AsFd for Mjpeg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl fmt::Debug for Mjpeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mjpeg").field("id", &self.id).field("order", &self.order).finish_non_exhaustive()
    }
}

impl Drop for Mjpeg {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.decoder.wake();
        if let Some(thread) = self.thread.take() {
            // It is done with its present image first. If it died, that was said.
            let _ = thread.join();
        }
    }
}

/// The decoder's side.
struct Decoder {
    id: String,
    pixels: Pixels,
    layout: ImageLayout,
    shared: Arc<Shared>,
    share: Share,
    copies: Arc<Copies>,
    /// Kinds of faults that were logged.
    told: [bool; Fault::KINDS],
}

impl Decoder {
    fn run(mut self) {
        self.shared.decoder.attach();
        for place in (0..BUFFERS).cycle() {
            let mut image = loop {
                if self.shared.stop.load(Ordering::Acquire) {
                    return;
                }
                match self.shared.waiting.take() {
                    Some(image) => break image,
                    None => self.shared.decoder.wait_until(None),
                }
            };
            image.outcome = Some(self.frame(&image.bytes[..image.length]));
            self.shared.done[place].store(Some(image));
            // It can only be refused when it is readable already.
            let _ = rustix::io::write(&self.shared.ready, &1_u64.to_ne_bytes());
        }
    }

    fn frame(&mut self, image: &[u8]) -> Result<FrameRef, DropReason> {
        let mut slot = self.share.take().ok_or(DropReason::NoSlot)?;
        match self.pixels.decode(image, slot.bytes_mut()) {
            Ok(copied) => {
                self.copies.count(CopyStage::Capture, copied);
                slot.freeze(self.layout).map_err(|_| DropReason::NoSlot)
            }
            Err(fault) => {
                if !std::mem::replace(&mut self.told[fault.kind()], true) {
                    log::warn!(
                        "{}: {fault}. Such frames are dropped as corrupt, without a further word",
                        self.id
                    );
                }
                Err(DropReason::Corrupt)
            }
        }
    }
}
