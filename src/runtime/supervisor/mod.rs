//! The supervisor: a thread that finds out who is stuck, and heals at the smallest scope that can work.
//!
//! It looks every 50 ms at the signs of life that the others leave ([`super::heartbeat`]), asks the policy
//! ([`policy`], pure) and carries out what that says. It runs before everybody else, takes no lock that another
//! thread may hold for long, and does nothing itself that may block: opening, building and letting go are other threads'
//! work, and the log's lines go to a thread of their own ([`crate::telemetry::logging`]).
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
//! or not. Slots of batches that never came back stay taken until the old backend lets go of them. A stream has slots
//! for two batches more than can be at work, so the loss of one costs no frame a slot; more of them may (`no_slot`).

mod accelerator;
mod cameras;
mod policy;
mod stock;

pub(super) use accelerator::let_go;
pub(super) use cameras::Camera;
pub(super) use policy::batch_budget;

use crate::board::Board;
use crate::capture::Source;
use crate::infer::{Backend, Capabilities};
use crate::job::bounded;
use crate::platform::{Waker, clock, exit, realtime};
use crate::pool::{FrameRef, Share};
use crate::publish::Pace;
use crate::record::{Action, Intervention, Scope};
use crate::ring::{Receiver, Sender};
use crate::runtime::Flags;
use crate::runtime::exec::{Accelerator, Boxes, Command, Reply};
use crate::runtime::heartbeat::Signs;
use crate::stats::Copies;
use crate::stream::StreamId;
use crate::time::Instant;
use policy::{Core, Policy, Remedy};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use stock::Stock;

/// Looks between two signs of life to what watches over the process.
const SIGN_EVERY: u32 = 4;
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
    /// Called several times a second as long as nobody is stuck that everything goes through: signs of life for
    /// watchdogs, where there is proof of it ([`super::Proof`]). It must not block.
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
        Self {
            policy,
            stock: Stock::new(parts.spare.clone()),
            boxes: accelerator::boxes(&parts.capabilities),
            why: String::new(),
            building: None,
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
            self.tell(now, Scope::Process, "ocelli", Action::Paused, &cause);
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
        self.looks = self.looks.wrapping_add(1);
        if self.policy.is_well(now) && self.looks.is_multiple_of(SIGN_EVERY) {
            (self.supervised.alive)();
        }
    }

    /// What has come back from exec and from other threads.
    fn take_in(&mut self, now: Instant) {
        while let Some(reply) = self.parts.replies.dequeue() {
            match reply {
                Reply::Ring(stream, ring) => self.stock.ring_back(stream, ring),
                Reply::Kept(boxes) => self.accelerator_kept(boxes),
                Reply::GaveUp(old, boxes) => self.accelerator_gone(now, old, boxes),
            }
        }
        self.stock.collect();
        self.take_built(now);
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
                self.tell(now, Scope::Thread, core.as_str(), Action::Stuck, &cause);
            }
            Some(Remedy::TellRecovered) => {
                self.tell(now, Scope::Thread, core.as_str(), Action::Recovered, "moves again");
            }
            _ => {}
        }
        if core == Core::Publisher && self.policy.is_stuck(core) {
            self.command(Command::Stuck(core.as_str()));
        }
    }

    fn look_at_output(&mut self, now: Instant, index: usize) {
        let (pushed, taken) = self.parts.outputs[index].pushed_and_taken();
        let (action, cause) = match self.policy.output(now, index, pushed, taken) {
            Some(Remedy::Tell(silent)) => {
                self.interventions.outputs_stuck += 1;
                let seconds = silent.as_secs();
                let cause = format!("has taken nothing for {seconds} s; its results are lost, and counted");
                (Action::Stuck, cause)
            }
            Some(Remedy::TellRecovered) => (Action::Recovered, "takes results again".to_owned()),
            _ => return,
        };
        let name = self.parts.outputs[index].name().to_owned();
        self.tell(now, Scope::Output, &name, action, &cause);
    }

    /// Ends the process, so that the service manager starts it again.
    fn restart(&self, why: &str) -> ! {
        log::error!("{why}: the process ends itself (exit code {RESTART}), to be started again");
        log::logger().flush();
        exit::at_once(RESTART);
    }

    /// Says something in the log and in the results.
    fn tell(&mut self, at: Instant, scope: Scope, subject: &str, action: Action, cause: &str) {
        let (level, said) = match action {
            Action::GivenUp => (log::Level::Error, "given up"),
            Action::NotReplaced => (log::Level::Error, "not replaced"),
            Action::Stuck => (log::Level::Error, "stuck"),
            Action::Replaced => (log::Level::Warn, "replaced"),
            Action::Recovered => (log::Level::Warn, "recovered"),
            Action::Paused => (log::Level::Warn, "paused"),
        };
        log::log!(level, "{} {subject}: {said}: {cause}", scope.as_str());
        let (subject, cause) = (bounded(subject), bounded(cause));
        self.command(Command::Publish(Intervention { at, scope, subject, action, cause }));
    }

    /// Asks exec for something; in vain while it is stuck.
    fn command(&mut self, command: Command) {
        if self.parts.commands.enqueue(command).is_ok() {
            self.parts.exec.wake();
        }
    }
}
