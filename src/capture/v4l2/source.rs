//! A camera behind a V4L2 device node, as a source.

use super::arrival::Arrival;
use super::bus;
use super::device::{Device, Identity};
use super::explain::Words;
use super::format::is_jpeg;
use super::mjpeg::Mjpeg;
use super::open::{Ready, Wanted};
use super::queue::{self, Filled, Queue};
use super::sequence::Sequence;
use super::stamp::{Clock, Stamps};
use crate::board::{self, Stream};
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError, faults, lost};
use crate::image::{ImageLayout, Plane};
use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::pool::{FrameRef, Share};
use crate::stats::{Copies, CopyStage};
use crate::time::Instant;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often frames that were let go are looked for when the driver runs dry.
const GLANCE: Duration = Duration::from_millis(2);
/// With fewer buffers the driver may run dry before the next frame wakes us.
const LOW: usize = 2;
/// A camera that runs by its own clock has failed when nothing comes for this long, or for ten periods.
const SILENCE: Duration = Duration::from_secs(2);
/// The same for its first frame: sensors and USB take their time.
const FIRST_SILENCE: Duration = Duration::from_secs(5);
/// Nobody but a stopped process leaves a camera alone for this long.
const PAUSED: Duration = Duration::from_secs(1);
/// How long opening waits for a first frame, to look at its stamp.
const LOOK: Duration = Duration::from_millis(500);
/// Times in a row that a driver may refuse to take a buffer back.
const REFUSALS: u32 = 8;
/// Times in a row that a driver may have nothing when it was said to have something.
const EMPTY: u32 = 4;
/// Mappings of earlier openings that frames may still lie in.
const RETIRED: usize = 2;
/// How long opening waits for those frames to be let go.
const PATIENCE: Duration = Duration::from_secs(1);

/// A V4L2 camera.
///
/// **Stamps** are the driver's, on CLOCK_MONOTONIC (module `stamp` says what becomes of those that can't be).
/// **Numbers** are the driver's sequence made endless (module `sequence`): its gaps are frames that were lost; by the
/// driver, or, when it had no buffer to fill, because frames were not taken (`SourceLate`) or not let go (`NoSlot`).
/// Numbers go on when the camera is opened again; what was never captured while it was down has no number.
///
/// **JPEG images** go through a decoder on a thread of its own (module `mjpeg`), and so do the losses between them, which
/// come out in their place.
#[derive(Debug)]
pub struct Camera {
    stream: Stream,
    wanted: Wanted,
    words: Words,
    /// Slots that are left free for others: faults take their own.
    spare: usize,
    sequence: Sequence,
    session: Option<Session>,
    /// Where the camera sends JPEG images. Kept after the session, until what was in it has been told.
    decoder: Option<Mjpeg>,
    /// Stamp of the last frame.
    last: Instant,
    /// What was said by the last frame and has not been passed on.
    pending: heapless::Deque<Next, 4>,
    /// Drivers' memory of earlier openings, in which frames may still lie.
    retired: Vec<Share>,
    /// Watches for the device while it is closed.
    arrival: Option<Arrival>,
    /// Which camera it was when it was last opened.
    known: Option<String>,
    down: bool,
}

/// The camera while it is open.
#[derive(Debug)]
struct Session {
    queue: Queue,
    share: Share,
    copies: Arc<Copies>,
    /// Frames have to be copied into the share.
    is_copied: bool,
    /// Where frames lie that do not lie in the share.
    foreign: Option<Share>,
    stamps: Stamps,
    /// When the last frame was taken, or the camera started.
    heard: Instant,
    /// When it was last looked for frames.
    seen: Instant,
    /// Whether a frame has come.
    awake: bool,
    /// The last frame was taken more than a period after its stamp.
    late: bool,
    refusals: u32,
    /// Times in a row that the driver was said to have something, and had nothing.
    empty: u32,
}

impl Camera {
    /// The camera of `stream`.
    #[must_use]
    pub fn new(stream: &Stream, camera: &board::V4l2) -> Self {
        Self {
            stream: stream.clone(),
            wanted: Wanted {
                camera: camera.clone(),
                format: stream.format,
                width: stream.width,
                height: stream.height,
                period: stream.period,
            },
            words: Words { stream: stream.id.clone(), device: camera.device.clone(), rate: None },
            spare: if stream.faults.is_some() { faults::SLOTS } else { 0 },
            sequence: Sequence::default(),
            session: None,
            decoder: None,
            last: Instant::default(),
            pending: heapless::Deque::new(),
            retired: Vec::new(),
            arrival: None,
            known: None,
            down: true,
        }
    }

