//! JSON Lines to whoever connects to a Unix socket.

use crate::board::Board;
use crate::platform::clock;
use crate::publish::feed::Feed;
use crate::publish::recent::Recent;
use crate::publish::{Letter, Progress, Sink, StartError, json};
use crate::time::Instant;
use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most readers at once; more are turned away.
const READERS: usize = 16;
/// How often newcomers and slow readers are looked after while nothing else happens.
const LOOK: Duration = Duration::from_millis(50);

/// A listening socket. Every reader gets a header and what comes from then on; one that reads too slowly
/// loses counted results, and the others don't notice.
///
/// `written` and `lost` count per reader: without readers, a record is neither.
#[derive(Debug)]
pub(super) struct Socket {
    board: Arc<Board>,
    version: String,
    path: PathBuf,
    /// The socket file's identity, so that no one else's is removed.
    identity: (u64, u64),
    listener: UnixListener,
    readers: Vec<Reader>,
    recent: Recent,
    scratch: Vec<u8>,
    /// Counts of readers that have gone.
    written: u64,
    lost: u64,
    fault: Option<String>,
}

#[derive(Debug)]
struct Reader {
    to: UnixStream,
    feed: Feed,
}

impl Socket {
    /// Listens at `path`. A socket file that nobody serves any more is replaced.
    ///
    /// # Errors
    /// The path, what is in the way and what to do about it.
    pub fn listen(path: &Path, board: &Arc<Board>, version: &str) -> Result<Self, StartError> {
        let refused = |why: &str, remedy: String| StartError {
            what: format!("cannot listen at the results socket {}: {why}", path.display()),
            remedy,
        };
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(refused(
                    "a file is in its place",
                    "name another path, or remove that file".into(),
                ));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    log::info!("replaced {}, which a process that is gone left behind", path.display());
                    fs::remove_file(path)
                        .map_err(|error| refused(&error.to_string(), "remove that file".into()))?;
                }
                _ => {
                    let remedy = "stop that process, or name another path".into();
                    return Err(refused("another process serves it", remedy));
                }
            }
        }
        let bound = UnixListener::bind(path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let metadata = fs::symlink_metadata(path)?;
            Ok((listener, (metadata.dev(), metadata.ino())))
        });
        let (listener, identity) =
            bound.map_err(|error| refused(&error.to_string(), remedy(path, &error)))?;
        Ok(Self {
            board: Arc::clone(board),
            version: version.into(),
            path: path.into(),
            identity,
            listener,
            readers: Vec::new(),
            recent: Recent::new(board),
            scratch: Vec::new(),
            written: 0,
            lost: 0,
            fault: None,
        })
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((to, _)) if self.readers.len() < READERS => {
                    if to.set_nonblocking(true).is_ok() {
                        let mut header = Vec::new();
                        json::header(&mut header, &self.board, &self.version, clock::now(), clock::wall());
                        self.readers.push(Reader { to, feed: Feed::new(&header) });
                    }
                }
                Ok(_) => self
                    .note(format!("{} has {READERS} readers, one more was turned away", self.path.display())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    return self.note(format!("cannot accept readers at {}: {error}", self.path.display()));
                }
            }
        }
    }

    /// Keeps and says the first fault.
    fn note(&mut self, fault: String) {
        if self.fault.is_none() {
            log::warn!("{fault}");
            self.fault = Some(fault);
        }
    }
}

impl Sink for Socket {
    fn take(&mut self, letter: &Letter) {
        self.recent.note(&letter.message);
        if self.readers.is_empty() {
            return;
        }
        self.scratch.clear();
        json::message(&mut self.scratch, &self.board, &self.recent, letter.wall, &letter.message);
        for reader in &mut self.readers {
            reader.feed.take(&self.scratch, letter.missing);
        }
    }

    fn pump(&mut self, _: Instant) -> Option<Duration> {
        self.accept();
        self.readers.retain_mut(|reader| {
            let stays = reader.feed.pump(&mut reader.to).is_ok();
            if !stays {
                // It hung up: what it did not wait for is not lost.
                self.written += reader.feed.written;
                self.lost += reader.feed.lost;
            }
            stays
        });
        Some(LOOK)
    }

    fn progress(&self) -> Progress {
        let sum =
            |count: fn(&Feed) -> u64| self.readers.iter().map(|reader| count(&reader.feed)).sum::<u64>();
        Progress {
            written: self.written + sum(|feed| feed.written),
            lost: self.lost + sum(|feed| feed.lost),
            held: sum(Feed::held),
            failing: false,
        }
    }

    fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remedy(path: &Path, error: &Error) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        ErrorKind::NotFound => format!("make the folder {} first", folder.display()),
        ErrorKind::PermissionDenied => format!("let this user write to {}", folder.display()),
        ErrorKind::InvalidInput => "name a shorter path: the system allows 107 bytes".into(),
        _ => "name another path".into(),
    }
}
