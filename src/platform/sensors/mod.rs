//! Heat, clocks, power and load, as the machine tells them: sysfs and `/proc/stat`, and NVML for discrete GPUs.
//!
//! Every look finds the nodes anew: some appear late in boot, others vanish when a part is switched off. A node that
//! is missing, can't be read or holds garbage costs its own reading, no other. A look may block for tens of
//! milliseconds. Architecture invariant: nothing here is weighed; what readings mean is the runtime's.

mod clocks;
#[cfg(feature = "tensorrt")]
mod nvml;
mod power;
mod steal;
#[cfg(test)]
mod tests;
mod thermal;

use crate::board::{BackendSpec, Board, Platform};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most that is read of a node.
const LONGEST: u64 = 4096;

/// What does the inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A GPU; its number, for NVML.
    Gpu(u16),
    /// The processor.
    Cpu,
}

/// The hottest thermal zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// Its type, as the kernel names it.
    pub name: String,
    /// Degrees Celsius.
    pub celsius: f64,
}

/// Clock of what does the inference, in MHz.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock {
    /// What it runs at; that of a unit without work says little.
    pub now: Option<f64>,
    /// What it may run at under load.
    pub allowed: Option<f64>,
    /// The highest there is.
    pub highest: Option<f64>,
}

/// What the sensors say at one instant. `None`: nobody tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// The hottest of the zones that the board names; of all, where it names none.
    pub hottest: Option<Zone>,
    /// The accelerator's clock.
    pub clock: Clock,
    /// Share of the time in which the GPU was at work.
    pub gpu_load: Option<f64>,
    /// Watts drawn.
    pub power: Option<f64>,
    /// Who says that the accelerator is being slowed down for heat, or is about to be.
    pub heat: Option<String>,
    /// Who says the same of a limit on power.
    pub power_limit: Option<String>,
    /// Share of all processors' time that went to other machines on the same host, in the last seconds.
    pub steal: Option<f64>,
}

/// The machine's sensors.
#[derive(Debug)]
pub struct Sensors {
    root: Root,
    named: Platform,
    unit: Option<Unit>,
    over_current: Counters,
    throttled: Counters,
    steal: steal::Steal,
    #[cfg(feature = "tensorrt")]
    nvml: nvml::Nvml,
}

impl Sensors {
    /// Those that the board names below `root` ("/" but for tests), or whatever is found where it names none.
    #[must_use]
    pub fn new(board: &Board, root: &Path) -> Self {
        let named = board.platform.clone();
        let unit = match board.accelerator.backend {
            BackendSpec::TensorRt { device, .. } => Some(Unit::Gpu(device)),
            BackendSpec::OnnxRuntime { .. } => Some(Unit::Cpu),
            // It is as fast as a GPU that the board names, so that boards can be tried.
            BackendSpec::Simulated { .. } => (!named.gpu_clock.is_empty()).then_some(Unit::Gpu(0)),
        };
        Self::of(root, named, unit)
    }

    /// The accelerator is the GPU with this UUID.
    #[cfg(feature = "tensorrt")]
    #[must_use]
    pub fn of_gpu(self, uuid: [u8; 16]) -> Self {
        Self { nvml: nvml::Nvml::of(uuid), ..self }
    }

    fn of(root: &Path, named: Platform, unit: Option<Unit>) -> Self {
        Self {
            root: Root(root.to_owned()),
            named,
            unit,
            over_current: Counters::default(),
            throttled: Counters::default(),
            steal: steal::Steal::default(),
            #[cfg(feature = "tensorrt")]
            nvml: nvml::Nvml::default(),
        }
    }

    /// What does the inference; `None`: nothing that heat or power could slow down.
    #[must_use]
    pub fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// Reads them all.
    pub fn look(&mut self) -> Readings {
        let root = &self.root;
        let gpu = clocks::gpu(root, &self.named.gpu_clock);
        // NVML knows the clock of one that is not.
        let on_chip = gpu != Clock::default() || !self.named.gpu_clock.is_empty();
        let heat = thermal::alert(root, &self.named.thermal_zones, self.unit, on_chip);
        let rails = power::rails(root, &self.named.power_rails);
        let mut readings = Readings {
            hottest: thermal::hottest(root, &self.named.thermal_zones),
            gpu_load: clocks::gpu_load(root, &self.named.gpu_load),
            power: power::total(&rails),
            steal: self.steal.look(root),
            ..Readings::default()
        };
        match self.unit {
            Some(Unit::Gpu(_)) => {
                readings.clock = gpu;
                readings.heat = heat;
                let over_current = self.over_current.risen(power::over_current_events(root));
                readings.power_limit = over_current.or_else(|| power::at_limit(&rails));
            }
            Some(Unit::Cpu) => {
                readings.clock = clocks::cpu(root);
                let throttled = self.throttled.risen(clocks::cpu_throttle_events(root));
                readings.heat = heat.or(throttled);
            }
            None => {}
        }
        #[cfg(feature = "tensorrt")]
        if let Some(Unit::Gpu(number)) = self.unit {
            self.nvml.look(number, &mut readings);
        }
        readings
    }
}

/// Where paths of nodes begin.
#[derive(Debug)]
struct Root(PathBuf);

impl Root {
    fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Entries of a folder whose names begin so, in order of their names.
    fn entries(&self, folder: &str, begin: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.at(Path::new(folder))).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(begin))
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    }
}

/// What a node says, trimmed.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: &Path) -> Option<f64> {
    text(path)?.parse().ok().filter(|number: &f64| number.is_finite())
}

fn number_within(path: &Path, range: std::ops::RangeInclusive<f64>) -> Option<f64> {
    number(path).filter(|number| range.contains(number))
}

/// Counters of events that only ever rise, each with what it was at the last look.
#[derive(Debug, Default)]
struct Counters(BTreeMap<PathBuf, f64>);

impl Counters {
    /// One that has risen since the last look. What a counter says first is of the time before.
    fn risen(&mut self, nodes: Vec<PathBuf>) -> Option<String> {
        let mut risen = None;
        for node in nodes {
            let Some(now) = number(&node) else { continue };
            let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if self.0.insert(node, now).is_some_and(|before| now > before) {
                risen = Some(format!("{name} has risen to {now}"));
            }
        }
        risen
    }
}
