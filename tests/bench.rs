//! The program's `bench`, on accelerators that are so slow, fast or disturbed that the answer is certain.

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A board of two streams of 20 fps in a folder of its own.
struct Desk(TempDir);

impl Desk {
    fn new(intercept_ms: u32, bound_ms: u32, more: &str) -> Self {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.toml");
        let mut text = format!(
            "config_version = 1\n[accelerator]\nbackend = \"simulated\"\nintercept_ms = {intercept_ms}\n\
             slope_ms = 0.1\nmax_batch = 4\n[models.person]\nmanifest = {manifest:?}\n"
        );
        for criticality in ["critical", "normal"] {
            text += &format!(
                "[[streams]]\nid = \"{criticality}\"\nsource = {{ type = \"synthetic\" }}\nfps = 20\n\
                 size = [64, 48]\nformat = \"I420\"\nlatency_bound_ms = {bound_ms}\nmodel = \"person\"\n\
                 criticality = \"{criticality}\"\n{more}\n"
            );
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("a<b.toml"), text).expect("a board file");
        Self(dir)
    }

    /// Exit code, standard output, standard error.
    fn bench(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let short = ["bench", "a<b.toml", "--for", "0.5", "--confirm", "1", "--profile-for", "0.05"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        command.args(short).args(arguments).current_dir(self.0.path());
        let output = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_fast_accelerator_serves_as_many_as_are_tried() {
    // 0.2 ms a frame where 5 s are allowed.
    let desk = Desk::new(0, 5000, "");
    let arguments = ["--most", "3", "--percentile", "p99", "--confirm-for", "0.5"];
    let more = ["--format", "json", "--finer", "--chart", "c.svg"];
    let (exit, out, log) = desk.bench(&[&arguments[..], &more].concat());
    assert_eq!(exit, Some(0), "{log}");
    let found = json(&out);
    assert_eq!(found["streams"], 3, "{out}");
    assert_eq!((&found["percentile"], &found["period_us"]), (&"p99".into(), &50_000.into()));
    assert_eq!((&found["bound_us"], &found["board"]), (&5_000_000.into(), &"a<b".into()));
    assert_eq!(found["limit"]["upper"], 256, "{out}");
    assert!(found["limit"]["bare_loop"].as_u64() > Some(3), "{out}");
    assert!(found["limit"]["admitted"].as_u64() > Some(3), "{out}");
    // Three streams of 20 fps, of the thousands of frames a second that a loop could do.
    let efficiency = found["efficiency"].as_f64().expect("a share");
    assert!(efficiency > 0.0 && efficiency < 0.5, "{efficiency}");
    for quantile in ["p50", "p99", "p99_9", "max"] {
        assert!(found["latency_us"][quantile].as_u64() < Some(5_000_000), "{out}");
    }
    let overload = found["overload"].as_array().expect("runs");
    let offered: Vec<_> = overload.iter().map(|run| run["offered"].as_f64()).collect();
    assert_eq!(offered, [Some(1.5), Some(2.0)]);
    for run in overload {
        assert_eq!(run["critical_missed"], 0, "{out}");
        assert!(run["met_ratio"].as_f64() > Some(0.9), "{out}");
    }
    assert_eq!(found["load_average"].as_array().map(Vec::len), Some(3));
    let probes = found["probes"].as_array().expect("runs");
    assert!(probes.iter().all(|probe| probe["captured"].as_u64() >= Some(100)), "too short for p99");
    assert!(probes.iter().any(|probe| probe["confirmation"] == true));
    let finer = found["streams_at_declared_rate"].as_f64().expect("a number");
    assert!((3.0..=4.5).contains(&finer), "{finer}");

    let chart = std::fs::read_to_string(desk.0.path().join("c.svg")).expect("the chart");
    balanced(&chart);
    assert!(chart.contains("a&lt;b"), "the board's name is text");
    for series in ["p50", "p99", "p999", "max"] {
        let path = chart.lines().find(|line| line.starts_with(&format!("<path id=\"{series}\"")));
        // 3 streams, and 1, 2 and 4 (a quarter, a half, five quarters).
        assert_eq!(path.map(|path| path.matches("<circle").count()), Some(4), "{series}: {chart}");
    }
    assert!(chart.contains("class=\"bound\""));
}

/// That every element of an XML text that is opened is closed, in order.
fn balanced(text: &str) {
    let mut open = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{text}");
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap_or_default());
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn an_accelerator_slower_than_the_bound_serves_none() {
    let (exit, out, log) = Desk::new(60, 30, "").bench(&["--format", "json", "--percentile", "p99"]);
    assert_eq!(exit, Some(0), "{log}");
    let found = json(&out);
    assert_eq!((&found["streams"], &found["limit"]["upper"]), (&0.into(), &0.into()), "{out}");
    assert_eq!(found["limit"]["admitted"], 0);
    assert_eq!(found["overload"].as_array().map(Vec::len), Some(0));
    assert_eq!(found["latency_us"]["p99_9"], Value::Null, "all were lost");
}

#[test]
fn another_bound_is_measured_on_request() {
    // A batch takes 30 ms, and the board's bound is 20.
    let asked =
        ["--format", "json", "--percentile", "p99", "--bound", "5000", "--most", "1", "--no-overload"];
    let (exit, out, log) = Desk::new(30, 20, "").bench(&asked);
    assert_eq!(exit, Some(0), "{log}");
    let found = json(&out);
    assert_eq!((&found["streams"], &found["bound_us"]), (&1.into(), &5_000_000.into()), "{out}");
}

#[test]
fn late_sources_make_a_run_invalid_not_low() {
    // Each source sleeps over four releases.
    let desk = Desk::new(0, 5000, "faults = { stall_at = 4, stall_ms = 220 }");
    let arguments = ["--most", "2", "--percentile", "p99", "--sources", "board", "--retries", "1"];
    let (exit, out, log) = desk.bench(&[&arguments[..], &["--format", "json"]].concat());
    assert_eq!(exit, Some(75), "{log}");
    let found = json(&out);
    assert_eq!(found["streams"], Value::Null, "{out}");
    assert!(found["invalid"].as_str().is_some_and(|why| why.contains("sources alone were late")), "{out}");
    let probes = found["probes"].as_array().expect("runs");
    assert_eq!(probes.len(), 2, "one, and one more: {out}");
    assert!(probes.iter().all(|probe| probe["valid"] == false));
    assert!(log.contains("stop what else runs"), "{log}");
}

#[test]
fn garbage_is_refused_with_what_would_be_right() {
    let desk = Desk::new(0, 5000, "");
    for (arguments, right) in [
        (["--percentile", "p50"], "p99.9"),
        (["--releases", "never"], "staggered"),
        (["--most", "257"], "1 to 256"),
        (["--most", "0"], "1 to 256"),
        (["--confirm-for", "0"], "20 or 0.5"),
        (["--sources", "none"], "memory"),
    ] {
        let (exit, _, log) = desk.bench(&arguments);
        assert_eq!(exit, Some(64), "{arguments:?}: {log}");
        assert!(log.contains(right), "{arguments:?}: {log}");
    }
    let (exit, _, log) = desk.bench(&["--chart", "none/c.svg"]);
    assert_eq!(exit, Some(73), "{log}");
    assert!(log.contains("none/c.svg"), "{log}");
}
