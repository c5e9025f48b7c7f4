//! Records of a simulation as lines of JSON: those of a run ([`crate::publish::json`]), with the virtual clock
//! in place of both clocks.

use crate::board::Board;
use crate::publish::json;
use crate::record::Message;
use crate::sim::START;

/// Appends the first line.
pub fn header(out: &mut Vec<u8>, board: &Board, version: &str) {
    json::header(out, board, version, START, START.as_nanos());
}

/// Appends the line of one message.
pub fn line(out: &mut Vec<u8>, board: &Board, message: &Message) {
    let at = match message {
        Message::Frame(record) => record.finished,
        Message::Set(record) => record.finished,
        Message::Event(event) => event.at,
        Message::Certificate(certificate) => certificate.at,
    };
    json::message(out, board, at.as_nanos(), message);
}
