//! The rig's own parts: scenarios that are wrong are refused, and what is not as expected is found.
#![allow(dead_code, reason = "the rig itself uses all of them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "rig/acts.rs"]
mod acts;
#[path = "rig/agent.rs"]
mod agent;
#[path = "rig/archive.rs"]
mod archive;
#[path = "rig/board.rs"]
mod board;
#[path = "rig/expected.rs"]
mod expected;
#[path = "rig/guest.rs"]
mod guest;
#[path = "rig/judge.rs"]
mod judge;
#[path = "rig/lie.rs"]
mod lie;
#[path = "rig/report.rs"]
mod report;
#[path = "rig/scenario.rs"]
mod scenario;
#[path = "rig/seen.rs"]
mod seen;
#[path = "rig/unit.rs"]
mod unit;

use archive::Archive;
use report::{Line, Verdict};
use scenario::Scenario;
use seen::Seen;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A scenario of one stream beside one to which something happens at two seconds.
const SCENARIO: &str = r#"
title = "a test"
seconds = 4
machine = { buses = [{ cameras = 2 }] }

[[steps]]
at = 2
name = "gone"
act.unbind = "a"

[expect.streams.a0]
captured = [80, 90]
dropped = { driver_lost = 2 }
outage_s = [0, 0.2]

[[expect.noticed]]
after = "gone"
about = "a0"
state = "down"
cause = "no such device"
within_s = [0, 0.1]

[[expect.back]]
after = "gone"
stream = "a0"
within_s = [0, 0.5]
"#;

const SECOND: u64 = 1_000_000_000;

/// What a run leaves, as text by file, changed by whoever tests.
struct Left {
    agent: String,
    results: String,
    summary: String,
    log: String,
}

impl Left {
    /// Both streams have a frame every 40 ms from 10 s on; a0 loses two of them.
    fn healthy() -> Self {
        let agent = [
            r#"{"type":"boot","at_ns":1000000000,"resets":0}"#,
            r#"{"type":"start","at_ns":9000000000,"start":1,"pid":80}"#,
            r#"{"type":"running","at_ns":10000000000,"start":1}"#,
            r#"{"type":"step","at_ns":12000000000,"done_ns":12000000001,"name":"gone","act":"","error":null}"#,
            r#"{"type":"end","at_ns":14000000000,"start":1,"how":"0"}"#,
        ];
        let mut results =
            r#"{"v":1,"type":"header","clock":{"monotonic_ns":10,"wall_ns":20}}"#.to_owned() + "\n";
        for frame in 0..110 {
            let captured = 10 * SECOND + frame * SECOND / 25;
            for stream in ["a0", "a1"] {
                let lost = stream == "a0" && (60..62).contains(&frame);
                let end = if lost {
                    r#""latency_us":null,"outcome":"dropped","reason":"driver_lost""#
                } else {
                    r#""latency_us":5000,"outcome":"met","reason":null"#
                };
                results += &format!(
                    "{{\"v\":1,\"type\":\"frame\",\"stream\":\"{stream}\",\"sequence\":{frame},\"captured_ns\":{captured},\
                     \"finished_ns\":{},{end}}}\n",
                    captured + 5_000_000
                );
            }
        }
        results += "{\"v\":1,\"type\":\"event\",\"stream\":\"a0\",\"at_ns\":12050000000,\"state\":\"down\",\
                    \"cause\":\"no such device\"}\n";
        let stream = |id: &str, met: u32, dropped: &str| {
            format!(
                "{{\"id\":\"{id}\",\"captured\":110,\"met\":{met},\"late\":0,\"dropped\":{dropped},\"in_flight\":0}}"
            )
        };
        let summary = format!(
            "{{\"copied_bytes\":{{\"capture\":0}},\"results_lost\":{{}},\"streams\":[{},{}]}}",
            stream("a0", 108, "{\"driver_lost\":2}"),
            stream("a1", 110, "{}")
        );
        Self { agent: agent.join("\n") + "\n", results, summary, log: String::new() }
    }

