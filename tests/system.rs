//! The files that make a service of the runtime, held to what systemd's own tools say of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use ocelli::platform::watchdog_device::leaves_room;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Highest exposure that `systemd-analyze security` may find, of 10.
const EXPOSURE: f64 = 2.5;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/system").join(name)
}

fn unit() -> String {
    fs::read_to_string(file("ocelli@.service")).unwrap()
}

/// What a tool prints; `None`, and said so, where it isn't installed.
fn ask(tool: &str, arguments: &[&str], here: &Path) -> Option<Output> {
    match Command::new(tool).args(arguments).current_dir(here).env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(error) => {
            let remedy = "install systemd to have the unit checked";
            // Past the capture: nothing is left out silently.
            let line = format!("SKIPPED: {tool} can't be run ({error}); {remedy}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The unit in a folder of its own, with a program that is there.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = unit();
    assert_eq!(text.matches("/usr/bin/ocelli").count(), 1);
    let text = text.replace("/usr/bin/ocelli", env!("CARGO_BIN_EXE_ocelli"));
    fs::write(folder.path().join("ocelli@.service"), text).unwrap();
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = installed();
    let Some(verified) = ask("systemd-analyze", &["verify", "./ocelli@.service"], folder.path()) else {
        return;
    };
    let said = said(&verified);
    // What other units of this machine have wrong is their business.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("ocelli")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
    // And it would be found.
    let wrong = unit().replace("Type=notify", "Type=notify\nWatchdogSecs=1");
    fs::write(folder.path().join("ocelli@.service"), wrong).unwrap();
    let verified = ask("systemd-analyze", &["verify", "./ocelli@.service"], folder.path()).unwrap();
    assert!(self::said(&verified).contains("WatchdogSecs"), "{}", self::said(&verified));
}

#[test]
fn the_service_is_exposed_to_little() {
    let folder = installed();
    let arguments = ["security", "--offline=true", "--no-pager", "./ocelli@.service"];
    let Some(analysed) = ask("systemd-analyze", &arguments, folder.path()) else { return };
    let said = said(&analysed);
    let overall =
        said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    let level = overall.rsplit(": ").next().and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(level.is_some_and(|level| level <= EXPOSURE), "{said}");
}

#[test]
fn the_runtimes_user_can_be_made() {
    let path = file("ocelli.conf");
    let Some(dry) = ask("systemd-sysusers", &["--dry-run", path.to_str().unwrap()], Path::new("/")) else {
        return;
    };
    assert!(dry.status.success(), "{}", said(&dry));
}

/// The value of a key that the unit has once.
fn value(key: &str) -> String {
    let text = unit();
    let values: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].to_owned()
}

#[test]
fn the_unit_and_the_runtime_agree() {
    assert_eq!((value("Type"), value("User")), ("notify".into(), "ocelli".into()));
    // Arguments and boards do not get right by another try; a process that ended itself does (exit code 70).
    let prevented = value("RestartPreventExitStatus");
    assert_eq!(prevented.split(' ').collect::<Vec<_>>(), ["64", "78"]);
    assert_eq!(value("Restart"), "on-failure");
    assert!(value("StartLimitBurst").parse::<u32>().unwrap() > 0);
    assert!(value("StartLimitIntervalSec").parse::<u32>().unwrap() > 0, "the restarts are bounded");
    // The supervisor's priority, and a hardware watchdog of the default time behind the service manager's.
    assert!(value("LimitRTPRIO").parse::<u32>().unwrap() >= 80);
    let watchdog = Duration::from_secs(value("WatchdogSec").parse().unwrap());
    leaves_room(Duration::from_secs(60), Some(watchdog)).unwrap();
    for folder in ["StateDirectory", "ConfigurationDirectory"] {
        assert_eq!(value(folder), "ocelli");
    }
}

#[test]
fn rules_are_as_udev_reads_them() {
    let text = fs::read_to_string(file("60-ocelli.rules")).unwrap();
    let rules: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(rules.len() >= 4);
    for rule in &rules {
        for part in rule.split(", ") {
            let (key, value) = part.split_once("=\"").unwrap_or_else(|| panic!("{part}"));
            let key = key.trim_end_matches(['=', '+', '!', ':']);
            let known = ["SUBSYSTEM", "KERNEL", "ACTION", "TAG", "GROUP", "MODE"].contains(&key)
                || ["ENV{", "ATTR{"].iter().any(|kind| key.starts_with(kind) && key.ends_with('}'));
            assert!(known && value.ends_with('"') && value.matches('"').count() == 1, "{part}");
        }
    }
    // The user of the unit is the one who gets the watchdogs.
    assert!(rules.iter().any(|rule| rule.contains("watchdog") && rule.contains("GROUP=\"ocelli\"")));
}
