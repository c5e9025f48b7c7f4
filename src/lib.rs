//! Ocelli: many cameras, one accelerator, every result before its deadline, and a clear word when that
//! can't be.
//!
//! The order of the modules below is the layering: a module imports only from lines above it, and the stages
//! never import each other. `tests/tree.rs` enforces it.

// Vocabulary: plain data. No I/O, no threads, no unsafe.
pub mod time;
pub mod random;
pub mod stream;
pub mod image;
pub mod detection;
pub mod job;
pub mod cause;
pub mod record;
pub mod stats;
// Description: what a board and its models are.
pub mod config;
pub mod model;
pub mod board;
// Machine: what the operating system gives, queues, and the memory that frames live in.
pub mod platform;
pub mod ring;
pub mod pool;
// Stages: one verb each.
pub mod capture;
pub mod sched;
pub mod infer;
pub mod decode;
pub mod align;
pub mod publish;
pub mod watchdog;
// Heart: the stages composed.
pub mod pipeline;
// Drivers: threads on the real clock, events on a virtual one, and the control plane.
pub mod runtime;
pub mod sim;
pub mod bench;
pub mod telemetry;
