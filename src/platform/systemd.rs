//! Whether systemd, or anybody else, feeds a hardware watchdog, when the board says that it is systemd's.

use crate::platform::reset::{entries, line};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long systemd may take to answer: it is asked at the start only, and everything goes on without.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a hardware watchdog is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// One is armed.
    Yes,
    /// None is, and why that is known.
    No(String),
    /// Nobody tells.
    Unknown(String),
}

/// Asks the kernel, and systemd where the kernel doesn't tell. May take seconds.
#[must_use]
pub fn hardware_watchdog() -> Fed {
    armed(Path::new("/sys")).unwrap_or_else(|| meaning(runtime_watchdog()))
}

/// What the kernel tells of all watchdogs together; `None` where it tells nothing.
fn armed(sys: &Path) -> Option<Fed> {
    let watchdogs = entries(&sys.join("class/watchdog"));
    let states: Vec<_> =
        watchdogs.iter().filter_map(|(name, path)| Some((name, line(&path.join("state"))?))).collect();
    if states.iter().any(|(_, state)| state == "active") {
        return Some(Fed::Yes);
    }
    let (name, state) = states.first()?;
    Some(Fed::No(format!("{name} is {state}")))
}

fn meaning(value: Result<String, String>) -> Fed {
    match value {
        Err(why) => Fed::Unknown(why),
        Ok(value) if value.is_empty() => Fed::Unknown("systemd does not tell its RuntimeWatchdogUSec".into()),
        Ok(value) if ["0", "infinity"].contains(&value.as_str()) => {
            Fed::No(format!("systemd's RuntimeWatchdogUSec is {value}"))
        }
        Ok(_) => Fed::Yes,
    }
}

/// systemd's `RuntimeWatchdogUSec`, as `systemctl` prints it.
fn runtime_watchdog() -> Result<String, String> {
    let failed = |error: std::io::Error| format!("systemctl: {error}");
    let mut child = Command::new("systemctl")
        .args(["show", "--property=RuntimeWatchdogUSec", "--value"])
        .env_remove("NOTIFY_SOCKET") // What it says of itself is not ours.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let patience = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("systemctl has not answered for {} s", PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    if !status.success() {
        return Err(format!("systemctl show failed ({status})"));
    }
    let mut value = String::new();
    let read = child.stdout.take().map(|pipe| pipe.take(100).read_to_string(&mut value));
    read.transpose().map_err(failed)?;
    Ok(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_which_watchdogs_are_armed() {
        let root = tempfile::tempdir().expect("a folder");
        let state = |name: &str, state: &str| {
            let folder = root.path().join("class/watchdog").join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(folder.join("state"), state).expect("a file");
        };
        assert_eq!(armed(root.path()), None);
        state("watchdog0", "inactive\n");
        assert_eq!(armed(root.path()), Some(Fed::No("watchdog0 is inactive".into())));
        state("watchdog1", "active\n");
        assert_eq!(armed(root.path()), Some(Fed::Yes));
    }

    #[test]
    fn what_systemd_says_is_understood() {
        assert_eq!(meaning(Ok("10s".into())), Fed::Yes);
        assert_eq!(meaning(Ok("1min 30s".into())), Fed::Yes);
        for off in ["0", "infinity"] {
            assert!(matches!(meaning(Ok(off.into())), Fed::No(why) if why.contains(off)));
        }
        assert!(matches!(meaning(Ok(String::new())), Fed::Unknown(_)));
        assert!(matches!(meaning(Err("no bus".into())), Fed::Unknown(why) if why == "no bus"));
        // Whatever this machine is: an answer or a reason, within the patience.
        let asked = Instant::now();
        let _ = runtime_watchdog();
        assert!(asked.elapsed() < PATIENCE * 3);
    }
}
