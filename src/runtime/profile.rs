//! Service times, measured on the board's own backend: in a few seconds at start for a first plan, or at
//! length for a profile that is kept and that a guarantee can stand on.
//!
//! Beside them how long each model's results take to decode, on the thread that measures.
//!
//! Each unit of the backend has times of its own: the times of two that are not alike have no quantiles that mean
//! anything. And what runs beside a batch makes it longer: so all lanes are kept at work, and, where there are several
//! units, those of the first alone as well.

use crate::board::Board;
use crate::decode::Decoder;
use crate::detection::Detections;
use crate::image::ImageLayout;
use crate::infer::Backend;
use crate::job::{Batch, BatchFault, BatchJob, Job};
use crate::platform::clock;
use crate::pool::{FrameRef, Pool};
use crate::runtime::arrangement::{Arrangement, Choice, Decodings, Measured, Timing, UnitTimes};
use crate::stream::{ModelId, StreamId};
use crate::time::Instant;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Most time that all measurements of a first plan together may take.
const BUDGET: Duration = Duration::from_secs(4);
/// Runs of each batch size on a unit: no fewer for a quantile, no more for a first plan.
const RUNS: RangeInclusive<usize> = 3..=20;
/// The same for a profile that is kept, and those before them that do not count.
const KEPT_RUNS: RangeInclusive<usize> = 100..=2000;
const WARM_UP: usize = 5;
/// Frames that are decoded to measure a model, and the time after which fewer will do.
const DECODED: RangeInclusive<usize> = 20..=1000;
const DECODING: Duration = Duration::from_millis(50);
/// Memory that their outputs take, where one frame's is not more: more than the caches of a small board hold.
const DECODED_BYTES: usize = 16 << 20;
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
    /// A batch failed, or the measurement was stopped; nothing is at work.
    Failed(String),
    /// A batch does not come back: nothing else can be measured.
    Stuck(String),
}

/// Measures l(b) of every model on `backend` in a few seconds: on one unit one batch at a time; where there are more, as
/// [`measure_fully`]. Nothing else may be submitted meanwhile. A model that the backend refuses, as one that it has
/// stopped, costs the others nothing.
///
/// # Errors
/// When the backend refuses every model, fails a batch, or does not come back, or `stop` says so; in words.
pub fn measure(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    mut stop: impl FnMut() -> bool,
) -> Result<Choice, String> {
    let mut bench = Bench::new(board, pool, backend, &mut stop, choose);
    if let [unit] = bench.units.as_mut_slice() {
        unit.at_work = 1;
    }
    let mut refused = vec![None; board.models.len()];
    let arrangements = bench.arrangements(BUDGET, 0, &RUNS, &mut |model, why| {
        refused[model.index()] = Some(why);
        Ok(())
    })?;
    let refused: Vec<String> = refused.into_iter().flatten().collect();
    if refused.len() == board.models.len() {
        return Err(refused.join("; "));
    }
    refused.iter().for_each(|why| log::warn!("{why}: its frames will have no result"));
    let measured = Measured { arrangements, decodings: bench.decodings()? };
    Ok(Choice::new(board, &measured, Timing::provisional, true))
}

/// Measures l(b) of every model for every batch size that the board allows, for `budget` in all and for at
/// least 100 batches each on every unit, with all lanes at work: those of the first unit, and, where there are more, those
/// of all units. Then decoding, for a moment.
///
/// # Errors
/// As [`measure`]; and when the backend refuses a model.
pub fn measure_fully(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    budget: Duration,
) -> Result<Measured, String> {
    measure_for(board, pool, backend, budget, KEPT_RUNS)
}

/// As [`measure_fully`], with another number of batches of each size: at least and at most.
///
/// # Errors
/// As [`measure_fully`].
pub fn measure_for(
    board: &Board,
    pool: &Pool,
    backend: &mut dyn Backend<FrameRef>,
    budget: Duration,
    runs: RangeInclusive<usize>,
) -> Result<Measured, String> {
    let mut never = || false;
    let mut bench = Bench::new(board, pool, backend, &mut never, allowed);
    let arrangements = bench.arrangements(budget, WARM_UP, &runs, &mut |_, why| Err(why))?;
    Ok(Measured { arrangements, decodings: bench.decodings()? })
}

/// A unit of the backend.
struct Unit {
    name: String,
    lanes: usize,
    /// Batches that it is given at once.
    at_work: usize,
}

