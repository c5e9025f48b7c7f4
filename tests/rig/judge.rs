//! What was expected against what was seen.

use crate::agent::Told;
use crate::expected::{Back, Expect, Growth, Noticed, Span, StreamExpect};
use crate::scenario::Scenario;
use crate::seen::{Event, Frame, Seen};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// A camera to which nothing happens has a frame met at least once in this time, in nanoseconds: a multiple of all periods.
const SILENCE: u64 = 500_000_000;

/// What a scenario showed, in a few words, and what was not as expected.
#[derive(Debug, Default)]
pub struct Shown {
    pub noticed: String,
    pub within: String,
    pub healed: String,
    pub outage: String,
    pub others: String,
    /// Each with what was expected and what was seen. None: the scenario has passed.
    pub wrong: Vec<String>,
}

/// Judges a run.
pub fn judge(scenario: &Scenario, seen: &Seen) -> Shown {
    let mut shown = Shown::default();
    let wrong = &mut shown.wrong;
    told(scenario, seen, wrong);
    if let Some(panic) = seen.log.lines().find(|line| line.contains("panicked at")) {
        wrong.push(format!("the program panicked: {panic}"));
    }
    for text in scenario.expect.log.iter().filter(|text| !seen.log.contains(text.as_str())) {
        wrong.push(format!("the log should have {text:?}"));
    }
    summaries(&scenario.expect, seen, wrong);
    if scenario.program.is_some() {
        let passed = seen.log.lines().filter(|line| line.starts_with("ok ")).count();
        shown.noticed = format!("{passed} tests ok");
        shown.wrong.extend(seen.log.lines().filter(|line| line.starts_with("FAILED ")).map(str::to_owned));
        return shown;
    }
    let Some(began) = seen.began() else {
        wrong.push(format!("the program never ran; its log ends with {:?}", last_line(&seen.log)));
        return shown;
    };
    let settled = began + (scenario.expect.settle_s * 1e9) as u64;
    let span = settled..seen.stopped();
    let (mut others, mut missed) = (0, 0);
    let none = Vec::new();
    for stream in scenario.ids() {
        let frames = seen.frames.get(&stream).unwrap_or(&none);
        in_order(&stream, frames, wrong);
        let judged: Vec<_> =
            frames.iter().filter(|frame| span.contains(&frame.captured_ns)).cloned().collect();
        if let Some(expect) = scenario.expect.streams.get(&stream) {
            of_stream(&stream, expect, &judged, &span, wrong);
        } else {
            let misses = judged.iter().filter(|frame| !frame.met()).count();
            others += judged.len();
            missed += misses;
            if misses > 0 {
                wrong.push(format!(
                    "{stream}: all frames after the first {} s should be met; of {} were not: {}",
                    scenario.expect.settle_s,
                    judged.len(),
                    reasons(judged.iter())
                ));
            }
            if frames.is_empty() {
                wrong.push(format!("{stream}: no frame came"));
            }
            // A camera that is down has no records: that none is missed says nothing of it.
            let longest = outage(&judged, &span);
            if longest > SILENCE {
                let seconds = longest as f64 / 1e9;
                wrong.push(format!("{stream}: for {seconds:.3} s no frame was met; nothing happened to it"));
            }
        }
    }
    shown.others = format!("{missed} of {others}");
    let firsts: Vec<_> =
        scenario.expect.noticed.iter().map(|noticed| of_event(noticed, seen, wrong)).collect();
    if let Some((event, after)) = firsts.into_iter().flatten().next() {
        shown.noticed = format!("{} {}: {}", event.about, event.state, short(&event.cause));
        shown.within = seconds(event.at_ns.saturating_sub(after));
        let later = |later: &&Event| later.at_ns > event.at_ns && later.about == event.about;
        let back = seen.events.iter().filter(later).rfind(|later| later.state != event.state);
        shown.healed = back.map_or_else(String::new, |back| format!("{} {}", back.about, back.state));
    }
    if shown.noticed.is_empty() {
        otherwise(scenario, seen, &span, &mut shown);
    }
    let wrong = &mut shown.wrong;
    let backs: Vec<_> = scenario.expect.back.iter().filter_map(|back| is_back(back, seen, wrong)).collect();
    if let Some(first) = backs.into_iter().max() {
        let healed = if shown.healed.is_empty() { "back" } else { shown.healed.as_str() };
        shown.healed = format!("{healed} in {}", seconds(first));
    }
    let affected = scenario.expect.streams.keys().filter_map(|stream| seen.frames.get(stream));
    let outage = affected.map(|frames| outage(frames, &span)).max();
    shown.outage = outage.map_or_else(String::new, seconds);
    if let Some(growth) = scenario.expect.growth {
        grown(growth, seen, wrong);
    }
    shown
}

