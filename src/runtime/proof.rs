//! What counts as proof that a run works: the rule behind `WATCHDOG=1`.
//!
//! Threads that answer are no proof: a run can answer and serve nothing. So the sign of life is bound to frames:
//!
//! 1. a frame was served since the last proof (its record left with a result, met or late), or
//! 2. no frame wanted service since then: cameras are absent, ended or lose their frames, or their streams are
//!    shed. A run without frames is idle, not broken; restarting it would bring no camera back.
//!
//! Frames that wanted service and got none (no slot, queue full, hopeless, superseded, failed or undecodable
//! batches) prove nothing; the next one that is served does. The counts come from the exec thread, so one that no
//! longer turns proves nothing either. A proof stands for a while: as long as a frame may take.

use crate::job::DropReason;
use crate::stats::Ledger;
use crate::time::Instant;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What may lie between two answers of the exec thread, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Frames of all streams since the start: what the rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Left with a result.
    pub served: u64,
    /// Reached the runtime and were to be served; served ones among them.
    pub wanted: u64,
}

impl From<&Ledger> for Frames {
    fn from(ledger: &Ledger) -> Self {
        let excused: u64 = DropReason::ALL
            .into_iter()
            .filter(|reason| is_excused(*reason))
            .map(|reason| ledger.dropped[reason.index()])
            .sum();
        Self { served: ledger.met + ledger.late, wanted: ledger.captured - excused }
    }
}

/// Whether a frame that was lost for this reason wanted nothing of the runtime: it never arrived in one piece,
/// or was left out on purpose.
fn is_excused(reason: DropReason) -> bool {
    match reason {
        DropReason::SourceLate
        | DropReason::SourceDown
        | DropReason::DriverLost
        | DropReason::Corrupt
        | DropReason::Injected
        | DropReason::Shed
        | DropReason::Skipped
        | DropReason::Early
        | DropReason::Shutdown => true,
        DropReason::NoSlot
        | DropReason::QueueFull
        | DropReason::Superseded
        | DropReason::Hopeless
        | DropReason::BackendFailed
        | DropReason::DecodeFailed => false,
    }
}

/// The counts at the last proof, and when it was. One thread gives them, any may ask whether it stands.
#[derive(Debug)]
pub struct Proof {
    served: AtomicU64,
    wanted: AtomicU64,
    at: AtomicU64,
    stands_for: Duration,
}

impl Proof {
    /// Counted from `now`, where a frame may take `longest` from its capture to its result.
    #[must_use]
    pub fn new(now: Instant, longest: Duration) -> Self {
        let at = AtomicU64::new(now.as_nanos());
        Self { served: AtomicU64::new(0), wanted: AtomicU64::new(0), at, stands_for: longest + PATIENCE }
    }

    /// The exec thread's answer of `now`: whether it proves that the run works. Then the next proof counts from
    /// here.
    pub fn given_by(&self, now: Instant, frames: Frames) -> bool {
        let (served, wanted) = (self.served.load(Relaxed), self.wanted.load(Relaxed));
        let proven = frames.served > served || frames.wanted <= wanted;
        if proven {
            self.served.store(frames.served, Relaxed);
            self.wanted.store(frames.wanted, Relaxed);
            self.at.store(now.as_nanos(), Relaxed);
        }
        proven
    }

    /// Whether the last proof is recent enough for a sign of life. Never blocks.
    #[must_use]
    pub fn stands(&self, now: Instant) -> bool {
        now.since(Instant::from_nanos(self.at.load(Relaxed))) <= self.stands_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Outcome;

    /// What the proof says of each of these steps, one after the other.
    fn proofs(steps: &[(u64, &[Outcome])]) -> Vec<bool> {
        let (mut ledger, proof) = (Ledger::default(), Proof::new(Instant::default(), Duration::ZERO));
        let step = |(captured, settled): &(u64, &[Outcome])| {
            ledger.capture(*captured);
            settled.iter().for_each(|outcome| ledger.settle(*outcome, 1));
            proof.given_by(Instant::default(), Frames::from(&ledger))
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn served_frames_prove_it_met_or_late() {
        assert_eq!(proofs(&[(1, &[Outcome::Met]), (1, &[Outcome::Late])]), [true, true]);
        // The last one's service is proof while the next is under way.
        assert_eq!(proofs(&[(2, &[Outcome::Met]), (1, &[Outcome::Met])]), [true, true]);
    }

    #[test]
    fn a_run_without_frames_is_idle_not_broken() {
        assert_eq!(proofs(&[(0, &[]), (0, &[])]), [true, true]);
        for reason in [DropReason::SourceDown, DropReason::DriverLost, DropReason::Corrupt, DropReason::Shed]
        {
            assert_eq!(proofs(&[(1, &[Outcome::Dropped(reason)]), (0, &[])]), [true, true], "{reason:?}");
        }
    }

    #[test]
    fn frames_that_want_service_and_get_none_prove_nothing() {
        for reason in
            [DropReason::NoSlot, DropReason::Hopeless, DropReason::Superseded, DropReason::BackendFailed]
        {
            let dropped = [Outcome::Dropped(reason)];
            assert_eq!(proofs(&[(1, &dropped), (0, &[]), (1, &dropped)]), [false; 3], "{reason:?}");
        }
        // Under way for ever; one that ends at last is proof, and so is the silence after it.
        assert_eq!(
            proofs(&[(1, &[]), (0, &[]), (0, &[Outcome::Late]), (0, &[])]),
            [false, false, true, true]
        );
    }

    #[test]
    fn one_camera_that_is_served_proves_it_for_all() {
        let mixed = [Outcome::Met, Outcome::Dropped(DropReason::NoSlot)];
        assert_eq!(proofs(&[(2, &mixed), (2, &mixed)]), [true, true]);
    }

    #[test]
    fn a_proof_stands_as_long_as_a_frame_may_take() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let proof = Proof::new(at(10), Duration::from_secs(1));
        let stands = |until| (proof.stands(at(until)), proof.stands(at(until + 1)));
        assert_eq!(stands(13), (true, false), "from the beginning");
        assert!(!proof.given_by(at(20), Frames { served: 0, wanted: 1 }));
        assert_eq!(stands(13), (true, false), "what is no proof changes nothing");
        assert!(proof.given_by(at(30), Frames { served: 1, wanted: 1 }));
        assert_eq!(stands(33), (true, false));
    }
}
