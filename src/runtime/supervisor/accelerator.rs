//! The accelerator: given up, let go of, built anew.

use super::Supervisor;
use super::policy::Remedy;
use crate::infer::{Backend, Capabilities};
use crate::job::{Batch, BatchFault};
use crate::platform::realtime;
use crate::pool::FrameRef;
use crate::record::{Action, Scope};
use crate::runtime::exec::{Accelerator, Boxes, Command};
use crate::runtime::thread;
use crate::time::Instant;
use std::mem::ManuallyDrop;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::JoinHandle;

impl Supervisor {
    pub(super) fn look_at_accelerator(&mut self, now: Instant) {
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
                self.tell(now, Scope::Accelerator, &name, Action::NotReplaced, &cause);
            }
            _ => {}
        }
    }

    /// Its batch came back at the last moment.
    pub(super) fn accelerator_kept(&mut self, boxes: Boxes) {
        self.boxes.extend(boxes);
        self.policy.accelerator_let_go(false);
    }

    /// Exec has let go of it.
    pub(super) fn accelerator_gone(&mut self, now: Instant, old: Accelerator, boxes: Boxes) {
        self.boxes = boxes;
        self.policy.accelerator_let_go(true);
        self.interventions.accelerators_given_up += 1;
        let name = self.parts.capabilities.name.clone();
        let cause = format!("{}; frames are dropped until the next one is built", self.why);
        self.tell(now, Scope::Accelerator, &name, Action::GivenUp, &cause);
        // Nobody waits for it.
        let _ = let_go(old);
    }

    /// Looks whether the next one has been built, while there is a way to hand it to exec.
    pub(super) fn take_built(&mut self, now: Instant) {
        let ready = self.parts.commands.ready();
        let built = self.building.as_ref().filter(|_| ready).map(mpsc::Receiver::try_recv);
        match built {
            None | Some(Err(TryRecvError::Empty)) => {}
            Some(Ok(built)) => self.accelerator_built(now, built),
            Some(Err(TryRecvError::Disconnected)) => {
                self.accelerator_built(now, Err("its thread died".to_owned()));
            }
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
            let _ = let_go(backend);
            Err("it is not what the board was admitted with".to_owned())
        });
        let awaited = self.policy.accelerator_built(now, same.is_ok());
        let name = self.parts.capabilities.name.clone();
        match same {
            Ok(backend) if !awaited => {
                let _ = let_go(backend);
            }
            Ok(backend) => {
                self.boxes = boxes(&self.parts.capabilities);
                self.interventions.accelerators_replaced += 1;
                self.command(Command::Install(backend));
                let cause = "the next one takes batches";
                self.tell(now, Scope::Accelerator, &name, Action::Replaced, cause);
            }
            Err(why) => {
                self.tell(now, Scope::Accelerator, &name, Action::NotReplaced, &why);
            }
        }
    }
}

/// What stands in for an accelerator while there is none: it refuses every batch, so that each frame ends at once
/// with its reason.
struct Absent(Capabilities);

impl Backend<FrameRef> for Absent {
    fn capabilities(&self) -> &Capabilities {
        &self.0
    }

    fn submit(&mut self, _: Instant, mut batch: Box<Batch<FrameRef>>) -> Result<(), Box<Batch<FrameRef>>> {
        batch.fault =
            Some(BatchFault::new("there is no accelerator: it was given up, and the next is not built yet"));
        Err(batch)
    }

    fn poll(&mut self, _: Instant) -> Option<Box<Batch<FrameRef>>> {
        None
    }

    fn poll_at(&self) -> Option<Instant> {
        None
    }
}

/// As many as an accelerator can take along.
pub(super) fn boxes(capabilities: &Capabilities) -> Boxes {
    (0..capabilities.in_flight()).map(|_| capabilities.new_batch()).collect()
}

/// Drops an accelerator where that may take as long as it likes: on the thread that is given back.
///
/// # Errors
/// The system gives no thread; then it is left as it is, for dropping it here could hang.
pub(in crate::runtime) fn let_go(backend: Accelerator) -> std::io::Result<JoinHandle<()>> {
    let backend = ManuallyDrop::new(backend);
    thread("let-go", move || {
        realtime::ordinary();
        drop(ManuallyDrop::into_inner(backend));
    })
}
