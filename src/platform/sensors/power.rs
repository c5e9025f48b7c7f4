//! Power rails (hwmon): what they draw, and whether that is limited.

use super::{Root, number, number_within, text};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/sys/class/hwmon";
/// Sensor whose rails count where the board names none.
const SENSOR: &str = "ina3221";
/// The rail that feeds a module with all others behind it.
const INPUT: &str = "VDD_IN";
/// The most channels of a sensor.
const MOST: usize = 8;
/// Millivolts and milliamperes that a rail can have; a sensor without current may read a little below zero.
const MILLIVOLTS: RangeInclusive<f64> = 0.0..=1e5;
const MILLIAMPERES: RangeInclusive<f64> = -1e4..=1e6;

/// One rail.
pub(super) struct Rail {
    name: String,
    watts: Option<f64>,
    /// Why it is limited, if it is.
    limited: Option<String>,
}

/// The rails with these labels; without names, all of the usual sensor.
pub(super) fn rails(root: &Root, names: &[String]) -> Vec<Rail> {
    let mut rails = Vec::new();
    for sensor in root.entries(FOLDER, "hwmon") {
        let usual = || text(&sensor.join("name")).is_some_and(|name| name.eq_ignore_ascii_case(SENSOR));
        if names.is_empty() && !usual() {
            continue;
        }
        for channel in 1..=MOST {
            let label = text(&sensor.join(format!("in{channel}_label")));
            let named = |label: &String| {
                names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(label))
            };
            rails.extend(label.filter(named).map(|name| rail(&sensor, channel, name)));
        }
    }
    rails
}

fn rail(sensor: &Path, channel: usize, name: String) -> Rail {
    let millivolts = number_within(&sensor.join(format!("in{channel}_input")), MILLIVOLTS);
    let current = |end: &str| sensor.join(format!("curr{channel}_{end}"));
    let milliamperes = number_within(&current("input"), MILLIAMPERES);
    let alarm = ["max_alarm", "crit_alarm"].into_iter().find(|alarm| number(&current(alarm)) == Some(1.0));
    let at_limit = || {
        let limit = number_within(&current("max"), 1.0..=f64::MAX)?;
        let now = milliamperes.filter(|now| *now >= limit)?;
        Some(format!("{name} draws {:.1} A of {:.1}", now / 1e3, limit / 1e3))
    };
    let limited = alarm.map(|alarm| format!("{name}: {alarm}")).or_else(at_limit);
    let watts = millivolts.zip(milliamperes).map(|(volts, amperes)| volts * amperes / 1e6);
    Rail { watts: watts.map(|watts| watts.max(0.0)), limited, name }
}

/// Watts of all together: the module's input where it is among them, which feeds the others.
pub(super) fn total(rails: &[Rail]) -> Option<f64> {
    let input = rails.iter().find(|rail| rail.name.eq_ignore_ascii_case(INPUT)).and_then(|rail| rail.watts);
    input.or_else(|| rails.iter().filter_map(|rail| rail.watts).reduce(|sum, watts| sum + watts))
}

/// Why one of them is limited.
pub(super) fn at_limit(rails: &[Rail]) -> Option<String> {
    rails.iter().find_map(|rail| rail.limited.clone())
}

/// Counters of the times that hardware slowed the module down because it drew too much, or its input fell.
pub(super) fn over_current_events(root: &Root) -> Vec<PathBuf> {
    let counters = |sensor: PathBuf| (1..=MOST).map(move |event| sensor.join(format!("oc{event}_event_cnt")));
    root.entries(FOLDER, "hwmon").into_iter().flat_map(counters).collect()
}
