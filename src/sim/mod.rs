//! The heart on a virtual clock: the same decisions, records and summary as a run's, hours in seconds, the
//! same each time.
//!
//! What drives the heart here takes no time but where it says so:
//!
//! - Cameras release frames on the board's periods and phases (live sources those of their trigger, or
//!   a phase drawn from the seed); a [`Scenario`] disturbs them. The faults that a board file asks for are not simulated.
//! - The accelerator is [`Simulated`], one batch at a time, as planned where the scenario leaves it alone.
//! - Decoding and publishing take [`PUBLISHING`] a frame, one after the other, beside the accelerator.
//! - Threads hand over at once. Nothing holds pixels, so no slot and no ring runs out.
//!
//! Within one instant: cameras in the board's order, then what was published, then the accelerator, then what
//! follows; as in [`crate::runtime`]. Numbers drawn come from the seed alone, and the clock starts at
//! [`START`], so that equal simulations have equal records to the nanosecond: their digests say so.

mod camera;
mod digest;
mod raw;
pub mod results;
mod scenario;

pub use raw::schema;
pub use scenario::{Disturbance, Event, Scenario, What};

use crate::board::{BackendSpec, Board};
use crate::cause::{MissCause, Way};
use crate::infer::Backend;
use crate::infer::simulated::{Conditions, Settings, Simulated};
use crate::job::{Batch, Job, Lost};
use crate::pipeline::{Effect, Pipeline, drain_time};
use crate::random::Random;
use crate::record::{Message, Served};
use crate::runtime::records::{Records, take_older};
use crate::runtime::{Finished, GRACE, Host, SPARE_BATCHES};
use crate::sched::{Decoding, Profile, Schedule, Service};
use crate::stats::Copies;
use crate::stream::StreamId;
use crate::time::Instant;
use crate::watchdog::Pressure;
use camera::Camera;
use digest::Digest;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Where the virtual clock starts: late enough that stamps may jump an hour back.
pub const START: Instant = Instant::from_nanos(10_000_000_000_000);
/// Decoding and publishing of one frame: what the shipped detector takes where its outputs are not in the cache
/// (`benches/decode.rs` measures decoders).
pub const PUBLISHING: Duration = Duration::from_micros(5);
/// The accelerator's numbers are no camera's.
const ACCELERATOR: u64 = u64::MAX;

/// What is simulated beside the board.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The accelerator.
    pub service: Settings,
    /// What happens; [`Scenario::default`] is an undisturbed run.
    pub scenario: Scenario,
    /// All numbers drawn depend on it, together with the seeds on the board.
    pub seed: u64,
    /// How long cameras release frames.
    pub time: Duration,
}

/// A simulation that has ended.
pub struct Simulation {
    /// What it amounts to, as a run.
    pub finished: Finished,
    /// SHA-256 over all records, in hex.
    pub digest: String,
    plan: Plan,
}

impl Simulation {
    /// The summary as JSON: a run's, and what was simulated under `sim`.
    #[must_use]
    pub fn to_json(&self, host: &Host) -> Value {
        let Plan { service, scenario, seed, time } = &self.plan;
        let mut summary = self.finished.to_json(host);
        summary["sim"] = json!({
            "seed": seed,
            "digest": self.digest,
            "scenario": (!scenario.events.is_empty()).then_some(&scenario.name),
            "scenario_hash": (!scenario.events.is_empty()).then_some(&scenario.digest),
            "virtual_s": time.as_secs_f64(),
            "intercept_us": service.intercept.as_nanos() as f64 / 1e3,
            "slope_us": service.slope.as_nanos() as f64 / 1e3,
        });
        summary
    }
}

/// The accelerator that a board describes, where it describes a simulated one.
#[must_use]
pub fn service_of(board: &Board) -> Option<Settings> {
    match board.accelerator.backend {
        BackendSpec::Simulated { intercept, slope, jitter, seed, fail_every, .. } => {
            Some(Settings { jitter, seed, fail_every, ..Settings::linear(intercept, slope) })
        }
        BackendSpec::OnnxRuntime { .. } | BackendSpec::TensorRt { .. } => None,
    }
}

/// The exact profile of a simulated accelerator: no measurement, the longest time that a batch can take
/// while the scenario leaves it alone, and [`PUBLISHING`] for each frame's results. Provisional, so that admission goes
/// by utilisation: scenarios are there to go beyond what is guaranteed.
#[must_use]
pub fn profile(board: &Board, service: &Settings) -> Profile {
    let table = (1..=board.accelerator.max_batch).map(|jobs| {
        let fastest = service.intercept + service.slope * u32::from(jobs);
        (jobs, Service { fastest, planned: fastest + service.jitter })
    });
    let decoding = Decoding { usual: PUBLISHING, most: PUBLISHING };
    Profile::new(vec![table.collect(); board.models.len()], true)
        .with_decodings(vec![decoding; board.models.len()])
}

