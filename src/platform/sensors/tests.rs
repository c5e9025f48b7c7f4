use super::*;
use std::fs;

/// A made-up machine.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(nodes: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a folder"));
        machine.set(nodes);
        machine
    }

    fn set(&self, nodes: &[(&str, &str)]) {
        for (node, text) in nodes {
            let path = self.0.path().join(node);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a node");
        }
    }

    fn remove(&self, node: &str) {
        fs::remove_file(self.0.path().join(node)).expect("a node");
    }

    fn sensors(&self, unit: Option<Unit>, named: Platform) -> Sensors {
        Sensors::of(self.0.path(), named, unit)
    }

    /// With the nodes that `boards/orin-nano.toml` names.
    fn orin(&self) -> Sensors {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let named = Platform {
            thermal_zones: words(&["CPU-therm", "gpu-thermal", "tj-thermal"]),
            power_rails: words(&["vdd_in", "VDD_SOC"]),
            gpu_load: paths(&["/sys/devices/platform/gpu.0/load", "/sys/devices/gpu.0/load"]),
            gpu_clock: paths(&["/sys/class/devfreq/17000000.ga10b", "/sys/class/devfreq/17000000.gpu"]),
        };
        self.sensors(Some(Unit::Gpu(0)), named)
    }
}

const ZONE: &str = "sys/class/thermal/thermal_zone";
const GPU: &str = "sys/class/devfreq/17000000.gpu";
const HWMON: &str = "sys/class/hwmon/hwmon3";

/// A Jetson as its kernel shows it.
const ORIN: [(&str, &str); 22] = [
    ("sys/class/thermal/thermal_zone0/type", "cpu-therm\n"),
    ("sys/class/thermal/thermal_zone0/temp", "61500\n"),
    ("sys/class/thermal/thermal_zone1/type", "GPU-thermal\n"),
    ("sys/class/thermal/thermal_zone1/temp", "58250\n"),
    ("sys/class/thermal/thermal_zone1/trip_point_0_type", "active\n"),
    ("sys/class/thermal/thermal_zone1/trip_point_0_temp", "46000\n"),
    ("sys/class/thermal/thermal_zone1/trip_point_1_type", "passive\n"),
    ("sys/class/thermal/thermal_zone1/trip_point_1_temp", "99000\n"),
    ("sys/class/thermal/thermal_zone2/type", "pmic-die\n"),
    ("sys/class/thermal/thermal_zone2/temp", "90000\n"),
    ("sys/class/thermal/cooling_device4/type", "gpu-throttle-alert\n"),
    ("sys/class/thermal/cooling_device4/cur_state", "0\n"),
    ("sys/class/devfreq/17000000.gpu/cur_freq", "306000000\n"),
    ("sys/class/devfreq/17000000.gpu/max_freq", "624750000\n"),
    ("sys/class/devfreq/17000000.gpu/available_frequencies", "306000000 408000000 624750000 918000000 \n"),
    ("sys/devices/gpu.0/load", "437\n"),
    ("sys/class/hwmon/hwmon3/name", "ina3221\n"),
    ("sys/class/hwmon/hwmon3/in1_label", "VDD_IN\n"),
    ("sys/class/hwmon/hwmon3/in1_input", "5000\n"),
    ("sys/class/hwmon/hwmon3/curr1_input", "1500\n"),
    ("sys/class/hwmon/hwmon3/curr1_max", "4000\n"),
    ("sys/class/hwmon/hwmon3/oc1_event_cnt", "7\n"),
];

#[test]
fn a_jetson_tells_everything() {
    let readings = Machine::new(&ORIN).orin().look();
    let hottest = Zone { name: "cpu-therm".to_owned(), celsius: 61.5 };
    let clock = Clock { now: Some(306.0), allowed: Some(624.75), highest: Some(918.0) };
    assert_eq!(
        readings,
        Readings {
            hottest: Some(hottest),
            clock,
            gpu_load: Some(0.437),
            power: Some(7.5),
            ..Readings::default()
        }
    );
}

#[test]
fn a_machine_without_sensors_tells_nothing() {
    for unit in [None, Some(Unit::Cpu), Some(Unit::Gpu(0))] {
        let mut sensors = Machine::new(&[]).sensors(unit, Platform::default());
        assert_eq!(sensors.look(), Readings::default());
    }
}

