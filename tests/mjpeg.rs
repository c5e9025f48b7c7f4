//! JPEG images of a camera, decoded beside the capture thread: pixels, order, and what is broken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ocelli::board::Stream;
use ocelli::capture::v4l2::mjpeg::{self, Mjpeg};
use ocelli::capture::{Captured, Next, Resources};
use ocelli::image::{Colorimetry, ImageLayout, Matrix, PixelFormat, Range};
use ocelli::infer::preprocess::{Preprocessor, Row};
use ocelli::job::{DropReason, Lost};
use ocelli::model::{Channels, Element, Fit, Input, TensorLayout};
use ocelli::platform::clock;
use ocelli::pool::{Pool, ShareSpec};
use ocelli::stats::{Copies, CopyStage};
use ocelli::stream::StreamId;
use ocelli::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::{Arc, Mutex};
use turbojpeg::Subsamp;

const LARGEST: usize = 400_000;
/// The formats that JPEG images become.
const FORMATS: [PixelFormat; 7] = [
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Gray8,
    PixelFormat::Nv12,
    PixelFormat::I420,
    PixelFormat::Yuy2,
    PixelFormat::Uyvy,
];

fn stream(format: PixelFormat, width: u32, height: u32) -> Stream {
    let mut stream = common::stream("jpegs", common::ms(33), common::ms(100));
    (stream.format, stream.width, stream.height) = (format, width, height);
    stream
}

fn resources(stream: &Stream, slots: usize) -> Resources {
    let slot_bytes = ImageLayout::packed(stream.format, stream.width, stream.height).extent().unwrap();
    let pool = Pool::new(&[ShareSpec { slots, slot_bytes }], false).unwrap();
    Resources { share: pool.share(StreamId(0)), copies: Arc::new(Copies::default()), start: clock::now() }
}

fn at(sequence: u64) -> Instant {
    Instant::from_nanos(1000 + 33 * sequence)
}

/// What comes next. The decoder has to wake who waits for it.
fn told(decoder: &mut Mjpeg) -> Next {
    loop {
        if let Some(next) = decoder.next() {
            return next;
        }
        let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&*decoder, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(ready, 1, "the decoder says nothing");
    }
}

fn frame(decoder: &mut Mjpeg) -> Captured {
    match told(decoder) {
        Next::Frame(captured) => captured,
        other => panic!("{other:?}"),
    }
}

fn lost(decoder: &mut Mjpeg) -> Lost {
    match told(decoder) {
        Next::Lost(lost) => lost,
        other => panic!("{other:?}"),
    }
}

/// One image decoded to `format`, and the bytes that were copied for it beside the image's own.
fn decoded(image: &[u8], format: PixelFormat, width: u32, height: u32) -> (Captured, usize) {
    let stream = stream(format, width, height);
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    decoder.submit(image, 5, at(5));
    let frame = frame(&mut decoder);
    assert_eq!((frame.sequence, frame.captured), (5, at(5)));
    (frame, resources.copies.bytes(CopyStage::Capture) as usize - image.len())
}

