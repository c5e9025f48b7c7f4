//! The rows that the CPU's definition of pre-processing makes of frames.

use half::f16;
use ocelli::image::ImageLayout;
use ocelli::infer::preprocess::{Preprocessor, Row};
use ocelli::model::{Element, Input};

/// All of them, one after the other, as bytes.
pub fn by_the_cpu(input: &Input, frames: &[(ImageLayout, &[u8])]) -> Vec<u8> {
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
        }
    }
    all
}
