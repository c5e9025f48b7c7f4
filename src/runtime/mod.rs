//! The heart on real threads and the real clock.
//!
//! ```text
//! cap-<stream>  ->  exec  ->  backend  ->  exec  ->  pub  ->  sink-<name>
//!                    ^-------------- facts -----------'
//! ```
//!
//! Every arrow is a bounded ring with one writer and one reader. After start no thread here takes a lock,
//! allocates or logs for a frame.

mod arrangement;
mod capture;
mod exec;
mod heartbeat;
mod last;
mod pressure;
mod profile;
mod proof;
mod publisher;
pub(crate) mod records;
mod sensing;
mod stored;
mod summary;
mod supervisor;

pub use arrangement::{Arrangement, Candidate, Choice, Decodings, Measured, Timing, UnitTimes};
pub(crate) use exec::GRACE;
pub use last::{EVERY as LAST_EVERY, Keeper, Last, LastError, Previous, PreviousRun};
pub use profile::{measure, measure_for, measure_fully};
pub use proof::{Frames, Proof};
pub use sensing::Sensed;
pub use stored::{Kept, Key, Stored};
pub use summary::{Finished, Host};
pub use supervisor::{BuildBackend, Interventions, MakeSource, Supervised};

use crate::board::Board;
use crate::capture::{Resources, Source};
use crate::decode::Decoder;
use crate::detection::Detections;
use crate::infer::Backend;
use crate::job::Batch;
use crate::pipeline::{BatchTotals, Pipeline};
use crate::platform::sensors::Sensors;
use crate::platform::{Waker, clock};
use crate::pool::{FrameRef, Pool, ShareSpec};
use crate::publish::pictures::{Painter, Pictures};
use crate::publish::{Outlet, Sinks};
use crate::ring::{Receiver, Sender, ring};
use crate::sched::{Schedule, queue_depth};
use crate::stats::{Copies, Histogram, Ledger};
use crate::stream::{StreamId, StreamState};
use crate::time::Instant;
use heartbeat::{Seat, Signs};
use sensing::Sensing;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use supervisor::Camera;

/// Batches beside those at the accelerator: one being decoded, one being filled.
pub(crate) const SPARE_BATCHES: usize = 2;
/// How long the start waits for cameras to open; those that need longer join when they are ready. No longer
/// than people wait gladly: one dead camera must not keep the others from starting.
const OPENING: Duration = Duration::from_secs(3);
/// How long a stop waits for a thread beyond what its work may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Names of what is no camera in [`Finished::stuck`]; none of them could have such a name.
const PUBLISHER: &str = "(pub)";
const ACCELERATOR: &str = "(accelerator)";
const SENSORS: &str = "(sensors)";

/// Slots that each stream needs: what its source holds, what waits, and what is at the accelerator or being
/// decoded, where a batch may hold all that waited. And a spare share, which any of them could use in place of
/// its own while a stuck thread keeps that.
#[must_use]
pub fn shares(board: &Board, max_in_flight: usize) -> Vec<ShareSpec> {
    let places = 1 + max_in_flight + SPARE_BATCHES;
    let share = |stream| ShareSpec {
        slots: crate::capture::slots_needed(stream) + places * queue_depth(stream),
        slot_bytes: crate::capture::slot_bytes(stream),
    };
    let mut shares: Vec<ShareSpec> = board.streams.iter().map(share).collect();
    let largest = |part: fn(&ShareSpec) -> usize| shares.iter().map(part).max().unwrap_or(0);
    let spare =
        ShareSpec { slots: largest(|share| share.slots), slot_bytes: largest(|share| share.slot_bytes) };
    shares.push(spare);
    shares
}

/// Everything a run consists of.
pub struct Parts {
    /// The board.
    pub board: Arc<Board>,
    /// Its admission.
    pub schedule: Schedule,
    /// Memory for the frames, with a share a stream.
    pub pool: Pool,
    /// A source a stream, not open yet.
    pub sources: Vec<Box<dyn Source>>,
    /// The accelerator.
    pub backend: Box<dyn Backend<FrameRef>>,
    /// Wakes the exec thread; the backend has a clone of it.
    pub waker: Waker,
    /// A decoder a model.
    pub decoders: Vec<Decoder>,
    /// Where results go.
    pub outputs: (Vec<Outlet>, Sinks),
    /// Annotated pictures, where asked for.
    pub pictures: Option<(Pictures, Painter)>,
    /// Copied bytes, counted by whoever copies.
    pub copies: Arc<Copies>,
    /// What heals; `None`: nobody watches over the threads.
    pub supervised: Option<Supervised>,
    /// What tells of heat and power; `None`: nobody looks.
    pub sensors: Option<Sensors>,
}