/// The agent's account: was everything done, and how did the program end?
fn told(scenario: &Scenario, seen: &Seen, wrong: &mut Vec<String>) {
    let mut ends = Vec::new();
    let mut done = BTreeMap::<&str, u32>::new();
    let mut resets = 0;
    for told in &seen.told {
        match told {
            Told::Broken { why, .. } => wrong.push(format!("the machine: {why}")),
            Told::Step { name, act, error, .. } => {
                *done.entry(name).or_default() += 1;
                wrong.extend(error.iter().map(|error| format!("step {name:?} {act}: {error}")));
            }
            Told::End { how, .. } => ends.push(how.clone()),
            Told::Boot { resets: seen, .. } => resets = *seen,
            Told::Start { .. }
            | Told::Running { .. }
            | Told::Ready { .. }
            | Told::Sample { .. }
            | Told::Stop { .. } => {}
        }
    }
    let mut wanted = BTreeMap::<&str, u32>::new();
    for step in &scenario.steps {
        *wanted.entry(&step.name).or_default() += step.repeat.map_or(1, |repeat| repeat.times);
    }
    for (name, times) in wanted {
        let seen = done.get(name).copied().unwrap_or(0);
        if seen != times {
            wrong.push(format!("step {name:?} should be done {times} times; it was {seen} times"));
        }
    }
    if ends != scenario.expect.ends {
        let last = last_line(&seen.log);
        wrong.push(format!(
            "the program should end with {:?}; it did with {ends:?}: {last}",
            scenario.expect.ends
        ));
    }
    if resets != scenario.expect.resets {
        wrong.push(format!("the machine should be reset {} times; it was {resets}", scenario.expect.resets));
    }
}

/// The program's own account: it must add up, and say what the results say.
fn summaries(expect: &Expect, seen: &Seen, wrong: &mut Vec<String>) {
    let mut copied = 0.0;
    let mut lost_by = BTreeMap::<&str, f64>::new();
    for (start, summary) in &seen.summaries {
        copied += summary["copied_bytes"]["capture"].as_f64().unwrap_or(f64::NAN);
        for (output, count) in summary["results_lost"].as_object().into_iter().flatten() {
            *lost_by.entry(output).or_default() += count.as_f64().unwrap_or(f64::NAN);
        }
        let lost = summary["results_lost"]["results"].as_u64().unwrap_or(0);
        for stream in summary["streams"].as_array().unwrap_or(&Vec::new()) {
            let id = stream["id"].as_str().unwrap_or("?");
            let count = |key: &str| stream[key].as_u64().unwrap_or(0);
            let dropped: u64 = dropped(stream).values().sum();
            let (captured, met, late) = (count("captured"), count("met"), count("late"));
            let flying = count("in_flight");
            if captured != met + late + dropped + flying || flying != 0 {
                wrong.push(format!(
                    "{id}: captured {captured} is not met {met} + late {late} + dropped {dropped}, with {flying} \
                     in flight (start {start})"
                ));
            }
            let frames = seen.frames.get(id).into_iter().flatten().filter(|frame| frame.start == *start);
            let (mut ended, mut ended_met) = (0, 0);
            frames.for_each(|frame| {
                ended += 1;
                ended_met += u64::from(frame.met());
            });
            if lost == 0 && (captured, met) != (ended, ended_met) {
                wrong.push(format!(
                    "{id}: the summary has {captured} captured and {met} met; the results have {ended} and \
                     {ended_met} (start {start})"
                ));
            }
        }
    }
    for (output, span) in &expect.lost {
        let seen = lost_by.remove(output.as_str()).unwrap_or(0.0);
        wrong.extend(unlike(&format!("results lost by {output}"), Some(*span), seen));
    }
    let rest = lost_by.into_iter().filter(|(_, count)| *count != 0.0);
    wrong.extend(rest.map(|(output, count)| format!("{output} should lose no results; it lost {count}")));
    if !seen.summaries.is_empty() && !expect.copied_bytes.holds(copied) {
        wrong.push(format!("capture should copy {} bytes; it copied {copied}", expect.copied_bytes));
    }
}

