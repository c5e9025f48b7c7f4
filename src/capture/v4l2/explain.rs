//! Failures in words: what failed, what it means, what to do.

use super::bus::{UsbBus, holders, usb};
use super::device::{Device, Interval, Size};
use super::format::Fourcc;
use crate::capture::SourceError;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most entries of a list that an error shows.
const SHOWN: usize = 12;

/// Names for errors, and what they need to know.
#[derive(Clone, Debug)]
pub struct Words {
    /// The stream's name.
    pub stream: String,
    /// The device, as the board names it.
    pub device: PathBuf,
    /// Bits of a second of video as it comes from the camera, where that is known.
    pub rate: Option<f64>,
}

impl Words {
    /// An error of this camera.
    pub fn error(&self, what: impl std::fmt::Display, remedy: impl Into<String>) -> SourceError {
        SourceError::new(format!("stream `{}`: {}: {what}", self.stream, self.device.display()), remedy)
    }

    /// The kernel's name for the device, such as `video0`.
    pub fn node(&self) -> String {
        let node = self.device.canonicalize().unwrap_or_default();
        node.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The device could not be opened.
    pub fn not_opened(&self, error: &io::Error) -> SourceError {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT) => self.error(
                "there is no such device",
                format!("plug the camera in, or name one that is there: {}", list(&nodes(Path::new("/dev")))),
            ),
            Some(Errno::ACCESS | Errno::PERM) => self
                .error(error, "give the user the group `video`, or a udev rule that lets it have the device"),
            Some(Errno::NODEV | Errno::NXIO) => {
                self.error("the device is gone", "check the camera's cable and power")
            }
            Some(Errno::BUSY) => self.busy("open"),
            Some(Errno::NOTTY | Errno::INVAL) => {
                self.error("is no V4L2 device", "name a camera, such as those that `ocelli cameras` lists")
            }
            Some(Errno::MFILE | Errno::NFILE) => {
                self.error(error, "raise the limit of open files (ulimit -n, LimitNOFILE=)")
            }
            _ => self
                .error(format!("opening failed: {error}"), "check the camera, and the kernel's log (dmesg)"),
        }
    }

    /// A request failed.
    pub fn failed(&self, request: &str, error: &io::Error) -> SourceError {
        match Errno::from_io_error(error) {
            Some(Errno::NODEV | Errno::NXIO | Errno::BADF | Errno::SHUTDOWN) => self.error(
                format!("the camera is gone ({request}: {error})"),
                "check its cable and power; it is opened again when it is back",
            ),
            Some(Errno::IO) => self.error(
                format!("the camera or its driver failed ({request}: {error})"),
                "see the kernel's log (dmesg); it is opened again",
            ),
            Some(Errno::NOSPC) => self.no_bandwidth(request, Path::new("/sys")),
            Some(Errno::BUSY) => self.busy(request),
            Some(Errno::NOMEM) => self.error(
                format!("{request}: {error}"),
                "the kernel has no memory for its buffers: free some, or raise the CMA region (cma=)",
            ),
            Some(Errno::NOLINK) => self.error(
                format!("{request}: {error}: no signal, or the camera's pads are not linked"),
                "connect the signal, or set the media controller's links and formats up (media-ctl)",
            ),
            Some(Errno::PIPE) => self.error(
                format!("{request}: {error}: the media pipeline's formats do not fit"),
                "set the sensor's and the bridge's pads to this size and format (media-ctl)",
            ),
            _ => self.error(
                format!("{request}: {error}"),
                "see the kernel's log (dmesg); `ocelli cameras` shows what the device offers",
            ),
        }
    }

    fn busy(&self, request: &str) -> SourceError {
        let holders = holders(Path::new("/proc"), &self.device);
        let who = match holders.is_empty() {
            true => "a process that we may not see".to_owned(),
            false => list(&holders),
        };
        self.error(format!("{request}: the device is in use by {who}"), "end that; a camera has one user")
    }

    /// A USB bus that is full.
    fn no_bandwidth(&self, request: &str, sys: &Path) -> SourceError {
        match usb(sys, &self.node()) {
            Some(bus) => self.full(request, &bus),
            None => self.error(
                format!("{request}: the bus has no bandwidth left for this camera"),
                "lower fps or size, use encoding = \"mjpeg\", or plug the camera in elsewhere",
            ),
        }
    }

    fn full(&self, request: &str, bus: &UsbBus) -> SourceError {
        let UsbBus { number, speed, cameras } = bus;
        let capacity = f64::from(bus.for_cameras());
        let mut what = format!(
            "{request}: USB bus {number} ({speed} Mbit/s, {capacity} for cameras) has no bandwidth left; on it: {}",
            list(cameras)
        );
        let mut remedy =
            "plug the camera in at another bus (`lsusb -t`), use encoding = \"mjpeg\"".to_owned();
        if let Some(rate) = self.rate.map(|bits| bits / 1e6).filter(|rate| *rate > 0.0) {
            what += &format!("; this one takes {rate:.0} Mbit/s of pixels");
            remedy += &match capacity / rate {
                part if part < 1.0 => {
                    format!(", or lower fps or size: alone on it, {:.0} % of this rate fits", part * 100.0)
                }
                times => format!(", or lower fps or size: {} such cameras fit on one bus", times.floor()),
            };
        }
        self.error(what, remedy)
    }

    /// The driver agreed to something else.
    pub fn another_format(
        &self,
        device: &Device,
        wanted: &str,
        got: &str,
        fourccs: &[Fourcc],
    ) -> SourceError {
        let offers = |fourcc: &Fourcc| {
            let sizes = device.sizes(*fourcc);
            let sizes: Vec<String> = sizes.into_iter().map(show_size).collect();
            format!(
                "{fourcc} {}",
                if sizes.is_empty() { "in sizes it does not tell".to_owned() } else { list(&sizes) }
            )
        };
        let all: Vec<Fourcc> = device.formats().into_iter().map(|(fourcc, _)| fourcc).collect();
        let ours: Vec<&Fourcc> = fourccs.iter().filter(|fourcc| all.contains(fourcc)).collect();
        let offered = match ours.is_empty() {
            true => list(&all.iter().map(Fourcc::to_string).collect::<Vec<_>>()),
            false => ours.into_iter().map(offers).collect::<Vec<_>>().join("; "),
        };
        self.error(format!("wanted {wanted}, got {got}"), format!("choose what the device offers: {offered}"))
    }

    /// The driver agreed to another rate.
    pub fn another_interval(
        &self,
        device: &Device,
        wanted: Duration,
        got: Duration,
        (fourcc, width, height): (Fourcc, u32, u32),
    ) -> SourceError {
        let intervals = device.intervals(fourcc, width, height);
        let offered: Vec<String> = intervals.into_iter().map(show_interval).collect();
        let offered = if offered.is_empty() { show_interval(Interval::Exactly(got)) } else { list(&offered) };
        self.error(
            format!("wanted {:.3} frames a second, got {:.3}", rate(wanted), rate(got)),
            format!("choose what the device offers for {width}x{height} {fourcc}: {offered}"),
        )
    }

    /// There is no control of that name.
    pub fn unknown_control(&self, name: &str, names: &[String]) -> SourceError {
        let mut known: Vec<&String> = names.iter().collect();
        // What begins alike is likely meant.
        let alike = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        known.sort_by_key(|other| std::cmp::Reverse(alike(other)));
        let known: Vec<String> = known.into_iter().cloned().collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { list(&known) };
        self.error(format!("has no control `{name}`"), format!("its controls: {known}"))
    }
}

