//! Memory that the device reads: its own, and the pool's, which is registered with it.
#![allow(unsafe_code, reason = "the driver's interface")]

use super::cuda::{CudaError, Device, bind};
use crate::pool::Reader;
use cudarc::driver::{CudaContext, result, sys};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory of the device.
pub struct DeviceMemory {
    address: sys::CUdeviceptr,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceMemory").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl DeviceMemory {
    /// Where it lies, aligned to 256 bytes.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // The context may be gone after an error of the device; then its memory is too.
        if bind(&self.context).is_ok() {
            // SAFETY: allocated by `Device::memory`, and freed once.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

impl Device {
    /// Memory of the device, of a byte at least. What is in it is not said.
    ///
    /// # Errors
    /// There is not that much.
    pub fn memory(&self, bytes: usize) -> Result<DeviceMemory, CudaError> {
        self.bind()?;
        let bytes = bytes.max(1);
        // SAFETY: the context is current. What comes back is freed by `DeviceMemory` alone.
        let address = unsafe { result::malloc_sync(bytes) }?;
        Ok(DeviceMemory { address, bytes, context: self.context().clone() })
    }

    /// Locks memory for the device, and gives its address there.
    fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<u64, CudaError> {
        self.bind()?;
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the pool says that the memory is mapped, and that it stays so until it is dismissed.
        unsafe { sys::cuMemHostRegister_v2(start.as_ptr().cast(), bytes, flags) }.result()?;
        let mut address = 0;
        // SAFETY: just registered, with DEVICEMAP.
        let asked =
            unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut address, start.as_ptr().cast(), 0) }.result();
        if let Err(why) = asked {
            self.dismiss(start);
            return Err(why.into());
        }
        Ok(address)
    }
}

/// The device reads the pool's memory where it lies, once that is registered. It stays cached by the CPU, and remains
/// what it was: drivers of cameras may write into it.
impl Reader for Device {
    fn admit(&self, start: NonNull<u8>, bytes: usize) -> Result<u64, String> {
        if !self.registers {
            return Err("the device can't register memory of the host".to_owned());
        }
        self.register(start, bytes).map_err(|why| format!("registering {} KiB: {why}", bytes >> 10))
    }

    fn dismiss(&self, start: NonNull<u8>) {
        if self.bind().is_ok() {
            // SAFETY: registered in `register`, dismissed once, and no batch reads it any more.
            let _ = unsafe { sys::cuMemHostUnregister(start.as_ptr().cast()) };
        }
    }
}
