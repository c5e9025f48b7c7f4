//! One number for all records of a simulation: two runs that differ anywhere differ here.

use crate::job::Outcome;
use crate::record::{Message, Missing, Record, SetRecord};
use crate::stream::StreamState;
use crate::time::nanos;
use sha2::{Digest as _, Sha256};

/// SHA-256 over every message, in the order of publishing.
#[derive(Debug, Default)]
pub(super) struct Digest {
    hash: Sha256,
    /// The message in hand, as little-endian words.
    words: Vec<u8>,
}

impl Digest {
    /// Takes a message in.
    pub(super) fn add(&mut self, message: &Message) {
        self.words.clear();
        match message {
            Message::Frame(record) => self.frame(record),
            Message::Set(record) => self.set(record),
            Message::Event(event) => {
                self.put([3, event.at.as_nanos(), u64::from(event.stream.0), state(event.state)]);
            }
            Message::Certificate(certificate) => {
                let (holds, streams) = (u64::from(certificate.holds), u64::from(certificate.streams));
                self.put([4, certificate.at.as_nanos(), holds, streams]);
            }
            Message::Intervention(intervention) => {
                self.put([5, intervention.at.as_nanos(), intervention.action as u64]);
            }
        }
        self.hash.update(&self.words);
    }

    /// The digest of all messages, in hex.
    pub(super) fn hex(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn frame(&mut self, record: &Record) {
        let age = record.last_good_age.map_or(u64::MAX, nanos);
        self.put([1, u64::from(record.stream.0), record.sequence, record.captured.as_nanos()]);
        self.put([record.deadline.as_nanos(), record.finished.as_nanos()]);
        let cause = record.cause.map_or(u64::MAX, |cause| cause.index() as u64);
        self.put([outcome(record.outcome), cause, state(record.state), age]);
        if let Some(served) = &record.served {
            self.put([u64::from(served.model.0), u64::from(served.batch), served.arrived.as_nanos()]);
            self.put([served.submitted.as_nanos(), served.completed.as_nanos()]);
        }
    }

    fn set(&mut self, record: &SetRecord) {
        self.put([2, u64::from(record.set), record.instant.as_nanos(), nanos(record.skew)]);
        self.put([record.finished.as_nanos()]);
        for member in &record.members {
            let (sequence, ended) = member.frame.unzip();
            self.put([sequence.unwrap_or(u64::MAX), ended.map_or(u64::MAX, outcome), state(member.state)]);
            let missing = member.missing.map_or(0, |missing| match missing {
                Missing::Lost(reason) => outcome(Outcome::Dropped(reason)),
                Missing::Down => u64::MAX,
                Missing::Shed => u64::MAX - 1,
                Missing::Ended => u64::MAX - 2,
                Missing::NotDue => u64::MAX - 3,
                Missing::Late => u64::MAX - 4,
            });
            self.put([member.captured.map_or(u64::MAX, |at| at.as_nanos()), missing]);
        }
    }

    fn put<const N: usize>(&mut self, words: [u64; N]) {
        words.iter().for_each(|word| self.words.extend_from_slice(&word.to_le_bytes()));
    }
}

fn outcome(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Met => 0,
        Outcome::Late => 1,
        Outcome::Dropped(reason) => 2 + reason.index() as u64,
    }
}

fn state(state: StreamState) -> u64 {
    state as u64
}
