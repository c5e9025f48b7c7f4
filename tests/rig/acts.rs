//! What can be done to a machine, its cameras and the program.

use crate::agent::{Agent, PATH, now};
use crate::guest;
use crate::lie;
use crate::scenario::{Act, Bus, by_path};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

impl Agent<'_> {
    /// Does it to the program's process, or to what is around it.
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
            Act::Lie { thread: name, lie, seconds } => {
                let (thread, lie) = (thread(process?, name)?, *lie);
                let until_ns = now() + (seconds * 1e9) as u64;
                // A thread that dies meanwhile, or a process that ends, takes its tracer along.
                std::thread::spawn(move || lie::tell(thread, lie, until_ns));
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

    /// The device node of a camera, by path.
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

    /// Drivers, cameras, and their controls.
    pub fn plug_in(&mut self) -> Result<(), String> {
        for (index, bus) in self.plan.machine.buses.iter().enumerate() {
            guest::load(&Bus::driver(index), &bus.parameters())?;
            self.name_cameras(index)?;
        }
        Ok(())
    }

    /// Makes the links by path to the cameras of a bus, as udev does, and sets their controls.
    pub fn name_cameras(&self, bus: usize) -> Result<(), String> {
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
                    symlink(format!("../../{node}"), &link).map_err(at)?;
                    set_controls(&link, &controls)?;
                    found += 1;
                }
            }
        }
        let wanted = self.plan.machine.buses[bus].cameras;
        (found == wanted).then_some(()).ok_or_else(|| format!("bus {bus} has {found} of {wanted} cameras"))
    }
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
    symlink(b, one)?;
    symlink(a, other)
}
