//! Why the machine started: what watchdogs, the power management and a crashed kernel have left to be read.
//!
//! Architecture invariant: no device is opened here. Opening a watchdog arms it.

use std::fmt;
use std::fs;
use std::path::Path;

/// Meanings of a watchdog's boot status, by bit (`WDIOF_*`).
const MEANINGS: [&str; 7] = [
    "the processor was too hot",
    "a fan failed",
    "external signal 1",
    "external signal 2",
    "the power was too low",
    "a watchdog reset it",
    "the power was too high",
];

/// What is known of the machine's last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// Watchdogs that say anything.
    pub watchdogs: Vec<BootStatus>,
    /// The board's own word for it, where its power management has one (NVIDIA's PMC).
    pub reason: Option<String>,
    /// Files that a crashed kernel left (`pstore`), as far as they may be listed and still lie there.
    pub crash_logs: usize,
}

/// What a watchdog says of the last reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootStatus {
    /// `watchdog0`.
    pub name: String,
    /// What its driver calls itself.
    pub identity: String,
    /// The driver's flags (`WDIOF_*`), not zero.
    pub flags: u32,
}

impl Reset {
    /// Reads it.
    #[must_use]
    pub fn read() -> Self {
        Self::read_below(Path::new("/sys"))
    }

    fn read_below(sys: &Path) -> Self {
        let mut reset = Self::default();
        for (name, path) in entries(&sys.join("class/watchdog")) {
            let flags = line(&path.join("bootstatus")).and_then(|text| text.parse().ok()).unwrap_or(0);
            reset.add(&name, &line(&path.join("identity")).unwrap_or_default(), flags);
        }
        let chips = entries(&sys.join("bus/platform/devices"));
        let mut pmc = chips.into_iter().filter(|(name, _)| name.ends_with(".pmc"));
        reset.reason = pmc.find_map(|(_, path)| line(&path.join("reset_reason")));
        reset.crash_logs = entries(&sys.join("fs/pstore")).len();
        reset
    }

    /// Adds what a watchdog's driver says (nothing, where `flags` is zero), once.
    pub fn add(&mut self, name: &str, identity: &str, flags: u32) {
        if flags != 0 && !self.watchdogs.iter().any(|known| known.name == name) {
            self.watchdogs.push(BootStatus { name: name.to_owned(), identity: identity.to_owned(), flags });
        }
    }

    /// Whether there is a trace of a watchdog's reset or a kernel's crash: something to warn of.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        !self.watchdogs.is_empty() || self.crash_logs > 0
    }
}

impl BootStatus {
    /// Its flags in words.
    #[must_use]
    pub fn meaning(&self) -> String {
        let set = |bit: &usize| self.flags & (1 << bit) != 0;
        let mut words: Vec<String> =
            (0..MEANINGS.len()).filter(set).map(|bit| MEANINGS[bit].to_owned()).collect();
        let others = self.flags >> MEANINGS.len() << MEANINGS.len();
        if others != 0 {
            words.push(format!("flags {others:#x}"));
        }
        words.join(", ")
    }
}

impl fmt::Display for Reset {
    /// One line; empty where nothing is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        for watchdog in &self.watchdogs {
            parts.push(format!("{} ({}) says: {}", watchdog.name, watchdog.identity, watchdog.meaning()));
        }
        if let Some(reason) = &self.reason {
            parts.push(format!("power management says: {reason}"));
        }
        if self.crash_logs > 0 {
            parts.push(format!("the kernel left {} crash logs in /sys/fs/pstore", self.crash_logs));
        }
        if parts.is_empty() { Ok(()) } else { write!(f, "the machine's last reset: {}", parts.join("; ")) }
    }
}

/// The kernel's name for the time since the machine's start; empty where it has none.
#[must_use]
pub fn boot_id() -> String {
    line(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

/// A small file's first line, where there is one that is not empty.
pub(super) fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let first = text.lines().next()?.trim();
    (!first.is_empty()).then(|| first.chars().take(200).collect())
}

/// A folder's entries by name.
pub(super) fn entries(folder: &Path) -> Vec<(String, std::path::PathBuf)> {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn nothing_is_known_of_most_machines() {
        let root = tempfile::tempdir().expect("a folder");
        let reset = Reset::read_below(root.path());
        assert_eq!((reset.is_alarming(), reset.to_string().as_str()), (false, ""));
        file(root.path(), "class/watchdog/watchdog0/bootstatus", "0\n");
        file(root.path(), "class/watchdog/watchdog1/identity", "no status");
        file(root.path(), "class/watchdog/watchdog2/bootstatus", "garbage");
        assert_eq!(Reset::read_below(root.path()), Reset::default());
        assert!(Reset::read() == Reset::read(), "as often as one likes");
    }

    #[test]
    fn what_is_known_is_told_on_one_line() {
        let root = tempfile::tempdir().expect("a folder");
        file(root.path(), "class/watchdog/watchdog0/bootstatus", "32\n");
        file(root.path(), "class/watchdog/watchdog0/identity", "i6300ESB timer\n");
        file(root.path(), "bus/platform/devices/c360000.pmc/reset_reason", "WATCHDOG\n");
        file(root.path(), "fs/pstore/dmesg-ramoops-0", "panic");
        let mut reset = Reset::read_below(root.path());
        reset.add("watchdog0", "told twice", 32);
        assert_eq!(
            reset.to_string(),
            "the machine's last reset: watchdog0 (i6300ESB timer) says: a watchdog reset it; power management \
             says: WATCHDOG; the kernel left 1 crash logs in /sys/fs/pstore"
        );
        assert!(reset.is_alarming());
        let both = BootStatus { name: String::new(), identity: String::new(), flags: 0x8011 };
        assert_eq!(both.meaning(), "the processor was too hot, the power was too low, flags 0x8000");
    }
}
