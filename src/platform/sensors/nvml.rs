//! A discrete GPU's sensors, through NVML, which is opened at run time.

use super::{Clock, Readings, Zone};
use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons as Reasons;
use nvml_wrapper::enum_wrappers::device::{Clock as Domain, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;

/// As drivers install it; the name without a number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Looks from one try to open it to the next: drivers load late in boot.
const TRY_EVERY: u32 = 30;
/// Load from which the clock is what the GPU may run at, in percent.
const BUSY: u32 = 50;

/// NVML, where there is one.
#[derive(Debug, Default)]
pub(super) struct Nvml {
    library: Option<nvml_wrapper::Nvml>,
    /// What it calls the GPU, where CUDA told.
    uuid: Option<String>,
    looks: u32,
    seen: Seen,
}

/// What was seen of the GPU before.
#[derive(Debug, Default)]
struct Seen {
    /// Its highest clock under load, in MHz, while nothing held it back.
    best: Option<u32>,
    /// Its limit on power at the first look, in milliwatts.
    limit: Option<u32>,
}

/// What NVML says of one GPU. Clocks in MHz, power in milliwatts, load in percent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gpu {
    celsius: Option<u32>,
    power: Option<u32>,
    limit: Option<u32>,
    load: Option<u32>,
    clock: Option<u32>,
    highest: Option<u32>,
    reasons: Option<Reasons>,
}

impl Nvml {
    /// Of the GPU with this UUID.
    pub(super) fn of(uuid: [u8; 16]) -> Self {
        Self { uuid: Some(name(uuid)), ..Self::default() }
    }

    /// Puts what it says of the GPU beside what sysfs says, which knows more of a Jetson. CUDA counts GPUs in an order
    /// of its own, so that `number` (in the order of the bus; of one alone whatever it is) is for want of a UUID.
    pub(super) fn look(&mut self, number: u16, readings: &mut Readings) {
        if self.library.is_none() {
            if self.looks.is_multiple_of(TRY_EVERY) {
                self.library = nvml_wrapper::Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().ok();
            }
            self.looks = self.looks.wrapping_add(1);
        }
        let Some(library) = &self.library else { return };
        let found = match self.uuid.as_deref().map(|uuid| library.device_by_uuid(uuid)) {
            Some(Err(why @ (NvmlError::NotFound | NvmlError::InvalidArg))) => {
                let uuid = self.uuid.take().unwrap_or_default();
                log::warn!(
                    "sensors: NVML does not know {uuid} ({why}): its GPU {number} in the order of the bus is read"
                );
                by_number(library, number)
            }
            Some(found) => found,
            None => by_number(library, number),
        };
        match found {
            Ok(device) => Gpu::of(&device).enter(&mut self.seen, readings),
            Err(NvmlError::GpuLost | NvmlError::DriverNotLoaded | NvmlError::Uninitialized) => {
                self.library = None;
            }
            Err(_) => {}
        }
    }
}

fn by_number(library: &nvml_wrapper::Nvml, number: u16) -> Result<Device<'_>, NvmlError> {
    let alone = library.device_count().is_ok_and(|count| count == 1);
    library.device_by_index(if alone { 0 } else { number.into() })
}

/// A UUID as NVML writes it.
fn name(uuid: [u8; 16]) -> String {
    let mut name = "GPU".to_owned();
    for (at, byte) in uuid.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&at) {
            name.push('-');
        }
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

impl Gpu {
    fn of(device: &Device<'_>) -> Self {
        Self {
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            power: device.power_usage().ok(),
            limit: device.enforced_power_limit().ok(),
            load: device.utilization_rates().ok().map(|rates| rates.gpu),
            clock: device.clock_info(Domain::SM).ok(),
            highest: device.max_clock_info(Domain::SM).ok(),
            reasons: device.current_throttle_reasons().ok(),
        }
    }