fn dropped(stream: &Value) -> BTreeMap<String, u64> {
    let dropped = stream["dropped"].as_object().into_iter().flatten();
    dropped.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0))).collect()
}

/// Who noticed where no event says so: who started the program again or reset the machine, the ledger, or the log.
fn otherwise(scenario: &Scenario, seen: &Seen, span: &Range<u64>, shown: &mut Shown) {
    let ends: Vec<_> = seen
        .told
        .iter()
        .filter_map(|told| if let Told::End { how, .. } = told { Some(how) } else { None })
        .collect();
    let reasons: Vec<_> = (scenario.expect.streams.keys())
        .filter_map(|stream| {
            let frames = seen.frames.get(stream)?.iter().filter(|frame| span.contains(&frame.captured_ns));
            let reasons = reasons(frames);
            (!reasons.is_empty()).then(|| format!("{stream} {reasons}"))
        })
        .collect();
    (shown.noticed, shown.healed) = match (ends.as_slice(), reasons.first(), scenario.expect.log.first()) {
        _ if scenario.expect.resets > 0 => ("the hardware watchdog".to_owned(), "board reset".to_owned()),
        ([first, _, ..], ..) => (format!("the service manager: {first}"), "started again".to_owned()),
        (_, Some(reasons), _) => (format!("the ledger: {reasons}"), String::new()),
        (_, _, Some(log)) => (format!("the log: {log}"), String::new()),
        _ => (String::new(), String::new()),
    };
}

/// One record a frame, in the order of its stream.
fn in_order(stream: &str, frames: &[Frame], wrong: &mut Vec<String>) {
    let backwards = frames
        .windows(2)
        .find(|two| two[0].start == two[1].start && two[0].sequence.checked_add(1) != Some(two[1].sequence));
    if let Some([one, next]) = backwards {
        wrong.push(format!(
            "{stream}: after the record of frame {} comes that of {}, not of the next",
            one.sequence, next.sequence
        ));
    }
}

fn of_stream(
    stream: &str,
    expect: &StreamExpect,
    frames: &[Frame],
    span: &Range<u64>,
    wrong: &mut Vec<String>,
) {
    let count = |outcome: &str| frames.iter().filter(|frame| frame.outcome == outcome).count() as f64;
    let latency = frames.iter().filter_map(|frame| frame.latency_us).max().unwrap_or(0);
    let checks = [
        ("captured", expect.captured, frames.len() as f64),
        ("met", expect.met, count("met")),
        ("late", expect.late, count("late")),
        ("the largest latency in ms", expect.latency_max_ms, latency as f64 / 1e3),
        ("the longest time without a met frame in s", expect.outage_s, outage(frames, span) as f64 / 1e9),
    ];
    for (what, span, seen) in checks {
        wrong.extend(unlike(&format!("{stream}: {what}"), span, seen));
    }
    let mut dropped = BTreeMap::<&str, u32>::new();
    let lost = frames.iter().filter_map(|frame| frame.reason.as_deref());
    lost.for_each(|reason| *dropped.entry(reason).or_default() += 1);
    for (reason, span) in &expect.dropped {
        let seen = dropped.remove(reason.as_str()).unwrap_or(0);
        wrong.extend(unlike(&format!("{stream}: dropped {reason}"), Some(*span), f64::from(seen)));
    }
    let rest = dropped.into_iter();
    wrong.extend(
        rest.map(|(reason, count)| format!("{stream}: dropped {reason} should be 0; it was {count}")),
    );
}

fn unlike(what: &str, span: Option<Span>, seen: f64) -> Option<String> {
    let span = span.filter(|span| !span.holds(seen))?;
    Some(format!("{what} should be {span}; it was {seen}"))
}

