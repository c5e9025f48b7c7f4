//! Outputs end to end, on real files, pipes and sockets.

use super::*;
use crate::record::Message;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Long enough for any test machine; nothing waits for it when all is well.
const LONG: Duration = Duration::from_secs(30);

fn frame(sequence: u64) -> Message {
    Message::Frame(samples::served(sequence))
}

fn output(to: OutputTo) -> Vec<Output> {
    vec![Output { name: "results".into(), to }]
}

fn open(to: OutputTo) -> Result<(Outlet, Sinks), StartError> {
    let (mut outlets, sinks) = start(&output(to), &samples::board(), "0.1.0")?;
    Ok((outlets.remove(0), sinks))
}

fn refusal(to: OutputTo) -> String {
    open(to).err().expect("refused").to_string()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn only(reports: Vec<SinkReport>) -> SinkReport {
    let [report] = <[_; 1]>::try_from(reports).unwrap();
    report
}

/// Pushes until the output has lost something, then returns how many were pushed.
fn push_until_lost(outlet: &mut Outlet) -> u64 {
    let mut pushed = 0;
    while outlet.shared.lost() == 0 {
        outlet.push(&frame(pushed));
        pushed += 1;
        outlet.flush();
        std::thread::yield_now();
    }
    pushed
}

#[test]
fn a_file_has_a_header_and_every_record_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    fs::write(&path, "an earlier run\n".repeat(1000)).unwrap();
    let (mut outlet, sinks) = open(OutputTo::File(path.clone())).unwrap();
    for sequence in 0..500 {
        outlet.push(&frame(sequence));
    }
    outlet.push(&Message::Set(samples::set()));
    outlet.push(&Message::Event(samples::event("unplugged")));
    outlet.flush();
    let report = only(sinks.finish(LONG));
    assert_eq!(report, SinkReport { name: "results".into(), written: 502, lost: 0, error: None });
    let lines = lines(&path);
    assert_eq!(lines[0]["type"], "header");
    assert!(lines[1..=500].iter().map(|line| line["sequence"].as_u64().unwrap()).eq(0..500));
    assert_eq!((&lines[501]["type"], &lines[502]["type"]), (&"set".into(), &"event".into()));
}

#[test]
fn a_file_that_can_not_be_made_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refusal(OutputTo::File(folder.path().join("no/such/folder/r.jsonl")));
    assert!(missing.contains("no/such/folder/r.jsonl") && missing.contains("make the folder"), "{missing}");
    let directory = refusal(OutputTo::File(folder.path().into()));
    assert!(directory.contains("name a file inside"), "{directory}");
    // Nobody may make files there, root included.
    let forbidden = refusal(OutputTo::File("/sys/ocelli.jsonl".into()));
    assert!(forbidden.contains("/sys/ocelli.jsonl"), "{forbidden}");
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let no_reader = refusal(OutputTo::File(pipe));
    assert!(no_reader.contains("start the reader of this pipe first"), "{no_reader}");
}

#[test]
fn one_file_is_not_written_by_two_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let named = |name: &str, path: &PathBuf| Output { name: name.into(), to: OutputTo::File(path.clone()) };
    let started = start(&[named("one", &path), named("two", &link)], &samples::board(), "0.1.0");
    let error = started.err().expect("refused").to_string();
    assert!(error.contains("one") && error.contains("two"), "{error}");
}

#[test]
fn a_full_disk_costs_counted_results() {
    let (mut outlet, sinks) = open(OutputTo::File("/dev/full".into())).unwrap();
    for sequence in 0..100 {
        outlet.push(&frame(sequence));
    }
    outlet.flush();
    let report = only(sinks.finish(LONG));
    assert_eq!((report.written, report.lost), (0, 100));
    let error = report.error.unwrap();
    assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
}

#[test]
fn a_disk_that_stays_full_loses_what_finds_no_room() {
    let (mut outlet, sinks) = open(OutputTo::File("/dev/full".into())).unwrap();
    let pushed = push_until_lost(&mut outlet);
    assert_eq!(sinks.lost().map(|(name, _)| name).collect::<Vec<_>>(), ["results"]);
    let report = only(sinks.finish(LONG));
    assert_eq!((report.written, report.lost), (0, pushed));
}

