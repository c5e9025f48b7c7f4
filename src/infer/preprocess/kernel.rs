//! The one pass over a frame: rows of samples are interpolated horizontally, once each, into lines; two lines
//! are blended, coloured and turned into elements a row of the output at a time.

use super::Row;
use super::color::{Block, Coefficients, Mixer, VALUE_BITS, between};
use super::elements::{Elements, PERIOD_BLOCKS};
use super::grid::{BLOCK, Columns, Grid, MAX_STEP, Sampling, Shuffle, TOUCHED, Tap, WINDOW};
use super::simd::Simd;
use crate::image::{Mosaic, PixelFormat, Plane};
use crate::model::{Channels, Placement};

/// Most components that a format has: a mosaic has green twice.
const COMPONENTS: usize = 4;
/// Half, as a weight.
const HALF: i16 = 1 << 14;
/// Where a sample of 10 bits is white: a quarter of it is 255.
const WIDE_WHITE: i16 = 1020;

/// Samples of one kind: where in the frame they lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    /// Index into [`Plan::grids`].
    grid: usize,
    /// Index of the frame's plane.
    plane: usize,
    /// Bytes from the start of a row to its first sample.
    offset: usize,
    /// The plane's row with its first samples.
    first_row: usize,
    /// Rows from there to the next with samples of this kind.
    row_step: usize,
}

/// What is done with the components' blended values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    /// Luma and chroma to three channels.
    Color,
    /// Luma alone to three equal channels.
    Spread,
    /// Luma alone to one channel.
    Luma,
    /// Three channels as they are.
    Same,
    /// Three channels to their luma.
    Weighed,
}

/// All that can be known before a frame of one format and size comes.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) format: PixelFormat,
    pub(super) width: u32,
    pub(super) height: u32,
    placement: Placement,
    grids: Vec<Grid>,
    components: Vec<Component>,
    mix: Mix,
    /// Whether the last component is a second green, whose mean with the other one counts.
    second_green: bool,
    /// Whether red and blue change places.
    swapped: bool,
}

impl Plan {
    pub(super) fn new(
        format: PixelFormat,
        (width, height): (u32, u32),
        placement: Placement,
        to: Channels,
    ) -> Self {
        use Sampling as S;
        let output = (placement.width, placement.height);
        let grid = |sampling, step| Grid::new((width, height), sampling, (step, false), output);
        let full = |step| grid((S::FULL, S::FULL), step);
        let at = |grid, plane, offset| Component { grid, plane, offset, first_row: 0, row_step: 1 };
        // Grids with their bytes a sample; components as luma, Cb, Cr or as red, green, blue.
        let (grids, mut components) = match format {
            PixelFormat::Nv12 => {
                (vec![full(1), grid((S::HALF, S::HALF), 2)], vec![at(0, 0, 0), at(1, 1, 0), at(1, 1, 1)])
            }
            PixelFormat::I420 => {
                (vec![full(1), grid((S::HALF, S::HALF), 1)], vec![at(0, 0, 0), at(1, 1, 0), at(1, 2, 0)])
            }
            PixelFormat::Yuy2 => {
                (vec![full(2), grid((S::HALF, S::FULL), 4)], vec![at(0, 0, 0), at(1, 0, 1), at(1, 0, 3)])
            }
            PixelFormat::Uyvy => {
                (vec![full(2), grid((S::HALF, S::FULL), 4)], vec![at(0, 0, 1), at(1, 0, 0), at(1, 0, 2)])
            }
            PixelFormat::Rgb => (vec![full(3)], vec![at(0, 0, 0), at(0, 0, 1), at(0, 0, 2)]),
            PixelFormat::Bgr => (vec![full(3)], vec![at(0, 0, 2), at(0, 0, 1), at(0, 0, 0)]),
            PixelFormat::Gray8 => (vec![full(1)], vec![at(0, 0, 0)]),
            _ => {
                format.mosaic().map(|mosaic| photosites(mosaic, (width, height), output)).unwrap_or_default()
            }
        };
        let mix = match (format, to) {
            (_, Channels::Gray) if format.is_rgb() => Mix::Weighed,
            (_, Channels::Gray) => Mix::Luma,
            (PixelFormat::Gray8, _) => Mix::Spread,
            _ if format.is_rgb() => Mix::Same,
            _ => Mix::Color,
        };
        if mix == Mix::Luma {
            components.truncate(1);
        }
        let swapped = to == Channels::Bgr;
        match mix {
            Mix::Color if swapped => components.swap(1, 2),
            Mix::Same if swapped => components.swap(0, 2),
            _ => {}
        }
        let second_green = components.len() == COMPONENTS;
        Self { format, width, height, placement, grids, components, mix, second_green, swapped }
    }

