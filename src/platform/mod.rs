//! What the operating system gives: the clock, waking up, memory that stays.
//!
//! Stands below the stages because all of them wait and remember. Architecture invariant: no policy here.

pub mod clock;
pub mod exit;
pub mod realtime;
pub mod memory;
mod wake;

pub use wake::Waker;