/// Standard output is such a pipe: writes to it block.
#[test]
fn a_pipe_that_nobody_reads_does_not_hold_up_the_stop() {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = fs::File::from(OwnedFd::from(writer));
    let board = samples::board();
    let sink = Lines::over(file, "a pipe".into(), false, &board, "0.1.0");
    let (mut outlet, running) = spawn("pipe", Box::new(sink)).unwrap();
    let sinks = Sinks(vec![running]);
    let pushed = push_until_lost(&mut outlet);
    let report = only(sinks.finish(Duration::from_millis(100)));
    assert_eq!(report.written + report.lost, pushed);
    assert!(report.lost > 0 && report.error.unwrap().contains("took nothing"));
    drop(reader);
}

/// A pipe by its path, as with a shell's `>(command)`: opened anew, so its writes need not block.
#[test]
fn a_named_pipe_gets_what_it_missed_marked() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (mut outlet, sinks) =
        open(OutputTo::File(format!("/proc/self/fd/{}", writer.as_raw_fd()).into())).unwrap();
    let mut pushed = push_until_lost(&mut outlet);
    let read = std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect::<Vec<Value>>()
    });
    // Once the pipe is being read there is room again; the last message must get through.
    loop {
        let before = outlet.shared.lost();
        outlet.push(&frame(pushed));
        pushed += 1;
        outlet.flush();
        if outlet.shared.lost() == before && outlet.shared.held.load(Relaxed) == 0 {
            break;
        }
        std::thread::yield_now();
    }
    let report = only(sinks.finish(LONG));
    drop(writer);
    let lines = read.join().unwrap();
    let sum = |kind: &str, of: fn(&Value) -> u64| {
        lines.iter().filter(|line| line["type"] == kind).map(of).sum::<u64>()
    };
    let (frames, marked) = (sum("frame", |_| 1), sum("lost", |line| line["count"].as_u64().unwrap()));
    assert_eq!((report.written, report.lost), (frames, marked));
    assert_eq!(frames + marked, pushed);
}

fn next(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Connects and reads the header: from then on the reader is known to the output.
fn connect(path: &Path) -> BufReader<UnixStream> {
    let mut reader = BufReader::new(UnixStream::connect(path).unwrap());
    assert_eq!(next(&mut reader)["type"], "header");
    reader
}

#[test]
fn a_slow_reader_loses_and_the_other_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ocelli.sock");
    let (mut outlet, sinks) = open(OutputTo::Socket(path.clone())).unwrap();
    let mut quick = connect(&path);
    let slow = connect(&path);
    let mut sequence = 0;
    while outlet.shared.lost() == 0 {
        outlet.push(&frame(sequence));
        outlet.flush();
        assert_eq!(next(&mut quick)["sequence"], sequence);
        sequence += 1;
    }
    drop(slow);
    outlet.push(&frame(sequence));
    outlet.flush();
    assert_eq!(next(&mut quick)["sequence"], sequence, "goes on after the other hung up");
    let report = only(sinks.finish(LONG));
    assert!((1..=2).contains(&report.lost), "the slow reader's, until it hung up: {report:?}");
    assert!(report.written > sequence, "{report:?}");
    let mut rest = Vec::new();
    quick.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() && !path.exists(), "the socket is gone after the stop");
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ocelli.sock");
    let (mut outlet, sinks) = open(OutputTo::Socket(path.clone())).unwrap();
    let reader = connect(&path);
    let pushed = push_until_lost(&mut outlet);
    let report = only(sinks.finish(Duration::from_millis(100)));
    assert_eq!(report.written + report.lost, pushed);
    assert!(report.lost > 0 && report.error.is_some(), "{report:?}");
    drop(reader);
}

#[test]
fn without_readers_nothing_is_written_and_nothing_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (mut outlet, sinks) = open(OutputTo::Socket(folder.path().join("ocelli.sock"))).unwrap();
    outlet.push(&frame(0));
    outlet.flush();
    let report = only(sinks.finish(LONG));
    assert_eq!((report.written, report.lost, report.error), (0, 0, None));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ocelli.sock");
    let live = UnixListener::bind(&path).unwrap();
    let refused = refusal(OutputTo::Socket(path.clone()));
    assert!(refused.contains("another process serves it"), "{refused}");
    drop(live);
    assert!(path.exists(), "left behind");
    let (_, sinks) = open(OutputTo::Socket(path.clone())).unwrap();
    connect(&path);
    let _ = sinks.finish(LONG);
    fs::write(&path, "a file").unwrap();
    let refused = refusal(OutputTo::Socket(path.clone()));
    assert!(refused.contains("a file is in its place"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    let long = refusal(OutputTo::Socket(folder.path().join("x".repeat(120))));
    assert!(long.contains("shorter"), "{long}");
}
