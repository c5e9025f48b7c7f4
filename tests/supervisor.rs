//! What is stuck is found and healed, on the real program: threads that hang by themselves, and threads that are
//! stopped from outside as if the kernel kept them.

mod program;
#[path = "program/stopped.rs"]
mod stopped;

use program::{Bench, HANG, Ran, SIMULATED, count, dropped, onnxruntime};
use serde_json::Value;
use std::process::Child;
use std::time::{Duration, Instant};
use stopped::{Stopped, threads};

const RESTART: &str = "[supervision]\nrestart = true\n";

fn supervision(ran: &Ran, key: &str) -> u64 {
    count(&ran.summary["supervision"], key)
}

/// What the results say of the supervisor's interventions, in their order: scope, subject, action.
fn interventions(ran: &Ran) -> Vec<[&str; 3]> {
    let lines = ran.results.iter().filter(|line| line["type"] == "supervision" && line["action"] != "paused");
    lines.map(|line| ["scope", "subject", "action"].map(|key| line[key].as_str().expect("a word"))).collect()
}

fn intervention<'a>(ran: &'a Ran, action: &str) -> &'a Value {
    let found = ran.results.iter().find(|line| line["type"] == "supervision" && line["action"] == action);
    found.unwrap_or_else(|| panic!("{action}: {}", ran.log))
}

/// Every frame of the stream was met.
fn untouched(ran: &Ran, index: usize) {
    let stream = ran.stream(index);
    assert_eq!(count(stream, "met"), count(stream, "captured"), "{stream}\n{}", ran.log);
    ran.healthy(index);
}

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

#[test]
fn a_camera_that_hangs_is_replaced_and_costs_the_others_nothing() {
    let hangs = "faults = { hang_at = 10 }";
    let ran = Bench::new(SIMULATED)
        .healthy()
        .healthy()
        .stream("{ type = \"synthetic\" }", [64, 48], hangs)
        .run("5");
    ran.expect(0);
    untouched(&ran, 0);
    untouched(&ran, 1);
    let sick = ran.stream(2);
    assert_eq!((&sick["state"], count(sick, "failures")), (&"full".into(), 1), "{sick}");
    let down = count(&sick["dropped"], "source_down");
    assert!((9..30).contains(&down), "a second of 10 fps, and little more: {sick}");
    assert!(dropped(sick) - down <= 2, "and nothing else to speak of: {sick}");
    assert!(count(sick, "met") >= 20, "it delivers again: {sick}");
    assert_eq!(interventions(&ran), [["capture", "s2", "given_up"], ["capture", "s2", "replaced"]]);
    for (key, times) in [("captures_given_up", 1), ("captures_replaced", 1), ("captures_quarantined", 1)] {
        assert_eq!(supervision(&ran, key), times, "{key}");
    }
    let given_up = intervention(&ran, "given_up");
    assert!(given_up["cause"].as_str().expect("words").contains("stuck in waiting for its source"));
    let frames = ran.frames("s2");
    let last = frames.iter().find(|frame| frame["sequence"] == 9).expect("the last one before it hung");
    let last = count(last, "captured_ns");
    let found = Duration::from_nanos(count(given_up, "at_ns") - last);
    assert!((1.0..2.0).contains(&found.as_secs_f64()), "found after {found:?}");
    let event = ran.results.iter().find(|line| line["type"] == "event" && line["state"] == "down");
    assert!(event.expect("an event")["cause"].as_str().expect("words").contains("stuck"));
}

