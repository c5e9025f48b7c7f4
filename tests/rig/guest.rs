//! The machine from its first instant to its last, in virtual time: the agent is the first process.

use crate::agent::{self, Agent, LOOK, Told};
use crate::archive::Archive;
use crate::scenario::Scenario;
use crate::unit;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What is written here goes home.
const OUT: &str = "/out";

/// Everything, and off. What fails is told in `agent.jsonl`, or else on the console.
pub fn main() {
    if let Err(why) = live() {
        eprintln!("rig: {why}");
    }
    off();
}

/// What is left to do for a process of the machine that systemd has started.
pub fn inside() {
    let done = plan().and_then(|plan| serve(&plan));
    if let Err(why) = done {
        eprintln!("rig: {why}");
    }
    off();
}

fn live() -> Result<(), String> {
    for (kind, folder) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mounted(kind, kind, folder, "")?;
    }
    let plan = plan()?;
    let prepared = prepare(&plan);
    if plan.service.systemd {
        prepared?;
        unit::install(Path::new("/"), &plan)?;
        let failed = Command::new("/lib/systemd/systemd").arg("--unit=rig.target").exec();
        return Err(format!("systemd: {failed}"));
    }
    match prepared {
        Ok(()) => serve(&plan),
        Err(why) => told_broken(&plan, why),
    }
}

fn plan() -> Result<Scenario, String> {
    let plan = fs::read("/plan.json").map_err(|error| format!("/plan.json: {error}"))?;
    serde_json::from_slice(&plan).map_err(|error| format!("/plan.json: {error}"))
}

/// Modules, disk, places to write; with systemd over to the host's files: they lie below, what is written stays here.
fn prepare(plan: &Scenario) -> Result<(), String> {
    plan.modules().iter().try_for_each(|module| load(module, ""))?;
    if plan.has_hosts_files() {
        switch()?;
    }
    mounted("tmpfs", "tmpfs", "/full", "size=1m")?;
    if plan.machine.disk {
        mounted("/dev/vda", "ext4", "/disk", "")?;
        for (folder, at) in [("/disk/out", OUT), ("/disk/ocelli", "/var/lib/ocelli")] {
            fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
            bound(folder, at)?;
        }
    } else {
        mounted("tmpfs", "tmpfs", OUT, "")?;
    }
    mounted("tmpfs", "tmpfs", "/tmp", "")
}

/// Makes the host's files the root.
fn switch() -> Result<(), String> {
    mounted("host", "9p", "/host", "trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288")?;
    mounted("tmpfs", "tmpfs", "/written", "")?;
    for folder in ["/written/upper", "/written/work"] {
        fs::create_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    mounted("root", "overlay", "/new", "lowerdir=/host,upperdir=/written/upper,workdir=/written/work")?;
    for folder in ["/board", "/models", "/modules", "/system", "/usr/local/bin", "/dev", "/proc", "/sys"] {
        bound(folder, &format!("/new{folder}"))?;
    }
    fs::copy("/plan.json", "/new/plan.json").map_err(|error| format!("/plan.json: {error}"))?;
    fs::create_dir_all("/new/state").map_err(|error| format!("/state: {error}"))?;
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("the host's files ({what}): {error}");
    std::env::set_current_dir("/new").map_err(|error| failed("chdir", &error))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|error| failed("move", &error))?;
    rustix::process::chroot(".").map_err(|error| failed("chroot", &error))?;
    std::env::set_current_dir("/").map_err(|error| failed("chdir", &error))
}

/// The scenario, and home.
fn serve(plan: &Scenario) -> Result<(), String> {
    let out = Path::new(OUT);
    let mut agent = Agent::new(plan, out).map_err(|error| format!("{OUT}: {error}"))?;
    if let Err(why) = scenario(&mut agent) {
        agent.broken(why);
    }
    let _ = fs::write(out.join("kernel.log"), kernel_log());
    hand_home(out)
}

fn told_broken(plan: &Scenario, why: String) -> Result<(), String> {
    mounted("tmpfs", "tmpfs", OUT, "")?;
    Agent::new(plan, Path::new(OUT)).map_err(|error| format!("{OUT}: {error}"))?.broken(why);
    hand_home(Path::new(OUT))
}

fn scenario(agent: &mut Agent) -> Result<(), String> {
    agent.plug_in()?;
    let account = fs::read_to_string(agent.out.join("agent.jsonl")).unwrap_or_default();
    let resets = account.lines().filter(|line| line.contains("\"type\":\"boot\"")).count() as u32;
    agent.tell(&Told::Boot { at_ns: agent::now(), resets });
    if let Some(program) = &agent.plan.program {
        agent.run_program(program)
    } else if agent.plan.service.systemd {
        unit::run(agent, resets)
    } else {
        agent.run(resets)
    }
}

fn bound(folder: &str, at: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{at}: {error}");
    fs::create_dir_all(at).map_err(|error| failed(&error))?;
    mount(Some(folder), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| failed(&error))
}

fn mounted(what: &str, kind: &str, folder: &str, options: &str) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
    mount(Some(what), folder, Some(kind), MsFlags::empty(), Some(options))
        .map_err(|error| format!("{folder}: {error}"))
}

/// What the kernel has said so far.
fn kernel_log() -> Vec<u8> {
    let mut text = Vec::new();
    let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut log) = opened else { return text };
    let mut line = [0; 8192];
    // A line was lost meanwhile (EPIPE): the next read has the one after it.
    loop {
        match log.read(&mut line) {
            Ok(length) => text.extend_from_slice(&line[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => return text,
        }
    }
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
