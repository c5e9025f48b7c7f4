//! The supervisor inside the test: what dies, what can't be replaced at once, and who hears that all is well.

mod common;

use common::{ms, running};
use ocelli::capture::{self, Captured, Next, Opened, Resources, Source, SourceError};
use ocelli::infer::Backend;
use ocelli::infer::blocking::{Blocking, Engine};
use ocelli::job::{Batch, DropReason, Lost};
use ocelli::platform::Waker;
use ocelli::pool::FrameRef;
use ocelli::stream::StreamState;
use ocelli::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Computes nothing, and panics at its n-th batch.
struct Bomb(u64);

impl Engine<FrameRef> for Bomb {
    fn run(&mut self, batch: &mut Batch<FrameRef>) {
        assert!(self.0 > 0, "a panic on purpose");
        self.0 -= 1;
        for tensor in &mut batch.outputs {
            tensor.row = tensor.data.len() / batch.jobs.capacity();
            tensor.data.fill(0.0);
        }
    }
}

fn bomb(like: &dyn Backend<FrameRef>, batches: u64, waker: &Waker) -> Box<dyn Backend<FrameRef>> {
    let capabilities = like.capabilities().clone();
    Box::new(Blocking::start(vec![Bomb(batches)], capabilities, waker).expect("a thread"))
}

/// It panics; the first try to build the next one fails, the second gives something else, the third works.
#[test]
fn an_accelerator_that_only_fails_is_replaced_as_soon_as_one_can_be_built() {
    let board = running::synthetic(2);
    let waker = Waker::new();
    let backend = bomb(running::simulated(&board).as_ref(), 20, &waker);
    let tries = Arc::new(AtomicUsize::new(0));
    let mut supervised = running::replacements(&board);
    supervised.backend = {
        let (tries, board) = (tries.clone(), board.clone());
        Arc::new(move |waker| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err("no device, for a test".to_owned()),
            1 => {
                let mut other = board.clone();
                other.accelerator.max_batch += 1;
                Ok(running::simulated(&other))
            }
            _ => Ok(bomb(running::simulated(&board).as_ref(), u64::MAX, waker)),
        })
    };
    let alive = Arc::new(AtomicU64::new(0));
    supervised.alive = {
        let alive = alive.clone();
        Box::new(move || {
            alive.fetch_add(1, Ordering::Relaxed);
        })
    };
    let sources = board.streams.iter().map(capture::open).collect();
    let mut run = running::start_supervised(&board, sources, (backend, waker), supervised);
    while tries.load(Ordering::Relaxed) < 3 {
        std::thread::sleep(ms(20));
    }
    let met = |run: &mut running::Run| run.look().streams.iter().map(|(ledger, ..)| ledger.met).sum::<u64>();
    let before = met(&mut run);
    while met(&mut run) < before + 20 {
        std::thread::sleep(ms(20));
    }
    let finished = run.stop();
    let total = finished.total();
    assert!(total.balances() && total.in_flight == 0, "{total:?}");
    assert!(total.dropped[DropReason::BackendFailed.index()] > 60, "two streams of 30 fps for seconds");
    let did = finished.interventions();
    assert_eq!((did.accelerators_given_up, did.accelerators_replaced), (1, 1), "{did:?}");
    assert!(alive.load(Ordering::Relaxed) > 10, "records left all the time, each with its reason");
}

/// Delivers what another source does, and takes its thread along at one frame.
struct Deadly(Box<dyn Source>, u64);

impl Source for Deadly {
    fn resume(&mut self, next: u64) {
        self.0.resume(next);
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        self.0.open(resources)
    }

    fn next(&mut self, until: Instant) -> Next {
        let next = self.0.next(until);
        assert!(!matches!(next, Next::Frame(Captured { sequence, .. }) if sequence == self.1), "on purpose");
        next
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        self.0.missed(now)
    }

    fn close(&mut self) {
        self.0.close();
    }
}

#[test]
fn a_capture_thread_that_dies_is_replaced_at_once() {
    let board = running::synthetic(3);
    let mut sources: Vec<Box<dyn Source>> = board.streams.iter().map(capture::open).collect();
    sources[1] = Box::new(Deadly(capture::open(&board.streams[1]), 15));
    let backend = (running::simulated(&board), Waker::new());
    let mut run = running::start_supervised(&board, sources, backend, running::replacements(&board));
    run.wait_for_frames(60);
    let finished = run.stop();
    let did = finished.interventions();
    assert_eq!(
        (did.captures_given_up, did.captures_replaced, did.captures_quarantined),
        (1, 1, 0),
        "{did:?}"
    );
    let sick = &finished.streams()[1];
    assert_eq!((sick.state, sick.failures), (StreamState::Full, 1));
    let down = sick.ledger.dropped[DropReason::SourceDown.index()];
    assert!((1..15).contains(&down), "the frame that it died of, and those of a look or two: {down}");
    assert!(finished.total().balances());
}

/// Without a camera there is nothing to publish: no reason to let the watchdogs bite.
#[test]
fn signs_of_life_go_on_without_cameras_and_stop_with_the_run() {
    let mut board = running::synthetic(1);
    board.streams[0].period = ms(3_600_000);
    let alive = Arc::new(AtomicU64::new(0));
    let mut supervised = running::replacements(&board);
    supervised.alive = {
        let alive = alive.clone();
        Box::new(move || {
            alive.fetch_add(1, Ordering::Relaxed);
        })
    };
    let sources = board.streams.iter().map(capture::open).collect();
    let backend = (running::simulated(&board), Waker::new());
    let run = running::start_supervised(&board, sources, backend, supervised);
    while alive.load(Ordering::Relaxed) < 5 {
        std::thread::sleep(ms(10));
    }
    run.stop();
    let at_end = alive.load(Ordering::Relaxed);
    std::thread::sleep(ms(500));
    assert_eq!(alive.load(Ordering::Relaxed), at_end);
}
