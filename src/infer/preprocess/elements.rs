//! From pixel values to tensor elements.

use super::Row;
use super::color::VALUE_BITS;
use super::grid::BLOCK;
use crate::model::{Channels, Input, TensorLayout};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Elements made at once: three vectors, after which the order of channels repeats.
const PERIOD: usize = 24;
/// Blocks that make up whole periods.
pub(super) const PERIOD_BLOCKS: usize = 3;
const _: () = assert!((PERIOD_BLOCKS * BLOCK).is_multiple_of(PERIOD));

/// element = value * scale + offset in one rounding, for elements that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    scale: [f32; PERIOD],
    offset: [f32; PERIOD],
}

impl Affine {
    /// For elements whose channels follow each other as `channels` do, over and over.
    fn new(input: &Input, channels: &[usize]) -> Self {
        let of = |values: &[f32; 3], lane: usize| values[channels[lane % channels.len()]];
        // A value carries fraction bits; taking them off the scale is exact.
        let unit = 1.0 / (1 << VALUE_BITS) as f32;
        Self {
            scale: std::array::from_fn(|lane| of(&input.scale, lane) * unit),
            offset: std::array::from_fn(|lane| of(&input.offset, lane)),
        }
    }

    /// The elements of one period of values.
    #[inline(always)]
    fn made(&self, values: &[i16; PERIOD]) -> [f32; PERIOD] {
        let mut made = [0.0; PERIOD];
        for lane in 0..PERIOD {
            made[lane] = f32::from(values[lane]).mul_add(self.scale[lane], self.offset[lane]);
        }
        made
    }

    /// Elements of `values` into `out`. There are as many values as make whole periods.
    #[inline(always)]
    fn apply(&self, values: &[[i16; PERIOD]], out: &mut [f32]) {
        let (blocks, rest) = out.as_chunks_mut::<PERIOD>();
        let (whole, last) = values.split_at(blocks.len());
        for (block, values) in blocks.iter_mut().zip(whole) {
            *block = self.made(values);
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.made(&last[0])[..rest.len()]);
        }
    }
}

/// A row of the tensor: its shape, and how its elements are made.
#[derive(Clone, Debug)]
pub(super) struct Elements {
    /// Columns of the tensor.
    pub(super) width: usize,
    /// Rows of the tensor.
    pub(super) height: usize,
    /// Channels of the tensor.
    pub(super) channels: usize,
    /// Whether the channels of a pixel lie beside each other, and are more than one.
    pub(super) packed: bool,
    /// One a plane; the first one for packed elements.
    pub(super) affine: Vec<Affine>,
    /// One pixel of the border.
    fill: [f32; 3],
}

impl Elements {
    pub(super) fn new(input: &Input) -> Self {
        let channels = input.channels.count();
        let packed = input.layout == TensorLayout::Nhwc && input.channels != Channels::Gray;
        let affine = if packed {
            vec![Affine::new(input, &[0, 1, 2])]
        } else {
            (0..channels).map(|channel| Affine::new(input, &[channel])).collect()
        };
        let fill = std::array::from_fn(|c| f32::from(input.fill).mul_add(input.scale[c], input.offset[c]));
        Self { width: input.width as usize, height: input.height as usize, channels, packed, affine, fill }
    }

    /// Elements in the whole row.
    pub(super) fn len(&self) -> usize {
        self.width * self.height * self.channels
    }

    /// Elements that one pixel has in a line: all its channels, or one.
    pub(super) fn pixel(&self) -> usize {
        if self.packed { self.channels } else { 1 }
    }

    /// Where the line of pixel row `y` starts in the tensor's plane `plane`.
    pub(super) fn line(&self, plane: usize, y: usize) -> usize {
        (plane * self.height + y) * self.width * self.pixel()
    }

    /// Fills `pixels` pixels from column `x` of pixel row `y` with the border's value.
    pub(super) fn fill(&self, row: &mut Row<'_>, x: usize, y: usize, pixels: usize) {
        for plane in 0..self.affine.len() {
            let start = self.line(plane, y) + x * self.pixel();
            let range = start..start + pixels * self.pixel();
            let values = if self.packed { self.fill } else { [self.fill[plane]; 3] };
            match row {
                Row::F32(row) => repeat(&mut row[range], values, self.packed),
                Row::F16(row) => repeat(&mut row[range], values.map(f16::from_f32), self.packed),
                Row::U8(row) => repeat(&mut row[range], values.map(byte), self.packed),
                Row::I8(row) => repeat(&mut row[range], values.map(signed), self.packed),
            }
        }
    }
}

/// `pixel` over and over, or just its first channel.
fn repeat<T: Copy>(out: &mut [T], pixel: [T; 3], packed: bool) {
    if packed {
        out.as_chunks_mut().0.fill(pixel);
    } else {
        out.fill(pixel[0]);
    }
}

/// Rounded to the nearest whole number, ties to even, and clamped; zero for what is not a number.
#[inline(always)]
fn byte(value: f32) -> u8 {
    value.round_ties_even() as u8
}

/// The same for signed bytes.
#[inline(always)]
fn signed(value: f32) -> i8 {
    value.round_ties_even() as i8
}

impl Row<'_> {
    /// Elements that it has room for.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(row) => row.len(),
            Self::F16(row) => row.len(),
            Self::U8(row) => row.len(),
            Self::I8(row) => row.len(),
        }
    }

    /// Makes `count` elements of `values`, from `start` on. `floats` has room for them.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        start: usize,
        count: usize,
        affine: &Affine,
        values: &[i16],
        floats: &mut [f32],
    ) {
        let (values, floats) = (values.as_chunks().0, &mut floats[..count]);
        match self {
            Self::F32(row) => affine.apply(values, &mut row[start..start + count]),
            Self::F16(row) => {
                affine.apply(values, floats);
                row[start..start + count].convert_from_f32_slice(floats);
            }
            Self::U8(row) => {
                affine.apply(values, floats);
                for (element, value) in row[start..start + count].iter_mut().zip(floats) {
                    *element = byte(*value);
                }
            }
            Self::I8(row) => {
                affine.apply(values, floats);
                for (element, value) in row[start..start + count].iter_mut().zip(floats) {
                    *element = signed(*value);
                }
            }
        }
    }
}
