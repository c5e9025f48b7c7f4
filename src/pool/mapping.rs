//! A foreign owner's buffer, mapped as one piece.
#![allow(unsafe_code)] // Mapping memory is a contract with the kernel.

use super::reader::{Reader, Shown};
use crate::platform::memory::page_size;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// A part of a buffer, as its owner's file gives it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'fd> {
    /// The device, or the dma-buf.
    pub file: BorrowedFd<'fd>,
    /// Where the part is in that file.
    pub offset: u64,
    /// Its length.
    pub bytes: usize,
}

/// A buffer of one or several parts in a row, each on pages of its own; unmapped when dropped. The file that it
/// is part of stays open inside the kernel for as long.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    shown: Option<Shown>,
}

// SAFETY: a mapping is an address range; who may touch it is the business of the share that it becomes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `parts` one after the other: each begins where [`Mapping::offsets`] says.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn new(parts: &[Part<'_>]) -> io::Result<Self> {
        let bytes = Self::offsets(parts.iter().map(|part| part.bytes)).last().unwrap_or(0);
        if bytes == 0 || isize::try_from(bytes).is_err() {
            return Err(Errno::INVAL.into());
        }
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let whole = Self { start, bytes, shown: None };
        let offsets = Self::offsets(parts.iter().map(|part| part.bytes));
        for (part, offset) in parts.iter().zip(offsets) {
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
            // SAFETY: `offset` is within the range mapped above.
            let at = unsafe { start.as_ptr().add(offset) };
            // SAFETY: it replaces pages of the range mapped above, which is ours and not in use yet.
            unsafe { mmap(at.cast(), part.bytes, access, flags, part.file, part.offset) }?;
        }
        Ok(whole)
    }

    /// Where parts of these lengths begin in a mapping, and, last, where it ends.
    pub fn offsets(parts: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        let pages = parts.map(|bytes| bytes.checked_next_multiple_of(page_size()).unwrap_or(usize::MAX));
        std::iter::once(0).chain(pages.scan(0usize, |end, bytes| {
            *end = end.saturating_add(bytes);
            Some(*end)
        }))
    }

    /// Lets `reader` read it too, or says why it can't.
    pub(super) fn show_to(&mut self, reader: &Arc<dyn Reader>) -> Result<(), String> {
        self.shown = Some(Shown::to(reader, self.start, self.bytes)?);
        Ok(())
    }

    /// Its first byte, as its reader sees it.
    pub(super) fn address(&self) -> Option<u64> {
        self.shown.as_ref().map(Shown::address)
    }

    /// Its first byte, page-aligned.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes of all parts, each rounded up to whole pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.shown = None;
        // SAFETY: mapped in `new`, unmapped once; all frames hold the share that holds it, so none is left.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}
