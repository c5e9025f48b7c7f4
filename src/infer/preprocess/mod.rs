//! Pre-processing: a frame, wherever its planes lie, becomes one row of a model's input tensor, in one pass.
//!
//! # The arithmetic
//! Exact integers up to the last step, so that any implementation that follows these lines makes the same bits:
//! `scripts/reference/preprocess.py` does in NumPy, and `cpp/kernels/preprocess.h` on GPUs. `>>` rounds down. All
//! values below fit 16 signed bits (the blue and red sums before their clamp fit 17), every product 32.
//!
//! A **value** `p` is a pixel value with 6 fraction bits: 64 to a level, 0 to 16320 (255 * 64). A **weight** has 15
//! fraction bits. Scaling a value by a weight rounds half up:
//! ```text
//! scale(a, w) = (a * w + 16384) >> 15
//! ```
//! **Samples.** One of 8 bits is a value when multiplied by 64. Of one with 10 bits (16 bits in the frame, read as
//! a signed number) a quarter counts, its two lower bits as a fraction: `max(0, min(1020, sample)) * 16`.
//!
//! **Positions.** Pixel centres lie at halves. Chroma is sited in the centre of the pixels that it belongs to (as
//! in JPEG and MPEG-1), both ways; so each plane is interpolated on its own grid. An axis of `n` pixels,
//! subsampled by `2^s` to `c = ceil(n / 2^s)` samples, the first of them `t` half pixels from the first pixel's
//! centre (0, or 1 for chroma with s = 1), that becomes `m` output pixels: output `x` lies at
//! `((2x + 1) n - m (1 + t)) / d` samples, `d = m 2^(s+1)`. With `i` the quotient rounded down and `r` the rest,
//! ```text
//! w = min((r * 32768 + d / 2) / d, 32767)       where 0 <= i < c - 1
//! i = 0,     w = 0                              left of the first sample
//! i = c - 1, w = 0                              from the last sample on
//! ```
//! **Interpolation**, of each component, first along the row, then between two such rows (where `w` is 0 the
//! second operand counts for nothing):
//! ```text
//! between(a, b, w) = a + scale(b - a, w)        a, b: samples * 64
//! ```
//! **A mosaic** has four kinds of samples, each in one of the four places of its pattern of two by two pixels. Each
//! kind is interpolated like a plane of its own, on the grid of its pixels: s = 1, and t = 0 in the pattern's first
//! row or column, 2 in its second. Green is the mean of the two greens, `between(green1, green2, 16384)`. So red
//! and blue are those of bilinear demosaicing; green, which has two samples a pattern, is a little smoother than
//! that, and its two kinds may differ without leaving a checkerboard. The frame is taken as it is: linear, without
//! the sensor's black level, white balance and gamma, which are the ISP's affair, or the model's.
//!
//! **Luma to the full range**: `l = y - 16 * 64; y' = l + scale(l, 5387)`, that is * 255/219, for limited range, and
//! `y' = y` for full range.
//!
//! **Colour**: with `u = 2 (cb - 128 * 64)` and `v = 2 (cr - 128 * 64)`,
//! ```text
//! red   = y' + v + scale(v, R)
//! green = y' - scale(u, Gu) - scale(v, Gv)
//! blue  = y' + u + scale(u, B)
//! ```
//! | | R | Gu | Gv | B |
//! |---|---|---|---|---|
//! | BT.601 limited | -6619 | 6419 | 13320 | 282 |
//! | BT.601 full | -9798 | 5638 | 11700 | -3736 |
//! | BT.709 limited | -3396 | 3494 | 8731 | 1842 |
//! | BT.709 full | -6966 | 3069 | 7670 | -2366 |
//!
//! They follow from Kr and Kb (ITU-R BT.601, BT.709), Kg = 1 - Kr - Kb, and k = 255/224 for limited, 1 for full range:
//! R = k (1 - Kr) - 1, B = k (1 - Kb) - 1, Gu = k (1 - Kb) Kb / Kg, Gv = k (1 - Kr) Kr / Kg, each times 32768 and
//! rounded to the nearest. (Twice the chroma times half the coefficient keeps the weights below one; the whole
//! chroma term of red is k * 2 (1 - Kr).)
//!
//! **Gray** is `y'` of a Y'CbCr or GRAY8 frame. Of an RGB or BGR frame or a mosaic it is `green + scale(red - green, Kr) +
//! scale(blue - green, Kb)` with the layout's matrix: Kr, Kb = 9798, 3736 (BT.601) or 6966, 2366 (BT.709). A GRAY8
//! frame's `y'` is all three channels of a colour input; its range counts.
//!
//! **Clamp** to 0..=16320, then the **element**: `fma(p, scale[c] / 64, offset[c])` in f32, rounded once (the
//! division is exact; the border's `p` is `fill * 64`). An f16 element is that rounded to nearest, ties to even;
//! a u8 or i8 element is that rounded to nearest, ties to even, and clamped to 0..=255 or -128..=127.
//!
//! All of it together is within 0.101 levels of the same formulas in real numbers; `tests/preprocess.rs` derives
//! the bound and checks it.
//!
//! # How it is fast
//! Every row of samples that is needed is interpolated once, into a line of the output's width, and kept while
//! the next output row may need it. That is where pixels come from irregular places: they are picked by byte
//! shuffles out of 16-byte windows, from tables made at start. All the rest is straight lanes of 16 bits.
//!
//! Architecture invariant: the kernel is one generic source. What differs between instruction sets is a dozen
//! operations on lanes (`simd`), each tested against plain Rust.

mod color;
mod elements;
mod grid;
mod kernel;
mod simd;

