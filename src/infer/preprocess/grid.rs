//! Where each output pixel lies on a plane: indices and weights, computed once for a frame size.

/// Fraction bits of an interpolation weight.
pub(super) const WEIGHT_BITS: u32 = 15;
/// Output pixels that one block of the horizontal pass makes; every line is padded to a multiple of it.
pub(super) const BLOCK: usize = 16;
/// Bytes that one shuffle sees.
pub(super) const WINDOW: usize = 16;
/// Most bytes from one sample to the next.
pub(super) const MAX_STEP: usize = 4;
/// Bytes in which the windows of a pixel's two samples lie.
pub(super) const TOUCHED: usize = WINDOW + MAX_STEP;
/// A shuffle index that gives zero.
const NOTHING: u8 = 0x80;

/// One output pixel on one axis: between sample `index` and the next, `weight` / 2^15 of the way. A weight of
/// zero means that the next sample is not needed and may not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) index: usize,
    pub(super) weight: i16,
}

/// Which pixels of an axis have samples: every `2^shift`-th, the first one `site` half pixels from the first
/// pixel's centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    shift: u32,
    site: u32,
}

impl Sampling {
    /// Every pixel.
    pub(super) const FULL: Self = Self { shift: 0, site: 0 };
    /// Every pair of pixels, in its middle.
    pub(super) const HALF: Self = Self { shift: 1, site: 1 };

    /// The first or the second pixel of every pair.
    pub(super) const fn every_second(from: usize) -> Self {
        Self { shift: 1, site: 2 * from as u32 }
    }
}

/// Taps of `output` pixels over an axis of `pixels` pixels. The formula is the module's.
pub(super) fn taps(
    pixels: u32,
    Sampling { shift, site }: Sampling,
    output: u32,
) -> impl Iterator<Item = Tap> {
    let (n, m) = (i128::from(pixels), i128::from(output));
    let last = ((n + (1 << shift) - 1) >> shift) - 1;
    let denominator = m << (shift + 1);
    (0..m).map(move |x| {
        let numerator = (2 * x + 1) * n - m * i128::from(1 + site);
        if numerator <= 0 {
            return Tap::default();
        }
        let (index, rest) = (numerator / denominator, numerator % denominator);
        if index >= last {
            return Tap { index: last as usize, weight: 0 };
        }
        let weight = ((rest << WEIGHT_BITS) + denominator / 2) / denominator;
        Tap { index: index as usize, weight: weight.min(i128::from(i16::MAX)) as i16 }
    })
}

/// The horizontal axis as shuffles: each half block (8 pixels) is put together out of the same number of
/// 16-byte windows of the row.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// One weight a pixel, zeros up to a whole block.
    pub(super) weights: Vec<[i16; BLOCK]>,
    /// `windows` entries a block.
    pub(super) shuffles: Vec<Shuffle>,
    /// Shuffles a block.
    pub(super) windows: usize,
    /// Bytes from one sample to the next.
    pub(super) step: usize,
    /// Whether a sample has two bytes.
    pub(super) wide: bool,
    /// Bytes of a row, from its first, that the windows touch, pixels' inner offsets apart.
    pub(super) reach: usize,
}

/// One window for each half of a block: where it starts in the row, and which of its bytes go to the eight lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffle {
    pub(super) start: [usize; 2],
    pub(super) mask: [[u8; WINDOW]; 2],
}

impl Columns {
    /// Shuffles for `taps` where samples are `step` bytes apart, and `wide` if they have two.
    pub(super) fn new(taps: &[Tap], step: usize, wide: bool) -> Self {
        let halves: Vec<Vec<(usize, [u8; WINDOW])>> =
            taps.chunks(BLOCK / 2).map(|half| windows(half, step, wide)).collect();
        let count = halves.iter().map(Vec::len).max().unwrap_or(0);
        let window = |half: usize, index: usize| {
            halves.get(half).and_then(|windows| windows.get(index)).copied().unwrap_or((0, [NOTHING; WINDOW]))
        };
        let mut columns = Self { windows: count, step, wide, ..Self::default() };
        for (block, taps) in taps.chunks(BLOCK).enumerate() {
            let mut weights = [0; BLOCK];
            for (weight, tap) in weights.iter_mut().zip(taps) {
                *weight = tap.weight;
            }
            columns.weights.push(weights);
            for index in 0..count {
                let (low, high) = (window(2 * block, index), window(2 * block + 1, index));
                columns.reach = columns.reach.max(low.0.max(high.0) + TOUCHED);
                columns.shuffles.push(Shuffle { start: [low.0, high.0], mask: [low.1, high.1] });
            }
        }
        columns
    }
}

