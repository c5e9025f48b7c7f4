//! What came home from a machine: the agent's account, the results, the summaries, the log.

use crate::agent::Told;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All that was seen of one run of a scenario.
#[derive(Debug, Default)]
pub struct Seen {
    pub told: Vec<Told>,
    /// Frames by stream, in the order in which they ended.
    pub frames: BTreeMap<String, Vec<Frame>>,
    pub events: Vec<Event>,
    /// Summaries by the number of the start.
    pub summaries: BTreeMap<usize, Value>,
    pub log: String,
    /// How far the monotonic clock is behind the wall clock, in the first results.
    behind_ns: Option<i64>,
    resets: u32,
}

/// The end of a frame.
#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    /// The program's n-th start, from 1.
    #[serde(default)]
    pub start: usize,
    pub sequence: u64,
    pub captured_ns: u64,
    pub finished_ns: u64,
    pub latency_us: Option<u64>,
    pub outcome: String,
    pub reason: Option<String>,
}

/// A change of a stream's state, or something that the supervisor saw or did.
#[derive(Clone, Debug)]
pub struct Event {
    /// The stream, or what the supervisor is about: `capture a0`.
    pub about: String,
    pub at_ns: u64,
    pub state: String,
    pub cause: String,
}

#[derive(Deserialize)]
struct Changed {
    stream: String,
    at_ns: u64,
    state: String,
    cause: String,
}

#[derive(Deserialize)]
struct Intervened {
    at_ns: u64,
    scope: String,
    subject: String,
    action: String,
    cause: String,
}

#[derive(Deserialize)]
struct Header {
    clock: Clock,
}

#[derive(Deserialize)]
struct Clock {
    monotonic_ns: i64,
    wall_ns: i64,
}

#[derive(Deserialize)]
struct OfStream {
    stream: String,
}

impl Frame {
    pub fn met(&self) -> bool {
        self.outcome == "met"
    }
}

impl Seen {
    /// Reads what lies in `folder`.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let mut seen = Self { log: text(&folder.join("log")), ..Self::default() };
        // A service's, of each time that the machine came up.
        (0..8).for_each(|resets| seen.log.push_str(&text(&folder.join(format!("log.{resets}")))));
        for line in text(&folder.join("agent.jsonl")).lines() {
            seen.told
                .push(serde_json::from_str(line).map_err(|error| format!("agent.jsonl: {error}: {line}"))?);
        }
        let boots = seen.told.iter().filter(|told| matches!(told, Told::Boot { .. })).count();
        seen.resets = boots.saturating_sub(1) as u32;
        let starts = seen.told.iter().filter(|told| matches!(told, Told::Start { .. })).count();
        for start in 1..=starts {
            seen.results(start, &text(&folder.join(format!("results.{start}.jsonl"))))?;
            let summary = text(&folder.join(format!("summary.{start}.json")));
            // A program that was killed leaves an empty one.
            if !summary.is_empty() {
                let summary = serde_json::from_str(&summary);
                seen.summaries
                    .insert(start, summary.map_err(|error| format!("summary.{start}.json: {error}"))?);
            }
        }
        Ok(seen)
    }

    fn results(&mut self, start: usize, text: &str) -> Result<(), String> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _cut)| whole);
        let mut shift = 0;
        for line in whole.lines() {
            let failed = |error: serde_json::Error| format!("results.{start}.jsonl: {error}: {line}");
            if line.starts_with("{\"v\":1,\"type\":\"header\"") {
                let Header { clock } = serde_json::from_str(line).map_err(failed)?;
                let behind = clock.wall_ns - clock.monotonic_ns;
                // After a reset the clock has begun anew: what it says is made to go on.
                if self.resets > 0 {
                    shift = behind - *self.behind_ns.get_or_insert(behind);
                }
            }
            let on = |ns: u64| ns.saturating_add_signed(shift);
            // Keys stand in a fixed order, so the kind is found without reading the whole line.
            if line.starts_with("{\"v\":1,\"type\":\"frame\"") {
                let stream: OfStream = serde_json::from_str(line).map_err(failed)?;
                let mut frame: Frame = serde_json::from_str(line).map_err(failed)?;
                frame.start = start;
                (frame.captured_ns, frame.finished_ns) = (on(frame.captured_ns), on(frame.finished_ns));
                self.frames.entry(stream.stream).or_default().push(frame);
            } else if line.starts_with("{\"v\":1,\"type\":\"event\"") {
                let Changed { stream: about, at_ns, state, cause } =
                    serde_json::from_str(line).map_err(failed)?;
                self.events.push(Event { about, at_ns: on(at_ns), state, cause });
            } else if line.starts_with("{\"v\":1,\"type\":\"supervision\"") {
                let Intervened { at_ns, scope, subject, action, cause } =
                    serde_json::from_str(line).map_err(failed)?;
                let about = format!("{scope} {subject}");
                self.events.push(Event { about, at_ns: on(at_ns), state: action, cause });
            }
        }
        Ok(())
    }

    /// When the run began: the program's first line of results.
    pub fn began(&self) -> Option<u64> {
        self.told.iter().find_map(|told| match told {
            Told::Running { at_ns, .. } => Some(*at_ns),
            _ => None,
        })
    }

    /// When the step of this name was begun, the first time; without a name, when the run began.
    pub fn step(&self, wanted: &str) -> Option<u64> {
        if wanted.is_empty() {
            return self.began();
        }
        self.told.iter().find_map(|told| match told {
            Told::Step { at_ns, name, .. } if name == wanted => Some(*at_ns),
            _ => None,
        })
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
