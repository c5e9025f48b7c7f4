//! The rows that the kernels make of frames, beside those of the CPU's definition of pre-processing.

use half::f16;
use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::infer::preprocess::{Preprocessor, Row};
use ocelli::infer::tensorrt::cuda::Device;
use ocelli::infer::tensorrt::kernels::{FRAME_BYTES, Frame, Kernels};
use ocelli::model::{Element, Input};

/// Has the kernels pre-process batches of frames of these sizes, in each format, and holds the rows to the CPU's, bit for
/// bit. `fill` draws the frames. Gives how many batches there were.
pub fn are_alike(
    device: &Device,
    input: &Input,
    sizes: &[(u32, u32)],
    fill: impl Fn(PixelFormat, &mut [u8]),
) -> Result<usize, String> {
    let said = |why: &dyn std::fmt::Display| why.to_string();
    let stream = device.stream().map_err(|why| said(&why))?;
    let kernels = Kernels::load(device, input).map_err(|why| said(&why))?;
    for format in PixelFormat::ALL {
        let layouts: Vec<ImageLayout> =
            sizes.iter().map(|&(width, height)| ImageLayout::packed(format, width, height)).collect();
        let lengths: Vec<usize> = layouts.iter().map(|layout| layout.extent().unwrap()).collect();
        let mut slots = device.pinned(lengths.iter().sum()).map_err(|why| said(&why))?;
        fill(format, slots.bytes_mut());
        let mut descriptions = device.pinned(layouts.len() * FRAME_BYTES).map_err(|why| said(&why))?;
        let (mut frames, mut start) = (Vec::new(), 0);
        for ((layout, length), description) in
            layouts.iter().zip(lengths).zip(descriptions.bytes_mut().chunks_exact_mut(FRAME_BYTES))
        {
            let frame = Frame::new(layout, slots.address() + start as u64, input).unwrap();
            description.copy_from_slice(&frame.bytes());
            frames.push((*layout, &slots.bytes()[start..][..length]));
            start += length;
        }
        let expected = by_the_cpu(input, &frames);
        let made = device.pinned(expected.len()).map_err(|why| said(&why))?;
        // SAFETY: frames, descriptions and rows outlive the stream's work, which is waited for below.
        let launched =
            unsafe { kernels.launch(&stream, descriptions.address(), layouts.len() as u32, made.address()) };
        launched.map_err(|why| said(&why))?;
        stream.synchronize().map_err(|why| said(&why))?;
        let Input { element, layout, channels, fit, .. } = input;
        assert!(made.bytes() == expected, "{format:?} as {element:?} {layout:?} {channels:?} {fit:?}");
    }
    Ok(PixelFormat::ALL.len())
}

/// All rows, one after the other, as bytes.
fn by_the_cpu(input: &Input, frames: &[(ImageLayout, &[u8])]) -> Vec<u8> {
    let mut preprocessor = Preprocessor::new(input);
    let length = (input.width * input.height) as usize * input.channels.count();
    let mut all = Vec::new();
    for (layout, bytes) in frames {
        preprocessor.prepare(layout.format, layout.width, layout.height);
        match input.element {
            Element::F32 => {
                let mut row = vec![0.0; length];
                preprocessor.run(bytes, layout, Row::F32(&mut row)).unwrap();
                all.extend(row.iter().flat_map(|element| element.to_ne_bytes()));
            }
            Element::F16 => {
                let mut row = vec![f16::ZERO; length];
                preprocessor.run(bytes, layout, Row::F16(&mut row)).unwrap();
                all.extend(row.iter().flat_map(|element| element.to_ne_bytes()));
            }
            Element::U8 => {
                let mut row = vec![0; length];
                preprocessor.run(bytes, layout, Row::U8(&mut row)).unwrap();
                all.extend(row);
            }
            Element::I8 => {
                let mut row = vec![0; length];
                preprocessor.run(bytes, layout, Row::I8(&mut row)).unwrap();
                all.extend(row.into_iter().map(i8::cast_unsigned));
            }
        }
    }
    all
}
