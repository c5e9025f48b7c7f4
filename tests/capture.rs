//! Cameras on real parts: GStreamer's test pattern, real video files, broken ones, and every fault.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ocelli::board::{Faults, SourceSpec, Stream};
use ocelli::capture::{self, Captured, Next, Opened, Resources, Source, SourceError};
use ocelli::config::Address;
use ocelli::image::PixelFormat;
use ocelli::job::{DropReason, Lost};
use ocelli::platform::clock;
use ocelli::pool::{Pool, ShareSpec};
use ocelli::stats::{Copies, CopyStage};
use ocelli::stream::{Criticality, ModelId, StreamId};
use ocelli::time::Instant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes, on a machine that does ten other things.
const LONG: Duration = Duration::from_secs(60);

/// A stream with its share of a pool, opened.
struct Camera {
    source: Box<dyn Source>,
    copies: Arc<Copies>,
    resources: Resources,
    period: Duration,
}

/// What was said about a run of releases.
#[derive(Debug, Default)]
struct Told {
    frames: u64,
    lost: Vec<Lost>,
    /// Number that must come next.
    next: u64,
}

impl Told {
    /// Numbers follow each other: nothing is told twice or left out.
    fn tell(&mut self, sequence: u64, count: u64) {
        assert_eq!(sequence, self.next, "after {self:?}");
        self.next += count;
    }

    fn lost(&self, reason: DropReason) -> u64 {
        self.lost.iter().filter(|lost| lost.reason == reason).map(|lost| lost.count).sum()
    }
}

fn stream(source: SourceSpec, format: PixelFormat, width: u32, height: u32) -> Stream {
    Stream {
        id: "front".into(),
        source,
        faults: None,
        period: Duration::from_millis(2),
        width,
        height,
        format,
        color: None,
        latency_bound: Duration::from_millis(100),
        criticality: Criticality::Normal,
        model: ModelId(0),
        stale_results: false,
        watch: Default::default(),
        trigger: None,
    }
}

fn synthetic() -> Stream {
    let source = SourceSpec::Synthetic { phase: Duration::ZERO, jitter: Duration::ZERO, seed: 1 };
    stream(source, PixelFormat::Nv12, 64, 48)
}

fn pipeline(description: &str) -> Stream {
    let source = SourceSpec::Pipeline { description: Address::new(description) };
    stream(source, PixelFormat::I420, 320, 240)
}

fn file(path: &Path, width: u32, height: u32) -> Stream {
    let source = SourceSpec::File { path: path.into(), repeat: true, phase: Duration::ZERO };
    stream(source, PixelFormat::I420, width, height)
}

fn asset(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/video").join(name);
    assert!(path.exists(), "{} is missing: run scripts/setup", path.display());
    path
}

/// Resources with the slots that the board check would give, and `extra` ones.
fn resources(stream: &Stream, extra: usize) -> Resources {
    let slots = capture::slots_needed(stream) + extra;
    with_slots(stream, slots)
}

fn with_slots(stream: &Stream, slots: usize) -> Resources {
    let slot_bytes = capture::slot_bytes(stream);
    let pool = Pool::new(&[ShareSpec { slots, slot_bytes }], false).unwrap();
    Resources { share: pool.share(StreamId(0)), copies: Arc::new(Copies::default()), start: clock::now() }
}

fn try_open(stream: &Stream) -> Result<(Camera, Opened), SourceError> {
    open_in(stream, resources(stream, 3))
}

fn open_in(stream: &Stream, resources: Resources) -> Result<(Camera, Opened), SourceError> {
    let mut source = capture::open(stream);
    let opened = source.open(&resources)?;
    let copies = resources.copies.clone();
    Ok((Camera { source, copies, resources, period: stream.period }, opened))
}

fn open(stream: &Stream) -> Camera {
    try_open(stream).unwrap().0
}