/// What threads tell each other beside the frames.
#[derive(Debug, Default)]
struct Flags {
    /// Cameras: come to an end.
    stop: AtomicBool,
    /// Exec: all cameras have ended, settle what is left.
    drain: AtomicBool,
    /// Publisher: nothing more will come.
    last: AtomicBool,
    /// Sources whose first opening has succeeded or failed.
    tried: AtomicUsize,
    /// Sources whose first opening has failed.
    refused: AtomicUsize,
    /// Whether any source has ever been open.
    opened: AtomicBool,
    /// Captures that have ended, for good.
    ended: AtomicUsize,
    /// The instant from which releases count.
    began: OnceLock<Instant>,
}

/// A view of a run in progress.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Per stream: where its frames ended, its state, its largest latency.
    pub streams: Vec<(Ledger, StreamState, Option<Duration>)>,
    /// All streams' latencies, where they are asked for.
    pub latency: Histogram,
    /// Whether they are: their copy takes the exec thread tens of microseconds.
    pub with_latency: bool,
    /// What the accelerator did.
    pub batches: (u64, u64, u64),
    /// Whether the guarantee stands; `None` where none was given.
    pub guaranteed: Option<bool>,
}

/// A run in progress.
pub struct Running {
    board: Arc<Board>,
    flags: Arc<Flags>,
    waker: Waker,
    publisher_waker: Waker,
    cameras: Cameras,
    exec: JoinHandle<(Pipeline<FrameRef>, Box<dyn Backend<FrameRef>>)>,
    publisher: JoinHandle<()>,
    sinks: Sinks,
    painter: Option<Painter>,
    asked: Sender<Box<Snapshot>>,
    answered: Receiver<Box<Snapshot>>,
    copies: Arc<Copies>,
    began: Instant,
    sensing: Option<Sensing>,
}

/// Who has the capture threads' handles.
enum Cameras {
    Alone(Vec<Camera>),
    Supervised(JoinHandle<supervisor::Left>),
}

impl Running {
    /// Starts all threads, waits until every camera is open or has failed once, or until `stop` says that the
    /// run is to end, and lets it begin.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: Parts, mut stop: impl FnMut() -> bool) -> std::io::Result<Self> {
        let Parts { board, schedule, pool, sources, backend, waker, decoders, outputs, .. } = parts;
        let (pictures, copies, supervised, sensors) =
            (parts.pictures, parts.copies, parts.supervised, parts.sensors);
        let (outlets, sinks) = outputs;
        let (pictures, painter) = pictures.unzip();
        let flags = Arc::new(Flags::default());
        let publisher_waker = Waker::new();
        let capabilities = backend.capabilities().clone();
        // Batches go to the first lane that is idle: lanes beyond those that were planned with get none.
        let in_flight = capabilities.in_flight().min(schedule.places());
        let batches: Vec<Box<Batch<FrameRef>>> =
            (0..in_flight + SPARE_BATCHES).map(|_| capabilities.new_batch()).collect();
        let records = records::Records::new(&schedule);
        let start = clock::now();
        let heart = Pipeline::new(start, &board, schedule, batches, in_flight);

        let mut cameras = Vec::with_capacity(sources.len());
        let mut arrivals = Vec::with_capacity(sources.len());
        for (index, source) in sources.into_iter().enumerate() {
            let stream = &board.streams[index];
            let (to_exec, from_capture) = ring::<_, { capture::RING }>();
            arrivals.push(Some(from_capture));
            let share = pool.share(StreamId(index as u16));
            let resources = Resources { share: share.clone(), copies: copies.clone(), start };
            let seat = Arc::new(Seat::default());
            let port = capture::Port::new(to_exec, waker.clone(), flags.clone(), seat.clone());
            let (id, flags) = (stream.id.clone(), flags.clone());
            let camera = capture::Camera { id, source, resources, port, flags };
            let realtime = board.realtime.clone();
            let thread = thread(&format!("cap-{}", stream.id), move || camera.run(&realtime))?;
            cameras.push(Camera::new(seat, thread, share));
        }
        let (to_publisher, for_publisher) = ring::<_, { publisher::RING }>();
        let (facts, from_publisher) = ring::<_, { exec::FACTS }>();
        let (asked, questions) = ring::<_, 4>();
        let (answers, answered) = ring::<_, 4>();
        let (commands, commanded) = ring::<_, { exec::COMMANDS }>();
        let (replies, replied) = ring::<_, { exec::COMMANDS }>();
        let (changes, pressures) = ring::<_, { sensing::CHANGES }>();
        let signs = Arc::new(Signs::default());
        signs.exec.beat(start);
        signs.publisher.beat(start);

