//! The agent inside the machine: starts the program, lets happen what the scenario says at the instants that it
//! says, and keeps an account.
//!
//! It looks every 10 ms of the machine's time; between two looks nothing of it runs.

use crate::scenario::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How often the agent looks whether something is due or has happened.
pub const LOOK: Duration = Duration::from_millis(10);
/// How long the program may take for its end.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long until it is started again, as by the project's unit (RestartSec=).
const RESTART_NS: u64 = 500_000_000;
/// How long it may take from its start to its first line of results.
const START_NS: u64 = 60_000_000_000;

/// Where programs are.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where GStreamer's plugins are.
pub const PLUGINS: &str = "/usr/lib/plugins";

/// What the agent tells of itself, one JSON object a line in `agent.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Told {
    /// The machine is up.
    Boot { at_ns: u64, resets: u32 },
    /// The program was started, for the n-th time.
    Start { at_ns: u64, start: usize, pid: u32 },
    /// Its first line of results was seen.
    Running { at_ns: u64, start: usize },
    /// It said that it is ready.
    Ready { at_ns: u64, start: usize },
    /// A step was begun, and done.
    Step { at_ns: u64, done_ns: u64, name: String, act: String, error: Option<String> },
    /// What the program holds.
    Sample { at_ns: u64, rss_kb: u64, files: u64, threads: u64 },
    /// It was told to stop.
    Stop { at_ns: u64 },
    /// It ended.
    End { at_ns: u64, start: usize, how: String },
    /// Something without which the scenario means nothing.
    Broken { at_ns: u64, why: String },
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    now.as_nanos() as u64
}

/// Runs the scenario of `plan`; what is written lies in `out`.
pub struct Agent<'a> {
    pub plan: &'a Scenario,
    pub out: &'a Path,
    told: File,
    notify: Option<UnixDatagram>,
    /// Threads that are held, by name.
    pub stopped: BTreeMap<String, Pid>,
    pub wedged: BTreeMap<String, UnixStream>,
    pub hoard: Vec<Vec<u8>>,
    pub fills: u32,
}

/// A start of the program.
struct Start {
    child: Child,
    number: usize,
    at_ns: u64,
    running: bool,
    /// When it last gave a sign of life, once it is ready.
    alive_ns: Option<u64>,
}

impl<'a> Agent<'a> {
    pub fn new(plan: &'a Scenario, out: &'a Path) -> std::io::Result<Self> {
        let told = File::options().append(true).create(true).open(out.join("agent.jsonl"))?;
        Ok(Self {
            plan,
            out,
            told,
            notify: None,
            stopped: BTreeMap::new(),
            wedged: BTreeMap::new(),
            hoard: Vec::new(),
            fills: 0,
        })
    }

    pub fn tell(&mut self, told: &Told) {
        if let Ok(mut line) = serde_json::to_vec(told) {
            line.push(b'\n');
            let _ = self.told.write_all(&line);
            if self.plan.machine.disk {
                rustix::fs::sync(); // This, and the results before it, have to outlast a reset.
            }
        }
    }

    pub fn broken(&mut self, why: String) {
        self.tell(&Told::Broken { at_ns: now(), why });
    }

