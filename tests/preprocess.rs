//! Pre-processing against its reference: the same numbers, bit for bit, on every path.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "preprocess/kernels.rs"]
mod kernels;

use half::f16;
use ocelli::image::{Colorimetry, ImageLayout, Matrix, Mosaic, PixelFormat, Plane, Range};
use ocelli::infer::preprocess::{PreprocessError, Preprocessor, Row};
use ocelli::model::{Channels, Element, Fit, Input, TensorLayout};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The generator that the reference draws its frames from.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// One case of tests/data/preprocess.json, written by scripts/reference/preprocess.py.
#[derive(Debug, Deserialize)]
struct Case {
    kind: String,
    format: PixelFormat,
    width: u32,
    height: u32,
    planes: Vec<(usize, usize)>,
    bytes: usize,
    #[serde(default)]
    seed: u32,
    /// Bits that samples of two bytes have; absent: all 16.
    #[serde(default = "all_bits")]
    bits: u32,
    matrix: Matrix,
    range: Range,
    input_width: u32,
    input_height: u32,
    layout: TensorLayout,
    element: Element,
    channels: Channels,
    fit: Fit,
    fill: u8,
    scale: [f32; 3],
    offset: [f32; 3],
    at: usize,
    expected_at: usize,
    end: usize,
}

fn all_bits() -> u32 {
    16
}

/// `frame` with no more than `bits` bits set in samples of two bytes.
fn within(bits: u32, mut frame: Vec<u8>) -> Vec<u8> {
    let mask = ((1_u32 << (bits - 8)) - 1) as u8;
    frame.iter_mut().skip(1).step_by(2).for_each(|high| *high &= mask);
    frame
}

impl Case {
    fn input(&self) -> Input {
        Input {
            tensor: "image".into(),
            layout: self.layout,
            element: self.element,
            width: self.input_width,
            height: self.input_height,
            channels: self.channels,
            fit: self.fit,
            fill: self.fill,
            scale: self.scale,
            offset: self.offset,
        }
    }

    fn frame_layout(&self) -> ImageLayout {
        let mut planes = [Plane::default(); 3];
        for (plane, (offset, stride)) in planes.iter_mut().zip(&self.planes) {
            *plane = Plane { offset: *offset, stride: *stride };
        }
        let color = Colorimetry { matrix: self.matrix, range: self.range };
        ImageLayout { format: self.format, width: self.width, height: self.height, planes, color }
    }
}

/// The reference's cases of one kind, each with its own bytes.
fn cases(kind: &str) -> Vec<(Case, Vec<u8>)> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/preprocess");
    let index = std::fs::read_to_string(format!("{data}.json")).unwrap();
    let bytes = std::fs::read(format!("{data}.bin")).unwrap();
    let all: Vec<Case> = serde_json::from_str(&index).unwrap();
    let of_kind = all.into_iter().filter(|case| case.kind == kind);
    of_kind.map(|case| (bytes[case.at..case.end].to_vec(), case)).map(|(bytes, case)| (case, bytes)).collect()
}

/// The row as little-endian bytes. It starts as something that no case expects, so that a gap is seen.
fn run(mut preprocessor: Preprocessor, input: &Input, layout: &ImageLayout, frame: &[u8]) -> Vec<u8> {
    preprocessor.prepare(layout.format, layout.width, layout.height);
    let len = (input.width * input.height) as usize * input.channels.count();
    match input.element {
        Element::F32 => {
            let mut row = vec![f32::NAN; len];
            preprocessor.run(frame, layout, Row::F32(&mut row)).unwrap();
            row.iter().flat_map(|element| element.to_le_bytes()).collect()
        }
        Element::F16 => {
            let mut row = vec![f16::NAN; len];
            preprocessor.run(frame, layout, Row::F16(&mut row)).unwrap();
            row.iter().flat_map(|element| element.to_le_bytes()).collect()
        }
        Element::U8 => {
            let mut row = vec![0xA5; len];
            preprocessor.run(frame, layout, Row::U8(&mut row)).unwrap();
            row
        }
        Element::I8 => {
            let mut row = vec![0x5A; len];
            preprocessor.run(frame, layout, Row::I8(&mut row)).unwrap();
            row.into_iter().map(i8::cast_unsigned).collect()
        }
    }
}