    fn start(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.bury()?;
        let mut notes = Vec::new();
        let (device, mut agreed) = self.wanted.open(&mut self.words, &mut notes)?;
        self.recognize(&device);
        let by = match (self.stream.color, agreed.color) {
            (Some(_), _) => "the board",
            (None, _) if is_jpeg(agreed.fourcc) => "JFIF",
            (None, Some(_)) => "the driver",
            (None, None) => "size",
        };
        agreed.color = self.stream.color.or(agreed.color);
        let share = resources.share.clone();
        let Ready { mut queue, copies: is_copied, foreign } =
            self.wanted.prepare(device, agreed, &share, self.spare, &self.words, &mut notes)?;
        self.decoder = match queue.layout() {
            Some(_) => None,
            None => Some(Mjpeg::start(&self.stream, resources, agreed.planes[0].bytes)?),
        };
        let started = clock::now();
        queue.start().map_err(|error| self.words.failed("STREAMON", &error))?;
        self.sequence.reopen();
        let decoded = self.decoder.as_ref().map(|decoder| *decoder.layout());
        let layout = queue.layout().or(decoded).ok_or_else(|| SourceError::closed(&self.stream.id))?;
        notes.push(format!("colours {:?} {:?} by {by}", layout.color.matrix, layout.color.range));
        self.session = Some(Session {
            queue,
            share,
            copies: resources.copies.clone(),
            is_copied,
            foreign,
            stamps: Stamps::new(started, self.wanted.period),
            heard: started,
            seen: started,
            awake: false,
            late: false,
            refusals: 0,
            empty: 0,
        });
        notes.push(self.look()?);
        Ok(Opened { layout, notes })
    }

    /// Says so when it is another camera than before, or elsewhere: cables were swapped, or it was replaced.
    fn recognize(&mut self, device: &Device) {
        let Identity { card, bus, .. } = &device.identity;
        let serial = bus::serial(Path::new("/sys"), &self.words.node());
        let now = format!("{card} at {bus}, serial number {}", serial.as_deref().unwrap_or("none"));
        if let Some(before) = self.known.replace(now.clone()).filter(|before| *before != now) {
            log::warn!(
                "{}: another camera than before, or elsewhere: {now}; it was {before}",
                self.words.stream
            );
        }
    }

    /// Waits a little for the first frame, which tells what stamps are like.
    fn look(&mut self) -> Result<String, SourceError> {
        let until = clock::now() + (self.wanted.period * 3).min(LOOK);
        let Some(session) = &mut self.session else { return Err(SourceError::closed(&self.words.stream)) };
        let failed = |words: &Words, error: &std::io::Error| words.failed("DQBUF", error);
        let filled = loop {
            match session.queue.dequeue() {
                Ok(Some(filled)) => break filled,
                Ok(None) if clock::now() < until => {
                    session.queue.wait(until, None);
                }
                Ok(None) => return Ok("no frame yet: it may wait for a trigger, or for light".to_owned()),
                Err(error) => return Err(failed(&self.words, &error)),
            }
        };
        let (clock, arrived) = (filled.clock, clock::now());
        let ahead = filled.time.nanos().and_then(|nanos| u64::try_from(nanos).ok()).map(Instant::from_nanos);
        let ahead = ahead.map_or(Duration::ZERO, |stamp| stamp.since(arrived));
        self.receive(&filled);
        let mut note = clock.describe().to_owned();
        if clock != Clock::Unknown && ahead > Duration::ZERO {
            note += &format!(", but {ahead:.1?} in the future: such a frame is stamped on arrival");
        }
        Ok(note)
    }

    /// Takes a filled buffer: queues what it means, frames lost before it, and the frame.
    fn receive(&mut self, filled: &Filled) {
        let Some(session) = &mut self.session else { return };
        let arrived = clock::now();
        let (captured, _) = session.stamps.convert(filled.time, filled.clock, arrived);
        let last = self.last;
        let captured = captured.max(last);
        let periods = captured.since(last).as_nanos() / self.wanted.period.as_nanos().max(1);
        let step = self.sequence.take(filled.sequence, u64::try_from(periods).unwrap_or(u64::MAX));
        let reason = session.blame(filled, last);
        session.late = arrived.since(captured) > self.wanted.period * 2;
        (session.heard, session.awake, session.empty) = (arrived, true, 0);
        let outcome = session.frame(filled);
        self.last = captured;
        if step.lost > 0 {
            let back = self.wanted.period.saturating_mul(u32::try_from(step.lost).unwrap_or(u32::MAX));
            let first = captured.saturating_sub(back).max(last);
            let gap = Lost { sequence: step.number - step.lost, count: step.lost, captured: first, reason };
            self.tell_lost(gap);
        }
        match (outcome, &mut self.decoder) {
            (Ok(image), Some(decoder)) => {
                let length = image.layout().width as usize;
                let begin = image.layout().planes[0].offset;
                decoder.submit(&image.bytes()[begin..begin + length], step.number, captured);
            }
            (Ok(frame), None) => self.queue(Next::Frame(Captured { sequence: step.number, captured, frame })),
            (Err(reason), _) => self.tell_lost(lost(step.number, captured, reason)),
        }
    }

