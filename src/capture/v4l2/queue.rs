//! The driver's queue of buffers, each of which is a slot: of the pool, or of memory that the driver or another
//! device gave.
//!
//! **Who owns a slot.** The queue holds the lease of every buffer's slot for as long as the device is open, so no
//! slot goes home meanwhile. Within that time a slot is in one of two hands:
//!
//! | state | who may touch the bytes | leaves by |
//! |---|---|---|
//! | with the driver | the driver writes | dequeued: [`Queue::dequeue`] |
//! | with us | frames of it are read, by whatever thread | [`Queue::requeue`], once no frame is on it |
//!
//! The last reader of a frame tells nobody: the capture thread, which comes by at every frame, looks whether the
//! slot is idle ([`Lease::is_idle`]) and hands it to the driver again. So nothing is allocated, locked or called
//! for a frame's end. Buffer number and slot stay together, so that the kernel pins a slot's pages once.
//!
//! **The end.** When the queue is dropped, streaming is stopped and the buffers are asked back; whatever the driver
//! answers, the device is closed, and only when the kernel has returned from that, which means that it has let go,
//! do the leases end. A close that hangs keeps the slots for ever: they are never free while the driver may write.
#![allow(unsafe_code)] // What the driver writes to, and for how long, is a contract with the kernel.

use super::device::Device;
use super::format::{Agreed, PLANES};
use super::heap::Heap;
use super::ioctl;
use super::stamp::{Clock, DriverTime};
use crate::image::{ImageLayout, PixelFormat};
use crate::platform::clock;
use crate::pool::{FrameRef, Lease, Mapping, Part, Share};
use crate::time::Instant;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use v4l::v4l_sys as sys;

/// Most buffers that drivers take.
pub const MOST: usize = 32;
/// With fewer the driver has none to fill while we hold one.
pub const LEAST: usize = 3;

/// Where the buffers' memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Slots of the stream's share.
    Pool,
    /// The driver's own memory.
    Driver,
    /// Another device's memory.
    Heap,
}

impl Origin {
    fn memory(self) -> u32 {
        match self {
            Self::Pool => sys::v4l2_memory_V4L2_MEMORY_USERPTR,
            Self::Driver => sys::v4l2_memory_V4L2_MEMORY_MMAP,
            Self::Heap => sys::v4l2_memory_V4L2_MEMORY_DMABUF,
        }
    }
}

/// Why buffers could not be made.
#[derive(Debug)]
pub enum Refused {
    /// Not in this way; another may do.
    Unsupported(String),
    /// The device does not work.
    Failed(&'static str, io::Error),
}

impl Refused {
    /// What a request's failure means: that the device is gone or another's, or that it can't do that.
    fn by(request: &'static str, error: io::Error) -> Self {
        match is_gone(&error) || error.kind() == io::ErrorKind::ResourceBusy {
            true => Self::Failed(request, error),
            false => Self::Unsupported(format!("{request}: {error}")),
        }
    }
}

/// Whether the device, rather than the request, is at fault.
pub fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NODEV, Errno::NXIO, Errno::IO, Errno::BADF, Errno::PIPE, Errno::SHUTDOWN];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

/// A buffer that the driver has filled.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    index: usize,
    /// The driver's number for the frame.
    pub sequence: u32,
    /// The driver's stamp.
    pub time: DriverTime,
    /// The clock of the stamp.
    pub clock: Clock,
    /// Since when the driver had the buffer.
    pub queued: Instant,
    /// The driver marked it damaged, or wrote less than a frame.
    pub corrupt: bool,
    /// Bytes that the driver wrote to the first plane.
    bytes: usize,
    /// Where in each plane of memory the pixels begin.
    begin: [usize; PLANES],
}

/// An open device with its buffers.
#[derive(Debug)]
pub struct Queue {
    /// Dropped, and so closed, before the leases.
    device: Device,
    agreed: Agreed,
    origin: Origin,
    buffers: Vec<Buffer>,
    /// Where the planes of memory begin in each slot, and their lengths.
    offsets: [usize; PLANES],
    lengths: [usize; PLANES],
    /// Bytes that each plane must hold.
    needed: [usize; PLANES],
    /// Where the pixels lie; `None` when they are JPEG images.
    layout: Option<ImageLayout>,
    with_driver: usize,
}