    /// Runs the program with everything that happens to it, to its end.
    pub fn run(&mut self, resets: u32) -> Result<(), String> {
        let socket = self.out.join("notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).map_err(|error| format!("notify socket: {error}"))?;
        notify.set_nonblocking(true).map_err(|error| format!("notify socket: {error}"))?;
        self.notify = Some(notify);
        if self.plan.service.profile {
            self.profile()?;
        }
        // After a reset, nothing more happens.
        let mut steps = if resets == 0 { self.steps() } else { Vec::new() };
        steps.reverse(); // The next is the last, to be popped.
        let mut starts = self.starts() + 1;
        let mut start = Some(self.start(starts)?);
        let mut began = None;
        let mut again_ns = None;
        let mut sample_ns = 0;
        let end_ns = loop {
            std::thread::sleep(LOOK);
            let at_ns = now();
            self.let_die();
            if let Some(running) = &mut start {
                self.listen(running);
                if !running.running && self.has_results(running.number) {
                    running.running = true;
                    began = began.or(Some(at_ns));
                    self.tell(&Told::Running { at_ns, start: running.number });
                }
                if !running.running && at_ns > running.at_ns + START_NS {
                    kill(pid(&running.child), Signal::SIGKILL).ok();
                    return Err("the program wrote no results for 60 s".to_owned());
                }
                self.watch(running, at_ns);
                if let Some(how) = running.child.try_wait().map_err(|error| error.to_string())? {
                    self.ended(running.number, how);
                    start = None;
                    if self.plan.service.restart {
                        again_ns = Some(at_ns + RESTART_NS);
                    } else if began.is_none() {
                        break at_ns;
                    }
                }
            }
            let Some(began) = began else { continue };
            if again_ns.is_some_and(|again| at_ns >= again) {
                again_ns = None;
                starts += 1;
                start = Some(self.start(starts)?);
            }
            let due = |at: f64| at_ns >= began + (at * 1e9) as u64;
            while let Some((_, step)) = steps.pop_if(|(at, _)| due(*at)) {
                let step = &self.plan.steps[step];
                let error = self.act(&step.act, start.as_ref().map(|start| pid(&start.child))).err();
                let act = serde_json::to_string(&step.act).unwrap_or_default();
                self.tell(&Told::Step { at_ns, done_ns: now(), name: step.name.clone(), act, error });
            }
            if let (Some(every), Some(running)) = (self.plan.service.sample_s, &start)
                && at_ns >= sample_ns
            {
                sample_ns = at_ns + (every * 1e9) as u64;
                self.sample(running);
            }
            if due(self.plan.seconds) || (start.is_none() && again_ns.is_none()) {
                break at_ns;
            }
        };
        match start {
            Some(running) => self.stop(running, end_ns),
            None => Ok(()),
        }
    }

    /// When each step is due (seconds), repeats and all.
    pub fn steps(&self) -> Vec<(f64, usize)> {
        let mut steps: Vec<_> = (self.plan.steps.iter().enumerate())
            .flat_map(|(index, step)| {
                let (times, every) = step.repeat.map_or((1, 0.0), |repeat| (repeat.times, repeat.every_s));
                (0..times).map(move |time| (step.at + f64::from(time) * every, index))
            })
            .collect();
        steps.sort_by(|one, other| one.0.total_cmp(&other.0));
        steps
    }

    /// Runs a test program of the project to its end.
    pub fn run_program(&mut self, name: &str) -> Result<(), String> {
        let log = self.log()?;
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let mut command = Command::new(name);
        command.arg("--run").env("PATH", PATH).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.tell(&Told::Start { at_ns: now(), start: 1, pid: 0 });
        let how = command.status().map_err(failed)?;
        self.ended(1, how);
        Ok(())
    }

    /// How often the program was started before a reset.
    pub fn starts(&self) -> usize {
        let names = fs::read_dir(self.out).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("results.")).count()
    }

    fn profile(&self) -> Result<(), String> {
        let log = self.log()?;
        let ended = program()
            .args(["profile", "/board/test.toml", "--for", "1"])
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .map_err(|error| format!("ocelli profile: {error}"))?;
        ended.success().then_some(()).ok_or_else(|| format!("ocelli profile: {ended}"))
    }

    fn log(&self) -> Result<File, String> {
        let log = File::options().append(true).create(true).open(self.out.join("log"));
        log.map_err(|error| format!("log: {error}"))
    }