        let publisher = publisher::Publisher {
            records,
            decoders,
            outlets,
            pictures,
            orders: for_publisher,
            facts,
            exec: waker.clone(),
            sets: !board.sets.is_empty(),
            signs: signs.clone(),
            detections: Detections::new(),
        };
        let publisher = {
            let (wake, flags, realtime) = (publisher_waker.clone(), flags.clone(), board.realtime.clone());
            thread("pub", move || publisher.run(&wake, &flags, &realtime))?
        };
        let exec = exec::Exec {
            heart,
            backend,
            arrivals,
            to_publisher,
            from_publisher,
            publisher: publisher_waker.clone(),
            held: None,
            unsaid: false,
            questions,
            answers,
            signs: signs.clone(),
            commands: commanded,
            pressures,
            replies,
            work: exec::Working::new(in_flight),
        };
        let exec = {
            let (wake, flags, realtime) = (waker.clone(), flags.clone(), board.realtime.clone());
            thread("exec", move || exec.run(&wake, &flags, &realtime))?
        };

        let sensing = sensors.map(|sensors| Sensing::start(sensors, changes, waker.clone())).transpose()?;
        let streams = cameras.len();
        let cameras = match supervised {
            None => Cameras::Alone(cameras),
            Some(supervised) => {
                let parts = supervisor::Parts {
                    board: board.clone(),
                    flags: flags.clone(),
                    signs,
                    cameras,
                    // The pool of a run that is supervised has it: see `shares`.
                    spare: pool.spare(streams),
                    copies: copies.clone(),
                    start,
                    capabilities,
                    exec: waker.clone(),
                    commands,
                    replies: replied,
                    outputs: sinks.paces(),
                };
                let supervisor = supervisor::Supervisor::new(parts, supervised);
                Cameras::Supervised(thread("supervisor", move || supervisor.run())?)
            }
        };

