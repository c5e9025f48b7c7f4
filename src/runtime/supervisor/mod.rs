//! The supervisor: a thread that finds out who is stuck, and heals at the smallest scope that can work.
//!
//! It looks every 50 ms at the signs of life that the others leave ([`super::heartbeat`]), asks the policy
//! ([`policy`], pure) and carries out what that says. It runs before everybody else, takes no lock that another
//! thread may hold for long, writes no log (its words go to whoever runs the process, [`super::Running::tell`])
//! and does nothing itself that may block: opening, building and letting go are other threads' work.
//!
//! | what is stuck | found by | within | first | limit | then |
//! |---|---|---|---|---|---|
//! | a capture thread, in its source | its seat's word | 1 s; 45 s while opening, 10 s while closing | stream down, its slots and ring quarantined, a new source on the spare share | 3 in 60 s, and one spare share for all | down until the first of them is 60 s ago, or a stuck thread lets go. Never more: a camera costs the others nothing |
//! | a capture thread that died | its handle | 50 ms | the same | the same | the same |
//! | the accelerator's oldest batch | when it was begun | 10 times its planned time, 1 s at least | its jobs end as `backend_failed`, the backend is let go of on a thread of its own and another is built | 3 in 60 s, 1 s apart | the process, where the board allows it; else again when the first is 60 s ago, and no sign of life to the watchdogs until then |
//! | an accelerator that fails everything | the first failure since the last success | 2 s | the same | the same | the same |
//! | the thread exec or pub, waiting or spinning | its beat, every 250 ms | 2 s | the process, where `[supervision] restart = true` (exit code 70, for a service manager with `Restart=on-failure`) | the service manager's | else: said, guarantee withdrawn, no sign of life to the watchdogs until it beats again |
//! | an output's thread | letters that it does not take | 5 s | said; its results are counted as lost as ever | | nothing: its destination is what is stuck |
//! | everything, by SIGSTOP or a pause of the machine | its own look, more than 200 ms late | at once | everybody's time begins anew | | |
//! | the supervisor | nobody within | | | | the service manager's watchdog, then the hardware's |
//!
//! **One spare share for the board**, as large as its largest stream's: a share a stream would double the pool,
//! which is most of the memory there is; two cameras whose drivers are stuck at the same time are rare, and then
//! the second waits, down and said so. A share is free again when its stuck thread has ended and nobody reads one
//! of its frames; then it is the spare.
//!
//! While there is no accelerator a stand-in refuses every batch, so frames end at once with their reason, critical
//! or not. Slots of batches that never came back stay taken until the old backend lets go of them: a stream has
//! slots for two batches more than are at work, so one lost accelerator costs no frame a slot.

mod absent;
mod cameras;
mod policy;

pub(super) use cameras::Camera;
pub(super) use policy::batch_budget;

use crate::board::Board;
use crate::capture::{Resources, Source};
use crate::infer::{Backend, Capabilities};
use crate::job::{BatchFault, bounded};
use crate::platform::{Waker, clock, exit, realtime};
use crate::pool::{FrameRef, Share};
use crate::publish::Pace;
use crate::record::{Action, Intervention, Scope};
use crate::ring::{Receiver, Sender};
use crate::runtime::capture::{self, Port};
use crate::runtime::exec::{Accelerator, Boxes, Command, Reply};
use crate::runtime::heartbeat::{Seat, Signs, Waiting};
use crate::runtime::{Flags, thread};
use crate::stats::Copies;
use crate::stream::StreamId;
use crate::time::Instant;
use absent::Absent;
use cameras::Stock;
use policy::{Core, Policy, Remedy, WINDOW};
use std::fmt::{Display, Write as _};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Words that may wait to be said; more are counted and not said.
pub(super) const WORDS: usize = 256;
/// Looks between two signs of life to what watches over the process.
const SIGN_EVERY: u32 = 4;
/// How long the last words before the process ends itself may take.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Exit code of a process that ends itself to be started again (EX_SOFTWARE).
const RESTART: i32 = 70;

/// Makes a new source for a camera, not open yet.
pub type MakeSource = dyn Fn(StreamId) -> Box<dyn Source> + Send + Sync;
/// Builds a new accelerator that wakes this; says why there is none. On a thread of its own: it may take its time.
pub type BuildBackend = dyn Fn(&Waker) -> Result<Box<dyn Backend<FrameRef>>, String> + Send + Sync;

