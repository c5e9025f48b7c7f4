//! The calls to CUDA and TensorRT, against stand-ins for both under AddressSanitizer: right arguments and right results,
//! every failure an error with the jobs handed back, and nothing left behind or used after its end.
//!
//! Each test runs itself again in a process of its own, on the stand-ins.
#![cfg(feature = "tensorrt")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "launching kernels, and talking to the stand-ins")]

mod common;
#[path = "common/conformance.rs"]
mod conformance;
#[allow(dead_code)] // What it needs of it is little.
mod onnx;
#[path = "standin/backend.rs"]
mod backend;
#[path = "standin/build.rs"]
mod build;
#[path = "standin/kernels.rs"]
mod kernels;
#[path = "common/rows.rs"]
mod rows;