    /// Blocks that make up a line.
    fn blocks(&self) -> usize {
        (self.placement.width as usize).div_ceil(BLOCK)
    }

    /// Most bytes of a row, from its first, that interpolation touches.
    fn reach(&self) -> usize {
        self.components.iter().map(|c| c.offset + self.grids[c.grid].columns.reach).max().unwrap_or(0)
    }
}

/// A mosaic's colours, each on a grid of its own: red, green (in red's rows), blue, green (in blue's).
fn photosites(mosaic: Mosaic, size: (u32, u32), output: (u32, u32)) -> (Vec<Grid>, Vec<Component>) {
    let Mosaic { red_column: x, red_row: y, bytes } = mosaic;
    let sites = [(x, y), (1 - x, y), (1 - x, 1 - y), (x, 1 - y)];
    let grid = |(column, row)| {
        let sampling = (Sampling::every_second(column), Sampling::every_second(row));
        Grid::new(size, sampling, (2 * bytes, bytes == 2), output)
    };
    let component = |(index, (column, row)): (usize, (usize, usize))| Component {
        grid: index,
        plane: 0,
        offset: column * bytes,
        first_row: row,
        row_step: 2,
    };
    (sites.map(grid).into(), sites.into_iter().enumerate().map(component).collect())
}

/// Memory that a frame passes through, allocated at start.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// Per component: lines of even and of odd rows.
    lines: [[Vec<Block>; 2]; COMPONENTS],
    /// A line of the output, by channel.
    planar: [Vec<Block>; 3],
    /// A line of the output, channels side by side.
    packed: Vec<[i16; 3 * BLOCK]>,
    /// A line of the output before it is narrowed.
    floats: Vec<f32>,
    /// A row at the very end of the frame's bytes, with room for what the windows touch beyond it.
    tail: Vec<u8>,
}

impl Scratch {
    /// Grows to what `plan` needs.
    pub(super) fn fit(&mut self, plan: &Plan, elements: &Elements) {
        // Elements are made a period at a time, and a line's last period may go beyond its end.
        let blocks = plan.blocks().max(self.packed.len()).next_multiple_of(PERIOD_BLOCKS);
        for line in self.lines.iter_mut().flatten().chain(&mut self.planar) {
            line.resize(blocks, [0; BLOCK]);
        }
        self.packed.resize(blocks, [0; 3 * BLOCK]);
        self.floats.resize(elements.width * elements.channels, 0.0);
        self.tail.resize(plan.reach().max(self.tail.len()), 0);
    }
}

/// One frame to be turned into one row.
pub(super) struct Work<'a> {
    pub(super) plan: &'a Plan,
    pub(super) elements: &'a Elements,
    pub(super) scratch: &'a mut Scratch,
    /// The frame; checked to hold all rows of all planes.
    pub(super) bytes: &'a [u8],
    pub(super) planes: [Plane; 3],
    pub(super) color: Coefficients,
    /// Checked to have as many elements as the tensor.
    pub(super) row: Row<'a>,
}