/// A picture without sharp edges, packed R, G, B.
fn scene(width: usize, height: usize) -> Vec<u8> {
    let pixel = |x: usize, y: usize| {
        let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
        [40.0 + 160.0 * x, 200.0 - 120.0 * y, 60.0 + 100.0 * x * y].map(|value| value as u8)
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
}

fn jpeg(width: usize, height: usize, subsamp: Subsamp) -> Vec<u8> {
    let pixels = scene(width, height);
    let format = turbojpeg::PixelFormat::RGB;
    let image = turbojpeg::Image { pixels: &pixels[..], width, pitch: 3 * width, height, format };
    let mut compressor = turbojpeg::Compressor::new().unwrap();
    compressor.set_quality(95).unwrap();
    compressor.set_subsamp(subsamp).unwrap();
    compressor.compress_to_vec(image).unwrap()
}

/// What the `image` crate, which has another decoder, makes of it: R, G, B.
fn reference(image: &[u8]) -> Vec<u8> {
    image::load_from_memory_with_format(image, image::ImageFormat::Jpeg).unwrap().to_rgb8().into_raw()
}

/// A frame's R, G, B, as a network would get them.
fn rgb(frame: &Captured) -> Vec<u8> {
    let layout = *frame.frame.layout();
    let input = Input {
        tensor: "image".into(),
        layout: TensorLayout::Nhwc,
        element: Element::U8,
        width: layout.width,
        height: layout.height,
        channels: Channels::Rgb,
        fit: Fit::Stretch,
        fill: 0,
        scale: [1.0; 3],
        offset: [0.0; 3],
    };
    let mut preprocessor = Preprocessor::new(&input);
    preprocessor.prepare(layout.format, layout.width, layout.height);
    let mut row = vec![0; (3 * layout.width * layout.height) as usize];
    preprocessor.run(frame.frame.bytes(), &layout, Row::U8(&mut row)).unwrap();
    row
}

fn farthest(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_kind_of_image_becomes_every_format() {
    let (width, height) = (98, 66); // Not in whole blocks.
    for subsamp in [Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Sub1x2, Subsamp::Gray] {
        let image = jpeg(width, height, subsamp);
        let expected = reference(&image);
        for format in FORMATS {
            let (frame, copied) = decoded(&image, format, width as u32, height as u32);
            let found = rgb(&frame);
            let off = if format == PixelFormat::Gray8 {
                let luma: Vec<u8> = expected
                    .chunks(3)
                    .flat_map(|p| {
                        let luma =
                            0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
                        [luma.round() as u8; 3]
                    })
                    .collect();
                farthest(&found, &luma)
            } else {
                farthest(&found, &expected)
            };
            assert!(off <= 4, "{subsamp:?} to {format:?}: {off} levels from another decoder");
            let direct = matches!(format, PixelFormat::Rgb | PixelFormat::Bgr | PixelFormat::Gray8)
                || (format == PixelFormat::I420 && subsamp == Subsamp::Sub2x2);
            let bytes = frame.frame.layout().extent().unwrap();
            assert_eq!(copied, if direct { 0 } else { bytes }, "{subsamp:?} to {format:?}");
        }
    }
}

/// Where the image's chroma is the format's, its very samples are in the frame.
#[test]
fn chroma_of_the_same_kind_is_not_touched() {
    let (width, height) = (64, 48);
    for (subsamp, format) in [
        (Subsamp::Sub2x2, PixelFormat::I420),
        (Subsamp::Sub2x2, PixelFormat::Nv12),
        (Subsamp::Sub2x1, PixelFormat::Yuy2),
        (Subsamp::Sub2x1, PixelFormat::Uyvy),
    ] {
        let image = jpeg(width, height, subsamp);
        let mut planes = vec![0; 3 * width * height];
        let pixels = &mut planes[..];
        let output = turbojpeg::YuvImage { pixels, width, align: 1, height, subsamp };
        turbojpeg::Decompressor::new().unwrap().decompress_to_yuv(&image, output).unwrap();
        let (luma, chroma) = planes.split_at(width * height);
        let samples = width / 2 * if subsamp == Subsamp::Sub2x2 { height / 2 } else { height };
        let (cb, cr) = (&chroma[..samples], &chroma[samples..2 * samples]);
        let pairs = || cb.iter().zip(cr).map(|(cb, cr)| [*cb, *cr]);
        let expected: Vec<u8> = match format {
            PixelFormat::I420 => [luma, cb, cr].concat(),
            PixelFormat::Nv12 => luma.iter().copied().chain(pairs().flatten()).collect(),
            PixelFormat::Yuy2 => {
                luma.chunks(2).zip(pairs()).flat_map(|(y, [cb, cr])| [y[0], cb, y[1], cr]).collect()
            }
            _ => luma.chunks(2).zip(pairs()).flat_map(|(y, [cb, cr])| [cb, y[0], cr, y[1]]).collect(),
        };
        let (frame, _) = decoded(&image, format, width as u32, height as u32);
        assert!(frame.frame.bytes()[..expected.len()] == expected, "{format:?}");
        let jfif = Colorimetry { matrix: Matrix::Bt601, range: Range::Full };
        assert_eq!(frame.frame.layout().color, jfif);
    }
}

#[test]
fn a_real_picture_is_what_another_decoder_makes_of_it() {
    let image = include_bytes!("data/square.jpg");
    let (frame, copied) = decoded(image, PixelFormat::Rgb, 768, 576);
    let (found, expected) = (frame.frame.bytes(), reference(image));
    let off: u64 = found.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!((off as f64) < 0.7 * expected.len() as f64, "{off} levels together");
    assert_eq!(copied, 0);
}

/// Segments of an image up to its scan: marker and place.
fn segments(image: &[u8]) -> Vec<(u8, std::ops::Range<usize>)> {
    let (mut found, mut start) = (Vec::new(), 2);
    loop {
        let marker = image[start + 1];
        let end = start + 2 + usize::from(u16::from_be_bytes([image[start + 2], image[start + 3]]));
        found.push((marker, start..end));
        if marker == 0xda {
            return found;
        }
        start = end;
    }
}

fn without_tables(image: &[u8]) -> Vec<u8> {
    let mut bare = image.to_vec();
    for (_, place) in segments(image).into_iter().rev().filter(|(marker, _)| *marker == 0xc4) {
        bare.drain(place);
    }
    assert!(bare.len() + 400 < image.len());
    bare
}

/// Many USB cameras leave the Huffman tables away, with or without the mark of AVI files.
#[test]
fn images_without_huffman_tables_have_the_standard_ones() {
    let image = jpeg(64, 48, Subsamp::Sub2x1);
    let (expected, _) = decoded(&image, PixelFormat::Yuy2, 64, 48);
    let bare = without_tables(&image);
    let mut avi = bare.clone();
    let (first, app0) = segments(&bare)[0].clone();
    assert_eq!(first, 0xe0);
    avi.splice(app0, *b"\xff\xe0\x00\x10AVI1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
    for image in [bare, avi] {
        let (frame, _) = decoded(&image, PixelFormat::Yuy2, 64, 48);
        assert!(frame.frame.bytes() == expected.frame.bytes());
    }
}

/// A broken image must not leave its tables to those that come without any.
#[test]
fn a_broken_image_changes_nothing_for_those_after_it() {
    let image = jpeg(64, 48, Subsamp::Sub2x1);
    let mut broken = image.clone();
    for (_, place) in segments(&image).into_iter().filter(|(marker, _)| *marker == 0xc4 || *marker == 0xdb) {
        // Symbols and steps, not lengths.
        broken[place.end - 6..place.end].reverse();
    }
    let stream = stream(PixelFormat::Yuy2, 64, 48);
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    decoder.submit(&without_tables(&image), 0, at(0));
    let expected = frame(&mut decoder);
    decoder.submit(&broken, 1, at(1));
    if let Next::Frame(other) = told(&mut decoder) {
        assert!(other.frame.bytes() != expected.frame.bytes(), "it was meant to be broken");
    }
    decoder.submit(&without_tables(&image), 2, at(2));
    assert!(frame(&mut decoder).frame.bytes() == expected.frame.bytes());
}

#[test]
fn what_cheap_cameras_do_to_an_images_end_does_not_matter() {
    let image = jpeg(64, 48, Subsamp::Sub2x1);
    let (expected, _) = decoded(&image, PixelFormat::Rgb, 64, 48);
    let (data, end) = image.split_at(image.len() - 2);
    assert_eq!(end, [0xff, 0xd9]);
    for other in [data.to_vec(), [&image, &[0; 999][..]].concat(), [data, &[0; 3], end].concat()] {
        let (frame, _) = decoded(&other, PixelFormat::Rgb, 64, 48);
        assert!(frame.frame.bytes() == expected.frame.bytes());
    }
}

/// A generator of numbers that are the same in every run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 1_u32;
    move |below| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    }
}

#[test]
fn what_is_no_whole_image_is_corrupt_and_costs_no_slot() {
    let image = jpeg(320, 240, Subsamp::Sub2x1);
    let mut number = numbers();
    let scan = segments(&image).last().unwrap().1.end;
    let mut broken = vec![Vec::new(), vec![0xff], vec![0xff, 0xd8], b"GIF89a".to_vec(), vec![0xff; 5000]];
    broken.push(image[..scan].to_vec());
    broken.extend((0..40).map(|_| image[..scan + number(image.len() - scan - 200)].to_vec()));
    // Packets lost on the way: the middle is missing.
    broken.extend((0..60).map(|_| {
        let mut image = image.clone();
        let at = scan + number(image.len() - scan - 600);
        image.drain(at..at + 200 + number(300));
        image
    }));
    let stream = stream(PixelFormat::Nv12, 320, 240);
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    for (index, image) in broken.iter().enumerate() {
        let sequence = index as u64;
        decoder.submit(image, sequence, at(sequence));
        let lost = lost(&mut decoder);
        assert_eq!((lost.sequence, lost.count, lost.captured), (sequence, 1, at(sequence)));
        assert_eq!(lost.reason, DropReason::Corrupt, "broken image {index}");
    }
    // Larger than the driver said.
    decoder.submit(&vec![0; LARGEST + 1], 900, at(900));
    assert_eq!(lost(&mut decoder).reason, DropReason::Corrupt);
    // Any bytes at all are answered.
    for sequence in 1000..1200 {
        let mut image = image.clone();
        for _ in 0..1 + number(20) {
            let at = number(image.len());
            image[at] = number(256) as u8;
        }
        decoder.submit(&image, sequence, at(sequence));
        match told(&mut decoder) {
            Next::Frame(frame) => assert_eq!(frame.sequence, sequence),
            Next::Lost(lost) => assert_eq!((lost.sequence, lost.reason), (sequence, DropReason::Corrupt)),
            other => panic!("{other:?}"),
        }
    }
    decoder.submit(&image, 2000, at(2000));
    drop(frame(&mut decoder));
    assert_eq!(resources.share.free_slots(), mjpeg::SLOTS);
}

/// What was logged, by all tests of this process.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        LOGGED.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn another_size_or_colour_is_said_once() {
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Warn);
    let mut stream = stream(PixelFormat::Nv12, 64, 48);
    stream.id = "sizes".to_owned();
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    let images = [jpeg(80, 48, Subsamp::Sub2x1), jpeg(64, 48, Subsamp::Sub4x1)];
    for sequence in 0..10 {
        decoder.submit(&images[sequence as usize % 2], sequence, at(sequence));
        let lost = lost(&mut decoder);
        assert_eq!((lost.sequence, lost.reason), (sequence, DropReason::Corrupt));
    }
    let logged = LOGGED.lock().unwrap();
    let mine: Vec<_> = logged.iter().filter(|line| line.starts_with("sizes: ")).collect();
    assert_eq!(mine.len(), 2, "{mine:?}");
    assert!(mine[0].contains("80x48") && mine[0].contains("size = [80, 48]"), "{mine:?}");
    assert!(mine[1].contains("Sub4x1") && mine[1].contains("format = \"RGB\""), "{mine:?}");
}