    fn start(&mut self, number: usize) -> Result<Start, String> {
        let mut command = program();
        command.args(["run", "/board/test.toml"]);
        command.arg("--results").arg(self.out.join(format!("results.{number}.jsonl")));
        command.arg("--summary").arg(self.out.join(format!("summary.{number}.json")));
        command.args(&self.plan.service.arguments).env("NOTIFY_SOCKET", self.out.join("notify"));
        if let Some(watchdog) = self.plan.service.watchdog_s {
            command.env("WATCHDOG_USEC", ((watchdog * 1e6) as u64).to_string());
        }
        let log = self.log()?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|error| error.to_string())?).stderr(log);
        let child = command.spawn().map_err(|error| format!("ocelli run: {error}"))?;
        let at_ns = now();
        self.tell(&Told::Start { at_ns, start: number, pid: child.id() });
        Ok(Start { child, number, at_ns, running: false, alive_ns: None })
    }

    fn has_results(&self, number: usize) -> bool {
        let results = self.out.join(format!("results.{number}.jsonl"));
        fs::metadata(results).is_ok_and(|results| results.len() > 0)
    }

    /// Takes what the program says to its service manager.
    fn listen(&mut self, start: &mut Start) {
        let mut text = [0; 512];
        while let Some(Ok(length)) = self.notify.as_ref().map(|notify| notify.recv(&mut text)) {
            let text = String::from_utf8_lossy(&text[..length]);
            for word in text.lines() {
                if word == "READY=1" {
                    self.tell(&Told::Ready { at_ns: now(), start: start.number });
                }
                if word == "READY=1" || word == "WATCHDOG=1" {
                    start.alive_ns = Some(now());
                }
            }
        }
    }

    /// Kills it when it has given no sign of life for too long.
    fn watch(&mut self, start: &mut Start, at_ns: u64) {
        if let (Some(limit), Some(alive)) = (self.plan.service.watchdog_s, start.alive_ns)
            && at_ns > alive + (limit * 1e9) as u64
        {
            start.alive_ns = None;
            // One that is stopped takes the first only with the second.
            let killed = kill(pid(&start.child), Signal::SIGABRT)
                .and_then(|()| kill(pid(&start.child), Signal::SIGCONT));
            let error = killed.err().map(|error| error.to_string());
            let act = "no sign of life: SIGABRT".to_owned();
            self.tell(&Told::Step { at_ns, done_ns: now(), name: "watchdog".to_owned(), act, error });
        }
    }

    fn sample(&mut self, start: &Start) {
        let folder = format!("/proc/{}", start.child.id());
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let files = fs::read_dir(format!("{folder}/fd")).map_or(0, |files| files.count() as u64);
        let (rss_kb, threads) = (number("VmRSS:"), number("Threads:"));
        self.tell(&Told::Sample { at_ns: now(), rss_kb, files, threads });
    }

    fn ended(&mut self, start: usize, how: ExitStatus) {
        self.stopped.clear();
        let how = match (how.code(), how.signal().and_then(|signal| Signal::try_from(signal).ok())) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => signal.as_str().to_owned(),
            (None, None) => how.to_string(),
        };
        self.tell(&Told::End { at_ns: now(), start, how });
    }

    /// A thread that is held and was killed is gone, and its process can be, only when who holds it has taken note.
    fn let_die(&mut self) {
        let dead = |thread: Pid| {
            let seen = waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            matches!(seen, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
        };
        self.stopped.retain(|_, thread| !dead(*thread));
    }

    fn stop(&mut self, mut start: Start, end_ns: u64) -> Result<(), String> {
        self.tell(&Told::Stop { at_ns: end_ns });
        kill(pid(&start.child), Signal::SIGTERM).map_err(|error| format!("SIGTERM: {error}"))?;
        let mut killed = false;
        loop {
            if let Some(how) = start.child.try_wait().map_err(|error| error.to_string())? {
                self.ended(start.number, how);
                return Ok(());
            }
            if !killed && now() > end_ns + PATIENCE_NS {
                killed = true;
                kill(pid(&start.child), Signal::SIGKILL).map_err(|error| format!("SIGKILL: {error}"))?;
            }
            self.let_die();
            std::thread::sleep(LOOK);
        }
    }
}

fn program() -> Command {
    let mut command = Command::new("ocelli");
    command.current_dir("/board").env("PATH", PATH).env("HOME", "/state");
    // There is no program beside it that looks at them first.
    command.env("GST_PLUGIN_SYSTEM_PATH", PLUGINS).env("GST_REGISTRY_FORK", "no");
    command.env("XDG_STATE_HOME", "/state").env("RUST_BACKTRACE", "1");
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}
