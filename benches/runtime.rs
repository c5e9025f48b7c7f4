//! What the runtime itself costs: CPU a frame, and latency beside a bare hand-off between threads.
//!
//! Cameras of 30 fps, evenly staggered, on a simulated accelerator (0.2 ms a batch), frames without pixels: no filling, no
//! pre-processing, no inference, hardly any decoding. Both figures come from rounds that alternate with a
//! bare hand-off of the same releases over three hops (release, accelerator, publisher, reader), made of the
//! same rings and wake-ups and nothing else. `cargo bench --bench runtime -- SECONDS STREAMS` sets a round's length
//! (10) and the number of cameras (16; no more than 128, or the accelerator has no time for them).
#![allow(clippy::print_stdout)] // What a bench prints is its result.

#[path = "../tests/common/mod.rs"]
mod common;

use common::running;
use ocelli::board::{Board, Realtime};
use ocelli::capture::{Captured, Next, Opened, Resources, Source, SourceError};
use ocelli::image::ImageLayout;
use ocelli::job::{DropReason, Lost};
use ocelli::platform::realtime::{self, Role};
use ocelli::platform::{Waker, clock};
use ocelli::ring::{Receiver, Sender, ring};
use ocelli::stats::Histogram;
use ocelli::time::Instant;
use rustix::time::ClockId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PERIOD: Duration = Duration::from_nanos(33_333_333);
const SERVICE: Duration = Duration::from_micros(200);
const ROUNDS: usize = 5;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let round = Duration::from_secs_f64(numbers.next().unwrap_or(10.0));
    let board = board(numbers.next().map_or(16, |streams| streams as usize).clamp(1, 128));
    let mut ratios = Vec::new();
    for number in 1..=ROUNDS {
        let (ours, cpu, frames) = runtime(&board, round);
        let (bare, bare_cpu) = bare(round, &board);
        println!(
            "round {number}: runtime {}, CPU {:.0} us a frame | bare hand-off {}, CPU {:.0} us a frame",
            show(&ours),
            cpu.as_secs_f64() * 1e6 / frames as f64,
            show(&bare),
            bare_cpu.as_secs_f64() * 1e6 / bare.count() as f64,
        );
        ratios.push(added(&ours, 0.999).as_secs_f64() / added(&bare, 0.999).as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "added latency at p99.9, runtime / bare hand-off: median {:.2} of {ratios:.2?}",
        ratios[ROUNDS / 2]
    );
}

fn board(streams: usize) -> Board {
    let mut board = running::synthetic(streams);
    board.accelerator.backend = ocelli::board::BackendSpec::Simulated {
        intercept: SERVICE,
        slope: Duration::ZERO,
        jitter: Duration::ZERO,
        seed: 0,
        fail_every: 0,
        hang_at: None,
    };
    board
}

fn runtime(board: &Board, round: Duration) -> (Histogram, Duration, u64) {
    let phases = phases(board);
    let sources = phases.map(|phase| Box::new(Bare { phase, ..Bare::default() }) as Box<dyn Source>);
    let before = cpu();
    let run = running::start_with(board, sources.collect());
    clock::sleep_until(clock::now() + round);
    let finished = run.stop();
    let total = finished.total();
    assert!(total.balances() && total.dropped_total() * 100 < total.captured, "{total:?}");
    (finished.latency(), cpu() - before, total.captured)
}

/// The streams' phases.
fn phases(board: &Board) -> impl Iterator<Item = Duration> {
    let streams = board.streams.len() as u32;
    (0..streams).map(move |index| PERIOD * index / streams)
}

/// A grid of releases that touches no pixel.
#[derive(Default)]
struct Bare {
    phase: Duration,
    next: u64,
    resources: Option<(Resources, ImageLayout)>,
}

impl Bare {
    fn at(&self, index: u64) -> Option<Instant> {
        let (resources, _) = self.resources.as_ref()?;
        Some(resources.start + self.phase + PERIOD * index as u32)
    }
}

impl Source for Bare {
    fn resume(&mut self, next: u64) {
        self.next = next;
    }

    fn open(&mut self, resources: &Resources) -> Result<Opened, SourceError> {
        let layout = ImageLayout::packed(ocelli::image::PixelFormat::Nv12, 64, 48);
        self.resources = Some((resources.clone(), layout));
        Ok(Opened { layout, notes: Vec::new() })
    }