use crate::image::{ImageLayout, PixelFormat};
use crate::model::{Element, Input};
use color::Coefficients;
use elements::Elements;
use half::f16;
use kernel::{Plan, Scratch, Work};
use thiserror::Error;

/// One job's row in a batch's input tensor.
#[derive(Debug)]
pub enum Row<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// 16-bit floats.
    F16(&'a mut [f16]),
    /// Bytes.
    U8(&'a mut [u8]),
    /// Signed bytes.
    I8(&'a mut [i8]),
}

impl Row<'_> {
    /// Type of its elements.
    #[must_use]
    pub const fn element(&self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::F16(_) => Element::F16,
            Self::U8(_) => Element::U8,
            Self::I8(_) => Element::I8,
        }
    }
}

/// Why a frame was not turned into a row. The row is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PreprocessError {
    /// Nobody announced this format and size at start.
    #[error("pre-processing was not prepared at start for a frame of {} {width}x{height}", format.as_str())]
    Unprepared {
        /// The frame's format.
        format: PixelFormat,
        /// The frame's width in pixels.
        width: u32,
        /// The frame's height in pixels.
        height: u32,
    },
    /// The row's element type is not the model input's.
    #[error("the model's input wants elements of type {expected:?}, the row has {found:?}")]
    WrongElement {
        /// The model input's.
        expected: Element,
        /// The row's.
        found: Element,
    },
    /// The row is not one job's share of the tensor.
    #[error("a row of the model's input has {expected} elements, the one given has {found}")]
    WrongLength {
        /// Elements of the input: width * height * channels.
        expected: usize,
        /// Elements of the row.
        found: usize,
    },
    /// The layout contradicts itself.
    #[error("the frame's layout ({} {width}x{height}) has a stride shorter than its row, or is without end", format.as_str())]
    BadLayout {
        /// The frame's format.
        format: PixelFormat,
        /// The frame's width in pixels.
        width: u32,
        /// The frame's height in pixels.
        height: u32,
    },
    /// The layout reaches past the frame's bytes.
    #[error("the frame has {found} bytes, its layout reaches to byte {needed}: a truncated frame?")]
    ShortFrame {
        /// Bytes that the layout spans.
        needed: usize,
        /// Bytes that there are.
        found: usize,
    },
}

/// The instructions that a pre-processor uses.
#[derive(Clone, Copy, Debug)]
enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(simd::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(simd::Neon),
}

impl Instructions {
    /// The best that this processor has.
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = simd::Avx2::detect() {
            return Self::Avx2(avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(neon) = simd::Neon::detect() {
            return Self::Neon(neon);
        }
        Self::Portable
    }
}

/// Turns frames into rows of one model's input.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    input: Input,
    elements: Elements,
    plans: Vec<Plan>,
    scratch: Scratch,
    instructions: Instructions,
}

impl Preprocessor {
    /// For a model's input, with the best instructions that this processor has.
    #[must_use]
    pub fn new(input: &Input) -> Self {
        Self { instructions: Instructions::detect(), ..Self::portable(input) }
    }

    /// The same results without any special instructions.
    #[must_use]
    pub fn portable(input: &Input) -> Self {
        Self {
            input: input.clone(),
            elements: Elements::new(input),
            plans: Vec::new(),
            scratch: Scratch::default(),
            instructions: Instructions::Portable,
        }
    }

    /// Name of the instructions in use.
    #[must_use]
    pub const fn instructions(&self) -> &'static str {
        match self.instructions {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => "neon",
        }
    }

    /// Makes ready for frames of this format and size, at start: tables and memory are allocated here, never
    /// in [`run`](Self::run). An empty frame or input can't be prepared for; running one is refused.
    pub fn prepare(&mut self, format: PixelFormat, width: u32, height: u32) {
        let empty = [width, height, self.input.width, self.input.height].contains(&0);
        if empty || self.plan(format, width, height).is_some() {
            return;
        }
        let placement = self.input.placement(width, height);
        let plan = Plan::new(format, (width, height), placement, self.input.channels);
        self.scratch.fit(&plan, &self.elements);
        self.plans.push(plan);
    }

    fn plan(&self, format: PixelFormat, width: u32, height: u32) -> Option<usize> {
        self.plans.iter().position(|plan| (plan.format, plan.width, plan.height) == (format, width, height))
    }

    /// Turns the frame in `bytes` into the elements of `row`: every one of them is written.
    ///
    /// # Errors
    /// Each of [`PreprocessError`]; the row is untouched then.
    pub fn run(&mut self, bytes: &[u8], layout: &ImageLayout, row: Row<'_>) -> Result<(), PreprocessError> {
        let ImageLayout { format, width, height, planes, color } = *layout;
        let unprepared = PreprocessError::Unprepared { format, width, height };
        let plan = &self.plans[self.plan(format, width, height).ok_or(unprepared)?];
        if row.element() != self.input.element {
            return Err(PreprocessError::WrongElement { expected: self.input.element, found: row.element() });
        }
        if row.len() != self.elements.len() {
            return Err(PreprocessError::WrongLength { expected: self.elements.len(), found: row.len() });
        }
        let needed = layout.extent().ok_or(PreprocessError::BadLayout { format, width, height })?;
        if needed > bytes.len() {
            return Err(PreprocessError::ShortFrame { needed, found: bytes.len() });
        }
        let (elements, scratch, color) = (&self.elements, &mut self.scratch, Coefficients::of(color));
        let work = Work { plan, elements, scratch, bytes, planes, color, row };
        match self.instructions {
            Instructions::Portable => kernel::render(simd::Portable, work),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(avx2) => avx2.render(work),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(neon) => neon.render(work),
        }
        Ok(())
    }
}
