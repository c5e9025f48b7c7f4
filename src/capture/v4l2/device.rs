//! A V4L2 device: what it is, what it offers, and what is asked of it before it streams.
#![allow(unsafe_code)] // Unions and pointers of the kernel's structs.

use super::control::{self, Control, Kind, text};
use super::format::{Agreed, Fourcc, MemoryPlane, PLANES, colorimetry};
use super::ioctl;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use v4l::v4l_sys as sys;

/// Most entries of a list that a device is asked for: a driver that never ends its list must not keep us.
const MOST: u32 = 1024;

/// An open device. Closed when dropped.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
    /// Frames may lie in several planes of memory (the multi-planar API).
    pub multi_planar: bool,
    /// What it is.
    pub identity: Identity,
}

/// What a device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The driver's name.
    pub driver: String,
    /// The camera's name.
    pub card: String,
    /// Where it is plugged in, in the driver's words.
    pub bus: String,
    /// `V4L2_CAP_...` of this node.
    pub capabilities: u32,
}

impl Identity {
    /// Whether pixels can be captured from it through buffers.
    #[must_use]
    pub fn is_camera(&self) -> bool {
        let capture = sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE;
        self.capabilities & capture != 0 && self.capabilities & sys::V4L2_CAP_STREAMING != 0
    }
}

/// A size that a device offers; with a step where it is a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// This one.
    Exactly(u32, u32),
    /// From least to most, in steps.
    Range {
        /// Least width and height.
        least: (u32, u32),
        /// Greatest width and height.
        most: (u32, u32),
        /// Steps of width and height.
        step: (u32, u32),
    },
}

/// The time from one frame to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// This one.
    Exactly(Duration),
    /// From least to most.
    Range(Duration, Duration),
}

