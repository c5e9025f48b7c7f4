//! The boxes that an SSD head's encodings are relative to.

use crate::model::Anchors;

/// One anchor, as shares of the input's edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anchor {
    pub(super) centre: [f32; 2],
    pub(super) size: [f32; 2],
}

impl Anchors {
    /// Scale and ratio of a cell's anchors on map `index`. Scales go evenly from the least to the greatest;
    /// the one after the last, which only the interpolated anchor of the last map asks for, is the whole edge.
    fn shapes(&self, index: usize) -> Vec<(f64, f64)> {
        if index == 0 && !self.first.is_empty() {
            return self.first.iter().map(|&(scale, ratio)| (f64::from(scale), f64::from(ratio))).collect();
        }
        let (least, greatest) = (f64::from(self.min_scale), f64::from(self.max_scale));
        let last = self.maps.len().saturating_sub(1);
        let scale = |map: usize| match map {
            0 => least,
            _ if map > last => 1.0,
            _ => least + (greatest - least) * map as f64 / last as f64,
        };
        let mut shapes: Vec<_> = self.ratios.iter().map(|&ratio| (scale(index), f64::from(ratio))).collect();
        if self.interpolated {
            shapes.push(((scale(index) * scale(index + 1)).sqrt(), 1.0));
        }
        shapes
    }

    /// How many there are in all.
    pub(super) fn count(&self) -> usize {
        let cells = |edge: u32| (edge as usize).saturating_mul(edge as usize);
        let each = self
            .maps
            .iter()
            .enumerate()
            .map(|(map, &edge)| cells(edge).saturating_mul(self.shapes(map).len()));
        each.fold(0, usize::saturating_add)
    }

    /// All of them in the order of the head's rows: map by map, row by row, and all of a cell together.
    pub(super) fn all(&self) -> Vec<Anchor> {
        let mut all = Vec::with_capacity(self.count());
        for (map, &edge) in self.maps.iter().enumerate() {
            let shapes = self.shapes(map);
            let centre = |cell: u32| ((f64::from(cell) + 0.5) / f64::from(edge)) as f32;
            for (y, x) in (0..edge).flat_map(|y| (0..edge).map(move |x| (y, x))) {
                all.extend(shapes.iter().map(|&(scale, ratio)| Anchor {
                    centre: [centre(x), centre(y)],
                    size: [(scale * ratio.sqrt()) as f32, (scale / ratio.sqrt()) as f32],
                }));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors() -> Anchors {
        Anchors {
            maps: vec![19, 10, 5, 3, 2, 1],
            min_scale: 0.2,
            max_scale: 0.95,
            ratios: vec![1.0, 2.0, 0.5, 3.0, 1.0 / 3.0],
            interpolated: true,
            first: vec![(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)],
        }
    }

    fn close(found: [f32; 2], expected: [f64; 2]) {
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn mobilenet_ssd_has_1917() {
        let all = anchors().all();
        assert_eq!(all.len(), 1917);
        assert_eq!(anchors().count(), 1917);
        close(all[0].centre, [0.5 / 19.0, 0.5 / 19.0]);
        close(all[0].size, [0.1, 0.1]);
        close(all[3].centre, [1.5 / 19.0, 0.5 / 19.0]);
        close(all[4].size, [0.2 * 2f64.sqrt(), 0.2 / 2f64.sqrt()]);
        let second = 19 * 19 * 3;
        close(all[second].size, [0.35, 0.35]);
        close(all[second + 5].size, [(0.35f64 * 0.5).sqrt(); 2]);
        close(all[1916].centre, [0.5, 0.5]);
        close(all[1916].size, [0.95f64.sqrt(); 2]);
    }

    #[test]
    fn a_first_map_without_specials_is_like_the_others() {
        let plain = Anchors { first: vec![], maps: vec![2], interpolated: false, ..anchors() };
        assert_eq!(plain.count(), 20);
        close(plain.all()[19].size, [0.2 / 3f64.sqrt(), 0.2 * 3f64.sqrt()]);
    }
}
