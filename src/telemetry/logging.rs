//! Diagnostics on standard error, beside the status block that stands there on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lines of the status block at the bottom of the terminal, to be taken away before anything else is said.
static BLOCK: AtomicUsize = AtomicUsize::new(0);

/// Starts logging; `OCELLI_LOG` sets the level (error, warn, info, debug, trace), info by default.
pub fn start() {
    let environment = env_logger::Env::new().filter_or("OCELLI_LOG", "info");
    let mut builder = env_logger::Builder::from_env(environment);
    builder.format(|line, record| {
        write!(line, "{}", take_away())?;
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info => "",
            log::Level::Debug => "debug: ",
            log::Level::Trace => "trace: ",
        };
        writeln!(line, "{} {level}{}", line.timestamp_seconds(), record.args())
    });
    // A second start (tests) keeps the first.
    let _ = builder.try_init();
}

/// Whether people are watching.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Draws the status block in place of the last one.
pub(super) fn draw(block: &str) {
    let mut out = std::io::stderr().lock();
    // A closed standard error is no reason to stop the cameras.
    let _ = write!(out, "{}{block}", take_away());
    let _ = out.flush();
    BLOCK.store(block.lines().count(), Ordering::Relaxed);
}

/// Writes one status line.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The escape sequence that takes the block away: up to its first line, erase to the end of the screen.
fn take_away() -> String {
    match BLOCK.swap(0, Ordering::Relaxed) {
        0 => String::new(),
        lines => format!("\x1b[{lines}A\x1b[J"),
    }
}
