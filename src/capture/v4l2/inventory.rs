//! What is plugged in: every video node of the machine, and of cameras all that they offer. Nothing is changed on them,
//! and one that another program uses goes on undisturbed.

mod proposal;

pub use super::bus::UsbBus;
pub use super::control::{Control, Kind};
pub use super::device::{Identity, Interval, Size};
pub use super::format::Fourcc;
pub use proposal::Proposal;

use super::bus::{holders, usb};
use super::device::Device;
use super::format::{self, is_jpeg};
use super::ioctl;
use crate::image::PixelFormat;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use v4l::v4l_sys as sys;

/// A video node.
#[derive(Debug)]
pub struct Node {
    /// The node itself, such as /dev/video0; another one after the next start, perhaps.
    pub path: PathBuf,
    /// Its name by the socket that it is plugged into.
    pub by_path: Option<PathBuf>,
    /// Its name by what it is.
    pub by_id: Option<PathBuf>,
    /// What the kernel calls it.
    pub name: String,
    /// What it is.
    pub what: What,
}

/// What a video node is.
#[derive(Debug)]
pub enum What {
    /// Frames can be captured from it.
    Camera(Box<Camera>),
    /// Something else, in a few words.
    Other(&'static str),
    /// It does not say, because it could not be opened.
    Closed {
        /// Why, and what to do about it.
        why: String,
        /// Whether we may not.
        forbidden: bool,
    },
}

/// What a camera offers.
#[derive(Debug)]
pub struct Camera {
    /// What it says of itself.
    pub identity: Identity,
    /// Frames may lie in several planes of memory.
    pub multi_planar: bool,
    /// The input that is chosen and whether there is a signal, where it tells.
    pub input: Option<(String, bool)>,
    /// Ways to give it buffers; empty when it does not tell because another program has it.
    pub memory: Vec<&'static str>,
    /// The USB bus that it is on.
    pub usb: Option<UsbBus>,
    /// Its own speed on that bus in Mbit/s.
    pub usb_speed: Option<u32>,
    /// Processes that have it open, as far as we may see.
    pub holders: Vec<String>,
    /// What it captures.
    pub formats: Vec<Format>,
    /// Its controls with their values, where they can be read.
    pub controls: Vec<(Control, Option<i64>)>,
    /// How a board would use it.
    pub proposal: Option<Proposal>,
}

/// A format that a camera offers.
#[derive(Debug)]
pub struct Format {
    /// V4L2's name for it.
    pub fourcc: Fourcc,
    /// The driver's words for it.
    pub description: String,
    /// What it is to a board; `None` for what a board can't use as it is.
    pub format: Option<PixelFormat>,
    /// JPEG images.
    pub is_jpeg: bool,
    /// Its sizes, with the intervals for each; of a range those for the greatest size.
    pub sizes: Vec<(Size, Vec<Interval>)>,
}

/// The video nodes of this machine, by number.
#[must_use]
pub fn nodes() -> Vec<Node> {
    nodes_below(Path::new("/dev"), Path::new("/sys"), Path::new("/proc"))
}

fn nodes_below(dev: &Path, sys: &Path, proc: &Path) -> Vec<Node> {
    // In a container one may be without the other.
    let mut numbers: Vec<u32> = [dev, &sys.join("class/video4linux")]
        .into_iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let (by_path, by_id) = (links(&dev.join("v4l/by-path")), links(&dev.join("v4l/by-id")));
    let node = |number| {
        let node = format!("video{number}");
        let path = dev.join(&node);
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let name = fs::read_to_string(sys.join("class/video4linux").join(&node).join("name"));
        Node {
            by_path: by_path.get(&real).cloned(),
            by_id: by_id.get(&real).cloned(),
            name: name.unwrap_or_default().trim().to_owned(),
            what: what(&path, sys, &node, proc),
            path,
        }
    };
    numbers.into_iter().map(node).collect()
}

/// Names in a folder of links, by what they lead to: of each the shortest, but rather one that tells a USB socket's two
/// buses apart (udev since version 254 says usbv2 or usbv3): both have a first port.
fn links(folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let mut found: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for link in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Ok(target) = link.canonicalize() else { continue };
        let rank = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (!name.contains("usbv"), path.as_os_str().len(), path.clone())
        };
        match found.get(&target) {
            Some(other) if rank(other) <= rank(&link) => {}
            _ => drop(found.insert(target, link)),
        }
    }
    found
}

fn what(path: &Path, sys: &Path, node: &str, proc: &Path) -> What {
    // Before we have it open ourselves.
    let holders = holders(proc, path);
    let device = match Device::open(path) {
        Ok(device) => device,
        Err(error) => return closed(&error),
    };
    match other(device.identity.capabilities) {
        Some(other) => What::Other(other),
        None => What::Camera(Box::new(Camera::of(&device, holders, sys, node))),
    }
}

