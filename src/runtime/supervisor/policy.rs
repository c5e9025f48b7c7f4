//! Who is judged to be stuck, and what is done about it: budgets, limits and steps, without clock and threads.
//!
//! Facts go in with `now`, a remedy comes out; the same facts at the same instants give the same remedies.

use crate::runtime::heartbeat::{Phase, Work};
use crate::stream::StreamId;
use crate::time::Instant;
use std::time::Duration;

/// Time from one look to the next.
pub(super) const PERIOD: Duration = Duration::from_millis(50);
/// A look that comes later than this after it was due: the whole process stood still.
const PAUSE: Duration = Duration::from_millis(200);
/// How long exec and pub may be silent; they beat every 250 ms at least.
const THREAD: Duration = Duration::from_secs(2);
/// How long all batches may fail before the accelerator counts as broken.
const FAILING: Duration = Duration::from_secs(2);
/// How long the next accelerator may take to be built: some compile their networks then.
const BUILDING: Duration = Duration::from_secs(300);
/// Least time from one try to replace the accelerator to the next.
const PAUSE_BETWEEN: Duration = Duration::from_secs(1);
/// How long an output's thread may take nothing of what waits for it.
const OUTPUT: Duration = Duration::from_secs(5);
/// So many replacements of one thing, within this time: then replacing does not help.
const MOST: usize = 3;
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// How long a capture thread may wait for something.
pub(super) fn patience(phase: Phase) -> Duration {
    match phase {
        // Sources come back after 100 ms, whatever happens.
        Phase::Watching | Phase::Pausing => Duration::from_secs(1),
        // Longer than any source waits for its camera's first frame.
        Phase::Opening => Duration::from_secs(45),
        Phase::Closing => Duration::from_secs(10),
    }
}

/// How long a batch may take that is planned to take so long.
pub(in crate::runtime) fn batch_budget(planned: Duration) -> Duration {
    (10 * planned).max(Duration::from_secs(1))
}

/// A thread that everything goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    Exec,
    Publisher,
}

impl Core {
    pub(super) const ALL: [Self; 2] = [Self::Exec, Self::Publisher];

    /// The thread's name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Publisher => "pub",
        }
    }
}

/// What is to be done about something that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Not to wait for it any longer; it has been silent for so long.
    GiveUp(Duration),
    /// To put another in its place.
    Replace,
    /// To end the process, so that the service manager starts it anew: nothing less helps.
    Restart(Duration),
    /// To say that it is stuck: nothing can be done here.
    Tell(Duration),
    /// To say that it moves again.
    TellRecovered,
}

/// The last few replacements of one thing.
#[derive(Clone, Copy, Debug, Default)]
struct Limit([Option<Instant>; MOST]);

impl Limit {
    fn allows(&self, now: Instant) -> bool {
        self.0.iter().any(|at| at.is_none_or(|at| now.since(at) >= WINDOW))
    }

    fn note(&mut self, now: Instant) {
        self.0.rotate_left(1);
        self.0[MOST - 1] = Some(now);
    }

    fn last(&self) -> Option<Instant> {
        self.0[MOST - 1]
    }
}

/// Where the replacement of the accelerator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    Works,
    /// Exec has been told to let go of it.
    GivenUp,
    /// There is none.
    Absent,
    /// The next one is being built since then.
    Built(Instant),
}

/// What has been published of what has arrived.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Records published when one was last seen to be, frames that had arrived by then, and when.
    published: u64,
    arrived: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Camera {
    /// Whether no thread has it.
    vacant: bool,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, Default)]
struct Output {
    /// Letters that it had taken when it was last seen to take one, and when.
    taken: u64,
    at: Instant,
    stuck: bool,
}

/// The policy's memory.
#[derive(Debug)]
pub(super) struct Policy {
    /// Whether the process may end itself.
    restart: bool,
    /// When the next look is due.
    due: Instant,
    /// Everybody counts as alive then.
    armed: Instant,
    cameras: Vec<Camera>,
    accelerator: Accelerator,
    /// Since when it is the one that works now.
    installed: Instant,
    limit: Limit,
    stuck: [bool; Core::ALL.len()],
    outputs: Vec<Output>,
    progress: Progress,
}

impl Policy {
    pub(super) fn new(now: Instant, restart: bool, cameras: usize, outputs: usize) -> Self {
        Self {
            restart,
            due: now + PERIOD,
            armed: now,
            cameras: vec![Camera::default(); cameras],
            accelerator: Accelerator::Works,
            installed: now,
            limit: Limit::default(),
            stuck: [false; Core::ALL.len()],
            outputs: vec![Output { at: now, ..Output::default() }; outputs],
            progress: Progress { published: 0, arrived: 0, at: now },
        }
    }

    /// A look begins. When it is so late that the whole process stood still, for how long: then everybody's time
    /// begins anew.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let late = now.since(self.due);
        self.due = now + PERIOD;
        if late <= PAUSE {
            return None;
        }
        self.armed = now;
        Some(late)
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// For how long somebody is silent that was last heard of at `last`, if that is longer than `budget`.
    fn silent(&self, now: Instant, last: Instant, budget: Duration) -> Option<Duration> {
        (now.since(last.max(self.armed)) > budget).then(|| now.since(last))
    }