#[derive(Debug)]
struct Buffer {
    lease: Lease,
    with_driver: bool,
    queued: Instant,
    /// The planes' dma-bufs, where they come from a heap.
    files: Vec<OwnedFd>,
}

impl Queue {
    /// A device that has agreed to a format, without buffers yet.
    pub fn new(device: Device, agreed: Agreed) -> Self {
        Self {
            device,
            agreed,
            origin: Origin::Driver,
            buffers: Vec::new(),
            offsets: [0; PLANES],
            lengths: [0; PLANES],
            needed: [0; PLANES],
            layout: None,
            with_driver: 0,
        }
    }

    /// Where the pixels of a frame lie.
    pub fn layout(&self) -> Option<ImageLayout> {
        self.layout
    }

    /// How many buffers there are.
    pub fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// How many of them the driver has.
    pub fn with_driver(&self) -> usize {
        self.with_driver
    }

    /// Makes up to `count` buffers of slots of `share`, and hands them to the driver, which writes straight into
    /// the slots.
    ///
    /// # Errors
    /// Why not; then there are none.
    pub fn fill_from_pool(&mut self, share: &Share, count: usize) -> Result<(), Refused> {
        let lengths = self.agreed.planes.map(|plane| plane.bytes);
        let total = self.arrange(lengths);
        if total > share.slot_bytes() {
            let has = share.slot_bytes();
            return Err(Refused::Unsupported(format!("a frame takes {total} bytes here, a slot has {has}")));
        }
        self.place()?;
        let granted = self.request(Origin::Pool, count)?;
        let slots = (0..granted.min(count)).map_while(|_| share.take());
        self.hand_over(slots.map(|slot| (slot.into_lease(), Vec::new())).collect())
    }

    /// Makes up to `count` buffers of the driver's own memory. Returns the share that they are the slots of, beside the
    /// stream's; without a stream, only the CPU reads them.
    ///
    /// # Errors
    /// Why not; then there are none.
    pub fn fill_from_driver(&mut self, stream: Option<&Share>, count: usize) -> Result<Share, Refused> {
        let granted = self.request(Origin::Driver, count)?;
        let mut mappings = Vec::with_capacity(granted);
        for index in 0..granted {
            let (places, lengths) = self.locate(index).map_err(|error| self.give_up("QUERYBUF", error))?;
            if index > 0 && lengths != self.lengths {
                self.release();
                return Err(Refused::Unsupported("its buffers differ in size".to_owned()));
            }
            self.arrange(lengths);
            let file = self.device.as_fd();
            let parts: Vec<_> = (places.into_iter().zip(lengths).take(self.agreed.count))
                .map(|(offset, bytes)| Part { file, offset, bytes })
                .collect();
            mappings.push(Mapping::new(&parts).map_err(|error| self.give_up("mmap", error))?);
        }
        self.place()?;
        let share = match stream {
            Some(stream) => stream.beside(mappings).map_err(|why| self.unread(&why))?,
            None => Share::of(mappings),
        };
        let slots = std::iter::from_fn(|| share.take());
        self.hand_over(slots.map(|slot| (slot.into_lease(), Vec::new())).collect())?;
        Ok(share)
    }

    /// Makes up to `count` buffers of `heap`'s memory. Returns the share that they are the slots of, beside the
    /// stream's.
    ///
    /// # Errors
    /// Why not; then there are none.
    pub fn fill_from_heap(&mut self, stream: &Share, heap: &Heap, count: usize) -> Result<Share, Refused> {
        self.arrange(self.agreed.planes.map(|plane| plane.bytes));
        self.place()?;
        let granted = self.request(Origin::Heap, count)?;
        let (mut mappings, mut files) = (Vec::with_capacity(granted), Vec::with_capacity(granted));
        for _ in 0..granted.min(count) {
            let planes: io::Result<Vec<OwnedFd>> =
                self.agreed.memory().iter().map(|plane| heap.allocate(plane.bytes)).collect();
            let planes = planes.map_err(|error| self.give_up("allocating a dma-buf", error))?;
            let parts: Vec<_> = (planes.iter().zip(self.lengths))
                .map(|(file, bytes)| Part { file: file.as_fd(), offset: 0, bytes })
                .collect();
            mappings.push(Mapping::new(&parts).map_err(|error| self.give_up("mmap", error))?);
            files.push(planes);
        }
        let share = stream.beside(mappings).map_err(|why| self.unread(&why))?;
        let slots = std::iter::from_fn(|| share.take());
        // Slots come in order, as do their files.
        self.hand_over(slots.map(|slot| slot.into_lease()).zip(files).collect())?;
        Ok(share)
    }

