//! Outputs: everything that takes finished records out of the process.
//!
//! An output has a thread and a ring of its own. A slow or dead reader or a full disk costs that output
//! counted results, and nobody a frame. Architecture invariant: whoever pushes never waits, allocates or
//! formats; letters are made at start and go round between the pushing thread and the output's.

mod feed;
pub mod json;
mod lines;
pub mod pictures;
pub(crate) mod recent;
#[cfg(test)]
mod samples;
mod socket;
#[cfg(test)]
mod tests;

use crate::board::{Board, Output, OutputTo};
use crate::platform::{Waker, clock};
use crate::record::{Event, Message};
use crate::ring::{Receiver, Sender, ring};
use crate::stream::{StreamId, StreamState};
use crate::time::{Instant, nanos};
pub use json::schema;
use lines::Lines;
use socket::Socket;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Messages that may wait for an output.
pub const LETTERS: usize = 1024;
/// How long outputs may take to hand on what is left when the runtime stops.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Letters between two writes, so that a burst does not pile up in front of a destination that is fine.
const BUNCH: usize = 16;

/// Why outputs could not be opened (exit code 73).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct StartError {
    /// What went wrong, with names.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// A message on its way to one output.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Messages that this output lost between the previous letter and this one.
    pub missing: u64,
    /// Nanoseconds since 1970 when it was pushed.
    pub wall: u64,
    /// What is to be written.
    pub message: Message,
    /// Frames after the message's that ended the same way, each `period` later: the output's thread makes a
    /// record of each, so that a camera that comes back after a long time holds up nobody.
    pub more: u64,
    /// From one frame of the run to the next.
    pub period: Duration,
}

impl Letter {
    /// Makes the message that of the run's next frame; false at its end.
    fn advance(&mut self) -> bool {
        let Message::Frame(record) = &mut self.message else { return false };
        if self.more == 0 {
            return false;
        }
        self.more -= 1;
        self.missing = 0;
        record.sequence += 1;
        record.captured = record.captured + self.period;
        record.deadline = record.deadline + self.period;
        true
    }
}

/// A destination of results. All calls come from its own thread, so it may allocate, format and log.
pub trait Sink: Send {
    /// Takes a message over; loses it, counted, when there is no room.
    fn take(&mut self, letter: &Letter);

    /// Hands on what the destination takes at `now`. Returns how soon to be called again if nothing comes;
    /// `None`: no need to.
    fn pump(&mut self, now: Instant) -> Option<Duration>;

    /// Where the messages taken are.
    fn progress(&self) -> Progress;

    /// The first thing that went wrong, in words.
    fn fault(&self) -> Option<&str>;
}

/// Where the messages are that a sink has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// With the destination.
    pub written: u64,
    /// Given up.
    pub lost: u64,
    /// Waiting for the destination to take them.
    pub held: u64,
    /// Whether the destination refuses at present, so that waiting for it is in vain.
    pub failing: bool,
}

/// How an output ended. It is incomplete (exit code 74) when `lost` is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkReport {
    /// Its name in the board file.
    pub name: String,
    /// Messages that its destination took.
    pub written: u64,
    /// Messages that did not reach it.
    pub lost: u64,
    /// The first thing that went wrong, if anything did. With `lost` at zero it has been made good.
    pub error: Option<String>,
}

/// What the pushing thread and the output's thread tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// By the pushing thread: messages that found a letter, and those that found none.
    pushed: AtomicU64,
    refused: AtomicU64,
    /// By the output's thread: letters taken out of the ring, then as in [`Progress`].
    taken: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    held: AtomicU64,
    fault: Mutex<Option<String>>,
    /// When the output must stop, in nanoseconds of the clock; zero: not yet.
    stop_at: AtomicU64,
}

/// The pushing half of an output. One thread's.
pub struct Outlet {
    full: Sender<Box<Letter>>,
    free: Receiver<Box<Letter>>,
    missing: u64,
    shared: Arc<Shared>,
    waker: Waker,
}

