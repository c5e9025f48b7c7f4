//! Capture threads: given up, and replaced.

use super::Supervisor;
use super::policy::{Remedy, WINDOW};
use crate::capture::Resources;
use crate::job::bounded;
use crate::platform::realtime;
use crate::pool::Share;
use crate::record::{Action, Scope};
use crate::ring::Sender;
use crate::runtime::capture::{self, News, Port};
use crate::runtime::exec::Command;
use crate::runtime::heartbeat::{Past, Seat, Waiting};
use crate::runtime::thread;
use crate::stream::StreamId;
use crate::time::Instant;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A camera and its thread.
pub(in crate::runtime) struct Camera {
    pub(in crate::runtime) seat: Arc<Seat>,
    /// `None` while nobody has the camera, or when it has come to its end.
    pub(in crate::runtime) thread: Option<JoinHandle<Sender<News>>>,
    /// Slots that its source uses.
    pub(in crate::runtime) share: Share,
    /// Where its last thread left off, while nobody has it.
    pub(super) past: Option<Past>,
    /// Whether it has been said that there is nothing to replace its thread with.
    pub(super) told: bool,
}

impl Camera {
    pub(in crate::runtime) fn new(seat: Arc<Seat>, thread: JoinHandle<Sender<News>>, share: Share) -> Self {
        Self { seat, thread: Some(thread), share, past: None, told: false }
    }

    /// Whether nobody has the camera.
    pub(in crate::runtime) fn is_vacant(&self) -> bool {
        self.past.is_some()
    }
}

impl Supervisor {
    pub(super) fn look_at_camera(&mut self, now: Instant, stream: StreamId) {
        // Without a way to exec nobody would hear of it: exec is what is stuck then.
        if !self.parts.commands.ready() {
            return;
        }
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
        self.tell_of(now, stream, Action::GivenUp, cause);
        if let Some(wait) = self.policy.camera_waits(now, stream) {
            let cause = format!(
                "replaced too often in the last {} s: tried again in {:.0} s",
                WINDOW.as_secs(),
                wait.as_secs_f64()
            );
            self.tell_of(now, stream, Action::NotReplaced, &cause);
        }
    }

    /// Puts a new source and thread in the place of what was given up, if there are slots for it.
    fn replace_camera(&mut self, now: Instant, stream: StreamId) {
        let camera = &mut self.parts.cameras[stream.index()];
        let Some(past) = camera.past else { return };
        let Some(kit) = self.stock.take(&camera.share) else {
            if !std::mem::replace(&mut camera.told, true) {
                let cause =
                    "the pool's spare share is in use or too small: it is down until a stuck thread lets go";
                self.tell_of(now, stream, Action::NotReplaced, cause);
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
                self.tell_of(now, stream, Action::Replaced, cause);
            }
            Err(why) => {
                self.stock.put_back(share);
                self.policy.camera_given_up(stream);
                let cause = format!("the system gives no thread: {why}; raise the limit of threads");
                self.tell_of(now, stream, Action::NotReplaced, &cause);
            }
        }
    }

    fn tell_of(&mut self, now: Instant, stream: StreamId, action: Action, cause: &str) {
        let id = self.parts.board.streams[stream.index()].id.clone();
        self.tell(now, Scope::Capture, &id, action, cause);
    }
}
