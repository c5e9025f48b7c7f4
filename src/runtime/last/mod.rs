//! The last ledger: where a run's frames ended, at most a second old, in a small file that outlives the run. After
//! a kill or a reset the next start reads it, tells how the run before stood, and names the gap.
//!
//! The file is written, not mapped: a store to a mapped page whose file was cut, or whose file system has given
//! up, would end the process. A write has an error instead, and the run goes on. Writes, and the disk's slowness,
//! have a thread of their own.

mod slots;
mod word;

pub use word::PreviousRun;

use crate::board::Board;
use crate::platform::{clock, reset};
use crate::runtime::{Finished, Snapshot};
use crate::time::Instant;
use rustix::fs::{FlockOperation, flock};
use slots::Unread;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use word::{Account, Moment, Word};

/// How often a run says a word: more often than every second, as the answer and the disk take their time too.
pub const EVERY: Duration = Duration::from_millis(600);
/// Largest file that is read: many times what the largest board needs.
const LARGEST: u64 = 4 << 20;
/// How long the end of a run waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no last ledger can be kept (exit code 73).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("supervision.state_dir: {0}")]
pub struct LastError(String);

/// What was found of the run before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Nothing: there was none.
    None,
    /// A file that can't be read as the ledger of such a run, and why.
    Unread(String),
    /// A run.
    Run(Box<PreviousRun>),
}

/// The place of a board's last ledger, ours alone from here on. What the run before left there stays until
/// [`Last::begin`].
pub struct Last {
    folder: PathBuf,
    path: PathBuf,
    /// The lock is on what is there, and on what will be.
    locks: [File; 2],
    word: Word,
    room: usize,
    /// What was found.
    pub previous: Previous,
}

impl Last {
    /// Takes the place of `board`'s ledger in `folder`, which is made if it isn't there, reads what the run before
    /// left, and makes sure of the room.
    ///
    /// # Errors
    /// When the folder can't be written to, the disk is full, or another run has the place. Never for what is in
    /// an old file.
    pub fn open(folder: &Path, board: &Board) -> Result<Self, LastError> {
        let path = folder.join(format!("{}.ledger", board.name));
        let next = unfinished(&path);
        let remedy = "name a folder that the runtime may write to, or take state_dir out";
        let failed =
            |path: &Path, error: &io::Error| LastError(format!("{}: {error}; {remedy}", path.display()));
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        let open =
            |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut old = open(&path).map_err(|error| failed(&path, &error))?;
        take(&old, &path)?;
        let new = open(&next).map_err(|error| failed(&next, &error))?;
        take(&new, &next)?;
        let word = Word {
            board: board.name.clone(),
            digest: board.digest.clone(),
            boot_id: reset::boot_id(),
            pid: std::process::id(),
            began: Moment::default(),
            said: moment(),
            ended: None,
            streams: board
                .streams
                .iter()
                .map(|stream| Account { id: stream.id.clone(), ..Account::default() })
                .collect(),
        };
        let room = slots::room(word.longest());
        reserve(&new, 2 * room).map_err(|error| failed(&next, &error))?;
        let previous = read(&mut old, &path, &word);
        Ok(Self { folder: folder.to_owned(), path, locks: [old, new], word, room, previous })
    }

    /// The run has begun: its first word takes the place of the run before.
    ///
    /// # Errors
    /// What the disk or the system refuses.
    pub fn begin(self, began: Instant) -> Result<Keeper, LastError> {
        let Self { folder, path, locks: [old, file], mut word, room, .. } = self;
        word.said = moment();
        // The same instant on both clocks.
        let since = clock::now().since(began);
        word.began = Moment {
            monotonic_ns: began.as_nanos(),
            wall_ns: word.said.wall_ns.saturating_sub(crate::time::nanos(since)),
        };
        let mut writer = Writer { file, room, generation: 0, failing: false, path: path.clone() };
        let failed = |error: io::Error| LastError(format!("{}: {error}", path.display()));
        writer.write(&word.text()).map_err(failed)?;
        fs::rename(unfinished(&path), &path).map_err(failed)?;
        // The name is to outlive a reset too.
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let mailbox = Arc::new(Mailbox::default());
        let (alive, ended) = channel();
        let theirs = mailbox.clone();
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                writer.run(&theirs);
                drop(alive);
            })
            .map_err(failed)?;
        Ok(Keeper { word, mailbox, ended, _old: old })
    }
}

/// Keeps the last ledger of the run in progress. Nothing here waits for the disk but [`Keeper::finish`].
pub struct Keeper {
    word: Word,
    mailbox: Arc<Mailbox>,
    ended: Receiver<()>,
    /// Still locked: another run may have opened it just before it was replaced.
    _old: File,
}

impl Keeper {
    /// The run's word of now.
    pub fn note(&mut self, snapshot: &Snapshot) {
        for (account, (ledger, ..)) in self.word.streams.iter_mut().zip(&snapshot.streams) {
            account.set(ledger);
        }
        self.say(false);
    }