impl Outlet {
    /// Hands a message to the output's ring, or counts it as lost when the ring is full. Never waits.
    pub fn push(&mut self, message: &Message) {
        self.push_run(message, 1, Duration::ZERO);
    }

    /// As [`Outlet::push`], for `count` frames that ended alike, a `period` apart; `message` is the first's.
    pub fn push_run(&mut self, message: &Message, count: u64, period: Duration) {
        let Some(mut letter) = self.free.dequeue() else {
            self.missing += count;
            self.shared.refused.fetch_add(count, Relaxed);
            return;
        };
        letter.more = count.saturating_sub(1);
        letter.period = period;
        letter.missing = std::mem::take(&mut self.missing);
        letter.wall = clock::wall();
        letter.message.clone_from(message);
        self.shared.pushed.fetch_add(count, Relaxed);
        // The ring has room for every letter that exists.
        let kept = self.full.enqueue(letter);
        debug_assert!(kept.is_ok(), "more letters than were made");
    }

    /// Wakes the output's thread. To be called once after a bunch of pushes.
    pub fn flush(&self) {
        self.waker.wake();
    }
}

/// The outputs' threads.
pub struct Sinks(Vec<Running>);

/// How an output's thread keeps up, seen from outside.
#[derive(Debug)]
pub struct Pace {
    name: String,
    shared: Arc<Shared>,
}

impl Pace {
    /// The output's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Messages that were pushed to it, and those that its thread has taken.
    #[must_use]
    pub fn pushed_and_taken(&self) -> (u64, u64) {
        let taken = self.shared.taken.load(Relaxed);
        (self.shared.pushed.load(Relaxed), taken)
    }
}

struct Running {
    name: String,
    shared: Arc<Shared>,
    waker: Waker,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

/// Opens all outputs and starts a thread `sink-<name>` for each. An outlet for each, in the same order.
///
/// # Errors
/// The first output that can't be opened, with what to do about it. Then nothing runs.
pub fn start(
    outputs: &[Output],
    board: &Arc<Board>,
    version: &str,
) -> Result<(Vec<Outlet>, Sinks), StartError> {
    let mut open: Vec<Box<dyn Sink>> = Vec::new();
    let mut files: Vec<((u64, u64), &str)> = Vec::new();
    for output in outputs {
        let lines = match &output.to {
            OutputTo::Socket(path) => {
                open.push(Box::new(Socket::listen(path, board, version)?));
                continue;
            }
            OutputTo::File(path) => Lines::create(path, board, version)?,
            OutputTo::Stdout => Lines::stdout(board, version)?,
        };
        if let Some(identity) = lines.identity() {
            if let Some((_, other)) = files.iter().find(|(known, _)| *known == identity) {
                return Err(StartError {
                    what: format!("the outputs {other} and {} are the same file", output.name),
                    remedy: "give each output a file of its own".into(),
                });
            }
            files.push((identity, &output.name));
        }
        open.push(Box::new(lines));
    }
    let (mut outlets, mut sinks) = (Vec::new(), Vec::new());
    for (output, sink) in outputs.iter().zip(open) {
        let (outlet, running) = spawn(&output.name, sink)?;
        outlets.push(outlet);
        sinks.push(running);
    }
    Ok((outlets, Sinks(sinks)))
}

fn spawn(name: &str, sink: Box<dyn Sink>) -> Result<(Outlet, Running), StartError> {
    let (full, inbox) = ring::<Box<Letter>, { LETTERS + 1 }>();
    let (mut outbox, free) = ring::<Box<Letter>, { LETTERS + 1 }>();
    for _ in 0..LETTERS {
        let _ = outbox.enqueue(Box::new(blank()));
    }
    let shared = Arc::new(Shared::default());
    let waker = Waker::new();
    let (alive, ended) = mpsc::channel();
    let theirs = (Arc::clone(&shared), waker.clone());
    std::thread::Builder::new()
        .name(format!("sink-{name}"))
        .spawn(move || {
            run(sink, inbox, outbox, &theirs.0, &theirs.1);
            drop(alive);
        })
        .map_err(|error| StartError {
            what: format!("cannot start the thread of output {name}: {error}"),
            remedy: "raise the limit of threads (ulimit -u)".into(),
        })?;
    let running = Running { name: name.into(), shared: Arc::clone(&shared), waker: waker.clone(), ended };
    Ok((Outlet { full, free, missing: 0, shared, waker }, running))
}

fn blank() -> Letter {
    let event = Event {
        at: Instant::default(),
        stream: StreamId(0),
        state: StreamState::Starting,
        cause: heapless::String::new(),
    };
    Letter { missing: 0, wall: 0, message: Message::Event(event), more: 0, period: Duration::ZERO }
}

/// An output's thread.
fn run(
    mut sink: Box<dyn Sink>,
    mut inbox: Receiver<Box<Letter>>,
    mut outbox: Sender<Box<Letter>>,
    shared: &Shared,
    waker: &Waker,
) {
    waker.attach();
    // A run of which more records are to be made.
    let mut under_way: Option<Box<Letter>> = None;
    loop {
        // Read first: what was pushed before the stop is in the ring by now.
        let stop_at = shared.stop_at.load(Acquire);
        let mut bunch = 0;
        while bunch < BUNCH
            && let Some(mut letter) = under_way.take().or_else(|| inbox.dequeue())
        {
            sink.take(&letter);
            bunch += 1;
            shared.taken.fetch_add(1, Relaxed);
            if letter.advance() {
                under_way = Some(letter);
            } else {
                let _ = outbox.enqueue(letter);
            }
        }
        shared.note(sink.as_ref());
        let now = clock::now();
        let soon = sink.pump(now);
        shared.note(sink.as_ref());
        if bunch == BUNCH && (stop_at == 0 || now.as_nanos() < stop_at) {
            continue;
        }
        if stop_at != 0 {
            let Progress { held, failing, .. } = sink.progress();
            if held == 0 || failing || now.as_nanos() >= stop_at {
                return;
            }
        }
        waker.wait_until(soon.map(|soon| now + soon));
    }
}

impl Shared {
    fn note(&self, sink: &dyn Sink) {
        let Progress { written, lost, held, .. } = sink.progress();
        self.written.store(written, Relaxed);
        self.lost.store(lost, Relaxed);
        self.held.store(held, Relaxed);
        if let Some(fault) = sink.fault() {
            self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| fault.into());
        }
    }

