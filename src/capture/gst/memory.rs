//! Upstream writes straight into our slots: an allocator that hands them out, offered to upstream in answer to
//! its ALLOCATION query.
//!
//! A slot stays leased to the GStreamer memory made of it, and that memory goes round in upstream's buffer pool;
//! the slot comes home when the memory is freed. **Upstream never gets an error and never waits for a slot:**
//! when none is left (or it wants more bytes than a slot has), it gets ordinary memory, and the frame that
//! comes in that is copied and counted. The last [`RESERVE`] slots are never leased, so that such frames find
//! room.
#![allow(unsafe_code)] // The allocator's virtual methods and the leased bytes are raw pointers.

use crate::pool::{Lease, Share};
use gst::glib;
use gst::glib::translate::IntoGlibPtr;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::sync::OnceLock;

/// Slots of a share that are never leased to upstream.
pub const RESERVE: usize = 2;

/// A leased slot as GStreamer's wrapped memory wants it.
struct Slot(Lease);

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the slot is `len` initialized bytes at `as_ptr`, ours while the lease lives, which is longer
        // than the borrow. A frame on it is read only while it keeps a reference on the buffer, and GStreamer
        // lets nobody write to a memory that somebody else refers to.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.0.len()) }
    }
}

mod imp {
    use super::*;

    #[derive(Debug, Default)]
    pub struct SlotAllocator {
        pub share: OnceLock<Share>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SlotAllocator {
        const NAME: &'static str = "OcelliSlotAllocator";
        type Type = super::SlotAllocator;
        type ParentType = gst::Allocator;
    }

    impl ObjectImpl for SlotAllocator {}
    impl GstObjectImpl for SlotAllocator {}

    // SAFETY: `alloc` returns a memory that it owns or null, as the virtual method must. `free` stays the
    // parent's and is never called: every memory made here carries the allocator that made it.
    unsafe impl AllocatorImpl for SlotAllocator {
        unsafe fn alloc(&self, size: usize, params: &gst::AllocationParams) -> *mut gst::ffi::GstMemory {
            let memory = self.share.get().and_then(|share| wrap(share, size, params));
            memory.unwrap_or_else(|| gst::Memory::with_size_and_params(size, params)).into_glib_ptr()
        }
    }
}

glib::wrapper! {
    /// Allocates slots of one share.
    pub struct SlotAllocator(ObjectSubclass<imp::SlotAllocator>) @extends gst::Allocator, gst::Object;
}

impl SlotAllocator {
    /// An allocator of `share`'s slots.
    pub fn new(share: Share) -> Self {
        let allocator: Self = glib::Object::new();
        allocator.imp().share.get_or_init(|| share);
        allocator
    }
}

/// A slot as a memory of `size` bytes; `None` without a free slot that fits.
fn wrap(share: &Share, size: usize, params: &gst::AllocationParams) -> Option<gst::Memory> {
    let (prefix, padding) = (params.prefix(), params.padding());
    let end = prefix.checked_add(size)?;
    if share.free_slots() <= RESERVE || end.checked_add(padding)? > share.slot_bytes() {
        return None;
    }
    let mut slot = Slot(share.take()?.into_lease());
    if slot.0.as_ptr().addr() & params.align() != 0 {
        return None;
    }
    if params.flags().contains(gst::MemoryFlags::ZERO_PREFIXED) {
        slot.as_mut()[..prefix].fill(0);
    }
    if params.flags().contains(gst::MemoryFlags::ZERO_PADDED) {
        slot.as_mut()[end..end + padding].fill(0);
    }
    let mut memory = gst::Memory::from_mut_slice(slot);
    memory.get_mut()?.resize(prefix..end);
    Some(memory)
}

/// Answers the ALLOCATION queries that reach `pad`: a pool of slots, and frames with any stride.
pub fn offer(pad: &gst::Pad, share: Share) {
    let allocator = SlotAllocator::new(share);
    let mask = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH;
    pad.add_probe(mask, move |_, info| {
        let answered = match info.query_mut().map(gst::QueryRef::view_mut) {
            Some(gst::QueryViewMut::Allocation(query)) => answer(query, &allocator).is_some(),
            _ => false,
        };
        if answered { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}

fn answer(query: &mut gst::query::Allocation, allocator: &SlotAllocator) -> Option<()> {
    let (caps, need_pool) = query.get_owned();
    let caps = caps?;
    let size = u32::try_from(gst_video::VideoInfo::from_caps(&caps).ok()?.size()).ok()?;
    let params = gst::AllocationParams::default();
    if need_pool {
        let pool = gst_video::VideoBufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&caps), size, 0, 0);
        config.set_allocator(Some(allocator), Some(&params));
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str());
        pool.set_config(config).ok()?;
        query.add_allocation_pool(Some(&pool), size, 0, 0);
    }
    query.add_allocation_param(Some(allocator), params);
    query.add_allocation_meta::<gst_video::VideoMeta>(None);
    Some(())
}
