//! Diagnostics on standard error, beside the status block that stands there on a terminal.
//!
//! Whoever speaks is held up by nobody: lines go through a queue to a thread of their own. A terminal or a journal
//! that does not read costs lines, which are counted, and neither frames nor the proof of life.

use log::{Level, Log, Metadata, Record};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait.
const LINES: usize = 1024;
/// How long [`Log::flush`] waits for standard error to take them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to standard error; none before the start, or where the system gave no thread.
static QUEUE: OnceLock<SyncSender<Piece>> = OnceLock::new();
/// Pieces that found the queue full.
static LOST: AtomicU64 = AtomicU64::new(0);

/// What is written.
enum Piece {
    /// Something that stays.
    Line(Vec<u8>),
    /// The status block, until the next piece.
    Block(String),
    /// Nothing; all before it is out.
    Flush(SyncSender<()>),
}

/// Starts logging; `OCELLI_LOG` sets the level (error, warn, info, debug, trace), info by default.
pub fn start() {
    let wanted = std::env::var("OCELLI_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = env_filter::Builder::new().parse(&wanted).build();
    let most = filter.filter();
    // A second start (tests) keeps the first.
    if log::set_boxed_logger(Box::new(Logger(filter))).is_ok() {
        log::set_max_level(most);
        let (queue, pieces) = sync_channel(LINES);
        if std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&pieces)).is_ok() {
            let _ = QUEUE.set(queue);
        }
    }
}

/// Whether people are watching.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Draws the status block in place of the last one.
pub(super) fn draw(block: String) {
    send(Piece::Block(block));
}

/// Writes one line.
pub(super) fn line(text: &str) {
    send(Piece::Line(format!("{text}\n").into_bytes()));
}

fn send(piece: Piece) {
    let unsent = match QUEUE.get() {
        Some(queue) => queue.try_send(piece).is_err(),
        None => {
            put(piece, &mut 0);
            false
        }
    };
    if unsent {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// The thread `log`.
fn write_all(pieces: &Receiver<Piece>) {
    let mut block = 0;
    for piece in pieces {
        put(piece, &mut block);
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let said = format!("warning: {lost} lines were lost here: standard error was not read in time\n");
            put(Piece::Line(said.into_bytes()), &mut block);
        }
    }
}

/// Writes a piece in place of the status block, which has so many lines. A closed standard error is no reason to stop
/// the cameras.
fn put(piece: Piece, block: &mut usize) {
    let mut out = std::io::stderr().lock();
    if !matches!(piece, Piece::Flush(_)) && *block > 0 {
        // Up to the block's first line, and erase to the end of the screen.
        let _ = write!(out, "\x1b[{block}A\x1b[J");
        *block = 0;
    }
    match piece {
        Piece::Line(line) => drop(out.write_all(&line)),
        Piece::Block(text) => {
            let _ = out.write_all(text.as_bytes());
            *block = text.lines().count();
        }
        Piece::Flush(done) => drop(done.try_send(())),
    }
    let _ = out.flush();
}

/// Lines of what the filter lets through. Whoever speaks takes no lock of ours, so that one that runs before everybody
/// else may. Its flush waits until all is written, but for a second at most: to be called before the process ends.
struct Logger(env_filter::Filter);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.0.matches(record) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        line(&format!("{:.0} {level}{}", jiff::Timestamp::now(), record.args()));
    }

    fn flush(&self) {
        let (done, awaited) = sync_channel(1);
        if QUEUE.get().is_some_and(|queue| queue.try_send(Piece::Flush(done)).is_ok()) {
            let _ = awaited.recv_timeout(PATIENCE);
        }
    }
}
