//! Why a backend could not be opened.

use std::path::PathBuf;

/// Why a backend could not be opened. The kind decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// What computes is not there, or can't be used (exit 69).
    #[error("{what}; {remedy}")]
    Unavailable {
        /// What went wrong, with names.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// A network can't be used (exit 65).
    #[error("model {model:?} ({}): {what}", file.display())]
    Model {
        /// The model's name on the board.
        model: String,
        /// The network's file.
        file: PathBuf,
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// The operating system refused a thread or memory (exit 71).
    #[error("{0}")]
    System(String),
}
