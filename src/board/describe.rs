//! A board in words, every resolved value included: what `ocelli check` prints.

use super::{
    Asked, BackendSpec, Board, Encoding, Faults, HardwareWatchdog, Output, OutputTo, Realtime, SourceSpec,
    Stream, Supervision, Trigger, V4l2, V4l2Memory,
};
use crate::stream::Criticality;
use std::fmt;
use std::time::Duration;

/// One line for the accelerator, each model, stream, set, output, and for each of the last tables. Without
/// credentials.
impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "board {}, digest {}", self.name, self.digest)?;
        writeln!(
            f,
            "accelerator {}, batches of {} at most",
            self.accelerator.backend, self.accelerator.max_batch
        )?;
        for model in &self.models {
            let input = &model.input;
            write!(f, "model {}: {} ({}), ", model.id, model.file.display(), model.precision)?;
            writeln!(f, "input {}x{}, labels {}", input.width, input.height, model.labels.len())?;
        }
        for stream in &self.streams {
            write!(f, "{stream}, model {}", self.models[stream.model.index()].id)?;
            match stream.watch.cheaper_model {
                Some(cheaper) => writeln!(f, ", before shedding {}", self.models[cheaper.index()].id)?,
                None => writeln!(f)?,
            }
        }
        for set in &self.sets {
            let members: Vec<&str> =
                set.streams.iter().map(|member| self.streams[member.index()].id.as_str()).collect();
            writeln!(f, "set {}: {}, closed after {}", set.id, members.join(" "), Ms(set.deadline))?;
        }
        self.outputs.iter().try_for_each(|output| writeln!(f, "{output}"))?;
        let Realtime { lock_memory, fifo, shallow_idle, cpus } = &self.realtime;
        write!(f, "realtime: lock_memory {lock_memory}, fifo {fifo}, shallow_idle {shallow_idle}, cpus ")?;
        match cpus.as_slice() {
            [] => writeln!(f, "any")?,
            cpus => writeln!(f, "{cpus:?}")?,
        }
        let platform = &self.platform;
        writeln!(
            f,
            "platform: thermal zones {:?}, power rails {:?}, gpu load {:?}, gpu clock {:?}",
            platform.thermal_zones, platform.power_rails, platform.gpu_load, platform.gpu_clock
        )?;
        writeln!(f, "{}", self.supervision)
    }
}

/// A duration in milliseconds.
struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0.as_nanos() as f64 / 1e6)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Try => "try",
            Self::Required => "required",
        })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}: {}, ", self.id, self.source)?;
        write!(f, "{}x{} {}, ", self.width, self.height, self.format.as_str())?;
        match self.color {
            Some(color) => write!(f, "{:?} {:?}, ", color.matrix, color.range)?,
            None => write!(f, "color as the source says, ")?,
        }
        write!(f, "every {}, bound {}, ", Ms(self.period), Ms(self.latency_bound))?;
        f.write_str(match self.criticality {
            Criticality::BestEffort => "best-effort",
            Criticality::Normal => "normal",
            Criticality::Critical => "critical",
        })?;
        write!(f, ", late results {}", if self.stale_results { "wanted" } else { "dropped" })?;
        write!(f, ", {} of {} frames may be missed", self.watch.misses.0, self.watch.misses.1)?;
        if let Some(freshness) = self.watch.freshness {
            write!(f, ", fresh for {}", Ms(freshness))?;
        }
        if let Some(Trigger { id, offset, jitter }) = &self.trigger {
            write!(f, ", trigger {id} at {}, jitter {}", Ms(*offset), Ms(*jitter))?;
        }
        match &self.faults {
            Some(faults) => write!(f, ", {faults}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic { phase, jitter, seed } => {
                write!(f, "synthetic, phase {}, jitter {}, seed {seed}", Ms(*phase), Ms(*jitter))
            }
            Self::File { path, repeat, phase } => {
                let end = if *repeat { "repeated" } else { "once" };
                write!(f, "file {} {end}, phase {}", path.display(), Ms(*phase))
            }
            Self::Uri { uri, latency } => write!(f, "{uri}, jitter buffer {}", Ms(*latency)),
            Self::Pipeline { description } => {
                let words = description.to_string();
                write!(f, "pipeline `{}`", words.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            Self::V4l2(camera) => write!(f, "{camera}"),
        }
    }
}

impl fmt::Display for V4l2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v4l2 {}, memory {}, {}", self.device.display(), self.memory, self.encoding)?;
        if let Some(fourcc) = &self.fourcc {
            write!(f, " {fourcc}")?;
        }
        self.controls.iter().try_for_each(|(name, value)| write!(f, ", {name} = {value}"))
    }
}

impl fmt::Display for V4l2Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Userptr => "userptr",
            Self::Mmap => "mmap",
            Self::Dmabuf => "dmabuf",
            Self::Copy => "copy",
        })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Mjpeg => "mjpeg",
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FAULTS INJECTED (seed {}): drop {}", self.seed, self.drop)?;
        write!(f, ", corrupt {}, jitter {}", self.corrupt, Ms(self.jitter))?;
        let events = [
            ("freeze", self.freeze_at),
            ("stall", self.stall_at),
            ("hang", self.hang_at),
            ("fail", self.fail_at),
            ("end", self.end_at),
        ];
        for (what, frame) in events {
            match frame {
                Some(frame) if what == "stall" => write!(f, ", stall of {} at {frame}", Ms(self.stall))?,
                Some(frame) => write!(f, ", {what} at {frame}")?,
                None => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated { intercept, slope, jitter, seed, fail_every, hang_at } => {
                write!(f, "simulated: {} + {} a frame, ", Ms(*intercept), Ms(*slope))?;
                write!(f, "jitter {}, seed {seed}, fail_every {fail_every}", Ms(*jitter))?;
                hang_at.map_or(Ok(()), |batch| write!(f, ", hangs at batch {batch}"))
            }
            Self::OnnxRuntime { library, sessions, threads } => {
                match library {
                    Some(library) => write!(f, "onnxruntime {}", library.display())?,
                    None => write!(f, "onnxruntime from ORT_DYLIB_PATH or the system")?,
                }
                write!(f, ", sessions {sessions}, threads {threads}")
            }
            Self::TensorRt { device, engine_cache, contexts, dla, .. } => {
                let cache = engine_cache.display();
                write!(f, "tensorrt on device {device}, engines in {cache}, contexts {contexts}")?;
                dla.iter().try_for_each(|core| write!(f, ", DLA {core}"))
            }
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "output {}: ", self.name)?;
        match &self.to {
            OutputTo::File(path) => write!(f, "file {}", path.display()),
            OutputTo::Stdout => f.write_str("standard output"),
            OutputTo::Socket(path) => write!(f, "socket {}", path.display()),
        }
    }
}

impl fmt::Display for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "supervision: hardware watchdog {}, ", self.hardware_watchdog)?;
        write!(f, "restart {}, ", if self.restart { "allowed" } else { "not allowed" })?;
        match &self.state_dir {
            Some(folder) => write!(f, "last ledger in {}", folder.display()),
            None => f.write_str("no last ledger"),
        }
    }
}

impl fmt::Display for HardwareWatchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Systemd => f.write_str("systemd's"),
            Self::Device { path, timeout } => {
                write!(f, "{} after {} s", path.display(), timeout.as_secs())
            }
        }
    }
}
