//! The device node's return, noticed at once.
//!
//! The folder in which the node stands is watched (inotify): the kernel itself puts nodes into /dev, with or without
//! udevd, and udevd puts names into /dev/v4l/by-path and by-id, and changes owners, in the same way. So one
//! mechanism sees both, needs no daemon and no library, and works where netlink is filtered. Whether the node is
//! another than the one that failed is read from the node; an event only ends the wait early, so none can be missed.

use crate::platform::clock;
use crate::time::Instant;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Stat, stat};
use rustix::time::Timespec;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Watches for a node that was not there, or was another one.
#[derive(Debug)]
pub struct Arrival {
    node: PathBuf,
    /// What the node was when it failed.
    failed: Option<Node>,
    /// `None` where the kernel gives no watch: then only the time passes.
    events: Option<OwnedFd>,
}

/// A node, told apart from one that takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    device: u64,
    inode: u64,
    /// Nodes are new, or got another owner, when this changes.
    changed: (i64, u64),
}

impl Node {
    /// What `path` leads to.
    fn at(path: &Path) -> Option<Self> {
        let Stat { st_rdev, st_ino, st_ctime, st_ctime_nsec, .. } = stat(path).ok()?;
        Some(Self { device: st_rdev, inode: st_ino, changed: (st_ctime, st_ctime_nsec) })
    }
}

impl Arrival {
    /// Watches for the return of `node`, which has just failed.
    #[must_use]
    pub fn of(node: &Path) -> Self {
        let failed = Node::at(node);
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let events = inotify::init(flags).ok().filter(|events| watch(events, node));
        Self { node: node.to_owned(), failed, events }
    }

    /// Waits until the node is back, `until` at most; whether it is.
    pub fn wait(&mut self, until: Instant) -> bool {
        loop {
            let now = Node::at(&self.node);
            if now != self.failed {
                // Gone for good is no return; once gone, whatever comes is.
                self.failed = None;
                if now.is_some() {
                    return true;
                }
            }
            if clock::now() >= until {
                return false;
            }
            match &self.events {
                Some(events) => {
                    pause(events, until);
                    self.drain();
                }
                None => clock::sleep_until(until),
            }
        }
    }

    /// Reads what has happened, and watches what is nearest to the node now.
    fn drain(&self) {
        if let Some(events) = &self.events {
            let mut room = [0u8; 4096];
            while rustix::io::read(events, &mut room[..]).is_ok_and(|read| read > 0) {}
            watch(events, &self.node);
        }
    }
}

/// Watches the folders that lead to `node`, as far as they are there: udevd removes empty ones.
fn watch(events: &OwnedFd, node: &Path) -> bool {
    let flags = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    let add = |folder: &Path| inotify::add_watch(events, folder, flags).is_ok();
    let folders = || node.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    let nearest = folders().position(add);
    // A folder that comes back may be filled before it is watched: the one above it tells.
    if let Some(nearest) = nearest {
        folders().nth(nearest + 1).map(add);
    }
    // The node itself may stand elsewhere than its name, be missing there, and change its owner there.
    if let (Some(folder), Ok(target)) = (node.parent(), node.read_link())
        && let Some(real) = folder.join(target).parent()
    {
        add(real);
    }
    nearest.is_some()
}

/// Waits for an event.
fn pause(events: &OwnedFd, until: Instant) {
    let left = until.since(clock::now());
    let timeout = Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    // A signal ends it early, which does no harm.
    let _ = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&timeout));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    /// Whether `node` is seen to be back, long before the time is over, once `happens` has happened.
    fn returns(node: &Path, happens: impl FnOnce() + Send) -> bool {
        let mut arrival = Arrival::of(node);
        let soon = clock::now() + Duration::from_millis(5);
        assert!(!arrival.wait(soon), "nothing has happened yet");
        assert!(clock::now() >= soon);
        let start = clock::now();
        thread::scope(|scope| {
            scope.spawn(happens);
            arrival.wait(start + LONG)
        }) && clock::now().since(start) < LONG
    }

    #[test]
    fn a_node_that_appears_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = folder.path().join("video0");
        assert!(returns(&node, || fs::write(&node, "").expect("a file")));
        // Another in its place, or its new owner's rights, too.
        assert!(returns(&node, || {
            fs::write(folder.path().join("new"), "").expect("a file");
            fs::rename(folder.path().join("new"), &node).expect("another");
        }));
        let rights = fs::Permissions::from_mode(0o640);
        assert!(returns(&node, || fs::set_permissions(&node, rights).expect("rights")));
    }

    #[test]
    fn a_name_in_a_folder_that_was_removed_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let (node, names) = (folder.path().join("video0"), folder.path().join("v4l/by-path"));
        let name = names.join("usb-2");
        assert!(returns(&name, || {
            fs::write(&node, "").expect("a file");
            fs::create_dir_all(&names).expect("a folder");
            symlink(&node, &name).expect("a name");
        }));
        // The name stays, what it leads to goes and comes.
        fs::remove_file(&node).expect("unplugged");
        assert!(returns(&name, || fs::write(&node, "").expect("plugged in")));
    }

    #[test]
    fn other_nodes_are_none_of_its_business() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arrival = Arrival::of(&folder.path().join("video0"));
        fs::write(folder.path().join("video1"), "").expect("a file");
        assert!(!arrival.wait(clock::now() + Duration::from_millis(20)));
    }

    #[test]
    fn going_away_is_no_return() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = folder.path().join("video0");
        fs::write(&node, "").expect("a file");
        let mut arrival = Arrival::of(&node);
        fs::remove_file(&node).expect("unplugged");
        assert!(!arrival.wait(clock::now() + Duration::from_millis(5)));
        fs::write(&node, "").expect("plugged in");
        assert!(arrival.wait(clock::now()), "even with a number used before");
    }
}