/// A backend with nothing else to do.
struct Bench<'a> {
    board: &'a Board,
    pool: &'a Pool,
    backend: &'a mut dyn Backend<FrameRef>,
    /// In the order of their lanes.
    units: Vec<Unit>,
    /// Which of them has each lane.
    unit_of: Vec<usize>,
    /// Per model: the batch sizes that are measured.
    sizes: Vec<Vec<u16>>,
    /// As many as may be at work at once.
    #[allow(clippy::vec_box)] // The boxes themselves go round.
    spare: Vec<Box<Batch<FrameRef>>>,
    /// Whether to give up.
    stop: &'a mut dyn FnMut() -> bool,
}

/// Batches of one size that are measured.
struct Series<'a> {
    model: ModelId,
    size: u16,
    /// Units that work: the first so many.
    units: usize,
    /// Time for it.
    share: Duration,
    /// Batches of each unit that do not count, and those that do: at least and at most.
    warm_up: usize,
    runs: &'a RangeInclusive<usize>,
}

impl<'a> Bench<'a> {
    /// Where of a model's batch sizes those are measured that `sizes` says for the largest that the board allows.
    fn new(
        board: &'a Board,
        pool: &'a Pool,
        backend: &'a mut dyn Backend<FrameRef>,
        stop: &'a mut dyn FnMut() -> bool,
        sizes: fn(&[u16], u16) -> Vec<u16>,
    ) -> Self {
        let capabilities = backend.capabilities();
        let unit = |(name, lanes): (&str, usize)| Unit { name: name.to_owned(), lanes, at_work: lanes };
        let units: Vec<Unit> = capabilities.units().map(unit).collect();
        let unit_of = units.iter().enumerate().flat_map(|(index, unit)| vec![index; unit.lanes]).collect();
        let sizes = capabilities.batch_sizes.iter().map(|all| sizes(all, board.accelerator.max_batch));
        let sizes = sizes.collect();
        let spare = (0..capabilities.in_flight()).map(|_| capabilities.new_batch()).collect();
        Self { board, pool, backend, units, unit_of, sizes, spare, stop }
    }

    /// Measures how long every model's results take to decode.
    fn decodings(&self) -> Result<Vec<Decodings>, String> {
        let rows = &self.backend.capabilities().output_rows;
        let each = self.board.models.iter().zip(rows).map(|(model, rows)| {
            let mut decoder = Decoder::new(model, rows).map_err(|error| error.to_string())?;
            let (empty, crowd) = (decoder.scene(0), decoder.scene(usize::MAX));
            // Without a border, where candidates would be none.
            let frame = (model.input.width, model.input.height);
            let mut time = |outputs: &[Vec<f32>]| Self::decoding(&mut decoder, frame, outputs);
            Ok(Decodings { empty: time(&empty), crowd: time(&crowd) })
        });
        each.collect()
    }

    /// Decodes these outputs as those of one frame after the other, all in memory of their own.
    fn decoding(decoder: &mut Decoder, frame: (u32, u32), outputs: &[Vec<f32>]) -> Timing {
        let frame_bytes = 4 * outputs.iter().map(Vec::len).sum::<usize>();
        let frames = (DECODED_BYTES / frame_bytes.max(1)).clamp(1, *DECODED.end());
        let all: Vec<Vec<f32>> = outputs.iter().map(|row| row.repeat(frames)).collect();
        let mut found = Detections::new();
        let mut times = Vec::with_capacity(*DECODED.end());
        let until = clock::now() + DECODING;
        for place in (0..frames).cycle().take(*DECODED.end()) {
            if times.len() >= *DECODED.start() && clock::now() > until {
                break;
            }
            let tensors = all.iter().zip(outputs);
            let rows: Vec<&[f32]> =
                tensors.map(|(tensor, row)| &tensor[place * row.len()..][..row.len()]).collect();
            let start = clock::now();
            // It fails on nothing that was made for it; a sick network's frame would take less.
            let _ = decoder.decode(&rows, frame, &mut found);
            times.push(clock::now().since(start));
        }
        times.sort_unstable();
        Timing::new(1, &times)
    }

