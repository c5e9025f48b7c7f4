//! From raw scores to probabilities, and back for the threshold.

use crate::model::Activation;

/// Rounding must not lose a score that equals the threshold: the quick look at raw scores is this much laxer
/// than the comparison of probabilities that follows it.
const SLACK: f32 = 1e-3;

/// 1 / (1 + e^-x), written so that no exponential overflows.
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// How the scores of one row become probabilities, and which survive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores {
    activation: Activation,
    threshold: f32,
    /// Raw scores below it are below the threshold: the logit of the threshold for a sigmoid, and for a
    /// softmax its logarithm, against which a score's distance to the row's highest is held.
    floor: f32,
}

impl Scores {
    /// For a threshold of 0 to 1.
    pub(super) fn new(activation: Activation, threshold: f32) -> Self {
        let floor = match activation {
            Activation::None => threshold,
            // Close to certainty a rounding of the probability is a long way in logits.
            Activation::Sigmoid => (threshold.min(0.999) / (1.0 - threshold.min(0.999))).ln() - SLACK,
            Activation::Softmax => threshold.ln() - SLACK,
        };
        Self { activation, threshold, floor }
    }

    /// Raw scores whose probabilities are next to zero and to one.
    pub(super) const fn certain(&self) -> (f32, f32) {
        match self.activation {
            Activation::None => (0.0, 1.0),
            Activation::Sigmoid | Activation::Softmax => (-20.0, 20.0),
        }
    }

    /// Whether any score of these rows of `columns`, from column `from` on, may reach the threshold: a look at all of
    /// them at once, which becomes SIMD. For a softmax that takes no less than [`Scores::each`] itself.
    pub(super) fn may_be_in(&self, rows: &[f32], columns: usize, from: usize) -> bool {
        let reaches = |raw: &f32| *raw >= self.floor;
        match (self.activation, columns - from) {
            (Activation::Softmax, _) => true,
            // Of a background and one class every second one counts.
            (_, 1) if columns == 2 => {
                rows.as_chunks().0.iter().fold(false, |any, [_, class]| any | reaches(class))
            }
            _ => rows
                .chunks_exact(columns)
                .any(|row| row[from..].iter().fold(false, |any, raw| any | reaches(raw))),
        }
    }

    /// Calls `found(column, probability)` for every score of `row` that reaches the threshold, from column
    /// `from` on. A softmax is over the whole row.
    pub(super) fn each(&self, row: &[f32], from: usize, mut found: impl FnMut(usize, f32)) {
        let (highest, floor) = match self.activation {
            Activation::None | Activation::Sigmoid => (0.0, self.floor),
            Activation::Softmax => {
                let highest = highest(row);
                (highest, highest + self.floor)
            }
        };
        if !row[from..].iter().fold(false, |any, &raw| any | (raw >= floor)) {
            return;
        }
        let mut sum = None;
        for (column, &raw) in row.iter().enumerate().skip(from) {
            if raw < floor {
                continue;
            }
            let probability = match self.activation {
                Activation::None => raw,
                Activation::Sigmoid => sigmoid(raw),
                Activation::Softmax => {
                    (raw - highest).exp()
                        / *sum.get_or_insert_with(|| row.iter().map(|raw| (raw - highest).exp()).sum::<f32>())
                }
            };
            if probability >= self.threshold {
                found(column, probability);
            }
        }
    }
}

/// The largest element, several at a time: one after the other each would wait for the one before it.
fn highest(row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<8>();
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let best = blocks
        .iter()
        .fold([f32::MIN; 8], |best, block| std::array::from_fn(|lane| larger(block[lane], best[lane])));
    best.iter().chain(rest).copied().fold(f32::MIN, larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(activation: Activation, threshold: f32, row: &[f32], from: usize) -> Vec<(usize, f32)> {
        let mut all = Vec::new();
        Scores::new(activation, threshold).each(row, from, |column, score| all.push((column, score)));
        all
    }

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f32::MAX), 1.0);
        assert_eq!(sigmoid(f32::MIN), 0.0);
        let row = [f32::MIN, 0.0, f32::MAX];
        for activation in [Activation::Sigmoid, Activation::Softmax] {
            assert_eq!(found(activation, 0.0, &row, 0).len(), 3, "threshold 0 takes all: {activation:?}");
            assert_eq!(
                found(activation, 1.0, &row, 0),
                [(2, 1.0)],
                "threshold 1 takes certainty: {activation:?}"
            );
        }
    }

    #[test]
    fn a_background_column_takes_part_in_the_softmax_and_is_not_found() {
        let row = [2.0f32.ln(), 0.0, 0.0];
        let all = found(Activation::Softmax, 0.2, &row, 1);
        assert_eq!(all.iter().map(|(column, _)| *column).collect::<Vec<_>>(), [1, 2]);
        assert!(all.iter().all(|(_, score)| (score - 0.25).abs() < 1e-6));
    }

    proptest! {
        #[test]
        fn the_quick_look_loses_nothing(
            row in prop::collection::vec(-12.0f32..12.0, 1..8),
            threshold in 0.0f32..=1.0,
            at in 0usize..8,
        ) {
            let exact = |activation: Activation, raw: f32| match activation {
                Activation::None => raw,
                Activation::Sigmoid => sigmoid(raw),
                Activation::Softmax => {
                    let highest = row.iter().copied().fold(f32::MIN, f32::max);
                    (raw - highest).exp() / row.iter().map(|raw| (raw - highest).exp()).sum::<f32>()
                }
            };
            for activation in [Activation::None, Activation::Sigmoid, Activation::Softmax] {
                // A threshold that one of the scores meets exactly is the hard one.
                let met = exact(activation, row[at % row.len()]).clamp(0.0, 1.0);
                for threshold in [threshold, met] {
                    let expected: Vec<(usize, f32)> = row
                        .iter()
                        .map(|raw| exact(activation, *raw))
                        .enumerate()
                        .filter(|(_, score)| *score >= threshold)
                        .collect();
                    let scores = Scores::new(activation, threshold);
                    for columns in 1..=row.len() {
                        for from in 0..columns.min(2) {
                            let rows = &row[..row.len() / columns * columns];
                            let any = expected.iter().any(|(at, _)| *at < rows.len() && at % columns >= from);
                            prop_assert!(!any || scores.may_be_in(rows, columns, from));
                        }
                    }
                    prop_assert_eq!(found(activation, threshold, &row, 0), expected, "{:?}", activation);
                }
            }
        }
    }
}