    fn tell_lost(&mut self, lost: Lost) {
        match &mut self.decoder {
            Some(decoder) => decoder.lose(lost),
            None => self.queue(Next::Lost(lost)),
        }
    }

    /// What has been said and not passed on.
    fn said(&mut self) -> Option<Next> {
        self.pending.pop_front().or_else(|| self.decoder.as_mut()?.next())
    }

    fn queue(&mut self, next: Next) {
        // Room for a gap and a frame, and for as much of an earlier opening that nobody asked for.
        let queued = self.pending.push_back(next);
        debug_assert!(queued.is_ok());
    }

    /// Takes one filled buffer, if there is one, and hands back those that were let go.
    fn turn(&mut self) -> Result<bool, SourceError> {
        let Some(session) = &mut self.session else { return Err(SourceError::closed(&self.words.stream)) };
        match session.queue.requeue() {
            Ok(()) => session.refusals = 0,
            Err(error) if queue::is_gone(&error) => return Err(self.words.failed("QBUF", &error)),
            Err(error) => {
                session.refusals += 1;
                if session.refusals >= REFUSALS {
                    return Err(self.words.failed("QBUF", &error));
                }
            }
        }
        match session.queue.dequeue() {
            Ok(Some(filled)) => {
                self.receive(&filled);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(self.words.failed("DQBUF", &error)),
        }
    }

    /// Why a camera that has said nothing for too long has failed.
    fn silence(&mut self, now: Instant) -> Option<SourceError> {
        // A trigger's silence is not the camera's.
        let triggered = self.stream.trigger.is_some();
        let session = self.session.as_mut()?;
        // Who was stopped, or ran on a machine that was, has heard nothing meanwhile.
        if now.since(std::mem::replace(&mut session.seen, now)) > PAUSED {
            session.heard = now;
        }
        let patience = if session.awake { SILENCE } else { FIRST_SILENCE };
        let patience = patience.max(self.wanted.period.saturating_mul(10));
        // A driver without buffers can't speak.
        let dumb = !triggered && session.queue.with_driver() > 0 && now.since(session.heard) > patience;
        dumb.then(|| {
            let what = format!("no frame for {patience:.1?}");
            self.words.error(what, "check the camera, its cable and its trigger mode; it is opened again")
        })
    }

    fn fail(&mut self, error: SourceError) -> Next {
        self.down = true;
        Next::Failed(error)
    }

    /// Lets go of drivers' memory that no frame lies in any more.
    ///
    /// # Errors
    /// When frames of too many openings are still in use.
    fn bury(&mut self) -> Result<(), SourceError> {
        let until = clock::now() + PATIENCE;
        loop {
            self.retired.retain(|share| share.free_slots() < share.slots());
            if self.retired.is_empty() {
                return Ok(());
            }
            if clock::now() >= until {
                break;
            }
            clock::sleep_until(clock::now() + GLANCE);
        }
        if self.retired.len() <= RETIRED {
            return Ok(());
        }
        let what = "frames from before it failed are still in use; the driver's memory is not free";
        Err(self.words.error(what, "see what holds them: an accelerator that hangs, or a reader that waits"))
    }

    fn stop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let Session { queue, foreign, stamps, .. } = session;
        drop(queue);
        // Where frames still lie in the driver's memory, it is let go here, not by whoever drops the last of them.
        self.retired.extend(foreign);
        self.retired.retain(|share| share.free_slots() < share.slots());
        for (fault, count) in stamps.faults() {
            log::warn!("{}: {count} stamps were {}", self.words.stream, fault.describe());
        }
        for (oddity, count) in self.sequence.oddities() {
            log::warn!("{}: {count} frame numbers were {}", self.words.stream, oddity.describe());
        }
    }
}

