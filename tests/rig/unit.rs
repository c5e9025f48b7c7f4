//! The program as a service of systemd, with the project's own unit, and what happens to it there.

use crate::acts;
use crate::agent::{Agent, LOOK, Told, now};
use crate::scenario::Scenario;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The unit.
const UNIT: &str = "ocelli@test.service";
/// Where systemd lists the service's processes.
const PROCESSES: &str = "/sys/fs/cgroup/system.slice/system-ocelli.slice/ocelli@test.service/cgroup.procs";
/// Where it writes results; the board says so.
const RESULTS: &str = "/var/lib/ocelli/results.jsonl";

/// What is written for systemd below `root`, before it is started.
pub fn install(root: &Path, plan: &Scenario) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&path, text).map_err(failed)
    };
    let copy = |from: &str, name: &str| {
        let bytes = fs::read(from).map_err(|error| format!("{from}: {error}"))?;
        write(name, &String::from_utf8_lossy(&bytes))
    };
    copy("/system/ocelli@.service", "etc/systemd/system/ocelli@.service")?;
    copy("/system/ocelli.conf", "etc/sysusers.d/ocelli.conf")?;
    copy("/board/test.toml", "etc/ocelli/test.toml")?;
    fs::copy("/usr/local/bin/ocelli", root.join("usr/bin/ocelli"))
        .map_err(|error| format!("/usr/bin: {error}"))?;
    // What the host runs on timers, and the traces of its being a container, are not the machine's.
    for name in ["timers.target", "systemd-tmpfiles-setup.service"] {
        let path = root.join("etc/systemd/system").join(name);
        symlink("/dev/null", &path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let _ = fs::remove_file(root.join(".dockerenv"));
    if let Some(watchdog) = plan.service.watchdog_s {
        let text = format!("[Service]\nWatchdogSec={watchdog}\n");
        write("etc/systemd/system/ocelli@.service.d/rig.conf", &text)?;
    }
    if plan.machine.watchdog {
        write("etc/systemd/system.conf.d/rig.conf", "[Manager]\nRuntimeWatchdogSec=10\n")?;
    }
    write(
        "etc/systemd/system/rig.target",
        "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=rig.service\nAllowIsolate=yes\n",
    )?;
    write(
        "etc/systemd/system/rig.service",
        "[Unit]\nAfter=basic.target\n[Service]\nType=exec\nExecStart=/usr/local/bin/rig inside\n\
         StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n",
    )
}

/// Runs the program as a service, with everything that happens to it.
pub fn run(agent: &mut Agent, resets: u32) -> Result<(), String> {
    acts::run(&mut Command::new("systemd-sysusers"))?;
    acts::run(Command::new("systemctl").args(["start", "--no-block", UNIT]))?;
    let mut steps = if resets == 0 { agent.steps() } else { Vec::new() };
    steps.reverse();
    let mut starts = agent.starts();
    let (mut running, mut began) = (None, None);
    let mut is_new = false;
    loop {
        std::thread::sleep(LOOK);
        let at_ns = now();
        let process = process();
        if process != running {
            if running.is_some() {
                agent.tell(&Told::End { at_ns, start: starts, how: "gone".to_owned() });
            }
            if let Some(process) = process {
                starts += 1;
                is_new = true;
                agent.tell(&Told::Start { at_ns, start: starts, pid: process.as_raw() as u32 });
            }
            running = process;
        }
        // Another start would write it anew: it keeps its file under another name.
        let kept = format!("/var/lib/ocelli/results.{starts}.jsonl");
        if is_new
            && fs::metadata(RESULTS).is_ok_and(|results| results.len() > 0)
            && fs::rename(RESULTS, kept).is_ok()
        {
            is_new = false;
            began = began.or(Some(at_ns));
            agent.tell(&Told::Running { at_ns, start: starts });
        }
        if began.is_none() && at_ns > 300_000_000_000 {
            keep(agent, resets);
            return Err("the service wrote no results".to_owned());
        }
        let Some(began) = began else { continue };
        let due = |at: f64| at_ns >= began + (at * 1e9) as u64;
        while let Some((_, step)) = steps.pop_if(|(at, _)| due(*at)) {
            let step = &agent.plan.steps[step];
            // What comes may be the end of this machine's run.
            keep(agent, resets);
            let act = serde_json::to_string(&step.act).unwrap_or_default();
            let told = |error| Told::Step { at_ns, done_ns: now(), name: step.name.clone(), act, error };
            if matches!(step.act, crate::scenario::Act::CrashManager {}) {
                agent.tell(&told(None));
                agent.act(&step.act, running)?;
            } else {
                let error = agent.act(&step.act, running).err();
                agent.tell(&told(error));
            }
        }
        if due(agent.plan.seconds) {
            break;
        }
    }
    agent.tell(&Told::Stop { at_ns: now() });
    acts::run(Command::new("systemctl").args(["stop", UNIT]))?;
    agent.tell(&Told::End { at_ns: now(), start: starts, how: "stopped".to_owned() });
    keep(agent, resets);
    Ok(())
}

fn process() -> Option<Pid> {
    let processes = fs::read_to_string(PROCESSES).ok()?;
    processes.lines().next()?.parse().ok().map(Pid::from_raw)
}

/// Puts what there is by now where it goes home from, and outlasts a reset.
fn keep(agent: &Agent, resets: u32) {
    for entry in fs::read_dir("/var/lib/ocelli").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("results.") {
            let _ = fs::copy(entry.path(), agent.out.join(entry.file_name()));
        }
    }
    let journal = Command::new("journalctl").args(["-b", "-o", "short-monotonic", "--no-pager"]).output();
    if let Ok(journal) = journal {
        let _ = fs::write(agent.out.join(format!("log.{resets}")), journal.stdout);
    }
}