/// How what is stuck is replaced, and who is told that the run works.
pub struct Supervised {
    /// For cameras.
    pub source: Arc<MakeSource>,
    /// For the accelerator.
    pub backend: Arc<BuildBackend>,
    /// Called several times a second as long as everything works, and only then: signs of life for watchdogs. It
    /// must not block.
    pub alive: Box<dyn FnMut() + Send>,
}

/// What the supervisor did in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interventions {
    /// Capture threads that were given up.
    pub captures_given_up: u64,
    /// Capture threads that were put in their place.
    pub captures_replaced: u64,
    /// Accelerators that were given up.
    pub accelerators_given_up: u64,
    /// Accelerators that were put in their place.
    pub accelerators_replaced: u64,
    /// Times that exec or pub was stuck, and the process was not ended.
    pub threads_stuck: u64,
    /// Times that an output's thread was stuck.
    pub outputs_stuck: u64,
    /// Times that the whole process stood still.
    pub pauses: u64,
    /// Capture threads that were given up and had not come back at the end.
    pub captures_quarantined: u64,
}

/// What the supervisor is made of.
pub(super) struct Parts {
    pub(super) board: Arc<Board>,
    pub(super) flags: Arc<Flags>,
    pub(super) signs: Arc<Signs>,
    pub(super) cameras: Vec<Camera>,
    pub(super) spare: Option<Share>,
    pub(super) copies: Arc<Copies>,
    /// Zero of the sources' grids.
    pub(super) start: Instant,
    pub(super) capabilities: Capabilities,
    pub(super) exec: Waker,
    pub(super) commands: Sender<Command>,
    pub(super) replies: Receiver<Reply>,
    pub(super) outputs: Vec<Pace>,
    pub(super) words: SyncSender<(log::Level, String)>,
}

/// The supervisor.
pub(super) struct Supervisor {
    parts: Parts,
    supervised: Supervised,
    policy: Policy,
    stock: Stock,
    /// For the batches that an accelerator takes along.
    boxes: Boxes,
    /// Why the accelerator was last given up.
    why: String,
    /// The next accelerator, or why there is none, from the thread that builds it.
    building: Option<mpsc::Receiver<Result<Accelerator, String>>>,
    /// How long what has arrived may take to be published, beside what the accelerator takes.
    patience: Duration,
    looks: u32,
    interventions: Interventions,
}

/// What is left of the supervisor.
pub(super) struct Left {
    pub(super) cameras: Vec<Camera>,
    pub(super) interventions: Interventions,
}

impl Supervisor {
    pub(super) fn new(parts: Parts, supervised: Supervised) -> Self {
        let policy = Policy::new(
            clock::now(),
            parts.board.supervision.restart,
            parts.cameras.len(),
            parts.outputs.len(),
        );
        let longest = parts.board.streams.iter().map(|stream| stream.latency_bound).max();
        Self {
            policy,
            stock: Stock::new(parts.spare.clone()),
            boxes: boxes(&parts.capabilities),
            why: String::new(),
            building: None,
            patience: longest.unwrap_or_default() + Duration::from_secs(2),
            looks: 0,
            interventions: Interventions::default(),
            supervised,
            parts,
        }
    }

    /// Watches until the run stops.
    pub(super) fn run(mut self) -> Left {
        let _place = realtime::enter(realtime::Role::Supervise, &self.parts.board.realtime);
        while !self.parts.flags.stop.load(Ordering::Acquire) {
            clock::sleep_until(self.policy.due());
            let now = clock::now();
            if now >= self.policy.due() {
                self.look(now);
            }
        }
        self.interventions.captures_quarantined = self.stock.stuck() as u64;
        Left { cameras: self.parts.cameras, interventions: self.interventions }
    }

    fn look(&mut self, now: Instant) {
        if let Some(pause) = self.policy.look(now) {
            self.interventions.pauses += 1;
            let cause =
                format!("stood still for {:.1} s; nobody is blamed for that time", pause.as_secs_f64());
            self.tell(now, log::Level::Warn, Scope::Process, "ocelli", Action::Paused, &cause);
        }
        self.take_in(now);
        for index in 0..self.parts.cameras.len() {
            self.look_at_camera(now, StreamId(index as u16));
        }
        self.look_at_accelerator(now);
        for core in Core::ALL {
            self.look_at_core(now, core);
        }
        for index in 0..self.parts.outputs.len() {
            self.look_at_output(now, index);
        }
        let signs = &self.parts.signs;
        let patience = self.patience + signs.work().map_or(Duration::ZERO, |work| work.budget);
        let well = self.policy.is_well(now, signs.arrived.get(), signs.published.get(), patience);
        self.looks = self.looks.wrapping_add(1);
        if well && self.looks.is_multiple_of(SIGN_EVERY) {
            (self.supervised.alive)();
        }
    }

