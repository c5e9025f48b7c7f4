//! The machine from its first instant to its last, in virtual time: the agent is the first process.

use crate::agent::{self, Agent, Told};
use crate::scenario::Scenario;
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
    let mounts =
        [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp"), ("tmpfs", OUT)];
    for (kind, folder) in mounts {
        mounted(kind, kind, folder, "")?;
    }
    mounted("tmpfs", "tmpfs", "/full", "size=1m")?;
    let plan = fs::read("/plan.json").map_err(|error| format!("/plan.json: {error}"))?;
    let plan: Scenario = serde_json::from_slice(&plan).map_err(|error| format!("/plan.json: {error}"))?;
    let out = Path::new(OUT);
    let mut agent = Agent::new(&plan, out).map_err(|error| format!("{OUT}: {error}"))?;
    let lived = scenario(&mut agent, &plan);
    if let Err(why) = lived {
        agent.broken(why);
    }
    let _ = fs::write(out.join("kernel.log"), kernel_log());
    agent::hand_home(out)
}

fn scenario(agent: &mut Agent, plan: &Scenario) -> Result<(), String> {
    for module in &plan.machine.modules {
        agent::load(module, "")?;
    }
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
