//! The pool: one slab of memory, made and locked at start, and in it a fixed share of slots for every stream.
//!
//! A camera that babbles or a decoder that hoards starves only itself. A slot is taken as [`FrameMut`] (one
//! owner, writable), frozen into [`FrameRef`] (shared, read-only) and goes home when the last reference is
//! dropped, on whatever thread that is. A foreign owner of buffers (a GStreamer memory, a driver's queue)
//! holds slots by [`Lease`]; when it delivers one, [`Share::adopt`] makes a frame of it that keeps the foreign
//! buffer alive, or [`Lease::deliver`] one without further ado, where the owner asks [`Lease::is_idle`] before it
//! writes again. A share may also be made of a foreign owner's memory ([`Share::of`]): then its buffers are slots.
//!
//! Architecture invariant: nothing here locks, waits or allocates after [`Pool::new`] (an adopted frame's
//! [`Keeper`] is allocated by whoever makes it). The slab outlives every frame, lease and share.
#![allow(unsafe_code)] // Slots are parts of one mapping, told apart by index.

mod mapping;
mod reader;
mod slab;
mod slots;
mod sync;

use crate::image::ImageLayout;
use crate::platform::memory::page_size;
use crate::stream::StreamId;
pub use mapping::{Mapping, Part};
pub use reader::Reader;
use slab::Slab;
use slots::Slots;
use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

/// What one stream gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSpec {
    /// Slots of the share.
    pub slots: usize,
    /// Bytes in each slot; every slot starts on a page of its own.
    pub slot_bytes: usize,
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The sizes don't fit an address space.
    #[error("the frame pool would be larger than the address space; check the streams' sizes")]
    TooLarge,
    /// The kernel has no such memory.
    #[error(
        "can't get {} for the frame pool: {why}; free memory, or lower the streams' number or size",
        Mebibytes(.bytes)
    )]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        why: std::io::Error,
    },
    /// The kernel refused to lock it.
    #[error(
        "can't lock the frame pool ({}) in memory: {why}; the limit RLIMIT_MEMLOCK is {}: raise it \
         (`ulimit -l unlimited`, `memlock` in /etc/security/limits.conf, or LimitMEMLOCK=infinity in the \
         systemd unit), or set lock_memory = \"no\" in the board's [realtime]",
        Mebibytes(.bytes), Limit(.limit)
    )]
    Lock {
        /// Bytes that were to be locked.
        bytes: usize,
        /// The process's limit, `None` without one.
        limit: Option<u64>,
        /// The kernel's answer.
        why: std::io::Error,
    },
}

struct Mebibytes<'a>(&'a usize);

impl fmt::Display for Mebibytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB", *self.0 as f64 / f64::from(1 << 20))
    }
}

struct Limit<'a>(&'a Option<u64>);

impl fmt::Display for Limit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} KiB", bytes / 1024),
            None => f.write_str("not set"),
        }
    }
}

/// All streams' slots.
#[derive(Clone, Debug)]
pub struct Pool {
    slab: Arc<Slab>,
    shares: Vec<Share>,
}

/// A stream's slots. Cheap to clone; every clone takes from the same slots.
#[derive(Clone, Debug)]
pub struct Share(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Memory,
    slot_bytes: usize,
    slots: Slots<View, Keeper>,
    /// Who else reads what is in the slots.
    reader: Option<Arc<dyn Reader>>,
}

/// Where slots lie. It is kept for as long as anything of the share is.
#[derive(Debug)]
enum Memory {
    /// Side by side in the slab.
    Slab {
        _slab: Arc<Slab>,
        /// The first slot's first byte.
        start: NonNull<u8>,
        /// Bytes from one slot to the next.
        pitch: usize,
        /// The first slot's first byte, as the reader sees it.
        address: Option<u64>,
    },
    /// Each for itself, where a foreign owner put it.
    Foreign(Box<[Mapping]>),
}

// SAFETY: `start` points into the slab, which is Send and Sync; who may touch a slot is `slots`' business.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Where in its slot a frame lies, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    base: usize,
    layout: ImageLayout,
}

