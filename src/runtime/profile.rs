//! A first profile, measured at start on the board's own backend: a few seconds, no guarantee.

use crate::board::Board;
use crate::image::ImageLayout;
use crate::infer::Backend;
use crate::job::{Batch, BatchJob, Job};
use crate::platform::clock;
use crate::pool::{FrameRef, Pool};
use crate::sched::{Profile, Service};
use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use std::time::Duration;

/// Most time that all measurements together may take.
const BUDGET: Duration = Duration::from_secs(4);
/// Runs of each batch size: no fewer for a quantile, no more for a first plan.
const RUNS: std::ops::RangeInclusive<usize> = 3..=20;
/// Batches in a row that may fail.
const TOLERATED: usize = 2;
/// A batch that takes longer than this is taken for one that never ends.
const LONGEST: Duration = Duration::from_secs(30);

/// Measures l(b) of every model on `backend`, with frames of a stream that uses it. Nothing else may be
/// submitted meanwhile.
///
/// # Errors
/// When the backend refuses or fails a batch, or does not come back, or `stop` says so; in words.
pub fn measure(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    mut stop: impl FnMut() -> bool,
) -> Result<Profile, String> {
    let capabilities = backend.capabilities().clone();
    let mut batch = capabilities.new_batch();
    let sizes: Vec<Vec<u16>> =
        capabilities.batch_sizes.iter().map(|sizes| choose(sizes, board.accelerator.max_batch)).collect();
    let share = BUDGET / u32::try_from(sizes.iter().map(Vec::len).sum::<usize>().max(1)).unwrap_or(1);
    let mut tables = Vec::with_capacity(board.models.len());
    for (index, sizes) in sizes.iter().enumerate() {
        let model = ModelId(index as u8);
        let name = &board.models[index].id;
        let Some(stream) = board.streams.iter().position(|s| s.model == model) else {
            tables.push(Vec::new());
            continue;
        };
        let spec = &board.streams[stream];
        let slot = pool.share(StreamId(stream as u16)).take();
        let layout = ImageLayout::packed(spec.format, spec.width, spec.height);
        let frame = slot
            .and_then(|slot| slot.freeze(layout).ok())
            .ok_or_else(|| format!("no frame of stream {} to measure model {name} with", spec.id))?;
        let mut table = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let until = clock::now() + share;
            let mut services = Vec::with_capacity(*RUNS.end());
            let mut faults = 0;
            while services.len() < *RUNS.start() || (services.len() < *RUNS.end() && clock::now() < until) {
                if stop() {
                    return Err("stopped".to_owned());
                }
                batch.clear();
                batch.model = model;
                batch
                    .jobs
                    .extend((0..size).map(|_| BatchJob { job: test_job(model), payload: frame.clone() }));
                batch = run(backend, batch)
                    .ok_or_else(|| format!("model {name}, batch of {size}: not done after {LONGEST:?}"))?;
                match &batch.fault {
                    Some(fault) if faults == TOLERATED => {
                        return Err(format!("model {name}, batch of {size}: {}", fault.as_str()));
                    }
                    Some(_) => faults += 1,
                    None => {
                        faults = 0;
                        services.push(batch.service);
                    }
                }
            }
            services.sort_unstable();
            // The ninth decile: a single hiccup of a shared machine is not the accelerator's.
            let planned = services[(services.len() * 9).div_ceil(10) - 1];
            table.push((size, Service { fastest: services[0], planned }));
        }
        tables.push(table);
    }
    Ok(Profile::new(tables, true))
}

/// At most eight sizes: powers of two and the largest. Those between are planned as the next larger.
fn choose(sizes: &[u16], max_batch: u16) -> Vec<u16> {
    let allowed: Vec<u16> = sizes.iter().copied().filter(|&size| size <= max_batch).collect();
    let last = allowed.last().copied();
    allowed.into_iter().filter(|&size| size.is_power_of_two() || Some(size) == last).collect()
}

fn test_job(model: ModelId) -> Job {
    let now = clock::now();
    Job { stream: StreamId(0), sequence: 0, model, captured: now, arrived: now, deadline: now + LONGEST }
}

/// The batch when it comes back, with or without a fault; `None` when it does not.
fn run(backend: &mut dyn Backend<FrameRef>, mut batch: Box<Batch<FrameRef>>) -> Option<Box<Batch<FrameRef>>> {
    let start = clock::now();
    batch.submitted = start;
    if let Err(refused) = backend.submit(start, batch) {
        return Some(refused);
    }
    loop {
        let now = clock::now();
        if let Some(done) = backend.poll(now) {
            return Some(done);
        }
        if now.since(start) > LONGEST {
            return None;
        }
        clock::sleep_until(next_look(backend.poll_at(), now));
    }
}

fn next_look(due: Option<Instant>, now: Instant) -> Instant {
    due.unwrap_or(now + Duration::from_micros(200)).max(now + Duration::from_micros(10))
}
