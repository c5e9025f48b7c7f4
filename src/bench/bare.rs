//! The bare loop: the accelerator kept busy by nothing but a loop. What the runtime is measured against.

use crate::board::{Board, Stream};
use crate::image::ImageLayout;
use crate::infer::Backend;
use crate::job::{Batch, BatchJob, Job};
use crate::platform::{Waker, clock};
use crate::pool::{FrameRef, Pool};
use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use std::time::Duration;

/// Rounds in which the batch sizes take turns: a noisy minute then does not meet one size alone.
const ROUNDS: u32 = 3;
/// Batches that a size gets in a round at least.
const BATCHES: u32 = 3;
/// Most frames that take turns: as cameras' do, they don't stay in the caches.
const FRAMES: usize = 32;

/// Frames a second of each model, pre-processing included, at its best batch size.
#[derive(Clone, Debug, PartialEq)]
pub struct Bare {
    /// A rate a model, and the batch size that reached it.
    pub models: Vec<(f64, u16)>,
}

impl Bare {
    /// Measures every model until about `until`. The calling thread is the one that `waker` wakes.
    ///
    /// # Errors
    /// When the backend refuses or fails a batch; in words.
    pub fn measure(
        board: &Board,
        pool: &Pool,
        backend: &mut dyn Backend<FrameRef>,
        waker: &Waker,
        until: Instant,
    ) -> Result<Self, String> {
        let sizes = backend.capabilities().batch_sizes.clone();
        let models = sizes.len();
        let rates = sizes.iter().enumerate().map(|(index, sizes)| {
            let model = ModelId(index as u8);
            let mut frames = frames(board, pool, model)?;
            let sizes: Vec<u16> = chosen(sizes, board.accelerator.max_batch);
            let left = until.since(clock::now()) / (models - index) as u32;
            // Half of the time to find the best size, half for its rate: that of the best of several would be too good.
            let turns = u32::try_from(sizes.len()).unwrap_or(u32::MAX).saturating_mul(ROUNDS).max(1);
            let share = left / 2 / turns;
            let mut best = (0.0, 0);
            let mut spent = vec![(Duration::ZERO, 0_u32); sizes.len()];
            for _ in 0..ROUNDS {
                for (&size, (time, batches)) in sizes.iter().zip(&mut spent) {
                    let (took, made) = turn(backend, waker, model, &mut frames, size, share)?;
                    *time += took;
                    *batches += made;
                }
            }
            let rate = |size: u16, (time, batches): (Duration, u32)| {
                f64::from(size) * f64::from(batches) / time.as_secs_f64()
            };
            for (&size, &spent) in sizes.iter().zip(&spent) {
                if rate(size, spent) > best.0 {
                    best = (rate(size, spent), size);
                }
            }
            let (_, size) = best;
            Ok((rate(size, turn(backend, waker, model, &mut frames, size, left / 2)?), size))
        });
        Ok(Self { models: rates.collect::<Result<_, String>>()? })
    }

    /// Largest number of streams like the board's whose frames it could compute, in the board's order and
    /// again from the start.
    #[must_use]
    pub fn streams(&self, board: &Board, most: usize) -> usize {
        let mut used = 0.0;
        let fits = |stream: &&Stream| {
            used += self.load(stream);
            used <= 1.0
        };
        board.streams.iter().cycle().take(most).take_while(fits).count()
    }

    /// Frames a second when the streams of `board` take turns as often as their periods say.
    #[must_use]
    pub fn rate(&self, board: &Board) -> f64 {
        let frames: f64 = board.streams.iter().map(|stream| 1.0 / stream.period.as_secs_f64()).sum();
        let load: f64 = board.streams.iter().map(|stream| self.load(stream)).sum();
        frames / load
    }

    fn load(&self, stream: &Stream) -> f64 {
        let rate = self.models.get(stream.model.index()).map_or(0.0, |(rate, _)| *rate);
        1.0 / (stream.period.as_secs_f64() * rate)
    }
}

/// Powers of two and the largest.
fn chosen(sizes: &[u16], max_batch: u16) -> Vec<u16> {
    let allowed: Vec<u16> = sizes.iter().copied().filter(|&size| size <= max_batch).collect();
    let last = allowed.last().copied();
    allowed.into_iter().filter(|&size| size.is_power_of_two() || Some(size) == last).collect()
}

/// The largest frames that the model gets, without end.
fn frames(
    board: &Board,
    pool: &Pool,
    model: ModelId,
) -> Result<impl Iterator<Item = FrameRef> + use<>, String> {
    let streams = board.streams.iter().enumerate().filter(|(_, stream)| stream.model == model);
    let (index, stream) = streams
        .max_by_key(|(_, stream)| u64::from(stream.width) * u64::from(stream.height))
        .ok_or_else(|| format!("no stream uses model {}", board.models[model.index()].id))?;
    let layout = ImageLayout::packed(stream.format, stream.width, stream.height);
    let share = pool.share(StreamId(index as u16));
    let slots = std::iter::from_fn(|| share.take()).take(FRAMES);
    let filled = slots.filter_map(|mut slot| {
        // Memory that nobody wrote to costs less to read.
        slot.bytes_mut().iter_mut().enumerate().for_each(|(index, byte)| *byte = (index / 7) as u8);
        slot.freeze(layout).ok()
    });
    let frames: Vec<FrameRef> = filled.collect();
    if frames.is_empty() {
        return Err(format!("no frame of stream {} to measure with", stream.id));
    }
    Ok(frames.into_iter().cycle())
}

/// Batches of one size, as many at work at once as the backend takes: how long, and how many.
fn turn(
    backend: &mut dyn Backend<FrameRef>,
    waker: &Waker,
    model: ModelId,
    frames: &mut impl Iterator<Item = FrameRef>,
    size: u16,
    share: Duration,
) -> Result<(Duration, u32), String> {
    let at_once = backend.capabilities().in_flight();
    let mut spare: Vec<Box<Batch<FrameRef>>> =
        (0..at_once).map(|_| backend.capabilities().new_batch()).collect();
    let start = clock::now();
    let (mut submitted, mut done) = (0, 0);
    loop {
        let more = submitted < BATCHES || clock::now() < start + share;
        while more && let Some(mut batch) = spare.pop() {
            batch.clear();
            batch.model = model;
            let now = clock::now();
            let deadline = now + Duration::from_secs(1);
            let job = Job { stream: StreamId(0), sequence: 0, model, captured: now, arrived: now, deadline };
            let frames = frames.by_ref().take(size.into());
            batch.jobs.extend(frames.map(|payload| BatchJob { job, payload }));
            backend.submit(now, batch).map_err(|batch| format!("batch of {size}: {:?}", batch.fault))?;
            submitted += 1;
        }
        if submitted == done {
            return Ok((clock::now().since(start), done));
        }
        match backend.poll(clock::now()) {
            Some(batch) => {
                if let Some(fault) = &batch.fault {
                    return Err(format!("batch of {size}: {}", fault.as_str()));
                }
                done += 1;
                spare.push(batch);
            }
            None => waker.wait_until(backend.poll_at()),
        }
    }
}
