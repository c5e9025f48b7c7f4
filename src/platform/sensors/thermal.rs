//! Thermal zones, and the kernel's alerts of throttling.

use super::{Root, Unit, Zone, number_within, text};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/sys/class/thermal";
/// Thousandths of a degree that a zone can have: one that is switched off says -256 degrees.
const PLAUSIBLE: RangeInclusive<f64> = -60_000.0..=200_000.0;
/// Thousandths of a degree at which something is done about heat; firmware leaves zeros where it is not.
const TRIPS: RangeInclusive<f64> = 40_000.0..=150_000.0;
/// The most trip points of a zone.
const MOST_TRIPS: usize = 16;
/// What zones of processors and GPUs are called, where the board names none: a zone of a radio slows nobody down.
const OURS: [&str; 8] = ["cpu", "gpu", "soc", "tj", "pkg", "core", "acpitz", "ap"];

/// The hottest of the zones named so (of all, where none is).
pub(super) fn hottest(root: &Root, names: &[String]) -> Option<Zone> {
    let zones = root.entries(FOLDER, "thermal_zone").into_iter().filter_map(|zone| {
        let name = text(&zone.join("type"))?;
        let celsius = celsius(&zone.join("temp"), PLAUSIBLE)?;
        is_named(&name, names).then_some(Zone { name, celsius })
    });
    zones.max_by(|a, b| a.celsius.total_cmp(&b.celsius))
}

/// Why the unit is slowed down for heat, or about to be: the kernel says that it throttles, or a zone is at its trip
/// point for it. `on_chip`: a GPU beside the processors, on one chip with them.
pub(super) fn alert(root: &Root, names: &[String], unit: Option<Unit>, on_chip: bool) -> Option<String> {
    let unit = unit?;
    let concerns = |name: &str| concerns(unit, on_chip, name);
    let throttling = root.entries(FOLDER, "cooling_device").into_iter().find_map(|device| {
        let name = text(&device.join("type"))?;
        let ours = name.to_lowercase().contains("throttle-alert") && concerns(&name);
        (ours && number_within(&device.join("cur_state"), 1.0..=1e3).is_some()).then_some(name)
    });
    throttling.or_else(|| {
        root.entries(FOLDER, "thermal_zone").into_iter().find_map(|zone| {
            let name = text(&zone.join("type"))?;
            let ours = if names.is_empty() {
                OURS.iter().any(|part| name.to_lowercase().contains(part))
            } else {
                is_named(&name, names)
            };
            if !ours || !concerns(&name) {
                return None;
            }
            let now = celsius(&zone.join("temp"), PLAUSIBLE)?;
            let trip = trips(&zone).filter(|trip| now >= *trip).reduce(f64::min)?;
            Some(format!("{name} is at {now:.1} °C, trip point {trip:.1}"))
        })
    })
}

fn trips(zone: &Path) -> impl Iterator<Item = f64> {
    let acts = |kind: &PathBuf| {
        text(kind).is_some_and(|kind| matches!(kind.to_lowercase().as_str(), "passive" | "hot" | "critical"))
    };
    let zone = zone.to_owned();
    (0..MOST_TRIPS).filter_map(move |point| {
        let at = |end: &str| zone.join(format!("trip_point_{point}_{end}"));
        acts(&at("type")).then(|| celsius(&at("temp"), TRIPS)).flatten()
    })
}

fn celsius(node: &Path, plausible: RangeInclusive<f64>) -> Option<f64> {
    number_within(node, plausible).map(|thousandths| thousandths / 1000.0)
}

fn is_named(name: &str, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
}

/// Whether heat there slows the unit down: a hot CPU does not slow the GPU, but what both share does. A GPU that is not
/// on the chip shares nothing.
fn concerns(unit: Unit, on_chip: bool, name: &str) -> bool {
    let name = name.to_lowercase();
    let (cpu, gpu) = (name.contains("cpu"), name.contains("gpu"));
    match unit {
        Unit::Gpu(_) => gpu || (on_chip && !cpu),
        Unit::Cpu => cpu || !gpu,
    }
}
