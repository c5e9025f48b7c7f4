//! Cameras behind V4L2 device nodes.

pub mod mjpeg;