#[test]
fn equals_the_reference_bit_for_bit() {
    let cases = cases("exact");
    for (case, expected) in &cases {
        let (input, layout) = (case.input(), case.frame_layout());
        let frame = within(case.bits, noise(case.bytes, case.seed));
        for preprocessor in [Preprocessor::new(&input), Preprocessor::portable(&input)] {
            let instructions = preprocessor.instructions();
            let found = run(preprocessor, &input, &layout, &frame);
            let first = found.iter().zip(expected).position(|(a, b)| a != b);
            assert!(
                found.len() == expected.len() && first.is_none(),
                "{instructions}, byte {first:?} of {case:?}"
            );
        }
    }
    // The data covers what the definition distinguishes.
    let formats: BTreeSet<_> = cases.iter().map(|(case, _)| case.format.as_str()).collect();
    assert_eq!(formats.len(), PixelFormat::ALL.len());
    let kinds: BTreeSet<_> =
        cases.iter().map(|(case, _)| format!("{:?} {:?}", case.layout, case.element)).collect();
    assert!(kinds.len() >= 5, "{kinds:?}");
}

/// OpenCV rounds to 8 bits after every step and takes the nearest chroma sample: on noise without chroma it is
/// a level away at most, on a smooth frame three.
#[test]
fn is_close_to_opencv() {
    let cases = cases("opencv");
    assert_eq!(cases.len(), 2);
    for (case, bytes) in cases {
        let (frame, expected) = bytes.split_at(case.expected_at - case.at);
        let input = case.input();
        let found = run(Preprocessor::new(&input), &input, &case.frame_layout(), frame);
        let farthest = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let bound = if case.format == PixelFormat::Rgb { 1 } else { 3 };
        assert!(farthest <= bound, "{farthest} levels from OpenCV at most: {}", case.format.as_str());
    }
}

/// The same picture computed in double precision, from the textbook's formulas.
struct Exact<'a> {
    frame: &'a [u8],
    layout: &'a ImageLayout,
}

