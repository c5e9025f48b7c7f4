//! A video file, played on the grid of its stream as if it were a camera.
//!
//! The decoder runs ahead by a few frames and then waits; the grid does not: each release gets the next decoded
//! frame, and one that gets none before the following release is lost as `SourceLate`. At its end the file
//! starts again: by a segment seek, which loses no decoder state and no time, or where the file can't do that
//! by seeking back to its start.

use super::errors::Names;
use super::frame::{Frames, Picture, Wanted};
use super::pipeline::{Input, Pipeline};
use crate::board::Stream;
use crate::capture::grid::{Grid, Release, Turn};
use crate::capture::{Captured, Next, Opened, Resources, Source, SourceError, lost};
use crate::job::{DropReason, Lost};
use crate::platform::{Waker, clock};
use crate::time::Instant;
use gst::prelude::*;
use gstreamer as gst;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Decoded frames that wait for their release.
const AHEAD: u32 = 3;

/// A replayed file.
#[derive(Debug)]
pub struct Replay {
    names: Names,
    path: PathBuf,
    repeat: bool,
    phase: Duration,
    period: Duration,
    wanted: Wanted,
    /// Number of the first release that is to be dealt with.
    first: u64,
    grid: Option<Grid>,
    playing: Option<Playing>,
    ended: bool,
    down: bool,
}

#[derive(Debug)]
struct Playing {
    pipeline: Pipeline,
    frames: Frames,
    round: Arc<Round>,
    /// The next frame, decoded and waiting.
    ready: Option<Picture>,
}

/// What the streaming thread sees of one pass through the file.
#[derive(Debug, Default)]
struct Round {
    frames: AtomicU64,
    over: AtomicBool,
}

impl Replay {
    /// The file at `path`, its first frame released `phase` after the start, once or again and again.
    #[must_use]
    pub fn new(stream: &Stream, path: &Path, repeat: bool, phase: Duration) -> Self {
        Self {
            names: Names { stream: stream.id.clone(), shown: path.display().to_string() },
            path: path.to_owned(),
            repeat,
            phase,
            period: stream.period,
            wanted: Wanted::by(stream),
            first: 0,
            grid: None,
            playing: None,
            ended: false,
            down: true,
        }
    }

    /// Errors that are better told without GStreamer.
    fn inspect(&self) -> Result<(), SourceError> {
        let remedy = "check the path in the board file (relative paths count from the board file's folder)";
        let data = std::fs::metadata(&self.path)
            .map_err(|error| self.names.error(&format!("can't be opened: {error}"), remedy))?;
        if !data.is_file() {
            return Err(self.names.error("is not a file", remedy));
        }
        if data.len() == 0 {
            return Err(self.names.error("the file is empty (0 bytes)", "put a video there"));
        }
        Ok(())
    }

    /// Starts to play, with `segments` as one that can be repeated without a pause.
    fn play(&self, resources: &Resources, segments: bool) -> Result<(Playing, Opened), SourceError> {
        self.inspect()?;
        let input = Input::File(self.path.clone());
        let pipeline = Pipeline::build(&input, &self.wanted, &self.names, resources)?;
        pipeline.sink.set_max_buffers(AHEAD);
        let round = Arc::new(Round::default());
        watch(&pipeline, &round);
        pipeline.set_state(gst::State::Paused)?;
        let mut notes = Vec::new();
        if self.repeat {
            // Seeking needs a stream that is known: its first frame has come and the state has settled.
            pipeline.wait_for(|| (round.frames.load(Ordering::Acquire) > 0).then_some(()))?;
            pipeline.settle()?;
            if segments && seek(&pipeline, gst::SeekFlags::FLUSH | gst::SeekFlags::SEGMENT).is_err() {
                // What refused it may have let go of its data before: only a new pipeline is sure to play.
                drop(pipeline);
                return self.play(resources, false);
            }
            if !segments {
                notes.push("its format has no segment seek: a short pause at each repetition".to_owned());
            }
        }
        pipeline.set_state(gst::State::Playing)?;
        let first = pipeline.wait_for(|| pipeline.pull())?;
        let mut frames = Frames::new(self.wanted, resources);
        frames.decoder_copies = pipeline.decoder_copies();
        let (layout, color_by) = frames.describe(&first).ok_or_else(|| {
            self.names.error("its frames are not what was agreed", "convert the video with another tool")
        })?;
        notes.extend(pipeline.notes(&self.wanted));
        notes.push(format!("colours {:?} {:?} by {color_by}", layout.color.matrix, layout.color.range));
        Ok((Playing { pipeline, frames, round, ready: Some(first) }, Opened { layout, notes }))
    }