    /// Measures the first unit alone, and, where there are more, all of them at once; those that can't be measured are left
    /// out, aloud. A model that the backend takes no batch of is told to `refused`, with the reason, which says whether to go
    /// on without it.
    fn arrangements(
        &mut self,
        budget: Duration,
        warm_up: usize,
        runs: &RangeInclusive<usize>,
        refused: &mut dyn FnMut(ModelId, String) -> Result<(), String>,
    ) -> Result<Vec<Arrangement>, String> {
        let mut arranged = vec![1, self.units.len()];
        arranged.dedup();
        let series = self.sizes.iter().map(Vec::len).sum::<usize>() * arranged.len();
        let share = budget / u32::try_from(series.max(1)).unwrap_or(u32::MAX);
        let mut arrangements = Vec::with_capacity(arranged.len());
        let mut known = vec![false; self.sizes.len()];
        for units in arranged {
            let mut refused = |model: ModelId, why: String| {
                let first = !std::mem::replace(&mut known[model.index()], true);
                // With more units at work the backend has not become pickier, it has failed.
                if first && units > 1 { Err(why) } else { refused(model, why) }
            };
            let series = |model, size| Series { model, size, units, share, warm_up, runs };
            match self.arrangement(units, &series, &mut refused) {
                Ok(arrangement) => arrangements.push(arrangement),
                Err(Trouble::Failed(why)) if !arrangements.is_empty() && !(self.stop)() => {
                    let others: Vec<&str> = self.units[1..].iter().map(|unit| unit.name.as_str()).collect();
                    log::warn!("left idle, as they can't be measured: {}: {why}", others.join(", "));
                }
                Err(Trouble::Refused(why) | Trouble::Failed(why) | Trouble::Stuck(why)) => return Err(why),
            }
        }
        Ok(arrangements)
    }