/// Simulates an admitted board. `publish` is handed every message in the order of publishing.
///
/// # Errors
/// The first one of `publish`, which ends the simulation.
pub fn simulate<E>(
    board: Arc<Board>,
    schedule: Schedule,
    plan: Plan,
    publish: &mut dyn FnMut(&Message) -> Result<(), E>,
) -> Result<Simulation, E> {
    let mut world = World::new(&board, schedule, &plan, publish);
    world.run(&plan.scenario, START + plan.time)?;
    let World { heart, digest, .. } = world;
    let finished = Finished::new(board, &heart, &Copies::default(), plan.time);
    Ok(Simulation { finished, digest: digest.hex(), plan })
}

/// What comes back from publishing.
enum Fact {
    Settled(Job, Instant, Option<MissCause>),
    Returned(Box<Batch<()>>),
}

/// The heart and all that a driver has around it.
struct World<'p, E> {
    now: Instant,
    heart: Pipeline<()>,
    cameras: Vec<Camera>,
    /// Each camera's next instant.
    agenda: BinaryHeap<Reverse<(Instant, u16)>>,
    backend: Simulated<()>,
    /// Hangs to come, the next first.
    hangs: VecDeque<(Instant, Duration)>,
    /// Instants at which the scenario's pressure changes, the next first.
    pressures: VecDeque<Instant>,
    records: Records,
    /// When the publisher has carried out its orders so far.
    published: Instant,
    /// In the order of their instants.
    facts: VecDeque<(Instant, Fact)>,
    digest: Digest,
    publish: &'p mut dyn FnMut(&Message) -> Result<(), E>,
}

impl<'p, E> World<'p, E> {
    fn new(
        board: &Board,
        schedule: Schedule,
        plan: &Plan,
        publish: &'p mut dyn FnMut(&Message) -> Result<(), E>,
    ) -> Self {
        let seed = plan.service.seed ^ Random::at(plan.seed, ACCELERATOR).bits();
        // Outputs of no length: there is nothing to decode.
        let answers = vec![Vec::new(); board.models.len()];
        let settings = Settings { seed, ..plan.service.clone() };
        let backend = Simulated::new(settings, board.accelerator.max_batch, answers);
        let in_flight = Backend::<()>::capabilities(&backend).in_flight();
        let batches =
            (0..in_flight + SPARE_BATCHES).map(|_| Backend::<()>::capabilities(&backend).new_batch());
        let cameras = board.streams.iter().enumerate().map(|(index, stream)| {
            Camera::new(StreamId(index as u16), stream, &plan.scenario, plan.seed, START)
        });
        let cameras: Vec<Camera> = cameras.collect();
        let hangs = plan.scenario.events.iter().filter_map(|event| match event.what {
            What::Hang(delay) => Some((START + event.at, delay)),
            _ => None,
        });
        let mut hangs: Vec<_> = hangs.collect();
        hangs.sort_unstable();
        let pressures = plan.scenario.events.iter().filter(|event| matches!(event.what, What::Pressure(_)));
        let mut pressures: Vec<_> = pressures
            .flat_map(|event| [Some(event.at), event.until])
            .flatten()
            .map(|at| START + at)
            .collect();
        pressures.sort_unstable();
        Self {
            now: START,
            records: Records::new(&schedule),
            heart: Pipeline::new(START, board, schedule, batches.collect(), in_flight),
            agenda: (0u16..)
                .zip(&cameras)
                .map(|(index, camera)| Reverse((camera.poll_at(), index)))
                .collect(),
            cameras,
            backend,
            hangs: hangs.into(),
            pressures: pressures.into(),
            published: START,
            facts: VecDeque::new(),
            digest: Digest::default(),
            publish,
        }
    }

    /// Runs the cameras until `end`, lets what is on its way arrive, and settles the rest.
    fn run(&mut self, scenario: &Scenario, end: Instant) -> Result<(), E> {
        self.act(scenario)?;
        while let Some(next) = self.next(true).filter(|&next| next < end) {
            self.now = next;
            self.press(scenario);
            self.cameras_act();
            self.take_in();
            self.act(scenario)?;
        }
        self.now = end;
        self.cameras.iter_mut().for_each(|camera| camera.end(&mut self.heart));
        self.take_in();
        self.act(scenario)?;
        let limit = end + drain_time(self.heart.schedule()) + GRACE;
        while !self.heart.is_idle() {
            let Some(next) = self.next(false).filter(|&next| next <= limit) else {
                self.heart.abandon();
                return self.act(scenario);
            };
            self.now = next;
            self.take_in();
            self.act(scenario)?;
        }
        Ok(())
    }

