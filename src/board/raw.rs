//! A board file as text: its keys with their ranges, defaults and meanings.
//!
//! The comments here are what the JSON Schema says of each key, so they are written for whoever writes
//! board files. What keys mean together is decided in [`super::resolve`].

use super::{Asked, Encoding, MAX_SETS, V4l2Memory};
use crate::config::{Id, RelativePath, WatchdogName, schema_of};
use crate::image::{Matrix, PixelFormat, Range};
use crate::stream::Criticality;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema_of::<RawBoard>);

/// The JSON Schema of board files.
#[must_use]
pub fn schema() -> serde_json::Value {
    SCHEMA.clone()
}

/// A board: its cameras, its accelerator, its models, its outputs.
#[derive(Deserialize, JsonSchema)]
#[schemars(title = "Ocelli board file")]
#[serde(deny_unknown_fields)]
pub(super) struct RawBoard {
    /// Version of this format: 1.
    #[schemars(extend("const" = 1, "examples" = [1]))]
    #[serde(rename = "config_version")]
    _config_version: u32,
    /// Files to which this one adds, relative to this file. Tables merge, arrays of tables follow one another
    /// with the inherited entries first, a key may be set in one place only, and no file may be reached twice.
    #[serde(default, rename = "inherit")]
    _inherit: Vec<RelativePath>,
    /// What computes.
    pub accelerator: RawAccelerator,
    /// The models, by name.
    #[schemars(extend("propertyNames" = {"pattern": Id::PATTERN}))]
    pub models: BTreeMap<String, RawModel>,
    /// The cameras.
    #[schemars(length(min = 1, max = 256))]
    pub streams: Vec<RawStream>,
    /// Hardware triggers: signals on each of which several cameras expose at once. What is known of the
    /// instants lets more streams be guaranteed. Without it: all cameras run free.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub triggers: Vec<RawTrigger>,
    /// Cameras whose results of one instant are published as one record. Without it: none.
    #[serde(default)]
    #[schemars(length(max = MAX_SETS))]
    pub sets: Vec<RawSet>,
    /// Where results go, beside what the command line asks for. Without it: nowhere else.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub outputs: Vec<RawOutput>,
    /// What is asked of the operating system.
    #[serde(default)]
    pub realtime: RawRealtime,
    /// Where the board's power and temperature are read.
    #[serde(default)]
    pub platform: RawPlatform,
    /// What watches over the run itself, and what is left of a run that was killed.
    #[serde(default)]
    pub supervision: RawSupervision,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    /// The model's manifest, relative to this file.
    pub manifest: RelativePath,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(extend(
    "oneOf" = [{"required": ["period_ms"]}, {"required": ["fps"]}]
))]
#[serde(deny_unknown_fields)]
pub(super) struct RawStream {
    /// The stream's name in records, logs and metrics.
    pub id: Id,
    /// Where its frames come from.
    #[schemars(extend("examples" = [{"type": "file", "path": "street.mp4"}]))]
    pub source: RawSource,
    /// Faults to inject, for tests and rigs. Without it: none.
    pub faults: Option<RawFaults>,
    /// Shortest time from one frame to the next that the source can produce. Without it: `fps`.
    #[schemars(range(min = 0.1, max = 3_600_000.0))]
    pub period_ms: Option<f64>,
    /// Frames a second, the most that the source can produce. Without it: `period_ms`.
    #[schemars(range(min = 0.0003, max = 10000.0))]
    pub fps: Option<f64>,
    /// Width and height of its frames in pixels.
    #[schemars(inner(range(min = 1, max = 8192)), extend("examples" = [[1280, 720]]))]
    pub size: [u32; 2],
    /// Pixel format of its frames, as GStreamer names it; of a sensor's mosaic (RGGB8 to BGGR10) as V4L2 names it,
    /// without the S.
    pub format: PixelFormat,
    /// How its Y'CbCr is to be read. Without it: as the source says, else by size (BT.709 from 720 lines on,
    /// limited range).
    pub color: Option<RawColor>,
    /// Results must be out this long after capture.
    #[schemars(range(min = 0.001, max = 3_600_000.0), extend("examples" = [100]))]
    pub latency_bound_ms: f64,
    /// How much depends on it. Load is shed from best-effort up; critical streams are never shed for load.
    #[serde(default)]
    pub criticality: Criticality,
    /// Name of the model for its frames, one of `[models]`.
    pub model: Id,
    /// Whether a result after the deadline is still wanted; else a frame that can't make it is dropped.
    #[serde(default)]
    pub stale_results: bool,
    /// How many of how many frames in a row may be missed for load before service is reduced, here or
    /// elsewhere. Without it: [1, 30]; of critical streams [0, 30].
    #[schemars(inner(range(min = 0, max = 128)), extend("examples" = [[1, 30]]))]
    pub misses: Option<[u8; 2]>,
    /// Service is reduced, here or elsewhere, when for load the last good result is older than this. Without it:
    /// at no age.
    #[schemars(range(min = 0.001, max = 3_600_000.0))]
    pub freshness_ms: Option<f64>,
    /// Name of the model that every fourth frame gets before the stream is shed for load. Without it: none.
    pub cheaper_model: Option<Id>,
    /// The hardware trigger on which it exposes, one of `[[triggers]]`. Without it: the camera runs free.
    pub trigger: Option<Id>,
}