/// A slot being filled: one owner, writable. Dropped unfrozen, it goes back to its share.
#[derive(Debug)]
pub struct FrameMut {
    share: Share,
    slot: usize,
}

/// A filled slot: shared, read-only. The last one dropped returns the slot to its share, or to the foreign
/// owner that leases it.
#[derive(Debug)]
pub struct FrameRef {
    share: Share,
    slot: usize,
}

/// A slot in a foreign owner's hands. Dropped, the slot goes back to its share as soon as no frame is on it.
#[derive(Debug)]
pub struct Lease {
    share: Share,
    slot: usize,
}

/// What an adopted frame keeps alive until its last reference is dropped, such as a reference on the foreign
/// buffer whose memory is the slot. Dropped on the thread that drops the frame.
pub struct Keeper(pub Box<dyn Any + Send + Sync>);

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

impl Pool {
    /// Maps one slab for all shares (a [`StreamId`] is a position in `specs`), touches every page of it and,
    /// with `lock`, locks it in memory.
    ///
    /// # Errors
    /// No such memory, or the lock was refused; each says what to do.
    pub fn new(specs: &[ShareSpec], lock: bool) -> Result<Self, PoolError> {
        Self::read_by(None, specs, lock)
    }

    /// As [`Pool::new`], for frames that `reader` reads too, by [`FrameRef::device_address`], if it can
    /// ([`Pool::unseen`]).
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn read_by(
        reader: Option<Arc<dyn Reader>>,
        specs: &[ShareSpec],
        lock: bool,
    ) -> Result<Self, PoolError> {
        let page = page_size();
        let mut bytes = 0usize;
        let mut starts = Vec::with_capacity(specs.len());
        for spec in specs {
            let pitch = spec.slot_bytes.checked_next_multiple_of(page).ok_or(PoolError::TooLarge)?;
            starts.push((bytes, pitch));
            bytes = pitch
                .checked_mul(spec.slots)
                .and_then(|share| share.checked_add(bytes))
                .filter(|&bytes| isize::try_from(bytes).is_ok())
                .ok_or(PoolError::TooLarge)?;
        }
        let slab = Arc::new(Slab::new(bytes, lock, reader.as_ref())?);
        let share = |(spec, (offset, pitch)): (&ShareSpec, (usize, usize))| {
            // SAFETY: `offset` is at most `bytes`, the size of the slab.
            let start = unsafe { slab.start().add(offset) };
            let address = slab.address().map(|address| address + offset as u64);
            let memory = Memory::Slab { _slab: slab.clone(), start, pitch, address };
            Share(Arc::new(Inner {
                memory,
                slot_bytes: spec.slot_bytes,
                slots: Slots::new(spec.slots),
                reader: reader.clone(),
            }))
        };
        let shares = specs.iter().zip(starts).map(share).collect();
        Ok(Self { slab, shares })
    }

    /// The slots of a stream.
    ///
    /// # Panics
    /// When the pool was made for fewer streams.
    #[must_use]
    pub fn share(&self, stream: StreamId) -> Share {
        self.shares[stream.index()].clone()
    }

    /// The slots beyond those of so many streams, where the pool was made with any.
    #[must_use]
    pub fn spare(&self, streams: usize) -> Option<Share> {
        self.shares.get(streams).cloned()
    }

    /// Why its reader can't read it where it lies.
    #[must_use]
    pub fn unseen(&self) -> Option<&str> {
        self.slab.unseen()
    }

    /// Memory of the whole pool in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slab.bytes()
    }
}

impl Share {
    /// A share whose slots are a foreign owner's buffers, as long as the shortest of them. They stay mapped until
    /// the share, its leases and all its frames are gone; whoever drops the last of these unmaps them.
    #[must_use]
    pub fn of(buffers: Vec<Mapping>) -> Self {
        let slot_bytes = buffers.iter().map(Mapping::bytes).min().unwrap_or(0);
        let slots = Slots::new(buffers.len());
        Self(Arc::new(Inner { memory: Memory::Foreign(buffers.into()), slot_bytes, slots, reader: None }))
    }

