//! Scenarios on a real board, over ssh: with its own cameras, and what can be done to the program from outside.

use crate::scenario::{Act, Scenario, Suite};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The way to a board.
struct Ssh {
    /// The program.
    program: String,
    /// As it takes it: `user@board`.
    host: String,
}

/// A board that was looked at.
pub struct Board {
    ssh: Ssh,
    /// Its cameras' names by path.
    cameras: Vec<String>,
    /// Where scenarios are run there.
    folder: String,
    /// The program there.
    ocelli: String,
    /// What is said of every stream, over what the scenario says: a real camera has its own formats.
    stream: toml::Table,
}

impl Board {
    /// Looks what is there, and takes the program there if one is given.
    pub fn look(
        ssh: &str,
        host: &str,
        ocelli: Option<&Path>,
        stream: toml::Table,
        root: &Path,
    ) -> Result<Self, String> {
        let ssh = Ssh { program: ssh.to_owned(), host: host.to_owned() };
        let probe =
            "uname -m; mktemp -d; command -v ocelli || echo -; ls /dev/v4l/by-path 2>/dev/null | sort";
        let text = ssh.run(probe, &[])?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let mut next =
            |what: &str| lines.next().map(str::to_owned).ok_or(format!("{host} does not say its {what}"));
        let (machine, folder, mut there) = (next("machine")?, next("temporary folder")?, next("ocelli")?);
        let cameras = lines.filter(|name| name.ends_with("video-index0"));
        let cameras: Vec<_> = cameras.map(|name| format!("/dev/v4l/by-path/{name}")).collect();
        if let Some(ocelli) = ocelli {
            there = format!("{folder}/ocelli");
            let bytes = std::fs::read(ocelli).map_err(|error| format!("{}: {error}", ocelli.display()))?;
            ssh.run(&format!("cat > {there} && chmod +x {there}"), &bytes)?;
        } else if there == "-" {
            return Err(format!("{host} has no ocelli on its path; say --ocelli FILE, built for {machine}"));
        }
        ssh.run(&format!("{there} --version"), &[])
            .map_err(|why| format!("{there} does not run there: {why}"))?;
        ssh.run(&format!("mkdir -p {folder}/models/base"), &[])?;
        for name in ["person-ssdlite.int8.toml", "person-ssdlite.int8.onnx", "base/person-ssdlite.toml"] {
            let bytes =
                std::fs::read(root.join("models").join(name)).map_err(|error| format!("{name}: {error}"))?;
            ssh.run(&format!("cat > {folder}/models/{name}"), &bytes)?;
        }
        Ok(Self { ssh, cameras, folder, ocelli: there, stream })
    }

    /// Runs a scenario there and fetches what it left; or says why it does not apply.
    pub fn run(&self, scenario: &Scenario, folder: &Path) -> Result<Result<(), String>, String> {
        if let Some(why) = foreign(scenario) {
            return Ok(Err(why));
        }
        let wanted = scenario.ids().iter().filter(|id| scenario.camera(id).is_some()).count();
        if wanted > self.cameras.len() {
            return Ok(Err(format!("needs {wanted} cameras; {} has {}", self.ssh.host, self.cameras.len())));
        }
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(failed)?;
        }
        std::fs::create_dir_all(folder).map_err(failed)?;
        let text = self.board_text(scenario)?;
        self.ssh.run(
            &format!("rm -rf {0}/run && mkdir {0}/run && cat > {0}/run/test.toml", self.folder),
            text.as_bytes(),
        )?;
        self.ssh.run("sh -s", self.script(scenario).as_bytes())?;
        let files = self.ssh.run(&format!("tar -C {}/run -cf - .", self.folder), &[])?;
        let mut tar = Command::new("tar");
        let mut tar =
            tar.arg("-C").arg(folder).args(["-xf", "-"]).stdin(Stdio::piped()).spawn().map_err(failed)?;
        tar.stdin.take().ok_or("tar takes nothing")?.write_all(&files).map_err(failed)?;
        let unpacked = tar.wait().map_err(failed)?;
        unpacked
            .success()
            .then_some(())
            .ok_or_else(|| format!("what came from {} is no archive", self.ssh.host))?;
        Ok(Ok(()))
    }

    /// Removes what was put there.
    pub fn leave(&self) {
        let _ = self.ssh.run(&format!("rm -rf {}", self.folder), &[]);
    }

    /// The scenario's board with the cameras that are there.
    fn board_text(&self, scenario: &Scenario) -> Result<String, String> {
        let mut scenario = scenario.clone();
        let cameras: BTreeMap<_, _> = scenario
            .ids()
            .into_iter()
            .filter(|id| scenario.camera(id).is_some())
            .zip(&self.cameras)
            .collect();
        for (id, device) in cameras {
            let mut stream = self.stream.clone();
            stream.insert("id".to_owned(), id.into());
            let source = toml::Table::from_iter([("device".to_owned(), device.clone().into())]);
            stream.insert("source".to_owned(), source.into());
            scenario.streams.push(stream);
        }
        scenario.board_text(&format!("{}/models/person-ssdlite.int8.toml", self.folder))
    }

    /// What the agent does in a machine, in the words of any shell.
    fn script(&self, scenario: &Scenario) -> String {
        let profile = format!("{} profile test.toml --for 1 >/dev/null 2>>log\n", self.ocelli);
        let mut text = SCRIPT.replace("FOLDER", &self.folder).replace("OCELLI", &self.ocelli);
        text = text.replace("ARGUMENTS", &scenario.service.arguments.join(" "));
        text += if scenario.service.profile { &profile } else { "" };
        text += "start\n";
        for step in &scenario.steps {
            if let Act::Signal(signal) = &step.act {
                let _ =
                    writeln!(text, "until_ms {}; step '{}' {signal}", (step.at * 1000.0) as u64, step.name);
                if signal == "KILL" && scenario.service.restart {
                    text += "ended; start\n";
                }
            }
        }
        let _ = writeln!(
            text,
            "until_ms {}; tell stop; kill -TERM $pid; ended",
            (scenario.seconds * 1000.0) as u64
        );
        text
    }
}

