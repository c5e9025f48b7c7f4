//! Clocks and what they may be, load, and counters of throttling.

use super::{Clock, Root, number_within, text};
use std::path::{Path, PathBuf};

const DEVFREQ: &str = "/sys/class/devfreq";
const CPUS: &str = "/sys/devices/system/cpu";
/// MHz that a clock can have.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1.0..=20_000.0;

/// The GPU's clock, of the first of these folders that exists, or of one that is called so.
pub(super) fn gpu(root: &Root, folders: &[PathBuf]) -> Clock {
    let named = folders.iter().map(|folder| root.at(folder)).find(|folder| folder.is_dir());
    let found = || {
        let entries = root.entries(DEVFREQ, "").into_iter();
        entries.into_iter().find(|entry| entry.to_string_lossy().to_lowercase().contains("gpu"))
    };
    let Some(folder) = named.or_else(|| if folders.is_empty() { found() } else { None }) else {
        return Clock::default();
    };
    let available = text(&folder.join("available_frequencies")).unwrap_or_default();
    let available = available.split_whitespace().filter_map(|hertz| hertz.parse::<f64>().ok());
    Clock {
        now: hertz(&folder.join("cur_freq")),
        allowed: hertz(&folder.join("max_freq")),
        highest: available
            .map(|hertz| hertz / 1e6)
            .filter(|clock| PLAUSIBLE.contains(clock))
            .reduce(f64::max),
    }
}

fn hertz(node: &Path) -> Option<f64> {
    number_within(node, 0.0..=f64::MAX).map(|hertz| hertz / 1e6).filter(|clock| PLAUSIBLE.contains(clock))
}

/// The GPU's load, of the first of these files that exists.
pub(super) fn gpu_load(root: &Root, files: &[PathBuf]) -> Option<f64> {
    let file = files.iter().map(|file| root.at(file)).find(|file| file.exists())?;
    number_within(&file, 0.0..=1000.0).map(|load| load / 1000.0)
}

/// The processors' clocks, on average.
pub(super) fn cpu(root: &Root) -> Clock {
    let folders: Vec<PathBuf> = cpus(root).map(|cpu| cpu.join("cpufreq")).collect();
    let mean = |node: &str| {
        let clocks = folders.iter().filter_map(|folder| number_within(&folder.join(node), 1.0..=2e7));
        let (sum, count) = clocks.fold((0.0, 0.0), |(sum, count), clock| (sum + clock, count + 1.0));
        (count > 0.0).then(|| sum / count / 1e3)
    };
    Clock {
        now: mean("scaling_cur_freq"),
        allowed: mean("scaling_max_freq"),
        highest: mean("cpuinfo_max_freq"),
    }
}

/// Counters of the times that processors were throttled for heat.
pub(super) fn cpu_throttle_events(root: &Root) -> Vec<PathBuf> {
    let counters = |cpu: PathBuf| {
        ["core_throttle_count", "package_throttle_count"].map(|node| cpu.join("thermal_throttle").join(node))
    };
    cpus(root).flat_map(counters).collect()
}

fn cpus(root: &Root) -> impl Iterator<Item = PathBuf> {
    let is_number = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("cpu").is_some_and(|number| number.parse::<u16>().is_ok())
    };
    root.entries(CPUS, "cpu").into_iter().filter(is_number)
}