#[test]
fn of_two_cameras_that_hang_one_is_replaced_and_the_other_stays_down_in_the_ledger() {
    let hangs = "faults = { hang_at = 10 }";
    let source = "{ type = \"synthetic\" }";
    let bench = Bench::new(SIMULATED).healthy();
    let ran = bench.stream(source, [64, 48], hangs).stream(source, [64, 48], hangs).run("4");
    ran.expect(0);
    untouched(&ran, 0);
    assert_eq!(
        (ran.stream(1)["state"].as_str(), ran.stream(2)["state"].as_str()),
        (Some("full"), Some("down"))
    );
    assert_eq!(count(ran.frames("s2").last().expect("frames"), "sequence"), 9);
    let spare = intervention(&ran, "not_replaced");
    assert!(spare["subject"] == "s2" && spare["cause"].as_str().expect("words").contains("spare share"));
    assert_eq!(ran.summary["stuck"], serde_json::json!(["s2"]));
    assert_eq!(supervision(&ran, "captures_quarantined"), 2);
}

/// Stopped twice, and let go in between: its first thread ends, and what that had is what the third one uses.
#[test]
fn a_stopped_capture_thread_that_comes_back_ends_and_gives_back_what_it_had() {
    let bench = Bench::new(SIMULATED).healthy().healthy();
    let child = bench.start("12");
    bench.wait_for(&["\"s1\",\"sequence\":5"]);
    let before = threads(&child, "cap-s1");
    for round in 0..2 {
        let stopped = Stopped::new(&child, "cap-s1");
        let told = |action: &str, times| {
            let line = format!("\"subject\":\"s1\",\"action\":\"{action}\"");
            let text = || std::fs::read_to_string(bench.path("r.jsonl")).unwrap_or_default();
            until(&child, || text().matches(&line).count() == times);
        };
        told("replaced", round + 1);
        assert_eq!(threads(&child, "cap-s1").len(), 2, "the one that is stuck, and the other");
        drop(stopped);
        until(&child, || threads(&child, "cap-s1").len() == 1);
    }
    assert_ne!(threads(&child, "cap-s1"), before);
    let ran = bench.ended(child);
    ran.expect(0);
    untouched(&ran, 0);
    assert_eq!(ran.stream(1)["state"], "full", "{}", ran.log);
    for (key, times) in [("captures_given_up", 2), ("captures_replaced", 2), ("captures_quarantined", 0)] {
        assert_eq!(supervision(&ran, key), times, "{key}: {}", ran.log);
    }
    assert!(ran.log.contains("has come back"), "{}", ran.log);
}

fn until(child: &Child, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < HANG, "process {} does not get there", child.id());
        sleep(0.02);
    }
}

#[test]
fn an_accelerator_that_hangs_is_replaced_and_each_of_its_frames_is_in_the_ledger() {
    let ran = Bench::new(&format!("{SIMULATED}hang_at = 20\n")).healthy().healthy().run("6");
    ran.expect(0);
    for (key, times) in [("accelerators_given_up", 1), ("accelerators_replaced", 1), ("captures_given_up", 0)]
    {
        assert_eq!(supervision(&ran, key), times, "{key}: {}", ran.log);
    }
    let lost: u64 = (0..2).map(|index| count(&ran.stream(index)["dropped"], "backend_failed")).sum();
    assert!((1..=25).contains(&lost), "one batch, and what waited behind it: {}", ran.log);
    for index in 0..2 {
        let (stream, frames) = (ran.stream(index), ran.frames(&format!("s{index}")));
        // A second of hanging at 10 fps, and a few looks until the next one takes batches.
        assert!(dropped(stream) + count(stream, "late") <= 17, "{stream}");
        assert_eq!(stream["state"], "full");
        assert!(frames[frames.len() - 10..].iter().all(|frame| frame["outcome"] == "met"), "{stream}");
    }
    let name = ["accelerator", "simulated"];
    assert_eq!(interventions(&ran), ["given_up", "replaced"].map(|action| [name[0], name[1], action]));
    let cause = intervention(&ran, "given_up")["cause"].as_str().expect("words");
    assert!(cause.contains("a batch did not come back in 1.0 s"), "{cause}");
}