    fn lost(&self) -> u64 {
        self.refused.load(Relaxed) + self.lost.load(Relaxed)
    }
}

impl Sinks {
    /// Each output's name and what it has lost so far (`results_lost`).
    pub fn lost(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|sink| (sink.name.as_str(), sink.shared.lost()))
    }

    /// A view of each output's pace.
    #[must_use]
    pub fn paces(&self) -> Vec<Pace> {
        self.0.iter().map(|sink| Pace { name: sink.name.clone(), shared: sink.shared.clone() }).collect()
    }

    /// Stops after the last push: outputs hand on what is left within `patience`, all at once. One that does
    /// not come back by then is left behind, and what it still had is lost.
    #[must_use]
    pub fn finish(self, patience: Duration) -> Vec<SinkReport> {
        let stop_at = clock::now() + patience;
        for sink in &self.0 {
            sink.shared.stop_at.store(stop_at.as_nanos().max(1), Release);
            sink.waker.wake();
        }
        self.0.into_iter().map(|sink| sink.finish(stop_at, patience)).collect()
    }
}

impl Running {
    fn finish(self, stop_at: Instant, patience: Duration) -> SinkReport {
        // A little longer than the thread's own patience, so that it can end by itself.
        let left = stop_at.since(clock::now()) + Duration::from_millis(100);
        let stuck = self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout);
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let shared = &self.shared;
        let in_ring = count(&shared.pushed) - count(&shared.taken);
        let lost = shared.lost() + count(&shared.held) + in_ring;
        let mut error = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        if lost > 0 && error.is_none() {
            error = Some(if stuck {
                format!("its reader took nothing for {} s", nanos(patience) / 1_000_000_000)
            } else {
                "its reader was too slow".into()
            });
        }
        SinkReport { name: self.name, written: count(&shared.written), lost, error }
    }
}