    /// What has come back from exec and from other threads.
    fn take_in(&mut self, now: Instant) {
        while let Some(reply) = self.parts.replies.dequeue() {
            match reply {
                Reply::Ring(stream, ring) => self.stock.ring_back(stream, ring),
                Reply::Kept(boxes) => {
                    self.boxes.extend(boxes);
                    self.policy.accelerator_let_go(false);
                }
                Reply::GaveUp(old, boxes) => {
                    self.boxes = boxes;
                    self.policy.accelerator_let_go(true);
                    self.interventions.accelerators_given_up += 1;
                    let name = self.parts.capabilities.name.clone();
                    let cause = format!("{}; frames are dropped until the next one is built", self.why);
                    self.tell(now, log::Level::Error, Scope::Accelerator, &name, Action::GivenUp, &cause);
                    let_go(old);
                }
            }
        }
        self.stock.collect();
        // With a way to hand it to exec; else later.
        let ready = self.parts.commands.ready();
        let built = self.building.as_ref().filter(|_| ready).map(|building| building.try_recv());
        match built {
            None | Some(Err(TryRecvError::Empty)) => {}
            Some(Ok(built)) => self.accelerator_built(now, built),
            Some(Err(TryRecvError::Disconnected)) => {
                self.accelerator_built(now, Err("its thread died".to_owned()));
            }
        }
    }

    fn look_at_camera(&mut self, now: Instant, stream: StreamId) {
        let camera = &mut self.parts.cameras[stream.index()];
        if let Some(thread) = camera.thread.take_if(|thread| thread.is_finished()) {
            // One that ended in order is done: its camera has come to its end, or the run stops.
            if thread.join().is_err() {
                self.give_up_camera(now, stream, None, "its capture thread has died");
            }
            return;
        }
        let waiting = camera.seat.waiting();
        match self.policy.camera(now, stream, waiting.map(|waiting| (waiting.phase, waiting.since))) {
            Some(Remedy::GiveUp(silent)) => {
                let Some(waiting) = waiting else { return };
                let cause = format!(
                    "its capture thread is stuck in {} for {:.1} s",
                    waiting.phase.as_str(),
                    silent.as_secs_f64()
                );
                self.give_up_camera(now, stream, Some(waiting), &cause);
            }
            Some(Remedy::Replace) => self.replace_camera(now, stream),
            _ => {}
        }
    }

    /// Takes the camera from a thread that waits, or from one that has died.
    fn give_up_camera(&mut self, now: Instant, stream: StreamId, waiting: Option<Waiting>, cause: &str) {
        // Without a way to exec nobody would hear of it: exec is what is stuck then.
        if !self.parts.commands.ready() {
            return;
        }
        let camera = &mut self.parts.cameras[stream.index()];
        let past = match waiting {
            Some(waiting) => camera.seat.take(&waiting),
            None => Some(camera.seat.take_from_dead()),
        };
        // It came back at this very moment.
        let Some(past) = past else { return };
        (camera.past, camera.told) = (Some(past), false);
        let (share, thread) = (camera.share.clone(), camera.thread.take());
        self.stock.quarantine(stream, share, thread);
        self.policy.camera_given_up(stream);
        self.interventions.captures_given_up += 1;
        self.command(Command::Down(stream, past.overflow, bounded(cause)));
        self.tell_of(now, log::Level::Error, stream, Action::GivenUp, cause);
        if let Some(wait) = self.policy.camera_waits(now, stream) {
            let cause = format!(
                "replaced too often in the last {} s: tried again in {:.0} s",
                WINDOW.as_secs(),
                wait.as_secs_f64()
            );
            self.tell_of(now, log::Level::Error, stream, Action::NotReplaced, &cause);
        }
    }

