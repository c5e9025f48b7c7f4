//! A camera that runs by its own clock: an RTSP or HTTP address, or a pipeline description.
//!
//! The pipeline runs on the system's monotonic clock, so that its stamps are instants of ours. What the capture
//! thread does not take in time is dropped where it arrives, and counted.

use super::arrivals::Arrivals;
use super::errors::Names;
use super::frame::{Frames, Picture, Wanted};
use super::pipeline::{Input, Pipeline};
use crate::board::Stream;
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError, lost};
use crate::job::{DropReason, Lost};
use crate::platform::clock;
use crate::time::Instant;
use gst::prelude::*;
use gstreamer as gst;
use std::sync::Arc;
use std::time::Duration;

/// Frame numbers of a source that jump by more than this are not frame numbers.
const LARGEST_GAP: u64 = 10_000;

/// A live source.
///
/// **Stamps.** A frame's running time is when it was captured, by GStreamer's definition; captured = the
/// pipeline's base time + running time, never later than its arrival. A source that gives no running time has
/// its arrival taken instead, and a note says so.
///
/// **Numbers.** Where buffers carry a frame number (offset, with the end offset one more, as V4L2 gives it), its
/// gaps are frames that the driver lost. Else the frames that arrive are counted. Frames that arrived while
/// the capture thread did not take them are `SourceLate`. Numbers go on when the source is opened again; what
/// was never captured while it was down has no number.
#[derive(Debug)]
pub struct Live {
    names: Names,
    input: Input,
    period: Duration,
    wanted: Wanted,
    running: Option<Running>,
    /// Number of the next frame that is not known to be lost.
    next: u64,
    /// Stamp of the last frame.
    last: Instant,
    /// What was said by the last frame that arrived and has not been passed on.
    pending: heapless::Deque<Next, 3>,
    /// Frames that arrived at a pipeline that is gone, and were not taken.
    abandoned: u64,
    down: bool,
}

#[derive(Debug)]
struct Running {
    pipeline: Pipeline,
    frames: Frames,
    arrivals: Arc<Arrivals>,
    /// Arrivals that are accounted for.
    seen: u64,
    /// Frame number that the source gave its last frame.
    offset: Option<u64>,
    first: Option<Picture>,
}

impl Live {
    /// The camera at an address, with the given jitter buffer if it speaks RTSP.
    #[must_use]
    pub fn from_uri(stream: &Stream, uri: &str, latency: Duration) -> Self {
        Self::new(stream, super::errors::scrub(uri), Input::Uri(uri.to_owned(), latency))
    }

    /// The camera at the end of a pipeline.
    #[must_use]
    pub fn from_description(stream: &Stream, description: &str) -> Self {
        Self::new(stream, "its pipeline".to_owned(), Input::Description(description.to_owned()))
    }

    fn new(stream: &Stream, shown: String, input: Input) -> Self {
        Self {
            names: Names { stream: stream.id.clone(), shown },
            input,
            period: stream.period,
            wanted: Wanted::by(stream),
            running: None,
            next: 0,
            last: Instant::default(),
            pending: heapless::Deque::new(),
            abandoned: 0,
            down: true,
        }
    }

    fn run(&self, resources: &Resources) -> Result<(Running, Opened), SourceError> {
        let pipeline = Pipeline::build(&self.input, &self.wanted, &self.names, resources)?;
        let clock = gst::glib::Object::builder::<gst::SystemClock>()
            .property("clock-type", gst::ClockType::Monotonic)
            .build();
        pipeline.pipeline.use_clock(Some(&clock));
        let arrivals = Arc::new(Arrivals::default());
        if let Some(pad) = pipeline.sink.static_pad("sink") {
            arrivals.watch(&pad);
        }
        let mut notes = Vec::new();
        if pipeline.set_state(gst::State::Paused)? != gst::StateChangeSuccess::NoPreroll {
            // Also where it turns out to be live later; then waiting for stamps that have passed takes no time.
            pipeline.sink.set_sync(true);
            notes.push("not live by its own account: its timestamps set the pace".to_owned());
        }
        pipeline.set_state(gst::State::Playing)?;
        let first = pipeline.wait_for(|| pipeline.pull())?;
        let mut frames = Frames::new(self.wanted, resources);
        frames.decoder_copies = pipeline.decoder_copies();
        let (layout, color_by) = frames.describe(&first).ok_or_else(|| {
            self.names.error("its frames are not what was agreed", "ask for a format that the camera has")
        })?;
        notes.extend(pipeline.notes(&self.wanted));
        notes.push(format!("colours {:?} {:?} by {color_by}", layout.color.matrix, layout.color.range));
        notes.push(match first.running_time {
            Some(_) => "stamps are the source's running time".to_owned(),
            None => "no timestamps from the source: frames are stamped on arrival".to_owned(),
        });
        let running = Running { pipeline, frames, arrivals, seen: 0, offset: None, first: Some(first) };
        Ok((running, Opened { layout, notes }))
    }

