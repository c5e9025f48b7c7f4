//! The atomics and cells that [`super::slots`] is made of. `tests/pool_loom.rs` compiles the same source
//! against loom's, which tries every interleaving.

pub use std::sync::atomic::{AtomicU64, Ordering};

/// `std::cell::UnsafeCell` with loom's way of getting at the content.
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Reads: `f` gets a pointer that nobody may write through meanwhile.
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Writes: `f` gets a pointer that nobody else may use meanwhile.
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