impl Exact<'_> {
    /// Colour `k` of a mosaic at an image position: between the four nearest pixels of that colour's place in the
    /// pattern; green has two places.
    fn photosites(&self, k: usize, x: f64, y: f64, Mosaic { red_column, red_row, bytes }: Mosaic) -> f64 {
        let (width, height) = (self.layout.width as usize, self.layout.height as usize);
        let Plane { offset, stride } = self.layout.planes[0];
        let at = |column: usize, row: usize| {
            let pixel = &self.frame[offset + row * stride + column * bytes..];
            if bytes == 1 {
                f64::from(pixel[0])
            } else {
                (f64::from(i16::from_le_bytes([pixel[0], pixel[1]])) / 4.0).clamp(0.0, 255.0)
            }
        };
        let place = |column: usize, row: usize| {
            // The pixel of this place at or before a position, the next one, and how far between them it is.
            let within = |position: f64, first: usize, pixels: usize| {
                let count = pixels.div_ceil(2);
                let at = ((position - 0.5 - first as f64) / 2.0).clamp(0.0, (count - 1) as f64);
                let index = at as usize;
                (first + 2 * index, first + 2 * (index + 1).min(count - 1), at.fract())
            };
            let (left, right, fx) = within(x, column, width);
            let (above, below, fy) = within(y, row, height);
            let across = |row: usize| at(left, row) * (1.0 - fx) + at(right, row) * fx;
            across(above) * (1.0 - fy) + across(below) * fy
        };
        match k {
            0 => place(red_column, red_row),
            1 => (place(1 - red_column, red_row) + place(red_column, 1 - red_row)) / 2.0,
            _ => place(1 - red_column, 1 - red_row),
        }
    }

    /// Component `k` (Y, Cb, Cr or R, G, B) at an image position, where pixel centres are at halves.
    fn at(&self, k: usize, x: f64, y: f64) -> f64 {
        if let Some(mosaic) = self.layout.format.mosaic() {
            return self.photosites(k, x, y, mosaic);
        }
        let (width, height) = (self.layout.width as usize, self.layout.height as usize);
        let (half_w, half_h) = (width.div_ceil(2), height.div_ceil(2));
        // Plane, byte offset, bytes a sample, samples and subsampling both ways.
        let (plane, offset, step, (w, h), (sx, sy)) = match (self.layout.format, k) {
            (PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8, 0) => {
                (0, 0, 1, (width, height), (1.0, 1.0))
            }
            (PixelFormat::Nv12, _) => (1, k - 1, 2, (half_w, half_h), (2.0, 2.0)),
            (PixelFormat::I420, _) => (k, 0, 1, (half_w, half_h), (2.0, 2.0)),
            (PixelFormat::Yuy2, 0) => (0, 0, 2, (width, height), (1.0, 1.0)),
            (PixelFormat::Yuy2, _) => (0, 2 * k - 1, 4, (half_w, height), (2.0, 1.0)),
            (PixelFormat::Uyvy, 0) => (0, 1, 2, (width, height), (1.0, 1.0)),
            (PixelFormat::Uyvy, _) => (0, 2 * k - 2, 4, (half_w, height), (2.0, 1.0)),
            (PixelFormat::Rgb, _) => (0, k, 3, (width, height), (1.0, 1.0)),
            (PixelFormat::Bgr, _) => (0, 2 - k, 3, (width, height), (1.0, 1.0)),
            _ => return 128.0,
        };
        let Plane { offset: start, stride } = self.layout.planes[plane];
        let sample = |x: usize, y: usize| f64::from(self.frame[start + y * stride + x * step + offset]);
        let within = |at: f64, count: usize| {
            let at = at.clamp(0.0, (count - 1) as f64);
            (at as usize, (at as usize + 1).min(count - 1), at.fract())
        };
        let (left, right, fx) = within(x / sx - 0.5, w);
        let (above, below, fy) = within(y / sy - 0.5, h);
        let across = |y: usize| sample(left, y) * (1.0 - fx) + sample(right, y) * fx;
        across(above) * (1.0 - fy) + across(below) * fy
    }

    /// Red, green and blue at an image position.
    fn rgb(&self, x: f64, y: f64) -> [f64; 3] {
        let [a, b, c] = std::array::from_fn(|k| self.at(k, x, y));
        if self.layout.format.is_rgb() {
            return [a, b, c];
        }
        let (kr, kb) = match self.layout.color.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let (y, cb, cr) = match self.layout.color.range {
            Range::Limited => {
                ((a - 16.0) * 255.0 / 219.0, (b - 128.0) * 255.0 / 224.0, (c - 128.0) * 255.0 / 224.0)
            }
            Range::Full => (a, b - 128.0, c - 128.0),
        };
        let (red, blue) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| value.clamp(0.0, 255.0))
    }
}

/// Most levels between our value and the exact one. A unit is 1/64 level.
/// - An interpolation along one axis: half a unit by rounding, 255 / 65536 level by its weight. Two of them:
///   1/64 + 2 * 255 / 65536 = 0.0235.
/// - Luma: that, times 255/219; half a unit; half a unit of its weight's last place on 239 levels: 0.0389.
/// - The largest chroma term (blue, BT.709 limited): that, times 2.113; half a unit; half of a weight's last place
///   on twice 128 levels: 0.0614.
///
/// Together 0.1003; a mosaic's green (the mean of two, half a unit more) is far below; green has two chroma terms, but their weights together are smaller and it stays below.
const BOUND: f64 = 0.101;

fn plain(width: u32, height: u32, layout: TensorLayout, fit: Fit) -> Input {
    Input {
        tensor: "image".into(),
        layout,
        element: Element::F32,
        width,
        height,
        channels: Channels::Rgb,
        fit,
        fill: 114,
        scale: [1.0; 3],
        offset: [0.0; 3],
    }
}

fn any_color() -> impl Strategy<Value = Colorimetry> {
    let matrix = prop_oneof![Just(Matrix::Bt601), Just(Matrix::Bt709)];
    let range = prop_oneof![Just(Range::Limited), Just(Range::Full)];
    (matrix, range).prop_map(|(matrix, range)| Colorimetry { matrix, range })
}

