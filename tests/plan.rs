//! The program's `profile` and `plan`, and what `run` makes of a profile that is kept.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A board of equal streams in a folder of its own, which is the user's state folder too.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new(streams: usize, criticality: &str) -> Self {
        let desk = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        desk.board(streams, criticality, 2);
        desk
    }

    /// l(b) = intercept + b ms; 7 ms until the reserve for decoding and publishing.
    fn board(&self, streams: usize, criticality: &str, intercept: u32) {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.toml");
        let mut text = format!(
            "config_version = 1\n[accelerator]\nbackend = \"simulated\"\nintercept_ms = {intercept}\n\
             slope_ms = 1\nmax_batch = 4\n[models.person]\nmanifest = {manifest:?}\n"
        );
        for index in 0..streams {
            text += &format!(
                "[[streams]]\nid = \"s{index}\"\nsource = {{ type = \"synthetic\" }}\nperiod_ms = 100\n\
                 size = [64, 48]\nformat = \"I420\"\nlatency_bound_ms = 8.25\nmodel = \"person\"\n\
                 criticality = \"{criticality}\"\n"
            );
        }
        std::fs::write(self.dir.path().join("desk.toml"), text).expect("a board file");
    }

    /// Exit code, standard output, standard error.
    fn ocelli(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        command.args(arguments).current_dir(self.dir.path()).env("XDG_STATE_HOME", self.dir.path());
        let output = command.output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn plan(&self, code: i32, more: &[&str]) -> Value {
        let arguments = [&["plan", "desk.toml", "--format", "json"], more].concat();
        let (exit, out, log) = self.ocelli(&arguments);
        assert_eq!(exit, Some(code), "{log}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// A profile; whether something is measured in the system's folder is the machine's choice, so it is named. How long
    /// decoding takes is the machine's too: once it has been seen to be there, it is 0.01 ms with publishing, and 0.02 of
    /// a crowd.
    fn profile(&self) -> Value {
        let (exit, out, log) = self.ocelli(&["profile", "desk.toml", "--for", "0.1", "--output", "p.json"]);
        assert_eq!(exit, Some(0), "{log}");
        assert!(out.starts_with("simulated, simulated ("), "{out}");
        let text = std::fs::read_to_string(self.dir.path().join("p.json")).expect("the profile");
        let mut profile: Value = serde_json::from_str(&text).expect("JSON");
        let decoding = &mut profile["decodings"][0];
        for (seen, planned) in [("empty", 8_000), ("crowd", 18_000)] {
            let timing = &mut decoding[seen];
            assert!(timing["runs"].as_u64() >= Some(20) && timing["p50_ns"].as_u64() > Some(0), "{timing}");
            timing["p90_ns"] = json!(planned);
        }
        self.write(&profile);
        profile
    }

    fn write(&self, profile: &Value) {
        std::fs::write(self.dir.path().join("p.json"), profile.to_string()).expect("a file");
    }

    /// Makes `p.json` the one that is kept for the board.
    fn keep(&self) {
        let folder = self.dir.path().join("ocelli");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(self.dir.path().join("p.json"), folder.join("desk.profile.json")).expect("a copy");
    }
}

#[test]
fn a_profile_tells_every_batch_size_and_a_plan_stands_on_it() {
    let desk = Desk::new(3, "normal");
    let profile = desk.profile();
    let [kept] = profile["arrangements"].as_array().expect("arrangements").as_slice() else {
        panic!("one unit")
    };
    assert_eq!(
        (&kept["used"], &kept["max_streams"], &kept["upper_bound"]),
        (&json!(true), &json!(3), &json!(63))
    );
    let unit = &kept["units"][0];
    assert_eq!((&unit["unit"], &unit["lanes"]), (&json!("simulated"), &json!(1)));
    let table = unit["services"][0].as_array().expect("a table");
    for (index, timing) in table.iter().enumerate() {
        let exact = (3 + index as u64) * 1_000_000;
        assert_eq!((&timing["jobs"], &timing["max_ns"]), (&json!(index + 1), &json!(exact)));
        assert_eq!((&timing["p50_ns"], &timing["p99_9_ns"]), (&json!(exact), &json!(exact)));
        assert!(timing["runs"].as_u64() >= Some(100), "{timing}");
    }
    assert_eq!(table.len(), 4);

    // A twentieth more is planned: l(1) + l(2) = 7 * 1.05, and the reserve of 0.5 and 3 * 0.02; 8.25 - 7.91 remain.
    let plan = desk.plan(0, &["--profile", "p.json"]);
    assert_eq!((&plan["admitted"], &plan["provisional"]), (&json!(true), &json!(false)));
    // A fourth would need (4 + 4) * 1.05 > 7.67. Batches of four fit the bound: 4 / 6.3 ms of 100 ms.
    assert_eq!((&plan["max_streams"], &plan["upper_bound"]), (&json!(3), &json!(63)));
    let stream = json!({ "id": "s2", "worst_response_us": 7910, "slack_us": 340 });
    assert_eq!((&plan["streams"][2], &plan["remedy"]), (&stream, &Value::Null));
}

#[test]
fn plans_answer_what_if() {
    let desk = Desk::new(3, "critical");
    desk.profile();
    let more = desk.plan(78, &["--profile", "p.json", "--add", "s1"]);
    assert_eq!((&more["admitted"], &more["streams"][3]["id"]), (&json!(false), &json!("s1+4")));
    assert_eq!(
        more["remedy"],
        json!({ "give_up": ["s1+4"], "slow_down_to_fps": null, "latency_bound_ms": 9 })
    );
    let longer = desk.plan(0, &["--profile", "p.json", "--add", "s1", "--bound", "9"]);
    assert_eq!(longer["admitted"], true);
    // 200 fps: with P = 5 ms < D two frames of each may be on their way, and capacity is short as well.
    let faster = desk.plan(78, &["--profile", "p.json", "--fps", "200"]);
    assert_eq!((&faster["max_streams"], &faster["upper_bound"]), (&json!(1), &json!(3)));

    let (exit, out, log) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json", "--add", "s1"]);
    let expected = "\
stream  worst response ms   slack ms
s0                  7.910      0.340
s1                  7.910      0.340
s2                  7.910      0.340
s1+4    does not fit: would let responses of 8.40 ms happen where 7.67 ms are allowed
3 of 4 streams fit; of streams like these: 3 guaranteed, more than 63 impossible
to make all fit, one of: give up s1+4; give all a latency bound of 9 ms
";
    assert_eq!((exit, out.as_str()), (Some(78), expected));
    assert!(log.contains("3 of 4 critical streams fit on this accelerator; s1+4 would"), "{log}");

    let (exit, _, log) = desk.ocelli(&["plan", "desk.toml", "--bound", "2"]);
    assert_eq!(exit, Some(78), "{log}");
    // Of the 3.5 something, the last digit is what decoding takes here.
    assert!(log.contains("cannot be served within its latency bound even alone; 3.5"), "{log}");
    let (exit, _, log) = desk.ocelli(&["plan", "desk.toml", "--add", "s9"]);
    assert_eq!(exit, Some(64), "{log}");
    assert!(log.contains("--add s9: the board has no such stream; it has s0, s1, s2"), "{log}");
    for wrong in [["--fps", "0"], ["--bound", "-1"], ["--fps", "inf"]] {
        assert_eq!(desk.ocelli(&["plan", "desk.toml", wrong[0], wrong[1]]).0, Some(64), "{wrong:?}");
    }
}

#[test]
fn a_plan_tells_what_critical_streams_are_safe_behind() {
    let desk = Desk::new(2, "critical");
    let file = desk.dir.path().join("desk.toml");
    let text = std::fs::read_to_string(&file).expect("the board");
    let (text, last) = text.rsplit_once("\"critical\"").expect("two criticalities");
    std::fs::write(&file, format!("{text}\"normal\"{last}")).expect("a board file");
    desk.profile();
    // 7.75 ms less the usual decoding of both and the critical stream's own batch: l(1) * 1.05.
    let plan = desk.plan(0, &["--profile", "p.json"]);
    assert_eq!((&plan["critical_certain"], &plan["blocking_us"]), (&json!(true), &json!(4580)));
    let (_, out, _) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json"]);
    assert!(
        out.contains("\ncritical streams are safe behind batches of others of at most 4.58 ms\n"),
        "{out}"
    );
    // 4.99 ms (it alone fits) less 3.15: one frame of the other takes longer than that.
    let (_, out, _) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json", "--bound", "5.5"]);
    let waits = "of at most 1.84 ms; a single frame takes longer and is not served while the guarantee is \
                 withdrawn: s1\n";
    assert!(out.contains(waits), "{out}");
    // Alone or beside its like there is nobody to be protected from.
    desk.board(2, "critical", 2);
    assert_eq!(desk.plan(0, &["--profile", "p.json"])["blocking_us"], Value::Null);
}

#[test]
fn a_foreign_profile_is_refused_with_what_differs() {
    let desk = Desk::new(1, "normal");
    let mut profile = desk.profile();
    profile["key"]["device"] = json!("Other CPU, 4 CPUs");
    profile["key"]["models"][0]["sha256"] = json!("00");
    desk.write(&profile);
    let (exit, out, log) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json"]);
    assert_eq!((exit, out.as_str()), (Some(78), ""), "{log}");
    let words = "p.json: a profile of something else: device \"Other CPU, 4 CPUs\", here \"simulated\"; \
                 model person: sha256 \"00\", here \"";
    assert!(log.contains(words), "{log}");
    let former = json!({ "v": 2, "key": profile["key"], "services": [[]] });
    let mut undecoded = profile.clone();
    undecoded["decodings"] = json!([]);
    for wrong in [former, undecoded, json!({})] {
        desk.write(&wrong);
        let (exit, _, log) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json"]);
        assert_eq!(exit, Some(78), "{log}");
        assert!(log.contains("p.json: not a profile of this version"), "{log}");
    }
}

#[test]
fn what_takes_long_to_decode_is_planned_for() {
    let desk = Desk::new(3, "normal");
    let mut profile = desk.profile();
    let mut plan = |crowd: u64, empty: u64, bound: &str| {
        for (seen, planned) in [("empty", empty), ("crowd", crowd)] {
            // Publishing takes 2 us.
            profile["decodings"][0][seen]["p90_ns"] = json!(planned - 2_000);
        }
        desk.write(&profile);
        desk.plan(0, &["--profile", "p.json", "--bound", bound])
    };
    // Two streams: 2 * l(1) = 6.3 and 0.5 + 2 * 0.2; a third would have 8.25 - 0.5 - 3 * 0.2 for its 7.35.
    let slow = plan(200_000, 10_000, "8.25");
    let stream = json!({ "id": "s1", "worst_response_us": 7200, "slack_us": 1050 });
    assert_eq!((&slow["max_streams"], &slow["streams"][1]), (&json!(2), &stream));
    // 8 ms and more are for decoding: not even one is certain, though by utilisation more would be possible.
    let slower = plan(7_750_000, 10_000, "8.25");
    assert_eq!((&slower["max_streams"], &slower["upper_bound"]), (&json!(0), &json!(63)));
    let (_, out, _) = desk.ocelli(&["plan", "desk.toml", "--profile", "p.json"]);
    let why = "s0      does not fit: would let decoding take 8.25 ms, and no time would be left before it";
    assert!(out.contains(why), "{out}");
    // Batches of two and more can't be decoded in time: 1 / 3.15 ms of 100 ms.
    let slowest = plan(7_750_000, 3_000_000, "8.25");
    assert_eq!(slowest["upper_bound"], json!(31));
    // With more time batches of two can be: 2 / 4.2 ms; but one thread decodes no more than 20 frames in 100 ms.
    let hopeless = plan(7_750_000, 5_000_000, "20");
    assert_eq!(hopeless["upper_bound"], json!(20));
}

#[test]
fn a_run_uses_the_kept_profile_and_names_a_stale_one() {
    let desk = Desk::new(4, "critical");
    desk.profile();
    let run = |desk: &Desk| desk.ocelli(&["run", "desk.toml", "--for", "0.3"]);
    let (exit, _, log) = run(&desk);
    assert_eq!(exit, Some(0), "by utilisation they fit: {log}");
    assert!(log.contains("(provisional: no guarantee)"), "{log}");

    desk.keep();
    let (exit, _, log) = run(&desk);
    assert_eq!(exit, Some(78), "{log}");
    assert!(log.contains("3 of 4 critical streams fit on this accelerator"), "{log}");

    desk.board(3, "critical", 2);
    let (exit, _, log) = run(&desk);
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("(guaranteed while cameras, board and service times are as stated)"), "{log}");

    desk.board(3, "critical", 1);
    let (exit, _, log) = run(&desk);
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("a profile of something else: settings \""), "{log}");
    assert!(log.contains("a provisional one is measured now"), "{log}");
    assert!(log.contains("(provisional: no guarantee)"), "{log}");
}
