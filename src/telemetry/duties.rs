//! What is done with what a run says of itself, beside showing it: the last ledger, and the proof that it works.

use crate::platform::service::Service;
use crate::runtime::{Frames, Keeper, Proof, Snapshot};
use crate::stats::Ledger;
use crate::time::Instant;
use std::sync::Arc;

/// What a run in progress is asked for.
pub struct Duties {
    /// The service manager.
    pub service: Arc<Service>,
    /// What signs of life depend on.
    pub proof: Arc<Proof>,
    /// The last ledger, where the board keeps one.
    pub ledger: Option<Keeper>,
    /// Whether the manager has heard that the run has begun.
    pub ready: bool,
}

impl Duties {
    /// The run has begun: says so until it is heard.
    pub(super) fn begun(&mut self) {
        self.ready = self.ready || self.service.ready();
    }

    /// The run has said how it stands.
    pub(super) fn heard(&mut self, now: Instant, snapshot: &Snapshot) {
        if let Some(ledger) = &mut self.ledger {
            ledger.note(snapshot);
        }
        let mut total = Ledger::default();
        snapshot.streams.iter().for_each(|(ledger, ..)| total.add(ledger));
        self.proof.given_by(now, Frames::from(&total));
    }
}
