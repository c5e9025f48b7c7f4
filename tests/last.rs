//! The last ledger: what the next run is told of the one before, whatever became of the file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use ocelli::board::Board;
use ocelli::job::Outcome;
use ocelli::platform::clock;
use ocelli::runtime::{Keeper, Last, Previous, PreviousRun, Snapshot};
use ocelli::stats::{Histogram, Ledger};
use ocelli::stream::StreamState;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn board() -> Board {
    common::running::synthetic(2)
}

fn open(folder: &Path) -> Result<Last, String> {
    Last::open(folder, &board()).map_err(|error| error.to_string())
}

fn begin(folder: &Path) -> Keeper {
    open(folder).unwrap().begin(clock::now()).unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("test.ledger")
}

/// A run's word: both streams have captured `captured` frames and met all but two, which are in flight.
fn word(captured: u64) -> Snapshot {
    let mut ledger = Ledger::default();
    ledger.capture(captured);
    ledger.settle(Outcome::Met, captured - 2);
    let streams = vec![(ledger, StreamState::Full, None); 2];
    Snapshot {
        streams,
        latency: Histogram::default(),
        with_latency: false,
        batches: (0, 0, 0),
        guaranteed: None,
    }
}

fn found(folder: &Path) -> Box<PreviousRun> {
    match open(folder).unwrap().previous {
        Previous::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

/// Why the file can't be read.
fn unread(folder: &TempDir, bytes: &[u8]) -> String {
    fs::write(file(folder), bytes).unwrap();
    let last = open(folder.path()).unwrap();
    let Previous::Unread(why) = last.previous.clone() else { panic!("{:?}", last.previous) };
    assert!(why.contains("test.ledger") && why.contains("started anew"), "{why}");
    // And it is: the next run finds this one.
    drop(last.begin(clock::now()).unwrap());
    assert!(found(folder.path()).was_cut_off());
    why
}

#[test]
fn the_first_run_finds_nothing_and_the_next_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("made/anew");
    let last = open(&state).unwrap();
    assert_eq!(last.previous, Previous::None);
    // A start that fails before the run begins leaves nothing behind that the next would report.
    drop(last);
    let mut keeper = begin(&state);
    keeper.note(&word(100));
    drop(keeper);
    let json = found(&state).to_json();
    assert_eq!(json["ended"], "killed");
    assert_eq!(
        json["streams"][0],
        json!({
            "id": "s0", "captured": 100, "met": 98, "late": 0, "dropped": {}, "in_flight": 2
        })
    );
    assert_eq!(json["total"]["captured"], 200);
    assert_eq!((&json["hash"], &json["pid"]), (&json!(board().digest), &json!(std::process::id())));
    assert!(json["gap_us"].as_u64().unwrap() < 60_000_000, "{json}");
}

#[test]
fn one_run_has_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |why: &str| {
        let error = open(folder.path()).err().unwrap_or_default();
        assert!(error.contains("another run of this board"), "{why}: {error}");
    };
    let last = open(folder.path()).unwrap();
    refused("while it starts");
    let keeper = last.begin(clock::now()).unwrap();
    refused("while it runs");
    // Another board beside it has its own.
    let other = Board { name: "other".into(), ..board() };
    assert!(Last::open(folder.path(), &other).is_ok());
    drop(keeper);
}

#[test]
fn a_start_that_fails_keeps_what_the_run_before_left() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path()).note(&word(50));
    for _ in 0..3 {
        assert_eq!(found(folder.path()).to_json()["streams"][1]["captured"], 50);
    }
}

#[test]
fn whatever_lies_there_is_named_and_does_not_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    assert!(unread(&folder, &[0xa5; 10_000]).contains("damaged"));
    assert!(unread(&folder, b"{\"v\":1}").contains("not a last ledger"));
    assert!(unread(&folder, b"ocelli last ledger 2: something\n").contains("another version (2)"));
    assert!(unread(&folder, &vec![b'x'; 5 << 20]).contains("too large"));
    let whole = fs::read(file(&folder)).unwrap();
    assert!(unread(&folder, &whole[..60]).contains("damaged"), "cut in its first line");
    // Empty, as a disk that was full leaves it, or blank: as if there had been none.
    for nothing in [&b""[..], &[0; 8192], &[b'\n'; 8192]] {
        fs::write(file(&folder), nothing).unwrap();
        assert_eq!(open(folder.path()).unwrap().previous, Previous::None);
    }
    // Of another board, by a copy under this one's name.
    let other = Board { name: "other".into(), ..board() };
    drop(Last::open(folder.path(), &other).unwrap().begin(clock::now()).unwrap());
    let copy = fs::read(folder.path().join("other.ledger")).unwrap();
    assert!(unread(&folder, &copy).contains("another board (other)"));
    // Of this board before it was changed: the frames are told all the same.
    let before = Board { digest: "1".repeat(64), ..board() };
    drop(Last::open(folder.path(), &before).unwrap().begin(clock::now()).unwrap());
    assert!(found(folder.path()).lines()[0].contains("files have changed since"));
}

#[test]
fn a_folder_that_can_not_be_used_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    for unusable in [&plain, &plain.join("below"), Path::new("/proc/ocelli"), Path::new("/sys/kernel")] {
        let error = open(unusable).err().unwrap_or_else(|| panic!("{}", unusable.display()));
        assert!(
            error.contains(&unusable.display().to_string()) && error.contains("take state_dir out"),
            "{error}"
        );
    }
    // A folder where the file should be.
    fs::create_dir(file(&folder)).unwrap();
    assert!(open(folder.path()).err().unwrap().contains("test.ledger"));
    // A pipe, which nobody writes into.
    fs::remove_dir(file(&folder)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, file(&folder), 0o600.into()).unwrap();
    assert!(open(folder.path()).err().unwrap().contains("test.ledger: not a plain file; take it away"));
}

#[test]
fn the_largest_board_fits_with_the_largest_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = common::running::synthetic(256);
    for (index, stream) in board.streams.iter_mut().enumerate() {
        stream.id = format!("{index:032}");
    }
    let mut keeper = Last::open(folder.path(), &board).unwrap().begin(clock::now()).unwrap();
    let ledger = Ledger {
        captured: u64::MAX,
        met: u64::MAX,
        late: u64::MAX,
        in_flight: u64::MAX,
        ..Ledger::default()
    };
    let ledger = Ledger { dropped: ledger.dropped.map(|_| u64::MAX), ..ledger };
    let streams = vec![(ledger, StreamState::Full, None); 256];
    keeper.note(&Snapshot { streams, ..word(2) });
    drop(keeper);
    let Previous::Run(run) = Last::open(folder.path(), &board).unwrap().previous else { panic!("no run") };
    assert_eq!(run.to_json()["streams"][255]["late"], u64::MAX);
    assert!(file(&folder).metadata().unwrap().len() < 1 << 20);
}