    /// A capture thread, which waits for something since then, or does not.
    pub(super) fn camera(
        &mut self,
        now: Instant,
        stream: StreamId,
        waiting: Option<(Phase, Instant)>,
    ) -> Option<Remedy> {
        let Camera { vacant, limit } = self.cameras[stream.index()];
        if vacant {
            return limit.allows(now).then_some(Remedy::Replace);
        }
        let (phase, since) = waiting?;
        self.silent(now, since, patience(phase)).map(Remedy::GiveUp)
    }

    /// Nobody has the camera any more.
    pub(super) fn camera_given_up(&mut self, stream: StreamId) {
        self.cameras[stream.index()].vacant = true;
    }

    /// Another thread has the camera.
    pub(super) fn camera_replaced(&mut self, now: Instant, stream: StreamId) {
        let camera = &mut self.cameras[stream.index()];
        camera.vacant = false;
        camera.limit.note(now);
    }

    /// Whether the camera may be replaced now, or when.
    pub(super) fn camera_waits(&self, now: Instant, stream: StreamId) -> Option<Duration> {
        let Limit(times) = self.cameras[stream.index()].limit;
        let first = times.into_iter().flatten().min().filter(|_| times.iter().all(Option::is_some))?;
        Some((first + WINDOW).since(now)).filter(|wait| !wait.is_zero())
    }

    /// The accelerator, its oldest batch, and since when it does nothing but fail.
    pub(super) fn accelerator(
        &mut self,
        now: Instant,
        work: Option<Work>,
        failing: Option<Instant>,
    ) -> Option<Remedy> {
        match self.accelerator {
            Accelerator::Works => {
                let stuck = work.and_then(|work| self.silent(now, work.since, work.budget));
                let failed =
                    || failing.and_then(|since| self.silent(now, since.max(self.installed), FAILING));
                let silent = stuck.or_else(failed)?;
                Some(Remedy::GiveUp(silent))
            }
            Accelerator::GivenUp => None,
            Accelerator::Built(since) => {
                let silent = self.silent(now, since, BUILDING)?;
                self.accelerator = Accelerator::Absent;
                Some(Remedy::Tell(silent))
            }
            Accelerator::Absent if self.limit.allows(now) => self
                .limit
                .last()
                .is_none_or(|last| now.since(last) >= PAUSE_BETWEEN)
                .then_some(Remedy::Replace),
            Accelerator::Absent if self.restart => Some(Remedy::Restart(WINDOW)),
            Accelerator::Absent => None,
        }
    }

    /// Exec has been told to let go of the accelerator.
    pub(super) fn accelerator_given_up(&mut self) {
        self.accelerator = Accelerator::GivenUp;
    }

    /// Exec has let go of it; or its batch came back after all.
    pub(super) fn accelerator_let_go(&mut self, gone: bool) {
        self.accelerator = if gone { Accelerator::Absent } else { Accelerator::Works };
    }

    /// The next one is being built.
    pub(super) fn accelerator_begun(&mut self, now: Instant) {
        self.accelerator = Accelerator::Built(now);
        self.limit.note(now);
    }

    /// It has been built, or could not be. False when it was not waited for any longer.
    pub(super) fn accelerator_built(&mut self, now: Instant, built: bool) -> bool {
        let awaited = matches!(self.accelerator, Accelerator::Built(_));
        if awaited {
            self.accelerator = if built { Accelerator::Works } else { Accelerator::Absent };
            self.installed = now;
        }
        awaited
    }

    /// A thread that everything goes through, and when it last beat.
    pub(super) fn core(&mut self, now: Instant, core: Core, last: Instant) -> Option<Remedy> {
        let silent = self.silent(now, last, THREAD);
        let stuck = &mut self.stuck[core as usize];
        match (silent, *stuck) {
            (Some(silent), _) if self.restart => Some(Remedy::Restart(silent)),
            (Some(silent), false) => {
                *stuck = true;
                Some(Remedy::Tell(silent))
            }
            // Only a beat is a sign of life, not that everybody's time began anew.
            (None, true) if now.since(last) <= THREAD => {
                *stuck = false;
                Some(Remedy::TellRecovered)
            }
            _ => None,
        }
    }

    /// Whether that thread is known to be stuck.
    pub(super) fn is_stuck(&self, core: Core) -> bool {
        self.stuck[core as usize]
    }

    /// An output's thread: letters pushed to it so far, and taken by it.
    pub(super) fn output(&mut self, now: Instant, index: usize, pushed: u64, taken: u64) -> Option<Remedy> {
        let armed = self.armed;
        let output = &mut self.outputs[index];
        if taken != output.taken || taken == pushed {
            (output.taken, output.at) = (taken, now);
            return std::mem::take(&mut output.stuck).then_some(Remedy::TellRecovered);
        }
        if output.stuck || now.since(output.at.max(armed)) <= OUTPUT {
            return None;
        }
        output.stuck = true;
        Some(Remedy::Tell(now.since(output.at)))
    }

    /// Whether what watches over the process may be told that it works. Frames that `arrived` are `published`,
    /// with a result or a reason, within `patience`; nobody who could do that is stuck; and there is an
    /// accelerator, or soon will be. Without cameras there is nothing to publish, and nothing that a restart
    /// would help.
    pub(super) fn is_well(&mut self, now: Instant, arrived: u64, published: u64, patience: Duration) -> bool {
        if published != self.progress.published || arrived == self.progress.arrived {
            self.progress = Progress { published, arrived, at: now };
        }
        let moves = self.silent(now, self.progress.at, patience).is_none();
        let hopeless = self.accelerator == Accelerator::Absent && !self.limit.allows(now);
        moves && !hopeless && self.stuck.iter().all(|stuck| !stuck)
    }
}
