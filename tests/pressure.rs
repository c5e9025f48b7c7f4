//! The whole program on a machine whose GPU is throttled: the watchdog hears of it, and of its end.

mod program;

use program::{Bench, SIMULATED};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// A GPU's clock and load as the kernel shows them, in the bench's folder, and a board that names them.
fn bench() -> Bench {
    let mut bench = Bench::new(&SIMULATED.replace("slope_ms = 1", "slope_ms = 8"));
    let (clock, load) = (bench.path("devfreq"), bench.path("load"));
    bench.text += &format!("[platform]\ngpu_clock = [{clock:?}]\ngpu_load = [{load:?}]\n");
    fs::create_dir(&clock).expect("a folder");
    fs::write(clock.join("cur_freq"), "306000000\n").expect("a node");
    fs::write(load, "500\n").expect("a node");
    allow(&bench, 1000);
    (0..5).fold(bench, |bench, _| bench.healthy())
}

/// The clock that the GPU may run at from now on, in MHz.
fn allow(bench: &Bench, mhz: u32) {
    // Whole at any instant, as the kernel's nodes are.
    let unfinished = bench.path("unfinished");
    fs::write(&unfinished, format!("{mhz}000000\n")).expect("a node");
    fs::rename(unfinished, bench.path("devfreq/max_freq")).expect("a node");
}

#[test]
fn a_throttled_gpu_withdraws_the_guarantee_and_moves_the_ladder_until_it_is_back() {
    let bench = bench();
    let ocelli = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("XDG_STATE_HOME", bench.dir.path());
        command
    };
    fs::create_dir(bench.path("ocelli")).expect("a folder");
    // With a profile that is kept there is a guarantee to withdraw.
    let mut profile = std::process::Command::new(env!("CARGO_BIN_EXE_ocelli"));
    ocelli(&[]); // Writes the board.
    profile.args(["profile", "test.toml", "--for", "0.1", "--output", "ocelli/test.profile.json"]);
    let profiled = profile.current_dir(bench.dir.path()).output().expect("the program starts");
    assert!(profiled.status.success(), "{}", String::from_utf8_lossy(&profiled.stderr));

    let arguments = ["--for", "60", "--results", "r.jsonl", "--summary", "s.json"];
    let child = ocelli(&arguments).spawn().expect("the program starts");
    bench.wait_for(&["\"s4\",\"sequence\":20"]);
    allow(&bench, 300);
    bench.wait_for(&[
        "\"type\":\"certificate\"",
        "\"holds\":false",
        "heat, power or other work takes 70 % away",
    ]);
    bench.wait_for(&["\"s4\"", "\"cause\":\"pressure: "]);
    allow(&bench, 1000);
    bench.wait_for(&["\"s4\"", "\"state\":\"full\"", "\"cause\":\"room: "]);
    let given = |text: &str| text.lines().filter(|line| line.contains("\"holds\":true")).count();
    let started = std::time::Instant::now();
    while given(&fs::read_to_string(bench.path("r.jsonl")).expect("results")) < 2 {
        assert!(started.elapsed() < program::HANG, "the guarantee is not given again");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let ran = bench.ended(child);
    ran.expect(0);
    assert_eq!(ran.summary["certificate"]["holds"], true, "{}", ran.summary["certificate"]);
    for words in ["of the accelerator's speed power 70 % is gone", "pressure: none any more", "clock 100 %"] {
        assert!(ran.log.contains(words), "{words}: {}", ran.log);
    }
    let telemetry = &ran.summary["telemetry"];
    assert_eq!(
        (&telemetry["clock_mhz"], &telemetry["clock_share"]),
        (&306.0.into(), &1.0.into()),
        "{telemetry}"
    );
    assert_eq!(
        (&telemetry["gpu_load"], &telemetry["pressure"]["power"]),
        (&0.5.into(), &0.0.into()),
        "{telemetry}"
    );
}

#[test]
fn a_sensor_that_hangs_costs_its_readings_and_no_frame() {
    let bench = bench();
    fs::remove_file(bench.path("load")).expect("a node");
    // Whoever opens it waits for a writer, who never comes.
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("load"), fifo, 0o600.into(), 0).expect("a pipe");
    let ran = bench.run("2");
    ran.expect(0).healthy(0).healthy(4);
    assert_eq!(ran.summary["stuck"], serde_json::json!(["(sensors)"]), "{}", ran.log);
    assert!(ran.summary["telemetry"].is_null(), "{}", ran.summary["telemetry"]);
}