    fn fail(&mut self, error: SourceError) -> Next {
        self.down = true;
        self.playing = None;
        Next::Failed(error)
    }
}

impl Playing {
    /// Has the next decoded frame ready, if there is one; starts the file again at its end.
    ///
    /// Says whether the file is at its end for good.
    fn prepare(&mut self, repeat: bool, names: &Names) -> Result<bool, SourceError> {
        if self.ready.is_none() {
            self.ready = self.pipeline.pull();
        }
        if let Some(failure) = self.pipeline.failure() {
            return Err(failure);
        }
        let at_end = self.pipeline.sink.is_eos();
        if !repeat {
            return Ok(at_end && self.ready.is_none());
        }
        // A flush empties the sink: not before all frames have been taken out of it.
        let over = self.round.over.swap(false, Ordering::AcqRel);
        if over || at_end {
            if self.round.frames.swap(0, Ordering::AcqRel) == 0 {
                return Err(names.error(
                    "it gave no frame between its start and its end",
                    "put a video there that plays; this one may have been damaged while it was played",
                ));
            }
            let how = if at_end { gst::SeekFlags::FLUSH } else { gst::SeekFlags::SEGMENT };
            seek(&self.pipeline, how).map_err(|_| {
                names.error(
                    "it can't be started again: its format has no seeking",
                    "convert it to MP4 or AVI, or set repeat = false",
                )
            })?;
        }
        Ok(false)
    }

    fn deliver(&mut self, release: Release, picture: Picture) -> Next {
        match self.frames.take(picture) {
            Ok(frame) => Next::Frame(Captured { sequence: release.sequence, captured: release.at, frame }),
            Err(reason) => Next::Lost(lost(release.sequence, release.at, reason)),
        }
    }
}

impl Source for Replay {
    fn resume(&mut self, next: u64) {
        self.first = next;
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        let (start, period, first) = (resources.start + self.phase, self.period, self.first);
        self.grid.get_or_insert_with(|| Grid::new(start, period, Duration::ZERO, 0).from(first));
        self.playing = None;
        self.down = true;
        let (playing, opened) = self.play(resources, true)?;
        self.playing = Some(playing);
        self.down = false;
        Ok(opened)
    }

    fn next(&mut self, until: Instant) -> Next {
        loop {
            let now = clock::now();
            let (Some(grid), Some(playing)) = (&mut self.grid, &mut self.playing) else {
                return if self.ended {
                    Next::Ended
                } else {
                    self.fail(SourceError::closed(&self.names.stream))
                };
            };
            match playing.prepare(self.repeat, &self.names) {
                Ok(false) => {}
                Ok(true) => {
                    self.ended = true;
                    return Next::Ended;
                }
                Err(error) => return self.fail(error),
            }
            let wake = match grid.turn(now) {
                Turn::Late(late) => return Next::Lost(late),
                Turn::Due(release) => {
                    if let Some(picture) = playing.ready.take() {
                        grid.settle();
                        return playing.deliver(release, picture);
                    }
                    grid.release(release.sequence + 1)
                }
                Turn::Wait(at) => at,
            };
            if now >= until {
                return Next::Nothing;
            }
            playing.pipeline.wait(wake.min(until));
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        let reason = if self.down { DropReason::SourceDown } else { DropReason::Shutdown };
        if self.ended { None } else { self.grid.as_mut()?.missed(now, reason) }
    }

    fn close(&mut self) {
        self.playing = None;
    }
}

/// To the file's start.
fn seek(pipeline: &Pipeline, flags: gst::SeekFlags) -> Result<(), gst::glib::BoolError> {
    let (start, stop) = (gst::ClockTime::ZERO, gst::ClockTime::NONE);
    pipeline.pipeline.seek(1.0, flags, gst::SeekType::Set, start, gst::SeekType::None, stop)
}

/// Counts the frames of a round and sees its end where they all have passed: at the sink. (The demuxer is done
/// long before; starting again then would lap the decoder.)
fn watch(pipeline: &Pipeline, round: &Arc<Round>) {
    let Some(pad) = pipeline.sink.static_pad("sink") else { return };
    let (round, waker) = (round.clone(), pipeline.waker());
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| observe(info, &round, &waker));
}

fn observe(info: &gst::PadProbeInfo, round: &Round, waker: &Waker) -> gst::PadProbeReturn {
    match &info.data {
        Some(gst::PadProbeData::Buffer(_)) => {
            round.frames.fetch_add(1, Ordering::AcqRel);
            waker.wake();
        }
        Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::SegmentDone => {
            round.over.store(true, Ordering::Release);
            waker.wake();
        }
        _ => {}
    }
    gst::PadProbeReturn::Ok
}
