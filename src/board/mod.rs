//! A board file describes one board: its cameras, its accelerator, its models, its outputs.
//!
//! Text becomes a raw form, and that becomes a [`Board`], which is valid by construction: whoever holds one
//! need not check it again. All errors are reported at once.

mod describe;
mod raw;
mod resolve;

pub use crate::config::{Address, redact};
pub use raw::schema;

use crate::config::{Problems, Surroundings, System};
use crate::image::{Colorimetry, PixelFormat};
use crate::model::Model;
use crate::stream::{Criticality, ModelId, StreamId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most streams on a board.
pub const MAX_STREAMS: usize = 256;
/// Most models on a board.
pub const MAX_MODELS: usize = 16;
/// Most sets on a board.
pub const MAX_SETS: usize = 16;

/// A valid board.
#[derive(Clone, Debug)]
pub struct Board {
    /// The file's name without its ending.
    pub name: String,
    /// SHA-256 over everything that was read for it (board files, manifests), credentials taken out; in hex.
    pub digest: String,
    /// What computes.
    pub accelerator: Accelerator,
    /// The cameras; a [`StreamId`] is a position in this list.
    pub streams: Vec<Stream>,
    /// The networks in use; a [`ModelId`] is a position in this list.
    pub models: Vec<Model>,
    /// Cameras whose results of one instant belong together.
    pub sets: Vec<Set>,
    /// Where results go.
    pub outputs: Vec<Output>,
    /// What is asked of the operating system.
    pub realtime: Realtime,
    /// Where the board's power and temperature are read.
    pub platform: Platform,
    /// What watches over the run itself.
    pub supervision: Supervision,
    /// What is allowed and yet looks wrong, each with its place.
    pub warnings: Vec<String>,
}

impl Board {
    /// Reads the board file at `path`, with what it inherits and the manifests of the models in use.
    ///
    /// # Errors
    /// Everything that is wrong with them, with places.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::load_from(&System, path)
    }

    /// As [`Board::load`], with files and environment variables from elsewhere.
    ///
    /// # Errors
    /// Everything that is wrong with the files, with places.
    pub fn load_from(surroundings: &dyn Surroundings, path: &Path) -> Result<Self, Problems> {
        resolve::board(surroundings, path)
    }
}

/// One camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Its name in records, logs and metrics.
    pub id: String,
    /// Where its frames come from.
    pub source: SourceSpec,
    /// Faults to inject, for tests and rigs.
    pub faults: Option<Faults>,
    /// Shortest time from one frame to the next.
    pub period: Duration,
    /// Width of its frames in pixels.
    pub width: u32,
    /// Height of its frames in pixels.
    pub height: u32,
    /// Format of its frames.
    pub format: PixelFormat,
    /// How its Y'CbCr is to be read, where the board says so; else what the source says, else by size.
    pub color: Option<Colorimetry>,
    /// Results must be out this long after capture.
    pub latency_bound: Duration,
    /// How much depends on it.
    pub criticality: Criticality,
    /// The network for its frames.
    pub model: ModelId,
    /// Whether a result after the deadline is still wanted (then a hopeless job is not dropped).
    pub stale_results: bool,
    /// What the watchdog watches, and may do.
    pub watch: Watch,
    /// The hardware trigger that releases its frames; `None`: it runs free.
    pub trigger: Option<Trigger>,
}

/// When a stream has missed too much, and what it may get instead of its service.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Misses that are allowed, in that many frames in a row.
    pub misses: (u8, u8),
    /// Most age of its last good result.
    pub freshness: Option<Duration>,
    /// The network for its frames before it is shed for load.
    pub cheaper_model: Option<ModelId>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { misses: (1, 30), freshness: None, cheaper_model: None }
    }
}

/// A signal on which the cameras that share it expose, once in their period. All triggers of a board are
/// driven by one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name: streams with the same one share it.
    pub id: String,
    /// From the start of the period, on the clock of all triggers, to its instant; less than the period.
    pub offset: Duration,
    /// Captures are stamped from the instant on up to this much later; less than half the period.
    pub jitter: Duration,
}

/// Where a stream's frames come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSpec {
    /// Pre-rendered moving frames on an exact grid.
    Synthetic {
        /// First release after the start.
        phase: Duration,
        /// Each release is delayed by 0 to this, evenly spread.
        jitter: Duration,
        /// Seed of the jitter.
        seed: u64,
    },
    /// A video file, replayed on an exact grid of the stream's period.
    File {
        /// The file.
        path: PathBuf,
        /// Whether it starts again at its end (else the stream ends there).
        repeat: bool,
        /// First release after the start.
        phase: Duration,
    },
    /// An RTSP or HTTP address; live, stamped by the sender or on arrival.
    Uri {
        /// The address.
        uri: Address,
        /// The jitter buffer of RTSP.
        latency: Duration,
    },
    /// A GStreamer pipeline description whose last element's raw video we take; live.
    Pipeline {
        /// As for gst-launch-1.0, without a sink.
        description: Address,
    },
    /// A V4L2 device; live, stamped by its driver.
    V4l2(V4l2),
}

/// A camera behind a V4L2 device node.
#[derive(Clone, Debug, PartialEq)]
pub struct V4l2 {
    /// The device node, best by its name in /dev/v4l/by-path or by-id.
    pub device: PathBuf,
    /// Where the driver puts frames.
    pub memory: V4l2Memory,
    /// What the camera sends.
    pub encoding: Encoding,
    /// Which of the V4L2 formats that the stream's format can be; `None`: the first that the camera has.
    pub fourcc: Option<String>,
    /// Values of controls, by their V4L2 names.
    pub controls: BTreeMap<String, i64>,
}

