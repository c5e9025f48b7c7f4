//! What is kept of a run: who it was, when it last spoke, and where its frames ended.

use crate::job::{DropReason, bounded};
use crate::stats::Ledger;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Longest reason for a run's end, in bytes.
const LONGEST_REASON: usize = 200;

/// One of a run's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    /// The board's name and digest.
    pub board: String,
    pub digest: String,
    /// The machine's start, as the kernel names it.
    pub boot_id: String,
    pub pid: u32,
    pub began: Moment,
    pub said: Moment,
    /// Why the run ended, once it has in order.
    pub ended: Option<String>,
    pub streams: Vec<Account>,
}

impl Word {
    /// Ends the run, in order.
    pub fn end(&mut self, why: &str) {
        // A control character would take six bytes.
        let why = why.replace(|c: char| c.is_control(), " ");
        self.ended = Some(bounded::<{ LONGEST_REASON / 2 }>(&why).as_str().to_owned());
    }

    pub fn text(&self) -> String {
        // Numbers, words and lists: nothing that JSON could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Bytes of the longest text that the run may have to say.
    pub fn longest(&self) -> usize {
        let mut longest = self.clone();
        let moment = Moment { monotonic_ns: u64::MAX, wall_ns: u64::MAX };
        (longest.began, longest.said, longest.pid) = (moment, moment, u32::MAX);
        longest.ended = Some("x".repeat(LONGEST_REASON));
        for stream in &mut longest.streams {
            let dropped = [u64::MAX; DropReason::ALL.len()];
            stream.set(&Ledger {
                captured: u64::MAX,
                met: u64::MAX,
                late: u64::MAX,
                dropped,
                in_flight: u64::MAX,
            });
        }
        longest.text().len()
    }
}

/// An instant on both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub monotonic_ns: u64,
    /// Since 1970; may jump.
    pub wall_ns: u64,
}

/// Where a stream's frames ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub id: String,
    pub captured: u64,
    pub met: u64,
    pub late: u64,
    /// By the reason's name, so that a version that has others can be read.
    pub dropped: BTreeMap<String, u64>,
    pub in_flight: u64,
}

impl Account {
    pub fn set(&mut self, ledger: &Ledger) {
        (self.captured, self.met, self.late) = (ledger.captured, ledger.met, ledger.late);
        self.in_flight = ledger.in_flight;
        for reason in DropReason::ALL {
            let count = ledger.dropped[reason.index()];
            if count > 0 {
                self.dropped.insert(reason.as_str().to_owned(), count);
            }
        }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.captured, other.captured),
            (&mut self.met, other.met),
            (&mut self.late, other.late),
            (&mut self.in_flight, other.in_flight),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (reason, count) in &other.dropped {
            let mine = self.dropped.entry(reason.clone()).or_default();
            *mine = mine.saturating_add(*count);
        }
    }

    fn to_json(&self) -> Map<String, Value> {
        let Value::Object(mut entry) = json!({
            "captured": self.captured,
            "met": self.met,
            "late": self.late,
            "dropped": self.dropped,
            "in_flight": self.in_flight,
        }) else {
            return Map::new();
        };
        if !self.id.is_empty() {
            entry.shift_insert(0, "id".into(), json!(self.id));
        }
        entry
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = self.dropped.values().fold(0, |all: u64, count| all.saturating_add(*count));
        write!(f, "captured {} = met {} + late {} + dropped {dropped}", self.captured, self.met, self.late)?;
        let mut reasons = self.dropped.iter().map(|(reason, count)| format!("{reason} {count}"));
        if let Some(first) = reasons.next() {
            write!(f, " ({})", reasons.fold(first, |all, reason| all + ", " + &reason))?;
        }
        write!(f, " + in flight {}", self.in_flight)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    Stopped,
    /// It was killed or crashed; the machine went on.
    Killed,
    /// The machine was reset, or lost its power.
    Reset,
}

/// A former run, as the next one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousRun {
    word: Word,
    pub(super) ending: Ending,
    /// From its last word to this start; `None` where no clock can tell.
    pub(super) gap: Option<Duration>,
    /// Whether the board files have changed since.
    board_changed: bool,
}

impl PreviousRun {
    pub(super) fn new(word: Word, now: Moment, boot_id: &str, digest: &str) -> Self {
        let same_boot = word.boot_id == boot_id && word.said.monotonic_ns <= now.monotonic_ns;
        let ending = match word.ended {
            Some(_) => Ending::Stopped,
            None if same_boot => Ending::Killed,
            None => Ending::Reset,
        };
        let gap = match same_boot {
            true => Some(now.monotonic_ns - word.said.monotonic_ns),
            false => now.wall_ns.checked_sub(word.said.wall_ns),
        };
        let board_changed = word.digest != digest;
        Self { ending, gap: gap.map(Duration::from_nanos), board_changed, word }
    }

    /// Whether it did not end in order.
    #[must_use]
    pub fn was_cut_off(&self) -> bool {
        self.ending != Ending::Stopped
    }

    fn total(&self) -> Account {
        let mut total = Account::default();
        self.word.streams.iter().for_each(|stream| total.add(stream));
        total
    }