    /// Measures so many units at once.
    fn arrangement<'s>(
        &mut self,
        units: usize,
        series: &dyn Fn(ModelId, u16) -> Series<'s>,
        refused: &mut dyn FnMut(ModelId, String) -> Result<(), String>,
    ) -> Result<Arrangement, Trouble> {
        let times = |unit: &Unit| UnitTimes {
            unit: unit.name.clone(),
            lanes: unit.lanes,
            services: Vec::with_capacity(self.sizes.len()),
        };
        let mut measured: Vec<UnitTimes> = self.units[..units].iter().map(times).collect();
        for index in 0..self.sizes.len() {
            let model = ModelId(index as u8);
            let tables = match self.tables(model, |size| series(model, size)) {
                Err(Trouble::Refused(why)) => {
                    refused(model, why).map_err(Trouble::Failed)?;
                    let table = self.sizes[index].iter().map(|&jobs| Timing::new(jobs, &[REFUSING]));
                    vec![table.collect(); units]
                }
                tables => tables?,
            };
            measured.iter_mut().zip(tables).for_each(|(unit, table)| unit.services.push(table));
        }
        Ok(Arrangement(measured))
    }

    /// A model's table for each unit.
    fn tables<'s>(
        &mut self,
        model: ModelId,
        series: impl Fn(u16) -> Series<'s>,
    ) -> Result<Vec<Vec<Timing>>, Trouble> {
        let mut tables: Vec<Vec<Timing>> = Vec::new();
        for size in self.sizes[model.index()].clone() {
            let services = self.services(&series(size))?;
            tables.resize(services.len(), Vec::new());
            tables.iter_mut().zip(services).for_each(|(table, of)| table.push(Timing::new(size, &of)));
        }
        Ok(tables)
    }

    /// Sorted service times, unit by unit, of batches with the largest frames that the model gets. All lanes are kept at
    /// work until the last unit has enough.
    fn services(&mut self, series: &Series<'_>) -> Result<Vec<Vec<Duration>>, Trouble> {
        let &Series { model, size, units, share, warm_up, runs } = series;
        let name = &self.board.models[model.index()].id;
        let frame = self.frame(model)?;
        let (least, most) = (runs.start() + warm_up, runs.end() + warm_up);
        let lanes: usize = self.units[..units].iter().map(|unit| unit.at_work).sum();
        let until = clock::now() + share;
        let mut services: Vec<Vec<Duration>> = vec![Vec::new(); units];
        // Of each unit, those in a row.
        let mut faults = vec![0; units];
        let mut at_work = 0;
        loop {
            if (self.stop)() {
                return Err(self.left(at_work, "stopped".to_owned()));
            }
            let fewest = services.iter().map(Vec::len).min().unwrap_or(most);
            let more = fewest < least || (fewest < most && clock::now() < until);
            if more && at_work < lanes {
                match self.submit(model, size, &frame) {
                    Ok(()) => at_work += 1,
                    Err(why) => {
                        return Err(match self.left(at_work, said(name, size, &why)) {
                            Trouble::Failed(why) => Trouble::Refused(why),
                            trouble => trouble,
                        });
                    }
                }
                continue;
            }
            if at_work == 0 {
                break;
            }
            let (lane, service) = self
                .take_back()
                .ok_or_else(|| Trouble::Stuck(said(name, size, &format!("not done after {LONGEST:?}"))))?;
            at_work -= 1;
            let unit = self.unit_of[lane];
            let of_unit = &mut services[unit];
            match service {
                Err(fault) if faults[unit] == TOLERATED => {
                    return Err(self.left(at_work, said(name, size, fault.as_str())));
                }
                Err(_) => faults[unit] += 1,
                Ok(service) => {
                    faults[unit] = 0;
                    // The last ones have less and less beside them.
                    if more && of_unit.len() < most {
                        of_unit.push(service);
                    }
                }
            }
        }
        for of_unit in &mut services {
            of_unit.drain(..warm_up);
            of_unit.sort_unstable();
        }
        Ok(services)
    }

    /// That a series was left because of `why`, once what is at work is back: it would come back to whoever is next.
    fn left(&mut self, at_work: usize, why: String) -> Trouble {
        if (0..at_work).all(|_| self.take_back().is_some()) {
            Trouble::Failed(why)
        } else {
            Trouble::Stuck(why)
        }
    }

    /// The largest frame that the model gets.
    fn frame(&self, model: ModelId) -> Result<FrameRef, Trouble> {
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
        slot.and_then(|slot| slot.freeze(layout).ok()).ok_or_else(|| {
            Trouble::Failed(format!("no frame of stream {} to measure model {name} with", spec.id))
        })
    }

    /// Gives the backend a batch. There is a spare one.
    ///
    /// # Errors
    /// Why it takes none.
    fn submit(&mut self, model: ModelId, size: u16, frame: &FrameRef) -> Result<(), String> {
        let Some(mut batch) = self.spare.pop() else { return Ok(()) };
        batch.model = model;
        let job = test_job(model);
        batch.jobs.extend((0..size).map(|_| BatchJob { job, payload: frame.clone() }));
        let Err(mut refused) = self.backend.submit(job.captured, batch) else { return Ok(()) };
        let why = refused.fault.as_ref().map_or("refused", |fault| fault.as_str()).to_owned();
        refused.clear();
        self.spare.push(refused);
        Err(why)
    }

    /// Waits for the next batch to come back: which lane had it, and how long or what was wrong; `None` when none does.
    fn take_back(&mut self) -> Option<(usize, Result<Duration, BatchFault>)> {
        let start = clock::now();
        loop {
            let now = clock::now();
            if let Some(mut done) = self.backend.poll(now) {
                let result = (done.lane, done.fault.take().map_or(Ok(done.service), Err));
                done.clear();
                self.spare.push(done);
                return Some(result);
            }
            if now.since(start) > LONGEST {
                return None;
            }
            clock::sleep_until(next_look(self.backend.poll_at(), now));
        }
    }
}

fn said(model: &str, size: u16, why: &str) -> String {
    format!("model {model}, batch of {size}: {why}")
}

/// All that the board allows.
fn allowed(sizes: &[u16], max_batch: u16) -> Vec<u16> {
    sizes.iter().copied().filter(|&size| size <= max_batch).collect()
}

/// At most eight of them: powers of two and the largest. Those between are planned as the next larger.
fn choose(sizes: &[u16], max_batch: u16) -> Vec<u16> {
    let allowed = allowed(sizes, max_batch);
    let last = allowed.last().copied();
    allowed.into_iter().filter(|&size| size.is_power_of_two() || Some(size) == last).collect()
}

fn test_job(model: ModelId) -> Job {
    let now = clock::now();
    Job { stream: StreamId(0), sequence: 0, model, captured: now, arrived: now, deadline: now + LONGEST }
}

fn next_look(due: Option<Instant>, now: Instant) -> Instant {
    due.unwrap_or(now + Duration::from_micros(200)).max(now + Duration::from_micros(10))
}