/// The beginning of what is run on the board.
const SCRIPT: &str = r#"
cd FOLDER/run || exit 1
export XDG_STATE_HOME=FOLDER/run/state RUST_BACKTRACE=1
n=0 began=
now() { read -r up _ </proc/uptime; echo "${up%.*}${up#*.}0000000"; }
tell() { echo "{\"type\":\"$1\",\"at_ns\":$(now)$2}" >>agent.jsonl; }
until_ms() { while [ "$(($(now) / 1000000))" -lt "$((began + $1))" ]; do sleep 0.01; done; }
start() {
    n=$((n + 1))
    OCELLI run test.toml --results results.$n.jsonl --summary summary.$n.json ARGUMENTS >>log 2>&1 &
    pid=$!
    tell start ",\"start\":$n,\"pid\":$pid"
    tries=0
    while [ ! -s results.$n.jsonl ] && kill -0 $pid 2>/dev/null && [ $tries -lt 6000 ]; do tries=$((tries + 1)); sleep 0.01; done
    tell running ",\"start\":$n"
    began=${began:-$(($(now) / 1000000))}
}
step() {
    at=$(now) error=null
    kill -"$2" $pid || error='"kill failed"'
    echo "{\"type\":\"step\",\"at_ns\":$at,\"done_ns\":$(now),\"name\":\"$1\",\"act\":\"$2\",\"error\":$error}" >>agent.jsonl
}
ended() {
    wait $pid
    how=$?
    [ $how -le 128 ] || how=SIG$(kill -l $((how - 128)))
    tell end ",\"start\":$n,\"how\":\"$how\""
}
tell boot ',"resets":0'
"#;

/// Why a scenario does not apply to a real board, if it does not.
fn foreign(scenario: &Scenario) -> Option<String> {
    let machine = &scenario.machine;
    let why = if scenario.suite == Suite::Two {
        "needs a machine of its own (GStreamer's cameras or systemd in it)"
    } else if scenario.program.is_some() {
        "needs a driver that shows known pictures (vivid)"
    } else if machine.watchdog {
        "would reset the board"
    } else if machine.buses.iter().any(|bus| !bus.controls.is_empty() || bus.multiplanar) {
        "needs a driver with faults of its own (vivid)"
    } else if scenario.service.watchdog_s.is_some() || scenario.service.sample_s.is_some() {
        "needs the rig's agent as service manager"
    } else {
        let foreign = |act: &Act| match act {
            Act::Signal(_) => None,
            Act::Control { .. } | Act::Run(_) => Some("needs a driver with faults of its own (vivid)"),
            Act::Unbind(_) | Act::Bind(_) | Act::Swap(_) => Some("needs somebody to pull the plug"),
            Act::StopThread(_) | Act::ResumeThread(_) | Act::Lie { .. } => {
                Some("needs the rig's agent to hold a thread")
            }
            Act::ClockStep { .. } => Some("would set the board's clock"),
            Act::Fill { .. } | Act::Free { .. } => Some("would fill the board's disk"),
            Act::Hog { .. } | Act::Release {} | Act::Burn { .. } => {
                Some("would take the board's memory or processor")
            }
            Act::Wedge(_) | Act::Unwedge(_) => Some("needs the rig's agent to connect and not read"),
            Act::CrashManager {} => Some("would reset the board"),
        };
        return scenario.steps.iter().find_map(|step| foreign(&step.act)).map(str::to_owned);
    };
    Some(why.to_owned())
}

impl Ssh {
    /// Runs a command on the board with this as its input, and returns what it says.
    fn run(&self, command: &str, input: &[u8]) -> Result<Vec<u8>, String> {
        let host = &self.host;
        let failed = |error: std::io::Error| format!("ssh {host}: {error}");
        let mut ssh = Command::new(&self.program);
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host, command]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut ssh = ssh.spawn().map_err(failed)?;
        let taken = ssh.stdin.take().ok_or("ssh takes nothing")?.write_all(input);
        let output = ssh.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("ssh {host} ({}): {said}", command.split_whitespace().next().unwrap_or("")));
        }
        taken.map_err(failed)?;
        Ok(output.stdout)
    }
}