    /// Puts a new source and thread in the place of what was given up, if there are slots for it.
    fn replace_camera(&mut self, now: Instant, stream: StreamId) {
        let camera = &mut self.parts.cameras[stream.index()];
        let Some(past) = camera.past.filter(|_| self.parts.commands.ready()) else { return };
        let Some(kit) = self.stock.take(&camera.share) else {
            if !std::mem::replace(&mut camera.told, true) {
                let cause =
                    "the pool's spare share is in use or too small: it is down until a stuck thread lets go";
                self.tell_of(now, log::Level::Error, stream, Action::NotReplaced, cause);
            }
            return;
        };
        let (share, to_exec, from_capture) = kit.into_parts();
        let seat = Arc::new(Seat::after(&past));
        let flags = self.parts.flags.clone();
        let port = Port::new(to_exec, self.parts.exec.clone(), flags.clone(), seat.clone());
        let resources =
            Resources { share: share.clone(), copies: self.parts.copies.clone(), start: self.parts.start };
        let (board, make) = (self.parts.board.clone(), self.supervised.source.clone());
        let id = board.streams[stream.index()].id.clone();
        let started = thread(&format!("cap-{id}"), move || {
            realtime::ordinary();
            let mut source = make(stream);
            source.resume(past.next);
            capture::Camera { id, source, resources, port, flags }.run(&board.realtime)
        });
        self.policy.camera_replaced(now, stream);
        match started {
            Ok(thread) => {
                let camera = &mut self.parts.cameras[stream.index()];
                *camera = Camera::new(seat, thread, share);
                self.interventions.captures_replaced += 1;
                self.command(Command::Listen(stream, from_capture));
                let cause = "a new source is being opened, on other slots";
                self.tell_of(now, log::Level::Warn, stream, Action::Replaced, cause);
            }
            Err(why) => {
                self.stock.put_back(share);
                self.policy.camera_given_up(stream);
                let cause = format!("the system gives no thread: {why}; raise the limit of threads");
                self.tell_of(now, log::Level::Error, stream, Action::NotReplaced, &cause);
            }
        }
    }

    fn look_at_accelerator(&mut self, now: Instant) {
        let (work, failing) = (self.parts.signs.work(), self.parts.signs.failing());
        match self.policy.accelerator(now, work, failing) {
            Some(Remedy::GiveUp(_)) if self.parts.commands.ready() => {
                let stuck = work.filter(|work| now.since(work.since) > work.budget);
                self.why = match stuck {
                    Some(work) => {
                        format!("a batch did not come back in {:.1} s", work.budget.as_secs_f64())
                    }
                    None => "every batch failed".to_owned(),
                };
                self.policy.accelerator_given_up();
                let command = Command::GiveUp {
                    oldest: stuck.map(|work| work.since),
                    stand_in: Box::new(Absent(self.parts.capabilities.clone())),
                    boxes: std::mem::take(&mut self.boxes),
                    why: BatchFault::new(&self.why),
                };
                self.command(command);
            }
            Some(Remedy::Replace) => self.build(now),
            Some(Remedy::Restart(_)) => {
                self.restart("the accelerator was replaced several times within a minute, and does not work");
            }
            Some(Remedy::Tell(silent)) => {
                self.building = None;
                let name = self.parts.capabilities.name.clone();
                let cause = format!("building the next one has taken {} s: not waited for", silent.as_secs());
                self.tell(now, log::Level::Error, Scope::Accelerator, &name, Action::NotReplaced, &cause);
            }
            _ => {}
        }
    }

    /// Has the next accelerator built.
    fn build(&mut self, now: Instant) {
        let (built, building) = mpsc::sync_channel(1);
        let (make, waker) = (self.supervised.backend.clone(), self.parts.exec.clone());
        let started = thread("build", move || {
            realtime::ordinary();
            // Nobody may be waiting for it any more; then it is dropped here.
            let _ = built.send(make(&waker));
        });
        self.policy.accelerator_begun(now);
        self.building = Some(building);
        if let Err(why) = started {
            self.accelerator_built(now, Err(format!("the system gives no thread: {why}")));
        }
    }

    fn accelerator_built(&mut self, now: Instant, built: Result<Accelerator, String>) {
        self.building = None;
        let same = built.and_then(|backend| {
            if *backend.capabilities() == self.parts.capabilities {
                return Ok(backend);
            }
            let_go(backend);
            Err("it is not what the board was admitted with".to_owned())
        });
        if !self.policy.accelerator_built(now, same.is_ok()) {
            return;
        }
        let name = self.parts.capabilities.name.clone();
        match same {
            Ok(backend) => {
                self.boxes = boxes(&self.parts.capabilities);
                self.interventions.accelerators_replaced += 1;
                self.command(Command::Install(backend));
                let cause = "the next one takes batches";
                self.tell(now, log::Level::Warn, Scope::Accelerator, &name, Action::Replaced, cause);
            }
            Err(why) => {
                self.tell(now, log::Level::Error, Scope::Accelerator, &name, Action::NotReplaced, &why);
            }
        }
    }

