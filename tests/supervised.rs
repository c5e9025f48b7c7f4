//! The whole program and what stands around it: the service manager, the last ledger, and what the system refuses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// A board of two synthetic cameras under test, in a folder of its own.
struct Bench(TempDir);

impl Bench {
    /// With these tables at its end.
    fn new(tables: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.write("test.toml", tables);
        bench
    }

    fn write(&self, name: &str, tables: &str) {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.toml");
        let stream = |id: &str| {
            format!(
                "[[streams]]\nid = \"{id}\"\nsource = {{ type = \"synthetic\" }}\nperiod_ms = 50\nsize = [64, 48]\n\
                 format = \"I420\"\nlatency_bound_ms = 1000\nmodel = \"person\"\n"
            )
        };
        let text = format!(
            "config_version = 1\n[accelerator]\nbackend = \"simulated\"\nmax_batch = 4\nintercept_ms = 1\n\
             slope_ms = 1\n[models.person]\nmanifest = {manifest:?}\n{}{}{tables}",
            stream("front"),
            stream("rear"),
        );
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        command.arg("run").arg(self.path("test.toml")).args(arguments);
        self.here(&mut command);
        command
    }

    fn here(&self, command: &mut Command) {
        command.current_dir(self.0.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].iter().for_each(|name| {
            command.env_remove(name);
        });
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        end(self.command(arguments).spawn().unwrap())
    }

    /// Runs for a second, and reads its summary.
    fn summary(&self) -> (Value, String) {
        let (code, log) = self.run(&["--for", "1", "--summary", "s.json"]);
        assert_eq!(code, Some(0), "{log}");
        (serde_json::from_str(&fs::read_to_string(self.path("s.json")).unwrap()).unwrap(), log)
    }
}

/// A program's exit code and what it said; one that hangs fails the test.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut errors = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        said
    });
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > HANG {
            let _ = child.kill();
            panic!("it hangs: {}", said.join().unwrap());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let said = said.join().unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (child.wait().unwrap().code(), said)
}

const KEPT: &str = "[supervision]\nstate_dir = \"state\"\n";

/// The newest word in the last ledger, as text.
fn word(bench: &Bench) -> String {
    let text = fs::read_to_string(bench.path("state/test.ledger")).unwrap_or_default();
    let words = text.lines().filter(|line| line.starts_with('{'));
    words.max_by_key(|word| said_at(word)).unwrap_or_default().to_owned()
}

/// When it was said, on the monotonic clock.
fn said_at(word: &str) -> Option<u64> {
    serde_json::from_str::<Value>(word.trim()).ok()?["said"]["monotonic_ns"].as_u64()
}

fn captured(word: &str) -> u64 {
    let word: Value = serde_json::from_str(word.trim()).unwrap_or_default();
    word["streams"][1]["captured"].as_u64().unwrap_or(0)
}

