//! The GPU's pre-processing (`cpp/kernels/`): loaded for the device, and launched for a batch of frames.
#![allow(unsafe_code, reason = "launching kernels")]

use super::cuda::{CudaError, Device, bind};
use super::stream::Stream;
use crate::image::{ImageLayout, Matrix, PixelFormat, Range};
use crate::infer::InferError;
use crate::model::{Channels, Element, Input, TensorLayout};
use cudarc::driver::{CudaContext, result, sys};
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

/// Largest edges, as in the kernels' header.
const MAX_FRAME_EDGE: u32 = 65_535;
const MAX_TENSOR_EDGE: u32 = 8192;
/// Threads of a block, across and down, and pixels below each other that a thread makes.
const BLOCK: (u32, u32) = (32, 8);
const ROWS: u32 = 4;

macro_rules! cubin {
    ($architecture:literal) => {
        (
            $architecture,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/cpp/kernels/cubin/preprocess.sm_",
                $architecture,
                ".cubin"
            ))
            .as_slice(),
        )
    };
}

/// The kernels by compute capability, ascending.
static CUBINS: &[(i32, &[u8])] =
    &[cubin!(72), cubin!(80), cubin!(86), cubin!(87), cubin!(89), cubin!(90), cubin!(110), cubin!(120)];

/// The kernels that run on a device, and what they were built for: its own, else the nearest before it of the same major version. Those of boards
/// (72, 87) run on nothing else.
fn cubin(capability: i32) -> Option<(i32, &'static [u8])> {
    let suits = |built: i32| {
        built == capability
            || (built / 10 == capability / 10 && built < capability && ![72, 87].contains(&built))
    };
    CUBINS.iter().rev().find(|(built, _)| suits(*built)).copied()
}

/// One frame of a batch, as the kernels read it: `Frame` in their header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    plane: [u64; 3],
    stride: [u32; 3],
    width: u32,
    height: u32,
    format: u32,
    color: u32,
    left: u32,
    top: u32,
    across: u32,
    down: u32,
    reserved: u32,
}

/// Bytes of a [`Frame`] in memory that the device reads.
pub const FRAME_BYTES: usize = 72;
const _: () = assert!(size_of::<Frame>() == FRAME_BYTES);

impl Frame {
    /// A frame whose bytes start at `address`, as the device sees it, for a model's input. `None` if it is empty or
    /// larger than the kernels reckon with.
    #[must_use]
    pub fn new(layout: &ImageLayout, address: u64, input: &Input) -> Option<Self> {
        let ImageLayout { format, width, height, .. } = *layout;
        if !(1..=MAX_FRAME_EDGE).contains(&width) || !(1..=MAX_FRAME_EDGE).contains(&height) {
            return None;
        }
        let mut frame = Self { width, height, format: number(format), ..Self::default() };
        for (index, plane) in layout.planes.iter().enumerate().take(format.planes()) {
            frame.plane[index] = address.checked_add(u64::try_from(plane.offset).ok()?)?;
            frame.stride[index] = u32::try_from(plane.stride).ok()?;
        }
        let (matrix, range) = (layout.color.matrix, layout.color.range);
        frame.color = u32::from(matrix == Matrix::Bt709) + 2 * u32::from(range == Range::Full);
        let place = input.placement(width, height);
        (frame.left, frame.top, frame.across, frame.down) = (place.x, place.y, place.width, place.height);
        Some(frame)
    }

    /// As it lies in memory.
    #[must_use]
    pub fn bytes(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let planes = self.plane.iter().flat_map(|plane| plane.to_ne_bytes());
        let words =
            [self.width, self.height, self.format, self.color, self.left, self.top, self.across, self.down];
        let words = self.stride.into_iter().chain(words).chain([self.reserved]).flat_map(u32::to_ne_bytes);
        for (to, from) in bytes.iter_mut().zip(planes.chain(words)) {
            *to = from;
        }
        bytes
    }
}

/// The header's number of a format.
fn number(format: PixelFormat) -> u32 {
    match format {
        PixelFormat::Nv12 => 0,
        PixelFormat::I420 => 1,
        PixelFormat::Yuy2 => 2,
        PixelFormat::Uyvy => 3,
        PixelFormat::Rgb => 4,
        PixelFormat::Bgr => 5,
        PixelFormat::Gray8 => 6,
        PixelFormat::Rggb8 => 7,
        PixelFormat::Grbg8 => 8,
        PixelFormat::Gbrg8 => 9,
        PixelFormat::Bggr8 => 10,
        PixelFormat::Rggb10 => 11,
        PixelFormat::Grbg10 => 12,
        PixelFormat::Gbrg10 => 13,
        PixelFormat::Bggr10 => 14,
    }
}