#[test]
fn garbage_and_missing_nodes_cost_their_own_reading_only() {
    let whole = Machine::new(&ORIN).orin().look();
    for (node, _) in ORIN {
        for garbage in ["", "\n", "none", "nan", "inf", "-256000", "9e99", "\u{0}", "99 and more"] {
            let machine = Machine::new(&ORIN);
            machine.set(&[(node, garbage)]);
            let garbled = machine.orin().look();
            let alike = [
                garbled.hottest == whole.hottest,
                garbled.clock.now == whole.clock.now,
                garbled.clock.allowed == whole.clock.allowed,
                garbled.clock.highest == whole.clock.highest,
                garbled.gpu_load == whole.gpu_load,
                garbled.power == whole.power,
            ];
            assert!(alike.iter().filter(|alike| !**alike).count() <= 1, "{node} {garbage:?}: {garbled:?}");
            assert_eq!((&garbled.heat, &garbled.power_limit), (&None, &None), "{node} {garbage:?}");
        }
        // As a node that is there and can't be read.
        let machine = Machine::new(&ORIN);
        machine.remove(node);
        fs::create_dir(machine.0.path().join(node)).expect("a folder");
        let _ = machine.orin().look();
    }
}

#[test]
fn nodes_come_late_and_vanish() {
    let machine = Machine::new(&[]);
    let mut sensors = machine.orin();
    assert_eq!(sensors.look(), Readings::default());
    machine.set(&ORIN);
    let whole = sensors.look();
    assert_eq!(whole.clock.allowed, Some(624.75));
    machine.remove(&format!("{ZONE}0/temp"));
    machine.remove(&format!("{GPU}/cur_freq"));
    let less = sensors.look();
    assert_eq!((less.hottest.expect("the GPU's").celsius, less.clock.now), (58.25, None));
    assert_eq!(less.clock.allowed, whole.clock.allowed);
}

#[test]
fn heat_is_what_the_kernel_or_a_trip_point_says() {
    let machine = Machine::new(&ORIN);
    let mut sensors = machine.orin();
    let temp = format!("{ZONE}1/temp");
    machine.set(&[(&temp, "98999")]);
    assert_eq!(sensors.look().heat, None);
    machine.set(&[(&temp, "99000")]);
    assert_eq!(sensors.look().heat.as_deref(), Some("GPU-thermal is at 99.0 °C, trip point 99.0"));
    machine.set(&[(&temp, "60000"), ("sys/class/thermal/cooling_device4/cur_state", "1")]);
    assert_eq!(sensors.look().heat.as_deref(), Some("gpu-throttle-alert"));
    // A CPU's throttling is nothing to a GPU, nor is the GPU's to a CPU.
    machine.set(&[("sys/class/thermal/cooling_device4/type", "cpu-throttle-alert")]);
    assert_eq!(sensors.look().heat, None);
    assert!(machine.sensors(Some(Unit::Cpu), Platform::default()).look().heat.is_some());
    assert_eq!(machine.sensors(None, Platform::default()).look().heat, None);
}

#[test]
fn the_processors_heat_is_not_that_of_a_gpu_on_a_card() {
    let machine = Machine::new(&[
        (&format!("{ZONE}0/type"), "x86_pkg_temp"),
        (&format!("{ZONE}0/temp"), "101000"),
        (&format!("{ZONE}0/trip_point_0_type"), "passive"),
        (&format!("{ZONE}0/trip_point_0_temp"), "95000"),
        ("sys/class/thermal/cooling_device0/type", "soc-throttle-alert"),
        ("sys/class/thermal/cooling_device0/cur_state", "1"),
    ]);
    let look = |unit| machine.sensors(Some(unit), Platform::default()).look();
    assert_eq!(look(Unit::Gpu(0)).heat, None);
    assert_eq!(look(Unit::Gpu(0)).hottest.expect("it is told").celsius, 101.0);
    assert!(look(Unit::Cpu).heat.is_some());
    // What the processors share with a GPU that is beside them on the chip slows both.
    machine.set(&[(&format!("{GPU}/cur_freq"), "306000000")]);
    assert_eq!(look(Unit::Gpu(0)).heat.as_deref(), Some("soc-throttle-alert"));
}

