//! What every backend must do.
#![allow(dead_code)] // Each test binary uses its part.

use super::onnx::EDGE;
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::Backend;
use ocelli::job::{Batch, BatchJob, Job};
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::stream::{ModelId, StreamId};
use ocelli::time::Instant;
use std::time::Duration;

/// Largest batch of a backend under test.
pub const MAX_BATCH: u16 = 4;
/// Longer than anything here takes, so that a hang is a failure and not a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A mark that works.
pub const DARK: u8 = 5;
/// A mark that makes a batch fail.
pub const BRIGHT: u8 = 250;

/// A backend under test with its clock and its frames.
pub struct Rig<P> {
    /// The backend.
    pub backend: Box<dyn Backend<P>>,
    /// What it wakes.
    pub waker: Waker,
    /// `None`: the real clock.
    pub virtual_now: Option<Instant>,
    /// A frame that carries a mark.
    pub frame: Box<dyn Fn(u8) -> P>,
    /// Frames that are alive.
    pub alive: Box<dyn Fn() -> usize>,
    /// What the backend answers for a mark.
    pub answer: fn(u8) -> [f32; 3],
}

impl<P> Rig<P> {
    /// Its clock.
    pub fn now(&self) -> Instant {
        self.virtual_now.unwrap_or_else(clock::now)
    }

    /// A batch of frames with these marks, which are also their sequence numbers.
    pub fn batch(&self, marks: &[u8]) -> Box<Batch<P>> {
        let mut batch = self.backend.capabilities().new_batch();
        self.fill(&mut batch, marks);
        batch
    }

    /// Fills a batch.
    pub fn fill(&self, batch: &mut Batch<P>, marks: &[u8]) {
        let now = self.now();
        let job = |&mark: &u8| Job {
            stream: StreamId(0),
            sequence: u64::from(mark),
            model: ModelId(0),
            captured: now,
            arrived: now,
            deadline: now + Duration::from_millis(100),
        };
        batch.jobs.extend(marks.iter().map(|mark| BatchJob { job: job(mark), payload: (self.frame)(*mark) }));
    }

    /// Submits a batch of these marks.
    pub fn submit(&mut self, marks: &[u8]) {
        let (now, batch) = (self.now(), self.batch(marks));
        if let Err(batch) = self.backend.submit(now, batch) {
            panic!("{marks:?} refused: {:?}", batch.fault);
        }
    }

    /// Waits for the next completion.
    pub fn complete(&mut self) -> Box<Batch<P>> {
        let give_up = clock::now() + PATIENCE;
        loop {
            let now = self.now();
            if let Some(batch) = self.backend.poll(now) {
                assert!(batch.completed <= now && batch.completed >= batch.submitted);
                assert!(batch.service <= batch.completed.since(batch.submitted));
                return batch;
            }
            match (self.virtual_now, self.backend.poll_at()) {
                (Some(_), Some(at)) => self.virtual_now = Some(at),
                (Some(_), None) => panic!("nothing will ever complete"),
                (None, at) => self.waker.wait_until(at),
            }
            assert!(clock::now() < give_up, "no completion");
        }
    }
}

/// The suite. Every second batch may fail for a reason of the backend's own, the one marked [`BRIGHT`].
pub fn conforms<P: 'static>(working: Rig<P>, failing: Rig<P>) {
    works(working);
    a_fault_surfaces_and_passes(failing);
}

/// The part of it in which no batch fails.
pub fn works<P>(mut rig: Rig<P>) {
    rig.waker.attach();
    hands_back_what_it_cannot_take(&mut rig);
    every_batch_comes_back_once_in_order(&mut rig);
    the_first_idle_lane_takes_a_batch(&mut rig);
    dropping_releases_everything(rig);
}

fn hands_back_what_it_cannot_take<P>(rig: &mut Rig<P>) {
    let refused = |rig: &mut Rig<P>, batch: Box<Batch<P>>, jobs: usize, why: &str| {
        let now = rig.now();
        let Err(batch) = rig.backend.submit(now, batch) else { panic!("taken, though {why}") };
        let fault = batch.fault.expect("a refusal has a reason");
        assert!(fault.as_str().contains(why), "{fault:?} does not say {why:?}");
        assert_eq!(batch.jobs.len(), jobs, "all jobs come back");
    };
    let empty = rig.batch(&[]);
    refused(rig, empty, 0, "empty");
    let mut unknown = rig.batch(&[1]);
    unknown.model = ModelId(9);
    refused(rig, unknown, 1, "model number 9");
    let large = rig.batch(&[1; MAX_BATCH as usize + 1]);
    refused(rig, large, usize::from(MAX_BATCH) + 1, "5 jobs");
    let mut roomless = Box::new(Batch::with_capacity(1));
    rig.fill(&mut roomless, &[1]);
    refused(rig, roomless, 1, "room");

    let in_flight = rig.backend.capabilities().in_flight();
    for _ in 0..in_flight {
        rig.submit(&[1]);
    }
    let too_many = rig.batch(&[2, 3]);
    refused(rig, too_many, 2, "in flight");
    for _ in 0..in_flight {
        rig.complete();
    }
    assert_eq!((rig.alive)(), 0, "payloads are released with their batches");
}

