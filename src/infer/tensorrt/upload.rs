//! Frames on their way to a device that has memory of its own: one call of the driver for all of a batch where it has
//! such a call, else one for each frame.
#![allow(unsafe_code, reason = "the driver's interface")]

use super::cuda::{CudaError, Device};
use super::memory::DeviceMemory;
use super::stream::{Event, Stream};
use cudarc::driver::sys;
use std::fmt;

/// Where the frames of a lane's batch go, and the stream in which they do.
#[derive(Debug)]
pub struct Upload {
    stream: Stream,
    done: Event,
    frames: DeviceMemory,
    /// Bytes from one frame to the next.
    pitch: usize,
    copies: Copies,
    together: Option<Together>,
}

/// Copies that are still to be put into the stream; capacity fixed at start.
#[derive(Debug)]
struct Copies {
    to: Vec<u64>,
    from: Vec<u64>,
    bytes: Vec<usize>,
}

impl Upload {
    /// For batches of so many frames, none of more than `pitch` bytes.
    ///
    /// # Errors
    /// There is no memory for them, or no stream.
    pub fn new(device: &Device, batch: usize, pitch: usize) -> Result<Self, CudaError> {
        let stream = device.stream()?;
        let copies = Copies {
            to: Vec::with_capacity(batch),
            from: Vec::with_capacity(batch),
            bytes: Vec::with_capacity(batch),
        };
        let (done, frames) = (Event::new(&stream)?, device.memory(batch * pitch)?);
        Ok(Self { stream, done, frames, pitch, copies, together: Together::find() })
    }

    /// Notes the bytes of the batch's frame number `index`; gives where they will be.
    ///
    /// # Safety
    /// They stay as they are until the upload's stream is done.
    pub unsafe fn add(&mut self, index: usize, pixels: &[u8]) -> u64 {
        debug_assert!(pixels.len() <= self.pitch && (index + 1) * self.pitch <= self.frames.bytes());
        let to = self.frames.address() + (index * self.pitch) as u64;
        self.copies.to.push(to);
        self.copies.from.push(pixels.as_ptr().expose_provenance() as u64);
        self.copies.bytes.push(pixels.len());
        to
    }

    /// Sends what was noted, if anything was, and lets `stream` wait for it.
    ///
    /// # Errors
    /// The driver's.
    pub fn send(&mut self, stream: &Stream) -> Result<(), CudaError> {
        if self.copies.to.is_empty() {
            return Ok(());
        }
        let sent = self.copy();
        self.copies.to.clear();
        self.copies.from.clear();
        self.copies.bytes.clear();
        sent?;
        self.done.mark(&self.stream)?;
        stream.wait_for(&self.done)
    }

    fn copy(&mut self) -> Result<(), CudaError> {
        let Self { stream, copies: Copies { to, from, bytes }, together, .. } = self;
        if let Some(all) = together.filter(|_| to.len() > 1) {
            // SAFETY: as `add` was promised, and the device's memory is the upload's.
            if unsafe { all.put(stream, to, from, bytes) }.is_ok() {
                return Ok(());
            }
            // A driver that can't after all. What it has begun is done once more.
            *together = None;
        }
        for ((&to, &from), &bytes) in to.iter().zip(from.iter()).zip(bytes.iter()) {
            let from = std::ptr::with_exposed_provenance(from as usize);
            // SAFETY: as above.
            unsafe { stream.copy_in(std::slice::from_raw_parts(from, bytes), to) }?;
        }
        Ok(())
    }

    /// Whether all that was sent has come.
    ///
    /// # Errors
    /// It has failed.
    pub fn is_idle(&self) -> Result<bool, CudaError> {
        self.stream.is_idle()
    }

    /// Waits for all that was sent.
    ///
    /// # Errors
    /// It has failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize()
    }
}

/// `cuMemcpyBatchAsync`, as drivers have it since CUDA 12.8.
#[derive(Clone, Copy)]
struct Together(Call);

type Call = unsafe extern "C" fn(
    to: *const u64,
    from: *const u64,
    bytes: *const usize,
    count: usize,
    attributes: *const Attributes,
    first_of_attributes: *const usize,
    attribute_count: usize,
    failed: *mut usize,
    stream: sys::CUstream,
) -> u32;

/// `CUmemcpyAttributes`.
#[repr(C)]
struct Attributes {
    source_access_order: u32,
    source_hint: [u32; 2],
    target_hint: [u32; 2],
    flags: u32,
}

/// Sources are read in the stream's order: `CU_MEMCPY_SRC_ACCESS_ORDER_STREAM`.
static IN_ORDER: Attributes =
    Attributes { source_access_order: 1, source_hint: [0; 2], target_hint: [0; 2], flags: 0 };

impl fmt::Debug for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}

impl Together {
    fn find() -> Option<Self> {
        let mut version = 0;
        // SAFETY: writes a number.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
        // SAFETY: the driver is open for good, and from this version on its function of this name has this type.
        let call = unsafe { sys::culib().get::<Call>(b"cuMemcpyBatchAsync\0") };
        call.ok().filter(|_| version >= 12_080).map(|call| Self(*call))
    }

    /// Puts all of the copies into the stream. They may be done in any order, and at once.
    ///
    /// # Safety
    /// Until the stream has come that far, so many bytes at `from` stay as they are, and so many at `to` are the device's.
    unsafe fn put(self, stream: &Stream, to: &[u64], from: &[u64], bytes: &[usize]) -> Result<(), CudaError> {
        let mut failed = 0;
        // SAFETY: the caller's promise; the lists are as long as is said, and are read before this returns.
        let status = unsafe {
            (self.0)(
                to.as_ptr(),
                from.as_ptr(),
                bytes.as_ptr(),
                to.len(),
                &raw const IN_ORDER,
                &0,
                1,
                &raw mut failed,
                stream.raw(),
            )
        };
        if status == 0 { Ok(()) } else { Err(CudaError(status)) }
    }
}
