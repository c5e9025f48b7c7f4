//! The pinned pool: one slab, a fixed share of slots for every stream.

use crate::image::ImageLayout;
use std::sync::{Arc, Mutex};

/// A stream's slots. Cheap to clone; every clone takes from the same slots.
#[derive(Clone, Debug)]
pub struct Share(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Mutex<Vec<Box<[u8]>>>,
    slots: usize,
    slot_bytes: usize,
}

/// A slot being filled: one owner, writable. Dropped unfrozen, it goes back to its share.
#[derive(Debug)]
pub struct FrameMut {
    bytes: Option<Box<[u8]>>,
    share: Share,
}

/// A filled slot: shared, read-only. The last one dropped returns the slot to its share.
#[derive(Clone, Debug)]
pub struct FrameRef(Arc<(FrameMut, ImageLayout)>);

impl Share {
    /// Placeholder-free test constructor: a share on the heap.
    #[must_use]
    pub fn on_heap(slots: usize, slot_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            free: Mutex::new((0..slots).map(|_| vec![0; slot_bytes].into()).collect()),
            slots,
            slot_bytes,
        }))
    }
    /// Takes a free slot; `None` when all are in use.
    #[must_use]
    pub fn take(&self) -> Option<FrameMut> {
        let bytes = self.0.free.lock().ok()?.pop()?;
        Some(FrameMut { bytes: Some(bytes), share: self.clone() })
    }
    /// Slots in the share.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.slots
    }
    /// Bytes in each slot.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.0.slot_bytes
    }
}

impl FrameMut {
    /// The slot's bytes.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut().expect("present until drop")
    }
    /// Ends the filling. `layout` must fit the slot, or the slot comes back.
    ///
    /// # Errors
    /// The slot itself, when the layout contradicts itself or reaches past the slot's end.
    pub fn freeze(self, layout: ImageLayout) -> Result<FrameRef, Self> {
        match layout.extent() {
            Some(end) if end <= self.share.slot_bytes() => Ok(FrameRef(Arc::new((self, layout)))),
            _ => Err(self),
        }
    }
}

impl Drop for FrameMut {
    fn drop(&mut self) {
        if let (Some(bytes), Ok(mut free)) = (self.bytes.take(), self.share.0.free.lock()) {
            free.push(bytes);
        }
    }
}

impl FrameRef {
    /// What the bytes mean.
    #[must_use]
    pub fn layout(&self) -> &ImageLayout {
        &self.0.1
    }
    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.0.bytes.as_ref().expect("present until drop")
    }
}
