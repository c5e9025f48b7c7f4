//! The control plane: signals, the time limit, and a word about the run now and then.
//!
//! Runs on the main thread, on tokio's single-threaded runtime. Architecture invariant: it asks the exec
//! thread and reads; should it die, the frames still flow.

pub mod logging;
mod status;

use crate::board::Board;
use crate::platform::clock;
use crate::runtime::Running;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGINT or SIGTERM.
    Signal(&'static str),
    /// It has run for as long as it was asked to.
    TimeUp,
    /// Every stream has come to its end.
    AllEnded,
    /// Not one camera could be opened.
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

/// Watches a run until it should end. On a terminal it shows a block that is drawn anew each second, else a
/// line every five seconds.
///
/// # Errors
/// When the system gives no event loop or no signal handlers.
pub fn watch(running: &mut Running, board: &Board, limit: Option<Duration>) -> std::io::Result<End> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_end(running, board, limit))
}

async fn until_end(running: &mut Running, board: &Board, limit: Option<Duration>) -> std::io::Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let terminal = logging::stderr_is_terminal();
    let every = if terminal { BLOCK_EVERY } else { LINE_EVERY };
    let mut due = running.began() + every;
    let mut spare = Some(running.new_snapshot());
    let mut status = status::Status::new(board, terminal, running.began());
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(End::Signal("SIGINT")),
            _ = terminate.recv() => return Ok(End::Signal("SIGTERM")),
            _ = looks.tick() => {}
        }
        let now = clock::now();
        if let Some(snapshot) = running.answer() {
            status.show(now, &snapshot);
            spare = Some(snapshot);
        }
        if now >= due
            && let Some(snapshot) = spare.take()
        {
            due = now + every;
            running.ask(snapshot);
        }
        if running.none_opened() {
            return Ok(End::NoneOpened);
        }
        if running.is_broken() {
            return Ok(End::Broken);
        }
        if running.all_ended() {
            return Ok(End::AllEnded);
        }
        if limit.is_some_and(|limit| now >= running.began() + limit) {
            return Ok(End::TimeUp);
        }
    }
}
