//! The `v4l2` source on a real driver: pixels, memory, controls, and what opening says when it can't.
//!
//! A program rather than tests for the usual runner: it needs the kernel's virtual camera (vivid), one with a loop, and
//! takes them over. In a virtual machine, `v4l2 --run` does it; elsewhere it says that it does nothing.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; its verdicts are printed"
)]

mod common;
#[path = "common/malloc.rs"]
mod malloc;

use ocelli::board::{Encoding, SourceSpec, Stream, V4l2, V4l2Memory};
use ocelli::capture::{self, Captured, Next, Opened, Resources, Source, SourceError};
use ocelli::image::PixelFormat;
use ocelli::platform::clock;
use ocelli::pool::{Pool, Reader, ShareSpec};
use ocelli::stats::{Copies, CopyStage};
use ocelli::stream::StreamId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SLOTS: usize = 12;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--run") => run(arguments.get(1).map_or("", String::as_str)),
        Some("--list") => ExitCode::SUCCESS,
        _ => {
            println!(
                "SKIPPED {} tests of the v4l2 source: they need a machine of their own (--run)",
                TESTS.len()
            );
            ExitCode::SUCCESS
        }
    }
}

const TESTS: [(&str, fn()); 10] = [
    ("a known image arrives bit for bit in every way", known_image),
    ("planes of memory are one image", planes_of_memory),
    ("raw formats arrive as the driver drew them", formats),
    ("frames cost no allocation", no_allocation),
    ("500 openings leave nothing behind", reopened),
    ("controls are set, read back, and refused with a reason", controls),
    ("what the camera does not offer is refused with what it does", refusals),
    ("memory that the accelerator can't read is refused, or copied by the camera's thread", unread),
    ("a camera that is in use is said to be", in_use),
    ("frames outlive the camera", outlive),
];

fn run(only: &str) -> ExitCode {
    let mut failed = false;
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(only)) {
        let fine = std::panic::catch_unwind(test).is_ok();
        println!("{} {name}", if fine { "ok    " } else { "FAILED" });
        failed |= !fine;
    }
    ExitCode::from(u8::from(failed))
}

/// The node of a vivid device, by the name that the driver gives it.
fn node(name: &str) -> PathBuf {
    let named = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim() == name)
    };
    let mut nodes = std::fs::read_dir("/sys/class/video4linux").unwrap().flatten();
    let found = nodes.find(named).unwrap_or_else(|| panic!("there is no {name}; load vivid as the rig does"));
    Path::new("/dev").join(found.file_name())
}

/// A webcam, one with several planes of memory, and one that shows what is put into its output.
fn webcam() -> PathBuf {
    node("vivid-000-vid-cap")
}

fn planar() -> PathBuf {
    node("vivid-001-vid-cap")
}

fn set(device: &Path, controls: &str) {
    let status = Command::new("v4l2-ctl").arg("-d").arg(device).args(["-c", controls]).status().unwrap();
    assert!(status.success(), "{controls}");
}

/// A camera at 640x360, 30 frames a second.
fn stream(device: &Path, change: impl FnOnce(&mut Stream, &mut V4l2)) -> Stream {
    let mut stream = common::stream("cam", Duration::from_nanos(33_333_333), common::ms(500));
    (stream.width, stream.height, stream.format) = (640, 360, PixelFormat::Nv12);
    let mut camera = V4l2 {
        device: device.to_owned(),
        memory: V4l2Memory::Auto,
        encoding: Encoding::Raw,
        fourcc: None,
        controls: BTreeMap::new(),
    };
    change(&mut stream, &mut camera);
    stream.source = SourceSpec::V4l2(camera);
    stream
}

fn with(memory: V4l2Memory) -> impl FnOnce(&mut Stream, &mut V4l2) {
    move |_, camera| camera.memory = memory
}

struct Camera {
    source: Box<dyn Source>,
    resources: Resources,
    opened: Opened,
}

