//! Inside the machine: its first process. Loads the drivers, starts the program, lets happen what the scenario
//! says at the instants that it says, and hands home what was written.
//!
//! It looks every 10 ms of the machine's time; between two looks nothing of it runs.

use crate::archive::Archive;
use crate::scenario::{Act, Bus, Scenario, by_path};
use nix::sys::ptrace;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// How often the agent looks whether something is due or has happened.
pub const LOOK: Duration = Duration::from_millis(10);
/// How long the program may take for its end.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long until it is started again, as a service manager would.
const RESTART_NS: u64 = 100_000_000;
/// How long it may take from its start to its first line of results.
const START_NS: u64 = 60_000_000_000;

/// Where programs are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where GStreamer's plugins are, in real time.
pub const PLUGINS: &str = "/state/plugins";

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
    /// So many frames of a camera were the known picture.
    Known { at_ns: u64, stream: String, frames: u64, copied: u64 },
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
    stopped: BTreeMap<String, Pid>,
    wedged: BTreeMap<String, UnixStream>,
    hoard: Vec<Vec<u8>>,
    fills: u32,
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
        }
    }

    pub fn broken(&mut self, why: String) {
        self.tell(&Told::Broken { at_ns: now(), why });
    }

    /// Drivers, cameras, and their controls.
    pub fn plug_in(&mut self) -> Result<(), String> {
        for (index, bus) in self.plan.machine.buses.iter().enumerate() {
            load(&Bus::driver(index), &bus.parameters())?;
            self.name_cameras(index)?;
        }
        Ok(())
    }

    /// Makes the links by path to the cameras of a bus, as udev does, and sets their controls.
    fn name_cameras(&self, bus: usize) -> Result<(), String> {
        let at = |error: std::io::Error| format!("names of cameras: {error}");
        fs::create_dir_all("/dev/v4l/by-path").map_err(at)?;
        let controls = self.plan.machine.buses[bus].controls();
        let mut found = 0;
        for entry in fs::read_dir("/sys/class/video4linux").map_err(at)?.flatten() {
            let name = fs::read_to_string(entry.path().join("name")).map_err(at)?;
            for camera in 0..self.plan.machine.buses[bus].cameras {
                if name.trim() == format!("{}-{camera:03}-vid-cap", Bus::driver(bus)) {
                    let node = entry.file_name().to_string_lossy().into_owned();
                    let link = by_path(bus, camera);
                    let _ = fs::remove_file(&link);
                    std::os::unix::fs::symlink(format!("../../{node}"), &link).map_err(at)?;
                    set_controls(&link, &controls)?;
                    found += 1;
                }
            }
        }
        let wanted = self.plan.machine.buses[bus].cameras;
        (found == wanted).then_some(()).ok_or_else(|| format!("bus {bus} has {found} of {wanted} cameras"))
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
        // Threads that were held go with their process only when whoever held them has taken note.
        for (_, thread) in std::mem::take(&mut self.stopped) {
            let _ = waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
        }
        let how = match (how.code(), how.signal().and_then(|signal| Signal::try_from(signal).ok())) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => signal.as_str().to_owned(),
            (None, None) => how.to_string(),
        };
        self.tell(&Told::End { at_ns: now(), start, how });
    }

    fn stop(&mut self, mut start: Start, end_ns: u64) -> Result<(), String> {
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
            // A thread that is held must let go, or its process can't end.
            if killed {
                self.stopped.values().for_each(|thread| {
                    let _ = waitpid(*thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    pub fn act(&mut self, act: &Act, process: Option<Pid>) -> Result<(), String> {
        let process = process.ok_or("the program is not running");
        match act {
            Act::Control { camera, set } => set_controls(&self.device(camera)?, set),
            Act::Unbind(bus) => driver(*bus, "unbind"),
            Act::Bind(bus) => {
                driver(*bus, "bind")?;
                self.name_cameras(*bus as usize - 'a' as usize)
            }
            Act::Swap(cameras) => {
                let [one, other] = [self.device(&cameras[0])?, self.device(&cameras[1])?];
                exchange(&one, &other).map_err(|error| format!("{one} and {other}: {error}"))
            }
            Act::Signal(name) => {
                let signal = Signal::from_str(&format!("SIG{name}")).map_err(|error| error.to_string())?;
                kill(process?, signal).map_err(|error| format!("{signal}: {error}"))
            }
            Act::StopThread(name) => {
                let thread = thread(process?, name)?;
                let failed = |error: nix::Error| format!("thread {name}: {error}");
                ptrace::seize(thread, ptrace::Options::empty()).map_err(failed)?;
                ptrace::interrupt(thread).map_err(failed)?;
                waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(failed)?;
                self.stopped.insert(name.clone(), thread);
                Ok(())
            }
            Act::ResumeThread(name) => {
                let thread = self.stopped.remove(name).ok_or(format!("thread {name} is not stopped"))?;
                ptrace::detach(thread, None).map_err(|error| format!("thread {name}: {error}"))
            }
            Act::ClockStep { seconds } => {
                let failed = |error: nix::Error| format!("wall clock: {error}");
                let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_err(failed)?;
                let wall = TimeSpec::new(wall.tv_sec() + seconds, wall.tv_nsec());
                clock_settime(ClockId::CLOCK_REALTIME, wall).map_err(failed)
            }
            Act::Fill { folder, leave_kb } => self.fill(folder, *leave_kb),
            Act::Free { folder } => {
                (0..self.fills)
                    .for_each(|fill| fs::remove_file(format!("{folder}/fill.{fill}")).unwrap_or(()));
                Ok(())
            }
            Act::Hog { leave_mb } => self.hog(*leave_mb),
            Act::Release {} => {
                self.hoard.clear();
                Ok(())
            }
            Act::Wedge(socket) => {
                let connected = UnixStream::connect(socket).map_err(|error| format!("{socket}: {error}"))?;
                self.wedged.insert(socket.clone(), connected);
                Ok(())
            }
            Act::Unwedge(socket) => {
                self.wedged.remove(socket).map(drop).ok_or(format!("{socket} is not wedged"))
            }
            Act::Burn { ms } => burn(Duration::from_millis(*ms)),
            Act::CrashManager {} => {
                kill(Pid::from_raw(1), Signal::SIGSEGV).map_err(|error| format!("process 1: {error}"))
            }
            Act::Run(arguments) => {
                let named = |argument: &String| self.device(argument).unwrap_or_else(|_| argument.clone());
                let mut words = arguments.iter().map(named);
                let program = words.next().ok_or("nothing to run")?;
                run(Command::new(program).args(words))
            }
        }
    }

    pub fn device(&self, camera: &str) -> Result<String, String> {
        let (bus, camera) = self.plan.camera(camera).ok_or(format!("no camera {camera}"))?;
        Ok(by_path(bus, camera))
    }

    fn fill(&mut self, folder: &str, leave_kb: u64) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{folder}: {error}");
        let mut file = File::create(format!("{folder}/fill.{}", self.fills)).map_err(failed)?;
        self.fills += 1;
        let room = rustix::fs::statvfs(folder).map_err(|error| format!("{folder}: {error}"))?;
        let room = (room.f_bavail * room.f_frsize).saturating_sub(leave_kb * 1024);
        match file.write_all(&vec![0; room as usize]) {
            // Some of the room went to what keeps account of it: full it is.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && leave_kb == 0 => Ok(()),
            written => written.map_err(failed),
        }
    }

    fn hog(&mut self, leave_mb: u64) -> Result<(), String> {
        loop {
            let memory = fs::read_to_string("/proc/meminfo").map_err(|error| error.to_string())?;
            let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
            let kb: u64 = available
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                .ok_or("no MemAvailable in /proc/meminfo")?;
            if kb / 1024 <= leave_mb {
                return Ok(());
            }
            self.hoard.push(vec![1; 4 << 20]);
        }
    }
}

fn program() -> Command {
    let mut command = Command::new("ocelli");
    command.current_dir("/board").env("PATH", PATH).env("HOME", "/state");
    command.env("GST_PLUGIN_SYSTEM_PATH", PLUGINS);
    command.env("XDG_STATE_HOME", "/state").env("RUST_BACKTRACE", "1");
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// The thread of a process that has this name.
fn thread(process: Pid, name: &str) -> Result<Pid, String> {
    let folder = format!("/proc/{process}/task");
    for entry in fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == name
            && let Ok(id) = entry.file_name().to_string_lossy().parse()
        {
            return Ok(Pid::from_raw(id));
        }
    }
    Err(format!("no thread is named {name}"))
}

/// Takes the driver off a bus, or gives it back.
fn driver(bus: char, what: &str) -> Result<(), String> {
    let name = Bus::driver(bus as usize - 'a' as usize);
    let path = format!("/sys/bus/platform/drivers/{name}/{what}");
    fs::write(&path, format!("{name}.0")).map_err(|error| format!("{path}: {error}"))
}

fn set_controls(device: &str, controls: &BTreeMap<String, i64>) -> Result<(), String> {
    let set: Vec<_> = controls.iter().map(|(name, value)| format!("{name}={value}")).collect();
    run(Command::new("v4l2-ctl").args(["-d", device, "-c", &set.join(",")]))
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let failed = || format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&said).trim());
    output.status.success().then_some(()).ok_or_else(failed)
}

/// Runs before everybody else, and does nothing.
fn burn(time: Duration) -> Result<(), String> {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let busy = std::thread::spawn(move || {
        let priority = ThreadPriorityValue::try_from(90u8).map_err(|error| format!("{error:?}"))?;
        let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), fifo)
            .map_err(|error| format!("{error:?}"))?;
        let until = now() + time.as_nanos() as u64;
        while now() < until {}
        Ok(())
    });
    busy.join().map_err(|_| "the burning thread died".to_owned())?
}

