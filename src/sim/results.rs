//! Records of a simulation as lines of JSON: those of a run ([`crate::publish::json`]), with the virtual clock
//! in place of both clocks.

use crate::board::Board;
use crate::publish::json;
use crate::publish::recent::Recent;
use crate::record::Message;
use crate::sim::START;

/// Appends the first line.
pub fn header(out: &mut Vec<u8>, board: &Board, version: &str) {
    json::header(out, board, version, START, START.as_nanos());
}

/// Writes the lines of messages, in the order of publishing.
#[derive(Debug)]
pub struct Lines<'b> {
    board: &'b Board,
    recent: Recent,
}

impl<'b> Lines<'b> {
    /// Nothing written yet.
    #[must_use]
    pub fn new(board: &'b Board) -> Self {
        Self { board, recent: Recent::new(board) }
    }

    /// Appends the line of one message.
    pub fn line(&mut self, out: &mut Vec<u8>, message: &Message) {
        let at = match message {
            Message::Frame(record) => record.finished,
            Message::Set(record) => record.finished,
            Message::Event(event) => event.at,
            Message::Certificate(certificate) => certificate.at,
            Message::Intervention(intervention) => intervention.at,
        };
        self.recent.note(message);
        json::message(out, self.board, &self.recent, at.as_nanos(), message);
    }
}
