//! Real inference: frames a second that are in time, ours beside a bare loop and beside what is usually built.
//!
//! Person detector int8 on ONNX Runtime, 640x360 NV12 frames in memory, bound 100 ms, cameras of 30 fps staggered,
//! pre-processing and, but for the bare loop, decoding included. Capacity is the bare loop's rate: the
//! better of one session with two threads and two sessions with one, at its best batch size up to 8, without
//! deadlines. Ours has batches as large as the board says. At 0.95, 1, 1.5 and 2 times that, in alternated rounds:
//!
//! - ours: the runtime, every stream served, no stream guaranteed;
//! - thread per camera: every frame goes alone to the one session, in the order of arrival;
//! - greedy batching: the session takes what is there, up to the largest batch;
//! - both with queues without end, and with the newest frame of each camera only.
//!
//! `cargo bench --bench inference -- SECONDS ROUNDS` sets a round's length (5) and how many there are (5).
#![allow(clippy::print_stdout)] // What a bench prints is its result.

use ocelli::bench::{Bare, Opened, Percentile, Probe, Releases, Settings, Sources, Trouble};
use ocelli::board::{BackendSpec, Board};
use ocelli::decode::Decoder;
use ocelli::detection::Detections;
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::Backend;
use ocelli::infer::onnxruntime::{self, OnnxRuntime};
use ocelli::job::{Batch, BatchJob, DropReason, Job};
use ocelli::platform::idle::Shallow;
use ocelli::platform::{Waker, clock};
use ocelli::pool::{FrameRef, Pool, ShareSpec};
use ocelli::runtime;
use ocelli::sched::Profile;
use ocelli::stats::Ledger;
use ocelli::stream::{ModelId, StreamId};
use ocelli::time::Instant;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FRAME: (PixelFormat, u32, u32) = (PixelFormat::Nv12, 640, 360);
const BOUND: Duration = Duration::from_millis(100);
const FPS: f64 = 30.0;
/// Frames of a baseline's camera, in turns.
const SLOTS: usize = 4;
/// At the first all frames are to be in time, and at the second nearly all; then there is too much.
const LOADS: [f64; 4] = [0.95, 1.0, 1.5, 2.0];

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let seconds = Duration::from_secs_f64(numbers.next().unwrap_or(5.0));
    let rounds = numbers.next().unwrap_or(5.0) as usize;
    // For all of them alike, as the runtime asks for it where a board does not say no.
    let _shallow = Shallow::request().inspect_err(|refused| println!("{refused}"));
    let template = board()?;

    // One session with two threads or two with one: alternated, and the better one is used below.
    let split = [(1, 2), (2, 1)];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (rates, &(sessions, threads)) in rates.iter_mut().zip(&split) {
            rates.push(capacity(&set(&template, sessions, threads), seconds)?.models[0]);
        }
    }
    let rates = rates.map(|mut rates: Vec<(f64, u16)>| {
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        rates[rates.len() / 2]
    });
    for ((sessions, threads), (rate, batch)) in split.iter().zip(&rates) {
        println!("bare loop, sessions {sessions}, threads {threads}: {rate:.1} frames/s, batches of {batch}");
    }
    let better = usize::from(rates[1].0 > rates[0].0);
    let board = set(&template, split[better].0, split[better].1);

    let mut own = board.clone();
    own.accelerator.max_batch = host()?.accelerator.max_batch;
    let mut backend = open(&own, &Waker::new())?;
    let plan = runtime::measure(&own, &pool(&own, 1)?, &mut backend, || false)?.profile;
    drop(backend);
    for jobs in 1..=plan.max_batch(ModelId(0)) {
        if let Some(service) = plan.service(ModelId(0), jobs) {
            println!(
                "batches of {jobs}: {:.2?} planned, {:.2?} at the least",
                service.planned, service.fastest
            );
        }
    }

    let names = ["ours", "thread, all", "thread, newest", "greedy, all", "greedy, newest"];
    for load in LOADS {
        let mut met = vec![Vec::new(); names.len()];
        let (mut against, mut ledger, mut within) = (Vec::new(), Ledger::default(), 0);
        for round in 0..rounds {
            let (rate, _) = capacity(&board, seconds / 2)?.models[0];
            let streams = ((rate * load / FPS).floor() as usize).max(1);
            let fps = rate * load / streams as f64;
            // Each has each place among the others: a machine that tires, tires for all.
            for index in (0..names.len()).map(|turn| (turn + round) % names.len()) {
                let in_time = match index {
                    0 => {
                        let probe = ours(&own, &plan, streams, fps / FPS, seconds)?;
                        ledger.add(&probe.ledger);
                        within += usize::from(probe.latency.p99.is_some_and(|p99| p99 <= BOUND));
                        let (beside, _) = capacity(&board, seconds / 2)?.models[0];
                        against.push(probe.rate() / f64::midpoint(rate, beside));
                        probe.rate()
                    }
                    _ => {
                        let largest = if index < 3 { 1 } else { board.accelerator.max_batch };
                        baseline(&board, streams, fps, seconds, largest, index % 2 == 0)?
                    }
                };
                met[index].push(in_time);
            }
        }
        println!("offered {load} of capacity: ours / bare loop {}", spread(&mut against));
        let medians: Vec<f64> = met.iter_mut().map(|met| median(met)).collect();
        for (name, median) in names.iter().zip(&medians) {
            println!("  {name:<15} {median:7.1} frames/s in time, {:.3} of ours", median / medians[0]);
        }
        println!("  of ours {}; p99 within the bound in {within} of {rounds} rounds", missed(&ledger));
    }
    Ok(())
}