    /// Queues what `picture` means: frames lost before it, and the frame.
    fn receive(&mut self, picture: Picture) {
        let Some(running) = &mut self.running else { return };
        let (number, arrived) = running.arrivals.taken();
        // Where the timestamps set the pace, a picture is there before its time and is held until then.
        let arrived = if running.pipeline.sink.is_sync() { clock::now() } else { arrived };
        // Told as missed before it was taken.
        let Some(untaken) = number.checked_sub(running.seen) else { return };
        running.seen = number + 1;
        let base = running.pipeline.pipeline.base_time().unwrap_or(gst::ClockTime::ZERO);
        let captured = stamp(base, picture.running_time, arrived);
        let offset = frame_number(&picture.buffer);
        let step = match (running.offset, offset) {
            (Some(last), Some(now)) => now.checked_sub(last).filter(|step| (1..=LARGEST_GAP).contains(step)),
            _ => None,
        };
        running.offset = offset;
        let driver = step.map_or(0, |step| (step - 1).saturating_sub(untaken));
        let outcome = running.frames.take(picture);
        for (count, reason) in [(driver, DropReason::DriverLost), (untaken, DropReason::SourceLate)] {
            if let Some(gap) = self.gap(count, captured, reason) {
                self.queue(Next::Lost(gap));
            }
        }
        let sequence = self.next;
        self.next += 1;
        self.last = captured;
        self.queue(match outcome {
            Ok(frame) => Next::Frame(Captured { sequence, captured, frame }),
            Err(reason) => Next::Lost(lost(sequence, captured, reason)),
        });
    }

    /// `count` frames lost before one that was captured at `before`.
    fn gap(&mut self, count: u64, before: Instant, reason: DropReason) -> Option<Lost> {
        let sequence = self.next;
        self.next += count;
        let back = self.period.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let captured = before.saturating_sub(back).max(self.last);
        (count > 0).then_some(Lost { sequence, count, captured, reason })
    }

    fn queue(&mut self, next: Next) {
        // Room for two gaps and a frame; it is empty whenever a picture is received.
        let queued = self.pending.push_back(next);
        debug_assert!(queued.is_ok());
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let Running { pipeline, arrivals, seen, .. } = running;
            drop(pipeline);
            self.abandoned += arrivals.count().saturating_sub(seen);
        }
    }
}

impl Source for Live {
    fn resume(&mut self, next: u64) {
        self.next = next;
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.stop();
        self.down = true;
        let (running, opened) = self.run(resources)?;
        self.running = Some(running);
        self.down = false;
        Ok(opened)
    }

    fn next(&mut self, until: Instant) -> Next {
        loop {
            if let Some(next) = self.pending.pop_front() {
                return next;
            }
            let now = clock::now();
            let Some(running) = &mut self.running else {
                self.down = true;
                return Next::Failed(SourceError::closed(&self.names.stream));
            };
            if let Some(picture) = running.first.take().or_else(|| running.pipeline.pull()) {
                self.receive(picture);
                continue;
            }
            let failure = running.pipeline.failure().or_else(|| {
                let remedy = "a camera's pipeline must not end: check the camera, or its description";
                running.pipeline.sink.is_eos().then(|| self.names.error("the stream ended", remedy))
            });
            if let Some(failure) = failure {
                self.down = true;
                self.stop();
                return Next::Failed(failure);
            }
            if now >= until {
                return Next::Nothing;
            }
            running.pipeline.wait(until);
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        let reason = if self.down { DropReason::SourceDown } else { DropReason::Shutdown };
        match self.pending.pop_front() {
            Some(Next::Lost(gap)) => return Some(gap),
            Some(Next::Frame(frame)) => return Some(lost(frame.sequence, frame.captured, reason)),
            _ => {}
        }
        let mut count = std::mem::take(&mut self.abandoned);
        if let Some(running) = &mut self.running {
            let arrived = running.arrivals.count();
            count += arrived.saturating_sub(running.seen);
            running.seen = arrived;
        }
        self.gap(count, now, reason)
    }

    fn close(&mut self) {
        self.stop();
    }
}

/// When a frame that arrived at `arrived` was captured.
fn stamp(base: gst::ClockTime, running: Option<gst::ClockTime>, arrived: Instant) -> Instant {
    match running {
        Some(running) => Instant::from_nanos(base.nseconds().saturating_add(running.nseconds())).min(arrived),
        None => arrived,
    }
}

/// The number that the source gave a frame.
fn frame_number(buffer: &gst::BufferRef) -> Option<u64> {
    (buffer.offset_end() == buffer.offset().checked_add(1)?).then(|| buffer.offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_base_and_running_time_and_never_in_the_future() {
        let time = gst::ClockTime::from_nseconds;
        let arrived = Instant::from_nanos(1_000);
        assert_eq!(stamp(time(600), Some(time(300)), arrived), Instant::from_nanos(900));
        assert_eq!(stamp(time(600), Some(time(500)), arrived), arrived);
        assert_eq!(stamp(time(600), None, arrived), arrived);
    }
}
