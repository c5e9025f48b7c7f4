//! What must be seen of a scenario, as its file says it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A number, or the least and the most.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    Exactly(f64),
    Within([f64; 2]),
}

impl Span {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Exactly(exactly) => value == exactly,
            Self::Within([least, most]) => (least..=most).contains(&value),
        }
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(exactly) => write!(f, "{exactly}"),
            Self::Within([least, most]) => write!(f, "{least} to {most}"),
        }
    }
}

/// What must be seen. That every captured frame has one end, and one record, is always checked; so is that
/// nothing panicked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// How each start of the program ended, in their order: an exit code, or a signal's name.
    pub ends: Vec<String>,
    /// Bytes that capture copied.
    pub copied_bytes: Span,
    /// Frames captured in the first so many seconds, and after the order to stop, are not judged but for their
    /// order and their sums.
    pub settle_s: f64,
    /// Streams to which something happens. All others must have every frame met.
    pub streams: BTreeMap<String, StreamExpect>,
    /// Who notices what.
    pub noticed: Vec<Noticed>,
    /// Who is back when.
    pub back: Vec<Back>,
    /// Texts that the program's log must have.
    pub log: Vec<String>,
    /// How much memory (KiB), open files and threads may grow from the second sample to the last.
    pub growth: Option<Growth>,
    /// How often the machine was reset.
    pub resets: u32,
    /// Results that outputs lost, by output. One that is not named must lose none.
    pub lost: BTreeMap<String, Span>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            ends: vec!["0".to_owned()],
            copied_bytes: Span::Exactly(0.0),
            settle_s: 1.0,
            streams: BTreeMap::new(),
            noticed: Vec::new(),
            back: Vec::new(),
            log: Vec::new(),
            growth: None,
            resets: 0,
            lost: BTreeMap::new(),
        }
    }
}

/// Of one stream, of what was captured after the first seconds, over all starts of the program. What is not said is free, but for drops: a reason that is
/// not named must not occur.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamExpect {
    pub captured: Option<Span>,
    pub met: Option<Span>,
    pub late: Option<Span>,
    pub dropped: BTreeMap<String, Span>,
    pub latency_max_ms: Option<Span>,
    /// Longest time from one met frame's capture to the next's.
    pub outage_s: Option<Span>,
}

/// An event in the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noticed {
    /// The step after which; without it the start of the run.
    #[serde(default)]
    pub after: String,
    /// The stream, or what the supervisor intervened in: `capture a0`, `thread pub`...
    pub about: String,
    /// The stream's new state, or what was done.
    pub state: String,
    /// What its cause must have in it.
    #[serde(default)]
    pub cause: String,
    pub within_s: Span,
}

/// The first frame of a stream that is captured after a step and met.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Back {
    pub after: String,
    pub stream: String,
    pub within_s: Span,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    pub rss_kb: Span,
    pub files: Span,
    pub threads: Span,
}