    fn look_at_core(&mut self, now: Instant, core: Core) {
        let signs = &self.parts.signs;
        let last = match core {
            Core::Exec => signs.exec.last(),
            Core::Publisher => signs.publisher.last(),
        };
        match self.policy.core(now, core, last) {
            Some(Remedy::Restart(silent)) => {
                let seconds = silent.as_secs_f64();
                self.restart(&format!("the thread {} has not moved for {seconds:.1} s", core.as_str()));
            }
            Some(Remedy::Tell(silent)) => {
                self.interventions.threads_stuck += 1;
                let cause = format!(
                    "has not moved for {:.1} s: nothing is published; only a restart can help, and the board's \
                     [supervision] does not allow it",
                    silent.as_secs_f64()
                );
                self.tell(now, log::Level::Error, Scope::Thread, core.as_str(), Action::Stuck, &cause);
            }
            Some(Remedy::TellRecovered) => {
                self.tell(
                    now,
                    log::Level::Warn,
                    Scope::Thread,
                    core.as_str(),
                    Action::Recovered,
                    "moves again",
                );
            }
            _ => {}
        }
        if core == Core::Publisher && self.policy.is_stuck(core) {
            self.command(Command::Stuck(core.as_str()));
        }
    }

    fn look_at_output(&mut self, now: Instant, index: usize) {
        let pace = &self.parts.outputs[index];
        let (pushed, taken) = pace.pushed_and_taken();
        let name = pace.name().to_owned();
        match self.policy.output(now, index, pushed, taken) {
            Some(Remedy::Tell(silent)) => {
                self.interventions.outputs_stuck += 1;
                let cause = format!(
                    "has taken nothing for {} s: its destination is stuck; results are lost there, and counted",
                    silent.as_secs()
                );
                self.tell(now, log::Level::Error, Scope::Output, &name, Action::Stuck, &cause);
            }
            Some(Remedy::TellRecovered) => {
                let cause = "takes results again";
                self.tell(now, log::Level::Warn, Scope::Output, &name, Action::Recovered, cause);
            }
            _ => {}
        }
    }

    /// Ends the process, so that the service manager starts it again.
    fn restart(&self, why: &str) -> ! {
        let words = format!("{why}: the process ends itself (exit code {RESTART}), to be started again");
        // Standard error may be what is stuck: it is not waited for.
        let said = thread("last-words", move || {
            realtime::ordinary();
            log::error!("{words}");
        });
        let patience = clock::now() + LAST_WORDS;
        while said.as_ref().is_ok_and(|said| !said.is_finished()) && clock::now() < patience {
            clock::sleep_until(clock::now() + Duration::from_millis(1));
        }
        exit::at_once(RESTART);
    }

    fn tell_of(&mut self, now: Instant, level: log::Level, stream: StreamId, action: Action, cause: &str) {
        let id = self.parts.board.streams[stream.index()].id.clone();
        self.tell(now, level, Scope::Capture, &id, action, cause);
    }

    /// Says something in the log and in the results.
    fn tell(
        &mut self,
        at: Instant,
        level: log::Level,
        scope: Scope,
        subject: &str,
        action: Action,
        cause: impl Display,
    ) {
        let mut words = String::new();
        let _ = write!(words, "{} {subject}: {}: {cause}", scope.as_str(), said(action));
        // When nobody listens, nobody is told.
        let _ = self.parts.words.try_send((level, words));
        let cause = bounded(&cause.to_string());
        self.command(Command::Publish(Intervention { at, scope, subject: bounded(subject), action, cause }));
    }

    /// Asks exec for something; in vain while it is stuck.
    fn command(&mut self, command: Command) {
        if self.parts.commands.enqueue(command).is_ok() {
            self.parts.exec.wake();
        }
    }
}

const fn said(action: Action) -> &'static str {
    match action {
        Action::GivenUp => "given up",
        Action::Replaced => "replaced",
        Action::NotReplaced => "not replaced",
        Action::Stuck => "stuck",
        Action::Recovered => "recovered",
        Action::Paused => "paused",
    }
}

/// As many as an accelerator can take along.
fn boxes(capabilities: &Capabilities) -> Boxes {
    (0..capabilities.in_flight).map(|_| capabilities.new_batch()).collect()
}

/// Drops an accelerator where that may take as long as it likes.
fn let_go(backend: Accelerator) {
    // Where the system gives no thread, it is left as it is: dropping it here could hang.
    let backend = ManuallyDrop::new(backend);
    let _: std::io::Result<JoinHandle<()>> = thread("let-go", move || {
        realtime::ordinary();
        drop(ManuallyDrop::into_inner(backend));
    });
}
