//! The run in a few words, for people.

use crate::board::Board;
use crate::job::DropReason;
use crate::runtime::{Sensed, Snapshot};
use crate::stats::Ledger;
use crate::telemetry::logging;
use crate::time::Instant;
use std::fmt::Write;
use std::time::Duration;

/// What was shown last, so that rates can be told.
pub(super) struct Status {
    ids: Vec<String>,
    name: String,
    terminal: bool,
    began: Instant,
    last: Instant,
    captured: Vec<u64>,
}

impl Status {
    pub(super) fn new(board: &Board, terminal: bool, began: Instant) -> Self {
        let ids: Vec<String> = board.streams.iter().map(|stream| stream.id.clone()).collect();
        Self { captured: vec![0; ids.len()], ids, name: board.name.clone(), terminal, began, last: began }
    }

    /// Shows it, and returns the line that sums up.
    pub(super) fn show(&mut self, now: Instant, snapshot: &Snapshot, sensed: Option<&Sensed>) -> String {
        let head = self.head(now, snapshot, sensed);
        if self.terminal {
            logging::draw(format!("{head}{}", self.rows(now, snapshot)));
        } else {
            logging::line(head.trim_end());
        }
        self.last = now;
        for (captured, (ledger, ..)) in self.captured.iter_mut().zip(&snapshot.streams) {
            *captured = ledger.captured;
        }
        head
    }

    fn head(&self, now: Instant, snapshot: &Snapshot, sensed: Option<&Sensed>) -> String {
        let mut total = Ledger::default();
        snapshot.streams.iter().for_each(|(ledger, ..)| total.add(ledger));
        let (batches, jobs, faults) = snapshot.batches;
        let quantile = |q| snapshot.latency.quantile(q).map_or("-".to_owned(), millis);
        let mut text = format!(
            "{} {:>4} s  captured {}  met {}  late {}  dropped {}  latency p50 {} p99 {} max {}  batch {:.1}",
            self.name,
            now.since(self.began).as_secs(),
            total.captured,
            percent(total.met, total.captured - total.in_flight),
            total.late,
            total.dropped_total(),
            quantile(0.5),
            quantile(0.99),
            snapshot.latency.max().map_or("-".to_owned(), millis),
            jobs as f64 / batches.max(1) as f64,
        );
        if faults > 0 {
            let _ = write!(text, "  FAILED BATCHES {faults}");
        }
        let sensed = sensed.map(Sensed::to_string).filter(|sensed| !sensed.is_empty());
        if let Some(sensed) = sensed {
            let _ = write!(text, "  {sensed}");
        }
        if snapshot.guaranteed == Some(false) {
            text.push_str("  GUARANTEE WITHDRAWN");
        }
        text.push('\n');
        text
    }

    fn rows(&self, now: Instant, snapshot: &Snapshot) -> String {
        let seconds = now.since(self.last).as_secs_f64().max(1e-3);
        let width = self.ids.iter().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for ((id, before), (ledger, state, max)) in self.ids.iter().zip(&self.captured).zip(&snapshot.streams)
        {
            let rate = ledger.captured.saturating_sub(*before) as f64 / seconds;
            let _ = writeln!(
                text,
                "  {id:width$}  {:8}  {rate:5.1} fps  met {:>7}  late {:<5} dropped {:<6} max {:>9}{}",
                state.as_str(),
                percent(ledger.met, ledger.captured - ledger.in_flight),
                ledger.late,
                ledger.dropped_total(),
                max.map_or("-".to_owned(), millis),
                main_reason(ledger),
            );
        }
        text
    }
}

/// The reason that cost the most frames.
fn main_reason(ledger: &Ledger) -> String {
    match DropReason::ALL.into_iter().max_by_key(|reason| ledger.dropped[reason.index()]) {
        Some(reason) if ledger.dropped[reason.index()] > 0 => format!("  mostly {}", reason.as_str()),
        _ => String::new(),
    }
}

/// Rounded down, so that 100 % means all.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.2} %", (part * 10_000 / whole) as f64 / 100.0)
}

fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1e3)
}