/// `Tensor` in the kernels' header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Tensor {
    width: u32,
    height: u32,
    channels: u32,
    packed: u32,
    fill: u32,
    scale: [f32; 3],
    offset: [f32; 3],
}

const _: () = assert!(size_of::<Tensor>() == 44);

/// Pre-processing for one model, on a device.
pub struct Kernels {
    module: sys::CUmodule,
    function: sys::CUfunction,
    context: Arc<CudaContext>,
    tensor: Tensor,
}

// SAFETY: a module and its functions are bound to no thread.
unsafe impl Send for Kernels {}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("tensor", &self.tensor).finish_non_exhaustive()
    }
}

impl Kernels {
    /// Loads the kernels for this device and a model's input.
    ///
    /// # Errors
    /// There are none for such a device, the input is larger than they reckon with, or the driver refused.
    pub fn load(device: &Device, input: &Input) -> Result<Self, InferError> {
        let unavailable = |what: String| {
            let remedy = "scripts/kernels builds them, for more devices too".to_owned();
            InferError::Unavailable { what, remedy }
        };
        if input.width > MAX_TENSOR_EDGE || input.height > MAX_TENSOR_EDGE {
            return Err(unavailable(format!(
                "the kernels make inputs of up to {MAX_TENSOR_EDGE} pixels an edge"
            )));
        }
        let (_, cubin) = cubin(device.capability).ok_or_else(|| {
            let (major, minor) = (device.capability / 10, device.capability % 10);
            unavailable(format!("this program has no kernels for compute capability {major}.{minor}"))
        })?;
        Self::from_cubin(device, cubin, input)
            .map_err(|why| unavailable(format!("the kernels can't be loaded: {why}")))
    }

    fn from_cubin(device: &Device, cubin: &[u8], input: &Input) -> Result<Self, CudaError> {
        device.bind()?;
        let name = match input.element {
            Element::F32 => c"preprocess_f32",
            Element::F16 => c"preprocess_f16",
            Element::U8 => c"preprocess_u8",
            Element::I8 => c"preprocess_i8",
        };
        // SAFETY: the context is current, and the cubin is whole: it says its own length.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }?;
        let channels = match input.channels {
            Channels::Rgb => 0,
            Channels::Bgr => 1,
            Channels::Gray => 2,
        };
        let tensor = Tensor {
            width: input.width,
            height: input.height,
            channels,
            packed: u32::from(input.layout == TensorLayout::Nhwc),
            fill: u32::from(input.fill),
            scale: input.scale,
            offset: input.offset,
        };
        let context = device.context().clone();
        let mut kernels = Self { module, function: std::ptr::null_mut(), context, tensor };
        // SAFETY: the module was just loaded; should this fail, dropping `kernels` unloads it.
        kernels.function = unsafe { result::module::get_function(module, name.to_owned()) }?;
        Ok(kernels)
    }

    /// Puts the pre-processing of `count` frames into a stream: `frames` is where their [`Frame::bytes`] lie, `out`
    /// where their rows go, one after the other. Returns at once, and does not allocate.
    ///
    /// # Safety
    /// Until the stream has come that far, the device may read `count` descriptions and all rows of all planes that they
    /// name, and may write `count` rows of the input's elements.
    ///
    /// # Errors
    /// The driver's.
    pub unsafe fn launch(&self, stream: &Stream, frames: u64, count: u32, out: u64) -> Result<(), CudaError> {
        let Self { tensor, function, .. } = self;
        let grid = (tensor.width.div_ceil(BLOCK.0), tensor.height.div_ceil(BLOCK.1 * ROWS), count);
        let mut arguments: [*mut c_void; 3] = [
            (&raw const frames).cast_mut().cast(),
            (&raw const *tensor).cast_mut().cast(),
            (&raw const out).cast_mut().cast(),
        ];
        // SAFETY: the kernel takes these three arguments by value, and copies them before this returns; the memory is
        // the caller's promise.
        let launched = unsafe {
            result::launch_kernel(*function, grid, (BLOCK.0, BLOCK.1, 1), 0, stream.raw(), &mut arguments)
        };
        Ok(launched?)
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        if bind(&self.context).is_ok() {
            // SAFETY: the module is unloaded once, and its function is not used any more.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_the_nearest_kernels() {
        let built = |capability| cubin(capability).map(|(built, _)| built);
        for (built_for, _) in CUBINS {
            assert_eq!(built(*built_for), Some(*built_for));
        }
        assert_eq!([built(121), built(88), built(103)], [Some(120), Some(86), None]);
        assert_eq!([built(75), built(70), built(53), built(0)], [None; 4]);
    }
}
