//! Outputs: everything that takes finished records out of the process.
//!
//! An output has a thread and a ring of its own. A slow or dead reader or a full disk costs that output
//! counted results, and nobody a frame.
