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

    /// Whether what watches over the process may be told that it works, as far as is known here: nobody is stuck
    /// that everything goes through, and there is an accelerator, or soon will be.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        let hopeless = self.accelerator == Accelerator::Absent && !self.limit.allows(now);
        !hopeless && self.stuck.iter().all(|stuck| !stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: StreamId = StreamId(0);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn policy(restart: bool) -> Policy {
        Policy::new(at(0), restart, 2, 1)
    }

    /// Looks as often as it is due, up to `until`.
    fn look_until(policy: &mut Policy, until: u64) {
        while policy.due() <= at(until) {
            assert_eq!(policy.look(policy.due()), None);
        }
    }

    #[test]
    fn a_camera_is_given_up_when_it_waits_for_longer_than_its_budget() {
        let mut policy = policy(false);
        for (phase, budget) in [
            (Phase::Watching, 1_000),
            (Phase::Pausing, 1_000),
            (Phase::Closing, 10_000),
            (Phase::Opening, 45_000),
        ] {
            assert_eq!(policy.camera(at(budget), CAMERA, Some((phase, at(0)))), None, "{phase:?}");
            let given_up = policy.camera(at(budget + 1), CAMERA, Some((phase, at(0))));
            assert_eq!(given_up, Some(Remedy::GiveUp(ms(budget + 1))), "{phase:?}");
        }
        assert_eq!(policy.camera(at(1_000_000), CAMERA, None), None, "it works, or has ended");
    }

    #[test]
    fn a_pause_of_the_whole_process_blames_nobody() {
        let mut policy = policy(true);
        look_until(&mut policy, 500);
        // SIGSTOP for an hour; all that was heard of is an hour old.
        let hour = 3_600_000;
        assert_eq!(policy.look(at(hour)), Some(ms(hour - 550)));
        let work = Some(Work { since: at(400), budget: ms(1_000) });
        let mut stuck = |now| {
            [
                policy.camera(at(now), CAMERA, Some((Phase::Watching, at(450)))),
                policy.accelerator(at(now), work, None),
                policy.core(at(now), Core::Exec, at(490)),
            ]
        };
        assert_eq!(stuck(hour), [None; 3]);
        assert_eq!(stuck(hour + 1_000), [None; 3]);
        // Those that don't go on after it are stuck, in their own time.
        let [camera, accelerator, exec] = stuck(hour + 1_001);
        assert_eq!(camera, Some(Remedy::GiveUp(ms(hour + 551))));
        assert_eq!(accelerator, Some(Remedy::GiveUp(ms(hour + 601))));
        assert_eq!(exec, None);
        assert_eq!(stuck(hour + 2_001)[2], Some(Remedy::Restart(ms(hour + 1_511))));
    }

    #[test]
    fn a_look_that_is_a_little_late_changes_nothing() {
        let mut policy = policy(false);
        assert_eq!(policy.look(at(50 + 200)), None);
        assert_eq!(policy.look(at(300 + 201)), Some(ms(201)));
    }

    #[test]
    fn a_camera_is_replaced_three_times_a_minute_and_never_costs_more() {
        let mut policy = policy(true);
        let stuck = |now| Some((Phase::Watching, at(now - 1_001)));
        for now in [10_000, 20_000, 30_000] {
            assert_eq!(policy.camera_waits(at(now), CAMERA), None);
            assert!(matches!(policy.camera(at(now), CAMERA, stuck(now)), Some(Remedy::GiveUp(_))));
            policy.camera_given_up(CAMERA);
            assert_eq!(policy.camera(at(now), CAMERA, None), Some(Remedy::Replace));
            policy.camera_replaced(at(now), CAMERA);
        }
        assert!(matches!(policy.camera(at(40_000), CAMERA, stuck(40_000)), Some(Remedy::GiveUp(_))));
        policy.camera_given_up(CAMERA);
        assert_eq!(policy.camera_waits(at(40_000), CAMERA), Some(ms(30_000)));
        assert_eq!(policy.camera(at(69_999), CAMERA, None), None);
        assert_eq!(policy.camera(at(70_000), CAMERA, None), Some(Remedy::Replace));
        assert_eq!(policy.camera_waits(at(70_000), CAMERA), None);
        // The other one has a limit of its own.
        policy.camera_given_up(StreamId(1));
        assert_eq!(policy.camera(at(40_000), StreamId(1), None), Some(Remedy::Replace));
    }

    #[test]
    fn a_budget_is_ten_times_the_plan_and_a_second_at_least() {
        assert_eq!(batch_budget(ms(7)), ms(1_000));
        assert_eq!(batch_budget(ms(400)), ms(4_000));
    }

    /// Gives it up and sees it let go.
    fn lose_accelerator(policy: &mut Policy, now: u64) {
        let work = Some(Work { since: at(now - 1_001), budget: ms(1_000) });
        assert_eq!(policy.accelerator(at(now), work, None), Some(Remedy::GiveUp(ms(1_001))));
        policy.accelerator_given_up();
        assert_eq!(policy.accelerator(at(now), work, None), None, "told once");
        policy.accelerator_let_go(true);
    }

    #[test]
    fn an_accelerator_whose_batch_comes_back_after_all_is_kept() {
        let mut policy = policy(false);
        let work = Work { since: at(0), budget: ms(1_000) };
        assert_eq!(policy.accelerator(at(1_000), Some(work), None), None);
        assert!(policy.accelerator(at(1_001), Some(work), None).is_some());
        policy.accelerator_given_up();
        policy.accelerator_let_go(false);
        assert_eq!(policy.accelerator(at(1_050), Some(Work { since: at(1_010), ..work }), None), None);
    }

    #[test]
    fn an_accelerator_that_only_fails_is_given_up_and_the_next_is_not_blamed_for_it() {
        let mut policy = policy(false);
        assert_eq!(policy.accelerator(at(5_000), None, Some(at(3_000))), None);
        assert_eq!(policy.accelerator(at(5_001), None, Some(at(3_000))), Some(Remedy::GiveUp(ms(2_001))));
        policy.accelerator_given_up();
        policy.accelerator_let_go(true);
        assert_eq!(policy.accelerator(at(5_050), None, Some(at(3_000))), Some(Remedy::Replace));
        policy.accelerator_begun(at(5_050));
        assert!(policy.accelerator_built(at(6_000), true));
        assert_eq!(
            policy.accelerator(at(8_000), None, Some(at(3_000))),
            None,
            "exec has not heard of it yet"
        );
        assert!(policy.accelerator(at(8_001), None, Some(at(3_000))).is_some());
    }

    #[test]
    fn an_accelerator_is_replaced_three_times_a_minute_and_then_the_process() {
        for restart in [false, true] {
            let mut policy = policy(restart);
            for now in [10_000, 20_000, 30_000] {
                lose_accelerator(&mut policy, now);
                assert_eq!(policy.accelerator(at(now), None, None), Some(Remedy::Replace));
                policy.accelerator_begun(at(now));
                assert_eq!(policy.accelerator(at(now + 500), None, None), None, "it is being built");
                assert!(policy.accelerator_built(at(now + 1_000), true));
            }
            lose_accelerator(&mut policy, 40_000);
            let then = policy.accelerator(at(40_000), None, None);
            assert_eq!(then.is_some(), restart);
            assert_eq!(matches!(then, Some(Remedy::Restart(_))), restart);
            assert!(!policy.is_well(at(40_000)), "no sign of life to the watchdogs");
            assert_eq!(policy.accelerator(at(70_000), None, None), Some(Remedy::Replace));
            assert!(policy.is_well(at(70_000)));
        }
    }

    #[test]
    fn tries_to_build_an_accelerator_are_a_second_apart() {
        let mut policy = policy(false);
        lose_accelerator(&mut policy, 10_000);
        policy.accelerator_begun(at(10_000));
        assert!(policy.accelerator_built(at(10_001), false));
        assert_eq!(policy.accelerator(at(10_999), None, None), None);
        assert_eq!(policy.accelerator(at(11_000), None, None), Some(Remedy::Replace));
    }

    #[test]
    fn an_accelerator_that_is_built_for_too_long_is_not_waited_for() {
        let mut policy = policy(false);
        lose_accelerator(&mut policy, 10_000);
        policy.accelerator_begun(at(10_000));
        assert_eq!(policy.accelerator(at(310_000), None, None), None);
        assert_eq!(policy.accelerator(at(310_001), None, None), Some(Remedy::Tell(ms(300_001))));
        assert!(!policy.accelerator_built(at(310_002), true), "it comes too late");
        assert_eq!(policy.accelerator(at(310_050), None, None), Some(Remedy::Replace));
    }

    #[test]
    fn a_stuck_thread_ends_the_process_where_that_is_allowed_and_is_told_of_once_where_not() {
        for core in Core::ALL {
            let mut allowed = policy(true);
            assert_eq!(allowed.core(at(2_000), core, at(0)), None);
            assert_eq!(allowed.core(at(2_001), core, at(0)), Some(Remedy::Restart(ms(2_001))));
            let mut policy = policy(false);
            assert_eq!(policy.core(at(2_001), core, at(0)), Some(Remedy::Tell(ms(2_001))));
            assert!(policy.is_stuck(core) && !policy.is_well(at(2_001)));
            assert_eq!(policy.core(at(9_000), core, at(0)), None);
            // Everybody's time begins anew, which is no sign of life.
            assert!(policy.look(at(10_000)).is_some());
            assert_eq!(policy.core(at(10_000), core, at(0)), None);
            assert!(policy.is_stuck(core));
            assert_eq!(policy.core(at(11_000), core, at(10_999)), Some(Remedy::TellRecovered));
            assert!(!policy.is_stuck(core) && policy.is_well(at(11_000)));
        }
    }

    #[test]
    fn an_output_that_takes_nothing_of_what_waits_is_told_of() {
        let mut policy = policy(false);
        assert_eq!(policy.output(at(60_000), 0, 0, 0), None, "there is nothing to take");
        assert_eq!(policy.output(at(60_050), 0, 5, 3), None);
        assert_eq!(policy.output(at(65_050), 0, 900, 3), None);
        assert_eq!(policy.output(at(65_051), 0, 900, 3), Some(Remedy::Tell(ms(5_001))));
        assert_eq!(policy.output(at(70_000), 0, 1_000, 3), None, "told once");
        assert_eq!(policy.output(at(70_050), 0, 1_000, 4), Some(Remedy::TellRecovered));
        assert!(policy.is_well(at(70_050)), "no reason to reset the board");
    }
}