    /// For the summary.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ending = match self.ending {
            Ending::Stopped => "stopped",
            Ending::Killed => "killed",
            Ending::Reset => "machine_reset",
        };
        let ran = self.word.said.monotonic_ns.saturating_sub(self.word.began.monotonic_ns);
        json!({
            "ended": ending,
            "why": self.word.ended,
            "pid": self.word.pid,
            "hash": self.word.digest,
            "began_wall_ns": self.word.began.wall_ns,
            "last_word_wall_ns": self.word.said.wall_ns,
            "duration_us": ran / 1000,
            "gap_us": self.gap.map(|gap| u64::try_from(gap.as_micros()).unwrap_or(u64::MAX)),
            "total": self.total().to_json(),
            "streams": self.word.streams.iter().map(Account::to_json).collect::<Vec<_>>(),
        })
    }

    /// For people: the first line sums up; where it was cut off, a line a stream follows.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let word = &self.word;
        let ran = Duration::from_nanos(word.said.monotonic_ns.saturating_sub(word.began.monotonic_ns));
        let gap = match self.gap {
            Some(gap) => format!("{} s", seconds(gap)),
            None => "a time that is not known, as the clock was set back,".to_owned(),
        };
        let how = match self.ending {
            Ending::Stopped => format!("ended in order ({})", word.ended.as_deref().unwrap_or_default()),
            Ending::Killed => "was killed, or crashed".to_owned(),
            Ending::Reset => "was cut off by a reset of the machine, or by a loss of power".to_owned(),
        };
        let changed = if self.board_changed { "; the board's files have changed since" } else { "" };
        let head =
            format!("the run before this one (pid {}, {} s long) {how}{changed}", word.pid, seconds(ran));
        if !self.was_cut_off() {
            return vec![format!("{head}, {gap} ago: {}", self.total())];
        }
        let mut lines = vec![format!(
            "{head}; its last word was {gap} before this start: {}; what came after that word, and the end of \
             what was in flight, nobody knows",
            self.total()
        )];
        lines.extend(word.streams.iter().map(|stream| format!("the run before: {}: {stream}", stream.id)));
        lines
    }
}

fn seconds(d: Duration) -> String {
    format!("{:.1}", d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Outcome;

    pub(crate) fn word(ended: Option<&str>) -> Word {
        let mut ledger = Ledger::default();
        ledger.capture(9);
        ledger.settle(Outcome::Met, 5);
        ledger.settle(Outcome::Dropped(DropReason::Hopeless), 2);
        let mut streams = ["front", "rear"].map(|id| Account { id: id.into(), ..Account::default() });
        streams.iter_mut().for_each(|stream| stream.set(&ledger));
        Word {
            board: "b".into(),
            digest: "d".into(),
            boot_id: "boot".into(),
            pid: 7,
            began: Moment { monotonic_ns: 1_000_000_000, wall_ns: 101_000_000_000 },
            said: Moment { monotonic_ns: 5_500_000_000, wall_ns: 105_500_000_000 },
            ended: ended.map(str::to_owned),
            streams: streams.to_vec(),
        }
    }

    fn seen(ended: Option<&str>, monotonic_ns: u64, wall_ns: u64, boot_id: &str) -> PreviousRun {
        PreviousRun::new(word(ended), Moment { monotonic_ns, wall_ns }, boot_id, "d")
    }

    #[test]
    fn how_it_ended_and_how_long_ago() {
        let later = (9_000_000_000, 109_000_000_000);
        let gap = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        let killed = seen(None, later.0, later.1, "boot");
        assert_eq!((killed.ending, killed.gap), (Ending::Killed, gap(3.5)));
        let stopped = seen(Some("SIGTERM"), later.0, later.1, "boot");
        assert_eq!((stopped.ending, stopped.was_cut_off()), (Ending::Stopped, false));
        let reset = seen(None, 100, 120_500_000_000, "another");
        assert_eq!((reset.ending, reset.gap), (Ending::Reset, gap(15.0)));
        // The clock of a board without a battery is back in 1970.
        assert_eq!(seen(None, 100, 5, "another").gap, None);
        // A kernel that names no start: the monotonic clock went back.
        assert_eq!(seen(None, 100, later.1, "boot").ending, Ending::Reset);
        // Wall clock steps do not matter while the machine goes on.
        assert_eq!(seen(None, later.0, 5, "boot").gap, gap(3.5));
    }

    #[test]
    fn it_is_told_with_every_stream_where_it_was_cut_off() {
        let lines = seen(None, 9_000_000_000, 109_000_000_000, "boot").lines();
        assert_eq!(lines.len(), 3);
        for part in [
            "pid 7, 4.5 s long",
            "killed",
            "3.5 s before",
            "captured 18 = met 10 + late 0 + dropped 4",
            "in flight 4",
        ] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        assert_eq!(
            lines[2],
            "the run before: rear: captured 9 = met 5 + late 0 + dropped 2 (hopeless 2) + in flight 2"
        );
        let lines = seen(Some("SIGTERM"), 9_000_000_000, 109_000_000_000, "boot").lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("ended in order (SIGTERM), 3.5 s ago"), "{lines:?}");
        let json = seen(None, 9_000_000_000, 109_000_000_000, "boot").to_json();
        assert_eq!((&json["ended"], &json["gap_us"]), (&json!("killed"), &json!(3_500_000)));
        assert_eq!(json["streams"][1]["dropped"], json!({"hopeless": 2}));
        assert_eq!(json["total"]["captured"], json!(18));
    }

    #[test]
    fn absurd_numbers_saturate() {
        let mut word = word(None);
        word.streams.iter_mut().for_each(|stream| {
            (stream.captured, stream.in_flight) = (u64::MAX, u64::MAX);
            stream.dropped = [("x".to_owned(), u64::MAX), ("y".to_owned(), u64::MAX)].into();
        });
        let run = PreviousRun::new(word, Moment::default(), "boot", "e");
        assert!(run.lines()[0].contains(&u64::MAX.to_string()), "{:?}", run.lines());
        assert!(run.lines()[0].contains("have changed since"));
    }
}
