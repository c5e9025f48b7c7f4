//! What goes into a network and comes out, held to its manifest.

use crate::model::{Element, Input, Model, TensorLayout};
use serde::{Deserialize, Serialize};

/// An IO tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name in the network.
    pub name: String,
    /// It goes in.
    pub input: bool,
    /// Type of its elements: "f32", "f16", "i8", "u8", "i32", "bool", or "other".
    pub element: String,
    /// Its dimensions; -1 is one that is open.
    pub shape: Vec<i64>,
}

/// Dimensions of a manifest's input, but the batch.
#[must_use]
pub fn dimensions(input: &Input) -> [i64; 3] {
    let [h, w, c] = [i64::from(input.height), i64::from(input.width), input.channels.count() as i64];
    match input.layout {
        TensorLayout::Nhwc => [h, w, c],
        TensorLayout::Nchw => [c, h, w],
    }
}

/// Holds a network's tensors against its manifest; gives the batch size where it is fixed.
///
/// # Errors
/// What is different, with both.
pub fn check(tensors: &[Tensor], model: &Model) -> Result<Option<u16>, String> {
    let inputs: Vec<_> = tensors.iter().filter(|tensor| tensor.input).collect();
    let [found] = inputs.as_slice() else {
        let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(format!("it has the inputs {names:?}; a detector has one, {:?}", model.input.tensor));
    };
    let wanted = match model.input.element {
        Element::F32 => "f32",
        Element::F16 => "f16",
        Element::U8 => "u8",
        Element::I8 => "i8",
    };
    if found.name != model.input.tensor {
        return Err(format!("its input is {:?}, the manifest says {:?}", found.name, model.input.tensor));
    }
    if found.element != wanted {
        return Err(format!(
            "its input {:?} holds {}, the manifest says {wanted}",
            found.name, found.element
        ));
    }
    let expected = dimensions(&model.input);
    let agrees = |(&found, &expected): (&i64, &i64)| found < 0 || found == expected;
    let rest = found.shape.get(1..).unwrap_or_default();
    if rest.len() != 3 || !rest.iter().zip(&expected).all(agrees) {
        return Err(format!(
            "its input {:?} has the shape {:?} (-1: any), the manifest's layout and size make it [batch, {}, {}, {}]",
            found.name, found.shape, expected[0], expected[1], expected[2]
        ));
    }
    for (name, ranks) in model.decoder.outputs().into_iter().zip(model.decoder.ranks()) {
        let outputs = || tensors.iter().filter(|tensor| !tensor.input);
        let Some(output) = outputs().find(|output| output.name == name) else {
            let names: Vec<_> = outputs().map(|output| output.name.as_str()).collect();
            return Err(format!("it has no output {name:?}, which the manifest names; it has {names:?}"));
        };
        if !["f32", "f16"].contains(&output.element.as_str()) {
            return Err(format!("its output {name:?} holds {}; a decoder reads f32 or f16", output.element));
        }
        if !ranks.contains(&output.shape.len()) {
            return Err(format!(
                "its output {name:?} has {} dimensions {:?}; the manifest's decoder reads {}",
                output.shape.len(),
                output.shape,
                ranks.start()
            ));
        }
    }
    match found.shape[0] {
        ..0 => Ok(None),
        batch => match u16::try_from(batch) {
            Ok(batch @ 1..) => Ok(Some(batch)),
            _ => Err(format!("its batch size is fixed to {batch}")),
        },
    }
}
