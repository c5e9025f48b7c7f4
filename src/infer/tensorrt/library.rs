//! TensorRT's libraries: finding, opening and asking them.
#![allow(unsafe_code, reason = "which threads may call C++ is said here")]

use super::Version;
use super::bridge::ffi;
use super::passport::capabilities;
use super::progress::Progress;
use crate::infer::InferError;
use std::env::var_os;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::bridge::ffi::{BuildOptions, Built, Device, Element, Extent, IoTensor};

/// Names the folder of TensorRT's libraries, where the system's loader does not find them.
pub const FOLDER: &str = "OCELLI_TENSORRT_LIBRARIES";

impl From<ffi::Version> for Version {
    fn from(version: ffi::Version) -> Self {
        let ffi::Version { rtx, major, minor, patch } = version;
        Self { rtx, major, minor, patch }
    }
}

/// The version that this program was compiled for.
#[must_use]
pub fn compiled_version() -> Version {
    ffi::compiled_version().into()
}

/// TensorRT, opened, of the version that this program was compiled for.
pub struct Library(cxx::UniquePtr<ffi::Library>);

// SAFETY: what `Library` holds never changes after it was opened, TensorRT's factories may be called from any thread,
// and its logger locks.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Library").field(&self.version().to_string()).finish()
    }
}

impl Library {
    /// Opens TensorRT from [`FOLDER`], or as the system's loader finds it. No GPU is needed.
    ///
    /// # Errors
    /// There is none, or one of another version.
    pub fn open() -> Result<Self, InferError> {
        let folder = var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let at = |file: &str| match &folder {
            Some(folder) => folder.join(file).to_string_lossy().into_owned(),
            None => file.to_owned(),
        };
        let opened = ffi::open_library(&at(ffi::nvinfer_file()), &at(ffi::parser_file()));
        opened.map(Self).map_err(|why| InferError::Unavailable {
            what: format!("can't use {}: {}", compiled_version().product(), why.what()),
            remedy: format!("install it, or name the folder of {} in {FOLDER}", ffi::nvinfer_file()),
        })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version().into()
    }

    /// The CUDA device of this number, which this TensorRT can be used with.
    ///
    /// # Errors
    /// There is no driver, it does not start, or it has no such device, or one that is not served.
    pub fn device(&self, number: u16) -> Result<Device, InferError> {
        let device = ffi::device(i32::from(number)).map_err(|why| InferError::Unavailable {
            what: why.what().to_owned(),
            remedy: "see that nvidia-smi, or on a Jetson deviceQuery, finds the device".to_owned(),
        })?;
        self.serves(device.capability)?;
        Ok(device)
    }

    /// Whether devices of this compute capability are served.
    ///
    /// # Errors
    /// They are not: what serves them.
    pub fn serves(&self, capability: i32) -> Result<(), InferError> {
        if ffi::serves_capability(capability) {
            return Ok(());
        }
        Err(InferError::Unavailable {
            what: format!(
                "{} does not serve devices of compute capability {}",
                self.version(),
                capabilities(&[capability])
            ),
            remedy: "full TensorRT does: install it, and compile with its headers (OCELLI_TENSORRT_INCLUDE names their \
                     folder)"
                .to_owned(),
        })
    }

    /// Reads a network; its external weights lie beside `path`.
    ///
    /// # Errors
    /// TensorRT's reason.
    pub fn parse(&self, onnx: &[u8], path: &Path) -> Result<Network, String> {
        let network = ffi::parse_network(&self.0, onnx, &path.to_string_lossy());
        network.map(Network).map_err(|why| why.what().to_owned())
    }

    /// Loads a plan onto the current device; `dla_core` where it was built for a DLA.
    ///
    /// # Errors
    /// There is no device, or the plan is not for it, this TensorRT, or at all.
    pub fn load(&self, plan: &[u8], dla_core: Option<u8>) -> Result<Engine, String> {
        let engine = ffi::load_engine(&self.0, plan, dla_core.map_or(-1, i32::from));
        engine.map(Engine).map_err(|why| why.what().to_owned())
    }
}

/// Where a function of NVIDIA's driver lies.
///
/// # Errors
/// There is no driver, or it has no such function.
pub(super) fn driver_function(name: &str) -> Result<usize, String> {
    ffi::driver_function(name).map_err(|why| why.what().to_owned())
}