/// A layout with `pad` bytes between rows and none after the last: nothing beyond the last pixel is readable.
fn layout(format: PixelFormat, width: u32, height: u32, pad: usize, color: Colorimetry) -> ImageLayout {
    let mut layout = ImageLayout { color, ..ImageLayout::packed(format, width, height) };
    let mut offset = pad;
    for (index, plane) in layout.planes.iter_mut().enumerate().take(format.planes()) {
        let (row, rows) = format.plane_extent(index, width, height);
        *plane = Plane { offset, stride: row + pad };
        offset += plane.stride * rows;
    }
    layout
}

prop_compose! {
    fn any_frame(edge: u32)(
        format in proptest::sample::select(PixelFormat::ALL.to_vec()),
        width in 1..edge, height in 1..edge, pad in 0_usize..40, color in any_color(), seed: u32,
    ) -> (ImageLayout, Vec<u8>) {
        let layout = layout(format, width, height, pad, color);
        let frame = noise(layout.extent().unwrap(), seed);
        // Sensors' samples of two bytes have ten bits; frames that break this are to be answered as well.
        let wide = format.mosaic().is_some_and(|mosaic| mosaic.bytes == 2);
        let bits = if wide && seed % 4 > 0 { 10 } else { 16 };
        let skip = layout.planes[0].offset;
        let frame = [&frame[..skip], &within(bits, frame[skip..].to_vec())].concat();
        (layout, frame)
    }
}

prop_compose! {
    fn any_input(edge: u32)(
        width in 1..edge, height in 1..edge, fill: u8,
        layout in prop_oneof![Just(TensorLayout::Nhwc), Just(TensorLayout::Nchw)],
        element in prop_oneof![Just(Element::F32), Just(Element::F16), Just(Element::U8), Just(Element::I8)],
        channels in prop_oneof![Just(Channels::Rgb), Just(Channels::Bgr), Just(Channels::Gray)],
        fit in prop_oneof![Just(Fit::Stretch), Just(Fit::Letterbox), Just(Fit::Topleft)],
        scale in [-1.5_f32..1.5, -1.5_f32..1.5, -1.5_f32..1.5],
        offset in [-300.0_f32..300.0, -300.0_f32..300.0, -300.0_f32..300.0],
    ) -> Input {
        Input { tensor: "image".into(), layout, element, width, height, channels, fit, fill, scale, offset }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn instruction_sets_make_the_same_bits((layout, frame) in any_frame(150), input in any_input(90)) {
        let best = run(Preprocessor::new(&input), &input, &layout, &frame);
        prop_assert_eq!(best, run(Preprocessor::portable(&input), &input, &layout, &frame));
    }

    #[test]
    fn stays_within_its_bound_of_the_exact_picture(
        (layout, frame) in any_frame(70), width in 1_u32..50, height in 1_u32..50,
    ) {
        let input = plain(width, height, TensorLayout::Nhwc, Fit::Stretch);
        let row = run(Preprocessor::new(&input), &input, &layout, &frame);
        let found: Vec<f32> = row.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let exact = Exact { frame: &frame, layout: &layout };
        for (index, pixel) in found.as_chunks::<3>().0.iter().enumerate() {
            let (x, y) = (index % width as usize, index / width as usize);
            let scale = |at: usize, from: u32, to: u32| (at as f64 + 0.5) * f64::from(from) / f64::from(to);
            let expected = exact.rgb(scale(x, layout.width, width), scale(y, layout.height, height));
            for channel in 0..3 {
                let error = (f64::from(pixel[channel]) - expected[channel]).abs();
                prop_assert!(error <= BOUND, "{error} at {x},{y} channel {channel}");
            }
        }
    }

    /// Whatever a layout claims, the answer is a row or an error.
    #[test]
    fn any_layout_is_answered(
        (layout, frame) in any_frame(20),
        planes in proptest::array::uniform3((0_usize..900, 0_usize..60)), huge: usize, which in 0_usize..6,
    ) {
        let mut layout = ImageLayout { planes: planes.map(|(offset, stride)| Plane { offset, stride }), ..layout };
        match which {
            0 => layout.planes[0].offset = huge,
            1 => layout.planes[0].stride = huge,
            2 => layout.planes[1].offset = huge,
            _ => {}
        }
        let input = plain(9, 7, TensorLayout::Nchw, Fit::Letterbox);
        let mut preprocessor = Preprocessor::new(&input);
        preprocessor.prepare(layout.format, layout.width, layout.height);
        let fits = layout.extent().is_some_and(|extent| extent <= frame.len());
        let mut row = vec![0.0; 9 * 7 * 3];
        prop_assert_eq!(preprocessor.run(&frame, &layout, Row::F32(&mut row)).is_ok(), fits);
    }
}

#[test]
fn one_preprocessor_serves_several_sizes_and_repeats_itself() {
    let input = plain(40, 30, TensorLayout::Nchw, Fit::Letterbox);
    let mut shared = Preprocessor::new(&input);
    let sizes = [(PixelFormat::Nv12, 64, 36), (PixelFormat::Rgb, 200, 9), (PixelFormat::Nv12, 20, 50)];
    for (format, width, height) in sizes {
        shared.prepare(format, width, height);
    }
    for (format, width, height) in sizes.into_iter().chain(sizes) {
        let layout = ImageLayout::packed(format, width, height);
        let frame = noise(layout.extent().unwrap(), width);
        let mut row = vec![f32::NAN; 40 * 30 * 3];
        shared.run(&frame, &layout, Row::F32(&mut row)).unwrap();
        let found: Vec<u8> = row.iter().flat_map(|element| element.to_le_bytes()).collect();
        assert_eq!(
            found,
            run(Preprocessor::new(&input), &input, &layout, &frame),
            "{format:?} {width}x{height}"
        );
    }
}

#[test]
fn white_black_and_border_are_exact() {
    for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Yuy2, PixelFormat::Uyvy] {
        for (luma, expected) in [(235, 255.0), (16, 0.0), (255, 255.0), (0, 0.0)] {
            let layout = ImageLayout::packed(format, 16, 8);
            let mut frame = vec![128; layout.extent().unwrap()];
            let (first, step) = match format {
                PixelFormat::Yuy2 => (0, 2),
                PixelFormat::Uyvy => (1, 2),
                _ => (0, 1),
            };
            frame.iter_mut().take(16 * 8 * step).skip(first).step_by(step).for_each(|byte| *byte = luma);
            let input = plain(8, 8, TensorLayout::Nhwc, Fit::Letterbox);
            let row = run(Preprocessor::new(&input), &input, &layout, &frame);
            for (index, element) in row.as_chunks().0.iter().enumerate() {
                let inside = (2..6).contains(&(index / 24));
                let expected = if inside { expected } else { 114.0 };
                assert_eq!(
                    f32::from_le_bytes(*element),
                    expected,
                    "{format:?}, luma {luma}, element {index}"
                );
            }
        }
    }
}