fn closed(error: &io::Error) -> What {
    let (remedy, forbidden) = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            ("give the user the group `video` (usermod -aG video USER, then log in again)", true)
        }
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
            ("the kernel has it, but its node does not lead there: in a container, pass the device in", false)
        }
        Some(Errno::BUSY) => ("another program has it for itself alone", false),
        Some(Errno::NOTTY | Errno::INVAL) => ("it is no V4L2 device", false),
        _ => ("see the kernel's log (dmesg)", false),
    };
    What::Closed { why: format!("{error}: {remedy}"), forbidden }
}

/// What a node is that is no camera: `capabilities` are its `V4L2_CAP_...`
fn other(capabilities: u32) -> Option<&'static str> {
    let has = |bits: u32| capabilities & bits != 0;
    let capture = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE;
    let output = sys::V4L2_CAP_VIDEO_OUTPUT | sys::V4L2_CAP_VIDEO_OUTPUT_MPLANE;
    // A codec's node both takes and gives; older drivers say so by having both directions.
    if has(sys::V4L2_CAP_VIDEO_M2M | sys::V4L2_CAP_VIDEO_M2M_MPLANE) || (has(capture) && has(output)) {
        Some("codec or converter (memory to memory)")
    } else if has(capture) {
        (!has(sys::V4L2_CAP_STREAMING))
            .then_some("camera without buffers (read() only), which a board can't use")
    } else if has(sys::V4L2_CAP_META_CAPTURE | sys::V4L2_CAP_META_OUTPUT) {
        Some("metadata of a camera, not its pictures")
    } else if has(output | sys::V4L2_CAP_VIDEO_OVERLAY | sys::V4L2_CAP_VIDEO_OUTPUT_OVERLAY) {
        Some("output")
    } else {
        Some("something without pictures")
    }
}

impl Camera {
    fn of(device: &Device, holders: Vec<String>, sys: &Path, node: &str) -> Self {
        let intervals = |fourcc, size| match size {
            Size::Exactly(width, height) | Size::Range { most: (width, height), .. } => {
                device.intervals(fourcc, width, height)
            }
        };
        let format = |(fourcc, description)| {
            let with = |size| (size, intervals(fourcc, size));
            let sizes = device.sizes(fourcc).into_iter().map(with).collect();
            let format = format::pixel_format(fourcc);
            Format { fourcc, description, format, is_jpeg: is_jpeg(fourcc), sizes }
        };
        let formats: Vec<Format> = device.formats().into_iter().map(format).collect();
        let no_signal = sys::V4L2_IN_ST_NO_POWER | sys::V4L2_IN_ST_NO_SIGNAL;
        let with_value = |control: Control| {
            let readable = control.is_readable() && control.kind != Kind::Other;
            let value = if readable { device.get_control(&control).ok() } else { None };
            // Its highest bit is no sign.
            let unsigned =
                |value: i64| if control.kind == Kind::Bitmask { value & 0xffff_ffff } else { value };
            let value = value.map(unsigned);
            (control, value)
        };
        Self {
            identity: device.identity.clone(),
            multi_planar: device.multi_planar,
            input: device.input().map(|(name, status)| (name, status & no_signal == 0)),
            memory: memory(device),
            usb: usb(sys, node),
            usb_speed: usb_speed(sys, node),
            holders,
            controls: device.controls().into_iter().map(with_value).collect(),
            proposal: proposal::propose(&formats, |fourcc, width, height| {
                device.intervals(fourcc, width, height)
            }),
            formats,
        }
    }
}

/// Ways to give the device buffers. Asking for none of a kind says whether it could be, and changes nothing.
fn memory(device: &Device) -> Vec<&'static str> {
    let kinds = [
        ("userptr", sys::v4l2_memory_V4L2_MEMORY_USERPTR),
        ("mmap", sys::v4l2_memory_V4L2_MEMORY_MMAP),
        ("dmabuf", sys::v4l2_memory_V4L2_MEMORY_DMABUF),
    ];
    let has = |memory: u32| {
        let mut request = ioctl::REQBUFS.zeroed();
        (request.type_, request.memory) = (device.buffer_type(), memory);
        ioctl::REQBUFS.call(device, &mut request).is_ok()
    };
    kinds.into_iter().filter(|(_, memory)| has(*memory)).map(|(name, _)| name).collect()
}