/// The real thing: a session of ONNX Runtime whose thread stands still, and another one built beside it.
#[test]
fn a_session_of_onnx_runtime_that_hangs_is_replaced() {
    let bench = Bench::new(&onnxruntime()).healthy();
    let child = bench.start("10");
    bench.wait_for(&["\"met\""]);
    let stopped = Stopped::new(&child, "infer-0");
    bench.wait_for(&["\"accelerator\"", "\"replaced\""]);
    drop(stopped);
    let ran = bench.ended(child);
    ran.expect(0);
    let frames = ran.frames("s0");
    assert!(frames[frames.len() - 5..].iter().all(|frame| frame["outcome"] == "met"), "{}", ran.log);
    assert_eq!(supervision(&ran, "accelerators_replaced"), 1, "{}", ran.log);
    assert!(count(&ran.stream(0)["dropped"], "backend_failed") >= 1, "{}", ran.stream(0));
}

#[test]
fn a_stuck_thread_is_told_of_and_a_process_that_may_not_end_goes_on_with_it() {
    for name in ["exec", "pub"] {
        let bench = Bench::new(SIMULATED).healthy();
        let child = bench.start("8");
        bench.wait_for(&["\"met\""]);
        let stopped = Stopped::new(&child, name);
        sleep(3.5);
        drop(stopped);
        let ran = bench.ended(child);
        ran.expect(0);
        assert_eq!(supervision(&ran, "threads_stuck"), 1, "{}", ran.log);
        assert_eq!(interventions(&ran), [["thread", name, "stuck"], ["thread", name, "recovered"]]);
        for words in ["has not moved for 2.", "moves again"] {
            assert!(ran.log.contains(words), "{words}: {}", ran.log);
        }
    }
}

#[test]
fn a_stuck_thread_ends_a_process_that_may_be_started_again() {
    for name in ["exec", "pub"] {
        let bench = Bench::new(&format!("{SIMULATED}{RESTART}")).healthy();
        let child = bench.start("60");
        bench.wait_for(&["\"met\""]);
        let stopped = Stopped::new(&child, name);
        let since = Instant::now();
        until(&child, || stopped.is_gone());
        let ran = bench.ended(child);
        assert_eq!(ran.code, Some(70), "{}", ran.log);
        let took = since.elapsed().as_secs_f64();
        assert!((1.5..6.0).contains(&took), "after {took} s");
        assert!(ran.log.contains(&format!("the thread {name} has not moved for 2.")), "{}", ran.log);
    }
}

#[test]
fn an_output_whose_thread_is_stuck_costs_results_and_no_frame() {
    let bench = Bench::new(SIMULATED).healthy();
    let child = bench.start("9");
    bench.wait_for(&["\"met\""]);
    let stopped = Stopped::new(&child, "sink-results");
    sleep(6.5);
    drop(stopped);
    let ran = bench.ended(child);
    ran.expect(0);
    untouched(&ran, 0);
    assert_eq!(supervision(&ran, "outputs_stuck"), 1, "{}", ran.log);
    assert_eq!(interventions(&ran), [["output", "results", "stuck"], ["output", "results", "recovered"]]);
}

#[test]
fn a_pause_of_the_whole_process_is_not_mistaken_for_stuck_threads() {
    let bench = Bench::new(&format!("{SIMULATED}{RESTART}")).healthy().healthy();
    let child = bench.start("6");
    bench.wait_for(&["\"met\""]);
    let pid = rustix::process::Pid::from_child(&child);
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("our own child");
    signal(rustix::process::Signal::STOP);
    sleep(3.0);
    signal(rustix::process::Signal::CONT);
    let ran = bench.ended(child);
    ran.expect(0);
    assert!(supervision(&ran, "pauses") >= 1, "{}", ran.log);
    assert!(interventions(&ran).is_empty(), "{}", ran.log);
    assert!(ran.log.contains("nobody is blamed"), "{}", ran.log);
    for index in 0..2 {
        let late = count(&ran.stream(index)["dropped"], "source_late");
        assert!((25..=32).contains(&late), "three seconds of 10 fps: {}", ran.stream(index));
        assert_eq!((&ran.stream(index)["state"], count(ran.stream(index), "failures")), (&"full".into(), 0));
    }
}