    /// As [`Share::of`], read by whoever else reads this share's slots where they lie.
    ///
    /// # Errors
    /// That one can't, and why. Where it can't read this share's slots either, it makes no difference.
    pub fn beside(&self, mut buffers: Vec<Mapping>) -> Result<Self, String> {
        if let Some(reader) = self.0.reader.as_ref().filter(|_| self.device_address(0).is_some()) {
            buffers.iter_mut().try_for_each(|buffer| buffer.show_to(reader))?;
        }
        Ok(Self::of(buffers))
    }

    /// Takes a free slot; `None` when all are in use. Any thread, any time.
    #[must_use]
    pub fn take(&self) -> Option<FrameMut> {
        let slot = self.0.slots.take()?;
        Some(FrameMut { share: self.clone(), slot })
    }

    /// Slots in the share.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.slots.count()
    }

    /// Slots that are free at the moment.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.0.slots.free()
    }

    /// Bytes in each slot.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.0.slot_bytes
    }

    /// Makes a frame of a leased slot without copying. `addr` is where the layout's offsets count from, at or
    /// after the slot's start. The slot's foreign owner must not write to it before `keeper` is dropped, which
    /// happens with the frame's last reference. A slot that was adopted before with the same `addr` and
    /// `layout` gives another reference to that same frame, and `keeper` is dropped at once.
    ///
    /// # Errors
    /// The keeper, when `addr` is not inside a slot of this share, the layout does not fit between `addr` and
    /// the slot's end, the slot is not leased, or a frame that is on it differs or is just being let go. The
    /// pixels then have to be copied into a slot.
    pub fn adopt(&self, addr: *const u8, layout: ImageLayout, keeper: Keeper) -> Result<FrameRef, Keeper> {
        let Some((slot, base)) = self.locate(addr) else { return Err(keeper) };
        if layout.extent().is_none_or(|extent| extent > self.0.slot_bytes - base) {
            return Err(keeper);
        }
        let spare = self.0.slots.adopt(slot, View { base, layout }, keeper)?;
        let frame = FrameRef { share: self.clone(), slot };
        drop(spare);
        Ok(frame)
    }

    /// The slot that `addr` lies in, and how far from its start.
    fn locate(&self, addr: *const u8) -> Option<(usize, usize)> {
        let within = |start: NonNull<u8>| addr.addr().checked_sub(start.addr().get());
        let (slot, base) = match &self.0.memory {
            Memory::Slab { start, pitch, .. } => {
                let offset = within(*start)?;
                (offset.checked_div(*pitch)?, offset % pitch)
            }
            Memory::Foreign(buffers) => {
                let at = |buffer: &Mapping| within(buffer.start()).filter(|base| *base < self.0.slot_bytes);
                buffers.iter().enumerate().find_map(|(slot, buffer)| Some((slot, at(buffer)?)))?
            }
        };
        (slot < self.slots() && base < self.0.slot_bytes).then_some((slot, base))
    }

    /// First byte of a slot.
    fn address(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < self.slots());
        match &self.0.memory {
            // SAFETY: a slot of this share, so within the slab.
            Memory::Slab { start, pitch, .. } => unsafe { start.add(slot * pitch).as_ptr() },
            Memory::Foreign(buffers) => buffers[slot].start().as_ptr(),
        }
    }

    /// The same, as the reader sees it.
    fn device_address(&self, slot: usize) -> Option<u64> {
        match &self.0.memory {
            Memory::Slab { pitch, address, .. } => address.map(|address| address + (slot * pitch) as u64),
            Memory::Foreign(buffers) => buffers[slot].address(),
        }
    }
}

