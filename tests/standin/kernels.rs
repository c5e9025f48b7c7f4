//! The kernels' launch.

use super::build::{fails, inside, passes, tell};
use super::rows;
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::tensorrt::cuda::Device;
use ocelli::infer::tensorrt::kernels::{FRAME_BYTES, Frame, Kernels};
use ocelli::model::{Channels, Element, Fit, Input, TensorLayout};

fn input(element: Element, layout: TensorLayout, channels: Channels) -> Input {
    Input {
        tensor: "image".into(),
        layout,
        element,
        width: 37,
        height: 29,
        channels,
        fit: Fit::Letterbox,
        fill: 114,
        scale: [0.9, 1.0, 1.1],
        offset: [1.0, 2.0, 3.0],
    }
}

/// Pre-processes batches of two frames of every format, in memory that both sides see.
fn work() -> Result<(), String> {
    let said = |why: &dyn std::fmt::Display| why.to_string();
    let device = Device::open(0).map_err(|why| said(&why))?;
    assert!(device.integrated && device.capability == 87);
    let stream = device.stream().map_err(|why| said(&why))?;
    let inputs = [
        input(Element::F32, TensorLayout::Nchw, Channels::Rgb),
        input(Element::F16, TensorLayout::Nhwc, Channels::Bgr),
        input(Element::U8, TensorLayout::Nchw, Channels::Gray),
    ];
    for input in &inputs {
        let kernels = Kernels::load(&device, input).map_err(|why| said(&why))?;
        for format in PixelFormat::ALL {
            let layouts = [ImageLayout::packed(format, 64, 36), ImageLayout::packed(format, 51, 47)];
            let [first, second] = layouts.map(|layout| layout.extent().unwrap());
            let mut slots = device.pinned(first + second).map_err(|why| said(&why))?;
            for (at, byte) in slots.bytes_mut().iter_mut().enumerate() {
                *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
            }
            let mut descriptions = device.pinned(2 * FRAME_BYTES).map_err(|why| said(&why))?;
            for (index, start) in [0, first].into_iter().enumerate() {
                let frame = Frame::new(&layouts[index], slots.address() + start as u64, input).unwrap();
                descriptions.bytes_mut()[index * FRAME_BYTES..][..FRAME_BYTES]
                    .copy_from_slice(&frame.bytes());
            }
            let (one, two) = slots.bytes().split_at(first);
            let expected = rows::by_the_cpu(input, &[(layouts[0], one), (layouts[1], two)]);
            let rows = device.pinned(expected.len()).map_err(|why| said(&why))?;
            // SAFETY: frames, descriptions and rows outlive the stream's work, which is waited for below.
            let launched = unsafe { kernels.launch(&stream, descriptions.address(), 2, rows.address()) };
            launched.map_err(|why| said(&why))?;
            stream.synchronize().map_err(|why| said(&why))?;
            assert!(rows.bytes() == expected, "{format:?} as {:?}", input.element);
        }
    }
    Ok(())
}

#[test]
fn on_the_stand_in() {
    if inside() {
        return tell(work());
    }
    let test = "kernels::on_the_stand_in";
    passes(test, &[]);
    let calls = [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuDeviceGetAttribute",
        "cuCtxGetCurrent",
        "cuCtxSetCurrent",
        "cuCtxGetStreamPriorityRange",
        "cuStreamCreateWithPriority",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuMemHostAlloc",
        "cuMemHostGetDevicePointer_v2",
        "cuLaunchKernel",
        "cuStreamSynchronize",
    ];
    for call in calls {
        fails(test, &[("STANDIN_FAIL", call)], &["told to fail"]);
    }
}
