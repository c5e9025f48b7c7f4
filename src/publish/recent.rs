//! Results that the record of a set may still refer to.
//!
//! A set's record names its frames, and every output has been handed their records before it: so an output
//! keeps what was seen in the last few frames of each camera, on its own thread, and the thread that
//! publishes keeps and copies nothing for a set.

use crate::board::Board;
use crate::detection::Detection;
use crate::record::{Message, Record};
use crate::stream::{ModelId, StreamId};
use std::collections::VecDeque;

/// Frames of a stream beyond those of its set's deadline and its own bound: queues on the way.
const SPARE: u128 = 16;
/// Most frames of a stream that are kept.
const MOST: u128 = 512;

/// What was seen lately in the streams that are in a set.
#[derive(Debug)]
pub(crate) struct Recent(Vec<Kept>);

#[derive(Debug, Default)]
struct Kept {
    most: usize,
    frames: VecDeque<Frame>,
}

#[derive(Debug)]
struct Frame {
    sequence: u64,
    model: ModelId,
    detections: Box<[Detection]>,
}

impl Recent {
    /// Nothing seen yet.
    pub fn new(board: &Board) -> Self {
        let mut kept: Vec<Kept> = board.streams.iter().map(|_| Kept::default()).collect();
        for set in &board.sets {
            for &stream in &set.streams {
                let description = &board.streams[stream.index()];
                let time = set.deadline + description.latency_bound;
                let frames = time.as_nanos() / description.period.as_nanos().max(1);
                kept[stream.index()].most = (frames + SPARE).min(MOST) as usize;
            }
        }
        Self(kept)
    }

    /// To be told of every message before it is written.
    pub fn note(&mut self, message: &Message) {
        let Message::Frame(Record { stream, sequence, served: Some(served), .. }) = message else { return };
        let Some(kept) = self.0.get_mut(stream.index()).filter(|kept| kept.most > 0) else { return };
        if kept.frames.len() == kept.most {
            kept.frames.pop_front();
        }
        let detections = served.detections.as_slice().into();
        kept.frames.push_back(Frame { sequence: *sequence, model: served.model, detections });
    }

    /// What was seen in a frame, and by which network; `None` when its record did not reach this output.
    pub fn seen(&self, stream: StreamId, sequence: u64) -> Option<(ModelId, &[Detection])> {
        let frames = &self.0.get(stream.index())?.frames;
        let frame = frames.iter().rev().find(|frame| frame.sequence == sequence)?;
        Some((frame.model, &frame.detections))
    }
}
