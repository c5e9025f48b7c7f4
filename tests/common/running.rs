//! A real run inside the test: real threads, a simulated accelerator.

use ocelli::board::{BackendSpec, Board, SourceSpec};
use ocelli::capture;
use ocelli::decode::{Decoder, blank_outputs};
use ocelli::image::PixelFormat;
use ocelli::infer::Backend;
use ocelli::infer::simulated::{Settings, Simulated};
use ocelli::platform::Waker;
use ocelli::pool::{FrameRef, Pool};
use ocelli::publish;
use ocelli::runtime::{self, Finished, Parts, Running, Snapshot, Supervised};
use ocelli::sched::{Profile, Schedule};
use ocelli::stats::Copies;
use std::sync::Arc;
use std::time::Duration;

/// `count` synthetic streams of 30 fps, their phases evenly spread, on a fast accelerator.
pub fn synthetic(count: usize) -> Board {
    let period = Duration::from_nanos(33_333_333);
    let streams = (0..count).map(|index| {
        let mut stream = super::stream(&format!("s{index}"), period, Duration::from_millis(500));
        stream.source = SourceSpec::Synthetic {
            phase: period * index as u32 / count as u32,
            jitter: Duration::ZERO,
            seed: index as u64,
        };
        (stream.width, stream.height, stream.format) = (64, 48, PixelFormat::Nv12);
        stream
    });
    super::board(streams.collect(), Duration::from_micros(100), Duration::from_micros(100), 8)
}

/// A run in progress.
pub struct Run {
    running: Running,
    view: Option<Box<Snapshot>>,
}

/// Starts a board with its own sources, without outputs.
pub fn start(board: &Board) -> Run {
    let sources = board.streams.iter().map(capture::open).collect();
    start_with(board, sources)
}

/// Starts a board with other sources, admitted by utilisation.
pub fn start_with(board: &Board, sources: Vec<Box<dyn capture::Source>>) -> Run {
    start_planned(board, sources, super::profile(board))
}

/// Starts a board with other sources, admitted by this profile.
pub fn start_planned(board: &Board, sources: Vec<Box<dyn capture::Source>>, profile: Profile) -> Run {
    start_parts(board, sources, (simulated(board), Waker::new()), |_, _| profile, None)
}

/// Starts a board with other sources on another backend, which wakes through `waker`; `supervised` heals.
pub fn start_supervised(
    board: &Board,
    sources: Vec<Box<dyn capture::Source>>,
    (backend, waker): (Box<dyn Backend<FrameRef>>, Waker),
    supervised: Supervised,
) -> Run {
    let profile = super::profile(board);
    start_parts(board, sources, (backend, waker), |_, _| profile, Some(supervised))
}

/// What replaces the board's own sources and its simulated accelerator.
pub fn replacements(board: &Board) -> Supervised {
    let (cameras, accelerator) = (board.clone(), board.clone());
    Supervised {
        source: Arc::new(move |stream| capture::open(&cameras.streams[stream.index()])),
        backend: Arc::new(move |_| Ok(simulated(&accelerator))),
        alive: Box::new(|| {}),
    }
}

/// The board's simulated accelerator.
pub fn simulated(board: &Board) -> Box<dyn Backend<FrameRef>> {
    let BackendSpec::Simulated { intercept, slope, .. } = board.accelerator.backend else {
        panic!("a simulated board");
    };
    let blank = board.models.iter().map(blank_outputs).collect();
    Box::new(Simulated::new(Settings::linear(intercept, slope), board.accelerator.max_batch, blank))
}

/// Starts a board on another backend, which wakes through `waker`.
pub fn start_on(board: &Board, backend: Box<dyn Backend<FrameRef>>, waker: Waker) -> Run {
    let sources = board.streams.iter().map(capture::open).collect();
    let profile = |pool: &Pool, backend: &mut dyn Backend<FrameRef>| {
        runtime::measure(board, pool, backend, || false).expect("a profile").profile
    };
    start_parts(board, sources, (backend, waker), profile, None)
}

fn start_parts(
    board: &Board,
    sources: Vec<Box<dyn capture::Source>>,
    (mut backend, waker): (Box<dyn Backend<FrameRef>>, Waker),
    profile: impl FnOnce(&Pool, &mut dyn Backend<FrameRef>) -> Profile,
    supervised: Option<Supervised>,
) -> Run {
    let rows = &backend.capabilities().output_rows;
    let decoders =
        board.models.iter().zip(rows).map(|(model, rows)| Decoder::new(model, rows).expect("a decoder"));
    let decoders = decoders.collect();
    let shares = runtime::shares(board, backend.capabilities().in_flight());
    let pool = Pool::read_by(backend.reader(), &shares, false).expect("memory");
    let profile = profile(&pool, backend.as_mut());
    let board = Arc::new(board.clone());
    let parts = Parts {
        board: board.clone(),
        schedule: Schedule::admit(&board, profile).expect("admitted"),
        pool,
        sources,
        backend,
        waker,
        decoders,
        outputs: publish::start(&[], &board, "test").expect("no outputs"),
        pictures: None,
        copies: Arc::new(Copies::default()),
        supervised,
        sensors: None,
    };
    let running = Running::start(parts, || false).expect("threads");
    let view = Some(running.new_snapshot());
    Run { running, view }
}

impl Run {
    /// A fresh view of the run.
    pub fn look(&mut self) -> &Snapshot {
        let view = self.view.take().expect("asked one at a time");
        self.running.ask(view);
        loop {
            if let Some(view) = self.running.answer() {
                return self.view.insert(view);
            }
            assert!(!self.running.is_broken(), "a thread has died");
            std::thread::yield_now();
        }
    }

    /// Waits until every stream has captured this many frames.
    pub fn wait_for_frames(&mut self, frames: u64) {
        while self.look().streams.iter().any(|(ledger, ..)| ledger.captured < frames) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Ends the run.
    pub fn stop(self) -> Finished {
        self.running.stop().expect("no thread died")
    }
}
