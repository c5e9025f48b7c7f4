//! From a board's wishes to a queue that streams: format, rate, controls, and where frames lie.

use super::control::Control;
use super::device::Device;
use super::explain::Words;
use super::format::{self, Agreed, Fourcc};
use super::heap::Heap;
use super::queue::{self, Queue, Refused};
use crate::board::{Encoding, V4l2, V4l2Memory};
use crate::capture::SourceError;
use crate::image::PixelFormat;
use crate::pool::Share;
use std::time::Duration;
use v4l::v4l_sys as sys;

/// A rate that differs by less than this part is the same: 29.97 is 30.
const SAME_RATE: f64 = 0.01;

/// What the board wants of the camera.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The camera.
    pub camera: V4l2,
    /// The frames' format.
    pub format: PixelFormat,
    /// Their width.
    pub width: u32,
    /// Their height.
    pub height: u32,
    /// From one to the next.
    pub period: Duration,
}

/// How frames come to lie in slots.
#[derive(Debug)]
pub struct Ready {
    /// The device with its buffers.
    pub queue: Queue,
    /// Frames have to be copied into the pool.
    pub copies: bool,
    /// The driver's or another device's memory as slots, where frames lie there.
    pub foreign: Option<Share>,
}

impl Wanted {
    /// Opens the device and agrees on all that the board says.
    ///
    /// # Errors
    /// What was wanted, what the device made of it, and what it offers.
    pub fn open(&self, words: &mut Words, notes: &mut Vec<String>) -> Result<(Device, Agreed), SourceError> {
        let device = Device::open(&self.camera.device).map_err(|error| words.not_opened(&error))?;
        if !device.identity.is_camera() {
            let remedy = "name the node that captures video: of a camera with several nodes it is the first, \
                          whose name in /dev/v4l/by-path ends with index0";
            return Err(words.error("this node captures no video", remedy));
        }
        let identity = &device.identity;
        notes.push(format!("{} ({} at {})", identity.card, identity.driver, identity.bus));
        if let Some((input, status)) = device.input()
            && status & NO_SIGNAL != 0
        {
            return Err(
                words.error(format!("input `{input}` has no signal"), "connect and power what is before it")
            );
        }
        let agreed = self.agree(&device, words)?;
        let rate = self.rate(&device, &agreed, words)?;
        let bits = agreed.memory().iter().map(|plane| plane.bytes as f64 * 8.0).sum::<f64>();
        words.rate = Some(bits / self.period.as_secs_f64());
        let stride = agreed.planes[0].stride;
        notes.push(format!(
            "{}x{} {}, {stride} bytes a row, {rate}",
            agreed.width, agreed.height, agreed.fourcc
        ));
        self.set_controls(&device, words, notes)?;
        Ok((device, agreed))
    }

    /// The formats to ask for, best first.
    fn fourccs(&self, words: &Words) -> Result<Vec<Fourcc>, SourceError> {
        let ours: Vec<Fourcc> = format::fourccs(self.format).collect();
        match (self.camera.encoding, &self.camera.fourcc) {
            (Encoding::Mjpeg, _) => Ok(vec![Fourcc::MJPEG, Fourcc::JPEG]),
            (Encoding::Raw, None) => Ok(ours),
            (Encoding::Raw, Some(only)) if ours.contains(&Fourcc::parse(only)) => {
                Ok(vec![Fourcc::parse(only)])
            }
            (Encoding::Raw, Some(other)) => {
                let names: Vec<String> = ours.iter().map(Fourcc::to_string).collect();
                let what = format!("fourcc `{other}` is not {}", self.format.as_str());
                Err(words.error(what, format!("name one of {}, or leave it out", names.join(", "))))
            }
        }
    }