    fn enter(self, seen: &mut Seen, readings: &mut Readings) {
        let celsius = self.celsius.map(f64::from);
        if celsius.is_some_and(|gpu| readings.hottest.as_ref().is_none_or(|zone| zone.celsius < gpu)) {
            readings.hottest = celsius.map(|celsius| Zone { name: "gpu".to_owned(), celsius });
        }
        readings.power = readings.power.or(self.power.map(|power| f64::from(power) / 1e3));
        readings.gpu_load = readings.gpu_load.or(self.load.map(|load| f64::from(load) / 1e2));
        let reasons = self.reasons.unwrap_or(Reasons::NONE);
        let brake = reasons.contains(Reasons::HW_POWER_BRAKE_SLOWDOWN);
        // HW_SLOWDOWN by itself is no reason: it goes with both, and with a GPU that changes its clocks.
        let heat = reasons.intersects(Reasons::SW_THERMAL_SLOWDOWN | Reasons::HW_THERMAL_SLOWDOWN);
        // A GPU under full load keeps to its limit on power by its clock, and was measured so: only a limit that has
        // been lowered since takes something away.
        let capped = reasons.contains(Reasons::SW_POWER_CAP);
        let first = *seen.limit.get_or_insert(self.limit.unwrap_or(0));
        let lowered = capped && self.limit.is_some_and(|limit| limit < first);
        if heat {
            readings.heat.get_or_insert_with(|| format!("NVML: throttled for heat ({reasons:?})"));
        }
        if brake {
            readings.power_limit.get_or_insert_with(|| "NVML: the power brake is on".to_owned());
        } else if lowered {
            readings.power_limit.get_or_insert_with(|| "NVML: the limit on power was lowered".to_owned());
        }
        if readings.clock.allowed.is_some() {
            return;
        }
        // Without load a clock is low because nobody needs it, whatever holds it back; with it, maybe on its way up.
        let busy = self.load.is_some_and(|load| load >= BUSY);
        let held = heat || brake || lowered;
        if busy && !held {
            seen.best = seen.best.max(self.clock);
        }
        let allowed = if busy && held { self.clock } else { seen.best };
        let [now, allowed, highest] = [self.clock, allowed, self.highest].map(|clock| clock.map(f64::from));
        readings.clock = Clock { now, allowed, highest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(seen: &mut Seen, load: u32, clock: u32, reasons: Reasons) -> Readings {
        let gpu = Gpu {
            celsius: Some(61),
            power: Some(312_500),
            limit: Some(700_000),
            load: Some(load),
            clock: Some(clock),
            highest: Some(1980),
            reasons: Some(reasons),
        };
        let mut readings = Readings::default();
        gpu.enter(seen, &mut readings);
        readings
    }

    #[test]
    fn a_uuid_is_named_as_nvidia_smi_does() {
        let uuid =
            [0x5a, 0x0f, 0x00, 0xd1, 0x12, 0x34, 0xab, 0xcd, 0x0e, 0xf0, 0x01, 0x02, 0x03, 0x04, 0x05, 0xff];
        assert_eq!(name(uuid), "GPU-5a0f00d1-1234-abcd-0ef0-0102030405ff");
    }

    #[test]
    fn an_idle_gpus_low_clock_says_nothing() {
        let idle = enter(&mut Seen::default(), 0, 345, Reasons::GPU_IDLE);
        assert_eq!((idle.clock.now, idle.clock.allowed), (Some(345.0), None));
        assert_eq!((idle.heat, idle.power_limit), (None, None));
        assert_eq!((idle.power, idle.gpu_load), (Some(312.5), Some(0.0)));
        assert_eq!(idle.hottest.expect("a temperature").celsius, 61.0);
    }

    #[test]
    fn what_it_reaches_under_load_is_what_it_may_run_at() {
        let mut seen = Seen::default();
        assert_eq!(enter(&mut seen, 97, 1755, Reasons::NONE).clock.allowed, Some(1755.0));
        // On its way up, idle, and at its limit on power.
        for (load, clock, reasons) in
            [(60, 345, Reasons::NONE), (0, 345, Reasons::GPU_IDLE), (99, 1600, Reasons::SW_POWER_CAP)]
        {
            let later = enter(&mut seen, load, clock, reasons);
            assert_eq!((later.clock.allowed, later.heat, later.power_limit), (Some(1755.0), None, None));
        }
    }

    #[test]
    fn heat_and_the_power_brake_are_told_apart() {
        let slowed = Reasons::HW_SLOWDOWN;
        for (reasons, heat, brake) in [
            (Reasons::SW_THERMAL_SLOWDOWN, true, false),
            (slowed | Reasons::HW_THERMAL_SLOWDOWN, true, false),
            (slowed | Reasons::HW_POWER_BRAKE_SLOWDOWN, false, true),
            (slowed, false, false),
        ] {
            let told = enter(&mut Seen::default(), 90, 990, reasons);
            assert_eq!((told.heat.is_some(), told.power_limit.is_some()), (heat, brake), "{reasons:?}");
            assert_eq!(told.clock.allowed, Some(990.0), "{reasons:?}");
        }
    }

    #[test]
    fn an_idle_gpus_low_clock_is_no_loss_though_it_is_hot() {
        let mut seen = Seen::default();
        let hot = enter(&mut seen, 0, 345, Reasons::SW_THERMAL_SLOWDOWN);
        assert_eq!((hot.heat.is_some(), hot.clock.allowed), (true, None));
        enter(&mut seen, 97, 1755, Reasons::NONE);
        let hot = enter(&mut seen, 0, 345, Reasons::SW_THERMAL_SLOWDOWN);
        assert_eq!((hot.heat.is_some(), hot.clock.allowed), (true, Some(1755.0)));
        let hot = enter(&mut seen, 97, 1200, Reasons::SW_THERMAL_SLOWDOWN);
        assert_eq!(hot.clock.allowed, Some(1200.0));
    }

    #[test]
    fn a_limit_that_was_lowered_counts() {
        let mut seen = Seen { best: Some(1755), limit: Some(800_000) };
        let capped = enter(&mut seen, 99, 1200, Reasons::SW_POWER_CAP);
        assert_eq!((capped.clock.allowed, capped.power_limit.is_some()), (Some(1200.0), true));
    }

    #[test]
    fn what_sysfs_knows_stands() {
        let mut readings = Readings { power: Some(7.5), ..Readings::default() };
        readings.clock.allowed = Some(624.0);
        let gpu = Gpu { power: Some(1), clock: Some(1), ..Gpu::default() };
        gpu.enter(&mut Seen::default(), &mut readings);
        assert_eq!(
            (readings.power, readings.clock.allowed, readings.clock.now),
            (Some(7.5), Some(624.0), None)
        );
    }
}