/// What a USB camera itself runs at, in Mbit/s.
fn usb_speed(sys: &Path, node: &str) -> Option<u32> {
    let path = sys.join("class/video4linux").join(node).canonicalize().ok()?;
    let device = path.ancestors().find(|folder| folder.join("busnum").is_file())?;
    // 1.5 Mbit/s is nothing that a camera has.
    fs::read_to_string(device.join("speed")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nodes_that_are_no_cameras_are_told_apart() {
        let stream = sys::V4L2_CAP_STREAMING;
        let (capture, output) = (sys::V4L2_CAP_VIDEO_CAPTURE, sys::V4L2_CAP_VIDEO_OUTPUT);
        for (capabilities, is) in [
            (capture | stream, None),
            (sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE | stream, None),
            (sys::V4L2_CAP_META_CAPTURE | stream, Some("metadata")),
            (sys::V4L2_CAP_VIDEO_M2M | stream, Some("codec")),
            (sys::V4L2_CAP_VIDEO_M2M_MPLANE | stream, Some("codec")),
            (capture | output | stream, Some("codec")),
            (output | stream, Some("output")),
            (capture | sys::V4L2_CAP_READWRITE, Some("without buffers")),
            (sys::V4L2_CAP_RADIO, Some("something")),
        ] {
            match (other(capabilities), is) {
                (Some(said), Some(is)) => assert!(said.contains(is), "{said}"),
                (said, is) => assert_eq!(said, is),
            }
        }
    }

    #[test]
    fn what_can_not_be_opened_is_named_with_a_remedy() {
        for (errno, remedy, may_not) in [
            (Errno::ACCESS, "group `video`", true),
            (Errno::NOENT, "container", false),
            (Errno::BUSY, "another program", false),
            (Errno::IO, "dmesg", false),
        ] {
            let What::Closed { why, forbidden } = closed(&errno.into()) else { panic!("{errno}") };
            assert!(why.contains(remedy), "{why}");
            assert_eq!(forbidden, may_not);
        }
    }

    /// Plain files stand for nodes: they are found, and are no devices.
    #[test]
    fn nodes_are_found_in_both_places_with_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dev, sys, proc) =
            (folder.path().join("dev"), folder.path().join("sys"), folder.path().join("proc"));
        for number in [0, 2, 10] {
            let class = sys.join(format!("class/video4linux/video{number}"));
            fs::create_dir_all(&class).expect("a folder");
            fs::write(class.join("name"), format!("camera {number}\n")).expect("a name");
        }
        let (paths, ids) = (dev.join("v4l/by-path"), dev.join("v4l/by-id"));
        fs::create_dir_all(&paths).expect("a folder");
        fs::create_dir_all(&ids).expect("a folder");
        for node in ["video0", "video2", "video3", "videodata", "null"] {
            fs::write(dev.join(node), "").expect("a node");
        }
        for (link, target) in
            [("usb-0:2-index0", "video0"), ("usbv2-0:2-index0", "video0"), ("gone", "video9")]
        {
            symlink(dev.join(target), paths.join(link)).expect("a link");
        }
        for name in ["thermal-index0", "thermal-camera-index0"] {
            symlink(dev.join("video2"), ids.join(name)).expect("a link");
        }
        let found = nodes_below(&dev, &sys, &proc);
        let names: Vec<_> = found.iter().map(|node| (node.path.file_name(), node.name.as_str())).collect();
        let name = |name: &'static str| Some(std::ffi::OsStr::new(name));
        assert_eq!(
            names,
            [
                (name("video0"), "camera 0"),
                (name("video2"), "camera 2"),
                (name("video3"), ""),
                (name("video10"), "camera 10")
            ]
        );
        assert_eq!(found[0].by_path, Some(paths.join("usbv2-0:2-index0")), "the exacter of two");
        assert_eq!((&found[0].by_id, &found[1].by_path), (&None, &None));
        assert_eq!(found[1].by_id, Some(ids.join("thermal-index0")), "the shorter of two");
        for (node, said) in found.iter().zip(["no V4L2", "no V4L2", "no V4L2", "does not lead there"]) {
            let What::Closed { why, forbidden: false } = &node.what else { panic!("{node:?}") };
            assert!(why.contains(said), "{why}");
        }
        assert!(nodes_below(&dev.join("none"), &sys.join("none"), &proc).is_empty());
    }

    #[test]
    fn a_cameras_own_speed_is_the_nearest() {
        let folder = tempfile::tempdir().expect("a folder");
        let sys = folder.path();
        let hub = sys.join("devices/pci0000:00/usb2");
        let device = hub.join("2-1/2-1:1.0/video4linux/video4");
        fs::create_dir_all(&device).expect("a folder");
        for (at, speed) in [(hub.clone(), "10000"), (hub.join("2-1"), "5000")] {
            fs::write(at.join("busnum"), "2").expect("a file");
            fs::write(at.join("speed"), speed).expect("a file");
        }
        fs::create_dir_all(sys.join("class/video4linux")).expect("a folder");
        symlink(&device, sys.join("class/video4linux/video4")).expect("a link");
        assert_eq!((usb_speed(sys, "video4"), usb_speed(sys, "video5")), (Some(5000), None));
    }
}