impl FrameMut {
    /// The slot's bytes.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the slot is `slot_bytes` long, always initialized (mapped zeroed), and ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.share.address(self.slot), self.share.slot_bytes()) }
    }

    /// Ends the filling. `layout` must fit the slot, or the slot comes back.
    ///
    /// # Errors
    /// The slot itself, when the layout contradicts itself or reaches past the slot's end.
    pub fn freeze(self, layout: ImageLayout) -> Result<FrameRef, Self> {
        match layout.extent() {
            Some(end) if end <= self.share.slot_bytes() => {
                let (share, slot) = self.into_parts();
                // SAFETY: `self` was the slot's one owner, and became the first reference.
                unsafe { share.0.slots.freeze(slot, View { base: 0, layout }) };
                Ok(FrameRef { share, slot })
            }
            _ => Err(self),
        }
    }

    /// Hands the slot to a foreign owner.
    #[must_use]
    pub fn into_lease(self) -> Lease {
        let (share, slot) = self.into_parts();
        // SAFETY: `self` was the slot's one owner, and became the lease.
        unsafe { share.0.slots.lease(slot) };
        Lease { share, slot }
    }

    /// Takes the share out without giving the slot back.
    fn into_parts(self) -> (Share, usize) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the share is moved, not copied.
        (unsafe { std::ptr::read(&raw const this.share) }, this.slot)
    }
}

impl Drop for FrameMut {
    fn drop(&mut self) {
        // SAFETY: we are the slot's one owner, for the last time.
        unsafe { self.share.0.slots.give_back(self.slot) };
    }
}

impl FrameRef {
    /// What the bytes mean.
    #[must_use]
    pub fn layout(&self) -> &ImageLayout {
        &self.view().layout
    }

    /// The frame's bytes: from where its layout counts to the end of the slot.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let base = self.view().base;
        // SAFETY: `base` is within the slot (checked when frozen or adopted); the slot is initialized, and not
        // written while a reference is left: not by us, nor by a foreign owner (contract of `adopt`).
        unsafe {
            let start = self.share.address(self.slot).add(base);
            std::slice::from_raw_parts(start, self.share.slot_bytes() - base)
        }
    }

    /// Where [`FrameRef::bytes`] begin as the pool's [`Reader`] sees them; `None` where it can't.
    #[must_use]
    pub fn device_address(&self) -> Option<u64> {
        let slot = self.share.device_address(self.slot)?;
        Some(slot + self.view().base as u64)
    }

    fn view(&self) -> &View {
        // SAFETY: this reference is held for as long as the answer is borrowed from it.
        unsafe { self.share.0.slots.view(self.slot) }.expect("every frame was frozen or adopted")
    }
}

impl Clone for FrameRef {
    fn clone(&self) -> Self {
        // SAFETY: we hold a reference.
        unsafe { self.share.0.slots.share(self.slot) };
        Self { share: self.share.clone(), slot: self.slot }
    }
}

impl Drop for FrameRef {
    fn drop(&mut self) {
        // SAFETY: we hold a reference, for the last time. The keeper is dropped after the slot's state is
        // settled: it may own the lease.
        drop(unsafe { self.share.0.slots.release(self.slot) });
    }
}

impl Lease {
    /// The slot's first byte, page-aligned. Writing through it is sound only while no frame is on the slot.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.share.address(self.slot)
    }

    /// Whether no frame is on the slot: what was read from it has been read. Only the lease's holder puts frames
    /// there, so a slot that is idle stays so until it does.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.share.0.slots.is_idle(self.slot)
    }

    /// Makes a frame of the slot without copying. The holder must not have it written to before
    /// [`Lease::is_idle`]. Allocates nothing.
    ///
    /// `None` when the layout does not fit the slot, or a frame is on it.
    #[must_use]
    pub fn deliver(&self, layout: ImageLayout) -> Option<FrameRef> {
        if !self.is_idle() || layout.extent().is_none_or(|extent| extent > self.len()) {
            return None;
        }
        let nobody = Keeper(Box::new(())); // Of no size, so no allocation.
        self.share.0.slots.adopt(self.slot, View { base: 0, layout }, nobody).ok()?;
        Some(FrameRef { share: self.share.clone(), slot: self.slot })
    }

    /// Bytes in the slot.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a slot has one size; asking for emptiness has no use")]
    pub fn len(&self) -> usize {
        self.share.slot_bytes()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // SAFETY: we hold the lease, for the last time.
        unsafe { self.share.0.slots.end_lease(self.slot) };
    }
}

#[cfg(test)]
mod tests;