    /// Starts streaming.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn start(&mut self) -> io::Result<()> {
        let mut kind = self.device.buffer_type().cast_signed();
        ioctl::STREAMON.call(&self.device, &mut kind)
    }

    /// Says where planes of these lengths begin in a slot, and how long a slot is.
    fn arrange(&mut self, lengths: [usize; PLANES]) -> usize {
        self.lengths = lengths;
        let offsets = Mapping::offsets(lengths.into_iter().take(self.agreed.count));
        let mut total = 0;
        for (number, offset) in offsets.enumerate() {
            match number < self.agreed.count {
                true => self.offsets[number] = offset,
                false => total = offset,
            }
        }
        total
    }

    /// Finds where the pixels lie in a slot.
    fn place(&mut self) -> Result<(), Refused> {
        if super::format::is_jpeg(self.agreed.fourcc) {
            self.layout = None;
            return Ok(());
        }
        match self.agreed.layout(self.offsets) {
            Ok((layout, needed)) => {
                (self.layout, self.needed) = (Some(layout), needed);
                Ok(())
            }
            Err(fault) => {
                self.release();
                Err(Refused::Unsupported(fault))
            }
        }
    }

    /// Asks for buffers.
    fn request(&mut self, origin: Origin, count: usize) -> Result<usize, Refused> {
        let mut request = ioctl::REQBUFS.zeroed();
        request.count = count.clamp(LEAST, MOST) as u32;
        (request.type_, request.memory) = (self.device.buffer_type(), origin.memory());
        self.origin = origin;
        ioctl::REQBUFS.call(&self.device, &mut request).map_err(|error| Refused::by("REQBUFS", error))?;
        let granted = request.count as usize;
        if granted < LEAST {
            self.release();
            let few = format!("the driver gives {granted} buffers, fewer than {LEAST}");
            return Err(Refused::Unsupported(few));
        }
        // A driver asks for more where it streams with no fewer: with the slots there are, no frame would come.
        if origin != Origin::Driver && granted > count {
            self.release();
            let many = format!("the driver wants {granted} buffers, and {count} slots are free");
            return Err(Refused::Unsupported(many));
        }
        Ok(granted.min(MOST))
    }

    /// Where the planes of the driver's buffer `index` are in its file, and their lengths.
    fn locate(&self, index: usize) -> io::Result<([u64; PLANES], [usize; PLANES])> {
        let (buffer, planes) = self.exchange(&ioctl::QUERYBUF, index, |_, _| ())?;
        let (mut places, mut lengths) = ([0; PLANES], [0; PLANES]);
        if self.device.multi_planar {
            for (number, plane) in planes.iter().enumerate().take(self.agreed.count) {
                // SAFETY: the driver has written this one, as the memory is its own.
                places[number] = unsafe { plane.m.mem_offset }.into();
                lengths[number] = plane.length as usize;
            }
        } else {
            // SAFETY: as above.
            places[0] = unsafe { buffer.m.offset }.into();
            lengths[0] = buffer.length as usize;
        }
        Ok((places, lengths))
    }

    /// Hands all buffers to the driver for the first time.
    fn hand_over(&mut self, slots: Vec<(Lease, Vec<OwnedFd>)>) -> Result<(), Refused> {
        let buffer = |(lease, files)| Buffer { lease, with_driver: false, queued: Instant::default(), files };
        // Were there buffers before, the kernel has let go of them: REQBUFS has succeeded.
        self.buffers = slots.into_iter().map(buffer).collect();
        self.with_driver = 0;
        if self.buffers.len() < LEAST {
            let free = self.buffers.len();
            self.release();
            return Err(Refused::Unsupported(format!("{free} slots are free, fewer than {LEAST}")));
        }
        for index in 0..self.buffers.len() {
            self.queue(index).map_err(|error| self.give_up("QBUF", error))?;
        }
        Ok(())
    }

    /// The accelerator can't read such memory: each frame would be copied for it, by a thread that has better to do.
    fn unread(&mut self, why: &str) -> Refused {
        self.release();
        Refused::Unsupported(format!("the accelerator can't read it where it lies ({why})"))
    }

    fn give_up(&mut self, request: &'static str, error: io::Error) -> Refused {
        self.release();
        Refused::by(request, error)
    }

    /// Asks all buffers back. Where the driver refuses, they stay leased until the device is closed.
    pub fn release(&mut self) {
        let mut kind = self.device.buffer_type().cast_signed();
        let stopped = ioctl::STREAMOFF.call(&self.device, &mut kind);
        let mut request = ioctl::REQBUFS.zeroed();
        (request.type_, request.memory) = (self.device.buffer_type(), self.origin.memory());
        let released = ioctl::REQBUFS.call(&self.device, &mut request);
        if stopped.is_ok() && released.is_ok() {
            self.buffers.clear();
            self.with_driver = 0;
        }
    }

    /// Hands a buffer on which no frame is to the driver.
    fn queue(&mut self, index: usize) -> io::Result<()> {
        let buffer = &self.buffers[index];
        debug_assert!(!buffer.with_driver && buffer.lease.is_idle());
        let (origin, count) = (self.origin, self.agreed.count);
        let (offsets, lengths) = (self.offsets, self.lengths);
        let address = |plane: usize| buffer.lease.as_ptr().addr() + offsets[plane];
        self.exchange(&ioctl::QBUF, index, |theirs, planes| {
            if planes.is_empty() {
                theirs.length = lengths[0] as u32;
                match origin {
                    Origin::Pool => theirs.m.userptr = address(0) as std::os::raw::c_ulong,
                    Origin::Heap => theirs.m.fd = buffer.files[0].as_raw_fd(),
                    Origin::Driver => {}
                }
            }
            for (number, plane) in planes.iter_mut().enumerate().take(count) {
                plane.length = lengths[number] as u32;
                match origin {
                    Origin::Pool => plane.m.userptr = address(number) as std::os::raw::c_ulong,
                    Origin::Heap => plane.m.fd = buffer.files[number].as_raw_fd(),
                    Origin::Driver => {}
                }
            }
        })?;
        let buffer = &mut self.buffers[index];
        (buffer.with_driver, buffer.queued) = (true, clock::now());
        self.with_driver += 1;
        Ok(())
    }

    /// Makes a request about buffer `index`, after `fill` has filled in what it needs: the buffer, and its planes
    /// where the device has several (else there are none).
    fn exchange(
        &self,
        request: &ioctl::Pointing<sys::v4l2_buffer>,
        index: usize,
        fill: impl FnOnce(&mut sys::v4l2_buffer, &mut [sys::v4l2_plane]),
    ) -> io::Result<(sys::v4l2_buffer, [sys::v4l2_plane; PLANES])> {
        // SAFETY: a C struct of numbers, and unions of numbers.
        let mut planes: [sys::v4l2_plane; PLANES] = unsafe { std::mem::zeroed() };
        let mut buffer = request.zeroed();
        (buffer.index, buffer.type_) = (index as u32, self.device.buffer_type());
        buffer.memory = self.origin.memory();
        if self.device.multi_planar {
            let used = &mut planes[..self.agreed.count];
            fill(&mut buffer, used);
            buffer.length = used.len() as u32;
            buffer.m.planes = used.as_mut_ptr();
        } else {
            fill(&mut buffer, &mut []);
        }
        // SAFETY: the planes are there during the call, and nobody keeps them. A buffer's memory is a slot that the
        // queue has the lease of, of that length at least, on which there is no frame when it is handed over
        // (`queue` is called for such only), and whose lease ends after the device is closed.
        unsafe { request.call(&self.device, &mut buffer) }?;
        if self.device.multi_planar {
            buffer.m.planes = std::ptr::null_mut();
        }
        Ok((buffer, planes))
    }

    /// A buffer that the driver has filled, if there is one.
    ///
    /// # Errors
    /// The kernel's answer, or that the driver gave a buffer back that it did not have.
    pub fn dequeue(&mut self) -> io::Result<Option<Filled>> {
        let (buffer, planes) = match self.exchange(&ioctl::DQBUF, 0, |_, _| ()) {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let index = buffer.index as usize;
        let Some(ours) = self.buffers.get_mut(index).filter(|ours| ours.with_driver) else {
            return Err(io::Error::other(format!(
                "the driver returned buffer {index}, which it did not have"
            )));
        };
        ours.with_driver = false;
        self.with_driver -= 1;
        let mut filled = Filled {
            index,
            sequence: buffer.sequence,
            time: DriverTime { seconds: buffer.timestamp.tv_sec, micros: buffer.timestamp.tv_usec },
            clock: Clock::by_flags(buffer.flags),
            queued: ours.queued,
            corrupt: buffer.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            bytes: buffer.bytesused as usize,
            begin: [0; PLANES],
        };
        if self.device.multi_planar {
            filled.bytes = planes[0].bytesused as usize;
            for (number, plane) in planes.iter().enumerate().take(self.agreed.count) {
                let begin = plane.data_offset as usize;
                filled.begin[number] = begin;
                let end = begin.saturating_add(self.needed[number]);
                filled.corrupt |= (plane.bytesused as usize) < end || end > self.lengths[number];
            }
        } else {
            filled.corrupt |= filled.bytes < self.needed[0];
        }
        filled.corrupt |= filled.bytes == 0 || filled.bytes > self.lengths[0];
        Ok(Some(filled))
    }

    /// The frame in a buffer that was filled: its pixels, or, where the camera sends JPEG images, one row of grey
    /// pixels that are the image's bytes. `None` when it is none.
    pub fn frame(&self, filled: &Filled) -> Option<FrameRef> {
        let buffer = &self.buffers[filled.index];
        let layout = match self.layout {
            Some(mut layout) => {
                let apart = self.agreed.count > 1;
                for (number, plane) in layout.planes.iter_mut().enumerate().take(layout.format.planes()) {
                    plane.offset += filled.begin[if apart { number } else { 0 }];
                }
                layout
            }
            None => {
                let begin = filled.begin[0];
                let width = u32::try_from(filled.bytes.checked_sub(begin)?).ok()?;
                let mut layout = ImageLayout::packed(PixelFormat::Gray8, width, 1);
                layout.planes[0].offset = begin;
                layout
            }
        };
        self.sync(buffer, Access::Begins);
        buffer.lease.deliver(layout)
    }

    /// Hands every buffer to the driver whose frames have all been let go.
    ///
    /// # Errors
    /// The kernel's answer; that buffer stays with us, and is tried again the next time.
    pub fn requeue(&mut self) -> io::Result<()> {
        let mut refused = None;
        for index in 0..self.buffers.len() {
            let buffer = &self.buffers[index];
            if !buffer.with_driver && buffer.lease.is_idle() {
                self.sync(buffer, Access::Ends);
                refused = self.queue(index).err().or(refused);
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Makes caches agree on what a device wrote to another device's memory, where there is such memory. The kernel
    /// can refuse it only for what is no dma-buf.
    fn sync(&self, buffer: &Buffer, access: Access) {
        for file in &buffer.files {
            let mut argument = ioctl::DmaBufSync { flags: access as u64 };
            let _ = ioctl::DMA_BUF_SYNC.call(file, &mut argument);
        }
    }

    /// Waits until the driver or `other` has something to say, or until `until`; whether one has.
    pub fn wait(&self, until: Instant, other: Option<BorrowedFd<'_>>) -> bool {
        let left = until.since(clock::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let other = other.unwrap_or(self.device.as_fd());
        let mut files =
            [PollFd::new(&self.device, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        // A signal or a fault ends the wait; what there is to say comes with the next `dequeue`.
        poll(&mut files, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

/// `DMA_BUF_SYNC_...` for reading.
#[derive(Clone, Copy)]
enum Access {
    Begins = 1,
    Ends = 1 | 4,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.release();
        // Then the fields in their order: the device is closed, the leases end.
    }
}
