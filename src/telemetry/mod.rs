//! The control plane: signals, the time limit, and a word about the run now and then.
//!
//! Runs on the main thread, on tokio's single-threaded runtime. Architecture invariant: it asks the exec
//! thread and reads; should it die, the frames still flow.

mod duties;
pub mod logging;
mod status;

pub use duties::Duties;

use crate::board::Board;
use crate::platform::clock;
use crate::runtime::{LAST_EVERY, Running};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGINT or SIGTERM.
    Signal(&'static str),
    /// It has run for as long as it was asked to.
    TimeUp,
    /// Every stream has come to its end.
    AllEnded,
    /// Not one camera could be opened, and no service manager has started the run.
    NoneOpened,
    /// A thread that everything depends on has died.
    Broken,
}

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a line is written where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the block is drawn where it is one.
const BLOCK_EVERY: Duration = Duration::from_secs(1);

/// Signals, from the moment it is made.
pub struct Control {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// One that came before the run was watched.
    came: Option<&'static str>,
}

impl Control {
    /// From here on SIGINT and SIGTERM end nothing by themselves.
    ///
    /// # Errors
    /// When the system gives no event loop or no signal handlers.
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let within = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        drop(within);
        Ok(Self { runtime, signals: Signals { interrupt, terminate, came: None } })
    }

    /// The signal that asks to stop, if one has come.
    pub fn asked_to_stop(&mut self) -> Option<&'static str> {
        let signals = &mut self.signals;
        if signals.came.is_none() {
            // Long enough for the event loop to look around once.
            let glance = Duration::from_millis(1);
            signals.came = self.runtime.block_on(async { timeout(glance, signals.next()).await.ok() });
        }
        signals.came
    }

    /// Watches a run until it should end, and does its duties. On a terminal it shows a block that is drawn anew
    /// each second, else a line every five seconds.
    pub fn watch(
        &mut self,
        running: &mut Running,
        board: &Board,
        limit: Option<Duration>,
        duties: &mut Duties,
    ) -> End {
        match self.signals.came {
            Some(signal) => End::Signal(signal),
            None => self.runtime.block_on(until_end(&mut self.signals, running, board, limit, duties)),
        }
    }
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

async fn until_end(
    signals: &mut Signals,
    running: &mut Running,
    board: &Board,
    limit: Option<Duration>,
    duties: &mut Duties,
) -> End {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let terminal = logging::stderr_is_terminal();
    let every = if terminal { BLOCK_EVERY } else { LINE_EVERY };
    let (mut due, mut next) = (running.began() + every, running.began());
    let mut spare = Some(running.new_snapshot());
    let mut status = status::Status::new(board, terminal, running.began());
    loop {
        tokio::select! {
            signal = signals.next() => return End::Signal(signal),
            _ = looks.tick() => {}
        }
        let now = clock::now();
        if let Some(snapshot) = running.answer() {
            duties.heard(now, &snapshot);
            if snapshot.with_latency {
                duties.service.status(&status.show(now, &snapshot, running.sensed().as_ref()));
            }
            spare = Some(snapshot);
        }
        if now >= next.min(due)
            && let Some(mut snapshot) = spare.take()
        {
            snapshot.with_latency = now >= due;
            if now >= due {
                due = now + every;
            }
            next = now + LAST_EVERY;
            running.ask(snapshot);
        }
        // A service waits for its cameras: who ends is started again a few times and then no more, and nobody would be
        // there when they come.
        if running.none_opened() && !duties.service.is_managed() {
            return End::NoneOpened;
        }
        duties.begun();
        if running.is_broken() {
            return End::Broken;
        }
        if running.all_ended() {
            return End::AllEnded;
        }
        if limit.is_some_and(|limit| now >= running.began() + limit) {
            return End::TimeUp;
        }
    }
}
