//! What can be wrong with a model's outputs, at start and for one frame.

use thiserror::Error;

/// Why a model can't be decoded: its file and its manifest don't fit together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The network has more or fewer outputs than its manifest names.
    #[error("model {model}: the network hands over {seen} outputs, its manifest names {}: {}", names.len(), names.join(", "))]
    Outputs {
        /// The model's name.
        model: String,
        /// Outputs that the network has.
        seen: usize,
        /// Outputs that the manifest names.
        names: Vec<String>,
    },
    /// An output is longer or shorter than the manifest makes it.
    #[error("model {model}: output {tensor} has {seen} elements a frame, right would be {right}")]
    Length {
        /// The model's name.
        model: String,
        /// The output tensor's name.
        tensor: String,
        /// Elements that it has for one frame.
        seen: usize,
        /// What the manifest asks for, and what would fit instead where that is known.
        right: String,
    },
    /// A value that no decoder can work with.
    #[error("model {model}: {key} is {seen}, right would be {right}")]
    Value {
        /// The model's name.
        model: String,
        /// The manifest's key.
        key: &'static str,
        /// Its value.
        seen: String,
        /// What it may be.
        right: String,
    },
}

/// Why one frame has no detections. Outputs are counted from 0 in the manifest's order
/// ([`crate::model::Decoder::outputs`] has their names).
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum DecodeFailed {
    /// The frame came with another number of outputs than was agreed at start.
    #[error("{seen} outputs where {expected} were agreed at start")]
    Outputs {
        /// Outputs there are.
        seen: usize,
        /// Outputs there should be.
        expected: usize,
    },
    /// An output has another size than was agreed at start.
    #[error("output {output} has {seen} elements where {expected} were agreed at start")]
    Length {
        /// Which output.
        output: usize,
        /// Elements it has.
        seen: usize,
        /// Elements it should have.
        expected: usize,
    },
    /// An element is infinite or not a number: the engine is sick.
    #[error(
        "output {output} holds {value} at element {element}: the engine is sick, or its precision overflows"
    )]
    NotFinite {
        /// Which output.
        output: usize,
        /// The first such element.
        element: usize,
        /// What it is.
        value: f32,
    },
    /// A score is more than 1: what the network writes are not the probabilities that its manifest promises.
    #[error(
        "output {output} scores {score} where 1 is the most: is the manifest's activation the network's?"
    )]
    NotProbability {
        /// Which output.
        output: usize,
        /// The highest score.
        score: f32,
    },
}
