//! Greedy suppression within classes: best first, whoever overlaps a kept one of its class goes.

use super::frame::{Extent, View};
use super::shortlist::Candidate;
use crate::detection::{Detection, Detections, MAX_DETECTIONS};
use crate::model::Suppression;

/// Kept boxes that a candidate is held against at once.
const BLOCK: usize = 4;
const BLOCKS: usize = MAX_DETECTIONS.div_ceil(BLOCK);

/// Kept boxes, each property of a block side by side.
struct Kept {
    blocks: [Block; BLOCKS],
    count: usize,
}

/// Some of them. Those that are not there yet have no area and a label that no candidate has.
#[derive(Clone, Copy)]
struct Block {
    label: [u32; BLOCK],
    left: [f32; BLOCK],
    top: [f32; BLOCK],
    right: [f32; BLOCK],
    bottom: [f32; BLOCK],
    area: [f32; BLOCK],
}

impl Block {
    const EMPTY: Self = Self {
        label: [u32::MAX; BLOCK],
        left: [0.0; BLOCK],
        top: [0.0; BLOCK],
        right: [0.0; BLOCK],
        bottom: [0.0; BLOCK],
        area: [0.0; BLOCK],
    };
}

impl Kept {
    const fn new() -> Self {
        Self { blocks: [Block::EMPTY; BLOCKS], count: 0 }
    }

    fn push(&mut self, found: &Detection) {
        let (block, lane) = (&mut self.blocks[self.count / BLOCK], self.count % BLOCK);
        block.label[lane] = found.label.into();
        (block.left[lane], block.top[lane]) = (found.x, found.y);
        (block.right[lane], block.bottom[lane]) = (found.x + found.width, found.y + found.height);
        block.area[lane] = found.width * found.height;
        self.count += 1;
    }

    /// Whether the intersection with a kept box of the same class is more than `threshold` of their union.
    fn hides(&self, found: &Detection, threshold: f32) -> bool {
        let label = u32::from(found.label);
        let (right, bottom) = (found.x + found.width, found.y + found.height);
        let area = found.width * found.height;
        self.blocks[..self.count.div_ceil(BLOCK)].iter().any(|block| {
            (0..BLOCK).fold(false, |hidden, lane| {
                let width = block.right[lane].min(right) - block.left[lane].max(found.x);
                let height = block.bottom[lane].min(bottom) - block.top[lane].max(found.y);
                let shared = width.max(0.0) * height.max(0.0);
                let overlaps = shared > threshold * (block.area[lane] + area - shared);
                hidden | ((block.label[lane] == label) & overlaps)
            })
        })
    }
}

/// What survives of the candidates, best first, up to as many as there is room for.
pub(super) fn suppress(
    ranked: &[Candidate],
    view: &View,
    limits: &Suppression,
    into: &mut Detections,
    extent: impl Fn(usize) -> (u16, Extent),
) {
    let mut kept = Kept::new();
    for candidate in ranked {
        let (label, extent) = extent(candidate.index());
        let Some(found) = view.place(label, candidate.score().min(1.0), extent) else { continue };
        if !kept.hides(&found, limits.iou_threshold) {
            if into.push(found).is_err() {
                return;
            }
            kept.push(&found);
        }
    }
}
