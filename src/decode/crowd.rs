//! The most that a frame can hold, for measuring how long decoding takes at most.

use super::frame::Extent;
use super::{Decoder, Head};
use crate::detection::MAX_DETECTIONS;

/// Things in the frame: one less than are kept, so that suppression never ends early.
const THINGS: usize = MAX_DETECTIONS - 1;
/// They stand in rows of so many.
const ACROSS: usize = 10;

impl Decoder {
    /// One frame's outputs of a crowd: as many candidates as are looked at, all of one class, each of which is seen
    /// to be one of 99 things by comparing it with those that are kept already. A network that is well writes nothing
    /// that takes longer; in the manifest's order. Allocates.
    #[must_use]
    pub fn crowd(&self) -> Vec<Vec<f32>> {
        let mut outputs: Vec<Vec<f32>> = self.rows.iter().map(|&row| vec![0.0; row]).collect();
        let input = [self.input.width as f32, self.input.height as f32];
        let thing = |number: usize| {
            let place = [number % THINGS % ACROSS, number % THINGS / ACROSS];
            let step = input.map(|edge| edge / ACROSS as f32);
            Extent {
                centre: [0, 1].map(|axis| (place[axis] as f32 + 0.5) * step[axis]),
                size: step.map(|edge| edge / 2.0),
            }
        };
        let places = match &self.head {
            Head::Ssd(head) => head.anchors(),
            Head::Yolo(head) => head.rows(),
            // Each label is looked at whatever is seen.
            Head::Classification(_) => return outputs,
        };
        let seen = self.shortlist.limit().min(places);
        for row in 0..places {
            // Evenly over the rows, `seen` of them.
            let number = row * seen / places;
            let found = (row + 1) * seen / places > number;
            let thing = found.then(|| thing(number));
            match &self.head {
                Head::Ssd(head) => head.write(row, thing, &mut outputs),
                Head::Yolo(head) => head.write(row, thing, &mut outputs[0]),
                Head::Classification(_) => {}
            }
        }
        outputs
    }
}
