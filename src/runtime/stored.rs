//! Profiles that are kept: service times as JSON, with all that they depend on as their key. A profile
//! whose key is not that of the board, the device and the libraries here is foreign, and never used.
//!
//! Cameras' rates and bounds are not in the key: service times do not depend on them. Which of the arrangements is used
//! does, and is chosen anew from the times whenever a profile is used; the file says how the choice stood when it was made.

use crate::board::{BackendSpec, Board};
use crate::runtime::arrangement::{Arrangement, Choice, Decodings, Measured, Timing};
use crate::stream::ModelId;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file's form.
const VERSION: u32 = 4;
/// Where a service keeps its state, when the system has made the folder for it.
const SYSTEM: &str = "/var/lib/ocelli";

/// What service times depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The computing device: the processor's name, or "simulated".
    pub device: String,
    /// The power mode that the system is in, as far as it says.
    pub power_mode: String,
    /// The backend's name and version.
    pub backend: String,
    /// The backend's settings.
    pub settings: String,
    /// The networks, in the board's order.
    pub models: Vec<ModelKey>,
}

/// A network and what is fed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelKey {
    /// Its name on the board.
    pub id: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Size and format of the largest frames.
    pub frames: String,
    /// How its results are decoded, as its manifest says.
    pub decoder: String,
}

/// A profile with its key, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    v: u32,
    /// What the times depend on.
    pub key: Key,
    /// The first unit alone, and, where there are more, all of them.
    pub arrangements: Vec<Kept>,
    /// The models' decoding times, in the order of the key's.
    pub decodings: Vec<Decodings>,
}

/// An arrangement as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Whether it was the best for the board as it was then.
    pub used: bool,
    /// How many streams like those of the board were certain to be in time with it.
    pub max_streams: usize,
    /// More were impossible.
    pub upper_bound: usize,
    /// Its units' service times; the models are in the order of the key's.
    pub units: Arrangement,
}

impl Key {
    /// The key of `board` here and now, on a backend of this name and version.
    #[must_use]
    pub fn new(board: &Board, backend: &str) -> Self {
        let (device, power_mode, settings) = match &board.accelerator.backend {
            simulated @ BackendSpec::Simulated { .. } => {
                ("simulated".to_owned(), "simulated".to_owned(), simulated.to_string())
            }
            BackendSpec::OnnxRuntime { sessions, threads, .. } => {
                (processor(), power_mode(), format!("sessions {sessions}, threads {threads}"))
            }
            other @ BackendSpec::TensorRt { .. } => (processor(), power_mode(), other.to_string()),
        };
        let settings = format!("{settings}, max_batch {}", board.accelerator.max_batch);
        let models = board.models.iter().enumerate().map(|(index, model)| {
            let frames = board.streams.iter().filter(|stream| stream.model == ModelId(index as u8));
            let largest = frames.max_by_key(|stream| u64::from(stream.width) * u64::from(stream.height));
            ModelKey {
                id: model.id.clone(),
                sha256: model.sha256.clone(),
                frames: largest.map_or_else(String::new, |stream| {
                    format!("{}x{} {}", stream.width, stream.height, stream.format.as_str())
                }),
                decoder: format!("{:?}", model.decoder),
            }
        });
        Self { device, power_mode, backend: backend.to_owned(), settings, models: models.collect() }
    }

    /// What differs from the key that is needed `here`, in words; empty when nothing does.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, there: &str, here: &str| {
            if there != here {
                found.push(format!("{what} \"{there}\", here \"{here}\""));
            }
        };
        compare("device", &self.device, &here.device);
        compare("power mode", &self.power_mode, &here.power_mode);
        compare("backend", &self.backend, &here.backend);
        compare("settings", &self.settings, &here.settings);
        let names = |key: &Self| key.models.iter().map(|m| m.id.as_str()).collect::<Vec<_>>().join(", ");
        compare("models", &names(self), &names(here));
        for (there, here) in self.models.iter().zip(&here.models).filter(|(a, b)| a.id == b.id) {
            compare(&format!("model {}: sha256", here.id), &there.sha256, &here.sha256);
            compare(&format!("model {}: frames", here.id), &there.frames, &here.frames);
            compare(&format!("model {}: decoder", here.id), &there.decoder, &here.decoder);
        }
        found
    }
}

impl Stored {
    /// What was measured for `board`, and its key.
    #[must_use]
    pub fn new(board: &Board, key: Key, measured: Measured) -> Self {
        let Choice { candidates, used, .. } = Choice::new(board, &measured, Timing::careful, false);
        let Measured { arrangements, decodings } = measured;
        let kept =
            arrangements.into_iter().zip(candidates).enumerate().map(|(index, (units, candidate))| Kept {
                used: index == used,
                max_streams: candidate.fits.max_streams,
                upper_bound: candidate.fits.upper_bound,
                units,
            });
        Self { v: VERSION, key, arrangements: kept.collect(), decodings }
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// Why it can't be read or is no profile, with its name.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let stored: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{}: not a profile of this version: {error}", path.display()))?;
        let models = stored.key.models.len();
        if stored.v != VERSION || !stored.measured().is_sound(models) {
            return Err(format!("{}: not a profile of this version", path.display()));
        }
        Ok(stored)
    }

    /// Writes `path`, whole or not at all.
    ///
    /// # Errors
    /// What the system refused, with the file's name.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let unfinished = path.with_extension("unfinished");
        let write = || {
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&unfinished, text)?;
            std::fs::rename(&unfinished, path)
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What is used for `board` as it is now, and what to admit with.
    #[must_use]
    pub fn choice(&self, board: &Board) -> Choice {
        Choice::new(board, &self.measured(), Timing::careful, false)
    }

    fn measured(&self) -> Measured {
        Measured {
            arrangements: self.arrangements.iter().map(|kept| kept.units.clone()).collect(),
            decodings: self.decodings.clone(),
        }
    }

    /// Where a board's profile is kept: in the system's folder where it is writable, else in the user's;
    /// `None` without either.
    #[must_use]
    pub fn place(board: &Board) -> Option<PathBuf> {
        let system = Path::new(SYSTEM);
        let folder = if access(system, Access::WRITE_OK).is_ok() { system.to_owned() } else { users()? };
        Some(folder.join(file(board)))
    }

    /// The board's kept profile, the system's before the user's, if there is one.
    #[must_use]
    pub fn find(board: &Board) -> Option<PathBuf> {
        let folders = [Some(PathBuf::from(SYSTEM)), users()];
        folders.into_iter().flatten().map(|folder| folder.join(file(board))).find(|path| path.exists())
    }
}

fn file(board: &Board) -> String {
    format!("{}.profile.json", board.name)
}

/// The user's folder for state, after the XDG Base Directory Specification.
fn users() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("ocelli"))
}

/// The processor's name, as the kernel tells it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim()))
    };
    let cpus = text.lines().filter(|line| line.starts_with("processor")).count();
    let name = value("model name").or_else(|| value("CPU part")).unwrap_or(std::env::consts::ARCH);
    format!("{name}, {cpus} CPUs")
}

/// What limits the clocks: a Jetson's power mode, and how the first processor's clock is governed and up to
/// where. All three outlive a load: the clock of the moment is not among them.
fn power_mode() -> String {
    let said = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    let cpu = |file: &str| said(&format!("/sys/devices/system/cpu/cpu0/cpufreq/{file}"));
    let parts = [
        said("/var/lib/nvpmodel/status"),
        cpu("scaling_governor"),
        cpu("scaling_max_freq").map(|khz| format!("{khz} kHz")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "not stated".to_owned() } else { parts.join(", ") }
}