#[test]
fn trip_points_that_firmware_left_empty_and_strangers_are_no_heat() {
    let machine = Machine::new(&[
        ("sys/class/thermal/thermal_zone0/type", "acpitz"),
        ("sys/class/thermal/thermal_zone0/temp", "27800"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "0"),
        ("sys/class/thermal/thermal_zone1/type", "iwlwifi_1"),
        ("sys/class/thermal/thermal_zone1/temp", "60000"),
        ("sys/class/thermal/thermal_zone1/trip_point_0_type", "passive"),
        ("sys/class/thermal/thermal_zone1/trip_point_0_temp", "50000"),
    ]);
    let readings = machine.sensors(Some(Unit::Cpu), Platform::default()).look();
    assert_eq!((readings.heat, readings.hottest.expect("a zone").name.as_str()), (None, "iwlwifi_1"));
}

#[test]
fn limits_on_power_are_counted_events_alarms_and_currents() {
    let machine = Machine::new(&ORIN);
    let mut sensors = machine.orin();
    let node = |node: &str| format!("{HWMON}/{node}");
    assert_eq!(sensors.look().power_limit, None, "what was counted before the start");
    machine.set(&[(&node("oc1_event_cnt"), "9"), (&node("oc2_event_cnt"), "5")]);
    assert_eq!(sensors.look().power_limit.as_deref(), Some("oc1_event_cnt has risen to 9"));
    assert_eq!(sensors.look().power_limit, None);
    machine.set(&[(&node("curr1_input"), "4000")]);
    assert_eq!(sensors.look().power_limit.as_deref(), Some("VDD_IN draws 4.0 A of 4.0"));
    machine.set(&[(&node("curr1_input"), "1000"), (&node("curr1_crit_alarm"), "1")]);
    assert_eq!(sensors.look().power_limit.as_deref(), Some("VDD_IN: crit_alarm"));
}

#[test]
fn rails_add_up_where_none_feeds_the_others() {
    let machine = Machine::new(&ORIN);
    let node = |node: &str| format!("{HWMON}/{node}");
    machine.set(&[
        (&node("in2_label"), "VDD_SOC"),
        (&node("in2_input"), "5000"),
        (&node("curr2_input"), "500"),
    ]);
    assert_eq!(machine.orin().look().power, Some(7.5));
    machine.set(&[(&node("in1_label"), "VDD_GPU")]);
    assert_eq!(machine.orin().look().power, Some(2.5), "a rail that the board does not name");
    let all = machine.sensors(None, Platform::default()).look().power;
    assert_eq!(all, Some(10.0));
}

#[test]
fn the_processors_clocks_are_averaged_and_their_throttling_counted() {
    let machine = Machine::new(&[
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "3000000"),
        ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3000000"),
        ("sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq", "2000000"),
        ("sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "3000000"),
        ("sys/devices/system/cpu/cpuidle/cpufreq/scaling_max_freq", "1"),
        ("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "4"),
    ]);
    let mut sensors = machine.sensors(Some(Unit::Cpu), Platform::default());
    let readings = sensors.look();
    assert_eq!(readings.clock, Clock { now: None, allowed: Some(2500.0), highest: Some(3000.0) });
    assert_eq!(readings.heat, None);
    machine.set(&[("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "5")]);
    assert_eq!(sensors.look().heat.as_deref(), Some("core_throttle_count has risen to 5"));
}

#[test]
fn stolen_time_is_a_share_of_the_last_looks() {
    let machine = Machine::new(&[]);
    let mut sensors = machine.sensors(Some(Unit::Cpu), Platform::default());
    let mut look = |tick: u64, stolen: u64| {
        let stat = format!("cpu  {} 0 0 {} 0 0 0 {stolen} 0 0\ncpu0 1 2 3\n", 60 * tick, 140 * tick - stolen);
        machine.set(&[("proc/stat", &stat)]);
        sensors.look().steal
    };
    assert!((0..5).all(|tick| look(tick, 0).is_none()), "one second says nothing");
    assert_eq!(look(5, 0), Some(0.0));
    assert_eq!(look(6, 100), Some(0.1));
    assert_eq!(look(7, 600), Some(0.6));
    assert!((8..11).all(|tick| look(tick, 600) == Some(0.6)));
    assert_eq!(look(11, 600), Some(0.5));
    assert_eq!(look(12, 600), Some(0.0), "what was stolen earlier is forgotten");
    // Counters that went back, and lines of another form.
    assert_eq!(look(13, 0), None);
    for garbage in ["", "cpu", "cpu  1 2 3", "intr 5", "cpu  -1 2 3 4 5 6 7 8"] {
        machine.set(&[("proc/stat", garbage)]);
        assert_eq!(sensors.look().steal, None, "{garbage:?}");
    }
}