    fn next(&mut self, until: Instant) -> Next {
        let Some(captured) = self.at(self.next) else { return Next::Nothing };
        if captured > until {
            clock::sleep_until(until);
            return Next::Nothing;
        }
        clock::sleep_until(captured);
        let sequence = self.next;
        self.next += 1;
        let Some((resources, layout)) = &self.resources else { return Next::Nothing };
        match resources.share.take().and_then(|slot| slot.freeze(*layout).ok()) {
            Some(frame) => Next::Frame(Captured { sequence, captured, frame }),
            None => Next::Lost(Lost { sequence, count: 1, captured, reason: DropReason::NoSlot }),
        }
    }

    fn missed(&mut self, now: Instant) -> Option<Lost> {
        while self.at(self.next)? < now {
            self.next += 1;
        }
        None
    }

    fn close(&mut self) {}
}

/// The same releases, handed from thread to thread to thread.
fn bare(round: Duration, board: &Board) -> (Histogram, Duration) {
    let before = cpu();
    let asked = &board.realtime;
    let stop = Arc::new(AtomicBool::new(false));
    let start = clock::now() + Duration::from_millis(5);
    let wakers: [Waker; 3] = std::array::from_fn(|_| Waker::new());
    let mut entrances = Vec::new();
    let mut threads = Vec::new();
    for phase in phases(board) {
        let (mut tx, rx) = ring::<Instant, 64>();
        entrances.push(rx);
        let (stop, wake, asked) = (stop.clone(), wakers[0].clone(), asked.clone());
        threads.push(std::thread::spawn(move || {
            let _place = realtime::enter(Role::Capture, &asked);
            let mut at = start + phase;
            while !stop.load(Ordering::Acquire) {
                clock::sleep_until(at);
                let _ = tx.enqueue(at);
                wake.wake();
                at = at + PERIOD;
            }
        }));
    }
    let (accelerator_tx, accelerator_rx) = ring::<Instant, 64>();
    let (reader_tx, reader_rx) = ring::<Instant, 64>();
    threads.push(relay(
        entrances,
        accelerator_tx,
        [wakers[0].clone(), wakers[1].clone()],
        SERVICE,
        stop.clone(),
        asked.clone(),
    ));
    threads.push(relay(
        vec![accelerator_rx],
        reader_tx,
        [wakers[1].clone(), wakers[2].clone()],
        Duration::ZERO,
        stop.clone(),
        asked.clone(),
    ));
    let reader = {
        let (stop, wake, asked) = (stop.clone(), wakers[2].clone(), asked.clone());
        let mut from = reader_rx;
        std::thread::spawn(move || {
            wake.attach();
            let _place = realtime::enter(Role::Publish, &asked);
            let mut latency = Histogram::default();
            while !stop.load(Ordering::Acquire) {
                while let Some(released) = from.dequeue() {
                    latency.record(clock::now().since(released));
                }
                wake.wait_until(None);
            }
            latency
        })
    };
    clock::sleep_until(start + round);
    stop.store(true, Ordering::Release);
    wakers.iter().for_each(Waker::wake);
    threads.into_iter().for_each(|thread| thread.join().expect("a relay"));
    let latency = reader.join().expect("the reader");
    (latency, cpu() - before)
}

fn relay(
    mut from: Vec<Receiver<Instant>>,
    mut to: Sender<Instant>,
    [own, next]: [Waker; 2],
    hold: Duration,
    stop: Arc<AtomicBool>,
    asked: Realtime,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        own.attach();
        let _place = realtime::enter(Role::Exec, &asked);
        while !stop.load(Ordering::Acquire) {
            for ring in &mut from {
                while let Some(released) = ring.dequeue() {
                    let until = clock::now() + hold;
                    while clock::now() < until {
                        own.wait_until(Some(until));
                    }
                    let _ = to.enqueue(released);
                    next.wake();
                }
            }
            own.wait_until(None);
        }
    })
}

/// Latency without the service time that every frame pays.
fn added(latency: &Histogram, quantile: f64) -> Duration {
    latency.quantile(quantile).unwrap_or_default().saturating_sub(SERVICE)
}

fn show(latency: &Histogram) -> String {
    let at = |q| added(latency, q).as_micros();
    format!("p50 {} us, p99 {} us, p99.9 {} us, max {} us", at(0.5), at(0.99), at(0.999), at(1.0))
}

fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
