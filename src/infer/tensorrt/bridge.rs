//! The bridge to `cpp/engine.h`. Only this folder calls it; its types are wrapped in [`super::library`].
#![allow(unsafe_code, reason = "the border to C++")]
#![allow(missing_docs, reason = "the bridge's functions are documented in cpp/engine.h")]

use super::progress::Progress;

#[cxx::bridge(namespace = "ocelli::tensorrt")]
pub mod ffi {
    /// A version of TensorRT, or of TensorRT-RTX, which counts for itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Version {
        rtx: bool,
        major: i32,
        minor: i32,
        patch: i32,
    }

    /// Type of a tensor's elements.
    #[derive(Debug)]
    enum Element {
        F32,
        F16,
        I8,
        U8,
        I32,
        Bool,
        Other,
    }

    /// A tensor that goes in or comes out; -1 is a dimension that is open.
    #[derive(Clone, Debug)]
    struct IoTensor {
        name: String,
        input: bool,
        element: Element,
        shape: Vec<i64>,
    }

    /// A CUDA device.
    #[derive(Clone, Debug)]
    struct Device {
        name: String,
        /// Major version * 10 + minor.
        capability: i32,
        /// It shares its memory with the CPU.
        integrated: bool,
    }

    /// The shapes that an input takes in one optimization profile.
    #[derive(Clone, Debug)]
    struct Extent {
        profile: u32,
        tensor: String,
        least: Vec<i64>,
        best: Vec<i64>,
        most: Vec<i64>,
    }

    /// How a network is built.
    #[derive(Clone, Debug)]
    struct BuildOptions {
        profiles: u32,
        extents: Vec<Extent>,
        /// Bytes of device memory that the engine may use beside weights and activations.
        workspace: usize,
        /// 0 to 5; -1 is TensorRT's own choice.
        level: i32,
        /// The file asks for 16-bit floats; needed by TensorRT 8.
        half: bool,
        /// The file has Q/DQ; needed by TensorRT 8.
        quantized: bool,
        /// The DLA to build for, -1 for the GPU.
        dla_core: i32,
        /// Compute capabilities (major * 10 + minor) to build for; none where that can't be chosen: this device's.
        capabilities: Vec<i32>,
        /// What was learned in earlier builds; may be empty.
        timing_cache: Vec<u8>,
    }

    /// What came of it.
    struct Built {
        plan: Vec<u8>,
        timing_cache: Vec<u8>,
        layers: u32,
    }

    extern "Rust" {
        type Progress;
        fn logged(severity: i32, text: &[u8]);
        fn started(progress: &Progress, phase: &str, parent: &str, steps: i32);
        fn stepped(progress: &Progress, phase: &str, step: i32) -> bool;
        fn finished(progress: &Progress, phase: &str);
    }

    unsafe extern "C++" {
        include!("ocelli/cpp/engine.h");

        type Library;
        type Network;
        type Engine;
        type Context;

        fn compiled_version() -> Version;
        fn nvinfer_file() -> &'static str;
        fn parser_file() -> &'static str;
        fn serves_capability(capability: i32) -> bool;
        fn driver_function(name: &str) -> Result<usize>;
        fn device(index: i32) -> Result<Device>;

        fn open_library(nvinfer: &str, parser: &str) -> Result<UniquePtr<Library>>;
        fn version(self: &Library) -> Version;

        fn parse_network(library: &Library, onnx: &[u8], path: &str) -> Result<UniquePtr<Network>>;
        fn tensors(self: &Network) -> Result<Vec<IoTensor>>;
        fn build(self: &Network, options: &BuildOptions, progress: &Progress) -> Result<Built>;

        fn load_engine(library: &Library, plan: &[u8], dla_core: i32) -> Result<UniquePtr<Engine>>;
        fn tensors(self: &Engine) -> Result<Vec<IoTensor>>;
        fn context_memory(self: &Engine) -> u64;
        fn restore(self: Pin<&mut Engine>, compiled: &[u8]) -> bool;
        fn compiled(self: &Engine) -> Result<Vec<u8>>;

        fn create_context(engine: &Engine) -> Result<UniquePtr<Context>>;
        /// # Safety
        /// So many bytes at the address are the device's, and no other context's while a batch is enqueued.
        unsafe fn set_memory(self: Pin<&mut Context>, address: u64, bytes: u64);
        fn tensor_shape(self: &Context, index: usize) -> Result<Vec<i64>>;
        fn select_profile(self: Pin<&mut Context>, profile: i32, cuda_stream: u64) -> bool;
        fn set_shape(self: Pin<&mut Context>, index: usize, shape: &[i64]) -> bool;
        /// # Safety
        /// The address is one of the device's, and holds the tensor for as long as a batch is enqueued.
        unsafe fn set_address(self: Pin<&mut Context>, index: usize, address: u64) -> bool;
        fn is_capturable(self: &Context, cuda_stream: u64) -> bool;
        fn enqueue(self: Pin<&mut Context>, cuda_stream: u64) -> bool;
    }
}

/// TensorRT's own log, from any of its threads: 0 is an internal error, then error, warning, info, verbose.
fn logged(severity: i32, text: &[u8]) {
    let level = match severity {
        0 | 1 => log::Level::Error,
        2 => log::Level::Warn,
        3 => log::Level::Debug,
        _ => log::Level::Trace,
    };
    log::log!(target: "tensorrt", level, "{}", String::from_utf8_lossy(text).trim_end());
}

fn started(progress: &Progress, phase: &str, parent: &str, steps: i32) {
    progress.started(phase, parent, steps);
}

fn stepped(progress: &Progress, phase: &str, step: i32) -> bool {
    progress.stepped(phase, step)
}

fn finished(progress: &Progress, phase: &str) {
    progress.finished(phase);
}
