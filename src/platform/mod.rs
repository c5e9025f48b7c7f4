//! What the operating system gives: the clock, waking up, memory that stays, the service manager, watchdogs,
//! sensors.
//!
//! Stands below the stages because all of them wait and remember. Architecture invariant: no policy here.

pub mod clock;
pub mod exit;
pub mod idle;
pub mod realtime;
pub mod memory;
pub mod reset;
pub mod sensors;
pub mod service;
pub mod systemd;
pub mod vigil;
pub mod watchdog_device;
mod wake;

pub use wake::Waker;
