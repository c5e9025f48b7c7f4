//! Memory that the device reads: its own, and the pool's, which is registered with it.
#![allow(unsafe_code, reason = "the driver's interface")]

use super::cuda::{CudaError, Device, Pinned, bind};
use super::network::ALIGNMENT;
use crate::pool::Reader;
use cudarc::driver::{CudaContext, result, sys};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

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

    fn dismiss(&self, start: NonNull<u8>) {
        if self.bind().is_ok() {
            // SAFETY: registered in `register`, dismissed once, and no batch reads it any more.
            let _ = unsafe { sys::cuMemHostUnregister(start.as_ptr().cast()) };
        }
    }
}

/// The pool's memory as the device reads it: where it lies, once that is registered. It stays cached by the CPU, and
/// remains what it was: drivers of cameras may write into it. Frames in memory that can't be registered are copied to
/// places here, which are made when the first such memory turns up, while a source is opened.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    places: usize,
    pitch: usize,
    memory: OnceLock<Option<Pinned>>,
}

impl Staging {
    /// With so many places for frames of up to so many bytes.
    #[must_use]
    pub fn new(device: &Device, places: usize, frame_bytes: usize) -> Arc<Self> {
        let pitch = frame_bytes.next_multiple_of(ALIGNMENT);
        Arc::new(Self { device: device.clone(), places, pitch, memory: OnceLock::new() })
    }

    /// Bytes from one place to the next.
    #[must_use]
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// Copies a frame to the place of this number: its bytes there, and their address. `None` where there is no room.
    ///
    /// # Safety
    /// Nobody else uses the place until the device is done with it.
    pub unsafe fn copy(&self, place: usize, pixels: &[u8]) -> Option<(&[u8], u64)> {
        let memory = self.memory.get()?.as_ref()?;
        let offset = place * self.pitch;
        if pixels.len() > self.pitch || place >= self.places {
            return None;
        }
        // SAFETY: within the memory, and the caller's alone.
        let copied = unsafe {
            let to = memory.at(offset);
            to.copy_from_nonoverlapping(pixels.as_ptr(), pixels.len());
            std::slice::from_raw_parts(to, pixels.len())
        };
        Some((copied, memory.address() + offset as u64))
    }

    /// Makes the places.
    fn provide(&self) {
        self.memory.get_or_init(|| {
            let memory = self.device.pinned(self.places * self.pitch);
            let failed = "there is no memory to copy frames to that can't be registered, and they fail";
            memory.inspect_err(|why| log::error!("{failed}: {why}")).ok()
        });
    }
}

impl Reader for Staging {
    fn admit(&self, start: NonNull<u8>, bytes: usize) -> Result<u64, String> {
        let registered = if self.device.registers {
            self.device
                .register(start, bytes)
                .map_err(|why| format!("registering {} KiB: {why}", bytes >> 10))
        } else {
            Err("the device can't register memory of the host".to_owned())
        };
        registered.inspect_err(|_| self.provide())
    }

    fn dismiss(&self, start: NonNull<u8>) {
        self.device.dismiss(start);
    }
}
