//! YOLO heads: one row a candidate, the best class of each row.
//!
//! V5 and V8 write boxes in input pixels. YOLOX leaves the last step to us: its feature maps have cells of 8,
//! 16 and 32 pixels, map by map and row by row, and a box is (offset + cell) * stride in place and
//! exp(log size) * stride in size (Ge et al. 2021).

use super::checks::yolo_fields;
use super::frame::Extent;
use super::shortlist::Shortlist;
use crate::model::{Model, Suppression, YoloHead};

/// Rows that are looked at side by side where a class's scores lie one after another.
const BLOCK: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Yolo {
    head: YoloHead,
    labels: usize,
    rows: usize,
    /// The input's width and height.
    input: [u32; 2],
    pub(super) suppression: Suppression,
}

impl Yolo {
    pub(super) fn new(model: &Model, head: YoloHead, rows: usize, suppression: Suppression) -> Self {
        let input = [model.input.width, model.input.height];
        Self { head, labels: model.labels.len(), rows, input, suppression }
    }

    /// The best class of every row where it reaches the threshold, of equal classes the first. A candidate's
    /// index is its row times the number of labels, plus its label.
    pub(super) fn find(&self, output: &[f32], shortlist: &mut Shortlist) {
        match self.head {
            YoloHead::V5 | YoloHead::Yolox => self.find_with_objectness(output, shortlist),
            YoloHead::V8 => self.find_by_class(output, shortlist),
        }
    }

    /// Score = objectness * class; no class can save a row whose objectness is below the threshold.
    fn find_with_objectness(&self, output: &[f32], shortlist: &mut Shortlist) {
        let threshold = self.suppression.score_threshold;
        for (row, fields) in output.chunks_exact(yolo_fields(self.head, self.labels)).enumerate() {
            let objectness = fields[4];
            if objectness < threshold {
                continue;
            }
            let (mut label, mut best) = (0, f32::MIN);
            for (class, &score) in fields[5..].iter().enumerate() {
                if score > best {
                    (label, best) = (class, score);
                }
            }
            if objectness * best >= threshold {
                shortlist.offer(row * self.labels + label, objectness * best);
            }
        }
    }

    /// Class by class over a block of rows, in the order in which the scores lie in memory. Which class it was
    /// is asked only where the best reaches the threshold, and the block is still in the cache.
    fn find_by_class(&self, output: &[f32], shortlist: &mut Shortlist) {
        let classes = &output[4 * self.rows..];
        for start in (0..self.rows).step_by(BLOCK) {
            let mut best = [f32::MIN; BLOCK];
            let best = &mut best[..BLOCK.min(self.rows - start)];
            for scores in classes.chunks_exact(self.rows) {
                for (best, &score) in best.iter_mut().zip(&scores[start..]) {
                    *best = if score > *best { score } else { *best };
                }
            }
            for (row, &score) in (start..).zip(best.iter()) {
                if score >= self.suppression.score_threshold {
                    let label = classes.iter().skip(row).step_by(self.rows).position(|other| *other == score);
                    shortlist.offer(row * self.labels + label.unwrap_or(0), score);
                }
            }
        }
    }

    /// Label and box of the candidate at `index`.
    pub(super) fn extent(&self, output: &[f32], index: usize) -> (u16, Extent) {
        let (row, label) = (index / self.labels, index % self.labels);
        let field = |column: usize| match self.head {
            YoloHead::V5 | YoloHead::Yolox => output[row * yolo_fields(self.head, self.labels) + column],
            YoloHead::V8 => output[column * self.rows + row],
        };
        let (place, size) = ([field(0), field(1)], [field(2), field(3)]);
        let extent = match self.head {
            YoloHead::V5 | YoloHead::V8 => Extent { centre: place, size },
            YoloHead::Yolox => {
                let (cell, stride) = self.cell(row);
                Extent {
                    centre: [(place[0] + cell[0]) * stride, (place[1] + cell[1]) * stride],
                    size: size.map(|log| log.exp() * stride),
                }
            }
        };
        (label as u16, extent)
    }

    /// Column and row of a YOLOX row's cell on its feature map, and the cell's size.
    fn cell(&self, mut row: usize) -> ([f32; 2], f32) {
        let mut stride = 8;
        loop {
            let [across, down] = self.input.map(|edge| edge.div_ceil(stride) as usize);
            if row < across * down || stride == 32 {
                return ([(row % across) as f32, (row / across) as f32], stride as f32);
            }
            row -= across * down;
            stride *= 2;
        }
    }

    /// How many there are.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a row: the last class at this place, or nothing. The inverse of [`Yolo::extent`].
    pub(super) fn write(&self, row: usize, seen: Option<Extent>, output: &mut [f32]) {
        let Some(Extent { centre, size }) = seen else { return };
        let ([x, y], [width, height]) = match self.head {
            YoloHead::V5 | YoloHead::V8 => (centre, size),
            YoloHead::Yolox => {
                let (cell, stride) = self.cell(row);
                let place = [centre[0] / stride - cell[0], centre[1] / stride - cell[1]];
                (place, size.map(|pixels| (pixels / stride).ln()))
            }
        };
        let fields = yolo_fields(self.head, self.labels);
        let place = [x, y, width, height].into_iter().enumerate();
        // Objectness, where there is one, and the last class.
        let scores = [yolo_fields(self.head, 0) - 1, fields - 1].into_iter().filter(|&column| column >= 4);
        for (column, value) in place.chain(scores.map(|column| (column, 1.0))) {
            let at = match self.head {
                YoloHead::V5 | YoloHead::Yolox => row * fields + column,
                YoloHead::V8 => column * self.rows + row,
            };
            output[at] = value;
        }
    }
}