    /// The run's last word: it ended in order, and `why`.
    pub fn finish(mut self, finished: &Finished, why: &str) {
        for (account, totals) in self.word.streams.iter_mut().zip(finished.streams()) {
            account.set(&totals.ledger);
        }
        self.word.end(why);
        self.say(true);
    }

    fn say(&mut self, last: bool) {
        self.word.said = moment();
        self.mailbox.put(self.word.text(), last);
    }
}

impl Drop for Keeper {
    /// Waits for the disk, but not for ever. Without [`Keeper::finish`] the run was cut off; that is how it
    /// shall look.
    fn drop(&mut self) {
        self.mailbox.close();
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!(
                "last ledger: the disk takes too long; the next start will not know how this run ended"
            );
        }
    }
}

/// The newest text on its way to the disk.
#[derive(Default)]
struct Mailbox {
    letter: Mutex<(Option<String>, bool)>,
    came: Condvar,
}

impl Mailbox {
    fn put(&self, text: String, last: bool) {
        let mut letter = self.letter.lock().unwrap_or_else(PoisonError::into_inner);
        *letter = (Some(text), last || letter.1);
        self.came.notify_one();
    }

    fn close(&self) {
        self.letter.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.came.notify_one();
    }

    /// Waits for a text; `None` after the last.
    fn take(&self) -> Option<String> {
        let letter = self.letter.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |letter: &mut (Option<String>, bool)| letter.0.is_none() && !letter.1;
        let mut letter = self.came.wait_while(letter, waiting).unwrap_or_else(PoisonError::into_inner);
        letter.0.take()
    }
}

/// The ledger thread's possessions.
struct Writer {
    file: File,
    path: PathBuf,
    room: usize,
    generation: u64,
    failing: bool,
}

impl Writer {
    fn run(mut self, mailbox: &Mailbox) {
        while let Some(text) = mailbox.take() {
            match (self.write(&text), self.failing) {
                (Err(error), false) => {
                    self.failing = true;
                    log::warn!("last ledger: {}: {error}; the run goes on without it", self.path.display());
                }
                (Ok(()), true) => {
                    self.failing = false;
                    log::info!("last ledger: {} is written again", self.path.display());
                }
                _ => {}
            }
        }
    }

    /// Writes the next generation, and waits until it is on the medium.
    fn write(&mut self, text: &str) -> io::Result<()> {
        let generation = self.generation + 1;
        let slot = slots::written(generation, text, self.room)
            .ok_or_else(|| io::Error::other("internal: no room for it; please report this"))?;
        // In turn, so that a torn one leaves the one before it. One that failed is written again, in its place.
        let at = (self.generation % 2) * self.room as u64;
        self.file.write_all_at(&slot, at)?;
        self.file.sync_data()?;
        self.generation = generation;
        Ok(())
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("ledger.new")
}

fn take(file: &File, path: &Path) -> Result<(), LastError> {
    // Reading a pipe would wait for somebody to write.
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let remedy = "take it away, or name another folder";
        return Err(LastError(format!("{}: not a plain file; {remedy}", path.display())));
    }
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let why = if error == rustix::io::Errno::WOULDBLOCK {
            "another run of this board keeps its ledger there; stop it, or give this board a state_dir of its own"
                .to_owned()
        } else {
            format!("it can't be locked: {error}; name a folder on a disk of this machine")
        };
        LastError(format!("{}: {why}", path.display()))
    })
}

/// Blanks, so that the disk has the room for as long as the run lasts.
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(&vec![b'\n'; bytes], 0)?;
    file.sync_all()
}

fn read(file: &mut File, path: &Path, mine: &Word) -> Previous {
    let unread = |why: &str| {
        Previous::Unread(format!(
            "{}: {why}; nothing is known of the run before; started anew",
            path.display()
        ))
    };
    let mut bytes = Vec::new();
    match file.take(LARGEST + 1).read_to_end(&mut bytes) {
        Err(error) => return unread(&error.to_string()),
        Ok(length) if length as u64 > LARGEST => return unread("too large for a last ledger"),
        Ok(_) => {}
    }
    let text = match slots::newest(&bytes) {
        Ok((_, text)) => text,
        Err(Unread::Empty) => return Previous::None,
        Err(Unread::Foreign(version)) => {
            return unread(&format!("a last ledger of another version ({version:.20})"));
        }
        Err(Unread::Garbage) => return unread("not a last ledger, or both of its generations are damaged"),
    };
    match serde_json::from_str::<Word>(text) {
        Err(error) => unread(&format!("a last ledger that is not understood ({error})")),
        Ok(word) if word.board != mine.board => {
            unread(&format!("the last ledger of another board ({:.40})", word.board))
        }
        Ok(word) => Previous::Run(Box::new(PreviousRun::new(word, mine.said, &mine.boot_id, &mine.digest))),
    }
}

fn moment() -> Moment {
    Moment { monotonic_ns: clock::now().as_nanos(), wall_ns: clock::wall() }
}

#[cfg(test)]
mod tests;
