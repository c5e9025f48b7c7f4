//! Whether the guarantee stands at the moment.

use super::{Cause, HOLD};
use crate::time::Instant;

/// A guarantee that is withdrawn when a premise fails, and given again when all have held for [`HOLD`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Certificate {
    /// Whether there is one to give at all.
    exists: bool,
    stands: bool,
    /// The last premise that failed since the last look.
    broken: Option<Cause>,
    /// When a premise was last seen to fail.
    broken_at: Instant,
    /// Whether it has been given yet.
    given: bool,
}

impl Certificate {
    pub(super) fn new(now: Instant, exists: bool) -> Self {
        Self { exists, stands: exists, broken: None, broken_at: now, given: false }
    }

    /// A premise failed.
    pub(super) fn fail(&mut self, cause: Cause) {
        self.broken.get_or_insert(cause);
    }

    pub(super) fn stands(&self) -> bool {
        self.stands
    }

    /// Whether it is given or withdrawn now, and why.
    pub(super) fn look(&mut self, now: Instant) -> Option<(bool, Cause)> {
        if !self.exists {
            return None;
        }
        if let Some(cause) = self.broken.take() {
            self.broken_at = now;
            self.given = true;
            return std::mem::take(&mut self.stands).then_some((false, cause));
        }
        let again = !self.stands && now.since(self.broken_at) >= HOLD;
        if again || !self.given {
            (self.stands, self.given) = (true, true);
            return Some((true, Cause::Kept));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_withdrawn_at_once_and_given_again_after_a_quiet_time() {
        let at = |ms| Instant::from_nanos(0) + Duration::from_millis(ms);
        let mut certificate = Certificate::new(at(0), true);
        assert_eq!(certificate.look(at(0)), Some((true, Cause::Kept)));
        assert_eq!(certificate.look(at(1)), None);
        certificate.fail(Cause::Fault);
        certificate.fail(Cause::Stale);
        assert_eq!(certificate.look(at(10)), Some((false, Cause::Fault)));
        certificate.fail(Cause::Fault);
        assert_eq!(certificate.look(at(1500)), None, "said once");
        assert_eq!(certificate.look(at(3499)), None, "the last failure was at 1.5 s");
        assert_eq!(certificate.look(at(3500)), Some((true, Cause::Kept)));
    }

    #[test]
    fn without_a_guarantee_there_is_nothing_to_say() {
        let mut certificate = Certificate::new(Instant::default(), false);
        certificate.fail(Cause::Fault);
        assert_eq!(certificate.look(Instant::from_nanos(u64::MAX)), None);
        assert!(!certificate.stands());
    }
}
