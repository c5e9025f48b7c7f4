//! CUDA's streams, as lanes use them: copies, events, a signal when all is done, and work that is recorded once.
#![allow(unsafe_code, reason = "the driver's interface")]

use super::cuda::{CudaError, bind};
use crate::platform::{Waker, clock};
use crate::time::Instant;
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Work for the device, one thing after the other.
#[derive(Clone)]
pub struct Stream(Arc<CudaStream>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(stream: Arc<CudaStream>) -> Self {
        Self(stream)
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.0.cu_stream()
    }

    /// The stream as TensorRT takes it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.raw().addr() as u64
    }

    /// Puts a copy to the device into the stream.
    ///
    /// # Safety
    /// Until the stream has come that far, `from` stays as it is, and so many bytes at `to` are the device's.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn copy_in(&self, from: &[u8], to: u64) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        Ok(unsafe { result::memcpy_htod_async(to, from, self.raw()) }?)
    }

    /// Puts a copy from the device into the stream.
    ///
    /// # Safety
    /// Until the stream has come that far, `bytes` at `from` are the device's, and nobody else uses `bytes` at `to`.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn copy_out(&self, from: u64, to: *mut u8, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        Ok(unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.raw()) }.result()?)
    }

    /// What follows waits for the event.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait_for(&self, event: &Event) -> Result<(), CudaError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are there.
        Ok(unsafe { result::stream::wait_event(self.raw(), event.0.cu_event(), flags) }?)
    }

    /// Gives `signal` when all that was put into the stream so far is done or has failed. `signal` waits for one
    /// stream at a time.
    ///
    /// # Safety
    /// `signal` is kept until it was given, or the stream was waited for without an error.
    ///
    /// # Errors
    /// The driver's; then it will not be given.
    pub unsafe fn signal(&self, signal: &Arc<Signal>) -> Result<(), CudaError> {
        signal.status.store(PENDING, Ordering::Relaxed);
        let data = Arc::as_ptr(signal).cast_mut().cast();
        // SAFETY: only the driver calls it, and gives it a number of 32 bits.
        let come = unsafe { std::mem::transmute::<Come, Callback>(come as Come) };
        // A host function would not be called after an error of the device; this is, with the error.
        // SAFETY: the caller keeps what `data` points to.
        Ok(unsafe { sys::cuStreamAddCallback(self.raw(), Some(come), data, 0) }.result()?)
    }

    /// Whether all that was put into the stream is done.
    ///
    /// # Errors
    /// It has failed.
    pub fn is_idle(&self) -> Result<bool, CudaError> {
        // SAFETY: the stream is there.
        match unsafe { sys::cuStreamQuery(self.raw()) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => Ok(other.result().map(|()| true)?),
        }
    }

    /// Waits for all that was put into the stream.
    ///
    /// # Errors
    /// It has failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        bind(self.0.context())?;
        // SAFETY: the stream is there.
        Ok(unsafe { result::stream::synchronize(self.raw()) }?)
    }

    /// Records what `work` puts into the stream, instead of doing it.
    ///
    /// # Errors
    /// `work`'s, or the driver's: not everything can be recorded.
    pub fn record(&self, work: impl FnOnce() -> Result<(), String>) -> Result<Graph, String> {
        let said = |why: DriverError| CudaError::from(why).to_string();
        let context = self.0.context().clone();
        bind(&context).map_err(|why| why.to_string())?;
        // What other threads do meanwhile is not ours to forbid.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is there.
        unsafe { result::stream::begin_capture(self.raw(), mode) }.map_err(said)?;
        let worked = work();
        // Whatever has come of it, the stream is to work again.
        // SAFETY: as above.
        let ended = unsafe { result::stream::end_capture(self.raw()) };
        let recorded = match (worked, ended) {
            (Ok(()), ended) => ended.map_err(said)?,
            (Err(why), ended) => {
                if let Some(part) = ended.ok().filter(|graph| !graph.is_null()) {
                    // SAFETY: it is ours.
                    let _ = unsafe { result::graph::destroy(part) };
                }
                return Err(why);
            }
        };
        // SAFETY: what was recorded is whole.
        let graph = unsafe { result::graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0)) };
        // SAFETY: it is ours, and not needed any more.
        let _ = unsafe { result::graph::destroy(recorded) };
        graph.map(|graph| Graph { graph, context }).map_err(said)
    }
}

/// A point in a stream.
pub struct Event(CudaEvent);

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").finish_non_exhaustive()
    }
}

impl Event {
    /// One that nobody waits for yet, for streams of this one's device.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(stream: &Stream) -> Result<Self, CudaError> {
        Ok(Self(stream.0.context().new_event(None)?))
    }

    /// From now on the point that `stream` has been filled to.
    ///
    /// # Errors
    /// The driver's.
    pub fn mark(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both are there.
        Ok(unsafe { result::event::record(self.0.cu_event(), stream.raw()) }?)
    }
}

/// Work that was recorded, to be done again and again with one call.
pub struct Graph {
    graph: sys::CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: a graph is bound to no thread; it is used by one at a time.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

impl Graph {
    /// Puts the work into a stream.
    ///
    /// # Safety
    /// All memory that was there when it was recorded is, for the same uses, until the stream has come that far.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn launch(&mut self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both are there, and the memory is the caller's promise.
        Ok(unsafe { result::graph::launch(self.graph, stream.raw()) }?)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if bind(&self.context).is_ok() {
            // SAFETY: ours, and destroyed once.
            let _ = unsafe { result::graph::exec_destroy(self.graph) };
        }
    }
}

/// Not given.
const PENDING: u32 = u32::MAX;

/// What a stream gives when it has come to an end, and wakes a thread with.
#[derive(Debug)]
pub struct Signal {
    /// [`PENDING`], or the driver's number.
    status: AtomicU32,
    /// When it was given, in nanoseconds.
    at: AtomicU64,
    waker: Waker,
}

impl Signal {
    /// One that wakes the waker's thread.
    #[must_use]
    pub fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self { status: AtomicU32::new(PENDING), at: AtomicU64::new(0), waker })
    }

    /// When it was given, and how the stream's work has ended.
    #[must_use]
    pub fn given(&self) -> Option<(Instant, Result<(), CudaError>)> {
        // Acquire: what the device wrote before is seen.
        let status = self.status.load(Ordering::Acquire);
        let at = Instant::from_nanos(self.at.load(Ordering::Relaxed));
        match status {
            PENDING => None,
            0 => Some((at, Ok(()))),
            failed => Some((at, Err(CudaError(failed)))),
        }
    }
}

/// [`come`], and as cudarc declares it: with one of the numbers that it knows. A newer driver may have others, which are
/// no values of an enumeration without them.
type Come = unsafe extern "C" fn(sys::CUstream, u32, *mut c_void);
type Callback = unsafe extern "C" fn(sys::CUstream, CUresult, *mut c_void);

/// Called by the driver on a thread of its own, where calls to it are forbidden: a number, and a wake-up.
///
/// # Safety
/// `signal` is a [`Signal`].
unsafe extern "C" fn come(_: sys::CUstream, status: u32, signal: *mut c_void) {
    // SAFETY: whoever asked for the call keeps it.
    let signal = unsafe { &*signal.cast::<Signal>() };
    signal.at.store(clock::now().as_nanos(), Ordering::Relaxed);
    signal.status.store(status, Ordering::Release);
    signal.waker.wake();
}