#[test]
fn a_slow_decoder_costs_older_frames_and_all_are_told_in_order() {
    let image = jpeg(1280, 720, Subsamp::Sub2x1);
    let stream = stream(PixelFormat::Rgb, 1280, 720);
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    let (mut next, mut superseded, mut driver) = (0, 0, 0);
    for round in 0..20 {
        let first = round * 40;
        for sequence in first..first + 40 {
            if sequence % 10 == 5 {
                let reason = DropReason::DriverLost;
                decoder.lose(Lost { sequence, count: 1, captured: at(sequence), reason });
            } else {
                decoder.submit(&image, sequence, at(sequence));
            }
        }
        while next < first + 40 {
            match told(&mut decoder) {
                Next::Frame(frame) => {
                    assert_eq!((frame.sequence, frame.captured), (next, at(next)));
                    next += 1;
                }
                Next::Lost(lost) => {
                    assert_eq!((lost.sequence, lost.captured), (next, at(next)));
                    next += lost.count;
                    match lost.reason {
                        DropReason::Superseded => superseded += lost.count,
                        DropReason::DriverLost => driver += lost.count,
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next, first + 40);
    }
    assert_eq!(driver, 20 * 4);
    assert!(superseded > 0, "800 images at once, and each was decoded?");
    assert!(decoder.next().is_none());
    assert_eq!(resources.share.free_slots(), mjpeg::SLOTS);
}

#[test]
fn without_a_slot_a_frame_is_lost_and_the_decoder_goes_on() {
    let image = jpeg(64, 48, Subsamp::Sub2x2);
    let stream = stream(PixelFormat::I420, 64, 48);
    let resources = resources(&stream, 1);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    decoder.submit(&image, 0, at(0));
    let held = frame(&mut decoder);
    decoder.submit(&image, 1, at(1));
    assert_eq!(lost(&mut decoder).reason, DropReason::NoSlot);
    drop(held);
    decoder.submit(&image, 2, at(2));
    assert_eq!(frame(&mut decoder).sequence, 2);
}

#[test]
fn what_is_abandoned_is_told_and_does_not_come_back() {
    let image = jpeg(1280, 720, Subsamp::Sub2x1);
    let stream = stream(PixelFormat::Rgb, 1280, 720);
    let resources = resources(&stream, mjpeg::SLOTS);
    let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
    for round in 0..20 {
        let first = 2 * round;
        decoder.submit(&image, first, at(first));
        decoder.submit(&image, first + 1, at(first + 1));
        decoder.abandon(DropReason::SourceDown);
        let mut next = first;
        while let Some(told) = decoder.next() {
            match told {
                Next::Frame(frame) => {
                    assert_eq!(frame.sequence, next);
                    next += 1;
                }
                Next::Lost(lost) => {
                    assert_eq!(lost.sequence, next);
                    assert!(matches!(lost.reason, DropReason::SourceDown | DropReason::Superseded));
                    next += lost.count;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next, first + 2, "everything is told at once");
    }
    decoder.submit(&image, 100, at(100));
    assert_eq!(frame(&mut decoder).sequence, 100);
    drop(decoder);
    assert_eq!(resources.share.free_slots(), mjpeg::SLOTS);
}

#[test]
fn its_thread_ends_with_it() {
    let mut stream = stream(PixelFormat::Gray8, 64, 48);
    stream.id = "ending".to_owned();
    let alive = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let named = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm"))
                .is_ok_and(|name| name == "mjpeg-ending\n")
        };
        tasks.map(named).filter(|named| *named).count()
    };
    let resources = resources(&stream, mjpeg::SLOTS);
    for _ in 0..50 {
        let mut decoder = Mjpeg::start(&stream, &resources, LARGEST).unwrap();
        decoder.submit(&jpeg(64, 48, Subsamp::Gray), 0, at(0));
        frame(&mut decoder);
        assert_eq!(alive(), 1);
    }
    assert_eq!(alive(), 0);
}

#[test]
fn formats_and_sizes_that_can_not_be_are_refused_by_name() {
    let mosaic = stream(PixelFormat::Grbg10, 64, 48);
    let error = Mjpeg::start(&mosaic, &resources(&mosaic, 1), LARGEST).unwrap_err().to_string();
    assert!(error.contains("`jpegs`") && error.contains("GRBG10") && error.contains("NV12"), "{error}");
    let large = stream(PixelFormat::Rgb, 640, 480);
    let error = Mjpeg::start(&large, &resources(&mosaic, 1), LARGEST).unwrap_err().to_string();
    assert!(error.contains("640x480"), "{error}");
}