    fn agree(&self, device: &Device, words: &Words) -> Result<Agreed, SourceError> {
        let fourccs = self.fourccs(words)?;
        let offered = device.formats();
        let Self { width, height, .. } = *self;
        // Drivers that list nothing are asked all the same.
        let listed =
            |fourcc: &&Fourcc| offered.is_empty() || offered.iter().any(|(other, _)| other == *fourcc);
        let names = || fourccs.iter().map(Fourcc::to_string).collect::<Vec<_>>().join(" or ");
        let wanted = || format!("{width}x{height} {}", names());
        let Some(&fourcc) = fourccs.iter().find(listed) else {
            return Err(words.another_format(device, &wanted(), "no such format", &fourccs));
        };
        let agreed =
            device.set_format(fourcc, width, height).map_err(|error| words.failed("S_FMT", &error))?;
        if (agreed.fourcc, agreed.width, agreed.height) != (fourcc, width, height) {
            let got = format!("{}x{} {}", agreed.width, agreed.height, agreed.fourcc);
            return Err(words.another_format(device, &wanted(), &got, &fourccs));
        }
        let whole = [sys::v4l2_field_V4L2_FIELD_NONE, sys::v4l2_field_V4L2_FIELD_ANY];
        if !whole.contains(&agreed.field) {
            let what = format!("sends interlaced fields ({}), not whole frames", agreed.field);
            return Err(words.error(what, "choose a progressive mode, or a camera or input that has one"));
        }
        Ok(agreed)
    }

    fn rate(&self, device: &Device, agreed: &Agreed, words: &Words) -> Result<String, SourceError> {
        let set = device.set_interval(self.period).map_err(|error| words.failed("S_PARM", &error))?;
        let Some(got) = set else { return Ok("at its own rate: the device can't be told one".to_owned()) };
        let ratio = got.as_secs_f64() / self.period.as_secs_f64();
        if (ratio - 1.0).abs() > SAME_RATE {
            let mode = (agreed.fourcc, agreed.width, agreed.height);
            return Err(words.another_interval(device, self.period, got, mode));
        }
        Ok(format!("{:.3} frames a second", 1.0 / got.as_secs_f64()))
    }

    /// Sets the controls, those that switch automatics first, and reads all of them back.
    fn set_controls(
        &self,
        device: &Device,
        words: &Words,
        notes: &mut Vec<String>,
    ) -> Result<(), SourceError> {
        if self.camera.controls.is_empty() {
            return Ok(());
        }
        let known = device.controls();
        let mut chosen: Vec<(&Control, i64)> = Vec::new();
        for (name, &value) in &self.camera.controls {
            let Some(control) = known.iter().find(|control| control.name == *name) else {
                let settable = known.iter().filter(|control| control.is_settable());
                let names: Vec<String> = settable.map(|control| control.name.clone()).collect();
                return Err(words.unknown_control(name, &names));
            };
            control.check(value).map_err(|fault| {
                words.error(format!("control `{name}` {fault}"), "correct it in the stream's source.controls")
            })?;
            chosen.push((control, value));
        }
        chosen.sort_by_key(|(control, _)| !control.comes_first());
        for (control, value) in &chosen {
            device.set_control(control, *value).map_err(|error| {
                let remedy = "another control may have to be set first (an automatic switched off), or it can't be \
                              set on this device";
                words.error(format!("control `{}` can't be set to {value}: {error}", control.name), remedy)
            })?;
        }
        for (control, value) in chosen.iter().filter(|(control, _)| control.is_readable()) {
            let name = &control.name;
            let got = device.get_control(control);
            let got = got.map_err(|error| words.failed(&format!("reading control `{name}`"), &error))?;
            if got != *value {
                let what = format!("control `{name}`: wanted {value}, got {got}");
                return Err(words.error(what, format!("the device takes {control}; choose what it keeps")));
            }
            if device.control(control.id).is_some_and(|now| now.is_inactive()) {
                let remedy = "set the automatic's own control too (such as auto_exposure = 1 for manual), or take \
                              this one out";
                return Err(
                    words.error(format!("control `{name}` has no effect: an automatic decides it"), remedy)
                );
            }
        }
        let shown: Vec<String> = chosen.iter().map(|(control, value)| control.show(*value)).collect();
        notes.push(format!("controls {}", shown.join(", ")));
        Ok(())
    }

