//! How far a build is. TensorRT tells phases with a number of steps, which contain further phases.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far a build is, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the builder is at, in its own words.
    pub phase: String,
    /// The share that is done, 0 to 1, as far as the builder's steps tell.
    pub done: f64,
    /// Time since the build began.
    pub elapsed: Duration,
    /// Time left if it goes on like this; `None` where too little is done to tell.
    pub left: Option<Duration>,
}

/// Receives a build's steps, from any of the builder's threads.
pub struct Progress {
    begun: Instant,
    phases: Mutex<Phases>,
    stop: AtomicBool,
    tell: Box<dyn Fn(Step) + Send + Sync>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Progress {
    /// Calls `tell` whenever the share that is done has changed by a hundredth.
    pub fn new(tell: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self {
            begun: Instant::now(),
            phases: Mutex::default(),
            stop: AtomicBool::new(false),
            tell: Box::new(tell),
        }
    }

    /// Asks the builder to give up at its next step.
    pub fn cancel(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn started(&self, phase: &str, parent: &str, steps: i32) {
        self.change(|phases| phases.start(phase, parent, steps));
    }

    /// False if the builder is to give up.
    pub(super) fn stepped(&self, phase: &str, step: i32) -> bool {
        self.change(|phases| phases.step(phase, step));
        !self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn finished(&self, phase: &str) {
        self.change(|phases| phases.finish(phase));
    }

    fn change(&self, change: impl FnOnce(&mut Phases)) {
        let told = {
            let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut phases);
            phases.news()
        };
        if let Some((phase, done)) = told {
            let elapsed = self.begun.elapsed();
            let left = (done >= 0.05).then(|| elapsed.mul_f64((1.0 - done) / done));
            (self.tell)(Step { phase, done, elapsed, left });
        }
    }
}

#[derive(Debug, Default)]
struct Phases {
    open: Vec<Phase>,
    /// Hundredths told last.
    told: u32,
}

#[derive(Debug)]
struct Phase {
    name: String,
    parent: String,
    steps: f64,
    done: f64,
}

impl Phases {
    fn start(&mut self, phase: &str, parent: &str, steps: i32) {
        let steps = f64::from(steps.max(1));
        self.open.push(Phase { name: phase.to_owned(), parent: parent.to_owned(), steps, done: 0.0 });
    }

    fn step(&mut self, phase: &str, step: i32) {
        // Steps count from 0 and may come in any order.
        if let Some(open) = self.open.iter_mut().rev().find(|open| open.name == phase) {
            open.done = open.done.max(f64::from(step) + 1.0).min(open.steps);
        }
    }

    fn finish(&mut self, phase: &str) {
        if let Some(at) = self.open.iter().rposition(|open| open.name == phase) {
            self.open.remove(at);
        }
    }

    /// The share of a phase that is done: whole steps, and the next one as far as a phase within it is.
    fn share(&self, at: usize) -> f64 {
        let phase = &self.open[at];
        let inner = (at + 1..self.open.len()).filter(|&inner| self.open[inner].parent == phase.name);
        let within = inner.map(|inner| self.share(inner)).fold(0.0, f64::max);
        ((phase.done + within) / phase.steps).min(1.0)
    }

    /// What is open furthest in, and the share, if that has changed by a hundredth; it never goes back.
    fn news(&mut self) -> Option<(String, f64)> {
        let innermost = self.open.last()?.name.clone();
        let share = self.share(0);
        let hundredths = (share * 100.0) as u32;
        (hundredths > self.told).then(|| {
            self.told = hundredths;
            (innermost, share)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn shares_come_from_nested_steps_and_never_go_back() {
        let told: Arc<Mutex<Vec<(String, u32)>>> = Arc::default();
        let seen = told.clone();
        let progress = Progress::new(move |step| {
            assert_eq!(step.left.is_some(), step.done >= 0.05);
            seen.lock().unwrap().push((step.phase, (step.done * 100.0) as u32));
        });
        progress.started("build", "", 4);
        assert!(progress.stepped("build", 0));
        progress.started("tactics", "build", 2);
        assert!(progress.stepped("tactics", 0));
        progress.finished("tactics");
        assert!(progress.stepped("build", 1));
        assert!(progress.stepped("build", 0), "a step that comes again");
        assert!(progress.stepped("unknown", 3));
        progress.cancel();
        assert!(!progress.stepped("build", 3));
        progress.finished("build");
        progress.finished("build");
        let of = |phase: &str, share| (phase.to_owned(), share);
        let expected = [of("build", 25), of("tactics", 37), of("build", 50), of("build", 100)];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
