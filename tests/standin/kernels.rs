//! The kernels' launch.

use super::build::{fails, inside, passes, tell};
use super::rows;
use ocelli::infer::tensorrt::cuda::{self, Device};
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
    let device = Device::open(0).map_err(|why| why.to_string())?;
    assert!(device.integrated && device.capability == 86);
    let noise = |_, bytes: &mut [u8]| {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
        }
    };
    let inputs = [
        input(Element::F32, TensorLayout::Nchw, Channels::Rgb),
        input(Element::F16, TensorLayout::Nhwc, Channels::Bgr),
        input(Element::U8, TensorLayout::Nchw, Channels::Gray),
        input(Element::I8, TensorLayout::Nhwc, Channels::Rgb),
    ];
    inputs
        .iter()
        .try_for_each(|input| rows::are_alike(&device, input, &[(64, 36), (51, 47)], noise).map(drop))
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

fn uuid() -> Result<(), String> {
    assert_eq!(cuda::uuid(0).map_err(|why| why.to_string())?, *b"Stand-in's UUID.");
    Ok(())
}

#[test]
fn devices_have_a_uuid() {
    if inside() {
        return tell(uuid());
    }
    let test = "kernels::devices_have_a_uuid";
    passes(test, &[]);
    for call in ["cuInit", "cuDeviceGet", "cuDeviceGetUuid"] {
        fails(test, &[("STANDIN_FAIL", call)], &["told to fail"]);
    }
}