/// Does the work with the instructions of `simd`.
#[inline(always)]
pub(super) fn render<S: Simd>(simd: S, work: Work<'_>) {
    let Work { plan, elements, scratch, bytes, planes, color, mut row } = work;
    let Scratch { lines, planar, packed, floats, tail } = scratch;
    let Placement { x, y: top, width, height } = plan.placement;
    let (x, top, width, height) = (x as usize, top as usize, width as usize, height as usize);
    let half = simd.splat(HALF);
    let mixer = Mixer::new(simd, &if plan.swapped { color.swapped() } else { color });
    // The source row that each line holds.
    let mut held = [[usize::MAX; 2]; COMPONENTS];

    for y in (0..top).chain(top + height..elements.height) {
        elements.fill(&mut row, 0, y, elements.width);
    }
    for y in 0..height {
        let mut taps = [Tap::default(); COMPONENTS];
        for (k, component) in plan.components.iter().enumerate() {
            let Grid { columns, rows } = &plan.grids[component.grid];
            taps[k] = rows[y];
            for source in taps[k].index..=taps[k].index + usize::from(taps[k].weight > 0) {
                // Two neighbours are never in each other's place.
                let slot = source % 2;
                if held[k][slot] != source {
                    held[k][slot] = source;
                    let plane = planes[component.plane];
                    let line = component.first_row + component.row_step * source;
                    let from = &bytes[plane.offset + plane.stride * line..];
                    let samples = readable(from, component.offset, columns.reach, tail);
                    interpolate(simd, columns, samples, &mut lines[k][slot]);
                }
            }
        }

        let blend = Blend::new(simd, lines, taps, plan.blocks());
        let mut made = Made { simd, side_by_side: elements.packed, planar, packed };
        for block in 0..plan.blocks() {
            let first = blend.at(0, block);
            match plan.mix {
                Mix::Luma => made.one(block, mixer.gray(first)),
                Mix::Spread => made.three(block, [mixer.gray(first); 3]),
                Mix::Color | Mix::Same | Mix::Weighed => {
                    let mut second = blend.at(1, block);
                    if plan.second_green {
                        second = between(simd, second, blend.at(3, block), half);
                    }
                    let values = [first, second, blend.at(2, block)];
                    match plan.mix {
                        Mix::Color => made.three(block, mixer.rgb(values)),
                        Mix::Weighed => made.one(block, mixer.luma(values)),
                        _ => made.three(block, values),
                    }
                }
            }
        }

        for (plane, affine) in elements.affine.iter().enumerate() {
            let values = if elements.packed { packed.as_flattened() } else { planar[plane].as_flattened() };
            let start = elements.line(plane, top + y) + x * elements.pixel();
            row.put(start, width * elements.pixel(), affine, values, floats);
        }
        if width < elements.width {
            elements.fill(&mut row, 0, top + y, x);
            elements.fill(&mut row, x + width, top + y, elements.width - x - width);
        }
    }
}

/// `reach` bytes from the first sample on: the frame's own where it has so many (what follows a row is read
/// but not used), else a copy of the rest of the frame in `tail`.
#[inline(always)]
fn readable<'a>(row: &'a [u8], offset: usize, reach: usize, tail: &'a mut [u8]) -> &'a [u8] {
    let row = &row[offset..];
    if row.len() >= reach {
        return &row[..reach];
    }
    tail[..row.len()].copy_from_slice(row);
    &tail[..reach]
}

/// One row of samples to one line of the output's width.
#[inline(always)]
fn interpolate<S: Simd>(simd: S, columns: &Columns, row: &[u8], line: &mut [Block]) {
    match (columns.step, columns.wide) {
        (1, _) => interpolate_by::<S, 1, false>(simd, columns, row, line),
        (2, _) => interpolate_by::<S, 2, false>(simd, columns, row, line),
        (3, _) => interpolate_by::<S, 3, false>(simd, columns, row, line),
        (_, false) => interpolate_by::<S, MAX_STEP, false>(simd, columns, row, line),
        (_, true) => interpolate_by::<S, MAX_STEP, true>(simd, columns, row, line),
    }
}

