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

/// A change of a stream's state.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub stream: String,
    pub at_ns: u64,
    pub state: String,
    pub cause: String,
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
        for line in text(&folder.join("agent.jsonl")).lines() {
            seen.told
                .push(serde_json::from_str(line).map_err(|error| format!("agent.jsonl: {error}: {line}"))?);
        }
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
        for line in whole.lines() {
            let failed = |error: serde_json::Error| format!("results.{start}.jsonl: {error}: {line}");
            // Keys stand in a fixed order, so the kind is found without reading the whole line.
            if line.starts_with("{\"v\":1,\"type\":\"frame\"") {
                let stream: OfStream = serde_json::from_str(line).map_err(failed)?;
                let mut frame: Frame = serde_json::from_str(line).map_err(failed)?;
                frame.start = start;
                self.frames.entry(stream.stream).or_default().push(frame);
            } else if line.starts_with("{\"v\":1,\"type\":\"event\"") {
                self.events.push(serde_json::from_str(line).map_err(failed)?);
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

    /// When the step of this name was begun, the first time.
    pub fn step(&self, wanted: &str) -> Option<u64> {
        self.told.iter().find_map(|told| match told {
            Told::Step { at_ns, name, .. } if name == wanted => Some(*at_ns),
            _ => None,
        })
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
