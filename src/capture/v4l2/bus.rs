//! What the kernel's files say of a camera's surroundings: the USB bus that it shares, and who holds it.

use std::fs;
use std::path::{Path, PathBuf};

/// A USB bus and the cameras on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbBus {
    /// Its number, as `lsusb` shows it.
    pub number: u32,
    /// What it carries, in Mbit/s.
    pub speed: u32,
    /// The cameras on it, with their nodes.
    pub cameras: Vec<String>,
}

impl UsbBus {
    /// What USB lets isochronous traffic take of the bus, in Mbit/s.
    #[must_use]
    pub fn for_cameras(&self) -> u32 {
        // USB 2.0, 5.5.4 and 5.6.4: 80 % of a microframe, 90 % of a full-speed frame and of USB 3's intervals.
        self.speed / 10 * if self.speed == 480 { 8 } else { 9 }
    }
}

/// The USB bus of the video device `node` (such as `video0`), where it is on one. `sys` is /sys.
#[must_use]
pub fn usb(sys: &Path, node: &str) -> Option<UsbBus> {
    let class = sys.join("class/video4linux");
    let (number, root) = bus_of(&class.join(node))?;
    let speed = fs::read_to_string(root.join("speed")).ok()?.trim().parse().ok()?;
    let mut cameras: Vec<String> = fs::read_dir(&class)
        .ok()?
        .flatten()
        .filter(|entry| bus_of(&entry.path()).is_some_and(|(other, _)| other == number))
        .map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            format!("{} (/dev/{})", name.trim(), entry.file_name().to_string_lossy())
        })
        .collect();
    cameras.sort();
    Some(UsbBus { number, speed, cameras })
}

/// The number of the USB bus that a device is on, and the folder of its root hub.
fn bus_of(device: &Path) -> Option<(u32, PathBuf)> {
    let path = device.canonicalize().ok()?;
    // The outermost folder with a bus number is the root hub.
    let root = path.ancestors().filter(|folder| folder.join("busnum").is_file()).last()?;
    let number = fs::read_to_string(root.join("busnum")).ok()?.trim().parse().ok()?;
    Some((number, root.to_owned()))
}

/// The serial number of the USB device that the video device `node` is part of, where it has one. `sys` is /sys.
#[must_use]
pub fn serial(sys: &Path, node: &str) -> Option<String> {
    let path = sys.join("class/video4linux").join(node).canonicalize().ok()?;
    let text = path.ancestors().find_map(|folder| fs::read_to_string(folder.join("serial")).ok())?;
    Some(text.trim().to_owned())
}

/// Processes that have the device node `device` open, as far as we may see. `proc` is /proc.
#[must_use]
pub fn holders(proc: &Path, device: &Path) -> Vec<String> {
    let Ok(device) = device.canonicalize() else { return Vec::new() };
    let mut holders = Vec::new();
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target == device) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} (process {id})", command.trim()));
        }
    }
    holders.sort();
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn cameras_on_one_usb_bus_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let sys = folder.path();
        let class = sys.join("class/video4linux");
        fs::create_dir_all(&class).expect("a folder");
        for (bus, speed, port, node, name) in [
            (1, "480", "1-2", "video0", "HD Camera"),
            (1, "480", "1-3", "video2", "Thermal"),
            (2, "5000", "2-1", "video4", "Stereo"),
        ] {
            let hub = sys.join(format!("devices/pci0000:00/usb{bus}"));
            write(&hub.join("busnum"), &format!("{bus}\n"));
            write(&hub.join("speed"), &format!("{speed}\n"));
            write(&hub.join(port).join("busnum"), &format!("{bus}\n"));
            write(&hub.join(port).join("speed"), "480\n");
            let device = hub.join(port).join("video4linux").join(node);
            write(&device.join("name"), &format!("{name}\n"));
            symlink(&device, class.join(node)).expect("a link");
        }
        let platform = sys.join("devices/platform/vivid.0/video4linux/video6");
        write(&platform.join("name"), "vivid");
        symlink(&platform, class.join("video6")).expect("a link");

        let bus = usb(sys, "video0").expect("on a bus");
        assert_eq!((bus.number, bus.speed, bus.for_cameras()), (1, 480, 384));
        assert_eq!(bus.cameras, ["HD Camera (/dev/video0)", "Thermal (/dev/video2)"]);
        let bus = usb(sys, "video4").expect("on a bus");
        assert_eq!((bus.number, bus.speed, bus.for_cameras(), bus.cameras.len()), (2, 5000, 4500, 1));
        write(&sys.join("devices/pci0000:00/usb1/1-3/serial"), "4711\n");
        assert_eq!((serial(sys, "video2"), serial(sys, "video0")), (Some("4711".to_owned()), None));
        assert_eq!(usb(sys, "video6"), None);
        assert_eq!(usb(sys, "video9"), None);
    }

    #[test]
    fn holders_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (proc, device) = (folder.path().join("proc"), folder.path().join("video0"));
        write(&device, "");
        let device = device.canonicalize().expect("a path");
        for (id, command, target) in [("12", "cheese", &device), ("77", "sh", &proc)] {
            write(&proc.join(id).join("comm"), &format!("{command}\n"));
            fs::create_dir(proc.join(id).join("fd")).expect("a folder");
            symlink(target, proc.join(id).join("fd/3")).expect("a link");
        }
        write(&proc.join("uptime"), "1");
        assert_eq!(holders(&proc, &device), ["cheese (process 12)"]);
        assert_eq!(holders(&proc, Path::new("/dev/no-such-camera")), Vec::<String>::new());
    }
}