impl Session {
    /// The frame in a buffer.
    fn frame(&mut self, filled: &Filled) -> Result<FrameRef, DropReason> {
        if filled.corrupt {
            return Err(DropReason::Corrupt);
        }
        let frame = self.queue.frame(filled).ok_or(DropReason::Corrupt)?;
        if self.is_copied { self.copy(&frame) } else { Ok(frame) }
    }

    /// Copies a frame into the share, its planes one after the other.
    fn copy(&self, frame: &FrameRef) -> Result<FrameRef, DropReason> {
        let from = frame.layout();
        let mut to = ImageLayout::packed(from.format, from.width, from.height);
        to.color = from.color;
        let mut slot = self.share.take().ok_or(DropReason::NoSlot)?;
        let fits = to.extent().is_some_and(|extent| extent <= self.share.slot_bytes());
        if !fits {
            return Err(DropReason::NoSlot);
        }
        let mut copied = 0;
        for number in 0..from.format.planes() {
            let (row, rows) = from.format.plane_extent(number, from.width, from.height);
            let (source, target): (Plane, Plane) = (from.planes[number], to.planes[number]);
            for y in 0..rows {
                let line = &frame.bytes()[source.offset + y * source.stride..][..row];
                slot.bytes_mut()[target.offset + y * target.stride..][..row].copy_from_slice(line);
            }
            copied += row * rows;
        }
        self.copies.count(CopyStage::Capture, copied);
        slot.freeze(to).map_err(|_| DropReason::NoSlot)
    }

    /// Why frames between the last one and this are missing.
    fn blame(&self, filled: &Filled, last: Instant) -> DropReason {
        match filled.queued > last {
            // It had this buffer all the time.
            false => DropReason::DriverLost,
            // Buffers are filled in their order: when this one came, all before it were filled.
            true if self.late => DropReason::SourceLate,
            true => DropReason::NoSlot,
        }
    }
}

impl Source for Camera {
    fn resume(&mut self, next: u64) {
        self.sequence.resume(next);
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.stop();
        self.down = true;
        // Looked at before it is opened: a node that comes while that fails has come.
        let before = Arrival::of(&self.wanted.camera.device);
        let opened = self.start(resources);
        if opened.is_err() {
            self.stop();
        }
        self.arrival = opened.is_err().then_some(before);
        self.down = opened.is_err();
        opened
    }

    fn next(&mut self, until: Instant) -> Next {
        loop {
            match self.said() {
                Some(Next::Failed(error)) => return self.fail(error),
                Some(next) => return next,
                None => {}
            }
            match self.turn() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => return self.fail(error),
            }
            let now = clock::now();
            if let Some(error) = self.silence(now) {
                return self.fail(error);
            }
            if now >= until {
                return Next::Nothing;
            }
            if let Some(Session { queue, empty, .. }) = &mut self.session {
                let dry = queue.with_driver() < LOW;
                let until = if dry { until.min(now + GLANCE) } else { until };
                match queue.wait(until, self.decoder.as_ref().map(Mjpeg::as_fd)) {
                    true => *empty += 1,
                    false => *empty = 0,
                }
                // A driver that promises and does not keep it must not have the processor for itself.
                if *empty > EMPTY {
                    clock::sleep_until(until.min(clock::now() + GLANCE));
                }
            }
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        let reason = if self.down { DropReason::SourceDown } else { DropReason::Shutdown };
        if let Some(decoder) = &mut self.decoder {
            decoder.abandon(reason);
        }
        loop {
            if matches!(self.pending.front(), Some(Next::Frame(frame)) if frame.captured > now) {
                return None;
            }
            match self.said() {
                Some(Next::Lost(gap)) => return Some(gap),
                Some(Next::Frame(frame)) => return Some(lost(frame.sequence, frame.captured, reason)),
                Some(_) => {}
                // What the driver holds filled has been captured.
                None if self.turn().is_ok_and(|taken| taken) => {
                    if let Some(decoder) = &mut self.decoder {
                        decoder.abandon(reason);
                    }
                }
                None => return None,
            }
        }
    }

    fn close(&mut self) {
        if self.session.is_some() {
            self.arrival = Some(Arrival::of(&self.wanted.camera.device));
        }
        self.stop();
    }

    fn await_return(&mut self, until: Instant) -> bool {
        self.retired.retain(|share| share.free_slots() < share.slots());
        match &mut self.arrival {
            Some(arrival) => arrival.wait(until),
            None => {
                clock::sleep_until(until);
                false
            }
        }
    }
}