/// A run that is killed once its last ledger knows of 20 frames a stream, and what the ledger knew then.
fn killed(bench: &Bench) -> u64 {
    let mut child = bench.command(&[]).spawn().unwrap();
    let started = Instant::now();
    while captured(&word(bench)) < 20 {
        assert!(started.elapsed() < HANG && child.try_wait().unwrap().is_none(), "no word");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed");
    captured(&word(bench))
}

#[test]
fn after_a_kill_the_next_start_tells_of_the_frames_and_names_the_gap() {
    let bench = Bench::new(KEPT);
    let before = killed(&bench);
    let (summary, log) = bench.summary();
    let previous = &summary["before"]["previous_run"];
    assert_eq!(previous["ended"], "killed", "{summary}");
    let gap = previous["gap_us"].as_u64().unwrap();
    assert!(gap < HANG.as_micros() as u64, "{previous}");
    for stream in previous["streams"].as_array().unwrap() {
        let count = |key: &str| stream[key].as_u64().unwrap();
        let dropped: u64 = stream["dropped"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(
            count("captured"),
            count("met") + count("late") + dropped + count("in_flight"),
            "{stream}"
        );
    }
    assert_eq!(previous["streams"][1]["captured"], before);
    for words in
        ["was killed, or crashed", "nobody knows", "the run before: front: captured", "the run before: rear"]
    {
        assert!(log.contains(words), "{words}: {log}");
    }
    // That run ended in order; the one after it says so, in one line.
    let (summary, log) = bench.summary();
    let previous = &summary["before"]["previous_run"];
    assert_eq!((&previous["ended"], &previous["why"]), (&"stopped".into(), &"time is up".into()));
    assert_eq!(previous["total"]["in_flight"], 0);
    assert!(log.contains("ended in order (time is up)") && !log.contains("the run before: front"), "{log}");
}

#[test]
fn the_last_ledger_is_said_anew_within_a_second() {
    let bench = Bench::new(KEPT);
    let child = bench.command(&["--for", "5"]).spawn().unwrap();
    let started = Instant::now();
    let mut said = std::collections::BTreeSet::new();
    while captured(&word(&bench)) < 70 {
        assert!(started.elapsed() < HANG, "no words");
        said.extend(said_at(&word(&bench)));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(end(child).0, Some(0));
    let said: Vec<u64> = said.into_iter().collect();
    let mut apart: Vec<u64> = said.windows(2).map(|pair| pair[1] - pair[0]).collect();
    apart.sort_unstable();
    // A busy machine may hold up one of them.
    assert!(apart.len() >= 3 && apart[apart.len() / 2] < 1_000_000_000, "{apart:?}");
}

#[test]
fn a_damaged_ledger_does_not_stop_the_start() {
    let bench = Bench::new(KEPT);
    fs::create_dir(bench.path("state")).unwrap();
    fs::write(bench.path("state/test.ledger"), [0xee; 9000]).unwrap();
    let (summary, log) = bench.summary();
    assert_eq!(summary["before"]["previous_run"]["ended"], "unknown");
    assert!(log.contains("both of its generations are damaged"), "{log}");
    assert_eq!(bench.summary().0["before"]["previous_run"]["ended"], "stopped");
}

#[test]
fn without_a_place_for_the_ledger_there_is_no_start() {
    let bench = Bench::new(KEPT);
    fs::write(bench.path("state"), "a file").unwrap();
    let (code, log) = bench.run(&["--for", "1"]);
    assert_eq!(code, Some(73), "{log}");
    assert!(log.contains("supervision.state_dir: ") && log.contains("take state_dir out"), "{log}");
    // A service sees its cameras all the same.
    let (heard, log) = listen(&bench, "4000000", &["--for", "2", "--summary", "s.json"]);
    assert!(heard.iter().any(|word| word == "READY=1"), "{heard:?}\n{log}");
    assert!(log.contains("take state_dir out") && log.contains("goes on without it"), "{log}");
    let summary: Value = serde_json::from_str(&fs::read_to_string(bench.path("s.json")).unwrap()).unwrap();
    assert!(summary["total"]["met"].as_u64() > Some(20), "{summary}");
    // Two runs of one board at a time.
    fs::remove_file(bench.path("state")).unwrap();
    let mut first = bench.command(&[]).spawn().unwrap();
    let started = Instant::now();
    while word(&bench).is_empty() {
        assert!(started.elapsed() < HANG, "no word");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let (code, log) = bench.run(&["--for", "1"]);
    assert_eq!(code, Some(73), "{log}");
    assert!(log.contains("another run of this board"), "{log}");
    first.kill().unwrap();
    first.wait().unwrap();
}

/// Words to a service manager that listens at this socket, until the run ends.
fn listen(bench: &Bench, watchdog: &str, arguments: &[&str]) -> (Vec<String>, String) {
    let path = bench.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut command = bench.command(arguments);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog);
    let mut child = command.spawn().unwrap();
    let (mut heard, mut bytes) = (Vec::new(), [0; 1024]);
    let started = Instant::now();
    loop {
        let ended = child.try_wait().unwrap().is_some();
        while let Ok(length) = manager.recv(&mut bytes) {
            heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        if ended {
            return (heard, end(child).1);
        }
        assert!(started.elapsed() < HANG, "it hangs");
    }
}

#[test]
fn the_service_manager_hears_of_every_stage() {
    let bench = Bench::new("");
    let (heard, log) = listen(&bench, "4000000", &["--for", "7"]);
    let at = |word: &str| {
        heard
            .iter()
            .position(|heard| heard.starts_with(word))
            .unwrap_or_else(|| panic!("{word}: {heard:?}\n{log}"))
    };
    let ready = at("READY=1");
    assert!(at("EXTEND_TIMEOUT_USEC=") < ready, "while it measures: {heard:?}");
    assert!(ready < at("WATCHDOG=1") && ready < at("STATUS=test"), "{heard:?}");
    let stopping = at("STOPPING=1");
    assert_eq!(heard.iter().filter(|word| *word == "READY=1").count(), 1);
    let alive = heard.iter().filter(|word| *word == "WATCHDOG=1").count();
    assert!((3..=8).contains(&alive), "every second, not for every frame: {alive} of {heard:?}");
    let after = heard[stopping..].iter().filter(|word| *word == "WATCHDOG=1").count();
    assert!(after <= 1, "{heard:?}");
    assert!(heard.iter().any(|word| word.starts_with("STATUS=") && word.contains("met ")), "{heard:?}");
}

#[test]
fn a_service_waits_for_its_cameras_where_a_run_by_hand_ends() {
    let bench = Bench::new("");
    let board = bench.path("test.toml");
    let text = fs::read_to_string(&board).unwrap();
    let absent = |text: &str, id: &str| {
        let source =
            format!("id = \"{id}\"\nsource = {{ type = \"v4l2\", device = \"/dev/v4l/by-path/no-{id}\" }}");
        text.replace(&format!("id = \"{id}\"\nsource = {{ type = \"synthetic\" }}"), &source)
    };
    fs::write(&board, absent(&absent(&text, "front"), "rear")).unwrap();
    let (code, log) = bench.run(&["--for", "3"]);
    assert!(code == Some(69) && log.contains("not one camera could be opened"), "{code:?}: {log}");
    let (heard, log) = listen(&bench, "4000000", &["--for", "3"]);
    assert!(heard.iter().any(|word| word == "READY=1"), "{heard:?}\n{log}");
    assert!(heard.iter().filter(|word| *word == "WATCHDOG=1").count() >= 2, "{heard:?}");
    assert!(log.contains("time is up") && log.contains("front is down at the end"), "{log}");
}

#[test]
fn a_service_manager_that_is_none_is_said() {
    let bench = Bench::new("");
    let mut command = bench.command(&["--for", "1"]);
    command.env("NOTIFY_SOCKET", "nonsense").env("WATCHDOG_USEC", "1000");
    let (code, log) = end(command.spawn().unwrap());
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("NOTIFY_SOCKET=nonsense"), "{log}");
}

/// Runs under a system that allows neither real-time scheduling nor locked memory.
fn refused(bench: &Bench) -> Option<(Option<i32>, String)> {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 64 && ulimit -r 0 && exec \"$@\"", "sh"]);
    if rustix::process::geteuid().is_root() {
        // Who has the capabilities is above the limits.
        let there = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            let reason = "run as root, and there is no setpriv to give capabilities up; install util-linux";
            // Past the capture: nothing is left out silently.
            std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes()).unwrap();
            return None;
        }
        let less = "-sys_nice,-ipc_lock";
        command.args(["setpriv", "--bounding-set", less, "--inh-caps", less]);
    }
    command.args([env!("CARGO_BIN_EXE_ocelli"), "run"]).arg(bench.path("test.toml")).args(["--for", "1"]);
    bench.here(&mut command);
    Some(end(command.spawn().unwrap()))
}