impl Device {
    /// Opens the device node at `path`. Nothing of it blocks, but for what the driver itself waits for.
    ///
    /// # Errors
    /// The kernel's answer; `ENOTTY` when it is no V4L2 device.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let mut answer = ioctl::QUERYCAP.zeroed();
        ioctl::QUERYCAP.call(&file, &mut answer)?;
        let whole = answer.capabilities & sys::V4L2_CAP_DEVICE_CAPS == 0;
        let identity = Identity {
            driver: text(&answer.driver),
            card: text(&answer.card),
            bus: text(&answer.bus_info),
            capabilities: if whole { answer.capabilities } else { answer.device_caps },
        };
        let multi_planar = identity.capabilities & sys::V4L2_CAP_VIDEO_CAPTURE == 0;
        Ok(Self { file, multi_planar, identity })
    }

    /// The kind of its buffers, `V4L2_BUF_TYPE_...`
    pub fn buffer_type(&self) -> u32 {
        match self.multi_planar {
            true => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
            false => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
        }
    }

    /// Formats that it offers, with its words for them.
    pub fn formats(&self) -> Vec<(Fourcc, String)> {
        let ask = |index| {
            let mut entry = ioctl::ENUM_FMT.zeroed();
            (entry.index, entry.type_) = (index, self.buffer_type());
            ioctl::ENUM_FMT.call(self, &mut entry).ok()?;
            Some((Fourcc::from_u32(entry.pixelformat), text(&entry.description)))
        };
        (0..MOST).map_while(ask).collect()
    }

    /// Sizes that it offers in a format. Empty where it does not tell.
    pub fn sizes(&self, fourcc: Fourcc) -> Vec<Size> {
        let ask = |index| {
            let mut entry = ioctl::ENUM_FRAMESIZES.zeroed();
            (entry.index, entry.pixel_format) = (index, fourcc.to_u32());
            ioctl::ENUM_FRAMESIZES.call(self, &mut entry).ok()?;
            // SAFETY: both are plain numbers, and the type says which of them was written.
            let (one, range) = unsafe { (entry.__bindgen_anon_1.discrete, entry.__bindgen_anon_1.stepwise) };
            Some(match entry.type_ {
                sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE => Size::Exactly(one.width, one.height),
                _ => Size::Range {
                    least: (range.min_width, range.min_height),
                    most: (range.max_width, range.max_height),
                    step: (range.step_width, range.step_height),
                },
            })
        };
        (0..MOST).map_while(ask).collect()
    }

    /// Frame intervals that it offers in a format and size. Empty where it does not tell.
    pub fn intervals(&self, fourcc: Fourcc, width: u32, height: u32) -> Vec<Interval> {
        let ask = |index| {
            let mut entry = ioctl::ENUM_FRAMEINTERVALS.zeroed();
            (entry.index, entry.pixel_format) = (index, fourcc.to_u32());
            (entry.width, entry.height) = (width, height);
            ioctl::ENUM_FRAMEINTERVALS.call(self, &mut entry).ok()?;
            // SAFETY: both are plain numbers, and the type says which of them was written.
            let (one, range) = unsafe { (entry.__bindgen_anon_1.discrete, entry.__bindgen_anon_1.stepwise) };
            Some(match entry.type_ {
                sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE => Interval::Exactly(duration(one)?),
                _ => Interval::Range(duration(range.min)?, duration(range.max)?),
            })
        };
        (0..MOST).map_while(ask).collect()
    }

    /// The name of the input that is chosen, and `V4L2_IN_ST_...`, which is 0 when there is a signal.
    pub fn input(&self) -> Option<(String, u32)> {
        let mut number = 0;
        ioctl::G_INPUT.call(self, &mut number).ok()?;
        let mut input = ioctl::ENUMINPUT.zeroed();
        input.index = u32::try_from(number).ok()?;
        ioctl::ENUMINPUT.call(self, &mut input).ok()?;
        Some((text(&input.name), input.status))
    }

    /// Asks for a format and size, whole frames at once; what the driver makes of it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_format(&self, fourcc: Fourcc, width: u32, height: u32) -> io::Result<Agreed> {
        let mut format = ioctl::S_FMT.zeroed();
        format.type_ = self.buffer_type();
        let field = sys::v4l2_field_V4L2_FIELD_NONE;
        if self.multi_planar {
            let mut pix = sys::v4l2_pix_format_mplane { width, height, ..zeroed_mplane() };
            (pix.pixelformat, pix.field) = (fourcc.to_u32(), field);
            format.fmt.pix_mp = pix;
        } else {
            let mut pix = sys::v4l2_pix_format { width, height, ..zeroed_pix() };
            (pix.pixelformat, pix.field) = (fourcc.to_u32(), field);
            // Without it the driver leaves the fields below out of account.
            pix.priv_ = sys::V4L2_PIX_FMT_PRIV_MAGIC;
            format.fmt.pix = pix;
        }
        ioctl::S_FMT.call(self, &mut format)?;
        let mut planes = [MemoryPlane::default(); PLANES];
        if self.multi_planar {
            // SAFETY: the driver has written this one, plain numbers.
            let pix = unsafe { format.fmt.pix_mp };
            // SAFETY: both of the union's are the same byte.
            let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
            let theirs = pix.plane_fmt;
            for (plane, theirs) in planes.iter_mut().zip(theirs) {
                *plane = memory_plane(theirs.bytesperline, theirs.sizeimage);
            }
            Ok(Agreed {
                fourcc: Fourcc::from_u32(pix.pixelformat),
                width: pix.width,
                height: pix.height,
                field: pix.field,
                count: usize::from(pix.num_planes).clamp(1, PLANES),
                planes,
                color: colorimetry(pix.colorspace, encoding.into(), pix.quantization.into()),
            })
        } else {
            // SAFETY: the driver has written this one, plain numbers.
            let pix = unsafe { format.fmt.pix };
            // SAFETY: both of the union's are the same number.
            let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
            planes[0] = memory_plane(pix.bytesperline, pix.sizeimage);
            Ok(Agreed {
                fourcc: Fourcc::from_u32(pix.pixelformat),
                width: pix.width,
                height: pix.height,
                field: pix.field,
                count: 1,
                planes,
                color: colorimetry(pix.colorspace, encoding, pix.quantization),
            })
        }
    }

    /// Asks for a frame interval; what the driver makes of it. `None` when the device has no say in it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_interval(&self, wanted: Duration) -> io::Result<Option<Duration>> {
        let mut parameters = ioctl::G_PARM.zeroed();
        parameters.type_ = self.buffer_type();
        match ioctl::G_PARM.call(self, &mut parameters) {
            Ok(()) => {}
            Err(error) if is_unknown(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: the driver has written this one, plain numbers.
        let mut capture = unsafe { parameters.parm.capture };
        if capture.capability & sys::V4L2_CAP_TIMEPERFRAME == 0 {
            return Ok(None);
        }
        capture.timeperframe = fraction(wanted);
        parameters.parm.capture = capture;
        ioctl::S_PARM.call(self, &mut parameters)?;
        // SAFETY: as above.
        Ok(duration(unsafe { parameters.parm.capture }.timeperframe))
    }

    /// Its controls.
    pub fn controls(&self) -> Vec<Control> {
        let mut controls = Vec::new();
        let mut id = 0;
        while controls.len() < MOST as usize {
            let mut query = ioctl::QUERY_EXT_CTRL.zeroed();
            query.id = id | sys::V4L2_CTRL_FLAG_NEXT_CTRL;
            // A driver that does not go on would keep us for ever.
            if ioctl::QUERY_EXT_CTRL.call(self, &mut query).is_err() || query.id <= id {
                break;
            }
            id = query.id;
            if query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS {
                continue;
            }
            controls.push(self.describe(&query));
        }
        controls
    }

    /// A control as it is now.
    pub fn control(&self, id: u32) -> Option<Control> {
        let mut query = ioctl::QUERY_EXT_CTRL.zeroed();
        query.id = id;
        ioctl::QUERY_EXT_CTRL.call(self, &mut query).ok()?;
        Some(self.describe(&query))
    }

    fn describe(&self, query: &sys::v4l2_query_ext_ctrl) -> Control {
        let kind = Kind::of(query.type_);
        let entry = |index: i64| {
            let mut entry = ioctl::QUERYMENU.zeroed();
            (entry.id, entry.index) = (query.id, u32::try_from(index).ok()?);
            // Menus may have holes.
            ioctl::QUERYMENU.call(self, &mut entry).ok()?;
            // SAFETY: both are plain bytes, and the type says which of them was written.
            let (name, value) = unsafe { (entry.__bindgen_anon_1.name, entry.__bindgen_anon_1.value) };
            let numbers = query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU;
            Some((index, if numbers { value.to_string() } else { text(&name) }))
        };
        let entries = query.minimum..=query.maximum.min(query.minimum.saturating_add(i64::from(MOST)));
        let menu = if kind == Kind::Menu { entries.filter_map(entry).collect() } else { Vec::new() };
        Control {
            id: query.id,
            name: control::name(&text(&query.name.map(|char| char.cast_unsigned()))),
            kind,
            minimum: query.minimum,
            maximum: query.maximum,
            step: query.step,
            default: query.default_value,
            flags: query.flags,
            menu,
        }
    }

    /// Sets a control.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_control(&self, control: &Control, value: i64) -> io::Result<()> {
        self.exchange(&ioctl::S_EXT_CTRLS, control, value).map(drop)
    }

    /// The value of a control.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn get_control(&self, control: &Control) -> io::Result<i64> {
        self.exchange(&ioctl::G_EXT_CTRLS, control, 0)
    }

    fn exchange(
        &self,
        request: &ioctl::Pointing<sys::v4l2_ext_controls>,
        control: &Control,
        value: i64,
    ) -> io::Result<i64> {
        let wide = control.kind == (Kind::Integer { wide: true });
        // SAFETY: a C struct of numbers and pointers, which all zeros is a value of.
        let mut one: sys::v4l2_ext_control = unsafe { std::mem::zeroed() };
        one.id = control.id;
        match wide {
            true => one.__bindgen_anon_1.value64 = value,
            // A bitmask's highest bit is no sign, so what is beyond 31 bits wraps.
            false => one.__bindgen_anon_1.value = value as i32,
        }
        let mut all = request.zeroed();
        (all.count, all.controls) = (1, &raw mut one);
        // SAFETY: `one` is there during the call, and nobody keeps it; its size of 0 says that it holds a number.
        unsafe { request.call(self, &mut all) }?;
        // SAFETY: the type says which of them was written; both are plain numbers.
        let (long, short) = unsafe { (one.__bindgen_anon_1.value64, one.__bindgen_anon_1.value) };
        Ok(match control.kind {
            Kind::Integer { wide: true } => long,
            Kind::Bitmask => i64::from(short.cast_unsigned()),
            _ => i64::from(short),
        })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a driver does not know a request.
pub fn is_unknown(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    errno == Some(rustix::io::Errno::NOTTY) || errno == Some(rustix::io::Errno::INVAL)
}

fn memory_plane(stride: u32, bytes: u32) -> MemoryPlane {
    MemoryPlane { stride: stride as usize, bytes: bytes as usize }
}

fn zeroed_pix() -> sys::v4l2_pix_format {
    // SAFETY: a C struct of numbers.
    unsafe { std::mem::zeroed() }
}

fn zeroed_mplane() -> sys::v4l2_pix_format_mplane {
    // SAFETY: a C struct of numbers.
    unsafe { std::mem::zeroed() }
}

/// V4L2's fraction of a second, where it is one.
fn duration(fraction: sys::v4l2_fract) -> Option<Duration> {
    let sys::v4l2_fract { numerator, denominator } = fraction;
    let nanos = (u64::from(numerator) * 1_000_000_000).checked_div(denominator.into())?;
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

/// An interval as a fraction of a second: one over a whole rate where it is that, else in 100 ns, as UVC has it.
fn fraction(interval: Duration) -> sys::v4l2_fract {
    let nanos = interval.as_nanos().clamp(100, u128::from(u32::MAX) * 100);
    let rate = (1_000_000_000 + nanos / 2) / nanos;
    let whole = rate > 0 && (1_000_000_000u128 / rate).abs_diff(nanos) <= 1;
    match whole {
        true => sys::v4l2_fract { numerator: 1, denominator: rate as u32 },
        false => sys::v4l2_fract { numerator: (nanos / 100) as u32, denominator: 10_000_000 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_fractions_of_a_second() {
        let back = |nanos: u64| {
            let fraction = fraction(Duration::from_nanos(nanos));
            (fraction.numerator, fraction.denominator)
        };
        assert_eq!(back(33_333_333), (1, 30));
        assert_eq!(back(40_000_000), (1, 25));
        assert_eq!(back(80_000_000), (800_000, 10_000_000));
        assert_eq!(back(33_366_667), (333_666, 10_000_000));
        assert_eq!(back(10_000_000_000), (100_000_000, 10_000_000));
        assert_eq!(back(u64::MAX), (u32::MAX, 10_000_000));
        let of = |numerator, denominator| duration(sys::v4l2_fract { numerator, denominator });
        assert_eq!(of(1, 30), Some(Duration::from_nanos(33_333_333)));
        assert_eq!((of(1, 0), of(0, 30), of(0, 0)), (None, None, None));
    }

    #[test]
    fn what_is_no_v4l2_device_is_refused() {
        let error = Device::open(Path::new("/dev/null")).expect_err("no camera");
        assert!(is_unknown(&error), "{error}");
        let error = Device::open(Path::new("/dev/no-such-camera")).expect_err("no camera");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