fn host() -> Fallible<Board> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(Board::load(&root.join("boards/host.toml")).map_err(|problems| problems.to_string())?)
}

fn board() -> Fallible<Board> {
    let mut board = host()?;
    board.streams.truncate(1);
    let stream = &mut board.streams[0];
    (stream.format, stream.width, stream.height) = FRAME;
    (stream.period, stream.latency_bound) = (Duration::from_secs_f64(1.0 / FPS), BOUND);
    board.accelerator.max_batch = 8;
    Ok(board)
}

fn set(template: &Board, sessions: u16, threads: u16) -> Board {
    let mut board = template.clone();
    if let BackendSpec::OnnxRuntime { sessions: s, threads: t, .. } = &mut board.accelerator.backend {
        (*s, *t) = (sessions, threads);
    }
    board
}

fn open(board: &Board, waker: &Waker) -> Fallible<OnnxRuntime> {
    let BackendSpec::OnnxRuntime { library, sessions, threads } = &board.accelerator.backend else {
        return Err("the host's board runs on ONNX Runtime".into());
    };
    let settings = onnxruntime::Settings {
        library: library.as_deref(),
        sessions: *sessions,
        threads: *threads,
        max_batch: board.accelerator.max_batch,
    };
    Ok(OnnxRuntime::open(&settings, &board.models, &[vec![FRAME]], waker)?)
}

fn capacity(board: &Board, time: Duration) -> Fallible<Bare> {
    let waker = Waker::new();
    std::thread::scope(|scope| {
        // A waker wakes one thread for good.
        let measured = scope.spawn(|| {
            waker.attach();
            let mut backend = open(board, &waker).map_err(|error| error.to_string())?;
            let pool = pool(board, 8 * SLOTS).map_err(|error| error.to_string())?;
            Bare::measure(board, &pool, &mut backend, &waker, clock::now() + time)
        });
        measured.join().map_err(|_| "the bare loop died")?.map_err(Into::into)
    })
}

fn pool(board: &Board, slots: usize) -> Fallible<Pool> {
    let stream = &board.streams[0];
    let layout = ImageLayout::packed(stream.format, stream.width, stream.height);
    let slot_bytes = layout.extent().ok_or("the size is sound")?;
    Ok(Pool::new(&[ShareSpec { slots, slot_bytes }], false)?)
}

/// Why a run of ours was not made.
struct Failed(Box<dyn std::error::Error>);

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self(trouble.into())
    }
}

/// What became of the frames that were not in time, in % of all.
fn missed(ledger: &Ledger) -> String {
    let reasons = DropReason::ALL.iter().map(|reason| (reason.as_str(), ledger.dropped[reason.index()]));
    let all = std::iter::once(("late", ledger.late)).chain(reasons).filter(|&(_, frames)| frames > 0);
    let percent = |frames: u64| 100.0 * frames as f64 / ledger.captured as f64;
    let all: Vec<String> = all.map(|(why, frames)| format!("{why} {:.1} %", percent(frames))).collect();
    all.join(", ")
}

/// The runtime.
fn ours(board: &Board, plan: &Profile, streams: usize, rate: f64, time: Duration) -> Fallible<Probe> {
    let settings = Settings {
        percentile: Percentile::P99,
        releases: Releases::Staggered,
        sources: Sources::Memory,
        seed: 0,
        probe: time,
        confirmations: 0,
        confirmation: None,
        profile: Duration::from_secs(1),
        retries: 0,
        most: streams,
        finer: false,
        overload: false,
        sweep: false,
    };
    let mut opener = |board: &Board, waker: &Waker| {
        let backend = Box::new(open(board, waker).map_err(Failed)?) as Box<dyn Backend<FrameRef>>;
        let shares = runtime::shares(board, backend.capabilities().in_flight());
        let pool = Pool::new(&shares, false).map_err(|error| Failed(error.into()))?;
        Ok(Opened { backend, pool })
    };
    let offer = ocelli::bench::Offer { streams, rate };
    ocelli::bench::once(board, &settings, plan.clone(), offer, &mut opener).map_err(|Failed(error)| error)
}

