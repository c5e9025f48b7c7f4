//! A camera with JPEG images: no heap allocation for a frame on its capture thread. What libjpeg-turbo allocates is on
//! the decoder's thread.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/malloc.rs"]
mod malloc;

use malloc::{handles_frames, of_threads};
use ocelli::capture::v4l2::mjpeg::{self, Mjpeg};
use ocelli::capture::{Next, Resources};
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::job::{DropReason, Lost};
use ocelli::platform::clock;
use ocelli::pool::{Pool, ShareSpec};
use ocelli::stats::Copies;
use ocelli::stream::StreamId;
use rustix::event::{PollFd, PollFlags, poll};
use std::sync::Arc;

#[test]
fn images_cost_no_allocation_where_they_are_captured() {
    std::thread::Builder::new().name("cap-jpegs".to_owned()).spawn(capture).unwrap().join().unwrap();
}

fn capture() {
    let image = include_bytes!("data/square.jpg");
    let mut stream = common::stream("jpegs", common::ms(33), common::ms(100));
    (stream.format, stream.width, stream.height) = (PixelFormat::Nv12, 768, 576);
    let slot_bytes = ImageLayout::packed(stream.format, stream.width, stream.height).extent().unwrap();
    let pool = Pool::new(&[ShareSpec { slots: mjpeg::SLOTS, slot_bytes }], false).unwrap();
    let (share, copies) = (pool.share(StreamId(0)), Arc::new(Copies::default()));
    let mut decoder =
        Mjpeg::start(&stream, &Resources { share, copies, start: clock::now() }, 200_000).unwrap();
    let mut serve = |from: u64| {
        let (mut told, mut frames) = (from, 0);
        for sequence in (from..from + 120).step_by(3) {
            let now = clock::now();
            decoder.submit(&image[..9000], sequence, now);
            decoder.submit(image, sequence + 1, now);
            let (sequence, reason) = (sequence + 2, DropReason::DriverLost);
            decoder.lose(Lost { sequence, count: 1, captured: now, reason });
            while told <= sequence {
                match decoder.next() {
                    Some(Next::Frame(_)) => (told, frames) = (told + 1, frames + 1),
                    Some(Next::Lost(lost)) => told += lost.count,
                    Some(other) => panic!("{other:?}"),
                    None => _ = poll(&mut [PollFd::new(&decoder, PollFlags::IN)], None).unwrap(),
                }
            }
        }
        frames
    };
    serve(0);
    let before = of_threads(handles_frames);
    // Listing threads allocates on this one.
    let listing = of_threads(handles_frames).into_values().sum::<u64>() - before.values().sum::<u64>();
    let before = of_threads(handles_frames);
    let frames = serve(120);
    let after = of_threads(handles_frames);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(after.into_values().sum::<u64>() - before.into_values().sum::<u64>(), listing);
    assert!(frames > 0, "nothing was decoded");
}
