//! What else than the CPU reads frames.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// An accelerator that reads frames where they lie, by addresses of its own.
pub trait Reader: fmt::Debug + Send + Sync {
    /// Makes memory readable for it, and gives the first byte's address as it sees that. The memory stays where it
    /// is until [`Reader::dismiss`].
    ///
    /// # Errors
    /// It can't read it, and why.
    fn admit(&self, start: NonNull<u8>, bytes: usize) -> Result<u64, String>;

    /// Memory that it admitted is about to go; no frame in it is being read any more.
    fn dismiss(&self, start: NonNull<u8>);
}

/// Memory that a reader has admitted. To be dropped before the memory is.
#[derive(Debug)]
pub struct Shown {
    reader: Arc<dyn Reader>,
    start: NonNull<u8>,
    address: u64,
}

impl Shown {
    /// Shows memory to `reader`, or says why it can't see it.
    pub fn to(reader: &Arc<dyn Reader>, start: NonNull<u8>, bytes: usize) -> Result<Self, String> {
        let address = reader.admit(start, bytes)?;
        Ok(Self { reader: reader.clone(), start, address })
    }

    /// The first byte, as the reader sees it.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.reader.dismiss(self.start);
    }
}