/// Frames in time a second without our runtime: a thread a camera, a queue, and a thread that drives the session.
fn baseline(
    board: &Board,
    streams: usize,
    fps: f64,
    time: Duration,
    largest: u16,
    newest: bool,
) -> Fallible<f64> {
    std::thread::scope(|scope| {
        let run = scope
            .spawn(|| drive(board, streams, fps, time, (largest, newest)).map_err(|error| error.to_string()));
        run.join().map_err(|_| "a baseline died")?.map_err(Into::into)
    })
}

fn drive(
    board: &Board,
    streams: usize,
    fps: f64,
    time: Duration,
    (largest, newest): (u16, bool),
) -> Fallible<f64> {
    let waker = Waker::new();
    waker.attach();
    let mut backend = open(board, &waker)?;
    // Each camera has frames of its own, as cameras have: one for all would never leave the caches.
    let share = pool(board, SLOTS * streams)?.share(StreamId(0));
    let layout = ImageLayout::packed(FRAME.0, FRAME.1, FRAME.2);
    let mut slots = Vec::with_capacity(SLOTS * streams);
    while let Some(mut slot) = share.take() {
        slot.bytes_mut().iter_mut().enumerate().for_each(|(index, byte)| *byte = (index / 7) as u8);
        slots.push(slot.freeze(layout).map_err(|_| "the slot is as large as a frame")?);
    }
    let mut decoder = Decoder::new(&board.models[0], &backend.capabilities().output_rows[0])?;
    let mut detections = Detections::new();
    // Results are decoded while the session is at the next ones.
    let most = backend.capabilities().in_flight();
    let mut spare: Vec<_> = (0..2 * most).map(|_| backend.capabilities().new_batch()).collect();
    let mut done = Vec::with_capacity(most);

    // Releases of all cameras together come evenly: camera k's is the (k + n * streams)-th.
    let gap = Duration::from_secs_f64(1.0 / (fps * streams as f64));
    let start = clock::now() + Duration::from_millis(50);
    let released = |index: u32| start + gap * index;
    let frames = (time.as_secs_f64() / gap.as_secs_f64()) as u32;
    let queue: Mutex<VecDeque<Waiting>> = Mutex::default();
    let waiting = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let camera = |camera: usize| {
        let own = slots[SLOTS * camera..][..SLOTS].iter().cycle();
        for (index, frame) in (camera as u32..frames).step_by(streams).zip(own) {
            let captured = released(index);
            clock::sleep_until(captured);
            let mut queue = waiting();
            if newest {
                queue.retain(|other| other.camera != camera);
            }
            queue.push_back(Waiting { camera, captured, frame });
            drop(queue);
            waker.wake();
        }
    };
    std::thread::scope(|scope| {
        (0..streams).for_each(|number| drop(scope.spawn(move || camera(number))));
        let (mut met, mut in_flight) = (0_u32, 0);
        // What is done after the last frame's deadline is late.
        let end = released(frames) + BOUND;
        while clock::now() < end {
            while let Some(batch) = backend.poll(clock::now()) {
                in_flight -= 1;
                done.push(batch);
            }
            while in_flight < most
                && let Some(mut batch) = spare.pop()
            {
                fill(&mut batch, &mut waiting(), largest);
                if batch.jobs.is_empty() {
                    spare.push(batch);
                    break;
                }
                backend.submit(clock::now(), batch).map_err(|batch| format!("refused: {:?}", batch.fault))?;
                in_flight += 1;
            }
            for batch in done.drain(..) {
                for (index, member) in batch.jobs.iter().enumerate() {
                    let rows: Vec<&[f32]> = batch.outputs.iter().map(|tensor| tensor.row(index)).collect();
                    decoder.decode(&rows, (FRAME.1, FRAME.2), &mut detections)?;
                    met += u32::from(clock::now() <= member.job.deadline);
                }
                spare.push(batch);
            }
            waker.wait_until(Some(end));
        }
        Ok(f64::from(met) / time.as_secs_f64())
    })
}

/// A frame that waits for the session.
struct Waiting<'a> {
    camera: usize,
    captured: Instant,
    frame: &'a FrameRef,
}

fn fill(batch: &mut Batch<FrameRef>, queue: &mut VecDeque<Waiting<'_>>, largest: u16) {
    batch.clear();
    batch.model = ModelId(0);
    for Waiting { camera, captured, frame } in queue.drain(..queue.len().min(largest.into())) {
        let job = Job {
            stream: StreamId(camera as u16),
            sequence: 0,
            model: ModelId(0),
            captured,
            arrived: captured,
            deadline: captured + BOUND,
        };
        batch.jobs.push(BatchJob { job, payload: frame.clone() });
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &mut [f64]) -> String {
    let median = median(values);
    format!("median {median:.3} of {values:.3?}")
}