/// The fewest windows, from left to right, that cover up to eight pixels.
fn windows(taps: &[Tap], step: usize, wide: bool) -> Vec<(usize, [u8; WINDOW])> {
    let mut found: Vec<(usize, [u8; WINDOW])> = Vec::new();
    for (lane, tap) in taps.iter().enumerate() {
        let at = tap.index * step;
        match found.last() {
            Some((start, _)) if at - start + usize::from(wide) < WINDOW => {}
            _ => found.push((at, [NOTHING; WINDOW])),
        }
        if let Some((start, mask)) = found.last_mut() {
            mask[2 * lane] = (at - *start) as u8;
            if wide {
                mask[2 * lane + 1] = (at - *start) as u8 + 1;
            }
        }
    }
    found
}

/// One sampling grid of a frame (luma's, chroma's, or a colour's of a mosaic) against the output.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub(super) columns: Columns,
    pub(super) rows: Vec<Tap>,
}

impl Grid {
    /// The grid of a frame of `size` pixels, sampled as `across` and `down` say, for `output` pixels. Samples in
    /// a row are `step` bytes apart, and `wide` if they have two.
    pub(super) fn new(
        size: (u32, u32),
        (across, down): (Sampling, Sampling),
        (step, wide): (usize, bool),
        output: (u32, u32),
    ) -> Self {
        let columns: Vec<Tap> = taps(size.0, across, output.0).collect();
        Self { columns: Columns::new(&columns, step, wide), rows: taps(size.1, down, output.1).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_equal_size_needs_no_interpolation() {
        for (x, tap) in taps(7, Sampling::FULL, 7).enumerate() {
            assert_eq!(tap, Tap { index: x, weight: 0 });
        }
    }

    #[test]
    fn halving_takes_the_middle_of_two() {
        for (x, tap) in taps(8, Sampling::FULL, 4).enumerate() {
            assert_eq!(tap, Tap { index: 2 * x, weight: 1 << 14 });
        }
    }

    #[test]
    fn doubling_clamps_at_the_edges() {
        let quarter = 1 << 13;
        let found: Vec<_> = taps(2, Sampling::FULL, 4).map(|tap| (tap.index, tap.weight)).collect();
        assert_eq!(found, [(0, 0), (0, quarter), (0, 3 * quarter), (1, 0)]);
    }

    #[test]
    fn chroma_is_centred_between_its_pixels() {
        // Five pixels have three chroma samples, at 0.5, 2.5 and 4.5.
        let found: Vec<_> = taps(5, Sampling::HALF, 5).map(|tap| (tap.index, tap.weight)).collect();
        let quarter = 1 << 13;
        assert_eq!(found, [(0, 0), (0, quarter), (0, 3 * quarter), (1, quarter), (1, 3 * quarter)]);
    }

    #[test]
    fn colours_of_a_mosaic_are_where_their_pixels_are() {
        let half = 1 << 14;
        let found = |from| -> Vec<_> {
            taps(6, Sampling::every_second(from), 6).map(|tap| (tap.index, tap.weight)).collect()
        };
        assert_eq!(found(0), [(0, 0), (0, half), (1, 0), (1, half), (2, 0), (2, 0)]);
        assert_eq!(found(1), [(0, 0), (0, 0), (0, half), (1, 0), (1, half), (2, 0)]);
    }

    #[test]
    fn extreme_sizes_stay_within_the_axis() {
        for (pixels, output) in [(u32::MAX, 3), (1, 40_000), (2, 70_000), (3, 1)] {
            for tap in taps(pixels, Sampling::FULL, output) {
                assert!(tap.index + usize::from(tap.weight > 0) < pixels as usize);
                assert!(tap.weight >= 0);
            }
        }
    }

    #[test]
    fn shuffles_pick_every_tap_once() {
        for (pixels, output, step, wide) in [
            (640, 300, 1, false),
            (320, 300, 2, false),
            (1920, 37, 3, false),
            (5, 64, 4, false),
            (300, 17, 1, false),
            (320, 300, 4, true),
            (9, 70, 4, true),
        ] {
            let wanted: Vec<Tap> = taps(pixels, Sampling::FULL, output).collect();
            let columns = Columns::new(&wanted, step, wide);
            let mut found = vec![Vec::new(); wanted.len().next_multiple_of(BLOCK)];
            for (index, shuffle) in columns.shuffles.iter().enumerate() {
                for half in 0..2 {
                    for lane in 0..8 {
                        let [low, high] = [shuffle.mask[half][2 * lane], shuffle.mask[half][2 * lane + 1]];
                        assert_eq!(high, if wide && low != NOTHING { low + 1 } else { NOTHING });
                        if low != NOTHING {
                            assert!(usize::from(low) + usize::from(wide) < WINDOW);
                            let pixel = index / columns.windows * BLOCK + 8 * half + lane;
                            found[pixel].push(shuffle.start[half] + usize::from(low));
                        }
                    }
                }
            }
            for (pixel, found) in found.iter().enumerate() {
                let expected: Vec<_> = wanted.get(pixel).map(|tap| tap.index * step).into_iter().collect();
                assert_eq!(*found, expected, "{pixels} to {output} in steps of {step}, pixel {pixel}");
            }
        }
    }
}
