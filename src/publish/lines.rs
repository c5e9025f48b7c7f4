//! JSON Lines to a file, a pipe or standard output.

use crate::board::Board;
use crate::platform::clock;
use crate::publish::feed::Feed;
use crate::publish::recent::Recent;
use crate::publish::{Letter, Progress, Sink, StartError, json};
use crate::time::Instant;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a destination that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);
/// How soon a pipe that was full is looked at again.
const LOOK: Duration = Duration::from_millis(20);

/// One file descriptor that takes JSON Lines.
#[derive(Debug)]
pub(super) struct Lines {
    board: Arc<Board>,
    /// What it is, for people: a path, or "standard output".
    name: String,
    file: File,
    feed: Feed,
    recent: Recent,
    scratch: Vec<u8>,
    outage: Outage,
    fault: Option<String>,
    /// Whether the file was made by us and may be cut.
    ours: bool,
}

/// Whether the destination takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    None,
    /// It failed; to be tried again then.
    Until(Instant),
    /// Its reader has gone for good.
    Closed,
}

impl Lines {
    /// Starts a file anew. A named pipe must have its reader already.
    ///
    /// # Errors
    /// The path and what to do about it.
    pub fn create(path: &Path, board: &Arc<Board>, version: &str) -> Result<Self, StartError> {
        let refused = |error: &Error| StartError {
            what: format!("cannot create the results file {}: {error}", path.display()),
            remedy: remedy(path, error),
        };
        // Non-blocking: a pipe that is full, or has no reader, must not stop the start or the end.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| refused(&error))?;
        let metadata = file.metadata().map_err(|error| refused(&error))?;
        if metadata.is_file() {
            file.set_len(0).map_err(|error| refused(&error))?;
        }
        Ok(Self::over(file, path.display().to_string(), metadata.is_file(), board, version))
    }

    /// Standard output.
    ///
    /// # Errors
    /// When the process has none.
    pub fn stdout(board: &Arc<Board>, version: &str) -> Result<Self, StartError> {
        let owned = std::io::stdout().as_fd().try_clone_to_owned().map_err(|error| StartError {
            what: format!("cannot write results to standard output: {error}"),
            remedy: "redirect it to a file, or name a file with --results".into(),
        })?;
        Ok(Self::over(File::from(owned), "standard output".into(), false, board, version))
    }

    pub(super) fn over(file: File, name: String, ours: bool, board: &Arc<Board>, version: &str) -> Self {
        let mut header = Vec::new();
        json::header(&mut header, board, version, clock::now(), clock::wall());
        Self {
            board: Arc::clone(board),
            name,
            file,
            feed: Feed::new(&header),
            recent: Recent::new(board),
            scratch: Vec::new(),
            outage: Outage::None,
            fault: None,
            ours,
        }
    }

    /// The file's identity, where writing to it twice would mix the lines.
    pub fn identity(&self) -> Option<(u64, u64)> {
        let metadata = self.file.metadata().ok().filter(|metadata| metadata.is_file())?;
        Some((metadata.dev(), metadata.ino()))
    }
}

impl Sink for Lines {
    fn take(&mut self, letter: &Letter) {
        self.recent.note(&letter.message);
        self.scratch.clear();
        json::message(&mut self.scratch, &self.board, &self.recent, letter.wall, &letter.message);
        self.feed.take(&self.scratch, letter.missing);
    }

    fn pump(&mut self, now: Instant) -> Option<Duration> {
        match self.outage {
            Outage::Closed => return None,
            Outage::Until(at) if now < at => return Some(at.since(now)),
            Outage::Until(_) | Outage::None => {}
        }
        match self.feed.pump(&mut self.file) {
            Ok(()) => {
                if self.outage != Outage::None {
                    self.outage = Outage::None;
                    log::info!("{} takes results again, {} were lost", self.name, self.feed.lost);
                }
                (!self.feed.is_empty()).then_some(LOOK)
            }
            Err(error) => {
                let fault = format!("cannot write results to {}: {error}", self.name);
                if self.outage == Outage::None {
                    log::warn!("{fault}");
                }
                self.fault.get_or_insert(fault);
                let closed = error.kind() == ErrorKind::BrokenPipe;
                self.outage = if closed { Outage::Closed } else { Outage::Until(now + RETRY) };
                (!closed).then_some(RETRY)
            }
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            written: self.feed.written,
            lost: self.feed.lost,
            held: self.feed.held(),
            failing: self.outage != Outage::None,
        }
    }

    fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

impl Drop for Lines {
    /// Cuts a line that the disk took half of.
    fn drop(&mut self) {
        if let (true, begun @ 1.., Ok(metadata)) = (self.ours, self.feed.begun(), self.file.metadata()) {
            let _ = self.file.set_len(metadata.len().saturating_sub(begun as u64));
        }
    }
}

fn remedy(path: &Path, error: &Error) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        ErrorKind::NotFound => format!("make the folder {} first", folder.display()),
        ErrorKind::IsADirectory => "name a file inside that folder".into(),
        ErrorKind::PermissionDenied => format!("let this user write to {}", folder.display()),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            "start the reader of this pipe first".into()
        }
        _ => "name a file that can be written".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::samples;
    use crate::record::Message;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn over_pipe() -> (std::io::PipeReader, Lines) {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        (reader, Lines::over(file, "a pipe".into(), false, &samples::board(), "0.1.0"))
    }

    fn letter(sequence: u64) -> Letter {
        Letter {
            missing: 0,
            wall: 0,
            message: Message::Frame(samples::served(sequence)),
            more: 0,
            period: Duration::ZERO,
        }
    }

    #[test]
    fn a_closed_pipe_is_closed_for_good() {
        let (reader, mut lines) = over_pipe();
        drop(reader);
        lines.take(&letter(1));
        assert_eq!(lines.pump(clock::now()), None);
        lines.take(&letter(2));
        assert_eq!(lines.pump(clock::now()), None);
        let Progress { written, held, failing, .. } = lines.progress();
        assert_eq!((written, held, failing), (0, 2, true));
        assert!(lines.fault().unwrap().contains("a pipe"), "{:?}", lines.fault());
    }

    #[test]
    fn a_pipe_gets_header_and_records() {
        let (mut reader, mut lines) = over_pipe();
        lines.take(&letter(1));
        assert_eq!(lines.pump(clock::now()), None);
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let kinds: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone())
            .collect();
        assert_eq!(kinds, ["header", "frame"]);
    }

    /// /dev/full says "no space left on device" to every write, like a full disk.
    #[test]
    fn a_full_disk_is_tried_again_after_a_while() {
        let mut lines = Lines::create(Path::new("/dev/full"), &samples::board(), "0.1.0").unwrap();
        let now = clock::now();
        lines.take(&letter(1));
        assert_eq!(lines.pump(now), Some(RETRY));
        assert_eq!(lines.pump(now + RETRY / 4), Some(RETRY * 3 / 4), "left alone");
        // The disk has room again: the same lines go to a real file.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        lines.file = File::create(&path).unwrap();
        assert_eq!(lines.pump(now + RETRY), None);
        assert_eq!(lines.progress(), Progress { written: 1, lost: 0, held: 0, failing: false });
        assert!(lines.fault().unwrap().contains("/dev/full"), "the outage is remembered");
        assert!(std::fs::read_to_string(path).unwrap().starts_with("{\"v\":1,\"type\":\"header\""));
    }
}
