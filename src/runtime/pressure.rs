//! What readings of the sensors mean for the accelerator: which share of its speed is gone, or about to go.
//!
//! **Heat** counts while the device or the kernel says that it throttles, or a zone is at its trip point; a low clock by
//! itself says nothing, for an idle unit has one too. What is lost is the clock that the unit may run at, against the
//! highest that it was allowed while nothing held it back (not the highest there is: a power mode may forbid that, and
//! service times were measured in it). **Power**: the same while a limit on power is reported, or where the allowed
//! clock falls for no reason that is told, as when somebody lowers the power mode. An alert without a measurable loss
//! counts one [`STEP`]: more is about to come, and what alerts cost meanwhile shows in the batches' times. **Stolen
//! time** counts where the processor does the inference, beyond what a shared machine always has.
//!
//! Pressure withdraws the guarantee and moves the ladder, so it must not flutter: it has steps, rises at once and falls
//! only after [`HOLD`].

use crate::platform::sensors::{Readings, Unit};
use crate::time::Instant;
use crate::watchdog::Pressure;
use std::time::Duration;

/// Pressure is told in steps of this.
const STEP: f64 = 0.05;
/// How long a lower pressure must last to be believed.
pub(super) const HOLD: Duration = Duration::from_secs(5);
/// Stolen time up to this is daily life on a shared machine, on which service times were measured too.
const STEAL_FLOOR: f64 = 0.1;

/// The policy. Readings go in, pressure comes out.
#[derive(Debug)]
pub(super) struct Gauge {
    unit: Option<Unit>,
    /// The highest clock that was allowed while nothing held it back, in MHz.
    usual: Option<f64>,
    /// The share of it that is allowed now.
    share: Option<f64>,
    /// There was heat, and the clock is not back yet.
    hot: bool,
    thermal: Steady,
    power: Steady,
    cpu_steal: Steady,
}

impl Gauge {
    /// For what does the inference.
    pub(super) fn new(unit: Option<Unit>) -> Self {
        let [thermal, power, cpu_steal] = [Steady::default(); 3];
        Self { unit, usual: None, share: None, hot: false, thermal, power, cpu_steal }
    }

    /// What these readings mean.
    pub(super) fn read(&mut self, now: Instant, readings: &Readings) -> Pressure {
        let (heat, limit) = (readings.heat.is_some(), readings.power_limit.is_some());
        let lost = self.lost(readings, heat || limit);
        self.hot = heat || (self.hot && lost > 0.0);
        let alert = |on: bool| if on { STEP } else { 0.0 };
        let (thermal, power) =
            if self.hot { (lost.max(alert(heat)), alert(limit)) } else { (0.0, lost.max(alert(limit))) };
        let steal = readings.steal.filter(|steal| self.unit == Some(Unit::Cpu) && *steal > STEAL_FLOOR);
        Pressure {
            thermal: self.thermal.follow(now, thermal),
            power: self.power.follow(now, power),
            cpu_steal: self.cpu_steal.follow(now, steal.unwrap_or(0.0)),
        }
    }

    /// The share of the usual clock that is allowed now; `None`: nobody tells.
    pub(super) fn clock_share(&self) -> Option<f64> {
        self.share
    }

    fn lost(&mut self, readings: &Readings, held: bool) -> f64 {
        let clock = &readings.clock;
        if !held && let Some(allowed) = clock.allowed {
            self.usual = Some(self.usual.map_or(allowed, |usual| usual.max(allowed)));
        }
        // A run that begins throttled does not know its power mode's clock.
        let usual = self.usual.or(clock.highest);
        self.share = clock.allowed.zip(usual).map(|(allowed, usual)| (allowed / usual).min(1.0));
        steps(1.0 - self.share.unwrap_or(1.0))
    }
}

/// The nearest number of whole steps.
fn steps(lost: f64) -> f64 {
    (lost.clamp(0.0, 1.0) / STEP).round() * STEP
}

/// Follows a value up at once, and down after [`HOLD`], to the most that was seen meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    value: f64,
    /// Since when it is lower, and the most since.
    lower: Option<(Instant, f64)>,
}

