//! A CUDA device: found at run time, its memory and its streams.
#![allow(unsafe_code, reason = "the driver's interface")]

use super::library::driver_function;
use super::stream::Stream;
use crate::infer::InferError;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Why the driver refused: its number, which a driver that is newer than this program may have added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaError(pub(super) u32);

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        Self(error.0 as u32)
    }
}

impl std::error::Error for CudaError {}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = words(self.0).map_or("no words for it".into(), CStr::to_string_lossy);
        write!(f, "CUDA: error {}, {words}", self.0)
    }
}

/// The driver's words for one of its numbers, if it has any.
fn words(number: u32) -> Option<&'static CStr> {
    // As declared by the driver; cudarc's takes only numbers that it knows.
    type Words = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;
    let mut text = std::ptr::null();
    // SAFETY: there is a driver, as this came from it; the function has this type, and its texts stay.
    unsafe {
        let ask = sys::culib().get::<Words>(b"cuGetErrorString\0").ok()?;
        (ask(number, &raw mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text))
    }
}

/// Sees that there is a driver, and that it is what cudarc takes for it.
fn driver() -> Result<(), InferError> {
    let start = driver_function("cuInit").map_err(no_driver)?;
    // cudarc takes the first of several names that is found, libcuda.so before libcuda.so.1.
    // SAFETY: one was found just now; the function is not called.
    let taken = unsafe { sys::culib().get::<*const ()>(b"cuInit\0") };
    if taken.map_or(0, |taken| taken.addr()) != start {
        return Err(InferError::Unavailable {
            what: "libcuda.so is another library than NVIDIA's driver, libcuda.so.1: a stub of the CUDA toolkit?"
                .to_owned(),
            remedy: "take its folder out of LD_LIBRARY_PATH".to_owned(),
        });
    }
    Ok(())
}

fn no_driver(what: String) -> InferError {
    let remedy =
        "install NVIDIA's driver and see that nvidia-smi, or on a Jetson deviceQuery, finds the device";
    InferError::Unavailable { what, remedy: remedy.to_owned() }
}

/// A CUDA device with its primary context, which TensorRT uses too.
#[derive(Clone, Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    /// Major version * 10 + minor.
    pub capability: i32,
    /// It shares its memory with the CPU: frames are read where they lie.
    pub integrated: bool,
    /// Memory that others allocated can be registered with it.
    pub registers: bool,
}

impl Device {
    /// Opens the device of this number.
    ///
    /// # Errors
    /// There is no driver, it does not start, or it has no such device.
    pub fn open(number: u16) -> Result<Self, InferError> {
        driver()?;
        Self::find(number).map_err(|why| no_driver(format!("CUDA device {number} can't be used: {why}")))
    }

    fn find(number: u16) -> Result<Self, CudaError> {
        let context = CudaContext::new(usize::from(number))?;
        // SAFETY: streams are ordered by hand: nothing here is shared between streams without an event.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability()?;
        let integrated = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
        let registers = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)? != 0;
        Ok(Self { context, capability: major * 10 + minor, integrated, registers })
    }

    /// Makes the device's context the calling thread's.
    ///
    /// # Errors
    /// The driver's.
    pub fn bind(&self) -> Result<(), CudaError> {
        bind(&self.context)
    }

    /// A stream of its own, which goes before others of the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(&self) -> Result<Stream, CudaError> {
        self.bind()?;
        let (_, first) = result::stream::get_priority_range()?;
        Ok(Stream::new(self.context.new_stream_with_priority(first)?))
    }

    /// Memory that the CPU and the device see, filled with zeros: locked, cached by the CPU, portable to every
    /// context.
    ///
    /// # Errors
    /// There is no memory.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned, CudaError> {
        self.bind()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: the context is current. What comes back is freed by `Pinned` alone.
        let start = unsafe { result::malloc_host(bytes.max(1), flags) }?;
        let start =
            NonNull::new(start.cast::<u8>()).ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        let mut pinned = Pinned { start, bytes, address: 0, context: self.context.clone() };
        // SAFETY: `start` was just allocated for `bytes`.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        // SAFETY: `start` was allocated with DEVICEMAP.
        unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut pinned.address, start.as_ptr().cast(), 0) }
            .result()?;
        Ok(pinned)
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }
}

/// The UUID of the device of this number, which other libraries know it by: they count devices in other orders.
///
/// # Errors
/// There is no driver or no such device.
pub fn uuid(number: u16) -> Result<[u8; 16], InferError> {
    driver()?;
    let asked = result::init()
        .and_then(|()| result::device::get(number.into()))
        .and_then(result::device::get_uuid)
        .map_err(|why| {
            no_driver(format!("CUDA device {number} does not tell it: {}", CudaError::from(why)))
        })?;
    // C's characters have a sign on some machines.
    Ok(asked.bytes.map(|byte| u8::from_ne_bytes(byte.to_ne_bytes())))
}

/// Makes a context the calling thread's, whatever failed before.
pub(super) fn bind(context: &CudaContext) -> Result<(), CudaError> {
    // SAFETY: the context is there.
    Ok(unsafe { result::ctx::set_current(context.cu_ctx()) }?)
}

/// Memory of the host that the device reads and writes in place.
pub struct Pinned {
    start: NonNull<u8>,
    bytes: usize,
    address: sys::CUdeviceptr,
    context: Arc<CudaContext>,
}

// SAFETY: the memory belongs to this value and is bound to no thread.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read it; what writes through [`Pinned::at`] says who else does not.
unsafe impl Sync for Pinned {}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Pinned {
    /// Where it lies, as the device sees it.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The byte at `offset`, for the device or who has its place alone to write to.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.bytes);
        // SAFETY: within the allocation, or its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The bytes. The device must not be writing them: synchronize first.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is valid and initialized for `bytes` as long as this value lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes, to be changed. The device must not be using them: synchronize first.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The context may be gone after an error of the device; then its memory is too.
        if bind(&self.context).is_ok() {
            // SAFETY: `start` came from malloc_host and is freed once.
            let _ = unsafe { result::free_host(self.start.as_ptr().cast()) };
        }
    }
}