/// What bilinear demosaicing makes of a mosaic, at the pixels themselves: red and blue as everywhere, green the mean
/// of its two kinds.
#[test]
fn a_mosaic_is_demosaiced_between_its_pixels() {
    // A scene of one colour, whose two kinds of green differ.
    let scene = |format: PixelFormat, shift: u32| {
        let mut green = [90_u16, 110].into_iter().cycle();
        let pattern: Vec<u16> = format.as_str()[..4]
            .chars()
            .map(|color| match color {
                'R' => 200,
                'B' => 30,
                _ => green.next().unwrap(),
            })
            .collect();
        let at = |x: usize, y: usize| pattern[2 * (y % 2) + x % 2] << shift;
        let samples = (0..6).flat_map(move |y| (0..8).map(move |x| (x, y))).map(|(x, y)| at(x, y));
        samples
            .flat_map(|sample| if shift == 0 { vec![sample as u8] } else { sample.to_le_bytes().to_vec() })
            .collect::<Vec<u8>>()
    };
    for format in PixelFormat::ALL {
        let Some(mosaic) = format.mosaic() else { continue };
        let frame = scene(format, if mosaic.bytes == 1 { 0 } else { 2 });
        let layout = ImageLayout::packed(format, 8, 6);
        let input = plain(5, 7, TensorLayout::Nhwc, Fit::Stretch);
        let row = run(Preprocessor::new(&input), &input, &layout, &frame);
        for pixel in row.as_chunks::<12>().0 {
            let channel = |c: usize| f32::from_le_bytes(*pixel[4 * c..].first_chunk().unwrap());
            assert_eq!([0, 1, 2].map(channel), [200.0, 100.0, 30.0], "{format:?}");
        }
    }
    // One red pixel alone, at column 2 and row 2, on black: its neighbours get a half, the diagonal ones a quarter.
    let mut frame = vec![0; 6 * 6];
    frame[2 * 6 + 2] = 200;
    let layout = ImageLayout::packed(PixelFormat::Rggb8, 6, 6);
    let input = plain(6, 6, TensorLayout::Nchw, Fit::Stretch);
    let row = run(Preprocessor::new(&input), &input, &layout, &frame);
    let red: Vec<f32> = row.as_chunks().0.iter().take(36).map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let near = |of: usize| [0.0, 0.5, 1.0, 0.5, 0.0, 0.0][of];
    let expected: Vec<f32> = (0..36).map(|i| 200.0 * near(i % 6) * near(i / 6)).collect();
    assert_eq!(red, expected);
}