fn refused(stream: &Stream) -> String {
    match try_open(stream) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

impl Camera {
    fn next(&mut self) -> Next {
        self.source.next(clock::now() + LONG)
    }

    fn frame(&mut self) -> Captured {
        loop {
            match self.next() {
                Next::Frame(captured) => return captured,
                Next::Lost(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads until `frames` have come; each is dropped before the next is asked for.
    fn read(&mut self, frames: u64) -> Told {
        let mut told = Told::default();
        while told.frames < frames {
            match self.next() {
                Next::Frame(captured) => {
                    told.tell(captured.sequence, 1);
                    told.frames += 1;
                }
                Next::Lost(lost) => {
                    told.tell(lost.sequence, lost.count);
                    told.lost.push(lost);
                }
                other => panic!("{other:?} after {told:?}"),
            }
        }
        told
    }

    /// Reads until it fails.
    fn failure(&mut self) -> String {
        loop {
            match self.next() {
                Next::Failed(error) => return error.to_string(),
                Next::Frame(_) | Next::Lost(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn copied(&self, stage: CopyStage) -> u64 {
        self.copies.bytes(stage)
    }
}

/// Passes the time until `until` without asking for frames, as a thread does that was stopped.
fn stopped(until: Instant) {
    while clock::now() < until {
        clock::sleep_until(until);
    }
}

#[test]
fn synthetic_frames_move_in_every_format() {
    for format in PixelFormat::ALL {
        let mut stream = synthetic();
        stream.format = format;
        let mut camera = open(&stream);
        // Pictures come again after eight; a busy machine may skip just as many.
        let first = camera.frame();
        let mut later = std::iter::repeat_with(|| camera.frame());
        let second = later.find(|later| !(later.sequence - first.sequence).is_multiple_of(8)).unwrap();
        assert!(first.frame.bytes() != second.frame.bytes(), "{} does not move", format.as_str());
        let bytes = capture::slot_bytes(&stream);
        let pixels = &first.frame.bytes()[..bytes];
        // The rectangle, and the gradient; of ten bits, the low byte comes first.
        let bright: &[u8] =
            if bytes == 64 * 48 * 2 && format.mosaic().is_some() { &[0xac, 0x03] } else { &[235] };
        assert!(pixels.windows(bright.len()).any(|at| at == bright), "{}", format.as_str());
        assert!(pixels.iter().any(|value| *value < 100), "{}", format.as_str());
        assert_eq!(first.frame.layout().extent(), Some(bytes));
        assert_eq!(camera.copied(CopyStage::SyntheticFill) % bytes as u64, 0);
        assert_eq!(second.captured, camera.resources.start + camera.period * second.sequence as u32);
    }
}

#[test]
fn a_stopped_thread_finds_its_skipped_releases_told_exactly() {
    let mut camera = open(&synthetic());
    let before = camera.frame();
    let now_due = before.sequence + 500;
    let start = camera.resources.start;
    stopped(start + camera.period * now_due as u32);
    let Next::Lost(lost) = camera.next() else { panic!() };
    assert_eq!((lost.sequence, lost.reason), (before.sequence + 1, DropReason::SourceLate));
    assert!(lost.count >= 499, "{lost:?}");
    assert_eq!(lost.captured, start + camera.period * lost.sequence as u32);
    let mut next = lost.sequence + lost.count;
    let after = loop {
        match camera.next() {
            Next::Frame(captured) => break captured,
            Next::Lost(lost) => {
                assert_eq!((lost.sequence, lost.reason), (next, DropReason::SourceLate));
                next += lost.count;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((after.sequence, after.captured), (next, start + camera.period * next as u32));
}

#[test]
fn without_a_free_slot_the_release_is_lost_and_the_source_goes_on() {
    let stream = synthetic();
    let (mut camera, _) = open_in(&stream, with_slots(&stream, 1)).unwrap();
    let held = camera.frame();
    loop {
        match camera.next() {
            Next::Lost(lost) if lost.reason == DropReason::NoSlot => break,
            Next::Lost(lost) => assert_eq!(lost.reason, DropReason::SourceLate),
            other => panic!("{other:?}"),
        }
    }
    drop(held);
    camera.frame();
}

#[test]
fn releases_while_it_stops_are_told_as_missed() {
    let mut camera = open(&synthetic());
    let told = camera.read(3);
    let end = camera.resources.start + camera.period * (told.next as u32 + 9);
    let missed = camera.source.missed(end).unwrap();
    assert_eq!((missed.sequence, missed.count, missed.reason), (told.next, 10, DropReason::Shutdown));
    assert_eq!(camera.source.missed(end), None);
}

#[test]
fn a_frame_that_does_not_fit_its_slots_is_refused_at_open() {
    let mut stream = synthetic();
    let resources = resources(&stream, 3);
    stream.width = 640;
    let error = capture::open(&stream).open(&resources).unwrap_err().to_string();
    assert!(error.contains("front") && error.contains("does not fit"), "{error}");
}

#[test]
fn a_stall_on_the_grid_becomes_source_late() {
    let mut stream = synthetic();
    stream.faults = Some(Faults { stall_at: Some(5), stall: stream.period * 100, ..Faults::default() });
    let mut camera = open(&stream);
    let told = camera.read(20);
    assert!(told.lost(DropReason::SourceLate) >= 99, "{told:?}");
}

#[test]
fn an_injected_failure_ends_with_opening_again() {
    let mut stream = synthetic();
    stream.faults = Some(Faults { fail_at: Some(3), ..Faults::default() });
    let mut camera = open(&stream);
    assert!(camera.failure().contains("as its faults say"));
    camera.source.close();
    let end = clock::now() + camera.period * 10;
    stopped(end);
    let missed = camera.source.missed(end).unwrap();
    assert_eq!(missed.reason, DropReason::SourceDown);
    assert!(missed.count >= 10, "{missed:?}");
    camera.source.open(&camera.resources).unwrap();
    assert!(camera.frame().sequence >= missed.sequence + missed.count);
}

#[test]
fn a_test_pattern_is_written_straight_into_our_slots() {
    let mut camera = open(&pipeline("videotestsrc is-live=true ! video/x-raw,framerate=200/1"));
    camera.read(60);
    assert_eq!(camera.copied(CopyStage::Capture), 0);
    assert_eq!(camera.copied(CopyStage::DecoderEstimated), 0);
}

#[test]
fn converters_write_into_our_slots_and_are_noted() {
    let description =
        "videotestsrc is-live=true ! video/x-raw,format=YUY2,width=160,height=120,framerate=200/1";
    let (mut camera, opened) = try_open(&pipeline(description)).unwrap();
    let notes = opened.notes.join("\n");
    assert!(notes.contains("160x120 YUY2") && notes.contains("320x240 I420"), "{notes}");
    camera.read(30);
    assert_eq!(camera.copied(CopyStage::Capture), 0);
}

#[test]
fn behind_a_tee_every_frame_is_copied_and_counted() {
    let description = "videotestsrc is-live=true ! video/x-raw,framerate=200/1 ! tee name=t \
                       t. ! queue ! fakesink t. ! queue";
    let mut camera = open(&pipeline(description));
    let told = camera.read(30);
    assert_eq!(camera.copied(CopyStage::Capture), told.frames * 320 * 240 * 3 / 2);
}

#[test]
fn frames_that_outlive_the_pipeline_keep_their_pixels_and_then_free_their_slots() {
    let stream = pipeline("videotestsrc is-live=true pattern=white ! video/x-raw,framerate=200/1");
    let mut camera = open(&stream);
    let frame = camera.frame().frame;
    camera.source.close();
    assert!(frame.bytes()[..100].iter().all(|luma| *luma == 235), "{:?}", &frame.bytes()[..100]);
    let share = camera.resources.share.clone();
    assert!(share.free_slots() < share.slots());
    drop(frame);
    // A streaming thread may drop its last references some milliseconds after the pipeline has stopped.
    let end = clock::now() + LONG;
    while share.free_slots() < share.slots() {
        assert!(clock::now() < end, "{} of {} slots are free", share.free_slots(), share.slots());
        std::thread::yield_now();
    }
}

/// Holding frames back starves nobody but this stream, and does not break its pipeline.
#[test]
fn a_share_that_runs_out_costs_copies_or_frames_but_never_the_pipeline() {
    let stream = pipeline("videotestsrc is-live=true ! video/x-raw,framerate=200/1");
    let (mut camera, _) = open_in(&stream, with_slots(&stream, 4)).unwrap();
    let mut held = Vec::new();
    let mut lost = 0;
    while lost < 10 {
        match camera.next() {
            Next::Frame(captured) => held.push(captured),
            Next::Lost(gap) if gap.reason == DropReason::NoSlot => lost += gap.count,
            Next::Lost(gap) => assert_eq!(gap.reason, DropReason::SourceLate),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(held.len(), 4);
    assert!(camera.copied(CopyStage::Capture) > 0, "the reserve takes copies");
    held.clear();
    for _ in 0..20 {
        camera.frame();
    }
}

#[test]
fn live_stamps_are_on_our_clock_and_arrivals_close_behind() {
    let mut camera = open(&pipeline("videotestsrc is-live=true ! video/x-raw,framerate=20/1"));
    let mut last = Instant::default();
    let mut closest = Duration::MAX;
    for _ in 0..20 {
        let captured = camera.frame();
        assert!(captured.captured > last && captured.captured <= clock::now());
        closest = closest.min(clock::now().since(captured.captured));
        last = captured.captured;
    }
    // The test source declares a latency of 50 ms, yet sends each frame at its stamp: the stamp is the capture.
    assert!(closest < Duration::from_millis(40), "{closest:?}");
}

#[test]
fn what_a_stopped_thread_did_not_take_from_a_live_source_is_told() {
    let mut camera = open(&pipeline("videotestsrc is-live=true ! video/x-raw,framerate=200/1"));
    let before = camera.frame();
    stopped(clock::now() + Duration::from_millis(500));
    let mut told = Told { next: before.sequence + 1, ..Told::default() };
    while told.lost(DropReason::SourceLate) < 50 {
        match camera.next() {
            Next::Frame(captured) => told.tell(captured.sequence, 1),
            Next::Lost(lost) => {
                told.tell(lost.sequence, lost.count);
                told.lost.push(lost);
            }
            other => panic!("{other:?}"),
        }
    }
    // A stopping source accounts for what nobody took.
    stopped(clock::now() + Duration::from_millis(100));
    camera.source.close();
    let mut rest = 0;
    while let Some(lost) = camera.source.missed(clock::now()) {
        told.tell(lost.sequence, lost.count);
        assert_eq!(lost.reason, DropReason::Shutdown);
        rest += lost.count;
    }
    assert!(rest >= 5, "{rest}");
}

#[test]
fn gaps_in_the_drivers_numbers_are_frames_that_it_lost() {
    // `identity` drops on the way what the source has numbered.
    let description =
        "videotestsrc is-live=true ! video/x-raw,framerate=200/1 ! identity drop-probability=0.5";
    let told = open(&pipeline(description)).read(60);
    let lost = told.lost(DropReason::DriverLost);
    assert!((20..200).contains(&lost), "{lost} lost");
}

#[test]
fn a_pipeline_that_is_not_live_is_paced_by_its_timestamps() {
    let (mut camera, opened) = try_open(&pipeline("videotestsrc ! video/x-raw,framerate=100/1")).unwrap();
    assert!(opened.notes.iter().any(|note| note.contains("not live")), "{:?}", opened.notes);
    let first = camera.frame().captured;
    for _ in 0..19 {
        camera.frame();
    }
    assert!(camera.frame().captured.since(first) >= Duration::from_millis(190));
}

#[test]
fn a_pipeline_that_ends_or_errors_says_so_and_can_be_opened_again() {
    let mut camera = open(&pipeline("videotestsrc num-buffers=5 is-live=true"));
    let error = camera.failure();
    assert!(error.contains("front") && error.contains("ended"), "{error}");
    camera.source.open(&camera.resources).unwrap();
    camera.frame();

    let mut camera = open(&pipeline("videotestsrc is-live=true ! identity error-after=4"));
    let error = camera.failure();
    assert!(error.contains("identity") && error.contains("front"), "{error}");
    camera.source.open(&camera.resources).unwrap();
    assert!(camera.frame().sequence >= 3, "numbers go on");
}

#[test]
fn a_wrong_description_is_refused_with_its_element() {
    let error = refused(&pipeline("videotestsrc ! nosuchelement"));
    assert!(error.contains("nosuchelement") && error.contains("package"), "{error}");
    let error = refused(&pipeline("videotestsrc nosuchproperty=1"));
    assert!(error.contains("nosuchproperty"), "{error}");
    let error = refused(&pipeline("audiotestsrc"));
    assert!(error.contains("front"), "{error}");
}

#[test]
fn a_camera_that_is_not_there_is_named_without_its_password() {
    // Port 9 (discard) of this machine refuses connections.
    for uri in ["rtsp://root:hunter2@127.0.0.1:9/stream?token=s3cret", "http://root:hunter2@127.0.0.1:9/x"] {
        let source = SourceSpec::Uri { uri: Address::new(uri), latency: Duration::from_millis(50) };
        let error = refused(&stream(source, PixelFormat::I420, 320, 240));
        assert!(error.contains("127.0.0.1:9"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn avi_plays_from_our_slots_with_the_decoders_copy_estimated() {
    let (mut camera, opened) = try_open(&file(&asset("vtest.avi"), 768, 576)).unwrap();
    let mut frames = 0;
    for _ in 0..60 {
        camera.frame();
        frames += 1;
    }
    assert_eq!(camera.copied(CopyStage::Capture), 0, "{:?}", opened.notes);
    assert_eq!(camera.copied(CopyStage::DecoderEstimated), frames * 768 * 576 * 3 / 2, "{:?}", opened.notes);
}

#[test]
fn h264_plays_from_our_slots() {
    let (mut camera, opened) = try_open(&file(&asset("bikes.mp4"), 640, 272)).unwrap();
    for _ in 0..60 {
        camera.frame();
    }
    assert_eq!(camera.copied(CopyStage::Capture), 0, "{:?}", opened.notes);
}

#[test]
fn a_file_of_another_size_is_converted_and_noted() {
    let (mut camera, opened) = try_open(&file(&asset("vtest.avi"), 640, 360)).unwrap();
    assert!(opened.notes.iter().any(|note| note.contains("768x576")), "{:?}", opened.notes);
    assert_eq!((opened.layout.width, opened.layout.height), (640, 360));
    for _ in 0..10 {
        camera.frame();
    }
    assert_eq!(camera.copied(CopyStage::Capture), 0);
}

/// A video of `frames` frames in `dir`, written by GStreamer from a test pattern.
fn clip(dir: &Path, frames: u32, encode: &str) -> PathBuf {
    let path = dir.join("clip.video");
    let description = format!(
        "videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,format=I420,width=320,height=240 \
         ! {encode} ! filesink location={}",
        path.display()
    );
    run(&description);
    path
}

/// Runs a pipeline that has a sink to its end.
fn run(description: &str) {
    use gstreamer as gst;
    use gstreamer::prelude::*;
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message =
        pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_short_file_starts_again_many_times() {
    let dir = tempfile::tempdir().unwrap();
    for (frames, encode) in [
        (7, "avenc_mjpeg ! avimux"),
        (1, "avenc_mjpeg ! avimux"),
        (5, "openh264enc ! h264parse ! mp4mux"),
        (5, "vp8enc deadline=1 ! matroskamux"),
        // No segment seek: started again by a plain one.
        (6, "openh264enc ! h264parse ! mpegtsmux"),
        (6, "theoraenc ! oggmux"),
    ] {
        let path = clip(dir.path(), frames, encode);
        let (mut camera, opened) =
            try_open(&file(&path, 320, 240)).unwrap_or_else(|e| panic!("{encode}: {e}"));
        let told = camera.read(u64::from(frames) * 20 + 3);
        assert!(told.lost.iter().all(|lost| lost.reason == DropReason::SourceLate), "{encode}: {told:?}");
        assert_eq!(camera.copied(CopyStage::Capture), 0, "{encode}: {:?}", opened.notes);
    }
}

#[test]
fn a_file_that_does_not_repeat_ends_after_its_last_frame() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), 12, "avenc_mjpeg ! avimux");
    let mut stream = file(&path, 320, 240);
    stream.source = SourceSpec::File { path, repeat: false, phase: Duration::from_millis(30) };
    let mut camera = open(&stream);
    let mut told = Told::default();
    loop {
        match camera.next() {
            Next::Frame(captured) => {
                told.tell(captured.sequence, 1);
                told.frames += 1;
                let due = camera.resources.start
                    + Duration::from_millis(30)
                    + camera.period * captured.sequence as u32;
                assert_eq!(captured.captured, due);
            }
            Next::Lost(lost) => told.tell(lost.sequence, lost.count),
            Next::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.frames, 12);
    assert!(matches!(camera.next(), Next::Ended));
    assert_eq!(camera.source.missed(clock::now() + LONG), None, "no releases after the end");
}

#[test]
fn a_stopped_thread_loses_releases_of_a_file_but_no_pictures() {
    let mut camera = open(&file(&asset("vtest.avi"), 768, 576));
    let before = camera.frame();
    stopped(camera.resources.start + camera.period * (before.sequence as u32 + 200));
    let mut told = Told { next: before.sequence + 1, ..Told::default() };
    while told.frames == 0 {
        match camera.next() {
            Next::Frame(captured) => {
                told.tell(captured.sequence, 1);
                told.frames = 1;
            }
            Next::Lost(lost) => {
                told.tell(lost.sequence, lost.count);
                told.lost.push(lost);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(told.lost(DropReason::SourceLate) >= 199, "{told:?}");
}

#[test]
fn broken_files_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.avi");
    let camera = file(&path, 768, 576);
    let video = std::fs::read(asset("vtest.avi")).unwrap();
    let mp4 = std::fs::read(asset("bikes.mp4")).unwrap();

    run(&format!("audiotestsrc num-buffers=9 ! avimux ! filesink location={}", path.display()));
    let sound = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();

    assert!(refused(&camera).contains("No such file"), "{}", refused(&camera));
    for (bytes, words) in [
        (&b""[..], "empty"),
        (&[0x5au8; 100_000][..], "not a video"),
        (b"the quick brown fox\n".repeat(500).as_slice(), "not a video"),
        // Headers only.
        (&video[..4_000], "video"),
        (&mp4[..2_000], "video"),
        (&sound, "there is no video in it"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&camera);
        assert!(error.contains(words) && error.contains("broken.avi"), "{} bytes: {error}", bytes.len());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refused(&camera).contains("not a file"));
}

#[test]
fn a_truncated_file_plays_as_far_as_it_goes_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truncated.avi");
    let video = std::fs::read(asset("vtest.avi")).unwrap();
    std::fs::write(&path, &video[..video.len() / 40]).unwrap();
    let mut camera = open(&file(&path, 768, 576));
    camera.read(100);
}

#[test]
fn a_file_that_vanishes_plays_on_and_fails_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.avi");
    std::fs::copy(asset("vtest.avi"), &path).unwrap();
    let mut camera = open(&file(&path, 768, 576));
    camera.frame();
    std::fs::remove_file(&path).unwrap();
    camera.frame();
    camera.source.close();
    let error = camera.source.open(&camera.resources).unwrap_err().to_string();
    assert!(error.contains("clip.avi") && error.contains("No such file"), "{error}");
    stopped(clock::now() + camera.period);
    assert_eq!(camera.source.missed(clock::now()).unwrap().reason, DropReason::SourceDown);
    // Back again, it plays on, its releases numbered on.
    std::fs::copy(asset("vtest.avi"), &path).unwrap();
    camera.source.open(&camera.resources).unwrap();
    camera.frame();
}

/// A file that is emptied while it plays fails; it does not spin.
#[test]
fn a_file_that_is_emptied_while_it_plays_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), 30, "avenc_mjpeg ! avimux");
    let mut camera = open(&file(&path, 320, 240));
    camera.frame();
    std::fs::write(&path, b"").unwrap();
    let error = camera.failure();
    assert!(error.contains("clip.video"), "{error}");
}