/// Batches of all sizes, as many in flight as may be.
fn every_batch_comes_back_once_in_order<P>(rig: &mut Rig<P>) {
    let members = |batch: u8| (batch..=batch + batch % MAX_BATCH as u8).collect::<Vec<_>>();
    let in_flight = rig.backend.capabilities().in_flight();
    let mut submitted = 0;
    for completed in 0..60 {
        while submitted < 60 && usize::from(submitted - completed) < in_flight {
            rig.submit(&members(submitted));
            submitted += 1;
        }
        let batch = rig.complete();
        let marks: Vec<u64> = batch.jobs.iter().map(|job| job.job.sequence).collect();
        assert_eq!(
            marks,
            members(completed).into_iter().map(u64::from).collect::<Vec<_>>(),
            "in order, whole"
        );
        assert_eq!(batch.fault, None);
        for (index, mark) in members(completed).into_iter().enumerate() {
            assert_eq!(batch.outputs[0].row(index), (rig.answer)(mark), "each row is its own job's");
        }
    }
    let later = rig.now() + PATIENCE;
    assert!(rig.backend.poll(later).is_none(), "nothing comes out that did not go in");
    assert_eq!((rig.alive)(), 0, "payloads are released with their batches");
}

/// With at most n batches in flight the first n lanes work, one batch each, and no other.
fn the_first_idle_lane_takes_a_batch<P>(rig: &mut Rig<P>) {
    for at_once in 1..=rig.backend.capabilities().in_flight() {
        (0..at_once).for_each(|_| rig.submit(&[1]));
        for _ in 0..10 {
            let lane = rig.complete().lane;
            assert!(lane < at_once, "lane {lane} works, though {at_once} are enough");
            rig.submit(&[1]);
        }
        let mut lanes: Vec<usize> = (0..at_once).map(|_| rig.complete().lane).collect();
        lanes.sort_unstable();
        assert_eq!(lanes, (0..at_once).collect::<Vec<_>>(), "a lane has one batch at a time");
    }
}

fn dropping_releases_everything<P>(mut rig: Rig<P>) {
    for _ in 0..rig.backend.capabilities().in_flight() {
        rig.submit(&[1, 2]);
    }
    drop(rig.backend);
    assert_eq!((rig.alive)(), 0, "a dropped backend holds no frames");
}

/// The part of it in which every second batch fails.
pub fn a_fault_surfaces_and_passes<P>(mut rig: Rig<P>) {
    rig.waker.attach();
    for _ in 0..3 {
        for (marks, fails) in [([DARK, DARK], false), ([DARK, BRIGHT], true)] {
            rig.submit(&marks);
            let batch = rig.complete();
            assert_eq!((batch.fault.is_some(), batch.jobs.len()), (fails, 2), "{:?}", batch.fault);
        }
    }
}

/// A rig with a real clock, and frames of its own share, every pixel the mark.
pub fn rig(open: impl FnOnce(&Waker) -> Box<dyn Backend<FrameRef>>) -> Rig<FrameRef> {
    let layout = ImageLayout::packed(PixelFormat::Rgb, EDGE, EDGE);
    let spec = ShareSpec { slots: 64, slot_bytes: layout.extent().unwrap() };
    let waker = Waker::new();
    let backend = open(&waker);
    let share = Pool::read_by(backend.reader(), &[spec], false).unwrap().share(StreamId(0));
    let from = share.clone();
    Rig {
        backend,
        waker,
        virtual_now: None,
        frame: Box::new(move |mark| {
            let mut frame = from.take().expect("slots for every frame in flight");
            frame.bytes_mut().fill(mark);
            frame.freeze(layout).unwrap()
        }),
        alive: Box::new(move || share.slots() - share.free_slots()),
        answer: |mark| [f32::from(mark); 3],
    }
}