    /// What is wrong with it.
    fn wrong(&self) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("agent.jsonl", &self.agent),
            ("results.1.jsonl", &self.results),
            ("summary.1.json", &self.summary),
            ("log", &self.log),
        ];
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        let scenario = Scenario::parse(SCENARIO).unwrap();
        judge::judge(&scenario, &Seen::read(folder.path()).unwrap()).wrong
    }
}

#[test]
fn what_is_as_expected_passes() {
    assert_eq!(Left::healthy().wrong(), Vec::<String>::new());
}

#[test]
fn whatever_is_not_as_expected_is_found() {
    /// What is changed, into what, and what must be said.
    type Change = (fn(&mut Left) -> &mut String, &'static str, &'static str, &'static str);
    let changes: &[Change] = &[
        (|left| &mut left.agent, r#""how":"0""#, r#""how":"70""#, "should end with"),
        (|left| &mut left.agent, r#""error":null"#, r#""error":"no""#, "step \"gone\""),
        (|left| &mut left.agent, r#""name":"gone""#, r#""name":"other""#, "should be done 1 times; it was 0"),
        (|left| &mut left.agent, r#""resets":0"#, r#""resets":1"#, "should be reset 0 times; it was 1"),
        (
            |left| &mut left.agent,
            r#"{"type":"end""#,
            "{\"type\":\"broken\",\"at_ns\":1,\"why\":\"x\"}\n{\"type\":\"end\"",
            "the machine: x",
        ),
        (|left| &mut left.agent, r#""type":"running""#, r#""type":"ready""#, "never ran"),
        (|left| &mut left.log, "", "thread 'exec' panicked at src/x.rs", "panicked"),
        (|left| &mut left.summary, r#""met":110"#, r#""met":109"#, "captured 110 is not met 109"),
        (|left| &mut left.summary, r#""in_flight":0"#, r#""in_flight":1"#, "1 in flight"),
        (
            |left| &mut left.summary,
            r#""captured":110,"met":110"#,
            r#""captured":111,"met":111"#,
            "the summary has 111",
        ),
        (|left| &mut left.summary, r#""capture":0"#, r#""capture":9"#, "should copy 0 bytes; it copied 9"),
        (
            |left| &mut left.summary,
            r#""results_lost":{}"#,
            r#""results_lost":{"results":3}"#,
            "should lose no results",
        ),
        (
            |left| &mut left.results,
            r#""stream":"a1","sequence":50"#,
            r#""stream":"a1","sequence":49"#,
            "not of the next",
        ),
        (|left| &mut left.results, r#""state":"down""#, r#""state":"full""#, "should come; there came"),
        (
            |left| &mut left.results,
            r#""cause":"no such device""#,
            r#""cause":"else""#,
            "should come; there came",
        ),
        (
            |left| &mut left.results,
            r#""at_ns":12050000000"#,
            r#""at_ns":12200000000"#,
            "should be 0 to 0.1; it was 0.2",
        ),
    ];
    for (part, from, to, said) in changes {
        let mut left = Left::healthy();
        let text = part(&mut left);
        *text = if from.is_empty() { (*to).to_owned() } else { text.replacen(from, to, 1) };
        let wrong = left.wrong();
        assert!(wrong.iter().any(|problem| problem.contains(said)), "{from} -> {to}: {wrong:?}");
    }
}

#[test]
fn a_miss_of_another_camera_is_found() {
    let mut left = Left::healthy();
    let lines = left.results.lines().map(|line| {
        if line.contains("\"stream\":\"a1\",\"sequence\":80,") {
            line.replace("\"met\"", "\"late\"")
        } else {
            line.to_owned()
        }
    });
    left.results = lines.collect::<Vec<_>>().join("\n") + "\n";
    let wrong = left.wrong();
    assert!(wrong.iter().any(|problem| problem.contains("a1: all frames after the first")), "{wrong:?}");
}

#[test]
fn frames_that_are_lost_for_another_reason_and_long_outages_are_found() {
    let mut left = Left::healthy();
    left.results = left.results.replace("driver_lost", "no_slot");
    let wrong = left.wrong();
    for said in ["dropped driver_lost should be 2; it was 0", "dropped no_slot should be 0; it was 2"] {
        assert!(wrong.iter().any(|problem| problem.contains(said)), "{said}: {wrong:?}");
    }
    let mut left = Left::healthy();
    left.results =
        left.results.lines().filter(|line| !line.contains("\"sequence\":6")).collect::<Vec<_>>().join("\n");
    let wrong = left.wrong();
    assert!(wrong.iter().any(|problem| problem.contains("longest time without a met frame")), "{wrong:?}");
}

#[test]
fn a_camera_that_stops_coming_is_found_without_a_record_that_says_so() {
    let cut = |stream: &str| {
        let mut left = Left::healthy();
        let stop = "{\"type\":\"stop\",\"at_ns\":14200000000}\n{\"type\":\"end\"";
        left.agent = left.agent.replace("{\"type\":\"end\"", stop);
        let is_late = |line: &&str| {
            line.contains(stream)
                && ["\"sequence\":9", "\"sequence\":10"].iter().any(|late| line.contains(late))
        };
        // Number 9 stays, and the others of one digit.
        let keep = |line: &&str| {
            !is_late(line) || line.contains("\"sequence\":9,") || line.contains("\"sequence\":10,")
        };
        left.results = left.results.lines().filter(keep).collect::<Vec<_>>().join("\n");
        left.wrong()
    };
    let found = |wrong: &[String], said: &str| wrong.iter().any(|problem| problem.contains(said));
    let wrong = cut("\"a1\"");
    assert!(found(&wrong, "a1: for 0.640 s no frame was met; nothing happened to it"), "{wrong:?}");
    let wrong = cut("\"a0\"");
    assert!(
        found(&wrong, "a0: the longest time without a met frame in s should be 0 to 0.2; it was 0.64"),
        "{wrong:?}"
    );
}

#[test]
fn a_wrong_scenario_is_refused() {
    let changes = [
        ("title", "tittle", "unknown field `tittle`"),
        ("act.unbind", "act.unbend", "unknown variant `unbend`"),
        ("name = \"gone\"", "name = \"went\"", "no step is named \"gone\""),
        ("streams.a0", "streams.a9", "no stream is \"a9\""),
        ("cameras = 2", "cameras = 0", "no camera"),
        ("seconds = 4", "seconds = 4\nservice = { systemd = true }", "systemd needs suite two"),
    ];
    for (from, to, said) in changes {
        let refused = Scenario::parse(&SCENARIO.replacen(from, to, 1)).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn boards_of_all_scenarios_are_accepted() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person-ssdlite.int8.toml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    let mut count = 0;
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/scenarios")).unwrap().flatten()
    {
        let scenario = Scenario::load(&entry.path()).unwrap();
        let mut wrong = Vec::new();
        fs::write(&path, scenario.board_text(manifest.to_str().unwrap()).unwrap()).unwrap();
        if let Err(problems) = ocelli::board::Board::load(&path) {
            wrong.push(problems.to_string());
        }
        assert!(wrong.is_empty(), "{}: {wrong:?}", entry.path().display());
        count += 1;
    }
    assert!(count >= 30, "{count} scenarios");
}

#[test]
fn an_archive_holds_what_was_put_in() {
    let mut archive = Archive::new(Vec::new());
    archive.file("a/b/one", 0o755, b"1").unwrap();
    archive.folder("empty").unwrap();
    archive.file("two", 0o644, b"").unwrap();
    let bytes = archive.finish().unwrap();
    let files = archive::files(&bytes).unwrap();
    assert_eq!(files, [("a/b/one".to_owned(), &b"1"[..]), ("two".to_owned(), &b""[..])]);
    for cut in [0, 100, 130, bytes.len() - 100] {
        assert!(archive::files(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn verdicts_are_told_to_people_and_machines() {
    let line = |name: &str, verdict| Line {
        name: name.to_owned(),
        title: "t".to_owned(),
        verdict,
        wall: Duration::from_secs(1),
    };
    let wrong = judge::Shown { wrong: vec!["a < b & \"c\"".to_owned()], ..judge::Shown::default() };
    let lines = [
        line("good", Verdict::Judged(judge::Shown::default())),
        line("bad", Verdict::Judged(wrong)),
        line("broken", Verdict::Broken("no machine".to_owned())),
        line("one", Verdict::Skipped("no QEMU".to_owned())),
        line("two", Verdict::Skipped("no QEMU".to_owned())),
    ];
    let table = report::table(&lines);
    for said in [
        "5 scenarios: 1 ok, 2 failed, 2 skipped",
        "SKIPPED: no QEMU (2 scenarios)",
        "a < b & \"c\"",
        "no machine",
    ] {
        assert!(table.contains(said), "{said}\n{table}");
    }
    let junit = report::junit(&lines);
    let mut lint = Command::new("python3")
        .args(["-c", "import sys, xml.dom.minidom as m; print(m.parse(sys.stdin).documentElement.getAttribute('failures'))"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut lint.stdin.take().unwrap(), junit.as_bytes()).unwrap();
    let output = lint.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{junit}");
}

/// A stand-in for ssh and for what is on a board: one camera, and a program that answers as ocelli does.
const SSH: &str = r#"#!/bin/sh
here=$(dirname "$0")
shift 5
PATH=$here/bin:$PATH sh -c "$(printf %s "$*" | sed "s#/dev/v4l/by-path#$here/cameras#g")"
"#;

const OCELLI: &str = r#"#!/usr/bin/env python3
import json, signal, sys, time
if sys.argv[1] != "run":
    sys.exit(0)
board = open(sys.argv[2]).read()
if "/dev/v4l/by-path/usb-1-video-index0" not in board or "YUY2" not in board:
    sys.exit(78)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
results, frame = open(sys.argv[4], "w"), 0
now = time.monotonic_ns
print(json.dumps({"v": 1, "type": "header", "clock": {"monotonic_ns": now(), "wall_ns": now()}}, separators=(",", ":")), file=results, flush=True)
while not stop:
    line = {"v": 1, "type": "frame", "stream": "a0", "sequence": frame, "captured_ns": now(), "finished_ns": now(), "latency_us": 1, "outcome": "met", "reason": None}
    print(json.dumps(line, separators=(",", ":")), file=results, flush=True)
    frame += 1
    time.sleep(0.02)
stream = {"id": "a0", "captured": frame, "met": frame, "late": 0, "dropped": {}, "in_flight": 0}
json.dump({"copied_bytes": {"capture": 0}, "results_lost": {}, "streams": [stream]}, open(sys.argv[6], "w"))
"#;

#[test]
fn a_board_runs_what_applies() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["bin", "cameras", "runs"] {
        fs::create_dir(at(name)).unwrap();
    }
    for (name, text) in [("ssh", SSH), ("bin/ocelli", OCELLI)] {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for name in ["usb-1-video-index0", "usb-1-video-index1"] {
        fs::write(at("cameras").join(name), "").unwrap();
    }
    let stream = "format = \"YUY2\"".parse().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let board = board::Board::look(at("ssh").to_str().unwrap(), "me@board", None, stream, root).unwrap();
    let run = |text: &str| {
        let scenario = Scenario::parse(&text.replace("cameras = 2", "cameras = 1")).unwrap();
        let ran = board.run(&scenario, &at("runs"));
        ran.map(|applies| applies.map(|()| judge::judge(&scenario, &Seen::read(&at("runs")).unwrap()).wrong))
    };
    let head = "title = \"t\"\nseconds = 2\nmachine = { buses = [{ cameras = 2 }] }\n";
    assert_eq!(run(head), Ok(Ok(vec![])));
    let killed = "service = { restart = true }\n[[steps]]\nat = 1\nname = \"x\"\nact.signal = \"KILL\"\n\
                  [expect]\nends = [\"SIGKILL\", \"0\"]\nsettle_s = 0\n[[expect.back]]\nafter = \"x\"\nstream = \"a0\"\nwithin_s = [0, 1]";
    assert_eq!(run(&format!("{head}{killed}")), Ok(Ok(vec![])));
    assert_eq!(run(SCENARIO), Ok(Err("needs somebody to pull the plug".to_owned())));
    let two = Scenario::parse(head).unwrap();
    assert_eq!(board.run(&two, &at("runs")), Ok(Err("needs 2 cameras; me@board has 1".to_owned())));
    board.leave();
}
