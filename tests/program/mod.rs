//! The whole program, started as a user starts it, and what it left.
#![allow(dead_code)] // Each test binary uses its part.

use serde_json::Value;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A run that takes longer hangs: many times what the longest here takes on a busy machine.
pub const HANG: Duration = Duration::from_secs(120);

pub const SIMULATED: &str =
    "[accelerator]\nbackend = \"simulated\"\nmax_batch = 4\nintercept_ms = 1\nslope_ms = 1\n";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file that `scripts/setup` provides.
pub fn asset(name: &str) -> PathBuf {
    let path = root().join("assets").join(name);
    assert!(path.exists(), "{} is not there: run scripts/setup", path.display());
    path
}

pub fn onnxruntime() -> String {
    let library = asset("onnxruntime/libonnxruntime.so");
    format!("[accelerator]\nbackend = \"onnxruntime\"\nlibrary = {library:?}\nthreads = 2\nmax_batch = 4\n")
}

/// A board under test, in a folder of its own.
pub struct Bench {
    pub dir: TempDir,
    pub text: String,
    pub streams: usize,
}

impl Bench {
    pub fn new(accelerator: &str) -> Self {
        let manifest = root().join("models/person-ssdlite.int8.toml");
        let text = format!("config_version = 1\n{accelerator}[models.person]\nmanifest = {manifest:?}\n");
        Self { dir: tempfile::tempdir().expect("a temporary folder"), text, streams: 0 }
    }

    /// Adds a stream `s<n>` of 10 fps; `more` are further keys.
    pub fn stream(mut self, source: &str, size: [u32; 2], more: &str) -> Self {
        let id = self.streams;
        self.streams += 1;
        writeln!(
            self.text,
            "[[streams]]\nid = \"s{id}\"\nsource = {source}\nperiod_ms = 100\nsize = {size:?}\nformat = \"I420\"\n\
             latency_bound_ms = 1000\nmodel = \"person\"\n{more}"
        )
        .expect("a string");
        self
    }

    /// Adds a synthetic stream, which works.
    pub fn healthy(self) -> Self {
        self.stream("{ type = \"synthetic\" }", [64, 48], "")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let board = self.path("test.toml");
        std::fs::write(&board, &self.text).expect("a board file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
        command.arg("run").arg(board).args(arguments).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs for `seconds` with results and summary.
    pub fn run(&self, seconds: &str) -> Ran {
        self.run_with(&["--for", seconds, "--results", "r.jsonl", "--summary", "s.json"])
    }

    pub fn run_with(&self, arguments: &[&str]) -> Ran {
        self.ended(self.command(arguments).spawn().expect("the program starts"))
    }

    /// Starts it with results and summary, for `seconds`.
    pub fn start(&self, seconds: &str) -> Child {
        let arguments = ["--for", seconds, "--results", "r.jsonl", "--summary", "s.json"];
        self.command(&arguments).spawn().expect("the program starts")
    }

    /// Waits until a line with all of these words stands in the results.
    pub fn wait_for(&self, words: &[&str]) {
        let started = Instant::now();
        let found = |text: &str| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        while !found(&std::fs::read_to_string(self.path("r.jsonl")).unwrap_or_default()) {
            assert!(started.elapsed() < HANG, "no line with {words:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits for the end of one that was started, and reads what it left.
    pub fn ended(&self, child: Child) -> Ran {
        let output = finish(child);
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let ran = Ran {
            code: output.status.code(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
            results: read("r.jsonl")
                .lines()
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect(),
            summary: serde_json::from_str(&read("s.json")).unwrap_or_default(),
        };
        assert!(!ran.log.contains("panicked"), "{}", ran.log);
        ran
    }
}

/// Waits for a program's end; one that hangs is ended and fails the test.
pub fn finish(mut child: Child) -> Output {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.as_mut().map(|pipe| pipe.read_to_end(&mut text));
        text
    });
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.as_mut().map(|pipe| pipe.read_to_end(&mut text));
        text
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break status;
        }
        if started.elapsed() > HANG {
            let _ = child.kill();
            let errors = errors.join().expect("a reader");
            panic!("it hangs; it said: {}", String::from_utf8_lossy(&errors));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    Output { status, stdout: reader.join().expect("a reader"), stderr: errors.join().expect("a reader") }
}

/// What a run left.
pub struct Ran {
    pub code: Option<i32>,
    pub log: String,
    pub results: Vec<Value>,
    pub summary: Value,
}

impl Ran {
    pub fn stream(&self, index: usize) -> &Value {
        &self.summary["streams"][index]
    }

    /// The exit code, and a summary in which every ledger balances and agrees with the records.
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.log);
        let streams = self.summary["streams"].as_array().unwrap_or_else(|| panic!("a summary: {}", self.log));
        for stream in streams {
            balances(stream);
            if !self.results.is_empty() {
                let frames = self.frames(stream["id"].as_str().expect("an id"));
                assert_eq!(frames.len() as u64, count(stream, "captured"), "a record a frame: {stream}");
                let met = frames.iter().filter(|frame| frame["outcome"] == "met").count() as u64;
                assert_eq!(met, count(stream, "met"), "{stream}");
                let sequences: Vec<u64> = frames.iter().map(|frame| count(frame, "sequence")).collect();
                assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order: {sequences:?}");
            }
        }
        balances(&self.summary["total"]);
        self
    }

    /// A refusal: the exit code, and words that must be in the message.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.log);
        for word in words {
            assert!(self.log.contains(word), "{word:?} is not in: {}", self.log);
        }
    }

    /// The stream's frame records, in the order of the file.
    pub fn frames(&self, id: &str) -> Vec<&Value> {
        self.results.iter().filter(|line| line["type"] == "frame" && line["stream"] == id).collect()
    }

    /// The other stream worked as if nothing had happened.
    pub fn healthy(&self, index: usize) -> &Self {
        let stream = self.stream(index);
        assert_eq!(stream["state"], "full", "{stream}");
        assert!(count(stream, "met") >= 10, "{stream}");
        assert_eq!(stream["failures"], 0, "{stream}");
        self
    }

    pub fn down(&self, index: usize, words: &[&str]) -> &Self {
        assert_eq!(self.stream(index)["state"], "down", "{}\n{}", self.stream(index), self.log);
        for word in words {
            assert!(self.log.contains(word), "{word:?} is not in: {}", self.log);
        }
        self
    }
}

pub fn count(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

pub fn dropped(stream: &Value) -> u64 {
    let reasons = stream["dropped"].as_object().expect("reasons");
    reasons.values().map(|count| count.as_u64().expect("a count")).sum()
}

pub fn balances(entry: &Value) {
    let ended = count(entry, "met") + count(entry, "late") + dropped(entry);
    assert_eq!(count(entry, "captured"), ended + count(entry, "in_flight"), "{entry}");
    assert_eq!(count(entry, "in_flight"), 0, "nothing is in flight at the end: {entry}");
}

pub fn file(path: &Path) -> String {
    format!("{{ type = \"file\", path = {path:?} }}")
}
