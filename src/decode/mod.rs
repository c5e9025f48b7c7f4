//! Decoding: what a network wrote for one frame becomes detections in pixels of that frame.
//!
//! Each head finds its candidates in the raw outputs and puts them on a shortlist: the best `candidates` by
//! score, of equals the one that comes first. Only those become boxes. A box is scaled back to the frame,
//! clipped to it, and kept unless a better one of its class overlaps it by more than the threshold. Scores
//! are compared as the network wrote them (against the logit of the threshold), so that an exponential is
//! paid for survivors alone.
//!
//! What counts as a candidate follows the family: an SSD head offers every class of every anchor, a YOLO head
//! the best class of every row.
//!
//! # Cost
//! With E elements in the outputs, S scores above the threshold, K = `candidates` and M = 100 detections:
//! O(E + S) to find and shortlist (with an exponential for each of S, and for a softmax one for each column of
//! a row that might have one of S), K log K to rank, K times M to suppress. Nothing is allocated after
//! [`Decoder::new`]. `benches/decode.rs` measures both ends.
//!
//! # Architecture invariant
//! A network that writes what is no number, or a score that is no probability, is sick or is not what its
//! manifest says. Its frame fails as a whole: a vehicle must not drive by the half that looks sane.

mod anchors;
mod blank;
mod checks;
mod error;
mod frame;
mod probability;
mod scene;
mod shortlist;
mod ssd;
mod suppression;
mod yolo;

pub use blank::blank_outputs;
pub use error::{DecodeError, DecodeFailed};

use crate::detection::Detections;
use crate::model::{self, Input, Model};
use checks::Checks;
use frame::View;
use probability::Scores;
use shortlist::Shortlist;
use ssd::Ssd;
use suppression::suppress;
use yolo::Yolo;

/// Turns one model's outputs into detections.
#[derive(Clone, Debug)]
pub struct Decoder {
    input: Input,
    /// Elements of one frame in each output.
    rows: Vec<usize>,
    head: Head,
    shortlist: Shortlist,
}

#[derive(Clone, Debug)]
enum Head {
    Ssd(Ssd),
    Yolo(Yolo),
    Classification(Scores),
}

impl Decoder {
    /// A decoder for `model` whose outputs have `output_rows` elements a frame, in the manifest's order.
    /// All memory that decoding needs is allocated here.
    ///
    /// # Errors
    /// The outputs don't fit the manifest, or the manifest contradicts itself; the error names the tensor or
    /// the key, what was found, and what would be right.
    pub fn new(model: &Model, output_rows: &[usize]) -> Result<Self, DecodeError> {
        let checks = Checks::new(model, output_rows)?;
        let (head, most) = match &model.decoder {
            model::Decoder::Ssd { background, activation, anchors, variance, suppression, .. } => {
                let most = checks.suppression(suppression)?;
                checks.ssd(anchors, *background, *variance)?;
                let head = Ssd::new(model, anchors, *background, *activation, *variance, *suppression);
                (Head::Ssd(head), most)
            }
            model::Decoder::Yolo { head, suppression, .. } => {
                let most = checks.suppression(suppression)?;
                let rows = checks.yolo(*head)?;
                (Head::Yolo(Yolo::new(model, *head, rows, *suppression)), most)
            }
            model::Decoder::Classification { activation, top, score_threshold, .. } => {
                let most = checks.classification(*top, *score_threshold)?;
                (Head::Classification(Scores::new(*activation, *score_threshold)), most)
            }
        };
        let offers = output_rows.iter().sum();
        Ok(Self {
            input: model.input.clone(),
            rows: output_rows.to_vec(),
            head,
            shortlist: Shortlist::new(most.min(offers)),
        })
    }

    /// Detections of one frame of `frame` (width, height) pixels, best score first, replace what is in `into`.
    /// `outputs` are that frame's rows in the manifest's order. Never allocates.
    ///
    /// # Errors
    /// An output is missing, has another size than was agreed, holds something that is not finite, or scores
    /// outside 0 to 1. Then `into` is empty.
    pub fn decode(
        &mut self,
        outputs: &[&[f32]],
        frame: (u32, u32),
        into: &mut Detections,
    ) -> Result<(), DecodeFailed> {
        into.clear();
        checks::outputs(&self.rows, outputs)?;
        self.shortlist.clear();
        match &self.head {
            Head::Ssd(head) => head.find(outputs, &mut self.shortlist),
            Head::Yolo(head) => head.find(outputs[0], &mut self.shortlist),
            Head::Classification(scores) => {
                scores.each(outputs[0], 0, |label, score| self.shortlist.offer(label, score));
            }
        }
        let ranked = self.shortlist.rank();
        if let Some(best) = ranked.first() {
            checks::probability(self.head.scores(), best.score())?;
        }
        let view = View::new(&self.input, frame);
        match &self.head {
            Head::Ssd(head) => {
                suppress(ranked, &view, &head.suppression, into, |c| head.extent(outputs[0], c))
            }
            Head::Yolo(head) => {
                suppress(ranked, &view, &head.suppression, into, |c| head.extent(outputs[0], c))
            }
            Head::Classification(_) => {
                into.extend(ranked.iter().map(|c| view.whole(c.index() as u16, c.score().min(1.0))));
            }
        }
        Ok(())
    }
}

impl Head {
    /// Which output the scores are in.
    const fn scores(&self) -> usize {
        match self {
            Self::Ssd(_) => 1,
            Self::Yolo(_) | Self::Classification(_) => 0,
        }
    }
}