fn exchange(one: &str, other: &str) -> std::io::Result<()> {
    let (a, b) = (fs::read_link(one)?, fs::read_link(other)?);
    fs::remove_file(one)?;
    fs::remove_file(other)?;
    std::os::unix::fs::symlink(b, one)?;
    std::os::unix::fs::symlink(a, other)
}

/// Loads a kernel module and, before it, what it needs, in the order of its list.
pub fn load(module: &str, parameters: &str) -> Result<(), String> {
    let list = format!("/modules/{module}.list");
    let needed = fs::read_to_string(&list).map_err(|error| format!("{list}: {error}"))?;
    for name in needed.lines() {
        if Path::new("/sys/module").join(name.replace('-', "_")).exists() {
            continue;
        }
        let path = format!("/modules/{name}.ko");
        let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        let parameters = std::ffi::CString::new(if name == module { parameters } else { "" })
            .map_err(|error| error.to_string())?;
        nix::kmod::finit_module(&file, &parameters, nix::kmod::ModuleInitFlags::empty())
            .map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// Sends everything in `out` to the host.
pub fn hand_home(out: &Path) -> Result<(), String> {
    load("virtio_pci", "")?;
    load("virtio_console", "")?;
    let failed = |error: std::io::Error| format!("handing the files home: {error}");
    let port = 'found: {
        for _ in 0..500 {
            for entry in fs::read_dir("/sys/class/virtio-ports").map_err(failed)?.flatten() {
                let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
                let device = Path::new("/dev").join(entry.file_name());
                if name.trim() == "out" && device.exists() {
                    break 'found device;
                }
            }
            std::thread::sleep(LOOK);
        }
        return Err("there is no port to hand the files home".to_owned());
    };
    let port = File::options().write(true).open(port).map_err(failed)?;
    let mut archive = Archive::new(std::io::BufWriter::with_capacity(1 << 20, port));
    let mut names: Vec<_> = fs::read_dir(out).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.is_file()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        archive.copy(&name, path).map_err(failed)?;
    }
    archive.finish().map(drop).map_err(failed)
}

/// Turns the machine off.
pub fn off() {
    let _ = reboot(RebootMode::RB_POWER_OFF);
}
