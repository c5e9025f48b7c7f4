//! The machine from its first instant to its last, in virtual time: the agent is the first process.

use crate::agent::{self, Agent, Told};
use crate::machine;
use crate::scenario::{Scenario, Suite};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is written here goes home.
const OUT: &str = "/out";

/// Everything, and off. What fails is told in `agent.jsonl`, or else on the console.
pub fn main() {
    if let Err(why) = live() {
        eprintln!("rig: {why}");
    }
    agent::off();
}

fn live() -> Result<(), String> {
    for (kind, folder) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mounted(kind, kind, folder, "")?;
    }
    let plan = fs::read("/plan.json").map_err(|error| format!("/plan.json: {error}"))?;
    let plan: Scenario = serde_json::from_slice(&plan).map_err(|error| format!("/plan.json: {error}"))?;
    let prepared = prepare(&plan);
    mounted("tmpfs", "tmpfs", "/tmp", "")?;
    mounted("tmpfs", "tmpfs", "/full", "size=1m")?;
    mounted("tmpfs", "tmpfs", OUT, "")?;
    let out = Path::new(OUT);
    let mut agent = Agent::new(&plan, out).map_err(|error| format!("{OUT}: {error}"))?;
    if let Err(why) = prepared.and_then(|()| scenario(&mut agent)) {
        agent.broken(why);
    }
    let _ = fs::write(out.join("kernel.log"), kernel_log());
    agent::hand_home(out)
}

/// Loads modules, and in real time goes over to the host's files: they are below, and what is written stays here.
fn prepare(plan: &Scenario) -> Result<(), String> {
    for module in &plan.machine.modules {
        agent::load(module, "")?;
    }
    if plan.suite != Suite::Two {
        return Ok(());
    }
    for module in machine::SHARING {
        agent::load(module, "")?;
    }
    mounted("host", "9p", "/host", "trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288")?;
    mounted("tmpfs", "tmpfs", "/written", "")?;
    for folder in ["/written/upper", "/written/work"] {
        fs::create_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    mounted("root", "overlay", "/root", "lowerdir=/host,upperdir=/written/upper,workdir=/written/work")?;
    for folder in ["/dev", "/proc", "/sys", "/board", "/models", "/modules", "/usr/local/bin"] {
        let target = format!("/root{folder}");
        fs::create_dir_all(&target).map_err(|error| format!("{target}: {error}"))?;
        mount(Some(folder), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|error| format!("{target}: {error}"))?;
    }
    fs::create_dir_all("/root/state").map_err(|error| format!("/state: {error}"))?;
    rustix::process::chroot("/root").map_err(|error| format!("the host's files: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("the host's files: {error}"))
}

fn scenario(agent: &mut Agent) -> Result<(), String> {
    agent.plug_in()?;
    agent.tell(&Told::Boot { at_ns: agent::now(), resets: 0 });
    agent.run()
}

pub fn mounted(what: &str, kind: &str, folder: &str, options: &str) -> Result<(), String> {
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