/// Where a V4L2 driver puts frames.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum V4l2Memory {
    /// Into the pool if the driver can, else where it likes; what was chosen and why is logged.
    #[default]
    Auto,
    /// Into the pool's slots.
    Userptr,
    /// Into the driver's own buffers, which are frames where they lie.
    Mmap,
    /// Into buffers that another device allocates: a dma-buf heap, or vgem.
    Dmabuf,
    /// Into the driver's own buffers, each frame copied into the pool and counted.
    Copy,
}

/// What a camera sends.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Pixels in the stream's format.
    #[default]
    Raw,
    /// JPEG images, decoded to the stream's format.
    Mjpeg,
}

/// Faults that a wrapper injects into a source. Frames count from 0; ranges are by sequence number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Seed for the random ones.
    pub seed: u64,
    /// Share of frames dropped, 0 to 1.
    pub drop: f64,
    /// Each frame is delivered later by 0 to this; its stamp stays.
    pub jitter: Duration,
    /// From this frame on, the picture stays the same.
    pub freeze_at: Option<u64>,
    /// Share of frames with garbage pixels, 0 to 1.
    pub corrupt: f64,
    /// At this frame, nothing for `stall`.
    pub stall_at: Option<u64>,
    /// How long it stalls.
    pub stall: Duration,
    /// Asked for this frame, the source never answers: its thread is stuck until the process ends.
    pub hang_at: Option<u64>,
    /// Fails at this frame, once.
    pub fail_at: Option<u64>,
    /// Ends at this frame.
    pub end_at: Option<u64>,
}

/// What computes, and how much at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Accelerator {
    /// The backend.
    pub backend: BackendSpec,
    /// Most jobs in a batch.
    pub max_batch: u16,
}

/// A backend and its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendSpec {
    /// Computes nothing; takes the time of a linear model, l(b) = intercept + slope * b.
    Simulated {
        /// Service time that does not depend on the batch size.
        intercept: Duration,
        /// Service time for each job.
        slope: Duration,
        /// Each batch takes up to this much longer, evenly spread.
        jitter: Duration,
        /// Seed of the jitter.
        seed: u64,
        /// Every n-th batch fails, 0 for none.
        fail_every: u32,
        /// From this batch of a run on, counted from 0, none comes back.
        hang_at: Option<u64>,
    },
    /// ONNX Runtime on the CPU.
    OnnxRuntime {
        /// Its shared library; `None`: `ORT_DYLIB_PATH`, else the system's.
        library: Option<PathBuf>,
        /// Sessions, each with its own thread.
        sessions: u16,
        /// Computing threads of each session.
        threads: u16,
    },
    /// NVIDIA TensorRT, where the build has it.
    TensorRt {
        /// CUDA device number.
        device: u16,
        /// Where built engines are kept.
        engine_cache: PathBuf,
        /// Execution contexts.
        contexts: u16,
        /// DLAs that may take batches too, ascending.
        dla: Vec<u8>,
        /// Plans that are missing are built at the start.
        build_plans: bool,
    },
}

/// Cameras whose results of one instant are published as one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Its name in records.
    pub id: String,
    /// Its members.
    pub streams: Vec<StreamId>,
    /// The set is closed this long after its first member's capture, complete or not.
    pub deadline: Duration,
}

/// Where results go, beside what the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name in the summary (`results_lost`).
    pub name: String,
    /// What it is.
    pub to: OutputTo,
}

/// A destination of results, all as JSON Lines.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputTo {
    /// A file, started anew.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A listening Unix socket; every reader that connects gets what comes from then on.
    Socket(PathBuf),
}

/// What is asked of the operating system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Realtime {
    /// Lock the pool in memory.
    pub lock_memory: Asked,
    /// Run capture, exec and publish threads under SCHED_FIFO.
    pub fifo: Asked,
    /// Keep idle CPUs out of states that take time to leave.
    pub shallow_idle: Asked,
    /// CPUs for exec, publish and capture threads; empty for any.
    pub cpus: Vec<u16>,
}

/// How much something is asked for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// Not at all.
    No,
    /// Where the system allows it; a refusal is said once.
    #[default]
    Try,
    /// A refusal stops the start (exit 71).
    Required,
}

/// Where the board's power and temperature are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Platform {
    /// Types of thermal zones, compared without case.
    pub thermal_zones: Vec<String>,
    /// Labels of power rails (hwmon `ina3221`).
    pub power_rails: Vec<String>,
    /// Load of the GPU, 0 to 1000; the first file that exists.
    pub gpu_load: Vec<PathBuf>,
    /// Clocks of the GPU (devfreq); the first folder that exists.
    pub gpu_clock: Vec<PathBuf>,
}

/// What watches over the run itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervision {
    /// Who resets the board when the runtime hangs.
    pub hardware_watchdog: HardwareWatchdog,
    /// Whether the process may end itself, to be started again by the service manager.
    pub restart: bool,
    /// Folder of the last ledger; `None`: none is kept.
    pub state_dir: Option<PathBuf>,
}

/// Who resets the board when the runtime hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HardwareWatchdog {
    /// Nobody.
    #[default]
    None,
    /// systemd, which has the device open.
    Systemd,
    /// The runtime, with a device of its own.
    Device {
        /// `/dev/watchdogN`.
        path: PathBuf,
        /// From the last sign of life to the reset; whole seconds.
        timeout: Duration,
    },
}