#[test]
fn what_the_system_refuses_is_said_once_with_the_remedy_or_stops_the_start() {
    let bench = Bench::new("[realtime]\nfifo = \"try\"\nlock_memory = \"try\"\n");
    let Some((code, log)) = refused(&bench) else { return };
    assert_eq!(code, Some(0), "{log}");
    for words in ["SCHED_FIFO 70) refused", "LimitRTPRIO=", "RLIMIT_MEMLOCK"] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
    for (key, remedy) in [("fifo", "LimitRTPRIO="), ("lock_memory", "LimitMEMLOCK=")] {
        bench.write("test.toml", &format!("[realtime]\n{key} = \"required\"\n"));
        let (code, log) = refused(&bench).unwrap();
        assert_eq!(code, Some(71), "{key}: {log}");
        assert!(log.contains(remedy), "{key}: {log}");
    }
}

#[test]
fn shallow_idle_is_a_condition_where_the_board_says_so() {
    let bench = Bench::new("[realtime]\nshallow_idle = \"required\"\n");
    let (code, log) = end(bench.command(&["--for", "1"]).spawn().unwrap());
    let allowed = fs::OpenOptions::new().write(true).open("/dev/cpu_dma_latency").is_ok();
    let refusal = "shallow idle states refused: /dev/cpu_dma_latency";
    assert_eq!((code, log.contains(refusal)), (Some(if allowed { 0 } else { 71 }), !allowed), "{log}");
}
