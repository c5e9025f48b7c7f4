//! What a network writes that sees nothing: for backends that compute nothing.

use super::checks::{usual_rows, yolo_fields};
use crate::model::{Activation, Decoder, Model};

/// A logit whose probability is next to zero.
const NEVER: f32 = -20.0;

/// One frame's outputs in the manifest's order, of the lengths that the manifest asks for, without an object
/// in them. (A classification always names its best class; here they are all alike.)
#[must_use]
pub fn blank_outputs(model: &Model) -> Vec<Vec<f32>> {
    let labels = model.labels.len();
    match &model.decoder {
        Decoder::Ssd { background, activation, anchors, .. } => {
            let count = anchors.count();
            let mut columns = vec![if *activation == Activation::None { 0.0 } else { NEVER }; labels];
            if *background {
                columns.insert(0, 0.0);
            }
            vec![vec![0.0; 4 * count], columns.repeat(count)]
        }
        Decoder::Yolo { head, .. } => {
            vec![vec![0.0; usual_rows(*head, &model.input) * yolo_fields(*head, labels)]]
        }
        Decoder::Classification { .. } => vec![vec![0.0; labels]],
    }
}
