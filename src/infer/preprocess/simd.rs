//! The few operations on sixteen lanes that everything else is written in.
//!
//! The kernels are one source, compiled once for each implementation. An implementation is a value that
//! exists only where the processor has its instructions, so that using one is proof enough.

use super::grid::BLOCK;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;

/// Operations on sixteen lanes of `i16`. Sums and differences wrap; no caller lets them.
pub(super) trait Simd: Copy {
    /// Sixteen lanes.
    type Lanes: Copy;

    /// The same value in all lanes.
    fn splat(self, value: i16) -> Self::Lanes;
    /// Lanes from memory.
    fn load(self, from: &[i16; BLOCK]) -> Self::Lanes;
    /// Lanes to memory.
    fn store(self, lanes: Self::Lanes, to: &mut [i16; BLOCK]);
    /// a + b.
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// a - b.
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// a + b, no further than the ends of `i16`.
    fn saturating_add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `low <= a <= high`.
    fn clamp(self, a: Self::Lanes, low: Self::Lanes, high: Self::Lanes) -> Self::Lanes;
    /// (a * w + 2^14) >> 15: `a` times a weight of 15 fraction bits, rounded half up.
    fn scale(self, a: Self::Lanes, w: Self::Lanes) -> Self::Lanes;
    /// Bits of both.
    fn or(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// a << BITS, for 0 <= BITS < 16.
    fn shift_left<const BITS: i32>(self, a: Self::Lanes) -> Self::Lanes;
    /// Bytes of two windows, each by its own mask, into the low and the high eight lanes: bytes `2 * lane` and
    /// `2 * lane + 1` of a mask say which byte of the window becomes the lane's low and its high byte; 0x80 gives
    /// zero.
    fn shuffle(self, windows: [&[u8; 16]; 2], masks: &[[u8; 16]; 2]) -> Self::Lanes;
    /// The lanes of three interleaved: a0 b0 c0 a1 b1 c1 and so on.
    fn interleave(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes, to: &mut [i16; 3 * BLOCK]);
}

/// No special instructions: what the others have to equal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Simd for Portable {
    type Lanes = [i16; BLOCK];

    #[inline(always)]
    fn splat(self, value: i16) -> Self::Lanes {
        [value; BLOCK]
    }

    #[inline(always)]
    fn load(self, from: &[i16; BLOCK]) -> Self::Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, lanes: Self::Lanes, to: &mut [i16; BLOCK]) {
        *to = lanes;
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn saturating_add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i].saturating_add(b[i]))
    }

    #[inline(always)]
    fn clamp(self, a: Self::Lanes, low: Self::Lanes, high: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i].max(low[i]).min(high[i]))
    }

    #[inline(always)]
    fn scale(self, a: Self::Lanes, w: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| ((i32::from(a[i]) * i32::from(w[i]) + (1 << 14)) >> 15) as i16)
    }

    #[inline(always)]
    fn or(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shift_left<const BITS: i32>(self, a: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|i| a[i] << BITS)
    }

    #[inline(always)]
    fn shuffle(self, windows: [&[u8; 16]; 2], masks: &[[u8; 16]; 2]) -> Self::Lanes {
        std::array::from_fn(|i| {
            let picked = |which: usize| match masks[i / 8][i % 8 * 2 + which] {
                byte if byte & 0x80 == 0 => windows[i / 8][usize::from(byte & 15)],
                _ => 0,
            };
            i16::from_le_bytes([picked(0), picked(1)])
        })
    }

    #[inline(always)]
    fn interleave(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes, to: &mut [i16; 3 * BLOCK]) {
        for (i, pixel) in to.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = [a[i], b[i], c[i]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every operation of `simd` against the portable one.
    fn agree<S: Simd>(
        simd: S,
        a: [i16; 16],
        b: [i16; 16],
        c: [i16; 16],
        bytes: [[u8; 16]; 2],
        masks: [[u8; 16]; 2],
    ) {
        let load = |lanes: &[i16; 16]| simd.load(lanes);
        let back = |lanes: S::Lanes| {
            let mut out = [0; 16];
            simd.store(lanes, &mut out);
            out
        };
        let (la, lb, lc) = (load(&a), load(&b), load(&c));
        assert_eq!(back(simd.splat(a[0])), Portable.splat(a[0]));
        assert_eq!(back(simd.add(la, lb)), Portable.add(a, b));
        assert_eq!(back(simd.sub(la, lb)), Portable.sub(a, b));
        assert_eq!(back(simd.saturating_add(la, lb)), Portable.saturating_add(a, b));
        assert_eq!(back(simd.clamp(la, lb, lc)), Portable.clamp(a, b, c));
        // -32768 * -32768 is the one product that instruction sets disagree on; weights are never that low.
        let weights = b.map(|w| w.max(-i16::MAX));
        assert_eq!(back(simd.scale(la, load(&weights))), Portable.scale(a, weights));
        assert_eq!(back(simd.or(la, lb)), Portable.or(a, b));
        assert_eq!(back(simd.shift_left::<6>(la)), Portable.shift_left::<6>(a));
        assert_eq!(back(simd.shift_left::<4>(la)), Portable.shift_left::<4>(a));
        let windows = [&bytes[0], &bytes[1]];
        assert_eq!(back(simd.shuffle(windows, &masks)), Portable.shuffle(windows, &masks));
        let (mut found, mut expected) = ([0; 48], [0; 48]);
        simd.interleave(la, lb, lc, &mut found);
        Portable.interleave(a, b, c, &mut expected);
        assert_eq!(found, expected);
    }

    fn masks() -> impl Strategy<Value = [[u8; 16]; 2]> {
        any::<[[u8; 16]; 2]>()
            .prop_map(|halves| halves.map(|half| half.map(|byte| if byte > 170 { 0x80 } else { byte % 16 })))
    }

    proptest! {
        #[test]
        fn instruction_sets_agree(
            a: [i16; 16], b: [i16; 16], c: [i16; 16], bytes: [[u8; 16]; 2], masks in masks(),
        ) {
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = Avx2::detect() {
                agree(avx2, a, b, c, bytes, masks);
            }
            #[cfg(target_arch = "aarch64")]
            if let Some(neon) = Neon::detect() {
                agree(neon, a, b, c, bytes, masks);
            }
            agree(Portable, a, b, c, bytes, masks);
        }
    }
}