/// Longest time within `span` in which no frame was captured that was met, its ends included where they are known.
fn outage(frames: &[Frame], span: &Range<u64>) -> u64 {
    let met = frames.iter().filter(|frame| frame.met()).map(|frame| frame.captured_ns);
    let met = met.filter(|captured| span.contains(captured));
    let instants: Vec<u64> =
        std::iter::once(span.start).chain(met).chain(Some(span.end).filter(|end| *end < u64::MAX)).collect();
    instants.windows(2).map(|two| two[1].saturating_sub(two[0])).max().unwrap_or(0)
}

/// Words for the ends of frames that were not met.
fn reasons<'a>(frames: impl Iterator<Item = &'a Frame>) -> String {
    let mut counts = BTreeMap::<&str, u32>::new();
    let missed = frames.filter(|frame| !frame.met());
    missed.for_each(|frame| *counts.entry(frame.reason.as_deref().unwrap_or("late")).or_default() += 1);
    counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

/// The event that was to come, and the instant from which it was to.
fn of_event<'a>(noticed: &Noticed, seen: &'a Seen, wrong: &mut Vec<String>) -> Option<(&'a Event, u64)> {
    let after = seen.step(&noticed.after)?;
    let later = || seen.events.iter().filter(|event| event.at_ns >= after && event.about == noticed.about);
    let found = later().find(|event| event.state == noticed.state && event.cause.contains(&noticed.cause));
    let what = format!("{} {} {:?} after {:?}", noticed.about, noticed.state, noticed.cause, noticed.after);
    match found {
        Some(event) => {
            wrong.extend(unlike(&what, Some(noticed.within_s), (event.at_ns - after) as f64 / 1e9));
        }
        None => {
            let events: Vec<_> = later().map(|event| format!("{} {:?}", event.state, event.cause)).collect();
            wrong.push(format!("{what} should come; there came [{}]", events.join(", ")));
        }
    }
    found.map(|event| (event, after))
}

/// How long after the step the first met frame was out.
fn is_back(back: &Back, seen: &Seen, wrong: &mut Vec<String>) -> Option<u64> {
    let after = seen.step(&back.after)?;
    let frames = seen.frames.get(&back.stream).into_iter().flatten();
    let first =
        frames.filter(|frame| frame.met() && frame.captured_ns > after).map(|frame| frame.finished_ns).min();
    let what = format!("{}: the first met frame after {:?}", back.stream, back.after);
    match first {
        Some(first) => wrong.extend(unlike(&what, Some(back.within_s), (first - after) as f64 / 1e9)),
        None => wrong.push(format!("{what} should come within {} s; there was none", back.within_s)),
    }
    first.map(|first| first - after)
}

fn grown(growth: Growth, seen: &Seen, wrong: &mut Vec<String>) {
    let sample = |told: &Told| match told {
        Told::Sample { rss_kb, files, threads, .. } => Some([*rss_kb, *files, *threads]),
        _ => None,
    };
    let samples: Vec<_> = seen.told.iter().filter_map(sample).collect();
    // What is there at the first is still growing to its size.
    let [_, first, .., last] = samples.as_slice() else {
        wrong.push(format!("growth needs three samples at least; there are {}", samples.len()));
        return;
    };
    let spans = [("memory in KiB", growth.rss_kb), ("open files", growth.files), ("threads", growth.threads)];
    for (index, (what, span)) in spans.into_iter().enumerate() {
        let more = last[index] as f64 - first[index] as f64;
        wrong.extend(unlike(&format!("growth of {what} (from {})", first[index]), Some(span), more));
    }
}

/// A cause without the names of the stream and its device, which are said already.
fn short(cause: &str) -> &str {
    let cause =
        cause.strip_prefix("stream `").and_then(|rest| Some(rest.split_once(": ")?.1)).unwrap_or(cause);
    if cause.starts_with("/dev/") { cause.split_once(": ").map_or(cause, |(_, rest)| rest) } else { cause }
}

fn seconds(nanos: u64) -> String {
    format!("{:.3} s", nanos as f64 / 1e9)
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("")
}
