//! Deciding: which streams are admitted, and which jobs form the next batch.
//!
//! Only admission makes a [`Schedule`], and only a schedule makes a [`Scheduler`]: a set of streams that was
//! not admitted cannot run.

mod admission;
mod defer;
mod early;
mod excess;
mod gather;
mod guarantee;
mod guard;
mod pace;
mod phase;
mod plan;
mod police;
mod profile;
mod scheduler;
mod spare;
mod trigger;

pub use admission::{Admitted, Lack, Refusal, Reserve, Schedule, queue_depth};
pub use excess::{Delivery, Excess};
pub use plan::{Fits, Plan, Planned, Protection, Remedy};
pub use profile::{Decoding, Profile, Service};
pub use scheduler::Scheduler;
pub use trigger::{Releases, Untimed};