/// A list for people, cut where it gets long.
fn list(entries: &[String]) -> String {
    let shown = entries.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match entries.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
        _ => shown,
    }
}

fn rate(interval: Duration) -> f64 {
    1.0 / interval.as_secs_f64()
}

fn show_size(size: Size) -> String {
    match size {
        Size::Exactly(width, height) => format!("{width}x{height}"),
        Size::Range { least, most, .. } => format!("{}x{} to {}x{}", least.0, least.1, most.0, most.1),
    }
}

fn show_interval(interval: Interval) -> String {
    let shown = |interval: Duration| {
        let digits = format!("{:.3}", rate(interval));
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match interval {
        Interval::Exactly(interval) => format!("{} fps", shown(interval)),
        Interval::Range(least, most) => format!("{} to {} fps", shown(most), shown(least)),
    }
}

/// The names of cameras below `dev`: stable ones where there are, else numbered nodes.
fn nodes(dev: &Path) -> Vec<String> {
    let in_folder = |folder: &Path, begins: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(begins))
            .map(|entry| entry.path().display().to_string())
            .collect();
        names.sort();
        names
    };
    let stable = in_folder(&dev.join("v4l/by-path"), "");
    if stable.is_empty() { in_folder(dev, "video") } else { stable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rate: Option<f64>) -> Words {
        Words { stream: "front".to_owned(), device: "/dev/no-such-camera".into(), rate }
    }

    fn os(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn failures_name_the_stream_the_device_and_a_remedy() {
        let words = words(None);
        for errno in [
            Errno::NOENT,
            Errno::ACCESS,
            Errno::NODEV,
            Errno::BUSY,
            Errno::NOTTY,
            Errno::MFILE,
            Errno::IO,
            Errno::NOSPC,
            Errno::NOMEM,
            Errno::NOLINK,
            Errno::PIPE,
            Errno::INVAL,
        ] {
            for error in [words.not_opened(&os(errno)), words.failed("STREAMON", &os(errno))] {
                assert!(error.what.starts_with("stream `front`: /dev/no-such-camera: "), "{error}");
                assert!(error.remedy.len() > 10, "{error}");
            }
        }
    }

    #[test]
    fn a_full_bus_is_explained() {
        let cameras = vec!["HD Camera (/dev/video0)".to_owned(), "Thermal (/dev/video2)".to_owned()];
        let bus = UsbBus { number: 3, speed: 480, cameras };
        let error = words(Some(640.0 * 360.0 * 16.0 * 30.0)).full("STREAMON", &bus);
        assert_eq!(
            error.what,
            "stream `front`: /dev/no-such-camera: STREAMON: USB bus 3 (480 Mbit/s, 384 for cameras) has no bandwidth \
             left; on it: HD Camera (/dev/video0), Thermal (/dev/video2); this one takes 111 Mbit/s of pixels"
        );
        assert!(error.remedy.ends_with("3 such cameras fit on one bus"), "{error}");
        let error = words(Some(1920.0 * 1080.0 * 16.0 * 30.0)).full("STREAMON", &bus);
        assert!(error.remedy.ends_with("alone on it, 39 % of this rate fits"), "{error}");
    }

    #[test]
    fn a_control_that_is_not_there_is_answered_with_those_that_are() {
        let names = ["gain", "exposure_time_absolute", "auto_exposure"].map(str::to_owned);
        let error = words(None).unknown_control("exposure_absolute", &names);
        assert!(error.what.ends_with("has no control `exposure_absolute`"), "{error}");
        assert!(error.remedy.starts_with("its controls: exposure_time_absolute, "), "{error}");
    }

    #[test]
    fn stable_names_come_before_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let dev = folder.path();
        for name in ["video1", "video0", "null"] {
            std::fs::write(dev.join(name), "").expect("a file");
        }
        let names = |nodes: Vec<String>| -> Vec<String> {
            nodes.iter().filter_map(|node| Some(node.rsplit_once('/')?.1.to_owned())).collect()
        };
        assert_eq!(names(nodes(dev)), ["video0", "video1"]);
        std::fs::create_dir_all(dev.join("v4l/by-path")).expect("a folder");
        std::fs::write(dev.join("v4l/by-path/usb-2"), "").expect("a file");
        assert_eq!(names(nodes(dev)), ["usb-2"]);
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..15).map(|n| n.to_string()).collect();
        assert!(list(&many).ends_with("11 and 3 more"), "{}", list(&many));
        assert_eq!(show_interval(Interval::Exactly(Duration::from_nanos(33_333_333))), "30 fps");
        assert_eq!(show_interval(Interval::Exactly(Duration::from_millis(80))), "12.5 fps");
    }
}