impl Steady {
    fn follow(&mut self, now: Instant, seen: f64) -> f64 {
        let seen = steps(seen);
        if seen >= self.value {
            (self.value, self.lower) = (seen, None);
            return self.value;
        }
        let (since, most) = self.lower.map_or((now, seen), |(since, most)| (since, most.max(seen)));
        self.lower = Some((since, most));
        if now.since(since) >= HOLD {
            (self.value, self.lower) = (most, None);
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::sensors::Clock;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_secs(seconds)
    }

    fn allowed(mhz: f64) -> Readings {
        let clock = Clock { now: Some(306.0), allowed: Some(mhz), highest: Some(1000.0) };
        Readings { clock, ..Readings::default() }
    }

    fn hot(mhz: f64) -> Readings {
        Readings { heat: Some("gpu-thermal".to_owned()), ..allowed(mhz) }
    }

    fn limited(mhz: f64) -> Readings {
        Readings { power_limit: Some("VDD_IN".to_owned()), ..allowed(mhz) }
    }

    fn stolen(steal: f64) -> Readings {
        Readings { steal: Some(steal), ..Readings::default() }
    }

    /// Thermal and power, in percent.
    fn percent(pressure: Pressure) -> (f64, f64) {
        ((pressure.thermal * 100.0).round(), (pressure.power * 100.0).round())
    }

    fn gauge() -> Gauge {
        Gauge::new(Some(Unit::Gpu(0)))
    }

    #[test]
    fn a_low_clock_is_no_pressure() {
        let mut gauge = gauge();
        for second in 0..20 {
            // The governor's clock is a third of the allowed one, which is below the highest by the power mode.
            assert_eq!(gauge.read(at(second), &allowed(600.0)), Pressure::default());
        }
        assert_eq!(gauge.clock_share(), Some(1.0));
        assert_eq!(gauge.read(at(20), &Readings::default()), Pressure::default());
        assert_eq!(gauge.clock_share(), None);
    }

    #[test]
    fn heat_is_what_the_clock_lost_and_lasts_until_it_is_back() {
        let mut gauge = gauge();
        gauge.read(at(0), &allowed(600.0));
        assert_eq!(percent(gauge.read(at(1), &hot(600.0))), (5.0, 0.0), "about to come");
        assert_eq!(percent(gauge.read(at(2), &hot(450.0))), (25.0, 0.0));
        // The alert ends first, then the kernel gives the clock back.
        assert_eq!(percent(gauge.read(at(3), &allowed(540.0))), (25.0, 0.0), "held");
        assert_eq!(percent(gauge.read(at(8), &allowed(540.0))), (10.0, 0.0), "heat, not power");
        assert_eq!(percent(gauge.read(at(9), &allowed(600.0))), (10.0, 0.0));
        assert_eq!(percent(gauge.read(at(14), &allowed(600.0))), (0.0, 0.0));
        assert_eq!(percent(gauge.read(at(15), &allowed(540.0))), (0.0, 10.0), "now nobody says heat");
    }

    #[test]
    fn a_run_that_begins_throttled_takes_the_highest_clock_for_the_usual_one() {
        let mut gauge = gauge();
        assert_eq!(percent(gauge.read(at(0), &hot(400.0))), (60.0, 0.0));
        gauge.read(at(1), &allowed(600.0));
        assert_eq!(percent(gauge.read(at(6), &allowed(600.0))), (0.0, 0.0));
        assert_eq!(percent(gauge.read(at(7), &hot(450.0))), (25.0, 0.0));
    }

    #[test]
    fn power_is_an_alert_or_a_clock_that_fell_for_no_told_reason() {
        let mut gauge = gauge();
        gauge.read(at(0), &allowed(600.0));
        assert_eq!(percent(gauge.read(at(1), &limited(600.0))), (0.0, 5.0));
        assert_eq!(percent(gauge.read(at(2), &limited(300.0))), (0.0, 50.0));
        let mut lowered = self::gauge();
        lowered.read(at(0), &allowed(600.0));
        assert_eq!(percent(lowered.read(at(1), &allowed(480.0))), (0.0, 20.0));
        // Both at once: each is its own.
        let both = Readings { power_limit: Some("VDD_IN".to_owned()), ..hot(480.0) };
        assert_eq!(percent(lowered.read(at(2), &both)), (20.0, 20.0), "power is still held");
        assert_eq!(percent(lowered.read(at(6), &both)), (20.0, 20.0));
        assert_eq!(percent(lowered.read(at(7), &both)), (20.0, 5.0));
    }

    #[test]
    fn less_than_half_a_step_is_nothing_and_noise_moves_nothing() {
        let mut gauge = gauge();
        gauge.read(at(0), &allowed(600.0));
        assert_eq!(percent(gauge.read(at(1), &allowed(586.0))), (0.0, 0.0));
        // Around the border of two steps.
        let seen: Vec<f64> = (2..40)
            .map(|second| {
                let mhz = if second % 3 == 0 { 524.0 } else { 526.0 };
                percent(gauge.read(at(second), &allowed(mhz))).1
            })
            .collect();
        assert_eq!((seen[0], &seen[1..]), (10.0, &[15.0; 37][..]));
    }

    #[test]
    fn stolen_time_counts_for_a_processor_and_beyond_daily_life() {
        let mut gauge = Gauge::new(Some(Unit::Cpu));
        assert_eq!(gauge.read(at(0), &stolen(0.1)).cpu_steal, 0.0);
        assert!((gauge.read(at(1), &stolen(0.31)).cpu_steal - 0.3).abs() < 1e-9);
        for unit in [None, Some(Unit::Gpu(0))] {
            assert_eq!(Gauge::new(unit).read(at(0), &stolen(0.9)), Pressure::default());
        }
    }
}
