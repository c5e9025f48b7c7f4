//! Service times, measured on the board's own backend: in a few seconds at start for a first plan, or at
//! length for a profile that is kept and that a guarantee can stand on.

use crate::board::Board;
use crate::image::ImageLayout;
use crate::infer::Backend;
use crate::job::{Batch, BatchJob, Job};
use crate::platform::clock;
use crate::pool::{FrameRef, Pool};
use crate::runtime::stored::Timing;
use crate::sched::{Profile, Service};
use crate::stream::{ModelId, StreamId};
use crate::time::{Instant, nanos};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Most time that all measurements of a first plan together may take.
const BUDGET: Duration = Duration::from_secs(4);
/// Runs of each batch size: no fewer for a quantile, no more for a first plan.
const RUNS: RangeInclusive<usize> = 3..=20;
/// Runs of each batch size for a profile that is kept, and those before them that do not count.
const KEPT_RUNS: RangeInclusive<usize> = 100..=2000;
const WARM_UP: usize = 5;
/// Batches in a row that may fail.
const TOLERATED: usize = 2;
/// A batch that takes longer than this is taken for one that never ends.
const LONGEST: Duration = Duration::from_secs(30);

/// What is planned for a batch that is refused: that takes no time at the accelerator.
const REFUSING: Duration = Duration::from_micros(1);

/// Why there are no service times, in words.
enum Trouble {
    /// The backend takes no batch of the model.
    Refused(String),
    /// Anything else.
    Failed(String),
}

impl Trouble {
    fn words(self) -> String {
        let (Self::Refused(why) | Self::Failed(why)) = self;
        why
    }
}

/// Measures l(b) of every model on `backend` in a few seconds, one batch at a time. Nothing else may be
/// submitted meanwhile. A model that the backend refuses, as one that it has stopped, costs the others nothing.
///
/// # Errors
/// When the backend refuses every model, fails a batch, or does not come back, or `stop` says so; in words.
pub fn measure(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    mut stop: impl FnMut() -> bool,
) -> Result<Profile, String> {
    let capabilities = backend.capabilities().clone();
    let sizes: Vec<Vec<u16>> =
        capabilities.batch_sizes.iter().map(|sizes| choose(sizes, board.accelerator.max_batch)).collect();
    let share = share(BUDGET, &sizes);
    let spare = vec![capabilities.new_batch()];
    let mut bench = Bench { board, pool, backend, spare, stop: &mut stop };
    let mut table = |model: ModelId, size: u16| {
        let services = bench.services(model, size, share, 0, RUNS)?;
        // The ninth decile: a single hiccup of a shared machine is not the accelerator's.
        Ok::<_, Trouble>((size, Service { fastest: services[0], planned: quantile(&services, 900) }))
    };
    let mut tables = Vec::with_capacity(sizes.len());
    let mut refused = Vec::new();
    for (index, sizes) in sizes.iter().enumerate() {
        let model = ModelId(index as u8);
        match sizes.iter().map(|&size| table(model, size)).collect::<Result<Vec<_>, _>>() {
            Ok(table) => tables.push(table),
            Err(Trouble::Refused(why)) => {
                let service = Service { fastest: REFUSING, planned: REFUSING };
                tables.push(sizes.iter().map(|&size| (size, service)).collect());
                refused.push(why);
            }
            Err(Trouble::Failed(why)) => return Err(why),
        }
    }
    if refused.len() == tables.len() {
        return Err(refused.join("; "));
    }
    refused.iter().for_each(|why| log::warn!("{why}: its frames will have no result"));
    Ok(Profile::new(tables, true))
}

/// Measures l(b) of every model for every batch size that the board allows, for `budget` in all and for at
/// least 100 batches each, with as many batches at work at once as the backend takes. A table a model.
///
/// # Errors
/// As [`measure`].
pub fn measure_fully(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    budget: Duration,
) -> Result<Vec<Vec<Timing>>, String> {
    measure_for(board, pool, backend, budget, KEPT_RUNS)
}

