//! Outputs with little and with much to be seen, for measuring how long decoding takes.

use super::frame::Extent;
use super::{Decoder, Head};
use crate::detection::MAX_DETECTIONS;

/// Things in the frame: one less than are kept, so that suppression never ends early.
const THINGS: usize = MAX_DETECTIONS - 1;
/// They stand in rows of so many.
const ACROSS: usize = 10;

impl Decoder {
    /// One frame's outputs, in the manifest's order, with so many candidates, or as many as are looked at: a crowd. All
    /// are of the last class and turn out to be one of 99 things when they are compared with those that are kept already.
    /// Allocates.
    #[must_use]
    pub fn scene(&self, candidates: usize) -> Vec<Vec<f32>> {
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
        let seen = candidates.min(self.shortlist.limit()).min(places);
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