        let patience = start + OPENING;
        while flags.tried.load(Ordering::Acquire) < streams && clock::now() < patience && !stop() {
            clock::sleep_until(clock::now() + Duration::from_millis(2));
        }
        let began = *flags.began.get_or_init(clock::now);
        Ok(Self {
            board,
            flags,
            waker,
            publisher_waker,
            cameras,
            exec,
            publisher,
            sinks,
            painter,
            asked,
            answered,
            copies,
            began,
            sensing,
        })
    }

    /// Whether not one camera could be opened.
    #[must_use]
    pub fn none_opened(&self) -> bool {
        !self.flags.opened.load(Ordering::Acquire)
            && self.flags.refused.load(Ordering::Acquire) == self.board.streams.len()
    }

    /// Whether every camera has come to an end that its board allows.
    #[must_use]
    pub fn all_ended(&self) -> bool {
        self.flags.ended.load(Ordering::Acquire) == self.board.streams.len()
    }

    /// Whether a thread that everything depends on has died.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let supervisor = match &self.cameras {
            Cameras::Supervised(supervisor) => supervisor.is_finished(),
            Cameras::Alone(_) => false,
        };
        self.exec.is_finished() || self.publisher.is_finished() || supervisor
    }

    /// What the sensors said last; `None` where nobody looks, or has looked yet.
    #[must_use]
    pub fn sensed(&self) -> Option<Sensed> {
        self.sensing.as_ref()?.latest.get()
    }

    /// When the run began: after all cameras were open, or had failed once.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// An empty view to be filled by [`Running::ask`].
    #[must_use]
    pub fn new_snapshot(&self) -> Box<Snapshot> {
        Box::new(Snapshot {
            streams: vec![(Ledger::default(), StreamState::Starting, None); self.board.streams.len()],
            latency: Histogram::default(),
            with_latency: true,
            batches: (0, 0, 0),
            guaranteed: None,
        })
    }

    /// Asks the exec thread to fill `snapshot`; it comes back through [`Running::answer`].
    pub fn ask(&mut self, snapshot: Box<Snapshot>) {
        if self.asked.enqueue(snapshot).is_ok() {
            self.waker.wake();
        }
    }

    /// A view asked for earlier.
    pub fn answer(&mut self) -> Option<Box<Snapshot>> {
        self.answered.dequeue()
    }

    /// Ends the cameras, lets what is on its way arrive, and settles the rest. Takes a bounded time whatever
    /// hangs; a thread that does not come back is named in [`Finished::stuck`]. `None` when that or its death leaves
    /// nothing to sum up.
    pub fn stop(self) -> Option<Finished> {
        let sensing = self.sensing.map(Sensing::end);
        let ended = clock::now();
        self.flags.stop.store(true, Ordering::Release);
        let patience = ended + PATIENCE;
        let (cameras, interventions) = match self.cameras {
            Cameras::Alone(cameras) => (cameras, Interventions::default()),
            Cameras::Supervised(supervisor) => {
                let supervisor::Left { cameras, interventions } = join_by(supervisor, patience)?;
                (cameras, interventions)
            }
        };
        let mut stuck = Vec::new();
        for (stream, camera) in self.board.streams.iter().zip(cameras) {
            let vacant = camera.is_vacant();
            if vacant || camera.thread.is_some_and(|thread| join_by(thread, patience).is_none()) {
                stuck.push(stream.id.clone());
            }
        }
        self.flags.drain.store(true, Ordering::Release);
        self.waker.wake();
        let longest = self.board.streams.iter().map(|stream| stream.latency_bound).max().unwrap_or_default();
        let (heart, backend) = join_by(self.exec, clock::now() + longest + GRACE + PATIENCE)?;
        self.flags.last.store(true, Ordering::Release);
        self.publisher_waker.wake();
        if join_by(self.publisher, clock::now() + PATIENCE).is_none() {
            stuck.push(PUBLISHER.to_owned());
        }
        let outputs = self.sinks.finish(crate::publish::PATIENCE);
        let pictures = self.painter.map(|painter| painter.finish(crate::publish::PATIENCE));
        // Last of all: the backend's threads may still hold frames, and one may be stuck.
        if let Ok(letting_go) = supervisor::let_go(backend)
            && join_by(letting_go, clock::now() + PATIENCE).is_none()
        {
            stuck.push(ACCELERATOR.to_owned());
        }
        let sensed = sensing.and_then(|(thread, latest)| {
            if join_by(thread, clock::now() + PATIENCE).is_none() {
                stuck.push(SENSORS.to_owned());
            }
            latest.get()
        });
        let mut finished = Finished::new(self.board, &heart, &self.copies, ended.since(self.began));
        finished.outputs = outputs;
        finished.pictures = pictures;
        finished.ended_wall = Some(clock::wall());
        finished.stuck = stuck;
        finished.sensed = sensed.map(|sensed| sensed.to_json(ended));
        finished.interventions = interventions;
        Some(finished)
    }
}

/// Waits for a thread until `patience`; what it gave, if it ended in order by then.
fn join_by<T>(thread: JoinHandle<T>, patience: Instant) -> Option<T> {
    while !thread.is_finished() {
        if clock::now() >= patience {
            return None;
        }
        clock::sleep_until(clock::now() + Duration::from_millis(1));
    }
    thread.join().ok()
}

fn thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    // The kernel shows 15 bytes of a thread's name.
    let shown: heapless::String<15> = crate::job::bounded(name);
    Builder::new().name(shown.as_str().to_owned()).spawn(run)
}

/// Fills a view from the heart: a few hundred nanoseconds a stream.
fn fill(snapshot: &mut Snapshot, heart: &Pipeline<FrameRef>, all: &Histogram) {
    for (view, totals) in snapshot.streams.iter_mut().zip(heart.totals()) {
        *view = (totals.ledger, totals.state, totals.latency.max());
    }
    if snapshot.with_latency {
        snapshot.latency.copy_from(all);
    }
    let BatchTotals { batches, jobs, faults, .. } = heart.batches();
    snapshot.batches = (*batches, *jobs, *faults);
    let certificate = heart.certificate();
    snapshot.guaranteed = (certificate.streams > 0).then_some(certificate.holds);
}