    /// Gives the device buffers, in the best way that works, and says which and why. `spare` slots of the share are
    /// left free.
    ///
    /// # Errors
    /// That no way that the board allows works, and why each did not.
    pub fn prepare(
        &self,
        device: Device,
        agreed: Agreed,
        share: &Share,
        spare: usize,
        words: &Words,
        notes: &mut Vec<String>,
    ) -> Result<Ready, SourceError> {
        let is_raw = self.camera.encoding == Encoding::Raw;
        let ways: &[V4l2Memory] = match self.camera.memory {
            V4l2Memory::Auto if is_raw => &[V4l2Memory::Userptr, V4l2Memory::Mmap, V4l2Memory::Copy],
            V4l2Memory::Auto => &[V4l2Memory::Mmap],
            V4l2Memory::Userptr => &[V4l2Memory::Userptr],
            V4l2Memory::Mmap => &[V4l2Memory::Mmap],
            V4l2Memory::Dmabuf => &[V4l2Memory::Dmabuf],
            V4l2Memory::Copy => &[V4l2Memory::Copy],
        };
        let count = match is_raw {
            true => share.slots().saturating_sub(spare).min(queue::MOST),
            // A few suffice: images are the driver's again as soon as the decoder has them.
            false => super::SLOTS,
        };
        let mut queue = Queue::new(device, agreed);
        let mut refusals = Vec::new();
        for way in ways {
            let tried = match way {
                V4l2Memory::Userptr => queue.fill_from_pool(share, count).map(|()| None),
                V4l2Memory::Mmap if is_raw && ways.len() > 1 => enough(&mut queue, share, count).map(Some),
                V4l2Memory::Mmap => queue.fill_from_driver(is_raw.then_some(share), count).map(Some),
                V4l2Memory::Dmabuf => from_heap(&mut queue, share, count, notes).map(Some),
                // A few suffice: they are the driver's again as soon as they are copied.
                V4l2Memory::Copy | V4l2Memory::Auto => queue.fill_from_driver(None, super::SLOTS).map(Some),
            };
            match tried {
                Ok(foreign) => {
                    let copies = *way == V4l2Memory::Copy;
                    notes.push(how(*way, is_raw, queue.buffers(), &refusals));
                    return Ok(Ready { queue, copies, foreign });
                }
                Err(Refused::Unsupported(why)) => refusals.push(format!("{way}: {why}")),
                Err(Refused::Failed(request, error)) => return Err(words.failed(request, &error)),
            }
        }
        let remedy = match self.camera.memory {
            V4l2Memory::Auto => "check the camera and its driver; see the kernel's log (dmesg)",
            _ => "set memory = \"auto\" in the stream's source",
        };
        Err(words.error(format!("no buffers: {}", refusals.join("; ")), remedy))
    }
}

/// `V4L2_IN_ST_NO_POWER`, `NO_SIGNAL`
const NO_SIGNAL: u32 = sys::V4L2_IN_ST_NO_POWER | sys::V4L2_IN_ST_NO_SIGNAL;

/// Frames that lie in the driver's own buffers are missing there: with fewer than the stream's slots the driver might
/// run dry while frames wait, and copying is better where that is allowed.
fn enough(queue: &mut Queue, stream: &Share, count: usize) -> Result<Share, Refused> {
    let share = queue.fill_from_driver(Some(stream), count)?;
    let has = queue.buffers();
    if has < count {
        queue.release();
        return Err(Refused::Unsupported(format!(
            "the driver gives {has} buffers, {count} may be in use at once"
        )));
    }
    Ok(share)
}

fn from_heap(
    queue: &mut Queue,
    stream: &Share,
    count: usize,
    notes: &mut Vec<String>,
) -> Result<Share, Refused> {
    let heap = Heap::find().map_err(Refused::Unsupported)?;
    let share = queue.fill_from_heap(stream, &heap, count)?;
    notes.push(format!("dma-bufs from {}", heap.path().display()));
    Ok(share)
}

/// The chosen way in words.
fn how(way: V4l2Memory, is_raw: bool, buffers: usize, refusals: &[String]) -> String {
    let what = match (way, is_raw) {
        (_, false) => "JPEG images in the driver's own buffers (MMAP), decoded into the pool",
        (V4l2Memory::Userptr | V4l2Memory::Auto, _) => {
            "the driver writes into the pool (USERPTR), nothing is copied"
        }
        (V4l2Memory::Mmap, _) => "frames lie in the driver's own buffers (MMAP), nothing is copied",
        (V4l2Memory::Dmabuf, _) => {
            "the driver writes into another device's memory (DMABUF), nothing is copied"
        }
        (V4l2Memory::Copy, _) => "frames are copied from the driver's own buffers (MMAP) into the pool",
    };
    let why = if refusals.is_empty() { String::new() } else { format!("; refused: {}", refusals.join("; ")) };
    format!("{what}, {buffers} buffers{why}")
}