/// The same where samples are `STEP` bytes apart, and have 10 bits if `WIDE`.
#[inline(always)]
fn interpolate_by<S: Simd, const STEP: usize, const WIDE: bool>(
    simd: S,
    columns: &Columns,
    row: &[u8],
    line: &mut [Block],
) {
    const { assert!(VALUE_BITS == 6) };
    let (zero, white) = (simd.splat(0), simd.splat(WIDE_WHITE));
    let value = |sample| match WIDE {
        true => simd.shift_left::<4>(simd.clamp(sample, zero, white)),
        false => simd.shift_left::<6>(sample),
    };
    let shuffles = columns.shuffles.chunks_exact(columns.windows.max(1));
    for ((out, weights), shuffles) in line.iter_mut().zip(&columns.weights).zip(shuffles) {
        let (mut a, mut b) = (zero, zero);
        for Shuffle { start: [low, high], mask } in shuffles {
            let (low, high) = (touched(row, *low), touched(row, *high));
            a = simd.or(a, simd.shuffle([window::<0>(low), window::<0>(high)], mask));
            b = simd.or(b, simd.shuffle([window::<STEP>(low), window::<STEP>(high)], mask));
        }
        simd.store(between(simd, value(a), value(b), simd.load(weights)), out);
    }
}

/// The bytes from `start` on that a pair of windows lies in.
#[inline(always)]
fn touched(row: &[u8], start: usize) -> &[u8; TOUCHED] {
    row[start..].first_chunk().expect("a row is readable as far as its windows reach")
}

#[inline(always)]
fn window<const STEP: usize>(touched: &[u8; TOUCHED]) -> &[u8; WINDOW] {
    touched[STEP..].first_chunk().expect("no step is larger than the largest")
}

/// The lines that an output row lies between.
struct Blend<'a, S: Simd> {
    simd: S,
    above: [&'a [Block]; COMPONENTS],
    below: [&'a [Block]; COMPONENTS],
    weights: [S::Lanes; COMPONENTS],
}

impl<'a, S: Simd> Blend<'a, S> {
    #[inline(always)]
    fn new(
        simd: S,
        lines: &'a [[Vec<Block>; 2]; COMPONENTS],
        taps: [Tap; COMPONENTS],
        blocks: usize,
    ) -> Self {
        let none = [&[][..]; COMPONENTS];
        let mut blend = Self { simd, above: none, below: none, weights: [simd.splat(0); COMPONENTS] };
        for (k, Tap { index, weight }) in taps.into_iter().enumerate() {
            // Without a weight the next row may not exist, and its line holds another.
            let next = index + usize::from(weight > 0);
            blend.above[k] = &lines[k][index % 2][..blocks];
            blend.below[k] = &lines[k][next % 2][..blocks];
            blend.weights[k] = simd.splat(weight);
        }
        blend
    }

    /// Values of component `k`.
    #[inline(always)]
    fn at(&self, k: usize, block: usize) -> S::Lanes {
        let (above, below) = (self.simd.load(&self.above[k][block]), self.simd.load(&self.below[k][block]));
        between(self.simd, above, below, self.weights[k])
    }
}

/// Where a line's values go.
struct Made<'a, S> {
    simd: S,
    side_by_side: bool,
    planar: &'a mut [Vec<Block>; 3],
    packed: &'a mut [[i16; 3 * BLOCK]],
}

impl<S: Simd> Made<'_, S> {
    #[inline(always)]
    fn one(&mut self, block: usize, values: S::Lanes) {
        self.simd.store(values, &mut self.planar[0][block]);
    }

    #[inline(always)]
    fn three(&mut self, block: usize, [a, b, c]: [S::Lanes; 3]) {
        if self.side_by_side {
            self.simd.interleave(a, b, c, &mut self.packed[block]);
        } else {
            self.simd.store(a, &mut self.planar[0][block]);
            self.simd.store(b, &mut self.planar[1][block]);
            self.simd.store(c, &mut self.planar[2][block]);
        }
    }
}