/// A signal on which several cameras expose at once, once in their period.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrigger {
    /// The trigger's name, for `trigger` in `[[streams]]`.
    pub id: Id,
    /// How much later than a trigger without offset it fires; less than its streams' period. All triggers are
    /// driven by one clock.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 3_600_000.0))]
    pub offset_ms: f64,
    /// How far apart the frames of one instant may be stamped and handed over; less than half the period. Real
    /// cameras need some: 0.5 is usual.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 3_600_000.0))]
    pub jitter_ms: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawColor {
    /// Coefficients.
    pub matrix: Matrix,
    /// Which code values are black and white.
    pub range: Range,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
pub(super) enum RawSource {
    /// Pre-rendered moving frames on an exact grid.
    Synthetic {
        /// First release after the start.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 3_600_000.0))]
        phase_ms: f64,
        /// Each release is delayed by 0 to this, evenly spread. Less than the period.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 3_600_000.0))]
        jitter_ms: f64,
        /// Seed of the jitter.
        #[serde(default)]
        seed: u64,
    },
    /// A video file, replayed on an exact grid of the stream's period.
    File {
        /// The video, relative to this file.
        path: RelativePath,
        /// Whether it starts again at its end; else the stream ends there.
        #[serde(default = "yes")]
        repeat: bool,
        /// First release after the start.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 3_600_000.0))]
        phase_ms: f64,
    },
    /// An RTSP or HTTP address; live.
    Uri {
        /// The address. `${NAME}` stands for an environment variable, so that credentials need not stand here.
        #[schemars(length(min = 1, max = 4096), extend("examples" = ["rtsp://${CAM_USER}:${CAM_PASSWORD}@10.0.0.4/main"]))]
        uri: String,
        /// The jitter buffer of RTSP.
        #[serde(default = "jitter_buffer_ms")]
        #[schemars(range(min = 0.0, max = 60000.0))]
        latency_ms: f64,
    },
    /// A GStreamer pipeline description whose last element's raw video is taken; live.
    Pipeline {
        /// As for gst-launch-1.0, without a sink. `${NAME}` stands for an environment variable.
        #[schemars(length(min = 1, max = 4096))]
        description: String,
    },
    /// A camera behind a V4L2 device node; live, stamped by its driver.
    V4l2 {
        /// The device node: best its name in /dev/v4l/by-path (which socket) or /dev/v4l/by-id (which camera),
        /// as /dev/videoN may be another camera after the next start.
        #[schemars(length(min = 1, max = 4096), extend("examples" = ["/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0"]))]
        device: PathBuf,
        /// Where the driver puts frames: into the pool's slots ("userptr"), into its own buffers, which are
        /// frames where they lie ("mmap"), into buffers of a dma-buf heap ("dmabuf"), or into its own buffers,
        /// each frame copied ("copy"). With "auto" it is the first of "userptr", "mmap" and "copy" that works.
        #[serde(default)]
        memory: V4l2Memory,
        /// What the camera sends: pixels, or JPEG images that are decoded to the stream's format.
        #[serde(default)]
        encoding: Encoding,
        /// The V4L2 format that is asked for, of those that the stream's format can be. Without it: the first
        /// that the camera has.
        #[schemars(length(min = 1, max = 4), extend("examples" = ["NM12"]))]
        fourcc: Option<String>,
        /// Values of controls by their V4L2 names, as `v4l2-ctl --list-ctrls` shows them; menus by the number of
        /// the entry, booleans as 0 or 1.
        #[serde(default)]
        #[schemars(extend("examples" = [{"auto_exposure": 1, "exposure_time_absolute": 100}]))]
        controls: BTreeMap<String, i64>,
    },
}

fn yes() -> bool {
    true
}

fn jitter_buffer_ms() -> f64 {
    50.0
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFaults {
    /// Seed of the random faults.
    #[serde(default)]
    pub seed: u64,
    /// Share of frames dropped.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub drop: f64,
    /// Each frame is delivered later by 0 to this; its stamp stays.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 3_600_000.0))]
    pub jitter_ms: f64,
    /// From this frame on the picture stays the same; frames count from 0. Without it: never.
    pub freeze_at: Option<u64>,
    /// Share of frames with garbage pixels.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub corrupt: f64,
    /// At this frame the source stalls for `stall_ms`. Without it: never.
    pub stall_at: Option<u64>,
    /// How long the source stalls at `stall_at`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 3_600_000.0))]
    pub stall_ms: f64,
    /// Asked for this frame, the source never answers, as one whose driver is stuck: its thread hangs until the
    /// process ends. What the supervisor puts in its place goes on. Without it: never.
    pub hang_at: Option<u64>,
    /// The source fails at this frame, once. Without it: never.
    pub fail_at: Option<u64>,
    /// The source ends at this frame. Without it: never.
    pub end_at: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "backend", rename_all = "lowercase")]
pub(super) enum RawAccelerator {
    /// Computes nothing; takes the time of a linear model: intercept + slope * batch size.
    Simulated {
        /// Most frames in a batch.
        #[schemars(range(min = 1, max = 64))]
        max_batch: u16,
        /// Service time that does not depend on the batch size.
        #[schemars(range(min = 0.0, max = 60000.0))]
        intercept_ms: f64,
        /// Service time for each frame.
        #[schemars(range(min = 0.0, max = 60000.0))]
        slope_ms: f64,
        /// Each batch takes longer by 0 to this, evenly spread.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 60000.0))]
        jitter_ms: f64,
        /// Seed of the jitter.
        #[serde(default)]
        seed: u64,
        /// Every n-th batch fails; 0 for none.
        #[serde(default)]
        fail_every: u32,
        /// This batch of a run (counted from 0) and those after it never come back, as of an accelerator that hangs.
        /// What the supervisor puts in its place works. Not in simulations, whose scenarios have hangs of their own.
        /// Without it: never.
        hang_at: Option<u64>,
    },
    /// ONNX Runtime on the CPU.
    OnnxRuntime {
        /// Most frames in a batch.
        #[schemars(range(min = 1, max = 64))]
        max_batch: u16,
        /// ONNX Runtime's shared library, relative to this file. Without it: ORT_DYLIB_PATH from the
        /// environment, else the system's.
        library: Option<RelativePath>,
        /// Sessions, each with its own thread; each works on one batch at a time.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 16))]
        sessions: u16,
        /// Computing threads of each session.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 256))]
        threads: u16,
    },
    /// NVIDIA TensorRT.
    TensorRt {
        /// Most frames in a batch.
        #[schemars(range(min = 1, max = 64))]
        max_batch: u16,
        /// CUDA device number.
        #[serde(default)]
        device: u16,
        /// Folder for built engines, relative to this file.
        #[serde(default = "engine_cache")]
        engine_cache: RelativePath,
        /// Execution contexts; each works on one batch at a time.
        #[serde(default = "one")]
        #[schemars(range(min = 1, max = 16))]
        contexts: u16,
        /// Numbers of DLAs that may take batches too, one at a time each, with plans of their own, while the GPU is busy. They
        /// do where more streams fit with them, by the profile's measurement: batches are planned with the slowest one's
        /// service times.
        #[serde(default)]
        #[schemars(length(max = 4), inner(range(max = 3)), extend("examples" = [[0, 1]]))]
        dla: Vec<u8>,
        /// Build plans that are missing or don't fit when the run starts, which takes minutes. Without it such a start is
        /// refused; "ocelli engine build" builds them.
        #[serde(default)]
        build_plans: bool,
    },
}

fn one() -> u16 {
    1
}

fn engine_cache() -> RelativePath {
    RelativePath("/var/cache/ocelli/engines".into())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSet {
    /// The set's name in records.
    pub id: Id,
    /// Names of its members.
    #[schemars(length(min = 1, max = 32), extend("examples" = [["front", "rear"]]))]
    pub streams: Vec<Id>,
    /// The set is closed this long after its first member's capture, complete or not.
    #[schemars(range(min = 0.001, max = 3_600_000.0))]
    pub deadline_ms: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
pub(super) enum RawOutput {
    /// JSON Lines to a file, which is started anew.
    File {
        /// The output's name in the summary.
        name: Id,
        /// The file, relative to this file.
        path: RelativePath,
    },
    /// JSON Lines to standard output.
    Stdout {
        /// The output's name in the summary.
        name: Id,
    },
    /// JSON Lines to whoever connects to a Unix socket, from then on.
    Socket {
        /// The output's name in the summary.
        name: Id,
        /// The socket, relative to this file.
        path: RelativePath,
    },
}

/// No, as far as the system allows it, or as a condition of the start.
#[derive(Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct RawRealtime {
    /// Lock the frames' memory.
    pub lock_memory: Asked,
    /// Run the capture, exec and publish threads under SCHED_FIFO.
    pub fifo: Asked,
    /// Keep idle CPUs out of states that take time to leave (`/dev/cpu_dma_latency`): wake-ups come sooner, for some
    /// power.
    pub shallow_idle: Asked,
    /// CPUs for the exec, publish and capture threads; empty for any.
    #[schemars(length(max = 1024), inner(range(max = 1023)))]
    pub cpus: Vec<u16>,
}

/// Types, labels and files, as the board's kernel names them.
#[derive(Deserialize, serde::Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPlatform {
    /// Types of the thermal zones to watch (`/sys/class/thermal/thermal_zone*/type`), compared without case.
    /// Without any: all that there are.
    #[schemars(length(max = 64))]
    pub thermal_zones: Vec<String>,
    /// Labels of the power rails to watch (`in*_label` of a hwmon), compared without case. Without any: all of `ina3221`.
    #[schemars(length(max = 64))]
    pub power_rails: Vec<String>,
    /// Files with the GPU's load, 0 to 1000; the first that exists is read.
    #[schemars(length(max = 16))]
    pub gpu_load: Vec<PathBuf>,
    /// Folders with the GPU's clocks (devfreq); the first that exists is read. Without any: the one called `gpu`.
    #[schemars(length(max = 16))]
    pub gpu_clock: Vec<PathBuf>,
}

/// Stages of last resort, each for what the one before it can't heal.
#[derive(Deserialize, serde::Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSupervision {
    /// Who resets the board when the runtime itself hangs: nobody (`none`), `systemd` with the watchdog that it
    /// has open (`RuntimeWatchdogSec=` in system.conf), or the runtime with a device of its own
    /// (`/dev/watchdog0`), which it arms at start and disarms at an orderly stop. A device has one owner.
    pub hardware_watchdog: WatchdogName,
    /// The device resets the board this long after the runtime's last sign of life. More than the service
    /// manager's `WatchdogSec=` and 5 s for the restart together. For a device only. Without it: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3600))]
    pub hardware_watchdog_timeout_s: Option<u16>,
    /// Whether the process may end itself (exit 70) to be started again by the service manager, when nothing
    /// smaller heals it.
    pub restart: bool,
    /// Folder of the last ledger (`BOARD.ledger`): what became of the frames, at most a second old, so that the
    /// next start can tell how a run that was killed stood. Relative to this file. Without it: none is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<RelativePath>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_says_what_the_check_does() {
        crate::config::says_what_the_check_does(&super::schema());
    }
}