/// A network that can be built.
pub struct Network(cxx::UniquePtr<ffi::Network>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// What goes in and comes out.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn tensors(&self) -> Result<Vec<IoTensor>, String> {
        self.0.tensors().map_err(|why| why.what().to_owned())
    }

    /// Builds it. Takes seconds to many minutes.
    ///
    /// # Errors
    /// TensorRT's reason.
    pub fn build(&self, options: &BuildOptions, progress: &Progress) -> Result<Built, String> {
        self.0.build(options, progress).map_err(|why| why.what().to_owned())
    }
}

/// A plan on a device.
pub struct Engine(cxx::UniquePtr<ffi::Engine>);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

// SAFETY: an engine is not bound to a thread, it does not change once it is loaded, and TensorRT allows contexts of
// one engine to be made and used in several threads.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl Engine {
    /// Its IO tensors, in the engine's order.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn tensors(&self) -> Result<Vec<IoTensor>, String> {
        self.0.tensors().map_err(|why| why.what().to_owned())
    }

    /// Bytes of device memory that a context works in.
    #[must_use]
    pub fn context_memory(&self) -> u64 {
        self.0.context_memory()
    }

    /// Takes over what contexts compiled on the device at an earlier start.
    ///
    /// # Errors
    /// It is broken, or not for what is here; then contexts compile it anew.
    pub fn restore(&mut self, compiled: &[u8]) -> Result<(), Refused> {
        taken(self.0.pin_mut().restore(compiled))
    }

    /// What its contexts have compiled on the device, for later starts; empty where they compile nothing.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn compiled(&self) -> Result<Vec<u8>, String> {
        self.0.compiled().map_err(|why| why.what().to_owned())
    }

    /// A context of it, which has no memory to work in yet.
    ///
    /// # Errors
    /// There is no memory on the device.
    pub fn context(self: &Arc<Self>) -> Result<Context, String> {
        let context = ffi::create_context(&self.0).map_err(|why| why.what().to_owned())?;
        Ok(Context { context, _engine: self.clone() })
    }
}

/// An execution context: one batch at a time. All calls for a batch return at once and do not allocate here.
pub struct Context {
    // Dropped before its engine.
    context: cxx::UniquePtr<ffi::Context>,
    _engine: Arc<Engine>,
}

// SAFETY: a context is not bound to a thread; it is used through `&mut` only.
unsafe impl Send for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// TensorRT refused a call; its log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

fn taken(taken: bool) -> Result<(), Refused> {
    if taken { Ok(()) } else { Err(Refused) }
}

impl Context {
    /// Gives it memory to work in.
    ///
    /// # Safety
    /// So many bytes at the address are the device's, at least [`Engine::context_memory`], and used by nothing else
    /// whenever a batch is enqueued and until it is done.
    pub unsafe fn set_memory(&mut self, address: u64, bytes: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.context.pin_mut().set_memory(address, bytes) };
    }

    /// The shape of IO tensor `index` for the input's shape that was set; -1 is a dimension that is still open.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn shape(&self, index: usize) -> Result<Vec<i64>, String> {
        self.context.tensor_shape(index).map_err(|why| why.what().to_owned())
    }

    /// Selects the optimization profile for all that follows, in order with `cuda_stream`.
    ///
    /// # Errors
    /// There is no such profile.
    pub fn select_profile(&mut self, profile: i32, cuda_stream: u64) -> Result<(), Refused> {
        taken(self.context.pin_mut().select_profile(profile, cuda_stream))
    }

    /// Sets the shape of the input that is IO tensor `index`.
    ///
    /// # Errors
    /// The profile has no such shape.
    pub fn set_shape(&mut self, index: usize, shape: &[i64]) -> Result<(), Refused> {
        taken(self.context.pin_mut().set_shape(index, shape))
    }

    /// Says where IO tensor `index` lies.
    ///
    /// # Safety
    /// `address` is one that the device may read, and for an output write, as many bytes as the tensor has in its
    /// largest shape, whenever a batch is enqueued and until it is done.
    ///
    /// # Errors
    /// There is no such tensor, or the address is not aligned.
    pub unsafe fn set_address(&mut self, index: usize, address: u64) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        taken(unsafe { self.context.pin_mut().set_address(index, address) })
    }

    /// Whether that work can be recorded from a CUDA stream, instead of being done.
    #[must_use]
    pub fn is_capturable(&self, cuda_stream: u64) -> bool {
        self.context.is_capturable(cuda_stream)
    }

    /// Puts the network's work into a CUDA stream, and returns before it is done.
    ///
    /// # Errors
    /// A shape or an address is missing, or the device refused.
    pub fn enqueue(&mut self, cuda_stream: u64) -> Result<(), Refused> {
        taken(self.context.pin_mut().enqueue(cuda_stream))
    }
}