fn resources(stream: &Stream) -> Resources {
    read_by(None, stream)
}

fn read_by(reader: Option<Arc<dyn Reader>>, stream: &Stream) -> Resources {
    let slot_bytes = capture::slot_bytes(stream);
    let pool = Pool::read_by(reader, &[ShareSpec { slots: SLOTS, slot_bytes }], false).unwrap();
    Resources { share: pool.share(StreamId(0)), copies: Arc::new(Copies::default()), start: clock::now() }
}

fn open(stream: &Stream) -> Result<Camera, SourceError> {
    open_with(resources(stream), stream)
}

fn open_with(resources: Resources, stream: &Stream) -> Result<Camera, SourceError> {
    let mut source = capture::open(stream);
    let opened = source.open(&resources)?;
    Ok(Camera { source, resources, opened })
}

/// Why it can't be opened.
fn refused(stream: &Stream) -> String {
    match open(stream) {
        Ok(camera) => panic!("opened: {:?}", camera.opened.notes),
        Err(error) => error.to_string(),
    }
}

impl Camera {
    fn frame(&mut self) -> Captured {
        let patience = clock::now() + Duration::from_secs(10);
        loop {
            match self.source.next(patience) {
                Next::Frame(captured) => return captured,
                Next::Lost(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn noted(&self, what: &str) -> bool {
        self.opened.notes.iter().any(|note| note.contains(what))
    }

    fn copied(&self) -> u64 {
        self.resources.copies.bytes(CopyStage::Capture)
    }
}

/// The image's bytes, row by row, whatever lies between them.
fn pixels(captured: &Captured) -> Vec<u8> {
    let (layout, bytes) = (captured.frame.layout(), captured.frame.bytes());
    let mut pixels = Vec::new();
    for (number, plane) in layout.planes.iter().enumerate().take(layout.format.planes()) {
        let (row, rows) = layout.format.plane_extent(number, layout.width, layout.height);
        (0..rows).for_each(|y| pixels.extend_from_slice(&bytes[plane.offset + y * plane.stride..][..row]));
    }
    pixels
}

/// The ways in which frames may come to lie in slots, what is said of each, and whether that copies.
const WAYS: [(V4l2Memory, &str, bool); 4] = [
    (V4l2Memory::Userptr, "(USERPTR)", false),
    (V4l2Memory::Mmap, "(MMAP)", false),
    (V4l2Memory::Dmabuf, "(DMABUF)", false),
    (V4l2Memory::Copy, "are copied", true),
];

/// An image of noise that the driver's output shows its capture side, until dropped.
struct Shown {
    player: std::process::Child,
    image: Vec<u8>,
}

impl Shown {
    fn on(width: usize, height: usize) -> Self {
        let (input, output) = (node("vivid-002-vid-cap"), node("vivid-002-vid-out"));
        let mut state = 1u32;
        let noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Vivid clips nothing, but 0 and 255 are no pixels on a wire.
            (state >> 24).clamp(1, 254) as u8
        };
        let image: Vec<u8> = std::iter::repeat_with(noise).take(width * height * 3 / 2).collect();
        let file = std::env::temp_dir().join("image.nv12");
        std::fs::write(&file, &image).unwrap();
        set(&input, "loop_video=1,osd_text_mode=2");
        let format = format!("width={width},height={height},pixelformat=NV12");
        let player = Command::new("v4l2-ctl")
            .arg("-d")
            .arg(&output)
            .args(["-x", &format, "--stream-out-mmap=4", "--stream-loop"])
            .arg(format!("--stream-from={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { player, image }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.player.kill();
        let _ = self.player.wait();
    }
}

fn known_image() {
    let shown = Shown::on(1280, 720);
    for (memory, said, copies) in WAYS {
        let stream = stream(&node("vivid-002-vid-cap"), |stream, camera| {
            (stream.width, stream.height, stream.period) = (1280, 720, Duration::from_nanos(16_666_667));
            camera.memory = memory;
        });
        let mut camera = open(&stream).unwrap();
        assert!(camera.noted(said), "{:?}", camera.opened.notes);
        // The player may have to start first; then all frames are the image.
        let tries = (0..100).take_while(|_| pixels(&camera.frame()) != shown.image).count();
        assert!(tries < 100, "{memory}: the image does not arrive");
        for _ in 0..5 {
            let frame = camera.frame();
            assert!(pixels(&frame) == shown.image, "{memory}: frame {} is another", frame.sequence);
        }
        assert_eq!(camera.copied() > 0, copies, "{memory}");
    }
}

/// A picture that stands still and has no clock in it.
fn still(device: &Path) {
    set(device, "test_pattern=0,osd_text_mode=2,horizontal_movement=3,vertical_movement=3");
}

fn planes_of_memory() {
    still(&webcam());
    let reference = pixels(&open(&stream(&webcam(), with(V4l2Memory::Userptr))).unwrap().frame());
    still(&planar());
    for fourcc in ["NV12", "NM12"] {
        for (memory, said, copies) in WAYS {
            let stream = stream(&planar(), |_, camera| {
                (camera.memory, camera.fourcc) = (memory, Some(fourcc.to_owned()));
            });
            let mut camera = open(&stream).unwrap();
            assert!(camera.noted(fourcc) && camera.noted(said), "{:?}", camera.opened.notes);
            let frames: Vec<Captured> = (0..3).map(|_| camera.frame()).collect();
            assert!(frames.iter().all(|frame| pixels(frame) == reference), "{fourcc} {memory}");
            assert_eq!(camera.copied() > 0, copies, "{fourcc} {memory}");
        }
    }
}

/// Luma of a bar of the test picture is the same in every format that has luma.
fn formats() {
    still(&webcam());
    let first = |format| {
        let mut camera = open(&stream(&webcam(), |stream, _| stream.format = format)).unwrap();
        assert!(camera.noted("nothing is copied"), "{:?}", camera.opened.notes);
        pixels(&camera.frame())
    };
    let nv12 = first(PixelFormat::Nv12);
    let size = 640 * 360;
    assert_eq!(first(PixelFormat::I420)[..size], nv12[..size]);
    let yuy2 = first(PixelFormat::Yuy2);
    let uyvy = first(PixelFormat::Uyvy);
    for pixel in (0..size).step_by(997) {
        assert_eq!((yuy2[2 * pixel], uyvy[2 * pixel + 1]), (nv12[pixel], nv12[pixel]), "pixel {pixel}");
    }
    let (rgb, bgr) = (first(PixelFormat::Rgb), first(PixelFormat::Bgr));
    assert!((0..size).all(|pixel| (0..3).all(|part| rgb[3 * pixel + part] == bgr[3 * pixel + 2 - part])));
    for (format, bytes) in
        [(PixelFormat::Gray8, size), (PixelFormat::Bggr8, size), (PixelFormat::Rggb10, 2 * size)]
    {
        assert_eq!(first(format).len(), bytes, "{}", format.as_str());
    }
}

fn no_allocation() {
    for (memory, said, _) in WAYS {
        let watched = move || {
            let mut camera = open(&stream(&webcam(), with(memory))).unwrap();
            assert!(camera.noted(said), "{:?}", camera.opened.notes);
            (0..30).for_each(|_| drop(camera.frame()));
            let count = || *malloc::of_threads(malloc::handles_frames).values().next().unwrap();
            let before = count();
            let between = count() - before;
            (0..60).for_each(|_| drop(camera.frame()));
            // Looking costs allocations itself, as many each time.
            assert_eq!(count() - before, 2 * between, "{memory}: 60 frames");
            assert!(between > 0);
        };
        std::thread::Builder::new().name("cap-watched".to_owned()).spawn(watched).unwrap().join().unwrap();
    }
}

/// Files, threads and kilobytes of this process.
fn footprint() -> (usize, usize, u64) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (count("/proc/self/fd"), count("/proc/self/task"), resident)
}

fn reopened() {
    let ways = [V4l2Memory::Userptr, V4l2Memory::Mmap, V4l2Memory::Dmabuf, V4l2Memory::Copy];
    let mut cameras: Vec<_> = ways
        .into_iter()
        .map(|memory| {
            let stream = stream(&webcam(), with(memory));
            (capture::open(&stream), resources(&stream))
        })
        .collect();
    let mut begun = None;
    let mut numbers = [0; 4];
    for cycle in 0..500 {
        let which = cycle % 4;
        let (source, resources) = &mut cameras[which];
        source.open(resources).unwrap();
        let Next::Frame(frame) = source.next(clock::now() + Duration::from_secs(10)) else {
            panic!("{cycle}")
        };
        // Numbers go on.
        assert!(cycle < 4 || frame.sequence > numbers[which], "{cycle}: {}", frame.sequence);
        numbers[which] = frame.sequence;
        source.close();
        drop(frame);
        while source.missed(clock::now()).is_some() {}
        if cycle == 50 {
            begun = Some(footprint());
        }
    }
    let (files, threads, resident) = footprint();
    let (files_before, threads_before, resident_before) = begun.unwrap();
    println!("       resident {resident_before} kB after 50 openings, {resident} kB after 500");
    assert_eq!((files, threads), (files_before, threads_before));
    assert!(resident < resident_before + 512, "{resident_before} kB, then {resident} kB");
    assert!(cameras.iter().all(|(_, resources)| resources.share.free_slots() == SLOTS), "slots came home");
}

fn controls() {
    let controlled = |controls: &[(&str, i64)]| {
        stream(&webcam(), |_, camera| {
            camera.controls = controls.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        })
    };
    let camera = open(&controlled(&[("brightness", 100), ("contrast", 140)])).unwrap();
    assert!(camera.noted("controls brightness = 100, contrast = 140"), "{:?}", camera.opened.notes);
    drop(camera);
    let said = refused(&controlled(&[("britness", 100)]));
    assert!(
        said.contains("has no control `britness`") && said.contains("its controls: brightness, "),
        "{said}"
    );
    let said = refused(&controlled(&[("brightness", 256)]));
    assert!(said.contains("control `brightness` must be 0 to 255, not 256"), "{said}");
    let said = refused(&controlled(&[("test_pattern", 99)]));
    assert!(said.contains("control `test_pattern` must be one of 0 (75% Colorbar)"), "{said}");
    // The automatic is on, or is switched off in the same breath.
    let said = refused(&controlled(&[("gain_automatic", 1), ("gain", 50)]));
    assert!(said.contains("control `gain`"), "{said}");
    drop(open(&controlled(&[("gain_automatic", 0), ("gain", 50)])).unwrap());
    let kinds = [
        ("bitmask", 0x8000_2000),
        ("integer_64_bits", i64::MIN),
        ("menu", 4),
        ("integer_menu", 8),
        ("button", 1),
    ];
    drop(open(&controlled(&kinds)).unwrap());
    let said = refused(&controlled(&[("menu", 2)]));
    assert!(said.contains("1 (Menu Item 1), 3 (Menu Item 3), 4 (Menu Item 4), not 2"), "{said}");
    let said = refused(&controlled(&[("string", 2)]));
    assert!(said.contains("is no number; a board can't set it"), "{said}");
    let said = refused(&controlled(&[("read_only_integer_32_bits", 2)]));
    assert!(said.contains("can only be read on this device"), "{said}");
    set(&webcam(), "gain_automatic=1,brightness=128,contrast=128");
}

fn refusals() {
    let changed = |change: fn(&mut Stream, &mut V4l2)| refused(&stream(&webcam(), change));
    let said = changed(|stream, _| (stream.width, stream.height) = (648, 366));
    assert!(said.contains("wanted 648x366 NV12") && said.contains("640x360"), "{said}");
    let said = changed(|stream, _| stream.period = Duration::from_millis(5));
    assert!(said.contains("wanted 200.000 frames a second, got") && said.contains("30 fps"), "{said}");
    let said = changed(|_, camera| camera.fourcc = Some("YUYV".to_owned()));
    assert!(said.contains("fourcc `YUYV` is not NV12; name one of NV12, NM12"), "{said}");
    let said = changed(|_, camera| camera.encoding = Encoding::Mjpeg);
    assert!(said.contains("got no such format") && said.contains("NV12"), "{said}");
    let said = changed(|_, camera| camera.device = "/dev/null".into());
    assert!(said.contains("is no V4L2 device"), "{said}");
    let said = changed(|_, camera| camera.device = "/dev/video99".into());
    assert!(said.contains("there is no such device"), "{said}");
    let output = node("vivid-002-vid-out");
    let said = refused(&stream(&output, |_, _| ()));
    assert!(said.contains("this node captures no video"), "{said}");
}

/// An accelerator that reads the pool, and no memory that is another's.
#[derive(Debug, Default)]
struct PoolOnly {
    asked: AtomicUsize,
}

impl Reader for PoolOnly {
    fn admit(&self, start: NonNull<u8>, _: usize) -> Result<u64, String> {
        match self.asked.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(start.addr().get() as u64),
            _ => Err("not the pool".to_owned()),
        }
    }

    fn dismiss(&self, _: NonNull<u8>) {}
}

fn unread() {
    let try_to = |memory| {
        let (reader, stream) = (Arc::new(PoolOnly::default()), stream(&webcam(), with(memory)));
        let opened = open_with(read_by(Some(reader.clone()), &stream), &stream);
        (opened, reader.asked.load(Ordering::Relaxed))
    };
    for memory in [V4l2Memory::Mmap, V4l2Memory::Dmabuf] {
        let (opened, _) = try_to(memory);
        let said = opened.map(|camera| camera.opened.notes).unwrap_err().to_string();
        assert!(said.contains("the accelerator can't read it where it lies (not the pool)"), "{said}");
        assert!(said.contains("set memory = \"auto\""), "{said}");
    }
    // What the CPU alone reads is not even shown to it.
    for (memory, copied) in [(V4l2Memory::Auto, false), (V4l2Memory::Copy, true)] {
        let (opened, asked) = try_to(memory);
        let mut camera = opened.unwrap();
        assert!(camera.frame().frame.device_address().is_some());
        assert_eq!((camera.copied() > 0, asked), (copied, 1));
    }
}

fn in_use() {
    let mut first = open(&stream(&webcam(), with(V4l2Memory::Mmap))).unwrap();
    let said = refused(&stream(&webcam(), with(V4l2Memory::Mmap)));
    let own = format!("process {}", std::process::id());
    assert!(said.contains("in use by") && said.contains(&own), "{said}");
    // Who was first notices nothing.
    let before = first.frame().sequence;
    assert!(first.frame().sequence > before);
}

fn outlive() {
    still(&webcam());
    for (memory, _, _) in WAYS {
        let stream = stream(&webcam(), with(memory));
        let mut camera = open(&stream).unwrap();
        let frames: Vec<Captured> = (0..3).map(|_| camera.frame()).collect();
        let seen: Vec<Vec<u8>> = frames.iter().map(pixels).collect();
        camera.source.close();
        // Opened again while they are still read, it writes elsewhere.
        camera.opened = camera.source.open(&camera.resources).unwrap();
        (0..20).for_each(|_| drop(camera.frame()));
        assert!(frames.iter().map(pixels).eq(seen), "{memory}");
        drop(frames);
        camera.source.close();
        assert_eq!(camera.resources.share.free_slots(), SLOTS, "{memory}");
    }
}