#[test]
fn what_does_not_fit_is_refused_and_the_row_left_alone() {
    let input = plain(8, 6, TensorLayout::Nhwc, Fit::Stretch);
    let mut preprocessor = Preprocessor::new(&input);
    let layout = ImageLayout::packed(PixelFormat::Nv12, 16, 10);
    let frame = noise(layout.extent().unwrap(), 1);
    let mut row = vec![-1.0_f32; 8 * 6 * 3];

    let unprepared = PreprocessError::Unprepared { format: PixelFormat::Nv12, width: 16, height: 10 };
    assert_eq!(preprocessor.run(&frame, &layout, Row::F32(&mut row)), Err(unprepared));
    assert!(unprepared.to_string().contains("NV12 16x10"), "{unprepared}");
    preprocessor.prepare(PixelFormat::Nv12, 16, 10);

    for (width, height) in [(16, 12), (0, 10), (16, 0), (u32::MAX, u32::MAX)] {
        preprocessor.prepare(PixelFormat::Nv12, 0, height.min(10));
        let other = ImageLayout { width, height, ..layout };
        let refused = preprocessor.run(&frame, &other, Row::F32(&mut row));
        assert_eq!(refused, Err(PreprocessError::Unprepared { format: PixelFormat::Nv12, width, height }));
    }
    let refused = preprocessor.run(&frame, &layout, Row::U8(&mut [0; 8 * 6 * 3]));
    assert_eq!(refused, Err(PreprocessError::WrongElement { expected: Element::F32, found: Element::U8 }));
    for found in [0, 8 * 6 * 3 - 1] {
        let refused = preprocessor.run(&frame, &layout, Row::F32(&mut row[..found]));
        assert_eq!(refused, Err(PreprocessError::WrongLength { expected: 8 * 6 * 3, found }));
    }
    for found in [0, 160, frame.len() - 1] {
        let refused = preprocessor.run(&frame[..found], &layout, Row::F32(&mut row));
        assert_eq!(refused, Err(PreprocessError::ShortFrame { needed: frame.len(), found }));
    }
    let mut narrow = layout;
    narrow.planes[1].stride = 15;
    let refused = preprocessor.run(&frame, &narrow, Row::F32(&mut row));
    assert_eq!(refused, Err(PreprocessError::BadLayout { format: PixelFormat::Nv12, width: 16, height: 10 }));

    assert!(row.iter().all(|element| *element == -1.0), "a refused frame left something in the row");
    preprocessor.run(&frame, &layout, Row::F32(&mut row)).unwrap();
    assert!(row.iter().all(|element| *element >= 0.0));
}

#[test]
fn an_input_without_pixels_prepares_for_nothing() {
    let input = plain(0, 6, TensorLayout::Nhwc, Fit::Letterbox);
    let mut preprocessor = Preprocessor::new(&input);
    preprocessor.prepare(PixelFormat::Rgb, 4, 4);
    let layout = ImageLayout::packed(PixelFormat::Rgb, 4, 4);
    assert!(preprocessor.run(&[0; 48], &layout, Row::F32(&mut [])).is_err());
}
