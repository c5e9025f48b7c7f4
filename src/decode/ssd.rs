//! SSD: a score a class and a box encoding for every anchor (Liu et al. 2016; the encoding is that of Faster
//! R-CNN as TensorFlow's object detection writes it: ty, tx, th, tw).

use super::anchors::Anchor;
use super::frame::Extent;
use super::probability::Scores;
use super::shortlist::Shortlist;
use crate::model::{Activation, Anchors, Model, Suppression};

/// Rows that are looked at side by side.
const BLOCK: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Ssd {
    anchors: Vec<Anchor>,
    /// Columns of a row of scores.
    columns: usize,
    /// The first column that is a class.
    first: usize,
    scores: Scores,
    variance: [f32; 4],
    /// The input's width and height.
    input: [f32; 2],
    pub(super) suppression: Suppression,
}

impl Ssd {
    pub(super) fn new(
        model: &Model,
        anchors: &Anchors,
        background: bool,
        activation: Activation,
        variance: [f32; 4],
        suppression: Suppression,
    ) -> Self {
        let first = usize::from(background);
        Self {
            anchors: anchors.all(),
            columns: first + model.labels.len(),
            first,
            scores: Scores::new(activation, suppression.score_threshold),
            variance,
            input: [model.input.width as f32, model.input.height as f32],
            suppression,
        }
    }

    /// Every class of every anchor that reaches the threshold; a candidate's index is its place in the scores.
    pub(super) fn find(&self, outputs: &[&[f32]], shortlist: &mut Shortlist) {
        let Self { columns, first, .. } = *self;
        for (block, rows) in outputs[1].chunks(BLOCK * columns).enumerate() {
            if !self.scores.may_be_in(rows, columns, first) {
                continue;
            }
            for (row, scores) in (block * BLOCK..).zip(rows.chunks_exact(columns)) {
                self.scores.each(scores, first, |column, score| {
                    shortlist.offer(row * columns + column, score);
                });
            }
        }
    }

    /// Label and box of the candidate at `index`: centre = t / variance * anchor's size + anchor's centre,
    /// size = exp(t / variance) * anchor's size.
    pub(super) fn extent(&self, boxes: &[f32], index: usize) -> (u16, Extent) {
        let (row, label) = (index / self.columns, index % self.columns - self.first);
        let anchor = &self.anchors[row];
        let t = |column: usize| boxes[4 * row + column] / self.variance[column];
        let centre = |axis: usize, t: f32| (t * anchor.size[axis] + anchor.centre[axis]) * self.input[axis];
        let size = |axis: usize, t: f32| t.exp() * anchor.size[axis] * self.input[axis];
        let extent =
            Extent { centre: [centre(0, t(1)), centre(1, t(0))], size: [size(0, t(3)), size(1, t(2))] };
        (label as u16, extent)
    }

    /// How many there are.
    pub(super) const fn anchors(&self) -> usize {
        self.anchors.len()
    }

    /// Writes an anchor's outputs: the last class at this place, or nothing. The inverse of [`Ssd::extent`].
    pub(super) fn write(&self, row: usize, seen: Option<Extent>, outputs: &mut [Vec<f32>]) {
        let (no, yes) = self.scores.certain();
        let scores = &mut outputs[1][row * self.columns..][..self.columns];
        scores.fill(no);
        let Some(Extent { centre, size }) = seen else {
            // A softmax sees the background where it sees nothing.
            scores[..self.first].fill(yes);
            return;
        };
        scores[self.columns - 1] = yes;
        let anchor = &self.anchors[row];
        for axis in [0, 1] {
            // ty, tx, th, tw.
            let (place, length) = (1 - axis, 3 - axis);
            let [centre, size] = [centre[axis], size[axis]].map(|pixels| pixels / self.input[axis]);
            let boxes = &mut outputs[0][4 * row..][..4];
            boxes[place] = (centre - anchor.centre[axis]) / anchor.size[axis] * self.variance[place];
            boxes[length] = (size / anchor.size[axis]).ln() * self.variance[length];
        }
    }
}