/// As [`measure_fully`], with another number of batches of each size: at least and at most.
///
/// # Errors
/// As [`measure`].
pub fn measure_for(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    budget: Duration,
    runs: RangeInclusive<usize>,
) -> Result<Vec<Vec<Timing>>, String> {
    let capabilities = backend.capabilities().clone();
    let allowed = |sizes: &Vec<u16>| -> Vec<u16> {
        sizes.iter().copied().filter(|&size| size <= board.accelerator.max_batch).collect()
    };
    let sizes: Vec<Vec<u16>> = capabilities.batch_sizes.iter().map(allowed).collect();
    let share = share(budget, &sizes);
    let spare = (0..capabilities.in_flight()).map(|_| capabilities.new_batch()).collect();
    let mut bench = Bench { board, pool, backend, spare, stop: &mut || false };
    let mut tables = Vec::with_capacity(sizes.len());
    for (index, sizes) in sizes.iter().enumerate() {
        let mut table = Vec::with_capacity(sizes.len());
        for &jobs in sizes {
            let services = bench
                .services(ModelId(index as u8), jobs, share, WARM_UP, runs.clone())
                .map_err(Trouble::words)?;
            table.push(Timing {
                jobs,
                runs: services.len(),
                fastest_ns: nanos(services[0]),
                p50_ns: nanos(quantile(&services, 500)),
                p99_ns: nanos(quantile(&services, 990)),
                p99_9_ns: nanos(quantile(&services, 999)),
                max_ns: nanos(services[services.len() - 1]),
            });
        }
        tables.push(table);
    }
    Ok(tables)
}

fn share(budget: Duration, sizes: &[Vec<u16>]) -> Duration {
    budget / u32::try_from(sizes.iter().map(Vec::len).sum::<usize>().max(1)).unwrap_or(1)
}

/// The value that `per_mille` of sorted values do not exceed.
fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() * per_mille).div_ceil(1000).max(1) - 1]
}

/// A backend with nothing else to do.
struct Bench<'a> {
    board: &'a Board,
    pool: &'a Pool,
    backend: &'a mut dyn Backend<FrameRef>,
    /// As many as are to be at work at once.
    #[allow(clippy::vec_box)] // The boxes themselves go round.
    spare: Vec<Box<Batch<FrameRef>>>,
    /// Whether to give up.
    stop: &'a mut dyn FnMut() -> bool,
}

impl Bench<'_> {
    /// Sorted service times of batches of `size`, with the largest frames that the model gets.
    fn services(
        &mut self,
        model: ModelId,
        size: u16,
        share: Duration,
        warm_up: usize,
        runs: RangeInclusive<usize>,
    ) -> Result<Vec<Duration>, Trouble> {
        let name = &self.board.models[model.index()].id;
        let streams = self
            .board
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.model == model || stream.watch.cheaper_model == Some(model));
        let (stream, spec) = streams
            .max_by_key(|(_, stream)| u64::from(stream.width) * u64::from(stream.height))
            .ok_or_else(|| Trouble::Failed(format!("no stream uses model {name}")))?;
        let layout = ImageLayout::packed(spec.format, spec.width, spec.height);
        let slot = self.pool.share(StreamId(stream as u16)).take();
        let frame = slot.and_then(|slot| slot.freeze(layout).ok()).ok_or_else(|| {
            Trouble::Failed(format!("no frame of stream {} to measure model {name} with", spec.id))
        })?;
        let (least, most) = (runs.start() + warm_up, runs.end() + warm_up);
        let until = clock::now() + share;
        let mut services = Vec::with_capacity(most);
        let mut faults = 0;
        while services.len() < least || (services.len() < most && clock::now() < until) {
            if (self.stop)() {
                return Err(Trouble::Failed("stopped".to_owned()));
            }
            let at_work = self.spare.len();
            while let Some(mut batch) = self.spare.pop() {
                batch.clear();
                batch.model = model;
                let job = test_job(model);
                batch.jobs.extend((0..size).map(|_| BatchJob { job, payload: frame.clone() }));
                batch.submitted = job.captured;
                if let Err(refused) = self.backend.submit(job.captured, batch) {
                    let why = refused.fault.as_ref().map_or("refused", |fault| fault.as_str());
                    return Err(Trouble::Refused(said(name, size, why)));
                }
            }
            for _ in 0..at_work {
                let mut batch = come_back(self.backend).ok_or_else(|| {
                    Trouble::Failed(said(name, size, &format!("not done after {LONGEST:?}")))
                })?;
                match &batch.fault {
                    Some(fault) if faults == TOLERATED => {
                        return Err(Trouble::Failed(said(name, size, fault.as_str())));
                    }
                    Some(_) => faults += 1,
                    None => {
                        faults = 0;
                        services.push(batch.service);
                    }
                }
                batch.clear();
                self.spare.push(batch);
            }
        }
        services.drain(..warm_up);
        services.sort_unstable();
        Ok(services)
    }
}

fn said(model: &str, size: u16, why: &str) -> String {
    format!("model {model}, batch of {size}: {why}")
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

/// The next batch that comes back, with or without a fault; `None` when none does.
fn come_back(backend: &mut dyn Backend<FrameRef>) -> Option<Box<Batch<FrameRef>>> {
    let start = clock::now();
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