    /// The next instant at which something happens.
    fn next(&self, with_cameras: bool) -> Option<Instant> {
        let camera = self.agenda.peek().filter(|_| with_cameras).map(|&Reverse((at, _))| at);
        let fact = self.facts.front().map(|&(at, _)| at);
        let pressure = self.pressures.front().copied().filter(|_| with_cameras);
        [camera, fact, pressure, self.backend.poll_at(), self.heart.poll_at()].into_iter().flatten().min()
    }

    /// Tells the heart what weighs on the accelerator, where that has changed.
    fn press(&mut self, scenario: &Scenario) {
        let mut changed = false;
        while self.pressures.pop_front_if(|at| *at <= self.now).is_some() {
            changed = true;
        }
        if changed {
            let thermal = scenario.pressure(self.now.since(START));
            self.heart.pressure(Pressure { thermal, ..Pressure::default() });
        }
    }

    fn cameras_act(&mut self) {
        while let Some(mut first) = self.agenda.peek_mut()
            && first.0.0 <= self.now
        {
            let camera = &mut self.cameras[usize::from(first.0.1)];
            camera.act(self.now, &mut self.heart);
            first.0.0 = camera.poll_at();
        }
    }

    /// What was published and what the accelerator has done.
    fn take_in(&mut self) {
        while let Some((_, fact)) = self.facts.pop_front_if(|(at, _)| *at <= self.now) {
            match fact {
                Fact::Settled(job, finish, cause) => self.heart.settled(&job, finish, true, cause),
                Fact::Returned(batch) => self.heart.batch_returned(batch),
            }
        }
        while let Some(batch) = self.backend.poll(self.now) {
            self.heart.batch_done(batch);
        }
    }

    /// Everything that follows.
    fn act(&mut self, scenario: &Scenario) -> Result<(), E> {
        while let Some(effect) = self.heart.poll(self.now) {
            match effect {
                Effect::Submit(batch) => self.submit(scenario, batch),
                Effect::Conclude(batch) => self.conclude(batch)?,
                Effect::Dropped(stream, lost) => self.dropped(stream, &lost)?,
                Effect::Changed(event) => {
                    self.records.changed(&event);
                    self.say(&Message::Event(event))?;
                }
                Effect::Set(set) => self.say(&Message::Set(set))?,
                Effect::Certified(certificate) => self.say(&Message::Certificate(certificate))?,
            }
        }
        Ok(())
    }

    fn submit(&mut self, scenario: &Scenario, batch: Box<Batch<()>>) {
        let elapsed = self.now.since(START);
        let mut delay = Duration::ZERO;
        while let Some((_, hang)) = self.hangs.pop_front_if(|(at, _)| *at <= self.now) {
            delay += hang;
        }
        let (pace, fails) = (scenario.pace(elapsed), scenario.fails(elapsed));
        self.backend.set_conditions(Conditions { pace, delay, fails });
        if let Err(refused) = self.backend.submit(self.now, batch) {
            self.heart.batch_done(refused);
        }
    }

    fn conclude(&mut self, mut batch: Box<Batch<()>>) -> Result<(), E> {
        let way = Way::of(&batch, self.published.max(self.now));
        let mut between = std::mem::take(&mut batch.between);
        for member in &batch.jobs {
            let job = member.job;
            while let Some(lost) = take_older(&mut between, &job) {
                self.dropped(job.stream, &lost)?;
            }
            let finish = self.published.max(self.now) + PUBLISHING;
            self.published = finish;
            let served = Served {
                model: batch.model,
                batch: batch.jobs.len() as u16,
                arrived: job.arrived,
                submitted: batch.submitted,
                completed: batch.completed,
                detections: heapless::Vec::new(),
            };
            let record = self.records.settled(job, finish, Some(served), &way);
            self.facts.push_back((finish, Fact::Settled(job, finish, record.cause)));
            self.say(&Message::Frame(record))?;
        }
        batch.between = between;
        self.facts.push_back((self.published, Fact::Returned(batch)));
        Ok(())
    }

    fn dropped(&mut self, stream: StreamId, lost: &Lost) -> Result<(), E> {
        // The publisher gets to it when it has carried out what was ordered before.
        let finish = self.published.max(self.now);
        (0..lost.count).try_for_each(|index| {
            let record = self.records.dropped(stream, lost, index, finish);
            self.say(&Message::Frame(record))
        })
    }

    fn say(&mut self, message: &Message) -> Result<(), E> {
        self.digest.add(message);
        (self.publish)(message)
    }
}
