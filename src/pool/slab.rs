//! One piece of memory from the operating system, page-aligned, touched, and locked where asked.
#![allow(unsafe_code)] // Mapping memory is a contract with the kernel.

use super::PoolError;
use super::reader::{Reader, Shown};
use crate::platform::memory;
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap_anonymous, munmap};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Zeroed memory that stays where it is until dropped.
#[derive(Debug)]
pub struct Slab {
    start: NonNull<u8>,
    bytes: usize,
    /// To whom, or why not.
    shown: Option<Result<Shown, String>>,
}

// SAFETY: the slab is an address range; who may touch which part of it is `slots`' business.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Maps `bytes` (a page at least), every page present from the start, and shows them to `reader`, if it can see them.
    pub fn new(bytes: usize, lock: bool, reader: Option<&Arc<dyn Reader>>) -> Result<Self, PoolError> {
        let bytes = bytes.max(memory::page_size());
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .map_err(|why| PoolError::Map { bytes, why: why.into() })?;
        let start = NonNull::new(start.cast()).ok_or(PoolError::TooLarge)?;
        let mut slab = Self { start, bytes, shown: None };
        if lock {
            // SAFETY: the range was mapped above and is ours.
            unsafe { mlock(start.as_ptr().cast(), bytes) }.map_err(|why| PoolError::Lock {
                bytes,
                limit: memory::lock_limit(),
                why: why.into(),
            })?;
        }
        slab.shown = reader.map(|reader| Shown::to(reader, start, bytes));
        Ok(slab)
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its first byte, as its reader sees it.
    pub fn address(&self) -> Option<u64> {
        self.shown.as_ref()?.as_ref().ok().map(Shown::address)
    }

    /// Why its reader can't see it.
    pub fn unseen(&self) -> Option<&str> {
        self.shown.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Its size, whole pages or a multiple of what was asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.shown = None;
        // SAFETY: mapped in `new`, unmapped once; all frames hold the slab by `Arc`, so none is left.
        // A failure leaves the memory mapped, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
