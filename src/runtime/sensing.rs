//! The thread that looks at the machine's sensors once a second and tells exec of pressure when it changes.
//!
//! Ordinary scheduling: it may block, in NVML for tens of milliseconds. Should it hang or die, the frames still flow,
//! and its readings grow old.

use crate::platform::sensors::{Readings, Sensors, Zone};
use crate::platform::{Waker, clock};
use crate::ring::Sender;
use crate::runtime::pressure::Gauge;
use crate::runtime::thread;
use crate::time::Instant;
use crate::watchdog::Pressure;
use serde_json::{Value, json};
use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pressures on their way to exec (one less than this).
pub(super) const CHANGES: usize = 4;
/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);

/// What was sensed last.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensed {
    /// When.
    pub at: Instant,
    /// What the sensors said.
    pub readings: Readings,
    /// Share of the accelerator's usual clock that it may run at.
    pub clock_share: Option<f64>,
    /// What the watchdog was told.
    pub pressure: Pressure,
}

/// The latest of it, between this thread and the one that shows it: never one that handles frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest(Arc<Mutex<Option<Sensed>>>);

impl Latest {
    pub(super) fn get(&self) -> Option<Sensed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, sensed: Sensed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sensed);
    }
}

/// The running thread.
pub(super) struct Sensing {
    pub(super) thread: JoinHandle<()>,
    pub(super) latest: Latest,
    /// It ends when this is dropped.
    stop: mpsc::Sender<()>,
}

impl Sensing {
    /// Starts it.
    pub(super) fn start(sensors: Sensors, changes: Sender<Pressure>, exec: Waker) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let latest = Latest::default();
        let looking =
            Looking { gauge: Gauge::new(sensors.unit()), sensors, changes, exec, latest: latest.clone() };
        Ok(Self { thread: thread("sensors", move || looking.run(&stopped))?, latest, stop })
    }

    /// Asks it to end.
    pub(super) fn end(self) -> (JoinHandle<()>, Latest) {
        drop(self.stop);
        (self.thread, self.latest)
    }
}

struct Looking {
    sensors: Sensors,
    gauge: Gauge,
    changes: Sender<Pressure>,
    exec: Waker,
    latest: Latest,
}

impl Looking {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut told = Pressure::default();
        loop {
            let readings = self.sensors.look();
            let at = clock::now();
            let pressure = self.gauge.read(at, &readings);
            if pressure != told && self.changes.enqueue(pressure).is_ok() {
                self.exec.wake();
                told = pressure;
                tell(pressure, &readings);
            }
            let clock_share = self.gauge.clock_share();
            self.latest.set(Sensed { at, readings, clock_share, pressure: told });
            if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

/// Says in the log what the watchdog was told.
fn tell(pressure: Pressure, readings: &Readings) {
    if pressure == Pressure::default() {
        log::info!("pressure: none any more");
        return;
    }
    let shares =
        [("heat", pressure.thermal), ("power", pressure.power), ("other machines", pressure.cpu_steal)];
    let shares = shares.iter().filter(|(_, share)| *share > 0.0);
    let shares: Vec<String> = shares.map(|(what, share)| format!("{what} {:.0} %", share * 100.0)).collect();
    let why: Vec<&str> =
        [&readings.heat, &readings.power_limit].into_iter().flatten().map(String::as_str).collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) };
    log::warn!("pressure: of the accelerator's speed {} is gone, or about to go{why}", shares.join(", "));
}

impl Sensed {
    /// As the summary has it, at its end.
    pub(super) fn to_json(&self, now: Instant) -> Value {
        let Readings { hottest, clock, gpu_load, power, steal, .. } = &self.readings;
        json!({
            "age_us": super::summary::micros(now.since(self.at)),
            "hottest_zone": hottest.as_ref().map(|Zone { name, celsius }| json!({
                "name": name,
                "celsius": rounded(*celsius),
            })),
            "clock_mhz": clock.now.map(rounded),
            "clock_share": self.clock_share.map(rounded),
            "power_w": power.map(rounded),
            "gpu_load": gpu_load.map(rounded),
            "cpu_steal": steal.map(rounded),
            "pressure": {
                "thermal": rounded(self.pressure.thermal),
                "power": rounded(self.pressure.power),
                "cpu_steal": rounded(self.pressure.cpu_steal),
            },
        })
    }
}

/// What is known, for people; nothing where nothing is.
impl fmt::Display for Sensed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Readings { hottest, gpu_load, power, .. } = &self.readings;
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let pressure = self.pressure;
        let pressure = [pressure.thermal, pressure.power, pressure.cpu_steal].into_iter().reduce(f64::max);
        let parts = [
            hottest.as_ref().map(|zone| format!("{:.0} °C", zone.celsius)),
            self.clock_share.map(|share| format!("clock {}", percent(share))),
            power.map(|watts| format!("{watts:.1} W")),
            gpu_load.map(|load| format!("gpu {}", percent(load))),
            pressure
                .filter(|pressure| *pressure > 0.0)
                .map(|pressure| format!("PRESSURE {}", percent(pressure))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join("  "))
    }
}

fn rounded(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_null_and_not_shown() {
        let (at, pressure) = (Instant::from_nanos(1_000), Pressure::default());
        let mut sensed = Sensed { at, readings: Readings::default(), clock_share: None, pressure };
        assert_eq!(sensed.to_string(), "");
        let told = sensed.to_json(Instant::from_nanos(3_000));
        assert_eq!(told["age_us"], 2);
        for key in ["hottest_zone", "clock_mhz", "clock_share", "power_w", "gpu_load", "cpu_steal"] {
            assert!(told.get(key).is_some_and(Value::is_null), "{key}");
        }
        sensed.readings.hottest = Some(Zone { name: "tj-thermal".to_owned(), celsius: 71.25 });
        sensed.readings.power = Some(14.25);
        (sensed.clock_share, sensed.pressure.power) = (Some(0.8), 0.2);
        assert_eq!(sensed.to_string(), "71 °C  clock 80 %  14.2 W  PRESSURE 20 %");
        assert_eq!(sensed.to_json(at)["hottest_zone"]["celsius"], 71.25);
    }
}
